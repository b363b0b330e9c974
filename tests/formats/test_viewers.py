"""Our files in the programs in which people look at them: Python's pstats of each version at hand, gprof2dot, snakeviz,
Firefox's profiler and Perfetto. What they show is what pprof's file of the same profile says."""

import collections
import glob
import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))

import exported
import harness
import pprof
import viewers

KINDS = ['empty', 'one', 'deep', 'recursion', 'wide']
LOAD = '''
import json, pstats, sys
stats = pstats.Stats(sys.argv[1], stream=open(sys.argv[2], 'w', encoding='utf-8', errors='backslashreplace'))
stats.sort_stats('cumulative').print_stats()
if len(stats.stats) < 100:
    stats.print_callers()
    stats.print_callees()
print(json.dumps([[key, row[:4], list(row[4].items())] for key, row in stats.stats.items()]))
print(json.dumps([stats.total_calls, stats.prim_calls, stats.total_tt]))
'''


def pythons():
    """Of each version at hand, one: pyenv's, the one that this runs in, and that of the build."""
    root = os.environ.get('PYENV_ROOT') or os.path.expanduser('~/.pyenv')
    paths = sorted(glob.glob(os.path.join(root, 'versions', '3.*', 'bin', 'python3'))) + [sys.executable, harness.PYTHON]
    found = {}
    for path in paths:
        done = subprocess.run([path, '-c', 'import sys; print("%d.%d" % sys.version_info[:2])'], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
        if done.returncode == 0:
            found[done.stdout.strip()] = path
    return found


def setUpModule():
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    Files.folder = folder.name
    environment = {key: value for key, value in os.environ.items() if key != 'HOSTILE'}
    for name, more in ('plain', {}), ('hostile', {'HOSTILE': '1'}):
        os.mkdir(os.path.join(folder.name, name))
        subprocess.run([os.path.join(harness.BUILD, 'tests', 'formats', 'handmade'), os.path.join(folder.name, name)],
                       check=True, env=dict(environment, **more))
    subprocess.run([os.path.join(harness.BUILD, 'tests', 'formats', 'special'), folder.name], check=True)


class Files:
    folder = None  # what setUpModule has written

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), 'rb') as file:
            return file.read()

    def profile(self, name):
        return pprof.read(self.read('plain/' + name))

    def near(self, found, expected, unit=1):
        """Totals in milliseconds or so, which are sums of floats, to the microsecond of the truth in nanoseconds."""
        self.assertEqual(set(found), set(expected))
        for name, both in expected.items():
            for mine, theirs in zip(both, found[name]):
                self.assertAlmostEqual(mine / unit, theirs, delta=1000 / unit, msg=name)


