#!/usr/bin/env bash
# pyinstrument 5.1.3: in its pstats output a recursive function has more cumulative time than the program ran.
#
# The writer adds up the time of each occurrence of a function in the tree, so a second at the bottom of a recursion
# of 20 levels is counted 21 times. Python's manual says of this column (The Python Profilers, "cumtime") that it is
# accurate even for recursive functions, and cProfile's files keep that.
# gprof2dot 2025.4.14, which the writer's own docstring names as a reader, takes the largest cumulative time of the
# file for the whole: the recursion is "100 %", the module that called it some 5 %, and the function that used all
# the time has a total of 5 % and less than its own self time.
#   ncalls  tottime  percall  cumtime  percall filename:lineno(function)
#       -1    0.000   -0.000   21.019  -21.019 program.py:5(down)
#       -1    0.000   -0.000    1.001   -1.001 program.py:1(<module>)
# (No counts of calls, -1: that is said in the source. The cumulative times are not.)
# Seen with CPython 3.11.7.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pyinstrument==5.1.3 gprof2dot==2025.4.14

cat >program.py <<'PROGRAM'
import time
def spin(end):
    while time.perf_counter() < end:
        pass
def down(depth):
    if depth:
        down(depth - 1)
    else:
        spin(time.perf_counter() + 1)
down(20)
PROGRAM
env/bin/pyinstrument --renderer pstats --outfile sampled.pstats program.py
env/bin/python -m cProfile -o traced.pstats program.py
env/bin/gprof2dot --format pstats --node-thres 0 --edge-thres 0 sampled.pstats >sampled.dot

env/bin/python - <<'CHECK'
import pstats, re
def times(path):
    stats = pstats.Stats(path)
    return stats.total_tt, {name: values[3] for (_, _, name), values in stats.stats.items()}
whole, cumulative = times("sampled.pstats")
assert cumulative["down"] > 10 * whole, f"down: {cumulative['down']} s of {whole} s"
traced_whole, traced = times("traced.pstats")
assert traced["down"] <= traced_whole * 1.001, f"cProfile, too: {traced['down']} s of {traced_whole} s"
shares = {name: (float(total), float(own)) for name, total, own in
          re.findall(r':([\w<>]+)\\n([\d.]+)%\\n\(([\d.]+)%\)', open("sampled.dot").read())}
assert shares["down"][0] == 100 and shares["<module>"][0] < 15, shares
assert shares["spin"][0] < shares["spin"][1], shares
print(f"pyinstrument 5.1.3: down() has {cumulative['down']:.1f} s of a run of {whole:.1f} s (cProfile: "
      f"{traced['down']:.1f} s); gprof2dot gives its caller {shares['<module>'][0]} % of the program, and spin() "
      f"{shares['spin'][0]} % in total with {shares['spin'][1]} % of its own")
CHECK
