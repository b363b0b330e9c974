"""One thread that visits two sub-interpreters in turn, as a server with a plugin in each does."""

import os
from time import perf_counter_ns as clock

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

PREPARE = 'import sys; sys.path.insert(0, %r); from bench_subinterpreters import plugin_one, plugin_two'
made = []


def setup():
    """Only in the main interpreter: the others import this module, too."""
    for _ in range(2):
        made.append(interpreters.create())
        run(made[-1], PREPARE % os.path.dirname(os.path.abspath(__file__)))


def run(interpreter, text):
    error = interpreters.run_string(interpreter, text)
    if error:
        raise RuntimeError(error)


def plugin_one(n):
    while n:
        n -= 1


def plugin_two(n):
    while n:
        n -= 1


def main_part(n):
    while n:
        n -= 1


def unit(book):
    start = clock()
    main_part(10000)
    first = clock()
    run(made[0], 'plugin_one(10000)')
    second = clock()
    run(made[1], 'plugin_two(20000)')
    end = clock()
    for name, took in (('main_part', first - start), ('plugin_one', second - first), ('plugin_two', end - second)):
        book[name] = book.get(name, 0) + took
