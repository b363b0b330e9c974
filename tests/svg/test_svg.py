"""pyprof-svg as a command: what it accepts, what it refuses, and what the file says."""
import collections
import gzip
import html
import json
import os
import re
import resource
import signal
import stat
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree as ElementTree

PYPROF_SVG = os.path.join(os.environ["PYPROF_BUILD"], "tools", "pyprof-svg")
with open(PYPROF_SVG, "rb") as tool:
    IS_SANITIZED = b"libasan" in tool.read()  # which reserves more addresses than any limit allows
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
        picture = draw(lines, "--threads", "--unit", "samples")
        total = sum(i % 13 + 1 for i in range(100000))
        self.assertEqual(box(picture, "all").value, "%s samples" % format(total, ","))
        self.assertLess(len(picture), 1.6 * 728048)  # of what it was without controls
        self.assertLess(len(picture), len(lines) / 2)
        self.assertIn(b"This file describes the largest 20,000 of ", picture)
        # On each level, what is drawn and what is folded stands side by side and is never more than all. Both the
        # place and the width are rounded to a hundredth.
        rows = collections.defaultdict(list)
        for one in boxes(picture):
            rows[one.y].append((one.x, one.x + one.width))
        for row in rows.values():
            row.sort()
            for (_, end), (start, _) in zip(row, row[1:] + [(1200 - 12, None)]):
                self.assertLessEqual(end, start + 0.0101)

    def test_what_the_controls_cost(self):
        """With all that there is to choose, a picture has at most 1.6 times the bytes that it had without."""
        self.assertLess(len(draw("a 1\n")), 1.6 * 20358)

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


