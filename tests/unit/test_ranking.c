/* >>ranking, >>tables, >>public: what pyprof_top says took most, against what collapsed text adds up to; and the table. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"
#include "workbench.h"

#include "subjects.h"

enum {
    MOST_ROWS = 256
};

typedef struct rows {
    pyprof_row items[MOST_ROWS];
    size_t count;
} rows;

static rows top_of(const pyprof_profile *profile, const pyprof_output *output) {
    rows top;
    top.count = MOST_ROWS;
    assert_int_equal(pyprof_top(profile, output, top.items, &top.count), PYPROF_OK);
    assert_true(top.count <= MOST_ROWS);
    return top;
}

static void assert_row(const pyprof_row *row, const char *name, const char *file, int32_t line, uint64_t self,
                       uint64_t total) {
    assert_string_equal(row->name.data, name);
    assert_string_equal(row->file.data, file);
    assert_int_equal(row->name.size, strlen(name));
    assert_int_equal(row->file.size, strlen(file));
    assert_string_equal(row->path.data + row->path.size - row->file.size, file);
    assert_int_equal(row->line, line);
    assert_int_equal(row->self, self);
    assert_int_equal(row->total, total);
}

/* wall: 100 and so on; CPU is half of it, rounded down; samples are tens of it. */
static void spend(workbench *bench, uint32_t track, uint32_t node, uint32_t kind, uint64_t wall) {
    pyprof__add_time(bench->profile, track, node, kind, wall, wall / 2);
    pyprof__count_samples(bench->profile, track, node, kind, (uint32_t)(wall / 10));
}

/*   main      f:3 100 -> update:4 200 -> f:5 50 -> f:6 10 (idle)      other      f (b.py):3 40 (no GIL)
               f:7 30                                                            update:4 5                        */
static void build(workbench *bench) {
    uint32_t track = add_track(bench, "main"), other = add_track(bench, "other");
    uint32_t root = pyprof__track_at(bench->profile, track)->root;
    uint32_t other_root = pyprof__track_at(bench->profile, other)->root;
    uint32_t f = add_subject(bench, root, &subjects[0], 3);
    uint32_t update = add_subject(bench, f, &subjects[2], 4);
    uint32_t again = add_subject(bench, update, &subjects[0], 5);
    spend(bench, track, f, PYPROF__GIL, 100);
    spend(bench, track, update, PYPROF__GIL, 200);
    spend(bench, track, again, PYPROF__GIL, 50);
    spend(bench, track, add_subject(bench, again, &subjects[0], 6), PYPROF__IDLE, 10);
    spend(bench, track, add_subject(bench, root, &subjects[0], 7), PYPROF__GIL, 30);
    spend(bench, other, add_subject(bench, other_root, &subjects[1], 3), 0, 40);
    spend(bench, other, add_subject(bench, other_root, &subjects[2], 4), PYPROF__GIL, 5);
}

static void test_functions(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    build(&bench);
    pyprof_output output = {.detail = PYPROF_DETAIL_FUNCTION};
    rows top = top_of(bench.profile, &output);
    assert_int_equal(top.count, 3);
    assert_row(&top.items[0], "Game.update", "a.py", 1, 205, 255); /* of both threads */
    assert_row(&top.items[1], "f", "a.py", 1, 180, 380);           /* once, though it is there twice */
    assert_row(&top.items[2], "f", "b.py", 1, 40, 40);             /* another one */
    assert_string_equal(top.items[2].path.data, "/srv/app/b.py");
    assert_int_equal(top.items[1].samples_self, 18);
    assert_int_equal(top.items[1].samples_total, 38);
    assert_true(top.items[1].self_share > 180.0 / 425 - 1e-9 && top.items[1].self_share < 180.0 / 425 + 1e-9);
    assert_true(top.items[1].total_share > 380.0 / 425 - 1e-9 && top.items[1].total_share < 380.0 / 425 + 1e-9);
    output.include_idle = true;
    top = top_of(bench.profile, &output);
    assert_row(&top.items[1], "f", "a.py", 1, 190, 390);
    assert_int_equal(top.items[1].samples_self, 19);
    assert_int_equal(top.items[1].samples_total, 39);
    bench_close(&bench);
}

