"""What pyprof-convert refuses: one line that names the file, a place and what to do; exit status 1 or 2; no file left."""

import gzip
import json
import marshal
import os
import random
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import profiles
from profiles import convert, run
from test_convert import TEXT, Handmade, InFolder

MARKED = b'thread M;f (x.py:1);[interpreter 1: physics];g (y.py:2) 7\nthread w;h (z.py:3) 2\n'
FACTS = b'{"type": "facts", "format": "pyprof-jsonl", "version": 1}\n'


def sampled(**changes):
    made = {'type': 'sampled', 'name': 'x', 'unit': 'seconds', 'startValue': 0, 'endValue': 3, 'samples': [[0]], 'weights': [1]}
    made.update(changes)
    return profiles.speedscope([made], [{'name': 'f'}])


def evented(*events):
    return profiles.speedscope([{'type': 'evented', 'name': 'x', 'unit': 'seconds', 'startValue': 0, 'endValue': 9,
                                 'events': [dict(zip(('type', 'frame', 'at'), event)) for event in events]}], [{'name': 'f'}])


class Refused(InFolder):
    def refuses(self, data, words, *options, status=1, name='in'):
        """It says so in one line, with the file's name at its start, and leaves what was there as it was."""
        path, out = self.put(name, data), self.put('out.svg', b'as it was')
        done = run(path, *options, '-o', out)
        self.assertEqual((done.returncode, done.stdout), (status, b''), done.said)
        self.assertEqual(done.said.count('\n'), 1, done.said)
        self.assertTrue(done.said.startswith('pyprof-convert: ' + path), done.said)
        self.assertIn(words, done.said)
        self.assertEqual(self.get('out.svg'), b'as it was')
        self.assertEqual(sorted(os.listdir(self.folder)), sorted({name, 'out.svg'}))

    def test_no_profile(self):
        for data, words in (
                (b'', 'the file is empty'), (b'\n \n', 'it holds no samples'), (b'a;b 0\n', 'it holds no samples'),
                (b'<svg>', 'this is a picture'), (b'[1]', 'maybe Chrome'), (b'PK\3\4xx', 'zip'), (b'\x7fELF', 'program'),
                (b'\xff\xfea\0', 'UTF-16'), (b'PERFILE2' + bytes(99), 'stackcollapse-perf'),
                (marshal.dumps({('f.py', 1, 'f'): (1, 1, .5, .5, {})}, 2), 'pstats'), (b'{}', 'neither speedscope'),
                (b'{"traceEvents": []}', 'neither speedscope'), (b'\0\1\2\3', ':1: a NUL byte'), (b'\x0a\1\2\3', 'no number'), (b'\x0a\7\2\3', 'cut off')):
            self.refuses(data, words)

    def test_collapsed(self):
        for data, words in (
                (b'a;b 1\nno value\n', ":2: the line ends with 'value', not with a number"), (b'a -3\n', ':1: the value -3 is negative'),
                (b'a;;b 3\n', ':1: frame 2 of the stack is empty'), (b'a; 3\n', ':1: frame 2'), (b'a;b 1\n;a 3\n', ':2: frame 1'),
                (b'a 99999999999999999999\n', ':1: the value 99999999999999999999 does not fit'), (b'12\n', ':1: no stack'),
                (b'a 1.5\n', ':1: the value 1.5 is no whole number of samples'), (b'a\0b 3\n', ':1: '),
                (b'a\rb 3\n', ':1: a NUL byte or a carriage return'), (b'a;b 3 4\nc 5 6\n', 'two values'),
                (b'thread M;a 1\nb 1\n', ":2: this stack begins with no 'thread NAME'"),
                (b'b 1\nthread M;a 1\n', ":2: this stack begins with 'thread NAME'"),
                (b'a 9000000000000000000\nb 9000000000000000000\n', ':2: the sum of all values exceeds 63 bits')):
            self.refuses(data, words)

    def test_speedscope(self):
        for data, words in (
                (sampled()[:-1], 'byte '), (sampled() + b'x', 'more text follows'), (sampled(unit='acres'), "'acres'"),
                (sampled(weights=[]), 'fewer weights'), (sampled(weights=[1, 2]), 'more weights'), (sampled(samples=[[1]]), 'no frame'),
                (sampled(weights=[-1]), 'not negative'), (sampled(weights=['1']), 'a number is expected'), (sampled(samples=3), 'a list'),
                (sampled(type='other'), 'neither of the type'), (sampled(weights=[1e30]), 'too large'), (sampled(samples=None), 'a list'),
                (sampled().replace(b'"f"', b'"\\x"'), 'an escape that JSON does not know'), (sampled().replace(b'"f"', b'3'), 'a string'),
                (sampled().replace(b'"name": "f"', b'"line": 3'), 'no name'), (b'{"a": ' + b'[' * 300, 'too deep'),
                (b'{"a": [1,]}', 'comma'), (b'{"a" 1}', 'colon'), (b'{"a": tru}', 'number'), (b'{"a": 1.}', 'point'),
                (evented(('O', 0, 1), ('C', 1, 2)), 'not the innermost'), (evented(('O', 0, 5), ('C', 0, 2)), 'earlier'),
                (evented(('O', 0, 5), ('O', 0, 6), ('C', 0, 7)), 'never closed'), (evented(('C', 0, 5)), 'not the innermost'),
                (profiles.speedscope([json.loads(sampled())['profiles'][0], json.loads(sampled(unit='none'))['profiles'][0]],
                                     [{'name': 'f'}]), 'some of its profiles count time')):
            self.refuses(data, words)

    def test_jsonl(self):
        thread = b'{"type": "thread", "id": 0, "name": "M"}\n'
        node = b'{"type": "node", "id": 1, "parent": 0, "function": 0, "wall_ns": 5}\n'
        function = b'{"type": "function", "id": 0, "name": "f", "path": "/f.py"}\n'
        good = FACTS + function + thread + node + b'{"type": "end", "nodes": 2, "spans": 0}\n'
        self.assertIn(b'f (f.py', convert('-', given=good))
        for data, words in (
                (FACTS + function + thread + node, 'cut off'), (good[:-9], ':5: column'), (good + node, ':6: more lines follow'),
                (good.replace(b'"nodes": 2', b'"nodes": 3'), 'lines are missing'), (FACTS + FACTS, ':2: only the first line'),
                (good.replace(b'"version": 1', b'"version": 3'), 'take a newer'), (FACTS + function + node, ':3: node 1 comes where 0'),
                (good.replace(b'"parent": 0', b'"parent": 1'), 'its parent has not come'), (good.replace(b'"function": 0', b'"function": 7'),
                 'its function has not'), (good.replace(b'"wall_ns": 5', b'"wall_idle_ns": 5'), 'more is idle'),
                (FACTS + b'{"type": "other"}\n', ':2: a line is of a type'), (FACTS + b'[]\n', ':2: column 1'),
                (FACTS + b'{"type": "function", "id": 4}\n', ':2: function 4'), (good.replace(b'"name": "M"', b'"cpu_ns": 1'), ':3: a thread has'),
                (good.replace(b'{"type": "end"', b'{"type": "span", "node": 9}\n{"type": "end"'), ':5: its node has not')):
            self.refuses(data, words)

    def test_pprof(self):
        made = profiles.Pprof([('wall', 'nanoseconds')])
        made.add([(('f', 'f.py', 1),)], [5])
        good, field = made.data(False), profiles.field
        self.assertIn(b'f (f.py', convert('-', given=good))
        negative, many = profiles.Pprof([('wall', 'seconds')]), profiles.Pprof([('wall', 'nanoseconds')])
        negative.add([(('f', 'f.py', 1),)], [-5])
        many.add([(('f', 'f.py', 1),)], [5, 6])
        huge, bytes_only = profiles.Pprof([('wall', 'seconds')]), profiles.Pprof([('space', 'bytes')])
        huge.add([(('f', 'f.py', 1),)], [1 << 62])
        bytes_only.add([(('f', 'f.py', 1),)], [1])
        bomb = profiles.Pprof([('wall', 'nanoseconds')])
        bomb.add([tuple(('f', 'f.py', i) for i in range(3000))] * 3000, [5])
        for data, words in (
                (good[:-3], 'cut off'), (good + b'\x0b', 'a kind that it does not have'), (good + b'\0\1', 'no number'),
                (good + b'\xff' * 11, 'more than 64 bits'), (good + b'\x12\x7f', 'longer than what it is in'),
                (gzip.compress(good)[:-12], 'damaged or ends too early'), (gzip.compress(good)[:-8] + bytes(8), 'damaged'),
                (good + field(2, field(1, 99) + field(2, 1)), 'location 99, which the file does not have'),
                (good + field(4, field(1, 50) + field(4, field(1, 77))), 'function 77, which the file does not have'),
                (good + field(5, field(1, 1000)), 'two functions have the same number'),
                (good + field(4, field(1, 3)), 'two locations have the same number'),
                (good + field(4, field(1, 60) + field(4, field(1, 2000))) + field(5, field(1, 2000) + field(2, 999)), 'a text has the number 999'),
                (good + field(2, 5), 'a message is expected'), (negative.data(), 'negative'), (many.data(), '2 values'), (huge.data(), '63 bits'),
                (bytes_only.data(), 'name one by --take'), (bomb.data(), 'far more frames'), (b'\x48\1', 'no sample types'),
                (good + field(2, b'\x0a\2\x80'), 'longer'), (good + field(2, b'\x0a\1\x80'), 'in the middle of a number')):
            self.refuses(data, words)


