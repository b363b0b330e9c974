/* A host that runs one script under the profiler: publish_host OUT SCRIPT [ARGS...]
   One recording, written twice: OUT.collapsed for pyprof-svg, OUT.speedscope.json for speedscope. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <Python.h>
#include <stdio.h>

static bool start_python(int argc, char **argv) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    PyStatus status = PyConfig_SetBytesArgv(&config, argc, argv);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        fprintf(stderr, "publish_host: Python does not start: %s\n", status.err_msg);
    return !PyStatus_Exception(status);
}

static bool run_script(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return false;
    }
    return PyRun_SimpleFileEx(file, path, 1) == 0;
}

static bool check(pyprof_result result, const char *what) {
    if (result != PYPROF_OK)
        fprintf(stderr, "publish_host: %s: %s\n", what, pyprof_result_string(result));
    return result == PYPROF_OK;
}

static bool save(const pyprof_profile *profile, const char *out, const char *ending) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s%s", out, ending) >= (int)sizeof path) {
        fprintf(stderr, "publish_host: the path is too long: %s%s\n", out, ending);
        return false;
    }
    return check(pyprof_save(profile, NULL, path), path);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: publish_host OUT SCRIPT [ARGS...]\n");
        return 2;
    }
    pyprof_desc desc = {.interval_us = 2000};
    pyprof_profile *profile = NULL;
    if (!start_python(argc - 2, argv + 2))
        return 1;
    bool ok = check(pyprof_start(&desc), "start") && run_script(argv[2]);
    ok = check(pyprof_stop(&profile), "stop") && ok;
    Py_Finalize();
    ok = ok && save(profile, argv[1], ".collapsed") && save(profile, argv[1], ".speedscope.json");
    pyprof_free(profile);
    return ok ? 0 : 1;
}
