/* >>census: a snapshot of the heap that is copied in pieces: each is small, and the copy is of one moment, whatever happens
   between two of them. Python is not initialised. */
#include <pthread.h>
#include <string.h>

static void *watched_memcpy(void *to, const void *from, size_t size);
static int watched_lock(pthread_mutex_t *mutex);
static int watched_trylock(pthread_mutex_t *mutex);
static int watched_unlock(pthread_mutex_t *mutex);
#define memcpy(to, from, size) watched_memcpy(to, from, size)
#define pthread_mutex_lock watched_lock
#define pthread_mutex_trylock watched_trylock
#define pthread_mutex_unlock watched_unlock

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#undef memcpy
#undef pthread_mutex_lock
#undef pthread_mutex_trylock
#undef pthread_mutex_unlock

#include <sys/wait.h>

#include "unit.h"

enum {
    NODES = 100000,
    SAMPLES = 100000
};

/* What others would do while the lock is let go, and what is copied while it is not. */
static struct watched {
    bool is_on;
    unsigned changes, pauses;
    void (*before_pause)(void); /* NULL = nothing; before the lock is let go */
    void (*in_pause)(void);     /* likewise, after that */
    bool is_locked;
    size_t copied, most; /* bytes: in this hold of the lock, and in any before */
    uint64_t random, births;
} watched;

static pthread_t watched_thread;

/* By the thread whose census it is, only. */
static bool is_on(void) {
    return pthread_equal(pthread_self(), watched_thread) && watched.is_on;
}

static bool is_watched(const pthread_mutex_t *mutex) {
    return mutex == &pyprof__heap_lock && is_on();
}

static uint32_t any(uint32_t below) {
    watched.random = watched.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(watched.random >> 33) % below;
}

/* One of as many addresses as there are samples: so some end, and some are replaced. */
static uintptr_t any_address(void) {
    return 0x10000000u + (uintptr_t)any(2 * SAMPLES) * 48;
}

static uint32_t any_node(void) {
    pyprof_profile *tree = pyprof__heap.tree;
    uint32_t node = any(tree->nodes.items.count);
    if (any(4) == 0) {
        uint32_t name = pyprof__intern_text(tree, any(2) ? "new" : "newer", 3);
        node = pyprof__child(tree, node, pyprof__intern_function(tree, name, name, 1), (int32_t)any(1000));
    }
    assert_int_not_equal(node, PYPROF__NONE);
    return node;
}

/* With the lock: a sample comes, or one ends; few are mappings. */
static void change(void) {
    pyprof__live was;
    if (any(3) == 0) {
        pyprof__heap.stats.samples_freed += pyprof__heap_drop(any_address(), &was);
        return;
    }
    bool is_mapping = any(1000) == 0;
    uint64_t size = 1 + any(3000);
    pyprof__live sample = {
        0, size, pyprof__heap_weight(size, 1000), pyprof__heap.start + ++watched.births, any_node(), PYPROF__NONE};
    sample.address = is_mapping ? 0x70000000u + (uintptr_t)watched.births * 4096 : any_address();
    pyprof__heap_book(&sample, is_mapping);
    if (is_mapping && any(2) == 0) {
        pyprof__map_forget(sample.address - 8192, sample.address);
    }
}

static void *watched_memcpy(void *to, const void *from, size_t size) {
    if (is_on() && watched.is_locked) {
        watched.copied += size;
    }
    return memcpy(to, from, size);
}

/* Counts what is converted, in the place of pyprof__census_convert. */
static void watched_convert(void *to, const void *from, uint32_t count) {
    watched.copied += count * sizeof(pyprof_heap_sample);
    pyprof__census_convert(to, from, count);
}

static void begin_hold(const pthread_mutex_t *mutex) {
    if (is_watched(mutex)) {
        watched.is_locked = true;
        watched.copied = 0;
    }
}

static int watched_lock(pthread_mutex_t *mutex) {
    int result = pthread_mutex_lock(mutex);
    begin_hold(mutex);
    return result;
}

