/* >>native: that mappings which end in parts, move, grow and take each other's places are what a kernel that is made up has,
   page by page; that failed calls change nothing, errno stays, and what does not fit is counted. Python is not initialised. */
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"

#include <sys/mman.h>

#include "unit.h"

enum {
    PAGES = 64, /* of the made-up address space */
    PAGE = 4096
};

static const uintptr_t base = UINT64_C(0x100000000);
static bool is_mapped[2 * PAGES]; /* behind it are some that a mapping may grow into */
static bool is_failing;
static uintptr_t moved_to;
static uint64_t random_state = 1;

static uint32_t below(uint32_t limit) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % limit;
}

static void *page_at(size_t page) {
    return (void *)(base + page * PAGE);
}

static void mark(uintptr_t address, size_t size, bool is_there) {
    for (size_t i = 0; i < (size + PAGE - 1) / PAGE; i++) {
        is_mapped[(address - base) / PAGE + i] = is_there;
    }
}

static int kernels_munmap(void *memory, size_t size) {
    (void)memory, (void)size;
    errno = is_failing ? EINVAL : errno;
    return is_failing ? -1 : 0;
}

static void *kernels_mremap(const pyprof_heap_remap *call) {
    (void)call;
    errno = is_failing ? ENOMEM : errno;
    return is_failing ? (void *)-1 : (void *)moved_to;
}

static void start(size_t memory_limit) {
    pyprof_heap_desc desc = {0};
    desc.sampling_bytes = 1;
    desc.memory_limit = memory_limit;
    assert_int_equal(pyprof_heap_start(&desc), PYPROF_OK);
    memset(is_mapped, 0, sizeof is_mapped);
}

static pyprof_heap_stats stats_now(void) {
    pyprof_heap_stats stats;
    assert_int_equal(pyprof_heap_get_stats(&stats), PYPROF_OK);
    return stats;
}

static void *self(void) {
    return pyprof__heap_here();
}

/* The samples are the pages that are mapped, in their order, and none twice. */
static void assert_agrees(void) {
    size_t pages = 0, page = 0;
    for (uint32_t i = 0; i < pyprof__heap.mappings.count; i++) {
        const pyprof__live *mapping = pyprof__map_at(i);
        size_t first = (mapping->address - base) / PAGE;
        assert_true(mapping->size > 0 && mapping->size % PAGE == 0 && first >= page && mapping->weight == 1);
        for (page = first; page < first + mapping->size / PAGE; page++) {
            assert_true(is_mapped[page]);
            pages++;
        }
    }
    for (size_t i = 0; i < 2 * PAGES; i++) {
        pages -= is_mapped[i];
    }
    assert_int_equal(pages, 0);
    assert_int_equal(pyprof__get(&pyprof__heap.mapped_now), pyprof__heap.mappings.count);
}

static void do_map(void) {
    size_t page = below(PAGES), count = 1 + below(8), size = count * PAGE - below(PAGE);
    bool is_memory = below(3) > 0;
    pyprof__native_map(self(), page_at(page), size, is_memory);
    mark(base + page * PAGE, size, is_memory);
}

static void do_unmap(void) {
    size_t page = below(PAGES), size = (1 + below(8)) * PAGE - below(PAGE);
    errno = 99;
    int result = pyprof__native_unmap(self(), page_at(page), size, kernels_munmap);
    assert_int_equal(result, is_failing ? -1 : 0);
    assert_int_equal(errno, is_failing ? EINVAL : 99);
    if (!is_failing) {
        mark(base + page * PAGE, size, false);
    }
}

/* A run of mapped pages, which a kernel would move as one. It goes elsewhere, or stays where it may grow. */
static void do_remap(void) {
    bool old[2 * PAGES];
    size_t page = below(PAGES), count = 1 + below(6), wanted = 1 + below(8);
    bool ends = is_mapped[page + count - 1];
    moved_to = below(2) == 0 ? base + page * PAGE : base + (PAGES + 8 + below(PAGES - 16)) * PAGE;
    if (moved_to == base + page * PAGE && wanted > count) { /* there has to be room */
        pyprof__native_unmap(self(), page_at(page + count), (wanted - count) * PAGE, kernels_munmap);
        mark(base + (page + count) * PAGE, is_failing ? 0 : (wanted - count) * PAGE, false);
    }
    pyprof_heap_remap call = {page_at(page), count * PAGE, wanted * PAGE, MREMAP_MAYMOVE, NULL};
    void *now = pyprof__native_remap(self(), &call, kernels_mremap);
    assert_true(now == (is_failing ? (void *)-1 : (void *)moved_to));
    if (is_failing) {
        return;
    }
    memcpy(old, is_mapped, sizeof old);
    mark(base + page * PAGE, count * PAGE, false);
    mark(moved_to, wanted * PAGE, false);
    for (size_t i = 0; i < wanted; i++) {
        is_mapped[(moved_to - base) / PAGE + i] = i < count ? old[page + i] : ends;
    }
}

