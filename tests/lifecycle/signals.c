/* Programs that take, reset, block or wait for the signal by which threads are asked. The program must
   not see any of ours, nor lose its own, and the profiler has to find another way, and say so.

       signals SCENE

   Each scene is a program of its own; what went wrong it says. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void check(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

#define CHECK(condition) check(condition, #condition)

/* The log: what was said, each message a line. */

static char said[8192];

static void log_it(pyprof_log_level level, const char *message, void *user) {
    size_t used = strlen(said);
    (void)level;
    (void)user;
    snprintf(said + used, sizeof said - used, "%s\n", message);
}

static bool was_said(const char *what) {
    return strstr(said, what) != NULL;
}

/* A thread that stands still need not be asked, and does whenever the sampler takes its core. So each gets one. */
static void part_cores(void) {
    cpu_set_t all, one;
    int32_t tids[2] = {pyprof__tid(), pyprof__process.active->tid};
    if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2) {
        return;
    }
    for (size_t cpu = 0, count = 0; cpu < CPU_SETSIZE && count < 2; cpu++) {
        if (CPU_ISSET(cpu, &all)) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(tids[count++], sizeof one, &one);
        }
    }
}

static void rejoin_cores(void) {
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
}

static void start(int number) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 200;
    desc.signal_number = number;
    desc.logger.log_fn = log_it;
    rejoin_cores();
    CHECK(pyprof_start(&desc) == PYPROF_OK);
    part_cores();
}

static void stop(void) {
    CHECK(pyprof_stop(NULL) == PYPROF_OK);
}

static pyprof_stats stats_now(void) {
    pyprof_stats stats;
    CHECK(pyprof_get_stats(&stats) == PYPROF_OK);
    return stats;
}

/* Python computes in this thread. Another thread may be in the way: this goes on until enough was seen. */

static void compute(void) {
    CHECK(PyRun_SimpleString("for n in range(20): work(100)\n") == 0);
}

static void compute_until_asked(uint64_t count) {
    uint64_t before = stats_now().samples_signalled;
    while (stats_now().samples_signalled < before + count) {
        compute();
    }
}

static void compute_until_unasked(uint64_t count) {
    uint64_t before = stats_now().samples_unasked;
    while (stats_now().samples_unasked < before + count) {
        compute();
    }
}

static void compute_until_changed(uint64_t changes) {
    while (stats_now().signal_changes < changes) {
        compute();
    }
}

/* Signals. */

static volatile sig_atomic_t strays, own;
static sig_atomic_t allowed_strays;

static void handle(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    own = own + (info->si_code == SI_TKILL || info->si_code == SI_USER);
    strays = strays + (info->si_code == SI_QUEUE);
}

static void take(int number) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO;
    CHECK(sigaction(number, &action, NULL) == 0);
}

static void (*action_of(int number))(int) {
    struct sigaction action;
    CHECK(sigaction(number, NULL, &action) == 0);
    return action.sa_handler;
}

static sigset_t set_of(int number) {
    sigset_t set;
    sigemptyset(&set);
    if (number == 0) {
        sigfillset(&set);
    } else {
        sigaddset(&set, number);
    }
    return set;
}

