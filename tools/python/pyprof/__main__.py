"""Records a Python program in this process: python -m pyprof record script.py"""
import functools
import io
import os
import runpy
import signal
import sys
import threading
import time
import types

import pyprof
import pyprof.heap

USAGE = """\
usage: python -m pyprof record [OPTIONS] SCRIPT [ARGS...]
       python -m pyprof record [OPTIONS] -m MODULE [ARGS...]
       python -m pyprof record [OPTIONS] -c CODE [ARGS...]
       python -m pyprof top [OPTIONS] SCRIPT [ARGS...]      (or -m MODULE, or -c CODE)
       python -m pyprof convert [OPTIONS] FILE...           --help tells more

record runs a Python program as python does, and records where it spends its time; top shows that on standard error,
once a second on a terminal, else once at the end.

  -o, --output FILE       where the profile goes, in the format that the ending says; may be given several times
                          (default: SCRIPT-DATE-TIME.svg)
  -f, --format FORMAT     svg, collapsed (raw), speedscope, pprof, table, pstats, firefox, perfetto or jsonl, for files
                          whose ending does not say; table without -o goes to standard error
  -r, --rate HZ           samples a second, 0.1 to 20000 (default: 100)
  -d, --duration SECONDS  end the recording after this time; the program goes on
      --heap              what of its memory is in use when it has ended, and by which lines it was allocated, into the
                          next -o (if none comes behind it: the first). Other -o are of time; with none, only memory is
                          recorded
      --heap-rate KIB     one sample in so many KiB that are allocated, on average (default: 512)
  -q, --quiet             say nothing but errors
      --metric METRIC     wall (default), cpu, or gil: time while holding the GIL; of memory inuse_space (default),
                          inuse_objects, alloc_space or alloc_objects
  -g, --gil               the same as --metric gil
  -i, --idle              also the time in which threads only wait
  -F, --function          one frame a function, not one a line
      --only-thread NAME, --only-interpreter NAME
                          what this thread did, or happened in this interpreter
      --only-file PATH, --only-function NAME
                          stacks with a frame of a file whose path begins so, or of this qualified name; in all of these
                          * stands for any text
      --only-mine         frames of one package that is not yours are one frame
      --min-share PART    what has less of the whole (0 to 1) is added to its caller
      --depth FRAMES      frames of a stack that are kept, 16 to 65536 (default: 1024)
      --memory SIZE       what the recording may hold, as in 256M (default: 64M)
      --signal SIGNAL     the signal that asks a thread for its stack, by name or number; none: no signal at all, less
                          exact (default: URG, or a real-time signal)
  -t, --threads           threads apart in the picture, not merged
      --title TEXT, --subtitle TEXT, --width PIXELS, --min-width PIXELS, --inverted
                          the picture: as pyprof-svg has them
  -n, --limit COUNT       top: so many functions (default: 20)
  -h, --help              this text
  -V, --version           the versions of pyprof and of this Python

The program's exit code is kept; if it succeeds but the profile cannot be written, it is 1. The profile is written before
os._exit, os.exec* and a signal that ends the process (HUP, TERM, QUIT, ALRM, USR1, USR2, XCPU: after the next moment in
which the GIL is free; INT as Python has it). It is lost if the process crashes (SEGV, ABRT, ...), is killed, or is ended by
C code (_exit). Child processes are not recorded, nor is a daemon, once its parent has ended. The command pyprof-run, of the
same repository, loses none of these.
"""

WITH_VALUE = {"-o": "output", "-f": "format", "-r": "rate", "-d": "duration", "--metric": "metric", "--depth": "depth",
              "--memory": "memory", "-n": "limit", "-m": "module", "-c": "code", "--only-thread": "thread",
              "--only-interpreter": "interpreter", "--only-file": "file", "--only-function": "of_function",
              "--min-share": "min_share", "--signal": "signal", "--title": "title", "--subtitle": "subtitle",
              "--width": "width", "--min-width": "min_width", "--heap-rate": "heap_rate"}
WITHOUT = {"-q": "quiet", "-g": "gil", "-i": "idle", "-F": "function", "-h": "help", "-V": "version",
           "--only-mine": "only_mine", "-t": "threads", "--inverted": "inverted", "--heap": "heap"}
HEAP_METRICS = ("inuse_space", "inuse_objects", "alloc_space", "alloc_objects")
FORMATS = {"svg": "svg", "flamegraph": "svg", "collapsed": "collapsed", "raw": "collapsed", "txt": "collapsed",
           "folded": "collapsed", "speedscope": "speedscope", "json": "speedscope", "pprof": "pprof", "table": "table",
           "pstats": "pstats", "firefox": "firefox", "perfetto": "perfetto", "chrometrace": "perfetto", "jsonl": "jsonl",
           "ndjson": "jsonl"}
