"""pyprof-run --heap: allocations of known functions are in use, or were, in every format, as many as there are within the
error that is told; at every end of a program; and the program is as without it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest

from case import Case, PYTHON, RUN, lines_of_ours, side_by_side

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "common"), os.path.join(HERE, "..", "formats")]
import pprof
import test_go

MIB = 1 << 20
# In use at the end: 20,000,000 bytes in 2,000 objects of hold_many, 30 MiB in one of hold_one; churn has let go of all.
LEAK = """
    import sys
    kept = []
    def hold_many():
        for i in range(2000):
            kept.append(bytes(10000))
    def hold_one():
        kept.append(bytes(30 << 20))
    def churn():
        for i in range(3000):
            bytearray(20000)
    hold_many(); hold_one(); churn()
"""
IN_USE = {"hold_many": 20e6, "hold_one": 30 * MIB, "churn": 0}
ALLOCATED = dict(IN_USE, churn=60e6)
RATE = 64 * 1024


def error_of(size):
    """Four standard errors, and what lists and frames take."""
    return 4 * (size * RATE) ** 0.5 + 300000


class Heap(Case):
    def leak(self, more=""):
        return self.file("leak.py", LEAK + "    " + more + "\n")

    def heap(self, *arguments, **more):
        return self.call([RUN, "--heap", "--heap-rate", str(RATE // 1024), *arguments], **more)

    def path(self, name):
        return os.path.join(self.dir, name)

    def sums(self, text):
        """Bytes of each of the functions, in collapsed text."""
        sums = dict.fromkeys(IN_USE, 0)
        for line in text.splitlines():
            stack, _, value = line.rpartition(" ")
            for name in sums:
                sums[name] += int(value) if re.search(";%s \\(" % name, stack) else 0
        return sums

    def assertSums(self, sums, truth=IN_USE):
        for name, size in truth.items():
            self.assertAlmostEqual(sums[name], size, delta=error_of(size), msg=name)

    def assertLine(self, err, out):
        """One line, that tells what is in use, and its error."""
        self.assertRegex(err, r"\Apyprof-run: [\d.]+ MiB in use, give or take [\d.,]+ [KM]iB, of [\d.,]+ MiB allocated "
                              r"\(\d+ samples, one in 64\.0 KiB\); wrote %s\n\Z" % re.escape(out))


class Truth(Heap):
    def test_collapsed(self):
        for metric, truth in ("inuse_space", IN_USE), ("alloc_space", ALLOCATED):
            out = self.path(metric + ".txt")
            status, said, err = self.heap("-o", out, "--metric", metric, self.leak())
            self.assertEqual((status, said), (0, ""))
            self.assertLine(err, out)
            self.assertSums(self.sums(self.read(out)), truth)

    def test_objects(self):
        out = self.path("o.txt")
        self.assertEqual(self.heap("-q", "-o", out, "--metric", "inuse_objects", self.leak()), (0, "", ""))
        sums = self.sums(self.read(out))
        self.assertAlmostEqual(sums["hold_many"], 2000, delta=4 * (2000 * RATE / 1e4) ** 0.5 + 30)
        self.assertTrue(1 <= sums["hold_one"] <= 30, sums)

    def test_formats(self):
        names = "m.pb.gz", "m.pb", "m.jsonl", "m.json", "m.svg", "m.txt"
        # Each --heap makes one more of memory.
        words = [word for name in names for word in ("--heap", "-o", self.path(name))]
        status, said, err = self.heap(*words[1:], self.leak())
        self.assertEqual((status, said), (0, ""))
        self.assertLine(err, ", ".join(self.path(name) for name in names))
        truth = self.sums(self.read(self.path("m.txt")))
        self.assertSums(truth)
        for name in "m.pb.gz", "m.pb":
            with open(self.path(name), "rb") as file:
                profile = pprof.read(file.read())
            sums = dict.fromkeys(IN_USE, 0)
            for sample in profile.samples:
                for function in {frame.name for frame in sample.stack} & set(sums):
                    sums[function] += sample.values["inuse_space"]
            self.assertEqual((sums, profile.default, profile.period), (truth, "inuse_space", RATE))
        document = json.loads(self.read(self.path("m.json")))
        self.assertEqual({one["unit"] for one in document["profiles"]}, {"bytes"})
        facts = json.loads(self.read(self.path("m.jsonl")).splitlines()[0])
        self.assertEqual((facts["kind"], facts["version"], facts["sampling_bytes"]), ("heap", 2, RATE))
        picture = self.read(self.path("m.svg"))
        self.assertIn(">leak: memory<", picture)
        self.assertIn("in use, bytes", picture)
        self.assertRegex(picture, r"<title>hold_one \(leak\.py:\d+\) \(30\.[01]\d* MiB, ")

    def test_table(self):
        status, said, err = self.heap("-f", "table", self.leak())
        self.assertEqual((status, said), (0, ""))
        self.assertRegex(err, r"\n +307\d\d\.\d +\d+\.\d% +307\d\d\.\d +\d+\.\d%  hold_one \(leak\.py:\d+\)\n")
        self.assertIn("functions by bytes in use: ", err)
        self.assertNotIn(" wall", err)

    def test_go(self):
        if test_go.missing():
            self.skipTest(test_go.missing())
        out = self.path("m.pb.gz")
        self.assertEqual(self.heap("-q", "-o", out, self.leak()), (0, "", ""))
        said = subprocess.check_output(["go", "tool", "pprof", "-top", "-unit=B", "-sample_index=inuse_space", out],
                                       env=test_go.environment(), stderr=subprocess.DEVNULL, text=True)
        self.assertIn("Type: inuse_space\n", said)
        found = re.search(r"\n +(\d+)B +[\d.]+% +[\d.]+% +\d+B +[\d.]+%  hold_many", said)
        self.assertTrue(found, said)
        self.assertAlmostEqual(int(found.group(1)), 20e6, delta=error_of(20e6))


class Outputs(Heap):
    def test_which_is_which(self):
        """The next -o behind --heap is of memory; without one behind, the first. Others are of time."""
        self.leak("for i in range(300): sum(range(20000))")
        for words, memory in ((["--heap", "-o", "a.txt"], "a"), (["-o", "a.txt", "--heap"], "a"),
                              (["--heap", "-o", "a.txt", "-o", "b.txt"], "a"),
                              (["-o", "a.txt", "--heap", "-o", "b.txt"], "b"),
                              (["-o", "a.txt", "-o", "b.txt", "--heap"], "a")):
            with self.subTest(words):
                status, said, err = self.call([RUN, "-r", "1000", "--heap-rate", "64", *words, "leak.py"])
                self.assertEqual((status, said), (0, ""))
                names = [word[0] for word in words if word.endswith(".txt")]
                self.assertEqual(len(lines_of_ours(err.splitlines())), len(names), err)
                for name in names:
                    text = self.read(os.path.join(self.work, name + ".txt"))
                    self.assertEqual(self.sums(text)["hold_one"] > 29 * MIB, name == memory, name)
                    os.remove(os.path.join(self.work, name + ".txt"))

    def test_default_name(self):
        self.leak()
        self.assertEqual(self.heap("-q", "leak.py"), (0, "", ""))
        self.assertRegex(" ".join(os.listdir(self.work)), r"leak-\d{8}-\d{6}\.heap\.svg")

    def test_refused(self):
        self.leak()
        for words, said in ((["--heap", "--subprocesses"], "PYPROF_HEAP_OUTPUT=mem-%p.pb.gz"), (["--heap-rate", "64"], "needs --heap"),
                            (["--heap-native"], "--heap-native: it needs --heap"),
                            (["--metric", "inuse_space"], "needs --heap"),
                            (["--heap", "--heap-rate", "0"], "is not a number"),
                            (["--heap", "-o", "a.pstats"], "pstats shows times"),
                            (["--heap", "-o", "a.firefox.json"], "firefox shows"),
                            (["--heap", "--metric", "heap"], "'heap' is not wall")):
            status, out, err = self.call([RUN, *words, "leak.py"])
            self.assertEqual((status, out, err.count("\n")), (2, "", 2), err)
            self.assertIn(said, err)
        self.assertEqual(os.listdir(self.work), ["leak.py"])


class Ends(Heap):
    """What lives then, before Python clears its modules, is what is in the profile."""

    def test_ends(self):
        rows = [("pass", 0), ("sys.exit(3)", 3), ("raise ValueError", 1), ("import os; os._exit(4)", 4),
                ("import os; os.kill(os.getpid(), 15)", -15), ("import os; os.kill(os.getpid(), 9)", -9),
                ("import os; os.execv('/bin/true', ['true'])", 0), ("import ctypes; ctypes.string_at(1)", -11),
                ("import os; os.abort()", -6), ("import os; os.fork() and os.wait()", 0),
                ("import threading; threading.Thread(target=lambda: __import__('time').sleep(0.2)).start()", 0),
                ("import resource, os; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))", 0)]
        def check(row):
            code, wanted = row
            number = rows.index(row)
            script, out = self.file("leak%d.py" % number, LEAK + "    " + code + "\n"), self.path("%d.txt" % number)
            status, _, err = self.heap("-o", out, script)
            self.assertEqual(status, wanted, err)
            self.assertIn("; wrote " + out, err)
            self.assertSums(self.sums(self.read(out)))
        side_by_side(check, rows, 2)

    def test_what_exit_handlers_let_go(self):
        """Those are the program's own."""
        out = self.path("m.txt")
        script = self.leak("import atexit; atexit.register(kept.clear)")
        self.assertEqual(self.heap("-q", "-o", out, script), (0, "", ""))
        self.assertSums(self.sums(self.read(out)), dict.fromkeys(IN_USE, 0))

    def test_nothing_began(self):
        """A program that could not start leaves no file."""
        out = self.path("m.txt")
        self.file("broken.py", "this is no Python\n")
        status, _, err = self.heap("-o", out, "broken.py")
        self.assertEqual(status, 1)
        self.assertIn("nothing was written", err)
        self.assertFalse(os.path.exists(out))

    def test_duration(self):
        out = self.path("m.txt")
        script = self.leak("import time; time.sleep(1.5); kept.clear(); print('on')")
        status, _, err = self.heap("-o", out, "-d", "0.7", script)
        self.assertEqual(status, 0)
        self.assertIn("; the program goes on", err)
        self.assertSums(self.sums(self.read(out)))

    def test_signals_amid_samples(self):
        """Each allocation is a sample, so that nearly every signal comes while one is being taken: it ends the process all
        the same, at once and by itself, and the profile is there."""
        self.file("busy.py", """
            print('begun', flush=True)
            while True:
                [bytes(100) for i in range(100)]
        """)
        for number in range(8):
            out = self.path("%d.txt" % number)
            process = self.start([RUN, "--heap", "--heap-rate", "0.001", "-o", out, "--metric", "alloc_space", "busy.py"])
            process.stdout.readline()
            time.sleep(0.05 + number / 100)
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            _, err = process.communicate(timeout=60)
            self.assertLess(time.monotonic() - begun, 30)
            self.assertEqual(process.returncode, -signal.SIGTERM, err)
            self.assertTrue("<module> (busy.py" in self.read(out), err)


