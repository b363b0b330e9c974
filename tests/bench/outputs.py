"""Readers of what the profilers write. Each answers stacks whose value is samples, or time where it says so."""

import collections
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, 'common'))

import collapsed  # noqa: E402
from collapsed import FormatError, Frame, Stack, folded, halves  # noqa: E402


def pyprof(text):
    """Without its marks, which say in which interpreter frames run."""
    return [stack._replace(frames=tuple(frame for frame in stack.frames if not collapsed.MARK.match(frame.name)))
            for stack in collapsed.parse(text)]


def frame(name, file, line):
    return Frame(name, os.path.basename(file), int(line))


PYSPY_FRAME = re.compile(r'(.*) \((.*?)(?::([0-9]+))?\)\Z')


def pyspy(text):
    """thread (ID): NAME;function (file:line);... SAMPLES; a frame whose line it could not tell has none"""
    stacks = []
    for line in text.splitlines():
        parts, value = folded(line)
        if not parts[0].startswith('thread '):
            raise FormatError('no thread: %r' % line)
        stacks.append(Stack(parts[0], tuple(map(pyspy_frame, parts[1:])), value))
    return stacks


def pyspy_frame(part):
    match = PYSPY_FRAME.match(part)
    if not match:
        raise FormatError('no "function (file:line)": %r' % part)
    name, file, line = match.groups()
    return frame(name, file, line or 0)


def colons(part):
    """file:function:line"""
    match = re.match(r'(.*):([^:]*):(-?[0-9]+)\Z', part)
    if not match:
        raise FormatError('no file:function:line: %r' % part)
    return frame(match.group(2), match.group(1), match.group(3))


def austin(text):
    """P<pid>;T<interpreter>:<thread>;file:function:line;... MICROSECONDS, one line a sample: millions may be alike"""
    stacks, known = [], {}
    for line in text.splitlines():
        if line and not line.startswith('#'):
            parts, value = halves(line)
            if parts not in known:
                known[parts] = austin_stack(parts.split(';'))
            stacks.append(Stack(*known[parts], value))
    return stacks


def austin_stack(parts):
    return parts[1], tuple(colons(part) for part in parts[2:] if not part.startswith(':'))


def cpython315(text):
    """tid:<thread>;file:function:line;... SAMPLES; what is no frame has the file ~"""
    stacks = []
    for line in text.splitlines():
        parts, value = folded(line)
        frames = [colons(part) for part in parts[1:] if not part.startswith('~:')]
        stacks.append(Stack(parts[0], tuple(frames), value))
    return stacks


def pyinstrument(text):
    """A saved session: records of ([thread, frame...], seconds), a frame name\\0file\\0first line\\1l<line>.

    Answers microseconds, one stack a sample."""
    stacks = []
    for record, seconds in json.loads(text)['frame_records']:
        frames = [pyinstrument_frame(one) for one in record[1:] if '\0<' not in one]
        stacks.append(Stack(record[0].partition('\0')[0], tuple(frames), int(seconds * 1e6)))
    return stacks


def pyinstrument_frame(text):
    name, file, rest = text.split('\0')
    first, *attributes = rest.split('\1')
    lines = [attribute[1:] for attribute in attributes if attribute.startswith('l')]
    return frame(name, file, lines[0] if lines else first)


def scalene(text):
    """The stacks of its JSON file: [["file function:line;", ...], {"count": samples, ...}]."""
    stacks = []
    for record, figures in json.loads(text).get('stacks', []):
        frames = []
        for one in record:
            match = re.match(r'(.*) (\S+):([0-9]+);\Z', one)
            if not match:
                raise FormatError('no "file function:line;": %r' % one)
            frames.append(frame(match.group(2), match.group(1), match.group(3)))
        stacks.append(Stack('', tuple(frames), figures['count']))
    return stacks


# pprof: a protocol buffer, of which only this is needed: samples (field 2) with their labels, locations (4),
# functions (5), strings (6).

def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def fields(data):
    """(number, value) of a message; the value of a nested one is its bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        else:
            raise FormatError('wire type %d' % kind)
        yield key >> 3, value


def numbers(value):
    """A repeated number is one varint, or many in a row."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        one, at = varint(value, at)
        found.append(one)
    return found


def message(data):
    found = collections.defaultdict(list)
    for number, value in fields(data):
        found[number].append(value)
    return found


def thread_of(labels, strings):
    """The name of a sample's thread, '' where it has none."""
    for label in map(message, labels):
        if strings[label[1][0]] == 'thread name':
            return strings[(label[2] or [0])[0]]
    return ''


def pprof(data, kind):
    """The stacks of a profile, with the value of that kind, as in 'wall-samples'."""
    top = message(data)
    strings = [bytes(text).decode('utf-8', 'replace') for text in top[6]]
    kinds = [strings[message(one)[1][0]] for one in top[1]]
    if kind not in kinds:
        raise FormatError('%s is not among %s' % (kind, kinds))
    functions = {}
    for one in map(message, top[5]):
        functions[one[1][0]] = (strings[(one[2] or [0])[0]], strings[(one[4] or [0])[0]])
    locations = {}
    for one in map(message, top[4]):
        line = message(one[4][0])
        locations[one[1][0]] = frame(*functions[line[1][0]] + ((line[2] or [0])[0],))
    stacks = []
    for one in map(message, top[2]):
        ids = [number for value in one[1] for number in numbers(value)]
        values = [number for value in one[2] for number in numbers(value)]
        value = values[kinds.index(kind)]
        if value:
            frames = tuple(locations[number] for number in reversed(ids))
            stacks.append(Stack(thread_of(one[3], strings), frames, value))
    return stacks
