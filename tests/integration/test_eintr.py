"""System calls that the profiler cuts short, counted: see eintr.c."""

import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import harness

# All the calls and ticks for one version, fewer for the others: the code that decides whom to signal is the same.
WHOLE_VERSION = (3, 11)
CALLS = 1000000
TICKS = 20000
TICKS_OTHERS = 12000
TICKS_PER_CALL_CUT = 2000


def eintr(*arguments):
    command = [os.path.join(harness.BUILD, 'tests', 'integration', 'eintr')] + [str(one) for one in arguments]
    out = subprocess.check_output(command, env=harness.host_environment(), timeout=400, text=True)
    print(' '.join(str(one) for one in arguments), out, end='', flush=True)
    return json.loads(out)


class ControlTest(unittest.TestCase):
    """The count works: a process-wide timer, as other profilers use, is seen to cut calls short."""

    def test_foreign(self):
        self.assertGreater(eintr('-c', '-t', 2, 'foreign', 30000)['interrupted'], 20)

    def test_hostile(self):
        self.assertGreater(eintr('-c', 'hostile', 2000)['interrupted'], 100)


class InterruptTest(unittest.TestCase):
    def test_foreign(self):
        calls = CALLS if harness.python_version() == WHOLE_VERSION else CALLS // 10
        result = eintr('-t', 2, 'foreign', calls)
        self.assertGreaterEqual(result['calls'], calls)
        self.assertGreater(result['signals'], 0, 'there was nothing that could have interrupted')
        self.assertEqual(result['interrupted'], 0)
        self.assertEqual(result['calls_interrupted'], 0)

    def check_hostile(self, *options):
        ticks = TICKS if harness.python_version() == WHOLE_VERSION else TICKS_OTHERS
        result = eintr(*options, 'hostile', ticks)
        self.assertGreaterEqual(result['ticks'], ticks)
        return result

    def test_hostile(self):
        result = self.check_hostile()
        self.assertLessEqual(result['interrupted'] * TICKS_PER_CALL_CUT, result['ticks'])
        print('  python %.1f us a call' % (result['python_ns'] / result['calls'] / 1e3))

    def test_hostile_beside_busy_threads(self):
        result = self.check_hostile('-t', 2)
        self.assertGreater(result['signals'], 0)
        self.assertLessEqual(result['interrupted'] * TICKS_PER_CALL_CUT, result['ticks'])

    def test_hostile_quiet(self):
        result = self.check_hostile('-q')
        self.assertEqual(result['interrupted'], 0)
        self.assertEqual(result['signals'], 0)


if __name__ == '__main__':
    harness.main()
