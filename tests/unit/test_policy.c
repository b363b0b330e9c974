/* Whom to ask by signal: the credit of a thread. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

#define SECOND UINT64_C(1000000000)

static pyprof__thread new_thread(void) {
    pyprof__thread thread;
    memset(&thread, 0, sizeof thread);
    thread.credit = PYPROF__CREDIT_MAX;
    return thread;
}

static bool is_paused(const pyprof__thread *thread, uint64_t now) {
    return now < thread->paused_until;
}

static void good(pyprof__thread *thread, int count) {
    for (int i = 0; i < count; i++) {
        pyprof__judge(thread, false, false, SECOND);
    }
}

/* Answers of which every nth is late; returns how many it takes to be left alone, or rounds. */
static int answers_until_paused(pyprof__thread *thread, int nth, int rounds) {
    for (int i = 1; i <= rounds; i++) {
        pyprof__judge(thread, i % nth == 0, false, SECOND);
        if (is_paused(thread, SECOND)) {
            return i;
        }
    }
    return rounds;
}

static void test_answers_in_time_cost_nothing(void **state) {
    pyprof__thread thread = new_thread();
    (void)state;
    for (int i = 0; i < 10000; i++) {
        pyprof__judge(&thread, false, false, SECOND);
        assert_int_equal(thread.credit, PYPROF__CREDIT_MAX);
        assert_false(is_paused(&thread, 0));
    }
}

static void test_seldom_late_is_forgiven(void **state) {
    pyprof__thread thread = new_thread();
    (void)state;
    assert_int_equal(answers_until_paused(&thread, 9, 100000), 100000); /* 8 earned, 8 lost */
}

static void test_often_late_is_left_alone(void **state) {
    pyprof__thread thread = new_thread();
    (void)state;
    assert_in_range(answers_until_paused(&thread, 8, 100000), 100, 99999);
    thread = new_thread();
    assert_in_range(answers_until_paused(&thread, 4, 100000), 40, 80);
    thread = new_thread();
    assert_int_equal(answers_until_paused(&thread, 1, 100000), 9); /* 8 bring it to none, one below */
}

static void test_one_ended_call_is_enough(void **state) {
    pyprof__thread thread = new_thread();
    (void)state;
    pyprof__judge(&thread, false, true, SECOND);
    assert_int_equal(thread.paused_until, 3 * SECOND);
    thread = new_thread();
    pyprof__judge(&thread, true, true, SECOND);
    assert_int_equal(thread.paused_until, 3 * SECOND);
}

static void test_pauses_grow_up_to_a_bound(void **state) {
    pyprof__thread thread = new_thread();
    static const uint64_t pauses[] = {2, 8, 32, 32, 32};
    uint64_t now = SECOND;
    (void)state;
    for (size_t i = 0; i < sizeof pauses / sizeof *pauses; i++) {
        pyprof__judge(&thread, true, true, now);
        assert_int_equal(thread.paused_until, now + pauses[i] * SECOND);
        now = thread.paused_until;
        assert_false(is_paused(&thread, now));
    }
}

static void test_good_answers_shorten_the_pauses(void **state) {
    pyprof__thread thread = new_thread();
    (void)state;
    pyprof__judge(&thread, false, true, SECOND);
    pyprof__judge(&thread, false, true, SECOND);
    assert_int_equal(thread.pause, 8 * SECOND);
    good(&thread, PYPROF__GOOD_ANSWERS - 1);
    assert_int_equal(thread.pause, 8 * SECOND);
    good(&thread, 1);
    assert_int_equal(thread.pause, 4 * SECOND);
    good(&thread, PYPROF__GOOD_ANSWERS - 1);
    pyprof__judge(&thread, false, true,
                  SECOND); /* begins anew: 16 seconds, and a thousand more to halve them */
    assert_int_equal(thread.pause, 16 * SECOND);
    good(&thread, 1);
    assert_int_equal(thread.pause, 16 * SECOND);
}

static void test_who_may_be_asked(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__thread thread = new_thread();
    (void)state;
    thread.request = PYPROF__NONE;
    assert_true(pyprof__may_ask(sampler, &thread, SECOND));
    thread.paused_until = 2 * SECOND;
    assert_false(pyprof__may_ask(sampler, &thread, SECOND));
    assert_true(pyprof__may_ask(sampler, &thread, 2 * SECOND));
    thread.request = 5; /* not yet answered */
    assert_false(pyprof__may_ask(sampler, &thread, 2 * SECOND));
    thread.request = PYPROF__NONE;
    sampler->desc.capture = PYPROF_CAPTURE_QUIET;
    assert_false(pyprof__may_ask(sampler, &thread, 2 * SECOND));
    free(sampler);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_in_time_cost_nothing),
        cmocka_unit_test(test_seldom_late_is_forgiven),
        cmocka_unit_test(test_often_late_is_left_alone),
        cmocka_unit_test(test_one_ended_call_is_enough),
        cmocka_unit_test(test_pauses_grow_up_to_a_bound),
        cmocka_unit_test(test_good_answers_shorten_the_pauses),
        cmocka_unit_test(test_who_may_be_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
