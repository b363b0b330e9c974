/* wishes.h: what the environment asks of the library that is preloaded (LD_PRELOAD). For libpyprof.c.
 *
 *     PYPROF_OUTPUT=FILE      where the profile is saved, by its ending in any format of exports.h; %p, %n and %t in it
 *                             are the process, the program and the time
 *     PYPROF_RATE=HZ          samples a second (100)
 *     PYPROF_HEAP_OUTPUT=FILE where the profile of its memory is saved, of what is in use when the program ends
 *     PYPROF_HEAP_RATE=KIB    one sample in so many KiB that are allocated, on average (512)
 *     PYPROF_LISTEN=1|PATH    listens for pyprof-ctl, at its usual place or there
 *     PYPROF_START=now|later  later: nothing is recorded until pyprof-ctl asks for it
 *     PYPROF_ONLY=PATTERN     only programs whose name matches it, as a shell matches file names
 *     PYPROF_VERBOSE=1        says why nothing is recorded
 *
 * They are read when the library is loaded, as the program may change its environment and its directory, and judged when
 * CPython begins: programs without it, which inherit them, have nothing to do with them.
 */
#ifndef WISHES_H
#define WISHES_H

#include "../pyprof.h"
#include "exports.h"

#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *output; /* "" = not set, and so of all */
    const char *rate;
    const char *heap_output;
    const char *heap_rate;
    const char *listen;
    const char *start;
    bool is_verbose;
    char program[256];     /* its name; servers write what they do in its place */
    char folder[PATH_MAX]; /* in which paths are meant */
} asked;

/* What they come to. */
typedef struct wishes {
    char output[PATH_MAX]; /* "" = none */
    char socket[PATH_MAX];
    exports_format format;
    char heap_output[PATH_MAX];
    exports_format heap_format;
    unsigned long long heap_bytes; /* 0 = it is not sampled */
    uint32_t interval_us;
    bool is_listening;
    bool is_later;
    bool is_for_children;      /* each process has its own file */
    bool is_heap_for_children; /* of its memory */
} wishes;

/* One line on standard error. */
static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...) {
    char text[PATH_MAX + 256];
    int used = snprintf(text, sizeof text - 1, "pyprof: ");
    va_list values;
    va_start(values, format);
    int more = vsnprintf(text + used, sizeof text - 1 - (size_t)used, format, values);
    va_end(values);
    size_t length = more < 0 ? (size_t)used : strlen(text);
    for (size_t i = 0; i < length; i++) {
        text[i] =
            (unsigned char)text[i] < ' ' ? '?' : text[i]; /* a file's name may hold anything: one line, all the same */
    }
    text[length] = '\n';
    (void)!write(STDERR_FILENO, text, length + 1);
}

/* Why it is not recorded, for who asked. */
static void explain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void explain(const char *format, ...) {
    char why[512];
    va_list values;
    if (asked.is_verbose) {
        va_start(values, format);
        (void)vsnprintf(why, sizeof why, format, values);
        va_end(values);
        say("%s (%ld) is left alone: %s", asked.program, (long)getpid(), why);
    }
}

/* Kept, as the program may change its environment. */
static const char *take_variable(const char *name) {
    const char *value = getenv(name);
    const char *copy = value != NULL && *value != '\0' ? strdup(value) : NULL;
    return copy != NULL ? copy : "";
}

static bool is_switched_on(const char *value) {
    return *value != '\0' && strcmp(value, "0") != 0;
}

/* Whether this program is to do anything, once CPython begins in it. */
static bool take_wishes(void) {
    const char *only = getenv("PYPROF_ONLY");
    const char *verbose = getenv("PYPROF_VERBOSE"), *output = getenv("PYPROF_OUTPUT"),
               *heap_output = getenv("PYPROF_HEAP_OUTPUT"), *listen = getenv("PYPROF_LISTEN");
    asked.is_verbose = verbose != NULL && is_switched_on(verbose);
    bool is_asked = (output != NULL && *output != '\0') || (heap_output != NULL && *heap_output != '\0') ||
                    (listen != NULL && is_switched_on(listen));
    if (!is_asked) {
        explain("none of PYPROF_OUTPUT, PYPROF_HEAP_OUTPUT and PYPROF_LISTEN is set");
        return false;
    }
    if (only != NULL && *only != '\0' && fnmatch(only, asked.program, 0) != 0) {
        explain("its name does not match PYPROF_ONLY=%s", only);
        return false;
    }
    asked.output = take_variable("PYPROF_OUTPUT");
    asked.rate = take_variable("PYPROF_RATE");
    asked.heap_output = take_variable("PYPROF_HEAP_OUTPUT");
    asked.heap_rate = take_variable("PYPROF_HEAP_RATE");
    asked.listen = take_variable("PYPROF_LISTEN");
    asked.start = take_variable("PYPROF_START");
    if (getcwd(asked.folder, sizeof asked.folder) == NULL) {
        asked.folder[0] = '\0';
    }
    return true;
}

