/* libpyprof: pyprof.h compiled once for one CPython, and a door for each who wants to have it in a process.
 *
 * Preloaded (LD_PRELOAD), it records a program that knows nothing of it: for pyprof-run, whose writer gets what was recorded
 * (handing.h, handover.h), or as PYPROF_OUTPUT and its kin say, into a file (wishes.h, saving.h); what of its memory is in
 * use, too (heap_left.h). Loaded by dlopen or ctypes,
 * it is pyprof.h's functions; imported, the module pyprof (pyprof_module.h). Only the first of these does anything by itself.
 *
 * Every process that inherits LD_PRELOAD has it, and is left as it was if it has no CPython, or another one: binding.h. In
 * a python it begins before main, in a host when CPython begins in it.
 *
 * It ends where the process does. Every way to the end that lets code run passes here: exit handlers, _exit, exec, each
 * signal that ends a process. The functions of libc that lead there are defined here, too, before libc's own: they end the
 * recording, and go on to do what they are for: ends.h.
 *
 * The program must not notice. It has the signal actions that it would have without us: an action that was
 * the default is ours, and is told to be the default. Our descriptor lies high, our threads are not counted
 * where CPython asks how many there are, and nothing is written on the program's own standard error.
 *
 * What is recorded is handed over or saved in a thread of ours, whatever state the thread that ends the process is in.
 *
 * Some calls end the process only if they succeed (exec), or fail while there is a thread of ours (unshare). For them
 * the recording is interrupted: it ends, and if the program goes on, a new one goes on with it. All of them are one
 * profile: see joined.h.
 */
#undef _FILE_OFFSET_BITS /* fopen is to be fopen here, and not the other name of fopen64 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <signal.h> /* before Python.h, which defines it again */

#include <Python.h>

/* pyprof.h is to see the signals' actions as they are, the program as they would be without us. */
static int real_sigaction(int number, const struct sigaction *action, struct sigaction *old);
#define sigaction(number, action, old) real_sigaction(number, action, old)
#define PYPROF_API extern __attribute__((visibility("default")))
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "../pyprof.h"
#undef sigaction

#define EXPORTS_STATIC
#define EXPORTS_IMPLEMENTATION
#include "exports.h"

#define PYPROF_MODULE_IMPLEMENTATION
#include "pyprof_module.h"

#include "binding.h"
#include "ends.h"
#include "handing.h"
#include "heap_left.h"
#include "joined.h"
#include "recording.h"
#include "saving.h"
#include "wishes.h"

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

static const pyprof_allocator *own_memory(void) {
    static const pyprof_allocator mapped = {map_memory, unmap_memory, NULL};
    return &mapped;
}

/* Why it cannot begin or go on is told once, by refuse or at the end, and what was lost by the writer, from the figures. */
static void on_log(pyprof_log_level level, const char *message, void *unused) {
    (void)unused;
    if (!is_for_writer()) {
        if (asked.is_verbose) {
            say("%s", message);
        }
        return;
    }
    if (run.between || (run.state == OFF && level == PYPROF_LOG_ERROR) ||
        (run.cause != HANDOVER_NOT_YET && level == PYPROF_LOG_WARNING)) {
        return;
    }
    (void)tell(HANDOVER_LOG, (uint32_t)level, message, strlen(message));
}

