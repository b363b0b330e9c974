"""mypy and pyright accept, as strict as they get, a program that uses all of the package, and complain of what is wrong;
mypy's stubtest finds each name of the package in its types, and the other way round. mypy is pinned in requirements.txt and
installed into a cache; pyright is npm's, where tests/browser/run.py looks for packages."""
import hashlib
import json
import os
import re
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "pythons"))
from debian import cache

PACKAGE = os.path.join(os.environ["PYPROF_BUILD"], "tools", "python")
PYRIGHT = os.path.join(os.environ["PYPROF_BUILD"], "node_modules", "pyright", "index.js")
PYTHON = os.environ["PYPROF_PYTHON"]


def run(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, **more)
    return done.returncode, done.stdout


def cannot(why):
    print("skipped: " + why, flush=True)
    if os.environ.get("CI") == "true":
        raise AssertionError(why)
    raise unittest.SkipTest(why)


def tools():
    """The python of a virtual environment with mypy, made once."""
    with open(os.path.join(HERE, "requirements.txt"), "rb") as file:
        key = hashlib.sha256(file.read() + sys.version.encode()).hexdigest()[:12]
    folder = os.path.join(cache(), "types-venv-" + key)
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(os.path.join(folder, "complete")):
        for command in ([sys.executable, "-m", "venv", "--clear", folder],
                        [python, "-m", "pip", "install", "-q", "-r", os.path.join(HERE, "requirements.txt")]):
            code, text = run(*command)
            if code != 0:
                cannot("mypy cannot be installed: " + text.strip().splitlines()[-1])
        open(os.path.join(folder, "complete"), "w").close()
    return python


def wrong_lines():
    with open(os.path.join(HERE, "wrong.py"), encoding="utf-8") as file:
        return {number for number, line in enumerate(file, 1) if line.rstrip().endswith("# wrong")}


class Mypy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.python = tools()

    def mypy(self, name):
        return run(self.python, "-m", "mypy", "--strict", "--cache-dir", os.devnull, os.path.join(HERE, name),
                   env=dict(os.environ, MYPYPATH=PACKAGE))

    def test_uses(self):
        code, text = self.mypy("uses.py")
        self.assertEqual(code, 0, text)

    def test_wrong(self):
        _, text = self.mypy("wrong.py")
        self.assertEqual({int(line) for line in re.findall(r"wrong\.py:(\d+): error", text)}, wrong_lines(), text)

    def test_names_are_those_of_the_package(self):
        """stubtest imports the package: that takes the python for which it was built."""
        version = "import sys; print(sys.version_info[:2], hasattr(sys, 'gettotalrefcount'))"
        if run(self.python, "-c", version) != run(PYTHON, "-c", version):
            self.skipTest("the package is built for another python")
        code, text = run(self.python, "-m", "mypy.stubtest", "pyprof", "--ignore-missing-stub",
                         env=dict(os.environ, PYTHONPATH=PACKAGE, MYPYPATH=PACKAGE), cwd=PACKAGE)
        self.assertEqual(code, 0, text)


class Pyright(unittest.TestCase):
    def pyright(self, name):
        if not os.path.exists(PYRIGHT):
            cannot("pyright is not installed in the build directory (npm ci)")
        import tempfile
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "pyrightconfig.json"), "w", encoding="utf-8") as file:
                json.dump({"include": [os.path.relpath(os.path.join(HERE, name), folder)], "typeCheckingMode": "strict",
                           "extraPaths": [PACKAGE], "reportUnusedExpression": False}, file)
            code, text = run("node", PYRIGHT, "--project", folder, "--outputjson")
        self.assertTrue(text.lstrip().startswith("{"), text)
        return [(found["range"]["start"]["line"] + 1, found["message"]) for found in json.loads(text)["generalDiagnostics"]]

    def test_uses(self):
        self.assertEqual(self.pyright("uses.py"), [])

    def test_wrong(self):
        found = self.pyright("wrong.py")
        self.assertEqual({line for line, _ in found}, wrong_lines(), found)


if __name__ == "__main__":
    unittest.main(verbosity=2)
