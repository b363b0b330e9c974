"""What heap sampling costs a program: stretches with it and without it, in turns, in one process, by the thread's own
clock.

    python3 tests/bench/heap.py BUILD [PYTHON]   # a folder with bench_heap, as meson builds it: build/sys/tests/bench

Three programs (small objects, JSON, parsing), each without hooks, with empty hooks that only call what was there, with
sampling, with sampling that was stopped (what is freed is followed on), and with what else says where a program's
memory went: tracemalloc, and, where PYTHON names the CPython that bench_heap embeds, memray and ddtrace's collector
(installed as for tools/dev bench; what cannot be had is named). A row is the median of the ratios of neighbouring
stretches, and between which a half of them lie. Of PYTHON also scalene, which cannot be switched on and off: whole
processes, in pairs."""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

PROGRAMS = {
    "small objects": "def work():\n    for i in range(3000):\n        [object() for j in range(20)]\n",
    "JSON": "import json\ndata = {str(i): [i, str(i) * 5, {'a': i / 3}] for i in range(300)}\n"
            "def work():\n    json.loads(json.dumps(data))\n",
    "parsing": "import ast\nsource = 'def f(a, b):\\n    return [a + b * c for c in range(a) if c % 2]\\n' * 40\n"
               "def work():\n    ast.parse(source)\n",
}
OURS = {"empty hooks": "empty", "512 KiB": "512", "64 KiB": "64", "stopped": "stopped"}

# What the row says: the package, "" = CPython's own; how it begins and ends.
TRACEMALLOC = "import tracemalloc\ndef on(): tracemalloc.start(%d)\ndef off(): tracemalloc.stop()\n"
MEMRAY = ("import memray, os\ndef on():\n    global tracker\n"
          "    to = memray.FileDestination(os.environ['TMPDIR'] + '/memray', overwrite=True)\n"
          "    tracker = memray.Tracker(destination=to, trace_python_allocators=%s); tracker.__enter__()\n"
          "def off(): tracker.__exit__(None, None, None)\n")
DDTRACE = ("from ddtrace.profiling.collector import _memalloc\ndef on(): _memalloc.start(64, 512 << 10, True)\n"
           "def off(): _memalloc.stop()\n")
PEERS = {
    "tracemalloc, 1 frame": ("", TRACEMALLOC % 1),
    "tracemalloc, 25 frames": ("", TRACEMALLOC % 25),
    "memray": ("memray", MEMRAY % False),
    "memray, pymalloc too": ("memray", MEMRAY % True),
    "ddtrace, 512 KiB": ("ddtrace", DDTRACE),
}
PAIRS = 7
# Whole processes: as many calls as take some seconds; they say how long these took by the process's clock.
WHOLE = ("\nimport time\nbegin = time.process_time()\nfor i in range(%d): work()\n"
         "print('TOOK', time.process_time() - begin)\n")
CALLS = {"small objects": 700, "JSON": 1500, "parsing": 150}


def median(values, part=0.5):
    return sorted(values)[int(part * (len(values) - 1) + 0.5)]


def show(program, row, ratios):
    print("%-14s %-24s %7.3f   %.3f to %.3f (%d pairs)" % (program, row, median(ratios), median(ratios, 0.25),
                                                         median(ratios, 0.75), len(ratios)), flush=True)


def measure(build, program, row, mode, code, environment):
    run = subprocess.run([build + "/bench_heap", mode, code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         universal_newlines=True, env=environment)
    ratios = [float(line) for line in run.stdout.split()]
    if run.returncode != 0 or not ratios:
        print("%-14s %-24s failed: %s" % (program, row, (run.stderr.strip().splitlines() or ["no output"])[-1]))
        return mode == "python"  # a peer's failure is not ours
    show(program, row, ratios)
    return True


class Peers:
    """Of a CPython, the packages that could be installed."""

    def __init__(self, python):
        self.python, self.path = "", ""
        self.lacking = dict.fromkeys(("memray", "ddtrace", "scalene"), "no PYTHON was named")
        if python:
            self.install(python)

    def install(self, python):
        import install
        environment = install.Environment(python)
        self.python = environment.python
        code = "import sysconfig; print(sysconfig.get_paths()['platlib'])"
        self.path = install.call([self.python, "-c", code]).strip()
        for name in list(self.lacking):
            try:
                environment.install(name)
                del self.lacking[name]
            except install.Missing as missing:
                self.lacking[name] = install.reason(missing)

    def seconds(self, command, environment):
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                universal_newlines=True, env=environment).stdout
        return float(next(line for line in output.splitlines() if line.startswith("TOOK")).split()[1])

    def scalene(self, program, environment):
        path = os.path.join(environment["TMPDIR"], "whole.py")
        with open(path, "w") as file:
            file.write(PROGRAMS[program] + WHOLE % CALLS[program])
        scalene = [self.python, "-m", "scalene", "run", "--memory-only", "-o", environment["TMPDIR"] + "/scalene.json",
                   path]
        try:
            show(program, "scalene, whole processes", [self.seconds(scalene, environment) / self.seconds(
                [self.python, path], environment) for _ in range(PAIRS)])
        except (subprocess.CalledProcessError, StopIteration) as error:
            print("%-14s %-24s failed: %r" % (program, "scalene", error))


def main():
    build, peers, is_right = sys.argv[1], Peers(sys.argv[2] if len(sys.argv) > 2 else ""), True
    for name, why in peers.lacking.items():
        print("no rows of %s: %s" % (name, why))
    print("%-14s %-24s %7s   %s" % ("program", "against no hooks", "median", "half of them"), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-heap-") as folder:
        environment = dict(os.environ, TMPDIR=folder)
        with_peers = dict(environment, PYTHONPATH=peers.path)
        for name, code in PROGRAMS.items():
            for row, mode in OURS.items():
                is_right &= measure(build, name, row, mode, code, environment)
            for row, (package, switch) in PEERS.items():
                if package not in peers.lacking:
                    measure(build, name, row, "python", code + switch, with_peers)
            if "scalene" not in peers.lacking:
                peers.scalene(name, environment)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
