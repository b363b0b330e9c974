"""What people type: command lines of py-spy's, python's and our own users, each beside what is right.

A command line is run in a folder with these files; PATH names bin/ first (see plant):
    script.py, -x.py, tool.py, app/, app.zip, package/, and empty/, which is no program
    bin/by_path, by_env, by_shell, ...: a console script, whose first lines name its python in all ways that there are
    shims/: what pyenv puts on PATH, shell scripts that look for the real program
"""

import json
import os
import queue
import re
import shutil
import subprocess
import tempfile
import unittest
import zipfile

from case import PYTHON, RUN, TIMEOUT, VERSION, clean_environment, default_signals, lines_of_ours, side_by_side

# Says how it sees itself, after some work.
SCRIPT = """
import json, os, signal, sys, time, warnings
def work(seconds):
    while time.process_time() < seconds:
        sum(range(1000))
work(time.process_time() + float(os.environ["WORK"]))
print(json.dumps({"argv": sys.argv, "orig_argv": getattr(sys, "orig_argv", None), "flags": repr(sys.flags),
                  "path": sys.path, "executable": sys.executable, "prefix": sys.prefix, "options": sys._xoptions,
                  "warnings": sys.warnoptions, "filters": len(warnings.filters), "name": __name__,
                  "file": globals().get("__file__"), "debug": __debug__, "stdin": sys.stdin.read(),
                  "buffered": not sys.stdout.line_buffering, "bytecode": sys.dont_write_bytecode,
                  "environ": sorted(item for item in os.environ.items() if item[0] not in ("WORK", "_"))
                             if "SHOW" in os.environ else [],
                  "signals": [(n, repr(signal.getsignal(n))) for n in sorted(signal.valid_signals())
                              if signal.getsignal(n) != signal.SIG_DFL]}))
sys.exit(3)
"""

