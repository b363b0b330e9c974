"""Random functions in random layouts that stand still in a chain of calls, so that CPython itself can say where.

fuzz_lines.py SEED ROUNDS prints, as JSON, for every thread that stood still: its name, what
sys._current_frames() had of it, root first, and the lines of collapsed text that grew meanwhile.
"""

import ast
import json
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import collapsed
import pyprof_host

THREADS = 30
DEPTH = 6

# Each is the body of a function that calls NEXT(gate) once; {pad} becomes blank lines and statements.
FORMS = '''
x = NEXT(gate)
---
x = NEXT(
{pad}
    gate
)
---
x = (NEXT
{pad}
     (gate))
---
x = [1,
{pad}
     NEXT(gate),
     3]
---
x = {{'a': 1,
{pad}
     'b': NEXT(gate)}}
---
x = identity(1, *[
{pad}
    NEXT(gate)], key=(
    2))
---
x = identity(
    identity(
{pad}
        NEXT(gate)
    )
)
---
for i in range(3):
{pad4}
    if i == 2:
        NEXT(gate)
---
i = 0
while i < 3:
    i += 1
{pad4}
    if i < 3:
        continue
    NEXT(gate)
    break
else:
    i = 1
---
x = [NEXT(g)
{pad}
     for g in (gate,)
     if g]
---
x = list(NEXT(g)
{pad}
         for g in
         (gate,))
---
x = {{i: NEXT(g)
     for i, g in enumerate([gate])}}
---
x = (lambda g:
{pad}
     NEXT(g))(gate)
---
x = sorted([gate],
{pad}
           key=lambda g: (NEXT(g),
                          1)[1])
---
x = list(map(NEXT,
{pad}
             [gate]))
---
try:
{pad4}
    NEXT(gate)
finally:
    x = 1
---
try:
    x = 1
finally:
{pad4}
    NEXT(gate)
---
try:
    raise ValueError(
{pad}
        1)
except ValueError as error:
{pad4}
    NEXT(gate)
---
try:
    raise KeyError
except (ValueError,
        NEXT(gate) or KeyError):
    x = 2
---
try:
    x = 0
except ValueError:
    x = 1
else:
    NEXT(gate)
finally:
    x = 2
---
with Context(
{pad}
        gate) as x:
    NEXT(
        gate)
---
class Body:
    x = 1
{pad4}
    y = NEXT(gate)
---
class Base(
{pad}
        identity(object),
        metaclass=identity(NEXT(gate) or type)):
    x = 1
---
def decorate(function):
    NEXT(gate)
    return function
{pad}
@identity
@decorate
@identity
def decorated(
        a,
        b):
    return a
---
def defaults(a,
{pad}
             b=NEXT(gate),
             *, c=1):
    return a
---
def generate():
{pad4}
    x = yield 1
    NEXT(gate)
    yield 2
x = list(generate())
---
def generate():
    yield NEXT(
        gate)
def delegate():
{pad4}
    yield from generate()
for x in delegate():
    pass
---
async def inner():
{pad4}
    return NEXT(gate)
async def outer():
    return await inner()
try:
    outer().send(None)
except StopIteration:
    pass
---
x = 1 if identity(gate) is None else (
{pad}
    NEXT(gate))
---
x = (identity(0)
     or
{pad}
     NEXT(gate)
     or 3)
---
x = identity(1) + identity(
{pad}
    NEXT(gate) or 2
) * identity(
    3)
---
x = f"""{{identity(1)}}
{{NEXT(gate)}}
"""
---
x = {{}}
x[
{pad}
    NEXT(gate)
] = 1
---
x = [1]
x[0] += NEXT(
    gate) or 1
---
assert not NEXT(gate), (
    'no')
---
return (
{pad}
    NEXT(gate))
---
x = identity("""
{pad}
""", NEXT(gate), """

""")
---
class Slow:
    @property
    def value(self):
{pad4}
        return NEXT(gate)
x = (Slow()
     .value)
---
class Slow:
    def __getattr__(self, name):
        return NEXT(gate)
x = (Slow().
{pad}
     anything)
---
class Slow:
    def __add__(self, other):
        return NEXT(gate) or 1
x = (Slow()
{pad}
     + 1)
---
class Slow:
    def __del__(self):
        NEXT(gate)
x = Slow()
{pad}
del x
---
class Slow:
    def __iter__(self):
        NEXT(gate)
        return iter(())
for x in (
{pad}
        Slow()):
    pass
---
x = identity(identity(identity(1), identity(
    2), identity(
{pad}
        3)), NEXT(gate))
'''.strip('\n').split('\n---\n')


def identity(*values, **named):
    return values[-1]


class Context:
    def __init__(self, gate):
        self.gate = gate

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        return False