# No options by these names.
NO_NAMES = ("module", "code", "thread", "interpreter", "file", "of_function", "min_share", "only_mine", "min_width", "heap_rate")


def end(text):
    print("pyprof: " + text, file=sys.stderr)
    raise SystemExit(2)


class Options:
    """What the command line asks for."""

    def __init__(self, words):
        self.output = []  # [path, whether it is of memory]
        self.format, self.rate, self.duration = None, "100", None
        self.heap, self.heap_rate, self.heap_metric, self.heap_is_next = False, None, None, False
        self.metric, self.depth, self.memory, self.limit = "wall", "1024", "64M", "20"
        self.quiet = self.gil = self.idle = self.function = self.help = self.version = False
        self.module = self.code = self.thread = self.interpreter = self.file = self.of_function = None
        self.only_mine, self.min_share = False, "0"
        self.signal = self.title = self.subtitle = self.width = self.min_width = None
        self.threads = self.inverted = False
        self.rest = list(words)
        while self.module is None and self.code is None and len(self.rest[:1]) and self.rest[0][:1] == "-" != self.rest[0]:
            if self.rest[0] == "--":
                self.rest.pop(0)
                break
            self.take(*self.split(self.rest.pop(0)))
        if not (self.help or self.version):
            self.check()

    @staticmethod
    def split(word):
        """(option, its value in the same word or None)"""
        if word.startswith("--"):
            name, sign, value = word.partition("=")
            return name, value if sign else None
        return word[:2], word[2:] or None

    def take(self, name, value):
        names = dict(WITH_VALUE, **WITHOUT)
        is_long = name[:2] == "--" and name[2:] in names.values() and name[2:] not in NO_NAMES
        attribute = names.get(name) or (name[2:] if is_long else None)
        if attribute is None:
            end("there is no option %s: python -m pyprof --help names them" % name)
        if attribute in WITHOUT.values():
            if value is not None and name.startswith("--"):
                end("%s takes no value" % name)
            if value is not None:
                self.rest.insert(0, "-" + value)
            setattr(self, attribute, True)
            self.heap_is_next = self.heap_is_next or attribute == "heap"
            return
        if value is None and not self.rest:
            end("%s needs a value" % name)
        value = value if value is not None else self.rest.pop(0)
        if attribute == "output":
            self.output.append([value, self.heap_is_next])
            self.heap_is_next = False
        elif attribute == "metric" and value in HEAP_METRICS:
            self.heap_metric = value
        else:
            setattr(self, attribute, value)

    def check(self):
        self.rate = self.number("--rate", self.rate, 0.1, 20000)
        self.duration = self.number("--duration", self.duration, 0.001, 1e9) if self.duration is not None else None
        self.depth = int(self.number("--depth", self.depth, 16, 65536))
        self.limit = int(self.number("--limit", self.limit, 1, 1e9))
        unit = {"M": 1, "G": 1024, "K": 1 / 1024}.get(self.memory[-1:].upper())
        self.memory = self.number("--memory", self.memory[:-1] if unit else self.memory, 0, 1e15) * (unit or 1 / 1024 / 1024)
        self.min_share = self.number("--min-share", self.min_share, 0, 1)
        self.signal = self.signal_number(self.signal)
        if self.width is not None and not self.width.isdigit():
            end("--width: %r is not a whole number of pixels" % self.width)
        self.number("--width", self.width or "1200", 300, 100000)
        if self.look() and not hasattr(pyprof._engine, "convert"):
            end("%s: this build cannot draw so: zlib's headers were not there" % self.look()[0])
        self.number("--min-width", self.min_width or "1", 0.01, 100)
        if self.gil:
            self.metric = "gil"
        if self.metric not in ("wall", "cpu", "gil"):
            end("--metric: %r is not wall, cpu or gil, nor %s, with --heap" % (self.metric, ", ".join(HEAP_METRICS)))
        if not self.heap and (self.heap_rate or self.heap_metric):
            end("%s needs --heap" % ("--heap-rate" if self.heap_rate else "--metric " + self.heap_metric))
        self.heap_rate = self.number("--heap-rate", self.heap_rate or "512", 0.001, 1048576)
        if self.heap and self.output and not any(is_heap for _, is_heap in self.output):
            self.output[0][1] = True
        if self.format is not None and self.format.lower() not in FORMATS:
            end("--format: %r is not %s" % (self.format, ", ".join(sorted(set(FORMATS.values())))))
        if self.module is None and self.code is None and not self.rest:
            end("nothing to run: a SCRIPT, -m MODULE or -c CODE is needed")

    @staticmethod
    def number(name, text, least, most):
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value <= most:
            end("%s: %r is not a number from %g to %.10g" % (name, text, least, most))
        return value

    @staticmethod
    def signal_number(text):
        """0 = the profiler chooses one; None = none is sent."""
        if text is None:
            return 0
        name = text.upper()[3:] if text[:3].upper() == "SIG" else text.upper()
        if name == "NONE":
            return None
        known = {number.name[3:]: int(number) for number in signal.Signals}
        for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
            known["RTMIN+%d" % (number - signal.SIGRTMIN)] = known["RTMAX-%d" % (signal.SIGRTMAX - number)] = number
        known.update((str(number), number) for number in list(known.values()))
        if name not in known:
            end("--signal: %r is no signal that can ask a thread for its stack: a name (USR2, RTMIN+3), a number, or none" % text)
        return known[name]

    def look(self):
        """What pyprof-convert has to be told of how a picture looks."""
        valued = (("--title", self.title), ("--subtitle", self.subtitle), ("--width", self.width), ("--min-width", self.min_width))
        words = ["%s=%s" % (name, value) for name, value in valued if value is not None]
        return words + ["--threads"] * self.threads + ["--inverted"] * self.inverted

    def outputs(self):
        """[(path, format, whether it is of memory)]; the path None is standard error."""
        form = FORMATS.get((self.format or "").lower())
        if self.output:
            return [(os.path.abspath(path), form, is_heap) for path, is_heap in self.output]
        if form == "table":
            return [(None, form, self.heap)]
        name = self.module or ("code" if self.code is not None else os.path.basename(os.path.abspath(self.rest[0])))
        name = name[:-3] if name.endswith(".py") else name
        endings = {None: "svg", "collapsed": "txt", "speedscope": "speedscope.json", "pprof": "pb.gz",
                   "firefox": "firefox.json", "perfetto": "perfetto.json"}
        stamp = time.strftime("%Y%m%d-%H%M%S") + ".heap" * self.heap
        return [(os.path.abspath("%s-%s.%s" % (name, stamp, endings.get(form, form))), form, self.heap)]


