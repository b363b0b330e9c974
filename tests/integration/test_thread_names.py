"""Threads have the name that Python knows, however they were made; those without one are told apart by their ids."""

import json
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import harness

COLLAPSED, SPEEDSCOPE = 'collapsed,idle', 'speedscope,idle'


class ThreadsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_ = harness.Run(os.path.join(HERE, 'thread_names.py'), [], [COLLAPSED, SPEEDSCOPE], 500, ['-d', 40])
        cls.expected = cls.run_.printed()

    def check(self, threads, function):
        wanted = self.expected[function]
        for thread in threads:
            if wanted:
                self.assertEqual(thread, wanted, function)
            else:
                self.assertRegex(thread, r'\A(.+ )?\([0-9]+\)\Z', function)
        self.assertEqual(len(threads), 1, (function, threads))

    def test_collapsed(self):
        stacks = self.run_.stacks(COLLAPSED)
        for function in self.expected:
            with self.subTest(function=function):
                self.check({stack.thread for stack in stacks if function in (frame.name for frame in stack.frames)},
                           function)

    def test_speedscope(self):
        document = json.loads(self.run_.texts[SPEEDSCOPE])
        names = [frame['name'] for frame in document['shared']['frames']]
        for function in self.expected:
            with self.subTest(function=function):
                self.check([profile['name'] for profile in document['profiles']
                            if function in {names[frame] for stack in profile['samples'] for frame in stack}], function)


if __name__ == '__main__':
    harness.main()
