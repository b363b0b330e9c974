/* ends.h: the functions of libc that lead to the end of a process, before libc's own. For libpyprof.c.
 *
 * Exit handlers, _exit, exec, each signal that ends a process, and what a process may do only without a thread of ours:
 * they end the recording or interrupt it, and go on to do what they are for.
 */
#ifndef ENDS_H
#define ENDS_H

#include "following.h"
#include "handing.h"
#include "heap_left.h"
#include "libc_own.h"
#include "recording.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum {
    SIGNAL_STACK = 64 * 1024
};

/* Runs last of the program's exit handlers, and before the destructors of libraries: see run_main. Only here can what
   the process answers still be changed. */
static void at_exit(int status, void *unused) {
    (void)unused;
    if (run.state == WAITING) {
        explain("no CPython began in it");
    }
    if (!is_recording()) {
        return;
    }
    end_recording(HANDOVER_EXIT, status);
    if (run.failed && status == EXIT_SUCCESS) {
        (void)fflush(NULL);
        (void)syscall(SYS_exit_group, EXIT_FAILURE);
    }
}

#if !defined(__GLIBC__)
/* Without on_exit the status is not known. */
static void at_plain_exit(void) {
    at_exit(EXIT_SUCCESS, NULL);
}
#endif

static bool register_exit(void) {
#if defined(__GLIBC__)
    return on_exit(at_exit, NULL) == 0;
#else
    return atexit(at_plain_exit) == 0;
#endif
}

/* ---- signals that end the process ----------------------------------------------------------------------- */

/* signal(7): those whose default action ends it, and that may have a handler. */
static bool ends_process(int number) {
    switch (number) {
    case SIGKILL:
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGCONT:
    case SIGCHLD:
    case SIGURG:
    case SIGWINCH:
        return false;
    default:
        return (number > 0 && number < 32) || (number >= SIGRTMIN && number <= SIGRTMAX);
    }
}

/* Whether the same instruction would raise it again. */
static bool is_fault(int number, const siginfo_t *info) {
    return info->si_code > 0 && (number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE);
}

static int real_sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    return libc()->sigaction(number, action, old);
}

/* Somebody who asks again and again wants no profile any more. Two signals in quick succession are one wish: a
   service manager sends one to the process and one to its group. */
static bool is_impatient(void) {
    unsigned long long none = 0, now = pyprof__now();
    if (atomic_compare_exchange_strong(&run.first_ending_signal, &none, now) || now - none < 1000000000u) {
        return false;
    }
    return atomic_fetch_add(&run.ending_signals, 1) > 0;
}

/* Timers run on while all is handed over, and CPython takes its handlers away before it exits: a program that had one
   would then die by it, which without us has no time to happen. */
static bool is_of_timer(int number, const siginfo_t *info) {
    return info->si_code == SI_TIMER ||
           (info->si_code > 0 && (number == SIGALRM || number == SIGPROF || number == SIGVTALRM));
}

/* The end that is being handed over is the end: what comes meanwhile changes neither the exit status nor the signal. */
static bool comes_too_late(int number, const siginfo_t *info) {
    return is_leaving() && !is_fault(number, info) &&
           (is_of_timer(number, info) || (run.state == RECORDING && !is_impatient()));
}

/* The thread that has the signal stands still here until all has been handed over, then it has the default
   action, as it would have had at once. */
static void on_ending_signal(int number, siginfo_t *info, void *unused) {
    (void)unused;
    int saved = errno;
    if (comes_too_late(number, info)) {
        errno = saved;
        return;
    }
    if (is_recording() && is_within_heap() && !is_fault(number, info)) {
        put_off(number);
        errno = saved;
        return;
    }
    if (is_recording() && !is_impatient()) {
        end_recording(HANDOVER_SIGNAL, number);
        number = cause_of_end() == HANDOVER_SIGNAL ? (int)(uint32_t)run.cause : number;
    }
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    (void)real_sigaction(number, &action, NULL);
    if (!is_fault(number, info)) {
        (void)syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), number);
    }
    errno = saved;
}

