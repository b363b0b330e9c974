/* pyprof.h - v0.1 - a sampling profiler for programs with CPython inside
   MIT licence (see LICENSE). No dependencies but CPython 3.8 to 3.15 and libc; Linux.

   DO THIS
     In one C or C++ file, before any other #include:

         #define PYPROF_IMPLEMENTATION
         #include "pyprof.h"

     Everywhere else just include it. Compile with what `python3-config --includes` says, link with what
     `python3-config --embed --ldflags` says, and -pthread.

   EXAMPLE
         pyprof_start(NULL);                                   // 100 Hz, all threads, all interpreters
         PyRun_SimpleString("import game; game.run()");
         pyprof_profile *profile;
         if (pyprof_stop(&profile) == PYPROF_OK) {
             pyprof_save(profile, NULL, "game.speedscope.json"); // opens in speedscope.app
             pyprof_save(profile, NULL, "game.txt");             // collapsed: pyprof-svg game.txt game.svg
             pyprof_free(profile);
         }

   CONTENTS (search for these tags)
     >>api         the public declarations, each with its contract
     >>platform    threads, signals, clocks and atomics of the system
     >>base        memory within a limit, the host's log
     >>containers  an array that grows, a table found by key
     >>reads       reading this process's memory where it may vanish
     >>cpython     every difference between versions of CPython
     >>capture     one stack: walked by its own thread in a signal handler, or from outside
     >>profile     the calling-context tree and the time line
     >>sampler     the thread that looks at all others
     >>writers     collapsed and speedscope files
     >>public      the public functions

   WHAT IT DOES TO YOUR PROCESS
     One thread, "pyprof", blocks all signals and wakes once an interval, at a random moment of it. It never
     takes the GIL and never waits for a thread of yours.
     - A thread that waits, or runs C code without the GIL, is read from outside, through system calls that answer
       a bad address with an error. What such a thread does is not disturbed, and it sees no signal.
     - A thread that is running Python on another core right now is asked by one signal, and copies its own
       stack in the handler: no allocation, no lock, errno kept, below 800 bytes of stack and 2 to 4 microseconds.
       The handler is installed with SA_RESTART | SA_ONSTACK, for one signal that had no action before or that you
       chose; signals that are not ours go to the handler that was there before.
     - A thread that holds the GIL but is not on a core (it waits inside C code, or has to wait for a core) cannot
       change its stack, and is read from outside.
     A thread could leave Python and enter a system call in the microseconds between the look and the signal; some
     calls then end with EINTR, SA_RESTART or not (poll, nanosleep: signal(7)). A thread to which that happens more
     than once in 4,096 ticks is asked less; pyprof_stats.calls_interrupted counts what was seen. A write of more than
     4 KiB to a full pipe may end short, as it may by any signal; Python run with -u loses the rest (cpython#86210).
     PYPROF_CAPTURE_QUIET sends no signal at all.

   THREADS, GIL, FORK
     function                                    thread   GIL        before Py_Initialize   after Py_Finalize
     pyprof_start                                any      either     yes                    yes
     pyprof_stop, _snapshot, _dump, _get_stats   any      either     yes                    yes
     pyprof_write, _save, _free                  any      either     yes                    yes
     pyprof_name_interpreter                     any      either     yes                    yes
     None may be called from a signal handler, or from the allocator, logger and write functions of the host.
     fork waits for a sample that is being taken. A forked child has no recording: no thread, the signal's action is
     the host's again, pyprof_is_active is false, and it may start its own. The parent's goes on. A child that is made
     without fork's handlers (_Fork, clone) keeps the signal's action until it starts or ends. What the parent's recording
     held is given back by the child's first pyprof_start. The fork handlers are all that stays after pyprof_stop: they
     cannot be taken back but by unloading what holds this, and do nothing while nothing is recorded.

   WHAT THE FIGURES MEAN
     A sample stands for the time around it: half of the time since the thread's last sample and half of the time
     until its next one, as measured. So a sampler that comes late does not bend the profile, nor does a program
     whose rhythm is that of the sampler. Every sample counts in four ways, to be chosen when writing:
     - wall: elapsed time. Time in which the thread only waited is kept apart, and left out unless include_idle.
     - cpu: CPU time by the thread's own clock.
     - gil: elapsed time while it held the GIL of its interpreter; on a free-threaded build while it was attached.
     - samples.
     A thread is idle when it does not hold the GIL and does not run; waiting for the GIL is waiting, too. A thread
     without any Python frame is not in the profile.
     An OS thread is one stack, also if it went from one interpreter to another: a frame "[interpreter 1: NAME]" stands
     before those of each, except of the main interpreter where a thread begins there. pyprof_name_interpreter.
     A frame shows the line that its thread was at. A function that has been called but has not begun to run is
     not shown yet: its caller is the leaf.
     What could not be sampled is counted by cause in pyprof_stats, never guessed: see there.

   FORMATS
     Collapsed ("folded"): a line a stack, "thread NAME;qualname (file.py:LINE);... VALUE", times in microseconds,
     frames as py-spy writes them. Inside names, backslash, semicolon, control characters, line separators and
     lone surrogates are written as Python writes them in a string literal (\\ \x3b \n \u2028 \udc80).
     Speedscope: one time-ordered profile a thread, all on one time axis, nanoseconds. Time in which a thread is not
     shown is an empty stack. When the time line is full, neighbours are merged (pyprof_stats.timeline_coarsened);
     the sums of the collapsed format stay exact.

   LIMITS
     - Linux; x86-64 and aarch64 (others should work, without calls_interrupted).
     - CPython 3.8 to 3.15, and later ones whose description of themselves (_Py_DebugOffsets) agrees with their headers.
       Free-threaded builds; debug builds since 3.13. Anything else is refused by pyprof_start, with a reason.
     - Valgrind's memcheck takes what the sampler reads for the program's own reads, and may complain.
     - Where neither process_vm_writev nor /proc/self/mem may be used (some seccomp filters), pyprof_start refuses.
     - Frames of C functions are not shown; their time is their Python caller's.
     - A host that switches C stacks (fibers) while one thread is in several interpreters gets their order wrong; to
       3.11, a thread that runs C code on another stack than the Python that called it is read from outside.
     - Of a thread in more than 8 interpreters the outer ones are left out ("[truncated]"); of one that goes to and fro
       between more than 8 within a tick, some looks come to nothing.
     - A thread state that is used in another thread than the one that made it has its maker's name, no CPU time, and
       is read from outside only. With PYPROF_CAPTURE_QUIET, if both threads run Python at once, it may be taken for
       an interpreter that its maker is in, too.
     - A code object that dies within microseconds of being sampled may show as [unresolved]. Threads that are
       not asked (see above) may show [unsettled] frames: pyprof_stats.samples_partial. On some virtual machines a signal
       takes 20 microseconds: there, a thread that waits a hundred times a second is one of them for part of the time.
     - What ends while it is looked at (within 5 microseconds, 30 on such machines) counts where its thread waits next:
       bursts of a millisecond lose up to 3 % of their time to that.
     - Memory: at most memory_limit for one recording, a snapshot may hold as much again; typically below 1 MiB.

   CHANGES
     0.1  first version
*/

/* The implementation needs what lies behind this; it counts only before the first system header. */
#if defined(PYPROF_IMPLEMENTATION) && defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

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
    PYPROF_ERROR_PYTHON = -8, /* this version of CPython is not known, or not as it describes itself */
    PYPROF_ERROR_PYTHON_MISMATCH = -9, /* compiled against one CPython (version, with a GIL or free-threaded),
                                          running in another */
    PYPROF_ERROR_IO = -10,             /* a file could not be made, written or renamed; errno says why */
    PYPROF_ERROR_WRITE = -11,          /* the write function answered false */
    PYPROF_ERROR_FORMAT = -12,      /* a format that is not known, or that the path's ending does not name */
    PYPROF_ERROR_PYTHON_DEBUG = -13 /* a debug build of a CPython before 3.13, or one with Py_TRACE_REFS */
} pyprof_result;

/* How the stack of a thread that is running Python right now is read. */
typedef enum pyprof_capture {
    PYPROF_CAPTURE_DEFAULT = 0, /* the thread copies its own stack, asked by a thread-directed signal */
    PYPROF_CAPTURE_QUIET = 1 /* no signal, ever: read from outside several times, kept as far as the reads are
                                   equal. What changes faster than it can be read is shown as "[unsettled]"
                                   below the frames that stood still, so short functions get less than their
                                   share, and their callers the rest. */
} pyprof_capture;

typedef enum pyprof_log_level {
    PYPROF_LOG_ERROR = 1,
    PYPROF_LOG_WARNING = 2,
    PYPROF_LOG_INFO = 3
} pyprof_log_level;

/* Where memory comes from; all NULL = malloc and free. Called from the sampler thread and from the threads
   that call pyprof_*, never inside a signal handler. Must be thread-safe and must not touch Python.
   Returned memory must be aligned as malloc's is. If it has fork handlers of its own (pthread_atfork), it has to register
   them before the first call of a pyprof_ function. */
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
    uint32_t interval_us; /* mean time between samples of a thread, in microseconds: 50 to 10,000,000;
                                   0 = 10,000 (100 Hz) */
    pyprof_capture capture;
    int signal_number;       /* the signal that asks a thread for its stack; 0 = SIGURG, or a real-time signal
                                if SIGURG has a handler. No signal is taken with PYPROF_CAPTURE_QUIET. After an exec while
                                recording, one may still reach the new program: SIGURG is ignored there, as
                                SIGCHLD and SIGWINCH would be, any other may end it. */
    size_t memory_limit;     /* bytes that one recording may hold at most; at least 1 MiB; 0 = 64 MiB */
    uint32_t max_depth;      /* frames of a stack, counted from the leaf: 16 to 65,536; 0 = 1024. What lies
                                   further out becomes one "[truncated]" frame. */
    const char *output_path; /* pyprof_stop also saves here, with default pyprof_output; NULL = nowhere */
    pyprof_allocator allocator;
    pyprof_logger logger;
} pyprof_desc;

/* A finished recording: immutable, independent of the interpreter that it came from. */
typedef struct pyprof_profile pyprof_profile;

typedef enum pyprof_format {
    PYPROF_FORMAT_AUTO = 0,      /* pyprof_save: by the path's ending (.json: speedscope, .svg: refused,
                                     anything else: collapsed); pyprof_write: collapsed */
    PYPROF_FORMAT_COLLAPSED = 1, /* one line a stack: "thread;root;...;leaf value" */
    PYPROF_FORMAT_SPEEDSCOPE = 2 /* speedscope.app's JSON, one time-ordered profile a thread, nanoseconds */
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
    uint64_t ticks;             /* moments at which the threads were looked at */
    uint64_t ticks_missed;      /* moments that passed before the sampler got the CPU */
    uint64_t samples;           /* stacks that entered the profile, idle ones included */
    uint64_t samples_idle;      /* of these, stacks of threads that waited */
    uint64_t samples_signalled; /* of these, stacks that the thread copied itself, asked by a signal */
    uint64_t samples_partial;   /* of these, stacks that changed while they were read: the inner frames, which
                                    did, or all are shown as "[unsettled]" */
    uint64_t lost_late;         /* the thread had let the GIL go before the signal came */
    uint64_t lost_pending;      /* the thread had not yet answered the signal of an earlier tick */
    uint64_t lost_unsettled;    /* the thread let the GIL go or took it while it was read from outside */
    uint64_t lost_unreadable;   /* the thread went away, or its memory made no sense */
    uint64_t lost_memory;       /* no room for one more thread */
    uint64_t truncated_depth;   /* samples of stacks deeper than max_depth, or in more than 8 interpreters */
    uint64_t truncated_memory;  /* samples that went to "[truncated]" because the tree was full */
    uint64_t frames_unresolved; /* frames whose code object had died before its name could be read */
    uint64_t timeline_coarsened; /* times that the time line was full and halved its resolution */
    uint64_t signals;            /* signals sent */
    uint64_t calls_interrupted;  /* signals that were seen to end a system call with EINTR
                                    (waits on a futex not counted: libc goes on with them) */
    uint64_t threads;            /* OS threads with Python that were seen */
    uint64_t bytes;              /* memory held now */
    uint64_t bytes_peak;         /* and the most that was ever held */
    uint64_t sampler_cpu_ns;     /* CPU time that the sampler thread has used */
} pyprof_stats;

/* Begins to record every thread of every interpreter in the process; NULL = defaults. Starts one thread,
   named "pyprof", with all signals blocked, and returns once it has looked for the first time.
   May be called from any thread, with or without the GIL, also before Py_Initialize.
   Errors: ARGUMENT, ALREADY_ACTIVE, MEMORY, THREAD, SIGNAL, MEMORY_READ, PYTHON, PYTHON_MISMATCH, PYTHON_DEBUG. */
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

/* Names an interpreter for the outputs: "[interpreter 1: physics]" stands there before its frames, without a name
   "[interpreter 1]"; the main interpreter (0) is shown only where a thread comes to it from another one. id: as
   PyInterpreterState_GetID gives it. name: UTF-8, copied, 63 bytes at most are kept; NULL takes the name away. For
   samples from then on, in this recording and later ones. Up to 64 interpreters have names at a time.
   Any thread, with or without the GIL, also while nothing is recorded. Errors: ARGUMENT (id below 0), MEMORY. */
PYPROF_API pyprof_result pyprof_name_interpreter(int64_t id, const char *name);

/* Gives a profile's memory back; NULL is fine. Uses the allocator of the recording. Any thread. */
PYPROF_API void pyprof_free(pyprof_profile *profile);

/* A short English text for a result; never NULL, static. Any thread. */
PYPROF_API const char *pyprof_result_string(pyprof_result result);

#ifdef __cplusplus
}
#endif

#endif /* PYPROF_H */

#ifdef PYPROF_IMPLEMENTATION
#ifndef PYPROF_IMPLEMENTED
#define PYPROF_IMPLEMENTED

#if !defined(__linux__)
#error "pyprof.h: only Linux is supported so far; the seams for other systems are in >>platform"
#endif
#if defined(_FEATURES_H) && !defined(__USE_MISC)
#error "pyprof.h: include it before all other headers where PYPROF_IMPLEMENTATION is defined"
#endif

#include <Python.h>
#include <frameobject.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

// >>platform
// Threads, signals and clocks of the operating system; a port replaces this part and >>reads.

typedef struct pyprof__atomic32 {
    uint32_t value;
} pyprof__atomic32;

typedef struct pyprof__atomic64 {
    uint64_t value;
} pyprof__atomic64;

static inline uint32_t pyprof__get(const pyprof__atomic32 *atomic) {
    return __atomic_load_n(&atomic->value, __ATOMIC_ACQUIRE);
}

static inline void pyprof__set(pyprof__atomic32 *atomic, uint32_t value) {
    __atomic_store_n(&atomic->value, value, __ATOMIC_RELEASE);
}

static inline uint32_t pyprof__add(pyprof__atomic32 *atomic, uint32_t value) {
    return __atomic_add_fetch(&atomic->value, value, __ATOMIC_ACQ_REL);
}

