/* Clocks that a test drives: those that it has set stand still until it advances them, all others are the system's. Every
   test that includes it does so before pyprof.h, which then reads its clocks here. What waits (a futex, a sleep) waits by the
   system's clock all the same. */
#ifndef CLOCK_H
#define CLOCK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define PYPROF__CLOCK_GETTIME unit_clock_gettime

enum {
    unit_clocks_max = 4
};

typedef struct unit_clock {
    clockid_t id;
    uint64_t ns;
} unit_clock;

static unit_clock unit_clocks[unit_clocks_max];
static size_t unit_clocks_count;

static inline unit_clock *unit_clock_of(clockid_t id) {
    for (size_t i = 0; i < unit_clocks_count; i++) {
        if (unit_clocks[i].id == id) {
            return &unit_clocks[i];
        }
    }
    return NULL;
}

static inline int unit_clock_gettime(clockid_t id, struct timespec *time) {
    const unit_clock *clock = unit_clock_of(id);
    if (clock == NULL) {
        return clock_gettime(id, time);
    }
    time->tv_sec = (time_t)(clock->ns / 1000000000u);
    time->tv_nsec = (long)(clock->ns % 1000000000u);
    return 0;
}

/* From now on this clock shows that. */
static inline void unit_set_clock(clockid_t id, uint64_t ns) {
    unit_clock *clock = unit_clock_of(id);
    if (clock == NULL) {
        if (unit_clocks_count == unit_clocks_max) {
            abort();
        }
        clock = &unit_clocks[unit_clocks_count++];
        clock->id = id;
    }
    clock->ns = ns;
}

/* Of a clock that was set. */
static inline void unit_advance_clock(clockid_t id, uint64_t ns) {
    unit_clock *clock = unit_clock_of(id);
    if (clock == NULL) {
        abort();
    }
    clock->ns += ns;
}

/* A teardown: all clocks are the system's again. */
static inline int unit_release_clocks(void **state) {
    (void)state;
    unit_clocks_count = 0;
    return 0;
}

#endif