# The files of what runs the program.
RUNNER = {__file__, runpy.__file__, "<frozen runpy>"}


def program_alone(profile):
    """The profile without the runner's frames above the program's."""
    return pyprof._restore(packed_alone(profile._packed), profile.platform)


def heap_alone(snapshot):
    return pyprof.heap._restore(packed_alone(snapshot._live.packed), snapshot._live.data)


def packed_alone(packed):
    nodes, runners = [], {}
    for number in range(packed.node_count):
        node = list(packed.node(number))
        if node[0] == pyprof._NO_NODE:
            runners[number] = number
        elif node[0] in runners:
            root = runners[node[0]]
            if packed.frame(number)[0].filename in RUNNER:
                runners[number] = root
            else:
                node[0] = root
        nodes.append(pyprof._NODE.pack(*node))
    return packed.data[:packed.nodes] + b"".join(nodes) + packed.data[packed.spans:]


class Recording:
    """Of this process, from begin to its end or that of the time that was asked for."""

    def __init__(self, options):
        self.options = options
        self.outputs = options.outputs()
        self.process = os.getpid()
        self.is_timed = not all(is_heap for _, _, is_heap in self.outputs)
        self.profile = self.heap = None
        self.is_saved = None  # known as soon as it was tried
        self.lock = threading.RLock()
        self.ended = threading.Event()

    def begin(self):
        for path, _, _ in self.outputs:
            if path is not None:
                pyprof._check_writable(os.fsencode(path).replace(b"%", b"%%"))
        number = self.options.signal
        settings = pyprof._settings(rate_hz=self.options.rate, memory_limit_mb=self.options.memory, max_depth=self.options.depth,
                                    quiet=number is None)
        if self.options.heap:
            pyprof.heap.start(self.options.heap_rate, memory_limit_mb=max(1, self.options.memory),
                              max_depth=self.options.depth)
        if self.is_timed:
            pyprof._begin(settings, number or 0)
        for name in ("_exit", "execv", "execve"):  # os's other exec functions call these
            self.save_before(name)
        pyprof._engine.before_signals(self.save)
        if self.options.duration is not None:
            threading.Thread(target=self.end_in_time, name="pyprof duration", daemon=True).start()

    def save_before(self, name):
        """A function of os that ends the program comes after the profile; in a forked child it is as it was."""
        function = getattr(os, name)

        @functools.wraps(function)
        def save_first(*args, **kwargs):
            if os.getpid() == self.process and (name == "_exit" or can_be_executed(*args[:1])):
                failed = not self.save()
                args = (1,) if name == "_exit" and failed and args == (0,) else args
            return function(*args, **kwargs)
        setattr(os, name, save_first)
        if function in os.supports_fd:
            os.supports_fd.add(save_first)

    def end_in_time(self):
        if not self.ended.wait(self.options.duration):
            self.stop()

    def stop(self):
        with self.lock:
            if not self.ended.is_set():
                self.ended.set()
                if self.options.heap:
                    self.heap = pyprof.heap.get_snapshot()
                    pyprof.heap.stop()
                if self.is_timed:
                    self.profile = program_alone(pyprof.stop())
                if self.options.heap:
                    self.heap = heap_alone(self.heap)
            return self.profile

    def save(self):
        """Whether all could be written. It is done once, whoever is the first to ask for it."""
        with self.lock:
            if self.is_saved is None:
                self.is_saved = self.write()
                if sys.stderr is not None:
                    sys.stderr.flush()  # 3.8 keeps what is not for a terminal, and os._exit would lose it
            return self.is_saved

    def write(self):
        self.stop()
        options, failed = self.options, False
        filters = {"detail": "function" if options.function else "line", "thread": options.thread,
                   "interpreter": options.interpreter, "file": options.file, "function": options.of_function,
                   "only_mine": options.only_mine, "min_share": options.min_share}
        for path, form, is_heap in self.outputs:
            if is_heap:
                profile, metric, more = self.heap, options.heap_metric or "inuse_space", dict(filters)
            else:
                profile, metric, more = self.profile, options.metric, dict(filters, include_idle=options.idle)
            more["metric"] = metric
            try:
                if path is None:
                    more["metric"] = pyprof.heap._METRICS[metric] if is_heap else metric
                    sys.stderr.write(profile._data.write(*pyprof._output(form, **more)).decode("utf-8", "replace"))
                elif options.look() and (form or "svg") == "svg" and (form or path.endswith(".svg")):
                    failed = not self.draw(profile, path, metric) or failed
                else:
                    profile.save(path, form, **more)
            except (OSError, ValueError, MemoryError) as error:
                failed = True
                print("pyprof: %s" % error, file=sys.stderr)
        if not options.quiet and not failed:
            self.tell()
        return not failed

    def draw(self, profile, path, metric):
        """The picture with a look of its own, by pyprof-convert, which says what is wrong."""
        import tempfile
        options = self.options
        filters = (("--only-thread", options.thread), ("--only-interpreter", options.interpreter), ("--only-file", options.file),
                   ("--only-function", options.of_function), ("--min-share", options.min_share))
        words = ["%s=%s" % (name, value) for name, value in filters if value] + options.look()
        words += ["--idle"] * options.idle + ["--function"] * options.function + ["--only-mine"] * options.only_mine
        with tempfile.TemporaryDirectory(prefix="pyprof-") as folder:
            whole = os.path.join(folder, "whole.jsonl")
            profile.save(whole, "jsonl")
            words += ["--metric=" + metric, "--format=svg", "--output=" + path, whole]
            return pyprof._engine.convert([b"pyprof convert"] + [os.fsencode(word) for word in words]) == 0

    def tell(self):
        if self.options.heap:
            heap = self.heap
            self.tell_line("%.1f MiB in use, give or take %.1f KiB (%d samples, of them %d in use)" % (
                heap.estimated_heap_bytes / 2 ** 20, heap.error_bytes / 2 ** 10, heap.total_samples, heap.live_samples), True)
        if self.is_timed:
            stats = self.profile.stats
            self.tell_line("%d samples in %.1f s (%d of waiting threads, %d lost)" % (
                stats.samples, self.profile.duration, stats.samples_idle, stats.dropped_samples), False)

    def tell_line(self, text, is_heap):
        wrote = ", ".join(os.path.relpath(path) for path, _, of_heap in self.outputs if path and of_heap == is_heap)
        print("pyprof: %s%s" % (text, "; wrote " + wrote if wrote else ""), file=sys.stderr)