static inline bool pyprof__swap_if(pyprof__atomic32 *atomic, uint32_t expected, uint32_t value) {
    return __atomic_compare_exchange_n(&atomic->value, &expected, value, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

static inline uint64_t pyprof__get64(const pyprof__atomic64 *atomic) {
    return __atomic_load_n(&atomic->value, __ATOMIC_ACQUIRE);
}

static inline void pyprof__set64(pyprof__atomic64 *atomic, uint64_t value) {
    __atomic_store_n(&atomic->value, value, __ATOMIC_RELEASE);
}

static uint64_t pyprof__clock(clockid_t id) {
    struct timespec time;
    if (clock_gettime(id, &time) != 0) {
        return 0;
    }
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t pyprof__now(void) {
    return pyprof__clock(CLOCK_MONOTONIC);
}

/* The clock of one thread's CPU time, made from its id: unlike pthread_getcpuclockid it is an error, not
   undefined, once the thread is gone. Layout: Linux, include/linux/posix-timers_types.h. */
static clockid_t pyprof__cpu_clock(int32_t tid) {
    return (clockid_t)((~(uint32_t)tid << 3) | 6u);
}

static int32_t pyprof__tid(void) {
    return (int32_t)syscall(SYS_gettid);
}

/* This process, asked for once a recording: it is needed where each system call counts. A child that was forked
   has no recording until it starts its own. */
static pid_t pyprof__pid;

static bool pyprof__thread_lives(int32_t tid) {
    return tid > 0 && syscall(SYS_tgkill, pyprof__pid, tid, 0) == 0;
}

/* Sleeps until the word differs from expected, somebody wakes it, or the monotonic clock reaches deadline. */
static void pyprof__wait_until(pyprof__atomic32 *word, uint32_t expected, uint64_t deadline) {
    struct timespec time;
    time.tv_sec = (time_t)(deadline / 1000000000u);
    time.tv_nsec = (long)(deadline % 1000000000u);
    syscall(SYS_futex, &word->value, FUTEX_WAIT_BITSET_PRIVATE, expected, &time, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

/* Async-signal-safe. */
static void pyprof__wake(pyprof__atomic32 *word) {
    pyprof__add(word, 1);
    syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Sends a signal with a value to one thread. */
static bool pyprof__signal_thread(int32_t tid, int signal_number, void *value) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = signal_number;
    info.si_code = SI_QUEUE;
    info.si_pid = pyprof__pid;
    info.si_value.sival_ptr = value;
    return syscall(SYS_rt_tgsigqueueinfo, pyprof__pid, tid, signal_number, &info) == 0;
}

/* Whether the interrupted code had just come back from a system call with EINTR: the result register says
   so, and the instruction before is the one that enters the kernel. Waiting on a futex does not count: the C
   library takes that up again by itself, and the program never sees it. */
static bool pyprof__call_was_interrupted(const void *context) {
    const ucontext_t *user = (const ucontext_t *)context;
#if defined(__x86_64__)
    enum {
        r9 = 1,
        rsi = 9,
        rax = 13,
        rip = 16 /* <sys/ucontext.h> names them for _GNU_SOURCE only */
    };
    const greg_t *registers = user->uc_mcontext.gregs;
    if (registers[rax] != -EINTR) {
        return false;
    }
    const unsigned char *next = (const unsigned char *)(uintptr_t)registers[rip];
    bool is_wait = (registers[rsi] & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)) == FUTEX_WAIT_BITSET &&
                   (uint32_t)registers[r9] == (uint32_t)FUTEX_BITSET_MATCH_ANY;
    return next[-2] == 0x0f && next[-1] == 0x05 && !is_wait;
#elif defined(__aarch64__)
    if (user->uc_mcontext.regs[0] != (unsigned long long)-EINTR || user->uc_mcontext.regs[8] == SYS_futex) {
        return false;
    }
    return ((const uint32_t *)(uintptr_t)user->uc_mcontext.pc)[-1] == 0xd4000001u;
#else
    (void)user;
    return false;
#endif
}

/* The innermost address that the interrupted code may use of its stack; 0 = not to be told. */
static uintptr_t pyprof__interrupted_stack(const void *context) {
#if defined(__x86_64__)
    enum {
        rsp = 15,
        red_zone = 128
    };
    return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.gregs[rsp] - red_zone;
#elif defined(__aarch64__)
    return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.sp;
#else
    const stack_t *other = &((const ucontext_t *)context)->uc_stack;
    bool is_there = (uintptr_t)context - (uintptr_t)other->ss_sp < other->ss_size;
    return is_there && !(other->ss_flags & SS_DISABLE) ? 0 : (uintptr_t)context;
#endif
}

static bool pyprof__registers_hold(const void *context, uintptr_t word) {
    const ucontext_t *user = (const ucontext_t *)context;
    const char *registers = (const char *)&user->uc_mcontext;
    uintptr_t held = 0;
    for (size_t at = 0; at + sizeof held <= sizeof user->uc_mcontext; at += sizeof held) {
        memcpy(&held, registers + at, sizeof held);
        if (held == word) {
            return true;
        }
    }
    return false;
}

/* Reads a small file of /proc/self/task/TID; returns the number of bytes. */
static size_t pyprof__read_task_file(int32_t tid, const char *name, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/%s", (int)tid, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return 0;
    }
    ssize_t length = read(file, text, size - 1);
    close(file);
    text[length > 0 ? length : 0] = '\0';
    return length > 0 ? (size_t)length : 0;
}

/* Whether the thread runs or could run at this moment, as opposed to waiting. */
static bool pyprof__thread_is_runnable(int32_t tid) {
    char text[256];
    if (pyprof__read_task_file(tid, "stat", text, sizeof text) == 0) {
        return false;
    }
    const char *name_end = strrchr(text, ')'); /* the name may hold anything, also ") R" */
    return name_end != NULL && name_end[1] == ' ' && name_end[2] == 'R';
}

// >>base
// Memory within a limit, and the host's log.

typedef struct pyprof__memory {
    pyprof_allocator allocator;
    size_t limit;
    size_t used;
    size_t peak;
} pyprof__memory;

static void *pyprof__libc_alloc(size_t size, void *user) {
    (void)user;
    return malloc(size);
}

static void pyprof__libc_free(void *memory, void *user) {
    (void)user;
    free(memory);
}

/* NULL when the limit or the allocator says no. */
static void *pyprof__alloc(pyprof__memory *memory, size_t size) {
    if (size > memory->limit - memory->used) {
        return NULL;
    }
    void *block = memory->allocator.alloc_fn(size, memory->allocator.user);
    if (block == NULL) {
        return NULL;
    }
    memory->used += size;
    if (memory->used > memory->peak) {
        memory->peak = memory->used;
    }
    return block;
}

static void pyprof__release(pyprof__memory *memory, void *block, size_t size) {
    if (block != NULL) {
        memory->used -= size;
        memory->allocator.free_fn(block, memory->allocator.user);
    }
}

static void pyprof__log(const pyprof_logger *logger, pyprof_log_level level, const char *message) {
    if (logger->log_fn != NULL) {
        logger->log_fn(level, message, logger->user);
    }
}

// >>containers
// An array that grows, and a table: an array of items found again by the bytes that they begin with.

#define PYPROF__NONE UINT32_MAX

typedef struct pyprof__array {
    void *data;
    size_t item_size;
    uint32_t count;
    uint32_t capacity;
} pyprof__array;

#define PYPROF__ITEM(type, array, index) (((type *)(array)->data)[index])

static void pyprof__array_free(pyprof__memory *memory, pyprof__array *array) {
    pyprof__release(memory, array->data, (size_t)array->capacity * array->item_size);
    array->data = NULL;
    array->count = array->capacity = 0;
}

static bool pyprof__array_resize(pyprof__memory *memory, pyprof__array *array, size_t capacity) {
    if (capacity > PYPROF__NONE - 1) {
        return false;
    }
    void *data = pyprof__alloc(memory, capacity * array->item_size);
    if (data == NULL) {
        return false;
    }
    if (array->count > 0) {
        memcpy(data, array->data, (size_t)array->count * array->item_size);
    }
    pyprof__release(memory, array->data, (size_t)array->capacity * array->item_size);
    array->data = data;
    array->capacity = (uint32_t)capacity;
    return true;
}

/* Room for count items; doubles, or grows by a quarter where the memory limit is near. */
static bool pyprof__array_reserve(pyprof__memory *memory, pyprof__array *array, size_t count) {
    size_t now = array->capacity;
    if (count <= now) {
        return true;
    }
    size_t minimum = now == 0 ? 16 : now;
    size_t doubled = 2 * minimum > count ? 2 * minimum : count;
    size_t quarter = minimum + minimum / 4 > count ? minimum + minimum / 4 : count;
    return pyprof__array_resize(memory, array, doubled) || pyprof__array_resize(memory, array, quarter);
}

/* The index of a new item with all bytes zero, or PYPROF__NONE. */
static uint32_t pyprof__array_add(pyprof__memory *memory, pyprof__array *array) {
    if (!pyprof__array_reserve(memory, array, (size_t)array->count + 1)) {
        return PYPROF__NONE;
    }
    memset((char *)array->data + (size_t)array->count * array->item_size, 0, array->item_size);
    return array->count++;
}

static bool pyprof__array_copy(pyprof__memory *memory, pyprof__array *copy, const pyprof__array *array) {
    copy->data = NULL;
    copy->item_size = array->item_size;
    copy->count = copy->capacity = 0;
    if (array->count == 0) {
        return true;
    }
    if (!pyprof__array_resize(memory, copy, array->count)) {
        return false;
    }
    memcpy(copy->data, array->data, (size_t)array->count * array->item_size);
    copy->count = array->count;
    return true;
}

typedef struct pyprof__slot {
    uint32_t hash;
    uint32_t item; /* index + 1; 0 = free */
} pyprof__slot;

typedef struct pyprof__table {
    pyprof__array items;
    size_t key_size; /* every item begins with its key; a multiple of 4 */
    pyprof__slot *slots;
    uint32_t slot_count; /* a power of two, or 0 */
} pyprof__table;

static uint64_t pyprof__mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
}

/* Keys are short, and met at every frame of every sample: they are taken by words, without a call. Their size is a
   multiple of four. */
static uint32_t pyprof__hash(const void *key, size_t size) {
    const unsigned char *at = (const unsigned char *)key;
    uint64_t hash = size, word;
    uint32_t rest = 0;
    for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = pyprof__mix(hash, word);
    }
    if (size > 0) {
        memcpy(&rest, at, sizeof rest);
    }
    return (uint32_t)(pyprof__mix(hash, rest) >> 32);
}

static bool pyprof__same_key(const void *a, const void *b, size_t size) {
    const unsigned char *one = (const unsigned char *)a, *other = (const unsigned char *)b;
    for (; size > 0; size -= 4, one += 4, other += 4) {
        uint32_t first, second;
        memcpy(&first, one, sizeof first);
        memcpy(&second, other, sizeof second);
        if (first != second) {
            return false;
        }
    }
    return true;
}

static void pyprof__table_init(pyprof__table *table, size_t item_size, size_t key_size) {
    memset(table, 0, sizeof *table);
    table->items.item_size = item_size;
    table->key_size = key_size;
}

static void pyprof__table_free(pyprof__memory *memory, pyprof__table *table) {
    pyprof__array_free(memory, &table->items);
    pyprof__release(memory, table->slots, table->slot_count * sizeof *table->slots);
    table->slots = NULL;
    table->slot_count = 0;
}

/* Forgets the items, keeps the memory. */
static void pyprof__table_clear(pyprof__table *table) {
    table->items.count = 0;
    if (table->slots != NULL) {
        memset(table->slots, 0, table->slot_count * sizeof *table->slots);
    }
}

/* Keeps at least a third of the slots free. */
static bool pyprof__table_reserve(pyprof__memory *memory, pyprof__table *table) {
    if (table->items.count < table->slot_count - table->slot_count / 3) {
        return true;
    }
    uint32_t count = table->slot_count == 0 ? 64 : 2 * table->slot_count;
    pyprof__slot *slots = (pyprof__slot *)pyprof__alloc(memory, count * sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    memset(slots, 0, count * sizeof *slots);
    for (uint32_t i = 0; i < table->slot_count; i++) {
        if (table->slots[i].item != 0) {
            uint32_t at = table->slots[i].hash & (count - 1);
            while (slots[at].item != 0) {
                at = (at + 1) & (count - 1);
            }
            slots[at] = table->slots[i];
        }
    }
    pyprof__release(memory, table->slots, table->slot_count * sizeof *slots);
    table->slots = slots;
    table->slot_count = count;
    return true;
}

/* The index of the item with this key, added (zero but for the key) if it is new; PYPROF__NONE = no room. */
static uint32_t pyprof__table_intern(pyprof__memory *memory, pyprof__table *table, const void *key,
                                     bool *is_new) {
    *is_new = false;
    uint32_t hash = pyprof__hash(key, table->key_size);
    if (table->slot_count > 0) {
        uint32_t mask = table->slot_count - 1;
        for (uint32_t at = hash & mask; table->slots[at].item != 0; at = (at + 1) & mask) {
            uint32_t item = table->slots[at].item - 1;
            const char *known = (const char *)table->items.data + (size_t)item * table->items.item_size;
            if (table->slots[at].hash == hash && pyprof__same_key(known, key, table->key_size)) {
                return item;
            }
        }
    }
    if (!pyprof__table_reserve(memory, table)) {
        return PYPROF__NONE;
    }
    uint32_t item = pyprof__array_add(memory, &table->items);
    if (item == PYPROF__NONE) {
        return PYPROF__NONE;
    }
    memcpy((char *)table->items.data + (size_t)item * table->items.item_size, key, table->key_size);
    uint32_t at = hash & (table->slot_count - 1);
    while (table->slots[at].item != 0) {
        at = (at + 1) & (table->slot_count - 1);
    }
    table->slots[at].hash = hash;
    table->slots[at].item = item + 1;
    *is_new = true;
    return item;
}

// >>reads
// Reading this process's own memory where it may vanish: a bad address is an error code, never a fault.

typedef struct pyprof__piece {
    uintptr_t address;
    void *to;
    size_t size;
} pyprof__piece;

#define PYPROF__PIECES_MAX 64

static int pyprof__memory_file = -1; /* /proc/self/mem, where process_vm_writev is not allowed */

static bool pyprof__pread(const struct iovec *from, size_t count, void *to) {
    char *out = (char *)to;
    for (size_t i = 0; i < count; i++) {
        ssize_t size = pread(pyprof__memory_file, out, from[i].iov_len, (off_t)(uintptr_t)from[i].iov_base);
        if (size < 0 || (size_t)size != from[i].iov_len) {
            return false;
        }
        out += size;
    }
    return true;
}

/* Reads total bytes from count places, one behind the other; all, or nothing that may be used. Async-signal-safe;
   changes errno. The kernel is asked to write them to this process's own memory: of the two sides of such a copy it is
   the far one that is dear, page by page, and what lies in many pieces can be the near one. process_vm_readv,
   the other way round, takes up to six times as long. Nothing reads in a forked child, where pyprof__pid would still be
   its parent, before pyprof_start there has set it. */
static bool pyprof__read_places(const struct iovec *from, size_t count, void *to, size_t total) {
    if (pyprof__memory_file >= 0) {
        return pyprof__pread(from, count, to);
    }
    struct iovec far = {to, total};
    /* The seventh argument travels on the stack, as a whole word. */
    long done = syscall(SYS_process_vm_writev, pyprof__pid, from, count, &far, (size_t)1, 0ul);
    return done >= 0 && (size_t)done == total;
}

static bool pyprof__read(uintptr_t address, void *to, size_t size) {
    struct iovec from = {(void *)address, size};
    return pyprof__read_places(&from, 1, to, size);
}

/* Reads so many pieces, none larger than the copy, in as few calls as fit it. */
static bool pyprof__read_pieces(const pyprof__piece *pieces, size_t count) {
    unsigned char copy[2048] = {0}; /* valgrind does not see that the kernel writes to it */
    struct iovec from[PYPROF__PIECES_MAX];
    while (count > 0) {
        size_t total = 0, taken = 0;
        for (; taken < count && taken < PYPROF__PIECES_MAX && total + pieces[taken].size <= sizeof copy;
             taken++) {
            from[taken].iov_base = (void *)pieces[taken].address;
            from[taken].iov_len = pieces[taken].size;
            total += pieces[taken].size;
        }
        if (taken == 0 || !pyprof__read_places(from, taken, copy, total)) {
            return false;
        }
        const unsigned char *at = copy;
        for (; taken > 0; taken--, pieces++, count--) {
            memcpy(pieces->to, at, pieces->size);
            at += pieces->size;
        }
    }
    return true;
}

/* Finds the way that works here: it must read what is there and refuse what is not. */
static bool pyprof__reads_start(void) {
    static const uint64_t probe = 0x707970726f662e68u;
    uint64_t got = 0;
    pyprof__pid = getpid();
    pyprof__memory_file = -1;
    if (!pyprof__read((uintptr_t)&probe, &got, sizeof got) || got != probe) {
        pyprof__memory_file = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
        if (pyprof__memory_file < 0 || !pyprof__read((uintptr_t)&probe, &got, sizeof got) || got != probe) {
            return false;
        }
    }
    return !pyprof__read((uintptr_t)8, &got, sizeof got);
}

static void pyprof__reads_stop(void) {
    if (pyprof__memory_file >= 0) {
        close(pyprof__memory_file);
        pyprof__memory_file = -1;
    }
}

/* Blocks of memory as they were when they were first touched since pyprof__view_reset: a walk over many
   small structures costs one system call a block instead of one a field. */
#define PYPROF__BLOCK_SIZE 1024u /* divides any page size, so a block is wholly there or wholly not */
#define PYPROF__BLOCKS 64u       /* a power of two below 256 */

typedef struct pyprof__view {
    uintptr_t subject; /* what the last walk was over; 0 = nothing that comes again */
    uint32_t count;
    uint32_t last;                     /* the block that was used last; PYPROF__BLOCKS = none */
    uintptr_t numbers[PYPROF__BLOCKS]; /* which blocks, in the order of their first use */
    bool is_used[PYPROF__BLOCKS];      /* in this walk */
    uint8_t index[2 * PYPROF__BLOCKS]; /* by hash: position + 1; 0 = free */
    unsigned char blocks[PYPROF__BLOCKS][PYPROF__BLOCK_SIZE];
} pyprof__view;

/* Where a block's number stands in the index, or may be put. */
static uint8_t *pyprof__view_slot(pyprof__view *view, uintptr_t number) {
    size_t at = (size_t)(pyprof__mix(0, number) >> 32);
    for (;; at++) {
        uint8_t *slot = &view->index[at % (2 * PYPROF__BLOCKS)];
        if (*slot == 0 || view->numbers[*slot - 1] == number) {
            return slot;
        }
    }
}

/* The view holds so many blocks, whose numbers are in their places. */
static void pyprof__view_hold(pyprof__view *view, uint32_t count) {
    memset(view->index, 0, sizeof view->index);
    view->last = PYPROF__BLOCKS;
    for (view->count = 0; view->count < count;) {
        uint8_t *slot = pyprof__view_slot(view, view->numbers[view->count]);
        *slot = (uint8_t)++view->count;
    }
}

static void pyprof__view_reset(pyprof__view *view) {
    view->subject = 0;
    pyprof__view_hold(view, 0);
}

/* As pyprof__view_reset, for a walk that will likely need what the last one over the same subject did: that is read
   at once, in one system call, and in the same order. */
static void pyprof__view_renew(pyprof__view *view, uintptr_t subject) {
    struct iovec from[PYPROF__BLOCKS];
    uint32_t known = view->subject == subject ? view->count : 0, kept = 0;
    for (uint32_t i = 0; i < known; i++) {
        if (view->is_used[i]) {
            from[kept].iov_base = (void *)(view->numbers[i] * PYPROF__BLOCK_SIZE);
            from[kept].iov_len = PYPROF__BLOCK_SIZE;
            view->numbers[kept++] = view->numbers[i];
        }
    }
    memset(view->is_used, 0, sizeof view->is_used);
    view->subject = subject;
    bool is_read = kept > 0 && pyprof__read_places(from, kept, view->blocks, kept * PYPROF__BLOCK_SIZE);
    pyprof__view_hold(view, is_read ? kept : 0);
}

/* The position of a block, read now if it has not been; PYPROF__BLOCKS: it is not there. */
static uint32_t pyprof__view_block(pyprof__view *view, uintptr_t number) {
    if (view->last != PYPROF__BLOCKS && view->numbers[view->last] == number) {
        return view->last;
    }
    uint8_t *slot = pyprof__view_slot(view, number);
    if (*slot == 0) {
        if (view->count == PYPROF__BLOCKS) {
            pyprof__view_hold(view,
                              PYPROF__BLOCKS / 2); /* the others are read again, should they be needed */
            slot = pyprof__view_slot(view, number);
        }
        if (!pyprof__read(number * PYPROF__BLOCK_SIZE, view->blocks[view->count], PYPROF__BLOCK_SIZE)) {
            return PYPROF__BLOCKS;
        }
        view->numbers[view->count] = number;
        *slot = (uint8_t)++view->count;
    }
    view->last = *slot - 1u;
    view->is_used[view->last] = true;
    return view->last;
}

static bool pyprof__view_read(pyprof__view *view, uintptr_t address, void *to, size_t size) {
    unsigned char *out = (unsigned char *)to;
    while (size > 0) {
        size_t offset = address % PYPROF__BLOCK_SIZE;
        size_t part = PYPROF__BLOCK_SIZE - offset < size ? PYPROF__BLOCK_SIZE - offset : size;
        uint32_t block = pyprof__view_block(view, address / PYPROF__BLOCK_SIZE);
        if (block == PYPROF__BLOCKS) {
            return false;
        }
        memcpy(out, view->blocks[block] + offset, part);
        address += part;
        out += part;
        size -= part;
    }
    return true;
}

/* How a walk gets at memory. What is known to live is loaded plainly: the range [low, high), and of the thread
   itself its data stack chunks (chunk is the newest one, older ones follow as the walk goes outwards) and its thread
   state. All else is read through the view, or by one safe read each. No reader at all (NULL): everything lives, as
   for a thread that walks its own stack; the code for that is compiled apart, so that it is loads and nothing else. */
typedef struct pyprof__reader {
    uintptr_t low;
    uintptr_t high;
    uintptr_t chunk;
    uintptr_t tstate;
    pyprof__view *view;
} pyprof__reader;

static bool pyprof__load_elsewhere(pyprof__reader *reader, uintptr_t address, void *to, size_t size);

#if defined(__GNUC__)
#define PYPROF__INLINE static inline __attribute__((always_inline))
#define PYPROF__ALIGNED(size) __attribute__((aligned(size)))
#else
#define PYPROF__INLINE static inline
#define PYPROF__ALIGNED(size)
#endif

PYPROF__INLINE bool pyprof__load(pyprof__reader *reader, uintptr_t address, void *to, size_t size) {
    if (reader == NULL) {
        memcpy(to, (const void *)address, size);
        return true;
    }
    if (address - reader->low < reader->high - reader->low && reader->high - address >= size) {
        memcpy(to, (const void *)address, size);
        return true;
    }
    return pyprof__load_elsewhere(reader, address, to, size);
}

PYPROF__INLINE bool pyprof__load_word(pyprof__reader *reader, uintptr_t address, uintptr_t *word) {
    return pyprof__load(reader, address, word, sizeof *word);
}

// >>cpython
// Everything that differs between versions of CPython, and nothing of it elsewhere.

/* Whose memory is read here, who may free it meanwhile, and what then happens. From outside all of it is read through
   >>reads, so that a page that is gone is an error; a page that is there may hold something else by now, so:
   - interpreter states (Py_EndInterpreter, Py_Finalize): reached from a global by the lists. Every thread state has to
     name its interpreter and its predecessor; a list is believed up to the first link that does not hold.
   - thread states (their own thread, Py_EndInterpreter, Py_Finalize, a forked child): known again by address, id and
     interpreter. After a stack was read, its thread state has to bear the ids of the thread that it was read for.
   - frames: in chunks of the data stack, in generators and in frame objects (their own thread, at any return);
     3.11 and 3.12 also a cframe and the entry frames, since 3.13 the entry frames, on the thread's C stack
     (unmapped when it ends). What is read counts if the thread's CPU clock stood still from before to after, or
     as far as several reads agree. Depth is bounded; what a frame runs has to be a code object.
   - code objects (any thread that lets go of the last reference): a print of what they refer to is part of every frame.
     Name, file and lines are read once, between two looks at that print; if it is another one, or the object has no
     references, the frame is [unresolved].
   - str and bytes (with their code object): covered by that; types and lengths are checked before what follows.
   - copies of bytecode (3.14, free-threaded; with their code object, or when outgrown): index and length are checked.
   - threading.Thread objects, their dicts, keys and values (any thread): only for the name of a track. It has to be a
     str; while it cannot be found the last one stands.
   - to 3.10, what a pthread_t points to (unmapped some time after the thread's end): the id found there has to be that
     of a thread of this process that lives.
   In the signal handler a thread reads by plain loads, and only what cannot vanish while it is interrupted: its own
   attached thread state, its frames, and the code objects that these hold. 3.11 and 3.12 publish a cframe before it
   points to a frame: there the way from it has to lead, inside the thread's own chunks or by safe reads, to the cframe
   before. A thread state names the thread that made it, and any other may use it since. So what is attached before
   3.12, and those further out since then, are walked only if the C stack of this thread shows that it runs them.
   Copied data (what >>profile holds) outlives all of these. */

#define PYPROF__ABSENT UINT32_MAX
#define PYPROF__IDENTITY_WORDS 6

/* Where things lie in the running interpreter: offsets in bytes, PYPROF__ABSENT where a version has no such
   thing. Sources: thread state, code object and (to 3.10) frame from the public headers by offsetof; interpreters by
   the exported accessors; from 3.13 on the interpreter's own description as well, which has to agree. Constants are
   _PyInterpreterFrame of 3.11 and 3.12 and the owner values, which tests hold against Include/internal. */
typedef struct pyprof__layout {
    /* PyInterpreterState */
    uint32_t interp_next;
    uint32_t interp_threads;
    uint32_t interp_id;
    /* PyThreadState */
    uint32_t ts_prev;
    uint32_t ts_next;
    uint32_t ts_interp;
    uint32_t ts_id;
    uint32_t ts_thread_id; /* pthread_t */
    uint32_t ts_native_id;
    uint32_t ts_status; /* absent: the process has one holder of the GIL, which the runtime names */
    uint32_t status_mask;
    uint32_t status_attached;
    uint32_t ts_frame; /* the leaf frame, or the cframe that points to it */
    uint32_t ts_base;  /* the helper frame that is there when no other is: since 3.15 */
    uint32_t ts_chunk; /* newest data stack chunk */
    uint32_t ts_size;  /* bytes of a thread state that hold all of the above */
    /* _PyCFrame, on the C stack of the thread: 3.11 and 3.12 */
    uint32_t cframe_frame;
    uint32_t cframe_previous;
    uint32_t chunk_previous;
    uint32_t chunk_size;
    /* frame */
    uint32_t frame_previous;
    uint32_t frame_code;
    uint32_t frame_instr;
    uint32_t frame_owner;
    uint32_t frame_locals;
    uint32_t frame_generator; /* to 3.10: the generator that the frame belongs to, */
    uint32_t frame_state;     /* and whether it runs, itself or what it has called */
    uint32_t instr_scale;     /* bytes of one f_lasti; 0: frame_instr holds a pointer into the code */
    uint32_t frame_tlbc;      /* which of the code object's bytecodes runs: free-threaded, since 3.14 */
    uint32_t owner_helper;    /* frames of this owner, or a later one, are no Python frames */
    uint32_t owner_generator;
    uintptr_t executable_tags; /* bits of frame_code that are not the pointer's */
    uintptr_t helper_code; /* what frame_code has in frames that are no Python frames; 0 = not to be told */
    /* code object */
    uint32_t code_name;
    uint32_t code_filename;
    uint32_t code_first_line;
    uint32_t code_lines;
    uint32_t code_instructions;
    uint32_t code_tlbc; /* pointer to the array of the bytecodes, free-threaded, since 3.14 */
    uint32_t code_first_traceable;
    uint32_t code_identity[PYPROF__IDENTITY_WORDS]; /* words that together tell one code object from its
                                                       successor at the same address */
} pyprof__layout;

#define PYPROF__PY(minor) (0x03000000 + ((minor) << 16))
#define PYPROF__PY_NEWEST 15 /* the newest that was tested */
#define PYPROF__PY_SINCE(minor) (PY_VERSION_HEX >= PYPROF__PY(minor))

#define PYPROF__OFFSET(type, field) ((uint32_t)offsetof(type, field))

static void pyprof__layout_thread_state(pyprof__layout *layout) {
    layout->ts_prev = PYPROF__OFFSET(PyThreadState, prev);
    layout->ts_next = PYPROF__OFFSET(PyThreadState, next);
    layout->ts_interp = PYPROF__OFFSET(PyThreadState, interp);
    layout->ts_id = PYPROF__OFFSET(PyThreadState, id);
    layout->ts_thread_id = PYPROF__OFFSET(PyThreadState, thread_id);
    layout->ts_native_id = layout->ts_status = layout->ts_chunk = layout->ts_base = PYPROF__ABSENT;
    layout->cframe_frame = layout->cframe_previous = PYPROF__ABSENT;
    layout->chunk_previous = layout->chunk_size = PYPROF__ABSENT;
    layout->ts_size = layout->ts_id + (uint32_t)sizeof(uint64_t);
#if PYPROF__PY_SINCE(11)
    layout->ts_native_id = PYPROF__OFFSET(PyThreadState, native_thread_id);
#endif
#if PYPROF__PY_SINCE(15)
    layout->ts_base = PYPROF__OFFSET(PyThreadState, base_frame);
#endif
#if PYPROF__PY_SINCE(13)
    layout->ts_frame = PYPROF__OFFSET(PyThreadState, current_frame);
    layout->ts_status = PYPROF__OFFSET(PyThreadState, state);
    layout->status_mask = UINT32_MAX;
    layout->status_attached = 1; /* _Py_THREAD_ATTACHED, Include/internal/pycore_pystate.h */
#elif PYPROF__PY_SINCE(11)
    layout->ts_frame = PYPROF__OFFSET(PyThreadState, cframe);
    layout->cframe_frame = PYPROF__OFFSET(_PyCFrame, current_frame);
    layout->cframe_previous = PYPROF__OFFSET(_PyCFrame, previous);
    layout->ts_chunk = PYPROF__OFFSET(PyThreadState, datastack_chunk);
    layout->chunk_previous = PYPROF__OFFSET(_PyStackChunk, previous);
    layout->chunk_size = PYPROF__OFFSET(_PyStackChunk, size);
    if (layout->ts_size < layout->ts_chunk + sizeof(void *)) {
        layout->ts_size = layout->ts_chunk + (uint32_t)sizeof(void *);
    }
#else
    layout->ts_frame = PYPROF__OFFSET(PyThreadState, frame);
#endif
#if PYPROF__PY_SINCE(12) && !PYPROF__PY_SINCE(13)
    PyThreadState active; /* a bit field has no offset, but a value */
    memset(&active, 0, sizeof active);
    active._status.active = 1;
    layout->ts_status = PYPROF__OFFSET(PyThreadState, _status);
    memcpy(&layout->status_mask, (const char *)&active + layout->ts_status, sizeof layout->status_mask);
    layout->status_attached = layout->status_mask;
#endif
}

static void pyprof__layout_frame(pyprof__layout *layout) {
    layout->frame_owner = layout->frame_generator = layout->frame_state = layout->frame_tlbc = PYPROF__ABSENT;
    layout->owner_generator = 1;
    layout->owner_helper = PYPROF__ABSENT;
#if PYPROF__PY_SINCE(13)         /* the rest by its own description */
    layout->executable_tags = 3; /* Include/internal/pycore_stackref.h */
    layout->helper_code = (uintptr_t)&_Py_NoneStruct;
#if !PYPROF__PY_SINCE(PYPROF__PY_NEWEST + 1)
    layout->owner_helper = 3; /* FRAME_OWNED_BY_CSTACK; since 3.14 _INTERPRETER, and then _CSTACK */
#endif
#elif PYPROF__PY_SINCE(12) /* Include/internal/pycore_frame.h */
    layout->frame_code = 0;
    layout->frame_previous = 8;
    layout->frame_instr = 56;
    layout->frame_owner = 70;
    layout->frame_locals = 72;
    layout->owner_helper = 3; /* FRAME_OWNED_BY_CSTACK */
#elif PYPROF__PY_SINCE(11)
    layout->frame_code = 32;
    layout->frame_previous = 48;
    layout->frame_instr = 56;
    layout->frame_owner = 69;
    layout->frame_locals = 72;
#else
    layout->frame_code = PYPROF__OFFSET(PyFrameObject, f_code);
    layout->frame_previous = PYPROF__OFFSET(PyFrameObject, f_back);
    layout->frame_instr = PYPROF__OFFSET(PyFrameObject, f_lasti);
    layout->frame_locals = PYPROF__OFFSET(PyFrameObject, f_localsplus);
    layout->frame_generator = PYPROF__OFFSET(PyFrameObject, f_gen);
#if PYPROF__PY_SINCE(10)
    layout->frame_state = PYPROF__OFFSET(PyFrameObject, f_state);
#else
    layout->frame_state = PYPROF__OFFSET(PyFrameObject, f_executing);
#endif
    layout->instr_scale = PYPROF__PY_SINCE(10) ? 2 : 1;
#endif
}

static void pyprof__layout_code(pyprof__layout *layout) {
    layout->code_instructions = layout->code_first_traceable = layout->code_tlbc = PYPROF__ABSENT;
    layout->code_filename = PYPROF__OFFSET(PyCodeObject, co_filename);
    layout->code_first_line = PYPROF__OFFSET(PyCodeObject, co_firstlineno);
#if PYPROF__PY_SINCE(11)
    layout->code_name = PYPROF__OFFSET(PyCodeObject, co_qualname);
    layout->code_instructions = PYPROF__OFFSET(PyCodeObject, co_code_adaptive);
    layout->code_first_traceable = PYPROF__OFFSET(PyCodeObject, _co_firsttraceable);
#if PYPROF__PY_SINCE(14) && defined(Py_GIL_DISABLED)
    layout->code_tlbc = PYPROF__OFFSET(PyCodeObject, co_tlbc);
#endif
#else
    layout->code_name = PYPROF__OFFSET(PyCodeObject, co_name);
#endif
#if PYPROF__PY_SINCE(10)
    layout->code_lines = PYPROF__OFFSET(PyCodeObject, co_linetable);
#else
    layout->code_lines = PYPROF__OFFSET(PyCodeObject, co_lnotab);
#endif
    layout->code_identity[0] = layout->code_name;
    layout->code_identity[1] = layout->code_filename;
    layout->code_identity[2] = layout->code_lines;
    layout->code_identity[3] = PYPROF__OFFSET(PyCodeObject, co_consts);
    layout->code_identity[4] = layout->code_first_line & ~7u;
#if PYPROF__PY_SINCE(12)
    layout->code_identity[5] = PYPROF__OFFSET(PyCodeObject, co_version) & ~7u;
#else
    layout->code_identity[5] = PYPROF__OFFSET(PyCodeObject, co_names);
#endif
}

/* The offsets inside PyInterpreterState, which is not public: each accessor is a single load, so applied to
   words that hold their own number it tells which one it loads. */
static pyprof_result pyprof__layout_interpreter(pyprof__layout *layout, pyprof__memory *memory) {
    enum {
        words = 65536
    };
    uintptr_t *fake = (uintptr_t *)pyprof__alloc(memory, words * sizeof *fake);
    if (fake == NULL) {
        return PYPROF_ERROR_MEMORY;
    }
    for (uintptr_t i = 0; i < words; i++) {
        fake[i] = i;
    }
    PyInterpreterState *interp = (PyInterpreterState *)(void *)fake;
    uintptr_t next = (uintptr_t)PyInterpreterState_Next(interp);
    uintptr_t threads = (uintptr_t)PyInterpreterState_ThreadHead(interp);
    uintptr_t id = (uintptr_t)PyInterpreterState_GetID(interp);
    layout->interp_next = (uint32_t)(next * sizeof *fake);
    layout->interp_threads = (uint32_t)(threads * sizeof *fake);
    layout->interp_id = (uint32_t)(id * sizeof *fake);
    pyprof__release(memory, fake, words * sizeof *fake);
    bool is_told = next < words && threads < words && id < words && next != threads && threads != id;
    return is_told ? PYPROF_OK : PYPROF_ERROR_PYTHON;
}

#if PYPROF__PY_SINCE(13)
/* What _PyRuntime begins with (3.13: Include/internal/pycore_runtime.h, later pycore_debug_offsets.h), up to the code
   object. */
typedef struct pyprof__description {
    char cookie[8];
    uint64_t version, free_threaded;
    struct {
        uint64_t size, finalizing, interpreters_head;
    } runtime;
    struct {
        uint64_t size, id, next, threads_head;
#if PYPROF__PY_SINCE(14)
        uint64_t threads_main;
#endif
        uint64_t gc, imports_modules, sysdict, builtins, ceval_gil;
        uint64_t gil_state, gil_enabled, gil_locked, gil_holder;
#if PYPROF__PY_SINCE(14)
        uint64_t code_object_generation, tlbc_generation;
#endif
    } interp;
    struct {
        uint64_t size, prev, next, interp, current_frame;
#if PYPROF__PY_SINCE(15)
        uint64_t base_frame, last_profiled_frame, last_profiled_frame_seq;
#endif
        uint64_t thread_id, native_thread_id, datastack_chunk, status;
#if PYPROF__PY_SINCE(15)
        uint64_t holds_gil, gil_requested, current_exception, exc_state;
#endif
    } thread;
#if PYPROF__PY_SINCE(15)
    uint64_t exc_value;
#endif
    struct {
        uint64_t size, previous, executable, instr_ptr, localsplus, owner;
#if PYPROF__PY_SINCE(14)
        uint64_t stackpointer, tlbc_index;
#endif
    } frame;
    struct {
        uint64_t size, filename, name, qualname, linetable, firstlineno, argcount, localsplusnames;
        uint64_t localspluskinds, co_code_adaptive;
#if PYPROF__PY_SINCE(14)
        uint64_t co_tlbc;
#endif
    } code;
    struct {
        uint64_t size, ob_type;
    } object;
} pyprof__description;

/* Where the interpreter keeps it. Asked of the global offset table: a plain reference would have the linker put a copy
   of the whole structure into the program, of the size that it had in the CPython that the program was linked with. */
static const void *pyprof__runtime(void) {
    const void *runtime;
#if defined(__x86_64__)
    __asm__("movq _PyRuntime@GOTPCREL(%%rip), %0" : "=r"(runtime));
#elif defined(__aarch64__)
    __asm__("adrp %0, :got:_PyRuntime\n\tldr %0, [%0, :got_lo12:_PyRuntime]" : "=r"(runtime));
#else
    runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
#endif
    return runtime;
}

/* Whether a description fits what the public headers and the accessors say. Of a version that is newer than the newest
   known, whose description may look different, this is the evidence: it is believed if all of it agrees. */
static bool pyprof__description_agrees(const pyprof__layout *layout, const pyprof__description *self) {
    return self->interp.next == layout->interp_next && self->interp.threads_head == layout->interp_threads &&
           self->interp.id == layout->interp_id && self->thread.prev == layout->ts_prev &&
           self->thread.next == layout->ts_next && self->thread.interp == layout->ts_interp &&
           self->thread.current_frame == layout->ts_frame && self->thread.thread_id == layout->ts_thread_id &&
           self->thread.native_thread_id == layout->ts_native_id &&
           self->thread.status == PYPROF__OFFSET(PyThreadState, _status) &&
           self->code.qualname == layout->code_name && self->code.filename == layout->code_filename &&
           self->code.linetable == layout->code_lines && self->code.firstlineno == layout->code_first_line &&
           self->code.co_code_adaptive == layout->code_instructions &&
#if PYPROF__PY_SINCE(14) && defined(Py_GIL_DISABLED)
           self->code.co_tlbc == layout->code_tlbc &&
#endif
           self->object.size == sizeof(PyObject) && self->object.ob_type == PYPROF__OFFSET(PyObject, ob_type);
}

/* Whether fields of words, and at the end a byte, lie apart inside a frame. */
static bool pyprof__frame_is_sound(const pyprof__description *self) {
    const uint64_t words[] = {self->frame.previous, self->frame.executable, self->frame.instr_ptr,
                              self->frame.localsplus};
    const size_t count = sizeof words / sizeof *words;
    uint32_t taken = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t word = words[i] / sizeof(void *);
        if (words[i] % sizeof(void *) != 0 || word >= 32 || (taken >> word & 1) ||
            words[i] > self->frame.localsplus) {
            return false;
        }
        taken |= 1u << word;
    }
    return self->frame.owner < self->frame.localsplus && !(taken >> self->frame.owner / sizeof(void *) & 1) &&
           self->frame.localsplus < self->frame.size;
}

/* Takes over what the interpreter says of itself, if it adds up; built_for: the version of the headers. */
static pyprof_result pyprof__layout_adopt(pyprof__layout *layout, const pyprof__description *self,
                                          uint32_t built_for) {
    if (memcmp(self->cookie, "xdebugpy", sizeof self->cookie) != 0) {
        return PYPROF_ERROR_PYTHON;
    }
#if defined(Py_GIL_DISABLED)
    const uint64_t free_threaded = 1;
#else
    const uint64_t free_threaded = 0;
#endif
    if (self->version >> 16 != built_for >> 16 || self->free_threaded != free_threaded) {
        return PYPROF_ERROR_PYTHON_MISMATCH;
    }
    if (!pyprof__description_agrees(layout, self) || !pyprof__frame_is_sound(self)) {
        return PYPROF_ERROR_PYTHON;
    }
    layout->frame_previous = (uint32_t)self->frame.previous;
    layout->frame_code = (uint32_t)self->frame.executable;
    layout->frame_instr = (uint32_t)self->frame.instr_ptr;
    layout->frame_locals = (uint32_t)self->frame.localsplus;
    layout->frame_owner = (uint32_t)self->frame.owner;
#if PYPROF__PY_SINCE(14) && defined(Py_GIL_DISABLED)
    layout->frame_tlbc = (uint32_t)self->frame.tlbc_index;
#endif
    return PYPROF_OK;
}
#endif

/* Fills the row for the CPython that runs; refuses what it does not know. Needs no initialised Python. */
static pyprof_result pyprof__layout_init(pyprof__layout *layout, pyprof__memory *memory) {
    memset(layout, 0, sizeof *layout);
#if !PYPROF__PY_SINCE(8)
    (void)memory;
    return PYPROF_ERROR_PYTHON;
#elif defined(Py_TRACE_REFS) || (defined(Py_DEBUG) && !PYPROF__PY_SINCE(13))
    (void)memory;
    return PYPROF_ERROR_PYTHON_DEBUG;
#else
    int major = 0, minor = 0;
    if (sscanf(Py_GetVersion(), "%d.%d", &major, &minor) != 2 || major != PY_MAJOR_VERSION ||
        minor != PY_MINOR_VERSION) {
        return PYPROF_ERROR_PYTHON_MISMATCH;
    }
    pyprof__layout_thread_state(layout);
    pyprof__layout_frame(layout);
    pyprof__layout_code(layout);
    pyprof_result result = pyprof__layout_interpreter(layout, memory);
#if PYPROF__PY_SINCE(13)
    pyprof__description self;
    if (result == PYPROF_OK && pyprof__runtime() != NULL) {
        memcpy(&self, pyprof__runtime(), sizeof self);
        return pyprof__layout_adopt(layout, &self, PY_VERSION_HEX);
    }
#endif
    return result;
#endif
}

/* The thread state that is attached: of the calling thread (3.12 and later), of the process (before).
   Async-signal-safe in a thread that was ever attached: its thread-local storage exists. */
static uintptr_t pyprof__current_thread_state(void) {
#if PYPROF__PY_SINCE(13)
    return (uintptr_t)PyThreadState_GetUnchecked();
#else
    return (uintptr_t)_PyThreadState_UncheckedGet();
#endif
}

/* Whether the attached thread state of the process, as seen in a signal handler, belongs to this thread. */
static bool pyprof__is_own_thread_state(const pyprof__layout *layout, uintptr_t tstate) {
    if (layout->ts_status != PYPROF__ABSENT || tstate == (uintptr_t)PyGILState_GetThisThreadState()) {
        return true;
    }
    unsigned long thread_id = 0; /* it may be another thread's, which may be freeing it */
    return pyprof__read(tstate + layout->ts_thread_id, &thread_id, sizeof thread_id) &&
           thread_id == (unsigned long)pthread_self();
}

static uintptr_t pyprof__first_interpreter(void) {
    return (uintptr_t)PyInterpreterState_Head();
}

/* Whether a copied thread state was attached: it held its interpreter's GIL. */
static bool pyprof__is_attached(const pyprof__layout *layout, uintptr_t tstate, const void *copy) {
    if (layout->ts_status == PYPROF__ABSENT) {
        return pyprof__current_thread_state() == tstate;
    }
    uint32_t status;
    memcpy(&status, (const char *)copy + layout->ts_status, sizeof status);
    return (status & layout->status_mask) == layout->status_attached;
}

/* The same by a fresh look. */
static bool pyprof__is_attached_now(const pyprof__layout *layout, uintptr_t tstate) {
    if (layout->ts_status == PYPROF__ABSENT) {
        return pyprof__current_thread_state() == tstate;
    }
    uint32_t status = 0;
    return pyprof__read(tstate + layout->ts_status, &status, sizeof status) &&
           (status & layout->status_mask) == layout->status_attached;
}

/* Whether a thread state belongs to a thread at this moment: that of a thread being born changes hands, one id after
   the other (3.11: Modules/_threadmodule.c, thread_run), and a dead one's memory may be another's by now. */
static bool pyprof__is_bound_to(const pyprof__layout *layout, uintptr_t tstate, uintptr_t thread_id,
                                int32_t tid) {
    unsigned long now = 0, native = (unsigned long)tid;
    pyprof__piece pieces[2] = {{tstate + layout->ts_thread_id, &now, sizeof now},
                               {tstate + layout->ts_native_id, &native, sizeof native}};
    size_t count = layout->ts_native_id == PYPROF__ABSENT ? 1 : 2;
    return pyprof__read_pieces(pieces, count) && now == thread_id && native == (unsigned long)tid;
}

/* Whether what a thread state has for its leaf frame, and for its base, means that it has frames. */
static bool pyprof__points_to_frames(const pyprof__layout *layout, uintptr_t tstate, uintptr_t leaf,
                                     uintptr_t base) {
    bool is_root_cframe = layout->cframe_frame != PYPROF__ABSENT && leaf - tstate < sizeof(PyThreadState);
    return leaf != base && !is_root_cframe;
}

/* Whether a copied thread state may have frames: an unborn thread's has none, and until it is
   born it goes under the id of the thread that made it. */
static bool pyprof__may_have_frames(const pyprof__layout *layout, uintptr_t tstate, const void *copy) {
    uintptr_t word, base = 0;
    memcpy(&word, (const char *)copy + layout->ts_frame, sizeof word);
    if (layout->ts_base != PYPROF__ABSENT) {
        memcpy(&base, (const char *)copy + layout->ts_base, sizeof base);
    }
    return pyprof__points_to_frames(layout, tstate, word, base);
}

static bool pyprof__load_elsewhere(pyprof__reader *reader, uintptr_t address, void *to, size_t size) {
#if PYPROF__PY_SINCE(11) && !PYPROF__PY_SINCE(13)
    if (reader->tstate != 0 && address - reader->tstate <= sizeof(PyThreadState) - size) {
        memcpy(to, (const void *)address, size);
        return true;
    }
    for (uintptr_t chunk = reader->chunk; chunk != 0;) {
        const _PyStackChunk *live = (const _PyStackChunk *)chunk;
        if (address > chunk && address - chunk <= live->size - size) {
            reader->chunk = chunk;
            memcpy(to, (const void *)address, size);
            return true;
        }
        chunk = (uintptr_t)live->previous;
    }
#endif
    if (reader->view != NULL) {
        return pyprof__view_read(reader->view, address, to, size);
    }
    return pyprof__read(address, to, size);
}

/* 3.11 and 3.12: a new cframe is published before its frame pointer is set, and in between that holds whatever
   was on the C stack. It is sound if the chain that begins there leads to the frame of the cframe before. */
static bool pyprof__leaf_is_linked(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t cframe,
                                   uintptr_t leaf) {
    uintptr_t before = 0, below = 0;
    if (!pyprof__load_word(reader, cframe + layout->cframe_previous, &before)) {
        return false;
    }
    if (before != 0 && !pyprof__load_word(reader, before + layout->cframe_frame, &below)) {
        return false;
    }
    uintptr_t mark = leaf; /* a link that leads back to it closes a circle (Brent, 1980) */
    for (uint32_t steps = 1; leaf != below; steps++) {
        if (leaf == 0 || steps > 1u << 20 ||
            !pyprof__load_word(reader, leaf + layout->frame_previous, &leaf) || leaf == mark) {
            return false;
        }
        mark = (steps & (steps - 1)) == 0 ? leaf : mark;
    }
    return true;
}

/* The leaf frame of a thread state whose ts_frame is word; 0 = none. False: it cannot be told just now. */
static bool pyprof__leaf_from(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t word,
                              uintptr_t *leaf) {
    *leaf = word;
    if (layout->cframe_frame == PYPROF__ABSENT || word == 0) {
        return true;
    }
    return pyprof__load_word(reader, word + layout->cframe_frame, leaf) &&
           pyprof__leaf_is_linked(layout, reader, word, *leaf);
}

static bool pyprof__leaf_frame(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t tstate,
                               uintptr_t *leaf) {
    uintptr_t word = 0;
    return pyprof__load_word(reader, tstate + layout->ts_frame, &word) &&
           pyprof__leaf_from(layout, reader, word, leaf);
}

/* Whether what looks like the innermost frames has code objects: the last doubt that a chain of links leaves,
   as one that is not sound may end by chance. Asks the kernel once. */
static bool pyprof__codes_are_real(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame) {
    enum {
        most = 2
    };
    struct iovec from[most];
    uintptr_t types[most];
    size_t count = 0;
    for (int i = 0; i < most && frame != 0; i++) {
        uintptr_t code = 0;
        unsigned char owner = 0;
        if (!pyprof__load_word(reader, frame + layout->frame_code, &code) ||
            !pyprof__load(reader, frame + layout->frame_owner, &owner, 1) ||
            !pyprof__load_word(reader, frame + layout->frame_previous, &frame)) {
            return false;
        }
        if (owner < layout->owner_helper) {
            from[count].iov_base = (void *)(code + offsetof(PyObject, ob_type));
            from[count++].iov_len = sizeof *types;
        }
    }
    if (count > 0 && !pyprof__read_places(from, count, types, count * sizeof *types)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (types[i] != (uintptr_t)&PyCode_Type) {
            return false;
        }
    }
    return true;
}

/* The same for the calling thread's own, attached thread state, whose ts_frame is word: a plain load wherever it is
   sound. */
static bool pyprof__own_leaf_frame(const pyprof__layout *layout, uintptr_t tstate, uintptr_t word,
                                   uintptr_t *leaf) {
    if (layout->cframe_frame == PYPROF__ABSENT) {
        *leaf = word;
        return true;
    }
    /* The entry frames of 3.12 lie beside the cframe, in the same C function. */
    const uintptr_t near_by = 1024;
    uintptr_t chunk = *(const uintptr_t *)(tstate + layout->ts_chunk);
    pyprof__reader reader = {word - near_by, word + near_by, chunk, tstate, NULL};
    *leaf = *(const uintptr_t *)(word + layout->cframe_frame);
    if (!pyprof__leaf_is_linked(layout, &reader, word, *leaf)) {
        return false;
    }
    reader.chunk = chunk;
    return pyprof__codes_are_real(layout, &reader, *leaf);
}

/* One frame as a walk meets it. */
typedef struct pyprof__found {
    uintptr_t previous;
    uintptr_t code;
    int32_t instr; /* byte offset of the current instruction */
    bool is_shown; /* not a helper frame of C, nor one that has not begun to run */
    bool is_generator;
} pyprof__found;

/* The owner of a frame, where frames have one. From 3.12 on, C code enters Python through a frame of its own: any
   other frame that nothing follows is a generator's that is just being left, and its callers cannot be told. */
PYPROF__INLINE bool pyprof__read_owner(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame,
                                       pyprof__found *found) {
    unsigned char owner = 0;
    if (!pyprof__load(reader, frame + layout->frame_owner, &owner, 1)) {
        return false;
    }
    bool has_helpers = layout->owner_helper != PYPROF__ABSENT || layout->helper_code != 0;
    found->is_shown =
        owner < layout->owner_helper && (layout->helper_code == 0 || found->code != layout->helper_code);
    found->is_generator = owner == layout->owner_generator;
    return !has_helpers || !found->is_shown || found->previous != 0;
}

/* To 3.10: f_lasti, -1 before the first instruction. */
PYPROF__INLINE bool pyprof__read_last_index(const pyprof__layout *layout, pyprof__reader *reader,
                                            uintptr_t frame, pyprof__found *found) {
    int32_t last = 0;
    uintptr_t generator = 0;
    if (!pyprof__load(reader, frame + layout->frame_instr, &last, sizeof last) ||
        !pyprof__load_word(reader, frame + layout->frame_generator, &generator)) {
        return false;
    }
    found->instr = (int32_t)((uint32_t)last * layout->instr_scale); /* last may be garbage, and overflow */
    found->is_shown = last >= 0;
    found->is_generator = generator != 0;
    return true;
}

/* Whether what ended a walk from outside had not just lost its caller: to 3.10 a frame does when it ends, and by then it
   does not run. */
static bool pyprof__is_outermost(const pyprof__layout *layout, uintptr_t frame) {
    signed char state = 0;
    uintptr_t previous = 0;
    pyprof__piece pieces[2] = {{frame + layout->frame_state, &state, 1},
                               {frame + layout->frame_previous, &previous, sizeof previous}};
    if (layout->frame_state == PYPROF__ABSENT || frame == 0) {
        return true;
    }
    bool is_read = pyprof__read_pieces(pieces, 2);
#if PYPROF__PY_SINCE(10) && !PYPROF__PY_SINCE(11)
    bool is_running = state == FRAME_EXECUTING || state == FRAME_UNWINDING;
#else
    bool is_running = state != 0;
#endif
    return is_read && is_running && previous == 0;
}

/* Where the instructions lie that a frame runs. A free-threaded build has copies of them, in an array of the code
   object that begins with its length; one that is outgrown is kept until no attached thread can look at it
   (3.14: Objects/codeobject.c, create_tlbc_lock_held). */
PYPROF__INLINE bool pyprof__read_bytecode(const pyprof__layout *layout, pyprof__reader *reader,
                                          uintptr_t frame, uintptr_t code, uintptr_t *bytecode) {
    *bytecode = code + layout->code_instructions;
    if (layout->frame_tlbc == PYPROF__ABSENT) {
        return true;
    }
    int32_t index = 0;
    uintptr_t copies = 0;
    Py_ssize_t count = 0;
    return pyprof__load(reader, frame + layout->frame_tlbc, &index, sizeof index) &&
           pyprof__load_word(reader, code + layout->code_tlbc, &copies) &&
           pyprof__load(reader, copies, &count, sizeof count) && index >= 0 && index < count &&
           pyprof__load_word(reader, copies + sizeof count + (uintptr_t)index * sizeof copies, bytecode);
}

/* Since 3.11: a pointer into the code; before its first traceable instruction a frame is incomplete. */
PYPROF__INLINE bool pyprof__read_instruction(const pyprof__layout *layout, pyprof__reader *reader,
                                             uintptr_t frame, pyprof__found *found) {
    int32_t first = 0;
    uintptr_t pointer = 0, bytecode = 0;
    if (!pyprof__load_word(reader, frame + layout->frame_instr, &pointer) ||
        !pyprof__read_bytecode(layout, reader, frame, found->code, &bytecode) ||
        !pyprof__load(reader, found->code + layout->code_first_traceable, &first, sizeof first)) {
        return false;
    }
    intptr_t offset = (intptr_t)(pointer - bytecode);
    found->is_shown = found->is_generator || offset >= (intptr_t)first * 2;
    found->instr = (int32_t)offset;
    return !found->is_shown || (offset >= -2 && offset <= INT32_MAX);
}

/* False: not what a frame looks like, as it is being changed. */
PYPROF__INLINE bool pyprof__read_frame(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame,
                                       pyprof__found *found) {
    uintptr_t type = 0;
    found->is_shown = true;
    found->is_generator = false;
    if (!pyprof__load_word(reader, frame + layout->frame_previous, &found->previous) ||
        !pyprof__load_word(reader, frame + layout->frame_code, &found->code)) {
        return false;
    }
    found->code &= ~layout->executable_tags;
    if ((layout->frame_owner != PYPROF__ABSENT && !pyprof__read_owner(layout, reader, frame, found))) {
        return false;
    }
    if (!found->is_shown) {
        return true;
    }
    if (!pyprof__load_word(reader, found->code + offsetof(PyObject, ob_type), &type) ||
        type != (uintptr_t)&PyCode_Type) {
        return false;
    }
    return layout->instr_scale != 0 ? pyprof__read_last_index(layout, reader, frame, found)
                                    : pyprof__read_instruction(layout, reader, frame, found);
}

#if !PYPROF__PY_SINCE(12)
/* Adds the length and the end of some bytes to a hash. */
PYPROF__INLINE bool pyprof__mix_bytes(pyprof__reader *reader, uintptr_t data, size_t size, uint64_t *hash) {
    uint64_t end[2] = {0, 0};
    size_t part = size < sizeof end ? size : sizeof end;
    if (part > 0 && !pyprof__load(reader, data + size - part, end, part)) {
        return false;
    }
    *hash = pyprof__mix(pyprof__mix(pyprof__mix(*hash, size), end[0]), end[1]);
    return true;
}

/* A str by its own hash, which those that were interned have, else by its text. */
PYPROF__INLINE bool pyprof__mix_text(pyprof__reader *reader, uintptr_t object, uint64_t *hash) {
    PyASCIIObject head;
    if (!pyprof__load(reader, object, &head, sizeof head)) {
        return false;
    }
    if (head.hash != -1) {
        *hash = pyprof__mix(*hash, (uint64_t)head.hash);
        return true;
    }
    uintptr_t data = object + (head.state.ascii ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject));
    return pyprof__mix_bytes(reader, data, (size_t)head.length * head.state.kind, hash);
}

