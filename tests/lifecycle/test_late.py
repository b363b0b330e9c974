"""Handlers that are held up at every moment of their life while the recording ends: see late.c.

    test_late.py [ROUNDS]
"""

import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import harness

PROGRAMS = os.path.join(harness.BUILD, 'tests', 'lifecycle')
ROUNDS = int(sys.argv.pop()) if sys.argv[-1].isdigit() else 50


class LateTest(unittest.TestCase):
    def test_every_moment(self):
        with tempfile.TemporaryDirectory(prefix='pyprof-late-') as folder:
            done = subprocess.run([os.path.join(PROGRAMS, 'late'), os.path.join(PROGRAMS, 'late_plugin.so'), folder,
                                   str(ROUNDS)], env=harness.host_environment(), stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=harness.patience(1200))
        out = done.stdout.decode()
        print(out, end='', flush=True)
        self.assertEqual(done.returncode, 0, done.stderr.decode('utf-8', 'replace')[-4000:])
        figures = {line.split()[0]: [int(word) for word in line.split()[1:]] for line in out.splitlines()}
        self.assertEqual(set(figures), {'stop', 'restart', 'during', 'unload', 'drop'})
        for rounds, held, _ in figures.values():
            self.assertEqual(rounds, ROUNDS // 5)
            self.assertGreater(held, rounds // 2)  # in some no handler is held
        self.assertEqual(figures['drop'][2], figures['drop'][0], 'what was dropped has to be gone')
        self.assertGreaterEqual(figures['unload'][2], figures['unload'][0] - figures['unload'][1],
                                'where no handler was held nothing has to stay')


if __name__ == '__main__':
    harness.main()
