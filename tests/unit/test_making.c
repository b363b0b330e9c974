/* >>making: that a profile made of what pyprof_visit gives is the same profile, in each format to the byte; that two are
   added up; and what is refused. */
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"

#include "unit.h"
#include "workbench.h"

#include "subjects.h"

enum {
    MOST_NODES = 4096
};

/* A profile that is made while another one is visited. */
typedef struct making {
    pyprof_profile *profile;
    pyprof_result result; /* of the call that failed first */
    uint32_t numbers[MOST_NODES];
} making;

static bool make_node(void *user, const pyprof_node *node) {
    making *self = (making *)user;
    pyprof_node copy = *node;
    assert_true(node->number < MOST_NODES);
    copy.parent = node->parent != PYPROF_NO_NODE ? self->numbers[node->parent] : PYPROF_NO_NODE;
    self->result = pyprof_add_node(self->profile, &copy, &self->numbers[node->number]);
    return self->result == PYPROF_OK;
}

static bool make_span(void *user, const pyprof_span *span) {
    making *self = (making *)user;
    pyprof_span copy = *span;
    copy.node = self->numbers[span->node];
    self->result = pyprof_add_span(self->profile, &copy);
    return self->result == PYPROF_OK;
}

static pyprof_result add_all(making *self, const pyprof_profile *source, const pyprof_output *output, bool has_spans) {
    const pyprof_visitor visitor = {make_node, has_spans ? make_span : NULL, self};
    pyprof_output whole = {0};
    if (output != NULL) {
        whole = *output;
    }
    whole.threads_apart = true;
    self->result = PYPROF_OK;
    pyprof_result result = pyprof_visit(source, &whole, &visitor);
    return result == PYPROF_ERROR_WRITE ? self->result : result;
}

static pyprof_result copy_of(making *self, const pyprof_profile *source, const pyprof_output *output,
                             const pyprof_allocator *allocator) {
    pyprof_facts facts;
    assert_int_equal(pyprof_get_facts(source, &facts), PYPROF_OK);
    pyprof_result result = pyprof_make(&facts, 0, allocator, &self->profile);
    return result == PYPROF_OK ? add_all(self, source, output, true) : result;
}

static void assert_same_files(const pyprof_profile *one, const pyprof_profile *other, const pyprof_output *output) {
    text_sink a = {0}, b = {0};
    assert_int_equal(pyprof_write(one, output, text_sink_write, &a), PYPROF_OK);
    assert_int_equal(pyprof_write(other, output, text_sink_write, &b), PYPROF_OK);
    assert_int_equal(a.size, b.size);
    if (a.size > 0) {
        assert_memory_equal(a.text, b.text, a.size);
    }
    text_sink_free(&a);
    text_sink_free(&b);
}

static void assert_same_profiles(const pyprof_profile *one, const pyprof_profile *other) {
    for (unsigned variant = 0; variant < 7 * 32; variant++) {
        pyprof_output output = {.format = (pyprof_format)(variant / 32),
                                .metric = (pyprof_metric)(variant & 3),
                                .detail = (pyprof_detail)(variant >> 2 & 1),
                                .include_idle = (variant & 8) != 0,
                                .interpreter = (variant & 16) != 0 ? "physics" : NULL,
                                .min_share = (variant & 16) != 0 ? 0.01 : 0};
        assert_same_files(one, other, &output);
    }
}

/* Three threads of two names, of which one's has been shared, one that only its id tells, and facts of all kinds. */
static void open_filled(workbench *bench, uint64_t seed) {
    bench_open(bench, 0);
    fill(bench, seed, 300);
    pyprof__track_at(bench->profile, 0)->is_named = true;
    pyprof__track_at(bench->profile, 1)->is_named = pyprof__track_at(bench->profile, 1)->is_shared = true;
    pyprof__track_at(bench->profile, 2)->tid = 4711;
    uint32_t twin = add_track(bench, "MainThread"), g = add_node(bench, twin, PYPROF__NONE, "twin", 3);
    pyprof__track_at(bench->profile, twin)->is_named = true;
    pyprof__track_at(bench->profile, twin)->tid = 200;
    pyprof__add_time(bench->profile, twin, g, PYPROF__GIL, 5 * MS, MS);
    pyprof__count_samples(bench->profile, twin, g, PYPROF__GIL, 1);
    bench->profile->interval_us = 2500;
    bench->profile->epoch_ns = UINT64_C(1700000000123456789);
    bench->profile->samples_jit = bench->profile->stats.samples_jit = 3;
    bench->profile->timeline_coarsened = bench->profile->stats.timeline_coarsened = 2;
    bench->profile->stats.samples = 301;
    bench->profile->stats.lost_late = 5;
    bench->profile->stats.ticks = 400;
}

