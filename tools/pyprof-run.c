/* pyprof-run: runs a Python program as python3 does, and records where it spends its time.
 *
 *     pyprof-run script.py ARGS...        the picture is script-DATE-TIME.svg
 *     pyprof-run -o out.txt -r 1000 -m package.module ARGS...
 *     pyprof-run -- python3 -O script.py, pyprof-run pytest tests, pyprof-run env -i A=b python3 script.py
 *
 * It reads the command line, finds the python that a shell would run (run_program.c), leaves a process behind that
 * will write the profile (run_writer.c), and becomes that python, with a library preloaded that records
 * (libpyprof.c). So the program is the same process as without it: its id, argv, stdin, signals, exit code and
 * sys.* are python's own doing.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "pyprof-run.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "filter_options.h"
#include "handover.h"

#if !defined(PYPROF_RUN_PYTHON) || !defined(PYPROF_RUN_TAG)
#error "PYPROF_RUN_PYTHON and PYPROF_RUN_TAG are set by tools/meson.build"
#endif

#define VERSION_TEXT "0.1"

/* ---- messages ------------------------------------------------------------------------------------------- */

static void vcomplain(const char *format, va_list values) {
    char *text = NULL;
    if (vasprintf(&text, format, values) >= 0) {
        for (char *at = text; *at != '\0'; at++) {
            *at = (unsigned char)*at < ' ' ? '?' : *at; /* a file's name may hold anything: one line, all the same */
        }
        (void)fprintf(stderr, "pyprof-run: %s\n", text); /* stderr has no buffer: one call, one line */
        free(text);
    }
}

void complain(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vcomplain(format, values);
    va_end(values);
}

void refuse(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vcomplain(format, values);
    va_end(values);
    exit(EXIT_USAGE);
}

void usage_error(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vcomplain(format, values);
    va_end(values);
    (void)fputs("Try 'pyprof-run --help'.\n", stderr);
    exit(EXIT_USAGE);
}

void *must(void *memory) {
    if (memory == NULL) {
        complain("out of memory");
        exit(EXIT_FAILED);
    }
    return memory;
}

char *text_of(const char *format, ...) {
    va_list values;
    va_start(values, format);
    char *text = NULL;
    if (vasprintf(&text, format, values) < 0) {
        text = NULL;
    }
    va_end(values);
    return must(text);
}

const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static const char HELP[] =
    "usage: pyprof-run [OPTIONS] SCRIPT [ARGS...]\n"
    "       pyprof-run [OPTIONS] -m MODULE [ARGS...]\n"
    "       pyprof-run [OPTIONS] -c CODE [ARGS...]\n"
    "       pyprof-run [OPTIONS] -- python3 [PYTHON'S OPTIONS] SCRIPT [ARGS...]\n"
    "       pyprof-run [OPTIONS] PROGRAM [ARGS...]     a Python script on PATH: pytest, black\n"
    "       pyprof-run [OPTIONS] env ... python3 ...   as env would run it: -i, -u, -S, NAME=VALUE\n"
    "       pyprof-run [OPTIONS] --host PROGRAM [ARGS...]  a program with Python inside: gdb, vim\n"
    "\n"
    "Runs a Python program as python3 does, and records where it spends its time.\n"
    "\n"
    "  -o, --output FILE       where the profile goes; may be given several times\n"
    "                          (default: SCRIPT-DATE-TIME.svg)\n"
    "  -f, --format FORMAT     for files whose ending does not say: svg (a flame graph), collapsed\n"
    "                          (raw), speedscope, pprof, pstats, firefox, perfetto or jsonl; or\n"
    "                          table: what took most, as text, without -o on standard error.\n"
    "                          Endings: .svg; .txt .collapsed .folded .raw; .json; .pb.gz .pb;\n"
    "                          .pstats .prof; .firefox.json; .perfetto.json .trace.json; .jsonl\n"
    "  -r, --rate HZ           samples a second, 0.1 to 20000 (default: 100)\n"
    "  -d, --duration SECONDS  end the recording after this time; the program goes on\n"
    "      --host              what follows is no python, but embeds one: it is recorded from when\n"
    "                          Python begins in it\n"
    "      --subprocesses      also its child processes that run the same python; each is a root\n"
    "                          above its threads (behind record, -s means that, too). With --host,\n"
    "                          also those that execute other programs with Python in them\n"
    "      --heap              what of its memory is in use, and by which lines it was allocated, into the\n"
    "                          next -o (if none comes behind it: the first). Other -o are of time, as\n"
    "                          without it; with none, only memory is recorded. It is what lives when the\n"
    "                          program has ended, before Python clears its modules\n"
    "      --heap-native       with --heap, also what C code allocates by malloc and maps by mmap, under\n"
    "                          the lines that called it\n"
    "      --heap-rate KIB     one sample in so many KiB that are allocated, on average (default: 512)\n"
    "  -q, --quiet             say nothing but errors\n"
    "\n"
    " what is shown:\n"
    "      --metric METRIC     wall (default), cpu, or gil: time while holding the GIL; of memory\n"
    "                          inuse_space (default), inuse_objects, alloc_space or alloc_objects\n"
    "  -g, --gil               the same as --metric gil\n"
    "  -i, --idle              also the time in which threads only wait\n"
    "  -F, --function          one frame a function, not one a line\n"
    "  -t, --threads           threads apart in the picture, not merged\n"
    "      --title TEXT, --width PIXELS, --min-width PIXELS, --inverted\n"
    "                          the picture: as pyprof-svg has them\n"
    "      --only-thread NAME, --only-interpreter NAME\n"
    "                          what this thread did, or happened in this interpreter\n"
    "      --only-file PATH, --only-function NAME\n"
    "                          stacks with a frame of a file whose path begins so, or of this\n"
    "                          qualified name; in all of these * stands for any text\n"
    "      --only-mine         frames of one package that is not yours are one frame\n"
    "      --min-share PART    what has less of the whole (0 to 1) is added to its caller\n"
    "\n"
    " how it is recorded:\n"
    "      --signal SIGNAL     the signal that asks a thread for its stack, by name or number; none:\n"
    "                          no signal at all, less exact (default: URG, or a real-time signal)\n"
    "      --depth FRAMES      frames of a stack that are kept, 16 to 65536 (default: 1024)\n"
    "      --memory SIZE       what the recording may hold, as in 256M (default: 64M)\n"
    "\n"
    "  -h, --help              this text\n"
    "  -V, --version           the versions of pyprof-run and of its Python\n"
    "  --                      ends the options\n"
    "\n";

