"""The headers and the tools compile with musl, too, as on Alpine; with CPython's headers as glibc's system has them."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import compiling

TOOLS = ["pyprof-svg.c", "pyprof-run.c", "run_program.c", "run_host.c", "run_writer.c", "libpyprof.c",
         "libpyprof_heap.c"]
DEFINED = ['-DPYPROF_RUN_PYTHON="python3"', '-DPYPROF_RUN_TAG="3"', '-DPYPROF_RUN_LIBRARIES="."']


def multiarch():
    return subprocess.run(["gcc", "-print-multiarch"], check=True, stdout=subprocess.PIPE,
                          universal_newlines=True).stdout.strip()


class Musl(unittest.TestCase):
    def setUp(self):
        """The kernel's headers, which musl-gcc leaves out with all of the system's."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.includes = [compiling.python_include(), directory.name]
        own = os.path.join("/usr/include", multiarch())
        found = {name: path for name in ("linux", "asm-generic", "asm") for folder in ("/usr/include", own)
                 for path in [os.path.join(folder, name)] if os.path.isdir(path)}
        found.update({multiarch(): own} if multiarch() else {}) # Debian's pyconfig.h asks for it by this name
        for name, path in found.items():
            os.symlink(path, os.path.join(directory.name, name))

    def command(self, standard):
        return compiling.command("musl-gcc", standard, self.includes) + ["-fsyntax-only"]

    def assert_silent(self, complaints, what):
        with self.subTest(what):
            if complaints:
                self.fail("\n" + complaints[:3000])

    def test_header(self):
        for standard in ("c99", "gnu11"):
            for name, text in compiling.UNITS.items():
                if name == "implementation behind declarations" or name == "implementation behind Python":
                    continue # musl, unlike glibc, tells a strict C from what came first in no way
                self.assert_silent(compiling.compile_text(self.command(standard), text, standard), name)

    def test_tools(self):
        for name in TOOLS:
            path = os.path.join(compiling.SOURCE, "tools", name)
            run = subprocess.run(self.command("gnu11") + DEFINED + [path], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, universal_newlines=True)
            self.assert_silent(run.stdout, name)


if __name__ == "__main__":
    if not shutil.which("musl-gcc"):
        print("skipped: no musl-gcc")
        sys.exit(77)
    unittest.main()
