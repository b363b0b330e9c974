/* run_writer.c: the process that writes what was recorded.
 *
 * It is left behind when pyprof-run becomes the program: a process of its own session, no child of the program, with
 * the directory, the rights, the root and the limits that the user started with. It hears the library over a
 * socket (handover.h), draws and writes the outputs, says in one line what became of them, and ends with the
 * program. If the program ends without a word, it says so: after a SIGKILL nobody else can. What it then has is the last
 * draft, if there was one.
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
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MAX_CONNECTIONS = 4 /* the library has one, and one more where the program closed the first */
};

typedef struct connection {
    int descriptor;
    bytes received;
} connection;

static struct {
    const run_options *opt;
    const char *name;
    pid_t program;
    int program_descriptor; /* readable when it has ended: pidfd_open(2); -1 = this kernel has none */
    int listening;
    char socket[64];
    connection connections[MAX_CONNECTIONS];
    int connection_count;
    bool greeted;
    char other_python[32]; /* one began that the libraries are not for */
    bool closed;           /* all was said */
    recorded coming;       /* is being handed over */
    recorded given;        /* all of it has come: what is written */
    bool has_draft;        /* that is a draft */
    int awaits_exec;       /* the connection that closes when the program is replaced; -1 = none */
    bool written[MAX_OUTPUTS];
    int written_count;
} writer = {.awaits_exec = -1};

/* ---- files ---------------------------------------------------------------------------------------------- */

static const char *plural(unsigned long long count) {
    return count == 1 ? "" : "s";
}

static bool write_format(exports_format format, FILE *out) {
    return write_profile(&writer.given, writer.opt, writer.name, format, out);
}

static bool program_has_ended(const struct pollfd *of_program) {
    if (of_program->fd >= 0) {
        return of_program->revents != 0;
    }
    return kill(writer.program, 0) != 0 && errno == ESRCH;
}

/* A pipe is waited for until somebody reads it, as long as the program is there; answers a descriptor or -1. */
static int open_special(const output_file *file, bool is_pipe) {
    struct pollfd of_program = {writer.program_descriptor, POLLIN, 0};
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
    bool good = out != NULL && write_format(file->format, out);
    return out != NULL && fclose(out) == 0 && good;
}

/* Written beside, then renamed: whole, or as it was. A link stays, and leads to the new file. */
static bool write_beside(const output_file *file, const char *target, mode_t mode) {
    char *part = text_of("%s.XXXXXX", target);
    int descriptor = mkstemp(part);
    FILE *out = descriptor >= 0 ? fdopen(descriptor, "w") : NULL;
    bool good = out != NULL && write_format(file->format, out) && fchmod(descriptor, mode) == 0;
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
    warn(has_doubtful_lines(&writer.given, writer.opt) && jit >= 5,
         "%.0f %% of the samples that did not wait are of JIT code: their innermost line may be one before it "
         "(PYTHON_JIT=0 turns it off)",
         jit);
    warn(writer.given.spans_refused > 0,
         "the time line lacks %llu of its pieces, which came out of order: sums are right",
         (unsigned long long)writer.given.spans_refused);
    warn(stats->timeline_coarsened > 0, "the time line (speedscope) was full and lost resolution: see --memory");
}