class Difference(unittest.TestCase):
    """Two profiles in one picture: each frame is as wide as what it has, and coloured by what it had."""
    LINES = "a;up 10 20\na;down 20 10\na;same 30 30\na;gone;x 30 0\na;new 0 20\na;slower 60 70\na;rest 50 50\n"  # 200, 200

    def boxes(self, lines, *options):
        return {b.name: b for b in boxes(draw(lines, "--diff", *options))}

    def titles(self, lines, *options):
        found = [group.find(SVG + "title").text for group in ElementTree.fromstring(draw(lines, "--diff", *options)).iter(SVG + "g")
                 if group.get("class") == "frame"]
        return dict(title.split(" (", 1) for title in found)

    def head(self, picture):
        return next(t.text for t in ElementTree.fromstring(picture).iter(SVG + "text") if t.get("id") == "subtitle")

    def test_widths_are_of_what_is_new(self):
        found = self.boxes(self.LINES)
        self.assertEqual(sorted(found), ["a", "all", "down", "new", "rest", "same", "slower", "up"])  # nothing that is gone
        self.assertEqual(found["all"].value, "200 samples")
        for name, share in [("up", 0.1), ("down", 0.05), ("same", 0.15), ("new", 0.1), ("a", 1)]:
            self.assertAlmostEqual(found[name].width, share * (1200 - 2 * 12) - 1, delta=0.02)

    def test_colours_of_known_changes(self):
        found = self.boxes(self.LINES)
        grey, red10 = "#e8eaed", "#f0705a"
        red5, blue5 = "#ef7e6b", "#78adef"  # the seventh of eight steps: eight ninths of the way to red, to #6aa5f0
        for name, colour in [("all", grey), ("a", grey), ("same", grey), ("rest", grey), ("up", red5), ("slower", red5),
                             ("down", blue5), ("new", red10)]:
            self.assertEqual(found[name].colour, colour, name)

    def test_a_step_of_change_is_a_step_of_colour(self):
        reds, blues = [], []
        for parts in [0, 4, 5, 9, 10, 19, 20, 49, 50, 99, 100, 199, 200, 499, 500, 999, 1000, 4000]:  # of 10,000
            lines = "f 4000 %d\nrest 6000 %d\n" % (4000 + parts, 6000 - parts)
            found = self.boxes(lines)
            reds.append(found["f"].colour)
            blues.append(found["rest"].colour)
        self.assertEqual(reds[:2], ["#e8eaed"] * 2)
        self.assertEqual(len(set(reds)), 9)
        self.assertEqual(len(set(blues)), 9)
        for steps in reds, blues:
            for i in range(0, 18, 2):
                self.assertEqual(steps[i], steps[i + 1])

    def test_shares_or_values(self):
        """Twice the same: the shares are as they were, the values are not."""
        lines = "a;b 10 20\na;c 30 60\n"
        self.assertEqual({b.colour for b in self.boxes(lines).values()}, {"#e8eaed"})
        self.assertEqual({b.colour for b in self.boxes(lines, "--absolute").values()}, {"#f0705a"})
        self.assertEqual(self.titles(lines, "--absolute"), {
            "all": "80 samples, 100.0% of all; in the base 40 samples, 100.0%: +40 samples, +100.0%)",
            "a": "80 samples, 100.0% of all; in the base 40 samples, 100.0%: +40 samples, +100.0%)",
            "b": "20 samples, 25.0% of all; in the base 10 samples, 25.0%: +10 samples, +25.0%)",
            "c": "60 samples, 75.0% of all; in the base 30 samples, 75.0%: +30 samples, +75.0%)"})

    def test_both_values_are_told(self):
        titles = self.titles(self.LINES)
        self.assertEqual(titles["up"], "20 samples, 10.0% of all; in the base 10 samples, 5.0%: +5.0 points)")
        self.assertEqual(titles["down"], "10 samples, 5.0% of all; in the base 20 samples, 10.0%: \u22125.0 points)")
        self.assertEqual(titles["same"], "30 samples, 15.0% of all; in the base 30 samples, 15.0%: 0 points)")
        self.assertEqual(titles["new"], "20 samples, 10.0% of all; not in the base: +10.0 points)")

    def test_head_tells_of_the_base(self):
        self.assertEqual(self.head(draw(self.LINES, "--diff")), "200 samples in all \xb7 base 200 samples \xb7 "
                         "red: larger share, blue: smaller \xb7 2 frames gone")
        self.assertEqual(self.head(draw("a 1 2\nb 1 0\n", "--diff", "--absolute", "--subtitle", "why")),
                         "2 samples in all \xb7 base 2 samples \xb7 red: more, blue: less \xb7 1 frame gone \xb7 why")

    def test_nothing_has_changed(self):
        found = self.boxes("a;b 7 7\na;c 1.5 1.5\n")
        self.assertEqual({b.colour for b in found.values()}, {"#e8eaed"})

    def test_empty_base(self):
        found = self.boxes("a;b 0 7\nc 0 1\n")
        self.assertEqual({b.colour for b in found.values()}, {"#f0705a"})
        self.assertEqual(self.titles("a;b 0 7\nc 0 1\n")["c"], "1 sample, 12.5% of all; not in the base: +12.5 points)")

    def test_nothing_but_a_base(self):
        self.assertIn(b"No samples.", draw("a;b 7 0\n", "--diff"))

    def test_fractions_of_either_side(self):
        titles = self.titles("a 0.25 1\nb 1 1e-1\nc 0 0.001\n")
        self.assertEqual(titles["all"].split(":")[0], "1.10 samples, 100.0% of all; in the base 1.25 samples, 100.0%")
        self.assertEqual(titles["b"].split(":")[0], "0.100 samples, 9.1% of all; in the base 1 sample, 80.0%")

    def test_threads_and_imports_are_one_in_both(self):
        lines = ("thread w-1;f (a.py:1) 10 20\nthread w-2;f (a.py:1) 30 20\nthread w-1;i (<frozen importlib._bootstrap>:3);"
                 "j (<frozen importlib._bootstrap>:4) 20 0\nthread w-3;i (<frozen importlib._bootstrap>:3) 20 40\n")
        titles = self.titles(lines, "--unit", "samples")
        self.assertEqual(titles["f"], "a.py:1) (40 samples, 50.0% of all; in the base 40 samples, 50.0%: 0 points)")
        self.assertEqual(titles["import"], "40 samples, 50.0% of all; in the base 40 samples, 50.0%: 0 points)")
        titles = self.titles(lines, "--unit", "samples", "--threads")
        self.assertIn("80 samples, 100.0% of all; in the base 80 samples, 100.0%: 0 points)", titles["thread w-#"])

    def test_the_largest_of_both_sides_are_kept(self):
        """Of more frames than a file describes, what is gone has its place, too, and sums are whole."""
        lines = "big;gone (a.py:1) 900000 0\n" + "".join("big;f%d (a.py:%d) 1 2\n" % (i, i) for i in range(30000))
        picture = draw(lines, "--diff")
        self.assertIn("in the base 930,000 samples", next(t for n, t in self.titles(lines).items() if n == "big"))
        names = re.search(rb"names: `(.*?)`,\n", picture, re.S)[1]
        self.assertIn(b"gone (a.py:1)", names)

    def test_text_is_readable_on_all_colours(self):
        def luminance(colour):
            red, green, blue = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
            linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

        pairs = re.findall(r'rect\[fill="(#......)"\]\{fill:(#......);', draw("a 1 1\n", "--diff").decode())
        self.assertEqual((len(pairs), len(set(pairs))), (17, 17))
        for light, dark in pairs:
            self.assertGreater((luminance(light) + 0.05) / (luminance("#1f2328") + 0.05), 4.5)
            self.assertGreater((luminance("#f0f3f6") + 0.05) / (luminance(dark) + 0.05), 4.5)

    def test_bad_lines(self):
        for line, told in [("a;b 5", "one value ends the line: a difference has two, BASE VALUE"),
                           ("a;b x 5", "one value ends the line: a difference has two, BASE VALUE"),
                           ("a;b 5 x", "the line ends with 'x', not with a number"),
                           ("a;b -1 5", "the value -1 is negative"), ("a;b 1 -5", "the value -5 is negative"),
                           ("3 5", "no stack before the value"), ("a;;b 3 5", "frame 2 of the stack is empty"),
                           ("a 18446744073709551616 1", "the value 18446744073709551616 does not fit in 64 bits"),
                           ("a 18446744073709551615 1", "the sum of all values exceeds 64 bits")]:
            with self.subTest(line=line):
                code, picture, errors = run("ok 1 2\n" + line + "\n", "--diff")
                self.assertEqual((code, picture), (1, b""))
                self.assertTrue(errors.startswith("<stdin>:2: " + told), errors)

    def test_without_the_option_it_is_named(self):
        code, picture, errors = run(self.LINES)
        self.assertEqual((code, picture), (1, b""))
        self.assertIn("pyprof-svg --diff draws the difference", errors)

    def test_absolute_wants_diff(self):
        code, picture, errors = run("a 1\n", "--absolute")
        self.assertEqual((code, picture), (2, b""))
        self.assertIn("--absolute says how --diff compares", errors)


