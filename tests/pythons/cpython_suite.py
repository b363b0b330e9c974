"""CPython's own test suite as the host's workload: each of its test modules runs with the plain interpreter and inside
pyprof-run, and every test must end the same way. It takes hours.

usage: cpython_suite.py --python EXE --run PYPROF_RUN [--home PYTHONHOME] [--rate-all HZ] [--timeout SECONDS]
                        [--only NAME...] [--list]

A test that ends otherwise counts if it does so in a second run of both ways, too; a crash counts at once. A test that
fails plainly may fail. Exits with 1 if anything differs, with 77 if this CPython has no test suite.
"""

import argparse
import contextlib
import fnmatch
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

RATE = 1000
RATE_CLOSE = 10000

# What a sampler could disturb: these modules are looked at as often as it can.
CLOSE = '''
    test_thread* test_dummy_thread* test_subprocess test_popen test_signal
    test_fork1 test_wait[34] test_multiprocessing_fork test_multiprocessing_fork.*
    test_generator* test_yield_from test_asyncgen test_coroutines
    test_*exception* test_except_star test_raise test_traceback
    test_gc test_weak* test_code test_frame test_sys_set* test_monitoring
    test_*interp* test_asyncio*
'''.split()

# These run nearly everything in processes of their own, which nobody looks into, and take their time.
CHILDREN = '''
    test_regrtest test_eintr test_tools test_*peg_generator test_c*ext test_freeze test_gdb* test_venv test_ensurepip
    test_embed test_cmd_line* test_repl test_distutils test_clinic test_lib2to3 test_idle
'''.split()

# Seconds that a module may take, and what it then has to say where its threads are, before it is killed.
TIMEOUT = 600
PATIENCE = 60

# What regrtest exits with if a module needs what it may not use: in some versions only.
NO_TESTS_RAN = 4

LINES_SHOWN = 40


class Run:
    """How one module ended: as a process, and each of its tests as passed, failed or skipped."""

    def __init__(self, code, log, results):
        self.code = code
        self.log = log
        self.tests = {}
        self.reasons = {}
        self.lack = ''
        try:
            for case in xml.etree.ElementTree.parse(results).iter('testcase'):
                self.add_case(case)
        except (OSError, xml.etree.ElementTree.ParseError):
            # A module that is skipped leaves none.
            self.lack = ', no results' if code not in (0, NO_TESTS_RAN) else ''
        self.add_unnamed()

    def complete(self):
        return self.code is not None and self.code >= 0 and not self.lack

    def add_case(self, case):
        found = {child.tag: child.text for child in case}
        bad = [tag for tag in ('failure', 'error', 'outcome') if tag in found]
        if case.get('name') and bad:
            self.add_failed(case.get('name'), found[bad[0]])
        elif case.get('name'):
            self.tests.setdefault(stable(case.get('name')), 'skipped' if 'skipped' in found else 'passed')

    def add_failed(self, name, reason):
        self.tests[stable(name)] = 'failed'
        self.reasons[stable(name)] = reason

    def add_unnamed(self):
        """Subtests and fixtures that failed are only in the log."""
        for section in self.log.split('=' * 70 + '\n')[1:]:
            heading = re.match(r'(?:FAIL|ERROR): (\S+) \(([\w.]+)\)', section)
            if heading:
                # Until 3.10 the method's name is not part of the other.
                method, name = heading.groups()
                self.add_failed(name if name.endswith('.' + method) else name + '.' + method, section)

    def crashed(self):
        return self.code is not None and self.code < 0

    def ended(self):
        if self.code is None:
            return 'killed for taking too long'
        if self.code < 0:
            return 'killed by ' + signal.Signals(-self.code).name
        return 'exit %d%s' % (self.code, self.lack)

    def why(self, name):
        text = self.reasons.get(name) or ('' if name else self.log)
        return ''.join('    | %s\n' % line for line in text.splitlines()[-LINES_SHOWN:])


