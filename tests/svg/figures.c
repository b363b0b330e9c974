/* Draws a graph of figures on standard output, with all that such a picture has to choose: figures [METRIC [IDLE [base]]];
 * IDLE is yes or no. */
#include "flamegraph.h"

static uint32_t frame(flamegraph *graph, uint32_t parent, const char *name) {
    uint32_t made = flamegraph_add_frame(graph, parent, name, strlen(name));
    if (made == FLAMEGRAPH_NONE)
        abort();
    return made;
}

/* The base had half of all, but of load, which had none of its CPU time. */
static void add_base(flamegraph *graph, uint32_t node, flamegraph_figures figures, bool is_load) {
    flamegraph_figures half = {figures.wall / 2, figures.wall_idle / 2, is_load ? 0 : figures.cpu / 2,
                               figures.gil / 2,  figures.samples / 2,   figures.samples_idle / 2};
    if (flamegraph_add_base(graph, node, &half) != FLAMEGRAPH_OK)
        abort();
}

static void add(flamegraph *graph, uint32_t node, flamegraph_figures figures) {
    if (flamegraph_add_figures(graph, node, &figures) != FLAMEGRAPH_OK)
        abort();
}

int main(int argc, char **argv) {
    flamegraph *graph = flamegraph_create();
    flamegraph_options options;
    memset(&options, 0, sizeof options);
    if (!graph)
        return 1;
    options.metric = (flamegraph_metric)(argc > 1 ? atoi(argv[1]) : 0);
    options.idle = argc > 2 && strcmp(argv[2], "no") != 0;
    options.difference = argc > 3 ? FLAMEGRAPH_SHARES : FLAMEGRAPH_NO_DIFFERENCE;
    options.title = "<figures>";
    options.facts.program = "a_program_of_some_length";
    options.facts.python = "3.15.0b2+";
    options.facts.date = 1800000000;
    options.facts.seconds = 12.5;
    options.facts.rate = 1000;
    options.facts.samples = 12345;
    options.facts.lost = 67;
    uint32_t start = frame(graph, FLAMEGRAPH_ROOT, "thread MainThread");
    uint32_t worker = frame(graph, FLAMEGRAPH_ROOT, "thread worker");
    uint32_t run = frame(graph, frame(graph, start, "<module> (a.py:1)"), "run (a.py:5)");
    uint32_t load = frame(graph, run, "_find_and_load (<frozen importlib._bootstrap>:1)");
    uint32_t wait = frame(graph, frame(graph, worker, "loop (b.py:2)"), "wait (b.py:9)");
    flamegraph_figures running = {600000, 0, 500000, 400000, 60, 0}, loading = {200000, 0, 100000, 50000, 20, 0};
    flamegraph_figures waiting = {1200000, 1000000, 0, 0, 120, 100}, starting = {0, 0, 0, 50000, 0, 0};
    add(graph, run, running);
    add(graph, load, loading);
    add(graph, wait, waiting);
    add(graph, worker, starting);
    if (argc > 3) {
        add_base(graph, run, running, false);
        add_base(graph, load, loading, true);
        add_base(graph, wait, waiting, false);
    }
    flamegraph_figures wrong = {1, 2, 0, 0, 0, 0}, vast = {0, 0, UINT64_MAX, 0, 0, 0};
    if (flamegraph_add_figures(graph, run, &wrong) != FLAMEGRAPH_BAD_INPUT ||
        flamegraph_add_figures(graph, run, &vast) != FLAMEGRAPH_BAD_INPUT || flamegraph_total(graph) != 2000000)
        return 1;
    flamegraph_result result = flamegraph_save(graph, &options, "-", flamegraph_tell_file, stderr);
    flamegraph_free(graph);
    return result == FLAMEGRAPH_OK ? 0 : 1;
}
