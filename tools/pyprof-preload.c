/* pyprof-preload: what pyprof-run puts into the python that it runs (LD_PRELOAD), to record it.
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
 * the process is in. See handover.h.
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

#include "handover.h"
#include "joined.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

enum {
    SIGNAL_STACK = 64 * 1024
};

enum {
    OFF,         /* nothing was begun: every function here is libc's */
    RECORDING,   /* until all has been handed over */
    INTERRUPTED, /* nothing is recorded, and it may go on */
    DONE
};

static struct {
    handover_settings settings;
    pid_t pid; /* a forked child has our memory, but no recording */
    atomic_uint state;
    atomic_ullong cause; /* a handover_cause and its value: who comes first sets it */
    char text[256];      /* what replaces the program, or why it is not recorded any more */
    sem_t wake;          /* the supervisor's */
    atomic_int supervisor_tid;
    atomic_int sampler_tid;
    atomic_bool goes_on; /* after an interruption */
    atomic_bool between; /* one recording ends, or the next begins */
    atomic_uint forks;
    atomic_int ending_signals; /* that came a second and more after the first */
    atomic_ullong first_ending_signal;
    struct timespec begun;    /* the recording that runs, and what those before it have left: */
    pyprof_profile *recorded; /* all that they recorded; NULL = there were none, or nothing */
    pyprof_stats stats;
    double seconds;
    bool failed;
    pthread_mutex_t lock; /* guards what follows */
    int descriptor;       /* to the writer */
    dev_t device;
    ino_t inode;
} run = {.lock = PTHREAD_MUTEX_INITIALIZER, .descriptor = -1};

/* A child made by vfork shares our memory, and has another id. */
static bool is_recording(void) {
    return run.state == RECORDING && getpid() == run.pid;
}

static uint32_t cause_of_end(void) {
    return (uint32_t)(run.cause >> 32);
}

