"""A program that waits most of the time, as a server does that has little to do."""

import time
from time import perf_counter_ns as clock


def work(n):
    while n:
        n -= 1


def wait(seconds):
    time.sleep(seconds)


def unit(book):
    start = clock()
    work(10000)
    middle = clock()
    wait(0.002)
    end = clock()
    book['work'] = book.get('work', 0) + middle - start
    book['wait'] = book.get('wait', 0) + end - middle
