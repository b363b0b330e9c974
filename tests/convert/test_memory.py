"""Profiles of memory: Go's and ours become what they are in every format that has bytes and objects, and are refused by
those that have not."""

import json
import os
import re
import shutil
import subprocess
import unittest

import profiles
import harness
from profiles import convert, run
from test_convert import InFolder

BROWSER = os.environ.get('PYPROF_CHROMIUM') or shutil.which('chromium') or shutil.which('chromium-browser')
METRICS = 'inuse_space', 'alloc_space', 'alloc_objects', 'inuse_objects'
# Of each function, as Go orders its types: alloc_objects, alloc_space, inuse_objects, inuse_space.
TYPES = [('alloc_objects', 'count'), ('alloc_space', 'bytes'), ('inuse_objects', 'count'), ('inuse_space', 'bytes')]
VALUES = {'load': (300, 40960000, 50, 20480000), 'gone': (10, 5000, 0, 0), 'main': (1, 4096, 1, 4096)}


def go_heap(load=VALUES['load']):
    made = profiles.Pprof(TYPES)
    main = (('main.main', '/src/main.go', 7),)
    made.add([main], list(VALUES['main']))
    made.add([main, (('main.load', '/src/main.go', 20),)], list(load))
    made.add([main, (('main.gone', '/src/main.go', 30),)], list(VALUES['gone']))
    return made.data()


def collapsed(metric):
    at = [name for name, _ in TYPES].index(metric)
    lines = ['main.main (main.go:7) %d\n' % VALUES['main'][at],
             'main.main (main.go:7);main.load (main.go:20) %d\n' % VALUES['load'][at],
             'main.main (main.go:7);main.gone (main.go:30) %d\n' % VALUES['gone'][at]]
    return sorted(line for line in lines if not line.endswith(' 0\n'))


