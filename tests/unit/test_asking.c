/* >>asking: what late answers and ended calls cost a thread; thread states that are used elsewhere than where they were
   made. */
#include "clock.h"

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

static const uint64_t second = UINT64_C(1000000000);

/* Some signal asks. */
static int take_signal(void **state) {
    (void)state;
    pyprof__handler.signal_number = SIGURG;
    return 0;
}

static bool may_ask(const pyprof__thread *thread) {
    return pyprof__may_ask(thread, 1, false);
}

static bool may_ask_steady(const pyprof__thread *thread) {
    return pyprof__may_ask(thread, 1, true);
}

/* So many looks at a thread of which every nth answer is late and every mth ended a call (0 = none); answers how
   often it was asked. */
static int asked(pyprof__thread *thread, int looks, int nth_late, int mth_ended) {
    int count = 0;
    for (int i = 0; i < looks; i++) {
        pyprof__pay_off(thread);
        if (may_ask(thread)) {
            count++;
            pyprof__judge(thread, nth_late && count % nth_late == 0, mth_ended && count % mth_ended == 0);
        }
    }
    return count;
}

static void test_answers_in_time_cost_nothing(void **state) {
    pyprof__thread thread = unit_thread();
    (void)state;
    assert_int_equal(asked(&thread, 100000, 0, 0), 100000);
    assert_int_equal(thread.asking.debt, 0);
}

static void test_what_happens_seldom_is_forgiven(void **state) {
    pyprof__thread thread = unit_thread();
    (void)state;
    assert_int_equal(asked(&thread, 100000, 0, PYPROF__COST_OF_ENDED_CALL), 100000);
    thread = unit_thread();
    assert_int_equal(asked(&thread, 100000, PYPROF__COST_OF_LATE_ANSWER, 0), 100000);
}

static void test_ended_calls_are_bounded(void **state) {
    const int looks = 1000000;
    (void)state;
    for (int nth = 1; nth <= 2048; nth *= 2) {
        pyprof__thread thread = unit_thread();
        int count = asked(&thread, looks, 0, nth);
        assert_in_range(count / nth, looks / PYPROF__COST_OF_ENDED_CALL - 1, looks / PYPROF__COST_OF_ENDED_CALL + 3);
    }
}

static void test_late_answers_are_bounded(void **state) {
    const int looks = 1000000, seldom = looks / PYPROF__COST_OF_LATE_ANSWER;
    pyprof__thread thread = unit_thread();
    (void)state;
    assert_in_range(asked(&thread, looks, 1, 0), seldom, seldom + 1100);
    thread = unit_thread();
    assert_in_range(asked(&thread, looks, 4, 0) / 4, seldom - 10, seldom + 1100);
}

static void test_two_ended_calls_are_an_accident(void **state) {
    pyprof__thread thread = unit_thread();
    (void)state;
    pyprof__judge(&thread, false, true);
    assert_true(may_ask(&thread));
    pyprof__judge(&thread, true, true); /* late, too: counted once */
    assert_true(may_ask(&thread));
    pyprof__judge(&thread, false, true);
    assert_false(may_ask(&thread));
    assert_int_equal(thread.asking.debt, 3 * PYPROF__COST_OF_ENDED_CALL);
}

static void test_four_ended_calls_are_too_many(void **state) {
    pyprof__thread thread = unit_thread();
    (void)state;
    for (int ended = 1; ended <= 4; ended++) {
        pyprof__judge(&thread, false, true);
        assert_int_equal(may_ask(&thread), ended <= 2);
        assert_true(may_ask_steady(&thread));
    }
    pyprof__judge(&thread, false, true);
    assert_false(may_ask_steady(&thread));
}