/* Before 3.12 code objects have no version, and in a loop of exec or eval all parts of one tend to lie where
   those of the one before lay: what they hold has to count. */
PYPROF__INLINE bool pyprof__mix_content(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t code,
                                        uint64_t *hash) {
    uintptr_t name = 0, filename = 0, lines = 0;
    PyVarObject head;
    return pyprof__load_word(reader, code + layout->code_name, &name) &&
           pyprof__load_word(reader, code + layout->code_filename, &filename) &&
           pyprof__load_word(reader, code + layout->code_lines, &lines) &&
           pyprof__load(reader, lines, &head, sizeof head) && pyprof__mix_text(reader, name, hash) &&
           pyprof__mix_text(reader, filename, hash) &&
           pyprof__mix_bytes(reader, lines + offsetof(PyBytesObject, ob_sval), (size_t)head.ob_size, hash);
}
#endif

/* Whether what looks like an object is one: of a dead one the allocators use the first word, which counts its
   references, for links of their own, and what it refers to may be reused while it still looks the same. */
static bool pyprof__object_lives(pyprof__reader *reader, uintptr_t object) {
#if defined(Py_GIL_DISABLED) /* there the first word names a thread; the counts follow (Include/object.h) */
    PyObject head;
    return pyprof__load(reader, object, &head, sizeof head) &&
           (head.ob_ref_local != 0 || head.ob_ref_shared >> 2 > 0);
#else
    uint64_t references = 0;
    bool is_read = pyprof__load(reader, object, &references, sizeof references);
#if PYPROF__PY_SINCE(14) /* 32 bits of count, 16 for its overflow, 16 of flags (Include/refcount.h) */
    references &= 0xffffffffffffu;
#endif
    return is_read && references != 0 && references <= UINT32_MAX;
#endif
}

/* A number that tells this code object from others that lie or lay at the same address. */
PYPROF__INLINE bool pyprof__code_print(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t code,
                                       uint64_t *print) {
    uint64_t hash = 0;
    for (size_t i = 0; i < PYPROF__IDENTITY_WORDS; i++) {
        uintptr_t word = 0;
        if (!pyprof__load_word(reader, code + layout->code_identity[i], &word)) {
            return false;
        }
        hash = pyprof__mix(hash, word);
    }
#if !PYPROF__PY_SINCE(12)
    if (!pyprof__mix_content(layout, reader, code, &hash)) {
        return false;
    }
#endif
    *print = hash;
    return true;
}

/* Appends a code point; lone surrogates come out as generalised UTF-8 (three bytes), which writers escape. */
static size_t pyprof__utf8_put(char *out, uint32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | (c >> 6));
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | (c >> 12));
        out[1] = (char)(0x80 | ((c >> 6) & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | (c >> 18));
    out[1] = (char)(0x80 | ((c >> 12) & 0x3f));
    out[2] = (char)(0x80 | ((c >> 6) & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

#define PYPROF__TEXT_CHARS 4096u /* names beyond that are cut and end in "..." */

typedef struct pyprof__text {
    size_t size;
    char utf8[PYPROF__TEXT_CHARS * 4 + 4];
    unsigned char raw[PYPROF__TEXT_CHARS * 4];
} pyprof__text;

/* Copies a str object's text as UTF-8; false if there is no such object there (any more). */
static bool pyprof__read_text(uintptr_t object, pyprof__text *text) {
    PyASCIIObject head;
    if (!pyprof__read(object, &head, sizeof head) ||
        (uintptr_t)Py_TYPE((PyObject *)&head) != (uintptr_t)&PyUnicode_Type || !head.state.compact ||
        head.length < 0) {
        return false;
    }
    size_t width = head.state.kind;
    size_t count = (size_t)head.length < PYPROF__TEXT_CHARS ? (size_t)head.length : PYPROF__TEXT_CHARS;
    uintptr_t data = object + (head.state.ascii ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject));
    if ((width != 1 && width != 2 && width != 4) ||
        (count > 0 && !pyprof__read(data, text->raw, count * width))) {
        return false;
    }
    text->size = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t c = 0;
        memcpy(&c, text->raw + i * width,
               width); /* little-endian, as every Linux that CPython 3.8+ ships for */
        if (c > 0x10ffff) {
            return false;
        }
        text->size += pyprof__utf8_put(text->utf8 + text->size, c);
    }
    if (count < (size_t)head.length) {
        memcpy(text->utf8 + text->size, "...", 3);
        text->size += 3;
    }
    return true;
}

/* A code object's fields, read from outside. */
typedef struct pyprof__code_fields {
    uintptr_t name;
    uintptr_t filename;
    uintptr_t lines; /* bytes object */
    int32_t first_line;
} pyprof__code_fields;

static bool pyprof__read_code(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t code,
                              pyprof__code_fields *fields) {
    return pyprof__load_word(reader, code + layout->code_name, &fields->name) &&
           pyprof__load_word(reader, code + layout->code_filename, &fields->filename) &&
           pyprof__load_word(reader, code + layout->code_lines, &fields->lines) &&
           pyprof__load(reader, code + layout->code_first_line, &fields->first_line,
                        sizeof fields->first_line);
}

/* Where a bytes object's data lies and how long it is. */
static bool pyprof__bytes_data(uintptr_t object, uintptr_t *data, size_t *size) {
    PyVarObject head;
    if (!pyprof__read(object, &head, sizeof head) ||
        (uintptr_t)Py_TYPE((PyObject *)&head) != (uintptr_t)&PyBytes_Type || head.ob_size < 0) {
        return false;
    }
    *data = object + offsetof(PyBytesObject, ob_sval);
    *size = (size_t)head.ob_size;
    return true;
}

/* Lines come from tables that may hold anything, so a sum may overflow. */
static int32_t pyprof__add_line(int32_t line, int32_t delta) {
    return (int32_t)((uint32_t)line + (uint32_t)delta);
}

#if PYPROF__PY_SINCE(11)
/* Numbers of the location table: 6 bits a byte, least significant first, bit 6 = more follow. False = the
   table ends in the middle. Source: CPython, InternalDocs/code_objects.md (Objects/locations.md before). */
static bool pyprof__varint(const unsigned char **at, const unsigned char *end, uint32_t *value) {
    *value = 0;
    for (unsigned shift = 0; *at < end; shift += 6) {
        unsigned char byte = *(*at)++;
        if (shift < 32) {
            *value |= (uint32_t)(byte & 63) << shift;
        }
        if (!(byte & 64)) {
            return true;
        }
    }
    return false;
}

/* The line of the instruction at a byte offset. Entries without a line keep the line before. */
static int32_t pyprof__line_at(const unsigned char *table, size_t size, int32_t first_line, int32_t instr) {
    const unsigned char *at = table, *end = table + size;
    int32_t line = first_line;
    int32_t next = 0;
    while (at < end) {
        unsigned char head = *at++;
        unsigned kind = (head >> 3) & 15;
        uint32_t delta = 0;
        if (!(head & 0x80)) {
            break;
        }
        next += ((head & 7) + 1) * 2;
        if (kind == 13 || kind == 14) {
            if (!pyprof__varint(&at, end, &delta)) {
                break;
            }
            line = pyprof__add_line(line, (delta & 1) ? -(int32_t)(delta >> 1) : (int32_t)(delta >> 1));
        } else if (kind >= 10 && kind <= 12) {
            line = pyprof__add_line(line, (int32_t)kind - 10);
        }
        while (at < end && !(*at & 0x80)) {
            at++; /* columns, and for the long form the end line */
        }
        if (instr < next) {
            break;
        }
    }
    return line;
}
#elif PYPROF__PY_SINCE(10)
/* Pairs of (length in bytes, signed line delta); -128 = no line: such ranges keep the line before.
   Source: CPython 3.10, Objects/lnotab_notes.txt. */
static int32_t pyprof__line_at(const unsigned char *table, size_t size, int32_t first_line, int32_t instr) {
    int32_t line = first_line;
    int32_t next = 0;
    for (size_t i = 0; i + 1 < size; i += 2) {
        signed char delta = (signed char)table[i + 1];
        next += table[i];
        line = pyprof__add_line(line, delta == -128 ? 0 : delta);
        if (instr < next) {
            break;
        }
    }
    return line;
}
#else
/* Pairs of (address step, signed line step). Source: CPython 3.8, Objects/lnotab_notes.txt. */
static int32_t pyprof__line_at(const unsigned char *table, size_t size, int32_t first_line, int32_t instr) {
    int32_t line = first_line;
    int32_t address = 0;
    for (size_t i = 0; i + 1 < size; i += 2) {
        address += table[i];
        if (address > instr) {
            break;
        }
        line = pyprof__add_line(line, (signed char)table[i + 1]);
    }
    return line;
}
#endif

/* Attributes of instances, for the names of threading.Thread objects: keys and values as a dict keeps them. */
typedef struct pyprof__attributes {
    uintptr_t keys;
    uintptr_t values; /* array of values beside the keys; 0 = they lie between the keys */
} pyprof__attributes;

/* Where PyDictValues keeps its array. Source: Include/internal/pycore_dict.h. */
#define PYPROF__VALUES_OFFSET (PYPROF__PY_SINCE(13) ? 8u : 0u)

static bool pyprof__dict_attributes(pyprof__view *view, uintptr_t dict, pyprof__attributes *attributes) {
    uintptr_t values = 0;
    if (dict == 0 ||
        !pyprof__view_read(view, dict + offsetof(PyDictObject, ma_keys), &attributes->keys,
                           sizeof(uintptr_t)) ||
        !pyprof__view_read(view, dict + offsetof(PyDictObject, ma_values), &values, sizeof values)) {
        return false;
    }
    attributes->values = values != 0 ? values + PYPROF__VALUES_OFFSET : 0;
    return true;
}

#if PYPROF__PY_SINCE(11)
#if defined(Py_GIL_DISABLED)
#define PYPROF__MANAGED_DICT_BEFORE (1 * sizeof(uintptr_t))
#else
#define PYPROF__MANAGED_DICT_BEFORE (3 * sizeof(uintptr_t))
#endif

#define PYPROF__INLINE_VALUES_FLAG (1ul << 2) /* Py_TPFLAGS_INLINE_VALUES, since 3.13 */

/* Managed dicts lie before the object: values at -4 words and dict at -3 (3.11), one tagged word at -3 (3.12),
   dict at -3, free-threaded -1, with the values behind the object (3.13). Source: Include/internal/pycore_object.h. */
static bool pyprof__managed_attributes(pyprof__view *view, uintptr_t object, uintptr_t type,
                                       unsigned long flags, pyprof__attributes *attributes) {
    uintptr_t dict = 0, values = 0;
    (void)flags;
    if (!pyprof__view_read(view, object - PYPROF__MANAGED_DICT_BEFORE, &dict, sizeof dict)) {
        return false;
    }
#if PYPROF__PY_SINCE(13)
    unsigned char head[4] = {0};
    Py_ssize_t size = 0;
    if (!pyprof__view_read(view, type + offsetof(PyTypeObject, tp_basicsize), &size, sizeof size)) {
        return false;
    }
    uintptr_t inline_values = object + (uintptr_t)size;
    bool has_inline_values = dict == 0 && (flags & PYPROF__INLINE_VALUES_FLAG);
    if (has_inline_values && pyprof__view_read(view, inline_values, head, sizeof head) && head[3] != 0) {
        values = inline_values;
    }
#elif PYPROF__PY_SINCE(12)
    values = (dict & 1) ? dict + 1 : 0;
#else
    if (!pyprof__view_read(view, object - 4 * sizeof values, &values, sizeof values)) {
        return false;
    }
#endif
    if (values == 0) {
        return pyprof__dict_attributes(view, dict, attributes);
    }
    attributes->values = values + PYPROF__VALUES_OFFSET;
    return pyprof__view_read(view, type + offsetof(PyHeapTypeObject, ht_cached_keys), &attributes->keys,
                             sizeof(uintptr_t));
}
#endif

static bool pyprof__instance_attributes(pyprof__view *view, uintptr_t object,
                                        pyprof__attributes *attributes) {
    uintptr_t type = 0, dict = 0;
    unsigned long flags = 0;
    Py_ssize_t offset = 0;
    if (!pyprof__view_read(view, object + offsetof(PyObject, ob_type), &type, sizeof type) ||
        !pyprof__view_read(view, type + offsetof(PyTypeObject, tp_flags), &flags, sizeof flags) ||
        !pyprof__view_read(view, type + offsetof(PyTypeObject, tp_dictoffset), &offset, sizeof offset) ||
        !(flags & Py_TPFLAGS_HEAPTYPE)) {
        return false;
    }
#if PYPROF__PY_SINCE(11)
    if (flags & (1ul << 4)) { /* Py_TPFLAGS_MANAGED_DICT */
        return pyprof__managed_attributes(view, object, type, flags, attributes);
    }
#endif
    return offset > 0 && pyprof__view_read(view, object + (uintptr_t)offset, &dict, sizeof dict) &&
           pyprof__dict_attributes(view, dict, attributes);
}

/* The keys of a dict. Source: Objects/dict-common.h (to 3.10), Include/internal/pycore_dict.h (from 3.11). */
typedef struct pyprof__dict_keys {
#if PYPROF__PY_SINCE(11)
    Py_ssize_t references;
    uint8_t log2_size, log2_index_bytes, kind;
#if defined(Py_GIL_DISABLED)
    uint8_t mutex;
#endif
    uint32_t version;
    Py_ssize_t usable, count;
#else
    Py_ssize_t references, size;
    void *lookup;
    Py_ssize_t usable, count;
#endif
} pyprof__dict_keys;

/* Where the entries of the keys begin, how long one is and where in it the key lies (the value follows). */
static uintptr_t pyprof__dict_entries(const pyprof__dict_keys *keys, uintptr_t address, size_t *stride,
                                      size_t *key_at) {
#if PYPROF__PY_SINCE(11)
    *stride = keys->kind == 0 ? 24 : 16;
    *key_at = keys->kind == 0 ? 8 : 0;
    return address + sizeof *keys + ((size_t)1 << (keys->log2_index_bytes & 31));
#else
    size_t width = keys->size <= 0xff ? 1 : keys->size <= 0xffff ? 2 : 4;
    *stride = 24;
    *key_at = 8;
    return address + sizeof *keys + (size_t)keys->size * width;
#endif
}

static bool pyprof__text_is(uintptr_t object, const char *text, pyprof__text *scratch) {
    return object != 0 && pyprof__read_text(object, scratch) && scratch->size == strlen(text) &&
           memcmp(scratch->utf8, text, scratch->size) == 0;
}

/* The value of an instance attribute, 0 if it cannot be found. *key remembers the name's str object: interned
   names are mostly that one, so that texts are compared only if it is not met. */
static uintptr_t pyprof__read_attribute(pyprof__view *view, uintptr_t object, const char *name,
                                        uintptr_t *key, pyprof__text *text) {
    pyprof__attributes attributes;
    pyprof__dict_keys keys;
    size_t stride, key_at;
    if (!pyprof__instance_attributes(view, object, &attributes) ||
        !pyprof__view_read(view, attributes.keys, &keys, sizeof keys) || keys.count < 0 || keys.count > 256) {
        return 0;
    }
    uintptr_t entries = pyprof__dict_entries(&keys, attributes.keys, &stride, &key_at) + key_at;
    for (uintptr_t i = 0; i < 2 * (uintptr_t)keys.count; i++) {
        bool by_text = i >= (uintptr_t)keys.count; /* the second time round */
        uintptr_t at = i % (uintptr_t)keys.count;
        uintptr_t entry[2] = {0, 0};
        if (!pyprof__view_read(view, entries + at * stride, entry, sizeof entry)) {
            return 0;
        }
        if (by_text ? !pyprof__text_is(entry[0], name, text) : entry[0] != *key || *key == 0) {
            continue;
        }
        *key = entry[0];
        uintptr_t value = attributes.values + at * sizeof(uintptr_t);
        if (attributes.values != 0 && !pyprof__view_read(view, value, &entry[1], sizeof(uintptr_t))) {
            return 0;
        }
        return entry[1];
    }
    return 0;
}

/* Where on the C stack of its thread a thread state was last entered from C; the lower, the later. 0 = not to be told:
   to 3.10 nothing of it lies there. */
static uintptr_t pyprof__entry_address(const pyprof__layout *layout, pyprof__reader *reader,
                                       uintptr_t frame) {
    uintptr_t code;
    if (layout->cframe_frame != PYPROF__ABSENT) {
        return frame; /* the cframe lies there */
    }
    for (int steps = 0; layout->helper_code != 0 && frame != 0 && steps < 1 << 16; steps++) {
        if (!pyprof__load_word(reader, frame + layout->frame_code, &code)) {
            return 0;
        }
        if ((code & ~layout->executable_tags) == layout->helper_code) {
            return frame;
        }
        if (!pyprof__load_word(reader, frame + layout->frame_previous, &frame)) {
            return 0;
        }
    }
    return 0;
}

// >>capture
// One stack, read by the thread itself in a signal handler or by the sampler from outside.

typedef struct pyprof__frame {
    uintptr_t code;
    uint64_t print;  /* see pyprof__code_print */
    int32_t instr;   /* byte offset of the current instruction */
    uint32_t unused; /* zero: frames are compared as bytes */
} pyprof__frame;

typedef struct pyprof__stack {
    pyprof__frame *frames; /* leaf first */
    uint32_t count;
    uint32_t capacity;
    uintptr_t leaf;             /* address of the innermost frame */
    uintptr_t root;             /* of the outermost; 0 = none */
    uint32_t inner;             /* so many of them are of the interpreter that the thread is in; of these, */
    uintptr_t root_first_local; /* the outermost's first local variable */
    bool root_is_generator;
    bool is_cut;     /* there were more, further out */
    bool is_partial; /* there were more, further in, that cannot be told */
} pyprof__stack;

/* Follows the frames outwards. False: something on the way was no frame. */
PYPROF__INLINE bool pyprof__walk(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t leaf,
                                 pyprof__stack *stack) {
    pyprof__found found;
    stack->count = 0;
    stack->leaf = leaf;
    stack->root = stack->root_first_local = 0;
    stack->inner = 0;
    stack->root_is_generator = stack->is_cut = stack->is_partial = false;
    uint32_t steps = 0;
    for (uintptr_t frame = leaf; frame != 0; frame = found.previous) {
        if (++steps > 4 * stack->capacity || !pyprof__read_frame(layout, reader, frame, &found)) {
            return false;
        }
        if (!found.is_shown) {
            continue;
        }
        if (stack->count == stack->capacity) {
            stack->is_cut = true;
            return true;
        }
        pyprof__frame *out = &stack->frames[stack->count++];
        if (!pyprof__code_print(layout, reader, found.code, &out->print)) {
            return false;
        }
        out->code = found.code;
        out->instr = found.instr;
        out->unused = 0;
        stack->root = frame;
        stack->inner = stack->count;
        stack->root_is_generator = found.is_generator;
    }
    if (stack->root != 0 &&
        !pyprof__load_word(reader, stack->root + layout->frame_locals, &stack->root_first_local)) {
        return false;
    }
    stack->root_first_local &= ~layout->executable_tags;
    return true;
}

/* Among the frames of a stack, a mark says in which interpreter those further in run. */
static inline pyprof__frame pyprof__mark(int64_t interpreter, int32_t naming) {
    pyprof__frame mark = {0, (uint64_t)interpreter, naming, 0};
    return mark;
}

static inline bool pyprof__is_mark(const pyprof__frame *frame) {
    return frame->code == 0;
}

/* One OS thread in several interpreters: it has a thread state in each. It leaves the one that it entered last before it
   goes on with one further out, so those that have frames are nested, and all but the innermost stand still. */
typedef struct pyprof__level {
    uintptr_t tstate;
    uintptr_t interp;
    uint64_t id; /* of the thread state */
    int64_t interp_id;
    uintptr_t word; /* in the handler: what its ts_frame was when it was found to be this thread's */
} pyprof__level;

#define PYPROF__LEVELS_MAX 8u
typedef struct pyprof__levels {
    uint32_t count;
    uint32_t known;      /* of all items: behind the first count, thread states without frames */
    bool is_cut;         /* there were more, further out */
    bool is_whole;       /* the thread has no thread state beside these */
    int32_t naming;      /* see pyprof__names */
    uintptr_t thread_id; /* pthread_t */
    pyprof__level items[PYPROF__LEVELS_MAX]; /* innermost first */
} pyprof__levels;

typedef enum pyprof__level_state {
    PYPROF__LEVEL_GONE, /* it is not what it was when the lists were read, or cannot be read */
    PYPROF__LEVEL_LEFT, /* it has no frames */
    PYPROF__LEVEL_STANDS
} pyprof__level_state;

/* What became of a level since the lists were read. Async-signal-safe. */
static pyprof__level_state pyprof__level_now(const pyprof__layout *layout, uintptr_t thread_id,
                                             const pyprof__level *level) {
    const uint32_t offsets[] = {layout->ts_interp, layout->ts_id, layout->ts_thread_id, layout->ts_frame,
                                layout->ts_base};
    uint64_t words[] = {0, 0, 0, 0, 0};
    struct iovec from[sizeof offsets / sizeof *offsets];
    size_t count = layout->ts_base == PYPROF__ABSENT ? 4 : 5;
    for (size_t i = 0; i < count; i++) {
        from[i].iov_base = (void *)(level->tstate + offsets[i]);
        from[i].iov_len = sizeof *words;
    }
    if (!pyprof__read_places(from, count, words, count * sizeof *words) || words[0] != level->interp ||
        words[1] != level->id || words[2] != thread_id) {
        return PYPROF__LEVEL_GONE;
    }
    bool stands = pyprof__points_to_frames(layout, level->tstate, words[3], words[4]);
    return stands ? PYPROF__LEVEL_STANDS : PYPROF__LEVEL_LEFT;
}

static void pyprof__move_level(pyprof__levels *levels, uint32_t from, uint32_t to) {
    const pyprof__level moved = levels->items[from];
    memmove(&levels->items[to + 1], &levels->items[to], (from - to) * sizeof moved);
    levels->items[to] = moved;
}

/* A thread may have gone to other interpreters since its lists were read; tstate is where it is. What it entered on its
   way is further in than what it was in before, and what it left has no frames. Async-signal-safe. False: it cannot be
   told, and nothing was changed. */
static bool pyprof__follow(const pyprof__layout *layout, pyprof__levels *levels, uintptr_t tstate) {
    uint32_t stand = 0, entered = 0, place = 0, at = 0;
    while (at < levels->known && levels->items[at].tstate != tstate) {
        at++;
    }
    if (at == levels->known || (!levels->is_whole && at > 0)) {
        return false;
    }
    for (uint32_t i = 0; i < levels->known; i++) {
        pyprof__level_state now = pyprof__level_now(layout, levels->thread_id, &levels->items[i]);
        if (now == PYPROF__LEVEL_GONE && (i < levels->count || i == at)) {
            return false;
        }
        if (now == PYPROF__LEVEL_STANDS && i != at) {
            stand |= 1u << i;
            entered += i >= levels->count;
        }
    }
    if (entered > 1) {
        return false; /* in which order were they? */
    }
    for (uint32_t i = 0; i < levels->known; i++) {
        if (stand >> i & 1) {
            pyprof__move_level(levels, i, i < levels->count ? place : 0);
            place++;
        }
    }
    for (at = 0; levels->items[at].tstate != tstate;) {
        at++;
    }
    pyprof__move_level(levels, at, 0);
    levels->count = place + 1;
    return true;
}

/* Adds the stack of one level further out. */
PYPROF__INLINE bool pyprof__walk_level(const pyprof__layout *layout, pyprof__reader *reader,
                                       const pyprof__levels *levels, const pyprof__level *level,
                                       pyprof__stack *stack) {
    uintptr_t leaf = 0;
    pyprof__stack rest = *stack;
    rest.frames += stack->count;
    rest.capacity -= stack->count;
    bool is_found = reader == NULL
                        ? pyprof__leaf_from(layout, NULL, level->word, &leaf)
                        : pyprof__level_now(layout, levels->thread_id, level) == PYPROF__LEVEL_STANDS &&
                              pyprof__leaf_frame(layout, reader, level->tstate, &leaf);
    if (!is_found) {
        return false;
    }
    stack->is_cut = rest.capacity == 0;
    if (stack->is_cut) {
        return true;
    }
    if (!pyprof__walk(layout, reader, leaf, &rest)) {
        return false;
    }
    stack->count += rest.count;
    stack->is_cut = rest.is_cut;
    stack->root = rest.root != 0 ? rest.root : stack->root;
    return true;
}

/* What lies outside of the stack in the interpreter that a thread is in: marks, and its stacks in the interpreters from
   which it came. A thread that is in the main interpreter alone, as most are, has none. False: it cannot be told. */
PYPROF__INLINE bool pyprof__walk_outer(const pyprof__layout *layout, pyprof__reader *reader,
                                       const pyprof__levels *levels, pyprof__stack *stack) {
    for (uint32_t i = 0; i < levels->count && !stack->is_cut; i++) {
        const pyprof__level *level = &levels->items[i];
        if (i > 0 && !pyprof__walk_level(layout, reader, levels, level, stack)) {
            return false;
        }
        bool is_outermost = level->interp_id == 0 && i + 1 == levels->count && !levels->is_cut;
        if (stack->is_cut || is_outermost) {
            return true;
        }
        stack->is_cut = stack->count == stack->capacity;
        if (!stack->is_cut) {
            stack->frames[stack->count++] = pyprof__mark(level->interp_id, levels->naming);
        }
    }
    stack->is_cut = stack->is_cut || levels->is_cut;
    return true;
}

/* A question to one thread, and its answer. Belongs to the sampler when free or answered, to the handler
   while it is being answered. */
typedef enum pyprof__request_state {
    PYPROF__REQUEST_FREE,
    PYPROF__REQUEST_SENT,
    PYPROF__REQUEST_CANCELLED, /* sent, but no longer of interest */
    PYPROF__REQUEST_IN_WORK,
    PYPROF__REQUEST_ANSWERED, /* stack and clocks are there */
    PYPROF__REQUEST_LATE,     /* the thread was no longer attached, or it cannot be told where */
    PYPROF__REQUEST_UNSETTLED /* the thread was interrupted where its stack cannot be told */
} pyprof__request_state;

typedef struct pyprof__request {
    pyprof__atomic32 state;
    pyprof__stack stack;
    pyprof__levels levels;
    int32_t tid;
    uintptr_t lent;  /* a thread state of these levels that another thread was seen to run; 0 = none */
    bool ended_call; /* the signal was seen to end a system call with EINTR */
    bool has_new;    /* there are code objects in the stack whose names are not known */
    uint64_t wall;   /* when it was asked, then when the stack was read: monotonic clock, */
    uint64_t cpu;    /* and CPU clock of the thread */
} pyprof__request;

#define PYPROF__REQUESTS_MAX 64u
#define PYPROF__KNOWN_SETS 2048u /* a power of two */
#define PYPROF__KNOWN_WAYS 4u

/* What the signal handler works with: it outlives recordings, as a signal may. */
static struct pyprof__handler {
    pyprof__request requests[PYPROF__REQUESTS_MAX];
    uint32_t requests_used; /* those behind were never needed; the sampler's */
    pyprof__layout layout;
    pyprof__atomic32 session;     /* odd while signals are expected; part of every question */
    pyprof__atomic32 running;     /* handlers at work */
    pyprof__atomic32 interrupted; /* system calls seen to end early */
    pyprof__atomic32 *wake;       /* the sampler's bell */
    int signal_number;
    struct sigaction previous; /* the host's own action */
    /* prints of code objects whose names are known, by hash; the newest of a set come first */
    pyprof__atomic64
        known[PYPROF__KNOWN_SETS][PYPROF__KNOWN_WAYS] PYPROF__ALIGNED(32); /* a set in one cache line */
} pyprof__handler;

#define PYPROF__QUESTION_TAG 0x5059u

static void *pyprof__question(uint32_t request) {
    uint64_t session = pyprof__get(&pyprof__handler.session) & 0xffffu;
    return (void *)(uintptr_t)((uint64_t)PYPROF__QUESTION_TAG << 48 | session << 32 | request);
}

static pyprof__atomic64 *pyprof__known_set(const pyprof__frame *frame) {
    return pyprof__handler.known[pyprof__mix(frame->print, frame->code) >> 16 & (PYPROF__KNOWN_SETS - 1)];
}

static bool pyprof__knows(const pyprof__frame *frame) {
    const pyprof__atomic64 *set = pyprof__known_set(frame);
    if (pyprof__is_mark(frame)) {
        return true;
    }
    for (uint32_t way = 0; way < PYPROF__KNOWN_WAYS; way++) {
        if (pyprof__get64(&set[way]) == frame->print) {
            return true;
        }
    }
    return false;
}

static bool pyprof__knows_all(const pyprof__stack *stack) {
    for (uint32_t i = 0; i < stack->count; i++) {
        if (!pyprof__knows(&stack->frames[i])) {
            return false;
        }
    }
    return true;
}

/* Handlers may look meanwhile: at worst they take for new what is not. */
static void pyprof__make_known(const pyprof__stack *stack) {
    for (uint32_t i = 0; i < stack->count; i++) {
        pyprof__atomic64 *set = pyprof__known_set(&stack->frames[i]);
        if (!pyprof__knows(&stack->frames[i])) {
            for (uint32_t way = PYPROF__KNOWN_WAYS - 1; way > 0; way--) {
                pyprof__set64(&set[way], pyprof__get64(&set[way - 1]));
            }
            pyprof__set64(&set[0], stack->frames[i].print);
        }
    }
}

static void pyprof__forget_known(void) {
    for (uint32_t set = 0; set < PYPROF__KNOWN_SETS; set++) {
        for (uint32_t way = 0; way < PYPROF__KNOWN_WAYS; way++) {
            pyprof__set64(&pyprof__handler.known[set][way], 0);
        }
    }
}

typedef enum pyprof__whose {
    PYPROF__OWN,
    PYPROF__FOREIGN,
    PYPROF__UNCLEAR
} pyprof__whose;

/* C libraries keep what pthread_self points to at the end of the stacks that they make. */
static uintptr_t pyprof__stack_end(uintptr_t stack, uintptr_t most) {
    uintptr_t own = (uintptr_t)pthread_self();
    return own > stack && own - stack < most ? own : stack + most;
}

/* Whether the interrupted thread keeps a word in a register or on its C stack, which is read into the room that the
   answer has for frames. */
static pyprof__whose pyprof__search_stack(const pyprof__stack *room, const void *context, uintptr_t word) {
    const uintptr_t page = 4096, far_away = 1 << 20; /* 4096 divides any page */
    uintptr_t begin = pyprof__interrupted_stack(context) & ~(sizeof word - 1), most = sizeof word;
    uintptr_t end = pyprof__stack_end(begin, far_away);
    while (most < page && 2 * most <= room->capacity * sizeof *room->frames) {
        most *= 2;
    }
    if (pyprof__registers_hold(context, word)) {
        return PYPROF__OWN;
    }
    for (uintptr_t at = begin; at < end;) {
        size_t size = most - at % most;
        if (!pyprof__read(at, room->frames, size)) {
            return PYPROF__FOREIGN; /* here the stack ends */
        }
        for (size_t i = 0; i < size; i += sizeof word) {
            if (memcmp((const char *)room->frames + i, &word, sizeof word) == 0) {
                return PYPROF__OWN;
            }
        }
        at += size;
    }
    return end - begin < far_away ? PYPROF__FOREIGN : PYPROF__UNCLEAR;
}

/* Who runs a thread state that has frames and bears the ids of the interrupted thread: these are of the thread that
   made it, and any other may use it since. word is its ts_frame. Since 3.11 cframes or entry frames lie on the C stack
   of whoever runs it; before, what evaluates a frame keeps its address there. */
static pyprof__whose pyprof__whose_frames(const pyprof__layout *layout, const pyprof__stack *room,
                                          const void *context, uintptr_t word) {
    pyprof__reader safely = {0, 0, 0, 0, NULL};
    uintptr_t stack = pyprof__interrupted_stack(context);
    if (stack == 0) {
        return PYPROF__UNCLEAR;
    }
    if (layout->cframe_frame == PYPROF__ABSENT && layout->helper_code == 0) {
        return pyprof__search_stack(room, context, word);
    }
    uintptr_t entry = pyprof__entry_address(layout, &safely, word);
    if (entry == 0) {
        return PYPROF__UNCLEAR;
    }
    return entry >= stack && entry < pyprof__stack_end(stack, 64 << 20) ? PYPROF__OWN : PYPROF__FOREIGN;
}

/* Leaves out the levels further out that another thread runs. False: it cannot be told. */
static bool pyprof__leave_out_lent(const pyprof__layout *layout, const void *context,
                                   pyprof__request *request) {
    pyprof__levels *levels = &request->levels;
    for (uint32_t i = 1; i < levels->count;) {
        pyprof__level *level = &levels->items[i];
        if (!pyprof__read(level->tstate + layout->ts_frame, &level->word, sizeof level->word) ||
            level->word == 0) {
            return false;
        }
        pyprof__whose whose = pyprof__whose_frames(layout, &request->stack, context, level->word);
        if (whose == PYPROF__UNCLEAR) {
            return false;
        }
        if (whose == PYPROF__OWN) {
            i++;
            continue;
        }
        request->lent = level->tstate;
        memmove(level, level + 1, (levels->count - i - 1) * sizeof *level);
        levels->known = --levels->count;
    }
    return true;
}

/* Where the thread that was asked is; word is what the thread state has for its ts_frame. */
static pyprof__request_state pyprof__find_self(pyprof__request *request, const void *context,
                                               uintptr_t *tstate, uintptr_t *word) {
    const pyprof__layout *layout = &pyprof__handler.layout;
    uintptr_t asked = request->levels.items[0].tstate;
    *tstate = pyprof__current_thread_state();
    request->lent = *tstate != asked && pyprof__is_attached_now(layout, asked) ? asked : 0;
    if (*tstate == 0 || !pyprof__is_own_thread_state(layout, *tstate)) {
        return PYPROF__REQUEST_LATE;
    }
    if (layout->ts_status != PYPROF__ABSENT) {
        memcpy(word, (const void *)(*tstate + layout->ts_frame), sizeof *word);
    } else if (!pyprof__read(*tstate + layout->ts_frame, word, sizeof *word)) {
        return PYPROF__REQUEST_LATE;
    } else if (pyprof__points_to_frames(layout, *tstate, *word, 0)) {
        pyprof__whose whose = pyprof__whose_frames(layout, &request->stack, context, *word);
        if (whose == PYPROF__FOREIGN) {
            request->lent = *tstate;
            return PYPROF__REQUEST_LATE;
        }
        if (whose == PYPROF__UNCLEAR) {
            return PYPROF__REQUEST_UNSETTLED;
        }
    }
    bool is_alone = request->levels.count == 1 && asked == *tstate;
    bool is_found = is_alone || pyprof__follow(layout, &request->levels, *tstate);
    return is_found ? PYPROF__REQUEST_ANSWERED : PYPROF__REQUEST_LATE;
}

/* Runs in the thread that was asked. Its own attached thread state cannot vanish, and its frames stand still
   while the handler runs. */
static pyprof__request_state pyprof__capture_own(pyprof__request *request, const void *context) {
    const pyprof__layout *layout = &pyprof__handler.layout;
    uintptr_t tstate = 0, word = 0, leaf = 0;
    pyprof__request_state found = pyprof__find_self(request, context, &tstate, &word);
    if (found == PYPROF__REQUEST_LATE) {
        return found;
    }
    /* The thread ran when it was asked; if that was just now it ran all the time, and need not ask the kernel. */
    const uint64_t just_now = 20000;
    uint64_t now = pyprof__now();
    uint64_t passed = now - request->wall;
    request->cpu = passed < just_now ? request->cpu + passed : pyprof__clock(CLOCK_THREAD_CPUTIME_ID);
    request->wall = now;
    if (found == PYPROF__REQUEST_UNSETTLED || !pyprof__leave_out_lent(layout, context, request) ||
        !pyprof__own_leaf_frame(layout, tstate, word, &leaf) ||
        !pyprof__walk(layout, NULL, leaf, &request->stack) ||
        !pyprof__walk_outer(layout, NULL, &request->levels, &request->stack)) {
        return PYPROF__REQUEST_UNSETTLED;
    }
    return PYPROF__REQUEST_ANSWERED;
}

/* Takes the question over from the sampler, which may take it back and put it anew at any moment. False: it was
   taken back, or is not one; that a call was ended for it is told all the same. */
static bool pyprof__accept(pyprof__request *request, bool ended_call) {
    const uint32_t if_cancelled = ended_call ? PYPROF__REQUEST_IN_WORK : PYPROF__REQUEST_FREE;
    for (;;) {
        if (pyprof__swap_if(&request->state, PYPROF__REQUEST_SENT, PYPROF__REQUEST_IN_WORK)) {
            request->ended_call = ended_call;
            return true;
        }
        if (pyprof__swap_if(&request->state, PYPROF__REQUEST_CANCELLED, if_cancelled)) {
            if (ended_call) {
                request->ended_call = true;
                pyprof__set(&request->state, PYPROF__REQUEST_LATE);
            }
            return false;
        }
        if (pyprof__get(&request->state) != PYPROF__REQUEST_SENT) {
            return false;
        }
    }
}

static void pyprof__answer(uint32_t index, bool ended_call, const void *context) {
    pyprof__request *request = &pyprof__handler.requests[index];
    if (!pyprof__accept(request, ended_call)) {
        return;
    }
    pyprof__request_state state = pyprof__capture_own(request, context);
    bool has_new = state == PYPROF__REQUEST_ANSWERED && !pyprof__knows_all(&request->stack);
    request->has_new = has_new;
    pyprof__set(&request->state, (uint32_t)state); /* from here on it is the sampler's */
    if (has_new) {
        pyprof__wake(
            pyprof__handler.wake); /* before a short-lived code object is gone, and its name with it */
    }
}

/* A signal that is not ours goes where it went before we came. */
static void pyprof__pass_on(int signal_number, siginfo_t *info, void *context) {
    const struct sigaction *previous = &pyprof__handler.previous;
    bool is_harmless = signal_number == SIGCHLD || signal_number == SIGURG || signal_number == SIGWINCH;
    if (previous->sa_handler == SIG_IGN || (previous->sa_handler == SIG_DFL && is_harmless)) {
        return;
    }
    if (previous->sa_handler == SIG_DFL) {
        sigaction(signal_number, previous, NULL);
        syscall(SYS_tgkill, getpid(), pyprof__tid(),
                signal_number); /* comes once this handler has returned */
    } else if (previous->sa_flags & SA_SIGINFO) {
        previous->sa_sigaction(signal_number, info, context);
    } else {
        previous->sa_handler(signal_number);
    }
}

static void pyprof__on_signal(int signal_number, siginfo_t *info, void *context) {
    int saved_errno = errno;
    uint64_t question = (uint64_t)(uintptr_t)info->si_value.sival_ptr;
    if (info->si_code != SI_QUEUE || info->si_pid != pyprof__pid || question >> 48 != PYPROF__QUESTION_TAG) {
        pyprof__pass_on(signal_number, info, context);
        errno = saved_errno;
        return;
    }
    pyprof__add(&pyprof__handler.running, 1);
    bool ended_call = pyprof__call_was_interrupted(context);
    pyprof__add(&pyprof__handler.interrupted, ended_call);
    uint32_t session = pyprof__get(&pyprof__handler.session);
    uint32_t index = (uint32_t)question;
    if ((session & 1) && (session & 0xffffu) == (question >> 32 & 0xffffu) && index < PYPROF__REQUESTS_MAX) {
        pyprof__answer(index, ended_call, context);
    }
    errno = saved_errno;
    pyprof__add(&pyprof__handler.running, (uint32_t)-1);
}

static bool pyprof__signal_is_usable(int signal_number) {
    static const int refused[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS,  SIGFPE,
                                  SIGILL,  SIGTRAP, SIGABRT, SIGCONT, SIGSYS};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (signal_number == refused[i]) {
            return false;
        }
    }
    return signal_number > 0 && signal_number < NSIG;
}

