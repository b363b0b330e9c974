/* libpyprof: what pyprof-run puts into the python that it runs (LD_PRELOAD), to record it.
 *
 * It begins before main, so the interpreter's own start is in the profile, and it ends where the process
 * does. Every way to the end that lets code run passes here: exit handlers, _exit, exec, each signal that
 * ends a process. The functions of libc that lead there are defined here, too, before libc's own: they end
 * the recording, and go on to do what they are for.
 *
 * The program must not notice. It has the signal actions that it would have without us: an action that was
 * the default is ours, and is told to be the default. Our descriptor lies high, our threads are not counted
 * where CPython asks how many there are, and nothing is written on the program's own standard error.
 *
 * What is recorded is handed over to the writer, in a thread of ours, whatever state the thread that ends
 * the process is in: handing.h, handover.h. Those functions of libc are in ends.h.
 *
 * Some calls end the process only if they succeed (exec), or fail while there is a thread of ours (unshare). For them
 * the recording is interrupted: it ends, and if the program goes on, a new one goes on with it. All of them are one
 * profile: see joined.h.
 */
#undef _FILE_OFFSET_BITS /* fopen is to be fopen here, and not the other name of fopen64 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <signal.h>

/* pyprof.h is to see the signals' actions as they are, the program as they would be without us. */
static int real_sigaction(int number, const struct sigaction *action, struct sigaction *old);
#define sigaction(number, action, old) real_sigaction(number, action, old)
#define PYPROF_IMPLEMENTATION
#define PYPROF_STATIC
#include "../pyprof.h"
#undef sigaction

#include "ends.h"
#include "handing.h"
#include "joined.h"
#include "recording.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- parts of the recording ----------------------------------------------------------------------------- */

/* Not malloc's memory: a thread that dies inside malloc must not keep us from handing over. */
static void *map_memory(size_t size, void *unused) {
    (void)unused;
    size_t *block = (size_t *)mmap(NULL, size + 64, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) {
        return NULL;
    }
    *block = size + 64;
    return (char *)block + 64;
}

static void unmap_memory(void *memory, void *unused) {
    (void)unused;
    if (memory != NULL) {
        size_t *block = (size_t *)(void *)((char *)memory - 64);
        (void)munmap(block, *block);
    }
}

/* Why it cannot begin or go on is told once, by refuse or at the end, and what was lost by the writer, from the figures. */
static void on_log(pyprof_log_level level, const char *message, void *unused) {
    (void)unused;
    if (run.between || (run.state == OFF && level == PYPROF_LOG_ERROR) ||
        (run.cause != HANDOVER_NOT_YET && level == PYPROF_LOG_WARNING)) {
        return;
    }
    (void)tell(HANDOVER_LOG, (uint32_t)level, message, strlen(message));
}

/* The memory is what is left by those before, 1 MiB at least. */
static pyprof_result begin_part(void) {
    pyprof_desc desc = {.interval_us = run.settings.interval_us,
                        .capture = (pyprof_capture)run.settings.capture,
                        .signal_number = run.settings.signal_number,
                        .memory_limit = (size_t)run.settings.memory,
                        .max_depth = run.settings.depth,
                        .allocator = {map_memory, unmap_memory, NULL},
                        .logger = {on_log, NULL}};
    pyprof__apply_defaults(&desc);
    if (run.recorded != NULL) {
        size_t held = run.recorded->memory.used, least = 1u << 20;
        desc.memory_limit = desc.memory_limit > held + least ? desc.memory_limit - held : least;
    }
    pyprof_result result = pyprof_start(&desc);
    (void)clock_gettime(CLOCK_MONOTONIC, &run.begun);
    if (result == PYPROF_OK) {
        run.sampler_tid = pyprof__process.active->tid;
    }
    run.between = false;
    return result;
}

