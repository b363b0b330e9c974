/* Births and deaths by the thousand, sampled at 10 kHz: nothing may crash, hang, be lost or grow.

   threads        10,000 threads, Python's own and the host's, with small stacks and small alternate signal stacks
   subs           1,000 sub-interpreters, in several threads at once, with a GIL each where there is such
   again-inside   100 interpreters with a recording each, which ends before its interpreter or after it
   again-outside  100 interpreters in one recording
   forks          500 children: of os.fork and of the C library's fork, with Python and without, some of which make
                  a recording of their own, and some of which call exec while they do

   Of the first two and the last there is a fifth where each takes several times as long.

   Prints the figures as a line of JSON, then the samples as collapsed text. A second argument, "bare", leaves the
   profiler out: what then still fails is not its fault. */

#include "pyprof.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host.h"
#include "process.h"

enum {
#if defined(__SANITIZE_ADDRESS__) || defined(Py_GIL_DISABLED)
    part = 5,
#else
    part = 1,
#endif
    threads_count = 10000 / part,
    subs_count = 1000 / part,
    forks_count = 500 / part,
    small_stack = 64 << 10,
    wave_size = 20,
    subs_threads = 4
};

static const char work_script[] = "def leaf(x): return x & 255\n"
                                  "def inner(x): return leaf(x) + leaf(x + 1)\n"
                                  "def work(turns):\n"
                                  "    for n in range(turns): inner(n)\n";

static bool is_bare;
static counted_memory memory = {0};
static unsigned made;       /* of what the kind makes many */
static uint64_t bytes_warm; /* held when a fifth of them was made */

/* The recording. Its signal has a handler of the host's, which must stay whole through everything. */

static int host_signal;
static volatile sig_atomic_t host_signals;

static void on_host_signal(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)info;
    (void)context;
    host_signals = host_signals + 1;
}

static void install_host_handler(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_host_signal;
    action.sa_flags = SA_SIGINFO;
    host_signal = SIGRTMIN + 4;
    sigaction(host_signal, &action, NULL);
}

static bool host_handler_works(void) {
    struct sigaction now;
    sig_atomic_t before = host_signals;
    sigaction(host_signal, NULL, &now);
    raise(host_signal);
    return now.sa_sigaction == on_host_signal && host_signals == before + 1;
}

static pyprof_result try_start(int number) {
    pyprof_desc desc = counted_desc(&memory, 100);
    desc.signal_number = number;
    desc.memory_limit = (size_t)256 << 20; /* what grows is looked at, not what the limit leaves out */

    return pyprof_start(&desc);
}

static void start(void) {
    if (!is_bare) {
        memory.peak_bytes = memory.bytes; /* of those before no figures are left */
        check("start", try_start(host_signal));
    }
}

static pyprof_stats stats_now(void) {
    pyprof_stats stats;
    memset(&stats, 0, sizeof stats);
    if (!is_bare) {
        check("stats", pyprof_get_stats(&stats));
    }
    return stats;
}

static void count_one(unsigned of) {
    if (__atomic_add_fetch(&made, 1, __ATOMIC_RELAXED) == of / 5) {
        bytes_warm = stats_now().bytes;
    }
}

static void print_figure(const char *name, uint64_t value) {
    printf("\"%s\": %" PRIu64 ", ", name, value);
}

static void print_figures(const pyprof_stats *stats) {
    printf("{");
    print_figure("made", made);
    print_figure("bytes_warm", bytes_warm);
    print_figure("ticks", stats->ticks);
    print_figure("ticks_missed", stats->ticks_missed);
    print_figure("samples", stats->samples);
    print_figure("samples_idle", stats->samples_idle);
    print_figure("samples_signalled", stats->samples_signalled);
    print_figure("samples_partial", stats->samples_partial);
    print_figure("lost_late", stats->lost_late);
    print_figure("lost_pending", stats->lost_pending);
    print_figure("lost_unsettled", stats->lost_unsettled);
    print_figure("lost_unreadable", stats->lost_unreadable);
    print_figure("lost_memory", stats->lost_memory);
    print_figure("truncated_memory", stats->truncated_memory);
    print_figure("frames_unresolved", stats->frames_unresolved);
    print_figure("timeline_coarsened", stats->timeline_coarsened);
    print_figure("threads", stats->threads);
    print_figure("bytes", stats->bytes);
    printf("\"bytes_peak\": %" PRIu64 "}\n", stats->bytes_peak);
}

