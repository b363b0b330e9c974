/* bench_native MODE, with libpyprof-heap.so preloaded: how much longer malloc and free take, once a line: the ratio of two
   neighbouring stretches of 20 ms by the thread's own clock. MODE: "passed" compares libc's own malloc with that one, which
   nobody listens to; a number compares that with itself while the heap is sampled, once in so many KiB. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

extern void *__libc_malloc(size_t size);
extern void __libc_free(void *memory);

enum {
    LIVE = 1000
};
static void *(*volatile allocate)(size_t) = __libc_malloc;
static void (*volatile release)(void *) = __libc_free;
static void *blocks[LIVE];
static uint64_t random_state = 1;

/* Blocks of 16 to 1039 bytes, of which 1,000 live at a time. */
static void work(void) {
    void *(*const own_allocate)(size_t) = allocate;
    void (*const own_release)(void *) = release;
    for (int i = 0; i < 10000; i++) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        void **block = &blocks[(random_state >> 33) % LIVE];
        own_release(*block);
        *block = own_allocate(16 + (random_state >> 54));
    }
}

/* Nanoseconds of one malloc and one free. */
static double stretch(void) {
    uint64_t begin = pyprof__clock(CLOCK_THREAD_CPUTIME_ID), now = begin;
    int calls = 0;
    for (; now - begin < 20000000u; calls++) {
        work();
        now = pyprof__clock(CLOCK_THREAD_CPUTIME_ID);
    }
    return (double)(now - begin) / calls / 10000;
}

/* libc's own, or what the program's malloc is. */
static void use(bool is_libcs) {
    allocate = is_libcs ? __libc_malloc : malloc;
    release = is_libcs ? __libc_free : free;
}

static void sample(const char *kib, bool is_on) {
    pyprof_heap_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.sampling_bytes = (size_t)atoi(kib) << 10;
    if ((is_on ? pyprof_heap_start(&desc) : pyprof_heap_shutdown()) != PYPROF_OK ||
        (is_on && pyprof__native_domain() == 0)) {
        fprintf(stderr, "%s\n", is_on ? "nothing is preloaded" : pyprof_last_error());
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: bench_native passed|KIB\n");
        return 2;
    }
    bool is_passed = strcmp(argv[1], "passed") == 0;
    Py_Initialize();
    use(is_passed);
    stretch();
    for (int i = 0; i < 40; i++) {
        double without = stretch();
        is_passed ? use(false) : sample(argv[1], true);
        double with = stretch();
        is_passed ? use(true) : sample(argv[1], false);
        printf("%.5f %.1f %.1f\n", with / without, without, with);
    }
    return Py_FinalizeEx() == 0 ? 0 : 1;
}
