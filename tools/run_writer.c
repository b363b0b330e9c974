/* run_writer.c: the process that writes what was recorded.
 *
 * It is left behind when pyprof-run becomes the program: a process of its own session, no child of the program, with
 * the directory, the rights, the root and the limits that the user started with. It hears the library over a
 * socket (handover.h), draws and writes the outputs, says in one line what became of them, and ends with the
 * program. If the program ends without a word, it says so: after a SIGKILL nobody else can. What it then has is the last
 * draft, if there was one.
 *
 * With --subprocesses it hears each process of the program: of those that end, what they recorded is added up at once. The
 * end of the program is the end of the recording: children that live on are asked for what they have by then, so that no
 * daemon keeps a file from being written. A child that has not answered within a few seconds is named, and left out.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "pyprof-run.h"

#include <errno.h>
#include <fcntl.h>

#include "handover.h"
#include "run_profile.h"

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MAX_CONNECTIONS = 4, /* the library has one, and one more where the program closed the first */
    MOST_NAMED = 3,      /* children of which one line each tells that they are lost */
    GRACE_MS = 3000,     /* what children that outlive the program have to answer in */
    MOST_MEMORY = 8      /* times --memory: what is kept of children that have ended */
};

/* The program, or a child of it. Who becomes another program by exec is another one from then on. */
typedef struct process {
    pid_t pid;
    int descriptor; /* readable when it has ended: pidfd_open(2); -1 = this kernel has none */
    char *name;     /* its program's; NULL = it has not said a word */
    bool is_fork;   /* it began as a copy of another one */
    bool is_asked;  /* HANDOVER_STOP was sent */
    recorded coming;
    recorded given;  /* all of it has come */
    bool has_draft;  /* that is a draft */
    int awaits_exec; /* the connection that closes when the process is replaced; -1 = none */
} process;

typedef struct connection {
    int descriptor;
    process *from;
    bytes received;
} connection;

static struct {
    const run_options *opt;
    const char *name;
    process program;
    int listening;
    char socket[64];
    connection *connections;
    int connection_count, most_connections;
    struct pollfd *polled; /* room for all that is waited for */
    process **children;    /* those that live */
    int child_count, child_room;
    family ended;
    unsigned lost;         /* children of which nothing came */
    unsigned others;       /* that ran other programs */
    char other[64];        /* the first of those */
    unsigned strangers;    /* that had another user's rights */
    unsigned recorded;     /* children of which all is there */
    unsigned left;         /* of these, such that went on */
    char other_python[32]; /* one began in the program that the libraries are not for */
    bool closed;           /* all was said */
    bool is_over;          /* the program's recording is: only its children are waited for */
    bool is_dead;          /* it has ended without a word */
    int waiting;           /* the connection on which the program does; -1 = none */
    struct timespec over_since;
    bool written[MAX_OUTPUTS];
    int written_count;
} writer = {.program = {.descriptor = -1, .awaits_exec = -1}, .waiting = -1};

static recorded *given(void) {
    return &writer.program.given;
}

/* ---- files ---------------------------------------------------------------------------------------------- */

static const char *plural(unsigned long long count) {
    return count == 1 ? "" : "s";
}

static bool write_format(const output_file *file, FILE *out) {
    return write_profile(given(), writer.opt, writer.name, file, out);
}

static bool program_has_ended(const struct pollfd *of_program) {
    if (of_program->fd >= 0) {
        return of_program->revents != 0;
    }
    return kill(writer.program.pid, 0) != 0 && errno == ESRCH;
}

