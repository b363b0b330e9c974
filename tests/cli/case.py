"""What the tests of pyprof-run share: a folder to work in, and the same program under it and under python3."""

import json
import multiprocessing.pool
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import collapsed

RUN = os.path.join(os.environ["PYPROF_BUILD"], "tools", "pyprof-run")
with open(RUN, "rb") as tool:
    IS_SANITIZED = b"libasan" in tool.read()
PYTHON = os.environ["PYPROF_PYTHON"]
VERSION = tuple(json.loads(subprocess.check_output([PYTHON, "-c", "import sys; print(list(sys.version_info[:2]))"])))
TIMEOUT = 120

# Enough work for some samples at 1000 Hz, in functions with known names.
BUSY = """
def leaf_of_busy(n):
    total = 0
    for i in range(n):
        total += i * i % 7
    return total
def busy():
    for i in range(40):
        leaf_of_busy(50000)
"""


# The same in a short time of the processor's, for tests of many programs; none under python3, which needs no samples. It is
# work to do besides: a virtual machine that is stopped for a while counts that as time of whoever had the processor. So many
# rounds take some 50 ms, 50 ticks of the sampler's, of which one is enough; the time is for machines on which they take less.
SOME = """
import os, time
def leaf_of_some():
    return sum(range(2000))
def some(seconds=0.05):
    end = time.process_time() + seconds
    rounds = 0
    while "OUT" in os.environ and (rounds < 1500 or time.process_time() < end):
        leaf_of_some()
        rounds += 1
some()
"""


def clean_environment(**more):
    """No virtual environment, no PYTHON* variables, and `python3` is the target."""
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith("PYTHON") and key not in ("VIRTUAL_ENV", "PYENV_VERSION")}
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    kept["PATH"] = os.path.dirname(PYTHON) + ":/usr/bin:/bin"
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):  # their handlers are not the program's
        kept[name] = kept.get(name, "") + ":handle_segv=0:handle_sigbus=0:handle_sigfpe=0"
    kept.update(more)
    return kept


def default_signals():
    """A shell may have started the tests with signals ignored; then Ctrl-C is nothing to test."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def lines_of_ours(lines):
    """What pyprof-run said, without what a busy machine keeps it from measuring: that is told when it is so, and cannot
    be had when it is wanted."""
    return [text for text in lines if text.startswith("pyprof-run: ") and not re.match(
        r"pyprof-run: warning: (the sampler came too late|\d+ % of the samples (show \[unsettled\]|that did not wait are of JIT))", text)]


class SamplerWasLate(AssertionError):
    """A sample that should be there is not, and the run says itself that the machine kept it from sampling."""


def side_by_side(check, rows, together=4):
    """Calls check(row) for all rows, some at a time; all that fail are told. What could not be measured is done again, but
    not for ever: a sampler that is late each time is no machine's fault."""
    def one(row):
        try:
            for _ in range(2):
                try:
                    check(row)
                    return ""
                except SamplerWasLate as late:
                    print("again:", late, file=sys.stderr, flush=True)
            check(row)
        except Exception:
            return "%s\n%s" % (row if isinstance(row, str) else row[0], traceback.format_exc())
        return ""
    with multiprocessing.pool.ThreadPool(together) as pool:
        wrong = [text for text in pool.map(one, rows, chunksize=1) if text]
    if wrong:
        raise AssertionError("%d of %d\n\n%s" % (len(wrong), len(rows), "\n".join(wrong)))


def wait_until(condition):
    """As long as a busy machine may take, and no longer: what hangs is to be seen."""
    end = time.monotonic() + 2 * TIMEOUT
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.01)


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="pyprof-run-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.work = os.path.join(self.dir, "work")
        os.mkdir(self.work)
        self.out = os.path.join(self.dir, "out.collapsed")
        self.env = clean_environment(OUT=self.out)

    def file(self, name, text=""):
        path = os.path.join(self.work, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(text))
        return path

    def start(self, command, **more):
        more.setdefault("env", self.env)
        return subprocess.Popen(command, cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                preexec_fn=default_signals, universal_newlines=True, **more)

    def call(self, command, stdin="", **more):
        process = self.start(command, stdin=subprocess.PIPE, **more)
        try:
            out, err = process.communicate(stdin, TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return process.returncode, out, re.sub(r"0x[0-9a-f]+|(?<=\(pid=)\d+", "0x", err)

    def profiled(self, *arguments, **more):
        return self.call([RUN, "-q", "-r", "1000", "-o", self.out, *arguments], **more)

    def read(self, path=None):
        with open(path or self.out, encoding="utf-8") as file:
            return file.read()

    def stacks(self):
        return collapsed.parse(self.read())

    def same(self, *arguments, profile=True, **more):
        """Runs it under python3 and under pyprof-run; they must agree. Answers what both said. profile=None: it may have
        failed before anything of it was sampled."""
        expected = self.call(["python3", *arguments], **more)
        real = self.profiled(*arguments, **more)
        self.assertEqual(expected, real)
        if profile is not None:
            self.assertEqual(profile, os.path.exists(self.out), "is there a profile?")
        self.assertNoLitter()
        return expected

    def assertNoLitter(self):
        """No partial or temporary file of the profile is left."""
        self.assertLessEqual(set(os.listdir(self.dir)) - {"work"}, {"out.collapsed"})

    def assertProfileHolds(self, *functions):
        text = self.read()
        for function in functions:
            self.assertRegex(text, r"[; ]%s \(" % re.escape(function))
