"""The table of contents in the header's top comment names the parts that the header has, in their order; none of them
is too long, and each has unit tests; and what tools/embed.py writes into headers is there as its files have it."""
import glob
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.join(os.environ["PYPROF_SOURCE"], "tools"))
import embed

HEADER = os.path.join(os.environ["PYPROF_SOURCE"], "pyprof.h")


def listed(text):
    """The names in the top comment, each in a line of its own such as: >>api  public API"""
    return re.findall(r"^[ *]*>>(\w+)\s+\S", text[:text.index("*/")], re.MULTILINE)


def tagged(text):
    return re.findall(r"^// >>(\w+)", text[text.index("*/"):], re.MULTILINE)


def rooms(text):
    """Each part's name, and what is in it."""
    parts = re.split(r"^// >>(\w+)\n", text[text.index("*/"):], flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2]))


class Contents(unittest.TestCase):
    def test_lists_what_there_is(self):
        with open(HEADER, encoding="utf-8") as file:
            text = file.read()
        self.assertIn("api", tagged(text))
        self.assertEqual(len(set(tagged(text))), len(tagged(text)), "a tag is there twice")
        self.assertEqual(tagged(text), listed(text))

    def test_rooms_have_a_size(self):
        """No part but the public declarations is longer than 700 lines."""
        with open(HEADER, encoding="utf-8") as file:
            text = file.read()
        sizes = {name: body.count("\n") for name, body in rooms(text)}
        self.assertEqual({name: size for name, size in sizes.items() if size > 700 and name != "api"}, {})

    def test_each_part_has_its_tests(self):
        """A file of unit tests begins with the tags of the parts that it is about, so that they are found. A part that has
        no functions, but figures, needs none."""
        tests = ""
        for path in glob.glob(os.path.join(os.environ["PYPROF_SOURCE"], "tests", "unit", "test_*.c")):
            with open(path, encoding="utf-8") as file:
                tests += re.match(r"/\* (.*?)\*/", file.read(), re.DOTALL).group(1)
        with open(HEADER, encoding="utf-8") as file:
            parts = {name for name, body in rooms(file.read()) if re.search(r"^[^ ].*\) \{$", body, re.MULTILINE)}
        self.assertEqual(parts, set(re.findall(r">>(\w+)", tests)))

    def test_embedded(self):
        for header in embed.HEADERS:
            with self.subTest(header=header):
                self.assertEqual(embed.read(header), embed.embedded(header), "run tools/embed.py")


if __name__ == "__main__":
    unittest.main()
