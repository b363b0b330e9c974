"""How the check tests compile the header: with the warnings that are promised, against the CPython of this build."""
import os
import subprocess
import tempfile

SOURCE = os.environ["PYPROF_SOURCE"]
HEADER = os.path.join(SOURCE, "pyprof.h")
CXX = {"gcc": "g++", "clang": "clang++", "cc": "c++"}
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]

# Every way to include the header.
UNITS = {
    "declarations": '#include "pyprof.h"\nint main(void) { return (int)pyprof_stop(0); }\n',
    "declarations, twice": '#include "pyprof.h"\n#include "pyprof.h"\nint main(void) { return 0; }\n',
    "implementation": '#define PYPROF_IMPLEMENTATION\n#include "pyprof.h"\nint main(void) { return 0; }\n',
    "implementation behind declarations": '#include "pyprof.h"\n#define PYPROF_IMPLEMENTATION\n'
                                          '#include "pyprof.h"\nint main(void) { return 0; }\n',
    "implementation behind Python": '#include <Python.h>\n#define PYPROF_IMPLEMENTATION\n'
                                    '#include "pyprof.h"\nint main(void) { return 0; }\n',
    "static": '#define PYPROF_STATIC\n#define PYPROF_IMPLEMENTATION\n#include "pyprof.h"\n'
              'int main(void) { return 0; }\n',
    "implementation that draws": '#define PYPROF_IMPLEMENTATION\n#include "tools/flamegraph.h"\n'
                                 '#include "pyprof.h"\nint main(void) { return 0; }\n',
    "with the module": '#define PYPROF_IMPLEMENTATION\n#define PYPROF_MODULE_IMPLEMENTATION\n#include "tools/flamegraph.h"\n'
                       '#include "pyprof.h"\n#include "tools/pyprof_module.h"\n'
                       'int main(void) { return PyImport_AppendInittab("pyprof", PyInit_pyprof); }\n',
    "the module, no heap": '#define PYPROF_NO_HEAP\n#define PYPROF_IMPLEMENTATION\n#define PYPROF_MODULE_IMPLEMENTATION\n'
                           '#include "pyprof.h"\n#include "tools/pyprof_module.h"\n'
                           'int main(void) { return PyImport_AppendInittab("pyprof", PyInit_pyprof); }\n',
    "no listen": '#define PYPROF_NO_LISTEN\n#define PYPROF_IMPLEMENTATION\n#include "pyprof.h"\n'
                 'int main(void) { return 0; }\n',
    "no heap": '#define PYPROF_NO_HEAP\n#define PYPROF_IMPLEMENTATION\n#include "pyprof.h"\n'
               'int main(void) { return 0; }\n',
    "no recording": '#define PYPROF_NO_RECORDING\n#define PYPROF_IMPLEMENTATION\n#include "tools/flamegraph.h"\n'
                    '#include "pyprof.h"\nint main(void) { return 0; }\n',
    "all formats": '#define PYPROF_NO_RECORDING\n#define PYPROF_IMPLEMENTATION\n#include "tools/flamegraph.h"\n'
                   '#include "pyprof.h"\n#define EXPORTS_IMPLEMENTATION\n#include "tools/exports.h"\n'
                   'int main(void) { return 0; }\n',
}


def python_include():
    ask = "import sysconfig; print(sysconfig.get_path('include'))"
    return subprocess.run([os.environ["PYPROF_PYTHON"], "-c", ask], check=True, stdout=subprocess.PIPE,
                          universal_newlines=True).stdout.strip()


def command(compiler, standard, system_includes=()):
    """The compiler's command for a standard such as c99 or c++17, up to the file."""
    program = CXX.get(compiler, compiler) if "++" in standard else compiler
    includes = [argument for path in system_includes for argument in ("-isystem", path)]
    return [program, "-std=" + standard, "-I", SOURCE] + includes + WARNINGS


def complaints(arguments):
    """The compiler's, empty when there are none."""
    run = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    return run.stdout or ("" if run.returncode == 0 else "exit code %d" % run.returncode)


def compile_text(arguments, text, standard):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "unit.cpp" if "++" in standard else "unit.c")
        with open(path, "w") as file:
            file.write(text)
        return complaints(arguments + [path])
