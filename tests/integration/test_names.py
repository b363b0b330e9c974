"""Names of functions and files of every kind come out as they are: escaped in collapsed text, raw in JSON."""

import json
import os
import re
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import harness

COLLAPSED = 'collapsed,wall'
SPEEDSCOPE = 'speedscope,wall'
SHORT = {'n': '\n', 'r': '\r', 't': '\t', '\\': '\\'}


def unescape(text):
    def one(match):
        code = match.group(1)
        return chr(int(code[1:], 16)) if len(code) > 1 else SHORT[code]
    return re.sub(r'\\(x[0-9a-f]{2}|u[0-9a-f]{4}|.)', one, text)


def base(path):
    return path.rpartition('/')[2]


class NamesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_ = harness.Run(os.path.join(HERE, 'names.py'), [20], [COLLAPSED, SPEEDSCOPE], 1000)
        cls.expected = cls.run_.printed()

    def test_unescape(self):
        self.assertEqual(unescape(r'a\x3b\\n\n\\x3b'), 'a;\\n\n\\x3b')

    @classmethod
    def is_there(cls, name, file, first):
        leaves = {unescape('%s (%s:%d)' % stack.frames[-1]) for stack in cls.run_.stacks(COLLAPSED)}
        return bool(leaves.intersection('%s (%s:%d)' % (name, base(file), first + line) for line in range(3)))

    def test_collapsed(self):
        for name, file, first in self.expected:
            self.assertTrue(self.is_there(name, file, first), 'not there: %r in %r' % (name, file))

    def test_collapsed_lines(self):
        """CPython makes the loader of a file before it runs that (Python/pythonrun.c, set_main_loader)."""
        text = self.run_.texts[COLLAPSED]
        self.assertTrue(text.endswith('\n'))
        root = r'(<module> \(names\.py|FileLoader\.__init__ \(<frozen importlib\._bootstrap_external>):[0-9]+\)'
        for line in text.split('\n')[:-1]:
            self.assertRegex(line, r'\Athread MainThread;' + root + r'[^\x00-\x1f\x7f]* [0-9]+\Z')

    def test_speedscope(self):
        document = json.loads(self.run_.texts[SPEEDSCOPE])
        frames = {(frame['name'], frame.get('file')) for frame in document['shared']['frames']}
        for name, file, _ in self.expected:
            self.assertTrue(any(is_name in (name, '%s (%s)' % (name, is_file)) and is_file == file
                                for is_name, is_file in frames), 'not there: %r in %r' % (name, file))

    def test_half_a_pair(self):
        """All files were decoded as UTF-8 before, and the function's time is still there."""
        halves = [stack.value for stack in self.run_.stacks(COLLAPSED)
                  if any(frame.file == 'half.py' for frame in stack.frames)]
        self.assertGreater(sum(halves), 15000)


class SameFilesTest(unittest.TestCase):
    """Files of equal names are told apart, by no more of their paths than it takes."""
    SHOWN = ['app.pyz/alpha/util.py', 'beta/util.py', 'lib/alpha/util.py', 'util.py', 'other.py']

    def test_in_every_output(self):
        words = ['collapsed,samples', 'collapsed,samples,function', SPEEDSCOPE]
        run = harness.Run(os.path.join(HERE, 'same_files.py'), [], words, 500)
        for collapsed in words[:2]:
            files = {frame.file for stack in run.stacks(collapsed) for frame in stack.frames if frame.name == 'work'}
            self.assertEqual(files, set(self.SHOWN))
        document = json.loads(run.texts[SPEEDSCOPE])
        files = {frame['file'] for frame in document['shared']['frames'] if frame['name'] == 'work'}
        self.assertEqual(files, set(run.printed()))


if __name__ == '__main__':
    harness.main()
