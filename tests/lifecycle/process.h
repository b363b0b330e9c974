/* What these tests count of their own process: threads, open files, signals' actions. */
#ifndef PROCESS_H
#define PROCESS_H

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../common/callbacks.h"

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
    /* A thread that was joined leaves /proc a moment later, or after whatever else has the cores: so one that was counted
       before may be gone, too. The sampler has a file open for moments only. */
    for (turn = 0; turn < 3000 && (now.threads > before->threads || now.descriptors != before->descriptors); turn++) {
        pause_ms(10);
        now = look();
    }
    if (now.threads > before->threads || now.descriptors != before->descriptors) {
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
