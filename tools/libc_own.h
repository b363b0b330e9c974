/* libc_own.h: libc's own functions, of the names that ends.h defines before libc. For libpyprof.c.
 *
 * They are looked up together, when the library is loaded: dlsym is nothing for a signal handler, nor for a child that was
 * forked while another thread loaded something. In a process that is not recorded they are all that happens.
 */
#ifndef LIBC_OWN_H
#define LIBC_OWN_H

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int main_function(int, char **, char **);

/* What calls main. */
int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*loader_fini)(void), void *stack_end);

#ifdef fopen64 /* with musl it is fopen by another name */
#define LIBC_FOPEN64(X)
#else
#define LIBC_FOPEN64(X) X(fopen64)
#endif

/* clang-format off */
#define LIBC_FUNCTIONS(X) \
    X(sigaction) X(signal) X(sigaltstack) X(pthread_create) X(pthread_condattr_setclock) X(_exit) \
    X(quick_exit) X(abort) X(kill) X(killpg) X(raise) X(pthread_kill) X(daemon) X(execve) X(execvpe) X(fexecve) \
    X(posix_spawn) X(posix_spawnp) X(unshare) X(setns) X(fopen) LIBC_FOPEN64(X) X(__libc_start_main)
/* clang-format on */

typedef struct libc_functions {
#define LIBC_FIELD(name) __typeof__(&name) name;
    LIBC_FUNCTIONS(LIBC_FIELD)
#undef LIBC_FIELD
} libc_functions;

/* The next after this library; loaded by dlopen, it may be behind libc. */
static void *find_in_libc(const char *name) {
    void *next = dlsym(RTLD_NEXT, name);
    return next != NULL ? next : dlsym(RTLD_DEFAULT, name);
}

static const libc_functions *libc(void) {
    static libc_functions functions;
    static volatile bool is_filled;
    if (!is_filled) {
        void *found;
#define LIBC_FIND(name)                                                                                                \
    found = find_in_libc(#name);                                                                                       \
    memcpy(&functions.name, &found, sizeof found);
        LIBC_FUNCTIONS(LIBC_FIND)
#undef LIBC_FIND
        is_filled = true;
    }
    return &functions;
}

#endif
