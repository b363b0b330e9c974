/* >>filters: that what passes a filter is what it says, no more and no less; by the text that comes without one. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <math.h>

#include "unit.h"
#include "workbench.h"

#include "subjects.h"

/* What one run of the test asks for, said twice: as a filter, and as what the stacks look like that pass. */
typedef struct asked {
    const char *thread, *interpreter, *file, *function;
    const char *threads; /* what passes: of the names above, those whose digit is here; NULL = all */
    const char *mark;    /* the innermost mark begins so; "" = there is none, or that of the main one; NULL = any */
    const char *frame_begins; /* one frame begins so, or as the next */
    const char *or_begins;
} asked;

static bool passes(const stack *item, const asked *what, bool has_thread) {
    const char *innermost = "";
    bool is_on_it = what->frame_begins == NULL;
    for (size_t i = has_thread ? 1 : 0; i < item->depth; i++) {
        const char *frame = item->frames[i];
        innermost = frame[0] == '[' ? frame : innermost;
        is_on_it = is_on_it || strncmp(frame, what->frame_begins, strlen(what->frame_begins)) == 0 ||
                   (what->or_begins != NULL && strncmp(frame, what->or_begins, strlen(what->or_begins)) == 0);
    }
    bool is_there = what->mark == NULL || (what->mark[0] != '\0' && strcmp(innermost, what->mark) == 0) ||
                    (what->mark[0] == '\0' && (innermost[0] == '\0' || strcmp(innermost, "[interpreter 0]") == 0));
    bool is_thread = what->threads == NULL;
    for (size_t i = 0; i < 3 && has_thread && !is_thread; i++) {
        is_thread = strchr(what->threads, (int)('0' + i)) != NULL &&
                    strcmp(item->frames[0] + strlen("thread "), thread_names[i]) == 0;
    }
    return is_on_it && is_there && is_thread;
}

static const asked all_asked[] = {
    {.thread = "MainThread", .threads = "0"},
    {.thread = "Thread-*", .threads = "12"},
    {.thread = "*T*d*", .threads = "012"},
    {.thread = "Thread", .threads = ""},
    {.thread = "mainthread", .threads = ""},
    {.interpreter = "0", .mark = ""},
    {.interpreter = "main", .mark = ""},
    {.interpreter = "1", .mark = "[interpreter 1: physics]"},
    {.interpreter = "physics", .mark = "[interpreter 1: physics]"},
    {.interpreter = "ph*s", .mark = "[interpreter 1: physics]"},
    {.interpreter = "12", .mark = "[interpreter 12]"},
    {.interpreter = "2", .mark = "none"},
    {.file = "/srv/app/a", .frame_begins = "f (a.py", .or_begins = "Game.update (a.py"},
    {.file = "*/python3.11/json/l", .frame_begins = "loads ("},
    {.file = "srv", .frame_begins = "none"},
    {.function = "f", .frame_begins = "f (a.py", .or_begins = "f (b.py"},
    {.function = "Game.*", .frame_begins = "Game.update ("},
    {.function = "update", .frame_begins = "none"},
    {.function = "[interpreter 12]", .frame_begins = "[interpreter 12]"},
    {.file = "/srv/app/b", .function = "f", .frame_begins = "f (b.py"}, /* one frame is both */
    {.file = "/srv/app/b", .function = "Game.update", .frame_begins = "none"},
    {.thread = "MainThread", .function = "f", .threads = "0", .frame_begins = "f ("},
    {.thread = "*-1", .interpreter = "1", .threads = "1", .mark = "[interpreter 1: physics]"},
    {.interpreter = "main", .file = "/srv/app/b", .mark = "", .frame_begins = "f (b.py"},
    {.thread = "", .interpreter = "", .file = "", .function = ""},
    {.thread = "*", .interpreter = "*", .file = "/srv/app/a", .function = "f", .frame_begins = "f (a.py"},
};

static bool is_none(const asked *what) {
    return (what->threads != NULL && what->threads[0] == '\0') ||
           (what->mark != NULL && strcmp(what->mark, "none") == 0) ||
           (what->frame_begins != NULL && strcmp(what->frame_begins, "none") == 0);
}