static char *list_outputs(void) {
    char *list = text_of("%s", "");
    for (int i = 0; i < writer.opt->output_count; i++) {
        if (!writer.written[i] || writer.opt->outputs[i].is_printed) {
            continue;
        }
        char *longer = text_of("%s%s%s", list, *list != '\0' ? ", " : "; wrote ", writer.opt->outputs[i].shown);
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

/* What is not in the profile, after the figures. */
static char *tell_rest(void) {
    const handover_end *end = &writer.given.end;
    char *followed = tell_what_followed(end);
    char *rest = end->forks > 0 ? text_of("; %u forked child process%s not recorded%s", end->forks,
                                          end->forks == 1 ? " was" : "es were", followed)
                                : text_of("%s", followed);
    free(followed);
    return rest;
}

static void summarize(void) {
    const pyprof_stats *stats = &writer.given.end.stats;
    unsigned long long lost = lost_samples(stats);
    double seconds = (double)writer.given.end.duration_ns / 1e9;
    if (writer.opt->quiet) {
        return;
    }
    char *list = list_outputs();
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
        writer.written[i] = write_output(file);
        writer.written_count += writer.written[i];
        if (!writer.written[i] && !is_draft) {
            complain("cannot write %s: %s", file->shown, errno != 0 ? strerror(errno) : "out of memory");
        }
    }
}

/* All has come that was being handed over: it takes the place of what came before. */
static void take_in(bool is_draft) {
    recorded before = writer.given;
    writer.given = writer.coming;
    writer.coming = before;
    writer.has_draft = is_draft;
    writer.written_count = 0;
    memset(writer.written, 0, sizeof writer.written);
}

/* All was handed over: true if all was written. */
static bool conclude(void) {
    const handover_end *end = &writer.given.end;
    if (end->failed) {
        complain("cannot end the recording: %s", end->text);
        return false;
    }
    if (end->never_began) {
        if (!writer.opt->quiet) {
            complain("the program ended with code %d before anything of it was sampled: nothing was written",
                     end->value);
        }
        return true;
    }
    write_all(false);
    if (writer.written_count > 0) {
        warn_of_losses(&end->stats);
        summarize();
    }
    return writer.written_count == writer.opt->output_count;
}

/* ---- hearing the library -------------------------------------------------------------------------------- */

static void answer(const connection *from, bool good) {
    char byte = good ? 0 : 1;
    (void)handover_send(from->descriptor, &byte, 1);
}

static void hear_log(uint32_t level, const char *text, size_t size) {
    if (level == PYPROF_LOG_ERROR) {
        complain("%.*s", (int)size, text);
    } else {
        warn(level == PYPROF_LOG_WARNING, "%.*s", (int)size, text);
    }
}

static void hear_draft(const connection *from) {
    take_in(true);
    if (!writer.given.end.failed) {
        write_all(true);
    }
    writer.awaits_exec = writer.given.end.cause == HANDOVER_EXEC ? from->descriptor : -1;
    answer(from, true);
}

/* The exec has failed: what was handed over for it counts only if nothing comes after it. */
static void hear_that_it_goes_on(void) {
    writer.awaits_exec = -1;
    writer.given.end.cause = HANDOVER_NOT_YET;
}

static void hear_frame(const connection *from, const handover_frame *frame, const char *data) {
    size_t size = (size_t)frame->size;
    switch (frame->kind) {
    case HANDOVER_HELLO:
        writer.greeted = true;
        break;
    case HANDOVER_OTHER_PYTHON:
        (void)snprintf(writer.other_python, sizeof writer.other_python, "%.*s", (int)size, data);
        break;
    case HANDOVER_LOG:
        hear_log(frame->detail, data, size);
        break;
    case HANDOVER_REFUSED:
        complain("cannot record: %.*s", (int)size, data);
        answer(from, false);
        writer.closed = true;
        break;
    case HANDOVER_END:
        begin_profile(&writer.coming, data, size);
        break;
    case HANDOVER_NODES:
    case HANDOVER_SPANS:
        take_pieces(&writer.coming, (handover_kind)frame->kind, data, size);
        break;
    case HANDOVER_DRAFT:
        hear_draft(from);
        break;
    case HANDOVER_GOES_ON:
        hear_that_it_goes_on();
        break;
    case HANDOVER_DONE:
        take_in(false);
        answer(from, conclude());
        writer.closed = true;
        break;
    default:
        writer.closed = true;
    }
}

static void hear_frames(connection *from) {
    size_t at = 0;
    handover_frame frame;
    bytes *received = &from->received;
    while (!writer.closed && received->size - at >= sizeof frame) {
        memcpy(&frame, received->data + at, sizeof frame);
        if (received->size - at - sizeof frame < frame.size) {
            break;
        }
        hear_frame(from, &frame, received->data + at + sizeof frame);
        at += sizeof frame + (size_t)frame.size;
    }
    drop_front(received, at);
}

static void drop_connection(int index) {
    if (writer.connections[index].descriptor == writer.awaits_exec) {
        (void)conclude();
        writer.closed = true;
    }
    (void)close(writer.connections[index].descriptor);
    free(writer.connections[index].received.data);
    writer.connections[index] = writer.connections[--writer.connection_count];
}

static void hear(int index) {
    static char piece[65536];
    connection *from = &writer.connections[index];
    ssize_t got = recv(from->descriptor, piece, sizeof piece, 0);
    if (got > 0) {
        append(&from->received, piece, (size_t)got);
        hear_frames(from);
    } else if (got == 0 || errno != EINTR) {
        drop_connection(index);
    }
}

/* Nobody but the program may tell us what to write. */
static void accept_connection(void) {
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    int descriptor = accept4(writer.listening, NULL, NULL, SOCK_CLOEXEC);
    if (descriptor < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
        complain("cannot hear what is recorded: %s", strerror(errno));
        writer.closed = true;
    }
    if (descriptor < 0) {
        return;
    }
    bool is_program = getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid == writer.program;
    if (!is_program || writer.connection_count == MAX_CONNECTIONS) {
        (void)close(descriptor);
        return;
    }
    writer.connections[writer.connection_count++] = (connection){descriptor, {NULL, 0, 0}};
}

/* One round; false if nothing was there to be heard and the program has ended. */
static bool serve(void) {
    struct pollfd all[2 + MAX_CONNECTIONS];
    int count = writer.connection_count;
    all[0] = (struct pollfd){writer.listening, POLLIN, 0};
    all[1] = (struct pollfd){writer.program_descriptor, POLLIN, 0};
    for (int i = 0; i < count; i++) {
        all[2 + i] = (struct pollfd){writer.connections[i].descriptor, POLLIN, 0};
    }
    (void)poll(all, (nfds_t)(2 + count), writer.program_descriptor >= 0 ? -1 : 200);
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
    return heard || !program_has_ended(&all[1]);
}

static void tell_that_nothing_came(void) {
    if (writer.greeted) {
        complain("the program ended in a way that lets nothing be written (SIGKILL, say): the recording is lost");
    } else if (writer.other_python[0] != '\0') {
        complain("nothing was recorded: CPython %s began in %s, and this pyprof-run has no library for it",
                 writer.other_python, writer.name);
    } else if (writer.opt->host) {
        complain("nothing was recorded: no Python began in %s (what its child processes do is not recorded)",
                 writer.name);
    } else {
        complain("nothing was recorded: pyprof-run's library was not loaded into the program");
    }
}

static void be_writer(void) {
    while (!writer.closed) {
        if (!serve()) {
            if (writer.has_draft) {
                (void)conclude();
                break;
            }
            tell_that_nothing_came();
            break;
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
           listen(writer.listening, MAX_CONNECTIONS) == 0;
}

static bool is_needed(int descriptor) {
    if (descriptor == STDERR_FILENO || descriptor == writer.listening || descriptor == writer.program_descriptor) {
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
    writer.opt = opt;
    writer.name = name;
    writer.program = getpid();
    writer.program_descriptor = (int)syscall(SYS_pidfd_open, writer.program, 0);
    pid_t child = listen_for_program() ? fork() : -1;
    if (child == 0) {
        leave_session();
        pid_t grandchild = fork(); /* whose parent ends: the program has no child that it did not make */
        if (grandchild == 0) {
            close_others();
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
    (void)close(writer.program_descriptor);
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
