"""What each of sixteen threads does: it computes, is inside C, and waits."""

import time
from time import perf_counter_ns as clock

NUMBERS = list(range(1000, 0, -1)) * 2


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


def add(book, name, start):
    """Books the time since start, and answers the new one."""
    now = clock()
    book[name] = book.get(name, 0) + now - start
    return now


def unit(book):
    start = clock()
    steady(4000)
    start = add(book, 'steady', start)
    moving(2500)
    start = add(book, 'moving', start)
    in_c(10)
    start = add(book, 'in_c', start)
    waiting(0.002)
    add(book, 'waiting', start)
