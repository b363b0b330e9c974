/* A host with threads of its own, as servers have them: some that nobody named, some that share a name, one that has
   one of its own, one that takes its name late; and a thread of Python's threading.

     unnamed OUT     saves OUT.txt and OUT.json; prints "KIND ID" of each thread, one a line

   The threads run until the profile has seen all of them by their last names. */
#include <Python.h>

#include "pyprof.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../common/callbacks.h"

enum {
    THREADS = 7
};

typedef struct host_thread {
    const char *kind;
    const char *name;   /* as the system is told; NULL = it is not */
    bool is_named_late; /* after it was seen */
    pthread_t id;
    atomic_long tid;
} host_thread;

static host_thread threads[THREADS] = {
    {"unnamed", NULL, false, 0, 0},  {"unnamed", NULL, false, 0, 0},  {"unnamed", NULL, false, 0, 0},
    {"shared", "pool", false, 0, 0}, {"shared", "pool", false, 0, 0}, {"own", "audio", false, 0, 0},
    {"late", "decoder", true, 0, 0},
};

static const char script[] = "import threading, time\n"
                             "is_over = False\n"
                             "def work():\n"
                             "    end = time.monotonic() + 0.02\n"
                             "    while time.monotonic() < end: pass\n"
                             "def python_thread():\n"
                             "    while not is_over: work()\n"
                             "threading.Thread(target=python_thread, name='loader').start()\n";

static atomic_bool is_over;

static void die(const char *what) {
    fprintf(stderr, "unnamed: %s: %s\n", what, pyprof_last_error());
    exit(1);
}

static void run(const char *code) {
    PyGILState_STATE gil = PyGILState_Ensure();
    if (PyRun_SimpleString(code) != 0) {
        die(code);
    }
    PyGILState_Release(gil);
}

static void *work(void *user) {
    host_thread *self = (host_thread *)user;
    if (self->name != NULL && !self->is_named_late) {
        prctl(PR_SET_NAME, self->name);
    }
    atomic_store(&self->tid, syscall(SYS_gettid));
    run("work()");
    if (self->name != NULL) {
        prctl(PR_SET_NAME, self->name);
    }
    while (!atomic_load(&is_over)) {
        run("work()");
    }
    return NULL;
}

/* Whether each thread of the system, and Python's, has time; told by how many different first frames there are. */
static bool all_were_seen(void) {
    pyprof_profile *profile;
    text_sink out = {0};
    uint32_t known = 0;
    if (pyprof_snapshot(&profile) != PYPROF_OK || pyprof_write(profile, NULL, text_sink_write, &out) != PYPROF_OK) {
        die("snapshot");
    }
    pyprof_free(profile);
    for (int i = 0; out.text != NULL && i < THREADS; i++) {
        char id[32];
        snprintf(id, sizeof id, "(%ld);", atomic_load(&threads[i].tid));
        bool by_name = threads[i].name != NULL && strcmp(threads[i].kind, "shared") != 0;
        char name[32] = "";
        snprintf(name, sizeof name, "thread %s;", by_name ? threads[i].name : "");
        known += strstr(out.text, by_name ? name : id) != NULL;
    }
    known += out.text != NULL && strstr(out.text, "thread loader;") != NULL;
    text_sink_free(&out);
    return known == THREADS + 1;
}

int main(int argc, char **argv) {
    pyprof_desc desc;
    pyprof_profile *profile;
    char path[4096];
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 1000;
    if (argc != 2) {
        return 2;
    }
    Py_InitializeEx(0);
    if (pyprof_start(&desc) != PYPROF_OK) {
        die("start");
    }
    run(script);
    PyThreadState *state = PyEval_SaveThread();
    for (int i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i].id, NULL, work, &threads[i]) != 0) {
            die("thread");
        }
    }
    while (!all_were_seen()) {
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    run("is_over = True");
    atomic_store(&is_over, true);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i].id, NULL);
        printf("%s %ld\n", threads[i].kind, atomic_load(&threads[i].tid));
    }
    PyEval_RestoreThread(state);
    if (pyprof_stop(&profile) != PYPROF_OK) {
        die("stop");
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s.%s", argv[1], i == 0 ? "txt" : "json");
        if (pyprof_save(profile, NULL, path) != PYPROF_OK) {
            die("save");
        }
    }
    pyprof_free(profile);
    return Py_FinalizeEx();
}
