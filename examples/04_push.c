/* One of a fleet: a profile a minute goes to a Pyroscope or a Parca server, by sockets alone.
 *
 *     cc -I. examples/04_push.c -o push $(python3-config --embed --includes --ldflags) -pthread
 *     ./push http://127.0.0.1:4040 pyroscope game 60 script.py ARGS...
 *     ./push http://127.0.0.1:7070 parca game 60 script.py ARGS...
 *
 * Runs the script as python3 does, and ends with its status. Shown are: profiles that follow each other, a file made in
 * memory, a thread's part of a profile by a filter, and a recording that is stopped wherever the program ends.
 *
 * Each profile is of its own minute: pyprof_stop gives it away, and pyprof_start begins the next. What runs between the
 * two is in neither. The last line tells how long that was: 1 to 10 ms were seen, and up to 26 with 100 waiting threads, on
 * two cores with more to do. pyprof_snapshot would leave no gap, but gives all since the start: a minute would be the
 * difference of two trees that grow as long as the host lives, and no writer takes such a difference.
 *
 * The network never holds the host up. A thread of its own stops, starts, sends and waits; each push has a deadline, of
 * one period and at most ten seconds, for connecting, sending and the answer together (the server's name is looked up
 * before that, as long as the system tries). Only at its end the host waits for the last push. What cannot be delivered is
 * dropped, counted and costs one line on standard error: nothing is kept for later, as Pyroscope refuses what is older
 * than an hour, and the memory is the host's. A child that the script forks is not recorded. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What Pyroscope takes as a profile unless its operator has set other limits. Parca has none, and gets the same. */
#ifndef SAMPLES_MOST
#define SAMPLES_MOST 16000
#endif
#ifndef BYTES_MOST
#define BYTES_MOST (4 << 20)
#endif

/* Pyroscope cuts stacks of more than 1,000 frames at the leaf, where the time is. pyprof leaves out frames in the middle:
   with these, the mark "[truncated]" and those of up to 8 interpreters a stack stays below. */
enum {
    DEPTH_MOST = 990,
    DEADLINE_MS = 10000,
    ANSWER_MOST = 16384
};

typedef struct server_kind {
    const char *name, *path, *type;
    const char *port; /* that it listens on unless told otherwise */
    unsigned series;  /* the field of the request that has a series of profiles */
    bool is_parca;    /* a frame of gRPC-web around the request; labels one message deeper; a series a thread */
} server_kind;

static const server_kind kinds[] = {
    {"pyroscope", "/push.v1.PusherService/Push", "application/proto", "4040", 1, false},
    {"parca", "/api/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw", "application/grpc-web+proto", "7070", 2,
     true},
};

/* There is one, as exit's handlers have no argument. The pushing thread alone uses what is below is_ending. */
static struct pusher {
    const server_kind *kind;
    char authority[300]; /* of the URL: host and port as they were given */
    char host[256], port[6];
    const char *service;
    int64_t period_ms, patience_ms;
    pid_t process;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool is_ending;
    unsigned long pushed, dropped, empty, gaps;
    int64_t gaps_ns, gap_most_ns;
    int64_t deadline_ms;
    char why[600]; /* what failed, and what to do */
} pushing;

static bool fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(pushing.why, sizeof pushing.why, format, arguments);
    va_end(arguments);
    return false;
}

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* ---- bytes in memory, and protocol buffers of them */

typedef struct bytes {
    char *data;
    size_t size, room;
    bool is_lost; /* there was no memory for all */
} bytes;

static bool append(void *user, const void *data, size_t size) {
    bytes *to = user;
    if (size > to->room - to->size) {
        size_t room = 2 * (to->size + size);
        char *grown = realloc(to->data, room);
        if (!grown) {
            to->is_lost = true;
            return false;
        }
        to->data = grown;
        to->room = room;
    }
    if (size > 0) {
        memcpy(to->data + to->size, data, size);
        to->size += size;
    }
    return true;
}

