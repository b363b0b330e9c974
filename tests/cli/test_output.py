"""What pyprof-run writes, and where: it is the same for every CPython."""

import ctypes
import json
import marshal
import os
import re
import stat
import subprocess
import unittest
import xml.etree.ElementTree

from case import BUSY, Case, RUN, TIMEOUT, VERSION, lines_of_ours
import collapsed
import pprof


class Output(Case):
    def setUp(self):
        super().setUp()
        self.file("prog.py", BUSY + "busy()\nprint('said')\n")

    def run_to(self, *arguments, **more):
        code, out, err = self.call([RUN, "-q", "-r", "1000", *arguments, "prog.py"], **more)
        self.assertEqual((code, out, err), (0, "said\n", ""))

    def assertCollapsed(self, text):
        self.assertTrue(collapsed.parse(text))
        self.assertRegex(text, r"(?m)^thread MainThread;<module> \(prog\.py:10\);busy \(prog\.py:9\);"
                               r"leaf_of_busy \(prog\.py:[456]\) \d+$")

    def assertSpeedscope(self, text):
        document = json.loads(text)
        self.assertLessEqual({"busy", "leaf_of_busy"},
                             {re.sub(r" \(.*", "", frame["name"]) for frame in document["shared"]["frames"]})
        self.assertIn("speedscope.app/file-format-schema", document["$schema"])

    def assertSvg(self, text):
        root = xml.etree.ElementTree.fromstring(text)
        self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
        self.assertIn("leaf_of_busy", text)
        self.assertIn("prog", text)

    def assertTable(self, text):
        self.assertRegex(text, r"\Aprog, CPython 3\.[^\n]+\n[^\n]+ at [0-9.]+ Hz, [0-9]+ samples?")
        self.assertRegex(text, r"\n\n +self m?s +total m?s +function\n(?: .+ [^ ]+ \(.*:[0-9]+\)\n)+")
        self.assertRegex(text, r" MainThread\n\Z")
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def assertPprof(self, data):
        profile = pprof.read(data)
        stacks = [[(frame.name, frame.line) for frame in sample.stack] for sample in profile.samples]
        self.assertTrue([stack for stack in stacks if stack[0][0] == "leaf_of_busy" and stack[1] == ("busy", 9)], stacks)
        self.assertEqual({sample.labels["thread"] for sample in profile.samples}, {"MainThread"})
        self.assertRegex(profile.program, "/python3[^/]*$")
        self.assertEqual(profile.period, 1000000)

    def assertGzip(self, data):
        self.assertEqual(data[:2], b"\x1f\x8b")
        self.assertPprof(data)

    def assertPlain(self, data):
        self.assertNotEqual(data[:2], b"\x1f\x8b")
        self.assertPprof(data)

    def assertPstats(self, data):
        names = {name for (_, _, name) in marshal.loads(data)}
        self.assertLessEqual({"busy", "leaf_of_busy"}, names)

    def assertFirefox(self, text):
        document = json.loads(text)
        self.assertIn("MainThread", [thread["name"] for thread in document["threads"]])
        self.assertIn("preprocessedProfileVersion", document["meta"])
        self.assertIn("leaf_of_busy", document["shared"]["stringArray"])

    def assertPerfetto(self, text):
        document = json.loads(text)
        events = document["traceEvents"] if isinstance(document, dict) else document
        self.assertIn("leaf_of_busy", {event["name"].split(" ")[0] for event in events if event["ph"] == "X"})

    def assertJsonl(self, text):
        lines = [json.loads(line) for line in text.splitlines()]
        self.assertEqual([lines[0]["type"], lines[-1]["type"]], ["facts", "end"])
        self.assertIn("leaf_of_busy", {line["name"] for line in lines if line["type"] == "function"})

    CHECKS = {"svg": "assertSvg", "collapsed": "assertCollapsed", "speedscope": "assertSpeedscope", "table": "assertTable",
              "firefox": "assertFirefox", "perfetto": "assertPerfetto", "jsonl": "assertJsonl"}
    BINARY = {"pprof": "assertGzip", "plain pprof": "assertPlain", "pstats": "assertPstats"}

    def check(self, kind, path):
        if kind in self.BINARY:
            with open(path, "rb") as file:
                getattr(self, self.BINARY[kind])(file.read())
        else:
            getattr(self, self.CHECKS[kind])(self.read(path))

    def test_formats_by_name(self):
        for name, kind in (("svg", "svg"), ("flamegraph", "svg"), ("collapsed", "collapsed"), ("raw", "collapsed"),
                           ("json", "speedscope"), ("speedscope", "speedscope"), ("table", "table"),
                           ("pprof", "pprof"), ("pstats", "pstats"), ("firefox", "firefox"), ("jsonl", "jsonl"),
                           ("perfetto", "perfetto"), ("chrometrace", "perfetto")):
            with self.subTest(name):
                path = os.path.join(self.work, "profile")
                self.run_to("-o", path, "--format", name)
                self.check(kind, path)
                os.unlink(path)
                self.assertEqual(os.listdir(self.work), ["prog.py"])

    def test_memory(self):
        """Ten thousand stacks need more than the least, and far less than what is taken if nothing is asked for: so also
        after an exec that failed, where the recording begins anew."""
        self.file("many.py", "import random, os, sys\nrandom.seed(7)\n"
                  "def even(depth, path): return depth and (odd if path & 1 else even)(depth - 1, path >> 1)\n"
                  "def odd(depth, path): return depth and (odd if path & 1 else even)(depth - 1, path >> 1)\n"
                  "def many(seconds):\n"
                  "    import time\n"
                  "    end = time.process_time() + seconds\n"
                  "    while time.process_time() < end: even(60, random.getrandbits(60))\n"
                  "if len(sys.argv) > 1:\n"
                  "    try: os.execv('/nosuchfile', ['x'])\n"
                  "    except OSError: pass\n"
                  "many(1)\n")
        for memory, words, is_told in (((), (), False), ((), ("exec",), False), (("--memory", "1M"), (), True)):
            with self.subTest((memory, words)):
                code, out, err = self.call([RUN, "-r", "10000", "-o", "x.txt", *memory, "many.py", *words])
                self.assertEqual((code, out), (0, ""))
                self.assertEqual("found no room: see --memory" in err, is_told, err)

    def test_formats_by_ending(self):
        for ending, kind in (("x.svg", "svg"), ("x.collapsed", "collapsed"), ("x.txt", "collapsed"),
                             ("x.speedscope.json", "speedscope"), ("x.json", "speedscope"), ("x", "svg"),
                             ("x.pb.gz", "pprof"), ("x.pb", "plain pprof"), ("X.PB.GZ", "pprof"), ("x.pstats", "pstats"),
                             ("x.prof", "pstats"), ("x.firefox.json", "firefox"), ("x.trace.json", "perfetto"),
                             ("x.perfetto.json", "perfetto"), ("x.jsonl", "jsonl"), ("x.ndjson", "jsonl")):
            with self.subTest(ending):
                path = os.path.join(self.work, ending)
                self.run_to("--output=" + path)
                self.check(kind, path)
                os.unlink(path)
                self.assertEqual(os.listdir(self.work), ["prog.py"])

    def test_table(self):
        """Without a file it is printed, once the program has ended, where the program's own output is not."""
        for quiet in (), ("-q",):
            code, out, err = self.call([RUN, *quiet, "-r", "1000", "-f", "table", "prog.py"])
            self.assertEqual((code, out), (0, "said\n"))
            if not quiet:
                err, last = re.fullmatch(r"(.*\n)(pyprof-run: .*\n)", "".join(
                    line for line in err.splitlines(True) if "warning" not in line), re.DOTALL).groups()
                self.assertRegex(last, r"\Apyprof-run: \d+ samples in [\d.]+ s \([^)]+\)\n\Z")
            self.assertTable(err)
            self.assertEqual(os.listdir(self.work), ["prog.py"])
        for name in "x.txt", "x.log", "x":  # text, and said to be a table
            self.run_to("-f", "table", "-o", name)
            self.assertTable(self.read(os.path.join(self.work, name)))
        code, out, err = self.call([RUN, "-f", "table", "-o", "x.svg", "prog.py"])
        self.assertEqual((code, out), (2, ""))
        self.assertIn("the ending of 'x.svg' means svg, --format says table", err)

    def test_a_format_that_contradicts_the_ending(self):
        for arguments in (["-o", "x.svg", "-fcollapsed"], ["-f", "json", "-o", "x.txt"], ["-f", "svg", "-o", "x.JSON"],
                          ["-o", "x.svg", "-o", "x.json", "--format", "svg"], ["-f", "svg", "-o", "x.pb"],
                          ["-f", "pprof", "-o", "x.svg"], ["-o", "x.pb.gz", "-f", "speedscope"],
                          ["-f", "pstats", "-o", "x.json"], ["-f", "perfetto", "-o", "x.firefox.json"]):
            with self.subTest(arguments):
                code, out, err = self.call([RUN, *arguments, "prog.py"])
                self.assertEqual((code, out), (2, ""), "the program must not have run")
                self.assertRegex(err, r"^pyprof-run: --output: the ending of 'x\.[\w.]+' means \w+, --format says \w+\n")
        self.run_to("-f", "collapsed", "-o", "x.txt", "-o", "y")
        self.check("collapsed", os.path.join(self.work, "x.txt"))
        self.check("collapsed", os.path.join(self.work, "y"))

    def test_several_from_one_run(self):
        endings = {"a.svg": "svg", "b.json": "speedscope", "c.txt": "collapsed", "d.folded": "collapsed", "E.SVG": "svg",
                   "f.pb.gz": "pprof", "g.pb": "plain pprof", "h.pstats": "pstats", "i.firefox.json": "firefox",
                   "j.perfetto.json": "perfetto", "k.jsonl": "jsonl"}
        self.run_to(*[word for name in endings for word in ("-o", name)])
        for name, kind in endings.items():
            self.check(kind, os.path.join(self.work, name))
        self.assertEqual(sorted(os.listdir(self.work)), sorted([*endings, "prog.py"]))

    def test_filters(self):
        """What is left out of the text is what the option says; together they leave what passes all."""
        self.file("both.py", BUSY + "import threading\n"
                  "def other():\n    busy()\n"
                  "thread = threading.Thread(target=other, name='helper')\n"
                  "thread.start()\nbusy()\nthread.join()\n")
        for options, kept, gone in (
                (["--only-thread", "help*"], "thread helper;", "thread MainThread"),
                (["--only-function", "other"], ";other (both.py:", "thread MainThread"),
                (["--only-file", "*both.p"], "leaf_of_busy (both.py:", "<frozen site>"),
                (["--only-mine"], "leaf_of_busy (both.py:", "(threading.py"),
                (["--only-interpreter", "main"], "thread helper;", "[interpreter"),
                (["--min-share", "0.1"], "busy (both.py:", "<frozen site>"),
                (["--only-thread", "MainThread", "--only-function", "busy"], "thread MainThread;", "thread helper")):
            with self.subTest(options):
                code, _, err = self.call([RUN, "-q", "-r", "1000", "-o", "x.txt", *options, "both.py"])
                self.assertEqual((code, err), (0, ""))
                text = self.read(os.path.join(self.work, "x.txt"))
                self.assertIn(kept, text)
                self.assertNotIn(gone, text)
        code, _, err = self.call([RUN, "-q", "-r", "1000", "-o", "x.svg", "--only-thread", "nobody", "both.py"])
        self.assertEqual((code, err), (0, ""))
        self.assertIn("passes the --only- options", self.read(os.path.join(self.work, "x.svg")))

    def test_default_names(self):
        stamp = r"-\d{8}-\d{6}(-\d+)?\."
        for arguments, pattern, kind in (
                (["prog.py"], "prog" + stamp + "svg", "svg"),
                (["-f", "collapsed", "./prog.py"], "prog" + stamp + r"collapsed\.txt", "collapsed"),
                (["-f", "speedscope", "-m", "prog"], "prog" + stamp + r"speedscope\.json", "speedscope"),
                (["-f", "pprof", "prog.py"], "prog" + stamp + r"pb\.gz", "pprof"),
                (["-f", "pstats", "prog.py"], "prog" + stamp + "pstats", "pstats"),
                (["-f", "firefox", "prog.py"], "prog" + stamp + r"firefox\.json", "firefox"),
                (["-f", "perfetto", "prog.py"], "prog" + stamp + r"perfetto\.json", "perfetto"),
                (["-f", "jsonl", "prog.py"], "prog" + stamp + "jsonl", "jsonl"),
                (["-c", "import prog"], "command" + stamp + "svg", "svg"),
                (["-"], "stdin" + stamp + "svg", "svg")):
            with self.subTest(arguments):
                self.assertEqual(self.call([RUN, "-r", "1000", *arguments], stdin="import prog\n")[0], 0)
                made = [name for name in os.listdir(self.work) if name != "prog.py"]
                self.assertEqual(len(made), 1, made)
                self.assertRegex(made[0], "^%s$" % pattern)
                self.check(kind, os.path.join(self.work, made[0]))
                os.unlink(os.path.join(self.work, made[0]))

    def test_default_names_never_meet(self):
        for _ in range(3):
            self.assertEqual(self.call([RUN, "-c", "pass"])[0], 0)
        self.assertEqual(len(os.listdir(self.work)), 4)

    def test_the_name_is_meant_where_it_was_given(self):
        self.file("move.py", "import os\nos.chdir('/')\n")
        self.assertEqual(self.call([RUN, "-q", "-o", "here.svg", "move.py"]), (0, "", ""))
        self.assertIn("here.svg", os.listdir(self.work))

    def test_an_older_file_is_replaced(self):
        for name in ("x.svg", "x.collapsed", "x.json"):
            path = self.file(name, "old")
            self.run_to("-o", path)
            self.assertNotIn("old", self.read(path)[:3])
        self.assertEqual(sorted(os.listdir(self.work)), ["prog.py", "x.collapsed", "x.json", "x.svg"])

    def test_standard_output(self):
        for name in ("-", "/dev/stdout"):
            code, out, err = self.call([RUN, "-q", "-r", "1000", "-f", "collapsed", "-o", name, "prog.py"])
            self.assertEqual((code, err), (0, ""))
            self.assertTrue(out.startswith("said\n"))
            self.assertCollapsed(out[len("said\n"):])

    def test_pipe(self):
        pipe = os.path.join(self.work, "pipe")
        os.mkfifo(pipe)
        for kind in self.CHECKS:
            with self.subTest(kind):
                reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, universal_newlines=True)
                self.run_to("-o", pipe, "-f", kind)
                getattr(self, self.CHECKS[kind])(reader.communicate(timeout=TIMEOUT)[0])
                self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))

    def test_pipe_that_nobody_reads_yet(self):
        """It is waited for, in a line; and no longer than the program is there."""
        os.mkfifo(os.path.join(self.work, "pipe"))
        program = self.start([RUN, "-r", "1000", "-f", "raw", "-o", "pipe", "prog.py"])
        self.assertEqual(program.stderr.readline(), "pyprof-run: waiting for somebody to read pipe\n")
        self.assertCollapsed(self.read(os.path.join(self.work, "pipe")))
        self.assertEqual(program.communicate(timeout=TIMEOUT)[0], "said\n")
        self.assertEqual(program.returncode, 0)
        program = self.start([RUN, "-r", "1000", "-f", "raw", "-o", "pipe", "prog.py"])
        program.stderr.readline()
        program.kill()
        self.assertEqual(lines_of_ours(program.communicate(timeout=TIMEOUT)[1].splitlines()),
                         ["pyprof-run: cannot write pipe: Broken pipe"])

    def test_descriptor_that_the_program_closes(self):
        for redirection in ("3> profile", "3> >(cat > profile)"):
            self.assertEqual(self.call(["bash", "-c", "%s -q -r 1000 -f raw -o /dev/fd/3 -c 'import os; os.closerange(3, 999)\n"
                                        "import prog' %s; code=$?; wait $!; exit $code" % (RUN, redirection)]), (0, "said\n", ""))
            self.assertIn(";busy (prog.py:9);leaf_of_busy (prog.py:", self.read(os.path.join(self.work, "profile")))

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_standard_output_that_cannot_be_made_anew(self):
        """A file of another user's, in a folder that is not to be written. By root, as nobody else may come near a clone in
        root's home; without the right to write everywhere (prctl: PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)."""
        out = self.file("theirs")
        with open(out, "w", encoding="utf-8") as file:
            for path in (out, self.work):
                os.chown(path, 65534, 65534)
            prctl = ctypes.CDLL(None, use_errno=True).prctl
            code = subprocess.call([RUN, "-q", "-r", "1000", "-f", "raw", "-o", "-", "prog.py"], cwd=self.work, env=self.env,
                                   stdout=file, preexec_fn=lambda: prctl(24, 1, 0, 0, 0) == 0 or os.abort())
        self.assertEqual(sorted(os.listdir(self.work)), ["prog.py", "theirs"])
        self.assertEqual((code, self.read(out)[:5]), (0, "said\n"))
        self.assertCollapsed(self.read(out)[5:])

    def test_unwritable(self):
        os.mkdir(os.path.join(self.work, "directory.svg"))
        for path in ("missing/x.svg", "directory.svg", "prog.py/x.svg", "/proc/x.svg"):
            with self.subTest(path):
                code, out, err = self.call([RUN, "-o", path, "prog.py"])
                self.assertEqual((code, out), (2, ""), "the program must not have run")
                self.assertRegex(err, r"^pyprof-run: cannot write %s: .+\n$" % re.escape(path))
        self.assertEqual(sorted(os.listdir(self.work)), ["directory.svg", "prog.py"])

    def test_the_place_vanishes(self):
        self.file("vanish.py", "import shutil\nshutil.rmtree('place')\nprint('said')\n")
        for kind in self.CHECKS:
            os.mkdir(os.path.join(self.work, "place"))
            code, out, err = self.call([RUN, "-f", kind, "-o", "place/x", "vanish.py"])
            self.assertEqual((code, out), (1, "said\n"))
            self.assertIn("No such file or directory", err)

    def test_full_disk(self):
        for kind in self.CHECKS:
            for end, expected in (("pass", 1), ("raise SystemExit(0)", 1), ("raise SystemExit(3)", 3), ("1/0", 1),
                                  ("import os; os.fork() or os._exit(0); raise SystemExit", 1)):
                with self.subTest(kind + ": " + end):
                    code, out, err = self.call([RUN, "-r", "1000", "-f", kind, "-o", "/dev/full", "-c",
                                                "import prog\n" + end])
                    self.assertEqual((code, out), (expected, "said\n"))
                    self.assertIn("/dev/full: No space left on device", err)
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/full").st_mode))

    def test_picture_has_all_that_is_known(self):
        """Whatever is asked for is shown first, to what collapsed text says; who looks may choose the rest."""
        for options, metric, idle in ([], 0, 0), (["--idle"], 0, 1), (["--metric", "cpu"], 1, 0), (["--metric", "gil"], 2, 0):
            self.run_to(*options, "-o", "a.svg", "-o", "a.txt")
            picture = self.read(os.path.join(self.work, "a.svg"))
            self.assertIn('metric: %d, idle: %d, figures: 1, facts: "prog ' % (metric, idle), picture)
            amount, unit = re.search(r">([0-9.,]+) (s|ms|us|\u00b5s) in all", picture).groups()
            shown = float(amount.replace(",", "")) * {"s": 1e6, "ms": 1e3}.get(unit, 1)
            stacks = collapsed.parse(self.read(os.path.join(self.work, "a.txt")))
            self.assertAlmostEqual(shown / sum(stack.value for stack in stacks), 1, delta=0.01)

    def test_one_of_several_fails(self):
        """What was written is told all the same."""
        code, out, err = self.call([RUN, "-r", "1000", "-o", "a.svg", "-o", "/dev/full", "-o", "b.json", "prog.py"])
        self.assertEqual((code, out), (1, "said\n"))
        failed, last = lines_of_ours(err.splitlines())
        self.assertEqual(failed, "pyprof-run: cannot write /dev/full: No space left on device")
        self.assertRegex(last, r"^pyprof-run: \d+ samples in .*; wrote a\.svg, b\.json$")
        picture = self.read(os.path.join(self.work, "a.svg"))
        self.assertSvg(picture)
        self.assertRegex(picture, r'<text id="facts"[^>]*>prog · Python 3\.\d+\.\S+ · 20\d\d-\d\d-\d\d \d\d:\d\d UTC · '
                                  r'[\d.]+ m?s · 1000 Hz · [\d,]+ samples?, (none|[\d,]+) lost</text>')
        self.assertSpeedscope(self.read(os.path.join(self.work, "b.json")))

    def test_missing_script(self):
        code, out, err = self.call([RUN, "-o", self.out, "missing.py"])
        self.assertEqual((code, out, err), (2, "", "pyprof-run: cannot open missing.py: there is no such file, and no "
                                               "program of that name on PATH\n"))
        self.assertFalse(os.path.exists(self.out))

    def test_bad_arguments(self):
        for arguments, message in (
                ([], "nothing to run"), (["-o"], "-o needs a value"), (["-m"], "-m needs a value"),
                (["-c"], "-c needs a value"), (["-X"], "-X needs a value"), (["--rate"], "--rate needs a value"), (["-z", "prog.py"], "-z"),
                (["--zoom", "prog.py"], "--zoom"), (["-r", "0", "prog.py"], "--rate: '0'"),
                (["-r", "-5", "prog.py"], "--rate: '-5'"), (["-r", "x", "prog.py"], "--rate: 'x'"),
                (["-r", "100x", "prog.py"], "--rate: '100x'"), (["-r", "nan", "prog.py"], "--rate: 'nan'"),
                (["-r", "", "prog.py"], "--rate: ''"), (["-r", "20001", "prog.py"], "--rate: '20001'"),
                (["-d", "0", "prog.py"], "--duration: '0'"), (["-d", "inf", "prog.py"], "--duration: 'inf'"),
                (["-f", "png", "prog.py"], "--format: 'png'"), (["--metric", "heap", "prog.py"], "--metric: 'heap'"),
                (["--idle=3", "prog.py"], "-i"), (["-o", "x.html", "prog.py"], "the ending of 'x.html'"),
                (["-o", "", "prog.py"], "--output: an empty name")):
            with self.subTest(arguments):
                code, out, err = self.call([RUN, *arguments])
                self.assertEqual((code, out), (2, ""))
                self.assertTrue(err.startswith("pyprof-run: "), err)
                self.assertIn(message, err)
        self.assertEqual(os.listdir(self.work), ["prog.py"])

    def test_help_and_version(self):
        for option in ("--help", "-h"):
            code, out, err = self.call([RUN, option])
            self.assertEqual((code, err), (0, ""))
            for name in ("--output", "--format", "--rate", "--duration", "--metric", "--idle", "--function", "-m", "-c", "table"):
                self.assertIn(name, out)
        code, out, err = self.call([RUN, "--version"])
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"^pyprof-run \d+\.\d+.*, CPython %d\.%d" % VERSION)
        with open("/dev/full", "w") as full:
            self.assertEqual(subprocess.call([RUN, "--help"], stdout=full), 1)


if __name__ == "__main__":
    unittest.main()
