/* Handlers that begin late and end late, held up at every moment of their life, while the recording
   is stopped, another one begins, or the plugin that they lie in is unloaded.

       late PLUGIN FOLDER ROUNDS

   In each round the handler is held at the next moment: the plugin's header calls test_pause() at each of them. What was
   given back to the allocator cannot be touched any more without dying of it. Prints how often each way was gone, in how
   many of them a handler was held, and how often the plugin was really gone. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <Python.h>

#include "pyprof.h"

/* The pauses. */

static uint32_t armed, passed, held, let_go, target;

static uint32_t get(const uint32_t *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void set(uint32_t *word, uint32_t value) {
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

void test_pause(void);

void test_pause(void) {
    if (get(&armed) && __atomic_fetch_add(&passed, 1, __ATOMIC_ACQ_REL) == get(&target)) {
        set(&held, 1);
        while (!get(&let_go)) {
            usleep(50);
        }
        set(&held, 2);
    }
}

static void arm(uint32_t moment) {
    set(&target, moment);
    set(&passed, 0);
    set(&held, 0);
    set(&let_go, 0);
    set(&armed, 1);
}

static void release(void) {
    set(&armed, 0);
    set(&let_go, 1);
    while (get(&held) == 1) {
        usleep(50);
    }
    usleep(1000); /* until the handler has returned */
}

static void *release_later(void *microseconds) {
    usleep((useconds_t)(uintptr_t)microseconds);
    release();
    return NULL;
}

/* Memory that is never used again, nor touched. */

static void *guarded_alloc(size_t size, void *user) {
    size_t *block = (size_t *)mmap(NULL, size + 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)user;
    if (block == MAP_FAILED) {
        return NULL;
    }
    block[0] = size + 16;
    return block + 2;
}

static void guarded_free(void *memory, void *user) {
    size_t *block = (size_t *)memory - 2;
    (void)user;
    mmap(block, block[0], PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
}

/* The plugin: each round that unloads it has a copy of its own, as one that had to stay is there for good. */

typedef pyprof_result (*start_fn)(const pyprof_desc *);
typedef pyprof_result (*stop_fn)(pyprof_profile **);
typedef pyprof_result (*stats_fn)(pyprof_stats *);

typedef struct plugin {
    void *handle;
    char path[512];
    start_fn start;
    stop_fn stop;
    stats_fn stats;
} plugin;

static void die(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void copy_file(const char *from, const char *to) {
    struct stat status;
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    if (in < 0 || out < 0 || fstat(in, &status) != 0 ||
        sendfile(out, in, NULL, (size_t)status.st_size) != status.st_size) {
        die("the plugin cannot be copied");
    }
    close(in);
    close(out);
}

static void find(void *handle, const char *name, void *function) {
    void *found = dlsym(handle, name);
    if (found == NULL) {
        die(name);
    }
    memcpy(function, &found, sizeof found);
}

static plugin load(const char *original, const char *folder) {
    static unsigned count;
    plugin loaded;
    snprintf(loaded.path, sizeof loaded.path, "%s/plugin%u.so", folder, count++);
    copy_file(original, loaded.path);
    loaded.handle = dlopen(loaded.path, RTLD_NOW);
    if (loaded.handle == NULL) {
        die(dlerror());
    }
    find(loaded.handle, "pyprof_start", &loaded.start);
    find(loaded.handle, "pyprof_stop", &loaded.stop);
    find(loaded.handle, "pyprof_get_stats", &loaded.stats);
    return loaded;
}

/* Whether it is gone. */
static bool unload(plugin *loaded) {
    dlclose(loaded->handle);
    void *left = dlopen(loaded->path, RTLD_NOW | RTLD_NOLOAD);
    if (left != NULL) {
        dlclose(left);
    }
    unlink(loaded->path);
    return left == NULL;
}

static void start(const plugin *loaded) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 200;
    desc.max_depth = 64;
    desc.memory_limit = 1 << 20;
    desc.allocator.alloc_fn = guarded_alloc;
    desc.allocator.free_fn = guarded_free;
    if (loaded->start(&desc) != PYPROF_OK) {
        die("pyprof_start");
    }
}

static void stop(const plugin *loaded) {
    if (loaded->stop(NULL) != PYPROF_OK) {
        die("pyprof_stop");
    }
}

static void record_some(const plugin *loaded) {
    pyprof_stats stats;
    do {
        usleep(200);
        loaded->stats(&stats);
    } while (stats.samples < 3);
}

/* Python, in a thread of its own, which is asked. */

static uint32_t must_end, is_running;

static void *run_python(void *unused) {
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *scope = PyModule_GetDict(PyImport_AddModule("__main__"));
    (void)unused;
    set(&is_running, 1);
    while (!get(&must_end)) {
        PyObject *result = PyRun_String("work(1000)", Py_eval_input, scope, scope);
        if (result == NULL) {
            die("work");
        }
        Py_DECREF(result);
    }
    PyGILState_Release(gil);
    return NULL;
}

enum {
    NEVER = 48 /* as many as a handler has; a moment of the next one does as well */
};

typedef enum way {
    STOP,    /* held until after it has ended */
    RESTART, /* and until another recording runs */
    DURING,  /* let go while it is being ended */
    UNLOAD,  /* held until after that */
    DROP,    /* unloaded while it records, let go meanwhile */
    WAYS
} way;

static const char *const way_names[] = {"stop", "restart", "during", "unload", "drop"};
static unsigned rounds_of[WAYS], held_in[WAYS], gone_in[WAYS];

static void end_while_held(plugin *loaded, way how, uint32_t moment) {
    pthread_t releaser;
    bool is_helped = how == DURING || how == DROP;
    if (is_helped && pthread_create(&releaser, NULL, release_later, (void *)(uintptr_t)(moment * 997 % 30000)) != 0) {
        die("no thread");
    }
    if (how != DROP) {
        stop(loaded);
    }
    if (how == RESTART) {
        start(loaded);
    }
    if (how == UNLOAD || how == DROP) {
        gone_in[how] += unload(loaded);
    }
    if (is_helped) {
        pthread_join(releaser, NULL);
    }
    release();
    if (how == RESTART) {
        record_some(loaded);
        stop(loaded);
    }
}

static void play_round(const char *original, const char *folder, way how, uint32_t moment) {
    static plugin kept;
    bool is_fresh = how == UNLOAD || how == DROP;
    plugin loaded;
    if (!is_fresh && kept.handle == NULL) {
        kept = load(original, folder);
    }
    loaded = is_fresh ? load(original, folder) : kept;
    start(&loaded);
    record_some(&loaded);
    if (moment != NEVER) {
        arm(moment);
        while (!get(&held)) {
            usleep(100);
        }
    }
    rounds_of[how]++;
    held_in[how] += get(&held) == 1;
    end_while_held(&loaded, how, moment);
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (argc != 4) {
        die("late PLUGIN FOLDER ROUNDS");
    }
    Py_InitializeEx(0);
    PyRun_SimpleString("def leaf(i): return i * i\n"
                       "def work(n):\n"
                       "    for i in range(n): leaf(i)\n");
    PyThreadState *main_state = PyEval_SaveThread();
    if (pthread_create(&thread, NULL, run_python, NULL) != 0) {
        die("no thread");
    }
    while (!get(&is_running)) {
        usleep(100);
    }
    unsigned rounds = (unsigned)strtoul(argv[3], NULL, 10);
    for (unsigned i = 0; i < rounds; i++) {
        play_round(argv[1], argv[2], (way)(i % WAYS), (i / WAYS * 7 + NEVER) % (NEVER + 1));
    }
    set(&must_end, 1);
    pthread_join(thread, NULL);
    PyEval_RestoreThread(main_state);
    for (int how = 0; how < WAYS; how++) {
        printf("%s %u %u %u\n", way_names[how], rounds_of[how], held_in[how], gone_in[how]);
    }
    return 0;
}
