/* >>handler: which questions it answers, what it passes on, and whose frames it finds. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <semaphore.h>
#include <sys/wait.h>

#include "unit.h"
#include "session.h"

/* A question to this very thread; the handler has run when this returns, unless the signal is blocked. */
static void ask(uint32_t index, uintptr_t tstate) {
    put(index, pyprof__tid(), tstate);
    send_question(pyprof__handler.signal_number, pyprof__question(index));
}

static uint32_t state_of(uint32_t index) {
    return pyprof__state_of(&pyprof__handler.requests[index]);
}

/* The handler is through with the question, and came to this. */
static void assert_verdict(uint32_t index, pyprof__verdict verdict) {
    assert_int_equal(state_of(index), PYPROF__REQUEST_ANSWERED);
    assert_int_equal(pyprof__handler.requests[index].verdict, verdict);
}

static void test_question_is_answered(void **state) {
    (void)state;
    open_session(number);
    ask(0, (uintptr_t)PyThreadState_Get());
    assert_verdict(0, PYPROF__SEEN);
    assert_int_equal(pyprof__handler.requests[0].stack.count, 0);
    assert_true(pyprof__handler.requests[0].wall > 0);
    assert_true(pyprof__handler.requests[0].cpu > 0);
    assert_int_equal(pyprof__get(&pyprof__handler.running), 0);
    close_session();
}

static void test_thread_that_has_left_is_late(void **state) {
    (void)state;
    open_session(number);
    PyThreadState *tstate = PyEval_SaveThread();
    ask(0, (uintptr_t)tstate);
    assert_verdict(0, PYPROF__LATE);
    PyEval_RestoreThread(tstate);
    ask(1, (uintptr_t)tstate + 8); /* came back with another thread state */
    assert_verdict(1, PYPROF__LATE);
    close_session();
}

static void test_question_of_another_session_is_dropped(void **state) {
    (void)state;
    open_session(number);
    uintptr_t tstate = (uintptr_t)PyThreadState_Get();
    put(0, pyprof__tid(), tstate);
    void *old = pyprof__question(0);
    put(0, pyprof__tid(), tstate); /* the same request, another question */
    send_question(number, old);
    assert_int_equal(state_of(0), PYPROF__REQUEST_SENT);
    send_question(number, (char *)pyprof__question(0) + ((uint64_t)PYPROF__REQUESTS_MAX << 32)); /* no request */
    assert_int_equal(state_of(0), PYPROF__REQUEST_SENT);
    pyprof__add(&pyprof__handler.session, 1); /* between sessions nothing is answered */
    send_question(number, pyprof__question(0));
    assert_int_equal(state_of(0), PYPROF__REQUEST_SENT);
    pyprof__add(&pyprof__handler.session, 1);
    assert_true(pyprof__take_signal(number)); /* what comes between sessions gives it back */
    send_question(number, pyprof__question(0));
    assert_verdict(0, PYPROF__SEEN);
    close_session();
}

static void test_answered_question_is_not_answered_again(void **state) {
    (void)state;
    open_session(number);
    uintptr_t tstate = (uintptr_t)PyThreadState_Get();
    ask(0, tstate);
    static const uint32_t states[] = {PYPROF__REQUEST_FREE, PYPROF__REQUEST_IN_WORK, PYPROF__REQUEST_ANSWERED};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        pyprof__handler.requests[0].wall = 12345;
        pyprof__set_state(&pyprof__handler.requests[0], (pyprof__request_state)states[i]);
        send_question(number, pyprof__question(0));
        assert_int_equal(state_of(0), states[i]);
        assert_int_equal(pyprof__handler.requests[0].wall, 12345);
    }
    pyprof__set_state(&pyprof__handler.requests[0], PYPROF__REQUEST_FREE);
    close_session();
}

