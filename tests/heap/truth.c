/* Programs whose allocations are counted exactly (exact.h), as they are and with libpyprof-heap.so preloaded, with which what
   Python passes on to malloc and mmap counts once all the same: what is estimated of each function, living and allocated, is
   the truth within the error that is told; what is free does not live; leaks are found; and each is in its place. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <math.h>

#include "exact.h"
#include "figures.h"
#include "home.h"

/* Each function of the table below is a phase, of its number. */
static const char script[] =
    "import array, collections, exact, gc, itertools, pickle, queue, struct, threading\n"
    "kept = {}\n"
    "def small(n):\n"
    "    exact.phase(1); kept[1] = [object() for i in range(n)]; exact.phase(0)\n"
    "def sizes(n):\n"
    "    exact.phase(2)\n"
    "    for size in 8, 100, 400, 512 - 33, 513 - 33, 4000, 1 << 16, 1 << 20, 1 << 26:\n"
    "        kept[2, size] = [bytes(size) for i in range(max(1, n * 100 // (size + 1000)))]\n"
    "    exact.phase(0)\n"
    "def short(n):\n"
    "    exact.phase(3)\n"
    "    for i in range(n):\n"
    "        bytearray(5000)\n"
    "    exact.phase(0)\n"
    "def grow(n):\n"
    "    exact.phase(4); array = bytearray()\n"
    "    for i in range(n):\n"
    "        array.extend(b'0123456789')\n"
    "    kept[4] = array; exact.phase(0)\n"
    "def shrink(n):\n"
    "    exact.phase(5); array = bytearray(10 * n)\n"
    "    while len(array) > 5000:\n"
    "        del array[len(array) // 2:]\n"
    "    kept[5] = [array, [bytearray(b'x' * 3000) for i in range(n // 50)]]\n"
    "    for item in kept[5][1]:\n"
    "        del item[100:]\n"
    "    exact.phase(0)\n"
    "def dicts(n):\n"
    "    exact.phase(6); kept[6] = [{j: str(j) for j in range(i % 50)} for i in range(n // 50)]; exact.phase(0)\n"
    "def lists(n):\n"
    "    exact.phase(7); kept[7] = []\n"
    "    for i in range(n // 100):\n"
    "        kept[7].append([]); inner = kept[7][-1]\n"
    "        for j in range(100):\n"
    "            inner.append(None)\n"
    "    exact.phase(0)\n"
    "def raw(n):\n"
    "    exact.phase(8); exact.raw(n // 100, 3000, 1); exact.phase(0)\n"
    "def cycles(n):\n"
    "    exact.phase(9)\n"
    "    class Node: pass\n"
    "    for i in range(n // 10):\n"
    "        one, other = Node(), Node(); one.other, other.other = other, one; one.load = bytes(300)\n"
    "    exact.phase(0)\n"
    "def in_thread(n):\n"
    "    exact.phase(10); kept[10] = [bytes(700) for i in range(n // 10)]; exact.phase(0)\n"
    "def threads(n):\n"
    "    several = [threading.Thread(target=in_thread, args=(n,)) for i in range(3)]\n"
    "    for thread in several: thread.start()\n"
    "    for thread in several: thread.join()\n"
    "def text(n):\n"
    "    exact.phase(11); parts = ''\n"
    "    for i in range(n // 100):\n"
    "        parts += 'x' * 50\n"
    "    kept[11] = [parts, [chr(1000 + i % 5000) * 100 for i in range(n // 10)]]; exact.phase(0)\n"
    "def resized(n):\n" /* up and down by C, in each of the three domains */
    "    exact.phase(12); exact.resize(n // 50); exact.phase(0)\n"
    "def extensions(n):\n"
    "    exact.phase(13); numbers = array.array('d')\n"
    "    for i in range(n // 2):\n"
    "        numbers.append(i)\n"
    "    kept[13] = [numbers, collections.deque(range(n)), list(itertools.combinations(range(40), 2)),\n"
    "                [struct.pack('200x') for i in range(n // 20)], pickle.loads(pickle.dumps(list(range(n))))]\n"
    "    exact.phase(0)\n"
    "def block():\n"
    "    exact.phase(14); made = bytearray(3000); exact.phase(0)\n"
    "    return made\n"
    "def blocks(n):\n" /* which are freed by the thread that has not made them, while both go on */
    "    passed = queue.Queue(8); kept[14] = []\n"
    "    def take():\n"
    "        for taken in iter(passed.get, None):\n"
    "            del taken\n"
    "    thread = threading.Thread(target=take); thread.start()\n"
    "    for i in range(n // 20):\n"
    "        kept[14].append(block()) if i % 10 == 0 else passed.put(block())\n"
    "    passed.put(None); thread.join()\n"
    "def run(n):\n"
    "    for function in (small, sizes, short, grow, shrink, dicts, lists, raw, cycles, threads, text, resized, "
    "extensions,\n"
    "                     blocks, exact.in_interpreter):\n"
    "        function(n)\n"
    "def forget():\n" /* in another thread than most of it was made in */
    "    thread = threading.Thread(target=kept.clear); thread.start(); thread.join()\n"
    "    exact.free_raw(); exact.free_resized(); exact.end_interpreter(); gc.collect()\n";
