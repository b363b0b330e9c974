"""A profile of several processes in every format: each process is above its threads, by its name and its id. From a file made by
hand, and from a run of pyprof-run --subprocesses."""

import json
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import exported
import pprof
from family import Family

CONVERT = os.path.join(os.environ["PYPROF_BUILD"], "tools", "pyprof-convert")
SVG = os.path.join(os.environ["PYPROF_BUILD"], "tools", "pyprof-svg")
MS = 10**6
NAMES = ["app.py", "b;(x)\\.py", "b;(x)\\.py"]  # names may hold anything
IN_TEXT = ["process 100 (app.py)", r"process 101 (b\x3b(x)\\.py)", r"process 102 (b\x3b(x)\\.py)"]


def made(names, first_pid=100):
    """Lines of a profile: each process has two threads, in one function for as many milliseconds as its number says."""
    rows = [{"type": "facts", "format": "pyprof-jsonl", "version": 1, "program": "/usr/bin/python3", "process": "python3",
             "python": "3.11.2", "start_ns": 5, "duration_ns": 1000 * MS, "interval_us": 10000, "stats": {"samples": 100}},
            {"type": "function", "id": 0, "name": "work", "path": "/srv/app.py", "file": "app.py", "first_line": 3}]
    spans, number = [], 0
    for process, name in enumerate(names):
        for thread in ("MainThread", "other"):
            figures = {"samples": 0, "samples_idle": 0, "wall_ns": 0, "wall_idle_ns": 0, "cpu_ns": 0, "gil_ns": 0}
            row = {"type": "thread", "id": number, "name": thread, "tid": 0, "is_named": True, **figures}
            if name is not None:
                row.update(process=name, pid=first_pid + process)
            wall = (process + 1) * 10 * MS
            figures.update(samples=process + 1, wall_ns=wall, cpu_ns=wall, gil_ns=wall)
            rows += [row, {"type": "node", "id": number + 1, "parent": number, "function": 0, "line": 4, **figures}]
            spans.append({"type": "span", "thread": number // 2, "node": number + 1, "start_ns": process * MS,
                          "wall_ns": wall, "cpu_ns": wall, "samples": process + 1, "is_idle": False, "has_gil": True})
            number += 2
    rows += spans + [{"type": "end", "nodes": number, "spans": len(spans)}]
    return "".join(json.dumps(row) + "\n" for row in rows)


