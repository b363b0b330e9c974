"""Where the memory is: a heap profiler, which samples what Python allocates, and follows each sample until it is freed.

    import pyprof.heap
    pyprof.heap.start(sampling_rate_kb=64)
    earlier = pyprof.heap.get_snapshot()
    work()
    growth = pyprof.heap.get_snapshot() - earlier
    for site in growth.top_allocators(5):
        print(site["function"], site["line"], site["estimated_bytes"])
    pyprof.heap.stop()

One allocation in so many bytes is sampled, at random: so bytes and objects are estimates, right on average, and their
standard errors are told with them: the truth is within two of them 19 times in 20. It runs with a recording or without one.
There is one heap profiler in a process, the host's and the scripts': who begins a second one gets an AlreadyActiveError.

What this module allocates itself is sampled as all else is.
"""
import collections.abc
import os
import struct
from typing import NamedTuple, TypedDict

if "_pyprof" not in globals():  # a host that has this module built in has put it here
    import pyprof as _pyprof

_engine = _pyprof._engine

__all__ = [
    "AllocationSample", "AllocationSite", "HeapDifference", "HeapSnapshot", "HeapStats", "MemoryProfiler", "StackGrowth",
    "get_snapshot", "get_stats", "shutdown", "start", "stop",
]

# ---- how to sample ----


def _settings(sampling_rate_kb=512, *, memory_limit_mb=32, max_depth=1024):
    """What _engine.heap_start takes, checked."""
    sampling_bytes = _pyprof._number("sampling_rate_kb", sampling_rate_kb) * 1024
    if not 1 <= sampling_bytes <= 2 ** 30:
        raise ValueError("sampling_rate_kb is %r: it has to be 1/1024 to 1048576" % (sampling_rate_kb,))
    memory_limit = _pyprof._number("memory_limit_mb", memory_limit_mb) * 1024 * 1024
    if not 1024 * 1024 <= memory_limit < 2 ** 62:
        raise ValueError("memory_limit_mb is %r: it has to be at least 1" % (memory_limit_mb,))
    if not isinstance(max_depth, int):
        raise TypeError("max_depth has to be a whole number, not %s" % type(max_depth).__name__)
    if not 16 <= max_depth <= 65536:
        raise ValueError("max_depth is %d: it has to be 16 to 65536" % max_depth)
    return round(sampling_bytes), int(memory_limit), max_depth


def start(sampling_rate_kb=512, *, memory_limit_mb=32, max_depth=1024):
    """Begin to sample what Python allocates, in all threads and interpreters.

    sampling_rate_kb: mean KiB between samples, 1/1024 (each allocation) to 1,048,576. Fewer: truer and slower.
    memory_limit_mb: what the samples may hold; at least 1. What has no room is counted: HeapStats.lost_memory.
    max_depth: frames of a stack that are kept, 16 to 65,536.

    After stop() it goes on with the new sampling_rate_kb, and with what was sampled before; the other two stay as they were
    until shutdown(). Raises RuntimeError (AlreadyActiveError) while it samples, and ValueError for a figure out of its range.
    """
    _engine.heap_start(*_settings(sampling_rate_kb, memory_limit_mb=memory_limit_mb, max_depth=max_depth))


def stop():
    """Take no new samples. Those that live are followed until they are freed, so that a later snapshot shows no leak that is
    none. Raises RuntimeError while it does not sample."""
    _engine.heap_stop()


def shutdown():
    """Take the hooks out of Python's allocators, and forget all samples. start() works again. Raises RuntimeError if nothing
    was started; and if something else was put over these hooks (tracemalloc: stop it first), and then nothing has changed."""
    _engine.heap_shutdown()


def get_snapshot():
    """The HeapSnapshot of what lives now; also after stop(). Raises RuntimeError before start() and after shutdown()."""
    return _snapshot_of(_engine.heap_snapshot())


def get_stats():
    """The HeapStats since start(). Raises RuntimeError before it and after shutdown()."""
    figures = _engine.heap_get_stats()
    return HeapStats(*figures[:-1], is_sampling=bool(figures[-1]))