class Refusals(InFolder):
    def says(self, words, *arguments, status=1, given=b''):
        before = set(os.listdir(self.folder))
        done = run(*arguments, given=given)
        self.assertEqual((done.returncode, done.stdout), (status, b''), done.said)
        first, *rest = done.said.splitlines()
        self.assertEqual(rest, ["Try 'pyprof-convert --help'."] if status == 2 and rest else [], done.said)
        self.assertTrue(first.startswith('pyprof-convert: '), first)
        self.assertIn(words, first)
        self.assertEqual(set(os.listdir(self.folder)), before)

    def test_command_line(self):
        text = self.put('in.txt', TEXT)
        for words, *arguments in (
                ('no FILE is given',), ('no FILE', '-o', 'x.svg'), ('there is no option --nothing', text, '--nothing'),
                ('--title wants a value', text, '--title'), ("'tin' is none of svg, ", text, '-f', 'tin'),
                ("--metric: 'time' is not wall, cpu", text, '--metric', 'time'), ("--unit: 'h' is not ns", text, '--unit', 'h'),
                ('--width: ', text, '--width', '1'), ('--min-width: ', text, '--min-width', 'x'), ('--min-share: ', text, '--min-share', '2'),
                ('its ending means no format', text, '-o', self.path('x.what')), ('means another format', text, '-o', self.path('x.svg'), '-f', 'pprof'),
                ('--absolute', text, '--absolute'), ('the name is empty', text, '-o', ''), ('more than 16', text, *['-o', '/dev/null'] * 17),
                ('two outputs', text, '-o', self.path('a.svg'), '-o', self.path('a.svg')), ('read only once', '-', '-'),
                ('it is read, and would be written over', text, '-o', text), ('it is read', '--diff', text, text, '-o', text, '-f', 'table')):
            self.says(words, *arguments, status=2)

    def test_files(self):
        text = self.put('in.txt', TEXT)
        self.says('No such file', self.path('none'))
        self.says('directory', self.folder)
        self.says('cannot be written: No such file', text, '-o', self.path('no/where.svg'))
        self.says('cannot be written: Is a directory', text, '-o', self.folder, '-f', 'svg')
        os.symlink(text, self.path('link.txt'))
        self.says('it is read', text, '-o', self.path('link.txt'), status=2)
        if os.path.exists('/dev/full'):
            self.says('/dev/full: cannot be written: No space left', text, '-o', '/dev/full', '-f', 'svg')
            self.says('No space left', text, '-o', self.path('a.svg'), '-o', '/dev/full', '-f', 'svg')  # nor is the first one there
            with open('/dev/full', 'wb') as full:
                done = subprocess.run([profiles.CONVERT, '--help'], stdout=full, stderr=subprocess.PIPE, check=False)
            self.assertEqual((done.returncode, done.stderr), (1, b'pyprof-convert: cannot write standard output\n'))

    def test_a_reader_that_went_away(self):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = subprocess.run([profiles.CONVERT, self.put('in.txt', TEXT), '-f', 'svg', '-o', self.path('a.svg'), '-o', '-'],
                                  stdout=writing, stderr=subprocess.PIPE, text=True)
        finally:
            os.close(writing)
        self.assertEqual(done.returncode, 1)
        self.assertIn('Broken pipe', done.stderr)
        self.assertEqual(os.listdir(self.folder), ['in.txt'])

    def test_wrong_metric(self):
        text = self.put('in.txt', TEXT)
        self.says('in.txt: this file has no cpu: it has wall', text, '--metric', 'cpu')
        counted = self.put('counted.txt', b'a 3\n')
        self.says('it cannot be compared with', '--diff', counted, text)
        self.says('firefox shows times, and there are only samples', counted, '-f', 'firefox')
        self.says('o.pstats: pstats shows times, and there are only samples: --unit', counted, '-o', self.path('o.pstats'))
        both = profiles.Pprof([('samples', 'count'), ('wall', 'nanoseconds')])
        both.add([(('f', 'f.py', 1),)], [3, 5])
        self.says('the metric has to be wall, cpu or gil', self.put('both.pb', both.data()), '--metric', 'samples', '-f', 'pstats')

    def test_filters_that_let_nothing_through(self):
        text = self.put('in.txt', MARKED)
        for words, *options in (
                ("no stack is of a thread 'nobody': there are 'M', 'w'", '--only-thread', 'nobody'),
                ("of a function 'nope': there are 'g', 'h', 'f'", '--only-function', 'nope'),
                ("of a file '/none': there are 'y.py', 'z.py', 'x.py'", '--only-file', '/none'),
                ("of an interpreter '9': there are '1: physics', 'main'", '--only-interpreter', '9'),
                ("of a function 'h', of those that the filters before it let through: there are 'g', 'f'", '--only-thread', 'M',
                 '--only-function', 'h')):
            self.says(words, text, *options)

    def test_messages_are_one_line(self):
        done = run(self.path('a\nb\x1b'))
        self.assertEqual(done.said.count('\n'), 1)
        self.assertNotIn('\x1b', done.said)


