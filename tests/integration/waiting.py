"""The program of test_waiting.py. Prints, by thread, the seconds that each function took by its own clocks."""

import hashlib
import json
import threading
import time

clocks = {'waits': {}, 'wakes': {}, 'computes': {}}
held = threading.Lock()
threads = []


def waits():
    held.acquire()
    held.release()


def here():
    time.sleep(0.04)


def there():
    time.sleep(0.08)


def pauses():
    time.sleep(0.7)


def computes():
    hashlib.pbkdf2_hmac('sha256', b'some', b'bytes', 400000)


def clocked(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def waiter():
    clocks['waits'][threading.current_thread().name] = clocked(waits)


def waker():
    sums = {'here': 0, 'there': 0}
    for _ in range(24):
        sums['here'] += clocked(here)
        sums['there'] += clocked(there)
    clocks['wakes'][threading.current_thread().name] = sums


def computer():
    waited = used = 0
    for _ in range(3):
        waited += clocked(pauses)
        begin = time.thread_time()
        computes()
        used += time.thread_time() - begin
    clocks['computes'][threading.current_thread().name] = waited, used


def begin(function, count):
    of_them = [threading.Thread(target=function, name='%s-%d' % (function.__name__, i)) for i in range(count)]
    for thread in of_them:
        thread.start()
    threads.extend(of_them)
    return of_them


def main():
    threading.stack_size(1 << 18)
    held.acquire()
    begin(waiter, 300)
    time.sleep(0.5)
    others = begin(waker, 8) + begin(computer, 1)
    for thread in others:
        thread.join()
    held.release()
    for thread in threads:
        thread.join()
    print(json.dumps(clocks))


main()
