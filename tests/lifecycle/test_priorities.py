"""Threads that come before the sampler's, by a real-time priority or a deadline, on all cores and on one: the scenes of
priorities.py. Nothing hangs, each stack is one that was there, and what could not be sampled is counted and told."""

import os
import re
import resource
import unittest

import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import harness

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'priorities.py')
WORDS = 'collapsed,samples,function'
CORES = os.sched_getaffinity(0)
INNER = {(), ('left',), ('left', 'leaf'), ('right',), ('right', 'leaf'), ('right', 'left'), ('right', 'left', 'leaf')}
SECONDS = 1
LOST = ('lost_late', 'lost_pending', 'lost_unsettled', 'lost_unreadable', 'lost_memory')


def may_go_first():
    """Tried, as the limit may say one thing and a container another."""
    child = os.fork()
    if child == 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


# The sampler may have been about to hold the thread when that became another one, and have had no core since.
HELD_BEFORE = 1


class PrioritiesTest(unittest.TestCase):
    def run_scene(self, scene, options=(), one_core=False):
        """What was recorded while the scene computed, and the run."""
        try:
            os.sched_setaffinity(0, {min(CORES)} if one_core else CORES)
            run = harness.Run(SCRIPT, [scene, SECONDS], [WORDS], 1000, options)
        finally:
            os.sched_setaffinity(0, CORES)
        figures = run.printed()
        said = re.findall(r'^pyprof\[\d\]: (.*)$', run.stderr, re.MULTILINE)
        print(scene, *options, 'on one core' if one_core else '',
              {name: n for name, n in figures.items() if n and re.match('ticks|samples|lost|holds|signals', name)}, said,
              flush=True)
        if 'refused' not in figures:
            self.check(run, figures, said)
        return figures, said

    def check(self, run, figures, said):
        for stack in run.script_stacks(WORDS):
            names = tuple(frame.name for frame in stack.frames if frame.name != '[unsettled]')
            if 'compute' in names:
                self.assertIn(names[names.index('compute') + 1:], INNER)
        lost = sum(figures[name] for name in LOST)
        self.assertLessEqual(abs(figures['ticks'] - figures['samples'] - lost), 3, 'each tick is counted')
        self.assertGreater(figures['ticks'] + figures['ticks_missed'], 0.8 * SECONDS * 1000, 'and each that was missed')
        self.assertEqual(len(said), len(set(said)), 'told once')

    def test_asked(self):
        """On all cores: it is asked, as the signal comes to it all the same."""
        figures, _ = self.run_scene('fifo')
        self.assertEqual(figures['samples_partial'], 0)

    def test_held(self):
        """It cannot be held, which is told; so it is read quietly."""
        figures, said = self.run_scene('fifo', ('-k',))
        self.assertLessEqual(figures['samples_held'], HELD_BEFORE)
        if figures['samples_partial'] > 20:
            self.assertEqual(len([text for text in said if 'cannot be held' in text and 'real-time priority' in text]), 1)

    def test_deadline(self):
        for options in ((), ('-k',)):
            figures, said = self.run_scene('deadline', options)
            if 'refused' in figures:
                print('skipped: SCHED_DEADLINE is refused: %s' % figures['refused'], flush=True)
                self.skipTest(figures['refused'])
            self.assertLessEqual(figures['samples_held'], HELD_BEFORE)

    def test_one_core(self):
        """The sampler gets what Linux leaves it, counts the rest, and the program ends."""
        for options in ((), ('-k',), ('-B',)):
            figures, _ = self.run_scene('fifo', options, one_core=True)
            self.assertGreater(figures['samples'], 0)
        self.run_scene('equal', one_core=True)

    def test_hog(self):
        """Another program has a core nearly all the time: the sampler does not stay where it waits for that."""
        for options in ((), ('-k',)):
            figures, _ = self.run_scene('hog', options)
            self.assertGreater(figures['samples'], 0)


def main():
    if not may_go_first():
        print('skipped: real-time priorities are refused (RLIMIT_RTPRIO is %d)' % resource.getrlimit(resource.RLIMIT_RTPRIO)[0])
        sys.exit(77)
    harness.main()


if __name__ == '__main__':
    main()
