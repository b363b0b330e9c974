"""The formats of tools/exports.h say what all others say, to the nanosecond: of profiles made by hand, hostile names among
them, and of a recording. The truth is pprof's file, which test_pprof.py compares with collapsed text and speedscope."""

import collections
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))

import collapsed
import exported
import harness
import pprof

VARIANTS = ['', '-idle', '-function', '-idle-function']
TIMES = ['wall', 'cpu', 'gil']
SCRIPT = '''
import threading, time
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
INNER = """
import time
def inner():
    end = time.perf_counter() + 0.3
    while time.perf_counter() < end: sum(range(2000))
inner()
"""
def fall(n):
    return n and fall(n - 1) or sum(range(2000))
def spin():
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end: fall(5)
def nap(): time.sleep(0.7)
def other(): interpreters.run_string(interpreters.create(), INNER)
threads = [threading.Thread(target=spin, name='spinner'), threading.Thread(target=nap, name='\\u2615 sleeper'),
           threading.Thread(target=other, name='sub')]
for thread in threads: thread.start()
spin()
for thread in threads: thread.join()
'''


def line_or_none(frame):
    """What has no file has no line but in pprof's."""
    return frame if frame.file else exported.Frame(frame.name, '', 0, 0)


def waits(sample):
    return sample.labels.get('state') == 'idle'


def by_stack(profile, metric):
    """{(stack, whether it waits): value}"""
    sums = collections.Counter()
    for sample in profile.samples:
        sums[tuple(exported.Frame(*line_or_none(frame)) for frame in sample.stack), waits(sample)] += sample.values[metric]
    return +sums


def function_key(frame):
    return frame.file or '~', frame.first_line if frame.file else 0, frame.name


def call_graph(profile, metric):
    """What pstats has of a profile, as exported.read_pstats has it."""
    rows = collections.defaultdict(lambda: [0, 0, 0, 0])
    edges = collections.defaultdict(lambda: [0, 0, 0, 0])
    for sample in profile.samples:
        keys = [function_key(frame) for frame in sample.stack]
        pairs = list(zip(keys, keys[1:]))
        samples, value = sample.values['samples'], sample.values[metric]
        for table, items in (rows, keys), (edges, pairs):
            for item in items:
                table[item][1] += samples
            for item in set(items):
                table[item][0] += samples
                table[item][3] += value
        rows[keys[0]][2] += value
        if pairs:
            edges[pairs[0]][2] += value
    graph = {}
    for key, row in rows.items():
        if row[0] or row[3]:
            callers = {pair[1]: tuple(edge) for pair, edge in edges.items() if pair[0] == key and (edge[0] or edge[3])}
            graph[key] = (*row, callers)
    return graph


def slice_name(frame):
    return '%s (%s:%d)' % (frame.name, frame.file.rpartition('/')[2], frame.first_line) if frame.file else frame.name


