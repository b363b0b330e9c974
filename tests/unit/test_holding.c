/* >>holding: threads that are held on the sampler's core: they stand still, what the host does to them meanwhile
   stays, and what is made by one that is confined may run wherever its maker may. This thread plays the sampler. */
#include "clock.h"

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <sched.h>

#include "unit.h"

static const uint64_t minute = UINT64_C(60000000000);

typedef struct runner {
    pthread_t thread;
    pyprof__atomic32 tid;
    pyprof__atomic32 must_stop;
} runner;

static void *run(void *argument) {
    runner *self = (runner *)argument;
    pyprof__set(&self->tid, (uint32_t)pyprof__tid());
    while (!pyprof__get(&self->must_stop)) {
    }
    return NULL;
}

static int32_t start(runner *self) {
    memset(self, 0, sizeof *self);
    assert_int_equal(pthread_create(&self->thread, NULL, run, self), 0);
    while (pyprof__get(&self->tid) == 0) {
        pyprof__sleep_ns(100000);
    }
    return (int32_t)pyprof__get(&self->tid);
}

static void finish(runner *self) {
    pyprof__set(&self->must_stop, 1);
    assert_int_equal(pthread_join(self->thread, NULL), 0);
}

static pyprof__cores cores_of(int32_t tid) {
    pyprof__cores cores;
    assert_true(pyprof__get_cores(tid, &cores));
    return cores;
}

static void assert_cores(int32_t tid, const pyprof__cores *wanted) {
    pyprof__cores cores = cores_of(tid);
    assert_true(pyprof__same_cores(&cores, wanted));
}

/* With one core nobody has to be confined; where this is not allowed there is nothing to test either. */
static pyprof__cores need_two_cores(void) {
    pyprof__cores cores = cores_of(0);
    for (uint32_t core = 0; core < 8 * sizeof cores.bits; core++) {
        if (pyprof__has_core(&cores, core) && pyprof__is_one_core(&cores, core)) {
            skip();
        }
    }
    return cores;
}

static uint32_t first_core(const pyprof__cores *cores) {
    uint32_t core = 0;
    while (!pyprof__has_core(cores, core)) {
        core++;
    }
    return core;
}

static pyprof__cores another_core(const pyprof__cores *cores, uint32_t core) {
    uint32_t other = core;
    do {
        other = (other + 1) % (uint32_t)(8 * sizeof cores->bits);
    } while (!pyprof__has_core(cores, other));
    return pyprof__one_core(cores->size, other);
}

/* Another program may take the core from this one: then the runner runs, and it is tried again. */
static void test_held_thread_stands_still(void **state) {
    pyprof__cores cores = need_two_cores();
    pyprof__holder holder;
    pyprof__hold hold;
    runner spinner;
    int32_t tid = start(&spinner);
    bool stood = false;
    (void)state;
    memset(&holder, 0, sizeof holder);
    for (int turn = 0; turn < 1000 && !stood; turn++) {
        assert_true(pyprof__hold_thread(&holder, tid, &hold));
        uint64_t clock = pyprof__clock(pyprof__cpu_clock(tid));
        uint64_t end = pyprof__clock(CLOCK_THREAD_CPUTIME_ID) + 20000; /* a busy runner would use as much */
        while (pyprof__clock(CLOCK_THREAD_CPUTIME_ID) < end) {
        }
        stood = pyprof__clock(pyprof__cpu_clock(tid)) == clock;
        pyprof__cores now = cores_of(tid);
        assert_true(pyprof__is_one_core(&now, holder.core));
        assert_true(pyprof__let_go(&holder, &hold));
        assert_true(hold.is_steady);
        assert_cores(tid, &cores);
    }
    assert_true(stood);
    pyprof__unbind(&holder);
    assert_cores(0, &cores);
    finish(&spinner);
}

