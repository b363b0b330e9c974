"""Programs that split their time between functions and measure the split themselves.

split.py KIND SECONDS prints, as JSON, what every function took by the clocks of its thread: {"name": [wall, cpu]}
in nanoseconds. Machines are noisy; the program's own clock goes through the same noise, so it is the truth.
"""

import json
import sys
import threading
import time
from time import perf_counter_ns as wall_ns, sleep, thread_time_ns as cpu_ns

truth = {}


def timed(function, argument):
    """Calls it and books what it took under the name of its first function."""
    wall, cpu = wall_ns(), cpu_ns()
    function(argument)
    cpu, wall = cpu_ns() - cpu, wall_ns() - wall
    name = function.__name__ if threading.current_thread() is threading.main_thread() else \
        threading.current_thread().name + '/' + function.__name__
    book = truth.setdefault(name, [0, 0])
    book[0] += wall
    book[1] += cpu


# Work of different kinds: one frame that stands still, a stack that moves all the time, C code, waiting.

def steady(n):
    x = 1
    while n:
        x = x * 5 & 1023
        n -= 1


def step3(n):
    return n & 255


def step2(n):
    return step3(n) + step3(n)


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


NUMBERS = list(range(4000, 0, -1)) * 2


def in_c(n):
    # Nothing is left to free at the end: a frame's values die when its function is no longer on the stack.
    for _ in range(n):
        sorted(NUMBERS)


def generator(n):
    for i in range(n):
        yield i


def generating(n):
    for _ in generator(n):
        pass


def waiting(n):
    sleep(n / 1e6)


KINDS_OF_WORK = ((steady, 6000), (moving, 600), (deep, 120), (in_c, 4), (generating, 9000))


def mixed(end, scale=1.0):
    """Chunks of about a millisecond, one after the other."""
    while time.monotonic() < end:
        for function, amount in KINDS_OF_WORK:
            timed(function, int(amount * scale) or 1)


def mixed_waiting(end):
    """Waits as often a second on a fast machine as on a slow one: whoever waits too often is asked less."""
    while time.monotonic() < end:
        wake = time.monotonic() + 0.03
        while time.monotonic() < wake:
            for function, amount in KINDS_OF_WORK:
                timed(function, 2 * amount)
        timed(waiting, 15000)


def bursty(end):
    """Runs for a millisecond or two, then waits as long, as the frames of a game do. Of each burst the end is not seen
    that comes while it is looked at, up to 30 us on a virtual machine: so they last as long on a fast machine as on
    a slow one."""
    bursts = ((steady, 2.0), (moving, 1.0), (generating, 1.2))
    amounts = [scaled(function, ms / 1e3) for function, ms in bursts]
    while time.monotonic() < end:
        for (function, _), amount in zip(bursts, amounts):
            timed(function, amount)
            sleep(0.003)


def scaled(function, seconds):
    """How much of it takes so long here, at best and without what others take meanwhile: what is booked is what it took."""
    amount, took = 1, 0.0
    while took < seconds:
        amount *= 2
        took = best(function, amount)
    return int(amount * seconds / took)


def best(function, amount):
    times = []
    for _ in range(5):
        begin = cpu_ns()
        function(amount)
        times.append((cpu_ns() - begin) / 1e9)
    return min(times)


# Functions of a few microseconds: each runs until a moment and answers at which it ended, so that one look at the
# clock ends one and begins the next. What lies between two looks, a return and a call, is the same for all: the first
# comes after a function that is not booked.

def short0(end):
    now = wall_ns()
    while now < end:
        now = wall_ns()
    return now


def short2(end):
    now = wall_ns()
    while now < end:
        now = wall_ns()
    return now


def short3(end):
    now = wall_ns()
    while now < end:
        now = wall_ns()
    return now


def short5(end):
    now = wall_ns()
    while now < end:
        now = wall_ns()
    return now


def short8(end):
    now = wall_ns()
    while now < end:
        now = wall_ns()
    return now


def in_turn(count):
    moments = []
    for _ in range(count):
        start = short0(0)
        after2 = short2(start + 2000)
        after3 = short3(after2 + 3000)
        after5 = short5(after3 + 5000)
        after8 = short8(after5 + 8000)
        moments.append((start, after2, after3, after5, after8))
    return moments


def short(end):
    functions = ((short2, 2000), (short3, 3000), (short5, 5000), (short8, 8000))
    books = [truth.setdefault(function.__name__, [0, 0]) for function, _ in functions]
    while time.monotonic() < end:
        for moments in in_turn(200):
            for book, (_, meant), before, after in zip(books, functions, moments, moments[1:]):
                # Nothing waits, so CPU time is what wall time is, but for when the machine took the core away.
                book[0] += after - before
                book[1] += after - before if after - before < 100000 else meant


def phase0(deadline):
    while wall_ns() < deadline:
        pass


def phase1(deadline):
    while wall_ns() < deadline:
        pass


def phase2(deadline):
    while wall_ns() < deadline:
        pass


def phase3(deadline):
    while wall_ns() < deadline:
        pass


def phase4(deadline):
    while wall_ns() < deadline:
        pass


def phase5(deadline):
    while wall_ns() < deadline:
        pass


def phase6(deadline):
    while wall_ns() < deadline:
        pass


def phase7(deadline):
    while wall_ns() < deadline:
        pass


PHASES = (phase0, phase1, phase2, phase3, phase4, phase5, phase6, phase7)


def periodic(end, period=530000):
    """A loop that takes exactly one sampling interval, in eight parts.

    A machine that is short of time may let the sampler run only when its own timer ticks, every one to four
    milliseconds: a period that these are no multiple of meets all of its parts all the same.
    """
    while time.monotonic() < end:
        start = wall_ns() // period * period + period
        phase0(start)
        for turn in range(100):
            for number, function in enumerate(PHASES):
                timed(function, start + turn * period + (number + 1) * period // len(PHASES))


def threads(end):
    others = [threading.Thread(target=mixed, args=(end, scale), name=name)
              for name, scale in (('one', 1.0), ('two', 3.0), ('three', 8.0))]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()


if __name__ == '__main__':
    kind = globals()[sys.argv[1]]
    kind(time.monotonic() + float(sys.argv[2]))
    print(json.dumps(truth))
