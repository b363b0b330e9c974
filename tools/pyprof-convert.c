/* pyprof-convert: profiles from one format into others, filtered, added up or compared.
 *
 *     pyprof-convert game.pb.gz                          what took most, as a table
 *     pyprof-convert game.jsonl -o game.svg -o game.json
 *     pyprof-convert --diff before.pb.gz after.pb.gz -o change.svg
 *
 * All that is read becomes one pyprof_profile (imports.h), and so all that pyprof.h, exports.h and flamegraph.h can do with
 * a recording, they do with it. But where collapsed text becomes a picture and nothing else, its stacks go straight there:
 * see convert_import. It needs neither Python nor a recording.
 *
 * convert_main is the whole program, for who has it inside another one: there, include this file behind the implementation
 * of pyprof.h, with PYPROF_CONVERT_NO_MAIN defined. It never calls exit.
 */
#ifndef PYPROF_IMPLEMENTED
#define PYPROF_NO_RECORDING
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"
#endif
#ifndef EXPORTS_IMPLEMENTED
#define EXPORTS_IMPLEMENTATION
#include "exports.h"
#endif

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "differences.h"
#include "filter_options.h"
#include "imports.h"

#define CONVERT_VERSION "0.1"
#define CONVERT_MOST_OUTPUTS 16

enum {
    CONVERT_FAILED = 1,
    CONVERT_USAGE = 2
};

static const char convert_usage[] = "usage: pyprof-convert [OPTIONS] FILE... [-o OUT]...\n";

static const char convert_help[] =
    "\n"
    "Reads profiles, whoever recorded them, and writes them in other formats, filtered, added up or\n"
    "compared. What a FILE is, its content says; - is standard input, and gzip is undone. Read are:\n"
    "\n"
    "  pprof       ours, Go's and others'\n"
    "  speedscope  ours, py-spy's and others'\n"
    "  collapsed   ours, py-spy's (-f raw), FlameGraph's and inferno's; of others values are samples\n"
    "  jsonl       ours: all that was recorded\n"
    "\n"
    "Written are, by -f or the ending of OUT:\n"
    "\n";

static const char convert_options_help[] =
    "\n"
    "  -o, --output OUT        where it goes, - is standard output; may be given several times\n"
    "                          (default: standard output, as a table)\n"
    "  -f, --format FORMAT     one of these, for OUT whose ending does not say\n"
    "      --diff BASE         compare: what FILE has more or less than BASE, as svg or table; shares\n"
    "                          of the whole\n"
    "      --absolute          with --diff: times or samples, not shares; of memory it is always bytes\n"
    "                          or objects\n"
    "\n"
    " what is shown:\n"
    "      --metric METRIC     wall, cpu, gil or samples; of memory inuse_space, inuse_objects,\n"
    "                          alloc_space or alloc_objects (default: the first that all FILEs have)\n"
    "  -g, --gil               the same as --metric gil\n"
    "  -i, --idle              also the time in which threads only wait\n"
    "  -F, --function          one frame a function, not one a line (--diff: the default)\n"
    "      --lines             one frame a line (the default)\n"
    "      --only-thread NAME, --only-interpreter NAME\n"
    "                          only this one; in these four, * stands for any text\n"
    "      --only-file PATH, --only-function NAME\n"
    "                          only stacks with a frame of a file whose path begins so, or of it\n"
    "      --only-mine         frames of one package that is not yours are one frame\n"
    "      --min-share PART    what has less of the whole (0 to 1) is added to its caller\n"
    "\n"
    " how pictures look:\n"
    "  -t, --threads           threads apart at first, not together\n"
    "      --title TEXT, --subtitle TEXT, --width PIXELS, --min-width PIXELS, --inverted\n"
    "                          as pyprof-svg has them\n"
    "\n"
    " how it is read:\n"
    "      --unit UNIT         what the values of collapsed text are: ns, us, ms, s or samples; bytes or\n"
    "                          objects: of memory in use\n"
    "      --take TYPE         the one sample type of a pprof file to take, as inuse_space; bytes are\n"
    "                          memory in use, what is neither these nor time counts as samples\n"
    "\n"
    "  -h, --help              this text\n"
    "  -V, --version           the version\n"
    "\n"
    "Several FILEs are added up: times, samples, and threads of one name. Stacks without times lie one\n"
    "after the other in formats that have a time line. A profile of memory (a heap profile, ours or Go's)\n"
    "stays one, in bytes and objects; firefox, perfetto and pstats have times only, and refuse it.\n"
    "Exit code: 0 if all is written; 1 if something cannot be read or written, and then nothing is; 2 if\n"
    "the command line is wrong.\n";

/* ---- messages --------------------------------------------------------------------------------------------- */

/* One line on standard error; what a file's name may hold must not make it two. */
__attribute__((format(printf, 1, 2))) static int convert_complain(const char *format, ...) {
    char text[2048];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    for (char *at = text; *at != '\0'; at++) {
        *at = (unsigned char)*at < ' ' || *at == 0x7f ? '?' : *at;
    }
    fprintf(stderr, "pyprof-convert: %s\n", text);
    return CONVERT_FAILED;
}

static const char *convert_shown(const char *path) {
    return strcmp(path, "-") == 0 ? "<stdin>" : path;
}

/* ---- the command line ------------------------------------------------------------------------------------- */

typedef struct convert_output {
    const char *path; /* "-": standard output */
    exports_format format;
    char *target;      /* what the path leads to; NULL = it is written into */
    char beside[4096]; /* the file that will take its place; "" = none */
} convert_output;

