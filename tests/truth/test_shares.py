"""The profile's shares are the program's: each within one percentage point, by wall time and by CPU time.

The programs are in split.py, and measure themselves. The tolerance is several times the statistical error of the
samples that are demanded, so a share that is off by a point is a bias and not bad luck.
"""

import os
import unittest

import harness

SCRIPT = os.path.join(harness.HERE, 'split.py')
WALL = 'collapsed,wall,idle'
CPU = 'collapsed,cpu,idle'
SAMPLES = 'collapsed,samples,idle'
TOLERANCE = 1.0  # percentage points
ATTEMPTS = 4


def booked_as(stack, names, parent):
    """The function that a stack's time counts for: the one that parent called."""
    for caller, callee in zip(stack.frames, stack.frames[1:]):
        name = callee.name if stack.thread == 'MainThread' else stack.thread + '/' + callee.name
        if caller.name == parent and name in names:
            return name
    return None


def sums(stacks, names, parent):
    totals = dict.fromkeys(names, 0)
    for stack in stacks:
        name = booked_as(stack, names, parent)
        if name:
            totals[name] += stack.value
    return totals


def shares(values):
    total = sum(values.values())
    return {name: 100.0 * value / total for name, value in values.items()}


class Shares(unittest.TestCase):
    def check(self, kind, seconds, interval_us, parent='timed', samples=20000):
        """The worst error, in percentage points."""
        run = harness.Run(SCRIPT, [kind, seconds], [WALL, CPU, SAMPLES], interval_us, ['-r'])
        truth = run.printed()
        taken = sum(sums(run.stacks(SAMPLES), truth, parent).values())
        print('%s: %d samples, %d lost %s, %d of %d ticks missed' % (
            kind, taken, run.lost(), {name: n for name, n in run.stats.items() if name.startswith('lost_') and n},
            run.stats['ticks_missed'], run.stats['ticks'] + run.stats['ticks_missed']))
        worst = 0
        for clock, words in enumerate((WALL, CPU)):
            seen = shares(sums(run.stacks(words), truth, parent))
            known = shares({name: both[clock] for name, both in truth.items()})
            print('  %-4s %s' % (('wall', 'cpu')[clock], ', '.join(
                '%s %.2f%% (%+.2f)' % (name, known[name], seen[name] - known[name]) for name in truth)), flush=True)
            worst = max(worst, max(abs(seen[name] - known[name]) for name in truth))
        if taken < samples:
            worst = max(worst, 100.0)
            print('  too few samples: %d of %d' % (taken, samples))
        return worst, run

    def check_close(self, *args, **kwargs):
        """A machine that stalls for 50 ms makes a point of noise; a bias is there every time."""
        for _ in range(ATTEMPTS):
            worst, run = self.check(*args, **kwargs)
            if worst < TOLERANCE:
                return run
        self.fail('off by %.2f percentage points, and never by less than %.2f in %d runs' % (
            worst, TOLERANCE, ATTEMPTS))


class SharesTest(Shares):
    def test_chunks(self):
        self.check_close('mixed', 6, 200)

    def test_waiting(self):
        run = self.check_close('mixed_waiting', 6, 200)
        self.assertGreater(run.stats['samples_idle'], 1000)

    def test_bursts(self):
        """A thread that lets the GIL go hundreds of times a second must not get less than its share."""
        self.check_close('bursty', 12, 500, samples=4000)

    def test_short_functions(self):
        self.check_close('short', 10, 200, parent='in_turn', samples=40000)

    def test_threads(self):
        self.check_close('threads', 8, 500)


class PhaseTest(Shares):
    """What depends on the sampler and not on CPython."""

    def test_period_of_the_sampler(self):
        """A loop as long as the sampling interval: ticks at a fixed phase would see one part of it only."""
        self.check_close('periodic', 14, 500)


if __name__ == '__main__':
    harness.main()
