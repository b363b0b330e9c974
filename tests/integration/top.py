"""Work of a known kind: a function that calls itself, another file's, two threads, one that waits. Prints a table of a
snapshot as JSON."""
import json
import sys
import threading
import time

import pyprof_host


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(100))


def deep(level, seconds):
    if level == 0:
        spin(seconds)
    else:
        deep(level - 1, seconds)
        spin(seconds / 20)


def wait_and_work():
    for _ in range(10):
        time.sleep(0.02)
        json.dumps(list(range(20000)))


deepest, seconds = int(sys.argv[1]), float(sys.argv[2])
thread = threading.Thread(target=wait_and_work, name='worker')
thread.start()
# By its own time, too: the worker's samples count as well.
enough = time.thread_time() + 0.5
while pyprof_host.samples() < 100 or time.thread_time() < enough:
    deep(deepest, seconds)
    json.loads(json.dumps({str(i): [i] * 10 for i in range(5000)}))
thread.join()
print(json.dumps(pyprof_host.snapshot('table').decode()))
