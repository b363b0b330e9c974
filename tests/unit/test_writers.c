/* >>writers, >>public: the figures of collapsed text and speedscope files, and that a visit finds what they say. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <inttypes.h>

#include "unit.h"
#include "workbench.h"

static void test_collapsed_values_sum_exactly(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        workbench bench;
        uint64_t random = seed, wall = 0, idle = 0, cpu = 0, gil = 0, samples = 0, samples_idle = 0;
        bench_open(&bench, 0);
        uint32_t tracks[3];
        for (int i = 0; i < 3; i++) {
            tracks[i] = add_track(&bench, i == 2 ? "same" : i == 1 ? "same" : "other");
        }
        for (int i = 0; i < 500; i++) {
            uint32_t track = tracks[unit_random(&random) % 3], node = PYPROF__NONE;
            for (uint64_t depth = unit_random(&random) % 6 + 1; depth > 0; depth--) {
                char name[16];
                snprintf(name, sizeof name, "f%u", (unsigned)(unit_random(&random) % 4));
                node = add_node(&bench, track, node, name, (int32_t)(unit_random(&random) % 3));
            }
            uint32_t kind = (uint32_t)(unit_random(&random) % 3);
            uint64_t add = unit_random(&random) % (i % 3 == 0 ? 700 : 5000); /* many below a microsecond */
            pyprof__add_time(bench.profile, track, node, kind, add, add / 3);
            pyprof__count_samples(bench.profile, track, node, kind, 1);
            wall += add;
            idle += kind == PYPROF__IDLE ? add : 0;
            gil += kind == PYPROF__GIL ? add : 0;
            cpu += add / 3;
            samples++;
            samples_idle += kind == PYPROF__IDLE;
        }
        const struct {
            pyprof_metric metric;
            bool include_idle;
            uint64_t expected;
        } cases[] = {
            {PYPROF_METRIC_WALL, true, (wall + 500) / 1000}, {PYPROF_METRIC_WALL, false, (wall - idle + 500) / 1000},
            {PYPROF_METRIC_CPU, false, (cpu + 500) / 1000},  {PYPROF_METRIC_GIL, true, (gil + 500) / 1000},
            {PYPROF_METRIC_SAMPLES, true, samples},          {PYPROF_METRIC_SAMPLES, false, samples - samples_idle},
        };
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            for (int variant = 0; variant < 4; variant++) {
                text_sink sink = {0};
                pyprof_output output = {.format = PYPROF_FORMAT_COLLAPSED,
                                        .metric = cases[i].metric,
                                        .detail = (pyprof_detail)(variant & 1),
                                        .include_idle = cases[i].include_idle,
                                        .merge_threads = (variant & 2) != 0};
                assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
                assert_int_equal(sum_of_lines(sink.text), cases[i].expected);
                assert_int_equal(strstr(sink.text, "thread same;") != NULL, !(variant & 2));
                text_sink_free(&sink);
            }
        }
        bench_close(&bench);
    }
}

/* The numbers of the next "key":[...] behind *at; an empty list inside counts as a number of its own kind. */
static uint64_t sum_of_weights(const char **at, uint64_t *end, size_t *weights, size_t *stacks) {
    uint64_t sum = 0;
    const char *next = strstr(*at, "\"samples\":[");
    assert_non_null(next);
    *stacks = 0;
    for (next += strlen("\"samples\":["); *next != ']' || next[-1] != ']'; next++) {
        if (*next == '[') {
            ++*stacks;
        }
        if (*next == ']' && *stacks == 0) {
            break;
        }
    }
    next = strstr(next, "\"weights\":[");
    assert_non_null(next);
    next += strlen("\"weights\":[");
    for (*weights = 0; *next != ']'; ++*weights) {
        char *behind;
        uint64_t weight = strtoull(next, &behind, 10);
        assert_ptr_not_equal(behind, next);
        assert_true(weight > 0);
        sum += weight;
        next = *behind == ',' ? behind + 1 : behind;
    }
    next = strstr(next, "\"endValue\":");
    assert_non_null(next);
    *end = strtoull(next + strlen("\"endValue\":"), NULL, 10);
    *at = next;
    return sum;
}