typedef struct convert_request {
    char **inputs;
    int input_count;
    convert_output outputs[CONVERT_MOST_OUTPUTS];
    int output_count;
    const char *base; /* of --diff; NULL = none */
    const char *format;
    import_options import;
    pyprof_output show;
    flamegraph_options look;
    bool has_metric, has_detail, is_absolute;
    pyprof_kind kind; /* of the metric, if one was asked for */
} convert_request;

enum {
    OPTION_METRIC = 256,
    OPTION_LINES,
    OPTION_TITLE,
    OPTION_SUBTITLE,
    OPTION_WIDTH,
    OPTION_MIN_WIDTH,
    OPTION_INVERTED,
    OPTION_UNIT,
    OPTION_TAKE,
    OPTION_DIFF,
    OPTION_ABSOLUTE
};

static const struct option convert_long_options[] = {{"output", required_argument, NULL, 'o'},
                                                     {"format", required_argument, NULL, 'f'},
                                                     {"diff", required_argument, NULL, OPTION_DIFF},
                                                     {"absolute", no_argument, NULL, OPTION_ABSOLUTE},
                                                     {"metric", required_argument, NULL, OPTION_METRIC},
                                                     {"gil", no_argument, NULL, 'g'},
                                                     {"idle", no_argument, NULL, 'i'},
                                                     {"function", no_argument, NULL, 'F'},
                                                     {"lines", no_argument, NULL, OPTION_LINES},
                                                     FILTER_OPTIONS,
                                                     {"threads", no_argument, NULL, 't'},
                                                     {"title", required_argument, NULL, OPTION_TITLE},
                                                     {"subtitle", required_argument, NULL, OPTION_SUBTITLE},
                                                     {"width", required_argument, NULL, OPTION_WIDTH},
                                                     {"min-width", required_argument, NULL, OPTION_MIN_WIDTH},
                                                     {"inverted", no_argument, NULL, OPTION_INVERTED},
                                                     {"unit", required_argument, NULL, OPTION_UNIT},
                                                     {"take", required_argument, NULL, OPTION_TAKE},
                                                     {"help", no_argument, NULL, 'h'},
                                                     {"version", no_argument, NULL, 'V'},
                                                     {NULL, 0, NULL, 0}};

/* By pyprof_kind and pyprof_metric. */
static const char *const convert_metrics[][4] = {{"wall", "cpu", "gil", "samples"},
                                                 {"inuse_space", "alloc_space", "alloc_objects", "inuse_objects"}};

/* A number in its bounds. */
static bool convert_number(const char *name, const char *text, double least, double most, double *number) {
    char *end = NULL;
    *number = strtod(text, &end);
    if (end == text || *end != '\0' || !(*number >= least && *number <= most)) {
        convert_complain("%s: '%s' is not a number from %g to %g", name, text, least, most);
        return false;
    }
    return true;
}

static bool convert_set_metric(convert_request *request, const char *text) {
    for (unsigned i = 0; i < 8; i++) {
        if (strcmp(text, convert_metrics[i / 4][i % 4]) == 0) {
            request->show.metric = (pyprof_metric)(i % 4);
            request->kind = (pyprof_kind)(i / 4);
            request->has_metric = true;
            return true;
        }
    }
    convert_complain("--metric: '%s' is not wall, cpu, gil or samples, nor inuse_space, inuse_objects, alloc_space or "
                     "alloc_objects",
                     text);
    return false;
}

static bool convert_set_unit(convert_request *request, const char *text) {
    request->import.unit = text;
    size_t size = strlen(text);
    if (import_unit(text, size) < 0 && import_memory_unit(text, size) < 0 && strcmp(text, "samples") != 0) {
        convert_complain("--unit: '%s' is not ns, us, ms, s, samples, bytes or objects", text);
        return false;
    }
    return true;
}

static bool convert_set_width(convert_request *request, const char *text) {
    double width = 0;
    bool is_good = convert_number("--width", text, FLAMEGRAPH_MIN_WIDTH, FLAMEGRAPH_MAX_WIDTH, &width);
    request->look.width = (int)width;
    return is_good;
}

static bool convert_add_output(convert_request *request, const char *path) {
    if (request->output_count == CONVERT_MOST_OUTPUTS) {
        convert_complain("--output: there are more than %d", CONVERT_MOST_OUTPUTS);
        return false;
    }
    if (*path == '\0') {
        convert_complain("--output: the name is empty");
        return false;
    }
    request->outputs[request->output_count++].path = path;
    return true;
}

static bool convert_set_detail(convert_request *request, pyprof_detail detail) {
    request->show.detail = detail;
    request->has_detail = true;
    return true;
}

/* An option without a value; false: it is none of these. */
static bool convert_set_flag(convert_request *request, int option) {
    switch (option) {
    case 'g':
        return convert_set_metric(request, "gil");
    case 'i':
        return request->show.include_idle = true;
    case 'F':
        return convert_set_detail(request, PYPROF_DETAIL_FUNCTION);
    case OPTION_LINES:
        return convert_set_detail(request, PYPROF_DETAIL_LINE);
    case OPTION_INVERTED:
        return request->look.inverted = true;
    case OPTION_ABSOLUTE:
        return request->is_absolute = true;
    case 't':
        return request->look.threads = true;
    default:
        return false;
    }
}

