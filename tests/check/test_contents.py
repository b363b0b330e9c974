"""The table of contents in the header's top comment names the parts that the header has, in their order."""
import os
import re
import unittest

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


if __name__ == "__main__":
    unittest.main()
