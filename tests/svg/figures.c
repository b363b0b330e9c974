/* Draws a graph of figures on standard output, with all that such a picture has to choose: figures [METRIC [idle]]. */
#include "flamegraph.h"

static uint32_t frame(flamegraph *graph, uint32_t parent, const char *name) {
    uint32_t made = flamegraph_add_frame(graph, parent, name, strlen(name));
    if (made == FLAMEGRAPH_NONE)
        abort();
    return made;
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
    options.idle = argc > 2;
    options.title = "<figures>";
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
    flamegraph_figures wrong = {1, 2, 0, 0, 0, 0}, vast = {0, 0, UINT64_MAX, 0, 0, 0};
    if (flamegraph_add_figures(graph, run, &wrong) != FLAMEGRAPH_BAD_INPUT ||
        flamegraph_add_figures(graph, run, &vast) != FLAMEGRAPH_BAD_INPUT || flamegraph_total(graph) != 2000000)
        return 1;
    flamegraph_result result = flamegraph_save(graph, &options, "-", flamegraph_tell_file, stderr);
    flamegraph_free(graph);
    return result == FLAMEGRAPH_OK ? 0 : 1;
}
