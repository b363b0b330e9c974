/* pyprof-run: runs a Python program inside a small embedding host, under the profiler.
 *
 *     pyprof-run script.py ARGS...        the picture is script-DATE-TIME.svg
 *     pyprof-run -o out.collapsed -r 1000 -m package.module ARGS...
 *
 * What runs under `python3` runs the same under it: the python command line is rebuilt and given to
 * Py_RunMain, so argv, sys.path, __main__, stdin, exit code and signals are CPython's own doing. Left to
 * do here are the way to the right installation (find_python), the recording's beginning and end, and the
 * few moments at which a process ends without passing by (see "the end of the recording").
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#define PYPROF_IMPLEMENTATION
#include "../pyprof.h"
#include "flamegraph.h"

#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PYPROF_RUN_PYTHON
#error "PYPROF_RUN_PYTHON must name the executable of the CPython that this program is linked with"
#endif

#define VERSION_TEXT "0.1"
#define STRINGIZE_(value) #value
#define STRINGIZE(value) STRINGIZE_(value)
#define PYTHON_X_Y STRINGIZE(PY_MAJOR_VERSION) "." STRINGIZE(PY_MINOR_VERSION)
#ifdef Py_GIL_DISABLED
#define PYTHON_LIB "lib/python" PYTHON_X_Y "t"
#else
#define PYTHON_LIB "lib/python" PYTHON_X_Y
#endif

enum {
    EXIT_FAILED = 1,
    EXIT_USAGE = 2
};

typedef enum file_format {
    FORMAT_UNSET,
    FORMAT_SVG,
    FORMAT_COLLAPSED,
    FORMAT_SPEEDSCOPE
} file_format;

typedef struct options {
    const char *output; /* NULL = a name made from the target's */
    file_format format;
    double rate;     /* samples a second */
    double duration; /* seconds; 0 = until the end */
    pyprof_output view;
    const char *mode;   /* "-m", "-c" or NULL = a script */
    const char *target; /* module, code or script */
    bool joined;        /* -mMODULE, one word: sys.orig_argv tells */
    char **arguments;   /* what follows the target; ends with NULL */
} options;

