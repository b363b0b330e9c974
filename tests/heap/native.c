/* What C code allocates under lines of Python, and what it maps, with libpyprof-heap.so preloaded: each function of libc, each
   end of what it gave, in the figures of the Python function that called; estimates within their error; threads, forks.
   Without the library, that all of this is not there. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <malloc.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "figures.h"
#include "home.h"

enum {
    PAGE = 4096
};

/* What the module's functions hold. */
static struct {
    void *memory[100000];
    size_t sizes[100000]; /* of mappings */
    int count;
} held;

/* Whether malloc is another library's, preloaded behind the one that is tested, and not libc's: some lack pvalloc, and an
   errno. */
static bool is_of_others(void) {
    return getenv("NATIVE_OF_OTHERS") != NULL;
}

/* ---- a C extension ---------------------------------------------------------------------------------------- */

static void *volatile out; /* so that no compiler leaves an allocation out */

static void *keep(void *memory) {
    out = memory;
    if (memory != NULL) {
        held.memory[held.count++] = memory;
    }
    return memory;
}

static void *allocate(const char *kind, size_t size) {
    void *memory = NULL;
    if (strcmp(kind, "malloc") == 0) {
        memory = malloc(size);
    } else if (strcmp(kind, "calloc") == 0) {
        memory = calloc(size / 8, 8);
    } else if (strcmp(kind, "realloc") == 0) {
        memory = realloc(realloc(malloc(10), 3 * size), size);
    } else if (strcmp(kind, "reallocarray") == 0) {
        memory = reallocarray(NULL, size / 8, 8);
    } else if (strcmp(kind, "posix_memalign") == 0) {
        assert_int_equal(posix_memalign(&memory, 256, size), 0);
    } else if (strcmp(kind, "aligned_alloc") == 0) {
        memory = aligned_alloc(64, size);
    } else if (strcmp(kind, "memalign") == 0) {
        memory = memalign(64, size);
    } else if (strcmp(kind, "valloc") == 0) {
        memory = valloc(size);
    } else if (strcmp(kind, "pvalloc") == 0) {
        memory = pvalloc(size);
    } else {
        memory = strdup("0123456789012345678901234567890123456789012345678"); /* libc's own, of 50 bytes */
    }
    return memory;
}

/* take(kind, count, size) */
static PyObject *c_take(PyObject *module, PyObject *arguments) {
    const char *kind;
    int count, size;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "sii", &kind, &count, &size)) {
        return NULL;
    }
    for (int i = 0; i < count; i++) {
        assert_non_null(keep(allocate(kind, (size_t)size)));
    }
    Py_RETURN_NONE;
}

/* take(kind, count, size), without the GIL. */
static PyObject *c_take_without(PyObject *module, PyObject *arguments) {
    const char *kind;
    int count, size;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "sii", &kind, &count, &size)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    for (int i = 0; i < count; i++) {
        keep(allocate(kind, (size_t)size));
    }
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyObject *c_drop(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    while (held.count > 0) {
        free(held.memory[--held.count]);
    }
    Py_RETURN_NONE;
}

/* Calls that fail, or free: nothing of them counts, and what lived goes on to live. */
static PyObject *c_odd(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    const volatile size_t too_much = SIZE_MAX / 2, half = SIZE_MAX / 4 + 1;
    void *volatile block = malloc(1000); /* gcc does not see that it lives on */
    assert_null(realloc(block, too_much));
    assert_true(errno == ENOMEM || is_of_others());
    assert_null(reallocarray(block, half, 8));
    assert_null(malloc(too_much));
    assert_null(calloc(half, 8));
    assert_int_not_equal(posix_memalign((void **)(uintptr_t)&out, 3, 8), 0);
    errno = 77;
    free(malloc(5000));
    free(NULL);
    free(realloc(malloc(700), 0));
    assert_int_equal(errno, 77);
    keep(block);
    Py_RETURN_NONE;
}