/* The end of the last recording. */
static void stop_and_print(void) {
    pyprof_stats stats;
    pyprof_profile *profile;
    if (is_bare) {
        return;
    }
    profile = stop();
    stats = stats_now();
    if (memory.peak_bytes > stats.bytes_peak) {
        die("the recording held more than it says");
    }
    print_figures(&stats);
    print(profile);
}

/* Threads. */

/* A stack for signals alone that ends at a page that is not there. */
typedef struct signal_stack {
    char *pages;
    size_t size; /* of the pages, the one that is not there included */
    stack_t own;
    stack_t previous;
} signal_stack;

static unsigned signal_stacks_used;

/* What the kernel puts there, and 1 KiB for the handler; without optimization it takes 8. */
static size_t smallest_signal_stack(void) {
    size_t frame = (size_t)getauxval(AT_MINSIGSTKSZ);
    if (!frame) {
        frame = (size_t)MINSIGSTKSZ;
    }
#if defined(__OPTIMIZE__)
    return frame + (IS_SANITIZED ? 64 << 10 : 1 << 10);
#else
    return frame + (IS_SANITIZED ? 64 << 10 : 8 << 10);
#endif
}

static void begin_signal_stack(signal_stack *stack) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    memset(stack, 0, sizeof *stack);
    stack->own.ss_size = smallest_signal_stack();
    stack->size = page + (stack->own.ss_size + page - 1) / page * page;
    stack->pages = (char *)mmap(NULL, stack->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack->pages == MAP_FAILED || mprotect(stack->pages, page, PROT_NONE)) {
        die("no memory for a signal stack");
    }
    stack->own.ss_sp = stack->pages + page;
    if (sigaltstack(&stack->own, &stack->previous)) {
        die("sigaltstack");
    }
}

static void end_signal_stack(signal_stack *stack) {
    const char *bytes = (const char *)stack->own.ss_sp;
    size_t index = 0;
    sigaltstack(&stack->previous, NULL);
    while (index < stack->own.ss_size && !bytes[index]) {
        index++;
    }
    if (index < stack->own.ss_size) {
        __atomic_add_fetch(&signal_stacks_used, 1, __ATOMIC_RELAXED);
    }
    munmap(stack->pages, stack->size);
}

static PyObject *work_function(void) {
    return PyDict_GetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "work");
}

static void work_as_host(void) {
    PyGILState_STATE outer = PyGILState_Ensure();
    PyObject *result = PyObject_CallFunction(work_function(), "i", 8000);
    if (!result) {
        die("work failed");
    }
    Py_DECREF(result);
    PyGILState_Release(outer);
}

static void *visit(void *unused) {
    work_as_host();
    return unused;
}

static void *visit_with_signal_stack(void *unused) {
    signal_stack stack;
    begin_signal_stack(&stack);
    work_as_host();
    end_signal_stack(&stack);
    return unused;
}

static void host_wave(void) {
    pthread_t threads[wave_size];
    pthread_attr_t attributes;
    int index;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, small_stack);
    for (index = 0; index < wave_size; index++) {
        if (pthread_create(&threads[index], &attributes, index % 2 ? visit : visit_with_signal_stack, NULL)) {
            die("pthread_create");
        }
    }
    for (index = 0; index < wave_size; index++) {
        pthread_join(threads[index], NULL);
    }
    pthread_attr_destroy(&attributes);
}

static void threads(void) {
    const unsigned waves = threads_count / (2 * wave_size);
    unsigned turn;
    Py_InitializeEx(0);
    run(work_script);
    run("import threading\n"
        "threading.stack_size(128 << 10)\n"
        "def begin_wave(size):\n"
        "    global wave\n"
        "    wave = [threading.Thread(target=work, args=(8000,), name='Python') for _ in range(size)]\n"
        "    for thread in wave: thread.start()\n"
        "def end_wave():\n"
        "    for thread in wave: thread.join()\n");
    start();
    for (turn = 0; turn < waves; turn++) {
        PyThreadState *mine;
        run("begin_wave(20)\n");
        mine = PyEval_SaveThread();
        host_wave();
        PyEval_RestoreThread(mine);
        run("end_wave()\n");
        count_one(waves);
    }
    made *= 2 * wave_size;
    stop_and_print();
    Py_FinalizeEx();
    if (!is_bare && signal_stacks_used == 0) {
        die("no signal came to an alternate stack");
    }
}

