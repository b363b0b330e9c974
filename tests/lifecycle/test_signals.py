"""The signal is ours only as long as it is: see signals.c, whose scenes these are."""

import os
import re
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import harness


def scenes():
    with open(os.path.join(HERE, 'signals.c')) as file:
        return re.findall(r'^\s*\{"(\w+)", test_\w+\},$', file.read(), re.MULTILINE)


class SignalsTest(unittest.TestCase):
    def test_scenes(self):
        self.assertGreater(len(scenes()), 8)
        for scene in filter(lambda scene: harness.is_possible('signals ' + scene), scenes()):
            with self.subTest(scene=scene):
                done = subprocess.run([os.path.join(harness.BUILD, 'tests', 'lifecycle', 'signals'), scene],
                                      env=harness.host_environment(), stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, timeout=harness.patience(240))
                self.assertEqual(done.returncode, 0, done.stderr.decode('utf-8', 'replace')[-4000:])


if __name__ == '__main__':
    harness.main()
