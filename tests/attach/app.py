"""A plain program that knows nothing of the profiler: does one kind of thing, says "begun", and at the end what came out.

    app.py KIND SECONDS"""
import os
import queue
import select
import signal
import sys
import threading
import time

names_at_start = None


def leaf(turns):
    return sum(number * number for number in range(turns))


def compute(seconds):
    end = time.monotonic() + seconds
    turns = 0
    while time.monotonic() < end:
        assert leaf(200) == 2646700
        turns += 1
    return turns > 0


def sleep(seconds):
    """Whether each lasted as long as it should: one that is cut short is an interrupted system call."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.monotonic()
        time.sleep(0.05)
        assert time.monotonic() - before >= 0.05
    return True


def one_sleep(seconds):
    before = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - before >= seconds


def wait_for_input(seconds):
    return input() == 'go on'


def read_pipe(seconds):
    return os.read(0, 100) == b'go on\n'


def wait_for_select(seconds):
    return select.select([0], [], []) == ([0], [], [])


def wait_for_poll(seconds):
    poll = select.poll()
    poll.register(0, select.POLLIN)
    return [(number, what & select.POLLIN) for number, what in poll.poll()] == [(0, select.POLLIN)]


def wait_for_epoll(seconds):
    poll = select.epoll()
    poll.register(0, select.EPOLLIN)
    return [(number, what & select.EPOLLIN) for number, what in poll.poll()] == [(0, select.EPOLLIN)]


def after_input(act):
    """Does it in another thread when the program may go on."""
    def wait():
        os.read(0, 100)
        act()
    threading.Thread(target=wait).start()


def until_told(work):
    told = []
    after_input(lambda: told.append(True))
    while not told:
        assert work()
    return True


def compute_until_told(seconds):
    return until_told(lambda: leaf(200) == 2646700)


def sleep_until_told(seconds):
    return until_told(lambda: one_sleep(0.05))


def timed_lock_until_told(seconds):
    """The time-out, which the kernel keeps, is long; nothing else ends it."""
    lock = threading.Lock()
    lock.acquire()
    after_input(lock.release)
    return lock.acquire(timeout=1000)


def wait_for_lock(seconds):
    lock = threading.Lock()
    lock.acquire()
    after_input(lock.release)
    return lock.acquire() and lock.locked() and not lock.acquire(False)


def wait_for_rlock(seconds):
    """Which the other thread has, twice."""
    lock, is_held = threading.RLock(), threading.Event()

    def hold():
        with lock, lock:
            is_held.set()
            os.read(0, 100)
    threading.Thread(target=hold).start()
    is_held.wait()
    lock.acquire()
    lock.release()
    try:
        lock.release()
    except RuntimeError:
        return True


def wait_for_event(seconds):
    event = threading.Event()
    after_input(event.set)
    return event.wait()


def wait_for_queue(seconds):
    values = queue.Queue()
    after_input(lambda: values.put('go on'))
    return values.get() == 'go on' and values.empty()


def wait_for_simple_queue(seconds):
    values = queue.SimpleQueue()
    after_input(lambda: values.put('go on'))
    return values.get() == 'go on' and values.empty()


def wait_in_turns(seconds):
    """Two threads hand a lock's worth to and fro: nothing is taken twice, nothing is lost."""
    there, back, turns = queue.Queue(), queue.Queue(), [0, 0]

    def answer():
        for value in iter(there.get, None):
            turns[1] += 1
            time.sleep(0.002)
            back.put(value)
    worker = threading.Thread(target=answer)
    worker.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        there.put(turns[0])
        assert back.get() == turns[0]
        turns[0] += 1
    there.put(None)
    worker.join()
    return turns[0] == turns[1] and back.empty()


def interrupted(seconds):
    """Ctrl-C ends the wait, once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores in the background
    lock = threading.Lock()
    lock.acquire()
    try:
        lock.acquire()
    except KeyboardInterrupt:
        return not lock.acquire(timeout=0.2)


def lasted(wait, seconds):
    """What comes of a wait, which lasts so long, and hardly longer."""
    before = time.monotonic()
    result = wait(seconds)
    took = time.monotonic() - before
    assert seconds - 0.001 <= took < seconds + 1.9, took
    return result


def timed_lock(seconds):
    lock = threading.Lock()
    lock.acquire()
    return lasted(lambda timeout: lock.acquire(timeout=timeout), seconds) is False


def timed_rlock(seconds):
    lock, is_held, is_over = threading.RLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            is_held.set()
            is_over.wait()
    threading.Thread(target=hold).start()
    is_held.wait()
    result = lasted(lambda timeout: lock.acquire(timeout=timeout), seconds)
    is_over.set()
    return result is False


def timed_event(seconds):
    return lasted(threading.Event().wait, seconds) is False


def timed_queue(seconds):
    def get(timeout):
        try:
            return values.get(timeout=timeout)
        except queue.Empty:
            return None
    values = queue.SimpleQueue()
    return lasted(get, seconds) is None


def timed_join(seconds):
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    result = lasted(thread.join, seconds)
    is_late = thread.is_alive()
    is_over.set()
    return result is None and is_late


def joined(work, seconds):
    results = []
    all_threads = [threading.Thread(target=lambda: results.append(work(seconds)), name='work %d' % n) for n in range(3)]
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()
        assert not thread.is_alive()
    return results == [True] * 3


def join_computing(seconds):
    return joined(compute, seconds)


def join_sleeping(seconds):
    return joined(one_sleep, seconds)


def pauses(seconds):
    """Each ends by a signal, and by nothing else: one that ends before has no new one to count."""
    counts = []
    signal.signal(signal.SIGALRM, lambda number, frame: counts.append(number))
    for turn in range(int(seconds / 0.1)):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        signal.pause()
        assert len(counts) == turn + 1, (counts, turn)
    return True


def pause(seconds):
    signal.signal(signal.SIGUSR1, lambda number, frame: numbers.append(number))
    numbers = []
    signal.pause()
    return numbers == [signal.SIGUSR1]


def asynchronous(seconds):
    import asyncio

    async def tick(every):
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            before = time.monotonic()
            await asyncio.sleep(every)
            assert time.monotonic() - before >= every - 0.001
            count += 1
        return count > 0

    async def both():
        return await asyncio.gather(tick(0.05), tick(0.13))
    return asyncio.run(both()) == [True, True]


def c_calls(names):
    """Bare calls of libc: what they return is what the kernel said; CPython would begin them anew."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    return [getattr(libc, name) for name in names] + [ctypes]


