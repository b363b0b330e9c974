/* pyprof-ctl: looks into programs that called pyprof_listen, and records in them.
 *
 *     pyprof-ctl list
 *     pyprof-ctl record 4711 -d 10 -o game.svg
 *     pyprof-ctl dump 4711
 *
 * A host sends what it has recorded whole, as lines of JSON (see >>answers in pyprof.h). All else is done here: filters,
 * formats, the difference of two snapshots. So an old host gives all that a new pyprof-ctl can write.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#define PYPROF_NO_RECORDING
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"
#define EXPORTS_IMPLEMENTATION
#include "exports.h"

#include "attach.h"
#include "filter_options.h"
#include "imports.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

enum {
    CTL_FAILED = 1,
    CTL_USAGE = 2,
    CTL_PATIENCE_S = 70, /* a host gives up after 60 */
    CTL_LIST_S = 5,
    CTL_TOP_S = 10 /* as keys wait meanwhile */
};

static const char ctl_help[] =
    "usage: pyprof-ctl COMMAND [PID|SOCKET] [OPTIONS]\n"
    "\n"
    "Looks into programs with pyprof.h inside that called pyprof_listen, of your own user (root: of all); and into\n"
    "any other with CPython, by attach.\n"
    "\n"
    "  list                    those that listen\n"
    "  status PID              what one of them does\n"
    "  dump PID                where its threads are now. Each has a state: 'holds the GIL', 'waiting for the\n"
    "                          GIL', 'waiting', or 'running without the GIL'\n"
    "  record PID -d SECONDS   records for so long. If something is being recorded already, that goes on, and\n"
    "                          its part of that time is taken\n"
    "  snapshot PID            what was recorded so far; the recording goes on\n"
    "  start PID               begins a recording\n"
    "  stop PID                ends it, and writes it; also one that the program began, which then has none\n"
    "  top PID                 what takes most, anew each second; q ends it, h tells the other keys\n"
    "  heap PID                what of its memory is in use, by the lines of Python that allocated it; as soon\n"
    "                          as sampling was begun there: by --start, or by the program (pyprof_heap_start)\n"
    "  attach PID              has a program with CPython listen that was not made for it\n"
    "  attach PID --then COMMAND [OPTIONS]\n"
    "                          and goes on with that command, one of the above\n"
    "\n"
    "PID may be the path of a socket: of a program that gave its own to pyprof_listen.\n"
    "\n"
    " record, snapshot, stop and heap write:\n"
    "  -o, --output FILE       where to (default: standard output, as a table)\n"
    "  -f, --format FORMAT     one of these, if the ending of FILE does not say:\n";

static const char ctl_options_help[] =
    "      --metric METRIC     wall, cpu, gil or samples (default: wall); of heap inuse_space, inuse_objects,\n"
    "                          alloc_space or alloc_objects (default: inuse_space)\n"
    "  -i, --idle              also the time in which threads only wait\n"
    "  -F, --function          one frame a function, not one a line\n"
    "      --only-thread NAME, --only-interpreter NAME\n"
    "      --only-file PATH, --only-function NAME\n"
    "                          only these; * in a name stands for any text\n"
    "      --only-mine         frames of one package that is not yours are one frame\n"
    "      --min-share PART    what has less of the whole (0 to 1) is added to its caller\n"
    "      --drop              stop: write nothing\n"
    "\n"
    " record and start:\n"
    "  -d, --duration SECONDS  how long to record (top --once: 1)\n"
    "  -r, --rate HZ           samples a second (default: 100)\n"
    "      --memory MIB        that the recording may hold (default: 64)\n"
    "      --depth FRAMES      that a stack may have (default: 1024)\n"
    "\n"
    " heap:\n"
    "      --start KIB         begins to sample what is allocated, one in so many KiB on average (1 to 1048576;\n"
    "                          512 costs little). What was allocated before is not known\n"
    "      --stop              takes no new samples; those that live are followed on\n"
    "      --stats             what was sampled, and how exact it is\n"
    "\n"
    " list, status, dump, top and heap --stats:\n"
    "      --json              for programs: one line of JSON, of list one a program\n"
    "      --once              top: print one second's figures, and end\n"
    "  -n, --rows ROWS         top: that many (default: 20, and on a terminal what has room)\n"
    "\n"
    " attach:\n"
    "      --timeout SECONDS   within which the program's main thread has to run Python (default: 10)\n"
    "      --library FILE      to load there (default: libpyprof-3.X.so that was built for that CPython)\n"
    "      --undo              has it listen no more; the library stays loaded, and does nothing\n"
    "\n"
    "  -h, --help              this text\n"
    "\n"
    "Exit code: 0 done, 1 it could not be done, 2 the command line is wrong.\n";

/* ---- messages ----------------------------------------------------------------------------------------------- */

static bool ctl_has_screen; /* top shows its figures where the terminal shows something else again afterwards */

static void ctl_leave_screen(void) {
    if (ctl_has_screen) {
        fputs("\033[?1049l", stdout);
        fflush(stdout);
        ctl_has_screen = false;
    }
}

/* One line on standard error, whatever names have in them. Always CTL_FAILED. */
__attribute__((format(printf, 1, 2))) static int ctl_complain(const char *format, ...) {
    char text[2048];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    for (char *at = text; *at != '\0'; at++) {
        *at = (unsigned char)*at < ' ' || *at == 0x7f ? '?' : *at;
    }
    ctl_leave_screen();
    fprintf(stderr, "pyprof-ctl: %s\n", text);
    return CTL_FAILED;
}

/* Whether all is out; a part that failed before is not tried again. */
static bool ctl_is_written(void) {
    bool is_written = fflush(stdout) == 0 && !ferror(stdout);
    if (!is_written) {
        ctl_complain("cannot write standard output");
    }
    return is_written;
}

/* ---- the command line --------------------------------------------------------------------------------------- */

typedef struct ctl_request {
    const char *command;
    const char *host; /* as it was given: an id or a path */
    long pid;         /* 0 = a path was given */
    char path[4096];  /* of the socket */
    const char *output, *format_name;
    exports_format format;
    pyprof_output view;
    double duration_s, rate_hz; /* 0 = not said */
    unsigned long memory_mib, depth, rows;
    int patience_s; /* with a host that says nothing */
    bool is_dropped, is_json, is_once;
    pyprof_kind kind; /* of the metric, if has_metric */
    bool has_metric;
    char heap_act; /* 's' start, 'e' end, 't' stats; 0 = a snapshot */
    double heap_kib;
    attach_order attach;
} ctl_request;

enum {
    CTL_METRIC = 256,
    CTL_DROP,
    CTL_MEMORY,
    CTL_DEPTH,
    CTL_JSON,
    CTL_ONCE,
    CTL_TIMEOUT,
    CTL_LIBRARY,
    CTL_UNDO,
    CTL_HEAP_START,
    CTL_HEAP_STOP,
    CTL_HEAP_STATS
};

static const struct option ctl_options[] = {{"output", required_argument, NULL, 'o'},
                                            {"format", required_argument, NULL, 'f'},
                                            {"metric", required_argument, NULL, CTL_METRIC},
                                            {"idle", no_argument, NULL, 'i'},
                                            {"function", no_argument, NULL, 'F'},
                                            FILTER_OPTIONS,
                                            {"drop", no_argument, NULL, CTL_DROP},
                                            {"duration", required_argument, NULL, 'd'},
                                            {"rate", required_argument, NULL, 'r'},
                                            {"memory", required_argument, NULL, CTL_MEMORY},
                                            {"depth", required_argument, NULL, CTL_DEPTH},
                                            {"json", no_argument, NULL, CTL_JSON},
                                            {"once", no_argument, NULL, CTL_ONCE},
                                            {"rows", required_argument, NULL, 'n'},
                                            {"timeout", required_argument, NULL, CTL_TIMEOUT},
                                            {"library", required_argument, NULL, CTL_LIBRARY},
                                            {"undo", no_argument, NULL, CTL_UNDO},
                                            {"start", required_argument, NULL, CTL_HEAP_START},
                                            {"stop", no_argument, NULL, CTL_HEAP_STOP},
                                            {"stats", no_argument, NULL, CTL_HEAP_STATS},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};

/* What a command takes: options by their letters, those without one by the first letter of their name here. */
typedef struct ctl_command {
    const char *name;
    bool has_host, has_view, has_rate, has_duration, has_json, is_top, is_attach, is_heap;
} ctl_command;

static const ctl_command ctl_commands[] = {{"list", false, false, false, false, true, false, false, false},
                                           {"status", true, false, false, false, true, false, false, false},
                                           {"dump", true, false, false, false, true, false, false, false},
                                           {"record", true, true, true, true, false, false, false, false},
                                           {"snapshot", true, true, false, false, false, false, false, false},
                                           {"start", true, false, true, false, false, false, false, false},
                                           {"stop", true, true, false, false, false, false, false, false},
                                           {"top", true, true, true, true, true, true, false, false},
                                           {"heap", true, true, false, false, true, false, false, true},
                                           {"attach", true, false, false, false, false, false, true, false}};

static const ctl_command *ctl_find_command(const char *name) {
    for (size_t i = 0; i < sizeof ctl_commands / sizeof *ctl_commands; i++) {
        if (strcmp(ctl_commands[i].name, name) == 0) {
            return &ctl_commands[i];
        }
    }
    return NULL;
}

static bool ctl_number(const char *name, const char *text, double least, double most, double *number) {
    char *end = NULL;
    *number = strtod(text, &end);
    if (end == text || *end != '\0' || !(*number >= least && *number <= most)) {
        ctl_complain("%s: '%s' is not a number from %g to %g", name, text, least, most);
        return false;
    }
    return true;
}

static bool ctl_whole(const char *name, const char *text, double least, double most, unsigned long *number) {
    double value = 0;
    bool is_good = ctl_number(name, text, least, most, &value);
    *number = (unsigned long)value;
    return is_good;
}

static bool ctl_set_metric(ctl_request *request, const char *text) {
    static const char *const metrics[] = {"wall",        "cpu",         "gil",           "samples",
                                          "inuse_space", "alloc_space", "alloc_objects", "inuse_objects"};
    for (unsigned i = 0; i < 8; i++) {
        if (strcmp(text, metrics[i]) == 0) {
            request->view.metric = (pyprof_metric)(i % 4);
            request->kind = (pyprof_kind)(i / 4);
            return request->has_metric = true;
        }
    }
    ctl_complain("--metric: '%s' is not wall, cpu, gil or samples, nor inuse_space, inuse_objects, alloc_space or "
                 "alloc_objects",
                 text);
    return false;
}

static bool ctl_set_filter(ctl_request *request, int option, const char *value) {
    filter_taken taken = filter_take(&request->view, option, value);
    if (taken == FILTER_WRONG) {
        ctl_complain(FILTER_WRONG_VALUE, value);
    }
    return taken == FILTER_TAKEN;
}

