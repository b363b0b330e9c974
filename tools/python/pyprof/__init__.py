"""A sampling profiler: all threads of all interpreters of this process, with true stacks and true times.

    import pyprof
    with pyprof.Profiler(interval_ms=1) as p:
        work()
    p.profile.print_stats(limit=10)
    p.profile.save("work.svg")

There is one recording in a process: the host's, where Python is embedded in a program that records itself, or one that
is begun here. Who begins a second one gets a RuntimeError.

A sample stands for the time around it. Times are in seconds, and in nanoseconds where a name ends in _ns. Time in which a
thread only waited is left out of figures and files unless include_idle is asked for.
"""
import collections.abc
import functools
import os
import struct
import sys
import time
from typing import NamedTuple

if "_engine" not in globals():  # a host that has this module built in has put it here
    from . import _engine

AlreadyActiveError = _engine.AlreadyActiveError

__all__ = [
    "AlreadyActiveError", "Frame", "Profile", "Profiler", "Row", "Sample", "Stats", "Thread", "ThreadProfiler", "dump",
    "is_active", "listen", "name_interpreter", "native_unwinding_available", "profile", "record", "register_thread",
    "set_native_unwinding", "snapshot", "start", "stats", "stop", "top", "unlisten", "unregister_thread",
]
if hasattr(_engine, "heap_start"):  # a host may leave it out
    __all__.append("heap")

# ---- how to record ----

# What the signature shows, and no caller's own 10 is: so both interval_ms and rate_hz are seen.
_INTERVAL_MS = float("10")


def _interval_us(interval_ms, rate_hz):
    if rate_hz is None:
        interval_us = _number("interval_ms", interval_ms) * 1000
    elif interval_ms is not _INTERVAL_MS:
        raise ValueError("interval_ms and rate_hz say the same: one of them is enough")
    else:
        rate = _number("rate_hz", rate_hz)
        interval_us = 1e6 / rate if rate > 0 else 0
    if not 49.5 <= interval_us <= 10_000_000:
        raise ValueError("samples can be 0.05 ms to 10 s apart (20000 to 0.1 a second), not %.6g ms" % (interval_us / 1000))
    return max(round(interval_us), 50)


def _number(name, value):
    if isinstance(value, (str, bytes)):
        raise TypeError("%s has to be a number, not %s" % (name, type(value).__name__))
    try:
        return float(value)
    except TypeError:
        raise TypeError("%s has to be a number, not %s" % (name, type(value).__name__)) from None


def _settings(interval_ms=_INTERVAL_MS, output_path=None, memory_limit_mb=64, *, rate_hz=None, quiet=False, max_depth=1024):
    """What _engine.start takes, checked."""
    interval_us = _interval_us(interval_ms, rate_hz)
    memory_limit = _number("memory_limit_mb", memory_limit_mb) * 1024 * 1024
    if not 1024 * 1024 <= memory_limit < 2 ** 62:
        raise ValueError("memory_limit_mb is %r: it has to be at least 1" % (memory_limit_mb,))
    if not isinstance(max_depth, int):
        raise TypeError("max_depth has to be a whole number, not %s" % type(max_depth).__name__)
    if not 16 <= max_depth <= 65536:
        raise ValueError("max_depth is %d: it has to be 16 to 65536" % max_depth)
    return interval_us, int(memory_limit), max_depth, _path(output_path), bool(quiet)


def _path(path):
    """As bytes, and where it is now, also if the program goes to another folder."""
    if path is None:
        return None
    path = os.fsencode(path)
    if not path:
        raise ValueError("output_path is empty")
    if b"\0" in path:
        raise ValueError("output_path has a null byte")
    if _engine.format_of(path, None):
        raise ValueError("output_path: a file that ends so is written by Profile.save() only: %s" % os.fsdecode(path))
    return path if os.path.isabs(path) else os.path.join(os.getcwdb().replace(b"%", b"%%"), path)


def _check_writable(path):
    """Raises the OSError that saving would end with, as far as that is known before."""
    import tempfile
    folder, name = os.path.split(path)
    if b"%" in path.replace(b"%%", b""):  # %p, %n and %t are filled in by the recording
        if b"%" in folder.replace(b"%%", b""):
            return
        target = os.path.join(folder.replace(b"%%", b"%"), name)
    else:
        target = os.path.realpath(path.replace(b"%%", b"%"))
    try:
        if os.path.isdir(target):
            raise IsADirectoryError(21, os.strerror(21))
        if os.path.exists(target) and not os.path.isfile(target):  # a pipe, a device: written into
            if not os.access(target, os.W_OK):
                raise PermissionError(13, os.strerror(13))
            return
        descriptor, probe = tempfile.mkstemp(prefix=b".pyprof-", dir=os.path.dirname(target))
        os.close(descriptor)
        os.unlink(probe)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None