static void test_cancelled_question_can_be_renewed(void **state) {
    sigset_t only, before;
    pyprof__thread thread;
    (void)state;
    memset(&thread, 0, sizeof thread);
    thread.tid = pyprof__tid();
    pyprof__observation seen;
    static pyprof__sampler sampler;
    memset(&seen, 0, sizeof seen);
    seen.levels.count = 1;
    seen.levels.items[0].tstate = (uintptr_t)PyThreadState_Get();
    open_session(number);
    sigemptyset(&only);
    sigaddset(&only, number);
    for (int renewed = 0; renewed < 2; renewed++) {
        pthread_sigmask(SIG_BLOCK, &only, &before);
        ask(1, 8);
        thread.asking.request = 1;
        pyprof__cancel(&sampler, &thread);
        assert_int_equal(sampler.stats.lost_pending, renewed + 1);
        assert_int_equal(thread.asking.request, PYPROF__NONE);
        assert_int_equal(state_of(1), PYPROF__REQUEST_CANCELLED);
        pyprof__thread other = thread;
        other.tid = thread.tid + 1;
        assert_int_equal(pyprof__renew_request(&other, &seen), PYPROF__NONE); /* it is not that one's */
        if (renewed) {
            assert_int_equal(pyprof__renew_request(&thread, &seen), 1);
            assert_int_equal(pyprof__renew_request(&thread, &seen), PYPROF__NONE);
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        assert_int_equal(state_of(1), renewed ? PYPROF__REQUEST_ANSWERED : PYPROF__REQUEST_FREE);
        assert_true(!renewed || pyprof__handler.requests[1].verdict == PYPROF__SEEN);
    }
    close_session();
}

/* A question that was taken back and whose signal ended a call counts for the thread that was asked. */
static void test_call_ended_by_a_cancelled_question_is_told(void **state) {
    pyprof__sampler sampler;
    pyprof__thread threads[3];
    (void)state;
    memset(&sampler, 0, sizeof sampler);
    memset(threads, 0, sizeof threads);
    sampler.threads.data = (unsigned char *)threads;
    sampler.threads.item_size = sizeof *threads;
    sampler.threads.count = 3;
    for (int i = 0; i < 3; i++) {
        threads[i].tid = i == 0 ? 1 : 2; /* the kernel has given the id of the second to the third */
        threads[i].asking.request = PYPROF__NONE;
        threads[i].is_alive = i != 1;
    }
    open_session(number);
    pyprof__handler.requests_used = 2;
    for (int ended = 0; ended < 2; ended++) {
        put(1, 2, 8);
        pyprof__set_state(&pyprof__handler.requests[1], PYPROF__REQUEST_CANCELLED);
        uint32_t question = pyprof__get(&pyprof__handler.requests[1].state) >> PYPROF__STATE_BITS;
        assert_false(pyprof__accept(&pyprof__handler.requests[1], question - 1, ended));
        assert_int_equal(state_of(1), PYPROF__REQUEST_CANCELLED);
        assert_false(pyprof__accept(&pyprof__handler.requests[1], question, ended));
        assert_int_equal(state_of(1), ended ? PYPROF__REQUEST_ANSWERED : PYPROF__REQUEST_FREE);
        assert_true(!ended || pyprof__handler.requests[1].verdict == PYPROF__LATE);
        pyprof__collect(&sampler);
        assert_int_equal(state_of(1), PYPROF__REQUEST_FREE);
        assert_int_equal(threads[0].asking.debt + threads[1].asking.debt, 0);
        assert_int_equal(threads[2].asking.debt, ended ? PYPROF__COST_OF_ENDED_CALL : 0);
    }
    assert_int_equal(sampler.stats.lost_late, 0); /* another sample stands in its stead */
    close_session();
}

/* A thread that has left Python's frames when it answers is not in the profile, nor among the samples. */
static void test_answer_without_frames_is_no_sample(void **state) {
    static pyprof__sampler sampler;
    pyprof__thread thread;
    (void)state;
    memset(&thread, 0, sizeof thread);
    thread.asking.request = 1;
    thread.track = PYPROF__NONE;
    pyprof__handler.requests[1].stack.count = 0;
    pyprof__handler.requests[1].stack.root = 0;
    pyprof__handler.requests[1].levels.count = 1;
    pyprof__handler.requests[1].verdict = PYPROF__SEEN;
    pyprof__take_answer(&sampler, &thread, &pyprof__handler.requests[1]);
    assert_int_equal(thread.asking.request, PYPROF__NONE);
    assert_int_equal(sampler.stats.samples, 0);
    assert_int_equal(sampler.stats.samples_signalled, 0);
}

#if defined(__x86_64__)
static sem_t never_posted;
static pyprof__atomic32 waiter;

/* What sem_timedwait failed with. */
static void *wait_with_deadline(void *result) {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec++;
    pyprof__set(&waiter, (uint32_t)pyprof__tid());
    *(int *)result = sem_timedwait(&never_posted, &deadline) != 0 ? errno : 0;
    return NULL;
}
#endif

/* Whoever waits with a deadline goes on waiting. SA_RESTART alone does not do that. */
static void test_wait_with_deadline_goes_on(void **state) {
    (void)state;
#if defined(__x86_64__)
    pthread_t thread;
    int result = 0;
    sem_init(&never_posted, 0, 0);
    open_session(number);
    uint64_t begin = pyprof__now();
    assert_int_equal(pthread_create(&thread, NULL, wait_with_deadline, &result), 0);
    while (pyprof__get(&waiter) == 0 || pyprof__thread_is_runnable((int32_t)pyprof__get(&waiter))) {
        usleep(1000);
    }
    for (int i = 0; i < 10; i++) {
        put(1, (int32_t)pyprof__get(&waiter), 8);
        pyprof__number_question(&pyprof__handler.requests[1]);
        assert_true(pyprof__signal_thread((int32_t)pyprof__get(&waiter), number, pyprof__question(1)));
        /* The next one comes when the thread waits again: 20 ms are enough but where the machine holds it up. */
        for (int waits = 0; waits == 0 || (waits < 2500 && state_of(1) != PYPROF__REQUEST_ANSWERED); waits++) {
            usleep(20000);
        }
        assert_verdict(1, PYPROF__LATE);
    }
    pthread_join(thread, NULL);
    assert_int_equal(result, ETIMEDOUT);
    assert_true(pyprof__now() - begin >= 900000000u && pyprof__now() - begin < 60000000000u);
    close_session();
#else
    print_message("skipped: waits are made to go on where x86-64's calls are known\n");
    skip();
#endif
}

/* But not if a signal of the program's comes at the same moment, which may have been sent to end that wait. */
static void test_wait_ends_for_another_signal(void **state) {
    (void)state;
#if defined(__x86_64__)
    static const unsigned char code[] = {0xb8, SYS_futex, 0, 0, 0, 0x0f, 0x05, 0x90};
    sigset_t only, before;
    sigemptyset(&only);
    sigaddset(&only, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &only, &before);
    for (int i = 0; i < 3; i++) {
        bool comes = i == 1;
        ucontext_t context;
        memset(&context, 0, sizeof context);
        context.uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)(code + 7);
        context.uc_mcontext.gregs[REG_RAX] = -EINTR;
        context.uc_mcontext.gregs[REG_RSI] = FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME;
        context.uc_mcontext.gregs[REG_R9] = UINT32_MAX;
        if (i == 1) {
            assert_int_equal(raise(SIGUSR1), 0);
        } else if (i == 2) {
            context.uc_sigmask = only;
        }
        pyprof__resume_wait(&context);
        assert_int_equal(context.uc_mcontext.gregs[REG_RAX], comes ? -EINTR : SYS_futex);
        assert_true(context.uc_mcontext.gregs[REG_RIP] == (greg_t)(uintptr_t)(code + (comes ? 7 : 5)));
    }
    struct timespec none = {0, 0};
    assert_int_equal(sigtimedwait(&only, NULL, &none), SIGUSR1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
#else
    print_message("skipped: waits are made to go on where x86-64's calls are known\n");
    skip();
#endif
}

static void test_requests_of_dead_threads_come_back(void **state) {
    (void)state;
    pyprof__handler.requests[0].tid = INT32_MAX / 2; /* beyond any thread id of Linux */
    pyprof__handler.requests[1].tid = pyprof__tid();
    for (uint32_t sent = PYPROF__REQUEST_SENT; sent <= PYPROF__REQUEST_CANCELLED; sent++) {
        pyprof__set_state(&pyprof__handler.requests[0], (pyprof__request_state)sent);
        pyprof__set_state(&pyprof__handler.requests[1], (pyprof__request_state)sent);
        pyprof__drop_dead_requests();
        assert_int_equal(state_of(0), PYPROF__REQUEST_FREE);
        assert_int_equal(state_of(1), sent);
    }
    pyprof__set_state(&pyprof__handler.requests[1], PYPROF__REQUEST_FREE);
}

/* A handler may stay at work for longer than two recordings: its frames are the handler's, and are counted off once. */
static void test_frames_that_are_left_are_counted_off_once(void **state) {
    counted_memory counts;
    pyprof__request *request = &pyprof__handler.requests[1];
    size_t size = depth * sizeof *frames[1];
    (void)state;
    lend_frames(true);
    pyprof__set_state(request, PYPROF__REQUEST_IN_WORK);
    request->is_left = true;
    for (int recording = 0; recording < 3; recording++) {
        pyprof__memory memory = unit_limited(&counts, (size_t)1 << 20);
        static pyprof__sampler sampler;
        memset(&sampler, 0, sizeof sampler);
        sampler.memory = &memory;
        memory.used = 2 * size;
        pyprof__handler.requests[0].stack.frames = NULL;
        pyprof__sampler_clear(&sampler);
        assert_int_equal(memory.used, recording == 0 ? size : 2 * size);
        assert_ptr_equal(request->stack.frames, frames[1]);
    }
    pyprof__set_state(request, PYPROF__REQUEST_ANSWERED); /* now it has ended */
    static pyprof__sampler sampler;
    pyprof__handler.requests_used = 2;
    pyprof__collect(&sampler);
    assert_int_equal(state_of(1), PYPROF__REQUEST_FREE);
    assert_null(request->stack.frames);
    assert_false(request->is_left || request->is_written_off);
    lend_frames(true);
}

/* The stack that a thread copies of itself is the one that is read from outside. */
static PyObject *compare_stacks(PyObject *module, PyObject *unused) {
    pyprof__reader reader = {0, 0, 0, 0, NULL};
    pyprof__stack outside;
    uintptr_t tstate = (uintptr_t)PyThreadState_Get(), leaf = 0;
    uint32_t rung = pyprof__get(&pyprof__handler.bell);
    (void)module;
    (void)unused;
    memset(&outside, 0, sizeof outside);
    outside.frames = frames[1];
    outside.capacity = depth;
    ask(0, tstate);
    assert_verdict(0, PYPROF__SEEN);
    const pyprof__stack *own = &pyprof__handler.requests[0].stack;
    assert_true(pyprof__leaf_frame(&pyprof__handler.layout, &reader, tstate, &leaf));
    assert_true(pyprof__walk(&pyprof__handler.layout, &reader, leaf, &outside));
    assert_int_equal(own->count, outside.count);
    assert_int_equal(own->is_cut, outside.is_cut);
    assert_memory_equal(own->frames, outside.frames, own->count * sizeof *own->frames);
    assert_true(own->root_first_local == outside.root_first_local);
    assert_true(pyprof__get(&pyprof__handler.bell) != rung); /* code that nobody knows the names of */
    pyprof__make_known(own);
    assert_true(pyprof__knows_all(own));
    rung = pyprof__get(&pyprof__handler.bell);
    ask(0, tstate);
    assert_true(pyprof__get(&pyprof__handler.bell) == rung);
    pyprof__forget_known();
    return PyLong_FromUnsignedLong(own->count);
}

static PyMethodDef compare_method = {"compare_stacks", compare_stacks, METH_NOARGS, NULL};

static void test_own_stack_is_the_one_seen_from_outside(void **state) {
    (void)state;
    PyObject *function = PyCFunction_New(&compare_method, NULL);
    PyObject_SetAttrString(PyImport_AddModule("__main__"), "compare_stacks", function);
    Py_DECREF(function);
    open_session(number);
    unit_run("def nested(n): return compare_stacks() if n == 0 else nested(n - 1)\n"
             "def generator(): yield nested(3)\n"
             "assert compare_stacks() == 1\n"
             "for n in range(20): assert nested(n) == n + 2\n"
             "assert 60 <= nested(100) <= 64\n" /* among the outermost may be where C entered, which is not shown */
             "assert list(generator()) == [6]\n"
             "assert sorted([1], key=lambda _: nested(1) - 4) == [1]\n"
             "exec('assert list(map(nested, [2])) == [5]')\n");
    close_session();
}

/* What is not ours. */

static void on_info(int signal_number, siginfo_t *info, void *context) {
    info_calls += signal_number;
    info_value = info->si_value.sival_int;
    info_context = context;
    spoil_errno();
}

static void send_foreign(int signal_number, int value) {
    union sigval word;
    word.sival_ptr = NULL;
    word.sival_int = value;
    assert_int_equal(sigqueue(getpid(), signal_number, word), 0);
    usleep(1);
}

static void test_foreign_signals_go_where_they_went(void **state) {
    (void)state;
    struct sigaction plain = host_action(on_plain, NULL, SA_RESTART);
    plain_calls = info_calls = 0;
    assert_int_equal(sigaction(number, &plain, NULL), 0);
    open_session(number);
    errno = ERANGE;
    send_foreign(number, 7);
    assert_int_equal(errno, ERANGE);
    assert_int_equal(plain_calls, number);
    raise(number); /* from ourselves, but no question */
    assert_int_equal(plain_calls, 2 * number);
    ask(0, 8); /* ours is not passed on */
    assert_int_equal(plain_calls, 2 * number);
    close_session();
    assert_action_is(number, &plain);
    send_foreign(number, 7);
    assert_int_equal(plain_calls, 3 * number);

    struct sigaction info = host_action(NULL, on_info, SA_SIGINFO);
    assert_int_equal(sigaction(number, &info, NULL), 0);
    open_session(number);
    info_context = NULL;
    errno = ERANGE;
    send_foreign(number, 77);
    assert_int_equal(errno, ERANGE);
    assert_int_equal(info_calls, number);
    assert_int_equal(info_value, 77);
    assert_non_null(info_context);
    close_session();
    assert_action_is(number, &info);
    signal(number, SIG_DFL);
}

static void test_ignored_signals_stay_ignored(void **state) {
    static const int flags[] = {0, SA_SIGINFO}; /* the flag means nothing without a function */
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct sigaction ignored = host_action(SIG_IGN, NULL, flags[i]);
        assert_int_equal(sigaction(number, &ignored, NULL), 0);
        open_session(number);
        send_foreign(number, 1);
        ask(0, (uintptr_t)PyThreadState_Get());
        assert_verdict(0, PYPROF__SEEN);
        close_session();
        assert_action_is(number, &ignored);
    }
    signal(number, SIG_DFL);
}