class Agreement:
    """What holds of a profile in all formats. pprof files have idle time in samples of their own."""

    def same(self, found, expected, what=''):
        """Of large tables, what differs first."""
        differ = [(key, found.get(key), expected.get(key)) for key in list(found) + list(expected)
                  if found.get(key) != expected.get(key)]
        self.assertTrue(not differ, '%s: %d differ: %.2000r' % (what, len(differ), differ[:1]))
        self.assertGreater(len(found), 3)

    def agrees_with_pstats(self, profile, data, metric):
        self.same(exported.read_pstats(data), call_graph(profile, metric), metric)

    def agrees_with_firefox(self, profile, text, metric):
        """Each line's stack, running and waiting. pprof's samples that wait have no CPU time."""
        samples, document = exported.read_firefox(text)
        sums = collections.Counter()
        for sample in samples:
            sums[sample.stack, sample.is_idle] += sample.weight
        if metric == 'cpu':
            self.same(self.without_state(sums), self.without_state(by_stack(profile, metric)), metric)
        else:
            self.same(+sums, by_stack(profile, metric), metric)
        cpu = sum(sum(thread['samples']['threadCPUDelta']) for thread in document['threads'])
        self.assertEqual(cpu, sum(sample.values['cpu'] for sample in profile.samples))

    def agrees_with_perfetto(self, profile, text, name_of=slice_name):
        """Each function's stack, running and waiting, in wall time."""
        slices, _ = exported.read_perfetto(text)
        sums = collections.Counter()
        for (stack, is_idle), value in by_stack(profile, 'wall').items():
            sums[tuple(map(name_of, stack)), is_idle] += value
        found = collections.Counter()
        for (stack, is_idle), value in exported.self_times(slices).items():
            found[stack, is_idle] += value
        self.same(found, sums)

    def agrees_with_jsonl(self, profile, reader):
        """Each node, in each metric, and the time line in those that it has."""
        for metric, key in ('samples', 'samples'), ('wall', 'wall_ns'), ('cpu', 'cpu_ns'), ('gil', 'gil_ns'):
            idle = {'samples': 'samples_idle', 'wall_ns': 'wall_idle_ns'}.get(key)
            nodes, spans = collections.Counter(), collections.Counter()
            for node in reader.nodes:
                waited = node[idle] if idle else 0
                nodes[reader.stack(node['id']), False] += node[key] - waited
                nodes[reader.stack(node['id']), True] += waited
            if metric in ('samples', 'wall'):
                self.same(+nodes, by_stack(profile, metric), metric)
            else:
                self.same(self.without_state(nodes), self.without_state(by_stack(profile, metric)), metric)
            for span in reader.spans:
                value = span['wall_ns'] * span['has_gil'] if metric == 'gil' else span[key]
                spans[reader.stack(span['node']), span['is_idle']] += value
            self.same(self.without_state(spans), self.without_state(nodes), metric)

    @staticmethod
    def without_state(sums):
        both = collections.Counter()
        for (stack, _), value in sums.items():
            both[stack] += value
        return +both


class HandMade(Agreement):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        environment = {name: value for name, value in os.environ.items() if name != 'HOSTILE'}
        subprocess.run([os.path.join(harness.BUILD, 'tests', 'formats', 'handmade'), cls.folder.name], check=True,
                       env=dict(environment, **cls.environment))

    environment = {}
    variants = VARIANTS
    metrics = pprof.TYPES

    def data(self, name):
        with open(os.path.join(self.folder.name, name), 'rb') as file:
            return file.read()

    def text(self, name):
        return self.data(name).decode('utf-8')

    def profile(self, name):
        return pprof.read(self.data(name + '.pb'))

    def test_pstats(self):
        for metric in set(TIMES) & set(self.metrics):
            for variant in self.variants:
                with self.subTest(metric + variant):
                    self.agrees_with_pstats(self.profile('wall' + variant.replace('-function', '')),
                                            self.data(metric + variant + '.pstats'), metric)

    def test_firefox(self):
        """Waiting is there whatever was asked for."""
        for metric in self.metrics:
            for variant in self.variants:
                with self.subTest(metric + variant):
                    profile = self.profile('wall-idle' + ('-function' if 'function' in variant else ''))
                    self.agrees_with_firefox(profile, self.text(metric + variant + '.firefox.json'), metric)

    def test_perfetto(self):
        profile = self.profile('wall-idle-function')
        for metric in self.metrics:
            for variant in self.variants:
                with self.subTest(metric + variant):
                    self.assertEqual(self.data(metric + variant + '.perfetto.json'), self.data('wall.perfetto.json'))
        self.agrees_with_perfetto(profile, self.text('wall.perfetto.json'))