# (what is typed, the same under python3 or the shell, the files that it leaves: patterns)
SAME = [
    # a script, as with python3
    ("pyprof-run script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run script.py a -b --help -o x -- c", "python3 script.py a -b --help -o x -- c", ["script-.*svg"]),
    ("pyprof-run ./script.py", "python3 ./script.py", ["script-.*svg"]),
    ("pyprof-run ../work/script.py", "python3 ../work/script.py", ["script-.*svg"]),
    ("pyprof-run app 1 2", "python3 app 1 2", ["app-.*svg"]),
    ("pyprof-run app/", "python3 app/", ["app-.*svg"]),
    ("pyprof-run app.zip", "python3 app.zip", ["app-.*svg"]),
    ("pyprof-run -m package a b", "python3 -m package a b", ["package-.*svg"]),
    ("pyprof-run -mpackage -m x", "python3 -mpackage -m x", ["package-.*svg"]),
    ("pyprof-run -m package.part", "python3 -m package.part", ["package.part-.*svg"]),
    ("pyprof-run -c 'import script' a -c", "python3 -c 'import script' a -c", ["command-.*svg"]),
    ("pyprof-run '-cimport script' a", "python3 '-cimport script' a", ["command-.*svg"]),
    ("pyprof-run - a b < script.py", "python3 - a b < script.py", ["stdin-.*svg"]),
    ("pyprof-run -- -x.py -y", "python3 -- -x.py -y", ["-x-.*svg"]),
    ("pyprof-run -- script.py a", "python3 script.py a", ["script-.*svg"]),
    ("pyprof-run by_path.py", "python3 by_path.py", ["by_path-.*svg"]),
    ("pyprof-run -m http.server --help", "python3 -m http.server --help", ["http.server-.*svg"]),
    ("pyprof-run - -o x < script.py", "python3 - -o x < script.py", ["stdin-.*svg"]),
    ("pyprof-run /dev/stdin a < script.py", "python3 /dev/stdin a < script.py", ["stdin-.*svg"]),
    ("pyprof-run -m package.part --rate 5 -- -m z", "python3 -m package.part --rate 5 -- -m z", ["package.part-.*svg"]),
    ("pyprof-run -m cProfile -o profile script.py", "python3 -m cProfile -o profile script.py", ["cProfile-.*svg", "profile"]),
    ("pyprof-run -m timeit -n 1 -r 1 'import script'", "python3 -m timeit -n 1 -r 1 'import script'", ["timeit-.*svg"]),
    ("pyprof-run script.py -r 50 -o out.svg", "python3 script.py -r 50 -o out.svg", ["script-.*svg"]),
    ("cd app && pyprof-run -o ../x.svg . 2", "cd app && python3 . 2", ["x.svg"]),
    ("PYTHONPATH=app pyprof-run -E script.py", "PYTHONPATH=app python3 -E script.py", ["script-.*svg"]),
    ("PYTHONPATH=app pyprof-run script.py", "PYTHONPATH=app python3 script.py", ["script-.*svg"]),
    ("ulimit -n 8; pyprof-run script.py", "ulimit -n 8; python3 script.py", ["script-.*svg"]),
    ("TMPDIR=/nowhere HOME=/nowhere pyprof-run script.py", "TMPDIR=/nowhere HOME=/nowhere python3 script.py",
     ["script-.*svg"]),
    ("pyprof-run script.py <&-", "python3 script.py <&-", ["script-.*svg"]),
    ("pyprof-run -o x.SVG -o 'a b.json' -o %p.txt script.py", "python3 script.py", ["%p.txt", "a b.json", "x.SVG"]),
    # as with py-spy
    ("pyprof-run -- python3 script.py a b", "python3 script.py a b", ["script-.*svg"]),
    ("pyprof-run python3 script.py a b", "python3 script.py a b", ["script-.*svg"]),
    ("pyprof-run -- python script.py", "python script.py", ["script-.*svg"]),
    ("pyprof-run record -o x.svg -- python3 script.py", "python3 script.py", ["x.svg"]),
    ("pyprof-run record --output x.svg --rate 200 --duration 60 -- python3 script.py -r 5", "python3 script.py -r 5",
     ["x.svg"]),
    ("pyprof-run record -d unlimited -o x.svg -- python3 script.py", "python3 script.py", ["x.svg"]),
    ("pyprof-run record -f speedscope -o x.json -- python3 -m package", "python3 -m package", ["x.json"]),
    ("pyprof-run record -f raw -o x.txt -- python3 -c 'import script' b", "python3 -c 'import script' b", ["x.txt"]),
    ("pyprof-run record --format flamegraph -o x.svg python3 script.py", "python3 script.py", ["x.svg"]),
    ("pyprof-run record -r 1000 -i -g -F -t --nolineno -o x.svg -- python3 script.py", "python3 script.py", ["x.svg"]),
    ("pyprof-run record --idle --gil --threads --function -- python3 script.py", "python3 script.py",
     ["script-.*svg"]),
    ("pyprof-run record --nonblocking --full-filenames -o x.svg -- python3 script.py", "python3 script.py", ["x.svg"]),
    ("pyprof-run -q record -o x.svg -- python3 script.py", "python3 script.py", ["x.svg"]),
    ("pyprof-run -o a.txt record -f RAW -o b -- python3 script.py", "python3 script.py", ["a.txt", "b"]),
    ("pyprof-run record -f FlameGraph -- python3 script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run -- python3 -O -X dev script.py a b", "python3 -O -X dev script.py a b", ["script-.*svg"]),
    ("pyprof-run -- python3 -OOsIuB -W error -Xtracemalloc script.py", "python3 -OOsIuB -W error -Xtracemalloc script.py",
     ["script-.*svg"]),
    ("pyprof-run -- python3 -uBm package x", "python3 -uBm package x", ["package-.*svg"]),
    ("pyprof-run -- python3 - x < script.py", "python3 - x < script.py", ["stdin-.*svg"]),
    ("pyprof-run -- python3 < script.py", "python3 < script.py", ["python-.*svg"]),
    ("pyprof-run -- $(which python3) script.py", "$(which python3) script.py", ["script-.*svg"]),
    # python's own options
    ("pyprof-run -O script.py", "python3 -O script.py", ["script-.*svg"]),
    ("pyprof-run -OO script.py", "python3 -OO script.py", ["script-.*svg"]),
    ("pyprof-run -I script.py", "python3 -I script.py", ["script-.*svg"]),
    ("pyprof-run -E script.py", "python3 -E script.py", ["script-.*svg"]),
    ("pyprof-run -s -u -B -b script.py", "python3 -s -u -B -b script.py", ["script-.*svg"]),
    ("pyprof-run -S script.py", "python3 -S script.py", ["script-.*svg"]),
    ("pyprof-run -R script.py", "python3 -R script.py", ["script-.*svg"]),
    ("pyprof-run -x script.py", "python3 -x script.py", ["script-.*svg"]),
    ("pyprof-run -uB script.py", "python3 -uB script.py", ["script-.*svg"]),
    ("pyprof-run -uBW error script.py", "python3 -uBW error script.py", ["script-.*svg"]),
    ("pyprof-run -uBm package -u", "python3 -uBm package -u", ["package-.*svg"]),
    ("pyprof-run -uc 'import script' x", "python3 -uc 'import script' x", ["command-.*svg"]),
    ("pyprof-run -X dev script.py", "python3 -X dev script.py", ["script-.*svg"]),
    ("pyprof-run -Xdev script.py", "python3 -Xdev script.py", ["script-.*svg"]),
    ("pyprof-run -I -X utf8=0 -W error::DeprecationWarning script.py",
     "python3 -I -X utf8=0 -W error::DeprecationWarning script.py", ["script-.*svg"]),
    ("pyprof-run -X frozen_modules=off -X showrefcount script.py",
     "python3 -X frozen_modules=off -X showrefcount script.py", ["script-.*svg"]),
    ("pyprof-run -X utf8 -Xfaulthandler -W error -Wignore script.py",
     "python3 -X utf8 -Xfaulthandler -W error -Wignore script.py", ["script-.*svg"]),
    ("pyprof-run --check-hash-based-pycs always script.py", "python3 --check-hash-based-pycs always script.py",
     ["script-.*svg"]),
    ("pyprof-run -o x.svg -O -q -X dev -r 200 script.py", "python3 -O -X dev script.py", ["x.svg"]),
    ("pyprof-run -qiO script.py", "python3 -O script.py", ["script-.*svg"]),
    ("pyprof-run -Or200 script.py", "python3 -O script.py", ["script-.*svg"]),
    # a program on PATH
    ("pyprof-run by_path a -b", "by_path a -b", ["by_path-.*svg"]),
    ("pyprof-run by_env a -b", "by_env a -b", ["by_env-.*svg"]),
    ("pyprof-run by_env_split a -b", "by_env_split a -b", ["by_env_split-.*svg"]),
    ("pyprof-run by_shell 'a b' -c", "by_shell 'a b' -c", ["by_shell-.*svg"]),
    ("pyprof-run by_variables a -b", "by_variables a -b", ["by_variables-.*svg"]),
    ("pyprof-run by_variable a -b", "by_variable a -b", ["by_variable-.*svg"]),
    ("pyprof-run -- interpreter script.py a", "interpreter script.py a", ["script-.*svg"]),
    ("pyprof-run bin/interpreter -O script.py a", "bin/interpreter -O script.py a", ["script-.*svg"]),
    ("pyprof-run -- by_path a", "by_path a", ["by_path-.*svg"]),
    ("pyprof-run bin/by_path", "python3 bin/by_path", ["by_path-.*svg"]),
    ("pyprof-run -o x.json by_env", "by_env", ["x.json"]),
    ("pyprof-run record -o x.svg -- by_path --help", "by_path --help", ["x.svg"]),
    ("PATH=$PWD/shims:$PATH pyprof-run tool a -b", "$PWD/real/bin/tool a -b", ["tool-.*svg"]),
    ("VIRTUAL_ENV=$PWD/real pyprof-run tool a -b", "VIRTUAL_ENV=$PWD/real $PWD/real/bin/tool a -b", ["tool-.*svg"]),
    ("pyprof-run by_split a -b", "by_split a -b", ["by_split-.*svg"]),
    ("pyprof-run by_empty a -b", "by_empty a -b", ["by_empty-.*svg"]),
    ("pyprof-run by_word a -b", "by_word a -b", ["by_word-.*svg"]),
    # behind env
    ("pyprof-run env python3 script.py a -b", "env python3 script.py a -b", ["script-.*svg"]),
    ("pyprof-run -- env SHOW=1 A=b=c python3 -O script.py", "env SHOW=1 A=b=c python3 -O script.py", ["script-.*svg"]),
    ("pyprof-run record -o x.svg -- /usr/bin/env PYTHONOPTIMIZE=2 python3 -m package x",
     "/usr/bin/env PYTHONOPTIMIZE=2 python3 -m package x", ["x.svg"]),
    ("pyprof-run env -i SHOW=1 WORK=$WORK PATH=$PATH python3 script.py",
     "env -i SHOW=1 WORK=$WORK PATH=$PATH python3 script.py", ["script-.*svg"]),
    ("pyprof-run env - SHOW=1 WORK=$WORK PATH=$PATH python3 script.py",
     "env - SHOW=1 WORK=$WORK PATH=$PATH python3 script.py", ["script-.*svg"]),
    ("pyprof-run env -i WORK=$WORK $(which python3) script.py", "env -i WORK=$WORK $(which python3) script.py",
     ["script-.*svg"]),
    ("A=1 B=2 SHOW=1 pyprof-run env -u A -uB -- C=3 python3 script.py", "A=1 B=2 SHOW=1 env -u A -uB -- C=3 python3 script.py",
     ["script-.*svg"]),
    ("A=1 B=2 SHOW=1 pyprof-run env --unset=A --unset B python3 script.py",
     "A=1 B=2 SHOW=1 env --unset=A --unset B python3 script.py", ["script-.*svg"]),
    ("A=1 pyprof-run env --ignore-environment SHOW=1 WORK=$WORK PATH=$PATH python3 script.py",
     "A=1 env --ignore-environment SHOW=1 WORK=$WORK PATH=$PATH python3 script.py", ["script-.*svg"]),
    ("pyprof-run env -S 'SHOW=1\\_A=${PWD}\\t\\$ B=\"x \\_ y\\\"\" C='\"'\\n ${D} # '\"'\\_python3 -O # no more' script.py '$x y'",
     "env -S 'SHOW=1\\_A=${PWD}\\t\\$ B=\"x \\_ y\\\"\" C='\"'\\n ${D} # '\"'\\_python3 -O # no more' script.py '$x y'", ["script-.*svg"]),
    ("pyprof-run env -iS'SHOW=1 WORK=${WORK} PATH=${PATH} python3' script.py",
     "env -iS'SHOW=1 WORK=${WORK} PATH=${PATH} python3' script.py", ["script-.*svg"]),
    ("pyprof-run env --split-string='-u HOME SHOW=1 python3 -c' 'import script' a",
     "env --split-string='-u HOME SHOW=1 python3 -c' 'import script' a", ["command-.*svg"]),
    ("pyprof-run env SHOW=1 A=1 env -u A B=2 by_env x", "env SHOW=1 A=1 env -u A B=2 by_env x", ["by_env-.*svg"]),
    ("PATH=$PWD/shims:$PATH pyprof-run -- python3 script.py", "$PWD/real/bin/python3 script.py", ["script-.*svg"]),
    ("PATH=$PWD/shims:$PATH pyprof-run script.py", "$PWD/real/bin/python3 script.py", ["script-.*svg"]),
    ("pyprof-run twice a", "twice a", ["twice-.*svg"]),       # there is a folder of that name, too
    # our own
    ("pyprof-run -o a.svg -o b.json -o c.txt script.py", "python3 script.py", ["a.svg", "b.json", "c.txt"]),
    ("pyprof-run -oa.svg --output=b.json script.py", "python3 script.py", ["a.svg", "b.json"]),
    ("pyprof-run -o $PWD/a.svg script.py", "python3 script.py", ["a.svg"]),
    ("pyprof-run -f json script.py", "python3 script.py", ["script-.*speedscope.json"]),
    ("pyprof-run -f raw script.py", "python3 script.py", ["script-.*collapsed.txt"]),
    ("pyprof-run -f pprof script.py", "python3 script.py", ["script-.*pb.gz"]),
    ("pyprof-run -f pprof -o a.pb -o b.pb.gz -o c script.py", "python3 script.py", ["a.pb", "b.pb.gz", "c"]),
    ("pyprof-run record -f chrometrace -o x.json -- python3 script.py", "python3 script.py", ["x.json"]),
    ("pyprof-run -f pstats script.py", "python3 script.py", ["script-.*pstats"]),
    ("pyprof-run --only-mine --only-thread 'Main*' --min-share 0.01 script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run -f raw -o /dev/stderr script.py", "python3 script.py", []),
    ("pyprof-run -f raw -f txt -o x script.py", "python3 script.py", ["x"]),
    ("pyprof-run -f table -o x.txt script.py", "python3 script.py", ["x.txt"]),
    ("pyprof-run --title 'A title' --width 800 --min-width 0.5 --inverted script.py", "python3 script.py",
     ["script-.*svg"]),
    ("pyprof-run --signal USR2 script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --signal SIGUSR2 script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --signal 12 script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --signal=RTMIN+5 script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --signal RTMAX-2 script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --signal sigrtmin script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --signal none script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --depth 64 --memory 128M script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --memory 2G script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --metric cpu -d 0.01 script.py", "python3 script.py", ["script-.*svg"]),
    ("pyprof-run --rate 0.1 -m http.server --help", "python3 -m http.server --help", ["http.server-.*svg"]),
]
if os.path.realpath(PYTHON) == os.path.realpath("/usr/bin/python3"):  # where it is looked for without a PATH
    SAME += [("pyprof-run env -i SHOW=1 WORK=$WORK python3 script.py", "env -i SHOW=1 WORK=$WORK python3 script.py",
              ["script-.*svg"])]
