/* What the manual says of each call, each for itself: from where it may be called, and what the program sees of it. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../unit/possible.h"
#include "process.h"

#define MIB ((size_t)1 << 20)

static const char busy_script[] =
    "import random, time\n"
    "def even(depth, path): return depth and (odd if path & 1 else even)(depth - 1, path >> 1)\n"
    "def odd(depth, path): return depth and (odd if path & 1 else even)(depth - 1, path >> 1)\n"
    "def many_stacks(turns):\n"
    "    for n in range(turns): even(60, random.getrandbits(60))\n"
    "def many_functions(turns):\n"
    "    for n in range(turns):\n"
    "        names, number = {}, random.getrandbits(60)\n"
    "        exec(compile('def f_%d_%s(): sum(range(3000))' % (number, 'y' * 99), '/%s/%d' % ('z' * 99, "
    "number), 'exec'), names)\n"
    "        for name in list(names):\n"
    "            if name[:2] == 'f_': names[name]()\n";

static void run(const char *code) {
    assert_int_equal(PyRun_SimpleString(code), 0);
}

static pyprof_stats stats_now(void) {
    pyprof_stats stats;
    assert_int_equal(pyprof_get_stats(&stats), PYPROF_OK);
    return stats;
}

static text_sink written(const pyprof_profile *profile, pyprof_format format) {
    text_sink to = {0};
    pyprof_output output = {0};
    output.format = format;
    output.include_idle = true;
    assert_int_equal(text_sink_write(&to, "", 0), true);
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &to), PYPROF_OK);
    return to;
}

static void start_at(uint32_t interval_us) {
    pyprof_desc desc = {0};
    desc.interval_us = interval_us;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
}

static void wait_for_ticks(uint64_t count) {
    uint64_t enough = stats_now().ticks + count;
    unsigned turn;
    for (turn = 0; turn < 12000 && stats_now().ticks < enough; turn++) {
        pause_ms(5);
    }
    assert_true(stats_now().ticks >= enough);
}

/* From where: each function, once, as it may be called anywhere. NULL = all went well. */

static const char *fault_of_all_calls(void) {
    pyprof_profile *profile = NULL;
    pyprof_profile *copy = NULL;
    pyprof_stats stats;
    const pyprof_visitor nobody = {NULL, NULL, NULL};
    size_t size = 0, count = 0;
    if (pyprof_is_active() || pyprof_stop(&profile) != PYPROF_ERROR_NOT_ACTIVE) {
        return "before the start";
    }
    if (pyprof_start(NULL) != PYPROF_OK || !pyprof_is_active()) {
        return "start";
    }
    if (pyprof_name_interpreter(7, "seven") != PYPROF_OK || pyprof_name_interpreter(7, NULL) != PYPROF_OK) {
        return "name_interpreter";
    }
    if (pyprof_get_stats(&stats) != PYPROF_OK || stats.ticks == 0) {
        return "get_stats";
    }
    if (pyprof_dump(count_written, &size) != PYPROF_OK) {
        return "dump";
    }
    if (pyprof_snapshot(&copy) != PYPROF_OK) {
        return "snapshot";
    }
    if (pyprof_stop(&profile) != PYPROF_OK || pyprof_is_active()) {
        return "stop";
    }
    if (pyprof_write(profile, NULL, count_written, &size) != PYPROF_OK ||
        pyprof_save(copy, NULL, "/dev/null") != PYPROF_OK) {
        return "write";
    }
    if (pyprof_visit(copy, NULL, &nobody) != PYPROF_OK) {
        return "visit";
    }
    if (pyprof_top(copy, NULL, NULL, &count) != PYPROF_OK) {
        return "top";
    }
    pyprof_free(copy);
    pyprof_free(profile);
    return pyprof_result_string(PYPROF_OK) == NULL ? "result_string" : NULL;
}

static void assert_all_calls_work(void) {
    const char *fault = fault_of_all_calls();
    if (fault) {
        fail_msg("%s", fault);
    }
}