static pyprof_output filtered(const asked *what) {
    pyprof_output output = {.thread = what->thread,
                            .interpreter = what->interpreter,
                            .file = what->file,
                            .function = what->function,
                            .include_idle = true};
    return output;
}

static void assert_same_stacks(stacks *one, stacks *other) {
    settle(one);
    settle(other);
    assert_int_equal(one->count, other->count);
    for (size_t i = 0; i < one->count; i++) {
        for (size_t depth = 0; depth < MOST_DEPTH; depth++) {
            assert_string_equal(one->items[i].frames[depth], other->items[i].frames[depth]);
        }
        assert_int_equal(one->items[i].value, other->items[i].value);
    }
}

/* Each filter alone, and several together, in each metric and detail: what is left is the stacks that look so. */
static void test_what_passes(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 11, 200);
    for (size_t i = 0; i < sizeof all_asked / sizeof *all_asked; i++) {
        for (unsigned variant = 0; variant < 32; variant++) {
            pyprof_output output = filtered(&all_asked[i]);
            output.metric = (pyprof_metric)(variant & 3);
            output.detail = (pyprof_detail)(variant >> 2 & 1);
            output.include_idle = (variant & 8) != 0;
            output.merge_threads = (variant & 16) != 0 && all_asked[i].threads == NULL;
            stacks shown = written(bench.profile, &output), expected;
            pyprof_output all = {.metric = output.metric,
                                 .detail = output.detail,
                                 .include_idle = output.include_idle,
                                 .merge_threads = output.merge_threads};
            stacks whole = written(bench.profile, &all);
            expected = whole;
            expected.count = 0;
            for (size_t k = 0; k < whole.count; k++) {
                if (passes(&whole.items[k], &all_asked[i], !output.merge_threads)) {
                    expected.items[expected.count++] = whole.items[k];
                }
            }
            assert_true(expected.count > 0 || is_none(&all_asked[i]));
            assert_same_stacks(&shown, &expected);
            free(shown.items);
            free(whole.items);
        }
    }
    bench_close(&bench);
}