static const char leaks[] =
    "def leak_0(n): kept.setdefault(100, []).extend(bytes(1000) for i in range(n))\n"
    "def leak_1(n): kept.setdefault(101, []).extend(object() for i in range(60 * n))\n"
    "def leak_2(n): kept.setdefault(102, {}).update((bytes([i % 256] * 20) + str(i + len(kept[102])).encode(), i) for "
    "i in range(8 * n))\n"
    "def leak_3(n): kept.setdefault(103, bytearray()).extend(b'x' * 1000 * n)\n"
    "def leak_4(n): kept.setdefault(104, []).append('y' * 1000 * n)\n"
    "def leak_5(n): kept.setdefault(105, []).extend([None] * 20 for i in range(5 * n))\n"
    "def leak_6(n): exact.raw(n // 2, 2000, 1)\n"
    "def leak_7(n): kept.setdefault(107, []).extend(set(range(30)) for i in range(n))\n"
    "def no_leak(n): return [bytes(1000) for i in range(10 * n)] and None\n"
    "def cache(n): kept[200] = [bytes(1000) for i in range(5 * n)]\n"
    "def leak(n):\n"
    "    for function in leak_0, leak_1, leak_2, leak_3, leak_4, leak_5, leak_6, leak_7, no_leak, cache:\n"
    "        function(n)\n";

static const char *const functions[] = {NULL,      "small",      "sizes", "short",      "grow",      "shrink",
                                        "dicts",   "lists",      "raw",   "cycles",     "in_thread", "text",
                                        "resized", "extensions", "block", "interpreted"};

enum {
    FUNCTIONS = sizeof functions / sizeof *functions
};

static void start(size_t sampling_bytes, uint64_t seed) {
    pyprof_heap_desc desc = {0};
    desc.sampling_bytes = sampling_bytes;
    pyprof__heap_here()->random = seed;
    pyprof__heap_here()->mean = 0;
    pyprof__heap_here()->left = 0;
    memset(exact_phases, 0, sizeof exact_phases);
    memset(exact_blocks, 0, EXACT_SLOTS * sizeof *exact_blocks);
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
}

typedef struct tally {
    int within, all;
} tally;

/* Whether an estimate of bytes is within two errors, as the manual tells them, of the truth. No more than five ever. */
static void judge(const char *name, double estimate, double truth, double mean, tally *sum) {
    double error = sqrt((truth > estimate ? truth : estimate) * mean);
    if (fabs(estimate - truth) > 5 * error + 200) {
        fail_msg("%s: %.0f estimated, %.0f true, error %.0f", name, estimate, truth, error);
    }
    sum->within += fabs(estimate - truth) <= 2 * error + 200;
    sum->all++;
}

