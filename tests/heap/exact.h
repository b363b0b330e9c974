/* Counts exactly what heap sampling estimates: hooks of its own, put in before and so below ours, keep each block that
   lives, and add up what was allocated by phase. A thread is in the phase that it has said last: exact.phase(3). */
#ifndef EXACT_H
#define EXACT_H

#include "pyprof.h"

#include <Python.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXACT_PHASES = 64,
    EXACT_SLOTS = 1 << 21, /* a power of two, more than twice the blocks that ever live */
};

typedef struct exact_block {
    uintptr_t address; /* 0 = free; 1 = was taken out */
    size_t size;
    int phase;
} exact_block;

typedef struct exact_sums {
    double live_bytes, live_objects, alloc_bytes, alloc_objects;
    double largest; /* block that was allocated */
} exact_sums;

static exact_block *exact_blocks;
static exact_sums exact_phases[EXACT_PHASES];
static pthread_mutex_t exact_lock = PTHREAD_MUTEX_INITIALIZER;
static PyMemAllocatorEx exact_next[3];
static __thread int exact_phase;
static __thread int exact_is_inside;

static exact_block *exact_slot(uintptr_t address, int is_new) {
    size_t at = (size_t)((address * UINT64_C(0x9e3779b97f4a7c15)) >> 43);
    while (exact_blocks[at].address != address &&
           !(exact_blocks[at].address == 0 || (is_new && exact_blocks[at].address == 1))) {
        at = (at + 1) & (EXACT_SLOTS - 1);
    }
    return &exact_blocks[at];
}

static void exact_add(void *memory, size_t size) {
    exact_sums *sums = &exact_phases[exact_phase];
    pthread_mutex_lock(&exact_lock);
    exact_block *block = exact_slot((uintptr_t)memory, 1);
    block->address = (uintptr_t)memory;
    block->size = size;
    block->phase = exact_phase;
    sums->live_bytes += (double)size;
    sums->alloc_bytes += (double)size;
    sums->live_objects += size > 0;
    sums->alloc_objects += size > 0;
    sums->largest = (double)size > sums->largest ? (double)size : sums->largest;
    pthread_mutex_unlock(&exact_lock);
}

static void exact_drop(void *memory) {
    pthread_mutex_lock(&exact_lock);
    exact_block *block = exact_slot((uintptr_t)memory, 0);
    if (block->address != 0) {
        exact_phases[block->phase].live_bytes -= (double)block->size;
        exact_phases[block->phase].live_objects -= block->size > 0;
        block->address = 1;
    }
    pthread_mutex_unlock(&exact_lock);
}

static void *exact_malloc(void *context, size_t size) {
    PyMemAllocatorEx *next = (PyMemAllocatorEx *)context;
    exact_is_inside++;
    void *memory = next->malloc(next->ctx, size);
    if (--exact_is_inside == 0 && memory != NULL) {
        exact_add(memory, size);
    }
    return memory;
}

static void *exact_calloc(void *context, size_t count, size_t size) {
    PyMemAllocatorEx *next = (PyMemAllocatorEx *)context;
    exact_is_inside++;
    void *memory = next->calloc(next->ctx, count, size);
    if (--exact_is_inside == 0 && memory != NULL) {
        exact_add(memory, count * size);
    }
    return memory;
}

static void *exact_realloc(void *context, void *old, size_t size) {
    PyMemAllocatorEx *next = (PyMemAllocatorEx *)context;
    if (exact_is_inside == 0 && old != NULL) {
        exact_drop(old);
    }
    exact_is_inside++;
    void *memory = next->realloc(next->ctx, old, size);
    if (--exact_is_inside == 0 && memory != NULL) {
        exact_add(memory, size);
    }
    return memory;
}

static void exact_free(void *context, void *memory) {
    PyMemAllocatorEx *next = (PyMemAllocatorEx *)context;
    if (exact_is_inside == 0 && memory != NULL) {
        exact_drop(memory);
    }
    exact_is_inside++;
    next->free(next->ctx, memory);
    exact_is_inside--;
}

/* While there is one thread. */
static void exact_begin(void) {
    static const PyMemAllocatorDomain domains[3] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
    exact_blocks = (exact_block *)calloc(EXACT_SLOTS, sizeof *exact_blocks);
    if (exact_blocks == NULL) {
        abort();
    }
    for (int i = 0; i < 3; i++) {
        PyMemAllocatorEx hook = {&exact_next[i], exact_malloc, exact_calloc, exact_realloc, exact_free};
        PyMem_GetAllocator(domains[i], &exact_next[i]);
        PyMem_SetAllocator(domains[i], &hook);
    }
}

static PyObject *exact_set_phase(PyObject *module, PyObject *phase) {
    (void)module;
    exact_phase = (int)PyLong_AsLong(phase);
    Py_RETURN_NONE;
}

