"""pyprof-run beside python3: the same program under both must do, print and answer the same, and the profile
must hold what ran."""

import glob
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import textwrap
import unittest
import zipfile

from case import BUSY, Case, PYTHON, RUN, TIMEOUT, VERSION, clean_environment, default_signals, lines_of_ours
import collapsed

# What a program looks like from inside. Addresses differ from process to process.
LOOK = """
import json, re, signal, sys
def plain(value):
    return re.sub("0x[0-9a-f]+", "0x", repr(value))
names = ["__name__", "__doc__", "__package__", "__file__", "__cached__", "__spec__", "__loader__", "__builtins__"]
print(json.dumps({
    "argv": sys.argv, "orig_argv": getattr(sys, "orig_argv", None), "path": sys.path, "flags": plain(sys.flags),
    "executable": sys.executable, "base_executable": sys._base_executable, "warnoptions": sys.warnoptions,
    "prefix": [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix], "xoptions": sys._xoptions,
    "main": {name: plain(globals().get(name, "missing")) for name in names}, "all": sorted(globals()),
    "encodings": [sys.stdin.encoding, sys.stdout.encoding, sys.stderr.errors, sys.getfilesystemencoding()],
    "modules": sorted(sys.modules), "signals": [plain(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
    "mask": plain(signal.pthread_sigmask(signal.SIG_BLOCK, []))}, indent=1, sort_keys=True))
"""


class Parity(Case):
    def look(self, *arguments, **more):
        code, out, err = self.same(*arguments, **more)
        self.assertEqual((code, err), (0, ""))
        return json.loads(out)

    def test_script(self):
        self.file("look.py", LOOK)
        seen = self.look("look.py", "one", "-o", "--help", "", "ü", "-m", "--")
        self.assertEqual(seen["argv"], ["look.py", "one", "-o", "--help", "", "ü", "-m", "--"])
        self.assertEqual(seen["path"][0], self.work)

    def test_script_elsewhere(self):
        path = self.file("deeper/look.py", LOOK)
        self.assertEqual(self.look(path)["path"][0], os.path.dirname(path))
        self.look("deeper/look.py")
        os.symlink("deeper/look.py", os.path.join(self.work, "link.py"))
        self.assertEqual(self.look("link.py")["path"][0], os.path.dirname(path))

    def test_script_with_the_name_of_an_option(self):
        self.file("-x.py", LOOK)
        self.assertEqual(self.look("--", "-x.py", "a")["argv"], ["-x.py", "a"])

    def test_script_in_other_encodings(self):
        self.file("ünï.py", LOOK)
        for locale in ("C", "C.UTF-8", "POSIX"):
            with self.subTest(locale):
                self.look("ünï.py", "ä", env=dict(self.env, LC_ALL=locale))

    def test_directory_and_zip(self):
        self.file("app/__main__.py", LOOK)
        self.look("app", "a")
        with zipfile.ZipFile(os.path.join(self.work, "app.zip"), "w") as archive:
            archive.writestr("__main__.py", LOOK)
        self.look("app.zip", "a")

    def test_module(self):
        self.file("package/__init__.py")
        self.file("package/__main__.py", LOOK)
        self.file("package/part.py", LOOK)
        self.assertEqual(self.look("-m", "package", "-m", "a")["argv"][1:], ["-m", "a"])
        self.look("-m", "package.part", "a")
        self.look("-mpackage.part", "a")
        self.assertEqual(self.same("-m", "no_such_module")[0], 1)
        code, out, _ = self.same("-m", "json.tool", stdin='{"a": 1}')
        self.assertEqual((code, json.loads(out)), (0, {"a": 1}))

    def test_command(self):
        self.assertEqual(self.look("-c", LOOK, "a", "-c")["argv"], ["-c", "a", "-c"])
        self.look("-c" + LOOK)

    def test_stdin(self):
        self.file("read.py", "import sys\nprint(input()); print(sys.stdin.read().upper())")
        self.assertEqual(self.same("read.py", stdin="one\ntwo\n")[1], "one\nTWO\n\n")
        self.assertIn('"argv": [\n  "-"', self.same("-", "a", stdin=LOOK)[1])
        self.assertEqual(self.same("-", stdin="import sys; sys.exit(5)")[0], 5)

    def test_environment_variables(self):
        self.file("look.py", LOOK + "print(__debug__, hash('a'), sys.path)\n")
        for variables in ({"PYTHONPATH": "/one:/two"}, {"PYTHONOPTIMIZE": "2"}, {"PYTHONUTF8": "1"},
                          {"PYTHONUNBUFFERED": "1"}, {"PYTHONIOENCODING": "latin-1:replace"}, {"PYTHONSAFEPATH": "1"},
                          {"PYTHONWARNINGS": "error,ignore::DeprecationWarning"}, {"PYTHONNOUSERSITE": "1"},
                          {"PYTHONDEVMODE": "1"}, {"PYTHONHOME": self.home()}):
            with self.subTest(variables):
                self.same("look.py", env=dict(self.env, PYTHONHASHSEED="7", **variables))

    def home(self):
        return self.call([PYTHON, "-c", "import sys; print(sys.base_prefix)"])[1].strip()

    def test_open_files(self):
        self.same("-c", "import os; print(os.get_inheritable(0), os.stat(0).st_mode == os.fstat(0).st_mode)")

    def test_threads(self):
        self.same("-c", "import threading; print(threading.active_count())")