static void test_as_a_kernel_has_it(void **state) {
    (void)state;
    for (int run = 0; run < 50; run++) {
        start(0);
        for (int i = 0; i < 500; i++) {
            uint32_t kind = below(4);
            is_failing = below(10) == 0;
            kind < 2 ? do_map() : kind == 2 ? do_unmap() : do_remap();
            assert_agrees();
        }
        assert_true(stats_now().samples > 100 && stats_now().samples_freed > 50);
        is_failing = false;
        pyprof__native_unmap(self(), page_at(0), 2 * PAGES * PAGE, kernels_munmap);
        assert_int_equal(stats_now().samples_live, 0);
        assert_int_equal(stats_now().live_bytes, 0);
        assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
    }
}

/* What is not a sample stays none, and what is one stands for the same number of mappings, whatever becomes of them. */
static void test_weights_stay(void **state) {
    (void)state;
    start(0);
    pyprof__native_map(self(), page_at(0), 10 * PAGE, true);
    pyprof__heap_count(pyprof__map_at(0), false);
    pyprof__map_at(0)->weight = 2.5;
    pyprof__heap_count(pyprof__map_at(0), true);
    double before = (double)stats_now().alloc_bytes;
    moved_to = base + 20 * PAGE;
    pyprof_heap_remap call = {page_at(0), 10 * PAGE, 30 * PAGE, MREMAP_MAYMOVE, NULL};
    pyprof__native_remap(self(), &call, kernels_mremap);
    assert_int_equal(stats_now().live_bytes, 30 * PAGE * 5 / 2);
    assert_int_equal((uint64_t)((double)stats_now().alloc_bytes - before), 20 * PAGE * 5 / 2);
    pyprof__native_unmap(self(), page_at(25), 3 * PAGE, kernels_munmap);
    assert_int_equal(stats_now().live_bytes, 27 * PAGE * 5 / 2);
    assert_int_equal(stats_now().live_objects, 5); /* two mappings, of two and a half each */
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* The second address of shared pages is no more memory. */
static void test_two_addresses(void **state) {
    (void)state;
    start(0);
    pyprof__native_map(self(), page_at(0), PAGE, true);
    moved_to = base + 9 * PAGE;
    pyprof_heap_remap call = {page_at(0), 0, PAGE, MREMAP_MAYMOVE, NULL};
    pyprof__native_remap(self(), &call, kernels_mremap);
    assert_int_equal(stats_now().live_bytes, PAGE);
    assert_int_equal(pyprof__map_at(0)->address, base);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

static void test_no_room(void **state) {
    const size_t count = 40000;
    (void)state;
    start(1 << 20);
    for (size_t i = 0; i < count; i++) { /* from the end, so that each is put in at the front */
        pyprof__native_map(self(), page_at(2 * (count - i)), PAGE, true);
    }
    pyprof_heap_stats stats = stats_now();
    assert_int_equal(stats.samples, count);
    assert_int_equal(stats.samples_live + stats.lost_memory, count);
    assert_int_equal(stats.live_bytes + stats.lost_bytes, count * PAGE);
    assert_true(stats.lost_memory > 0 && stats.samples_live > 5000 && stats.bytes_peak <= 1 << 20);
    pyprof__native_unmap(self(), page_at(0), 3 * count * PAGE, kernels_munmap);
    assert_int_equal(stats_now().samples_live, 0);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* realloc: as far as libcs differ. */
static void *reallocs(void *memory, size_t size) {
    if (is_failing) {
        errno = ENOMEM;
        return NULL;
    }
    return size == 0 ? NULL : memory;
}

static void test_reallocs_differ(void **state) {
    (void)state;
    start(0);
    pyprof__native_alloc(self(), page_at(0), 100);
    is_failing = true;
    assert_null(pyprof__native_realloc(self(), page_at(0), 0, reallocs)); /* musl: the block lives on */
    assert_int_equal(stats_now().live_bytes, 100);
    is_failing = false;
    errno = 99;
    assert_true(pyprof__native_realloc(self(), page_at(0), 300, reallocs) == page_at(0));
    assert_int_equal(stats_now().live_bytes, 300);
    assert_null(pyprof__native_realloc(self(), page_at(0), 0, reallocs)); /* glibc: it was freed */
    assert_int_equal(errno, 99);
    assert_int_equal(stats_now().live_bytes, 0);
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

/* Within what has called us nothing counts, but what ends ends. */
static void test_inside(void **state) {
    pyprof__heap_thread *thread = (pyprof__heap_thread *)self();
    (void)state;
    start(0);
    pyprof__native_alloc(thread, page_at(0), 100);
    pyprof__native_map(thread, page_at(1), PAGE, true);
    thread->is_inside++;
    pyprof__native_alloc(thread, page_at(2), 100);
    pyprof__native_map(thread, page_at(3), PAGE, true);
    assert_int_equal(stats_now().live_bytes, 100 + PAGE);
    pyprof__native_free(thread, page_at(0));
    pyprof__native_unmap(thread, page_at(1), PAGE, kernels_munmap);
    assert_int_equal(stats_now().live_bytes, 0);
    thread->is_inside--;
    assert_int_equal(pyprof_heap_shutdown(), PYPROF_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_a_kernel_has_it), cmocka_unit_test(test_weights_stay),
        cmocka_unit_test(test_two_addresses),      cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_reallocs_differ),    cmocka_unit_test(test_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