class Memory(InFolder):
    def setUp(self):
        super().setUp()
        self.heap = self.put('heap.pb.gz', go_heap())

    def lines(self, *arguments):
        return sorted(convert(*arguments, '-f', 'collapsed').decode().splitlines(True))

    def test_metrics(self):
        """Each of the four, directly, and by way of our pprof and our JSON lines, to the byte."""
        for name in 'again.pb.gz', 'again.pb', 'again.jsonl':
            convert(self.heap, '-o', self.path(name))
        for path in self.heap, self.path('again.pb.gz'), self.path('again.pb'), self.path('again.jsonl'):
            self.assertEqual(self.lines(path), collapsed('inuse_space'), path)
            for metric in METRICS:
                self.assertEqual(self.lines(path, '--metric', metric), collapsed(metric), path + metric)

    def test_one_metric(self):
        """Speedscope and collapsed text have one: that in bytes is known as memory, or said to be."""
        for metric in 'inuse_space', 'alloc_space':
            convert(self.heap, '-o', self.path('one.json'), '--metric', metric)
            document = json.loads(self.get('one.json'))
            self.assertEqual({one['unit'] for one in document['profiles']}, {'bytes'})
            self.assertEqual(self.lines(self.path('one.json')), collapsed(metric))
        text = self.put('one.txt', ''.join(collapsed('inuse_space')).encode())
        self.assertEqual(self.lines(text, '--unit', 'bytes', '--metric', 'inuse_space'), collapsed('inuse_space'))
        self.assertEqual(self.lines(text, '--unit', 'objects', '--metric', 'inuse_objects'), collapsed('inuse_space'))

    def test_table(self):
        for metric, head in ('inuse_space', 'bytes in use: 20004.0 KiB'), ('alloc_objects', 'objects allocated: 311'):
            said = convert(self.heap, '--metric', metric).decode()
            self.assertIn('functions by %s\n' % head, said)
            self.assertNotIn('samples', said)
            self.assertNotIn('Hz', said)
            self.assertLessEqual(max(map(len, said.splitlines())), 80)
        said = convert(self.heap).decode()
        self.assertRegex(said, r'\n +20000\.0 100\.0% +20000\.0 100\.0%  main\.load \(main\.go')
        self.assertRegex(said, r'\n +20004\.0 +51 +40008\.9 +311  all threads\n')

    def test_picture(self):
        """Bytes with units, all four metrics to choose, no word of time."""
        convert(self.heap, '-o', self.path('heap.svg'))
        picture = self.get('heap.svg').decode()
        head = picture[:picture.index('<script>')]
        self.assertIn('>Memory<', head)
        self.assertIn('19.5 MiB in all', head)
        self.assertIn('in use, bytes', head)
        self.assertIn('main.load (main.go:20) (19.5 MiB, 100.0% of all)', head)
        for word in 'time', 'waiting', 'sec', ' s<', 'Hz':
            self.assertNotIn(word, head)
        self.assertIn('memory: [', picture)
        convert(self.heap, '-o', self.path('objects.svg'), '--metric', 'alloc_objects')
        self.assertIn('311 objects in all', self.get('objects.svg').decode())
        nothing = self.put('nothing.pb.gz', go_heap((5, 500, 0, 0)))
        convert(nothing, '--only-function', 'main.load', '-o', self.path('was.svg'), '--metric', 'alloc_space')
        self.assertIn('500 bytes in all', self.get('was.svg').decode())

    @unittest.skipUnless(BROWSER, 'no chromium')
    def test_clicks(self):
        """The script of the picture changes between the four, each with its unit, and so does the list of functions."""
        convert(self.heap, '-o', self.path('heap.svg'))
        script = """<script><![CDATA[addEventListener('load', () => {
            const select = document.querySelector('#metric'), said = [];
            document.querySelector('#functions').click();
            for (const one of ['0', '1', '2', '3']) {
                select.value = one;
                select.dispatchEvent(new Event('change'));
                said.push(document.querySelector('#subtitle').textContent + ' - ' +
                          document.querySelector('.list tbody button').title);
            }
            document.querySelector('svg').setAttribute('data-said', said.join(' | '));
        });]]></script></svg>"""
        with open(self.path('clicked.svg'), 'w', encoding='utf-8') as file:
            file.write(self.get('heap.svg').decode().replace('</svg>', script))
        done = subprocess.run([BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=5000',
                               '--user-data-dir=' + self.path('browser'), '--dump-dom',
                               'file://' + self.path('clicked.svg')], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=harness.patience(120))
        said = re.search('data-said="([^"]*)"', done.stdout.decode())
        self.assertTrue(said, done.stdout.decode()[:500])
        load = 'main.load (main.go): self %s, total %s'
        wanted = (('19.5 MiB in all \u00b7 in use, bytes', '19.5 MiB'), ('39.1 MiB in all \u00b7 allocated, bytes', '39.1 MiB'),
                  ('311 objects in all \u00b7 allocated, objects', '300 objects'),
                  ('51 objects in all \u00b7 in use, objects', '50 objects'))
        self.assertEqual(said.group(1), ' | '.join('%s - %s' % (head, load % (size, size)) for head, size in wanted))

    def test_growth(self):
        after = self.put('after.pb.gz', go_heap((600, 81920000, 150, 61440000)))
        for options in (), ('--absolute',):
            said = convert('--diff', self.heap, after, *options).decode()
            self.assertIn('what changed most: bytes in use\n', said)
            self.assertRegex(said, r'\n +20000\.0 KiB +60000\.0 KiB +\+40000\.0 KiB  main\.load')
        said = convert('--diff', self.heap, after, '--metric', 'inuse_objects').decode()
        self.assertRegex(said, r'\n +50 +150 +\+100  main\.load')
        convert('--diff', self.heap, after, '-o', self.path('growth.svg'))
        self.assertIn('in the base 19.5 MiB', self.get('growth.svg').decode())
        self.assertIn('+39.1 MiB', self.get('growth.svg').decode())

    def test_sum(self):
        said = self.lines(self.heap, self.heap)
        self.assertEqual(said, ['main.main (main.go:7) 8192\n',
                                'main.main (main.go:7);main.load (main.go:20) 40960000\n'])

    def test_refused(self):
        time = profiles.Pprof([('wall', 'nanoseconds')])
        time.add([(('f', 'f.py', 1),)], [5])
        time = self.put('time.pb.gz', time.data())
        for options, words in (((self.heap, '-o', self.path('x.firefox.json')), 'firefox shows times'),
                               ((self.heap, '-o', self.path('x.perfetto.json')), 'perfetto shows times'),
                               ((self.heap, '-o', self.path('x.pstats')), 'pstats shows times'),
                               ((self.heap, '--metric', 'wall'), 'has no wall: it has inuse_space'),
                               ((time, '--metric', 'inuse_space'), 'has no inuse_space: it has wall'),
                               ((self.heap, time), 'cannot be added'), ((time, self.heap), 'cannot be added'),
                               (('--diff', time, self.heap), 'one is of memory')):
            done = run(*options)
            self.assertEqual((done.returncode, done.text, done.said.count('\n')), (1, '', 1), options)
            self.assertIn(words, done.said)
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith('x.')], [])


if __name__ == '__main__':
    unittest.main()