static void *call_all(void *fault) {
    *(const char **)fault = fault_of_all_calls();
    return NULL;
}

/* In a thread that Python never sees. */
static void assert_all_calls_work_elsewhere(void) {
    const char *fault = "it did not run";
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, call_all, &fault), 0);
    pthread_join(thread, NULL);
    if (fault) {
        fail_msg("%s", fault);
    }
}

/* Must run first, the next ones behind it, and the last of them last. */
static void test_before_python(void **state) {
    (void)state;
    assert_false(Py_IsInitialized());
    assert_all_calls_work();
    assert_all_calls_work_elsewhere();
}

static void test_with_the_gil(void **state) {
    (void)state;
    Py_InitializeEx(0);
    run(busy_script);
    assert_all_calls_work();
    assert_all_calls_work_elsewhere(); /* this one has it, and waits */
}

static void test_without_the_gil(void **state) {
    PyThreadState *mine = PyEval_SaveThread();
    (void)state;
    assert_all_calls_work();
    PyEval_RestoreThread(mine);
}

static void test_after_python(void **state) {
    (void)state;
    assert_int_equal(Py_FinalizeEx(), 0);
    assert_all_calls_work();
    assert_all_calls_work_elsewhere();
}

/* The sampler's thread and the signal. */

/* The threads of that name; of the last one, the signals that it blocks. */
static unsigned threads_named(const char *name, uint64_t *blocked) {
    unsigned count = 0;
    struct dirent *entry;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    while ((entry = readdir(tasks))) {
        char path[300];
        char line[300];
        bool is_it = false;
        FILE *status;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        status = fopen(path, "r");
        while (status && fgets(line, sizeof line, status)) {
            char found[32];
            if (sscanf(line, "Name: %31[^\n]", found) == 1) {
                is_it = !strcmp(found, name);
                count += is_it;
            }
            if (is_it) {
                sscanf(line, "SigBlk: %" SCNx64, blocked);
            }
        }
        if (status) {
            fclose(status);
        }
    }
    closedir(tasks);
    return count;
}

static bool is_all_signals(const sigset_t *set) {
    int number;
    for (number = 1; number <= SIGRTMAX; number++) {
        bool is_libcs = number >= 32 && number < SIGRTMIN;
        if (number != SIGKILL && number != SIGSTOP && !is_libcs && sigismember(set, number) != 1) {
            return false;
        }
    }
    return true;
}

static void test_one_thread_without_signals(void **state) {
    uint64_t blocked = 0;
    sigset_t set;
    int number;
    (void)state;
    assert_int_equal(threads_named("pyprof", &blocked), 0);
    start_at(1000);
    assert_int_equal(threads_named("pyprof", &blocked), 1);
    sigemptyset(&set);
    for (number = 1; number <= SIGRTMAX; number++) {
        if ((blocked >> (number - 1) & 1) && (number < 32 || number >= SIGRTMIN)) {
            sigaddset(&set, number);
        }
    }
    assert_true(is_all_signals(&set));
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    for (number = 0; number < 1000 && threads_named("pyprof", &blocked) > 0; number++) {
        pause_ms(10); /* a thread that was joined leaves /proc a moment later */
    }
    assert_int_equal(threads_named("pyprof", &blocked), 0);
}

static void test_action_of_the_signal(void **state) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS};
    struct sigaction action;
    (void)state;
    start_at(1000);
    assert_int_equal(sigaction(SIGURG, NULL, &action), 0);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_int_equal(action.sa_flags & (SA_SIGINFO | SA_RESTART | SA_ONSTACK | SA_NODEFER),
                     SA_SIGINFO | SA_RESTART | SA_ONSTACK);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        assert_int_equal(sigismember(&action.sa_mask, faults[i]), 0); /* a fault is the host's, wherever it happens */
        sigaddset(&action.sa_mask, faults[i]);
    }
    assert_true(is_all_signals(&action.sa_mask));
    assert_int_equal(sigaction(SIGURG, NULL, &action), 0);
    assert_true(action.sa_handler == SIG_DFL);
}