/* An option of what is shown. False: it is none, or it was said what is wrong. */
static bool ctl_set_view(ctl_request *request, int option, const char *value) {
    switch (option) {
    case 'o':
        request->output = value;
        return true;
    case 'f':
        request->format_name = value;
        return true;
    case CTL_METRIC:
        return ctl_set_metric(request, value);
    case 'i':
        return request->view.include_idle = true;
    case 'F':
        request->view.detail = PYPROF_DETAIL_FUNCTION;
        return true;
    case CTL_DROP:
        return request->is_dropped = true;
    default:
        return ctl_set_filter(request, option, value);
    }
}

/* One of what heap does. */
static bool ctl_set_heap(ctl_request *request, char act) {
    if (request->heap_act != 0 && request->heap_act != act) {
        ctl_complain("heap: --start, --stop and --stats are one at a time");
        return false;
    }
    request->heap_act = act;
    return true;
}

static bool ctl_set_option(ctl_request *request, int option, const char *value) {
    switch (option) {
    case CTL_HEAP_START:
        return ctl_set_heap(request, 's') && ctl_number("--start", value, 1, 1 << 20, &request->heap_kib);
    case CTL_HEAP_STOP:
        return ctl_set_heap(request, 'e');
    case CTL_HEAP_STATS:
        return ctl_set_heap(request, 't');
    case 'd':
        return ctl_number("--duration", value, 0.001, 1e6, &request->duration_s);
    case 'r':
        return ctl_number("--rate", value, 0.1, 20000, &request->rate_hz);
    case CTL_MEMORY:
        return ctl_whole("--memory", value, 1, 1 << 20, &request->memory_mib);
    case CTL_DEPTH:
        return ctl_whole("--depth", value, 16, 65536, &request->depth);
    case 'n':
        return ctl_whole("--rows", value, 1, 10000, &request->rows);
    case CTL_JSON:
        return request->is_json = true;
    case CTL_ONCE:
        return request->is_once = true;
    case CTL_TIMEOUT:
        return ctl_number("--timeout", value, 0.1, 86400, &request->attach.timeout_s);
    case CTL_LIBRARY:
        request->attach.library = value;
        return true;
    case CTL_UNDO:
        return request->attach.is_undone = true;
    default:
        return ctl_set_view(request, option, value);
    }
}

/* Whether the command takes an option; what takes none is a slip that would go unnoticed. */
static bool ctl_takes(const ctl_command *command, int option) {
    switch (option) {
    case 'o':
    case 'f':
        return command->has_view && !command->is_top;
    case CTL_DROP:
        return strcmp(command->name, "stop") == 0;
    case 'd':
        return command->has_duration;
    case 'r':
        return command->has_rate;
    case CTL_MEMORY:
    case CTL_DEPTH:
        return command->has_rate || command->is_heap;
    case CTL_JSON:
        return command->has_json;
    case CTL_HEAP_START:
    case CTL_HEAP_STOP:
    case CTL_HEAP_STATS:
        return command->is_heap;
    case 'i':
        return command->has_view && !command->is_heap;
    case CTL_ONCE:
    case 'n':
        return command->is_top;
    case CTL_TIMEOUT:
    case CTL_LIBRARY:
    case CTL_UNDO:
        return command->is_attach;
    default:
        return command->has_view;
    }
}

/* Which format is written. False: it was said what is wrong. */
static bool ctl_choose_format(ctl_request *request) {
    exports_format asked = EXPORTS_FORMAT_NONE;
    char list[256];
    if (request->format_name != NULL) {
        asked = exports_format_of_name(request->format_name);
        if (asked == EXPORTS_FORMAT_NONE) {
            ctl_complain("--format: '%s' is none of %s", request->format_name, exports_list(list, sizeof list));
            return false;
        }
    }
    bool is_stream = request->output == NULL || strcmp(request->output, "-") == 0;
    request->output = is_stream ? NULL : request->output;
    request->format = !is_stream                     ? exports_choose(request->output, asked)
                      : asked != EXPORTS_FORMAT_NONE ? asked
                                                     : EXPORTS_FORMAT_TABLE;
    if (request->format == EXPORTS_FORMAT_NONE) {
        ctl_complain(asked == EXPORTS_FORMAT_NONE ? "%s: its ending means no format: say it by --format, one of %s"
                                                  : "%s: its ending means another format than --format (one of %s)",
                     request->output, exports_list(list, sizeof list));
        return false;
    }
    bool is_heap = ctl_find_command(request->command)->is_heap;
    if (is_heap && !exports_has_memory(request->format)) {
        ctl_complain("%s shows times, and heap writes a profile of memory", exports_name(request->format));
        return false;
    }
    if (!is_heap && request->format == EXPORTS_FORMAT_PSTATS && request->view.metric == PYPROF_METRIC_SAMPLES) {
        ctl_complain("pstats has seconds: --metric has to be wall, cpu or gil");
        return false;
    }
    return true;
}

/* The command and its host. False: it was said what is wrong. */
static bool ctl_set_words(ctl_request *request, char *const *words, int count) {
    const ctl_command *command = count > 0 ? ctl_find_command(words[0]) : NULL;
    if (command == NULL) {
        ctl_complain(count > 0 ? "there is no command '%s'" : "a command is missing%s", count > 0 ? words[0] : "");
        return false;
    }
    request->command = command->name;
    if (count != (command->has_host ? 2 : 1)) {
        ctl_complain(command->has_host && count < 2 ? "%s: which program? 'pyprof-ctl list' shows those that listen"
                                                    : "%s: there is an argument too many",
                     words[0]);
        return false;
    }
    request->host = count == 2 ? words[1] : NULL;
    return true;
}

/* What of heap's options do not go together. False: it was said. */
static bool ctl_check_heap(const ctl_request *request) {
    bool writes = request->output != NULL || request->format_name != NULL;
    if (request->heap_act != 0 && writes) {
        ctl_complain("heap: with --start, --stop and --stats nothing is written");
    } else if (request->is_json && request->heap_act != 't') {
        ctl_complain("heap: --json is for --stats; a profile as JSON is --format jsonl");
    } else if (request->heap_act != 's' && (request->memory_mib > 0 || request->depth > 0)) {
        ctl_complain("heap: --memory and --depth are for --start");
    } else {
        return true;
    }
    return false;
}

/* False: it was said what is wrong. *help: it was asked for. */
static bool ctl_parse(int argc, char **argv, ctl_request *request, bool *help) {
    int option, given[64], count = 0;
    request->patience_s = CTL_PATIENCE_S;
    request->attach.timeout_s = 10;
    opterr = 0;
    optind = 0; /* it may have read another command line */
    while ((option = getopt_long(argc, argv, ":o:f:iFd:r:n:h", ctl_options, NULL)) != -1) {
        if (option == '?' || option == ':') {
            ctl_complain(option == ':' ? "%s wants a value" : "there is no option %s", argv[optind - 1]);
            return false;
        }
        *help = *help || option == 'h';
        if (option != 'h' && !ctl_set_option(request, option, optarg)) {
            return false;
        }
        if (option != 'h' && count < 64) {
            given[count++] = option;
        }
    }
    if (*help) {
        return true;
    }
    if (!ctl_set_words(request, argv + optind, argc - optind)) {
        return false;
    }
    const ctl_command *command = ctl_find_command(request->command);
    for (int i = 0; i < count; i++) {
        if (!ctl_takes(command, given[i])) {
            ctl_complain("%s: one of the options is not for this command", command->name);
            return false;
        }
    }
    if (request->has_metric && (request->kind == PYPROF_KIND_HEAP) != command->is_heap) {
        ctl_complain("%s: that metric is %s", command->name,
                     command->is_heap ? "none of memory: inuse_space, inuse_objects, alloc_space or alloc_objects"
                                      : "of memory, which 'pyprof-ctl heap' shows");
        return false;
    }
    if (command->is_heap && !ctl_check_heap(request)) {
        return false;
    }
    if (strcmp(request->command, "record") == 0 && request->duration_s == 0) {
        ctl_complain("record: for how long? --duration SECONDS says it");
        return false;
    }
    request->patience_s = command->is_top ? CTL_TOP_S : request->patience_s;
    return !command->has_view || command->is_top || request->is_dropped || request->heap_act != 0 ||
           ctl_choose_format(request);
}

/* ---- the way to a host -------------------------------------------------------------------------------------- */

/* The folders in which hosts of a user have their sockets, by number; false = there are no more. */
static bool ctl_folder(unsigned number, unsigned long uid, char *path, size_t size) {
    const char *base = getenv("XDG_RUNTIME_DIR");
    char own[64];
    snprintf(own, sizeof own, "/run/user/%lu", uid);
    if (number == 0 && (base == NULL || base[0] != '/' || strcmp(base, own) == 0 || strcmp(base, "/tmp") == 0)) {
        base = NULL;
    }
    const char *bases[] = {base, own, "/tmp"};
    if (number >= sizeof bases / sizeof *bases) {
        return false;
    }
    snprintf(path, size, "%s/pyprof-%lu", bases[number] != NULL ? bases[number] : "/nonexistent", uid);
    return true;
}