static void test_names_that_pass(void **state) {
    static const struct {
        const char *pattern, *text;
        bool is_whole, is_prefix;
    } cases[] = {
        {"", "", true, true},         {"", "a", false, true},        {"a", "", false, false},
        {"*", "", true, true},        {"*", "abc", true, true},      {"**", "abc", true, true},
        {"abc", "abc", true, true},   {"ab", "abc", false, true},    {"abcd", "abc", false, false},
        {"a*c", "abc", true, true},   {"a*c", "abcd", false, true},  {"a*c", "acbc", true, true},
        {"*bc", "abcbc", true, true}, {"*b*d", "abcbd", true, true}, {"*b*d", "abcb", false, false},
        {"a*", "ba", false, false},   {"*a", "*a", true, true},      {"a**b", "ab", true, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size = strlen(cases[i].text);
        assert_int_equal(pyprof__matches(cases[i].pattern, false, cases[i].text, size), cases[i].is_whole);
        assert_int_equal(pyprof__matches(cases[i].pattern, true, cases[i].text, size), cases[i].is_prefix);
    }
    assert_false(pyprof__matches("a", false, "a\0b", 3));
    assert_true(pyprof__matches("a*b", false, "a\0b", 3));
}

/* One that goes back to each star would not end in the age of the universe. */
static void test_pathological_pattern(void **state) {
    enum {
        SIZE = 20000
    };
    char *text = (char *)malloc(SIZE), pattern[2 * 100 + 2];
    (void)state;
    memset(text, 'a', SIZE);
    for (size_t i = 0; i < 100; i++) {
        memcpy(pattern + 2 * i, "*a", 2);
    }
    memcpy(pattern + 200, "b", 2);
    assert_false(pyprof__matches(pattern, false, text, SIZE));
    assert_false(pyprof__matches(pattern, true, text, SIZE));
    pattern[200] = '*';
    assert_true(pyprof__matches(pattern, false, text, SIZE));
    free(text);
}

static void test_which_package(void **state) {
    static const struct {
        const char *path, *package;
    } cases[] = {
        {"/usr/lib/python3.11/json/decoder.py", "json"},
        {"/usr/lib/python3.11/threading.py", "threading"},
        {"/usr/lib64/python3.9/os.py", "os"},
        {"/opt/py/lib/python3.13t/asyncio/events.py", "asyncio"},
        {"/usr/lib/python311.zip/json/__init__.py", "json"},
        {"/home/me/venv/lib/python3.11/site-packages/requests/api.py", "requests"},
        {"/home/me/venv/lib/python3.11/site-packages/six.py", "six"},
        {"/usr/lib/python3/dist-packages/gi/overrides/Gtk.py", "gi"},
        {"/x/site-packages/a/site-packages/b/c.py", "b"},
        {"/x/site-packages/foo-1.0-py3.11.egg/foo/bar.py", "foo"},
        {"<frozen importlib._bootstrap>", "importlib"},
        {"<frozen os>", "os"},
        {"<frozen >", ""},
        {"/srv/app/game.py", ""},
        {"/srv/python3.11/game.py", ""},
        {"/srv/lib/python/game.py", ""},
        {"/srv/lib/python3.11", ""},
        {"/usr/lib/python3.11/", ""},
        {"/srv/lib/python3.11x/game.py", ""},
        {"/srv/my-site-packages/game.py", ""},
        {"lib/python3.11/os.py", ""},
        {"<string>", ""},
        {"", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pyprof_text package = pyprof__package_of(cases[i].path, strlen(cases[i].path));
        char text[64] = "";
        assert_true(package.size < sizeof text);
        memcpy(text, package.data, package.size);
        assert_string_equal(text, cases[i].package);
    }
}

/* What only_mine makes of a stack: consecutive frames of one package are one. */
static void fold_packages(stack *item) {
    stack folded = *item;
    memset(folded.frames, 0, sizeof folded.frames);
    folded.depth = 0;
    for (size_t i = 0; i < item->depth; i++) {
        const char *package = i > 0 ? subject_of(item->frames[i])->package : "";
        if (package[0] == '\0') {
            strcpy(folded.frames[folded.depth++], item->frames[i]);
        } else if (strcmp(folded.frames[folded.depth - 1], package) != 0) {
            strcpy(folded.frames[folded.depth++], package);
        }
    }
    *item = folded;
}

static void test_only_mine(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 12, 600);
    for (unsigned variant = 0; variant < 8; variant++) {
        pyprof_output output = {.metric = (pyprof_metric)(variant & 3), .detail = (pyprof_detail)(variant >> 2)};
        output.function = variant == 5 ? "decode" : NULL; /* a frame that is not shown then */
        stacks whole = written(bench.profile, &output);
        for (size_t i = 0; i < whole.count; i++) {
            fold_packages(&whole.items[i]);
        }
        output.only_mine = true;
        stacks shown = written(bench.profile, &output);
        assert_true(shown.count > 50);
        assert_same_stacks(&shown, &whole);
        free(shown.items);
        free(whole.items);
    }
    bench_close(&bench);
}

/* 100 us in all; of these 3 in f's callee at line 7, 4 below what is kept, 2 right below a thread. */
static void test_small_ones_go_to_their_parents(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t"), root = pyprof__track_at(bench.profile, track)->root;
    uint32_t f = add_subject(&bench, root, &subjects[0], 5);
    uint32_t g = add_subject(&bench, f, &subjects[2], 7);
    uint32_t g2 = add_subject(&bench, f, &subjects[2], 8);
    uint32_t h = add_subject(&bench, g2, &subjects[1], 1);
    uint32_t lone = add_subject(&bench, root, &subjects[1], 9);
    uint32_t below = add_subject(&bench, lone, &subjects[2], 9);
    const struct {
        uint32_t node;
        uint64_t us;
    } times[] = {{f, 81}, {g, 3}, {g2, 10}, {h, 4}, {lone, 1}, {below, 1}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        pyprof__add_time(bench.profile, track, times[i].node, PYPROF__GIL, 1000 * times[i].us, 0);
        pyprof__count_samples(bench.profile, track, times[i].node, PYPROF__GIL, 1);
    }
    pyprof_output output = {.min_share = 0.05};
    assert_written(bench.profile, &output,
                   "thread t;f (a.py:5) 84\n"
                   "thread t;f (a.py:5);Game.update (a.py:8) 14\n"
                   "thread t;[other] 2\n");
    output.merge_threads = true; /* nothing is lost, though no thread is shown */
    output.min_share = 0.99;
    assert_written(bench.profile, &output, "[other] 100\n");
    output.min_share = 0.02;
    assert_written(bench.profile, &output,
                   "f (a.py:5) 81\n"
                   "f (a.py:5);Game.update (a.py:7) 3\n"
                   "f (a.py:5);Game.update (a.py:8) 10\n"
                   "f (a.py:5);Game.update (a.py:8);f (b.py:1) 4\n"
                   "f (b.py:9) 2\n");
    output.detail = PYPROF_DETAIL_FUNCTION; /* the lines of update are 17 together */
    output.min_share = 0.15;
    assert_written(bench.profile, &output,
                   "f (a.py:1) 81\n"
                   "f (a.py:1);Game.update (a.py:1) 17\n"
                   "[other] 2\n");
    output.metric = PYPROF_METRIC_CPU; /* of nothing there is no part that is too small */
    assert_written(bench.profile, &output, "");
    bench_close(&bench);
}

typedef struct tally {
    uint64_t totals[MOST_LINES];
    uint32_t parents[MOST_LINES];
    bool is_exempt[MOST_LINES];
    uint32_t count, threads;
    uint64_t value, node_wall, node_cpu, node_samples, span_wall, span_cpu, span_samples;
    uint64_t ends[3];
} tally;

static bool tally_node(void *user, const pyprof_node *node) {
    tally *all = (tally *)user;
    assert_true(node->number == all->count && all->count < MOST_LINES);
    assert_int_equal(node->name.size, strlen(node->name.data));
    all->parents[all->count] = node->parent;
    all->is_exempt[all->count] = node->parent == PYPROF_NO_NODE || strcmp(node->name.data, "[other]") == 0;
    all->totals[all->count++] = node->value;
    all->threads += node->parent == PYPROF_NO_NODE;
    all->value += node->value;
    all->node_wall += node->wall_ns;
    all->node_cpu += node->cpu_ns;
    all->node_samples += node->samples;
    return true;
}

static bool tally_span(void *user, const pyprof_span *span) {
    tally *all = (tally *)user;
    assert_true(span->node < all->count && span->thread < all->threads);
    assert_true(span->start_ns >= all->ends[span->thread]);
    all->ends[span->thread] = span->start_ns + span->wall_ns;
    all->span_wall += span->wall_ns;
    all->span_cpu += span->cpu_ns;
    all->span_samples += span->samples;
    return true;
}

static tally *tally_of(const pyprof_profile *profile, const pyprof_output *output) {
    tally *all = (tally *)calloc(1, sizeof *all);
    pyprof_visitor visitor = {tally_node, tally_span, all};
    assert_int_equal(pyprof_visit(profile, output, &visitor), PYPROF_OK);
    assert_int_equal(all->node_wall, all->span_wall);
    assert_int_equal(all->node_cpu, all->span_cpu);
    assert_int_equal(all->node_samples, all->span_samples);
    return all;
}

/* Whatever is left out, spans have what nodes have; and by min_share nothing is lost, and nothing small is left. */
static void test_spans_follow_their_nodes(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 13, 300);
    for (size_t i = 0; i < sizeof all_asked / sizeof *all_asked; i++) {
        for (unsigned variant = 0; variant < 8; variant++) {
            pyprof_output output = filtered(&all_asked[i]);
            output.metric = (pyprof_metric)(i % 4);
            output.only_mine = (variant & 1) != 0;
            output.detail = (pyprof_detail)(variant >> 1 & 1);
            tally *before = tally_of(bench.profile, &output);
            output.min_share = (variant & 4) != 0 ? 0.03 : 0.2;
            tally *after = tally_of(bench.profile, &output);
            assert_int_equal(after->value, before->value);
            assert_int_equal(after->node_wall, before->node_wall);
            assert_int_equal(after->threads, before->threads);
            assert_true(before->count == 0 || after->count < before->count);
            for (uint32_t k = after->count; k-- > 0;) {
                assert_true(after->is_exempt[k] || (double)after->totals[k] >= output.min_share * (double)after->value);
                if (after->parents[k] != PYPROF_NO_NODE) {
                    after->totals[after->parents[k]] += after->totals[k];
                }
            }
            free(before);
            free(after);
        }
    }
    bench_close(&bench);
}