static void test_what_the_host_sets_meanwhile_stays(void **state) {
    pyprof__cores cores = need_two_cores();
    pyprof__holder holder;
    pyprof__hold hold;
    runner spinner;
    int32_t tid = start(&spinner);
    (void)state;
    memset(&holder, 0, sizeof holder);
    assert_true(pyprof__hold_thread(&holder, tid, &hold));
    pyprof__cores wish = another_core(&cores, holder.core);
    assert_true(pyprof__set_cores(tid, &wish));
    assert_true(pyprof__let_go(&holder, &hold));
    assert_false(hold.is_steady);
    assert_cores(tid, &wish);
    /* one that has one core is held where it is, and stays */
    assert_true(pyprof__hold_thread(&holder, tid, &hold));
    assert_false(hold.is_confined);
    pyprof__cores own = cores_of(0);
    assert_true(pyprof__same_cores(&own, &wish));
    assert_true(pyprof__let_go(&holder, &hold));
    assert_cores(tid, &wish);
    pyprof__unbind(&holder);
    assert_cores(0, &cores);
    finish(&spinner);
}

static void test_where_the_host_puts_the_sampler_it_stays(void **state) {
    pyprof__cores cores = need_two_cores();
    pyprof__cores first = pyprof__one_core(cores.size, first_core(&cores));
    pyprof__cores second = another_core(&cores, first_core(&cores));
    pyprof__holder holder;
    (void)state;
    memset(&holder, 0, sizeof holder);
    assert_true(pyprof__set_cores(0, &first));
    assert_true(pyprof__bind_to(&holder, first_core(&second)));
    assert_cores(0, &second);
    pyprof__unbind(&holder);
    assert_cores(0, &first);
    assert_true(pyprof__bind_to(&holder, first_core(&second)));
    assert_true(pyprof__set_cores(0, &cores)); /* the host's wish */
    pyprof__unbind(&holder);
    assert_cores(0, &cores);
}

/* This thread is confined itself once it holds another, so what it makes is born so. */
static void test_what_is_born_confined_is_freed(void **state) {
    pyprof__cores cores = need_two_cores();
    pyprof__holder holder;
    pyprof__hold hold;
    runner held, born;
    int32_t tid = start(&held);
    (void)state;
    memset(&holder, 0, sizeof holder);
    assert_true(pyprof__hold_thread(&holder, tid, &hold));
    int32_t thread = start(&born);
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) {
        for (;;) {
            pyprof__sleep_ns(1000000);
        }
    }
    pyprof__cores before[2] = {cores_of(thread), cores_of(child)};
    assert_true(pyprof__is_one_core(&before[0], holder.core));
    assert_true(pyprof__is_one_core(&before[1], holder.core));
    assert_true(pyprof__let_go(&holder, &hold));
    assert_cores(thread, &cores);
    assert_cores(child, &cores);
    kill(child, SIGKILL);
    pyprof__unbind(&holder);
    finish(&born);
    finish(&held);
}

/* Ids begin anew at the end: then the new ones lie behind the last, and at the beginning. */
static void test_ids_that_begin_anew(void **state) {
    pyprof__cores cores = need_two_cores();
    pyprof__holder holder;
    pyprof__hold hold;
    runner spinner;
    int32_t tid = start(&spinner);
    (void)state;
    memset(&holder, 0, sizeof holder);
    memset(&hold, 0, sizeof hold);
    hold.cores = holder.widest = cores;
    holder.core = first_core(&cores);
    pyprof__cores one = pyprof__one_core(cores.size, holder.core);
    for (uint32_t before = 2; before <= 3; before++) {
        assert_true(pyprof__set_cores(tid, &one));
        hold.last_made = before == 2 ? (uint32_t)tid - 1 : (uint32_t)tid;
        pyprof__free_the_born(&holder, &hold, before == 2 ? 7 : (uint32_t)tid + 2);
        if (before == 2) {
            assert_cores(tid, &cores);
        } else {
            assert_cores(tid, &one); /* it was there before */
        }
    }
    finish(&spinner);
}