/* Connects within patience. -1: errno says why. */
static int ctl_connect(const char *path, int patience_s) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {patience_s, 0};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    int host = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (host >= 0) {
        (void)setsockopt(host, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        (void)setsockopt(host, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }
    if (host >= 0 && connect(host, (struct sockaddr *)&address, sizeof address) != 0) {
        int error = errno;
        close(host);
        errno = error;
        host = -1;
    }
    return host;
}

/* Whether a socket for the id lies where hosts of that user have theirs; request->path is it. */
static bool ctl_has_socket(ctl_request *request, unsigned long uid) {
    char folder[4000];
    for (unsigned i = 0; ctl_folder(i, uid, folder, sizeof folder); i++) {
        snprintf(request->path, sizeof request->path, "%s/%ld.sock", folder, request->pid);
        if (access(request->path, F_OK) == 0) {
            return true;
        }
    }
    return false;
}

/* Finds the socket of a host that was named by its id. False: it was said why not. */
static bool ctl_find_host(ctl_request *request) {
    struct stat status;
    char process[32], *end = NULL;
    request->pid = strtol(request->host, &end, 10);
    if (*end != '\0' || request->pid <= 0) {
        request->pid = 0;
        snprintf(request->path, sizeof request->path, "%s", request->host);
        return true;
    }
    snprintf(process, sizeof process, "/proc/%ld", request->pid);
    if (stat(process, &status) != 0) {
        ctl_complain("there is no process %ld: 'pyprof-ctl list' shows those that listen", request->pid);
        return false;
    }
    if (ctl_has_socket(request, (unsigned long)geteuid())) {
        return true;
    }
    if (status.st_uid != geteuid() && geteuid() != 0) {
        ctl_complain("process %ld is of user %lu: only that user and root may ask it", request->pid,
                     (unsigned long)status.st_uid);
        return false;
    }
    if (ctl_has_socket(request, (unsigned long)status.st_uid)) {
        return true;
    }
    ctl_complain("process %ld does not listen: it has to call pyprof_listen(NULL); if it has a socket elsewhere, name "
                 "that in the place of %ld",
                 request->pid, request->pid);
    return false;
}

/* What comes back. */
typedef struct ctl_bytes {
    char *data; /* with a zero behind it */
    size_t size, capacity;
} ctl_bytes;

static bool ctl_reserve(ctl_bytes *bytes, size_t more) {
    while (bytes->capacity - bytes->size <= more) {
        size_t capacity = bytes->capacity > 0 ? 2 * bytes->capacity : 65536;
        char *data = (char *)realloc(bytes->data, capacity);
        if (data == NULL) {
            ctl_complain("out of memory");
            return false;
        }
        bytes->data = data;
        bytes->capacity = capacity;
    }
    return true;
}

static void ctl_free(ctl_bytes *bytes) {
    free(bytes->data);
    memset(bytes, 0, sizeof *bytes);
}

/* Says why a host did not answer as it should. */
static int ctl_failed(const ctl_request *request, const char *line) {
    char *text = NULL;
    long code = strncmp(line, "error ", 6) == 0 ? strtol(line + 6, &text, 10) : 0;
    if (text == NULL) {
        return ctl_complain("%s: the connection was cut: the program has ended, listens no more, or was too busy to "
                            "answer",
                            request->host);
    }
    text += *text == ' ';
    bool is_heap = ctl_find_command(request->command)->is_heap;
    if (code == PYPROF_ERROR_FORMAT && is_heap) {
        return ctl_complain("%s: its pyprof.h is too old for this, or was compiled with PYPROF_NO_HEAP (%s)",
                            request->host, text);
    }
    if (code == PYPROF_ERROR_NOT_ACTIVE && is_heap) {
        return ctl_complain("%s: its memory is not sampled: 'pyprof-ctl heap %s --start 512' begins it", request->host,
                            request->host);
    }
    if (code == PYPROF_ERROR_FORMAT) {
        return ctl_complain("%s: its pyprof.h is too old for this command (%s)", request->host, text);
    }
    if (code == PYPROF_ERROR_NOT_ACTIVE) {
        return ctl_complain(
            "%s: nothing is being recorded there: 'pyprof-ctl start %s' begins it, 'record' does all at once",
            request->host, request->host);
    }
    return ctl_complain("%s: %s", request->host, text);
}

/* Takes an answer's pieces out of their frames. False: it was said why not. */
static bool ctl_read_pieces(const ctl_request *request, FILE *from, ctl_bytes *answer) {
    char line[1024] = "";
    bool is_good = fgets(line, sizeof line, from) != NULL && strcmp(line, "ok\n") == 0;
    while (is_good) {
        char *end = NULL;
        is_good = fgets(line, sizeof line, from) != NULL && isdigit((unsigned char)line[0]);
        unsigned long size = is_good ? strtoul(line, &end, 10) : 0;
        is_good = is_good && *end == '\n';
        if (is_good && size == 0) {
            return true;
        }
        if (is_good && (size > (unsigned long)1 << 30 || !ctl_reserve(answer, size))) {
            return false;
        }
        is_good = is_good && fread(answer->data + answer->size, 1, size, from) == size;
        answer->size += is_good ? size : 0;
        if (answer->data != NULL) {
            answer->data[answer->size] = '\0';
        }
    }
    line[strcspn(line, "\n")] = '\0';
    ctl_failed(request, line);
    return false;
}

/* Asks a host. False: it was said why there is no answer. */
static bool ctl_ask(const ctl_request *request, const char *words, ctl_bytes *answer) {
    int host = ctl_connect(request->path, request->patience_s);
    answer->size = 0;
    if (host < 0) {
        const char *why =
            errno == ECONNREFUSED || errno == ENOENT ? "nobody listens there (any more)" : strerror(errno);
        ctl_complain("%s: %s", request->host, why);
        return false;
    }
    (void)dprintf(host, "pyprof 1 %s\n", words); /* that it failed shows in the answer, which then is none */
    FILE *from = fdopen(host, "r");
    bool is_good = from != NULL && ctl_reserve(answer, 1) && ctl_read_pieces(request, from, answer);
    if (from != NULL) {
        fclose(from);
    } else {
        close(host);
    }
    return is_good;
}

/* ---- what a host says of itself ------------------------------------------------------------------------------ */

typedef struct ctl_status {
    char program[512], python[64];
    uint64_t pid, start_ns, duration_ns, interval_us, samples, ticks, ticks_missed, bytes, threads;
    bool is_recording;
} ctl_status;

static void ctl_take_text(json_reader *json, char *to, size_t size) {
    json_text text;
    char *own = json_string(json, &text) ? (char *)malloc(text.size + 1) : NULL;
    if (own != NULL) {
        size_t length = json_decode(&text, own);
        snprintf(to, size, "%.*s", (int)length, own);
    }
    free(own);
}

/* Fills in what is known by that name, in the object that the reader has come to. */
static void ctl_take_fields(json_reader *json, ctl_status *status) {
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = {{"pid", &status->pid},
                   {"start_ns", &status->start_ns},
                   {"duration_ns", &status->duration_ns},
                   {"interval_us", &status->interval_us},
                   {"samples", &status->samples},
                   {"ticks", &status->ticks},
                   {"ticks_missed", &status->ticks_missed},
                   {"bytes", &status->bytes},
                   {"threads", &status->threads}};
    json_text key;
    for (json_enter(json, '{'); json_next(json, '}');) {
        uint64_t *number = NULL;
        bool is_known = json_key(json, &key);
        for (size_t i = 0; is_known && i < sizeof numbers / sizeof *numbers; i++) {
            number = json_is(&key, numbers[i].name) ? numbers[i].to : number;
        }
        if (number != NULL) {
            (void)json_number(json, 0, number);
        } else if (is_known && json_is(&key, "program")) {
            ctl_take_text(json, status->program, sizeof status->program);
        } else if (is_known && json_is(&key, "python")) {
            ctl_take_text(json, status->python, sizeof status->python);
        } else if (is_known && json_is(&key, "stats")) {
            ctl_take_fields(json, status);
        } else if (is_known) {
            status->is_recording = json_is(&key, "is_recording") ? json_peek(json) == 't' : status->is_recording;
            (void)json_skip(json);
        }
    }
}

static bool ctl_parse_status(const ctl_request *request, const ctl_bytes *answer, ctl_status *status) {
    json_reader json = json_begin(answer->data, answer->size);
    memset(status, 0, sizeof *status);
    ctl_take_fields(&json, status);
    if (json_end(&json)) {
        return true;
    }
    ctl_complain("%s: what it says of itself is no JSON: %s", request->host, json.wrong);
    return false;
}

static bool ctl_get_status(const ctl_request *request, ctl_bytes *answer, ctl_status *status) {
    return ctl_ask(request, "status", answer) && ctl_parse_status(request, answer, status);
}

static const char *ctl_file_name(const char *path) {
    return path + pyprof__last_part(path, strlen(path));
}

/* Since when, as a text of local time. */
static const char *ctl_since(uint64_t start_ns, char *text, size_t size) {
    time_t seconds = (time_t)(start_ns / 1000000000u);
    struct tm parts;
    return localtime_r(&seconds, &parts) != NULL && strftime(text, size, "%F %T", &parts) > 0 ? text : "?";
}

static int ctl_tell_status(ctl_request *request) {
    ctl_bytes answer = {0};
    ctl_status status;
    char since[64];
    bool is_good = ctl_get_status(request, &answer, &status);
    if (is_good && request->is_json) {
        fputs(answer.data, stdout);
    } else if (is_good) {
        printf("process    %llu, %s\nPython     %s\n", (unsigned long long)status.pid, status.program, status.python);
        printf("recording  %s\n", status.is_recording ? "yes" : "no");
        if (status.is_recording) {
            printf("since      %s, for %.1f s\n", ctl_since(status.start_ns, since, sizeof since),
                   (double)status.duration_ns / 1e9);
            printf("rate       %.4g Hz\n", 1e6 / (double)status.interval_us);
        }
        printf("samples    %llu in %llu ticks, %llu more were missed\nmemory     %.1f MiB\n",
               (unsigned long long)status.samples, (unsigned long long)status.ticks,
               (unsigned long long)status.ticks_missed, (double)status.bytes / 1048576);
    }
    ctl_free(&answer);
    return is_good ? EXIT_SUCCESS : CTL_FAILED;
}

/* One row of the list. What cannot be connected to is passed over: it is removed if its process is dead for sure, as
   nobody listens and there is no process of that id. */
static void ctl_list_one(ctl_request *request, bool *is_first) {
    ctl_bytes answer = {0};
    ctl_status status;
    char since[64];
    int host = ctl_connect(request->path, request->patience_s);
    if (host < 0) {
        if (errno == ECONNREFUSED && kill((pid_t)request->pid, 0) != 0 && errno == ESRCH) {
            (void)unlink(request->path);
        }
        return;
    }
    close(host);
    if (!ctl_get_status(request, &answer, &status)) {
        ctl_free(&answer);
        return;
    }
    if (request->is_json) {
        fputs(answer.data, stdout);
    } else {
        if (*is_first) {
            printf("%7s  %-20s  %-8s  %-9s  %-19s  %s\n", "PID", "PROGRAM", "PYTHON", "RECORDING", "SINCE", "SAMPLES");
        }
        printf("%7llu  %-20.20s  %-8.8s  %-9s  %-19s  %llu\n", (unsigned long long)status.pid,
               ctl_file_name(status.program), status.python, status.is_recording ? "yes" : "no",
               status.is_recording ? ctl_since(status.start_ns, since, sizeof since) : "-",
               (unsigned long long)status.samples);
    }
    *is_first = false;
    ctl_free(&answer);
}

static int ctl_list(ctl_request *request) {
    char folder[4000], name[32];
    bool is_first = true;
    request->patience_s = CTL_LIST_S;
    for (unsigned i = 0; ctl_folder(i, (unsigned long)geteuid(), folder, sizeof folder); i++) {
        DIR *entries = opendir(folder);
        for (struct dirent *entry = NULL; entries != NULL && (entry = readdir(entries)) != NULL;) {
            char *end = NULL;
            request->pid = strtol(entry->d_name, &end, 10);
            if (request->pid > 0 && strcmp(end, ".sock") == 0) {
                snprintf(request->path, sizeof request->path, "%s/%ld.sock", folder, request->pid);
                snprintf(name, sizeof name, "%ld", request->pid);
                request->host = name;
                ctl_list_one(request, &is_first);
            }
        }
        if (entries != NULL) {
            closedir(entries);
        }
    }
    if (is_first) {
        fputs("No program of this user listens: it has to call pyprof_listen(NULL).\n", stderr);
    }
    return EXIT_SUCCESS;
}

/* ---- profiles that come ------------------------------------------------------------------------------------- */

/* Which of a later snapshot's figures were there before. */
typedef struct ctl_base_node {
    uint32_t parent;
    int32_t line;
    uint64_t samples, samples_idle, wall_ns, wall_idle_ns, cpu_ns, gil_ns;
} ctl_base_node;

/* What a snapshot had: of its nodes by number, of its spans by thread and time. */
typedef struct ctl_base {
    ctl_base_node *nodes;
    pyprof_span *spans;
    size_t node_count, node_capacity, span_count, span_capacity;
    uint64_t end_ns;
    bool is_finer; /* its spans have been merged since: neighbours may be one now */
} ctl_base;

/* A profile that is made while another one is visited: its strings come in the order of their use, as in the recording,
   and what a base had is taken away. */
typedef struct ctl_making {
    pyprof_profile *into;
    const ctl_base *base; /* NULL = none */
    uint32_t *numbers;    /* of nodes: theirs here, by theirs there */
    size_t capacity;
    bool is_other; /* the base is not of the same recording */
} ctl_making;

static uint64_t ctl_less(uint64_t all, uint64_t part) {
    return all > part ? all - part : 0;
}

/* A node that was in the base has its number there, too, as recordings only grow. */
static void ctl_subtract(ctl_making *self, pyprof_node *node) {
    if (self->base == NULL || node->number >= self->base->node_count) {
        return;
    }
    const ctl_base_node *base = &self->base->nodes[node->number];
    self->is_other = self->is_other || base->parent != node->parent || base->line != node->line;
    node->samples = ctl_less(node->samples, base->samples);
    node->samples_idle = pyprof__min64(ctl_less(node->samples_idle, base->samples_idle), node->samples);
    node->wall_ns = ctl_less(node->wall_ns, base->wall_ns);
    node->wall_idle_ns = pyprof__min64(ctl_less(node->wall_idle_ns, base->wall_idle_ns), node->wall_ns);
    node->cpu_ns = ctl_less(node->cpu_ns, base->cpu_ns);
    node->gil_ns = ctl_less(node->gil_ns, base->gil_ns);
}

/* Of pyprof_visitor. False: no memory. */
static bool ctl_make_node(void *user, const pyprof_node *node) {
    ctl_making *self = (ctl_making *)user;
    pyprof_node copy = *node;
    if (node->number >= self->capacity) {
        size_t capacity = 2 * self->capacity + 1024;
        uint32_t *numbers = (uint32_t *)realloc(self->numbers, capacity * sizeof *numbers);
        if (numbers == NULL) {
            return false;
        }
        self->numbers = numbers;
        self->capacity = capacity;
    }
    ctl_subtract(self, &copy);
    copy.parent = node->parent != PYPROF_NO_NODE ? self->numbers[node->parent] : PYPROF_NO_NODE;
    return !self->is_other && pyprof_add_node(self->into, &copy, &self->numbers[node->number]) == PYPROF_OK;
}

static int ctl_by_time(const void *one, const void *other) {
    const pyprof_span *a = (const pyprof_span *)one, *b = (const pyprof_span *)other;
    return a->thread != b->thread ? (a->thread < b->thread ? -1 : 1)
                                  : (a->start_ns > b->start_ns) - (a->start_ns < b->start_ns);
}

/* Takes away what the base had of a span: that has grown since, and its last sample may be new while its time is not. One
   that was merged since keeps its part behind the base's end, with CPU time and samples in proportion. False: nothing is
   left. */
static bool ctl_subtract_span(const ctl_base *base, pyprof_span *span) {
    const pyprof_span *had =
        (const pyprof_span *)bsearch(span, base->spans, base->span_count, sizeof *span, ctl_by_time);
    uint64_t before = span->start_ns < base->end_ns ? pyprof__min64(base->end_ns - span->start_ns, span->wall_ns) : 0;
    if (had != NULL && had->node == span->node && !base->is_finer) {
        span->cpu_ns = ctl_less(span->cpu_ns, had->cpu_ns);
        span->samples = span->samples > had->samples ? span->samples - had->samples : 0;
    } else if (base->is_finer && before > 0) {
        double part = 1 - (double)before / (double)span->wall_ns;
        span->cpu_ns = (uint64_t)((double)span->cpu_ns * part);
        span->samples = (uint32_t)((double)span->samples * part + 0.5);
    }
    span->start_ns = ctl_less(span->start_ns, base->end_ns);
    span->wall_ns -= before;
    return span->wall_ns > 0 || span->samples > 0;
}

static bool ctl_make_span(void *user, const pyprof_span *span) {
    ctl_making *self = (ctl_making *)user;
    pyprof_span copy = *span;
    if (self->base != NULL && !ctl_subtract_span(self->base, &copy)) {
        return true;
    }
    copy.node = self->numbers[span->node];
    return pyprof_add_span(self->into, &copy) == PYPROF_OK;
}

/* Makes a profile anew, with the given facts, less a base. NULL: no memory; or *is_other: the base is none. */
static pyprof_profile *ctl_make(const pyprof_profile *from, const pyprof_facts *facts, ctl_making *self) {
    const pyprof_visitor visitor = {ctl_make_node, ctl_make_span, self};
    const pyprof_output whole = {.threads_apart = true};
    bool is_good =
        pyprof_make(facts, 0, NULL, &self->into) == PYPROF_OK && pyprof_visit(from, &whole, &visitor) == PYPROF_OK;
    free(self->numbers);
    self->numbers = NULL;
    if (!is_good) {
        pyprof_free(self->into);
        self->into = NULL;
    }
    return self->into;
}

/* The profile that a host has sent; without a sample in it, if none of its threads was in Python. NULL: it was said why not. */
static pyprof_profile *ctl_read_profile(const ctl_request *request, const ctl_bytes *answer) {
    imported *of = (imported *)calloc(1, sizeof *of);
    pyprof_profile *read = NULL, *made = NULL;
    ctl_making making = {0};
    char path[40];
    FILE *file = tmpfile();
    bool is_there = of != NULL && file != NULL && fwrite(answer->data, 1, answer->size, file) == answer->size &&
                    fflush(file) == 0 && pyprof_make(NULL, 0, NULL, &read) == PYPROF_OK;
    if (!is_there) {
        ctl_complain("no room for what %s sent: %s", request->host, strerror(errno != 0 ? errno : ENOMEM));
    } else {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(file));
        if (import_file(read, path, NULL, of) != PYPROF_OK && !of->is_empty) {
            ctl_complain("%s: what it sent cannot be read: %s", request->host, of->wrong);
        } else {
            of->facts.program = import_text(of->program, strlen(of->program));
            of->facts.process = import_text(of->process, strlen(of->process));
            of->facts.python = import_text(of->python, strlen(of->python));
            made = ctl_make(read, &of->facts, &making);
        }
        if (made == NULL && (of->is_empty || of->wrong[0] == '\0')) {
            ctl_complain("out of memory");
        }
    }
    pyprof_free(read);
    free(of);
    if (file != NULL) {
        fclose(file);
    }
    return made;
}

