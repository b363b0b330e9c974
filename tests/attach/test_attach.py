"""pyprof-ctl attach: programs that know nothing of the profiler have it brought in while they run, and come to the same end."""
import concurrent.futures
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.environ['PYPROF_SOURCE'], 'tests', 'common'))
import collapsed
import harness

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(os.environ['PYPROF_BUILD'], 'tools')
CTL = os.path.join(TOOLS, 'pyprof-ctl')
TAG = subprocess.check_output([harness.PYTHON, '-c', "import sys; print('%d.%d' % sys.version_info[:2] + sys.abiflags)"],
                              universal_newlines=True).strip()
LIBRARY = os.path.join(TOOLS, 'libpyprof-%s.so' % TAG)  # it is found beside pyprof-ctl, too
PATIENCE = harness.patience(60)
VERSION = harness.python_version()
ELSEWHERE = os.path.join(os.environ['PYPROF_BUILD'], 'tests', 'attach', 'elsewhere')
EMBEDDED = os.path.join(os.environ['PYPROF_BUILD'], 'tests', 'attach', 'embedded')
CUT = os.path.join(os.environ['PYPROF_BUILD'], 'tests', 'attach', 'cut.so')

# What app.py says at the end: what came out, what is new in __main__, no exception, no module.
AS_EVER = ' [] None False False\n'


def scope():
    try:
        with open('/proc/sys/kernel/yama/ptrace_scope', encoding='ascii') as file:
            return int(file.read())
    except OSError:
        return 0


