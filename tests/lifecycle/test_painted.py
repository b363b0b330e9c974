"""The handler's stack as it is taken, for builds of every kind: see painted.c."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, '..', '..')
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
sys.path.insert(0, os.path.join(HERE, '..', 'check'))
import compiling
import harness

# As the manual says, the kernel's part aside.
OPTIMISED = 1400
NOT_OPTIMISED = 2100
BUILDS = list(itertools.product(('gcc', 'clang'), ('-O0', '-Og', '-Os', '-O2', '-O3')))


def link_flags():
    home = harness.python_home()
    environment = dict(os.environ)
    if not os.path.samefile(home, '/usr'):
        environment['PKG_CONFIG_PATH'] = os.path.join(home, 'lib', 'pkgconfig')
    flags = subprocess.check_output(['pkg-config', '--libs', 'python3-embed'], env=environment, text=True)
    return flags.split() + ['-Wl,-rpath,' + os.path.join(home, 'lib'), '-pthread']


class PaintedTest(unittest.TestCase):
    def measure(self, folder, build):
        program = os.path.join(folder, 'painted')
        subprocess.run([*build, '-std=gnu11', '-w', '-Wl,-z,lazy', '-I', SOURCE, '-isystem', compiling.python_include(),
                        os.path.join(HERE, 'painted.c'), '-o', program] + link_flags(), check=True)
        out = subprocess.check_output([program], env=harness.host_environment(), text=True, timeout=300)
        return [int(word) for word in out.split()]

    def test_stack(self):
        for build in BUILDS:
            if not shutil.which(build[0]):
                print('no', build[0])
                continue
            with self.subTest(build=build), tempfile.TemporaryDirectory() as folder:
                signals, kernel, whole = self.measure(folder, build)
                print(*build, ':', signals, 'signals, kernel', kernel, 'handler', whole - kernel, 'bytes', flush=True)
                self.assertGreaterEqual(signals, 20)
                self.assertGreater(whole - kernel, 200, 'that cannot be all')
                self.assertLess(whole - kernel, NOT_OPTIMISED if build[1] == '-O0' else OPTIMISED)


if __name__ == '__main__':
    harness.main()