static bool is_ours(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) != 0 && action->sa_sigaction == on_ending_signal;
}

static bool is_default(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) == 0 && action->sa_handler == SIG_DFL;
}

static const struct sigaction *our_action(void) {
    static struct sigaction action; /* zero, but for what never changes */
    action.sa_sigaction = on_ending_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER;
    return &action;
}

/* Ours is told to be the default, and the one that asks for stacks, which is there until all has been recorded, to be
   the program's. */
static void tell_action(int number, struct sigaction *action) {
    if (pyprof__is_our_action(action)) {
        *action = pyprof__handler.previous[number];
    }
    if (is_ours(action)) {
        memset(action, 0, sizeof *action);
        action->sa_handler = SIG_DFL;
    }
}

/* The default action is ours. */
static const struct sigaction *action_to_set(int number, const struct sigaction *action) {
    return action != NULL && is_default(action) && ends_process(number) ? our_action() : action;
}

/* The signal that asks for stacks stays ours: what the program sets is called for its own signals, and told to it. */
static int set_own_action(int number, const struct sigaction *action, struct sigaction *old) {
    if (old != NULL) {
        *old = pyprof__handler.previous[number];
        tell_action(number, old);
    }
    if (action != NULL) {
        pyprof__handler.previous[number] = *action_to_set(number, action);
    }
    return 0;
}

static bool asks_for_stacks(int number) {
    bool is_taken = (pyprof__get64(&pyprof__handler.taken) & pyprof__signal_bit(number)) != 0;
    return is_taken && is_recording() && run.cause == HANDOVER_NOT_YET && !run.between;
}

EXPORTED int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    if (action == NULL) {
        look_at_heap_again(*own_memory());
    }
    if (asks_for_stacks(number)) {
        return set_own_action(number, action, old);
    }
    int result = real_sigaction(number, is_recording() ? action_to_set(number, action) : action, old);
    if (result == 0 && old != NULL) {
        tell_action(number, old);
    }
    return result;
}

static sighandler_t set_handler(int number, sighandler_t handler, int flags) {
    struct sigaction action, old;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    return handler == SIG_ERR || sigaction(number, &action, &old) != 0 ? SIG_ERR : old.sa_handler;
}

EXPORTED sighandler_t signal(int number, sighandler_t handler) {
    if (!was_begun()) { /* siginterrupt counts for it */
        return libc()->signal(number, handler);
    }
    return set_handler(number, handler, SA_RESTART);
}

EXPORTED sighandler_t bsd_signal(int number, sighandler_t handler) {
    return signal(number, handler);
}

EXPORTED sighandler_t sysv_signal(int number, sighandler_t handler) {
    return set_handler(number, handler, (int)(SA_RESETHAND | (unsigned)SA_NODEFER));
}

/* Its other names. */
EXPORTED int __sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    return sigaction(number, action, old);
}

EXPORTED sighandler_t ssignal(int number, sighandler_t handler) {
    return signal(number, handler);
}

EXPORTED sighandler_t __sysv_signal(int number, sighandler_t handler) {
    return sysv_signal(number, handler);
}

EXPORTED int sigignore(int number) {
    return set_handler(number, SIG_IGN, 0) == SIG_ERR ? -1 : 0;
}

#ifndef SIG_HOLD
#define SIG_HOLD ((sighandler_t)2)
#endif

/* System V's, which vim uses: it blocks the signal, or sets its action and lets it through; and says whether it was
   blocked, else which action it had. */
