"""Known shares of known work in child processes of all kinds: the profile has them, within a point, as the program itself
measured them by its threads' CPU clocks."""

import json
import os
import re
import sys
import unittest

from family import Family

POOL = """
import multiprocessing

def work(number):
    burn("in_worker_%d" % number, 0.35)

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        pool.map(work, range(4), chunksize=1)
        pool.close()
        pool.join()
    burn("in_parent", 0.5)
"""

EXECUTOR = """
import concurrent.futures

def work(number):
    burn("in_worker_%d" % number, 0.35)

if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        list(pool.map(work, range(3)))
    burn("in_parent", 0.5)
"""

PROCESS = """
import multiprocessing

if __name__ == "__main__":
    one = multiprocessing.Process(target=burn, args=("in_process", 0.6))
    one.start()
    burn("in_parent", 0.4)
    one.join()
"""

FORKS = """
def grandparent():
    pid = os.fork()
    if not pid:
        burn("in_grandchild", 0.6)
        os._exit(0)
    burn("in_child", 0.3)
    os.waitpid(pid, 0)
pid = os.fork()
if not pid:
    grandparent()
    os._exit(0)
os.waitpid(pid, 0)
burn("in_parent", 0.4)
"""

SUBPROCESS = """
import subprocess
if len(sys.argv) > 1:
    burn("in_" + sys.argv[1], float(sys.argv[2]))
    if sys.argv[1] == "child":
        subprocess.run([sys.executable, sys.argv[0], "grandchild", "0.3"], check=True)
else:
    subprocess.run([sys.executable, sys.argv[0], "child", "0.6"], check=True)
    burn("in_parent", 0.4)
"""


class Shares(Family):
    def shares_of_svg(self, path):
        """The share of each function, in percent of all that is shown."""
        titles = re.findall(r"<title>(\w+) \([^()]*\) \([^,<]*, ([0-9.]+)% of all\)</title>", self.read(path))
        shares = {}
        for name, share in titles:
            shares[name] = shares.get(name, 0) + float(share)
        return shares

    def times_of_speedscope(self, path):
        """{(pid, function): nanoseconds}"""
        found = {}
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        names = [frame["name"] for frame in data["shared"]["frames"]]
        for profile in data["profiles"]:
            pid = int(re.match(r"process (\d+) \(", profile["name"])[1])
            for stack, weight in zip(profile["samples"], profile["weights"]):
                for name in {names[frame] for frame in stack}:
                    found[pid, name] = found.get((pid, name), 0) + weight
        return found

    def compare(self, text, *arguments):
        """Again, where the machine stood still: that counts as time of whoever had the processor. Not for ever: what is wrong
        each time is no machine's fault."""
        for _ in range(2):
            try:
                return self.compare_once(text, *arguments)
            except AssertionError as wrong:
                print("again:", wrong, file=sys.stderr, flush=True)
        return self.compare_once(text, *arguments)

    def compare_once(self, text, *arguments):
        self.program("work.py", text)
        svg, speedscope = os.path.join(self.dir, "out.svg"), os.path.join(self.dir, "out.speedscope.json")
        lines, err = self.followed("work.py", *arguments, outputs=(svg, speedscope))
        truth = self.truth(lines)
        whole = sum(truth.values())
        by_pid = {(pid, name): time for (pid, _), functions in self.processes().items()
                  for name, time in functions.items()}
        drawn, timed = self.shares_of_svg(svg), self.times_of_speedscope(speedscope)
        known = sum(drawn.get(name, 0) for _, name in truth)
        for times in (by_pid, timed):
            all_of_them = sum(times.get(key, 0) for key in truth)
            for key, seconds in truth.items():
                self.assertAlmostEqual(100 * times.get(key, 0) / all_of_them, 100 * seconds / whole, delta=1, msg=(key, err))
        for (pid, name), seconds in truth.items():
            self.assertAlmostEqual(100 * drawn.get(name, 0) / known, 100 * seconds / whole, delta=1, msg=(name, err))
        return truth

    def test_pool_by_fork(self):
        self.assertEqual(len(self.compare(POOL, "fork")), 5)

    def test_pool_by_spawn(self):
        self.assertEqual(len(self.compare(POOL, "spawn")), 5)

    def test_pool_by_forkserver(self):
        self.assertEqual(len(self.compare(POOL, "forkserver")), 5)

    def test_executor(self):
        self.assertEqual(len(self.compare(EXECUTOR)), 4)

    def test_process(self):
        self.assertEqual(len(self.compare(PROCESS)), 2)

    def test_forks_and_grandchildren(self):
        self.assertEqual(len(self.compare(FORKS)), 3)

    def test_subprocesses_and_grandchildren(self):
        self.assertEqual(len(self.compare(SUBPROCESS)), 3)


if __name__ == "__main__":
    unittest.main()