/* A pattern with the program's name in the place of %n. False: it is too long. */
static bool put_program(const char *pattern, char *to, size_t size) {
    size_t used = 0;
    for (const char *at = pattern; *at != '\0' && used < size - 1; at++) {
        bool is_name = strncmp(at, "%n", 2) == 0, is_other = !is_name && at[0] == '%' && at[1] != '\0';
        int length = (int)strlen(asked.program);
        used += (size_t)snprintf(to + used, size - used, "%.*s", is_name ? length : 1 + is_other,
                                 is_name ? asked.program : at);
        at += is_name || is_other;
    }
    return used < size - 1;
}

/* The path that a pattern means, from the folder that the program began in. False: it is too long. */
static bool expand_path(const char *pattern, char *path, size_t size) {
    char named[PATH_MAX];
    uint64_t now = pyprof__clock(CLOCK_REALTIME);
    size_t used = pattern[0] == '/' ? 0 : (size_t)snprintf(path, size, "%s/", asked.folder);
    return put_program(pattern, named, sizeof named) && used < size &&
           pyprof__expand(named, now, path + used, size - used) <= size - used;
}

/* Found out now, not after an hour's run. */
static bool can_write(const char *path) {
    char folder[PATH_MAX];
    const char *name = strrchr(path, '/');
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(name - path) + 1, path);
    return access(path, F_OK) == 0 ? access(path, W_OK) == 0 : access(folder, W_OK | X_OK) == 0;
}

/* A variable that names a file: its path, and its format. */
static bool read_path(const char *variable, const char *pattern, char *path, exports_format *format) {
    char known[256];
    *format = exports_format_of_path(pattern);
    if (*format == EXPORTS_FORMAT_NONE) {
        say("nothing is recorded: the ending of %s=%s names no format: %s", variable, pattern,
            exports_list(known, sizeof known));
        return false;
    }
    if (!expand_path(pattern, path, PATH_MAX)) {
        say("nothing is recorded: %s is too long", variable);
        return false;
    }
    if (!can_write(path)) {
        say("nothing is recorded: %s: cannot write %s: %s", variable, path, strerror(errno));
        return false;
    }
    return true;
}

static bool read_output(wishes *to) {
    to->is_for_children = strstr(asked.output, "%p") != NULL;
    return *asked.output == '\0' || read_path("PYPROF_OUTPUT", asked.output, to->output, &to->format);
}

static bool read_heap_output(wishes *to) {
    to->is_heap_for_children = strstr(asked.heap_output, "%p") != NULL;
    if (*asked.heap_output == '\0') {
        return true;
    }
    if (!read_path("PYPROF_HEAP_OUTPUT", asked.heap_output, to->heap_output, &to->heap_format)) {
        return false;
    }
    if (!exports_has_memory(to->heap_format)) {
        say("nothing is recorded: PYPROF_HEAP_OUTPUT=%s: %s shows times, and none of memory", asked.heap_output,
            exports_name(to->heap_format));
        return false;
    }
    if (strcmp(to->output, to->heap_output) == 0) {
        say("nothing is recorded: PYPROF_OUTPUT and PYPROF_HEAP_OUTPUT are one file");
        return false;
    }
    return true;
}

static bool read_heap_rate(wishes *to) {
    const double least = 0.001, most = 1048576;
    char *end = NULL;
    double kib = *asked.heap_rate != '\0' ? strtod(asked.heap_rate, &end) : 512;
    if ((end != NULL && (end == asked.heap_rate || *end != '\0')) || !(kib >= least && kib <= most)) {
        say("nothing is recorded: PYPROF_HEAP_RATE=%s is not a number of KiB from %g to %.7g", asked.heap_rate, least,
            most);
        return false;
    }
    to->heap_bytes = to->heap_output[0] != '\0' ? (unsigned long long)(kib * 1024 + 0.5) : 0;
    return true;
}

static bool read_rate(wishes *to) {
    const double least = 0.1, most = 20000;
    char *end = NULL;
    double rate = *asked.rate != '\0' ? strtod(asked.rate, &end) : 100;
    if ((end != NULL && (end == asked.rate || *end != '\0')) || !(rate >= least && rate <= most)) {
        say("nothing is recorded: PYPROF_RATE=%s is not a number from %g to %g", asked.rate, least, most);
        return false;
    }
    to->interval_us = (uint32_t)(1e6 / rate + 0.5);
    return true;
}

static bool read_listen(wishes *to) {
    to->is_listening = is_switched_on(asked.listen);
    if (!to->is_listening || strcmp(asked.listen, "1") == 0) {
        return true;
    }
    if (!expand_path(asked.listen, to->socket, sizeof to->socket)) {
        say("nothing is recorded: PYPROF_LISTEN is too long");
        return false;
    }
    return true;
}

static bool read_start(wishes *to) {
    to->is_later = strcmp(asked.start, "later") == 0;
    if (*asked.start != '\0' && !to->is_later && strcmp(asked.start, "now") != 0) {
        say("nothing is recorded: PYPROF_START=%s is neither now nor later", asked.start);
        return false;
    }
    if (to->is_later && !to->is_listening) {
        say("nothing is recorded: PYPROF_START=later needs PYPROF_LISTEN, or nobody can ask for it");
        return false;
    }
    return true;
}

/* False: what is wrong was said. */
static bool read_wishes(wishes *to) {
    memset(to, 0, sizeof *to);
    return read_output(to) && read_rate(to) && read_heap_output(to) && read_heap_rate(to) && read_listen(to) &&
           read_start(to);
}

#endif
