"""Code objects that are gone before their name is asked for."""

import collections
import os
import re
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import harness


class CodeTest(unittest.TestCase):
    def check(self, interval_us):
        words = 'collapsed,wall'
        run = harness.measured(os.path.join(HERE, 'shortlived.py'), [4], [words], interval_us)
        truth = {int(number): wall for number, wall in run.printed().items()}
        seen = collections.Counter()
        unresolved = 0
        for stack in run.stacks(words):
            leaf = stack.frames[-1]
            if leaf.name == '[unresolved]':
                unresolved += stack.value
                continue
            own = re.match(r'short_([0-9]+)\Z', leaf.name)
            if own:
                number = int(own.group(1))
                self.assertEqual(leaf.file, 'short_%05d.py' % number)
                self.assertIn(leaf.line - number % 500, (1, 2, 3))
                self.assertIn(number, truth)
                seen[number] += stack.value * 1000
        known = sum(truth.values())
        # A name that is one object late gives one function twice its time and the next none.
        error = sum(abs(seen[number] - wall) for number, wall in truth.items())
        print('%d us: %d code objects, named %.1f%% of the time, unresolved %d us (%d frames), misplaced %.1f%%' % (
            interval_us, len(truth), 100 * sum(seen.values()) / known, unresolved, run.stats['frames_unresolved'],
            100 * error / known))
        return sum(seen.values()) / known, error / known, unresolved, run


class OftenSampled(CodeTest):
    def test_shares(self):
        named, error, unresolved, run = self.check(100)
        self.assertGreater(named, 0.5)
        self.assertLess(error, 0.35)
        if unresolved:
            self.assertGreater(run.stats['frames_unresolved'], 0)


class RarelySampled(CodeTest):
    def test_names(self):
        """One sample a code object at most: most die before the next tick."""
        named, _, _, _ = self.check(1000)
        self.assertGreater(named, 0.3)


if __name__ == '__main__':
    harness.main()
