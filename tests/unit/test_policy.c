/* Whom to ask by signal: the debt of a thread; whether a thread is idle; and whose a thread state is. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

static bool may_ask(const pyprof__thread *thread) {
    static pyprof__sampler sampler;
    return pyprof__may_ask(&sampler, thread, false);
}

static bool may_ask_steady(const pyprof__thread *thread) {
    static pyprof__sampler sampler;
    return pyprof__may_ask(&sampler, thread, true);
}

static pyprof__thread new_thread(void) {
    pyprof__thread thread;
    memset(&thread, 0, sizeof thread);
    thread.request = PYPROF__NONE;
    return thread;
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
    pyprof__thread thread = new_thread();
    (void)state;
    assert_int_equal(asked(&thread, 100000, 0, 0), 100000);
    assert_int_equal(thread.debt, 0);
}

static void test_what_happens_seldom_is_forgiven(void **state) {
    pyprof__thread thread = new_thread();
    (void)state;
    assert_int_equal(asked(&thread, 100000, 0, PYPROF__COST_OF_ENDED_CALL), 100000);
    thread = new_thread();
    assert_int_equal(asked(&thread, 100000, PYPROF__COST_OF_LATE_ANSWER, 0), 100000);
}

static void test_ended_calls_are_bounded(void **state) {
    const int looks = 1000000;
    (void)state;
    for (int nth = 1; nth <= 2048; nth *= 2) {
        pyprof__thread thread = new_thread();
        int count = asked(&thread, looks, 0, nth);
        assert_in_range(count / nth, looks / PYPROF__COST_OF_ENDED_CALL - 1,
                        looks / PYPROF__COST_OF_ENDED_CALL + 3);
    }
}

static void test_late_answers_are_bounded(void **state) {
    const int looks = 1000000, seldom = looks / PYPROF__COST_OF_LATE_ANSWER;
    pyprof__thread thread = new_thread();
    (void)state;
    assert_in_range(asked(&thread, looks, 1, 0), seldom, seldom + 1100);
    thread = new_thread();
    assert_in_range(asked(&thread, looks, 4, 0) / 4, seldom - 10, seldom + 1100);
}

static void test_two_ended_calls_are_an_accident(void **state) {
    pyprof__thread thread = new_thread();
    (void)state;
    pyprof__judge(&thread, false, true);
    assert_true(may_ask(&thread));
    pyprof__judge(&thread, true, true); /* late, too: counted once */
    assert_true(may_ask(&thread));
    pyprof__judge(&thread, false, true);
    assert_false(may_ask(&thread));
    assert_int_equal(thread.debt, 3 * PYPROF__COST_OF_ENDED_CALL);
}

static void test_four_ended_calls_are_too_many(void **state) {
    pyprof__thread thread = new_thread();
    (void)state;
    for (int ended = 1; ended <= 4; ended++) {
        pyprof__judge(&thread, false, true);
        assert_int_equal(may_ask(&thread), ended <= 2);
        assert_true(may_ask_steady(&thread));
    }
    pyprof__judge(&thread, false, true);
    assert_false(may_ask_steady(&thread));
}

static void test_steadiness_is_by_the_clock(void **state) {
    pyprof__thread thread = new_thread();
    (void)state;
    assert_false(pyprof__is_steady(&thread, 1000000, 1000000)); /* it was never seen before */
    thread.has_sample = true;
    thread.wall = 5000000;
    thread.cpu = 1000000;
    assert_true(pyprof__is_steady(&thread, 6000000, 2000000));
    assert_true(pyprof__is_steady(&thread, 6000000, 1990000));
    assert_false(pyprof__is_steady(&thread, 6000000, 1989999));
}

static void test_who_may_be_asked(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__thread thread = new_thread();
    (void)state;
    assert_true(pyprof__may_ask(sampler, &thread, false));
    thread.request = 5; /* not yet answered */
    assert_false(pyprof__may_ask(sampler, &thread, true));
    thread.request = PYPROF__NONE;
    sampler->desc.capture = PYPROF_CAPTURE_QUIET;
    assert_false(pyprof__may_ask(sampler, &thread, true));
    free(sampler);
}