def bare_poll(seconds):
    poll, ctypes = c_calls(['poll'])
    return poll((ctypes.c_int * 2)(0, 1), 1, -1), ctypes.get_errno()


def bare_epoll(seconds):
    create, control, wait, ctypes = c_calls(['epoll_create1', 'epoll_ctl', 'epoll_wait'])
    event = (ctypes.c_uint32 * 3)(1, 0, 0)
    number = create(0)
    control(number, 1, 0, event)
    return wait(number, event, 1, -1), ctypes.get_errno()


def bare_semaphore(seconds):
    init, post, wait, ctypes = c_calls(['sem_init', 'sem_post', 'sem_wait'])
    semaphore = (ctypes.c_uint64 * 4)()
    init(semaphore, 0, 0)

    def give():
        os.read(0, 100)
        post(semaphore)
    threading.Thread(target=give).start()
    return wait(semaphore), ctypes.get_errno()


def bare_queue(seconds):
    get, send, receive, remove, ctypes = c_calls(['msgget', 'msgsnd', 'msgrcv', 'msgctl'])
    queue = get(0, 0o1600)
    message = (ctypes.c_long * 4)(1, 7)

    def give():
        os.read(0, 100)
        send(queue, message, 8, 0)
    threading.Thread(target=give).start()
    received = receive(queue, (ctypes.c_long * 4)(), 8, 0, 0)
    remove(queue, 0, None)
    return received, ctypes.get_errno()


def threads(seconds):
    results = []
    all_threads = [threading.Thread(target=lambda: results.append(compute(seconds)), name='work %d' % n) for n in range(3)]
    for thread in all_threads:
        thread.start()
    results.append(compute(seconds))
    for thread in all_threads:
        thread.join()
    return results == [True] * 4


def births(seconds):
    """Threads begin and end all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        all_threads = [threading.Thread(target=leaf, args=(20,)) for _ in range(5)]
        for thread in all_threads:
            thread.start()
        for thread in all_threads:
            thread.join()
    return True


def forks(seconds):
    import warnings
    warnings.simplefilter('ignore', DeprecationWarning)  # of forks beside threads, since 3.12
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        child = os.fork()
        if child == 0:
            os._exit(7)
        assert os.waitpid(child, 0)[1] == 7 << 8
    return True


def imports(seconds):
    """Libraries are loaded all the time, most of it in ld.so."""
    import ctypes
    import _ctypes
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name in ('libz.so.1', 'libresolv.so.2'):
            try:
                library = ctypes.CDLL(name)
            except OSError:
                continue
            _ctypes.dlclose(library._handle)
        leaf(2000)
    return True


def reads_its_libraries(seconds):
    """All files whose code it runs are mapped once more, whole and to be read only, below what runs: as who looks for names of
    functions in them does."""
    import ctypes
    with open('/proc/self/maps', encoding='utf-8') as maps:
        paths = {line.split()[5] for line in maps if ' r-xp ' in line and ' /' in line}
    mmap = ctypes.CDLL(None).mmap
    mmap.restype, mmap.argtypes = ctypes.c_ssize_t, [ctypes.c_size_t] * 2 + [ctypes.c_int] * 3 + [ctypes.c_ssize_t]
    for place, path in enumerate(sorted(paths), 1):
        number = os.open(path, os.O_RDONLY)
        assert mmap(place << 28, os.fstat(number).st_size, 1, 2, number, 0) == place << 28
        os.close(number)
    return compute(seconds)


def alarms(seconds):
    """A handler of the program's raises in whatever Python runs, and what it raises has to arrive."""
    class Alarm(Exception):
        pass

    def on_alarm(number, frame):
        counts[0] += 1
        raise Alarm()
    counts = [0, 0]
    signal.signal(signal.SIGALRM, on_alarm)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005)
            while True:
                leaf(20)
        except Alarm:
            counts[1] += 1
    return counts[0] == counts[1] or counts


def executes(seconds):
    """Becomes another program again and again."""
    if seconds <= 0:
        return True
    time.sleep(0.02)
    os.execv(sys.executable, [sys.executable, __file__, 'executes', str(seconds - 0.1)])


def c_loop(seconds):
    """A long call into C that keeps the GIL."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(30000000))
    return True


def main():
    before = set(globals()) | {'__warningregistry__'}  # which the warning of a fork leaves
    if sys.argv[1] != 'executes' or sys.argv[2] == sys.argv[2].rstrip('9'):
        print('begun', flush=True)
    result = globals()[sys.argv[1]](float(sys.argv[2]))
    print(result, sorted(set(globals()) - before), sys.exc_info()[0], 'pyprof' in sys.modules, '_engine' in sys.modules,
          flush=True)


if __name__ == '__main__':
    main()