def _begin(settings, signal_number=0):
    path = settings[3]
    if path is not None and not _engine.is_active():
        _check_writable(path)
    _engine.start(*settings, signal_number)


def _end():
    """The profile, and why it could not be saved, or None."""
    data, error = _engine.stop()
    profile = _profile_of(data)
    if error is not None:
        error.profile = profile
    return profile, error


def start(interval_ms=_INTERVAL_MS, output_path=None, memory_limit_mb=64, *, rate_hz=None, quiet=False, max_depth=1024):
    """Begin to record all threads of all interpreters.

    interval_ms: mean time between samples of a thread, 0.05 to 10,000; or rate_hz: samples a second.
    output_path: where stop() also saves the profile, in the format that its ending says; %p in it is the process's id,
    %n the program's name, %t the time of the start, and %% one %.
    memory_limit_mb: what the recording may hold; at least 1.
    quiet: send no signals; the innermost frames of running threads may then be "[unsettled]".
    max_depth: frames of a stack that are kept, 16 to 65,536.

    Raises RuntimeError (AlreadyActiveError) while a recording runs, ValueError for a figure out of its range or both
    interval_ms and rate_hz, and OSError for an output_path that cannot be written.
    """
    _begin(_settings(interval_ms, output_path, memory_limit_mb, rate_hz=rate_hz, quiet=quiet, max_depth=max_depth))


def stop():
    """End the recording, save it to its output_path if it has one, and return its Profile.

    Raises RuntimeError if nothing is recorded, and OSError if it could not be saved: then the recording has ended all the
    same, and the exception's attribute profile has it.
    """
    profile, error = _end()
    if error is not None:
        raise error
    return profile


def is_active():
    """Whether a recording runs: one that was begun here, or the host's."""
    return _engine.is_active()


def snapshot():
    """The Profile of what was recorded so far; the recording goes on. Raises RuntimeError if nothing is recorded."""
    return _profile_of(_engine.snapshot())


def dump(file=None):
    """The stacks of this moment as text, leaf first, one paragraph a thread. It is also written to file, if one is given:
    a text file, or the number of a descriptor. Raises RuntimeError if nothing is recorded."""
    data = _engine.dump()
    text = _text(data)
    if isinstance(file, int):
        while data:
            data = data[os.write(file, data):]
    elif file is not None:
        file.write(text)
    return text


def name_interpreter(name):
    """Name the calling interpreter: "[interpreter 1: NAME]" stands before its frames. None takes the name away."""
    if name is not None and not isinstance(name, str):
        raise TypeError("a name has to be a str or None, not %s" % type(name).__name__)
    _engine.name_interpreter(name)


def listen(path=None):
    """Listen on a Unix socket, so that pyprof-ctl can look into this process, and answer its path. By default that is
    pyprof-UID/PID.sock in $XDG_RUNTIME_DIR, or else in /tmp, where pyprof-ctl finds it by the process's id."""
    if path is not None:
        path = os.fsencode(path)
        if b"\0" in path:
            raise ValueError("path has a null byte")
    return _engine.listen(path)


def unlisten():
    """Listen no more. A recording goes on, whoever began it."""
    _engine.unlisten()


def register_thread():
    """Does nothing: all threads are seen. For programs that know profilers which need it."""


def unregister_thread():
    """Does nothing: all threads are seen."""


class ThreadProfiler:
    """A context manager that does nothing: all threads are seen. For programs that know profilers which need it."""

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        return None


def native_unwinding_available():
    """Whether frames of C and C++ can be recorded: not yet."""
    return False


def set_native_unwinding(flag):
    """Ask for frames of C and C++. Raises RuntimeError if they are wanted: they cannot be recorded yet."""
    if flag:
        raise RuntimeError("frames of C and C++ cannot be recorded yet")


# ---- figures ----

