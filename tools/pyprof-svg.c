/* pyprof-svg: turn collapsed stacks into an interactive flame graph, one self-contained SVG file.
 *
 *     cc tools/pyprof-svg.c -o pyprof-svg
 *     ./pyprof-svg --title "game.py" game.txt game.svg
 *
 * The reader, the picture and their rules are described at the top of flamegraph.h. If any line of
 * the input is bad, all bad lines are told (up to 20 one by one) and nothing is written.
 */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700 /* realpath() and the rest of POSIX 2008, also under -std=c99 */
#endif

#include "flamegraph.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define PYPROF_SVG_VERSION "0.1.0"

enum {
    EXIT_BAD_INPUT = 1,
    EXIT_BAD_USAGE = 2
};

static const char usage[] = "usage: pyprof-svg [OPTION...] [IN [OUT]]\n";

static const char *const help[] = {
    "Turn collapsed stacks (lines of `frame;frame;frame VALUE`) into an interactive flame graph.",
    "IN and OUT are files; without them, or as -, standard input and standard output. IN may be what "
    "pyprof_save,",
    "pyprof-run, `py-spy record -f raw` or FlameGraph's stackcollapse-*.pl have written.",
    "",
    "  --title TEXT     the headline (default: Flame graph)",
    "  --subtitle TEXT  one more line below it",
    "  --width PIXELS   the widest the picture gets, 300 to 100000 (default: 1200 as a still image,",
    "                   the window's width in a browser)",
    "  --min-width PX   fold frames that are narrower than this (default: 1)",
    "  --inverted       root on top (icicle)",
    "  --diff           IN has two values a line, BASE VALUE, as difffolded.pl writes them: frames are as wide as "
    "VALUE,",
    "                   red where their share of all is larger than in the base, blue where it is smaller",
    "  --absolute       with --diff: red where VALUE itself is larger, blue where it is smaller",
    "  --threads        threads apart at first (default: together); those whose names differ in digits only are one",
    "  --unit UNIT      what the values are: ns, us, ms, s, or a word for what is counted",
    "                   (default: us if each stack begins with `thread NAME` as pyprof writes it, else "
    "samples)",
    "  -h, --help       show this text",
    "  -V, --version    show the version",
    "",
    "Exit code: 0 if the picture is written; 1 if the input has bad lines (each is told as",
    "IN:LINE: what is wrong, and nothing is written) or cannot be read, or OUT cannot be written;",
    "2 if the command line is wrong. An input without samples gives a picture that says so.",
    "",
    "Ctrl-C in a pipeline is meant for the program that is profiled: the picture is drawn of what it wrote "
    "until then.",
    "A second one ends pyprof-svg, too.",
};

typedef struct arguments {
    flamegraph_options options;
    const char *paths[2];
    int path_count;
    bool diff, absolute;
} arguments;

static bool parse_width(const char *text, int *width) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < FLAMEGRAPH_MIN_WIDTH || value > FLAMEGRAPH_MAX_WIDTH) {
        fprintf(stderr, "pyprof-svg: --width wants a whole number of pixels from %d to %d, not '%s'\n",
                FLAMEGRAPH_MIN_WIDTH, FLAMEGRAPH_MAX_WIDTH, text);
        return false;
    }
    *width = (int)value;
    return true;
}

static bool parse_min_width(const char *text, double *width) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0.01 && value <= 100)) {
        fprintf(stderr, "pyprof-svg: --min-width wants pixels from 0.01 to 100, not '%s'\n", text);
        return false;
    }
    *width = value;
    return true;
}

static bool is_name(const char *text, size_t size, const char *name) {
    return strlen(name) == size && strncmp(text, name, size) == 0;
}

static bool set_option(arguments *parsed, const char *name, size_t size, const char *value) {
    static const char *const names[] = {"--title", "--subtitle", "--unit", "--width", "--min-width"};
    const char **texts[] = {&parsed->options.title, &parsed->options.subtitle, &parsed->options.unit};
    size_t which = 0;
    while (which < 5 && !is_name(name, size, names[which])) {
        which++;
    }
    if (which == 5) {
        bool is_flag = is_name(name, size, "--inverted") || is_name(name, size, "--threads") ||
                       is_name(name, size, "--diff") || is_name(name, size, "--absolute");
        fprintf(stderr, "pyprof-svg: %s '%.*s'%s\n", is_flag ? "the option" : "unknown option", (int)size, name,
                is_flag ? " takes no value" : "");
        return false;
    }
    if (!value || (which == 2 && !*value)) {
        fprintf(stderr, "pyprof-svg: %s wants a value\n", names[which]);
        return false;
    }
    if (which == 3)
        return parse_width(value, &parsed->options.width);
    if (which == 4)
        return parse_min_width(value, &parsed->options.min_width);
    *texts[which] = value;
    return true;
}

static bool set_flag(arguments *parsed, const char *text) {
    static const char *const names[] = {"--inverted", "--threads", "--diff", "--absolute"};
    bool *flags[] = {&parsed->options.inverted, &parsed->options.threads, &parsed->diff, &parsed->absolute};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (strcmp(text, names[i]) == 0)
            return *flags[i] = true;
    }
    return false;
}

