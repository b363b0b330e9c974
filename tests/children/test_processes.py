"""pyprof-run --subprocesses: which processes are in the profile, whatever way they end, and what is said of those that are
not. The programs do what they do without it."""

import os
import signal
import time
import unittest

from family import Family, IS_SANITIZED, lines_of_ours, RUN, wait_until

FORK = """
def fork(function, *arguments):
    pid = os.fork()
    if not pid:
        function(*arguments)
        os._exit(0)
    return pid
"""


class Processes(Family):
    def run_program(self, text, *arguments, **more):
        self.program("work.py", FORK + text)
        return self.followed("work.py", *arguments, **more)

    def functions(self):
        """Of all processes: the known functions."""
        return sorted(name for functions in self.processes().values() for name in functions if name.startswith("in_"))

    def said(self, err):
        return "\n".join(lines_of_ours(err.splitlines()))

    def test_names(self):
        self.file("other.py", "import time\nend = time.thread_time() + 0.1\nwhile time.thread_time() < end: pass\n")
        lines, err = self.run_program("""
            import subprocess
            pids = []
            for words in (["other.py"], ["-c", "sum(range(10**6))"], ["-m", "other"]):
                child = subprocess.Popen([sys.executable, *words])
                pids.append(child.pid)
                child.wait()
            pids.append(fork(burn, "in_fork", 0.1))
            os.waitpid(pids[-1], 0)
            print(os.getpid(), *pids)
            """.replace("\n            ", "\n"))
        pids = [int(pid) for pid in lines[-1].split()]
        names = dict(self.processes())
        self.assertEqual({pid: name for pid, name in names},
                         dict(zip(pids, ("work.py", "other.py", "-c", "other", "work.py"))))
        self.assertIn("; 4 child processes were recorded, too", self.said(err))

    def test_an_alone_process_looks_as_without(self):
        self.program("work.py", "burn('in_it', 0.1)")
        self.followed("work.py")
        self.assertNotIn("process ", self.read())
        self.assertRegex(self.read(), "(?m)^thread MainThread;")

    def test_without_it_children_are_not_recorded(self):
        self.program("work.py", FORK + "os.waitpid(fork(burn, 'in_child', 0.1), 0); burn('in_parent', 0.1)")
        self.assertEqual(self.profiled("work.py")[0], 0)
        self.assertNotIn("in_child", self.read())
        self.assertNotIn("process ", self.read())

    def test_ends(self):
        """However a child ends that lets code run: its work is there, and its parent sees the same end."""
        _, err = self.run_program("""
import signal
def end(name, how):
    burn("in_" + name, 0.1)
    how()
ways = {"exit": lambda: os._exit(3), "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
        "segv": lambda: os.kill(os.getpid(), signal.SIGSEGV), "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "abort": os.abort, "system_exit": sys.exit}
ends = {}
for name, how in ways.items():
    try:
        pid = fork(end, name, how)
    except SystemExit:
        os._exit(0)
    ends[name] = os.waitpid(pid, 0)[1]
print(ends)
assert ends == {"exit": 3 << 8, "term": 15, "segv": 11, "kill": 9, "abort": 6, "system_exit": 0}, ends
""")
        self.assertEqual(self.functions(), ["in_abort", "in_exit", "in_kill", "in_segv", "in_system_exit", "in_term"])
        self.assertIn("; 6 child processes were recorded, too", self.said(err))

    def test_a_killed_child_loses_only_itself(self):
        lines, err = self.run_program("""
import signal
begun, begins = os.pipe()
def child():
    os.write(begins, b".")
    time.sleep(600)
pid = fork(child)
os.read(begun, 1)
other = fork(burn, "in_other", 0.1)
os.waitpid(other, 0)
os.kill(pid, signal.SIGKILL)
print(pid, os.waitpid(pid, 0)[1])
burn("in_parent", 0.1)
""")
        pid = [line for line in lines if not line.startswith("[")][0].split()[0]
        self.assertEqual(self.functions(), ["in_other", "in_parent"])
        self.assertRegex(self.said(err), r"pyprof-run: process %s \(work\.py\) (was killed by SIGKILL|ended in a way that lets "
                                         r"nothing be handed over \(SIGKILL, say\)): not recorded\n" % pid)
        self.assertIn("; 1 child process was recorded, too; 1 child process was not recorded", self.said(err))

    def test_exec(self):
        """Of the same python: one process, before and after; of another program: up to then."""
        self.program("next.py", "burn('in_next', 0.1)")
        lines, err = self.run_program("""
def same():
    burn("in_same", 0.1)
    os.execv(sys.executable, [sys.executable, "next.py"])
def other():
    burn("in_other", 0.1)
    os.execv("/bin/true", ["true"])
def fails():
    burn("in_failing", 0.1)
    try:
        os.execv("/nowhere/at/all", ["all"])
    except OSError:
        burn("in_failed", 0.1)
pids = [fork(function) for function in (same, other, fails)]
print(*pids, [os.waitpid(pid, 0)[1] for pid in pids])
""")
        same = int([line for line in lines if not line.startswith("[")][0].split()[0])
        self.assertEqual(self.functions(), ["in_failed", "in_failing", "in_next", "in_other", "in_same"])
        of_same = {name: sorted(set(functions) & {"in_same", "in_next"})
                   for (pid, name), functions in self.processes().items() if pid == same}
        self.assertEqual(of_same, {"work.py": ["in_same"], "next.py": ["in_next"]})
        self.assertIn("; 1 child process was true, and not recorded", self.said(err))

    def test_the_program_executes_itself(self):
        self.program("next.py", "burn('in_next', 0.1)")
        _, err = self.run_program("""
os.waitpid(fork(burn, "in_child", 0.1), 0)
burn("in_first", 0.1)
os.execv(sys.executable, [sys.executable, "next.py"])
""")
        self.assertEqual(self.functions(), ["in_child", "in_first", "in_next"])
        self.assertIn("; 1 child process was recorded, too", self.said(err))

    def test_other_programs_are_counted(self):
        _, err = self.run_program("""
import subprocess
subprocess.run(["true"], check=True)
subprocess.run("true; true", shell=True, check=True)
assert os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)[1] == 0
burn("in_parent", 0.1)
""")
        self.assertRegex(self.said(err), "; 3 child processes were (true|sh) and others, and not recorded")
        self.assertNotIn("process ", self.read())

    def test_a_daemon_keeps_nobody_waiting(self):
        """A child that lives on is in the profile up to the program's end, goes on, and holds nothing open."""
        started = time.monotonic()
        lines, err = self.run_program("""
begun, begins = os.pipe()
if os.fork() == 0:
    os.setsid()
    burn("in_daemon", 0.1)
    os.write(begins, b".")
    if sys.argv[1] == "closes":
        os.closerange(0, 5000)
    for descriptor in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    time.sleep(%d)
    os._exit(0)
os.read(begun, 1)
burn("in_parent", 0.1)
""" % 600, "keeps")
        self.assertLess(time.monotonic() - started, 300)
        self.assertEqual(self.functions(), ["in_daemon", "in_parent"])
        daemon = [pid for (pid, _), functions in self.processes().items() if "in_daemon" in functions][0]
        self.addCleanup(os.kill, daemon, signal.SIGKILL)
        self.assertIn("; 1 of them went on after the program's end", self.said(err))
        wait_until(lambda: len(os.listdir("/proc/%d/task" % daemon)) == 1)  # no thread of ours is left
        self.assertEqual([name for name in os.listdir("/proc/%d/fd" % daemon)
                          if "socket" in os.readlink("/proc/%d/fd/%s" % (daemon, name))], [])

    def test_the_program_is_killed(self):
        self.program("work.py", FORK + """
import subprocess
os.waitpid(fork(burn, "in_child", 0.1), 0)
subprocess.run("kill -9 $PPID", shell=True)
""")
        code, _, err = self.call([RUN, "--subprocesses", "-F", "--metric", "cpu", "-r", "1000", "-o", self.out, "work.py"])
        self.assertEqual(code, -9)
        wait_until(lambda: os.path.exists(self.out))
        self.assertEqual(self.functions(), ["in_child"])
        self.assertIn("the recording is lost", self.said(err))

    @unittest.skipIf(IS_SANITIZED, "a child that has lost its variables has lost those that tell the sanitizer what not to do")
    def test_nobody_notices(self):
        """Environment, descriptors, threads, output and result of children are what they are without us."""
        self.file("look.py", """
            import os, signal, sys, threading
            def look(*more):
                files = [name for name in sorted(os.listdir("/proc/self/fd")) if int(name) < 900]  # ours lies higher
                print(sorted(os.environ.items()), files, threading.active_count(), sys.argv, sys.flags, *more,
                      [signal.getsignal(number) for number in (2, 11, 15, 23)], flush=True)
            """)
        self.file("work.py", """
            import os, subprocess, sys
            from look import look
            if len(sys.argv) > 1:
                look()
                sys.exit("no")
            for env in (None, {}, {"A": "b", "LD_PRELOAD": ""}, dict(os.environ, C="d")):
                for close in (True, False):
                    child = subprocess.run([sys.executable, "-S", "work.py", "x"], env=env, close_fds=close,
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                    print(child.args, child.returncode, child.stdout, child.stderr, flush=True)
            for code in (0, 5):
                pid = os.fork()
                if not pid:
                    look(code)
                    os._exit(code)
                print(os.waitpid(pid, 0)[1], flush=True)
            """)
        plain = self.call(["python3", "work.py"])
        self.assertEqual(plain, self.call([RUN, "-q", "--subprocesses", "-o", self.out, "work.py"]))
        self.assertNoLitter()

    def test_many_short_children(self):
        """More than there are shown apart: one root, and no descriptor or process is left."""
        lines, err = self.run_program("""
import subprocess
for i in range(40):
    subprocess.run([sys.executable, "-S", "-E", "-c", "sum(range(3000000))"], check=True)
burn("in_parent", 0.1)
""")
        self.assertIn("; 40 child processes were recorded, too", self.said(err))
        self.assertEqual(sorted(name for _, name in self.processes()), ["-c", "work.py"])
        self.assertIn((0, "-c"), self.processes())

    def test_py_spys_habit(self):
        self.program("work.py", FORK + "os.waitpid(fork(burn, 'in_child', 0.1), 0); burn('in_parent', 0.1)")
        for words in (["-s"], ["-sF"], ["--subprocesses"]):
            with self.subTest(words):
                code, _, err = self.call([RUN, "record", *words, "-r", "1000", "-o", self.out, "--", "python3", "work.py"])
                self.assertEqual(code, 0, err)
                self.assertEqual(self.functions(), ["in_child", "in_parent"])

    def test_quiet(self):
        self.program("work.py", FORK + "import signal; pid = fork(time.sleep, 600); os.kill(pid, 9); os.waitpid(pid, 0)")
        code, _, err = self.call([RUN, "-q", "--subprocesses", "-o", self.out, "work.py"])
        self.assertEqual((code, err), (0, ""))


if __name__ == "__main__":
    unittest.main()
