"""What other tools write, in pyprof-convert: made by what is known of their formats, and by the tools where they are."""

import collections
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import profiles
from profiles import convert, harness
from test_convert import InFolder

GO_TEST = '''package busy
import "testing"
var sink int
func inner(n int) int { sum := 0; for i := 0; i < n; i++ { sum += i * i %% 7 }; return sum }
func TestBusy(t *testing.T) { for i := 0; i < 400; i++ { sink += inner(1000000) } }
'''.replace('%%', '%')


def missing_go():
    return None if shutil.which('go') else 'no go (Debian: golang-go)'


class Pprof(InFolder):
    def shown(self, made, *options, **how):
        return convert(self.put('in', made.data(**how)), '-f', 'collapsed', *options)

    def go(self, packed=True):
        """As Go's CPU profiles: types samples and cpu, functions that were inlined, ids without order, no threads."""
        made = profiles.Pprof([('samples', 'count'), ('cpu', 'nanoseconds')], packed)
        main = (('main.main', '/src/main.go', 7),)
        made.add([main, (('fmt.inlined', '/go/fmt/a.go', 3), ('fmt.Print', '/go/fmt/b.go', 9))], [2, 20000000])
        made.add([main], [1, 10000000], [('bytes', 4096), ('handler', 'index')])
        made.add([main, 0x4711], [3, 30000000])
        return made

    def test_go(self):
        for packed in True, False:
            for compressed in True, False:
                self.assertEqual(self.shown(self.go(packed), compressed=compressed),
                                 b'main.main (main.go:7) 10000\n'
                                 b'main.main (main.go:7);fmt.Print (b.go:9);fmt.inlined (a.go:3) 20000\n'
                                 b'main.main (main.go:7);0x4711 30000\n')

    def test_metrics_of_go(self):
        """CPU time is shown first, as there is no elapsed time; samples can be asked for."""
        counts = self.shown(self.go(), '--metric', 'samples').splitlines()
        self.assertEqual([line.rpartition(b' ')[2] for line in counts], [b'1', b'2', b'3'])
        self.assertIn(b'functions by CPU time', convert(self.path('in')))

    def test_units(self):
        for name, unit, value, expected in (('wall', 'milliseconds', 5, 5000), ('time', 'seconds', 2, 2000000),
                                            ('cpu', 'microseconds', 7, 7), ('samples', 'count', 9, 9)):
            made = profiles.Pprof([(name, unit)])
            made.add([(('f', 'f.py', 1),)], [value])
            self.assertEqual(self.shown(made), b'f (f.py:1) %d\n' % expected)

    def test_labels(self):
        """Threads by name, or by id; what waited is known by its state."""
        made = profiles.Pprof([('wall', 'nanoseconds')])
        frame = (('f', 'f.py', 1),)
        made.add([frame], [5000], [('thread', 'Main'), ('thread_id', 77), ('state', 'running')])
        made.add([frame], [7000], [('thread', 'Main'), ('thread_id', 77), ('state', 'idle')])
        made.add([frame], [2000], [('thread_id', 99)])
        self.assertEqual(self.shown(made), b'thread Main;f (f.py:1) 5\nthread (99);f (f.py:1) 2\n')
        self.assertEqual(self.shown(made, '-i'), b'thread Main;f (f.py:1) 12\nthread (99);f (f.py:1) 2\n')

    def test_sample_without_a_stack(self):
        made = profiles.Pprof([('wall', 'microseconds')])
        made.add([], [5])
        self.assertEqual(self.shown(made), b'[no Python frame] 5\n')

    @unittest.skipIf(missing_go(), 'skipped: %s' % missing_go())
    def test_go_itself(self):
        """A CPU profile of `go test`: what `go tool pprof` says of each function, we say."""
        self.put('busy_test.go', GO_TEST.encode())
        self.put('go.mod', b'module busy\n\ngo 1.19\n')
        environment = dict(os.environ, GOFLAGS='-mod=mod', GOPROXY='off', GOTOOLCHAIN='local', GOWORK='off',
                           PPROF_TMPDIR='/nowhere')
        environment.setdefault('HOME', tempfile.gettempdir())
        subprocess.run(['go', 'test', '-cpuprofile', 'cpu.pb.gz', '-o', 'busy.test', '.'], cwd=self.folder, check=True,
                       env=environment, stdout=subprocess.DEVNULL)
        out = subprocess.run(['go', 'tool', 'pprof', '-top', '-nodecount=0', '-nodefraction=0', '-edgefraction=0',
                              '-unit=ns', '-sample_index=cpu', 'cpu.pb.gz'], cwd=self.folder, check=True, env=environment,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        rows = [line.split(None, 5) for line in out.partition('cum%\n')[2].splitlines()]
        expected = {re.sub(r' \(inline\)$', '', row[5]): [int(re.match('[0-9]+', row[at]).group()) for at in (0, 3)]
                    for row in rows}
        convert(self.path('cpu.pb.gz'), '-o', self.path('o.pb'))
        stacks = profiles.of_pprof(self.get('o.pb'), 'cpu')
        names = collections.Counter()
        for (thread, frames), value in stacks.items():
            names[thread, tuple((name, '', 0) for name, _, _ in frames)] += value
        self.assertIn('busy.TestBusy', expected)
        self.assertEqual({name: both for (name, _, _), both in profiles.totals(names).items()}, expected)


class Speedscope(InFolder):
    FRAMES = [{'name': 'main', 'file': 'a.py', 'line': 1, 'col': None}, {'name': 'say "\\" \u2615', 'file': 'b.py', 'line': None},
              {'name': '<native>'}]

    def shown(self, *made, **more):
        return convert(self.put('in.json', profiles.speedscope(list(made), self.FRAMES, **more)), '-f', 'collapsed').decode()

    def test_sampled(self):
        """In seconds, as py-spy has them; what the profile is shared stands at the end."""
        self.assertEqual(
            self.shown({'type': 'sampled', 'name': 'Thread 0x7 "MainThread"', 'unit': 'seconds', 'startValue': 0.0,
                        'endValue': 0.04, 'samples': [[0], [0, 1], [], [0, 1, 2]], 'weights': [0.01, 0.01, 0.5, 0.02]}),
            'thread Thread 0x7 "MainThread";main (a.py:1) 10000\n'
            'thread Thread 0x7 "MainThread";main (a.py:1);say "\\\\" \u2615 (b.py:0) 10000\n'
            'thread Thread 0x7 "MainThread";main (a.py:1);say "\\\\" \u2615 (b.py:0);<native> 20000\n')

    def test_evented(self):
        events = [('O', 0, 100), ('O', 1, 103), ('C', 1, 110), ('O', 2, 110), ('C', 2, 111.5), ('C', 0, 120)]
        made = {'type': 'evented', 'name': 'w', 'unit': 'milliseconds', 'startValue': 100, 'endValue': 120,
                'events': [dict(zip(('type', 'frame', 'at'), event)) for event in events]}
        self.assertEqual(self.shown(made), 'thread w;main (a.py:1) 11500\n'
                                           'thread w;main (a.py:1);say "\\\\" \u2615 (b.py:0) 7000\n'
                                           'thread w;main (a.py:1);<native> 1500\n')
        laid = json.loads(convert(self.path('in.json'), '-f', 'speedscope'))['profiles'][0]
        self.assertEqual(laid['weights'], [3000000, 7000000, 1500000, 8500000])

    def test_no_unit_is_samples(self):
        made = {'type': 'sampled', 'name': 'x', 'unit': 'none', 'startValue': 0, 'endValue': 3, 'samples': [[0], [0]],
                'weights': [1, 2]}
        self.assertEqual(self.shown(made), 'thread x;main (a.py:1) 3\n')
        self.assertIn(b'functions by samples', convert(self.path('in.json')))

    def test_surrogates(self):
        """Pairs are one character; lone ones stay what they are."""
        self.FRAMES = [{'name': '\U0001f40d'}, {'name': 'lone \udc80'}]
        made = {'type': 'sampled', 'name': 'x', 'unit': 'microseconds', 'startValue': 0, 'endValue': 3,
                'samples': [[0, 1]], 'weights': [3]}
        self.assertEqual(self.shown(made), 'thread x;\U0001f40d;lone \\udc80 3\n')


class Collapsed(InFolder):
    def shown(self, text, *options):
        return convert('-', '-f', 'collapsed', *options, given=text)

    def test_perl_and_inferno(self):
        """Without files; comments, blank lines and CRLF; names with blanks, parentheses and backslashes stay."""
        text = b'# a comment\n\nswapper;do idle() const;C:\\new;std::f(int (*)(int)) 3\r\nswapper 1\n'
        self.assertEqual(self.shown(text), b'swapper 1\nswapper;do idle() const;C:\\\\new;std::f(int (*)(int)) 3\n')

    def test_py_spy(self):
        text = b'process 12:"x.py";thread (0x7F): MainThread;main (x.py:3);inner (lib/y.py:4) 5\n' \
               b'process 12:"x.py";thread (0x7F): MainThread;main (x.py) 2\n 4\n'
        self.assertEqual(self.shown(text, '--only-thread', 'process*'),
                         b'thread process 12:"x.py"\\x3bthread (0x7F): MainThread;main (x.py:3);inner (lib/y.py:4) 5\n'
                         b'thread process 12:"x.py"\\x3bthread (0x7F): MainThread;main (x.py:0) 2\n')

    def test_escapes_are_undone_in_what_we_wrote(self):
        text = b'thread a\\x3bb;f\\\\ \\u2028 \\n\\udc80 (x\\x3b.py:3) 5\n'
        self.assertEqual(self.shown(text), text)
        rows = [json.loads(line) for line in convert('-', '-f', 'jsonl', given=text).splitlines()]
        names = {row.get('name') for row in rows}
        self.assertIn('a;b', names)
        self.assertIn('f\\ \u2028 \n\udc80', names)

    def test_paths_that_were_shortened_stay(self):
        """Whoever wrote a relative path has shown as much of it as he meant to; a whole one is shortened as ever."""
        for text in b'f (json/decoder.py:3) 7\n', b'thread M;f (a/b/c.py:1);g (c.py:2) 7\n', b'thread (1): "M";f (a/b/c.py:1) 7\n':
            for folder in self.folder, os.path.dirname(os.path.dirname(json.__file__)):
                self.assertEqual(convert('-', '-f', 'collapsed', given=text, folder=folder).split(b';')[-1], text.split(b';')[-1])
            svg = convert(self.put('t.txt', text), '-f', 'svg').decode()
            self.assertIn(re.search(rb'f \(.*?\)', text)[0].decode(), svg)
        frames = [{'name': 'f', 'file': 'a/b/c.py', 'line': 1}, {'name': 'g', 'file': '/no/such/folder/d.py', 'line': 2}]
        sampled = [{'type': 'sampled', 'name': 'M', 'unit': 'none', 'startValue': 0, 'endValue': 5, 'samples': [[0, 1]], 'weights': [5]}]
        self.assertEqual(convert('-', '-f', 'collapsed', given=profiles.speedscope(sampled, frames)),
                         b'thread M;f (a/b/c.py:1);g (d.py:2) 5\n')

    def test_frames_that_begin_as_other_formats(self):
        for frame in b'<module>', b'[other]', b'{main}', b'[', b'<', b'{', b'[unsettled]', b'<lambda>', b'PK':
            text = frame + b';f 5\n' + frame + b' 2\n'
            self.assertEqual(profiles.of_collapsed(self.shown(text)), profiles.of_collapsed(text), frame)

    def test_gzip(self):
        self.assertEqual(self.shown(gzip.compress(b'a;b 3\n')), b'a;b 3\n')

    def test_prefixes(self):
        """Stacks that begin as the one before, in each way that they can."""
        lines = [b'a;b;c', b'a;b', b'a;b;c', b'a;b;cc', b'a;bb', b'a', b'a;b;c;d;e', b'a;b;c;d', b'b;c', b'a;b;c;d;e']
        for threads in ([b''], [b'thread x;', b'thread xy;'], [b'thread x;']):
            text = b''.join(threads[i % len(threads)] + line + b' %d\n' % (i + 1) for i, line in enumerate(lines * 3))
            expected = profiles.of_collapsed(text)
            self.assertEqual(profiles.of_collapsed(self.shown(text)), expected)

    def test_long_lines(self):
        """Longer than what is read at a time, and without a newline at the end."""
        text = b';'.join(b'function_%d' % i for i in range(100000)) + b' 7'
        self.assertEqual(self.shown(text), text + b'\n')


if __name__ == '__main__':
    unittest.main()
