/* A host that runs in another CPython than it was compiled against: the version that is told is this program's. The
   profiler must refuse, and leave the process as it was. */

#include "pyprof.h"

#include <Python.h>

#include "host.h"
#include "process.h"

static char version[100];

const char *Py_GetVersion(void) {
    return version;
}

static void start_in(const char *told, pyprof_result expected) {
    counted_memory memory = {0};
    pyprof_desc desc = counted_desc(&memory, 1000);
    process before = look();
    const char *difference;
    pyprof_result result;
    snprintf(version, sizeof version, "%s", told);
    result = pyprof_start(&desc);
    if (result != expected) {
        fprintf(stderr, "in '%s': %s\n", told, pyprof_result_string(result));
        exit(2);
    }
    if (pyprof_is_active() != (expected == PYPROF_OK)) {
        die("whether it is active is not what it answered");
    }
    if (expected == PYPROF_OK) {
        pyprof_free(stop());
    }
    difference = difference_to(&before);
    if (difference) {
        die(difference);
    }
    if (memory.blocks || memory.bytes) {
        die("not all memory was given back");
    }
}

static void start_in_version(int major, int minor, pyprof_result expected) {
    char told[100];
    snprintf(told, sizeof told, "%d.%d.1 (main, Jan  1 2024, 00:00:00) [GCC 12.2.0]", major, minor);
    start_in(told, expected);
}

int main(void) {
    start_in_version(PY_MAJOR_VERSION, PY_MINOR_VERSION, PYPROF_OK);
    start_in_version(PY_MAJOR_VERSION, PY_MINOR_VERSION + 1, PYPROF_ERROR_PYTHON_MISMATCH);
    start_in_version(PY_MAJOR_VERSION, PY_MINOR_VERSION - 1, PYPROF_ERROR_PYTHON_MISMATCH);
    start_in_version(PY_MAJOR_VERSION, PY_MINOR_VERSION * 10, PYPROF_ERROR_PYTHON_MISMATCH);
    start_in_version(PY_MAJOR_VERSION + 1, PY_MINOR_VERSION, PYPROF_ERROR_PYTHON_MISMATCH);
    start_in("", PYPROF_ERROR_PYTHON_MISMATCH);
    start_in("another Python", PYPROF_ERROR_PYTHON_MISMATCH);
    start_in_version(PY_MAJOR_VERSION, PY_MINOR_VERSION, PYPROF_OK);
    return 0;
}