static void test_a_profile_is_made_anew(void **state) {
    workbench bench;
    making *self = (making *)calloc(1, sizeof *self);
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        open_filled(&bench, seed);
        assert_int_equal(copy_of(self, bench.profile, NULL, NULL), PYPROF_OK);
        assert_same_profiles(bench.profile, self->profile);
        assert_links_whole(self->profile);
        pyprof_free(self->profile);
        bench_close(&bench);
    }
    free(self);
}

static bool add_to_sums(void *user, const pyprof_span *span) {
    sums *of_thread = &((sums *)user)[span->thread];
    assert_true(span->thread < 8);
    of_thread->total += span->wall_ns;
    of_thread->wall[0] += span->start_ns * span->wall_ns + span->wall_ns * (span->wall_ns - 1) / 2; /* where it lies */
    of_thread->cpu += span->cpu_ns;
    of_thread->samples += span->samples;
    return true; /* neighbours that have become alike are one in what is made: so they are not counted */
}

static void time_of_spans(const pyprof_profile *profile, const pyprof_output *output, sums of_threads[8]) {
    const pyprof_visitor visitor = {.span = add_to_sums, .user = of_threads};
    memset(of_threads, 0, 8 * sizeof *of_threads);
    assert_int_equal(pyprof_visit(profile, output, &visitor), PYPROF_OK);
}

/* Of a filtered one, all that passes: as the filter shows it. */
static void test_a_filtered_one_is_made(void **state) {
    static const pyprof_output filters[] = {
        {.thread = "Thread-*"}, {.interpreter = "physics"}, {.function = "f"}, {.only_mine = true}, {.thread = "none"}};
    workbench bench;
    making *self = (making *)calloc(1, sizeof *self);
    (void)state;
    open_filled(&bench, 7);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        assert_int_equal(copy_of(self, bench.profile, &filters[i], NULL), PYPROF_OK);
        pyprof_output shown = filters[i], plain = {.include_idle = true};
        shown.include_idle = true;
        text_sink a = {0}, b = {0};
        assert_int_equal(pyprof_write(bench.profile, &shown, text_sink_write, &a), PYPROF_OK);
        assert_int_equal(pyprof_write(self->profile, &plain, text_sink_write, &b), PYPROF_OK);
        assert_string_equal(a.text != NULL ? a.text : "", b.text != NULL ? b.text : "");
        assert_int_equal(a.size > 0, i + 1 < sizeof filters / sizeof *filters);
        sums kept[8], made[8];
        time_of_spans(bench.profile, &shown, kept);
        time_of_spans(self->profile, &plain, made);
        assert_memory_equal(kept, made, sizeof kept);
        text_sink_free(&a);
        text_sink_free(&b);
        pyprof_free(self->profile);
    }
    free(self);
    bench_close(&bench);
}

/* The figures of two in one: each stack has the sum. */
static void test_two_are_added_up(void **state) {
    workbench one, other;
    making *self = (making *)calloc(1, sizeof *self);
    const pyprof_output output = {.include_idle = true};
    (void)state;
    open_filled(&one, 1);
    open_filled(&other, 2);
    assert_int_equal(pyprof_make(NULL, 0, NULL, &self->profile), PYPROF_OK);
    assert_int_equal(add_all(self, one.profile, NULL, false), PYPROF_OK);
    assert_int_equal(add_all(self, other.profile, NULL, false), PYPROF_OK);
    stacks a = written(one.profile, &output), b = written(other.profile, &output);
    stacks sum = written(self->profile, &output);
    assert_true(a.count + b.count <= MOST_LINES);
    memcpy(a.items + a.count, b.items, b.count * sizeof *b.items);
    a.count += b.count;
    settle(&a);
    settle(&sum);
    assert_int_equal(a.count, sum.count);
    for (size_t i = 0; i < a.count; i++) {
        assert_memory_equal(a.items[i].frames, sum.items[i].frames, sizeof a.items[i].frames);
        assert_int_equal(a.items[i].value, sum.items[i].value);
    }
    free(a.items);
    free(b.items);
    free(sum.items);
    pyprof_free(self->profile);
    free(self);
    bench_close(&one);
    bench_close(&other);
}

static pyprof_text text_of(const char *text) {
    pyprof_text made = {text, strlen(text)};
    return made;
}

