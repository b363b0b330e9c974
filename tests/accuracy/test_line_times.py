"""How much time each line gets, not only that it may."""

import collections
import json
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import harness

NOISE = 0.03  # of a share of 6,000 samples, five times what chance makes of it


class LineTimesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        run = harness.measured(os.path.join(HERE, 'line_times.py'), [6000],
                               ['collapsed,cpu', 'collapsed,samples', 'speedscope', 'speedscope,function'], 250, ['-f'])
        cls.lines, cls.callers, cls.jit = run.printed()
        cls.leaves, cls.calls = collections.Counter(), collections.Counter()
        cls.samples = sum(stack.value for stack in run.stacks('collapsed,samples') if stack.frames[-1].name == 'five')
        for stack in run.stacks('collapsed,cpu'):  # who is kept from its core stands for long where it is
            names = [frame.name for frame in stack.frames]
            if names[-1] == 'five':
                cls.leaves[stack.frames[-1].line] += stack.value
                cls.calls[stack.frames[-2].line] += stack.value
        cls.stats = run.stats
        cls.titles = [json.loads(run.texts[words])['name'] for words in ('speedscope', 'speedscope,function')]
        print('with the JIT:' if cls.jit else 'without the JIT:', sorted(cls.leaves.items()), sorted(cls.calls.items()))

    def share(self, *lines):
        return sum(self.leaves[line] for line in lines) / sum(self.leaves.values())

    def test_lines_of_callers(self):
        """Exact, with the JIT too."""
        self.assertEqual(set(self.calls), set(self.callers))
        for line in self.callers:
            self.assertAlmostEqual(self.calls[line] / sum(self.calls.values()), 0.5, delta=NOISE)

    def test_equal_lines(self):
        """The JIT tells only where something could last have been called: time may count for a line before its own, never
        for one after it."""
        around = 1 - self.share(*self.lines)
        if not self.jit:
            self.assertLess(around, 0.1)
            for line in self.lines:
                self.assertAlmostEqual(self.share(line), (1 - around) / 5, delta=NOISE)
        for count in range(1, 6):
            until = range(1, self.lines[count - 1] + 1)
            self.assertGreater(self.share(*until), count / 5 - 0.1 - NOISE)

    def test_jit_is_told(self):
        """What may have a line that is not its own is counted, and the output says so where it shows lines."""
        self.assertEqual(self.titles[1], 'pyprof')
        if self.jit:
            self.assertGreater(self.stats['samples_jit'], 0.9 * self.samples)
            self.assertRegex(self.titles[0], r'\Apyprof, [0-9.]+ % in JIT code: innermost lines may be too early there\Z')
        else:
            self.assertEqual((self.stats['samples_jit'], self.titles[0]), (0, 'pyprof'))


if __name__ == '__main__':
    harness.main()
