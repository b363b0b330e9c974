/* Interpreters that begin and end while the profiler runs.

   before       started before Py_Initialize, stopped after the script
   after        started after it, stopped after Py_Finalize
   daemons      Py_Finalize while daemon threads are busy
   visitors     host threads that enter and leave Python as fast as they can, each time as a new thread state
   subs         sub-interpreters that begin, run a script and end
   host-thread  started and stopped by a thread that Python never sees

   Prints the samples as collapsed text, and to stderr how many ticks the sampler came too late for. */

#define _GNU_SOURCE
#include "pyprof.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "host.h"

#define WORK_SCRIPT                                                                                                    \
    "import time\n"                                                                                                    \
    "def leaf(x): return x & 255\n"                                                                                    \
    "def work(seconds):\n"                                                                                             \
    "    end = time.monotonic() + seconds\n"                                                                           \
    "    while time.monotonic() < end:\n"                                                                              \
    "        for n in range(100): leaf(n)\n"

static volatile sig_atomic_t has_ended; /* or is about to: the interpreter that daemon threads are in */

static void start(void) {
    pyprof_desc desc = {0};
    desc.interval_us = 500;
    check("start", pyprof_start(&desc));
}

/* Works until so many samples were taken: a busy machine may stand still for longer than a test would take. */
static void work_until_sampled(uint64_t count) {
    pyprof_stats stats;
    uint64_t enough;
    unsigned turn = 0;
    check("stats", pyprof_get_stats(&stats));
    enough = stats.samples + count;
    do {
        run("work(0.02)\n");
        check("stats", pyprof_get_stats(&stats));
    } while (stats.samples < enough && ++turn < 1000);
}

static void started_before(void) {
    start();
    Py_Initialize();
    run(WORK_SCRIPT);
    work_until_sampled(800);
    print(stop());
    Py_FinalizeEx();
}

static void stopped_after(void) {
    Py_Initialize();
    start();
    run(WORK_SCRIPT);
    work_until_sampled(800);
    Py_FinalizeEx();
    print(stop());
}

/* A daemon thread that waits for the GIL of an interpreter that is gone crashes in up to 3.11: take_gil (Python/ceval_gil.h)
   looks whether to end before it waits, and clears a flag of the interpreter afterwards. With the code here left out, so did
   135 of 200 runs on 3.10.13. Such a thread is kept here, as CPython would have it end; all other faults are faults. */
static void on_fault(int number, siginfo_t *info, void *context) {
    const ucontext_t *at = (const ucontext_t *)context;
    Dl_info fault, python, own;
#if defined(__x86_64__)
    void *code = (void *)(uintptr_t)at->uc_mcontext.gregs[REG_RIP];
#else
    void *code = (void *)(uintptr_t)at->uc_mcontext.pc;
#endif
    (void)info;
    if (dladdr(code, &fault) != 0 && dladdr((void *)(uintptr_t)&Py_FinalizeEx, &python) != 0 &&
        dladdr((const void *)&has_ended, &own) != 0 && has_ended && fault.dli_fbase == python.dli_fbase &&
        fault.dli_fbase != own.dli_fbase && syscall(SYS_gettid) != getpid()) {
        for (;;) {
            pause();
        }
    }
    signal(number, SIG_DFL);
}

static void daemons(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, NULL);
    Py_Initialize();
    start();
    run(WORK_SCRIPT "import threading\n"
                    "for n in range(3): threading.Thread(target=work, args=(60,), daemon=True).start()\n");
    work_until_sampled(3200);
    has_ended = 1;
    Py_FinalizeEx();
    print(stop());
}

/* Most visits are over before they can be seen; one in ten is long enough for a sample or two. Where each takes several
   times as long, a fifth of them still gives tens of times as many samples as are wanted. */
static void *visit(void *function) {
#if defined(Py_DEBUG) || defined(Py_GIL_DISABLED)
    const unsigned visits = 2000;
#else
    const unsigned visits = 10000;
#endif
    unsigned turn;
    for (turn = 0; turn < visits; turn++) {
        PyGILState_STATE outer = PyGILState_Ensure();
        PyObject *result = PyObject_CallFunction((PyObject *)function, "i", turn % 10 ? 20 : 5000);
        if (!result) {
            die("the call failed");
        }
        Py_DECREF(result);
        PyGILState_Release(outer);
    }
    return NULL;
}

static void visitors(void) {
    pthread_t threads[6];
    PyThreadState *mine;
    PyObject *function;
    size_t index;
    pyprof_desc desc = {0};
    Py_Initialize();
    run(WORK_SCRIPT "def visit(turns):\n"
                    "    for n in range(turns): leaf(n)\n");
    function = PyDict_GetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "visit");
    desc.interval_us = 100;
    check("start", pyprof_start(&desc));
    run("work(0.1)\n");
    mine = PyEval_SaveThread();
    for (index = 0; index < sizeof threads / sizeof threads[0]; index++) {
        pthread_create(&threads[index], NULL, visit, function);
    }
    for (index = 0; index < sizeof threads / sizeof threads[0]; index++) {
        pthread_join(threads[index], NULL);
    }
    PyEval_RestoreThread(mine);
    print(stop());
    Py_FinalizeEx();
}

static void subs(void) {
    unsigned turn;
    PyThreadState *outer;
    Py_Initialize();
    outer = PyThreadState_Get();
    start();
    for (turn = 0; turn < 60; turn++) {
        PyThreadState *inner = Py_NewInterpreter();
        if (!inner) {
            die("Py_NewInterpreter");
        }
        run(WORK_SCRIPT);
        work_until_sampled(30);
        Py_EndInterpreter(inner);
        PyThreadState_Swap(outer);
    }
    print(stop());
    Py_FinalizeEx();
}

static void *start_in_thread(void *unused) {
    start();
    return unused;
}

static void *stop_in_thread(void *unused) {
    (void)unused;
    return stop();
}

static void host_thread(void) {
    pthread_t thread;
    void *profile;
    Py_Initialize();
    pthread_create(&thread, NULL, start_in_thread, NULL);
    pthread_join(thread, NULL);
    run(WORK_SCRIPT);
    work_until_sampled(800);
    pthread_create(&thread, NULL, stop_in_thread, NULL);
    pthread_join(thread, &profile);
    print((pyprof_profile *)profile);
    Py_FinalizeEx();
}

int main(int argc, char **argv) {
    const struct {
        const char *name;
        void (*function)(void);
    } kinds[] = {{"before", started_before}, {"after", stopped_after}, {"daemons", daemons},
                 {"visitors", visitors},     {"subs", subs},           {"host-thread", host_thread}};
    size_t index;
    for (index = 0; argc == 2 && index < sizeof kinds / sizeof kinds[0]; index++) {
        if (!strcmp(argv[1], kinds[index].name)) {
            pyprof_stats stats;
            kinds[index].function();
            check("stats", pyprof_get_stats(&stats));
            fprintf(stderr, "%llu", (unsigned long long)stats.ticks_missed);
            return 0;
        }
    }
    die("which kind?");
    return 2;
}
