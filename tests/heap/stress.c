/* Heap sampling at one in 64 KiB while eight threads allocate as fast as they can, resize and free each other's blocks: hooks
   go in and out a thousand times, what they count is true, and interpreters with a GIL of their own begin and end. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <math.h>

#include "home.h"

enum {
    THREADS = 8,
    BLOCKS = 1024, /* a thread that allocates frees or resizes what mostly another one has put there */
    TIMES = 1000,
    EACH = 200000, /* allocations of a thread */
    SAMPLING = 65536
};

static void *blocks[BLOCKS];
static pyprof__atomic32 must_end;

/* What a thread has done, each for itself. */
typedef struct worker {
    pthread_t thread;
    uint64_t random;
    pyprof__atomic64 count; /* allocations, those by resizing among them */
    double bytes;           /* that were allocated */
    bool is_bounded;        /* to EACH; else until must_end */
} worker;

static worker workers[THREADS];

/* Sizes as programs have them: small ones, and one in 4096 of some pages. */
static size_t next_size(worker *self) {
    self->random = self->random * 6364136223846793005u + 1442695040888963407u;
    return (self->random >> 52) == 0 ? 100000 : 1 + (size_t)(self->random >> 33) % 500;
}

static void *exchange(void *user) {
    worker *self = (worker *)user;
    uint64_t count = 0;
    while (self->is_bounded ? count < EACH : !pyprof__get(&must_end)) {
        size_t size = next_size(self), at = (size_t)(self->random >> 20) % BLOCKS;
        void *block = NULL;
        if ((self->random >> 13) % 8 == 0) {
            block = __atomic_exchange_n(&blocks[at], NULL, __ATOMIC_ACQ_REL);
        }
        block = PyMem_RawRealloc(block, size); /* of NULL: as malloc does */
        memset(block, 1, size < 16 ? size : 16);
        PyMem_RawFree(__atomic_exchange_n(&blocks[at], block, __ATOMIC_ACQ_REL));
        self->bytes += (double)size;
        pyprof__set64(&self->count, ++count);
    }
    return NULL;
}

static void begin_workers(bool is_bounded) {
    memset(workers, 0, sizeof workers);
    pyprof__set(&must_end, 0);
    for (size_t i = 0; i < THREADS; i++) {
        workers[i].random = i + 1;
        workers[i].is_bounded = is_bounded;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, exchange, &workers[i]), 0);
    }
}

static uint64_t workers_count(void) {
    uint64_t count = 0;
    for (size_t i = 0; i < THREADS; i++) {
        count += pyprof__get64(&workers[i].count);
    }
    return count;
}

static double end_workers(void) {
    double bytes = 0;
    pyprof__set(&must_end, 1);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        bytes += workers[i].bytes;
    }
    return bytes;
}

static void free_blocks(void) {
    for (size_t i = 0; i < BLOCKS; i++) {
        PyMem_RawFree(blocks[i]);
        blocks[i] = NULL;
    }
}

static void start(void) {
    pyprof_heap_desc desc = {0};
    desc.sampling_bytes = SAMPLING;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
}

static pyprof_heap_stats stats_now(void) {
    pyprof_heap_stats stats;
    assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_OK);
    return stats;
}

static void print_rate(const char *what, uint64_t allocations, uint64_t begin, uint64_t cpu_begin) {
    double wall = (double)(pyprof__now() - begin) / 1e9;
    double cpu = (double)(pyprof__clock(CLOCK_PROCESS_CPUTIME_ID) - cpu_begin) / 1e9;
    print_message("%s: %.1f M allocations, %.2f M a second, %.2f M a second of CPU time\n", what,
                  (double)allocations / 1e6, (double)allocations / 1e6 / wall, (double)allocations / 1e6 / cpu);
}

/* Each time until samples were taken, so that none of the thousand is empty. */
static void test_in_and_out(void **state) {
    PyMemAllocatorEx before, after;
    uint64_t samples = 0, freed = 0, replaced = 0;
    (void)state;
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &before);
    uint64_t begin = pyprof__now(), cpu_begin = pyprof__clock(CLOCK_PROCESS_CPUTIME_ID);
    begin_workers(false);
    for (int i = 0; i < TIMES; i++) {
        start();
        while (stats_now().samples < 4) {
            usleep(50);
        }
        if (i % 4 == 0) { /* stopped, frees are followed on */
            assert_int_equal(pyprof_heap_stop(), PYPROF_OK);
        }
        pyprof_heap_stats stats = stats_now();
        samples += stats.samples;
        freed += stats.samples_freed;
        replaced += stats.samples_replaced;
        assert_true(stats.samples >= stats.samples_live + stats.samples_freed + stats.samples_replaced);
        assert_true(stats.lost_memory == 0 && stats.lost_unreadable == 0);
        assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    }
    print_rate("in and out", workers_count(), begin, cpu_begin);
    end_workers();
    print_message("%llu samples, %llu of them freed, %llu replaced\n", (unsigned long long)samples,
                  (unsigned long long)freed, (unsigned long long)replaced);
    assert_true(samples >= 4 * TIMES && freed > 0);
    assert_true(replaced * 100 < samples); /* a thread that was about to free without our hook */
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &after);
    assert_memory_equal(&before, &after, sizeof before);
    free_blocks();
}