/* Adds a recording to those before. */
static void keep_part(pyprof_profile *part) {
    static const char no_room[] = "there was no room for what was recorded after an interruption: see --memory";
    if (run.recorded == NULL || part == NULL) {
        run.recorded = part != NULL ? part : run.recorded;
        return;
    }
    size_t places = (size_t)part->tracks.count + part->nodes.items.count;
    uint32_t *room = (uint32_t *)map_memory(places * sizeof *room, NULL);
    if (room == NULL || !join_profiles(run.recorded, part, room)) {
        (void)tell(HANDOVER_LOG, PYPROF_LOG_WARNING, no_room, sizeof no_room - 1);
    }
    unmap_memory(room, NULL);
    pyprof_free(part);
}

static pyprof_result end_part(void) {
    pyprof_profile *part = NULL;
    pyprof_stats stats;
    if (!pyprof_is_active()) {
        return PYPROF_OK;
    }
    run.between = true;
    run.seconds += seconds_since(&run.begun);
    pyprof_result result = pyprof_stop(&part);
    if (pyprof_get_stats(&stats) == PYPROF_OK) {
        join_stats(&run.stats, &stats);
    }
    keep_part(part);
    return result;
}

static void finish(void) {
    pyprof_result result = end_part();
    handover_end end = describe_end(run.cause, result);
    run.failed = !hand_over(&end, HANDOVER_DONE);
    leave_writer();
    pyprof_free(run.recorded);
}

/* ---- the end of the recording --------------------------------------------------------------------------- */

static void wait_while(unsigned state) {
    while (run.state == state) {
        (void)syscall(SYS_futex, &run.state, FUTEX_WAIT_PRIVATE, state, NULL, NULL, 0);
    }
}

