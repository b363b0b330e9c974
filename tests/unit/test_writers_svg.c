/* >>writers: what flamegraph.h draws for pyprof_write and pyprof_save where it was included; and what threads are
   called in each format. */
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"

#include "unit.h"

#define MS UINT64_C(1000000)

static pyprof_profile *new_profile(counted_memory *counts) {
    pyprof__memory memory = unit_limited(counts, 64u << 20);
    pyprof_profile *profile = (pyprof_profile *)pyprof__alloc(&memory, sizeof *profile);
    assert_non_null(profile);
    pyprof__profile_init(profile, &memory);
    profile->truncated = pyprof__intern_marker(profile, "[truncated]");
    profile->process_name = pyprof__intern_text(profile, "host", 4);
    profile->python = pyprof__intern_text(profile, "3.13.1", 6);
    return profile;
}

static void close_profile(pyprof_profile *profile, counted_memory *counts) {
    pyprof_free(profile);
    assert_int_equal(counts->blocks, 0);
}

/* A thread that was for so long in a function. */
static void add_thread(pyprof_profile *profile, int32_t tid, const char *name, bool is_named, const char *function,
                       uint64_t ns) {
    uint32_t track = pyprof__add_track(profile, tid, pyprof__intern_text(profile, name, strlen(name)));
    uint32_t text = pyprof__intern_text(profile, function, strlen(function));
    uint32_t file = pyprof__intern_text(profile, "/no/such/m.py", 13);
    uint32_t root = pyprof__track_at(profile, track)->root;
    uint32_t node = pyprof__child(profile, root, pyprof__intern_function(profile, text, file, 1), 7);
    pyprof__track_at(profile, track)->is_named = is_named;
    pyprof__node_at(profile, node)->wall_ns = ns;
    pyprof__node_at(profile, node)->samples = 3;
}

static text_sink written(const pyprof_profile *profile, pyprof_format format, pyprof_metric metric) {
    text_sink sink = {0};
    pyprof_output output;
    memset(&output, 0, sizeof output);
    output.format = format;
    output.metric = metric;
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &sink), PYPROF_OK);
    return sink;
}

/* A tree in which many have the same name and some no time of their own, in several threads, one name of them twice. */
static void add_tree(pyprof_profile *profile) {
    static const char *const threads[] = {"MainThread", "worker-1", "worker-2", "worker-1", "odd; name\n"};
    uint32_t functions[7], nodes[5 * 200];
    unsigned state = 1;
    for (uint32_t i = 0; i < 7; i++) {
        char name[16], file[32];
        snprintf(name, sizeof name, "f%u;<&>", (unsigned)i % 5);
        snprintf(file, sizeof file, "/no/%s/%u.py", i % 2 ? "such" : "other", (unsigned)i % 3);
        functions[i] = pyprof__intern_function(profile, pyprof__intern_text(profile, name, strlen(name)),
                                               pyprof__intern_text(profile, file, strlen(file)), (int32_t)i + 1);
    }
    for (uint32_t i = 0; i < 5 * 200; i++) {
        state = state * 1103515245u + 12345u;
        uint32_t thread = i / 200, known = i % 200;
        if (known == 0) {
            uint32_t name = pyprof__intern_text(profile, threads[thread], strlen(threads[thread]));
            uint32_t track = pyprof__add_track(profile, (int32_t)thread + 7, name);
            pyprof__track_at(profile, track)->is_named = true;
            nodes[i] = pyprof__track_at(profile, track)->root;
            continue;
        }
        uint32_t parent = nodes[thread * 200 + (state >> 8) % known];
        nodes[i] = pyprof__child(profile, parent, functions[(state >> 16) % 7], (int32_t)((state >> 4) % 3) + 1);
        pyprof__node *node = pyprof__node_at(profile, nodes[i]);
        node->wall_ns += (state >> 20) % 4 == 0 ? 0 : state % 9000;
        node->wall_idle_ns += node->wall_ns / 3;
        node->cpu_ns += node->wall_ns / 2;
        node->samples += state % 3;
    }
}

/* What pyprof_visit gives, as a graph of figures: a host can draw a recording with all that it has. */
typedef struct visited {
    flamegraph *graph;
    uint32_t frames[5 * 200 + 1]; /* of nodes, by their numbers */
    uint64_t sum;                 /* of values */
} visited;

