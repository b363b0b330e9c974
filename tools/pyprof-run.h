/* pyprof-run.h: what the parts of pyprof-run share.
 *
 *   pyprof-run.c      the command line, and the way from it to the program
 *   run_program.c     which python runs it, and what it is called
 *   run_host.c        a host program, and which libraries it needs
 *   run_writer.c      the process that writes what was recorded
 *   run_profile.c     what was recorded, in any format (exports.h)
 *   libpyprof.c       the library that records, inside the program (recording.h, what its parts share; ends.h, the ways
 *                     to the end; handing.h, its way to the writer, as handover.h has it; joined.h, how the parts of an
 *                     interrupted recording become one)
 */
#ifndef PYPROF_RUN_H
#define PYPROF_RUN_H

#include "exports.h"

#include <stdbool.h>
#include <sys/types.h>

enum {
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_NOT_EXECUTABLE = 126
};

typedef struct output_file {
    char *path;        /* absolute: where it goes is meant from where pyprof-run was started */
    const char *shown; /* the same as the user wrote it */
    int descriptor;    /* what has no name of its own (/dev/stdout, a terminal) is open from the beginning; -1 = none */
    exports_format format;
    bool is_printed; /* the table, on standard error, as no file was named for it */
    bool is_heap;    /* it is of memory, not of time */
} output_file;

enum {
    MAX_OUTPUTS = 16,
    MAX_PYTHON_OPTIONS = 64
};

typedef struct run_options {
    output_file outputs[MAX_OUTPUTS];
    int output_count;
    exports_format format;
    double rate;     /* samples a second */
    double duration; /* seconds; 0 = until the end */
    pyprof_output view;
    bool heap;               /* memory is sampled, */
    bool heap_native;        /* C code's, too */
    double heap_kib;         /* one in so many KiB */
    bool heap_is_next;       /* the next -o is of memory */
    pyprof_output heap_view; /* of these files */
    bool has_heap_metric;
    pyprof_capture capture;
    int signal_number; /* 0 = pyprof.h's own choice */
    unsigned depth;
    unsigned long long memory;
    bool quiet;
    bool threads; /* apart in the picture */
    bool subprocesses;
    const char *title;
    int width;
    double min_width;
    bool inverted;
    bool recording;                           /* py-spy's habit: pyprof-run record */
    char *python_options[MAX_PYTHON_OPTIONS]; /* python's own, as they were written */
    int python_option_count;
    bool host;          /* the target is a program that embeds CPython */
    const char *mode;   /* "-m", "-c" or NULL = a script or program */
    const char *target; /* module, code, script or program */
    bool joined;        /* -mMODULE, one word: sys.orig_argv tells */
    const char *flags;  /* python's own in the same word before it, as in -uBm MODULE; "" = none */
    char **arguments;   /* what follows the target; ends with NULL */
} run_options;

/* What is executed. */
typedef struct program {
    char *executable; /* a python, or a host */
    char **arguments; /* argv; ends with NULL */
    char *library;    /* libpyprof-3.X.so for it, or several with colons between them */
    unsigned target;  /* a handover_target */
    char *name;       /* what the program is called in file names and titles */
} program;

/* ---- pyprof-run.c ---- */

/* One line on standard error. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line, a hint at --help, and the end: EXIT_USAGE. */
void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* One line, and the end: EXIT_USAGE. */
void refuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

void *must(void *memory); /* what malloc gave; the end if that is nothing */
char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *base_name(const char *path);
bool same_file(const char *one, const char *other);

bool has_filters(const run_options *opt);
bool is_timed(const run_options *opt); /* some file is of time */

/* ---- run_program.c ---- */

/* Finds the program that the options name and the python that runs it, or ends with one line that says what to do. */
program find_program(const run_options *opt);

/* What the process of a command line is called: the file of a script, a module, "-c". arguments: argv. */
char *name_of_process(char *const *arguments);

bool is_executable_file(const char *path);
bool is_elf(const char *path);
char *find_in_path(const char *name);         /* as a shell does; NULL = nowhere */
char *library_folder(void);                   /* where the libraries are */
bool ignores_preload(const char *executable); /* programs with more rights than their caller: ld.so(8) */

/* ---- run_host.c ---- */

/* The same for a program that is no python, with --host. */
program find_host(const run_options *opt);

/* ---- run_writer.c ---- */

/* Leaves a process behind that writes what this one, become the program, will hand over; answers the name of its
   socket. It ends with this one. */
const char *start_writer(const run_options *opt, const char *name);

/* Tells the writer that there will be nothing: the program could not be executed. */
void dismiss_writer(void);

#endif
