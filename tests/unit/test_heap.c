/* >>estimator >>heap >>hooks: that the estimate and its error are true of allocations that are made up, that a map of samples
   is what it should be, within its limit, and that hooks go in and out while threads allocate. Python is not initialised. */
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"

#include <math.h>
#include <sys/wait.h>

#include "unit.h"

/* Starts with a seed of this thread's own, so that the same samples are taken each time. */
static void start(size_t sampling_bytes, size_t memory_limit, uint64_t seed) {
    pyprof_heap_desc desc = {0};
    desc.sampling_bytes = sampling_bytes;
    desc.memory_limit = memory_limit;
    pyprof__heap_here()->random = seed;
    pyprof__heap_here()->mean = 0;
    pyprof__heap_here()->left = 0;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
}

static void end(void) {
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

static pyprof_heap_stats stats_now(void) {
    pyprof_heap_stats stats;
    assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_OK);
    return stats;
}

static void test_functions_are_libms(void **state) {
    (void)state;
    for (double x = 1e-16; x <= 1; x *= 1.01) {
        assert_true(fabs(pyprof__logarithm(x) - log(x)) <= 1e-14 * fabs(log(x)) + 1e-15);
    }
    for (double x = 1e-12; x < 100; x *= 1.01) {
        assert_true(fabs(pyprof__chance(x) + expm1(-x)) <= 1e-13 * -expm1(-x));
        assert_true(fabs(pyprof__root(x * 1e18) - sqrt(x * 1e18)) <= 1e-12 * sqrt(x * 1e18));
    }
    assert_true(pyprof__root(0) == 0);
}

/* Sizes from 8 bytes to 64 MiB, as many of each power of two; below sampling_bytes most, as in programs. */
static uint64_t made_up_size(uint64_t *random) {
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    uint64_t bits = *random >> 33, magnitude = bits % 100 < 98 ? 3 + bits % 10 : 13 + bits % 13;
    return (UINT64_C(1) << magnitude) + (bits >> 8) % (UINT64_C(1) << magnitude);
}

/* 2,000 runs of 1,000 allocations. The mean of all estimates is the truth, and 95 % of them are within 1.96 of the errors that
   are told with them; so are those of the variances. */
static void test_estimates_are_true(void **state) {
    enum {
        runs = 2000,
        allocations = 1000
    };
    const uint64_t mean = 65536;
    double sum_of_scores = 0, squares_of_scores = 0, error_of_sum = 0, truth_sum = 0, estimate_sum = 0;
    int within = 0;
    uint64_t random = 7;
    pyprof__heap_thread thread = {0};
    (void)state;
    thread.random = 1;
    pyprof__set64(&pyprof__heap_mean, mean);
    for (int run = 0; run < runs; run++) {
        double truth = 0, estimate = 0, variance = 0;
        for (int i = 0; i < allocations; i++) {
            uint64_t size = made_up_size(&random);
            truth += (double)size;
            thread.left -= (int64_t)size;
            uint64_t drawn = thread.left < 0 ? pyprof__heap_due(&thread, size) : 0;
            if (drawn != 0) {
                double weight = pyprof__heap_weight(size, drawn);
                estimate += weight * (double)size;
                variance += pyprof__heap_variance(size, weight);
            }
        }
        double score = (estimate - truth) / sqrt(variance);
        within += fabs(score) <= 1.96;
        sum_of_scores += score;
        squares_of_scores += score * score;
        truth_sum += truth;
        estimate_sum += estimate;
        error_of_sum += variance;
        assert_true(variance <= (double)mean * estimate);
    }
    pyprof__set64(&pyprof__heap_mean, 0);
    print_message("%d of %d within 1.96 errors; estimate / truth %.5f +- %.5f; scores' variance %.3f\n", within, runs,
                  estimate_sum / truth_sum, sqrt(error_of_sum) / truth_sum, squares_of_scores / runs);
    assert_true(fabs(estimate_sum - truth_sum) <= 3 * sqrt(error_of_sum));
    assert_true(within >= runs * 93 / 100 && within <= runs * 97 / 100);
    assert_true(fabs(squares_of_scores / runs - 1) < 0.12);
}

/* Whether the sampling of one allocation depends on the one before: pairs of samples are as many as by chance. */
static void test_samples_are_independent(void **state) {
    enum {
        allocations = 1000000
    };
    uint64_t pairs = 0, samples = 0;
    bool was_sampled = false;
    pyprof__heap_thread thread = {0};
    (void)state;
    thread.random = 3;
    pyprof__set64(&pyprof__heap_mean, 1000);
    for (int i = 0; i < allocations; i++) {
        thread.left -= 300;
        bool is_sampled = thread.left < 0 && pyprof__heap_due(&thread, 300) != 0;
        samples += is_sampled;
        pairs += is_sampled && was_sampled;
        was_sampled = is_sampled;
    }
    pyprof__set64(&pyprof__heap_mean, 0);
    double chance = 1 - exp(-0.3), expected = chance * chance * allocations;
    assert_true(fabs((double)samples - chance * allocations) < 4 * sqrt(chance * allocations));
    assert_true(fabs((double)pairs - expected) < 5 * sqrt(expected));
}

/* A gap that was drawn by one mean goes on to its end while samples are taken by another, and its sample has the weight of
   its own. */
static void test_mean_changes(void **state) {
    pyprof__heap_thread thread = {0};
    (void)state;
    thread.random = 5;
    pyprof__set64(&pyprof__heap_mean, 1000);
    while (pyprof__heap_due(&thread, 1) == 0) {
        thread.left--;
    }
    pyprof__set64(&pyprof__heap_mean, 50);
    thread.left = -1;
    assert_int_equal(pyprof__heap_due(&thread, 10), 1000);
    thread.left = -1;
    assert_int_equal(pyprof__heap_due(&thread, 10), 50);
    pyprof__set64(&pyprof__heap_mean, 0);
    thread.left = -1;
    assert_int_equal(pyprof__heap_due(&thread, 10), 0);
    assert_true(thread.left == 0 && thread.mean == 0);
}

