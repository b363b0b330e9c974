/* >>profile: the tree and the time line: sums, coarsening, copies. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"
#include "workbench.h"

static void test_sums_of_a_node(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t");
    uint32_t node = add_node(&bench, track, PYPROF__NONE, "f", 3);
    assert_int_equal(add_node(&bench, track, PYPROF__NONE, "f", 3), node);
    assert_int_not_equal(add_node(&bench, track, PYPROF__NONE, "f", 4), node);
    pyprof__add_time(bench.profile, track, node, PYPROF__GIL, 5 * MS, 4 * MS);
    pyprof__count_samples(bench.profile, track, node, PYPROF__GIL, 1);
    pyprof__add_time(bench.profile, track, node, 0, 3 * MS, 2 * MS);
    pyprof__count_samples(bench.profile, track, node, 0, 1);
    pyprof__add_time(bench.profile, track, node, PYPROF__IDLE, 7 * MS, 1);
    pyprof__count_samples(bench.profile, track, node, PYPROF__IDLE, 1);
    const pyprof__node *item = pyprof__node_at(bench.profile, node);
    assert_int_equal(item->samples, 3);
    assert_int_equal(item->samples_idle, 1);
    assert_int_equal(item->wall_ns, 15 * MS);
    assert_int_equal(item->wall_idle_ns, 7 * MS);
    assert_int_equal(item->cpu_ns, 6 * MS + 1);
    assert_int_equal(item->gil_ns, 5 * MS);
    sums sum = sums_of_track(bench.profile, track);
    assert_int_equal(sum.total, 15 * MS);
    assert_int_equal(sum.samples, 3);
    assert_int_equal(sum.spans, 3);
    assert_int_equal(pyprof__track_at(bench.profile, track)->end_ns, 15 * MS);
    bench_close(&bench);
}

static void test_absence_fills_up_to_a_moment(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t");
    pyprof__add_absence(bench.profile, track, 10 * MS);
    pyprof__add_absence(bench.profile, track, 4 * MS); /* already past */
    pyprof__add_absence(bench.profile, track, 12 * MS);
    sums sum = sums_of_track(bench.profile, track);
    assert_int_equal(sum.spans, 1);
    assert_int_equal(sum.wall[PYPROF__AWAY], 12 * MS);
    bench_close(&bench);
}

static void test_coarsening_keeps_the_sums(void **state) {
    (void)state;
    for (uint32_t tracks = 1; tracks <= 7; tracks += 3) {
        workbench bench;
        sums expected[8];
        memset(expected, 0, sizeof expected);
        bench_open(&bench, 0);
        for (uint32_t i = 0; i < tracks; i++) {
            add_track(&bench, "t");
        }
        fill_timeline(&bench, expected, tracks, 5000, tracks);
        for (int round = 0; round < 20; round++) {
            uint32_t before = bench.profile->timeline.count;
            pyprof__coarsen(bench.profile, false);
            assert_true(bench.profile->timeline.count <= before);
            assert_links_whole(bench.profile);
            for (uint32_t i = 0; i < tracks; i++) {
                sums sum = sums_of_track(bench.profile, i);
                for (uint32_t kind = 0; kind < 8; kind++) {
                    assert_int_equal(sum.wall[kind], expected[i].wall[kind]);
                }
                assert_int_equal(sum.cpu, expected[i].cpu);
                assert_int_equal(sum.samples, expected[i].samples);
                assert_int_equal(sum.total, pyprof__track_at(bench.profile, i)->end_ns);
            }
        }
        for (int round = 0; round < 14; round++) { /* whatever the kind: only the whole stays */
            uint32_t before = bench.profile->timeline.count;
            pyprof__coarsen(bench.profile, true);
            assert_in_range(bench.profile->timeline.count, tracks, before / 2 + tracks);
            assert_links_whole(bench.profile);
            for (uint32_t i = 0; i < tracks; i++) {
                sums sum = sums_of_track(bench.profile, i);
                assert_int_equal(sum.total, expected[i].total);
                assert_int_equal(sum.cpu, expected[i].cpu);
                assert_int_equal(sum.samples, expected[i].samples);
            }
        }
        assert_int_equal(bench.profile->timeline.count, tracks);
        bench_close(&bench);
    }
}

static void test_coarsening_lets_the_longer_one_speak(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t");
    uint32_t nodes[6];
    static const uint64_t walls[] = {1, 3, 5, 2, 4, 9};
    for (uint32_t i = 0; i < 6; i++) {
        char name[8];
        snprintf(name, sizeof name, "f%u", (unsigned)i);
        nodes[i] = add_node(&bench, track, PYPROF__NONE, name, 1);
        pyprof__add_time(bench.profile, track, nodes[i], i < 5 ? PYPROF__GIL : PYPROF__IDLE, walls[i] * MS, 0);
    }
    pyprof__coarsen(bench.profile, false);
    static const struct {
        uint32_t node;
        uint64_t wall;
    } expected[] = {{1, 4}, {2, 7}, {4, 4}, {5, 9}}; /* (1,3) (5,2) (4) and the idle one apart */
    const pyprof__span *items = (const pyprof__span *)bench.profile->timeline.data;
    assert_int_equal(bench.profile->timeline.count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(items[i].node, nodes[expected[i].node]);
        assert_int_equal(items[i].wall_ns, expected[i].wall * MS);
    }
    bench_close(&bench);
}