/* Behind it: a compiler need not take so long a text in one piece. */
static const char HELP_REST[] =
    "Python's own options -O -OO -X -W -I -u -B -b -E -R -s -S -P -v -x may stand before SCRIPT, too.\n"
    "\n"
    "SCRIPT may be a file, a directory or zip file with __main__.py, or - for stdin. The program's\n"
    "exit code is kept; if the program succeeds but the profile cannot be written, it is 1.\n"
    "\n"
    "The python is the one of the active virtual environment (VIRTUAL_ENV), else python3 on PATH, "
    "else\n" PYPROF_RUN_PYTHON ". It must be a CPython " PYPROF_RUN_TAG
    ",\nof any build and patch version, or one for which pyprof-run was built, too.\n"
    "\n"
    "The profile is written whatever way the program ends: os._exit(), os.exec*(), daemons, signals and\n"
    "crashes included; a line says what is not in it. A SIGKILL from outside loses it, and is told; one at\n"
    "a limit of CPU time (ulimit -t), the last moments. Child processes are recorded with --subprocesses,\n"
    "up to the program's end: one that is killed loses only its own; other programs are only counted.\n"
    "Calls past libc's names are not seen (syscall(), a function of ctypes.CDLL('libc.so.6')): such an exit\n"
    "loses the profile, and such an unshare() of a user namespace is refused, as our threads are there.\n";

/* ---- the command line ----------------------------------------------------------------------------------- */

static double number_option(const char *name, const char *text, double least, double most) {
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most)) {
        usage_error("%s: '%s' is not a number from %g to %.10g", name, text, least, most);
    }
    return value;
}

static unsigned whole_option(const char *name, const char *text, unsigned least, unsigned most) {
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value < least || value > most) {
        usage_error("%s: '%s' is not a whole number from %u to %u", name, text, least, most);
    }
    return (unsigned)value;
}

/* Bytes, with K, M or G behind them. */
static unsigned long long memory_option(const char *text) {
    static const char units[] = "KMG";
    char *end = NULL;
    double value = strtod(text, &end);
    const char *unit = *end != '\0' ? strchr(units, *end & ~0x20) : NULL;
    if (unit != NULL) {
        for (int i = 0; i <= (int)(unit - units); i++) {
            value *= 1024;
        }
        end++;
        end += strcmp(end, "B") == 0 || strcmp(end, "iB") == 0 ? strlen(end) : 0;
    }
    if (end == text || *end != '\0' || !(value >= 1 << 20 && value <= 1e15)) {
        usage_error("--memory: '%s' is no size of 1M or more, as 64M or 1G", text);
    }
    return (unsigned long long)value;
}

