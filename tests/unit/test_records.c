/* >>records, >>state: samples enter the profile, with their time; and a tree that is full. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"
#include "workbench.h"

/* Shares of time between two samples. */

static void test_time_is_shared_half_and_half(void **state) {
    static const struct {
        uint32_t before, after;
        uint64_t cpu_before, cpu_after; /* of 7 ms and 1 ns used */
    } cases[] = {
        {PYPROF__GIL, PYPROF__GIL, 3 * MS + MS / 2, 3 * MS + MS / 2 + 1},
        {PYPROF__GIL, 0, 3 * MS + MS / 2, 3 * MS + MS / 2 + 1},
        {PYPROF__IDLE, PYPROF__IDLE, 0, 0},         /* it ran unseen: see below */
        {PYPROF__IDLE, PYPROF__GIL, 0, 7 * MS + 1}, /* what waited used none */
        {PYPROF__GIL, PYPROF__IDLE, 7 * MS + 1, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        workbench bench;
        bench_open(&bench, 0);
        uint32_t track = add_track(&bench, "t");
        uint32_t a = add_node(&bench, track, PYPROF__NONE, "a", 1);
        uint32_t b = add_node(&bench, track, PYPROF__NONE, "b", 1);
        pyprof__thread thread = sampled_thread(track, a, cases[i].before, 1000 * MS, 50 * MS);
        pyprof__share_time(bench.sampler, &thread, b, cases[i].after, 1010 * MS + 1, 57 * MS + 1);
        const pyprof__node *first = pyprof__node_at(bench.profile, a), *second = pyprof__node_at(bench.profile, b);
        assert_int_equal(first->wall_ns, 5 * MS);
        assert_int_equal(second->wall_ns, 5 * MS + 1);
        assert_int_equal(first->wall_idle_ns, cases[i].before == PYPROF__IDLE ? 5 * MS : 0);
        /* Beside one that waited, a little is kept back. */
        assert_in_range(first->cpu_ns, cases[i].cpu_before / 100 * 97, cases[i].cpu_before);
        assert_in_range(second->cpu_ns, cases[i].cpu_after / 100 * 97, cases[i].cpu_after);
        assert_int_equal(first->cpu_ns + second->cpu_ns + (uint64_t)thread.last.unassigned_cpu, 7 * MS + 1);
        assert_int_equal(first->gil_ns, cases[i].before == PYPROF__GIL ? 5 * MS : 0);
        assert_int_equal(second->gil_ns, cases[i].after == PYPROF__GIL ? 5 * MS + 1 : 0);
        bench_close(&bench);
    }
}

/* What a thread used between two samples that both waited goes to those that run. */
static void test_time_used_unseen_is_not_lost(void **state) {
    static const uint32_t kinds[] = {PYPROF__IDLE, PYPROF__IDLE, PYPROF__GIL, PYPROF__GIL};
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t");
    uint32_t waits = add_node(&bench, track, PYPROF__NONE, "waits", 1);
    uint32_t runs = add_node(&bench, track, PYPROF__NONE, "runs", 1);
    pyprof__thread thread = sampled_thread(track, waits, PYPROF__IDLE, 1000 * MS, 0);
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t wall = (1010 + 10 * i) * MS, cpu = (i + 1) * MS;
        uint32_t node = kinds[i] == PYPROF__IDLE ? waits : runs;
        pyprof__share_time(bench.sampler, &thread, node, kinds[i], wall, cpu);
        thread.last.node = node;
        thread.last.kind = kinds[i];
        thread.last.wall = wall;
        thread.last.cpu = cpu;
    }
    assert_int_equal(pyprof__node_at(bench.profile, waits)->cpu_ns, 0);
    assert_in_range(pyprof__node_at(bench.profile, runs)->cpu_ns, 4 * MS / 100 * 97, 4 * MS);
    assert_int_equal(sums_of_track(bench.profile, track).cpu + (uint64_t)thread.last.unassigned_cpu, 4 * MS);
    bench_close(&bench);
}

