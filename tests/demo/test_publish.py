"""The demonstration works: its host profiles publish.py, and both files show the work that it did."""
import json
import os
import subprocess
import tempfile
import unittest

BUILD = os.environ["PYPROF_BUILD"]
HOST = os.path.join(BUILD, "tests/demo/publish_host")
SVG = os.path.join(BUILD, "tools/pyprof-svg")
SCRIPT = os.path.join(os.environ["PYPROF_SOURCE"], "tests/demo/publish.py")
THREADS = {"MainThread", "documenter", "indexer", "compiler", "packer"}


class Publish(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.out = os.path.join(cls.directory.name, "publish")
        home = dict(os.environ, PYTHONHOME=os.environ["PYPROF_PYTHONHOME"])
        archive = os.path.join(cls.directory.name, "library.zip")
        subprocess.run([HOST, cls.out, SCRIPT, archive, "30"], env=home, check=True)

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def test_collapsed_shows_each_stage(self):
        with open(self.out + ".collapsed", encoding="utf-8") as file:
            stacks = [line.rpartition(" ")[0].split(";") for line in file]
        self.assertLessEqual({stack[0][len("thread "):] for stack in stacks}, THREADS)
        self.assert_stage(stacks, "documenter", "document (publish.py:")
        self.assert_stage(stacks, "indexer", "count_words (publish.py:")
        self.assert_stage(stacks, "packer", "publish.py:")

    def assert_stage(self, stacks, thread, frame):
        found = [stack for stack in stacks
                 if stack[0] == "thread " + thread and any(frame in name for name in stack)]
        self.assertTrue(found, "no stack of %s has a frame with %s" % (thread, frame))

    def test_speedscope_has_the_threads(self):
        with open(self.out + ".speedscope.json", encoding="utf-8") as file:
            profiles = json.load(file)["profiles"]
        self.assertLessEqual({"documenter", "indexer", "packer"}, {name_of(profile) for profile in profiles})

    def test_flame_graph_is_drawn(self):
        subprocess.run([SVG, self.out + ".collapsed", self.out + ".svg"], check=True)
        with open(self.out + ".svg", encoding="utf-8") as file:
            self.assertIn("count_words", file.read())


def name_of(profile):
    """The thread's name; speedscope's profile name may say more behind it."""
    name = profile["name"]
    name = name[len("thread "):] if name.startswith("thread ") else name
    return name.split(" ")[0]


if __name__ == "__main__":
    unittest.main()
