/* Whom to ask by signal: the debt of a thread; whether a thread is idle; and whose a thread state is. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

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
    assert_int_equal(thread.ask_debt, 0);
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
        assert_in_range(count / nth, looks / PYPROF__COST_OF_ENDED_CALL - 1, looks / PYPROF__COST_OF_ENDED_CALL + 3);
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
    assert_int_equal(thread.ask_debt, 3 * PYPROF__COST_OF_ENDED_CALL);
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
    pyprof__thread thread = new_thread();
    (void)state;
    assert_true(pyprof__may_ask(&thread, 1, false));
    thread.request = 5; /* not yet answered */
    assert_false(pyprof__may_ask(&thread, 1, true));
    thread.request = PYPROF__NONE;
    thread.blocked_until = 10;
    assert_false(pyprof__may_ask(&thread, 9, true));
    assert_true(pyprof__may_ask(&thread, 10, true));
    pyprof__handler.signal_number = 0;
    assert_false(pyprof__may_ask(&thread, 10, true));
    pyprof__handler.signal_number = SIGURG;
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

/* Each verdict that is no sample is counted, once, under its own cause; and a question is not, before it has an answer. */
static void test_each_verdict_is_counted(void **state) {
    static const pyprof__verdict losses[] = {PYPROF__PENDING, PYPROF__LATE, PYPROF__UNSETTLED, PYPROF__UNREADABLE,
                                             PYPROF__NO_ROOM};
    static pyprof__sampler sampler;
    const pyprof_stats *stats = &sampler.stats;
    const uint64_t *counters[] = {&stats->lost_pending, &stats->lost_late, &stats->lost_unsettled,
                                  &stats->lost_unreadable, &stats->lost_memory};
    pyprof__thread thread = new_thread();
    (void)state;
    pyprof__book(&sampler, &thread, PYPROF__ASKED, NULL, NULL);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(*counters[i], 0);
    }
    for (size_t i = 0; i < 5; i++) {
        pyprof__book(&sampler, &thread, losses[i], NULL, NULL);
        for (size_t j = 0; j < 5; j++) {
            assert_int_equal(*counters[j], j <= i);
        }
    }
}

/* A thread is put to sleep by the kernel on its own time: then it is "sleeping" already, and still runs. */
static void test_what_runs_is_not_idle(void **state) {
    sleeper other;
    pthread_t id;
    pyprof__thread thread = new_thread();
    pyprof__observation observed;
    (void)state;
    memset(&observed, 0, sizeof observed);
    thread.tid = pyprof__tid();
    thread.cpu = 1000;
    observed.cpu = 1000;
    assert_int_equal(pyprof__kind_of(&thread, &observed), PYPROF__IDLE);
    observed.cpu = 1001;
    assert_int_equal(pyprof__kind_of(&thread, &observed), 0); /* this one runs */
    observed.attached = true;
    assert_int_equal(pyprof__kind_of(&thread, &observed), PYPROF__GIL);
    observed.attached = false;
    pthread_mutex_init(&other.mutex, NULL);
    pthread_mutex_lock(&other.mutex);
    pyprof__set(&other.tid, 0);
    pthread_create(&id, NULL, sleep_on, &other);
    while ((thread.tid = (int32_t)pyprof__get(&other.tid)) == 0 || pyprof__thread_is_runnable(thread.tid)) {
        pyprof__sleep_ns(1000000);
    }
    assert_int_equal(pyprof__kind_of(&thread, &observed), PYPROF__IDLE);
    observed.ran = true;
    assert_int_equal(pyprof__kind_of(&thread, &observed), 0);
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
    assert_true(pyprof__settle(&thread, &levels, &third, &early)); /* equal, but the other had someone below */
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
    assert_false(tstate.is_borrowed);
    assert_int_equal(tstate.thread, 1);
    pyprof__trust(&tstate);
    pyprof__doubt(sampler, &tstate, &tstate.moved);
    pyprof__doubt(sampler, &tstate, &tstate.moved);
    assert_false(tstate.is_borrowed);
    pyprof__doubt(sampler, &tstate, &tstate.moved);
    assert_true(tstate.is_borrowed);
    assert_true(tstate.borrowed_until > 1000000000);
    assert_int_equal(tstate.thread, PYPROF__NONE);
    tstate.thread = 2;
    pyprof__trust(&tstate);
    assert_false(tstate.is_borrowed);
    assert_int_equal(tstate.thread, PYPROF__NONE);
    assert_true(may_ask(&thread));
    thread.borrowed = 0x1000;
    assert_false(may_ask(&thread));
    thread.cpu_clock = pyprof__cpu_clock(pyprof__tid());
    assert_int_equal(pyprof__cpu_time(&thread), 1);
    thread.borrowed = 0;
    assert_true(pyprof__cpu_time(&thread) > 1);
    assert_true(sampler->has_doubts);
    free(sampler);
}

