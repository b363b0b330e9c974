"""So many threads that come and go, several at a time, none for long. Prints {"thread name": cpu ns}."""

import json
import sys
import threading
import time

cpu = {}


def work(milliseconds):
    begin = time.thread_time_ns()
    x = 0
    while time.thread_time_ns() - begin < milliseconds * 1000000:
        for n in range(100):
            x = x + n & 1023
    cpu[threading.current_thread().name] = time.thread_time_ns() - begin


def main():
    number = 0
    while number < int(sys.argv[1]):
        threads = []
        for _ in range(4):
            threads.append(threading.Thread(target=work, args=(number % 5 * 5,), name='comer %d' % number))
            number += 1
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(json.dumps(cpu))


main()
