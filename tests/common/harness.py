"""Runs a script in the test host under the profiler and reads back what was recorded."""

import json
import os
import re
import subprocess
import tempfile
import time
import unittest

import collapsed

BUILD = os.environ.get('PYPROF_BUILD', '')
PYTHON = os.environ.get('PYPROF_PYTHON', '')

# PyRun_* calls this for the script, before the script's module has a frame (Python/pythonrun.c, set_main_loader).
LOADER = collapsed.Frame('FileLoader.__init__', '<frozen importlib._bootstrap_external>', 0)


def python_home():
    home = os.environ.get('PYPROF_PYTHONHOME')
    if not home:
        home = subprocess.check_output([PYTHON, '-c', 'import sys; print(sys.base_prefix)'], text=True).strip()
    return home


def python_version():
    out = subprocess.check_output([PYTHON, '-c', 'import sys; print(*sys.version_info[:2])'], text=True)
    return tuple(int(part) for part in out.split())


def is_debug_build():
    return subprocess.call([PYTHON, '-c', 'import sys; sys.exit(not hasattr(sys, "gettotalrefcount"))']) == 0


def host_environment():
    environment = dict(os.environ, PYTHONHOME=python_home(), PYTHONIOENCODING='utf-8')
    environment.pop('PYTHONPATH', None)
    environment.pop('PYTHONUNBUFFERED', None)  # any signal makes it lose what a pipe had no room for: cpython#86210
    return environment


def is_before_script(stack):
    frames = [frame for frame in stack.frames if frame.name != '[unsettled]']
    return stack.thread == 'MainThread' and bool(frames) and all(frame.file == LOADER.file for frame in frames)


def patience(seconds):
    """How long a program may take: longer in an emulator."""
    return seconds * int(os.environ.get('PYPROF_PATIENCE', '1'))


class Run:
    """One finished run of the host: what the script printed, the figures, the outputs by their words."""

    def __init__(self, script, args=(), outputs=(), interval_us=1000, options=(), timeout=240):
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, 'out%d' % number) for number in range(len(outputs))]
            stats = os.path.join(folder, 'stats.json')
            command = [os.path.join(BUILD, 'tests', 'common', 'host'), '-i', str(interval_us), '-s', stats]
            command += [str(option) for option in options]
            for words, path in zip(outputs, paths):
                command += ['-o', words + ':' + path]
            command += [script] + [str(arg) for arg in args]
            done = subprocess.run(command, env=host_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=patience(timeout))
            self.stdout = done.stdout.decode('utf-8')
            self.stderr = done.stderr.decode('utf-8', 'replace')
            if done.returncode != 0:
                raise AssertionError('%s\nended with %d\n%s\n%s' % (' '.join(command), done.returncode, self.stdout,
                                                                    self.stderr))
            with open(stats, encoding='utf-8') as file:
                self.stats = json.load(file)
            self.texts = {}
            for words, path in zip(outputs, paths):
                with open(path, 'rb') as file:
                    data = file.read()
                self.texts[words] = data if {'pprof', 'pstats'} & set(words.split(',')) else data.decode('utf-8')

    def stacks(self, words):
        return collapsed.parse(self.texts[words])

    def script_stacks(self, words):
        """Without what CPython does before the script has a frame: on a busy machine that may be sampled, too."""
        return [stack for stack in self.stacks(words) if not is_before_script(stack)]

    def printed(self):
        """The last line of what the script printed, as JSON."""
        return json.loads(self.stdout.splitlines()[-1])

    def lost(self):
        return sum(count for name, count in self.stats.items() if name.startswith('lost_'))

    def missed(self):
        """The part of the sampler's ticks for which it got no core."""
        return self.stats['ticks_missed'] / (self.stats['ticks'] + self.stats['ticks_missed'])


# Where nobody may go first, a busy machine lets the sampler wait. Then times cannot be measured; stacks can.
MISSED_MOST = 0.2
MEASUREMENTS = 6


def measured(*arguments):
    """A run in which the sampler had its ticks. What it saw plays no part in that. How often one is waited for is fixed;
    after that it is told that nothing was measured."""
    for turn in range(MEASUREMENTS):
        run = Run(*arguments)
        if run.missed() <= MISSED_MOST:
            return run
        print('no measurement: %d%% of the ticks were missed' % (100 * run.missed()), flush=True)
        time.sleep(3 * turn)
    print('skipped: a measurement, the machine is too busy for whoever may not set priorities', flush=True)
    raise unittest.SkipTest('the sampler got no core')


CANNOT = dict(line.split(': ', 1) for line in os.environ.get('PYPROF_CANNOT', '').splitlines())


def is_possible(name):
    """Whether it can run here; if not, it is said why. PYPROF_CANNOT has lines of "NAME: WHY": see pythons/aarch64.py."""
    if name in CANNOT:
        print('skipped: %s: %s' % (name, CANNOT[name]), flush=True)
    return name not in CANNOT


class Possible(unittest.TestLoader):
    """Leaves out what cannot run here."""

    def getTestCaseNames(self, testCaseClass):
        return [name for name in super().getTestCaseNames(testCaseClass)
                if is_possible('%s.%s' % (testCaseClass.__name__, name))]


def main():
    """Test scripts end with this: without a build there is nothing to test, and that is said."""
    if not BUILD or not PYTHON:
        raise SystemExit('set PYPROF_BUILD and PYPROF_PYTHON (meson test does)')
    unittest.main(verbosity=2, testLoader=Possible())
