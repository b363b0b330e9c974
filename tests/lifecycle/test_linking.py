"""However CPython comes into a program, and whatever the program is called: the profiler finds it, or refuses it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import collapsed
import harness

PROGRAMS = os.path.join(harness.BUILD, 'tests', 'lifecycle')


def configuration(*names):
    ask = 'import json, sys, sysconfig; print(json.dumps([sysconfig.get_config_var(n) or "" for n in sys.argv[1:]]))'
    return json.loads(subprocess.check_output([harness.PYTHON, '-c', ask] + list(names)))


class LinkingTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='pyprof-linking-')
        self.addCleanup(shutil.rmtree, self.folder)
        self.odd_name = os.path.join(self.folder, 'Grand Theft Game')

    def call(self, *command):
        done = subprocess.run(command, env=harness.host_environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=harness.patience(240))
        self.assertEqual(done.returncode, 0, done.stderr.decode('utf-8', 'replace')[-4000:])
        return done.stdout.decode('utf-8')

    def check_records(self, program):
        for kind in ('before', 'host-thread'):
            stacks = collapsed.parse(self.call(program, kind))
            work = collapsed.within(stacks, 'work')
            print(kind, work, 'samples below work', flush=True)
            self.assertGreater(work, 200)

    def test_odd_name(self):
        shutil.copy(os.path.join(PROGRAMS, 'finalize'), self.odd_name)
        self.check_records(self.odd_name)

    def test_loaded_at_run_time(self):
        library, = configuration('INSTSONAME')
        if '.so' not in library:
            self.skipTest('this CPython has no shared library')
        out = self.call(os.path.join(PROGRAMS, 'plugin_host'), library, os.path.join(PROGRAMS, 'plugin.so'))
        samples = [int(line) for line in out.split()]
        print(samples, 'samples', flush=True)
        self.assertEqual(len(samples), 20)
        self.assertGreaterEqual(min(samples), 20)

    def test_static(self):
        folder, name, libraries = configuration('LIBPL', 'LIBRARY', 'LIBS')
        archive = os.path.join(folder, name)
        if not os.path.exists(archive):
            self.skipTest('no ' + archive)
        more = configuration('MODLIBS', 'SYSLIBS')
        includes = json.loads(subprocess.check_output([harness.PYTHON, '-c', 'import json, sysconfig;'
                              'print(json.dumps([sysconfig.get_path("include"), sysconfig.get_path("platinclude")]))']))
        # What is linked with what does not depend on how it is optimised.
        command = ['cc', '-O0', '-pthread', '-no-pie', '-rdynamic', '-I', os.environ['PYPROF_SOURCE']]
        command += [argument for path in includes for argument in ('-I', path)]
        command += [os.path.join(HERE, 'finalize.c'), os.path.join(HERE, '..', 'common', 'pyprof.c'), archive, '-o', self.odd_name]
        words = [word for words in [libraries] + more for word in shlex.split(words)]
        missing = [word for word in words if word.endswith('.a') and not os.path.exists(word)]
        if missing:
            # Debian's 3.13 needs an archive that only the tree had in which it was built: what that defines, SHA-2,
            # nothing calls here.
            print(missing, 'is not there', flush=True)
            command += ['-Wl,--unresolved-symbols=ignore-all']
        command += [word for word in words if word not in missing]
        self.call(*command, '-ldl', '-lutil', '-lm')
        self.check_records(self.odd_name)

    def test_another_version(self):
        self.call(os.path.join(PROGRAMS, 'mismatch'))


if __name__ == '__main__':
    harness.main()
