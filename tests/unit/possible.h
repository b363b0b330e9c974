/* Leaves out the tests of cmocka's that cannot run here, and says why: PYPROF_CANNOT has lines of "NAME: WHY". See
   pythons/aarch64.py. To be included behind cmocka.h. */
#ifndef POSSIBLE_H
#define POSSIBLE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_possible(const char *name) {
    const char *line = getenv("PYPROF_CANNOT");
    size_t length = strlen(name);
    while (line != NULL && *line != '\0') {
        int size = (int)strcspn(line, "\n");
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            printf("skipped: %.*s\n", size, line);
            return false;
        }
        line += size + (line[size] == '\n');
    }
    return true;
}

__attribute__((unused)) static int run_possible_tests(const char *group, const struct CMUnitTest *tests, size_t count,
                                                      CMFixtureFunction set_up, CMFixtureFunction tear_down) {
    struct CMUnitTest *possible = (struct CMUnitTest *)calloc(count, sizeof *possible);
    size_t kept = 0;
    if (possible == NULL) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        if (is_possible(tests[i].name)) {
            possible[kept++] = tests[i];
        }
    }
    int failed = _cmocka_run_group_tests(group, possible, kept, set_up, tear_down);
    free(possible);
    return failed;
}

#define _cmocka_run_group_tests run_possible_tests

#endif