class Damaged(Handmade):
    """Files of each format with some bytes changed, taken out, doubled or cut: it ends with 0 or 1, soon, says one line if it
    fails, and then leaves no file. PYPROF_SEED makes others."""
    EACH = 60
    KINDS = ['wall-idle.jsonl', 'wall-idle.pb', 'wall-idle.pb.gz', 'wall-idle.json', 'wall-idle.txt']

    def damaged(self, data, chance):
        data = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at, size = chance.randrange(len(data)), chance.randrange(1, 40)
            kind = chance.randrange(6)
            if kind == 0:
                data[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                data[at] = chance.choice(b'\0\xff\x80\x7f"{}[],;:\\ \n0129-')
            elif kind == 2:
                del data[at:at + size]
            elif kind == 3:
                data[at:at] = data[at:at + size]
            elif kind == 4:
                del data[max(at, 1):]
            else:
                data[at:at + 1] = chance.choice((b'99999999999999999999', b'\xff' * 9, b'\\ud800', b'[[[[', b'-1', b'1e999'))
        return bytes(data)

    def test_damaged_files(self):
        seed = int(os.environ.get('PYPROF_SEED', '1'))
        ends = {0: 0, 1: 0}
        for kind in self.KINDS:
            chance, whole = random.Random('%d %s' % (seed, kind)), profiles.content(self.source(kind))
            for number in range(self.EACH):
                path = self.put('in', self.damaged(whole, chance))
                out = self.path('out.' + chance.choice(('svg', 'json', 'pb', 'txt', 'jsonl', 'firefox.json', 'pstats')))
                done = run(path, '-o', out)
                ends[done.returncode] = ends.get(done.returncode, 0) + 1
                what = 'seed %d, %s %d: %s' % (seed, kind, number, done.said)
                self.assertIn(done.returncode, (0, 1), what)
                self.assertEqual(done.said.count('\n'), done.returncode, what)
                self.assertEqual(sorted(os.listdir(self.folder)), sorted(['in'] + [os.path.basename(out)] * (done.returncode == 0)), what)
                if done.returncode == 0:
                    os.remove(out)
        print('%d damaged files: %d were converted, %d refused' % (sum(ends.values()), ends[0], ends[1]))
        self.assertGreater(ends[0], 10)
        self.assertGreater(ends[1], 50)


if __name__ == '__main__':
    unittest.main()
