"""What a program can see of the profiler: nothing. Each text says the same under pyprof-run as under python3."""

import os
import pty
import signal
import subprocess
import unittest

from case import PYTHON, RUN, side_by_side
from test_ends import Base, LIBC

# A handler of each kind for each signal, and what is told of it.
HANDLERS = """
import signal
def handler(number, frame): heard.append(number)
heard = []
able = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
print([signal.getsignal(n) for n in signal.valid_signals()])
for kind in (handler, signal.SIG_IGN, signal.SIG_DFL, handler):
    print([signal.signal(n, kind) in (signal.SIG_DFL, signal.SIG_IGN, handler, signal.default_int_handler) for n in able])
    print(all(signal.getsignal(n) == kind for n in able))
for n in able:
    os.kill(os.getpid(), n)
    while n not in heard: pass
print(heard)
"""

TEXTS = [
    ("handlers of all signals", HANDLERS),
    ("libc's view of actions", LIBC + "\nb = ctypes.create_string_buffer(256)\n"
     "print([(n, libc.sigaction(n, None, b), min(int.from_bytes(b.raw[:8], 'little'), 2), b.raw[136:140].hex()) for n in range(1, 65)])"),
    ("libc's signal()", LIBC + "\nlibc.signal.restype = ctypes.c_void_p\nlibc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]\n"
     "print([(n, libc.signal(n, None), libc.signal(n, 1), libc.signal(n, None)) for n in range(1, 65) if n not in (2, 13)])"),
    # All but the signals that ask for stacks here: who blocks those may find one waiting (LIMITS).
    ("masks", "import signal\nprint(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.sigpending())\n"
     "print(open('/proc/self/status').read().split('SigPnd:')[1].split('SigCgt:')[0].split()[0])\n"
     "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() -\n"
     "    {signal.SIGURG, signal.SIGUSR2, signal.SIGRTMIN + 3, signal.SIGTERM}); os.kill(os.getpid(), 14); os.kill(os.getpid(), 10)\n"
     "print(sorted(signal.sigpending()), signal.sigwait([10]), signal.sigtimedwait([14], 9).si_signo, signal.sigpending())"),
    ("set_wakeup_fd", "import signal, socket\na, b = socket.socketpair(); b.setblocking(False); a.settimeout(0.2)\n"
     "signal.set_wakeup_fd(b.fileno())\nsignal.signal(10, lambda *_: None)\nsome(); os.kill(os.getpid(), 10); some()\n"
     "print(a.recv(100))\ntry: print(a.recv(100))\nexcept OSError as error: print(error)"),
    ("siginterrupt", "import signal\nsignal.signal(14, lambda *_: print('alarm'))\nsignal.siginterrupt(14, False)\n"
     "signal.setitimer(signal.ITIMER_REAL, 0.05)\nr, w = os.pipe()\nos.set_blocking(r, True)\nimport threading\n"
     "threading.Timer(0.4, os.write, (w, b'x')).start()\nprint(os.read(r, 1))"),
    ("interrupted system calls", LIBC + "\nimport signal\nlibc = ctypes.CDLL(None, use_errno=True)\n"
     "signal.signal(14, lambda *_: None); signal.siginterrupt(14, True); signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
     "print(libc.poll(None, 0, 60000), ctypes.get_errno())\n"
     # A call that is just entered may end so once in 4,096 ticks: see WHAT IT DOES TO YOUR PROCESS.
     "print([(libc.poll(None, 0, 5), ctypes.get_errno()) for _ in range(40)].count((0, 4)) >= 39)"),
    ("timers", "import signal\nprint(signal.getitimer(0), signal.getitimer(1), signal.getitimer(2), signal.alarm(0))"),
    ("its own use of URG", "import signal\nheard = []\nprint(signal.signal(signal.SIGURG, lambda *a: heard.append(a[0])))\n"
     "some(0.2); print(heard)\nos.kill(os.getpid(), signal.SIGURG)\nwhile not heard: pass\nprint(heard)\n"
     "print(signal.getsignal(signal.SIGURG).__name__); signal.signal(signal.SIGURG, signal.SIG_DFL)\n"
     "os.kill(os.getpid(), signal.SIGURG); some(); print(signal.getsignal(signal.SIGURG))"),
    ("out of band data", "import fcntl, signal, socket\nheard = []\nsignal.signal(signal.SIGURG, lambda *a: heard.append(1))\n"
     "s = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(s.getsockname()); b = s.accept()[0]\n"
     "fcntl.fcntl(b.fileno(), fcntl.F_SETOWN, os.getpid()); a.send(b'x', socket.MSG_OOB)\nwhile not heard: pass\n"
     "print(heard, b.recv(1, socket.MSG_OOB))"),
    ("faulthandler", "import faulthandler, signal, sys\nfaulthandler.enable(); print(faulthandler.is_enabled())\n"
     "faulthandler.register(10, chain=False); os.kill(os.getpid(), 10); faulthandler.unregister(10)\n"
     "faulthandler.dump_traceback_later(0.1); time.sleep(0.4); faulthandler.cancel_dump_traceback_later()\n"
     "faulthandler.disable(); print(signal.getsignal(11), signal.getsignal(10))"),
    ("faulthandler, chained", "import faulthandler\nfaulthandler.register(12, chain=True); os.kill(os.getpid(), 12); time.sleep(60)"),
    ("environment", "print(sorted((k, v) for k, v in os.environ.items() if k != 'OUT'))\n"
     "print([k for k in open('/proc/self/environ').read().split(chr(0)) if 'OUT' not in k and 'PRELOAD' not in k and\n"
     "'PYPROF_RUN' not in k and not k.startswith('_=')])\nimport subprocess\n"
     "print(b'PRELOAD' in subprocess.check_output('env'), b'PYPROF_RUN' in subprocess.check_output('env'))"),
    ("descriptors", "print(sorted(n for n in os.listdir('/proc/self/fd') if int(n) < 100))"),
    ("parents and children", "print(os.getppid() > 1, os.getpgrp() == os.getpgid(os.getppid()), os.getsid(0) == os.getsid(os.getppid()))\n"
     "try: os.waitpid(-1, os.WNOHANG)\nexcept ChildProcessError as error: print(error)"),
    ("threads", "import sys, threading\nprint([t.name for t in threading.enumerate()], threading.active_count(), len(sys._current_frames()))"),
    ("limits", "import resource\nprint([resource.getrlimit(n) for n in range(16)], os.nice(0), os.sched_getaffinity(0))\n"
     "print(os.sched_getscheduler(0), oct(os.umask(0)), os.getcwd() == os.path.dirname(os.path.abspath(__file__)))"),
    ("subprocesses", """
import signal, subprocess, sys
show = "import os, signal; print([str(signal.getsignal(n)) for n in signal.valid_signals()], "\\
       "signal.pthread_sigmask(signal.SIG_BLOCK, []), sorted(os.environ) == sorted(k for k in os.environ if 'PYPROF' not in k),"\\
       "os.getsid(0) == os.getpid(), len(os.listdir('/proc/self/fd')))"
for more in ({}, {"restore_signals": False}, {"preexec_fn": os.getpid}, {"start_new_session": True}, {"close_fds": False},
             {"close_fds": False, "preexec_fn": os.getpid, "restore_signals": False}):
    print(subprocess.check_output([sys.executable, "-c", show], **more))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.check_output([sys.executable, "-c", show]))
child = os.posix_spawn(sys.executable, [sys.executable, "-c", show], os.environ, setsigdef=[15, 13], setsigmask=[10])
print(os.waitpid(child, 0)[1])
for number in (15, 9, 11, 34):
    print(subprocess.call(["sh", "-c", "kill -%d $$; sleep 9" % number]))
for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
    child = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    child.send_signal(number); print(child.wait())
"""),
    ("forks that end in all ways", """
import signal, sys, threading
def child(end):
    pid = os.fork()
    if not pid:
        end()
        os._exit(77)
    print(os.waitpid(pid, 0)[1], flush=True)
def raising(number):
    return lambda: (signal.signal(number, signal.SIG_DFL), os.kill(os.getpid(), number), time.sleep(60))
for number in (1, 2, 3, 6, 9, 11, 14, 15, 10, 12, 24, 34, 64): child(raising(number))
child(lambda: os._exit(4)); child(lambda: os.execl("/bin/sh", "sh", "-c", "exit 5")); child(os.abort); child(lambda: sys.exit(6))
child(lambda: print([n for n in signal.valid_signals() if signal.getsignal(n) not in (signal.SIG_DFL, signal.SIG_IGN)]))
child(lambda: child(lambda: os._exit(8)))
""".replace("sys.exit(6)", "(sys.stdout.flush(), os._exit(6))")),
    ("a pseudo terminal", "import pty\npid, fd = pty.fork()\nif not pid: os.execl('/bin/echo', 'echo', 'in it')\n"
     "print(os.read(fd, 100)); print(os.waitpid(pid, 0)[1])\npid, fd = os.forkpty()\nif not pid: os._exit(9)\n"
     "print(os.waitpid(pid, 0)[1]); print(pty.spawn(['sh', '-c', 'exit 3']))"),
    ("asyncio's subprocesses", """
import asyncio, signal, sys
async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print, "heard")
    os.kill(os.getpid(), signal.SIGUSR1)
    for command in ("exit 3", "kill -9 $$", "echo out"):
        child = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
        print(await child.communicate(), child.returncode)
    child = await asyncio.create_subprocess_exec("sleep", "60")
    child.terminate()
    print(await child.wait())
    some()
    loop.call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
    await asyncio.sleep(60)
try: asyncio.run(main())
except KeyboardInterrupt: print("interrupted")
"""),
    ("multiprocessing", """
import multiprocessing, multiprocessing.pool, time
def square(n): return n * n
def sleep(n): time.sleep(60)
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool: print(pool.map(square, range(4)))
        child = context.Process(target=sleep, args=(1,)); child.start(); child.terminate(); child.join(); print(child.exitcode)
        child = context.Process(target=sleep, args=(1,)); child.start(); child.kill(); child.join(); print(child.exitcode)
    with multiprocessing.Manager() as manager:
        shared = manager.list([1]); shared.append(2); print(list(shared))
    import concurrent.futures
    with concurrent.futures.ProcessPoolExecutor(2) as pool: print(list(pool.map(square, range(4))))
"""),
    ("a child of a thread", "import subprocess, threading\nfor i in range(3):\n"
     "  t = threading.Thread(target=lambda: print(subprocess.call('kill -15 $$', shell=True)))\n  t.start(); t.join()"),
    ("a traced exit", "import atexit, sys, threading\natexit.register(print, 'first registered')\n"
     "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\nsys.stdout.write('no newline')"),
    ("imports of C modules", "import array, ctypes, decimal, hashlib, json, lzma, math, select, socket, sqlite3, ssl, zlib\n"
     "print(sqlite3.connect(':memory:').execute('select 1').fetchall(), hashlib.md5(b'').hexdigest())"),
    ("errno", LIBC + "\nlibc = ctypes.CDLL(None, use_errno=True)\nbad = 0\nend = time.process_time() + 0.2\n"
     "while time.process_time() < end:\n  libc.close(-1)\n  bad += ctypes.get_errno() != 9\nprint(bad)"),
    ("stacks of signals", LIBC + "\nb = ctypes.create_string_buffer(24)\nimport threading\n"
     "t = threading.Thread(target=lambda: (libc.sigaltstack(None, b), print(b.raw[8:12])))\nt.start(); t.join()"),
    ("stacks of its own for signals", LIBC + "\nimport struct, threading\nb = ctypes.create_string_buffer(24)\n"
     "mine = ctypes.create_string_buffer(65536)\nown = struct.pack('PiP', ctypes.addressof(mine), 0, 65536)\n"
     "none = struct.pack('PiP', 0, 2, 0)\n"
     "def look():\n  for new in (None, own, None, none, None, own, own):\n"
     "    print(libc.sigaltstack(new, b), b.raw[8:12], b.raw == own, int.from_bytes(b.raw[16:], 'little'))\n"
     "  libc.sigaltstack(none, None)\n"
     "t = threading.Thread(target=look)\nt.start(); t.join(); look()"),
    ("recursion", "import sys\ndef f(n): return f(n + 1)\ntry: f(0)\nexcept RecursionError as error: print(error)"),
    ("gc and refs", "import gc, sys\nprint(len(gc.callbacks), sys.gettrace(), sys.getprofile(), sys.getswitchinterval())"),
]


