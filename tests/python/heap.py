"""pyprof.heap from within: run in a host that has the module built in, and by a python that finds it as a package or as
an extension. Needs nothing but Python's standard library, any version from 3.8 on."""
import copy
import gc
import inspect
import json
import math
import os
import pickle
import shutil
import struct
import sys
import tempfile
import textwrap
import threading
import tracemalloc
import unittest

import pyprof.heap

heap = pyprof.heap
EACH = 1 / 1024  # KiB: each allocation is a sample
OVERHEAD = sys.getsizeof(b"")  # of a bytes object, which is allocated as its getsizeof says
kept = {}


def keep(name, size, count):
    """So many bytes objects; answers what they take, with their list left out."""
    items = kept.setdefault(name, [None] * count)
    for number in range(count):
        items[number] = bytes(size)
    return count * (size + OVERHEAD)


def tiny(): return keep("tiny", 20, 20000)


def small(): return keep("small", 300, 3000)


def medium(): return keep("medium", 5000, 300)


def large(): return keep("large", 200000, 10)


def huge(): return keep("huge", 5000000, 1)


KEEPERS = [tiny, small, medium, large, huge]


class Held:
    """What the samples with a function on their stack stand for: bytes, error, objects; their count and sizes."""

    def __init__(self, samples, function):
        known = {}  # stacks are many samples'
        found = []
        for sample in samples:
            if sample.stack not in known:
                known[sample.stack] = function.__name__ in [frame.function_name for frame in sample.stack]
            if known[sample.stack]:
                found.append(sample)
        self.bytes = sum(s.weight * s.size for s in found)
        self.objects = sum(s.weight for s in found)
        self.error = sum(s.weight * (s.weight - 1) * s.size ** 2 for s in found) ** 0.5
        self.count = len(found)
        self.sizes = [s.size for s in found]


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="pyprof-heap-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.end)
        kept.clear()

    def end(self):
        kept.clear()
        try:
            heap.shutdown()
        except RuntimeError:
            pass

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()


class Module(Case):
    def test_is_there(self):
        self.assertIs(sys.modules["pyprof.heap"], pyprof.heap)
        self.assertIn("heap", pyprof.__all__)
        names = {}
        exec("from pyprof.heap import *; from pyprof import heap; import pyprof.heap as other", names)
        self.assertIs(names["heap"], names["other"])
        self.assertLessEqual(set(heap.__all__), set(names))

    def test_every_name_has_a_text(self):
        self.assertGreater(len(heap.__doc__), 300)
        for name in heap.__all__:
            thing = getattr(heap, name)
            self.assertEqual(thing.__module__, "pyprof.heap")
            self.assertGreater(len(inspect.getdoc(thing) or ""), 40, name)
            for part, value in vars(thing).items() if inspect.isclass(thing) else ():
                if not part.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    self.assertGreater(len(inspect.getdoc(value) or ""), 10, (name, part))


