/* >>threads, >>names: threads without end, names without end, ids that come again, links that break. Nothing here is
   timed. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <unistd.h>

#include "unit.h"
#include "recording.h"

/* What a thread of this kind is called. */
static size_t name_of(int kind, uint32_t number, char *name, size_t size) {
    static const char *const forms[] = {"worker", "Thread-%u (handle)", "pool-%1$u_%1$u", "%1$x%1$x%1$x", "game"};
    const char *form = forms[kind];
    uint32_t shown = kind == 3 ? number * 2654435761u : number;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, size, form, shown);
#pragma GCC diagnostic pop
    return strlen(name);
}

static void choose_track(pyprof__sampler *sampler, pyprof__thread *thread, const char *name, size_t size, bool is_named,
                         uint64_t now) {
    size_t reserve = pyprof__open_reserve(sampler->memory);
    pyprof__choose_track(sampler, thread, name, size, is_named, now);
    sampler->memory->reserve = reserve;
}

/* The tracks of threads that come and go, so many at a time, with every kind of name; every fifth has none of its
   own, and every seventh changes it. */
static void test_tracks_without_end(void **state) {
    enum {
        live = 100,
        born = 100000
    };
    static const size_t limits[] = {MIB, 64 * MIB};
    (void)state;
    for (size_t turn = 0; turn < 2; turn++) {
        static pyprof__thread threads[live];
        counted_memory counts;
        pyprof_desc desc = described(&counts, limits[turn], 1000);
        pyprof__apply_defaults(&desc);
        pyprof__sampler *sampler = pyprof__sampler_new(&desc);
        assert_non_null(sampler);
        pyprof_profile *profile = sampler->profile;
        memset(threads, 0, sizeof threads);
        for (uint32_t i = 0; i < born; i++) {
            pyprof__thread *thread = &threads[i % live];
            char name[64];
            uint64_t now = (uint64_t)i * 1000;
            if (i >= live) {
                pyprof__leave_track(profile, thread->track);
            }
            memset(thread, 0, sizeof *thread);
            thread->tid = (int32_t)i + 1;
            thread->track = PYPROF__NONE;
            size_t size = name_of((int)(i % 5), i, name, sizeof name);
            choose_track(sampler, thread, name, size, i % 5 != 4, now);
            assert_int_not_equal(thread->track, PYPROF__NONE);
            pyprof__add_absence(profile, thread->track, now);
            pyprof__extend_timeline(profile, thread->track, pyprof__track_at(profile, thread->track)->root, 0, 1, 0, 1);
            if (i % 7 == 0) {
                size = name_of((int)(i % 4), i + 1, name, sizeof name);
                choose_track(sampler, thread, name, size, true, now + 1);
                assert_int_not_equal(thread->track, PYPROF__NONE);
            }
            for (uint32_t other = 0; i % 1000 == 0 && other < live && other < i; other++) {
                assert_true(other == i % live || threads[other].track != thread->track);
            }
        }
        uint32_t most = 2 * (uint32_t)(limits[turn] / 65536) + 2 * live;
        assert_in_range(profile->tracks.count, live, most);
        assert_true(profile->strings.items.count < 2 * limits[turn] / 65536 + 10);
        assert_true(profile->nodes.items.count <= 2 * profile->tracks.count);
        pyprof__sampler_clear(sampler);
        pyprof__sampler_free(sampler);
        pyprof_free(profile);
        assert_int_equal(counts.blocks, 0);
    }
}

/* Some thousands of threads of each kind one after the other, beside some that stay: no place is lost, nobody is. */
static void test_threads_without_end(void **state) {
    static const char *const kinds[] = {
        "threading.Thread(target=short, name='worker')", "threading.Thread(target=short)",
        "threading.Thread(target=short, name='%x' % (2654435761 * n % 2**32))", "Bare()"};
    (void)state;
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        counted_memory counts;
        pyprof_desc desc = described(&counts, MIB, 100);
        pyprof_profile *profile = NULL;
        char code[512];
        uint32_t entries = 0;
        unit_run("is_over = False\n"
                 "stay = [threading.Thread(target=stays, name='stays') for n in range(4)]\n"
                 "for thread in stay: thread.start()\n");
        assert_int_equal(pyprof_start(&desc), PYPROF_OK);
        while (stats_now().threads < 1000) {
            snprintf(code, sizeof code, "for n in range(200): t = %s; t.start(); t.join()", kinds[kind]);
            unit_run(code);
            entries = pyprof__process.active->threads.count;
        }
        unit_run("t = threading.Thread(target=important, name='important'); t.start(); t.join()\n"
                 "is_over = True\n"
                 "for thread in stay: thread.join()\n");
        pyprof_stats stats = stats_now();
        assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
        print_message("%s: %u nodes of %u tracks, %u asked at a time, %lu ticks, peak %lu bytes\n", kinds[kind],
                      profile->nodes.items.count, profile->tracks.count, pyprof__handler.requests_used,
                      (unsigned long)stats.ticks, (unsigned long)stats.bytes_peak);
        assert_int_equal(stats.lost_memory, 0);
        assert_int_equal(stats.truncated_memory, 0);
        assert_in_range(entries, 1, 60);
        assert_in_range(profile->tracks.count, 1, 100);
        char *text = collapsed(profile, true);
        assert_true(has_stack(text, "thread stays;", "stays (")); /* they are no shared track's */
        assert_true(has_stack(text, "thread ", ";important ("));
        assert_true(kind == 2 || kind == 0 || has_stack(text, kind == 1 ? "thread Thread-*" : "thread", "short ("));
        free(text);
        pyprof_free(profile);
        assert_int_equal(counts.blocks, 0);
    }
}

