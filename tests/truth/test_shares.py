"""The profile's shares are the program's: each within one percentage point, by wall time and by CPU time.

The programs are in split.py, and measure themselves. The tolerance is several times the statistical error of the
samples that are demanded, so a share that is off by a point is a bias and not bad luck.
"""

import collections
import linecache
import os
import unittest

import harness

SCRIPT = os.path.join(harness.HERE, 'split.py')
WALL = 'collapsed,wall,idle'
CPU = 'collapsed,cpu,idle'
SAMPLES = 'collapsed,samples,idle'
BUSY = 'collapsed,samples'
TOLERANCE = 1.0  # percentage points
ATTEMPTS = 8


def booked_as(stack, names, parent):
    """The function that a stack's time counts for: the one that parent called, or that its line is about to call."""
    for caller, callee in zip(stack.frames, stack.frames[1:] + (None,)):
        if caller.name == parent:
            called = callee.name if callee else called_at(caller, names)
            name = called if stack.thread == 'MainThread' else '%s/%s' % (stack.thread, called)
            if name in names:
                return name
    return None


def called_at(frame, names):
    source = linecache.getline(SCRIPT, frame.line)
    return next((name for name in names if ' %s(' % name in source), None)


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
    def measure(self, kind, seconds, interval_us, parent):
        """One run: the number of samples, and for each clock what was seen and what is true."""
        run = harness.Run(SCRIPT, [kind, seconds], [WALL, CPU, SAMPLES], interval_us, ['-r'])
        truth = run.printed()
        taken = sum(sums(run.stacks(SAMPLES), truth, parent).values())
        print('%s: %d samples, %d lost %s, %d of %d ticks missed' % (
            kind, taken, run.lost(), {name: n for name, n in run.stats.items() if name.startswith('lost_') and n},
            run.stats['ticks_missed'], run.stats['ticks'] + run.stats['ticks_missed']))
        clocks = [(sums(run.stacks(words), truth, parent), {name: both[clock] for name, both in truth.items()})
                  for clock, words in enumerate((WALL, CPU))]
        return run, taken, clocks

    def worst_error(self, pooled):
        """In percentage points."""
        worst = 0
        for clock, (seen, known) in zip(('wall', 'cpu'), pooled):
            seen, known = shares(seen), shares(known)
            print('  %-4s %s' % (clock, ', '.join(
                '%s %.2f%% (%+.2f)' % (name, known[name], seen[name] - known[name]) for name in known)), flush=True)
            worst = max(worst, max(abs(seen[name] - known[name]) for name in known))
        return worst

    def check_close(self, kind, seconds, interval_us, parent='timed', samples=20000):
        """A machine that lets the sampler wait makes noise, which runs together make less of; a bias stays."""
        pooled = [(collections.Counter(), collections.Counter()) for _ in (WALL, CPU)]
        all_taken, worst = 0, 100
        for _ in range(ATTEMPTS):
            run, taken, clocks = self.measure(kind, seconds, interval_us, parent)
            all_taken += taken
            for (seen, known), (more_seen, more_known) in zip(pooled, clocks):
                seen.update(more_seen)
                known.update(more_known)
            worst = self.worst_error(pooled)
            if worst < TOLERANCE and all_taken >= samples:
                return run
        self.fail('off by %.2f percentage points after %d runs with %d samples; %.2f are allowed, %d samples needed' % (
            worst, ATTEMPTS, all_taken, TOLERANCE, samples))


class SharesTest(Shares):
    def test_waiting(self):
        run = self.check_close('mixed_waiting', 6, 200)
        self.assertGreater(run.stats['samples_idle'], 1000)

    def test_short_functions(self):
        self.check_close('short', 10, 200, parent='in_turn', samples=40000)

    def test_threads(self):
        self.check_close('threads', 8, 500)


class RhythmTest(Shares):
    """What depends on the sampler and not on CPython."""

    def test_chunks(self):
        self.check_close('mixed', 6, 200)

    def test_period_of_the_sampler(self):
        """A loop as long as the sampling interval: ticks at a fixed phase would see one part of it only."""
        self.check_close('periodic', 14, 530)

    def test_bursts(self):
        """A thread that lets the GIL go hundreds of times a second must not get less than its share."""
        self.check_close('bursty', 12, 500, samples=4000)

    def test_waits(self):
        """A thread that was looked at while it ran, and then waits, waits where it waits and not where it ran."""
        for options in ['-r'], ['-r', '-q']:
            self.check_waits(harness.Run(SCRIPT, ['bursty', 6], [SAMPLES, BUSY], 500, options))

    def check_waits(self, run):
        waits = collections.Counter()
        for words, sign in ((SAMPLES, 1), (BUSY, -1)):
            for stack in run.stacks(words):
                waits[any(frame.name == 'timed' for frame in stack.frames)] += sign * stack.value
        print('  %d of %d samples that waited are where nothing waits' % (waits[True], sum(waits.values())), flush=True)
        self.assertGreater(waits[False], 1000)
        self.assertLess(waits[True] * 200, waits[False])


if __name__ == '__main__':
    harness.main()