/* A long gap is not waited for where samples are taken by another mean: what is left of it is drawn anew by that, within a
   MiB. So a second session has its samples at once, in the thread that starts it and in others. */
static void test_long_gaps_are_drawn_anew(void **state) {
    const uint64_t old_mean = 1u << 30, mean = 1000;
    uint64_t samples = 0, passed = 0;
    pyprof__heap_thread thread = {0};
    (void)state;
    thread.random = 9;
    pyprof__set64(&pyprof__heap_mean, old_mean);
    while (thread.rest == 0) {
        thread.left = -1;
        thread.mean = 0;
        (void)pyprof__heap_due(&thread, 1);
    }
    pyprof__set64(&pyprof__heap_mean, mean);
    for (; samples == 0; passed += 100) {
        thread.left -= 100;
        samples += thread.left < 0 && pyprof__heap_due(&thread, 100) == mean;
        assert_true(passed < (1u << 20) + 20 * mean);
    }
    for (int i = 0; i < 100000; i++) {
        thread.left -= 100;
        samples += thread.left < 0 && pyprof__heap_due(&thread, 100) == mean;
    }
    pyprof__set64(&pyprof__heap_mean, 0);
    double expected = 100000 * (1 - exp(-0.1));
    assert_true(fabs((double)samples - expected) < 5 * sqrt(expected));
}

/* Gaps that are much longer than a look, and allocations that are longer than many: as many samples as by chance. */
static void test_long_gaps_are_true(void **state) {
    const uint64_t mean = 50u << 20, sizes[] = {3u << 10, 7u << 20, 300u << 20};
    pyprof__heap_thread thread = {0};
    (void)state;
    thread.random = 13;
    pyprof__set64(&pyprof__heap_mean, mean);
    for (size_t i = 0; i < 3; i++) {
        const uint64_t allocations = i == 0 ? 20000000 : 100000;
        uint64_t samples = 0;
        for (uint64_t j = 0; j < allocations; j++) {
            thread.left -= (int64_t)sizes[i];
            samples += thread.left < 0 && pyprof__heap_due(&thread, sizes[i]) != 0;
        }
        double chance = 1 - exp(-(double)sizes[i] / (double)mean), expected = chance * (double)allocations;
        assert_true(fabs((double)samples - expected) < 5 * sqrt(expected * (1 - chance)) + 1);
    }
    pyprof__set64(&pyprof__heap_mean, 0);
}

enum {
    ADDRESSES = 20000
};

static void *made_up_address(size_t i) {
    return (void *)(uintptr_t)(0x10000000u + i * 48);
}

/* Each is a sample, and lives or not as it should; at the end none does. */
static void test_map_follows_what_lives(void **state) {
    static bool lives[ADDRESSES];
    uint64_t random = 11, live = 0, replaced = 0;
    (void)state;
    memset(lives, 0, sizeof lives);
    start(1, 0, 1);
    for (int i = 0; i < 200000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t at = (size_t)(random >> 33) % ADDRESSES;
        if ((random >> 20) % 3 > 0) { /* also where one lives: its end was not seen */
            replaced += lives[at];
            live += !lives[at];
            lives[at] = true;
            pyprof_heap_on_alloc(made_up_address(at), 1000 + at);
        } else {
            live -= lives[at];
            lives[at] = false;
            pyprof_heap_on_free(made_up_address(at));
        }
    }
    pyprof_heap_stats stats = stats_now();
    assert_int_equal(stats.samples_live, live);
    assert_int_equal(stats.samples_replaced, replaced);
    assert_int_equal(stats.samples, stats.samples_live + stats.samples_freed + stats.samples_replaced);
    assert_true(stats.live_bytes >= live * 1000 && stats.stacks == 1 && stats.lost_memory == 0);
    assert_int_equal(pyprof_heap_stop(), PYPROF_OK);
    pyprof_heap_on_alloc(made_up_address(ADDRESSES), 1000);
    assert_int_equal(stats_now().samples, stats.samples);
    for (size_t i = 0; i < ADDRESSES; i++) {
        pyprof_heap_on_free(made_up_address(i));
    }
    stats = stats_now();
    assert_true(stats.samples_live == 0 && stats.live_bytes == 0 && stats.live_bytes_error == 0);
    for (uint32_t i = 0; i < PYPROF__HEAP_FILTER; i++) {
        assert_int_equal(pyprof__heap.filter[i], 0);
    }
    end();
}

/* What has no room is counted, with its bytes; what has takes 120 bytes at most. */
static void test_memory_has_a_limit(void **state) {
    counted_memory counts;
    pyprof_heap_desc desc = {0};
    (void)state;
    memset(&counts, 0, sizeof counts);
    desc.sampling_bytes = 1;
    desc.memory_limit = 1 << 20;
    desc.allocator.alloc_fn = counted_alloc;
    desc.allocator.free_fn = counted_free;
    desc.allocator.user = &counts;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
    uint64_t empty = stats_now().bytes;
    double most = 0;
    size_t last = 0; /* bytes */
    for (size_t i = 0; i < 100000; i++) {
        pyprof_heap_on_alloc(made_up_address(i), 100);
        if (counts.bytes == last && i % 1000 != 0) {
            continue; /* each takes most where the arrays have just grown */
        }
        last = counts.bytes;
        pyprof_heap_stats now = stats_now();
        double each = (double)(now.bytes - empty) / (double)now.samples_live;
        most = now.samples_live >= 1024 && each > most ? each : most;
    }
    print_message("at most %.1f bytes a live sample\n", most);
    assert_true(most > 0 && most <= 200);
    pyprof_heap_stats stats = stats_now();
    assert_int_equal(stats.samples_live + stats.lost_memory, 100000);
    assert_int_equal(stats.lost_bytes, stats.lost_memory * 100);
    assert_true(stats.lost_memory > 0 && stats.samples_live * 120 > stats.bytes);
    assert_true(counts.peak_bytes <= desc.memory_limit && stats.bytes == counts.bytes);
    pyprof_profile *profile;
    assert_int_equal(pyprof_heap_snapshot(&profile), PYPROF_OK);
    pyprof_free(profile);
    end();
    assert_int_equal(counts.blocks, 0);
}

