"""A user's folder, tools and projects: what the tests of this folder share."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.environ['PYPROF_SOURCE']
PYTHON = os.environ['PYPROF_PYTHON']
HOME = os.environ['PYPROF_PYTHONHOME']

HEADERS = ['pyprof.h', 'tools/flamegraph.h']

# A host as a user writes it: strict about warnings, in C and in C++.
HOST = r'''
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"

int main(int argc, char **argv) {
    pyprof_profile *profile = NULL;
    Py_Initialize();
    if (argc != 2 || pyprof_start(NULL) != PYPROF_OK) {
        return 1;
    }
    PyRun_SimpleString("import time\ndef work():\n    while time.perf_counter() < end: pass\n"
                       "end = time.perf_counter() + 0.3\nwork()\n");
    if (pyprof_stop(&profile) != PYPROF_OK || pyprof_save(profile, NULL, argv[1]) != PYPROF_OK) {
        fprintf(stderr, "%s\n", pyprof_last_error());
        return 2;
    }
    pyprof_free(profile);
    return Py_FinalizeEx();
}
'''


def environment(**more):
    """That of a user who has this one CPython; of meson's and our tests' nothing is left."""
    kept = {name: value for name, value in os.environ.items()
            if not re.match(r'(PYPROF|PYTHON|MESON|NINJA|DESTDIR|MALLOC_PERTURB|[ACU].*SAN_OPTIONS|CFLAGS|LDFLAGS)', name)}
    kept['PATH'] = os.path.dirname(PYTHON) + ':' + kept['PATH']
    kept['CFLAGS'] = kept['CXXFLAGS'] = '-O0'  # it is tested that it is built, and that takes a third of the time
    if not os.path.samefile(HOME, '/usr'):
        kept['PKG_CONFIG_PATH'] = os.path.join(HOME, 'lib', 'pkgconfig')
        kept['LD_LIBRARY_PATH'] = os.path.join(HOME, 'lib')
    kept.update(more)
    return kept


def has(*programs):
    return all(shutil.which(program) for program in programs)


def skip(why):
    """Leaves out a part, and lets tools/dev count it."""
    print('skipped: ' + why, flush=True)
    raise unittest.SkipTest(why)


class UserTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='pyprof-user-')
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), 'w', encoding='utf-8') as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name), encoding='utf-8') as file:
            return file.read()

    def call(self, *command, **options):
        """What a command prints; it has to succeed. By default in the user's folder."""
        options.setdefault('cwd', self.folder)
        options.setdefault('env', environment())
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                              timeout=500, **options)
        self.assertEqual(done.returncode, 0, '%s\n%s' % (' '.join(command), done.stdout[-6000:]))
        return done.stdout

    def copy_source(self, to):
        """What a clone of the repository has, without what was built here."""
        def others(folder, names):
            return [name for name in names if folder == SOURCE and name in ('.git', 'build', 'node_modules')
                    or name == '__pycache__']
        shutil.copytree(SOURCE, self.path(to), ignore=others)

    def introspect(self, build, what):
        return json.loads(self.call('meson', 'introspect', build, '--' + what))

    def check_picture(self, program, name='picture.svg'):
        """The host runs, and draws what it did."""
        self.call(program, name)
        text = self.read(name)
        self.assertIn('<svg', text)
        self.assertIn('work (&lt;string&gt;:3)', text)


def main():
    unittest.main()
