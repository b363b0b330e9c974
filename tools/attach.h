/* attach.h: has a process with CPython inside listen that was never prepared for it. For pyprof-ctl.
 *
 * The library with the profiler (libpyprof-3.11.so and so on) is loaded by Python code that the process's main thread runs
 * where CPython runs pending work, between two of its instructions. On 3.14 and later that is asked for as sys.remote_exec
 * does (PEP 768): a path and a flag are written into the process. Before, the main thread is stopped for a moment by ptrace
 * and made to call Py_AddPendingCall, and goes on as if nothing had been; or, where CPython waits for a lock, as if a signal
 * had come, for then it does what is pending and waits on. In such a wait that is done from 3.14 on, too, for what is asked
 * there is not seen before its end; the call that is pending then has CPython look.
 */
#ifndef ATTACH_H
#define ATTACH_H

#include <stdbool.h>
#include <stddef.h>

typedef struct attach_order {
    long pid;
    const char *library; /* NULL = libpyprof-TAG.so beside the own program, or where it is installed */
    double timeout_s;
    bool is_undone; /* have it listen no more */
} attach_order;

/* path: of the socket at which the process listens then, as it is reached from here; empty if it is undone. False: why not,
   one line. Not while other threads fork: it traces a process, which goes on by itself if this one dies. */
bool attach_process(const attach_order *order, char *path, size_t path_size, char *why, size_t why_size);

#endif