class Unnoticed(Base):
    def test_texts(self):
        side_by_side(self.same, TEXTS)

    def test_ways_to_ask(self):
        """The signals' part again, with other signals that ask for stacks, and none."""
        def check(row):
            options, text = row[1:]
            expected = self.program(text, out=False).end()
            real = self.program(text, *options).end()
            self.assertEqual((expected.code, expected.said, expected.others), (real.code, real.said, real.others))
        side_by_side(check, [("%s %s" % (options, name), options, text) for name, text in TEXTS[:5] for options in (
            ["--signal", "USR2"], ["--signal", "RTMIN+3"], ["--signal", "TERM"], ["--signal", "none"])])

    def test_actions_while_a_recording_ends(self):
        """Before, after, and while it is ended, a program's actions are its own."""
        text = (LIBC + "\nb = ctypes.create_string_buffer(256)\nseen = set()\nend = time.monotonic() + 1\n"
                "while time.monotonic() < end:\n  libc.sigaction(23, None, b)\n"
                "  seen.add(min(int.from_bytes(b.raw[:8], 'little'), 2))\nprint(seen)")
        expected = self.program(text, out=False).end()
        real = self.program(text, "-d", "0.5").end()
        self.assertEqual((expected.code, expected.said, expected.others), (real.code, real.said, real.others))

    def test_preloaded_by_the_user(self):
        library = self.call([PYTHON, "-c", "import ctypes.util; print(ctypes.util.find_library('m'))"])[1].strip()
        env = dict(self.env, LD_PRELOAD=library)
        env.pop("OUT")
        text = ("print(os.environ['LD_PRELOAD'], 'libm' in open('/proc/self/maps').read())\nimport subprocess\n"
                "print(subprocess.check_output('echo $LD_PRELOAD', shell=True))")
        expected = self.program(text, out=False, env=env).end()
        real = self.program(text, env=env).end()
        self.assertEqual((expected.code, expected.said, expected.others), (real.code, real.said, real.others))
        self.assertIn(library, real.said)

    def test_stopped_and_continued(self):
        """Ctrl-Z and fg: the program stops as a whole, and goes on. In a group of its own, as a shell makes it: SIGTSTP
        does not stop a group whose parents are all of other sessions, as the suite's own may be."""
        for number in (signal.SIGTSTP, signal.SIGSTOP):
            program = self.program("print('ready', flush=True)\ninput()\nprint('over')" + "\ndef after(): some()\nafter()",
                                   stdin=subprocess.PIPE, preexec=os.setpgrp)
            program.ready()
            program.process.send_signal(number)
            self.assertTrue(os.WIFSTOPPED(os.waitpid(program.process.pid, os.WUNTRACED)[1]))
            program.process.send_signal(signal.SIGCONT)
            program.process.stdin.write("\n")
            program.end()
            self.assertEqual((program.code, program.said), (0, "over\n"))
            self.assertWritten(program, "after")

    def test_terminal(self):
        """Standard input, output and error are one terminal, whose Ctrl-C and Ctrl-Z it has as python3 has them."""
        program = ("import os, sys, time\nprint(sys.stdin.isatty(), os.ttyname(0) == os.ttyname(2), os.tcgetpgrp(0) == "
                   "os.getpgrp())\nprint(input().upper())\ntry:\n    print('ready')\n    time.sleep(60)\n"
                   "except KeyboardInterrupt:\n    print('interrupted')\n    sum(range(3000000))\n")
        self.file("prog.py", program)
        said = []
        for command in (["python3"], [RUN, "-q", "-o", self.out]):
            pid, terminal = pty.fork()
            if not pid:
                os.chdir(self.work)
                os.execvpe(command[0], [*command, "prog.py"], self.env)
            text = b""
            sent = 0
            while True:
                try:
                    piece = os.read(terminal, 4096)
                except OSError:
                    break
                text += piece
                if sent == 0 and b"True" in text:
                    sent = os.write(terminal, b"words\n")
                if sent == 6 and b"ready" in text:
                    sent += os.write(terminal, b"\x03")
            os.close(terminal)
            said.append((os.waitpid(pid, 0)[1], text))
        self.assertEqual(said[0], said[1])
        self.assertIn(b"WORDS", said[0][1])
        self.assertIn(b"interrupted", said[0][1])
        self.assertTrue(os.path.exists(self.out))


if __name__ == "__main__":
    unittest.main()