/* As collapsed text has it. */
static const char *escaped(const char *text, char room[100]) {
    size_t size = 0;
    for (; *text != '\0'; text++) {
        size += (size_t)sprintf(room + size, *text == ';' ? "\\x3b" : *text == '\n' ? "\\n" : "%c", *text);
    }
    room[size] = '\0';
    return room;
}

static bool visit_node(void *user, const pyprof_node *node) {
    visited *to = (visited *)user;
    bool is_thread = node->parent == PYPROF_NO_NODE;
    uint32_t parent = is_thread ? FLAMEGRAPH_ROOT : to->frames[node->parent];
    flamegraph_figures own = {node->wall_ns, node->wall_idle_ns, node->cpu_ns,
                              node->gil_ns,  node->samples,      node->samples_idle};
    char name[200], text[100], id[20] = "";
    to->sum += node->value;
    if (to->graph == NULL) {
        return true;
    }
    if (node->tid != 0) {
        snprintf(id, sizeof id, " (%d)", (int)node->tid);
    }
    int size = is_thread              ? snprintf(name, sizeof name, "thread %s%s", escaped(node->name.data, text), id)
               : node->file.size == 0 ? snprintf(name, sizeof name, "%s", node->name.data)
                                      : snprintf(name, sizeof name, "%s (%s:%d)", escaped(node->name.data, text),
                                                 node->file.data, (int)node->line);
    assert_in_range(node->number, 0, 5 * 200);
    bool is_all = is_thread && node->name.size == 0; /* with merge_threads */
    to->frames[node->number] = is_all ? parent : flamegraph_add_frame(to->graph, parent, name, (size_t)size);
    return flamegraph_add_figures(to->graph, to->frames[node->number], &own) == FLAMEGRAPH_OK;
}

static void assert_has(const char *text, const char *part, bool has);

/* One file has all metrics; what it shows first is what pyprof_visit gives in that metric. */
static void test_figures_of_a_visit(void **state) {
    static const char *const shown[] = {"wall time", "CPU time", "time with the GIL", "samples"};
    static visited all;
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    pyprof_visitor visitor = {visit_node, NULL, &all};
    (void)state;
    add_tree(profile);
    memset(&all, 0, sizeof all);
    all.graph = flamegraph_create();
    assert_int_equal(pyprof_visit(profile, NULL, &visitor), PYPROF_OK);
    for (unsigned i = 0; i < 8; i++) {
        static visited sum;
        char amount[64], said[160];
        text_sink sink = {0};
        pyprof_output output;
        flamegraph_options look;
        memset(&output, 0, sizeof output);
        memset(&look, 0, sizeof look);
        memset(&sum, 0, sizeof sum);
        visitor.user = &sum;
        output.metric = (pyprof_metric)(i % 4);
        output.include_idle = i / 4 != 0;
        assert_int_equal(pyprof_visit(profile, &output, &visitor), PYPROF_OK);
        look.unit = "ns";
        look.metric = (flamegraph_metric)(i % 4);
        look.idle = output.include_idle;
        assert_int_equal(flamegraph_write(all.graph, &look, text_sink_write, &sink), FLAMEGRAPH_OK);
        flamegraph_format_amount(amount, sizeof amount, sum.sum, i % 4 == 3 ? "samples" : "ns", 1);
        snprintf(said, sizeof said, ">%s in all, 4 threads together \xc2\xb7 %s", amount, shown[i % 4]);
        assert_has(sink.text, said, sum.sum > 0);
        text_sink_free(&sink);
    }
    flamegraph_free(all.graph);
    close_profile(profile, &counts);
}

