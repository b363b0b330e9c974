/* >>lifecycle, >>files, >>public: recordings of a living Python that run full, are deep, forked, held up,
   dumped and saved. */
#define _GNU_SOURCE 1
#include <sys/stat.h>
#include <unistd.h>

/* Whether our locks are free is looked at wherever the file system is asked for a package. */
static int watched_access(const char *path, int mode);
#define access watched_access

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#undef access

#include "unit.h"

#include <sched.h>
#include <sys/wait.h>

static unsigned asked_free, asked_locked;

static int watched_access(const char *path, int mode) {
    pyprof__sampler *sampler = pyprof__process.active;
    bool is_locked = pyprof__get(&pyprof__process.lock_holder) == (uint32_t)pyprof__tid();
    for (int turn = 0; sampler != NULL && !is_locked; turn++) { /* others have it, too, and let it go */
        if (pthread_mutex_trylock(&sampler->lock) == 0) {
            pthread_mutex_unlock(&sampler->lock);
            break;
        }
        is_locked = turn > 1000;
        pyprof__sleep_ns(1000000);
    }
    *(is_locked ? &asked_locked : &asked_free) += 1;
    return access(path, mode);
}

#include "recording.h"

/* Recursion far beyond max_depth, in threads and in the main thread, with a signal and without: the thread's name, its
   root end, what it is in the midst of, and its leaf are all there. */
static void test_deep_threads(void **state) {
    (void)state;
    for (int how = 0; how < 4; how++) {
        pyprof_profile *profile = NULL;
        pyprof_desc desc;
        memset(&desc, 0, sizeof desc);
        desc.interval_us = 1000;
        desc.max_depth = how == 3 ? 16 : 200;
        desc.capture = how == 1 ? PYPROF_CAPTURE_QUIET : PYPROF_CAPTURE_DEFAULT;
        assert_int_equal(pyprof_start(&desc), PYPROF_OK);
        while (stats_now().truncated_depth < 300) { /* so that one thread without a name is few of them */
            unit_run(how == 2 ? "in_threads(deep_wait)" : "in_threads(deep_work)");
        }
        assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
        char *text = collapsed(profile, true);
        const char *cut = strstr(text, ";[truncated];");
        assert_non_null(cut);
        assert_null(strstr(text, ";[truncated];[truncated]"));
        uint64_t samples[2] = {0,
                               0}; /* the name of a thread that ended right after its first sample may not be known */
        for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
            cut = strstr(line, ";[truncated];");
            if (cut == NULL || cut > line + strcspn(line, "\n")) {
                continue;
            }
            size_t length = strcspn(line, "\n");
            bool is_known = strncmp(line, "thread MainThread;<module> (", 28) == 0 ||
                            strncmp(line, "thread alpha;", 13) == 0 || strncmp(line, "thread beta;", 12) == 0;
            while (line[length - 1] != ' ') {
                length--;
            }
            samples[is_known] += strtoull(line + length, NULL, 10);
            const char *root = strchr(line, ';') + 1, *bootstrap = strstr(line, "_bootstrap");
            bool has_root = strncmp(root, "<module> (", 10) == 0 || (bootstrap != NULL && bootstrap < cut);
            if (!has_root) {
                print_error("recording %d: %.*s\n", how, (int)strcspn(line, "\n"), line);
            }
            assert_true(has_root);
        }
        assert_in_range(samples[0], 0, samples[1] / 10);
        free(text);
        pyprof_free(profile);
    }
}

/* Stacks without end, until the tree has no room: what it has of a stack stands before the "[truncated]". */
static void test_full_tree_keeps_what_it_has(void **state) {
    counted_memory counts;
    pyprof_desc desc = described(&counts, MIB, 100);
    pyprof_profile *profile = NULL;
    (void)state;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    /* One code object: what runs anew once there is no room has none for its names. */
    PyObject *globals = PyModule_GetDict(PyImport_AddModule("__main__"));
    PyObject *code = Py_CompileString("many_stacks(200)", "<string>", Py_file_input);
    while (stats_now().truncated_memory < 1000) {
        PyObject *result = PyEval_EvalCode(code, globals, globals);
        assert_non_null(result);
        Py_DECREF(result);
    }
    uint64_t truncated = stats_now().truncated_memory;
    unit_run("t = threading.Thread(target=important, name='important'); t.start(); t.join()");
    pyprof_stats stats = stats_now();
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    assert_int_equal(stats.lost_memory, 0); /* who comes now has a place, too */
    assert_true(stats.bytes_peak <= MIB);
    char *text = collapsed(profile, true);
    assert_true(has_stack(text, "thread important;", ""));
    free(text);
    text = collapsed(profile, false); /* without the wait for that thread, which ran anew */
    uint64_t below = 0, at_root = 0;
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        const char *cut = strstr(line, ";[truncated] ");
        if (cut != NULL && cut < line + strcspn(line, "\n")) {
            bool is_at_root = strncmp(line, "thread MainThread;[", 19) == 0;
            *(is_at_root ? &at_root : &below) += strtoull(cut + 13, NULL, 10);
            assert_true(is_at_root || strncmp(line, "thread MainThread;<module> (", 28) == 0 ||
                        strncmp(line, "thread important;", 17) == 0);
        }
    }
    assert_true(below + at_root >= truncated);
    assert_true(at_root <= truncated / 10);
    free(text);
    pyprof_free(profile);
    Py_DECREF(code);
    assert_int_equal(counts.blocks, 0);
}

