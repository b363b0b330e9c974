"""Threads whose names can be known, each in another way, and threads that have none. Prints the names that each way has to
show: its function's name, and the name or, for what is nobody's, an empty one."""

import _thread
import json
import threading

import pyprof_host

enough = 60  # samples
expected = {}


def spend(count=enough):
    end = pyprof_host.samples() + count
    while pyprof_host.samples() < end:
        sum(range(100))


def spend_named(name):
    threading.current_thread().name = name
    spend()


def wait_for(thread):
    thread.start()
    thread.join()


def plain():
    spend()


def renamed():
    spend_named('renamed-writer')


def wrapped():
    spend()


def deep(depth=0):
    if depth < 60:
        return deep(depth + 1)
    spend()


def of_c():
    spend_named('met-in-python')
    done.release()


def of_nobody():
    spend()
    done.release()


def met_only():
    threading.current_thread()
    spend()
    done.release()


def of_greenlet():
    spend()
    done.release()


def of_main():
    spend()


class Greenlets(threading.Thread):
    """As gevent has them: an object of threading that is run in a thread which is not its own."""

    def _bootstrap_inner(self):
        self._ident = 4711
        self.run()


def wrap(function, *arguments, **named):
    def boot(*passed, **by_name):
        return function(*passed, **by_name)
    return start(boot, *arguments, **named)


done = _thread.allocate_lock()
done.acquire()
wait_for(threading.Thread(target=plain, name='plain-writer'))
wait_for(threading.Thread(target=renamed, name='not-this'))
wait_for(threading.Thread(target=deep, name='deep-writer'))

starter = next(name for name in ('_start_joinable_thread', '_start_new_thread') if hasattr(threading, name))
start = getattr(threading, starter)
setattr(threading, starter, wrap)
wait_for(threading.Thread(target=wrapped, name='wrapped-writer'))
setattr(threading, starter, start)

for function in (of_c, of_nobody, met_only):
    _thread.start_new_thread(function, ())
    done.acquire()
greenlet = Greenlets(target=of_greenlet, name='tiny-helper')
_thread.start_new_thread(greenlet._bootstrap, ())
done.acquire()
of_main()

print(json.dumps({'plain': 'plain-writer', 'renamed': 'renamed-writer', 'wrapped': 'wrapped-writer', 'deep': 'deep-writer',
                  'of_c': 'met-in-python', 'of_nobody': '', 'met_only': '', 'of_greenlet': '', 'of_main': 'MainThread'}))
