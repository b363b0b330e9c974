"""python -m pyprof, in the package: what it runs is as python runs it, and is recorded."""
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest

TIMEOUT = 120

SCRIPT = """
    import os, sys, threading
    def busy(end):
        while not end():
            sum(i * i for i in range(1000))
    # Until the profiler has seen it often enough, however long the machine takes.
    def recorded(name, enough):
        pyprof = sys.modules.get("pyprof")
        if pyprof is None or not pyprof.is_active():
            return True
        return sum(row.samples for row in pyprof.snapshot().functions() if row.name == name) >= enough
    def late():
        busy(lambda: recorded("late", 3))
    """


class Command(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="pyprof-command-")
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(SCRIPT) + textwrap.dedent(text))

    def read(self, name):
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read()

    def python(self, *words, **more):
        done = subprocess.run([sys.executable, *words], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, timeout=TIMEOUT, **more)
        return done.returncode, done.stdout, done.stderr

    def record(self, *words):
        return self.python("-m", "pyprof", "record", *words)

    def files(self):
        return sorted(name for name in os.listdir(self.folder) if not name.endswith((".py", "__pycache__", "package", ".zip")))

    def test_script(self):
        self.write("s.py", """
            print(sys.argv, __name__, __file__, sys.path[0] == os.path.dirname(os.path.realpath(__file__)), __spec__)
            print(sys.modules["__main__"].__dict__ is globals(), sys.stdin.read())
            busy(lambda: recorded("<module>", 3))
            sys.exit(3)
            """)
        plain = self.python("s.py", "-x", "two words", input="typed")
        code, out, err = self.python("-m", "pyprof", "record", "-r", "1000", "-o", "a.svg", "--output=a.txt", "s.py", "-x",
                                     "two words", input="typed")
        self.assertEqual((code, out), plain[:2])
        self.assertRegex(err, r"^pyprof: \d+ samples in \d+\.\d s \(\d+ of waiting threads, \d+ lost\); wrote a.svg, a.txt\n$")
        self.assertRegex(self.read("a.txt"), rb"(?m)^thread MainThread;<module> \(s.py:\d+\);busy \(s.py:")
        self.assertNotRegex(self.read("a.txt"), rb"_run_code.*s\.py", "what runs it is not above it")
        self.assertTrue(self.read("a.svg").startswith(b"<?xml"))
        self.assertEqual(self.files(), ["a.svg", "a.txt"])

    def test_threads_that_go_on(self):
        self.write("s.py", "threading.Thread(target=late, name='late one').start()\n")
        code, out, err = self.record("-q", "-r", "1000", "-o", "a.txt", "s.py")
        self.assertEqual((code, out, err), (0, "", ""))
        self.assertRegex(self.read("a.txt"), rb"(?m)^thread late one;.*late \(s.py")

    def test_default_name(self):
        self.write("s.py", "")
        self.assertEqual(self.record("-q", "s.py")[0], 0)
        self.assertRegex(" ".join(self.files()), r"^s-\d{8}-\d{6}\.svg$")

    def test_module_and_code(self):
        self.write("package/__main__.py", "print(sys.argv[1:], __name__, __package__, __spec__.name)\nbusy(lambda: recorded('busy', 3))\n")
        code, out, err = self.record("-r1000", "-qo", "a.txt", "-m", "package", "-q", "x")
        self.assertEqual((code, out, err), (0, "['-q', 'x'] __main__ package package.__main__\n", ""))
        self.assertRegex(self.read("a.txt"), rb"(?m)^thread MainThread;<module> \(.*__main__.py:\d+\);busy \(")
        code, out, err = self.record("-q", "-o", "b.txt", "-c", "import sys; print(sys.argv, __name__)", "x")
        self.assertEqual((code, out, err), (0, "['-c', 'x'] __main__\n", ""))

    def test_folder_and_zip(self):
        import zipfile
        self.write("package/__main__.py", "import beside\nprint(beside.here, __name__, sys.argv)\n")
        with open(os.path.join(self.folder, "package", "beside.py"), "w", encoding="utf-8") as file:
            file.write("here = True\n")
        with zipfile.ZipFile(os.path.join(self.folder, "p.zip"), "w") as archive:
            for name in ("__main__.py", "beside.py"):
                archive.write(os.path.join(self.folder, "package", name), name)
        for path in ("package", "p.zip"):
            code, out, err = self.record("-q", "-o", "a.txt", path, "x")
            self.assertEqual((code, out, err), (0, "True __main__ ['%s', 'x']\n" % path, ""))

    def test_exception(self):
        self.write("s.py", "def fail(): raise KeyError('its own')\nbusy(lambda: recorded('busy', 3))\nfail()\n")
        plain = self.python("s.py")
        code, out, err = self.record("-q", "-r", "1000", "-o", "a.txt", "s.py")
        self.assertEqual((code, out), plain[:2])
        same = [line for line in plain[2].splitlines() if not line.startswith("  File")]
        self.assertEqual([line for line in err.splitlines() if not line.startswith("  File")], same)
        self.assertIn(b"busy (", self.read("a.txt"))

    def test_interrupt(self):
        self.write("s.py", "import signal\nbusy(lambda: recorded('busy', 3))\nsignal.raise_signal(signal.SIGINT)\n")
        code, out, err = self.record("-r", "1000", "-o", "a.txt", "s.py")
        self.assertEqual(code, -signal.SIGINT)
        self.assertIn("KeyboardInterrupt", err)
        self.assertIn(b"busy (", self.read("a.txt"))

    def test_forked_child(self):
        self.write("s.py", """
            child = os.fork()
            if child == 0:
                sys.exit(5)
            print(os.waitpid(child, 0)[1] >> 8)
            """)
        code, out, err = self.record("-o", "a.txt", "s.py")
        self.assertEqual((code, out), (0, "5\n"))
        self.assertEqual(err.count("wrote"), 1)

    def test_table_and_formats(self):
        self.write("s.py", "busy(lambda: recorded('busy', 3))\n")
        code, out, err = self.record("-q", "-r", "1000", "-f", "table", "-F", "--metric", "cpu", "s.py")
        self.assertEqual((code, out, self.files()), (0, "", []))
        self.assertIn("functions by CPU time", err)
        code, out, err = self.record("-q", "-r", "1000", "-f", "speedscope", "-gi", "-o", "x", "s.py")
        self.assertEqual((code, out, err), (0, "", ""))
        self.assertIn("$schema", json.loads(self.read("x")))

    def test_filters(self):
        """What the text has is what the option leaves."""
        self.write("s.py", """
            def other():
                busy(lambda: recorded("other", 5))
            thread = threading.Thread(target=other, name="helper")
            thread.start()
            busy(lambda: recorded("busy", 5))
            thread.join()
            """)
        for options, kept, gone in (
                (["--only-thread", "help*"], b"thread helper;", b"thread MainThread"),
                (["--only-function=other"], b";other (s.py:", b"thread MainThread"),
                (["--only-file", "*s.p"], b"busy (s.py:", b"thread nobody"),  # before 3.9 python keeps a path as it was given
                (["--only-mine"], b"busy (s.py:", b"(threading.py"),
                (["--only-interpreter", "main"], b"thread helper;", b"[interpreter"),
                (["--min-share", "1"], b";[other] ", b"busy (s.py")):
            with self.subTest(options):
                code, out, err = self.record("-q", "-r", "1000", "-f", "RAW", "-o", "x", *options, "s.py")
                self.assertEqual((code, out, err), (0, "", ""))
                text = self.read("x")
                self.assertIn(kept, text)
                self.assertNotIn(gone, text)

    def test_convert(self):
        self.write("s.py", "busy(lambda: recorded('busy', 3))\n")
        self.assertEqual(self.record("-q", "-r", "1000", "-o", "a.jsonl", "-o", "a.pstats", "s.py"), (0, "", ""))
        code, out, err = self.python("-m", "pyprof", "convert", "a.jsonl", "-o", "b.txt")
        if "zlib" in err:
            self.skipTest(err)
        self.assertEqual((code, out), (0, ""))
        self.assertIn(b"busy (", self.read("b.txt"))
        code, out, err = self.python("-m", "pyprof", "convert", "nowhere.txt")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("nowhere.txt", err)

    def test_duration(self):
        self.write("s.py", """
            def after():
                print(sys.modules["pyprof"].is_active())
            busy(lambda: not sys.modules["pyprof"].is_active())
            after()
            """)
        code, out, err = self.record("-q", "-d", "0.2", "-r", "1000", "-o", "a.txt", "s.py")
        self.assertEqual((code, out, err), (0, "False\n", ""))
        self.assertIn(b"busy (", self.read("a.txt"))

    def test_top(self):
        self.write("s.py", "print('out')\nbusy(lambda: recorded('busy', 3))\nsys.exit(4)\n")
        code, out, err = self.python("-m", "pyprof", "top", "-r", "1000", "s.py")
        self.assertEqual((code, out), (4, "out\n"))
        self.assertRegex(err, r"busy \(.*s.py:")
        self.assertEqual(err.count("self s"), 1)
        self.assertNotIn("\x1b", err)

    def test_top_on_a_terminal(self):
        self.write("s.py", "import time\nbusy(lambda: recorded('busy', 3))\ntime.sleep(1.5)\n")
        terminal, end = pty.openpty()
        with subprocess.Popen([sys.executable, "-m", "pyprof", "top", "-r", "1000", "s.py"], cwd=self.folder, stderr=end) as program:
            os.close(end)
            text = b""
            try:
                while True:
                    text += os.read(terminal, 65536)
            except OSError:  # the other side has gone
                pass
            self.assertEqual(program.wait(TIMEOUT), 0)
        os.close(terminal)
        self.assertGreaterEqual(text.count(b"\x1b[H\x1b[J"), 2, "once as it ran, once at the end")
        self.assertRegex(text, rb"busy \(.*s.py:")

    def test_help_and_version(self):
        for words in (["--help"], ["record", "-h"], ["record", "--help"]):
            code, out, err = self.python("-m", "pyprof", *words)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("--duration", out)
        for words in (["--version"], ["record", "-V"]):
            code, out, err = self.python("-m", "pyprof", *words)
            self.assertEqual((code, out, err), (0, "pyprof 0.1, Python " + sys.version + "\n", ""))

    def test_misuse(self):
        """One line, exit code 2, nothing run, no file."""
        self.write("s.py", "print('it ran')\n")
        self.write("wrong.py", "def (\n")
        for words, why in (
                ([], "no command"), (["play"], "play"), (["record"], "nothing to run"), (["record", "--colour", "s.py"], "--colour"),
                (["record", "-o"], "-o needs a value"), (["record", "-r", "fast", "s.py"], "'fast'"),
                (["record", "-r", "0", "s.py"], "--rate"), (["record", "-d", "0", "s.py"], "--duration"),
                (["record", "--depth", "3", "s.py"], "--depth"), (["record", "--memory", "much", "s.py"], "--memory"),
                (["record", "--memory", "1K", "s.py"], "memory_limit"), (["record", "--metric", "heat", "s.py"], "heat"),
                (["record", "-f", "docx", "s.py"], "docx"), (["record", "--quiet=yes", "s.py"], "no value"),
                (["record", "-o", "/no such folder/a.svg", "s.py"], "No such file"), (["record", "-o", "/tmp", "s.py"], "directory"),
                (["record", "nowhere.py"], "No such file"), (["record", "-o", "a.txt", "-m", "nowhere"], "No module named"),
                (["record", "--min-share", "2", "s.py"], "--min-share"), (["record", "--width", "9", "s.py"], "--width"),
                (["record", "--width", "1e3", "s.py"], "--width"), (["record", "--min-width", "0", "s.py"], "--min-width"),
                (["record", "--signal", "9", "s.py"], "signal"), (["record", "--signal", "USR9", "s.py"], "'USR9'"),
                (["record", "--thread", "x", "s.py"], "no option --thread"),
                (["record", "wrong.py"], "syntax"), (["record", "-c", "def ("], "syntax"), (["top"], "nothing to run")):
            with self.subTest(words=words):
                code, out, err = self.python("-m", "pyprof", *words)
                self.assertEqual((code, out), (2, ""))
                self.assertRegex(err, r"^pyprof: [^\n]*\n$")
                self.assertIn(why, err)
                self.assertEqual(self.files(), [])

    def test_ends(self):
        """Whatever way the program ends, its exit code or signal is as without us, and the profile is whole."""
        self.write("s.py", """
            import ctypes, signal, time
            def spend():
                busy(lambda: recorded("spend", 3))
            def end_in_c():
                os.system("(sleep 0.5; kill -TERM %d) &" % os.getpid())
                ctypes.CDLL(None).sleep(60)
            ends = {
                "exit": lambda: os._exit(3),
                "execlp": lambda: os.execlp("echo", "echo", "executed"),
                "execve": lambda: os.execve("/bin/echo", ["echo", "executed"], os.environ),
                "term": lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60),
                "alarm": lambda: signal.alarm(1) or time.sleep(60),
                "in C": end_in_c}
            spend()
            ends[sys.argv[1]]()
            """)
        for end, code, out in (("exit", 3, ""), ("execlp", 0, "executed\n"), ("execve", 0, "executed\n"),
                               ("term", -signal.SIGTERM, ""), ("alarm", -signal.SIGALRM, ""), ("in C", -signal.SIGTERM, "")):
            with self.subTest(end):
                done = self.record("-r", "1000", "-o", "a.txt", "s.py", end)
                self.assertEqual(done[:2], (code, out))
                self.assertRegex(done[2], r"^pyprof: \d+ samples in [^\n]*; wrote a.txt\n$")
                self.assertIn(b";spend (", self.read("a.txt"))
                os.unlink(os.path.join(self.folder, "a.txt"))

    def test_what_does_not_end_the_program(self):
        """Functions of os that fail, signals that the program takes itself, and children that end by one."""
        self.write("s.py", """
            import signal, time
            def spend():
                busy(lambda: recorded("spend", 3))
            try:
                os.execvp("no such program", ["x"])
            except OSError:
                pass
            print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, threading.active_count(), os.execve in os.supports_fd)
            for end in (lambda: os._exit(4), lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60)):
                child = os.fork()
                if child == 0:
                    end()
                status = os.waitpid(child, 0)[1]
                print(status >> 8, status & 127)
            signal.signal(signal.SIGTERM, lambda *_: print("taken"))
            os.kill(os.getpid(), signal.SIGTERM)
            spend()
            """)
        code, out, err = self.record("-r", "1000", "-o", "a.txt", "s.py")
        self.assertEqual((code, out), (0, "True 1 True\n4 0\n0 15\ntaken\n"))
        self.assertEqual(err.count("wrote"), 1)
        self.assertIn(b";spend (", self.read("a.txt"))

    def test_signals(self):
        self.write("s.py", "busy(lambda: recorded('busy', 3))\n")
        for name, stated in (("USR2", signal.SIGUSR2), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("12", 12), ("none", 0)):
            code, out, err = self.record("-q", "-r", "1000", "--signal", name, "-o", "a.jsonl", "s.py")
            self.assertEqual((code, out, err), (0, "", ""))
            self.assertEqual(json.loads(self.read("a.jsonl").splitlines()[0])["stats"]["signal_number"], stated)

    def test_looks(self):
        self.write("s.py", "busy(lambda: recorded('busy', 3))\n")
        looks = (["--title", "A <title>"], b"A &lt;title"), (["--subtitle=below"], b"below"), (["--width", "2345"], b"2345"), (["-t"], b"thread")
        for words, shown in looks:
            code, out, err = self.record("-q", "-r", "1000", "--inverted", "--min-width", "3", *words, "-o", "a.svg", "-o", "a.txt", "s.py")
            if "zlib" in err:
                self.skipTest(err)
            self.assertEqual((code, out, err), (0, "", ""))
            self.assertIn(shown, self.read("a.svg"))
            self.assertIn(b"busy (", self.read("a.txt"))

    HOLD = """
            kept = []
            def hold_many():
                kept.extend(bytes(10000) for i in range(2000))
            def churn():
                for i in range(2000):
                    bytearray(20000)
            hold_many(); churn(); busy(lambda: recorded("busy", 3))
            """

    def held(self, name, function):
        """Bytes of a function in a file of collapsed stacks."""
        lines = self.read(name).decode().splitlines()
        return sum(int(line.rpartition(" ")[2]) for line in lines if ";%s (s.py:" % function in line)

    def test_memory(self):
        """What is in use at the end, with time beside it or without; the runner's frames are not in it."""
        self.write("s.py", self.HOLD)
        for words, memory in ((["-o", "a.txt", "--heap"], "a.txt"), (["-o", "b.txt", "--heap", "-o", "a.txt"], "a.txt"),
                              (["--heap", "-o", "a.txt", "-o", "b.txt"], "a.txt")):
            with self.subTest(words):
                code, out, err = self.record("-r", "1000", "--heap-rate", "16", *words, "s.py")
                self.assertEqual((code, out), (0, ""), err)
                told = (r"pyprof: \d+\.\d MiB in use, give or take \d+\.\d KiB "
                        r"\(\d+ samples, of them \d+ in use\); wrote a.txt\n")
                time = r"pyprof: \d+ samples in .*; wrote b.txt\n" if "b.txt" in words else ""
                self.assertRegex(err, "^%s%s$" % (told, time))
                self.assertAlmostEqual(self.held(memory, "hold_many"), 20e6, delta=2.5e6)
                self.assertLess(self.held(memory, "churn"), 3e5)
                self.assertRegex(self.read(memory), rb"(?m)^thread MainThread;<module> \(s.py:\d+\);hold_many \(s.py:")
                if "b.txt" in words:
                    self.assertIn(b";busy (s.py:", self.read("b.txt"))

    def test_memory_in_formats(self):
        self.write("s.py", self.HOLD)
        words = [word for name in ("m.svg", "m.pb.gz", "m.json", "m.jsonl") for word in ("--heap", "-o", name)]
        looks = "--metric", "alloc_space", "--title", "Of memory"
        self.assertEqual(self.record("-q", *looks, *words, "s.py"), (0, "", ""))
        picture = self.read("m.svg").decode()
        self.assertIn("Of memory", picture)
        self.assertRegex(picture, r"<title>churn \(s.py:\d+\) \(\d+\.\d* MiB, ")
        self.assertEqual(json.loads(self.read("m.jsonl").splitlines()[0])["kind"], "heap")
        code, out, err = self.record("-q", "--heap", "-f", "table", "s.py")
        self.assertEqual((code, out), (0, ""))
        self.assertIn("functions by bytes in use: ", err)
        self.assertEqual(self.record("-q", "--heap", "s.py"), (0, "", ""))
        self.assertRegex(" ".join(self.files()), r"s-\d{8}-\d{6}\.heap\.svg")

    def test_memory_misused(self):
        self.write("s.py", "")
        for words, said in ((["--heap-rate", "4"], "--heap-rate needs --heap"),
                            (["--heap", "--heap-rate", "0"], "--heap-rate: "),
                            (["--metric", "alloc_space"], "--metric alloc_space needs --heap"),
                            (["--heap", "--metric", "heap"], "is not wall, cpu or gil, nor inuse_space")):
            code, out, err = self.record(*words, "s.py")
            self.assertEqual((code, out, err.count("\n")), (2, "", 1), err)
            self.assertIn(said, err)
        code, _, err = self.record("--heap", "-o", "a.pstats", "s.py")
        self.assertIn("times only", err)
        self.assertEqual((code, self.files()), (1, []))

    def test_what_cannot_be_written_at_the_end(self):
        self.write("s.py", "import shutil\nshutil.rmtree('gone')\n")
        self.write("exit.py", "import shutil\nshutil.rmtree('gone')\nos._exit(0)\n")
        os.mkdir(os.path.join(self.folder, "gone"))
        done, out, err = self.record("-o", "gone/a.txt", "exit.py")
        self.assertEqual((done, out, err.count("\n")), (1, "", 1))
        for code in (0, 3):
            os.mkdir(os.path.join(self.folder, "gone"))
            with open(os.path.join(self.folder, "s.py"), "a", encoding="utf-8") as file:
                file.write("sys.exit(%d)\n" % code if code else "")
            done, out, err = self.record("-o", "gone/a.txt", "s.py")
            self.assertEqual((done, out), (code or 1, ""))
            self.assertRegex(err, r"^pyprof: [^\n]*No such file[^\n]*\n$")


if __name__ == "__main__":
    unittest.main(verbosity=1)
