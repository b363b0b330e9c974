"""A thread that goes from one interpreter to another has one stack, in the order in which it went, with marks between."""

import collections
import os
import statistics
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import collapsed
import harness

HERE = os.path.dirname(os.path.abspath(__file__))
ONE, TWO = '[interpreter 1]', '[interpreter 2: physics]'

# The names of the frames from the main interpreter's function to the leaf's.
PATHS = {
    'computing': ['computes_there', ONE, '<module>', 'computing'],
    'waiting': ['waits_there', ONE, '<module>', 'waiting'],
    'deep_computing': ['goes_deeper', ONE, '<module>', 'passes_on', TWO, '<module>', 'deep_computing'],
    'deep_waiting': ['waits_deeper', ONE, '<module>', 'passes_on', TWO, '<module>', 'deep_waiting'],
    'visiting': ['short_visits', TWO, '<module>', 'visiting'],
}


def record(*arguments):
    command = [os.path.join(harness.BUILD, 'tests', 'integration', 'interpreters')] + list(arguments)
    text = subprocess.run(command, stdout=subprocess.PIPE, env=harness.host_environment(), check=True,
                          universal_newlines=True, timeout=500).stdout
    return [(thread, [function(name) for name in frames], value)
            for thread, frames, value in map(split, text.splitlines()) if frames]


def function(frame):
    """The module of a visit is gone within microseconds, and then has no name."""
    return '<module>' if frame == '[unresolved]' else frame.partition(' (')[0]


def split(line):
    """What lies below [unsettled] changed while it was read, and is not claimed."""
    (thread, *frames), value = collapsed.folded(line)
    return thread, frames[:-1] if frames[-1] == '[unsettled]' else frames, value


class InterpretersTest(unittest.TestCase):
    def check(self, *arguments):
        wanted = {leaf: 100 if leaf != 'visiting' else 20 for leaf in PATHS}
        stacks = record(os.path.join(HERE, 'interpreters.py'), *arguments)
        for leaf, path in PATHS.items():
            with self.subTest(leaf=leaf):
                found = [(frames, value) for _, frames, value in stacks if leaf in frames]
                self.assertGreater(sum(value for _, value in found), wanted[leaf])
                for frames, value in found:
                    self.assertEqual(frames, ['<module>'] + path, '%d samples' % value)
        # Whoever waits outside is there, too: in no stack a function of the outside without its caller.
        self.assertEqual({frames[0] for thread, frames, _ in stacks if thread == 'thread MainThread'}, {'<module>'})
        residents = [(thread, frames, value) for thread, frames, value in stacks if 'resident' in frames]
        self.assertGreater(sum(value for _, _, value in residents), 100)
        for thread, frames, value in residents:
            self.assertEqual(frames[:3], [TWO, '<module>', 'resident'])
            self.assertNotEqual(thread, 'thread MainThread')
        self.assertEqual(len({thread for thread, _, _ in stacks}), 2)

    def test_shared_gil(self):
        self.check()

    def test_own_gil(self):
        if harness.python_version() < (3, 12):
            self.skipTest('sub-interpreters have no GIL of their own before 3.12')
        self.check('own')

    def test_one_takes_another_ones_place(self):
        stacks = record('jobs')
        for number in range(1, 7):
            name = 'job%d' % number
            found = [(frames, value) for _, frames, value in stacks if name in frames]
            self.assertGreater(sum(value for _, value in found), 30)
            self.assertEqual({frames[0].partition(': ')[2] for frames, _ in found}, {name + ']'})

    def test_more_than_are_followed(self):
        """Of ten inside each other the inner eight are shown, in their order, and not as the whole."""
        inside = [name for number in range(3, 10) for name in ('[interpreter %d]' % number, '<module>', 'inside')]
        bottom = ['[interpreter 10]', '<module>', 'bottom']
        found = [(frames, value) for _, frames, value in record('nest') if 'bottom' in frames]
        self.assertGreater(sum(value for _, value in found), 100)
        for frames, value in found:
            self.assertEqual(frames, ['[truncated]'] + inside + bottom, '%d samples' % value)


