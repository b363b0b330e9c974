"""Every stack that the profiler writes of a program with a known call graph is a stack that the program has.

The program calls as fast as CPython can, in four threads on a core of their own, so that a stack that is read while
it changes is read wrong: see checker.py for what counts as wrong, test_checker.py for the proof that it is seen.
"""

import os
import tempfile
import unittest

import checker
import generate
import harness

WORDS = 'collapsed,samples,idle'
# What one CPython must give; of which so many of threads that did not wait, and of these so many that the thread
# copied itself while it ran on another core: those are the hard ones.
STACKS = 20000
STACKS_BUSY = 8000
STACKS_SIGNALLED = 1000


class GraphTest(unittest.TestCase):
    def check(self, rate, seconds, seed, cores='apart', options=()):
        text, functions = generate.generate(seed)
        with tempfile.TemporaryDirectory() as folder:
            script = os.path.join(folder, 'prog.py')
            with open(script, 'w', encoding='utf-8') as file:
                file.write(text)
            run = harness.Run(script, [seconds, cores], [WORDS], 1000000 // rate, options)
        stacks = run.stacks(WORDS)
        judge = checker.Checker(functions, 'prog.py')
        wrong = [(stack, complaint) for stack in stacks for complaint in [judge.complaint(stack)] if complaint]
        illegal = sum(stack.value for stack, _ in wrong)
        total = sum(stack.value for stack in stacks)
        stats = run.stats
        print('%d Hz, %s: %d stacks (%d signalled, %d partial, %d idle, %d distinct), %d illegal, %d lost, '
              '%d of %d ticks missed' % (rate, cores, total, stats['samples_signalled'], stats['samples_partial'],
                                         stats['samples_idle'], len(stacks), illegal, run.lost(),
                                         stats['ticks_missed'], stats['ticks'] + stats['ticks_missed']), flush=True)
        print('  lost:', {name: count for name, count in run.stats.items() if name.startswith('lost_') and count})
        self.assertEqual(illegal, 0, '\n'.join('%s: %s' % (complaint, stack) for stack, complaint in wrong[:20]))
        self.assertEqual(total, run.stats['samples'], 'the file does not hold what the figures say')
        self.check_spread(stacks, functions, run)
        return run

    def check_spread(self, stacks, functions, run):
        """A profiler that sees only some of the program is not truthful either."""
        self.assertEqual({stack.thread for stack in stacks}, {'MainThread', 'worker 0', 'worker 1', 'worker 2'})
        seen = {frame.name for stack in stacks for frame in stack.frames}
        missing = set(functions) - seen
        self.assertLess(len(missing), len(functions) // 50 + 1, sorted(missing))
        self.assertLess(run.stats['samples_partial'] * 20, run.stats['samples'] - run.stats['samples_idle'])
        self.assertLess(run.stats['lost_unreadable'] * 1000, run.stats['samples'])
        # Only what starts the interpreter has code objects that die.
        self.assertLess(run.stats['frames_unresolved'], 5)

    def test_default(self):
        slow = self.check(1000, 8, seed=1)
        fast = self.check(10000, 6, seed=2)
        self.assertGreater(slow.stats['samples'] + fast.stats['samples'], STACKS)
        busy = [run.stats['samples'] - run.stats['samples_idle'] for run in (slow, fast)]
        self.assertGreater(sum(busy), STACKS_BUSY)
        self.assertGreater(slow.stats['samples_signalled'] + fast.stats['samples_signalled'], STACKS_SIGNALLED)

    def test_default_together(self):
        """The sampler interrupts the threads on their own cores: what it reads then stands still."""
        run = self.check(10000, 3, seed=4, cores='together')
        self.assertGreater(run.stats['samples'], STACKS // 4)

    def test_quiet(self):
        """Without a signal stacks are lost, never wrong in more than a few: the header says so of this capture."""
        illegal = samples = 0
        for _ in range(4):  # one or two by chance are not yet more than one in 10,000
            of_run, run = self.count_quiet()
            illegal, samples = illegal + of_run, samples + run.stats['samples']
            if illegal * 10000 <= samples:
                break
        self.assertLessEqual(illegal * 10000, samples)

    def count_quiet(self):
        text, functions = generate.generate(3)
        with tempfile.TemporaryDirectory() as folder:
            script = os.path.join(folder, 'prog.py')
            with open(script, 'w', encoding='utf-8') as file:
                file.write(text)
            run = harness.Run(script, [6, 'apart'], [WORDS], 1000, ['-q'])
        judge = checker.Checker(functions, 'prog.py')
        illegal = sum(stack.value for stack in run.stacks(WORDS) if judge.complaint(stack))
        print('quiet: %d stacks, %d illegal, %d unsettled' % (run.stats['samples'], illegal,
                                                              run.stats['lost_unsettled']), flush=True)
        self.assertEqual(run.stats['signals'], 0)
        self.assertEqual(run.stats['samples_signalled'], 0)
        # A tick takes a third of a millisecond at most, and more where the machine's cores are lent to others: one that
        # follows a broken chain for long would be seen here.
        self.assertLess(run.stats['sampler_cpu_ns'], 3000000 * run.stats['ticks'])
        return illegal, run


if __name__ == '__main__':
    harness.main()
