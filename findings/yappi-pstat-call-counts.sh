#!/usr/bin/env bash
# yappi 1.7.6: its pstat output has the two counts of calls the wrong way round.
#
# pstats' file has, for a function, first the primitive calls (those not made through recursion), then all calls; and for
# each of its callers the same two in the other order. yappi writes (ncall, nactualcall) in both places, where its
# manual (doc/api.md) says that nactualcall are the calls without the recursive ones: right for the callers, wrong for the
# functions. A function called once that goes 20 levels down is listed as "1/21" where cProfile has "21/1" (and
# yappi's own table, too), the head line tells of more primitive calls than calls, the time per call is
# divided by the wrong one of the two, and gprof2dot 2025.4.14 labels the function 1x, with an edge of 20x to itself.
#          1 function calls (21 primitive calls) in ...
# Seen with CPython 3.11.7.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check yappi==1.7.6 gprof2dot==2025.4.14

cat >program.py <<'PROGRAM'
import cProfile, io, pstats, yappi
def down(depth):
    if depth:
        down(depth - 1)
yappi.start()
down(20)
yappi.stop()
found = yappi.get_func_stats(filter_callback=lambda stat: stat.name == "down")
found.save("yappi.pstats", type="pstat")
(own,) = found
traced = cProfile.Profile()
traced.runcall(down, 20)
traced.dump_stats("traced.pstats")

def counts(path):
    stats = pstats.Stats(path)
    (values,) = [values for (_, _, name), values in stats.stats.items() if name == "down"]
    (callers,) = [caller for (_, _, name), caller in values[4].items() if name == "down"]
    return values[:2], callers[0]
assert (own.ncall, own.nactualcall) == (21, 1), own
assert counts("traced.pstats") == ((1, 21), 20), counts("traced.pstats")
assert counts("yappi.pstats") == ((21, 1), 20), counts("yappi.pstats")
table = io.StringIO()
pstats.Stats("yappi.pstats", stream=table).print_stats()
assert "1 function calls (21 primitive calls)" in table.getvalue(), table.getvalue()
assert "1/21" in table.getvalue(), table.getvalue()
PROGRAM
env/bin/python program.py
env/bin/gprof2dot --format pstats --node-thres 0 --edge-thres 0 yappi.pstats >yappi.dot
env/bin/python - <<'CHECK'
import re
labels = re.findall(r'label="([^"]*)"', open("yappi.dot").read())
assert any(label.endswith("down\\n100.00%\\n(100.00%)\\n1×") for label in labels), labels
print('yappi 1.7.6: a recursion of 21 calls is "1/21" in its pstat file ("21/1" in cProfile\'s) and 1x in gprof2dot')
CHECK