/* The name without SIG of a signal that can be asked with; NULL = it has no handler, means a fault, or is a real-time
   one. (sigabbrev_np is younger than some systems' glibc, and musl has none.) */
static const char *signal_name(int number) {
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGHUP, "HUP"},   {SIGINT, "INT"},   {SIGQUIT, "QUIT"},     {SIGUSR1, "USR1"}, {SIGUSR2, "USR2"},
                 {SIGPIPE, "PIPE"}, {SIGALRM, "ALRM"}, {SIGTERM, "TERM"},     {SIGCHLD, "CHLD"}, {SIGSTKFLT, "STKFLT"},
                 {SIGTSTP, "TSTP"}, {SIGTTIN, "TTIN"}, {SIGTTOU, "TTOU"},     {SIGURG, "URG"},   {SIGXCPU, "XCPU"},
                 {SIGXFSZ, "XFSZ"}, {SIGPROF, "PROF"}, {SIGVTALRM, "VTALRM"}, {SIGIO, "IO"},     {SIGWINCH, "WINCH"},
                 {SIGPWR, "PWR"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].number == number) {
            return names[i].name;
        }
    }
    return NULL;
}

/* RTMIN, RTMIN+N, RTMAX-N, RTMAX */
static bool is_real_time(const char *name, int number) {
    bool from_above = strncasecmp(name, "RTMAX", 5) == 0;
    char *end = NULL;
    if (!from_above && strncasecmp(name, "RTMIN", 5) != 0) {
        return false;
    }
    if (name[5] == '\0') {
        return number == (from_above ? SIGRTMAX : SIGRTMIN);
    }
    long distance = strtol(name + 5, &end, 10);
    return name[5] == (from_above ? '-' : '+') && *end == '\0' &&
           number == (from_above ? SIGRTMAX : SIGRTMIN) + distance;
}

/* A number, a name with or without SIG, RTMIN+N, RTMAX-N, or none. */
static int signal_option(const char *text, pyprof_capture *capture) {
    const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
    if (strcasecmp(name, "none") == 0) {
        *capture = PYPROF_CAPTURE_QUIET;
        return 0;
    }
    *capture = PYPROF_CAPTURE_DEFAULT;
    for (int number = 1; number <= SIGRTMAX; number++) {
        const char *known = signal_name(number);
        char *figure = text_of("%d", number);
        bool is_it =
            strcmp(text, figure) == 0 || is_real_time(name, number) || (known != NULL && strcasecmp(name, known) == 0);
        free(figure);
        if (is_it && (known != NULL || number >= SIGRTMIN)) {
            return number;
        }
    }
    usage_error("--signal: '%s' is no signal that can ask a thread for its stack: a name (USR2, RTMIN+3), a "
                "number, or none",
                text);
}

static exports_format format_option(const char *text) {
    char known[256];
    exports_format format = exports_format_of_name(text);
    if (format == EXPORTS_FORMAT_NONE) {
        usage_error("--format: '%s' is not %s", text, exports_list(known, sizeof known));
    }
    return format;
}

/* Of time or of memory: one of each may be given. */
static void take_metric(run_options *opt, const char *text) {
    static const struct {
        const char *name;
        pyprof_metric metric;
        bool is_heap;
    } metrics[] = {{"wall", PYPROF_METRIC_WALL, false},
                   {"cpu", PYPROF_METRIC_CPU, false},
                   {"gil", PYPROF_METRIC_GIL, false},
                   {"inuse_space", PYPROF_METRIC_INUSE_SPACE, true},
                   {"inuse_objects", PYPROF_METRIC_INUSE_OBJECTS, true},
                   {"alloc_space", PYPROF_METRIC_ALLOC_SPACE, true},
                   {"alloc_objects", PYPROF_METRIC_ALLOC_OBJECTS, true}};
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        if (strcmp(text, metrics[i].name) == 0) {
            *(metrics[i].is_heap ? &opt->heap_view.metric : &opt->view.metric) = metrics[i].metric;
            opt->has_heap_metric = opt->has_heap_metric || metrics[i].is_heap;
            return;
        }
    }
    usage_error("--metric: '%s' is not wall, cpu or gil, nor inuse_space, inuse_objects, alloc_space or alloc_objects",
                text);
}

static void add_output(run_options *opt, const char *path) {
    if (opt->output_count == MAX_OUTPUTS) {
        usage_error("--output: more than %d files", MAX_OUTPUTS);
    }
    if (*path == '\0') {
        usage_error("--output: an empty name");
    }
    opt->outputs[opt->output_count++] = (output_file){
        .shown = strcmp(path, "-") == 0 ? "/dev/stdout" : path, .descriptor = -1, .is_heap = opt->heap_is_next};
    opt->heap_is_next = false;
}

