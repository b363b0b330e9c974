"""pyprof-convert: from each format into each other, the same figures; filters, sums, differences, and what --help names."""

import collections
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import profiles
from profiles import convert, read, run, totals

SOURCES = ['wall-idle.jsonl', 'wall-idle.pb.gz', 'wall-idle.pb', 'wall-idle.json', 'wall-idle.txt']
TARGETS = ['o.jsonl', 'o.pb.gz', 'o.pb', 'o.json', 'o.txt']
TEXT = b'thread Main;a (x.py:1);b (y.py:2) 10\nthread Main;a (x.py:1);c (y.py:4) 5\nthread Main;a (x.py:1) 7\n' \
       b'thread w;z (z.py:9) 3\n'


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def put(self, name, data):
        with open(self.path(name), 'wb') as file:
            file.write(data)
        return self.path(name)

    def get(self, name):
        return profiles.content(self.path(name))


class Handmade(InFolder):
    """A profile of all that a name, a stack or a time may be, as tests/formats has it."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.made = folder.name
        subprocess.run([profiles.HANDMADE, cls.made], check=True)

    def source(self, name):
        return os.path.join(self.made, name)


class RoundTrips(Handmade):
    def test_from_each_into_each(self):
        """What the one file says of each line of each function, the other does: to the nanosecond, in collapsed text to
        the microsecond for each stack."""
        for source in SOURCES:
            outputs = itertools.chain.from_iterable(('-o', self.path(name)) for name in TARGETS)
            convert(self.source(source), '-i', *outputs)
            expected = read(self.source(source))
            self.assertGreater(len(totals(expected)), 30)
            for target in TARGETS:
                with self.subTest(source + ' to ' + target):
                    if target.endswith('.txt'):
                        self.agrees_as_text(expected, read(self.path(target)))
                    else:
                        self.assertEqual(totals(read(self.path(target))), totals(expected))

    def agrees_as_text(self, expected, found):
        by_frames, theirs = collections.Counter(), collections.Counter()
        for (thread, frames), value in expected.items():
            by_frames[frames] += value
        for (thread, frames), value in found.items():
            theirs[frames] += value
        self.assertLessEqual(abs(sum(by_frames.values()) - sum(theirs.values())), 500)
        for frames in by_frames.keys() | theirs.keys():
            self.assertLess(abs(by_frames[frames] - theirs[frames]), 8 * 1000, frames)  # one in each of 8 threads

    def test_each_metric_survives_pprof_and_jsonl(self):
        for source, metric in itertools.product(['wall-idle.jsonl', 'wall-idle.pb.gz'], ['wall', 'cpu', 'gil', 'samples']):
            convert(self.source(source), '-i', '-o', self.path('m.pb.gz'), '-o', self.path('m.jsonl'))
            expected = totals(profiles.of_pprof(profiles.content(self.source('wall-idle.pb.gz')), metric))
            name = metric if metric == 'samples' else metric + '_ns'
            self.assertEqual(totals(profiles.of_pprof(self.get('m.pb.gz'), metric)), expected)
            self.assertEqual(totals(profiles.of_jsonl(self.get('m.jsonl'), name)), expected)

    def test_jsonl_has_all(self):
        """So what is made of it is what the recording itself would have written, byte by byte."""
        convert(self.source('wall.jsonl'), '-o', self.path('again.jsonl'))
        self.assertEqual(self.get('again.jsonl'), profiles.content(self.source('wall.jsonl')))
        for metric, idle, ending in itertools.product(['wall', 'cpu', 'gil', 'samples'], ['', '-idle'], ['txt', 'firefox.json']):
            name = '%s%s.%s' % (metric, idle, ending)
            convert(self.source('wall.jsonl'), '--metric', metric, *['-i'] * bool(idle), '-o', self.path(name))
            self.assertEqual(self.get(name), profiles.content(self.source(name)), name)

    def test_text_stays_as_it_is(self):
        """Through each format that can carry it."""
        plain = sorted(profiles.content(self.source('wall-idle.txt')).splitlines())
        convert(self.source('wall-idle.txt'), '-o', self.path('t.json'), '-o', self.path('t.jsonl'), '-o', self.path('t.txt'))
        for name in 't.json', 't.jsonl', 't.txt':
            self.assertEqual(sorted(convert(self.path(name), '-f', 'collapsed').splitlines()), plain, name)

    def test_what_formats_cannot_carry(self):
        """Speedscope and collapsed text have one metric, and no word on what waited; pprof has what waited."""
        for source, has in ('wall-idle.json', 'wall'), ('wall-idle.txt', 'wall'), ('samples.json', 'samples'):
            done = run(self.source(source), '--metric', 'cpu')
            self.assertEqual((done.returncode, done.stdout), (1, b''))
            self.assertEqual(done.said, 'pyprof-convert: %s: this file has no cpu: it has %s\n' % (self.source(source), has))
        self.assertEqual(read(self.source('wall-idle.json')).total(),
                         profiles.of_speedscope(convert(self.source('wall-idle.json'), '-f', 'speedscope')).total())
        convert(self.source('wall-idle.pb.gz'), '-o', self.path('busy.pb'))
        self.assertEqual(totals(profiles.of_pprof(self.get('busy.pb'))),
                         totals(profiles.of_pprof(profiles.content(self.source('wall-idle.pb')), idle=False)))

    def test_pstats(self):
        """One row a function, whatever the file was."""
        expected = totals(read(self.source('wall-idle.pb.gz')), with_lines=False)
        for source in 'wall-idle.jsonl', 'wall-idle.pb.gz', 'wall-idle.json':
            convert(self.source(source), '-i', '-o', self.path('o.pstats'))
            found = profiles.of_pstats(self.get('o.pstats'))
            self.assertEqual(found.keys(), expected.keys())
            for key, both in expected.items():
                for one, other in zip(found[key], both):
                    self.assertLess(abs(one - other), 1000, key)

    def test_times_of_the_time_line(self):
        """A file with a time line keeps it; stacks without times lie one after the other."""
        convert(self.source('wall.jsonl'), '-i', '-o', self.path('o.json'))
        ours, theirs = json.loads(self.get('o.json')), json.loads(profiles.content(self.source('wall-idle.json')))
        self.assertEqual(ours['profiles'], theirs['profiles'])
        convert('-', '-o', self.path('laid.json'), given=TEXT)
        main, worker = json.loads(self.get('laid.json'))['profiles']
        self.assertEqual((main['samples'], main['weights']), ([[1], [1, 2], [1, 3]], [7000, 10000, 5000]))
        self.assertEqual((worker['weights'], worker['endValue']), ([3000, 19000], 22000))

    def test_pictures_have_all_metrics(self):
        convert(self.source('wall.jsonl'), '-o', self.path('o.svg'))
        svg = self.get('o.svg').decode()
        self.assertIn('function_12', svg)
        self.assertIn('MainThread', svg)


class Sums(InFolder):
    def test_two_files(self):
        """Threads of one name are one, and times add up."""
        one, other = self.put('one.txt', TEXT), self.put('other.txt', b'thread Main;a (x.py:1) 100\nthread new;q 1\n')
        found = profiles.of_collapsed(convert(one, other, one, '-f', 'collapsed'))
        expected = profiles.of_collapsed(TEXT) + profiles.of_collapsed(TEXT) + profiles.of_collapsed(self.get('other.txt'))
        self.assertEqual(found, expected)

    def test_facts(self):
        """Durations, samples and lost ones add up; programs are named."""
        def made(name, program, lost):
            rows = [{'type': 'facts', 'format': 'pyprof-jsonl', 'version': 1, 'program': program, 'start_ns': 10**18,
                     'duration_ns': 2 * 10**9, 'interval_us': 1000, 'stats': {'samples': 5, 'lost_late': lost}},
                    {'type': 'function', 'id': 0, 'name': 'f', 'path': '/f.py', 'first_line': 1},
                    {'type': 'thread', 'id': 0, 'name': 'Main', 'tid': 0, 'is_named': True},
                    {'type': 'node', 'id': 1, 'parent': 0, 'function': 0, 'line': 2, 'samples': 5, 'wall_ns': 50},
                    {'type': 'end', 'nodes': 2, 'spans': 0}]
            return self.put(name, b''.join(json.dumps(row).encode() + b'\n' for row in rows))
        out = convert(made('a.jsonl', '/bin/ab', 3), made('b.jsonl', '/bin/a', 4), '-f', 'jsonl')
        facts = json.loads(out.splitlines()[0])
        self.assertEqual((facts['duration_ns'], facts['stats']['samples'], facts['stats']['lost_late'], facts['program'],
                          facts['interval_us']), (4 * 10**9, 10, 7, '/bin/ab, /bin/a', 1000))

    def test_metric_in_common(self):
        go = profiles.Pprof([('samples', 'count'), ('cpu', 'nanoseconds')])
        go.add([(('main.f', 'f.go', 3),)], [4, 40])
        counted = self.put('counted.txt', b'a;b 3\n')
        both = convert(self.put('go.pb.gz', go.data()), counted, '-f', 'collapsed')
        self.assertEqual(both, b'main.f (f.go:3) 4\na;b 3\n')
        done = run(counted, self.put('timed.txt', TEXT))
        self.assertEqual((done.returncode, done.said),
                         (1, 'pyprof-convert: %s: it cannot be added to the files before it: it has wall, and they have '
                             'samples\n' % self.path('timed.txt')))


class Differences(InFolder):
    BASE = b'thread M;f (x.py:1);g (x.py:2) 600000\nthread M;f (x.py:1);h (x.py:3) 300000\nthread M;f (x.py:1) 100000\n'
    NEW = b'thread M;f (x.py:5);g (x.py:6) 1600000\nthread M;f (x.py:5);new (x.py:9) 200000\nthread M;f (x.py:5) 200000\n'

    def table(self, *options, base=BASE, new=NEW):
        out = convert('--diff', self.put('base.txt', base), self.put('new.txt', new), '-f', 'table', *options).decode()
        self.assertLessEqual(max(map(len, out.splitlines())), 80)
        by_self, by_total = re.split('\nby what they took .*\n\n.*\n', out)[1:]
        return [[line.split() for line in part.splitlines()] for part in (by_self, by_total)]

    def test_shares(self):
        """Of all time, g had 60 and has 80 %, h 30 and none, new none and 10; f itself 10 and 10."""
        by_self, by_total = self.table()
        self.assertEqual(by_self, [['30.0%', '0.0%', '-30.0%', 'h', '(x.py)'], ['60.0%', '80.0%', '+20.0%', 'g', '(x.py)'],
                                   ['0.0%', '10.0%', '+10.0%', 'new', '(x.py)']])
        self.assertEqual(by_total, by_self)  # f is on all stacks: 100 % and 100 %

    def test_absolute(self):
        by_self, by_total = self.table('--absolute')
        self.assertEqual(by_self[0], ['600.000', 'ms', '1600.000', 'ms', '+1000.000', 'ms', 'g', '(x.py)'])
        self.assertEqual([row[-2] for row in by_self], ['g', 'h', 'new', 'f'])
        self.assertEqual(by_total[0][4:6] + by_total[0][-2:], ['+1000.000', 'ms', 'f', '(x.py)'])

    def test_samples_and_lines(self):
        by_self, _ = self.table('--absolute', '--lines', base=b'a (x.py:1) 5\nb 2\n', new=b'a (x.py:2) 5\nb 9\n')
        self.assertEqual(by_self, [['2', '9', '+7', 'b'], ['5', '0', '-5', 'a', '(x.py:1)'], ['0', '5', '+5', 'a', '(x.py:2)']])

    def test_nothing_changed(self):
        self.assertEqual(self.table(new=self.BASE), [[['nothing']], [['nothing']]])

    def test_long_names_keep_to_the_line(self):
        long = ('\u00e9' * 300).encode()
        self.table(base=b'thread M;' + long + b' (x.py:1) 5\n', new=b'thread M;a' + long + b' (x.py:1) 5\n')

    def test_picture(self):
        """It is drawn by flamegraph.h, whose tests look at its colours: here, that both profiles are in it."""
        base, new = self.put('base.txt', self.BASE), self.put('new.txt', self.NEW)
        convert('--diff', base, new, '-o', self.path('shares.svg'))
        convert('--diff', base, new, '--absolute', '-o', self.path('absolute.svg'))
        shares, absolute, plain = self.get('shares.svg').decode(), self.get('absolute.svg').decode(), \
            convert(new, '-f', 'svg', '-F').decode()
        for picture in shares, absolute:
            self.assertIn('compared with', picture)
            self.assertIn('new (x.py)', picture)
        self.assertNotEqual(shares, absolute)
        convert('--diff', self.put('base.txt', self.BASE.replace(b';h ', b';gone ')), new, '-o', self.path('other.svg'))
        self.assertNotEqual(self.get('other.svg').decode(), shares)  # what is in the base only is in it, too
        self.assertNotIn('compared with', plain)

    def test_filters_count_for_both(self):
        by_self, _ = self.table('--only-function', 'g')
        self.assertEqual(by_self, [['nothing']])  # 100 % of what is left, in both

    def test_no_other_format(self):
        base, new = self.put('base.txt', self.BASE), self.put('new.txt', self.NEW)
        done = run('--diff', base, new, '-o', self.path('d.json'))
        self.assertEqual(done.returncode, 2)
        self.assertIn('a comparison by --diff can be had as svg and as table, not as speedscope', done.said)
        self.assertFalse(os.path.exists(self.path('d.json')))


class Options(Handmade):
    """Each one that --help names."""

    def shown(self, *options, source='wall.jsonl'):
        return profiles.of_pprof(convert(self.source(source), '-f', 'pprof', *options))

    def test_help_names_only_what_is_tested(self):
        out = convert('--help').decode()
        self.assertLessEqual(max(map(len, out.splitlines())), 100)
        with open(__file__, encoding='utf-8') as file:
            own = file.read()
        named = set(re.findall(r'(?<![\w-])--[a-z][a-z-]*', out))
        self.assertGreater(len(named), 20)
        self.assertEqual({name for name in named if "'%s'" % name not in own}, set())
        self.assertEqual(convert('-h'), out.encode())

    def test_version(self):
        self.assertEqual(convert('--version'), b'pyprof-convert 0.1\n')
        self.assertEqual(convert('-V'), b'pyprof-convert 0.1\n')

    def test_output_and_format(self):
        text = self.put('in.txt', TEXT)
        table = convert(text)
        self.assertIn(b'functions by wall time', table)
        self.assertEqual(convert(text, '-o', '-'), table)
        self.assertEqual(convert(text, '--format', 'table'), table)
        convert(text, '--output', self.path('a.json'), '-o', self.path('b.txt'), '-o', self.path('c.pb'))
        for name in 'a.json', 'b.txt', 'c.pb':
            self.assertEqual(totals(read(self.path(name))), totals(profiles.of_collapsed(TEXT)), name)
        convert(text, '-f', 'pprof', '-o', self.path('odd'))
        self.assertEqual(totals(profiles.of_pprof(self.get('odd'))), totals(profiles.of_collapsed(TEXT)))
        self.assertEqual(convert('-', '-f', 'collapsed', given=TEXT), convert(text, '-f', 'collapsed'))

    def test_each_format_is_written(self):
        names = re.findall(r'^  ([a-z]+) +(\.\S+)? ', convert('--help').decode().partition('Written are')[2], re.MULTILINE)
        self.assertGreater(len(names), 8)
        for name, ending in names:
            self.assertTrue(convert(self.source('wall.jsonl'), '-f', name), name)
            if ending:
                convert(self.source('wall.jsonl'), '-o', self.path('x' + ending))
                self.assertTrue(self.get('x' + ending), ending)

    def test_metric(self):
        for metric in 'wall', 'cpu', 'gil', 'samples':
            found = convert(self.source('wall.jsonl'), '-f', 'collapsed', '--metric', metric)
            self.assertEqual(found, profiles.content(self.source(metric + '.txt')))
        gil = profiles.content(self.source('gil.txt'))
        self.assertEqual(convert(self.source('wall.jsonl'), '-f', 'collapsed', '-g'), gil)
        self.assertEqual(convert(self.source('wall.jsonl'), '-f', 'collapsed', '--gil'), gil)

    def test_idle(self):
        idle = profiles.content(self.source('wall-idle.txt'))
        self.assertEqual(convert(self.source('wall.jsonl'), '-f', 'collapsed', '-i'), idle)
        self.assertEqual(convert(self.source('wall.jsonl'), '-f', 'collapsed', '--idle'), idle)

    def test_detail(self):
        for option in '-F', '--function':
            self.assertEqual(convert(self.source('wall.jsonl'), '-f', 'collapsed', option),
                             profiles.content(self.source('wall-function.txt')))
        self.assertEqual(convert(self.source('wall.jsonl'), '-f', 'collapsed', '-F', '--lines'),
                         profiles.content(self.source('wall.txt')))

    def test_filters(self):
        everything = self.shown()
        def kept(test):
            return {stack: value for stack, value in everything.items() if test(*stack)}
        self.assertEqual(self.shown('--only-thread', 'MainThread'), kept(lambda thread, _: thread == 'MainThread'))
        self.assertEqual(self.shown('--only-thread', 'worker*'), kept(lambda thread, _: thread.startswith('worker')))
        self.assertEqual(self.shown('--only-function', 'Class.function_3').total(),
                         sum(kept(lambda _, frames: any(f[0] == 'Class.function_3' for f in frames)).values()))
        one = self.shown('--only-interpreter', '1')
        self.assertEqual(one, self.shown('--only-interpreter', 'physics'))
        self.assertTrue(0 < one.total() < everything.total())
        path = next(row['path'] for row in map(json.loads, profiles.content(self.source('wall.jsonl')).splitlines()) if row.get('path'))
        self.assertEqual(self.shown('--only-file', path).total(),
                         sum(kept(lambda _, frames: any(f[1] == profiles.last_part(path) for f in frames)).values()))
        small = self.shown('--min-share', '0.05')
        self.assertTrue(small.total() == everything.total() and 0 < len(small) < len(everything))

    def test_only_mine(self):
        text = b'thread M;f (/home/me/f.py:1);dumps (/usr/lib/python3.11/json/__init__.py:3);enc (/usr/lib/python3.11/json/e.py:4) 7\n'
        self.assertEqual(convert('-', '-f', 'collapsed', '--only-mine', given=text), b'thread M;f (f.py:1);[json] 7\n')

    def test_looks(self):
        source = self.source('wall.jsonl')
        plain = convert(source, '-f', 'svg')
        looks = [('--title', 'My <title>'), ('--subtitle', 'below'), ('--width', '2000'), ('--min-width', '20'),
                 ('--inverted',), ('--threads',), ('-t',)]
        pictures = [convert(source, '-f', 'svg', *look) for look in looks]
        self.assertIn(b'My &lt;title&gt;', pictures[0])
        self.assertIn(b'below', pictures[1])
        self.assertIn(b'2000', pictures[2])
        self.assertLess(len(pictures[3]), len(plain))
        self.assertEqual(pictures[5], pictures[6])
        self.assertEqual(len({plain, *pictures}), len(pictures))

    def test_unit(self):
        for unit, value in ('ns', 3), ('us', 3000), ('ms', 3000000), ('s', 3000000000):
            convert('-', '--unit', unit, '-o', self.path('u.pb'), given=b'a;b 3\n')
            self.assertEqual(profiles.of_pprof(self.get('u.pb')).total(), value)
        convert('-', '--unit', 'ms', '-o', self.path('u.pb'), given=b'a;b 1.25e-2\n')
        self.assertEqual(profiles.of_pprof(self.get('u.pb')).total(), 12500)
        convert('-', '--unit', 'samples', '-o', self.path('u.pb'), given=TEXT)
        self.assertEqual(profiles.of_pprof(self.get('u.pb'), 'samples').total(), 25)

    def test_take(self):
        heap = profiles.Pprof([('alloc_objects', 'count'), ('inuse_space', 'bytes'), ('delay', 'microseconds')])
        heap.add([(('main.f', 'f.go', 3),)], [4, 4096, 7])
        path = self.put('heap.pb.gz', heap.data())
        self.assertEqual(convert(path, '--take', 'inuse_space', '-f', 'collapsed'), b'main.f (f.go:3) 4096\n')
        convert(path, '--take', 'delay', '-o', self.path('d.pb'))
        self.assertEqual(profiles.of_pprof(self.get('d.pb')).total(), 7000)
        others = profiles.Pprof([('contentions', 'count'), ('delay', 'microseconds')])
        others.add([(('main.f', 'f.go', 3),)], [4, 7])
        path = self.put('others.pb.gz', others.data())
        for options, word in ((), 'name one by --take'), (('--take', 'wall'), "no sample type 'wall'"):
            done = run(path, *options)
            self.assertEqual((done.returncode, done.said.count('\n')), (1, 1))
            self.assertIn(word, done.said)
            self.assertIn('contentions (count), delay (microseconds)', done.said)

    def test_diff(self):
        text = self.put('in.txt', TEXT)
        self.assertIn(b'nothing', convert('--diff', text, gzip_of(self, text), '--absolute'))


def gzip_of(case, path):
    return case.put('packed', gzip.compress(profiles.content(path)))


if __name__ == '__main__':
    unittest.main()
