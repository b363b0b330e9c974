"""CPythons that this machine lacks, each made to look like an installed one: its own python3-embed.pc leads meson to
headers, library and executable.

usage: fetch.py         lists them: name, what it is
       fetch.py NAME    prints the folder of the python3-embed.pc, or why there is none; made once, then kept
NAME may be VERSION-arm64, too: those are for tools/dev aarch64.
"""

import glob
import os
import shutil
import sys

from debian import Apt, Kept, Missing, Tree, call, read, write


class Packaged(Tree):
    """One of Debian's unstable. Everything that is linked with it starts with the loader and the libc that came with
    it: those of the machine may be too old. As DT_RPATH, the way to its libraries also holds for their libraries."""

    # Debian's own executable would look for the machine's loader.
    MAIN = '#include <Python.h>\nint main(int argc, char **argv) { return Py_BytesMain(argc, argv); }\n'

    def __init__(self, name, version, about, flags='', packages=(), folder=''):
        library = 'libpython' + version
        super().__init__(folder or 'python' + version + flags,
                         [library, library + '-minimal', library + '-stdlib', library + '-dev'] + list(packages))
        self.name = name
        self.version = version
        self.about = about
        self.abi = version + flags
        self.pkgconfig = os.path.join(self.home, 'lib', 'pkgconfig')

    def make(self):
        super().make()
        self.join_configuration()
        program = os.path.join(self.home, 'bin', 'python' + self.abi)
        write(os.path.join(self.pkgconfig, 'python3-embed.pc'), self.description(program))
        self.compile('cc', program)
        os.symlink(os.path.basename(program), os.path.join(self.home, 'bin', 'python3'))

    def compile(self, compiler, program):
        call([compiler, '-x', 'c', '-', '-o', program, '-I' + self.include()] + self.link(), input=self.MAIN)

    def include(self):
        return os.path.join(self.home, 'include', 'python' + self.abi)

    def join_configuration(self):
        """Debian's pyconfig.h only includes one of another folder, which would have to be named to compilers. A debug
        build has its own, but links to the other headers, and gcc looks beside the file that a link names."""
        configuration = self.one('usr/include/*/python%s/pyconfig.h' % self.abi)
        for target in glob.glob(os.path.join(self.home, 'include', 'python*', 'pyconfig.h')):
            os.remove(target)
            shutil.copy(configuration, target)

    def link(self):
        libraries = self.libraries()
        return ['-L' + libraries, '-lpython' + self.abi, '-Wl,--allow-shlib-undefined',
                '-Wl,--disable-new-dtags,-rpath,' + libraries, '-Wl,--dynamic-linker=' + self.loader()]

    def description(self, program):
        return '''prefix=%s
exec_prefix=${prefix}
executable=%s

Name: Python
Description: %s
Version: %s
Cflags: -I%s
Libs: %s
''' % (self.home, program, self.about, self.version, self.include(), ' '.join(self.link()))


class Emulated(Packaged):
    """One for another processor: its executable here is a script that starts the emulator. cmocka and zlib are beside it."""

    architecture = 'arm64'

    def __init__(self, version):
        super().__init__(version + '-arm64', version, "Debian's, for aarch64",
                         packages=('libcmocka0', 'libcmocka-dev', 'zlib1g-dev'), folder='python%s-arm64' % version)

    def make(self):
        super().make()
        self.compile_library()

    def compile_library(self):
        """A program that has to compile what it imports takes minutes there. This processor does so in seconds, and for
        both."""
        native, = [python for python in ALL if python.name == self.version]
        native.install()
        call([os.path.join(native.home, 'bin', 'python' + native.abi), '-m', 'compileall', '-q',
              os.path.join(self.home, 'lib', 'python' + self.version)])

    def compile(self, compiler, program):
        super().compile('aarch64-linux-gnu-gcc', program + '-aarch64')
        write(program, '#!/bin/sh\nexec qemu-aarch64 -0 "$0" %s-aarch64 "$@"\n' % program)
        os.chmod(program, 0o755)
        for name in ('cmocka', 'zlib'):
            write(os.path.join(self.pkgconfig, name + '.pc'), self.moved(name))

    def moved(self, name):
        text = read(self.one('usr/lib/*/pkgconfig/%s.pc' % name))
        return text.replace('=/usr', '=' + self.home)


class FreeThreaded(Kept):
    """Built from the source package of a stable Debian, of which there is one version."""

    # Neither debugging information nor the modules that take longest to compile, and that no test imports.
    OPTIONS = ('--disable-gil', '--enable-shared', '--without-ensurepip', '--disable-test-modules', 'OPT=-DNDEBUG -O2') + \
        tuple('py_cv_module_%s=n/a' % module for module in (
            '_codecs_cn', '_codecs_hk', '_codecs_iso2022', '_codecs_jp', '_codecs_kr', '_codecs_tw', '_curses',
            '_curses_panel', '_dbm', '_decimal', '_gdbm', '_sqlite3', '_tkinter', '_uuid', 'readline'))

    def __init__(self, name, version, about, suite):
        super().__init__('python' + name, ' '.join(self.OPTIONS + (suite,)))
        self.name = name
        self.version = version
        self.about = about
        self.suite = suite
        self.prefix = os.path.join(self.folder, 'prefix')
        self.pkgconfig = os.path.join(self.prefix, 'lib', 'pkgconfig')

    def make(self):
        source = os.path.join(self.folder, 'source')
        os.makedirs(source)
        Apt(self.suite, 'deb-src').get('source', '--download-only', '--tar-only', 'python' + self.version, cwd=source)
        call(['tar', '-xf', glob.glob(os.path.join(source, '*.orig.tar.*'))[0], '--strip-components=1'], cwd=source)
        call(['./configure', '--prefix=' + self.prefix, 'LDFLAGS=-Wl,-rpath,' + os.path.join(self.prefix, 'lib')] +
             list(self.OPTIONS), cwd=source)
        for target in ('all', 'install'):
            call(['make', '-j%d' % os.cpu_count(), target], timeout=3600, cwd=source)
        shutil.rmtree(source)


TESTS_OF_NEWEST = ('libpython3.15-testsuite',)  # for tools/dev matrix --cpython-suite

ALL = (
    Packaged('3.13', '3.13', "Debian's"),
    Packaged('3.14', '3.14', "Debian's"),
    Packaged('3.15', '3.15', "Debian's", packages=TESTS_OF_NEWEST),
    Packaged('3.15-jit', '3.15', "Debian's, with its JIT on", packages=TESTS_OF_NEWEST),
    Packaged('3.14-debug', '3.14', "Debian's debug build", 'd', ['libpython3.14-dbg']),
    FreeThreaded('3.13-free-threaded', '3.13', 'built without a GIL', 'trixie'),
)

EMULATED = tuple(Emulated(version) for version in ('3.13', '3.14', '3.15'))


def main(names):
    if not names:
        for python in ALL:
            print(python.name, python.about, sep='\t')
        return 0
    python, = [python for python in ALL + EMULATED if python.name == names[0]]
    try:
        python.install()
    except Missing as missing:
        print(missing)
        return 1
    print(python.pkgconfig)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