static void add_python_option(run_options *opt, char *word) {
    if (opt->python_option_count == MAX_PYTHON_OPTIONS) {
        usage_error("more than %d options for python: put them behind --, as in pyprof-run -- python3 ...",
                    MAX_PYTHON_OPTIONS);
    }
    opt->python_options[opt->python_option_count++] = word;
}

enum {
    METRIC = 256,
    SUBPROCESSES,
    NONBLOCKING,
    FULL_FILENAMES,
    TITLE,
    WIDTH,
    MIN_WIDTH,
    INVERTED,
    SIGNAL,
    DEPTH,
    MEMORY,
    HOST,
    HEAP,
    HEAP_NATIVE,
    HEAP_RATE
};

/* What py-spy has and this has not. */
static void answer_py_spy(int letter) {
    switch (letter) {
    case 'p':
        usage_error("--pid: a running process cannot be attached to yet: pyprof-run starts the program "
                    "itself; a host includes pyprof.h");
    default:
        usage_error("--native: frames of C and C++ are not recorded yet; their time is with the Python line that "
                    "called them");
    }
}

#define PYTHON_FLAGS "OIuBEsSPbRvx"

/* -uBm MODULE, -uc CODE: python's flags and what is to run in one word, which getopt then gets without the flags. */
static void take_flags_of_mode(run_options *opt, char **words) {
    char *word = words[0];
    size_t flags = word[0] == '-' ? strspn(word + 1, PYTHON_FLAGS) : 0;
    if (flags > 0 && (word[1 + flags] == 'm' || word[1 + flags] == 'c')) {
        opt->flags = text_of("%.*s", (int)flags, word + 1);
        words[0] = text_of("-%s", word + 1 + flags);
    }
}

/* Takes a word of python's own options as it was written, and the next one if that is its value; answers how many.
   Behind record, -s is py-spy's. */
static int take_python_word(run_options *opt, char **words) {
    char *word = words[0];
    size_t flags = word[0] == '-' ? strspn(word + 1, PYTHON_FLAGS) : 0;
    char last = word[0] == '-' ? word[1 + flags] : ' ';
    if (opt->recording && memchr(word + 1, 's', flags) != NULL) {
        return 0; /* py-spy's, maybe with python's flags: getopt takes the word apart */
    }
    if (strcmp(word, "--check-hash-based-pycs") != 0 && last != 'X' && last != 'W' && (last != '\0' || flags == 0)) {
        return 0;
    }
    add_python_option(opt, word);
    if (last == '\0' || (word[1] != '-' && word[2 + flags] != '\0')) {
        return 1;
    }
    if (words[1] == NULL) {
        usage_error("%s needs a value", word);
    }
    add_python_option(opt, words[1]);
    return 2;
}

static const struct option OPTIONS[] = {{"output", required_argument, NULL, 'o'},
                                        {"format", required_argument, NULL, 'f'},
                                        {"rate", required_argument, NULL, 'r'},
                                        {"duration", required_argument, NULL, 'd'},
                                        {"host", no_argument, NULL, HOST},
                                        {"heap", no_argument, NULL, HEAP},
                                        {"heap-native", no_argument, NULL, HEAP_NATIVE},
                                        {"heap-rate", required_argument, NULL, HEAP_RATE},
                                        {"quiet", no_argument, NULL, 'q'},
                                        {"metric", required_argument, NULL, METRIC},
                                        {"gil", no_argument, NULL, 'g'},
                                        {"idle", no_argument, NULL, 'i'},
                                        {"function", no_argument, NULL, 'F'},
                                        {"nolineno", no_argument, NULL, 'F'},
                                        {"threads", no_argument, NULL, 't'},
                                        {"title", required_argument, NULL, TITLE},
                                        {"width", required_argument, NULL, WIDTH},
                                        {"min-width", required_argument, NULL, MIN_WIDTH},
                                        {"inverted", no_argument, NULL, INVERTED},
                                        {"signal", required_argument, NULL, SIGNAL},
                                        {"depth", required_argument, NULL, DEPTH},
                                        {"memory", required_argument, NULL, MEMORY},
                                        FILTER_OPTIONS,
                                        {"help", no_argument, NULL, 'h'},
                                        {"version", no_argument, NULL, 'V'},
                                        {"pid", required_argument, NULL, 'p'},
                                        {"native", no_argument, NULL, 'n'},
                                        {"subprocesses", no_argument, NULL, SUBPROCESSES},
                                        {"nonblocking", no_argument, NULL, NONBLOCKING},
                                        {"full-filenames", no_argument, NULL, FULL_FILENAMES},
                                        {NULL, 0, NULL, 0}};

