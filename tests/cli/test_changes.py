"""What a program does to its own process, and what is done to it: the profile is written, and the same is done."""

import os
import re
import resource
import signal
import stat
import subprocess
import unittest

from case import IS_SANITIZED, RUN, TIMEOUT, side_by_side, wait_until
from test_ends import Base, LAST, LIBC

AFTER = "\ndef after(): some()\nafter()\n"
IS_ROOT = os.geteuid() == 0


def writers(program):
    """The processes that write for a program: those of that name with its output among their words or variables."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open("/proc/%s/comm" % name) as comm, open("/proc/%s/environ" % name, "rb") as environ:
                if comm.read() == "pyprof-writer\n" and program.out.encode() in environ.read():
                    found.append(int(name))
        except (OSError, ValueError):
            pass
    return found


class Changes(Base):
    """Rows as in Base.same: the text must say the same as under python3, and after() must be in the profile."""

    def rows(self, rows):
        side_by_side(self.same, [(name, text + AFTER, ("some", "after"), *rest) for name, text, *rest in rows])

    def test_place(self):
        self.rows([
            ("another folder", "os.chdir('/')"),
            ("its folder is removed", "os.mkdir('a'); os.chdir('a'); os.rmdir('../a')"),
            ("its variables are gone", "out = os.environ.get('OUT'); os.environ.clear(); os.environ.update(OUT=out or '')\n"
                                       "if not out: del os.environ['OUT']"),
        ])

    def test_mask(self):
        program = self.program("os.umask(0o777)" + AFTER).end()
        self.assertWritten(program, "after")
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(stat.S_IMODE(os.stat(program.out).st_mode), 0o666 & ~mask)

    @unittest.skipUnless(IS_ROOT, "setuid, setgid and chroot are root's")
    def test_rights(self):
        nobody = "os.setgroups([]); os.setgid(65534); os.setuid(65534); print(os.getresuid(), os.getresgid())"
        self.rows([
            ("nobody", nobody),
            ("effective only", "os.setegid(65534); os.seteuid(65534)"),
            ("another root", "os.mkdir('root'); os.chroot('root'); os.chdir('/'); print(os.listdir('/'))"),
            ("nobody in another root", "os.mkdir('root'); os.chroot('root'); os.chdir('/'); " + nobody),
        ])

    @unittest.skipUnless(IS_ROOT, "setuid is root's")
    def test_ends_of_nobody(self):
        nobody = "os.setgid(65534); os.setuid(65534); "
        side_by_side(self.same, [
            ("_exit", nobody + "os._exit(4)"), ("a signal", nobody + "os.kill(os.getpid(), 15); time.sleep(60)"),
            ("exec", nobody + "os.execl('/bin/echo', 'echo', 'a')"), ("a fault", nobody + "import ctypes; ctypes.string_at(0)"),
        ])

    def test_limits(self):
        limit = "import resource; resource.setrlimit(resource.RLIMIT_%s, (%s, resource.getrlimit(resource.RLIMIT_%s)[1]))"
        self.rows([(name, limit % (name, value, name)) for name, value in (
            ("FSIZE", 0), ("NOFILE", 3), ("NOFILE", 0),
            ("NPROC", 0), ("CORE", 0), ("STACK", 65536), ("DATA", 0), ("CPU", 1000))])

    @unittest.skipIf(IS_SANITIZED, "address sanitizer reserves more addresses than any limit allows")
    def test_no_more_memory(self):
        """What finds no room is told; the rest is there."""
        program = self.program("import resource\nsize = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
                               "resource.setrlimit(resource.RLIMIT_AS, (size, size))" + AFTER).end()
        self.assertEqual((program.code, program.others), (0, []))
        self.assertRegex(program.ours[-1], LAST)
        self.assertRegex(program.profile, r"[; ]some \(|\[truncated\]")

    def test_limits_from_before(self):
        """As a shell's ulimit sets them."""
        for kind, value in ((resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_STACK, 1 << 20),
                            (resource.RLIMIT_AS, resource.RLIM_INFINITY if IS_SANITIZED else 1 << 30)):
            program = self.program(AFTER, preexec=lambda: resource.setrlimit(kind, (value, value))).end()
            self.assertEqual((program.code, program.others), (0, []), (kind, program.ours))
            self.assertWritten(program, "after")

    def test_a_limit_from_before_that_kills(self):
        """ulimit -t: the hard limit of CPU time is the soft one."""
        program = self.program("import resource\nprint(resource.getrlimit(resource.RLIMIT_CPU), flush=True)\nwhile 1: some()",
                               preexec=lambda: resource.setrlimit(resource.RLIMIT_CPU, (2, 2))).end()
        self.assertEqual((program.code, program.said, program.others), (-signal.SIGKILL, "(2, 2)\n", []))
        self.assertWritten(program)
        self.assertIn("; what came later is lost: the program was killed, most likely by its limit of CPU time (ulimit -t)",
                      program.ours[-1])
        total = sum(int(count) for count in re.findall(r"(?m) (\d+)$", program.profile))
        self.assertGreater(total, 1.5e6)

    def test_namespaces(self):
        """What Linux allows to a process with one thread only: unshare(2), setns(2)."""
        call = (LIBC + "libc = ctypes.CDLL(None, use_errno=True)\nctypes.set_errno(7)\n"
                "def told(result): print(result, ctypes.get_errno(), os.getuid(), flush=True)\n")
        flags = (("user", 0x10000000), ("user and mounts", 0x10020000), ("memory", 0x100), ("handlers", 0x800), ("thread", 0x10000),
                 ("descriptors", 0x400), ("folder", 0x200), ("names", 0x04000000), ("nonsense", 0x10000001))
        self.rows([(name, call + "told(libc.unshare(%d))" % number) for name, number in flags])
        self.rows([("with a thread of its own", call + "import threading\nevent = threading.Event()\n"
                    "t = threading.Thread(target=event.wait); t.start()\ntold(libc.unshare(0x10000000)); event.set(); t.join()"),
                   ("twice", call + "told(libc.unshare(0x10000000)); some(); told(libc.unshare(0x10000000))"),
                   ("its own user's", call + "told(libc.setns(os.open('/proc/self/ns/user', os.O_RDONLY), 0))"),
                   ("before a thread", call + "told(libc.unshare(0x10000000))\nimport threading\n"
                    "t = threading.Thread(target=some); t.start(); t.join()"),
                   ("before an exit", call + "told(libc.unshare(0x10000000))\ndef after(): some()\nafter()\nos._exit(5)"),
                   ("before a fork", call + "told(libc.unshare(0x10000000))\npid = os.fork()\nif not pid: os._exit(3)\n"
                    "print(os.waitpid(pid, 0)[1])", "; 1 forked child process was not"),
                   ("a handler", call + "import signal\nsignal.signal(10, lambda *_: print('heard')); told(libc.unshare(0x10000000))\n"
                    "os.kill(os.getpid(), 10); print(signal.pthread_sigmask(signal.SIG_BLOCK, []))")])
        if hasattr(os, "unshare"):
            self.rows([("os.unshare", "os.unshare(os.CLONE_NEWUSER); print(os.getuid())"),
                       ("os.unshare that fails", "try: os.unshare(0x10000001)\nexcept OSError as error: print(error)")])

    def test_signals_that_ask_after_namespaces(self):
        """They are the same as before. Another one would be taken, and told, after a second."""
        text = LIBC + "print(libc.unshare(0x10000000))\ndef after(): some(1.3)\nafter()"
        if self.program(text, out=False).end().said != "0\n":
            self.skipTest("no namespace of users can be made here, as in a chroot and in most containers")
        def check(row):
            program = self.program(text, *row[1:]).end()
            self.assertEqual((program.code, program.said, program.others), (0, "0\n", []))
            self.assertWritten(program, "after")
        side_by_side(check, [("default",), ("USR2", "--signal", "USR2"), ("none", "--signal", "none")])

    @unittest.skipUnless(IS_ROOT, "to enter namespaces is root's")
    def test_namespaces_that_are_entered(self):
        call = LIBC + "libc = ctypes.CDLL(None, use_errno=True)\n"
        enter = ("print(libc.setns(os.open('/proc/self/ns/%s', os.O_RDONLY), %d), ctypes.get_errno())\n")
        self.rows([(name, call + enter % (name, kind)) for name, kind in (("mnt", 0x20000), ("mnt", 0), ("time", 0), ("net", 0))])
        if os.path.exists("/proc/self/ns/time_for_children"):
            program = self.program(call + "print(libc.unshare(0x80))\n"
                                   "open('/proc/self/timens_offsets', 'w').write('monotonic 100000 0')\n" +
                                   enter % ("time_for_children", 0) + "print(time.monotonic() > 100000)" + AFTER).end()
            self.assertEqual((program.code, program.said, program.others), (0, "0\n0 0\nTrue\n", []))
            self.assertWritten(program, "some", "after")
            self.assertLess(sum(int(count) for count in re.findall(r"(?m) (\d+)$", program.profile)), 60e6)

    def test_namespaces_without_threads(self):
        """In which the program cannot start one, and so cannot be recorded: told, and what was recorded is there."""
        text = LIBC + "print(libc.unshare(0x30000000))\nimport threading\ntry: threading.Thread(target=int).start()\n" \
                      "except RuntimeError as error: print(error)" + AFTER + "os._exit(4)"
        expected = self.program(text, out=False).end()
        real = self.program(text).end()
        self.assertEqual((expected.code, expected.said, expected.others), (real.code, real.said, real.others))
        self.assertWritten(real)
        self.assertNotIn("after (", real.profile)
        self.assertIn("; the program goes on, and is not recorded any more: in its new namespaces it cannot start a thread",
                      real.ours[-1])

    def test_limits_that_leave_no_room(self):
        """Nothing half is left, nothing runs on, and a line says what is missing."""
        def check(row):
            kind, value, pattern = row[1:]
            program = self.program(AFTER, preexec=lambda: resource.setrlimit(kind, (value, value)))
            program.end()
            self.assertRegex(program.ours[-1] if program.ours else "", pattern)
            self.assertNotEqual(program.code, 0)
            self.assertLessEqual(set(os.listdir(program.folder)), {"prog.py"})
            wait_until(lambda: not writers(program))
        side_by_side(check, [
            ("no file of that size", resource.RLIMIT_FSIZE, 10, "^pyprof-run: cannot write ./out.txt: File too large$"),
            ("no file at all", resource.RLIMIT_FSIZE, 0, "^pyprof-run: cannot write ./out.txt: File too large$"),
            ("no descriptors", resource.RLIMIT_NOFILE, 4, "^pyprof-run: cannot .*: Too many open files$")])

    def test_few_descriptors(self):
        program = self.program(AFTER, preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (7, 7))).end()
        self.assertEqual((program.code, program.others), (0, []))
        self.assertWritten(program, "after")

    def test_descriptors(self):
        self.rows([
            ("from 3 on", "os.closerange(3, 65536)"),
            ("its own and all others", "for name in os.listdir('/proc/self/fd'):\n  if int(name) > 2:\n"
                                       "    try: os.close(int(name))\n    except OSError: pass"),
            ("none left", "import resource\nheld = []\nresource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\nos.closerange(3, 4096)\n"
                          "try:\n  while True: held.append(open('/dev/null'))\nexcept OSError as error: print(error)"),
            ("files in their place", "os.closerange(3, 4096)\nheld = [open('/dev/null') for _ in range(100)]\n"
                                     "for i in range(800, 1000): os.dup2(held[0].fileno(), i)"),
        ])
        for text in ("os.closerange(0, 65536)", "os.close(1)", "os.close(2)", "os.close(0)"):
            expected = self.program(text + AFTER, out=False).end()
            real = self.program(text + AFTER).end()
            self.assertEqual((expected.code, expected.said, expected.others), (real.code, real.said, real.others))
            self.assertWritten(real, "some", "after")

    def test_files_that_it_holds(self):
        """Nothing of ours is among the low descriptors, and ours are not inherited by children."""
        self.rows([("low ones", "print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:4])\n"
                                "print(os.dup(0), open('/dev/null').fileno())\n"
                                "import subprocess; print(subprocess.check_output(['ls', '/proc/self/fd'], close_fds=False))")])

    def test_closed_before(self):
        """No standard error, no standard output, none at all: where the line cannot be said, it is not."""
        for which in ([2], [1], [0], [0, 1, 2]):
            program = self.program(AFTER + "os._exit(0)", preexec=lambda: [os.close(number) for number in which])
            program.process.wait(TIMEOUT)
            wait_until(lambda: not writers(program))
            program.end()
            self.assertEqual((program.code, program.said, program.others), (0, "", []))
            self.assertIn("after (", program.profile or "")

    def test_sandboxes(self):
        lock = ("import ctypes, errno, struct\nlibc = ctypes.CDLL(None, use_errno=True)\n"
                "def refuse(*calls):\n"
                "  rules = [(0x20, 0, 0, 0)] + [(0x15, len(calls) - i, 0, n) for i, n in enumerate(calls)]\n"
                "  rules += [(6, 0, 0, 0x7fff0000), (6, 0, 0, 0x50000 | errno.EPERM)]\n"
                "  text = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *rule) for rule in rules))\n"
                "  libc.prctl(38, 1, 0, 0, 0)\n"
                "  print(libc.syscall(317, 1, 1, ctypes.create_string_buffer(\n"
                "    struct.pack('HxxxxxxQ', len(rules), ctypes.addressof(text)))))\n")
        self.rows([("not to be dumped", LIBC + "print(libc.prctl(4, 0, 0, 0, 0))")])
        if os.uname().machine == "x86_64":
            self.rows([("no process_vm", lock + "refuse(310, 311)"), ("no socket and connect", lock + "refuse(41, 42)"),
                       ("no kill", lock + "refuse(62, 234)"), ("no clone", lock + "refuse(56, 435)"),
                       ("no file", lock + "import encodings.idna\nrefuse(2, 257, 85)")])

    def test_many_threads_and_memory(self):
        self.rows([("threads", "import threading\nfor i in range(300):\n  t = threading.Thread(target=some, args=(0,)); "
                               "t.start(); t.join()"),
                   ("their memory", "import threading\ndef held(): return len(open('/proc/self/maps').readlines())\n"
                                    "def run(count):\n  for i in range(count):\n    t = threading.Thread(target=int); "
                                    "t.start(); t.join()\nrun(30); before = held(); run(500); print(held() - before < 100)")])