typedef struct sleeper {
    pthread_mutex_t mutex;
    pyprof__atomic32 tid;
} sleeper;

static void *sleep_on(void *argument) {
    sleeper *self = (sleeper *)argument;
    pyprof__set(&self->tid, (uint32_t)pyprof__tid());
    pthread_mutex_lock(&self->mutex);
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

/* A thread is put to sleep by the kernel on its own time: then it is "sleeping" already, and still runs. */
static void test_what_runs_is_not_idle(void **state) {
    sleeper other;
    pthread_t id;
    pyprof__thread thread = new_thread();
    pyprof__glance glance;
    (void)state;
    memset(&glance, 0, sizeof glance);
    thread.tid = pyprof__tid();
    thread.cpu = 1000;
    glance.cpu = 1000;
    assert_int_equal(pyprof__kind_of(&thread, &glance), PYPROF__IDLE);
    glance.cpu = 1001;
    assert_int_equal(pyprof__kind_of(&thread, &glance), 0); /* this one runs */
    glance.attached = true;
    assert_int_equal(pyprof__kind_of(&thread, &glance), PYPROF__GIL);
    glance.attached = false;
    pthread_mutex_init(&other.mutex, NULL);
    pthread_mutex_lock(&other.mutex);
    pyprof__set(&other.tid, 0);
    pthread_create(&id, NULL, sleep_on, &other);
    while ((thread.tid = (int32_t)pyprof__get(&other.tid)) == 0 || pyprof__thread_is_runnable(thread.tid)) {
        pyprof__sleep_ns(1000000);
    }
    assert_int_equal(pyprof__kind_of(&thread, &glance), PYPROF__IDLE);
    glance.ran = true;
    assert_int_equal(pyprof__kind_of(&thread, &glance), 0);
    pthread_mutex_unlock(&other.mutex);
    pthread_join(id, NULL);
    pthread_mutex_destroy(&other.mutex);
}

/* Copies outermost-first codes and instructions into a stack. */
static pyprof__stack new_stack(pyprof__frame *frames, uint32_t count, const int (*of)[2]) {
    pyprof__stack stack;
    memset(&stack, 0, sizeof stack);
    memset(frames, 0, count * sizeof *frames);
    stack.frames = frames;
    stack.count = stack.capacity = count;
    for (uint32_t i = 0; i < count; i++) {
        frames[count - 1 - i].code = (uintptr_t)of[i][0];
        frames[count - 1 - i].instr = of[i][1];
    }
    return stack;
}

/* Two reads of a stack that moves: what both ended in has no one below it; where they part, who knows. */
static void test_what_two_reads_have_in_common(void **state) {
    static const int loop_early[][2] = {{1, 10}, {2, 20}}, loop_late[][2] = {{1, 10}, {2, 22}};
    static const int called[][2] = {{1, 10}, {2, 20}, {3, 30}}, other[][2] = {{4, 40}, {2, 20}};
    pyprof__frame frames[2][3];
    pyprof__thread thread = new_thread();
    pyprof__levels levels;
    (void)state;
    memset(&levels, 0, sizeof levels);
    levels.count = levels.known = 1;
    pyprof__stack early = new_stack(frames[0], 2, loop_early), late = new_stack(frames[1], 2, loop_late);
    assert_true(pyprof__settle(&thread, &levels, &late, &early));
    assert_int_equal(late.count, 2);
    assert_int_equal(late.frames[0].instr, 22);
    assert_false(late.is_partial);
    late = new_stack(frames[1], 3, called);
    assert_true(pyprof__settle(&thread, &levels, &late, &early));
    assert_int_equal(late.count, 2);
    assert_true(late.is_partial);
    early = new_stack(frames[0], 3, called);
    late = new_stack(frames[1], 2, loop_late);
    assert_true(pyprof__settle(&thread, &levels, &late, &early));
    assert_int_equal(late.count, 2);
    assert_true(late.is_partial);
    early = late;
    pyprof__stack third = new_stack(frames[0], 2, loop_late);
    assert_true(
        pyprof__settle(&thread, &levels, &third, &early)); /* equal, but the other had someone below */
    assert_true(third.is_partial);
    early = new_stack(frames[0], 3, called);
    late = new_stack(frames[1], 2, other);
    assert_false(pyprof__settle(&thread, &levels, &late, &early));
}

/* One that is used elsewhere than where it was made belongs to nobody that could be asked, or has a clock. */
static void test_thread_states_that_are_lent(void **state) {
    pyprof__tstate tstate;
    pyprof__thread thread = new_thread();
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    (void)state;
    assert_non_null(sampler);
    memset(&tstate, 0, sizeof tstate);
    tstate.thread = 1;
    pyprof__doubt(sampler, &tstate, &tstate.moved);
    pyprof__doubt(sampler, &tstate, &tstate.moved);
    pyprof__doubt(sampler, &tstate, &tstate.denied);
    pyprof__doubt(sampler, &tstate, &tstate.denied);
    assert_false(tstate.is_lent);
    assert_int_equal(tstate.thread, 1);
    pyprof__trust(&tstate);
    pyprof__doubt(sampler, &tstate, &tstate.moved);
    pyprof__doubt(sampler, &tstate, &tstate.moved);
    assert_false(tstate.is_lent);
    pyprof__doubt(sampler, &tstate, &tstate.moved);
    assert_true(tstate.is_lent);
    assert_true(tstate.lent_until > 1000000000);
    assert_int_equal(tstate.thread, PYPROF__NONE);
    tstate.thread = 2;
    pyprof__trust(&tstate);
    assert_false(tstate.is_lent);
    assert_int_equal(tstate.thread, PYPROF__NONE);
    assert_true(may_ask(&thread));
    thread.lent = 0x1000;
    assert_false(may_ask(&thread));
    thread.cpu_clock = pyprof__cpu_clock(pyprof__tid());
    assert_int_equal(pyprof__cpu_time(&thread), 1);
    thread.lent = 0;
    assert_true(pyprof__cpu_time(&thread) > 1);
    assert_true(sampler->has_doubts);
    free(sampler);
}

/* Both of its ids must be the thread's: one that is being born takes them on one after the other. */
static void test_whose_thread_state_it_is(void **state) {
    struct {
        unsigned long thread_id, native_id;
    } tstate = {1000, 77};
    pyprof__layout layout;
    (void)state;
    memset(&layout, 0, sizeof layout);
    layout.ts_native_id = (uint32_t)sizeof tstate.thread_id;
    assert_true(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 1000, 77));
    assert_false(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 2000, 77));
    assert_false(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 1000, 78));
    assert_false(pyprof__is_bound_to(&layout, 8, 1000, 77));
    layout.ts_native_id = PYPROF__ABSENT; /* to 3.10 there is one id */
    assert_true(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 1000, 78));
    assert_false(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 2000, 78));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_in_time_cost_nothing),
        cmocka_unit_test(test_what_happens_seldom_is_forgiven),
        cmocka_unit_test(test_ended_calls_are_bounded),
        cmocka_unit_test(test_late_answers_are_bounded),
        cmocka_unit_test(test_two_ended_calls_are_an_accident),
        cmocka_unit_test(test_four_ended_calls_are_too_many),
        cmocka_unit_test(test_steadiness_is_by_the_clock),
        cmocka_unit_test(test_who_may_be_asked),
        cmocka_unit_test(test_what_runs_is_not_idle),
        cmocka_unit_test(test_whose_thread_state_it_is),
        cmocka_unit_test(test_what_two_reads_have_in_common),
        cmocka_unit_test(test_thread_states_that_are_lent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
