"""Every end that lets code run leaves a profile, and is the end that it would be under python3."""

import json
import os
import re
import resource
import signal
import subprocess
import textwrap
import time
import unittest

from case import Case, RUN, SamplerWasLate, SOME, TIMEOUT, VERSION, default_signals, lines_of_ours, side_by_side, wait_until

# Those whose default action ends a process: signal(7).
HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGTSTP, signal.SIGTTIN,
            signal.SIGTTOU, signal.SIGSTOP}
FATAL = sorted(set(signal.valid_signals()) - HARMLESS - {signal.SIGKILL})
# The same for all real-time signals, so few of them stand for all.
TYPICAL = [number for number in FATAL if number <= 31 or number in (signal.SIGRTMIN, 40, signal.SIGRTMAX)]

LAST = r"pyprof-run: \d+ samples? in [\d.]+ s .*; wrote "


def no_core():
    """What dies by a signal here is meant to."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    default_signals()


class Program:
    """A script that runs in a folder of its own, under pyprof-run or, with out=False, under python3."""

    def __init__(self, top, text, *options, out=True, env=None, python=(), pipe=None, preexec=None, **more):
        self.folder = os.path.realpath(subprocess.check_output(["mktemp", "-d", "-p", top], universal_newlines=True).strip())
        self.out = os.path.join(self.folder, "out.txt")
        with open(os.path.join(self.folder, "prog.py"), "w", encoding="utf-8") as file:
            file.write(SOME + textwrap.dedent(text))
        self.env = dict(env, **({"OUT": self.out} if out else {}))
        command = [RUN, "-r", "1000", "-F", "-o", self.out, *options] if out else ["python3"]
        more.setdefault("stdin", subprocess.DEVNULL)
        if pipe:
            os.mkfifo(os.path.join(self.folder, pipe))

        def prepare():
            no_core()
            if preexec:
                preexec()
        self.process = subprocess.Popen(command + [*python, "prog.py"], cwd=self.folder, env=self.env,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                                        preexec_fn=prepare, **more)

    def ready(self):
        """Waits for the first line."""
        said = b""
        while not said.endswith(b"\n"):
            piece = os.read(self.process.stdout.fileno(), 1)
            if not piece:
                break
            said += piece
        return said

    def end(self):
        """Waits for the end of the program and of the writer, which has its standard error."""
        self.said, err = self.process.communicate(timeout=TIMEOUT)
        self.code = self.process.returncode
        lines = re.sub("0x[0-9a-f]+", "0x", err.replace(self.folder, ".")).splitlines()
        self.ours = [text for text in lines_of_ours(lines) if not re.match(
            r"pyprof-run: warning: \d+ samples? of stacks that are deeper", text)]
        self.told = [text for text in lines if text.startswith("pyprof-run: ")]
        self.others = [text for text in lines if text not in self.told]
        self.profile = None
        if os.path.exists(self.out):
            with open(self.out, encoding="utf-8") as file:
                self.profile = file.read()
        return self


class Base(Case):
    def program(self, text, *options, **more):
        more.setdefault("env", {key: value for key, value in self.env.items() if key != "OUT"})
        return Program(self.dir, text, *options, **more)

    def assertWritten(self, program, *functions):
        self.assertIsNotNone(program.profile, program.ours + program.others)
        for function in functions or ("some",):
            if not re.search(r"[; ]%s \(" % function, program.profile):
                late = any("the sampler came too late" in text for text in program.told)
                raise (SamplerWasLate if late else AssertionError)(
                    "no %s in\n%s\n%s" % (function, program.profile[:2000], "\n".join(program.told)))
        self.assertRegex(program.ours[-1], LAST + "./out.txt")
        self.assertEqual(len(program.ours), 1, program.ours)
        self.assertEqual(sorted(set(os.listdir(program.folder)) & {"out.txt", "prog.py"}), ["out.txt", "prog.py"])

    def same(self, row):
        """(name, text, functions in the profile, what the last line says besides): as under python3."""
        text, functions, rest = (*row[1:], ("some",), "")[:3] if len(row) != 3 else (*row[1:], "")
        expected = self.program(text, out=False).end()
        real = self.program(text).end()
        self.assertEqual((expected.code, expected.said, expected.others), (real.code, real.said, real.others), real.ours)
        self.assertWritten(real, *functions)
        self.assertIn(rest, real.ours[-1])

    def dies(self, text, number, how):
        program = self.program(text).end()
        self.assertEqual((program.code, program.said), (-number, ""), (how, program.ours, program.others))
        self.assertEqual([line for line in program.others if "Interrupt" not in line and not line.startswith(("Trace", " "))],
                         [])
        self.assertWritten(program)

    def dies_by(self, number):
        self.dies("import signal; signal.signal(%d, signal.SIG_DFL); os.kill(os.getpid(), %d); time.sleep(60)"
                  % (number, number), number, "inside")


LIBC = "import ctypes; libc = ctypes.CDLL(None); "
NO_PROGRAM = "open('no', 'wb').write(b'\\x7fELF, but no program' + bytes(99)); os.chmod('no', 0o755)\n"  # ENOEXEC


class Exits(Base):
    def test_exits(self):
        side_by_side(self.same, [
            ("_exit", "print('said', flush=True); os._exit(0)"),
            ("_exit with a code", "os._exit(5)"),
            ("_exit with more than a byte", "os._exit(256 + 3)"),
            ("_exit in a thread", "import threading; threading.Thread(target=os._exit, args=(6,)).start(); time.sleep(60)"),
            ("_exit at exit", "import atexit; atexit.register(os._exit, 7)"),
            ("_exit while dying", "class A:\n  def __del__(self): os._exit(8)\na = A()"),
            ("_exit beside threads", "import threading\nfor i in range(4): threading.Thread(target=lambda: some(60)).start()\n"
                                     "os._exit(9)"),
            ("_exit in a handler", "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: os._exit(10))\n"
                                   "os.kill(os.getpid(), signal.SIGUSR1); time.sleep(60)"),
            ("libc's exit", LIBC + "libc.exit(11)"),
            ("libc's _Exit", LIBC + "libc._Exit(12)"),
            ("libc's quick_exit", LIBC + "libc.quick_exit(13)"),
            ("an exit in a finalizer of libc", LIBC + "f = ctypes.CFUNCTYPE(None)(lambda: os._exit(14)); libc.on_exit(f, None)"
                                               if VERSION < (3, 12) else "os._exit(14)"),
            ("sys.exit in a thread", "import sys, threading\nthreading.Thread(target=sys.exit, args=(3,)).start()"),
            ("an exception", "def f(): 1 / 0\nf()"),
            ("abort", "os.abort()"),
            ("abort in libc", LIBC + "libc.abort()"),
            ("killed by itself", "os.kill(os.getpid(), 9)"),
            ("killed by itself with its group", "os.setpgid(0, 0); os.killpg(0, 9)"),
            ("killed by itself, raised", "import signal; signal.raise_signal(9)"),
            ("killed by itself in a thread", "import signal, threading; signal.pthread_kill(threading.get_ident(), 9)"),
            ("an alarm", "import signal; signal.alarm(1); time.sleep(60)"),
            ("a timer", "import signal; signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(60)"),
            ("a timer of its CPU time", "import signal; signal.setitimer(signal.ITIMER_PROF, 0.01)\nwhile 1: pass"),
            ("a broken pipe", "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\nr, w = os.pipe(); os.close(r)\n"
                              "os.write(w, b'x')"),
            ("the group", "import signal; os.setpgid(0, 0); os.killpg(0, signal.SIGTERM); time.sleep(60)"),
        ])

    def test_exec(self):
        side_by_side(self.same, [
            ("execv", "os.execv('/bin/echo', ['echo', 'other'])", ("some",), "replaced by /bin/echo, which is not recorded"),
            ("execl", "os.execl('/bin/echo', 'echo', 'other')"),
            ("execvp", "os.execvp('echo', ['echo', 'other'])", ("some",), "/echo, which is not recorded"),
            ("execlpe", "os.execlpe('echo', 'echo', 'other', {'A': 'b', 'PATH': '/bin'})"),
            ("execvpe", "os.execvpe('env', ['env'], {'A': 'b', 'PATH': '/bin:/usr/bin'})"),
            ("by a descriptor", "os.execve(os.open('/bin/echo', os.O_RDONLY), ['echo', 'other'], {})"),
            ("libc's execvp", LIBC + "a = (ctypes.c_char_p * 3)(b'echo', b'other', None); libc.execvp(b'echo', a)"),
            ("libc's execl", LIBC + "libc.execl(b'/bin/echo', b'echo', b'other', None)"),
            ("libc's execlp", LIBC + "libc.execlp(b'echo', b'echo', b'other', None)"),
            ("itself", "import sys\nif 'again' in sys.argv: print(sys.argv, os.environ.get('LD_PRELOAD')); sys.exit(4)\n"
                       "os.execv(sys.executable, [sys.executable, 'prog.py', 'again'])"),
            ("a script", "open('x', 'w').write('#!/bin/sh\\necho script; exit 6'); os.chmod('x', 0o755); os.execl('./x', 'x')"),
            ("in a thread", "import threading\nthreading.Thread(target=os.execl, args=('/bin/echo', 'echo', 'a')).start()\n"
                            "time.sleep(60)"),
            ("a text that a shell runs", "open('x', 'w').write('echo text; exit 6'); os.chmod('x', 0o755)\n" + LIBC +
             "a = (ctypes.c_char_p * 2)(b'x', None); libc.execvp(b'./x', a)", ("some",), "; the program was replaced by ./x"),
            ("without a PATH", LIBC + "libc.unsetenv(b'PATH'); libc.execlp(b'echo', b'echo', b'other', None)"),
            ("after one that failed", NO_PROGRAM + "try: os.execv('./no', ['x'])\nexcept OSError as error: print(error)\n"
             "def after(): some()\nafter()\nos.execl('/bin/echo', 'echo', 'other')", ("some", "after"),
             "; the program was replaced by /bin/echo"),
        ])

    def test_exec_with_a_pipe_that_is_read_late(self):
        """What cannot be written again is written when the program has been replaced, and not when that fails."""
        program = self.program(NO_PROGRAM + "try: os.execv('./no', ['x'])\nexcept OSError as error: print(error, flush=True)\n"
                               "def after(): some()\nafter()\nos.execl('/bin/sleep', 'sleep', '1')", "-f", "collapsed", "-o", "pipe",
                               pipe="pipe")
        with open(os.path.join(program.folder, "pipe"), encoding="utf-8") as file:
            text = file.read()
        program.end()
        self.assertEqual((program.code, program.said), (0, "[Errno 8] Exec format error\n"))
        self.assertEqual(text, program.profile)
        self.assertWritten(program, "some", "after")

    def test_exec_that_fails_again_and_again(self):
        """Each thread stays one, and the times add up to the whole."""
        program = self.program(NO_PROGRAM + "import threading\nevent = threading.Event()\n"
                               "threads = [threading.Thread(target=event.wait, name='same') for _ in range(2)]\n"
                               "for thread in threads: thread.start()\nfor i in range(5):\n"
                               "  try: os.execv('./no', ['x'])\n  except OSError: some(0.05)\nevent.set()", "-o", "o.json", "-i")
        program.end()
        self.assertWritten(program, "some", r"[\w.]*wait")
        with open(os.path.join(program.folder, "o.json"), encoding="utf-8") as file:
            profiles = json.load(file)["profiles"]
        self.assertEqual(sorted(profile["name"] for profile in profiles), ["MainThread", "same", "same"])
        whole = max(profile["endValue"] for profile in profiles)
        for profile in profiles:
            self.assertEqual(profile["startValue"] + sum(profile["weights"]), profile["endValue"])
            self.assertLessEqual(len(profile["samples"]), len(profile["weights"]))
        times = {}
        for stack, microseconds in re.findall("(?m)^(.*) ([0-9]+)$", program.profile):
            thread = stack.split(";")[0]
            times[thread] = times.get(thread, 0) + int(microseconds) * 1000
        self.assertEqual(set(times), {"thread MainThread", "thread same"})
        self.assertAlmostEqual(times["thread MainThread"] / whole, 1, delta=0.1)
        self.assertLessEqual(times["thread same"], 2.02 * whole)

    def test_killed_after_an_exec_that_failed(self):
        """What was handed over for it is not lost."""
        program = self.program(NO_PROGRAM + "try: os.execv('./no', ['x'])\nexcept OSError as error: print('ready', flush=True)\n"
                               "time.sleep(60)")
        program.ready()
        program.process.kill()
        program.end()
        self.assertEqual(program.code, -9)
        self.assertWritten(program)
        self.assertRegex(program.ours[0], "; what came later is lost: the program ended in a way that lets nothing be written")

    def test_exec_that_fails(self):
        """The program goes on, and so does the recording."""
        after = "except OSError as error: print(error)\ndef after(): some()\nafter()\nos._exit(3)"
        side_by_side(self.same, [
            ("no program but for its beginning", NO_PROGRAM + "try: os.execv('./no', ['x'])\n" + after, ("some", "after")),
            ("too many words", "try: os.execv('/bin/echo', ['x' * 100000] * 100)\n" + after, ("some", "after")),
            ("a word that is too long", "try: os.execv('/bin/echo', ['x' * 1000000])\n" + after, ("some", "after")),
            ("one that is being written", "import shutil; shutil.copy('/bin/echo', 'x'); f = open('x', 'r+b')\n"
             "try: os.execv('./x', ['x'])\n" + after, ("some", "after")),
            ("an interpreter that is no program", "open('x', 'w').write('#!/etc/passwd'); os.chmod('x', 0o755)\n"
             "try: os.execl('./x', 'x')\n" + after, ("some", "after")),
            ("an interpreter without end", "open('x', 'w').write('#!./x'); os.chmod('x', 0o755)\n"
             "try: os.execl('./x', 'x')\n" + after, ("some", "after")),
            ("on PATH", NO_PROGRAM + "try: os.execvpe('no', ['x'], {'PATH': '.'})\n" + after, ("some", "after")),
            ("by a descriptor", NO_PROGRAM + "try: os.execve(os.open('no', os.O_RDONLY), ['x'], {})\n" + after,
             ("some", "after")),
            ("libc's", NO_PROGRAM + LIBC + "\nlibc = ctypes.CDLL(None, use_errno=True)\n"
             "print(libc.execl(b'./no', b'no', None), ctypes.get_errno())\ndef after(): some()\nafter()", ("some", "after")),
            ("in a thread", NO_PROGRAM + "import threading\ndef run():\n  try: os.execv('./no', ['x'])\n"
             "  except OSError as error: print(error)\nt = threading.Thread(target=run); t.start(); t.join()\n"
             "def after(): some()\nafter()", ("some", "after")),
            ("in two threads at once", NO_PROGRAM + "import threading\ndef run():\n  for i in range(5):\n"
             "    try: os.execv('./no', ['x'])\n    except OSError as error: pass\n"
             "t = [threading.Thread(target=run) for i in range(2)]\nfor i in t: i.start()\nfor i in t: i.join()\n"
             "def after(): some()\nafter()", ("some", "after")),
            ("before a signal", NO_PROGRAM + "try: os.execv('./no', ['x'])\nexcept OSError as error: print(error, flush=True)\n"
             "def after(): some()\nafter()\nos.kill(os.getpid(), 15); time.sleep(60)", ("some", "after")),
            ("before its use of signals", NO_PROGRAM + "import signal\nsignal.signal(10, lambda *_: print('heard'))\n"
             "try: os.execv('./no', ['x'])\nexcept OSError as error: print(error)\n"
             "print([(n, str(signal.getsignal(n))[:9]) for n in signal.valid_signals()])\nos.kill(os.getpid(), 10)\n"
             "def after(): some()\nafter()", ("some", "after")),
            ("before a fork", NO_PROGRAM + "try: os.execv('./no', ['x'])\nexcept OSError as error: print(error, flush=True)\n"
             "pid = os.fork()\nif not pid: os._exit(5)\nprint(os.waitpid(pid, 0)[1])\ndef after(): some()\nafter()",
             ("some", "after"), "; 1 forked child process was not recorded"),
            ("no such file", "try: os.execv('/bin/nothing', ['x'])\n" + after, ("some", "after")),
            ("not on PATH", "try: os.execvp('nothing', ['x'])\n" + after, ("some", "after")),
            ("no right", "open('x', 'w').close()\ntry: os.execl('./x', 'x')\n" + after, ("some", "after")),
            ("a folder", "try: os.execl('/tmp', 'x')\n" + after, ("some", "after")),
            ("no program", "open('x', 'w').write('echo'); os.chmod('x', 0o755)\ntry: os.execl('./x', 'x')\n" + after,
             ("some", "after")),
            ("an empty one", "open('x', 'w').close(); os.chmod('x', 0o755)\ntry: os.execl('./x', 'x')\n" + after,
             ("some", "after")),
            ("no interpreter", "open('x', 'w').write('#!/no/such'); os.chmod('x', 0o755)\ntry: os.execl('./x', 'x')\n"
             + after, ("some", "after")),
        ])

    def test_children_that_exec(self):
        """A fork or vfork that then calls exec is no end of the program's."""
        side_by_side(self.same, [
            ("fork", "pid = os.fork()\nif not pid: os.execl('/bin/echo', 'echo', 'child')\n"
                     "print(os.waitpid(pid, 0)[1])\ndef after(): some()\nafter()", ("some", "after"),
             "; 1 forked child process was not recorded"),
            ("posix_spawn", "pid = os.posix_spawn('/bin/echo', ['echo', 'child'], os.environ)\n"
                            "print(os.waitpid(pid, 0)[1])\ndef after(): some()\nafter()", ("some", "after")),
            ("subprocess", "import subprocess\nfor close in (True, False): print(subprocess.check_output(['echo', 'child'],\n"
                           "    close_fds=close))\ndef after(): some()\nafter()", ("some", "after")),
            ("system", "print(os.system('exit 3'))\ndef after(): some()\nafter()", ("some", "after")),
        ])

    def test_daemons(self):
        twice = """
            import sys
            if os.fork(): os._exit(0)
            os.setsid()
            if os.fork(): os._exit(0)
            os.chdir("/")
            """
        side_by_side(self.same, [
            ("twice", twice + "print('daemon', flush=True)", ("some",), "; 1 forked child process was not"),
            ("once", "if os.fork(): os._exit(0)\nos.setsid(); print('daemon')"),
            ("parent returns", "import sys\nif os.fork(): sys.exit(0)\nprint('daemon')"),
            ("libc's daemon", LIBC + "libc.daemon(1, 1); print('daemon', flush=True)", ("some",),
             "; the program goes on as a daemon, which is not recorded"),
        ])

    def test_no_profile_after_syscalls(self):
        """What no function of libc tells of is said by the writer, which is all that is left."""
        def check(row):
            program = self.program(row[1]).end()
            self.assertEqual((program.code, program.profile), (row[2], None))
            self.assertEqual(len(program.ours), 1, program.ours)
            self.assertIn("the recording is lost", program.ours[0])
        side_by_side(check, [("exit_group", LIBC + "libc.syscall(%d, 5)" % (94 if os.uname().machine == "aarch64" else 231), 5),
                             ("killed from outside", "import subprocess; subprocess.call(['kill', '-9', str(os.getpid())])\n"
                                                     "time.sleep(60)", -9)])


