/* A session of the handler without a sampler: requests that are put by hand, signals that are sent by hand, and
   actions of the host's beside them. Every test that includes it includes unit.h before. */
#ifndef SESSION_H
#define SESSION_H

enum {
    depth = 64
};

static pyprof__frame frames[2][depth];
static const int number = 40; /* a real-time signal of nobody's */

/* The first two requests get frames of the test's own; NULL for a recording that brings its own. */
UNIT_UNUSED static void lend_frames(bool are_lent) {
    for (size_t i = 0; i < 2; i++) {
        pyprof__handler.requests[i].stack.frames = are_lent ? frames[i] : NULL;
        pyprof__handler.requests[i].stack.capacity = depth;
    }
}

UNIT_UNUSED static int start_session(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, (size_t)1 << 20);
    if (pyprof__layout_init(&pyprof__handler.layout, &memory) != PYPROF_OK) {
        return -1;
    }
    lend_frames(true);
    return unit_start_python(state);
}

UNIT_UNUSED static void open_session(int signal_number) {
    pyprof__add(&pyprof__handler.session, 1);
    assert_true(pyprof__get(&pyprof__handler.session) & 1);
    assert_true(pyprof__handler_start(signal_number));
    pyprof__handler.requests_used = PYPROF__REQUESTS_MAX; /* they are put by hand */
}

UNIT_UNUSED static void close_session(void) {
    pyprof__handler_stop(false);
    pyprof__add(&pyprof__handler.session, 1);
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        pyprof__set_state(&pyprof__handler.requests[i], PYPROF__REQUEST_FREE);
    }
}

/* Sends to this very thread. A sanitizer may hold the signal back until the next call that it watches. */
UNIT_UNUSED static void send_question(int signal_number, void *question) {
    assert_true(pyprof__signal_thread(pyprof__tid(), signal_number, question));
    usleep(1);
}

/* A question to a thread, which no signal carries yet. */
UNIT_UNUSED static void put(uint32_t index, int32_t tid, uintptr_t tstate) {
    pyprof__handler.requests[index].levels.count = 1;
    pyprof__handler.requests[index].levels.items[0].tstate = tstate;
    pyprof__handler.requests[index].tid = tid;
    pyprof__handler.requests[index].signal_number = pyprof__handler.signal_number;
    pyprof__number_question(&pyprof__handler.requests[index]);
}

static volatile sig_atomic_t plain_calls, info_calls, info_value;
static void *volatile info_context;

/* Behind our handler, which keeps errno; alone it must not, as sanitizers watch for that. */
UNIT_UNUSED static void spoil_errno(void) {
    if (pyprof__handler.signal_number != 0) {
        errno = ENOENT;
    }
}

UNIT_UNUSED static void on_plain(int signal_number) {
    plain_calls += signal_number;
    spoil_errno();
}

UNIT_UNUSED static struct sigaction host_action(void (*plain)(int), void (*with_info)(int, siginfo_t *, void *),
                                                int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_flags = flags;
    if (with_info != NULL) {
        action.sa_sigaction = with_info;
    } else {
        action.sa_handler = plain;
    }
    return action;
}

UNIT_UNUSED static void assert_action_is(int signal_number, const struct sigaction *expected) {
    struct sigaction now;
    assert_int_equal(sigaction(signal_number, NULL, &now), 0);
    assert_true(now.sa_handler == expected->sa_handler);
    assert_int_equal(now.sa_flags & (SA_SIGINFO | SA_RESTART | SA_ONSTACK),
                     expected->sa_flags & (SA_SIGINFO | SA_RESTART | SA_ONSTACK));
}

/* Of a test that failed: those behind it begin as if there had been none. */
UNIT_UNUSED static int after_each(void **state) {
    (void)state;
    if (pyprof__get(&pyprof__handler.session) & 1) {
        close_session();
    }
    lend_frames(true);
    return 0;
}

#define TEST(function) cmocka_unit_test_teardown(function, after_each)

#endif
