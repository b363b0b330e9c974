/* flamegraph.h as hosts use it: included in two units of one program (other_unit.c is the second), as the first header
 * and under strict C99 (units.cpp: C++17), drawing into memory, and saying nothing where nobody asked. */
#include "flamegraph.h"

#ifdef __cplusplus
extern "C" {
#endif
int other_unit(void);
#ifdef __cplusplus
}
#endif

typedef struct text {
    char bytes[65536];
    size_t size, room;
} text;

static bool append(void *user, const void *data, size_t size) {
    text *out = (text *)user;
    if (size > out->room - out->size)
        return false;
    memcpy(out->bytes + out->size, data, size);
    out->size += size;
    return true;
}

static void remember(void *user, const char *message) {
    snprintf((char *)user, 256, "%s", message);
}

static flamegraph *graph_of(const char *stacks) {
    flamegraph *graph = flamegraph_create();
    if (!graph ||
        flamegraph_add(graph, stacks, strlen(stacks), "stacks", flamegraph_tell_file, stderr) != FLAMEGRAPH_OK)
        abort();
    return graph;
}

static void check(bool holds, const char *what) {
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

#define CHECK(condition) check(condition, #condition)

static void draws_into_memory(void) {
    static text out;
    flamegraph *graph = graph_of("thread a-1;f (a.py:1) 5\nthread a-2;f (a.py:1) 7\n");
    flamegraph_options options;
    memset(&options, 0, sizeof options);
    options.title = "a title";
    options.threads = true;
    out.size = 0;
    out.room = sizeof out.bytes - 1;
    CHECK(flamegraph_write(graph, &options, append, &out) == FLAMEGRAPH_OK);
    out.bytes[out.size] = '\0';
    CHECK(strstr(out.bytes, "a title") && strstr(out.bytes, "thread a-# (2 threads)"));
    CHECK(strcmp(out.bytes + out.size - 7, "</svg>\n") == 0);
    out.size = 0;
    CHECK(flamegraph_write(graph, NULL, append, &out) == FLAMEGRAPH_OK);
    out.size = 0;
    out.room = 10000; /* less than it takes */
    CHECK(flamegraph_write(graph, &options, append, &out) == FLAMEGRAPH_IO_ERROR);
    flamegraph_free(graph);
}

/* What is known of a profile is said in one line, and nothing of what is not. */
static void says_where_it_comes_from(void) {
    static const struct {
        flamegraph_facts facts;
        const char *line;
    } cases[] = {
        {{"<game>.py", "3.11.2", 1714564800, 12.14, 100, 1204, 2, 0},
         ">&lt;game&gt;.py \xc2\xb7 Python 3.11.2 \xc2\xb7 2024-05-01 12:00 UTC \xc2\xb7 12.1 s \xc2\xb7 100 Hz "
         "\xc2\xb7 1,204 samples, 2 lost<"},
        {{NULL, NULL, 0, 0.0425, 12.5, 1, 0, 0}, ">42.5 ms \xc2\xb7 12.5 Hz \xc2\xb7 1 sample, none lost<"},
        {{"a", "", 0, 0, 0, 0, 5, 0}, "y=\"68\">a<"},
        {{"a", NULL, 0, 0, 0, 12, 0, 524288}, ">a \xc2\xb7 one in 512 KiB \xc2\xb7 12 samples, none lost<"},
        {{NULL, NULL, 0, 0, 0, 0, 0, 0}, NULL},
    };
    static text out;
    const char *stacks[] = {"a;b 1\n", ""};
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        flamegraph *graph = graph_of(stacks[i % 2]);
        flamegraph_options options;
        memset(&options, 0, sizeof options);
        options.facts = cases[i / 2].facts;
        out.size = 0;
        out.room = sizeof out.bytes - 1;
        CHECK(flamegraph_write(graph, &options, append, &out) == FLAMEGRAPH_OK);
        out.bytes[out.size] = '\0';
        CHECK((strstr(out.bytes, "<text id=\"facts\"") != NULL) == (cases[i / 2].line != NULL));
        CHECK(!cases[i / 2].line || strstr(out.bytes, cases[i / 2].line));
        flamegraph_free(graph);
    }
}

