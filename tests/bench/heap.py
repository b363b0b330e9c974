"""What heap sampling costs a program: stretches with it and without it, in turns, in one process, by the thread's own clock.

    python3 tests/bench/heap.py BUILD      # a folder with bench_heap, as meson builds it: build/sys/tests/bench

Three programs (small objects, JSON, parsing), each without hooks, with empty hooks that only call what was there, and with
sampling. A row is the median of the ratios of neighbouring stretches, and between which a half of them lie."""
import subprocess
import sys

PROGRAMS = {
    "small objects": "def work():\n    for i in range(3000):\n        [object() for j in range(20)]\n",
    "JSON": "import json\ndata = {str(i): [i, str(i) * 5, {'a': i / 3}] for i in range(300)}\n"
            "def work():\n    json.loads(json.dumps(data))\n",
    "parsing": "import ast\nsource = 'def f(a, b):\\n    return [a + b * c for c in range(a) if c % 2]\\n' * 40\n"
               "def work():\n    ast.parse(source)\n",
}


def median(values, part=0.5):
    return sorted(values)[int(part * (len(values) - 1) + 0.5)]


def main():
    print("%-14s %-22s %7s   %s" % ("program", "against no hooks", "median", "half of them"))
    for name, code in PROGRAMS.items():
        for mode in "empty hooks", "512 KiB", "64 KiB":
            output = subprocess.run([sys.argv[1] + "/bench_heap", mode.split()[0], code], check=True,
                                    stdout=subprocess.PIPE, universal_newlines=True).stdout
            ratios = [float(line) for line in output.split()]
            print("%-14s %-22s %7.3f   %.3f to %.3f (%d pairs)" % (name, mode, median(ratios), median(ratios, 0.25),
                                                                 median(ratios, 0.75), len(ratios)))


if __name__ == "__main__":
    main()