static void test_full_timeline_coarsens_and_says_so(void **state) {
    workbench bench;
    sums expected[4];
    (void)state;
    memset(expected, 0, sizeof expected);
    bench_open(&bench, (size_t)1 << 20);
    for (uint32_t i = 0; i < 4; i++) {
        add_track(&bench, "t");
    }
    fill_timeline(&bench, expected, 4, 100000, 3);
    assert_true(bench.profile->timeline_coarsened > 0);
    assert_true(bench.profile->memory.peak <= (size_t)1 << 20);
    assert_true(bench.profile->timeline.count > 500);
    assert_links_whole(bench.profile);
    for (uint32_t i = 0; i < 4; i++) {
        sums sum = sums_of_track(bench.profile, i);
        assert_int_equal(sum.total, expected[i].total);
        assert_int_equal(sum.cpu, expected[i].cpu);
        assert_int_equal(sum.samples, expected[i].samples);
        assert_int_equal(sum.total, pyprof__track_at(bench.profile, i)->end_ns);
    }
    bench_close(&bench);
}

/* Room that is asked for is made while the limit lasts, and nothing is merged for it. */
static void test_room_in_the_timeline(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, (size_t)1 << 20);
    const pyprof__array *timeline = &bench.profile->timeline;
    const uint32_t most = ((uint32_t)1 << 20) / 16 * 3 / (uint32_t)sizeof(pyprof__span);
    assert_true(pyprof__timeline_has_room(bench.profile, 1));
    assert_in_range(timeline->capacity, 1, 64);
    assert_true(pyprof__timeline_has_room(bench.profile, 500));
    assert_in_range(timeline->capacity, 500, 1024);
    assert_true(pyprof__timeline_has_room(bench.profile, most));
    assert_int_equal(timeline->capacity, most);
    assert_false(pyprof__timeline_has_room(bench.profile, most + 1));
    assert_int_equal(timeline->capacity, most);
    assert_int_equal(timeline->count, 0);
    assert_int_equal(bench.profile->timeline_coarsened, 0);
    bench_close(&bench);
}

/* Threads without end, of which none has two spans to merge: what the time line cannot take must not shift
   what comes after. */
static void test_timeline_that_cannot_be_coarsened(void **state) {
    workbench bench;
    uint32_t track, tracks = 0;
    (void)state;
    bench_open(&bench, (size_t)1 << 20);
    while (tracks < 100000 &&
           (track = pyprof__add_track(bench.profile, 1, pyprof__intern_text(bench.profile, "t", 1))) != PYPROF__NONE) {
        pyprof__add_absence(bench.profile, track, ++tracks * MS);
    }
    assert_in_range(tracks, 1000, 99999);
    assert_links_whole(bench.profile);
    for (uint32_t i = 0; i < 50; i++) {
        pyprof__add_absence(bench.profile, i, tracks * MS + MS);
        sums sum = sums_of_track(bench.profile, i);
        assert_true(sum.total == 0 || sum.total == pyprof__track_at(bench.profile, i)->end_ns);
    }
    bench_close(&bench);
}

static void test_copy_is_deep_and_equal(void **state) {
    workbench bench;
    sums expected[3];
    text_sink original = {0}, copied = {0}, later = {0};
    pyprof_output output = {.format = PYPROF_FORMAT_SPEEDSCOPE,
                            .metric = PYPROF_METRIC_WALL,
                            .detail = PYPROF_DETAIL_LINE,
                            .include_idle = true};
    (void)state;
    memset(expected, 0, sizeof expected);
    bench_open(&bench, 0);
    for (uint32_t i = 0; i < 3; i++) {
        add_track(&bench, "t");
    }
    fill_timeline(&bench, expected, 3, 1000, 8);
    pyprof_profile *copy = pyprof__profile_copy(bench.profile);
    assert_non_null(copy);
    assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &original), PYPROF_OK);
    fill_timeline(&bench, expected, 3, 1000, 9); /* what comes later is not in the copy */
    assert_int_equal(pyprof_write(copy, &output, text_sink_write, &copied), PYPROF_OK);
    assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &later), PYPROF_OK);
    assert_string_equal(original.text, copied.text);
    assert_string_not_equal(later.text, copied.text);
    pyprof_free(copy);
    /* However many allocations a copy gets, it is whole or not there, and nothing is left. */
    size_t blocks = bench.counts.blocks;
    for (size_t refused = 1; refused < 20; refused++) {
        bench.counts.calls = 0;
        bench.counts.refuse_call = refused;
        copy = pyprof__profile_copy(bench.profile);
        assert_int_equal(copy != NULL, refused > 7);
        pyprof_free(copy);
        assert_int_equal(bench.counts.blocks, blocks);
    }
    bench.counts.refuse_call = 0;
    text_sink_free(&original);
    text_sink_free(&copied);
    text_sink_free(&later);
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_of_a_node),
        cmocka_unit_test(test_absence_fills_up_to_a_moment),
        cmocka_unit_test(test_room_in_the_timeline),
        cmocka_unit_test(test_coarsening_keeps_the_sums),
        cmocka_unit_test(test_coarsening_lets_the_longer_one_speak),
        cmocka_unit_test(test_full_timeline_coarsens_and_says_so),
        cmocka_unit_test(test_timeline_that_cannot_be_coarsened),
        cmocka_unit_test(test_copy_is_deep_and_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
