"""What profilers cost and see where many threads wait and one computes (programs/bench_crowd.py): the last table of
growth.py."""

import os
import statistics
import sys
import tempfile

import bench
import install
import judge
import peers
import report
import runner
import workloads

WAITING = (1000, 100, 0)
RATE = 1000
SECONDS = 8      # under the profiler
STRETCH = 1      # without it, before and after
PROGRAM = 'bench_crowd.py'
MEASURED = 'measured'  # the loop of bench_target.py that is watched

PEERS = (peers.Nothing, peers.Pyprof, peers.PySpy, peers.PySpyNonblocking, peers.Austin, peers.Cpython315,
         peers.Cpython315Blocking, peers.Ddtrace)

HEADINGS = ('waiting', 'profiler', 'CPython', 'CPU s/s', 'ticks had', 'asked', 'lost', 'slowdown',
            'waiting threads seen')

ABOUT = '''### Many threads that wait, one that computes: the profilers side by side

Each is asked for %s samples a second, for %g s, with %g s without a profiler before and after. Rounds: %d, in which the
profilers take turns; times are medians, counts of all rounds. **CPU s/s**: seconds of a processor that the profiler
itself took (its process, or its threads in the program) for each second of the program. What it does in the program's
own threads, and that it stops them, is in the **slowdown**: the time that a piece of work of the computing thread took,
against the time without a profiler. **ticks had**: samples of the computing thread, of those **asked**. **lost**: what
it says itself that it missed, n/a where it says nothing. **waiting threads seen**: shown with their stack at least
once, in the round that showed the fewest. All options are the profiler's defaults, but that it is to show all threads,
also those that wait, at that rate, and that of ddtrace only the sampler of stacks runs, at a rate that is fixed%s.
'''
APART = '; the program has one processor to itself, the profiler the others'


def workload(waiting):
    return workloads.Workload('crowd', 'one thread computes, %d wait' % waiting, PROGRAM, str(waiting))


def ticks(recording):
    """Samples of the thread that computes, in the time that is measured."""
    return sum(stack.value for stack in recording.samples if judge.is_within(stack, MEASURED))


def seen(recording):
    """How many of the waiting threads were shown with the function in which they wait."""
    return len({stack.thread for stack in recording.samples
                if any(frame.file == PROGRAM and judge.plain_name(frame) == 'wait' for frame in stack.frames)})


def slowdown(stretches):
    """Of one stretch with the profiler, against those without it around it; a stretch is (on, units, nanoseconds)."""
    def took(is_on):
        chosen = [stretch for stretch in stretches if bool(stretch[0]) == is_on]
        return sum(took for _, _, took in chosen) / sum(units for _, units, _ in chosen)
    return took(True) / took(False)


class Cell:
    """One profiler among so many waiting threads, over all rounds."""

    def __init__(self, peer, waiting):
        self.peer = peer
        self.waiting = waiting
        self.failure = None
        self.cpu, self.slowdowns, self.seen = [], [], []
        self.ticks = self.asked = 0
        self.lost = None

    def run(self, cores, programs):
        """A failure is the cell's, and ends no more than it."""
        if self.failure:
            return
        try:
            with tempfile.TemporaryDirectory() as folder:
                self.add(*runner.run(self.peer, workload(self.waiting), RATE, 'surrounded', SECONDS, STRETCH, cores,
                                     programs, folder))
        except runner.Failure as failure:
            self.failure = str(failure)
        except Exception as error:  # a mistake of ours: to be seen in the table, but not the end of it
            self.failure = 'in the benchmark itself: %s: %s' % (type(error).__name__, error)

    def add(self, result, recording):
        self.cpu.append(result['profiler_cpu_ns'] / result['nanoseconds'])
        self.slowdowns.append(slowdown(result['stretches']))
        self.seen.append(seen(recording))
        self.ticks += ticks(recording)
        self.asked += round(result['nanoseconds'] * RATE / 1e9)
        if recording.lost is not None:
            self.lost = (self.lost or 0) + recording.lost

    def row(self, missing):
        name = ' '.join(filter(None, (self.peer.name, self.peer.version)))
        head = ['{:,}'.format(self.waiting), name, self.peer.runs_on]
        if missing or self.failure:
            return head + [('not had: ' + missing if missing else 'failed: ' + self.failure).replace('|', '/')]
        ratio = '%.3f' % statistics.median(self.slowdowns)
        if not self.peer.records:
            return head + [''] * 4 + [ratio, '']
        return head + ['%.4f' % statistics.median(self.cpu), '{:,}'.format(self.ticks), '{:,}'.format(self.asked),
                       'n/a' if self.lost is None else '{:,}'.format(self.lost), ratio,
                       '{:,} of {:,}'.format(min(self.seen), self.waiting)]


def installed(names, place):
    """[(peer, '' or why it cannot be had)]"""
    found = []
    for peer in (make(place) for make in PEERS if bench.chosen(names, make.name)):
        try:
            peer.install()
            found.append((peer, ''))
        except install.Missing as missing:
            found.append((peer, str(missing)))
    return found


def run_rounds(cells, rounds, cores, programs):
    """All in turn, and each time another one first."""
    for number in range(rounds):
        start = number * len(cells) // rounds
        for cell in cells[start:] + cells[:start]:
            cell.run(cores, programs)
            print('round %d of %d: %s' % (number + 1, rounds, ' | '.join(cell.row(''))), file=sys.stderr, flush=True)


def here():
    """What there is to run with, as tools/dev tells it."""
    host = os.path.join(os.environ['PYPROF_BUILD'], 'tests', 'bench', 'bench_host')
    return bench.Place(host, os.environ['PYPROF_PYTHON'], os.environ['PYPROF_PYTHONHOME'],
                       os.path.join(bench.HERE, os.pardir, os.pardir))


def measure(place, rounds, names=(), waiting=WAITING):
    """The table's rows, and whether program and profiler were kept apart."""
    found = installed(names, place)
    cells = [(Cell(peer, count), why) for count in waiting for peer, why in found]
    before = os.sched_getaffinity(0)
    cores = bench.keep_apart()
    try:
        with tempfile.TemporaryDirectory() as folder:
            programs = os.path.join(folder, 'programs')
            bench.copy_programs(programs)
            run_rounds([cell for cell, why in cells if not why], rounds, cores, programs)
    finally:
        os.sched_setaffinity(0, before)
    return [cell.row(why) for cell, why in cells], cores is not None


def table(place, rounds):
    rows, apart = measure(place, rounds)
    about = ABOUT % ('{:,}'.format(RATE), SECONDS, STRETCH, rounds, APART if apart else '')
    return '\n'.join([about] + report.table(HEADINGS, rows)) + '\n'
