#!/usr/bin/env bash
# flameshow 1.1.5 (with flamegraph-textual 0.1.2): of a pprof file that names the type of sample to be shown first, it
# shows another one, without a word.
#
# In pprof's format default_sample_type is an index into the string table: the name of the type (google/pprof,
# proto/profile.proto). flameshow takes it for an index into the list of types. In the file below, the types are
# samples, cpu, wall, and the default is "cpu", which is string 2: the flame graph that is opened is that of type 2, wall,
# and has its values. Where the name stands further back in the table than there are types, as in most files, opening
# it ends in an IndexError: only files that leave the field out, or whose first strings happen to be the names of the
# types in their order, one ahead of them, open as they ask to.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check flameshow==1.1.5 flamegraph-textual==0.1.2

cat >look.py <<'PYTHON'
import asyncio
import sys

from flamegraph_textual.parsers import profile_pb2
from flamegraph_textual.parsers.pprof_parser import ProfileParser
from flamegraph_textual.render.app import FlameshowApp

TYPES = [("samples", "count"), ("cpu", "nanoseconds"), ("wall", "nanoseconds")]
VALUES = [100, 10, 70]


def profile(strings):
    """One function on one stack; the default is cpu."""
    made = profile_pb2.Profile()
    made.string_table.extend(strings)
    for name, unit in TYPES:
        made.sample_type.add(type=strings.index(name), unit=strings.index(unit))
    made.default_sample_type = strings.index("cpu")
    made.period_type.type = strings.index("cpu")
    made.period_type.unit = strings.index("nanoseconds")
    made.period = 1
    made.mapping.add(id=1, filename=strings.index("program"), has_functions=True)
    made.function.add(id=1, name=strings.index("main"), filename=strings.index("program"))
    location = made.location.add(id=1, mapping_id=1)
    location.line.add(function_id=1, line=3)
    made.sample.add(location_id=[1], value=VALUES)
    return made.SerializeToString()


def shown_first(data):
    """Opens it as the command does, in a terminal that is none."""
    parsed = ProfileParser("program.pb").parse(data)
    app = FlameshowApp(parsed)

    async def open_it():
        async with app.run_test():
            return parsed.sample_types[app.sample_index].sample_type, parsed.root_stack.values[app.sample_index]

    return asyncio.run(open_it())


names = ["samples", "cpu", "wall", "count", "nanoseconds", "program", "main"]
if sys.argv[1] == "near":
    print("asked for: cpu 10; shown first: %s %d" % shown_first(profile([""] + names)))
else:
    try:
        print("shown first: %s %d" % shown_first(profile([""] + names[::-1])))
    except IndexError:
        print("IndexError")
PYTHON
env/bin/python look.py near | tee near.txt
env/bin/python look.py far | tee far.txt
grep -qx 'asked for: cpu 10; shown first: wall 70' near.txt || { echo "this has changed"; exit 1; }
grep -qx 'IndexError' far.txt || { echo "this has changed"; exit 1; }