/* An option whose value is a text; NULL: it is none of these. */
static const char **convert_text_of(convert_request *request, int option) {
    switch (option) {
    case 'f':
        return &request->format;
    case OPTION_DIFF:
        return &request->base;
    case OPTION_TITLE:
        return &request->look.title;
    case OPTION_SUBTITLE:
        return &request->look.subtitle;
    case OPTION_TAKE:
        return &request->import.take;
    default:
        return NULL;
    }
}

/* False: it was said what is wrong. */
static bool convert_set_option(convert_request *request, int option, const char *value, const char *given) {
    const char **text = convert_text_of(request, option);
    filter_taken taken = filter_take(&request->show, option, value);
    if (text != NULL) {
        *text = value;
        return true;
    }
    if (taken == FILTER_WRONG) {
        convert_complain(FILTER_WRONG_VALUE, value);
    }
    if (taken != FILTER_OTHER) {
        return taken == FILTER_TAKEN;
    }
    switch (option) {
    case 'o':
        return convert_add_output(request, value);
    case OPTION_METRIC:
        return convert_set_metric(request, value);
    case OPTION_WIDTH:
        return convert_set_width(request, value);
    case OPTION_MIN_WIDTH:
        return convert_number("--min-width", value, 0.01, 100, &request->look.min_width);
    case OPTION_UNIT:
        return convert_set_unit(request, value);
    case ':':
        convert_complain("%s wants a value", given);
        return false;
    case '?':
        convert_complain("there is no option %s, or it takes no value", given);
        return false;
    default:
        return convert_set_flag(request, option);
    }
}

/* Which format each output has; that of --format, or of the path's ending. */
static bool convert_choose_formats(convert_request *request) {
    exports_format asked = request->format != NULL ? exports_format_of_name(request->format) : EXPORTS_FORMAT_NONE;
    char list[256];
    if (request->format != NULL && asked == EXPORTS_FORMAT_NONE) {
        convert_complain("--format: '%s' is none of %s", request->format, exports_list(list, sizeof list));
        return false;
    }
    for (int i = 0; i < request->output_count; i++) {
        convert_output *output = &request->outputs[i];
        bool is_stream = strcmp(output->path, "-") == 0;
        output->format = !is_stream                     ? exports_choose(output->path, asked)
                         : asked != EXPORTS_FORMAT_NONE ? asked
                                                        : EXPORTS_FORMAT_TABLE;
        if (output->format == EXPORTS_FORMAT_NONE) {
            convert_complain(asked == EXPORTS_FORMAT_NONE
                                 ? "%s: its ending means no format: say it by --format, one of %s"
                                 : "%s: its ending means another format than --format says",
                             output->path, exports_list(list, sizeof list));
            return false;
        }
    }
    return true;
}

/* What only a comparison can be, and what it cannot. */
static bool convert_check_diff(const convert_request *request) {
    if (request->base == NULL && request->is_absolute) {
        convert_complain("--absolute: it says how --diff compares, which is missing");
        return false;
    }
    for (int i = 0; i < request->output_count && request->base != NULL; i++) {
        exports_format format = request->outputs[i].format;
        if (format != EXPORTS_FORMAT_SVG && format != EXPORTS_FORMAT_TABLE) {
            convert_complain("%s: a comparison by --diff can be had as svg and as table, not as %s",
                             request->outputs[i].path, exports_name(format));
            return false;
        }
    }
    return true;
}

/* Reads the command line; false: it was said what is wrong. Inputs are those of argv that stay. */
static bool convert_parse(int argc, char **argv, convert_request *request, bool *help, bool *version) {
    int option;
    optind = 0; /* begins anew: this may not be the first time */
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":o:f:giFthV", convert_long_options, NULL)) != -1) {
        if (option == 'h' || option == 'V') {
            *help = *help || option == 'h';
            *version = *version || option == 'V';
        } else if (!convert_set_option(request, option, optarg, argv[optind - 1])) {
            return false;
        }
    }
    request->inputs = argv + optind;
    request->input_count = argc - optind;
    if (*help || *version) {
        return true;
    }
    if (request->input_count == 0) {
        convert_complain("no FILE is given");
        return false;
    }
    if (request->output_count == 0) {
        (void)convert_add_output(request, "-");
    }
    if (request->base != NULL && !request->has_detail) {
        request->show.detail = PYPROF_DETAIL_FUNCTION;
    }
    return convert_choose_formats(request) && convert_check_diff(request);
}

static bool convert_print(void *user, const void *data, size_t size) {
    return fwrite(data, 1, size, (FILE *)user) == size;
}

static int convert_tell(bool help) {
    if (help) {
        fputs(convert_usage, stdout);
        fputs(convert_help, stdout);
        (void)exports_help(convert_print, stdout);
        fputs(convert_options_help, stdout);
    } else {
        puts("pyprof-convert " CONVERT_VERSION);
    }
    bool is_written = fflush(stdout) == 0 && !ferror(stdout); /* a part that failed before is not tried again */
    return is_written ? EXIT_SUCCESS : convert_complain("cannot write standard output");
}

/* ---- files that are two things ---------------------------------------------------------------------------- */

/* The regular file that a path leads to; false: it leads to none. */
static bool convert_stat(const char *path, bool is_input, struct stat *status) {
    bool is_known =
        strcmp(path, "-") == 0 ? fstat(is_input ? STDIN_FILENO : STDOUT_FILENO, status) == 0 : stat(path, status) == 0;
    return is_known && S_ISREG(status->st_mode);
}

