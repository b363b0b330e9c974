"""The profile's shares are the program's: each within one percentage point, by wall time and by CPU time.

The programs are in split.py, and measure themselves. The tolerance is several times the statistical error of the
samples that are demanded, so a share that is off by a point is a bias and not bad luck. How many runs a program
gets, and how many samples it needs in them, is fixed beforehand; they are judged once, by the median of the runs' errors:
what else the machine does may spoil one run, a bias is in all.
"""

import collections
import linecache
import os
import statistics
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import harness

SCRIPT = os.path.join(HERE, 'split.py')
WALL = 'collapsed,wall,idle'
CPU = 'collapsed,cpu,idle'
WORKING = 'collapsed,wall'
SAMPLES = 'collapsed,samples,idle'
BUSY = 'collapsed,samples'
TOLERANCE = 1.0  # percentage points
RUNS = 4
HELD = ('-k', '-B')  # see host.c; real-time priorities are for the kernel to place, see LIMITS
MOST_RUNS = 40  # by then a machine that gives the program any time at all has given enough samples


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
    def measure(self, kind, seconds, interval_us, parent, options=()):
        """One run: the run, how many samples it counts for, and {(clock, function): by how many percentage points it is off}.
        While the program waits for a processor its samples are all of one place: they count as far as it had one."""
        run = harness.measured(SCRIPT, [kind, seconds], [WALL, CPU, SAMPLES, WORKING], interval_us, options)
        truth = run.printed()
        taken, worked, working = (sum(sums(run.stacks(words), truth, parent).values()) for words in (SAMPLES, CPU, WORKING))
        taken = int(taken * min(1, worked / max(1, working)))
        print('%s: %d samples, %d lost %s, %d of %d ticks missed' % (
            kind, taken, run.lost(), {name: n for name, n in run.stats.items() if name.startswith('lost_') and n},
            run.stats['ticks_missed'], run.stats['ticks'] + run.stats['ticks_missed']))
        errors = {}
        for number, (clock, words) in enumerate((('wall', WALL), ('cpu', CPU))):
            known = shares({name: both[number] for name, both in truth.items()})
            seen = shares(sums(run.stacks(words), truth, parent))
            errors.update({(clock, name): seen[name] - known[name] for name in known})
            print('  %-4s %s' % (clock, ', '.join('%s %.2f%% (%+.2f)' % (name, known[name], errors[clock, name])
                                                  for name in known)), flush=True)
        return run, taken, errors

    def check_close(self, kind, seconds, interval_us, parent='timed', samples=40000, options=()):
        runs, taken, errors = 0, 0, collections.defaultdict(list)
        while runs < RUNS or taken < samples:
            self.assertLess(runs, MOST_RUNS, '%d samples of %d in so many runs' % (taken, samples))
            run, more, off = self.measure(kind, seconds, interval_us, parent, options)
            runs, taken = runs + 1, taken + more
            for what, error in off.items():
                errors[what].append(error)
        medians = {what: statistics.median(errors[what]) for what in errors}
        worst = max(medians, key=lambda what: abs(medians[what]))
        print('  the median of %d runs is off by %+.2f at most: %s' % (runs, medians[worst], ' '.join(worst)), flush=True)
        self.assertLess(abs(medians[worst]), TOLERANCE, 'off by so many percentage points in %d runs with %d samples: '
                        '%s' % (runs, taken, ' '.join(worst)))
        return run


class ShortTest(Shares):
    def test_short_functions(self):
        self.check_close('short', 4.5, 200, parent='in_turn', samples=80000)


class SharesTest(Shares):
    def test_waiting(self):
        run = self.check_close('mixed_waiting', 2.5, 200)
        self.assertGreater(run.stats['samples_idle'], 1000)

    def test_threads(self):
        self.check_close('threads', 3, 500)


class HeldTest(Shares):
    """Threads that block every signal, held: the shares as with one."""

    def check_held(self, kind, seconds, parent='timed', samples=40000):
        run = self.check_close(kind, seconds, 200, parent, samples, HELD)
        busy = run.stats['samples'] - run.stats['samples_idle']
        self.assertLess(run.stats['samples_partial'] * 200, busy)
        self.assertEqual(run.stats['signals'], 0)

    def test_short_functions(self):
        self.check_held('short', 5, 'in_turn', 80000)  # as with a signal, and so often: else it takes twice as many runs

    def test_chunks(self):
        self.check_held('mixed', 2.5)


class RhythmTest(Shares):
    """What depends on the sampler and not on CPython."""

    def test_chunks(self):
        self.check_close('mixed', 2.5, 200)

    def test_period_of_the_sampler(self):
        """A loop as long as the sampling interval: ticks at a fixed phase would see one part of it only. It keeps to the
        clock, and so comes before others, where that may be. An eighth of a run's 10,000 samples is known to a third of a
        point, the median of four runs to a fifth."""
        self.check_close('periodic', 6, 530, options=['-f'])

    def test_bursts(self):
        """A thread that lets the GIL go hundreds of times a second must not get less than its share. A burst from which
        others take the core would be several, each with an end: it comes before them, where that may be."""
        self.check_close('bursty', 4, 500, samples=12000, options=['-f'])

    def test_waits(self):
        """A thread that was looked at while it ran, and then waits, waits where it waits and not where it ran."""
        for options in [], ['-q']:
            self.check_waits(harness.measured(SCRIPT, ['bursty', 6], [SAMPLES, BUSY], 500, options))

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