static void test_lines(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    build(&bench);
    pyprof_output output = {.include_idle = true};
    rows top = top_of(bench.profile, &output);
    assert_int_equal(top.count, 6);
    assert_row(&top.items[0], "Game.update", "a.py", 4, 205, 265);
    assert_row(&top.items[1], "f", "a.py", 3, 100, 360);
    assert_row(&top.items[2], "f", "a.py", 5, 50, 60);
    assert_row(&top.items[3], "f", "b.py", 3, 40, 40);
    assert_row(&top.items[4], "f", "a.py", 7, 30, 30);
    assert_row(&top.items[5], "f", "a.py", 6, 10, 10);
    rows defaults = top_of(bench.profile, NULL);
    assert_int_equal(defaults.count, 5); /* line 6 only waited */
    bench_close(&bench);
}

static void test_each_metric(void **state) {
    static const struct {
        pyprof_metric metric;
        uint64_t self[3], total[3]; /* of update, f of a.py, f of b.py */
        size_t count;
    } cases[] = {
        {PYPROF_METRIC_WALL, {205, 180, 40}, {255, 380, 40}, 3},
        {PYPROF_METRIC_CPU, {102, 95, 20}, {132, 195, 20}, 3},
        {PYPROF_METRIC_GIL, {205, 180, 0}, {255, 380, 0}, 2},
        {PYPROF_METRIC_SAMPLES, {20, 18, 4}, {25, 38, 4}, 3},
    };
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    build(&bench);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pyprof_output output = {.metric = cases[i].metric, .detail = PYPROF_DETAIL_FUNCTION};
        rows top = top_of(bench.profile, &output);
        assert_int_equal(top.count, cases[i].count);
        assert_row(&top.items[0], "Game.update", "a.py", 1, cases[i].self[0], cases[i].total[0]);
        assert_row(&top.items[1], "f", "a.py", 1, cases[i].self[1], cases[i].total[1]);
        if (top.count > 2) {
            assert_row(&top.items[2], "f", "b.py", 1, cases[i].self[2], cases[i].total[2]);
        }
    }
    bench_close(&bench);
}

static bool is_in_order(const pyprof_row *one, const pyprof_row *other) {
    if (one->self != other->self || one->total != other->total) {
        return one->self != other->self ? one->self > other->self : one->total > other->total;
    }
    int name = strcmp(one->name.data, other->name.data), path = strcmp(one->path.data, other->path.data);
    return name != 0 ? name < 0 : path != 0 ? path < 0 : one->line < other->line;
}

/* What stacks add up to for a frame: where it is the innermost one, and where it is at all. */
static void add_up(const stacks *all, const char *frame, uint64_t *self, uint64_t *total) {
    *self = *total = 0;
    for (size_t i = 0; i < all->count; i++) {
        const stack *item = &all->items[i];
        bool is_there = false;
        for (size_t k = 1; k < item->depth; k++) {
            is_there = is_there || strcmp(item->frames[k], frame) == 0;
        }
        *total += is_there ? item->value : 0;
        *self += strcmp(item->frames[item->depth - 1], frame) == 0 ? item->value : 0;
    }
}

static size_t different_frames(const stacks *all) {
    static char seen[MOST_ROWS][64];
    size_t count = 0;
    for (size_t i = 0; i < all->count; i++) {
        for (size_t k = 1; k < all->items[i].depth; k++) {
            size_t at = 0;
            while (at < count && strcmp(seen[at], all->items[i].frames[k]) != 0) {
                at++;
            }
            if (at == count) {
                strcpy(seen[count++], all->items[i].frames[k]);
            }
        }
    }
    return count;
}