static bool add_value(void *user, const pyprof_node *node) {
    *(uint64_t *)user += node->value;
    return true;
}

static uint64_t sum_of(const pyprof_profile *profile, pyprof_metric metric) {
    uint64_t sum = 0;
    pyprof_output output = {0};
    const pyprof_visitor visitor = {.node = add_value, .user = &sum};
    output.metric = metric;
    assert_int_equal(pyprof_visit(profile, &output, &visitor), PYPROF_OK);
    return sum;
}

/* At the finest rates what a sample stands for is no whole number of bytes, nor of parts of an object. Where all are of one
   size, the sums are right all the same: those of the figures and those of the profile, which are equal. */
static void test_sums_of_fractions_are_true(void **state) {
    enum {
        count = 200000
    };
    (void)state;
    for (size_t mean = 1; mean <= 20; mean += 1 + mean / 2) {
        for (size_t size = 1; size <= 12; size += 1 + size / 2) {
            pyprof_profile *profile;
            start(mean, 256u << 20, mean);
            for (size_t i = 0; i < count; i++) {
                pyprof_heap_on_alloc(made_up_address(i), size);
            }
            pyprof_heap_stats stats = stats_now();
            double truth = (double)count * (double)size, error = (double)stats.live_bytes_error + 1;
            assert_true(fabs((double)stats.live_bytes - truth) < 4.5 * error);
            assert_true(fabs((double)stats.live_objects - count) < 4.5 * error / (double)size + 1);
            assert_true(stats.alloc_bytes == stats.live_bytes && stats.alloc_bytes_error == stats.live_bytes_error);
            assert_int_equal(pyprof_heap_snapshot(&profile), PYPROF_OK);
            assert_int_equal(sum_of(profile, PYPROF_METRIC_INUSE_SPACE), stats.live_bytes);
            assert_int_equal(sum_of(profile, PYPROF_METRIC_ALLOC_SPACE), stats.alloc_bytes);
            assert_int_equal(sum_of(profile, PYPROF_METRIC_INUSE_OBJECTS), stats.live_objects);
            pyprof_free(profile);
            end();
        }
    }
}

/* Each call of the allocator that is refused: start fails and has changed nothing, or samples are lost. */
static void test_allocator_gives_nothing(void **state) {
    pyprof_result result = PYPROF_ERROR_MEMORY;
    int copies_refused = 0;
    (void)state;
    for (size_t refused = 1; refused < 40; refused++) {
        counted_memory counts;
        pyprof_heap_desc desc = {0};
        memset(&counts, 0, sizeof counts);
        counts.refuse_from = refused;
        desc.sampling_bytes = 1;
        desc.allocator.alloc_fn = counted_alloc;
        desc.allocator.free_fn = counted_free;
        desc.allocator.user = &counts;
        result = pyprof_heap_start(&desc);
        if (result == PYPROF_OK) {
            pyprof_profile *profile;
            for (size_t i = 0; i < 5000; i++) {
                pyprof_heap_on_alloc(made_up_address(i), 100);
            }
            pyprof_heap_stats stats = stats_now();
            assert_int_equal(stats.samples, 5000);
            assert_int_equal(stats.samples_live + stats.lost_memory, 5000);
            pyprof_result copied = pyprof_heap_snapshot_samples(&profile);
            assert_int_equal(copied, profile != NULL ? PYPROF_OK : PYPROF_ERROR_MEMORY);
            copies_refused += profile == NULL;
            pyprof_free(profile);
            end();
        } else {
            assert_int_equal(result, PYPROF_ERROR_MEMORY);
            assert_int_equal(pyprof_heap_shutdown(), PYPROF_ERROR_NOT_ACTIVE);
        }
        assert_int_equal(counts.blocks, 0);
    }
    assert_true(result == PYPROF_OK && copies_refused > 0);
}

static void *failing_realloc(void *context, void *memory, size_t size) {
    (void)context, (void)memory, (void)size;
    return NULL;
}

/* A realloc ends one allocation and begins another; one that fails has changed nothing. */
static void test_sizes_change(void **state) {
    (void)state;
    start(1, 0, 1);
    void *memory = PyMem_RawMalloc(1000);
    assert_int_equal(stats_now().live_bytes, 1000);
    memory = PyMem_RawRealloc(memory, 100);
    assert_int_equal(stats_now().live_bytes, 100);
    memory = PyMem_RawRealloc(memory, 5000000);
    assert_int_equal(stats_now().live_bytes, 5000000);
    PyMemAllocatorEx next = *pyprof__next[0];
    pyprof__next[0]->realloc = failing_realloc;
    assert_null(PyMem_RawRealloc(memory, 10));
    *pyprof__next[0] = next;
    pyprof_heap_stats stats = stats_now();
    assert_true(stats.live_bytes == 5000000 && stats.samples == 3 && stats.samples_freed == 2);
    PyMem_RawFree(memory);
    memory = PyMem_RawRealloc(NULL, 70);
    void *zeros = PyMem_RawCalloc(7, 11);
    stats = stats_now();
    assert_true(stats.live_bytes == 147 && stats.samples_live == 2 && stats.alloc_bytes == 5001247);
    PyMem_RawFree(memory);
    PyMem_RawFree(zeros);
    PyMem_RawFree(NULL);
    assert_int_equal(stats_now().samples_live, 0);
    end();
}