static void print_and_exit(const char *text) {
    (void)fputs(text, stdout);
    bool is_written = fflush(stdout) == 0 && !ferror(stdout); /* a part that failed before is not tried again */
    exit(is_written ? EXIT_SUCCESS : EXIT_FAILED);
}

/* Options of the picture and of the recording. */
static bool take_detail(run_options *opt, int letter) {
    switch (letter) {
    case TITLE:
        opt->title = optarg;
        return true;
    case WIDTH:
        opt->width = (int)whole_option("--width", optarg, 300, 100000);
        return true;
    case MIN_WIDTH:
        opt->min_width = number_option("--min-width", optarg, 0.01, 100);
        return true;
    case INVERTED:
        opt->inverted = true;
        return true;
    case 't':
        opt->threads = true;
        return true;
    case SIGNAL:
        opt->signal_number = signal_option(optarg, &opt->capture);
        return true;
    case DEPTH:
        opt->depth = whole_option("--depth", optarg, 16, 65536);
        return true;
    case MEMORY:
        opt->memory = memory_option(optarg);
        return true;
    default:
        return false;
    }
}

/* Options that leave out a part of what was recorded. */
static bool take_filter(run_options *opt, int letter) {
    filter_taken taken = filter_take(&opt->view, letter, optarg);
    if (taken == FILTER_WRONG) {
        usage_error(FILTER_WRONG_VALUE, optarg);
    }
    return taken == FILTER_TAKEN;
}

bool has_filters(const run_options *opt) {
    return filter_is_given(&opt->view);
}

static void take_format(run_options *opt, exports_format format) {
    if (opt->format != EXPORTS_FORMAT_NONE && opt->format != format) {
        usage_error("--format: two of them; it is for all files whose endings do not say");
    }
    opt->format = format;
}

static bool take_view(run_options *opt, int letter) {
    switch (letter) {
    case METRIC:
        take_metric(opt, optarg);
        return true;
    case 'g':
        opt->view.metric = PYPROF_METRIC_GIL;
        return true;
    case 'i':
        opt->view.include_idle = true;
        return true;
    case 'F':
        opt->view.detail = PYPROF_DETAIL_FUNCTION;
        return true;
    case 'o':
        if (optarg[0] == '-' && optarg[1] != '\0') {
            usage_error("--output: '%s' looks like an option: for a file of that name write ./%s", optarg, optarg);
        }
        add_output(opt, optarg);
        return true;
    case 'f':
        take_format(opt, format_option(optarg));
        return true;
    case 'r':
        opt->rate = number_option("--rate", optarg, 0.1, 20000);
        return true;
    case 'd':
        opt->duration = strcmp(optarg, "unlimited") == 0 ? 0 : number_option("--duration", optarg, 0.001, 1e9);
        return true;
    case 'q':
        opt->quiet = true;
        return true;
    case HOST:
        opt->host = true;
        return true;
    case HEAP:
        opt->heap = opt->heap_is_next = true;
        return true;
    case HEAP_NATIVE:
        opt->heap_native = true;
        return true;
    case HEAP_RATE:
        opt->heap_kib = number_option("--heap-rate", optarg, 0.001, 1048576);
        return true;
    default:
        return take_detail(opt, letter) || take_filter(opt, letter);
    }
}

static void take_option(run_options *opt, int letter, char **argv) {
    if (take_view(opt, letter)) {
        return;
    }
    switch (letter) {
    case 'm':
        opt->mode = "-m", opt->target = optarg;
        return;
    case 'c':
        opt->mode = "-c", opt->target = optarg;
        return;
    case 'h':
        (void)fputs(HELP, stdout);
        print_and_exit(HELP_REST);
        return;
    case 'V':
        print_and_exit("pyprof-run " VERSION_TEXT ", CPython " PYPROF_RUN_TAG " (" PYPROF_RUN_PYTHON ")\n");
        return;
    case 'p':
    case 'n':
        answer_py_spy(letter);
        return;
    case SUBPROCESSES:
        opt->subprocesses = true;
        return;
    case NONBLOCKING:
    case FULL_FILENAMES:
        complain("%s: nothing to do: %s", argv[optind - 1],
                 letter == NONBLOCKING ? "the program is never stopped to be read"
                                       : "file names are shown as far as they tell files apart");
        return;
    case ':':
        usage_error("%s needs a value", argv[optind - 1]);
    default:
        if (letter == 's' && opt->recording) {
            opt->subprocesses = true;
            return;
        }
        if (letter != '?' && strchr(PYTHON_FLAGS, letter) != NULL) { /* behind one of ours, in one word */
            add_python_option(opt, text_of("-%c", letter));
            return;
        }
        if (optopt > 0 && strncmp(argv[optind - 1], "--", 2) == 0) {
            usage_error("%.*s takes no value", (int)strcspn(argv[optind - 1], "="), argv[optind - 1]);
        }
        if (optopt > 0 && optopt < METRIC) {
            usage_error("unknown option, or one without a value: -%c", optopt);
        }
        usage_error("unknown option: %s", argv[optind - 1]);
    }
}