static int watched_trylock(pthread_mutex_t *mutex) {
    int result = pthread_mutex_trylock(mutex);
    if (result == 0) {
        begin_hold(mutex);
    }
    return result;
}

/* The census that has its changes noted. */
static pyprof__census *census_now(void) {
    char *living = (char *)pyprof__heap.census;
    return living != NULL ? (pyprof__census *)(void *)(living - offsetof(pyprof__census, living)) : NULL;
}

static int watched_unlock(pthread_mutex_t *mutex) {
    bool is_pause = is_watched(mutex) && pyprof__heap.is_on && pyprof__heap.tree->copying != NULL;
    if (is_watched(mutex)) {
        watched.is_locked = false;
        watched.most = watched.copied > watched.most ? watched.copied : watched.most;
    }
    if (is_pause) {
        watched.pauses++;
        for (unsigned i = 0; i < watched.changes; i++) {
            change();
        }
        if (census_now() != NULL) {
            census_now()->copier.convert = watched_convert;
        }
        if (watched.before_pause != NULL) {
            watched.before_pause();
        }
    }
    int result = pthread_mutex_unlock(mutex);
    if (is_pause && watched.in_pause != NULL) {
        watched.is_on = false;
        watched.in_pause();
        watched.is_on = true;
    }
    return result;
}

static void start(size_t memory_limit) {
    pyprof_heap_desc desc = {0};
    desc.sampling_bytes = 1000;
    desc.memory_limit = memory_limit;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
    watched_thread = pthread_self();
}

/* What a failed test has left behind is not the next one's. */
static int tidy(void **state) {
    (void)state;
    watched.is_on = false;
    watched.before_pause = watched.in_pause = NULL;
    (void)pyprof_heap_shutdown();
    return 0;
}

/* Fills the tree, and what lives. */
static void fill(uint32_t nodes, uint32_t samples) {
    pyprof_profile *tree = pyprof__heap.tree;
    uint32_t text = pyprof__intern_text(tree, "f", 1);
    uint32_t function = pyprof__intern_function(tree, text, text, 1);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t track = pyprof__add_track(tree, 100, text);
        assert_int_not_equal(track, PYPROF__NONE);
    }
    while (tree->nodes.items.count < nodes) {
        pyprof__child(tree, any(tree->nodes.items.count), function, (int32_t)any(100000));
    }
    while (pyprof__heap.stats.samples_live < samples) {
        change();
    }
}

static pyprof_result snapshot(bool has_samples, unsigned changes, void (*in_pause)(void), pyprof_profile **copy) {
    watched.is_on = true;
    watched.changes = changes;
    watched.in_pause = in_pause;
    watched.pauses = 0;
    watched.copied = watched.most = 0;
    pyprof_result result = has_samples ? pyprof_heap_snapshot_samples(copy) : pyprof_heap_snapshot(copy);
    watched.is_on = false;
    return result;
}

static void assert_same_items(const pyprof__array *one, const pyprof__array *other) {
    assert_int_equal(one->count, other->count);
    assert_int_equal(one->item_size, other->item_size);
    if (one->count > 0) {
        assert_memory_equal(one->data, other->data, one->count * one->item_size);
    }
}

/* What lives in each node is the sum of its samples, one by one. */
static void assert_adds_up(const pyprof_profile *copy) {
    uint32_t count = copy->nodes.items.count;
    uint64_t *bytes = (uint64_t *)calloc(count, sizeof *bytes), all = 0;
    double *objects = (double *)calloc(count, sizeof *objects);
    pyprof_heap_stats stats;
    assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_OK);
    for (uint32_t i = 0; i < copy->samples.count; i++) {
        const pyprof_heap_sample *sample = &PYPROF__ITEM(const pyprof_heap_sample, &copy->samples, i);
        double space = sample->weight * (double)sample->size;
        assert_true((double)sample->estimated_bytes > space - 1 && (double)sample->estimated_bytes < space + 1);
        assert_true(sample->address != 0 && sample->node < count);
        bytes[sample->node] += sample->estimated_bytes;
        objects[sample->node] += sample->weight;
        all += sample->estimated_bytes;
    }
    for (uint32_t i = 0; i < count; i++) {
        const pyprof__node *node = pyprof__node_at(copy, i);
        double apart = (double)node->samples - objects[i];
        assert_int_equal(node->wall_ns, bytes[i]);
        assert_true(apart > -0.6 && apart < 0.6);
        assert_true(node->cpu_ns >= node->wall_ns && node->gil_ns >= node->samples);
    }
    assert_int_equal(stats.samples_live, copy->samples.count);
    assert_int_equal(stats.live_bytes, all);
    free(bytes);
    free(objects);
}

