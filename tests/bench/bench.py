"""Runs pyprof and its peers on the same programs, in turn, and prints how they compare: see tools/dev bench --help."""

import argparse
import collections
import os
import re
import shutil
import signal
import sys
import tempfile

import figures
import install
import judge
import peers
import report
import runner
import workloads

HERE = os.path.dirname(os.path.abspath(__file__))
COPIED = ('bench_target.py', 'inside', os.path.join(os.pardir, 'demo', 'publish.py'))


class Place:
    """What there is to run with: the CPython under test, the host with pyprof in it, the peers' cache."""

    def __init__(self, host, python, home, source):
        self.host = host
        self.home = home
        self.base = python
        self.debian = install.Debian()
        self.version = install.call([python, '-c', 'import platform; print(platform.python_version())']).strip()
        self.pyprof_version = pyprof_version(source)
        self._environment = None

    def host_command(self, script, arguments):
        return [self.host, script] + arguments, {'PYTHONHOME': self.home}

    def environment(self):
        if self._environment is None:
            self._environment = install.Environment(self.base)
        return self._environment


def pyprof_version(source):
    with open(os.path.join(source, 'pyprof.h'), encoding='utf-8') as file:
        version = re.search(r'v([0-9.]+)', file.readline()).group(1)
    try:
        commit = install.call(['git', '-C', source, 'rev-parse', '--short', 'HEAD']).strip()
    except install.Missing:
        return version
    return '%s (%s)' % (version, commit)


class Cell:
    """What came of one peer on one program at one rate, over all rounds."""

    def __init__(self, peer, workload, rate):
        self.peer = peer
        self.workload = workload
        self.rate = rate
        self.failure = None
        self.ratios = []
        self.stretch_samples = {True: 0, False: 0}
        self.stretch_ns = {True: 0, False: 0}
        self.results = []     # of the runs for the truth
        self.verdicts = []
        self.errors = []      # {function: percentage points}, one a round
        self.lost = []
        self.sizes = []

    def run(self, options, programs):
        """A failure is the cell's, and ends no more than it."""
        if self.failure:
            return
        try:
            self.add_stretches(*self.one('slowdown', options, programs))
            self.add(*self.one('truth', options, programs))
        except runner.Failure as failure:
            self.failure = str(failure)
        except Exception as error:  # a mistake of ours: to be seen in the report, but not the end of it
            self.failure = 'in the benchmark itself: %s: %s' % (type(error).__name__, error)

    def one(self, kind, options, programs):
        with tempfile.TemporaryDirectory() as folder:
            return runner.run(self.peer, self.workload, self.rate, kind, self.seconds(kind, options), options.stretch,
                              options.cores, programs, folder)

    def seconds(self, kind, options):
        if kind == 'slowdown':
            return max(options.seconds, 2 * figures.PAIRS * options.stretch)
        return options.seconds if options.quick else max(options.seconds, self.workload.seconds)

    def add_stretches(self, result, recording):
        """The slowdown, and whether the profiler was on and off indeed when it is said to have been."""
        self.ratios += figures.ratios(result['stretches'])
        for on in (True, False):
            name = judge.STRETCH[on]
            self.stretch_samples[on] += sum(stack.value for stack in recording.samples if judge.is_within(stack, name))
            self.stretch_ns[on] += sum(took for was_on, _, took in result['stretches'] if was_on == on)

    def add(self, result, recording):
        self.results.append(result)
        judged = judge.Judge(self.workload.program, self.workload.text(), self.workload.roots, self.peer.trimmed)
        self.verdicts.append(judged.verdict(recording.samples))
        counted = [stack for stack in recording.times if judged.counts(stack)]
        self.errors.append(judge.share_errors(counted, self.workload.program, result['book']))
        self.lost.append(recording.lost)
        self.sizes.append(recording.size)


