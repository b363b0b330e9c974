"""A thread that goes from one interpreter to another has one stack, in the order in which it went, with marks between."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'truth'))
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
    command = [os.path.join(harness.BUILD, 'tests', 'behaviour', 'interpreters')] + list(arguments)
    text = subprocess.run(command, stdout=subprocess.PIPE, env=harness.host_environment(), check=True,
                          universal_newlines=True, timeout=120).stdout
    return [(thread, [function(name) for name in frames], int(value))
            for thread, frames, value in map(split, text.splitlines())]


def function(frame):
    """The module of a visit is gone within microseconds, and then has no name."""
    return '<module>' if frame == '[unresolved]' else frame.partition(' (')[0]


def split(line):
    stack, _, value = line.rpartition(' ')
    thread, _, frames = stack.partition(';')
    return thread, frames.split(';'), value


class InterpretersTest(unittest.TestCase):
    def check(self, *arguments):
        stacks = record(os.path.join(HERE, 'interpreters.py'), *arguments)
        for leaf, path in PATHS.items():
            with self.subTest(leaf=leaf):
                found = [(frames, value) for _, frames, value in stacks if leaf in frames]
                self.assertGreater(sum(value for _, value in found), 100 if leaf != 'visiting' else 20)
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

    def test_swaps(self):
        """The thread is where it is for microseconds; what is called there has still been called from here."""
        ways = {'one': 'goes_to_one', 'two': 'goes_to_two'}
        found = [(way, frames, value) for _, frames, value in record('swaps') for way in ways if way in frames]
        wrong = [(frames, value) for way, frames, value in found if frames[:4] != ['<module>', ways[way], ONE, way]]
        total = sum(value for _, _, value in found)
        print('%d in the sub-interpreter, wrong: %s' % (total, wrong))
        self.assertGreater(total, 300)
        self.assertLessEqual(sum(value for _, value in wrong) * 1000, total)


if __name__ == '__main__':
    unittest.main()