def state_of(pid):
    with open('/proc/%d/stat' % pid, encoding='ascii') as file:
        return file.read().rsplit(') ', 1)[1][0]


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='pyprof-', dir='/tmp')
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.environment = dict(harness.host_environment(), XDG_RUNTIME_DIR=self.folder)
        if scope() and os.geteuid() != 0:
            self.skipTest('skipped: kernel.yama.ptrace_scope is %d, and pyprof-ctl is no parent of the program' % scope())

    def begin(self, kind, seconds=1, python=harness.PYTHON, **options):
        program = subprocess.Popen([python, os.path.join(HERE, 'app.py'), kind, str(seconds)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                                   env=dict(self.environment, **options))
        self.addCleanup(self.end, program)
        self.assertEqual('begun\n', program.stdout.readline())
        return program

    def end(self, program):
        if program.poll() is None:
            program.kill()
            program.wait()
        for file in program.stdin, program.stdout, program.stderr:
            try:
                file.close()
            except BrokenPipeError:
                pass

    def ctl(self, *words, status=0, **options):
        done = subprocess.run([CTL] + [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, env=self.environment, timeout=PATIENCE, **options)
        self.assertEqual(status, done.returncode, done.stderr)
        if status == 0:
            self.assertEqual('', done.stderr)
            return done.stdout
        self.assertEqual(('', 1 if status == 1 else 2), (done.stdout, done.stderr.count('\n')), done.stderr)
        return done.stderr

    def attach(self, program, *words, status=0):
        text = self.ctl('attach', program.pid, *words, status=status)
        self.assertEqual([], [name for name in os.listdir('/tmp') if name.startswith('pyprof-attach-%d-' % program.pid)])
        return text

    def rest(self, program):
        """What it says to its end. communicate() would lose what came in one piece with the first line."""
        try:
            program.stdin.write('go on\n')
            program.stdin.close()
        except BrokenPipeError:  # it has ended
            pass
        out, complaint = program.stdout.read(), program.stderr.read()
        program.wait(PATIENCE)
        return out, complaint

    def finish(self, program, result='True'):
        """The program ends as it would have ended without."""
        out, complaint = self.rest(program)
        self.assertEqual((result + AS_EVER, '', 0), (out, complaint, program.returncode))


class Attached(Case):
    def test_programs_that_run_python(self):
        for kind in 'compute', 'sleep', 'threads', 'births', 'forks', 'imports', 'alarms':
            with self.subTest(kind=kind):
                program = self.begin(kind, 2)
                time.sleep(random.random() / 10)
                text = self.attach(program, '--timeout', 30, '--then', 'record', '-d', 0.2, '-r', 500, '-i', '-f', 'collapsed')
                self.check_stacks(text)
                self.assertIn('<module>', text)
                self.finish(program)

    def test_commands_that_follow(self):
        program = self.begin('compute', 3)
        self.assertEqual('', self.attach(program))
        self.assertEqual('', self.attach(program))  # twice is fine
        self.assertIn('"MainThread"', self.attach(program, '--then', 'dump'))
        self.assertIn('recording  no', self.ctl('status', program.pid))
        self.assertIn('leaf', self.attach(program, '--then', 'top', '--once', '-d', 0.2))
        self.ctl('start', program.pid)
        self.assertIn('end that first', self.attach(program, '--undo', status=1))
        self.ctl('stop', program.pid, '--drop')
        self.attach(program, '--undo')
        self.assertEqual([str(program.pid)], os.listdir('/proc/%d/task' % program.pid))
        self.assertIn('does not listen', self.ctl('status', program.pid, status=1))
        self.assertIn('does not listen', self.attach(program, '--undo', status=1))
        self.assertFalse(json.loads(self.attach(program, '--then', 'status', '--json'))['is_recording'])
        self.finish(program)

    def reach(self, program, *words):
        """What the command says; None: the program has come to its end meanwhile."""
        command = [CTL, 'attach', str(program.pid), '--timeout', '30'] + [str(word) for word in words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                              env=self.environment, timeout=PATIENCE)
        if done.returncode != 0:
            self.assertRegex(done.stderr, 'ended|it did not begin|there is no process|does not listen|was cut|nobody listens|no samples')
            program.wait(PATIENCE)
            return None
        self.assertEqual('', done.stderr)
        return done.stdout

    def attach_again_and_again(self, kind, seconds):
        """To five programs, four times each, at random moments; answers what each took."""
        takes = []
        for _ in range(5):
            program = self.begin(kind, seconds)
            for words in [], ['--undo'], ['--then', 'dump'], ['--undo']:
                time.sleep(random.random() / 10)
                begun = time.monotonic()
                if self.reach(program, *words) is not None:
                    takes.append(time.monotonic() - begun)
            text = self.reach(program, '--then', 'record', '-d', 0.3, '-r', 500, '-i', '-f', 'collapsed')
            self.check_stacks(text or '')
            if kind == 'interrupted':
                program.send_signal(signal.SIGINT)
            self.finish(program)
        self.assertGreater(len(takes), 4)
        return sorted(takes)

    def check_stacks(self, text):
        roots = {stack.frames[0].name for stack in collapsed.parse(text) if stack.thread == 'MainThread'}
        self.assertLessEqual(roots, {'<module>', '_shutdown', '[unsettled]'})  # _shutdown: it ends, and has threads

    def test_who_waits_for_a_lock(self):
        """It is reached where it waits, which goes on and comes to the same end, as late as it should; Ctrl-C ends it still."""
        kinds = (('wait_for_lock', 0), ('wait_for_rlock', 0), ('wait_for_event', 0), ('wait_for_queue', 0),
                 ('wait_for_simple_queue', 0), ('timed_lock', 3), ('timed_rlock', 3), ('timed_event', 3), ('timed_queue', 3),
                 ('timed_join', 3), ('join_computing', 3), ('join_sleeping', 3), ('wait_in_turns', 3), ('interrupted', 0))
        with concurrent.futures.ThreadPoolExecutor(7) as pool:  # side by side, as most of it is waiting
            results = [(kind, pool.submit(self.attach_again_and_again, kind, seconds)) for kind, seconds in kinds]
        for kind, result in results:
            with self.subTest(kind=kind):
                takes = result.result()
                self.assertLess(takes[len(takes) // 2], 2)

    def test_who_waits_for_a_moment(self):
        """For a signal or in a loop of events: what it waits for ends the wait, and nothing else does."""
        for kind in 'pauses', 'asynchronous':
            with self.subTest(kind=kind):
                takes = self.attach_again_and_again(kind, 2)
                self.assertLess(takes[len(takes) // 2], 2)

    def test_who_runs_in_another_thread(self):
        """CPython's main thread is the one that it was begun in, and that need not be the process's first."""
        for kind in 'compute', 'sleep', 'threads', 'wait_for_queue', 'timed_lock':
            with self.subTest(kind=kind):
                program = self.begin(kind, 2, ELSEWHERE)
                time.sleep(random.random() / 10)
                text = self.reach(program, '--then', 'record', '-d', 0.2, '-r', 500, '-i', '-f', 'collapsed')
                self.assertIn('<module>', text)
                self.finish(program)

    def test_who_waits_in_another_thread(self):
        """Which one that is, is told: the host knows it by its name."""
        program = self.begin('pause', 1, ELSEWHERE)
        time.sleep(0.3)
        self.assertRegex(self.attach(program, '--timeout', 0.5, status=1), r'in its main thread \("[^"]+", \d+\) for 0\.5 s')

    def test_who_has_python_inside(self):
        """No program called python3 there that told CPython what its main thread is."""
        for kind in 'compute', 'threads', 'wait_for_queue':
            with self.subTest(kind=kind):
                program = self.begin(kind, 2, EMBEDDED)
                time.sleep(random.random() / 10)
                text = self.reach(program, '--then', 'record', '-d', 0.3, '-r', 500, '-i', '-f', 'collapsed')
                self.assertIn('<module>', text)
                self.finish(program)

    def test_who_has_mapped_its_libraries_again(self):
        """What runs is taken for CPython and for the loader, not what is only read."""
        for python in harness.PYTHON, EMBEDDED:
            with self.subTest(python=python):
                program = self.begin('reads_its_libraries', 2, python)
                time.sleep(0.3)
                text = self.reach(program, '--then', 'record', '-d', 0.3, '-r', 500, '-i', '-f', 'collapsed')
                self.assertIn('reads_its_libraries', text)
                self.finish(program)

    def test_who_waits_for_a_signal(self):
        program = self.begin('pause')
        time.sleep(0.3)
        self.assertIn('has run no Python in its main thread for 0.5 s', self.attach(program, '--timeout', 0.5, status=1))
        program.send_signal(signal.SIGUSR1)
        self.finish(program)

    def test_who_waits_is_left_alone(self):
        """It is said after the time-out, the call in which it waits returns what it would have, and nothing comes later."""
        for kind, result in (('wait_for_input', 'True'), ('read_pipe', 'True'), ('wait_for_select', 'True'),
                             ('wait_for_poll', 'True'), ('wait_for_epoll', 'True'), ('bare_poll', '(1, 0)'),
                             ('bare_epoll', '(1, 0)'), ('bare_semaphore', '(0, 0)'), ('bare_queue', '(8, 0)'),
                             ('one_sleep', 'True')):
            with self.subTest(kind=kind):
                program = self.begin(kind, 2)
                time.sleep(0.3)  # most wait by then; where one does not, it runs Python, and is attached to
                done = subprocess.run([CTL, 'attach', str(program.pid), '--library', LIBRARY, '--timeout', '0.3'],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment, timeout=PATIENCE)
                self.assertTrue(done.returncode == 0 or b'has run no Python in its main thread for 0.3 s' in done.stderr, done.stderr)
                self.finish(program, result)
                if done.returncode != 0:
                    self.assertFalse(os.path.exists(os.path.join(self.folder, 'pyprof-%d' % os.geteuid())))

    def test_who_goes_on_in_time(self):
        program = self.begin('wait_for_input')
        attach = subprocess.Popen([CTL, 'attach', str(program.pid), '--library', LIBRARY, '--timeout', '60'], env=self.environment)
        time.sleep(0.3)
        self.finish(program)
        attach.wait(PATIENCE)

    def test_who_ends_without_an_answer(self):
        """It is seen that it has, though nobody has asked for its status yet."""
        program = self.begin('pause')
        attach = subprocess.Popen([CTL, 'attach', str(program.pid), '--timeout', '1000'], stderr=subprocess.PIPE, env=self.environment)
        while not glob.glob('/tmp/pyprof-attach-%d-*' % program.pid):
            time.sleep(0.01)
        program.send_signal(signal.SIGKILL)
        self.assertIn(b'has ended', attach.communicate(timeout=PATIENCE)[1])
        self.assertEqual(1, attach.returncode)

    def test_programs_that_end_and_become_others(self):
        """Whatever comes of it, it is said in one line, and the program does what it does."""
        for turn in range(12):
            program = self.begin(*(('executes', 0.6) if turn % 2 else ('compute', 0.05 * random.random())))
            time.sleep(random.random() / 10)
            done = subprocess.run([CTL, 'attach', str(program.pid), '--library', LIBRARY, '--timeout', '1'],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment, timeout=PATIENCE)
            self.assertIn((done.returncode, done.stdout, done.stderr.count(b'\n')), ((0, b'', 0), (1, b'', 1)), done.stderr)
            out, complaint = self.rest(program)
            self.assertEqual((0, ''), (program.returncode, complaint))
            self.assertTrue(out.endswith('True' + AS_EVER), out)


class Killed(Case):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.remove_folders)
        self.programs = []

    def remove_folders(self):
        for program in self.programs:
            for path in glob.glob('/tmp/pyprof-attach-%d-*' % program.pid):
                shutil.rmtree(path)

    def attach_and_be_killed(self, program, step):
        """Whether pyprof-ctl came so far; else it is done with what it does to the program."""
        environment = dict(self.environment, LD_PRELOAD=CUT, PYPROF_CUT=str(step))
        done = subprocess.run([CTL, 'attach', str(program.pid), '--timeout', '10'], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=environment, timeout=PATIENCE)
        if done.returncode != -signal.SIGKILL:
            self.assertEqual((0, b''), (done.returncode, done.stderr))
        return done.returncode == -signal.SIGKILL

    def be_killed_at_each_step(self, kind):
        """A program for every five steps; answers how many there are."""
        for first in range(1, 1000, 5):
            program = self.begin(kind)
            self.programs.append(program)
            time.sleep(0.1)  # some kinds wait by then
            for step in range(first, first + 5):
                is_killed = self.attach_and_be_killed(program, step)
                if not is_killed:
                    break
            self.ctl('attach', program.pid, '--timeout', 30)
            self.finish(program)
            if not is_killed:
                return step - 1

    def test_at_each_step(self):
        """Whoever is killed at whatever step leaves a program that goes on, and that can be attached to."""
        for kind in 'compute_until_told', 'sleep_until_told', 'wait_for_queue', 'timed_lock_until_told':
            with self.subTest(kind=kind):
                does_trace = VERSION < (3, 14) or 'sleep' not in kind and 'compute' not in kind
                self.assertGreater(self.be_killed_at_each_step(kind), 10 if does_trace else 2)


class Refused(Case):
    def refusal(self, pid, *words):
        text = self.ctl('attach', pid, '--timeout', 1, *words, status=1)
        self.assertTrue(text.startswith('pyprof-ctl: '), text)
        return text

    def test_who_is_none(self):
        ended = subprocess.Popen(['true'])
        while state_of(ended.pid) != 'Z':
            time.sleep(0.01)
        self.assertIn('has ended', self.refusal(ended.pid))
        ended.wait()
        self.assertIn('there is no process', self.refusal(ended.pid))
        with subprocess.Popen(['sleep', '100']) as other:
            time.sleep(0.1)
            self.assertIn('no CPython was found', self.refusal(other.pid))
            other.kill()

    def test_who_is_stopped_or_traced(self):
        program = self.begin('sleep', 2)
        os.kill(program.pid, signal.SIGSTOP)
        while state_of(program.pid) != 'T':
            time.sleep(0.01)
        self.assertIn("'kill -CONT %d'" % program.pid, self.refusal(program.pid))
        self.assertEqual('T', state_of(program.pid))
        os.kill(program.pid, signal.SIGCONT)
        import ctypes
        ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self.assertEqual(0, ptrace(0x4206, program.pid, None, None), os.strerror(ctypes.get_errno()))
        self.assertIn('is traced by process %d' % os.getpid(), self.refusal(program.pid))
        self.assertEqual(0, ptrace(0x4207, program.pid, None, None))  # PTRACE_INTERRUPT
        os.waitpid(program.pid, 0x40000000)
        self.assertEqual(0, ptrace(17, program.pid, None, None))  # PTRACE_DETACH
        self.finish(program)

    def test_ptrace_is_forbidden(self):
        """Which is no matter from 3.14 on, but where the main thread waits for a lock."""
        for kind in ('compute_until_told', 'wait_for_queue')[VERSION < (3, 14):]:
            with self.subTest(kind=kind):
                program = self.begin(kind)
                time.sleep(0.3)
                done = subprocess.run([CTL, 'attach', str(program.pid), '--timeout', '2'], stderr=subprocess.PIPE,
                                      env=dict(self.environment, LD_PRELOAD=CUT, PYPROF_CUT='0'))
                if kind == 'wait_for_queue':
                    self.assertIn(b'may not be traced from here', done.stderr)
                else:
                    self.assertEqual((0, b''), (done.returncode, done.stderr))
                self.assertEqual(kind == 'wait_for_queue', done.returncode == 1)
                self.finish(program)

    def test_another_user(self):
        if os.geteuid() != 0:
            self.skipTest('only root can become another user')
        program = self.begin('sleep', 1)
        ctl = shutil.copy(CTL, self.folder)
        os.chmod(self.folder, 0o755)
        done = subprocess.run([ctl, 'attach', str(program.pid)], stderr=subprocess.PIPE, cwd='/', preexec_fn=lambda: os.setuid(65534))
        self.assertIn(b'is of user 0: only that user and root may attach to it', done.stderr)
        self.finish(program)

    def test_libraries(self):
        program = self.begin('compute', 2)
        self.assertIn('--library: /nowhere', self.refusal(program.pid, '--library', '/nowhere'))
        with open(os.path.join(self.folder, 'no.so'), 'w', encoding='ascii') as file:
            file.write('no library')
        self.assertIn('ImportError', self.refusal(program.pid, '--library', file.name))
        self.finish(program)

    @unittest.skipIf(VERSION < (3, 14), 'such a thing came with 3.14')
    def test_remote_debugging_is_off(self):
        program = self.begin('compute', 1, PYTHON_DISABLE_REMOTE_DEBUG='1')
        self.assertIn('-X disable_remote_debug', self.refusal(program.pid, '--library', LIBRARY))
        self.finish(program)

    def test_command_lines(self):
        for words in (['attach'], ['attach', 1, '--then'], ['attach', 1, '--then', 'list'], ['attach', 1, '--then', 'attach'],
                      ['attach', 1, '--then', 'record'], ['attach', 1, '--timeout', 'x'], ['status', 1, '--then', 'dump'],
                      ['attach', 1, '--undo', '--then', 'dump'], ['dump', 1, '--library', 'x'], ['attach', 1, '-o', 'x']):
            with self.subTest(words=words):
                self.ctl(*words, status=2)
        self.assertIn('is no process id', self.refusal('x'))


if __name__ == '__main__':
    harness.main()
