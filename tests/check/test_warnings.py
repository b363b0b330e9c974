"""Nothing compiles with a warning: test_warnings.py COMPILER [Header | Includes | Optimized]"""
import concurrent.futures
import glob
import os
import shutil
import sys
import unittest

import compiling

COMPILER = sys.argv.pop(1)
STANDARDS = ["c99", "gnu99", "c11", "gnu11", "c++17", "gnu++17"]
STRICT = ["c99", "c11", "c++17"]
# A strict C hides the system's functions from the first header on, so there the implementation must come first.
BEHIND_OTHERS = {"c99": "gnu99", "c11": "gnu11"}
# With NDEBUG a variable may be used for nothing any more. Some of gcc's warnings are its optimizer's, and each level may
# have its own. All of clang's come before its optimizer: at another level only a macro differs (__OPTIMIZE__, the same
# at each).
LEVELS = {"gcc": [["-O0"], ["-O0", "-DNDEBUG"], ["-O2"], ["-O3"], ["-Os"]],
          "clang": [["-O0"], ["-O0", "-DNDEBUG"], ["-O2"]]}
# NDEBUG is for the preprocessor, and clang's __OPTIMIZE__, too: there the text alone is read. So it is with gcc at -O0 and
# -O2, where `tools/dev test` builds all this with the same warnings as errors (set_up_row), but not the header in C++.
TO_THE_END = {"gcc": [["-O3"], ["-Os"]], "clang": [["-O0"]]}


class Warnings(unittest.TestCase):
    def assert_compiles(self, name, standard, includes):
        with self.subTest(standard=standard, unit=name):
            arguments = compiling.command(COMPILER, standard, includes) + ["-fsyntax-only"]
            complaints = compiling.compile_text(arguments, compiling.UNITS[name], standard)
            if complaints:
                self.fail("\n" + complaints[:2000])


class Header(Warnings):
    """Against each CPython: the module includes the implementation."""

    def test_module(self):
        for standard in STRICT:
            self.assert_compiles("with the module", standard, [compiling.python_include()])


class Includes(Warnings):
    """What is the same for each CPython."""

    def test_every_standard(self):
        for standard in STANDARDS:
            self.assert_compiles("implementation", standard, [compiling.python_include()])

    def test_every_way_to_include(self):
        for name in compiling.UNITS.keys() - {"implementation"}:
            for standard in STRICT:
                if name == "implementation behind declarations":
                    standard = BEHIND_OTHERS.get(standard, standard)
                self.assert_compiles(name, standard, [compiling.python_include()])

    def test_plugin_behind_others(self):
        """Code that may be unloaded needs more of the system."""
        for standard in "gnu99", "gnu11", "c++17":
            with self.subTest(standard=standard):
                arguments = compiling.command(COMPILER, standard, [compiling.python_include()]) + ["-fPIC", "-fsyntax-only"]
                self.assertEqual("", compiling.compile_text(
                    arguments, "#include <dlfcn.h>\n" + compiling.UNITS["implementation"], standard))

    def test_declarations_need_no_python(self):
        for standard in STRICT:
            self.assert_compiles("declarations", standard, [])
            self.assert_compiles("no recording", standard, [])

    def test_other_processors_are_refused(self):
        arguments = compiling.command(COMPILER, "c11", [compiling.python_include()]) + [
            "-fsyntax-only", "-U__BYTE_ORDER__", "-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__"]
        self.assertIn("only 64-bit little-endian processors",
                      compiling.compile_text(arguments, compiling.UNITS["implementation"], "c11"))


class Optimized(unittest.TestCase):
    """All that is compiled for others, at every level: the header and the tools."""

    def test_every_level(self):
        tools = sorted(glob.glob(os.path.join(compiling.SOURCE, "tools", "*.c")))
        self.assertGreaterEqual(len(tools), 2)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = {}
            for level in LEVELS[COMPILER]:
                for standard in ["c11", "c++17"] if level == ["-O2"] else ["c11"]:
                    jobs["the header as " + standard, *level] = pool.submit(
                        compiling.compile_text, self.command(standard, level), compiling.UNITS["implementation"], standard)
                for path in tools:
                    jobs[os.path.basename(path), *level] = pool.submit(
                        compiling.complaints, self.command("gnu11", level) + [path])
        for what, job in jobs.items():
            with self.subTest(what=" ".join(what)):
                if job.result():
                    self.fail("\n" + job.result()[:2000])

    def command(self, standard, level):
        is_built_by_none = COMPILER == "gcc" and "++" in standard
        return (compiling.command(COMPILER, standard, [compiling.python_include()]) + level +
                ["-DPYPROF_RUN_PYTHON=\"python3\"", "-DPYPROF_RUN_TAG=\"3.11\"",
                 "-DPYPROF_RUN_LIBRARIES=\"../lib\"", "-DATTACH_LIBRARIES=\"../lib\""] +
                (["-c", "-o", os.devnull] if level in TO_THE_END[COMPILER] or is_built_by_none else ["-fsyntax-only"]))


if __name__ == "__main__":
    if not shutil.which(compiling.CXX[COMPILER]):
        print("skipped: no " + COMPILER)
        sys.exit(77)
    unittest.main()