/* libc's own function of a name that is defined here, too, as a variable libc_NAME. */
#define LIBC(name)                                                                                                     \
    __typeof__(&name) libc_##name;                                                                                     \
    do {                                                                                                               \
        void *found = dlsym(RTLD_NEXT, #name);                                                                         \
        memcpy(&libc_##name, &found, sizeof found);                                                                    \
    } while (0)

/* ---- the way to the writer ------------------------------------------------------------------------------ */

/* Where programs seldom have descriptors of their own, and where they do not look for theirs. */
static int move_up(int descriptor) {
    int high = fcntl(descriptor, F_DUPFD_CLOEXEC, 900);
    if (high < 0) {
        return descriptor;
    }
    (void)close(descriptor);
    return high;
}

static int connect_to_writer(void) {
    struct sockaddr_un address;
    socklen_t length = handover_address(&address, run.settings.socket);
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor >= 0 && connect(descriptor, (struct sockaddr *)&address, length) != 0) {
        (void)close(descriptor);
        return -1;
    }
    return descriptor < 0 ? -1 : move_up(descriptor);
}

/* The program may close all descriptors, and open files of its own under their numbers. */
static bool is_still_ours(void) {
    struct stat status;
    return run.descriptor >= 0 && fstat(run.descriptor, &status) == 0 && status.st_dev == run.device &&
           status.st_ino == run.inode;
}

/* Whether the process ends, and is not replaced or left behind by a daemon. */
static bool is_ending(void) {
    return cause_of_end() == HANDOVER_EXIT || cause_of_end() == HANDOVER_SIGNAL;
}

/* The connection, made anew if it is gone; -1 = none. With the lock held. */
static int writer(void) {
    struct stat status;
    if (!is_still_ours()) {
        run.descriptor = connect_to_writer();
        if (run.descriptor < 0 && errno == EMFILE && is_ending()) {
            (void)close(STDIN_FILENO); /* the program took all that it may have, and needs none any more */
            run.descriptor = connect_to_writer();
        }
        if (run.descriptor >= 0 && fstat(run.descriptor, &status) == 0) {
            run.device = status.st_dev;
            run.inode = status.st_ino;
        }
    }
    return run.descriptor;
}

static bool tell(handover_kind kind, uint32_t detail, const void *data, size_t size) {
    (void)pthread_mutex_lock(&run.lock);
    bool told = handover_send_frame(writer(), kind, detail, data, size);
    (void)pthread_mutex_unlock(&run.lock);
    return told;
}

static bool ask_whether_written(void) {
    (void)pthread_mutex_lock(&run.lock);
    bool written = handover_answer(run.descriptor);
    (void)pthread_mutex_unlock(&run.lock);
    return written;
}

static void leave_writer(void) {
    (void)pthread_mutex_lock(&run.lock);
    if (is_still_ours()) {
        (void)close(run.descriptor);
    }
    run.descriptor = -1;
    (void)pthread_mutex_unlock(&run.lock);
}

/* ---- handing over --------------------------------------------------------------------------------------- */

/* Nodes or spans on their way to the writer, many in one message. */
typedef struct pieces_sent {
    handover_kind kind;
    size_t size;
    bool failed;
    char data[8192];
} pieces_sent;

static void send_pieces(pieces_sent *pieces) {
    pieces->failed = pieces->failed || !tell(pieces->kind, 0, pieces->data, pieces->size);
    pieces->size = 0;
}

static void put_bytes(pieces_sent *pieces, handover_kind kind, const void *data, size_t size) {
    if (pieces->kind != kind) {
        send_pieces(pieces);
        pieces->kind = kind;
    }
    for (size_t at = 0, length; at < size; at += length) {
        length = size - at < sizeof pieces->data - pieces->size ? size - at : sizeof pieces->data - pieces->size;
        memcpy(pieces->data + pieces->size, (const char *)data + at, length);
        pieces->size += length;
        if (pieces->size == sizeof pieces->data) {
            send_pieces(pieces);
        }
    }
}

static bool send_node(void *user, const pyprof_node *node) {
    pieces_sent *pieces = user;
    const handover_node head = {*node, (uint32_t)node->name.size, (uint32_t)node->path.size};
    put_bytes(pieces, HANDOVER_NODES, &head, sizeof head);
    put_bytes(pieces, HANDOVER_NODES, node->name.data, node->name.size);
    put_bytes(pieces, HANDOVER_NODES, node->path.data, node->path.size);
    return !pieces->failed;
}

static bool send_span(void *user, const pyprof_span *span) {
    pieces_sent *pieces = user;
    put_bytes(pieces, HANDOVER_SPANS, span, sizeof *span);
    return !pieces->failed;
}

/* All of it: the writer makes it anew, in whatever form the user wants. */
static bool send_profile(const pyprof_profile *profile) {
    static pieces_sent pieces; /* the stack may be a small one, for signals; and it is done once at a time */
    pieces.kind = HANDOVER_NODES;
    pieces.size = 0;
    pieces.failed = false;
    pyprof_output output = {.threads_apart = true};
    pyprof_visitor visitor = {send_node, send_span, &pieces};
    bool visited = pyprof_visit(profile, &output, &visitor) == PYPROF_OK;
    send_pieces(&pieces);
    return visited && !pieces.failed;
}

/* The beginning of the line of collapsed text that is being read. */
typedef struct beginning {
    char line[1024];
    size_t length;
    bool found;
} beginning;

/* Whether a stack is the program's: not the interpreter's own start, which begins in its frozen modules (they import
   site, too) or looks for an encoding, not the search for a module to run, which ends where _run_code calls it, and
   not the report of what went wrong (3.13). What has no name ("[unresolved]") may be any of these. */
static bool is_of_program(const char *stack) {
    static const char *const others[] = {";search_function (", ";normalize_encoding (", ";_print_exception_bltin (",
                                         ";["};
    const char *root = strchr(stack, ';');
    if (root == NULL) {
        return false;
    }
    if (strncmp(root, ";_run_module_as_main (", 22) == 0) {
        return strstr(root, ";_run_code (") != NULL;
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strncmp(root, others[i], strlen(others[i])) == 0) {
            return false;
        }
    }
    const char *frozen = strstr(root, " (<frozen ");
    return frozen == NULL || frozen > root + 1 + strcspn(root + 1, ";");
}

