/* filter_options.h: the options that leave out a part of a profile, which pyprof-run, pyprof-convert and pyprof-ctl share:
 * --only-thread, --only-interpreter, --only-file, --only-function, --only-mine, --min-share.
 *
 *     static const struct option options[] = {FILTER_OPTIONS, {"help", no_argument, NULL, 'h'}, ...};
 *     if (filter_take(&output, letter, optarg) == FILTER_WRONG) complain(FILTER_WRONG_VALUE, optarg);
 *
 * In: what getopt_long answers. Out: the fields of a pyprof_output, whose texts are those of the command line.
 */
#ifndef FILTER_OPTIONS_H
#define FILTER_OPTIONS_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "pyprof.h"

/* Above what a tool has of its own. */
enum {
    FILTER_THREAD = 512,
    FILTER_INTERPRETER,
    FILTER_FILE,
    FILTER_FUNCTION,
    FILTER_ONLY_MINE,
    FILTER_MIN_SHARE
};

typedef enum filter_taken {
    FILTER_OTHER, /* it is none of these options */
    FILTER_TAKEN,
    FILTER_WRONG /* it is one, and its value is none */
} filter_taken;

#define FILTER_WRONG_VALUE "--min-share: '%s' is not a number from 0 to 1" /* the only one that can be wrong */

/* Rows of getopt_long's table. */
#define FILTER_OPTIONS                                                                                                 \
    {"only-thread", required_argument, NULL, FILTER_THREAD},                                                           \
        {"only-interpreter", required_argument, NULL, FILTER_INTERPRETER},                                             \
        {"only-file", required_argument, NULL, FILTER_FILE},                                                           \
        {"only-function", required_argument, NULL, FILTER_FUNCTION},                                                   \
        {"only-mine", no_argument, NULL, FILTER_ONLY_MINE}, {                                                          \
        "min-share", required_argument, NULL, FILTER_MIN_SHARE                                                         \
    }

static const char **filter_text(pyprof_output *output, int option) {
    switch (option) {
    case FILTER_THREAD:
        return &output->thread;
    case FILTER_INTERPRETER:
        return &output->interpreter;
    case FILTER_FILE:
        return &output->file;
    case FILTER_FUNCTION:
        return &output->function;
    default:
        return NULL;
    }
}

/* Sets what an option says. */
static filter_taken filter_take(pyprof_output *output, int option, const char *value) {
    const char **text = filter_text(output, option);
    char *end = NULL;
    if (text != NULL) {
        *text = value;
        return FILTER_TAKEN;
    }
    if (option == FILTER_MIN_SHARE) {
        output->min_share = strtod(value, &end);
        bool is_good = end != value && *end == '\0' && output->min_share >= 0 && output->min_share <= 1;
        return is_good ? FILTER_TAKEN : FILTER_WRONG;
    }
    output->only_mine = output->only_mine || option == FILTER_ONLY_MINE;
    return option == FILTER_ONLY_MINE ? FILTER_TAKEN : FILTER_OTHER;
}

/* Whether stacks are left out; else all are shown, if as less than they are. */
static bool filter_is_given(const pyprof_output *output) {
    return output->thread != NULL || output->interpreter != NULL || output->file != NULL || output->function != NULL;
}

#endif
