"""Reads pprof's format, and holds a file of ours against what its readers and engines ask for: each rule names itself in a
FormatError. Source of the format: https://github.com/google/pprof, proto/profile.proto.

It runs in any Python, and needs nothing from around it.
"""

import collections
import re
import struct
import zlib

TYPES = ['samples', 'wall', 'cpu', 'gil']
HEAP_TYPES = ['inuse_objects', 'inuse_space', 'alloc_space', 'alloc_objects']  # of a heap profile
UNITS = dict.fromkeys(['samples', 'inuse_objects', 'alloc_objects'], 'count')
UNITS.update(dict.fromkeys(['wall', 'cpu', 'gil'], 'nanoseconds'), inuse_space='bytes', alloc_space='bytes')

Frame = collections.namedtuple('Frame', 'name file line first_line')  # a stack has them leaf first
Sample = collections.namedtuple('Sample', 'stack values labels')  # values by the names of TYPES, or HEAP_TYPES
Profile = collections.namedtuple('Profile', 'samples default period time_nanos duration_nanos comments program raw')


class FormatError(Exception):
    """A file that is not as it should be."""


def hold(is_so, rule):
    if not is_so:
        raise FormatError(rule)


# ---- gzip: RFC 1952; stored blocks: RFC 1951, 3.2.4

def stored_blocks(data):
    """What is in them, and what stands behind the last one."""
    parts, is_last = [], False
    while not is_last:
        hold(len(data) >= 5, 'gzip: a block that is cut')
        head, size, complement = struct.unpack('<BHH', data[:5])
        hold(head in (0, 1), 'gzip: stored blocks')
        hold(size ^ complement == 0xffff, 'gzip: a block has its size twice')
        hold(len(data) >= 5 + size, 'gzip: a block that is cut')
        parts.append(data[5:5 + size])
        data, is_last = data[5 + size:], head == 1
    return b''.join(parts), data


def unzip(data):
    """The content of a gzip file of ours."""
    hold(data[:4] == b'\x1f\x8b\x08\0', 'gzip: magic, deflate, no flags')
    hold(data[4:8] == b'\0\0\0\0', 'gzip: mtime is 0')
    content, end = stored_blocks(data[10:])
    hold(len(end) >= 8, 'gzip: an end')
    crc, size = struct.unpack('<II', end[:8])
    hold(crc == zlib.crc32(content), 'gzip: the right CRC')
    hold(size == len(content) & 0xffffffff, 'gzip: the right size')
    hold(len(end) == 8, 'gzip: one member, and nothing behind it')
    return content


# ---- protocol buffers

