/* The tree and the time line: sums, coarsening, copies, a full tree; and what the writers make of them. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <inttypes.h>

#include "unit.h"

#define MS UINT64_C(1000000)

/* A sampler that is not started: its profile, and threads put in by hand. */
typedef struct workbench {
    counted_memory counts;
    pyprof__sampler *sampler;
    pyprof_profile *profile;
} workbench;

static void bench_open(workbench *bench, size_t limit) {
    pyprof_desc desc;
    memset(bench, 0, sizeof *bench);
    memset(&desc, 0, sizeof desc);
    desc.memory_limit = limit;
    desc.allocator.alloc_fn = counted_alloc;
    desc.allocator.free_fn = counted_free;
    desc.allocator.user = &bench->counts;
    pyprof__apply_defaults(&desc);
    bench->sampler = pyprof__sampler_new(&desc);
    assert_non_null(bench->sampler);
    bench->profile = bench->sampler->profile;
    bench->sampler->start = bench->sampler->last_tick = 1000 * MS;
}

static void bench_close(workbench *bench) {
    pyprof__sampler_clear(bench->sampler);
    pyprof__sampler_free(bench->sampler);
    pyprof_free(bench->profile);
    assert_int_equal(bench->counts.blocks, 0);
    assert_int_equal(bench->counts.bytes, 0);
}

static uint32_t add_track(workbench *bench, const char *name) {
    uint32_t track = pyprof__add_track(bench->profile, 100, pyprof__intern_text(bench->profile, name, strlen(name)));
    assert_int_not_equal(track, PYPROF__NONE);
    return track;
}

static uint32_t add_function(workbench *bench, const char *name, int32_t line) {
    uint32_t text = pyprof__intern_text(bench->profile, name, strlen(name));
    uint32_t file = pyprof__intern_text(bench->profile, "/no/such/m.py", 13);
    return pyprof__intern_function(bench->profile, text, file, line);
}

/* A node below another, PYPROF__NONE = below the root of the track. */
static uint32_t add_node(workbench *bench, uint32_t track, uint32_t parent, const char *name, int32_t line) {
    uint32_t below = parent == PYPROF__NONE ? pyprof__track_at(bench->profile, track)->root : parent;
    return pyprof__child(bench->profile, below, add_function(bench, name, 1), line);
}

typedef struct sums {
    uint64_t wall[8]; /* by kind */
    uint64_t cpu;
    uint64_t samples;
    uint64_t total;
    uint32_t spans;
} sums;

/* Follows a track's links; every span of the array must be reached from exactly one track. */
static sums sums_of_track(const pyprof_profile *profile, uint32_t index) {
    const pyprof__track *track = pyprof__track_at(profile, index);
    const pyprof__span *items = (const pyprof__span *)profile->timeline.data;
    sums sum;
    uint32_t last = PYPROF__NONE;
    memset(&sum, 0, sizeof sum);
    for (uint32_t i = track->first; i != PYPROF__NONE; i = items[i].next) {
        assert_true(i < profile->timeline.count);
        assert_int_equal(items[i].track_and_kind / 8, index);
        assert_true(last == PYPROF__NONE || i > last); /* in the order in which they came */
        sum.wall[pyprof__span_kind(&items[i])] += items[i].wall_ns;
        sum.total += items[i].wall_ns;
        sum.cpu += items[i].cpu_ns;
        sum.samples += items[i].samples;
        sum.spans++;
        last = i;
    }
    assert_int_equal(last, track->last);
    return sum;
}

static void assert_links_whole(const pyprof_profile *profile) {
    uint32_t reached = 0;
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        reached += sums_of_track(profile, i).spans;
    }
    assert_int_equal(reached, profile->timeline.count);
}

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