if VERSION >= (3, 11):
    SAME += [("pyprof-run -P script.py", "python3 -P script.py", ["script-.*svg"])]

# (what is typed, what the one line says; nothing runs, nothing is written, the exit code is 2)
REFUSED = [
    ("pyprof-run", "nothing to run"),
    ("pyprof-run --", "nothing to run"),
    ("pyprof-run -q", "nothing to run"),
    ("pyprof-run record", "nothing to run"),
    ("pyprof-run -o x.svg --", "nothing to run"),
    ("pyprof-run missing.py", "cannot open missing.py: there is no such file"),
    ("pyprof-run ./missing.py", "cannot open ./missing.py: No such file"),
    ("pyprof-run -- missing", "cannot open missing: there is no such file, and no program of that name"),
    ("pyprof-run script.py/", "cannot open script.py/: Not a directory"),
    ("pyprof-run ''", "cannot open"),
    ("pyprof-run ls", r"/ls is neither a python nor a Python script"),
    ("pyprof-run ls -l", r"/ls is neither a python nor a Python script"),
    ("pyprof-run /bin/sh -c true", "neither a python nor a Python script"),
    ("pyprof-run env", "/env is neither a python nor a Python script"),
    ("pyprof-run env -i A=b", "/env is neither a python nor a Python script"),
    ("pyprof-run env -u", "/env is neither a python nor a Python script"),
    ("pyprof-run env -S 'python3 \"' script.py", "/env is neither a python nor a Python script"),
    ("pyprof-run env -S '$A python3' script.py", "/env is neither a python nor a Python script"),
    ("pyprof-run env env env env env env env env env env env env ls", "/env is neither a python nor a Python script"),
    ("pyprof-run -- env missing", "/env is neither a python nor a Python script"),
    ("pyprof-run env -C / python3 script.py", r"as in: env -C / pyprof-run python3 \.\.\."),
    ("pyprof-run env --default-signal=INT python3 script.py", r"as in: env --default-signal=INT pyprof-run python3 \.\.\."),
    ("pyprof-run env nice -n 5 python3 script.py", r"as in: env nice -n 5 pyprof-run python3 \.\.\."),
    ("pyprof-run env -i python3.1 script.py", "neither a python nor a Python script"),
    ("pyprof-run by_words", "by_words: its first line gives env more than one word, which needs -S: "
                            "#!/usr/bin/env -S -i python3$"),
    ("pyprof-run by_nothing", "by_nothing names /no/python3 as its python, which does not run"),
    ("pyprof-run shell_script", "neither a python nor a Python script"),
    ("pyprof-run top", "no top yet"),
    ("pyprof-run top -- python3 script.py", "no top yet"),
    ("pyprof-run dump --pid 12", "no dump yet"),
    ("pyprof-run -p 1234", "--pid: a running process cannot be attached to yet"),
    ("pyprof-run record --pid 1234 -o x.svg", "--pid: a running process cannot be attached to yet"),
    ("pyprof-run record -o x.svg -p1234", "--pid: a running process cannot be attached to yet"),
    ("pyprof-run --native script.py", "--native: frames of C and C\\+\\+ are not recorded yet"),
    ("pyprof-run record -n -- python3 script.py", "--native"),
    ("pyprof-run attach 12", "no attach yet"),
    ("pyprof-run -- -m package", "cannot open -m: .* pyprof-run -m ..., or pyprof-run -- python3 -m"),
    ("pyprof-run -o x.svg -- -O script.py", "cannot open -O: .* pyprof-run -O ..., or pyprof-run -- python3 -O"),
    ("pyprof-run --gil=yes script.py", "--gil takes no value"),
    ("pyprof-run --inverted=1 script.py", "--inverted takes no value"),
    ("pyprof-run -f raw -f svg script.py", "--format: two of them"),
    ("pyprof-run -f svg -o a.svg -f raw -o b.txt script.py", "--format: two of them"),
    ("pyprof-run -o -r 100 script.py", "--output: '-r' looks like an option"),
    ("pyprof-run -o . script.py", "cannot write .: Is a directory"),
    ("pyprof-run -f raw -o script.py script.py", "--output: 'script.py' is the program itself"),
    ("pyprof-run -f raw -o ../work/app/__main__.py ./app/__main__.py", "is the program itself"),
    ("pyprof-run -o $'x\\ny/z.svg' script.py", "cannot write x.y/z.svg: No such file"),
    ("pyprof-run -f raw -o /dev/stdin script.py < script.py", "cannot write /dev/stdin: Bad file descriptor"),
    ("pyprof-run -f raw -o - script.py >&-", "cannot write /dev/stdout: Bad file descriptor"),
    ("pyprof-run -f raw -o /dev/fd/9 script.py", "cannot write /dev/fd/9: Bad file descriptor"),
    ("pyprof-run -f raw -o - -o /dev/fd/1 script.py", "'/dev/fd/1' twice"),
    ("pyprof-run nice -n 5 python3 script.py", r"as in: nice -n 5 pyprof-run python3 \.\.\."),
    ("pyprof-run env A=1 script.py", r"as in: env A=1 pyprof-run script.py \.\.\."),
    ("pyprof-run shell_script run pytest -k x", r"as in: shell_script run pyprof-run pytest \.\.\."),
    ("pyprof-run bash -c 'python3 script.py'", r"as in: nice pyprof-run -- python3 script.py \.\.\."),
    ("pyprof-run A=1 python3 script.py", "variables stand in front of pyprof-run, or behind env: pyprof-run env A=1 "),
    ("pyprof-run .", "is a folder without a __main__.py, and there is no program of that name"),
    ("pyprof-run -r -5 script.py", "--rate: '-5'"),
    ("pyprof-run --rate= script.py", "--rate: ''"),
    ("pyprof-run -r100 -oa.txt -ia script.py", "unknown option.*-a"),
    ("pyprof-run -o nowhere/ script.py", "cannot write nowhere/: No such file"),
    ("pyprof-run -o /proc/x.svg script.py", "cannot write /proc/x.svg: No such file"),
    ("cd /proc; pyprof-run $OLDPWD/script.py", "cannot write script-.*svg: No such file"),
    ("pyprof-run -o x.svg.gz script.py", "the ending of 'x.svg.gz' names no format"),
    ("cat script.py | pyprof-run", "nothing to run"),
    ("pyprof-run --signal RTMIN+99 script.py", "--signal: 'RTMIN\\+99'"),
    ("pyprof-run --signal RTMAX+1 script.py", "--signal: 'RTMAX\\+1'"),
    ("pyprof-run -f json -o x.svg script.py", "the ending of 'x.svg' means svg, --format says speedscope"),
    ("pyprof-run -f svg -o x.pb.gz script.py", "the ending of 'x.pb.gz' means pprof, --format says svg"),
    ("pyprof-run -f pprof -o x.json script.py", "the ending of 'x.json' means speedscope, --format says pprof"),
    ("pyprof-run -o x.gz script.py", "the ending of 'x.gz' names no format"),
    ("pyprof-run -f perf script.py", "--format: 'perf' is not svg, collapsed, speedscope, pprof, table, pstats, firefox, perfetto or jsonl"),
    ("pyprof-run -f pstats -o x.json script.py", "the ending of 'x.json' means speedscope, --format says pstats"),
    ("pyprof-run --min-share 2 script.py", "--min-share: '2' is not a number from 0 to 1"),
    ("pyprof-run --only-thread", "--only-thread"),
    ("pyprof-run -o x.svg -o x.svg script.py", "'x.svg' twice"),
    ("pyprof-run -o x.svg -o ./x.svg script.py", "'./x.svg' twice"),
    ("pyprof-run -o x.html script.py", "the ending of 'x.html' names no format"),
    ("pyprof-run -o app script.py", "cannot write app: Is a directory"),
    ("pyprof-run -o nowhere/x.svg script.py", "cannot write nowhere/x.svg: No such file"),
    ("pyprof-run -d abc script.py", "--duration: 'abc'"),
    ("pyprof-run -d -1 script.py", "--duration: '-1'"),
    ("pyprof-run -r abc script.py", "--rate: 'abc'"),
    ("pyprof-run -r 1000000 script.py", "--rate: '1000000'"),
    ("pyprof-run --signal FOO script.py", "--signal: 'FOO'"),
    ("pyprof-run --signal 0 script.py", "--signal: '0'"),
    ("pyprof-run --signal KILL script.py", "--signal: 'KILL'"),
    ("pyprof-run --signal STOP script.py", "--signal: 'STOP'"),
    ("pyprof-run --signal SEGV script.py", "--signal: 'SEGV'"),
    ("pyprof-run --memory 1K script.py", "--memory: '1K'"),
    ("pyprof-run --memory lots script.py", "--memory: 'lots'"),
    ("pyprof-run --depth 1 script.py", "--depth: '1'"),
    ("pyprof-run --width 5 script.py", "--width: '5'"),
    ("pyprof-run --metric heap script.py", "--metric: 'heap'"),
    ("pyprof-run --frobnicate script.py", "unknown option: --frobnicate"),
    ("pyprof-run -Z script.py", "unknown option.*-Z"),
    ("pyprof-run -X", "-X needs a value"),
    ("pyprof-run -m", "-m needs a value"),
    ("pyprof-run -o", "-o needs a value"),
    ("pyprof-run empty", "empty.*__main__"),
    ("VIRTUAL_ENV=$PWD/broken pyprof-run script.py", "python of VIRTUAL_ENV, does not run"),
]

