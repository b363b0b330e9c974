"""Writes a program of several hundred short functions with a known call graph.

The functions lie in levels; each calls functions of the next level at two or three places, at lines that are
known, and the last level only computes. So every stack that the program can have is known beforehand.
"""

import random

LEVELS = 13
WIDTH = 25


class Function:
    def __init__(self, name):
        self.name = name
        self.first = 0
        self.last = 0
        self.calls = set()  # (line, callee)


class Writer:
    def __init__(self):
        self.lines = []

    def add(self, text):
        self.lines.append(text)
        return len(self.lines)


def write_calls(out, function, callees, random_source):
    """One statement of each kind that puts a call at a line of its own choosing."""
    for callee in callees:
        kind = random_source.randrange(6)
        if kind == 0:
            function.calls.add((out.add('    x = %s(x)' % callee), callee))
        elif kind == 1:  # the call begins at the line of its name, whatever lines its arguments take
            function.calls.add((out.add('    x = %s(' % callee), callee))
            out.add('        x +')
            out.add('        1)')
        elif kind == 2:
            out.add('    for i in ONCE:')
            function.calls.add((out.add('        x = %s(i)' % callee), callee))
        elif kind == 3:
            out.add('    if x >= 0:')
            function.calls.add((out.add('        x = %s(x)' % callee), callee))
            out.add('    else:')
            out.add('        x = 0')
        elif kind == 4:
            out.add('    try:')
            function.calls.add((out.add('        x = %s(x)' % callee), callee))
            out.add('    finally:')
            out.add('        x = 1')
        else:
            for _ in range(random_source.randrange(1, 40)):  # a wide step between two lines
                out.add('')
            function.calls.add((out.add('    x = %s(x)' % callee), callee))


def write_function(out, name, callees, random_source):
    function = Function(name)
    function.first = out.add('def %s(x):' % name)
    write_calls(out, function, callees, random_source)
    function.last = out.add('    return x & 255')
    out.add('')
    return function


def write_worker(out, roots):
    function = Function('worker')
    function.first = out.add('def worker(end):')
    out.add('    while clock() < end:')
    for name in roots:
        function.calls.add((out.add('        %s(1)' % name), name))
    function.last = len(out.lines)
    out.add('')
    return function


def write_main(out, threads):
    """Apart: all threads on one core, so that the sampler, which is there already, has another one to itself."""
    function = Function('main')
    function.first = out.add('def main():')
    out.add('    if sys.argv[2] == "apart":')
    out.add('        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])')
    out.add('    end = clock() + float(sys.argv[1])')
    out.add('    threads = []')
    out.add('    for number in range(%d):' % threads)
    out.add('        threads.append(threading.Thread(target=worker, args=(end,), name="worker %d" % number))')
    out.add('    for thread in threads:')
    out.add('        thread.start()')
    function.calls.add((out.add('    worker(end)'), 'worker'))
    out.add('    for thread in threads:')
    function.last = out.add('        thread.join()')
    out.add('')
    return function


def generate(seed=1, levels=LEVELS, width=WIDTH, threads=3):
    """Answers (text of the program, {name: Function}); '<module>' is a function, too."""
    random_source = random.Random(seed)
    out = Writer()
    module = Function('<module>')
    module.first = out.add('import os')
    out.add('import sys')
    out.add('import threading')
    out.add('from time import monotonic as clock')
    out.add('ONCE = (1,)')
    out.add('')
    names = [['f%02d_%02d' % (level, number) for number in range(width)] for level in range(levels)]
    functions = {'<module>': module}
    for level in reversed(range(levels)):
        for number, name in enumerate(names[level]):
            callees = []
            if level + 1 < levels:  # the first is fixed, so that every function is called by someone
                callees = [names[level + 1][number]] + random_source.sample(names[level + 1], 1)
            functions[name] = write_function(out, name, callees, random_source)
    functions['worker'] = write_worker(out, names[0])
    functions['main'] = write_main(out, threads)
    module.last = out.add('main()')
    module.calls.add((module.last, 'main'))
    return '\n'.join(out.lines) + '\n', functions