static void *map(void *place, size_t size, int protection, int flags) {
    void *memory = mmap(place, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    assert_true(memory != MAP_FAILED);
    return memory;
}

/* map(how): leaves behind so many pages as it answers. */
static PyObject *c_map(PyObject *module, PyObject *how) {
    static char *memory;
    const int both = PROT_READ | PROT_WRITE;
    long pages = 0;
    (void)module;
    switch (PyLong_AsLong(how)) {
    case 0: /* ten pages and a part of one */
        memory = (char *)map(NULL, 10 * PAGE + 1, both, 0);
        pages = 11;
        break;
    case 1: /* a hole */
        assert_int_equal(munmap(memory + 4 * PAGE, 2 * PAGE), 0);
        pages = 9;
        break;
    case 2: /* a call that fails, and one that ends nothing */
        assert_int_not_equal(munmap(memory + 1, PAGE), 0);
        assert_int_equal(munmap(memory + 4 * PAGE, PAGE), 0);
        pages = 9;
        break;
    case 3: /* the first part grows, where it is or elsewhere; the other one stays */
        memory = (char *)mremap(memory, 4 * PAGE, 20 * PAGE, MREMAP_MAYMOVE);
        assert_true(memory != MAP_FAILED);
        pages = 25;
        break;
    case 4: /* and shrinks */
        assert_true(mremap(memory, 20 * PAGE, 2 * PAGE, 0) == memory);
        pages = 7;
        break;
    case 5: /* moved over a place that is taken by others; addresses that are set aside are no memory */
        memory = (char *)mremap(memory, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                                map(NULL, 2 * PAGE, PROT_NONE, 0));
        assert_true(memory != MAP_FAILED);
        pages = 7;
        break;
    case 6: /* something else takes its place */
        assert_true(map(memory, PAGE, PROT_NONE, MAP_FIXED) == memory);
        pages = 6;
        break;
    default: /* no memory */
        map(NULL, 100 * PAGE, PROT_NONE, MAP_NORESERVE);
        break;
    }
    return PyLong_FromLong(pages);
}

static PyObject *c_module(void) {
    static PyMethodDef methods[] = {
        {"take", c_take, METH_VARARGS, NULL}, {"take_without", c_take_without, METH_VARARGS, NULL},
        {"drop", c_drop, METH_NOARGS, NULL},  {"odd", c_odd, METH_NOARGS, NULL},
        {"map", c_map, METH_O, NULL},         {NULL, NULL, 0, NULL}};
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "c", NULL, -1, methods, NULL, NULL, NULL, NULL};
    return PyModule_Create(&module);
}

/* ---- tests ------------------------------------------------------------------------------------------------ */

static void start(size_t sampling_bytes, uint64_t seed) {
    pyprof_heap_desc desc = {0};
    pyprof_heap_stats stats;
    desc.sampling_bytes = sampling_bytes;
    pyprof__heap_here()->random = seed;
    pyprof__heap_here()->mean = 0;
    pyprof__heap_here()->left = 0;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
    assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_OK);
    assert_int_equal(stats.domains, PYPROF_HEAP_RAW | PYPROF_HEAP_MEM | PYPROF_HEAP_OBJ | PYPROF_HEAP_NATIVE);
}

static double total_now(pyprof_metric metric, const char *name) {
    pyprof_profile *profile = snapshot();
    double bytes = total(profile, metric, name);
    pyprof_free(profile);
    return bytes;
}

static double live(const char *name) {
    return total_now(PYPROF_METRIC_INUSE_SPACE, name);
}

/* What Python itself needs for a call or two. */
static void assert_near(double is, double should_be) {
    if (is < should_be || is > should_be + 1000) {
        fail_msg("%.0f, not %.0f", is, should_be);
    }
}