EXPORTED sighandler_t sigset(int number, sighandler_t handler) {
    sigset_t set, before;
    struct sigaction action;
    (void)sigemptyset(&set);
    if (sigaddset(&set, number) != 0) {
        return SIG_ERR;
    }
    int failed = sigaction(number, NULL, &action);
    sighandler_t old = failed ? SIG_ERR : handler == SIG_HOLD ? action.sa_handler : set_handler(number, handler, 0);
    if (old == SIG_ERR || sigprocmask(handler == SIG_HOLD ? SIG_BLOCK : SIG_UNBLOCK, &set, &before) != 0) {
        return SIG_ERR;
    }
    return sigismember(&before, number) == 1 ? SIG_HOLD : old;
}

static void take_signals(void) {
    struct sigaction old;
    for (int number = 1; number <= SIGRTMAX; number++) {
        if (asks_for_stacks(number)) {
            struct sigaction *previous = &pyprof__handler.previous[number];
            *previous = *action_to_set(number, previous);
        }
        if (ends_process(number) && real_sigaction(number, NULL, &old) == 0 && is_default(&old)) {
            (void)real_sigaction(number, our_action(), NULL);
        }
    }
}

static void restore_signals(void) {
    struct sigaction old, action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    for (int number = 1; number <= SIGRTMAX; number++) {
        if (ends_process(number) && real_sigaction(number, NULL, &old) == 0 && is_ours(&old)) {
            (void)real_sigaction(number, &action, NULL);
        }
    }
}

static __thread void *own_stack; /* for signals, of this thread */

/* A stack that overflows leaves no room for a handler: each thread gets a second one, until the program brings its own
   (faulthandler). */
static void *give_signal_stack(void) {
    stack_t old, stack;
    if (syscall(SYS_sigaltstack, NULL, &old) != 0 || !(old.ss_flags & SS_DISABLE)) {
        return NULL;
    }
    memset(&stack, 0, sizeof stack);
    stack.ss_sp = mmap(NULL, SIGNAL_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack.ss_size = SIGNAL_STACK;
    if (stack.ss_sp != MAP_FAILED) {
        own_stack = stack.ss_sp;
        (void)syscall(SYS_sigaltstack, &stack, NULL);
    }
    return own_stack;
}

static void take_signal_stack(void *given) {
    stack_t now, none;
    memset(&none, 0, sizeof none);
    none.ss_flags = SS_DISABLE;
    if (given == NULL || syscall(SYS_sigaltstack, NULL, &now) != 0) {
        return;
    }
    own_stack = NULL;
    if (now.ss_sp != given || syscall(SYS_sigaltstack, &none, NULL) == 0) {
        (void)munmap(given, SIGNAL_STACK);
    }
}

/* Ours is told to be none, and none is ours. */
EXPORTED int sigaltstack(const stack_t *next, stack_t *old) {
    stack_t before, ours;
    if (own_stack == NULL) {
        return libc()->sigaltstack(next, old);
    }
    if (syscall(SYS_sigaltstack, next, &before) != 0) {
        return -1;
    }
    memset(&ours, 0, sizeof ours);
    ours.ss_sp = own_stack;
    ours.ss_size = SIGNAL_STACK;
    if (next != NULL && (next->ss_flags & SS_DISABLE)) {
        (void)syscall(SYS_sigaltstack, &ours, NULL);
    }
    if (before.ss_sp == own_stack) {
        memset(&before, 0, sizeof before);
        before.ss_flags = SS_DISABLE;
    }
    if (old != NULL) {
        *old = before;
    }
    return 0;
}

typedef struct new_thread {
    void *(*start)(void *);
    void *argument;
} new_thread;

static void *run_thread(void *given) {
    new_thread thread = *(new_thread *)given;
    void *result;
    free(given);
    pthread_cleanup_push(take_signal_stack, give_signal_stack());
    result = thread.start(thread.argument);
    pthread_cleanup_pop(1);
    return result;
}

EXPORTED int pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    new_thread *thread = is_recording() ? (new_thread *)malloc(sizeof *thread) : NULL;
    if (thread == NULL) {
        return libc()->pthread_create(made, attributes, start, argument);
    }
    *thread = (new_thread){start, argument};
    int result = libc()->pthread_create(made, attributes, run_thread, thread);
    if (result != 0) {
        free(thread);
    }
    return result;
}