static void put_number(bytes *to, uint64_t number) {
    do {
        unsigned char byte = (unsigned char)((number & 0x7f) | (number > 0x7f ? 0x80 : 0));
        append(to, &byte, 1);
        number >>= 7;
    } while (number > 0);
}

/* A field that has bytes: its number and kind (2), how many follow, and these. */
static void put_field(bytes *to, unsigned field, const void *data, size_t size) {
    put_number(to, field << 3 | 2);
    put_number(to, size);
    append(to, data, size);
}

/* A field that has a message, which is given back. */
static void put_message(bytes *to, unsigned field, bytes *message) {
    put_field(to, field, message->data, message->size);
    to->is_lost = to->is_lost || message->is_lost;
    free(message->data);
    *message = (bytes){0};
}

/* How many bytes a character of UTF-8 has; 0 = it is none. Surrogates are none, either. */
static size_t utf8_size(const char *text) {
    const unsigned char *at = (const unsigned char *)text;
    size_t size = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool is_wrong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
                    (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f);
    return is_wrong ? 0 : size;
}

/* A text of bad UTF-8 would have the whole request refused: what is wrong in it becomes "?". */
static void put_label(bytes *to, const char *name, const char *text) {
    bytes label = {0}, value = {0};
    while (*text != '\0') {
        size_t size = utf8_size(text);
        append(&value, size > 0 ? text : "?", size > 0 ? size : 1);
        text += size > 0 ? size : 1;
    }
    put_field(&label, 1, name, strlen(name));
    put_message(&label, 2, &value);
    put_message(to, 1, &label);
}

/* ---- what a server takes of a profile */

static uint64_t get_number(const bytes *from, size_t *at) {
    uint64_t number = 0;
    unsigned char byte = 0x80;
    for (unsigned shift = 0; (byte & 0x80) && *at < from->size && shift < 64; shift += 7) {
        byte = (unsigned char)from->data[(*at)++];
        number |= (uint64_t)(byte & 0x7f) << shift;
    }
    return number;
}

/* How many samples a file of pprof's without gzip has: its fields of number 2. All have bytes (2) or are numbers (0). */
static size_t count_samples(const bytes *file) {
    size_t samples = 0;
    for (size_t at = 0; at < file->size;) {
        uint64_t tag = get_number(file, &at), value = get_number(file, &at);
        samples += tag == (2 << 3 | 2);
        at += (tag & 7) == 2 ? value : 0;
    }
    return samples;
}

/* The file of a thread, or of all (NULL), and how many samples it has. Whether a server takes it depends on what is
   in the gzip file, so that is written first. */
static bool write_file(const pyprof_profile *profile, pyprof_output output, bytes *file, size_t *samples, bool *fits) {
    file->size = 0;
    output.format = PYPROF_FORMAT_PPROF_PLAIN;
    pyprof_result result = pyprof_write(profile, &output, append, file);
    *samples = count_samples(file);
    *fits = *samples <= SAMPLES_MOST && file->size <= BYTES_MOST;
    if (result == PYPROF_OK && *fits) {
        file->size = 0;
        output.format = PYPROF_FORMAT_PPROF;
        result = pyprof_write(profile, &output, append, file);
    }
    return result == PYPROF_OK ||
           fail("it could not be written: %s", file->is_lost ? "no memory" : pyprof_last_error());
}

/* Of a file that is too large, calls with a small share are added to their callers, as few as will do. */
static bool write_fitting(const pyprof_profile *profile, const char *thread, bytes *file, size_t *samples) {
    pyprof_output output = {.thread = thread};
    bool fits = false;
    while (write_file(profile, output, file, samples, &fits) && !fits) {
        if (output.min_share >= 1) {
            return fail("it has more than %d bytes however small it is made", BYTES_MOST);
        }
        output.min_share = output.min_share > 0 ? output.min_share * 2 : 1.0 / (1 << 16);
    }
    if (fits && output.min_share > 0) {
        fprintf(stderr, "push: a profile was too large: what had less than %.3f %% was added to its callers\n",
                output.min_share * 100);
    }
    return fits;
}

