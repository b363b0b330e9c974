"""Reads collapsed text: a line a stack, "thread NAME;function (file.py:LINE);... VALUE". What is not so is a FormatError.

It runs in any CPython that a host embeds, and needs nothing from around it.
"""

import collections
import functools
import re

Frame = collections.namedtuple('Frame', 'name file line')
Stack = collections.namedtuple('Stack', 'thread frames value')


class FormatError(Exception):
    """A line that is not as the collapsed format has it."""


FRAME = re.compile(r'(?P<name>.*) \((?P<file>.*):(?P<line>[0-9]+)\)\Z')
SPECIAL = ('[unresolved]', '[truncated]', '[unsettled]')  # what stands for frames that cannot be shown
MARK = re.compile(r'\[interpreter [0-9]+(: .*)?\]\Z')  # what follows runs there


def halves(line):
    """A line's stack, still as text, and its value: of whoever's collapsed text."""
    text, space, value = line.rpartition(' ')
    if not space or not value.isdigit():
        raise FormatError('no value: %r' % line)
    return text, int(value)


def folded(line):
    """The same with the stack in parts."""
    text, value = halves(line)
    return text.split(';'), value


@functools.lru_cache(maxsize=None)  # a profile has few frames, and each of them in many stacks
def parse_frame(text):
    if text in SPECIAL or MARK.match(text):
        return Frame(text, '', 0)
    match = FRAME.match(text)
    if not match:
        raise FormatError('no "name (file:line)": %r' % text)
    return Frame(match.group('name'), match.group('file'), int(match.group('line')))


def parse_line(line):
    (thread, *frames), value = folded(line)
    if not re.match('thread .', thread):
        raise FormatError('no thread frame: %r' % line)
    return Stack(thread[len('thread '):], tuple(map(parse_frame, frames)), value)


def parse(text):
    if text and not text.endswith('\n'):
        raise FormatError('the last line has no end')
    return [parse_line(line) for line in text.split('\n')[:-1]]


def names(stack):
    """Its functions, from the thread's first one on."""
    return tuple(frame.name for frame in stack.frames)


def within(stacks, function):
    """The sum of all stacks in which it is."""
    return sum(stack.value for stack in stacks if function in names(stack))