/* A child of a fork that CPython is not told of, from the main thread and from another one: its thread states bear ids
   of the parent's. */
static void test_fork_that_cpython_is_not_told_of(void **state) {
    (void)state;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        pyprof_profile *profile = NULL;
        pyprof_desc desc;
        pyprof_stats stats;
        memset(&desc, 0, sizeof desc);
        memset(&stats, 0, sizeof stats);
        desc.interval_us = 1000;
        int failures = pyprof_start(&desc) != PYPROF_OK;
        while (failures == 0 && (stats.samples < 300 || stats.signals < 10)) {
            failures += PyRun_SimpleString("spin(0.02)") != 0 || pyprof_get_stats(&stats) != PYPROF_OK;
        }
        failures += PyRun_SimpleString("t = threading.Thread(target=important, name='important')\n"
                                       "t.start(); t.join()\n") != 0;
        failures += pyprof_stop(&profile) != PYPROF_OK;
        pyprof_output output = {
            .format = PYPROF_FORMAT_COLLAPSED, .metric = PYPROF_METRIC_CPU, .detail = PYPROF_DETAIL_FUNCTION};
        text_sink sink = {0};
        failures += pyprof_write(profile, &output, text_sink_write, &sink) != PYPROF_OK || sink.text == NULL;
        failures += failures == 0 && !has_stack(sink.text, "thread MainThread;", ";spin (");
        failures += failures == 0 && !has_stack(sink.text, "thread important;", ";important (");
        failures += stats.samples_partial > stats.samples / 10;
        if (failures != 0) {
            fprintf(stderr, "signals %lu, samples %lu, partial %lu\n%s", (unsigned long)stats.signals,
                    (unsigned long)stats.samples, (unsigned long)stats.samples_partial,
                    sink.text != NULL ? sink.text : "");
        }
        _exit(failures);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static pyprof__atomic32 is_dumping, dumps, bad_dumps, dumps_are_over, deaf_is_over;

/* A thread that runs Python and takes no signal. */
static void *be_deaf(void *unused) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    PyGILState_STATE gil = PyGILState_Ensure();
    while (!pyprof__get(&deaf_is_over)) {
        PyRun_SimpleString("spin(0.3)");
    }
    PyGILState_Release(gil);
    return unused;
}

/* A host that takes its time to write. */
static bool write_slowly(void *user, const void *data, size_t size) {
    pyprof__sleep_ns(30000000);
    return text_sink_write(user, data, size);
}

static void *dump_often(void *unused) {
    for (int i = 0; i < 1000 && !pyprof__get(&dumps_are_over); i++) {
        text_sink sink = {0};
        pyprof__set(&is_dumping, 1);
        pyprof_result result = pyprof_dump(write_slowly, &sink);
        pyprof__set(&is_dumping, 0);
        pyprof__add(&bad_dumps, result != PYPROF_OK || sink.text == NULL || strstr(sink.text, "wait (") == NULL);
        pyprof__add(&dumps, 1);
        text_sink_free(&sink);
        pyprof__sleep_ns(5000000);
    }
    pyprof__set(&dumps_are_over, 1);
    return unused;
}