/* One series of the request: labels, sorted by their names, and a file. One without a sample is left out. */
static bool put_series(const pyprof_profile *profile, const char *thread, bytes *request) {
    bytes file = {0}, sample = {0}, labels = {0}, series = {0};
    size_t samples = 0;
    bool is_parca = pushing.kind->is_parca, is_written = write_fitting(profile, thread, &file, &samples);
    if (is_written && samples > 0) {
        bytes *named = is_parca ? &labels : &series;
        if (!is_parca) {
            put_label(named, "__delta__", "false"); /* these values are not to be subtracted from earlier ones */
        }
        put_label(named, "__name__", "wall");
        put_label(named, "service_name", pushing.service);
        if (is_parca && thread && *thread != '\0') {
            put_label(named, "thread", thread);
        }
        if (is_parca) {
            put_message(&series, 1, &labels);
        }
        put_message(&sample, 1, &file);
        put_message(&series, 2, &sample);
        put_message(request, pushing.kind->series, &series);
    }
    free(file.data);
    return is_written;
}

/* The names of a profile's threads, each with a zero byte behind it. */
typedef struct census {
    size_t threads;
    bytes names;
} census;

static bool count_node(void *user, const pyprof_node *node) {
    census *found = user;
    if (node->parent == PYPROF_NO_NODE) {
        char id[16] = "";
        int size = node->tid != 0 ? snprintf(id, sizeof id, " (%ld)", (long)node->tid) : 0;
        found->threads++;
        append(&found->names, node->name.data, node->name.size);
        append(&found->names, id, (size_t)size + 1);
    }
    return !found->names.is_lost;
}

static bool count_threads(const pyprof_profile *profile, const pyprof_output *output, census *found) {
    const pyprof_visitor visitor = {.node = count_node, .user = found};
    return pyprof_visit(profile, output, &visitor) == PYPROF_OK ||
           fail("it could not be looked through: %s", pyprof_last_error());
}

/* Whether each name, as a filter, means one thread only. A star in a name stands for any text. */
static bool is_each_alone(const pyprof_profile *profile, const census *all) {
    const char *name = all->names.data;
    bool is_alone = true;
    for (size_t i = 0; i < all->threads && is_alone; i++, name += strlen(name) + 1) {
        const pyprof_output output = {.thread = name};
        census found = {0};
        is_alone = count_threads(profile, &output, &found) && found.threads == 1 &&
                   found.names.size == strlen(name) + 1 && strcmp(found.names.data, name) == 0;
        free(found.names.data);
    }
    return is_alone && name == all->names.data + all->names.size;
}

/* Parca forgets the labels of samples, so that there a thread is a series. Pyroscope keeps them, so there only what is too
   large is pushed thread by thread. Where threads cannot be told apart by their names, all are one series. */
static bool put_profile(const pyprof_profile *profile, bytes *request) {
    census all = {0};
    bytes file = {0};
    size_t samples = 0;
    bool fits = true,
         is_fine = pushing.kind->is_parca || write_file(profile, (pyprof_output){0}, &file, &samples, &fits);
    bool is_split = is_fine && (pushing.kind->is_parca || !fits);
    free(file.data);
    is_fine = is_fine && (!is_split || count_threads(profile, NULL, &all));
    if (is_fine && is_split && is_each_alone(profile, &all)) {
        const char *name = all.names.data;
        for (size_t i = 0; i < all.threads && is_fine; i++, name += strlen(name) + 1) {
            is_fine = put_series(profile, name, request);
        }
    } else if (is_fine) {
        is_fine = put_series(profile, NULL, request);
    }
    free(all.names.data);
    return is_fine && (!request->is_lost || fail("no memory for the request"));
}

/* ---- the connection */

/* Waits for one of the events that are asked for. */
static bool wait_for(struct pollfd *connection, const char *what) {
    int64_t left = 0;
    int ready = -1;
    do {
        left = pushing.deadline_ms - now_ns() / 1000000;
        ready = left > 0 ? poll(connection, 1, (int)left) : 0;
    } while (ready < 0 && errno == EINTR);
    return ready > 0 || fail("http://%s %s within %g s: is it %s that listens there, and has it too much to do?",
                             pushing.authority, what, (double)pushing.patience_ms / 1000, pushing.kind->name);
}

