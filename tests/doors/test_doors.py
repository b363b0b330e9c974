"""libpyprof-3.X.so in processes that know nothing of it: what it records, and that all else is as without it."""

import glob
import json
import os
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "common"))
import harness

TOOLS = os.path.join(harness.BUILD, "tools")
TAG = subprocess.check_output([harness.PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2] + sys.abiflags)"],
                              universal_newlines=True).strip()
LIBRARY = os.path.join(TOOLS, "libpyprof-%s.so" % TAG)
RUN, CTL = os.path.join(TOOLS, "pyprof-run"), os.path.join(TOOLS, "pyprof-ctl")
LATE, PLAIN = (os.path.join(harness.BUILD, "tests", "doors", name) for name in ("late", "plain"))
PYTHON = harness.PYTHON
TIMEOUT = 120

# Some rounds at least: a virtual machine that is stopped for a while counts that as time of whoever had the processor.
BUSY = """
import os, sys, time
def leaf():
    return sum(range(1000))
def busy(seconds=0.2):
    end, rounds = time.process_time() + seconds, 0
    while rounds < 40000 * seconds or time.process_time() < end:
        leaf()
        rounds += 1
"""


def libpython():
    """The shared one of this CPython; None = there is none."""
    code = "import sysconfig as s; print(s.get_config_var('LIBDIR') + '/' + (s.get_config_var('INSTSONAME') or ''))"
    path = subprocess.check_output([PYTHON, "-c", code], universal_newlines=True).strip()
    return path if path.endswith(".so.1.0") and os.path.exists(path) else None


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="pyprof-doors-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYPROF_"))}
        self.env["PYTHONDONTWRITEBYTECODE"] = "1"

    def start(self, command, preload=None, **wishes):
        env = dict(self.env, **wishes)
        if preload:
            env["LD_PRELOAD"] = preload
        return subprocess.Popen(command, cwd=self.dir, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, universal_newlines=True)

    def call(self, command, preload=None, stdin="", **wishes):
        process = self.start(command, preload, **wishes)
        try:
            out, err = process.communicate(stdin, TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return process.returncode, out, err

    def record(self, code, *arguments, **wishes):
        """Python's own executable as a host: it is as unmodified as any other."""
        wishes.setdefault("PYPROF_OUTPUT", "out.txt")
        wishes.setdefault("PYPROF_RATE", "1000")
        return self.call([PYTHON, "-c", BUSY + code] + list(arguments), LIBRARY, **wishes)

    def read(self, name="out.txt"):
        with open(os.path.join(self.dir, name), encoding="utf-8") as file:
            return file.read()

    def files(self):
        return sorted(os.listdir(self.dir))


class Recorded(Case):
    def test_share_of_known_work(self):
        code = ("def one(): busy(0.3)\ndef two(): busy(0.9)\nfor part in one, two:\n    begin = time.perf_counter()\n"
                "    part()\n    print(time.perf_counter() - begin)\nsys.exit(4)")
        status, out, err = self.record(code)
        self.assertEqual((status, err), (4, ""))
        took, seen = [float(line) for line in out.split()], {"one": 0, "two": 0}
        for line in self.read().splitlines():
            for name in seen:
                if ";%s (" % name in line:
                    seen[name] += int(line.rpartition(" ")[2])
        self.assertAlmostEqual(seen["two"] / sum(seen.values()), took[1] / sum(took), delta=0.05)

    def test_from_its_first_interpreter_on(self):
        """What CPython does before the script is there, too: its search for modules."""
        code = "import importlib, sys\nbusy(0.05)"
        for _ in range(5): # it takes 10 ms
            self.assertEqual(self.record(code, PYPROF_RATE="10000")[0], 0)
            if "<frozen " in self.read():
                return
        self.fail(self.read())

    def test_every_format(self):
        begins = {"a.svg": "<?xml", "a.txt": "thread ", "a.collapsed": "thread ", "a.json": "{", "a.firefox.json": "{",
                  "a.perfetto.json": "{", "a.jsonl": "{"}
        for name, begin in begins.items():
            with self.subTest(name):
                self.assertEqual(self.record("busy()", PYPROF_OUTPUT=name), (0, "", ""))
                text = self.read(name)
                self.assertTrue(text.startswith(begin), text[:100])
                self.assertIn("busy", text)
        self.assertEqual(self.record("busy()", PYPROF_OUTPUT="a.pstats"), (0, "", ""))
        self.assertIn("leaf", {key[2] for key in pstats.Stats(os.path.join(self.dir, "a.pstats")).stats})
        self.assertEqual(self.record("busy()", PYPROF_OUTPUT="a.pb"), (0, "", ""))
        with open(os.path.join(self.dir, "a.pb"), "rb") as file:
            self.assertIn(b"busy", file.read())
        self.assertEqual(self.files(), sorted([*begins, "a.pstats", "a.pb"]))

    def test_names_in_the_path(self):
        """Meant from where the program began."""
        code = "os.chdir('/')\nopen('/proc/self/comm', 'w').write('another')\nprint(os.getpid())\nbusy(0.05)"
        status, out, err = self.record(code, PYPROF_OUTPUT="%n-%p-%t-%%.txt")
        self.assertEqual((status, err), (0, ""))
        [name] = self.files()
        self.assertRegex(name, r"^%s-%s-\d{8}-\d{6}-\d{3}-%%\.txt$" % (re.escape(os.path.basename(PYTHON)), out.strip()))

    def test_rate(self):
        for rate, interval in (("50", 20000), ("0.5", 2000000), ("20000", 50)):
            self.assertEqual(self.record("busy(0.05)", PYPROF_OUTPUT="a.jsonl", PYPROF_RATE=rate), (0, "", ""))
            self.assertEqual(json.loads(self.read("a.jsonl").splitlines()[0])["interval_us"], interval)
        self.assertEqual(self.record("busy(0.05)", PYPROF_OUTPUT="a.jsonl", PYPROF_RATE=""), (0, "", ""))
        self.assertEqual(json.loads(self.read("a.jsonl").splitlines()[0])["interval_us"], 10000)

    def test_listens_and_begins_when_asked(self):
        """At its usual place, and where it is told to."""
        code = ("def before(): busy()\ndef after(): busy()\nbefore()\nprint('ready', flush=True)\nsys.stdin.readline()\n"
                "after()")
        runtime = os.path.join(self.dir, "runtime")
        os.mkdir(runtime, 0o700)
        for where in "1", "here.sock":
            process = self.start([PYTHON, "-c", BUSY + code], LIBRARY, PYPROF_OUTPUT="later.txt", PYPROF_START="later",
                                 PYPROF_LISTEN=where, XDG_RUNTIME_DIR=runtime)
            self.assertEqual(process.stdout.readline(), "ready\n")
            peer = str(process.pid) if where == "1" else os.path.join(self.dir, where)
            env = dict(self.env, XDG_RUNTIME_DIR=runtime)
            self.assertIn("no", subprocess.check_output([CTL, "status", peer], env=env, universal_newlines=True))
            subprocess.run([CTL, "start", "-r", "1000", peer], env=env, check=True, stdout=subprocess.DEVNULL)
            self.assertEqual(process.communicate("go\n", TIMEOUT), ("", ""))
            self.assertEqual(process.returncode, 0)
            text = self.read("later.txt")
            self.assertIn(";after (", text)
            self.assertNotIn(";before (", text)
            self.assertEqual(glob.glob(os.path.join(self.dir, "**", "*.sock"), recursive=True), [])

    def test_listens_while_it_records(self):
        code = "busy(0.1)\nprint('ready', flush=True)\nsys.stdin.readline()\nbusy()"
        process = self.start([PYTHON, "-c", BUSY + code], LIBRARY, PYPROF_LISTEN="a.sock")
        self.assertEqual(process.stdout.readline(), "ready\n")
        peer = os.path.join(self.dir, "a.sock")
        subprocess.run([CTL, "snapshot", "-o", os.path.join(self.dir, "snap.txt"), peer], check=True, env=self.env)
        self.assertEqual(process.communicate("go\n", TIMEOUT), ("", ""))
        self.assertEqual(self.files(), ["snap.txt"])

    def test_listens_where_no_python_runs(self):
        """A host is out of Python most of the time: it is told that this is so, and not that something is wrong."""
        if libpython() is None:
            self.skipTest("this CPython has no shared library")
        code = "print('ready', flush=True)"
        process = self.start([LATE, libpython(), code, "wait"], LIBRARY, PYPROF_LISTEN="a.sock", PYPROF_START="later")
        self.assertEqual(process.stdout.readline(), "ready\n")
        peer = os.path.join(self.dir, "a.sock")

        def ask(*words):
            said = subprocess.run([CTL] + list(words) + [peer], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  universal_newlines=True)
            return said.returncode, said.stdout, re.sub("^pyprof-ctl: .*a.sock: ", "", said.stderr)

        none = (1, "", "there are no samples: none of its threads was in Python\n")
        taken = ["record", "-d", "0.1", "-o", os.path.join(self.dir, "a.txt")]
        self.assertEqual(ask("dump"), (0, "No thread runs Python.\n", ""))
        self.assertEqual(json.loads(ask("dump", "--json")[1])["threads"], [])
        self.assertEqual(ask(*taken), none)
        self.assertEqual(ask("start"), (0, "", ""))
        self.assertEqual(ask(*taken), none)
        code, out, err = ask("top", "--once")
        self.assertEqual((code, err), (0, ""))
        self.assertIn(" 0 samples", out)
        self.assertEqual(ask("stop", "-o", os.path.join(self.dir, "a.svg")), none)
        self.assertEqual(process.communicate("\n", TIMEOUT), ("", ""))
        self.assertEqual((process.returncode, self.files()), (3, []))

    def test_only_what_matches(self):
        name = os.path.basename(PYTHON)
        for pattern, is_recorded in (("python*", True), ("gdb", False), ("*[!0-9x]", False), (name, True), ("", True)):
            with self.subTest(pattern):
                self.assertEqual(self.record("busy(0.05)", PYPROF_ONLY=pattern), (0, "", ""))
                self.assertEqual("out.txt" in self.files(), is_recorded)
                if is_recorded:
                    os.unlink(os.path.join(self.dir, "out.txt"))

    def test_says_why_not(self):
        reasons = (([PYTHON, "-c", "pass"], {"PYPROF_ONLY": "gdb"}, "its name does not match PYPROF_ONLY=gdb"),
                   ([PYTHON, "-c", "pass"], {"PYPROF_OUTPUT": ""},
                    "none of PYPROF_OUTPUT, PYPROF_HEAP_OUTPUT and PYPROF_LISTEN is set"),
                   ([PLAIN], {}, "no CPython began in it"))
        for command, more, reason in reasons:
            for verbose in "1", "0", "":
                wishes = dict({"PYPROF_OUTPUT": "a.txt"}, PYPROF_VERBOSE=verbose, **more)
                err = self.call(command, LIBRARY, **wishes)[2]
                with self.subTest(reason + verbose):
                    self.assertEqual(reason in err, verbose == "1", err)
                    self.assertTrue(verbose == "1" or err == "", err)

    def test_bad_values(self):
        """One line, and the program is as without it."""
        bad = ({"PYPROF_RATE": "fast"}, {"PYPROF_RATE": "0"}, {"PYPROF_RATE": "1e9"}, {"PYPROF_RATE": "nan"},
               {"PYPROF_RATE": "100Hz"}, {"PYPROF_OUTPUT": "a.xyz"}, {"PYPROF_OUTPUT": "plain"},
               {"PYPROF_OUTPUT": "/no/such/folder/a.txt"}, {"PYPROF_OUTPUT": "x" * 5000 + ".txt"},
               {"PYPROF_OUTPUT": "new\nline/%p.txt"}, {"PYPROF_START": "never"}, {"PYPROF_START": "later"},
               {"PYPROF_HEAP_OUTPUT": "a.xyz"}, {"PYPROF_HEAP_OUTPUT": "a.pstats"},
               {"PYPROF_HEAP_OUTPUT": "/no/such/a.txt"},
               {"PYPROF_HEAP_RATE": "0"}, {"PYPROF_HEAP_RATE": "64k"}, {"PYPROF_HEAP_OUTPUT": "out.txt"},
               {"PYPROF_LISTEN": "/no/such/folder/a.sock"}, {"PYPROF_LISTEN": "x" * 200})
        for wishes in bad:
            with self.subTest(wishes):
                status, out, err = self.record("busy(0.02)\nprint('done')\nsys.exit(6)", **wishes)
                self.assertEqual((status, out), (6, "done\n"))
                self.assertRegex(err, r"\Apyprof: [^\n]*%s[^\n]*\n\Z" % next(iter(wishes)))
                self.assertEqual(self.files(), [])

    def test_what_cannot_be_written_at_the_end(self):
        os.mkdir(os.path.join(self.dir, "folder"))
        status, _, err = self.record("busy(0.02)\nimport shutil\nshutil.rmtree('folder')\nsys.exit(6)",
                                     PYPROF_OUTPUT="folder/a.txt")
        self.assertEqual(status, 6)
        self.assertRegex(err, r"\Apyprof: cannot write [^\n]*folder/a\.txt: No such file or directory\n\Z")
        self.assertEqual(self.files(), [])

    def held(self, name):
        """Bytes in use of what hold allocated; one file may not be there."""
        return sum(int(line.rpartition(" ")[2]) for line in self.read(name).splitlines() if ";hold (" in line)

    HOLD = "kept = []\ndef hold():\n    kept.extend(bytes(10000) for i in range(2000))\nhold()\n"

    def test_memory(self):
        """What is in use at the end, alone and beside time; of a child where each has its own file."""
        for more, files in (({"PYPROF_OUTPUT": ""}, ["m.txt"]), ({}, ["m.txt", "out.txt"])):
            more.update(PYPROF_HEAP_OUTPUT="m.txt", PYPROF_HEAP_RATE="16")
            self.assertEqual(self.record("busy(0.1)\n" + self.HOLD, **more), (0, "", ""))
            self.assertEqual(self.files(), files)
            self.assertAlmostEqual(self.held("m.txt"), 20e6, delta=2.5e6)
        self.assertIn("busy", self.read())
        for name in self.files():
            os.remove(os.path.join(self.dir, name))
        fork = self.HOLD + ("import os\npid = os.fork()\nif pid == 0:\n    hold()\nelse:\n    os.waitpid(pid, 0)\n"
                            "    print(pid, os.getpid())")
        wishes = {"PYPROF_OUTPUT": "", "PYPROF_HEAP_RATE": "16"}
        status, out, err = self.record(fork, PYPROF_HEAP_OUTPUT="%p.txt", **wishes)
        self.assertEqual((status, err), (0, ""))
        child, parent = out.split()
        self.assertEqual(self.files(), sorted([child + ".txt", parent + ".txt"]))
        self.assertAlmostEqual(self.held(parent + ".txt"), 20e6, delta=2.5e6)
        self.assertAlmostEqual(self.held(child + ".txt"), 40e6, delta=3.5e6)
        status, _, err = self.record(fork, PYPROF_HEAP_OUTPUT="one.txt", **wishes)
        self.assertEqual((status, err), (0, ""))
        self.assertAlmostEqual(self.held("one.txt"), 20e6, delta=2.5e6)

    def test_nobody_reads_the_pipe(self):
        """A host must not wait for that at its end."""
        os.mkfifo(os.path.join(self.dir, "pipe.txt"))
        status, _, err = self.record("busy(0.02)", PYPROF_OUTPUT="pipe.txt")
        self.assertEqual(status, 0)
        self.assertRegex(err, r"\Apyprof: cannot write [^\n]*pipe\.txt: [^\n]+\n\Z")


class Ends(Case):
    ENDS = {"sys.exit(7)": 7, "os._exit(8)": 8, "raise SystemExit": 0, "os.kill(os.getpid(), 15)": -15,
            "os.kill(os.getpid(), 1)": -1, "os.kill(os.getpid(), 9)": -9, "os.abort()": -6,
            "import ctypes; ctypes.string_at(0)": -11, "os.execv('/bin/sh', ['sh', '-c', 'exit 5'])": 5,
            "import ctypes; ctypes.CDLL(None).quick_exit(9)": 9}

    def test_every_end(self):
        for end, status in self.ENDS.items():
            with self.subTest(end):
                self.assertEqual(self.record("busy()\n" + end), (status, "", ""))
                self.assertIn(";busy (", self.read())
                os.unlink(os.path.join(self.dir, "out.txt"))

    def test_an_exec_that_fails(self):
        code = ("def before(): busy()\ndef after(): busy()\nbefore()\ntry: os.execv('/etc/passwd', ['x'])\n"
                "except OSError: pass\ntry: os.execv(sys.argv[1], ['x'])\nexcept OSError: after()")
        broken = os.path.join(self.dir, "broken")
        with open(broken, "w", encoding="utf-8") as file:
            file.write("no program")
        os.chmod(broken, 0o755)
        self.assertEqual(self.record(code, broken), (0, "", ""))
        text = self.read()
        self.assertIn(";before (", text)
        self.assertIn(";after (", text)

    def test_a_program_executes_another(self):
        """Which is recorded, too: all is still in its environment. The same process, so the name has the time."""
        code = "busy()\nos.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
        self.assertEqual(self.record(code, BUSY + "def second(): busy()\nsecond()", PYPROF_OUTPUT="%t.txt"), (0, "", ""))
        texts = [self.read(name) for name in self.files()]
        self.assertEqual([";second (" in text for text in texts], [False, True])

    def test_forked_children(self):
        code = ("def parents(): busy()\ndef childs(): busy()\npid = os.fork()\nif pid == 0:\n    childs()\n"
                "    os._exit(3) if sys.argv[1] == 'hard' else sys.exit(3)\nparents()\n"
                "print(os.waitpid(pid, 0)[1] >> 8)")
        for how in "hard", "soft":
            for name, count in (("a.txt", 1), ("%p.txt", 2)):
                with self.subTest(how + name):
                    self.assertEqual(self.record(code, how, PYPROF_OUTPUT=name), (0, "3\n", ""))
                    texts = [self.read(name) for name in self.files()]
                    self.assertEqual(len(texts), count)
                    self.assertEqual([";parents (" in text for text in texts].count(True), 1)
                    self.assertEqual([";childs (" in text for text in texts].count(True), count - 1)
                    for name in self.files():
                        os.unlink(os.path.join(self.dir, name))

    def test_children_that_execute_something(self):
        """They were forked for that: no file of theirs."""
        code = ("import subprocess\nbusy(0.05)\nsubprocess.run(['true'], preexec_fn=lambda: None)\n"
                "subprocess.run(['true'])\nos.system('true')\nprint(os.popen('echo hi').read())")
        self.assertEqual(self.record(code, PYPROF_OUTPUT="%p.txt"), (0, "hi\n\n", ""))
        self.assertEqual(len(self.files()), 1)


class LeftAlone(Case):
    """Each process that inherits LD_PRELOAD has the library."""

    COMMANDS = (["true"], ["false"], ["sh", "-c", "exit 3"], ["cat"], ["env", "-i", "echo", "x"], ["ls", "/no"],
                ["sh", "-c", "kill -TERM $$"], ["sh", "-c", "(sleep 0.1 & wait); cat | sort -r"],
                ["sh", "-c", "trap 'echo heard' USR1; kill -USR1 $$; exit 4"], ["timeout", "0.2", "sleep", "9"],
                ["ldconfig", "-p"], ["passwd", "--help"], ["mount", "--version"], ["nice", "sh", "-c", "exec false"],
                ["perl", "-e", "$SIG{ALRM} = sub { print 'rang' }; alarm 1; sleep 5; exit 5"], [PLAIN])

    def test_programs_without_python(self):
        for command in self.COMMANDS:
            program = shutil.which(command[0], path=self.env["PATH"] + ":/usr/sbin:/sbin")
            if program is None:
                continue
            command = [program] + command[1:]
            for more in ({"PYPROF_OUTPUT": "%n-%p.txt"}, {}, {"PYPROF_OUTPUT": "a.txt", "LD_BIND_NOW": "1"},
                         {"PYPROF_RATE": "nonsense", "PYPROF_LISTEN": "1"}):
                with self.subTest(command[0] + str(more)):
                    plain = self.call(command, stdin="b\na\n")
                    self.assertEqual(self.call(command, LIBRARY, stdin="b\na\n", **more), plain)
                    self.assertEqual(self.files(), [])

    def test_other_pythons(self):
        """Of another version, or none that is like it."""
        found = set(glob.glob("/usr/bin/python3.*[0-9]") + glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python3.*[0-9]")))
        others = [path for path in sorted(found) if not path.endswith("python" + TAG.rstrip("td"))]
        if not others:
            self.skipTest("there is no other CPython")
        for other in others:
            command = [other, "-c", "import os, sys; print(sorted(k for k in os.environ if 'PYPROF' in k)); sys.exit(4)"]
            with self.subTest(other):
                plain = self.call(command, PYPROF_OUTPUT="a.txt")
                self.assertEqual(self.call(command, LIBRARY, PYPROF_OUTPUT="a.txt"), plain)
                self.assertEqual(self.files(), [])

    def test_python_that_is_not_begun(self):
        """The library is there, and nobody calls it: no thread, no signal's action, no file."""
        if libpython() is None:
            self.skipTest("this CPython has no shared library")
        self.assertEqual(self.call([LATE, libpython()], LIBRARY, PYPROF_OUTPUT="a.txt"), (3, "", ""))
        self.assertEqual(self.files(), [])

    def test_twice(self):
        """Two copies: the first that is for this CPython records."""
        copy = os.path.join(self.dir, "libpyprof-copy.so")
        shutil.copy(LIBRARY, copy)
        status, out, err = self.call([PYTHON, "-c", BUSY + "busy()\nos._exit(3)"], LIBRARY + ":" + copy, PYPROF_OUTPUT="a.txt")
        self.assertEqual((status, out, err), (3, "", ""))
        self.assertIn(";busy (", self.read("a.txt"))


class Late(Case):
    def test_names_that_nobody_sees(self):
        if libpython() is None:
            self.skipTest("this CPython has no shared library")
        code = "def busy():\n    n = 0\n    for i in range(8000000): n += i & 3\ndef work(): busy()\nwork()\n"
        env = {"PYTHONHOME": harness.python_home()}
        for bind in {}, {"LD_BIND_NOW": "1"}:
            said = self.call([LATE, libpython(), code], LIBRARY, PYPROF_OUTPUT="a.txt", PYPROF_RATE="1000", **env, **bind)
            self.assertEqual(said, (3, "", ""))
            self.assertRegex(self.read("a.txt"), r";work \(<string>:\d+\);busy \(<string>:\d+\) \d+")
        said = self.call([RUN, "-q", "-r", "1000", "-o", "b.txt", "--host", LATE, libpython(), code], **env)
        self.assertEqual(said, (3, "", ""))
        self.assertRegex(self.read("b.txt"), r";work \(<string>:\d+\);busy \(<string>:\d+\) \d+")


class OtherDoors(Case):
    """Loaded by a program that wants it, it does what it is told, whatever the environment says."""

    def test_ctypes(self):
        code = ("import ctypes\nlibrary = ctypes.CDLL(%r)\nlibrary.pyprof_is_active.restype = ctypes.c_bool\nprofile = ctypes.c_void_p()\n"
                "print(library.pyprof_is_active(), library.pyprof_start(None))\nbusy(0.5)\n"
                "print(library.pyprof_stop(ctypes.byref(profile)))\n"
                "print(library.pyprof_save(profile, None, b'ctypes.svg'))" % LIBRARY)
        said = self.call([PYTHON, "-c", BUSY + code], PYPROF_OUTPUT="a.txt")
        self.assertEqual(said, (0, "False 0\n0\n0\n", ""))
        self.assertEqual(self.files(), ["ctypes.svg"])
        self.assertIn("busy", self.read("ctypes.svg"))

    IMPORT = ("import importlib.machinery, importlib.util\n"
              "loader = importlib.machinery.ExtensionFileLoader('pyprof', %r)\n"
              "spec = importlib.util.spec_from_file_location('pyprof', loader.path, loader=loader)\n"
              "pyprof = importlib.util.module_from_spec(spec)\nloader.exec_module(pyprof)\n" % LIBRARY)

    def test_import(self):
        code = "pyprof.start(rate_hz=1000)\nbusy()\nprofile = pyprof.stop()\nprofile.save('a.pstats')\nprofile.save('a.svg')"
        self.assertEqual(self.call([PYTHON, "-c", BUSY + self.IMPORT + code], PYPROF_OUTPUT="a.txt"), (0, "", ""))
        self.assertEqual(self.files(), ["a.pstats", "a.svg"])
        self.assertIn("busy", self.read("a.svg"))

    def test_import_where_it_is_preloaded(self):
        """It is the same library, and so the same recording."""
        self.assertEqual(self.record(self.IMPORT + "print(pyprof.is_active())\nbusy()"), (0, "True\n", ""))
        self.assertIn(";busy (", self.read())


class RunHost(Case):
    def test_environment_is_given_back(self):
        code = "print(sorted(k for k in os.environ if k.startswith(('LD_PRELOAD', 'PYPROF'))))\nbusy()\nsys.exit(6)"
        wrapper = os.path.join(self.dir, "wrapper")
        with open(wrapper, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\ncat\nexec %s \"$@\"\n" % PYTHON)
        os.chmod(wrapper, 0o755)
        for command in [PYTHON], [wrapper]:
            with self.subTest(command):
                said = self.call([RUN, "-q", "-r", "1000", "-o", "a.txt", "--host"] + command + ["-c", BUSY + code], stdin="")
                self.assertEqual((said[0], said[2]), (6, ""))
                self.assertIn(";busy (", self.read("a.txt"))
                if command == [PYTHON]:
                    self.assertEqual(said[1], "[]\n")

    def test_no_python(self):
        for command, status in (["true"], 0), (["sh", "-c", "exit 3"], 3), (["sh", "-c", "kill -TERM $$"], -15):
            said = self.call([RUN, "-o", "a.txt", "--host"] + command)
            self.assertEqual(said[:2], (status, ""))
            self.assertRegex(said[2], r"\Apyprof-run: nothing was recorded: no Python began in %s [^\n]*\n\Z" % command[0])
            self.assertEqual(self.files(), [])

    def test_refused(self):
        rows = ((["no-such-program"], "cannot run no-such-program"), ([self.dir], "cannot run"),
                ([], "nothing to run"), (["-m", "x"], "--host"), (["-c", "pass"], "--host"))
        for command, reason in rows:
            with self.subTest(command):
                status, out, err = self.call([RUN, "-o", "a.txt", "--host"] + command)
                self.assertEqual((status, out), (2, ""))
                self.assertIn(reason, err.splitlines()[0])
                self.assertEqual(self.files(), [])


if __name__ == "__main__":
    unittest.main()
