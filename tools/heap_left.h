/* heap_left.h: what of Python's memory is in use, sampled, for who records a program (pyprof-run --heap, PYPROF_HEAP_OUTPUT).
 * For libpyprof.c.
 *
 * What is wanted is what lives when the program has ended: not what is left once Py_Finalize has cleared its modules. So a
 * copy is taken when the first sample dies after that has begun (keep_heap_left); a process that ends in another way, or
 * goes on, is looked at then.
 *
 * Who ends the process may be within an allocation that is being sampled, as a signal comes at any time: then the thread that
 * looks would wait for ever. A signal that is no fault is sent again a moment later (put_off); else the heap's profile is
 * lost, and that is said.
 */
#ifndef HEAP_LEFT_H
#define HEAP_LEFT_H

#include "recording.h"

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* What there is of the heap. */
typedef struct heap_taken {
    pyprof_profile *profile; /* NULL: why says why not */
    pyprof_heap_stats stats;
    const char *why;
} heap_taken;

static struct {
    heap_taken left;         /* at Py_Finalize; its profile is NULL if that has not begun */
    atomic_bool is_lost;     /* the thread that ends the process is within our own code */
    atomic_ullong put_off;   /* signals that are to be sent again: bit 0 is signal 1 */
    bool is_looked_at_again; /* see look_at_heap_again */
} heap;

static bool wants_heap(void) {
    return run.settings.heap_bytes > 0;
}

static heap_taken take_heap_now(void) {
    heap_taken taken;
    memset(&taken, 0, sizeof taken);
    if (!pyprof__heap_figures(&taken.stats) || pyprof_heap_snapshot(&taken.profile) != PYPROF_OK) {
        taken.why = pyprof_last_error();
    }
    return taken;
}

/* Called by pyprof.h: see pyprof__heap_before_finalize. */
static void keep_heap_left(void) {
    if (is_recording()) {
        heap_taken before = heap.left;
        heap.left = take_heap_now(); /* in which the process may end: what is taken then has to be whole */
        pyprof_free(before.profile);
    }
}

/* Its profile is the caller's. */
static heap_taken take_heap(void) {
    heap_taken taken = heap.left;
    if (heap.is_lost) {
        memset(&taken, 0, sizeof taken);
        taken.why = "the process ended in the middle of an allocation that was being sampled";
        return taken;
    }
    if (taken.profile == NULL || Py_IsInitialized()) {
        return take_heap_now();
    }
    memset(&heap.left, 0, sizeof heap.left);
    return taken;
}

/* Begins, or puts back what hooks CPython has dropped. memory: as of a recording. */
static pyprof_result begin_heap(pyprof_allocator allocator) {
    pyprof_heap_desc desc = {.sampling_bytes = (size_t)run.settings.heap_bytes,
                             .memory_limit = (size_t)run.settings.memory,
                             .max_depth = run.settings.depth,
                             .allocator = allocator};
    pyprof__heap_before_finalize = keep_heap_left;
    pyprof_result result = pyprof_heap_start(&desc);
    return result == PYPROF_ERROR_ALREADY_ACTIVE ? PYPROF_OK : result;
}

/* CPython drops all hooks when it begins with allocators that were asked for (PYTHONMALLOC, -X dev). A moment later it looks at
   each signal's action, in its main thread, with the GIL: then they are put over those. */
static void look_at_heap_again(pyprof_allocator allocator) {
    if (wants_heap() && !heap.is_looked_at_again && is_recording() && !Py_IsInitialized() &&
        pyprof__current_thread_state() != 0 && PyGILState_GetThisThreadState() != NULL) {
        heap.is_looked_at_again = true;
        (void)begin_heap(allocator);
    }
}

/* In a child that is not recorded: nobody asks for what it allocates. */
static void leave_heap(void) {
    if (wants_heap()) {
        (void)pyprof_heap_stop();
    }
}

/* Whether the calling thread is within the heap's lock. Async-signal-safe. */
static bool is_within_heap(void) {
    return wants_heap() && pyprof__heap_here()->has_lock;
}

/* A signal that came there: the thread goes on, and gets it again. Async-signal-safe. */
static void put_off(int number) {
    (void)atomic_fetch_or(&heap.put_off, 1ull << (number - 1));
    (void)sem_post(&run.wake);
}

static void send_what_was_put_off(void) {
    const struct timespec moment = {0, 1000000};
    unsigned long long signals = atomic_exchange(&heap.put_off, 0);
    if (signals != 0) {
        (void)nanosleep(&moment, NULL);
    }
    for (int number = 1; number <= 64; number++) {
        if (signals & 1ull << (number - 1)) {
            (void)syscall(SYS_kill, run.pid, number);
        }
    }
}

#endif
