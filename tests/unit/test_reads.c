/* >>reads: safe reads: what is not there is an error, never a fault; in each of the two ways, and through the view. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "unit.h"

static pyprof__view view_of_test; /* not from the heap, which might grow into the memory that a test has given back */

#define PAGE 65536u /* a multiple of every page size in use */

/* Three spans of memory, of which the middle one is there. */
static unsigned char *map_island(void) {
    unsigned char *pages =
        (unsigned char *)mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    for (size_t i = 0; i < 3 * PAGE; i++) {
        pages[i] = (unsigned char)(i * 7 + i / 256);
    }
    assert_int_equal(munmap(pages, PAGE), 0);
    assert_int_equal(munmap(pages + 2 * PAGE, PAGE), 0);
    return pages + PAGE;
}

static void unmap_island(unsigned char *island) {
    assert_int_equal(munmap(island, PAGE), 0);
}

static int use_memory_file(void **state) {
    (void)state;
    pyprof__process.pid = getpid();
    return pyprof__open_memory_file() ? 0 : -1;
}

/* An emulator of another processor may lack the call. */
static bool have_system_call(void) {
    pyprof__process.has_memory_file = false;
    return pyprof__reads_work();
}

/* The same tests run with each way of reading. */
static int use_system_call(void **state) {
    (void)state;
    if (!have_system_call()) {
        print_message("skipped: process_vm_writev is refused here\n");
        return use_memory_file(state);
    }
    return 0;
}

static int stop_reads(void **state) {
    (void)state;
    pyprof__reads_stop();
    return pyprof__process.has_memory_file ? -1 : 0;
}

static void test_reads_what_is_there(void **state) {
    unsigned char *island = map_island(), copy[PAGE];
    (void)state;
    for (size_t size = 0; size <= PAGE; size += size < 70 ? 1 : 61) {
        memset(copy, 0, sizeof copy);
        assert_true(pyprof__read((uintptr_t)island, copy, size));
        assert_memory_equal(copy, island, size);
        assert_true(pyprof__read((uintptr_t)island + PAGE - size, copy, size));
        assert_memory_equal(copy, island + PAGE - size, size);
    }
    unmap_island(island);
}

static void test_refuses_what_is_not_there(void **state) {
    unsigned char *island = map_island();
    uint64_t word[2];
    const uintptr_t nowhere[] = {0,
                                 1,
                                 8,
                                 PAGE - 1,
                                 (uintptr_t)island - 8,
                                 (uintptr_t)island - 1,
                                 (uintptr_t)island + PAGE - 7, /* only its begin is there */
                                 (uintptr_t)island + PAGE - 1,
                                 (uintptr_t)island + PAGE,
                                 (uintptr_t)1 << 47,
                                 (uintptr_t)0x8000 << 48,
                                 (uintptr_t)0xffffffff81000000u,
                                 UINTPTR_MAX - 7,
                                 UINTPTR_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        assert_false(pyprof__read(nowhere[i], word, 8));
    }
    unmap_island(island);
    assert_false(pyprof__read((uintptr_t)island, word, 8));
}

static void test_reads_many_pieces_or_none(void **state) {
    unsigned char *island = map_island();
    uint32_t got[PYPROF__PIECES_MAX];
    pyprof__piece pieces[PYPROF__PIECES_MAX];
    (void)state;
    for (size_t i = 0; i < PYPROF__PIECES_MAX; i++) {
        pyprof__piece piece = {(uintptr_t)island + i * 37, &got[i], sizeof got[i]};
        pieces[i] = piece;
    }
    for (size_t count = 1; count <= PYPROF__PIECES_MAX; count++) {
        memset(got, 0, sizeof got);
        assert_true(pyprof__read_pieces(pieces, count));
        for (size_t i = 0; i < count; i++) {
            assert_memory_equal(&got[i], island + i * 37, sizeof got[i]);
        }
    }
    for (size_t bad = 0; bad < PYPROF__PIECES_MAX; bad++) {
        uintptr_t address = pieces[bad].address;
        pieces[bad].address = (uintptr_t)island + PAGE - 2;
        assert_false(pyprof__read_pieces(pieces, PYPROF__PIECES_MAX));
        assert_false(pyprof__read_pieces(pieces, bad + 1));
        assert_true(pyprof__read_pieces(pieces, bad));
        pieces[bad].address = address;
    }
    unmap_island(island);
}