/* Two functions run by turns, one for a whole interval and one for an eighth of it, between long waits, in which
   the clock goes on, too: what is seen of the short one stands for what is not. */
static void test_cpu_time_of_short_bursts_is_not_given_to_others(void **state) {
    enum {
        rounds = 8000
    };
    uint64_t cpu = 0, wall = 1000 * MS;
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t");
    uint32_t waits = add_node(&bench, track, PYPROF__NONE, "waits", 1);
    uint32_t runs[2] = {add_node(&bench, track, PYPROF__NONE, "long", 1),
                        add_node(&bench, track, PYPROF__NONE, "short", 1)};
    const uint64_t burst[2] = {MS, MS / 8};
    pyprof__thread thread = sampled_thread(track, waits, PYPROF__IDLE, wall, 0);
    for (uint32_t i = 0; i < rounds; i++) {
        bool is_short = i % 2 == 1;
        bool is_seen = !is_short || i / 2 % 8 == 3;
        for (uint32_t tick = 0; tick < 3; tick++) {
            uint32_t kind = tick == 1 && is_seen ? PYPROF__GIL : PYPROF__IDLE;
            uint32_t node = kind == PYPROF__GIL ? runs[is_short] : waits;
            wall += MS;
            cpu += tick == 0 ? 0 : burst[is_short] / 2;
            pyprof__share_time(bench.sampler, &thread, node, kind, wall, cpu);
            thread.last.node = node;
            thread.last.kind = kind;
            thread.last.wall = wall;
            thread.last.cpu = cpu;
        }
    }
    uint64_t cpu_long = pyprof__node_at(bench.profile, runs[0])->cpu_ns;
    uint64_t cpu_short = pyprof__node_at(bench.profile, runs[1])->cpu_ns;
    assert_in_range(cpu_long, rounds / 2 * MS / 100 * 98, rounds / 2 * MS / 100 * 102);
    assert_in_range(cpu_short, rounds / 2 * MS / 8 / 100 * 90, rounds / 2 * MS / 8 / 100 * 110);
    assert_in_range(cpu_long + cpu_short, cpu - 20 * MS, cpu);
    assert_int_equal(pyprof__node_at(bench.profile, waits)->cpu_ns, 0);
    bench_close(&bench);
}

static void test_clocks_that_step_back_count_nothing(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t");
    uint32_t a = add_node(&bench, track, PYPROF__NONE, "a", 1);
    pyprof__thread thread = sampled_thread(track, a, PYPROF__GIL, 1000 * MS, 50 * MS);
    pyprof__share_time(bench.sampler, &thread, a, PYPROF__GIL, 999 * MS, 49 * MS);
    assert_int_equal(pyprof__node_at(bench.profile, a)->wall_ns, 0);
    assert_int_equal(pyprof__node_at(bench.profile, a)->cpu_ns, 0);
    bench_close(&bench);
}

static void test_first_and_last_sample(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t");
    uint32_t a = add_node(&bench, track, PYPROF__NONE, "a", 1);
    pyprof__thread thread = sampled_thread(track, a, PYPROF__GIL, 0, 0);
    thread.last.is_there = false;
    thread.absent_at = 1020 * MS; /* 20 ms after the start; the sample comes 10 ms later */
    pyprof__begin_time(bench.sampler, &thread, a, PYPROF__GIL, 1030 * MS, 3 * MS);
    sums sum = sums_of_track(bench.profile, track);
    assert_int_equal(sum.wall[PYPROF__AWAY], 25 * MS);
    assert_int_equal(sum.wall[PYPROF__GIL], 5 * MS);
    assert_int_equal(sum.cpu, 3 * MS);
    thread.last.is_there = true;
    thread.last.wall = 1030 * MS;
    thread.cpu_clock = pyprof__cpu_clock(INT32_MAX / 8); /* no such thread: its clock cannot be read */
    thread.last.cpu = 3 * MS;
    pyprof__end_time(bench.sampler, &thread, 1040 * MS, false);
    assert_false(thread.last.is_there);
    sum = sums_of_track(bench.profile, track);
    assert_int_equal(sum.wall[PYPROF__GIL], 10 * MS);
    assert_int_equal(sum.cpu, 3 * MS);
    thread.last.is_there = true;
    pyprof__end_time(bench.sampler, &thread, 1035 * MS, true); /* the end of the recording */
    sum = sums_of_track(bench.profile, track);
    assert_int_equal(sum.wall[PYPROF__GIL], 15 * MS);
    bench_close(&bench);
}

