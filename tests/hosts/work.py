"""Known work for a host's Python: what each part took, by this thread's own clock, is the truth to hold a profile against."""

import ctypes
import json
import os
import time


def leaf(n):
    return n & 255


def calls(n):
    for i in range(n):
        leaf(i)


def straight(n):
    x = 1
    for i in range(n):
        x = x * 5 & 1023


def sorts(n):
    for _ in range(n):
        sorted(NUMBERS)


NUMBERS = list(range(4000, 0, -1)) * 2
PARTS = ((calls, 20000), (straight, 40000), (sorts, 10))


def work(seconds):
    """{name: nanoseconds} of the parts, by turns until the time is over."""
    took = dict.fromkeys(("calls", "straight", "sorts"), 0)  # a comprehension is a frame of its own before 3.12
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for part, amount in PARTS:
            begin = time.perf_counter_ns()
            part(amount)
            took[part.__name__] += time.perf_counter_ns() - begin
    return took


def recorded(plugin, path, seconds, runs, interval_us=1000):
    """Records the work so many times, and leaves what is true of it beside each profile: PATH.0 and PATH.0.json, ..."""
    library = ctypes.CDLL(plugin)
    for run in range(runs):
        result = library.record(interval_us)
        took = work(seconds)
        result = result or library.save(os.fsencode("%s.%d" % (path, run)))
        with open("%s.%d.json" % (path, run), "w", encoding="utf-8") as file:
            json.dump({"result": result, "took": took}, file)
