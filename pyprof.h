/* pyprof.h - v0.1 - a sampling profiler for programs with CPython inside - MIT licence, see the end

   PYPROF_DOCUMENTATION_GOES_HERE
*/

#ifndef PYPROF_H
#define PYPROF_H

// >>api

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(PYPROF_STATIC)
#if defined(__GNUC__)
#define PYPROF_API static __attribute__((unused))
#else
#define PYPROF_API static
#endif
#elif !defined(PYPROF_API)
#define PYPROF_API extern
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What every call answers. Zero is success, errors are negative; a call that fails has changed nothing
   unless its own text says otherwise. */
typedef enum pyprof_result {
    PYPROF_OK = 0,
    PYPROF_ERROR_ARGUMENT = -1,       /* NULL where a value is needed, or a figure out of its range */
    PYPROF_ERROR_ALREADY_ACTIVE = -2, /* pyprof_start while a recording runs */
    PYPROF_ERROR_NOT_ACTIVE = -3,     /* a call that needs a running recording */
    PYPROF_ERROR_MEMORY = -4,         /* the allocator gave nothing, or memory_limit is too small */
    PYPROF_ERROR_THREAD = -5,         /* the sampler thread could not be made */
    PYPROF_ERROR_SIGNAL = -6,         /* the signal is in use, unusable, or none is free */
    PYPROF_ERROR_MEMORY_READ = -7,    /* the system lets us read our own memory in no safe way */
    PYPROF_ERROR_PYTHON = -8,         /* this CPython (version, debug or free-threaded build) is not known */
    PYPROF_ERROR_PYTHON_MISMATCH = -9, /* compiled against one CPython version, running in another */
    PYPROF_ERROR_IO = -10,            /* a file could not be made, written or renamed; errno says why */
    PYPROF_ERROR_WRITE = -11,         /* the write function answered false */
    PYPROF_ERROR_FORMAT = -12         /* a format that is not known, or that the path's ending does not name */
} pyprof_result;

/* How the stack of a thread that is running Python right now is read. */
typedef enum pyprof_capture {
    PYPROF_CAPTURE_DEFAULT = 0, /* the thread copies its own stack, asked by a thread-directed signal */
    PYPROF_CAPTURE_QUIET = 1    /* no signal, ever: read twice from outside, kept only if both are equal.
                                   Stacks that change faster than they can be read are counted as lost, so
                                   short functions get less than their share. */
} pyprof_capture;

typedef enum pyprof_log_level {
    PYPROF_LOG_ERROR = 1,
    PYPROF_LOG_WARNING = 2,
    PYPROF_LOG_INFO = 3
} pyprof_log_level;

/* Where memory comes from; all NULL = malloc and free. Called from the sampler thread and from the threads
   that call pyprof_*, never inside a signal handler. Must be thread-safe and must not touch Python.
   Returned memory must be aligned as malloc's is. */
typedef struct pyprof_allocator {
    void *(*alloc_fn)(size_t size, void *user);
    void (*free_fn)(void *memory, void *user);
    void *user;
} pyprof_allocator;

/* Who hears of what happens; NULL = nobody. Called as the allocator is, with a text without newline that
   lives as long as the call. */
typedef struct pyprof_logger {
    void (*log_fn)(pyprof_log_level level, const char *message, void *user);
    void *user;
} pyprof_logger;

/* How to record. All zero = good defaults. Copied by pyprof_start, output_path included. */
typedef struct pyprof_desc {
    uint32_t interval_us;       /* mean time between samples of a thread, in microseconds: 50 to 10,000,000;
                                   0 = 10,000 (100 Hz) */
    pyprof_capture capture;
    int signal_number;          /* the signal that asks a thread for its stack; 0 = a real-time signal that
                                   has its default action. No signal is taken with PYPROF_CAPTURE_QUIET. */
    size_t memory_limit;        /* bytes that one recording may hold at most; at least 1 MiB; 0 = 64 MiB */
    uint32_t max_depth;         /* frames of a stack, counted from the leaf: 16 to 65,536; 0 = 1024. What lies
                                   further out becomes one "[truncated]" frame. */
    const char *output_path;    /* pyprof_stop also saves here, with default pyprof_output; NULL = nowhere */
    pyprof_allocator allocator;
    pyprof_logger logger;
} pyprof_desc;

/* A finished recording: immutable, independent of the interpreter that it came from. */
typedef struct pyprof_profile pyprof_profile;

typedef enum pyprof_format {
    PYPROF_FORMAT_AUTO = 0,       /* pyprof_save: by the path's ending (.json: speedscope, .svg: refused,
                                     anything else: collapsed); pyprof_write: collapsed */
    PYPROF_FORMAT_COLLAPSED = 1,  /* one line a stack: "thread;root;...;leaf value" */
    PYPROF_FORMAT_SPEEDSCOPE = 2  /* speedscope.app's JSON, one time-ordered profile a thread, nanoseconds */
} pyprof_format;

typedef enum pyprof_metric {
    PYPROF_METRIC_WALL = 0,   /* elapsed time */
    PYPROF_METRIC_CPU = 1,    /* CPU time of the thread itself */
    PYPROF_METRIC_GIL = 2,    /* elapsed time while the thread held its interpreter's GIL */
    PYPROF_METRIC_SAMPLES = 3 /* number of samples */
} pyprof_metric;

typedef enum pyprof_detail {
    PYPROF_DETAIL_LINE = 0,    /* frames differ by the line that they are at */
    PYPROF_DETAIL_FUNCTION = 1 /* one frame a function; its line is the function's first */
} pyprof_detail;