static void test_gone_thread_cannot_be_held(void **state) {
    pyprof__holder holder;
    pyprof__hold hold;
    runner spinner;
    int32_t tid = start(&spinner);
    (void)state;
    finish(&spinner);
    while (syscall(SYS_tgkill, getpid(), tid, 0) == 0) { /* it may be joined before it is gone */
        pyprof__sleep_ns(100000);
    }
    memset(&holder, 0, sizeof holder);
    assert_false(pyprof__hold_thread(&holder, tid, &hold));
    assert_true(pyprof__let_go(&holder, &hold));
    assert_false(holder.is_refused);
}

static void test_who_changes_its_cores_is_not_held(void **state) {
    pyprof__cores cores = need_two_cores();
    pyprof__cores one = pyprof__one_core(cores.size, first_core(&cores));
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__thread thread;
    (void)state;
    memset(&thread, 0, sizeof thread);
    thread.tid = pyprof__tid();
    assert_non_null(sampler);
    for (int look = 1; look <= 20; look++) {
        assert_int_equal(pyprof__may_hold(sampler, &thread), look >= 8);
    }
    sampler->desc.never_hold = true;
    assert_false(pyprof__may_hold(sampler, &thread));
    sampler->desc.capture = PYPROF_CAPTURE_QUIET;
    sampler->desc.never_hold = false;
    assert_false(pyprof__may_hold(sampler, &thread));
    sampler->desc.capture = PYPROF_CAPTURE_HELD;
    assert_true(pyprof__may_hold(sampler, &thread));
    thread.borrowed = 1;
    assert_false(pyprof__may_hold(sampler, &thread)); /* who runs it is not known */
    thread.borrowed = 0;
    unit_set_clock(CLOCK_MONOTONIC, 5 * minute);
    assert_true(pyprof__set_cores(0, &one));
    for (int look = 1; look <= 20; look++) {
        assert_false(pyprof__may_hold(sampler, &thread));
    }
    unit_advance_clock(CLOCK_MONOTONIC, minute - 1);
    assert_false(pyprof__may_hold(sampler, &thread));
    unit_advance_clock(CLOCK_MONOTONIC, 1);
    assert_true(pyprof__may_hold(sampler, &thread));
    assert_true(pyprof__set_cores(0, &cores));
    free(sampler);
}

/* After eight holds in a row that came to nothing, for a minute. */
static void test_who_cannot_be_held_is_left_alone(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__thread thread = unit_thread();
    (void)state;
    assert_non_null(sampler);
    thread.tid = pyprof__tid();
    unit_set_clock(CLOCK_MONOTONIC, 5 * minute);
    for (int look = 1; look <= 8; look++) {
        assert_int_equal(pyprof__may_hold(sampler, &thread), look == 8);
    }
    for (int hold = 1; hold <= 13; hold++) {
        assert_true(pyprof__may_hold(sampler, &thread));
        pyprof__note_hold(sampler, &thread, hold == 5); /* then it is no eight in a row yet */
    }
    assert_int_equal(sampler->stats.holds_failed, 12);
    unit_advance_clock(CLOCK_MONOTONIC, minute - 1);
    assert_false(pyprof__may_hold(sampler, &thread));
    unit_advance_clock(CLOCK_MONOTONIC, 1);
    assert_true(pyprof__may_hold(sampler, &thread));
    free(sampler);
}

/* The sampler stays on a core as long as it is let on there in time: it leaves after ticks that are late again and again, and
   at once after one for which it stood in a queue. */
static void test_who_has_to_wait_does_not_stay(void **state) {
    const uint64_t ms = 1000000, second = 1000 * ms;
    pyprof__holder holder;
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        memset(&holder, 0, sizeof holder);
        assert_false(pyprof__note_lateness(&holder, second, second)); /* it is on no core of its own choice */
        holder.is_bound = true;
        for (int tick = 1; tick < 22; tick++) {
            assert_false(pyprof__note_lateness(&holder, second, 2 * ms));
            assert_int_equal(holder.roams_until, 0);
        }
        if (turn == 0) {
            assert_true(pyprof__note_lateness(&holder, second, 2 * ms));
            assert_int_equal(holder.roams_until, 11 * second);
        } else {
            assert_true(pyprof__note_lateness(&holder, second, 21 * ms));
            assert_int_equal(holder.roams_until, 61 * second);
        }
        assert_false(pyprof__note_lateness(&holder, 100 * second, 21 * ms)); /* that was told */
        assert_int_equal(holder.roams_until, 160 * second);
    }
    memset(&holder, 0, sizeof holder);
    holder.is_bound = true;
    for (int tick = 0; tick < 1000; tick++) { /* every fifth */
        assert_false(pyprof__note_lateness(&holder, second, tick % 5 == 0 ? 2 * ms : 0));
    }
}