class Threads(unittest.TestCase):
    def names(self, collapsed, *arguments):
        return [one.name for one in boxes(draw(collapsed, *arguments))]

    def head(self, collapsed, *arguments):
        texts = ElementTree.fromstring(draw(collapsed, *arguments)).iter(SVG + "text")
        return [text for text in texts if text.get("id") == "subtitle"][0].text

    def requests(self, count, name="Thread-%d (handle)"):
        return "".join("thread %s;run (t.py:1);%s (a.py:%d) 6000\n" % (name % (7 * i), "parse" if i % 3 else "render", i % 3)
                       for i in range(count))

    def test_800_request_threads_are_one_stack(self):
        picture = draw(self.requests(800))
        self.assertEqual((box(picture, "run (t.py:1)").value, box(picture, "run (t.py:1)").share), ("4.80 s", "100.0%"))
        self.assertEqual(box(picture, "render (a.py:0)").value, "1.60 s")
        self.assertFalse([one for one in boxes(picture) if one.fold or one.name.startswith("thread")])
        self.assertEqual(self.head(self.requests(800)), "4.80 s in all, 800 threads together")

    def test_apart_those_that_differ_in_digits_only_are_one(self):
        picture = draw(self.requests(800) + "thread MainThread;run (t.py:1) 100000\n", "--threads")
        self.assertEqual(box(picture, "thread Thread-# (handle) (800 threads)").value, "4.80 s")
        self.assertEqual(box(picture, "thread MainThread").value, "100 ms")
        self.assertEqual(box(picture, "render (a.py:0)").value, "1.60 s")

    def test_names_with_digits(self):
        for names, shown in [(["worker-1"], "thread worker-1"),
                             (["worker-1", "worker-23"], "thread worker-# (2 threads)"),
                             (["1", "22", "333"], "thread # (3 threads)"),
                             (["pool-0-worker-1", "pool-1-worker-0"], "thread pool-#-worker-# (2 threads)"),
                             (["h (0x7f01ab)", "h (0x7F01)"], "thread h (#) (2 threads)"),
                             (["naïve-1 (30%)", "naïve-2 (40%)"], "thread naïve-# (#%) (2 threads)")]:
            with self.subTest(names=names):
                lines = "".join("thread %s;f (a.py:1) 5\n" % name for name in names)
                self.assertEqual(self.names(lines, "--threads"), ["all", shown, "f (a.py:1)"])
                self.assertEqual(self.names(lines), ["all", "f (a.py:1)"])

    def test_names_that_differ_in_more_stay_apart(self):
        lines = "thread a-1;f (a.py:1) 5\nthread b-1;f (a.py:1) 5\nthread 1a;f (a.py:1) 5\n"
        self.assertEqual(self.names(lines, "--threads")[1:4], ["thread 1a", "thread a-1", "thread b-1"])

    def test_one_thread_is_not_told_of(self):
        self.assertEqual(self.head("thread MainThread;f (a.py:1) 5\n"), "5.00 \xb5s in all")

    def test_py_spys_samples_without_a_python_frame(self):
        """Its raw format has a blank and a value for them, and no stack."""
        picture = draw("main (a.py:1) 72\n 113\n")
        self.assertEqual([(b.name, b.value) for b in boxes(picture)],
                         [("all", "185 samples"), ("[no Python frame]", "113 samples"), ("main (a.py:1)", "72 samples")])

    def test_threads_of_py_spy(self):
        lines = "".join('process 1:"x; y";thread (%s);f (a.py:1) 2\n'.replace("; ", " ") % name
                        for name in ["0x7F3A", "0x7F3B"])
        self.assertEqual(self.names(lines), ["all", 'process 1:"x y"', "f (a.py:1)"])
        self.assertEqual(self.names(lines, "--threads"), ["all", 'process 1:"x y"', "thread (#) (2 threads)", "f (a.py:1)"])
        lines = "thread (12): MainThread;f (a.py:1) 2\nthread (13): worker;f (a.py:1) 3\n"
        self.assertEqual(self.names(lines), ["all", "f (a.py:1)"])
        self.assertEqual(self.names(lines, "--threads")[1:3], ["thread (13): worker", "thread (12): MainThread"])

    def test_what_is_no_thread(self):
        for root in ["thread (worker.py:12)", "threading (a.py:1)", "process (a.py:1)", "[interpreter 1: thread 2]", "Thread 0:1",
                     "<module> (a.py:3)", "python3", "thread"]:
            with self.subTest(root=root):
                for arguments in [[], ["--threads"]]:
                    self.assertEqual(self.names(root + ";thread x;f (a.py:1) 5\n", *arguments),
                                     ["all", root, "thread x", "f (a.py:1)"])

    def test_interpreters_stay(self):
        lines = "".join("thread t%d;[interpreter %d: plugin];f (a.py:1) 5\n" % (i, i) for i in (1, 2))
        self.assertEqual(sorted(self.names(lines)[1:3]), ["[interpreter 1: plugin]", "[interpreter 2: plugin]"])
        self.assertEqual(len(self.names(lines, "--threads")), 6)