/* Whatever is asked for, rows are what collapsed text adds up to, to the microsecond; and so are their samples. */
static void test_rows_are_what_is_written(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 21, 700);
    for (unsigned variant = 0; variant < 64; variant++) {
        pyprof_output output = {.metric = (pyprof_metric)(variant & 3),
                                .detail = (pyprof_detail)(variant >> 2 & 1),
                                .include_idle = (variant & 8) != 0,
                                .only_mine = (variant & 16) != 0,
                                .interpreter = (variant & 32) != 0 ? "physics" : NULL};
        uint64_t unit = output.metric == PYPROF_METRIC_SAMPLES ? 1 : 1000;
        rows top = top_of(bench.profile, &output);
        stacks whole = written(bench.profile, &output);
        pyprof_output by_samples = output;
        by_samples.metric = PYPROF_METRIC_SAMPLES;
        stacks samples = written(bench.profile, &by_samples);
        assert_int_equal(top.count, different_frames(&whole));
        for (size_t i = 0; i < top.count; i++) {
            const pyprof_row *row = &top.items[i];
            char frame[128];
            uint64_t self, total;
            snprintf(frame, sizeof frame, row->file.size > 0 ? "%s (%s:%d)" : "%s", row->name.data, row->file.data,
                     (int)row->line);
            add_up(&whole, frame, &self, &total);
            assert_int_equal(row->self, self * unit);
            assert_int_equal(row->total, total * unit);
            add_up(&samples, frame, &self, &total);
            assert_int_equal(row->samples_self, self);
            assert_int_equal(row->samples_total, total);
            assert_true(i == 0 || is_in_order(&top.items[i - 1], row));
        }
        free(whole.items);
        free(samples.items);
    }
    bench_close(&bench);
}

static void test_order_is_certain(void **state) {
    static const char *const names[] = {"b", "ba", "a", "c", "aa"};
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t"), root = pyprof__track_at(bench.profile, track)->root;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        for (int32_t line = 2; line > 0; line--) {
            subject what = {names[i], line == 2 ? "/p/x.py" : "/p/y.py", "", ""};
            spend(&bench, track, add_subject(&bench, root, &what, line + 2), 0, 100);
            spend(&bench, track, add_subject(&bench, root, &what, line), 0, 100);
        }
    }
    rows top = top_of(bench.profile, NULL);
    assert_int_equal(top.count, 20);
    assert_row(&top.items[0], "a", "x.py", 2, 100, 100);
    assert_row(&top.items[1], "a", "x.py", 4, 100, 100);
    assert_row(&top.items[2], "a", "y.py", 1, 100, 100);
    assert_row(&top.items[3], "a", "y.py", 3, 100, 100);
    assert_row(&top.items[4], "aa", "x.py", 2, 100, 100);
    assert_row(&top.items[19], "c", "y.py", 3, 100, 100);
    bench_close(&bench);
}

static void test_room_for_fewer(void **state) {
    workbench bench;
    pyprof_row few[4];
    size_t count = 0;
    (void)state;
    bench_open(&bench, 0);
    build(&bench);
    assert_int_equal(pyprof_top(bench.profile, NULL, NULL, &count), PYPROF_OK);
    assert_int_equal(count, 5);
    memset(few, 0x55, sizeof few);
    count = 3;
    assert_int_equal(pyprof_top(bench.profile, NULL, few, &count), PYPROF_OK);
    assert_int_equal(count, 5);
    assert_row(&few[0], "Game.update", "a.py", 4, 205, 255);
    assert_row(&few[2], "f", "a.py", 5, 50, 50);
    assert_int_equal(few[3].self, UINT64_C(0x5555555555555555)); /* as it was */
    bench_close(&bench);
}

