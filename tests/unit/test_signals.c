/* >>signals: which signal can be taken, and what is left when it is given back. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <sys/wait.h>

#include "unit.h"
#include "session.h"

static void test_deadly_default_still_kills(void **state) {
    static const int deadly[] = {SIGUSR1, 40};
    (void)state;
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) {
        pid_t child = fork();
        if (child == 0) {
            signal(deadly[i], SIG_DFL);
            pyprof__add(&pyprof__handler.session, 1);
            if (!pyprof__handler_start(deadly[i])) {
                _exit(1);
            }
            raise(deadly[i]);
            _exit(2); /* must not be reached */
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), deadly[i]);
    }
}

/* Stopping. */

static pyprof__atomic32 is_blocked, may_end;

static void *block_signal(void *tid) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    *(int32_t *)tid = pyprof__tid();
    pyprof__set(&is_blocked, 1);
    pyprof__wake(&is_blocked);
    while (pyprof__get(&may_end) == 0) {
        pyprof__wait_until(&may_end, 0, pyprof__now() + 1000000000u);
    }
    sigemptyset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL); /* what is still pending would kill the process now */
    return NULL;
}

/* One of ours is discarded. Real-time signals queue up, so among them may be the host's: there the action stays until
   what is pending has come. */
static void test_stop_with_a_signal_that_is_still_pending(void **state) {
    static const int numbers[] = {40, SIGUSR1};
    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        pthread_t thread;
        int32_t tid = 0;
        struct sigaction normal = host_action(SIG_DFL, NULL, 0);
        assert_int_equal(sigaction(numbers[i], &normal, NULL), 0);
        pyprof__set(&is_blocked, 0);
        pyprof__set(&may_end, 0);
        open_session(numbers[i]);
        assert_int_equal(pthread_create(&thread, NULL, block_signal, &tid), 0);
        while (pyprof__get(&is_blocked) == 0) {
            pyprof__wait_until(&is_blocked, 0, pyprof__now() + 1000000000u);
        }
        put(0, tid, 8);
        assert_true(pyprof__signal_thread(tid, numbers[i], pyprof__question(0)));
        close_session();
        struct sigaction now;
        assert_int_equal(sigaction(numbers[i], NULL, &now), 0);
        assert_int_equal(pyprof__is_our_action(&now), numbers[i] >= SIGRTMIN);
        pyprof__set(&may_end, 1);
        pyprof__wake(&may_end);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_action_is(numbers[i], &normal);
    }
}

static void test_stop_leaves_the_hosts_newer_action(void **state) {
    (void)state;
    struct sigaction newer = host_action(on_plain, NULL, 0);
    open_session(number);
    assert_int_equal(sigaction(number, &newer, NULL), 0);
    close_session();
    assert_action_is(number, &newer);
    signal(number, SIG_DFL);
}

static void test_unusable_signals_are_refused(void **state) {
    static const int refused[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP,
                                  SIGABRT, SIGCONT, SIGSYS,  0,      -1,     NSIG,   NSIG + 5};
    (void)state;
    lend_frames(false);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct sigaction before, after;
        bool exists = sigaction(refused[i], NULL, &before) == 0;
        assert_false(pyprof__signal_is_usable(refused[i]));
        if (refused[i] != 0) {
            pyprof_desc desc;
            memset(&desc, 0, sizeof desc);
            desc.signal_number = refused[i];
            assert_false(pyprof__handler_start(refused[i]));
            assert_int_equal(pyprof_start(&desc), refused[i] < 0 ? PYPROF_ERROR_ARGUMENT : PYPROF_ERROR_SIGNAL);
            assert_false(pyprof_is_active());
        }
        if (exists) {
            assert_int_equal(sigaction(refused[i], NULL, &after), 0);
            assert_true(before.sa_handler == after.sa_handler);
        }
    }
    for (int usable = SIGRTMIN; usable <= SIGRTMAX; usable++) {
        assert_true(pyprof__signal_is_usable(usable));
    }
    lend_frames(true);
    assert_false(pyprof__handler_start(32)); /* the C library's own */
}

static void test_free_signal_is_nobodys(void **state) {
    struct sigaction mine = host_action(on_plain, NULL, 0);
    bool taken[NSIG] = {false};
    int found;
    (void)state;
    for (int count = 0; (found = pyprof__free_signal(0)) != 0; count++) {
        assert_true(count < NSIG);
        assert_true(pyprof__signal_is_usable(found));
        assert_true(found == SIGURG || found == SIGWINCH); /* harmless by default */
        assert_false(taken[found]);
        taken[found] = true;
        assert_int_equal(sigaction(found, &mine, NULL), 0);
    }
    assert_true(pyprof__handler_start(0)); /* then nobody is asked */
    assert_int_equal(pyprof__handler.signal_number, 0);
    assert_int_equal(pyprof__get64(&pyprof__handler.taken), 0);
    for (int i = 1; i < NSIG; i++) {
        if (taken[i]) {
            signal(i, SIG_DFL);
        }
    }
    assert_int_not_equal(pyprof__free_signal(0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_deadly_default_still_kills),
        TEST(test_stop_with_a_signal_that_is_still_pending),
        TEST(test_stop_leaves_the_hosts_newer_action),
        TEST(test_unusable_signals_are_refused),
        TEST(test_free_signal_is_nobodys),
    };
    return cmocka_run_group_tests(tests, start_session, unit_stop_python);
}