/* What goes with --heap only, and what does not go with it. */
static void check_heap(run_options *opt) {
    pyprof_metric metric = opt->heap_view.metric;
    if (!opt->heap && opt->has_heap_metric) {
        usage_error("--metric: this one is of memory, and needs --heap");
    }
    if (!opt->heap && (opt->heap_kib > 0 || opt->heap_native)) {
        usage_error("%s: it needs --heap", opt->heap_native ? "--heap-native" : "--heap-rate");
    }
    if (opt->heap && opt->subprocesses) {
        usage_error(
            "--heap: not with --subprocesses: a forked child has what its parent had, which would count twice; "
            "PYPROF_HEAP_OUTPUT=mem-%%p.pb.gz, with libpyprof preloaded, makes a file of each process (see README)");
    }
    opt->heap_kib = opt->heap && opt->heap_kib <= 0 ? 512 : opt->heap_kib;
    opt->heap_view = opt->view;
    opt->heap_view.metric = metric;
    opt->heap_view.include_idle = false;
}

bool is_timed(const run_options *opt) {
    bool is_found = false;
    for (int i = 0; i < opt->output_count; i++) {
        is_found = is_found || !opt->outputs[i].is_heap;
    }
    return is_found;
}

/* py-spy's habit: `record` before the options. */
static bool is_record(const char *word) {
    return word != NULL && strcmp(word, "record") == 0 && access(word, F_OK) != 0;
}

/* As with python, -m and -c end the options: what follows belongs to the program. */
static void parse_options(run_options *opt, int argc, char **argv) {
    *opt = (run_options){.rate = 100, .flags = ""};
    opt->recording = is_record(argv[1]);
    optind = opt->recording ? 2 : 1;
    for (int in_word = 0; opt->mode == NULL && optind < argc;) {
        int taken = in_word ? 0 : take_python_word(opt, argv + optind);
        int before = optind += taken;
        if (taken > 0) {
            continue;
        }
        if (!in_word) {
            take_flags_of_mode(opt, argv + optind);
        }
        int letter = getopt_long(argc, argv, "+:o:f:r:d:m:c:tgiFqhVp:n" PYTHON_FLAGS, OPTIONS, NULL);
        if (letter == -1 && !opt->recording && strcmp(argv[optind - 1], "--") != 0 && is_record(argv[optind])) {
            opt->recording = true;
            optind++;
            continue;
        }
        if (letter == -1) {
            break;
        }
        in_word = optind == before;
        take_option(opt, letter, argv);
    }
    if (opt->host && (opt->mode != NULL || opt->python_option_count > 0)) {
        usage_error("--host: a program is to follow, without options for python");
    }
    opt->joined = opt->mode != NULL && opt->target != argv[optind - 1];
    if (opt->mode == NULL) {
        if (optind >= argc) {
            usage_error(opt->host ? "nothing to run: a PROGRAM is needed"
                                  : "nothing to run: a SCRIPT, -m MODULE, -c CODE or -- python3 ... is needed");
        }
        opt->target = argv[optind++];
    }
    opt->arguments = argv + optind;
}

/* ---- where the output goes ------------------------------------------------------------------------------ */

static char *default_output(const char *name, exports_format format, bool is_heap) {
    static const char *const endings[] = {[EXPORTS_FORMAT_SVG] = "svg",
                                          [EXPORTS_FORMAT_COLLAPSED] = "collapsed.txt",
                                          [EXPORTS_FORMAT_SPEEDSCOPE] = "speedscope.json",
                                          [EXPORTS_FORMAT_PPROF] = "pb.gz",
                                          [EXPORTS_FORMAT_PSTATS] = "pstats",
                                          [EXPORTS_FORMAT_FIREFOX] = "firefox.json",
                                          [EXPORTS_FORMAT_PERFETTO] = "perfetto.json",
                                          [EXPORTS_FORMAT_JSONL] = "jsonl"};
    time_t now = time(NULL);
    struct tm local;
    char stamp[32] = "";
    if (localtime_r(&now, &local) != NULL) {
        (void)strftime(stamp, sizeof stamp, "-%Y%m%d-%H%M%S", &local);
    }
    const char *memory = is_heap ? ".heap" : "";
    char *path = text_of("%s%s%s.%s", name, stamp, memory, endings[format]);
    for (int i = 2; access(path, F_OK) == 0; i++) {
        free(path);
        path = text_of("%s%s-%d%s.%s", name, stamp, i, memory, endings[format]);
    }
    return path;
}