static void test_missing_arguments(void **state) {
    workbench bench;
    size_t count = 3;
    pyprof_row row;
    pyprof_output output = {.detail = (pyprof_detail)7};
    (void)state;
    bench_open(&bench, 0);
    assert_int_equal(pyprof_top(bench.profile, NULL, &row, NULL), PYPROF_ERROR_ARGUMENT);
    assert_non_null(strstr(pyprof_last_error(), "count is NULL"));
    assert_int_equal(pyprof_top(bench.profile, NULL, NULL, &count), PYPROF_ERROR_ARGUMENT);
    assert_non_null(strstr(pyprof_last_error(), "rows is NULL"));
    assert_int_equal(pyprof_top(NULL, NULL, &row, &count), PYPROF_ERROR_ARGUMENT);
    assert_non_null(strstr(pyprof_last_error(), "profile is NULL"));
    assert_int_equal(pyprof_top(bench.profile, &output, &row, &count), PYPROF_ERROR_ARGUMENT);
    assert_non_null(strstr(pyprof_last_error(), "output.detail is 7"));
    assert_int_equal(count, 3);
    count = 1;
    assert_int_equal(pyprof_top(bench.profile, NULL, &row, &count), PYPROF_OK); /* of an empty profile */
    assert_int_equal(count, 0);
    bench_close(&bench);
}

/* Names that only a filter made live as long as the profile, and are kept once, however often they are asked for. */
static void test_names_of_packages_live(void **state) {
    workbench bench;
    pyprof_output output = {.detail = PYPROF_DETAIL_FUNCTION, .only_mine = true};
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 22, 300);
    rows first = top_of(bench.profile, &output), second;
    size_t blocks = bench.counts.blocks, bytes = bench.counts.bytes;
    second = top_of(bench.profile, &output);
    assert_int_equal(bench.counts.blocks, blocks);
    assert_int_equal(bench.counts.bytes, bytes);
    assert_memory_equal(&first.items, &second.items, first.count * sizeof *first.items);
    size_t packages = 0;
    for (size_t i = 0; i < first.count; i++) {
        packages +=
            strcmp(first.items[i].name.data, "[json]") == 0 || strcmp(first.items[i].name.data, "[requests]") == 0;
    }
    assert_int_equal(packages, 2);
    pyprof_profile *copy = pyprof__profile_copy(bench.profile); /* has names of its own */
    second = top_of(copy, &output);
    pyprof_free(copy);
    assert_int_equal(bench.counts.blocks, blocks);
    bench_close(&bench); /* looks whether they are freed */
}

static void *ask_for_packages(void *profile) {
    pyprof_output output = {.only_mine = true};
    for (int i = 0; i < 50; i++) {
        rows top = top_of((const pyprof_profile *)profile, &output);
        assert_true(top.count > 3);
    }
    return NULL;
}

static void test_several_ask_at_once(void **state) {
    workbench bench;
    pthread_t threads[3];
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 23, 100);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_for_packages, bench.profile), 0);
    }
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    bench_close(&bench);
}

static void test_no_memory(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 24, 300);
    for (int variant = 0; variant < 2; variant++) {
        pyprof_output output = {.only_mine = variant == 1};
        size_t blocks = bench.counts.blocks, calls = bench.counts.calls, count = MOST_ROWS;
        pyprof_row row[MOST_ROWS];
        pyprof_profile *copy = pyprof__profile_copy(bench.profile);
        size_t with_copy = bench.counts.blocks;
        calls = bench.counts.calls;
        assert_int_equal(pyprof_top(copy, &output, row, &count), PYPROF_OK);
        calls = bench.counts.calls - calls;
        pyprof_free(copy);
        assert_int_equal(bench.counts.blocks, blocks);
        for (size_t refused = 1; refused <= calls; refused++) {
            memset(row, 0x55, sizeof row);
            count = MOST_ROWS;
            copy = pyprof__profile_copy(bench.profile); /* that has kept no names yet */
            bench.counts.calls = 0;
            bench.counts.refuse_from = refused;
            assert_int_equal(pyprof_top(copy, &output, row, &count), PYPROF_ERROR_MEMORY);
            assert_int_equal(count, MOST_ROWS);
            assert_int_equal(row[0].self, UINT64_C(0x5555555555555555));
            assert_true(bench.counts.blocks <= with_copy + 2); /* names that it could keep may stay */
            bench.counts.refuse_from = 0;
            pyprof_free(copy);
            assert_int_equal(bench.counts.blocks, blocks);
        }
    }
    bench_close(&bench);
}

/* ---- the table ---- */