class Formats(Family):
    def setUp(self):
        super().setUp()
        self.source = self.file("in.jsonl", made(NAMES))

    def convert(self, name, source=None, *options):
        path = os.path.join(self.work, name)
        subprocess.run([CONVERT, source or self.source, "-o", path, *options], check=True)
        with open(path, "rb") as file:
            return file.read()

    def test_collapsed(self):
        text = self.convert("a.txt").decode()
        self.assertEqual(text.splitlines(), ["%s;thread %s;work (app.py:4) %d" % (IN_TEXT[i], thread, (i + 1) * 10000)
                                             for i in range(3) for thread in ("MainThread", "other")])
        again = self.convert("b.txt", os.path.join(self.work, "a.txt")).decode()
        self.assertEqual(text, again)

    def test_jsonl_keeps_all(self):
        first = self.convert("a.jsonl")
        self.assertEqual(first, self.convert("b.jsonl", os.path.join(self.work, "a.jsonl")))
        threads = [row for row in map(json.loads, first.decode().splitlines()) if row["type"] == "thread"]
        self.assertEqual([(row["process"], row["pid"], row["name"]) for row in threads],
                         [(NAMES[i], 100 + i, thread) for i in range(3) for thread in ("MainThread", "other")])
        exported.read_jsonl(first.decode())

    def test_pprof_has_labels_and_keeps_them(self):
        first = self.convert("a.pb.gz")
        found = {(sample.labels["process"], sample.labels["pid"], sample.labels["thread"]): sample.values["wall"]
                 for sample in pprof.read(first).samples}
        self.assertEqual(found, {(NAMES[i], 100 + i, thread): (i + 1) * 10 * MS for i in range(3)
                                 for thread in ("MainThread", "other")})
        self.assertEqual(first, self.convert("b.pb.gz", os.path.join(self.work, "a.pb.gz")))
        self.assertEqual(self.convert("c.txt", os.path.join(self.work, "a.pb.gz")), self.convert("a.txt"))

    def test_speedscope(self):
        names = [profile["name"] for profile in json.loads(self.convert("a.json"))["profiles"]]
        self.assertEqual(names, ["process %d (%s), %s" % (100 + i, NAMES[i], thread)
                                 for i in range(3) for thread in ("MainThread", "other")])

    def test_table(self):
        text = self.convert("a.txt", None, "-f", "table").decode()
        self.assertRegex(text, r"(?m)^ +60\.000 +0\.000 +60\.000 +60\.000  process 102 \(b\\x3b\(x\)\\\\\.py\)$")
        self.assertRegex(text, r"(?m)^ +10\.000 +0\.000 +10\.000 +10\.000  100: MainThread$")

    def test_pstats(self):
        rows = exported.read_pstats(self.convert("a.pstats"))
        names = ["process %d (%s)" % (100 + i, NAMES[i]) for i in range(3)]
        for i, name in enumerate(names):
            self.assertEqual(rows["~", 0, name][2:4], (0, (i + 1) * 20 * MS))
        self.assertEqual(sorted(name for _, _, name in rows["/srv/app.py", 3, "work"][4]), sorted(names))

    def test_firefox(self):
        threads = json.loads(self.convert("a.firefox.json"))["threads"]
        self.assertEqual([(thread["pid"], thread["processName"], thread["name"], thread["isMainThread"]) for thread in threads],
                         [(str(100 + i), NAMES[i], name, name == "MainThread") for i in range(3)
                          for name in ("MainThread", "other")])
        self.assertEqual(len({thread["tid"] for thread in threads}), 6)

    def test_perfetto(self):
        events = json.loads(self.convert("a.perfetto.json"))["traceEvents"]
        self.assertEqual({event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"},
                         {100 + i: NAMES[i] for i in range(3)})
        self.assertEqual({(event["pid"], event["dur"]) for event in events if event["ph"] == "X"},
                         {(100 + i, (i + 1) * 10000) for i in range(3)})

    def test_svg(self):
        """Threads together, as a picture is at first; drawn by us, and by pyprof-svg from our text, whose unit it knows."""
        self.convert("a.txt")
        subprocess.run([SVG, os.path.join(self.work, "a.txt"), os.path.join(self.work, "c.svg")], check=True)
        for text in (self.convert("a.svg").decode(), self.read(os.path.join(self.work, "c.svg"))):
            titles = re.findall(r"<title>(process .*) \(([0-9.]+ ms), ([0-9.]+)% of all\)</title>", text)
            self.assertEqual(sorted(titles), sorted(zip(IN_TEXT, ("20.0 ms", "40.0 ms", "60.0 ms"), ("16.7", "33.3", "50.0"))))

    def test_many_of_a_program_are_one(self):
        """But for the first process of all; what is read by programs has them all."""
        self.source = self.file("in.jsonl", made(["app.py"] * 40))
        rows = {stack: int(value) for stack, value in (line.rsplit(" ", 1) for line in
                                                       self.convert("a.txt").decode().splitlines())}
        rest = sum((i + 1) * 10000 for i in range(1, 40))
        self.assertEqual(rows, {"process %s (app.py);thread %s;work (app.py:4)" % (pid, thread): value
                                for pid, value in (("100", 10000), ("*", rest)) for thread in ("MainThread", "other")})
        self.assertEqual({sample.labels["pid"] for sample in pprof.read(self.convert("a.pb")).samples},
                         set(range(100, 140)))
        self.assertEqual(len({thread["pid"] for thread in json.loads(self.convert("a.firefox.json"))["threads"]}), 40)
        self.source = self.file("in.jsonl", made(["app.py"] * 16))
        self.assertEqual(len(self.convert("a.txt").decode().splitlines()), 32)

    def test_one_process_is_as_ever(self):
        self.source = self.file("in.jsonl", made([None]))
        for name in ("a.txt", "a.json", "a.pb", "a.jsonl", "a.svg", "a.pstats"):
            self.assertNotIn(b"process 1", self.convert(name))
        labels = {key for sample in pprof.read(self.convert("a.pb")).samples for key in sample.labels}
        self.assertEqual(labels & {"process", "pid"}, set())

    def test_merged_threads_and_filters(self):
        text = self.convert("a.txt", None, "--only-thread", "other").decode()
        self.assertEqual([line.split(";")[:2] for line in text.splitlines()], [[name, "thread other"] for name in IN_TEXT])

    def test_of_a_run(self):
        """All formats at once: the same processes in each."""
        self.program("work.py", """
pids = []
for i in range(2):
    pids.append(os.fork())
    if not pids[-1]:
        burn("in_child", 0.1)
        os._exit(0)
for pid in pids:
    os.waitpid(pid, 0)
burn("in_parent", 0.1)
print(os.getpid(), *pids)
""")
        paths = {ending: os.path.join(self.work, "out." + ending) for ending in
                 ("json", "pb.gz", "jsonl", "firefox.json", "perfetto.json", "svg", "pstats")}
        lines, _ = self.followed("work.py", outputs=paths.values())
        pids = {int(pid) for pid in [line for line in lines if not line.startswith("[")][0].split()}
        data = {}
        for ending, path in paths.items():
            with open(path, "rb") as file:
                data[ending] = file.read()
        names = {"process %d (work.py)" % pid for pid in pids}
        self.assertEqual({pid for pid, _ in self.processes()}, pids)
        self.assertEqual({profile["name"].split(",")[0] for profile in json.loads(data["json"])["profiles"]}, names)
        self.assertEqual({sample.labels["pid"] for sample in pprof.read(data["pb.gz"]).samples}, pids)
        self.assertEqual({row["pid"] for row in map(json.loads, data["jsonl"].decode().splitlines())
                          if row["type"] == "thread"}, pids)
        self.assertEqual({int(thread["pid"]) for thread in json.loads(data["firefox.json"])["threads"]}, pids)
        self.assertEqual({event["pid"] for event in json.loads(data["perfetto.json"])["traceEvents"]}, pids)
        self.assertEqual(set(re.findall(r"<title>(process \d+ \(work\.py\)) \(", data["svg"].decode())), names)
        self.assertEqual({row[2] for row in exported.read_pstats(data["pstats"]) if row[2].startswith("process ")}, names)


if __name__ == "__main__":
    unittest.main()