/* Asks for a profile. NULL: it was said why there is none. */
static pyprof_profile *ctl_get_profile(const ctl_request *request, const char *words) {
    ctl_bytes answer = {0};
    pyprof_profile *profile = ctl_ask(request, words, &answer) ? ctl_read_profile(request, &answer) : NULL;
    ctl_free(&answer);
    return profile;
}

/* Room for one more item of an array. False: no memory. */
static bool ctl_grow(void **items, size_t *capacity, size_t count, size_t size) {
    if (count < *capacity) {
        return true;
    }
    void *more = realloc(*items, (2 * *capacity + 1024) * size);
    if (more != NULL) {
        *items = more;
        *capacity = 2 * *capacity + 1024;
    }
    return more != NULL;
}

static bool ctl_note_node(void *user, const pyprof_node *node) {
    ctl_base *base = (ctl_base *)user;
    const ctl_base_node noted = {node->parent,  node->line,         node->samples, node->samples_idle,
                                 node->wall_ns, node->wall_idle_ns, node->cpu_ns,  node->gil_ns};
    void *items = base->nodes;
    bool has_room = ctl_grow(&items, &base->node_capacity, base->node_count, sizeof noted);
    base->nodes = (ctl_base_node *)items;
    if (has_room) {
        base->nodes[base->node_count++] = noted;
    }
    return has_room;
}

static bool ctl_note_span(void *user, const pyprof_span *span) {
    ctl_base *base = (ctl_base *)user;
    void *items = base->spans;
    bool has_room = ctl_grow(&items, &base->span_capacity, base->span_count, sizeof *span);
    base->spans = (pyprof_span *)items;
    if (has_room) {
        base->spans[base->span_count++] = *span;
    }
    return has_room;
}

/* What was counted since: but for what is a state, and no count. */
static void ctl_subtract_stats(pyprof_stats *stats, const pyprof_stats *base) {
    static const size_t states[] = {offsetof(pyprof_stats, threads), offsetof(pyprof_stats, bytes),
                                    offsetof(pyprof_stats, bytes_peak), offsetof(pyprof_stats, threads_unasked),
                                    offsetof(pyprof_stats, signal_number)};
    for (size_t at = 0; at + sizeof(uint64_t) <= sizeof *stats; at += sizeof(uint64_t)) {
        bool is_state = false;
        uint64_t all, part;
        for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
            is_state = is_state || at == states[i];
        }
        memcpy(&all, (char *)stats + at, sizeof all);
        memcpy(&part, (const char *)base + at, sizeof part);
        all = is_state ? all : ctl_less(all, part);
        memcpy((char *)stats + at, &all, sizeof all);
    }
}

/* What a recording has more than it had. NULL: it was said why not. */
static pyprof_profile *ctl_difference(const ctl_request *request, const pyprof_profile *earlier,
                                      const pyprof_profile *later) {
    ctl_base base = {0};
    const pyprof_visitor visitor = {ctl_note_node, ctl_note_span, &base};
    const pyprof_output whole = {.threads_apart = true};
    ctl_making making = {.base = &base};
    pyprof_facts before, facts;
    pyprof_profile *made = NULL;
    bool is_noted = pyprof_visit(earlier, &whole, &visitor) == PYPROF_OK &&
                    pyprof_get_facts(earlier, &before) == PYPROF_OK && pyprof_get_facts(later, &facts) == PYPROF_OK;
    if (is_noted) {
        making.is_other = facts.start_ns != before.start_ns || facts.duration_ns < before.duration_ns;
        base.end_ns = before.duration_ns;
        base.is_finer = facts.stats.timeline_coarsened != before.stats.timeline_coarsened;
        facts.start_ns += before.duration_ns;
        facts.duration_ns = ctl_less(facts.duration_ns, before.duration_ns);
        ctl_subtract_stats(&facts.stats, &before.stats);
        made = ctl_make(later, &facts, &making);
    }
    if (making.is_other) {
        ctl_complain("%s: its recording was ended and begun anew meanwhile: try again", request->host);
    } else if (made == NULL) {
        ctl_complain("out of memory");
    }
    free(base.nodes);
    free(base.spans);
    return made;
}

/* ---- files -------------------------------------------------------------------------------------------------- */

/* What is written: beside its place until it is whole. */
typedef struct ctl_file {
    FILE *stream;
    char target[PYPROF__PATH_SIZE], beside[PYPROF__PATH_SIZE]; /* "" = it is written into what is there */
} ctl_file;

