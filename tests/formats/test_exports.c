/* tools/exports.h by itself: which formats there are, what is refused and how that is said, that a picture with a look of the
   caller's is the one of pyprof_write, and memory: counted, refused, and given back. What is in the files: test_exports.py. */
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"

#include <stdlib.h>

/* Memory of exports.h: counted, and refused after some calls. */
static struct {
    size_t blocks;
    size_t bytes;
    size_t most;
    long calls;
    long allowed; /* -1 = all */
} held = {.allowed = -1};

static void *counted_realloc(void *old, size_t size);
static void counted_release(void *old);

#define EXPORTS_REALLOC(memory, size) counted_realloc(memory, size)
#define EXPORTS_FREE(memory) counted_release(memory)
#define EXPORTS_IMPLEMENTATION
#include "exports.h"

#include "../unit/unit.h"
#include "../unit/workbench.h"

#include "../unit/subjects.h"

enum {
    HEAD = 16 /* bytes before each block, which keep its size and its alignment */
};

static size_t size_of(const void *block) {
    size_t size = 0;
    if (block != NULL) {
        memcpy(&size, (const char *)block - HEAD, sizeof size);
    }
    return size;
}

static void *counted_realloc(void *old, size_t size) {
    size_t before = size_of(old);
    if (held.allowed >= 0 && held.calls++ >= held.allowed) {
        return NULL;
    }
    char *block = (char *)realloc(old != NULL ? (char *)old - HEAD : NULL, size + HEAD);
    assert_non_null(block);
    memcpy(block, &size, sizeof size);
    held.blocks += old == NULL;
    held.bytes += size - before;
    held.most = held.bytes > held.most ? held.bytes : held.most;
    return block + HEAD;
}

static void counted_release(void *old) {
    if (old != NULL) {
        held.blocks--;
        held.bytes -= size_of(old);
        free((char *)old - HEAD);
    }
}

/* ---- names ---- */

static void test_names_and_endings(void **state) {
    static const struct {
        const char *name;
        exports_format format;
    } names[] = {{"svg", EXPORTS_FORMAT_SVG},
                 {"FlameGraph", EXPORTS_FORMAT_SVG},
                 {"collapsed", EXPORTS_FORMAT_COLLAPSED},
                 {"raw", EXPORTS_FORMAT_COLLAPSED},
                 {"txt", EXPORTS_FORMAT_COLLAPSED},
                 {"folded", EXPORTS_FORMAT_COLLAPSED},
                 {"json", EXPORTS_FORMAT_SPEEDSCOPE},
                 {"speedscope", EXPORTS_FORMAT_SPEEDSCOPE},
                 {"pprof", EXPORTS_FORMAT_PPROF},
                 {"table", EXPORTS_FORMAT_TABLE},
                 {"PSTATS", EXPORTS_FORMAT_PSTATS},
                 {"firefox", EXPORTS_FORMAT_FIREFOX},
                 {"perfetto", EXPORTS_FORMAT_PERFETTO},
                 {"chrometrace", EXPORTS_FORMAT_PERFETTO},
                 {"jsonl", EXPORTS_FORMAT_JSONL},
                 {"ndjson", EXPORTS_FORMAT_JSONL},
                 {"", EXPORTS_FORMAT_NONE},
                 {"svg flamegraph", EXPORTS_FORMAT_NONE},
                 {"sv", EXPORTS_FORMAT_NONE},
                 {"svgz", EXPORTS_FORMAT_NONE}};
    static const struct {
        const char *path;
        exports_format format;
    } paths[] = {{"a.svg", EXPORTS_FORMAT_SVG},
                 {"b/a.json", EXPORTS_FORMAT_SPEEDSCOPE},
                 {"a.speedscope.json", EXPORTS_FORMAT_SPEEDSCOPE},
                 {"a.Firefox.JSON", EXPORTS_FORMAT_FIREFOX},
                 {"a.perfetto.json", EXPORTS_FORMAT_PERFETTO},
                 {"a.trace.json", EXPORTS_FORMAT_PERFETTO},
                 {"a.pb.gz", EXPORTS_FORMAT_PPROF},
                 {"a.pb", EXPORTS_FORMAT_PPROF_PLAIN},
                 {"a.pstats", EXPORTS_FORMAT_PSTATS},
                 {"a.prof", EXPORTS_FORMAT_PSTATS},
                 {"a.jsonl", EXPORTS_FORMAT_JSONL},
                 {"a.ndjson", EXPORTS_FORMAT_JSONL},
                 {"a.txt", EXPORTS_FORMAT_COLLAPSED},
                 {"a.folded", EXPORTS_FORMAT_COLLAPSED},
                 {"a.raw", EXPORTS_FORMAT_COLLAPSED},
                 {"a.collapsed", EXPORTS_FORMAT_COLLAPSED},
                 {"svg", EXPORTS_FORMAT_NONE},
                 {"a.gz", EXPORTS_FORMAT_NONE},
                 {"", EXPORTS_FORMAT_NONE},
                 {"a.table", EXPORTS_FORMAT_NONE}};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(exports_format_of_name(names[i].name), names[i].format);
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_int_equal(exports_format_of_path(paths[i].path), paths[i].format);
    }
}