/* Sub-interpreters. */

/* NULL: CPython could not make it. */
static PyThreadState *try_new_interpreter(void) {
#if PY_VERSION_HEX >= 0x030c0000
    PyThreadState *inner = NULL;
    PyInterpreterConfig config;
    memset(&config, 0, sizeof config);
    config.allow_threads = 1;
    config.check_multi_interp_extensions = 1;
    config.gil = PyInterpreterConfig_OWN_GIL;
    return PyStatus_Exception(Py_NewInterpreterFromConfig(&inner, &config)) ? NULL : inner;
#else
    return Py_NewInterpreter();
#endif
}

/* Free-threaded, one in some twenty thousand "failed to import encodings module" where several are made at once, as it
   does without a profiler (CPython's issue 125716): only there it is asked again, and each time is told. */
static PyThreadState *new_interpreter(void) {
#ifdef Py_GIL_DISABLED
    const unsigned allowed = 5;
#else
    const unsigned allowed = 0;
#endif
    static unsigned failures;
    for (;;) {
        PyThreadState *inner = try_new_interpreter();
        if (inner != NULL) {
            return inner;
        }
        fprintf(stderr, "stress: CPython made no new interpreter\n");
        if (__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED) > allowed) {
            die("no new interpreter");
        }
    }
}

static void *make_interpreters(void *number) {
    const unsigned *count = (const unsigned *)number;
    PyThreadState *outer = PyThreadState_New(PyInterpreterState_Main());
    unsigned turn;
    PyEval_RestoreThread(outer);
    for (turn = 0; turn < *count; turn++) {
        PyThreadState *inner = new_interpreter();
        run(work_script);
        run("work(3000)\n");
        Py_EndInterpreter(inner);
        PyThreadState_Swap(outer);
        count_one(subs_count);
    }
    PyThreadState_Clear(outer);
    PyThreadState_DeleteCurrent();
    return NULL;
}

static void subs(void) {
    pthread_t makers[subs_threads];
    unsigned count = subs_count / subs_threads;
    PyThreadState *mine;
    int index;
    Py_InitializeEx(0);
    run("import sys\n"
        "sys.setswitchinterval(0.001)\n"); /* or the time is spent in waiting for the GIL */
    start();
    mine = PyEval_SaveThread();
    for (index = 0; index < subs_threads; index++) {
        pthread_create(&makers[index], NULL, make_interpreters, &count);
    }
    for (index = 0; index < subs_threads; index++) {
        pthread_join(makers[index], NULL);
    }
    PyEval_RestoreThread(mine);
    stop_and_print();
    Py_FinalizeEx();
}

/* Interpreters, one after the other. */

/* Works until a recording has seen it, however late its sampler gets a core. */
static bool is_seen_at_work(void) {
    const time_t latest = time(NULL) + 60;
    while (stats_now().samples < 20 && time(NULL) < latest) {
        run("work(2000)\n");
    }
    return stats_now().samples >= 20;
}

static void live_once(void) {
    run(work_script);
    run("import threading\n"
        "thread = threading.Thread(target=work, args=(20000,))\n"
        "thread.start()\n"
        "work(20000)\n"
        "thread.join()\n");
}

static void finalize(void) {
    if (Py_FinalizeEx() < 0) {
        die("Py_FinalizeEx");
    }
}

static void stop_and_forget(void) {
    if (!is_bare) {
        pyprof_free(stop());
    }
    if (memory.blocks) {
        die("a recording did not give its memory back");
    }
}

static void again_inside(void) {
    const unsigned count = 100;
    unsigned turn;
    for (turn = 1; turn <= count; turn++) {
        Py_InitializeEx(0);
        start();
        live_once();
        if (!is_bare && !is_seen_at_work()) {
            die("a recording is empty");
        }
        if (turn % 2) {
            stop_and_forget();
        }
        finalize();
        if (turn % 2 == 0 && turn < count) {
            stop_and_forget();
        }
        count_one(count);
    }
    stop_and_print();
}