class Imports(unittest.TestCase):
    def names(self, *files):
        return [one.name for one in boxes(draw("main (m.py:1);%s 5\n" % ";".join("f (%s:1)" % file for file in files)))][2:]

    def test_runs_of_importlib_are_one_frame(self):
        frozen = ["<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>", "importlib/__init__.py"]
        self.assertEqual(self.names(*frozen, "a.py", *frozen), ["import", "f (a.py:1)", "import"])
        for file in frozen + ["<frozen importlib.util>", "lib/python3.9/importlib/_bootstrap.py", "importlib/util.py"]:
            self.assertEqual(self.names(file), ["import"], file)

    def test_what_is_not_importlibs_own(self):
        for file in ["importlib/metadata/__init__.py", "importlib/metadata.py", "importlib/resources/_common.py", "myimportlib/a.py",
                     "importlib.py", "<frozen zipimport>", "importlib/resources.py", "a/importlib_/b.py"]:
            self.assertEqual(self.names(file), ["f (%s:1)" % file], file)

    def test_siblings_add_up(self):
        text = "".join("m (m.py:1);f%d (<frozen importlib._bootstrap>:%d);g%d (a.py:1) 2\n" % (i, i, i) for i in range(5))
        picture = draw(text + "m (m.py:1);x (<frozen importlib._bootstrap>:7) 3\n")
        self.assertEqual(box(picture, "import").value, "13 samples")
        self.assertEqual(len(boxes(picture)), 3 + 5)


