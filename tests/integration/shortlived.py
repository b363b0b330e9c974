"""Code objects that live for about a millisecond: each has its own name, file and line.

Prints {"number": wall ns}; the function is short_N in short_N.py, at line N % 500 + 1.
"""

import json
import sys
import time

TEMPLATE = '''def short_%05d(end):
    while clock() < end:
        pass
'''


def main():
    wall = {}
    clock = time.perf_counter_ns
    end = clock() + int(float(sys.argv[1]) * 1e9)
    number = 0
    while clock() < end:
        source = '\n' * (number % 500) + TEMPLATE % number
        names = {'clock': clock}
        exec(compile(source, 'short_%05d.py' % number, 'exec'), names)
        begin = clock()
        names['short_%05d' % number](begin + 1000000)
        wall[number] = clock() - begin
        names.clear()
        number += 1
    print(json.dumps(wall))


main()