static void again_outside(void) {
    const unsigned count = 100;
    unsigned turn;
    start();
    for (turn = 0; turn < count; turn++) {
        Py_InitializeEx(0);
        live_once();
        finalize();
        count_one(count);
    }
    stop_and_print();
}

/* Forks. */

/* What may be wrong with a child: its exit code. */
enum {
    FINE,
    IS_ACTIVE,
    HAS_THREADS,
    ACTION_NOT_BACK,
    MEMORY_NOT_INTACT,
    NO_START,
    NO_SAMPLES,
    NO_STOP,
    MEMORY_NOT_BACK,
    NO_EXEC,
    FAULTS
};

static const char *const faults[FAULTS] = {
    [FINE] = "nothing",
    [IS_ACTIVE] = "it believes that it records",
    [HAS_THREADS] = "it has other threads",
    [ACTION_NOT_BACK] = "the signal's action is not the host's",
    [MEMORY_NOT_INTACT] = "memory is not intact",
    [NO_START] = "it could not start a recording",
    [NO_SAMPLES] = "its recording saw nothing",
    [NO_STOP] = "its recording did not stop",
    [MEMORY_NOT_BACK] = "memory of its own recording, or of its parent's, was not given back",
    [NO_EXEC] = "exec failed",
};

static bool memory_is_intact(void) {
    bool is_intact = true;
    size_t size;
    for (size = 16; size <= 1 << 20; size *= 2) {
        char *block = (char *)malloc(size);
        is_intact = is_intact && block;
        if (block) {
            memset(block, 1, size);
            free(block);
        }
    }
    return is_intact;
}

/* A child's own recording; where Python is not to be used there is nothing for it to see. */
static int record_in_child(bool has_python) {
    pyprof_profile *profile = NULL;
    if (try_start(host_signal) != PYPROF_OK) {
        return NO_START;
    }
    if (has_python && !is_seen_at_work()) {
        return NO_SAMPLES;
    }
    if (pyprof_stop(&profile) != PYPROF_OK || !profile || pyprof_is_active()) {
        return NO_STOP;
    }
    pyprof_free(profile);
    return memory.blocks ? MEMORY_NOT_BACK : FINE; /* its parent's recording, of which it had a copy, included */
}

/* With the signal that is taken when none is named: one that is still on its way does no harm to what comes after. */
static int exec_in_child(void) {
    if (!is_bare && try_start(0) != PYPROF_OK) {
        return NO_START;
    }
    execl("/bin/true", "true", (char *)NULL);
    return NO_EXEC;
}

/* What is wrong with this child, as an index of faults. */
static int fault_of_child(unsigned turn, bool has_python) {
    alarm(120); /* one that hangs shall die, and be seen */
    if (pyprof_is_active()) {
        return IS_ACTIVE;
    }
    if (count_entries("/proc/self/task") != 3) {
        return HAS_THREADS;
    }
    if (!host_handler_works()) {
        return ACTION_NOT_BACK;
    }
    if (!memory_is_intact()) {
        return MEMORY_NOT_INTACT;
    }
    if (turn / 4 % 10 == 0 && !is_bare) {
        return record_in_child(has_python);
    }
    return turn / 4 % 10 == 5 ? exec_in_child() : FINE;
}

static PyObject *fault_of_python_child(PyObject *self, PyObject *turn) {
    (void)self;
    return PyLong_FromLong(fault_of_child((unsigned)PyLong_AsUnsignedLong(turn), true));
}

static int wait_for(pid_t child) {
    int status = -1;
    Py_BEGIN_ALLOW_THREADS;
    waitpid(child, &status, 0);
    Py_END_ALLOW_THREADS;
    return status;
}

static int fork_in_python(const char *function, unsigned turn) {
    PyObject *namespace = PyModule_GetDict(PyImport_AddModule("__main__"));
    PyObject *status = PyObject_CallFunction(PyDict_GetItemString(namespace, function), "I", turn);
    int value;
    if (!status) {
        PyErr_Print();
        die("os.fork failed");
    }
    value = (int)PyLong_AsLong(status);
    Py_DECREF(status);
    return value;
}

static int fork_in_c(unsigned turn) {
    pid_t child;
    PyOS_BeforeFork();
    child = fork();
    if (child == 0) {
        PyOS_AfterFork_Child();
        _exit(fault_of_child(turn, true));
    }
    PyOS_AfterFork_Parent();
    return wait_for(child);
}