static bool look_for_program(void *user, const void *data, size_t size) {
    beginning *at = (beginning *)user;
    const char *text = (const char *)data;
    for (size_t i = 0; i < size && !at->found; i++) {
        if (text[i] == '\n') {
            at->line[at->length] = '\0';
            at->found = is_of_program(at->line);
            at->length = 0;
        } else if (at->length < sizeof at->line - 1) {
            at->line[at->length++] = text[i];
        }
    }
    return true;
}

/* Whether anything of the program itself was sampled. */
static bool program_began(const pyprof_profile *profile) {
    beginning at = {.found = false};
    pyprof_output output = {.detail = PYPROF_DETAIL_FUNCTION, .include_idle = true};
    return pyprof_write(profile, &output, look_for_program, &at) != PYPROF_OK || at.found;
}

static double seconds_since(const struct timespec *begun) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begun->tv_sec) + (double)(now.tv_nsec - begun->tv_nsec) / 1e9;
}

static handover_end describe_end(unsigned long long cause, pyprof_result result) {
    handover_end end;
    memset(&end, 0, sizeof end);
    end.cause = (uint32_t)(cause >> 32);
    end.value = (int32_t)(uint32_t)cause;
    end.forks = run.forks;
    end.failed = result != PYPROF_OK;
    end.duration_ns = (uint64_t)(run.seconds * 1e9);
    if (run.recorded != NULL) {
        pyprof_facts facts;
        (void)pyprof_get_facts(run.recorded, &facts);
        end.start_ns = facts.start_ns;
        end.duration_ns = facts.duration_ns;
        end.interval_us = facts.interval_us;
        (void)snprintf(end.python, sizeof end.python, "%s", facts.python.data);
        (void)snprintf(end.process, sizeof end.process, "%s", facts.process.data);
        (void)snprintf(end.program, sizeof end.program, "%s",
                       facts.program.size < sizeof end.program ? facts.program.data : "");
    }
    end.stats = run.stats;
    (void)snprintf(end.text, sizeof end.text, "%s", result != PYPROF_OK ? pyprof_result_string(result) : run.text);
    end.never_began =
        run.recorded != NULL && end.cause == HANDOVER_EXIT && end.value != 0 && !program_began(run.recorded);
    return end;
}

/* All that was recorded, as a draft or as what is written. */
static bool hand_over(const handover_end *end, handover_kind kind) {
    bool sent = tell(HANDOVER_END, 0, end, sizeof *end) && (run.recorded == NULL || send_profile(run.recorded)) &&
                tell(kind, 0, NULL, 0);
    if (!sent && end->cause != HANDOVER_LIMIT) {
        static const char lost[] = "pyprof-run: the profile could not be handed over to be written: it is lost\n";
        (void)!write(STDERR_FILENO, lost, sizeof lost - 1); /* nobody else is left to say it */
    }
    return sent && ask_whether_written();
}

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

static void take_signals(void);
static void restore_signals(void);

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

