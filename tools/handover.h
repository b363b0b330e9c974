/* handover.h: what pyprof-run and the library that it preloads say to each other.
 *
 * pyprof-run becomes the program that it runs (exec), so one process is left: the program, with the library
 * libpyprof-3.X.so in it, which records. What was recorded is handed over to a writer, a process that
 * pyprof-run left behind: that one still has the directory, the rights and the limits that the user
 * started with, whatever the program has done to its own.
 *
 * To the library: one environment variable, which it takes away before Python sees it.
 * To the writer: frames over an abstract Unix socket, whose name is in that variable. After a HANDOVER_DRAFT,
 * HANDOVER_DONE or HANDOVER_REFUSED the writer answers one byte: 0 if all was written.
 *
 * Where it is not known yet whether a recording ends, a draft is handed over: all that there is by then. Files get it at
 * once, so that they are whole whatever follows. It is what counts if nothing comes after it: before an exec, which may
 * fail, until the connection closes, as only an exec that succeeds closes it; before a limit of CPU time until the program
 * has ended.
 *
 * With --subprocesses each process of the program is one such library, with a connection of its own, by whose process the
 * writer knows it. Where the program ends before its children, the writer asks those for what they have by then: it sends
 * them HANDOVER_STOP.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "../pyprof.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define HANDOVER_VARIABLE "PYPROF_RUN"

typedef enum handover_kind {
    HANDOVER_HELLO =
        1,        /* the library is there; a handover_hello, and what tells which program it is (HANDOVER_COMMAND) */
    HANDOVER_LOG, /* detail: a pyprof_log_level; a message */
    HANDOVER_REFUSED,      /* the recording could not begin; why */
    HANDOVER_END,          /* a handover_end; the profile follows, if there is one */
    HANDOVER_NODES,        /* a piece of the tree: each node is a handover_node, its name and its path */
    HANDOVER_SPANS,        /* a piece of the time line: pyprof_span after pyprof_span */
    HANDOVER_DRAFT,        /* all that there is by now */
    HANDOVER_GOES_ON,      /* the exec that the draft was for has failed */
    HANDOVER_DONE,         /* all has been handed over */
    HANDOVER_HEAP,         /* a handover_heap; what nodes follow are of memory */
    HANDOVER_OTHER_PYTHON, /* in the host one began that the library is not for; its version */
    HANDOVER_NEVER_RAN     /* from pyprof-run itself: the program could not be executed */
} handover_kind;

typedef struct handover_frame {
    uint32_t kind;
    uint32_t detail;
    uint64_t size; /* bytes that follow */
} handover_frame;

/* What ended the recording. */
typedef enum handover_cause {
    HANDOVER_NOT_YET = 0,
    HANDOVER_EXIT,      /* value: the exit status */
    HANDOVER_SIGNAL,    /* value: its number */
    HANDOVER_EXEC,      /* text: what replaced the program; value: 1 if that is recorded, too */
    HANDOVER_DAEMON,    /* the program goes on in a forked child */
    HANDOVER_DURATION,  /* the program goes on, --duration is over, or HANDOVER_STOP has come */
    HANDOVER_LIMIT,     /* a draft only: soon the program will be killed, as RLIMIT_CPU says */
    HANDOVER_NAMESPACE, /* within the program only: it is left alone for a moment */
    HANDOVER_BROKEN_OFF /* the program goes on, the recording cannot; text: why */
} handover_cause;

/* Who it is that speaks. */
typedef struct handover_hello {
    uint32_t is_fork; /* it began as a copy of a process that is recorded */
} handover_hello;

/* Bytes that are told of a command line; of a program that embeds CPython it is the name alone. */
#define HANDOVER_COMMAND 2048

/* What the writer sends of its own accord: a byte, as an answer is. */
#define HANDOVER_STOP 2

typedef struct handover_end {
    uint32_t cause;
    int32_t value;
    uint32_t never_began; /* it failed before anything of the program itself ran for long enough to be seen */
    uint32_t forks;       /* children that were forked meanwhile; 0 if they are recorded */
    uint32_t others;      /* children that run other programs */
    uint32_t failed;      /* pyprof_stop did; text: why */
    uint32_t interval_us;
    uint64_t start_ns; /* since 1970 */
    uint64_t duration_ns;
    pyprof_stats stats;
    char python[32];
    char process[32];
    char program[512]; /* path of what is executed; empty = too long */
    char text[256];
    char other[64]; /* the name of the first of these others */
} handover_end;