def stable(name):
    return re.sub('0x[0-9a-f]+', '0x', name)


def module_name(name):
    """Parts of a package are listed by their whole name."""
    return name[len('test.'):] if name.startswith('test.') else name


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(module_name(name), pattern) for pattern in patterns)


def environment(arguments):
    """No other Python interferes: neither with the plain run nor with pyprof-run's choice of its Python."""
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith('PYTHON') and key not in ('VIRTUAL_ENV', 'PYENV_VERSION') or key == 'PYTHON_JIT'}
    kept['PATH'] = os.path.dirname(arguments.python) + os.pathsep + os.environ.get('PATH', os.defpath)
    kept['LC_ALL'] = 'C.UTF-8'
    if arguments.home:
        kept['PYTHONHOME'] = arguments.home
    return kept


class Suite:
    rate_unit = 'Hz'

    def __init__(self, arguments):
        self.python = arguments.python
        self.run = arguments.run
        self.timeout = arguments.timeout
        self.environment = environment(arguments)
        self.compared = self.unsteady = self.lost = 0
        self.different = []

    def ask(self, *command):
        return subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, universal_newlines=True, check=False).stdout

    def is_same_python(self):
        code = 'import sys; print(sys.version, sys.prefix)'
        return self.ask(self.python, '-c', code) == self.ask(self.run, '-o', os.devnull, '-f', 'raw', '-c', code) != ''

    def modules(self):
        listed = self.ask(self.python, '-m', 'test', '--list-tests')
        return re.findall(r'^(?:test\.)?test_[\w.]+$', listed, re.MULTILINE)

    def run_once(self, command, module):
        folder = tempfile.mkdtemp(prefix='suite-')
        try:
            return self.run_in(folder, command, module)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def run_in(self, folder, command, module):
        log, results = os.path.join(folder, 'log'), os.path.join(folder, 'results.xml')
        # The work of "cpu" is what there is to profile; other resources are disks, nets, minutes of sleep.
        # -v names each test as it begins: then the last line of a crash's log says where it was.
        command = command + ['-m', 'test', '-v', '-u', 'cpu', '--fail-env-changed',
                             '--timeout', str(self.timeout), '--junit-xml', results, module]
        with open(log, 'wb') as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                       cwd=folder, env=dict(self.environment, TMPDIR=folder, HOME=folder),
                                       start_new_session=True, preexec_fn=default_signals)
            code = wait_for(process, self.timeout + PATIENCE)
        with open(log, encoding='utf-8', errors='replace') as file:
            return Run(code, file.read(), results)

    def run_plain(self, module):
        return self.run_once([self.python], module)

    def run_profiled(self, module, rate):
        with tempfile.TemporaryDirectory(prefix='suite-profile-') as folder:
            profile = os.path.join(folder, 'profile.collapsed')
            run = self.run_once([self.run, '-r', str(rate), '-o', profile], module)
            # A recording that never was would prove nothing.
            if not (os.path.exists(profile) and os.path.getsize(profile)):
                run.lack += ', no profile'
            return run

    def compare(self, module, rate):
        begun = time.monotonic()
        plain = self.run_plain(module)
        if not plain.complete():
            plain = self.run_plain(module)
        profiled, found, verdict = self.judge(module, rate, plain)
        self.compared += len(plain.tests)
        print('%-56s %5d %s %5d tests %5.0f s  %s' % (module_name(module), rate, self.rate_unit, len(plain.tests),
                                                      time.monotonic() - begun, verdict), flush=True)
        for name, pair in sorted(found.items()):
            print('  %s: %s, profiled %s\n%s' % (name or 'process', *pair, profiled.why(name)), end='', flush=True)
        self.different += [name or module for name in found]

    def judge(self, module, rate, plain):
        if not plain.complete():  # what hangs or crashes by itself would only do so once more
            self.lost += 1
            return plain, {}, 'not compared: plain it is ' + plain.ended()
        profiled = self.run_profiled(module, rate)
        found = differences(plain, profiled)
        if found:
            return self.confirm(module, rate, profiled, found)
        return profiled, {}, 'same' if plain.tests else 'skipped'

    def confirm(self, module, rate, profiled, first):
        """What differs once may be a test that does not always end the same way. A crash is none of these."""
        if profiled.crashed():
            return profiled, first, 'DIFFERENT'
        profiled = self.run_profiled(module, rate)
        again = differences(self.run_plain(module), profiled)
        found = again if profiled.crashed() else {name: again[name] for name in first if name in again}
        unsteady = ['%s (%s, profiled %s)' % (name or 'process', *first[name]) for name in first if name not in found]
        self.unsteady += len(unsteady)
        verdict = 'DIFFERENT' if found else 'same'
        return profiled, found, verdict + (', not so at first: ' if unsteady else '') + ', '.join(unsteady)


