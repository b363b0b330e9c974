/* Writes profiles of which viewers might not be fond, made by the public functions alone, in each format: special FOLDER.
   Its files are KIND.ENDING:
     empty      nothing was recorded
     one        one sample
     deep       a stack of 5,000 functions
     recursion  a function that calls itself 4,999 times
     wide       200,000 nodes below 1,000 callers */
#define PYPROF_NO_RECORDING
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#define EXPORTS_IMPLEMENTATION
#include "exports.h"

#define MS UINT64_C(1000000)

enum {
    DEPTH = 5000,
    WIDTH = 200,
    CALLERS = 1000
};

static void must(const char *what, pyprof_result result) {
    if (result != PYPROF_OK) {
        fprintf(stderr, "special: %s: %s\n", what, pyprof_last_error());
        exit(1);
    }
}

static pyprof_text text(const char *words) {
    pyprof_text made = {words, strlen(words)};
    return made;
}

static uint32_t add(pyprof_profile *profile, uint32_t parent, const char *name, int32_t line, uint64_t ns) {
    pyprof_node node = {.parent = parent,
                        .name = text(name),
                        .path = text(parent == PYPROF_NO_NODE ? "" : "/no/such/m.py"),
                        .line = parent == PYPROF_NO_NODE ? 0 : line + 1,
                        .first_line = parent == PYPROF_NO_NODE ? 0 : line,
                        .tid = parent == PYPROF_NO_NODE ? 4711 : 0,
                        .is_named = true,
                        .samples = ns > 0,
                        .wall_ns = ns,
                        .cpu_ns = ns / 2,
                        .gil_ns = ns};
    uint32_t number;
    must("pyprof_add_node", pyprof_add_node(profile, &node, &number));
    return number;
}

static void add_span(pyprof_profile *profile, uint32_t node, uint64_t start, uint64_t ns) {
    const pyprof_span span = {
        .node = node, .start_ns = start, .wall_ns = ns, .cpu_ns = ns / 2, .samples = 1, .has_gil = true};
    must("pyprof_add_span", pyprof_add_span(profile, &span));
}

static void add_one(pyprof_profile *profile) {
    uint32_t node = add(profile, add(profile, PYPROF_NO_NODE, "MainThread", 0, 0), "once", 3, 10 * MS);
    add_span(profile, node, 0, 10 * MS);
}

/* Its innermost function calls another one for a while, and its outermost one does something else at last. */
static void add_deep(pyprof_profile *profile, bool is_recursion) {
    uint32_t thread = add(profile, PYPROF_NO_NODE, "MainThread", 0, 0), node = thread, first = 0;
    for (int i = 0; i < DEPTH; i++) {
        char name[32];
        snprintf(name, sizeof name, "level_%d", is_recursion ? 0 : i);
        node = add(profile, node, name, is_recursion ? 1 : i + 1, i + 1 == DEPTH ? 10 * MS : 0);
        first = i == 0 ? node : first;
    }
    uint32_t leaf = add(profile, node, "leaf", 9000, 10 * MS);
    uint32_t other = add(profile, first, "other", 9001, 10 * MS);
    add_span(profile, node, 0, 10 * MS);
    add_span(profile, leaf, 10 * MS, 10 * MS);
    add_span(profile, other, 20 * MS, 10 * MS);
}

static void add_wide(pyprof_profile *profile) {
    uint32_t thread = add(profile, PYPROF_NO_NODE, "MainThread", 0, 0);
    for (int i = 0; i < CALLERS; i++) {
        char name[32];
        snprintf(name, sizeof name, "caller_%d", i);
        uint32_t caller = add(profile, thread, name, i + 1, 0);
        for (int j = 0; j + 1 < WIDTH; j++) {
            snprintf(name, sizeof name, "called_%d", j);
            add_span(profile, add(profile, caller, name, j + 1, MS), (uint64_t)(i * (WIDTH - 1) + j) * MS, MS);
        }
    }
}

static bool write_to(void *file, const void *data, size_t size) {
    return fwrite(data, 1, size, (FILE *)file) == size;
}

static void save_all(const pyprof_profile *profile, const char *folder, const char *kind) {
    static const char *const endings[] = {".txt",          ".json",          ".pb",   ".pstats",
                                          ".firefox.json", ".perfetto.json", ".jsonl"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s%s", folder, kind, endings[i]);
        FILE *file = fopen(path, "wb");
        if (file == NULL || exports_write(profile, NULL, exports_format_of_path(path), write_to, file) != PYPROF_OK ||
            fclose(file) != 0) {
            fprintf(stderr, "%s: %s\n", path, exports_last_error());
            exit(1);
        }
    }
}

int main(int argc, char **argv) {
    static const char *const kinds[] = {"empty", "one", "deep", "recursion", "wide"};
    if (argc != 2) {
        fputs("usage: special FOLDER\n", stderr);
        return 2;
    }
    for (int kind = 0; kind < 5; kind++) {
        pyprof_facts facts = {
            .program = text("/no/such/game"), .process = text("game"), .duration_ns = 200000 * MS, .interval_us = 1000};
        pyprof_profile *profile;
        must("pyprof_make", pyprof_make(&facts, 0, NULL, &profile));
        if (kind == 1) {
            add_one(profile);
        } else if (kind == 2 || kind == 3) {
            add_deep(profile, kind == 3);
        } else if (kind == 4) {
            add_wide(profile);
        }
        save_all(profile, argv[1], kinds[kind]);
        pyprof_free(profile);
    }
    return 0;
}
