"""What py-spy itself writes, in pyprof-convert. tools/dev installs it beside the viewers of tests/formats."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from profiles import convert, harness
from test_convert import InFolder

PY_SPY = os.path.join(os.environ['PYPROF_BUILD'], 'viewers', 'python', 'bin', 'py-spy')


class PySpy(InFolder):
    def test_both_formats(self):
        if not os.path.exists(PY_SPY):
            message = 'py-spy is not there: tools/dev test installs it'
            self.fail(message) if os.environ.get('CI') == 'true' else self.skipTest('skipped: ' + message)
        script = self.put('spin.py', b'import time\ndef spin():\n    end = time.time() + 2\n'
                                     b'    while time.time() < end: sum(range(100))\nspin()\n')
        for form, name in ('raw', 'out.txt'), ('speedscope', 'out.json'):
            done = subprocess.run([PY_SPY, 'record', '-f', form, '-d', '1', '-o', self.path(name), '--', sys.executable,
                                   script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=harness.patience(60))
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertIn(b'spin (spin.py', convert(self.path(name)))


if __name__ == '__main__':
    unittest.main()
