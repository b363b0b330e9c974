/* run_profile.h: what was handed over, as a profile that can be written in any format. */
#ifndef RUN_PROFILE_H
#define RUN_PROFILE_H

#include "exports.h"
#include "handover.h"
#include "pyprof-run.h"

#include <stdio.h>

typedef struct bytes {
    char *data;
    size_t size;
    size_t capacity;
} bytes;

void append(bytes *to, const void *data, size_t size);
void drop_front(bytes *from, size_t size);

/* What was recorded. All zero: nothing has come. */
typedef struct recorded {
    handover_end end;
    pyprof_profile *profile;
    handover_heap heap;     /* of what follows */
    pyprof_profile *memory; /* what was in use; NULL = it was not asked for, or could not be had */
    bool has_heap;          /* a handover_heap has come: nodes that come are of that */
    bytes pending;          /* what has come of a node or a span of which not all has */
    bytes numbers;          /* of the nodes: theirs in the profile (uint32_t), by the library's */
    bool is_broken;         /* it could not be made: no memory, or what came was no profile */
    uint64_t spans_refused; /* pieces of the time line that did not fit behind those before them */
} recorded;

/* A handover_end has come: what was there before is dropped. */
void begin_profile(recorded *to, const void *data, size_t size);

/* A handover_heap has come. */
void begin_memory(recorded *to, const void *data, size_t size);

/* A piece of nodes or spans has come. */
void take_pieces(recorded *to, handover_kind kind, const char *data, size_t size);

/* The processes of a program that have ended, as one profile. All zero: there were none. */
typedef struct family {
    recorded all;
    uint64_t start_ns;  /* since 1970: from when on it counts */
    size_t memory;      /* bytes that it may hold */
    unsigned processes; /* that are in it */
    unsigned refused;   /* that found no room */
} family;

/* Whether all stacks that were seen end in one line. */
bool has_one_line(const recorded *of);

/* Adds what one of them recorded. */
void add_process(family *to, const recorded *one, const char *called, int pid);

/* What all of them recorded, with the first one first, in the place of what that one did. Not if it was alone: a profile
   of one process is not told from others. */
void join_family(recorded *first, const family *others, const char *called, int pid);

void forget_profile(recorded *of);

/* Writes it by the options; name: the program's. False: errno says why; 0 = there is no memory. */
bool write_profile(const recorded *given, const run_options *opt, const char *name, const output_file *file, FILE *out);

/* "12.3 MiB"; returns text. */
const char *tell_bytes(char *text, size_t size, uint64_t count);

bool has_doubtful_lines(const recorded *given, const run_options *opt);
unsigned long long lost_samples(const pyprof_stats *stats);

#endif
