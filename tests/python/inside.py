"""The module pyprof from within: run in a host that has it built in, and by a python that finds the package. Needs nothing
but Python's standard library, any version from 3.8 on; PYPROF_SOURCE leads to README.md and pyprof.h."""
import asyncio
import collections.abc
import copy
import functools
import inspect
import io
import os
import pickle
import random
import re
import shutil
import signal
import socket
import struct
import sys
import tempfile
import textwrap
import threading
import time
import types
import unittest
import warnings

import pyprof

SOURCE = os.environ["PYPROF_SOURCE"]


def leaf(n):
    return sum(i * i for i in range(n))


def busy():
    for _ in range(20):
        leaf(1000)


def seen(profile, name):
    """How many samples a function is on."""
    return sum(row.samples for row in profile.functions(metric="samples", include_idle=True) if row.name == name)


def read_pprof(data):
    """What a file of pprof's format says. In which order its strings stand depends on which name was met first: of a
    recording "[unsettled]" may be, in a profile from a pickle the program's is."""
    sys.path.insert(0, os.path.join(SOURCE, "tests", "common"))
    try:
        import pprof
    finally:
        del sys.path[0]
    return pprof.read(data)[:-1]  # without the reader


def name_of(function):
    """Code objects have known their qualified names since 3.11."""
    return function.__qualname__ if sys.version_info >= (3, 11) else function.__name__


def run_until_seen(function, name=None, samples=20):
    """Only a function that runs is seen; how long that takes is the machine's affair."""
    while seen(pyprof.snapshot(), name or name_of(function)) < samples:
        for _ in range(5):
            function()


def record_busy(**options):
    with pyprof.Profiler(rate_hz=1000, **options) as profiler:
        run_until_seen(busy)
    return profiler.profile


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="pyprof-module-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.end_recording)

    def end_recording(self):
        if pyprof.is_active():
            pyprof.stop()

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()


