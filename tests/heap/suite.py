"""Modules of CPython's own test suite with heap sampling on, from before Python begins and in each Python that they
start: every test must end as it does without. What a difference is, tests/pythons/cpython_suite.py says.

usage: suite.py --python EXE --build BUILD [--home PYTHONHOME] [--tests DIR] [--bytes N] [MODULE...]

BUILD: the folder with heap_preload.so and heap_sampled.so, as meson builds them for this CPython. DIR: where a package
"test" lies, if this CPython has none. Without a MODULE: those that look closest at memory, threads and ends. Exits
with 1 if anything differs, with 77 if this CPython has no test suite."""
import argparse
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'pythons'))
import cpython_suite  # noqa: E402

MODULES = ('test_gc', 'test_threading', 'test_capi', 'test_capi.*', 'test_embed', 'test_tracemalloc', 'test_fork1',
           'test_weakref', 'test_bytes', 'test_interpreters', 'test_interpreters.*')


class HeapSuite(cpython_suite.Suite):
    rate_unit = 'bytes'

    def __init__(self, arguments):
        arguments.run = arguments.python
        super().__init__(arguments)
        if arguments.tests:
            self.environment['PYTHONPATH'] = arguments.tests
        self.plain = self.environment
        self.build = os.path.abspath(arguments.build)
        self.samples = self.processes = self.unreadable = 0

    def run_plain(self, module):
        self.environment = self.plain
        return super().run_plain(module)

    def run_profiled(self, module, rate):
        """rate: bytes between samples. A module whose processes have taken no samples has shown nothing."""
        with tempfile.TemporaryDirectory(prefix='suite-heap-') as folder:
            report = os.path.join(folder, 'report')
            self.environment = dict(self.plain, LD_PRELOAD=os.path.join(self.build, 'heap_preload.so'),
                                    PYPROF_HEAP_BYTES=str(rate), PYPROF_HEAP_REPORT=report)
            run = self.run_once([self.python], module)
            samples = self.add_report(report)
            if samples < 100:
                run.lack += ', %d samples' % samples
            return run

    def add_report(self, report):
        samples = 0
        if os.path.exists(report):
            with open(report) as file:
                for line in file:
                    taken, _, _, _, unreadable = map(int, line.split())
                    samples += taken
                    self.processes += 1
                    self.unreadable += unreadable
        self.samples += samples
        return samples


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', required=True, type=os.path.abspath)
    parser.add_argument('--build', required=True)
    parser.add_argument('--home')
    parser.add_argument('--tests')
    parser.add_argument('--bytes', type=int, default=8192)
    parser.add_argument('--timeout', type=int, default=cpython_suite.TIMEOUT)
    parser.add_argument('modules', nargs='*', default=MODULES, metavar='MODULE')
    return parser.parse_args(arguments)


def main(arguments):
    arguments = parse(arguments)
    suite = HeapSuite(arguments)
    modules = [module for module in suite.modules() if cpython_suite.matches(module, arguments.modules)]
    if not modules:
        print('skipped: %s has none of the modules' % arguments.python)
        return 77
    for module in modules:
        suite.compare(module, arguments.bytes)
    print('%d modules, %d of them not compared; %d tests, %d different, %d not so at first'
          % (len(modules), suite.lost, suite.compared, len(suite.different), suite.unsteady))
    print('%d samples in %d processes, %d stacks not readable' % (suite.samples, suite.processes, suite.unreadable))
    return 1 if suite.different or suite.lost == len(modules) else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
