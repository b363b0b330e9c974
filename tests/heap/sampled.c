/* See preload.c. Environment: PYPROF_HEAP_BYTES, the sampling_bytes; PYPROF_HEAP_REPORT, a file to which each process that
   ends by exit adds a line: its samples, those that live, are free and were replaced, and stacks that could not be read. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <fcntl.h>

static char report_path[4096];

static void report(void) {
    pyprof_heap_stats stats;
    pyprof_profile *profile;
    char line[160];
    if (pyprof_heap_get_stats(&stats) != PYPROF_OK || pyprof_heap_snapshot(&profile) != PYPROF_OK) {
        return;
    }
    pyprof_free(profile);
    int size = snprintf(line, sizeof line, "%llu %llu %llu %llu %llu\n", (unsigned long long)stats.samples,
                        (unsigned long long)stats.samples_live, (unsigned long long)stats.samples_freed,
                        (unsigned long long)stats.samples_replaced, (unsigned long long)stats.lost_unreadable);
    int file = open(report_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (file >= 0) {
        ssize_t written = write(file, line, (size_t)size);
        (void)written;
        close(file);
    }
}

__attribute__((visibility("default"))) void heap_sampled_begin(void);

void heap_sampled_begin(void) {
    pyprof_heap_desc desc;
    const char *bytes = getenv("PYPROF_HEAP_BYTES"), *path = getenv("PYPROF_HEAP_REPORT");
    memset(&desc, 0, sizeof desc);
    desc.sampling_bytes = bytes != NULL ? (size_t)atol(bytes) : 0;
    if (path != NULL && strlen(path) < sizeof report_path && pyprof_heap_start(&desc) == PYPROF_OK) {
        strcpy(report_path, path);
        atexit(report);
    }
}