/* Many random spans in several tracks; what is put in is kept beside. */
static void fill_timeline(workbench *bench, sums *expected, uint32_t tracks, int count, uint64_t seed) {
    static const uint32_t kinds[] = {0, PYPROF__GIL, PYPROF__IDLE};
    uint64_t random = seed;
    for (int i = 0; i < count; i++) {
        uint32_t track = (uint32_t)(unit_random(&random) % tracks);
        uint32_t kind = kinds[unit_random(&random) % 3];
        char name[16];
        snprintf(name, sizeof name, "f%u", (unsigned)(unit_random(&random) % 50));
        uint32_t node = add_node(bench, track, PYPROF__NONE, name, 1);
        uint64_t wall = unit_random(&random) % MS, cpu = wall > 0 ? unit_random(&random) % wall : 0;
        pyprof__add_time(bench->profile, track, node, kind, wall, cpu);
        pyprof__count_samples(bench->profile, track, node, kind, 1);
        expected[track].wall[kind] += wall;
        expected[track].total += wall;
        expected[track].cpu += cpu;
        expected[track].samples++;
    }
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
    pyprof_output output = {PYPROF_FORMAT_SPEEDSCOPE, PYPROF_METRIC_WALL, PYPROF_DETAIL_LINE, true, false};
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

/* Shares of time between two samples. */

static pyprof__thread sampled_thread(uint32_t track, uint32_t node, uint32_t kind, uint64_t wall, uint64_t cpu) {
    pyprof__thread thread;
    memset(&thread, 0, sizeof thread);
    thread.track = track;
    thread.has_sample = true;
    thread.node = node;
    thread.kind = kind;
    thread.wall = wall;
    thread.cpu = cpu;
    return thread;
}

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
        assert_int_equal(first->cpu_ns + second->cpu_ns + (uint64_t)thread.unassigned_cpu, 7 * MS + 1);
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
        thread.node = node;
        thread.kind = kinds[i];
        thread.wall = wall;
        thread.cpu = cpu;
    }
    assert_int_equal(pyprof__node_at(bench.profile, waits)->cpu_ns, 0);
    assert_in_range(pyprof__node_at(bench.profile, runs)->cpu_ns, 4 * MS / 100 * 97, 4 * MS);
    assert_int_equal(sums_of_track(bench.profile, track).cpu + (uint64_t)thread.unassigned_cpu, 4 * MS);
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
            thread.node = node;
            thread.kind = kind;
            thread.wall = wall;
            thread.cpu = cpu;
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
    thread.has_sample = false;
    thread.absent_at = 1020 * MS; /* 20 ms after the start; the sample comes 10 ms later */
    pyprof__begin_time(bench.sampler, &thread, a, PYPROF__GIL, 1030 * MS, 3 * MS);
    sums sum = sums_of_track(bench.profile, track);
    assert_int_equal(sum.wall[PYPROF__AWAY], 25 * MS);
    assert_int_equal(sum.wall[PYPROF__GIL], 5 * MS);
    assert_int_equal(sum.cpu, 3 * MS);
    thread.has_sample = true;
    thread.wall = 1030 * MS;
    thread.cpu_clock = pyprof__cpu_clock(INT32_MAX / 8); /* no such thread: its clock cannot be read */
    thread.cpu = 3 * MS;
    pyprof__end_time(bench.sampler, &thread, 1040 * MS, false);
    assert_false(thread.has_sample);
    sum = sums_of_track(bench.profile, track);
    assert_int_equal(sum.wall[PYPROF__GIL], 10 * MS);
    assert_int_equal(sum.cpu, 3 * MS);
    thread.has_sample = true;
    pyprof__end_time(bench.sampler, &thread, 1035 * MS, true); /* the end of the recording */
    sum = sums_of_track(bench.profile, track);
    assert_int_equal(sum.wall[PYPROF__GIL], 15 * MS);
    bench_close(&bench);
}

/* The writers' figures. */