static void test_harmless_defaults_keep_the_handler(void **state) {
    static const int harmless[] = {SIGCHLD, SIGURG, SIGWINCH};
    static const int flags[] = {0, SA_SIGINFO};
    (void)state;
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        for (size_t j = 0; j < 2; j++) {
            struct sigaction normal = host_action(SIG_DFL, NULL, flags[j]);
            assert_int_equal(sigaction(harmless[i], &normal, NULL), 0);
            open_session(harmless[i]);
            send_foreign(harmless[i], 1);
            raise(harmless[i]);
            ask(0, (uintptr_t)PyThreadState_Get());
            assert_verdict(0, PYPROF__SEEN);
            close_session();
            assert_action_is(harmless[i], &normal);
        }
    }
}

static void test_errno_is_kept(void **state) {
    (void)state;
    open_session(number);
    PyThreadState *tstate = PyEval_SaveThread();
    errno = EDOM;
    put(0, pyprof__tid(), 8);
    pyprof__signal_thread(pyprof__tid(), number, pyprof__question(0));
    int after = errno;
    PyEval_RestoreThread(tstate);
    assert_verdict(0, PYPROF__LATE);
    assert_int_equal(after, EDOM);
    close_session();
}

static pyprof__layout layout_asked;
static volatile uintptr_t word_asked; /* its complement: the word itself is to be found only where it is put */
static volatile pyprof__whose whose_found;

