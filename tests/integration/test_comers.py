"""Threads that come and go, four at a time. Of those that compute for 9 ms or more nearly all are seen, under their names;
their CPU time in sum is what they used, less what may fall between ticks; each stack begins where a thread does, and has
frames of such a thread only."""

import collections
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import collapsed
import harness


class ThreadsTest(unittest.TestCase):
    def test_come_and_go(self):
        words = 'collapsed,cpu,idle'
        run = harness.measured(os.path.join(HERE, 'comers.py'), [300], [words], 200)
        truth = run.printed()
        seen = collections.Counter()
        for stack in run.stacks(words):
            if stack.thread != 'MainThread':
                seen[stack.thread] += stack.value * 1000
                self.assertEqual(stack.frames[0].name.rpartition('.')[2], '_bootstrap', stack)
                for frame in stack.frames:
                    if frame.name in collapsed.SPECIAL:
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
        print('%d threads, %.1f%% of their cpu time, %.1f%% of the ticks missed' % (len(truth), 100 * total / known,
                                                                                 100 * missed))
        self.assertGreater(total, (0.95 - missed / 2) * known)
        self.assertLess(total, 1.02 * known)


if __name__ == '__main__':
    harness.main()