class Plain(HandMade, unittest.TestCase):
    def test_jsonl(self):
        for variant in '', '-function':
            reader = exported.read_jsonl(self.text('cpu%s.jsonl' % variant))
            self.agrees_with_jsonl(self.profile('wall-idle' + variant), reader)
            self.assertEqual(reader.facts['process'], 'handmade')
            self.assertEqual(reader.facts['stats']['lost_memory'], 4)
            self.assertEqual(len(reader.threads), 8)

    def test_top(self):
        for metric in pprof.TYPES:
            for variant in VARIANTS:
                with self.subTest(metric + variant):
                    totals = pprof.totals(self.profile(metric + variant), metric,
                                          lambda f: (f.name, f.file, f.line if f.file else 0))
                    self.assertEqual(self.top(metric + variant + '.top'), totals)

    def top(self, name):
        rows, parts = {}, self.data(name).split(b'\0')[:-1]
        for first, path in zip(parts[::2], parts[1::2]):
            figures, _, name = first.partition(b'\t')
            own, total, _, _, line = map(int, figures.split())
            rows[name.decode(), path.decode(), line] = [own, total]
        return rows

    def test_threads(self):
        _, document = exported.read_firefox(self.text('wall.firefox.json'))
        _, names = exported.read_perfetto(self.text('wall.perfetto.json'))
        expected = ['MainThread', 'worker', 'worker (4002)', 'worker \\udc80', 'game', 'pool', '(4006)', 'worker']
        self.assertEqual([thread['name'] for thread in document['threads']], expected)
        self.assertEqual(list(names.values()), expected)
        self.assertEqual([thread['tid'] for thread in document['threads']], list(names))
        self.assertEqual([tid for tid in names if tid < 1 << 22], [4000, 4001, 4002, 4003, 4004, 4006, 4007])
        self.assertEqual({thread['pid'] for thread in document['threads']}, {'4000'})

    def test_time_lines_agree(self):
        """All begin where the recording did: a span is where its sample and its innermost slice are."""
        spans = exported.read_jsonl(self.text('wall.jsonl')).spans
        samples, _ = exported.read_firefox(self.text('wall.firefox.json'))
        starts = {span['start_ns'] for span in spans if span['wall_ns']}
        ends = {span['start_ns'] + span['wall_ns'] - 1000 for span in spans}
        self.assertLessEqual(starts, {sample.start for sample in samples})
        self.assertLessEqual({sample.start for sample in samples}, starts | ends | {span['start_ns'] for span in spans})
        slices, _ = exported.read_perfetto(self.text('wall.perfetto.json'))
        self.assertLessEqual({one.start for one in slices}, {span['start_ns'] for span in spans})

    def test_long_spans_are_two_samples(self):
        """One at each end, of half the weight."""
        spans = [span for span in exported.read_jsonl(self.text('wall.jsonl')).spans if span['wall_ns'] > 20000000]
        samples, _ = exported.read_firefox(self.text('wall.firefox.json'))
        weights = collections.Counter((sample.start, sample.weight) for sample in samples)
        self.assertGreater(len(spans), 3)
        for span in spans:
            half = span['wall_ns'] // 2
            self.assertIn((span['start_ns'], span['wall_ns'] - half), weights)
            self.assertIn((span['start_ns'] + span['wall_ns'] - 1000, half), weights)

    def test_slices_go_on(self):
        """Functions that stay on the stack are one slice: far fewer than the frames of all spans."""
        reader = exported.read_jsonl(self.text('wall-function.jsonl'))
        frames = sum(len(reader.stack(span['node'])) for span in reader.spans)
        slices, _ = exported.read_perfetto(self.text('wall.perfetto.json'))
        self.assertLess(len(slices), frames)
        before = {}
        for i, one in enumerate(slices):
            follows = before.get((one.tid, one.depth, one.parent))
            if follows is not None and slices[follows].start + slices[follows].duration == one.start:
                self.assertNotEqual((slices[follows].name, slices[follows].category), (one.name, one.category))
            before[one.tid, one.depth, one.parent] = i


class Hostile(HandMade, unittest.TestCase):
    environment = {'HOSTILE': '1'}
    variants = ['', '-idle-function']
    metrics = ['wall']

    def test_names(self):
        names = {key[2] for key in exported.read_pstats(self.data('wall.pstats'))}
        self.assertLessEqual({'[no name]', 'lone \\udc80 surrogate', 'no UTF-8 \\udcff\\udcc3', 'two\nlines\r\n',
                              'zero \0 byte', '\u2028 \U0001f40d "quoted" \x1b[31m', 'x' * 100000}, names)

    def test_jsonl_has_names_as_they_are(self):
        names = {function['name'] for function in exported.read_jsonl(self.text('wall.jsonl')).functions}
        self.assertLessEqual({'', 'lone \udc80 surrogate', 'no UTF-8 \udcff\udcc3', 'two\nlines\r\n', 'semi;colon \\udc80',
                              'zero \0 byte', 'x' * 100000}, names)


