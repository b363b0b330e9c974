/* Gives the sampler real-time priority where that is allowed. One that gets no core while the program runs sees only
   what the program does when it waits, and on a machine that is busy with other things this is all that a test of
   times would measure. */
#ifndef PREFER_H
#define PREFER_H

#include <dirent.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The last of the cores that it may use. */
static inline void move_to_the_last_core(pid_t tid) {
    cpu_set_t set;
    size_t last = CPU_SETSIZE - 1;
    if (sched_getaffinity(tid, sizeof set, &set)) {
        return;
    }
    while (last > 0 && !CPU_ISSET(last, &set)) {
        last--;
    }
    CPU_ZERO(&set);
    CPU_SET(last, &set);
    (void)sched_setaffinity(tid, sizeof set, &set);
}

/* The calling thread, and those that it makes, come before all that have no real-time priority, where that is allowed. So
   the sampler and one thread have a core each, as on a machine that does nothing else. */
static inline void come_first(void) {
    const struct sched_param second = {.sched_priority = 1};
    (void)sched_setscheduler(0, SCHED_FIFO, &second);
}

/* The sampler is found by its name, which is part of the interface. is_apart: and keeps it on one core. */
static inline void prefer_sampler(bool is_apart) {
    const struct sched_param first = {.sched_priority = 2};
    const struct dirent *entry;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks && (entry = readdir(tasks)) != NULL) {
        char path[300];
        char name[16] = "";
        FILE *file;
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        file = fopen(path, "r");
        if (file && fgets(name, sizeof name, file) && !strcmp(name, "pyprof\n")) {
            pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
            (void)sched_setscheduler(tid, SCHED_FIFO, &first);
            if (is_apart) {
                move_to_the_last_core(tid);
            }
        }
        if (file) {
            fclose(file);
        }
    }
    if (tasks) {
        closedir(tasks);
    }
}

#endif
