/* Host and script see one recording, whoever began it: the host's is the script's, and the other way round. */
#define PYPROF_IMPLEMENTATION
#define PYPROF_MODULE_IMPLEMENTATION
#include "pyprof.h"
#include "pyprof_module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "shared.c:%d: %s: %s\n", __LINE__, #condition, pyprof_last_error());                       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static const char of_the_host[] =
    "import pyprof\n"
    "def seen_by_both():\n"
    "    return sum(i * i for i in range(1000))\n"
    "def count(profile):\n"
    "    return sum(row.samples for row in profile.functions() if row.name == 'seen_by_both')\n"
    "assert pyprof.is_active()\n"
    "try:\n"
    "    pyprof.start()\n"
    "except RuntimeError as error:\n"
    "    print(error)\n"
    "else:\n"
    "    raise AssertionError('a second recording')\n"
    "while count(pyprof.snapshot()) < 5:\n"
    "    seen_by_both()\n"
    "assert pyprof.stats().samples >= 5\n";

static const char of_the_script[] = "assert not pyprof.is_active()\n"
                                    "pyprof.start(rate_hz=1000)\n"
                                    "while count(pyprof.snapshot()) < 5:\n"
                                    "    seen_by_both()\n";

static const char ended_by_the_script[] = "profile = pyprof.stop()\n"
                                          "assert count(profile) >= 5\n";

static bool find(void *user, const pyprof_node *node) {
    bool *found = (bool *)user;
    *found = *found || strcmp(node->name.data, "seen_by_both") == 0;
    return true;
}

static void stop_and_look(void) {
    bool found = false;
    pyprof_visitor visitor;
    pyprof_profile *profile = NULL;
    memset(&visitor, 0, sizeof visitor);
    visitor.node = find;
    visitor.user = &found;
    CHECK(pyprof_stop(&profile) == PYPROF_OK);
    CHECK(pyprof_visit(profile, NULL, &visitor) == PYPROF_OK);
    CHECK(found);
    pyprof_free(profile);
}

int main(void) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 1000;
    PyImport_AppendInittab("pyprof", PyInit_pyprof);
    CHECK(pyprof_start(&desc) == PYPROF_OK);
    Py_Initialize();
    CHECK(PyRun_SimpleString(of_the_host) == 0);
    stop_and_look();
    CHECK(PyRun_SimpleString(of_the_script) == 0);
    CHECK(pyprof_start(&desc) == PYPROF_ERROR_ALREADY_ACTIVE);
    stop_and_look();
    CHECK(PyRun_SimpleString(of_the_script) == 0);
    CHECK(PyRun_SimpleString(ended_by_the_script) == 0);
    CHECK(pyprof_stop(NULL) == PYPROF_ERROR_NOT_ACTIVE);
    CHECK(Py_FinalizeEx() == 0);
    return 0;
}