static int fork_without_python(unsigned turn) {
    pid_t child;
    PyThreadState *mine = PyEval_SaveThread();
    child = fork();
    if (child == 0) {
        _exit(fault_of_child(turn, false));
    }
    PyEval_RestoreThread(mine);
    return wait_for(child);
}

/* A joined thread may still be about to end. AddressSanitizer's lock that it then holds stays locked in a child for ever
   (gcc 12's, without us: 9 of 3,000 children hung when they began a thread of their own). */
static void wait_for_ended_threads(int threads) {
    const time_t latest = time(NULL) + 60;
    while (count_entries("/proc/self/task") > threads) {
        if (time(NULL) > latest) {
            die("a thread does not end");
        }
        usleep(100);
    }
}

static int fork_once(unsigned turn) {
    switch (turn % 4) {
    case 0:
        return fork_in_python("fork_here", turn);
    case 1:
        return fork_in_python("fork_in_thread", turn);
    case 2:
        return fork_in_c(turn);
    default:
        return fork_without_python(turn);
    }
}

static void check_child(unsigned turn, int status) {
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : FAULTS;
    if (status) {
        fprintf(stderr, "child %u, of kind %u, ended with status %#x: %s\n", turn, turn % 4, (unsigned)status,
                code < FAULTS ? faults[code] : "it did not end by itself");
        exit(2);
    }
}

static void begin_forks(void) {
    static PyMethodDef method = {"fault_of_child", fault_of_python_child, METH_O, NULL};
    PyObject *function = PyCFunction_New(&method, NULL);
    PyDict_SetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "fault_of_child", function);
    Py_DECREF(function);
    run("import os, sys, threading, warnings\n"
        "sys.setswitchinterval(0.001)\n"                        /* or the time is spent in waiting for the GIL */
        "warnings.simplefilter('ignore', DeprecationWarning)\n" /* of forks beside threads, since 3.12 */
        "def fork_here(turn):\n"
        "    child = os.fork()\n"
        "    if not child: os._exit(fault_of_child(turn))\n"
        "    return os.waitpid(child, 0)[1]\n"
        "def fork_in_thread(turn):\n"
        "    status = []\n"
        "    thread = threading.Thread(target=lambda: status.append(fork_here(turn)), name='forks')\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    return status[0]\n"
        "is_over = False\n"
        "def busy():\n"
        "    while not is_over: work(100)\n"
        "threads = [threading.Thread(target=busy, name='busy') for _ in range(3)]\n"
        "for thread in threads: thread.start()\n");
}

static void forks(void) {
    const unsigned count = forks_count;
    unsigned turn;
    int threads;
    Py_InitializeEx(0);
    run(work_script);
    begin_forks();
    start();
    threads = count_entries("/proc/self/task");
    for (turn = 0; turn < count; turn++) {
        wait_for_ended_threads(threads);
        check_child(turn, fork_once(turn));
        count_one(count);
    }
    stop_and_print();
    run("is_over = True\n"
        "for thread in threads: thread.join()\n");
    Py_FinalizeEx();
}

int main(int argc, char **argv) {
    const struct {
        const char *name;
        void (*function)(void);
    } kinds[] = {{"threads", threads},
                 {"subs", subs},
                 {"again-inside", again_inside},
                 {"again-outside", again_outside},
                 {"forks", forks}};
    process before;
    const char *difference;
    size_t index = 0;
    while (index < sizeof kinds / sizeof *kinds && (argc < 2 || strcmp(argv[1], kinds[index].name))) {
        index++;
    }
    if (index == sizeof kinds / sizeof *kinds) {
        die("which kind?");
    }
    is_bare = argc > 2 && !strcmp(argv[2], "bare");
    install_host_handler();
    Py_InitializeEx(0); /* what Python opens once and for all is open from here on */
    Py_FinalizeEx();
    before = look();
    kinds[index].function();
    difference = difference_to(&before);
    if (difference) {
        die(difference);
    }
    if (memory.blocks || memory.bytes) {
        die("not all memory was given back");
    }
    if (!host_handler_works()) {
        die("the host's handler was not put back");
    }
    return 0;
}