/* What the callbacks need: one recording a process, so one of these. */
static struct {
    options opt;
    char *path;  /* where the output goes; absolute, as the program may change its directory */
    char *shown; /* the same as the user wrote it */
    pid_t pid;   /* children made by fork share this memory, but not the recording */
    struct timespec begun;
    sem_t wake; /* posted by the signal handler and at the end */
    pthread_t supervisor;
    bool supervised;
    atomic_int fatal_signal;
    atomic_bool closed; /* nobody waits for `wake` any more */
    atomic_bool quit;
    pthread_mutex_t lock; /* guards what follows */
    bool finished;
    bool failed;
} run = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- messages ------------------------------------------------------------------------------------------- */

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void complain(const char *format, ...) {
    va_list values;
    va_start(values, format);
    flockfile(stderr);
    fputs("pyprof-run: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(values);
}

static void *must(void *memory) {
    if (!memory) {
        complain("out of memory");
        exit(EXIT_FAILED);
    }
    return memory;
}

static char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *text_of(const char *format, ...) {
    va_list values;
    va_start(values, format);
    char *text = NULL;
    if (vasprintf(&text, format, values) < 0) {
        text = NULL;
    }
    va_end(values);
    return must(text);
}

static const char HELP[] =
    "usage: pyprof-run [OPTIONS] SCRIPT [ARGS...]\n"
    "       pyprof-run [OPTIONS] -m MODULE [ARGS...]\n"
    "       pyprof-run [OPTIONS] -c CODE [ARGS...]\n"
    "\n"
    "Runs a Python program as python3 does, and records where it spends its time.\n"
    "\n"
    "  -o, --output FILE       where the profile goes (default: SCRIPT-DATE-TIME.svg)\n"
    "  -f, --format FORMAT     svg (a flame graph), collapsed or speedscope\n"
    "                          (default: what FILE's ending says, else svg)\n"
    "  -r, --rate HZ           samples a second, 0.1 to 20000 (default: 100)\n"
    "  -d, --duration SECONDS  end the recording after this time; the program goes on\n"
    "      --metric METRIC     wall (default), cpu, or gil: time while holding the GIL\n"
    "  -g, --gil               the same as --metric gil\n"
    "  -i, --idle              also the time in which threads only wait\n"
    "  -F, --function          one frame a function, not one a line\n"
    "  -h, --help              this text\n"
    "  -V, --version           the versions of pyprof-run and of its Python\n"
    "  --                      ends the options: what follows is SCRIPT [ARGS...]\n"
    "\n"
    "SCRIPT may be a file, a directory or zip file with __main__.py, or - for stdin. The program's\n"
    "exit code is kept; if the program succeeds but the profile cannot be written, it is 1.\n"
    "\n"
    "The python is the one of the active virtual environment (VIRTUAL_ENV, or python3 in PATH), if\n"
    "that is a Python " PYTHON_X_Y "; else " PYPROF_RUN_PYTHON ".\n"
    "\n"
    "Ctrl-C, SIGTERM and SIGHUP write the profile, too. Lost it is where nothing runs any more:\n"
    "after SIGKILL, a crash, os._exit(), os.abort() and os.exec*(); and after SIGTERM and SIGHUP if the\n"
    "program has put its own handling of them back to SIG_DFL. Child processes are not recorded.\n";

static void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void usage_error(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fputs("pyprof-run: ", stderr);
    vfprintf(stderr, format, values);
    fputs("\nTry 'pyprof-run --help'.\n", stderr);
    va_end(values);
    exit(EXIT_USAGE);
}

/* ---- the command line ----------------------------------------------------------------------------------- */

static double number_option(const char *name, const char *text, double least, double most) {
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most)) {
        usage_error("%s: '%s' is not a number from %g to %.10g", name, text, least, most);
    }
    return value;
}

static file_format format_option(const char *text) {
    static const struct {
        const char *name;
        file_format format;
    } names[] = {{"svg", FORMAT_SVG},
                 {"flamegraph", FORMAT_SVG},
                 {"collapsed", FORMAT_COLLAPSED},
                 {"raw", FORMAT_COLLAPSED},
                 {"speedscope", FORMAT_SPEEDSCOPE}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(text, names[i].name)) {
            return names[i].format;
        }
    }
    usage_error("--format: '%s' is not svg, collapsed or speedscope", text);
}

static pyprof_metric metric_option(const char *text) {
    if (!strcmp(text, "wall")) {
        return PYPROF_METRIC_WALL;
    }
    if (!strcmp(text, "cpu")) {
        return PYPROF_METRIC_CPU;
    }
    if (!strcmp(text, "gil")) {
        return PYPROF_METRIC_GIL;
    }
    usage_error("--metric: '%s' is not wall, cpu or gil", text);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static file_format format_of_path(const char *path) {
    static const struct {
        const char *ending;
        file_format format;
    } endings[] = {
        {".svg", FORMAT_SVG},       {".json", FORMAT_SPEEDSCOPE},  {".collapsed", FORMAT_COLLAPSED},
        {".txt", FORMAT_COLLAPSED}, {".folded", FORMAT_COLLAPSED}, {".raw", FORMAT_COLLAPSED}};
    const char *dot = strrchr(base_name(path), '.');
    if (!dot) {
        return FORMAT_SVG;
    }
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (!strcmp(dot, endings[i].ending)) {
            return endings[i].format;
        }
    }
    usage_error("--output: the ending of '%s' names no format: say which with --format", path);
}

static void print_version(void) {
    printf("pyprof-run %s, CPython %s (%s)\n", VERSION_TEXT, PY_VERSION, PYPROF_RUN_PYTHON);
    exit(fflush(stdout) ? EXIT_FAILED : EXIT_SUCCESS);
}