static bool convert_are_one(const char *one, bool is_input, const char *other, bool is_other_input) {
    struct stat first, second;
    return convert_stat(one, is_input, &first) && convert_stat(other, is_other_input, &second) &&
           first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/* An output must not take the place of an input or of another output. */
static bool convert_check_paths(const convert_request *request) {
    int streams = 0;
    for (int i = -1; i < request->input_count; i++) {
        const char *input = i < 0 ? request->base : request->inputs[i];
        streams += input != NULL && strcmp(input, "-") == 0;
        for (int j = 0; input != NULL && j < request->output_count; j++) {
            if (convert_are_one(input, true, request->outputs[j].path, false)) {
                convert_complain("%s: it is read, and would be written over: give the output another name",
                                 convert_shown(input));
                return false;
            }
        }
    }
    for (int i = 0; i < request->output_count; i++) {
        for (int j = 0; j < i; j++) {
            const char *one = request->outputs[i].path, *other = request->outputs[j].path;
            if (strcmp(one, other) == 0 || convert_are_one(one, false, other, false)) {
                convert_complain("%s: two outputs would go there", one);
                return false;
            }
        }
    }
    if (streams > 1) {
        convert_complain("<stdin>: it can be read only once");
    }
    return streams <= 1;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

/* What was read: one profile of all files. */
typedef struct convert_input {
    pyprof_profile *profile;
    flamegraph *tree; /* of its stacks, which are then not in the profile; NULL = they are there */
    pyprof_facts facts;
    unsigned metrics; /* that all files have: bits as in imported */
    bool has_threads;
    bool is_begun; /* facts.kind is that of all files */
    char program[4096];
    char process[256];
    char python[64];
} convert_input;

static const char *convert_list_metrics(pyprof_kind kind, unsigned metrics, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < 4; i++) {
        if (metrics & 1u << i) {
            used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", convert_metrics[kind][i]);
        }
    }
    return text;
}

/* Whether a list, with ", " between its names, has a name. */
static bool convert_has_name(const char *list, const char *name) {
    size_t size = strlen(name);
    for (const char *at = list; at != NULL; at = strstr(at, ", ")) {
        at += at == list ? 0 : 2;
        if (strncmp(at, name, size) == 0 && (at[size] == '\0' || strncmp(at + size, ", ", 2) == 0)) {
            return true;
        }
    }
    return false;
}

/* Names that differ stand side by side. */
static void convert_join_text(char *into, size_t room, const char *text) {
    size_t used = strlen(into);
    if (*text != '\0' && !convert_has_name(into, text)) {
        snprintf(into + used, room - used, "%s%s", used > 0 ? ", " : "", text);
    }
}

/* Counts add up; of what is no count, the most, or the first, is told. */
static void convert_join_stats(pyprof_stats *into, const pyprof_stats *from) {
    uint64_t sums[sizeof *into / sizeof(uint64_t)], more[sizeof *into / sizeof(uint64_t)];
    pyprof_stats before = *into;
    memcpy(sums, into, sizeof sums);
    memcpy(more, from, sizeof more);
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        sums[i] += more[i];
    }
    memcpy(into, sums, sizeof sums);
    into->bytes = before.bytes > from->bytes ? before.bytes : from->bytes;
    into->bytes_peak = before.bytes_peak > from->bytes_peak ? before.bytes_peak : from->bytes_peak;
    into->signal_number = before.signal_number != 0 ? before.signal_number : from->signal_number;
    into->reserved = 0;
}

static void convert_join_facts(convert_input *into, const imported *from) {
    pyprof_facts *facts = &into->facts;
    const pyprof_facts *more = &from->facts;
    bool is_earlier = more->start_ns != 0 && (facts->start_ns == 0 || more->start_ns < facts->start_ns);
    facts->start_ns = is_earlier ? more->start_ns : facts->start_ns;
    facts->duration_ns += more->duration_ns;
    facts->kind = more->kind;
    facts->sampling_bytes = more->sampling_bytes > facts->sampling_bytes ? more->sampling_bytes : facts->sampling_bytes;
    bool is_same = facts->interval_us == 0 || facts->interval_us == more->interval_us;
    facts->interval_us = is_same || more->interval_us == 0 ? more->interval_us : facts->interval_us;
    convert_join_stats(&facts->stats, &more->stats);
    convert_join_text(into->program, sizeof into->program, from->program);
    convert_join_text(into->process, sizeof into->process, from->process);
    convert_join_text(into->python, sizeof into->python, from->python);
}

/* Gives the profile what is known of the recording as a whole, which stands at the end of some files. */
static bool convert_set_facts(convert_input *input) {
    pyprof_facts *facts = &input->facts;
    facts->program = import_text(input->program, strlen(input->program));
    facts->process = import_text(input->process, strlen(input->process));
    facts->python = import_text(input->python, strlen(input->python));
    return pyprof__fill_made(input->profile, facts);
}