/* ---- other ends ----------------------------------------------------------------------------------------- */

EXPORTED void _exit(int status) {
    if (is_recording()) {
        end_recording(HANDOVER_EXIT, status);
        if (run.failed && status == EXIT_SUCCESS) {
            status = EXIT_FAILURE;
        }
    }
    libc()->_exit(status);
    for (;;) { /* which the compiler does not know of it */
    }
}

EXPORTED void _Exit(int status) {
    _exit(status);
}

EXPORTED void quick_exit(int status) {
    if (is_recording()) {
        end_recording(HANDOVER_EXIT, status);
    }
    libc()->quick_exit(status);
    _exit(status);
}

EXPORTED void abort(void) {
    if (is_recording()) {
        end_recording(HANDOVER_SIGNAL, SIGABRT);
    }
    libc()->abort();
    _exit(127);
}

/* SIGKILL has no handler, but who sends it to himself can be seen. */
static void before_signal(int number, bool to_self) {
    if (number == SIGKILL && to_self && is_recording()) {
        end_recording(HANDOVER_SIGNAL, SIGKILL);
    }
}

EXPORTED int kill(pid_t pid, int number) {
    before_signal(number, pid == getpid() || pid == 0 || pid == -1 || pid == -getpgrp());
    return libc()->kill(pid, number);
}

EXPORTED int killpg(pid_t group, int number) {
    before_signal(number, group == 0 || group == getpgrp());
    return libc()->killpg(group, number);
}

EXPORTED int raise(int number) {
    before_signal(number, true);
    return libc()->raise(number);
}

EXPORTED int pthread_kill(pthread_t thread, int number) {
    before_signal(number, true);
    return libc()->pthread_kill(thread, number);
}

/* libc's own leaves by a way that cannot be seen from here. */
EXPORTED int daemon(int keep_directory, int keep_files) {
    if (is_recording()) {
        end_recording(HANDOVER_DAEMON, 0);
    }
    return libc()->daemon(keep_directory, keep_files);
}

/* A program that is about to be replaced. Whether the recording was interrupted for that: if it then is not replaced,
   after_exec follows. */
static bool before_exec(const char *path, bool is_followed) {
    if (!is_followed) {
        count_exec(path);
    }
    if (path == NULL || !is_recording() || !may_be_executed(path)) {
        return false;
    }
    (void)snprintf(run.text, sizeof run.text, "%.*s", (int)sizeof run.text - 1, path);
    return end_recording(HANDOVER_EXEC, is_followed);
}

/* It has failed. Async-signal-safe, as exec is. */
static int after_exec(bool interrupted, int result) {
    int saved = errno;
    if (interrupted) {
        run.goes_on = true;
        (void)sem_post(&run.wake);
        wait_while(INTERRUPTED);
    }
    errno = saved;
    return result;
}

EXPORTED int execve(const char *path, char *const arguments[], char *const variables[]) {
    bool is_followed = follows(path);
    VARIABLES_FOR(is_followed, variables);
    bool interrupted = before_exec(path, is_followed);
    return after_exec(interrupted, libc()->execve(path, arguments, all));
}

EXPORTED int execv(const char *path, char *const arguments[]) {
    return execve(path, arguments, environ);
}

EXPORTED int execvpe(const char *name, char *const arguments[], char *const variables[]) {
    char found[PATH_MAX];
    const char *path = find_executable(name, found);
    bool is_followed = follows(path);
    VARIABLES_FOR(is_followed, variables);
    bool interrupted = before_exec(path, is_followed);
    return after_exec(interrupted, libc()->execvpe(name, arguments, all));
}

EXPORTED int execvp(const char *name, char *const arguments[]) {
    return execvpe(name, arguments, environ);
}