static void print_help(void) {
    fputs(HELP, stdout);
    exit(fflush(stdout) ? EXIT_FAILED : EXIT_SUCCESS);
}

/* As with python, -m and -c end the options: what follows belongs to the program. */
static void parse_options(options *opt, int argc, char **argv) {
    enum {
        METRIC = 256
    };
    static const struct option names[] = {{"output", required_argument, NULL, 'o'},
                                          {"format", required_argument, NULL, 'f'},
                                          {"rate", required_argument, NULL, 'r'},
                                          {"duration", required_argument, NULL, 'd'},
                                          {"metric", required_argument, NULL, METRIC},
                                          {"gil", no_argument, NULL, 'g'},
                                          {"idle", no_argument, NULL, 'i'},
                                          {"function", no_argument, NULL, 'F'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {NULL, 0, NULL, 0}};
    *opt = (options){.rate = 100};
    int letter;
    while (!opt->mode && (letter = getopt_long(argc, argv, "+:o:f:r:d:m:c:giFhV", names, NULL)) != -1) {
        switch (letter) {
        case 'o':
            opt->output = optarg;
            break;
        case 'f':
            opt->format = format_option(optarg);
            break;
        case 'r':
            opt->rate = number_option("--rate", optarg, 0.1, 20000);
            break;
        case 'd':
            opt->duration = number_option("--duration", optarg, 0.001, 1e9);
            break;
        case METRIC:
            opt->view.metric = metric_option(optarg);
            break;
        case 'g':
            opt->view.metric = PYPROF_METRIC_GIL;
            break;
        case 'i':
            opt->view.include_idle = true;
            break;
        case 'F':
            opt->view.detail = PYPROF_DETAIL_FUNCTION;
            break;
        case 'm':
            opt->mode = "-m", opt->target = optarg;
            break;
        case 'c':
            opt->mode = "-c", opt->target = optarg;
            break;
        case 'h':
            print_help();
            break;
        case 'V':
            print_version();
            break;
        case ':':
            usage_error("%s needs a value", argv[optind - 1]);
        default:
            if (optopt && optopt < METRIC) {
                usage_error("unknown option, or one without a value: -%c", optopt);
            }
            usage_error("unknown option: %s", argv[optind - 1]);
        }
    }
    opt->joined = opt->mode && opt->target != argv[optind - 1];
    if (!opt->mode) {
        if (optind >= argc) {
            usage_error("nothing to run: a SCRIPT, -m MODULE or -c CODE is needed");
        }
        opt->target = argv[optind++];
    }
    opt->arguments = argv + optind;
}

/* ---- where the output goes ------------------------------------------------------------------------------ */

/* What the program is called in file names and titles. */
static char *target_name(const options *opt) {
    if (opt->mode && !strcmp(opt->mode, "-c")) {
        return must(strdup("command"));
    }
    if (!opt->mode && !strcmp(opt->target, "-")) {
        return must(strdup("stdin"));
    }
    char *path = must(strdup(opt->target));
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        path[--length] = '\0';
    }
    char *name = must(strdup(base_name(path)));
    free(path);
    char *dot = opt->mode ? NULL : strrchr(name, '.');
    if (dot && dot != name) {
        *dot = '\0';
    }
    return name;
}

static char *default_output(const options *opt) {
    static const char *const endings[] = {
        [FORMAT_SVG] = "svg", [FORMAT_COLLAPSED] = "collapsed.txt", [FORMAT_SPEEDSCOPE] = "speedscope.json"};
    char *name = target_name(opt);
    time_t now = time(NULL);
    struct tm local;
    char stamp[32] = "";
    if (localtime_r(&now, &local)) {
        (void)strftime(stamp, sizeof stamp, "-%Y%m%d-%H%M%S", &local);
    }
    char *path = text_of("%s%s.%s", name, stamp, endings[opt->format]);
    for (int i = 2; access(path, F_OK) == 0; i++) {
        free(path);
        path = text_of("%s%s-%d.%s", name, stamp, i, endings[opt->format]);
    }
    free(name);
    return path;
}