/* A node's figures as spans: what ran with the GIL, what ran without it, what waited. */
static bool convert_lay_out_node(pyprof_profile *profile, uint32_t number) {
    const pyprof__node node = *pyprof__node_at(profile, number);
    uint64_t gil = pyprof__min64(node.gil_ns, node.wall_ns - node.wall_idle_ns);
    uint64_t walls[3] = {gil, node.wall_ns - node.wall_idle_ns - gil, node.wall_idle_ns};
    uint64_t samples[3] = {0, 0, node.samples_idle};
    samples[walls[0] > 0 || walls[1] == 0 ? 0 : 1] = node.samples - node.samples_idle;
    uint64_t cpu = node.cpu_ns;
    for (unsigned i = 0; i < 3; i++) {
        if (walls[i] == 0 && samples[i] == 0 && (i > 0 || cpu == 0)) {
            continue;
        }
        uint64_t wall = i == 0 && node.wall_ns == 0 ? cpu : walls[i]; /* of a file that has CPU time only */
        pyprof_span span = {.node = number, .start_ns = pyprof__track_at(profile, node.track)->end_ns, .wall_ns = wall};
        span.cpu_ns = i == 1 || walls[1] == 0 ? cpu : pyprof__min64(cpu, wall);
        span.samples = (uint32_t)pyprof__min64(samples[i], UINT32_MAX);
        span.has_gil = i == 0 && gil > 0;
        span.is_idle = i == 2;
        cpu -= span.cpu_ns;
        if (pyprof_add_span(profile, &span) != PYPROF_OK) {
            return false;
        }
    }
    return true;
}

/* Stacks of a file without times, from first_node on: one after the other, for formats that have a time line. */
static bool convert_lay_out(pyprof_profile *profile, uint32_t first_node) {
    for (uint32_t i = first_node; i < profile->nodes.items.count; i++) {
        if (!convert_lay_out_node(profile, i)) {
            convert_complain("%s", pyprof_last_error());
            return false;
        }
    }
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        uint64_t end_ns = pyprof__track_at(profile, i)->end_ns;
        profile->duration_ns = end_ns > profile->duration_ns ? end_ns : profile->duration_ns;
    }
    return true;
}

static bool convert_needs_times(const convert_request *request) {
    bool needs = false;
    for (int i = 0; i < request->output_count; i++) {
        exports_format format = request->outputs[i].format;
        needs = needs || format == EXPORTS_FORMAT_SPEEDSCOPE || format == EXPORTS_FORMAT_FIREFOX ||
                format == EXPORTS_FORMAT_PERFETTO;
    }
    return needs;
}

/* Whether it has the metric that is asked for; and one that all files before it have, too. */
static bool convert_check_metrics(const convert_request *request, const char *path, const imported *file,
                                  const convert_input *before) {
    char has[96], others[96];
    pyprof_kind kind = file->facts.kind, common = before->is_begun ? before->facts.kind : kind;
    convert_list_metrics(kind, file->metrics, has, sizeof has);
    convert_list_metrics(common, before->metrics, others, sizeof others);
    if (request->has_metric && (kind != request->kind || !(file->metrics & 1u << request->show.metric))) {
        convert_complain("%s: this file has no %s: it has %s", convert_shown(path),
                         convert_metrics[request->kind][request->show.metric], has);
        return false;
    }
    if (kind != common || (before->metrics & file->metrics) == 0) {
        convert_complain("%s: it cannot be added to the files before it: it has %s, and they have %s",
                         convert_shown(path), has, others);
        return false;
    }
    return true;
}

static bool convert_begin(convert_input *into) {
    into->metrics = 15;
    return pyprof_make(NULL, 0, NULL, &into->profile) == PYPROF_OK;
}

/* Forgets what was read. */
static void convert_drop(convert_input *into) {
    flamegraph_free(into->tree);
    pyprof_free(into->profile);
    memset(into, 0, sizeof *into);
}

/* Whether all that is made of the files is a picture of one of them as it is, which can be read twice. */
static bool convert_may_have_tree(const convert_request *request) {
    const pyprof_output *show = &request->show;
    struct stat status;
    return request->input_count == 1 && request->base == NULL && request->output_count == 1 &&
           request->outputs[0].format == EXPORTS_FORMAT_SVG && show->detail == PYPROF_DETAIL_LINE &&
           !pyprof__is_filtered(show) && stat(request->inputs[0], &status) == 0 && S_ISREG(status.st_mode);
}

/* Reads a file; if its picture is then the same, its stacks into a tree, where they are few bytes a node: a profile has
   room for all figures of each node, of which collapsed text knows one. */
static pyprof_result convert_import(const convert_request *request, const char *path, convert_input *into,
                                    imported *file) {
    import_options options = request->import;
    bool is_named = false;
    options.tree = into->tree = convert_may_have_tree(request) ? flamegraph_create() : NULL;
    pyprof_result result = import_file(into->profile, path, &options, file);
    if (into->tree == NULL || (result != PYPROF_OK && !file->is_mixed)) {
        return result;
    }
    if (!file->has_tree) {
        flamegraph_free(into->tree);
        into->tree = NULL;
        return result;
    }
    uint32_t nodes = into->profile->nodes.items.count;
    if (result == PYPROF_OK &&
        exports_name_tree(into->profile, &request->show, nodes, into->tree, &is_named) == PYPROF_OK && is_named) {
        return result;
    }
    convert_drop(into);
    snprintf(file->wrong, sizeof file->wrong, "%s: out of memory", path);
    return convert_begin(into) ? import_file(into->profile, path, &request->import, file) : PYPROF_ERROR_MEMORY;
}

static bool convert_read_file(const convert_request *request, const char *path, convert_input *into,
                              uint32_t *no_times) {
    imported file;
    if (convert_import(request, path, into, &file) != PYPROF_OK) {
        convert_complain("%s", file.wrong);
        return false;
    }
    if (!convert_check_metrics(request, path, &file, into)) {
        return false;
    }
    into->is_begun = true;
    into->metrics &= file.metrics;
    into->has_threads = into->has_threads || file.has_threads;
    *no_times = file.has_times ? PYPROF__NONE : file.first_node;
    convert_join_facts(into, &file);
    return true;
}

