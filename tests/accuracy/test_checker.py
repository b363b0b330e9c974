"""The checker and the reader of collapsed text must be able to fail: each kind of wrong stack is flagged."""

import collections
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import checker
import collapsed
import generate
import harness

FILE = 'prog.py'


def chain(functions, random_path=0):
    """A legal stack of the main thread, down to the last level, as [name, line]."""
    path = [['<module>', 0]]
    while functions[path[-1][0]].calls:
        calls = sorted(functions[path[-1][0]].calls)
        line, callee = calls[random_path % len(calls)]
        path[-1][1] = line
        path.append([callee, functions[callee].first])
    path[-1][1] = functions[path[-1][0]].last
    return path


class CheckerTest(unittest.TestCase):
    def setUp(self):
        _, self.functions = generate.generate()
        self.checker = checker.Checker(self.functions, FILE)

    def stack(self, path, thread='MainThread'):
        return collapsed.Stack(thread, tuple(collapsed.Frame(name, FILE, line) for name, line in path), 1)

    def path(self):
        # main calls worker, worker calls the first level: three above the levels
        path = chain(self.functions)
        self.assertEqual(len(path), 3 + generate.LEVELS)
        return path

    def library(self, *names):
        return tuple(collapsed.Frame(name, 'threading.py', 900) for name in names)

    def test_legal(self):
        self.assertIsNone(self.checker.complaint(self.stack(self.path())))
        for cut in range(1, 16):
            self.assertIsNone(self.checker.complaint(self.stack(self.path()[:cut])))
        thread = self.library('_bootstrap', '_bootstrap_inner', 'run') + self.stack(self.path()[2:]).frames
        self.assertIsNone(self.checker.complaint(collapsed.Stack('worker 0', thread, 1)))

    def test_loader_of_the_script(self):
        frames = (harness.LOADER._replace(line=1100),)
        self.assertIsNone(self.checker.complaint(collapsed.Stack('MainThread', frames, 1)))
        self.assertIsNotNone(self.checker.complaint(collapsed.Stack('worker 0', frames, 1)))
        self.assertIsNotNone(self.checker.complaint(collapsed.Stack('MainThread', frames + self.stack(self.path()).frames,
                                                                    1)))

    def test_illegal(self):
        wrong = {}
        wrong['frame left out'] = self.path()[:7] + self.path()[8:]
        wrong['root lost'] = self.path()[1:]
        wrong['frame twice'] = self.path()[:7] + self.path()[6:]
        wrong['line of the def'] = self.path()
        wrong['line of the def'][6][1] = self.functions[wrong['line of the def'][6][0]].first
        wrong['line beside'] = self.path()
        wrong['line beside'][6][1] += 1
        wrong['leaf behind its function'] = self.path()
        wrong['leaf behind its function'][-1][1] += 1
        wrong['leaf before its function'] = self.path()
        wrong['leaf before its function'][-1][1] = self.functions[self.path()[-1][0]].first - 1
        wrong['unknown'] = self.path()
        wrong['unknown'][-1][0] = 'f99_99'
        swapped = wrong['callees swapped'] = self.path()
        others = sorted(set(self.functions) - {callee for _, callee in self.functions[swapped[9][0]].calls})
        swapped[10:] = [[others[0], self.functions[others[0]].first]]
        wrong['nothing'] = []
        for name, path in wrong.items():
            with self.subTest(name):
                self.assertIsNotNone(self.checker.complaint(self.stack(path)))

    def test_illegal_library(self):
        own = self.stack(self.path()[2:]).frames
        run = self.library('_bootstrap', '_bootstrap_inner', 'run')
        for name, frames in {'no bootstrap': run[1:] + own, 'no run': run[:2] + own, 'worker left out': run + own[1:],
                             'library called from within': run + own + self.library('join')}.items():
            with self.subTest(name):
                self.assertIsNotNone(self.checker.complaint(collapsed.Stack('worker 0', frames, 1)))

    def test_every_function_is_reached(self):
        callees = collections.Counter(callee for function in self.functions.values() for _, callee in function.calls)
        missing = set(self.functions) - set(callees) - {'<module>'}
        self.assertEqual(missing, set())
        self.assertGreater(len(self.functions), 300)

    def test_random_pair_is_mostly_illegal(self):
        """A checker that knew too many pairs would be blind: of all pairs less than one in 50 may pass."""
        names = [name for name in self.functions if name.startswith('f')]
        legal = sum(len({callee for _, callee in self.functions[name].calls}) for name in names)
        self.assertLess(legal * 50, len(names) ** 2)


class CollapsedTest(unittest.TestCase):
    def test_lines(self):
        stack = collapsed.parse_line('thread a b;<module> (p q.py:3);f (x) (y.py:12) 17')
        self.assertEqual(stack, collapsed.Stack('a b', (collapsed.Frame('<module>', 'p q.py', 3),
                                                        collapsed.Frame('f (x)', 'y.py', 12)), 17))

    def test_bad_lines(self):
        for line in ('', 'thread a;f (x.py:1)', 'f (x.py:1) 3', 'thread a;f (x.py) 3', 'thread a;f (x.py:1) -3',
                     'thread a;;f (x.py:1) 3', 'thread a;f (x.py:1) 3.5', 'thread a; 3', 'thread ;f (x.py:1) 3'):
            with self.subTest(line), self.assertRaises(collapsed.FormatError):
                collapsed.parse_line(line)
        with self.assertRaises(collapsed.FormatError):
            collapsed.parse('thread a;f (x.py:1) 3')


if __name__ == '__main__':
    unittest.main(verbosity=2)