# (what is typed, the same under python3): its error, and no file, as nothing of the program ran
NEVER_BEGAN = [
    ("pyprof-run ./empty", "python3 ./empty"),
    ("pyprof-run empty.zip", "python3 empty.zip"),
    ("pyprof-run -o x.svg -m no_such_module", "python3 -m no_such_module"),
    ("pyprof-run -m package.missing", "python3 -m package.missing"),
    ("pyprof-run -m empty", "python3 -m empty"),
    ("pyprof-run -c 'a b'", "python3 -c 'a b'"),
    ("pyprof-run wrong.py", "python3 wrong.py"),
    ("pyprof-run -m wrong", "python3 -m wrong"),
    ("pyprof-run -f json latin.py", "python3 latin.py"),
    ("pyprof-run - < wrong.py", "python3 - < wrong.py"),
    ("pyprof-run -- python3 missing.py", "python3 missing.py"),
    ("pyprof-run -- python3 --frobnicate", "python3 --frobnicate"),
    ("pyprof-run -- python3 -m", "python3 -m"),
    ("PYTHONHOME=/nowhere pyprof-run script.py", "PYTHONHOME=/nowhere python3 script.py"),
]

# (what is typed, what standard output holds; the exit code is 0)
ANSWERED = [
    ("pyprof-run -h", "usage: pyprof-run"),
    ("pyprof-run --help", "--memory SIZE"),
    ("pyprof-run --help script.py", "usage: pyprof-run"),
    ("pyprof-run record --help", "usage: pyprof-run"),
    ("pyprof-run -V", r"pyprof-run \d+\.\d+, CPython %d\.%d" % VERSION),
    ("pyprof-run --version", r"pyprof-run \d+\.\d+, CPython %d\.%d" % VERSION),
    ("pyprof-run -f raw -o - script.py > both; grep -c '\\(^{\\|^thread MainThread;\\)' both; rm both", "^([2-9]|[0-9]{2,})$"),
    ("echo old > both; pyprof-run -f raw -o - script.py >> both; grep -c '^old\\|^{' both; rm both", "2"),
    ("pyprof-run -q -f raw -o /dev/fd/3 script.py 3> profile >/dev/null; grep -c ^thread profile; rm profile", "[1-9]"),
    ("pyprof-run -f raw -o - script.py | grep -c 'thread MainThread;<module> (script.py:'", "[1-9]"),
    ("pyprof-run -q -f raw -o /dev/fd/3 script.py 3>&1 >/dev/null | grep -c MainThread", "[1-9]"),
]




