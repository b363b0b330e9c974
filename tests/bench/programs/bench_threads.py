"""Sixteen threads: some compute, some are inside C, some mostly wait."""

import itertools
import threading
import time
from time import perf_counter_ns as clock

NUMBERS = list(range(1000, 0, -1)) * 2

turns = itertools.count()
mine = threading.local()


def steady(n):
    while n:
        n -= 1


def step(n):
    return n & 255


def moving(n):
    for i in range(n):
        step(i)


def in_c(n):
    for _ in range(n):
        sorted(NUMBERS)


def waiting(seconds):
    time.sleep(seconds)


def kind():
    """What this thread does, the same for as long as it lives."""
    if not hasattr(mine, 'kind'):
        mine.kind = next(turns) % 4
    return mine.kind


def unit(book):
    which = kind()
    start = clock()
    if which == 0:
        steady(8000)
        name = 'steady'
    elif which == 1:
        moving(5000)
        name = 'moving'
    elif which == 2:
        in_c(20)
        name = 'in_c'
    else:
        waiting(0.002)
        name = 'waiting'
    book[name] = book.get(name, 0) + clock() - start