static int connect_to(const struct addrinfo *address) {
    int error = 0, connection = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection >= 0 && connect(connection, address->ai_addr, address->ai_addrlen) == 0) {
        return connection;
    }
    error = errno;
    if (connection >= 0 && error == EINPROGRESS) {
        struct pollfd waiting = {.fd = connection, .events = POLLOUT};
        socklen_t size = sizeof error;
        if (!wait_for(&waiting, "took no connection")) {
            close(connection);
            return -1;
        }
        if (getsockopt(connection, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0) {
            return connection;
        }
    }
    if (connection >= 0) {
        close(connection);
    }
    fail("http://%s cannot be reached: %s: is %s running there?", pushing.authority, strerror(error),
         pushing.kind->name);
    return -1;
}

static int open_connection(void) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int connection = -1, error = getaddrinfo(pushing.host, pushing.port, &hints, &found);
    if (error != 0) {
        fail("http://%s cannot be found: %s: is that its name?", pushing.authority, gai_strerror(error));
        return -1;
    }
    pushing.deadline_ms = now_ns() / 1000000 + pushing.patience_ms;
    for (struct addrinfo *address = found; address && connection < 0; address = address->ai_next) {
        connection = connect_to(address);
    }
    freeaddrinfo(found);
    return connection;
}

/* Who answers or closes before it has all is listened to: what it says tells more than that it would not take the rest. */
static bool send_request(int connection, const bytes *request) {
    for (size_t sent = 0; sent < request->size;) {
        struct pollfd waiting = {.fd = connection, .events = POLLIN | POLLOUT};
        if (!wait_for(&waiting, "did not take the profile")) {
            return false;
        }
        if (waiting.revents & (POLLIN | POLLERR | POLLHUP)) {
            break;
        }
        ssize_t size = send(connection, request->data + sent, request->size - sent, MSG_NOSIGNAL);
        if (size < 0 && errno != EAGAIN && errno != EINTR) {
            break;
        }
        sent += size > 0 ? (size_t)size : 0;
    }
    return true;
}

/* ---- the answer */

typedef struct reply {
    char text[ANSWER_MOST + 1]; /* as it came, with a zero byte behind it */
    size_t size;
    char body[ANSWER_MOST + 1]; /* what is left of it without the head and the sizes of chunks, as the text is */
    size_t body_size;
} reply;

