"""scenes.py SECONDS [NAME...]: threads that do one thing each, all or these, one after the other, for about so many
seconds: of their own CPU time if they compute, so that what begins and ends a scene is little of it on a busy machine, too.

Prints, as JSON, what each thread's own clocks say: {"thread name": [wall, cpu, wall of its one wait or 0]} in nanoseconds.
Lines that the test looks for are marked "# AT name".
"""

import _thread
import asyncio
import binascii
import hashlib
import json
import re
import socket
import sys
import threading
import time
from time import thread_time as clock

clocks = {}
scenes = []
SECONDS = float(sys.argv[1])
names = sys.argv[2:]
WAIT = SECONDS / 25


def scene(function):
    scenes.append(function)
    return function


def spin(end):
    x = 0
    while clock() < end:
        for n in range(100):
            x = x + n & 1023


# Calls that hold the GIL.

NUMBERS = [n * 7919 % 100003 for n in range(100000)]


@scene
def holds_sort(end):
    while clock() < end:
        sorted(NUMBERS)  # AT sort


PATTERN = re.compile('(a+)+b')


@scene
def holds_regex(end):
    while clock() < end:
        PATTERN.match('a' * 16)  # AT regex


SMALL = b'x' * 4000


@scene
def holds_crc(end):
    while clock() < end:
        for n in range(500):  # a look at the clock is a system call, and there a busy machine takes the core away
            binascii.crc_hqx(SMALL, 0)  # AT crc


HUGE = 3 ** 20000


@scene
def holds_power(end):
    while clock() < end:
        abs(
            HUGE * HUGE)  # AT power


# Calls that let it go.

BIG = b'y' * (1 << 26)


@scene
def frees_hash(end):
    while clock() < end:
        hashlib.sha256(BIG)  # AT hash


waited = 0


def wait_is_over(begin):
    global waited
    waited = time.perf_counter_ns() - begin


@scene
def waits_sleep(end):
    begin = time.perf_counter_ns()
    time.sleep(end - clock())  # AT sleep
    wait_is_over(begin)


@scene
def waits_lock(end):
    lock = threading.Lock()
    lock.acquire()
    begin = time.perf_counter_ns()
    lock.acquire(timeout=end - clock())  # AT lock
    wait_is_over(begin)


@scene
def waits_socket(end):
    left, right = socket.socketpair()
    left.settimeout(end - clock())
    try:
        left.recv(1)  # AT recv
    except socket.timeout:
        pass
    right.close()
    left.close()


# The language.

def raises(depth):
    if depth == 0:
        raise ValueError(depth)
    raises(depth - 1)


@scene
def exceptions(end):
    while clock() < end:
        try:
            raises(10)  # AT raises
        except ValueError:
            spin(0)
        finally:
            spin(clock() + 0.0005)  # AT finally


def inner_generator(end):
    while clock() < end:
        spin(clock() + 0.0005)  # AT inner generator
        yield 1


def outer_generator(end):
    yield from inner_generator(end)  # AT outer generator


@scene
def generators(end):
    for _ in outer_generator(end):  # AT for
        pass


async def inner_coroutine():
    spin(clock() + 0.0005)  # AT inner coroutine
    await asyncio.sleep(0)


async def outer_coroutine(end):
    while clock() < end:
        await inner_coroutine()  # AT outer coroutine


async def gathered(end):
    await asyncio.gather(outer_coroutine(end), outer_coroutine(end))


@scene
def coroutines(end):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(gathered(end))  # AT run loop
    loop.close()


def recurse(depth, end):
    if depth > 1:
        recurse(depth - 1, end)  # AT recurse
    else:
        spin(end)  # AT bottom


@scene
def recursion(end):
    recurse(900, end)


@scene
def classes(end):
    class Body:
        spin(  # AT class body
            end)

    Body()


@scene
def comprehensions(end):
    [[spin(min(end, clock() + 0.001))  # AT comprehension
      for _ in range(10)]
     for _ in iter(lambda: clock() < end, False)]


def run(function):
    """Waits before and behind, so that the sampler knows the thread when its work begins, and sees it end."""
    global waited
    waited = 0
    wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
    time.sleep(WAIT)
    function(clock() + SECONDS)
    time.sleep(WAIT)
    cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    clocks[threading.current_thread().name] = [wall, cpu, waited]


def main():
    sys.setrecursionlimit(3000)
    for function in scenes:
        if names and function.__name__ not in names:
            continue
        thread = threading.Thread(target=run, args=(function,), name=function.__name__)
        thread.start()
        thread.join()
    thread = threading.Thread(target=run, args=(spin,), name='w\u00f6rker \u2713;"x"\n\\')
    thread.start()
    thread.join()
    without_name = _thread.allocate_lock()
    without_name.acquire()
    _thread.start_new_thread(lambda: (spin(clock() + 0.1), without_name.release()), ())
    without_name.acquire()
    print(json.dumps(clocks))


main()