static uint32_t warnings_of(const pyprof__sampler *sampler) {
    uint32_t count = 0;
    for (size_t i = 0; i < sampler->warnings.size; i++) {
        count += sampler->warnings.texts[i] == '\0';
    }
    return count;
}

static void test_obstacles_are_told_once(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    (void)state;
    assert_non_null(sampler);
    for (int i = PYPROF__NO_OBSTACLE + 1; i < PYPROF__OBSTACLES; i++) {
        for (int turn = 0; turn < 3; turn++) {
            assert_false(pyprof__meet(&sampler->holder, (pyprof__obstacle)i));
            pyprof__tell_obstacles(sampler);
            assert_int_equal(warnings_of(sampler), i);
        }
        assert_int_equal(sampler->holder.is_refused, i >= PYPROF__ORDER_REFUSED);
    }
    free(sampler);
}

/* A real-time thread would take the core from the sampler, and keep it. */
static void test_who_comes_first_is_not_held(void **state) {
    const struct sched_param first = {.sched_priority = 1};
    pyprof__holder holder;
    pyprof__hold hold;
    runner spinner;
    int32_t tid = start(&spinner);
    (void)state;
    memset(&holder, 0, sizeof holder);
    bool is_allowed = sched_setscheduler(tid, SCHED_FIFO, &first) == 0;
    if (is_allowed) {
        assert_int_equal(pyprof__priority(tid), 1);
        assert_false(pyprof__hold_thread(&holder, tid, &hold));
        assert_false(hold.is_confined);
        assert_false(holder.is_bound);
        assert_int_equal(holder.met, 1u << PYPROF__COMES_FIRST);
        assert_false(holder.is_refused); /* others can be held */
    }
    finish(&spinner);
    if (!is_allowed) {
        skip();
    }
}

/* The only core that both may run on may be any, also one below that on which the thread was last. */
static void test_core_is_found_wherever_it_is(void **state) {
    pyprof__cores all, one;
    (void)state;
    assert_true(pyprof__get_cores(0, &all));
    for (uint32_t core = 0; core < 8 * all.size; core++) {
        if (core == 0 || core == 8 * all.size - 1 || pyprof__has_core(&all, core)) {
            one = pyprof__one_core(all.size, core);
            assert_int_equal(pyprof__choose_core(&one, pyprof__tid()), core);
        }
    }
    memset(&one, 0, sizeof one);
    one.size = all.size;
    assert_true(pyprof__choose_core(&one, pyprof__tid()) < 8 * sizeof one.bits);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_thread_stands_still),
        cmocka_unit_test(test_core_is_found_wherever_it_is),
        cmocka_unit_test(test_what_the_host_sets_meanwhile_stays),
        cmocka_unit_test(test_where_the_host_puts_the_sampler_it_stays),
        cmocka_unit_test(test_what_is_born_confined_is_freed),
        cmocka_unit_test(test_ids_that_begin_anew),
        cmocka_unit_test(test_gone_thread_cannot_be_held),
        cmocka_unit_test_teardown(test_who_changes_its_cores_is_not_held, unit_release_clocks),
        cmocka_unit_test_teardown(test_who_cannot_be_held_is_left_alone, unit_release_clocks),
        cmocka_unit_test(test_who_comes_first_is_not_held),
        cmocka_unit_test(test_who_has_to_wait_does_not_stay),
        cmocka_unit_test(test_obstacles_are_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
