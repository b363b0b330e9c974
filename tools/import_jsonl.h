/* import_jsonl.h: JSON lines, as exports.h writes and describes them. A part of imports.h, which includes it.
 *
 * In: the whole text. Out: in the profile all that was recorded, the facts and figures of the recording, too. A file that
 * was cut off, or whose lines refer to what has not come before, is wrong.
 */
#ifndef IMPORT_JSONL_H
#define IMPORT_JSONL_H

/* All fields that a line may have; what is missing is zero. */
typedef struct import_row {
    pyprof_text type, format, kind, name, path, program, process, python;
    uint64_t version, sampling_bytes, id, parent, function, line, first_line, tid, pid, node, start_ns, duration_ns,
        interval_us;
    uint64_t samples, samples_idle, wall_ns, wall_idle_ns, cpu_ns, gil_ns, nodes, spans;
    uint64_t is_named, is_idle, has_gil; /* 1 = true */
    json_reader stats;                   /* where they stand; start NULL = nowhere */
} import_row;

typedef struct import_field {
    const char *name;
    size_t offset;
} import_field;

#define IMPORT_FIELD(type, name)                                                                                       \
    { #name, offsetof(type, name) }

typedef struct import_rows {
    pyprof__array functions; /* import_frame, without a line */
    pyprof__array numbers;   /* of threads and nodes: which pyprof_add_node gave */
    uint64_t spans;
    bool has_facts, has_end;
} import_rows;

static const import_field *import_find_field(const import_field *fields, size_t count, const json_text *key) {
    for (size_t i = 0; i < count; i++) {
        if (json_is(key, fields[i].name)) {
            return &fields[i];
        }
    }
    return NULL;
}

/* A number, or a word: true is 1. */
static bool import_row_number(json_reader *json, uint64_t *number) {
    char first = json_peek(json);
    if (first >= '0' && first <= '9') {
        return json_number(json, 0, number);
    }
    *number = first == 't';
    return json_skip(json);
}

static bool import_read_row(import *in, json_reader *json, import_row *row) {
    static const import_field texts[] = {IMPORT_FIELD(import_row, type),    IMPORT_FIELD(import_row, format),
                                         IMPORT_FIELD(import_row, name),    IMPORT_FIELD(import_row, path),
                                         IMPORT_FIELD(import_row, program), IMPORT_FIELD(import_row, process),
                                         IMPORT_FIELD(import_row, python),  IMPORT_FIELD(import_row, kind)};
    static const import_field numbers[] = {
        IMPORT_FIELD(import_row, version),     IMPORT_FIELD(import_row, id),
        IMPORT_FIELD(import_row, parent),      IMPORT_FIELD(import_row, function),
        IMPORT_FIELD(import_row, line),        IMPORT_FIELD(import_row, first_line),
        IMPORT_FIELD(import_row, tid),         IMPORT_FIELD(import_row, pid),
        IMPORT_FIELD(import_row, node),        IMPORT_FIELD(import_row, start_ns),
        IMPORT_FIELD(import_row, duration_ns), IMPORT_FIELD(import_row, interval_us),
        IMPORT_FIELD(import_row, samples),     IMPORT_FIELD(import_row, samples_idle),
        IMPORT_FIELD(import_row, wall_ns),     IMPORT_FIELD(import_row, wall_idle_ns),
        IMPORT_FIELD(import_row, cpu_ns),      IMPORT_FIELD(import_row, gil_ns),
        IMPORT_FIELD(import_row, nodes),       IMPORT_FIELD(import_row, spans),
        IMPORT_FIELD(import_row, is_named),    IMPORT_FIELD(import_row, is_idle),
        IMPORT_FIELD(import_row, has_gil),     IMPORT_FIELD(import_row, sampling_bytes)};
    json_text key;
    memset(row, 0, sizeof *row);
    for (json_enter(json, '{'); json_next(json, '}');) {
        const import_field *text = NULL, *number = NULL;
        if (json_key(json, &key)) {
            text = import_find_field(texts, sizeof texts / sizeof *texts, &key);
            number = import_find_field(numbers, sizeof numbers / sizeof *numbers, &key);
            row->stats = json_is(&key, "stats") ? *json : row->stats;
        }
        if (text != NULL) {
            (void)import_json_text(in, json, (pyprof_text *)(void *)((char *)row + text->offset));
        } else if (number != NULL) {
            (void)import_row_number(json, (uint64_t *)(void *)((char *)row + number->offset));
        } else {
            (void)json_skip(json);
        }
    }
    return json->wrong == NULL;
}

static bool import_row_stats(import *in, json_reader json, pyprof_stats *stats) {
    static const import_field fields[] = {IMPORT_FIELD(pyprof_stats, ticks),
                                          IMPORT_FIELD(pyprof_stats, ticks_missed),
                                          IMPORT_FIELD(pyprof_stats, samples),
                                          IMPORT_FIELD(pyprof_stats, samples_idle),
                                          IMPORT_FIELD(pyprof_stats, samples_signalled),
                                          IMPORT_FIELD(pyprof_stats, samples_partial),
                                          IMPORT_FIELD(pyprof_stats, lost_late),
                                          IMPORT_FIELD(pyprof_stats, lost_pending),
                                          IMPORT_FIELD(pyprof_stats, lost_unsettled),
                                          IMPORT_FIELD(pyprof_stats, lost_unreadable),
                                          IMPORT_FIELD(pyprof_stats, lost_memory),
                                          IMPORT_FIELD(pyprof_stats, truncated_depth),
                                          IMPORT_FIELD(pyprof_stats, truncated_memory),
                                          IMPORT_FIELD(pyprof_stats, frames_unresolved),
                                          IMPORT_FIELD(pyprof_stats, timeline_coarsened),
                                          IMPORT_FIELD(pyprof_stats, signals),
                                          IMPORT_FIELD(pyprof_stats, calls_interrupted),
                                          IMPORT_FIELD(pyprof_stats, threads),
                                          IMPORT_FIELD(pyprof_stats, bytes),
                                          IMPORT_FIELD(pyprof_stats, bytes_peak),
                                          IMPORT_FIELD(pyprof_stats, sampler_cpu_ns),
                                          IMPORT_FIELD(pyprof_stats, samples_unasked),
                                          IMPORT_FIELD(pyprof_stats, threads_unasked),
                                          IMPORT_FIELD(pyprof_stats, signal_changes),
                                          IMPORT_FIELD(pyprof_stats, samples_held),
                                          IMPORT_FIELD(pyprof_stats, holds_failed),
                                          IMPORT_FIELD(pyprof_stats, samples_jit)};
    json_text key;
    for (json_enter(&json, '{'); json_next(&json, '}');) {
        bool is_known = json_key(&json, &key);
        const import_field *field = is_known ? import_find_field(fields, sizeof fields / sizeof *fields, &key) : NULL;
        if (field != NULL) {
            (void)json_number(&json, 0, (uint64_t *)(void *)((char *)stats + field->offset));
        } else if (is_known && json_is(&key, "signal_number")) {
            (void)import_json_line(&json, &stats->signal_number);
        } else {
            (void)json_skip(&json);
        }
    }
    return json.wrong == NULL || import_fail(in, "%s", json.wrong);
}

static void import_copy_text(char *out, size_t room, const pyprof_text *text) {
    snprintf(out, room, "%.*s", (int)pyprof__min64(text->size, room - 1), text->data != NULL ? text->data : "");
}

static bool import_row_facts(import *in, import_rows *of, const import_row *row) {
    pyprof_facts *facts = &in->into->facts;
    if (of->has_facts || !import_is(&row->format, "pyprof-jsonl")) {
        return import_fail(in, "only the first line, and it, has to say \"format\": \"pyprof-jsonl\"");
    }
    bool is_heap = import_is(&row->kind, "heap"), is_time = row->kind.size == 0 || import_is(&row->kind, "time");
    if (row->version < 1 || row->version > 2 || (!is_heap && !is_time)) {
        return import_fail(in, "it is version %llu of the format, and 2 is known: take a newer pyprof-convert",
                           (unsigned long long)row->version);
    }
    facts->kind = is_heap ? PYPROF_KIND_HEAP : PYPROF_KIND_TIME;
    facts->sampling_bytes = row->sampling_bytes;
    of->has_facts = in->has_stats = true;
    import_copy_text(in->into->program, sizeof in->into->program, &row->program);
    import_copy_text(in->into->process, sizeof in->into->process, &row->process);
    import_copy_text(in->into->python, sizeof in->into->python, &row->python);
    facts->start_ns = row->start_ns;
    facts->duration_ns = row->duration_ns;
    facts->interval_us = row->interval_us <= UINT32_MAX ? (uint32_t)row->interval_us : 0;
    return row->stats.start == NULL || import_row_stats(in, row->stats, &facts->stats);
}

static int32_t import_int32(uint64_t number) {
    return number <= INT32_MAX ? (int32_t)number : 0;
}

static bool import_row_function(import *in, import_rows *of, const import_row *row) {
    if (row->id != of->functions.count) {
        return import_fail(in, "function %llu comes where %u is expected", (unsigned long long)row->id,
                           of->functions.count);
    }
    import_frame *function = (import_frame *)import_add(in, &of->functions);
    return function != NULL && import_make_frame(in, row->name, row->path, 0, row->first_line, function);
}

static bool import_row_figures(import *in, const import_row *row, pyprof_node *figures) {
    figures->samples = row->samples;
    figures->samples_idle = row->samples_idle;
    figures->wall_ns = row->wall_ns;
    figures->wall_idle_ns = row->wall_idle_ns;
    figures->cpu_ns = row->cpu_ns;
    figures->gil_ns = row->gil_ns;
    return row->samples_idle <= row->samples && row->wall_idle_ns <= row->wall_ns
               ? import_count(in, figures)
               : import_fail(in, "more is idle than there is");
}

/* A thread, which has no figures of its own, or a node below one. */
static bool import_row_node(import *in, import_rows *of, const import_row *row, bool is_thread) {
    pyprof_node figures = {0};
    if (row->id != of->numbers.count) {
        return import_fail(in, "node %llu comes where %u is expected", (unsigned long long)row->id, of->numbers.count);
    }
    if (!is_thread && (row->parent >= of->numbers.count || row->function >= of->functions.count)) {
        return import_fail(in, "its %s has not come before", row->parent >= of->numbers.count ? "parent" : "function");
    }
    uint32_t *number = (uint32_t *)import_add(in, &of->numbers);
    if (number == NULL || !import_row_figures(in, row, &figures)) {
        return false;
    }
    if (is_thread && (figures.samples | figures.wall_ns | figures.cpu_ns | figures.gil_ns) != 0) {
        return import_fail(in, "a thread has figures of its own, which only nodes below it can have");
    }
    if (is_thread) {
        in->into->has_threads = in->into->has_threads || !import_is(&row->name, IMPORT_ALL_THREADS);
        const pyprof_node thread = {.name = row->name,
                                    .tid = import_int32(row->tid),
                                    .is_named = row->is_named != 0,
                                    .process = row->process,
                                    .pid = import_int32(row->pid)};
        return import_add_thread(in, thread, number);
    }
    import_frame frame = PYPROF__ITEM(import_frame, &of->functions, row->function);
    frame.line = import_int32(row->line);
    return import_child(in, PYPROF__ITEM(uint32_t, &of->numbers, row->parent), &frame, &figures, number);
}

static bool import_row_span(import *in, import_rows *of, const import_row *row) {
    pyprof_span span = {.start_ns = row->start_ns, .wall_ns = row->wall_ns, .cpu_ns = row->cpu_ns};
    if (row->node >= of->numbers.count) {
        return import_fail(in, "its node has not come before");
    }
    if (row->samples > UINT32_MAX) {
        return import_fail(in, "a span has too many samples for 32 bits");
    }
    span.node = PYPROF__ITEM(uint32_t, &of->numbers, row->node);
    span.samples = (uint32_t)row->samples;
    span.is_idle = row->is_idle != 0;
    span.has_gil = row->has_gil != 0;
    of->spans++;
    return import_span(in, &span);
}

static bool import_row_end(import *in, import_rows *of, const import_row *row) {
    of->has_end = true;
    return (row->nodes == of->numbers.count && row->spans == of->spans) ||
           import_fail(in, "it should have %llu nodes and %llu spans, and has %u and %llu: lines are missing",
                       (unsigned long long)row->nodes, (unsigned long long)row->spans, of->numbers.count,
                       (unsigned long long)of->spans);
}

static bool import_row_by_type(import *in, import_rows *of, const import_row *row) {
    if (of->has_end) {
        return import_fail(in, "more lines follow the one that is the end");
    }
    if (import_is(&row->type, "facts") || !of->has_facts) {
        return import_row_facts(in, of, row);
    }
    if (import_is(&row->type, "function")) {
        return import_row_function(in, of, row);
    }
    if (import_is(&row->type, "thread") || import_is(&row->type, "node")) {
        return import_row_node(in, of, row, import_is(&row->type, "thread"));
    }
    if (import_is(&row->type, "span")) {
        return import_row_span(in, of, row);
    }
    return import_is(&row->type, "end") ? import_row_end(in, of, row)
                                        : import_fail(in, "a line is of a type that is not known");
}

static bool import_rows_of(import *in, import_rows *of) {
    import_row row;
    for (size_t at = 0; at < in->size;) {
        const char *stop = (const char *)memchr(in->text + at, '\n', in->size - at);
        size_t size = stop != NULL ? (size_t)(stop - in->text) - at : in->size - at;
        json_reader json = json_begin(in->text + at, size);
        in->line++;
        if (json_peek(&json) != '\0' && (!import_read_row(in, &json, &row) || !json_end(&json))) {
            return import_fail(in, "column %zu: %s", (size_t)(json.at - json.start) + 1, json.wrong);
        }
        if (json.at > json.start && *json.start == '{' && !import_row_by_type(in, of, &row)) {
            return false;
        }
        at += size + 1;
    }
    in->line = 0;
    return of->has_end || import_fail(in, "the file was cut off: its last line is not the one that is the end");
}

static bool import_jsonl_file(import *in) {
    import_rows of;
    memset(&of, 0, sizeof of);
    of.functions.item_size = sizeof(import_frame);
    of.numbers.item_size = sizeof(uint32_t);
    bool is_good = import_read_all(in) && import_rows_of(in, &of);
    pyprof__array_free(&in->memory, &of.functions);
    pyprof__array_free(&in->memory, &of.numbers);
    in->into->metrics = 15;
    in->into->has_times = of.spans > 0;
    return is_good;
}

#endif
