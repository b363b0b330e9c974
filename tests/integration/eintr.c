/* Counts system calls that a signal cut short.

   eintr foreign CALLS     a thread that never enters Python makes CALLS calls of poll, nanosleep and read
   eintr hostile TICKS     a thread runs 10-15 us of Python, lets the GIL go and polls for 50 us, until so many ticks
   -q captures quietly, -i INTERVAL_US (1000), -t BUSY Python threads beside it (0)
   -c is the control: instead of pyprof a process-wide timer, as others profile, so that the count can be seen to work

   Prints one line of JSON. Nothing here retries: what is interrupted is seen. */

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* ppoll */
#endif
#include "pyprof.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BUSY_SCRIPT                                                                                                    \
    "import threading, time\n"                                                                                         \
    "stop = False\n"                                                                                                   \
    "def leaf(x): return x & 255\n"                                                                                    \
    "def inner(x): return leaf(x) + leaf(x + 1)\n"                                                                     \
    "def busy():\n"                                                                                                    \
    "    while not stop:\n"                                                                                            \
    "        for n in range(1000): inner(n)\n"                                                                         \
    "amount = 100\n"                                                                                                   \
    "def some(x):\n"                                                                                                   \
    "    for n in range(amount): x = leaf(x + n)\n"                                                                    \
    "    return x\n"                                                                                                   \
    "def took(calls):\n"                                                                                               \
    "    begin = time.thread_time_ns()\n"                                                                              \
    "    for n in range(calls): some(n)\n"                                                                             \
    "    return (time.thread_time_ns() - begin) / calls\n"                                                             \
    "took(1000)\n"                                                                                                     \
    "amount = max(1, int(100 * 12000 / took(1000)))\n"                                                                 \
    "threads = []\n"                                                                                                   \
    "def start(count):\n"                                                                                              \
    "    threads.extend(threading.Thread(target=busy) for n in range(count))\n"                                        \
    "    for thread in threads: thread.start()\n"                                                                      \
    "def end():\n"                                                                                                     \
    "    global stop\n"                                                                                                \
    "    stop = True\n"                                                                                                \
    "    for thread in threads: thread.join()\n"

typedef struct counts {
    uint64_t calls;       /* made in all */
    uint64_t interrupted; /* came back with EINTR, or too early, or with too little */
    uint64_t python_ns;   /* time that the hostile thread spent in Python */
} counts;

static void die(const char *what) {
    fprintf(stderr, "eintr: %s\n", what);
    exit(2);
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool is_control;

static pyprof_stats stats_now(void) {
    pyprof_stats stats;
    if (is_control) {
        memset(&stats, 0, sizeof stats);
        stats.ticks = clock_ns(CLOCK_MONOTONIC) / 1000000u;
    } else if (pyprof_get_stats(&stats) != PYPROF_OK) {
        die("no figures");
    }
    return stats;
}

/* What a process-wide profiler does: SIGALRM, to whichever thread does not block it. */

static void ignore_signal(int number) {
    (void)number;
}

static void start_control(void) {
    const struct itimerval every = {{0, 1000}, {0, 1000}};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = ignore_signal;
    action.sa_flags = SA_RESTART;
    if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &every, NULL)) {
        die("setitimer");
    }
}

static void mask_control(int how) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(how, &set, NULL);
}

/* Sleeps end when they should, not 50 us later: the calls come faster. */
static void prepare_thread(void) {
    prctl(PR_SET_TIMERSLACK, 1ul);
    mask_control(SIG_UNBLOCK);
}

/* A thread of the host's own, which CPython never hears of. */

typedef struct foreign {
    uint64_t calls;
    int pipe_read; /* a byte comes every few microseconds */
    counts done;
} foreign;

static bool nanosleep_is_cut(void) {
    const struct timespec pause = {0, 1000};
    return nanosleep(&pause, NULL) != 0;
}

static bool poll_is_cut(int descriptor) {
    /* Nothing ever comes here: the call ends by its time alone. A whole millisecond is poll's shortest wait, so
       only every sixteenth waits. */
    static unsigned turn;
    struct pollfd one = {descriptor, POLLIN, 0};
    return poll(&one, 1, turn++ % 16 ? 0 : 1) < 0;
}

static bool read_is_cut(int descriptor) {
    char byte;
    return read(descriptor, &byte, 1) != 1;
}

static void *foreign_thread(void *argument) {
    foreign *self = (foreign *)argument;
    int silent[2];
    prepare_thread();
    if (pipe(silent)) {
        die("pipe");
    }
    while (self->done.calls < self->calls) {
        self->done.interrupted += poll_is_cut(silent[0]);
        self->done.interrupted += nanosleep_is_cut();
        self->done.interrupted += read_is_cut(self->pipe_read);
        self->done.calls += 3;
    }
    close(silent[0]);
    close(silent[1]);
    return NULL;
}

