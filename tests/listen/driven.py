"""What runs inside the host: evaluates each line of standard input, and prints what that is. $DRIVEN_LIBRARY: what
has the profiler; not set: the program itself."""
import ctypes
import itertools
import os
import re
import sys
import threading
import time

is_over = False


def leaf(turns):
    return sum(range(turns))


def work():
    while not is_over:
        leaf(200)


def wait():
    while not is_over:
        time.sleep(0.01)


kept = []


def keep(count, size):
    kept.extend([bytes(size) for _ in range(count)])
    return len(kept)


def allocate():
    while not is_over:
        [bytearray(size) for size in range(0, 6000, 20)]


def hang_in_regex():
    """For minutes, then it ends: a square of steps."""
    re.search('a*b', 'a' * 400000)


def hang_in_loop():
    sum(itertools.repeat(1, 1 << 60))


def deep(names, depth):
    """Makes names times depth nodes: each of these functions calls itself so often, and works at the end."""
    for name in range(names):
        code = 'def f%d(n, last):\n    if n:\n        return f%d(n - 1, last)\n    while time.monotonic() < last: pass\n'
        exec(code % (name, name), globals())
        globals()['f%d' % name](depth, time.monotonic() + 0.004)
    return names


def threads(count, target):
    for number in range(count):
        threading.Thread(target=target, name='%s %d' % (target.__name__, number)).start()
    return count


def end():
    global is_over
    is_over = True


def load(path):
    global api, held
    held = ctypes.PyDLL(path)
    api = ctypes.CDLL(path)
    api.pyprof_last_error.restype = ctypes.c_char_p


def unload():
    import _ctypes
    for library in held, api:
        _ctypes.dlclose(library._handle)


def said(result):
    return result, api.pyprof_last_error().decode() if result else ''


def encoded(path):
    return os.fsencode(path) if path is not None else None


def listen(path=None):
    return said(api.pyprof_listen(encoded(path)))


def unlisten():
    return said(api.pyprof_unlisten())


def start(interval_us=1000, output_path='', children=0, memory_mib=0):
    return said(api.host_start(interval_us, encoded(output_path), children, memory_mib))


def stop():
    return said(api.pyprof_stop(None))


def fork(inside):
    """Evaluates it in a child; answers what that is."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sink, repr(eval(inside, globals())).encode())
        finally:
            os._exit(0)
    os.close(sink)
    with os.fdopen(source) as file:
        text = file.read()
    return os.waitpid(child, 0)[1], text


def hold(path):
    return held.host_hold(encoded(path))


def descriptors():
    """Without the one by which they are listed."""
    return sorted(fd for fd in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + fd))


def close_all():
    os.closerange(3, 200)


def use_up():
    """All descriptors that there may be."""
    import resource
    global files
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    files = []
    try:
        while True:
            files.append(os.dup(0))
    except OSError:
        return len(files)


def give_back():
    for file in files:
        os.close(file)


def main():
    sys.setrecursionlimit(100000)
    load(os.environ.get('DRIVEN_LIBRARY'))
    print(repr(os.getpid()), flush=True)
    try:
        for line in sys.stdin:
            if line.strip() == 'bye':
                break
            print(repr(eval(line, globals())), flush=True)
    finally:
        end()


if __name__ == '__main__':
    import warnings
    warnings.simplefilter('ignore', DeprecationWarning)  # of forks beside threads, since 3.12
    main()
