"""Where the header cannot work its implementation is refused by the compiler, and says why; where it only declares, it may be
included anywhere. clang compiles for every processor, and brings the headers that the declarations need; of the others none
is there, so that an implementation that is not refused ends at the first of them."""

import os
import shutil
import subprocess
import sys
import unittest

SOURCE = os.environ["PYPROF_SOURCE"]
NARROW_OR_BIG = ("i386-linux-gnu", "armv7-linux-gnueabihf", "x86_64-linux-gnux32", "powerpc64-linux-gnu",
                 "aarch64_be-linux-gnu", "s390x-linux-gnu")
OTHER_SYSTEMS = ("x86_64-apple-darwin", "x86_64-pc-windows-msvc", "x86_64-unknown-freebsd")
SUPPORTED = ("x86_64-linux-gnu", "aarch64-linux-gnu")


def first_error(target, text):
    command = ["clang", "--target=" + target, "-ffreestanding", "-nostdlibinc", "-fsyntax-only", "-I", SOURCE, "-x", "c", "-"]
    run = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    return next((line for line in run.stdout.splitlines() if "error" in line), "")


class Platforms(unittest.TestCase):
    def check(self, targets, said):
        for target in targets:
            with self.subTest(target):
                self.assertEqual(first_error(target, '#include "pyprof.h"\n'), "")
                self.assertIn(said, first_error(target, '#define PYPROF_IMPLEMENTATION\n#include "pyprof.h"\n'))

    def test_narrow_or_big_endian(self):
        self.check(NARROW_OR_BIG, "only 64-bit little-endian processors are supported")

    def test_other_systems(self):
        self.check(OTHER_SYSTEMS, "only Linux is supported")

    def test_supported(self):
        self.check(SUPPORTED, "'Python.h' file not found")


if __name__ == "__main__":
    if not shutil.which("clang"):
        print("skipped: no clang")
        sys.exit(77)
    unittest.main()
