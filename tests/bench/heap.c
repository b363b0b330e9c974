/* bench_heap MODE CODE: how much longer work(), which CODE defines, takes with hooks than without, once a line: the ratio of
   two neighbouring stretches of 40 ms by the thread's own clock. MODE: "empty" hooks, "stopped" sampling, which only follows
   what is freed, or the KiB of pyprof_heap_start.
   bench_heap python CODE: the same with whatever the functions on() and off(), which CODE defines, too, begin and end. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

static const PyMemAllocatorDomain domains[3] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
static PyMemAllocatorEx next[3];

static void *empty_malloc(void *context, size_t size) {
    PyMemAllocatorEx *below = (PyMemAllocatorEx *)context;
    return below->malloc(below->ctx, size);
}

static void *empty_calloc(void *context, size_t count, size_t size) {
    PyMemAllocatorEx *below = (PyMemAllocatorEx *)context;
    return below->calloc(below->ctx, count, size);
}

static void *empty_realloc(void *context, void *memory, size_t size) {
    PyMemAllocatorEx *below = (PyMemAllocatorEx *)context;
    return below->realloc(below->ctx, memory, size);
}

static void empty_free(void *context, void *memory) {
    PyMemAllocatorEx *below = (PyMemAllocatorEx *)context;
    below->free(below->ctx, memory);
}

static void set_empty(bool is_on) {
    for (int i = 0; i < 3; i++) {
        PyMemAllocatorEx hook = {&next[i], empty_malloc, empty_calloc, empty_realloc, empty_free};
        if (is_on) {
            PyMem_GetAllocator(domains[i], &next[i]);
        }
        PyMem_SetAllocator(domains[i], is_on ? &hook : &next[i]);
    }
}

static void set_sampling(const char *mode, bool is_on) {
    pyprof_heap_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.sampling_bytes = (size_t)atoi(mode) << 10; /* "stopped": 0, the default */
    pyprof_result result = is_on ? pyprof_heap_start(&desc) : pyprof_heap_shutdown();
    if (result == PYPROF_OK && is_on && strcmp(mode, "stopped") == 0) {
        result = pyprof_heap_stop();
    }
    if (result != PYPROF_OK) {
        fprintf(stderr, "%s\n", pyprof_last_error());
        exit(1);
    }
}

static void set_hooks(const char *mode, bool is_on) {
    if (strcmp(mode, "empty") == 0) {
        set_empty(is_on);
    } else if (strcmp(mode, "python") != 0) {
        set_sampling(mode, is_on);
    } else if (PyRun_SimpleString(is_on ? "on()" : "off()") != 0) {
        exit(1);
    }
}

/* Nanoseconds of one call of work. */
static double stretch(PyObject *work) {
    uint64_t begin = pyprof__clock(CLOCK_THREAD_CPUTIME_ID), now = begin;
    int calls = 0;
    for (; now - begin < 40000000u; calls++) {
        PyObject *result = PyObject_CallObject(work, NULL);
        if (result == NULL) {
            PyErr_Print();
            exit(1);
        }
        Py_DECREF(result);
        now = pyprof__clock(CLOCK_THREAD_CPUTIME_ID);
    }
    return (double)(now - begin) / calls;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: bench_heap empty|stopped|KIB|python CODE\n");
        return 2;
    }
    Py_Initialize();
    PyObject *main_module = PyImport_AddModule("__main__");
    if (PyRun_SimpleString(argv[2]) != 0) {
        return 1;
    }
    PyObject *work = PyObject_GetAttrString(main_module, "work");
    stretch(work);
    for (int i = 0; i < 40; i++) {
        double without = stretch(work);
        set_hooks(argv[1], true);
        double with = stretch(work);
        set_hooks(argv[1], false);
        printf("%.5f\n", with / without);
    }
    Py_DECREF(work);
    return Py_FinalizeEx() == 0 ? 0 : 1;
}