static void *own_stack_of_another(void *argument) {
    char here = 0;
    pyprof__thread *thread = (pyprof__thread *)argument;
    thread->tid = pyprof__tid();
    thread->thread_id = (uintptr_t)pthread_self();
    return pyprof__is_on_own_stack(thread, (uintptr_t)&here) ? argument : NULL;
}

/* Of two threads each is on its own C stack, and on no other: that of the process's first thread is the kernel's. */
static void test_whose_c_stack_it_is(void **state) {
    char here = 0;
    pthread_t other;
    void *is_on_own = NULL;
    pyprof__thread self = new_thread(), another = new_thread();
    (void)state;
    pyprof__pid = (int32_t)getpid();
    self.tid = pyprof__pid;
    self.thread_id = (uintptr_t)pthread_self();
    assert_true(pyprof__is_on_own_stack(&self, (uintptr_t)&here));
    assert_int_equal(pthread_create(&other, NULL, own_stack_of_another, &another), 0);
    assert_int_equal(pthread_join(other, &is_on_own), 0);
    assert_non_null(is_on_own);
    assert_false(pyprof__is_on_own_stack(&another, (uintptr_t)&here));
    assert_false(pyprof__is_on_own_stack(&self, another.stacks[0].low));
    assert_true(another.stacks[0].high > another.thread_id);
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
    assert_true(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 1000, 77, 0));
    assert_false(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 2000, 77, 0));
    assert_false(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 1000, 78, 0));
    assert_false(pyprof__is_bound_to(&layout, 8, 1000, 77, 0));
    layout.ts_native_id = PYPROF__ABSENT; /* to 3.10 there is one id */
    assert_true(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 1000, 78, 0));
    assert_false(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 2000, 78, 0));
}

/* Who ran has to be calm for 512 times as long, and at most two seconds. */
static void test_who_ran_is_parked_later(void **state) {
    const uint64_t ms = 1000000;
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__thread thread = new_thread();
    (void)state;
    assert_non_null(sampler);
    pyprof__note_calm(sampler, &thread, false, 1000 * ms, 500 * ms);
    assert_int_equal(thread.restless, 0); /* what it used before it was seen first does not count */
    thread.has_sample = true;
    thread.wall = 1000 * ms;
    thread.cpu = 500 * ms;
    for (uint32_t i = 1; i <= 4; i++) {
        assert_int_equal(sampler->waiting.candidates, 0);
        pyprof__note_calm(sampler, &thread, true, 1000 * ms + i, 500 * ms);
        assert_int_equal(thread.calm, i);
    }
    assert_int_equal(sampler->waiting.candidates, 1);
    pyprof__note_calm(sampler, &thread, false, 1001 * ms, 500 * ms + ms / 2);
    assert_int_equal(thread.calm, 0);
    assert_int_equal(thread.restless, 256 * ms - ms);
    pyprof__note_calm(sampler, &thread, false, 1001 * ms, 900 * ms);
    assert_int_equal(thread.restless, 2000 * ms - ms);
    thread.cpu = 900 * ms;
    pyprof__note_calm(sampler, &thread, true, 2000 * ms, 900 * ms);
    assert_int_equal(thread.restless, 999 * ms);
    free(sampler);
}