static void enter(unsigned state) {
    run.state = state;
    (void)syscall(SYS_futex, &run.state, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static bool set_cause(handover_cause cause, int value) {
    unsigned long long none = HANDOVER_NOT_YET;
    return atomic_compare_exchange_strong(&run.cause, &none, (unsigned long long)cause << 32 | (uint32_t)value);
}

/* Ends the recording, and returns when it has been handed over. Whether it was this end, not another one that came first.
   Async-signal-safe. */
static bool end_recording(handover_cause cause, int value) {
    bool is_first = false;
    while (run.state == RECORDING) { /* another one may have been an interruption, and is over */
        is_first = set_cause(cause, value) || is_first;
        (void)sem_post(&run.wake);
        (void)syscall(SYS_futex, &run.state, FUTEX_WAIT_PRIVATE, RECORDING, NULL, NULL, 0);
    }
    return is_first;
}

static void be_done(void) {
    if (!is_leaving()) { /* else for timers: see comes_too_late */
        restore_signals();
    }
    enter(DONE);
}

/* Why the program goes on without being recorded. */
static void break_off(const char *why) {
    if (!is_ending()) {
        (void)snprintf(run.text, sizeof run.text, "%.*s", (int)sizeof run.text - 1, why);
        run.cause = (unsigned long long)HANDOVER_BROKEN_OFF << 32;
    }
}

/* At its hard limit of CPU time a process is killed at once: getrlimit(2). So what there is by then is handed over as a
   draft a while before, and again in ever shorter times, as long as these are longer than it takes. */
static struct {
    rlim_t limit;        /* seconds, for which this is; 0 = none yet */
    double left_at_next; /* seconds of CPU time that are left when the next draft is due */
} drafts;

static double cpu_time_used(void) {
    struct timespec used;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* Seconds of CPU time. */
static double until_draft(void) {
    const double never = 1e9, most = 10;
    struct rlimit limits;
    if (getrlimit(RLIMIT_CPU, &limits) != 0 || limits.rlim_max == RLIM_INFINITY) {
        return never;
    }
    double limit = (double)limits.rlim_max;
    if (limits.rlim_max != drafts.limit) {
        drafts.limit = limits.rlim_max;
        drafts.left_at_next = limit / 2 < most ? limit / 2 : most;
    }
    return drafts.left_at_next > 0 ? limit - drafts.left_at_next - cpu_time_used() : never;
}

static void hand_over_draft(void) {
    double begun = cpu_time_used();
    pyprof_result result = end_part();
    bool is_recorded = begin_part() == PYPROF_OK;
    handover_end end = describe_end((unsigned long long)HANDOVER_LIMIT << 32, result);
    if (!is_recorded) {
        break_off(pyprof_last_error());
        return;
    }
    (void)hand_over(&end, HANDOVER_DRAFT);
    double now = cpu_time_used(), next = ((double)drafts.limit - now) / 4;
    drafts.left_at_next = next > 0.02 && next > 2 * (now - begun) ? next : 0;
}

static double until_duration(void) {
    return run.settings.duration > 0 ? run.settings.duration - run.seconds - seconds_since(&run.begun) : 1e9;
}

/* A semaphore knows only the wall clock, which may be set: so it is waited for in short steps. */
static void wait_for(double seconds) {
    struct timespec deadline;
    (void)clock_gettime(CLOCK_REALTIME, &deadline);
    double most = run.settings.follow == HANDOVER_FOLLOW_CHILD ? 0.1 : 0.5; /* a child may be asked to end */
    deadline.tv_nsec += (long)((seconds < most ? seconds : most) * 1e9);
    deadline.tv_sec += deadline.tv_nsec / 1000000000;
    deadline.tv_nsec %= 1000000000;
    (void)sem_timedwait(&run.wake, &deadline);
}

/* Until there is a cause to end the recording, be it that --duration is over. */
static void wait_for_end(void) {
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : CPU_SETSIZE;
    while (run.cause == HANDOVER_NOT_YET) {
        double duration = until_duration(), draft = until_draft() / cores; /* no sooner may so much CPU time be used */
        if (duration <= 0 || is_asked_to_end()) {
            (void)set_cause(HANDOVER_DURATION, 0);
        } else if (draft <= 0) {
            hand_over_draft();
        } else {
            draft = draft > 0.005 ? draft : 0.005;
            wait_for(duration < draft ? duration : draft);
        }
    }
}

/* The program goes on after an interruption, and so does the recording. */
static void go_on(void) {
    run.goes_on = false;
    if (begin_part() != PYPROF_OK) {
        break_off(pyprof_last_error());
        return;
    }
    run.cause = HANDOVER_NOT_YET;
    take_signals();
    enter(RECORDING);
}

static void wait_to_go_on(void) {
    while (!run.goes_on) {
        (void)sem_wait(&run.wake);
    }
}

/* What is handed over now counts if the exec succeeds. If it fails, the thread that called it says so. */
static void interrupt_for_exec(void) {
    pyprof_result result = end_part();
    handover_end end = describe_end(run.cause, result);
    (void)hand_over(&end, HANDOVER_DRAFT);
    enter(INTERRUPTED);
    wait_to_go_on();
    (void)tell(HANDOVER_GOES_ON, 0, NULL, 0);
    go_on();
}

static void *supervise(void *unused) {
    (void)unused;
    (void)pthread_setname_np(pthread_self(), "pyprof-run");
    run.supervisor_tid = (int)syscall(SYS_gettid);
    free(malloc(1));                /* an arena of its own, before a thread dies with the lock of another one */
    if (run.state == INTERRUPTED) { /* who made this thread blocks all signals yet, and so none would seem free */
        wait_to_go_on();
        go_on();
    }
    for (wait_for_end(); cause_of_end() == HANDOVER_EXEC; wait_for_end()) {
        interrupt_for_exec();
    }
    if (cause_of_end() == HANDOVER_NAMESPACE) { /* which asks for a process without this thread */
        (void)end_part();
        enter(INTERRUPTED);
    } else {
        finish();
        be_done();
    }
    return NULL;
}

static bool start_supervisor(void) {
    sigset_t all, old;
    pthread_t thread;
    (void)sigfillset(&all);
    (void)sem_init(&run.wake, 0, 0);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    bool started = pthread_create(&thread, NULL, supervise, NULL) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (started) {
        (void)pthread_detach(thread);
    }
    return started;
}

/* ---- the beginning -------------------------------------------------------------------------------------- */

/* The environment as it was before pyprof-run. */
static void clean_environment(unsigned preload_length) {
    const char *preload = getenv("LD_PRELOAD");
    (void)unsetenv(HANDOVER_VARIABLE);
    if (preload != NULL && strlen(preload) > preload_length) {
        char *kept = strdup(preload + preload_length + 1);
        if (kept != NULL) {
            (void)setenv("LD_PRELOAD", kept, 1);
            free(kept);
        }
    } else {
        (void)unsetenv("LD_PRELOAD");
    }
}

static bool read_settings(handover_settings *to) {
    const char *text = getenv(HANDOVER_VARIABLE);
    return text != NULL &&
           sscanf(text, HANDOVER_READ, to->socket, &to->preload_length, &to->interval_us, &to->capture,
                  &to->signal_number, &to->depth, &to->memory, &to->duration, &to->follow) == HANDOVER_FIELDS;
}

/* A child goes on without us, and its user may not have asked for it: it does not notice. */
static void refuse(const char *why) {
    bool is_child = run.settings.follow == HANDOVER_FOLLOW_CHILD;
    bool is_told = tell(HANDOVER_REFUSED, 0, why, strlen(why));
    if (!is_told && !is_child) {
        (void)dprintf(STDERR_FILENO, "pyprof-run: cannot record: %s\n", why);
    }
    if (is_told) {
        (void)ask_whether_written();
    }
    if (!is_child) {
        (void)syscall(SYS_exit_group, EXIT_FAILURE);
    }
    leave_writer();
}

/* The recording comes first: it looks for a free signal before we take those that end the process. */
static bool begin(void) {
    pyprof_result result = begin_part();
    if (result != PYPROF_OK) {
        refuse(pyprof_result_string(result));
        return false;
    }
    if (!start_supervisor()) {
        (void)end_part();
        refuse("no room for a thread");
        return false;
    }
    run.state = RECORDING;
    (void)give_signal_stack();
    take_signals();
    return true;
}

/* In a forked child: all that was the parent's is forgotten, and a recording of its own begins. */
static bool record_child(void) {
    pyprof_free(run.recorded);
    run.recorded = NULL;
    memset(&run.stats, 0, sizeof run.stats);
    run.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    run.pid = getpid();
    run.state = OFF;
    run.supervisor_tid = run.sampler_tid = 0;
    run.goes_on = run.between = run.failed = false;
    run.forks = following.others = 0;
    run.ending_signals = 0;
    run.first_ending_signal = 0;
    run.seconds = run.settings.duration = 0; /* the parent's end is ours */
    run.settings.follow = HANDOVER_FOLLOW_CHILD;
    drafts.limit = 0;
    return tell_who_we_are(true) && begin();
}

__attribute__((constructor)) static void on_load(void) {
    if (run.state != OFF || !read_settings(&run.settings)) {
        return;
    }
    if (is_following()) {
        prepare_following(getenv("LD_PRELOAD"));
    }
    clean_environment(run.settings.preload_length);
    run.pid = getpid();
    if (!tell_who_we_are(false)) {
        refuse("the process that writes the profile is not to be reached");
    } else if (begin() && pthread_atfork(NULL, count_fork, go_on_in_child) != 0) {
        refuse("no room for a fork handler");
    }
}

typedef int main_function(int, char **, char **);

static main_function *program_main;

static int run_main(int argc, char **argv, char **variables) {
    if (run.state == RECORDING && !register_exit()) {
        refuse("no room for an exit handler");
    }
    return program_main(argc, argv, variables);
}

/* What calls main. In it our exit handler is registered: in the constructor it would run after the destructors. */
int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*loader_fini)(void), void *stack_end);

EXPORTED int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                               void (*loader_fini)(void), void *stack_end) {
    LIBC(__libc_start_main);
    program_main = main;
    return libc___libc_start_main(run_main, argc, argv, init, fini, loader_fini, stack_end);
}
