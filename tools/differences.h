/* differences.h: two profiles compared: as a flame graph, and as a table. For pyprof-convert.c, behind pyprof.h's
 * implementation and flamegraph.h.
 *
 * A function is the same in both if its name and its file, as they are shown, are. In the table "self" is what it took
 * itself, "total" that with what it called, each stack counted once.
 */
#ifndef DIFFERENCES_H
#define DIFFERENCES_H

#include "flamegraph.h"
#include "pyprof.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is compared: [0] is the base, [1] the new one. */
typedef struct difference {
    const pyprof_profile *profiles[2];
    const char *names[2]; /* as who asks knows them */
    pyprof_output output; /* for both */
    bool is_absolute;     /* values, not shares of the whole */
} difference;

#define DIFFERENCE_ROWS 20 /* of each list in the table */

/* ---- the picture ---- */

/* A graph that the nodes of one profile are added to. */
typedef struct difference_graph {
    flamegraph *graph;
    pyprof__memory memory;
    pyprof__array frames; /* uint32_t: of the graph, by the numbers of the nodes */
    pyprof__out *out;     /* where a name is put together */
    pyprof__gathered name;
    bool is_base, has_lines;
} difference_graph;

/* The name of a node as collapsed text has it; without lines, where they would make different functions of one that has
   moved in its file. */
static void difference_put_name(difference_graph *to, const pyprof_node *node) {
    char line[24];
    to->name.bytes.count = 0;
    if (node->parent == PYPROF_NO_NODE) {
        pyprof__put_text(to->out, "thread ");
    }
    pyprof__put_collapsed(to->out, node->name.data, node->name.size);
    if (node->file.size > 0) {
        pyprof__put_text(to->out, " (");
        pyprof__put_collapsed(to->out, node->file.data, node->file.size);
        snprintf(line, sizeof line, to->has_lines ? ":%d)" : ")", (int)node->line);
        pyprof__put_text(to->out, line);
    }
    pyprof__flush(to->out);
}

/* A thread without a name is all threads: the graph's root. */
static bool difference_add_node(void *user, const pyprof_node *node) {
    difference_graph *to = (difference_graph *)user;
    flamegraph_figures own = {node->wall_ns, node->wall_idle_ns, node->cpu_ns,
                              node->gil_ns,  node->samples,      node->samples_idle};
    const uint32_t *frames = (const uint32_t *)to->frames.data;
    uint32_t parent = node->parent != PYPROF_NO_NODE ? frames[node->parent] : FLAMEGRAPH_ROOT, frame = parent;
    if (node->parent != PYPROF_NO_NODE || node->name.size > 0) {
        difference_put_name(to, node);
        frame = to->out->is_broken
                    ? FLAMEGRAPH_NONE
                    : flamegraph_add_frame(to->graph, parent, (const char *)to->name.bytes.data, to->name.bytes.count);
    }
    uint32_t at = frame != FLAMEGRAPH_NONE ? pyprof__array_add(&to->memory, &to->frames) : PYPROF__NONE;
    if (at == PYPROF__NONE) {
        return false;
    }
    PYPROF__ITEM(uint32_t, &to->frames, at) = frame;
    return frame == FLAMEGRAPH_ROOT || (to->is_base ? flamegraph_add_base(to->graph, frame, &own)
                                                    : flamegraph_add_figures(to->graph, frame, &own)) == FLAMEGRAPH_OK;
}

static bool difference_fill(const difference *of, difference_graph *to) {
    pyprof_visitor visitor = {.node = difference_add_node, .user = to};
    bool is_good = true;
    for (int i = 1; i >= 0 && is_good; i--) {
        to->is_base = i == 0;
        to->frames.count = 0;
        is_good = pyprof_visit(of->profiles[i], &of->output, &visitor) == PYPROF_OK;
    }
    return is_good;
}