class Bench:
    def __init__(self, options, place):
        self.options = options
        # What all are held against is always there.
        self.peers = [peer(place) for peer in peers.ALL if peer is peers.Nothing or chosen(options.peers, peer.name)]
        self.missing = {}  # name: why
        self.cells = []

    def install(self):
        for peer in self.peers:
            try:
                peer.install()
            except install.Missing as missing:
                self.missing[peer.name] = str(missing)
                print('%s: %s' % (peer.name, missing), flush=True)

    def plan(self):
        for workload in workloads.WORKLOADS:
            if chosen(self.options.workloads, workload.name):
                for rate in self.options.rates:
                    if self.options.all_rates or rate == self.options.rates[0] or workload.name in MANY_RATES:
                        self.cells += [Cell(peer, workload, rate) for peer in self.peers
                                       if peer.name not in self.missing and peer.fits(workload)]

    def groups(self):
        """The cells of one program at one rate, each group in the order of the peers."""
        found = collections.OrderedDict()
        for cell in self.cells:
            found.setdefault((cell.workload.name, cell.rate), []).append(cell)
        return list(found.values())

    def run(self, programs, after_group):
        """Rounds: all peers on one program, then on the next; then once more, beginning with another peer."""
        for number in range(self.options.rounds):
            for group in self.groups():
                start = number * len(group) // self.options.rounds
                for cell in group[start:] + group[:start]:
                    print('round %d of %d: %s, %d Hz: %s' % (number + 1, self.options.rounds, cell.workload.name,
                                                             cell.rate, cell.peer.name), flush=True)
                    cell.run(self.options, programs)
                    if cell.failure:
                        print('  failed: %s' % cell.failure, flush=True)
                after_group()


MANY_RATES = ('calls', 'split')  # the others are run at one rate, unless all are asked for


def chosen(names, name):
    return not names or name in names


def copy_programs(folder):
    """All in one folder: some profilers only show what lies beside the script."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(os.path.join(HERE, 'programs'), folder)
    for name in COPIED:
        path = os.path.join(HERE, name)
        copy = shutil.copytree if os.path.isdir(path) else shutil.copy
        copy(path, os.path.join(folder, os.path.basename(name)))
    with open(os.path.join(folder, 'bench_calls.py'), 'w', encoding='utf-8') as file:
        file.write(workloads.generated())


def names_of(things, given):
    known = [thing.name for thing in things]
    for name in given:
        if name not in known:
            raise SystemExit('no %r: there are %s' % (name, ', '.join(known)))
    return given


def parse(arguments):
    parser = argparse.ArgumentParser(prog='tools/dev bench', description='Compares pyprof with other profilers.')
    listed = dict(type=lambda text: text.split(','), default=[], metavar='NAME,...')
    parser.add_argument('--quick', action='store_true', help='three programs, one rate, one round: some four minutes')
    parser.add_argument('--peers', help=', '.join(peer.name for peer in peers.ALL), **listed)
    parser.add_argument('--workloads', help=', '.join(one.name for one in workloads.WORKLOADS), **listed)
    parser.add_argument('--rates', type=lambda text: [int(one) for one in text.split(',')], metavar='HZ,...',
                        help='every program at each of them (default: 1000; calls and split at 100 and 10000, too)')
    parser.add_argument('--rounds', type=int, help='how often all of it is run (default: 2)')
    parser.add_argument('--seconds', type=float, help='how long a program runs each time, at least (default: 1.5)')
    parser.add_argument('--stretch', type=float, default=0.2, help='seconds between switching on and off')
    parser.add_argument('--anywhere', action='store_true',
                        help='let the system place program and profiler (default: on processors of their own)')
    for name in ('host', 'python', 'home', 'source', 'build'):
        parser.add_argument('--' + name, required=True, help=argparse.SUPPRESS)  # tools/dev knows them
    options = parser.parse_args(arguments)
    names_of(peers.ALL, options.peers)
    names_of(workloads.WORKLOADS, options.workloads)
    options.all_rates = bool(options.rates)
    options.rounds = options.rounds or (1 if options.quick else 2)
    options.seconds = options.seconds or 1.5
    options.rates = options.rates or ([1000] if options.quick else [1000, 100, 10000])
    if options.quick and not options.workloads:
        options.workloads = ['calls', 'split', 'threads']
    return options


def keep_apart():
    """One processor for the program, the others for the profilers, and for this; None where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        return None
    os.sched_setaffinity(0, cores[:-1])  # which external profilers inherit
    return {'program': cores[-1:], 'profiler': cores[:-1]}


def stop(number, frame):
    """What was started is ended, also when this is."""
    raise SystemExit('ended by signal %d' % number)


def end_by_signals():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)  # in the background it may be ignored, and children would inherit that


def main():
    options = parse(sys.argv[1:])
    end_by_signals()
    place = Place(options.host, options.python, options.home, options.source)
    programs = os.path.join(options.build, 'programs')
    copy_programs(programs)
    bench = Bench(options, place)
    bench.install()
    bench.plan()
    options.cores = None if options.anywhere else keep_apart()
    path = os.path.join(options.build, 'report.md')
    bench.run(programs, lambda: report.write_part(path, report.markdown(bench, place)))
    text = report.markdown(bench, place)
    report.write(path, text)
    print('\n' + text)
    print('written to %s' % path)


if __name__ == '__main__':
    main()