/* Options may stand anywhere, as `--name value` or `--name=value`; `--` ends them. */
static bool parse_arguments(int argc, char **argv, arguments *parsed) {
    bool options_end = false;
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i];
        if (options_end || text[0] != '-' || text[1] == '\0') {
            if (parsed->path_count == 2) {
                fprintf(stderr, "pyprof-svg: too many files: '%s'\n", text);
                return false;
            }
            parsed->paths[parsed->path_count++] = text;
        } else if (strcmp(text, "--") == 0) {
            options_end = true;
        } else if (set_flag(parsed, text)) {
            continue;
        } else {
            const char *equals = strchr(text, '=');
            size_t size = equals ? (size_t)(equals - text) : strlen(text);
            const char *value = equals ? equals + 1 : i + 1 < argc ? argv[++i] : NULL;
            if (!set_option(parsed, text, size, value))
                return false;
        }
    }
    if (parsed->absolute && !parsed->diff) {
        fputs("pyprof-svg: --absolute says how --diff compares: it wants --diff, too\n", stderr);
        return false;
    }
    if (parsed->diff)
        parsed->options.difference = parsed->absolute ? FLAMEGRAPH_ABSOLUTE : FLAMEGRAPH_SHARES;
    return true;
}

static bool asks_for(int argc, char **argv, const char *option, const char *letter) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], option) == 0 || strcmp(argv[i], letter) == 0)
            return true;
    }
    return false;
}

/* The picture would take the place of what it is drawn of. */
static bool would_replace_input(const arguments *parsed) {
    struct stat in, out;
    const char *from = parsed->paths[0], *to = parsed->paths[1];
    bool is_named = from && strcmp(from, "-") != 0;
    if (!to || (is_named ? stat(from, &in) : fstat(STDIN_FILENO, &in)) != 0 || stat(to, &out) != 0)
        return false;
    return S_ISREG(in.st_mode) && in.st_dev == out.st_dev && in.st_ino == out.st_ino;
}

static void pass_over(int signal_number) {
    (void)signal_number;
}

/* Ctrl-C goes to all programs of a pipeline. What comes through a pipe ends when its writer does: until then the first
 * one is passed over, and the second ends us, as the handler is in place for one signal only. */
static void outlive_writer(const char *path) {
    struct stat status;
    struct sigaction action, before;
    bool known = path ? stat(path, &status) == 0 : fstat(STDIN_FILENO, &status) == 0;
    if (!known || !(S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode)))
        return;
    memset(&action, 0, sizeof action);
    action.sa_handler = pass_over;
    action.sa_flags = (int)(SA_RESTART | SA_RESETHAND);
    if (sigaction(SIGINT, NULL, &before) == 0 && before.sa_handler == SIG_DFL)
        sigaction(SIGINT, &action, NULL);
}

static flamegraph_result read_file(flamegraph *graph, FILE *in, const char *name, bool diff) {
    return diff ? flamegraph_read_difference(graph, in, name, flamegraph_tell_file, stderr)
                : flamegraph_read(graph, in, name, flamegraph_tell_file, stderr);
}

static flamegraph_result read_input(flamegraph *graph, const char *path, bool diff) {
    if (path && strcmp(path, "-") == 0)
        path = NULL;
    outlive_writer(path);
    if (!path)
        return read_file(graph, stdin, "<stdin>", diff);
    FILE *in = fopen(path, "rb");
    if (!in) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return FLAMEGRAPH_IO_ERROR;
    }
    flamegraph_result result = read_file(graph, in, path, diff);
    fclose(in);
    return result;
}

static int tell(bool is_help) {
    if (is_help) {
        fputs(usage, stdout);
        for (size_t i = 0; i < sizeof help / sizeof *help; i++)
            puts(help[i]);
    } else {
        puts("pyprof-svg " PYPROF_SVG_VERSION);
    }
    if (fflush(stdout) == 0 && !ferror(stdout)) { /* a part that failed before is not tried again */
        return EXIT_SUCCESS;
    }
    fputs("pyprof-svg: cannot write standard output\n", stderr);
    return EXIT_FAILURE;
}

int main(int argc, char **argv) {
    arguments parsed = {0};
    if (asks_for(argc, argv, "--help", "-h")) {
        return tell(true);
    }
    if (asks_for(argc, argv, "--version", "-V")) {
        return tell(false);
    }
    if (!parse_arguments(argc, argv, &parsed)) {
        fputs(usage, stderr);
        return EXIT_BAD_USAGE;
    }
    if (would_replace_input(&parsed)) {
        fprintf(stderr, "pyprof-svg: '%s' is both IN and OUT: the picture would take the place of its input\n",
                parsed.paths[1]);
        return EXIT_BAD_USAGE;
    }
    flamegraph *graph = flamegraph_create();
    if (!graph) {
        fputs("pyprof-svg: out of memory\n", stderr);
        return EXIT_BAD_INPUT;
    }
    flamegraph_result result = read_input(graph, parsed.paths[0], parsed.diff);
    if (result == FLAMEGRAPH_OK && flamegraph_total(graph) == 0) {
        fprintf(stderr, "pyprof-svg: the input holds no samples\n");
    }
    if (result == FLAMEGRAPH_OK) {
        result = flamegraph_save(graph, &parsed.options, parsed.paths[1], flamegraph_tell_file, stderr);
    }
    flamegraph_free(graph);
    return result == FLAMEGRAPH_OK ? EXIT_SUCCESS : EXIT_BAD_INPUT;
}