/* Before the host is asked for what it may have once only. False: it was said why not. */
static bool ctl_open(const ctl_request *request, ctl_file *file) {
    struct stat status;
    const char *path = request->output;
    int descriptor = -1;
    memset(file, 0, sizeof *file);
    if (path == NULL) {
        file->stream = stdout;
        return true;
    }
    bool exists = stat(path, &status) == 0;
    if (exists && !S_ISREG(status.st_mode)) {
        descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    } else if (pyprof__follow_links(path, file->target, sizeof file->target)) {
        descriptor = pyprof__open_beside(file->target, file->beside, sizeof file->beside);
        file->beside[0] = descriptor >= 0 ? file->beside[0] : '\0';
    }
    if (descriptor >= 0 && exists && file->beside[0] != '\0') {
        (void)fchmod(descriptor, status.st_mode & 07777);
    }
    file->stream = descriptor >= 0 ? fdopen(descriptor, "w") : NULL;
    if (file->stream == NULL) {
        ctl_complain("cannot write %s: %s", path, strerror(errno));
    }
    return file->stream != NULL;
}

static void ctl_abandon(ctl_file *file) {
    if (file->stream != NULL && file->stream != stdout) {
        fclose(file->stream);
    }
    if (file->beside[0] != '\0') {
        (void)unlink(file->beside);
    }
}

static bool ctl_write_to(void *stream, const void *data, size_t size) {
    return fwrite(data, 1, size, (FILE *)stream) == size;
}

/* Whether nothing passes the filters, which is said: what is written then is empty, and right. */
static bool ctl_sum_node(void *user, const pyprof_node *node) {
    *(uint64_t *)user += node->value;
    return true;
}

static void ctl_warn_if_empty(const ctl_request *request, const pyprof_profile *profile) {
    const pyprof_output *view = &request->view;
    uint64_t sum = 0;
    const pyprof_visitor visitor = {.node = ctl_sum_node, .user = &sum};
    if (pyprof_visit(profile, view, &visitor) == PYPROF_OK && sum == 0) {
        bool is_heap = ctl_find_command(request->command)->is_heap;
        ctl_complain(is_heap ? "%s: nothing was sampled of what is to be shown: it is written empty"
                     : filter_is_given(view)
                         ? "%s: nothing that was recorded passes the --only- options: it is written empty"
                         : "%s: nothing was recorded that counts here (--idle shows what waited): it is written "
                           "empty",
                     request->host);
    }
}

static int ctl_write(const ctl_request *request, const pyprof_profile *profile, ctl_file *file) {
    const char *path = request->output != NULL ? request->output : "standard output";
    errno = 0;
    pyprof_result result = exports_write(profile, &request->view, request->format, ctl_write_to, file->stream);
    bool is_good = result == PYPROF_OK && fflush(file->stream) == 0;
    if (!is_good) {
        const char *why = result != PYPROF_OK && result != PYPROF_ERROR_WRITE ? exports_last_error() : strerror(errno);
        ctl_complain("cannot write %s: %s", path, why);
        ctl_abandon(file);
        return CTL_FAILED;
    }
    is_good = file->stream == stdout || fclose(file->stream) == 0;
    is_good = is_good && (file->beside[0] == '\0' || rename(file->beside, file->target) == 0);
    file->stream = NULL;
    if (!is_good) {
        ctl_complain("cannot write %s: %s", path, strerror(errno));
        ctl_abandon(file);
        return CTL_FAILED;
    }
    ctl_warn_if_empty(request, profile);
    return EXIT_SUCCESS;
}

/* ---- what is done ------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t ctl_is_over; /* a signal has come that ends what goes on */
static sigset_t ctl_usual_mask;

static void ctl_end(int number) {
    (void)number;
    ctl_is_over = 1;
}

/* Ctrl-C ends the wait for time, not what is then still to be asked for; and so with the terminal's other signals. */
static void ctl_hold_signals(void) {
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGHUP);
    sigaddset(&ends, SIGTSTP);
    sigaddset(&ends, SIGWINCH);
    (void)sigprocmask(SIG_BLOCK, &ends, &ctl_usual_mask);
}

/* Waits for a key, if there may be some, and for no longer than that. Whether there is one. */
static bool ctl_wait(double seconds, struct pollfd *keys) {
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    return !ctl_is_over && ppoll(keys, keys != NULL ? 1 : 0, &time, &ctl_usual_mask) > 0;
}

static bool ctl_start(const ctl_request *request) {
    char words[200];
    ctl_bytes answer = {0};
    unsigned long interval = request->rate_hz > 0 ? (unsigned long)(1e6 / request->rate_hz + 0.5) : 0;
    snprintf(words, sizeof words, "start interval_us=%lu memory_limit=%llu max_depth=%lu", interval,
             (unsigned long long)request->memory_mib << 20, request->depth);
    bool is_good = ctl_ask(request, words, &answer);
    ctl_free(&answer);
    return is_good;
}

/* What is recorded in so many seconds: by a recording of its own; or as the difference of two snapshots. NULL: it was
   said why there is nothing. */
static pyprof_profile *ctl_record_for(const ctl_request *request, double seconds) {
    ctl_bytes answer = {0};
    ctl_status status;
    bool is_good = ctl_get_status(request, &answer, &status);
    ctl_free(&answer);
    if (!is_good) {
        return NULL;
    }
    if (!status.is_recording) {
        if (!ctl_start(request)) {
            return NULL;
        }
        (void)ctl_wait(seconds, NULL);
        return ctl_get_profile(request, "stop");
    }
    if (request->rate_hz > 0 || request->memory_mib > 0 || request->depth > 0) {
        ctl_complain("%s records already, at %.4g Hz: --rate, --memory and --depth do not count", request->host,
                     1e6 / (double)status.interval_us);
    }
    pyprof_profile *before = ctl_get_profile(request, "snapshot"), *difference = NULL;
    if (before != NULL) {
        (void)ctl_wait(seconds, NULL);
        pyprof_profile *after = ctl_get_profile(request, "snapshot");
        difference = after != NULL ? ctl_difference(request, before, after) : NULL;
        pyprof_free(after);
    }
    pyprof_free(before);
    return difference;
}

static bool ctl_has_samples(void *user, const pyprof_node *node) {
    *(bool *)user = node->samples > 0 || node->wall_ns > 0 || node->cpu_ns > 0 || node->gil_ns > 0;
    return !*(bool *)user;
}

/* Whether there is a sample in it. If not, that is said. */
static bool ctl_check_samples(const ctl_request *request, const pyprof_profile *profile, bool is_heap) {
    bool has_some = false;
    const pyprof_visitor visitor = {.node = ctl_has_samples, .user = &has_some};
    (void)pyprof_visit(profile, NULL, &visitor);
    if (!has_some) {
        ctl_complain("%s: there are no samples%s", request->host, is_heap ? "" : ": none of its threads was in Python");
    }
    return has_some;
}

/* record, snapshot, stop and heap. */
static int ctl_take(const ctl_request *request) {
    ctl_file *file = (ctl_file *)malloc(sizeof *file);
    if (file == NULL || !ctl_open(request, file)) {
        free(file);
        return CTL_FAILED;
    }
    bool is_heap = ctl_find_command(request->command)->is_heap;
    pyprof_profile *profile = strcmp(request->command, "record") == 0
                                  ? ctl_record_for(request, request->duration_s)
                                  : ctl_get_profile(request, is_heap ? "heap_snapshot" : request->command);
    int status = CTL_FAILED;
    if (profile != NULL && ctl_check_samples(request, profile, is_heap)) {
        status = ctl_write(request, profile, file);
    } else {
        ctl_abandon(file);
    }
    pyprof_free(profile);
    free(file);
    return status;
}

static int ctl_drop(const ctl_request *request) {
    ctl_bytes answer = {0};
    bool is_good = ctl_ask(request, "stop drop=1", &answer);
    ctl_free(&answer);
    return is_good ? EXIT_SUCCESS : CTL_FAILED;
}

/* ---- heap --------------------------------------------------------------------------------------------------- */

/* What a host tells of its heap sampling. */
static void ctl_put_heap_stats(const ctl_bytes *answer) {
    uint64_t samples = 0, live = 0, bytes = 0, error = 0, objects = 0, all = 0, all_error = 0, mean = 0, lost = 0,
             lost_bytes = 0, unreadable = 0, cut = 0, full = 0, held = 0;
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = {{"samples", &samples},
                   {"samples_live", &live},
                   {"live_bytes", &bytes},
                   {"live_bytes_error", &error},
                   {"live_objects", &objects},
                   {"alloc_bytes", &all},
                   {"alloc_bytes_error", &all_error},
                   {"sampling_bytes", &mean},
                   {"lost_memory", &lost},
                   {"lost_bytes", &lost_bytes},
                   {"lost_unreadable", &unreadable},
                   {"truncated_depth", &cut},
                   {"truncated_memory", &full},
                   {"bytes", &held}};
    json_reader json = json_begin(answer->data, answer->size);
    json_text key;
    bool is_sampling = false;
    char text[4][96];
    for (json_enter(&json, '{'); json_next(&json, '}');) {
        uint64_t *number = NULL;
        bool is_known = json_key(&json, &key);
        for (size_t i = 0; is_known && i < sizeof numbers / sizeof *numbers; i++) {
            number = json_is(&key, numbers[i].name) ? numbers[i].to : number;
        }
        is_sampling = is_sampling || (is_known && json_is(&key, "is_sampling") && json_peek(&json) == 't');
        (void)(number != NULL ? json_number(&json, 0, number) : json_skip(&json));
    }
    flamegraph_format_bytes(text[0], sizeof text[0], (double)bytes);
    flamegraph_format_bytes(text[1], sizeof text[1], (double)error);
    flamegraph_format_bytes(text[2], sizeof text[2], (double)all);
    flamegraph_format_bytes(text[3], sizeof text[3], (double)all_error);
    printf("sampling   %s\n", is_sampling ? "yes" : "no, what lives is followed");
    printf("in use     %s, with a standard error of %s, in %llu objects\n", text[0], text[1],
           (unsigned long long)objects);
    printf("allocated  %s, with a standard error of %s\n", text[2], text[3]);
    flamegraph_format_bytes(text[0], sizeof text[0], (double)mean);
    flamegraph_format_bytes(text[1], sizeof text[1], (double)lost_bytes);
    flamegraph_format_bytes(text[2], sizeof text[2], (double)held);
    printf("samples    %llu, %llu of them live, one in %s\n", (unsigned long long)samples, (unsigned long long)live,
           text[0]);
    printf("lost       %llu that had no room, for %s; %llu unreadable, %llu cut at --depth, %llu in [truncated]\n",
           (unsigned long long)lost, text[1], (unsigned long long)unreadable, (unsigned long long)cut,
           (unsigned long long)full);
    printf("memory     %s\n", text[2]);
}

static int ctl_tell_heap(const ctl_request *request) {
    char words[200];
    ctl_bytes answer = {0};
    if (request->heap_act == 0) {
        return ctl_take(request);
    }
    snprintf(words, sizeof words, "heap_start sampling_bytes=%llu memory_limit=%llu max_depth=%lu",
             (unsigned long long)(request->heap_kib * 1024 + 0.5), (unsigned long long)request->memory_mib << 20,
             request->depth);
    bool is_good = ctl_ask(request,
                           request->heap_act == 's'   ? words
                           : request->heap_act == 'e' ? "heap_stop"
                                                      : "heap_stats",
                           &answer);
    if (is_good && request->heap_act == 't' && request->is_json) {
        fputs(answer.data, stdout);
    } else if (is_good && request->heap_act == 't') {
        ctl_put_heap_stats(&answer);
    }
    ctl_free(&answer);
    return is_good && ctl_is_written() ? EXIT_SUCCESS : CTL_FAILED;
}

