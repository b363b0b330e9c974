"""Threads that do one known thing each: the stack, the line, idle or not, and the clocks must be right.

The scenes are in scenes.py; its lines are found by their "# AT" marks.
"""

import json
import os
import re
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import collapsed
import harness

SCRIPT = os.path.join(HERE, 'scenes.py')
SECONDS = 0.6
INTERVAL_US = 1000
ODD_NAME = 'w\u00f6rker \u2713;"x"\n\\'
OUTPUTS = ['collapsed,%s%s' % (metric, idle) for metric in ('wall', 'cpu', 'gil', 'samples') for idle in ('', ',idle')]


def marks():
    lines = {}
    with open(SCRIPT, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            match = re.search(r'# AT ([a-z ]+)$', line)
            if match:
                lines[match.group(1)] = number
    return lines


class ScenesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_ = harness.measured(SCRIPT, [SECONDS], OUTPUTS + ['speedscope,wall', 'speedscope,wall,idle'],
                                       INTERVAL_US)
        cls.clocks = cls.run_.printed()
        cls.marks = marks()
        cls.sums = {}
        cls.parsed = {words: cls.run_.stacks(words) for words in OUTPUTS}
        for words, stacks in cls.parsed.items():
            for stack in stacks:
                key = words[len('collapsed,'):], stack.thread
                cls.sums[key] = cls.sums.get(key, 0) + stack.value

    def sum(self, words, thread):
        return self.sums.get((words, thread), 0)

    def little(self, wall):
        """Of so many microseconds. A tick that comes late weighs as much as it is late, wherever it then finds the
        thread; each that was missed meanwhile is one interval."""
        return 0.02 * wall + self.run_.stats['ticks_missed'] * INTERVAL_US

    def share(self, thread, condition, words='cpu'):
        """How much of a thread's time its stacks of a kind have, 0 to 1: of its own, whatever the machine does besides."""
        stacks = [stack for stack in self.parsed['collapsed,' + words] if stack.thread == thread]
        chosen = sum(stack.value for stack in stacks if condition(stack.frames))
        return chosen / max(1, sum(stack.value for stack in stacks))

    def assert_leaf(self, thread, mark, words='cpu', least=0.85):
        expected = (thread, 'scenes.py', self.marks[mark])
        share = self.share(thread, lambda frames: tuple(frames[-1]) == expected, words)
        self.assertGreater(share, least, '%s is not at %s' % (thread, expected))

    def assert_passes(self, thread, *chain):
        """Nearly all of a thread's time is below frames that follow each other: (name, mark or None)."""
        def passes(frames):
            for start in range(len(frames) - len(chain) + 1):
                if all(frame.name.rpartition('.')[2] == name and (mark is None or frame.line == self.marks[mark])
                       for frame, (name, mark) in zip(frames[start:], chain)):
                    return True
            return False
        share = self.share(thread, passes)
        self.assertGreater(share, 0.9, '%s does not pass %s' % (thread, chain))

    # Clocks.

    def test_cpu_is_the_threads_own(self):
        for thread, (_, cpu, _) in self.clocks.items():
            if thread.startswith('waits_') or thread == ODD_NAME:
                continue
            with self.subTest(thread):
                seen = self.sum('cpu,idle', thread) * 1000
                self.assertLess(abs(seen - cpu), 0.02 * cpu, '%d is not %d' % (seen, cpu))

    def test_wall_is_the_clocks(self):
        """A thread begins and ends between two ticks: that is chance, and over all of them it is no bias."""
        error = 0
        clocks = {thread: wall for thread, (wall, _, _) in self.clocks.items() if thread != ODD_NAME}
        for thread, wall in clocks.items():
            with self.subTest(thread):
                seen = self.sum('wall,idle', thread) * 1000
                error += seen - wall
                self.assertLess(abs(seen - wall), 0.1 * wall, '%d is not %d' % (seen, wall))
        self.assertLess(abs(error), 0.02 * sum(clocks.values()))

    def test_samples_are_all_there(self):
        self.assertEqual(sum(stack.value for stack in self.parsed['collapsed,samples,idle']),
                         self.run_.stats['samples'])
        self.assertEqual(sum(stack.value for stack in self.parsed['collapsed,samples']),
                         self.run_.stats['samples'] - self.run_.stats['samples_idle'])

    # Idle and the GIL.

    def test_waiting_is_idle(self):
        for thread in ('waits_sleep', 'waits_lock', 'waits_socket'):
            with self.subTest(thread):
                wall = self.clocks[thread][0] / 1000
                self.assertLess(self.sum('wall', thread), self.little(wall))
                self.assertLess(self.sum('gil', thread), self.little(wall))
                self.assertGreater(self.sum('wall,idle', thread), 0.9 * wall)

    def test_main_waits_in_join(self):
        def joining(words):
            return sum(stack.value for stack in self.parsed['collapsed,' + words] if stack.thread == 'MainThread' and
                       any(frame.name.rpartition('.')[2] == 'join' for frame in stack.frames))
        self.assertGreater(joining('wall,idle') * 1000, 0.9 * sum(wall for wall, _, _ in self.clocks.values()))
        self.assertLess(joining('wall'), 0.1 * joining('wall,idle'))

    def test_working_is_not_idle(self):
        for thread, (wall, cpu, _) in self.clocks.items():
            if thread.startswith('waits_') or thread == ODD_NAME:
                continue
            with self.subTest(thread):
                # What the machine took away from the thread may be called either.
                self.assertGreater(self.sum('wall', thread) * 1000, 0.96 * cpu)

    def test_who_holds_the_gil(self):
        for thread, (wall, cpu, _) in self.clocks.items():
            gil = self.sum('gil,idle', thread)
            with self.subTest(thread):
                if thread.startswith('frees_') or thread.startswith('waits_'):
                    self.assertLess(gil, self.little(wall / 1000))
                elif thread != ODD_NAME:
                    self.assertGreater(gil * 1000, 0.95 * cpu)

    # Stacks and lines.

    def test_calls_that_hold_the_gil(self):
        self.assert_leaf('holds_sort', 'sort')
        self.assert_leaf('holds_regex', 'regex')
        self.assert_leaf('holds_crc', 'crc')
        self.assert_leaf('holds_power', 'power')

    def test_calls_that_let_it_go(self):
        self.assert_leaf('frees_hash', 'hash')
        # Where it waits before and behind, a busy machine may let it wait for longer.
        for thread, mark in (('waits_sleep', 'sleep'), ('waits_lock', 'lock')):
            wall, _, waited = self.clocks[thread]
            self.assert_leaf(thread, mark, 'wall,idle', 0.95 * waited / wall)
        self.assert_leaf('waits_socket', 'recv', 'wall,idle')

    def test_exceptions(self):
        self.assert_passes('exceptions', ('exceptions', None))
        def finally_(frames):
            return any(frame.line == self.marks['finally'] and below.name == 'spin'
                       for frame, below in zip(frames, frames[1:]))
        self.assertGreater(self.share('exceptions', finally_), 0.6)
        for stack in self.parsed['collapsed,wall,idle']:
            names = [frame.name for frame in stack.frames]
            if 'raises' in names:
                at = names.index('raises')
                self.assertEqual(stack.frames[at - 1].line, self.marks['raises'])
                self.assertLessEqual(names.count('raises'), 11)

    def test_generators(self):
        self.assert_passes('generators', ('generators', 'for'), ('outer_generator', 'outer generator'),
                           ('inner_generator', None))

    def test_coroutines(self):
        def passes(frames):
            at = [frame.line for frame in frames]
            chain = [self.marks[mark] for mark in ('outer coroutine', 'inner coroutine')]
            return self.marks['run loop'] in at and any(at[n:n + 2] == chain for n in range(len(at)))
        # The rest is the event loop's own.
        self.assertGreater(self.share('coroutines', passes), 0.7)
        loop = self.share('coroutines', lambda frames: any(frame.line == self.marks['run loop'] and
                                                           frame.name == 'coroutines' for frame in frames))
        self.assertGreater(loop, 0.9)

    def test_recursion(self):
        def whole(frames):
            recursion = [frame.line for frame in frames if frame.name == 'recurse']
            return recursion == [self.marks['recurse']] * 899 + [self.marks['bottom']] and frames[-1].name == 'spin'
        self.assertGreater(self.share('recursion', whole), 0.9)

    def test_classes(self):
        body = 'classes.<locals>.Body' if harness.python_version() >= (3, 11) else 'Body'
        def passes(frames):
            return len(frames) > 2 and tuple(frames[-2]) == (body, 'scenes.py', self.marks['class body'])
        self.assertGreater(self.share('classes', passes), 0.9)

    def test_comprehensions(self):
        def passes(frames):
            return len(frames) > 2 and frames[-1].name == 'spin' and frames[-2].line == self.marks['comprehension']
        self.assertGreater(self.share('comprehensions', passes), 0.9)

    def test_every_stack_has_its_root(self):
        for stack in self.run_.script_stacks('collapsed,samples,idle'):
            root = stack.frames[0]
            if stack.thread == 'MainThread':
                self.assertEqual((root.name, root.file), ('<module>', 'scenes.py'))
            elif stack.thread in self.clocks:
                self.assertEqual((root.name.rpartition('.')[2], root.file), ('_bootstrap', 'threading.py'))

    # Names of threads.

    def test_thread_names(self):
        escaped = ODD_NAME.replace('\\', '\\\\').replace(';', '\\x3b').replace('\n', '\\n')
        self.assertGreater(self.sum('samples', escaped), 100)
        nameless = [stack for stack in self.parsed['collapsed,samples'] if stack.frames[0].name.endswith('<lambda>')]
        self.assertTrue(nameless)
        self.assertTrue(all(stack.thread.strip() for stack in nameless))

    def test_speedscope(self):
        for words in ('speedscope,wall', 'speedscope,wall,idle'):
            document = json.loads(self.run_.texts[words])
            frames = document['shared']['frames']
            names = [profile['name'] for profile in document['profiles']]
            self.assertTrue(any(ODD_NAME in name for name in names), names)
            spans = []
            for profile in document['profiles']:
                self.assertEqual(profile['unit'], 'nanoseconds')
                spans.append((profile['startValue'], profile['endValue']))
                total = self.check_profile(profile, len(frames))
                for thread, (wall, _, _) in self.clocks.items():
                    if thread.startswith('holds_') and thread in profile['name']:
                        self.assertLess(abs(total - wall), 0.2 * wall, thread)
            self.assertEqual(len(set(spans)), 1, 'the profiles are not aligned')
            self.assertIn(SCRIPT, {frame.get('file') for frame in frames})
            for frame in frames:
                self.assertIsInstance(frame['name'], str)

    def check_profile(self, profile, frame_count):
        """The profile's busy time; it may be of either kind that the format has."""
        if profile['type'] == 'sampled':
            self.assertEqual(len(profile['samples']), len(profile['weights']))
            for sample in profile['samples']:
                self.assertTrue(all(0 <= frame < frame_count for frame in sample))
            self.assertEqual(sum(profile['weights']), profile['endValue'] - profile['startValue'])
            return sum(weight for sample, weight in zip(profile['samples'], profile['weights']) if sample)
        self.assertEqual(profile['type'], 'evented')
        stack, last, total = [], profile['startValue'], 0
        for event in profile['events']:
            self.assertGreaterEqual(event['at'], last)
            total += event['at'] - last if stack else 0
            last = event['at']
            self.assertTrue(0 <= event['frame'] < frame_count)
            if event['type'] == 'O':
                stack.append(event['frame'])
            else:
                self.assertEqual(stack.pop(), event['frame'])
        self.assertEqual(stack, [])
        self.assertLessEqual(last, profile['endValue'])
        return total


class DepthTest(unittest.TestCase):
    def test_cut_off(self):
        run = harness.Run(SCRIPT, [0.2, 'recursion', 'generators', 'waits_lock'], ['collapsed,samples,idle'], 1000,
                          ['-d', 100])
        cut = [stack for stack in run.stacks('collapsed,samples,idle') if '[truncated]' in collapsed.names(stack)]
        self.assertGreater(len(cut), 0)
        for stack in cut:
            names = collapsed.names(stack)
            self.assertEqual(stack.thread, 'recursion')
            self.assertIn('_bootstrap', names[0])
            self.assertEqual(len(names) - names.index('[truncated]'), 75)
            self.assertIn(names.index('[truncated]'), range(19, 26))  # a quarter; entries from C take places, too
        self.assertGreater(run.stats['truncated_depth'], 30)
        self.assertEqual(sum(stack.value for stack in cut), run.stats['truncated_depth'])

    def test_quiet(self):
        """Calls into C stand still for long enough to be read without a signal."""
        run = harness.measured(SCRIPT, [0.2, 'holds_sort', 'frees_hash', 'generators'], ['collapsed,wall'], 1000,
                               ['-q'])
        clocks = run.printed()
        for thread, mark in (('holds_sort', 'sort'), ('frees_hash', 'hash')):
            total = sum(stack.value for stack in run.stacks('collapsed,wall')
                        if stack.thread == thread and stack.frames[-1].line == marks()[mark])
            self.assertGreater(total * 1000, 0.9 * clocks[thread][1])
        self.assertEqual(run.stats['signals'], 0)


if __name__ == '__main__':
    harness.main()