/* What of the program's memory was in use at its end, if that is wanted. Behind the profile of time, if there is one. */
typedef struct handover_heap {
    uint64_t start_ns;
    uint64_t duration_ns;
    pyprof_stats stats; /* those of the profile */
    pyprof_heap_stats heap;
    uint32_t failed; /* there is no profile; text: why */
    char text[256];
} handover_heap;

/* A pyprof_node, as pyprof_visit gives it with threads_apart, without its texts, which follow. */
typedef struct handover_node {
    pyprof_node node;
    uint32_t name_size; /* bytes */
    uint32_t path_size;
} handover_node;

/* What it is preloaded into. */
typedef enum handover_target {
    HANDOVER_TO_PYTHON = 0, /* recorded from before main */
    HANDOVER_TO_HOST,       /* recorded from when CPython begins in it */
    HANDOVER_TO_SCRIPT      /* a shell script, say, that executes the host: so the environment stays for that */
} handover_target;

/* What the library is told. */
typedef struct handover_settings {
    char socket[64];
    unsigned preload_length; /* bytes of LD_PRELOAD that are ours */
    unsigned target;         /* a handover_target */
    int pid;                 /* the program's: its children have all this in their environment, too */
    unsigned interval_us;
    unsigned capture;
    int signal_number;
    unsigned depth;
    unsigned long long memory;
    double duration;               /* seconds; 0 = until the end */
    unsigned follow;               /* a handover_follow */
    unsigned is_timed;             /* where the time goes is recorded */
    unsigned long long heap_bytes; /* what is allocated is sampled, one in so many bytes; 0 = it is not */
} handover_settings;

/* Whether children are recorded. */
typedef enum handover_follow {
    HANDOVER_FOLLOW_NOT = 0,
    HANDOVER_FOLLOW,      /* they are */
    HANDOVER_FOLLOW_CHILD /* they are, and this is one: it must not notice if it cannot be recorded */
} handover_follow;

/* The variable's text, written and read. */
#define HANDOVER_WRITTEN "4 %s %u %u %d %u %u %d %u %llu %.3f %u %u %llu"
#define HANDOVER_READ "4 %63s %u %u %d %u %u %d %u %llu %lf %u %u %llu"
#define HANDOVER_FIELDS 13

/* The address of the writer's socket; returns its length. */
static inline socklen_t handover_address(struct sockaddr_un *address, const char *name) {
    size_t length = strlen(name);
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path + 1, name, length); /* the zero byte before it makes it abstract: unix(7) */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

/* All of it, or false. */
static inline bool handover_send(int descriptor, const void *data, size_t size) {
    const char *at = (const char *)data;
    while (size > 0) {
        ssize_t sent = send(descriptor, at, size, MSG_NOSIGNAL);
        if (sent > 0) {
            at += sent;
            size -= (size_t)sent;
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

static inline bool handover_send_frame(int descriptor, handover_kind kind, uint32_t detail, const void *data,
                                       size_t size) {
    handover_frame frame = {(uint32_t)kind, detail, size};
    return handover_send(descriptor, &frame, sizeof frame) && handover_send(descriptor, data, size);
}

/* The writer's answer: true if all was written. */
static inline bool handover_answer(int descriptor) {
    char answer = HANDOVER_STOP;
    ssize_t got = 1;
    while ((got == 1 && answer == HANDOVER_STOP) || (got < 0 && errno == EINTR)) {
        got = recv(descriptor, &answer, 1, 0);
    }
    return got == 1 && answer == 0;
}

/* Whether the writer has asked for what there is by now, or is gone. */
static inline bool handover_is_asked(int descriptor) {
    char asked = 0;
    ssize_t got = recv(descriptor, &asked, 1, MSG_DONTWAIT);
    return got == 0 || (got == 1 && asked == HANDOVER_STOP) || descriptor < 0;
}

#endif