/* Whether the process exits by itself. */
static bool is_leaving(void) {
    return cause_of_end() == HANDOVER_EXIT && getpid() == run.pid;
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
    deadline.tv_nsec += (long)((seconds < 0.5 ? seconds : 0.5) * 1e9);
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
        if (duration <= 0) {
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

/* Runs last of the program's exit handlers, and before the destructors of libraries: see run_main. Only here can what
   the process answers still be changed. */
static void at_exit(int status, void *unused) {
    (void)unused;
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

/* Looked up once: dlsym is nothing for a signal handler. */
static int real_sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    static __typeof__(&sigaction) known;
    if (known == NULL) {
        LIBC(sigaction);
        known = libc_sigaction;
    }
    return known(number, action, old);
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
    return set_handler(number, handler, SA_RESTART);
}

EXPORTED sighandler_t bsd_signal(int number, sighandler_t handler) {
    return set_handler(number, handler, SA_RESTART);
}

EXPORTED sighandler_t sysv_signal(int number, sighandler_t handler) {
    return set_handler(number, handler, (int)(SA_RESETHAND | (unsigned)SA_NODEFER));
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
    if (syscall(SYS_sigaltstack, next, &before) != 0) {
        return -1;
    }
    memset(&ours, 0, sizeof ours);
    ours.ss_sp = own_stack;
    ours.ss_size = SIGNAL_STACK;
    if (own_stack != NULL && next != NULL && (next->ss_flags & SS_DISABLE)) {
        (void)syscall(SYS_sigaltstack, &ours, NULL);
    }
    if (own_stack != NULL && before.ss_sp == own_stack) {
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
    LIBC(pthread_create);
    new_thread *thread = is_recording() ? (new_thread *)malloc(sizeof *thread) : NULL;
    if (thread == NULL) {
        return libc_pthread_create(made, attributes, start, argument);
    }
    *thread = (new_thread){start, argument};
    int result = libc_pthread_create(made, attributes, run_thread, thread);
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
    for (;;) {
        (void)syscall(SYS_exit_group, status);
    }
}

EXPORTED void _Exit(int status) {
    _exit(status);
}

EXPORTED void quick_exit(int status) {
    LIBC(quick_exit);
    if (is_recording()) {
        end_recording(HANDOVER_EXIT, status);
    }
    libc_quick_exit(status);
    _exit(status);
}

EXPORTED void abort(void) {
    LIBC(abort);
    if (is_recording()) {
        end_recording(HANDOVER_SIGNAL, SIGABRT);
    }
    libc_abort();
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
    return (int)syscall(SYS_kill, pid, number);
}

EXPORTED int killpg(pid_t group, int number) {
    return kill(-group, number);
}

EXPORTED int raise(int number) {
    before_signal(number, true);
    return (int)syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), number);
}

EXPORTED int pthread_kill(pthread_t thread, int number) {
    LIBC(pthread_kill);
    before_signal(number, true);
    return libc_pthread_kill(thread, number);
}

/* libc's own leaves by a way that cannot be seen from here. */
EXPORTED int daemon(int keep_directory, int keep_files) {
    LIBC(daemon);
    if (is_recording()) {
        end_recording(HANDOVER_DAEMON, 0);
    }
    return libc_daemon(keep_directory, keep_files);
}

/* Whether it is worth a try to execute it. */
static bool may_be_executed(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

/* A program that is about to be replaced. Whether the recording was interrupted for that: if it then is not replaced,
   after_exec follows. */
static bool before_exec(const char *path) {
    if (path == NULL || !is_recording() || !may_be_executed(path)) {
        return false;
    }
    (void)snprintf(run.text, sizeof run.text, "%.*s", (int)sizeof run.text - 1, path);
    return end_recording(HANDOVER_EXEC, 0);
}

static bool before_exec_in_path(const char *name) {
    const char *place = getenv("PATH");
    char path[PATH_MAX];
    bool interrupted = false;
    if (name == NULL || strchr(name, '/') != NULL) {
        return before_exec(name);
    }
    for (place = place != NULL ? place : "/bin:/usr/bin"; *place != '\0' && !interrupted && is_recording();) {
        size_t length = strcspn(place, ":");
        (void)snprintf(path, sizeof path, "%.*s/%s", (int)length, length > 0 ? place : ".", name);
        interrupted = before_exec(path);
        place += length;
        place += *place == ':';
    }
    return interrupted;
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
    bool interrupted = before_exec(path);
    return after_exec(interrupted, (int)syscall(SYS_execve, path, arguments, variables));
}

EXPORTED int execv(const char *path, char *const arguments[]) {
    return execve(path, arguments, environ);
}

EXPORTED int execvpe(const char *name, char *const arguments[], char *const variables[]) {
    LIBC(execvpe);
    bool interrupted = before_exec_in_path(name);
    return after_exec(interrupted, libc_execvpe(name, arguments, variables));
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
    LIBC(fexecve);
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    bool interrupted = before_exec(path);
    return after_exec(interrupted, libc_fexecve(descriptor, arguments, variables));
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
    LIBC(unshare);
    sigset_t before;
    bool is_alone = (flags & (CLONE_NEWUSER | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD)) != 0 && leave_alone(&before);
    return come_back(is_alone, &before, libc_unshare(flags));
}

/* What kinds of namespaces it is about: setns(2). */
static int kinds_of(int descriptor, int kinds) {
    int saved = errno;
    int kind = kinds != 0 ? kinds : ioctl(descriptor, NS_GET_NSTYPE);
    errno = saved;
    return kind > 0 ? kind : 0;
}

EXPORTED int setns(int descriptor, int kinds) {
    LIBC(setns);
    sigset_t before;
    int entered = kinds_of(descriptor, kinds);
    bool is_alone = (entered & (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWTIME)) != 0 && leave_alone(&before);
    return come_back(is_alone, &before, libc_setns(descriptor, kinds));
}

/* ---- children ------------------------------------------------------------------------------------------- */

static void count_fork(void) {
    if (run.state == RECORDING) {
        atomic_fetch_add(&run.forks, 1);
    }
}

static void forget_in_child(void) {
    if (run.state == RECORDING || run.state == INTERRUPTED) {
        restore_signals();
        if (is_still_ours()) {
            (void)close(run.descriptor);
        }
        run.descriptor = -1;
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
    count_threads_less(text, sizeof text, (pyprof_is_active() ? 1 : 0) + (is_supervised ? 1 : 0));
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
    LIBC(fopen);
    return edit_if_stat(libc_fopen(path, mode), path);
}

#ifndef fopen64 /* with musl it is fopen by another name */
EXPORTED FILE *fopen64(const char *path, const char *mode) {
    LIBC(fopen64);
    return edit_if_stat(libc_fopen64(path, mode), path);
}
#endif

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
    return text != NULL && sscanf(text, HANDOVER_READ, to->socket, &to->preload_length, &to->interval_us, &to->capture,
                                  &to->signal_number, &to->depth, &to->memory, &to->duration) == HANDOVER_FIELDS;
}

static void refuse(const char *why) {
    if (!tell(HANDOVER_REFUSED, 0, why, strlen(why))) {
        (void)dprintf(STDERR_FILENO, "pyprof-run: cannot record: %s\n", why);
    }
    (void)ask_whether_written();
    (void)syscall(SYS_exit_group, EXIT_FAILURE);
}

/* The recording comes first: it looks for a free signal before we take those that end the process. */
static void begin(void) {
    pyprof_result result = begin_part();
    if (result != PYPROF_OK) {
        refuse(pyprof_result_string(result));
    }
    if (pthread_atfork(NULL, count_fork, forget_in_child) != 0 || !start_supervisor()) {
        refuse("no room for a fork handler or a thread");
    }
    run.state = RECORDING;
    (void)give_signal_stack();
    take_signals();
}

__attribute__((constructor)) static void on_load(void) {
    if (run.state != OFF || !read_settings(&run.settings)) {
        return;
    }
    clean_environment(run.settings.preload_length);
    run.pid = getpid();
    if (!tell(HANDOVER_HELLO, 0, NULL, 0)) {
        refuse("the process that writes the profile is not to be reached");
    }
    begin();
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
