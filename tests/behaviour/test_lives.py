"""Things with short lives: threads that come and go, code objects that are gone before their name is asked for."""

import collections
import os
import re
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'truth'))
import harness


class ThreadsTest(unittest.TestCase):
    def test_come_and_go(self):
        words = 'collapsed,cpu,idle'
        run = harness.Run(os.path.join(HERE, 'comers.py'), [5], [words], 200)
        truth = run.printed()
        seen = collections.Counter()
        for stack in run.stacks(words):
            if stack.thread != 'MainThread':
                seen[stack.thread] += stack.value * 1000
                self.assertEqual(stack.frames[0].name.rpartition('.')[2], '_bootstrap', stack)
                for frame in stack.frames:
                    if frame.name in harness.SPECIAL:
                        continue
                    self.assertIn(frame.file, ('threading.py', 'comers.py', '_weakrefset.py'), stack)
        long = [name for name, cpu in truth.items() if cpu >= 9000000]
        self.assertGreater(len(long), 30)
        missing = [name for name in long if name not in seen]
        # What a machine took from the sampler, whole ticks of it, it cannot have seen.
        missed = run.stats['ticks_missed'] / (run.stats['ticks'] + run.stats['ticks_missed'])
        self.assertLessEqual(len(missing), (0.02 + missed / 2) * len(long), missing)
        # A thread's beginning and end lie between ticks: no more than those may be lost, and nothing may be added.
        total, known = sum(seen[name] for name in long), sum(truth[name] for name in long)
        print('%d threads, %.1f%% of their cpu time' % (len(truth), 100 * total / known))
        self.assertGreater(total, (0.95 - missed / 2) * known)
        self.assertLess(total, 1.02 * known)


class CodeTest(unittest.TestCase):
    def check(self, interval_us):
        words = 'collapsed,wall'
        run = harness.Run(os.path.join(HERE, 'shortlived.py'), [4], [words], interval_us)
        truth = {int(number): wall for number, wall in run.printed().items()}
        seen = collections.Counter()
        unresolved = 0
        for stack in self.stacks(run.texts[words]):
            leaf, value = stack
            if leaf.startswith('[unresolved]'):
                unresolved += value
                continue
            if leaf == '[unsettled]':
                continue
            match = re.match(r'(.*) \((.*):([0-9]+)\)\Z', leaf)
            self.assertTrue(match, leaf)
            name, file, line = match.groups()
            own = re.match(r'short_([0-9]+)\Z', name)
            if own:
                number = int(own.group(1))
                self.assertEqual(file, 'short_%05d.py' % number)
                self.assertIn(int(line) - number % 500, (1, 2, 3))
                self.assertIn(number, truth)
                seen[number] += value * 1000
        known = sum(truth.values())
        # A name that is one object late gives one function twice its time and the next none.
        error = sum(abs(seen[number] - wall) for number, wall in truth.items())
        print('%d us: %d code objects, named %.1f%% of the time, unresolved %d us (%d frames), misplaced %.1f%%' % (
            interval_us, len(truth), 100 * sum(seen.values()) / known, unresolved, run.stats['frames_unresolved'],
            100 * error / known))
        return sum(seen.values()) / known, error / known, unresolved, run

    @staticmethod
    def stacks(text):
        for line in text.splitlines():
            stack, _, value = line.rpartition(' ')
            yield stack.rpartition(';')[2], int(value)

    def test_exec(self):
        named, error, unresolved, run = self.check(100)
        self.assertGreater(named, 0.5)
        self.assertLess(error, 0.35)
        if unresolved:
            self.assertGreater(run.stats['frames_unresolved'], 0)

    def test_exec_slow_sampler(self):
        """One sample a code object at most: most die before the next tick."""
        self.check(1000)


if __name__ == '__main__':
    harness.main()
