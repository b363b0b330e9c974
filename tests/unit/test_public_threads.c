/* >>public, >>lifecycle: all at once: the sampler, Python threads, host threads that come and go, and every call of
   the API from threads of their own, while recordings start and stop. Nothing here is timed: each thread does a fixed
   number of rounds. What it finds, it finds under a sanitizer (-Db_sanitize=thread, or =address,undefined), or by not
   ending. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

/* CPython itself is not built for the sanitizer: it sees its memory, but not its atomics. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "ignore_noninstrumented_modules=1";
}

enum {
    rounds = 6,
    calls = 30,
    callers = 5
};

static pyprof__atomic32 working;  /* threads that still have calls to make */
static pyprof__atomic32 is_ready; /* Python's threads are there */
static pyprof__atomic32 failures;

/* cmocka's checks are for the main thread only. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            pyprof__add(&failures, 1);                                                                                 \
        }                                                                                                              \
    } while (0)

static counted_memory memory;

static void wait_until_ready(void) {
    while (pyprof__get(&is_ready) == 0) {
        pyprof__wait_until(&is_ready, 0, pyprof__now() + 1000000000u);
    }
}

static void *call_snapshot(void *unused) {
    wait_until_ready();
    for (int i = 0; i < calls; i++) {
        pyprof_profile *profile = NULL;
        pyprof_result result = pyprof_snapshot(&profile);
        CHECK(result == PYPROF_OK || result == PYPROF_ERROR_NOT_ACTIVE);
        CHECK((profile != NULL) == (result == PYPROF_OK));
        if (profile != NULL) {
            size_t size = 0;
            pyprof_output output = {.format = i % 2 ? PYPROF_FORMAT_SPEEDSCOPE : PYPROF_FORMAT_COLLAPSED,
                                    .metric = (pyprof_metric)(i % 4),
                                    .detail = PYPROF_DETAIL_LINE,
                                    .include_idle = true};
            CHECK(pyprof_write(profile, &output, count_written, &size) == PYPROF_OK);
            CHECK(size > 0 || !(i % 2));
            pyprof_visitor nobody = {NULL, NULL, NULL};
            CHECK(pyprof_visit(profile, &output, &nobody) == PYPROF_OK);
            output.only_mine = true;
            size = 0;
            CHECK(pyprof_top(profile, &output, NULL, &size) == PYPROF_OK);
        }
        pyprof_free(profile);
    }
    pyprof__add(&working, (uint32_t)-1);
    return unused;
}

static void *call_stats(void *unused) {
    uint64_t ticks = 0;
    wait_until_ready();
    for (int i = 0; i < 20 * calls; i++) {
        pyprof_stats stats;
        pyprof_is_active();
        CHECK(pyprof_get_stats(&stats) == PYPROF_OK);
        CHECK(stats.ticks >= ticks); /* of one recording, or of the last one when it has ended */
        ticks = stats.ticks;
    }
    pyprof__add(&working, (uint32_t)-1);
    return unused;
}

static void *call_dump(void *unused) {
    wait_until_ready();
    for (int i = 0; i < calls; i++) {
        size_t size = 0;
        pyprof_result result = pyprof_dump(count_written, &size);
        CHECK(result == PYPROF_OK || result == PYPROF_ERROR_NOT_ACTIVE);
    }
    pyprof__add(&working, (uint32_t)-1);
    return unused;
}

static void *visit_python(void *unused) {
    wait_until_ready();
    for (int i = 0; i < calls; i++) {
        PyGILState_STATE state = PyGILState_Ensure();
        CHECK(PyRun_SimpleString("visit(20)") == 0);
        PyGILState_Release(state);
    }
    pyprof__add(&working, (uint32_t)-1);
    return unused;
}

static void *call_start(void *unused) {
    wait_until_ready();
    for (int i = 0; i < calls; i++) {
        CHECK(pyprof_start(NULL) == PYPROF_ERROR_ALREADY_ACTIVE);
    }
    pyprof__add(&working, (uint32_t)-1);
    return unused;
}

static PyObject *is_working(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return PyBool_FromLong(pyprof__get(&working) != 0);
}

static PyObject *set_ready(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    pyprof__set(&is_ready, 1);
    pyprof__wake(&is_ready);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"is_working", is_working, METH_NOARGS, NULL},
    {"set_ready", set_ready, METH_NOARGS, NULL},
};

