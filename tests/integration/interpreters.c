/* One OS thread in several interpreters: a module of this host, `host`, lets Python code of one interpreter run code in
   another one. Records interpreters.py at 2 kHz and prints what came out as collapsed text, by samples.

   interpreters SCRIPT [own]    own: each sub-interpreter has a GIL of its own (CPython 3.12 and later)
   interpreters jobs            one sub-interpreter after the other, each with a name, all likely at the same address
   interpreters swaps           in a sub-interpreter and back again, every few microseconds, in two ways by turns; by
                                time, with what was measured as two stacks of a thread `measured`: `there`, `here`
   interpreters nest            ten sub-interpreters, each called by the one before it
   interpreters lent            a thread uses the thread state of sub-interpreter 1 that another one has made, which is
                                busy in the main interpreter; `lent-own`: with a GIL of its own
   interpreters handed          the main thread hands its thread state to another thread and waits; `handed-busy`: and
                                computes without Python. The first with what was measured, as for swaps: `one`, `two` */

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* cpu_set_t */
#endif
#include "pyprof.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../common/prefer.h"

enum {
    subs_max = 3,
    nested_max = 11
};

static PyThreadState *subs[nested_max];
static int depth;            /* the number of the one that descend() was called in */
static PyObject *visited[2]; /* functions of sub-interpreter 1 */
static int64_t ns_there, ns_here;
static pyprof_metric metric = PYPROF_METRIC_SAMPLES;

static void die(const char *what) {
    fprintf(stderr, "interpreters: %s\n", what);
    exit(2);
}

static void check(pyprof_result result) {
    if (result != PYPROF_OK) {
        die(pyprof_result_string(result));
    }
}

static void run_in(int number, const char *code) {
    PyThreadState *before = PyThreadState_Swap(subs[number]);
    int failed = PyRun_SimpleString(code);
    PyThreadState_Swap(before);
    if (failed) {
        die("a script failed");
    }
}

/* enter(N, CODE): runs code in sub-interpreter N, in this thread. */
static PyObject *enter(PyObject *module, PyObject *arguments) {
    int number = 0;
    const char *code = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "is", &number, &code)) {
        return NULL;
    }
    run_in(number, code);
    Py_RETURN_NONE;
}

