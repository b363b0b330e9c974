/* What brings the profiler into a host that nobody here wrote: loaded by ctypes from the host's own Python. It is not
   linked with libpython; the host has that. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

int record(int interval_us);
int save(const char *path);

/* Records from here on; 0 = success. */
int record(int interval_us) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = (uint32_t)interval_us;
    return (int)pyprof_start(&desc);
}

/* Ends the recording and writes it, with what waits; 0 = success. */
int save(const char *path) {
    pyprof_profile *profile = NULL;
    pyprof_output output;
    memset(&output, 0, sizeof output);
    output.include_idle = true;
    pyprof_result result = pyprof_stop(&profile);
    if (result == PYPROF_OK) {
        result = pyprof_save(profile, &output, path);
    }
    pyprof_free(profile);
    return (int)result;
}