static void test_facts_are_kept(void **state) {
    pyprof_facts facts = {.program = text_of("/usr/bin/game"),
                          .process = text_of("game"),
                          .python = text_of("3.13.1"),
                          .start_ns = 5,
                          .duration_ns = 6,
                          .interval_us = 7};
    pyprof_facts kept;
    pyprof_profile *profile;
    (void)state;
    for (size_t i = 0; i < sizeof facts.stats; i++) {
        ((unsigned char *)&facts.stats)[i] = (unsigned char)(i + 1);
    }
    facts.stats.duration_ns = facts.duration_ns; /* the one figure that is in both */
    assert_int_equal(pyprof_make(&facts, 1 << 20, NULL, &profile), PYPROF_OK);
    assert_int_equal(pyprof_get_facts(profile, &kept), PYPROF_OK);
    assert_string_equal(kept.program.data, "/usr/bin/game");
    assert_string_equal(kept.process.data, "game");
    assert_string_equal(kept.python.data, "3.13.1");
    assert_int_equal(kept.start_ns, 5);
    assert_int_equal(kept.duration_ns, 6);
    assert_int_equal(kept.interval_us, 7);
    assert_memory_equal(&kept.stats, &facts.stats, sizeof facts.stats);
    pyprof_free(profile);
}

