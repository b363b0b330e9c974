/* python with pyprof inside: takes the command line of python, and has a module pyprof_bench with start(interval_us),
   stop(), which answers the figures, and save(path, samples_path), which writes what was recorded last. */

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

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
    (void)self;
    if (!PyArg_ParseTuple(arguments, "I", &interval)) {
        return NULL;
    }
    desc.interval_us = interval;
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
                         (unsigned long long)stats.ticks_missed, "bytes_peak",
                         (unsigned long long)stats.bytes_peak, "sampler_cpu_ns",
                         (unsigned long long)stats.sampler_cpu_ns);
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

static PyMethodDef bench_methods[] = {
    {"start", bench_start, METH_VARARGS, "Begins to record, every so many microseconds."},
    {"stop", bench_stop, METH_NOARGS, "Ends the recording and answers its figures."},
    {"save", bench_save, METH_VARARGS, "Writes the last recording: its times, its samples."},
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
