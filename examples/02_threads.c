/* Threads of both kinds: two that the host makes and that call into Python now and then, and two that
 * Python makes. While they work, the host looks at the recording that is running: its figures, a snapshot,
 * and what every thread does at this moment.
 *
 *     cc -I. examples/02_threads.c -o threads $(python3-config --embed --includes --ldflags) -pthread
 *
 * Writes threads.collapsed and threads.speedscope.json. The host's threads bear the names that the host gave
 * them ("physics", "audio"), Python's those that Python gave ("loader", "clock"). "clock" only waits:
 * it is missing in the files, as they are written without include_idle. */
#define _GNU_SOURCE /* pthread_setname_np */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static const char script[] = "import threading, time, zlib\n"
                             "running = True\n"
                             "def move_bodies(count):\n"
                             "    return sum((i * 0.5) ** 2 for i in range(count))\n"
                             "def mix_voices(count):\n"
                             "    return bytes(i * 7 & 255 for i in range(count))\n"
                             "def load_levels():\n"
                             "    while running:\n"
                             "        zlib.decompress(zlib.compress(mix_voices(20000)))\n"
                             "def tell_time():\n"
                             "    while running:\n"
                             "        time.sleep(0.02)\n"
                             "threads = [threading.Thread(target=load_levels, name='loader'),\n"
                             "           threading.Thread(target=tell_time, name='clock')]\n"
                             "for thread in threads: thread.start()\n";

static const char farewell[] = "running = False\n"
                               "for thread in threads: thread.join()\n";

typedef struct host_thread {
    const char *name;
    const char *function; /* of the script's, called with a number as argument */
    pthread_t thread;
} host_thread;

static atomic_bool running;

static void pause_ms(long milliseconds) {
    struct timespec time = {.tv_sec = 0, .tv_nsec = milliseconds * 1000000L};
    nanosleep(&time, NULL);
}

/* Into Python and out again: between two calls the thread has no Python stack at all. */
static void call_python(const char *function) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *module = PyImport_AddModule("__main__"); /* borrowed */
    PyObject *result = module ? PyObject_CallMethod(module, function, "i", 20000) : NULL;
    if (!result) {
        PyErr_Print();
    }
    Py_XDECREF(result);
    PyGILState_Release(state);
}

static void *work(void *user) {
    const host_thread *self = user;
    pthread_setname_np(pthread_self(), self->name);
    while (atomic_load(&running)) {
        call_python(self->function);
        pause_ms(1);
    }
    return NULL;
}

static bool count_lines(void *user, const void *data, size_t size) {
    unsigned *lines = user;
    for (const char *at = data, *end = at + size; at < end; at++) {
        *lines += *at == '\n';
    }
    return true;
}

static bool print_text(void *user, const void *data, size_t size) {
    return fwrite(data, 1, size, user) == size;
}

/* All of this may be called while the recording runs, and without the GIL. */
static void show_recording(void) {
    pyprof_stats stats;
    pyprof_profile *profile = NULL;
    unsigned stacks = 0;
    if (pyprof_get_stats(&stats) == PYPROF_OK && pyprof_snapshot(&profile) == PYPROF_OK &&
        pyprof_write(profile, NULL, count_lines, &stacks) == PYPROF_OK) {
        printf("%llu samples (%llu idle) of %llu threads, %u different stacks, %llu KiB\n",
               (unsigned long long)stats.samples, (unsigned long long)stats.samples_idle,
               (unsigned long long)stats.threads, stacks, (unsigned long long)stats.bytes / 1024);
    }
    pyprof_free(profile);
}

static pyprof_result save_recording(void) {
    pyprof_profile *profile = NULL;
    pyprof_result result = pyprof_stop(&profile);
    if (result == PYPROF_OK) {
        result = pyprof_save(profile, NULL, "threads.collapsed");
    }
    if (result == PYPROF_OK) {
        result = pyprof_save(profile, NULL, "threads.speedscope.json");
    }
    pyprof_free(profile);
    return result;
}

static void watch_threads(void) {
    host_thread threads[] = {{.name = "physics", .function = "move_bodies"},
                             {.name = "audio", .function = "mix_voices"}};
    int made = 0;
    atomic_store(&running, true);
    while (made < 2 && pthread_create(&threads[made].thread, NULL, work, &threads[made]) == 0) {
        made++;
    }
    for (int i = 0; i < 4; i++) {
        pause_ms(300);
        show_recording();
    }
    puts("\nand at this moment:");
    pyprof_dump(print_text, stdout);
    atomic_store(&running, false);
    while (made > 0) {
        pthread_join(threads[--made].thread, NULL);
    }
}

int main(void) {
    const pyprof_desc desc = {.interval_us = 1000}; /* 1,000 samples a second */
    pyprof_result result = pyprof_start(&desc);     /* before Python: later threads are seen all the same */
    Py_Initialize();
    if (result == PYPROF_OK && PyRun_SimpleString(script) == 0) {
        PyThreadState *main_thread = PyEval_SaveThread();
        watch_threads();
        PyEval_RestoreThread(main_thread);
        PyRun_SimpleString(farewell);
        result = save_recording();
    }
    Py_Finalize();
    printf("\nthreads.collapsed, threads.speedscope.json: %s\n",
           result == PYPROF_OK ? pyprof_result_string(result) : pyprof_last_error());
    return result == PYPROF_OK ? 0 : 1;
}
