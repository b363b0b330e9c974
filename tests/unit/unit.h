/* What the unit tests share. Every test defines PYPROF_IMPLEMENTATION and includes pyprof.h before this. */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "../common/callbacks.h"
#include "possible.h"

#define UNIT_UNUSED __attribute__((unused))

/* What pyprof_start does: reads and signals are for this process. */
__attribute__((constructor)) static void unit_begin(void) {
    if (!pyprof__reads_start()) {
        abort();
    }
}

UNIT_UNUSED static pyprof__memory unit_limited(counted_memory *counts, size_t limit) {
    pyprof__memory memory = {{counted_alloc, counted_free, counts}, limit, 0, 0, 0, NULL};
    memset(counts, 0, sizeof *counts);
    return memory;
}

/* A thread of which nothing is known yet. */
UNIT_UNUSED static pyprof__thread unit_thread(void) {
    pyprof__thread thread;
    memset(&thread, 0, sizeof thread);
    thread.asking.request = PYPROF__NONE;
    return thread;
}

/* The tests run as programs of their own, so the home of the CPython that they embed has to be told. */
UNIT_UNUSED static int unit_start_python(void **state) {
    const char *home = getenv("PYPROF_PYTHONHOME");
    (void)state;
    if (home != NULL) {
        setenv("PYTHONHOME", home, 1);
    }
    Py_InitializeEx(0);
    return Py_IsInitialized() ? 0 : -1;
}

/* Not 0: statements run. A check that fails below them jumps over Python's own frames. */
static int unit_runs;

/* Of a Python that a failed check jumped out of, or that it left without the GIL, no more can be asked. */
UNIT_UNUSED static int unit_stop_python(void **state) {
    (void)state;
    return unit_runs == 0 && PyGILState_Check() ? Py_FinalizeEx() : 0;
}

/* Runs statements in __main__; a Python exception fails the test. Their code object lives as long as its interpreter: a
   sampler that comes late must still find what it is called. (Py_DecRef: a unit may have the headers of another build than
   its library.) */
UNIT_UNUSED static void unit_run(const char *statements) {
    PyObject *globals = PyModule_GetDict(PyImport_AddModule("__main__"));
    PyObject *code = Py_CompileString(statements, "<string>", Py_file_input);
    assert_non_null(code);
    PyObject *kept = PyDict_GetItemString(globals, "codes_of_unit_run");
    if (kept == NULL) {
        kept = PyList_New(0);
        PyDict_SetItemString(globals, "codes_of_unit_run", kept);
        Py_DecRef(kept);
    }
    PyList_Append(kept, code);
    Py_DecRef(code);
    unit_runs++;
    PyObject *result = PyEval_EvalCode(code, globals, globals);
    unit_runs--;
    if (result == NULL) {
        PyErr_Print();
    }
    assert_non_null(result);
    Py_DecRef(result);
}

/* A new reference to what __main__ knows by this name. */
UNIT_UNUSED static PyObject *unit_main(const char *name) {
    PyObject *object = PyObject_GetAttrString(PyImport_AddModule("__main__"), name);
    assert_non_null(object);
    return object;
}

/* A random sequence that is the same in every run (xorshift64). */
UNIT_UNUSED static uint64_t unit_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
