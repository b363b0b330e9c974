"""Every stack that the profiler writes of a program with a known call graph is a stack that the program has.

The program calls as fast as CPython can, in four threads on a core of their own, so that a stack that is read while
it changes is read wrong: see checker.py for what counts as wrong, test_checker.py for the proof that it is seen.
"""

import collections
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import checker
import collapsed
import generate
import harness

WORDS = 'collapsed,samples,idle'
# What one CPython must give; of which so many of threads that did not wait, and of these so many that the thread
# copied itself while it ran on another core: those are the hard ones.
STACKS = 20000
STACKS_BUSY = 8000
STACKS_SIGNALLED = 1000
RUNS = 12  # by then a machine that runs the program at all has shown enough
QUIET_RUNS = 2
QUIET_RATE = 4000  # each look is one for itself: in a second as many as in four at 1 kHz


def count(wrong):
    return sum(stack.value for stack, _ in wrong)


def explain(wrong):
    return ''.join('  %s: %s\n' % (complaint, stack) for stack, complaint in wrong[:20])


class GraphTest(unittest.TestCase):
    def record(self, rate, seconds, seed, cores, options=(), threads=3):
        """One run: what it was, its stacks, those of them that the program cannot have, and the program's functions."""
        text, functions = generate.generate(seed, threads=threads)
        with tempfile.TemporaryDirectory() as folder:
            script = os.path.join(folder, 'prog.py')
            with open(script, 'w', encoding='utf-8') as file:
                file.write(text)
            if cores == 'apart':
                options = ['-a', *options]
            run = harness.Run(script, [seconds, cores], [WORDS], 1000000 // rate, options)
        stacks = run.stacks(WORDS)
        judge = checker.Checker(functions, 'prog.py')
        wrong = [(stack, complaint) for stack in stacks for complaint in [judge.complaint(stack)] if complaint]
        stats = run.stats
        print('%d Hz, %s%s: %d stacks (%d signalled, %d partial, %d idle, %d distinct), %d illegal, %d lost, '
              '%d of %d ticks missed' % (rate, cores, ''.join(' ' + option for option in options), stats['samples'],
                                         stats['samples_signalled'], stats['samples_partial'], stats['samples_idle'],
                                         len(stacks), count(wrong), run.lost(), stats['ticks_missed'],
                                         stats['ticks'] + stats['ticks_missed']))
        print('  lost:', {name: lost for name, lost in stats.items() if name.startswith('lost_') and lost})
        print(explain(wrong), end='', flush=True)
        return run, stacks, wrong, functions

    def check(self, rate, seconds, seed, cores, **wanted):
        """A profiler that sees only some of the program is not truthful either: records until nearly all of it was
        seen, in so many samples of each kind as are wanted, for who knows how much of it a machine runs in that time.
        No run may see what is not there."""
        missing, taken = None, collections.Counter()
        for _ in range(RUNS):
            run, stacks, wrong, functions = self.record(rate, seconds, seed, cores)
            self.check_run(run, stacks, wrong, functions)
            seen = {frame.name for stack in stacks for frame in stack.frames}
            missing = (set(functions) if missing is None else missing) - seen
            taken.update({name: run.stats[name] for name in ('samples', 'samples_signalled')})
            taken['samples_busy'] += run.stats['samples'] - run.stats['samples_idle']
            if len(missing) <= len(functions) // 50 and all(taken[name] > least for name, least in wanted.items()):
                return
        self.fail('in %d runs never seen: %s; wanted %s, had %s' % (RUNS, sorted(missing), wanted, dict(taken)))

    def check_run(self, run, stacks, wrong, functions):
        stats = run.stats
        self.assertEqual(count(wrong), 0, 'not even once:\n' + explain(wrong))
        self.assertEqual(sum(stack.value for stack in stacks), stats['samples'],
                         'the file does not hold what the figures say')
        self.assertEqual({stack.thread for stack in stacks}, {'MainThread', 'worker 0', 'worker 1', 'worker 2'})
        self.assertLess(stats['samples_partial'] * 20, stats['samples'] - stats['samples_idle'])
        self.assertLess(stats['lost_unreadable'] * 1000, stats['samples'])
        # Only what is imported has code objects that die, and on a busy machine more of it is seen.
        for stack in stacks:
            names = collapsed.names(stack)
            self.assertFalse('[unresolved]' in names and (functions.keys() - {'<module>'}) & set(names), stack)

    def test_default(self):
        for rate, seconds, seed in ((1000, 4, 1), (10000, 3, 2)):
            self.check(rate, seconds, seed, 'apart', samples=STACKS // 2, samples_busy=STACKS_BUSY // 2,
                       samples_signalled=STACKS_SIGNALLED // 2)

    def test_default_together(self):
        """The sampler interrupts the threads on their own cores: what it reads then stands still."""
        self.check(10000, 3, 4, 'together', samples=STACKS // 4)

    def test_quiet(self):
        """Without a signal stacks are lost, never wrong in more than a few: the header says so of this capture."""
        illegal = samples = 0
        for _ in range(QUIET_RUNS):  # one or two by chance are not yet more than one in 10,000
            run, _, wrong, _ = self.record(QUIET_RATE, 1, 3, 'apart', ['-q'])
            illegal, samples = illegal + count(wrong), samples + run.stats['samples']
            self.check_quiet(run.stats)
        self.assertLessEqual(illegal * 10000, samples)

    def test_held(self):
        """Without a signal, and though all are blocked: as true as with one."""
        for options in ['-k', '-B', '-f'], ['-B', '-f']:
            run, stacks, wrong, _ = self.record(2000, 1, 5, 'together', options, threads=0)
            self.assertEqual(count(wrong), 0, 'not even once:\n' + explain(wrong))
            stats = run.stats
            busy = stats['samples'] - stats['samples_idle']
            self.assertGreater(busy, 500)
            self.assertLess(stats['samples_partial'] * 200, busy)
            self.assertEqual(stats['samples_signalled'], 0)

    def check_quiet(self, stats):
        self.assertEqual(stats['signals'], 0)
        self.assertEqual(stats['samples_signalled'], 0)
        # A tick takes a third of a millisecond at most, and more where the machine's cores are lent to others: one that
        # follows a broken chain for long would be seen here.
        self.assertLess(stats['sampler_cpu_ns'], 3000000 * stats['ticks'])


if __name__ == '__main__':
    harness.main()
