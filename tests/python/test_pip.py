"""`pip install ./tools/python`, as README says it, into virtual environments of the machine's CPythons; and from the source
distribution, with nothing of the repository around it."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.environ["PYPROF_SOURCE"]
PROJECT = os.path.join(SOURCE, "tools", "python")

PROGRAM = """
import pickle, pyprof
def busy():
    return sum(i * i for i in range(1000))
def count():
    return sum(row.samples for row in pyprof.snapshot().functions() if row.name == "busy")
with pyprof.Profiler(rate_hz=1000) as p:
    while count() < 5:
        busy()
assert pickle.loads(pickle.dumps(p.profile)).to_collapsed() == p.profile.to_collapsed()
p.profile.save("a.svg"); p.profile.save("a.pstats")
"""


def pythons():
    """The machine's own, the oldest and the newest of pyenv's."""
    yield sys.executable if sys.prefix == sys.base_prefix else os.path.join(sys.base_prefix, "bin", "python3")
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    for version in ("3.8", "3.13"):
        yield from glob.glob(os.path.join(root, "versions", version + ".*", "bin", "python3"))[:1]


class Pip(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="pyprof-pip-")
        self.addCleanup(shutil.rmtree, self.folder)
        # At -O0 it takes a third of the time: the build is not what is tested here.
        self.env = {name: value for name, value in os.environ.items()
                    if not name.startswith(("PYTHON", "PYPROF", "CFLAGS", "LDFLAGS"))}
        self.env["CFLAGS"] = "-O0"

    def run_in(self, folder, *command):
        done = subprocess.run(command, cwd=folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True, timeout=900)
        return done.returncode, done.stdout

    def call(self, *command):
        code, text = self.run_in(self.folder, *command)
        self.assertEqual(code, 0, text)
        return text

    def make_environment(self, python, name):
        """The python of a new one; what cannot be had of the network is said."""
        venv = os.path.join(self.folder, name)
        code, text = self.run_in(self.folder, python, "-m", "venv", venv)
        if code != 0:
            self.cannot("%s makes no virtual environment: %s" % (python, text.strip().splitlines()[-1]))
        inside = os.path.join(venv, "bin", "python")
        code, text = self.run_in(self.folder, inside, "-m", "pip", "download", "-q", "--no-deps", "-d", "downloads", "meson-python")
        if code != 0:
            self.cannot("pip gets nothing: " + text.strip().splitlines()[-1])
        return inside

    def cannot(self, why):
        print("skipped: " + why, flush=True)
        if os.environ.get("CI") == "true":
            self.fail(why)
        self.skipTest(why)

    def check_package(self, python):
        self.call(python, "-c", PROGRAM)
        with open(os.path.join(self.folder, "s.py"), "w", encoding="utf-8") as file:
            file.write("import pyprof\nprint(pyprof.is_active())\n")
        self.assertIn("True", self.call(python, "-m", "pyprof", "record", "-o", "b.txt", "s.py"))
        self.assertIn("3.", self.call(python, "-m", "pyprof", "--version"))
        files = self.call(python, "-m", "pip", "show", "-f", "pyprof")
        for name in ("__init__.py", "__init__.pyi", "__main__.py", "heap.py", "heap.pyi", "py.typed", "_engine."):
            self.assertIn("pyprof/" + name, files)

    def test_install(self):
        for number, base in enumerate(pythons()):
            with self.subTest(python=base):
                python = self.make_environment(base, "venv%d" % number)
                self.call(python, "-m", "pip", "install", "-q", PROJECT)
                self.check_package(python)

    def test_source_distribution(self):
        """From the repository as git has it; the archive is then built by itself."""
        python = self.make_environment(next(pythons()), "venv")
        self.call(python, "-m", "pip", "install", "-q", "build")
        copy = os.path.join(self.folder, "repository")
        if self.run_in(self.folder, "git", "-c", "safe.directory=*", "clone", "-q", SOURCE, copy)[0] != 0:
            self.cannot("this is no git repository")
        self.call(python, "-m", "build", "-q", "--sdist", "-o", self.folder, os.path.join(copy, "tools", "python"))
        shutil.rmtree(copy)
        archive, = glob.glob(os.path.join(self.folder, "pyprof-0.1.tar.gz"))
        self.call(python, "-m", "pip", "install", "-q", archive)
        self.check_package(python)


if __name__ == "__main__":
    unittest.main(verbosity=2)