class Stats(NamedTuple):
    """What a recording did, and what it could not do. All counts are since its start; pyprof.h tells of each."""
    ticks: int
    ticks_missed: int
    samples: int
    samples_idle: int
    samples_signalled: int
    samples_partial: int
    lost_late: int
    lost_pending: int
    lost_unsettled: int
    lost_unreadable: int
    lost_memory: int
    truncated_depth: int
    truncated_memory: int
    frames_unresolved: int
    timeline_coarsened: int
    signals: int
    calls_interrupted: int
    threads: int
    bytes: int
    bytes_peak: int
    sampler_cpu_ns: int
    samples_unasked: int
    threads_unasked: int
    signal_changes: int
    signal_number: int
    samples_held: int
    holds_failed: int
    samples_jit: int
    duration_ns: int

    @property
    def collected_samples(self):
        """Stacks that are in the profile: samples."""
        return self.samples

    @property
    def dropped_samples(self):
        """Samples that were lost, for whatever reason; their time is with the samples beside them."""
        return sum(getattr(self, name) for name in self._fields if name.startswith("lost_"))

    @property
    def overhead_percent(self):
        """CPU time of the sampler's thread, as a part of the time that the recording took."""
        return 100 * self.sampler_cpu_ns / self.duration_ns if self.duration_ns else 0.0


def stats():
    """The Stats of the recording that runs, or None if none does. Those of one that has ended: Profile.stats."""
    return Stats(*_engine.get_stats()) if is_active() else None


class Frame(NamedTuple):
    """A line of a function on a stack. Where no file is known, as for "[truncated]", filename is empty and lineno 0."""
    function_name: str
    filename: str
    lineno: int
    is_native: bool = False


class Sample(NamedTuple):
    """A stretch of a thread's time with one stack. timestamp_ns is since the start of the recording; frames stand from the
    outermost in; sample_count is how many looks at the thread it comes of."""
    timestamp_ns: int
    duration_ns: int
    thread_id: int
    thread_name: str
    interpreter: int
    is_idle: bool
    frames: tuple
    sample_count: int = 1


class Thread(NamedTuple):
    """What a thread took, in seconds: wall without waiting, which is apart. thread_id is 0 for several of one name."""
    name: str
    thread_id: int
    wall: float
    waiting: float
    cpu: float
    gil: float
    samples: int


class Row(NamedTuple):
    """What a function or a line took: itself, and with what it called, in seconds (samples where these are the metric)."""
    name: str
    filename: str
    lineno: int
    self: float
    total: float
    samples: int
    self_percent: float
    total_percent: float


# ---- what files and figures show ----

_FORMATS = {"collapsed": 1, "speedscope": 2, "svg": 3, "pprof": 4, "table": 5, "pprof-plain": 6}
_FOREIGN = 1000  # from here on they are those of exports.h
_METRICS = {"wall": 0, "cpu": 1, "gil": 2, "samples": 3}
_DETAILS = {"line": 0, "function": 1}


def _choice(what, name, choices):
    if name not in choices:
        raise ValueError("%s has to be one of %s, not %r" % (what, ", ".join(choices), name))
    return choices[name]


def _format(path, name):
    """Its number; 0 = pyprof.h knows it by the path's ending."""
    if name is not None and not isinstance(name, str):
        raise TypeError("format has to be a str or None, not %s" % type(name).__name__)
    if name is not None and name in _FORMATS:
        return _FORMATS[name]
    number = _engine.format_of(path, name)
    if number == 0 and name is not None:
        others = ("pstats", "firefox", "perfetto", "jsonl")
        _choice("format", name, dict(_FORMATS, **{other: 0 for other in others if _engine.format_of(b"", other)}))
    return number


def _check_limit(limit):
    """How many rows are shown: None = all."""
    if limit is not None and not isinstance(limit, int):
        raise TypeError("limit has to be a whole number or None, not %s" % type(limit).__name__)
    if limit is not None and limit < 0:
        raise ValueError("limit is %d: it has to be 0 or more, or None for all rows" % limit)


def _filter(name, value):
    if value is not None and not isinstance(value, str):
        raise TypeError("%s has to be a str or None, not %s" % (name, type(value).__name__))
    return value


def _output(format=None, *, metric="wall", detail="line", include_idle=False, merge_threads=False, thread=None,
            interpreter=None, file=None, function=None, only_mine=False, min_share=0.0):
    """The fields of a pyprof_output, in their order."""
    if isinstance(interpreter, int):
        interpreter = str(interpreter)
    if file is not None:
        file = os.fsdecode(file)
    return (format if isinstance(format, int) else _format(b"", format), _choice("metric", metric, _METRICS),
            _choice("detail", detail, _DETAILS), bool(include_idle), bool(merge_threads), _filter("thread", thread),
            _filter("interpreter", interpreter), file, _filter("function", function), bool(only_mine),
            _number("min_share", min_share))


# ---- a profile ----

# What _engine packs: see pyprof_module.h.
_HEAD = struct.Struct("<8sQQQQQIIIIIIIIQ")
_NODE = struct.Struct("<IIIIIiiiII6Q")
_SPAN = struct.Struct("<IIQQQII")
_NO_NODE = 0xFFFFFFFF