/* Reads the files into one profile; false: it was said why not. */
static bool convert_read(const convert_request *request, char *const *paths, int count, convert_input *into) {
    bool is_good = convert_begin(into), needs_times = convert_needs_times(request);
    if (!is_good) {
        convert_complain("out of memory");
    }
    for (int i = 0; is_good && i < count; i++) {
        uint32_t no_times = PYPROF__NONE;
        is_good = convert_read_file(request, paths[i], into, &no_times) &&
                  (!needs_times || no_times == PYPROF__NONE || into->facts.kind == PYPROF_KIND_HEAP ||
                   convert_lay_out(into->profile, no_times));
    }
    if (is_good) {
        uint64_t end_ns = into->profile->duration_ns;
        is_good = convert_set_facts(into);
        into->profile->duration_ns =
            pyprof__min64(end_ns, UINT64_MAX) > into->facts.duration_ns ? end_ns : into->facts.duration_ns;
    }
    return is_good;
}

/* ---- filters that let nothing through --------------------------------------------------------------------- */

/* Names, as far as there is room for them, each once. */
typedef struct convert_names {
    char text[400];
    size_t used, count;
} convert_names;

static void convert_add_name(convert_names *names, const char *text, size_t size) {
    char quoted[100];
    snprintf(quoted, sizeof quoted, "'%.*s'", (int)pyprof__min64(size, 90), text);
    if (names->used + strlen(quoted) + 8 > sizeof names->text) {
        names->count++;
    } else if (strstr(names->text, quoted) == NULL) {
        names->used += (size_t)snprintf(names->text + names->used, sizeof names->text - names->used, "%s%s",
                                        names->used > 0 ? ", " : "", quoted);
    }
}

typedef struct convert_sums {
    uint64_t value;
    convert_names threads;
} convert_sums;

static bool convert_sum_node(void *user, const pyprof_node *node) {
    convert_sums *sums = (convert_sums *)user;
    sums->value += node->value;
    if (node->parent == PYPROF_NO_NODE) {
        convert_add_name(&sums->threads, node->name.data, node->name.size);
    }
    return true;
}

/* Of all that is shown. */
static bool convert_sum(const pyprof_profile *profile, const pyprof_output *output, convert_sums *sums) {
    pyprof_visitor visitor = {.node = convert_sum_node, .user = sums};
    memset(sums, 0, sizeof *sums);
    return pyprof_visit(profile, output, &visitor) == PYPROF_OK;
}

/* Functions, files or interpreters of what is shown, those that took most first. */
static void convert_name_rows(const pyprof_profile *profile, const pyprof_output *output, char what,
                              convert_names *names) {
    size_t count = 0;
    pyprof_row *rows = NULL;
    pyprof_output shown = *output;
    shown.detail = PYPROF_DETAIL_FUNCTION;
    if (pyprof_top(profile, &shown, NULL, &count) == PYPROF_OK) {
        rows = (pyprof_row *)calloc(count + 1, sizeof *rows);
    }
    if (rows == NULL || pyprof_top(profile, &shown, rows, &count) != PYPROF_OK) {
        count = 0;
    }
    static const char mark[] = "[interpreter ";
    for (size_t i = 0; i < count; i++) {
        const pyprof_text *text = what == 'p' ? &rows[i].path : &rows[i].name;
        bool is_mark = text->size > sizeof mark && memcmp(text->data, mark, sizeof mark - 1) == 0;
        if (what == 'i' && is_mark) {
            convert_add_name(names, text->data + sizeof mark - 1, text->size - sizeof mark);
        } else if (what != 'i' && text->size > 0 && text->data[0] != '[') {
            convert_add_name(names, text->data, text->size);
        }
    }
    free(rows);
}

/* Says which filter it is that nothing passes, and what there is. */
static void convert_say_nothing_passes(const convert_request *request, const convert_input *input, const char *name) {
    static const char *const whats[] = {"a thread", "an interpreter", "a file", "a function"};
    const char *const values[] = {request->show.thread, request->show.interpreter, request->show.file,
                                  request->show.function};
    pyprof_output shown = {.metric = request->show.metric, .include_idle = request->show.include_idle};
    const char **filters[] = {&shown.thread, &shown.interpreter, &shown.file, &shown.function};
    for (unsigned i = 0; i < 4; i++) {
        convert_sums before, after;
        bool is_good = values[i] != NULL && convert_sum(input->profile, &shown, &before);
        pyprof_output until = shown;
        *filters[i] = values[i];
        if (!is_good || !convert_sum(input->profile, &shown, &after) || after.value > 0) {
            continue;
        }
        if (i > 0) {
            memset(&before.threads, 0, sizeof before.threads);
            convert_name_rows(input->profile, &until, "tipf"[i], &before.threads);
        }
        if (i == 1) {
            convert_add_name(&before.threads, "main", 4);
        }
        convert_complain("%s: no stack is of %s '%s'%s: there %s %s%s", name, whats[i], values[i],
                         i > 0 && until.thread != NULL ? ", of those that the filters before it let through" : "",
                         before.threads.used == 0 ? "is none" : "are", before.threads.text,
                         before.threads.count > 0 ? ", ..." : "");
        return;
    }
    convert_complain("%s: nothing passes the filters: give fewer of them", name);
}