class Writer(Base):
    """The process beside: nobody's child, in nobody's way, and gone with the program."""

    def test_it_is_gone_after_the_program(self):
        for text in ("os._exit(3)", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 15); time.sleep(60)"):
            program = self.program("print('ready', flush=True)\ninput()\n" + text, stdin=subprocess.PIPE)
            program.ready()
            self.assertEqual(len(writers(program)), 1)
            program.process.stdin.write("\n")
            program.process.stdin.flush()
            program.process.wait(TIMEOUT)
            program.end()
            wait_until(lambda: not writers(program))

    def test_it_is_no_child(self):
        self.same(("wait", "try: print(os.wait())\nexcept ChildProcessError: print('no child')\n"
                           "print(open('/proc/self/task/%d/children' % os.getpid()).read())"))

    def test_it_holds_no_pipe(self):
        """A reader sees the end of the program's output when the program closes it, and of its standard input's reader."""
        go = os.path.join(self.dir, "go")
        program = self.program("print('ready'); import sys; sys.stdout.flush(); os.close(1); os.close(0)\n"
                               "while not os.path.exists(%r): time.sleep(0.01)" % go, stdin=subprocess.PIPE)
        self.assertEqual(program.process.stdout.read(), "ready\n")
        with self.assertRaises(BrokenPipeError):
            while True:
                os.write(program.process.stdin.fileno(), b"x" * 4096)
        open(go, "w").close()
        program.process.wait(TIMEOUT)
        for stream in (program.process.stdin, program.process.stdout, program.process.stderr):
            self.addCleanup(stream.close)

    def test_descriptors_handed_to_the_program(self):
        """A pipe that a parent hands over ends with the program, which closes it."""
        reader, end = os.pipe()
        go = os.path.join(self.dir, "go")
        program = self.program("os.close(%d)\nwhile not os.path.exists(%r): time.sleep(0.01)" % (end, go), pass_fds=[end])
        os.close(end)
        self.assertEqual(os.read(reader, 1), b"")
        os.close(reader)
        open(go, "w").close()
        self.assertWritten(program.end())

    def test_signals_to_the_group(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            program = self.program("import signal; signal.signal(%d, signal.SIG_DFL)\nprint('ready', flush=True)\n"
                                   "time.sleep(60)" % number, start_new_session=True)
            program.ready()
            os.killpg(program.process.pid, number)
            program.end()
            self.assertEqual(program.code, -number)
            self.assertWritten(program)

    def test_killed_group(self):
        program = self.program("print('ready', flush=True)\ntime.sleep(60)", start_new_session=True)
        program.ready()
        os.killpg(program.process.pid, signal.SIGKILL)
        program.end()
        self.assertEqual((program.code, program.profile), (-9, None))
        self.assertIn("the recording is lost", program.ours[0])

    def test_a_second_signal_while_it_writes(self):
        """The first output shows that it writes, the second one is a pipe that is read late."""
        def check(row):
            first, second = row[1:]
            program = self.program("print('ready', flush=True)\nwhile not os.path.exists('go'): sum(range(1000))", "-f",
                                   "collapsed", "-o", "pipe", pipe="pipe")
            pipe = os.path.join(program.folder, "pipe")
            program.ready()
            if first is None:
                open(os.path.join(program.folder, "go"), "w").close()
            else:
                program.process.send_signal(first)
            wait_until(lambda: os.path.exists(program.out))
            program.process.send_signal(second)
            program.process.send_signal(second)
            with open(pipe, encoding="utf-8") as file:
                text = file.read()
            program.end()
            self.assertEqual(text, program.profile)
            self.assertWritten(program)
            self.assertIn(program.code, {0 if first is None else -first, -second})

        rows = [("%s, then %s" % (first, second), first, second) for first in (signal.SIGINT, signal.SIGTERM, None)
                for second in (signal.SIGINT, signal.SIGTERM)]
        side_by_side(check, rows, 3)


if __name__ == "__main__":
    unittest.main()
