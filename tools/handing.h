/* handing.h: how what was recorded gets to the process that writes it (handover.h). For libpyprof.c. */
#ifndef HANDING_H
#define HANDING_H

#include "following.h"
#include "heap_left.h"
#include "recording.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

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

/* A python is told by its command line, another program by its name. */
static size_t read_command(char *to) {
    if (run.settings.target == HANDOVER_TO_PYTHON || strncmp(asked.program, "python", 6) == 0) {
        return read_beginning("/proc/self/cmdline", to, HANDOVER_COMMAND);
    }
    size_t size = strlen(asked.program) + 1;
    memcpy(to, asked.program, size);
    return size;
}

/* Who we are: see handover_hello. */
static bool tell_who_we_are(bool is_fork) {
    char data[sizeof(handover_hello) + HANDOVER_COMMAND];
    const handover_hello hello = {is_fork};
    memcpy(data, &hello, sizeof hello);
    return tell(HANDOVER_HELLO, 0, data, sizeof hello + read_command(data + sizeof hello));
}

/* Whether the writer wants what there is by now, as the program has ended: a child only is asked. */
static bool is_asked_to_end(void) {
    if (run.settings.follow != HANDOVER_FOLLOW_CHILD) {
        return false;
    }
    (void)pthread_mutex_lock(&run.lock);
    bool is_asked = handover_is_asked(writer());
    (void)pthread_mutex_unlock(&run.lock);
    return is_asked;
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

/* What a profile tells of the program. */
static void describe_program(handover_end *end, const pyprof_profile *profile) {
    pyprof_facts facts;
    (void)pyprof_get_facts(profile, &facts);
    end->start_ns = facts.start_ns;
    end->duration_ns = facts.duration_ns;
    end->interval_us = facts.interval_us;
    (void)snprintf(end->python, sizeof end->python, "%s", facts.python.data);
    (void)snprintf(end->process, sizeof end->process, "%s", facts.process.data);
    (void)snprintf(end->program, sizeof end->program, "%s",
                   facts.program.size < sizeof end->program ? facts.program.data : "");
}

/* Whether nothing of the program itself is in any of the two profiles. NULL = there is none. */
static bool has_nothing(const pyprof_profile *time, const pyprof_profile *memory) {
    return (time != NULL || memory != NULL) && (time == NULL || !program_began(time)) &&
           (memory == NULL || !program_began(memory));
}

/* memory: the heap's profile, or NULL. */
static handover_end describe_end(unsigned long long cause, pyprof_result result, const pyprof_profile *memory) {
    handover_end end;
    memset(&end, 0, sizeof end);
    end.cause = (uint32_t)(cause >> 32);
    end.value = (int32_t)(uint32_t)cause;
    end.forks = is_following() ? 0 : run.forks;
    end.others = following.others;
    (void)snprintf(end.other, sizeof end.other, "%s", following.other);
    end.failed = result != PYPROF_OK;
    end.duration_ns = (uint64_t)(run.seconds * 1e9);
    if (run.recorded != NULL || memory != NULL) {
        describe_program(&end, run.recorded != NULL ? run.recorded : memory);
    }
    end.stats = run.stats;
    (void)snprintf(end.text, sizeof end.text, "%s", result != PYPROF_OK ? pyprof_result_string(result) : run.text);
    end.never_began = end.cause == HANDOVER_EXIT && end.value != 0 && has_nothing(run.recorded, memory);
    return end;
}

static bool send_heap(const heap_taken *taken) {
    handover_heap head;
    memset(&head, 0, sizeof head);
    head.heap = taken->stats;
    head.failed = taken->profile == NULL;
    if (taken->profile != NULL) {
        pyprof_facts facts;
        (void)pyprof_get_facts(taken->profile, &facts);
        head.start_ns = facts.start_ns;
        head.duration_ns = facts.duration_ns;
        head.stats = facts.stats;
    } else {
        (void)snprintf(head.text, sizeof head.text, "%s", taken->why);
    }
    return tell(HANDOVER_HEAP, 0, &head, sizeof head) && (taken->profile == NULL || send_profile(taken->profile));
}

/* All that was recorded, as a draft or as what is written. taken: NULL = the heap was not asked for. */
static bool hand_over(const handover_end *end, const heap_taken *taken, handover_kind kind) {
    bool sent = tell(HANDOVER_END, 0, end, sizeof *end) && (run.recorded == NULL || send_profile(run.recorded)) &&
                (taken == NULL || send_heap(taken)) && tell(kind, 0, NULL, 0);
    if (!sent && end->cause != HANDOVER_LIMIT && run.settings.follow != HANDOVER_FOLLOW_CHILD) {
        static const char lost[] = "pyprof-run: the profile could not be handed over to be written: it is lost\n";
        (void)!write(STDERR_FILENO, lost, sizeof lost - 1); /* nobody else is left to say it */
    }
    return sent && ask_whether_written();
}

#endif