/* Threads of which nothing is left are left out; the others stay aligned in time. */
static void test_speedscope_is_filtered(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 14, 200);
    pyprof_output output = {.format = PYPROF_FORMAT_SPEEDSCOPE, .thread = "Thread-2", .function = "f"};
    for (int metric = PYPROF_METRIC_WALL; metric <= PYPROF_METRIC_GIL; metric++) {
        text_sink sink = {0};
        char end[64];
        output.metric = (pyprof_metric)metric;
        assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
        assert_non_null(strstr(sink.text, "\"name\":\"Thread-2\""));
        assert_null(strstr(sink.text, "\"name\":\"Thread-1\""));
        assert_null(strstr(sink.text, "\"name\":\"MainThread\""));
        snprintf(end, sizeof end, "\"endValue\":%llu", (unsigned long long)bench.profile->duration_ns);
        assert_non_null(strstr(sink.text, end));
        text_sink_free(&sink);
    }
    bench_close(&bench);
}

/* Threads that only their ids tell apart are found by both; what tells them apart stays, whoever is left out. */
static void test_threads_by_their_ids(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    for (int32_t tid = 100; tid <= 101; tid++) {
        uint32_t track = add_track(&bench, "game");
        pyprof__track_at(bench.profile, track)->tid = tid;
        uint32_t node = add_subject(&bench, pyprof__track_at(bench.profile, track)->root, &subjects[0], tid);
        pyprof__add_time(bench.profile, track, node, PYPROF__GIL, 1000, 0);
    }
    pyprof_output output = {.thread = "game (101)"};
    assert_written(bench.profile, &output, "thread game (101);f (a.py:101) 1\n");
    output.thread = "game";
    assert_written(bench.profile, &output, "thread game (100);f (a.py:100) 1\nthread game (101);f (a.py:101) 1\n");
    output.thread = "*100)";
    assert_written(bench.profile, &output, "thread game (100);f (a.py:100) 1\n");
    bench_close(&bench);
}

