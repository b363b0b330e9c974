"""Threads with real-time priorities, which the sampler's thread has not: priorities.py SCENE SECONDS.

Each scene computes in functions of which the stacks are known, and prints as JSON what the sampler saw of it.
"""

import ctypes
import json
import os
import platform
import subprocess
import sys
import time

import pyprof_host

HOG = """
import os, sys, time
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
print('runs', flush=True)
while os.getppid() == int(sys.argv[1]):
    end = time.monotonic() + 0.3
    while time.monotonic() < end: pass
    time.sleep(0.02)
"""


def sampler():
    for tid in os.listdir('/proc/self/task'):
        with open('/proc/self/task/%s/comm' % tid) as file:
            if file.read() == 'pyprof\n':
                return int(tid)
    raise SystemExit('no sampler')


def stats():
    return json.loads(pyprof_host.stats())


def leaf(n):
    for _ in range(n):
        pass


def left(n):
    leaf(n)


def right(n):
    leaf(n)
    left(n)


def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left(50)
        right(50)


def measure(seconds, begin=None, finish=None):
    """What was recorded while this thread computes, from when it is what begin makes of it; a sampler that got no core counts
    what it has missed once it has one, which may be as late as Linux lets any real-time thread on that core again."""
    if begin is not None:
        begin()
    compute(0.05)  # what was asked or held before that is counted by then
    before = stats()
    compute(seconds)
    if finish is not None:
        finish()
    last, end = stats(), time.monotonic() + 10
    compute(0.05)
    while stats()['ticks'] == last['ticks'] and time.monotonic() < end:
        compute(0.01)
    after = stats()
    return {name: after[name] - before[name] for name in after}


def become(policy, priority=1):
    os.sched_setscheduler(0, policy, os.sched_param(priority))


def become_plain():
    become(os.SCHED_OTHER, 0)


def plain(seconds):
    return measure(seconds)


def fifo(seconds):
    return measure(seconds, lambda: become(os.SCHED_FIFO), become_plain)


def equal(seconds):
    """As above, and the sampler has the same priority."""
    os.sched_setscheduler(sampler(), os.SCHED_FIFO, os.sched_param(1))
    return fifo(seconds)


def deadline(seconds):
    """8 ms of each 10 are this thread's, before all others."""
    class Attributes(ctypes.Structure):
        _fields_ = [('size', ctypes.c_uint32), ('policy', ctypes.c_uint32), ('flags', ctypes.c_uint64),
                    ('nice', ctypes.c_int32), ('priority', ctypes.c_uint32), ('runtime', ctypes.c_uint64),
                    ('deadline', ctypes.c_uint64), ('period', ctypes.c_uint64)]
    number = {'x86_64': 314, 'aarch64': 274}[platform.machine()]
    mine = Attributes(ctypes.sizeof(Attributes), 6, 0, 0, 0, 8000000, 10000000, 10000000)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, ctypes.byref(mine), 0):
        return {'refused': os.strerror(ctypes.get_errno())}
    figures = measure(seconds)
    become_plain()
    return figures


def hog(seconds):
    """Another program keeps one core for most of the time, wherever that is."""
    others = {name: value for name, value in os.environ.items() if name != 'PYTHONHOME'}
    child = subprocess.Popen(['python3', '-c', HOG, str(os.getpid())], stdout=subprocess.PIPE, env=others)
    child.stdout.readline()
    figures = measure(seconds)
    child.kill()
    child.wait()
    return figures


# The host has given it a real-time priority, which hosts in general do not.
os.sched_setscheduler(sampler(), os.SCHED_OTHER, os.sched_param(0))
print(json.dumps(globals()[sys.argv[1]](float(sys.argv[2]))))
