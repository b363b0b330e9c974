/* >>reading: who is asked; who is idle; what two reads of a stack have in common; and which stack a thread runs on. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

/* Some signal asks. */
static int take_signal(void **state) {
    (void)state;
    pyprof__handler.signal_number = SIGURG;
    return 0;
}

static void test_steadiness_is_by_the_clock(void **state) {
    pyprof__thread thread = unit_thread();
    (void)state;
    assert_false(pyprof__is_steady(&thread, 1000000, 1000000)); /* it was never seen before */
    thread.last.is_there = true;
    thread.last.wall = 5000000;
    thread.last.cpu = 1000000;
    assert_true(pyprof__is_steady(&thread, 6000000, 2000000));
    assert_true(pyprof__is_steady(&thread, 6000000, 1990000));
    assert_false(pyprof__is_steady(&thread, 6000000, 1989999));
}

static void test_who_may_be_asked(void **state) {
    pyprof__thread thread = unit_thread();
    (void)state;
    assert_true(pyprof__may_ask(&thread, 1, false));
    thread.asking.request = 5; /* not yet answered */
    assert_false(pyprof__may_ask(&thread, 1, true));
    thread.asking.request = PYPROF__NONE;
    thread.asking.blocked_until = 10;
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

/* A thread is put to sleep by the kernel on its own time: then it is "sleeping" already, and still runs. */
static void test_what_runs_is_not_idle(void **state) {
    sleeper other;
    pthread_t id;
    pyprof__thread thread = unit_thread();
    pyprof__observation observed;
    (void)state;
    memset(&observed, 0, sizeof observed);
    thread.tid = pyprof__tid();
    thread.last.cpu = 1000;
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
    pyprof__thread thread = unit_thread();
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

static pyprof__thread two_threads[2];
static pyprof__sampler of_two = {.threads = {two_threads, sizeof *two_threads, 2, 2}};

static uintptr_t place_in_another;

static void *own_stack_of_another(void *argument) {
    char here = 0;
    pyprof__thread *thread = (pyprof__thread *)argument;
    thread->tid = pyprof__tid();
    thread->thread_id = (uintptr_t)pthread_self();
    place_in_another = (uintptr_t)&here;
    return pyprof__is_on_own_stack(&of_two, thread, place_in_another) ? argument : NULL;
}

/* Of two threads each is on its own C stack, and on no other: that of the process's first thread is the kernel's. */
static void test_whose_c_stack_it_is(void **state) {
    char here = 0;
    pthread_t other;
    void *is_on_own = NULL;
    pyprof__thread *self = &two_threads[0], *another = &two_threads[1];
    (void)state;
    pyprof__process.pid = (int32_t)getpid();
    *self = *another = unit_thread();
    self->is_alive = another->is_alive = true;
    self->tid = pyprof__process.pid;
    self->thread_id = (uintptr_t)pthread_self();
    assert_true(pyprof__is_on_own_stack(&of_two, self, (uintptr_t)&here));
    assert_int_equal(pthread_create(&other, NULL, own_stack_of_another, another), 0);
    assert_int_equal(pthread_join(other, &is_on_own), 0);
    assert_non_null(is_on_own);
    assert_false(pyprof__is_on_own_stack(&of_two, another, (uintptr_t)&here));
    assert_false(pyprof__is_on_own_stack(&of_two, self, place_in_another));
    assert_true(another->stacks[0].high > another->thread_id);
}

/* Several stacks in one mapping: each ends at its thread's pthread_t. */
static void test_stacks_side_by_side(void **state) {
    pyprof__thread *lower = &two_threads[0], *upper = &two_threads[1];
    (void)state;
    *lower = *upper = unit_thread();
    lower->is_alive = upper->is_alive = lower->knows_stacks = upper->knows_stacks = true;
    lower->thread_id = 0x20000;
    upper->thread_id = 0x30000;
    lower->stacks[0].low = upper->stacks[0].low = 0x10000;
    lower->stacks[0].high = upper->stacks[0].high = 0x31000;
    assert_true(pyprof__is_on_own_stack(&of_two, lower, 0x1f000));
    assert_false(pyprof__is_on_own_stack(&of_two, upper, 0x1f000));
    assert_true(pyprof__is_on_own_stack(&of_two, upper, 0x2f000));
    assert_false(pyprof__is_on_own_stack(&of_two, lower, 0x2f000));
    lower->is_alive = false; /* what a thread had that has ended is another's by now */
    assert_true(pyprof__is_on_own_stack(&of_two, upper, 0x1f000));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steadiness_is_by_the_clock), cmocka_unit_test(test_who_may_be_asked),
        cmocka_unit_test(test_what_runs_is_not_idle),      cmocka_unit_test(test_what_two_reads_have_in_common),
        cmocka_unit_test(test_whose_c_stack_it_is),        cmocka_unit_test(test_stacks_side_by_side),
    };
    return cmocka_run_group_tests(tests, take_signal, NULL);
}