def plant(folder):
    """Makes the files that the command lines name; answers the environment for them."""
    def file(name, text, mode=0o644):
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as made:
            made.write(text)
        os.chmod(path, mode)

    for name in ("script.py", "-x.py", "by_path.py", "app/__main__.py", "package/__main__.py", "package/part.py"):
        file(name, SCRIPT)
    file("empty/nothing", "")
    file("empty.zip", "PK\5\6" + 18 * "\0")
    file("wrong.py", "import sys\nx = = 1\n")
    with open(os.path.join(folder, "latin.py"), "wb") as made:
        made.write("name = 'Zoë'\n".encode("latin-1"))
    file("twice/nothing", "")
    for name, first in (("by_path", "#!" + PYTHON), ("by_env", "#!/usr/bin/env python3"), ("twice", "#!" + PYTHON),
                        ("by_env_split", "#!/usr/bin/env -S python3 -O -X dev"),
                        ("by_variables", "#!/usr/bin/env -S PYTHONOPTIMIZE=2 WORK=0.08 python3 -B"),
                        ("by_variable", "#!/usr/bin/env -SPYTHONOPTIMIZE=1 python3"),
                        ("by_split", "#!/usr/bin/env  -S -u HOME SHOW=1 'A=b c' python3 -W error\t"),
                        ("by_empty", "#! /usr/bin/env -iS SHOW=1 WORK=0.08 PATH=${PATH} python3 -O"),
                        ("by_words", "#!/usr/bin/env -i python3"), ("by_nothing", "#!/no/python3"),
                        ("by_word", "#!%s -Wignore:a b" % PYTHON),
                        ("by_shell", "#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''" % PYTHON)):
        file("bin/" + name, first + "\n" + SCRIPT, 0o755)
    for name in ("python", "python3"):
        os.symlink(PYTHON, os.path.join(folder, "bin", name))
    os.symlink("python3", os.path.join(folder, "bin", "interpreter"))
    file("bin/shell_script", "#!/bin/sh\nexec python3 script.py\n", 0o755)
    file("broken/bin/python3", "#!/bin/sh\nexit 1\n", 0o755)
    with zipfile.ZipFile(os.path.join(folder, "app.zip"), "w") as archive:
        archive.writestr("__main__.py", SCRIPT)
    real = os.path.join(folder, "real")
    subprocess.check_call([PYTHON, "-m", "venv", "--without-pip", real], env=clean_environment())
    file("real/bin/tool", "#!%s/bin/python3\n%s" % (real, SCRIPT), 0o755)
    for name in ("python3", "tool"):
        file("shims/" + name, '#!/usr/bin/env bash\nset -e\nexec "%s/bin/${0##*/}" "$@"\n' % real, 0o755)
    path = os.pathsep.join((os.path.join(folder, "bin"), os.path.dirname(RUN), clean_environment()["PATH"]))
    return clean_environment(PATH=path)


