"""System calls that are refused, one at a time, as by the seccomp profiles of containers: see refused.c.

    test_refused.py [CALL...]
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import harness

WANTED = sys.argv[1:]
del sys.argv[1:]

WORK = ('<module>', 'compute', 'work')
STACKS = {('waits',)} | {WORK[:n] for n in (1, 2, 3)} | {
    WORK + inner for inner in (('left',), ('left', 'leaf'), ('right',), ('right', 'leaf'), ('right', 'left'),
                               ('right', 'left', 'leaf'))}
HOLDING = {'sched_getaffinity', 'sched_getparam', 'sched_getscheduler', 'sched_setaffinity'}
LOST = ('lost_late', 'lost_pending', 'lost_unsettled', 'lost_unreadable', 'lost_memory')


class Case:
    def __init__(self, text):
        lines = text.splitlines()
        self.name, self.error, self.moment, self.capture = lines[0].split()
        self.text = text
        self.end = lines[-1]
        self.logs = [line.split(' ', 2)[2] for line in lines if line.startswith('log ')]
        self.stats = {name: int(value) for name, value in re.findall(r'^stat (\w+) (-?\d+)$', text, re.M)}
        self.results = {what: (int(code), why) for what, code, why in re.findall(r'^result (\w+) (-?\d+) ?(.*)$', text, re.M)}
        self.stacks = re.findall(r'^thread ([^;\n]*);(.*) (\d+)$', text, re.M)

    def names(self):
        for thread, frames, count in self.stacks:
            yield tuple(re.sub(r' \(.*\)$', '', frame) for frame in frames.split(';'))


class RefusedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory(prefix='pyprof-refused-') as folder:
            environment = dict(harness.host_environment(), XDG_RUNTIME_DIR=folder)
            done = subprocess.run([os.path.join(harness.BUILD, 'tests', 'lifecycle', 'refused')] + WANTED, cwd=folder,
                                  env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=harness.patience(1500))
        cls.errors = done.stderr.decode('utf-8', 'replace')
        cls.code = done.returncode
        out = done.stdout.decode('utf-8', 'replace')
        cls.cases = [Case(text) for text in re.split(r'^case ', out, flags=re.M)[1:]]
        if any('no filter: ' in case.text for case in cls.cases):
            print('skipped: no seccomp filter can be set here')
            raise SystemExit(77)

    def each(self, check):
        for case in self.cases:
            with self.subTest(' '.join((case.name, case.error, case.moment, case.capture))):
                check(case)

    def test_ends(self):
        self.assertEqual(self.code, 0, self.errors)
        self.assertGreater(len(self.cases), 0)

        def check(case):
            self.assertEqual(case.end, 'end code 0', case.text)
            self.assertIn('\nhost 0\n', case.text)
        self.each(check)

    def test_stacks(self):
        def check(case):
            for stack in case.names():
                whole = tuple(frame for frame in stack if frame != '[unsettled]')
                self.assertTrue(whole in STACKS or whole == (), '%s\n%s' % (stack, case.text))
        self.each(check)

    def test_failures_are_told(self):
        def check(case):
            for what, (code, why) in case.results.items():
                self.assertTrue(code == 0 or what == 'stats' or why.strip(), case.text)
            self.assertEqual(len(case.logs), len(set(case.logs)), case.text)
        self.each(check)

    def test_ticks_are_counted(self):
        def check(case):
            if case.results['start'][0] == 0:
                self.assertLessEqual(abs(case.stats['uncounted']), 2, case.text)
        self.each(check)

    def test_what_is_lost_is_told(self):
        """Where threads are not sampled as they should be, the log says something."""
        def check(case):
            if case.results['start'][0] == 0:
                lost = sum(case.stats[name] for name in LOST) + case.stats['samples_partial']
                if lost > case.stats['ticks'] // 2:
                    self.assertTrue(case.logs, case.text)
                if case.name in HOLDING and case.capture == 'held' and case.stats['holds_failed'] + case.stats['samples_partial'] > 1:
                    self.assertEqual([case.name in log for log in case.logs if 'cannot be held' in log], [True], case.text)
        self.each(check)


if __name__ == '__main__':
    harness.main()
