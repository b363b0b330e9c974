/* Writes a profile that is made by hand, of all that a name, a stack or a time may be, in each format.

   handmade FOLDER: its files are NAME.ENDING, NAME = METRIC[-idle][-function]. With HOSTILE in the environment names are
   what nobody's are. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#define EXPORTS_IMPLEMENTATION
#include "exports.h"

#include "../unit/unit.h"
#include "../unit/workbench.h"

/* A long name is seldom there, or all files would be nothing but it: a gigabyte, of which none says more than another. */
enum {
    LONG_NAME = 100000,
    IS_LONG = 8, /* of names, below */
    STANDS_IN = 9,
    LONG_ONCE_IN = 16
};

static uint32_t text_of(workbench *bench, const char *text, size_t size) {
    return pyprof__intern_text(bench->profile, text, size);
}

/* Names that are no function's, but of what Python takes for one: code.replace(co_name=...). */
static uint32_t hostile_function(workbench *bench, uint64_t number) {
    static char longest[LONG_NAME];
    static const struct {
        const char *text;
        size_t size;
    } names[] = {{"", 0},
                 {"lone \xed\xb2\x80 surrogate", 18},
                 {"no UTF-8 \xff\xc3", 11},
                 {"two\nlines\r\n", 11},
                 {"semi;colon \\udc80", 17},
                 {"zero \0 byte", 11},
                 {"wall", 4},
                 {"\xe2\x80\xa8 \xf0\x9f\x90\x8d \"quoted\" \x1b[31m", 23},
                 {longest, sizeof longest},
                 {"[interpreter ]", 14},
                 {"[interpreter 7", 14}};
    memset(longest, 'x', sizeof longest);
    uint32_t kind = (uint32_t)(number % 33), name = kind % (sizeof names / sizeof *names);
    name = name == IS_LONG && (number >> 32) % LONG_ONCE_IN != 0 ? STANDS_IN : name;
    uint32_t text = text_of(bench, names[name].text, names[name].size);
    uint32_t file = text_of(bench, kind % 3 == 0 ? "" : "/no;such/\xed\xb3\xbf\n.py", kind % 3 == 0 ? 0 : 16);
    return pyprof__intern_function(bench->profile, text, file, (int32_t)(kind % 5));
}

static uint32_t plain_function(workbench *bench, uint64_t number) {
    char name[32];
    if (number % 16 == 0) {
        return bench->profile->truncated;
    }
    if (number % 16 < 3) {
        return pyprof__intern_marker(bench->profile, number % 16 == 1 ? "[interpreter 1: physics]" : "[interpreter 2]");
    }
    snprintf(name, sizeof name, "Class.function_%u", (unsigned)(number % 16));
    return add_function(bench, name, (int32_t)(number % 16) * 10);
}

/* A stack that is new in part, or was there before; so some functions call themselves. */
static uint32_t some_stack(workbench *bench, uint32_t track, uint64_t *random, bool is_hostile) {
    uint32_t node = pyprof__track_at(bench->profile, track)->root;
    for (uint64_t depth = unit_random(random) % 9 + 1; depth > 0; depth--) {
        uint64_t number = unit_random(random);
        uint32_t function = is_hostile ? hostile_function(bench, number) : plain_function(bench, number);
        size_t file_size;
        pyprof__string_text(bench->profile, pyprof__function_at(bench->profile, function)->file, &file_size);
        bool is_line_known = file_size > 0 && number % 7 != 0;
        int32_t unknown = file_size > 0 ? -(int32_t)(number % 2) : 0;
        node =
            pyprof__child(bench->profile, node, function, is_line_known ? (int32_t)(number >> 8 & 3) + 200 : unknown);
    }
    return node;
}

static void fill(workbench *bench, bool is_hostile) {
    static const char *const names[] = {"MainThread", "worker", "worker", "worker \xed\xb2\x80",
                                        "game",       "pool",   "",       "worker"};
    uint32_t tracks[sizeof names / sizeof *names];
    uint64_t random = 7;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        tracks[i] = add_track(bench, names[i]);
        pyprof__track *track = pyprof__track_at(bench->profile, tracks[i]);
        track->tid = 4000 + (int32_t)i;
        track->is_named = i != 2 && i != 6; /* the second worker has the system's name, the last one has none */
        track->is_shared = i == 5;
    }
    for (int i = 0; i < 1500; i++) {
        uint32_t track = tracks[unit_random(&random) % (sizeof names / sizeof *names)];
        uint32_t node = some_stack(bench, track, &random, is_hostile);
        uint32_t kind = (uint32_t)(unit_random(&random) % 3);
        uint64_t time = unit_random(&random) % (i % 3 == 0 ? 700 : i % 100 == 1 ? 50000000000u : 5000000);
        pyprof__add_time(bench->profile, track, node, kind, time, kind == PYPROF__IDLE ? time / 1000 : time / 3);
        pyprof__count_samples(bench->profile, track, node, kind, (uint32_t)(unit_random(&random) % 3));
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint64_t end = pyprof__track_at(bench->profile, tracks[i])->end_ns;
        bench->profile->duration_ns = end > bench->profile->duration_ns ? end : bench->profile->duration_ns;
    }
    bench->profile->stats.lost_late = 3;
    bench->profile->stats.lost_memory = 4;
    bench->profile->samples_jit = 500;
}