/* One signal, or all of them (0). */
static void block(int number) {
    sigset_t set = set_of(number);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void unblock(int number) {
    sigset_t set = set_of(number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* What is pending of a set, taken: the signal; 0 = none. */
static int take_pending(int number, siginfo_t *info) {
    struct timespec none = {0, 0};
    sigset_t set = set_of(number);
    int got = sigtimedwait(&set, info, &none);
    return got > 0 ? got : 0;
}

/* Scenes. */

/* One may have been under way when the program took the signal. Before that and once the sampler has seen it, none. */
static void check_strays_until_changed(uint64_t changes) {
    compute_until_changed(changes);
    CHECK(strays <= allowed_strays + 1);
    allowed_strays = strays;
}

static void test_handler_taken(void) {
    start(0);
    compute_until_asked(2);
    CHECK(stats_now().signal_number == SIGURG);
    take(SIGURG);
    check_strays_until_changed(1);
    compute_until_asked(2);
    CHECK(stats_now().signal_number == SIGWINCH);
    CHECK(was_said("SIGURG has been given another action by the program: threads are asked by SIGWINCH"));
    raise(SIGURG);
    CHECK(own == 1 && strays == allowed_strays);
    take(SIGWINCH);
    check_strays_until_changed(2);
    CHECK(stats_now().signal_number == 0);
    compute_until_unasked(5);
    CHECK(was_said("no signal is free"));
    signal(SIGURG, SIG_DFL);
    compute_until_changed(3);
    compute_until_asked(2);
    CHECK(was_said("SIGURG is free: threads are asked by it"));
    stop();
    CHECK(stats_now().signal_number == SIGURG);
    CHECK(strays == allowed_strays);
    CHECK(action_of(SIGURG) == SIG_DFL && action_of(SIGWINCH) != SIG_DFL);
}

static void reset_all(void (*to)(int)) {
    for (int number = 1; number < NSIG; number++) {
        if (number != SIGINT) {
            signal(number, to);
        }
    }
}

/* Nobody dies of it, whichever signal asks. */
static void test_reset(void) {
    static const int numbers[] = {0, SIGUSR1, 50};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        start(numbers[i]);
        for (uint64_t changes = 1; changes <= 3; changes++) {
            compute_until_asked(2);
            reset_all(changes == 2 ? SIG_IGN : SIG_DFL);
            while (stats_now().signal_changes < changes || stats_now().signal_number == 0) {
                compute();
            }
        }
        compute_until_asked(2);
        CHECK(stats_now().signal_number == SIGURG);
        stop();
        CHECK(action_of(SIGURG) == SIG_DFL && action_of(SIGUSR1) == SIG_DFL);
    }
}

static void test_inherited_ignored(void) {
    signal(SIGURG, SIG_IGN);
    start(0);
    compute_until_asked(2);
    CHECK(stats_now().signal_number == SIGWINCH);
    stop();
    CHECK(action_of(SIGURG) == SIG_IGN && action_of(SIGWINCH) == SIG_DFL);
    signal(SIGWINCH, SIG_IGN);
    start(0);
    compute_until_asked(2);
    CHECK(stats_now().signal_number == SIGURG);
    raise(SIGURG);
    stop();
    CHECK(action_of(SIGURG) == SIG_IGN && action_of(SIGWINCH) == SIG_IGN);
}

/* A program that reads the signal from a signalfd, before and after the start. */
static void test_blocked_in_particular(void) {
    siginfo_t info;
    block(SIGURG);
    CHECK(raise(SIGURG) == 0);
    start(0);
    CHECK(stats_now().signal_number == SIGWINCH);
    compute_until_asked(2);
    block(SIGWINCH);
    CHECK(raise(SIGWINCH) == 0); /* it may come after one of ours, which then stands for both */
    compute_until_changed(1);
    CHECK(stats_now().signal_number == 0);
    CHECK(was_said("SIGWINCH is blocked by a thread of the program"));
    compute_until_unasked(5);
    CHECK(stats_now().threads_unasked == 1);
    stop();
    CHECK(take_pending(SIGURG, &info) == SIGURG && info.si_code != SI_QUEUE);
    int got = take_pending(SIGWINCH, &info);
    CHECK(got == 0 || info.si_code != SI_QUEUE);
}

/* A thread that blocks all signals is not asked, and told of by its name; the signal stays for the others. */
static void test_all_blocked_later(void) {
    siginfo_t info;
    PyRun_SimpleString("import threading; threading.current_thread().name = 'the deaf one'");
    start(0);
    compute_until_asked(2);
    block(0);
    compute_until_unasked(5);
    CHECK(stats_now().signal_number == SIGURG && stats_now().signal_changes == 0);
    CHECK(stats_now().threads_unasked == 1);
    while (!was_said("thread \"the deaf one\" (")) { /* who blocks all for a moment is not told of */
        compute_until_unasked(5);
    }
    CHECK(was_said("blocks the signals by which it could be asked"));
    CHECK(take_pending(0, &info) == 0);
    uint64_t signals = stats_now().signals;
    compute_until_unasked(50);
    CHECK(stats_now().signals == signals);
    CHECK(take_pending(0, &info) == 0);
    CHECK(kill(getpid(), SIGURG) == 0 && kill(getpid(), SIGWINCH) == 0);
    stop();
    CHECK(take_pending(SIGWINCH, &info) == SIGWINCH && info.si_code == SI_USER);
    CHECK(take_pending(SIGURG, &info) == SIGURG && info.si_code == SI_USER);
    unblock(0);
    start(0);
    compute_until_asked(2);
    stop();
    CHECK(action_of(SIGURG) == SIG_DFL);
}

static void test_all_blocked_before(void) {
    block(0);
    start(0);
    CHECK(stats_now().signal_number == 0);
    CHECK(was_said("no signal is free"));
    compute_until_unasked(5);
    CHECK(action_of(SIGURG) == SIG_DFL && action_of(SIGWINCH) == SIG_DFL);
    unblock(0);
    compute_until_changed(1);
    compute_until_asked(2);
    CHECK(stats_now().signal_number == SIGURG);
    stop();
}

static volatile sig_atomic_t is_waiting, got_in_wait;

static void *wait_for_signal(void *unused) {
    sigset_t set = set_of(SIGURG);
    siginfo_t info;
    (void)unused;
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    is_waiting = 1;
    got_in_wait = sigwaitinfo(&set, &info);
    return NULL;
}

/* While it waits its mask does not show it. */
static void test_another_waits(void) {
    pthread_t thread;
    pyprof__process.pid = getpid(); /* what is read here is this process */
    CHECK(pthread_create(&thread, NULL, wait_for_signal, NULL) == 0);
    while (!is_waiting || !(pyprof__signals_in_use(0) & pyprof__signal_bit(SIGURG))) {
        usleep(1000);
    }
    start(0);
    CHECK(stats_now().signal_number == SIGWINCH);
    compute_until_asked(2);
    CHECK(got_in_wait == 0);
    CHECK(pthread_kill(thread, SIGURG) == 0);
    pthread_join(thread, NULL);
    CHECK(got_in_wait == SIGURG);
    stop();
}

/* The first argument's type is another one with each C library. */
#define LIMIT(resource, most)                                                                                          \
    do {                                                                                                               \
        struct rlimit limit_now;                                                                                       \
        CHECK(getrlimit(resource, &limit_now) == 0);                                                                   \
        limit_now.rlim_cur = most;                                                                                     \
        CHECK(setrlimit(resource, &limit_now) == 0);                                                                   \
    } while (0)

/* Neither masks nor what is pending can be read: no /proc is there, or no descriptor left. */
static void test_masks_unknown(void) {
    siginfo_t info;
    start(0);
    LIMIT(RLIMIT_NOFILE, 0);
    compute_until_asked(50);
    CHECK(stats_now().samples_unasked == 0);
    block(0);
    compute_until_unasked(5);
    uint64_t signals = stats_now().signals;
    compute_until_unasked(50);
    CHECK(stats_now().signals == signals);
    unblock(0);
    compute_until_asked(50);
    block(0);
    compute_until_unasked(5);
    stop();
    CHECK(take_pending(0, &info) == 0);
}

/* Beyond the limit of signals under way they come without what they carry, */
static void test_queue_full(void) {
    LIMIT(RLIMIT_SIGPENDING, 0);
    start(0);
    compute_until_asked(50);
    stop();
    take(SIGUSR1);
    start(SIGUSR1);
    compute_until_asked(50);
    CHECK(raise(SIGUSR1) == 0);
    stop();
    CHECK(own == 1 && strays == 0);
}

/* and real-time signals do not come at all. */
static void test_queue_full_real_time(void) {
    LIMIT(RLIMIT_SIGPENDING, 0);
    start(SIGRTMIN + 5);
    compute_until_unasked(50);
    CHECK(stats_now().samples_signalled == 0);
    LIMIT(RLIMIT_SIGPENDING, 100);
    compute_until_asked(50);
    stop();
}

/* Whoever takes what is pending takes a question of ours with it: that is the only one. */
static void test_taken_away(void) {
    siginfo_t info;
    int taken = 0;
    start(0);
    compute_until_asked(2);
    for (int i = 0; i < 10000 && taken < 3; i++) {
        block(0);
        CHECK(PyRun_SimpleString("work(20)") == 0);
        taken += take_pending(SIGURG, &info) == SIGURG;
        unblock(0);
        CHECK(PyRun_SimpleString("work(20)") == 0);
    }
    compute_until_asked(200);
    stop();
}

/* siginterrupt changes the flags of whatever action there is. */
static void let_interrupt(int number, bool interrupts) {
    struct sigaction action;
    CHECK(sigaction(number, NULL, &action) == 0);
    action.sa_flags = interrupts ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
    CHECK(sigaction(number, &action, NULL) == 0);
}

static bool interrupts(int number) {
    struct sigaction action;
    CHECK(sigaction(number, NULL, &action) == 0);
    return !(action.sa_flags & SA_RESTART);
}

static void test_siginterrupt(void) {
    take(SIGUSR1);
    let_interrupt(SIGUSR1, false);
    start(SIGUSR1);
    let_interrupt(SIGUSR1, true);
    compute_until_asked(2);
    CHECK(!interrupts(SIGUSR1));
    CHECK(raise(SIGUSR1) == 0 && own == 1);
    stop();
    CHECK(interrupts(SIGUSR1));
}

/* Whatever is on its way: the program that comes after an exec does not see it. */
static void test_exec(void) {
    char *arguments[] = {(char *)"signals", (char *)"after_exec", NULL};
    start(0);
    compute_until_asked(2);
    block(0);
    execv("/proc/self/exe", arguments);
}

static void test_after_exec(void) {
    sigset_t pending;
    sigpending(&pending);
    unblock(0);
    CHECK(action_of(SIGURG) == SIG_DFL && action_of(SIGWINCH) == SIG_DFL);
}

typedef struct scene {
    const char *name;
    void (*play)(void);
} scene;

static const scene scenes[] = {
    {"handler_taken", test_handler_taken},
    {"reset", test_reset},
    {"inherited_ignored", test_inherited_ignored},
    {"blocked_in_particular", test_blocked_in_particular},
    {"all_blocked_later", test_all_blocked_later},
    {"all_blocked_before", test_all_blocked_before},
    {"another_waits", test_another_waits},
    {"masks_unknown", test_masks_unknown},
    {"queue_full", test_queue_full},
    {"queue_full_real_time", test_queue_full_real_time},
    {"taken_away", test_taken_away},
    {"siginterrupt", test_siginterrupt},
    {"exec", test_exec},
    {"after_exec", test_after_exec},
};

int main(int argc, char **argv) {
    const scene *found = NULL;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        if (argc == 2 && strcmp(argv[1], scenes[i].name) == 0) {
            found = &scenes[i];
        }
    }
    check(found != NULL, "signals SCENE");
    Py_InitializeEx(0);
    CHECK(PyRun_SimpleString("def leaf(i): return i * i % 7\n"
                             "def work(n):\n"
                             "    for i in range(n): leaf(i)\n") == 0);
    found->play();
    CHECK(Py_FinalizeEx() == 0);
    return 0;
}