/* While a dump waits for a thread that does not answer, or for the host to write, all else goes on. */
static void test_nobody_waits_for_a_dump(void **state) {
    pyprof_desc desc;
    pthread_t deaf, dumper;
    uint32_t calls = 0;
    uint64_t ticks = 0;
    (void)state;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 20000;
    unit_run("over = threading.Event()\n"
             "stay = threading.Thread(target=over.wait)\n"
             "stay.start()\n");
    PyThreadState *own = PyEval_SaveThread();
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    assert_int_equal(pthread_create(&deaf, NULL, be_deaf, NULL), 0);
    while (stats_now().ticks < 10) {
        pyprof__sleep_ns(1000000);
    }
    asked_free = asked_locked = 0;
    assert_int_equal(pthread_create(&dumper, NULL, dump_often, NULL), 0);
    while (!pyprof__get(&dumps_are_over) && (calls < 20 || ticks < 10)) {
        bool was_dumping = pyprof__get(&is_dumping);
        uint64_t before = stats_now().ticks;
        pid_t child = fork();
        if (child == 0) {
            _exit(pyprof_is_active());
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_true(pyprof_is_active());
        pyprof__sleep_ns(1000000);
        if (was_dumping && pyprof__get(&is_dumping)) {
            calls++;
            ticks += stats_now().ticks - before;
        }
    }
    pyprof__set(&dumps_are_over, 1);
    pthread_join(dumper, NULL);
    pyprof__set(&deaf_is_over, 1);
    PyEval_RestoreThread(own);
    unit_run("over.set(); stay.join()");
    Py_BEGIN_ALLOW_THREADS;
    pthread_join(deaf, NULL);
    Py_END_ALLOW_THREADS;
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_false(pyprof_is_active());
    assert_int_equal(pyprof__get(&bad_dumps), 0);
    assert_true(calls >= 20);
    assert_true(ticks >= 10);
    assert_true(asked_free > 0);
    assert_int_equal(asked_locked, 0);
}

/* Links to what is there and to what is not, one behind the other, relative and not: they stay, their target is made. */
static void test_links_stay(void **state) {
    static const char *const links[][2] = {
        {"target.txt", "to_file"},     {"to_file", "to_link"}, {"folder/deep.txt", "to_deep"},
        {"../up.txt", "folder/to_up"}, {"round", "round"},     {"nowhere/file", "to_nowhere"}};
    char folder[] = "/tmp/pyprof-life-XXXXXX", path[128], full[128];
    pyprof_profile *profile = NULL;
    struct stat status;
    pyprof_stats stats;
    (void)state;
    assert_int_equal(pyprof_start(NULL), PYPROF_OK);
    do { /* a profile without samples is a text without lines */
        unit_run("spin(0.05)");
        assert_int_equal(pyprof_get_stats(&stats), PYPROF_OK);
    } while (stats.samples == 0);
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/folder", folder);
    assert_int_equal(mkdir(path, 0777), 0);
    for (int turn = 0; turn < 2; turn++) { /* the second time there is a file */
        for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
            snprintf(path, sizeof path, "%s/%s", folder, links[i][1]);
            snprintf(full, sizeof full, "%s/%s", folder, links[i][0]);
            unlink(path);
            assert_int_equal(symlink(turn == 0 || i == 3 ? links[i][0] : full, path), 0);
            pyprof_result result = pyprof_save(profile, NULL, path);
            assert_int_equal(result, i < 4 ? PYPROF_OK : PYPROF_ERROR_IO);
            assert_int_equal(lstat(path, &status), 0);
            assert_true(S_ISLNK(status.st_mode));
            assert_int_equal(stat(path, &status), i < 4 ? 0 : -1);
            assert_true(i >= 4 || (S_ISREG(status.st_mode) && status.st_size > 0));
        }
    }
    pyprof_free(profile);
    snprintf(path, sizeof path, "rm -r %s", folder);
    assert_int_equal(system(path), 0);
}

/* A sampler that gets no processor, in the midst of a recording and at its end. The lock stands for that. */
static void *stop_it(void *profile) {
    return pyprof_stop((pyprof_profile **)profile) == PYPROF_OK ? profile : NULL;
}

static void test_missed_moments_are_counted(void **state) {
    (void)state;
    for (int at_the_end = 0; at_the_end < 2; at_the_end++) {
        pyprof_profile *profile = NULL;
        pyprof_desc desc;
        pyprof_stats stats;
        pthread_t stopper;
        memset(&desc, 0, sizeof desc);
        desc.interval_us = 1000;
        assert_int_equal(pyprof_start(&desc), PYPROF_OK);
        pyprof__sampler *sampler = pyprof__process.active;
        unit_run("before()");
        pthread_mutex_lock(&sampler->lock);
        unit_run("during()");
        if (at_the_end) {
            assert_int_equal(pthread_create(&stopper, NULL, stop_it, &profile), 0);
            while (!pyprof__get(&sampler->must_stop)) {
                pyprof__sleep_ns(100000);
            }
        }
        pthread_mutex_unlock(&sampler->lock);
        if (at_the_end) {
            assert_int_equal(pthread_join(stopper, NULL), 0);
        } else {
            unit_run("before()");
            assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
        }
        assert_int_equal(pyprof_get_stats(&stats), PYPROF_OK);
        uint64_t moments = profile->duration_ns / 1000000;
        /* After its last tick the sampler may wait 20 ms for a handler; what is not counted were 300 moments. */
        assert_in_range(stats.ticks + stats.ticks_missed, moments - 30, moments + 3);
        assert_true(stats.ticks_missed > 250);
        pyprof_free(profile);
    }
}

/* A recording that grows until it is full, snapshots that stay and that are written, dumps: all of it together holds no
   more than the limit, and what has no room says so. */
