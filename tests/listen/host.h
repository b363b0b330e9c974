/* What the programs of these tests can do beside the profiler: called by their scripts, by name (ctypes). */
#ifndef LISTEN_HOST_H
#define LISTEN_HOST_H

/* Other peers would have to be waited for as long as users are. */
#define PYPROF__SILENCE_NS UINT64_C(1000000000)
#define PYPROF__ANSWER_NS UINT64_C(8000000000)
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <sys/wait.h>

int host_start(unsigned interval_us, const char *output_path, int children, unsigned memory_mib);
int host_save_samples(const char *path);
int host_hold(const char *path);
int host_fork_bare(void);

/* output_path: "" = none. */
int host_start(unsigned interval_us, const char *output_path, int children, unsigned memory_mib) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = interval_us;
    desc.output_path = output_path[0] != '\0' ? output_path : NULL;
    desc.children = (pyprof_children)children;
    desc.memory_limit = (size_t)memory_mib << 20;
    return pyprof_start(&desc);
}

/* What was recorded so far, as samples, idle ones included. */
int host_save_samples(const char *path) {
    pyprof_output output;
    pyprof_profile *profile;
    memset(&output, 0, sizeof output);
    output.metric = PYPROF_METRIC_SAMPLES;
    output.include_idle = true;
    pyprof_result result = pyprof_snapshot(&profile);
    if (result == PYPROF_OK) {
        result = pyprof_save(profile, &output, path);
        pyprof_free(profile);
    }
    return result;
}

/* Waits until somebody writes to a named pipe. Called by ctypes.PyDLL: with the GIL. */
int host_hold(const char *path) {
    int pipe = open(path, O_RDONLY | O_CLOEXEC);
    if (pipe >= 0) {
        close(pipe);
    }
    return pipe >= 0;
}

/* A child that no fork handler hears of: it listens anew, and ends with the result. */
int host_fork_bare(void) {
    int status = -1;
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        _exit(pyprof_listen(NULL) == PYPROF_OK && pyprof_unlisten() == PYPROF_OK ? 7 : 1);
    }
    waitpid(child, &status, 0);
    return status;
}

#endif