class MemoryProfiler:
    """A context manager that samples what its block allocates; takes what start() takes. May be used again, but not while it
    samples already: that is a RuntimeError. Behind the block samples are followed until they are freed, as after stop()."""

    def __init__(self, sampling_rate_kb=512, *, memory_limit_mb=32, max_depth=1024):
        self._settings = _settings(sampling_rate_kb, memory_limit_mb=memory_limit_mb, max_depth=max_depth)
        self._snapshot = None

    @property
    def snapshot(self):
        """The HeapSnapshot of the block's end, also if it raised. Before its end, RuntimeError."""
        if self._snapshot is None:
            raise RuntimeError("there is no snapshot yet: the block has to end first")
        return self._snapshot

    def __enter__(self):
        _engine.heap_start(*self._settings)
        return self

    def __exit__(self, kind, value, traceback):
        try:
            self._snapshot = get_snapshot()
            stop()
        except RuntimeError:  # the block has stopped it itself; its own exception goes first
            if kind is None:
                raise


# ---- figures ----


class HeapStats(NamedTuple):
    """What heap sampling did, and what it could not do, since start(); pyprof.h tells of each (pyprof_heap_stats). Bytes and
    objects are estimates, an error is a standard error. domains are bits: 1, 2 and 4 for the allocators raw, mem and obj."""
    samples: int
    samples_live: int
    samples_freed: int
    samples_replaced: int
    stacks: int
    live_bytes: int
    live_bytes_error: int
    live_objects: int
    alloc_bytes: int
    alloc_bytes_error: int
    lost_memory: int
    lost_bytes: int
    lost_unreadable: int
    truncated_depth: int
    truncated_memory: int
    live_capacity: int
    bytes: int
    bytes_peak: int
    sampling_bytes: int
    duration_ns: int
    domains: int
    is_sampling: bool

    @property
    def total_samples(self):
        """Allocations that were sampled: samples."""
        return self.samples

    @property
    def live_samples(self):
        """Those that live: samples_live."""
        return self.samples_live

    @property
    def freed_samples(self):
        """Those that were freed: samples_freed."""
        return self.samples_freed

    @property
    def unique_stacks(self):
        """Different stacks, threads told apart: stacks."""
        return self.stacks

    @property
    def estimated_heap_bytes(self):
        """What lives: live_bytes."""
        return self.live_bytes

    @property
    def sampling_rate_bytes(self):
        """Mean bytes between samples: sampling_bytes."""
        return self.sampling_bytes

    @property
    def heap_map_load_percent(self):
        """Samples that live, as a part of those that there is room for before more memory is taken."""
        return 100 * self.samples_live / self.live_capacity if self.live_capacity else 0.0


class AllocationSample(NamedTuple):
    """An allocation that was sampled, and lived when the snapshot was taken. It stands for weight allocations of its size,
    and so for estimated_bytes. timestamp_ns: when it was made, since start(); lifetime_ns: how long it had lived. stack is
    a tuple of pyprof.Frame, from the outermost in, as the frames of a pyprof.Sample are."""
    address: int
    size: int
    weight: float
    estimated_bytes: int
    timestamp_ns: int
    lifetime_ns: int
    stack: tuple
    thread_name: str


class AllocationSite(TypedDict):
    """A line that allocates, with what of it lives; of a difference, by how much that has grown. error_bytes is the standard
    error of estimated_bytes. What is of no Python function has a name in brackets, no file, and line 0."""
    function: str
    file: str
    line: int
    estimated_bytes: int
    estimated_objects: int
    error_bytes: int
    sample_count: int


class StackGrowth(NamedTuple):
    """By how much that has grown, between two snapshots, which one thread's one stack has allocated and not freed: below 0
    where it has shrunk. stack: as of an AllocationSample."""
    estimated_bytes: int
    estimated_objects: int
    error_bytes: int
    sample_count: int
    stack: tuple
    thread_name: str


# ---- samples ----