/* With all of them samples. */
static void test_each_function(void **state) {
    static const char *const kinds[] = {"malloc",        "calloc",   "realloc", "reallocarray", "posix_memalign",
                                        "aligned_alloc", "memalign", "valloc",  "pvalloc"};
    char code[200], name[50];
    (void)state;
    start(1, 1);
    size_t count = sizeof kinds / sizeof *kinds - (is_of_others());
    for (size_t i = 0; i < count; i++) {
        const char *kind = kinds[i];
        snprintf(name, sizeof name, "by_%s", kind);
        snprintf(code, sizeof code, "def by_%s(): c.take('%s', 10, 8192)\nby_%s()", kind, kind, kind);
        run(code);
        assert_near(live(name), 81920);
        assert_near(total_now(PYPROF_METRIC_ALLOC_SPACE, name), strcmp(kind, "realloc") == 0 ? 4 * 81920 + 100 : 81920);
        run("c.drop()");
        assert_true(live(name) < 1000);
    }
    run("def of_libc(): c.take('strdup', 100, 0)\nof_libc()");
    assert_near(live("of_libc"), 5000);
    run("def odd(): c.odd()\nodd()");
    assert_near(live("odd"), 1000);
    run("c.drop()");
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

static void test_mappings(void **state) {
    char code[100];
    (void)state;
    start(1, 1);
    run("def mapped(how): return c.map(how)");
    for (int i = 0; i <= 7; i++) {
        snprintf(code, sizeof code, "pages = mapped(%d)", i);
        run(code);
        PyObject *pages = PyObject_GetAttrString(PyImport_AddModule("__main__"), "pages");
        assert_near(live("mapped"), i == 7 ? 6 * PAGE : PyLong_AsDouble(pages) * PAGE);
        Py_DECREF(pages);
    }
    assert_near(total_now(PYPROF_METRIC_ALLOC_SPACE, "mapped"), (11 + 16) * PAGE);
    assert_has(";mapped (<string>:1);[mmap] ", "thread MainThread");
    run("import mmap, tempfile");
    double before = live("[native]"); /* since 3.15 the module lets go of the GIL when it maps */
    run("def by_module(): global memory; memory = mmap.mmap(-1, 1 << 20)\n"
        "def of_file():\n"
        "    global mapping\n"
        "    with tempfile.TemporaryFile() as file: file.truncate(1 << 20); mapping = mmap.mmap(file.fileno(), 1 << "
        "20)\n"
        "by_module(); of_file()");
    double mapped = live("by_module") + live("[native]") - before;
    assert_true(mapped >= 1 << 20 && mapped < (1 << 20) + 20000); /* files have buffers */
    assert_true(live("of_file") < 100000);
    run("memory.close(); mapping.close()");
    assert_true(live("by_module") + live("[native]") - before < 20000);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* Python's own growth, and C's, in one function: each counts once. */
static void test_beside_python(void **state) {
    (void)state;
    start(1, 1);
    run("def both():\n"
        "    global array\n"
        "    array = bytearray(1 << 20); array.extend(array)\n"
        "    c.take('malloc', 100, 1000)\n"
        "both()");
    double bytes = live("both");
    assert_true(bytes >= (2 << 20) + 100000 &&
                bytes < (2 << 20) + (1 << 18) + 110000); /* a bytearray may have an 8th more */
    run("del array; c.drop()");
    assert_true(live("both") < 1000);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* 100 runs of made-up sizes from C: sums are within the error that is told with them. */
static void test_estimates(void **state) {
    pyprof_heap_stats before, after;
    int within = 0, runs = 100;
    double sum = 0, truth = 0;
    (void)state;
    start(16384, 7);
    run("def sizes():\n    for i in range(200): c.take('malloc', 5, 8 << i % 11)\n");
    for (int i = 0; i < 200; i++) {
        truth += 5 * (8 << i % 11);
    }
    for (int i = 0; i < runs; i++) {
        assert_int_equal(pyprof_heap_get_stats(&before), PYPROF_OK);
        run("sizes()");
        assert_int_equal(pyprof_heap_get_stats(&after), PYPROF_OK);
        double estimate = live("sizes");
        sum += estimate;
        within += fabs(estimate - truth) <= 2 * (double)after.live_bytes_error;
        assert_true(before.live_bytes_error < after.live_bytes_error / 2);
        run("c.drop()");
        assert_true(live("sizes") < 1000);
    }
    print_message("%d of %d within two errors; the mean is %.4f of the truth\n", within, runs, sum / runs / truth);
    assert_true(within >= 88 && fabs(sum / runs / truth - 1) < 3 * sqrt(16384 / truth / runs));
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* Threads without Python that free each other's blocks; at the end nothing of it lives. */
static void *slots[256];

static void *exchange(void *user) {
    uint64_t random = (uint64_t)(uintptr_t)user;
    for (int i = 0; i < 200000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        void *block = malloc(1 + (size_t)(random >> 33) % 3000);
        block = random >> 62 == 0 ? realloc(block, 5000) : block;
        free(__atomic_exchange_n(&slots[random >> 56], block, __ATOMIC_ACQ_REL));
    }
    return NULL;
}

static void test_threads(void **state) {
    pthread_t threads[8];
    pyprof_heap_stats stats;
    (void)state;
    start(2000, 1);
    PyThreadState *own = PyEval_SaveThread();
    for (uintptr_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, exchange, (void *)(i + 1)), 0);
    }
    for (size_t i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    PyEval_RestoreThread(own);
    assert_has(";[native] ", "");
    assert_true(live("[native]") > 200000);
    for (size_t i = 0; i < 256; i++) {
        free(slots[i]);
        slots[i] = NULL;
    }
    assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_OK);
    assert_true(stats.samples > 200000 && live("[native]") < 20000);
    assert_int_equal(stats.samples_replaced, 0);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* Handlers of fork that allocate and free, among them what is a sample, while it has our lock. */
static void *across_fork;

static void allocate_at_fork(void) {
    free(across_fork);
    across_fork = malloc(3000);
    free(malloc(3000));
}

static void test_forks(void **state) {
    (void)state;
    start(1, 1);
    for (int i = 0; i < 20; i++) {
        across_fork = realloc(across_fork, 3000);
        pid_t child = fork();
        int status = -1;
        if (child == 0) {
            alarm(60);
            run("def in_child(): c.take('malloc', 10, 1000)\nin_child()");
            assert_near(live("in_child"), 10000);
            run("c.drop()");
            _exit(live("in_child") < 1000 ? 0 : 1);
        }
        assert_true(child > 0 && waitpid(child, &status, 0) == child);
        assert_int_equal(status, 0);
    }
    free(across_fork);
    across_fork = NULL;
    pyprof_heap_stats stats;
    assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_OK);
    assert_int_equal(stats.samples_replaced, 0);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

static void test_without_the_gil(void **state) {
    (void)state;
    start(1, 1);
    run("def without(): c.take_without('malloc', 10, 1000)\nwithout()\nc.drop()"); /* what is made once only is there */
    double before = live("[native]");
    run("without()");
    assert_near(live("[native]") - before, 10000);
    assert_true(live("without") < 1000);
    run("c.drop()");
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* After stop no more are taken, and frees are followed. There is one listener for good, which may begin anew. */
static void test_stop_and_claim(void **state) {
    const pyprof_heap_interposer *interposer =
        (const pyprof_heap_interposer *)dlsym(RTLD_DEFAULT, PYPROF_HEAP_INTERPOSER);
    (void)state;
    assert_non_null(interposer);
    assert_false(interposer->claim(&interposer));
    assert_true(interposer->claim(&pyprof__heap));
    start(1, 1);
    run("def stopped(): c.take('malloc', 10, 1000)\nstopped()");
    assert_int_equal(pyprof_heap_stop(), PYPROF_OK);
    run("stopped()");
    assert_near(live("stopped"), 10000);
    run("c.drop()");
    assert_true(live("stopped") < 1000);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    assert_int_equal(pyprof__heap_here()->is_inside, 0);
}

/* What the profiler allocates for itself is not its host's: a recording, and a profile that is kept. */
static void test_own_memory(void **state) {
    pyprof_profile *profiles[20];
    (void)state;
    start(1, 1);
    run("def f(n): return f(n - 1) if n else c.take('malloc', 100, 100)\nf(100)");
    assert_int_equal(pyprof_start(NULL), PYPROF_OK);
    double before = live("[native]") + live("[mmap]");
    for (int i = 0; i < 20; i++) {
        profiles[i] = snapshot();
    }
    run("sum(range(3000000))");
    assert_true(live("[native]") + live("[mmap]") < before + 5000);
    for (int i = 0; i < 20; i++) {
        pyprof_free(profiles[i]);
    }
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    run("c.drop()");
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_function),   cmocka_unit_test(test_mappings),
        cmocka_unit_test(test_beside_python),   cmocka_unit_test(test_estimates),
        cmocka_unit_test(test_threads),         cmocka_unit_test(test_forks),
        cmocka_unit_test(test_stop_and_claim),  cmocka_unit_test(test_own_memory),
        cmocka_unit_test(test_without_the_gil),
    };
    tell_home();
    assert_int_equal(pthread_atfork(allocate_at_fork, allocate_at_fork, allocate_at_fork), 0);
    PyImport_AppendInittab("c", c_module);
    Py_Initialize();
    run("import c");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