class Special(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        subprocess.run([os.path.join(harness.BUILD, 'tests', 'formats', 'special'), cls.folder.name], check=True)

    def data(self, name):
        with open(os.path.join(self.folder.name, name), 'rb') as file:
            return file.read()

    def text(self, name):
        return self.data(name).decode('utf-8')

    def test_nothing(self):
        self.assertEqual(exported.read_pstats(self.data('empty.pstats')), {('~', 0, '[no samples]'): (0, 0, 0, 0, {})})
        samples, document = exported.read_firefox(self.text('empty.firefox.json'))
        self.assertEqual((samples, len(document['threads'])), ([], 1))
        self.assertEqual(exported.read_perfetto(self.text('empty.perfetto.json')), ([], {}))
        self.assertEqual(exported.read_jsonl(self.text('empty.jsonl')).nodes, [])

    def test_one_sample(self):
        once = ('/no/such/m.py', 3, 'once')
        self.assertEqual(exported.read_pstats(self.data('one.pstats')), {once: (1, 1, 10000000, 10000000, {})})
        samples, _ = exported.read_firefox(self.text('one.firefox.json'))
        self.assertEqual([sample.weight for sample in samples], [5000000, 5000000])
        slices, _ = exported.read_perfetto(self.text('one.perfetto.json'))
        self.assertEqual(slices, [exported.Slice(4711, 'once (m.py:3)', 'python', 0, 10000000, 0, None)])

    def test_deep(self):
        rows = exported.read_pstats(self.data('deep.pstats'))
        self.assertEqual(len(rows), 5002)
        self.assertEqual(rows['/no/such/m.py', 1, 'level_0'][:4], (3, 3, 0, 30000000))
        self.assertEqual(rows['/no/such/m.py', 5000, 'level_4999'][:4], (2, 2, 10000000, 20000000))
        samples, _ = exported.read_firefox(self.text('deep.firefox.json'))
        self.assertEqual({len(sample.stack) for sample in samples}, {5000, 5001, 2})

    def test_recursion(self):
        rows = exported.read_pstats(self.data('recursion.pstats'))
        level, leaf, other = [('/no/such/m.py', line, name) for line, name in ((1, 'level_0'), (9000, 'leaf'), (9001, 'other'))]
        self.assertEqual(rows[level], (3, 10001, 10000000, 30000000, {level: (2, 9998, 10000000, 20000000)}))
        self.assertEqual(rows[leaf], (1, 1, 10000000, 10000000, {level: (1, 1, 10000000, 10000000)}))
        self.assertEqual(rows[other], (1, 1, 10000000, 10000000, {level: (1, 1, 10000000, 10000000)}))

    def test_deep_slices(self):
        """512, the innermost three quarters among them, as Perfetto has no more."""
        slices, _ = exported.read_perfetto(self.text('deep.perfetto.json'))
        names = {one.depth: one.name for one in slices if one.name != 'other (m.py:9001)'}
        self.assertEqual(max(names), 511)
        self.assertEqual([names[at] for at in (0, 127, 128, 129, 510, 511)],
                         ['level_0 (m.py:1)', 'level_127 (m.py:128)', '[truncated]', 'level_4618 (m.py:4619)',
                          'level_4999 (m.py:5000)', 'leaf (m.py:9000)'])

    def test_wide(self):
        reader = exported.read_jsonl(self.text('wide.jsonl'))
        self.assertEqual(sum(1 for node in reader.nodes if node['wall_ns']), 199000)
        samples, _ = exported.read_firefox(self.text('wide.firefox.json'))
        self.assertEqual(sum(sample.weight for sample in samples), 199000 * 1000000)
        slices, _ = exported.read_perfetto(self.text('wide.perfetto.json'))
        self.assertEqual(len(slices), 200000)
        self.assertEqual(exported.read_pstats(self.data('wide.pstats'))['/no/such/m.py', 1, 'called_0'][:4],
                         (1000, 1000, 1000000000, 1000000000))


class Recorded(Agreement, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'script.py')
            with open(path, 'w', encoding='utf-8') as file:
                file.write(SCRIPT)
            outputs = ['pprof', 'pprof,idle', 'pprof,idle,function', 'jsonl', 'perfetto', 'table', 'collapsed']
            outputs += [form + ',' + metric for form in ('pstats', 'firefox', 'top,function') for metric in TIMES]
            outputs += ['pstats,wall,idle', 'top,function,wall,idle']
            cls.run_of_host = harness.Run(path, outputs=outputs)
            cls.texts = cls.run_of_host.texts

    def test_it_is_what_was_recorded(self):
        samples, _ = exported.read_firefox(self.texts['firefox,wall'])
        threads = {sample.thread for sample in samples}
        self.assertLessEqual({'MainThread', 'spinner', '\u2615 sleeper', 'sub'}, threads)
        naps = [sample for sample in samples if sample.stack[0].name == 'nap' and sample.is_idle]
        self.assertGreater(sum(sample.weight for sample in naps), 500000000)
        self.assertIn(6, {sum(frame.name == 'fall' for frame in sample.stack) for sample in samples})
        inner = [sample for sample in samples if sample.stack[0].name == 'inner']
        self.assertTrue(any(frame.name.startswith('[interpreter ') for frame in inner[0].stack))

    def test_pstats(self):
        for metric in TIMES:
            self.agrees_with_pstats(pprof.read(self.texts['pprof']), self.texts['pstats,' + metric], metric)
        self.agrees_with_pstats(pprof.read(self.texts['pprof,idle']), self.texts['pstats,wall,idle'], 'wall')

    def test_firefox(self):
        for metric in TIMES:
            self.agrees_with_firefox(pprof.read(self.texts['pprof,idle']), self.texts['firefox,' + metric], metric)

    def test_perfetto(self):
        """Outputs show more of some paths than their last part."""
        functions = exported.read_jsonl(self.texts['jsonl']).functions
        shown = {(one['path'], one['first_line'], one['name']): one['file'] for one in functions}

        def name_of(frame):
            file = shown[frame.file, frame.first_line, frame.name]
            return '%s (%s:%d)' % (frame.name, file, frame.first_line) if file else frame.name
        self.agrees_with_perfetto(pprof.read(self.texts['pprof,idle,function']), self.texts['perfetto'], name_of)

    def test_jsonl(self):
        reader = exported.read_jsonl(self.texts['jsonl'])
        self.agrees_with_jsonl(pprof.read(self.texts['pprof,idle']), reader)
        stats = self.run_of_host.stats
        self.assertEqual({name: reader.facts['stats'][name] for name in ('samples', 'ticks', 'threads', 'signals')},
                         {name: stats[name] for name in ('samples', 'ticks', 'threads', 'signals')})
        self.assertEqual(reader.facts['interval_us'], 1000)
        self.assertRegex(reader.facts['python'], '^[0-9]+[.][0-9]+[.]')

    def test_functions_agree(self):
        """pstats and pyprof_top, to the nanosecond; collapsed text as far as it rounds; and the table's first lines."""
        for metric in TIMES:
            rows = exported.read_pstats(self.texts['pstats,' + metric])
            mine = sorted((row[2], row[3], key[2]) for key, row in rows.items() if row[3])
            top = [line.split('\t') for line in self.texts['top,function,' + metric].splitlines()]
            self.assertEqual(mine, sorted((int(own), int(total), re.sub(r' \(.*:[0-9]+\)$', '', name))
                                          for own, total, _, _, name in top))
        rows = exported.read_pstats(self.texts['pstats,wall'])
        stacks = collapsed.parse(self.texts['collapsed'])
        for name in 'fall', 'spin', 'inner':
            total = sum(row[3] for key, row in rows.items() if key[2] == name)
            self.assertLessEqual(abs(total - 1000 * collapsed.within(stacks, name)), 1000 * len(stacks), name)
        self.assertIn('fall', self.texts['table'])


if __name__ == '__main__':
    harness.main()