def padding(source, indent):
    lines = []
    for _ in range(source.choice((0, 0, 1, 2, 5, 40, 400))):
        lines.append(source.choice(('', '', ' ' * indent + '# filler', '')))
    return '\n'.join(lines)


def function_text(source, name, callee):
    body = source.choice(FORMS)
    pads = {'pad': padding(source, 0), 'pad4': padding(source, 4)}
    body = body.format(**pads).replace('NEXT', callee)
    before = []
    for _ in range(source.randrange(4)):
        before.append(source.choice(('x = 1', 'x = (1,\n\n 2)', 'if gate is None:\n    x = identity(\n\n1)',
                                     '\n' * 30)))
    text = '\n'.join(before + [body, 'x = 2'])
    # No text inside of strings minds the indent: nothing compares them.
    return 'def %s(gate):\n    x = 0\n%s\n' % (name, '\n'.join('    ' + line for line in text.split('\n')))


# A debug build of CPython asserts that what generated a tree is an editor.
IS_DEBUG_BUILD = hasattr(sys, 'gettotalrefcount')


def shake(source, tree):
    """Gives nodes lines of their own, far apart and backwards, as no editor would but code generators do."""
    for node in ast.walk(tree):
        if hasattr(node, 'lineno') and source.random() < 0.3:
            node.lineno = max(1, node.lineno + source.choice((-1, 1, -3, 7, -100, 127, 128, -128, 255, -300, 5000)))
            node.end_lineno = max(node.lineno, node.end_lineno or 0)
            node.col_offset = 0
            node.end_col_offset = 300
    # The parts of a node may now lie outside of it: only the order of the ends of one node matters to compile().
    return tree


def chain(source, number):
    """Functions that call each other, the last one stops at the gate."""
    names = ['fuzz_%d_%d' % (number, level) for level in range(DEPTH)]
    text = ['\n' * source.choice((0, 0, 3, 200, 70000))]
    for level in reversed(range(DEPTH)):
        text.append(function_text(source, names[level], names[level + 1] if level + 1 < DEPTH else 'stop'))
    tree = ast.parse('\n'.join(text))
    if source.random() < 0.5 and not IS_DEBUG_BUILD:
        tree = shake(source, tree)
    space = {'identity': identity, 'Context': Context, 'stop': stop}
    exec(compile(tree, 'fuzz_%d.py' % number, 'exec'), space)
    return space[names[0]]


def stop(gate):
    gate.acquire()
    gate.release()


def still(threads):
    """All threads' frames, root first, once every one of them is in stop(), past its def: it waits there."""
    waits = stop.__code__.co_firstlineno + 1
    while True:
        frames = sys._current_frames()
        chosen = {thread.name: frames.get(thread.ident) for thread in threads}
        if all(frame is not None and frame.f_code is stop.__code__ and frame.f_lineno == waits
               for frame in chosen.values()):
            break
        del frames, chosen
        time.sleep(0.001)
    stacks = {}
    for name, frame in chosen.items():
        stack = []
        while frame:
            code = frame.f_code
            stack.append((getattr(code, 'co_qualname', code.co_name), code.co_filename, frame.f_lineno))
            frame = frame.f_back
        stacks[name] = stack[::-1]
    return stacks


def samples():
    text = pyprof_host.snapshot('collapsed,samples,idle').decode('utf-8')
    return dict(collapsed.halves(line) for line in text.split('\n')[:-1])


def ticks_pass(number):
    end = json.loads(pyprof_host.stats())['ticks'] + number
    while json.loads(pyprof_host.stats())['ticks'] < end:
        time.sleep(0.002)


def one_round(source, number):
    gate = threading.Lock()
    gate.acquire()
    threads = []
    for _ in range(THREADS):
        target = chain(source, number)
        threads.append(threading.Thread(target=target, args=(gate,), name='fuzz %d' % number))
        number += 1
    for thread in threads:
        thread.start()
    expected = still(threads)
    ticks_pass(4)  # a thread that is looked at while it goes to sleep is counted with the tick
    before = samples()
    ticks_pass(10)
    after = samples()
    text = pyprof_host.dump().decode('utf-8')
    gate.release()
    for thread in threads:
        thread.join()
    grown = {}
    for stack, count in after.items():
        if count > before.get(stack, 0):
            grown.setdefault(stack.split(';', 1)[0][len('thread '):], []).append(stack)
    return [(name, stack, grown.get(name, [])) for name, stack in expected.items()], text


def main():
    source = random.Random(int(sys.argv[1]))
    results = []
    dumps = []
    for turn in range(int(sys.argv[2])):
        stood, text = one_round(source, turn * THREADS)
        results += stood
        dumps.append(text)
    print(json.dumps({'threads': results, 'dumps': dumps}))


if __name__ == '__main__':
    main()