class Ends(Case):
    def test_exit_codes(self):
        for end, expected in (("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit('a text')", 1), ("sys.exit(256 + 9)", 9),
                              ("raise SystemExit(-1)", 255), ("raise SystemExit((1, 2))", 1), ("exit(4)", 4),
                              ("1 / 0", 1), ("raise KeyError('ä')", 1), ("pass", 0), ("a = = b", 1),
                              ("import atexit; atexit.register(lambda: 1 / 0)", 0),
                              ("import threading; threading.Thread(target=sys.exit, args=(3,)).start()", 0)):
            with self.subTest(end):
                starts = end != "a = = b"  # what does not even begin leaves no profile
                self.file("end.py", BUSY * starts + "import sys\n" + "busy()\n" * starts + "print('said')\n" + end)
                self.assertEqual(self.same("end.py", profile=starts)[0], expected)
                if starts:
                    self.assertProfileHolds("busy")
                    os.unlink(self.out)
        self.assertEqual(self.same("-c", BUSY + "busy()\nimport sys; sys.exit(3)")[0], 3)
        self.file("end.py", BUSY + "busy()\nimport sys; sys.exit('text')\n")
        self.assertEqual(self.same("-m", "end")[0], 1)

    def test_threads_that_end_later(self):
        self.file("late.py", """
            import atexit, threading, time
            def late():
                time.sleep(0.2)
                print("late")
            def forever():
                while True: time.sleep(0.001)
            threading.Thread(target=late).start()
            threading.Thread(target=forever, daemon=True).start()
            atexit.register(print, "at exit")
            """)
        self.assertEqual(self.same("late.py")[:2], (0, "late\nat exit\n"))

    def test_closed_stdout(self):
        self.file("closed.py", BUSY + "busy()\nimport os\nprint('lost')\nos.close(1)\n")
        self.assertEqual(self.same("closed.py")[0], 120)

    def test_exec(self):
        """A signal on its way must not end the program that takes the process's place."""
        command = "import os\nfor i in range(300000): pass\nos.execl('/bin/echo', 'echo', 'other')"
        for _ in range(20):
            code, out, err = self.call([RUN, "-q", "-r", "20000", "-o", self.out, "-c", command])
            self.assertEqual((code, out, err), (0, "other\n", ""))
        self.assertNoLitter()

    def interrupted(self, command, number, text):
        """Runs a script that says when it is ready, sends it a signal and answers how it ended: of a traceback only
        the last line, as the signal may come at any place of the wait."""
        self.file("wait.py", BUSY + textwrap.dedent(text))
        process = self.start(command + ["wait.py"])
        said = self.first_line(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
        return process.returncode, said + out, "".join(err.splitlines()[-1:])

    @staticmethod
    def first_line(process):
        """Not by readline(): it would take what came meanwhile, too, and communicate() not know of it."""
        said = b""
        while not said.endswith(b"\n"):
            piece = os.read(process.stdout.fileno(), 1)
            if not piece:
                break
            said += piece
        return said.decode()

    def same_interrupted(self, number, text, profile=True):
        expected = self.interrupted(["python3"], number, text)
        real = self.interrupted([RUN, "-q", "-r", "1000", "-o", self.out], number, text)
        self.assertEqual(expected, real)
        self.assertEqual(profile, os.path.exists(self.out), "is there a profile?")
        if profile:
            self.assertProfileHolds("busy", "leaf_of_busy")
        self.assertNoLitter()
        return expected

    READY = "busy(); print('ready', flush=True)\n"
    WAIT = "import time\nfor i in range(60): time.sleep(1)\n"

    def test_interrupt(self):
        code, _, err = self.same_interrupted(signal.SIGINT, self.READY + self.WAIT)
        self.assertEqual(code, -signal.SIGINT)
        self.assertEqual(err, "KeyboardInterrupt")

    def test_interrupt_is_caught(self):
        text = "try:\n    " + self.READY + "    import time; time.sleep(60)\nexcept KeyboardInterrupt: exit(6)\n"
        self.assertEqual(self.same_interrupted(signal.SIGINT, text)[0], 6)

    def test_terminate(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.assertEqual(self.same_interrupted(number, self.READY + self.WAIT)[0], -number)
            os.unlink(self.out)

    def test_terminate_is_caught(self):
        text = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(8))\n" + self.READY + self.WAIT
        self.assertEqual(self.same_interrupted(signal.SIGTERM, text)[:2], (8, "ready\n"))

    def test_terminate_is_ignored(self):
        text = ("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + self.READY +
                "time.sleep(0.3); print('alive')\n")
        self.assertEqual(self.same_interrupted(signal.SIGTERM, text)[:2], (0, "ready\nalive\n"))

    def test_terminate_was_ignored_before(self):
        self.file("term.py", "import os, signal\nos.kill(os.getpid(), 1); print(signal.getsignal(1) == signal.SIG_IGN)")
        for command in (["python3"], [RUN, "-q", "-o", self.out]):
            ended = subprocess.run(command + ["term.py"], cwd=self.work, env=self.env, stdout=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
            self.assertEqual((ended.returncode, ended.stdout), (0, b"True\n"))

    def test_terminate_waits_for_sigwait(self):
        text = ("import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n" + self.READY +
                "print(int(signal.sigwait([signal.SIGTERM])))\n")
        self.assertEqual(self.same_interrupted(signal.SIGTERM, text)[:2], (0, "ready\n15\n"))


class Environments(Case):
    SHOW = """
        import json, math, sys, sysconfig
        import planted
        print(json.dumps([sys.prefix, sys.base_prefix, sys.executable, sys._base_executable, sys.path,
                          planted.__file__, sysconfig.get_paths()], indent=1))
        """

    def make(self, name, *options):
        environment = os.path.join(self.dir, "work", name)
        subprocess.check_call([PYTHON, "-m", "venv", "--without-pip", *options, environment], env=clean_environment())
        self.plant(environment)
        self.file("show.py", self.SHOW)
        return environment

    def plant(self, environment):
        packages, = glob.glob(os.path.join(environment, "lib", "python*", "site-packages"))
        with open(os.path.join(packages, "planted.py"), "w", encoding="utf-8") as file:
            file.write("here = True\n")

    def active(self, environment, path=True, variable=True):
        env = dict(self.env)
        if variable:
            env["VIRTUAL_ENV"] = environment
        if path:
            env["PATH"] = os.path.join(environment, "bin") + ":" + env["PATH"]
        return env

    def test_activated(self):
        for options in ((), ("--copies",), ("--system-site-packages",)):
            with self.subTest(options):
                environment = self.make("venv%d" % len("".join(options)), *options)
                code, out, err = self.same("show.py", env=self.active(environment))
                self.assertEqual((code, err), (0, ""))
                self.assertEqual(json.loads(out)[0], environment)
                self.same("show.py", env=self.active(environment, variable=False))
                self.same("-c", LOOK, env=self.active(environment))

    def test_named_by_the_variable_only(self):
        environment = self.make("venv")
        expected = self.call(["python3", "show.py"], env=self.active(environment))
        self.assertEqual(self.profiled("show.py", env=self.active(environment, path=False)), expected)

    def test_children_stay_in_it(self):
        environment = self.make("venv")
        self.file("sub.py", "import subprocess, sys\nprint(subprocess.check_output([sys.executable, 'show.py']))\n")
        self.assertEqual(self.same("sub.py", env=self.active(environment))[0], 0)

    def test_shim(self):
        """pyenv and others put scripts before the real executables."""
        environment = self.make("venv")
        shim = self.file("shims/python3", "#!/bin/sh\nexec %s/bin/python3 \"$@\"\n" % environment)
        os.chmod(shim, 0o755)
        env = dict(self.env, PATH=os.path.dirname(shim) + ":" + self.env["PATH"])
        expected = self.call(["python3", "show.py"], env=env)
        self.assertEqual(expected[0], 0)
        self.assertEqual(self.profiled("show.py", env=env), expected)
        self.assertEqual(self.profiled("-", env=env, stdin="print(input())\nnot python"), self.call(
            ["python3", "-"], env=env, stdin="print(input())\nnot python"))

    def test_shim_that_fails(self):
        shim = self.file("shims/python3", "#!/bin/sh\necho broken >&2\nexit 1\n")
        os.chmod(shim, 0o755)
        env = dict(self.env, PATH=os.path.dirname(shim) + ":" + self.env["PATH"])
        code, out, err = self.profiled("-c", "import math, sys; print(sys.executable)", env=env)
        self.assertEqual((code, out, err), (0, PYTHON + "\n", ""))

    def test_no_python_in_the_path(self):
        for env in (dict(self.env, PATH="/nowhere"), {key: self.env[key] for key in self.env if key != "PATH"}):
            code, out, err = self.profiled("-c", "import math, sys; print(sys.executable)", env=env)
            self.assertEqual((code, out, err), (0, PYTHON + "\n", ""))


class View(Case):
    def within(self, function):
        return collapsed.within(self.stacks(), function)

    def test_known_functions(self):
        self.file("prog.py", BUSY + "busy()\n")
        self.assertEqual(self.profiled("prog.py"), (0, "", ""))
        stacks = self.stacks()
        self.assertIn(("MainThread", ("<module>", "busy", "leaf_of_busy")),
                      {(stack.thread, collapsed.names(stack)) for stack in stacks})
        of_program = sum(stack.value for stack in stacks if collapsed.names(stack)[1:2] == ("busy",))
        self.assertGreater(self.within("leaf_of_busy"), 0.9 * of_program)

    def test_function(self):
        self.file("prog.py", BUSY + "busy()\n")
        self.assertEqual(self.profiled("--function", "prog.py")[0], 0)
        self.assertEqual(set(re.findall(r"leaf_of_busy \(prog.py:(\d+)\)", self.read())), {"2"})
        self.assertEqual(self.profiled("prog.py")[0], 0)
        lines = set(re.findall(r"leaf_of_busy \(prog.py:(\d+)\)", self.read()))
        self.assertIn("5", lines)
        self.assertLessEqual(lines, {"2", "3", "4", "5", "6"})

    SLEEPY = BUSY + "import time\ndef sleepy(): time.sleep(2)\nbusy()\nsleepy()\n"

    def test_idle(self):
        self.file("prog.py", self.SLEEPY)
        self.assertEqual(self.profiled("prog.py")[0], 0)
        self.assertLess(self.within("sleepy"), 100000)
        self.assertGreater(self.within("busy"), 0)
        self.assertEqual(self.profiled("--idle", "prog.py")[0], 0)
        self.assertGreaterEqual(self.within("sleepy"), 1800000, self.read())

    def test_cpu(self):
        self.file("prog.py", self.SLEEPY)
        self.assertEqual(self.profiled("--idle", "--metric", "cpu", "prog.py")[0], 0)
        self.assertGreater(self.within("busy"), 10 * self.within("sleepy"))

    def test_gil(self):
        self.file("prog.py", BUSY + "import hashlib\nbig = bytes(1 << 26)\n"
                  "def hashing():\n    for i in range(3): hashlib.sha256(big).digest()\n"
                  "for i in range(5): busy()\nhashing()\n")
        self.assertEqual(self.profiled("prog.py")[0], 0)
        wall = self.within("hashing")
        for options in (["--metric", "gil"], ["--gil"]):
            self.assertEqual(self.profiled(*options, "prog.py")[0], 0)
            self.assertGreater(self.within("leaf_of_busy"), 0)
            self.assertLess(self.within("hashing"), wall / 4)

    def test_threads(self):
        self.file("prog.py", BUSY + "import threading\nt = threading.Thread(target=busy, name='a worker; no 2')\n"
                                    "t.start(); t.join()\n")
        self.assertEqual(self.profiled("prog.py")[0], 0)
        self.assertIn(r"thread a worker\x3b no 2;", self.read())

    def test_duration(self):
        """The recording ends by itself; the program goes on to its own end. It is counted from before python starts, which
        may take so long on a busy machine that the program is not in it."""
        self.file("prog.py", BUSY + textwrap.dedent("""
            import os, sys, time
            def first():
                for i in range(30000):
                    if os.path.exists(os.environ["OUT"]): return
                    leaf_of_busy(100000)
                sys.exit("the profile did not come")
            def second(): busy()
            first(); second()
            sys.exit(7)
            """))
        for seconds in ("0.4", "4", "20"):
            self.assertEqual(self.profiled("-d", seconds, "prog.py"), (7, "", ""))
            self.assertEqual(self.within("second"), 0)
            if self.within("first"):
                return
            os.unlink(self.out)
        self.fail("nothing of the program was recorded")

    def test_duration_longer_than_the_program(self):
        self.file("prog.py", BUSY + "busy()\n")
        self.assertEqual(self.profiled("--duration", "1000", "prog.py"), (0, "", ""))
        self.assertProfileHolds("busy")

    def test_terminated_after_the_duration(self):
        self.file("prog.py", "import os, signal, time\nwhile not os.path.exists(os.environ['OUT']): time.sleep(0.01)\n"
                             "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n")
        self.assertEqual(self.profiled("-d", "0.1", "prog.py"), (-signal.SIGTERM, "", ""))
        self.assertNoLitter()


    def test_startup(self):
        """What python does before the program is in its profile: sitecustomize, usercustomize, .pth files."""
        slow = "import time\ndef %s():\n    end = time.process_time() + 0.1\n    while time.process_time() < end: pass\n%s()\n"
        for name in ("sitecustomize", "of_pth", "program"):
            self.file("start/%s.py" % name, slow % ("slow_" + name, "slow_" + name))
        self.file("start/slow.pth", "import of_pth\n")
        self.file("start/sitecustomize.py", slow % ("slow_sitecustomize", "slow_sitecustomize") +
                  "import os, site; site.addsitedir(os.path.dirname(__file__))\n")
        self.assertEqual(self.profiled("start/program.py", env=dict(self.env, PYTHONPATH=self.work + "/start")), (0, "", ""))
        for name in ("sitecustomize", "of_pth", "program"):
            self.assertGreater(self.within("slow_" + name), 50000)

    def test_thread_names(self):
        """A thread has its own name in the profile, none has ours, even if a debugger wraps what starts it."""
        self.file("names.py", BUSY + textwrap.dedent("""
            import _thread, concurrent.futures, sys, threading
            if sys.argv[1:] == ["wrapped"]:
                for name in ("_start_joinable_thread", "_start_new_thread"):
                    start = getattr(threading, name, None)
                    def wrapped(function, *more, start=start, **named):
                        def begin(*a, **n): return function(*a, **n)
                        return start(begin, *more, **named)
                    if start: setattr(threading, name, wrapped)
            threads = [threading.Thread(target=busy, name=name) for name in ("database-writer", "pump", "a name as long as this")]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            with concurrent.futures.ThreadPoolExecutor(1, "pool") as pool: pool.submit(busy)
            done = threading.Event()
            _thread.start_new_thread(lambda: (busy(), done.set()), ())
            done.wait()
            """))
        for arguments in ((), ("wrapped",)):
            self.assertEqual(self.profiled("names.py", *arguments), (0, "", ""))
            names = set(re.findall("(?m)^thread ([^;]*);", self.read()))
            self.assertNotIn("pyprof", "".join(names))
            self.assertIn("MainThread", names)
            if not arguments:
                self.assertLessEqual({"database-writer", "pump", "a name as long as this", "pool_0"}, names)


class Terminal(Case):
    def on_terminal(self, *arguments):
        """stderr is a terminal, stdout is not."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen([RUN, "-r", "1000", *arguments], cwd=self.work, env=self.env, stderr=theirs,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=default_signals)
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], TIMEOUT)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not piece:
                break
            said += piece
        os.close(ours)
        out = process.communicate(timeout=TIMEOUT)[0]
        return process.returncode, out.decode(), said.decode().replace("\r\n", "\n")

    def test_progress(self):
        self.file("prog.py", BUSY + "busy()\nprint('said')\n")
        code, out, said = self.on_terminal("-o", "out.svg", "prog.py")
        self.assertEqual((code, out), (0, "said\n"))
        lines = lines_of_ours(said.splitlines())
        self.assertEqual(len(lines), 2, lines)
        self.assertRegex(lines[0], r"^pyprof-run: recording prog at 1000 Hz")
        self.assertRegex(lines[1], r"^pyprof-run: [1-9]\d* samples in [\d.]+ s .*wrote out\.svg$")

    def test_too_short(self):
        """Too short for more than the sample that a random phase may give."""
        code, _, said = self.on_terminal("-r", "0.1", "-o", "out.svg", "-c", "pass")
        self.assertEqual(code, 0)
        self.assertRegex(said.splitlines()[0], r"^pyprof-run: recording command at 0\.1 Hz")
        self.assertRegex(said.splitlines()[-1], r"^pyprof-run: (no samples|1 sample) in .*wrote out\.svg$")

    def test_errors_of_the_program(self):
        code, _, said = self.on_terminal("-o", "out.svg", "-c", "1/0")
        self.assertEqual(code, 1)
        self.assertIn("ZeroDivisionError", said)


if __name__ == "__main__":
    unittest.main()