static bool pyprof__signal_is_free(int signal_number) {
    struct sigaction action;
    return sigaction(signal_number, NULL, &action) == 0 && action.sa_handler == SIG_DFL;
}

/* A signal that nobody has an action for: SIGURG, as its default is to be ignored, so that one which is still
   pending when the program calls exec does not kill what comes after. Else a real-time signal, from the end,
   as programs take theirs from the start. */
static int pyprof__free_signal(void) {
    if (pyprof__signal_is_free(SIGURG)) {
        return SIGURG;
    }
    for (int number = SIGRTMAX - 1; number >= SIGRTMIN; number--) {
        if (pyprof__signal_is_free(number)) {
            return number;
        }
    }
    return 0;
}

static bool pyprof__handler_start(int wanted) {
    struct sigaction action;
    int number = wanted != 0 ? wanted : pyprof__free_signal();
    if (!pyprof__signal_is_usable(number)) {
        return false;
    }
    memset(&action, 0, sizeof action);
    action.sa_sigaction = pyprof__on_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    if (sigaction(number, NULL, &pyprof__handler.previous) != 0 || sigaction(number, &action, NULL) != 0) {
        return false;
    }
    pyprof__handler.signal_number = number;
    return true;
}

static bool pyprof__any_request(uint32_t state) {
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        if (pyprof__get(&pyprof__handler.requests[i].state) == state) {
            return true;
        }
    }
    return false;
}

/* Gives back what was asked of threads that no longer exist. */
static void pyprof__drop_dead_requests(void) {
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        pyprof__request *request = &pyprof__handler.requests[i];
        uint32_t state = pyprof__get(&request->state);
        if ((state == PYPROF__REQUEST_SENT || state == PYPROF__REQUEST_CANCELLED) &&
            !pyprof__thread_lives(request->tid)) {
            pyprof__swap_if(&request->state, state, PYPROF__REQUEST_FREE);
        }
    }
}

static bool pyprof__signals_in_flight(void) {
    return pyprof__any_request(PYPROF__REQUEST_SENT) || pyprof__any_request(PYPROF__REQUEST_CANCELLED) ||
           pyprof__any_request(PYPROF__REQUEST_IN_WORK) || pyprof__get(&pyprof__handler.running) != 0;
}

static void pyprof__sleep_ns(long nanoseconds) {
    struct timespec time = {0, nanoseconds};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

/* Puts the host's action back, once no signal of ours can arrive any more. Threads answer within microseconds
   unless they block the signal or are gone; what is then still pending is discarded by ignoring the signal
   for a moment (POSIX: setting SIG_IGN discards pending signals of all threads). */
static void pyprof__handler_stop(void) {
    struct sigaction action;
    for (int i = 0; i < 200 && pyprof__signals_in_flight(); i++) {
        pyprof__drop_dead_requests();
        pyprof__sleep_ns(100000);
    }
    if (sigaction(pyprof__handler.signal_number, NULL, &action) == 0 && (action.sa_flags & SA_SIGINFO) &&
        action.sa_sigaction == pyprof__on_signal) {
        if (pyprof__signals_in_flight()) {
            memset(&action, 0, sizeof action);
            action.sa_handler = SIG_IGN;
            sigaction(pyprof__handler.signal_number, &action, NULL);
            pyprof__sleep_ns(10000000); /* a thread that had just taken the signal gets through the handler */
        }
        sigaction(pyprof__handler.signal_number, &pyprof__handler.previous, NULL);
    }
    while (pyprof__get(&pyprof__handler.running) != 0) {
        pyprof__sleep_ns(100000);
    }
    pyprof__handler.signal_number = 0;
}

// >>profile
// The calling-context tree and the time line. Knows nothing of CPython and nothing of threads but their names.

enum {
    PYPROF__GIL = 1,
    PYPROF__IDLE = 2,
    PYPROF__AWAY = 4
}; /* what a stretch of a thread's time was */

typedef struct pyprof__string {
    uint64_t hash[2]; /* 128 bits stand for the text when it is looked up */
    uint32_t size;
    uint32_t offset;
} pyprof__string;

typedef struct pyprof__function {
    uint32_t name;
    uint32_t file; /* empty: not a Python function, but a marker such as [truncated] */
    int32_t first_line;
} pyprof__function;

typedef struct pyprof__node {
    uint32_t parent;   /* PYPROF__NONE: the root of a track */
    uint32_t function; /* of a root: PYPROF__NONE */
    int32_t line;      /* of a root: the track */
    uint32_t unused;
    uint64_t samples; /* this and all below: of stacks that end here ("self") */
    uint64_t samples_idle;
    uint64_t wall_ns;
    uint64_t wall_idle_ns;
    uint64_t cpu_ns;
    uint64_t gil_ns;
} pyprof__node;

/* One OS thread. */
typedef struct pyprof__track {
    uint32_t name;
    int32_t tid;
    uint32_t root;
    uint32_t truncated; /* node for what the full tree cannot take */
    uint32_t first;     /* its time line; PYPROF__NONE = empty */
    uint32_t last;
    uint64_t end_ns; /* how far the time line reaches, since the recording began */
} pyprof__track;

/* A stretch of one track's time in which stack and kind stayed the same. */
typedef struct pyprof__stretch {
    uint64_t wall_ns;
    uint64_t cpu_ns;
    uint32_t node;
    uint32_t samples;
    uint32_t next;           /* of the same track */
    uint32_t track_and_kind; /* track * 8 + PYPROF__GIL ... */
} pyprof__stretch;

static uint32_t pyprof__stretch_kind(const pyprof__stretch *stretch) {
    return stretch->track_and_kind & 7u;
}

struct pyprof_profile {
    pyprof__memory memory;
    pyprof__array bytes; /* of all strings */
    pyprof__table strings;
    pyprof__table functions;
    pyprof__table nodes;
    pyprof__array tracks;
    pyprof__array timeline;
    size_t timeline_limit; /* bytes */
    uint64_t timeline_coarsened;
    uint64_t duration_ns;
    uint64_t epoch_ns;   /* wall-clock time of the start, since 1970 */
    uint32_t unresolved; /* functions */
    uint32_t truncated;
    uint32_t unsettled;
};

static void pyprof__profile_init(pyprof_profile *profile, const pyprof__memory *memory) {
    memset(profile, 0, sizeof *profile);
    profile->memory = *memory;
    profile->bytes.item_size = 1;
    profile->tracks.item_size = sizeof(pyprof__track);
    profile->timeline.item_size = sizeof(pyprof__stretch);
    profile->timeline_limit = memory->limit / 2;
    pyprof__table_init(&profile->strings, sizeof(pyprof__string), offsetof(pyprof__string, offset));
    pyprof__table_init(&profile->functions, sizeof(pyprof__function), sizeof(pyprof__function));
    pyprof__table_init(&profile->nodes, sizeof(pyprof__node), offsetof(pyprof__node, unused));
}

static void pyprof__profile_clear(pyprof_profile *profile) {
    pyprof__array_free(&profile->memory, &profile->bytes);
    pyprof__table_free(&profile->memory, &profile->strings);
    pyprof__table_free(&profile->memory, &profile->functions);
    pyprof__table_free(&profile->memory, &profile->nodes);
    pyprof__array_free(&profile->memory, &profile->tracks);
    pyprof__array_free(&profile->memory, &profile->timeline);
}

static uint32_t pyprof__intern_text(pyprof_profile *profile, const char *text, size_t size) {
    pyprof__string key;
    bool is_new;
    memset(&key, 0, sizeof key);
    key.size = (uint32_t)size;
    key.hash[0] = 1;
    for (size_t i = 0; i < size; i++) {
        key.hash[0] = pyprof__mix(key.hash[0], (unsigned char)text[i]);
        key.hash[1] = (key.hash[1] ^ (unsigned char)text[i]) * 0x100000001b3u;
    }
    if (!pyprof__array_reserve(&profile->memory, &profile->bytes, profile->bytes.count + size)) {
        return PYPROF__NONE;
    }
    uint32_t string = pyprof__table_intern(&profile->memory, &profile->strings, &key, &is_new);
    if (is_new) {
        PYPROF__ITEM(pyprof__string, &profile->strings.items, string).offset = profile->bytes.count;
        if (size > 0) {
            memcpy((char *)profile->bytes.data + profile->bytes.count, text, size);
        }
        profile->bytes.count += (uint32_t)size;
    }
    return string;
}

static const char *pyprof__string_text(const pyprof_profile *profile, uint32_t string, size_t *size) {
    const pyprof__string *item = &PYPROF__ITEM(const pyprof__string, &profile->strings.items, string);
    *size = item->size;
    return item->size > 0 ? (const char *)profile->bytes.data + item->offset : "";
}

static uint32_t pyprof__intern_function(pyprof_profile *profile, uint32_t name, uint32_t file,
                                        int32_t first_line) {
    pyprof__function key = {name, file, first_line};
    bool is_new;
    if (name == PYPROF__NONE || file == PYPROF__NONE) {
        return PYPROF__NONE;
    }
    return pyprof__table_intern(&profile->memory, &profile->functions, &key, &is_new);
}

static uint32_t pyprof__intern_marker(pyprof_profile *profile, const char *name) {
    uint32_t text = pyprof__intern_text(profile, name, strlen(name));
    return pyprof__intern_function(profile, text, pyprof__intern_text(profile, "", 0), 0);
}

/* The node for a line of a function below another; PYPROF__NONE = the tree is full. */
static uint32_t pyprof__child(pyprof_profile *profile, uint32_t parent, uint32_t function, int32_t line) {
    struct {
        uint32_t parent, function;
        int32_t line;
    } key = {parent, function, line};
    bool is_new;
    return pyprof__table_intern(&profile->memory, &profile->nodes, &key, &is_new);
}

static pyprof__node *pyprof__node_at(const pyprof_profile *profile, uint32_t node) {
    return &PYPROF__ITEM(pyprof__node, &profile->nodes.items, node);
}

static pyprof__track *pyprof__track_at(const pyprof_profile *profile, uint32_t track) {
    return &PYPROF__ITEM(pyprof__track, &profile->tracks, track);
}

/* A new track; PYPROF__NONE = no room. */
static uint32_t pyprof__add_track(pyprof_profile *profile, int32_t tid, const char *name, size_t size) {
    uint32_t text = pyprof__intern_text(profile, name, size);
    uint32_t index = text == PYPROF__NONE ? text : pyprof__array_add(&profile->memory, &profile->tracks);
    if (index == PYPROF__NONE) {
        return PYPROF__NONE;
    }
    uint32_t root = pyprof__child(profile, PYPROF__NONE, PYPROF__NONE, (int32_t)index);
    uint32_t truncated = root == PYPROF__NONE ? root : pyprof__child(profile, root, profile->truncated, 0);
    if (truncated == PYPROF__NONE) {
        profile->tracks.count--;
        return PYPROF__NONE;
    }
    pyprof__track *track = pyprof__track_at(profile, index);
    track->name = text;
    track->tid = tid;
    track->root = root;
    track->truncated = truncated;
    track->first = track->last = PYPROF__NONE;
    return index;
}

/* Merges neighbours of a track two by two; the longer one lends its stack. Stretches of different kinds stay
   apart, so that idle time stays idle, unless that frees too little. */
static void pyprof__coarsen(pyprof_profile *profile, bool any_kind) {
    pyprof__stretch *items = (pyprof__stretch *)profile->timeline.data;
    uint32_t count = profile->timeline.count, kept = 0;
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        pyprof__track_at(profile, i)->first = pyprof__track_at(profile, i)->last = PYPROF__NONE;
    }
    for (uint32_t i = 0; i < count; i++) {
        pyprof__stretch item = items[i];
        pyprof__track *track = pyprof__track_at(profile, item.track_and_kind / 8);
        pyprof__stretch *last = track->last == PYPROF__NONE ? NULL : &items[track->last];
        if (last != NULL && last->next == PYPROF__NONE &&
            (any_kind || last->track_and_kind == item.track_and_kind)) {
            if (item.wall_ns > last->wall_ns) {
                last->node = item.node;
                last->track_and_kind = item.track_and_kind;
            }
            last->wall_ns += item.wall_ns;
            last->cpu_ns += item.cpu_ns;
            last->samples += item.samples;
            last->next = PYPROF__NONE - 1; /* merged once: the next one begins a new pair */
            continue;
        }
        if (last != NULL) {
            last->next = kept;
        } else {
            track->first = kept;
        }
        track->last = kept;
        item.next = PYPROF__NONE;
        items[kept++] = item;
    }
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        pyprof__track *track = pyprof__track_at(profile, i);
        if (track->last != PYPROF__NONE) {
            items[track->last].next = PYPROF__NONE;
        }
    }
    profile->timeline.count = kept;
}

/* Room for one more stretch, at the price of resolution when the time line is full. */
static bool pyprof__timeline_reserve(pyprof_profile *profile) {
    size_t size = ((size_t)profile->timeline.count + 1) * sizeof(pyprof__stretch);
    if (profile->timeline.count < profile->timeline.capacity) {
        return true;
    }
    if (2 * size <= profile->timeline_limit &&
        pyprof__array_reserve(&profile->memory, &profile->timeline, profile->timeline.count + 1u)) {
        return true;
    }
    if (profile->timeline.count < 16) {
        return false;
    }
    uint32_t before = profile->timeline.count;
    profile->timeline_coarsened++;
    pyprof__coarsen(profile, false);
    if (profile->timeline.count > before - before / 4) {
        pyprof__coarsen(profile, true);
    }
    return profile->timeline.count < profile->timeline.capacity;
}

/* Adds to the end of a track's time line. */
static void pyprof__extend_timeline(pyprof_profile *profile, uint32_t track_index, uint32_t node,
                                    uint32_t kind, uint64_t wall, uint64_t cpu, uint32_t samples) {
    pyprof__track *track = pyprof__track_at(profile, track_index);
    pyprof__stretch *items = (pyprof__stretch *)profile->timeline.data;
    uint32_t index = track->last;
    track->end_ns += wall;
    if (index == PYPROF__NONE || items[index].node != node || pyprof__stretch_kind(&items[index]) != kind) {
        if (!pyprof__timeline_reserve(profile)) {
            return; /* a limit that leaves no room for a time line */
        }
        items = (pyprof__stretch *)profile->timeline.data;
        index = pyprof__array_add(&profile->memory, &profile->timeline);
        items[index].node = node;
        items[index].next = PYPROF__NONE;
        items[index].track_and_kind = track_index * 8 + kind;
        if (track->last == PYPROF__NONE) {
            track->first = index;
        } else {
            items[track->last].next = index;
        }
        track->last = index;
    }
    items[index].wall_ns += wall;
    items[index].cpu_ns += cpu;
    items[index].samples += samples;
}