/* Each run with samples of its own; the truth of each from the counts. `heap_truth 100` makes as many. */
static uint64_t runs = 12;

static void test_estimates_of_functions(void **state) {
    tally told = {0, 0}, overall = {0, 0};
    (void)state;
    for (uint64_t seed = 1; seed <= runs; seed++) {
        const size_t mean = seed % 2 == 0 ? 4096 : 65536;
        pyprof_heap_stats stats;
        double live = 0, alloc = 0;
        start(mean, seed);
        run("run(20000)");
        pyprof_profile *profile = snapshot();
        assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_OK);
        for (int i = 0; i < EXACT_PHASES; i++) {
            live += exact_phases[i].live_bytes;
            alloc += exact_phases[i].alloc_bytes;
        }
        for (int i = 1; i < FUNCTIONS; i++) {
            const exact_sums *truth = &exact_phases[i];
            judge(functions[i], total(profile, PYPROF_METRIC_INUSE_SPACE, functions[i]), truth->live_bytes,
                  (double)mean, &told);
            judge(functions[i], total(profile, PYPROF_METRIC_ALLOC_SPACE, functions[i]), truth->alloc_bytes,
                  (double)mean, &told);
        }
        overall.within += fabs((double)stats.live_bytes - live) <= 2 * (double)stats.live_bytes_error;
        overall.within += fabs((double)stats.alloc_bytes - alloc) <= 2 * (double)stats.alloc_bytes_error;
        overall.all += 2;
        assert_true(stats.lost_memory == 0 && stats.lost_unreadable == 0 && stats.samples_replaced == 0);
        pyprof_free(profile);
        run("forget()");
        assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    }
    print_message("%d of %d functions and %d of %d sums within two errors\n", told.within, told.all, overall.within,
                  overall.all);
    double expected = 0.95 * overall.all, spread = sqrt(0.05 * expected);
    assert_true(told.within * 100 >= told.all * 95);               /* the error is an upper bound for functions, */
    assert_true(overall.within >= floor(expected - 3.3 * spread)); /* and estimated for sums: 1 in 1000 has fewer */
}

