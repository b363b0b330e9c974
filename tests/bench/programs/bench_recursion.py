"""Work at the bottom of a deep recursion, beside work in a shallow frame. The depth is the program's argument."""

import sys
from time import perf_counter_ns as clock

DEPTH = int(sys.argv[-1]) if sys.argv[-1].isdigit() else 100


def count(n):
    while n:
        n -= 1


def descend(n):
    if n:
        descend(n - 1)
    else:
        count(8000)


def flat(n):
    while n:
        n -= 1


def unit(book):
    start = clock()
    descend(DEPTH)
    middle = clock()
    flat(12000)
    end = clock()
    book['descend'] = book.get('descend', 0) + middle - start
    book['flat'] = book.get('flat', 0) + end - middle