class Live(Recording):
    """The same, shown on standard error."""

    def __init__(self, options):
        if options.heap:
            end("--heap: top shows time")
        options.output, options.format = [], "table"
        super().__init__(options)

    def begin(self):
        super().begin()
        if sys.stderr.isatty():
            threading.Thread(target=self.show_each_second, name="pyprof top", daemon=True).start()

    def show_each_second(self):
        while not self.ended.wait(1):
            try:
                pyprof._show(program_alone(pyprof.snapshot()), self.options.limit, sys.stderr, True)
            except RuntimeError:  # it has just ended
                return

    def write(self):
        pyprof._show(self.stop(), self.options.limit, sys.stderr, sys.stderr.isatty())
        return True


def can_be_executed(path=None):
    """Whether os.exec* is likely to succeed; it tries the folders of PATH one by one, and a recording ends but once."""
    return isinstance(path, int) or (path is not None and os.access(path, os.X_OK))


# ---- the program ----

def new_main(**names):
    """An empty module __main__, as the program expects it."""
    module = types.ModuleType("__main__")
    module.__dict__.update(names, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    return module.__dict__


def replace_first_path(folder):
    """python -m has put the current folder there, unless it was told not to."""
    if not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
        sys.path[0] = folder


def program_of(options):
    """A function that runs the program; what cannot be read is told before anything is recorded."""
    if options.module is not None:
        sys.argv[:] = [options.module] + options.rest
        return lambda: runpy.run_module(options.module, run_name="__main__", alter_sys=True)
    if options.code is not None:
        sys.argv[:] = ["-c"] + options.rest
        code = compile(options.code, "<string>", "exec")
        return lambda: exec(code, new_main())
    path = options.rest[0]
    sys.argv[:] = options.rest
    os.stat(path)
    if not os.path.isfile(path) or not is_source(path):
        del sys.path[:1 if not getattr(sys.flags, "safe_path", False) else 0]
        return lambda: runpy.run_path(path, run_name="__main__")
    folder = os.path.dirname(os.path.realpath(path))
    if sys.version_info >= (3, 9):
        path = os.path.abspath(path)
    with io.open_code(os.path.abspath(path)) as file:
        text = file.read()
    code = compile(text, path, "exec")
    replace_first_path(folder)
    return lambda: exec(code, new_main(__file__=path, __cached__=None, __doc__=None))


def is_source(path):
    """Not a zip file, nor compiled code."""
    import zipfile
    return not zipfile.is_zipfile(path) and not path.endswith(".pyc")


def traceback_of(error):
    """Without what runs the program; None if it had not begun."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in RUNNER:
        trace = trace.tb_next
    return trace


def wait_for_threads():
    """As python does before it ends."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


class NotBegun(Exception):
    """The program could not be started."""


def run(program):
    """Its exit code: a number, or what sys.exit was given."""
    try:
        program()
        wait_for_threads()
    except SystemExit as error:
        wait_for_threads()
        return error.code
    except BaseException as error:
        trace = traceback_of(error)
        if trace is None and isinstance(error, ImportError):
            raise NotBegun(str(error)) from None
        error = error.with_traceback(trace)
        sys.excepthook(type(error), error, trace)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def record(words, kind):
    options = Options(words)
    if options.help or options.version:
        return tell(options)
    try:
        program = program_of(options)
        recording = kind(options)
        recording.begin()
    except (OSError, ValueError, RuntimeError, SyntaxError) as error:
        end("cannot record %s: %s" % (options.module or (options.rest or ["the code"])[0], error))
    try:
        code = run(program)
    except NotBegun as error:
        recording.stop()
        end("cannot record %s: %s" % (options.module or options.rest[0], error))
    if os.getpid() != recording.process:  # a child that the program forked
        sys.exit(code)
    done = recording.save()
    pyprof._engine.before_signals(None)
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    sys.exit(code if code or done else 1)


def tell(options):
    print(USAGE if options.help else "pyprof 0.1, Python " + sys.version, end="" if options.help else "\n")


def convert(words):
    """What the command pyprof-convert does."""
    main = getattr(pyprof._engine, "convert", None)
    if main is None:
        end("convert: this build has no pyprof-convert: zlib's headers were not there")
    sys.exit(main([b"pyprof convert"] + [os.fsencode(word) for word in words]))


def main():
    command, words = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if command == "record":
        record(words, Recording)
    elif command == "top":
        record(words, Live)
    elif command == "convert":
        convert(words)
    elif command in ("-h", "--help", "help"):
        print(USAGE, end="")
    elif command in ("-V", "--version"):
        tell(Options([command]))
    else:
        end("%s: record, top or convert is needed; python -m pyprof --help tells more" % (command or "no command"))


if __name__ == "__main__":
    main()
