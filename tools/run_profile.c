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
    pyprof_free(to->memory);
    to->memory = NULL;
    to->has_heap = false;
    memset(&to->heap, 0, sizeof to->heap);
    pyprof_facts facts = {.program = text_in(to->end.program),
                          .process = text_in(to->end.process),
                          .python = text_in(to->end.python),
                          .start_ns = to->end.start_ns,
                          .duration_ns = to->end.duration_ns,
                          .interval_us = to->end.interval_us,
                          .stats = to->end.stats};
    to->is_broken = pyprof_make(&facts, 0, NULL, &to->profile) != PYPROF_OK;
}

void begin_memory(recorded *to, const void *data, size_t size) {
    memcpy(&to->heap, data, size < sizeof to->heap ? size : sizeof to->heap);
    to->pending.size = to->numbers.size = 0;
    to->has_heap = true;
    pyprof_facts facts = {.program = text_in(to->end.program),
                          .process = text_in(to->end.process),
                          .python = text_in(to->end.python),
                          .start_ns = to->heap.start_ns,
                          .duration_ns = to->heap.duration_ns,
                          .stats = to->heap.stats,
                          .kind = PYPROF_KIND_HEAP,
                          .sampling_bytes = to->heap.heap.sampling_bytes};
    if (!to->heap.failed) {
        to->is_broken = pyprof_make(&facts, 0, NULL, &to->memory) != PYPROF_OK || to->is_broken;
    }
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
    head.node.process = (pyprof_text){NULL, 0};
    head.node.pid = 0;
    bool is_thread = head.node.parent == PYPROF_NO_NODE;
    head.node.parent = number_of(to, head.node.parent);
    to->is_broken = to->is_broken || is_thread != (head.node.parent == PYPROF_NO_NODE) ||
                    pyprof_add_node(to->has_heap ? to->memory : to->profile, &head.node, &number) != PYPROF_OK;
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

void forget_profile(recorded *of) {
    pyprof_free(of->profile);
    pyprof_free(of->memory);
    free(of->pending.data);
    free(of->numbers.data);
    memset(of, 0, sizeof *of);
}

/* ---- several processes ---------------------------------------------------------------------------------- */

/* A profile that is being added to another one. */
typedef struct adding {
    recorded *to;
    const char *called; /* the process; NULL: the nodes tell */
    int pid;
    uint64_t later_ns; /* so much later than the other one it began */
    uint64_t end_ns;   /* of its last span, in the other one */
} adding;

/* Of pyprof_visitor; user is an adding. So is add_span. */
static bool add_node(void *user, const pyprof_node *node) {
    adding *at = (adding *)user;
    pyprof_node copy = *node;
    uint32_t number = PYPROF_NO_NODE;
    copy.parent = number_of(at->to, node->parent);
    if (node->parent == PYPROF_NO_NODE && at->called != NULL) {
        copy.process = text_in(at->called);
        copy.pid = at->pid;
    }
    bool is_added = pyprof_add_node(at->to->profile, &copy, &number) == PYPROF_OK;
    append(&at->to->numbers, &number, sizeof number);
    return is_added;
}

static bool add_span(void *user, const pyprof_span *span) {
    adding *at = (adding *)user;
    pyprof_span copy = *span;
    copy.node = number_of(at->to, span->node);
    copy.start_ns += at->later_ns;
    pyprof_result result = pyprof_add_span(at->to->profile, &copy);
    at->to->spans_refused += result == PYPROF_ERROR_ARGUMENT;
    at->end_ns = copy.start_ns + copy.wall_ns > at->end_ns ? copy.start_ns + copy.wall_ns : at->end_ns;
    return result != PYPROF_ERROR_MEMORY;
}

/* Counts add up; the most that was held at a time is not known of several. */
static void add_stats(pyprof_stats *to, const pyprof_stats *more) {
    uint64_t sums[sizeof *to / sizeof(uint64_t)], others[sizeof *to / sizeof(uint64_t)];
    int32_t signal_number = to->signal_number;
    memcpy(sums, to, sizeof sums);
    memcpy(others, more, sizeof others);
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        sums[i] += others[i];
    }
    memcpy(to, sums, sizeof *to);
    to->signal_number = signal_number;
    to->reserved = 0;
}

static bool add_profile(recorded *to, const recorded *one, const char *called, int pid, uint64_t later_ns) {
    adding at = {to, called, pid, later_ns, 0};
    pyprof_output output = {.threads_apart = true};
    pyprof_visitor visitor = {add_node, add_span, &at};
    to->numbers.size = 0;
    bool is_added = one->profile != NULL && pyprof_visit(one->profile, &output, &visitor) == PYPROF_OK;
    uint64_t end_ns = later_ns + one->end.duration_ns;
    end_ns = end_ns > at.end_ns ? end_ns : at.end_ns;
    to->end.duration_ns = end_ns > to->end.duration_ns ? end_ns : to->end.duration_ns;
    to->spans_refused += one->spans_refused;
    add_stats(&to->end.stats, &one->end.stats);
    return is_added;
}

