/* The lives of a process with heap sampling on, as it is and with libpyprof-heap.so preloaded: before Python and after it, Python again and again, each allocator that it
   may begin with, other hooks, forks, threads that free what others have allocated, sub-interpreters that end. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <sys/wait.h>

#include "home.h"

static const char *self_path;

static void run(const char *code) {
    assert_int_equal(PyRun_SimpleString(code), 0);
}

static pyprof_result start(size_t sampling_bytes) {
    pyprof_heap_desc desc = {0};
    desc.sampling_bytes = sampling_bytes;
    return pyprof_heap_start(&desc);
}

static pyprof_heap_stats stats_now(void) {
    pyprof_heap_stats stats;
    assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_OK);
    return stats;
}

#define ALL (PYPROF_HEAP_RAW | PYPROF_HEAP_MEM | PYPROF_HEAP_OBJ)

/* Of Python's allocators. */
static uint32_t domains_now(void) {
    return stats_now().domains & ALL;
}

static bool is_preloaded(void) {
    return pyprof__native_domain() != 0;
}

/* Keeps some, drops some; 3 MB are kept under "kept". */
static const char work[] = "kept = [bytes(3000) for i in range(1000)]\n"
                           "for i in range(1000): bytearray(3000)\n"
                           "import gc, threading\n"
                           "def outer(): global other; other = [dict(a=i) for i in range(1000)]\n"
                           "thread = threading.Thread(target=outer); thread.start(); thread.join(); del other\n";

static void assert_works(void) {
    uint64_t before = stats_now().live_bytes;
    run(work);
    pyprof_heap_stats stats = stats_now();
    assert_int_equal(stats.domains & ALL, ALL);
    assert_true(stats.live_bytes > before + 3000000 && stats.live_bytes < before + 4000000);
    assert_true(stats.lost_memory == 0 && stats.lost_unreadable == 0);
    run("del kept; gc.collect()");
    assert_true(stats_now().live_bytes < stats.live_bytes - 2900000);
}

/* With all that is allocated a sample, or, where that is done for one allocator after the other, so much of it. */
static size_t finest = 1; /* bytes */

/* Started before Python, and taken out after it. */
static void test_around_python(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(start(finest), PYPROF_OK);
        Py_Initialize();
        if (domains_now() != ALL) { /* it has dropped the hooks */
            assert_int_equal(start(finest), PYPROF_OK);
        }
        assert_works();
        assert_int_equal(Py_FinalizeEx(), 0);
        pyprof_heap_stats stats = stats_now();
        assert_true(stats.samples_freed > (finest == 1 ? 5000 : 1900));
        assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    }
}

/* Python ends and begins anew while samples live; what was dropped of the hooks is put back. */
static void test_python_again_and_again(void **state) {
    pyprof_profile *profile;
    (void)state;
    Py_Initialize();
    assert_int_equal(start(1000), PYPROF_OK);
    for (int i = 0; i < 5; i++) {
        run(work);
        assert_int_equal(Py_FinalizeEx(), 0);
        assert_int_equal(pyprof_heap_snapshot(&profile), PYPROF_OK);
        pyprof_free(profile);
        Py_Initialize();
        pyprof_result result = start(1000);
        assert_true(result == PYPROF_OK || result == PYPROF_ERROR_ALREADY_ACTIVE);
        assert_int_equal(domains_now(), ALL);
    }
    assert_int_equal(pyprof_heap_stop(), PYPROF_OK);
    assert_int_equal(Py_FinalizeEx(), 0);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

static void test_other_hooks(void **state) {
    (void)state;
    Py_Initialize();
    run("import tracemalloc; tracemalloc.start()");
    assert_int_equal(start(finest), PYPROF_OK);
    assert_works();
    run("assert tracemalloc.get_traced_memory()[1] > 2900000");
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    run("tracemalloc.stop()");
    assert_int_equal(start(finest), PYPROF_OK);
    run("tracemalloc.start()");
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_ERROR_HOOKED);
    assert_non_null(strstr(pyprof_last_error(), "tracemalloc"));
    assert_works();
    run("tracemalloc.stop()");
    assert_works();
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    run("tracemalloc.start()");
    assert_int_equal(start(finest), PYPROF_OK);
    run("tracemalloc.stop()"); /* takes out what was over it, too */
    assert_int_equal(domains_now(), 0);
    assert_int_equal(start(finest), PYPROF_OK);
    assert_works();
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    assert_int_equal(Py_FinalizeEx(), 0);
}

/* By a thread without the GIL: what needs it is refused, the rest is not. */
static void test_without_the_gil(void **state) {
    pyprof_profile *profile;
    (void)state;
    Py_Initialize();
    PyThreadState *thread = PyEval_SaveThread();
    assert_int_equal(start(1000), PYPROF_ERROR_GIL);
    PyEval_RestoreThread(thread);
    assert_int_equal(start(1000), PYPROF_OK);
    thread = PyEval_SaveThread();
    assert_int_equal(domains_now(), 0);
    assert_int_equal(pyprof_heap_snapshot(&profile), PYPROF_OK);
    pyprof_free(profile);
    assert_int_equal(pyprof_heap_stop(), PYPROF_OK);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_ERROR_GIL);
    PyEval_RestoreThread(thread);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    assert_int_equal(Py_FinalizeEx(), 0);
}