static void *failing_late_realloc(void *context, void *memory, size_t size) {
    (void)context, (void)memory, (void)size;
    end(); /* as another thread may */
    start(1, 0, 1);
    pyprof__next[0]->realloc = failing_late_realloc; /* which start has taken anew */
    return NULL;
}

/* A realloc that fails when its sample's session is over brings nothing back: its stack is not in the new tree. */
static void test_sessions_change_within_a_realloc(void **state) {
    PyMemAllocatorEx before;
    (void)state;
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &before);
    start(1, 0, 1);
    void *memory = PyMem_RawMalloc(1000);
    pyprof__next[0]->realloc = failing_late_realloc;
    assert_null(PyMem_RawRealloc(memory, 10));
    *pyprof__next[0] = before;
    pyprof_heap_stats stats = stats_now();
    assert_true(stats.samples_live == 0 && stats.live_bytes == 0 && stats.samples_freed == 0);
    PyMem_RawFree(memory);
    end();
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &before);
}

/* An allocator that lies under raw's hook, and passes all on to obj's, in parts and as a whole; every third one fails. */
static PyMemAllocatorEx hook_passed_to;
static unsigned passed_on;

static void *passing_malloc(void *context, size_t size) {
    (void)context;
    hook_passed_to.free(hook_passed_to.ctx, hook_passed_to.malloc(hook_passed_to.ctx, size / 2));
    void *memory = hook_passed_to.malloc(hook_passed_to.ctx, size);
    if (++passed_on % 3 == 0) {
        hook_passed_to.free(hook_passed_to.ctx, memory);
        memory = NULL;
    }
    return memory;
}

static void *passing_calloc(void *context, size_t count, size_t size) {
    return passing_malloc(context, count * size);
}

static void *passing_realloc(void *context, void *memory, size_t size) {
    hook_passed_to.free(hook_passed_to.ctx, memory);
    return passing_malloc(context, size);
}

static void passing_free(void *context, void *memory) {
    (void)context;
    hook_passed_to.free(hook_passed_to.ctx, memory);
}

/* Allocates in one of three ways. */
static void *made(unsigned way, size_t size) {
    if (way == 1) {
        return PyMem_RawCalloc(2, size / 2);
    }
    return way == 2 ? PyMem_RawRealloc(PyMem_RawMalloc(0), size) : PyMem_RawMalloc(size);
}

/* It counts where it was asked for, once, and as often as by chance: whether it passes a point or not, is given or not. */
static void test_what_is_passed_on_counts_once(void **state) {
    const PyMemAllocatorEx passing = {NULL, passing_malloc, passing_calloc, passing_realloc, passing_free};
    double truth = 0;
    (void)state;
    start(1000, 0, 1);
    PyMemAllocatorEx raw = *pyprof__next[0], obj = *pyprof__next[2];
    hook_passed_to = pyprof__hooks[2];
    hook_passed_to.ctx = raw.ctx; /* as each hook has that of what it lies over */
    *pyprof__next[2] = *pyprof__next[0];
    *pyprof__next[0] = passing;
    for (unsigned i = 0; i < 300000; i++) {
        size_t size = 2 + 2 * (i % 200) + (i % 100 == 0 ? 5000 : 0);
        void *memory = made(i / 7 % 3, size);
        truth += memory != NULL ? (double)size : 0;
        PyMem_RawFree(memory);
        assert_true(pyprof__heap_here()->left >= 0 && pyprof__heap_here()->left <= PYPROF__HEAP_LOOK);
    }
    *pyprof__next[0] = raw;
    *pyprof__next[2] = obj;
    pyprof_heap_stats stats = stats_now();
    assert_true(passed_on > 300000 && (double)stats.alloc_bytes_error < truth / 50);
    assert_true(fabs((double)stats.alloc_bytes - truth) < 3 * (double)stats.alloc_bytes_error);
    assert_int_equal(stats.samples_live, 0);
    end();
}

