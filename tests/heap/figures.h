/* What a heap profile of this moment says. Included after pyprof.h with its implementation, and cmocka.h. */
#ifndef FIGURES_H
#define FIGURES_H

static void run(const char *code) {
    assert_int_equal(PyRun_SimpleString(code), 0);
}

static pyprof_profile *snapshot(void) {
    pyprof_profile *profile;
    assert_int_equal(pyprof_heap_snapshot(&profile), PYPROF_OK);
    return profile;
}

/* What a function has with all that it called, in a metric. */
static double total(const pyprof_profile *profile, pyprof_metric metric, const char *name) {
    static pyprof_row rows[4096];
    size_t count = 4096;
    pyprof_output output = {0};
    output.metric = metric;
    output.detail = PYPROF_DETAIL_FUNCTION;
    assert_int_equal(pyprof_top(profile, &output, rows, &count), PYPROF_OK);
    assert_true(count <= 4096);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].name.data, name) == 0) {
            return (double)rows[i].total;
        }
    }
    return 0;
}

/* The lines, threads and interpreters that are shown: a stack of a sample is where it was made. */
typedef struct searched {
    char text[1 << 22];
    size_t size;
} searched;

static bool gather(void *user, const void *data, size_t size) {
    searched *self = (searched *)user;
    size = size < sizeof self->text - 1 - self->size ? size : sizeof self->text - 1 - self->size;
    memcpy(self->text + self->size, data, size);
    self->size += size;
    self->text[self->size] = '\0';
    return true;
}

static void assert_has(const char *part, const char *other) {
    static searched found;
    pyprof_profile *profile = snapshot();
    pyprof_output output = {0};
    found.size = 0;
    assert_int_equal(pyprof_write(profile, &output, gather, &found), PYPROF_OK);
    pyprof_free(profile);
    for (char *line = found.text; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        if (strstr(line, part) != NULL && strstr(line, other) != NULL) {
            return;
        }
        line = end != NULL ? end + 1 : NULL;
    }
    fail_msg("no stack has %s and %s", part, other);
}

#endif