bool has_one_line(const recorded *of) {
    const pyprof__node *first = NULL;
    for (uint32_t i = 0; of->profile != NULL && i < of->profile->nodes.items.count; i++) {
        const pyprof__node *node = pyprof__node_at(of->profile, i);
        if (node->samples == 0 || node->line <= 0) { /* a marker has no line */
            continue;
        }
        first = first != NULL ? first : node;
        if (node->function != first->function || node->line != first->line) {
            return false;
        }
    }
    return true;
}

static size_t memory_of(const recorded *of) {
    return of->profile != NULL ? of->profile->memory.used : 0;
}

static uint64_t later_than(uint64_t start_ns, const recorded *one) {
    return one->end.start_ns > start_ns ? one->end.start_ns - start_ns : 0;
}

void add_process(family *to, const recorded *one, const char *called, int pid) {
    if (to->all.end.interval_us == 0) { /* the first of them */
        to->all.end = one->end;
        to->all.end.duration_ns = 0;
        memset(&to->all.end.stats, 0, sizeof to->all.end.stats);
    }
    bool has_room = !one->is_broken && memory_of(&to->all) + memory_of(one) <= to->memory;
    if (to->all.profile == NULL) {
        to->all.is_broken = pyprof_make(NULL, 0, NULL, &to->all.profile) != PYPROF_OK;
    }
    if (!has_room || to->all.is_broken || !add_profile(&to->all, one, called, pid, later_than(to->start_ns, one))) {
        to->refused++;
    } else {
        to->processes++;
    }
}

void join_family(recorded *first, const family *others, const char *called, int pid) {
    recorded joined = {.is_broken = false};
    const handover_end *end = first->profile != NULL ? &first->end : &others->all.end;
    if (others->processes == 0) {
        return;
    }
    begin_profile(&joined, end, sizeof *end);
    joined.end.cause = first->profile != NULL ? end->cause : HANDOVER_EXIT;
    joined.end.start_ns = others->start_ns;
    joined.end.duration_ns = 0;
    memset(&joined.end.stats, 0, sizeof joined.end.stats);
    joined.is_broken =
        joined.is_broken || first->is_broken ||
        (first->profile != NULL && !add_profile(&joined, first, called, pid, later_than(others->start_ns, first))) ||
        !add_profile(&joined, &others->all, NULL, 0, 0);
    if (!joined.is_broken) {
        joined.profile->epoch_ns = joined.end.start_ns;
        joined.profile->duration_ns = joined.end.duration_ns;
        joined.profile->stats = joined.end.stats;
        joined.profile->samples_jit = joined.end.stats.samples_jit;
        joined.profile->timeline_coarsened = joined.end.stats.timeline_coarsened;
    }
    forget_profile(first);
    *first = joined;
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

/* What of memory is in use. */
static bool draw_memory(const recorded *given, const run_options *opt, const char *name, FILE *out) {
    char title[300];
    (void)snprintf(title, sizeof title, "%s: memory", name);
    flamegraph_options look = {.title = opt->title != NULL ? opt->title : title,
                               .width = opt->width,
                               .min_width = opt->min_width,
                               .inverted = opt->inverted,
                               .threads = opt->threads,
                               .empty = has_filters(opt)
                                            ? "Nothing that was sampled passes the --only- options: leave one out."
                                            : "Nothing was sampled of what was allocated: a smaller --heap-rate "
                                              "takes more samples.",
                               .facts = {.program = name}};
    return exports_draw(given->memory, &opt->heap_view, &look, write_to, out) == PYPROF_OK;
}

const char *tell_bytes(char *text, size_t size, uint64_t count) {
    flamegraph_format_bytes(text, size, (double)count);
    return text;
}

bool write_profile(const recorded *given, const run_options *opt, const char *name, const output_file *file,
                   FILE *out) {
    const pyprof_profile *profile = file->is_heap ? given->memory : given->profile;
    if (given->is_broken || profile == NULL) {
        errno = ENOMEM;
        return false;
    }
    if (file->format == EXPORTS_FORMAT_SVG) {
        return file->is_heap ? draw_memory(given, opt, name, out) : draw(given, opt, name, out);
    }
    if (file->format == EXPORTS_FORMAT_TABLE) {
        (void)fprintf(out, "%s, CPython %s\n", opt->title != NULL ? opt->title : name, given->end.python);
    }
    return exports_write(profile, file->is_heap ? &opt->heap_view : &opt->view, file->format, write_to, out) ==
           PYPROF_OK;
}