static char *absolute_path(const char *path) {
    if (path[0] == '/') {
        return must(strdup(path));
    }
    char *directory = getcwd(NULL, 0);
    if (!directory) {
        complain("the current directory: %s", strerror(errno));
        exit(EXIT_FAILED);
    }
    char *absolute = text_of("%s/%s", directory, path);
    free(directory);
    return absolute;
}

/* Answers whether a file can be made beside path, which is how it will be written. */
static bool can_make_beside(const char *path) {
    char *probe = text_of("%s.XXXXXX", path);
    int descriptor = mkstemp(probe);
    int reason = errno;
    if (descriptor >= 0) {
        (void)close(descriptor);
        (void)unlink(probe);
    }
    free(probe);
    errno = reason;
    return descriptor >= 0;
}

/* Says early what would otherwise be found out after an hour's run. */
static void check_output(const char *path) {
    struct stat status;
    bool good;
    if (stat(path, &status) == 0) {
        if (S_ISDIR(status.st_mode)) {
            errno = EISDIR;
            good = false;
        } else {
            good = access(path, W_OK) == 0 && (!S_ISREG(status.st_mode) || can_make_beside(path));
        }
    } else {
        good = errno == ENOENT && can_make_beside(path);
    }
    if (!good) {
        complain("cannot write %s: %s", run.shown, strerror(errno));
        exit(EXIT_USAGE);
    }
}

static void choose_output(options *opt) {
    if (opt->output && !strcmp(opt->output, "-")) {
        opt->output = "/dev/stdout";
    }
    if (!opt->format) {
        opt->format = opt->output ? format_of_path(opt->output) : FORMAT_SVG;
    }
    opt->view.format = opt->format == FORMAT_SPEEDSCOPE ? PYPROF_FORMAT_SPEEDSCOPE : PYPROF_FORMAT_COLLAPSED;
    run.shown = opt->output ? must(strdup(opt->output)) : default_output(opt);
    run.path = absolute_path(run.shown);
    check_output(run.path);
}

static void check_script(const options *opt) {
    struct stat status;
    if (!opt->mode && strcmp(opt->target, "-") != 0 && stat(opt->target, &status) != 0) {
        complain("cannot open %s: %s", opt->target, strerror(errno));
        exit(EXIT_USAGE);
    }
}

/* ---- which python --------------------------------------------------------------------------------------- */

static bool same_file(const char *one, const char *other) {
    struct stat a, b;
    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static bool is_executable_file(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

static char *parent_of(const char *path) {
    char *parent = must(strdup(path));
    char *slash = strrchr(parent, '/');
    if (!slash) {
        strcpy(parent, ".");
    } else {
        slash[slash == parent] = '\0';
    }
    return parent;
}

/* The directory of the virtual environment that an executable belongs to, or NULL. */
static char *environment_of(const char *executable) {
    char *bin = parent_of(executable);
    char *directory = parent_of(bin);
    char *mark = text_of("%s/pyvenv.cfg", directory);
    bool found = access(mark, F_OK) == 0;
    free(mark);
    free(bin);
    if (!found) {
        free(directory);
        return NULL;
    }
    return directory;
}

static char *first_in_path(const char *name) {
    const char *place = getenv("PATH");
    while (place && *place) {
        size_t length = strcspn(place, ":");
        char *candidate = length ? text_of("%.*s/%s", (int)length, place, name) : text_of("./%s", name);
        if (is_executable_file(candidate)) {
            return candidate;
        }
        free(candidate);
        place += length;
        place += *place == ':';
    }
    return NULL;
}

static bool is_script(const char *path) {
    char start[2] = {0};
    FILE *file = fopen(path, "rb");
    bool script = file && fread(start, 1, 2, file) == 2 && start[0] == '#' && start[1] == '!';
    if (file) {
        (void)fclose(file);
    }
    return script;
}

/* A python3 that is a script (the shims of pyenv and asdf are) knows which executable it stands for. */
static char *ask_script(const char *script) {
    int ends[2];
    if (pipe(ends) != 0) {
        return NULL;
    }
    pid_t child = fork();
    if (child == 0) {
        int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(ends[1], 1) < 0 || dup2(nothing, 2) < 0) {
            _exit(127);
        }
        (void)close(ends[0]);
        (void)close(ends[1]);
        execl(script, "python3", "-I", "-S", "-c", "import os, sys; os.write(1, os.fsencode(sys.executable))",
              (char *)NULL);
        _exit(127);
    }
    (void)close(ends[1]);
    char answer[4096];
    size_t length = 0;
    ssize_t got;
    while (child > 0 && length < sizeof answer - 1 &&
           (got = read(ends[0], answer + length, sizeof answer - 1 - length)) > 0) {
        length += (size_t)got;
    }
    (void)close(ends[0]);
    answer[length] = '\0';
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0 || !is_executable_file(answer)) {
        return NULL;
    }
    return must(strdup(answer));
}