# 20,000,000 bytes in 2,000 blocks of malloc's, and 12 MiB in one; those of churn are freed. Twice as many are Python's.
NATIVE = """
    import ctypes
    libc = ctypes.PyDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    def by_c(size, count):
        return [libc.malloc(size) for i in range(count)]
    def hold_many():
        return by_c(10000, 2000)
    def hold_one():
        return by_c(12 << 20, 1)
    def churn():
        for block in by_c(20000, 1000):
            libc.free(block)
    def by_python():
        return [bytes(20000) for i in range(2000)]
    kept = hold_many(), hold_one(), churn(), by_python()
"""


class Native(Heap):
    def held(self, *arguments, **more):
        """Bytes in use of each function in collapsed text, and what was said."""
        out = self.path("n.txt")
        status, said, err = self.heap("-o", out, *arguments, self.file("native.py", NATIVE), **more)
        self.assertEqual((status, said), (0, ""), err)
        sums = dict.fromkeys(("hold_many", "hold_one", "churn", "by_python"), 0)
        for line in self.read(out).splitlines():
            stack, _, value = line.rpartition(" ")
            for name in sums:
                sums[name] += int(value) if ";%s (" % name in stack else 0
        return sums, err

    def assertHeld(self, sums, **truth):
        for name, size in truth.items():
            self.assertAlmostEqual(sums[name], size, delta=error_of(size), msg=name)

    def test_with_and_without(self):
        """What Python passes on to malloc counts once, either way."""
        sums, err = self.held()
        self.assertHeld(sums, hold_many=0, hold_one=0, churn=0, by_python=40e6)
        sums, err = self.held("--heap-native")
        self.assertHeld(sums, hold_many=20e6, hold_one=12 * MIB, churn=0, by_python=40e6)
        self.assertEqual(len(err.splitlines()), 1, err)

    def test_host(self):
        sums, _ = self.held("--heap-native", "--host", PYTHON)
        self.assertHeld(sums, hold_many=20e6, hold_one=12 * MIB, churn=0, by_python=40e6)

    def test_children_have_none_of_it(self):
        script = self.file("child.py", """
            import os, subprocess, sys
            code = "import os; print(os.environ.get('LD_PRELOAD'), 'libpyprof' in open('/proc/self/maps').read())"
            print(subprocess.check_output([sys.executable, '-c', code]).decode(), os.environ.get('LD_PRELOAD'))
        """)
        status, said, _ = self.heap("-q", "--heap-native", "-o", self.path("c.txt"), script)
        self.assertEqual((status, said), (0, "None False\n None\n"))

    def test_another_malloc(self):
        """A host with a malloc of its own: its blocks are not seen, which is told, and Python's are."""
        out, script = self.path("n.txt"), self.file("native.py", NATIVE)
        environment = dict(self.env, PYTHONHOME=os.environ["PYPROF_PYTHONHOME"])
        host = os.path.join(os.environ["PYPROF_BUILD"], "tests", "cli", "own_malloc")
        status, said, err = self.heap("-o", out, "--heap-native", "--host", host, script, env=environment)
        self.assertEqual((status, said), (0, ""), err)
        self.assertIn("warning: memory that C code allocates is not in it", err)
        self.assertRegex(self.read(out), r";by_python \(native\.py:\d+\)")


