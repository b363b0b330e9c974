"""One run of a program under a profiler."""

import contextlib
import json
import os
import select
import signal
import subprocess
import time

import install
import outputs

WARM_UP = 1.0  # seconds until an external profiler has found its way into the program
LONG_WARM_UP = 3.0  # the same, where there are a thousand threads
SETTLE = 0.04  # seconds after it is continued: some catch up with the samples that they missed
SCRIPT = 'bench_target.py'


class Failure(Exception):
    """Why a run gave no figures, in a few words."""


def state(pid):
    """The states of a process's threads, as letters; '' when it has gone."""
    letters = ''
    try:
        for thread in os.listdir('/proc/%d/task' % pid):
            with open('/proc/%d/task/%s/stat' % (pid, thread)) as file:
                letters += file.read().rpartition(')')[2].split()[0]
    except OSError:
        pass
    return letters


def cpu_ns(pid):
    """CPU time of a process by the clock that the kernel has for each."""
    return time.clock_gettime_ns(~pid << 3 | 2)


def peak_memory(pid):
    """In bytes; 0 when it has gone."""
    try:
        with open('/proc/%d/status' % pid) as file:
            for line in file:
                if line.startswith('VmHWM:'):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Process:
    """A child whose output goes to a file."""

    def __init__(self, command, environment, log, pass_fds=()):
        self.log = log
        with open(log, 'wb') as file:
            self.child = subprocess.Popen(command, env=dict(os.environ, **environment), stdin=subprocess.DEVNULL,
                                          stdout=file, stderr=subprocess.STDOUT, pass_fds=pass_fds)
        self.pid = self.child.pid

    def text(self):
        with open(self.log, encoding='utf-8', errors='replace') as file:
            return file.read()

    def wait(self, seconds):
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure('did not end within %d s' % seconds)

    def kill(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
            self.child.wait()


class External:
    """An external profiler: started, stopped and continued when the program asks for it."""

    def __init__(self, command, environment, log, target):
        self.target = target
        self.process = Process(command, environment, log)
        self.cpu_before = self.cpu = self.peak = None
        self.is_paused = False

    def begin(self):
        time.sleep(WARM_UP)
        self.check()
        self.pause()

    def check(self):
        code = self.process.child.poll()
        if code is not None:
            raise Failure('the profiler ended with %d: %s' % (code, install.reason(self.process.text())))

    def on(self):
        self.check()
        self.is_paused = False
        self.process.child.send_signal(signal.SIGCONT)
        time.sleep(SETTLE)
        self.cpu_before = cpu_ns(self.process.pid)

    def off(self):
        self.check()
        self.cpu = cpu_ns(self.process.pid) - self.cpu_before
        self.pause()

    def pause(self):
        """Stops it at a moment at which it does not hold the program."""
        for _ in range(1000):
            self.process.child.send_signal(signal.SIGSTOP)
            if self.has_stopped() and not self.holds_target():
                self.is_paused = True
                return
            self.process.child.send_signal(signal.SIGCONT)
            time.sleep(0.0005)
        raise Failure('the profiler could not be stopped without holding the program')

    def release(self):
        """A program that does not get on may yet be held by the profiler, which cannot let go while it is stopped."""
        if self.is_paused and self.holds_target():
            self.process.child.send_signal(signal.SIGCONT)
            time.sleep(SETTLE)
            self.pause()

    def has_stopped(self):
        for _ in range(1000):
            if set(state(self.process.pid)) == {'T'}:
                return True
            time.sleep(0.0001)
        return False

    def holds_target(self):
        """Looks for a while: what ptrace has asked for may come to pass after it has been stopped itself."""
        for _ in range(20):
            if set(state(self.target)) & set('tT'):
                return True
            time.sleep(0.0001)
        return False

    def end(self):
        self.is_paused = False
        self.process.child.send_signal(signal.SIGCONT)
        time.sleep(SETTLE)
        self.process.child.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 60
        self.peak = 0
        while self.process.child.poll() is None:
            self.peak = max(self.peak, peak_memory(self.process.pid))
            if time.monotonic() > deadline:
                raise Failure('the profiler did not end after SIGINT')
            time.sleep(0.01)


class Attached(External):
    """One that is never stopped: it comes, is there, and goes."""

    def begin(self):
        time.sleep(LONG_WARM_UP)
        self.check()

    def on(self):
        self.check()
        self.cpu_before = cpu_ns(self.process.pid)

    def off(self):
        self.check()
        self.cpu = cpu_ns(self.process.pid) - self.cpu_before


class Run:
    """Starts the program, serves its questions, and keeps what came of it."""

    def __init__(self, peer, workload, rate, kind, seconds, stretch, cores, programs, folder):
        self.peer = peer
        self.folder = folder
        self.output = os.path.join(folder, 'output')
        self.external = None
        self.patience = 60 + 10 * seconds
        questions = os.pipe()
        answers = os.pipe()
        self.config = {
            'program': workload.program[:-len('.py')], 'programs': programs, 'threads': workload.threads,
            'kind': kind, 'seconds': seconds, 'stretch': stretch, 'rate': rate, 'inside': peer.inside,
            'cores': cores,
            'output': self.output, 'result': os.path.join(folder, 'result.json'),
            'questions': questions[1], 'answers': answers[0]}
        config = os.path.join(folder, 'config.json')
        with open(config, 'w') as file:
            json.dump(self.config, file)
        script = os.path.join(programs, SCRIPT)
        arguments = [config] + ([workload.argument] if workload.argument else [])
        command, environment = peer.target(self.config, script, arguments)
        environment = dict({'PYTHONDONTWRITEBYTECODE': '1'}, **environment)
        self.target = Process(command, environment, os.path.join(folder, 'target.log'), (questions[1], answers[0]))
        os.close(questions[1])
        os.close(answers[0])
        self.questions = os.fdopen(questions[0])
        self.answers = os.fdopen(answers[1], 'w')

    def serve(self):
        """Answers the program's questions until it has closed its side."""
        while True:
            self.wait_for_question()
            question = self.questions.readline().strip()
            if not question:
                return
            self.act(question)
            self.answers.write('done\n')
            self.answers.flush()

    def wait_for_question(self):
        deadline = time.monotonic() + self.patience
        while not select.select([self.questions], [], [], 0.5)[0]:
            if time.monotonic() > deadline:
                raise Failure('the program hung')
            if self.external:
                self.external.release()

    def act(self, question):
        if question == 'begin':
            command, environment = self.peer.command(self.target.pid, self.config['rate'], self.output)
            make = Attached if self.config['kind'] == 'surrounded' else External
            self.external = make(command, environment, os.path.join(self.folder, 'profiler.log'), self.target.pid)
            self.external.begin()
        else:
            getattr(self.external, question)()

    def finish(self):
        """The program's result, with the external profiler's figures in it, and what was recorded."""
        self.serve()
        code = self.target.wait(60)
        if code != 0 or not os.path.exists(self.config['result']):
            raise Failure('the program ended with %d: %s' % (code, install.reason(self.target.text())))
        with open(self.config['result']) as file:
            result = json.load(file)
        log = self.target.text()
        if self.external:
            log += self.external.process.text()
            result['profiler_cpu_ns'] = self.external.cpu
            result['profiler_peak'] = self.external.peak
        try:
            return result, self.peer.read(self.output, log, result['figures'])
        except FileNotFoundError:
            raise Failure('the profiler wrote nothing: %s' % install.reason(log))

    def close(self):
        if self.external:
            self.external.process.kill()
        self.target.kill()
        self.questions.close()
        try:
            self.answers.close()
        except BrokenPipeError:
            pass


def run(*args):
    """Answers (result, recording)."""
    try:
        with contextlib.closing(Run(*args)) as one:
            return one.finish()
    except (OSError, ValueError, KeyError, IndexError, install.Missing, subprocess.SubprocessError,
            outputs.FormatError) as error:
        raise Failure('%s: %s' % (type(error).__name__, error))
