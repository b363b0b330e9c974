"""Each sentence in the tables of tests/README.md is one that README.md or the header says; and each sentence of the
README's promises and of the manual's chapters on what it does is in a table, with tests that are there.

A sentence is looked for as text: line breaks, list marks and bold do not count. What holds it is "file" or
"file: test, test", several with ";" between, in the folder tests; or "not tested: why".
"""
import os
import re
import unittest

SOURCE = os.environ["PYPROF_SOURCE"]
TESTS = os.path.join(SOURCE, "tests")
# From the heading of the first chapter up to that of the one behind the last.
CHAPTERS = [("A PICTURE", "CONTENTS"), ("WHAT IT DOES TO YOUR PROCESS", "CHANGES")]


def content(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as file:
        return file.read()


def plain(text):
    text = re.sub(r"^\s*(- |/\*|//)", " ", text.replace("**", ""), flags=re.MULTILINE)
    return " ".join(text.replace("/*", " ").replace("*/", " ").split())


def rows(text):
    """The sentence and what holds it, of each row of each table. A bar inside a sentence is written \\|."""
    for line in text.splitlines():
        cells = re.split(r"(?<!\\)\|", line.strip())
        if len(cells) == 4 and not cells[0] and not cells[3] and not set(cells[1]) <= set("- "):
            yield plain(cells[1].replace("\\|", "|")), cells[2].strip()


def manual(header):
    """The chapters of the top comment that promise something, without their headings and examples."""
    top = header[:header.index("*/")]
    text = "".join(top[top.index("\n   " + first):top.index("\n   " + behind)] for first, behind in CHAPTERS)
    return re.sub(r"^( {3}[A-Z][A-Z, ]+| {9}.*)$", "", text, flags=re.MULTILINE)


def api(header):
    return header[header.index("\n// >>api"):header.index("\n#ifdef PYPROF_IMPLEMENTATION")]


def promises(readme):
    return readme[readme.index("## What it promises\n") + len("## What it promises\n"):readme.index("## What it costs")]


def without(text, sentences):
    """What of the text is in no sentence."""
    for sentence in sorted(sentences, key=len, reverse=True):
        text = text.replace(sentence, " ")
    return " ".join(text.split())


def complaint(holds):
    """What is wrong with the second cell of a row; empty = nothing."""
    if re.match(r"not tested: \S", holds):
        return ""
    for part in holds.split(";"):
        path, _, names = part.strip().partition(":")
        full = os.path.join(TESTS, path)
        if not path or not os.path.isfile(full):
            return "no file tests/%s" % path
        for name in filter(None, (name.strip() for name in names.split(","))):
            if not re.search(r"\b%s\b" % re.escape(name), content("tests", path)):
                return "no %s in tests/%s" % (name, path)
    return ""


class Promises(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        header, readme = content("pyprof.h"), content("README.md")
        tables = content("tests", "README.md").partition("\n## Promise and test\n")[2]
        cls.rows = [row for row in rows(tables) if row[0] != "Sentence"]
        cls.sentences = [sentence for sentence, _ in cls.rows]
        cls.said = {"README.md": plain(readme), "the manual": plain(manual(header)), "the API": plain(api(header))}
        cls.to_be_held = {"README.md": plain(promises(readme)), "the manual": plain(manual(header))}

    def test_there_are_some(self):
        self.assertGreater(len(self.rows), 50)
        self.assertEqual(len(set(self.sentences)), len(self.sentences), "a sentence is there twice")

    def test_each_is_said(self):
        missing = [sentence for sentence in self.sentences if not any(sentence in text for text in self.said.values())]
        self.assertEqual([], missing, "said nowhere any more")

    def test_each_is_held(self):
        for sentence, holds in self.rows:
            with self.subTest(sentence=sentence):
                self.assertEqual("", complaint(holds))

    def test_none_is_left_out(self):
        for name, text in self.to_be_held.items():
            with self.subTest(of=name):
                self.assertEqual("", without(text, self.sentences), "no row of tests/README.md says what holds this")

    def test_the_check_can_fail(self):
        self.assertEqual([("a | b", "x.py: test_y")], list(rows("| a \\| b | x.py: test_y |\n|---|---|\nno row")))
        self.assertEqual("and", without("One thing. and Another.", ["One thing.", "Another."]))
        self.assertEqual("A thing, bold.", plain("   - A thing,\n     **bold**."))
        self.assertEqual("", complaint("check/test_promises.py: complaint, rows; README.md"))
        for wrong in "", "not tested:", "nowhere.py", "check/test_promises.py: test_of_" "nothing", "check":
            self.assertNotEqual("", complaint(wrong), wrong)


if __name__ == "__main__":
    unittest.main()