/* What is refused has changed nothing, and says why. */
static void test_what_cannot_be_added(void **state) {
    workbench bench;
    pyprof_profile *profile, *none = NULL;
    pyprof_allocator half = {counted_alloc, NULL, NULL};
    pyprof_facts facts;
    uint32_t thread, number;
    (void)state;
    assert_int_equal(pyprof_make(NULL, 0, NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_make(NULL, 0, &half, &none), PYPROF_ERROR_ARGUMENT);
    assert_null(none);
    assert_int_equal(pyprof_make(NULL, 100, NULL, &none), PYPROF_ERROR_MEMORY);
    assert_null(none);
    assert_int_equal(pyprof_get_facts(NULL, &facts), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_make(NULL, 0, NULL, &profile), PYPROF_OK);
    assert_int_equal(pyprof_get_facts(profile, NULL), PYPROF_ERROR_ARGUMENT);
    const pyprof_node thread_node = {.parent = PYPROF_NO_NODE, .name = text_of("t"), .is_named = true};
    pyprof_node node = thread_node;
    assert_int_equal(pyprof_add_node(profile, NULL, &number), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_add_node(profile, &node, NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_add_node(NULL, &node, &number), PYPROF_ERROR_ARGUMENT);
    node.parent = 0;
    assert_int_equal(pyprof_add_node(profile, &node, &number), PYPROF_ERROR_ARGUMENT);
    assert_non_null(strstr(pyprof_last_error(), "no node 0 yet"));
    assert_int_equal(pyprof_add_node(profile, &thread_node, &thread), PYPROF_OK);
    node = (pyprof_node){.parent = thread, .name = text_of("f"), .wall_ns = 5, .wall_idle_ns = 6};
    assert_int_equal(pyprof_add_node(profile, &node, &number), PYPROF_ERROR_ARGUMENT);
    node = (pyprof_node){.parent = thread, .name = text_of("f"), .samples = 5, .samples_idle = 6};
    assert_int_equal(pyprof_add_node(profile, &node, &number), PYPROF_ERROR_ARGUMENT);
    assert_non_null(strstr(pyprof_last_error(), "samples are idle"));
    pyprof_span span = {.node = thread, .start_ns = 10, .wall_ns = 5};
    assert_int_equal(pyprof_add_span(profile, NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_add_span(profile, &span), PYPROF_OK);
    span.start_ns = 14;
    assert_int_equal(pyprof_add_span(profile, &span), PYPROF_ERROR_ARGUMENT);
    assert_non_null(strstr(pyprof_last_error(), "begins at 14 ns, before the end of the one before it"));
    span.start_ns = UINT64_MAX - 1;
    assert_int_equal(pyprof_add_span(profile, &span), PYPROF_ERROR_ARGUMENT);
    span.start_ns = 15;
    span.node = 1000;
    assert_int_equal(pyprof_add_span(profile, &span), PYPROF_ERROR_ARGUMENT);
    span.node = PYPROF_NO_NODE;
    assert_int_equal(pyprof_add_span(profile, &span), PYPROF_ERROR_ARGUMENT);
    assert_links_whole(profile);
    pyprof_free(profile);
    bench_open(&bench, 0);
    assert_int_equal(pyprof_add_node(bench.profile, &thread_node, &number), PYPROF_ERROR_ARGUMENT);
    assert_non_null(strstr(pyprof_last_error(), "it has to come from pyprof_make"));
    assert_int_equal(bench.profile->tracks.count, 0);
    bench_close(&bench);
}

/* What a visitor was given of processes. */
typedef struct processes_seen {
    char text[256];
} processes_seen;

static bool see_process(void *user, const pyprof_node *node) {
    processes_seen *seen = (processes_seen *)user;
    size_t size = strlen(seen->text);
    if (node->parent == PYPROF_NO_NODE) {
        (void)snprintf(seen->text + size, sizeof seen->text - size, "%s %d;", node->process.data, (int)node->pid);
    } else {
        assert_int_equal(node->process.size, 0);
        assert_int_equal(node->pid, 0);
    }
    return true;
}

/* Those of one program are one beyond 16, but for the first process; a copy keeps each. */
static void test_processes_are_kept(void **state) {
    making *self = (making *)calloc(1, sizeof *self);
    pyprof_profile *profile;
    const pyprof_output whole = {.threads_apart = true}, merged = {.merge_threads = true};
    (void)state;
    assert_int_equal(pyprof_make(NULL, 0, NULL, &profile), PYPROF_OK);
    for (int32_t i = 0; i < 18; i++) {
        pyprof_node thread = {.parent = PYPROF_NO_NODE, .name = {"one", 3}, .is_named = true}, node = {.wall_ns = 1000};
        thread.process = (pyprof_text){i < 2 ? "a.py" : "b.py", 4};
        thread.pid = 10 + i;
        assert_int_equal(pyprof_add_node(profile, &thread, &node.parent), PYPROF_OK);
        node.name = (pyprof_text){"f", 1};
        assert_int_equal(pyprof_add_node(profile, &node, &thread.number), PYPROF_OK);
    }
    processes_seen apart = {""}, together = {""}, many = {""};
    const pyprof_visitor of_all = {.node = see_process, .user = &apart};
    const pyprof_visitor of_processes = {.node = see_process, .user = &together};
    assert_int_equal(pyprof_visit(profile, &whole, &of_all), PYPROF_OK);
    assert_int_equal(pyprof_visit(profile, &merged, &of_processes), PYPROF_OK);
    assert_non_null(strstr(apart.text, "a.py 10;a.py 11;b.py 12;b.py 13;"));
    assert_non_null(strstr(apart.text, "b.py 27;"));
    assert_string_equal(together.text, apart.text); /* 16 of them are not many */
    pyprof_node thread = {.parent = PYPROF_NO_NODE, .process = {"b.py", 4}, .pid = 99}, node = {.wall_ns = 1};
    assert_int_equal(copy_of(self, profile, NULL, NULL), PYPROF_OK);
    assert_same_files(profile, self->profile, NULL);
    assert_int_equal(pyprof_add_node(self->profile, &thread, &node.parent), PYPROF_OK);
    const pyprof_visitor of_many = {.node = see_process, .user = &many};
    assert_int_equal(pyprof_visit(self->profile, &merged, &of_many), PYPROF_OK);
    assert_string_equal(many.text, "a.py 10;a.py 11;b.py 0;");
    pyprof_free(self->profile);
    pyprof_free(profile);
    free(self);
}

/* Each allocation refused in turn: an error, and nothing is left behind. */
static void test_memory_runs_out(void **state) {
    workbench bench;
    making *self = (making *)calloc(1, sizeof *self);
    counted_memory counts;
    pyprof_allocator allocator = {counted_alloc, counted_free, &counts};
    pyprof_result result = PYPROF_ERROR_MEMORY;
    size_t refused = 0;
    (void)state;
    open_filled(&bench, 3);
    while (result != PYPROF_OK) {
        memset(&counts, 0, sizeof counts);
        counts.refuse_from = ++refused;
        self->profile = NULL;
        result = copy_of(self, bench.profile, NULL, &allocator);
        assert_true(result == PYPROF_OK || result == PYPROF_ERROR_MEMORY);
        pyprof_free(self->profile);
        assert_int_equal(counts.blocks, 0);
        assert_int_equal(counts.bytes, 0);
        assert_true(refused < 200);
    }
    assert_true(refused > 10);
    free(self);
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_profile_is_made_anew), cmocka_unit_test(test_a_filtered_one_is_made),
        cmocka_unit_test(test_two_are_added_up),       cmocka_unit_test(test_facts_are_kept),
        cmocka_unit_test(test_what_cannot_be_added),   cmocka_unit_test(test_processes_are_kept),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
