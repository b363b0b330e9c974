#!/usr/bin/env bash
# austin-python 2.4.0: austin-compress empties the file that it is to compress in place, and turns a profile of time and
# memory into one that the package's own converters refuse.
#
# 1. Its --help says of the second argument: the output file, by default the input, for compression in place. It
#    cannot be left out ("the following arguments are required: output"), and naming the input twice, the one way
#    that is left, opens the file for writing before a line of it was read: it has 0 bytes afterwards, and
#    the program ends in KeyError: 'mode'. (mojo-compress, its sibling in the same package, does both right.)
# 2. In full mode (austin -f) a sample has time, idle or not, and memory. austin-compress adds up the time only and writes it
#    under a head that still says "mode: full", two lines of the same stack apart because one was idle. Exit
#    status 0. The memory is gone, and austin2speedscope and austin2pprof, which read the input, stop at the output
#    with an AssertionError and a TypeError.
# The same formatter is behind mojo2austin, the way to text for austin 4.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check austin-python==2.4.0

cat >wall.austin <<'PROFILE'
# austin: 3.7.0
# interval: 100
# mode: wall

P1;T0:1;/a.py:main:1;/a.py:f:2 100
P1;T0:1;/a.py:main:1;/a.py:f:2 50
PROFILE
sed -e 's/wall/full/' -e 's/ 100$/ 100,1,4096/' -e 's/ 50$/ 50,0,2048/' wall.austin >full.austin

fails_with() { # message command...
  local message=$1
  shift
  if "$@" >output.txt 2>&1; then echo "this no longer fails: $*"; exit 1; fi
  grep -q "$message" output.txt || { cat output.txt; exit 1; }
}
fails_with 'arguments are required: output' env/bin/austin-compress wall.austin
cp wall.austin in-place.austin
fails_with "KeyError: 'mode'" env/bin/austin-compress in-place.austin in-place.austin
[ ! -s in-place.austin ]

env/bin/austin-compress wall.austin wall.short
grep -q '/a.py:f:2 150$' wall.short
env/bin/austin-compress full.austin full.short
grep -q '^# mode: full$' full.short
[ "$(grep '^P1' full.short | sed 's/.* //' | tr '\n' ' ')" = '100 50 ' ]
env/bin/austin2speedscope full.austin full.json
env/bin/austin2pprof full.austin full.pb
fails_with AssertionError env/bin/austin2speedscope full.short short.json
fails_with TypeError env/bin/austin2pprof full.short short.pb
echo 'austin-python 2.4.0: compressed in place, a profile of 5 lines has 0 bytes; compressed from full mode it has no' \
     'memory left and neither converter of the package reads it'