/* Without links and dots in the folder, so that one file has one name. A folder that is not there is found out later. */
static char *absolute_path(const char *path) {
    char *given = text_of("./%.*s", (int)(base_name(path) - path), path);
    char *folder = realpath(path[0] == '/' ? given + 2 : given, NULL);
    free(given);
    if (folder == NULL) {
        return must(strdup(path));
    }
    char *absolute = text_of("%s/%s", strcmp(folder, "/") == 0 ? "" : folder, base_name(path));
    free(folder);
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

/* The descriptor that a path such as /dev/stdout or /dev/fd/3 stands for, or -1. */
static int descriptor_of(const char *path) {
    static const char *const names[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr"};
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(path, names[i]) == 0) {
            return i;
        }
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        size_t length = strlen(folders[i]);
        size_t digits = strspn(path + length * (strncmp(path, folders[i], length) == 0), "0123456789");
        if (strncmp(path, folders[i], length) == 0 && digits > 0 && digits < 7 && path[length + digits] == '\0') {
            return atoi(path + length);
        }
    }
    return -1;
}

/* A descriptor of the user's, which the program may close, or a device: held until it is written. */
static bool hold_descriptor(output_file *file) {
    struct stat status;
    int given = descriptor_of(file->shown);
    if (given >= 0) {
        int mode = fcntl(given, F_GETFL);
        if (mode >= 0 && (mode & O_ACCMODE) == O_RDONLY) {
            errno = EBADF;
            return false;
        }
        file->descriptor = mode >= 0 ? fcntl(given, F_DUPFD_CLOEXEC, STDERR_FILENO + 1) : -1;
        return file->descriptor >= 0;
    }
    if (stat(file->path, &status) == 0 && S_ISCHR(status.st_mode)) {
        file->descriptor = open(file->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return file->descriptor >= 0;
    }
    return true;
}

/* Says early what would otherwise be found out after an hour's run. */
static void check_output(output_file *file) {
    struct stat status;
    bool good = hold_descriptor(file);
    if (!good || file->descriptor >= 0) {
        /* it is open, or will never be */
    } else if (stat(file->path, &status) == 0) {
        if (S_ISDIR(status.st_mode)) {
            errno = EISDIR;
            good = false;
        } else {
            good = access(file->path, W_OK) == 0 && (!S_ISREG(status.st_mode) || can_make_beside(file->path));
        }
    } else {
        good = errno == ENOENT && can_make_beside(file->path);
    }
    if (!good) {
        refuse("cannot write %s: %s", file->shown, strerror(errno));
    }
}

static void choose_format(output_file *file, exports_format asked) {
    struct stat status;
    exports_format told = exports_format_of_path(file->shown), chosen = exports_choose(file->shown, asked);
    if (chosen == EXPORTS_FORMAT_NONE && told != EXPORTS_FORMAT_NONE) {
        usage_error("--output: the ending of '%s' means %s, --format says %s", file->shown, exports_name(told),
                    exports_name(asked));
    }
    if (chosen == EXPORTS_FORMAT_NONE && stat(file->shown, &status) == 0 && S_ISDIR(status.st_mode)) {
        refuse("cannot write %s: %s", file->shown, strerror(EISDIR));
    }
    if (chosen == EXPORTS_FORMAT_NONE && strchr(base_name(file->shown), '.') != NULL) {
        usage_error("--output: the ending of '%s' names no format: say which with --format", file->shown);
    }
    file->format = chosen != EXPORTS_FORMAT_NONE ? chosen : EXPORTS_FORMAT_SVG;
}

static bool is_same_output(const output_file *one, const output_file *other) {
    int descriptor = descriptor_of(one->shown);
    return descriptor >= 0 ? descriptor == descriptor_of(other->shown) : strcmp(one->path, other->path) == 0;
}

/* No -o came behind --heap: then it is the first. */
static void choose_heap_output(run_options *opt) {
    bool has_one = !opt->heap;
    for (int i = 0; i < opt->output_count; i++) {
        has_one = has_one || opt->outputs[i].is_heap;
    }
    opt->outputs[0].is_heap = opt->outputs[0].is_heap || !has_one;
}

static void choose_outputs(run_options *opt, const char *name) {
    if (opt->output_count == 0) {
        bool is_printed = opt->format == EXPORTS_FORMAT_TABLE;
        add_output(opt, is_printed ? "/dev/stderr"
                                   : default_output(
                                         name, opt->format != EXPORTS_FORMAT_NONE ? opt->format : EXPORTS_FORMAT_SVG,
                                         opt->heap));
        opt->outputs[0].is_printed = is_printed;
    }
    choose_heap_output(opt);
    for (int i = 0; i < opt->output_count; i++) {
        choose_format(&opt->outputs[i], opt->format);
        if (opt->outputs[i].is_heap && !exports_has_memory(opt->outputs[i].format)) {
            usage_error("--heap: %s shows times, and '%s' is of memory", exports_name(opt->outputs[i].format),
                        opt->outputs[i].shown);
        }
        opt->outputs[i].path = absolute_path(opt->outputs[i].shown);
        for (int other = 0; other < i; other++) {
            if (is_same_output(&opt->outputs[i], &opt->outputs[other])) {
                usage_error("--output: '%s' twice", opt->outputs[i].shown);
            }
        }
        check_output(&opt->outputs[i]);
        if (opt->mode == NULL && same_file(opt->outputs[i].path, opt->target)) {
            refuse("--output: '%s' is the program itself", opt->outputs[i].shown);
        }
    }
}

/* ---- the run -------------------------------------------------------------------------------------------- */

/* With --heap-native, what stands before libc's malloc comes first; it lies where the library does. */
static char *preload_of(const run_options *opt, const char *library) {
    if (!opt->heap_native) {
        return must(strdup(library));
    }
    char *folder = library_folder();
    char *native = text_of("%s/libpyprof-heap.so", folder);
    if (access(native, R_OK) != 0) {
        refuse("--heap-native: cannot read %s: %s", native, strerror(errno));
    }
    char *both = text_of("%s:%s", native, library);
    free(native);
    free(folder);
    return both;
}

static void set_environment(const run_options *opt, const program *found, const char *socket) {
    const char *before = getenv("LD_PRELOAD");
    char *ours = preload_of(opt, found->library);
#if defined(PYPROF_RUN_RUNTIME) /* a sanitizer, whose runtime the library needs first */
    char *with_runtime = text_of("%s:%s", PYPROF_RUN_RUNTIME, ours);
    free(ours);
    ours = with_runtime;
#endif
    char *preload = before != NULL && *before != '\0' ? text_of("%s:%s", ours, before) : must(strdup(ours));
    char *settings =
        text_of(HANDOVER_WRITTEN, socket, (unsigned)strlen(ours), found->target, (int)getpid(),
                (unsigned)(1e6 / opt->rate + 0.5), (unsigned)opt->capture, opt->signal_number, opt->depth, opt->memory,
                opt->duration, (unsigned)(opt->subprocesses ? HANDOVER_FOLLOW : HANDOVER_FOLLOW_NOT),
                (unsigned)is_timed(opt), opt->heap ? (unsigned long long)(opt->heap_kib * 1024 + 0.5) : 0);
    if (setenv("LD_PRELOAD", preload, 1) != 0 || setenv(HANDOVER_VARIABLE, settings, 1) != 0) {
        refuse("out of memory");
    }
    free(settings);
    free(preload);
    free(ours);
}

int main(int argc, char **argv) {
    static run_options opt;
    parse_options(&opt, argc, argv);
    check_heap(&opt);
    program found = find_program(&opt);
    choose_outputs(&opt, found.name);
    set_environment(&opt, &found, start_writer(&opt, found.name));
    if (!opt.quiet && !opt.host && isatty(STDERR_FILENO)) { /* a host may use all of the terminal */
        char *how =
            is_timed(&opt) ? text_of(" at %g Hz", opt.rate) : text_of("'s memory, one sample in %g KiB", opt.heap_kib);
        complain("recording %s%s; Ctrl-C ends it, and %s is %s", found.name, how,
                 opt.outputs[0].is_printed ? "a table" : opt.outputs[0].shown,
                 opt.outputs[0].is_printed ? "printed" : "written");
        free(how);
    }
    (void)execv(found.executable, found.arguments);
    complain("cannot run %s: %s", found.executable, strerror(errno));
    dismiss_writer();
    return EXIT_NOT_EXECUTABLE;
}
