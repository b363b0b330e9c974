"""The program under test: bench_target.py CONFIG.json [ARGUMENT]

Runs a program's unit() again and again, with the profiler switched on and off around it, and writes what it counted.
In-process profilers are modules under inside/; external ones are switched by the process that started this one,
which is asked through a pair of pipes.
"""

import contextlib
import importlib
import json
import os
import sys
import threading
import time

CLOCK = time.perf_counter_ns
ours = {threading.get_native_id()}  # the program's threads; all others are the profiler's


class Remote:
    """Asks bench.py to switch the profiler; each question waits for its answer."""

    def __init__(self, config):
        self.questions = os.fdopen(config['questions'], 'w')
        self.answers = os.fdopen(config['answers'])

    def ask(self, question):
        self.questions.write(question + '\n')
        self.questions.flush()
        if self.answers.readline() != 'done\n':
            raise SystemExit('the other side of the pipe has gone')

    def begin(self):
        self.ask('begin')

    def on(self):
        self.ask('on')

    def off(self):
        self.ask('off')

    def end(self):
        self.ask('end')


# The loops. Three that are the same, so that a stack tells which of them it is of. Each does one unit at least: a
# thread that gets the GIL after the end would make a stretch without any.

def measured(unit, book, end):
    count = 0
    while True:
        unit(book)
        count += 1
        if CLOCK() >= end:
            return count


def stretch_on(unit, book, end):
    count = 0
    while True:
        unit(book)
        count += 1
        if CLOCK() >= end:
            return count


def stretch_off(unit, book, end):
    count = 0
    while True:
        unit(book)
        count += 1
        if CLOCK() >= end:
            return count


def run(loop, unit, threads, seconds):
    """Answers (units, nanoseconds, the threads' books)."""
    books = [{} for _ in range(threads)]
    counts = [0] * threads
    start = CLOCK()
    end = start + int(seconds * 1e9)
    if threads == 1:
        counts[0] = loop(unit, books[0], end)
    else:
        def thread_main(number):
            ours.add(threading.get_native_id())
            counts[number] = loop(unit, books[number], end)
        started = [threading.Thread(target=thread_main, args=(number,)) for number in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    return sum(counts), CLOCK() - start, books


def add_up(books):
    total = {}
    for book in books:
        for name, took in book.items():
            total[name] = total.get(name, 0) + took
    return total


# The profiler's own threads: where they run and what they cost. One that ends meanwhile is left out; the program's
# may still be there for a moment after they were joined.

def other_threads():
    return {int(name) for name in os.listdir('/proc/self/task')} - ours


def place(config):
    """Keeps the program's threads and the profiler's apart: a stack that stands still, because its reader has taken its
    processor, is read truly by anyone. Threads that the program starts are placed as its main thread is."""
    if config['cores']:
        os.sched_setaffinity(0, config['cores']['program'])
        for thread in other_threads():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, config['cores']['profiler'])


def cpu_of_threads():
    """{thread: CPU nanoseconds}, by the clock that the kernel has for every thread of the process."""
    used = {}
    for thread in other_threads():
        with contextlib.suppress(OSError):
            used[thread] = time.clock_gettime_ns(~thread << 3 | 6)
    return used


def peak_memory():
    with open('/proc/self/status') as file:
        for line in file:
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) * 1024
    return None


def truth(tool, unit, config):
    tool.begin()
    tool.on()
    place(config)
    before = cpu_of_threads()
    count, took, books = run(measured, unit, config['threads'], config['seconds'])
    after = cpu_of_threads()
    tool.off()
    figures = tool.end()
    used = [cpu - before.get(thread, 0) for thread, cpu in after.items()]
    return {'units': count, 'nanoseconds': took, 'book': add_up(books), 'figures': figures,
            'profiler_cpu_ns': sum(used)}


def slowdown(tool, unit, config):
    stretches = []
    tool.begin()
    end = CLOCK() + int(config['seconds'] * 1e9)
    while CLOCK() < end:
        tool.on()
        place(config)
        count, took, _ = run(stretch_on, unit, config['threads'], config['stretch'])
        stretches.append((True, count, took))
        tool.off()
        count, took, _ = run(stretch_off, unit, config['threads'], config['stretch'])
        stretches.append((False, count, took))
    return {'stretches': stretches, 'figures': tool.end()}


def surrounded(tool, unit, config):
    """The truth, with a stretch before the profiler comes and one after it has gone: for those that cannot be stopped
    in between."""
    def without():
        return (False,) + run(stretch_off, unit, config['threads'], config['stretch'])[:2]
    place(config)
    before = without()
    result = truth(tool, unit, config)
    return dict(result, stretches=[before, (True, result['units'], result['nanoseconds']), without()])


KINDS = {'truth': truth, 'slowdown': slowdown, 'surrounded': surrounded}


def make_tool(config):
    if not config['inside']:
        return Remote(config)
    return importlib.import_module('inside.' + config['inside']).Tool(config)


def main():
    with open(sys.argv[1]) as file:
        config = json.load(file)
    sys.path.insert(0, config['programs'])
    sys.setrecursionlimit(5000)
    program = importlib.import_module(config['program'])
    if hasattr(program, 'setup'):
        ours.update(program.setup() or ())  # threads that it starts
    tool = make_tool(config)
    program.unit({})  # the first one is slower: caches, specialised code
    result = KINDS[config['kind']](tool, program.unit, config)
    result['peak_memory'] = peak_memory()
    with open(config['result'], 'w') as file:
        json.dump(result, file)


main()