static void test_several_hold_one_budget(void **state) {
    counted_memory memory;
    pyprof_desc desc = described(&memory, 2 * MIB, 100);
    pyprof_profile *kept[100], *profile = NULL;
    unsigned count = 0, refused = 0, written = 0;
    size_t size = 0;
    (void)state;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    while (stats_now().truncated_memory < 100 || refused == 0) {
        unit_run("many_stacks(50)");
        pyprof_result result = count < 100 ? pyprof_snapshot(&kept[count]) : PYPROF_ERROR_MEMORY;
        assert_true(result == PYPROF_OK || result == PYPROF_ERROR_MEMORY);
        assert_true(result == PYPROF_OK || strstr(pyprof_last_error(), "memory_limit (2097152 bytes)") != NULL);
        if (result == PYPROF_OK) {
            pyprof_output output = {.format = count % 2 ? PYPROF_FORMAT_COLLAPSED : PYPROF_FORMAT_SPEEDSCOPE,
                                    .metric = PYPROF_METRIC_WALL,
                                    .detail = PYPROF_DETAIL_LINE,
                                    .include_idle = true};
            result = pyprof_write(kept[count++], &output, count_written, &size);
            assert_true(result == PYPROF_OK || result == PYPROF_ERROR_MEMORY);
            written += result == PYPROF_OK;
        }
        refused += result == PYPROF_ERROR_MEMORY;
        result = pyprof_dump(count_written, &size);
        assert_true(result == PYPROF_OK || result == PYPROF_ERROR_MEMORY);
    }
    assert_true(written > 0);
    for (unsigned i = 0; i < count; i++) { /* they outlive the recording or not */
        if (i % 2 == 0) {
            pyprof_free(kept[i]);
        }
    }
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    pyprof_free(profile);
    for (unsigned i = 1; i < count; i += 2) {
        assert_int_equal(pyprof_write(kept[i], NULL, count_written, &size), PYPROF_OK);
        pyprof_free(kept[i]);
    }
    print_message("%u snapshots, %u refused, at most %.3f of the limit\n", count, refused,
                  (double)memory.peak_bytes / (double)desc.memory_limit);
    assert_true(memory.peak_bytes <= desc.memory_limit);
    assert_int_equal(memory.bytes, 0);
}

static int start(void **state) {
    if (unit_start_python(state) != 0 || PyRun_SimpleString(recording_script) != 0) {
        return -1;
    }
    return PyRun_SimpleString(
        "import sys\n"
        "sys.setrecursionlimit(100000); threading.stack_size(64 << 20)\n"
        "def down(depth, leaf): return down(depth - 1, leaf) if depth else leaf()\n"
        "def deep_work(): down(3000, lambda: spin(0.05))\n"
        "def deep_wait(): down(3000, lambda: time.sleep(0.05))\n"
        "def in_threads(target):\n"
        "    threads = [threading.Thread(target=target, name=name) for name in ('alpha', 'beta')]\n"
        "    for t in threads: t.start()\n"
        "    down(300, lambda: spin(0.02))\n"
        "    for t in threads: t.join()\n"
        "def even(depth, way): return depth and (odd if way & 1 else even)(depth - 1, way >> 1)\n"
        "def odd(depth, way): return depth and (odd if way & 1 else even)(depth - 1, way >> 1)\n"
        "def many_stacks(count):\n"
        "    for n in range(count): even(60, random.getrandbits(60))\n"
        "def before(): spin(0.05)\n"
        "def during(): spin(0.3)\n");
}

/* Who records with a real-time priority has a sampler that comes as early. */
static void test_priority_is_the_starters(void **state) {
    const struct sched_param first = {.sched_priority = 1}, plain = {.sched_priority = 0};
    (void)state;
    if (sched_setscheduler(0, SCHED_FIFO, &first) != 0) {
        print_message("skipped: a real-time priority is refused: %s\n", strerror(errno));
        skip();
    }
    pyprof_result started = pyprof_start(NULL);
    int before = pyprof__priority(pyprof__process.active->tid);
    assert_int_equal(sched_setscheduler(0, SCHED_OTHER, &plain), 0);
    assert_int_equal(started, PYPROF_OK);
    assert_int_equal(before, 1);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_int_equal(pyprof_start(NULL), PYPROF_OK);
    assert_int_equal(pyprof__priority(pyprof__process.active->tid), 0);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deep_threads),
        cmocka_unit_test(test_full_tree_keeps_what_it_has),
        cmocka_unit_test(test_fork_that_cpython_is_not_told_of),
        cmocka_unit_test(test_nobody_waits_for_a_dump),
        cmocka_unit_test(test_links_stay),
        cmocka_unit_test(test_missed_moments_are_counted),
        cmocka_unit_test(test_several_hold_one_budget),
        cmocka_unit_test(test_priority_is_the_starters),
    };
    return cmocka_run_group_tests(tests, start, unit_stop_python);
}