/* The picture is that of what is visited, to the byte. */
static void test_picture_of_the_tree_is_that_of_a_visit(void **state) {
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    (void)state;
    add_tree(profile);
    profile->epoch_ns = 1000000000 * UINT64_C(1000000000);
    profile->duration_ns = 2500 * MS;
    profile->interval_us = 500;
    profile->stats.samples = 4711;
    profile->stats.lost_late = 10;
    profile->stats.lost_memory = 2;
    for (unsigned i = 0; i < 32; i++) {
        static visited all;
        text_sink drawn = {0};
        flamegraph_options look;
        pyprof_output output;
        pyprof_visitor visitor = {visit_node, NULL, &all};
        memset(&all, 0, sizeof all);
        memset(&look, 0, sizeof look);
        memset(&output, 0, sizeof output);
        output.metric = (pyprof_metric)(i % 4);
        output.include_idle = i / 4 % 2 != 0;
        output.detail = i / 8 % 2 ? PYPROF_DETAIL_FUNCTION : PYPROF_DETAIL_LINE;
        output.merge_threads = i / 16 != 0;
        output.format = PYPROF_FORMAT_SVG;
        text_sink tree = {0};
        assert_int_equal(pyprof_write(profile, &output, text_sink_write, &tree), PYPROF_OK);
        output.format = PYPROF_FORMAT_COLLAPSED;
        all.graph = flamegraph_create();
        assert_int_equal(pyprof_visit(profile, &output, &visitor), PYPROF_OK);
        look.unit = "ns";
        look.metric = (flamegraph_metric)(i % 4);
        look.idle = output.include_idle;
        look.empty = "Nothing was recorded of what is to be shown: another metric shows more.";
        look.facts.program = "host";
        look.facts.python = "3.13.1";
        look.facts.date = 1000000000;
        look.facts.seconds = 2.5;
        look.facts.rate = 2000;
        look.facts.samples = 4711;
        look.facts.lost = 12;
        assert_int_equal(flamegraph_write(all.graph, &look, text_sink_write, &drawn), FLAMEGRAPH_OK);
        flamegraph_free(all.graph);
        assert_int_equal(tree.size, drawn.size);
        assert_memory_equal(tree.text, drawn.text, tree.size);
        assert_has(tree.text, "4,711 samples, 12 lost", true);
        text_sink_free(&tree);
        text_sink_free(&drawn);
    }
    close_profile(profile, &counts);
}

static void assert_has(const char *text, const char *part, bool has) {
    if ((strstr(text, part) != NULL) != has) {
        fail_msg("%s: '%s' in '%.2000s'", has ? "missing" : "there", part, text);
    }
}

static void test_picture(void **state) {
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    (void)state;
    add_thread(profile, 7, "MainThread", true, "<lambda>", 2000 * MS);
    text_sink sink = written(profile, PYPROF_FORMAT_SVG, PYPROF_METRIC_WALL);
    assert_int_equal(strncmp(sink.text, "<?xml", 5), 0);
    assert_has(sink.text, "&lt;lambda&gt; (m.py:7)", true);
    assert_has(sink.text, "2.00 s", true);
    assert_has(sink.text, "wall time, waiting left out", true);
    assert_string_equal(sink.text + sink.size - strlen("</svg>\n"), "</svg>\n");
    text_sink_free(&sink);
    sink = written(profile, PYPROF_FORMAT_SVG, PYPROF_METRIC_SAMPLES);
    assert_has(sink.text, "3 samples", true);
    text_sink_free(&sink);
    sink =
        written(profile, PYPROF_FORMAT_SVG, PYPROF_METRIC_CPU); /* no time of that kind: what there is, and so named */
    assert_has(sink.text, "&lt;lambda&gt; (m.py:7)", true);
    assert_has(sink.text, "wall time, waiting included", true);
    assert_has(sink.text, "\xc2\xb7 CPU time", false);
    text_sink_free(&sink);
    close_profile(profile, &counts);
}

/* Without a stack it says why. */
static void test_empty_picture(void **state) {
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    (void)state;
    text_sink sink = written(profile, PYPROF_FORMAT_SVG, PYPROF_METRIC_WALL);
    assert_has(sink.text, "No thread ran Python", true);
    text_sink_free(&sink);
    add_thread(profile, 7, "MainThread", true, "f", 2 * MS);
    pyprof__node *node = pyprof__node_at(profile, profile->nodes.items.count - 1);
    node->samples_idle = node->samples;
    node->wall_idle_ns = node->wall_ns;
    sink = written(profile, PYPROF_FORMAT_SVG, PYPROF_METRIC_WALL);
    assert_has(sink.text, "f (m.py:7)", true); /* it is shown where they waited, and said that they did */
    assert_has(sink.text, "wall time, waiting included", true);
    text_sink_free(&sink);
    close_profile(profile, &counts);
}

/* All together. */
static void test_threads_of_a_picture(void **state) {
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    (void)state;
    add_thread(profile, 7, "host", false, "f", 2000 * MS);
    add_thread(profile, 8, "host", false, "f", 3000 * MS);
    text_sink together = written(profile, PYPROF_FORMAT_SVG, PYPROF_METRIC_WALL);
    assert_has(together.text, "f (m.py:7) (5.00 s, 100", true);
    assert_has(together.text, "<title>thread host", false);
    text_sink_free(&together);
    close_profile(profile, &counts);
}

