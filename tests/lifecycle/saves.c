/* A host that records a script as it is told: what is saved where, by whom, and under which names.

   saves CHILDREN AUTOSAVE_S OUTPUT_PATH SCRIPT [ARG]...

   An output path that is empty is none. The script finds a module "host": samples(), is_active(), stop() and
   name_thread(TEXT or None), which return what the functions of pyprof.h do, as numbers, and reload(COUNT, CODE), which
   runs code in so many interpreters named "script", one after the other. Whoever does not stop, saves nothing. */

#include "pyprof.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdio.h>
#include <stdlib.h>

static PyObject *samples(PyObject *module, PyObject *unused) {
    pyprof_stats stats;
    (void)module;
    (void)unused;
    return PyLong_FromLongLong(pyprof_get_stats(&stats) == PYPROF_OK ? (long long)stats.samples : -1);
}

static PyObject *is_active(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return PyBool_FromLong(pyprof_is_active());
}

static PyObject *stop(PyObject *module, PyObject *unused) {
    pyprof_result result;
    (void)module;
    (void)unused;
    Py_BEGIN_ALLOW_THREADS;
    result = pyprof_stop(NULL);
    Py_END_ALLOW_THREADS;
    return PyLong_FromLong(result);
}

static PyObject *name_thread(PyObject *module, PyObject *name) {
    (void)module;
    return PyLong_FromLong(pyprof_name_thread(name == Py_None ? NULL : PyUnicode_AsUTF8(name)));
}

static PyObject *reload(PyObject *module, PyObject *arguments) {
    int count = 0;
    const char *code = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "is", &count, &code)) {
        return NULL;
    }
    PyThreadState *own = PyThreadState_Get();
    for (; count > 0; count--) {
        PyThreadState *script = Py_NewInterpreter();
        if (script == NULL) {
            abort();
        }
        int64_t id = PyInterpreterState_GetID(script->interp);
        if (pyprof_name_interpreter(id, "script") != PYPROF_OK || PyRun_SimpleString(code) != 0) {
            abort();
        }
        if (count % 2 == 0) { /* one host takes the names away again, another one does not */
            pyprof_name_interpreter(id, NULL);
        }
        Py_EndInterpreter(script);
        PyThreadState_Swap(own);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"samples", samples, METH_NOARGS, NULL}, {"is_active", is_active, METH_NOARGS, NULL},
                                {"stop", stop, METH_NOARGS, NULL},       {"name_thread", name_thread, METH_O, NULL},
                                {"reload", reload, METH_VARARGS, NULL},  {NULL, NULL, 0, NULL}};

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

static void log_to_stderr(pyprof_log_level level, const char *message, void *user) {
    (void)level;
    (void)user;
    fprintf(stderr, "%s\n", message);
}

int main(int count, char **arguments) {
    pyprof_desc desc;
    if (count < 5) {
        return 2;
    }
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 1000;
    desc.children = (pyprof_children)atoi(arguments[1]);
    desc.autosave_s = (uint32_t)atoi(arguments[2]);
    desc.output_path = arguments[3][0] != '\0' ? arguments[3] : NULL;
    desc.logger.log_fn = log_to_stderr;
    PyImport_AppendInittab("host", make_module);
    Py_Initialize();
    FILE *script = fopen(arguments[4], "r");
    if (script == NULL || pyprof_start(&desc) != PYPROF_OK) {
        return 3;
    }
    arguments[3][0] = '\0'; /* was copied */
    int failed = PyRun_SimpleFileExFlags(script, arguments[4], 1, NULL);
    Py_Finalize();
    return failed != 0;
}
