#!/usr/bin/env bash
# py-spy 0.4.3: its flame graph leaves out, without a word, every sample of a thread that runs no Python function.
#
# A callback of atexit that is a C function (here: sum) runs without a Python frame; so do the freeing of the
# modules at exit and a thread of C between two calls into Python. py-spy samples it, and its three formats
# disagree about what it saw:
#   - raw: one line that has a blank and a value, and no stack in front (" 113");
#   - speedscope: samples with an empty stack, so the time is there, as a gap;
#   - flamegraph (the default): gone. "Samples: 204" stands on the terminal, "all (72 samples, 100%)" in the
#     picture, and the percentages of all frames are of the 72.
# The picture is drawn by inferno, which leaves out lines that it cannot read; as a program it warns of them
# ("Ignored 1 lines with invalid format"), inside py-spy that warning is not shown.
# py-spy's README and --help tell of one kind of sample that is left out, that of idle threads; sum() is not idle. Its
# issue 321 is the case in which no sample at all has a frame: an error, "No stack counts found".
# Seen on x86-64 Linux with CPython 3.11.7. The program must be allowed to trace its children.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check py-spy==0.4.3

cat >program.py <<'PROGRAM'
import atexit, time
def in_python():
    end = time.perf_counter() + 1
    while time.perf_counter() < end:
        pass
atexit.register(sum, range(60_000_000))
in_python()
PROGRAM

for format in raw speedscope flamegraph; do
  env/bin/py-spy record --rate 100 --format $format --output out.$format -- env/bin/python -I program.py >log.$format 2>&1
done

env/bin/python - <<'CHECK'
import json, re
raw = [line.rstrip("\n").rpartition(" ") for line in open("out.raw")]
frameless = sum(int(count) for stack, _, count in raw if not stack)
total = sum(int(count) for _, _, count in raw)
assert frameless > total / 5, f"raw: {frameless} of {total} samples have no stack"

profiles = json.load(open("out.speedscope"))["profiles"]
stacks = [stack for profile in profiles for stack in profile["samples"]]
empty = sum(not stack for stack in stacks)
assert empty > len(stacks) / 5, f"speedscope: {empty} of {len(stacks)} samples have no stack"

told = int(re.search(r"Samples: (\d+)", open("log.flamegraph").read()).group(1))
drawn = int(re.search(r"<title>all \((\d+) samples", open("out.flamegraph").read()).group(1))
assert drawn < told * 0.8, f"flamegraph: {drawn} of {told} samples are drawn"
assert "gnored" not in open("log.flamegraph").read(), "py-spy warns of what it leaves out"
print(f"py-spy 0.4.3: raw has {frameless} of {total} samples on a line without a stack, speedscope {empty} of "
      f"{len(stacks)} with an empty one; the flame graph shows {drawn} of {told} and says nothing")
CHECK
