"""A thread that computes, among as many that wait as the program's argument says: for a lock, for an event, asleep."""

import sys
import threading
import time

WAITING = int(sys.argv[-1]) if sys.argv[-1].isdigit() else 10
DEPTH = 5  # with those of the library a waiting thread has ten frames or twelve
NAME = 'waiter-%d'

held = threading.Lock()
held.acquire()
never = threading.Event()
begun = []


def wait_for_lock():
    held.acquire()


def wait_for_event():
    never.wait()


def sleep():
    time.sleep(3600)


ENDS = (wait_for_lock, wait_for_event, sleep)


def descend(depth, end):
    if depth:
        descend(depth - 1, end)
    else:
        end()


def wait(end):
    begun.append(threading.get_native_id())
    descend(DEPTH - 1, end)


def setup():
    """Answers the threads that it has started, when each is on its way to where it waits."""
    threading.stack_size(1 << 18)
    for number in range(WAITING):
        threading.Thread(target=wait, args=(ENDS[number % len(ENDS)],), name=NAME % number, daemon=True).start()
    while len(begun) < WAITING:
        time.sleep(0.01)
    return begun


def count(n):
    while n:
        n -= 1


def compute(depth):
    if depth:
        compute(depth - 1)
    else:
        count(5000)


def unit(book):
    compute(4)