class Recording(Case):
    def test_start_and_stop(self):
        self.assertFalse(pyprof.is_active())
        self.assertIsNone(pyprof.start())
        self.assertTrue(pyprof.is_active())
        with self.assertRaisesRegex(RuntimeError, "already|runs") as caught:
            pyprof.start()
        self.assertIs(type(caught.exception), pyprof.AlreadyActiveError)
        self.assertIn("pyprof.stop ends it", str(caught.exception))
        self.assertTrue(pyprof.is_active())
        self.assertIsInstance(pyprof.stop(), pyprof.Profile)
        self.assertFalse(pyprof.is_active())

    def test_not_active(self):
        for call in (pyprof.stop, pyprof.snapshot, pyprof.dump):
            with self.subTest(call=call), self.assertRaises(RuntimeError) as caught:
                call()
            self.assertIn("pyprof.start begins one", str(caught.exception))
        self.assertIsNone(pyprof.stats())

    WRONG = [
        (ValueError, {"interval_ms": 0.049}), (ValueError, {"interval_ms": 10001}), (ValueError, {"interval_ms": 0}),
        (ValueError, {"interval_ms": -1}), (ValueError, {"interval_ms": float("nan")}),
        (ValueError, {"interval_ms": float("inf")}), (TypeError, {"interval_ms": "10"}), (TypeError, {"interval_ms": None}),
        (ValueError, {"interval_ms": 10, "rate_hz": 100}), (ValueError, {"interval_ms": 10.0, "rate_hz": 100}),
        (ValueError, {"rate_hz": 0}), (ValueError, {"rate_hz": -1}), (ValueError, {"rate_hz": 20500}),
        (ValueError, {"rate_hz": 0.09}), (TypeError, {"rate_hz": "fast"}), (ValueError, {"rate_hz": float("nan")}),
        (ValueError, {"memory_limit_mb": 0.9}), (ValueError, {"memory_limit_mb": float("nan")}),
        (ValueError, {"memory_limit_mb": 1e30}), (TypeError, {"memory_limit_mb": "64"}),
        (ValueError, {"max_depth": 15}), (ValueError, {"max_depth": 65537}), (TypeError, {"max_depth": 16.5}),
        (ValueError, {"output_path": ""}), (ValueError, {"output_path": "a\0b"}), (TypeError, {"output_path": 3}),
        (FileNotFoundError, {"output_path": "/no such folder/out.svg"}), (IsADirectoryError, {"output_path": "/tmp"}),
        (NotADirectoryError, {"output_path": "/dev/null/out.svg"}), (TypeError, {"colour": 1}),
    ]

    def test_wrong_options(self):
        for error, options in self.WRONG:
            with self.subTest(options=options), self.assertRaises(error):
                pyprof.start(**options)
            self.assertFalse(pyprof.is_active(), options)

    def test_rate_is_no_position(self):
        with self.assertRaises(TypeError):
            pyprof.start(10, None, 64, 100)

    def test_limits_are_inside(self):
        for options, interval_ms in (({"interval_ms": 0.05}, 0.05), ({"interval_ms": 10000}, 10000),
                                     ({"rate_hz": 20000}, 0.05), ({"rate_hz": 0.1}, 10000), ({}, 10), ({"rate_hz": 300}, 3.333)):
            with self.subTest(options=options):
                pyprof.start(memory_limit_mb=1, max_depth=16, **options)
                self.assertEqual(pyprof.stop().interval_ms, interval_ms)

    def test_quiet_sends_no_signal(self):
        self.assertEqual(record_busy(quiet=True).stats.signals, 0)

    def test_depth(self):
        def deep(n):
            return deep(n - 1) if n else busy()
        with pyprof.Profiler(rate_hz=1000, max_depth=16) as profiler:
            run_until_seen(lambda: deep(50), "busy")
        stacks = [sample.frames for sample in profiler.profile.samples]
        self.assertLessEqual(max(map(len, stacks)), 17)
        self.assertIn(("[truncated]", ""), [frame[:2] for stack in stacks for frame in stack])
        self.assertGreater(profiler.profile.stats.truncated_depth, 0)

    def test_output_path(self):
        for name, begin in (("a.svg", b"<?xml"), ("a.json", b"{"), ("a.pb.gz", b"\x1f\x8b"), ("a.txt", b"thread ")):
            with self.subTest(name=name):
                pyprof.start(rate_hz=1000, output_path=self.path(name))
                run_until_seen(busy, samples=1)
                pyprof.stop()
                self.assertTrue(self.read(name).startswith(begin), self.read(name)[:40])
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.json", "a.pb.gz", "a.svg", "a.txt"])

    def test_output_path_stays_where_it_was_meant(self):
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.mkdir(self.path("100%p"))
        os.chdir(self.path("100%p"))
        pyprof.start(output_path="out-%p.txt")
        os.chdir(here)
        pyprof.stop()
        self.assertEqual(os.listdir(self.path("100%p")), ["out-%d.txt" % os.getpid()])

    def test_output_path_as_people_give_it(self):
        import pathlib
        for number, path in enumerate((pathlib.Path(self.path("p0.txt")), os.fsencode(self.path("p1.txt")),
                                       self.path("p2.txt"))):
            pyprof.start(output_path=path)
            pyprof.stop()
            self.assertTrue(os.path.exists(self.path("p%d.txt" % number)))

    def test_start_leaves_no_file(self):
        pyprof.start(output_path=self.path("out.txt"))
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_recording_that_cannot_be_saved(self):
        os.mkdir(self.path("gone"))
        pyprof.start(rate_hz=1000, output_path=self.path("gone/out.txt"))
        run_until_seen(busy)
        shutil.rmtree(self.path("gone"))
        with self.assertRaisesRegex(OSError, "out.txt") as caught:
            pyprof.stop()
        self.assertEqual(caught.exception.errno, 2)
        self.assertGreater(seen(caught.exception.profile, "busy"), 0)
        self.assertFalse(pyprof.is_active())

    def test_snapshot_goes_on(self):
        pyprof.start(rate_hz=1000)
        run_until_seen(busy)
        first = pyprof.snapshot()
        run_until_seen(busy, samples=seen(first, "busy") + 20)
        last = pyprof.stop()
        self.assertGreater(seen(last, "busy"), seen(first, "busy"))
        self.assertGreater(last.duration, first.duration)
        self.assertEqual(last.start_time, first.start_time)

    def test_stats(self):
        pyprof.start(rate_hz=1000)
        run_until_seen(busy)
        stats = pyprof.stats()
        with open(os.path.join(SOURCE, "pyprof.h"), encoding="utf-8") as file:
            struct_text = re.search(r"typedef struct pyprof_stats \{(.*?)\} pyprof_stats;", file.read(), re.DOTALL).group(1)
        fields = [name for name in re.findall(r"u?int\d+_t (\w+);", struct_text) if name != "reserved"]
        self.assertEqual(list(stats._fields), fields)
        self.assertGreaterEqual(stats.samples, 20)
        self.assertEqual(stats.collected_samples, stats.samples)
        self.assertEqual(stats.dropped_samples, stats.lost_late + stats.lost_pending + stats.lost_unsettled
                         + stats.lost_unreadable + stats.lost_memory)
        self.assertEqual(stats.overhead_percent, 100 * stats.sampler_cpu_ns / stats.duration_ns)
        self.assertGreater(stats.overhead_percent, 0)
        self.assertIs(type(stats.threads), int)
        later = pyprof.stats()
        self.assertGreater(later.duration_ns, stats.duration_ns)
        self.assertLess(later.bytes_peak, 1.5 * later.bytes)  # a snapshot holds as much again
        profile = pyprof.stop()
        self.assertEqual(profile.stats.duration_ns, round(profile.duration * 1e9))
        self.assertGreaterEqual(profile.stats.duration_ns, later.duration_ns)

    def test_dump(self):
        pyprof.start()
        text = pyprof.dump()
        self.assertIn("test_dump (", text)
        self.assertLess(text.index("test_dump ("), text.index("<module>"), "the leaf comes first")
        out = io.StringIO()
        self.assertEqual(pyprof.dump(out), out.getvalue())
        reader, writer = os.pipe()
        text = pyprof.dump(writer)
        os.close(writer)
        with open(reader, encoding="utf-8") as file:
            self.assertEqual(file.read(), text)
        with self.assertRaises(OSError):
            pyprof.dump(writer)
        with self.assertRaises(AttributeError):
            pyprof.dump(object())
        self.assertTrue(pyprof.is_active())

    def test_what_does_nothing(self):
        self.assertIsNone(pyprof.register_thread())
        self.assertIsNone(pyprof.unregister_thread())
        with pyprof.ThreadProfiler():
            pass
        self.assertIs(pyprof.native_unwinding_available(), False)
        self.assertIsNone(pyprof.set_native_unwinding(False))
        with self.assertRaises(RuntimeError):
            pyprof.set_native_unwinding(True)

    def test_listen(self):
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            for given in None, os.path.join(folder, "a.sock"), os.fsencode(os.path.join(folder, "b.sock")):
                path = pyprof.listen(given)
                self.assertEqual(os.fsdecode(given) if given is not None else path, path)
                with socket.socket(socket.AF_UNIX) as peer:
                    peer.connect(path)
                    peer.sendall(b"pyprof 1 status\n")
                    with peer.makefile("rb") as answer:
                        self.assertEqual(b"ok\n", answer.readline())
                        self.assertIn(b'"pid":%d,' % os.getpid(), answer.read())
                with self.assertRaisesRegex(pyprof.AlreadyActiveError, "listens already"):
                    pyprof.listen()
                pyprof.unlisten()
                self.assertFalse(os.path.exists(path))
        with self.assertRaisesRegex(RuntimeError, "does not listen"):
            pyprof.unlisten()
        for wrong, error in (("", ValueError), ("x" * 200, ValueError), ("a\0b", ValueError), (7, TypeError), ("/nowhere/x", OSError)):
            with self.assertRaises(error):
                pyprof.listen(wrong)

    def test_name_interpreter(self):
        for wrong in (3, b"physics"):
            with self.assertRaises(TypeError):
                pyprof.name_interpreter(wrong)
        with self.assertRaises(ValueError):
            pyprof.name_interpreter("a\0b")
        pyprof.name_interpreter("main one")
        pyprof.name_interpreter(None)

    def test_every_name_has_a_text(self):
        for name in pyprof.__all__:
            thing = getattr(pyprof, name)
            self.assertTrue(inspect.getdoc(thing), name)
            for part, value in vars(thing).items() if isinstance(thing, type) else ():
                if not part.startswith("_") and (callable(value) or isinstance(value, property)):
                    self.assertTrue(inspect.getdoc(value), (name, part))
        self.assertIn("recorded", pyprof.__doc__ + pyprof.snapshot.__doc__)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Ways(Case):
    """Profiler, record and top."""

    def test_profiler(self):
        profiler = pyprof.Profiler(interval_ms=1)
        with self.assertRaises(RuntimeError):
            profiler.profile
        with profiler as entered:
            self.assertIs(entered, profiler)
            with self.assertRaises(RuntimeError):
                profiler.profile
            run_until_seen(busy)
        first = profiler.profile
        self.assertGreater(seen(first, "busy"), 0)
        with profiler:
            pass
        self.assertIsNot(profiler.profile, first)
        self.assertEqual(seen(profiler.profile, "busy"), 0)

    def test_profiler_of_a_block_that_raises(self):
        profiler = pyprof.Profiler(interval_ms=1)
        with self.assertRaises(ZeroDivisionError), profiler:
            run_until_seen(busy)
            1 // 0
        self.assertFalse(pyprof.is_active())
        self.assertGreater(seen(profiler.profile, "busy"), 0)

    def test_profiler_in_another_one(self):
        with pyprof.Profiler() as outer:
            with self.assertRaises(RuntimeError):
                with pyprof.Profiler():
                    self.fail("the inner block ran")
            with self.assertRaises(RuntimeError):
                outer.__enter__()
            self.assertTrue(pyprof.is_active())
        self.assertIsInstance(outer.profile, pyprof.Profile)

    def test_profiler_with_wrong_options(self):
        for error, options in Recording.WRONG:
            with self.subTest(options=options), self.assertRaises(error):
                with pyprof.Profiler(**options):
                    self.fail("the block ran")
        self.assertFalse(pyprof.is_active())

    def test_profiler_that_cannot_save(self):
        os.mkdir(self.path("gone"))
        profiler = pyprof.Profiler(output_path=self.path("gone/out.txt"))
        with self.assertRaises(FileNotFoundError), profiler:
            shutil.rmtree(self.path("gone"))
        self.assertIsInstance(profiler.profile, pyprof.Profile)
        os.mkdir(self.path("gone"))
        with self.assertWarnsRegex(RuntimeWarning, "not saved"), self.assertRaises(ZeroDivisionError), profiler:
            shutil.rmtree(self.path("gone"))
            1 // 0

    def test_profiler_that_was_stopped_inside(self):
        with self.assertRaises(RuntimeError):
            with pyprof.Profiler():
                pyprof.stop()

    def test_child_leaves_the_block(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads beside a fork: a child that only leaves needs none
            with pyprof.Profiler() as profiler:
                child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if not pyprof.is_active() else 2
                with self.assertRaises(RuntimeError):
                    profiler.profile
            finally:
                os._exit(code)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertIsInstance(profiler.profile, pyprof.Profile)

    def test_record(self):
        def work(a, *, b):
            run_until_seen(busy)
            return a, b
        result, profile = pyprof.record(work, 1, b=2, rate_hz=1000, output_path=self.path("out.txt"))
        self.assertEqual(result, (1, 2))
        self.assertGreater(seen(profile, "busy"), 0)
        self.assertIn(b"busy", self.read("out.txt"))
        self.assertEqual(profile.interval_ms, 1)

    def test_record_what_raises(self):
        with self.assertRaises(ZeroDivisionError):
            pyprof.record(lambda: 1 // 0)
        self.assertFalse(pyprof.is_active())

    def test_record_what_cannot_be(self):
        async def coroutine():
            pass

        def generator():
            yield
        for wrong in (3, None, coroutine, generator):
            with self.subTest(wrong=wrong), self.assertRaises(TypeError):
                pyprof.record(wrong)
        with self.assertRaises(ValueError):
            pyprof.record(busy, rate_hz=0)
        pyprof.start()
        with self.assertRaises(RuntimeError):
            pyprof.record(lambda: self.fail("it was called"))

    def in_thread(self, function):
        thread = threading.Thread(target=function)
        thread.start()
        self.addCleanup(thread.join)

    def test_top(self):
        stopped = threading.Event()

        def work_on():
            while not stopped.is_set():
                busy()
        self.in_thread(work_on)
        self.addCleanup(stopped.set)
        out = io.StringIO()
        while "busy" not in out.getvalue():
            out.seek(0)
            out.truncate()
            self.assertIsNone(pyprof.top(duration=0.1, rate_hz=1000, limit=3, file=out))
        self.assertEqual(out.getvalue().count("self s"), 1)
        self.assertNotIn("\x1b", out.getvalue())
        self.assertFalse(pyprof.is_active())

    def test_top_of_what_cannot_be(self):
        for error, what, options in ((ValueError, "limit", {"limit": -1}), (TypeError, "limit", {"limit": "3"}),
                                     (ValueError, "duration", {"duration": -1}), (TypeError, "duration", {"duration": "3"}),
                                     (ValueError, "duration", {"duration": float("nan")}), (ValueError, "0 ms", {"rate_hz": 0})):
            out = io.StringIO()
            with self.subTest(**options), self.assertRaisesRegex(error, what):
                pyprof.top(file=out, **options)
            self.assertEqual((out.getvalue(), pyprof.is_active()), ("", False))

    def test_top_on_a_terminal(self):
        out = Terminal()
        pyprof.top(duration=0.05, file=out)
        self.assertEqual(out.getvalue().count("\x1b[H\x1b[J"), 2, "once as it ran, once at the end")

    def test_top_is_interrupted(self):
        import _thread

        def interrupt():
            while not pyprof.is_active():
                time.sleep(0.001)
            _thread.interrupt_main()
        # A shell starts what it does not wait for with SIGINT ignored.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        self.in_thread(interrupt)
        out = io.StringIO()
        pyprof.top(duration=1000, file=out)
        self.assertIn("self s", out.getvalue())
        self.assertFalse(pyprof.is_active())

    def test_top_beside_a_recording(self):
        pyprof.start()
        with self.assertRaises(RuntimeError):
            pyprof.top(duration=0.01, file=io.StringIO())
        self.assertTrue(pyprof.is_active())
        pyprof.stop()
        with self.assertRaises(TypeError):
            pyprof.top(duration="long")
        with self.assertRaises(ValueError):
            pyprof.top(rate_hz=0)


class Decorated(Case):
    def test_function(self):
        @pyprof.profile(rate_hz=1000, output_path=self.path("out.txt"))
        def work(a, b=2):
            """What it does."""
            self.assertTrue(pyprof.is_active())
            run_until_seen(busy)
            return a + b
        self.assertEqual(work(1), 3)
        self.assertFalse(pyprof.is_active())
        self.assertIn(b"busy", self.read("out.txt"))
        self.assertGreater(seen(work.last_profile, "busy"), 0)
        self.assertEqual((work.__name__, work.__doc__, str(inspect.signature(work))), ("work", "What it does.", "(a, b=2)"))

    def test_with_and_without_call(self):
        for decorator in (pyprof.profile, pyprof.profile(), pyprof.profile(print_stats=False)):
            self.assertEqual(decorator(lambda: pyprof.is_active())(), True)

    def test_what_raises(self):
        @pyprof.profile
        def fail():
            raise KeyError("its own")
        with self.assertRaisesRegex(KeyError, "its own"):
            fail()
        self.assertFalse(pyprof.is_active())
        self.assertIsInstance(fail.last_profile, pyprof.Profile)

    def test_what_cannot_be_decorated(self):
        for wrong in (3, "text", property(lambda self: 1)):
            with self.subTest(wrong=wrong), self.assertRaises(TypeError):
                pyprof.profile(wrong)
        with self.assertRaises(TypeError):
            pyprof.profile(rate_hz=10)(3)

    def test_wrong_options(self):
        for error, options in Recording.WRONG:
            with self.subTest(options=options), self.assertRaises(error):
                pyprof.profile(**options)(lambda: self.fail("it was called"))()

    def test_recursion(self):
        """The outermost call records: there is one profile, when that ends."""
        profiles = []

        @pyprof.profile
        def down(n):
            self.assertTrue(pyprof.is_active())
            if n:
                down(n - 1)
            profiles.append(down.last_profile)
        down(5)
        self.assertEqual(profiles, [None] * 6)
        self.assertIsInstance(down.last_profile, pyprof.Profile)

    def test_threads(self):
        entered, leave = threading.Event(), threading.Event()

        @pyprof.profile
        def outer():
            entered.set()
            leave.wait()

        @pyprof.profile
        def inner():
            return pyprof.is_active()
        thread = threading.Thread(target=outer)
        thread.start()
        entered.wait()
        self.assertTrue(inner())
        self.assertTrue(pyprof.is_active(), "it did not end another one's recording")
        self.assertIsNone(inner.last_profile)
        leave.set()
        thread.join()
        self.assertIsInstance(outer.last_profile, pyprof.Profile)

    def test_inside_of_another_recording(self):
        decorated = pyprof.profile(output_path=self.path("out.txt"))(lambda: 7)
        pyprof.start()
        self.assertEqual(decorated(), 7)
        self.assertTrue(pyprof.is_active())
        self.assertEqual(os.listdir(self.folder), [])

    def test_methods(self):
        class Thing:
            @pyprof.profile
            def method(self, more=1):
                return self, more, pyprof.is_active()

            @staticmethod
            @pyprof.profile
            def static_outside(x):
                return x, pyprof.is_active()

            @pyprof.profile
            @staticmethod
            def static_inside(x):
                return x, pyprof.is_active()

            @classmethod
            @pyprof.profile
            def class_outside(cls, x):
                return cls, x, pyprof.is_active()

            @pyprof.profile()
            @classmethod
            def class_inside(cls, x):
                return cls, x, pyprof.is_active()
        thing = Thing()
        self.assertEqual(thing.method(2), (thing, 2, True))
        for target in (thing, Thing):
            self.assertEqual(target.static_outside(3), (3, True))
            self.assertEqual(target.static_inside(3), (3, True))
            self.assertEqual(target.class_outside(3), (Thing, 3, True))
            self.assertEqual(target.class_inside(3), (Thing, 3, True))
        self.assertEqual(str(inspect.signature(thing.method)), "(more=1)")

    def test_other_callables(self):
        class Called:
            def __call__(self, x):
                return x, pyprof.is_active()
        self.assertEqual(pyprof.profile(Called())(4), (4, True))
        self.assertEqual(pyprof.profile(functools.partial(Called(), 4))(), (4, True))
        self.assertEqual(pyprof.profile(len)([1, 2]), 2)
        self.assertIsInstance(pyprof.profile(Called)(), Called)

    def test_print_stats(self):
        out, stdout = io.StringIO(), sys.stdout
        sys.stdout = out
        try:
            pyprof.profile(print_stats=True, rate_hz=1000)(run_until_seen)(busy)
        finally:
            sys.stdout = stdout
        self.assertIn("busy", out.getvalue())

    def test_coroutine(self):
        steps = []

        @pyprof.profile
        async def work(a):
            """Awaits."""
            for _ in range(3):
                steps.append(pyprof.is_active())
                await asyncio.sleep(0)
            return a

        async def main():
            coroutine = work(5)
            self.assertFalse(pyprof.is_active(), "a call alone runs nothing")
            result = await coroutine
            self.assertFalse(pyprof.is_active())
            return result
        self.assertEqual(asyncio.run(main()), 5)
        self.assertEqual(steps, [True] * 3)
        self.assertTrue(inspect.iscoroutinefunction(work))
        self.assertEqual((work.__name__, work.__doc__, str(inspect.signature(work))), ("work", "Awaits.", "(a)"))

    def test_coroutines_at_once(self):
        """The first one records, until it ends; the others run plainly."""
        @pyprof.profile
        async def work(turns):
            for _ in range(turns):
                await asyncio.sleep(0)
            return pyprof.is_active()

        async def main():
            return await asyncio.gather(work(5), work(2), work(3))
        self.assertEqual(asyncio.run(main()), [True] * 3)
        self.assertFalse(pyprof.is_active())

    def test_coroutine_is_cancelled(self):
        seen_inside = []

        @pyprof.profile
        async def work():
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                seen_inside.append(pyprof.is_active())
                raise

        async def main():
            task = asyncio.ensure_future(work())
            await asyncio.sleep(0)
            self.assertTrue(pyprof.is_active())
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertFalse(pyprof.is_active())
        asyncio.run(main())
        self.assertEqual(seen_inside, [True])
        self.assertIsInstance(work.last_profile, pyprof.Profile)

    def test_coroutine_raises(self):
        @pyprof.profile
        async def work():
            await asyncio.sleep(0)
            raise KeyError("its own")
        with self.assertRaisesRegex(KeyError, "its own"):
            asyncio.run(work())
        self.assertFalse(pyprof.is_active())

    def test_awaited_generator(self):
        @pyprof.profile
        @types.coroutine
        def work():
            yield from asyncio.sleep(0).__await__()
            return pyprof.is_active()

        async def main():
            return await work()
        self.assertTrue(asyncio.run(main()))
        self.assertFalse(pyprof.is_active())

    def test_object_with_a_coroutine(self):
        class Called:
            async def __call__(self):
                await asyncio.sleep(0)
                return pyprof.is_active()
        self.assertTrue(asyncio.run(pyprof.profile(Called())()))

    def test_generator(self):
        @pyprof.profile
        def count(n):
            """Counts."""
            sent = []
            for i in range(n):
                try:
                    sent.append((yield i))
                except KeyError as error:
                    sent.append(error)
            return sent
        generator = count(3)
        self.assertFalse(pyprof.is_active())
        self.assertEqual(next(generator), 0)
        self.assertTrue(pyprof.is_active())
        self.assertEqual(generator.send("a"), 1)
        thrown = KeyError("b")
        self.assertEqual(generator.throw(thrown), 2)
        with self.assertRaises(StopIteration) as caught:
            generator.send("c")
        self.assertEqual(caught.exception.value, ["a", thrown, "c"])
        self.assertFalse(pyprof.is_active())
        self.assertTrue(inspect.isgeneratorfunction(count))
        self.assertEqual(list(count(4)), [0, 1, 2, 3])

    def test_generator_is_closed(self):
        closed = []

        @pyprof.profile
        def count():
            try:
                yield 1
                yield 2
            finally:
                closed.append(pyprof.is_active())
        generator = count()
        next(generator)
        generator.close()
        self.assertEqual(closed, [True])
        self.assertFalse(pyprof.is_active())

    def test_async_generator(self):
        log = []

        @pyprof.profile
        async def count(n):
            """Counts."""
            try:
                for i in range(n):
                    try:
                        log.append((yield i))
                    except KeyError as error:
                        log.append(error)
                    await asyncio.sleep(0)
            finally:
                log.append(pyprof.is_active())

        async def main():
            generator = count(3)
            self.assertFalse(pyprof.is_active())
            self.assertEqual(await generator.__anext__(), 0)
            self.assertTrue(pyprof.is_active())
            self.assertEqual(await generator.asend("a"), 1)
            thrown = KeyError("b")
            self.assertEqual(await generator.athrow(thrown), 2)
            with self.assertRaises(StopAsyncIteration):
                await generator.asend("c")
            self.assertEqual(log, ["a", thrown, "c", True])
            self.assertFalse(pyprof.is_active())
            self.assertEqual([i async for i in count(4)], [0, 1, 2, 3])
        asyncio.run(main())
        self.assertTrue(inspect.isasyncgenfunction(count))
        self.assertEqual((count.__name__, count.__doc__), ("count", "Counts."))

    def test_async_generator_is_closed(self):
        closed = []

        @pyprof.profile
        async def count():
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                closed.append(pyprof.is_active())

        @pyprof.profile
        async def fail():
            yield 1
            raise KeyError("its own")

        async def main():
            generator = count()
            await generator.__anext__()
            await generator.aclose()
            self.assertEqual(closed, [True])
            self.assertFalse(pyprof.is_active())
            generator = fail()
            await generator.__anext__()
            with self.assertRaisesRegex(KeyError, "its own"):
                await generator.__anext__()
            self.assertFalse(pyprof.is_active())
            generator = fail()
            await generator.__anext__()
            with self.assertRaises(ValueError):
                await generator.athrow(ValueError("from outside"))
            self.assertFalse(pyprof.is_active())
        asyncio.run(main())


class Profiles(Case):
    @classmethod
    def setUpClass(cls):
        cls.ids = {}

        def worker(number):
            cls.ids["worker-%d" % number] = threading.get_native_id()
            done.wait()
            busy()
        done = threading.Event()
        with pyprof.Profiler(rate_hz=1000) as profiler:
            threads = [threading.Thread(target=worker, args=(i,), name="worker-%d" % i) for i in range(3)]
            for thread in threads:
                thread.start()
            run_until_seen(busy)
            while seen(pyprof.snapshot(), name_of(worker)) < 10:
                busy()
            done.set()
            for thread in threads:
                thread.join()
        cls.profile = profiler.profile

    def test_facts(self):
        profile = self.profile
        self.assertEqual(profile.python_version, sys.version.split()[0])
        self.assertIn(os.uname().machine, profile.platform)
        self.assertEqual(profile.interval_ms, 1)
        self.assertEqual(profile.dropped_count, profile.stats.dropped_samples)
        self.assertEqual(profile.start_time.utcoffset().total_seconds(), 0)
        self.assertAlmostEqual((profile.end_time - profile.start_time).total_seconds(), profile.duration, places=5)
        self.assertLess(abs(profile.start_time.timestamp() - time.time()), 3600)
        self.assertIn("samples", repr(profile))

    def test_cannot_be_changed(self):
        for change in (lambda: setattr(self.profile, "duration", 1), lambda: setattr(self.profile, "new", 1),
                       lambda: delattr(self.profile, "_data"), lambda: setattr(self.profile, "_data", 1)):
            with self.assertRaises(AttributeError):
                change()
        with self.assertRaises(TypeError):
            pyprof.Profile()
        with self.assertRaises(TypeError):
            type(self.profile._data)()
        self.assertIs(copy.copy(self.profile), self.profile)
        self.assertIs(copy.deepcopy(self.profile), self.profile)

    def test_samples_are_a_sequence(self):
        samples = self.profile.samples
        self.assertIsInstance(samples, collections.abc.Sequence)
        self.assertNotIsInstance(samples, (list, tuple))
        whole = list(samples)
        self.assertEqual(len(whole), len(samples))
        self.assertGreater(len(whole), 10)
        self.assertEqual((samples[0], samples[-1]), (whole[0], whole[-1]))
        self.assertEqual(list(samples[2:9:3]), whole[2:9:3])
        self.assertEqual(list(samples[::-1][1:4]), whole[::-1][1:4])
        self.assertEqual(list(reversed(samples)), whole[::-1])
        self.assertIn(whole[3], samples)
        self.assertEqual(samples.index(whole[3]), whole.index(whole[3]))
        for wrong in (len(samples), -len(samples) - 1):
            with self.assertRaises(IndexError):
                samples[wrong]
        with self.assertRaises(TypeError):
            samples["first"]
        self.assertNotIn("_samples", repr(vars(type(self.profile))["__slots__"]), "nothing keeps them")

    def test_samples(self):
        names = {sample.thread_name for sample in self.profile.samples}
        self.assertLessEqual({"MainThread", "worker-0", "worker-1", "worker-2"}, names)
        for sample in self.profile.samples:
            self.assertEqual(sample.interpreter, 0)
            self.assertTrue(sample.frames)
            if sample.thread_name in self.ids:
                self.assertEqual(sample.thread_id, self.ids[sample.thread_name])
                self.assertEqual(sample.frames[0].filename, threading.__file__)
        mine = [s for s in self.profile.samples if s.frames[-1].function_name.startswith(("leaf", "busy"))]
        self.assertTrue(mine)
        for sample in mine:
            self.assertIn("busy", [frame.function_name for frame in sample.frames[-3:]])
            self.assertEqual(sample.frames[-1].filename, leaf.__code__.co_filename)
            self.assertGreaterEqual(sample.frames[-1].lineno, leaf.__code__.co_firstlineno)
            self.assertIs(sample.frames[-1].is_native, False)

    def test_samples_are_in_the_order_of_time(self):
        end = {}
        for sample in self.profile.samples:
            self.assertGreaterEqual(sample.timestamp_ns, end.get(sample.thread_id, 0))
            end[sample.thread_id] = sample.timestamp_ns + sample.duration_ns

    def test_samples_add_up(self):
        """To the profile's wall time, of threads and of functions, to the nanosecond; and to all samples."""
        self.assertEqual(self.profile.stats.timeline_coarsened, 0)
        threads, functions, samples = {}, {}, 0
        for sample in self.profile.samples:
            key = sample.thread_name, sample.thread_id
            threads[key] = threads.get(key, 0) + sample.duration_ns
            frame = sample.frames[-1]
            key = frame.function_name, frame.filename
            functions[key] = functions.get(key, 0) + sample.duration_ns
            samples += sample.sample_count
        self.assertEqual(samples, self.profile.stats.samples)
        self.assertEqual({(t.name, t.thread_id): round((t.wall + t.waiting) * 1e9) for t in self.profile.threads}, threads)
        rows = {}
        for row in self.profile.functions(include_idle=True):
            rows[row.name, row.filename] = rows.get((row.name, row.filename), 0) + round(row.self * 1e9)
        self.assertEqual({key: value for key, value in rows.items() if value},
                         {key: value for key, value in functions.items() if value})

    def test_functions_are_what_the_file_says(self):
        """Of a collapsed file, which another part of pyprof.h writes, in microseconds."""
        own, total = {}, {}
        for line in self.profile.to_collapsed().splitlines():
            stack, _, value = line.rpartition(" ")
            frames = [re.sub(r" \(.*", "", frame) for frame in stack.split(";")[1:]]
            own[frames[-1]] = own.get(frames[-1], 0) + int(value)
            for name in set(frames):
                total[name] = total.get(name, 0) + int(value)
        rows = {row.name: row for row in self.profile.functions()}
        self.assertLessEqual({"busy", "leaf"}, set(rows))
        for name in ("busy", "leaf"):
            lines = len(self.profile.to_collapsed().splitlines())
            self.assertAlmostEqual(rows[name].self * 1e6, own.get(name, 0), delta=lines)
            self.assertAlmostEqual(rows[name].total * 1e6, total[name], delta=lines)
        whole = sum(row.self for row in self.profile.functions())
        for row in rows.values():
            self.assertAlmostEqual(row.self_percent, 100 * row.self / whole, places=1)

    def test_rows(self):
        for rows in (self.profile.functions(), self.profile.lines(metric="cpu"), self.profile.functions("gil", True)):
            self.assertEqual([row.self for row in rows], sorted((row.self for row in rows), reverse=True))
        samples = self.profile.functions(metric="samples", include_idle=True)
        self.assertEqual(sum(row.self for row in samples), self.profile.stats.samples)
        lines = {row.lineno for row in self.profile.lines() if row.name == "busy"}
        self.assertLessEqual(lines, set(range(busy.__code__.co_firstlineno, busy.__code__.co_firstlineno + 3)))
        for call in (self.profile.functions, self.profile.lines):
            with self.assertRaises(ValueError):
                call(metric="heat")
            with self.assertRaises(ValueError):
                call(metric=None)

    def test_print_stats(self):
        out = io.StringIO()
        self.profile.print_stats(limit=2, file=out)
        rows = self.profile.functions()
        self.assertIn(rows[0].name, out.getvalue())
        self.assertIn("and %d more" % (len(rows) - 2), out.getvalue())
        orders = {}
        for sort in ("self", "total", "samples", "name"):
            out = io.StringIO()
            self.profile.print_stats(limit=None, sort=sort, file=out)
            self.assertNotIn("more", out.getvalue())
            orders[sort] = out.getvalue().splitlines()[3:]
        self.assertEqual(sorted(orders["total"]), sorted(orders["name"]))
        self.assertNotEqual(orders["total"], orders["name"])
        with self.assertRaises(ValueError):
            self.profile.print_stats(sort="heat")
        for error, limit in ((ValueError, -1), (TypeError, 1.5), (TypeError, "3")):
            with self.subTest(limit=limit), self.assertRaisesRegex(error, "limit"):
                self.profile.print_stats(limit=limit)

    def test_threads(self):
        threads = {thread.name: thread for thread in self.profile.threads}
        self.assertEqual(threads["worker-1"].thread_id, self.ids["worker-1"])
        self.assertEqual(sum(thread.samples for thread in self.profile.threads), self.profile.stats.samples)
        self.assertGreater(threads["worker-1"].waiting, threads["worker-1"].cpu)

    def test_filter(self):
        only = self.profile.filter(thread="worker-1")
        self.assertEqual({sample.thread_name for sample in only.samples}, {"worker-1"})
        self.assertEqual([s for s in only.samples], [s for s in self.profile.samples if s.thread_name == "worker-1"])
        self.assertEqual(only.duration, self.profile.duration)
        only = self.profile.filter(function="busy", file=__file__)
        self.assertTrue(len(only.samples))
        self.assertEqual(sum(s.sample_count for s in only.samples),
                         sum(s.sample_count for s in self.profile.samples if "busy" in [f.function_name for f in s.frames]))
        self.assertEqual(len(self.profile.filter(interpreter=0).samples), len(self.profile.samples))
        self.assertEqual(len(self.profile.filter(interpreter="main").samples), len(self.profile.samples))
        for nothing in (self.profile.filter(thread="nobody"), self.profile.filter(interpreter=7)):
            self.assertEqual((len(nothing.samples), nothing.functions(), nothing.threads), (0, [], ()))
            self.assertEqual(nothing.to_collapsed(), "")
            nothing.print_stats(file=io.StringIO())
        for wrong in ({"thread": 3}, {"function": b"busy"}, {"interpreter": 1.5}, {"file": 3}, {"colour": "red"}):
            with self.subTest(wrong=wrong), self.assertRaises(TypeError):
                self.profile.filter(**wrong)
        with self.assertRaises(ValueError):
            self.profile.filter(thread="a\0b")

    def test_save(self):
        begins = {"a.svg": b"<?xml", "a.speedscope.json": b"{", "a.pb.gz": b"\x1f\x8b", "a.pb": b"\x0a", "a.txt": b"thread "}
        for name, begin in begins.items():
            self.profile.save(self.path(name))
            self.assertTrue(self.read(name).startswith(begin), (name, self.read(name)[:20]))
        self.profile.save(self.path("table"), format="table", metric="cpu", include_idle=True)
        self.assertIn(b"functions by CPU time", self.read("table"))
        self.profile.save(os.fsencode(self.path("bytes.txt")), "collapsed", thread="worker-1", include_idle=True,
                          detail="function", only_mine=True, min_share=0.01)
        self.assertTrue(all(line.startswith(b"thread worker-1") for line in self.read("bytes.txt").splitlines()))
        self.profile.save(self.path("merged.txt"), merge_threads=True)
        self.assertNotIn(b"thread ", self.read("merged.txt"))

    def test_save_for_others(self):
        """The formats of exports.h: the package has them, a host only if it includes that."""
        if not pyprof._engine.format_of(b"a.pstats", None):
            with self.assertRaises(ValueError):
                self.profile.save(self.path("a"), "pstats")
            return
        import pstats
        self.profile.save(self.path("a.pstats"))
        self.assertIn("busy", {name for _, _, name in pstats.Stats(self.path("a.pstats")).stats})
        self.profile.save(self.path("a.jsonl"), thread="worker-1", include_idle=True)
        self.assertEqual(self.read("a.jsonl").count(b'"type":"thread"'), 1)
        for name in ("firefox", "perfetto"):
            self.profile.save(self.path("a"), name)
            self.assertIn(b"busy", self.read("a"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["a", "a.jsonl", "a.pstats"])
        for error, path in ((FileNotFoundError, "/no such folder/a.pstats"), (IsADirectoryError, self.folder)):
            with self.assertRaises(error):
                self.profile.save(path, "pstats")
        with self.assertRaises(ValueError):
            self.profile.save(self.path("x"), "pstats", metric="samples")
        with self.assertRaises(ValueError):
            pyprof.start(output_path=self.path("a.pstats"))

    def test_others_run_while_it_is_saved(self):
        """Into a pipe that another thread reads: it could not, if this one kept the GIL."""
        os.mkfifo(self.path("pipe"))
        texts = []
        reader = threading.Thread(target=lambda: texts.append(self.read("pipe")))
        reader.start()
        self.profile.save(self.path("pipe"), "collapsed")
        reader.join()
        self.assertEqual(texts[0].decode(), self.profile.to_collapsed())

    def test_save_fails(self):
        for error, arguments in ((FileNotFoundError, ("/no such folder/a.txt",)), (IsADirectoryError, (self.folder,)),
                                 (ValueError, ("",)), (ValueError, ("a\0b",)), (TypeError, (3,)), (TypeError, ()),
                                 (ValueError, (self.path("x"), "docx")), (TypeError, (self.path("x"), ["svg"]))):
            with self.subTest(arguments=arguments), self.assertRaises(error) as caught:
                self.profile.save(*arguments)
            if error is FileNotFoundError:
                self.assertEqual(caught.exception.filename, "/no such folder/a.txt")
        for name in ("svg", "pprof") + (("pstats", "firefox", "perfetto", "jsonl") if hasattr(pyprof, "__path__") else ()):
            with self.subTest(name=name), self.assertRaisesRegex(ValueError, "one of .*%s" % name):
                self.profile.save(self.path("x"), "docx")
        for error, filters in ((ValueError, {"metric": "heat"}), (ValueError, {"detail": "word"}),
                               (ValueError, {"min_share": 2.0}), (TypeError, {"min_share": "much"}),
                               (TypeError, {"colour": "red"}), (TypeError, {"thread": 3})):
            with self.subTest(filters=filters), self.assertRaises(error):
                self.profile.save(self.path("x"), **filters)
        for filters, said in (({"thread": "nobody"}, "thread='nobody': no stack is of it, among those of .*'worker-1'"),
                              ({"interpreter": 7, "function": "busy"}, "interpreter=7: .*'MainThread'"),
                              ({"thread": "worker-1", "function": "nowhere"}, "function='nowhere': .* those of 'worker-1'$")):
            with self.subTest(filters=filters), self.assertRaisesRegex(ValueError, said):
                self.profile.save(self.path("x"), **filters)
        self.assertEqual(os.listdir(self.folder), [])

    def test_texts(self):
        self.assertEqual(self.profile.to_speedscope()["$schema"], "https://www.speedscope.app/file-format-schema.json")
        self.assertRegex(self.profile.to_collapsed(), r"(?m)^thread MainThread;.*busy \(.*:\d+\).* \d+$")
        self.profile.save(self.path("a.pb.gz"))
        self.assertEqual(self.profile.to_pprof(), self.read("a.pb.gz"))

    def test_pickle(self):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(self.profile, protocol))
            self.assertEqual(read_pprof(again.to_pprof()), read_pprof(self.profile.to_pprof()))
            self.assertEqual(pickle.loads(pickle.dumps(again, protocol)).to_pprof(), again.to_pprof())
            self.assertEqual(again.to_collapsed(), self.profile.to_collapsed())
        self.assertEqual(again.to_speedscope(), self.profile.to_speedscope())
        self.assertEqual(list(again.samples), list(self.profile.samples))
        self.assertEqual((again.stats, again.platform, again.start_time, again.duration, again.python_version),
                         (self.profile.stats, self.profile.platform, self.profile.start_time, self.profile.duration,
                          self.profile.python_version))
        self.assertEqual(pickle.dumps(again), pickle.dumps(self.profile))
        self.assertEqual(pickle.loads(pickle.dumps(self.profile.samples[3])), self.profile.samples[3])
        self.assertEqual(list(pickle.loads(pickle.dumps(self.profile.samples[3:5]))), list(self.profile.samples[3:5]))

    def test_written_by_several_threads(self):
        texts = []
        threads = [threading.Thread(target=lambda: texts.append((self.profile.to_pprof(), len(list(self.profile.samples)))))
                   for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(set(texts), {(self.profile.to_pprof(), len(self.profile.samples))})


class Pickles(Case):
    """What anybody may have made of bytes raises, and is no crash."""

    @classmethod
    def setUpClass(cls):
        function, (cls.data, cls.platform) = record_busy().__reduce__()
        cls.function = staticmethod(function)

    def restore(self, data):
        """Whether it was taken: then it can be used."""
        try:
            profile = self.function(bytes(data), self.platform)
        except (ValueError, MemoryError) as error:
            self.assertRegex(str(error), "not a whole profile: .")
            return False
        profile.to_collapsed()
        profile.to_pprof()
        profile.functions()
        profile.threads
        list(profile.samples[:50])
        repr(profile.filter(thread="MainThread"))
        return True

    def test_whole(self):
        self.assertTrue(self.restore(self.data))

    def test_other_things(self):
        for wrong in ((b"", ""), (b"pyprof", ""), (None, ""), (self.data, None), ("text", "")):
            with self.assertRaises(ValueError):
                self.function(*wrong)

    def test_cut(self):
        for size in list(range(0, 400)) + list(range(400, len(self.data), 997)) + [len(self.data) - 1]:
            self.assertFalse(self.restore(self.data[:size]))
        self.assertFalse(self.restore(self.data + b"\0"))

    def test_counts_beyond_all_size(self):
        for place in (8, 16, 24, 80):
            for count in (2 ** 63, 2 ** 64 - 1, 2 ** 64 // 88 + 1, 2 ** 32):
                data = bytearray(self.data)
                struct.pack_into("<Q", data, place, count)
                self.assertFalse(self.restore(data), (place, count))

    def test_changed(self):
        seed = int(os.environ.get("PYPROF_SEED", "1"))
        chance = random.Random(seed)
        taken = 0
        for turn in range(1500):
            data = bytearray(self.data)
            for _ in range(chance.choice((1, 1, 3, 20))):
                data[chance.randrange(len(data))] = chance.choice((0, 1, 255, chance.randrange(256)))
            with self.subTest(seed=seed, turn=turn):
                taken += self.restore(data)
        self.assertGreater(1500, taken, "some must be refused")

    def test_nodes_that_do_not_fit(self):
        head = struct.calcsize("<8sQQQQQIIIIIIIIQ")
        figures = struct.unpack_from("<Q", self.data, 80)[0]
        first = head + 8 * figures
        for what, offset, value in (("its own caller", 0, 0), ("a text outside", 4, 2 ** 32 - 1), ("a text too long", 8, 2 ** 32 - 1)):
            data = bytearray(self.data)
            struct.pack_into("<I", data, first + offset, value)
            with self.subTest(what=what):
                self.assertFalse(self.restore(data))

    def test_names_that_are_no_text(self):
        code = leaf.__code__.replace(co_name="odd\udc80\ud800")
        if sys.version_info >= (3, 11):
            code = code.replace(co_qualname="odd\udc80\ud800")
        odd = types.FunctionType(code, globals())
        with pyprof.Profiler(rate_hz=1000) as profiler:
            while not any(row.name == "odd\udc80\ud800" for row in pyprof.snapshot().functions()):
                odd(20000)
        again = pickle.loads(pickle.dumps(profiler.profile))
        self.assertTrue(any(f.function_name == "odd\udc80\ud800" for s in again.samples for f in s.frames))
        self.assertEqual(again.to_collapsed(), profiler.profile.to_collapsed())
        out = io.StringIO()
        again.print_stats(file=out)
        self.assertIn("odd\\udc80\\ud800", out.getvalue())


class Differences(Case):
    def test_what_ran_between(self):
        def before():
            busy()

        def between():
            busy()

        def after():
            busy()
        names = [name_of(function) for function in (before, between, after)]
        pyprof.start(rate_hz=1000)
        run_until_seen(before)
        first = pyprof.snapshot()
        run_until_seen(between)
        second = pyprof.snapshot()
        run_until_seen(after)
        last = pyprof.stop()
        part = second - first
        # A snapshot does not wait for an answer that is under way: that sample is in the next one.
        self.assertLessEqual(seen(part, names[0]), 1)
        self.assertEqual([seen(part, name) for name in names[1:]], [seen(second, names[1]), 0])
        self.assertEqual(part.stats.samples, second.stats.samples - first.stats.samples)
        self.assertEqual(sum(t.samples for t in part.threads), part.stats.samples)
        self.assertEqual(sum(s.sample_count for s in part.samples), part.stats.samples)
        self.assertAlmostEqual(part.duration, second.duration - first.duration, places=9)
        self.assertAlmostEqual((part.start_time - first.end_time).total_seconds(), 0, places=5)
        self.assertTrue(all(s.timestamp_ns + s.duration_ns <= part.duration * 1e9 + 1 for s in part.samples))
        rest = last - second
        self.assertEqual(seen(rest, names[0]), 0)
        self.assertLessEqual(seen(rest, names[1]), 1)
        self.assertGreaterEqual(seen(rest, names[2]), 20)
        self.assertEqual(seen(last - first, names[1]), seen(last, names[1]))
        part.to_pprof()
        pickle.loads(pickle.dumps(part)).print_stats(file=io.StringIO())

    def test_nothing_between(self):
        pyprof.start(rate_hz=1000)
        run_until_seen(busy)
        one = pyprof.snapshot()
        nothing = one - one
        self.assertEqual((nothing.duration, nothing.functions(), len(nothing.samples), nothing.stats.samples), (0, [], 0, 0))

    def test_threads_that_came(self):
        pyprof.start(rate_hz=1000)
        run_until_seen(busy)
        first = pyprof.snapshot()

        def work():
            while not done.is_set():
                busy()
        done = threading.Event()
        threads = [threading.Thread(target=work, name="same") for _ in range(2)]
        for thread in threads:
            thread.start()
        while seen(pyprof.snapshot(), name_of(work)) < 20:
            time.sleep(0.01)
        done.set()
        for thread in threads:
            thread.join()
        last = pyprof.stop()
        part = last - first
        self.assertEqual([t for t in part.threads if t.name == "same"], [t for t in last.threads if t.name == "same"])

    def test_what_is_no_earlier_snapshot(self):
        other = record_busy()
        pyprof.start(rate_hz=1000)
        run_until_seen(busy)
        first = pyprof.snapshot()
        run_until_seen(leaf.__globals__["busy"], samples=seen(first, "busy") + 5)
        last = pyprof.stop()
        for pair in ((last, other), (first, last), (other, first)):
            with self.assertRaises(ValueError):
                pair[0] - pair[1]
        for wrong in (3, None, "profile"):
            with self.assertRaises(TypeError):
                last - wrong
            with self.assertRaises(TypeError):
                wrong - last


class Interpreters(Case):
    """Those with a GIL of their own see the one recording, too."""

    def create(self):
        for name in ("_interpreters", "_xxsubinterpreters"):
            try:
                interpreters = __import__(name)
            except ImportError:
                continue
            return interpreters, interpreters.create()
        self.skipTest("this Python has no module for interpreters")

    def run_in(self, interpreters, one, text):
        failed = interpreters.run_string(one, textwrap.dedent(text))
        if failed is not None:
            self.fail(getattr(failed, "formatted", failed))

    def test_import(self):
        interpreters, one = self.create()
        self.addCleanup(interpreters.destroy, one)
        path = self.path("inside")
        pyprof.start(rate_hz=1000)
        self.run_in(interpreters, one, """
            import sys
            sys.path[:0] = %r
            import pyprof
            assert pyprof.is_active()
            try:
                pyprof.start()
            except pyprof.AlreadyActiveError as error:
                assert isinstance(error, RuntimeError)
            else:
                raise AssertionError("it began a second recording")
            pyprof.name_interpreter("physics")
            def work_inside():
                return sum(i * i for i in range(20000))
            def count():
                return sum(row.samples for row in pyprof.snapshot().functions("samples", True) if row.name == "work_inside")
            while count() < 5:
                work_inside()
            profile = pyprof.snapshot()
            with open(%r, "w") as file:
                file.write(repr({(s.interpreter, s.frames[0].function_name) for s in profile.samples
                                 if "work_inside" in [f.function_name for f in s.frames]}))
            """ % ([os.path.dirname(os.path.dirname(getattr(pyprof, "__file__", "") or "")) or "."], path))
        profile = pyprof.stop()
        inside = profile.filter(interpreter="physics")
        self.assertGreater(seen(inside, "work_inside"), 0)
        numbers = {sample.interpreter for sample in inside.samples}
        self.assertEqual(len(numbers), 1)
        self.assertNotIn(0, numbers)
        self.assertEqual({s.interpreter for s in profile.samples if "work_inside" in [f.function_name for f in s.frames]},
                         numbers)


class Readme(Case):
    def test_snippets(self):
        """Those of README.md run, one after the other, as they stand there."""
        with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
            snippets = re.findall(r"^```python\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
        self.assertTrue(snippets)
        here = os.getcwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, here)
        names = {"__name__": "readme", "work": busy}
        for snippet in snippets:
            with self.subTest(snippet=snippet):
                exec(compile(snippet, "README.md", "exec"), names)
        asyncio.run(names["fetch"]())
        self.assertLessEqual({"work.svg", "work.speedscope.json", "fetch.pb.gz"}, set(os.listdir(".")))
        self.assertIsInstance(names["mine"], list)


if __name__ == "__main__":
    unittest.main(verbosity=1)