class Pstats(Files, unittest.TestCase):
    def load(self, python, name):
        out = self.path('printed')
        done = subprocess.run([python, '-c', LOAD, self.path(name), out], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        rows, totals = map(json.loads, done.stdout.splitlines())
        with open(out, encoding='utf-8') as file:
            return {tuple(key): row for key, row, _ in rows}, totals, file.read()

    def test_each_version(self):
        """The largest files in one of them."""
        names = ['plain/cpu-idle', 'wide', 'deep', 'one']
        for version, python in pythons().items():
            for name in ['plain/wall', 'hostile/wall', 'empty', 'recursion'] + names:
                with self.subTest(version + ' ' + name):
                    rows, totals, printed = self.load(python, name + '.pstats')
                    mine = exported.read_pstats(self.read(name + '.pstats'))
                    self.assertEqual({key: (row[0], row[1], round(row[2] * 1e9), round(row[3] * 1e9))
                                      for key, row in rows.items()}, {key: row[:4] for key, row in mine.items()})
                    self.assertEqual(totals[:2], [sum(row[1] for row in mine.values()), sum(row[0] for row in mine.values())])
                    self.assertIn('Ordered by: cumulative time', printed)
            names = []

    def test_files_are_added_up(self):
        """pstats' own add: twice the same."""
        import pstats
        path = self.path('plain/wall.pstats')
        once, twice = pstats.Stats(path), pstats.Stats(path, path)
        self.assertEqual(twice.total_calls, 2 * once.total_calls)
        self.assertAlmostEqual(twice.total_tt, 2 * once.total_tt)


@unittest.skipIf(viewers.missing(), 'no viewers')
class Packages(Files, unittest.TestCase):
    """What is written in Python reads cProfile's files."""

    @classmethod
    def setUpClass(cls):
        sys.path.insert(0, viewers.PACKAGES)
        cls.addClassCleanup(sys.path.remove, viewers.PACKAGES)

    def test_gprof2dot(self):
        import gprof2dot
        for name in 'plain/wall', 'plain/gil', 'empty', 'one', 'deep', 'recursion':
            with self.subTest(name):
                mine = exported.read_pstats(self.read(name + '.pstats'))
                profile = gprof2dot.PstatsParser(self.path(name + '.pstats')).parse()
                found = {(function.filename, function.name): function for function in profile.functions.values()}
                self.assertEqual(len(found), len(mine))
                for (file, line, label), row in mine.items():
                    module = os.path.splitext(os.path.basename(file))[0]
                    function = found[file, '%s:%d:%s' % (module, line, label)]
                    self.assertEqual(function.called, row[1])
                    self.assertAlmostEqual(function[gprof2dot.TIME], row[2] / 1e9)
                    self.assertAlmostEqual(function[gprof2dot.TOTAL_TIME], row[3] / 1e9)

    def test_gprof2dot_draws(self):
        for name in 'plain/wall', 'hostile/wall', 'empty', 'one', 'recursion':
            done = subprocess.run([sys.executable, os.path.join(viewers.PACKAGES, 'gprof2dot.py'), '-f', 'pstats', '-n', '0',
                                   '-e', '0', self.path(name + '.pstats')], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            self.assertTrue(done.stdout.startswith(b'digraph {') and done.stdout.rstrip().endswith(b'}'), name)

    def test_snakeviz(self):
        """Its table has each function; its picture those that call or are called."""
        import pstats
        import snakeviz.stats
        for name in ['plain/wall', 'hostile/wall'] + KINDS:
            with self.subTest(name):
                mine = exported.read_pstats(self.read(name + '.pstats'))
                stats = pstats.Stats(self.path(name + '.pstats'))
                self.assertEqual(len(snakeviz.stats.table_rows(stats)), len(mine))
                tree = snakeviz.stats.json_stats(stats)
                json.dumps(tree)
                for (file, line, label), row in mine.items():
                    node = tree.get('%s:%d(%s)' % (file, line, label))
                    self.assertEqual(node is None, not row[4] and not any((file, line, label) in other[4] for other in mine.values())
                                     if len(mine) < 100 else node is None)
                    if node is not None and len(tree) == len(mine):
                        self.assertEqual(node['stats'][:2], list(row[:2]))
                        self.assertAlmostEqual(node['stats'][3], row[3] / 1e9)


@unittest.skipIf(viewers.missing(), 'no viewers')
class Firefox(Files, unittest.TestCase):
    def open(self, name):
        viewer = viewers.Firefox(self.path(name))
        self.addCleanup(viewer.close)
        return viewer

    def test_functions(self):
        """Of all threads together, to the microsecond: without waiting, and with it."""
        viewer = self.open('plain/wall.firefox.json')
        threads = viewer.threads()
        self.assertEqual([thread['name'] for thread in threads][:2], ['MainThread', 'worker'])
        for name, options in ('wall.pb', []), ('wall-idle.pb', ['--include-idle']):
            found = collections.defaultdict(lambda: [0, 0])
            for thread in threads:
                for function, both in viewer.functions(thread['threadHandle'], *options).items():
                    found[function] = [one + other for one, other in zip(found[function], both)]
            self.near(found, pprof.totals(self.profile(name), 'wall', lambda frame: frame.name), 1000000)

    def test_cpu_time(self):
        viewer = self.open('plain/wall.firefox.json')
        cpu = sum(sample.values['cpu'] for sample in self.profile('wall-idle.pb').samples)
        self.assertAlmostEqual(sum(thread['cpuMs'] for thread in viewer.threads()), cpu / 1e6, delta=0.001)

    def test_samples(self):
        """As many as there were, where they are what was asked for."""
        viewer = self.open('plain/samples.firefox.json')
        found = collections.Counter()
        for thread in viewer.threads():
            for function, both in viewer.functions(thread['threadHandle'], '--include-idle').items():
                found[function] += both[1]
        totals = pprof.totals(self.profile('wall-idle.pb'), 'samples', lambda frame: frame.name)
        self.assertEqual(+found, {name: both[1] for name, both in totals.items() if both[1]})

    def test_facts(self):
        meta = self.open('plain/wall.firefox.json').ask('profile', 'meta')
        self.assertEqual((meta['product'], meta['interval']), ('handmade', 10))
        self.assertEqual(meta['sampleUnits'], {'time': 'ms', 'eventDelay': 'ms', 'threadCPUDelta': 'ns'})
        facts = {entry['label']: entry['formatted'] for entry in meta['extra'][0]['entries']}
        self.assertEqual(facts['Lost samples'], '7')

    def test_special(self):
        for name, functions, total in (('empty', 0, 0), ('one', 1, 10), ('deep', 5002, 30), ('recursion', 3, 30),
                                       ('wide', 1199, None)):
            with self.subTest(name):
                viewer = self.open(name + '.firefox.json')
                thread, = viewer.threads()
                found = viewer.functions(thread['threadHandle'])
                self.assertEqual(len(found), functions)
                if total is not None:
                    self.assertAlmostEqual(sum(both[0] for both in found.values()), total)
                if name in ('deep', 'recursion'):
                    self.assertAlmostEqual(found['level_0'][1], 30)

    def test_hostile_names(self):
        viewer = self.open('hostile/wall.firefox.json')
        found = viewer.functions(viewer.threads()[0]['threadHandle'])
        self.assertLessEqual({'[no name]', 'lone \\udc80 surrogate', 'two\nlines\r\n', '\u2028 \U0001f40d "quoted" \x1b[31m'},
                             set(found))


@unittest.skipIf(viewers.missing(), 'no viewers')
class Perfetto(Files, unittest.TestCase):
    COMPLAINTS = "select name, value from stats where value > 0 and severity in ('error', 'data_loss')"

    def open(self, name):
        viewer = viewers.Perfetto(self.path(name))
        self.addCleanup(viewer.close)
        self.assertEqual(viewer.errors, [])
        self.assertEqual(viewer.query(self.COMPLAINTS), [])
        return viewer

    def slices(self, viewer):
        """As exported.read_perfetto has them, in an order of their own."""
        rows = viewer.query('select s.id, t.tid, s.name, s.category, s.ts, s.dur, s.depth, s.parent_id from slice s '
                            'join thread_track k on s.track_id = k.id join thread t using (utid)')
        return {row[0]: exported.Slice(*row[1:]) for row in rows}

    def chain(self, slices, key):
        """A slice with all that it lies within."""
        found = []
        while key is not None:
            found.append(slices[key]._replace(parent=None))
            key = slices[key].parent
        return tuple(found)

    def agrees(self, name):
        viewer = self.open(name)
        mine, names = exported.read_perfetto(self.read(name).decode())
        theirs = self.slices(viewer)
        self.assertEqual(collections.Counter(self.chain(mine, key) for key in range(len(mine)) if mine[key].duration),
                         collections.Counter(self.chain(theirs, key) for key in theirs if theirs[key].duration))
        theirs_named = viewer.query('select tid, name from thread where tid > 0 and name is not null')
        self.assertEqual({tid: name.replace('\\\\', '\\') for tid, name in theirs_named}, names)
        return viewer, theirs

    def test_slices(self):
        """Each lies within the same ones, with the same time, to the nanosecond."""
        viewer, slices = self.agrees('plain/wall.perfetto.json')
        self.assertEqual({one.category for one in slices.values()}, {'python', 'idle'})

    def test_functions(self):
        """Own time by SQL, running and waiting, is pprof's to the nanosecond."""
        viewer = self.open('plain/wall.perfetto.json')
        rows = viewer.query("with called as (select parent_id as id, sum(dur) as dur from slice where parent_id is not null "
                            "group by 1) select s.name, s.category = 'idle', sum(s.dur - coalesce(called.dur, 0)) "
                            "from slice s left join called using (id) group by 1, 2")
        found = collections.Counter({(name.partition(' (m.py')[0], bool(waits)): own for name, waits, own in rows})
        expected = collections.Counter()
        for sample in self.profile('wall-idle.pb').samples:
            expected[sample.stack[0].name, sample.labels['state'] == 'idle'] += sample.values['wall']
        self.assertEqual(+found, +expected)

    def test_special(self):
        for name, count, depth in ('empty', 0, None), ('one', 1, 0), ('deep', 896, 511), ('recursion', 896, 511), ('wide', 200000, 1):
            with self.subTest(name):
                viewer = self.open(name + '.perfetto.json')
                self.assertEqual(viewer.query('select count(*), max(depth) from slice'), [(count, depth)])
                self.assertEqual(viewer.query('select count(*) from slice where depth = 0'), [({'wide': 1000}.get(name, min(count, 1)),)])

    def test_what_is_too_deep(self):
        """It is as the top of exports.h says: slice 513 would be at depth 0, and callers are not above it any more."""
        path = self.path('too-deep.json')
        events = [{'ph': 'X', 'name': 'f%d' % at, 'cat': 'python', 'pid': 1, 'tid': 1, 'ts': 0, 'dur': 1000} for at in range(513)]
        with open(path, 'w', encoding='utf-8') as file:
            json.dump({'traceEvents': events}, file)
        viewer = viewers.Perfetto(path)
        self.addCleanup(viewer.close)
        self.assertEqual(viewer.query('select name, depth from slice where parent_id is null'), [('f0', 0), ('f512', 0)])

    def test_hostile_names(self):
        """It shows names as JSON has them, with their escapes."""
        viewer = self.open('hostile/wall.perfetto.json')
        names = {name for name, in viewer.query('select distinct substr(name, 1, 99) from slice')}
        self.assertIn('[no name]', names)
        self.assertIn('lone \\\\udc80 surrogate', names)
        self.assertTrue(any('\U0001f40d' in name for name in names))


if __name__ == '__main__':
    why = viewers.missing()
    if why:
        print('skipped: the viewers: ' + why, flush=True)
        if os.environ.get('CI') == 'true':
            sys.exit(1)
    harness.main()
