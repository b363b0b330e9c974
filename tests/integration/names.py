"""Functions with every kind of name and file name, each at work until so many samples were taken of it, which is told.
Prints [[name, file], ...]."""

import json
import sys
from pyprof_host import samples

ODD = ['plain', 'na\u00efve', 'gr\u00f6\u00dfe \u00ff\u00fe', '\u51fd\u6570', '\u0416\u0444', '\U0001d4bb\U0001f389',
       'mixed \u00e9 \u6570 \U0001f389', 'quo"te', "apo'strophe", 'back\\slash', 'not\\n', 'not\\x3b', 'new\nline',
       'return\rtab\t', 'semi;colon', 'control\x01\x1f\x1b[31m', 'delete\x7f', 'nul\0byte', 'c1\x85\x9b',
       'separator\u2028', 'space  and (round:7)', 'thread x', '<b>&amp;</b>', '{"json": [1]}', 'x' * 3000,
       '\u6570' * 1500, '\u202eright to left', '', ' ']


def busy(end):
    while samples() < end:
        pass


def renamed(name, file):
    code = busy.__code__
    changes = {'co_name': name, 'co_filename': file}
    if sys.version_info >= (3, 11):
        changes['co_qualname'] = name
    return type(busy)(code.replace(**changes), globals(), name)


def main():
    made = []
    for name in ODD:
        for file in ('name.py', '/no such folder/%s.py' % name.replace('/', '')):
            renamed(name, file)(samples() + int(sys.argv[1]))
            made.append([name, file, busy.__code__.co_firstlineno])
    # Half a pair is no text: what it becomes is open, but the file must be valid.
    renamed('half \ud800 pair', 'half.py')(samples() + int(sys.argv[1]))
    print(json.dumps(made))


main()
