/* A profile that is filled by hand. Every test that includes it includes unit.h before. */
#ifndef WORKBENCH_H
#define WORKBENCH_H

#define MS UINT64_C(1000000)

/* A sampler that is not started: its profile, and threads put in by hand. */
typedef struct workbench {
    counted_memory counts;
    pyprof__sampler *sampler;
    pyprof_profile *profile;
} workbench;

UNIT_UNUSED static void bench_open(workbench *bench, size_t limit) {
    pyprof_desc desc = counted_desc(&bench->counts, 0);
    memset(bench, 0, sizeof *bench);
    desc.memory_limit = limit;
    pyprof__apply_defaults(&desc);
    bench->sampler = pyprof__sampler_new(&desc);
    assert_non_null(bench->sampler);
    bench->profile = bench->sampler->profile;
    bench->sampler->start = bench->sampler->last_tick = 1000 * MS;
}

UNIT_UNUSED static void bench_close(workbench *bench) {
    pyprof__sampler_clear(bench->sampler);
    pyprof__sampler_free(bench->sampler);
    pyprof_free(bench->profile);
    assert_int_equal(bench->counts.blocks, 0);
    assert_int_equal(bench->counts.bytes, 0);
}

UNIT_UNUSED static uint32_t add_track(workbench *bench, const char *name) {
    uint32_t track = pyprof__add_track(bench->profile, 100, pyprof__intern_text(bench->profile, name, strlen(name)));
    assert_int_not_equal(track, PYPROF__NONE);
    return track;
}

UNIT_UNUSED static uint32_t add_function(workbench *bench, const char *name, int32_t line) {
    uint32_t text = pyprof__intern_text(bench->profile, name, strlen(name));
    uint32_t file = pyprof__intern_text(bench->profile, "/no/such/m.py", 13);
    return pyprof__intern_function(bench->profile, text, file, line);
}

/* A node below another, PYPROF__NONE = below the root of the track. */
UNIT_UNUSED static uint32_t add_node(workbench *bench, uint32_t track, uint32_t parent, const char *name,
                                     int32_t line) {
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

UNIT_UNUSED static uint32_t root_of(const pyprof_profile *profile, uint32_t node) {
    while (pyprof__node_at(profile, node)->parent != PYPROF__NONE) {
        node = pyprof__node_at(profile, node)->parent;
    }
    return node;
}

/* Follows a track's links; every span of the array must be reached from exactly one track. */
UNIT_UNUSED static sums sums_of_track(const pyprof_profile *profile, uint32_t index) {
    const pyprof__track *track = pyprof__track_at(profile, index);
    const pyprof__span *items = (const pyprof__span *)profile->timeline.data;
    sums sum;
    uint32_t last = PYPROF__NONE;
    memset(&sum, 0, sizeof sum);
    for (uint32_t i = track->first; i != PYPROF__NONE; i = items[i].next) {
        assert_true(i < profile->timeline.count);
        assert_int_equal(items[i].track_and_kind / 8, index);
        assert_int_equal(root_of(profile, items[i].node), track->root); /* each stack is in its thread's own tree */
        assert_true(last == PYPROF__NONE || i > last);                  /* in the order in which they came */
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

UNIT_UNUSED static void assert_links_whole(const pyprof_profile *profile) {
    uint32_t reached = 0;
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        reached += sums_of_track(profile, i).spans;
    }
    assert_int_equal(reached, profile->timeline.count);
}

/* Many random spans in several tracks; what is put in is kept beside. */
UNIT_UNUSED static void fill_timeline(workbench *bench, sums *expected, uint32_t tracks, int count, uint64_t seed) {
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

UNIT_UNUSED static pyprof__thread sampled_thread(uint32_t track, uint32_t node, uint32_t kind, uint64_t wall,
                                                 uint64_t cpu) {
    pyprof__thread thread;
    memset(&thread, 0, sizeof thread);
    thread.track = track;
    thread.last.is_there = true;
    thread.last.node = node;
    thread.last.kind = kind;
    thread.last.wall = wall;
    thread.last.cpu = cpu;
    return thread;
}

UNIT_UNUSED static uint64_t sum_of_lines(const char *text) {
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

#endif