/* The value of a line "Name: value" in the lines up to an empty one; "" if there is none. */
static const char *header(const char *lines, const char *name, char *value, size_t room) {
    size_t length = strlen(name), size = 0;
    for (const char *line = lines; line && *line != '\0' && *line != '\r';) {
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            const char *from = line + length + 1 + strspn(line + length + 1, " \t");
            size = strcspn(from, "\r\n");
            size = size < room ? size : room - 1;
            memcpy(value, from, size);
            break;
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    value[size] = '\0';
    return value;
}

/* Chunks: each has its size in a line before it, and a line's end behind it; one of size 0 is the last. Whether that was
   there. */
static bool join_chunks(reply *answer, const char *from) {
    const char *end = answer->text + answer->size;
    for (;;) {
        char *behind = NULL;
        unsigned long size = strtoul(from, &behind, 16);
        const char *line_end = behind > from ? strchr(behind, '\n') : NULL;
        if (!line_end || size == 0) {
            return line_end != NULL;
        }
        from = line_end + 1;
        if (size > (size_t)(end - from)) {
            return false;
        }
        memcpy(answer->body + answer->body_size, from, size);
        answer->body_size += size;
        from += size + strspn(from + size, "\r\n");
    }
}

/* Whether there is all of it, or, where the connection has ended, what was promised. Finds the body. */
static bool is_whole(reply *answer, bool is_end) {
    char value[64];
    const char *head_end = strstr(answer->text, "\r\n\r\n");
    answer->body_size = 0;
    if (!head_end) {
        return false;
    }
    const char *body = head_end + 4;
    if (strncasecmp(header(answer->text, "Transfer-Encoding", value, sizeof value), "chunked", 7) == 0) {
        return join_chunks(answer, body);
    }
    answer->body_size = answer->size - (size_t)(body - answer->text);
    memcpy(answer->body, body, answer->body_size);
    if (*header(answer->text, "Content-Length", value, sizeof value) != '\0') {
        return answer->body_size >= strtoul(value, NULL, 10);
    }
    return is_end;
}

/* Up to its end, or as much as there is room for: what is wanted stands at its beginning. */
static bool receive(int connection, reply *answer) {
    bool is_end = false;
    while (!is_whole(answer, is_end) && answer->size < ANSWER_MOST && !is_end) {
        struct pollfd waiting = {.fd = connection, .events = POLLIN};
        if (!wait_for(&waiting, "did not answer")) {
            return false;
        }
        ssize_t size = recv(connection, answer->text + answer->size, ANSWER_MOST - answer->size, 0);
        if (size > 0) {
            answer->size += (size_t)size;
            answer->text[answer->size] = '\0';
        }
        is_end = size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR);
    }
    answer->body[answer->body_size] = '\0';
    if (answer->size == 0) {
        return fail("http://%s closed the connection without an answer: its log may say why", pushing.authority);
    }
    if (strncmp(answer->text, "HTTP/1.", 7) != 0 || !strstr(answer->text, "\r\n\r\n")) {
        return fail("what http://%s answers is not HTTP: is this the port of %s (%s unless it was told another)?",
                    pushing.authority, pushing.kind->name, pushing.kind->port);
    }
    return answer->size == ANSWER_MOST || is_whole(answer, is_end) ||
           fail("http://%s closed the connection before the end of its answer: its log may say why", pushing.authority);
}

/* What is to be read of a text in one line of a log: its beginning, without what is no letter. */
static const char *readable(char *text) {
    size_t size = 0;
    for (; text[size] != '\0' && size < 200; size++) {
        if ((unsigned char)text[size] < ' ' || (unsigned char)text[size] > '~') {
            text[size] = ' ';
        }
    }
    text[size] = '\0';
    return text;
}

/* gRPC's status is a header, or stands in lines of the same kind in the last frame of the body, whose first bit is set. */
static bool is_grpc_fine(reply *answer) {
    char status[16], message[200];
    const char *lines = answer->text;
    header(lines, "grpc-status", status, sizeof status);
    for (size_t at = 0; *status == '\0' && answer->body_size - at >= 5;) {
        const unsigned char *frame = (const unsigned char *)answer->body + at;
        size_t size = (size_t)frame[1] << 24 | (size_t)frame[2] << 16 | (size_t)frame[3] << 8 | frame[4];
        if (frame[0] & 0x80) {
            lines = answer->body + at + 5;
            header(lines, "grpc-status", status, sizeof status);
        }
        if (size > answer->body_size - at - 5) {
            break;
        }
        at += 5 + size;
    }
    if (*status == '\0') {
        return fail("http://%s says nothing of what became of the profile (no grpc-status): is this %s?",
                    pushing.authority, pushing.kind->name);
    }
    return strcmp(status, "0") == 0 ||
           fail("%s refused it: grpc-status %s: %s", pushing.kind->name, readable(status),
                readable((char *)(uintptr_t)header(lines, "grpc-message", message, sizeof message)));
}

