/* What these tests count of their own process: the memory of a recording, threads, open files, signals' actions. */
#ifndef PROCESS_H
#define PROCESS_H

#include "pyprof.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Sanitizers need more stack than anybody else. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#if !defined(IS_SANITIZED)
#define IS_SANITIZED 0
#endif

/* An allocator that counts, and that gives nothing when it is told so. */

typedef struct counter {
    pthread_mutex_t lock;
    size_t live_bytes;
    size_t peak_bytes;
    size_t live_blocks;
    size_t calls;
    size_t fail_from; /* the first call that fails; 0 = none */
} counter;

#define COUNTER_INIT                                                                                                   \
    { PTHREAD_MUTEX_INITIALIZER, 0, 0, 0, 0, 0 }
#define BLOCK_HEADER 32 /* keeps malloc's alignment */

static inline void *counter_alloc(size_t size, void *user) {
    counter *self = (counter *)user;
    char *block = NULL;
    pthread_mutex_lock(&self->lock);
    self->calls++;
    if (!self->fail_from || self->calls < self->fail_from) {
        block = (char *)malloc(size + BLOCK_HEADER);
    }
    if (block) {
        memcpy(block, &size, sizeof size);
        self->live_blocks++;
        self->live_bytes += size;
        if (self->live_bytes > self->peak_bytes) {
            self->peak_bytes = self->live_bytes;
        }
    }
    pthread_mutex_unlock(&self->lock);
    return block ? block + BLOCK_HEADER : NULL;
}

static inline void counter_free(void *memory, void *user) {
    counter *self = (counter *)user;
    char *block = (char *)memory;
    size_t size;
    if (!block) {
        return;
    }
    block -= BLOCK_HEADER;
    memcpy(&size, block, sizeof size);
    pthread_mutex_lock(&self->lock);
    self->live_blocks--;
    self->live_bytes -= size;
    pthread_mutex_unlock(&self->lock);
    memset(block, 0x5a, size + BLOCK_HEADER); /* what still uses it is seen to */
    free(block);
}

static inline pyprof_desc counted(counter *self, uint32_t interval_us) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = interval_us;
    desc.allocator.alloc_fn = counter_alloc;
    desc.allocator.free_fn = counter_free;
    desc.allocator.user = self;
    return desc;
}

/* The process, counted. */

typedef struct process {
    int threads;
    int descriptors;
    struct sigaction actions[NSIG];
} process;

static inline void pause_ms(unsigned milliseconds) {
    struct timespec left = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR) {
    }
}

/* "." and ".." counted, too; -1 = no such folder. */
static inline int count_entries(const char *path) {
    int count = 0;
    DIR *folder = opendir(path);
    if (!folder) {
        return -1;
    }
    while (readdir(folder)) {
        count++;
    }
    closedir(folder);
    return count;
}

static inline process look(void) {
    const int restorer = 0x04000000; /* SA_RESTORER, which the C library adds when an action is set or put back */
    process now;
    int number;
    memset(&now, 0, sizeof now);
    now.threads = count_entries("/proc/self/task");
    now.descriptors = count_entries("/proc/self/fd");
    for (number = 1; number < NSIG; number++) {
        sigaction(number, NULL, &now.actions[number]);
        now.actions[number].sa_flags &= ~restorer;
    }
    return now;
}

/* What is not as it was; NULL = nothing. */
static inline const char *difference_to(const process *before) {
    static char text[100];
    process now = look();
    int number;
    int turn;
    /* A thread that was joined leaves /proc a moment later; the sampler has a file open for moments only. */
    for (turn = 0; turn < 100 && (now.threads != before->threads || now.descriptors != before->descriptors); turn++) {
        pause_ms(10);
        now = look();
    }
    if (now.threads != before->threads || now.descriptors != before->descriptors) {
        snprintf(text, sizeof text, "%d threads and %d descriptors more than before", now.threads - before->threads,
                 now.descriptors - before->descriptors);
        return text;
    }
    for (number = 1; number < NSIG; number++) {
        if (now.actions[number].sa_sigaction != before->actions[number].sa_sigaction ||
            now.actions[number].sa_flags != before->actions[number].sa_flags) {
            snprintf(text, sizeof text, "the action of signal %d was not put back", number);
            return text;
        }
    }
    return NULL;
}

#endif