/* The system gives the ids of a thread that has ended to one that comes later. Told to do so, where it can be. */
static void test_thread_with_the_ids_of_an_ended_one(void **state) {
    (void)state;
    if (access("/proc/sys/kernel/ns_last_pid", W_OK) != 0) {
        skip();
    }
    for (int pause = 0; pause < 2; pause++) {
        pyprof_profile *profile = NULL;
        pyprof_desc desc;
        memset(&desc, 0, sizeof desc);
        desc.interval_us = 1000;
        PyObject *same = NULL;
        for (int attempt = 0; attempt < 50 && same != Py_True; attempt++) {
            assert_int_equal(pyprof_start(&desc), PYPROF_OK);
            unit_run(pause ? "same = both_with_one_id(0.05)" : "same = both_with_one_id(0)");
            assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
            same = unit_main("same");
            Py_DECREF(same);
            if (same != Py_True) {
                pyprof_free(profile);
                profile = NULL;
            }
        }
        if (profile == NULL) {
            skip();
        }
        char *text = collapsed(profile, false);
        assert_true(has_stack(text, "thread alpha;", ";alpha_work ("));
        assert_true(has_stack(text, "thread beta;", ";beta_work ("));
        assert_false(has_stack(text, "thread alpha;", ";beta_work ("));
        assert_false(has_stack(text, "thread beta;", ";alpha_work ("));
        free(text);
        pyprof_free(profile);
    }
}

static pyprof__atomic32 churn_is_over;

/* Thread states that are born and deleted all the time, at the head of the list. One that was never used needs no
   PyThreadState_Clear, and nobody waits for the GIL; but without a GIL each is in a list of those to whom others leave
   objects, from which only that call takes it (3.13, Python/brc.c). */
static void *churn(void *interpreter) {
    while (!pyprof__get(&churn_is_over)) {
        PyThreadState *state = PyThreadState_New((PyInterpreterState *)interpreter);
#if defined(Py_GIL_DISABLED)
        PyEval_AcquireThread(state);
        PyThreadState_Clear(state);
        PyThreadState_DeleteCurrent();
#else
        PyThreadState_Delete(state);
#endif
        pyprof__sleep_ns(1000);
    }
    return NULL;
}

static struct {
    pyprof_profile *profile;
    pyprof_stats stats;
} recorded;

static PyObject *begin_recording(PyObject *self, PyObject *unused) {
    pyprof_desc desc;
    (void)self;
    (void)unused;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 500;
    desc.memory_limit = 256 * MIB;
    return PyLong_FromLong(pyprof_start(&desc));
}

static PyObject *end_recording(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    pyprof_get_stats(&recorded.stats);
    return PyLong_FromLong(pyprof_stop(&recorded.profile));
}

static PyMethodDef begin_method = {"begin_recording", begin_recording, METH_NOARGS, NULL};
static PyMethodDef end_method = {"end_recording", end_recording, METH_NOARGS, NULL};

/* Begun and ended by functions that Python calls: so the thread has frames at each tick. */
static void record_from_python(void) {
    PyObject *seen = PyObject_CallFunction(unit_main("until_seen"), "NN", PyCFunction_New(&begin_method, NULL),
                                           PyCFunction_New(&end_method, NULL));
    assert_non_null(seen);
    Py_DECREF(seen);
    assert_non_null(recorded.profile);
}

static void test_threads_behind_a_broken_link_are_counted(void **state) {
    enum {
        threads = 4
    };
    pthread_t churners[threads];
    uint64_t samples = 0;
    (void)state;
    PyInterpreterState *interpreter = PyThreadState_Get()->interp;
    pyprof__set(&churn_is_over, 0);
    for (int i = 0; i < threads; i++) {
        assert_int_equal(pthread_create(&churners[i], NULL, churn, interpreter), 0);
    }
    record_from_python();
    pyprof__set(&churn_is_over, 1);
    Py_BEGIN_ALLOW_THREADS;
    for (int i = 0; i < threads; i++) {
        pthread_join(churners[i], NULL);
    }
    Py_END_ALLOW_THREADS;
    char *text = collapsed(recorded.profile, true);
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        if (strncmp(line, "thread MainThread;", 18) == 0) {
            size_t at = strcspn(line, "\n");
            while (line[at - 1] != ' ') {
                at--;
            }
            samples += strtoull(line + at, NULL, 10);
        }
    }
    pyprof_stats stats = recorded.stats;
    uint64_t lost = stats.lost_late + stats.lost_pending + stats.lost_unsettled + stats.lost_unreadable;
    print_message("%lu ticks: %lu samples of the main thread, %lu lost of all\n", (unsigned long)stats.ticks,
                  (unsigned long)samples, (unsigned long)lost);
    assert_int_equal(stats.lost_memory, 0);
    assert_true(samples + lost + 3 + stats.ticks / 1000 >= stats.ticks);
    free(text);
    pyprof_free(recorded.profile);
}