/* Parca answers a path that it does not know with its page and status 200: so the type is looked at, too. */
static bool is_taken(reply *answer) {
    char type[100];
    const char *status = strchr(answer->text, ' ');
    header(answer->text, "Content-Type", type, sizeof type);
    if (!status || strtol(status, NULL, 10) != 200) {
        answer->text[strcspn(answer->text, "\r\n")] = '\0';
        return fail("http://%s answers \"%s\"%s%s", pushing.authority, readable(answer->text),
                    answer->body_size > 0 ? ": " : "", readable(answer->body));
    }
    if (strncmp(type, pushing.kind->type, strlen(pushing.kind->type)) != 0) {
        return fail(
            "http://%s answers with \"%s\", not with %s: is this the port of %s (%s unless it was told another), "
            "or of something before it?",
            pushing.authority, readable(type), pushing.kind->type, pushing.kind->name, pushing.kind->port);
    }
    return !pushing.kind->is_parca || is_grpc_fine(answer);
}

static bool post(const bytes *body) {
    static reply answer; /* of the one thread that pushes */
    char head[1000];
    bytes request = {0};
    unsigned char frame[5] = {0, (unsigned char)(body->size >> 24), (unsigned char)(body->size >> 16),
                              (unsigned char)(body->size >> 8), (unsigned char)body->size};
    size_t frame_size = pushing.kind->is_parca ? sizeof frame : 0;
    int size = snprintf(head, sizeof head,
                        "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                        "Connection: close\r\n\r\n",
                        pushing.kind->path, pushing.authority, pushing.kind->type, frame_size + body->size);
    append(&request, head, (size_t)size);
    append(&request, frame, frame_size);
    append(&request, body->data, body->size);
    int connection = request.is_lost ? -1 : open_connection();
    answer.size = 0;
    answer.text[0] = '\0';
    bool is_fine =
        connection >= 0 && send_request(connection, &request) && receive(connection, &answer) && is_taken(&answer);
    if (request.is_lost) {
        fail("no memory for the request");
    }
    if (connection >= 0) {
        close(connection);
    }
    free(request.data);
    return is_fine;
}

/* ---- minute by minute */

static pyprof_result start_recording(void) {
    const pyprof_desc desc = {.max_depth = DEPTH_MOST};
    return pyprof_start(&desc);
}

/* The minute that has ended; NULL if nothing was recorded. Begins the next one. */
static pyprof_profile *next_profile(bool is_last) {
    pyprof_profile *profile = NULL;
    int64_t from = now_ns();
    pyprof_result stopped = pyprof_stop(&profile);
    if (!is_last && start_recording() != PYPROF_OK) {
        fprintf(stderr, "push: there will be no next profile, it is tried again after that: %s\n", pyprof_last_error());
    } else if (!is_last && stopped == PYPROF_OK) {
        int64_t gap = now_ns() - from;
        pushing.gaps++;
        pushing.gaps_ns += gap;
        pushing.gap_most_ns = gap > pushing.gap_most_ns ? gap : pushing.gap_most_ns;
    }
    return profile;
}

static void push(const pyprof_profile *profile) {
    bytes body = {0};
    bool is_made = put_profile(profile, &body);
    if (is_made && body.size == 0) {
        pushing.empty++; /* all threads waited: that is no profile to a server */
    } else if (is_made && post(&body)) {
        pushing.pushed++;
    } else {
        pushing.dropped++;
        fprintf(stderr, "push: a profile is dropped: %s\n", pushing.why);
    }
    free(body.data);
}

/* Whether the host ends before that. */
static bool wait_until(int64_t time_ns) {
    const struct timespec until = {.tv_sec = (time_t)(time_ns / 1000000000), .tv_nsec = (long)(time_ns % 1000000000)};
    int error = 0;
    pthread_mutex_lock(&pushing.mutex);
    while (!pushing.is_ending && error == 0) {
        error = pthread_cond_timedwait(&pushing.wake, &pushing.mutex, &until);
    }
    bool is_ending = pushing.is_ending;
    pthread_mutex_unlock(&pushing.mutex);
    return is_ending;
}

static void *push_minutes(void *unused) {
    (void)unused;
    int64_t time = now_ns();
    for (bool is_last = false; !is_last;) {
        time += pushing.period_ms * 1000000;
        time = time > now_ns() ? time : now_ns();
        is_last = wait_until(time);
        pyprof_profile *profile = next_profile(is_last);
        if (profile) {
            push(profile);
        }
        pyprof_free(profile);
    }
    return NULL;
}