static void test_nothing_passes(void **state) {
    workbench bench;
    text_sink sink = {0};
    size_t count = 0;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 15, 50);
    pyprof_output output = {.function = "no such function", .only_mine = true, .min_share = 0.1};
    assert_written(bench.profile, &output, "");
    tally *all = tally_of(bench.profile, &output);
    assert_int_equal(all->count, 0);
    free(all);
    assert_int_equal(pyprof_top(bench.profile, &output, NULL, &count), PYPROF_OK);
    assert_int_equal(count, 0);
    output.format = PYPROF_FORMAT_SPEEDSCOPE;
    assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
    assert_non_null(strstr(sink.text, "\"profiles\":[]"));
    sink.size = 0;
    output.format = PYPROF_FORMAT_TABLE;
    assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
    assert_non_null(strstr(sink.text, "only function no such function\n"));
    assert_non_null(strstr(sink.text, "Nothing that was recorded passes the filters"));
    text_sink_free(&sink);
    bench_close(&bench);
}

static void test_no_memory(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 16, 300);
    for (unsigned variant = 0; variant < 4; variant++) {
        pyprof_output output = {
            .function = "f", .only_mine = (variant & 1) != 0, .min_share = (variant & 2) != 0 ? 0.1 : 0};
        free(written(bench.profile, &output).items); /* names that only it needs are kept from here on */
        size_t blocks = bench.counts.blocks, calls = bench.counts.calls;
        free(written(bench.profile, &output).items);
        calls = bench.counts.calls - calls;
        assert_true(calls > 10);
        for (size_t refused = 1; refused <= calls; refused++) {
            text_sink sink = {0};
            bench.counts.calls = 0;
            bench.counts.refuse_from = refused;
            assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_ERROR_MEMORY);
            assert_int_equal(sink.size, 0);
            assert_int_equal(bench.counts.blocks, blocks);
        }
        bench.counts.refuse_from = 0;
    }
    bench_close(&bench);
}

