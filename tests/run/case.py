"""What the tests of pyprof-run share: a folder to work in, and the same program under it and under python3."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import textwrap
import unittest

RUN = os.path.join(os.environ["PYPROF_BUILD"], "tools", "pyprof-run")
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
        return process.returncode, out, re.sub("0x[0-9a-f]+", "0x", err)

    def profiled(self, *arguments, **more):
        return self.call([RUN, "-r", "1000", "-o", self.out, *arguments], **more)

    def read(self, path=None):
        with open(path or self.out, encoding="utf-8") as file:
            return file.read()

    def same(self, *arguments, profile=True, **more):
        """Runs it under python3 and under pyprof-run; they must agree. Answers what both said."""
        expected = self.call(["python3", *arguments], **more)
        real = self.profiled(*arguments, **more)
        self.assertEqual(expected, real)
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