/* Whether something passes the filters, if there are any. */
static bool convert_check_filters(const convert_request *request, const convert_input *input, const char *name) {
    const pyprof_output *show = &request->show;
    convert_sums sums;
    if (!filter_is_given(show)) {
        return true;
    }
    if (!convert_sum(input->profile, show, &sums)) {
        convert_complain("%s", pyprof_last_error());
        return false;
    }
    if (sums.value == 0) {
        convert_say_nothing_passes(request, input, name);
    }
    return sums.value > 0;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

/* What goes into an output. */
typedef struct convert_source {
    const convert_request *request;
    const convert_input *input, *base; /* base: of --diff, else NULL */
} convert_source;

/* What --diff shows. */
static bool convert_write_difference(const convert_source *source, exports_format format, pyprof_write_fn write,
                                     void *user, const char **wrong) {
    const convert_request *request = source->request;
    difference of = {.profiles = {source->base->profile, source->input->profile},
                     .names = {convert_shown(request->base), convert_shown(request->inputs[0])},
                     .output = request->show,
                     .is_absolute = request->is_absolute};
    of.output.merge_threads = !source->input->has_threads || !source->base->has_threads;
    *wrong = "out of memory";
    return format == EXPORTS_FORMAT_SVG ? difference_draw(&of, &request->look, write, user)
                                        : difference_tabulate(&of, write, user);
}

/* Writes pprof. Its readers and engines want a time, a period and a program (see >>pprof), which not all files tell: then the
   recording ended when the file was written, and sampled at 100 Hz, which is what most profilers do. */
static pyprof_result convert_write_pprof(const convert_source *source, const pyprof_output *output,
                                         exports_format format, pyprof_write_fn write, void *user) {
    pyprof_profile *profile = source->input->profile;
    uint64_t start_ns = profile->epoch_ns;
    uint32_t interval_us = profile->interval_us;
    struct stat status;
    const char *path = source->request->inputs[0];
    time_t written = convert_stat(path, true, &status) ? status.st_mtime : time(NULL);
    if (start_ns == 0 && written > 0) {
        profile->epoch_ns = (uint64_t)written * 1000000000u;
        profile->epoch_ns -= pyprof__min64(profile->duration_ns, profile->epoch_ns - 1);
    }
    profile->interval_us = interval_us > 0 || profile->kind == PYPROF_KIND_HEAP ? interval_us : 10000;
    pyprof_result result = exports_write(profile, output, format, write, user);
    profile->epoch_ns = start_ns;
    profile->interval_us = interval_us;
    return result;
}

/* Writes one format through a function; false: *wrong says why not. */
static bool convert_write(const convert_source *source, exports_format format, pyprof_write_fn write, void *user,
                          const char **wrong) {
    const convert_request *request = source->request;
    pyprof_output output = request->show;
    if (source->base != NULL) {
        return convert_write_difference(source, format, write, user, wrong);
    }
    output.merge_threads = !source->input->has_threads;
    bool is_pprof = format == EXPORTS_FORMAT_PPROF || format == EXPORTS_FORMAT_PPROF_PLAIN;
    pyprof_result result =
        is_pprof ? convert_write_pprof(source, &output, format, write, user)
        : source->input->tree != NULL
            ? exports_draw_tree(source->input->profile, &output, source->input->tree, &request->look, write, user)
        : format == EXPORTS_FORMAT_SVG ? exports_draw(source->input->profile, &output, &request->look, write, user)
                                       : exports_write(source->input->profile, &output, format, write, user);
    *wrong = exports_last_error();
    return result == PYPROF_OK;
}

/* Writes into a descriptor, which it closes. */
static bool convert_fill(const convert_source *source, const convert_output *output, int descriptor) {
    pyprof__file file = {descriptor, 0};
    const char *wrong = NULL;
    bool is_good = convert_write(source, output->format, pyprof__write_file, &file, &wrong);
    if (close(descriptor) != 0 && file.error == 0) {
        file.error = errno;
    }
    if (file.error != 0 || !is_good) {
        convert_complain("%s: cannot be written: %s", output->path, file.error != 0 ? strerror(file.error) : wrong);
    }
    return is_good && file.error == 0;
}

static bool convert_cannot(const convert_output *output) {
    convert_complain("%s: cannot be written: %s", output->path, strerror(errno));
    return false;
}

/* Into what is no regular file, as it comes. */
static bool convert_write_into(const convert_source *source, const convert_output *output) {
    bool is_stream = strcmp(output->path, "-") == 0;
    int descriptor =
        is_stream ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3) : open(output->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return descriptor < 0 ? convert_cannot(output) : convert_fill(source, output, descriptor);
}

/* Into a new file beside, which takes its place once all others are written. */
static bool convert_write_beside(const convert_source *source, convert_output *output, mode_t mode) {
    output->target = flamegraph_target(output->path);
    int descriptor =
        output->target != NULL ? pyprof__open_beside(output->target, output->beside, sizeof output->beside) : -1;
    if (descriptor < 0) {
        output->beside[0] = '\0';
        return convert_cannot(output);
    }
    if (mode != 0 && fchmod(descriptor, mode & 07777) != 0) {
        (void)close(descriptor);
        return convert_cannot(output);
    }
    return convert_fill(source, output, descriptor);
}

static bool convert_write_output(const convert_source *source, convert_output *output) {
    struct stat status;
    bool is_there = strcmp(output->path, "-") == 0 || stat(output->path, &status) == 0;
    if (is_there && strcmp(output->path, "-") != 0 && S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        return convert_cannot(output);
    }
    if (is_there && (strcmp(output->path, "-") == 0 || !S_ISREG(status.st_mode))) {
        return convert_write_into(source, output);
    }
    return convert_write_beside(source, output, is_there ? status.st_mode : 0);
}

/* Writes all outputs, or none: files take their places when all are whole. */
static bool convert_write_all(const convert_source *source, convert_request *request) {
    bool is_good = true;
    for (int i = 0; is_good && i < request->output_count; i++) {
        is_good = convert_write_output(source, &request->outputs[i]);
    }
    for (int i = 0; i < request->output_count; i++) {
        convert_output *output = &request->outputs[i];
        if (is_good && output->beside[0] != '\0' && rename(output->beside, output->target) != 0) {
            is_good = convert_cannot(output);
        }
        if (!is_good && output->beside[0] != '\0') {
            (void)unlink(output->beside);
        }
        free(output->target);
    }
    return is_good;
}

/* ---- the program ------------------------------------------------------------------------------------------ */

/* The metric that is shown, if none was asked for: the first one that is in all files. Of memory, what is in use comes
   before what was allocated. */
static void convert_choose_metric(convert_request *request, pyprof_kind kind, unsigned metrics) {
    static const pyprof_metric of_memory[] = {PYPROF_METRIC_INUSE_SPACE, PYPROF_METRIC_INUSE_OBJECTS,
                                              PYPROF_METRIC_ALLOC_SPACE, PYPROF_METRIC_ALLOC_OBJECTS};
    for (unsigned i = 0; i < 4 && !request->has_metric; i++) {
        pyprof_metric metric = kind == PYPROF_KIND_HEAP ? of_memory[i] : (pyprof_metric)i;
        if (metrics & 1u << metric) {
            request->show.metric = metric;
            request->has_metric = true;
        }
    }
}

/* Formats that have nothing but a time line need times. */
static bool convert_check_times(const convert_request *request, pyprof_kind kind, unsigned metrics) {
    bool has_times = kind == PYPROF_KIND_TIME && (metrics & (1u << PYPROF_METRIC_WALL | 1u << PYPROF_METRIC_CPU)) != 0;
    for (int i = 0; i < request->output_count && !has_times; i++) {
        exports_format format = request->outputs[i].format;
        if (kind == PYPROF_KIND_HEAP && !exports_has_memory(format)) {
            convert_complain("%s: %s shows times, and this is a profile of memory", request->outputs[i].path,
                             exports_name(format));
            return false;
        }
        if (kind == PYPROF_KIND_HEAP) {
            continue;
        }
        if (!exports_has_memory(format)) { /* nor samples: it has times only */
            convert_complain("%s: %s shows times, and there are only samples: --unit says what values are",
                             request->outputs[i].path, exports_name(format));
            return false;
        }
    }
    return true;
}

static bool convert_read_all(convert_request *request, convert_input *input, convert_input *base) {
    const char *name = request->input_count == 1 ? convert_shown(request->inputs[0]) : "the files";
    char *base_path = (char *)(uintptr_t)request->base;
    if (!convert_read(request, request->inputs, request->input_count, input) ||
        (base_path != NULL && !convert_read(request, &base_path, 1, base))) {
        return false;
    }
    pyprof_kind kind = input->facts.kind;
    if (base_path != NULL && kind != base->facts.kind) {
        convert_complain("%s: it cannot be compared with %s: one is of memory, the other is not", name, base_path);
        return false;
    }
    request->is_absolute = request->is_absolute || (base_path != NULL && kind == PYPROF_KIND_HEAP);
    if (base_path != NULL && (input->metrics & base->metrics) == 0) {
        convert_complain("%s: it cannot be compared with %s: they have no metric in common", name, base_path);
        return false;
    }
    convert_choose_metric(request, kind, input->metrics & (base_path != NULL ? base->metrics : 15));
    convert_sums sums = {0};
    bool is_in_base = base_path != NULL && convert_sum(base->profile, &request->show, &sums) && sums.value > 0;
    return convert_check_times(request, kind, input->metrics) &&
           (is_in_base || convert_check_filters(request, input, name));
}

static int convert_run(convert_request *request) {
    convert_input *inputs = (convert_input *)calloc(2, sizeof *inputs);
    if (inputs == NULL) {
        return convert_complain("out of memory");
    }
    convert_source source = {request, &inputs[0], request->base != NULL ? &inputs[1] : NULL};
    bool is_good = convert_read_all(request, &inputs[0], &inputs[1]) && convert_write_all(&source, request);
    convert_drop(&inputs[0]);
    convert_drop(&inputs[1]);
    free(inputs);
    return is_good ? EXIT_SUCCESS : CONVERT_FAILED;
}

/* The whole program. Answers the exit status. Not to be called by two threads at once, as getopt_long is not. */
int convert_main(int argc, char **argv);

int convert_main(int argc, char **argv) {
    bool help = false, version = false;
    int status = CONVERT_USAGE;
    convert_request *request = (convert_request *)calloc(1, sizeof *request);
    if (request == NULL) {
        return convert_complain("out of memory");
    }
    if (!convert_parse(argc, argv, request, &help, &version)) {
        fputs("Try 'pyprof-convert --help'.\n", stderr);
    } else if (help || version) {
        status = convert_tell(help);
    } else if (convert_check_paths(request)) {
        status = convert_run(request);
    }
    free(request);
    return status;
}

#if !defined(PYPROF_CONVERT_NO_MAIN)
int main(int argc, char **argv) {
    (void)signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error like others: what was begun is removed */
    return convert_main(argc, argv);
}
#endif