class Kernel(Base):
    """What the kernel does whatever CPython's version is: one of them is enough, for what takes seconds and is many."""

    def test_limits_of_cpu_time(self):
        side_by_side(self.same, [
            ("a limit of its CPU time", "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 9))\nwhile 1: pass"),
            ("a limit of its CPU time that kills", "import resource; resource.setrlimit(resource.RLIMIT_CPU, (2, 2))\n"
                                                   "print(resource.getrlimit(resource.RLIMIT_CPU), flush=True)\nwhile 1: some()",
             ("some",), "; what came later is lost: the program was killed, most likely by its limit of CPU time (ulimit -t)"),
            ("one that kills beside threads", "import resource, threading; resource.setrlimit(resource.RLIMIT_CPU, (2, 2))\n"
                                              "def run():\n  while 1: leaf_of_some()\n"
                                              "for i in range(3): threading.Thread(target=run).start()"),
            ("one that is ignored before it kills", "import resource, signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
                                                    "resource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile 1: some()"),
            ("an end before it kills", "import resource; resource.setrlimit(resource.RLIMIT_CPU, (2, 2))\n"
                                       "while time.process_time() < 1.4: leaf_of_some()\ndef after(): some()\nafter()\nos._exit(4)",
             ("some", "after")),
        ])

    def test_each_signal(self):
        side_by_side(lambda row: self.dies_by(row[1]), [("signal %d" % number, number) for number in FATAL])