/* Nobody's signal is one without an action: one that is ignored has one. */
static void test_ignored_signal_is_not_taken(void **state) {
    struct sigaction action;
    (void)state;
    signal(SIGURG, SIG_IGN);
    start_at(1000);
    assert_int_equal(sigaction(SIGURG, NULL, &action), 0);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    signal(SIGURG, SIG_DFL);
    assert_true(action.sa_handler == SIG_IGN);
}

/* Without the C library's fork there are no handlers of forks, and no memory to be had: it only looks. */
static void test_child_of_a_bare_fork(void **state) {
    struct sigaction action;
    int status = -1;
    pid_t child;
    (void)state;
    start_at(1000);
    child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) {
        bool keeps = sigaction(SIGURG, NULL, &action) == 0 && (action.sa_flags & SA_SIGINFO);
        kill((pid_t)syscall(SYS_getpid), SIGURG); /* does no harm */
        _exit(keeps && !pyprof_is_active() ? 0 : 3);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(pyprof_is_active());
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
}

/* The C library was not told of the fork either, and has the parent's id for the thread that is left. */
static void test_recording_after_a_bare_fork(void **state) {
    int status = -1;
    pid_t child;
    (void)state;
    fflush(NULL);
    child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) {
        pyprof_desc desc = {.interval_us = 1000};
        pyprof_stats stats = {0};
        bool is_started = pyprof_start(&desc) == PYPROF_OK;
        while (is_started && pyprof_get_stats(&stats) == PYPROF_OK && stats.ticks < 50) {
            run("many_stacks(100)\n");
        }
        _exit(is_started && stats.samples > 0 && stats.threads == 1 && pyprof_stop(NULL) == PYPROF_OK ? 0 : 3);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* What is recorded. */

static void *hold_the_gil(void *unused) {
    PyGILState_STATE held;
    (void)unused;
    pthread_setname_np(pthread_self(), "frameless");
    held = PyGILState_Ensure();
    wait_for_ticks(50);
    PyGILState_Release(held);
    return NULL;
}

static void test_thread_without_frames(void **state) {
    pyprof_profile *profile = NULL;
    PyThreadState *mine;
    pthread_t thread;
    text_sink collapsed;
    text_sink speedscope;
    (void)state;
    start_at(1000);
    run("many_stacks(1000)\n");
    mine = PyEval_SaveThread();
    assert_int_equal(pthread_create(&thread, NULL, hold_the_gil, NULL), 0);
    pthread_join(thread, NULL);
    PyEval_RestoreThread(mine);
    while (stats_now().samples == 0) {
        run("many_stacks(1000)\n");
    }
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    collapsed = written(profile, PYPROF_FORMAT_COLLAPSED);
    speedscope = written(profile, PYPROF_FORMAT_SPEEDSCOPE);
    assert_non_null(strstr(collapsed.text, "thread MainThread;"));
    assert_null(strstr(collapsed.text, "frameless"));
    assert_non_null(strstr(speedscope.text, "many_stacks"));
    text_sink_free(&collapsed);
    text_sink_free(&speedscope);
    pyprof_free(profile);
}

/* Ticks that gave neither a sample nor a loss, of the only thread. */
static int64_t uncounted(void) {
    pyprof_stats stats = stats_now();
    uint64_t lost =
        stats.lost_late + stats.lost_pending + stats.lost_unsettled + stats.lost_unreadable + stats.lost_memory;
    return (int64_t)(stats.ticks - stats.samples - lost);
}

static PyObject *work(PyObject *self, PyObject *turn) {
    uint64_t enough = stats_now().ticks + 500;
    int64_t before = uncounted();
    (void)self;
    while (stats_now().ticks < enough) {
        PyObject *result = PyObject_CallObject(turn, NULL);
        if (!result) {
            return NULL;
        }
        Py_DECREF(result);
    }
    return PyLong_FromLongLong(uncounted() - before);
}

/* A question that is on its way when the figures are read counts at the next tick. */
static void test_every_tick_is_counted(void **state) {
    static PyMethodDef method = {"work", work, METH_O, NULL};
    PyObject *function = PyCFunction_New(&method, NULL);
    (void)state;
    PyDict_SetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "work", function);
    Py_DECREF(function);
    start_at(500);
    run("import time\n"
        "def busy(): many_stacks(20)\n"
        "def waits(): time.sleep(0.001)\n"
        "def both(): busy(); waits()\n"
        "counts = [work(turn) for turn in (busy, waits, both)]\n"
        "assert all(-1 <= count <= 1 for count in counts), counts\n");
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
}