/* As an extension does that keeps C memory: raw, with the GIL or without. raw(count, size, with_gil); free_raw() */
static void *exact_raw[4096];
static int exact_raw_count;

static PyObject *exact_take_raw(PyObject *module, PyObject *arguments) {
    int count, size, with_gil;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "iii", &count, &size, &with_gil)) {
        return NULL;
    }
    PyThreadState *state = with_gil ? NULL : PyEval_SaveThread();
    for (int i = 0; i < count && exact_raw_count < 4096; i++) {
        exact_raw[exact_raw_count++] = PyMem_RawMalloc((size_t)size);
    }
    if (!with_gil) {
        PyEval_RestoreThread(state);
    }
    Py_RETURN_NONE;
}

static PyObject *exact_free_raw(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    while (exact_raw_count > 0) {
        PyMem_RawFree(exact_raw[--exact_raw_count]);
    }
    Py_RETURN_NONE;
}

/* As an extension does that grows and shrinks what it keeps: each block up to 20,000 bytes and down to some hundred, in one
   domain after the other. resize(count); free_resized() */
static void *exact_sized[3][1024];
static int exact_sized_count;

static void *exact_resize_in(int domain, void *block, size_t size) {
    return domain == 0   ? PyMem_RawRealloc(block, size)
           : domain == 1 ? PyMem_Realloc(block, size)
                         : PyObject_Realloc(block, size);
}

static PyObject *exact_resize(PyObject *module, PyObject *count) {
    static const size_t sizes[] = {30, 400, 600, 5000, 20000, 3000, 700, 450, 100};
    (void)module;
    for (long i = PyLong_AsLong(count); i > 0 && exact_sized_count < 1024; i--, exact_sized_count++) {
        for (int domain = 0; domain < 3; domain++) {
            void **block = &exact_sized[domain][exact_sized_count];
            *block = NULL;
            for (size_t at = 0; at < sizeof sizes / sizeof *sizes - (size_t)(i % 5); at++) {
                *block = exact_resize_in(domain, *block, sizes[at]);
            }
        }
    }
    Py_RETURN_NONE;
}

static PyObject *exact_free_resized(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    for (; exact_sized_count > 0; exact_sized_count--) {
        PyMem_RawFree(exact_sized[0][exact_sized_count - 1]);
        PyMem_Free(exact_sized[1][exact_sized_count - 1]);
        PyObject_Free(exact_sized[2][exact_sized_count - 1]);
    }
    Py_RETURN_NONE;
}

/* Another interpreter, which lives until end_interpreter: it runs interpreted(n), in phase 15. */
static PyThreadState *exact_other;

static PyObject *exact_in_interpreter(PyObject *module, PyObject *count) {
    char code[300];
    PyThreadState *before = PyThreadState_Get();
    (void)module;
    exact_other = Py_NewInterpreter();
    snprintf(code, sizeof code,
             "def interpreted(n):\n"
             "    exact.phase(15); kept = [bytes(i %% 900) for i in range(n)], {i: [i] for i in range(n // 2)}\n"
             "    exact.phase(0); return kept\n"
             "import exact\n"
             "held = interpreted(%ld)\n",
             PyLong_AsLong(count));
    int result = PyRun_SimpleString(code);
    PyThreadState_Swap(before);
    if (result != 0) {
        PyErr_SetString(PyExc_RuntimeError, "the code of the other interpreter failed");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *exact_end_interpreter(PyObject *module, PyObject *unused) {
    PyThreadState *before = PyThreadState_Get();
    (void)module, (void)unused;
    if (exact_other != NULL) {
        PyThreadState_Swap(exact_other);
        Py_EndInterpreter(exact_other);
        PyThreadState_Swap(before);
        exact_other = NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *exact_module(void) {
    static PyMethodDef methods[] = {{"phase", exact_set_phase, METH_O, NULL},
                                    {"raw", exact_take_raw, METH_VARARGS, NULL},
                                    {"free_raw", exact_free_raw, METH_NOARGS, NULL},
                                    {"resize", exact_resize, METH_O, NULL},
                                    {"free_resized", exact_free_resized, METH_NOARGS, NULL},
                                    {"in_interpreter", exact_in_interpreter, METH_O, NULL},
                                    {"end_interpreter", exact_end_interpreter, METH_NOARGS, NULL},
                                    {NULL, NULL, 0, NULL}};
    /* For all interpreters, and with the GIL or without one. */
    static PyModuleDef_Slot slots[] = {
#if PY_VERSION_HEX >= 0x030C0000
        {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if defined(Py_GIL_DISABLED)
        {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
        {0, NULL}
    };
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "exact", NULL, 0, methods, slots, NULL, NULL, NULL};
    return PyModuleDef_Init(&module);
}

#endif