static void assert_tracks_aligned(workbench *bench) {
    for (int variant = 0; variant < 6; variant++) {
        text_sink sink = {0};
        pyprof_output output = {.format = PYPROF_FORMAT_SPEEDSCOPE,
                                .metric = (pyprof_metric)(variant / 2),
                                .detail = PYPROF_DETAIL_LINE,
                                .include_idle = (variant & 1) != 0};
        assert_int_equal(pyprof_write(bench->profile, &output, text_sink_write, &sink), PYPROF_OK);
        const char *at = sink.text;
        for (uint32_t i = 0; i < bench->profile->tracks.count; i++) {
            uint64_t end = 0;
            size_t weights, stacks;
            assert_int_equal(sum_of_weights(&at, &end, &weights, &stacks), bench->profile->duration_ns);
            assert_int_equal(end, bench->profile->duration_ns);
            assert_int_equal(weights, stacks);
        }
        text_sink_free(&sink);
    }
}

static void test_speedscope_tracks_are_aligned(void **state) {
    workbench bench;
    sums expected[3];
    (void)state;
    memset(expected, 0, sizeof expected);
    bench_open(&bench, 0);
    for (uint32_t i = 0; i < 3; i++) {
        add_track(&bench, "t");
    }
    add_track(&bench, "a thread that has nothing");
    fill_timeline(&bench, expected, 3, 300, 6);
    for (uint32_t i = 0; i < 3; i++) {
        if (bench.profile->duration_ns < expected[i].total) {
            bench.profile->duration_ns = expected[i].total;
        }
    }
    bench.profile->duration_ns += 5;
    assert_tracks_aligned(&bench);
    bench_close(&bench);
}

/* A thread that wakes up has used its CPU time in the half that is told to be busy: more than that half is long. */
static void test_speedscope_tracks_are_aligned_after_idling(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t");
    uint32_t a = add_node(&bench, track, PYPROF__NONE, "a", 1);
    uint32_t b = add_node(&bench, track, PYPROF__NONE, "b", 1);
    pyprof__thread thread = sampled_thread(track, a, PYPROF__IDLE, 1000 * MS, 0);
    for (uint32_t i = 1; i <= 10; i++) {
        uint32_t kind = i % 2 == 1 ? PYPROF__GIL : PYPROF__IDLE, node = i % 2 == 1 ? b : a;
        pyprof__share_time(bench.sampler, &thread, node, kind, (1000 + 10 * i) * MS, 9 * i * MS);
        thread.last.node = node;
        thread.last.kind = kind;
        thread.last.wall = (1000 + 10 * i) * MS;
        thread.last.cpu = 9 * i * MS;
    }
    bench.profile->duration_ns = 100 * MS;
    assert_in_range(pyprof__node_at(bench.profile, b)->cpu_ns, 85 * MS, 90 * MS);
    assert_tracks_aligned(&bench);
    bench_close(&bench);
}

static void test_stacks_have_no_empty_or_foreign_frames(void **state) {
    workbench bench;
    text_sink sink = {0};
    pyprof_output output = {.format = PYPROF_FORMAT_COLLAPSED,
                            .metric = PYPROF_METRIC_SAMPLES,
                            .detail = PYPROF_DETAIL_LINE,
                            .include_idle = true};
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "a;b");
    uint32_t f = add_node(&bench, track, PYPROF__NONE, "f", 3);
    uint32_t g = add_node(&bench, track, f, "g;\n", 9);
    pyprof__count_samples(bench.profile, track, g, 0, 1);
    pyprof__count_samples(bench.profile, track, f, 0, 1);
    pyprof__count_samples(bench.profile, track, pyprof__track_at(bench.profile, track)->truncated, 0, 1);
    assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
    assert_string_equal(sink.text, "thread a\\x3bb;[truncated] 1\n"
                                   "thread a\\x3bb;f (m.py:3) 1\n"
                                   "thread a\\x3bb;f (m.py:3);g\\x3b\\n (m.py:9) 1\n");
    text_sink_free(&sink);
    output.detail = PYPROF_DETAIL_FUNCTION;
    output.merge_threads = true;
    assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
    assert_string_equal(sink.text, "[truncated] 1\nf (m.py:1) 1\nf (m.py:1);g\\x3b\\n (m.py:1) 1\n");
    text_sink_free(&sink);
    bench_close(&bench);
}

static bool refuse_after(void *user, const void *data, size_t size) {
    size_t *left = (size_t *)user;
    (void)data;
    (void)size;
    return (*left)-- > 0;
}