/* descend(): goes on in the next sub-interpreter; the last one computes. */
static PyObject *descend(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    depth++;
    run_in(depth, depth + 1 < nested_max ? "import host\n"
                                           "def inside(): host.descend()\n"
                                           "inside()\n"
                                         : "import host\n"
                                           "def bottom():\n"
                                           "    end = host.samples() + 500\n"
                                           "    while host.samples() < end: pass\n"
                                           "bottom()\n");
    depth--;
    Py_RETURN_NONE;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void call_measured(PyObject *function, int64_t *ns) {
    int64_t begin = now_ns();
    PyObject *result = PyObject_CallFunction(function, NULL);
    *ns += now_ns() - begin;
    if (result == NULL) {
        die("a call failed");
    }
    Py_DECREF(result);
}

/* visit(NUMBER): calls a function of sub-interpreter 1 there. */
static PyObject *visit(PyObject *module, PyObject *number) {
    (void)module;
    PyThreadState *before = PyThreadState_Swap(subs[1]);
    call_measured(visited[PyLong_AsLong(number)], &ns_there);
    PyThreadState_Swap(before);
    Py_RETURN_NONE;
}

/* stay(FUNCTION): calls it. */
static PyObject *stay(PyObject *module, PyObject *function) {
    (void)module;
    call_measured(function, &ns_here);
    Py_RETURN_NONE;
}

/* samples(): how many were taken so far. */
static PyObject *samples(PyObject *module, PyObject *unused) {
    pyprof_stats stats;
    (void)module;
    (void)unused;
    check(pyprof_get_stats(&stats));
    return PyLong_FromUnsignedLongLong(stats.samples);
}

static PyMethodDef methods[] = {{"samples", samples, METH_NOARGS, NULL},
                                {"enter", enter, METH_VARARGS, NULL},
                                {"descend", descend, METH_NOARGS, NULL},
                                {"visit", visit, METH_O, NULL},
                                {"stay", stay, METH_O, NULL},
                                {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "host", NULL, 0, methods, slots, NULL, NULL, NULL};

static PyObject *make_module(void) {
    return PyModuleDef_Init(&definition);
}

static PyThreadState *new_interpreter(int own_gil) {
#if PY_VERSION_HEX >= 0x030c0000
    if (own_gil) {
        PyThreadState *tstate = NULL;
        PyInterpreterConfig config = {0, 0, 0, 1, 0, 1, PyInterpreterConfig_OWN_GIL};
        return PyStatus_Exception(Py_NewInterpreterFromConfig(&tstate, &config)) ? NULL : tstate;
    }
#endif
    (void)own_gil;
    return Py_NewInterpreter();
}

static void make_subs(PyThreadState *main_state, int count, int own_gil) {
    subs[0] = main_state;
    for (int i = 1; i < count; i++) {
        subs[i] = new_interpreter(own_gil);
        if (subs[i] == NULL) {
            die("no sub-interpreter");
        }
        PyThreadState_Swap(main_state);
    }
}

static void end_subs(PyThreadState *main_state, int count) {
    for (int i = 1; i < count; i++) {
        PyThreadState_Swap(subs[i]);
        Py_EndInterpreter(subs[i]);
    }
    PyThreadState_Swap(main_state);
}

/* A thread of the host that Python meets in a sub-interpreter only. */
static void *live_in_the_last(void *unused) {
    (void)unused;
    PyThreadState *mine = PyThreadState_New(subs[subs_max - 1]->interp);
    PyEval_RestoreThread(mine);
    if (PyRun_SimpleString("import host\n"
                           "def resident():\n"
                           "    end = host.samples() + 1000\n" /* a second thread waits for it */
                           "    while host.samples() < end: pass\n"
                           "resident()\n")) {
        die("the resident failed");
    }
    PyThreadState_Clear(mine);
    PyThreadState_DeleteCurrent();
    return NULL;
}

static char *read_file(const char *path) {
    static char text[65536];
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        die("no script");
    }
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static bool print_data(void *user, const void *data, size_t size) {
    (void)user;
    return fwrite(data, 1, size, stdout) == size;
}

static void start(void) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 500;
    check(pyprof_start(&desc));
    prefer_sampler(false);
}

static void stop_and_print(void) {
    pyprof_output output;
    pyprof_profile *profile = NULL;
    memset(&output, 0, sizeof output);
    output.metric = metric;
    output.include_idle = true;
    check(pyprof_stop(&profile));
    check(pyprof_write(profile, &output, print_data, NULL));
    pyprof_free(profile);
}

static void run_jobs(PyThreadState *main_state) {
    char text[256], name[16];
    for (int i = 1; i <= 6; i++) {
        PyThreadState *job = new_interpreter(0);
        if (job == NULL) {
            die("no sub-interpreter");
        }
        snprintf(name, sizeof name, "job%d", i);
        check(pyprof_name_interpreter(PyInterpreterState_GetID(job->interp), name));
        snprintf(text, sizeof text,
                 "import host\n"
                 "def %s():\n"
                 "    end = host.samples() + 200\n"
                 "    while host.samples() < end: pass\n"
                 "%s()\n",
                 name, name);
        if (PyRun_SimpleString(text)) {
            die("a job failed");
        }
        Py_EndInterpreter(job);
        PyThreadState_Swap(main_state);
    }
}

static void run_swaps(PyThreadState *main_state) {
    metric = PYPROF_METRIC_WALL;
    subs[1] = new_interpreter(0);
    if (subs[1] == NULL || PyRun_SimpleString("def leaf(): pass\n"
                                              "def one():\n"
                                              "    for _ in range(20): leaf()\n"
                                              "def two():\n"
                                              "    for _ in range(20): leaf()\n")) {
        die("no sub-interpreter");
    }
    visited[0] = PyObject_GetAttrString(PyImport_AddModule("__main__"), "one");
    visited[1] = PyObject_GetAttrString(PyImport_AddModule("__main__"), "two");
    PyThreadState_Swap(main_state);
    if (PyRun_SimpleString("import host, time\n"
                           "def goes_to_one(): host.visit(0)\n"
                           "def goes_to_two(): host.visit(1)\n"
                           "def leaf(): pass\n"
                           "def here():\n"
                           "    for _ in range(20): leaf()\n"
                           "end = time.monotonic() + 3\n"
                           "while time.monotonic() < end:\n"
                           "    goes_to_one()\n"
                           "    host.stay(here)\n"
                           "    goes_to_two()\n")) {
        die("the script failed");
    }
    printf("measured;there %lld\nmeasured;here %lld\n", (long long)ns_there / 1000, (long long)ns_here / 1000);
    PyThreadState_Swap(subs[1]);
    Py_DECREF(visited[0]);
    Py_DECREF(visited[1]);
    Py_EndInterpreter(subs[1]);
    PyThreadState_Swap(main_state);
}

static void run_nested(PyThreadState *main_state) {
    make_subs(main_state, nested_max, 0);
    if (PyRun_SimpleString("import host\n"
                           "host.descend()\n")) {
        die("the script failed");
    }
    end_subs(main_state, nested_max);
}

typedef struct loan {
    PyThreadState *tstate;
    const char *script;
    int is_over;
} loan;

static void *use(void *argument) {
    loan *self = (loan *)argument;
    PyEval_RestoreThread(self->tstate);
    if (PyRun_SimpleString(self->script)) {
        die("the script failed");
    }
    PyEval_SaveThread();
    __atomic_store_n(&self->is_over, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* By turns deep, for the memory of frames to come and go, and as it is easily seen. Whose a thread state is shows by what
   its threads do: the first moments, of their own time, have names of their own. */
static const char lent_script[] = "import host, time\n"
                                  "def down(n): return n and down(n - 1)\n"
                                  "def leaf(): pass\n"
                                  "def work():\n"
                                  "    for _ in range(20): down(900)\n"
                                  "    for _ in range(50000): leaf()\n"
                                  "def lent_at_first():\n"
                                  "    while time.thread_time() < 0.2: work()\n"
                                  "def lent():\n"
                                  "    end = host.samples() + 4000\n"
                                  "    while host.samples() < end: work()\n"
                                  "lent_at_first()\n"
                                  "lent()\n";

static void lend(PyThreadState *main_state, int own_gil) {
    pthread_t thread;
    loan given = {NULL, lent_script, 0};
    make_subs(main_state, 2, own_gil);
    given.tstate = subs[1];
    if (pthread_create(&thread, NULL, use, &given) != 0) {
        die("no thread");
    }
    if (PyRun_SimpleString("import host, time\n"
                           "def leaf(): pass\n"
                           "def lends_at_first():\n"
                           "    end = time.thread_time() + 0.2\n"
                           "    while time.thread_time() < end:\n"
                           "        for _ in range(100): leaf()\n"
                           "def lends():\n"
                           "    end = host.samples() + 4000\n"
                           "    while host.samples() < end:\n"
                           "        for _ in range(100): leaf()\n"
                           "lends_at_first()\n"
                           "lends()\n")) {
        die("the script failed");
    }
    PyEval_SaveThread();
    pthread_join(thread, NULL);
    PyEval_RestoreThread(main_state);
    end_subs(main_state, 2);
}

static void run_lent(PyThreadState *main_state) {
    lend(main_state, 0);
}

static void run_lent_own(PyThreadState *main_state) {
    lend(main_state, 1);
}

/* Each call lasts longer than any look at it. */
static const char handed_script[] = "import time\n"
                                    "measured = {}\n"
                                    "def leaf(): pass\n"
                                    "def spend(seconds):\n"
                                    "    end = time.monotonic() + seconds\n"
                                    "    while time.monotonic() < end: leaf()\n"
                                    "def one(): spend(0.01)\n"
                                    "def two(): spend(0.03)\n"
                                    "for function in (one, two) * 50:\n"
                                    "    begin = time.monotonic()\n"
                                    "    function()\n"
                                    "    spent = time.monotonic() - begin\n"
                                    "    name = function.__name__\n"
                                    "    measured[name] = measured.get(name, 0) + spent\n"
                                    "for name in measured:\n"
                                    "    print('measured;%s %d' % (name, measured[name] * 1e6), flush=True)\n";

static void hand(PyThreadState *main_state, bool is_busy) {
    pthread_t thread;
    loan given = {main_state, is_busy ? lent_script : handed_script, 0};
    PyEval_SaveThread();
    if (pthread_create(&thread, NULL, use, &given) != 0) {
        die("no thread");
    }
    while (is_busy && !__atomic_load_n(&given.is_over, __ATOMIC_ACQUIRE)) {
    }
    pthread_join(thread, NULL);
    PyEval_RestoreThread(main_state);
}

static void run_handed(PyThreadState *main_state) {
    metric = PYPROF_METRIC_WALL;
    hand(main_state, false);
}

static void run_handed_busy(PyThreadState *main_state) {
    hand(main_state, true);
}

/* Those that need no script. */
static void (*mode_named(const char *name))(PyThreadState *) {
    static const struct {
        const char *name;
        void (*run)(PyThreadState *);
    } modes[] = {{"jobs", run_jobs},
                 {"swaps", run_swaps},
                 {"nest", run_nested},
                 {"lent", run_lent},
                 {"lent-own", run_lent_own},
                 {"handed", run_handed},
                 {"handed-busy", run_handed_busy}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(name, modes[i].name) == 0) {
            return modes[i].run;
        }
    }
    return NULL;
}

int main(int count, char **arguments) {
    pthread_t thread;
    if (count < 2) {
        die("which script?");
    }
    PyImport_AppendInittab("host", make_module);
    Py_Initialize();
    PyThreadState *main_state = PyThreadState_Get();
    if (PyRun_SimpleString("import host")) { /* before the recording, which is to show the scripts alone */
        die("no module host");
    }
    void (*run)(PyThreadState *) = mode_named(arguments[1]);
    if (run != NULL) {
        start();
        run(main_state);
        stop_and_print();
        Py_Finalize();
        return 0;
    }
    make_subs(main_state, subs_max, count > 2);
    check(pyprof_name_interpreter(2, "physics"));
    start();
    if (PyRun_SimpleString(read_file(arguments[1]))) {
        die("the script failed");
    }
    PyEval_SaveThread();
    if (pthread_create(&thread, NULL, live_in_the_last, NULL) != 0) {
        die("no thread");
    }
    pthread_join(thread, NULL);
    PyEval_RestoreThread(main_state);
    stop_and_print();
    end_subs(main_state, subs_max);
    Py_Finalize();
    return 0;
}