/* Where these interpreters and thread states have what a walk reads; in words. */
enum {
    word_prev,
    word_next,
    word_interp,
    word_id,
    words
};

/* A walk may meet a thread state that has just been made where one of the list lay that has ended: it names its
   interpreter, and has no neighbours yet. That is no list of one. */
static void test_a_thread_state_not_in_the_list_yet(void **state) {
    uintptr_t first[words] = {0}, second[words] = {0}, unlisted[words] = {0}, head = (uintptr_t)first;
    counted_memory counts;
    pyprof_desc desc = described(&counts, MIB, 1000);
    (void)state;
    pyprof__apply_defaults(&desc);
    pyprof__sampler *sampler = pyprof__sampler_new(&desc);
    assert_non_null(sampler);
    const uint32_t word = sizeof(uintptr_t);
    pyprof__layout *layout = &sampler->layout;
    layout->ts_prev = word_prev * word;
    layout->ts_next = word_next * word;
    layout->ts_interp = word_interp * word;
    layout->ts_id = word_id * word;
    layout->ts_size = words * word;
    layout->interp_threads = 0;
    first[word_interp] = second[word_interp] = unlisted[word_interp] = (uintptr_t)&head;
    first[word_id] = 1;
    second[word_id] = 2;
    unlisted[word_id] = 3;
    first[word_next] = (uintptr_t)second;
    second[word_prev] = (uintptr_t)first;
    uintptr_t begins[] = {(uintptr_t)first, (uintptr_t)unlisted, 0};
    for (size_t i = 0; i < 3; i++) {
        uint32_t cursor = 0;
        pyprof__interp interp = {.address = (uintptr_t)&head, .links = {0, begins[i]}};
        sampler->fresh.count = 0;
        assert_int_equal(pyprof__walk_threads(sampler, &interp, &cursor), i == 0);
        assert_int_equal(sampler->fresh.count, 2 - i);
    }
    pyprof__interp interp = {.address = (uintptr_t)&head, .links = {0, head}};
    assert_int_equal(sampler->fresh.count, 0);
    head = 0;
    interp.links[1] = 0;
    assert_true(pyprof__begins_so(sampler, &interp, 0)); /* a list without any */
    head = interp.links[1] = (uintptr_t)first;
    uint32_t cursor = 0;
    assert_true(pyprof__walk_threads(sampler, &interp, &cursor));
    first[word_id]++; /* it has ended, and another one lies there */
    assert_false(pyprof__begins_so(sampler, &interp, 0));
    first[word_id]--;
    first[word_next] = 0; /* it was not in the list yet when it was met, or is not any more */
    assert_false(pyprof__begins_so(sampler, &interp, 0));
    pyprof__recording_free(sampler);
}

static int start(void **state) {
    if (unit_start_python(state) != 0 || PyRun_SimpleString(recording_script) != 0) {
        return -1;
    }
    return PyRun_SimpleString(
        "def short(): spin(0.0002)\n"
        "def stays():\n"
        "    while not is_over: time.sleep(0.001)\n"
        "class Bare:\n"
        "    def start(self):\n"
        "        self.done = _thread.allocate_lock(); self.done.acquire()\n"
        "        _thread.start_new_thread(self.run, ())\n"
        "    def run(self):\n"
        "        short(); self.done.release()\n"
        "    def join(self): self.done.acquire()\n"
        "def until_seen(begin, end): assert begin() == 0; spin(1.5); assert end() == 0\n"
        "def use(seconds):\n"
        "    end = time.thread_time() + seconds\n"
        "    while time.thread_time() < end: pass\n"
        "def alpha_work(): use(0.3)\n"
        "def beta_work(): use(0.3)\n"
        "def ids(name, target):\n"
        "    t = threading.Thread(target=target, name=name); t.start()\n"
        "    both = t.ident, getattr(t, 'native_id', 0); t.join(); return both\n"
        "def both_with_one_id(pause):\n"
        "    first = ids('alpha', alpha_work)\n"
        "    time.sleep(pause)\n"
        "    with open('/proc/sys/kernel/ns_last_pid', 'w') as file: file.write(str(first[1] - 1))\n"
        "    return ids('beta', beta_work) == first\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tracks_without_end),
        cmocka_unit_test(test_threads_without_end),
        cmocka_unit_test(test_thread_with_the_ids_of_an_ended_one),
        cmocka_unit_test(test_threads_behind_a_broken_link_are_counted),
        cmocka_unit_test(test_a_thread_state_not_in_the_list_yet),
    };
    return cmocka_run_group_tests(tests, start, unit_stop_python);
}