/* Adds a stretch of time to a stack and to the end of its track. */
static void pyprof__add_time(pyprof_profile *profile, uint32_t track, uint32_t node, uint32_t kind,
                             uint64_t wall, uint64_t cpu) {
    pyprof__node *sums = pyprof__node_at(profile, node);
    sums->wall_ns += wall;
    sums->cpu_ns += cpu;
    sums->wall_idle_ns += (kind & PYPROF__IDLE) ? wall : 0;
    sums->gil_ns += (kind & PYPROF__GIL) ? wall : 0;
    if (wall > 0 || cpu > 0) {
        pyprof__extend_timeline(profile, track, node, kind, wall, cpu, 0);
    }
}

static void pyprof__count_sample(pyprof_profile *profile, uint32_t track, uint32_t node, uint32_t kind) {
    pyprof__node *sums = pyprof__node_at(profile, node);
    sums->samples++;
    sums->samples_idle += (kind & PYPROF__IDLE) != 0;
    pyprof__extend_timeline(profile, track, node, kind, 0, 0, 1);
}

/* The thread had no Python stack up to the given moment. */
static void pyprof__add_absence(pyprof_profile *profile, uint32_t track, uint64_t until_ns) {
    const pyprof__track *item = pyprof__track_at(profile, track);
    if (until_ns > item->end_ns) {
        pyprof__extend_timeline(profile, track, item->root, PYPROF__AWAY, until_ns - item->end_ns, 0, 0);
    }
}

/* A deep copy within the same memory limit; NULL = no room. */
static pyprof_profile *pyprof__profile_copy(const pyprof_profile *profile) {
    pyprof__memory memory = profile->memory;
    memory.used = memory.peak = 0;
    pyprof_profile *copy = (pyprof_profile *)pyprof__alloc(&memory, sizeof *copy);
    if (copy == NULL) {
        return NULL;
    }
    memcpy(copy, profile, sizeof *copy);
    copy->memory = memory;
    pyprof__table_init(&copy->strings, sizeof(pyprof__string), profile->strings.key_size);
    pyprof__table_init(&copy->functions, sizeof(pyprof__function), profile->functions.key_size);
    pyprof__table_init(&copy->nodes, sizeof(pyprof__node), profile->nodes.key_size);
    copy->bytes.data = copy->tracks.data = copy->timeline.data = NULL;
    copy->bytes.capacity = copy->tracks.capacity = copy->timeline.capacity = 0;
    if (pyprof__array_copy(&copy->memory, &copy->bytes, &profile->bytes) &&
        pyprof__array_copy(&copy->memory, &copy->strings.items, &profile->strings.items) &&
        pyprof__array_copy(&copy->memory, &copy->functions.items, &profile->functions.items) &&
        pyprof__array_copy(&copy->memory, &copy->nodes.items, &profile->nodes.items) &&
        pyprof__array_copy(&copy->memory, &copy->tracks, &profile->tracks) &&
        pyprof__array_copy(&copy->memory, &copy->timeline, &profile->timeline)) {
        return copy;
    }
    pyprof_free(copy);
    return NULL;
}

// >>sampler
// The thread that looks at all others: which exist, what they do, and where the time since the last look went.

typedef struct pyprof__code {
    uintptr_t code;
    uint64_t print;
    uint32_t function;
    int32_t first_line;
    uint32_t lines; /* its line table, in the sampler's bytes */
    uint32_t lines_size;
} pyprof__code;

/* A place in the program that was met: a frame, and what it means. */
typedef struct pyprof__site {
    pyprof__frame frame;
    uint32_t function;
    int32_t line;
    uint32_t parent; /* below which node it was met last, */
    uint32_t node;   /* and its own there: mostly the same again */
} pyprof__site;

/* A thread state in the interpreters' lists, as it was at this tick. */
#define PYPROF__TSTATE_COPY 512u
typedef struct pyprof__tstate {
    uintptr_t address;
    uint64_t id;
    uintptr_t interp;
    int64_t interp_id;
    uintptr_t thread_id;
    int32_t native_id;
    uint32_t thread;  /* PYPROF__NONE: not bound to an OS thread yet */
    uint32_t sibling; /* another one of the same thread; PYPROF__NONE = none */
    uint64_t
        framed_since; /* when it was first seen to have frames, in an order of our own; 0 = it has none */
    uint32_t moved;   /* see pyprof__doubt: looks in a row, */
    uint32_t denied;  /* and answers */
    bool is_lent;
    uint64_t lent_until; /* then it is looked at anew */
    unsigned char copy[PYPROF__TSTATE_COPY];
} pyprof__tstate;

/* An OS thread. */
typedef struct pyprof__thread {
    int32_t tid;
    uintptr_t thread_id; /* pthread_t */
    uintptr_t lent;      /* 0; else this is whoever runs this thread state: see pyprof__doubt */
    clockid_t cpu_clock;
    uint32_t track;
    uint64_t seen;     /* the last tick in which it had a thread state */
    uint32_t tstate;   /* of that tick: where the thread is, if it has several; */
    uint32_t siblings; /* and the first of all of them */
    bool is_alive;
    uint32_t request;     /* PYPROF__NONE = not asked */
    uint32_t ticks_asked; /* looks since it was asked */
    uint64_t absent_at;   /* when it was last seen to have no Python stack */
    /* its last sample */
    bool has_sample;
    uintptr_t sample_tstate;
    uint64_t wall;
    uint64_t cpu;
    double edge_wall; /* see pyprof__claim */
    double edge_cpu;
    double owed_cpu;
    uint32_t node;
    uint32_t kind;
    bool is_cut;
    uintptr_t root;        /* its outermost frame; 0 = not known */
    uintptr_t root_tstate; /* and the thread state that it belongs to */
    pyprof__array frames;  /* root first, and the node of each: the next stack likely begins the same */
    pyprof__array nodes;
    uint32_t debt; /* whether to ask it: see pyprof__judge */
    /* its name */
    uintptr_t object; /* threading.Thread; 0 = none known */
    uint64_t name_due;
} pyprof__thread;

typedef struct pyprof__interp {
    uintptr_t address;
    uintptr_t links[2]; /* next interpreter, first thread state */
    int64_t id;
    int64_t id_now; /* another one may have come to lie at the same address */
} pyprof__interp;

typedef struct pyprof__sampler {
    pyprof_desc desc;
    char *output_path;
    size_t output_path_size;
    pyprof__layout layout;
    pthread_t thread;
    pthread_t starter; /* two threads whose ids are known teach where a pthread_t keeps its own */
    int32_t starter_tid;
    int32_t tid;
    pyprof__atomic32 ready; /* 1: the first tick is done */
    pyprof__atomic32 bell;  /* rung to wake the sampler */
    pyprof__atomic32 must_stop;
    pyprof__atomic32 dumps_wanted;
    pyprof__atomic32 dumps_served;
    pthread_mutex_t lock; /* guards all below */
    pyprof_profile *profile;
    pyprof__memory *memory; /* the profile's */
    pyprof_stats stats;
    uint64_t start;
    uint64_t last_tick;
    uint64_t random;
    uint32_t pthread_tid_offset;
    uint32_t runner; /* the thread that was asked at the last tick; PYPROF__NONE = none */
    pyprof__array interps;
    pyprof__array tstates;
    pyprof__array fresh;  /* the list being read */
    bool has_whole_lists; /* nothing was left out of them at this tick */
    bool has_doubts;      /* see pyprof__doubt; of some thread state, ever */
    pyprof__array threads;
    pyprof__table codes;
    pyprof__table sites;
    pyprof__array lines;
    pyprof__array scratch; /* frames of two stacks */
    uint32_t bootstrap;    /* the function that every threading.Thread begins with; PYPROF__NONE = not met */
    uintptr_t name_key;    /* the str object "_name" */
    pyprof__view view;
    pyprof__text text;
} pyprof__sampler;

static pyprof__thread *pyprof__thread_at(const pyprof__sampler *sampler, uint32_t index) {
    return &PYPROF__ITEM(pyprof__thread, &sampler->threads, index);
}

static pyprof__tstate *pyprof__tstate_at(const pyprof__sampler *sampler, uint32_t index) {
    return &PYPROF__ITEM(pyprof__tstate, &sampler->tstates, index);
}

static uintptr_t pyprof__tstate_word(const pyprof__tstate *tstate, uint32_t offset) {
    uintptr_t word;
    memcpy(&word, tstate->copy + offset, sizeof word);
    return word;
}

static bool pyprof__ends_with(const char *text, size_t size, const char *end) {
    size_t length = strlen(end);
    return size >= length && memcmp(text + size - length, end, length) == 0;
}

static void pyprof__forget_codes(pyprof__sampler *sampler) {
    pyprof__table_clear(&sampler->codes);
    pyprof__table_clear(&sampler->sites);
    sampler->lines.count = 0;
    pyprof__forget_known();
}

/* Copies the line table. False: it is gone, or there is no room. */
static bool pyprof__copy_lines(pyprof__sampler *sampler, uintptr_t object, pyprof__code *code) {
    uintptr_t data;
    size_t size;
    if (!pyprof__bytes_data(object, &data, &size) ||
        !pyprof__array_reserve(sampler->memory, &sampler->lines, sampler->lines.count + size)) {
        return false;
    }
    unsigned char *to = (unsigned char *)sampler->lines.data + sampler->lines.count;
    if (size > 0 && !pyprof__read(data, to, size)) {
        return false;
    }
    code->lines = sampler->lines.count;
    code->lines_size = (uint32_t)size;
    sampler->lines.count += (uint32_t)size;
    return true;
}

/* Whether a code object lives and is still the one that was met. */
static bool pyprof__is_same_code(pyprof__sampler *sampler, const pyprof__code *code) {
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    uint64_t print = 0;
    pyprof__view_reset(&sampler->view);
    return pyprof__object_lives(&reader, code->code) &&
           pyprof__code_print(&sampler->layout, &reader, code->code, &print) && print == code->print;
}

/* Reads name, file and lines of a code object that is now, and was all the time, the one that was met. */
static bool pyprof__read_new_code(pyprof__sampler *sampler, pyprof__code *code) {
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    pyprof__code_fields fields;
    if (!pyprof__is_same_code(sampler, code) ||
        !pyprof__read_code(&sampler->layout, &reader, code->code, &fields)) {
        return false;
    }
    if (!pyprof__read_text(fields.name, &sampler->text)) {
        return false;
    }
    bool is_bootstrap = pyprof__ends_with(sampler->text.utf8, sampler->text.size, "_bootstrap");
    uint32_t name = pyprof__intern_text(sampler->profile, sampler->text.utf8, sampler->text.size);
    if (!pyprof__read_text(fields.filename, &sampler->text) ||
        !pyprof__copy_lines(sampler, fields.lines, code)) {
        return false;
    }
    is_bootstrap = is_bootstrap && pyprof__ends_with(sampler->text.utf8, sampler->text.size, "threading.py");
    uint32_t file = pyprof__intern_text(sampler->profile, sampler->text.utf8, sampler->text.size);
    if (!pyprof__is_same_code(sampler, code)) {
        return false;
    }
    code->first_line = fields.first_line;
    code->function = pyprof__intern_function(sampler->profile, name, file, fields.first_line);
    if (is_bootstrap) {
        sampler->bootstrap = code->function;
    }
    return true;
}

/* Names that the host gave to interpreters. Changed under the locks of both the host's call and the sampler. */
#define PYPROF__NAMES_MAX 64u
typedef struct pyprof__name {
    int64_t id;
    char text[64];
} pyprof__name;

static struct pyprof__names {
    int32_t generation; /* of the names: part of every mark, so that a new name makes new ones */
    uint32_t count;
    pyprof__name items[PYPROF__NAMES_MAX];
} pyprof__names;

static pyprof__name *pyprof__name_of(int64_t id) {
    for (uint32_t i = 0; i < pyprof__names.count; i++) {
        if (pyprof__names.items[i].id == id) {
            return &pyprof__names.items[i];
        }
    }
    return NULL;
}

/* The function that stands for an interpreter; PYPROF__NONE = no room. */
static uint32_t pyprof__function_of_mark(pyprof__sampler *sampler, const pyprof__frame *mark) {
    char text[128];
    int64_t id = (int64_t)mark->print;
    const pyprof__name *name = pyprof__name_of(id);
    snprintf(text, sizeof text, "[interpreter %lld%s%s]", (long long)id, name != NULL ? ": " : "",
             name != NULL ? name->text : "");
    return pyprof__intern_marker(sampler->profile, text);
}

/* The entry of a code object; NULL: it has died, or there is no room. */
static const pyprof__code *pyprof__code_of(pyprof__sampler *sampler, const pyprof__frame *frame) {
    bool is_new;
    uint32_t index = pyprof__table_intern(sampler->memory, &sampler->codes, frame, &is_new);
    if (index == PYPROF__NONE) {
        return NULL;
    }
    pyprof__code *code = &PYPROF__ITEM(pyprof__code, &sampler->codes.items, index);
    if (is_new) {
        if (!pyprof__read_new_code(sampler, code)) {
            code->function = sampler->profile->unresolved;
            code->lines_size = 0;
        } else if (code->function == PYPROF__NONE) {
            return NULL;
        }
    }
    return code;
}

static pyprof__site *pyprof__add_site(pyprof__sampler *sampler, const pyprof__frame *frame, uint32_t index) {
    pyprof__site *site = &PYPROF__ITEM(pyprof__site, &sampler->sites.items, index);
    site->node = PYPROF__NONE;
    if (pyprof__is_mark(frame)) {
        site->function = pyprof__function_of_mark(sampler, frame);
        return site->function != PYPROF__NONE ? site : NULL;
    }
    const pyprof__code *code = pyprof__code_of(sampler, frame);
    if (code == NULL) {
        return NULL;
    }
    site->function = code->function;
    if (code->function != sampler->profile->unresolved) {
        const unsigned char *table = (const unsigned char *)sampler->lines.data + code->lines;
        site->line = pyprof__line_at(table, code->lines_size, code->first_line, frame->instr);
    }
    return site;
}

/* What a frame means: known from before, or read now. NULL = no room. */
static pyprof__site *pyprof__site_of(pyprof__sampler *sampler, const pyprof__frame *frame) {
    bool is_new;
    size_t held = sampler->sites.items.count * sizeof(pyprof__site) +
                  sampler->codes.items.count * sizeof(pyprof__code) + sampler->lines.count;
    if (held > sampler->memory->limit / 8) {
        pyprof__forget_codes(sampler);
    }
    uint32_t index = pyprof__table_intern(sampler->memory, &sampler->sites, frame, &is_new);
    if (index == PYPROF__NONE) {
        return NULL;
    }
    pyprof__site *site = &PYPROF__ITEM(pyprof__site, &sampler->sites.items, index);
    if (is_new) {
        site = pyprof__add_site(sampler, frame, index);
        if (site == NULL) {
            pyprof__forget_codes(sampler); /* a half-made site must not be found again */
        }
    }
    return site;
}

/* The node for a site below another node; PYPROF__NONE = the tree is full. */
static uint32_t pyprof__site_node(pyprof_profile *profile, pyprof__site *site, uint32_t parent) {
    if (site->parent != parent || site->node == PYPROF__NONE) {
        site->parent = parent;
        site->node = pyprof__child(profile, parent, site->function, site->line);
    }
    return site->node;
}

/* How many frames, from the root, are the same as in the thread's last stack. */
static uint32_t pyprof__common_frames(const pyprof__thread *thread, const pyprof__stack *stack) {
    uint32_t common = 0;
    uint32_t most = thread->frames.count < stack->count ? thread->frames.count : stack->count;
    if (thread->is_cut != stack->is_cut) {
        return 0;
    }
    while (common < most && memcmp(&PYPROF__ITEM(pyprof__frame, &thread->frames, common),
                                   &stack->frames[stack->count - 1 - common], sizeof(pyprof__frame)) == 0) {
        common++;
    }
    return common;
}

/* The tree's node for a stack of a thread, and what to remember of it for the next one. */
static uint32_t pyprof__node_of(pyprof__sampler *sampler, pyprof__thread *thread,
                                const pyprof__stack *stack) {
    const pyprof__track *track = pyprof__track_at(sampler->profile, thread->track);
    uint32_t common = pyprof__common_frames(thread, stack);
    uint32_t node = common > 0      ? PYPROF__ITEM(uint32_t, &thread->nodes, common - 1)
                    : stack->is_cut ? track->truncated
                                    : track->root;
    uint32_t full = track->truncated;
    if (!pyprof__array_reserve(sampler->memory, &thread->frames, stack->count) ||
        !pyprof__array_reserve(sampler->memory, &thread->nodes, stack->count)) {
        sampler->stats.truncated_memory++;
        thread->frames.count = thread->nodes.count = 0;
        return full;
    }
    thread->is_cut = stack->is_cut;
    for (uint32_t i = common; i < stack->count; i++) {
        const pyprof__frame *frame = &stack->frames[stack->count - 1 - i];
        pyprof__site *site = pyprof__site_of(sampler, frame);
        if (site != NULL) {
            sampler->stats.frames_unresolved += site->function == sampler->profile->unresolved;
            node = pyprof__site_node(sampler->profile, site, node);
        }
        if (site == NULL || node == PYPROF__NONE) {
            sampler->stats.truncated_memory++;
            thread->frames.count = thread->nodes.count = 0;
            return full;
        }
        PYPROF__ITEM(pyprof__frame, &thread->frames, i) = *frame;
        PYPROF__ITEM(uint32_t, &thread->nodes, i) = node;
    }
    thread->frames.count = thread->nodes.count = stack->count;
    return node;
}

/* Where a stack is known only so far. */
static uint32_t pyprof__unsettled_below(pyprof__sampler *sampler, const pyprof__thread *thread,
                                        uint32_t node) {
    uint32_t below = pyprof__child(sampler->profile, node, sampler->profile->unsettled, 0);
    sampler->stats.samples_partial++;
    return below != PYPROF__NONE ? below : pyprof__track_at(sampler->profile, thread->track)->truncated;
}

/* Threads of the threading module keep their object as first local variable of their outermost frame. */
static void pyprof__learn_object(pyprof__sampler *sampler, pyprof__thread *thread,
                                 const pyprof__stack *stack) {
    uint32_t outer = stack->count - stack->inner;
    if (thread->object == 0 && thread->nodes.count > outer && !stack->is_cut) {
        const pyprof__node *root =
            pyprof__node_at(sampler->profile, PYPROF__ITEM(uint32_t, &thread->nodes, outer));
        if (root->function == sampler->bootstrap) {
            thread->object = stack->root_first_local;
            thread->name_due = 0;
        }
    }
}

/* The name that Python gave the thread, else the system's. Looked up again from time to time: it may change. */
static void pyprof__update_name(pyprof__sampler *sampler, pyprof__thread *thread, uint64_t now) {
    pyprof__track *track = pyprof__track_at(sampler->profile, thread->track);
    uint32_t name = PYPROF__NONE;
    char comm[32];
    if (now < thread->name_due) {
        return;
    }
    thread->name_due = now + 1000000000u;
    if (thread->object != 0) {
        pyprof__view_reset(&sampler->view);
        uintptr_t text = pyprof__read_attribute(&sampler->view, thread->object, "_name", &sampler->name_key,
                                                &sampler->text);
        if (text != 0 && pyprof__read_text(text, &sampler->text)) {
            name = pyprof__intern_text(sampler->profile, sampler->text.utf8, sampler->text.size);
        }
    } else if (thread->tid != pyprof__pid) {
        size_t size = pyprof__read_task_file(thread->tid, "comm", comm, sizeof comm);
        if (size > 1) {
            name = pyprof__intern_text(sampler->profile, comm, size - 1);
        }
    }
    if (name != PYPROF__NONE) {
        track->name = name;
    } else if (thread->object != 0) {
        thread->name_due = now + 1000000u; /* its attributes were being changed */
    }
}

static uint64_t pyprof__min64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* The CPU time for a sample that runs, for the half gap between it and one that waited. What the thread used in
   that gap is known, but to give it just that would be a bias: of what runs for less than an interval, only a part
   is ever seen, which has to stand for the rest, as it does by its wall time. So CPU time that was used beside or
   between samples that waited is given out at the rate of the last hundred such half gaps, from a small stock. */
static uint64_t pyprof__claim(pyprof__thread *thread, uint64_t half_gap) {
    const double memory = 128, stock = 4; /* half gaps */
    thread->edge_wall += (double)half_gap;
    double due = thread->edge_wall > 0 ? thread->edge_cpu * ((double)half_gap / thread->edge_wall) : 0;
    due += (thread->owed_cpu - stock * due) / memory;
    due = due < thread->owed_cpu ? due : thread->owed_cpu;
    uint64_t claimed = (uint64_t)due;
    thread->edge_wall -= thread->edge_wall / memory;
    thread->edge_cpu -= thread->edge_cpu / memory;
    thread->owed_cpu -= (double)claimed;
    return claimed;
}

/* Nanoseconds; 0 = the thread is gone. Of whoever runs what was lent no clock is known: it stands still. */
static uint64_t pyprof__cpu_time(const pyprof__thread *thread) {
    return thread->lent != 0 ? 1 : pyprof__clock(thread->cpu_clock);
}

/* Splits the time since the last sample between the two: half to each, so that a sample stands for the time
   around it, and strata of random length stay unbiased. What waited used no CPU time. */
static void pyprof__share_time(pyprof__sampler *sampler, pyprof__thread *thread, uint32_t node, uint32_t kind,
                               uint64_t wall, uint64_t cpu) {
    uint64_t gap = wall > thread->wall ? wall - thread->wall : 0;
    uint64_t used = cpu > thread->cpu ? cpu - thread->cpu : 0;
    bool was_idle = (thread->kind & PYPROF__IDLE) != 0, is_idle = (kind & PYPROF__IDLE) != 0;
    uint64_t before = used / 2, after = used - before;
    if (was_idle || is_idle) {
        thread->edge_cpu += (double)used;
        thread->owed_cpu += (double)used;
        before = was_idle ? 0 : pyprof__claim(thread, gap / 2);
        after = is_idle ? 0 : pyprof__claim(thread, gap - gap / 2);
    }
    pyprof__add_time(sampler->profile, thread->track, thread->node, thread->kind, gap / 2, before);
    pyprof__add_time(sampler->profile, thread->track, node, kind, gap - gap / 2, after);
}

/* A thread without a sample came, on average, half way between when it was last missed and now. */
static void pyprof__begin_time(pyprof__sampler *sampler, pyprof__thread *thread, uint32_t node, uint32_t kind,
                               uint64_t wall, uint64_t cpu) {
    uint64_t half = wall > thread->absent_at ? (wall - thread->absent_at) / 2 : 0;
    uint64_t end = wall - sampler->start;
    uint64_t free_ns = end - pyprof__min64(end, pyprof__track_at(sampler->profile, thread->track)->end_ns);
    uint64_t used = cpu > thread->cpu ? cpu - thread->cpu : 0;
    half = pyprof__min64(half, free_ns);
    pyprof__add_absence(sampler->profile, thread->track, end - half);
    pyprof__add_time(sampler->profile, thread->track, node, kind, half,
                     (kind & PYPROF__IDLE) ? 0 : pyprof__min64(half, used));
}

/* The thread is no longer where its last sample saw it: its time ended, on average, half way since. */
static void pyprof__end_time(pyprof__sampler *sampler, pyprof__thread *thread, uint64_t now, bool is_whole) {
    if (thread->has_sample) {
        uint64_t gap = now > thread->wall ? now - thread->wall : 0;
        uint64_t cpu = pyprof__cpu_time(thread);
        uint64_t used = cpu > thread->cpu ? cpu - thread->cpu : 0;
        gap = is_whole ? gap : gap / 2;
        pyprof__add_time(sampler->profile, thread->track, thread->node, thread->kind, gap,
                         pyprof__min64(gap, used) + (uint64_t)thread->owed_cpu);
        thread->owed_cpu = 0;
        thread->cpu = cpu > thread->cpu ? cpu : thread->cpu;
        thread->has_sample = false;
    }
}

/* The tree's node for what was read of a thread. */
static uint32_t pyprof__take_in(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__stack *stack,
                                const pyprof__levels *levels) {
    if (!stack->is_partial) {
        thread->root = stack->is_cut ? 0 : stack->root;
        thread->root_tstate = levels->items[levels->count - 1].tstate;
    }
    uint32_t node = pyprof__node_of(sampler, thread, stack);
    pyprof__learn_object(sampler, thread, stack);
    return stack->is_partial ? pyprof__unsettled_below(sampler, thread, node) : node;
}

/* A sample enters the profile. stack NULL = the same as last time. */
static void pyprof__record(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__stack *stack,
                           const pyprof__levels *levels, uint32_t kind, uint64_t wall, uint64_t cpu) {
    uint32_t node = thread->node;
    if (stack != NULL) {
        if (stack->root == 0) {
            pyprof__end_time(sampler, thread, wall, false);
            thread->cpu = cpu > thread->cpu ? cpu : thread->cpu;
            thread->absent_at = wall;
            return;
        }
        node = pyprof__take_in(sampler, thread, stack, levels);
        thread->sample_tstate = levels->items[0].tstate;
    }
    if (thread->has_sample) {
        pyprof__share_time(sampler, thread, node, kind, wall, cpu);
    } else {
        pyprof__begin_time(sampler, thread, node, kind, wall, cpu);
    }
    pyprof__count_sample(sampler->profile, thread->track, node, kind);
    sampler->stats.samples++;
    sampler->stats.truncated_depth += thread->is_cut;
    sampler->stats.samples_idle += (kind & PYPROF__IDLE) != 0;
    thread->has_sample = true;
    thread->node = node;
    thread->kind = kind;
    thread->wall = wall;
    thread->cpu = cpu;
    pyprof__update_name(sampler, thread, wall);
}

/* Whether the thread's outermost frame of its last sample was known, and belonged to what is its outermost level now. */
static bool pyprof__knows_root(const pyprof__thread *thread, const pyprof__levels *levels) {
    const pyprof__frame *last = (const pyprof__frame *)thread->frames.data;
    return thread->root != 0 && thread->frames.count > 0 &&
           thread->frames.count > (uint32_t)pyprof__is_mark(&last[0]) &&
           thread->root_tstate == levels->items[levels->count - 1].tstate;
}

/* A thread that runs Python, but not where: its outermost frame stays where it is as long as it does. False: not
   even that is known. */
static bool pyprof__keep_root(pyprof__sampler *sampler, const pyprof__thread *thread,
                              const pyprof__levels *levels, pyprof__stack *stack) {
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    pyprof__found found;
    const pyprof__frame *last = (const pyprof__frame *)thread->frames.data;
    if (!pyprof__knows_root(thread, levels)) {
        return false;
    }
    bool has_mark = pyprof__is_mark(&last[0]);
    const pyprof__frame *root = &last[has_mark];
    pyprof__view_reset(&sampler->view);
    stack->frames[0] = *root;
    if (!pyprof__read_frame(&sampler->layout, &reader, thread->root, &found) || !found.is_shown ||
        found.code != root->code ||
        !pyprof__code_print(&sampler->layout, &reader, found.code, &stack->frames[0].print) ||
        stack->frames[0].print != root->print) {
        return false;
    }
    stack->frames[0].instr = found.instr;
    stack->root = thread->root;
    stack->count = stack->inner = 1;
    if (has_mark) {
        stack->frames[stack->count++] = last[0];
    }
    stack->is_cut = false;
    stack->is_partial = true;
    return true;
}

/* Whom to ask. A thread that computes answers in time; one that runs Python in short bursts between system
   calls is often gone when the signal comes, and such a signal may end its call early. So every thread has a
   debt: a call that was ended costs as many looks at the thread as shall lie between two of them, a late answer
   a few, and each look pays off one. A thread that owes more than two ended calls is asked only after a whole interval
   on its core, when it is not likely to be at the end of what it does; one that owes more than four is not asked. */
enum {
    PYPROF__COST_OF_ENDED_CALL = 4096,
    PYPROF__COST_OF_LATE_ANSWER = 8,
    PYPROF__DEBT_MAX = 2 * PYPROF__COST_OF_ENDED_CALL,
    PYPROF__DEBT_MAX_STEADY = 4 * PYPROF__COST_OF_ENDED_CALL
};

static void pyprof__judge(pyprof__thread *thread, bool was_late, bool ended_call) {
    thread->debt += ended_call ? PYPROF__COST_OF_ENDED_CALL : was_late ? PYPROF__COST_OF_LATE_ANSWER : 0;
}

/* At each look. */
static void pyprof__pay_off(pyprof__thread *thread) {
    thread->debt -= thread->debt > 0;
}

/* The thread that was asked, whether its answer is still waited for or not. */
static pyprof__thread *pyprof__asked_thread(const pyprof__sampler *sampler, uint32_t request) {
    pyprof__thread *asked = NULL;
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (thread->request == request) {
            return thread;
        }
        if (thread->is_alive && thread->lent == 0 && thread->tid == pyprof__handler.requests[request].tid) {
            asked = thread;
        }
    }
    return asked;
}

/* A thread state names the thread that made it; whoever uses it since cannot be told from outside. If that thread says
   that it is elsewhere, or stands still while the stack moves, again and again and without ever being seen to run it
   meanwhile, the thread state counts as that of a thread of its own, which has the same name but no clock, and which
   nobody can ask; for a while, as it may be given back. */
static void pyprof__doubt(pyprof__sampler *sampler, pyprof__tstate *tstate, uint32_t *count) {
    const uint32_t enough = 3; /* clocks of virtual machines may stand still for a moment */
    const uint64_t a_while = 30000000000u;
    sampler->has_doubts = true;
    ++*count;
    if (*count >= enough && !tstate->is_lent) {
        tstate->is_lent = true;
        tstate->lent_until = pyprof__now() + a_while;
        tstate->thread = PYPROF__NONE;
    }
}

static void pyprof__trust(pyprof__tstate *tstate) {
    tstate->moved = tstate->denied = 0;
    if (tstate->is_lent) {
        tstate->is_lent = false;
        tstate->thread = PYPROF__NONE;
    }
}

static void pyprof__deny(pyprof__sampler *sampler, uintptr_t address) {
    for (uint32_t i = 0; i < sampler->tstates.count; i++) {
        pyprof__tstate *tstate = pyprof__tstate_at(sampler, i);
        if (tstate->address == address) {
            pyprof__doubt(sampler, tstate, &tstate->denied);
        }
    }
}

/* The thread runs these. */
static void pyprof__confirm(pyprof__sampler *sampler, const pyprof__levels *levels) {
    for (uint32_t i = 0; sampler->has_doubts && i < sampler->tstates.count; i++) {
        pyprof__tstate *tstate = pyprof__tstate_at(sampler, i);
        for (uint32_t level = 0; level < levels->count; level++) {
            if (tstate->address == levels->items[level].tstate) {
                pyprof__trust(tstate);
            }
        }
    }
}

static void pyprof__take_answer(pyprof__sampler *sampler, pyprof__thread *thread, pyprof__request *request,
                                uint32_t state) {
    thread->request = PYPROF__NONE;
    if (state == PYPROF__REQUEST_LATE) {
        sampler->stats.lost_late++;
        return;
    }
    if (state == PYPROF__REQUEST_UNSETTLED &&
        !pyprof__keep_root(sampler, thread, &request->levels, &request->stack)) {
        sampler->stats.lost_unsettled++;
        return;
    }
    if (state == PYPROF__REQUEST_ANSWERED) {
        pyprof__confirm(sampler, &request->levels);
    }
    sampler->stats.samples_signalled++;
    if (request->has_new) {
        pyprof__make_known(&request->stack);
    }
    pyprof__record(sampler, thread, &request->stack, &request->levels, PYPROF__GIL, request->wall,
                   request->cpu);
}