static void find_whose(int signal_number, siginfo_t *info, void *context) {
    (void)signal_number;
    (void)info;
    pyprof__stack room;
    room.frames = frames[0];
    room.capacity = depth;
    whose_found = pyprof__whose_frames(&layout_asked, &room, context, ~word_asked);
}

static pyprof__whose whose(uintptr_t complement) {
    word_asked = complement;
    raise(SIGUSR1);
    return whose_found;
}

/* What a thread keeps on its C stack it runs; what only others hold it does not. */
static void test_whose_frames_they_are(void **state) {
    static uintptr_t elsewhere;
    /* Not as a variable: a sanitizer may have those in memory of its own. */
    volatile uintptr_t *here = (volatile uintptr_t *)__builtin_alloca(64 * sizeof *here);
    struct sigaction action;
    (void)state;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = find_whose;
    action.sa_flags = SA_SIGINFO;
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    here[63] = 0x0ddba11;
    layout_asked.cframe_frame = PYPROF__ABSENT;
    layout_asked.helper_code = 0;
    assert_int_equal(whose(~(uintptr_t)0x0ddba11), PYPROF__OWN);
    here[63] = 0;
    assert_int_equal(whose(~(uintptr_t)0x0ddba11), PYPROF__FOREIGN);
    layout_asked.cframe_frame = 0;
    assert_int_equal(whose(~(uintptr_t)&here[63]), PYPROF__OWN);
    assert_int_equal(whose(~(uintptr_t)&elsewhere), PYPROF__FOREIGN);
    signal(SIGUSR1, SIG_DFL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_question_is_answered),
        TEST(test_thread_that_has_left_is_late),
        TEST(test_question_of_another_session_is_dropped),
        TEST(test_answered_question_is_not_answered_again),
        TEST(test_cancelled_question_can_be_renewed),
        TEST(test_call_ended_by_a_cancelled_question_is_told),
        TEST(test_answer_without_frames_is_no_sample),
        TEST(test_wait_with_deadline_goes_on),
        TEST(test_wait_ends_for_another_signal),
        TEST(test_requests_of_dead_threads_come_back),
        TEST(test_frames_that_are_left_are_counted_off_once),
        TEST(test_own_stack_is_the_one_seen_from_outside),
        TEST(test_foreign_signals_go_where_they_went),
        TEST(test_ignored_signals_stay_ignored),
        TEST(test_harmless_defaults_keep_the_handler),
        TEST(test_errno_is_kept),
        TEST(test_whose_frames_they_are),
    };
    return cmocka_run_group_tests(tests, start_session, unit_stop_python);
}