/* The base installation that an environment was made from is named in its pyvenv.cfg. */
static bool environment_is_from(const char *environment, const char *bin) {
    char *path = text_of("%s/pyvenv.cfg", environment);
    FILE *file = fopen(path, "r");
    free(path);
    char line[4096];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        char *value = strchr(line, '=');
        if (value && strncmp(line, "home", 4) == 0 && line[4 + strspn(line + 4, " \t")] == '=') {
            value += 1 + strspn(value + 1, " \t");
            value[strcspn(value, "\r\n")] = '\0';
            found = same_file(value, bin);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return found;
}

typedef struct python_choice {
    char *executable; /* what sys.executable will be */
    char *home;       /* the installation with the standard library; NULL = as executable says */
} python_choice;

/* An environment of another installation of the same version (a distribution's beside one's own) lends its
   packages; the standard library must be the one that libpython was built with, since each build divides
   the modules differently between the library and its own directory. */
static python_choice choose_environment(char *executable, const char *environment) {
    python_choice choice = {.executable = executable};
    char *real = realpath(PYPROF_RUN_PYTHON, NULL);
    char *bin = parent_of(real ? real : PYPROF_RUN_PYTHON);
    if (!same_file(executable, PYPROF_RUN_PYTHON) && !environment_is_from(environment, bin)) {
        choice.home = parent_of(bin);
    }
    free(bin);
    free(real);
    return choice;
}

static bool is_of_our_version(const char *environment) {
    char *library = text_of("%s/" PYTHON_LIB, environment);
    bool ours = access(library, F_OK) == 0;
    free(library);
    if (!ours) {
        complain("warning: the virtual environment %s is not of Python " PYTHON_X_Y ": it is not used",
                 environment);
    }
    return ours;
}

static char *active_executable(void) {
    const char *environment = getenv("VIRTUAL_ENV");
    if (environment && *environment) {
        char *executable = text_of("%s/bin/python3", environment);
        char *found = is_executable_file(executable) ? environment_of(executable) : NULL;
        if (found) {
            free(found);
            return executable;
        }
        free(executable);
    }
    char *executable = first_in_path("python3");
    if (executable && is_script(executable)) {
        char *answer = ask_script(executable);
        free(executable);
        return answer;
    }
    return executable;
}

static python_choice find_python(void) {
    char *active = active_executable();
    char *executable = active ? absolute_path(active) : NULL;
    free(active);
    if (executable) {
        char *environment = environment_of(executable);
        bool ours = environment ? is_of_our_version(environment) : same_file(executable, PYPROF_RUN_PYTHON);
        if (ours) {
            python_choice choice =
                environment ? choose_environment(executable, environment) : (python_choice){executable, NULL};
            free(environment);
            return choice;
        }
        free(environment);
        free(executable);
    }
    return (python_choice){must(strdup(PYPROF_RUN_PYTHON)), NULL};
}

/* ---- writing the profile -------------------------------------------------------------------------------- */

typedef struct buffer {
    char *data;
    size_t size;
    size_t capacity;
} buffer;

static bool append(void *user, const void *data, size_t size) {
    buffer *text = user;
    if (size > text->capacity - text->size) {
        size_t capacity = text->capacity ? text->capacity : 65536;
        while (capacity - text->size < size) {
            if (capacity > SIZE_MAX / 2) {
                return false;
            }
            capacity *= 2;
        }
        char *grown = realloc(text->data, capacity);
        if (!grown) {
            return false;
        }
        text->data = grown;
        text->capacity = capacity;
    }
    memcpy(text->data + text->size, data, size);
    text->size += size;
    return true;
}

static char *subtitle_of(const options *opt, const pyprof_stats *stats, double seconds) {
    static const char *const metrics[] = {[PYPROF_METRIC_WALL] = "wall time",
                                          [PYPROF_METRIC_CPU] = "CPU time",
                                          [PYPROF_METRIC_GIL] = "time holding the GIL"};
    return text_of("%s%s, %llu sample%s at %g Hz in %.3g s, CPython %s", metrics[opt->view.metric],
                   opt->view.include_idle ? ", waiting included" : "", (unsigned long long)stats->samples,
                   stats->samples == 1 ? "" : "s", opt->rate, seconds, PY_VERSION);
}

static bool save_svg(const pyprof_profile *profile, const char *title, const char *subtitle) {
    buffer text = {0};
    flamegraph *graph = flamegraph_create();
    pyprof_result result = pyprof_write(profile, &run.opt.view, append, &text);
    bool good = false;
    if (!graph || result == PYPROF_ERROR_WRITE) {
        complain("cannot write %s: out of memory", run.shown);
    } else if (result != PYPROF_OK) {
        complain("cannot write %s: %s", run.shown, pyprof_result_string(result));
    } else if (flamegraph_add(graph, text.data ? text.data : "", text.size, "profile", stderr) ==
               FLAMEGRAPH_OK) {
        flamegraph_options look = {.title = title, .subtitle = subtitle, .unit = "us"};
        good = flamegraph_save(graph, &look, run.path, stderr) == FLAMEGRAPH_OK;
    }
    flamegraph_free(graph);
    free(text.data);
    return good;
}

static bool save_profile(const pyprof_profile *profile, const pyprof_stats *stats, double seconds) {
    if (run.opt.format == FORMAT_SVG) {
        char *title = target_name(&run.opt);
        char *subtitle = subtitle_of(&run.opt, stats, seconds);
        bool good = save_svg(profile, title, subtitle);
        free(subtitle);
        free(title);
        return good;
    }
    pyprof_result result = pyprof_save(profile, &run.opt.view, run.path);
    if (result != PYPROF_OK) {
        complain("cannot write %s: %s", run.shown,
                 result == PYPROF_ERROR_IO ? strerror(errno) : pyprof_result_string(result));
    }
    return result == PYPROF_OK;
}

static double seconds_since(const struct timespec *begun) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begun->tv_sec) + (double)(now.tv_nsec - begun->tv_nsec) / 1e9;
}