static char *table_of(const pyprof_profile *profile, const pyprof_output *output) {
    text_sink sink = {0};
    pyprof_output table = *output;
    table.format = PYPROF_FORMAT_TABLE;
    assert_int_equal(pyprof_write(profile, &table, text_sink_write, &sink), PYPROF_OK);
    assert_non_null(sink.text);
    return sink.text;
}

static void test_table(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    build(&bench);
    for (uint32_t i = 0; i < bench.profile->nodes.items.count; i++) { /* 425 ms in all */
        pyprof__node *node = pyprof__node_at(bench.profile, i);
        node->wall_ns *= MS;
        node->wall_idle_ns *= MS;
        node->cpu_ns *= MS;
        node->gil_ns *= MS;
    }
    bench.profile->process_name = pyprof__intern_text(bench.profile, "game", 4);
    bench.profile->duration_ns = 12345 * MS;
    bench.profile->interval_us = 10000;
    bench.profile->stats.ticks_missed = 12;
    bench.profile->stats.lost_late = 3;
    pyprof_output output = {.metric = PYPROF_METRIC_WALL};
    char *text = table_of(bench.profile, &output);
    assert_string_equal(text, "game: 12.35 s at 100 Hz, 43 samples, 1 of threads that waited\n"
                              "       12  ticks missed: the sampler did not get the CPU in time\n"
                              "        3  samples lost: the thread had let the GIL go before the signal came\n"
                              "\n"
                              "functions by wall time, waiting left out: 425.000 ms\n"
                              "\n"
                              "  self ms         total ms         function\n"
                              "  205.000  48.2%   255.000  60.0%  Game.update (a.py:1)\n"
                              "  180.000  42.4%   380.000  89.4%  f (a.py:1)\n"
                              "   40.000   9.4%    40.000   9.4%  f (b.py:1)\n"
                              "\n"
                              "lines by wall time, waiting left out: 425.000 ms\n"
                              "\n"
                              "  self ms         total ms         line\n"
                              "  205.000  48.2%   255.000  60.0%  Game.update (a.py:4)\n"
                              "  100.000  23.5%   350.000  82.4%  f (a.py:3)\n"
                              "   50.000  11.8%    50.000  11.8%  f (a.py:5)\n"
                              "   40.000   9.4%    40.000   9.4%  f (b.py:3)\n"
                              "   30.000   7.1%    30.000   7.1%  f (a.py:7)\n"
                              "\n"
                              "threads, by the time in which they did not wait\n"
                              "\n"
                              "    wall ms waiting ms     CPU ms     GIL ms  thread\n"
                              "    390.000     10.000    195.000    380.000  main\n"
                              "     45.000      0.000     22.000      5.000  other\n");
    free(text);
    output.metric = PYPROF_METRIC_SAMPLES;
    output.merge_threads = true;
    output.thread = "main";
    output.min_share = 0.2;
    text = table_of(bench.profile, &output);
    assert_non_null(strstr(text, "only thread main\nless than 20.0% added to the caller\n"));
    assert_non_null(strstr(text,
                           "functions by samples, waiting left out: 38\n\n     self            total         function\n"
                           "       25  65.8%        25  65.8%  Game.update (a.py:1)\n"));
    assert_non_null(strstr(text, "  all threads\n"));
    free(text);
    bench_close(&bench);
}

/* Bytes that may be in a table: no line is wider than 80 columns, and nothing moves the cursor. */
static void assert_fits(const char *text) {
    for (const char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        if (pyprof__columns(line, (size_t)(end - line)) > 80) {
            fail_msg("too wide: %.*s", (int)(end - line), line);
        }
        for (const char *c = line; c < end; c++) {
            assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
        }
    }
}