# A pyprof_heap_sample: address, size, weight, estimated_bytes, timestamp_ns, lifetime_ns, node, 0.
_SAMPLE = struct.Struct("<QQdQQQII")


class _Live:
    """Samples, read from their bytes as they are asked for; packed has their nodes."""

    def __init__(self, packed, data):
        self.packed = packed
        self.data = data
        self.count = len(data) // _SAMPLE.size
        self.stacks = {}  # (stack, thread's name), by their nodes: many samples have one

    def __iter__(self):
        return _SAMPLE.iter_unpack(self.data)

    def stack(self, node):
        known = self.stacks.get(node)
        if known is None:
            known = self.stacks[node] = self.packed.stack(node)[:2]
        return known

    def sample(self, number):
        *figures, node, _ = _SAMPLE.unpack_from(self.data, _SAMPLE.size * number)
        return AllocationSample(*figures, *self.stack(node))


class _Sum:
    """Estimates that are added up."""
    __slots__ = ("bytes", "objects", "variance", "count")

    def __init__(self):
        self.bytes = self.objects = self.variance = 0.0
        self.count = 0

    def add(self, size, weight, sign=1):
        self.bytes += sign * weight * size
        self.objects += sign * weight
        self.variance += weight * (weight - 1) * size * size  # of either sign: both are uncertain
        self.count += sign

    def add_sum(self, other):
        self.bytes += other.bytes
        self.objects += other.objects
        self.variance += other.variance
        self.count += other.count

    def figures(self):
        """estimated_bytes, estimated_objects, error_bytes, sample_count"""
        return round(self.bytes), round(self.objects), round(self.variance ** 0.5), self.count


def _whole(sums):
    whole = _Sum()
    for one in sums.values():
        whole.add_sum(one)
    return whole


def _sums_by_stack(live, sums, sign=1, without=()):
    """Adds what samples stand for to sums, {(thread's name, stack): _Sum}; without: (address, timestamp_ns) of those that
    do not count."""
    by_node = {}
    for address, size, weight, _, timestamp_ns, _, node, _ in live:
        if (address, timestamp_ns) not in without:
            by_node.setdefault(node, _Sum()).add(size, weight, sign)
    for node, one in by_node.items():
        stack, thread = live.stack(node)
        sums.setdefault((thread, stack), _Sum()).add_sum(one)
    return sums


def _sites(sums, n):
    if n is not None and not isinstance(n, int):
        raise TypeError("n has to be a whole number or None, not %s" % type(n).__name__)
    if n is not None and n < 0:
        raise ValueError("n is %d: it has to be 0 or more" % n)
    by_line = {}
    for (_, stack), one in sums.items():
        frame = stack[-1] if stack else _pyprof.Frame("[native]", "", 0)
        by_line.setdefault(frame[:3], _Sum()).add_sum(one)
    found = []
    for (function, file, line), one in by_line.items():
        estimated, objects, error, count = one.figures()
        found.append(AllocationSite(function=function, file=file, line=line, estimated_bytes=estimated,
                                    estimated_objects=objects, error_bytes=error, sample_count=count))
    found.sort(key=lambda site: (-site["estimated_bytes"], site["function"], site["file"], site["line"]))
    return found[:n]


class _Samples(collections.abc.Sequence):
    """Samples, each made when it is asked for."""

    def __init__(self, live, numbers):
        self._live = live
        self._numbers = numbers

    def __len__(self):
        return len(self._numbers)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return _Samples(self._live, self._numbers[index])
        try:
            number = self._numbers[index]
        except IndexError:
            raise IndexError("there are %d samples" % len(self)) from None
        return self._live.sample(number)

    def __repr__(self):
        return "<%d samples>" % len(self)


class _Immutable:
    """What is made here and nowhere else, and cannot be changed."""
    __slots__ = ()

    def __setattr__(self, name, value):
        raise AttributeError("a %s cannot be changed" % type(self).__name__)

    def __delattr__(self, name):
        raise AttributeError("a %s cannot be changed" % type(self).__name__)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


def _make(kind, **fields):
    one = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(one, name, value)
    return one