/* One that is used elsewhere than where it was made belongs to nobody that could be asked, or has a clock. */
static void test_thread_states_that_are_lent(void **state) {
    pyprof__tstate tstate;
    pyprof__thread thread = unit_thread();
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    (void)state;
    assert_non_null(sampler);
    memset(&tstate, 0, sizeof tstate);
    tstate.thread = 1;
    unit_set_clock(CLOCK_MONOTONIC, 1000 * second);
    pyprof__doubt(sampler, &tstate);
    pyprof__doubt(sampler, &tstate);
    assert_false(tstate.is_borrowed);
    assert_int_equal(tstate.thread, 1);
    pyprof__trust(&tstate);
    pyprof__doubt(sampler, &tstate);
    pyprof__doubt(sampler, &tstate);
    assert_false(tstate.is_borrowed);
    pyprof__doubt(sampler, &tstate);
    assert_true(tstate.is_borrowed);
    assert_int_equal(tstate.borrowed_until, 1030 * second);
    assert_int_equal(tstate.thread, PYPROF__NONE);
    tstate.thread = 2;
    pyprof__trust(&tstate);
    assert_false(tstate.is_borrowed);
    assert_int_equal(tstate.thread, PYPROF__NONE);
    assert_true(may_ask(&thread));
    thread.borrowed = 0x1000;
    assert_false(may_ask(&thread));
    thread.cpu_clock = pyprof__cpu_clock(pyprof__tid());
    unit_set_clock(thread.cpu_clock, 2 * second);
    assert_int_equal(pyprof__cpu_time(&thread), 1);
    thread.borrowed = 0;
    assert_int_equal(pyprof__cpu_time(&thread), 2 * second);
    assert_true(sampler->has_doubts);
    free(sampler);
}

/* One look at a thread that stands still while it is read, by a layout in which a thread state begins with its frame. */
static bool is_in_doubt(pyprof__sampler *sampler, const pyprof__thread *thread, const uintptr_t *tstate) {
    pyprof__observation observed;
    memset(&observed, 0, sizeof observed);
    pyprof__view_reset(&sampler->view);
    observed.cpu = pyprof__cpu_time(thread);
    observed.levels.items[0].tstate = (uintptr_t)tstate;
    observed.levels.count = observed.levels.known = 1;
    return pyprof__is_borrowed(sampler, thread, &observed);
}

/* On a busy machine whoever runs the thread state is off its core at most looks, and nothing changes while it is read:
   what has changed since the last look tells. */
static void test_stacks_that_change_from_look_to_look(void **state) {
    uintptr_t frame[] = {0, 100, 200}, memory[] = {(uintptr_t)frame};
    pyprof__tstate tstate;
    pyprof__thread thread = unit_thread();
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    (void)state;
    assert_non_null(sampler);
    sampler->layout.cframe_frame = PYPROF__ABSENT;
    sampler->layout.frame_instr = sizeof *frame;
    sampler->layout.frame_previous = 2 * sizeof *frame;
    memset(&tstate, 0, sizeof tstate);
    tstate.address = (uintptr_t)memory;
    sampler->tstates.data = &tstate;
    sampler->tstates.count = 1;
    thread.cpu_clock = pyprof__cpu_clock(pyprof__tid());
    unit_set_clock(thread.cpu_clock, second);
    assert_false(is_in_doubt(sampler, &thread, memory));
    assert_false(is_in_doubt(sampler, &thread, memory)); /* nobody has run */
    unit_advance_clock(thread.cpu_clock, 1);
    frame[1]++;
    assert_false(is_in_doubt(sampler, &thread, memory)); /* the thread has */
    frame[1]++;
    assert_true(is_in_doubt(sampler, &thread, memory)); /* another one has */
    for (int look = 0; look < 1000; look++) {
        assert_true(is_in_doubt(sampler, &thread, memory)); /* and now nobody, which takes nothing back */
    }
    assert_int_equal(tstate.doubts, PYPROF__DOUBT);
    for (uint32_t look = 1; look <= PYPROF__DOUBT; look++) {
        unit_advance_clock(thread.cpu_clock, 1);
        frame[1]++;
        assert_int_equal(is_in_doubt(sampler, &thread, memory), look < PYPROF__DOUBT);
    }
    for (int sign = 0; sign < 3; sign++) {
        assert_false(tstate.is_borrowed);
        unit_advance_clock(thread.cpu_clock, 1);
        is_in_doubt(sampler, &thread, memory);
        frame[2] += sizeof *frame;
        assert_true(is_in_doubt(sampler, &thread, memory));
    }
    assert_true(tstate.is_borrowed);
    free(sampler);
}

