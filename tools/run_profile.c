/* run_profile.c: what was handed over, as a profile that can be written in any format.
 *
 * All that writes profiles is in this unit: pyprof.h without what records, so that it needs no Python.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#define PYPROF_NO_RECORDING
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#define EXPORTS_IMPLEMENTATION
#include "exports.h"

#include "pyprof-run.h"

#include "run_profile.h"

void append(bytes *to, const void *data, size_t size) {
    if (size > to->capacity - to->size) {
        size_t capacity = to->capacity > 0 ? to->capacity : 65536;
        while (capacity - to->size < size) {
            capacity *= 2;
        }
        to->data = must(realloc(to->data, capacity));
        to->capacity = capacity;
    }
    if (size > 0) {
        memcpy(to->data + to->size, data, size);
        to->size += size;
    }
}

void drop_front(bytes *from, size_t size) {
    from->size -= size;
    memmove(from->data, from->data + size, from->size);
}

/* ---- what comes ----------------------------------------------------------------------------------------- */

static pyprof_text text_in(const char *data) {
    pyprof_text text = {data, strlen(data)};
    return text;
}

void begin_profile(recorded *to, const void *data, size_t size) {
    memset(&to->end, 0, sizeof to->end);
    memcpy(&to->end, data, size < sizeof to->end ? size : sizeof to->end);
    to->pending.size = to->numbers.size = 0;
    to->spans_refused = 0;
    pyprof_free(to->profile);
    pyprof_facts facts = {.program = text_in(to->end.program),
                          .process = text_in(to->end.process),
                          .python = text_in(to->end.python),
                          .start_ns = to->end.start_ns,
                          .duration_ns = to->end.duration_ns,
                          .interval_us = to->end.interval_us,
                          .stats = to->end.stats};
    to->is_broken = pyprof_make(&facts, 0, NULL, &to->profile) != PYPROF_OK;
}

/* Its number here, by its number there. */
static uint32_t number_of(const recorded *of, uint32_t number) {
    uint32_t here = PYPROF_NO_NODE;
    if (number < of->numbers.size / sizeof here) {
        memcpy(&here, of->numbers.data + number * sizeof here, sizeof here);
    }
    return here;
}

/* Takes one node from what has come; returns its bytes, 0 = not all of them are there. */
static size_t take_node(recorded *to, const char *data, size_t size) {
    handover_node head;
    uint32_t number = PYPROF_NO_NODE;
    if (size < sizeof head) {
        return 0;
    }
    memcpy(&head, data, sizeof head);
    size_t whole = sizeof head + head.name_size + head.path_size;
    if (size < whole) {
        return 0;
    }
    head.node.name = (pyprof_text){data + sizeof head, head.name_size};
    head.node.path = (pyprof_text){head.node.name.data + head.name_size, head.path_size};
    bool is_thread = head.node.parent == PYPROF_NO_NODE;
    head.node.parent = number_of(to, head.node.parent);
    to->is_broken = to->is_broken || is_thread != (head.node.parent == PYPROF_NO_NODE) ||
                    pyprof_add_node(to->profile, &head.node, &number) != PYPROF_OK;
    append(&to->numbers, &number, sizeof number);
    return whole;
}

static size_t take_span(recorded *to, const char *data, size_t size) {
    pyprof_span span;
    if (size < sizeof span) {
        return 0;
    }
    memcpy(&span, data, sizeof span);
    span.node = number_of(to, span.node);
    pyprof_result result = pyprof_add_span(to->profile, &span);
    to->is_broken = to->is_broken || result == PYPROF_ERROR_MEMORY;
    to->spans_refused += result == PYPROF_ERROR_ARGUMENT;
    return sizeof span;
}

void take_pieces(recorded *to, handover_kind kind, const char *data, size_t size) {
    append(&to->pending, data, size);
    size_t at = 0, taken = to->pending.size;
    while (taken > 0) {
        const char *rest = to->pending.data + at;
        size_t left = to->pending.size - at;
        taken = kind == HANDOVER_NODES ? take_node(to, rest, left) : take_span(to, rest, left);
        at += taken;
    }
    if (at > 0) {
        drop_front(&to->pending, at);
    }
}

/* ---- what is written ------------------------------------------------------------------------------------ */

bool has_doubtful_lines(const recorded *given, const run_options *opt) {
    return given->end.stats.samples_jit > 0 && opt->view.detail == PYPROF_DETAIL_LINE;
}

unsigned long long lost_samples(const pyprof_stats *stats) {
    return stats->lost_late + stats->lost_pending + stats->lost_unsettled + stats->lost_unreadable + stats->lost_memory;
}

/* Said in a picture that has nothing to show. */
static const char *why_empty(const recorded *given, const run_options *opt) {
    const pyprof_stats *stats = &given->end.stats;
    if (stats->samples == 0) {
        return "The program ended before it was looked at: --rate 1000 looks ten times as often.";
    }
    if (has_filters(opt)) {
        return "Nothing that was recorded passes the --only- options: leave one out.";
    }
    if (stats->samples_idle == stats->samples && !opt->view.include_idle) {
        return "Its threads only waited whenever they were looked at: --idle shows where.";
    }
    return opt->view.metric == PYPROF_METRIC_WALL
               ? "No thread ran Python when it was looked at: --rate 1000 looks ten times as often."
               : "No such time was seen: --metric wall shows all that passed.";
}

static bool write_to(void *file, const void *data, size_t size) {
    return fwrite(data, 1, size, (FILE *)file) == size;
}

static bool draw(const recorded *given, const run_options *opt, const char *name, FILE *out) {
    const handover_end *end = &given->end;
    flamegraph_options look = {.title = opt->title != NULL ? opt->title : name,
                               .subtitle =
                                   has_doubtful_lines(given, opt) ? "JIT: innermost lines may be too early" : NULL,
                               .width = opt->width,
                               .min_width = opt->min_width,
                               .inverted = opt->inverted,
                               .threads = opt->threads,
                               .empty = why_empty(given, opt),
                               .facts = {.program = name,
                                         .python = end->python,
                                         .date = (int64_t)(end->start_ns / 1000000000u),
                                         .seconds = (double)end->duration_ns / 1e9,
                                         .rate = opt->rate,
                                         .samples = end->stats.samples,
                                         .lost = lost_samples(&end->stats)}};
    return exports_draw(given->profile, &opt->view, &look, write_to, out) == PYPROF_OK;
}

bool write_profile(const recorded *given, const run_options *opt, const char *name, exports_format format, FILE *out) {
    if (given->is_broken) {
        errno = ENOMEM;
        return false;
    }
    if (format == EXPORTS_FORMAT_SVG) {
        return draw(given, opt, name, out);
    }
    if (format == EXPORTS_FORMAT_TABLE) {
        (void)fprintf(out, "%s, CPython %s\n", opt->title != NULL ? opt->title : name, given->end.python);
    }
    return exports_write(given->profile, &opt->view, format, write_to, out) == PYPROF_OK;
}