/* How to write a profile. All zero = good defaults. */
typedef struct pyprof_output {
    pyprof_format format;
    pyprof_metric metric;
    pyprof_detail detail;
    bool include_idle;  /* also the time in which a thread only waited */
    bool merge_threads; /* collapsed: no thread as first frame, equal stacks of all threads are one line */
} pyprof_output;

/* Takes size bytes of output; false ends the writing with PYPROF_ERROR_WRITE. */
typedef bool (*pyprof_write_fn)(void *user, const void *data, size_t size);

/* What a recording did, and what it could not do. All counts are since pyprof_start. A tick is one moment at
   which the sampler looks at all threads; in each tick every thread gives a sample or is lost for one of the
   reasons below. A lost sample's time is not lost: samples weigh the time that really passed between them. */
typedef struct pyprof_stats {
    uint64_t ticks;            /* moments at which the threads were looked at */
    uint64_t ticks_missed;     /* moments that passed before the sampler got the CPU */
    uint64_t samples;          /* stacks that entered the profile, idle ones included */
    uint64_t samples_idle;     /* of these, stacks of threads that waited */
    uint64_t samples_signalled; /* of these, stacks that the thread copied itself, asked by a signal */
    uint64_t lost_late;        /* the thread had let the GIL go before the signal came */
    uint64_t lost_pending;     /* the thread had not yet answered the signal of an earlier tick */
    uint64_t lost_unsettled;   /* the stack changed while it was read from outside */
    uint64_t lost_unreadable;  /* the thread went away, or its memory made no sense */
    uint64_t lost_memory;      /* no room for one more thread */
    uint64_t truncated_depth;  /* samples of stacks deeper than max_depth */
    uint64_t truncated_memory; /* samples that went to "[truncated]" because the tree was full */
    uint64_t frames_unresolved; /* frames whose code object had died before its name could be read */
    uint64_t timeline_coarsened; /* times that the time line was full and halved its resolution */
    uint64_t signals;          /* signals sent */
    uint64_t calls_interrupted; /* signals that were seen to end a system call with EINTR */
    uint64_t threads;          /* OS threads with Python that were seen */
    uint64_t bytes;            /* memory held now */
    uint64_t bytes_peak;       /* and the most that was ever held */
    uint64_t sampler_cpu_ns;   /* CPU time that the sampler thread has used */
} pyprof_stats;

/* Begins to record every thread of every interpreter in the process; NULL = defaults. Starts one thread,
   named "pyprof", with all signals blocked.
   May be called from any thread, with or without the GIL, also before Py_Initialize.
   Errors: ARGUMENT, ALREADY_ACTIVE, MEMORY, THREAD, SIGNAL, MEMORY_READ, PYTHON, PYTHON_MISMATCH. */
PYPROF_API pyprof_result pyprof_start(const pyprof_desc *desc);

/* Ends the recording, ends the sampler thread and puts the signal's action back. *profile is the caller's,
   to pyprof_free; NULL drops the profile (after output_path was saved, if one was given).
   May be called from any thread, with or without the GIL, also after Py_Finalize.
   Errors: NOT_ACTIVE (*profile = NULL); IO, FORMAT when output_path could not be saved: the recording has
   ended all the same and *profile is valid. */
PYPROF_API pyprof_result pyprof_stop(pyprof_profile **profile);

/* Whether a recording runs. Any thread. */
PYPROF_API bool pyprof_is_active(void);

/* A copy of what was recorded so far, while the recording goes on. Any thread, with or without the GIL; the
   sampler pauses while the copy is made. Errors: ARGUMENT, NOT_ACTIVE, MEMORY (*profile = NULL). */
PYPROF_API pyprof_result pyprof_snapshot(pyprof_profile **profile);

/* The figures of the running recording, or of the last one. Any thread. Errors: ARGUMENT; NOT_ACTIVE when
   nothing was ever recorded. */
PYPROF_API pyprof_result pyprof_get_stats(pyprof_stats *stats);

/* The stacks of this moment as text, leaf first, one paragraph a thread. Needs a running recording and
   takes one extra sample of every thread; waits up to 100 ms for it. Any thread, with or without the GIL.
   Errors: ARGUMENT, NOT_ACTIVE, MEMORY, WRITE. */
PYPROF_API pyprof_result pyprof_dump(pyprof_write_fn write, void *user);

/* Writes the profile through a function; output NULL = defaults. Needs no GIL, no interpreter, no running
   recording; several threads may write one profile at once.
   Errors: ARGUMENT, FORMAT, MEMORY, WRITE (what was passed to write before stays passed). */
PYPROF_API pyprof_result pyprof_write(const pyprof_profile *profile, const pyprof_output *output,
                                      pyprof_write_fn write, void *user);

/* Writes the profile to a file: beside it first, then renamed, so path is either whole or as it was; what
   exists and is no regular file (a pipe, a device) is written into. As pyprof_write otherwise.
   Errors: ARGUMENT, FORMAT, MEMORY, IO (errno says why; no partial file is left). */
PYPROF_API pyprof_result pyprof_save(const pyprof_profile *profile, const pyprof_output *output,
                                     const char *path);

/* Gives a profile's memory back; NULL is fine. Uses the allocator of the recording. Any thread. */
PYPROF_API void pyprof_free(pyprof_profile *profile);

/* A short English text for a result; never NULL, static. Any thread. */
PYPROF_API const char *pyprof_result_string(pyprof_result result);

#ifdef __cplusplus
}
#endif

#endif /* PYPROF_H */