/* Feeds the pipe, so slowly that the reader nearly always waits. */
static void *feeder_thread(void *argument) {
    int pipe_write = *(int *)argument;
    sigset_t broken;
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken, NULL);
    prctl(PR_SET_TIMERSLACK, 1ul);
    while (write(pipe_write, "x", 1) == 1) {
        const struct timespec pause = {0, 10000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static counts run_foreign(uint64_t calls) {
    int ends[2];
    pthread_t feeder;
    pthread_t caller;
    foreign self = {calls, 0, {0, 0, 0}};
    if (pipe(ends)) {
        die("pipe");
    }
    self.pipe_read = ends[0];
    if (pthread_create(&feeder, NULL, feeder_thread, &ends[1]) ||
        pthread_create(&caller, NULL, foreign_thread, &self)) {
        die("pthread_create");
    }
    pthread_join(caller, NULL);
    close(ends[0]);
    pthread_join(feeder, NULL);
    close(ends[1]);
    return self.done;
}

/* A thread that is in Python for a moment, again and again. */

typedef struct hostile {
    PyObject *function;
    uint64_t ticks;
    counts done;
} hostile;

static void *hostile_thread(void *argument) {
    hostile *self = (hostile *)argument;
    const struct timespec pause = {0, 50000};
    PyGILState_STATE outer = PyGILState_Ensure();
    const uint64_t end = stats_now().ticks + self->ticks;
    PyThreadState *mine;
    prepare_thread();
    /* The figures cost a lock: they are asked for now and then. */
    while (self->done.calls % 64 || stats_now().ticks < end) {
        uint64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        PyObject *result = PyObject_CallFunction(self->function, "i", 1);
        if (!result) {
            die("the call failed");
        }
        Py_DECREF(result);
        self->done.python_ns += clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
        mine = PyEval_SaveThread();
        self->done.calls++;
        self->done.interrupted += ppoll(NULL, 0, &pause, NULL) < 0;
        PyEval_RestoreThread(mine);
    }
    PyGILState_Release(outer);
    return NULL;
}

static counts run_hostile(PyObject *function, uint64_t ticks) {
    pthread_t thread;
    hostile self = {function, ticks, {0, 0, 0}};
    if (pthread_create(&thread, NULL, hostile_thread, &self)) {
        die("pthread_create");
    }
    pthread_join(thread, NULL);
    return self.done;
}

static void run(const char *code) {
    if (PyRun_SimpleString(code)) {
        die(code);
    }
}

static PyObject *global(const char *name) {
    return PyDict_GetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), name);
}

static void report(counts done) {
    pyprof_stats stats = stats_now();
    printf("{\"calls\": %" PRIu64 ", \"interrupted\": %" PRIu64 ", \"python_ns\": %" PRIu64 ", \"ticks\": %" PRIu64
           ", \"samples\": %" PRIu64 ", \"signals\": %" PRIu64 ", \"signalled\": %" PRIu64 ", \"lost_late\": %" PRIu64
           ", \"calls_interrupted\": %" PRIu64 "}\n",
           done.calls, done.interrupted, done.python_ns, stats.ticks, stats.samples, stats.signals,
           stats.samples_signalled, stats.lost_late, stats.calls_interrupted);
}

static counts measure(bool is_foreign, uint64_t amount) {
    PyObject *function = global("some");
    PyThreadState *mine = PyEval_SaveThread();
    counts done = is_foreign ? run_foreign(amount) : run_hostile(function, amount);
    PyEval_RestoreThread(mine);
    return done;
}

int main(int argc, char **argv) {
    counts done;
    pyprof_desc desc = {0};
    char start[32] = "start(0)";
    bool is_foreign;
    int option;

    desc.interval_us = 1000;
    while ((option = getopt(argc, argv, "qci:t:")) != -1) {
        if (option == 'q') {
            desc.capture = PYPROF_CAPTURE_QUIET;
        } else if (option == 'c') {
            is_control = true;
        } else if (option == 'i') {
            desc.interval_us = (uint32_t)strtoul(optarg, NULL, 10);
        } else if (option == 't') {
            snprintf(start, sizeof start, "start(%u)", (unsigned)strtoul(optarg, NULL, 10));
        } else {
            return 2;
        }
    }
    if (argc - optind != 2 || (strcmp(argv[optind], "foreign") && strcmp(argv[optind], "hostile"))) {
        die("foreign CALLS or hostile TICKS");
    }
    is_foreign = !strcmp(argv[optind], "foreign");
    mask_control(SIG_BLOCK);
    Py_Initialize();
    run(BUSY_SCRIPT);
    if (is_control) {
        start_control();
    } else if (pyprof_start(&desc) != PYPROF_OK) {
        die("pyprof_start");
    }
    run(start);
    done = measure(is_foreign, strtoull(argv[optind + 1], NULL, 10));
    run("end()");
    if (!is_control && pyprof_stop(NULL) != PYPROF_OK) {
        die("pyprof_stop");
    }
    report(done);
    return Py_FinalizeEx() < 0 ? 1 : 0;
}