/* A pipe is waited for until somebody reads it, as long as the program is there; answers a descriptor or -1. */
static int open_special(const output_file *file, bool is_pipe) {
    struct pollfd of_program = {writer.program.descriptor, POLLIN, 0};
    for (int round = 0;; round++) {
        int descriptor = open(file->path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
        if (descriptor >= 0) {
            (void)fcntl(descriptor, F_SETFL, 0);
        }
        if (descriptor >= 0 || errno != ENXIO || !is_pipe) {
            return descriptor;
        }
        (void)poll(&of_program, 1, 50);
        if (program_has_ended(&of_program)) {
            errno = EPIPE;
            return -1;
        }
        if (round == 20 && !writer.opt->quiet) {
            complain("waiting for somebody to read %s", file->shown);
        }
    }
}

/* What has no name of its own (a pipe, a device) is written into. */
static bool write_into(const output_file *file, bool is_pipe) {
    int descriptor = file->descriptor >= 0 ? fcntl(file->descriptor, F_DUPFD_CLOEXEC, 0) : open_special(file, is_pipe);
    FILE *out = descriptor >= 0 ? fdopen(descriptor, "w") : NULL;
    bool good = out != NULL && write_format(file, out);
    return out != NULL && fclose(out) == 0 && good;
}

/* Written beside, then renamed: whole, or as it was. A link stays, and leads to the new file. */
static bool write_beside(const output_file *file, const char *target, mode_t mode) {
    char *part = text_of("%s.XXXXXX", target);
    int descriptor = mkstemp(part);
    FILE *out = descriptor >= 0 ? fdopen(descriptor, "w") : NULL;
    bool good = out != NULL && write_format(file, out) && fchmod(descriptor, mode) == 0;
    int reason = errno;
    if (out != NULL && fclose(out) != 0 && good) {
        good = false;
        reason = errno;
    }
    if (good && rename(part, target) != 0) {
        good = false;
        reason = errno;
    }
    if (!good && descriptor >= 0) {
        (void)unlink(part);
    }
    free(part);
    errno = reason;
    return good;
}

static mode_t mode_of_new_file(void) {
    mode_t mask = umask(0);
    (void)umask(mask);
    return 0666 & ~mask;
}

static bool write_output(const output_file *file) {
    struct stat status;
    bool exists = stat(file->path, &status) == 0;
    errno = 0;
    if (file->descriptor >= 0 || (exists && !S_ISREG(status.st_mode))) {
        return write_into(file, exists && S_ISFIFO(status.st_mode));
    }
    char *target = realpath(file->path, NULL);
    bool good =
        write_beside(file, target != NULL ? target : file->path, exists ? status.st_mode & 0777 : mode_of_new_file());
    free(target);
    return good;
}

/* ---- what is said --------------------------------------------------------------------------------------- */

static void warn(bool when, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void warn(bool when, const char *format, ...) {
    if (!when || writer.opt->quiet) {
        return;
    }
    va_list values;
    char *text = NULL;
    va_start(values, format);
    if (vasprintf(&text, format, values) >= 0) {
        complain("warning: %s", text);
        free(text);
    }
    va_end(values);
}

static double percent(uint64_t part, uint64_t of) {
    return of > 0 ? 100.0 * (double)part / (double)of : 0;
}

static const char *why_unsettled(const pyprof_stats *stats) {
    if (writer.opt->capture == PYPROF_CAPTURE_QUIET) {
        return "a running thread could not be read (--signal none)";
    }
    return stats->samples_unasked >= stats->samples_partial / 2
               ? "their thread could not be asked (it blocks the signal, or another took it: see --signal)"
               : "their thread changed while it was read (a busy machine)";
}

/* What the figures below do not show, if it is worth a line. */
static void warn_of_losses(const pyprof_stats *stats) {
    double late = percent(stats->ticks_missed, stats->ticks + stats->ticks_missed);
    double partial = percent(stats->samples_partial, stats->samples);
    double jit = percent(stats->samples_jit, stats->samples - stats->samples_idle);
    warn(late >= 10 && stats->ticks_missed >= 20,
         "the sampler came too late for %.0f %% of its samples (a busy machine, or too high a --rate): "
         "times add up, what is short may be missing",
         late);
    warn(partial >= 5, "%.0f %% of the samples show [unsettled] where %s: what is called there is not known", partial,
         why_unsettled(stats));
    warn(stats->truncated_depth > 0, "%llu sample%s of stacks that are deeper than --depth lack frames in the middle",
         (unsigned long long)stats->truncated_depth, plural(stats->truncated_depth));
    warn(stats->truncated_memory > 0, "%llu sample%s found no room: see --memory",
         (unsigned long long)stats->truncated_memory, plural(stats->truncated_memory));
    warn(has_doubtful_lines(given(), writer.opt) && jit >= 5,
         "%.0f %% of the samples that did not wait are of JIT code: their innermost line may be one before it "
         "(PYTHON_JIT=0 turns it off)",
         jit);
    warn(given()->spans_refused > 0, "the time line lacks %llu of its pieces, which came out of order: sums are right",
         (unsigned long long)given()->spans_refused);
    warn(stats->timeline_coarsened > 0, "the time line (speedscope) was full and lost resolution: see --memory");
}

/* Those of memory, or those of time. */
static char *list_outputs(bool is_heap) {
    char *list = text_of("%s", "");
    for (int i = 0; i < writer.opt->output_count; i++) {
        const output_file *file = &writer.opt->outputs[i];
        if (!writer.written[i] || file->is_printed || file->is_heap != is_heap) {
            continue;
        }
        char *longer = text_of("%s%s%s", list, *list != '\0' ? ", " : "; wrote ", file->shown);
        free(list);
        list = longer;
    }
    return list;
}

/* What became of the program, as far as it is not in the profile. */
static char *tell_what_followed(const handover_end *end) {
    switch (end->cause) {
    case HANDOVER_EXEC:
        return text_of("; the program was replaced by %s, which is not recorded", end->text);
    case HANDOVER_DAEMON:
        return text_of("; the program goes on as a daemon, which is not recorded");
    case HANDOVER_DURATION:
        return text_of("; the program goes on");
    case HANDOVER_BROKEN_OFF:
        return text_of("; the program goes on, and is not recorded any more: %s", end->text);
    case HANDOVER_LIMIT:
        return text_of(
            "; what came later is lost: the program was killed, most likely by its limit of CPU time (ulimit -t)");
    case HANDOVER_NOT_YET:
        return text_of(
            "; what came later is lost: the program ended in a way that lets nothing be written (SIGKILL, say)");
    default:
        return text_of("%s", "");
    }
}

static const char *es_were(unsigned count) {
    return count == 1 ? " was" : "es were";
}

/* Adds to a text, which is freed. */
static char *with(char *text, const char *more, unsigned count, const char *rest) {
    char *longer = count > 0 ? text_of("%s; %u%s%s%s", text, count, more, es_were(count), rest) : text;
    if (longer != text) {
        free(text);
    }
    return longer;
}

/* What became of the children. */
static char *tell_children(void) {
    char *text = text_of("%s", "");
    text = with(text, " forked child process", given()->end.forks, " not recorded");
    text = with(text, " child process", writer.recorded, " recorded, too");
    if (writer.left > 0) {
        char *longer = text_of("%s; %u of them went on after the program's end", text, writer.left);
        free(text);
        text = longer;
    }
    text = with(text, " child process", writer.ended.refused, " left out, as there was no room: see --memory");
    text = with(text, " child process", writer.lost, " not recorded");
    text = with(text, " child process", writer.strangers, " not recorded, as another user's");
    if (writer.others > 0) {
        char *longer = text_of("%s; %u child process%s %s%s, and not recorded", text, writer.others,
                               es_were(writer.others), writer.other, writer.others > 1 ? " and others" : "");
        free(text);
        text = longer;
    }
    return text;
}

/* What is not in the profile, after the figures. */
static char *tell_rest(void) {
    char *children = tell_children(), *followed = tell_what_followed(&given()->end);
    char *rest = text_of("%s%s", children, followed);
    free(followed);
    free(children);
    return rest;
}

/* What of memory the figures do not show. */
static void warn_of_lost_memory(const pyprof_heap_stats *stats) {
    char text[64];
    warn(stats->lost_memory > 0,
         "%llu sample%s of memory found no room, for %s, and are not shown as in use: see --memory",
         (unsigned long long)stats->lost_memory, plural(stats->lost_memory),
         tell_bytes(text, sizeof text, stats->lost_bytes));
    warn(stats->truncated_memory > 0, "%llu sample%s of memory are in [truncated], as there was no room: see --memory",
         (unsigned long long)stats->truncated_memory, plural(stats->truncated_memory));
    warn(stats->truncated_depth > 0,
         "%llu sample%s of memory, of stacks deeper than --depth, lack frames in the middle",
         (unsigned long long)stats->truncated_depth, plural(stats->truncated_depth));
    warn(stats->lost_unreadable > 0, "%llu sample%s of memory are in [unsettled], as the stack could not be read",
         (unsigned long long)stats->lost_unreadable, plural(stats->lost_unreadable));
}

/* "2.05 MiB in use, give or take 1.02 MiB, of 12.3 MiB allocated (24 samples, one in 512 KiB); wrote mem.svg" */
static void summarize_memory(const char *rest) {
    const pyprof_heap_stats *stats = &given()->heap.heap;
    char texts[4][64];
    const uint64_t figures[] = {stats->live_bytes, stats->live_bytes_error, stats->alloc_bytes, stats->sampling_bytes};
    for (int i = 0; i < 4; i++) {
        (void)tell_bytes(texts[i], sizeof texts[i], figures[i]);
    }
    if (given()->heap.failed) {
        complain("what is in use of memory could not be had: %s%s", given()->heap.text, rest);
        return;
    }
    warn_of_lost_memory(stats);
    warn(writer.opt->heap_native && !(stats->domains & PYPROF_HEAP_NATIVE),
         "memory that C code allocates is not in it, as the program's malloc is another one: one that is linked into "
         "it, or "
         "comes before ours in LD_PRELOAD");
    if (writer.opt->quiet) {
        return;
    }
    char *list = list_outputs(true);
    if (stats->samples == 0) {
        complain("no sample of memory, one in %s: see --heap-rate%s%s", texts[3], list, rest);
    } else {
        complain("%s in use, give or take %s, of %s allocated (%llu sample%s, one in %s)%s%s", texts[0], texts[1],
                 texts[2], (unsigned long long)stats->samples, plural(stats->samples), texts[3], list, rest);
    }
    free(list);
}

static void summarize(void) {
    const pyprof_stats *stats = &given()->end.stats;
    unsigned long long lost = lost_samples(stats);
    double seconds = (double)given()->end.duration_ns / 1e9;
    if (given()->has_heap) {
        char *rest = is_timed(writer.opt) ? text_of("%s", "") : tell_rest();
        summarize_memory(rest);
        free(rest);
    }
    if (writer.opt->quiet || !is_timed(writer.opt)) {
        return;
    }
    char *list = list_outputs(false);
    char *rest = tell_rest();
    if (stats->samples == 0) {
        complain("no samples in %.3g s: see --rate%s%s", seconds, list, rest);
    } else {
        complain("%llu sample%s in %.3g s (%llu of waiting threads, %llu lost%s)%s%s",
                 (unsigned long long)stats->samples, plural(stats->samples), seconds,
                 (unsigned long long)stats->samples_idle, lost,
                 lost > 0 ? ": their time is with the samples beside them" : "", list, rest);
    }
    free(rest);
    free(list);
}

/* Whether what was written into it can be replaced by something newer. */
static bool is_replaceable(const output_file *file) {
    struct stat status;
    return file->descriptor < 0 && (stat(file->path, &status) != 0 || S_ISREG(status.st_mode));
}

/* Of a draft, what can be replaced is written; the rest, and what went wrong, wait until it is known that it counts. */
static void write_all(bool is_draft) {
    for (int i = 0; i < writer.opt->output_count; i++) {
        const output_file *file = &writer.opt->outputs[i];
        if (writer.written[i] || (is_draft && !is_replaceable(file))) {
            continue;
        }
        bool is_missing = file->is_heap && given()->heap.failed; /* which is told at the end */
        writer.written[i] = !is_missing && write_output(file);
        writer.written_count += writer.written[i];
        if (!writer.written[i] && !is_draft && !is_missing) {
            complain("cannot write %s: %s", file->shown, errno != 0 ? strerror(errno) : "out of memory");
        }
    }
}

static bool is_program(const process *of) {
    return of == &writer.program;
}

/* All has come that was being handed over: it takes the place of what came before. */
static void take_in(process *of, bool is_draft) {
    recorded before = of->given;
    of->given = of->coming;
    of->coming = before;
    of->has_draft = is_draft;
    if (is_program(of)) {
        writer.written_count = 0;
        memset(writer.written, 0, sizeof writer.written);
    }
}

/* All was handed over: true if all was written. */
static bool conclude(void) {
    const handover_end *end = &given()->end;
    if (end->failed) {
        complain("cannot end the recording: %s", end->text);
        return false;
    }
    join_family(given(), &writer.ended, writer.program.name, writer.program.pid);
    if (end->never_began && writer.ended.processes == 0) {
        if (!writer.opt->quiet) {
            complain("the program ended with code %d before anything of it was sampled: nothing was written",
                     end->value);
        }
        return true;
    }
    write_all(false);
    if (writer.written_count > 0 || given()->heap.failed) {
        warn_of_losses(&end->stats);
        summarize();
    }
    return writer.written_count == writer.opt->output_count;
}

/* ---- the processes -------------------------------------------------------------------------------------- */

static process *find_process(pid_t pid) {
    if (pid == writer.program.pid) {
        return &writer.program;
    }
    for (int i = 0; i < writer.child_count; i++) {
        if (writer.children[i]->pid == pid) {
            return writer.children[i];
        }
    }
    return NULL;
}

static process *add_child(pid_t pid) {
    if (writer.child_count == writer.child_room) {
        writer.child_room = 2 * writer.child_room + 16;
        writer.children = must(realloc(writer.children, (size_t)writer.child_room * sizeof *writer.children));
    }
    process *child = must(calloc(1, sizeof *child));
    child->pid = pid;
    child->descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    child->awaits_exec = -1;
    writer.children[writer.child_count++] = child;
    return child;
}

/* Its program, as its command line tells; before it has told that, it is nobody's. */
static void name_process(process *of, const char *command, size_t size) {
    char text[HANDOVER_COMMAND + 1], *words[HANDOVER_COMMAND + 1];
    size_t count = 0, length = size < HANDOVER_COMMAND ? size : HANDOVER_COMMAND;
    memcpy(text, command, length);
    text[length] = '\0';
    for (size_t at = 0; at < length; at += strlen(text + at) + 1) {
        words[count++] = text + at;
    }
    words[count] = NULL;
    free(of->name);
    of->name = name_of_process(words);
}

static void leave_connections(const process *of) {
    for (int i = 0; i < writer.connection_count; i++) {
        if (writer.connections[i].from == of) {
            writer.connections[i].from = NULL;
        }
    }
}

static void drop_child(process *child) {
    int at = 0;
    while (writer.children[at] != child) {
        at++;
    }
    memmove(writer.children + at, writer.children + at + 1,
            (size_t)(--writer.child_count - at) * sizeof *writer.children);
    leave_connections(child);
    if (child->descriptor >= 0) {
        (void)close(child->descriptor);
    }
    forget_profile(&child->coming);
    forget_profile(&child->given);
    free(child->name);
    free(child);
}

static void count_others(unsigned count, const char *first) {
    if (writer.others == 0 && count > 0) {
        (void)snprintf(writer.other, sizeof writer.other, "%.*s", (int)sizeof writer.other - 1, first);
    }
    writer.others += count;
}

static void tell_of_lost(const process *child, const char *why) {
    if (writer.lost++ < MOST_NAMED && !writer.opt->quiet) {
        complain("process %ld (%s) %s: not recorded", (long)child->pid, child->name != NULL ? child->name : "python",
                 why);
    }
}

/* A child that was forked only to execute something (subprocess before 3.10) stands all the time where it was forked: it
   has run nothing of its own. */
static bool has_only_executed(const process *child) {
    return child->is_fork && child->given.end.cause == HANDOVER_EXEC && has_one_line(&child->given);
}

/* What a child recorded is all there. */
static void keep_child(process *child) {
    const handover_end *end = &child->given.end;
    count_others(end->others, end->other);
    if (end->failed) {
        tell_of_lost(child, end->text);
    } else if (child->given.profile != NULL && !has_only_executed(child)) {
        unsigned before = writer.ended.processes;
        add_process(&writer.ended, &child->given, child->name, child->pid);
        bool is_kept = writer.ended.processes > before && !is_program(child);
        writer.recorded += is_kept;
        writer.left += is_kept && end->cause == HANDOVER_DURATION;
    }
}

/* How a process ended that has not been waited for: proc(5), the last field. -1 = it is not there. */
static int status_by_proc(pid_t pid) {
    char path[48], text[1024];
    (void)snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = file >= 0 ? read(file, text, sizeof text - 1) : 0;
    if (file >= 0) {
        (void)close(file);
    }
    text[size > 0 ? size : 0] = '\0';
    const char *last = strrchr(text, ' ');
    return last != NULL ? atoi(last + 1) : -1;
}

/* And one that has: Linux 6.15 and later keep it for who has a descriptor. include/uapi/linux/pidfd.h */
static int status_by_descriptor(int descriptor) {
    struct {
        uint64_t mask, cgroup;
        uint32_t ids[11];
        int32_t status;
    } info = {.mask = 1u << 3};                    /* PIDFD_INFO_EXIT */
    unsigned long request = _IOWR(0xff, 11, info); /* an int in musl's ioctl, which it has no room in */
    bool is_known = descriptor >= 0 && syscall(SYS_ioctl, descriptor, request, &info) == 0;
    return is_known && (info.mask & 1u << 3) != 0 ? info.status : -1;
}

/* 0 = not known, or none. */
static int signal_of_dead(const process *child) {
    int status = status_by_proc(child->pid);
    status = status >= 0 ? status : status_by_descriptor(child->descriptor);
    return status >= 0 && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* It has ended without handing over all; what it did before counts. */
static void lose_child(process *child) {
    int number = signal_of_dead(child);
    if (child->has_draft) {
        keep_child(child);
    } else if (number == SIGKILL) {
        tell_of_lost(child, "was killed by SIGKILL");
    } else if (number != 0) {
        char *why = text_of("was ended by signal %d", number);
        tell_of_lost(child, why);
        free(why);
    } else {
        tell_of_lost(child, "ended in a way that lets nothing be handed over (SIGKILL, say)");
    }
    drop_child(child);
}

/* ---- the end -------------------------------------------------------------------------------------------- */

/* A child that lives on hands over what it has by now. */
static void ask_child(process *child) {
    const char stop = HANDOVER_STOP;
    for (int i = 0; i < writer.connection_count && !child->is_asked; i++) {
        if (writer.connections[i].from == child) {
            child->is_asked = handover_send(writer.connections[i].descriptor, &stop, 1);
        }
    }
}

/* There is nothing more to come of the program itself; its children are waited for. */
static void begin_end(void) {
    if (!writer.is_over) {
        writer.is_over = true;
        (void)clock_gettime(CLOCK_MONOTONIC, &writer.over_since);
        count_others(given()->end.others, given()->end.other);
    }
}

static void answer(int descriptor, bool good) {
    char byte = good ? 0 : 1;
    (void)handover_send(descriptor, &byte, 1);
}

static void tell_of_nothing(void) {
    if (writer.program.name != NULL) {
        complain("the program ended in a way that lets nothing be written (SIGKILL, say): the recording is lost");
    } else if (writer.other_python[0] != '\0') {
        complain("nothing was recorded: CPython %s began in %s, and this pyprof-run has no library for it",
                 writer.other_python, writer.name);
    } else if (writer.opt->host) {
        complain("nothing was recorded: no Python began in %s%s", writer.name,
                 writer.opt->subprocesses ? ", nor in a child process of it that was seen"
                                          : " (what its child processes do is recorded with --subprocesses)");
    } else {
        complain("nothing was recorded: pyprof-run's library was not loaded into the program");
    }
}

/* A host may leave Python to its children: servers do. */
static bool is_only_for_children(void) {
    return writer.opt->host && writer.program.name == NULL && writer.ended.processes > 0;
}

static void end_all(void) {
    bool is_there = !writer.is_dead || writer.program.has_draft;
    if (!is_there && !is_only_for_children()) {
        tell_of_nothing();
    }
    if (is_there || writer.ended.processes > 0) {
        bool good = conclude();
        if (writer.waiting >= 0) {
            answer(writer.waiting, good);
        }
    }
    writer.closed = true;
}

static long milliseconds_over(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - writer.over_since.tv_sec) * 1000 + (now.tv_nsec - writer.over_since.tv_nsec) / 1000000;
}

/* Ends it all once no child is left, or none that answers. */
static void try_to_end(void) {
    for (int i = 0; i < writer.child_count; i++) {
        ask_child(writer.children[i]);
    }
    if (writer.child_count > 0 && milliseconds_over() < GRACE_MS) {
        return;
    }
    while (writer.child_count > 0) {
        tell_of_lost(writer.children[0], "did not answer when the program ended");
        drop_child(writer.children[0]);
    }
    end_all();
}

/* ---- hearing the library -------------------------------------------------------------------------------- */

static void hear_log(uint32_t level, const char *text, size_t size) {
    if (level == PYPROF_LOG_ERROR) {
        complain("%.*s", (int)size, text);
    } else {
        warn(level == PYPROF_LOG_WARNING, "%.*s", (int)size, text);
    }
}

/* A process that has been replaced is there again, as another program. */
static void begin_again(process *of) {
    if (of->has_draft && of->awaits_exec < 0 && of->given.end.cause == HANDOVER_EXEC) {
        keep_child(of);
        forget_profile(&of->given);
        of->has_draft = false;
    }
}

static void hear_hello(connection *from, const char *data, size_t size) {
    handover_hello hello;
    if (size >= sizeof hello) {
        begin_again(from->from);
        from->from->is_asked = false;
        memcpy(&hello, data, sizeof hello);
        from->from->is_fork = hello.is_fork != 0;
        name_process(from->from, data + sizeof hello, size - sizeof hello);
    }
}

static void hear_of_other_python(process *of, const char *version, size_t size) {
    char text[48];
    if (is_program(of)) {
        (void)snprintf(writer.other_python, sizeof writer.other_python, "%.*s", (int)size, version);
        return;
    }
    (void)snprintf(text, sizeof text, "CPython %.*s", (int)size, version);
    count_others(1, text);
    if (of->has_draft) {
        keep_child(of);
    }
    drop_child(of);
}

static void hear_draft(const connection *from) {
    process *of = from->from;
    take_in(of, true);
    if (is_program(of) && !of->given.end.failed) {
        write_all(true);
    }
    of->awaits_exec = of->given.end.cause == HANDOVER_EXEC ? from->descriptor : -1;
    answer(from->descriptor, true);
}

/* The exec has failed: what was handed over for it counts only if nothing comes after it. */
static void hear_that_it_goes_on(process *of) {
    of->awaits_exec = -1;
    of->given.end.cause = HANDOVER_NOT_YET;
}

static void hear_refusal(const connection *from, const char *why, size_t size) {
    if (is_program(from->from)) {
        complain("cannot record: %.*s", (int)size, why);
        writer.closed = true;
    } else {
        char *text = text_of("could not be recorded (%.*s)", (int)size, why);
        tell_of_lost(from->from, text);
        free(text);
    }
    answer(from->descriptor, false);
    if (!is_program(from->from)) {
        drop_child(from->from);
    }
}

static void hear_all(const connection *from) {
    process *of = from->from;
    take_in(of, false);
    if (is_program(of)) {
        writer.waiting = from->descriptor;
        begin_end();
    } else {
        keep_child(of);
        answer(from->descriptor, true);
        drop_child(of);
    }
}

static void hear_frame(connection *from, const handover_frame *frame, const char *data) {
    size_t size = (size_t)frame->size;
    switch (frame->kind) {
    case HANDOVER_HELLO:
        hear_hello(from, data, size);
        break;
    case HANDOVER_OTHER_PYTHON:
        hear_of_other_python(from->from, data, size);
        break;
    case HANDOVER_LOG:
        hear_log(frame->detail, data, size);
        break;
    case HANDOVER_REFUSED:
        hear_refusal(from, data, size);
        break;
    case HANDOVER_END:
        begin_profile(&from->from->coming, data, size);
        break;
    case HANDOVER_HEAP:
        begin_memory(&from->from->coming, data, size);
        break;
    case HANDOVER_NODES:
    case HANDOVER_SPANS:
        take_pieces(&from->from->coming, (handover_kind)frame->kind, data, size);
        break;
    case HANDOVER_DRAFT:
        hear_draft(from);
        break;
    case HANDOVER_GOES_ON:
        hear_that_it_goes_on(from->from);
        break;
    case HANDOVER_DONE:
        hear_all(from);
        break;
    default:
        writer.closed = writer.closed || is_program(from->from);
    }
}

static void hear_frames(connection *from) {
    size_t at = 0;
    handover_frame frame;
    bytes *received = &from->received;
    while (!writer.closed && from->from != NULL && received->size - at >= sizeof frame) {
        memcpy(&frame, received->data + at, sizeof frame);
        if (received->size - at - sizeof frame < frame.size) {
            break;
        }
        hear_frame(from, &frame, received->data + at + sizeof frame);
        at += sizeof frame + (size_t)frame.size;
    }
    drop_front(received, at);
}

/* The exec has succeeded. What replaces the process may be recorded, too. */
static void hear_of_exec(process *of) {
    bool is_followed = writer.opt->subprocesses && of->given.end.value != 0;
    of->awaits_exec = -1;
    if (is_followed) {
        return;
    }
    if (is_program(of)) {
        begin_end();
    } else {
        count_others(1, base_name(of->given.end.text));
        keep_child(of);
        drop_child(of);
    }
}

static void drop_connection(int index) {
    connection *gone = &writer.connections[index];
    process *of = gone->from;
    int descriptor = gone->descriptor;
    writer.waiting = writer.waiting == descriptor ? -1 : writer.waiting;
    (void)close(descriptor);
    free(gone->received.data);
    *gone = writer.connections[--writer.connection_count];
    if (of != NULL && of->awaits_exec == descriptor) {
        hear_of_exec(of);
    }
}

static void hear(int index) {
    static char piece[65536];
    connection *from = &writer.connections[index];
    ssize_t got = recv(from->descriptor, piece, sizeof piece, 0);
    if (got > 0 && from->from != NULL) {
        append(&from->received, piece, (size_t)got);
        hear_frames(from);
    } else if (got == 0 || (got < 0 && errno != EINTR)) {
        drop_connection(index);
    }
}

static void add_connection(int descriptor, process *from) {
    if (writer.connection_count == writer.most_connections) {
        writer.most_connections = 2 * writer.most_connections + 8;
        writer.connections =
            must(realloc(writer.connections, (size_t)writer.most_connections * sizeof *writer.connections));
    }
    writer.connections[writer.connection_count++] = (connection){descriptor, from, {NULL, 0, 0}};
}

/* Nobody but the program may tell us what to write; and its children, of the same user, if they are asked for. */
static process *find_peer(int descriptor) {
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid <= 0) {
        return NULL;
    }
    process *known = find_process(peer.pid);
    if (known != NULL || !writer.opt->subprocesses) {
        return known;
    }
    writer.strangers += peer.uid != getuid();
    return peer.uid == getuid() ? add_child(peer.pid) : NULL;
}

static void accept_connection(void) {
    int descriptor = accept4(writer.listening, NULL, NULL, SOCK_CLOEXEC);
    if (descriptor < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
        complain("cannot hear what is recorded: %s", strerror(errno));
        writer.closed = true;
    }
    if (descriptor < 0) {
        return;
    }
    process *from = find_peer(descriptor);
    if (from == NULL || (!writer.opt->subprocesses && writer.connection_count == MAX_CONNECTIONS)) {
        (void)close(descriptor);
        return;
    }
    add_connection(descriptor, from);
}

/* Whether a child has ended; ready: its descriptor says so. */
static bool has_ended(const process *child, bool ready) {
    return child->descriptor >= 0 ? ready : kill(child->pid, 0) != 0 && errno == ESRCH;
}

/* What a dead child said last was heard before. Whether there was one. */
static bool bury_children(const struct pollfd *polled, int count) {
    bool heard = false;
    for (int i = count - 1; i >= 0; i--) {
        process *child = writer.children[i];
        if (has_ended(child, polled[i].revents != 0)) {
            lose_child(child);
            heard = true;
        }
    }
    return heard;
}

static int timeout(void) {
    bool is_looking = writer.program.descriptor < 0 || writer.is_over;
    for (int i = 0; i < writer.child_count && !is_looking; i++) {
        is_looking = writer.children[i]->descriptor < 0;
    }
    return is_looking ? (writer.is_over ? 20 : 200) : -1;
}

/* One round; false if nothing was there to be heard and the program has ended. */
static bool serve(void) {
    int count = writer.connection_count, children = writer.child_count;
    struct pollfd *all = writer.polled =
        must(realloc(writer.polled, (size_t)(2 + count + children) * sizeof *writer.polled));
    struct pollfd *of_children = all + 2 + count;
    all[0] = (struct pollfd){writer.listening, POLLIN, 0};
    all[1] = (struct pollfd){writer.is_over ? -1 : writer.program.descriptor, POLLIN, 0};
    for (int i = 0; i < count; i++) {
        all[2 + i] = (struct pollfd){writer.connections[i].descriptor, POLLIN, 0};
    }
    for (int i = 0; i < children; i++) {
        of_children[i] = (struct pollfd){writer.children[i]->descriptor, POLLIN, 0};
    }
    (void)poll(all, (nfds_t)(2 + count + children), timeout());
    bool heard = false;
    for (int i = count - 1; i >= 0 && !writer.closed; i--) {
        if (all[2 + i].revents != 0) {
            hear(i);
            heard = true;
        }
    }
    if (all[0].revents != 0 && !writer.closed) {
        accept_connection();
        heard = true;
    }
    if (!heard) {
        heard = bury_children(of_children, children);
    }
    return heard || !program_has_ended(&all[1]);
}

static void be_writer(void) {
    while (!writer.closed) {
        if (!serve() && !writer.is_over) {
            writer.is_dead = true;
            begin_end();
        }
        if (writer.is_over && !writer.closed) {
            try_to_end();
        }
    }
    _exit(EXIT_SUCCESS);
}

/* ---- beginning ------------------------------------------------------------------------------------------ */

static bool listen_for_program(void) {
    struct sockaddr_un address;
    unsigned long long chance[2];
    if (getrandom(chance, sizeof chance, 0) != (ssize_t)sizeof chance) {
        return false;
    }
    (void)snprintf(writer.socket, sizeof writer.socket, "pyprof-run-%ld-%016llx%016llx", (long)getpid(), chance[0],
                   chance[1]);
    socklen_t length = handover_address(&address, writer.socket);
    writer.listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return writer.listening >= 0 && bind(writer.listening, (struct sockaddr *)&address, length) == 0 &&
           listen(writer.listening, writer.opt->subprocesses ? SOMAXCONN : MAX_CONNECTIONS) == 0;
}

static bool is_needed(int descriptor) {
    if (descriptor == STDERR_FILENO || descriptor == writer.listening || descriptor == writer.program.descriptor) {
        return true;
    }
    for (int i = 0; i < writer.opt->output_count; i++) {
        if (writer.opt->outputs[i].descriptor == descriptor) {
            return true;
        }
    }
    return false;
}

/* A pipe that was the program's must end when the program closes it: its descriptors are not for us to hold. */
static void close_others(void) {
    long most = sysconf(_SC_OPEN_MAX);
    for (int i = 0; i < (most > 0 && most < 65536 ? (int)most : 65536); i++) {
        if (!is_needed(i)) {
            (void)close(i);
        }
    }
    if (fcntl(STDERR_FILENO, F_GETFD) < 0) { /* what is said then must not go into another file */
        int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
        (void)dup2(nothing, STDERR_FILENO);
    }
}

/* Each process that is recorded takes two descriptors here. */
static void raise_limit(void) {
    struct rlimit limits;
    if (writer.opt->subprocesses && getrlimit(RLIMIT_NOFILE, &limits) == 0) {
        limits.rlim_cur = limits.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limits);
    }
}

