/* What the unit tests share. Every test defines PYPROF_IMPLEMENTATION and includes pyprof.h before this. */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#if defined(__GLIBC__)
#include <execinfo.h>
#endif

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

/* Says where a thread crashed, and lets it. cmocka would jump from whatever thread it is back into the test, and what comes
   after that tells nothing. */
UNIT_UNUSED static void unit_crashed(int signal_number) {
    static const char said[] = "Segmentation fault, or the like, of a thread that was here:\n";
    if (write(STDERR_FILENO, said, sizeof said - 1) > 0) {
#if defined(__GLIBC__)
        void *addresses[64];
        backtrace_symbols_fd(addresses, backtrace(addresses, 64), STDERR_FILENO);
#endif
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* cmocka sets its own handlers before each test and each fixture, so these are set where Python is about to run. */
UNIT_UNUSED static void unit_watch_for_crashes(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        signal(signals[i], unit_crashed);
    }
}

/* The tests run as programs of their own, so the home of the CPython that they embed has to be told. */
UNIT_UNUSED static int unit_start_python(void **state) {
    const char *home = getenv("PYPROF_PYTHONHOME");
    (void)state;
    if (home != NULL) {
        setenv("PYTHONHOME", home, 1);
    }
    unit_watch_for_crashes();
    Py_InitializeEx(0);
    return Py_IsInitialized() ? 0 : -1;
}

/* Not 0: statements run. A check that fails below them jumps over Python's own frames. */
static int unit_runs;

/* Of a Python that a failed check jumped out of, or that it left without the GIL, no more can be asked. */
UNIT_UNUSED static int unit_stop_python(void **state) {
    (void)state;
    unit_watch_for_crashes();
    return unit_runs == 0 && PyGILState_Check() ? Py_FinalizeEx() : 0;
}

/* Runs statements in __main__; a Python exception fails the test. Their code object lives as long as its interpreter: a
   sampler that comes late must still find what it is called. (Py_DecRef: a unit may have the headers of another build than
   its library.) */
UNIT_UNUSED static void unit_run(const char *statements) {
    unit_watch_for_crashes();
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