def varint(data, at):
    number = shift = 0
    while True:
        hold(at < len(data) and shift < 64, 'protobuf: a number that is cut')
        number |= (data[at] & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return number, at


def fields(data):
    """Numbers of fields, and their values: numbers or bytes."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        hold(tag & 7 in (0, 2), 'protobuf: numbers and bytes only')
        value, at = varint(data, at)
        if tag & 7 == 2:
            hold(at + value <= len(data), 'protobuf: a field that is cut')
            value, at = data[at:at + value], at + value
        yield tag >> 3, value


def packed(data):
    numbers, at = [], 0
    while at < len(data):
        number, at = varint(data, at)
        numbers.append(number)
    return numbers


MESSAGES = {  # the fields of a message; with * those that may be there several times
    'Profile': '1 sample_type*, 2 sample*, 3 mapping*, 4 location*, 5 function*, 6 string_table*, 9 time_nanos, '
               '10 duration_nanos, 11 period_type, 12 period, 13 comment*, 14 default_sample_type',
    'ValueType': '1 type, 2 unit',
    'Sample': '1 location_id, 2 value, 3 label*',
    'Label': '1 key, 2 str, 3 num',
    'Mapping': '1 id, 5 filename, 7 has_functions, 8 has_filenames, 9 has_line_numbers, 10 has_inline_frames',
    'Location': '1 id, 2 mapping_id, 4 line*',
    'Line': '1 function_id, 2 line',
    'Function': '1 id, 2 name, 4 filename, 5 start_line',
}
KNOWN = {name: {int(word.split()[0]): word.split()[1] for word in text.split(', ')} for name, text in MESSAGES.items()}


def message(kind, data):
    """A message as a dict; what is not there is 0, or an empty list. Fields that ours should not have are an error."""
    found = {name.rstrip('*'): [] if name.endswith('*') else 0 for name in KNOWN[kind].values()}
    seen = set()
    for number, value in fields(data):
        hold(number in KNOWN[kind], '%s: no field %d' % (kind, number))
        name = KNOWN[kind][number]
        if name.endswith('*'):
            found[name[:-1]].append(value)
        else:
            hold(number not in seen, '%s: one %s' % (kind, name))
            found[name] = value
        seen.add(number)
    return found


# ---- the profile

class Reader:
    """A profile's parts. Whatever is wrong is a FormatError."""

    def __init__(self, data):
        self.profile = message('Profile', data)
        self.read_strings()
        self.read_types()
        self.read_mapping()
        self.functions = self.read_table('Function', 'function', self.read_function)
        self.locations = self.read_table('Location', 'location', self.read_location)
        self.used = set()
        self.samples = [self.read_sample(message('Sample', data)) for data in self.profile['sample']]
        hold(len(set(sample[0] + sample[2] for sample in self.samples)) == len(self.samples),
             'samples: equal stacks and labels are one')
        hold(self.used == set(range(1, len(self.locations) + 1)), 'locations: none that is in no sample')
        hold({location[0] for location in self.locations} == set(range(1, len(self.functions) + 1)),
             'functions: none that is in no location')

    def read_strings(self):
        try:
            self.strings = [data.decode('utf-8') for data in self.profile['string_table']]
        except UnicodeDecodeError:
            raise FormatError('strings: valid UTF-8')
        self.types = HEAP_TYPES if self.strings[1:2] == HEAP_TYPES[1:2] else TYPES
        hold(self.strings[:4] == [''] + self.types[1:], 'strings: "", then the types as they are numbered')
        hold('' not in self.strings[1:], 'strings: "" is the first one only')

    def text(self, number):
        hold(number < len(self.strings), 'strings: one that is not there')
        return self.strings[number]

    def value_type(self, data):
        both = message('ValueType', data)
        return self.text(both['type']), self.text(both['unit'])

    def read_types(self):
        hold([self.value_type(data) for data in self.profile['sample_type']] ==
             [(name, UNITS[name]) for name in self.types], 'sample types: these, in this order')
        wanted = ('space', 'bytes') if UNITS[self.types[1]] == 'bytes' else (self.types[1], UNITS[self.types[1]])
        hold(self.profile['period_type'] and self.value_type(self.profile['period_type']) == wanted,
             'period type: wall/nanoseconds, or space/bytes')
        hold(self.profile['period'] > 0, 'period: there is one')
        self.default = self.text(self.profile['default_sample_type'])
        hold(self.default in self.types, 'default sample type: one of the types')
        hold(self.default == self.types[0] or self.types.index(self.default) == self.profile['default_sample_type'],
             'default sample type: also its index')
        hold(self.profile['time_nanos'] > 0, 'time: there is one')
        self.comments = [self.text(number) for number in self.profile['comment']]
        hold(self.comments and re.match(r'pyprof [0-9]', self.comments[0]), 'comment: who wrote it')

    def read_mapping(self):
        hold(len(self.profile['mapping']) == 1, 'mapping: exactly one')
        mapping = message('Mapping', self.profile['mapping'][0])
        self.program = self.text(mapping.pop('filename'))
        hold(self.program, 'mapping: a file name')
        hold(set(mapping.values()) == {1}, 'mapping: number 1, and all that it has')

    def read_table(self, kind, field, read):
        items = [message(kind, data) for data in self.profile[field]]
        hold([item['id'] for item in items] == list(range(1, len(items) + 1)), '%ss: 1, 2, 3 in their order' % field)
        table = [read(item) for item in items]
        hold(len(set(table)) == len(table), '%ss: each is there once' % field)
        return table

    def read_function(self, item):
        hold(self.text(item['name']), 'functions: a name')
        return self.text(item['name']), self.text(item['filename']), item['start_line']

    def read_location(self, item):
        hold(item['mapping_id'] == 1, 'locations: in the mapping')
        hold(len(item['line']) == 1, 'locations: one line')
        line = message('Line', item['line'][0])
        hold(1 <= line['function_id'] <= len(self.functions), 'locations: a function that is there')
        return line['function_id'], line['line']

    def read_label(self, data):
        label = message('Label', data)
        key, text, number = self.text(label['key']), self.text(label['str']), label['num']
        hold(re.match(r'[a-z_]+\Z', key), 'labels: keys of a to z and _')
        hold(bool(text) != bool(number), 'labels: a text or a number')
        hold(number < 1 << 53, 'labels: a number that a float64 has')
        return key, text or number

    def read_sample(self, item):
        ids = tuple(packed(item['location_id'])) if item['location_id'] else ()
        values = packed(item['value']) if item['value'] else []
        labels = tuple(self.read_label(data) for data in item['label'])
        hold(ids, 'samples: a stack')
        hold(1 <= min(ids) and max(ids) <= len(self.locations), 'samples: locations that are there')
        hold(len(values) == len(self.types), 'samples: a value of each type')
        hold(any(values) and max(values) < 1 << 63, 'samples: some value')
        hold(len(dict(labels)) == len(labels), 'labels: each once')
        self.used.update(ids)
        return ids, tuple(values), labels

    def frame(self, number):
        function, line = self.locations[number - 1]
        name, file, first_line = self.functions[function - 1]
        return Frame(name, file, line, first_line)

    def result(self):
        samples = [Sample(tuple(map(self.frame, ids)), dict(zip(self.types, values)), dict(labels))
                   for ids, values, labels in self.samples]
        return Profile(samples, self.default, self.profile['period'], self.profile['time_nanos'],
                       self.profile['duration_nanos'], self.comments, self.program, self)


def read(data):
    """A file of ours, gzip or plain."""
    return Reader(unzip(data) if data[:2] == b'\x1f\x8b' else data).result()


def totals(profile, metric, key):
    """What each function, or whatever key makes of a frame, has itself, and with what it calls: {key: [self, total]}."""
    sums = collections.defaultdict(lambda: [0, 0])
    for sample in profile.samples:
        sums[key(sample.stack[0])][0] += sample.values[metric]
        for one in set(map(key, sample.stack)):
            sums[one][1] += sample.values[metric]
    return {one: both for one, both in sums.items() if both[1]}