/* Objects, where all that a function makes are of one size. */
static void test_numbers_of_objects(void **state) {
    (void)state;
    start(2000, 3);
    run("run(20000)");
    pyprof_profile *profile = snapshot();
    double truth = exact_phases[1].live_objects, estimate = total(profile, PYPROF_METRIC_INUSE_OBJECTS, "small");
    double error = sqrt(truth * 2000 / 16); /* n / p where n are sampled with the chance p = size / mean */
    print_message("%.0f objects, %.0f estimated, error %.0f\n", truth, estimate, error);
    assert_true(truth > 20000 && fabs(truth - estimate) < 4 * error);
    pyprof_free(profile);
    run("forget()");
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* After all is freed nothing lives: exactly, with each allocation a sample; also of those that were freed after stop. */
static void test_freed_is_freed(void **state) {
    (void)state;
    start(1, 1);
    run("run(2000)");
    pyprof_profile *profile = snapshot();
    for (int i = 1; i < FUNCTIONS; i++) {
        double live = exact_phases[i].live_bytes, alloc = exact_phases[i].alloc_bytes;
        assert_true(fabs(total(profile, PYPROF_METRIC_INUSE_SPACE, functions[i]) - live) <= 200 + live / 1000);
        assert_true(fabs(total(profile, PYPROF_METRIC_ALLOC_SPACE, functions[i]) - alloc) <= 200 + alloc / 1000);
    }
    pyprof_free(profile);
    assert_int_equal(pyprof_heap_stop(), PYPROF_OK);
    run("forget()");
    profile = snapshot();
    for (int i = 1; i < FUNCTIONS; i++) {
        if (exact_phases[i].live_bytes == 0) {
            assert_true(total(profile, PYPROF_METRIC_INUSE_SPACE, functions[i]) == 0);
        }
        assert_true(exact_phases[i].live_bytes < 4000);
        assert_true(total(profile, PYPROF_METRIC_INUSE_SPACE, functions[i]) < 4000);
        assert_true(total(profile, PYPROF_METRIC_ALLOC_SPACE, functions[i]) > 0);
    }
    pyprof_free(profile);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* Eight functions that keep more and more, one that keeps nothing and one that keeps as much: two snapshots tell. */
static void test_leaks_are_found(void **state) {
    char name[16];
    (void)state;
    start(8192, 5);
    run("leak(100)");
    pyprof_profile *before = snapshot();
    run("for i in range(4): leak(100)");
    pyprof_profile *after = snapshot();
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, i < 8 ? "leak_%d" : i == 8 ? "no_leak" : "cache", i);
        double then = total(before, PYPROF_METRIC_INUSE_SPACE, name);
        double growth = total(after, PYPROF_METRIC_INUSE_SPACE, name) - then;
        double error = sqrt((2 * then + fabs(growth)) * 8192);
        print_message("%s: %.0f +- %.0f\n", name, growth, error);
        assert_true(i < 8 ? growth > 3 * error : fabs(growth) < 3 * error + 1);
    }
    pyprof_free(before);
    pyprof_free(after);
    run("forget()");
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

static void test_stacks(void **state) {
    (void)state;
    start(500, 9);
    run("def outer():\n"
        "    return inner()\n"
        "def inner():\n"
        "    a = 1\n"
        "    return bytes(10000), [bytes(10000) for i in range(10)]\n"
        "held = outer()\n");
    assert_has("thread MainThread;", ";outer (<string>:2);inner (<string>:5) ");
    run("def from_thread(): kept[1] = outer()\n"
        "thread = threading.Thread(target=from_thread); thread.start(); thread.join()");
    assert_has("_bootstrap_inner (", ";outer (<string>:2);inner (<string>:5)");
    run("def without(): exact.raw(5, 100000, 0)\nwithout()\n"); /* no thread state is attached */
    assert_has("thread MainThread;[native] ", "");
    PyThreadState *main_state = PyThreadState_Get();
    PyThreadState *other = Py_NewInterpreter();
    run("def elsewhere():\n    return bytes(100000)\nheld = elsewhere()\n");
    assert_has("thread MainThread;[interpreter ", "elsewhere (<string>:2) ");
    Py_EndInterpreter(other);
    PyThreadState_Swap(main_state);
    run("held = None; forget()");
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* Sampling of time and of the heap at once. */
static void test_both_at_once(void **state) {
    pyprof_desc desc = {0};
    pyprof_profile *time;
    tally told = {0, 0};
    (void)state;
    desc.interval_us = 500;
    start(8192, 3);
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    run("run(20000)");
    pyprof_profile *heap = snapshot();
    assert_int_equal(pyprof_stop(&time), PYPROF_OK);
    for (int i = 1; i < FUNCTIONS; i++) {
        judge(functions[i], total(heap, PYPROF_METRIC_INUSE_SPACE, functions[i]), exact_phases[i].live_bytes, 8192,
              &told);
    }
    assert_true(total(time, PYPROF_METRIC_WALL, "run") > 0);
    pyprof_free(heap);
    pyprof_free(time);
    run("forget()");
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_estimates_of_functions),
        cmocka_unit_test(test_numbers_of_objects),
        cmocka_unit_test(test_freed_is_freed),
        cmocka_unit_test(test_leaks_are_found),
        cmocka_unit_test(test_stacks),
        cmocka_unit_test(test_both_at_once),
    };
    runs = argc > 1 ? (uint64_t)atol(argv[1]) : runs;
    tell_home();
    exact_begin();
    PyImport_AppendInittab("exact", exact_module);
    Py_Initialize();
    if (PyRun_SimpleString(script) != 0 || PyRun_SimpleString(leaks) != 0) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    Py_FinalizeEx();
    return failed;
}