/* Arguments that are listed, up to NULL. */
static size_t count_words(va_list *list) {
    size_t count = 2;
    while (va_arg(*list, char *) != NULL) {
        count++;
    }
    return count;
}

static void take_words(char **to, const char *first, va_list *list) {
    *to = (char *)(uintptr_t)first;
    while (*to != NULL) {
        *++to = va_arg(*list, char *);
    }
}

#define LISTED_WORDS                                                                                                   \
    va_list list;                                                                                                      \
    va_start(list, first);                                                                                             \
    char *arguments[count_words(&list)];                                                                               \
    va_end(list);                                                                                                      \
    va_start(list, first);                                                                                             \
    take_words(arguments, first, &list);                                                                               \
    va_end(list)

EXPORTED int execl(const char *path, const char *first, ...) {
    LISTED_WORDS;
    return execve(path, arguments, environ);
}

EXPORTED int execlp(const char *name, const char *first, ...) {
    LISTED_WORDS;
    return execvpe(name, arguments, environ);
}

EXPORTED int execle(const char *path, const char *first, ...) {
    va_list list;
    va_start(list, first);
    size_t count = count_words(&list);
    char **variables = va_arg(list, char **);
    va_end(list);
    char *arguments[count];
    va_start(list, first);
    take_words(arguments, first, &list);
    va_end(list);
    return execve(path, arguments, variables);
}

EXPORTED int fexecve(int descriptor, char *const arguments[], char *const variables[]) {
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    bool is_followed = follows(path);
    VARIABLES_FOR(is_followed, variables);
    bool interrupted = before_exec(path, is_followed);
    return after_exec(interrupted, libc()->fexecve(descriptor, arguments, all));
}

/* ---- what a process with one thread only may do ---------------------------------------------------------- */

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

static bool lives(int tid) {
    return tid > 0 && syscall(SYS_tgkill, run.pid, tid, 0) == 0;
}

/* The signals that would end the process, but for the one that asks for stacks: who blocks that is not asked. */
static sigset_t ending_signals(void) {
    sigset_t set;
    (void)sigemptyset(&set);
    for (int number = 1; number <= SIGRTMAX; number++) {
        if (ends_process(number) && number != run.settings.signal_number) {
            (void)sigaddset(&set, number);
        }
    }
    return set;
}

/* Our threads go, and with them the recording is interrupted; whether it was. A signal that would end the process has to
   wait meanwhile, as nobody is there to hand over. */
static bool leave_alone(sigset_t *before) {
    const struct timespec step = {0, 100000};
    sigset_t ending = ending_signals();
    int saved = errno;
    if (!is_recording()) {
        return false;
    }
    (void)pthread_sigmask(SIG_BLOCK, &ending, before);
    bool interrupted = end_recording(HANDOVER_NAMESPACE, 0);
    while (interrupted && (lives(run.supervisor_tid) || lives(run.sampler_tid))) {
        (void)nanosleep(&step, NULL);
    }
    if (!interrupted) {
        (void)pthread_sigmask(SIG_SETMASK, before, NULL);
    }
    errno = saved;
    return interrupted;
}

static int come_back(bool interrupted, const sigset_t *before, int result) {
    int saved = errno;
    if (!interrupted) {
        return result;
    }
    run.supervisor_tid = 0;
    if (start_supervisor()) {
        run.goes_on = true;
        (void)sem_post(&run.wake);
        wait_while(INTERRUPTED);
    } else {
        break_off("in its new namespaces it cannot start a thread");
        finish();
        be_done();
    }
    (void)pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = saved;
    return result;
}

EXPORTED int unshare(int flags) {
    sigset_t before;
    bool is_alone = (flags & (CLONE_NEWUSER | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD)) != 0 && leave_alone(&before);
    return come_back(is_alone, &before, libc()->unshare(flags));
}

