/* What the unit tests share. Every test defines PYPROF_IMPLEMENTATION and includes pyprof.h before this. */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "possible.h"

#define UNIT_UNUSED __attribute__((unused))

/* What pyprof_start does: reads and signals are for this process. */
__attribute__((constructor)) static void unit_begin(void) {
    if (!pyprof__reads_start()) {
        abort();
    }
}

/* An allocator that counts, and that can be told to refuse. Each block knows its own size. */
typedef struct unit_memory {
    size_t blocks;
    size_t bytes;
    size_t calls;
    size_t refuse_call; /* this call, counted from 1, gives nothing; 0 = none does */
} unit_memory;

static void *unit_alloc(size_t size, void *user) {
    unit_memory *memory = (unit_memory *)user;
    if (++memory->calls == memory->refuse_call) {
        return NULL;
    }
    max_align_t *block = (max_align_t *)malloc(sizeof *block + size);
    if (block == NULL) {
        return NULL;
    }
    memcpy(block, &size, sizeof size);
    memset(block + 1, 0xa5, size); /* nobody may count on zeros */
    memory->blocks++;
    memory->bytes += size;
    return block + 1;
}

static void unit_free(void *pointer, void *user) {
    unit_memory *memory = (unit_memory *)user;
    max_align_t *block = (max_align_t *)pointer - 1;
    size_t size;
    memcpy(&size, block, sizeof size);
    memory->blocks--;
    memory->bytes -= size;
    free(block);
}

UNIT_UNUSED static pyprof__memory unit_limited(unit_memory *counts, size_t limit) {
    pyprof__memory memory = {{unit_alloc, unit_free, counts}, limit, 0, 0, 0, NULL};
    memset(counts, 0, sizeof *counts);
    return memory;
}

/* What a write function was given, with a zero behind it. */
typedef struct unit_sink {
    char *text;
    size_t size;
} unit_sink;

UNIT_UNUSED static bool unit_write(void *user, const void *data, size_t size) {
    unit_sink *sink = (unit_sink *)user;
    char *text = (char *)realloc(sink->text, sink->size + size + 1);
    if (text == NULL) {
        return false;
    }
    memcpy(text + sink->size, data, size);
    sink->text = text;
    sink->size += size;
    sink->text[sink->size] = '\0';
    return true;
}

UNIT_UNUSED static void unit_sink_free(unit_sink *sink) {
    free(sink->text);
    sink->text = NULL;
    sink->size = 0;
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

/* Runs statements in __main__; a Python exception fails the test. */
UNIT_UNUSED static void unit_run(const char *statements) {
    unit_runs++;
    int failed = PyRun_SimpleString(statements);
    unit_runs--;
    assert_int_equal(failed, 0);
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