/* What the head of a thread state shows; other words there may change. */
static void test_heads_of_those_who_wait(void **state) {
    pyprof__layout layout;
    uintptr_t then[8] = {1, 2, 3, 4, 5, 6, 7, 8}, now[8];
    (void)state;
    memset(&layout, 0, sizeof layout);
    layout.ts_prev = 0;
    layout.ts_next = 8;
    layout.ts_interp = 16;
    layout.ts_status = 32;
    layout.ts_frame = 56;
    layout.status_mask = UINT32_MAX;
    layout.status_attached = 1;
    assert_int_equal(pyprof__end_of_head(&layout), sizeof then);
    for (size_t i = 0; i < sizeof now / sizeof *now; i++) {
        for (uintptr_t value = 1; value < 3; value++) {
            memcpy(now, then, sizeof now);
            now[i] = now[i] == value ? 9 : value;
            assert_int_equal(pyprof__is_linked_as(&layout, then, now), i > 2);
            assert_int_equal(pyprof__may_stand_as(&layout, then, now), i != 7 && !(i == 4 && value == 1));
        }
    }
    layout.ts_status = PYPROF__ABSENT;
    memcpy(now, then, sizeof now);
    now[4] = 1;
    assert_true(pyprof__may_stand_as(&layout, then, now));
}

static pyprof__thread waiting_thread(void) {
    pyprof__thread thread = new_thread();
    thread.is_alive = thread.has_sample = true;
    thread.kind = PYPROF__IDLE;
    thread.calm = 4;
    return thread;
}

static void test_who_may_be_parked(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__tstate *tstate = (pyprof__tstate *)calloc(1, sizeof *tstate);
    (void)state;
    assert_true(sampler != NULL && tstate != NULL);
    sampler->tstates.data = tstate;
    sampler->tstates.item_size = sizeof *tstate;
    tstate->sibling = PYPROF__NONE;
    for (int what_is_wrong = 0; what_is_wrong < 11; what_is_wrong++) {
        pyprof__thread thread = waiting_thread();
        thread.is_parked = what_is_wrong == 1;
        thread.is_alive = what_is_wrong != 2;
        thread.has_sample = what_is_wrong != 3;
        thread.calm -= what_is_wrong == 4;
        thread.restless = what_is_wrong == 5;
        thread.kind = what_is_wrong == 6 ? 0 : PYPROF__IDLE;
        thread.borrowed = what_is_wrong == 7;
        thread.request = what_is_wrong == 8 ? 0 : PYPROF__NONE;
        thread.siblings = what_is_wrong == 9;
        tstate->denied = what_is_wrong == 10;
        assert_int_equal(pyprof__may_park(sampler, &thread), what_is_wrong == 0);
    }
    tstate->denied = 0;
    tstate->sibling = 0;
    pyprof__thread thread = waiting_thread();
    assert_false(pyprof__may_park(sampler, &thread));
    free(tstate);
    free(sampler);
}

/* Five ticks, a millisecond apart, had seen a thread wait that has, half a millisecond later, used so much: those in
   which it must have run are not idle. */
static void check_run(uint64_t used_us, uint64_t ran) {
    const uint64_t us = 1000, ms = 1000000;
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    pyprof__apply_defaults(&desc);
    pyprof__sampler *sampler = pyprof__sampler_new(&desc);
    assert_non_null(sampler);
    pyprof__waiting *waiting = &sampler->waiting;
    pyprof__thread thread = waiting_thread();
    thread.track = pyprof__add_track(sampler->profile, 1, sampler->profile->process_name);
    thread.node = pyprof__track_at(sampler->profile, thread.track)->root;
    thread.wall = 100 * ms;
    thread.cpu = 10 * ms;
    thread.name_due = UINT64_MAX;
    thread.naming = pyprof__given_names.generation;
    waiting->ticks = thread.parked_ticks = 62; /* the ring begins anew meanwhile */
    for (uint64_t i = 1; i <= 5; i++) {
        waiting->wall = waiting->walls[++waiting->ticks % PYPROF__RECENT] = 100 * ms + i * ms;
    }
    sampler->stats.samples = sampler->stats.samples_idle = 5;
    pyprof__settle_run(sampler, &thread, 105 * ms + ms / 2, 10 * ms + used_us * us);
    const pyprof__node *node = pyprof__node_at(sampler->profile, thread.node);
    assert_int_equal(node->samples, 5);
    assert_int_equal(node->samples_idle, 5 - ran);
    assert_int_equal(node->wall_ns, 5 * ms);
    assert_int_equal(node->wall_idle_ns, 5 * ms - ran * ms + (ran > 0) * ms / 2); /* half of the gap between */
    assert_int_equal(sampler->stats.samples, 5);
    assert_int_equal(sampler->stats.samples_idle, 5 - ran);
    assert_int_equal(thread.wall, 105 * ms);
    assert_int_equal(waiting->ticks, 67);
    assert_int_equal(thread.parked_ticks, 67);
    pyprof__settle_time(sampler, &thread); /* twice is once */
    assert_int_equal(node->samples, 5);
    pyprof__recording_free(sampler);
}