/* ---- dump --------------------------------------------------------------------------------------------------- */

/* The nodes of a dump, and to which thread they belong. Texts are the profile's. */
typedef struct ctl_dump {
    pyprof_node *nodes;
    size_t count, capacity;
    long *waiting; /* ids of threads that wait for the GIL, which a profile does not tell */
    size_t waiting_count;
    bool is_json, is_first;
} ctl_dump;

static bool ctl_waits_for_gil(const ctl_dump *dump, long tid) {
    for (size_t i = 0; i < dump->waiting_count; i++) {
        if (dump->waiting[i] == tid) {
            return true;
        }
    }
    return false;
}

/* Notes the id that a line tells, if it is of a thread that waits for the GIL. */
static void ctl_note_waiting(ctl_dump *dump, const char *line, size_t size) {
    json_reader json = json_begin(line, size);
    json_text key;
    uint64_t tid = 0;
    bool wants_gil = false;
    for (json_enter(&json, '{'); json_next(&json, '}');) {
        bool is_known = json_key(&json, &key);
        wants_gil = wants_gil || (is_known && json_is(&key, "wants_gil") && json_peek(&json) == 't');
        (void)(is_known && json_is(&key, "tid") ? json_number(&json, 0, &tid) : json_skip(&json));
    }
    if (json_end(&json) && wants_gil) {
        dump->waiting[dump->waiting_count++] = (long)tid;
    }
}

static bool ctl_note_all_waiting(ctl_dump *dump, const ctl_bytes *answer) {
    size_t lines = 1;
    for (size_t i = 0; i < answer->size; i++) {
        lines += answer->data[i] == '\n';
    }
    dump->waiting = (long *)calloc(lines, sizeof *dump->waiting);
    for (const char *line = answer->data, *end = line + answer->size; dump->waiting != NULL && line < end;) {
        const char *stop = (const char *)memchr(line, '\n', (size_t)(end - line));
        stop = stop != NULL ? stop : end;
        ctl_note_waiting(dump, line, (size_t)(stop - line));
        line = stop + 1;
    }
    return dump->waiting != NULL;
}

static bool ctl_keep_node(void *user, const pyprof_node *node) {
    ctl_dump *dump = (ctl_dump *)user;
    if (dump->count == dump->capacity) {
        size_t capacity = 2 * dump->capacity + 1024;
        pyprof_node *nodes = (pyprof_node *)realloc(dump->nodes, capacity * sizeof *nodes);
        if (nodes == NULL) {
            return false;
        }
        dump->nodes = nodes;
        dump->capacity = capacity;
    }
    dump->nodes[dump->count++] = *node;
    return true;
}

/* A text that came from elsewhere, for a terminal or inside a JSON string. */
static void ctl_put_into(FILE *to, const char *before, pyprof_text text, bool is_json) {
    static pyprof__out out;
    out.write = ctl_write_to;
    out.user = to;
    pyprof__put_text(&out, before);
    (is_json ? pyprof__put_json : pyprof__put_collapsed)(&out, text.data, text.size);
    pyprof__flush(&out);
}

static void ctl_put(const char *before, pyprof_text text, bool is_json) {
    ctl_put_into(stdout, before, text, is_json);
}

static void ctl_put_frame(const pyprof_node *node, bool is_json, bool is_first) {
    if (is_json) {
        ctl_put(is_first ? "{\"name\":\"" : ",{\"name\":\"", node->name, true);
        ctl_put("\",\"file\":\"", node->file, true);
        ctl_put("\",\"path\":\"", node->path, true);
        printf("\",\"line\":%d}", (int)node->line);
        return;
    }
    ctl_put("    ", node->name, false);
    if (node->path.size > 0) {
        ctl_put(" (", node->file, false);
        printf(":%d)", (int)node->line);
    }
    putchar('\n');
}

/* The interpreter of a thread's innermost frame: what the mark says that stands before its frames, or the main one. */
static pyprof_text ctl_interpreter_of(const ctl_dump *dump, uint32_t leaf) {
    static const char mark[] = "[interpreter ";
    pyprof_text main_one = {"main", 4};
    for (uint32_t at = leaf; dump->nodes[at].parent != PYPROF_NO_NODE; at = dump->nodes[at].parent) {
        const pyprof_node *node = &dump->nodes[at];
        if (node->path.size == 0 && node->name.size > sizeof mark &&
            memcmp(node->name.data, mark, sizeof mark - 1) == 0) {
            pyprof_text its = {node->name.data + sizeof mark - 1, node->name.size - sizeof mark};
            return its;
        }
    }
    return main_one;
}

/* A thread: each has one span, of where it is now. */
static bool ctl_put_thread(void *user, const pyprof_span *span) {
    ctl_dump *dump = (ctl_dump *)user;
    pyprof_text interpreter = ctl_interpreter_of(dump, span->node);
    uint32_t root = span->node;
    while (dump->nodes[root].parent != PYPROF_NO_NODE) {
        root = dump->nodes[root].parent;
    }
    const pyprof_node *thread = &dump->nodes[root];
    const char *state = span->has_gil                          ? "holds the GIL"
                        : ctl_waits_for_gil(dump, thread->tid) ? "waiting for the GIL"
                        : span->is_idle                        ? "waiting"
                                                               : "running without the GIL";
    if (dump->is_json) {
        printf("%s{\"id\":%d,\"name\":\"", dump->is_first ? "" : ",", (int)thread->tid);
        ctl_put("", thread->name, true);
        printf("\",\"state\":\"%s\",\"interpreter\":\"", state);
        ctl_put("", interpreter, true);
        fputs("\",\"frames\":[", stdout);
    } else {
        printf("%sThread %d \"", dump->is_first ? "" : "\n", (int)thread->tid);
        ctl_put("", thread->name, false);
        printf("\" (%s", state);
        if (strcmp(interpreter.data, "main") != 0) {
            ctl_put(", interpreter ", interpreter, false);
        }
        puts(")");
    }
    for (uint32_t at = span->node; at != root; at = dump->nodes[at].parent) {
        ctl_put_frame(&dump->nodes[at], dump->is_json, at == span->node);
    }
    fputs(dump->is_json ? "]}" : "", stdout);
    dump->is_first = false;
    return true;
}

static bool ctl_dump_now(const ctl_request *request, bool *has_none) {
    ctl_bytes answer = {0};
    ctl_status status;
    *has_none = false;
    bool is_good = ctl_get_status(request, &answer, &status);
    ctl_free(&answer);
    if (is_good && !status.is_recording) {
        *has_none = true; /* a recording is needed to look at threads: one is begun for this look */
        is_good = ctl_start(request);
    }
    return is_good;
}

/* Asks where all threads are, and notes what the profile does not tell. NULL: it was said why not. */
static pyprof_profile *ctl_look(const ctl_request *request, ctl_dump *dump) {
    ctl_bytes answer = {0};
    dump->waiting_count = 0;
    free(dump->waiting);
    dump->waiting = NULL;
    bool is_there = ctl_ask(request, "dump json=1", &answer) && ctl_note_all_waiting(dump, &answer);
    pyprof_profile *profile = is_there ? ctl_read_profile(request, &answer) : NULL;
    ctl_free(&answer);
    return profile;
}

static bool ctl_count_thread(void *user, const pyprof_node *node) {
    *(uint64_t *)user += node->parent == PYPROF_NO_NODE;
    return true;
}

/* Whether a thread that was met is not there: a recording that has just begun may have to look at it more than once. */
static bool ctl_lacks_some(const ctl_request *request, const pyprof_profile *profile) {
    const pyprof_output whole = {.threads_apart = true};
    uint64_t count = 0;
    const pyprof_visitor visitor = {.node = ctl_count_thread, .user = &count};
    ctl_bytes answer = {0};
    ctl_status status;
    bool is_told = ctl_get_status(request, &answer, &status);
    ctl_free(&answer);
    return is_told && pyprof_visit(profile, &whole, &visitor) == PYPROF_OK && count < status.threads;
}

static pyprof_profile *ctl_look_at_all(const ctl_request *request, ctl_dump *dump, bool is_new) {
    enum {
        MORE_LOOKS = 6
    };
    const struct timespec between = {0, 10000000};
    pyprof_profile *profile = ctl_look(request, dump);
    for (int more = 0; is_new && profile != NULL && more < MORE_LOOKS && ctl_lacks_some(request, profile); more++) {
        (void)nanosleep(&between, NULL);
        pyprof_free(profile);
        profile = ctl_look(request, dump);
    }
    return profile;
}

static int ctl_tell_dump(const ctl_request *request) {
    ctl_dump dump = {.is_json = request->is_json, .is_first = true};
    const pyprof_visitor keep = {.node = ctl_keep_node, .user = &dump};
    const pyprof_visitor put = {.span = ctl_put_thread, .user = &dump};
    const pyprof_output whole = {.threads_apart = true};
    pyprof_facts facts;
    bool has_none;
    pyprof_profile *profile = ctl_dump_now(request, &has_none) ? ctl_look_at_all(request, &dump, has_none) : NULL;
    if (has_none) {
        (void)ctl_drop(request);
    }
    bool is_good = profile != NULL && pyprof_visit(profile, &whole, &keep) == PYPROF_OK;
    if (is_good && request->is_json) {
        (void)pyprof_get_facts(profile, &facts);
        ctl_put("{\"program\":\"", facts.program, true);
        ctl_put("\",\"python\":\"", facts.python, true);
        printf("\",\"time_ns\":%llu,\"threads\":[", (unsigned long long)facts.start_ns);
    }
    is_good = is_good && pyprof_visit(profile, &whole, &put) == PYPROF_OK;
    if (is_good && request->is_json) {
        puts("]}");
    } else if (is_good && dump.is_first) {
        puts("No thread runs Python.");
    }
    free(dump.nodes);
    free(dump.waiting);
    pyprof_free(profile);
    return is_good && ctl_is_written() ? EXIT_SUCCESS : CTL_FAILED;
}

/* ---- top: what it counts --------------------------------------------------------------------------------------- */

/* What keys change, and what is shown by that. */
typedef struct ctl_top {
    pyprof_output view;
    bool by_total, is_paused, has_help;
    char thread[256]; /* the name of the only one that is shown; "" = all are */
    unsigned long rows;
    pyprof_profile *shown; /* NULL = nothing yet */
} ctl_top;

static int ctl_by_total(const void *one, const void *other) {
    const pyprof_row *a = (const pyprof_row *)one, *b = (const pyprof_row *)other;
    return a->total != b->total ? (a->total < b->total ? 1 : -1) : (a->self < b->self) - (a->self > b->self);
}

/* What all threads did, whatever is shown of them. */
typedef struct ctl_totals {
    uint64_t gil_ns;
    uint32_t threads, active;
    bool is_counted, is_active; /* the thread whose nodes come now */
} ctl_totals;