/* All that the threads have allocated is estimated within the error that is told; and nothing lives when all is free. */
static void test_what_threads_allocate_is_true(void **state) {
    double truth;
    (void)state;
    start();
    uint64_t begin = pyprof__now(), cpu_begin = pyprof__clock(CLOCK_PROCESS_CPUTIME_ID);
    begin_workers(true);
    truth = end_workers();
    print_rate("sampled", workers_count(), begin, cpu_begin);
    assert_int_equal(workers_count(), THREADS * EACH);
    pyprof_heap_stats stats = stats_now();
    double error = (double)stats.alloc_bytes_error;
    print_message("%.0f bytes, %llu estimated, error %.0f; %llu samples\n", truth,
                  (unsigned long long)stats.alloc_bytes, error, (unsigned long long)stats.samples);
    assert_true(error < truth / 50 && fabs((double)stats.alloc_bytes - truth) < 4.5 * error);
    assert_int_equal(stats.samples, stats.samples_live + stats.samples_freed);
    assert_true(stats.samples_live <= BLOCKS);
    free_blocks();
    stats = stats_now();
    assert_true(stats.samples_live == 0 && stats.samples_replaced == 0 && stats.lost_memory == 0);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

#if PY_VERSION_HEX >= 0x030c0000
/* An interpreter of its own, which keeps 3 MB until it ends. */
static void *live_in_interpreters(void *user) {
    PyInterpreterConfig config;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyThreadState *main_state = PyThreadState_Get(), *own = NULL;
    memset(&config, 0, sizeof config);
    config.check_multi_interp_extensions = 1;
    config.gil = PyInterpreterConfig_OWN_GIL;
    config.allow_threads = 1;
    for (int i = 0; i < 5; i++) {
        if (PyStatus_Exception(Py_NewInterpreterFromConfig(&own, &config)) ||
            PyRun_SimpleString("kept = [bytes(3000) for i in range(1000)]\n"
                               "for i in range(20): [dict(a=j) for j in range(500)]\n") != 0) {
            pyprof__add((pyprof__atomic32 *)user, 1);
            break;
        }
        Py_EndInterpreter(own);
        PyThreadState_Swap(main_state);
    }
    PyGILState_Release(gil);
    return NULL;
}

/* What they have kept is free when they have ended; CPython itself leaves some 150 KB behind with each, and 500 KB if it has
   no GIL. */
#if defined(Py_GIL_DISABLED)
#define LEFT_BEHIND 0.25 /* of what they have kept */
#else
#define LEFT_BEHIND 0.1
#endif
static void test_interpreters_with_their_own_gil(void **state) {
    pthread_t threads[4];
    pyprof__atomic32 failures = {0};
    pyprof_heap_desc desc = {0};
    (void)state;
    desc.sampling_bytes = 500;
    Py_Initialize();
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
    uint64_t before = stats_now().live_bytes;
    PyThreadState *main_state = PyEval_SaveThread();
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, live_in_interpreters, &failures), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    PyEval_RestoreThread(main_state);
    assert_int_equal(pyprof__get(&failures), 0);
    pyprof_heap_stats stats = stats_now();
    double left = (double)stats.live_bytes - (double)before;
    print_message("20 interpreters: %.0f bytes left, %.0f allocated; %llu samples, %llu replaced\n", left,
                  (double)stats.alloc_bytes, (unsigned long long)stats.samples,
                  (unsigned long long)stats.samples_replaced);
    assert_true(stats.alloc_bytes > 20 * 3000000u && left < 20 * 3000000.0 * LEFT_BEHIND);
    assert_true(stats.lost_memory == 0 && stats.lost_unreadable == 0);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    assert_int_equal(Py_FinalizeEx(), 0);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_and_out),
        cmocka_unit_test(test_what_threads_allocate_is_true),
#if PY_VERSION_HEX >= 0x030c0000
        cmocka_unit_test(test_interpreters_with_their_own_gil),
#endif
    };
    tell_home();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
