#!/usr/bin/env bash
# gprof2dot 2025.4.14: collapsed stacks with functions that call each other get wrong totals, down to an empty
# picture, and the option that would count them right is broken in this release.
#
# A collapsed stack holds its functions' totals exactly: a function has each line that it stands on. gprof2dot reads
# that ("TOTAL_SAMPLES excludes loops", its source says) and then does not use it: totals are guessed from the shares of
# calls, as for gprof's files. (README: "use an heuristic to propagate time inside mutually recursive functions".)
#   1. "even;odd;even;odd 3", a stack whose outermost function is part of the recursion, as a thread's or a callback's is:
#      all totals are 0 %, one function has 100 % of its own nonetheless, and by default (nodes under 0.5 % are left
#      out) the graph has no node at all. Exit status 0, no message.
#   2. even and odd both on every line: 19 % and 99 %.
#   3. `--total=callstacks`, made for this and still told of by --help (for perf's format, though the code is there
#      for collapsed stacks, too), ends in NameError: the parser calls compat_itervalues, which this release no
#      longer has.
# `main;down;down;down 3`, a function that calls itself, is right.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check gprof2dot==2025.4.14

printf 'even;odd;even;odd 3\n' >rooted.txt
printf 'main;a;even;odd;even 10\nmain;b;odd;even;odd 90\n' >both.txt
printf 'main;down;down;down 3\n' >itself.txt
env/bin/gprof2dot --format collapse rooted.txt >default.dot
for name in rooted both itself; do
  env/bin/gprof2dot --format collapse --node-thres 0 --edge-thres 0 $name.txt >$name.dot
done
status=0
env/bin/gprof2dot --format collapse --total=callstacks both.txt >callstacks.dot 2>callstacks.txt || status=$?

env/bin/python - "$status" <<'CHECK'
import re, sys
def nodes(path):
    return {name: (float(total), float(own)) for name, total, own in
            re.findall(r'label="(\w+)\\n([\d.]+)%\\n\(([\d.]+)%\)"', open(path).read())}
assert nodes("default.dot") == {}, nodes("default.dot")
assert nodes("rooted.dot") == {"even": (0, 0), "odd": (0, 100)}, nodes("rooted.dot")
both = nodes("both.dot")
assert both["even"][0] < 25 and both["main"][0] == 100, both
assert nodes("itself.dot") == {"main": (100, 0), "down": (100, 100)}, nodes("itself.dot")
assert sys.argv[1] == "1" and "compat_itervalues" in open("callstacks.txt").read(), sys.argv[1]
print(f"gprof2dot 2025.4.14: no node for a recursion at the root; {both['even'][0]} % and {both['odd'][0]} % for two "
      "functions that are on every stack; --total=callstacks ends in NameError")
CHECK