static void test_table_fits(void **state) {
    static const char *const names[] = {
        "\x1b[31mred\x1b[0m",
        "a\nb\rc",
        "\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2"
        "\xe5\xad"
        "\x97\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc"
        "\xa2",
        "A.very.long.name.that.goes.on.and.on.until.there.is.no.room.left.for.it.and.then.ends",
        "e\xcc\x81",
        "\xff\xfe",
    };
    static const char *const files[] = {"/p/m.py",
                                        "/p/a_module_with_a_name_that_has_no_room_beside_anything_else_at_all.py",
                                        "/p/\xe6\xbc\xa2\xe5.py", ""};
    workbench bench;
    char *endless = (char *)calloc(1, 40001);
    (void)state;
    bench_open(&bench, 0);
    memset(endless, 0x1b, 40000);
    uint32_t track = PYPROF__NONE;
    for (size_t i = 0; i <= sizeof names / sizeof *names; i++) {
        const char *name = i < sizeof names / sizeof *names ? names[i] : endless;
        track = add_track(&bench, name);
        pyprof__track_at(bench.profile, track)->tid = 123456789;
        uint32_t root = pyprof__track_at(bench.profile, track)->root;
        for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
            subject what = {name, files[k], "", ""};
            uint32_t node = add_subject(&bench, root, &what, 123456);
            pyprof__add_time(bench.profile, track, node, PYPROF__GIL, (123 + i) * 1000 * MS, 5000 * MS);
            pyprof__count_samples(bench.profile, track, node, PYPROF__GIL, 1234567);
        }
    }
    bench.profile->process_name = pyprof__intern_text(bench.profile, endless, 40000);
    for (size_t i = 0; i + sizeof(uint64_t) <= offsetof(pyprof_stats, signal_number); i += sizeof(uint64_t)) {
        const uint64_t count = 123456789;
        memcpy((char *)&bench.profile->stats + i, &count, sizeof count);
    }
    bench.profile->interval_us = 50;
    for (unsigned variant = 0; variant < 8; variant++) {
        pyprof_output output = {.metric = (pyprof_metric)(variant & 3), .include_idle = (variant & 4) != 0};
        char *text = table_of(bench.profile, &output);
        assert_fits(text);
        assert_non_null(strstr(text, "... and "));
        assert_non_null(strstr(text, "then.ends"));
        free(text);
    }
    pyprof_output output = {.thread = endless, .file = endless, .function = endless, .interpreter = endless};
    char *text = table_of(bench.profile, &output);
    assert_fits(text);
    assert_non_null(strstr(text, "filters"));
    free(text);
    free(endless);
    bench_close(&bench);
}

static void test_table_of_nothing(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    pyprof_output output = {.metric = PYPROF_METRIC_WALL};
    char *text = table_of(bench.profile, &output);
    assert_fits(text);
    assert_non_null(strstr(text, "No thread ran Python"));
    free(text);
    uint32_t track = add_track(&bench, "t"), root = pyprof__track_at(bench.profile, track)->root;
    spend(&bench, track, add_subject(&bench, root, &subjects[0], 1), PYPROF__IDLE, 1000);
    text = table_of(bench.profile, &output);
    assert_non_null(strstr(text, "All threads only waited: include_idle shows where."));
    assert_non_null(strstr(text, "  t\n")); /* and who that was */
    free(text);
    bench_close(&bench);
}

static void test_table_without_memory(void **state) {
    workbench bench;
    pyprof_output output = {.format = PYPROF_FORMAT_TABLE};
    text_sink sink = {0};
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 25, 100);
    size_t blocks = bench.counts.blocks, calls = bench.counts.calls;
    assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
    text_sink_free(&sink);
    calls = bench.counts.calls - calls;
    for (size_t refused = 1; refused <= calls; refused++) {
        bench.counts.calls = 0;
        bench.counts.refuse_from = refused;
        assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_ERROR_MEMORY);
        assert_int_equal(bench.counts.blocks, blocks);
        text_sink_free(&sink);
    }
    bench.counts.refuse_from = 0;
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_each_metric),
        cmocka_unit_test(test_rows_are_what_is_written),
        cmocka_unit_test(test_order_is_certain),
        cmocka_unit_test(test_room_for_fewer),
        cmocka_unit_test(test_missing_arguments),
        cmocka_unit_test(test_names_of_packages_live),
        cmocka_unit_test(test_several_ask_at_once),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_table_fits),
        cmocka_unit_test(test_table_of_nothing),
        cmocka_unit_test(test_table_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
