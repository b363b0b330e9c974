"""Lines that cost the same, and lines that call: how much of a function's time each gets is known. Prints the numbers of the
five equal lines, those of the caller's, and whether the JIT may run them."""

import json
import sys

import pyprof_host

TERM = 'x * 1.5'
LINES = ['def five(n):', '    x = 1.25', '    for i in range(n):', '        a = i']
LINES += ['        y%d = %s' % (number, ' + '.join([TERM] * 20)) for number in range(5)]
LINES += ['        b = i', '    return b', '', 'def calls(n):', '    a = five(n)', '    b = five(n)', '    return a + b', '']
names = {}
exec(compile('\n'.join(LINES), 'equal.py', 'exec'), names)
first = LINES.index('        a = i') + 2
called = LINES.index('    a = five(n)') + 1

end = pyprof_host.samples() + int(sys.argv[1])
while pyprof_host.samples() < end:
    names['calls'](500)
jit = getattr(sys, '_jit', None)
print(json.dumps([list(range(first, first + 5)), [called, called + 1], bool(jit and jit.is_enabled())]))