class Signals(Base):
    def test_from_inside(self):
        side_by_side(lambda row: self.dies_by(row[1]), [("signal %d" % number, number) for number in TYPICAL])

    def test_in_a_thread(self):
        def check(number):
            self.dies("import signal, threading; signal.signal(%d, signal.SIG_DFL)\n"
                      "t = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), %d))\n"
                      "t.start(); time.sleep(60)" % (number, number), number, "in a thread")
        side_by_side(lambda row: check(row[1]), [("signal %d" % number, number) for number in TYPICAL[::3]])

    def from_outside(self, number, text, *python):
        program = self.program("import signal; signal.signal(%d, signal.SIG_DFL)\nprint('ready', flush=True)\n%s"
                               % (number, text), python=python)
        program.ready()
        program.process.send_signal(number)
        program.end()
        self.assertEqual(program.code, -number, program.ours + program.others)
        self.assertWritten(program)
        return program

    def test_from_outside(self):
        side_by_side(lambda row: self.from_outside(row[1], "while True: time.sleep(60)"),
                     [("signal %d" % number, number) for number in TYPICAL])

    def test_in_a_c_call_that_holds_the_gil(self):
        side_by_side(lambda row: self.from_outside(row[1], row[2]),
                     [("%s, signal %d" % (text, number), number, text) for text in (
                         "sum(range(10**12))", "import re; re.match('(a*)*b', 'a' * 60)", "list(map(id, iter(int, 1)))")
                      for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)])

    def test_with_faulthandler(self):
        def check(row):
            program = self.from_outside(row[1], "while True: time.sleep(60)" if row[2] else "sum(range(10**12))",
                                        "-X", "faulthandler")
            self.assertEqual("Fatal Python error" in "".join(program.others), False)
        side_by_side(check, [("signal %d" % number, number, True) for number in (signal.SIGTERM, signal.SIGSEGV)])
        def dumps(row):
            expected = self.program(row[1], out=False, python=("-X", "faulthandler")).end()
            real = self.program(row[1], python=("-X", "faulthandler")).end()
            for program in (expected, real):  # where the main thread is while another one dies is chance
                program.others = [line for line in program.others
                                  if "threading.py" not in line and "Binary file" not in line]  # 3.14: C's stack, and ours
            self.assertEqual((expected.code, expected.others), (real.code, real.others))
            self.assertWritten(real)
        side_by_side(dumps, [
            ("segv", "import ctypes; ctypes.string_at(0)"), ("abort", "os.abort()"),
            ("raised", "import signal; signal.raise_signal(signal.SIGFPE)"),
            ("in a thread", "import ctypes, threading\nt = threading.Thread(target=ctypes.string_at, args=(0,))\n"
                            "t.start(); t.join()")])

    def test_faults(self):
        rows = [
            ("a read of nothing", "import ctypes; ctypes.string_at(0)"),
            ("a write to what is read-only", "import ctypes; ctypes.memset(ctypes.cast(ctypes.CDLL(None).getpid, "
                                             "ctypes.c_void_p).value, 0, 1)"),
            ("beyond the end of a file", "import mmap\nwith open('x', 'w+b') as f:\n  f.truncate(8192)\n"
                                         "  m = mmap.mmap(f.fileno(), 8192)\n  f.truncate(0)\n  m[5000]"),
            ("a call of nothing", "import ctypes; ctypes.CFUNCTYPE(None)(8)()"),
            ("in a thread", "import ctypes, threading\nthreading.Thread(target=ctypes.string_at, args=(0,)).start()\n"
                            "time.sleep(60)")]
        # The loader's lock is taken then, for ever.
        with open(os.path.join(self.dir, "crash.c"), "w", encoding="utf-8") as file:
            file.write("__attribute__((constructor)) static void crash(void) { for (volatile int i = 0; i < 30000000; i++) { }\n"
                       "    *(volatile int *)0 = 1; }\n")
        subprocess.check_call(["cc", "-shared", "-fPIC", os.path.join(self.dir, "crash.c"), "-o", os.path.join(self.dir, "crash.so")])
        rows += [("in a constructor", "import ctypes; ctypes.PyDLL(%r)" % os.path.join(self.dir, "crash.so"))]
        if VERSION < (3, 14):  # from then on CPython sees the end of the stack coming, and what it says then is chance
            endless = ("import ctypes, sys, threading\nsys.setrecursionlimit(10**9)\n"
                       "t = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)\n"
                       "def f(a, b):\n"
                       "  ctypes.CDLL(None).qsort((ctypes.c_int * 2)(2, 1), 2, 4, t(f))\n"
                       "  return 0\n")
            rows += [("a stack without end", endless + "f(0, 0)"),
                     ("one of a thread's", endless + "threading.Thread(target=f, args=(0, 0)).start(); time.sleep(60)")]
        side_by_side(self.same, rows)

    def test_kept_by_the_signal_that_asks(self):
        """--signal USR2: one of the user's own still ends the program."""
        def check(row):
            for more in ("", "signal.signal(signal.SIGUSR2, signal.SIG_DFL)"):
                program = self.program("import signal\n%s\nprint(signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL, flush=True)"
                                       "\nwhile True: time.sleep(60)" % more, "--signal", "USR2")
                self.assertEqual(program.ready(), b"True\n")
                program.process.send_signal(signal.SIGUSR2)
                program.end()
                self.assertEqual(program.code, -signal.SIGUSR2)
                self.assertWritten(program)
        check(None)

    def test_a_timer_of_the_programs_while_it_writes(self):
        """CPython takes its handler away before it exits: the exit status is the program's all the same."""
        def check(row):
            program = self.program("import signal, sys\nsignal.signal(%d, lambda *_: None)\nsignal.setitimer(%d, 2, 0.01)\n"
                                   "sys.exit(%d)" % row[1:], "-f", "collapsed", "-o", "pipe", pipe="pipe")
            wait_until(lambda: os.path.exists(program.out))
            time.sleep(4)
            with open(os.path.join(program.folder, "pipe"), encoding="utf-8") as file:
                self.assertIn("some (", file.read())
            program.end()
            self.assertEqual(program.code, row[3], program.others)
            self.assertRegex([line for line in program.ours if "waiting for" not in line][-1], LAST)
        side_by_side(check, [("code %d" % code, signal.SIGALRM, signal.ITIMER_REAL, code) for code in (0, 3)])

    def test_killed_from_outside(self):
        program = self.program("print('ready', flush=True); time.sleep(60)")
        program.ready()
        program.process.kill()
        program.end()
        self.assertEqual((program.code, program.profile), (-9, None))
        self.assertEqual(program.ours, ["pyprof-run: the program ended in a way that lets nothing be written (SIGKILL, "
                                        "say): the recording is lost"])
        self.assertEqual(os.listdir(program.folder), ["prog.py"])


