"""The header compiles without a warning: test_warnings.py COMPILER"""
import shutil
import sys
import unittest

import compiling

COMPILER = sys.argv.pop(1)
STANDARDS = ["c99", "gnu99", "c11", "gnu11", "c++17", "gnu++17"]

UNITS = {
    "declarations": '#include "pyprof.h"\nint main(void) { return (int)pyprof_stop(0); }\n',
    "declarations, twice": '#include "pyprof.h"\n#include "pyprof.h"\nint main(void) { return 0; }\n',
    "implementation": '#define PYPROF_IMPLEMENTATION\n#include "pyprof.h"\nint main(void) { return 0; }\n',
    "implementation behind declarations": '#include "pyprof.h"\n#define PYPROF_IMPLEMENTATION\n'
                                          '#include "pyprof.h"\nint main(void) { return 0; }\n',
    "implementation behind Python": '#include <Python.h>\n#define PYPROF_IMPLEMENTATION\n'
                                    '#include "pyprof.h"\nint main(void) { return 0; }\n',
    "static": '#define PYPROF_STATIC\n#define PYPROF_IMPLEMENTATION\n#include "pyprof.h"\n'
              'int main(void) { return 0; }\n',
}


class Warnings(unittest.TestCase):
    def test_every_standard(self):
        include = compiling.python_include()
        for standard in STANDARDS:
            for name, text in UNITS.items():
                with self.subTest(standard=standard, unit=name):
                    includes = [] if name.startswith("declarations") else [include]
                    arguments = compiling.command(COMPILER, standard, includes) + ["-fsyntax-only"]
                    self.assertEqual("", compiling.compile_text(arguments, text, standard))


if __name__ == "__main__":
    if not shutil.which(compiling.CXX[COMPILER]):
        print("skipped: no " + COMPILER)
        sys.exit(77)
    unittest.main()
