"""What a program sees of it that its threads are held while they are read: nothing. held.py SCENE SECONDS.

Each scene computes in threads that block every signal, and prints as JSON what it found.
"""

import ctypes
import json
import os
import platform
import subprocess
import sys
import threading
import time

import pyprof_host

EVERY = max((os.sched_getaffinity(0) for _ in range(300)), key=len)  # this thread, too, may just be held
ONE = {min(EVERY)}
# Whether the sampler and a thread have a core each, as then the thread has to be held; else it may be that they always
# share one, and nothing is to be done. Not where there is one core, or where this may not go before all others.
APART = len(EVERY) > 1 and os.sched_getscheduler(0) == os.SCHED_FIFO


def stats():
    return json.loads(pyprof_host.stats())


def held():
    """As many as were held; where none has to be, as many samples."""
    figures = stats()
    return figures['samples_held'] if APART else figures['samples']


def compute(seconds, enough):
    """For so long, and until as much was seen."""
    end = time.monotonic() + seconds
    last = end + 300
    seen = False
    while time.monotonic() < end or (not seen and time.monotonic() < last):
        sum(range(500))
        seen = enough()


def settles(cores, tid=0):
    """Whether a thread may run where it should, but for the moment in which it is held."""
    for _ in range(2000):
        if os.sched_getaffinity(tid) == cores:
            return True
        time.sleep(0.0001)
    return False


def masks(seconds):
    """What the host sets stays, though it does so more than a thousand times a second."""
    wrong, rounds, before = [0], [0], []

    def change():
        wrong[0] += pyprof_host.change_cores(threading.main_thread().native_id, 400)
        rounds[0] += 1

    compute(seconds, lambda: held() > 100)
    before.append(held())
    changer = threading.Thread(target=change)
    changer.start()
    compute(0, lambda: rounds[0] > 0)
    changer.join()
    return {'changes': 400 * rounds[0], 'wrong': wrong[0], 'held': before[0], 'held_after': held() - before[0]}


def born(seconds):
    """What is made while its maker is held may run wherever its maker may."""
    wrong = []
    made = {'threads': 0, 'processes': 0}

    def look():
        if not settles(EVERY):
            wrong.append('a thread: %s' % sorted(os.sched_getaffinity(0)))

    def make():
        thread = threading.Thread(target=look)
        thread.start()
        made['threads'] += 1
        if made['threads'] % 5 == 0:
            child = subprocess.Popen(['sleep', '100'], close_fds=False)
            if not settles(EVERY, child.pid):
                wrong.append('a process: %s' % sorted(os.sched_getaffinity(child.pid)))
            child.kill()
            child.wait()
            made['processes'] += 1
        for _ in range(200):
            sum(range(100))
        thread.join()
        return made['processes'] > 40 and held() > 100

    compute(seconds, make)
    if not settles(EVERY):
        wrong.append('the maker: %s' % sorted(os.sched_getaffinity(0)))
    return dict(made, wrong=wrong, held=held())


def interruptions(seconds):
    """No call ends early: there is no signal."""
    libc = ctypes.CDLL(None, use_errno=True)
    ended = [0, 0]

    class Timespec(ctypes.Structure):
        _fields_ = [('s', ctypes.c_long), ('ns', ctypes.c_long)]

    def call():
        for _ in range(300):
            sum(range(100))
        ended[0] += libc.ppoll(None, 0, ctypes.byref(Timespec(0, 50000)), None) != 0
        ended[1] += 1
        return held() > 20

    compute(seconds, call)
    return {'ended': ended[0], 'calls': ended[1], 'signals': stats()['signals'], 'held': held()}


def refuse_to_change_cores():
    """A seccomp filter for all threads: sched_setaffinity answers EPERM."""
    number = {'x86_64': 203, 'aarch64': 122}[platform.machine()]
    words = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000))
    code = b''.join(op.to_bytes(2, 'little') + bytes((yes, no)) + k.to_bytes(4, 'little') for op, yes, no, k in words)

    class Program(ctypes.Structure):
        _fields_ = [('count', ctypes.c_ushort), ('code', ctypes.c_char_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    program = Program(len(words), code)
    all_threads = 1
    if libc.prctl(38, 1, 0, 0, 0) or libc.syscall({'x86_64': 317, 'aarch64': 277}[platform.machine()], 1, all_threads,
                                                  ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), 'seccomp')


def refused(seconds):
    compute(0, lambda: held() > 0)
    refuse_to_change_cores()
    before = stats()
    compute(seconds, lambda: stats()['samples'] - before['samples'] > 1000)
    after = stats()
    return {'samples': after['samples'] - before['samples'], 'held': held(),
            'failed': after['holds_failed'] > 0 or not APART}


def untouched(seconds):
    compute(seconds, lambda: stats()['samples'] > 500)
    return {'held': stats()['samples']}


def ends(seconds):
    """Threads come and go while they are held, and the process forks."""
    made = [0]

    def work():
        for _ in range(400):
            sum(range(100))

    def make():
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        child = os.fork()
        if child == 0:
            os._exit(0 if settles(EVERY) else 1)
        made[0] += 1
        assert os.waitpid(child, 0)[1] == 0, 'a forked child may not run where its parent may'
        return made[0] > 100 and held() > 100

    compute(seconds, make)
    return {'made': made[0], 'held': held()}


print(json.dumps(globals()[sys.argv[1]](float(sys.argv[2]))))