static void leave_session(void) {
    static const int ignored[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGPIPE,
                                  SIGUSR1, SIGUSR2, SIGALRM, SIGXFSZ, SIGXCPU};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) {
        (void)signal(ignored[i], SIG_IGN);
    }
    (void)setsid();
    (void)prctl(PR_SET_NAME, "pyprof-writer");
    (void)chdir("/");
}

const char *start_writer(const run_options *opt, const char *name) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    writer.opt = opt;
    writer.name = name;
    writer.program.pid = getpid();
    writer.program.descriptor = (int)syscall(SYS_pidfd_open, writer.program.pid, 0);
    writer.ended.start_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    writer.ended.memory = MOST_MEMORY * (size_t)(opt->memory > 0 ? opt->memory : 64u << 20);
    pid_t child = listen_for_program() ? fork() : -1;
    if (child == 0) {
        leave_session();
        pid_t grandchild = fork(); /* whose parent ends: the program has no child that it did not make */
        if (grandchild == 0) {
            close_others();
            raise_limit();
            be_writer();
        }
        _exit(grandchild < 0);
    }
    int status = -1;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (child < 0 || (status != 0 && errno != ECHILD)) {
        complain("cannot start the process that writes the profile: %s", strerror(errno));
        exit(EXIT_FAILED);
    }
    (void)close(writer.listening);
    (void)close(writer.program.descriptor);
    return writer.socket;
}

void dismiss_writer(void) {
    struct sockaddr_un address;
    socklen_t length = handover_address(&address, writer.socket);
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor >= 0 && connect(descriptor, (struct sockaddr *)&address, length) == 0) {
        (void)handover_send_frame(descriptor, HANDOVER_NEVER_RAN, 0, NULL, 0);
    }
}
