"""Work that is done where CPython's own chain of frames is short of some: exceptions thrown into generators, coroutines and
tasks, closed ones, and a profile function that is called before the function that it is called for has begun."""

import _thread
import asyncio
import sys
import time

import pyprof_host


def spend():
    end = pyprof_host.samples() + 40
    while pyprof_host.samples() < end:
        sum(range(50))


def of_cancel():
    spend()


def of_throw():
    spend()


def of_close():
    spend()


def of_athrow():
    spend()


def of_aclose():
    spend()


def of_begin():
    spend()


async def inner():
    try:
        await asyncio.sleep(100)
    finally:
        of_cancel()


async def middle():
    await inner()


async def outer():
    await middle()


def inner_generator(leaf):
    try:
        yield
    finally:
        leaf()


def middle_generator(leaf):
    yield from inner_generator(leaf)


def outer_generator(leaf):
    yield from middle_generator(leaf)


async def inner_async(leaf):
    try:
        yield
    finally:
        leaf()




async def cancels():
    task = asyncio.ensure_future(outer())
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    for leaf, end in ((of_athrow, lambda generator: generator.athrow(KeyError)),
                      (of_aclose, lambda generator: generator.aclose())):
        generator = inner_async(leaf)
        await generator.asend(None)
        try:
            await end(generator)
        except KeyError:
            pass


def throws():
    generator = outer_generator(of_throw)
    next(generator)
    try:
        generator.throw(KeyError)
    except KeyError:
        pass


def closes():
    generator = outer_generator(of_close)
    next(generator)
    generator.close()


def begins():
    pass


def profiles(frame, event, argument):
    if event == 'call' and frame.f_code is begins.__code__:
        sys.setprofile(None)
        of_begin()


def at_the_root():
    """Of a thread that begins with it, as with any other callable."""
    spend()
    ended.append(True)
    yield


ended = []
_thread.start_new_thread(next, (at_the_root(),))
while not ended:
    time.sleep(0.01)
asyncio.run(cancels())
throws()
closes()
sys.setprofile(profiles)
begins()