class Ended:
    """A line as typed at a shell, and what came of it."""

    def __init__(self, line, folder, env, work):
        before = set(os.listdir(folder))
        ended = subprocess.run(["bash", "-c", line], cwd=folder, env=dict(env, WORK=work), timeout=TIMEOUT,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               universal_newlines=True, preexec_fn=default_signals)
        self.code, self.out = ended.returncode, ended.stdout
        lines = ended.stderr.splitlines()
        self.ours = lines_of_ours(lines)
        self.others = [re.sub("0x[0-9a-f]+", "0x", text) for text in lines if not text.startswith("pyprof-run: ")]
        self.files = sorted(set(os.listdir(folder)) - before)
        for name in self.files:
            os.unlink(os.path.join(folder, name))

    def looks(self):
        """What the program saw, to be compared piece by piece."""
        return json.loads(self.out) if self.out.startswith("{") else self.out


def unlike(one, other):
    """The two, without what is the same in both."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if one.get(key, "missing") != other.get(key, "missing")]
        return [{key: value.get(key, "missing") for key in keys} for value in (one, other)]
    return one, other


class CommandLines(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        top = tempfile.mkdtemp(prefix="pyprof-run-")
        self.addCleanup(shutil.rmtree, top)
        self.folders = queue.Queue()
        for number in range(3):
            folder = os.path.join(os.path.realpath(top), str(number), "work")
            os.makedirs(folder)
            self.folders.put((folder, plant(folder)))

    def each(self, rows, check):
        """Calls check(row, folder, environment) for all rows, each alone in its folder."""
        def in_folder(row):
            folder, env = self.folders.get()
            try:
                check(row, folder, env)
            finally:
                self.folders.put((folder, env))
        side_by_side(in_folder, rows, self.folders.qsize())

    def same(self, row, folder, env):
        line, like, files = row
        expected, real = Ended(like, folder, env, "0"), Ended(line, folder, env, "0.08")
        self.assertEqual(*unlike(expected.looks(), real.looks()), real.ours)
        self.assertEqual((expected.code, expected.others), (real.code, [
            text for text in real.others if not text.startswith("thread ")]))
        is_quiet = re.search("pyprof-run( record)? (.* )?-q", line) is not None
        wrote = [text for text in real.ours if re.search("samples? in .*wrote ", text)]
        self.assertEqual(len(wrote), 0 if is_quiet else 1, real.ours)
        self.assertEqual([text for text in real.ours if text not in wrote and "nothing to do" not in text], [])
        self.assertEqual(len(files), len(real.files), real.files)
        for name, pattern in zip(real.files, sorted(files)):
            self.assertRegex(name, "^%s$" % pattern)

    def test_same(self):
        self.each(SAME, self.same)

    def never_began(self, row, folder, env):
        line, like = row
        expected, real = Ended(like, folder, env, "0"), Ended(line, folder, env, "0")
        self.assertEqual((expected.code, expected.out, expected.others), (real.code, real.out, real.others))
        self.assertNotEqual(real.code, 0)
        self.assertEqual(real.files, [], real.ours)
        self.assertEqual(real.ours, ["pyprof-run: the program ended with code %d before anything of it was sampled: "
                                     "nothing was written" % expected.code])

    def test_never_began(self):
        self.each(NEVER_BEGAN, self.never_began)

    def refused(self, row, folder, env):
        line, message = row
        ended = Ended(line, folder, env, "0")
        self.assertEqual((ended.code, ended.out, ended.files), (2, "", []), ended.ours + ended.others)
        self.assertEqual(len(ended.ours), 1, ended.ours)
        self.assertIn(ended.others, ([], ["Try 'pyprof-run --help'."]))
        self.assertRegex(ended.ours[0], message)

    def test_refused(self):
        self.each(REFUSED, self.refused)

    def answered(self, row, folder, env):
        line, pattern = row
        ended = Ended(line, folder, env, "0.2")
        self.assertEqual((ended.code, ended.others, ended.files), (0, [], []))
        self.assertRegex(ended.out, pattern)

    def test_answered(self):
        self.each(ANSWERED, self.answered)


if __name__ == "__main__":
    unittest.main()
