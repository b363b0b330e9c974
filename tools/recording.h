/* recording.h: what the parts of the library that records share. For libpyprof.c.
 *
 * Its state, the questions that all of them ask about it, and what they call of each other.
 */
#ifndef RECORDING_H
#define RECORDING_H

#include "../pyprof.h"
#include "handover.h"
#include "wishes.h"

#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    OFF,         /* nothing is to be recorded: every function here is libc's */
    WAITING,     /* for CPython to begin, and else the same */
    RECORDING,   /* until all has been handed over */
    INTERRUPTED, /* nothing is recorded, and it may go on */
    DONE
};

static struct {
    handover_settings settings; /* socket "" = it is not pyprof-run that asks */
    wishes wished;
    pid_t pid; /* a forked child has our memory, but no recording */
    atomic_uint state;
    atomic_ullong cause; /* a handover_cause and its value: who comes first sets it */
    char text[256];      /* what replaces the program, or why it is not recorded any more */
    sem_t wake;          /* the supervisor's */
    atomic_int supervisor_tid;
    atomic_int sampler_tid;
    atomic_bool goes_on; /* after an interruption */
    atomic_bool between; /* one recording ends, or the next begins */
    atomic_uint forks;
    atomic_int ending_signals; /* that came a second and more after the first */
    atomic_ullong first_ending_signal;
    struct timespec begun;    /* the recording that runs, and what those before it have left: */
    pyprof_profile *recorded; /* all that they recorded; NULL = there were none, or nothing */
    pyprof_stats stats;
    double seconds;
    bool failed;          /* pyprof-run could not write it */
    bool was_on;          /* before it was interrupted */
    bool is_child;        /* forked by a process that is recorded */
    pthread_mutex_t lock; /* guards what follows */
    int descriptor;       /* to the writer */
    dev_t device;
    ino_t inode;
} run = {.lock = PTHREAD_MUTEX_INITIALIZER, .descriptor = -1};

/* A child made by vfork shares our memory, and has another id. */
static bool is_recording(void) {
    return run.state == RECORDING && getpid() == run.pid;
}

static bool was_begun(void) {
    return run.state != OFF && run.state != WAITING;
}

/* Whether pyprof-run asks for the recording, and its writer gets it. */
static bool is_for_writer(void) {
    return run.settings.socket[0] != '\0';
}

static uint32_t cause_of_end(void) {
    return (uint32_t)(run.cause >> 32);
}

/* Whether the process ends, and is not replaced or left behind by a daemon. */
static bool is_ending(void) {
    return cause_of_end() == HANDOVER_EXIT || cause_of_end() == HANDOVER_SIGNAL;
}

/* Whether the process exits by itself. */
static bool is_leaving(void) {
    return cause_of_end() == HANDOVER_EXIT && getpid() == run.pid;
}

void pyprof_door(const void *code);
static const pyprof_allocator *own_memory(void);
static bool start_supervisor(void);
static bool record_child(void);
static bool end_recording(handover_cause cause, int value);
static void wait_while(unsigned state);
static void break_off(const char *why);
static void finish(void);
static void be_done(void);

#endif
