"""Programs of the system's packages that embed its CPython, recorded as they are: gdb and vim by pyprof-run --host and by the
preload, a backend of PostgreSQL by the preload. Known work has its share, and all else is as without it."""

import contextlib
import glob
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "common"), os.path.join(HERE, "..", "hosts")]
import harness
import test_hosts

LIBRARY = os.path.join(harness.BUILD, "tools", "libpyprof-%d.%d.so" % harness.python_version())
RUN = os.path.join(harness.BUILD, "tools", "pyprof-run")
WORK = os.path.dirname(os.path.abspath(test_hosts.__file__))
PLPYTHON = sorted(glob.glob("/usr/lib/postgresql/*/lib/plpython3.so")) # Debian's and Ubuntu's

SCRIPT = """
import json, sys
sys.path.insert(0, %r)
import work
took = work.work(%r)
with open(%r, "w") as file:
    json.dump({"result": 0, "took": took}, file)
print("worked")
"""


class Unmodified(test_hosts.Host):
    def write_script(self, truth):
        path = os.path.join(self.work, "script.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(SCRIPT % (WORK, test_hosts.SECONDS, truth))
        return path

    def call(self, command, **more):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
                              env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **more), universal_newlines=True)
        return done.returncode, done.stdout, done.stderr

    def hold(self, command, above):
        """command(script): how the host runs it."""
        path = os.path.join(self.work, "host.collapsed")
        plain = self.call(command(self.write_script("/dev/null")))
        for how in "by pyprof-run", "preloaded":
            for run in range(test_hosts.RUNS):
                out = "%s.%d" % (path, run)
                words = command(self.write_script(out + ".json"))
                if how == "preloaded":
                    said = self.call(words, LD_PRELOAD=LIBRARY, PYPROF_OUTPUT=out + ".txt", PYPROF_RATE="1000")
                    os.rename(out + ".txt", out)
                else:
                    said = self.call([RUN, "-q", "-r", "1000", "-f", "collapsed", "-o", out + ".txt", "--host"] + words)
                    os.rename(out + ".txt", out)
                self.assertEqual(said, plain, how)
            with self.subTest(how):
                self.check(path, above)


class Gdb(Unmodified):
    def test_gdb(self):
        self.need("gdb", ["gdb", "-nx", "-batch", "-ex", "python print('Python version: ' + sys.version)"])
        self.hold(lambda script: ["gdb", "-nx", "-batch", "-x", script, "-ex", "quit 7"], ["<module>"])


class Vim(Unmodified):
    SAY = "py3 import os, sys; os.write(1, b'Python version: ' + sys.version.encode())"

    def test_vim(self):
        self.need("vim.nox", ["vim.nox", "-u", "NONE", "-es", "-c", self.SAY, "-c", "q"])
        self.hold(lambda script: ["vim.nox", "-u", "NONE", "-es", "-c", "py3file " + script, "-c", "cquit 7"],
                  ["<module>", "<module>"])


    def test_a_deadly_signal(self):
        """vim sets the default action by System V's sigset, and raises the signal again."""
        self.need("vim.nox", ["vim.nox", "-u", "NONE", "-es", "-c", self.SAY, "-c", "q"])
        script = self.write_script("/dev/null")
        with open(script, "a", encoding="utf-8") as file:
            file.write("import os\nos.kill(os.getpid(), 15)\n")
        command = ["vim.nox", "-u", "NONE", "-es", "-c", "py3file " + script, "-c", "q"]
        out = os.path.join(self.work, "out.txt")
        plain = self.call(command)
        self.assertEqual(plain[0], -15)
        self.assertEqual(self.call(command, LD_PRELOAD=LIBRARY, PYPROF_OUTPUT=out), plain)
        with open(out, encoding="utf-8") as file:
            self.assertIn(";work (", file.read())


class PlPython(Unmodified):
    """The server is not linked with libpython: a backend loads it, for its first function in Python. It writes what it does
    in the place of its name, and leaves the folder that it was started in."""

    FUNCTION = """
        create extension plpython3u;
        create function work(seconds float8) returns text language plpython3u as $$
        import json, sys
        sys.path.insert(0, '%s')
        import work
        return json.dumps(work.work(seconds))
        $$;"""

    def setUp(self):
        super().setUp()
        if not PLPYTHON:
            self.leave_out("no PL/Python")
        self.programs = os.path.join(os.path.dirname(PLPYTHON[-1]), "..", "bin")
        wanted = "libpython%d.%d.so" % harness.python_version()
        if wanted not in subprocess.check_output(["ldd", PLPYTHON[-1]], universal_newlines=True):
            self.leave_out("PL/Python does not need " + wanted)
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        shutil.copy(os.path.join(WORK, "work.py"), self.work) # that user may not see the repository
        shutil.copy(LIBRARY, self.work)
        os.chmod(self.work, 0o777)
        self.sql("initdb", "-D", "data", "-A", "trust", "-U", "postgres", "-N")

    def sql(self, program, *arguments, stdin=None, **more):
        words = [os.path.join(self.programs, program)] + list(arguments)
        if os.geteuid() == 0:
            words = ["runuser", "-u", self.user, "--"] + words
        done = subprocess.run(words, cwd=self.work, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
                              env=dict(os.environ, LC_ALL="C", **more), universal_newlines=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def server(self, **more):
        log = os.path.join(self.work, "log")
        self.sql("pg_ctl", "-D", "data", "-l", log, "-w", "-o", "-c listen_addresses= -k " + self.work, "start", **more)
        try:
            yield
        finally:
            self.sql("pg_ctl", "-D", "data", "-w", "-m", "fast", "stop")
        with open(log, encoding="utf-8") as file:
            self.assertEqual([line for line in file if "LOG:" not in line], [])

    def ask(self, text):
        return self.sql("psql", "-h", self.work, "-U", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1", stdin=text)

    def test_backend(self):
        path = os.path.join(self.work, "sql.collapsed")
        preloaded = {"LD_PRELOAD": os.path.join(self.work, os.path.basename(LIBRARY)), "PYPROF_RATE": "1000",
                     "PYPROF_OUTPUT": "%n-%p.collapsed", "PYPROF_ONLY": "postgres"}
        with self.server(**preloaded):
            self.ask(self.FUNCTION % self.work)
            os.unlink(self.wait_for_profile()) # the backend that compiled it
            for run in range(test_hosts.RUNS):
                took = json.loads(self.ask("select work(%g);" % test_hosts.SECONDS))
                with open("%s.%d.json" % (path, run), "w", encoding="utf-8") as file:
                    json.dump({"result": 0, "took": took}, file)
                os.rename(self.wait_for_profile(), "%s.%d" % (path, run))
        left = [name for name in os.listdir(self.work) if name.startswith("postgres-")]
        self.assertEqual(left, []) # its other processes have no Python
        with open(path + ".0", encoding="utf-8") as file:
            [name] = set(re.findall(r";(__plpython_procedure_work_\d+) \(", file.read()))
        self.check(path, ["<module>", name])

    def wait_for_profile(self):
        """psql ends before its backend does."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for name in os.listdir(self.work):
                if re.fullmatch(r"postgres-\d+\.collapsed", name):
                    return os.path.join(self.work, name)
            time.sleep(0.05)
        self.fail(os.listdir(self.work))


if __name__ == "__main__":
    harness.main()