/* A recording that has taken all that one may: what is left of its memory does for each filter, and all of them. */
static void test_full_recording(void **state) {
    static const size_t limits[] = {(size_t)1 << 20, (size_t)3 << 20};
    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        workbench bench;
        uint64_t random = 18;
        bench_open(&bench, limits[i]);
        uint32_t track = add_track(&bench, "t"), root = pyprof__track_at(bench.profile, track)->root;
        uint32_t node = root;
        for (int turn = 0; node != PYPROF__NONE; turn++) {
            uint32_t parent = turn % 20 == 0 ? root : node;
            const subject *what = &subjects[unit_random(&random) % (SUBJECTS - MARKS)];
            node = add_subject(&bench, parent, what, (int32_t)(unit_random(&random) % 100));
            if (node != PYPROF__NONE) {
                pyprof__add_time(bench.profile, track, node, PYPROF__GIL, 1000, 1000);
                pyprof__count_samples(bench.profile, track, node, PYPROF__GIL, 1);
            }
        }
        assert_true(bench.profile->timeline_coarsened > 0);
        pyprof__profile_seal(bench.profile);
        for (unsigned variant = 0; variant < 32; variant++) {
            pyprof_output output = {.format = (pyprof_format)(variant & 3),
                                    .only_mine = (variant & 4) != 0,
                                    .min_share = (variant & 8) != 0 ? 0.001 : 0,
                                    .function = (variant & 16) != 0 ? "*" : NULL};
            output.format = output.format == PYPROF_FORMAT_SVG ? PYPROF_FORMAT_TABLE : output.format;
            size_t size = 0;
            assert_int_equal(pyprof_write(bench.profile, &output, count_written, &size), PYPROF_OK);
            assert_true(size > 100);
        }
        bench_close(&bench);
    }
}

/* Names that only a filter made live on, too. */
static bool keep_name(void *user, const pyprof_node *node) {
    const char **kept = (const char **)user;
    *kept = node->name.data[0] == '[' && node->name.data[1] == 'j' ? node->name.data : *kept;
    return true;
}

static void test_names_live_as_long_as_the_profile(void **state) {
    workbench bench;
    const char *kept = NULL;
    pyprof_output output = {.only_mine = true};
    const pyprof_visitor visitor = {keep_name, NULL, &kept};
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 17, 100);
    assert_int_equal(pyprof_visit(bench.profile, &output, &visitor), PYPROF_OK);
    assert_string_equal(kept, "[json]");
    bench_close(&bench);
}

static void test_shares_that_are_none(void **state) {
    static const double wrong[] = {-0.01, 1.01, 50, (double)NAN};
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t count = 0;
        pyprof_output output = {.min_share = wrong[i]};
        assert_int_equal(pyprof_top(bench.profile, &output, NULL, &count), PYPROF_ERROR_ARGUMENT);
        assert_non_null(strstr(pyprof_last_error(), "output.min_share is "));
        assert_non_null(strstr(pyprof_last_error(), "0 to 1"));
    }
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_passes),
        cmocka_unit_test(test_names_that_pass),
        cmocka_unit_test(test_pathological_pattern),
        cmocka_unit_test(test_which_package),
        cmocka_unit_test(test_only_mine),
        cmocka_unit_test(test_small_ones_go_to_their_parents),
        cmocka_unit_test(test_spans_follow_their_nodes),
        cmocka_unit_test(test_speedscope_is_filtered),
        cmocka_unit_test(test_threads_by_their_ids),
        cmocka_unit_test(test_nothing_passes),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_full_recording),
        cmocka_unit_test(test_names_live_as_long_as_the_profile),
        cmocka_unit_test(test_shares_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
