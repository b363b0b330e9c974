"""The profilers that are compared, each behind the same interface."""

import collections
import glob
import os
import re
import subprocess

import install
import outputs

# What a run of a profiler gave: samples and times are lists of stacks, lost is what it says itself that it missed.
Recording = collections.namedtuple('Recording', 'samples times lost size')


def read(path):
    with open(path, encoding='utf-8', errors='replace', newline='') as file:
        return file.read()


def count(pattern, text):
    """The last number that the profiler reports so; None when it does not."""
    found = re.findall(pattern, text)
    return int(found[-1].replace(',', '')) if found else None


class Peer:
    name = ''
    how = ''
    inside = None        # the module under inside/, for a profiler that runs inside of the program
    command = None       # command(pid, rate, output), for one that is another process
    one_thread = False   # whether it watches only the thread that switched it on
    trimmed = False      # whether it leaves out frames of the library
    threaded = False     # whether it works in threads of its own inside of the program
    records = True       # whether it is a profiler at all, or only there to compare with

    def __init__(self, place):
        self.place = place
        self.version = ''
        self.runs_on = place.version

    def install(self):
        """Raises install.Missing."""

    def fits(self, workload):
        return True

    def target(self, config, script, arguments):
        """How the program is started: (command, environment)."""
        return [self.python(), script] + arguments, {}

    def python(self):
        return self.place.base

    def read(self, output, log, figures):
        """The Recording, from the file that it wrote, from what it printed, from what its inside answered."""
        raise NotImplementedError


class Nothing(Peer):
    name = 'nothing'
    how = 'no profiler: the noise of the measurement'
    inside = 'nothing'
    records = False

    def read(self, output, log, figures):
        return Recording([], [], None, None)


class Signals(Nothing):
    name = 'bare signal'
    how = 'no profiler: a thread wakes as pyprof does and sends one busy thread a signal whose handler is empty'
    inside = 'signals'
    threaded = True

    def fits(self, workload):
        return workload.threads == 1 and workload.name != 'waiting'  # a thread that waits is not asked

    def target(self, config, script, arguments):
        return self.place.host_command(script, arguments)


class Pyprof(Peer):
    name = 'pyprof'
    how = 'inside; a running thread copies its stack in a signal handler, a waiting one is read by process_vm_writev'
    inside = 'pyprof'
    threaded = True

    def install(self):
        self.version = self.place.pyprof_version

    def target(self, config, script, arguments):
        return self.place.host_command(script, arguments)

    def read(self, output, log, figures):
        samples = [stack for path in glob.glob(output + '-*.samples') for stack in outputs.pyprof(read(path))]
        paths = glob.glob(output + '-*.times')
        times = [stack for path in paths for stack in outputs.pyprof(read(path))]
        return Recording(samples, times, figures['lost'] + figures['ticks_missed'], sum(map(os.path.getsize, paths)))


class PyprofHeld(Pyprof):
    name = 'pyprof held'
    how = 'the same without a signal: a running thread is kept off its core while it is read'
    inside = 'held'


class Plain(Peer):
    name = 'current_frames'
    how = 'inside; a Python thread calls sys._current_frames(), with the GIL'
    inside = 'plain'
    threaded = True

    def install(self):
        self.version = 'ours'

    def read(self, output, log, figures):
        stacks = outputs.pyprof(read(output))
        return Recording(stacks, stacks, figures['missed'], os.path.getsize(output))


class Packaged(Peer):
    """From PyPI, by the name of its package."""
    package = ''

    def install(self):
        environment = self.place.environment()
        environment.install(self.package)
        self.version = environment.version(self.package)

    def python(self):
        return self.place.environment().python


class PySpy(Packaged):
    name = package = 'py-spy'
    how = 'other process; ptrace stops the threads, process_vm_readv reads them'
    errors = r'Errors: (\d+)'

    def command(self, pid, rate, output):
        return [self.place.environment().program('py-spy'), 'record', '--pid', str(pid), '--rate', str(rate),
                '--format', 'raw', '--threads', '--idle', '--full-filenames', '--output', output], {}

    def read(self, output, log, figures):
        stacks = outputs.pyspy(read(output))
        return Recording(stacks, stacks, count(self.errors, log), os.path.getsize(output))


class PySpyNonblocking(PySpy):
    name = 'py-spy -n'
    how = 'other process; process_vm_readv only (--nonblocking)'

    def command(self, pid, rate, output):
        command, environment = super().command(pid, rate, output)
        return command + ['--nonblocking'], environment