/* Each verdict that is no sample is counted, once, under its own cause; and a question is not, before it has an answer. */
static void test_each_verdict_is_counted(void **state) {
    static const pyprof__verdict losses[] = {PYPROF__PENDING, PYPROF__LATE, PYPROF__UNSETTLED, PYPROF__UNREADABLE,
                                             PYPROF__NO_ROOM};
    static pyprof__sampler sampler;
    const pyprof_stats *stats = &sampler.stats;
    const uint64_t *counters[] = {&stats->lost_pending, &stats->lost_late, &stats->lost_unsettled,
                                  &stats->lost_unreadable, &stats->lost_memory};
    pyprof__thread thread = unit_thread();
    (void)state;
    pyprof__book(&sampler, &thread, PYPROF__ASKED, NULL);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(*counters[i], 0);
    }
    for (size_t i = 0; i < 5; i++) {
        pyprof__book(&sampler, &thread, losses[i], NULL);
        for (size_t j = 0; j < 5; j++) {
            assert_int_equal(*counters[j], j <= i);
        }
    }
}

/* A tree that is full: what does not fit is counted under [truncated], and the files stay whole. The frames are of
   code objects that are not there, so they are unresolved; strings are added beside until nothing fits. */
static void test_full_tree_truncates(void **state) {
    workbench bench;
    pyprof__frame frames[40];
    (void)state;
    bench_open(&bench, (size_t)1 << 20);
    uint32_t track = add_track(&bench, "t");
    pyprof__thread thread = sampled_thread(track, PYPROF__NONE, 0, 0, 0);
    thread.last.is_there = false;
    thread.frames.item_size = sizeof(pyprof__frame);
    thread.nodes.item_size = sizeof(uint32_t);
    pyprof__stack stack;
    memset(&stack, 0, sizeof stack);
    stack.frames = frames;
    stack.count = stack.capacity = 40;
    uint64_t random = 12, rounds = 0;
    while (bench.sampler->stats.truncated_memory < 1000 && rounds++ < 100000) {
        memset(frames, 0, sizeof frames);
        for (uint32_t i = 0; i < stack.count; i++) {
            char name[24];
            snprintf(name, sizeof name, "name %llu", (unsigned long long)unit_random(&random));
            pyprof__intern_text(bench.profile, name, strlen(name) * (i == 0));
            frames[i].code = (uintptr_t)8 * (1 + unit_random(&random) % 50);
            frames[i].fingerprint = unit_random(&random) % 3 + 1;
        }
        uint32_t node =
            pyprof__node_of(bench.sampler, &thread, &stack, pyprof__base_of(bench.sampler, &thread, &stack));
        assert_true(node < bench.profile->nodes.items.count);
        /* Something of its own between unresolved frames, or else they would all be one stack. */
        uint32_t parent = (uint32_t)(unit_random(&random) % bench.profile->nodes.items.count);
        uint32_t leaf = pyprof__child(bench.profile, parent, bench.profile->unresolved, (int32_t)rounds);
        bench.sampler->stats.truncated_memory += leaf == PYPROF__NONE;
        pyprof__count_samples(bench.profile, track, leaf == PYPROF__NONE ? node : leaf, 0, 1);
    }
    assert_true(bench.sampler->stats.truncated_memory >= 1000);
    assert_true(bench.profile->memory.peak <= (size_t)1 << 20);
    for (uint32_t i = 0; i < bench.profile->nodes.items.count; i++) {
        const pyprof__node *node = pyprof__node_at(bench.profile, i);
        assert_true(node->parent == PYPROF__NONE || node->parent < i);
        assert_true(node->parent == PYPROF__NONE || node->function < bench.profile->functions.items.count);
    }
    text_sink sink = {0};
    pyprof_output output = {.format = PYPROF_FORMAT_COLLAPSED,
                            .metric = PYPROF_METRIC_SAMPLES,
                            .detail = PYPROF_DETAIL_FUNCTION,
                            .include_idle = true};
    assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
    assert_int_equal(sum_of_lines(sink.text), rounds);
    text_sink_free(&sink);
    pyprof__array_free(bench.sampler->memory, &thread.frames);
    pyprof__array_free(bench.sampler->memory, &thread.nodes);
    bench_close(&bench);
}

