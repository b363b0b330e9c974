"""Threads of a host that nobody named are told apart, in every format; names that are a thread's own stay as they are."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import collapsed
import harness

SHOWN = {'unnamed': 'apache (%s)', 'shared': 'pool (%s)', 'own': 'audio', 'late': 'decoder'}


class UnnamedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix='pyprof-unnamed-')
        program = os.path.join(cls.folder, 'apache')
        shutil.copy(os.path.join(harness.BUILD, 'tests', 'integration', 'unnamed'), program)
        out = subprocess.run([program, os.path.join(cls.folder, 'out')], env=harness.host_environment(), check=True,
                             stdout=subprocess.PIPE, universal_newlines=True).stdout
        threads = [line.split() for line in out.splitlines()]
        cls.expected = sorted([SHOWN[kind].replace('%s', tid) for kind, tid in threads] + ['loader'])

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def read(self, name):
        with open(os.path.join(self.folder, name), encoding='utf-8') as file:
            return file.read()

    def test_collapsed(self):
        stacks = collapsed.parse(self.read('out.txt'))
        self.assertEqual(sorted({stack.thread for stack in stacks} - {'MainThread'}), self.expected)

    def test_speedscope(self):
        profiles = json.loads(self.read('out.json'))['profiles']
        self.assertEqual(sorted(profile['name'] for profile in profiles if profile['name'] != 'MainThread'),
                         self.expected)


if __name__ == '__main__':
    harness.main()
