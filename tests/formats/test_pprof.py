"""pprof's format: each rule that its readers and engines have (common/pprof.py) on files of ours, and that they say what
the other formats say."""

import collections
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))

import collapsed
import harness
import pprof

METRICS = ['wall', 'cpu', 'gil', 'samples']
SCRIPT = '''
import threading, time
def fall(n):
    return n and fall(n - 1) or sum(range(2000))
def spin():
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end: fall(5)
def nap(): time.sleep(0.7)
threads = [threading.Thread(target=spin, name='spinner'), threading.Thread(target=nap, name='\\u2615 sleeper')]
for thread in threads: thread.start()
spin()
for thread in threads: thread.join()
'''


def escaped(text):
    """How a lone surrogate is written."""
    return text.encode('utf-8', 'backslashreplace').decode()


def read_speedscope(text):
    """Totals of each frame, in nanoseconds or samples, as pprof.totals has them, keyed by name, file and line."""
    document = json.loads(text)
    frames = [(escaped(frame['name']) or '[no name]', escaped(frame.get('file', '')), frame.get('line', 0))
              for frame in document['shared']['frames']]
    sums = collections.defaultdict(lambda: [0, 0])
    for profile in document['profiles']:
        for stack, weight in zip(profile['samples'], profile['weights']):
            for one in {frames[number] for number in stack}:
                sums[one][1] += weight
            if stack:
                sums[frames[stack[-1]]][0] += weight
    return dict(sums)


def by_line(frame):
    """What has no file has no line in a speedscope file."""
    return frame.name, frame.file, frame.line if frame.file else 0


def as_collapsed(sample):
    """The stack in collapsed text's words, of names that are nothing special. All files are shown by their last parts."""
    frames = ['%s (%s:%d)' % (f.name, f.file.rpartition('/')[2], f.line) if f.file else f.name
              for f in reversed(sample.stack)]
    thread = ['thread ' + sample.labels['thread']] if 'thread' in sample.labels else []
    return tuple(thread + frames)