static void test_who_ran_unseen_did_not_wait(void **state) {
    (void)state;
    check_run(0, 0);
    check_run(500, 0);
    check_run(501, 1);
    check_run(2500, 2);
    check_run(4600, 5);
}

static pyprof__atomic32 burnt, may_burn;

static void *burn_and_sleep(void *unused) {
    (void)unused;
    for (uint32_t round = 1; round <= 3; round++) {
        while (pyprof__get(&may_burn) < round) {
            pyprof__wait_until(&may_burn, round - 1, pyprof__now() + 1000000000u);
        }
        uint64_t end = pyprof__clock(CLOCK_THREAD_CPUTIME_ID) + 1000000;
        while (round < 3 && pyprof__clock(CLOCK_THREAD_CPUTIME_ID) < end) {
        }
        pyprof__set(&burnt, round);
    }
    return NULL;
}

/* The balance stays as it is while all wait, and has what a thread has used that does not stand in it. */
static void test_balance_shows_who_has_run(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pthread_t thread;
    clockid_t clock;
    (void)state;
    assert_non_null(sampler);
    pthread_create(&thread, NULL, burn_and_sleep, NULL);
    pthread_getcpuclockid(thread, &clock);
    for (uint32_t round = 1; round <= 2; round++) {
        pyprof__sleep_ns(50000000); /* then it waits */
        uint64_t used = pyprof__clock(clock);
        int64_t before = pyprof__weigh(sampler);
        assert_in_range(pyprof__weigh(sampler) - before + 100000, 0, 200000);
        pyprof__wake(&may_burn); /* adds one */
        while (pyprof__get(&burnt) < round) {
            pyprof__sleep_ns(1000000);
        }
        pyprof__sleep_ns(50000000);
        int64_t more = pyprof__weigh(sampler) - before, truth = (int64_t)(pyprof__clock(clock) - used);
        assert_true(truth >= 1000000);
        assert_in_range(more - truth + 100000, 0, 200000);
        pyprof__leave_process_clock(sampler->waiting.timer);
        sampler->waiting.timer = -1; /* the second time without */
    }
    pyprof__wake(&may_burn);
    pthread_join(thread, NULL);
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
        cmocka_unit_test(test_steadiness_is_by_the_clock),
        cmocka_unit_test(test_who_may_be_asked),
        cmocka_unit_test(test_what_runs_is_not_idle),
        cmocka_unit_test(test_each_verdict_is_counted),
        cmocka_unit_test(test_whose_thread_state_it_is),
        cmocka_unit_test(test_what_two_reads_have_in_common),
        cmocka_unit_test(test_thread_states_that_are_lent),
        cmocka_unit_test(test_whose_c_stack_it_is),
        cmocka_unit_test(test_who_ran_is_parked_later),
        cmocka_unit_test(test_heads_of_those_who_wait),
        cmocka_unit_test(test_who_may_be_parked),
        cmocka_unit_test(test_who_ran_unseen_did_not_wait),
        cmocka_unit_test(test_balance_shows_who_has_run),
    };
    return cmocka_run_group_tests(tests, take_signal, NULL);
}
