/* What the hosts of these tests share. What is not as it should be ends them with 2 and a text. */
#ifndef HOST_H
#define HOST_H

#include "pyprof.h"

#include <Python.h>

#include <stdio.h>
#include <stdlib.h>

static inline void die(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(2);
}

static inline void check(const char *what, pyprof_result result) {
    if (result != PYPROF_OK) {
        fprintf(stderr, "%s: %s\n", what, pyprof_result_string(result));
        exit(2);
    }
}

static inline void run(const char *code) {
    if (PyRun_SimpleString(code)) {
        die(code);
    }
}

static inline pyprof_profile *stop(void) {
    pyprof_profile *profile = NULL;
    check("stop", pyprof_stop(&profile));
    return profile;
}

static inline bool print_data(void *user, const void *data, size_t size) {
    (void)user;
    return fwrite(data, 1, size, stdout) == size;
}

/* All samples as collapsed text. */
static inline void print(pyprof_profile *profile) {
    pyprof_output output = {0};
    output.metric = PYPROF_METRIC_SAMPLES;
    output.include_idle = true;
    check("write", pyprof_write(profile, &output, print_data, NULL));
    pyprof_free(profile);
}

#endif