class Unit(unittest.TestCase):
    def shown(self, collapsed, *arguments):
        return box(draw(collapsed, *arguments), "all").value

    def test_ours_are_microseconds(self):
        self.assertEqual(self.shown("thread MainThread;f (a.py:1) 3900000\nthread t (2);g (a.py:2) 21019\n"), "3.92 s")
        self.assertEqual(self.shown("thread MainThread;f (a.py:1) 392\n", "--unit", "samples"), "392 samples")

    def test_others_are_samples(self):
        for root in ["<module> (a.py:1)", "thread (12): MainThread", "thread (0x7F3A)", 'process 1:"x";thread (12): a',
                     "thread (worker.py:12)", "python3", "Thread 0:1"]:
            with self.subTest(root=root):
                self.assertEqual(self.shown(root + ";f (a.py:1) 392\n"), "392 samples")
                self.assertEqual(self.shown("thread MainThread;f (a.py:1) 8\nf (a.py:1) 392\n"), "400 samples")

    def test_odd_names_of_our_threads(self):
        for name in ["", "(12)", "(12): x", "(main)", "(main) 2", "a (b.py:3)"]:
            with self.subTest(name=name):
                self.assertEqual(self.shown("thread MainThread;f (a.py:1) 8\nthread %s;f (a.py:1) 392\n" % name), "400 \xb5s")


class Fractions(unittest.TestCase):
    def values(self, collapsed, *arguments):
        return {one.name: one.value for one in boxes(draw(collapsed, *arguments))}

    def test_they_add_up(self):
        values = self.values("a;b 1.5\na;c 2.25\na;b .25\n")
        self.assertEqual(values, {"all": "4 samples", "a": "4 samples", "b": "1.75 samples", "c": "2.25 samples"})

    def test_how_numbers_are_written(self):
        for value, shown in [("1.0", "1 sample"), ("2.", "2 samples"), ("0.5", "0.500 samples"), ("1e3", "1,000 samples"),
                             ("1.5E+3", "1,500 samples"), ("1e-05", "0.0000100 samples"), ("12.50", "12.5 samples"),
                             ("123.456", "123 samples"), ("1234.5", "1,235 samples"), ("0.30000000000000004", "0.300 samples"),
                             ("12345678901234567.5", "12,345,678,901,234,568 samples")]:
            with self.subTest(value=value):
                self.assertEqual(self.values("a %s\n" % value)["a"], shown)

    def test_times(self):
        self.assertEqual(self.values("a 0.25\nb 1.5\n", "--unit", "s"), {"all": "1.75 s", "b": "1.50 s", "a": "250 ms"})
        self.assertEqual(self.values("thread t;f (a.py:1) 1500.5\n")["all"], "1.50 ms")

    def test_sums_are_exact(self):
        self.assertEqual(self.values("a 0.1\n" * 9999 + "a 0.1\n")["a"], "1,000 samples")