def catches_ctrl_c(name, group):
    """Whether a program of this name is in the process group, and has come to where it handles Ctrl-C."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/status" % pid, encoding="utf-8") as file:
                status = file.read()
            if os.getpgid(int(pid)) == group and re.search(r"(?m)^Name:\s+%s$" % name, status):
                return int(re.search(r"(?m)^SigCgt:\s+(\w+)$", status)[1], 16) >> (signal.SIGINT - 1) & 1
        except OSError:
            pass
    return False


def end_group(leader):
    """What a failed test leaves behind would keep the suite waiting."""
    try:
        os.killpg(leader.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    leader.wait()


class Lines(Base):
    """One line at the end, always, though standard error is no terminal here."""

    def test_the_line(self):
        """What was written, how much, and what is not in it."""
        fork = "pid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)\n"
        def check(row):
            options, text, pattern = row[1:]
            program = self.program(text, *options).end()
            self.assertEqual(program.others, [])
            self.assertEqual(len(program.ours), 1, program.ours)
            self.assertRegex(program.ours[0], "^pyprof-run: [1-9][0-9]* samples? in [0-9.]+ s "
                             r"\([0-9]+ of waiting threads, [0-9]+ lost[^)]*\); wrote \./out\.txt%s$" % pattern)
        side_by_side(check, [
            ("plain", [], "", ""), ("three files", ["-o", "b.svg", "-o", "c.json"], "", r", b\.svg, c\.json"),
            ("a fork", [], fork, "; 1 forked child process was not recorded"),
            ("two forks", [], fork + fork, "; 2 forked child processes were not recorded"),
            ("a fork and exec", [], fork + "os.execl('/bin/true', 'true')",
             "; 1 forked child process was not recorded; the program was replaced by /bin/true, which is not recorded"),
            ("duration", ["-d", "1"], "while not os.path.exists(os.environ['OUT']): some()", "; the program goes on"),
            ("a code", [], "os._exit(3)", ""), ("a signal", [], "os.kill(os.getpid(), 15)", ""),
        ])

    def test_quiet(self):
        for option in ("-q", "--quiet"):
            for text in ("", "os._exit(3)", "os.kill(os.getpid(), 15)", "os.execl('/bin/true', 'true')"):
                program = self.program(text, option).end()
                self.assertEqual((program.ours, program.others), ([], []))
                self.assertIn("some (", program.profile)

    def test_ctrl_c_ends_a_whole_pipeline(self):
        """pyprof-run ... | pyprof-svg: both finish what they do."""
        self.file("prog.py", SOME + "open('up', 'w').close()\nwhile True: some()\n")
        shell = subprocess.Popen(
            ["bash", "-c", "%s -f raw -o /dev/fd/3 prog.py 3>&1 >/dev/null 2>said | %s --unit us - picture.svg 2>svg.said"
             % (RUN, os.path.join(os.path.dirname(RUN), "pyprof-svg"))], cwd=self.work, env=self.env, start_new_session=True,
            preexec_fn=no_core)
        self.addCleanup(end_group, shell)
        wait_until(lambda: os.path.exists(os.path.join(self.work, "up")) and catches_ctrl_c("pyprof-svg", shell.pid))
        os.killpg(shell.pid, signal.SIGINT)
        shell.wait(TIMEOUT)
        wait_until(lambda: "samples in" in self.read(os.path.join(self.work, "said")) and
                   os.path.exists(os.path.join(self.work, "picture.svg")))
        self.assertIn("leaf_of_some", self.read(os.path.join(self.work, "picture.svg")))


if __name__ == "__main__":
    unittest.main()
