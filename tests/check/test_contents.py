"""The table of contents in the header's top comment names the parts that the header has, in their order, and
none of them is too long; and the picture's script and style are in flamegraph.h as their files have them."""
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
        rooms = re.split(r"^// >>(\w+)\n", text[text.index("*/"):], flags=re.MULTILINE)
        sizes = {name: body.count("\n") for name, body in zip(rooms[1::2], rooms[2::2])}
        self.assertEqual({name: size for name, size in sizes.items() if size > 700 and name != "api"}, {})

    def test_picture(self):
        self.assertEqual(embed.read(embed.HEADER), embed.embedded(), "run tools/embed.py")


if __name__ == "__main__":
    unittest.main()
