/* >>platform: clocks, when a thread began, what it does with signals, and which threads there are. */
#include "clock.h"

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

static const uint64_t second = UINT64_C(1000000000), ms = 1000000;

static void test_clocks(void **state) {
    const clockid_t own = pyprof__cpu_clock(pyprof__tid()), gone = pyprof__cpu_clock(INT32_MAX / 8);
    (void)state;
    uint64_t now = pyprof__now(), before = pyprof__clock(own);
    uint64_t same = pyprof__clock(CLOCK_THREAD_CPUTIME_ID);
    assert_in_range(same, before, pyprof__clock(own));
    assert_true(pyprof__now() >= now);
    assert_int_equal(pyprof__clock(gone), 0); /* no such thread */
    unit_set_clock(CLOCK_MONOTONIC, 7 * second + 8);
    assert_int_equal(pyprof__now(), 7 * second + 8);
    unit_advance_clock(CLOCK_MONOTONIC, second - 9);
    assert_int_equal(pyprof__now(), 8 * second - 1);
    assert_true(pyprof__clock(own) >= before); /* which goes on */
    unit_release_clocks(state);
    assert_true(pyprof__now() >= now);
}

/* In nanoseconds since the system was booted, as coarse as it is told. */
static uint64_t beginning_of(int32_t tid) {
    char text[512];
    assert_true(pyprof__read_task_file(tid, "stat", text, sizeof text) > 0);
    const char *at = strrchr(text, ')');
    for (int field = 2; field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return strtoull(at, NULL, 10) * (second / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* The machine may have slept: then the monotonic clock has stood still, and the one since it was booted has not. */
static void test_when_a_thread_began(void **state) {
    const int32_t tid = pyprof__tid();
    (void)state;
    for (uint64_t slept = 0; slept <= 3600 * second; slept += 3600 * second) {
        uint64_t began = 100 * second;
        unit_set_clock(CLOCK_MONOTONIC, began + 20 * second);
        unit_set_clock(CLOCK_BOOTTIME, beginning_of(tid) + 20 * second);
        unit_advance_clock(CLOCK_MONOTONIC, slept);
        began += slept;
        assert_true(pyprof__thread_began_after(tid, began - 20 * ms));
        assert_false(pyprof__thread_began_after(tid, began));
        assert_false(pyprof__thread_began_after(tid, began + 20 * ms));
        assert_false(pyprof__thread_began_after(INT32_MAX / 8, 0)); /* no such thread */
    }
}

static void test_what_a_thread_does_with_signals(void **state) {
    pyprof__signals signals;
    sigset_t only, before;
    (void)state;
    sigemptyset(&only);
    sigaddset(&only, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &only, &before);
    assert_true(pyprof__read_signals(pyprof__tid(), &signals));
    assert_true(signals.blocked & pyprof__signal_bit(SIGUSR2));
    assert_false(signals.pending & pyprof__signal_bit(SIGUSR2));
    pthread_kill(pthread_self(), SIGUSR2);
    assert_true(pyprof__read_signals(pyprof__tid(), &signals));
    assert_true(signals.pending & pyprof__signal_bit(SIGUSR2));
    assert_int_equal(sigtimedwait(&only, NULL, &(struct timespec){0, 0}), SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert_false(pyprof__read_signals(INT32_MAX / 8, &signals));
}

static pyprof__atomic32 told, may_end;

static void *tell(void *tid) {
    *(int32_t *)tid = pyprof__tid();
    pyprof__add(&told, 1);
    while (!pyprof__get(&may_end)) {
        pyprof__sleep_ns(100000);
    }
    return NULL;
}

/* More than come in one piece. */
static void test_each_thread_is_listed_once(void **state) {
    enum {
        count = 100
    };
    pthread_t threads[count];
    int32_t tids[count + 1] = {0};
    unsigned listed[count + 1] = {0}, others = 0;
    pyprof__tasks tasks;
    (void)state;
    for (int i = 0; i < count; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, tell, &tids[i]), 0);
    }
    while (pyprof__get(&told) < count) {
        pyprof__sleep_ns(100000);
    }
    tids[count] = pyprof__tid();
    pyprof__tasks_open(&tasks);
    for (int32_t tid; (tid = pyprof__tasks_next(&tasks)) != 0;) {
        int at = 0;
        while (at <= count && tids[at] != tid) {
            at++;
        }
        *(at <= count ? &listed[at] : &others) += 1;
    }
    pyprof__tasks_close(&tasks);
    pyprof__set(&may_end, 1);
    for (int i = 0; i <= count; i++) {
        assert_int_equal(listed[i], 1);
        assert_int_equal(i < count ? pthread_join(threads[i], NULL) : 0, 0);
    }
    assert_in_range(others, 0, 2); /* a sanitizer may have one of its own */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_clocks, unit_release_clocks),
        cmocka_unit_test_teardown(test_when_a_thread_began, unit_release_clocks),
        cmocka_unit_test(test_what_a_thread_does_with_signals),
        cmocka_unit_test(test_each_thread_is_listed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