static void test_writers_stop_when_told(void **state) {
    workbench bench;
    sums expected[1];
    (void)state;
    memset(expected, 0, sizeof expected);
    bench_open(&bench, 0);
    add_track(&bench, "t");
    fill_timeline(&bench, expected, 1, 5000, 4);
    for (int format = PYPROF_FORMAT_COLLAPSED; format <= PYPROF_FORMAT_SPEEDSCOPE; format++) {
        pyprof_output output = {.format = (pyprof_format)format,
                                .metric = PYPROF_METRIC_WALL,
                                .detail = PYPROF_DETAIL_LINE,
                                .include_idle = true};
        size_t left = 0;
        assert_int_equal(pyprof_write(bench.profile, &output, refuse_after, &left), PYPROF_ERROR_WRITE);
        assert_true(left == SIZE_MAX); /* not asked again */
        size_t blocks = bench.counts.blocks;
        for (size_t refused = 1; refused < 8; refused++) { /* and when there is no memory */
            text_sink sink = {0};
            bench.counts.calls = 0;
            bench.counts.refuse_call = refused;
            pyprof_result result = pyprof_write(bench.profile, &output, text_sink_write, &sink);
            assert_true(result == PYPROF_OK || (result == PYPROF_ERROR_MEMORY && sink.size == 0));
            assert_true(refused > 3 || result == PYPROF_ERROR_MEMORY);
            assert_int_equal(bench.counts.blocks, blocks);
            text_sink_free(&sink);
        }
        bench.counts.refuse_call = 0;
    }
    bench_close(&bench);
}

/* What was visited, as collapsed text; each node as the stack that it ends. */
typedef struct visited {
    text_sink sink;
    char *stacks[4096];
    uint32_t count;
    uint64_t unit, carry;
    pyprof_node sum;
    uint64_t ends[3]; /* of each track's last span */
    uint64_t spans_wall, spans_cpu, spans_idle, spans_samples;
    uint32_t calls_left;
} visited;

static bool visit_node(void *user, const pyprof_node *node) {
    visited *all = (visited *)user;
    char stack[1024] = "", line[1100];
    bool is_thread = node->parent == PYPROF_NO_NODE;
    assert_int_equal(node->number, all->count);
    assert_true(all->count < sizeof all->stacks / sizeof *all->stacks);
    assert_true(is_thread || node->parent < node->number);
    assert_int_equal(node->name.size, strlen(node->name.data));
    assert_int_equal(node->path.size, strlen(node->path.data));
    assert_string_equal(node->path.data + (node->path.size - node->file.size), node->file.data);
    if (!is_thread) {
        const char *callers = all->stacks[node->parent];
        snprintf(stack, sizeof stack, node->path.size > 0 ? "%s%s%s (%s:%d)" : "%s%s%s", callers,
                 callers[0] != '\0' ? ";" : "", node->name.data, node->file.data, (int)node->line);
    } else if (node->name.size > 0) {
        snprintf(stack, sizeof stack, node->tid != 0 ? "thread %s (%d)" : "thread %s", node->name.data, (int)node->tid);
    }
    all->stacks[all->count++] = strdup(stack);
    uint64_t value = node->value > 0 ? node->value + all->carry : 0;
    if (value >= all->unit && stack[0] != '\0') {
        snprintf(line, sizeof line, "%s %" PRIu64 "\n", stack, value / all->unit);
        text_sink_write(&all->sink, line, strlen(line));
    }
    all->carry = value == 0 ? all->carry : value % all->unit;
    all->sum.samples += node->samples;
    all->sum.samples_idle += node->samples_idle;
    all->sum.wall_ns += node->wall_ns;
    all->sum.wall_idle_ns += node->wall_idle_ns;
    all->sum.cpu_ns += node->cpu_ns;
    all->sum.gil_ns += node->gil_ns;
    return all->calls_left == 0 || --all->calls_left > 0;
}

static bool visit_span(void *user, const pyprof_span *span) {
    visited *all = (visited *)user;
    assert_true(span->thread < 3 && span->node < all->count);
    assert_true(span->start_ns >= all->ends[span->thread]);
    all->ends[span->thread] = span->start_ns + span->wall_ns;
    all->spans_wall += span->wall_ns;
    all->spans_cpu += span->cpu_ns;
    all->spans_idle += span->is_idle ? span->wall_ns : 0;
    all->spans_samples += span->samples;
    return all->calls_left == 0 || --all->calls_left > 0;
}

static void visited_free(visited *all) {
    for (uint32_t i = 0; i < all->count; i++) {
        free(all->stacks[i]);
    }
    text_sink_free(&all->sink);
}

