"""Reads profiles of each format into one form, without the code that is tested; and makes files as other tools write them."""

import collections
import gzip
import json
import marshal
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))

import harness
import pprof

CONVERT = os.path.join(harness.BUILD, 'tools', 'pyprof-convert')
HANDMADE = os.path.join(harness.BUILD, 'tests', 'formats', 'handmade')


def run(*arguments, given=b'', folder=None):
    """What it answered, with all that it said as text. It ends by itself, and no signal ends it."""
    done = subprocess.run([CONVERT, *map(str, arguments)], input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          cwd=folder, timeout=harness.patience(120))
    done.text = done.stdout.decode('utf-8', 'replace')
    done.said = done.stderr.decode('utf-8', 'replace')
    return done


def convert(*arguments, given=b'', folder=None):
    """Its standard output, of what has to succeed, and without a word."""
    done = run(*arguments, given=given, folder=folder)
    if done.returncode != 0 or done.said:
        raise AssertionError('%s ended with %d: %s' % (arguments, done.returncode, done.said))
    return done.stdout


# ---- what a file says: {stack: value}, a stack is (thread, frames root first), a frame (name, last part of file, line);
# values in nanoseconds or samples

def last_part(path):
    return path.rpartition('/')[2]


def plain(text):
    """As pprof has names: lone surrogates written out, and something where there is nothing."""
    return text.encode('utf-8', 'backslashreplace').decode() or '[no name]'


def of_collapsed(data, unit=1000):
    stacks = collections.Counter()
    for line in data.decode('utf-8').splitlines():
        text, _, value = line.rpartition(' ')
        frames = text.split(';')
        thread = frames.pop(0)[len('thread '):] if frames[0].startswith('thread ') else ''
        stacks[thread, tuple(map(split_frame, frames))] += int(value) * unit
    return stacks


def split_frame(text):
    name, paren, place = text.rpartition(' (')
    file, colon, line = place.rstrip(')').rpartition(':')
    return (name, last_part(file), int(line)) if paren and colon else (text, '', 0)


def of_pprof(data, metric='wall', idle=True):
    stacks = collections.Counter()
    for sample in pprof.read(data).samples:
        frames = tuple((f.name, last_part(f.file), f.line) for f in reversed(sample.stack))
        if idle or sample.labels.get('state') != 'idle':
            stacks[sample.labels.get('thread', ''), frames] += sample.values[metric]
    return +stacks


def of_speedscope(data):
    document, stacks = json.loads(data), collections.Counter()
    frames = [(plain(f['name']), last_part(f.get('file', '')), f.get('line', 0)) for f in document['shared']['frames']]
    for profile in document['profiles']:
        for stack, weight in zip(profile['samples'], profile['weights']):
            if stack:
                stacks[plain(profile['name']), tuple(frames[number] for number in stack)] += weight
    return stacks


def of_jsonl(data, metric='wall_ns'):
    functions, nodes, stacks = [], [], collections.Counter()
    for line in data.decode('utf-8').splitlines():
        row = json.loads(line)
        if row['type'] == 'function':
            functions.append((plain(row['name']), last_part(row['path'])))
        elif row['type'] == 'thread':
            nodes.append((plain(row['name']), ()))
        elif row['type'] == 'node':
            thread, frames = nodes[row['parent']]
            nodes.append((thread, frames + (functions[row['function']] + (row['line'],),)))
            stacks[nodes[-1]] += row[metric]
    return +stacks


def of_pstats(data):
    """{(name, file): [self, total]} in nanoseconds; lines are the functions' own, which not all formats have."""
    sums = collections.defaultdict(lambda: [0, 0])
    for (file, _, name), row in marshal.loads(data).items():
        sums[name, '' if file == '~' else last_part(file)][0] += round(row[2] * 1e9)
        sums[name, '' if file == '~' else last_part(file)][1] += round(row[3] * 1e9)
    return dict(sums)


def content(path):
    with open(path, 'rb') as file:
        return file.read()


def read(path):
    data = content(path)
    readers = {'.txt': of_collapsed, '.pb': of_pprof, '.gz': of_pprof, '.json': of_speedscope, '.jsonl': of_jsonl}
    return readers[os.path.splitext(path)[1]](data)


def totals(stacks, with_lines=True):
    """{frame: [self, total]}, without threads, each stack counted once."""
    sums = collections.defaultdict(lambda: [0, 0])
    for (_, frames), value in stacks.items():
        keys = [frame if with_lines else frame[:2] for frame in frames]
        sums[keys[-1]][0] += value
        for key in set(keys):
            sums[key][1] += value
    return {key: both for key, both in sums.items() if both[1]}


# ---- files as others write them

def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


class Pprof:
    """A pprof file in the making, as Go writes it: packed lists, ids of its own, lines that were inlined."""

    def __init__(self, types, packed=True, period=('cpu', 'nanoseconds', 10000000)):
        self.strings, self.functions, self.locations, self.samples = [''], {}, {}, []
        self.types, self.packed, self.period = types, packed, period

    def text(self, text):
        if text not in self.strings:
            self.strings.append(text)
        return self.strings.index(text)

    def location(self, lines):
        """lines: (name, file, line), the innermost first; or an address."""
        return self.locations.setdefault(lines, 7 * len(self.locations) + 3)

    def function(self, name, file):
        return self.functions.setdefault((name, file), 1000 - len(self.functions))

    def add(self, stack, values, labels=()):
        """stack: of locations, root first; labels: (key, text or number)."""
        self.samples.append(([self.location(lines) for lines in reversed(stack)], values, labels))

    def numbers(self, number, values):
        if self.packed:
            return field(number, b''.join(map(varint, values)))
        return b''.join(field(number, value) for value in values)

    def lines(self, place):
        if isinstance(place, int):
            return field(3, place)
        return b''.join(field(4, field(1, self.function(name, file)) + field(2, line)) for name, file, line in place)

    def data(self, compressed=True):
        out = b''.join(field(1, field(1, self.text(name)) + field(2, self.text(unit))) for name, unit in self.types)
        for stack, values, labels in self.samples:
            parts = [field(1, self.text(key)) + (field(2, self.text(value)) if isinstance(value, str) else field(3, value))
                     for key, value in labels]
            out += field(2, self.numbers(1, stack) + self.numbers(2, values) + b''.join(field(3, part) for part in parts))
        out += b''.join(field(4, field(1, number) + self.lines(place)) for place, number in self.locations.items())
        out += b''.join(field(5, field(1, number) + field(2, self.text(name)) + field(4, self.text(file)))
                        for (name, file), number in self.functions.items())
        out += field(11, field(1, self.text(self.period[0])) + field(2, self.text(self.period[1]))) + field(12, self.period[2])
        out += field(10, 2500000000)
        out += b''.join(field(6, text.encode()) for text in self.strings)
        return gzip.compress(out) if compressed else out


def speedscope(profiles, frames, **more):
    """As py-spy writes it: what is shared stands behind the profiles."""
    return json.dumps(dict({'$schema': 'https://www.speedscope.app/file-format-schema.json', 'profiles': profiles,
                            'shared': {'frames': frames}, 'exporter': 'py-spy@0.4.3'}, **more)).encode()