static void summarize(const pyprof_stats *stats, double seconds) {
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    uint64_t lost = stats->lost_late + stats->lost_pending + stats->lost_unsettled + stats->lost_unreadable +
                    stats->lost_memory;
    if (!stats->samples) {
        complain("no samples in %.3g s: see --rate; wrote %s", seconds, run.shown);
    } else {
        complain("%llu sample%s in %.3g s (%llu of waiting threads, %llu lost); wrote %s",
                 (unsigned long long)stats->samples, stats->samples == 1 ? "" : "s", seconds,
                 (unsigned long long)stats->samples_idle, (unsigned long long)lost, run.shown);
    }
}

/* ---- the end of the recording ---------------------------------------------------------------------------
 *
 * Whoever comes first ends it, once: Py_FinalizeEx, through Py_AtExit (the program's end, sys.exit, an
 * uncaught exception and Ctrl-C all pass there, and not all of them return from Py_RunMain), or the
 * supervisor thread, when the duration is over or when SIGTERM or SIGHUP came and the program left them at
 * their default. */

static void finish(void) {
    pthread_mutex_lock(&run.lock);
    if (!run.finished) {
        run.finished = true;
        double seconds = seconds_since(&run.begun);
        pyprof_profile *profile = NULL;
        pyprof_stats stats = {0};
        pyprof_result result = pyprof_stop(&profile);
        (void)pyprof_get_stats(&stats);
        if (result != PYPROF_OK) {
            complain("cannot end the recording: %s", pyprof_result_string(result));
            run.failed = true;
        } else if (!save_profile(profile, &stats, seconds)) {
            run.failed = true;
        } else {
            summarize(&stats, seconds);
        }
        pyprof_free(profile);
    }
    pthread_mutex_unlock(&run.lock);
}