/* More than one call can take, by their number or by their size. */
static void test_reads_pieces_of_any_number(void **state) {
    enum {
        count = 3 * PYPROF__PIECES_MAX + 5
    };
    unsigned char *island = map_island(), got[count][512];
    pyprof__piece pieces[count];
    (void)state;
    for (size_t size = 1; size <= 512; size *= 8) {
        memset(got, 0, sizeof got);
        for (size_t i = 0; i < count; i++) {
            pyprof__piece piece = {(uintptr_t)island + i * 37, got[i], size};
            pieces[i] = piece;
        }
        assert_true(pyprof__read_pieces(pieces, count));
        for (size_t i = 0; i < count; i++) {
            assert_memory_equal(got[i], island + i * 37, size);
        }
        pieces[count - 1].address = (uintptr_t)island - 1;
        assert_false(pyprof__read_pieces(pieces, count));
    }
    pieces[0].size = PAGE / 2; /* more than may be asked for: refused, not cut */
    assert_false(pyprof__read_pieces(pieces, 1));
    unmap_island(island);
}

static void test_view_reads_across_blocks(void **state) {
    enum {
        size = 3 * PYPROF__BLOCKS * PYPROF__BLOCK_SIZE /* more than the view can hold: blocks push others out */
    };
    pyprof__view *view = &view_of_test;
    unsigned char *memory = (unsigned char *)malloc(size), *copy = (unsigned char *)malloc(size);
    uint64_t random = 1;
    (void)state;
    for (size_t i = 0; i < size; i++) {
        memory[i] = (unsigned char)unit_random(&random);
    }
    pyprof__view_reset(view);
    for (int i = 0; i < 20000; i++) {
        size_t from = unit_random(&random) % size;
        size_t count = unit_random(&random) % (i % 100 == 0 ? size : 5000) % (size - from + 1);
        assert_true(pyprof__view_read(view, (uintptr_t)memory + from, copy, count));
        assert_memory_equal(copy, memory + from, count);
    }
    free(memory);
    free(copy);
}

static void test_view_ends_where_the_memory_ends(void **state) {
    unsigned char *island = map_island(), copy[PAGE];
    pyprof__view *view = &view_of_test;
    (void)state;
    pyprof__view_reset(view);
    assert_true(pyprof__view_read(view, (uintptr_t)island, copy, PAGE));
    assert_memory_equal(copy, island, PAGE);
    assert_true(pyprof__view_read(view, (uintptr_t)island + PAGE - 8, copy, 8));
    assert_false(pyprof__view_read(view, (uintptr_t)island + PAGE - 7, copy, 8));
    assert_false(pyprof__view_read(view, (uintptr_t)island - 1, copy, 8));
    assert_false(pyprof__view_read(view, 0, copy, 8));
    assert_false(pyprof__view_read(view, UINTPTR_MAX - 7, copy, 8));
    assert_true(pyprof__view_read(view, (uintptr_t)island, copy, 8)); /* refusals broke nothing */
    assert_memory_equal(copy, island, 8);
    unmap_island(island);
}

