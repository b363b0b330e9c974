/* flamegraph.h: collapsed stacks in, one self-contained interactive SVG out.
 *
 * Needs nothing but libc and POSIX (define _POSIX_C_SOURCE 200809L before the first #include when
 * compiling as strict ISO C). All functions are static: include it in the one file that uses it.
 *
 *     flamegraph *graph = flamegraph_create();
 *     if (graph && flamegraph_add(graph, text, size, "profile", stderr) == FLAMEGRAPH_OK) {
 *         flamegraph_options options = {.title = "game.py", .unit = "us"};
 *         flamegraph_save(graph, &options, "game.svg", stderr);
 *     }
 *     flamegraph_free(graph);
 *
 * Input: one stack a line, `frame;frame;frame VALUE`, root first, VALUE a whole number >= 0 behind
 * the last blank (so that frame names may hold blanks). Equal stacks add up. Blank lines, and lines
 * that begin with "# " or are a lone "#", are skipped; CRLF and a missing last newline are fine.
 * Bytes that are not UTF-8, and characters that XML forbids, are shown as U+FFFD.
 *
 * Picture: children stand left to right by falling value. Frames narrower than
 * `options.min_width` are folded: drawn as one hatched box per parent, and counted below the chart.
 * Zooming in unfolds them, as far as the file knows them: it keeps the largest FLAMEGRAPH_MAX_FRAMES.
 */
#ifndef FLAMEGRAPH_H
#define FLAMEGRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifndef FLAMEGRAPH_MAX_FRAMES
#define FLAMEGRAPH_MAX_FRAMES 20000 /* how many frames a file describes: what bounds its size */
#endif

typedef enum flamegraph_result {
    FLAMEGRAPH_OK = 0,
    FLAMEGRAPH_BAD_INPUT = -1, /* at least one line is wrong; nothing of this input was added */
    FLAMEGRAPH_NO_MEMORY = -2,
    FLAMEGRAPH_IO_ERROR = -3, /* errno tells why */
} flamegraph_result;

/* How the picture looks; all zero = good defaults. */
typedef struct flamegraph_options {
    const char *title;    /* UTF-8; NULL = "Flame graph" */
    const char *subtitle; /* one more line, say what was measured and how; NULL = none */
    const char *unit;     /* "ns", "us", "ms", "s": times, shown as 1.23 s, 45.6 ms; any other word
                             names what is counted; NULL = "samples" */
    int width;            /* pixels, at least FLAMEGRAPH_MIN_WIDTH; 0 = 1200, growing with the window */
    double min_width;     /* frames narrower than this many pixels are folded; 0 = 1 */
    bool inverted;        /* root on top (icicle) */
} flamegraph_options;

#define FLAMEGRAPH_MIN_WIDTH 300
#define FLAMEGRAPH_MAX_WIDTH 100000

typedef struct flamegraph flamegraph;

/* An empty graph, or NULL when there is no memory. */
static inline flamegraph *flamegraph_create(void);
static inline void flamegraph_free(flamegraph *graph); /* NULL is fine */

/* Add collapsed text. Every bad line (up to a bound) is told on `errors` as
 * `NAME:LINE: what is wrong`; if there is one, nothing of this text is added. */
static inline flamegraph_result flamegraph_add(flamegraph *graph, const char *text, size_t size,
                                               const char *name, FILE *errors);

/* The same for all that can be read from `in`. */
static inline flamegraph_result flamegraph_read(flamegraph *graph, FILE *in, const char *name,
                                                FILE *errors);

/* The sum of all values; 0 = there is nothing to see (the picture then says so). */
static inline uint64_t flamegraph_total(const flamegraph *graph);

/* Write the SVG. The caller checks fclose() of its own stream. */
static inline flamegraph_result flamegraph_write(const flamegraph *graph,
                                                 const flamegraph_options *options, FILE *out);

/* Write the SVG beside `path` and rename it into place, so that no half file is ever seen there;
 * straight into what is no regular file (a pipe, a device). NULL or "-" = standard output.
 * Errors are told on `errors` as `PATH: what is wrong`. */
static inline flamegraph_result flamegraph_save(const flamegraph *graph,
                                                const flamegraph_options *options, const char *path,
                                                FILE *errors);

#endif