static void die_by(int signal_number) {
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, signal_number);
    (void)signal(signal_number, SIG_DFL);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    (void)raise(signal_number);
}

static void on_fatal_signal(int signal_number) {
    int saved = errno;
    if (run.closed || getpid() != run.pid) {
        (void)signal(signal_number, SIG_DFL);
        (void)raise(signal_number);
    } else {
        run.fatal_signal = signal_number;
        (void)sem_post(&run.wake);
    }
    errno = saved;
}

/* Waits for a post, or until so many seconds after the beginning. A semaphore knows only the wall clock,
   which may be set: so it waits in short steps, and asks the monotonic one. */
static void wait_for_wake(double until) {
    for (;;) {
        double left = until - seconds_since(&run.begun);
        if (left <= 0) {
            return;
        }
        struct timespec deadline;
        (void)clock_gettime(CLOCK_REALTIME, &deadline);
        double step = left < 0.5 ? left : 0.5;
        deadline.tv_nsec += (long)(step * 1e9);
        deadline.tv_sec += deadline.tv_nsec / 1000000000;
        deadline.tv_nsec %= 1000000000;
        if (sem_timedwait(&run.wake, &deadline) == 0) {
            return;
        }
    }
}

static void *supervise(void *unused) {
    (void)unused;
    bool timed = run.opt.duration > 0;
    while (!run.quit) {
        if (timed) {
            wait_for_wake(run.opt.duration);
        } else {
            while (sem_wait(&run.wake) != 0) {
            }
        }
        if (run.fatal_signal) {
            finish();
            die_by(run.fatal_signal);
        }
        if (timed && seconds_since(&run.begun) >= run.opt.duration) {
            finish();
            timed = false;
        }
    }
    return NULL;
}

/* Py_Exit calls exit(): only an exit handler can still change what the process answers. */
static void at_process_exit(int status, void *unused) {
    (void)unused;
    if (getpid() == run.pid && status == EXIT_SUCCESS && run.failed) {
        (void)fflush(NULL);
        _exit(EXIT_FAILED);
    }
}

static void at_python_exit(void) {
    if (getpid() != run.pid) {
        return;
    }
    if (run.supervised) {
        run.quit = true;
        (void)sem_post(&run.wake);
        (void)pthread_join(run.supervisor, NULL);
        run.supervised = false;
    }
    run.closed = true;
    finish();
}

