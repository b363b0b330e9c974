/* python with pyprof inside: takes the command line of python, and has a module pyprof_bench with
   start(interval_us, held=False), stop(), which answers the figures, and save(path, samples_path), which writes what was
   recorded last. For comparison, start_signals(interval_us) and stop_signals() send the calling thread signals that do nothing. */

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static pyprof_profile *last;

static PyObject *answer(pyprof_result result) {
    if (result != PYPROF_OK) {
        return PyErr_Format(PyExc_RuntimeError, "%s (%d)", pyprof_result_string(result), (int)result);
    }
    Py_RETURN_NONE;
}

static PyObject *bench_start(PyObject *self, PyObject *arguments) {
    pyprof_desc desc = {0};
    unsigned interval;
    int is_held = 0;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "I|p", &interval, &is_held)) {
        return NULL;
    }
    desc.interval_us = interval;
    desc.capture = is_held ? PYPROF_CAPTURE_HELD : PYPROF_CAPTURE_DEFAULT;
    return answer(pyprof_start(&desc));
}

static PyObject *bench_stop(PyObject *self, PyObject *unused) {
    pyprof_stats stats;
    pyprof_result result;
    (void)self;
    (void)unused;
    pyprof_free(last);
    last = NULL;
    result = pyprof_stop(&last);
    if (result == PYPROF_OK) {
        result = pyprof_get_stats(&stats);
    }
    if (result != PYPROF_OK) {
        return answer(result);
    }
    return Py_BuildValue("{sK sK sK sK sK sK}", "samples", (unsigned long long)stats.samples, "lost",
                         (unsigned long long)(stats.lost_late + stats.lost_pending + stats.lost_unsettled +
                                              stats.lost_unreadable + stats.lost_memory),
                         "partial", (unsigned long long)stats.samples_partial, "ticks_missed",
                         (unsigned long long)stats.ticks_missed, "bytes_peak", (unsigned long long)stats.bytes_peak,
                         "sampler_cpu_ns", (unsigned long long)stats.sampler_cpu_ns);
}

static PyObject *bench_save(PyObject *self, PyObject *arguments) {
    const pyprof_output times = {.format = PYPROF_FORMAT_COLLAPSED, .include_idle = true};
    const pyprof_output samples = {
        .format = PYPROF_FORMAT_COLLAPSED, .metric = PYPROF_METRIC_SAMPLES, .include_idle = true};
    const char *times_path;
    const char *samples_path;
    pyprof_result result;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "ss", &times_path, &samples_path)) {
        return NULL;
    }
    result = pyprof_save(last, &times, times_path);
    if (result == PYPROF_OK) {
        result = pyprof_save(last, &samples, samples_path);
    }
    return answer(result);
}

/* Bare signals: a thread that wakes at a random moment of each interval and sends one, as pyprof does, and no more. */

static struct {
    pthread_t thread;
    pid_t target;
    uint64_t interval_ns;
    struct sigaction before;
    int must_stop;
} signals;

static void ignore(int number) {
    (void)number;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t moment) {
    struct timespec until;
    until.tv_sec = (time_t)(moment / 1000000000u);
    until.tv_nsec = (long)(moment % 1000000000u);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

static void *send_signals(void *unused) {
    uint64_t random = 88172645463325252u; /* xorshift64: Marsaglia, Xorshift RNGs, 2003 */
    uint64_t begin = now_ns();
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    for (; !__atomic_load_n(&signals.must_stop, __ATOMIC_RELAXED); begin += signals.interval_ns) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        sleep_until(begin + random % signals.interval_ns);
        if (now_ns() > begin + 2 * signals.interval_ns) {
            begin = now_ns(); /* what a stall has missed is not made up for */
        }
        syscall(SYS_tgkill, getpid(), signals.target, SIGPROF);
    }
    return unused;
}

static PyObject *bench_start_signals(PyObject *self, PyObject *arguments) {
    struct sigaction action = {0};
    unsigned interval;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "I", &interval)) {
        return NULL;
    }
    action.sa_handler = ignore;
    action.sa_flags = SA_RESTART;
    signals.interval_ns = interval * (uint64_t)1000;
    signals.target = (pid_t)syscall(SYS_gettid);
    signals.must_stop = 0;
    if (sigaction(SIGPROF, &action, &signals.before) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    errno = pthread_create(&signals.thread, NULL, send_signals, NULL);
    if (errno != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        sigaction(SIGPROF, &signals.before, NULL);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *bench_stop_signals(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    __atomic_store_n(&signals.must_stop, 1, __ATOMIC_RELAXED);
    pthread_join(signals.thread, NULL);
    sigaction(SIGPROF, &signals.before, NULL);
    Py_RETURN_NONE;
}

static PyMethodDef bench_methods[] = {
    {"start", bench_start, METH_VARARGS, "Begins to record, every so many microseconds."},
    {"stop", bench_stop, METH_NOARGS, "Ends the recording and answers its figures."},
    {"save", bench_save, METH_VARARGS, "Writes the last recording: its times, its samples."},
    {"start_signals", bench_start_signals, METH_VARARGS, "Begins to send signals, every so many microseconds."},
    {"stop_signals", bench_stop_signals, METH_NOARGS, "Ends that."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef bench_module = {
    PyModuleDef_HEAD_INIT, "pyprof_bench", NULL, -1, bench_methods, NULL, NULL, NULL, NULL};

static PyObject *make_bench_module(void) {
    return PyModule_Create(&bench_module);
}

int main(int argc, char **argv) {
    int status;
    if (PyImport_AppendInittab("pyprof_bench", make_bench_module) < 0) {
        return 1;
    }
    status = Py_BytesMain(argc, argv);
    pyprof_free(last);
    return status;
}