static void test_name_and_ending_together(void **state) {
    (void)state;
    assert_int_equal(exports_choose("a.svg", EXPORTS_FORMAT_NONE), EXPORTS_FORMAT_SVG);
    assert_int_equal(exports_choose("a.what", EXPORTS_FORMAT_PSTATS), EXPORTS_FORMAT_PSTATS);
    assert_int_equal(exports_choose("a.what", EXPORTS_FORMAT_NONE), EXPORTS_FORMAT_NONE);
    assert_int_equal(exports_choose("a.pb", EXPORTS_FORMAT_PPROF), EXPORTS_FORMAT_PPROF_PLAIN);
    assert_int_equal(exports_choose("a.txt", EXPORTS_FORMAT_TABLE), EXPORTS_FORMAT_TABLE);
    assert_int_equal(exports_choose("a.json", EXPORTS_FORMAT_FIREFOX), EXPORTS_FORMAT_FIREFOX);
    assert_int_equal(exports_choose("a.json", EXPORTS_FORMAT_PERFETTO), EXPORTS_FORMAT_PERFETTO);
    assert_int_equal(exports_choose("a.firefox.json", EXPORTS_FORMAT_PERFETTO), EXPORTS_FORMAT_NONE);
    assert_int_equal(exports_choose("a.svg", EXPORTS_FORMAT_PSTATS), EXPORTS_FORMAT_NONE);
    assert_int_equal(exports_choose("a.jsonl", EXPORTS_FORMAT_FIREFOX), EXPORTS_FORMAT_NONE);
}

/* Each format is in the list, once, and its own name and endings mean it. */
static void test_lists(void **state) {
    size_t count;
    const exports_info *infos = exports_formats(&count);
    char text[256], small[8];
    text_sink help = {0};
    (void)state;
    assert_int_equal(count, EXPORTS_FORMAT_JSONL);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(infos[i].format, i + 1);
        assert_int_equal(strncmp(infos[i].names, exports_name(infos[i].format), strlen(exports_name(infos[i].format))),
                         0);
    }
    assert_string_equal(exports_name(EXPORTS_FORMAT_NONE), "");
    assert_string_equal(exports_list(text, sizeof text),
                        "svg, collapsed, speedscope, pprof, table, pstats, firefox, perfetto or jsonl");
    assert_string_equal(exports_list(small, sizeof small), "svg, co");
    assert_true(exports_help(text_sink_write, &help));
    assert_non_null(
        strstr(help.text, "  pstats      .pstats .prof                 Python's pstats, gprof2dot, snakeviz\n"));
    text_sink_free(&help);
}

/* ---- what is refused ---- */

static bool refuse_to_write(void *user, const void *data, size_t size) {
    (void)data;
    (void)size;
    return --*(int *)user > 0;
}

static void test_wrong_use(void **state) {
    workbench bench;
    text_sink out = {0};
    pyprof_output output = {.metric = PYPROF_METRIC_SAMPLES};
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 1, 10);
    assert_int_equal(exports_write(NULL, NULL, EXPORTS_FORMAT_JSONL, text_sink_write, &out), PYPROF_ERROR_ARGUMENT);
    assert_string_equal(exports_last_error(), "exports_write: profile is NULL: it has to come from pyprof.h");
    assert_int_equal(exports_write(bench.profile, NULL, EXPORTS_FORMAT_JSONL, NULL, &out), PYPROF_ERROR_ARGUMENT);
    assert_string_equal(exports_last_error(),
                        "exports_write: write is NULL: it has to be the function that takes the output");
    assert_int_equal(exports_write(bench.profile, NULL, EXPORTS_FORMAT_NONE, text_sink_write, &out),
                     PYPROF_ERROR_FORMAT);
    assert_string_equal(exports_last_error(),
                        "exports_write: format is 0: it has to be an EXPORTS_FORMAT_ other than NONE");
    assert_int_equal(exports_write(bench.profile, NULL, (exports_format)99, text_sink_write, &out),
                     PYPROF_ERROR_FORMAT);
    assert_int_equal(exports_write(bench.profile, &output, EXPORTS_FORMAT_PSTATS, text_sink_write, &out),
                     PYPROF_ERROR_ARGUMENT);
    assert_string_equal(exports_last_error(), "pstats has seconds: the metric has to be wall, cpu or gil; samples are "
                                              "in its call counts");
    output.metric = (pyprof_metric)7;
    for (int format = EXPORTS_FORMAT_SVG; format <= EXPORTS_FORMAT_JSONL; format++) {
        assert_int_equal(exports_write(bench.profile, &output, (exports_format)format, text_sink_write, &out),
                         PYPROF_ERROR_ARGUMENT);
        assert_string_equal(exports_last_error(), "output.metric is 7: it has to be a PYPROF_METRIC_");
    }
    bench_close(&bench);
}