static void test_view_is_as_of_its_reset(void **state) {
    unsigned char *island = map_island(), copy[8];
    pyprof__view *view = &view_of_test;
    (void)state;
    pyprof__view_reset(view);
    island[100] = 1;
    assert_true(pyprof__view_read(view, (uintptr_t)island + 100, copy, 1));
    island[100] = 2;
    assert_true(pyprof__view_read(view, (uintptr_t)island + 100, copy, 1));
    assert_int_equal(copy[0], 1);
    pyprof__view_reset(view);
    assert_true(pyprof__view_read(view, (uintptr_t)island + 100, copy, 1));
    assert_int_equal(copy[0], 2);
    unmap_island(island);
    assert_true(pyprof__view_read(view, (uintptr_t)island + 100, copy, 1));
    assert_int_equal(copy[0], 2);
    pyprof__view_reset(view);
    assert_false(pyprof__view_read(view, (uintptr_t)island + 100, copy, 1));
    /* What was not there is looked for again. */
    void *again = mmap(island, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    assert_ptr_equal(again, island);
    assert_true(pyprof__view_read(view, (uintptr_t)island + 100, copy, 1));
    assert_int_equal(copy[0], 0);
    unmap_island(island);
}

/* A block that fails must not leave its name, nor take another's place. */
static void test_view_keeps_what_it_has_when_a_read_fails(void **state) {
    unsigned char *island = map_island(), copy[8];
    pyprof__view *view = &view_of_test;
    (void)state;
    pyprof__view_reset(view);
    island[0] = 1;
    assert_true(pyprof__view_read(view, (uintptr_t)island, copy, 8));
    assert_false(pyprof__view_read(view, (uintptr_t)island + PAGE, copy, 8));
    assert_false(pyprof__view_read(view, (uintptr_t)island + PAGE, copy, 8));
    island[0] = 2;
    assert_true(pyprof__view_read(view, (uintptr_t)island, copy, 8));
    assert_int_equal(copy[0], 1);
    assert_true(pyprof__view_read(view, (uintptr_t)island + PYPROF__BLOCK_SIZE, copy, 8));
    assert_memory_equal(copy, island + PYPROF__BLOCK_SIZE, 8);
    unmap_island(island);
}

/* What the last walk over the same subject used comes anew, at once; what it did not use is not asked for. */
static void test_view_renews_what_was_used(void **state) {
    unsigned char *island = map_island(), copy[1];
    pyprof__view *view = &view_of_test;
    (void)state;
    pyprof__view_reset(view);
    view->subject = 1;
    for (size_t i = 0; i < 9; i++) {
        assert_true(pyprof__view_read(view, (uintptr_t)island + i * PYPROF__BLOCK_SIZE, copy, 1));
    }
    pyprof__view_renew(view, 1);
    assert_int_equal(view->count, 9);
    for (size_t i = 0; i < 9; i += 2) { /* of these five are used */
        island[i * PYPROF__BLOCK_SIZE] = 0xaa;
        assert_true(pyprof__view_read(view, (uintptr_t)island + i * PYPROF__BLOCK_SIZE, copy, 1));
        assert_int_not_equal(copy[0], 0xaa);
    }
    pyprof__view_renew(view, 1);
    assert_int_equal(view->count, 5);
    for (size_t i = 0; i < 9; i += 2) {
        assert_true(pyprof__view_read(view, (uintptr_t)island + i * PYPROF__BLOCK_SIZE, copy, 1));
        assert_int_equal(copy[0], 0xaa);
    }
    assert_int_equal(view->count, 5);
    pyprof__view_renew(view, 2); /* of something else nothing is known */
    assert_int_equal(view->count, 0);
    assert_true(pyprof__view_read(view, (uintptr_t)island, copy, 1));
    unmap_island(island);
    pyprof__view_renew(view, 2); /* and what has gone is not there */
    assert_int_equal(view->count, 0);
    assert_false(pyprof__view_read(view, (uintptr_t)island, copy, 1));
}

static void test_plain_range_is_not_overstepped(void **state) {
    unsigned char *island = map_island(), copy[16];
    uintptr_t low = (uintptr_t)island + 256, high = (uintptr_t)island + 512;
    pyprof__view *view = &view_of_test;
    (void)state;
    pyprof__view_reset(view);
    assert_true(pyprof__view_read(view, (uintptr_t)island, copy, 16));
    memset(island, 0xee, PAGE); /* what is loaded plainly sees this, what comes by the view does not */
    pyprof__reader reader = {low, high, 0, 0, view};
    const struct {
        uintptr_t address;
        bool is_plain;
    } cases[] = {{low, true},   {high - 16, true},          {high - 15, false}, {low - 1, false},
                 {high, false}, {(uintptr_t)island, false}, {low - 16, false},  {low + 100, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(pyprof__load(&reader, cases[i].address, copy, 16));
        assert_int_equal(copy[0] == 0xee && copy[15] == 0xee, cases[i].is_plain);
    }
    assert_false(pyprof__load(&reader, (uintptr_t)island + PAGE - 8, copy, 16));
    reader.view = NULL;
    assert_false(pyprof__load(&reader, (uintptr_t)island - 8, copy, 8));
    assert_true(pyprof__load(&reader, (uintptr_t)island, copy, 8));
    pyprof__reader nothing_plain = {0, 0, 0, 0, NULL};
    assert_false(pyprof__load(&nothing_plain, 0, copy, 8));
    assert_false(pyprof__load(&nothing_plain, UINTPTR_MAX, copy, 8));
    unmap_island(island);
}

static void test_start_chooses_the_system_call(void **state) {
    (void)state;
    bool is_there = have_system_call();
    assert_true(pyprof__reads_start());
    assert_true(pyprof__process.has_memory_file != is_there);
    pyprof__reads_stop();
}

#if defined(__x86_64__) || defined(__aarch64__)
#define HAVE_FILTER 1

/* From now on these two system calls fail with EPERM, as in some containers. 0 = none. */
static bool forbid(unsigned first, unsigned second) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, first, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

static int falls_back(void) {
    uint64_t word = 42, got = 0;
    if (!pyprof__reads_start() || !pyprof__process.has_memory_file) {
        return 1;
    }
    if (!pyprof__read((uintptr_t)&word, &got, sizeof got) || got != 42) {
        return 2;
    }
    if (pyprof__read(8, &got, sizeof got)) {
        return 3;
    }
    int file = pyprof__process.memory_file;
    pyprof__reads_stop();
    return !pyprof__process.has_memory_file && fcntl(file, F_GETFD) == -1 ? 0 : 4;
}

static bool reads_a_word(void) {
    uint64_t word = 42, got = 0;
    return pyprof__read((uintptr_t)&word, &got, sizeof got) && got == 42;
}

/* A program that takes the right from itself in mid-recording, and one that closes all descriptors and opens its own. */
static int mends(void) {
    if (!pyprof__reads_start() || pyprof__process.has_memory_file) {
        return 1;
    }
    if (!forbid(SYS_process_vm_writev, SYS_process_vm_writev)) {
        return 77;
    }
    if (reads_a_word() || !pyprof__reads_are_refused() || !pyprof__reads_mend() || !reads_a_word()) {
        return 2;
    }
    int file = pyprof__process.memory_file;
    if (file < 0 || close(file) != 0 || open("/dev/zero", O_RDONLY) != file) {
        return 3;
    }
    if (reads_a_word() || !pyprof__reads_mend() || !reads_a_word() || pyprof__process.memory_file == file) {
        return 4;
    }
    (void)close(pyprof__process.memory_file);
    int own = open("/dev/zero", O_RDONLY);
    bool took_its_place = own == pyprof__process.memory_file;
    pyprof__reads_stop();
    return took_its_place && fcntl(own, F_GETFD) >= 0 && fcntl(file, F_GETFD) >= 0 ? 0 : 5;
}

static int mends_nothing(void) {
    if (!pyprof__reads_start() || !forbid(SYS_process_vm_writev, SYS_openat)) {
        return 77;
    }
    return reads_a_word() || pyprof__reads_mend() || !pyprof__reads_are_refused() ? 1 : 0;
}

static int in_child(int (*check)(void)) {
    pid_t child = fork();
    if (child == 0) {
        _exit(check());
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_mends_what_was_refused(void **state) {
    (void)state;
    int found = in_child(mends), without = in_child(mends_nothing);
    if (found == 77 || without == 77) {
        skip();
    }
    assert_int_equal(found, 0);
    assert_int_equal(without, 0);
}

static int (*check_without)(void);
static unsigned without_first, without_second;

static int forbid_and_check(void) {
    return forbid(without_first, without_second) ? check_without() : 77;
}

/* What a child without these system calls finds. */
static int in_child_without(unsigned first, unsigned second, int (*check)(void)) {
    without_first = first;
    without_second = second;
    check_without = check;
    return in_child(forbid_and_check);
}

static int is_refused(void) {
    pyprof_result result = pyprof_start(NULL);
    return result == PYPROF_ERROR_MEMORY_READ && !pyprof_is_active() ? 0 : 1;
}

static void test_start_falls_back_to_the_memory_file(void **state) {
    (void)state;
    int found = in_child_without(SYS_process_vm_writev, SYS_process_vm_writev, falls_back);
    if (found == 77) {
        skip();
    }
    assert_int_equal(found, 0);
}

static void test_start_refuses_where_neither_works(void **state) {
    (void)state;
    int found = in_child_without(SYS_process_vm_writev, SYS_openat, is_refused);
    if (found == 77) {
        skip();
    }
    assert_int_equal(found, 0);
}
#endif

#define IN_BOTH_WAYS(test)                                                                                             \
    {#test ": process_vm_writev", test, use_system_call, stop_reads, NULL}, {                                          \
#test ": /proc/self/mem", test, use_memory_file, stop_reads, NULL                                              \
    }

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_BOTH_WAYS(test_reads_what_is_there),
        IN_BOTH_WAYS(test_refuses_what_is_not_there),
        IN_BOTH_WAYS(test_reads_many_pieces_or_none),
        IN_BOTH_WAYS(test_reads_pieces_of_any_number),
        IN_BOTH_WAYS(test_view_reads_across_blocks),
        IN_BOTH_WAYS(test_view_ends_where_the_memory_ends),
        IN_BOTH_WAYS(test_view_is_as_of_its_reset),
        IN_BOTH_WAYS(test_view_keeps_what_it_has_when_a_read_fails),
        IN_BOTH_WAYS(test_view_renews_what_was_used),
        IN_BOTH_WAYS(test_plain_range_is_not_overstepped),
        cmocka_unit_test(test_start_chooses_the_system_call),
#ifdef HAVE_FILTER
        cmocka_unit_test(test_mends_what_was_refused),
        cmocka_unit_test(test_start_falls_back_to_the_memory_file),
        cmocka_unit_test(test_start_refuses_where_neither_works),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
