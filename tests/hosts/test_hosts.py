"""Programs that embed CPython and that nobody here wrote, recorded by a plugin: their stacks and shares are right, and
they behave as without it. Each must have the CPython that this build is for."""

import concurrent.futures
import glob
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "common"))
import collapsed
import harness

PLUGIN = os.path.join(harness.BUILD, "tests", "hosts", "plugin.so")
RUNS = 3
SECONDS = 1.5
TOLERANCE = 3.0  # percentage points: the runs are short
CHAINS = {"calls": ("calls", "leaf"), "straight": ("straight",), "sorts": ("sorts",)}


class Host(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="pyprof-hosts-")
        self.addCleanup(shutil.rmtree, self.work)

    def need(self, program, command):
        """command: makes the host say its Python's version."""
        if not shutil.which(program):
            self.leave_out("no %s" % program)
        said = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        found = re.search(r"Python version: (\d+\.\d+)", said.stdout.decode(errors="replace"))
        wanted = "%d.%d" % harness.python_version()
        if not found or found.group(1) != wanted:
            self.leave_out("%s has CPython %s, this build is for %s" % (program, found and found.group(1), wanted))

    def leave_out(self, why):
        print("skipped: " + why, flush=True)
        self.skipTest(why)

    def check(self, path, above):
        """The profiles beside what is true of them; above: the frames above work(), the host's own. What else the machine
        does may spoil one run, a bias is in all."""
        errors = {name: [] for name in CHAINS}
        for run in range(RUNS):
            with open("%s.%d.json" % (path, run), encoding="utf-8") as file:
                said = json.load(file)
            self.assertEqual(said["result"], 0)
            with open("%s.%d" % (path, run), encoding="utf-8") as file:
                stacks = collapsed.parse(file.read())
            seen, took = self.seen(stacks, above), said["took"]
            for name in took:
                known = 100 * took[name] / sum(took.values())
                errors[name].append(100 * seen[name] / sum(seen.values()) - known)
            print({name: "%+.1f" % errors[name][-1] for name in took}, seen, flush=True)
        for name in errors:
            self.assertLess(abs(statistics.median(errors[name])), TOLERANCE, name)

    def seen(self, stacks, above):
        """{part of the work: its time}"""
        seen, unsettled = dict.fromkeys(CHAINS, 0), 0
        for stack in stacks:
            names = [frame.name for frame in stack.frames]
            if "work" not in names:
                continue
            at = names.index("work")
            self.assertEqual(names[:at], above, stack)
            if names[-1] == "[unsettled]":
                unsettled += stack.value
                names.pop()
            chain = tuple(names[at + 1:])
            if chain:
                self.assertIn(chain[0], CHAINS, stack)
                self.assertEqual(chain, CHAINS[chain[0]][:len(chain)], stack)
                seen[chain[0]] += stack.value
        self.assertLess(unsettled, 0.02 * sum(seen.values()))
        return seen


class Gdb(Host):
    def test_gdb(self):
        self.need("gdb", ["gdb", "-nx", "-batch", "-ex", "python print('Python version: ' + sys.version)"])
        path = os.path.join(self.work, "gdb.collapsed")
        script = os.path.join(self.work, "script.py")
        with open(script, "w", encoding="utf-8") as file:
            file.write("import sys\nsys.path.insert(0, %r)\nimport work\n"
                       "gdb.execute('break main')\ngdb.execute('run')\n"
                       "%%s\n"
                       "gdb.execute('print argc')\nfor i in range(50): gdb.execute('stepi', to_string=True)\n"
                       "gdb.execute('continue')\n" % HERE)
        with open(script, encoding="utf-8") as file:
            text = file.read()
        said = []
        for line in ("work.work(%r)" % SECONDS, "work.recorded(%r, %r, %r, %r)" % (PLUGIN, path, SECONDS, RUNS)):
            with open(script, "w", encoding="utf-8") as file:
                file.write(text % line)
            said.append(subprocess.run(["gdb", "-nx", "-batch", "-ex", "source " + script, "--args",
                                        os.path.join(harness.BUILD, "tests", "hosts", "debuggee")],
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300))
        plain, recorded = ((run.returncode, re.sub(rb"0x[0-9a-f]+|process \d+", b"#", run.stdout)) for run in said)
        self.assertEqual(plain, recorded)
        self.assertIn(b"exited with code 05", plain[1])
        self.check(path, ["<module>", "recorded"])


class Uwsgi(Host):
    """Its master forks the workers and does not tell CPython, unless it is asked to."""

    def test_uwsgi(self):
        self.need("uwsgi", ["uwsgi", "--plugin", "python3", "--need-app", "--module", "no.such", "--socket", "127.0.0.1:0"])
        for options in [], ["--enable-threads", "--py-call-osafterfork"]:
            with self.subTest(options):
                self.check(self.answer(options), ["application", "recorded"])

    def answer(self, options):
        """What the application answers: where the profiles are. Workers that end before one of them was asked do so without
        us."""
        work = tempfile.mkdtemp(dir=self.work)
        env = dict(os.environ, PYPROF_TEST_OUT=os.path.join(work, "uwsgi"), PYPROF_TEST_PLUGIN=PLUGIN,
                   PYPROF_TEST_SECONDS=str(SECONDS), PYPROF_TEST_RUNS=str(RUNS))
        log = os.path.join(work, "log")
        with open(log, "wb") as file:
            server = subprocess.Popen(["uwsgi", "--plugin", "python3", "--master", "--processes", "2", "--need-app",
                                       "--http-socket", "127.0.0.1:0", "--pythonpath", HERE, "--module", "app"] + options,
                                      stdout=file, stderr=file, env=env)
        try:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                answer = pool.submit(self.ask, self.address(server, log))
                while not answer.done():
                    if self.has_lost_workers(log) and not glob.glob(os.path.join(work, "uwsgi.*")):
                        self.end(server)
                        self.leave_out("uwsgi %s: its workers end before they are asked" % " ".join(options))
                    time.sleep(0.1)
                return answer.result()
        finally:
            self.end(server)

    def ask(self, address):
        with urllib.request.urlopen("http://%s/" % address, timeout=120) as answer:
            return answer.read().decode()

    def has_lost_workers(self, log):
        with open(log, encoding="utf-8", errors="replace") as file:
            return "died, killed by signal" in file.read()

    def end(self, server):
        server.send_signal(signal.SIGINT)
        server.wait(60)

    def address(self, server, log):
        while server.poll() is None:
            with open(log, encoding="utf-8", errors="replace") as file:
                text = file.read()
            found = re.search(r"bound to TCP address (\S+)", text)
            if found and "spawned uWSGI worker 2" in text:
                return found.group(1)
            time.sleep(0.05)
        self.fail(text)


if __name__ == "__main__":
    harness.main()
