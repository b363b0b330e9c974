#!/usr/bin/env bash
# yappi 1.7.6: without `builtins` (the default) the time inside C functions belongs to nobody.
#
# The manual (doc/api.md) has `builtins` as a choice to profile builtin functions or not, and tsub as the time in a function
# without its sub-calls. One would expect, as with cProfile's builtins=False, that what a function does in C is then
# its own. But yappi measures the C functions in either case, takes their time from the callers' own, and only
# leaves them out when it lists: the self times of a run add up to next to nothing. A program that sleeps for
# half a second, on the wall clock:
#   yappi, default:    12 function calls in 0.000 seconds     nap: 0.000 own, 0.500 in total, calls nothing
#   cProfile(builtins=False):                                 nap: 0.500 own
# So the head line of the pstat file is 0.000 s, and every share that a reader makes of self times is of the wrong whole.
# It is the same on the CPU clock for time spent in sorted(), json, re and the like.
# Seen with CPython 3.11.7.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check yappi==1.7.6

cat >program.py <<'PROGRAM'
import cProfile, pstats, time, yappi
def nap():
    time.sleep(0.5)
def own(path):
    stats = pstats.Stats(path)
    (values,) = [values for (_, _, name), values in stats.stats.items() if name == "nap"]
    return stats.total_tt, values[2], values[3]
def with_yappi(builtins):
    yappi.clear_stats()
    yappi.set_clock_type("wall")
    yappi.start(builtins=builtins)
    nap()
    yappi.stop()
    yappi.get_func_stats().save("yappi.pstats", type="pstat")
    return own("yappi.pstats")
whole, self_time, total = with_yappi(builtins=False)
assert whole < 0.1 and self_time < 0.1 and total >= 0.5, (whole, self_time, total)
assert with_yappi(builtins=True)[0] >= 0.5
traced = cProfile.Profile(builtins=False)
traced.runcall(nap)
traced.dump_stats("traced.pstats")
assert own("traced.pstats")[1] >= 0.5, own("traced.pstats")
print(f"yappi 1.7.6, wall clock: nap() has {self_time:.3f} s of its own of {total:.1f} s in total and calls nothing; "
      f"the file's whole is {whole:.3f} s")
PROGRAM
env/bin/python program.py