static uint64_t sum_of_lines(const char *text) {
    uint64_t sum = 0;
    for (const char *end; (end = strchr(text, '\n')) != NULL; text = end + 1) {
        const char *at = end;
        while (at > text && at[-1] != ' ') {
            at--;
        }
        sum += strtoull(at, NULL, 10);
    }
    return sum;
}

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
                pyprof_output output = {PYPROF_FORMAT_COLLAPSED, cases[i].metric, (pyprof_detail)(variant & 1),
                                        cases[i].include_idle, (variant & 2) != 0};
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
        pyprof_output output = {PYPROF_FORMAT_SPEEDSCOPE, (pyprof_metric)(variant / 2), PYPROF_DETAIL_LINE,
                                (variant & 1) != 0, false};
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
        thread.node = node;
        thread.kind = kind;
        thread.wall = (1000 + 10 * i) * MS;
        thread.cpu = 9 * i * MS;
    }
    bench.profile->duration_ns = 100 * MS;
    assert_in_range(pyprof__node_at(bench.profile, b)->cpu_ns, 85 * MS, 90 * MS);
    assert_tracks_aligned(&bench);
    bench_close(&bench);
}

static void test_stacks_have_no_empty_or_foreign_frames(void **state) {
    workbench bench;
    text_sink sink = {0};
    pyprof_output output = {PYPROF_FORMAT_COLLAPSED, PYPROF_METRIC_SAMPLES, PYPROF_DETAIL_LINE, true, false};
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
        pyprof_output output = {(pyprof_format)format, PYPROF_METRIC_WALL, PYPROF_DETAIL_LINE, true, false};
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
        pyprof_output output = {PYPROF_FORMAT_COLLAPSED, (pyprof_metric)(variant & 3),
                                (pyprof_detail)(variant >> 2 & 1), (variant & 8) != 0, (variant & 16) != 0};
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

/* A tree that is full: what does not fit is counted under [truncated], and the files stay whole. The frames are of
   code objects that are not there, so they are unresolved; strings are added beside until nothing fits. */
static void test_full_tree_truncates(void **state) {
    workbench bench;
    pyprof__frame frames[40];
    (void)state;
    bench_open(&bench, (size_t)1 << 20);
    uint32_t track = add_track(&bench, "t");
    pyprof__thread thread = sampled_thread(track, PYPROF__NONE, 0, 0, 0);
    thread.has_sample = false;
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
    pyprof_output output = {PYPROF_FORMAT_COLLAPSED, PYPROF_METRIC_SAMPLES, PYPROF_DETAIL_FUNCTION, true, false};
    assert_int_equal(pyprof_write(bench.profile, &output, text_sink_write, &sink), PYPROF_OK);
    assert_int_equal(sum_of_lines(sink.text), rounds);
    text_sink_free(&sink);
    pyprof__array_free(bench.sampler->memory, &thread.frames);
    pyprof__array_free(bench.sampler->memory, &thread.nodes);
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_of_a_node),
        cmocka_unit_test(test_absence_fills_up_to_a_moment),
        cmocka_unit_test(test_coarsening_keeps_the_sums),
        cmocka_unit_test(test_coarsening_lets_the_longer_one_speak),
        cmocka_unit_test(test_full_timeline_coarsens_and_says_so),
        cmocka_unit_test(test_timeline_that_cannot_be_coarsened),
        cmocka_unit_test(test_copy_is_deep_and_equal),
        cmocka_unit_test(test_time_is_shared_half_and_half),
        cmocka_unit_test(test_time_used_unseen_is_not_lost),
        cmocka_unit_test(test_cpu_time_of_short_bursts_is_not_given_to_others),
        cmocka_unit_test(test_clocks_that_step_back_count_nothing),
        cmocka_unit_test(test_first_and_last_sample),
        cmocka_unit_test(test_collapsed_values_sum_exactly),
        cmocka_unit_test(test_speedscope_tracks_are_aligned),
        cmocka_unit_test(test_speedscope_tracks_are_aligned_after_idling),
        cmocka_unit_test(test_stacks_have_no_empty_or_foreign_frames),
        cmocka_unit_test(test_writers_stop_when_told),
        cmocka_unit_test(test_visit_is_what_is_written),
        cmocka_unit_test(test_visit_stops_when_told),
        cmocka_unit_test(test_full_tree_truncates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
