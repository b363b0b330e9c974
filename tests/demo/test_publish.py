"""The demonstration works: its host profiles publish.py, and both files show the work that it did."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import collapsed

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
            stacks = collapsed.parse(file.read())
        self.assertLessEqual({stack.thread for stack in stacks}, THREADS)
        of_script = {(stack.thread, frame.name) for stack in stacks for frame in stack.frames if frame.file == "publish.py"}
        self.assertLessEqual({("documenter", "document"), ("indexer", "count_words")}, of_script)
        self.assertIn("packer", {thread for thread, _ in of_script})

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