static void take_signal(int signal_number) {
    struct sigaction old;
    if (sigaction(signal_number, NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
        struct sigaction action = {.sa_handler = on_fatal_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
        (void)sigemptyset(&action.sa_mask);
        (void)sigaction(signal_number, &action, NULL);
    }
}

static bool start_supervisor(void) {
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)sem_init(&run.wake, 0, 0);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    run.supervised = pthread_create(&run.supervisor, NULL, supervise, NULL) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (run.supervised) {
        take_signal(SIGTERM);
        take_signal(SIGHUP);
    }
    return run.supervised;
}

/* ---- the run -------------------------------------------------------------------------------------------- */

static void on_log(pyprof_log_level level, const char *message, void *unused) {
    (void)unused;
    if (level == PYPROF_LOG_ERROR || (level == PYPROF_LOG_WARNING && isatty(STDERR_FILENO))) {
        complain("%s", message);
    }
}

/* CPython 3.12 and later warn when a process with several threads forks. Ours are not the program's: it
   would see a warning that python3 does not give. */
static void silence_fork_warnings(void) {
#if PY_VERSION_HEX >= 0x030c0000
    static const char code[] =
        "import _warnings\n"
        "for name in ('fork', 'fork1', 'forkpty'):\n"
        "    _warnings.filters.insert(0, ('ignore', f'This process (pid={pid}) is multi-threaded, use of '\n"
        "        f'{name}() may lead to deadlocks in the child.', DeprecationWarning, None, 0))\n";
    PyObject *names = Py_BuildValue("{s:i,s:O}", "pid", (int)run.pid, "__builtins__", PyEval_GetBuiltins());
    PyObject *done = names ? PyRun_String(code, Py_file_input, names, names) : NULL;
    if (!done) {
        PyErr_Clear();
    }
    Py_XDECREF(done);
    Py_XDECREF(names);
#endif
}

/* The command line that python3 would have been given. */
static char **python_arguments(const options *opt, int *count) {
    size_t given = 0;
    while (opt->arguments[given]) {
        given++;
    }
    char **arguments = must(calloc(given + 4, sizeof *arguments));
    int i = 0;
    arguments[i++] = must(strdup("python3"));
    if (opt->joined) {
        arguments[i++] = text_of("%s%s", opt->mode, opt->target);
    } else {
        if (opt->mode) {
            arguments[i++] = must(strdup(opt->mode));
        } else if (opt->target[0] == '-' && opt->target[1] != '\0') {
            arguments[i++] = must(strdup("--"));
        }
        arguments[i++] = must(strdup(opt->target));
    }
    memcpy(arguments + i, opt->arguments, given * sizeof *arguments);
    *count = i + (int)given;
    return arguments;
}

static PyStatus configure(PyConfig *config, const options *opt, const python_choice *python) {
    int count = 0;
    char **arguments = python_arguments(opt, &count);
    PyStatus status = PyConfig_SetBytesArgv(config, count, arguments);
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(config, &config->program_name, python->executable);
    }
    if (!PyStatus_Exception(status) && python->home && !getenv("PYTHONHOME")) {
        status = PyConfig_SetBytesString(config, &config->home, python->home);
    }
    return status;
}

static void initialize_python(const options *opt) {
    python_choice python = find_python();
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    PyStatus status = configure(&config, opt, &python);
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    free(python.executable);
    free(python.home);
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

static void begin(const options *opt) {
    pyprof_desc desc = {.interval_us = (uint32_t)(1e6 / opt->rate + 0.5), .logger = {.log_fn = on_log}};
    pyprof_result result = pyprof_start(&desc);
    (void)clock_gettime(CLOCK_MONOTONIC, &run.begun);
    if (result != PYPROF_OK) {
        complain("cannot record: %s", pyprof_result_string(result));
        exit(EXIT_FAILED);
    }
    if (Py_AtExit(at_python_exit) != 0 || on_exit(at_process_exit, NULL) != 0 || !start_supervisor()) {
        complain("cannot record: no room for an exit handler or a thread");
        exit(EXIT_FAILED);
    }
    if (isatty(STDERR_FILENO)) {
        char *name = target_name(opt);
        complain("recording %s at %g Hz; Ctrl-C ends it, and %s is written", name, opt->rate, run.shown);
        free(name);
    }
}

int main(int argc, char **argv) {
    parse_options(&run.opt, argc, argv);
    check_script(&run.opt);
    choose_output(&run.opt);
    run.pid = getpid();
    initialize_python(&run.opt);
    silence_fork_warnings();
    begin(&run.opt);
    return Py_RunMain();
}