class SwapsTest(unittest.TestCase):
    WAYS = {'one': ['<module>', 'goes_to_one', ONE, 'one'], 'two': ['<module>', 'goes_to_two', ONE, 'two'],
            'here': ['<module>', 'here']}

    def test_swaps(self):
        """The thread is where it is for microseconds; what is called there has still been called from here, and gets
        its share. What else the machine does may spoil one run, a bias is in all."""
        total, wrong, errors = 0, [], []
        for _ in range(3):
            seen, measured = collections.Counter(), collections.Counter()
            for thread, frames, value in record('swaps'):
                if thread == 'measured':
                    measured[frames[0]] += value
                    continue
                for way in set(self.WAYS).intersection(frames):
                    seen[way] += value
                    wrong += [(frames, value)] * (frames[:len(self.WAYS[way])] != self.WAYS[way])
            total += sum(seen.values())
            share, known = seen['here'] / sum(seen.values()), measured['here'] / sum(measured.values())
            errors.append(share - known)
            print('%d us, here %.1f%%, measured %.1f%%' % (sum(seen.values()), 100 * share, 100 * known))
        print('wrong:', wrong)
        self.assertGreater(total, 300000)
        self.assertLessEqual(sum(value for _, value in wrong) * 1000, total)
        self.assertLess(abs(statistics.median(errors)), 0.03)


@unittest.skipIf(harness.is_debug_build(), 'a debug build asserts that threads do not use the thread states of others')
class OthersThreadStatesTest(unittest.TestCase):
    def check_lent(self, mode):
        """Each of the two threads has its own stack, after the first moments (`lends_at_first`) in which nobody knew."""
        stacks = record(mode)
        expected = {'lends': ['<module>', 'lends'], 'lent': [ONE, '<module>', 'lent']}
        for function in expected:
            found = [(frames, value) for _, frames, value in stacks if function in frames]
            wrong = [(frames, value) for frames, value in found
                     if frames[:len(expected[function])] != expected[function] or set(expected) <= set(frames)]
            count = sum(value for _, value in found)
            print(mode, function, count, 'samples, wrong:', wrong)
            self.assertGreater(count, 100)
            self.assertLess(sum(value for _, value in wrong), 10 + 0.01 * count)

    def test_lent(self):
        self.check_lent('lent')

    def test_lent_with_its_own_gil(self):
        if harness.python_version() < (3, 12):
            self.skipTest('sub-interpreters have no GIL of their own before 3.12')
        self.check_lent('lent-own')

    def test_handed(self):
        """That the main thread waits says nothing about what runs in its thread state."""
        stacks = record('handed')
        measured = {frames[0]: value for thread, frames, value in stacks if thread == 'measured'}
        seen = {name: sum(value for thread, frames, value in stacks if thread != 'measured' and name in frames)
                for name in measured}
        share, known = seen['one'] / sum(seen.values()), measured['one'] / sum(measured.values())
        print('handed: %d of %d us, one %.1f%%, measured %.1f%%' % (sum(seen.values()), sum(measured.values()),
                                                                   100 * share, 100 * known))
        self.assertGreater(sum(seen.values()), 0.5 * sum(measured.values()))
        self.assertLess(abs(share - known), 0.05)

    def test_handed_by_one_who_is_busy(self):
        """Nor does what it computes; it is not to look at frames that another thread changes."""
        stacks = record('handed-busy')
        self.assertGreater(sum(value for _, frames, value in stacks if 'lent' in frames), 20)
        wrong = [(frames, value) for _, frames, value in stacks
                 if frames[:1] not in ([], ['<module>']) or frames[1:2] not in ([], ['lent_at_first'], ['lent'])]
        self.assertLess(sum(value for _, value in wrong), 2, wrong)


if __name__ == '__main__':
    unittest.main()