/* Threads allocate and free each other's blocks and ends of theirs, a host's allocator beside Python's among them; at the end
   nothing of it lives. */
static void *blocks[256];
static pyprof__atomic32 rounds;

static void *exchange(void *user) {
    uint64_t random = (uint64_t)(uintptr_t)user;
    for (int i = 0; i < 50000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t size = 1 + (size_t)(random >> 33) % 3000;
        bool is_hosts = random >> 60 < 4;
        size_t at = (random >> 50) % 128 + (is_hosts ? 128 : 0);
        void *block = is_hosts ? malloc(size) : PyMem_RawMalloc(size);
        if (is_hosts && !is_preloaded()) { /* else it has counted */
            pyprof_heap_on_alloc(block, size);
        }
        void *old = __atomic_exchange_n(&blocks[at], block, __ATOMIC_ACQ_REL);
        if (is_hosts) {
            pyprof_heap_on_free(old);
            free(old);
        } else {
            PyMem_RawFree(old);
        }
    }
    pyprof__add(&rounds, 1);
    return NULL;
}

static void test_threads_free_each_others(void **state) {
    pthread_t threads[8];
    (void)state;
    assert_int_equal(start(2000), PYPROF_OK);
    for (uintptr_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, exchange, (void *)(i + 1)), 0);
    }
    for (size_t i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_true(stats_now().samples > 50000);
    for (size_t i = 0; i < 256; i++) {
        if (i < 128) {
            PyMem_RawFree(blocks[i]);
        } else {
            pyprof_heap_on_free(blocks[i]);
            free(blocks[i]);
        }
        blocks[i] = NULL;
    }
    pyprof_heap_stats stats = stats_now();
    assert_true(stats.samples_live <= (is_preloaded() ? 4u : 0u)); /* what threads leave behind in libc */
    assert_int_equal(stats.samples_replaced, 0);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* Interpreters that end, threads that end, and forks while another thread allocates without the GIL. */
static void test_stress(void **state) {
    pthread_t thread;
    (void)state;
    Py_Initialize();
    assert_int_equal(start(500), PYPROF_OK);
    assert_int_equal(pthread_create(&thread, NULL, exchange, (void *)1), 0);
    for (int i = 0; i < 5; i++) {
        PyThreadState *before = PyThreadState_Get();
        PyThreadState *other = Py_NewInterpreter();
        run("import json; held = json.loads('[1, 2, {\"a\": 3}]') * 1000");
        Py_EndInterpreter(other);
        PyThreadState_Swap(before);
        run("import threading\n"
            "several = [threading.Thread(target=lambda: [bytes(i) for i in range(1000)]) for i in range(4)]\n"
            "for thread in several: thread.start()\n"
            "for thread in several: thread.join()\n");
        run("import os, warnings; warnings.simplefilter('ignore')\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    held = [bytes(100) for i in range(10000)]\n"
            "    os._exit(0)\n"
            "assert os.waitpid(child, 0)[1] == 0\n");
    }
    pthread_join(thread, NULL);
    assert_true(stats_now().samples > 10000);
    assert_int_equal(stats_now().lost_unreadable, 0);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    assert_int_equal(Py_FinalizeEx(), 0);
    for (size_t i = 0; i < 256; i++) {
        i < 128 ? PyMem_RawFree(blocks[i]) : free(blocks[i]);
        blocks[i] = NULL;
    }
}

/* Each allocator that Python may begin with: the first two tests of this program under it. */
static void test_allocators(void **state) {
    static const char *const names[] = {"malloc", "debug", "pymalloc", "malloc_debug", "mimalloc"};
    size_t count = sizeof names / sizeof *names - (PY_VERSION_HEX < 0x030d0000);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        bool is_free_threaded = false;
#if defined(Py_GIL_DISABLED)
        is_free_threaded = true;
#endif
        if (is_free_threaded && strstr(names[i], "malloc") == names[i] + (names[i][0] == 'p' ? 2 : 0)) {
            continue; /* there it has to be mimalloc */
        }
        pid_t child = fork();
        int status = 0;
        if (child == 0) {
            setenv("PYTHONMALLOC", names[i], 1);
            execl(self_path, self_path, "once", (char *)NULL);
            _exit(127);
        }
        assert_true(child > 0 && waitpid(child, &status, 0) == child);
        if (status != 0) {
            fail_msg("with PYTHONMALLOC=%s: status %d", names[i], status);
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_around_python), cmocka_unit_test(test_python_again_and_again),
        cmocka_unit_test(test_other_hooks),   cmocka_unit_test(test_without_the_gil),
        cmocka_unit_test(test_stress),        cmocka_unit_test(test_threads_free_each_others),
        cmocka_unit_test(test_allocators),
    };
    const struct CMUnitTest once[] = {cmocka_unit_test(test_around_python), cmocka_unit_test(test_other_hooks)};
    self_path = argv[0];
    tell_home();
    finest = argc > 1 ? 100 : 1;
    return argc > 1 ? cmocka_run_group_tests(once, NULL, NULL) : cmocka_run_group_tests(tests, NULL, NULL);
}