/* What no block can be is none, and takes nothing from those that follow. */
static void test_impossible_sizes(void **state) {
    static const size_t sizes[] = {(size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX + 2, SIZE_MAX - 1, SIZE_MAX};
    (void)state;
    start(1, 0, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pyprof_heap_on_alloc(made_up_address(1), sizes[i]);
        pyprof_heap_on_free(made_up_address(1));
        assert_null(PyMem_RawMalloc(sizes[i]));
        assert_null(PyMem_RawRealloc(NULL, sizes[i]));
        assert_int_equal(stats_now().samples, i);
        pyprof_heap_on_alloc(made_up_address(2), 100);
        assert_int_equal(stats_now().live_bytes, 100);
        pyprof_heap_on_free(made_up_address(2));
    }
    pyprof_heap_on_alloc(made_up_address(1), PTRDIFF_MAX);
    pyprof_heap_on_free(made_up_address(1));
    pyprof_heap_on_alloc(made_up_address(2), 100);
    assert_int_equal(stats_now().live_bytes, 100);
    pyprof_heap_on_free(made_up_address(2));
    end();
}

static void *start_at_each_byte(void *user) {
    start(1, 0, 2);
    return user;
}

/* Then nothing is counted, not even by a thread that had a gap; what lives is followed on; and each thread counts again at
   once when samples are taken. */
static void test_stopped(void **state) {
    pthread_t thread;
    (void)state;
    start(1, 0, 1);
    void *held = PyMem_RawMalloc(100);
    assert_int_equal(pyprof_heap_stop(), PYPROF_OK);
    for (int i = 0; i < 3; i++) {
        PyMem_RawFree(PyMem_RawRealloc(PyMem_RawCalloc(2, 10), 70));
        PyMem_RawFree(PyMem_RawMalloc(50));
        assert_true(pyprof__heap_here()->left == 0 && pyprof__heap_here()->mean == 0);
    }
    assert_int_equal(stats_now().live_bytes, 100);
    held = PyMem_RawRealloc(held, 200);
    pyprof_heap_stats stats = stats_now();
    assert_true(stats.samples == 1 && stats.samples_live == 0 && stats.samples_freed == 1);
    assert_int_equal(pthread_create(&thread, NULL, start_at_each_byte, NULL), 0);
    pthread_join(thread, NULL);
    PyMem_RawFree(held);
    held = PyMem_RawMalloc(100); /* sampled for certain, as are all of this size */
    assert_int_equal(stats_now().live_bytes, 100);
    PyMem_RawFree(held);
    end();
}

/* A session with few samples leaves nothing behind that the next one would wait for. */
static void test_the_next_session_samples_at_once(void **state) {
    pyprof_heap_desc desc = {0};
    (void)state;
    desc.sampling_bytes = (size_t)1 << 30;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
    pyprof_heap_on_alloc(made_up_address(1), 100);
    pyprof_heap_on_free(made_up_address(1));
    end();
    desc.sampling_bytes = 1;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
    pyprof_heap_on_alloc(made_up_address(1), 100);
    assert_int_equal(stats_now().live_bytes, 100);
    pyprof_heap_on_free(made_up_address(1));
    end();
}

static void test_misuse(void **state) {
    pyprof_heap_desc desc = {0};
    pyprof_heap_stats stats;
    pyprof_profile *profile;
    (void)state;
    assert_int_equal(pyprof_heap_stop(), PYPROF_ERROR_NOT_ACTIVE);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_ERROR_NOT_ACTIVE);
    assert_int_equal(pyprof_heap_snapshot(&profile), PYPROF_ERROR_NOT_ACTIVE);
    assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_ERROR_NOT_ACTIVE);
    assert_string_equal(pyprof_last_error(),
                        "pyprof_heap_get_stats: heap sampling is not on: pyprof_heap_start begins it");
    assert_int_equal(pyprof_heap_snapshot(NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_heap_get_stats(NULL), PYPROF_ERROR_ARGUMENT);
    desc.sampling_bytes = ((size_t)1 << 30) + 1;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_ERROR_ARGUMENT);
    desc.sampling_bytes = 0;
    desc.memory_limit = 1000;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_ERROR_ARGUMENT);
    desc.memory_limit = 0;
    desc.max_depth = 3;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_ERROR_ARGUMENT);
    desc.max_depth = 0;
    desc.allocator.free_fn = counted_free;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_ERROR_ARGUMENT);
    pyprof_heap_on_alloc(made_up_address(1), 1 << 30);
    pyprof_heap_on_free(made_up_address(1));
    assert_int_equal(pyprof_heap_start(NULL), PYPROF_OK);
    assert_int_equal(pyprof_heap_start(NULL), PYPROF_ERROR_ALREADY_ACTIVE);
    assert_int_equal(pyprof_heap_stop(), PYPROF_OK);
    assert_int_equal(pyprof_heap_stop(), PYPROF_ERROR_NOT_ACTIVE);
    assert_int_equal(pyprof_heap_start(NULL), PYPROF_OK);
    assert_int_equal(stats_now().domains, PYPROF_HEAP_RAW | PYPROF_HEAP_MEM | PYPROF_HEAP_OBJ);
    end();
}

static PyMemAllocatorEx below; /* what over has been put over */

static void *over_malloc(void *context, size_t size) {
    return below.malloc(context, size);
}

/* Ours are not taken out from under others; what is gone is put back. */
static void test_others_hooks(void **state) {
    PyMemAllocatorEx before, over;
    (void)state;
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &before);
    start(1, 0, 1);
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &below);
    over = below;
    over.malloc = over_malloc;
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &over);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_ERROR_HOOKED);
    assert_int_equal(stats_now().domains, PYPROF_HEAP_RAW | PYPROF_HEAP_MEM | PYPROF_HEAP_OBJ);
    assert_int_equal(pyprof_heap_start(NULL), PYPROF_ERROR_ALREADY_ACTIVE);
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &before); /* as CPython does when it begins anew */
    assert_int_equal(stats_now().domains, PYPROF_HEAP_MEM | PYPROF_HEAP_OBJ);
    assert_int_equal(pyprof_heap_start(NULL), PYPROF_OK);
    assert_int_equal(stats_now().domains, PYPROF_HEAP_RAW | PYPROF_HEAP_MEM | PYPROF_HEAP_OBJ);
    end();
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &over);
    assert_memory_equal(&before, &over, sizeof before);
}

/* A pool that serves what is small itself: one block at a time. */
static char pooled[4096];

static void *pool_malloc(void *context, size_t size) {
    return size <= sizeof pooled ? pooled : below.malloc(context, size);
}

static void *pool_calloc(void *context, size_t count, size_t size) {
    return count * size <= sizeof pooled ? memset(pooled, 0, sizeof pooled) : below.calloc(context, count, size);
}

static void *pool_realloc(void *context, void *memory, size_t size) {
    return memory == pooled ? pool_malloc(context, size) : below.realloc(context, memory, size);
}

static void pool_free(void *context, void *memory) {
    if (memory != pooled) {
        below.free(context, memory);
    }
}

/* A pool over our hook hides it from small requests only: it is there all the same, and is not put over the pool, where it
   would call itself for ever. */