def differences(plain, profiled):
    """name -> (plain, profiled), of the tests that did not end the same way; '' is the process."""
    ends = {'': (plain.ended(), profiled.ended())} if plain.ended() != profiled.ended() else {}
    if profiled.crashed() or plain.complete() and not profiled.complete():
        return ends
    if not plain.complete():
        return {}
    names = sorted(set(plain.tests) | set(profiled.tests))
    pairs = {name: (plain.tests.get(name, 'missing'), profiled.tests.get(name, 'missing')) for name in names}
    found = {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and pair[0] != 'failed'}
    return ends if not found and plain.code == 0 else found


def default_signals():
    """A shell may have started this with signals ignored: what waits for a Ctrl-C would wait for ever."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(process, timeout):
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # What the tests have left behind, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', required=True, type=os.path.abspath, help='the plain interpreter')
    parser.add_argument('--run', required=True, type=os.path.abspath, help='the pyprof-run that was built for it')
    parser.add_argument('--home', help='PYTHONHOME of both, if they do not find it')
    parser.add_argument('--rate-all', type=int, default=RATE, metavar='HZ',
                        help='samples a second for modules not run at %d (default: %d; 0 leaves them out)'
                             % (RATE_CLOSE, RATE))
    parser.add_argument('--timeout', type=int, default=TIMEOUT, metavar='SECONDS',
                        help='how long a module may take (default: %d)' % TIMEOUT)
    parser.add_argument('--only', nargs='+', metavar='NAME', help='only these modules; * and ? are understood')
    parser.add_argument('--list', action='store_true', help='name the modules and their rates, and run nothing')
    return parser.parse_args(arguments)


def choose(modules, arguments):
    """What runs, and how often it is looked at."""
    chosen = []
    for module in modules:
        rate = RATE_CLOSE if matches(module, CLOSE) else arguments.rate_all
        wanted = matches(module, arguments.only) if arguments.only else not matches(module, CHILDREN)
        if wanted and rate:
            chosen.append((module, rate))
    return chosen


def main(arguments):
    arguments = parse(arguments)
    suite = Suite(arguments)
    modules = suite.modules()
    # Distributions pack the tests apart, but for the machinery and its own test.
    if 'test_sys_settrace' not in modules:
        print('skipped: %s has no test suite' % arguments.python)
        return 77
    chosen = choose(modules, arguments)
    if arguments.list:
        print('\n'.join('%5d Hz  %s' % (rate, module_name(module)) for module, rate in chosen))
        return 0
    if not suite.is_same_python():
        print('failed: %s is not built for %s, or does not run' % (arguments.run, arguments.python))
        return 1
    for module, rate in chosen:
        suite.compare(module, rate)
    print('%d modules, %d of them not compared; %d tests, %d different, %d not so at first'
          % (len(chosen), suite.lost, suite.compared, len(suite.different), suite.unsteady))
    return 1 if suite.different or not chosen else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