/* Of two threads that want the GIL, one waits at each tick. */
static void test_waiting_for_the_gil_is_waiting(void **state) {
    pyprof_stats stats;
    (void)state;
#if defined(Py_GIL_DISABLED)
    skip();
#endif
    run("import threading\n"
        "is_over = threading.Event()\n"
        "def other():\n"
        "    while not is_over.is_set(): many_stacks(20)\n"
        "thread = threading.Thread(target=other)\n"
        "thread.start()\n");
    start_at(500);
    run("work(busy)\n");
    stats = stats_now();
    run("is_over.set()\n"
        "thread.join()\n");
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_true(stats.samples_idle > stats.samples / 3); /* more, while it is handed over */
    assert_true(stats.samples_idle < stats.samples);
}

/* Names of interpreters. */

static void test_names_of_interpreters(void **state) {
    char name[100];
    int64_t id;
    (void)state;
    assert_int_equal(pyprof_name_interpreter(-1, "x"), PYPROF_ERROR_ARGUMENT);
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_int_equal(pyprof_name_interpreter(100, name), PYPROF_OK);
    assert_int_equal(strlen(pyprof__name_of(100)->text), 63);
    memcpy(name + 61, "\xe2\x82\xac", 3); /* a character that would have its last byte behind the 63rd */
    assert_int_equal(pyprof_name_interpreter(100, name), PYPROF_OK);
    assert_int_equal(strlen(pyprof__name_of(100)->text), 61);
    for (id = 101; id < 164; id++) {
        assert_int_equal(pyprof_name_interpreter(id, "one of 64"), PYPROF_OK);
    }
    assert_int_equal(pyprof_name_interpreter(164, "one too many"), PYPROF_ERROR_MEMORY);
    assert_int_equal(pyprof_name_interpreter(163, "another name"), PYPROF_OK);
    assert_int_equal(pyprof_name_interpreter(164, "one of 64"), PYPROF_OK); /* a script that was loaded anew */
    assert_null(pyprof__name_of(101));
    assert_int_equal(pyprof_name_interpreter(164, NULL), PYPROF_OK);
    for (id = 100; id < 164; id++) {
        assert_int_equal(pyprof_name_interpreter(id, NULL), PYPROF_OK);
        assert_null(pyprof__name_of(id));
    }
    assert_int_equal(pyprof_name_interpreter(164, "room again"), PYPROF_OK);
    assert_int_equal(pyprof_name_interpreter(164, NULL), PYPROF_OK);
}

/* Memory, and who is told. */

enum {
    message_size = 400
};

typedef struct messages {
    pyprof_log_level levels[10];
    char texts[10][message_size];
    unsigned count;
} messages;

static void keep_message(pyprof_log_level level, const char *message, void *user) {
    messages *kept = (messages *)user;
    unsigned at = kept->count++ % 10;
    kept->levels[at] = level;
    snprintf(kept->texts[at], message_size, "%s", message);
}

static unsigned messages_with(const messages *kept, pyprof_log_level level, const char *part) {
    unsigned found = 0;
    unsigned at;
    assert_true(kept->count <= 10);
    for (at = 0; at < kept->count; at++) {
        assert_null(strchr(kept->texts[at], '\n'));
        found += kept->levels[at] == level && strstr(kept->texts[at], part);
    }
    return found;
}