/* Whatever piece it is that cannot be written. */
static void test_write_that_fails(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 1, 300);
    for (int format = EXPORTS_FORMAT_SVG; format <= EXPORTS_FORMAT_JSONL; format++) {
        pyprof_result result = PYPROF_ERROR_WRITE;
        int pieces;
        for (pieces = 1; result == PYPROF_ERROR_WRITE; pieces++) {
            int left = pieces;
            result = exports_write(bench.profile, NULL, (exports_format)format, refuse_to_write, &left);
            if (result == PYPROF_ERROR_WRITE) {
                assert_string_equal(exports_last_error(), "the write function answered false");
                assert_int_equal(left, 0);
            }
            assert_int_equal(held.blocks, 0);
        }
        assert_int_equal(result, PYPROF_OK);
        assert_true(pieces > 2);
    }
    bench_close(&bench);
}

/* ---- memory ---- */

/* Each allocation in turn is refused; in the end there is enough for all. */
static void test_no_memory(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 1, 300);
    for (int format = EXPORTS_FORMAT_PSTATS; format <= EXPORTS_FORMAT_JSONL; format++) {
        pyprof_result result = PYPROF_ERROR_MEMORY;
        long allowed;
        for (allowed = 0; result == PYPROF_ERROR_MEMORY; allowed++) {
            text_sink out = {0};
            char expected[128];
            held.calls = 0;
            held.allowed = allowed;
            result = exports_write(bench.profile, NULL, (exports_format)format, text_sink_write, &out);
            held.allowed = -1;
            snprintf(expected, sizeof expected, "no memory to write the profile as %s: the allocator gave nothing",
                     exports_name((exports_format)format));
            if (result == PYPROF_ERROR_MEMORY) {
                assert_string_equal(exports_last_error(), expected);
            }
            assert_int_equal(held.blocks, 0);
            assert_int_equal(held.bytes, 0);
            text_sink_free(&out);
        }
        assert_int_equal(result, PYPROF_OK);
        assert_true(allowed > 5);
    }
    bench_close(&bench);
}

/* What pyprof.h has no memory for is told in its own words. */
static void test_no_memory_in_the_profile(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 1, 300);
    for (int format = EXPORTS_FORMAT_SVG; format <= EXPORTS_FORMAT_JSONL; format++) {
        text_sink out = {0};
        bench.counts.refuse_from = bench.counts.calls + 1;
        assert_int_equal(exports_write(bench.profile, NULL, (exports_format)format, text_sink_write, &out),
                         PYPROF_ERROR_MEMORY);
        assert_non_null(strstr(exports_last_error(), "no memory to write the profile: memory_limit ("));
        assert_int_equal(held.blocks, 0);
        text_sink_free(&out);
    }
    bench.counts.refuse_from = 0;
    bench_close(&bench);
}

static pyprof_profile *wide_profile(uint32_t nodes) {
    static const pyprof_text path = {"/no/such/m.py", 13};
    pyprof_profile *profile;
    pyprof_node node = {.parent = PYPROF_NO_NODE, .name = {"MainThread", 10}, .tid = 1, .is_named = true};
    uint32_t thread, parent = 0;
    assert_int_equal(pyprof_make(NULL, 0, NULL, &profile), PYPROF_OK);
    assert_int_equal(pyprof_add_node(profile, &node, &thread), PYPROF_OK);
    for (uint32_t i = 0; i < nodes; i++) {
        char name[32];
        uint32_t function = i % 100 == 0 ? 1000 + i / 100 : i % 1000; /* no two stacks have the same functions */
        node.parent = i % 100 == 0 ? thread : parent;
        node.name.data = name;
        node.name.size = (size_t)snprintf(name, sizeof name, "function_%u", (unsigned)function);
        node.path = path;
        node.line = (int32_t)i + 1;
        node.first_line = (int32_t)function + 1;
        node.samples = node.wall_ns = 1;
        assert_int_equal(pyprof_add_node(profile, &node, &parent), PYPROF_OK);
        const pyprof_span span = {.node = parent, .start_ns = i, .wall_ns = 1, .samples = 1};
        assert_int_equal(pyprof_add_span(profile, &span), PYPROF_OK);
    }
    return profile;
}

