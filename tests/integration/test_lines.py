"""The line of every frame is the one that CPython itself has, for random functions in random layouts.

fuzz_lines.py stops threads in chains of calls, and asks CPython (sys._current_frames) and the profiler.
"""

import os
import re
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import collapsed
import harness


def base(path):
    return path.rpartition('/')[2]


class LinesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        seed = int(os.environ.get('PYPROF_SEED', '1'))
        # With less memory so many threads would not each have a name of their own.
        run = harness.Run(os.path.join(HERE, 'fuzz_lines.py'), [seed, 40], [], 2000, ['-m', 256 << 20])
        result = run.printed()
        cls.threads = result['threads']
        cls.dumps = result['dumps']

    def test_against_current_frames(self):
        frames = 0
        far = 0
        wrong = []
        self.assertGreater(len(self.threads), 1000)
        for name, expected, lines in self.threads:
            self.assertEqual(len(lines), 1, '%s stood still, and has %d stacks: %s' % (name, len(lines), lines))
            stack = collapsed.parse_line(lines[0] + ' 1')
            seen = [tuple(frame) for frame in stack.frames]
            # CPython has no line for some instructions; what is shown then is nobody's truth.
            known = [(function, base(file), seen[at][2] if line is None and at < len(seen) else line)
                     for at, (function, file, line) in enumerate(expected)]
            frames += len(known)
            far += sum(line > 65535 for _, _, line in known)
            if seen != known:
                wrong.append('%s:\n  is  %s\n  was %s' % (name, known, seen))
        print('%d threads, %d frames, %d of them at lines above 65535, %d wrong' % (len(self.threads), frames, far,
                                                                                   len(wrong)))
        self.assertGreater(far, 1000)
        self.assertEqual(wrong, [], 'not even once:\n' + '\n'.join(wrong[:5]))

    def test_dump(self):
        """The dump has the same frames, leaf first, one paragraph a thread."""
        paragraphs = {}
        for text in self.dumps:
            for paragraph in re.split(r'\n\n+', text):
                match = re.search(r'fuzz [0-9]+', paragraph.split('\n', 1)[0])
                if match:
                    paragraphs[match.group()] = paragraph
        for name, expected, _ in self.threads:
            self.assertIn(name, paragraphs)
            seen = re.findall(r'(\S+) \(([^()]*):([0-9]+)\)', paragraphs[name].split('\n', 1)[1])
            seen = [(function, base(file), int(line)) for function, file, line in seen]
            known = [(function, base(file), line) for function, file, line in reversed(expected)]
            if not any(line is None for _, _, line in known):
                self.assertEqual(seen, known)


if __name__ == '__main__':
    harness.main()
