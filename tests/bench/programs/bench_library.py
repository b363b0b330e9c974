"""CPython's own standard library at work: tests/demo/publish.py indexes and compiles some of its modules."""

import os
from time import perf_counter_ns as clock

import publish

MODULES = [publish.Module(os.path.join(publish.LIBRARY, name + '.py')) for name in ('bisect', 'colorsys', 'keyword')]


def index(module):
    publish.index(module)


def compile_it(module):
    publish.compile_module(module)


def unit(book):
    for module in MODULES:
        start = clock()
        index(module)
        middle = clock()
        compile_it(module)
        end = clock()
        book['index'] = book.get('index', 0) + middle - start
        book['compile_it'] = book.get('compile_it', 0) + end - middle