/* What kinds of namespaces it is about: setns(2). */
static int kinds_of(int descriptor, int kinds) {
    int saved = errno;
    int kind = kinds != 0 ? kinds : ioctl(descriptor, NS_GET_NSTYPE);
    errno = saved;
    return kind > 0 ? kind : 0;
}

EXPORTED int setns(int descriptor, int kinds) {
    sigset_t before;
    int entered = kinds_of(descriptor, kinds);
    bool is_alone = (entered & (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWTIME)) != 0 && leave_alone(&before);
    return come_back(is_alone, &before, libc()->setns(descriptor, kinds));
}

/* ---- the beginning of CPython ---------------------------------------------------------------------------- */

/* CPython of each version calls it while it begins, before it has an interpreter, and seldom does somebody else. */
EXPORTED int pthread_condattr_setclock(pthread_condattr_t *attributes, clockid_t clock) {
    if (run.state == WAITING) {
        pyprof_door(__builtin_return_address(0));
    }
    return libc()->pthread_condattr_setclock(attributes, clock);
}

/* ---- children ------------------------------------------------------------------------------------------- */

static void count_fork(void) {
    if (run.state == RECORDING) {
        atomic_fetch_add(&run.forks, 1);
    }
}

/* What was the parent's is left behind. A recording of its own begins if one is wished, and the parent's did not just end. */
static void go_on_in_child(void) {
    bool was_recorded = run.state == RECORDING && run.cause == HANDOVER_NOT_YET;
    bool is_wished = is_for_writer() ? is_following() : run.wished.is_for_children || run.wished.is_heap_for_children;
    if (run.state != RECORDING && run.state != INTERRUPTED) {
        return;
    }
    if (!is_wished || !was_recorded) {
        leave_heap();
    }
    restore_signals();
    if (is_still_ours()) {
        (void)close(run.descriptor);
    }
    run.descriptor = -1;
    if (!was_recorded || !is_wished || !record_child()) {
        run.state = DONE;
    }
}

/* The text of /proc/self/stat with fewer threads: proc(5), the 20th field. The second one, a name, is in brackets. */
static void count_threads_less(char *text, size_t size, int less) {
    char *place = strrchr(text, ')');
    char rest[1024];
    for (int field = 2; field < 20 && place != NULL; field++) {
        place = strchr(place + 1, ' ');
    }
    if (place == NULL) {
        return;
    }
    char *end = NULL;
    long count = strtol(place, &end, 10);
    (void)snprintf(rest, sizeof rest, "%s", end);
    (void)snprintf(place, size - (size_t)(place - text), " %ld%s", count - less, rest);
}

/* CPython 3.12 and later warn when a process with several threads forks, and read here how many there are
   (Modules/posixmodule.c, warn_about_fork_with_threads). Ours are not the program's. */
static FILE *open_stat(FILE *file) {
    char text[1024];
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    (void)fclose(file);
    /* The supervisor is there from the beginning; its id, from when it first runs. */
    bool is_supervised = run.supervisor_tid == 0 || lives(run.supervisor_tid);
    count_threads_less(text, sizeof text,
                       (pyprof_is_active() ? 1 : 0) + (is_supervised ? 1 : 0) + (run.wished.is_listening ? 1 : 0));
    FILE *edited = fmemopen(NULL, sizeof text, "w+");
    if (edited != NULL) {
        (void)fputs(text, edited);
        rewind(edited);
    }
    return edited;
}

static FILE *edit_if_stat(FILE *file, const char *path) {
    return file != NULL && strcmp(path, "/proc/self/stat") == 0 && is_recording() ? open_stat(file) : file;
}

EXPORTED FILE *fopen(const char *path, const char *mode) {
    return edit_if_stat(libc()->fopen(path, mode), path);
}

#ifndef fopen64 /* with musl it is fopen by another name */
EXPORTED FILE *fopen64(const char *path, const char *mode) {
    return edit_if_stat(libc()->fopen64(path, mode), path);
}
#endif

#endif