class Alike(Heap):
    def test_as_without(self):
        """Output, exit code, modules, exit handlers, threads and children are those of python3."""
        script = self.file("alike.py", """
            import sys
            print(sorted(sys.modules), sys.getallocatedblocks() > 0, len(sys.argv), sys.flags)
            import atexit, os, threading
            print(atexit._ncallbacks(), threading.active_count())
            print(sorted(k for k in os.environ if not k.startswith('_')))
            data = [bytearray(1000) for i in range(10000)]
            for item in data:
                item.extend(b'x' * 3000)
            if os.fork() == 0:
                data.clear()
                more = [bytes(5000) for i in range(1000)]
                print('child', len(more), flush=True)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.wait()[1]) if hasattr(os, 'waitstatus_to_exitcode') else os.wait() and 0)
            sys.exit(5)
        """)
        expected = self.call(["python3", script])
        real = self.call([RUN, "-q", "--heap", "--heap-rate", "1", "-o", self.path("m.txt"), script])
        self.assertEqual(real, expected)
        self.assertEqual(expected[0], 5, expected)

    def test_other_allocators(self):
        """CPython drops hooks where allocators are asked for."""
        for number, (words, variables) in enumerate((([], {"PYTHONMALLOC": "malloc"}), ([], {"PYTHONMALLOC": "debug"}),
                                                     (["--", "python3", "-X", "dev"], {}),
                                                     (["--", "python3", "-X", "tracemalloc"], {}))):
            out = self.path("%d.txt" % number)
            environment = dict(self.env, **variables)
            if self.call(["python3", *words[2:], "-c", ""], env=environment)[0] != 0:
                continue # a free-threaded one has no allocator but its own
            self.assertEqual(self.heap("-q", "-o", out, *words, self.leak(), env=environment), (0, "", ""))
            self.assertSums(self.sums(self.read(out)))

    def test_both_at_once(self):
        """Time has the shares that it has alone: the heap's stack is not a signal's."""
        self.file("both.py", """
            import time
            kept = []
            def hold():
                while len(kept) < 3000:
                    kept.append(bytearray(10000))
            def spin(seconds):
                end = time.process_time() + seconds
                while time.process_time() < end:
                    pass
            hold(); spin(0.4)
        """)
        words = ["-r", "500", "-o", "t.txt", "--heap", "--heap-rate", "64", "-o", "m.txt"]
        self.assertEqual(self.call([RUN, "-q", *words, "both.py"]), (0, "", ""))
        text = self.read(os.path.join(self.work, "t.txt"))
        spun = sum(int(line.rpartition(" ")[2]) for line in text.splitlines() if ";spin (" in line)
        self.assertGreater(spun, 300000, text)
        held = self.read(os.path.join(self.work, "m.txt"))
        sizes = [int(line.rpartition(" ")[2]) for line in held.splitlines() if ";hold (" in line]
        self.assertAlmostEqual(sum(sizes), 30e6, delta=error_of(30e6))

    def test_host(self):
        """A python is a host as any other."""
        out = self.path("m.txt")
        self.assertEqual(self.heap("-q", "-o", out, "--host", PYTHON, self.leak()), (0, "", ""))
        self.assertSums(self.sums(self.read(out)))


if __name__ == "__main__":
    unittest.main()