class Lifecycle(Case):
    def test_nothing_was_started(self):
        for call in (heap.stop, heap.get_snapshot, heap.get_stats, heap.shutdown):
            with self.subTest(call=call), self.assertRaisesRegex(RuntimeError, "heap sampling is not on"):
                call()

    def test_start_and_stop(self):
        self.assertIsNone(heap.start())
        self.assertEqual(heap.get_stats().sampling_rate_bytes, 512 * 1024)
        with self.assertRaisesRegex(pyprof.AlreadyActiveError, "already on: pyprof.heap.stop ends it"):
            heap.start(sampling_rate_kb=64)
        self.assertTrue(heap.get_stats().is_sampling)
        self.assertIsNone(heap.stop())
        self.assertFalse(heap.get_stats().is_sampling)
        with self.assertRaises(RuntimeError) as caught:
            heap.stop()
        self.assertNotIsInstance(caught.exception, pyprof.AlreadyActiveError)
        heap.get_snapshot()
        heap.start(sampling_rate_kb=64)
        self.assertEqual(heap.get_snapshot().sampling_rate_bytes, 64 * 1024)
        self.assertIsNone(heap.shutdown())
        self.test_nothing_was_started()
        heap.start(2)
        self.assertEqual(heap.get_stats().sampling_bytes, 2048)

    WRONG = [
        (ValueError, {"sampling_rate_kb": 0}), (ValueError, {"sampling_rate_kb": -1}),
        (ValueError, {"sampling_rate_kb": 0.0009}), (ValueError, {"sampling_rate_kb": 1048577}),
        (ValueError, {"sampling_rate_kb": float("nan")}), (ValueError, {"sampling_rate_kb": float("inf")}),
        (TypeError, {"sampling_rate_kb": "512"}), (TypeError, {"sampling_rate_kb": None}),
        (ValueError, {"memory_limit_mb": 0.9}), (ValueError, {"memory_limit_mb": 1e30}),
        (TypeError, {"memory_limit_mb": b"1"}), (ValueError, {"max_depth": 15}), (ValueError, {"max_depth": 65537}),
        (TypeError, {"max_depth": 16.0}), (TypeError, {"colour": 1}),
    ]

    def test_wrong_options(self):
        for error, options in self.WRONG:
            for call in (heap.start, heap.MemoryProfiler):
                with self.subTest(options=options, call=call), self.assertRaises(error):
                    call(**options)
            self.assertRaises(RuntimeError, heap.get_stats)
        with self.assertRaises(TypeError):
            heap.start(512, 32)

    def test_limits_are_inside(self):
        for kb, size in ((EACH, 1), (1, 1024), (1048576, 2 ** 30), (0.5, 512)):
            heap.start(kb, memory_limit_mb=1, max_depth=16)
            self.assertEqual(heap.get_stats().sampling_bytes, size)
            heap.shutdown()

    def test_depth(self):
        def deep(n):
            return deep(n - 1) if n else small()
        heap.start(EACH, max_depth=16)
        deep(50)
        snapshot = heap.get_snapshot()
        self.assertLessEqual(max(len(s.stack) for s in snapshot.samples), 17)
        self.assertGreater(heap.get_stats().truncated_depth, 2999)

    def test_memory_is_bounded(self):
        heap.start(EACH, memory_limit_mb=1)
        tiny()
        stats = heap.get_stats()
        self.assertGreater(stats.lost_memory, 1000)
        self.assertLessEqual(stats.bytes_peak, 1 << 20)
        self.assertEqual(stats.samples, stats.live_samples + stats.freed_samples + stats.lost_memory)

    def test_hooks_of_others(self):
        heap.start(EACH)
        tracemalloc.start()
        try:
            with self.assertRaisesRegex(RuntimeError, "tracemalloc"):
                heap.shutdown()
            small()  # tracemalloc allocates, too
            heap.stop()
            self.assertEqual([s.size for s in heap.get_snapshot().samples].count(300 + OVERHEAD), 3000)
        finally:
            tracemalloc.stop()
        heap.shutdown()

    def test_stats_in_the_words_of_others(self):
        heap.start(EACH)
        small()
        stats = heap.get_stats()
        self.assertEqual((stats.total_samples, stats.live_samples, stats.freed_samples, stats.unique_stacks),
                         (stats.samples, stats.samples_live, stats.samples_freed, stats.stacks))
        self.assertEqual((stats.estimated_heap_bytes, stats.sampling_rate_bytes), (stats.live_bytes, 1))
        self.assertTrue(0 < stats.heap_map_load_percent <= 100)
        self.assertEqual(stats.domains, 7)
        self.assertEqual((stats.lost_memory, stats.lost_unreadable, stats.samples_replaced), (0, 0, 0))

    def test_beside_a_recording(self):
        pyprof.start(rate_hz=1000)
        try:
            heap.start(EACH)
            small()
            while not any(row.name == "small" for row in pyprof.snapshot().functions()):
                small()
        finally:
            profile = pyprof.stop()
        self.assertEqual(Held(heap.get_snapshot().samples, small).sizes.count(300 + OVERHEAD), 3000)
        self.assertIsInstance(profile, pyprof.Profile)


