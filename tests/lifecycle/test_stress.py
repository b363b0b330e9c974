"""Births and deaths by the thousand at 10 kHz: what was made was seen, what was seen is true, and nothing grows."""

import collections
import json
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import collapsed
import harness

# Who may be called by whom, of what the scripts of stress.c define.
CALLERS = {'leaf': {'inner'}, 'inner': {'work'}}
# What a recording may hold more of at its end, in bytes for each of what was made: threads have a track each,
# interpreters a branch of all that they import, and both have their part of the time line. Tables double.
GROWTH = {'threads': 1 << 10, 'subs': 128 << 10, 'again-inside': 0, 'again-outside': 160 << 10, 'forks': 16 << 10}
Result = collections.namedtuple('Result', 'figures stacks')


class StressTest(unittest.TestCase):
    def run_host(self, kind):
        program = os.path.join(harness.BUILD, 'tests', 'lifecycle', 'stress')
        done = subprocess.run([program, kind], env=harness.host_environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=harness.patience(500))
        said = done.stderr.decode('utf-8', 'replace')[-4000:]
        self.assertEqual(done.returncode, 0, said)
        print(said, end='', flush=True)
        figures, _, text = done.stdout.decode('utf-8').partition('\n')
        return Result(json.loads(figures), collapsed.parse(text))

    def record(self, kind):
        result = self.run_host(kind)
        print(kind, result.figures, flush=True)
        self.check_figures(result)
        self.check_stacks(result.stacks)
        self.check_growth(kind, result.figures)
        return result

    def check_figures(self, result):
        figures = result.figures
        self.assertEqual(sum(stack.value for stack in result.stacks), figures['samples'])
        self.assertEqual(figures['lost_memory'], 0)
        self.assertEqual(figures['truncated_memory'], 0)

    def check_losses(self, result):
        """Of a recording that is long enough to have shares. A machine on which the sampler itself comes too late for
        ticks makes answers come too late for them, too."""
        figures = result.figures
        lost = sum(count for name, count in figures.items() if name.startswith('lost_'))
        vanished = figures['lost_unreadable'] + figures['lost_unsettled']
        self.assertLess(lost - figures['lost_pending'], 0.25 * figures['samples'])
        self.assertLess(lost, 0.25 * figures['samples'] + figures['ticks_missed'])
        self.assertLess(vanished, 0.02 * figures['samples'])
        self.assertLess(self.samples(result.stacks, '[unresolved]'), 0.05 * figures['samples'])

    def check_stacks(self, stacks):
        """No stack that cannot be, as frames that were freed meanwhile would make."""
        for stack in stacks:
            for caller, frame in zip((None,) + stack.frames, stack.frames):
                if frame.name in CALLERS and (not caller or caller.name not in collapsed.SPECIAL):
                    self.assertIsNotNone(caller, stack)
                    self.assertIn(caller.name, CALLERS[frame.name], stack)

    def check_growth(self, kind, figures):
        """By what was made; or by time, of which a slow machine needs more: the time line has a span, of 32 bytes, for a
        sample or several."""
        grown = figures['bytes'] - figures['bytes_warm']
        self.assertLess(grown, (1 << 20) + max(GROWTH[kind] * figures['made'], 16 * figures['samples']))

    def samples(self, stacks, function):
        return collapsed.within(stacks, function)

    def test_threads(self):
        result = self.record('threads')
        self.check_losses(result)
        self.assertGreater(result.figures['threads'], result.figures['made'] / 5)
        self.assertGreater(self.samples(result.stacks, 'work'), result.figures['made'] / 5)
        unnamed = re.compile(r'stress \((\d+|\*)\)$')  # each by its id, as long as there are few
        self.assertEqual({'stress' if unnamed.match(stack.thread) else stack.thread for stack in result.stacks},
                         {'MainThread', 'Python', 'stress'})

    def test_subs(self):
        result = self.record('subs')
        self.check_losses(result)
        names = {frame.name for stack in result.stacks for frame in stack.frames}
        seen = sum(name.startswith('[interpreter ') for name in names)
        self.assertGreater(seen, result.figures['made'] / 2)
        self.assertGreater(self.samples(result.stacks, 'work'), result.figures['made'] / 5)

    def test_again_inside(self):
        """The program itself looks at each recording; this is the last."""
        self.record('again-inside')

    def test_again_outside(self):
        result = self.record('again-outside')
        self.check_losses(result)
        self.assertGreater(self.samples(result.stacks, 'work'), 10 * result.figures['made'])

    def test_forks(self):
        """The parent goes on as if there were no children: three threads are busy at each of its ticks."""
        result = self.record('forks')
        self.check_losses(result)
        busy = sum(stack.value for stack in result.stacks if stack.thread == 'busy')
        self.assertLessEqual(busy, 3 * result.figures['ticks'])
        self.assertGreater(busy, 0.9 * 3 * result.figures['ticks'])


if __name__ == '__main__':
    harness.main()