static void tells_the_caller(void) {
    char told[256] = "";
    flamegraph *graph = graph_of("a;b 1\n");
    CHECK(flamegraph_add(graph, "a;b 1\nc\n", 8, "text", remember, told) == FLAMEGRAPH_BAD_INPUT);
    CHECK(strcmp(told, "text:2: the line ends with 'c', not with a number") == 0);
    CHECK(flamegraph_save(graph, NULL, "/no/such/place.svg", remember, told) == FLAMEGRAPH_IO_ERROR && errno == ENOENT);
    CHECK(strcmp(told, "/no/such/place.svg: No such file or directory") == 0);
    CHECK(flamegraph_add(graph, "{", 1, "text", NULL, NULL) == FLAMEGRAPH_BAD_INPUT);
    CHECK(flamegraph_save(graph, NULL, "/no/such/place.svg", NULL, NULL) == FLAMEGRAPH_IO_ERROR && errno == ENOENT);
    CHECK(flamegraph_total(graph) == 1);
    flamegraph_free(graph);
}

static void gives(flamegraph *graph, uint32_t frame, uint64_t value, uint64_t base, uint64_t cpu, uint64_t base_cpu) {
    flamegraph_figures now = {value, 0, cpu, 0, 1, 0}, then = {base, 0, base_cpu, 0, 1, 0};
    CHECK(flamegraph_add_figures(graph, frame, &now) == FLAMEGRAPH_OK);
    CHECK(flamegraph_add_base(graph, frame, &then) == FLAMEGRAPH_OK);
}

/* Each metric has a base of its own, and what is wrong changes nothing. */
static void compares_with_a_base(void) {
    static text out;
    flamegraph *graph = flamegraph_create();
    flamegraph_figures wrong = {1, 2, 0, 0, 0, 0}, vast = {0, 0, 0, UINT64_MAX, 0, 0};
    flamegraph_options options;
    memset(&options, 0, sizeof options);
    if (!graph)
        abort();
    uint32_t a = flamegraph_add_frame(graph, FLAMEGRAPH_ROOT, "a", 1), b = flamegraph_add_frame(graph, a, "b", 1);
    uint32_t c = flamegraph_add_frame(graph, a, "c", 1);
    gives(graph, b, 1000, 1000, 300, 100);
    gives(graph, c, 3000, 1000, 100, 100);
    CHECK(flamegraph_add_base(graph, b, &wrong) == FLAMEGRAPH_BAD_INPUT);
    CHECK(flamegraph_add_base(graph, b, &vast) == FLAMEGRAPH_OK);
    CHECK(flamegraph_add_base(graph, c, &vast) == FLAMEGRAPH_BAD_INPUT);
    CHECK(flamegraph_total(graph) == 4000);
    const char *expected[][2] = {
        {"<title>b (1.00 ms, 25.0% of all; in the base 1.00 ms, 50.0%: \xe2\x88\x92"
         "25.0 points)</title>",
         "<title>c (3.00 ms, 75.0% of all; in the base 1.00 ms, 50.0%: +25.0 points)</title>"},
        {"<title>b (300 \xc2\xb5s, 75.0% of all; in the base 100 \xc2\xb5s, 50.0%: +25.0 points)</title>",
         "<title>c (100 \xc2\xb5s, 25.0% of all; in the base 100 \xc2\xb5s, 50.0%: \xe2\x88\x92"
         "25.0 points)</title>"},
    };
    for (int metric = 0; metric < 2; metric++) {
        options.metric = metric ? FLAMEGRAPH_CPU : FLAMEGRAPH_WALL;
        options.difference = FLAMEGRAPH_SHARES;
        out.size = 0;
        out.room = sizeof out.bytes - 1;
        CHECK(flamegraph_write(graph, &options, append, &out) == FLAMEGRAPH_OK);
        out.bytes[out.size] = '\0';
        CHECK(strstr(out.bytes, expected[metric][0]) && strstr(out.bytes, expected[metric][1]));
    }
    options.difference = FLAMEGRAPH_NO_DIFFERENCE;
    out.size = 0;
    CHECK(flamegraph_write(graph, &options, append, &out) == FLAMEGRAPH_OK);
    out.bytes[out.size] = '\0';
    CHECK(!strstr(out.bytes, "in the base"));
    flamegraph_free(graph);
}