class Agreement:
    def agrees_with_collapsed(self, profile, text, metric):
        """Each stack to the microsecond, and their sum to half of one, which is how collapsed text rounds."""
        unit = 1 if metric == 'samples' else 1000
        ours, theirs = collections.Counter(), collections.Counter()
        for sample in profile.samples:
            ours[as_collapsed(sample)] += sample.values[metric]
        for line in text.splitlines():
            stack, value = collapsed.folded(line)
            theirs[tuple(stack)] += value
        self.assertEqual((sum(ours.values()) + unit // 2) // unit, sum(theirs.values()))
        self.assertGreater(len(theirs), 3)
        for stack in set(ours) | set(theirs):
            self.assertLess(abs(ours[stack] - unit * theirs[stack]), unit, stack)

    def agrees_with_speedscope(self, profile, text, metric):
        """Each line's own time and that with its callees, to the nanosecond."""
        theirs = {frame: both for frame, both in read_speedscope(text).items() if both[1]}
        self.assertEqual({frame: list(both) for frame, both in pprof.totals(profile, metric, by_line).items()}, theirs)


class HandMade(Agreement):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        subprocess.run([os.path.join(harness.BUILD, 'tests', 'formats', 'handmade'), cls.folder.name], check=True,
                       env=cls.environment())
        cls.files, cls.profiles = {}, {}
        for name in os.listdir(cls.folder.name):
            with open(os.path.join(cls.folder.name, name), 'rb') as file:
                cls.files[name] = file.read()

    @staticmethod
    def environment():
        return {name: value for name, value in os.environ.items() if name != 'HOSTILE'}

    @classmethod
    def read(cls, name):
        if name not in cls.profiles:
            cls.profiles[name] = pprof.read(cls.files[name])
        return cls.profiles[name]

    def names(self):
        return [name[:-len('.pb.gz')] for name in sorted(self.files) if re.match('(wall|cpu|gil|samples).*[.]pb[.]gz', name)]

    def test_rules(self):
        self.assertEqual(len(self.names()), 16)
        for name in self.names():
            with self.subTest(name):
                profile = self.read(name + '.pb.gz')
                self.assertEqual(profile.default, name.partition('-')[0])
                self.assertEqual(profile.period, 10000000)
                self.assertRegex(profile.program, '/handmade$')
                self.assertGreater(len(profile.samples), 500)

    def test_gzip_has_the_plain_file(self):
        for name in self.names():
            self.assertEqual(gzip.decompress(self.files[name + '.pb.gz']), self.files[name + '.pb'])
            self.assertEqual(pprof.unzip(self.files[name + '.pb.gz']), self.files[name + '.pb'])

    def test_totals_agree_with_speedscope(self):
        for name in self.names():
            with self.subTest(name):
                metric = name.partition('-')[0]
                profile = self.read(name + '.pb')
                self.agrees_with_speedscope(profile, self.files[name + '.json'].decode(), metric)

    def test_all_metrics_are_in_each_file(self):
        for variant in '', '-idle', '-function', '-idle-function':
            for metric in METRICS:
                profile = self.read('wall%s.pb' % variant)
                self.agrees_with_speedscope(profile, self.files[metric + variant + '.json'].decode(), metric)

    def test_idle_time_is_apart(self):
        without, both = self.read('wall.pb'), self.read('wall-idle.pb')
        self.assertEqual({sample.labels.get('state') for sample in without.samples}, {None})
        self.assertEqual({sample.labels.get('state') for sample in both.samples}, {'running', 'idle'})

        def running(profile):
            return [(s.stack, s.values, {k: v for k, v in s.labels.items() if k != 'state'})
                    for s in profile.samples if s.labels.get('state') != 'idle']
        self.assertEqual(running(without), running(both))
        idle = [sample.values for sample in both.samples if sample.labels['state'] == 'idle']
        self.assertEqual({values['cpu'] + values['gil'] for values in idle}, {0})
        self.assertGreater(sum(values['wall'] for values in idle), 1000000)

    def test_comments(self):
        comments = self.read('wall.pb').comments
        self.assertEqual(comments[1], 'lost samples: 7 (late 3, pending 0, unsettled 0, unreadable 0, memory 4); their '
                                      'time is with the samples beside them')
        self.assertRegex(comments[2], '^[0-9.]+ % in JIT code: innermost lines may be too early there$')
        self.assertEqual(len(comments), 3)


class Plain(HandMade, unittest.TestCase):
    def test_stacks_agree_with_collapsed(self):
        for name in self.names():
            with self.subTest(name):
                profile = self.read(name + '.pb.gz')
                self.agrees_with_collapsed(profile, self.files[name + '.txt'].decode(), name.partition('-')[0])

    def test_threads(self):
        """Also those of one name, as far as an id is of one thread only."""
        threads = {(s.labels.get('thread'), s.labels.get('thread_id')) for s in self.read('wall.pb').samples}
        self.assertEqual(threads, {
            ('MainThread', 4000), ('worker', 4001), ('worker (4002)', 4002), ('worker \\udc80', 4003), ('game', 4004),
            ('pool', None), ('(4006)', 4006), ('worker', 4007)})

    def test_merged_threads(self):
        profile = self.read('merged.pb.gz')
        self.assertEqual({key for sample in profile.samples for key in sample.labels}, {'interpreter', 'state'})
        self.agrees_with_collapsed(profile, self.files['merged.txt'].decode(), 'wall')

    def test_filters(self):
        """What passes them is a file by the same rules."""
        profile = self.read('filtered.pb.gz')
        self.assertEqual({sample.labels['thread'] for sample in profile.samples},
                         {'worker', 'worker (4002)', 'worker \\udc80'})
        self.assertIn('[other]', {frame.name for sample in profile.samples for frame in sample.stack})
        self.agrees_with_collapsed(profile, self.files['filtered.txt'].decode(), 'wall')

    def test_interpreters(self):
        """The one that the stack ends in; where what would tell it was cut off, none."""
        seen = collections.Counter()
        for sample in self.read('wall.pb').samples:
            expected = '0'
            for frame in sample.stack:
                mark = re.match(r'\[interpreter (.*)\]$', frame.name)
                if mark or frame.name == '[truncated]':
                    expected = mark.group(1) if mark else None
                    break
            self.assertEqual(sample.labels.get('interpreter'), expected)
            seen[expected] += 1
        self.assertEqual(set(seen), {'0', '1: physics', '2', None})


class Hostile(HandMade, unittest.TestCase):
    @staticmethod
    def environment():
        return dict(os.environ, HOSTILE='1')

    def test_names(self):
        names = {frame.name for sample in self.read('wall.pb.gz').samples for frame in sample.stack}
        self.assertEqual(names - {'x' * 100000}, {
            '[no name]', 'lone \\udc80 surrogate', 'no UTF-8 \\udcff\\udcc3', 'two\nlines\r\n', 'semi;colon \\udc80',
            'zero \0 byte', 'wall', '\u2028 \U0001f40d "quoted" \x1b[31m', '[interpreter ]', '[interpreter 7'})
        self.assertIn('x' * 100000, names)


class Recorded(Agreement, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'script.py')
            with open(path, 'w', encoding='utf-8') as file:
                file.write(SCRIPT)
            outputs = ['pprof', 'pprof,idle', 'pprof,function']
            outputs += [form + ',' + metric + idle for form in ('collapsed', 'speedscope') for metric in METRICS
                        for idle in ('', ',idle')]
            cls.before = time.time()
            cls.run_of_host = harness.Run(path, outputs=outputs)
            cls.after = time.time()
            cls.texts = cls.run_of_host.texts

    def test_it_is_what_was_recorded(self):
        profile = pprof.read(self.texts['pprof'])
        stats = self.run_of_host.stats
        self.assertEqual(profile.period, 1000000)
        self.assertRegex(profile.program, '/host$')
        self.assertGreater(profile.duration_nanos, 700000000)
        self.assertTrue(self.before <= profile.time_nanos / 1e9 <= self.after, profile.time_nanos)
        self.assertLess(profile.time_nanos + profile.duration_nanos, 1e9 * self.after)
        self.assertEqual(sum(sample.values['samples'] for sample in profile.samples),
                         stats['samples'] - stats['samples_idle'])
        lost = self.run_of_host.lost()
        self.assertEqual([text.partition(' (')[0] for text in profile.comments[1:2]],
                         ['lost samples: %d' % lost] if lost else [])
        idle = pprof.read(self.texts['pprof,idle'])
        self.assertEqual(sum(sample.values['samples'] for sample in idle.samples), stats['samples'])

    def test_threads(self):
        idle = pprof.read(self.texts['pprof,idle'])
        threads = {sample.labels['thread']: sample.labels['thread_id'] for sample in idle.samples}
        self.assertLessEqual({'MainThread', 'spinner', '\u2615 sleeper'}, set(threads))
        self.assertEqual(len(set(threads.values())), len(threads))
        naps = [sample for sample in idle.samples if sample.stack[0].name == 'nap' and sample.labels['state'] == 'idle']
        self.assertGreater(sum(sample.values['wall'] for sample in naps), 500000000)

    def test_functions(self):
        """A recursion counts once; its lines are those of the script."""
        profile = pprof.read(self.texts['pprof'])
        falls = [sample for sample in profile.samples if sample.stack[0].name == 'fall']
        self.assertIn(6, {sum(frame.name == 'fall' for frame in sample.stack) for sample in falls})
        self.assertEqual({(frame.line, frame.first_line) for sample in falls for frame in sample.stack
                          if frame.name == 'fall'} - {(3, 3)}, {(4, 3)})
        functions = pprof.read(self.texts['pprof,function'])
        self.assertEqual({frame.line - frame.first_line for sample in functions.samples for frame in sample.stack}, {0})

    def test_totals_agree(self):
        for metric in METRICS:
            for idle in '', ',idle':
                with self.subTest(metric + idle):
                    profile = pprof.read(self.texts['pprof' + idle])
                    self.agrees_by_name(profile, self.texts['collapsed,' + metric + idle], metric)
                    self.agrees_with_speedscope(profile, self.texts['speedscope,' + metric + idle], metric)

    def agrees_by_name(self, profile, text, metric):
        """Totals of functions: as many microseconds as stacks may have been rounded by."""
        unit = 1 if metric == 'samples' else 1000
        stacks = collapsed.parse(text)
        totals = pprof.totals(profile, metric, lambda frame: frame.name)
        counts, theirs = collections.Counter(), collections.Counter()
        for stack in stacks:
            for name in set(collapsed.names(stack)):
                theirs[name] += stack.value
                counts[name] += 1
        for name in set(totals) | set(theirs):
            self.assertLessEqual(abs(totals.get(name, (0, 0))[1] - unit * theirs[name]), unit * (counts[name] + 2), name)


class Rules(unittest.TestCase):
    """That the reader refuses what it is to refuse."""

    def broken(self, rule, data):
        with self.assertRaisesRegex(pprof.FormatError, re.escape(rule)):
            pprof.read(data)

    def message(self, *parts):
        """Fields as (number, value): numbers, texts, bytes."""
        data = b''
        for number, value in parts:
            if isinstance(value, int):
                data += self.number(number << 3) + self.number(value)
            else:
                value = value.encode() if isinstance(value, str) else value
                data += self.number(number << 3 | 2) + self.number(len(value)) + value
        return data

    @staticmethod
    def number(value):
        data = b''
        while value >= 0x80:
            data, value = data + bytes([value & 0x7f | 0x80]), value >> 7
        return data + bytes([value])

    def parts(self):
        """A small file that is right."""
        strings = ['', 'wall', 'cpu', 'gil', 'samples', 'count', 'nanoseconds', 'thread', 'pyprof 0', 'host', 'f', 'g']
        types = [self.message((1, one), (2, unit)) for one, unit in ((4, 5), (1, 6), (2, 6), (3, 6))]
        return ([(1, one) for one in types] +
                [(2, self.message((1, b'\1\2'), (2, b'\1\2\3\4'), (3, self.message((1, 7), (2, 10))))),
                 (2, self.message((1, b'\2'), (2, b'\1\2\3\4'), (3, self.message((1, 7), (3, 10))))),
                 (3, self.message((1, 1), (5, 9), (7, 1), (8, 1), (9, 1), (10, 1))),
                 (4, self.message((1, 1), (2, 1), (4, self.message((1, 1), (2, 5))))),
                 (4, self.message((1, 2), (2, 1), (4, self.message((1, 2))))),
                 (5, self.message((1, 1), (2, 10), (4, 9), (5, 3))),
                 (5, self.message((1, 2), (2, 11)))] +
                [(6, text) for text in strings] +
                [(9, 5), (10, 6), (11, types[1]), (12, 10), (13, 8), (14, 1)])

    def test_what_is_right(self):
        profile = pprof.read(self.message(*self.parts()))
        self.assertEqual(len(profile.samples), 2)
        self.assertEqual(profile.samples[0].labels, {'thread': 'f'})

    def test_each_rule(self):
        parts = self.parts()
        for rule, change in {
                'sample types': lambda p: p[0:1] + p[2:3] + p[1:2] + p[3:],
                'period type': lambda p: [one for one in p if one[0] != 11],
                'period: there is one': lambda p: [one for one in p if one[0] != 12],
                'time: there is one': lambda p: [one for one in p if one[0] != 9],
                'default sample type: one': lambda p: p[:-1] + [(14, 9)],
                'comment': lambda p: [one for one in p if one[0] != 13],
                'mapping: exactly one': lambda p: p + [one for one in p if one[0] == 3],
                'mapping: a file name': lambda p: [(n, v.replace(b'\x28\x09', b'') if n == 3 else v) for n, v in p],
                'mapping: number 1': lambda p: [(n, v.replace(b'\x50\x01', b'') if n == 3 else v) for n, v in p],
                'Mapping: no field 2': lambda p: [(n, v + b'\x10\x01' if n == 3 else v) for n, v in p],
                'locations: 1, 2, 3': lambda p: p[:7] + [p[8], p[7]] + p[9:],
                'functions: 1, 2, 3': lambda p: p[:9] + [p[10], p[9]] + p[11:],
                'functions: a name': lambda p: [(5, v.replace(b'\x10\x0a', b'')) if n == 5 else (n, v) for n, v in p],
                'functions: each': lambda p: p[:10] + [(5, p[9][1].replace(b'\x08\x01', b'\x08\x02'))] + p[11:],
                'locations: none': lambda p: p[:4] + p[5:],
                'samples: equal': lambda p: p[:5] + p[4:],
                'samples: a stack': lambda p: p[:4] + [(2, p[4][1][4:])] + p[5:],
                'samples: locations': lambda p: p[:4] + [(2, p[4][1].replace(b'\1\2\x12', b'\1\3\x12'))] + p[5:],
                'samples: a value': lambda p: p[:4] + [(2, p[4][1].replace(b'\x12\4\1\2\3\4', b'\x12\3\1\2\3'))] + p[5:],
                'samples: some value': lambda p: p[:4] + [(2, p[4][1].replace(b'\1\2\3\4', b'\0\0\0\0'))] + p[5:],
                'labels: keys': lambda p: [(n, 'Thread' if v == 'thread' else v) for n, v in p],
                'labels: a text or': lambda p: p[:5] + [(2, p[5][1].replace(b'\x18\x0a', b'\x18\0'))] + p[6:],
                'labels: each once': lambda p: p[:4] + [(2, p[4][1] + p[4][1][-6:])] + p[5:],
                'strings: valid UTF-8': lambda p: [(n, b'\xff' if v == 'f' else v) for n, v in p],
                'strings: "", then': lambda p: [(n, 'Wall' if v == 'wall' else v) for n, v in p],
                'strings: "" is the first': lambda p: p + [(6, '')],
                'strings: one that is not': lambda p: p[:-2] + [(13, 99)] + p[-1:]}.items():
            with self.subTest(rule):
                self.broken(rule, self.message(*change(parts)))

    def test_each_rule_of_gzip(self):
        content = self.message(*self.parts())
        right = gzip.compress(content, compresslevel=0, mtime=0)
        pprof.read(right)
        self.broken('gzip: mtime', gzip.compress(content, compresslevel=0, mtime=1))
        self.broken('gzip: stored', gzip.compress(content, mtime=0))
        self.broken('gzip: one member', right + right)
        self.broken('gzip: one member', right + b'\0')
        self.broken('gzip: the right CRC', right[:-5] + bytes([right[-5] ^ 1]) + right[-4:])
        self.broken('gzip: the right size', right[:-1] + b'\1')
        self.broken('gzip: an end', right[:-1])
        self.broken('gzip: a block that is cut', right[:40])
        self.broken('protobuf: a field that is cut', content[:-10])


if __name__ == '__main__':
    harness.main()