/* Takes in what the threads have answered since. */
static void pyprof__collect(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < pyprof__handler.requests_used; i++) {
        pyprof__request *request = &pyprof__handler.requests[i];
        uint32_t state = pyprof__get(&request->state);
        if (state < PYPROF__REQUEST_ANSWERED) {
            continue;
        }
        pyprof__thread *thread = pyprof__asked_thread(sampler, i);
        if (request->lent != 0) {
            pyprof__deny(sampler, request->lent);
        }
        if (thread != NULL) {
            bool is_waited_for = thread->request == i;
            pyprof__judge(thread, is_waited_for && state == PYPROF__REQUEST_LATE, request->ended_call);
            if (is_waited_for) {
                pyprof__take_answer(sampler, thread, request, state);
            }
        }
        pyprof__set(&request->state, PYPROF__REQUEST_FREE);
    }
}

static uint32_t pyprof__free_request(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        pyprof__request *request = &pyprof__handler.requests[i];
        if (pyprof__get(&request->state) != PYPROF__REQUEST_FREE) {
            continue;
        }
        if (request->stack.frames == NULL) {
            size_t size = sampler->desc.max_depth * sizeof(pyprof__frame);
            request->stack.frames = (pyprof__frame *)pyprof__alloc(sampler->memory, size);
            request->stack.capacity = sampler->desc.max_depth;
        }
        if (i >= pyprof__handler.requests_used) {
            pyprof__handler.requests_used = i + 1;
        }
        return request->stack.frames != NULL ? i : PYPROF__NONE;
    }
    return PYPROF__NONE;
}

/* A running thread as it was seen at one moment. */
typedef struct pyprof__sight {
    pyprof__levels levels;
    uint64_t wall; /* the two clocks were read one right after the other */
    uint64_t cpu;
    bool is_fresh; /* it was just now that the thread was seen to be attached */
} pyprof__sight;

static pyprof__sight pyprof__read_clocks(const pyprof__thread *thread) {
    pyprof__sight sight;
    sight.levels.count = 0;
    sight.wall = pyprof__now();
    sight.cpu = pyprof__cpu_time(thread);
    sight.is_fresh = false;
    return sight;
}

static void pyprof__put_question(pyprof__request *request, const pyprof__thread *thread,
                                 const pyprof__sight *sight) {
    request->tid = thread->tid;
    request->lent = 0;
    request->levels = sight->levels;
    request->wall = sight->wall;
    request->cpu = sight->cpu;
}

/* A thread that was asked, and then not waited for, still has the signal before it: the question is put anew
   in its place. */
static uint32_t pyprof__renew_request(const pyprof__thread *thread, const pyprof__sight *sight) {
    for (uint32_t i = 0; i < pyprof__handler.requests_used; i++) {
        pyprof__request *request = &pyprof__handler.requests[i];
        if (pyprof__get(&request->state) == PYPROF__REQUEST_CANCELLED && request->tid == thread->tid) {
            pyprof__put_question(request, thread, sight);
            if (pyprof__swap_if(&request->state, PYPROF__REQUEST_CANCELLED, PYPROF__REQUEST_SENT)) {
                return i;
            }
        }
    }
    return PYPROF__NONE;
}

/* Whether the thread is, by now, in one of its interpreters; from 1: in another one than was thought. */
static bool pyprof__is_attached_in(const pyprof__sampler *sampler, const pyprof__levels *levels,
                                   uint32_t from) {
    for (uint32_t i = from; i < levels->known; i++) {
        const pyprof__level *level = &levels->items[i];
        if (pyprof__is_attached_now(&sampler->layout, level->tstate) &&
            (i == 0 || pyprof__level_now(&sampler->layout, levels->thread_id, level) != PYPROF__LEVEL_GONE)) {
            return true;
        }
    }
    return false;
}

static uint32_t pyprof__send_request(pyprof__sampler *sampler, const pyprof__thread *thread,
                                     const pyprof__sight *sight) {
    uint32_t index = pyprof__free_request(sampler);
    if (index == PYPROF__NONE) {
        return PYPROF__NONE;
    }
    pyprof__request *request = &pyprof__handler.requests[index];
    pyprof__put_question(request, thread, sight);
    pyprof__set(&request->state, PYPROF__REQUEST_SENT);
    /* The last look just before sending is what spares the program's system calls. */
    if ((!sight->is_fresh && !pyprof__is_attached_in(sampler, &sight->levels, 0)) ||
        !pyprof__signal_thread(thread->tid, pyprof__handler.signal_number, pyprof__question(index))) {
        pyprof__set(&request->state, PYPROF__REQUEST_FREE);
        return PYPROF__NONE;
    }
    sampler->stats.signals++;
    return index;
}

/* Reads a stack once: what it lay in last time at once, in one system call, so that little changes meanwhile. */
static bool pyprof__read_stack(pyprof__sampler *sampler, const pyprof__levels *levels, pyprof__stack *stack) {
    uintptr_t leaf = 0, tstate = levels->items[0].tstate;
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    pyprof__view_renew(&sampler->view, tstate);
    return pyprof__leaf_frame(&sampler->layout, &reader, tstate, &leaf) &&
           pyprof__walk(&sampler->layout, &reader, leaf, stack) &&
           pyprof__walk_outer(&sampler->layout, &reader, levels, stack) &&
           !pyprof__is_attached_in(sampler, levels, 1);
}

/* Which of two thread states of one thread was entered later: that is where the thread is. */
static bool pyprof__is_inner(pyprof__sampler *sampler, const pyprof__tstate *a, const pyprof__tstate *b) {
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    if (pyprof__is_attached(&sampler->layout, a->address, a->copy) ||
        pyprof__is_attached(&sampler->layout, b->address, b->copy)) {
        return pyprof__is_attached(&sampler->layout, a->address, a->copy);
    }
    if (a->framed_since == 0 || b->framed_since == 0) {
        return a->framed_since != 0;
    }
    pyprof__view_reset(&sampler->view);
    uintptr_t entry_a =
        pyprof__entry_address(&sampler->layout, &reader, pyprof__tstate_word(a, sampler->layout.ts_frame));
    uintptr_t entry_b =
        pyprof__entry_address(&sampler->layout, &reader, pyprof__tstate_word(b, sampler->layout.ts_frame));
    if (entry_a != 0 && entry_b != 0) {
        return entry_a < entry_b;
    }
    return a->framed_since > b->framed_since;
}

static pyprof__level pyprof__level_of(const pyprof__tstate *tstate) {
    pyprof__level level = {tstate->address, tstate->interp, tstate->id, tstate->interp_id, 0};
    return level;
}

/* Those of a thread's thread states that have no frames: it may enter one at any time. */
static void pyprof__add_unframed(const pyprof__sampler *sampler, const pyprof__thread *thread,
                                 pyprof__levels *levels) {
    for (uint32_t at = thread->siblings; at != PYPROF__NONE; at = pyprof__tstate_at(sampler, at)->sibling) {
        const pyprof__tstate *tstate = pyprof__tstate_at(sampler, at);
        if (at == thread->tstate || tstate->framed_since != 0) {
            continue;
        }
        if (levels->known == PYPROF__LEVELS_MAX) {
            levels->is_whole = false;
            return;
        }
        levels->items[levels->known++] = pyprof__level_of(tstate);
    }
}

/* A thread's levels: where it is, and then its other thread states that have frames, from the inside out. */
static void pyprof__find_levels(pyprof__sampler *sampler, const pyprof__thread *thread,
                                pyprof__levels *levels) {
    uint32_t order[PYPROF__LEVELS_MAX + 1] = {thread->tstate}, count = 1;
    levels->is_cut = false;
    for (uint32_t at = thread->siblings; at != PYPROF__NONE; at = pyprof__tstate_at(sampler, at)->sibling) {
        pyprof__tstate *tstate = pyprof__tstate_at(sampler, at);
        if (at == thread->tstate || tstate->framed_since == 0) {
            continue;
        }
        uint32_t place = count++;
        for (; place > 1 && pyprof__is_inner(sampler, tstate, pyprof__tstate_at(sampler, order[place - 1]));
             place--) {
            order[place] = order[place - 1];
        }
        order[place] = at;
        if (count > PYPROF__LEVELS_MAX) {
            count = PYPROF__LEVELS_MAX;
            levels->is_cut = true;
        }
    }
    levels->count = levels->known = count;
    levels->is_whole = !levels->is_cut && sampler->has_whole_lists;
    levels->naming = pyprof__names.generation;
    levels->thread_id = thread->thread_id;
    for (uint32_t i = 0; i < count; i++) {
        levels->items[i] = pyprof__level_of(pyprof__tstate_at(sampler, order[i]));
    }
    pyprof__add_unframed(sampler, thread, levels);
}

/* Whether another thread state of the thread has frames, now, and is not where the thread is. */
static bool pyprof__waits_outside(const pyprof__sampler *sampler, const pyprof__thread *thread,
                                  const pyprof__tstate *tstate) {
    pyprof__level level = pyprof__level_of(tstate);
    return pyprof__level_now(&sampler->layout, thread->thread_id, &level) == PYPROF__LEVEL_STANDS &&
           !pyprof__is_attached_now(&sampler->layout, tstate->address);
}

/* The one that is attached is the innermost, whatever was thought of it before: two may have been entered between two
   ticks. */
static void pyprof__learn_order(pyprof__sampler *sampler, const pyprof__thread *thread) {
    pyprof__tstate *inner = pyprof__tstate_at(sampler, thread->tstate);
    for (uint32_t at = thread->siblings; at != PYPROF__NONE; at = pyprof__tstate_at(sampler, at)->sibling) {
        const pyprof__tstate *other = pyprof__tstate_at(sampler, at);
        if (at != thread->tstate && inner->framed_since != 0 && inner->framed_since <= other->framed_since &&
            pyprof__waits_outside(sampler, thread, other) &&
            pyprof__is_attached_now(&sampler->layout, inner->address)) {
            inner->framed_since = other->framed_since + 1;
        }
    }
}

/* Asks the thread for its own stack; false if that cannot be done now. */
static bool pyprof__ask(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__sight *sight) {
    thread->request = pyprof__renew_request(thread, sight);
    if (thread->request == PYPROF__NONE) {
        thread->request = pyprof__send_request(sampler, thread, sight);
    }
    thread->ticks_asked = 0;
    return thread->request != PYPROF__NONE;
}

static bool pyprof__stacks_agree(const pyprof__stack *a, const pyprof__stack *b) {
    return a->leaf == b->leaf && a->count == b->count && a->is_cut == b->is_cut &&
           memcmp(a->frames, b->frames, a->count * sizeof *a->frames) == 0;
}

static bool pyprof__same_code(const pyprof__frame *a, const pyprof__frame *b) {
    return a->code == b->code && a->print == b->print;
}

/* Whether a stack begins as the thread's last one did: one that was read while it changed may end at a frame whose
   link outwards had just been cut. */
static bool pyprof__has_known_root(const pyprof__thread *thread, const pyprof__levels *levels,
                                   const pyprof__stack *stack) {
    return !pyprof__knows_root(thread, levels) ||
           (stack->count > 0 && pyprof__same_code(&PYPROF__ITEM(const pyprof__frame, &thread->frames, 0),
                                                  &stack->frames[stack->count - 1]));
}

/* Of a stack that was read twice and had changed, keeps the outer frames that had not, and the function in which they
   part; if both ended in that, it is whole. False: nothing would be left, and nothing was changed. */
static bool pyprof__keep_common(const pyprof__thread *thread, const pyprof__levels *levels,
                                pyprof__stack *stack, const pyprof__stack *second) {
    uint32_t common = 0;
    uint32_t most = stack->count < second->count ? stack->count : second->count;
    const pyprof__frame *a = stack->frames + stack->count, *b = second->frames + second->count;
    if (stack->is_cut || second->is_cut || !pyprof__has_known_root(thread, levels, stack)) {
        return false;
    }
    while (common < most && memcmp(&a[-1 - (ptrdiff_t)common], &b[-1 - (ptrdiff_t)common], sizeof *a) == 0) {
        common++;
    }
    if (common < most && pyprof__same_code(&a[-1 - (ptrdiff_t)common], &b[-1 - (ptrdiff_t)common])) {
        common++;
    }
    if (common == 0) {
        return false;
    }
    memmove(stack->frames, stack->frames + (stack->count - common), common * sizeof *stack->frames);
    stack->is_partial = common < stack->count || common < second->count;
    stack->count = common;
    return true;
}

/* Whether a stack agrees with an earlier read, if need be by claiming no more than both: what that one could not tell
   this one does not make known. */
static bool pyprof__settle(const pyprof__thread *thread, const pyprof__levels *levels, pyprof__stack *stack,
                           const pyprof__stack *earlier) {
    if (!pyprof__stacks_agree(earlier, stack) && !pyprof__keep_common(thread, levels, stack, earlier)) {
        return false;
    }
    stack->is_partial = stack->is_partial || earlier->is_partial;
    return true;
}

/* What a look from outside saw. */
typedef struct pyprof__glance {
    pyprof__stack stack; /* in the sampler's scratch */
    bool attached;
    bool ran;      /* its clock went on while it was looked at first */
    uint64_t wall; /* before what was read last; and then, */
    uint64_t cpu;  /* the thread's clock; 0 = the thread is gone */
} pyprof__glance;

/* Where a thread of several interpreters is by now: where it is attached, else what it has entered last. */
static void pyprof__catch_up(const pyprof__sampler *sampler, pyprof__levels *levels) {
    const pyprof__layout *layout = &sampler->layout;
    uint32_t at = 0, i = 0;
    if (levels->known < 2) {
        return;
    }
    while (at < levels->known && !pyprof__is_attached_now(layout, levels->items[at].tstate)) {
        at++;
    }
    for (; at == levels->known && i < levels->known; i++) {
        uint32_t next = (levels->count + i) % levels->known; /* what had no frames before comes first */
        if (pyprof__level_now(layout, levels->thread_id, &levels->items[next]) == PYPROF__LEVEL_STANDS) {
            at = next;
        }
    }
    if (at < levels->known) {
        pyprof__follow(layout, levels, levels->items[at].tstate);
    }
}

static bool pyprof__has_stayed(const pyprof__sampler *sampler, const pyprof__levels *levels) {
    pyprof__levels now = *levels;
    pyprof__catch_up(sampler, &now);
    return now.count == levels->count &&
           memcmp(now.items, levels->items, levels->known * sizeof *levels->items) == 0;
}

/* Whether a stack that was read while its thread stood still changes all the same. */
static bool pyprof__is_run_elsewhere(pyprof__sampler *sampler, const pyprof__thread *thread,
                                     const pyprof__levels *levels, const pyprof__glance *glance) {
    pyprof__frame *halves = (pyprof__frame *)sampler->scratch.data;
    pyprof__tstate *tstate = pyprof__tstate_at(sampler, thread->tstate);
    pyprof__stack again;
    again.capacity = sampler->desc.max_depth;
    again.frames = glance->stack.frames == halves ? halves + again.capacity : halves;
    bool agrees = pyprof__read_stack(sampler, levels, &again) && pyprof__stacks_agree(&again, &glance->stack);
    if (pyprof__cpu_time(thread) != glance->cpu) {
        return false; /* it runs again, but did not then */
    }
    if (agrees) {
        tstate->moved = 0;
    } else if (tstate->address == levels->items[0].tstate && !pyprof__is_attached_in(sampler, levels, 1)) {
        pyprof__doubt(sampler, tstate, &tstate->moved);
    }
    return !agrees;
}

/* Reads a stack from outside. A thread whose CPU clock stood still meanwhile cannot have changed it. Of one
   that runs, three reads count as far as they agree: to read on until they do would favour what moves little.
   But not if its answer is waited_for, and not if it runs Python and can be asked. */
static bool pyprof__read_quietly(pyprof__sampler *sampler, const pyprof__thread *thread,
                                 pyprof__levels *levels, bool waited_for, bool can_ask,
                                 pyprof__glance *glance) {
    enum {
        attempts = 8 /* many come to nothing where frames come and go */
    };
    const uint64_t patience = 150000; /* whoever waits long sees what comes after */
    uint64_t end = pyprof__now() + patience;
    pyprof__stack first;
    bool was_attached = false, has_first = false;
    int agreed = 0;
    memset(&first, 0, sizeof first);
    first.frames = (pyprof__frame *)sampler->scratch.data;
    glance->stack.frames = first.frames + sampler->desc.max_depth;
    first.capacity = glance->stack.capacity = sampler->desc.max_depth;
    for (int attempt = 0; attempt < attempts && (attempt < 4 || pyprof__now() < end); attempt++) {
        pyprof__sight before = pyprof__read_clocks(thread);
        pyprof__catch_up(sampler, levels);
        glance->attached = pyprof__is_attached_now(&sampler->layout, levels->items[0].tstate);
        bool is_read = pyprof__read_stack(sampler, levels, &glance->stack);
        /* If it ran on, it may by now wait elsewhere: it is the earlier clock that belongs to this stack. */
        uint64_t after = pyprof__cpu_time(thread);
        glance->wall = before.wall;
        glance->cpu = after != 0 ? before.cpu : 0;
        if (before.cpu == after && thread->lent == 0) {
            bool is_elsewhere =
                is_read && glance->attached && pyprof__is_run_elsewhere(sampler, thread, levels, glance);
            glance->attached = glance->attached && !is_elsewhere;
            return is_read && !is_elsewhere && glance->cpu != 0;
        }
        glance->ran = true;
        if (waited_for) {
            return false;
        }
        if (can_ask && (glance->attached || pyprof__is_attached_in(sampler, levels, 1))) {
            glance->attached = true;
            return false;
        }
        /* A generator at the root of a running thread's stack is one whose caller's link had just been cut. */
        is_read = is_read && !glance->stack.root_is_generator &&
                  (glance->stack.is_cut || pyprof__is_outermost(&sampler->layout, glance->stack.root)) &&
                  pyprof__has_stayed(sampler, levels);
        if (is_read) {
            bool agrees = has_first && glance->attached == was_attached &&
                          pyprof__settle(thread, levels, &glance->stack, &first);
            agreed = agrees ? agreed + 1 : 0;
            if (agreed == 2) {
                return true;
            }
            pyprof__stack spare = first;
            first = glance->stack;
            glance->stack = spare;
            was_attached = glance->attached;
            has_first = true;
        }
    }
    return false;
}

static bool pyprof__may_ask(const pyprof__sampler *sampler, const pyprof__thread *thread, bool is_steady) {
    return sampler->desc.capture == PYPROF_CAPTURE_DEFAULT && thread->lent == 0 &&
           thread->request == PYPROF__NONE &&
           thread->debt <= (is_steady ? PYPROF__DEBT_MAX_STEADY : PYPROF__DEBT_MAX);
}

/* The thread was looked at before it answered: what is read now stands in its stead. */
static void pyprof__cancel(pyprof__thread *thread) {
    if (thread->request != PYPROF__NONE) {
        pyprof__swap_if(&pyprof__handler.requests[thread->request].state, PYPROF__REQUEST_SENT,
                        PYPROF__REQUEST_CANCELLED);
        thread->request = PYPROF__NONE;
    }
}

static uint32_t pyprof__kind_of(const pyprof__thread *thread, const pyprof__glance *glance) {
    if (glance->attached) {
        return PYPROF__GIL;
    }
    return glance->cpu != thread->cpu && (glance->ran || pyprof__thread_is_runnable(thread->tid))
               ? 0
               : PYPROF__IDLE;
}

static void pyprof__look_quietly(pyprof__sampler *sampler, pyprof__thread *thread, pyprof__levels *levels) {
    enum {
        deaf_after = 8
    }; /* a running thread that does not answer for so many ticks blocks the signal */
    bool can_ask = pyprof__may_ask(sampler, thread, false);
    bool is_asked = thread->request != PYPROF__NONE;
    bool waited_for = is_asked && ++thread->ticks_asked < deaf_after;
    pyprof__glance glance;
    memset(&glance, 0, sizeof glance);
    bool is_read = pyprof__read_quietly(sampler, thread, levels, waited_for, can_ask, &glance);
    if (!is_read && can_ask && glance.attached) {
        pyprof__sight sight = pyprof__read_clocks(thread);
        sight.levels = *levels;
        if (pyprof__ask(sampler, thread, &sight)) {
            return; /* it did not run when it was looked at first, and now it does */
        }
    }
    if (!is_read && !waited_for && glance.attached && glance.cpu != 0) {
        is_read = pyprof__keep_root(sampler, thread, levels, &glance.stack);
    }
    if (!is_read) {
        sampler->stats.lost_pending += waited_for;
        sampler->stats.lost_unsettled += !waited_for && glance.cpu != 0;
        sampler->stats.lost_unreadable += !waited_for && glance.cpu == 0;
        return;
    }
    if (!pyprof__is_bound_to(&sampler->layout, levels->items[0].tstate, thread->thread_id, thread->tid)) {
        sampler->stats.lost_unreadable++;
        return;
    }
    if (is_asked && pyprof__get(&pyprof__handler.requests[thread->request].state) != PYPROF__REQUEST_SENT) {
        sampler->stats.lost_pending++; /* it answered just now: that is the sample, at the next tick */
        return;
    }
    if (waited_for) {
        pyprof__cancel(thread);
    }
    pyprof__record(sampler, thread, &glance.stack, levels, pyprof__kind_of(thread, &glance), glance.wall,
                   glance.cpu);
}

/* Whether the thread, whose clock was just read, has been on a core all the time since its last sample. */
static bool pyprof__is_steady(const pyprof__thread *thread, uint64_t now, uint64_t cpu) {
    const uint64_t slack = 10000;
    return thread->has_sample && cpu + slack >= thread->cpu + (now - thread->wall);
}

/* One thread at one tick. */
static void pyprof__look(pyprof__sampler *sampler, pyprof__thread *thread, pyprof__sight *sight) {
    const pyprof__tstate *tstate = &PYPROF__ITEM(const pyprof__tstate, &sampler->tstates, thread->tstate);
    bool attached = pyprof__is_attached(&sampler->layout, tstate->address, tstate->copy);
    uint64_t now = sight->wall, cpu = sight->cpu;
    pyprof__pay_off(thread);
    if (attached) {
        pyprof__learn_order(sampler, thread);
    }
    if (cpu == 0) { /* the thread has ended and left its thread state behind */
        if (attached) {
            pyprof__tstate *used = pyprof__tstate_at(sampler, thread->tstate);
            pyprof__doubt(sampler, used, &used->moved);
        }
        pyprof__end_time(sampler, thread, now, false);
        sampler->stats.lost_unreadable++;
        return;
    }
    /* Who lets go of Python has run, whatever its clock says: a virtual machine's may stand still for a while. */
    bool was_attached = (thread->kind & PYPROF__GIL) != 0;
    if (thread->has_sample && cpu == thread->cpu && tstate->address == thread->sample_tstate && !attached &&
        !was_attached && thread->lent == 0) {
        pyprof__cancel(thread); /* it has not run since: nothing can have changed */
        pyprof__record(sampler, thread, NULL, NULL, PYPROF__IDLE, now, cpu);
        return;
    }
    pyprof__find_levels(sampler, thread, &sight->levels);
    bool is_steady = pyprof__is_steady(thread, now, cpu);
    if (attached && pyprof__may_ask(sampler, thread, is_steady) &&
        (is_steady || pyprof__cpu_time(thread) != cpu) && pyprof__ask(sampler, thread, sight)) {
        sampler->runner = tstate->thread;
        return;
    }
    pyprof__look_quietly(sampler, thread, &sight->levels);
}

/* To 3.10 a thread state has no native id: glibc and musl keep it inside what a pthread_t points to. Where,
   is learnt from two threads whose ids are known. */
static void pyprof__learn_tid_offset(pyprof__sampler *sampler) {
    for (uint32_t offset = 0; offset < 4096; offset += 4) {
        int32_t own = 0, other = 0;
        if (!pyprof__read((uintptr_t)pthread_self() + offset, &own, sizeof own)) {
            break;
        }
        if (own == sampler->tid && pyprof__read((uintptr_t)sampler->starter + offset, &other, sizeof other) &&
            other == sampler->starter_tid) {
            sampler->pthread_tid_offset = offset;
            return;
        }
    }
}

/* The id of the OS thread that a thread state is bound to; 0 = none (yet), or not to be told. */
static int32_t pyprof__native_id(const pyprof__sampler *sampler, const pyprof__tstate *tstate) {
    int32_t tid = 0;
    if (sampler->layout.ts_native_id != PYPROF__ABSENT) {
        unsigned long native = 0;
        memcpy(&native, tstate->copy + sampler->layout.ts_native_id, sizeof native);
        return (int32_t)native;
    }
    if (tstate->thread_id == 0 || sampler->pthread_tid_offset == PYPROF__ABSENT ||
        !pyprof__read(tstate->thread_id + sampler->pthread_tid_offset, &tid, sizeof tid) ||
        !pyprof__thread_lives(tid)) {
        return 0;
    }
    return tid;
}

static uint32_t pyprof__new_thread(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        const pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (!thread->is_alive && thread->request == PYPROF__NONE && !pyprof__thread_lives(thread->tid)) {
            return i;
        }
    }
    uint32_t index = pyprof__array_add(sampler->memory, &sampler->threads);
    if (index != PYPROF__NONE) {
        pyprof__thread_at(sampler, index)->request = PYPROF__NONE;
        pyprof__thread_at(sampler, index)->frames.item_size = sizeof(pyprof__frame);
        pyprof__thread_at(sampler, index)->nodes.item_size = sizeof(uint32_t);
    }
    return index;
}

static bool pyprof__begin_thread(pyprof__sampler *sampler, pyprof__thread *thread,
                                 const pyprof__tstate *tstate) {
    char name[32] = "MainThread";
    size_t size = strlen(name);
    if (tstate->native_id != pyprof__pid) {
        size = pyprof__read_task_file(tstate->native_id, "comm", name, sizeof name);
        size -= size > 0; /* its newline */
    }
    uint32_t track = pyprof__add_track(sampler->profile, tstate->native_id, name, size);
    if (track == PYPROF__NONE) {
        return false;
    }
    pyprof__array frames = thread->frames, nodes = thread->nodes;
    memset(thread, 0, sizeof *thread);
    thread->frames = frames;
    thread->nodes = nodes;
    thread->frames.count = thread->nodes.count = 0;
    thread->tid = tstate->native_id;
    thread->thread_id = tstate->thread_id;
    thread->lent = tstate->is_lent ? tstate->address : 0;
    thread->cpu_clock = pyprof__cpu_clock(tstate->native_id);
    thread->track = track;
    thread->request = PYPROF__NONE;
    thread->is_alive = true;
    sampler->stats.threads++;
    return true;
}

/* The thread that a thread state belongs to. A thread that comes back to Python with a new thread state, as
   host threads do all the time, is still the same thread. */
static uint32_t pyprof__find_thread(pyprof__sampler *sampler, const pyprof__tstate *tstate) {
    for (uint32_t i = sampler->threads.count; i-- > 0;) {
        const pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (thread->tid == tstate->native_id && thread->thread_id == tstate->thread_id &&
            thread->lent == (tstate->is_lent ? tstate->address : 0)) {
            return i;
        }
    }
    uint32_t index = pyprof__new_thread(sampler);
    if (index == PYPROF__NONE || !pyprof__begin_thread(sampler, pyprof__thread_at(sampler, index), tstate)) {
        sampler->stats.lost_memory++;
        return PYPROF__NONE;
    }
    return index;
}

/* Takes the fields that matter out of a fresh copy; the thread is looked up only when they have changed. */
static void pyprof__bind(pyprof__sampler *sampler, pyprof__tstate *tstate) {
    if (tstate->is_lent && sampler->last_tick > tstate->lent_until) {
        pyprof__trust(tstate);
    }
    uintptr_t thread_id = 0;
    unsigned long native = 0;
    memcpy(&thread_id, tstate->copy + sampler->layout.ts_thread_id, sizeof(unsigned long));
    if (sampler->layout.ts_native_id != PYPROF__ABSENT) {
        memcpy(&native, tstate->copy + sampler->layout.ts_native_id, sizeof native);
    } else {
        native = (unsigned long)tstate->native_id;
    }
    if (tstate->thread != PYPROF__NONE && thread_id == tstate->thread_id &&
        (int32_t)native == tstate->native_id) {
        return;
    }
    if (thread_id != tstate->thread_id || (int32_t)native != tstate->native_id) {
        pyprof__trust(tstate); /* that of a thread being born was run by it before it was its own */
    }
    tstate->thread_id = thread_id;
    tstate->native_id = pyprof__native_id(sampler, tstate);
    tstate->thread = tstate->native_id > 0 ? pyprof__find_thread(sampler, tstate) : PYPROF__NONE;
}

static void pyprof__interp_pieces(const pyprof__sampler *sampler, pyprof__interp *interp,
                                  pyprof__piece *pieces) {
    const uint32_t offsets[3] = {sampler->layout.interp_next, sampler->layout.interp_threads,
                                 sampler->layout.interp_id};
    void *const to[3] = {&interp->links[0], &interp->links[1], &interp->id_now};
    for (int i = 0; i < 3; i++) {
        pieces[i].address = interp->address + offsets[i];
        pieces[i].to = to[i];
        pieces[i].size = sizeof(uint64_t);
    }
}

/* Reads all known interpreters and thread states again, many in one call. */
static bool pyprof__reread_lists(pyprof__sampler *sampler) {
    pyprof__piece pieces[PYPROF__PIECES_MAX];
    size_t count = 0;
    uint32_t of_interps = sampler->interps.count * 3, total = of_interps + sampler->tstates.count;
    for (uint32_t i = 0; i < total; i++) {
        if (i < of_interps) {
            pyprof__interp *interp = &PYPROF__ITEM(pyprof__interp, &sampler->interps, i / 3);
            pyprof__piece parts[3];
            pyprof__interp_pieces(sampler, interp, parts);
            pieces[count++] = parts[i % 3];
        } else {
            pyprof__tstate *tstate = &PYPROF__ITEM(pyprof__tstate, &sampler->tstates, i - of_interps);
            pyprof__piece piece = {tstate->address, tstate->copy, sampler->layout.ts_size};
            pieces[count++] = piece;
        }
        if (count == PYPROF__PIECES_MAX || i + 1 == total) {
            if (!pyprof__read_pieces(pieces, count)) {
                return false;
            }
            count = 0;
        }
    }
    return true;
}

/* Whether the lists are what they were: every link leads where it led. */
static bool pyprof__lists_unchanged(const pyprof__sampler *sampler) {
    uint32_t at = 0;
    uintptr_t interp = pyprof__first_interpreter();
    for (uint32_t i = 0; i < sampler->interps.count; i++) {
        const pyprof__interp *item = &PYPROF__ITEM(const pyprof__interp, &sampler->interps, i);
        uintptr_t next = item->links[1];
        if (item->address != interp || item->id != item->id_now) {
            return false;
        }
        for (; next != 0; at++) {
            const pyprof__tstate *tstate = &PYPROF__ITEM(const pyprof__tstate, &sampler->tstates, at);
            uint64_t id = 0;
            if (at == sampler->tstates.count) {
                return false;
            }
            memcpy(&id, tstate->copy + sampler->layout.ts_id, sizeof id);
            if (tstate->address != next || tstate->interp != interp || id != tstate->id) {
                return false;
            }
            next = pyprof__tstate_word(tstate, sampler->layout.ts_next);
        }
        interp = item->links[0];
    }
    return interp == 0 && at == sampler->tstates.count;
}

/* What was known of a thread state before; the lists keep their order, so the search rarely takes long. */
static void pyprof__inherit(const pyprof__sampler *sampler, pyprof__tstate *tstate, uint32_t *cursor) {
    for (uint32_t i = 0; i < sampler->tstates.count; i++) {
        uint32_t at = (*cursor + i) % sampler->tstates.count;
        const pyprof__tstate *old = &PYPROF__ITEM(const pyprof__tstate, &sampler->tstates, at);
        if (old->address == tstate->address && old->id == tstate->id && old->interp_id == tstate->interp_id) {
            tstate->thread = old->thread;
            tstate->thread_id = old->thread_id;
            tstate->native_id = old->native_id;
            tstate->framed_since = old->framed_since;
            tstate->moved = old->moved;
            tstate->denied = old->denied;
            tstate->is_lent = old->is_lent;
            tstate->lent_until = old->lent_until;
            *cursor = at + 1;
            return;
        }
    }
}

