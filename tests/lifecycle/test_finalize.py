"""Interpreters begin and end while they are sampled: nothing crashes or hangs, and nothing is lost."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import collapsed
import harness


class FinalizeTest(unittest.TestCase):
    def record(self, kind):
        program = os.path.join(harness.BUILD, 'tests', 'lifecycle', 'finalize')
        done = subprocess.run([program, kind], env=harness.host_environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=harness.patience(120))
        self.assertEqual(done.returncode, 0, done.stderr.decode('utf-8', 'replace'))
        return collapsed.parse(done.stdout.decode('utf-8')), int(done.stderr)

    def samples(self, stacks, function):
        return collapsed.within(stacks, function)

    def check(self, kind, at_least, function='work'):
        """A code object that dies before the sampler has come is unresolved: a module's, while it is imported."""
        stacks, missed = self.record(kind)
        count = self.samples(stacks, function)
        unresolved = self.samples(stacks, '[unresolved]')
        print(kind, count, 'samples below', function + ',', unresolved, 'with frames unresolved,', missed, 'ticks missed',
              flush=True)
        self.assertGreater(count, at_least)
        self.assertLess(unresolved, 0.05 * count + 0.02 * missed)
        return stacks

    # One interval is half a millisecond; a busy machine may lose most of them.

    def test_before(self):
        stacks = self.check('before', 200)
        self.assertEqual({stack.thread for stack in stacks if self.samples([stack], 'work')}, {'MainThread'})

    def test_after(self):
        self.check('after', 200)

    def test_daemons(self):
        self.check('daemons', 400)

    def test_visitors(self):
        self.check('visitors', 500, 'visit')

    def test_subs(self):
        self.check('subs', 500)

    def test_host_thread(self):
        self.check('host-thread', 200)


if __name__ == '__main__':
    harness.main()