class Austin(Packaged):
    name = 'austin'
    package = 'austin-dist'
    how = 'other process; process_vm_readv only'
    errors = r'Error rate\D*?(\d+)/\d+'

    def install(self):
        super().install()
        self.place.environment().install('austin-python')
        self.prefix = []
        try:
            self.start()
        except install.Missing:  # its libc may be newer than the machine's
            self.place.debian.install()
            self.prefix = self.place.debian.start()
            self.start()

    def start(self):
        install.call(self.program() + ['--version'])

    def program(self):
        return self.prefix + [self.place.environment().program('austin')]

    def command(self, pid, rate, output):
        return self.program() + ['--interval', str(1000000 // rate), '--pid', str(pid), '--output', output], {}

    def read(self, output, log, figures):
        text = output + '.txt'
        install.call([self.place.environment().program('mojo2austin'), output, text])
        times = outputs.austin(read(text))
        samples = [stack._replace(value=1) for stack in times]
        return Recording(samples, times, count(self.errors, plain_text(log)), os.path.getsize(output))


def plain_text(log):
    """Without colours, which stand between a figure and its name."""
    return re.sub(r'\x1b\[[0-9;]*m', '', log)


class Cpython315(Peer):
    name = 'CPython 3.15'
    how = "other process; process_vm_readv only (CPython's own profiling.sampling)"
    options = []

    def install(self):
        self.place.debian.install()
        out = install.call(self.place.debian.python() + ['-V'], env=self.environment(True))
        self.version = self.runs_on = out.split()[1]

    def environment(self, whole=False):
        return dict(os.environ if whole else {}, PYTHONHOME=self.place.debian.home)

    def target(self, config, script, arguments):
        return self.place.debian.python() + [script] + arguments, self.environment()

    def command(self, pid, rate, output):
        return self.place.debian.python() + ['-m', 'profiling.sampling', 'attach', '--all-threads', '--sampling-rate',
                                             str(rate), '--collapsed', '--output', output] + self.options + [
                                                 str(pid)], self.environment()

    def read(self, output, log, figures):
        stacks = outputs.cpython315(read(output))
        return Recording(stacks, stacks, self.lost(log), os.path.getsize(output))

    @staticmethod
    def lost(log):
        """It tells its failed samples as a percentage of all."""
        taken = count(r'Captured ([\d,]+) sample', log)
        rate = re.findall(r'Error rate: ([\d.]+)', log)
        return round(taken * float(rate[-1]) / 100) if taken is not None and rate else None


class Cpython315Blocking(Cpython315):
    name = '3.15 --blocking'
    how = 'other process; ptrace stops the threads, process_vm_readv reads them'
    options = ['--blocking']


class Pyinstrument(Packaged):
    name = package = 'pyinstrument'
    how = 'inside; a profile function in C at calls and returns, one thread, with the GIL'
    inside = 'pyinstrument_tool'
    one_thread = True

    def read(self, output, log, figures):
        times = outputs.pyinstrument(read(output))
        return Recording([stack._replace(value=1) for stack in times], times, None, os.path.getsize(output))


class Scalene(Packaged):
    name = package = 'scalene'
    how = 'inside; a timer signal with a Python handler in the main thread, with the GIL'
    inside = 'scalene_tool'
    trimmed = True

    def target(self, config, script, arguments):
        return [self.python(), '-m', 'scalene', 'run', '--cpu-only', '--off', '--program-path', config['programs'],
                '--cpu-sampling-rate', str(1.0 / config['rate']), '--outfile', config['output'] + '.json', script,
                '---'] + arguments, {}

    def read(self, output, log, figures):
        stacks = outputs.scalene(read(output + '.json'))
        return Recording(stacks, stacks, None, os.path.getsize(output + '.json'))


class Ddtrace(Packaged):
    name = package = 'ddtrace'
    how = 'inside; a native thread reads the others without the GIL, by a guarded memcpy'
    inside = 'ddtrace_tool'
    threaded = True

    def install(self):
        super().install()
        self.place.environment().install('zstandard')

    def read(self, output, log, figures):
        files = glob.glob(output + '*.pprof')
        data = [self.decompressed(path) for path in files]
        samples = [stack for one in data for stack in outputs.pprof(one, 'wall-samples')]
        times = [stack for one in data for stack in outputs.pprof(one, 'wall-time')]
        return Recording(samples, times, None, sum(map(os.path.getsize, files)))

    def decompressed(self, path):
        code = 'import sys, zstandard; f = open(sys.argv[1], "rb"); ' \
               'sys.stdout.buffer.write(zstandard.ZstdDecompressor().stream_reader(f).read())'
        return subprocess.run([self.python(), '-c', code, path], check=True, stdout=subprocess.PIPE).stdout


class Spprof(Packaged):
    name = package = 'spprof'
    how = 'inside; not seen'

    def install(self):
        super().install()
        raise install.Missing('there is no adapter for it yet, as it could not be had before')


ALL = (Nothing, Signals, Pyprof, PyprofHeld, PySpy, PySpyNonblocking, Austin, Cpython315, Cpython315Blocking,
       Pyinstrument, Scalene, Ddtrace, Plain, Spprof)