static void test_others_pool(void **state) {
    PyMemAllocatorEx pool = {NULL, pool_malloc, pool_calloc, pool_realloc, pool_free};
    (void)state;
    start(1, 0, 1);
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &below);
    pool.ctx = below.ctx;
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &pool);
    assert_int_equal(stats_now().domains, PYPROF_HEAP_RAW | PYPROF_HEAP_MEM | PYPROF_HEAP_OBJ);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_ERROR_HOOKED);
    assert_int_equal(pyprof_heap_stop(), PYPROF_OK);
    assert_int_equal(pyprof_heap_start(NULL), PYPROF_OK);
    PyMem_RawFree(PyMem_RawMalloc(100));
    PyMem_RawFree(PyMem_RawMalloc(100000));
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &below);
    end();
}

/* Allocators that have to be called with their own contexts. */
static PyMemAllocatorEx strict_below[2];
static int strict_contexts[2];

static const PyMemAllocatorEx *strict(void *context) {
    assert_true(context == &strict_contexts[0] || context == &strict_contexts[1]);
    return &strict_below[(int *)context - strict_contexts];
}

static void *strict_malloc(void *context, size_t size) {
    return strict(context)->malloc(strict(context)->ctx, size);
}

static void *other_strict_malloc(void *context, size_t size) {
    assert_ptr_equal(context, &strict_contexts[1]);
    return strict(context)->malloc(strict(context)->ctx, size);
}

static void *strict_calloc(void *context, size_t count, size_t size) {
    return strict(context)->calloc(strict(context)->ctx, count, size);
}

static void *strict_realloc(void *context, void *memory, size_t size) {
    return strict(context)->realloc(strict(context)->ctx, memory, size);
}

static void strict_free(void *context, void *memory) {
    strict(context)->free(strict(context)->ctx, memory);
}

/* One that has found our hook over another allocator puts that back when ours lies over the one below: which is called with
   its own context all the same. */
static void test_others_out_of_order(void **state) {
    PyMemAllocatorEx one = {&strict_contexts[0], strict_malloc, strict_calloc, strict_realloc, strict_free};
    PyMemAllocatorEx two = one, found, before;
    (void)state;
    two.ctx = &strict_contexts[1];
    two.malloc = other_strict_malloc;
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &before);
    strict_below[0] = before;
    strict_below[1] = one;
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &two);
    start(1, 0, 1);
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &found);
    const PyMemAllocatorEx *below_then = pyprof__below(0);
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &one);
    strict_below[1].malloc = NULL; /* two is gone */
    assert_int_equal(pyprof_heap_start(NULL), PYPROF_OK);
    assert_memory_equal(below_then, &two, sizeof two); /* a thread may still be between what it takes of that */
    assert_memory_equal(pyprof__below(0), &one, sizeof one);
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &found);
    void *memory = PyMem_RawMalloc(100);
    memory = PyMem_RawRealloc(memory, 200);
    PyMem_RawFree(memory);
    PyMem_RawFree(PyMem_RawCalloc(2, 50));
    assert_int_equal(stats_now().domains, PYPROF_HEAP_RAW | PYPROF_HEAP_MEM | PYPROF_HEAP_OBJ);
    end();
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &found);
    assert_memory_equal(&found, &one, sizeof one);
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &before);
}

static pyprof__atomic32 must_end;

static void *allocate(void *user) {
    uint64_t random = (uint64_t)(uintptr_t)user;
    void *held[64] = {0};
    while (!pyprof__get(&must_end)) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        void **at = &held[random >> 58];
        size_t size = 1 + (size_t)(random >> 33) % 2000;
        if (*at != NULL && random % 7 == 0) {
            PyMem_RawFree(*at);
            *at = NULL;
        } else {
            *at = PyMem_RawRealloc(*at, size);
            memset(*at, 1, size);
        }
    }
    for (size_t i = 0; i < 64; i++) {
        PyMem_RawFree(held[i]);
    }
    return NULL;
}

/* A thousand times, while eight threads allocate; and where the last one stays until they have freed all, nothing lives
   that they have allocated since it began. */
static void test_in_and_out_under_load(void **state) {
    pthread_t threads[8];
    (void)state;
    pyprof__set(&must_end, 0);
    for (uintptr_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, allocate, (void *)(i + 1)), 0);
    }
    uint64_t samples = 0;
    for (int i = 0; i < 1000; i++) {
        start(i % 2 == 0 ? 100 : 100000, 0, 0);
        usleep(100);
        samples += stats_now().samples;
        end();
    }
    assert_true(samples > 1000);
    start(100, 0, 0);
    while (stats_now().samples < 10000) {
        sched_yield();
    }
    pyprof__set(&must_end, 1);
    for (size_t i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(stats_now().samples_live, 0);
    assert_int_equal(stats_now().samples_replaced, 0);
    end();
    print_message("%llu samples in 1000 times\n", (unsigned long long)samples);
}