/* A visit shows what the text has, whatever is asked for; and all that was counted. */
static void test_visit_is_what_is_written(void **state) {
    workbench bench;
    uint64_t random = 5;
    (void)state;
    bench_open(&bench, 0);
    const char *const names[] = {"other", "same", "same"};
    pyprof_node total;
    memset(&total, 0, sizeof total);
    for (uint32_t i = 0; i < 3; i++) {
        add_track(&bench, names[i]);
    }
    for (int i = 0; i < 600; i++) {
        uint32_t track = (uint32_t)(unit_random(&random) % 3), node = PYPROF__NONE;
        for (uint64_t depth = unit_random(&random) % 5 + 1; depth > 0; depth--) {
            const char *const functions[] = {"f", "g", "h"};
            node =
                add_node(&bench, track, node, functions[unit_random(&random) % 3], (int32_t)(unit_random(&random) % 3));
        }
        uint32_t kind = (uint32_t)(unit_random(&random) % 3);
        uint64_t add = unit_random(&random) % (i % 3 == 0 ? 700 : 5000);
        if (i % 50 == 0) {
            pyprof__add_absence(bench.profile, track, pyprof__track_at(bench.profile, track)->end_ns + 1000);
        }
        pyprof__add_time(bench.profile, track, node, kind, add, add / 3);
        pyprof__count_samples(bench.profile, track, node, kind, 1);
        total.samples++;
        total.samples_idle += kind == PYPROF__IDLE;
        total.wall_ns += add;
        total.wall_idle_ns += kind == PYPROF__IDLE ? add : 0;
        total.cpu_ns += add / 3;
        total.gil_ns += kind == PYPROF__GIL ? add : 0;
    }
    for (int variant = 0; variant < 32; variant++) {
        text_sink sink = {0};
        pyprof_output output = {.format = PYPROF_FORMAT_COLLAPSED,
                                .metric = (pyprof_metric)(variant & 3),
                                .detail = (pyprof_detail)(variant >> 2 & 1),
                                .include_idle = (variant & 8) != 0,
                                .merge_threads = (variant & 16) != 0};
        visited all;
        memset(&all, 0, sizeof all);
        all.unit = output.metric == PYPROF_METRIC_SAMPLES ? 1 : 1000;
        all.carry = all.unit / 2;
        pyprof_visitor visitor = {visit_node, visit_span, &all};
        assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
        assert_int_equal(pyprof_visit(bench.profile, &output, &visitor), PYPROF_OK);
        assert_string_equal(all.sink.text, sink.text);
        assert_memory_equal(&all.sum, &total, sizeof total);
        assert_int_equal(all.spans_wall, total.wall_ns);
        assert_int_equal(all.spans_cpu, total.cpu_ns);
        assert_int_equal(all.spans_idle, total.wall_idle_ns);
        assert_int_equal(all.spans_samples, total.samples);
        for (uint32_t i = 0; i < 3; i++) {
            assert_in_range(all.ends[i], 1, pyprof__track_at(bench.profile, i)->end_ns);
        }
        visited_free(&all);
        text_sink_free(&sink);
    }
    bench_close(&bench);
}

static void test_visit_stops_when_told(void **state) {
    workbench bench;
    sums expected[1];
    (void)state;
    memset(expected, 0, sizeof expected);
    bench_open(&bench, 0);
    add_track(&bench, "t");
    fill_timeline(&bench, expected, 1, 500, 4);
    size_t blocks = bench.counts.blocks;
    uint32_t nodes = bench.profile->nodes.items.count;
    for (uint32_t calls = 1; calls <= nodes + 3; calls++) { /* a node, or a span */
        visited all;
        memset(&all, 0, sizeof all);
        all.unit = 1;
        all.calls_left = calls;
        pyprof_visitor visitor = {visit_node, visit_span, &all};
        assert_int_equal(pyprof_visit(bench.profile, NULL, &visitor), PYPROF_ERROR_WRITE);
        assert_int_equal(all.calls_left, 0);
        assert_int_equal(all.count, calls < nodes ? calls : nodes);
        assert_int_equal(bench.counts.blocks, blocks);
        visited_free(&all);
    }
    for (size_t refused = 1; refused < 8; refused++) {
        pyprof_visitor visitor = {NULL, NULL, NULL};
        bench.counts.calls = 0;
        bench.counts.refuse_call = refused;
        pyprof_result result = pyprof_visit(bench.profile, NULL, &visitor);
        assert_true(result == PYPROF_ERROR_MEMORY || (refused > 3 && result == PYPROF_OK));
        assert_int_equal(bench.counts.blocks, blocks);
    }
    bench.counts.refuse_call = 0;
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collapsed_values_sum_exactly),
        cmocka_unit_test(test_speedscope_tracks_are_aligned),
        cmocka_unit_test(test_speedscope_tracks_are_aligned_after_idling),
        cmocka_unit_test(test_stacks_have_no_empty_or_foreign_frames),
        cmocka_unit_test(test_writers_stop_when_told),
        cmocka_unit_test(test_visit_is_what_is_written),
        cmocka_unit_test(test_visit_stops_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