/* As one is that is taken at once, of now: nothing has changed since. */
static void assert_right(pyprof_profile *copy) {
    pyprof__copying none;
    pyprof_profile *whole;
    memset(&none, 0, sizeof none);
    pyprof__heap.tree->copying = &none;
    assert_int_equal(pyprof_heap_snapshot_samples(&whole), PYPROF_OK);
    pyprof__heap.tree->copying = NULL;
    assert_same_items(&whole->bytes, &copy->bytes);
    assert_same_items(&whole->strings.items, &copy->strings.items);
    assert_same_items(&whole->functions.items, &copy->functions.items);
    assert_same_items(&whole->nodes.items, &copy->nodes.items);
    assert_same_items(&whole->tracks, &copy->tracks);
    for (uint32_t i = 0; i < copy->samples.count; i++) { /* all but how long they have lived */
        pyprof_heap_sample *one = &PYPROF__ITEM(pyprof_heap_sample, &copy->samples, i);
        pyprof_heap_sample *other = &PYPROF__ITEM(pyprof_heap_sample, &whole->samples, i);
        assert_int_equal(one->timestamp_ns + one->lifetime_ns, copy->duration_ns);
        one->lifetime_ns = other->lifetime_ns = 0;
    }
    if (copy->samples.count > 0) {
        assert_same_items(&whole->samples, &copy->samples);
    }
    assert_adds_up(whole);
    assert_null(copy->copying);
    assert_true(pyprof__heap.census == NULL && !pyprof__heap_here()->is_copying);
    pyprof_free(whole);
    pyprof_free(copy);
}