static void assert_saved_as(const pyprof_profile *profile, const char *path, const char *start) {
    char found[8] = "";
    assert_int_equal(pyprof_save(profile, NULL, path), PYPROF_OK);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(found, 1, strlen(start), file), strlen(start));
    fclose(file);
    unlink(path);
    assert_string_equal(found, start);
}

static void test_saved_by_the_ending(void **state) {
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    (void)state;
    add_thread(profile, 7, "MainThread", true, "f", 2000 * MS);
    assert_saved_as(profile, "test_picture.svg", "<?xml");
    assert_saved_as(profile, "test_picture.SVG", "<?xml");
    assert_saved_as(profile, "test_picture.json", "{");
    assert_saved_as(profile, "test_picture.Json", "{");
    assert_saved_as(profile, "test_picture.svg.txt", "thread ");
    assert_saved_as(profile, "svg", "thread ");
    assert_int_equal(pyprof_save(profile, NULL, "/no/such/x.svg"), PYPROF_ERROR_IO);
    assert_string_equal(pyprof_last_error(), "cannot write /no/such/x.svg: No such file or directory");
    assert_int_equal(pyprof_save(profile, NULL, "/dev/full"), PYPROF_ERROR_IO);
    close_profile(profile, &counts);
}

typedef struct limited {
    size_t room;
} limited;

static bool write_limited(void *user, const void *data, size_t size) {
    limited *to = (limited *)user;
    (void)data;
    if (size > to->room) {
        return false;
    }
    to->room -= size;
    return true;
}

/* Wherever the writing ends, or memory: a result, and nothing kept. */
static void test_failures(void **state) {
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    pyprof_output output;
    (void)state;
    memset(&output, 0, sizeof output);
    output.format = PYPROF_FORMAT_SVG;
    add_thread(profile, 7, "MainThread", true, "f", 2000 * MS);
    text_sink whole = written(profile, PYPROF_FORMAT_SVG, PYPROF_METRIC_WALL);
    for (size_t room = 0; room < whole.size; room += 1000) {
        limited to = {room};
        assert_int_equal(pyprof_write(profile, &output, write_limited, &to), PYPROF_ERROR_WRITE);
        assert_string_equal(pyprof_last_error(), "the write function answered false");
    }
    limited to = {whole.size};
    assert_int_equal(pyprof_write(profile, &output, write_limited, &to), PYPROF_OK);
    size_t blocks = counts.blocks, failed = 0, calls = 1;
    for (size_t call = 1; calls >= call; call++) { /* until the call that is refused is none */
        text_sink sink = {0};
        size_t before = counts.calls;
        counts.refuse_call = before + call;
        pyprof_result result = pyprof_write(profile, &output, text_sink_write, &sink);
        calls = result == PYPROF_OK ? counts.calls - before : call + 1;
        failed += result == PYPROF_ERROR_MEMORY;
        assert_true(result == PYPROF_ERROR_MEMORY ||
                    (result == PYPROF_OK && sink.size == whole.size)); /* it asked for less */
        assert_int_equal(counts.blocks, blocks);
        text_sink_free(&sink);
    }
    assert_true(failed > 2);
    counts.refuse_call = 0;
    text_sink_free(&whole);
    close_profile(profile, &counts);
}

static void test_threads_without_names(void **state) {
    static const struct {
        int32_t tid;
        const char *name;
        bool is_named;
        const char *shown;
    } threads[] = {
        {10, "MainThread", true, "MainThread"}, {11, "host", false, "host (11)"}, {12, "host", false, "host (12)"},
        {13, "pool", false, "pool (13)"},       {14, "pool", false, "pool (14)"}, {15, "audio", false, "audio"},
        {16, "worker", true, "worker"},         {17, "worker", true, "worker"},   {18, "worker", false, "worker (18)"},
        {19, "audio 2", false, "audio 2"},      {20, "", false, "(20)"},          {21, "host", true, "host"},
    };
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    (void)state;
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        add_thread(profile, threads[i].tid, threads[i].name, threads[i].is_named, "f", 2 * MS);
    }
    text_sink collapsed = written(profile, PYPROF_FORMAT_COLLAPSED, PYPROF_METRIC_WALL);
    text_sink speedscope = written(profile, PYPROF_FORMAT_SPEEDSCOPE, PYPROF_METRIC_WALL);
    size_t lines = 0;
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        char line[100], name[100];
        bool is_shared = strcmp(threads[i].shown, "worker") == 0; /* whoever named them so wants them together */
        snprintf(line, sizeof line, "thread %s;f (m.py:7) %d\n", threads[i].shown, is_shared ? 4000 : 2000);
        snprintf(name, sizeof name, "\"sampled\",\"name\":\"%s\",", threads[i].shown);
        assert_has(collapsed.text, line, true);
        assert_has(speedscope.text, name, true);
    }
    for (const char *at = collapsed.text; (at = strchr(at, '\n')) != NULL; at++) {
        lines++;
    }
    assert_int_equal(lines, sizeof threads / sizeof *threads - 1);
    text_sink_free(&collapsed);
    text_sink_free(&speedscope);
    close_profile(profile, &counts);
}

