/* The second unit of units.c: it draws, too, and not through the first one's functions. */
#include "flamegraph.h"

int other_unit(void);

int other_unit(void) {
    flamegraph *graph = flamegraph_create();
    bool good = graph && flamegraph_add(graph, "", 0, "nothing", NULL, NULL) == FLAMEGRAPH_OK &&
                flamegraph_save(graph, NULL, "/dev/null", flamegraph_tell_file, stderr) == FLAMEGRAPH_OK;
    flamegraph_free(graph);
    return good ? 0 : 1;
}