# ---- snapshots ----

_METRICS = {"inuse_space": "wall", "alloc_space": "cpu", "alloc_objects": "gil", "inuse_objects": "samples"}


class HeapSnapshot(_Immutable):
    """What lived at a moment, of all that was sampled since start(), and what was allocated until then. Immutable; can be
    pickled; two of one profiler can be subtracted."""

    __slots__ = ("_data", "_facts", "_live_data", "_sums_data", "__weakref__")

    def __new__(cls, *args, **kwargs):
        raise TypeError("a HeapSnapshot comes from get_snapshot() or a MemoryProfiler")

    def __reduce__(self):
        return _restore, (self._live.packed.data, self._live.data)

    def __repr__(self):
        return "<pyprof.heap.HeapSnapshot of %d bytes, %d samples>" % (self.estimated_heap_bytes, self.live_samples)

    @property
    def _live(self):
        if self._live_data is None:
            fields = _pyprof._output(include_idle=True)
            live = _Live(_pyprof._Packed(self._data.pack(*fields)), self._data.samples(*fields))
            object.__setattr__(self, "_live_data", live)
        return self._live_data

    @property
    def _sums(self):
        if self._sums_data is None:
            object.__setattr__(self, "_sums_data", _sums_by_stack(self._live, {}))
        return self._sums_data

    @property
    def samples(self):
        """A sequence of an AllocationSample for each sample that lived, in no order. They are made as they are asked for;
        slices are such sequences, too."""
        return _Samples(self._live, range(self._live.count))

    @property
    def live_samples(self):
        """How many samples lived."""
        return self._live.count

    @property
    def total_samples(self):
        """How many samples had been taken, freed ones included."""
        return self._facts[4][_engine.figures.index("samples")]

    @property
    def estimated_heap_bytes(self):
        """What lived of that which was allocated since start()."""
        return _whole(self._sums).figures()[0]

    @property
    def error_bytes(self):
        """The standard error of estimated_heap_bytes."""
        return _whole(self._sums).figures()[2]

    @property
    def estimated_objects(self):
        """How many allocations lived."""
        return _whole(self._sums).figures()[1]

    @property
    def timestamp_ns(self):
        """When it was taken, since start()."""
        return self._facts[1]

    @property
    def sampling_rate_bytes(self):
        """Mean bytes between samples, when it was taken."""
        return self._facts[6]

    def top_allocators(self, n=10):
        """A list of an AllocationSite, a dict, for each of the n lines that hold most (None: of all), the largest first."""
        return _sites(self._sums, n)

    def save(self, path, format=None, *, metric="inuse_space", detail="line", merge_threads=False, thread=None,
             interpreter=None, file=None, function=None, only_mine=False, min_share=0.0):
        """Write it to a file, whole or not at all. format: collapsed, speedscope, svg, pprof, pprof-plain, table or, in
        the package, jsonl; without it the path's ending says which. metric: inuse_space and inuse_objects are what lived,
        alloc_space and alloc_objects all that was allocated; pprof has all four. The others choose what is shown, as of
        Profile.save()."""
        path = os.fsencode(path)
        if b"\0" in path:
            raise ValueError("the path has a null byte")
        _pyprof._check_filters(self._data, thread=thread, interpreter=interpreter, file=file, function=function)
        number = _pyprof._format(path, format)
        if number >= _pyprof._FOREIGN and number != _engine.format_of(b"", "jsonl"):
            raise ValueError("this format has times only, and no bytes: one of collapsed, speedscope, svg, pprof, pprof-plain, "
                             "table and jsonl is needed")
        fields = _pyprof._output(
            number, metric=_pyprof._choice("metric", metric, _METRICS), detail=detail, merge_threads=merge_threads,
            thread=thread, interpreter=interpreter, file=file, function=function, only_mine=only_mine,
            min_share=min_share)
        if number < _pyprof._FOREIGN:
            self._data.save(path, fields)
        else:
            _pyprof._write_whole(path, self._data.write(*fields))

    def __sub__(self, earlier):
        """What has grown since an earlier snapshot of the same profiler: a HeapDifference."""
        if not isinstance(earlier, HeapSnapshot):
            return NotImplemented
        # When it began, to the nanosecond, is what says that it is one.
        if self._facts[0] != earlier._facts[0] or self.timestamp_ns < earlier.timestamp_ns:
            raise ValueError("the second snapshot is no earlier one of the same profiler: shutdown() was between them, or they "
                             "are in the wrong order")
        return _difference(self, earlier)