/* All frames of one thread, or of threads that are shown as one, are drawn without a copy of them: the graph is what it
 * was before, also for what is added later. */
static void stays_as_it_was(void) {
    static text first, again;
    static const char *const stacks[] = {
        "thread a;f (a.py:1);g (a.py:2) 5\nthread a;f (a.py:3) 7\nthread a;h (a.py:9) 1\n",
        "thread a-1;f (a.py:1);g (a.py:2) 5\nthread a-22;f (a.py:3) 7\nthread a-3;h (a.py:9);thread b 1\n",
        "thread a;f (a.py:1);thread a;g (a.py:2) 5\nthread a;process 1 (x);h (a.py:9) 1\n", "thread a 3\n"};
    const char *more = "thread a;f (a.py:1);k (a.py:4) 5\nthread c;f (a.py:3) 7\n";
    for (size_t i = 0; i < 2 * sizeof stacks / sizeof *stacks; i++) {
        flamegraph *graph = graph_of(stacks[i / 2]), *other = graph_of(stacks[i / 2]);
        flamegraph_options options;
        memset(&options, 0, sizeof options);
        options.threads = i % 2;
        first.room = again.room = sizeof first.bytes;
        first.size = again.size = 0;
        CHECK(flamegraph_write(graph, NULL, append, &first) == FLAMEGRAPH_OK);
        CHECK(flamegraph_write(graph, NULL, append, &again) == FLAMEGRAPH_OK);
        CHECK(first.size == again.size && memcmp(first.bytes, again.bytes, first.size) == 0);
        CHECK(flamegraph_add(graph, more, strlen(more), "more", flamegraph_tell_file, stderr) == FLAMEGRAPH_OK);
        CHECK(flamegraph_add(other, more, strlen(more), "more", flamegraph_tell_file, stderr) == FLAMEGRAPH_OK);
        first.size = again.size = 0;
        CHECK(flamegraph_write(graph, &options, append, &first) == FLAMEGRAPH_OK);
        CHECK(flamegraph_write(other, &options, append, &again) == FLAMEGRAPH_OK);
        CHECK(first.size == again.size && memcmp(first.bytes, again.bytes, first.size) == 0);
        flamegraph_free(graph);
        flamegraph_free(other);
    }
}

/* Names of all lengths, which differ in one byte anywhere, are found again and are no others; nothing beyond their ends is
 * read, as they are alone in their memory. */
static void tells_names_apart(void) {
    flamegraph *graph = flamegraph_create();
    if (!graph)
        abort();
    for (int turn = 0; turn < 2; turn++) {
        uint32_t expected = 1; /* 0 is "all" */
        for (size_t size = 1; size < 200; size++) {
            char *name = (char *)malloc(size);
            if (!name)
                abort();
            memset(name, 'x', size);
            for (size_t at = 0; at < size; at++) {
                name[at] = 'y';
                flamegraph_sought sought = {name, size, 0, 0};
                flamegraph_seek(graph, &sought, 1);
                CHECK(flamegraph_intern_hashed(graph, name, size, sought.hash) == expected);
                CHECK(flamegraph_add_name(graph, name, size) == expected++);
                name[at] = 'x';
            }
            free(name);
        }
    }
    flamegraph_free(graph);
}

int main(void) {
    draws_into_memory();
    stays_as_it_was();
    tells_names_apart();
    says_where_it_comes_from();
    tells_the_caller();
    compares_with_a_base();
    return other_unit();
}