/* Threads that have ended before are there, too, but took no time. */
static bool ctl_add_to_totals(void *user, const pyprof_node *node) {
    ctl_totals *totals = (ctl_totals *)user;
    if (node->parent == PYPROF_NO_NODE) {
        totals->is_counted = totals->is_active = false;
    }
    if (!totals->is_counted && node->wall_ns > 0) {
        totals->is_counted = true;
        totals->threads++;
    }
    if (!totals->is_active && node->wall_ns > node->wall_idle_ns) {
        totals->is_active = true;
        totals->active++;
    }
    totals->gil_ns += node->gil_ns;
    return true;
}

static uint64_t ctl_lost(const pyprof_stats *stats) {
    return stats->lost_late + stats->lost_pending + stats->lost_unsettled + stats->lost_unreadable + stats->lost_memory;
}

static const char *const ctl_metrics[] = {"wall", "cpu", "gil", "samples"};
static const char *const ctl_metrics_shown[] = {"wall time", "CPU time", "time with the GIL", "samples"};

static void ctl_put_row_json(const pyprof_row *row, bool is_first) {
    ctl_put(is_first ? "{\"name\":\"" : ",{\"name\":\"", row->name, true);
    ctl_put("\",\"file\":\"", row->file, true);
    ctl_put("\",\"path\":\"", row->path, true);
    printf("\",\"line\":%d,\"self\":%llu,\"total\":%llu,\"samples_self\":%llu,\"samples_total\":%llu,"
           "\"self_share\":%.6f,\"total_share\":%.6f}",
           (int)row->line, (unsigned long long)row->self, (unsigned long long)row->total,
           (unsigned long long)row->samples_self, (unsigned long long)row->samples_total, row->self_share,
           row->total_share);
}

static void ctl_put_row(FILE *to, const pyprof_row *row) {
    fprintf(to, "%6.1f%% %6.1f%%  ", 100 * row->self_share, 100 * row->total_share);
    ctl_put_into(to, "", row->name, false);
    if (row->path.size > 0) {
        ctl_put_into(to, " (", row->file, false);
        fprintf(to, ":%d)", (int)row->line);
    }
    fputc('\n', to);
}

static void ctl_put_facts(FILE *to, const ctl_request *request, const ctl_top *top, const pyprof_facts *facts,
                          const ctl_totals *totals) {
    double seconds = facts->duration_ns > 0 ? (double)facts->duration_ns / 1e9 : 1;
    double gil = (double)totals->gil_ns / 1e9 / seconds, rate = (double)facts->stats.ticks / seconds;
    if (request->is_json) {
        printf("{\"duration_ns\":%llu,\"samples\":%llu,\"gil_share\":%.6f,\"threads\":%u,\"threads_active\":%u,"
               "\"rate_hz\":%.3f,\"samples_lost\":%llu,\"ticks_missed\":%llu,\"metric\":\"%s\",\"rows\":[",
               (unsigned long long)facts->duration_ns, (unsigned long long)facts->stats.samples, gil, totals->threads,
               totals->active, rate, (unsigned long long)ctl_lost(&facts->stats),
               (unsigned long long)facts->stats.ticks_missed, ctl_metrics[top->view.metric % 4]);
        return;
    }
    ctl_put_into(to, "", facts->process, false);
    fprintf(to, " (%s): %.1f s, %llu samples%s\n", request->host, seconds, (unsigned long long)facts->stats.samples,
            top->is_paused ? " (paused)" : "");
    fprintf(to, "GIL %.0f%%, %u of %u threads active, %.0f Hz, %llu samples lost, %llu ticks missed\n\n", 100 * gil,
            totals->active, totals->threads, rate, (unsigned long long)ctl_lost(&facts->stats),
            (unsigned long long)facts->stats.ticks_missed);
    fprintf(to, "   self   total  %s, %s%s", top->view.detail == PYPROF_DETAIL_FUNCTION ? "function" : "line",
            ctl_metrics_shown[top->view.metric % 4], top->view.include_idle ? ", waiting too" : "");
    if (top->thread[0] != '\0') {
        const pyprof_text name = {top->thread, strlen(top->thread)};
        ctl_put_into(to, ", thread ", name, false);
    }
    fputc('\n', to);
}

/* Says what took most, in so many rows. False: no memory. */
static bool ctl_put_top(FILE *to, const ctl_request *request, const ctl_top *top, unsigned long rows_wanted) {
    const pyprof_output whole = {.threads_apart = true};
    ctl_totals totals = {0};
    const pyprof_visitor visitor = {.node = ctl_add_to_totals, .user = &totals};
    pyprof_output view = top->view;
    pyprof_facts facts;
    size_t count = 0;
    view.thread = top->thread[0] != '\0' ? top->thread : view.thread;
    bool is_good = pyprof_get_facts(top->shown, &facts) == PYPROF_OK &&
                   pyprof_visit(top->shown, &whole, &visitor) == PYPROF_OK &&
                   pyprof_top(top->shown, &view, NULL, &count) == PYPROF_OK;
    pyprof_row *rows = (pyprof_row *)calloc(count + 1, sizeof *rows);
    is_good = is_good && rows != NULL && pyprof_top(top->shown, &view, rows, &count) == PYPROF_OK;
    if (is_good && top->by_total) {
        qsort(rows, count, sizeof *rows, ctl_by_total);
    }
    if (is_good) {
        ctl_put_facts(to, request, top, &facts, &totals);
    }
    for (size_t i = 0; is_good && i < count && i < rows_wanted; i++) {
        if (request->is_json) {
            ctl_put_row_json(&rows[i], i == 0);
        } else {
            ctl_put_row(to, &rows[i]);
        }
    }
    fputs(is_good && request->is_json ? "]}\n" : "", to);
    free(rows);
    return is_good;
}

/* The name of the thread that comes after the one that is shown; behind the last one come all. */
typedef struct ctl_next_thread {
    const char *after;
    char found[256];
    bool is_passed, is_found;
} ctl_next_thread;

static bool ctl_find_thread(void *user, const pyprof_node *node) {
    ctl_next_thread *next = (ctl_next_thread *)user;
    if (node->parent != PYPROF_NO_NODE || node->name.size == 0 || node->name.size >= sizeof next->found) {
        return true;
    }
    bool is_it = strlen(next->after) == node->name.size && memcmp(next->after, node->name.data, node->name.size) == 0;
    if (next->is_passed && !next->is_found && !is_it) {
        memcpy(next->found, node->name.data, node->name.size);
        next->is_found = true;
    }
    next->is_passed = next->is_passed || is_it;
    return true;
}

static void ctl_show_next_thread(ctl_top *top) {
    const pyprof_output merged = {.include_idle = true};
    ctl_next_thread next = {.after = top->thread, .is_passed = top->thread[0] == '\0'};
    const pyprof_visitor visitor = {.node = ctl_find_thread, .user = &next};
    if (top->shown != NULL && pyprof_visit(top->shown, &merged, &visitor) == PYPROF_OK) {
        memcpy(top->thread, next.found, sizeof top->thread);
    }
}

/* ---- top: the terminal ------------------------------------------------------------------------------------------ */

static const char ctl_keys[] = "q ends, s sort, m metric, f lines, t thread, i idle, p pause, h help";

static const char ctl_keys_help[] = "q       ends; a recording that was begun for this ends, too\n"
                                    "s       sorts by the time of a function itself, or with what it calls\n"
                                    "m       shows wall, cpu or gil time, or samples\n"
                                    "f       shows functions, or their lines\n"
                                    "t       shows one thread after the other, then all\n"
                                    "i       shows what waits, too\n"
                                    "p       pauses; what comes meanwhile is in the next figures\n"
                                    "h, ?    shows this, and the figures again\n"
                                    "\n"
                                    "GIL     how much of the time a thread had it (without one: time in Python)\n"
                                    "active  threads that ran at some time in this second\n"
                                    "lost    samples that were not had; missed: the sampler came too late\n";

static volatile sig_atomic_t ctl_is_resized, ctl_is_suspended;
static struct termios ctl_usual, ctl_raw; /* the terminal's settings */
static bool ctl_is_raw;

static void ctl_note_signal(int number) {
    ctl_is_resized = ctl_is_resized || number == SIGWINCH;
    ctl_is_suspended = ctl_is_suspended || number == SIGTSTP;
}

/* Whether the terminal does what is written to it in escape sequences. */
static bool ctl_knows_sequences(void) {
    const char *name = getenv("TERM");
    return isatty(STDOUT_FILENO) && name != NULL && name[0] != '\0' && strcmp(name, "dumb") != 0;
}

static void ctl_take_terminal(void) {
    if (ctl_is_raw) {
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &ctl_raw);
    }
}

static void ctl_give_terminal_back(void) {
    ctl_leave_screen();
    if (ctl_is_raw) {
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &ctl_usual);
    }
}

static void ctl_begin_terminal(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = ctl_note_signal;
    (void)sigaction(SIGWINCH, &action, NULL);
    (void)sigaction(SIGTSTP, &action, NULL);
    (void)setlocale(LC_CTYPE, "");
    ctl_is_raw = tcgetattr(STDIN_FILENO, &ctl_usual) == 0;
    ctl_raw = ctl_usual;
    ctl_raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    ctl_take_terminal();
}

/* How many bytes of a line have room in so many columns. What is no text of the locale takes a column a byte. */
static size_t ctl_fitting(const char *line, size_t size, unsigned columns) {
    mbstate_t state;
    size_t at = 0;
    memset(&state, 0, sizeof state);
    for (unsigned used = 0; at < size;) {
        wchar_t c = 0;
        size_t bytes = mbrtowc(&c, line + at, size - at, &state);
        int width = bytes > 0 && bytes <= size - at ? wcwidth(c) : -1;
        if (width < 0) {
            memset(&state, 0, sizeof state);
            bytes = 1;
            width = 1;
        }
        used += (unsigned)width;
        if (used > columns) {
            break;
        }
        at += bytes;
    }
    return at;
}

/* Puts lines where others are, cut at the screen's edges: what the terminal would wrap or scroll away is not there. */
static void ctl_put_screen(const char *text, const struct winsize *size) {
    fputs(ctl_has_screen ? "\033[H" : "\033[?1049h\033[H", stdout);
    ctl_has_screen = true;
    for (unsigned row = 0; row < size->ws_row && *text != '\0'; row++) {
        size_t length = strcspn(text, "\n");
        fputs(row > 0 ? "\n" : "", stdout);
        (void)fwrite(text, 1, ctl_fitting(text, length, size->ws_col), stdout);
        fputs("\033[K", stdout); /* to the end of the line */
        text += length + (text[length] == '\n');
    }
    fputs("\033[J", stdout); /* and all lines below */
}