/* A flame graph of the new one, coloured by how it differs from the base. False: no memory, or write answered false. */
static bool difference_draw(const difference *of, const flamegraph_options *look, pyprof_write_fn write, void *user) {
    static const flamegraph_metric metrics[] = {FLAMEGRAPH_WALL, FLAMEGRAPH_CPU, FLAMEGRAPH_GIL, FLAMEGRAPH_SAMPLES};
    difference_graph to = {.graph = flamegraph_create(), .frames = {.item_size = sizeof(uint32_t)}};
    flamegraph_options options = *look;
    char subtitle[600];
    to.memory.allocator = of->profiles[0]->memory.allocator;
    to.memory.limit = SIZE_MAX;
    to.name = (pyprof__gathered){&to.memory, {.item_size = 1}};
    to.has_lines = of->output.detail == PYPROF_DETAIL_LINE;
    to.out = (pyprof__out *)calloc(1, sizeof *to.out);
    bool is_good = to.out != NULL && to.graph != NULL;
    if (is_good) {
        to.out->write = pyprof__gather;
        to.out->user = &to.name;
        is_good = difference_fill(of, &to);
    }
    snprintf(subtitle, sizeof subtitle, "%.250s, compared with %.250s", of->names[1], of->names[0]);
    options.subtitle = look->subtitle != NULL ? look->subtitle : subtitle;
    options.unit = "ns";
    options.memory = of->profiles[1]->kind == PYPROF_KIND_HEAP;
    options.metric = metrics[of->output.metric];
    options.idle = of->output.include_idle;
    options.difference = of->is_absolute ? FLAMEGRAPH_ABSOLUTE : FLAMEGRAPH_SHARES;
    is_good = is_good && flamegraph_write(to.graph, &options, write, user) == FLAMEGRAPH_OK;
    flamegraph_free(to.graph);
    free(to.out);
    pyprof__array_free(&to.memory, &to.frames);
    pyprof__array_free(&to.memory, &to.name.bytes);
    return is_good;
}

/* ---- the table ---- */

/* A function, or a line of one. */
typedef struct difference_row {
    pyprof_text name, file;
    int32_t line;
    uint64_t values[2][2]; /* self and total, each of the base and the new one */
    double change;         /* by which it is ordered */
} difference_row;

typedef struct difference_table {
    difference_row *rows;
    size_t count;
    uint64_t whole[2];
    pyprof_write_fn write;
    void *user;
    bool is_broken;
} difference_table;

static int difference_compare_texts(const pyprof_text *one, const pyprof_text *other) {
    size_t size = one->size < other->size ? one->size : other->size;
    int order = size > 0 ? memcmp(one->data, other->data, size) : 0;
    return order != 0 ? order : (one->size > other->size) - (one->size < other->size);
}

static int difference_compare_names(const void *left, const void *right) {
    const difference_row *one = (const difference_row *)left, *other = (const difference_row *)right;
    int order = difference_compare_texts(&one->name, &other->name);
    order = order != 0 ? order : difference_compare_texts(&one->file, &other->file);
    return order != 0 ? order : (one->line > other->line) - (one->line < other->line);
}

/* The largest change first, whichever way it goes; equal ones by name. */
static int difference_compare_changes(const void *left, const void *right) {
    const difference_row *one = (const difference_row *)left, *other = (const difference_row *)right;
    double first = one->change < 0 ? -one->change : one->change;
    double second = other->change < 0 ? -other->change : other->change;
    int order = (first < second) - (first > second);
    return order != 0 ? order : difference_compare_names(left, right);
}

