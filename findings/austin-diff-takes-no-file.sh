#!/usr/bin/env bash
# austin-python 2.4.0 and 1.7.1: austin-diff, the package's tool that compares two profiles, fails on every pair of files.
#
# 1. It hands the two files as they were opened to a function that needs the package's own reader (it asks what kind of
#    event each line is, and for the file's metadata), so it ends in a traceback: at austin's head and at a plain
#    collapsed line alike in 2.4.0 (AssertionError), at either in 1.7.1 (ValueError, AttributeError). Even a file
#    that the package's own austin-compress wrote will not do, nor a file compared with itself.
# 2. Called from Python with that reader, 2.4.0 comes one step further: it subtracts one sample's metrics from another's,
#    and they are of a class that cannot be subtracted (TypeError).
# So who wants to know what got slower between two austin profiles has to compare collapsed text by other means.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for version in 2.4.0 1.7.1; do
  python3 -m venv "$version"
  "$version/bin/pip" install --quiet --disable-pip-version-check "austin-python==$version"
done

cat >before.austin <<'PROFILE'
# austin: 3.7.0
# interval: 100
# mode: wall

P1;T0:1;/a.py:main:1;/a.py:f:2 100
PROFILE
sed 's/ 100$/ 150/' before.austin >after.austin
for name in before after; do grep '^P1' "$name.austin" >"$name.collapsed"; done
2.4.0/bin/austin-compress before.austin compressed.austin
2.4.0/bin/austin2speedscope before.austin before.json # the package reads the file otherwise

fails_with() { # message command...
  local message=$1
  shift
  if "$@" >output.txt 2>&1; then echo "this no longer fails: $*"; exit 1; fi
  grep -q "^$message" output.txt || { cat output.txt; exit 1; }
}
fails_with AssertionError 2.4.0/bin/austin-diff after.austin before.austin
fails_with AssertionError 2.4.0/bin/austin-diff after.collapsed before.collapsed
fails_with AssertionError 2.4.0/bin/austin-diff compressed.austin compressed.austin
fails_with ValueError 1.7.1/bin/austin-diff after.austin before.austin
fails_with AttributeError 1.7.1/bin/austin-diff after.collapsed before.collapsed
cat >by-hand.py <<'PYTHON'
from austin.format.collapsed_stack import AustinFileReader
from austin.tools.diff import diff

print(diff(AustinFileReader(open("after.austin")), AustinFileReader(open("before.austin"))))
PYTHON
fails_with 'TypeError: unsupported operand type(s) for -' 2.4.0/bin/python by-hand.py
echo 'austin-python 2.4.0 and 1.7.1: austin-diff ends in a traceback on files with and without a head, on what' \
     'austin-compress wrote, and, called with the reader that it needs, at the first stack that both files have'
