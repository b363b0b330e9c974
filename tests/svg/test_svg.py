"""pyprof-svg as a command: what it accepts, what it refuses, and what the file says."""
import collections
import os
import re
import stat
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

PYPROF_SVG = os.path.join(os.environ["PYPROF_BUILD"], "tools", "pyprof-svg")
SVG = "{http://www.w3.org/2000/svg}"
Box = collections.namedtuple("Box", "name value share x y width colour fold text")


def run(collapsed, *arguments):
    """The exit code, standard output as bytes and standard error of one run."""
    if isinstance(collapsed, str):
        collapsed = collapsed.encode()
    done = subprocess.run([PYPROF_SVG, *arguments], input=collapsed, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.returncode, done.stdout, done.stderr.decode()


def draw(collapsed, *arguments):
    code, picture, errors = run(collapsed, *arguments)
    if code != 0:
        raise AssertionError("pyprof-svg: exit code %d: %s" % (code, errors))
    return picture


def boxes(picture):
    """The frames that are drawn, as a viewer without scripts sees them."""
    found = []
    for group in ElementTree.fromstring(picture).iter(SVG + "g"):
        kind = group.get("class", "").split()
        if "frame" not in kind:
            continue
        rect = group.find(SVG + "rect")
        label = group.find(SVG + "text")
        title = re.fullmatch(r"(.*) \(([^()]*?), (<?[\d.]+%) of all.*\)", group.find(SVG + "title").text, re.S)
        found.append(Box(title[1], title[2], title[3], float(rect.get("x")), float(rect.get("y")),
                         float(rect.get("width")), rect.get("fill"), "fold" in kind,
                         "" if label is None else label.text or ""))
    return found


def box(picture, name):
    found = [one for one in boxes(picture) if one.name == name]
    if len(found) != 1:
        raise AssertionError("%d boxes are named %r" % (len(found), name))
    return found[0]


class Picture(unittest.TestCase):
    def test_equal_stacks_add_up(self):
        picture = draw("main;a 30\nmain;b 10\nmain;a 50\nmain 10\n")
        self.assertEqual([(b.name, b.value, b.share) for b in boxes(picture)],
                         [("all", "100 samples", "100.0%"), ("main", "100 samples", "100.0%"),
                          ("a", "80 samples", "80.0%"), ("b", "10 samples", "10.0%")])

    def test_widths_are_shares(self):
        picture = draw("main;a 30\nmain;b 10\n", "--width", "824")
        self.assertAlmostEqual(box(picture, "a").width, 600 - 1, places=2)
        self.assertAlmostEqual(box(picture, "b").width, 200 - 1, places=2)
        self.assertAlmostEqual(box(picture, "b").x, 12 + 600, places=2)

    def test_one_function_below_two_callers_stays_apart(self):
        names = [b.name for b in boxes(draw("a;f 1\nb;f 1\n"))]
        self.assertEqual(names.count("f"), 2)

    def test_width_option(self):
        root = ElementTree.fromstring(draw("a 1", "--width=640"))
        self.assertEqual(root.get("width"), "640")
        self.assertEqual(root.get("viewBox").split()[2], "640")

    def test_root_below_or_on_top(self):
        plain, inverted = draw("a;b 1"), draw("a;b 1", "--inverted")
        self.assertGreater(box(plain, "a").y, box(plain, "b").y)
        self.assertLess(box(inverted, "a").y, box(inverted, "b").y)

    def test_title_and_subtitle(self):
        root = ElementTree.fromstring(draw("a 1", "--title", "<x> & \"y\"", "--subtitle", "wall ]]> time"))
        self.assertEqual(root.find(SVG + "title").text, "<x> & \"y\"")
        texts = [text.text for text in root.iter(SVG + "text")]
        self.assertIn("<x> & \"y\"", texts)
        self.assertTrue(any("wall ]]> time" in (text or "") for text in texts))

    def test_units(self):
        def shown(value, *unit):
            return box(draw("a %d" % value, *unit), "a").value

        self.assertEqual(shown(1234567, "--unit", "us"), "1.23 s")
        self.assertEqual(shown(45600, "--unit", "us"), "45.6 ms")
        self.assertEqual(shown(999600, "--unit", "us"), "1.00 s")
        self.assertEqual(shown(952500, "--unit", "us"), "953 ms")
        self.assertEqual(shown(7, "--unit", "us"), "7.00 \xb5s")
        self.assertEqual(shown(7, "--unit", "ns"), "7 ns")
        self.assertEqual(shown(12345, "--unit", "s"), "12,345 s")
        self.assertEqual(shown(1234567), "1,234,567 samples")
        self.assertEqual(shown(1), "1 sample")
        self.assertEqual(shown(20, "--unit", "bytes"), "20 bytes")
        self.assertEqual(shown(2 ** 64 - 1), "18,446,744,073,709,551,615 samples")

    def test_names_survive(self):
        names = ["<module> (prog.py:1)", "a & b", "quote\"'", "]]>", "</script><b>", "\\x3b back\\\\slash",
                 "\u540d\u524d (\U0001f40d.py:3)", "with  two blanks", "tail)"]
        picture = draw(";".join(names) + " 5\n")
        self.assertEqual([b.name for b in boxes(picture)], ["all"] + names)
        self.assertEqual(picture.count(b"]]>"), 1)
        self.assertEqual(picture.count(b"</script>"), 1)

    def test_bytes_that_are_no_text(self):
        picture = draw(b"a\xff\xc3;b\x01\x7f;c\xed\xa0\x80;d\xef\xbf\xbf;tab\there 5\n")
        names = [b.name for b in boxes(picture)]
        bad = "\ufffd"
        self.assertEqual(names, ["all", "a" + 2 * bad, "b" + 2 * bad, "c" + 3 * bad, "d" + 3 * bad, "tab here"])

    def test_text_is_cut_with_an_ellipsis(self):
        picture = draw("a%s 50\nb 50\n" % ("x" * 300))
        text = [b for b in boxes(picture) if b.name.startswith("ax")][0].text
        self.assertTrue(text.startswith("axxx") and text.endswith("x\u2026"), text)

    def test_nothing_from_outside(self):
        picture = draw("a;b 1")
        self.assertNotRegex(picture.replace(b"http://www.w3.org/", b""), rb"https?:|\bimport\b|\bfetch\b")


class Folding(unittest.TestCase):
    def test_narrow_frames_become_one_box(self):
        picture = draw("r;big 9000\n" + "".join("r;small%d 1\n" % i for i in range(1000)))
        found = boxes(picture)
        self.assertEqual([b.name for b in found if not b.fold], ["all", "r", "big"])
        fold, = [b for b in found if b.fold]
        self.assertEqual((fold.value, fold.share), ("1,000 samples", "10.0%"))
        self.assertIn(b"1,000 frames narrower than 1 px are folded", picture)

    def test_limit_is_an_option(self):
        lines = "r;big 9900\nr;small 100\n"
        self.assertIn("small", [b.name for b in boxes(draw(lines))])
        self.assertNotIn("small", [b.name for b in boxes(draw(lines, "--min-width", "20"))])

    def test_no_note_without_folding(self):
        self.assertNotIn(b"are folded", ElementTree.tostring(
            [t for t in ElementTree.fromstring(draw("a 1")).iter(SVG + "text") if t.get("id") == "note"][0]))

    def test_100000_distinct_stacks(self):
        lines = "".join("thread T%d;%s;leaf%d (x.py:%d) %d\n" % (
            i % 7, ";".join("f%d (m%d.py:%d)" % (i * 7919 // 10 ** (10 - d) % 40, d, d) for d in range(10)), i, i,
            i % 13 + 1) for i in range(100000))
        picture = draw(lines)
        total = sum(i % 13 + 1 for i in range(100000))
        self.assertEqual(box(picture, "all").value, "%s samples" % format(total, ","))
        self.assertLess(len(picture), 8 << 20)
        self.assertLess(len(picture), len(lines) / 2)
        self.assertIn(b"This file describes the largest 20,000 of ", picture)
        # On each level, what is drawn and what is folded is never more than all.
        rows = collections.Counter()
        for one in boxes(picture):
            rows[one.y] += one.width
        self.assertLessEqual(max(rows.values()), 1200 - 24 + 0.01)

    def test_10000_frames_deep(self):
        picture = draw(";".join("f%d" % i for i in range(10000)) + " 3\n")
        self.assertEqual(len(boxes(picture)), 10001)


class Colours(unittest.TestCase):
    def colours(self, collapsed):
        return {b.name: b.colour for b in boxes(draw(collapsed))}

    def hue(self, colour):
        import colorsys
        return colorsys.rgb_to_hsv(*[int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)])[0]

    def test_same_in_every_run_and_profile(self):
        one = self.colours("f (a.py:1);g (b.py:2) 5\n")
        other = self.colours("h (c.py:7);g (b.py:2) 1\nf (a.py:1) 800\n")
        for name in one:
            self.assertEqual(one[name], other[name])

    def test_by_file_not_by_line(self):
        colours = self.colours("f (pkg/a.py:1);g (pkg/a.py:200);f (other.py:1) 1\n")
        same = self.hue(colours["f (pkg/a.py:1)"]) - self.hue(colours["g (pkg/a.py:200)"])
        self.assertLess(abs(same), 0.02)
        self.assertNotEqual(colours["f (pkg/a.py:1)"], colours["f (other.py:1)"])

    def test_many_files_get_many_colours(self):
        colours = self.colours(";".join("f (file%d.py:1)" % i for i in range(60)) + " 1\n")
        self.assertGreater(len(set(colours.values())), 45)

    def test_dark_text_is_readable_on_all(self):
        def linear(channel):
            return channel / 12.92 if channel <= 0.03928 else ((channel + 0.055) / 1.055) ** 2.4

        def luminance(colour):
            red, green, blue = [linear(int(colour[i:i + 2], 16) / 255) for i in (1, 3, 5)]
            return 0.2126 * red + 0.7152 * green + 0.0722 * blue

        text = luminance("#1f2328")
        for colour in set(self.colours(";".join("f (file%d.py:1)" % i for i in range(200)) + " 1\n").values()):
            self.assertGreater((luminance(colour) + 0.05) / (text + 0.05), 7, colour)


class BadInput(unittest.TestCase):
    def refused(self, collapsed, *messages):
        code, picture, errors = run(collapsed)
        self.assertEqual(code, 1)
        self.assertEqual(picture, b"")
        self.assertEqual(errors.splitlines(), list(messages))

    def test_every_kind(self):
        for line, what in [
                ("a;b", "the line ends with 'a;b', not with a whole number"),
                ("a;b -5", "the line ends with '-5', not with a whole number"),
                ("a;b 1.5", "the line ends with '1.5', not with a whole number"),
                ("a;b 0x10", "the line ends with '0x10', not with a whole number"),
                ("a 18446744073709551616", "the value 18446744073709551616 does not fit in 64 bits"),
                ("12", "no stack before the value"),
                (" 12", "no stack before the value"),
                (";a 1", "frame 1 of the stack is empty"),
                ("a;;b 1", "frame 2 of the stack is empty"),
                ("a;b; 1", "frame 3 of the stack is empty"),
                ("a; ;b 1", "frame 2 of the stack is empty"),
                ("a\0b 1", "a NUL byte at column 2"),
                ("a \x1b[31m", "the line ends with '?[31m', not with a whole number")]:
            with self.subTest(line=line):
                self.refused("good 1\n\n" + line + "\ngood 2\n", "<stdin>:3: " + what)

    def test_all_bad_lines_are_told(self):
        self.refused("a\nb 1\nc\n", "<stdin>:1: the line ends with 'a', not with a whole number",
                     "<stdin>:3: the line ends with 'c', not with a whole number")

    def test_told_up_to_a_bound(self):
        errors = run("bad\n" * 1000)[2].splitlines()
        self.assertEqual(len(errors), 21)
        self.assertEqual(errors[-1], "<stdin>: 980 more bad lines")

    def test_sum_too_large(self):
        self.refused("a 18446744073709551615\nb 1\n", "<stdin>:2: the sum of all values exceeds 64 bits")

    def test_named_file(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "in.collapsed")
            with open(path, "w") as file:
                file.write("a 1\nb\n")
            errors = run("", path)[2]
        self.assertEqual(errors, path + ":2: the line ends with 'b', not with a whole number\n")

    def test_missing_file(self):
        code, picture, errors = run("", "no/such/file")
        self.assertEqual((code, picture, errors), (1, b"", "no/such/file: No such file or directory\n"))

    def test_directory(self):
        code, _, errors = run("", "/")
        self.assertEqual((code, errors), (1, "/: Is a directory\n"))


class GoodInput(unittest.TestCase):
    def test_what_is_passed_over(self):
        plain = draw("a;b 1\n")
        for same in ["a;b 1", "a;b 1\r\n", "\n\na;b 1\n\r\n", "# note 5\n#\na;b 1\n", "a;b 1 \t\n", "a;b\t1\n"]:
            with self.subTest(text=same):
                self.assertEqual(draw(same), plain)

    def test_hash_that_is_no_comment(self):
        self.assertEqual([b.name for b in boxes(draw("#0 main;f 1\n"))], ["all", "#0 main", "f"])

    def test_no_samples(self):
        for text in ["", "\n", "a;b 0\n"]:
            with self.subTest(text=text):
                code, picture, errors = run(text, "--title", "T")
                self.assertEqual((code, errors), (0, "pyprof-svg: the input holds no samples\n"))
                self.assertIn("No samples.", [t.text for t in ElementTree.fromstring(picture).iter(SVG + "text")])

    def test_zero_beside_others(self):
        self.assertEqual([b.name for b in boxes(draw("a 0\nb 1\n"))], ["all", "b"])


class Output(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.out = os.path.join(self.directory.name, "out.svg")

    def names(self):
        return sorted(os.listdir(self.directory.name))

    def write_old(self):
        with open(self.out, "w") as file:
            file.write("old")

    def read(self):
        with open(self.out, "rb") as file:
            return file.read()

    def test_file_equals_stream(self):
        self.assertEqual(draw("a;b 1\n", "-", self.out), b"")
        self.assertEqual(self.read(), draw("a;b 1\n"))
        self.assertEqual(self.names(), ["out.svg"])

    def test_bad_input_keeps_the_old_file(self):
        self.write_old()
        self.assertEqual(run("a\n", "-", self.out)[0], 1)
        self.assertEqual((self.read(), self.names()), (b"old", ["out.svg"]))

    def test_full_disk_keeps_the_old_file(self):
        self.write_old()
        limited = subprocess.run(
            ["sh", "-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh", PYPROF_SVG, "-", self.out],
            input=b"a;b 1\n", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual((limited.returncode, limited.stderr.decode()), (1, self.out + ": File too large\n"))
        self.assertEqual((self.read(), self.names()), (b"old", ["out.svg"]))

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_full_device(self):
        self.assertEqual(run("a 1\n", "-", "/dev/full")[::2], (1, "/dev/full: No space left on device\n"))
        with open("/dev/full", "w") as full:
            done = subprocess.run([PYPROF_SVG], input=b"a 1\n", stdout=full, stderr=subprocess.PIPE)
        self.assertEqual((done.returncode, done.stderr), (1, b"standard output: No space left on device\n"))

    def test_unwritable_path(self):
        path = os.path.join(self.directory.name, "missing", "out.svg")
        self.assertEqual(run("a 1\n", "-", path)[::2], (1, path + ": No such file or directory\n"))

    def test_device_stays_a_device(self):
        self.assertEqual(draw("a 1\n", "-", "/dev/null"), b"")
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))

    def test_pipe(self):
        fifo = os.path.join(self.directory.name, "fifo")
        os.mkfifo(fifo)
        reader = subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE)
        draw("a;b 1\n", "-", fifo)
        self.assertEqual(reader.communicate()[0], draw("a;b 1\n"))
        self.assertTrue(stat.S_ISFIFO(os.stat(fifo).st_mode))

    def test_link_stays_a_link(self):
        self.write_old()
        link = os.path.join(self.directory.name, "link.svg")
        os.symlink("out.svg", link)
        draw("a 1\n", "-", link)
        self.assertTrue(os.path.islink(link))
        self.assertEqual(self.read(), draw("a 1\n"))

    def test_mode(self):
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        draw("a 1\n", "-", self.out)
        self.assertEqual(stat.S_IMODE(os.stat(self.out).st_mode), 0o640)
        os.chmod(self.out, 0o600)
        draw("a 1\n", "-", self.out)
        self.assertEqual(stat.S_IMODE(os.stat(self.out).st_mode), 0o600)


class CommandLine(unittest.TestCase):
    def test_help_and_version(self):
        code, text, errors = run("", "--help")
        self.assertEqual((code, errors), (0, ""))
        for option in [b"--title", b"--subtitle", b"--width", b"--min-width", b"--inverted", b"--unit", b"--version"]:
            self.assertIn(option, text)
        self.assertRegex(run("", "--version")[1], rb"^pyprof-svg \d+\.\d+")

    def test_wrong_usage(self):
        for arguments in [["--nonsense"], ["--width"], ["--width", "12"], ["--width", "wide"], ["--width", "1e9"],
                          ["--width", "99999999999999999999"], ["--min-width", "nan"], ["--unit", ""], ["-x"],
                          ["a", "b", "c"]]:
            with self.subTest(arguments=arguments):
                code, picture, errors = run("a 1\n", *arguments)
                self.assertEqual((code, picture), (2, b""))
                self.assertRegex(errors, r"\Apyprof-svg: .*\nusage: pyprof-svg ")

    def test_file_that_looks_like_an_option(self):
        self.assertEqual(run("", "--", "--help")[::2], (1, "--help: No such file or directory\n"))


if __name__ == "__main__":
    unittest.main()