static int start(void **state) {
    if (unit_start_python(state) != 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        PyObject *function = PyCFunction_New(&methods[i], NULL);
        PyObject_SetAttrString(PyImport_AddModule("__main__"), methods[i].ml_name, function);
        Py_DECREF(function);
    }
    return PyRun_SimpleString("import threading, time\n"
                              "def leaf(n): return n * n\n"
                              "def inner(n): return sum(leaf(i) for i in range(n))\n"
                              "def visit(n): return inner(n) + inner(n)\n"
                              "def busy():\n"
                              "    while is_working(): visit(50)\n"
                              "def short_lived():\n"
                              "    while is_working():\n"
                              "        code = compile('def f(n):\\n return n\\nf(1)', 'made', 'exec')\n"
                              "        t = threading.Thread(target=exec, args=(code, {}), name='short')\n"
                              "        t.start(); t.join()\n"
                              "def sleepy():\n"
                              "    while is_working(): time.sleep(0.0005)\n"
                              "def run():\n"
                              "    threads = [threading.Thread(target=t) for t in (busy, short_lived, sleepy)]\n"
                              "    for t in threads: t.start()\n"
                              "    set_ready()\n"
                              "    busy()\n"
                              "    for t in threads: t.join()\n");
}

static pyprof_profile *record(pyprof_capture capture, uint32_t interval_us) {
    static void *(*const functions[callers])(void *) = {call_snapshot, call_stats, call_dump, visit_python, call_start};
    pthread_t threads[callers];
    pyprof_profile *profile = NULL;
    pyprof_desc desc = counted_desc(&memory, interval_us);
    desc.capture = capture;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    pyprof__set(&working, callers);
    pyprof__set(&is_ready, 0);
    for (int i = 0; i < callers; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, functions[i], NULL), 0);
    }
    unit_run("run()");
    for (int i = 0; i < callers; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    return profile;
}

static void test_all_calls_at_once(void **state) {
    (void)state;
    for (int round = 0; round < rounds; round++) {
        pyprof_stats stats;
        pyprof_capture capture = round % 3 == 2 ? PYPROF_CAPTURE_QUIET : PYPROF_CAPTURE_DEFAULT;
        pyprof_profile *profile = record(capture, round % 2 == 0 ? 100 : 1000);
        assert_int_equal(pyprof_get_stats(&stats), PYPROF_OK);
        assert_true(stats.samples > 0);
        assert_true(stats.threads >= 3);
        assert_true(capture == PYPROF_CAPTURE_DEFAULT || stats.signals == 0);
        size_t size = 0;
        assert_int_equal(pyprof_write(profile, NULL, count_written, &size), PYPROF_OK);
        assert_true(size > 0);
        pyprof_free(profile);
        assert_int_equal(memory.blocks, 0);
    }
    assert_int_equal(pyprof__get(&failures), 0);
}

/* A dump is served at once, however long the interval: it must not be missed while the sampler is at work. */
static void test_dumps_are_never_missed(void **state) {
    pyprof_desc desc;
    (void)state;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 50; /* at work nearly all the time */
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    for (int i = 0; i < 1000; i++) {
        size_t size = 0;
        assert_int_equal(pyprof_dump(count_written, &size), PYPROF_OK);
    }
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    desc.interval_us = 10000000; /* nearly never */
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    for (int i = 0; i < 1000; i++) {
        size_t size = 0;
        assert_int_equal(pyprof_dump(count_written, &size), PYPROF_OK);
    }
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
}

static void *start_and_stop(void *counts) {
    pyprof__atomic32 *count = (pyprof__atomic32 *)counts;
    wait_until_ready();
    for (int i = 0; i < 4 * calls; i++) {
        pyprof_profile *profile = NULL;
        pyprof_result started = pyprof_start(NULL);
        CHECK(started == PYPROF_OK || started == PYPROF_ERROR_ALREADY_ACTIVE);
        pyprof__add(&count[0], started == PYPROF_OK);
        pyprof_result stopped = pyprof_stop(&profile);
        CHECK(stopped == PYPROF_OK || stopped == PYPROF_ERROR_NOT_ACTIVE);
        CHECK((profile != NULL) == (stopped == PYPROF_OK));
        pyprof__add(&count[1], stopped == PYPROF_OK);
        pyprof_free(profile);
    }
    pyprof__add(&working, (uint32_t)-1);
    return NULL;
}

static void test_every_start_has_one_stop(void **state) {
    pyprof__atomic32 count[2] = {{0}, {0}};
    pthread_t threads[3];
    (void)state;
    pyprof__set(&working, 3);
    pyprof__set(&is_ready, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, start_and_stop, count), 0);
    }
    unit_run("run()");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    if (pyprof_is_active()) {
        assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
        pyprof__add(&count[1], 1);
    }
    assert_int_equal(pyprof_stop(NULL), PYPROF_ERROR_NOT_ACTIVE);
    assert_int_equal(count[0].value, count[1].value);
    assert_true(count[0].value > 0);
    assert_int_equal(pyprof__get(&failures), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_calls_at_once),
        cmocka_unit_test(test_dumps_are_never_missed),
        cmocka_unit_test(test_every_start_has_one_stop),
    };
    return cmocka_run_group_tests(tests, start, unit_stop_python);
}