class Truth(Case):
    def test_estimates(self):
        """Of each function within five errors, which chance exceeds once in two million times; within two mostly."""
        within = every = 0
        for _ in range(8):
            heap.start(4)
            truths = {function: function() for function in KEEPERS}
            snapshot = heap.get_snapshot()
            stats = heap.get_stats()
            samples = list(snapshot.samples)
            for function, truth in truths.items():
                held = Held(samples, function)
                # The list of them is one more, of 8 bytes an item; of few samples the error is an estimate itself.
                error = max(held.error, (truth * min(4096, truth)) ** 0.5 / 2)
                off = abs(held.bytes - truth - 8 * len(kept[function.__name__]))
                self.assertLess(off, 5 * error + 5000, function)
                within += off <= 2 * error + 200
                every += 1
            whole = sum(s.weight * s.size for s in samples)
            self.assertAlmostEqual(snapshot.estimated_heap_bytes, whole, delta=1)
            self.assertLess(abs(stats.live_bytes - snapshot.estimated_heap_bytes), 10 * 4096)
            self.assertLess(abs(stats.live_bytes_error - snapshot.error_bytes), 10 * 4096)
            heap.shutdown()
            kept.clear()
        self.assertGreaterEqual(within, every * 8 // 10)

    def test_what_is_free_does_not_live(self):
        heap.start(EACH)
        for function in KEEPERS:
            function()
        before = heap.get_snapshot()
        heap.stop()
        kept.clear()
        gc.collect()
        after = heap.get_snapshot()
        for function in KEEPERS:
            self.assertGreater(Held(before.samples, function).count, 0)
        for function in KEEPERS:
            self.assertEqual(Held(after.samples, function).count, 0)
        growth = after - before
        self.assertLess(growth.estimated_heap_bytes, 0)
        for function in KEEPERS:
            shrunk = sum(row.estimated_bytes for row in growth.stacks
                         if function.__name__ in [f.function_name for f in row.stack])
            self.assertAlmostEqual(shrunk, -Held(before.samples, function).bytes, delta=2)

    def test_no_new_samples_after_stop(self):
        heap.start(EACH)
        heap.stop()
        before = heap.get_stats().total_samples
        small()
        self.assertEqual(heap.get_stats().total_samples, before)

    def test_top_allocators(self):
        heap.start(EACH)
        truths = {function.__name__: function() for function in KEEPERS}
        snapshot = heap.get_snapshot()
        sites = snapshot.top_allocators(None)
        self.assertEqual(sites[:3], snapshot.top_allocators(3))
        self.assertEqual(snapshot.top_allocators(0), [])
        self.assertLessEqual(len(snapshot.top_allocators()), 10)
        sizes = [s["estimated_bytes"] for s in sites]
        self.assertEqual(sorted(sizes, reverse=True), sizes)
        self.assertEqual(sites[0]["function"], "keep")
        self.assertEqual(sites[0]["file"], keep.__code__.co_filename)
        self.assertEqual(sites[0]["line"], keep.__code__.co_firstlineno + 4)
        self.assertEqual(sites[0]["estimated_bytes"], sum(truths.values()))
        self.assertEqual(sites[0]["sample_count"], sites[0]["estimated_objects"])
        self.assertEqual(sites[0]["sample_count"], 20000 + 3000 + 300 + 10 + 1)
        self.assertEqual(sites[0]["error_bytes"], 0)
        self.assertEqual(sum(s["sample_count"] for s in sites), snapshot.live_samples)
        for wrong, error in ((-1, ValueError), ("3", TypeError), (1.0, TypeError)):
            self.assertRaises(error, snapshot.top_allocators, wrong)


leaks = {}


def leak_list(n): leaks.setdefault(0, []).extend([bytes(1000) for _ in range(n)])


def leak_objects(n): leaks.setdefault(1, []).extend([object() for _ in range(60 * n)])


def leak_dict(n): leaks.setdefault(2, {}).update({str(len(leaks[2]) + i) * 5: i for i in range(8 * n)})


def leak_array(n): leaks.setdefault(3, bytearray()).extend(b"x" * 1000 * n)


def leak_text(n): leaks.setdefault(4, []).append("y" * 1000 * n)


def leak_lists(n): leaks.setdefault(5, []).extend([[None] * 20 for _ in range(5 * n)])


def leak_sets(n): leaks.setdefault(6, []).extend([set(range(30)) for _ in range(n)])


def leak_in_thread(n):
    thread = threading.Thread(target=leak_of_thread, args=(n,))
    thread.start()
    thread.join()


def leak_of_thread(n): leaks.setdefault(7, []).extend([bytes(800) for _ in range(n)])


def no_leak(n): return [bytes(1000) for _ in range(10 * n)] and None


def cache(n): leaks[8] = [bytes(1000) for _ in range(5 * n)]


LEAKS = [leak_list, leak_objects, leak_dict, leak_array, leak_text, leak_lists, leak_sets, leak_of_thread]


class Leaks(Case):
    def test_eight_of_eight(self):
        self.addCleanup(leaks.clear)
        heap.start(16)
        for function in LEAKS[:7] + [leak_in_thread, no_leak, cache]:
            function(1000)
        earlier = heap.get_snapshot()
        for function in LEAKS[:7] + [leak_in_thread, no_leak, cache]:
            function(1000)
        growth = heap.get_snapshot() - earlier
        grown = {}
        for row in growth.stacks:
            for name in {frame.function_name for frame in row.stack}:
                grown[name] = grown.get(name, 0) + row.estimated_bytes
        for function in LEAKS:
            self.assertGreater(grown.get(function.__name__, 0), 300000, function)
        for function in (no_leak, cache):
            # cache has as much as before, of other samples: six errors.
            self.assertLess(abs(grown.get(function.__name__, 0)), 6 * (2 * 5.2e6 * 16384) ** 0.5, function)
        self.assertGreater(growth.estimated_heap_bytes, 8 * 300000)
        self.assertLess(growth.error_bytes, growth.estimated_heap_bytes / 10)


def one_block(size):
    return bytes(size)


class Samples(Case):
    def test_a_sample(self):
        heap.start(EACH)
        before = heap.get_snapshot().timestamp_ns
        block = one_block(12345)
        after = heap.get_snapshot().timestamp_ns
        snapshot = heap.get_snapshot()
        sample, = [s for s in snapshot.samples if s.address == id(block)]
        self.assertEqual((sample.size, sample.estimated_bytes), (sys.getsizeof(block),) * 2)
        self.assertEqual(sample.weight, 1)
        self.assertTrue(before <= sample.timestamp_ns <= after)
        self.assertEqual(sample.timestamp_ns + sample.lifetime_ns, snapshot.timestamp_ns)
        self.assertEqual(sample.thread_name, "MainThread")
        leaf = sample.stack[-1]
        self.assertIsInstance(leaf, pyprof.Frame)
        code = one_block.__code__
        self.assertEqual(leaf, ("one_block", code.co_filename, code.co_firstlineno + 1, False))
        self.assertTrue(sample.stack[-2].function_name.endswith("test_a_sample"))
        del block
        self.assertNotIn(sample.address, [s.address for s in heap.get_snapshot().samples if s.size == sample.size])

    def test_weights(self):
        heap.start(64)
        small()
        for sample in heap.get_snapshot().samples:
            chance = -math.expm1(-sample.size / 65536)
            self.assertAlmostEqual(sample.weight * chance, 1, places=9)
            exact = sample.weight * sample.size  # rounded up as often as its fraction says
            self.assertIn(sample.estimated_bytes, (math.floor(exact), math.ceil(exact)))

    def test_a_thread(self):
        heap.start(EACH)
        thread = threading.Thread(target=small)
        thread.start()
        thread.join()
        found = [s for s in heap.get_snapshot().samples if "small" in [f.function_name for f in s.stack]]
        self.assertEqual([s.size for s in found].count(300 + OVERHEAD), 3000)
        self.assertNotIn("MainThread", {s.thread_name for s in found})

    def test_are_a_sequence(self):
        heap.start(EACH)
        small()
        samples = heap.get_snapshot().samples
        self.assertEqual(len(samples), len(list(samples)))
        self.assertEqual(samples[-1], samples[len(samples) - 1])
        self.assertEqual(list(samples[3:9:2]), [samples[3], samples[5], samples[7]])
        self.assertIn(samples[4], samples)
        self.assertRaises(IndexError, samples.__getitem__, len(samples))
        self.assertRaises(TypeError, samples.__getitem__, "0")

    def test_while_threads_allocate(self):
        done = threading.Event()

        def work():
            while not done.is_set():
                [bytes(100) for _ in range(100)]
        heap.start(0.25)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            last = heap.get_snapshot()
            for _ in range(20):
                now = heap.get_snapshot()
                self.assertEqual(len(list(now.samples)), now.live_samples)
                self.assertGreaterEqual((now - last).total_samples, 0)
                last = now
        finally:
            done.set()
            for thread in threads:
                thread.join()
        self.assertEqual(heap.get_stats().lost_unreadable, 0)


class Differences(Case):
    def test_what_grew(self):
        heap.start(EACH)
        small()
        first = heap.get_snapshot()
        medium()
        second = heap.get_snapshot()
        del kept["small"]
        third = heap.get_snapshot()
        grown, shrunk, both = second - first, third - second, third - first
        self.assertEqual(Held(grown.samples, small).count, 0)
        self.assertEqual(Held(grown.samples, medium).sizes.count(5000 + OVERHEAD), 300)
        row = grown.stacks[0]
        self.assertEqual((row.estimated_bytes, row.estimated_objects, row.sample_count),
                         (300 * (5000 + OVERHEAD), 300, 300))
        self.assertEqual([f.function_name for f in row.stack][-2:], ["medium", "keep"])
        self.assertEqual(row.thread_name, "MainThread")
        last = shrunk.stacks[-1]
        self.assertEqual((last.estimated_bytes, last.estimated_objects, last.sample_count),
                         (-3000 * (300 + OVERHEAD), -3000, -3000))
        self.assertEqual(last.stack[-2].function_name, "small")
        site = shrunk.top_allocators(None)[-1]
        self.assertEqual((site["function"], site["estimated_bytes"], site["estimated_objects"]),
                         ("keep", -3000 * (300 + OVERHEAD), -3000))
        self.assertEqual(both.estimated_heap_bytes, grown.estimated_heap_bytes + shrunk.estimated_heap_bytes)
        self.assertEqual(both.estimated_heap_bytes, third.estimated_heap_bytes - first.estimated_heap_bytes)
        self.assertEqual(both.estimated_objects, third.estimated_objects - first.estimated_objects)
        self.assertEqual(both.live_samples, third.live_samples - first.live_samples)
        self.assertEqual(both.total_samples, third.total_samples - first.total_samples)
        self.assertEqual(both.duration_ns, third.timestamp_ns - first.timestamp_ns)
        self.assertEqual(both.timestamp_ns, third.timestamp_ns)

    def test_nothing_between(self):
        heap.start(EACH)
        small()
        one = heap.get_snapshot()
        nothing = one - one
        self.assertEqual((nothing.estimated_heap_bytes, nothing.error_bytes, nothing.estimated_objects, nothing.stacks,
                          len(nothing.samples), nothing.top_allocators()), (0, 0, 0, (), 0, []))

    def test_errors_are_of_what_changed(self):
        """What lives on in both is the same sample: it adds no error."""
        heap.start(64)
        for function in KEEPERS:
            function()
        first = heap.get_snapshot()
        keep("more", 3000, 1000)
        second = heap.get_snapshot()
        growth = second - first
        self.assertLess(growth.error_bytes, second.error_bytes)
        self.assertLess(abs(growth.estimated_heap_bytes - 1000 * (3008 + OVERHEAD)), 5 * growth.error_bytes + 300000)

    def test_what_is_no_earlier_snapshot(self):
        heap.start(EACH)
        other = heap.get_snapshot()
        heap.shutdown()
        heap.start(EACH)
        first = heap.get_snapshot()
        second = heap.get_snapshot()
        for later, earlier in ((first, second), (second, other), (other, first)):
            with self.assertRaisesRegex(ValueError, "no earlier"):
                later - earlier
        for wrong in (3, None, "snapshot", second - first):
            with self.assertRaises(TypeError):
                second - wrong
            with self.assertRaises(TypeError):
                wrong - second


class Values(Case):
    def setUp(self):
        super().setUp()
        heap.start(1)
        for function in KEEPERS:
            function()
        self.first = heap.get_snapshot()
        keep("more", 3000, 1000)
        self.second = heap.get_snapshot()
        heap.stop()

    def test_cannot_be_changed(self):
        for one in (self.first, self.second - self.first):
            for name in ("samples", "timestamp_ns", "_data", "colour"):
                self.assertRaises(AttributeError, setattr, one, name, 1)
                self.assertRaises(AttributeError, delattr, one, name)
            self.assertRaises(TypeError, type(one))
            self.assertIs(copy.copy(one), one)
            self.assertIs(copy.deepcopy(one), one)
            self.assertIn("bytes", repr(one))

    def test_pickle(self):
        for one in (self.first, self.second):
            again = pickle.loads(pickle.dumps(one))
            for name in ("live_samples", "total_samples", "estimated_heap_bytes", "error_bytes", "estimated_objects",
                         "timestamp_ns", "sampling_rate_bytes"):
                self.assertEqual(getattr(again, name), getattr(one, name), name)
            self.assertEqual(list(again.samples), list(one.samples))
            for number, name in enumerate(("a.txt", "a.json", "a.svg")):
                one.save(self.path(name))
                again.save(self.path("again-" + name))
                self.assertEqual(self.read(name), self.read("again-" + name))
        growth = self.second - self.first
        again = pickle.loads(pickle.dumps(growth))
        self.assertEqual(again.stacks, growth.stacks)
        self.assertEqual(list(again.samples), list(growth.samples))

    def test_broken_pickles(self):
        restore, (packed, samples) = self.first.__reduce__()
        with pyprof.Profiler(rate_hz=1000) as profiler:
            small()
        of_times = profiler.profile.__reduce__()[1][0]
        far = bytearray(samples)
        far[48:52] = struct.pack("<I", 1 << 30)
        kind = bytearray(packed)
        kind[52] = 7
        for broken in ((packed, samples[:-1]), (packed[:-1], samples), (b"", samples), (of_times, b""),
                       (packed, bytes(far)), (packed, 3), (None, samples), (packed, None), (bytes(kind), samples)):
            with self.subTest(), self.assertRaises(ValueError):
                restore(*broken)
        self.assertEqual(restore(packed, b"").live_samples, 0)

    def test_save(self):
        for name, begin in (("a.svg", b"<?xml"), ("a.json", b"{"), ("a.pb.gz", b"\x1f\x8b"), ("a.txt", b"thread ")):
            self.second.save(self.path(name))
            self.assertTrue(self.read(name).startswith(begin), name)
        self.assertTrue(b"in use, bytes" in self.read("a.svg"), "the picture is not one of memory")
        unit = {profile["unit"] for profile in json.loads(self.read("a.json").decode())["profiles"]}
        self.assertEqual(unit, {"bytes"})
        values = {}
        for metric in ("inuse_space", "inuse_objects", "alloc_space", "alloc_objects"):
            self.second.save(self.path("a.txt"), metric=metric)
            values[metric] = sum(int(line.rpartition(b" ")[2]) for line in self.read("a.txt").splitlines())
        self.assertAlmostEqual(values["inuse_space"], self.second.estimated_heap_bytes, delta=self.second.live_samples)
        self.assertAlmostEqual(values["inuse_objects"], self.second.estimated_objects, delta=1000)
        self.assertGreaterEqual(values["alloc_space"], values["inuse_space"])
        self.second.save(os.fsencode(self.path("table")), format="table", function="medium")
        self.assertIn(b"medium", self.read("table"))
        self.assertNotIn(b"tiny", self.read("table"))

    def test_filters_that_nothing_passes(self):
        for filters, said in (({"thread": "nobody"}, "thread='nobody': no stack is of it, among those of .*'MainThread'"),
                              ({"function": "nowhere"}, "function='nowhere': ")):
            with self.subTest(filters=filters), self.assertRaisesRegex(ValueError, said):
                self.second.save(self.path("nothing.txt"), **filters)
        self.assertFalse(os.path.exists(self.path("nothing.txt")))

    def test_save_fails(self):
        before = sorted(os.listdir(self.folder))
        for error, path, options in ((FileNotFoundError, "no/a.svg", {}), (ValueError, "a\0b", {}),
                                     (ValueError, "a.txt", {"metric": "wall"}),
                                     (ValueError, "a.txt", {"format": "docx"}), (TypeError, "a.txt", {"format": 3}),
                                     (TypeError, "a.txt", {"thread": 3}),
                                     (ValueError, "a.txt", {"min_share": 2}), (IsADirectoryError, ".", {})):
            with self.subTest(path=path, options=options), self.assertRaises(error):
                self.second.save(self.path(path), **options)
        for name in ("a.pstats", "a.firefox.json"):  # formats of times, where exports.h is there; else collapsed text
            if pyprof._engine.format_of(os.fsencode(name), None):
                with self.assertRaisesRegex(ValueError, "times"):
                    self.second.save(self.path(name))
        self.assertEqual(sorted(os.listdir(self.folder)), before)


class Profilers(Case):
    def test_block(self):
        profiler = heap.MemoryProfiler(sampling_rate_kb=EACH)
        with self.assertRaisesRegex(RuntimeError, "no snapshot yet"):
            profiler.snapshot
        with profiler as entered:
            self.assertIs(entered, profiler)
            small()
        self.assertEqual(Held(profiler.snapshot.samples, small).sizes.count(300 + OVERHEAD), 3000)
        self.assertFalse(heap.get_stats().is_sampling)
        first = profiler.snapshot
        with profiler:
            medium()
        self.assertEqual(Held((profiler.snapshot - first).samples, medium).sizes.count(5000 + OVERHEAD), 300)

    def test_what_raises(self):
        profiler = heap.MemoryProfiler(EACH)
        with self.assertRaises(KeyError), profiler:
            small()
            raise KeyError
        self.assertEqual(Held(profiler.snapshot.samples, small).sizes.count(300 + OVERHEAD), 3000)

    def test_inside_of_another(self):
        with heap.MemoryProfiler(EACH) as outer:
            with self.assertRaises(pyprof.AlreadyActiveError):
                with heap.MemoryProfiler():
                    self.fail("it sampled twice")
            small()
        self.assertEqual(Held(outer.snapshot.samples, small).sizes.count(300 + OVERHEAD), 3000)

    def test_stopped_inside(self):
        with self.assertRaisesRegex(RuntimeError, "not on"), heap.MemoryProfiler():
            heap.shutdown()
        with self.assertRaises(KeyError), heap.MemoryProfiler():
            heap.shutdown()
            raise KeyError


class Interpreters(Case):
    def create(self):
        for name in ("_interpreters", "_xxsubinterpreters"):
            try:
                interpreters = __import__(name)
            except ImportError:
                continue
            return interpreters, interpreters.create()
        self.skipTest("this Python has no module for interpreters")

    def test_import(self):
        """An interpreter of its own has a module of its own, and the process's one profiler."""
        interpreters, one = self.create()
        self.addCleanup(interpreters.destroy, one)
        heap.start(EACH)
        path = os.path.dirname(getattr(pyprof, "__file__", "") or "")
        failed = interpreters.run_string(one, textwrap.dedent("""
            import sys
            sys.path[:0] = %r
            import pyprof.heap
            try:
                pyprof.heap.start()
            except pyprof.AlreadyActiveError:
                pass
            else:
                raise AssertionError("it began a second one")
            def inside():
                return [bytes(1000) for _ in range(500)]
            held = inside()
            snapshot = pyprof.heap.get_snapshot()
            found = [s for s in snapshot.samples if "inside" in [f.function_name for f in s.stack] and s.size > 1000]
            assert len(found) >= 500, len(found)
            assert found[0].stack[0].function_name.startswith("[interpreter "), found[0].stack
            assert pyprof.heap.get_stats().lost_unreadable == 0
            """ % [os.path.dirname(path) if os.path.basename(path) == "pyprof" else path or "."]))
        if failed is not None:
            self.fail(getattr(failed, "formatted", failed))


if __name__ == "__main__":
    unittest.main(verbosity=1)
