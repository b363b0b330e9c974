"""The implementation gives a program the documented functions, and no other name."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import compiling

IMPLEMENTATION = '#define PYPROF_IMPLEMENTATION\n#include "pyprof.h"\n'


def declared():
    with open(compiling.HEADER, encoding="utf-8") as file:
        return set(re.findall(r"^PYPROF_API [^(;]*?\b(pyprof_\w+)\(", file.read(), re.MULTILINE))


def external_symbols(text, standard):
    """What an object file made of the text defines for others, with nm's letter: T is code, the rest is data."""
    with tempfile.TemporaryDirectory() as directory:
        object_file = os.path.join(directory, "unit.o")
        arguments = compiling.command("cc", standard, [compiling.python_include()]) + ["-c", "-o", object_file]
        complaints = compiling.compile_text(arguments, text, standard)
        if complaints:
            raise AssertionError(complaints)
        lines = subprocess.run(["nm", "--extern-only", "--defined-only", object_file], check=True,
                               stdout=subprocess.PIPE, universal_newlines=True).stdout.splitlines()
    return {(line.split()[-2], line.split()[-1]) for line in lines}


class Symbols(unittest.TestCase):
    def test_the_header_declares_functions(self):
        self.assertLessEqual({"pyprof_start", "pyprof_stop", "pyprof_save", "pyprof_write"}, declared())

    def test_only_documented_functions(self):
        for standard in ["gnu11", "c++17"]:
            with self.subTest(standard=standard):
                self.assertEqual({("T", name) for name in declared()}, external_symbols(IMPLEMENTATION, standard))

    def test_static_gives_nothing(self):
        text = "#define PYPROF_STATIC\n" + IMPLEMENTATION
        self.assertEqual(set(), external_symbols(text, "gnu11"))

    def test_the_interpreter_stays_in_its_library(self):
        """A copy of _PyRuntime in the program would have the size that it had where the program was linked."""
        program = os.path.join(os.environ["PYPROF_BUILD"], "tests", "common", "host")
        lines = subprocess.run(["readelf", "--relocs", "--wide", program], check=True, stdout=subprocess.PIPE,
                               universal_newlines=True).stdout.splitlines()
        kinds = {line.split()[2] for line in lines if "Py" in line}
        self.assertTrue([kind for kind in kinds if kind.endswith("_COPY")], "there should be copies of types")
        runtime = [line.split()[2] for line in lines if " _PyRuntime " in line]
        self.assertFalse([kind for kind in runtime if kind.endswith("_COPY")])


if __name__ == "__main__":
    if not shutil.which("nm"):
        print("skipped: no nm")
        sys.exit(77)
    unittest.main()