static void test_failures_are_logged(void **state) {
    pyprof_desc desc = {0};
    static messages kept = {{0}, {{0}}, 0};
    (void)state;
    desc.logger.log_fn = keep_message;
    desc.logger.user = &kept;
    desc.interval_us = 1000;
    desc.output_path = "/dev/full";
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    assert_int_equal(pyprof_start(&desc), PYPROF_ERROR_ALREADY_ACTIVE);
    assert_int_equal(messages_with(&kept, PYPROF_LOG_ERROR, ""), 1);
    assert_int_equal(pyprof_snapshot(NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(messages_with(&kept, PYPROF_LOG_ERROR, "pyprof_snapshot: profile is NULL"), 1);
    assert_int_equal(pyprof_get_stats(NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(messages_with(&kept, PYPROF_LOG_ERROR, "pyprof_get_stats: stats is NULL"), 1);
    assert_int_equal(pyprof_dump(NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(messages_with(&kept, PYPROF_LOG_ERROR, "pyprof_dump: write is NULL"), 1);
    assert_int_equal(pyprof_name_interpreter(-1, "x"), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(messages_with(&kept, PYPROF_LOG_ERROR, "pyprof_name_interpreter: id is -1"), 1);
    pyprof_stats stats = {0};
    while (stats.samples == 0) { /* a file is written of what was sampled */
        run("many_stacks(1000)\n");
        assert_int_equal(pyprof_get_stats(&stats), PYPROF_OK);
    }
    assert_int_equal(pyprof_stop(NULL), PYPROF_ERROR_IO);
    assert_int_equal(messages_with(&kept, PYPROF_LOG_ERROR, ""), 6);
}

/* A logger of a program whose other threads call us, and fork, while it is waited for. */
typedef struct slow_logger {
    pyprof__atomic32 is_called;
    pyprof__atomic32 is_over; /* what the other thread did */
    pyprof__atomic32 waited;  /* until that was over: 1, or in vain: 2 */
} slow_logger;

static void wait_for_another(pyprof_log_level level, const char *message, void *user) {
    slow_logger *logger = (slow_logger *)user;
    unsigned turn;
    (void)level;
    (void)message;
    pyprof__set(&logger->is_called, 1);
    for (turn = 0; turn < 4000 && !pyprof__get(&logger->is_over); turn++) {
        pause_ms(5);
    }
    pyprof__set(&logger->waited, pyprof__get(&logger->is_over) ? 1 : 2);
}

static void *call_while_it_logs(void *argument) {
    slow_logger *logger = (slow_logger *)argument;
    pyprof_profile *copy = NULL;
    pyprof_stats stats;
    while (!pyprof__get(&logger->is_called)) {
        pause_ms(1);
    }
    assert_int_equal(pyprof_snapshot(&copy), PYPROF_OK);
    pyprof_free(copy);
    assert_int_equal(pyprof_get_stats(&stats), PYPROF_OK);
    assert_int_equal(pyprof_name_thread("caller"), PYPROF_OK);
    assert_int_equal(pyprof_name_thread(NULL), PYPROF_OK);
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    pyprof__set(&logger->is_over, 1);
    return NULL;
}

static void test_nobody_waits_for_the_logger(void **state) {
    static slow_logger logger;
    pyprof_desc desc = {0};
    pthread_t caller;
    struct sigaction ignored = {0}, before;
    (void)state;
    desc.logger.log_fn = wait_for_another;
    desc.logger.user = &logger;
    desc.interval_us = 1000;
    assert_int_equal(pthread_create(&caller, NULL, call_while_it_logs, &logger), 0);
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    ignored.sa_handler = SIG_IGN;
    assert_int_equal(sigaction(stats_now().signal_number, &ignored, &before), 0); /* of which the sampler warns */
    while (!pyprof__get(&logger.waited)) {
        run("many_stacks(100)\n");
    }
    pthread_join(caller, NULL);
    assert_int_equal(pyprof__get(&logger.waited), 1);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
}

static void assert_writable(const counted_memory *memory, const pyprof_profile *profile, size_t limit) {
    const pyprof_format formats[] = {PYPROF_FORMAT_COLLAPSED, PYPROF_FORMAT_SPEEDSCOPE, PYPROF_FORMAT_SVG,
                                     PYPROF_FORMAT_PPROF};
    unsigned index;
    for (index = 0; index < 16; index++) {
        pyprof_output output = {0};
        size_t size = 0;
        output.format = formats[index % 4];
        output.detail = index / 4 % 2 ? PYPROF_DETAIL_FUNCTION : PYPROF_DETAIL_LINE;
        output.include_idle = index / 8 != 0;
        assert_int_equal(pyprof_write(profile, &output, count_written, &size), PYPROF_OK);
        assert_true(size > 0);
        assert_true(memory->peak_bytes <= limit);
    }
}

/* Until it has been saved once more: the sampler does that beside what the program does. */
static void wait_for_autosave(const char *path) {
    unsigned turn;
    unlink(path);
    for (turn = 0; turn < 1000 && access(path, F_OK) != 0; turn++) {
        run("time.sleep(0.02)\n");
    }
    assert_int_equal(access(path, F_OK), 0);
}

/* Records until the tree has been full for a while. However full it is, it is saved, and a snapshot of it has room. */
static pyprof_profile *full_profile(counted_memory *memory, size_t limit, messages *kept, const char *work) {
    pyprof_desc desc = counted_desc(memory, 100);
    pyprof_profile *profile = NULL;
    char path[64];
    unsigned turn;
    snprintf(path, sizeof path, "/tmp/pyprof-contract-%ld.txt", (long)getpid());
    desc.memory_limit = limit;
    desc.output_path = path;
    desc.autosave_s = 1;
    desc.logger.log_fn = keep_message;
    desc.logger.user = kept;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    for (turn = 0; turn < 5000 && stats_now().truncated_memory < 100; turn++) {
        run(work);
    }
    assert_true(stats_now().truncated_memory >= 100);
    assert_int_equal(pyprof_snapshot(&profile), PYPROF_OK);
    wait_for_autosave(path);
    pyprof_free(profile);
    for (turn = 0; turn < 3; turn++) {
        assert_int_equal(pyprof_snapshot(&profile), PYPROF_OK);
        assert_writable(memory, profile, limit);
        run(work);
        pyprof_free(profile);
    }
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    unlink(path);
    assert_int_equal(messages_with(kept, PYPROF_LOG_ERROR, ""), 0);
    assert_true(stats_now().bytes_peak <= limit);
    assert_true(memory->peak_bytes <= limit);
    return profile;
}

static void check_full(size_t limit, const char *work) {
    counted_memory memory = {0};
    messages kept = {{0}, {{0}}, 0};
    pyprof_profile *profile = full_profile(&memory, limit, &kept, work);
    size_t held = memory.bytes;
    memory.peak_bytes = held;
    assert_writable(&memory, profile, limit);
    print_message("%s: held %.3f of the limit, writing took %.3f\n", work, (double)held / (double)limit,
                  (double)(memory.peak_bytes - held) / (double)limit);
    assert_int_equal(memory.bytes, held);
    assert_int_equal(messages_with(&kept, PYPROF_LOG_WARNING, "tree was full"), 1);
    pyprof_free(profile);
    assert_int_equal(memory.blocks, 0);
}

/* A program that does nothing special costs little. */
static void test_plain_recording_is_small(void **state) {
    (void)state;
    run("import json, time\n"); /* imports have as many stacks as a machine that is busy lets one see */
    assert_int_equal(pyprof_start(NULL), PYPROF_OK);
    run("end = time.time() + 0.3\n"
        "while time.time() < end: json.loads(json.dumps(list(range(1000))))\n");
    assert_in_range(stats_now().bytes_peak, 1, 256 << 10);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
}

static void test_memory_that_writing_takes(void **state) {
    (void)state;
    check_full(MIB, "many_stacks(200)");
    check_full(2 * MIB, "many_stacks(200)");
    check_full(2 * MIB, "many_functions(50)");
}

/* One profile, several writers. */

typedef struct writer {
    const pyprof_profile *profile;
    pyprof_format format;
    bool is_right;
} writer;

static void *write_often(void *user) {
    writer *self = (writer *)user;
    text_sink first = written(self->profile, self->format);
    unsigned turn;
    self->is_right = first.size > 100;
    for (turn = 0; turn < 50; turn++) {
        text_sink again = written(self->profile, self->format);
        self->is_right = self->is_right && again.size == first.size && !memcmp(again.text, first.text, first.size);
        text_sink_free(&again);
    }
    text_sink_free(&first);
    return NULL;
}

static void test_several_write_one_profile(void **state) {
    writer writers[4];
    pthread_t threads[4];
    pyprof_profile *profile = NULL;
    size_t index;
    (void)state;
    start_at(500);
    while (stats_now().samples < 200) {
        run("many_stacks(1000)\n");
    }
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    for (index = 0; index < 4; index++) {
        writers[index].profile = profile;
        writers[index].format = index == 3  ? PYPROF_FORMAT_PPROF
                                : index % 2 ? PYPROF_FORMAT_SPEEDSCOPE
                                            : PYPROF_FORMAT_COLLAPSED;
        assert_int_equal(pthread_create(&threads[index], NULL, write_often, &writers[index]), 0);
    }
    for (index = 0; index < 4; index++) {
        pthread_join(threads[index], NULL);
        assert_true(writers[index].is_right);
    }
    pyprof_free(profile);
}

static void test_save_through_a_link(void **state) {
    char folder[] = "/tmp/pyprof-contract-XXXXXX";
    char file[64];
    char link[64];
    struct stat status;
    pyprof_profile *profile = NULL;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/file.txt", folder);
    snprintf(link, sizeof link, "%s/link.txt", folder);
    start_at(500);
    while (stats_now().samples < 20) {
        run("many_stacks(100)\n");
    }
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    assert_int_equal(close(open(file, O_WRONLY | O_CREAT, 0640)), 0);
    assert_int_equal(symlink("file.txt", link), 0);
    assert_int_equal(pyprof_save(profile, NULL, link), PYPROF_OK);
    assert_int_equal(lstat(link, &status), 0);
    assert_true(S_ISLNK(status.st_mode));
    assert_int_equal(lstat(file, &status), 0);
    assert_true(S_ISREG(status.st_mode));
    assert_true(status.st_size > 0);
    assert_int_equal(status.st_mode & 0777, 0640); /* as it was */
    assert_int_equal(count_entries(folder), 4);
    unlink(file);
    unlink(link);
    rmdir(folder);
    pyprof_free(profile);
}

/* A test that failed must not fail those behind it. What its recording was given is static: it outlives the test. */
static int after_each(void **state) {
    (void)state;
    pyprof_stop(NULL);
    if (Py_IsInitialized() && !PyGILState_Check()) {
        PyGILState_Ensure();
    }
    return 0;
}

#define TEST(function) cmocka_unit_test_teardown(function, after_each)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_before_python),
        TEST(test_with_the_gil),
        TEST(test_without_the_gil),
        TEST(test_one_thread_without_signals),
        TEST(test_action_of_the_signal),
        TEST(test_ignored_signal_is_not_taken),
        TEST(test_child_of_a_bare_fork),
        TEST(test_recording_after_a_bare_fork),
        TEST(test_thread_without_frames),
        TEST(test_every_tick_is_counted),
        TEST(test_waiting_for_the_gil_is_waiting), /* with a function of the one before */
        TEST(test_names_of_interpreters),
        TEST(test_failures_are_logged),
        TEST(test_nobody_waits_for_the_logger),
        TEST(test_plain_recording_is_small),
        TEST(test_memory_that_writing_takes),
        TEST(test_several_write_one_profile),
        TEST(test_save_through_a_link),
        TEST(test_after_python),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