def _text(data):
    """Names may hold lone surrogates, as Python lets them, or bytes that are no text, as the system does."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


class _Packed:
    """Reads what a profile has from its bytes, as it is asked for."""

    def __init__(self, data):
        self.data = data
        self.head = _HEAD.unpack_from(data)
        self.node_count, self.span_count = self.head[1:3]
        self.nodes = _HEAD.size + 8 * self.head[14]
        self.spans = self.nodes + _NODE.size * self.node_count
        self.texts = self.spans + _SPAN.size * self.span_count
        self.known = {}  # frames by their nodes

    def node(self, number):
        return _NODE.unpack_from(self.data, self.nodes + _NODE.size * number)

    def span(self, number):
        return _SPAN.unpack_from(self.data, self.spans + _SPAN.size * number)

    def text(self, begin, size):
        return self.data[self.texts + begin:self.texts + begin + size]

    def frame(self, number):
        """The frame and the caller of a node; of a thread its name and None."""
        known = self.known.get(number)
        if known is None:
            node = self.node(number)
            name = _text(self.text(*node[1:3]))
            known = (Frame(name, _text(self.text(*node[3:5])), node[5]), node[0]) if node[0] != _NO_NODE else (name, node[7])
            self.known[number] = known
        return known

    def stack(self, number):
        """(frames, thread's name, its id) of a node."""
        frames = []
        frame, parent = self.frame(number)
        while isinstance(frame, Frame):
            frames.append(frame)
            frame, parent = self.frame(parent)
        return tuple(reversed(frames)), frame, parent

    def sample(self, number):
        _, node, start_ns, wall_ns, _, count, flags = self.span(number)
        frames, thread, thread_id = self.stack(node)
        return Sample(start_ns, wall_ns, thread_id, thread, _interpreter_of(frames), bool(flags & 1), frames, count)

    def identities(self):
        """[(parent, what tells a node from others of that parent, figures)]"""
        found = []
        for number in range(self.node_count):
            node = self.node(number)
            found.append((node[0], (self.text(*node[1:3]), self.text(*node[3:5])) + node[5:9], node[10:]))
        return found


def _interpreter_of(frames):
    """The innermost mark tells; what has none is the main interpreter's."""
    for frame in reversed(frames):
        if not frame.filename and frame.function_name.startswith("[interpreter "):
            return int(frame.function_name[13:].partition(":")[0].rstrip("]"))
    return 0


class _Samples(collections.abc.Sequence):
    """The samples of a profile, each made when it is asked for."""

    def __init__(self, packed, numbers):
        self._packed = packed
        self._numbers = numbers

    def __len__(self):
        return len(self._numbers)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return _Samples(self._packed, self._numbers[index])
        try:
            number = self._numbers[index]
        except IndexError:
            raise IndexError("there are %d samples" % len(self)) from None
        return self._packed.sample(number)

    def __repr__(self):
        return "<%d samples>" % len(self)


def _thread_names(data, filters):
    """Of the threads of which something passes."""
    packed = _Packed(data.pack(*_output(include_idle=True, **filters)))
    return [packed.frame(node)[0] for node, (parent, _, _) in enumerate(packed.identities()) if parent == _NO_NODE]


def _check_filters(data, **filters):
    """Says which of these it is that nothing passes, if there is something at all."""
    given = {name: value for name, value in filters.items() if value is not None}
    names = _thread_names(data, {}) if given else []
    for count, name in enumerate(given, 1):
        left = _thread_names(data, dict(list(given.items())[:count]))
        if names and not left:
            raise ValueError("%s=%r: no stack is of it, among those of %s" % (
                name, given[name], ", ".join(map(repr, names[:9])) + ", ..." * (len(names) > 9)))
        names = left


class Profile:
    """A finished recording, or a copy of one that goes on. Immutable; can be pickled."""

    __slots__ = ("_data", "_facts", "_packed_data", "_platform", "__weakref__")

    def __new__(cls, *args, **kwargs):
        raise TypeError("a Profile comes from stop(), snapshot(), record() or a Profiler")

    def __setattr__(self, name, value):
        raise AttributeError("a Profile cannot be changed")

    def __delattr__(self, name):
        raise AttributeError("a Profile cannot be changed")

    def __reduce__(self):
        return _restore, (self._packed.data, self._platform)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __repr__(self):
        return "<pyprof.Profile of %.3f s, %d samples>" % (self.duration, self.stats.samples)

    @property
    def _packed(self):
        if self._packed_data is None:
            object.__setattr__(self, "_packed_data", _Packed(self._data.pack(*_output(include_idle=True))))
        return self._packed_data

    @property
    def start_time(self):
        """When the recording began: a datetime, in UTC."""
        return self._time(self._facts[0])

    @property
    def end_time(self):
        """When it ended, or the snapshot was taken."""
        return self._time(self._facts[0] + self._facts[1])

    @staticmethod
    def _time(ns):
        import datetime
        return (datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
                + datetime.timedelta(microseconds=ns // 1000))

    @property
    def duration(self):
        """How long it took, in seconds."""
        return self._facts[1] / 1e9

    @property
    def interval_ms(self):
        """The mean time between samples of a thread."""
        return self._facts[2] / 1000

    @property
    def python_version(self):
        """The interpreter's, as "3.11.7"; empty if it is not known."""
        return _text(self._facts[3])

    @property
    def platform(self):
        """The system on which it was recorded, as "Linux-6.1.0-x86_64"."""
        return self._platform

    @property
    def stats(self):
        """The Stats of the recording, as they were when this was given away."""
        return Stats(*self._facts[4])

    @property
    def dropped_count(self):
        """Samples that were lost, for whatever reason; their time is with the samples beside them."""
        return self.stats.dropped_samples

    @property
    def samples(self):
        """A sequence of all Samples, those of one thread after the other, each in the order of time. They are made as they
        are asked for; slices are such sequences, too."""
        return _Samples(self._packed, range(self._packed.span_count))

    @property
    def threads(self):
        """What each thread took, as a tuple of Threads, in the order in which they were met."""
        packed = self._packed
        roots, sums, threads = [], {}, []
        for number, (parent, identity, figures) in enumerate(packed.identities()):
            root = number if parent == _NO_NODE else roots[parent]
            roots.append(root)
            sums[root] = [a + b for a, b in zip(sums.get(root, (0,) * 6), figures)]
        for root, (samples, _, wall, idle, cpu, gil) in sums.items():
            name, thread_id = packed.frame(root)
            threads.append(Thread(name, thread_id, (wall - idle) / 1e9, idle / 1e9, cpu / 1e9, gil / 1e9, samples))
        return tuple(threads)

    def functions(self, metric="wall", include_idle=False):
        """Rows of what each function took in all threads, hottest first. metric: wall, cpu, gil or samples."""
        return self._rows(metric, include_idle, "function")

    def lines(self, metric="wall", include_idle=False):
        """Rows of what each line took in all threads, hottest first. metric: wall, cpu, gil or samples."""
        return self._rows(metric, include_idle, "line")

    def _rows(self, metric, include_idle, detail):
        unit = 1 if metric == "samples" else 1e9
        rows = self._data.rows(*_output(metric=metric, include_idle=include_idle, detail=detail))
        return [Row(_text(name), _text(path), line, own / unit, total / unit, samples, 100 * share, 100 * total_share)
                for name, path, line, own, total, _, samples, share, total_share in rows]

    def print_stats(self, limit=20, sort="self", file=None):
        """Print the functions that took most wall time, at most so many (None: all), to file or standard output. sort:
        self, total, samples or name."""
        print(self._table(limit, sort), end="", file=file)

    def _table(self, limit, sort):
        _check_limit(limit)
        keys = {"self": lambda row: (-row.self, -row.total), "total": lambda row: (-row.total, -row.self),
                "samples": lambda row: (-row.samples, -row.self), "name": lambda row: (row.name, row.filename, row.lineno)}
        rows = sorted(self.functions(), key=_choice("sort", sort, keys))
        stats = self.stats
        lines = ["%.3f s, %d samples, %d of threads that waited, %d lost" % (
            self.duration, stats.samples, stats.samples_idle, stats.dropped_samples),
            "", "   self s          total s         samples  function"]
        for row in rows[:limit]:
            place = " (%s:%d)" % (row.filename, row.lineno) if row.filename else ""
            text = "%9.3f %5.1f%% %9.3f %5.1f%% %8d  %s%s" % (
                row.self, row.self_percent, row.total, row.total_percent, row.samples, row.name, place)
            lines.append(text.encode("utf-8", "backslashreplace").decode())
        if limit is not None and len(rows) > limit:
            lines.append("... and %d more" % (len(rows) - limit))
        return "\n".join(lines) + "\n"

    def filter(self, thread=None, file=None, function=None, interpreter=None):
        """The Profile of only those stacks that pass all of these: of a thread of this name; with a frame of a file whose
        path begins so, or of a function of this qualified name (of such a file, if both are given); of the interpreter
        with this id or name. In a text * stands for any text."""
        fields = _output(include_idle=True, thread=thread, file=file, function=function, interpreter=interpreter)
        return _profile_of(_engine.unpack(self._data.pack(*fields)), self._platform)

    def save(self, path, format=None, *, metric="wall", detail="line", include_idle=False, merge_threads=False,
             thread=None, interpreter=None, file=None, function=None, only_mine=False, min_share=0.0):
        """Write it to a file, whole or not at all. format: collapsed, speedscope, svg, pprof, pprof-plain or table, in the
        package also pstats, firefox, perfetto and jsonl; without it the path's ending says which. The others choose what is shown, as pyprof_output does in pyprof.h: metric (wall,
        cpu, gil, samples), detail (line, function), and so on. A filter that no stack passes is a ValueError."""
        path = os.fsencode(path)
        if b"\0" in path:
            raise ValueError("the path has a null byte")
        _check_filters(self._data, thread=thread, interpreter=interpreter, file=file, function=function)
        fields = _output(_format(path, format), metric=metric, detail=detail, include_idle=include_idle, merge_threads=merge_threads,
                         thread=thread, interpreter=interpreter, file=file, function=function, only_mine=only_mine,
                         min_share=min_share)
        if fields[0] < _FOREIGN:
            self._data.save(path, fields)
        else:
            _write_whole(path, self._data.write(*fields))

    def to_speedscope(self):
        """The document of speedscope.app, as dicts and lists."""
        import json
        return json.loads(self._data.write(*_output("speedscope")))

    def to_collapsed(self):
        """Collapsed stacks, "thread NAME;frame;frame MICROSECONDS", one a line."""
        return _text(self._data.write(*_output("collapsed")))

    def to_pprof(self):
        """A file of pprof's format, as bytes."""
        return self._data.write(*_output("pprof"))

    def __sub__(self, earlier):
        """What was recorded between two snapshots of one recording, as a Profile."""
        if not isinstance(earlier, Profile):
            return NotImplemented
        return _profile_of(_engine.unpack(_difference(self._packed, earlier._packed)), self._platform)


def _write_whole(path, data):
    """Beside the file first, then renamed; what exists and is no regular file is written into."""
    import tempfile
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        with open(target, "wb") as file:
            file.write(data)
        return
    try:
        descriptor, beside = tempfile.mkstemp(prefix=b".pyprof-", dir=os.path.dirname(target))
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


def _profile_of(data, platform=None):
    if platform is None:
        system = os.uname()
        platform = "%s-%s-%s" % (system.sysname, system.release, system.machine)
    profile = object.__new__(Profile)
    for name, value in (("_data", data), ("_facts", data.facts()), ("_packed_data", None), ("_platform", platform)):
        object.__setattr__(profile, name, value)
    return profile


def _restore(data, platform):
    """A Profile from its pickle; ValueError if that is broken."""
    if not isinstance(data, bytes) or not isinstance(platform, str):
        raise ValueError("not a whole profile: its pickle is not two texts")
    return _profile_of(_engine.unpack(data), platform)


# ---- the difference of two snapshots ----

_NOT_ONE = "the second profile is no earlier snapshot of the first one's recording"


def _places_in(later, earlier):
    """Which node of the later profile each one of the earlier profile is: nodes do not go, though a thread may get a name,
    or lose its id to others of its name."""
    places, taken = [], set()
    found = {(parent, identity): number for number, (parent, identity, _) in enumerate(later) if parent != _NO_NODE}
    roots = [(number, identity) for number, (parent, identity, _) in enumerate(later) if parent == _NO_NODE]
    for parent, identity, _ in earlier:
        if parent == _NO_NODE:
            same = [number for number, other in roots if number not in taken and (
                identity[4] == other[4] != 0 or identity[0] == other[0] and 0 in (identity[4], other[4]))]
            place = same[0] if same else None
            taken.add(place)
        else:
            place = found.get((places[parent], identity))
        if place is None:
            raise ValueError(_NOT_ONE)
        places.append(place)
    return places


def _figures_between(later, earlier, places):
    """Of each of the later profile's nodes. At the end of a snapshot the time since a thread's last sample was counted for
    where it was then; what the next sample said otherwise is less than nothing here, and is 0."""
    figures = [list(node[2]) for node in later]
    for place, (_, _, before) in zip(places, earlier):
        figures[place] = [max(a - b, 0) for a, b in zip(figures[place], before)]
    for figure in figures:
        figure[1] = min(figure[1], figure[0])
        figure[3] = min(figure[3], figure[2])
    return figures


def _difference(later, earlier):
    head, before = later.head, earlier.head
    # When it began, to the nanosecond, and how often it looks: what says that it is one.
    if head[4] != before[4] or head[6] != before[6] or head[5] < before[5]:
        raise ValueError(_NOT_ONE)
    nodes, nodes_before = later.identities(), earlier.identities()
    places = _places_in(nodes, nodes_before)
    figures = _figures_between(nodes, nodes_before, places)
    spans = _spans_between(later, earlier, places, before[5])
    data = [_HEAD.pack(*head[:2], len(spans), head[3], head[4] + before[5], head[5] - before[5], *head[6:]),
            _stats_between(later, earlier)]
    data += [_NODE.pack(*later.node(number)[:10], *figures[number]) for number in range(later.node_count)]
    data += spans
    data.append(later.data[later.texts:])
    return b"".join(data)


def _stats_between(later, earlier):
    """Counts are those of between; what tells how things are is the later one's."""
    count = later.head[14]
    figures = [list(struct.unpack_from("<%dQ" % count, packed.data, _HEAD.size)) for packed in (later, earlier)]
    stands = {_engine.figures.index(name) for name in ("bytes", "bytes_peak", "threads", "threads_unasked", "signal_number")}
    return struct.pack("<%dQ" % count, *(a if number in stands else max(a - b, 0)
                                         for number, (a, b) in enumerate(zip(*figures))))


def _spans_between(later, earlier, places, end_ns):
    """What of the later profile's spans the earlier one had not yet: what lies behind its end; and an answer that was under
    way then, which has its sample here and its time there."""
    coarsened = _engine.figures.index("timeline_coarsened")
    is_finer = len({struct.unpack_from("<Q", packed.data, _HEAD.size + 8 * coarsened) for packed in (later, earlier)}) == 1
    known = {}
    for number in range(earlier.span_count):
        span = earlier.span(number)
        known[places[span[1]], span[2]] = span
    spans = []
    for number in range(later.span_count):
        thread, node, start_ns, wall_ns, cpu_ns, samples, flags = later.span(number)
        old = known.get((node, start_ns))
        rest_ns = max(start_ns + wall_ns - max(start_ns, end_ns), 0)
        if old is not None:
            cpu_ns, samples = max(cpu_ns - old[4], 0), max(samples - old[5], 0)
        elif not is_finer and rest_ns == 0:  # one that was merged from what the earlier profile had
            continue
        if rest_ns or samples:
            spans.append(_SPAN.pack(thread, node, max(start_ns - end_ns, 0), rest_ns, cpu_ns, samples, flags))
    return spans


# ---- ways to record ----

class Profiler:
    """A context manager that records its block; takes what start() takes. May be used again, but not inside of a recording:
    that is a RuntimeError."""

    def __init__(self, interval_ms=_INTERVAL_MS, output_path=None, memory_limit_mb=64, *, rate_hz=None, quiet=False,
                 max_depth=1024):
        self._settings = _settings(interval_ms, output_path, memory_limit_mb, rate_hz=rate_hz, quiet=quiet,
                                   max_depth=max_depth)
        self._profile = None
        self._process = None

    @property
    def profile(self):
        """The Profile of the block, also if it raised. Before its end, RuntimeError."""
        if self._profile is None:
            raise RuntimeError("there is no profile yet: the block has to end first")
        return self._profile

    def __enter__(self):
        _begin(self._settings)
        self._process = os.getpid()
        return self

    def __exit__(self, kind, value, traceback):
        if os.getpid() != self._process:  # a forked child that leaves the block: it has no recording
            return
        self._profile, error = _end()
        if error is not None and kind is not None:  # the block's own exception goes first
            import warnings
            warnings.warn("the profile was not saved: %s" % error, RuntimeWarning, stacklevel=2)
        elif error is not None:
            raise error


class _Call:
    """Records one call of a decorated function, if nothing is recorded yet."""

    def __init__(self, profiler, tell):
        self._profiler = profiler
        self._tell = tell
        self._records = False

    def __enter__(self):
        try:
            self._profiler.__enter__()
            self._records = True
        except AlreadyActiveError:
            pass

    def __exit__(self, kind, value, traceback):
        if self._records:
            try:
                self._profiler.__exit__(kind, value, traceback)
            finally:
                if self._profiler._profile is not None:
                    self._tell(self._profiler._profile)


def _wrap_generator(function, call):
    def wrapper(*args, **kwargs):
        with call():
            return (yield from function(*args, **kwargs))
    return wrapper


def _wrap_coroutine(function, call):
    async def wrapper(*args, **kwargs):
        with call():
            return await function(*args, **kwargs)
    return wrapper


def _wrap_async_generator(function, call):
    async def wrapper(*args, **kwargs):
        with call():
            generator = function(*args, **kwargs)
            try:
                step = generator.__anext__()
                while True:
                    value = await step
                    try:
                        step = generator.asend((yield value))
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # thrown in from outside: the generator's to handle
                        step = generator.athrow(error)
            except StopAsyncIteration:
                pass
            finally:
                await generator.aclose()
    return wrapper


def _wrap_function(function, call):
    def wrapper(*args, **kwargs):
        with call():
            return function(*args, **kwargs)
    return wrapper


def _wrapping_of(function):
    """How a callable is wrapped; an object with __call__ as that method is."""
    import inspect
    while isinstance(function, functools.partial):
        function = function.func
    for one in (function, getattr(type(function), "__call__", None)):
        if inspect.isasyncgenfunction(one):
            return _wrap_async_generator
        if inspect.iscoroutinefunction(one):
            return _wrap_coroutine
        if inspect.isgeneratorfunction(one):
            return _wrap_generator
    return _wrap_function


def _is_awaited_generator(function):
    """One made by types.coroutine."""
    import inspect
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def profile(function=None, *, print_stats=False, **options):
    """A decorator, with or without call, that records calls of a function: takes what start() takes, by name, and
    print_stats, to print the figures of each.

    Coroutine functions are recorded until they have been awaited to their end, generators and async generators until they
    are closed; methods, with staticmethod or classmethod above or below it, as functions are. While something is recorded
    already, by an outer call, by another thread or by the host, a call runs plainly. The last profile is the attribute
    last_profile of the decorated function.

    Raises TypeError for what is not callable, and what start() raises for its options: for wrong ones at once, for an
    output_path that cannot be written at the call.
    """
    profiler_options = dict(options)
    try:
        _settings(**profiler_options)
    except TypeError as error:
        raise TypeError(str(error).replace("_settings()", "profile()")) from None
    if function is None:
        return lambda function: _decorate(function, profiler_options, print_stats)
    return _decorate(function, profiler_options, print_stats)


def _decorate(function, options, print_stats):
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(_decorate(function.__func__, options, print_stats))
    if not callable(function):
        raise TypeError("profile decorates functions and what else can be called, not %s" % type(function).__name__)

    def tell(profile):
        wrapper.last_profile = profile
        if print_stats:
            profile.print_stats()

    wrapper = _wrapping_of(function)(function, lambda: _Call(Profiler(**options), tell))
    wrapper = functools.wraps(function)(wrapper)
    if _is_awaited_generator(function):
        import types
        wrapper = types.coroutine(wrapper)
    wrapper.last_profile = None
    return wrapper


def record(function, *args, rate_hz=100, output_path=None, **kwargs):
    """Call function(*args, **kwargs) and record it; return what it returned and the Profile. What it raises comes through.

    Raises TypeError for coroutine functions and generators, whose call runs nothing yet: the decorator profile is for
    these.
    """
    if not callable(function):
        raise TypeError("record calls functions and what else can be called, not %s" % type(function).__name__)
    if _wrapping_of(function) is not _wrap_function:
        raise TypeError("a call of %r runs nothing of it yet: decorate it with pyprof.profile" % (function,))
    with Profiler(rate_hz=rate_hz, output_path=output_path) as profiler:
        result = function(*args, **kwargs)
    return result, profiler.profile


def top(duration=10, rate_hz=100, limit=20, file=None):
    """Record all threads for so many seconds and show the functions that take most, in file or standard output: on a
    terminal once a second, elsewhere once at the end. Ctrl-C ends it before."""
    file = sys.stdout if file is None else file
    is_live = getattr(file, "isatty", lambda: False)()
    rest = _number("duration", duration)
    if not rest >= 0:
        raise ValueError("duration is %r: it has to be 0 or more seconds" % (duration,))
    _check_limit(limit)
    start(rate_hz=rate_hz)
    end = time.monotonic() + rest
    try:
        while rest > 0:
            time.sleep(min(1, rest))
            if is_live:
                _show(snapshot(), limit, file, is_live)
            rest = end - time.monotonic()
    except KeyboardInterrupt:
        pass
    finally:
        profile = stop()
    _show(profile, limit, file, is_live)


def _show(profile, limit, file, is_live):
    file.write(("\x1b[H\x1b[J" if is_live else "") + profile._table(limit, "self"))
    file.flush()


if "heap" in __all__ and "__path__" in globals():  # where this is no package, the host adds it
    from . import heap