/* Adds the functions of one profile. */
static bool difference_add_rows(const difference *of, difference_table *table, int which) {
    size_t count = 0;
    if (pyprof_top(of->profiles[which], &of->output, NULL, &count) != PYPROF_OK) {
        return false;
    }
    pyprof_row *rows = (pyprof_row *)calloc(count + 1, sizeof *rows);
    difference_row *all = (difference_row *)realloc(table->rows, (table->count + count + 1) * sizeof *all);
    table->rows = all != NULL ? all : table->rows;
    bool is_good =
        rows != NULL && all != NULL && pyprof_top(of->profiles[which], &of->output, rows, &count) == PYPROF_OK;
    for (size_t i = 0; is_good && i < count; i++) {
        difference_row *row = &all[table->count++];
        memset(row, 0, sizeof *row);
        row->name = rows[i].name;
        row->file = rows[i].file;
        row->line = of->output.detail == PYPROF_DETAIL_LINE ? rows[i].line : 0;
        row->values[0][which] = rows[i].self;
        row->values[1][which] = rows[i].total;
        table->whole[which] += rows[i].self;
    }
    free(rows);
    return is_good;
}

/* Makes one row of those that are the same. */
static void difference_join_rows(difference_table *table) {
    size_t kept = 0;
    if (table->count > 0) {
        qsort(table->rows, table->count, sizeof *table->rows, difference_compare_names);
    }
    for (size_t i = 0; i < table->count; i++) {
        difference_row *last = kept > 0 ? &table->rows[kept - 1] : NULL;
        if (last == NULL || difference_compare_names(last, &table->rows[i]) != 0) {
            table->rows[kept++] = table->rows[i];
            continue;
        }
        for (int j = 0; j < 4; j++) {
            last->values[j / 2][j % 2] += table->rows[i].values[j / 2][j % 2];
        }
    }
    table->count = kept;
}

__attribute__((format(printf, 2, 3))) static void difference_print(difference_table *table, const char *format, ...) {
    char text[1024];
    va_list values;
    va_start(values, format);
    int size = vsnprintf(text, sizeof text, format, values);
    va_end(values);
    if (!table->is_broken && size > 0) {
        table->is_broken = !table->write(table->user, text, pyprof__min64((uint64_t)size, sizeof text - 1));
    }
}

/* How values are shown: shares in percent; times in s, or ms if all are short; samples. */
typedef struct difference_unit {
    const char *name;
    double factor[2]; /* of the base and the new one */
    int digits;
} difference_unit;

static difference_unit difference_unit_of(const difference *of, const difference_table *table) {
    difference_unit unit = {"%", {0, 0}, 1};
    uint64_t most = table->whole[0] > table->whole[1] ? table->whole[0] : table->whole[1];
    bool is_short = most < 10000000000u;
    for (int i = 0; i < 2; i++) {
        unit.factor[i] = table->whole[i] > 0 ? 100 / (double)table->whole[i] : 0;
    }
    if (of->is_absolute && pyprof__measure_of(of->profiles[1], of->output.metric) == PYPROF__SPACE) {
        bool is_large = most >= PYPROF__LARGE;
        double kib = 1.0 / 1024;
        unit = (difference_unit){is_large ? " KiB" : "", {is_large ? kib : 1, is_large ? kib : 1}, is_large ? 1 : 0};
    } else if (of->is_absolute && !pyprof__is_time(of->profiles[1], of->output.metric)) {
        unit = (difference_unit){"", {1, 1}, 0};
    } else if (of->is_absolute) {
        unit = (difference_unit){is_short ? " ms" : " s", {is_short ? 1e-6 : 1e-9, is_short ? 1e-6 : 1e-9}, 3};
    }
    return unit;
}

/* "name (file.py:LINE)" in what room a line of 80 columns leaves: shortened at its end, by characters. */
static void difference_print_name(difference_table *table, const difference_row *row, int room) {
    char text[512], line[24] = "";
    if (row->line > 0) {
        snprintf(line, sizeof line, ":%d", (int)row->line);
    }
    bool has_file = row->file.size > 0;
    snprintf(text, sizeof text, "%.*s%s%.*s%s%s", (int)pyprof__min64(row->name.size, 200), row->name.data,
             has_file ? " (" : "", (int)pyprof__min64(row->file.size, 200), has_file ? row->file.data : "",
             has_file ? line : "", has_file ? ")" : "");
    int columns = 0;
    size_t end = 0, cut = 0;
    for (; text[end] != '\0'; end++) {
        bool begins = ((unsigned char)text[end] & 0xc0) != 0x80;
        cut = begins && columns == room - 3 ? end : cut;
        columns += begins;
        text[end] = (unsigned char)text[end] < ' ' || text[end] == 0x7f ? '?' : text[end];
    }
    bool is_long = columns > room;
    difference_print(table, "%.*s%s\n", (int)(is_long ? cut : end), text, is_long ? "..." : "");
}

