"""How the check tests compile the header: with the warnings that are promised, against the CPython of this build."""
import os
import subprocess
import tempfile

SOURCE = os.environ["PYPROF_SOURCE"]
HEADER = os.path.join(SOURCE, "pyprof.h")
CXX = {"gcc": "g++", "clang": "clang++", "cc": "c++"}
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]


def python_include():
    ask = "import sysconfig; print(sysconfig.get_path('include'))"
    return subprocess.run([os.environ["PYPROF_PYTHON"], "-c", ask], check=True, stdout=subprocess.PIPE,
                          universal_newlines=True).stdout.strip()


def command(compiler, standard, system_includes=()):
    """The compiler's command for a standard such as c99 or c++17, up to the file."""
    program = CXX[compiler] if "++" in standard else compiler
    includes = [argument for path in system_includes for argument in ("-isystem", path)]
    return [program, "-std=" + standard, "-I", SOURCE] + includes + WARNINGS


def compile_text(arguments, text, standard):
    """Compiles a text; the compiler's complaints, empty when there are none."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "unit.cpp" if "++" in standard else "unit.c")
        with open(path, "w") as file:
            file.write(text)
        run = subprocess.run(arguments + [path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             universal_newlines=True)
    return run.stdout or ("" if run.returncode == 0 else "exit code %d" % run.returncode)