/* A thread of a shared track gets another name between two samples, and so another track: its stack goes along, what
   passed before is the old one's, what passes after is the new one's, and each track has stacks of its own only. */
static void test_a_thread_takes_its_stack_to_another_track(void **state) {
    enum {
        frames = 300,
        renamed = 20
    };
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t first = add_track(&bench, "first"), node = pyprof__track_at(bench.profile, first)->root;
    pyprof__track_at(bench.profile, first)->is_shared = pyprof__track_at(bench.profile, first)->is_named = true;
    for (int32_t i = 0; i < frames; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", (int)i % 7);
        node = add_node(&bench, first, node, name, i);
    }
    pyprof__thread thread = sampled_thread(first, node, PYPROF__GIL, 1000 * MS, 0);
    thread.tid = 4711;
    thread.nodes.item_size = sizeof(uint32_t);
    thread.frames.item_size = sizeof(pyprof__frame);
    for (uint64_t i = 1; i <= renamed; i++) {
        char name[16];
        uint64_t now = (1000 + 10 * i) * MS;
        int size = snprintf(name, sizeof name, "name %u", (unsigned)i);
        uint32_t before = thread.track;
        pyprof__share_time(bench.sampler, &thread, thread.last.node, PYPROF__GIL, now, 0);
        thread.last.wall = now;
        size_t reserve = pyprof__open_reserve(bench.sampler->memory);
        pyprof__choose_track(bench.sampler, &thread, name, (size_t)size, true, now);
        bench.sampler->memory->reserve = reserve;
        pyprof__track_at(bench.profile, thread.track)->is_shared =
            true; /* so that the next name is another track, too */
        assert_int_not_equal(thread.track, before);
        assert_int_equal(root_of(bench.profile, thread.last.node), pyprof__track_at(bench.profile, thread.track)->root);
        assert_int_equal(pyprof__track_at(bench.profile, before)->end_ns, 10 * i * MS);
    }
    pyprof__end_time(bench.sampler, &thread, 1300 * MS, true);
    assert_links_whole(bench.profile);
    assert_int_equal(pyprof__track_at(bench.profile, thread.track)->end_ns, 300 * MS);
    text_sink sink = {0};
    assert_int_equal(pyprof_write(bench.profile, NULL, text_sink_write, &sink), PYPROF_OK);
    assert_int_equal(sum_of_lines(sink.text), 300 * 1000);
    text_sink_free(&sink);
    pyprof__array_free(bench.sampler->memory, &thread.nodes);
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thread_takes_its_stack_to_another_track),
        cmocka_unit_test(test_time_is_shared_half_and_half),
        cmocka_unit_test(test_time_used_unseen_is_not_lost),
        cmocka_unit_test(test_cpu_time_of_short_bursts_is_not_given_to_others),
        cmocka_unit_test(test_clocks_that_step_back_count_nothing),
        cmocka_unit_test(test_first_and_last_sample),
        cmocka_unit_test(test_each_verdict_is_counted),
        cmocka_unit_test(test_full_tree_truncates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
