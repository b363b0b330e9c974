/* >>copying >>control: a snapshot that is copied in pieces: each is small, and what has changed meanwhile is in the copy. */
#include <pthread.h>
#include <string.h>

static void *watched_memcpy(void *to, const void *from, size_t size);
static int watched_lock(pthread_mutex_t *mutex);
static int watched_unlock(pthread_mutex_t *mutex);
#define memcpy(to, from, size) watched_memcpy(to, from, size)
#define pthread_mutex_lock watched_lock
#define pthread_mutex_unlock watched_unlock

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#undef memcpy
#undef pthread_mutex_lock
#undef pthread_mutex_unlock

#include "unit.h"
#include "workbench.h"

enum {
    NODES = 100000,
    TRACKS = 5
};

/* What the sampler would do while the lock is let go, and what is copied while it is not. */
static struct watched {
    workbench *bench; /* NULL = nothing is watched */
    unsigned changes, coarsened, pauses;
    bool is_locked;
    size_t copied, most; /* bytes: in this hold of the lock, and in any before */
    uint64_t random;
} watched;

static uint32_t any(uint32_t below) {
    watched.random = watched.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(watched.random >> 33) % below;
}

static uint32_t track_of(const pyprof_profile *profile, uint32_t node) {
    return (uint32_t)pyprof__node_at(profile, root_of(profile, node))->line;
}

static void change(workbench *bench) {
    uint32_t node = any(bench->profile->nodes.items.count), track = track_of(bench->profile, node);
    if (any(4) == 0) {
        node =
            pyprof__child(bench->profile, node, add_function(bench, any(2) ? "new" : "newer", 1), (int32_t)any(1000));
    }
    pyprof__add_time(bench->profile, track, node, any(3), 1 + any(1000), any(1000));
    pyprof__count_samples(bench->profile, track, node, any(3), 1);
}

static void *watched_memcpy(void *to, const void *from, size_t size) {
    watched.copied += watched.bench != NULL && watched.is_locked ? size : 0;
    return memcpy(to, from, size);
}

static int watched_lock(pthread_mutex_t *mutex) {
    int result = pthread_mutex_lock(mutex);
    watched.is_locked = true;
    watched.copied = 0;
    return result;
}

static int watched_unlock(pthread_mutex_t *mutex) {
    watched.is_locked = false;
    watched.most = watched.copied > watched.most ? watched.copied : watched.most;
    watched.pauses += watched.bench != NULL;
    for (unsigned i = 0; watched.bench != NULL && i < watched.changes; i++) {
        change(watched.bench);
    }
    if (watched.bench != NULL && watched.coarsened > 0 && any(watched.pauses > 50 ? 1 : 60) == 0) {
        watched.coarsened--;
        pyprof__coarsen(watched.bench->profile, any(2) == 0);
    }
    return pthread_mutex_unlock(mutex);
}

static void assert_same_items(const pyprof__array *one, const pyprof__array *other) {
    assert_int_equal(one->count, other->count);
    assert_int_equal(one->item_size, other->item_size);
    assert_memory_equal(one->data, other->data, one->count * one->item_size);
}

static void assert_same(const pyprof_profile *one, const pyprof_profile *other) {
    assert_same_items(&one->bytes, &other->bytes);
    assert_same_items(&one->strings.items, &other->strings.items);
    assert_same_items(&one->functions.items, &other->functions.items);
    assert_same_items(&one->nodes.items, &other->nodes.items);
    assert_same_items(&one->tracks, &other->tracks);
    assert_same_items(&one->timeline, &other->timeline);
    assert_int_equal(one->timeline_coarsened, other->timeline_coarsened);
    assert_int_equal(one->names_count, other->names_count);
    assert_null(other->copying);
}

static void fill(workbench *bench, uint32_t nodes) {
    for (uint32_t i = 0; i < TRACKS; i++) {
        add_track(bench, "t");
    }
    while (bench->profile->nodes.items.count < nodes) {
        change(bench);
        uint32_t below = any(bench->profile->nodes.items.count);
        pyprof__child(bench->profile, below, add_function(bench, "f", 1), (int32_t)any(100000));
    }
}

static pyprof_profile *snapshot(workbench *bench, unsigned changes, unsigned coarsened) {
    watched.bench = bench;
    watched.changes = changes;
    watched.coarsened = coarsened;
    watched.pauses = 0;
    watched.most = 0;
    watched_lock(&bench->sampler->lock);
    pyprof_profile *copy = pyprof__copy_recording(bench->sampler);
    watched.most = watched.copied > watched.most ? watched.copied : watched.most;
    watched.bench = NULL;
    watched_unlock(&bench->sampler->lock);
    return copy;
}

static void assert_right(workbench *bench, pyprof_profile *copy) {
    assert_non_null(copy);
    pyprof_profile *whole = pyprof__profile_copy(bench->profile);
    assert_same(whole, copy);
    assert_links_whole(copy);
    pyprof_free(whole);
    pyprof_free(copy);
}

/* However many nodes: a tick waits for no more than this, of which nothing grows with the tree. */
static void test_pieces_are_small(void **state) {
    (void)state;
    for (unsigned changes = 0; changes <= 40; changes += 20) {
        workbench bench;
        bench_open(&bench, 256u << 20);
        fill(&bench, NODES);
        pyprof_profile *copy = snapshot(&bench, changes, 0);
        size_t all = copy->nodes.items.count * sizeof(pyprof__node) + copy->timeline.count * sizeof(pyprof__span);
        print_message("%zu bytes of nodes and spans in %u pieces, %zu at a time at most\n", all, watched.pauses,
                      watched.most);
        assert_true(watched.most <= PYPROF__COPY_PIECE + PYPROF__COPY_END + 4096);
        assert_true(watched.pauses >= all / PYPROF__COPY_PIECE);
        assert_right(&bench, copy);
        bench_close(&bench);
    }
}

/* Nodes and spans that grow, and new ones; a time line that is made coarser; changes beyond all bounds, too. */
static void test_copy_is_of_one_moment(void **state) {
    (void)state;
    watched.random = 7;
    for (unsigned turn = 0; turn < 20; turn++) {
        workbench bench;
        bench_open(&bench, 256u << 20);
        fill(&bench, 1000 + any(20000));
        assert_right(&bench, snapshot(&bench, turn % 4 == 3 ? 3000 : any(300), turn % 3));
        bench_close(&bench);
    }
}

/* It is whole or not there, however many allocations it gets, and nothing is left. */
static void test_without_memory(void **state) {
    workbench bench;
    unsigned made = 0;
    (void)state;
    bench_open(&bench, 0);
    fill(&bench, 3000);
    size_t blocks = bench.counts.blocks;
    for (size_t refused = 1; refused < 20; refused++) {
        bench.counts.calls = 0;
        bench.counts.refuse_call = refused;
        pyprof_profile *copy = snapshot(&bench, 0, 0);
        assert_null(bench.profile->copying);
        made += copy != NULL;
        pyprof_free(copy);
        assert_int_equal(bench.counts.blocks, blocks);
    }
    assert_true(made > 10); /* one that was refused some room to spare took what it needs */
    bench.counts.refuse_call = 0;
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_are_small),
        cmocka_unit_test(test_copy_is_of_one_moment),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
