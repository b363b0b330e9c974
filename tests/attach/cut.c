/* Preloaded into pyprof-ctl: what it does to another process comes to an end at any step.

     PYPROF_CUT=N   it is killed behind its Nth step: a call of ptrace, or a write into the memory of the process
     PYPROF_CUT=0   it may not call ptrace at all, as in a container whose seccomp profile has it not */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

static int cut_at(void) {
    const char *text = getenv("PYPROF_CUT");
    return text != NULL ? atoi(text) : -1;
}

static void cut_step(void) {
    static int steps;
    if (++steps == cut_at()) {
        (void)kill(getpid(), SIGKILL);
    }
}

#if defined(__GLIBC__)
typedef enum __ptrace_request cut_request;
#else
typedef int cut_request;
#endif

long ptrace(cut_request request, ...) {
    va_list values;
    va_start(values, request);
    long thread = va_arg(values, pid_t);
    void *address = va_arg(values, void *), *data = va_arg(values, void *);
    va_end(values);
    if (cut_at() == 0) {
        errno = EPERM;
        return -1;
    }
    long result = syscall(SYS_ptrace, (long)request, thread, address, data);
    cut_step();
    return result;
}

ssize_t pwrite(int file, const void *from, size_t size, off_t at) {
    ssize_t result = syscall(SYS_pwrite64, file, from, size, at);
    cut_step();
    return result;
}