/* Follows one interpreter's list of thread states, link by link. False: it changed meanwhile, or no room. */
static bool pyprof__walk_threads(pyprof__sampler *sampler, const pyprof__interp *interp, uint32_t *cursor) {
    uintptr_t previous = 0, address = interp->links[1];
    while (address != 0) {
        uint32_t index = pyprof__array_add(sampler->memory, &sampler->fresh);
        if (index == PYPROF__NONE) {
            sampler->stats.lost_memory++;
            return false;
        }
        pyprof__tstate *tstate = &PYPROF__ITEM(pyprof__tstate, &sampler->fresh, index);
        tstate->address = address;
        tstate->interp = interp->address;
        tstate->interp_id = interp->id;
        tstate->thread = PYPROF__NONE;
        if (!pyprof__read(address, tstate->copy, sampler->layout.ts_size) ||
            pyprof__tstate_word(tstate, sampler->layout.ts_interp) != interp->address ||
            pyprof__tstate_word(tstate, sampler->layout.ts_prev) != previous) {
            sampler->fresh.count--;
            return false;
        }
        memcpy(&tstate->id, tstate->copy + sampler->layout.ts_id, sizeof tstate->id);
        pyprof__inherit(sampler, tstate, cursor);
        previous = address;
        address = pyprof__tstate_word(tstate, sampler->layout.ts_next);
    }
    return true;
}

/* Follows all lists anew. They may change meanwhile (we do not take the runtime's lock): every link is
   checked both ways, and what was read up to a broken one is still true. */
static bool pyprof__walk_lists(pyprof__sampler *sampler) {
    uint32_t cursor = 0;
    bool is_whole = true;
    sampler->interps.count = sampler->fresh.count = 0;
    for (uintptr_t address = pyprof__first_interpreter(); address != 0;) {
        uint32_t index = pyprof__array_add(sampler->memory, &sampler->interps);
        if (index == PYPROF__NONE || index > 65535) {
            is_whole = false;
            break;
        }
        pyprof__interp *interp = &PYPROF__ITEM(pyprof__interp, &sampler->interps, index);
        pyprof__piece pieces[3];
        interp->address = address;
        pyprof__interp_pieces(sampler, interp, pieces);
        if (!pyprof__read_pieces(pieces, 3)) {
            sampler->interps.count--;
            is_whole = false;
            break;
        }
        interp->id = interp->id_now;
        is_whole = pyprof__walk_threads(sampler, interp, &cursor) && is_whole;
        address = interp->links[0];
    }
    pyprof__array old = sampler->tstates;
    sampler->tstates = sampler->fresh;
    sampler->fresh = old;
    return is_whole;
}

/* Adds a thread state to those that its thread has at this tick. */
static void pyprof__join(pyprof__sampler *sampler, pyprof__thread *thread, uint32_t index) {
    pyprof__tstate *tstate = pyprof__tstate_at(sampler, index);
    bool is_first = thread->seen != sampler->stats.ticks;
    bool has_frames = pyprof__may_have_frames(&sampler->layout, tstate->address, tstate->copy);
    /* Of two that are seen at once, the later interpreter was likely entered later. */
    uint64_t order = sampler->stats.ticks << 16 | (uint64_t)(tstate->interp_id & 0xffff);
    tstate->framed_since = !has_frames ? 0 : tstate->framed_since > 0 ? tstate->framed_since : order;
    tstate->sibling = is_first ? PYPROF__NONE : thread->siblings;
    thread->siblings = index;
    thread->seen = sampler->stats.ticks;
    if (is_first || pyprof__is_inner(sampler, tstate, pyprof__tstate_at(sampler, thread->tstate))) {
        thread->tstate = index;
    }
}

/* Which thread states exist, and what they hold now. */
static void pyprof__list_threads(pyprof__sampler *sampler) {
    bool is_known = pyprof__reread_lists(sampler) && pyprof__lists_unchanged(sampler);
    sampler->has_whole_lists = is_known || pyprof__walk_lists(sampler) || pyprof__walk_lists(sampler);
    for (uint32_t i = 0; i < sampler->tstates.count; i++) {
        pyprof__tstate *tstate = pyprof__tstate_at(sampler, i);
        pyprof__bind(sampler, tstate);
        if (tstate->thread == PYPROF__NONE) {
            continue;
        }
        pyprof__thread *thread = pyprof__thread_at(sampler, tstate->thread);
        if (thread->seen + 1 < sampler->stats.ticks) {
            thread->absent_at = sampler->last_tick;
        }
        pyprof__join(sampler, thread, i);
    }
}

/* The thread that was asked at the last tick is likely the one to ask again. So its clocks are read first, then the
   lists, and it comes before the others: if there are few, the lists are the last look at it, and save another. */
static void pyprof__look_at_runner(pyprof__sampler *sampler, uint32_t runner, pyprof__sight *sight) {
    const uint32_t few = 16;
    sight->is_fresh = sampler->tstates.count + sampler->interps.count <= few;
    pyprof__look(sampler, pyprof__thread_at(sampler, runner), sight);
}

static void pyprof__tick(pyprof__sampler *sampler) {
    uint64_t now = pyprof__now();
    uint32_t runner = sampler->runner;
    pyprof__sight sight;
    sampler->stats.ticks++;
    pyprof__collect(sampler);
    sampler->runner = PYPROF__NONE;
    if (runner != PYPROF__NONE) {
        sight = pyprof__read_clocks(pyprof__thread_at(sampler, runner));
    }
    pyprof__list_threads(sampler);
    if (runner != PYPROF__NONE && pyprof__thread_at(sampler, runner)->seen == sampler->stats.ticks) {
        pyprof__look_at_runner(sampler, runner, &sight);
    }
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__thread *thread = pyprof__thread_at(sampler, i);
        thread->is_alive = thread->seen == sampler->stats.ticks;
        if (!thread->is_alive) {
            pyprof__cancel(thread);
            pyprof__end_time(sampler, thread, now, false);
        } else if (i != runner) {
            sight = pyprof__read_clocks(thread);
            pyprof__look(sampler, thread, &sight);
        }
    }
    if (sampler->stats.ticks % 64 == 0) {
        pyprof__drop_dead_requests();
    }
    sampler->last_tick = now;
}

/* One tick for pyprof_dump, and the answers to it. */
static void pyprof__serve_dump(pyprof__sampler *sampler, uint32_t wanted) {
    pthread_mutex_lock(&sampler->lock);
    pyprof__tick(sampler);
    for (int i = 0; i < 100 && pyprof__any_request(PYPROF__REQUEST_SENT); i++) {
        pyprof__sleep_ns(1000000);
    }
    pyprof__collect(sampler);
    pthread_mutex_unlock(&sampler->lock);
    pyprof__set(&sampler->dumps_served, wanted - 1);
    pyprof__wake(&sampler->dumps_served);
}

static uint64_t pyprof__random(uint64_t *state) {
    *state ^= *state << 13; /* xorshift64: Marsaglia, Xorshift RNGs, 2003 */
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Rung while asleep: somebody wants something before the next tick. */
static void pyprof__answer_bell(pyprof__sampler *sampler) {
    uint32_t wanted = pyprof__get(&sampler->dumps_wanted);
    if (wanted != pyprof__get(&sampler->dumps_served)) {
        pyprof__serve_dump(sampler, wanted);
    }
    pthread_mutex_lock(&sampler->lock);
    pyprof__collect(sampler);
    pthread_mutex_unlock(&sampler->lock);
}

/* The moment of the next tick: a random one in each interval, as a fixed rhythm would beat with the program's
   own. Those that have passed already are missed; a tick that came a little late misses none. */
static uint64_t pyprof__next_deadline(pyprof__sampler *sampler, uint64_t *stratum, uint64_t now) {
    uint64_t interval = sampler->desc.interval_us * (uint64_t)1000;
    for (;; sampler->stats.ticks_missed++) {
        uint64_t begin = sampler->start + *stratum * interval;
        uint64_t deadline = begin + pyprof__random(&sampler->random) % interval;
        if (now > begin + interval) {
            uint64_t passed = (now - begin) / interval; /* after a long stall not one by one */
            sampler->stats.ticks_missed += passed - 1;
            *stratum += passed;
            continue;
        }
        ++*stratum;
        if (deadline > now) {
            return deadline;
        }
    }
}

static void pyprof__sample_until_stopped(pyprof__sampler *sampler) {
    uint64_t stratum = 0;
    uint64_t deadline = pyprof__next_deadline(sampler, &stratum, sampler->start);
    uint32_t heard = 0; /* the bell may ring while the sampler is at work */
    for (;;) {
        uint32_t bell = pyprof__get(&sampler->bell);
        if (pyprof__get(&sampler->must_stop)) {
            return;
        }
        if (bell != heard) {
            heard = bell;
            pyprof__answer_bell(sampler);
            continue;
        }
        uint64_t now = pyprof__now();
        if (now < deadline) {
            pyprof__wait_until(&sampler->bell, heard, deadline);
            continue;
        }
        pthread_mutex_lock(&sampler->lock);
        pyprof__tick(sampler);
        deadline = pyprof__next_deadline(sampler, &stratum, now);
        pthread_mutex_unlock(&sampler->lock);
    }
}

static void *pyprof__sampler_main(void *argument) {
    pyprof__sampler *sampler = (pyprof__sampler *)argument;
    prctl(PR_SET_NAME, "pyprof", 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    pthread_mutex_lock(&sampler->lock);
    sampler->tid = pyprof__tid();
    if (sampler->layout.ts_native_id == PYPROF__ABSENT) {
        pyprof__learn_tid_offset(sampler);
    }
    sampler->start = sampler->last_tick = pyprof__now();
    pyprof__tick(sampler);
    pthread_mutex_unlock(&sampler->lock);
    pyprof__wake(&sampler->ready);
    pyprof__sample_until_stopped(sampler);
    if (sampler->desc.capture == PYPROF_CAPTURE_DEFAULT) {
        pyprof__handler_stop();
    }
    pthread_mutex_lock(&sampler->lock);
    pyprof__collect(sampler);
    uint64_t now = pyprof__now();
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__end_time(sampler, pyprof__thread_at(sampler, i), now, true);
    }
    sampler->profile->duration_ns = now - sampler->start;
    sampler->stats.sampler_cpu_ns = pyprof__clock(CLOCK_THREAD_CPUTIME_ID);
    pthread_mutex_unlock(&sampler->lock);
    return NULL;
}

// >>writers
// From the tree and the time line to text.

typedef struct pyprof__out {
    pyprof_write_fn write;
    void *user;
    size_t size;
    bool is_broken;
    char buffer[16384];
} pyprof__out;

static void pyprof__flush(pyprof__out *out) {
    if (!out->is_broken && out->size > 0) {
        out->is_broken = !out->write(out->user, out->buffer, out->size);
    }
    out->size = 0;
}

static void pyprof__put(pyprof__out *out, const char *text, size_t size) {
    while (size > 0 && !out->is_broken) {
        size_t room = sizeof out->buffer - out->size;
        size_t part = size < room ? size : room;
        memcpy(out->buffer + out->size, text, part);
        out->size += part;
        text += part;
        size -= part;
        if (out->size == sizeof out->buffer) {
            pyprof__flush(out);
        }
    }
}

static void pyprof__put_text(pyprof__out *out, const char *text) {
    pyprof__put(out, text, strlen(text));
}

static void pyprof__put_number(pyprof__out *out, uint64_t number) {
    char digits[24];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    pyprof__put(out, digits + at, sizeof digits - at);
}

static void pyprof__put_line_number(pyprof__out *out, int32_t line) {
    pyprof__put_number(out, line > 0 ? (uint64_t)line : 0);
}

/* The code point that begins at text. A byte that begins none (system names may hold any) counts as the lone
   surrogate that Python's surrogateescape makes of it. */
static uint32_t pyprof__utf8_get(const char *text, size_t size, size_t *length) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *at = (const unsigned char *)text;
    size_t count = at[0] < 0x80 ? 1 : at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : at[0] >= 0xc0 ? 2 : 0;
    uint32_t c = count <= 1 ? at[0] : at[0] & (0x7fu >> count);
    bool is_valid = count > 0 && count <= size;
    for (size_t i = 1; is_valid && i < count; i++) {
        is_valid = (at[i] & 0xc0) == 0x80;
        c = c << 6 | (at[i] & 0x3fu);
    }
    is_valid = is_valid && c >= least[count] && c <= 0x10ffff && at[0] < 0xf8;
    *length = is_valid ? count : 1;
    return is_valid ? c : 0xdc00u + at[0];
}

static void pyprof__put_escape(pyprof__out *out, const char *prefix, uint32_t c, int digits) {
    char text[16];
    snprintf(text, sizeof text, "%s%0*x", prefix, digits, (unsigned)c);
    pyprof__put_text(out, text);
}

/* The part of a line of collapsed text: what would end a frame or a line, or is no character, is written as
   Python would write it in a string. */
static void pyprof__put_collapsed(pyprof__out *out, const char *text, size_t size) {
    size_t length;
    for (; size > 0; text += length, size -= length) {
        uint32_t c = pyprof__utf8_get(text, size, &length);
        if (c == '\\') {
            pyprof__put_text(out, "\\\\");
        } else if (c == '\n' || c == '\r' || c == '\t') {
            pyprof__put_text(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        } else if (c == ';' || c < 0x20 || (c >= 0x7f && c < 0xa0)) {
            pyprof__put_escape(out, "\\x", c, 2);
        } else if (c == 0x2028 || c == 0x2029 || (c >= 0xd800 && c < 0xe000)) {
            pyprof__put_escape(out, "\\u", c, 4);
        } else {
            pyprof__put(out, text, length);
        }
    }
}

/* A JSON string, with its quotes (RFC 8259). */
static void pyprof__put_json(pyprof__out *out, const char *text, size_t size) {
    size_t length;
    pyprof__put_text(out, "\"");
    for (; size > 0; text += length, size -= length) {
        uint32_t c = pyprof__utf8_get(text, size, &length);
        if (c == '"' || c == '\\') {
            char escaped[2] = {'\\', (char)c};
            pyprof__put(out, escaped, 2);
        } else if (c < 0x20 || (c >= 0xd800 && c < 0xe000)) {
            pyprof__put_escape(out, "\\u", c, 4);
        } else {
            pyprof__put(out, text, length);
        }
    }
    pyprof__put_text(out, "\"");
}

static bool pyprof__has_init_file(const char *path, size_t directory_size) {
    char name[4200];
    if (directory_size + sizeof "/__init__.py" > sizeof name) {
        return false;
    }
    memcpy(name, path, directory_size);
    memcpy(name + directory_size, "/__init__.py", sizeof "/__init__.py");
    return access(name, F_OK) == 0;
}

/* How much of a path to leave out: as py-spy does, all up to the outermost package that the file is in. */
static size_t pyprof__short_path_offset(const char *path, size_t size) {
    size_t at = size;
    while (at > 0 && path[at - 1] != '/') {
        at--;
    }
    size_t offset = at;
    while (at > 1 && pyprof__has_init_file(path, at - 1)) {
        at--;
        while (at > 0 && path[at - 1] != '/') {
            at--;
        }
        offset = at;
    }
    return offset;
}

/* What a writer works on: the profile, how to show it, and memory of its own. */
typedef struct pyprof__writing {
    const pyprof_profile *profile;
    pyprof_output output;
    pyprof__memory memory;
    uint32_t *short_paths; /* of each string: offset + 1, or 0 = not looked up yet */
    pyprof__out out;
} pyprof__writing;

static const char *pyprof__short_path(pyprof__writing *writing, uint32_t string, size_t *size) {
    const char *path = pyprof__string_text(writing->profile, string, size);
    if (writing->short_paths[string] == 0) {
        writing->short_paths[string] = (uint32_t)pyprof__short_path_offset(path, *size) + 1;
    }
    size_t offset = writing->short_paths[string] - 1;
    *size -= offset;
    return path + offset;
}

static int32_t pyprof__shown_line(const pyprof__writing *writing, const pyprof__node *node) {
    const pyprof__function *function =
        &PYPROF__ITEM(const pyprof__function, &writing->profile->functions.items, node->function);
    return writing->output.detail == PYPROF_DETAIL_FUNCTION ? function->first_line : node->line;
}

/* "qualname (file.py:LINE)"; a marker is its name alone. */
static void pyprof__put_frame(pyprof__writing *writing, uint32_t function_index, int32_t line) {
    const pyprof__function *function =
        &PYPROF__ITEM(const pyprof__function, &writing->profile->functions.items, function_index);
    size_t size;
    const char *text = pyprof__string_text(writing->profile, function->name, &size);
    pyprof__put_collapsed(&writing->out, text, size);
    text = pyprof__short_path(writing, function->file, &size);
    if (size > 0) {
        pyprof__put_text(&writing->out, " (");
        pyprof__put_collapsed(&writing->out, text, size);
        pyprof__put_text(&writing->out, ":");
        pyprof__put_line_number(&writing->out, line);
        pyprof__put_text(&writing->out, ")");
    }
}

/* The value that a node has of its own in the metric that was asked for. */
static uint64_t pyprof__node_value(const pyprof_output *output, const pyprof__node *node) {
    switch (output->metric) {
    case PYPROF_METRIC_CPU:
        return node->cpu_ns;
    case PYPROF_METRIC_GIL:
        return node->gil_ns;
    case PYPROF_METRIC_SAMPLES:
        return node->samples - (output->include_idle ? 0 : node->samples_idle);
    case PYPROF_METRIC_WALL:
        break;
    }
    return node->wall_ns - (output->include_idle ? 0 : node->wall_idle_ns);
}

/* A node of the tree as it is shown: lines or threads may have been merged. */
typedef struct pyprof__shown {
    uint32_t parent;
    uint32_t function; /* PYPROF__NONE: a thread */
    int32_t line;      /* of a thread: its name */
    uint32_t unused;
    uint64_t value;
} pyprof__shown;

/* Builds the shown tree. Parents come before their children in both, so one pass does. */
static bool pyprof__build_shown(pyprof__writing *writing, pyprof__table *shown, uint32_t *shown_of) {
    const pyprof_profile *profile = writing->profile;
    for (uint32_t i = 0; i < profile->nodes.items.count; i++) {
        const pyprof__node *node = pyprof__node_at(profile, i);
        bool is_new;
        struct {
            uint32_t parent, function;
            int32_t line;
        } key = {PYPROF__NONE, PYPROF__NONE, 0};
        if (node->parent != PYPROF__NONE) {
            key.parent = shown_of[node->parent];
            key.function = node->function;
            key.line = pyprof__shown_line(writing, node);
        } else if (!writing->output.merge_threads) {
            key.line = (int32_t)pyprof__track_at(profile, (uint32_t)node->line)->name;
        }
        shown_of[i] = pyprof__table_intern(&writing->memory, shown, &key, &is_new);
        if (shown_of[i] == PYPROF__NONE) {
            return false;
        }
        PYPROF__ITEM(pyprof__shown, &shown->items, shown_of[i]).value +=
            pyprof__node_value(&writing->output, node);
    }
    return true;
}

static void pyprof__put_shown(pyprof__writing *writing, const pyprof__shown *node) {
    if (node->function != PYPROF__NONE) {
        pyprof__put_frame(writing, node->function, node->line);
        return;
    }
    size_t size;
    const char *name = pyprof__string_text(writing->profile, (uint32_t)node->line, &size);
    pyprof__put_text(&writing->out, "thread ");
    pyprof__put_collapsed(&writing->out, name, size);
}

/* One line a stack. Times are rounded to microseconds so that the sum stays right: what one line lost in
   rounding, the next one gets. */
static void pyprof__put_stacks(pyprof__writing *writing, const pyprof__table *shown, uint32_t *path) {
    const pyprof__shown *nodes = (const pyprof__shown *)shown->items.data;
    uint64_t unit = writing->output.metric == PYPROF_METRIC_SAMPLES ? 1 : 1000;
    uint64_t carry = unit / 2;
    for (uint32_t i = 0; i < shown->items.count; i++) {
        uint32_t depth = 0;
        uint64_t value = nodes[i].value == 0 ? 0 : nodes[i].value + carry;
        if (value < unit) {
            carry = value == 0 ? carry : value;
            continue;
        }
        carry = value % unit;
        for (uint32_t at = i; at != PYPROF__NONE; at = nodes[at].parent) {
            if (nodes[at].function != PYPROF__NONE || !writing->output.merge_threads) {
                path[depth++] = at;
            }
        }
        if (depth == 0) {
            continue;
        }
        while (depth-- > 0) {
            pyprof__put_shown(writing, &nodes[path[depth]]);
            pyprof__put_text(&writing->out, depth > 0 ? ";" : " ");
        }
        pyprof__put_number(&writing->out, value / unit);
        pyprof__put_text(&writing->out, "\n");
    }
}

static pyprof_result pyprof__write_collapsed(pyprof__writing *writing) {
    pyprof__table shown;
    size_t size = ((size_t)writing->profile->nodes.items.count + 1) * sizeof(uint32_t);
    uint32_t *indices = (uint32_t *)pyprof__alloc(&writing->memory, size);
    pyprof_result result = PYPROF_ERROR_MEMORY;
    pyprof__table_init(&shown, sizeof(pyprof__shown), offsetof(pyprof__shown, unused));
    if (indices != NULL && pyprof__build_shown(writing, &shown, indices)) {
        pyprof__put_stacks(writing, &shown, indices);
        result = PYPROF_OK;
    }
    pyprof__table_free(&writing->memory, &shown);
    pyprof__release(&writing->memory, indices, size);
    return result;
}

/* Speedscope's frame table: a frame is a function at a line. */
typedef struct pyprof__speedscope {
    pyprof__table frames; /* of struct {function, line} */
    uint32_t *frame_of;   /* of each node */
    uint32_t *path;
} pyprof__speedscope;

typedef struct pyprof__speedscope_frame {
    uint32_t function;
    int32_t line;
} pyprof__speedscope_frame;

static bool pyprof__build_frames(pyprof__writing *writing, pyprof__speedscope *speedscope) {
    for (uint32_t i = 0; i < writing->profile->nodes.items.count; i++) {
        const pyprof__node *node = pyprof__node_at(writing->profile, i);
        bool is_new;
        speedscope->frame_of[i] = PYPROF__NONE;
        if (node->parent != PYPROF__NONE) {
            pyprof__speedscope_frame key = {node->function, pyprof__shown_line(writing, node)};
            speedscope->frame_of[i] =
                pyprof__table_intern(&writing->memory, &speedscope->frames, &key, &is_new);
            if (speedscope->frame_of[i] == PYPROF__NONE) {
                return false;
            }
        }
    }
    return true;
}

static void pyprof__put_json_string(pyprof__writing *writing, const char *key, uint32_t string) {
    size_t size;
    const char *text = pyprof__string_text(writing->profile, string, &size);
    pyprof__put_text(&writing->out, key);
    pyprof__put_json(&writing->out, text, size);
}

static void pyprof__put_frames(pyprof__writing *writing, const pyprof__speedscope *speedscope) {
    for (uint32_t i = 0; i < speedscope->frames.items.count; i++) {
        const pyprof__speedscope_frame *frame =
            &PYPROF__ITEM(const pyprof__speedscope_frame, &speedscope->frames.items, i);
        const pyprof__function *function =
            &PYPROF__ITEM(const pyprof__function, &writing->profile->functions.items, frame->function);
        size_t file_size;
        pyprof__string_text(writing->profile, function->file, &file_size);
        pyprof__put_text(&writing->out, i == 0 ? "\n" : ",\n");
        pyprof__put_json_string(writing, "{\"name\":", function->name);
        if (file_size > 0) {
            pyprof__put_json_string(writing, ",\"file\":", function->file);
            pyprof__put_text(&writing->out, ",\"line\":");
            pyprof__put_line_number(&writing->out, frame->line);
        }
        pyprof__put_text(&writing->out, "}");
    }
}

static void pyprof__put_path(pyprof__writing *writing, const pyprof__speedscope *speedscope, uint32_t node) {
    uint32_t depth = 0;
    for (; speedscope->frame_of[node] != PYPROF__NONE;
         node = pyprof__node_at(writing->profile, node)->parent) {
        speedscope->path[depth++] = speedscope->frame_of[node];
    }
    pyprof__put_text(&writing->out, "[");
    while (depth-- > 0) {
        pyprof__put_number(&writing->out, speedscope->path[depth]);
        pyprof__put_text(&writing->out, depth > 0 ? "," : "");
    }
    pyprof__put_text(&writing->out, "]");
}

/* How much of a stretch is shown with its stack, and how much as an empty stack, so that the threads stay
   aligned in time. The CPU time of a stretch may exceed its wall time: what is owed is taken from the empty
   stretches around it. */
static void pyprof__split_stretch(const pyprof_output *output, const pyprof__stretch *stretch, uint64_t *owed,
                                  uint64_t weights[2]) {
    uint32_t kind = pyprof__stretch_kind(stretch);
    bool is_shown = !(kind & PYPROF__AWAY) && (output->include_idle || !(kind & PYPROF__IDLE));
    uint64_t wall = stretch->wall_ns;
    switch (output->metric) {
    case PYPROF_METRIC_SAMPLES:
        weights[0] = is_shown ? stretch->samples : 0;
        weights[1] = 0;
        return;
    case PYPROF_METRIC_CPU:
        weights[0] = stretch->cpu_ns;
        break;
    case PYPROF_METRIC_GIL:
        weights[0] = (kind & PYPROF__GIL) ? wall : 0;
        break;
    case PYPROF_METRIC_WALL:
        weights[0] = is_shown ? wall : 0;
        break;
    }
    *owed += weights[0] > wall ? weights[0] - wall : 0;
    uint64_t empty = wall > weights[0] ? wall - weights[0] : 0;
    uint64_t paid = pyprof__min64(*owed, empty);
    *owed -= paid;
    weights[1] = empty - paid;
}

/* What a track still owes at its end: its empty stretches before have to pay for it. */
static uint64_t pyprof__track_debt(const pyprof__writing *writing, const pyprof__track *track) {
    const pyprof__stretch *items = (const pyprof__stretch *)writing->profile->timeline.data;
    uint64_t owed = 0;
    for (uint32_t i = track->first; i != PYPROF__NONE; i = items[i].next) {
        uint64_t weights[2] = {0, 0};
        pyprof__split_stretch(&writing->output, &items[i], &owed, weights);
    }
    return owed;
}

typedef enum pyprof__list {
    PYPROF__STACKS,
    PYPROF__WEIGHTS
} pyprof__list;

/* One of the two parallel lists of a track; returns the sum of the weights. */
static uint64_t pyprof__put_track_list(pyprof__writing *writing, const pyprof__speedscope *speedscope,
                                       const pyprof__track *track, pyprof__list list) {
    const pyprof__stretch *items = (const pyprof__stretch *)writing->profile->timeline.data;
    const char *separator = "";
    uint64_t sum = 0, owed = pyprof__track_debt(writing, track);
    for (uint32_t i = track->first; i != PYPROF__NONE; i = items[i].next) {
        uint64_t weights[2] = {0, 0};
        pyprof__split_stretch(&writing->output, &items[i], &owed, weights);
        for (int part = 0; part < 2; part++) {
            if (weights[part] == 0) {
                continue;
            }
            pyprof__put_text(&writing->out, separator);
            separator = ",";
            sum += weights[part];
            if (list == PYPROF__WEIGHTS) {
                pyprof__put_number(&writing->out, weights[part]);
            } else if (part == 0) {
                pyprof__put_path(writing, speedscope, items[i].node);
            } else {
                pyprof__put_text(&writing->out, "[]");
            }
        }
    }
    return sum;
}

/* The weight of all stacks that are not empty. */
static uint64_t pyprof__track_value(const pyprof__writing *writing, const pyprof__track *track) {
    const pyprof__stretch *items = (const pyprof__stretch *)writing->profile->timeline.data;
    uint64_t sum = 0, owed = 0;
    for (uint32_t i = track->first; i != PYPROF__NONE; i = items[i].next) {
        uint64_t weights[2] = {0, 0};
        pyprof__split_stretch(&writing->output, &items[i], &owed, weights);
        sum += weights[0];
    }
    return sum;
}

static void pyprof__put_track(pyprof__writing *writing, const pyprof__speedscope *speedscope,
                              const pyprof__track *track) {
    bool is_time = writing->output.metric != PYPROF_METRIC_SAMPLES;
    pyprof__put_json_string(writing, "\n{\"type\":\"sampled\",\"name\":", track->name);
    pyprof__put_text(&writing->out, is_time ? ",\"unit\":\"nanoseconds\"" : ",\"unit\":\"none\"");
    pyprof__put_text(&writing->out, ",\"startValue\":0,\"samples\":[");
    uint64_t end = pyprof__put_track_list(writing, speedscope, track, PYPROF__STACKS);
    uint64_t rest = is_time && writing->profile->duration_ns > end ? writing->profile->duration_ns - end : 0;
    pyprof__put_text(&writing->out, rest == 0 ? "" : end > 0 ? ",[]" : "[]");
    pyprof__put_text(&writing->out, "],\"weights\":[");
    pyprof__put_track_list(writing, speedscope, track, PYPROF__WEIGHTS);
    if (rest > 0) {
        pyprof__put_text(&writing->out, end > 0 ? "," : "");
        pyprof__put_number(&writing->out, rest);
    }
    pyprof__put_text(&writing->out, "],\"endValue\":");
    pyprof__put_number(&writing->out, end + rest);
    pyprof__put_text(&writing->out, "}");
}

/* Source of the format: speedscope's file-format-spec.ts. */
static void pyprof__put_speedscope(pyprof__writing *writing, const pyprof__speedscope *speedscope) {
    const pyprof_profile *profile = writing->profile;
    uint32_t busiest = 0;
    uint64_t most = 0;
    pyprof__put_text(
        &writing->out,
        "{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",\n\"shared\":{\"frames\":[");
    pyprof__put_frames(writing, speedscope);
    pyprof__put_text(&writing->out, "]},\n\"profiles\":[");
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        const pyprof__track *track = pyprof__track_at(profile, i);
        pyprof__put_text(&writing->out, i == 0 ? "" : ",");
        pyprof__put_track(writing, speedscope, track);
        uint64_t value = pyprof__track_value(writing, track);
        if (value > most) {
            most = value;
            busiest = i;
        }
    }
    pyprof__put_text(&writing->out, "],\n\"name\":\"pyprof\",\"activeProfileIndex\":");
    pyprof__put_number(&writing->out, busiest);
    pyprof__put_text(&writing->out, ",\"exporter\":\"pyprof.h@0.1\"}\n");
}

static pyprof_result pyprof__write_speedscope(pyprof__writing *writing) {
    pyprof__speedscope speedscope;
    size_t size = ((size_t)writing->profile->nodes.items.count + 1) * sizeof(uint32_t);
    pyprof_result result = PYPROF_ERROR_MEMORY;
    pyprof__table_init(&speedscope.frames, sizeof(pyprof__speedscope_frame),
                       sizeof(pyprof__speedscope_frame));
    speedscope.frame_of = (uint32_t *)pyprof__alloc(&writing->memory, size);
    speedscope.path = (uint32_t *)pyprof__alloc(&writing->memory, size);
    if (speedscope.frame_of != NULL && speedscope.path != NULL &&
        pyprof__build_frames(writing, &speedscope)) {
        pyprof__put_speedscope(writing, &speedscope);
        result = PYPROF_OK;
    }
    pyprof__table_free(&writing->memory, &speedscope.frames);
    pyprof__release(&writing->memory, speedscope.frame_of, size);
    pyprof__release(&writing->memory, speedscope.path, size);
    return result;
}

/* Files: beside first, then renamed. */

typedef struct pyprof__file {
    int descriptor;
    int error;
} pyprof__file;