/* The list of what changed most, by self (0) or total (1). */
static void difference_print_list(const difference *of, difference_table *table, int by) {
    difference_unit unit = difference_unit_of(of, table);
    size_t shown = 0;
    for (size_t i = 0; i < table->count; i++) {
        difference_row *row = &table->rows[i];
        row->change = (double)row->values[by][1] * unit.factor[1] - (double)row->values[by][0] * unit.factor[0];
    }
    if (table->count > 0) {
        qsort(table->rows, table->count, sizeof *table->rows, difference_compare_changes);
    }
    difference_print(table, "\nby what they took %s\n\n%13s %13s %13s  %s\n",
                     by == 0 ? "themselves" : "with what they called", "base", "new", "change",
                     of->output.detail == PYPROF_DETAIL_LINE ? "line" : "function");
    for (; shown < table->count && shown < DIFFERENCE_ROWS && table->rows[shown].change != 0; shown++) {
        const difference_row *row = &table->rows[shown];
        int width = 13 - (int)strlen(unit.name);
        difference_print(table, "%*.*f%s %*.*f%s %+*.*f%s  ", width, unit.digits,
                         (double)row->values[by][0] * unit.factor[0], unit.name, width, unit.digits,
                         (double)row->values[by][1] * unit.factor[1], unit.name, width, unit.digits, row->change,
                         unit.name);
        difference_print_name(table, row, 80 - 43);
    }
    if (shown == 0) {
        difference_print(table, "%13s\n", "nothing");
    } else if (shown < table->count && table->rows[shown].change != 0) {
        difference_print(table, "%13s\n", "...");
    }
}

static void difference_print_head(const difference *of, difference_table *table) {
    static const char *const metrics[][4] = {
        {"wall time", "CPU time", "time with the GIL", "samples"},
        {"bytes in use", "bytes allocated", "objects allocated", "objects in use"}};
    pyprof_kind kind = of->profiles[1]->kind;
    const char *waiting = kind == PYPROF_KIND_HEAP || of->output.include_idle ||
                                  of->output.metric == PYPROF_METRIC_CPU || of->output.metric == PYPROF_METRIC_GIL
                              ? ""
                              : ", waiting left out";
    difference_print(table, "what changed most: %s%s%s\n", of->is_absolute ? "" : "shares of ",
                     metrics[kind][of->output.metric], waiting);
    for (int i = 0; i < 2; i++) {
        if (!pyprof__is_time(of->profiles[1], of->output.metric)) {
            difference_print(table, "  %s %" PRIu64 " in %.60s\n", i == 0 ? "base:" : "new: ", table->whole[i],
                             of->names[i]);
        } else {
            difference_print(table, "  %s %.3f s in %.60s\n", i == 0 ? "base:" : "new: ", (double)table->whole[i] / 1e9,
                             of->names[i]);
        }
    }
}

/* Text of 80 columns: the functions, or lines, that changed most. False: no memory, or write answered false. */
static bool difference_tabulate(const difference *of, pyprof_write_fn write, void *user) {
    difference_table table = {.write = write, .user = user};
    bool is_good = difference_add_rows(of, &table, 0) && difference_add_rows(of, &table, 1);
    if (is_good) {
        difference_join_rows(&table);
        difference_print_head(of, &table);
        difference_print_list(of, &table, 0);
        difference_print_list(of, &table, 1);
    }
    free(table.rows);
    return is_good && !table.is_broken;
}

#endif