/* A thread that is in the profile twice has one id: nobody else is to be told from it. */
static void test_one_thread_twice(void **state) {
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    (void)state;
    add_thread(profile, 30, "audio", false, "f", 2 * MS);
    add_thread(profile, 30, "audio", false, "g", 2 * MS);
    text_sink collapsed = written(profile, PYPROF_FORMAT_COLLAPSED, PYPROF_METRIC_WALL);
    assert_string_equal(collapsed.text, "thread audio;f (m.py:7) 2000\nthread audio;g (m.py:7) 2000\n");
    text_sink_free(&collapsed);
    close_profile(profile, &counts);
}

/* Innermost lines that may not be right: said where lines are shown, and only where there are such. */
static void test_jit_is_told(void **state) {
    const pyprof_format formats[] = {PYPROF_FORMAT_SVG, PYPROF_FORMAT_SPEEDSCOPE, PYPROF_FORMAT_PPROF_PLAIN};
    const char *told = "100 % in JIT code: innermost lines may be too early there";
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    (void)state;
    add_thread(profile, 7, "MainThread", true, "f", 2 * MS);
    for (uint64_t jit = 0; jit <= 3; jit += 3) {
        profile->samples_jit = profile->stats.samples_jit = jit;
        for (unsigned i = 0; i < 6; i++) {
            text_sink sink = {0};
            pyprof_output output;
            memset(&output, 0, sizeof output);
            output.format = formats[i % 3];
            output.detail = i < 3 ? PYPROF_DETAIL_LINE : PYPROF_DETAIL_FUNCTION;
            assert_int_equal(pyprof_write(profile, &output, text_sink_write, &sink), PYPROF_OK);
            assert_int_equal(memmem(sink.text, sink.size, told, strlen(told)) != NULL, jit > 0 && i < 3);
            text_sink_free(&sink);
        }
        text_sink table = written(profile, PYPROF_FORMAT_TABLE, PYPROF_METRIC_WALL);
        assert_has(table.text, "3  samples in JIT code: innermost lines may be too early", jit > 0);
        text_sink_free(&table);
        text_sink collapsed = written(profile, PYPROF_FORMAT_COLLAPSED, PYPROF_METRIC_WALL);
        assert_string_equal(collapsed.text, "thread MainThread;f (m.py:7) 2000\n"); /* no line but those of stacks */
        text_sink_free(&collapsed);
    }
    close_profile(profile, &counts);
}

/* A picture has what passes the filters, and says so where nothing does. */
static void test_filtered_picture(void **state) {
    counted_memory counts;
    pyprof_profile *profile = new_profile(&counts);
    pyprof_output output = {.format = PYPROF_FORMAT_SVG, .thread = "work*"};
    text_sink sink = {0};
    (void)state;
    add_thread(profile, 1, "MainThread", true, "of_main", 5 * MS);
    add_thread(profile, 2, "worker", true, "of_worker", 5 * MS);
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &sink), PYPROF_OK);
    assert_non_null(strstr(sink.text, "of_worker (m.py:7)"));
    assert_null(strstr(sink.text, "of_main"));
    text_sink_free(&sink);
    output.function = "of_main";
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &sink), PYPROF_OK);
    assert_null(strstr(sink.text, "of_worker"));
    assert_non_null(strstr(sink.text, "Nothing that was recorded passes the filters"));
    text_sink_free(&sink);
    close_profile(profile, &counts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_picture),
        cmocka_unit_test(test_picture_of_the_tree_is_that_of_a_visit),
        cmocka_unit_test(test_figures_of_a_visit),
        cmocka_unit_test(test_empty_picture),
        cmocka_unit_test(test_threads_of_a_picture),
        cmocka_unit_test(test_saved_by_the_ending),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_threads_without_names),
        cmocka_unit_test(test_one_thread_twice),
        cmocka_unit_test(test_jit_is_told),
        cmocka_unit_test(test_filtered_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