def _snapshot_of(data, live=None):
    return _make(HeapSnapshot, _data=data, _facts=data.facts(), _live_data=live, _sums_data=None)


def _restore(packed, samples):
    """A HeapSnapshot from its pickle; ValueError if that is broken."""
    if not isinstance(packed, bytes) or not isinstance(samples, bytes) or len(samples) % _SAMPLE.size:
        raise ValueError("not a whole snapshot: its pickle is not two texts, or the second one is cut")
    data = _engine.unpack(packed)
    live = _Live(_pyprof._Packed(packed), samples)
    if data.facts()[5] != 1 or any(sample[6] >= live.packed.node_count for sample in live):
        raise ValueError("not a whole snapshot: it is of times, or a sample is of no node")
    return _snapshot_of(data, live)


# ---- what has grown ----


class HeapDifference(_Immutable):
    """What has grown from one snapshot to a later one, and what has shrunk, which is below 0. What lived in both counts
    for nothing, and so adds nothing to the errors. Immutable; can be pickled."""

    __slots__ = ("_later", "_earlier", "_sums", "_new", "__weakref__")

    def __new__(cls, *args, **kwargs):
        raise TypeError("a HeapDifference is that of two HeapSnapshots: later - earlier")

    def __reduce__(self):
        return _difference, (self._later, self._earlier)

    def __repr__(self):
        return "<pyprof.heap.HeapDifference of %+d bytes>" % self.estimated_heap_bytes

    @property
    def estimated_heap_bytes(self):
        """By how much what lives has grown."""
        return _whole(self._sums).figures()[0]

    @property
    def error_bytes(self):
        """The standard error of that."""
        return _whole(self._sums).figures()[2]

    @property
    def estimated_objects(self):
        """By how many allocations."""
        return _whole(self._sums).figures()[1]

    @property
    def live_samples(self):
        """By how many samples."""
        return self._later.live_samples - self._earlier.live_samples

    @property
    def total_samples(self):
        """How many samples were taken between the two."""
        return self._later.total_samples - self._earlier.total_samples

    @property
    def timestamp_ns(self):
        """When the later one was taken, since start()."""
        return self._later.timestamp_ns

    @property
    def duration_ns(self):
        """The time between the two."""
        return self._later.timestamp_ns - self._earlier.timestamp_ns

    @property
    def samples(self):
        """A sequence of an AllocationSample for each sample that the later snapshot has and the earlier one had not."""
        return _Samples(self._later._live, self._new)

    @property
    def stacks(self):
        """A tuple of a StackGrowth for each stack that has grown or shrunk, what has grown most first."""
        rows = [StackGrowth(*one.figures(), stack, thread) for (thread, stack), one in self._sums.items()]
        return tuple(sorted(rows, key=lambda row: (-row.estimated_bytes, row.thread_name, row.stack)))

    def top_allocators(self, n=10):
        """A list of an AllocationSite, a dict, for each of the n lines that have grown most (None: of all), the largest
        growth first; what has shrunk comes last."""
        return _sites(self._sums, n)


def _difference(later, earlier):
    known = {(sample[0], sample[4]) for sample in earlier._live}
    new, in_both = [], set()
    for number, sample in enumerate(later._live):
        if (sample[0], sample[4]) in known:
            in_both.add((sample[0], sample[4]))
        else:
            new.append(number)
    sums = _sums_by_stack(later._live, {}, 1, in_both)
    _sums_by_stack(earlier._live, sums, -1, in_both)
    return _make(HeapDifference, _later=later, _earlier=earlier, _sums=sums, _new=tuple(new))