class BadInput(unittest.TestCase):
    def refused(self, collapsed, *messages):
        code, picture, errors = run(collapsed)
        self.assertEqual(code, 1)
        self.assertEqual(picture, b"")
        self.assertEqual(errors.splitlines(), list(messages))

    def test_every_kind(self):
        for line, what in [
                ("a;b", "the line ends with 'a;b', not with a number"),
                ("a;b -5", "the value -5 is negative: a flame graph shows amounts, not differences"),
                ("a;b 1,5", "the line ends with '1,5', not with a number"),
                ("a;b 0x10", "the line ends with '0x10', not with a number"),
                ("a;b 1e", "the line ends with '1e', not with a number"),
                ("a;b .", "the line ends with '.', not with a number"),
                ("a;b 1.2.3", "the line ends with '1.2.3', not with a number"),
                ("a;b nan", "the line ends with 'nan', not with a number"),
                ("a;b inf", "the line ends with 'inf', not with a number"),
                ("a;b 10ms", "the line ends with '10ms', not with a number"),
                ("a 18446744073709551616", "the value 18446744073709551616 does not fit in 64 bits"),
                ("a 1e20", "the value 1e20 does not fit in 64 bits"),
                ("12", "no stack before the value"),
                ("  12", "frame 1 of the stack is empty"),
                (";a 1", "frame 1 of the stack is empty"),
                ("a;;b 1", "frame 2 of the stack is empty"),
                ("a;b; 1", "frame 3 of the stack is empty"),
                ("a; ;b 1", "frame 2 of the stack is empty"),
                ("a\0b 1", "a NUL byte at column 2"),
                ("a 1\rb 1", "a carriage return at column 4"),
                ("a \x1b[31m", "the line ends with '?[31m', not with a number")]:
            with self.subTest(line=line):
                self.refused("good 1\n\n" + line + "\ngood 2\n", "<stdin>:3: " + what)
                self.refused(line + "\n", "<stdin>:1: " + what +
                             "; no line here is a collapsed stack, frame;frame;frame VALUE") if "\0" not in line else None

    def test_all_bad_lines_are_told(self):
        self.refused("a\nb 1\nc\n", "<stdin>:1: the line ends with 'a', not with a number",
                     "<stdin>:3: the line ends with 'c', not with a number")

    def test_told_up_to_a_bound(self):
        errors = run("good 1\n" + "bad\n" * 1000)[2].splitlines()
        self.assertEqual(len(errors), 21)
        self.assertEqual(errors[-1], "<stdin>: 980 more bad lines")

    def test_sum_too_large(self):
        self.refused("a 18446744073709551615\nb 1\n", "<stdin>:2: the sum of all values exceeds 64 bits")

    def test_frames_that_begin_as_other_kinds(self):
        for frame in "<module>", "[other]", "{main}", "<lambda>", "[unsettled]", "<":
            self.assertIn(html.escape(frame), draw("%s;f 5\n%s 2\n" % (frame, frame)).decode())

    def test_text_of_another_kind(self):
        """What is given by mistake is told in one line, which says what to do."""
        stacks = "thread MainThread;f (a.py:1) 5\n"
        speedscope = {"$schema": "https://www.speedscope.app/file-format-schema.json", "shared": {"frames": []}, "profiles": []}
        trace = {"traceEvents": [{"ph": "X", "dur": 5}]}
        for kind, content, told in [
                ("speedscope", json.dumps(speedscope), "1: this is a profile for speedscope: open it in"),
                ("speedscope, indented", json.dumps(speedscope, indent=1), "1: this is a profile for speedscope"),
                ("speedscope with a mark", "\ufeff" + json.dumps(speedscope), "1: this is a profile for speedscope"),
                ("JSON", json.dumps(trace, indent=0), "1: this is JSON, not collapsed stacks"),
                ("JSON in lines", '{"a": 1}\n{"a": 2}\n', "1: this is JSON"),
                ("a list", "\n  [\n1,\n2\n]\n", "2: this is JSON"),
                ("UTF-16", stacks.encode("utf-16"), "1: this is UTF-16 text: convert it first, as iconv"),
                ("UTF-16, the other way", b"\xfe\xff" + stacks.encode("utf-16-be"), "1: this is UTF-16"),
                ("UTF-16 without a mark", stacks.encode("utf-16-le"), "1: this is UTF-16"),
                ("nothing in UTF-16", b"\xff\xfe", "1: this is UTF-16"),
                ("gzip", gzip.compress(stacks.encode()), "1: this is compressed by gzip: unpack it first with gunzip"),
                ("zstd", b"\x28\xb5\x2f\xfd\x24\x05", "1: this is compressed by zstd"),
                ("xz", b"\xfd7zXZ\0\0\4", "1: this is compressed by xz"),
                ("bzip2", b"BZh91AY&SY\0\1", "1: this is compressed by bzip2"),
                ("zip", b"PK\3\4\x14\0", "1: this is a zip archive"),
                ("pprof", b"\x0a\x04\x08\x01\x10\x02\x12\x06\x0a\x02", "1: this is a binary file"),
                ("a program", b"\x7fELF\2\1\1\0\0\0", "1: this is a binary file"),
                ("perf", b"PERFILE2h\0\0", "1: this is perf's own file: give what `perf script"),
                ("our picture", draw(stacks), "1: this is an SVG picture already: open it in a browser"),
                ("an SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="5"></svg>\n', "1: this is an SVG picture already"),
                ("HTML", "<!DOCTYPE html>\n<html></html>\n", "1: this is XML or HTML"),
                ("text", "Hello world,\nthis is a letter\n" * 50, "1: the line ends with 'world,', not with a number; no line here"),
                ("difffolded", "a;b 10 20\na;c 0 7\n", "1: two values end the line, as difffolded.pl writes them"),
                ("difffolded, ours", "\n".join("thread t;f (a.py:1);g%d (a.py:2) 10.5 0" % i for i in range(30)),
                 "1: two values end the line")]:
            with self.subTest(kind=kind):
                code, picture, errors = run(content)
                self.assertEqual((code, picture), (1, b""))
                self.assertEqual(len(errors.splitlines()), 1, errors)
                self.assertTrue(errors.startswith("<stdin>:" + told), errors)

    def test_what_only_looks_like_another_kind(self):
        for text, names in [("{closure};f 3\n", ["{closure}", "f"]), ("[unsettled] 3\n", ["[unsettled]"]),
                            ("<module> (a.py:1) 4\n", ["<module> (a.py:1)"]), ("<svg> 4\n", ["<svg>"]), ("BZh 5\n", ["BZh"]),
                            ("worker 3 5\nmain 7\n", ["main", "worker 3"]), ("thread worker 3 5\n", ["thread worker 3"])]:
            with self.subTest(text=text):
                self.assertEqual([one.name for one in boxes(draw(text, "--threads"))], ["all"] + names)

    def test_named_file(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "in.collapsed")
            with open(path, "w") as file:
                file.write("a 1\nb\n")
            errors = run("", path)[2]
        self.assertEqual(errors, path + ":2: the line ends with 'b', not with a number\n")

    def test_missing_file(self):
        code, picture, errors = run("", "no/such/file")
        self.assertEqual((code, picture, errors), (1, b"", "no/such/file: No such file or directory\n"))

    def test_directory(self):
        code, _, errors = run("", "/")
        self.assertEqual((code, errors), (1, "/: Is a directory\n"))


class GoodInput(unittest.TestCase):
    def test_what_is_passed_over(self):
        plain = draw("a;b 1\n")
        for same in ["a;b 1", "a;b 1\r\n", "\n\na;b 1\n\r\n", "# note 5\n#\na;b 1\n", "a;b 1 \t\n", "a;b\t1\n",
                     "\ufeffa;b 1\r\n", "\ufeff\r\n\ufeffa;b 1\n\ufeff", "\ufeff# note\na;b 1\n"]:
            with self.subTest(text=same):
                self.assertEqual(draw(same), plain)

    def test_hash_that_is_no_comment(self):
        self.assertEqual([b.name for b in boxes(draw("#0 main;f 1\n"))], ["all", "#0 main", "f"])

    def test_no_samples(self):
        for text in ["", "\n", "a;b 0\n"]:
            with self.subTest(text=text):
                code, picture, errors = run(text, "--title", "T")
                self.assertEqual((code, errors), (0, "pyprof-svg: the input holds no samples\n"))
                texts = [t.text for t in ElementTree.fromstring(picture).iter(SVG + "text")]
                self.assertIn("No samples.", texts)
                said = " ".join(text or "" for text in texts)
                for why in ["ended before the first sample", "waiting is left out", "--rate 1000", "--idle",
                            "include_idle"]:
                    self.assertIn(why, said)

    def test_no_samples_fits_narrow_pictures(self):
        for width in [300, 500, 1200]:
            root = ElementTree.fromstring(draw("", "--width", str(width)))
            for text in root.iter(SVG + "text"):
                self.assertLess(float(text.get("y")), float(root.get("height")), width)
                self.assertLess(len(text.text or "") * 4, width)

    @unittest.skipIf(IS_SANITIZED, "address sanitizer needs more room than there is")
    def test_of_a_long_text_only_the_stacks_are_held(self):
        room = 40 << 20
        with tempfile.TemporaryFile() as text:
            for i in range(600):
                text.write(b"".join(b"main (a.py:1);work (a.py:%d);%s (b.py:1) 5\n" % (k, b"x" * 900) for k in range(100)))
            self.assertGreater(text.tell(), room)
            text.seek(0)
            done = subprocess.run([PYPROF_SVG], stdin=text, stdout=subprocess.PIPE, check=True,
                                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (room, room)))
        self.assertEqual(box(done.stdout, "main (a.py:1)").value, "300,000 samples")

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

    def test_input_is_not_replaced(self):
        """The same file as IN and OUT, by whatever names."""
        link = self.out + ".link"
        with open(self.out, "w") as file:
            file.write("a;b 1\n")
        os.symlink(self.out, link)
        for given in ([self.out, self.out], [link, self.out], [self.out, link], ["--", self.out, os.path.join(
                os.path.dirname(self.out), ".", "out.svg")]):
            code, text, errors = run("", *given)
            self.assertEqual((code, text, self.read()), (2, b"", b"a;b 1\n"))
            self.assertRegex(errors, r"\Apyprof-svg: '.*' is both IN and OUT: [^\n]*\n\Z")
        with open(self.out) as file:
            self.assertEqual(subprocess.run([PYPROF_SVG, "-", self.out], stdin=file, stderr=subprocess.DEVNULL).returncode, 2)
        self.assertEqual(self.read(), b"a;b 1\n")

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
        for word in ("--help", "--version"):
            with open("/dev/full", "w") as full:
                done = subprocess.run([PYPROF_SVG, word], stdout=full, stderr=subprocess.PIPE)
            self.assertEqual((done.returncode, done.stderr), (1, b"pyprof-svg: cannot write standard output\n"))

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

    def test_dangling_link_stays_a_link(self):
        os.mkdir(os.path.join(self.directory.name, "sub"))
        link = os.path.join(self.directory.name, "link.svg")
        for target, made in [("out.svg", self.out), ("sub/new.svg", os.path.join(self.directory.name, "sub/new.svg")),
                             (self.out, self.out)]:
            with self.subTest(target=target):
                os.symlink("second.svg", link)
                os.symlink(target, os.path.join(self.directory.name, "second.svg"))
                draw("a 1\n", "-", link)
                self.assertTrue(os.path.islink(link))
                with open(made, "rb") as file:
                    self.assertEqual(file.read(), draw("a 1\n"))
                for path in (made, link, os.path.join(self.directory.name, "second.svg")):
                    os.unlink(path)

    def test_link_to_itself(self):
        os.symlink("out.svg", self.out)
        self.assertEqual(run("a 1\n", "-", self.out)[::2], (1, self.out + ": Too many levels of symbolic links\n"))

    def test_mode(self):
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        draw("a 1\n", "-", self.out)
        self.assertEqual(stat.S_IMODE(os.stat(self.out).st_mode), 0o640)
        os.chmod(self.out, 0o600)
        draw("a 1\n", "-", self.out)
        self.assertEqual(stat.S_IMODE(os.stat(self.out).st_mode), 0o600)


