"""pyprof_top and the table say of a recorded program what its collapsed text adds up to."""

import collections
import os
import re
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import harness

VIEWS = ['wall', 'cpu', 'gil', 'wall,idle', 'samples', 'wall,function', 'cpu,function,idle', 'samples,function',
         'wall,function,mine', 'gil,mine']
Row = collections.namedtuple('Row', 'self total samples_self samples_total name')


def rows(text):
    return [Row(*map(int, line.split('\t')[:4]), line.split('\t')[4]) for line in text.splitlines()]


def frames(line):
    """Those of a line of collapsed text, without the thread, and the value."""
    stack, _, value = line.rpartition(' ')
    return stack.split(';')[1:], int(value)


def added_up(text):
    """By frame: the value of the stacks that end in it, of those that it is on, and how many these are."""
    sums = collections.defaultdict(lambda: [0, 0, 0])
    for line in text.splitlines():
        stack, value = frames(line)
        for frame in set(stack):
            sums[frame][1] += value
            sums[frame][2] += 1
        sums[stack[-1]][0] += value
    return sums


class TopTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        outputs = ['table', 'table,cpu,function'] + [form + ',' + view for view in VIEWS for form in ('collapsed', 'top')]
        cls.run_ = harness.Run(os.path.join(HERE, 'top.py'), [12, 0.1], outputs[:16], 1000)
        cls.more = harness.Run(os.path.join(HERE, 'top.py'), [60, 0.02], outputs[:2] + outputs[16:], 1000, ['-d', '16'])

    def texts(self, view):
        run = self.run_ if 'top,' + view in self.run_.texts else self.more
        return run.texts['top,' + view], run.texts['collapsed,' + view]

    def test_rows_agree_with_collapsed_text(self):
        """Collapsed text has microseconds: what a stack loses to rounding, the next one gets, so a sum of some stacks may
        be off by less than one for each; the sum of all is right to half of one."""
        for view in VIEWS:
            with self.subTest(view=view):
                top, text = map(str, self.texts(view))
                top, sums, unit = rows(top), added_up(text), 1 if 'samples' in view else 1000
                self.assertGreater(len(top), 3)
                for row in top:
                    own, total, stacks = sums[row.name]
                    slack = 0 if unit == 1 else (stacks + 1) * unit
                    self.assertLessEqual(abs(row.self - own * unit), slack, row)
                    self.assertLessEqual(abs(row.total - total * unit), slack, row)
                    self.assertLessEqual(row.self, row.total)
                self.assertLessEqual(set(sums), {row.name for row in top})
                whole = sum(frames(line)[1] for line in text.splitlines())
                self.assertLessEqual(abs(sum(row.self for row in top) - whole * unit), unit / 2)

    def test_order(self):
        for view in VIEWS:
            top = rows(self.texts(view)[0])
            self.assertEqual(top, sorted(top, key=lambda row: (-row.self, -row.total)), view)

    def test_recursion_counts_once(self):
        row, = (row for row in rows(self.texts('wall,function')[0]) if row.name.startswith('deep ('))
        whole = sum(row.self for row in rows(self.texts('wall,function')[0]))
        self.assertLess(row.self, row.total / 2)
        self.assertLessEqual(row.total, whole)

    def test_only_mine(self):
        names = {row.name for row in rows(self.texts('wall,function,mine')[0])}
        self.assertIn('[json]', names)
        self.assertFalse([name for name in names if 'json/' in name or 'decoder' in name])
        self.assertIn('spin', ' '.join(names))

    def test_table(self):
        """Its rows are those of pyprof_top, in seconds; and it has the threads."""
        text = self.run_.texts['table']
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        head = re.match(r'[^:]+: [0-9.]+ s at 1000 Hz, ([0-9]+) samples, ([0-9]+) of threads that waited\n', text)
        self.assertTrue(head, text)
        self.assertEqual([self.run_.stats['samples'], self.run_.stats['samples_idle']], list(map(int, head.groups())))
        functions, lines = (part.partition('\n\n')[0].splitlines() for part in re.split(r'  (?:function|line)\n', text)[1:])
        for found, view, most in (functions, 'wall,function', 15), (lines, 'wall', 10):
            top = rows(self.run_.texts['top,' + view]) if 'top,' + view in self.run_.texts else []
            self.assertTrue(top, view)
            found = [line for line in found if '%' in line]
            self.assertEqual(min(most, len(top)), len(found))
            for line, row in zip(found, top):
                own, _, total, _, name = line.split(None, 4)
                self.assertEqual([own, total], self.shown(text, row))
                self.assertTrue(name.startswith('...') or ' (...' in name or name == row.name, line)
        threads = text[text.index('threads, by'):]
        self.assertRegex(threads, r' MainThread\n')
        wall, waiting, cpu, gil = re.search(r'([0-9.]+) +([0-9.]+) +([0-9.]+) +([0-9.]+)  worker\n', threads).groups()
        self.assertGreater(float(waiting), 0)
        self.assertLess(float(waiting), float(wall))
        self.assertLessEqual(float(cpu), float(wall) + 0.1)
        self.assertLessEqual(float(gil), float(wall))

    def shown(self, text, row):
        unit = 1000000 if ' s\n' in text.partition('left out: ')[2][:20] else 1000
        return ['%.3f' % (int(ns / unit + 0.5) / 1000) for ns in (row.self, row.total)]

    def test_losses_are_of_the_recording(self):
        """The figures of pyprof_stats, in a table of what pyprof_stop gave and of a snapshot."""
        cut = self.more.stats['truncated_depth']
        self.assertGreater(cut, 0)
        self.assertIn('%9d  samples cut: deeper than max_depth' % cut, self.more.texts['table'])
        snapshot = re.search(r'^ *([0-9]+)  samples cut', self.more.printed(), re.MULTILINE)
        self.assertTrue(0 < int(snapshot.group(1)) <= cut)
        missed = self.more.stats['ticks_missed']
        self.assertEqual(missed > 0, 'ticks missed' in self.more.texts['table'])
        self.assertNotIn('samples cut', self.run_.texts['table'])


if __name__ == '__main__':
    harness.main()