/* Called by exit, wherever it comes from. A child that the script forked has no thread that pushes, but this handler. */
static void end_pushing(void) {
    if (getpid() != pushing.process) {
        return;
    }
    pthread_mutex_lock(&pushing.mutex);
    pushing.is_ending = true;
    pthread_cond_signal(&pushing.wake);
    pthread_mutex_unlock(&pushing.mutex);
    pthread_join(pushing.thread, NULL);
    fprintf(stderr,
            "push: %lu profiles pushed, %lu dropped, %lu empty; between two are not recorded %.1f ms on average, %.1f "
            "at most\n",
            pushing.pushed, pushing.dropped, pushing.empty,
            pushing.gaps > 0 ? (double)pushing.gaps_ns / 1e6 / (double)pushing.gaps : 0,
            (double)pushing.gap_most_ns / 1e6);
}

/* The thread blocks all signals: those of the host are not to be handled there. */
static void begin_pushing(void) {
    sigset_t all, before;
    pthread_condattr_t clock;
    pthread_mutex_init(&pushing.mutex, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&pushing.wake, &clock);
    pthread_condattr_destroy(&clock);
    pushing.process = getpid();
    if (start_recording() != PYPROF_OK) {
        fprintf(stderr, "push: no profiles: %s\n", pyprof_last_error());
        return;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&pushing.thread, NULL, push_minutes, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        pyprof_stop(NULL);
        fprintf(stderr, "push: no profiles: no thread to push them: %s\n", strerror(error));
        return;
    }
    pthread_setname_np(pushing.thread, "push");
    atexit(end_pushing);
}

/* ---- arguments */

/* "http://HOST:PORT" or "http://[::1]:PORT", also with a slash at the end. */
static bool read_url(const char *url) {
    int size = 0;
    bool is_url = sscanf(url, "http://%255[0-9A-Za-z._-]:%5[0-9]%n", pushing.host, pushing.port, &size) == 2 ||
                  sscanf(url, "http://[%255[0-9A-Fa-f:.]]:%5[0-9]%n", pushing.host, pushing.port, &size) == 2;
    if (!is_url || strcmp(url + size + (url[size] == '/'), "") != 0 || atoi(pushing.port) < 1 ||
        atoi(pushing.port) > 65535) {
        return false;
    }
    const int scheme = (int)strlen("http://");
    snprintf(pushing.authority, sizeof pushing.authority, "%.*s", size - scheme, url + scheme);
    return true;
}

static bool read_arguments(char **argv) {
    char *end = NULL;
    long seconds = strtol(argv[4], &end, 10);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        pushing.kind = strcmp(argv[2], kinds[i].name) == 0 ? &kinds[i] : pushing.kind;
    }
    pushing.service = argv[3];
    if (!read_url(argv[1])) {
        fprintf(stderr,
                "push: the server's URL is %s: it has to be http://HOST:PORT (TLS and logins are a proxy's work)\n",
                argv[1]);
    } else if (!pushing.kind) {
        fprintf(stderr, "push: the kind of server is %s: it has to be pyroscope or parca\n", argv[2]);
    } else if (*pushing.service == '\0') {
        fprintf(stderr, "push: the service's name is empty: it is by that name that a server shows the profiles\n");
    } else if (*end != '\0' || seconds < 1 || seconds > 1800) {
        fprintf(stderr, "push: the time of a profile is %s: it has to be 1 to 1800 seconds\n", argv[4]);
    } else {
        pushing.period_ms = seconds * 1000;
        pushing.patience_ms = pushing.period_ms < DEADLINE_MS ? pushing.period_ms : DEADLINE_MS;
        return true;
    }
    return false;
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "usage: push http://HOST:PORT pyroscope|parca SERVICE SECONDS SCRIPT [ARGS...]\n");
        return 2;
    }
    if (!read_arguments(argv)) {
        return 2;
    }
    begin_pushing();
    argv[4] = argv[0];
    return Py_BytesMain(argc - 4, argv + 4);
}