class Interrupts(unittest.TestCase):
    """Ctrl-C goes to all programs of a pipeline, and the writer may have more to say."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.out = os.path.join(self.directory.name, "out.svg")

    def start(self, stdin=subprocess.PIPE, path="-", ignored=False):
        action = signal.SIG_IGN if ignored else signal.SIG_DFL
        process = subprocess.Popen([PYPROF_SVG, path, self.out], stdin=stdin, stderr=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, action))
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait_for_mask(self, process, field, wanted):
        """Until the signal is (not) in the set that the kernel tells of."""
        while True:
            with open("/proc/%d/status" % process.pid) as status:
                value = [int(line.split()[1], 16) for line in status if line.startswith(field)][0]
            if bool(value >> (signal.SIGINT - 1) & 1) == wanted:
                return
            time.sleep(0.01)

    def interrupt(self, process):
        self.wait_for_mask(process, "SigCgt", True)
        process.send_signal(signal.SIGINT)
        self.wait_for_mask(process, "SigCgt", False)

    def test_the_picture_is_drawn_of_what_comes_afterwards(self):
        process = self.start()
        process.stdin.write(b"a;b 1\n")
        process.stdin.flush()
        self.interrupt(process)
        process.stdin.write(b"a;c 2\n")
        process.stdin.close()
        self.assertEqual((process.wait(), process.stderr.read()), (0, b""))
        with open(self.out, "rb") as file:
            self.assertEqual(file.read(), draw("a;b 1\na;c 2\n"))

    def test_named_pipe_that_nobody_has_opened_yet(self):
        fifo = os.path.join(self.directory.name, "fifo")
        os.mkfifo(fifo)
        process = self.start(stdin=subprocess.DEVNULL, path=fifo)
        self.interrupt(process)
        with open(fifo, "w") as writer:
            writer.write("a 1\n")
        self.assertEqual(process.wait(), 0)
        self.assertEqual(sorted(os.listdir(self.directory.name)), ["fifo", "out.svg"])

    def test_the_second_ends_it(self):
        process = self.start()
        self.addCleanup(process.stdin.close)
        self.interrupt(process)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(), -signal.SIGINT)
        self.assertEqual(os.listdir(self.directory.name), [])

    def test_ignored_stays_ignored(self):
        process = self.start(ignored=True)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        process.stdin.write(b"a 1\n")
        process.stdin.close()
        self.assertEqual(process.wait(), 0)


class CommandLine(unittest.TestCase):
    def test_help_and_version(self):
        code, text, errors = run("", "--help")
        self.assertEqual((code, errors), (0, ""))
        for option in [b"--title", b"--subtitle", b"--width", b"--min-width", b"--inverted", b"--threads", b"--unit", b"--version"]:
            self.assertIn(option, text)
        self.assertRegex(run("", "--version")[1], rb"^pyprof-svg \d+\.\d+")
        self.assertEqual(run("", "-h"), (0, text, ""))
        self.assertEqual(run("", "-V"), run("", "--version"))

    def test_flags_take_no_value(self):
        for flag in ("--inverted", "--threads"):
            self.assertTrue(run("a 1\n", flag + "=1")[2].startswith("pyprof-svg: the option '%s' takes no value\n" % flag))

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