/* A child goes on as its parent does; one that was made without fork's handlers begins anew. */
static void test_forks(void **state) {
    (void)state;
    start(1, 0, 1);
    void *memory = PyMem_RawMalloc(1000);
    for (int with_handlers = 0; with_handlers < 2; with_handlers++) {
        int status = 0;
        pid_t child = with_handlers ? fork() : (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (child == 0) {
            void *more = PyMem_RawMalloc(70);
            pyprof_heap_stats stats;
            pyprof_result result = pyprof_heap_get_stats(&stats);
            bool is_right =
                with_handlers ? result == PYPROF_OK && stats.live_bytes == 1070 : result == PYPROF_ERROR_NOT_ACTIVE;
            PyMem_RawFree(memory);
            PyMem_RawFree(more);
            result = pyprof_heap_get_stats(&stats);
            is_right = is_right && (!with_handlers || stats.live_bytes == 0);
            if (!with_handlers) {
                is_right = is_right && pyprof_heap_start(NULL) == PYPROF_OK;
            }
            is_right = is_right && pyprof_heap_shutdown() == PYPROF_OK;
            _exit(is_right ? 0 : 1);
        }
        assert_true(child > 0 && waitpid(child, &status, 0) == child);
        assert_int_equal(status, 0);
    }
    assert_int_equal(stats_now().live_bytes, 1000);
    PyMem_RawFree(memory);
    end();
}

static bool gather(void *user, const void *data, size_t size) {
    char *text = (char *)user;
    size_t used = strlen(text);
    assert_true(used + size < 65536);
    memcpy(text + used, data, size);
    text[used + size] = '\0';
    return true;
}

static const char *written(const pyprof_profile *profile, pyprof_format format, pyprof_metric metric, char *text) {
    pyprof_output output = {0};
    output.format = format;
    output.metric = metric;
    text[0] = '\0';
    assert_int_equal(pyprof_write(profile, &output, gather, text), PYPROF_OK);
    return text;
}

/* Each format has the figures as they are: bytes and objects, no times. */
static void test_formats(void **state) {
    static char text[65536];
    pyprof_facts facts = {0};
    pyprof_profile *profile;
    (void)state;
    start(1, 0, 1);
    pyprof_heap_on_alloc(made_up_address(1), 5000);
    pyprof_heap_on_alloc(made_up_address(2), 300);
    pyprof_heap_on_free(made_up_address(2));
    assert_int_equal(pyprof_heap_snapshot(&profile), PYPROF_OK);
    end();
    assert_int_equal(pyprof_get_facts(profile, &facts), PYPROF_OK);
    assert_true(facts.kind == PYPROF_KIND_HEAP && facts.sampling_bytes == 1);
    const char *line = "thread MainThread;[native] ";
    static const struct {
        pyprof_metric metric;
        const char *value, *unit, *words;
    } expected[] = {{PYPROF_METRIC_INUSE_SPACE, "5000\n", "\"bytes\"", "bytes in use: 5000\n"},
                    {PYPROF_METRIC_ALLOC_SPACE, "5300\n", "\"bytes\"", "bytes allocated: 5300\n"},
                    {PYPROF_METRIC_ALLOC_OBJECTS, "2\n", "\"none\"", "objects allocated: 2\n"},
                    {PYPROF_METRIC_INUSE_OBJECTS, "1\n", "\"none\"", "objects in use: 1\n"}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        written(profile, PYPROF_FORMAT_COLLAPSED, expected[i].metric, text);
        assert_memory_equal(text, line, strlen(line));
        assert_string_equal(text + strlen(line), expected[i].value);
        written(profile, PYPROF_FORMAT_SPEEDSCOPE, expected[i].metric, text);
        assert_non_null(strstr(text, expected[i].unit));
        assert_null(strstr(text, "nanoseconds"));
        written(profile, PYPROF_FORMAT_TABLE, expected[i].metric, text);
        assert_non_null(strstr(text, expected[i].words));
        assert_null(strstr(text, "wall"));
    }
    /* Of pprof the strings are looked for; formats/ has who reads it. */
    static const char *const names[] = {"inuse_space", "alloc_space", "alloc_objects", "inuse_objects", "bytes"};
    pyprof_output output = {0};
    output.format = PYPROF_FORMAT_PPROF_PLAIN;
    pyprof__gathered gathered = {&profile->memory, {NULL, 1, 0, 0}};
    assert_int_equal(pyprof_write(profile, &output, pyprof__gather, &gathered), PYPROF_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_non_null(memmem(gathered.bytes.data, gathered.bytes.count, names[i], strlen(names[i])));
    }
    assert_null(memmem(gathered.bytes.data, gathered.bytes.count, "nanoseconds", strlen("nanoseconds")));
    pyprof__array_free(&profile->memory, &gathered.bytes);
    output.format = PYPROF_FORMAT_SVG;
    assert_int_equal(pyprof_write(profile, &output, pyprof__gather, &gathered), PYPROF_OK);
    /* The picture has all four, of which one is shown at first. */
    assert_non_null(memmem(gathered.bytes.data, gathered.bytes.count, "4.88 KiB in all", strlen("4.88 KiB in all")));
    assert_non_null(memmem(gathered.bytes.data, gathered.bytes.count, "in use, bytes", strlen("in use, bytes")));
    assert_null(memmem(gathered.bytes.data, gathered.bytes.count, "waiting left out</text>", 23));
    pyprof__array_free(&profile->memory, &gathered.bytes);
    pyprof_free(profile);
}

typedef struct gathered_samples {
    pyprof_heap_sample items[8];
    size_t count;
} gathered_samples;

static bool gather_sample(void *user, const pyprof_heap_sample *sample) {
    gathered_samples *all = (gathered_samples *)user;
    assert_true(all->count < 8);
    all->items[all->count++] = *sample;
    return true;
}

static bool refuse_sample(void *user, const pyprof_heap_sample *sample) {
    (void)sample;
    ++*(int *)user;
    return false;
}

/* In the order of their addresses, which are those of made_up_address. */
static int by_address(const void *one, const void *other) {
    uint64_t a = ((const pyprof_heap_sample *)one)->address, b = ((const pyprof_heap_sample *)other)->address;
    return a < b ? -1 : a > b;
}

/* Notes the number of the node that is called [native]. */
static bool note_native(void *user, const pyprof_node *node) {
    uint32_t *number = (uint32_t *)user;
    *number = strcmp(node->name.data, "[native]") == 0 ? node->number : *number;
    return true;
}

static uint32_t native_of(const pyprof_profile *profile, const pyprof_output *output) {
    uint32_t number = PYPROF_NO_NODE;
    const pyprof_visitor visitor = {.node = note_native, .user = &number};
    assert_int_equal(pyprof_visit(profile, output, &visitor), PYPROF_OK);
    assert_true(number != PYPROF_NO_NODE);
    return number;
}

static gathered_samples samples_of(const pyprof_profile *profile, const pyprof_output *output) {
    gathered_samples all = {.count = 0};
    assert_int_equal(pyprof_visit_samples(profile, output, gather_sample, &all), PYPROF_OK);
    qsort(all.items, all.count, sizeof *all.items, by_address);
    return all;
}

/* Allocates what the samples are to show, and answers the clock before, between and after. */
static pyprof_profile *snapshot_with_samples(uint64_t *times) {
    pyprof_profile *profile;
    start(1, 0, 1);
    times[0] = pyprof__now();
    pyprof_heap_on_alloc(made_up_address(1), 5000);
    times[1] = pyprof__now();
    usleep(2000);
    pyprof_heap_on_alloc(made_up_address(2), 300);
    pyprof_heap_on_alloc(made_up_address(3), 70);
    pyprof_heap_on_free(made_up_address(2));
    times[2] = pyprof__now();
    assert_int_equal(pyprof_heap_snapshot_samples(&profile), PYPROF_OK);
    times[3] = pyprof__now();
    for (int i = 0; i < 4; i++) {
        times[i] -= pyprof__heap.start;
    }
    pyprof_heap_on_free(made_up_address(1));
    end();
    return profile;
}

/* What lives is there one by one, with when it was allocated and how long it has lived: all of it and nothing else. */
static void test_samples_one_by_one(void **state) {
    uint64_t times[4];
    (void)state;
    pyprof_profile *profile = snapshot_with_samples(times);
    gathered_samples all = samples_of(profile, NULL);
    assert_int_equal(all.count, 2);
    assert_true(all.items[0].address == (uintptr_t)made_up_address(1) && all.items[0].size == 5000);
    assert_true(all.items[1].address == (uintptr_t)made_up_address(3) && all.items[1].size == 70);
    for (size_t i = 0; i < 2; i++) {
        const pyprof_heap_sample *sample = &all.items[i];
        uint64_t end = sample->timestamp_ns + sample->lifetime_ns;
        assert_true(sample->weight >= 1 && sample->weight < 1.000001 && sample->estimated_bytes == sample->size);
        assert_true(end >= times[2] && end <= times[3] && sample->reserved == 0);
        assert_int_equal(sample->node, native_of(profile, NULL));
    }
    assert_true(all.items[0].timestamp_ns >= times[0] && all.items[0].timestamp_ns <= times[1]);
    assert_true(all.items[1].timestamp_ns >= times[1] + 2000000 && all.items[1].timestamp_ns <= times[2]);
    pyprof_free(profile);
}

/* Their nodes are those of a visit with the same output; filters drop them with their nodes, or lead them to another. */
static void test_samples_are_filtered(void **state) {
    uint64_t times[4];
    pyprof_output output = {0};
    (void)state;
    pyprof_profile *profile = snapshot_with_samples(times);
    output.thread = "nobody";
    assert_int_equal(samples_of(profile, &output).count, 0);
    output.thread = "Main*";
    assert_int_equal(samples_of(profile, &output).count, 2);
    output.function = "[native]";
    gathered_samples all = samples_of(profile, &output);
    assert_int_equal(all.count, 2);
    assert_int_equal(all.items[0].node, native_of(profile, &output));
    assert_int_equal(all.items[1].node, native_of(profile, &output));
    output.function = "elsewhere";
    assert_int_equal(samples_of(profile, &output).count, 0);
    output.function = NULL;
    output.min_share = 1;
    assert_int_equal(samples_of(profile, &output).count, 2);
    pyprof_free(profile);
}

/* Who does not ask for samples has none; what is wrong is said. */
static void test_samples_misused(void **state) {
    uint64_t times[4];
    pyprof_profile *profile;
    int count = 0;
    (void)state;
    assert_int_equal(pyprof_heap_snapshot_samples(NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_heap_snapshot_samples(&profile), PYPROF_ERROR_NOT_ACTIVE);
    assert_null(profile);
    assert_non_null(strstr(pyprof_last_error(), "pyprof_heap_snapshot_samples: heap sampling is not on"));
    profile = snapshot_with_samples(times);
    assert_int_equal(pyprof_visit_samples(NULL, NULL, gather_sample, &count), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_visit_samples(profile, NULL, NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_non_null(strstr(pyprof_last_error(), "take is NULL"));
    assert_int_equal(pyprof_visit_samples(profile, NULL, refuse_sample, &count), PYPROF_ERROR_WRITE);
    assert_int_equal(count, 1);
    pyprof_free(profile);
    start(1, 0, 1);
    pyprof_heap_on_alloc(made_up_address(1), 5000);
    assert_int_equal(pyprof_heap_snapshot(&profile), PYPROF_OK);
    end();
    assert_int_equal(samples_of(profile, NULL).count, 0);
    pyprof_free(profile);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions_are_libms),
        cmocka_unit_test(test_estimates_are_true),
        cmocka_unit_test(test_samples_are_independent),
        cmocka_unit_test(test_mean_changes),
        cmocka_unit_test(test_long_gaps_are_drawn_anew),
        cmocka_unit_test(test_long_gaps_are_true),
        cmocka_unit_test(test_what_is_passed_on_counts_once),
        cmocka_unit_test(test_sessions_change_within_a_realloc),
        cmocka_unit_test(test_impossible_sizes),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_the_next_session_samples_at_once),
        cmocka_unit_test(test_map_follows_what_lives),
        cmocka_unit_test(test_memory_has_a_limit),
        cmocka_unit_test(test_sums_of_fractions_are_true),
        cmocka_unit_test(test_allocator_gives_nothing),
        cmocka_unit_test(test_sizes_change),
        cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_others_hooks),
        cmocka_unit_test(test_others_pool),
        cmocka_unit_test(test_others_out_of_order),
        cmocka_unit_test(test_in_and_out_under_load),
        cmocka_unit_test(test_forks),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_samples_one_by_one),
        cmocka_unit_test(test_samples_are_filtered),
        cmocka_unit_test(test_samples_misused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
