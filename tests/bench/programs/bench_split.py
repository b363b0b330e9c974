"""Chunks of different kinds of work, each measured by the program itself.

A program under test has unit(book): a fixed amount of work, which books into {function: nanoseconds} what each of its
parts took. It calls its own functions by plain names only, so that the call graph can be read from its text.
"""

from time import perf_counter_ns as clock

NUMBERS = list(range(1000, 0, -1)) * 2


def steady(n):
    x = 1
    while n:
        x = x * 5 & 1023
        n -= 1


def step2(n):
    return n & 255


def step1(n):
    return step2(n) + step2(n)


def step0(n):
    return step1(n) + step1(n)


def moving(n):
    for i in range(n):
        step0(i)


def recurse(n):
    return recurse(n - 1) if n else 0


def deep(n):
    for _ in range(n):
        recurse(60)


def in_c(n):
    for _ in range(n):
        sorted(NUMBERS)


def generator(n):
    for i in range(n):
        yield i


def generating(n):
    for _ in generator(n):
        pass


def add(book, name, start):
    """Books the time since start, and answers the new one."""
    now = clock()
    book[name] = book.get(name, 0) + now - start
    return now


def unit(book):
    start = clock()
    steady(8000)
    start = add(book, 'steady', start)
    moving(1500)
    start = add(book, 'moving', start)
    deep(150)
    start = add(book, 'deep', start)
    in_c(40)
    start = add(book, 'in_c', start)
    generating(16000)
    add(book, 'generating', start)
