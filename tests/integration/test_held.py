"""Threads that cannot be asked are held while they are read, and the program sees nothing of it: the scenes of held.py.

As root the program goes before all others, so that its threads have to be held, again and again. Else it may be that the
sampler shares a core with them all the time, on a machine that does other things.
"""

import os
import unittest

import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import harness

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'held.py')
WORDS = 'collapsed,samples'


class HeldTest(unittest.TestCase):
    def run_scene(self, scene, options=('-k', '-B', '-f'), interval_us=500):
        """What the scene printed, and the run. No scene has a thread interrupted."""
        run = harness.Run(SCRIPT, [scene, 1], [WORDS], interval_us, options)
        found = run.printed()
        figures = {name: n for name, n in run.stats.items()
                   if n and name.startswith(('samples', 'lost', 'holds', 'ticks', 'signals'))}
        print(scene, found, figures, flush=True)
        self.assertGreater(found['held'], 0, 'nothing was held: nothing was tested')
        return found, run

    def test_masks(self):
        found, _ = self.run_scene('masks')
        self.assertEqual(found['wrong'], 0, 'not even once of %d' % found['changes'])

    def test_born(self):
        found, _ = self.run_scene('born')
        self.assertGreater(found['processes'], 40)
        self.assertEqual(found['wrong'], [], 'not even once')

    def test_ends(self):
        self.run_scene('ends')

    def test_calls_are_not_ended(self):
        found, run = self.run_scene('interruptions')
        self.assertEqual(found['ended'], 0)
        self.assertEqual(run.stats['signals'], 0)

    def test_refused(self):
        """What may no longer be done is told once, and threads are read as they can be."""
        found, run = self.run_scene('refused')
        self.assertGreater(found['samples'], 1000)
        self.assertTrue(found['failed'])
        if 'sched_setaffinity' in run.stderr:
            self.assertEqual(run.stderr.count('cannot be held'), 1, run.stderr)

    def test_default_holds_who_blocks_the_signal(self):
        _, run = self.run_scene('interruptions', ('-B', '-f'))
        self.assertEqual(run.stats['samples_signalled'], 0)
        self.assertEqual(run.stats['calls_interrupted'], 0)

    def test_never(self):
        _, run = self.run_scene('untouched', ('-B', '-f', '-n'))
        self.assertEqual(run.stats['samples_held'] + run.stats['holds_failed'], 0)


if __name__ == '__main__':
    harness.main()
