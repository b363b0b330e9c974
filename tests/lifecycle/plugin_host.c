/* A host that is linked with neither Python nor the profiler: both come by dlopen while it runs, and the profiler
   goes again.

     plugin_host LIBPYTHON PLUGIN

   Twenty times: load, record, stop (every third time not), unload, and then do whatever would come upon something that
   was left behind. Prints the samples of each recording, a number a line. At last it samples the heap by the plugin, which
   then stays: a thread may be on its way to one of its hooks. */

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "process.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <sys/wait.h>
#include <unistd.h>

static const char script[] =
    "import os, threading\n"
    "is_over = False\n"
    "def leaf(x): return x & 255\n"
    "def work(turns):\n"
    "    for n in range(turns): leaf(n)\n"
    "def busy():\n"
    "    while not is_over: work(100)\n"
    "def fork():\n"
    "    child = os.fork()\n"
    "    if not child:\n"
    "        work(1000)\n"
    "        os._exit(7)\n"
    "    assert os.waitpid(child, 0)[1] == 7 << 8\n"
    "import warnings\n"
    "warnings.simplefilter('ignore', DeprecationWarning)\n" /* of forks beside threads, since 3.12 */
    "thread = threading.Thread(target=busy)\n"
    "thread.start()\n";

static void die(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(2);
}

/* What is called by name. */

static struct {
    void (*initialize)(int);
    int (*finalize)(void);
    int (*run)(const char *);
} python;

static struct {
    void *library;
    pyprof_result (*start)(const pyprof_desc *);
    pyprof_result (*stop)(pyprof_profile **);
    pyprof_result (*stats)(pyprof_stats *);
    void (*free)(pyprof_profile *);
} profiler;

static void *open_library(const char *path, int flags) {
    void *library = dlopen(path, flags | RTLD_NOW);
    if (!library) {
        die(dlerror());
    }
    return library;
}

/* ISO C knows no way from void * to a function's address; POSIX has this one. */
static void find(void *library, const char *name, void *function) {
    void *address = dlsym(library, name);
    if (!address) {
        die(dlerror());
    }
    memcpy(function, &address, sizeof address);
}

static void load_python(const char *path) {
    void *library;
    if (dlsym(RTLD_DEFAULT, "Py_Initialize")) {
        die("Python is here already");
    }
    library = open_library(path, RTLD_GLOBAL);
    find(library, "Py_InitializeEx", &python.initialize);
    find(library, "Py_FinalizeEx", &python.finalize);
    find(library, "PyRun_SimpleString", &python.run);
}

static void load_profiler(const char *path) {
    profiler.library = open_library(path, RTLD_LOCAL);
    find(profiler.library, "pyprof_start", &profiler.start);
    find(profiler.library, "pyprof_stop", &profiler.stop);
    find(profiler.library, "pyprof_get_stats", &profiler.stats);
    find(profiler.library, "pyprof_free", &profiler.free);
}

static void unload_profiler(const char *path) {
    dlclose(profiler.library);
    if (dlopen(path, RTLD_NOW | RTLD_NOLOAD)) {
        die("the plugin is still loaded: nothing is tested");
    }
}

static void run(const char *code) {
    if (python.run(code)) {
        die(code);
    }
}

static pyprof_stats record(int number, bool stops) {
    pyprof_desc desc;
    pyprof_stats stats;
    pyprof_profile *profile = NULL;
    int turn;
    memset(&desc, 0, sizeof desc);
    memset(&stats, 0, sizeof stats);
    desc.interval_us = 200;
    desc.signal_number = number;
    if (profiler.start(&desc) != PYPROF_OK) {
        die("no start");
    }
    for (turn = 0; turn < 1000 && stats.samples_signalled < 20; turn++) {
        run("work(10000)\n");
        profiler.stats(&stats);
    }
    if (stops) {
        if (profiler.stop(&profile) != PYPROF_OK) {
            die("no stop");
        }
        profiler.free(profile);
    }
    return stats;
}

/* Calls all that may have been left behind in the place where the plugin was: handlers of signals and of forks. */
static void go_on(int number) {
    pid_t child;
    int status = -1;
    raise(number);
    run("work(10000)\n"
        "fork()\n");
    child = fork();
    if (child == 0) {
        raise(number);
        _exit(7);
    }
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 7) {
        die("a child went wrong");
    }
}

static void sample_heap(const char *path) {
    pyprof_result (*start)(const pyprof_heap_desc *);
    pyprof_result (*shut_down)(void);
    pyprof_heap_desc desc;
    load_profiler(path);
    find(profiler.library, "pyprof_heap_start", &start);
    find(profiler.library, "pyprof_heap_shutdown", &shut_down);
    memset(&desc, 0, sizeof desc);
    desc.sampling_bytes = 64;
    if (start(&desc) != PYPROF_OK) {
        die("no heap");
    }
    run("kept = [bytes(n) for n in range(3000)]\n");
    if (shut_down() != PYPROF_OK) {
        die("the heap does not end");
    }
    dlclose(profiler.library);
    if (!dlopen(path, RTLD_NOW | RTLD_NOLOAD)) {
        die("the plugin is gone, and with it its hooks");
    }
    run("kept = [bytes(n) for n in range(3000)]\n");
}

static void ignore(int number) {
    (void)number;
}

int main(int argc, char **argv) {
    process before;
    int turn;
    if (argc != 3) {
        die("which libpython, which plugin?");
    }
    load_python(argv[1]);
    python.initialize(0);
    run(script);
    signal(SIGUSR1, ignore);
    before = look();
    for (turn = 0; turn < 20; turn++) {
        int number = turn % 2 ? SIGUSR1 : 0; /* 0: its own choice */
        const char *difference;
        pyprof_stats stats;
        load_profiler(argv[2]);
        stats = record(number, turn % 3 != 2);
        unload_profiler(argv[2]);
        difference = difference_to(&before);
        if (difference) {
            die(difference);
        }
        go_on(number ? number : SIGURG);
        printf("%" PRIu64 "\n", stats.samples);
    }
    sample_heap(argv[2]);
    run("is_over = True\n"
        "thread.join()\n");
    return python.finalize();
}