static void end(void) {
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* However many nodes and samples: who waits for the lock waits for no more than this, of which nothing grows with them. */
static void test_pieces_are_small(void **state) {
    pyprof_profile *copy = NULL;
    (void)state;
    watched.random = 3;
    start(256u << 20);
    fill(NODES, SAMPLES);
    for (unsigned turn = 0; turn < 6; turn++) {
        assert_int_equal(snapshot(turn % 2, turn / 2 * 20, NULL, &copy), PYPROF_OK);
        size_t limit = turn < 4 ? PYPROF__COPY_PIECE : PYPROF__COPY_END;            /* more changes than pieces hold */
        size_t mappings = pyprof__heap.mappings.count * sizeof(pyprof_heap_sample); /* they come at once */
        size_t all = copy->nodes.items.count * sizeof(pyprof__node) + copy->samples.count * sizeof(pyprof_heap_sample);
        print_message("%zu bytes in %u pieces, %zu at a time at most\n", all, watched.pauses, watched.most);
        assert_true(turn % 2 == 0 || copy->samples.count >= SAMPLES);
        assert_true(watched.most > 0 && watched.most <= limit + 4096 + mappings);
        assert_true(watched.pauses >= (all - mappings) / PYPROF__COPY_PIECE);
        assert_right(copy);
    }
    end();
}

/* Samples that come, end and are replaced, mappings, new nodes; changes beyond all bounds, too. */
static void test_copy_is_of_one_moment(void **state) {
    pyprof_profile *copy = NULL;
    (void)state;
    for (unsigned turn = 0; turn < 20; turn++) {
        watched.random = 100 + turn;
        start(256u << 20);
        fill(100 + any(10000), 100 + any(10000));
        assert_int_equal(snapshot(turn % 3 > 0, turn % 4 == 3 ? 3000 : any(100), NULL, &copy), PYPROF_OK);
        assert_true(watched.pauses > 0);
        assert_right(copy);
        end();
    }
}

/* It is whole or not there, however many allocations it gets, and nothing is left. */
static void test_without_memory(void **state) {
    counted_memory counts;
    pyprof_heap_desc desc = {0};
    pyprof_profile *copy = NULL;
    unsigned made = 0, refused = 0;
    (void)state;
    memset(&counts, 0, sizeof counts);
    desc.sampling_bytes = 1000;
    desc.allocator.alloc_fn = counted_alloc;
    desc.allocator.free_fn = counted_free;
    desc.allocator.user = &counts;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
    fill(3000, 3000);
    size_t blocks = counts.blocks;
    for (size_t call = 1; call < 20; call++) {
        counts.calls = 0;
        counts.refuse_call = call;
        pyprof_result result = snapshot(true, 0, NULL, &copy);
        assert_int_equal(result, copy != NULL ? PYPROF_OK : PYPROF_ERROR_MEMORY);
        assert_true(pyprof__heap.tree->copying == NULL && pyprof__heap.census == NULL);
        made += copy != NULL;
        refused += copy == NULL;
        pyprof_free(copy);
        assert_int_equal(counts.blocks, blocks);
    }
    assert_true(made > 0 && refused > 0);
    end();
    assert_int_equal(counts.blocks, 0);
}

static void shut_down(void) {
    if (watched.pauses == 3) {
        pyprof__heap_come_out(pyprof__heap_here()); /* as the thread is not in it that does this */
        pyprof__heap_here()->has_lock = false;
        end();
        if (watched.changes > 0) {
            start(0);
        }
        pyprof__heap_here()->has_lock = true;
        pyprof__heap_go_in(pyprof__heap_here());
    }
}

/* Nothing is touched of what is gone, also where sampling has begun anew. */
static void test_shut_down_meanwhile(void **state) {
    pyprof_profile *copy = NULL;
    (void)state;
    for (unsigned starts_again = 0; starts_again < 2; starts_again++) {
        start(256u << 20);
        fill(20000, 20000);
        assert_int_equal(snapshot(true, starts_again, shut_down, &copy), PYPROF_ERROR_NOT_ACTIVE);
        assert_null(copy);
        assert_non_null(strstr(pyprof_last_error(), "pyprof_heap_snapshot_samples: heap sampling is not on"));
        assert_true(pyprof__heap_here()->is_inside == 0 && !pyprof__heap_here()->is_copying);
        if (starts_again) {
            assert_int_equal(pyprof_heap_snapshot(&copy), PYPROF_OK);
            pyprof_free(copy);
            end();
        }
        assert_int_equal(pyprof_heap_shutdown(), PYPROF_ERROR_NOT_ACTIVE);
    }
}

static void *take_another(void *user) {
    pyprof_profile *copy = NULL;
    (void)user;
    assert_int_equal(pyprof_heap_snapshot_samples(&copy), PYPROF_OK);
    assert_adds_up(copy);
    pyprof_free(copy);
    return NULL;
}

static void *fork_here(void *user) {
    int status = 1;
    (void)user;
    pid_t child = fork();
    if (child == 0) {
        pyprof_profile *copy = NULL;
        bool is_right = pyprof__heap.tree->copying == NULL && pyprof__heap.census == NULL;
        pyprof_heap_on_alloc((void *)16, 100000);
        is_right = is_right && pyprof_heap_snapshot_samples(&copy) == PYPROF_OK;
        pyprof_free(copy);
        _exit(is_right && pyprof_heap_shutdown() == PYPROF_OK ? 0 : 1);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    assert_int_equal(status, 0);
    return NULL;
}

static void *(*what_another_does)(void *user);

static void let_another_do_it(void) {
    pthread_t thread;
    if (watched.pauses == 3) {
        assert_int_equal(pthread_create(&thread, NULL, what_another_does, NULL), 0);
        pthread_join(thread, NULL);
    }
}

/* A second census at the same time, and a fork by another thread: each has its own, and the first goes on. */
static void test_another_thread_meanwhile(void **state) {
    static void *(*const does[])(void *user) = {take_another, fork_here};
    pyprof_profile *copy = NULL;
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        start(256u << 20);
        fill(20000, 20000);
        what_another_does = does[i];
        assert_int_equal(snapshot(true, 50, let_another_do_it, &copy), PYPROF_OK);
        assert_right(copy);
        end();
    }
}

static pyprof__atomic32 must_end, entered;

static void *enter_again_and_again(void *user) {
    while (!pyprof__get(&must_end)) {
        assert_true(pyprof__heap_enter(pyprof__heap_here()));
        pyprof__add(&entered, 1);
        pyprof__heap_leave(pyprof__heap_here());
    }
    return user;
}

static unsigned pauses_with_others;

static void note_who_entered(void) {
    static uint32_t before;
    uint32_t now = pyprof__get(&entered);
    pauses_with_others += now != before;
    before = now;
    while (pyprof__get(&pyprof__heap_waiting) == 0) {
        sched_yield(); /* until it waits */
    }
}

/* Who waits for the lock has it at the next pause: it is not taken again at once. */
static void test_others_have_the_lock_between(void **state) {
    pthread_t thread;
    pyprof_profile *copy = NULL;
    (void)state;
    start(256u << 20);
    fill(NODES, 1000);
    pyprof__set(&must_end, 0);
    assert_int_equal(pthread_create(&thread, NULL, enter_again_and_again, NULL), 0);
    watched.before_pause = note_who_entered;
    assert_int_equal(snapshot(false, 0, NULL, &copy), PYPROF_OK);
    watched.before_pause = NULL;
    pyprof__set(&must_end, 1);
    pthread_join(thread, NULL);
    pyprof_free(copy);
    print_message("others had the lock in %u of %u pauses\n", pauses_with_others, watched.pauses);
    assert_true(watched.pauses >= 90 && pauses_with_others >= watched.pauses / 2);
    end();
}

static void *told_alloc(size_t size, void *user) {
    void *memory = calloc(1, size); /* else gcc takes it for unset */
    (void)user;
    pyprof_heap_on_alloc(memory, size);
    return memory;
}

static void told_free(void *memory, void *user) {
    (void)user;
    pyprof_heap_on_free(memory);
    free(memory);
}

/* A host may have all that its allocator gives counted: what a census takes of it is no memory of the host's, in a pause as
   little as with the lock. Else a later census would show that as growth. */
static void test_own_memory_is_not_counted(void **state) {
    pyprof_heap_desc desc = {0};
    pyprof_profile *copy = NULL;
    (void)state;
    desc.sampling_bytes = 1;
    desc.allocator.alloc_fn = told_alloc;
    desc.allocator.free_fn = told_free;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
    watched_thread = pthread_self();
    told_free(told_alloc(10, NULL), NULL);
    assert_true(pyprof__heap.stats.samples > 0);
    fill(20000, 20000);
    uint64_t before = pyprof__heap.stats.samples;
    assert_int_equal(snapshot(true, 0, NULL, &copy), PYPROF_OK);
    assert_true(watched.pauses > 10);
    assert_int_equal(pyprof__heap.stats.samples, before);
    pyprof_free(copy);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_own_memory_is_not_counted, tidy),
        cmocka_unit_test_teardown(test_pieces_are_small, tidy),
        cmocka_unit_test_teardown(test_copy_is_of_one_moment, tidy),
        cmocka_unit_test_teardown(test_without_memory, tidy),
        cmocka_unit_test_teardown(test_shut_down_meanwhile, tidy),
        cmocka_unit_test_teardown(test_another_thread_meanwhile, tidy),
        cmocka_unit_test_teardown(test_others_have_the_lock_between, tidy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
