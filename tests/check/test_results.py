"""What tools/dev makes of meson's logs: which failures are run again, and what they count for."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import results


def test(name, result='OK', stdout='', stderr='', returncode=None):
    returncode = (0 if result == 'OK' else 1) if returncode is None else returncode
    return {'name': 'pyprof:unit+long / ' + name, 'result': result, 'stdout': stdout, 'stderr': stderr,
            'returncode': returncode}


FIGURE = test('share', 'FAIL', stderr='AssertionError: 0.81 not greater than 0.85 : zlib')


class ResultsTest(unittest.TestCase):
    def count(self, tests, *again, ci=True):
        lines, told, figures = results.count(tests, again, ci)
        return lines, told, tuple(figures.values())

    def test_all_pass(self):
        self.assertEqual(self.count([test('a'), test('b')]), ([], [], (2, 0, 0, 0)))

    def test_no_test(self):
        self.assertEqual(self.count([])[2], (0, 1, 0, 0))

    def test_figure_that_holds_twice_is_unsteady(self):
        self.assertEqual(results.to_be_run_again([test('a'), FIGURE]), ['share'])
        lines, told, figures = self.count([test('a'), FIGURE], [test('share')], [test('share')])
        self.assertEqual(figures, (2, 0, 0, 1))
        self.assertEqual(lines, ['unsteady, failed once and held twice: pyprof:unit+long / share (FAIL)'])
        self.assertEqual(told, lines + ['    AssertionError: 0.81 not greater than 0.85 : zlib'])

    def test_figure_that_fails_again_failed(self):
        for again in ([FIGURE], [test('share')]), ([test('share')], [FIGURE]), ([test('share')], []), ():
            lines, _, figures = self.count([FIGURE], *again)
            self.assertEqual((lines, figures), (['failed: pyprof:unit+long / share (FAIL)'], (0, 1, 0, 0)), again)

    def test_figures_of_cmocka(self):
        failure = test('threads', 'FAIL', stderr='[  ERROR   ] --- samples + lost >= ticks', returncode=2)
        self.assertEqual(results.to_be_run_again([failure]), ['threads'])

    def test_reasons_of_cmocka(self):
        said = ['[  ERROR   ] --- 0x367 != 0', '[   LINE   ] --- test_threads.c:110: error: Failure!',
                '[  FAILED  ] test_threads']
        failure = test('threads', 'FAIL', returncode=2, stderr='\n'.join(
            ['[==========] Running 4 test(s).', '[ RUN      ] test_threads'] + said +
            ['[==========] 4 test(s) run.', '[  FAILED  ] 1 test(s), listed below:', said[-1]]))
        self.assertEqual(self.count([failure])[1][1:], ['    ' + line for line in said])

    def test_reasons_of_a_crash(self):
        said = ['Segmentation fault, or the like, of a thread that was here:', '/lib/libc.so.6(+0x3c050)[0x7f6a4a5]',
                './test_threads(main+0x1f) [0x55d0c0de]']
        failure = test('threads', 'FAIL', returncode=-11, stderr='\n'.join(['[ RUN      ] a'] + said))
        self.assertEqual(self.count([failure])[1][1:], ['    ' + line for line in said])

    def test_what_no_machine_excuses(self):
        for failure in (test('t', 'TIMEOUT', returncode=-15), test('t', 'ERROR', returncode=99),
                        test('t', 'FAIL', returncode=-11), test('t', 'FAIL', returncode=66),
                        test('t', 'FAIL', stderr='==1==ERROR: AddressSanitizer: heap-use-after-free'),
                        test('t', 'FAIL', stderr='pyprof.h:9:2: runtime error: shift exponent'),
                        test('t', 'FAIL', stderr='AssertionError: -11 != 0'),
                        test('t', 'FAIL', stderr='AssertionError: 139 != 0 : host'),
                        test('t', 'FAIL', stderr='AssertionError: 0 != -6'),
                        test('t', 'FAIL', stderr='AssertionError: host\nended with -6'),
                        test('t', 'FAIL', stderr='AssertionError: 2 != 0 : child 2 did not end by itself'),
                        test('t', 'FAIL', stderr='subprocess.TimeoutExpired: Command'),
                        test('t', 'FAIL', stderr='AssertionError: 1 != 0 : not even once: main calls f9')):
            self.assertEqual(results.to_be_run_again([failure]), [], failure)
            self.assertEqual(self.count([failure], [test('t')], [test('t')])[2], (0, 1, 0, 0), failure)

    def test_where_many_fail_it_is_not_the_machine(self):
        failures = [test(name, 'FAIL', stderr='AssertionError: 1 not less than 0') for name in 'abcd']
        self.assertEqual(len(results.to_be_run_again(failures[:3])), 3)
        self.assertEqual(results.to_be_run_again(failures), [])

    def test_skipped_part_is_a_failure_on_ci(self):
        tests = [test('a', stdout='skipped: no gdb\n'), test('b', 'SKIP')]
        self.assertEqual(self.count(tests, ci=False)[2], (1, 0, 2, 0))
        lines, _, figures = self.count(tests)
        self.assertEqual(figures, (1, 2, 0, 0))
        self.assertEqual(lines[1], 'skipped: it did not say why (pyprof:unit+long / b)')

    def test_costs(self):
        ended = dict(test('a', stderr='warned\nprocessors: 1.250 + 0.500 s\n'), duration=3.0)
        self.assertEqual(results.cost(ended), (1.75, 3.0))
        self.assertEqual(results.cost(dict(ended, stderr='processors: 1,250 + 0,500 s\n')), (1.75, 3.0))  # another locale
        for text in '', 'processors: 1.250 + 0.500 s\nand more\n', 'processors: soon\n':
            self.assertEqual(results.cost(dict(test('a', stderr=text), duration=3.0)), (0.0, 3.0))

    def test_dearest_first(self):
        """By its processor time or by its time, whichever is more, over all runs."""
        lines = ['1.0\t%d.0\tt%d\n' % (number, number) for number in range(12)] + ['9.0\t2.0\twide\n'] * 2
        table = [line.split() for line in results.dearest(lines)]
        self.assertEqual(table[0], ['wide', '2', '4', '18'])
        self.assertEqual([row[0] for row in table[1:]], ['t%d' % number for number in range(11, 2, -1)])

    def test_wrapper_says_what_a_test_took_and_ends_as_it_does(self):
        wrapper = os.path.join(os.path.dirname(results.__file__), 'timed')
        for script, code in ('pass', 0), ('sys.exit(77)', 77), ('os.kill(os.getpid(), 9)', 137):
            script = 'import os, sys\nwhile sum(os.times()[:2]) < 0.2: pass\n' + script
            done = subprocess.run([wrapper, sys.executable, '-c', script], stderr=subprocess.PIPE, universal_newlines=True)
            self.assertEqual(done.returncode, code)
            cpu, _ = results.cost({'stderr': done.stderr, 'duration': 0})
            self.assertGreaterEqual(cpu, 0.15)
            self.assertLess(cpu, 5)


if __name__ == '__main__':
    unittest.main(verbosity=2)
