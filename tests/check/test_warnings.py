"""The header compiles without a warning: test_warnings.py COMPILER"""
import shutil
import sys
import unittest

import compiling

COMPILER = sys.argv.pop(1)
STANDARDS = ["c99", "gnu99", "c11", "gnu11", "c++17", "gnu++17"]
STRICT = ["c99", "c11", "c++17"]
# A strict C hides the system's functions from the first header on, so there the implementation must come first.
BEHIND_OTHERS = {"c99": "gnu99", "c11": "gnu11"}

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
        for standard in STANDARDS:
            self.assert_compiles("implementation", standard, [compiling.python_include()])

    def test_every_way_to_include(self):
        for name in UNITS.keys() - {"implementation"}:
            for standard in STRICT:
                if name == "implementation behind declarations":
                    standard = BEHIND_OTHERS.get(standard, standard)
                self.assert_compiles(name, standard, [compiling.python_include()])

    def test_declarations_need_no_python(self):
        for standard in STRICT:
            self.assert_compiles("declarations", standard, [])

    def assert_compiles(self, name, standard, includes):
        with self.subTest(standard=standard, unit=name):
            arguments = compiling.command(COMPILER, standard, includes) + ["-fsyntax-only"]
            complaints = compiling.compile_text(arguments, UNITS[name], standard)
            if complaints:
                self.fail("\n" + complaints[:2000])


if __name__ == "__main__":
    if not shutil.which(compiling.CXX[COMPILER]):
        print("skipped: no " + COMPILER)
        sys.exit(77)
    unittest.main()