static bool drop(void *user, const void *data, size_t size) {
    (void)user;
    (void)data;
    (void)size;
    return true;
}

/* 200,000 nodes and spans, each of its own: as much as the top of the file says, and jsonl keeps only functions. */
static void test_memory_is_bounded(void **state) {
    const uint32_t nodes = 200000;
    pyprof_profile *profile = wide_profile(nodes);
    (void)state;
    for (int format = EXPORTS_FORMAT_PSTATS; format <= EXPORTS_FORMAT_JSONL; format++) {
        held.most = 0;
        assert_int_equal(exports_write(profile, NULL, (exports_format)format, drop, NULL), PYPROF_OK);
        print_message("%s: %zu bytes a node with a span\n", exports_name((exports_format)format), held.most / nodes);
        assert_in_range(held.most / nodes, 0, format == EXPORTS_FORMAT_JSONL ? 2 : 300);
        assert_int_equal(held.blocks, 0);
    }
    pyprof_free(profile);
}

/* ---- pictures ---- */

static text_sink drawn(const pyprof_profile *profile, const pyprof_output *output, const flamegraph_options *look) {
    text_sink out = {0};
    assert_int_equal(exports_draw(profile, output, look, text_sink_write, &out), PYPROF_OK);
    return out;
}

static void test_pictures_agree(void **state) {
    (void)state;
    for (unsigned variant = 0; variant < 64; variant++) {
        workbench bench;
        text_sink expected = {0};
        pyprof_output output = {.format = PYPROF_FORMAT_SVG,
                                .metric = (pyprof_metric)(variant & 3),
                                .detail = (pyprof_detail)(variant >> 2 & 1),
                                .include_idle = (variant & 8) != 0,
                                .merge_threads = (variant & 16) != 0,
                                .interpreter = (variant & 32) != 0 ? "physics" : NULL};
        bench_open(&bench, 0);
        fill(&bench, variant, 100);
        bench.profile->stats.samples = 100;
        bench.profile->stats.lost_late = 3;
        assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &expected), PYPROF_OK);
        text_sink found = drawn(bench.profile, &output, NULL);
        assert_int_equal(found.size, expected.size);
        assert_memory_equal(found.text, expected.text, found.size);
        text_sink_free(&found);
        text_sink_free(&expected);
        bench_close(&bench);
    }
    assert_int_equal(held.blocks, 0);
}

static void test_look(void **state) {
    workbench bench;
    flamegraph_options look = {.title = "A title",
                               .subtitle = "below it",
                               .width = 900,
                               .inverted = true,
                               .threads = true,
                               .empty = "nobody was here",
                               .facts = {.program = "a program", .python = "9.9"}};
    (void)state;
    bench_open(&bench, 0);
    text_sink empty = drawn(bench.profile, NULL, &look);
    assert_non_null(strstr(empty.text, "nobody was here"));
    fill(&bench, 3, 50);
    text_sink out = drawn(bench.profile, NULL, &look);
    assert_non_null(strstr(out.text, "A title"));
    assert_non_null(strstr(out.text, "below it"));
    assert_non_null(strstr(out.text, "a program"));
    assert_non_null(strstr(out.text, "9.9"));
    assert_non_null(strstr(out.text, "width=\"900\""));
    assert_int_equal(exports_draw(NULL, NULL, NULL, text_sink_write, &out), PYPROF_ERROR_ARGUMENT);
    int none = 1;
    assert_int_equal(exports_draw(bench.profile, NULL, NULL, refuse_to_write, &none), PYPROF_ERROR_WRITE);
    for (long allowed = 0; allowed < 4; allowed++) {
        held.calls = 0;
        held.allowed = allowed;
        assert_int_equal(exports_draw(bench.profile, NULL, NULL, drop, NULL), PYPROF_ERROR_MEMORY);
        held.allowed = -1;
        assert_string_equal(exports_last_error(), "no memory to write the profile as svg: the allocator gave nothing");
        assert_int_equal(held.blocks, 0);
    }
    text_sink_free(&empty);
    text_sink_free(&out);
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names_and_endings),
                                       cmocka_unit_test(test_name_and_ending_together),
                                       cmocka_unit_test(test_lists),
                                       cmocka_unit_test(test_wrong_use),
                                       cmocka_unit_test(test_write_that_fails),
                                       cmocka_unit_test(test_no_memory),
                                       cmocka_unit_test(test_no_memory_in_the_profile),
                                       cmocka_unit_test(test_memory_is_bounded),
                                       cmocka_unit_test(test_pictures_agree),
                                       cmocka_unit_test(test_look)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
