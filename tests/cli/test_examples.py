"""The examples run, say what they promise, and the files that they write hold what ran."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import collapsed

EXAMPLES = os.path.join(os.environ["PYPROF_BUILD"], "examples")
TIMEOUT = 120


class Examples(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="pyprof-examples-")
        self.addCleanup(shutil.rmtree, self.dir)

    def call(self, name, *arguments):
        program = os.path.join(EXAMPLES, name)
        if not os.path.exists(program):
            self.skipTest("%s was not built: no C++ compiler" % name)
        env = dict(os.environ, PYTHONHOME=os.environ["PYPROF_PYTHONHOME"])
        env.pop("PYTHONPATH", None)
        ended = subprocess.run([program, *arguments], cwd=self.dir, env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, timeout=TIMEOUT, universal_newlines=True)
        return ended.returncode, ended.stdout, ended.stderr

    def file(self, name, text):
        with open(os.path.join(self.dir, name), "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(text))

    def stacks(self, name):
        with open(os.path.join(self.dir, name), encoding="utf-8") as file:
            stacks = collapsed.parse(file.read())
        for stack in stacks:
            self.assertTrue(stack.frames and all(collapsed.names(stack)), stack)
        return stacks

    def speedscope(self, name):
        """The names of the profiles, and of the frames."""
        with open(os.path.join(self.dir, name), encoding="utf-8") as file:
            document = json.load(file)
        frames = {re.sub(r" \(.*", "", frame["name"]) for frame in document["shared"]["frames"]}
        return {profile["name"] for profile in document["profiles"]}, frames

    def share(self, stacks, function, thread):
        mine = [stack for stack in stacks if stack.thread == thread]
        return collapsed.within(mine, function) / (sum(stack.value for stack in mine) or 1)

    def test_minimal(self):
        code, out, err = self.call("01_minimal")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out, "33860 primes\nminimal.collapsed, minimal.speedscope.json: success\n")
        self.assertEqual(sorted(os.listdir(self.dir)), ["minimal.collapsed", "minimal.speedscope.json"])
        stacks = self.stacks("minimal.collapsed")
        self.assertGreater(self.share(stacks, "is_prime", "MainThread"), 0.8)
        names, frames = self.speedscope("minimal.speedscope.json")
        self.assertEqual(len(names), 1)
        self.assertLessEqual({"<module>", "primes", "is_prime"}, frames)

    def test_module(self):
        code, out, err = self.call("05_module")
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"^17984 primes\n\d+\.\d+ s, \d+ samples.*\n\n.*self s.*\n(.*\n){3}\.\.\. and")
        self.assertIn("is_prime", out)
        self.assertEqual(os.listdir(self.dir), ["module.svg"])
        self.file("script.py", "import pyprof, sys\nprint(sys.argv, __name__, pyprof.is_active())\nsys.exit(3)\n")
        self.assertEqual(self.call("05_module", "script.py", "-x"), (3, "['script.py', '-x'] __main__ False\n", ""))
        self.assertEqual(self.call("05_module", "nowhere.py"), (2, "", "nowhere.py: No such file or directory\n"))

    def test_threads(self):
        code, out, err = self.call("02_threads")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(sorted(os.listdir(self.dir)), ["threads.collapsed", "threads.speedscope.json"])
        self.assertRegex(out, r"^(\d+ samples \(\d+ idle\) of \d+ threads, \d+ different stacks, \d+ KiB\n){4}")
        samples = [int(number) for number in re.findall(r"(?m)^(\d+) samples", out)]
        self.assertEqual(samples, sorted(set(samples)), "the recording grows from look to look")
        self.assertIn('"clock"', out)
        self.assertIn("tell_time (<string>:12)", out)
        stacks = self.stacks("threads.collapsed")
        for thread, function in (("physics", "move_bodies"), ("audio", "mix_voices"), ("loader", "load_levels")):
            self.assertGreater(self.share(stacks, function, thread), 0.9, thread)
        # It sleeps; what is left is its waiting for the GIL and for a processor, longer on a busy machine.
        total = {name: sum(stack.value for stack in stacks if stack.thread == name) for name in ("clock", "loader")}
        self.assertLess(total["clock"] * 3, total["loader"])
        names, frames = self.speedscope("threads.speedscope.json")
        for thread in ("physics", "audio", "loader"):
            self.assertTrue([name for name in names if thread in name], names)
        self.assertLessEqual({"move_bodies", "mix_voices", "load_levels"}, frames)

    SCRIPT = """
        import sys, beside
        def spend(n):
            return sum(i * i for i in range(n))
        def main():
            print(sys.argv[1:], __file__, beside.here)
            for i in range(30): spend(60000)
        main()
        """

    def test_host(self):
        self.file("beside.py", "here = True\n")
        self.file("script.py", self.SCRIPT)
        code, out, err = self.call("03_host", "script.py", "-x", "two words")
        self.assertEqual((code, err), (0, ""))
        lines = out.splitlines()
        self.assertEqual(lines[0], "['-x', 'two words'] script.py True")
        self.assertEqual(lines[-1], "wrote host.speedscope.json")
        self.assertRegex(lines[1], r"^ *\d+\.\d ms +\d+\.\d %  .*<genexpr> \(script\.py:4\)$")
        _, frames = self.speedscope("host.speedscope.json")
        self.assertLessEqual({"main", "spend"}, frames)

    def test_host_of_scripts_that_end_early(self):
        self.file("beside.py", "here = True\n")
        for end, expected in (("sys.exit(5)", 0), ("1 / 0", 1), ("a = = b", 1)):
            with self.subTest(end):
                self.file("script.py", textwrap.dedent(self.SCRIPT) + end + "\n")
                code, out, err = self.call("03_host", "script.py")
                self.assertEqual(code, expected)
                self.assertIn("wrote host.speedscope.json", out)
                self.assertEqual(bool(err), bool(expected))

    def test_host_without_a_script(self):
        self.assertEqual(self.call("03_host"), (2, "", "usage: host SCRIPT [ARGS...]\n"))
        self.assertEqual(self.call("03_host", "missing.py"), (2, "", "cannot read the script\n"))
        self.assertEqual(os.listdir(self.dir), [])


if __name__ == "__main__":
    unittest.main()