/* The memory is what is left by those before, 1 MiB at least. */
static pyprof_result begin_part(void) {
    if (!run.settings.is_timed) {
        (void)clock_gettime(CLOCK_MONOTONIC, &run.begun);
        return PYPROF_OK;
    }
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
    if (!run.settings.is_timed && wants_heap()) { /* which is not interrupted */
        run.seconds += seconds_since(&run.begun);
        run.was_on = true;
        return PYPROF_OK;
    }
    run.was_on = pyprof_is_active();
    if (!run.was_on) { /* pyprof-ctl has ended it, or it was to begin later */
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

static bool resume_part(void) {
    return !run.was_on || begin_part() == PYPROF_OK;
}

/* All that was recorded goes to the writer or into its file, as a draft or for good. Whether the writer has it. */
static bool deliver(unsigned long long cause, pyprof_result result, handover_kind kind) {
    heap_taken taken;
    bool is_delivered = true;
    memset(&taken, 0, sizeof taken);
    if (wants_heap()) {
        taken = take_heap();
    }
    if (is_for_writer()) {
        handover_end end = describe_end(cause, result, taken.profile);
        is_delivered = hand_over(&end, wants_heap() ? &taken : NULL, kind);
    } else {
        if (run.wished.output[0] != '\0' && run.recorded != NULL) {
            save_profile(run.recorded, run.wished.format, run.wished.output);
        }
        if (run.wished.heap_output[0] != '\0' && taken.profile != NULL) {
            save_profile(taken.profile, run.wished.heap_format, run.wished.heap_output);
        } else if (run.wished.heap_output[0] != '\0') {
            say("cannot write %s: %s", run.wished.heap_output, taken.why);
        }
    }
    pyprof_free(taken.profile);
    return is_delivered;
}

static void finish(void) {
    run.failed = !deliver(run.cause, end_part(), HANDOVER_DONE);
    leave_heap();
    leave_writer();
    if (run.wished.is_listening && is_ending()) {
        (void)pyprof_unlisten();
    }
    pyprof_free(run.recorded);
    run.recorded = NULL;
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
    heap.is_lost = heap.is_lost || is_within_heap();
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
    if (!resume_part()) {
        break_off(pyprof_last_error());
        return;
    }
    (void)deliver((unsigned long long)HANDOVER_LIMIT << 32, result, HANDOVER_DRAFT);
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
        send_what_was_put_off();
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
    if (!resume_part()) {
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
    if (is_for_writer() || !run.is_child) { /* else it was forked for this: subprocess with preexec_fn, say */
        (void)deliver(run.cause, result, HANDOVER_DRAFT);
    }
    enter(INTERRUPTED);
    wait_to_go_on();
    if (is_for_writer()) {
        (void)tell(HANDOVER_GOES_ON, 0, NULL, 0);
    }
    go_on();
}

static void *supervise(void *unused) {
    (void)unused;
    (void)pthread_setname_np(pthread_self(), is_for_writer() ? "pyprof-run" : "pyprof-save");
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
    return text != NULL && sscanf(text, HANDOVER_READ, to->socket, &to->preload_length, &to->target, &to->pid,
                                  &to->interval_us, &to->capture, &to->signal_number, &to->depth, &to->memory,
                                  &to->duration, &to->follow, &to->is_timed, &to->heap_bytes) == HANDOVER_FIELDS;
}

/* A python does not run without being recorded. A host goes on as it is, and so does a child, whose user may not have asked
   for it: it does not notice. */
static void refuse(const char *why) {
    bool is_child = run.settings.follow == HANDOVER_FOLLOW_CHILD;
    if (!is_for_writer()) {
        explain("%s", why);
        return;
    }
    bool is_told = tell(HANDOVER_REFUSED, 0, why, strlen(why));
    if (is_told) {
        (void)ask_whether_written();
    } else if (!is_child) {
        (void)dprintf(STDERR_FILENO, "pyprof-run: cannot record: %s\n", why);
    }
    if (!is_child && run.settings.target == HANDOVER_TO_PYTHON) {
        (void)syscall(SYS_exit_group, EXIT_FAILURE);
    }
    leave_writer();
}

static bool watch_forks(void) {
    static bool is_watching;
    is_watching = is_watching || pthread_atfork(NULL, count_fork, go_on_in_child) == 0;
    return is_watching;
}

/* The recording comes first: it looks for a free signal before we take those that end the process. */
static bool begin(void) {
    run.pid = getpid();
    pyprof__process.stays_loaded = true; /* it was preloaded */
    bool is_begun = run.wished.is_later || begin_part() == PYPROF_OK;
    if (is_begun && !run.wished.is_later && wants_heap() && begin_heap(*own_memory()) != PYPROF_OK) {
        is_begun = false;
        pyprof_stop(NULL);
    }
    if (!is_begun) {
        refuse(pyprof_last_error());
        return false;
    }
    if (!watch_forks() || !start_supervisor()) {
        (void)end_part();
        refuse("no room for a fork handler or a thread");
        return false;
    }
    run.state = RECORDING;
    (void)give_signal_stack();
    take_signals();
    return true;
}

/* A child has no file of its own where one is named without %p. */
static void leave_parents_files(wishes *to) {
    if (!to->is_for_children) {
        to->output[0] = '\0';
    }
    if (!to->is_heap_for_children) {
        leave_heap();
        to->heap_output[0] = '\0';
        to->heap_bytes = 0;
    }
}

/* As the environment has it. Whether anything is recorded. */
static bool begin_as_wished(void) {
    if (!read_wishes(&run.wished)) {
        return false;
    }
    if (run.is_child) {
        leave_parents_files(&run.wished);
    }
    run.settings.interval_us = run.wished.interval_us;
    run.settings.heap_bytes = run.wished.heap_bytes;
    run.settings.is_timed = run.wished.output[0] != '\0' || run.wished.heap_output[0] == '\0';
    const char *socket = run.wished.socket[0] != '\0' ? run.wished.socket : NULL;
    run.wished.is_listening = run.wished.is_listening && pyprof_listen(socket) == PYPROF_OK;
    if (is_switched_on(asked.listen) && !run.wished.is_listening && !run.is_child) {
        say("nothing is recorded: PYPROF_LISTEN=%s: %s", asked.listen, pyprof_last_error());
        return false; /* a child goes on: the place may be its parent's */
    }
    bool has_output = run.wished.output[0] != '\0' || run.wished.heap_output[0] != '\0';
    return (!run.wished.is_later || has_output) && begin();
}

/* In a forked child: all that was the parent's is forgotten, and a recording of its own begins, for the writer or into a file
   of its own. Whether it has begun. */
static bool record_child(void) {
    if (!run.between) { /* else it may be half of what it is to be */
        pyprof_free(run.recorded);
    }
    run.recorded = NULL;
    memset(&heap, 0, sizeof heap);
    memset(&run.stats, 0, sizeof run.stats);
    run.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    run.state = OFF;
    run.cause = HANDOVER_NOT_YET;
    run.supervisor_tid = run.sampler_tid = 0;
    run.goes_on = run.between = run.failed = false;
    run.is_child = true;
    run.forks = following.others = 0;
    run.ending_signals = 0;
    run.first_ending_signal = 0;
    run.seconds = 0;
    drafts.limit = 0;
    if (!is_for_writer()) {
        return begin_as_wished();
    }
    become_child();
    return tell_who_we_are(true) && begin();
}

/* For the writer. A process that is not the program is recorded if children are. */
static void begin_for_writer(void) {
    if (getpid() != run.settings.pid) {
        become_child();
    }
    if (tell_who_we_are(false)) {
        (void)begin();
    }
}

static void begin_in_host(const python_here *python) {
    int length = (int)strcspn(python->version, " ");
    if (is_for_writer() && getpid() != run.settings.pid && !is_following()) {
        return; /* a child: the writer hears the program only */
    }
    if (!is_our_version(python)) {
        if (is_for_writer()) {
            (void)tell(HANDOVER_OTHER_PYTHON, 0, python->version, (size_t)length);
            leave_writer();
        }
        explain("its CPython is %.*s, and no library for that is preloaded", length, python->version);
        return;
    }
    const char *lacking = bind_names(python);
    if (lacking != NULL) {
        explain("its CPython has no %s", lacking);
    } else if (is_for_writer()) {
        begin_for_writer();
    } else {
        (void)begin_as_wished();
    }
}

/* Code of CPython's, or of anything else, has called. Of several libraries that are preloaded, the first hears of it, and
   asks the next one if it is not for this CPython. */
EXPORTED void pyprof_door(const void *code) {
    int saved = errno;
    unsigned waiting = WAITING;
    python_here python;
    if (find_python(code, &python) && atomic_compare_exchange_strong(&run.state, &waiting, OFF)) {
        void *found = is_our_version(&python) ? NULL : dlsym(RTLD_NEXT, "pyprof_door");
        __typeof__(&pyprof_door) next;
        memcpy(&next, &found, sizeof found);
        if (next != NULL) {
            next(code);
        } else {
            begin_in_host(&python);
        }
    }
    errno = saved;
}

/* Looked for in the order in which libraries were loaded. */
typedef struct load_order {
    const void *own;
    const void *libcs;
    bool is_first;
} load_order;

static int find_first(struct dl_phdr_info *info, size_t unused, void *user) {
    (void)unused;
    load_order *order = (load_order *)user;
    order->is_first = (uintptr_t)order->own == info->dlpi_addr;
    return order->is_first || (uintptr_t)order->libcs == info->dlpi_addr;
}

/* Whether it was loaded with the program, so that the functions of ends.h are called for libc's: by LD_PRELOAD, and not by
   dlopen, an import or attach. */
static bool comes_before_libc(void) {
    void *exits = dlsym(RTLD_DEFAULT, "on_exit");
    load_order order = {base_of(&run), base_of(exits), false};
    (void)dl_iterate_phdr(find_first, &order);
    return order.is_first;
}

__attribute__((constructor)) static void on_load(void) {
    if (run.state != OFF || !comes_before_libc()) {
        return;
    }
    (void)libc();
    (void)snprintf(asked.program, sizeof asked.program, "%s", program_invocation_short_name);
    if (!read_settings(&run.settings)) {
        run.settings.socket[0] = '\0';
        run.state = take_wishes() ? WAITING : OFF;
        return;
    }
    if (is_following()) {
        prepare_following(getenv("LD_PRELOAD"));
    }
    if (run.settings.target != HANDOVER_TO_PYTHON) {
        run.state = WAITING;
        return;
    }
    clean_environment(run.settings.preload_length);
    run.pid = getpid();
    if (!tell_who_we_are(false)) {
        refuse("the process that writes the profile is not to be reached");
    } else {
        (void)begin();
    }
}

static main_function *program_main;

static int run_main(int argc, char **argv, char **variables) {
    if (!register_exit()) {
        refuse("no room for an exit handler");
    }
    return program_main(argc, argv, variables);
}

/* In what calls main, our exit handler is registered: in the constructor it would run after the destructors. And only here has
   every library that is preloaded read its settings. */
EXPORTED int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                               void (*loader_fini)(void), void *stack_end) {
    program_main = main;
    bool is_host = run.settings.target == HANDOVER_TO_HOST || is_following() ||
                   (run.settings.target == HANDOVER_TO_SCRIPT && dlsym(RTLD_DEFAULT, "Py_GetVersion") != NULL);
    if (is_host && getenv(HANDOVER_VARIABLE) != NULL) {
        clean_environment(run.settings.preload_length);
    }
    return libc()->__libc_start_main(run.state == OFF ? main : run_main, argc, argv, init, fini, loader_fini,
                                     stack_end);
}