/* What is kept for their answers leaves room for the tree. */
static void test_fewer_are_asked_at_a_time_in_little_memory(void **state) {
    static const struct {
        size_t memory_limit;
        uint32_t max_depth;
        uint32_t most;
    } rows[] = {{1 << 20, 1024, 5}, {1 << 20, 65536, 1}, {12 << 20, 1024, 64}, {64 << 20, 65536, 5}, {1 << 30, 16, 64}};
    (void)state;
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        pyprof_desc desc;
        memset(&desc, 0, sizeof desc);
        desc.memory_limit = rows[row].memory_limit;
        desc.max_depth = rows[row].max_depth;
        pyprof__apply_defaults(&desc);
        pyprof__sampler *sampler = pyprof__sampler_new(&desc);
        if (sampler == NULL) {
            continue; /* the sampler's own stacks have no room there */
        }
        assert_int_equal(pyprof__requests_most(sampler), rows[row].most);
        for (uint32_t i = 0; i < rows[row].most && rows[row].max_depth == 1024; i++) {
            assert_int_equal(pyprof__free_request(sampler), i);
            pyprof__set_state(&pyprof__handler.requests[i], PYPROF__REQUEST_SENT);
        }
        if (rows[row].max_depth == 1024) {
            assert_int_equal(pyprof__free_request(sampler), PYPROF__NONE);
        }
        for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
            pyprof__set_state(&pyprof__handler.requests[i], PYPROF__REQUEST_FREE);
        }
        pyprof_profile *profile = sampler->profile;
        pyprof__sampler_clear(sampler);
        pyprof__sampler_free(sampler);
        pyprof_free(profile);
    }
}

/* One that blocks most signals is asked again later, and later each time: after 10 ms at first, after a second at last. */
static void test_who_blocks_most_signals_is_asked_later(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__thread thread = unit_thread();
    (void)state;
    assert_non_null(sampler);
    unit_set_clock(CLOCK_MONOTONIC, 1000 * second);
    for (uint64_t pause = second / 100; pause < 4 * second; pause *= 2) {
        uint64_t expected = pause < second ? pause : second;
        pyprof__note_blocked(sampler, &thread, UINT64_MAX);
        unit_advance_clock(CLOCK_MONOTONIC, expected - 1);
        assert_false(pyprof__may_ask(&thread, pyprof__now(), true));
        unit_advance_clock(CLOCK_MONOTONIC, 1);
        assert_true(pyprof__may_ask(&thread, pyprof__now(), true));
    }
    assert_int_equal(pyprof__handler.signal_number, SIGURG); /* it has no use for that in particular */
    free(sampler);
}

/* A thread has ended and left its thread state behind: its request is given back, and is not the next one's and its own. */
static void test_dead_thread_keeps_no_request(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__thread threads[2] = {unit_thread(), unit_thread()};
    (void)state;
    assert_non_null(sampler);
    pyprof__process.pid = getpid();
    sampler->runner = PYPROF__NONE;
    sampler->threads.data = (unsigned char *)threads;
    sampler->threads.item_size = sizeof *threads;
    sampler->threads.count = 2;
    for (uint32_t i = 0; i < 2; i++) {
        threads[i].tid = i == 0 ? INT32_MAX / 2 : pyprof__tid(); /* the first is beyond any thread id of Linux */
        threads[i].is_alive = true;
        threads[i].asking.request = i;
        pyprof__handler.requests[i].tid = threads[i].tid;
        pyprof__set_state(&pyprof__handler.requests[i], PYPROF__REQUEST_SENT);
    }
    pyprof__drop_dead_questions(sampler);
    assert_int_equal(threads[0].asking.request, PYPROF__NONE);
    assert_int_equal(sampler->stats.lost_pending, 1);
    assert_int_equal(pyprof__state_of(&pyprof__handler.requests[0]), PYPROF__REQUEST_FREE);
    assert_int_equal(threads[1].asking.request, 1);
    assert_int_equal(pyprof__state_of(&pyprof__handler.requests[1]), PYPROF__REQUEST_SENT);
    threads[1].asking.request = 0; /* it is asked by the one that was given back */
    assert_ptr_equal(pyprof__asked_thread(sampler, 0), &threads[1]);
    pyprof__set_state(&pyprof__handler.requests[1], PYPROF__REQUEST_FREE);
    free(sampler);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_in_time_cost_nothing),
        cmocka_unit_test(test_what_happens_seldom_is_forgiven),
        cmocka_unit_test(test_ended_calls_are_bounded),
        cmocka_unit_test(test_late_answers_are_bounded),
        cmocka_unit_test(test_two_ended_calls_are_an_accident),
        cmocka_unit_test(test_four_ended_calls_are_too_many),
        cmocka_unit_test(test_dead_thread_keeps_no_request),
        cmocka_unit_test_teardown(test_thread_states_that_are_lent, unit_release_clocks),
        cmocka_unit_test_teardown(test_stacks_that_change_from_look_to_look, unit_release_clocks),
        cmocka_unit_test_teardown(test_fewer_are_asked_at_a_time_in_little_memory, unit_release_clocks),
        cmocka_unit_test_teardown(test_who_blocks_most_signals_is_asked_later, unit_release_clocks),
    };
    return cmocka_run_group_tests(tests, take_signal, NULL);
}
