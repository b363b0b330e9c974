/* Profiles of a few functions in known files, and the collapsed text of such, read back. Every test that includes it
   includes unit.h and workbench.h before. */
#ifndef SUBJECTS_H
#define SUBJECTS_H

/* A function of the profiles that are made here. file is where its code is; shown, how outputs show that. */
typedef struct subject {
    const char *name;
    const char *file;
    const char *shown;
    const char *package; /* "" = the program's own */
} subject;

UNIT_UNUSED static const subject subjects[] = {
    {"f", "/srv/app/a.py", "a.py", ""},
    {"f", "/srv/app/b.py", "b.py", ""},
    {"Game.update", "/srv/app/a.py", "a.py", ""},
    {"loads", "/no/lib/python3.11/json/loader.py", "loader.py", "[json]"},
    {"decode", "/no/lib/python3.11/json/decoder.py", "decoder.py", "[json]"},
    {"send", "/no/site-packages/requests/api.py", "api.py", "[requests]"},
    {"[interpreter 1: physics]", "", "", ""},
    {"[interpreter 0]", "", "", ""},
    {"[interpreter 12]", "", "", ""},
};

enum {
    SUBJECTS = sizeof subjects / sizeof *subjects,
    MARKS = 3, /* the last ones */
    MOST_LINES = 1024,
    MOST_DEPTH = 9
};

UNIT_UNUSED static const char *const thread_names[] = {"MainThread", "Thread-1", "Thread-2"};

UNIT_UNUSED static uint32_t add_subject(workbench *bench, uint32_t parent, const subject *what, int32_t line) {
    uint32_t name = pyprof__intern_text(bench->profile, what->name, strlen(what->name));
    uint32_t file = pyprof__intern_text(bench->profile, what->file, strlen(what->file));
    uint32_t function = pyprof__intern_function(bench->profile, name, file, what->file[0] != '\0' ? 1 : 0);
    return pyprof__child(bench->profile, parent, function, what->file[0] != '\0' ? line : 0);
}

/* Random stacks. All times are whole microseconds, so that texts round nothing. */
UNIT_UNUSED static void fill(workbench *bench, uint64_t seed, int count) {
    uint64_t random = seed;
    for (size_t i = 0; i < 3; i++) {
        add_track(bench, thread_names[i]);
    }
    for (int i = 0; i < count; i++) {
        uint32_t track = (uint32_t)(unit_random(&random) % 3);
        uint32_t node = pyprof__track_at(bench->profile, track)->root;
        for (uint64_t depth = unit_random(&random) % 7 + 1; depth > 0; depth--) {
            uint64_t which = unit_random(&random) % SUBJECTS;
            node = add_subject(bench, node, &subjects[which], (int32_t)(unit_random(&random) % 3 + 1));
        }
        uint32_t kind = (uint32_t)(unit_random(&random) % 3);
        uint64_t wall = 1000 * (unit_random(&random) % 900 + 1), cpu = 1000 * (unit_random(&random) % 500);
        if (i % 50 == 0) {
            pyprof__add_absence(bench->profile, track, pyprof__track_at(bench->profile, track)->end_ns + 7000);
        }
        pyprof__add_time(bench->profile, track, node, kind, wall, cpu);
        pyprof__count_samples(bench->profile, track, node, kind, 1);
    }
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t end = pyprof__track_at(bench->profile, i)->end_ns;
        bench->profile->duration_ns = end > bench->profile->duration_ns ? end : bench->profile->duration_ns;
    }
}

/* A line of collapsed text. */
typedef struct stack {
    char frames[MOST_DEPTH][64];
    size_t depth;
    uint64_t value;
} stack;

typedef struct stacks {
    stack *items;
    size_t count;
} stacks;

UNIT_UNUSED static stack parse_line(const char *line, size_t size) {
    stack parsed;
    size_t at = 0;
    memset(&parsed, 0, sizeof parsed);
    const char *value = line + size;
    while (value[-1] != ' ') {
        value--;
    }
    parsed.value = strtoull(value, NULL, 10);
    for (const char *c = line; c < value; c++) {
        bool ends = *c == ';' || c == value - 1;
        assert_true(parsed.depth < MOST_DEPTH && at < sizeof parsed.frames[0] - 1);
        if (!ends) {
            parsed.frames[parsed.depth][at++] = *c;
        } else {
            parsed.depth++;
            at = 0;
        }
    }
    return parsed;
}

UNIT_UNUSED static stacks written(const pyprof_profile *profile, const pyprof_output *output) {
    stacks all = {(stack *)calloc(MOST_LINES, sizeof(stack)), 0};
    text_sink sink = {0};
    assert_int_equal(pyprof_write(profile, output, text_sink_write, &sink), PYPROF_OK);
    for (const char *line = sink.text, *end; line != NULL && (end = strchr(line, '\n')) != NULL; line = end + 1) {
        assert_true(all.count < MOST_LINES);
        all.items[all.count++] = parse_line(line, (size_t)(end - line));
    }
    text_sink_free(&sink);
    return all;
}

UNIT_UNUSED static int compare_stacks(const void *one, const void *other) {
    const stack *a = (const stack *)one, *b = (const stack *)other;
    int order = memcmp(a->frames, b->frames, sizeof a->frames);
    return order != 0 ? order : (a->value > b->value) - (a->value < b->value);
}

/* Makes stacks that look alike one, in an order of their own. */
UNIT_UNUSED static void settle(stacks *all) {
    size_t kept = 0;
    qsort(all->items, all->count, sizeof *all->items, compare_stacks);
    for (size_t i = 0; i < all->count; i++) {
        if (kept > 0 && memcmp(all->items[kept - 1].frames, all->items[i].frames, sizeof all->items[i].frames) == 0) {
            all->items[kept - 1].value += all->items[i].value;
        } else {
            all->items[kept++] = all->items[i];
        }
    }
    all->count = kept;
}

UNIT_UNUSED static const subject *subject_of(const char *frame) {
    for (size_t i = 0; i < SUBJECTS; i++) {
        char begin[80];
        snprintf(begin, sizeof begin, subjects[i].shown[0] != '\0' ? "%s (%s:" : "%s", subjects[i].name,
                 subjects[i].shown);
        if (strncmp(frame, begin, strlen(begin)) == 0) {
            return &subjects[i];
        }
    }
    fail_msg("a frame that nobody put there: %s", frame);
    return NULL;
}

UNIT_UNUSED static void assert_written(const pyprof_profile *profile, const pyprof_output *output,
                                       const char *expected) {
    text_sink sink = {0};
    assert_int_equal(pyprof_write(profile, output, text_sink_write, &sink), PYPROF_OK);
    assert_string_equal(sink.text != NULL ? sink.text : "", expected);
    text_sink_free(&sink);
}

#endif