static bool write_to(void *file, const void *data, size_t size) {
    return fwrite(data, 1, size, (FILE *)file) == size;
}

/* By the path's ending, for viewers that are not ours. */
static void export_as(const workbench *bench, const char *folder, const pyprof_output *output, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL ||
        exports_write(bench->profile, output, exports_format_of_path(path), write_to, file) != PYPROF_OK ||
        fclose(file) != 0) {
        fprintf(stderr, "%s: %s\n", path, exports_last_error());
        exit(1);
    }
}

/* The rows of pyprof_top: "SELF TOTAL SAMPLES_SELF SAMPLES_TOTAL LINE", a tab, name and path, with a zero behind each. */
static void save_top(const workbench *bench, const char *folder, const pyprof_output *output, const char *name) {
    static pyprof_row rows[4096];
    char path[4096];
    size_t count = sizeof rows / sizeof *rows;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || pyprof_top(bench->profile, output, rows, &count) != PYPROF_OK || count > 4096) {
        fprintf(stderr, "%s: %s\n", path, pyprof_last_error());
        exit(1);
    }
    for (size_t i = 0; i < count; i++) {
        fprintf(file, "%llu %llu %llu %llu %d\t", (unsigned long long)rows[i].self, (unsigned long long)rows[i].total,
                (unsigned long long)rows[i].samples_self, (unsigned long long)rows[i].samples_total, (int)rows[i].line);
        fwrite(rows[i].name.data, 1, rows[i].name.size + 1, file);
        fwrite(rows[i].path.data, 1, rows[i].path.size + 1, file);
    }
    if (fclose(file) != 0) {
        exit(1);
    }
}

/* By the path's ending, as a host has it written. */
static void save_as(const workbench *bench, const char *folder, const pyprof_output *output, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (pyprof_save(bench->profile, output, path) != PYPROF_OK) {
        fprintf(stderr, "%s: %s\n", path, pyprof_last_error());
        exit(1);
    }
}

typedef void (*save_fn)(const workbench *bench, const char *folder, const pyprof_output *output, const char *name);

static void save(const workbench *bench, const char *folder, const pyprof_output *output, const char *ending,
                 save_fn as) {
    static const char *const metrics[] = {"wall", "cpu", "gil", "samples"};
    char name[64];
    snprintf(name, sizeof name, "%s%s%s%s", metrics[output->metric], output->include_idle ? "-idle" : "",
             output->detail == PYPROF_DETAIL_FUNCTION ? "-function" : "", ending);
    as(bench, folder, output, name);
}

/* Times only have pstats; all else is the same whatever the metric, or a viewer's that can choose. */
static void export_all(const workbench *bench, const char *folder, const pyprof_output *output) {
    static const char *const endings[] = {".firefox.json", ".perfetto.json", ".jsonl", ".pstats"};
    if (getenv("HOSTILE") != NULL && output->metric != PYPROF_METRIC_WALL) {
        return; /* names are the same in all, and the longest ones take a sanitizer long */
    }
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (i < 3 || output->metric != PYPROF_METRIC_SAMPLES) {
            save(bench, folder, output, endings[i], export_as);
        }
    }
}

int main(int argc, char **argv) {
    static const char *const endings[] = {".pb.gz", ".pb", ".txt", ".json"};
    workbench bench;
    if (argc != 2) {
        fputs("usage: handmade FOLDER\n", stderr);
        return 2;
    }
    bench_open(&bench, 0);
    fill(&bench, getenv("HOSTILE") != NULL);
    for (int variant = 0; variant < 16; variant++) {
        pyprof_output output = {.metric = (pyprof_metric)(variant % 4),
                                .detail = (pyprof_detail)(variant / 4 % 2),
                                .include_idle = variant / 8 != 0};
        for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
            save(&bench, argv[1], &output, endings[i], save_as);
        }
        export_all(&bench, argv[1], &output);
        save(&bench, argv[1], &output, ".top", save_top);
    }
    pyprof_output merged = {.include_idle = true, .merge_threads = true};
    pyprof_output filtered = {.thread = "worker*", .min_share = 0.02};
    save_as(&bench, argv[1], &merged, "merged.pb.gz");
    save_as(&bench, argv[1], &merged, "merged.txt");
    save_as(&bench, argv[1], &filtered, "filtered.pb.gz");
    save_as(&bench, argv[1], &filtered, "filtered.txt");
    bench_close(&bench);
    return 0;
}
