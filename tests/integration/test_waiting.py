"""Hundreds of threads wait, for which nothing is done one by one: their times and samples are all there, and who wakes, if only
for microseconds, or computes without the GIL, is seen."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import harness

OUTPUTS = ('collapsed,wall,idle', 'collapsed,wall', 'collapsed,cpu,idle', 'collapsed,samples,idle', 'collapsed,samples')


class WaitingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_ = harness.measured(os.path.join(HERE, 'waiting.py'), (), OUTPUTS)
        cls.clocks = cls.run_.printed()
        cls.parsed = {words: cls.run_.stacks(words) for words in OUTPUTS}

    def sum(self, words, thread, leaf):
        """Seconds, or samples, of a thread in which a function was the innermost."""
        return sum(stack.value for stack in self.parsed['collapsed,' + words] if stack.thread == thread and
                   stack.frames[-1].name.rpartition('.')[2] == leaf) / (1 if words.startswith('samples') else 1e6)

    def test_who_waits(self):
        seen = {name: self.sum('wall,idle', name, 'waits') for name in self.clocks['waits']}
        for name, wall in self.clocks['waits'].items():
            self.assertLess(abs(seen[name] - wall), 0.02 * wall, '%s: %f, not %f' % (name, seen[name], wall))
            self.assertLess(self.sum('wall', name, 'waits'), 0.02 * wall, name)
        wall = sum(self.clocks['waits'].values())
        self.assertLess(abs(sum(seen.values()) - wall), 0.005 * wall)

    def test_each_has_a_sample_in_each_tick(self):
        """All of these are there while the others wake, for as long."""
        counts = [self.sum('samples,idle', name, 'waits') for name in self.clocks['waits']]
        ticks = self.run_.stats['ticks']
        self.assertGreater(min(counts), 0.5 * ticks)
        rates = [count / wall for count, wall in zip(counts, self.clocks['waits'].values())]
        self.assertLess(max(rates) - min(rates), 0.05 * max(rates))

    def test_samples_are_all_there(self):
        self.assertEqual(sum(stack.value for stack in self.parsed['collapsed,samples,idle']), self.run_.stats['samples'])
        self.assertEqual(sum(stack.value for stack in self.parsed['collapsed,samples']),
                         self.run_.stats['samples'] - self.run_.stats['samples_idle'])

    def test_who_wakes_for_a_moment_is_seen_where_it_waits_next(self):
        for place in ('here', 'there'):
            seen = sum(self.sum('wall,idle', name, place) for name in self.clocks['wakes'])
            wall = sum(clocks[place] for clocks in self.clocks['wakes'].values())
            self.assertLess(abs(seen - wall), 0.03 * wall, '%s: %f, not %f' % (place, seen, wall))

    def test_who_computes_without_the_gil_runs(self):
        for name, (waited, used) in self.clocks['computes'].items():
            self.assertLess(abs(self.sum('cpu,idle', name, 'computes') - used), 0.03 * used, name)
            # What the machine took away from the thread may be called either.
            self.assertGreater(self.sum('wall', name, 'computes'), 0.96 * used, name)
            self.assertLess(abs(self.sum('wall,idle', name, 'pauses') - waited), 0.03 * waited, name)
            self.assertLess(self.sum('wall', name, 'pauses'), 0.02 * waited, name)


if __name__ == '__main__':
    harness.main()
