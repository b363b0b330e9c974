"""Every C and C++ file is laid out as .clang-format says."""
import os
import re
import shutil
import subprocess
import sys
import unittest

SOURCE = os.environ["PYPROF_SOURCE"]
VERSION = 14  # the one that decides; others lay out a few things differently


def version():
    if not shutil.which("clang-format"):
        return None
    text = subprocess.run(["clang-format", "--version"], check=True, stdout=subprocess.PIPE,
                          universal_newlines=True).stdout
    return int(re.search(r"version (\d+)", text).group(1))


def c_files():
    yield os.path.join(SOURCE, "pyprof.h")
    for part in ["examples", "tests", "tools"]:
        for directory, below, names in os.walk(os.path.join(SOURCE, part)):
            # pip's build makes hidden folders beside the sources, maybe just now.
            below[:] = [name for name in below if name != "node_modules" and not name.startswith(".")]
            for name in names:
                if name.endswith((".c", ".cpp", ".h")):
                    yield os.path.join(directory, name)


class Format(unittest.TestCase):
    def test_as_written(self):
        for path in sorted(c_files()):
            with self.subTest(file=os.path.relpath(path, SOURCE)):
                run = subprocess.run(["clang-format", "--dry-run", "-Werror", path], stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, universal_newlines=True)
                if run.returncode != 0 and version() == VERSION:
                    self.fail(run.stdout.split("\n")[0] + " (clang-format -i mends it)")
                if run.returncode != 0:
                    print("skipped: clang-format %d lays out %s differently, but version %d decides"
                          % (version(), path, VERSION))


if __name__ == "__main__":
    if version() is None:
        print("skipped: no clang-format")
        sys.exit(77)
    unittest.main()