/* Shows what there is, or help. False: no memory, or it cannot be written. */
static bool ctl_draw(const ctl_request *request, const ctl_top *top) {
    enum {
        OTHER_LINES = 6 /* than rows */
    };
    struct winsize size = {24, 80, 0, 0};
    char *text = NULL;
    size_t length = 0;
    bool is_screen = ctl_knows_sequences();
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) {
        size.ws_row = 24;
        size.ws_col = 80;
    }
    unsigned long room = size.ws_row > OTHER_LINES ? size.ws_row - OTHER_LINES : 1;
    unsigned long rows = top->rows > 0 ? top->rows : is_screen ? room : 20;
    FILE *to = open_memstream(&text, &length);
    bool is_good = to != NULL;
    if (is_good && top->has_help) {
        fputs(ctl_keys_help, to);
    } else if (is_good) {
        is_good = ctl_put_top(to, request, top, is_screen && rows > room ? room : rows);
    }
    if (is_good && isatty(STDOUT_FILENO)) {
        fprintf(to, "\n%s%s", ctl_keys, is_screen ? "" : "\n\n");
    }
    is_good = to != NULL && fclose(to) == 0 && is_good;
    if (is_good && is_screen) {
        ctl_put_screen(text, &size);
    } else if (is_good) {
        fputs(text, stdout);
    }
    free(text);
    return is_good && ctl_is_written();
}

/* False: it is none of ours, and all stays as it is. */
static bool ctl_take_key(ctl_top *top, char key) {
    switch (key) {
    case 's':
        top->by_total = !top->by_total;
        return true;
    case 'm':
        top->view.metric = (pyprof_metric)((top->view.metric + 1) % 4);
        return true;
    case 'f':
        top->view.detail = top->view.detail == PYPROF_DETAIL_FUNCTION ? PYPROF_DETAIL_LINE : PYPROF_DETAIL_FUNCTION;
        return true;
    case 't':
        ctl_show_next_thread(top);
        return true;
    case 'i':
        top->view.include_idle = !top->view.include_idle;
        return true;
    case 'p':
        top->is_paused = !top->is_paused;
        return true;
    case 'h':
    case '?':
        top->has_help = !top->has_help;
        return true;
    case 'q':
        ctl_is_over = 1;
        return false;
    default:
        return false;
    }
}

/* What has come by signals. Whether the screen is to be drawn anew. */
static bool ctl_take_signals(void) {
    bool is_anew = ctl_is_resized || ctl_is_suspended;
    ctl_is_resized = 0;
    if (ctl_is_suspended) {
        ctl_is_suspended = 0;
        ctl_give_terminal_back();
        (void)raise(SIGSTOP);
        ctl_take_terminal();
    }
    return is_anew;
}

/* Takes what is typed within a second, or longer while it is paused, and shows what that changes. False: it was the end. */
static bool ctl_take_keys(const ctl_request *request, ctl_top *top) {
    struct pollfd keys = {STDIN_FILENO, POLLIN, 0};
    bool has_keys = isatty(STDIN_FILENO) != 0;
    uint64_t end = pyprof__now() + 1000000000u;
    char key = 0;
    for (uint64_t now = pyprof__now(); (now < end || top->is_paused) && !ctl_is_over; now = pyprof__now()) {
        bool is_typed = ctl_wait(now < end ? (double)(end - now) / 1e9 : 1, has_keys ? &keys : NULL), is_anew = false;
        if (is_typed && read(STDIN_FILENO, &key, 1) == 1) {
            is_anew = ctl_take_key(top, key);
        } else if (is_typed) {
            has_keys = top->is_paused = false; /* the terminal has gone */
        }
        is_anew = ctl_take_signals() || is_anew;
        if (is_anew && top->shown != NULL && !ctl_draw(request, top)) {
            ctl_is_over = 1;
        }
    }
    return !ctl_is_over;
}

/* Each second the difference to the snapshot of the second before. False: it was said why it ended. */
static bool ctl_follow(const ctl_request *request, ctl_top *top) {
    pyprof_profile *before = ctl_get_profile(request, "snapshot");
    bool is_good = before != NULL;
    while (is_good && ctl_take_keys(request, top)) {
        pyprof_profile *now = ctl_get_profile(request, "snapshot");
        pyprof_profile *difference = now != NULL ? ctl_difference(request, before, now) : NULL;
        pyprof_free(top->shown);
        top->shown = difference;
        is_good = difference != NULL && ctl_draw(request, top);
        pyprof_free(before);
        before = now;
    }
    pyprof_free(before);
    return is_good;
}

static int ctl_tell_once(const ctl_request *request, ctl_top *top) {
    top->shown = ctl_record_for(request, request->duration_s > 0 ? request->duration_s : 1);
    bool is_put =
        top->shown != NULL && ctl_put_top(stdout, request, top, top->rows > 0 ? top->rows : 20) && ctl_is_written();
    pyprof_free(top->shown);
    return is_put ? EXIT_SUCCESS : CTL_FAILED;
}

/* Whether the host is there still: its recording has to end also if what was shown could not be written. */
static bool ctl_is_there(const ctl_request *request) {
    int host = ctl_connect(request->path, request->patience_s);
    if (host >= 0) {
        close(host);
    }
    return host >= 0;
}

static int ctl_tell_top(const ctl_request *request) {
    ctl_top top = {.view = request->view, .rows = request->rows};
    ctl_bytes answer = {0};
    ctl_status status;
    top.view.detail = PYPROF_DETAIL_FUNCTION;
    if (request->is_once) {
        return ctl_tell_once(request, &top);
    }
    bool is_good = ctl_get_status(request, &answer, &status);
    ctl_free(&answer);
    bool is_own = is_good && !status.is_recording;
    is_good = is_good && (!is_own || ctl_start(request));
    if (is_good) {
        ctl_begin_terminal();
        is_good = ctl_follow(request, &top);
        ctl_give_terminal_back();
        pyprof_free(top.shown);
    }
    if (is_own && (is_good || ctl_is_there(request))) {
        (void)ctl_drop(request);
    }
    return is_good ? EXIT_SUCCESS : CTL_FAILED;
}

/* ---- attach ------------------------------------------------------------------------------------------------- */

/* How many words come before those of another command. */
static int ctl_until_then(int argc, char **argv) {
    int own = 1;
    while (own < argc && strcmp(argv[own], "--then") != 0) {
        own++;
    }
    return own;
}

/* The words from --then on: a command whose process is that of attach. False: it was said what is wrong. */
static bool ctl_parse_then(int argc, char **argv, const ctl_request *request, ctl_request *then) {
    char **words = (char **)calloc((size_t)argc + 3, sizeof *words);
    const ctl_command *command = argc > 1 ? ctl_find_command(argv[1]) : NULL;
    bool help = false, is_good = false;
    if (words == NULL) {
        ctl_complain("out of memory");
    } else if (strcmp(request->command, "attach") != 0 || request->attach.is_undone) {
        ctl_complain("--then comes after attach, and not with --undo");
    } else if (command == NULL || !command->has_host || command->is_attach) {
        ctl_complain(argc > 1 ? "--then: '%s' is none of the commands that take a PID" : "--then wants a command%s",
                     argc > 1 ? argv[1] : "");
    } else {
        words[0] = argv[0];
        words[1] = argv[1];
        words[2] = (char *)(uintptr_t)request->host;
        memcpy(words + 3, argv + 2, (size_t)(argc - 2) * sizeof *words);
        is_good = ctl_parse(argc + 1, words, then, &help) && !help;
    }
    free(words);
    return is_good;
}

/* Whether it listens already, by whatever way. */
static bool ctl_listens(ctl_request *request) {
    char process[32];
    struct stat status;
    snprintf(process, sizeof process, "/proc/%ld", request->pid);
    bool has_one = ctl_has_socket(request, (unsigned long)geteuid()) ||
                   (stat(process, &status) == 0 && ctl_has_socket(request, (unsigned long)status.st_uid));
    int host = has_one ? ctl_connect(request->path, request->patience_s) : -1;
    if (host >= 0) {
        close(host);
    }
    return host >= 0;
}

/* False: it was said why not. */
static bool ctl_attach(ctl_request *request) {
    char why[2048] = "", *end = NULL;
    request->attach.pid = request->pid = strtol(request->host, &end, 10);
    if (*end != '\0' || request->pid <= 0) {
        ctl_complain("attach: '%s' is no process id", request->host);
        return false;
    }
    if (!request->attach.is_undone && ctl_listens(request)) {
        return true;
    }
    if (attach_process(&request->attach, request->path, sizeof request->path, why, sizeof why)) {
        return true;
    }
    ctl_complain("%s", why);
    return false;
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static bool ctl_put_help(void *user, const void *data, size_t size) {
    return fwrite(data, 1, size, (FILE *)user) == size;
}

static int ctl_tell_help(void) {
    fputs(ctl_help, stdout);
    (void)exports_help(ctl_put_help, stdout);
    fputs(ctl_options_help, stdout);
    return ctl_is_written() ? EXIT_SUCCESS : CTL_FAILED;
}

/* What is asked of a host that was found. */
static int ctl_run_with(ctl_request *request) {
    if (ctl_find_command(request->command)->has_duration) {
        ctl_hold_signals();
    }
    if (strcmp(request->command, "status") == 0) {
        return ctl_tell_status(request);
    }
    if (strcmp(request->command, "dump") == 0) {
        return ctl_tell_dump(request);
    }
    if (strcmp(request->command, "start") == 0) {
        return ctl_start(request) ? EXIT_SUCCESS : CTL_FAILED;
    }
    if (strcmp(request->command, "top") == 0) {
        return ctl_tell_top(request);
    }
    if (strcmp(request->command, "heap") == 0) {
        return ctl_tell_heap(request);
    }
    return request->is_dropped ? ctl_drop(request) : ctl_take(request);
}

static int ctl_run_then(const ctl_request *request, ctl_request *then) {
    then->pid = request->pid;
    memcpy(then->path, request->path, sizeof then->path);
    return ctl_run_with(then);
}

static int ctl_run(ctl_request *request, ctl_request *then) {
    if (strcmp(request->command, "list") == 0) {
        return ctl_list(request);
    }
    if (strcmp(request->command, "attach") == 0) {
        return ctl_attach(request) ? then != NULL ? ctl_run_then(request, then) : EXIT_SUCCESS : CTL_FAILED;
    }
    return ctl_find_host(request) ? ctl_run_with(request) : CTL_FAILED;
}

int main(int argc, char **argv) {
    ctl_request *request = (ctl_request *)calloc(1, sizeof *request), *then = (ctl_request *)calloc(1, sizeof *then);
    struct sigaction action;
    bool help = false;
    int status = CTL_USAGE;
    memset(&action, 0, sizeof action);
    action.sa_handler = ctl_end;
    (void)sigaction(SIGINT, &action, NULL); /* the first one ends what goes on, and what there is, is written */
    (void)sigaction(SIGTERM, &action, NULL);
    if (signal(SIGHUP, SIG_IGN) != SIG_IGN) { /* the terminal has gone; else nohup wants it to go on */
        (void)sigaction(SIGHUP, &action, NULL);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    if (request == NULL || then == NULL) {
        return ctl_complain("out of memory");
    }
    int own = ctl_until_then(argc, argv);
    if (!ctl_parse(own, argv, request, &help) ||
        (!help && own < argc && !ctl_parse_then(argc - own, argv + own, request, then))) {
        fputs("Try 'pyprof-ctl --help'.\n", stderr);
    } else {
        status = help ? ctl_tell_help() : ctl_run(request, own < argc ? then : NULL);
    }
    free(request);
    free(then);
    return status;
}