static bool pyprof__write_file(void *user, const void *data, size_t size) {
    pyprof__file *file = (pyprof__file *)user;
    const char *at = (const char *)data;
    while (size > 0) {
        ssize_t done = write(file->descriptor, at, size);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            file->error = done < 0 ? errno : EIO;
            return false;
        }
        at += done;
        size -= (size_t)done;
    }
    return true;
}

/* A reader that went away must be an error code for us, not a SIGPIPE for the host. */
static pyprof_result pyprof__write_guarded(const pyprof_profile *profile, const pyprof_output *output,
                                           pyprof__file *file) {
    sigset_t pipe_only, before, pending;
    struct timespec no_time = {0, 0};
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    pyprof_result result = pyprof_write(profile, output, pyprof__write_file, file);
    if (file->error == EPIPE && !sigismember(&pending, SIGPIPE)) {
        while (sigtimedwait(&pipe_only, NULL, &no_time) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

static pyprof_result pyprof__io_result(pyprof_result result, const pyprof__file *file) {
    if (result == PYPROF_OK && file->error == 0) {
        return PYPROF_OK;
    }
    if (result != PYPROF_OK && result != PYPROF_ERROR_WRITE) {
        return result;
    }
    errno = file->error;
    return PYPROF_ERROR_IO;
}

static void pyprof__close_file(pyprof__file *file) {
    if (close(file->descriptor) != 0 && file->error == 0) {
        file->error = errno;
    }
}

/* Into what exists and is no regular file. */
static pyprof_result pyprof__save_into(const pyprof_profile *profile, const pyprof_output *output,
                                       const char *path) {
    pyprof__file file = {open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY), 0};
    if (file.descriptor < 0) {
        return PYPROF_ERROR_IO;
    }
    pyprof_result result = pyprof__write_guarded(profile, output, &file);
    pyprof__close_file(&file);
    return pyprof__io_result(result, &file);
}

/* Opens a new file beside path; its name stays in the given buffer. */
static int pyprof__open_beside(const char *path, char *name, size_t size) {
    for (unsigned attempt = 0; attempt < 100; attempt++) {
        snprintf(name, size, "%s.%ld-%u.part", path, (long)getpid(), attempt);
        int descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0 || errno != EEXIST) {
            return descriptor;
        }
    }
    return -1;
}

static pyprof_result pyprof__save_beside(const pyprof_profile *profile, const pyprof_output *output,
                                         const char *path, mode_t mode) {
    char name[4200];
    if (strlen(path) + 40 > sizeof name) {
        errno = ENAMETOOLONG;
        return PYPROF_ERROR_IO;
    }
    pyprof__file file = {pyprof__open_beside(path, name, sizeof name), 0};
    if (file.descriptor < 0) {
        return PYPROF_ERROR_IO;
    }
    if (mode != 0 && fchmod(file.descriptor, mode & 07777) != 0) {
        file.error = errno;
    }
    pyprof_result result = pyprof__write_guarded(profile, output, &file);
    pyprof__close_file(&file);
    if (result == PYPROF_OK && file.error == 0 && rename(name, path) != 0) {
        file.error = errno;
    }
    result = pyprof__io_result(result, &file);
    if (result != PYPROF_OK) {
        int error = errno;
        unlink(name);
        errno = error;
    }
    return result;
}

static bool pyprof__path_ends_with(const char *path, const char *end) {
    return pyprof__ends_with(path, strlen(path), end);
}

// >>public
// What the header declares at its top.

static pthread_mutex_t pyprof__lifecycle = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static pyprof__atomic32 pyprof__lifecycle_holder;                     /* thread id; 0 = nobody */
static pyprof__sampler *pyprof__active;
static pyprof_stats pyprof__last_stats;
static bool pyprof__was_active;

static void pyprof__register_for_forks(void);

/* Every use of the lock has to be seen through by a fork. */
static void pyprof__lock(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, pyprof__register_for_forks);
    pthread_mutex_lock(&pyprof__lifecycle);
    pyprof__set(&pyprof__lifecycle_holder, (uint32_t)pyprof__tid());
}

static void pyprof__unlock(void) {
    pyprof__set(&pyprof__lifecycle_holder, 0);
    pthread_mutex_unlock(&pyprof__lifecycle);
}

/* The recording that runs in this process. A forked child has none: it has no sampler thread. */
static pyprof__sampler *pyprof__running(void) {
    return pyprof__active != NULL && pyprof__pid == getpid() ? pyprof__active : NULL;
}

/* Gives back all that the sampler holds but the profile and the path to save it to. */
static void pyprof__sampler_clear(pyprof__sampler *sampler) {
    pyprof__memory *memory = sampler->memory;
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        pyprof__stack *stack = &pyprof__handler.requests[i].stack;
        pyprof__release(memory, stack->frames, stack->capacity * sizeof *stack->frames);
        stack->frames = NULL;
        pyprof__set(&pyprof__handler.requests[i].state, PYPROF__REQUEST_FREE);
    }
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__array_free(memory, &pyprof__thread_at(sampler, i)->frames);
        pyprof__array_free(memory, &pyprof__thread_at(sampler, i)->nodes);
    }
    pyprof__array_free(memory, &sampler->interps);
    pyprof__array_free(memory, &sampler->tstates);
    pyprof__array_free(memory, &sampler->fresh);
    pyprof__array_free(memory, &sampler->threads);
    pyprof__table_free(memory, &sampler->codes);
    pyprof__table_free(memory, &sampler->sites);
    pyprof__array_free(memory, &sampler->lines);
    pyprof__array_free(memory, &sampler->scratch);
}

static void pyprof__sampler_free(pyprof__sampler *sampler) {
    pyprof__memory *memory = sampler->memory;
    pthread_mutex_destroy(&sampler->lock);
    pyprof__release(memory, sampler->output_path, sampler->output_path_size);
    pyprof__release(memory, sampler, sizeof *sampler);
}

static void pyprof__recording_free(pyprof__sampler *sampler) {
    pyprof_profile *profile = sampler->profile;
    pyprof__sampler_clear(sampler);
    pyprof__sampler_free(sampler);
    pyprof_free(profile);
}

/* Fork. It copies locks and memory as they are, so both are held still meanwhile. That also keeps our signals away
   from it: the kernel begins anew whenever one comes, and with a large process would never get through. */

static struct pyprof__fork {
    bool is_registered; /* fork calls us */
    bool has_lock;      /* not if a signal handler forks in a thread that is inside one of our functions */
    pyprof__sampler *inherited; /* in a child: the parent's recording, to be given back */
} pyprof__fork;

/* A child that was made without these handlers, and forks itself, has locks that nobody will ever let go. */
static void pyprof__before_fork(void) {
    bool is_strange = pyprof__active != NULL && pyprof__running() == NULL;
    if (!is_strange && pyprof__get(&pyprof__lifecycle_holder) != (uint32_t)pyprof__tid()) {
        pyprof__lock();
        pyprof__fork.has_lock = true;
        if (pyprof__active != NULL) {
            pthread_mutex_lock(&pyprof__active->lock);
        }
    }
}

static void pyprof__after_fork(void) {
    if (pyprof__fork.has_lock) {
        pyprof__fork.has_lock = false;
        if (pyprof__active != NULL) {
            pthread_mutex_unlock(&pyprof__active->lock);
        }
        pyprof__unlock();
    }
}

/* What the parent's recording leaves behind in a child: no thread, but a handler, and questions that nobody will
   answer. Its memory is of use only if it was held still; else the sampler may have been at work on it. */
static void pyprof__forget_parent(bool is_still) {
    if (pyprof__active == NULL || (!is_still && pyprof__pid == getpid())) {
        return;
    }
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        pyprof__set(&pyprof__handler.requests[i].state, PYPROF__REQUEST_FREE);
        if (!is_still) {
            memset(&pyprof__handler.requests[i], 0, sizeof pyprof__handler.requests[i]);
        }
    }
    pyprof__set(&pyprof__handler.running, 0);
    pyprof__add(&pyprof__handler.session, 1);
    if (pyprof__handler.signal_number != 0) {
        pyprof__handler_stop();
    }
    pyprof__reads_stop();
    pyprof__fork.inherited = is_still ? pyprof__active : NULL;
    pyprof__active = NULL;
    pyprof__was_active = false;
}

/* Frees nothing yet: the host's allocator may itself be in the middle of its fork. */
static void pyprof__in_child_of_fork(void) {
    pyprof__sampler *parents = pyprof__active;
    if (pyprof__fork.has_lock) {
        pyprof__fork.has_lock = false;
        pyprof__forget_parent(true);
        if (parents != NULL) {
            pthread_mutex_unlock(&parents->lock);
        }
        pyprof__unlock();
    }
}

static void pyprof__register_for_forks(void) {
    pyprof__fork.is_registered =
        pthread_atfork(pyprof__before_fork, pyprof__after_fork, pyprof__in_child_of_fork) == 0;
}

/* Before a recording begins: whatever a parent left behind is given back. A child that was made without fork's handlers
   (_Fork, a bare system call) comes here with its parent's recording. */
static bool pyprof__prepare_for_forks(void) {
    pyprof__forget_parent(false);
    if (pyprof__fork.inherited != NULL) {
        pyprof__recording_free(pyprof__fork.inherited);
        pyprof__fork.inherited = NULL;
    }
    return pyprof__fork.is_registered;
}

static bool pyprof__desc_is_valid(const pyprof_desc *desc) {
    return desc->interval_us >= 50 && desc->interval_us <= 10000000 && desc->max_depth >= 16 &&
           desc->max_depth <= 65536 && desc->memory_limit >= 1u << 20 &&
           (desc->allocator.alloc_fn == NULL) == (desc->allocator.free_fn == NULL) &&
           (desc->capture == PYPROF_CAPTURE_DEFAULT || desc->capture == PYPROF_CAPTURE_QUIET) &&
           desc->signal_number >= 0;
}

static void pyprof__apply_defaults(pyprof_desc *desc) {
    desc->interval_us = desc->interval_us == 0 ? 10000 : desc->interval_us;
    desc->memory_limit = desc->memory_limit == 0 ? (size_t)64 << 20 : desc->memory_limit;
    desc->max_depth = desc->max_depth == 0 ? 1024 : desc->max_depth;
    if (desc->allocator.alloc_fn == NULL && desc->allocator.free_fn == NULL) {
        desc->allocator.alloc_fn = pyprof__libc_alloc;
        desc->allocator.free_fn = pyprof__libc_free;
    }
}

static bool pyprof__copy_output_path(pyprof__sampler *sampler) {
    if (sampler->desc.output_path == NULL) {
        return true;
    }
    size_t size = strlen(sampler->desc.output_path) + 1;
    sampler->output_path = (char *)pyprof__alloc(sampler->memory, size);
    sampler->output_path_size = size;
    if (sampler->output_path != NULL) {
        memcpy(sampler->output_path, sampler->desc.output_path, size);
    }
    return sampler->output_path != NULL;
}

/* The profile and the sampler, with all that a recording needs from its start; NULL = no room. */
static pyprof__sampler *pyprof__sampler_new(const pyprof_desc *desc) {
    pyprof__memory memory = {desc->allocator, desc->memory_limit, 0, 0};
    pyprof_profile *profile = (pyprof_profile *)pyprof__alloc(&memory, sizeof *profile);
    if (profile == NULL) {
        return NULL;
    }
    pyprof__profile_init(profile, &memory);
    pyprof__sampler *sampler = (pyprof__sampler *)pyprof__alloc(&profile->memory, sizeof *sampler);
    if (sampler == NULL) {
        pyprof_free(profile);
        return NULL;
    }
    memset(sampler, 0, sizeof *sampler);
    sampler->desc = *desc;
    sampler->profile = profile;
    sampler->memory = &profile->memory;
    sampler->starter = pthread_self();
    sampler->starter_tid = pyprof__tid();
    sampler->random = (pyprof__now() ^ (uint64_t)(uintptr_t)sampler) | 1;
    sampler->bootstrap = sampler->runner = PYPROF__NONE;
    sampler->pthread_tid_offset = PYPROF__ABSENT;
    sampler->interps.item_size = sizeof(pyprof__interp);
    sampler->tstates.item_size = sampler->fresh.item_size = sizeof(pyprof__tstate);
    sampler->threads.item_size = sizeof(pyprof__thread);
    sampler->lines.item_size = 1;
    sampler->scratch.item_size = sizeof(pyprof__frame);
    pyprof__table_init(&sampler->codes, sizeof(pyprof__code), offsetof(pyprof__code, function));
    pyprof__table_init(&sampler->sites, sizeof(pyprof__site), sizeof(pyprof__frame));
    pthread_mutex_init(&sampler->lock, NULL);
    profile->truncated = pyprof__intern_marker(profile, "[truncated]");
    profile->unresolved = pyprof__intern_marker(profile, "[unresolved]");
    profile->unsettled = pyprof__intern_marker(profile, "[unsettled]");
    if (profile->truncated == PYPROF__NONE || profile->unresolved == PYPROF__NONE ||
        profile->unsettled == PYPROF__NONE || !pyprof__copy_output_path(sampler) ||
        !pyprof__array_reserve(sampler->memory, &sampler->scratch, 2 * (size_t)desc->max_depth)) {
        pyprof__sampler_clear(sampler);
        pyprof__sampler_free(sampler);
        pyprof_free(profile);
        return NULL;
    }
    return sampler;
}

static bool pyprof__spawn(pyprof__sampler *sampler) {
    enum {
        stack_size = 1 << 20
    };
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_attr_init(&attributes) != 0) {
        return false;
    }
    pthread_attr_setstacksize(&attributes, stack_size);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits the mask */
    int error = pthread_create(&sampler->thread, &attributes, pyprof__sampler_main, sampler);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    while (error == 0 && !pyprof__get(&sampler->ready)) {
        pyprof__wait_until(&sampler->ready, 0, pyprof__now() + 1000000000u);
    }
    return error == 0;
}

/* Takes what belongs to the process: the way to read memory, the signal, the thread. */
static pyprof_result pyprof__sampler_start(pyprof__sampler *sampler) {
    bool takes_signal = sampler->desc.capture == PYPROF_CAPTURE_DEFAULT;
    pyprof_result result = pyprof__layout_init(&sampler->layout, sampler->memory);
    if (result != PYPROF_OK) {
        return result;
    }
    if (sampler->layout.ts_size > PYPROF__TSTATE_COPY) {
        return PYPROF_ERROR_PYTHON;
    }
    if (!pyprof__reads_start()) {
        pyprof__reads_stop();
        return PYPROF_ERROR_MEMORY_READ;
    }
    pyprof__handler.layout = sampler->layout;
    pyprof__handler.wake = &sampler->bell;
    pyprof__set(&pyprof__handler.interrupted, 0);
    pyprof__forget_codes(sampler);
    if (takes_signal && !pyprof__handler_start(sampler->desc.signal_number)) {
        pyprof__reads_stop();
        return PYPROF_ERROR_SIGNAL;
    }
    pyprof__add(&pyprof__handler.session, 1);
    if (!pyprof__spawn(sampler)) {
        pyprof__add(&pyprof__handler.session, 1);
        if (takes_signal) {
            pyprof__handler_stop();
        }
        pyprof__reads_stop();
        return PYPROF_ERROR_THREAD;
    }
    return PYPROF_OK;
}

PYPROF_API pyprof_result pyprof_start(const pyprof_desc *desc) {
    pyprof_desc resolved;
    memset(&resolved, 0, sizeof resolved);
    if (desc != NULL) {
        resolved = *desc;
    }
    pyprof__apply_defaults(&resolved);
    if (!pyprof__desc_is_valid(&resolved)) {
        return PYPROF_ERROR_ARGUMENT;
    }
    pyprof__lock();
    pyprof_result result = PYPROF_ERROR_ALREADY_ACTIVE;
    if (pyprof__running() == NULL) {
        pyprof__sampler *sampler = pyprof__prepare_for_forks() ? pyprof__sampler_new(&resolved) : NULL;
        result = sampler == NULL ? PYPROF_ERROR_MEMORY : pyprof__sampler_start(sampler);
        if (result == PYPROF_OK) {
            pyprof__active = sampler;
        } else if (sampler != NULL) {
            pyprof__recording_free(sampler);
        }
    }
    pyprof__unlock();
    if (result != PYPROF_OK) {
        pyprof__log(&resolved.logger, PYPROF_LOG_ERROR, pyprof_result_string(result));
    }
    return result;
}

static void pyprof__fill_stats(const pyprof__sampler *sampler, pyprof_stats *stats) {
    *stats = sampler->stats;
    stats->timeline_coarsened = sampler->profile->timeline_coarsened;
    stats->calls_interrupted = pyprof__get(&pyprof__handler.interrupted);
    stats->bytes = sampler->memory->used;
    stats->bytes_peak = sampler->memory->peak;
}

static void pyprof__end_recording(pyprof__sampler *sampler) {
    pyprof__set(&sampler->must_stop, 1);
    pyprof__wake(&sampler->bell);
    pthread_join(sampler->thread, NULL);
    pyprof__add(&pyprof__handler.session, 1);
    pyprof__reads_stop();
    pyprof__fill_stats(sampler, &pyprof__last_stats);
    pyprof__was_active = true;
    pyprof__sampler_clear(sampler);
}

static void pyprof__warn_of_limits(const pyprof__sampler *sampler) {
    if (sampler->profile->timeline_coarsened > 0) {
        pyprof__log(&sampler->desc.logger, PYPROF_LOG_WARNING,
                    "the time line was full: its resolution was halved, memory_limit sets its size");
    }
    if (sampler->stats.truncated_memory > 0) {
        pyprof__log(&sampler->desc.logger, PYPROF_LOG_WARNING,
                    "the tree was full: new stacks went to [truncated], memory_limit sets its size");
    }
}

/* Saves what has ended, and lets the sampler go. Without the lock: whoever reads what is written may be slow. */
static pyprof_result pyprof__close_recording(pyprof__sampler *sampler) {
    pyprof_result result = PYPROF_OK;
    if (sampler->output_path != NULL) {
        result = pyprof_save(sampler->profile, NULL, sampler->output_path);
    }
    int error = errno;
    if (result != PYPROF_OK) {
        pyprof__log(&sampler->desc.logger, PYPROF_LOG_ERROR,
                    "the profile could not be written to output_path");
    }
    pyprof__warn_of_limits(sampler);
    pyprof__sampler_free(sampler);
    errno = error;
    return result;
}

PYPROF_API pyprof_result pyprof_stop(pyprof_profile **profile) {
    pyprof__lock();
    pyprof__sampler *sampler = pyprof__running();
    if (sampler != NULL) {
        pyprof__end_recording(sampler);
        pyprof__active = NULL;
    }
    pyprof__unlock();
    pyprof_profile *recorded = sampler != NULL ? sampler->profile : NULL;
    pyprof_result result = sampler != NULL ? pyprof__close_recording(sampler) : PYPROF_ERROR_NOT_ACTIVE;
    if (profile != NULL) {
        *profile = recorded;
    } else {
        pyprof_free(recorded);
    }
    return result;
}

PYPROF_API bool pyprof_is_active(void) {
    pyprof__lock();
    bool is_active = pyprof__running() != NULL;
    pyprof__unlock();
    return is_active;
}

PYPROF_API pyprof_result pyprof_snapshot(pyprof_profile **profile) {
    if (profile == NULL) {
        return PYPROF_ERROR_ARGUMENT;
    }
    *profile = NULL;
    pyprof__lock();
    pyprof__sampler *sampler = pyprof__running();
    if (sampler != NULL) {
        pthread_mutex_lock(&sampler->lock);
        *profile = pyprof__profile_copy(sampler->profile);
        if (*profile != NULL) {
            (*profile)->duration_ns = pyprof__now() - sampler->start;
        }
        pthread_mutex_unlock(&sampler->lock);
    }
    pyprof__unlock();
    return sampler == NULL ? PYPROF_ERROR_NOT_ACTIVE : *profile == NULL ? PYPROF_ERROR_MEMORY : PYPROF_OK;
}

PYPROF_API pyprof_result pyprof_get_stats(pyprof_stats *stats) {
    pyprof_result result = PYPROF_OK;
    if (stats == NULL) {
        return PYPROF_ERROR_ARGUMENT;
    }
    pyprof__lock();
    pyprof__sampler *sampler = pyprof__running();
    if (sampler != NULL) {
        pthread_mutex_lock(&sampler->lock);
        pyprof__fill_stats(sampler, stats);
        stats->sampler_cpu_ns = pyprof__clock(pyprof__cpu_clock(sampler->tid));
        pthread_mutex_unlock(&sampler->lock);
    } else if (pyprof__was_active) {
        *stats = pyprof__last_stats;
    } else {
        result = PYPROF_ERROR_NOT_ACTIVE;
    }
    pyprof__unlock();
    return result;
}

/* A thread's paragraph in a dump. */
static void pyprof__put_thread(pyprof__writing *writing, const pyprof__thread *thread) {
    const pyprof__track *track = pyprof__track_at(writing->profile, thread->track);
    const char *state = (thread->kind & PYPROF__GIL)    ? "active, holds the GIL"
                        : (thread->kind & PYPROF__IDLE) ? "idle"
                                                        : "active";
    size_t size;
    const char *name = pyprof__string_text(writing->profile, track->name, &size);
    pyprof__put_text(&writing->out, "Thread ");
    pyprof__put_number(&writing->out, (uint64_t)thread->tid);
    pyprof__put_text(&writing->out, " \"");
    pyprof__put_collapsed(&writing->out, name, size);
    pyprof__put_text(&writing->out, "\" (");
    pyprof__put_text(&writing->out, state);
    pyprof__put_text(&writing->out, ")\n");
    for (uint32_t at = thread->node; at != track->root; at = pyprof__node_at(writing->profile, at)->parent) {
        const pyprof__node *node = pyprof__node_at(writing->profile, at);
        pyprof__put_text(&writing->out, "    ");
        pyprof__put_frame(writing, node->function, node->line);
        pyprof__put_text(&writing->out, "\n");
    }
}

/* Text gathered in memory, so that the host's function is called without our locks held. */
typedef struct pyprof__gathered {
    pyprof__memory *memory;
    pyprof__array bytes;
} pyprof__gathered;

static bool pyprof__gather(void *user, const void *data, size_t size) {
    pyprof__gathered *gathered = (pyprof__gathered *)user;
    if (!pyprof__array_reserve(gathered->memory, &gathered->bytes, gathered->bytes.count + size)) {
        return false;
    }
    memcpy((char *)gathered->bytes.data + gathered->bytes.count, data, size);
    gathered->bytes.count += (uint32_t)size;
    return true;
}

/* The working set of a writer; NULL = no room. Not on the stack: hosts' threads may have small ones. */
static pyprof__writing *pyprof__writing_new(const pyprof_profile *profile, const pyprof_output *output,
                                            pyprof_write_fn write, void *user) {
    pyprof__memory memory = {profile->memory.allocator, SIZE_MAX, 0, 0};
    size_t paths_size = ((size_t)profile->strings.items.count + 1) * sizeof(uint32_t);
    pyprof__writing *writing = (pyprof__writing *)pyprof__alloc(&memory, sizeof *writing);
    if (writing == NULL) {
        return NULL;
    }
    memset(writing, 0, sizeof *writing);
    writing->memory = memory;
    writing->profile = profile;
    writing->out.write = write;
    writing->out.user = user;
    if (output != NULL) {
        writing->output = *output;
    }
    writing->short_paths = (uint32_t *)pyprof__alloc(&writing->memory, paths_size);
    if (writing->short_paths == NULL) {
        pyprof__release(&memory, writing, sizeof *writing);
        return NULL;
    }
    memset(writing->short_paths, 0, paths_size);
    return writing;
}

static void pyprof__writing_free(pyprof__writing *writing) {
    pyprof__memory memory = writing->memory;
    pyprof__release(&memory, writing->short_paths,
                    ((size_t)writing->profile->strings.items.count + 1) * sizeof(uint32_t));
    pyprof__release(&memory, writing, sizeof *writing);
}

static pyprof_result pyprof__write_threads(pyprof__sampler *sampler, pyprof__gathered *gathered) {
    pyprof__writing *writing = pyprof__writing_new(sampler->profile, NULL, pyprof__gather, gathered);
    if (writing == NULL) {
        return PYPROF_ERROR_MEMORY;
    }
    const char *separator = "";
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        const pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (thread->has_sample) {
            pyprof__put_text(&writing->out, separator);
            pyprof__put_thread(writing, thread);
            separator = "\n";
        }
    }
    pyprof__flush(&writing->out);
    pyprof_result result = writing->out.is_broken ? PYPROF_ERROR_MEMORY : PYPROF_OK;
    pyprof__writing_free(writing);
    return result;
}

/* Has the sampler look once more, and waits until it has. */
static void pyprof__look_now(pyprof__sampler *sampler) {
    uint32_t wanted = pyprof__add(&sampler->dumps_wanted, 1);
    pyprof__wake(&sampler->bell);
    for (;;) {
        uint32_t served = pyprof__get(&sampler->dumps_served);
        if (served == wanted) {
            return;
        }
        pyprof__wait_until(&sampler->dumps_served, served, pyprof__now() + 1000000000u);
    }
}

PYPROF_API pyprof_result pyprof_dump(pyprof_write_fn write, void *user) {
    pyprof__memory memory;
    pyprof__gathered gathered;
    pyprof_result result = PYPROF_ERROR_NOT_ACTIVE;
    if (write == NULL) {
        return PYPROF_ERROR_ARGUMENT;
    }
    memset(&memory, 0, sizeof memory);
    memset(&gathered, 0, sizeof gathered);
    memory.limit = SIZE_MAX;
    gathered.memory = &memory;
    gathered.bytes.item_size = 1;
    pyprof__lock();
    pyprof__sampler *sampler = pyprof__running();
    if (sampler != NULL) {
        memory.allocator = sampler->desc.allocator;
        pyprof__look_now(sampler);
        pthread_mutex_lock(&sampler->lock);
        result = pyprof__write_threads(sampler, &gathered);
        pthread_mutex_unlock(&sampler->lock);
    }
    pyprof__unlock();
    if (result == PYPROF_OK && gathered.bytes.count > 0 &&
        !write(user, gathered.bytes.data, gathered.bytes.count)) {
        result = PYPROF_ERROR_WRITE;
    }
    pyprof__array_free(&memory, &gathered.bytes);
    return result;
}

static bool pyprof__output_is_valid(const pyprof_output *output) {
    return output == NULL || ((unsigned)output->metric <= PYPROF_METRIC_SAMPLES &&
                              (unsigned)output->detail <= PYPROF_DETAIL_FUNCTION);
}

PYPROF_API pyprof_result pyprof_write(const pyprof_profile *profile, const pyprof_output *output,
                                      pyprof_write_fn write, void *user) {
    if (profile == NULL || write == NULL || !pyprof__output_is_valid(output)) {
        return PYPROF_ERROR_ARGUMENT;
    }
    if (output != NULL && (unsigned)output->format > PYPROF_FORMAT_SPEEDSCOPE) {
        return PYPROF_ERROR_FORMAT;
    }
    pyprof__writing *writing = pyprof__writing_new(profile, output, write, user);
    if (writing == NULL) {
        return PYPROF_ERROR_MEMORY;
    }
    bool is_speedscope = writing->output.format == PYPROF_FORMAT_SPEEDSCOPE;
    pyprof_result result =
        is_speedscope ? pyprof__write_speedscope(writing) : pyprof__write_collapsed(writing);
    pyprof__flush(&writing->out);
    if (result == PYPROF_OK && writing->out.is_broken) {
        result = PYPROF_ERROR_WRITE;
    }
    pyprof__writing_free(writing);
    return result;
}

PYPROF_API pyprof_result pyprof_save(const pyprof_profile *profile, const pyprof_output *output,
                                     const char *path) {
    pyprof_output resolved;
    struct stat status;
    memset(&resolved, 0, sizeof resolved);
    if (profile == NULL || path == NULL || path[0] == '\0') {
        return PYPROF_ERROR_ARGUMENT;
    }
    if (output != NULL) {
        resolved = *output;
    }
    if (resolved.format == PYPROF_FORMAT_AUTO) {
        if (pyprof__path_ends_with(path, ".svg")) {
            return PYPROF_ERROR_FORMAT; /* tools/pyprof-svg draws; collapsed text under that name would not open */
        }
        resolved.format =
            pyprof__path_ends_with(path, ".json") ? PYPROF_FORMAT_SPEEDSCOPE : PYPROF_FORMAT_COLLAPSED;
    }
    bool exists = stat(path, &status) == 0;
    if (exists && S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        return PYPROF_ERROR_IO;
    }
    if (exists && !S_ISREG(status.st_mode)) {
        return pyprof__save_into(profile, &resolved, path);
    }
    char *target =
        realpath(path, NULL); /* through a link, the file that it leads to is replaced, not the link */
    pyprof_result result =
        pyprof__save_beside(profile, &resolved, target != NULL ? target : path, exists ? status.st_mode : 0);
    int error = errno;
    free(target);
    errno = error;
    return result;
}

static pyprof_result pyprof__set_name(int64_t id, const char *text) {
    pyprof__name *name = pyprof__name_of(id);
    if (text == NULL) {
        if (name != NULL) {
            *name = pyprof__names.items[--pyprof__names.count];
        }
        return PYPROF_OK;
    }
    if (name == NULL) {
        if (pyprof__names.count == PYPROF__NAMES_MAX) {
            return PYPROF_ERROR_MEMORY;
        }
        name = &pyprof__names.items[pyprof__names.count++];
        name->id = id;
    }
    size_t size = strlen(text), most = sizeof name->text - 1;
    if (size > most) {
        for (size = most; size > 0 && ((unsigned char)text[size] & 0xc0) == 0x80; size--) {
        } /* no half character */
    }
    memcpy(name->text, text, size);
    name->text[size] = '\0';
    return PYPROF_OK;
}

PYPROF_API pyprof_result pyprof_name_interpreter(int64_t id, const char *name) {
    if (id < 0) {
        return PYPROF_ERROR_ARGUMENT;
    }
    pyprof__lock();
    pyprof__sampler *sampler = pyprof__running();
    if (sampler != NULL) {
        pthread_mutex_lock(&sampler->lock);
    }
    pyprof_result result = pyprof__set_name(id, name);
    pyprof__names.generation++;
    if (sampler != NULL) {
        pthread_mutex_unlock(&sampler->lock);
    }
    pyprof__unlock();
    return result;
}

PYPROF_API void pyprof_free(pyprof_profile *profile) {
    if (profile != NULL) {
        pyprof__profile_clear(profile);
        pyprof__memory memory = profile->memory;
        pyprof__release(&memory, profile, sizeof *profile);
    }
}

PYPROF_API const char *pyprof_result_string(pyprof_result result) {
    switch (result) {
    case PYPROF_OK:
        return "success";
    case PYPROF_ERROR_ARGUMENT:
        return "an argument is missing or out of its range";
    case PYPROF_ERROR_ALREADY_ACTIVE:
        return "a recording is already running";
    case PYPROF_ERROR_NOT_ACTIVE:
        return "no recording is running";
    case PYPROF_ERROR_MEMORY:
        return "out of memory, or memory_limit is too small";
    case PYPROF_ERROR_THREAD:
        return "the sampler thread could not be started";
    case PYPROF_ERROR_SIGNAL:
        return "the signal cannot be used, or none is free";
    case PYPROF_ERROR_MEMORY_READ:
        return "neither process_vm_writev nor /proc/self/mem can be used here";
    case PYPROF_ERROR_PYTHON:
        return "this version of CPython is not known, or not as it describes itself";
    case PYPROF_ERROR_PYTHON_MISMATCH:
        return "compiled against another CPython than the one that runs";
    case PYPROF_ERROR_PYTHON_DEBUG:
        return "this debug build of CPython is not supported";
    case PYPROF_ERROR_IO:
        return "the file could not be written";
    case PYPROF_ERROR_WRITE:
        return "the write function gave up";
    case PYPROF_ERROR_FORMAT:
        return "unknown output format";
    }
    return "unknown result";
}

#ifdef __cplusplus
}
#endif

#endif /* PYPROF_IMPLEMENTED */
#endif /* PYPROF_IMPLEMENTATION */
