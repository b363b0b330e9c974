/* What starting, stopping, saving and misusing the profiler does to the process around it.

   The interpreter runs all the time, with threads that call as fast as they can and one that sleeps; the tests
   run beside it, without the GIL unless they say so. */

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "pyprof.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../unit/possible.h"
#include "process.h"

#define MIB ((size_t)1 << 20)

static const char busy_script[] =
    "import random, sys, threading, time\n"
    "stop = False\n"
    "def leaf(x): return x & 255\n"
    "def inner(x): return leaf(x) + leaf(x + 1)\n"
    "def outer(x): return inner(x) + inner(x + 1)\n"
    "def busy():\n"
    "    while not stop:\n"
    "        for n in range(100): outer(n)\n"
    "def sleepy():\n"
    "    while not stop: time.sleep(0.01)\n"
    "threads = [threading.Thread(target=f) for f in (busy, busy, sleepy)]\n"
    "for t in threads: t.start()\n"
    /* A quarter of a million different stacks. */
    "def even(depth, path): return depth and (odd if path & 1 else even)(depth - 1, path >> 1)\n"
    "def odd(depth, path): return depth and (odd if path & 1 else even)(depth - 1, path >> 1)\n"
    "def many_stacks(seconds):\n"
    "    end = time.monotonic() + seconds\n"
    "    while time.monotonic() < end:\n"
    "        for n in range(50): even(18, random.getrandbits(18))\n";

/* What a test changes and may leave behind, as a check that fails ends it wherever it stands: put back after each. */

static counted_memory memory; /* of the recording, which outlives the test that fails */
static int real_stdout = -1;
static struct rlimit whole_files;

/* Python. */

static PyThreadState *main_state;

static void run(const char *code) {
    int failed;
    PyEval_RestoreThread(main_state);
    failed = PyRun_SimpleString(code);
    main_state = PyEval_SaveThread();
    if (failed) {
        fail_msg("%s", code);
    }
}

static pyprof_stats stats_now(void) {
    pyprof_stats stats;
    assert_int_equal(pyprof_get_stats(&stats), PYPROF_OK);
    return stats;
}

static void assert_same_process(const process *before) {
    const char *difference = difference_to(before);
    if (difference) {
        fail_msg("%s", difference);
    }
}

static bool refuse(void *user, const void *data, size_t size) {
    (void)data;
    (void)size;
    return --*(int *)user >= 0;
}

static pyprof_output output_of(pyprof_format format, pyprof_metric metric) {
    pyprof_output output = {0};
    output.format = format;
    output.metric = metric;
    output.include_idle = true;
    return output;
}

static text_sink written(const pyprof_profile *profile, pyprof_format format, pyprof_metric metric) {
    text_sink to = {0};
    pyprof_output output = output_of(format, metric);
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &to), PYPROF_OK);
    assert_non_null(to.text);
    return to;
}

/* The sum of the values of collapsed text, of the lines that begin so. */
static uint64_t sum_of(const text_sink *collapsed, const char *prefix) {
    uint64_t sum = 0;
    char *line;
    char *rest = NULL;
    char *copy = strdup(collapsed->text);
    for (line = strtok_r(copy, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (!strncmp(line, prefix, strlen(prefix))) {
            sum += strtoull(strrchr(line, ' ') + 1, NULL, 10);
        }
    }
    free(copy);
    return sum;
}

static uint64_t samples_in(const pyprof_profile *profile) {
    text_sink to = written(profile, PYPROF_FORMAT_COLLAPSED, PYPROF_METRIC_SAMPLES);
    uint64_t sum = sum_of(&to, "thread ");
    text_sink_free(&to);
    return sum;
}

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* A busy machine may stand still for as long as anybody would wait: what is waited for is counted. */
static void wait_for_samples(uint64_t count) {
    uint64_t enough = stats_now().samples + count;
    unsigned turn;
    for (turn = 0; turn < 1200 && stats_now().samples < enough; turn++) {
        pause_ms(50);
    }
    assert_true(stats_now().samples >= enough);
}

static void start_ms(uint32_t interval_us) {
    pyprof_desc desc = {0};
    desc.interval_us = interval_us;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
}

static pyprof_profile *recorded(void) {
    pyprof_profile *profile = NULL;
    start_ms(1000);
    wait_for_samples(100);
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    assert_non_null(profile);
    return profile;
}

/* Before anything was recorded. Must run first. */
static void test_nothing_recorded(void **state) {
    pyprof_stats stats;
    pyprof_profile *profile = (pyprof_profile *)state;
    int writes = 100;
    assert_false(pyprof_is_active());
    assert_int_equal(pyprof_get_stats(&stats), PYPROF_ERROR_NOT_ACTIVE);
    assert_int_equal(pyprof_stop(&profile), PYPROF_ERROR_NOT_ACTIVE);
    assert_null(profile);
    assert_int_equal(pyprof_stop(NULL), PYPROF_ERROR_NOT_ACTIVE);
    profile = (pyprof_profile *)&stats;
    assert_int_equal(pyprof_snapshot(&profile), PYPROF_ERROR_NOT_ACTIVE);
    assert_null(profile);
    assert_int_equal(pyprof_dump(refuse, &writes), PYPROF_ERROR_NOT_ACTIVE);
    assert_int_equal(writes, 100);
    pyprof_free(NULL);
}

static void cycles(unsigned count, uint32_t interval_us, unsigned pause_us) {
    pyprof_desc desc = counted_desc(&memory, interval_us);
    unsigned turn;
    for (turn = 0; turn < count; turn++) {
        pyprof_profile *profile = NULL;
        bool keep = turn % 2;
        struct timespec pause = {0, (long)pause_us * 1000};
        assert_int_equal(pyprof_start(&desc), PYPROF_OK);
        assert_true(pyprof_is_active());
        if (pause_us) {
            nanosleep(&pause, NULL);
        }
        assert_int_equal(pyprof_stop(keep ? &profile : NULL), PYPROF_OK);
        assert_false(pyprof_is_active());
        assert_int_equal(!!profile, keep);
        pyprof_free(profile);
        assert_int_equal(memory.blocks, 0);
        assert_int_equal(memory.bytes, 0);
    }
    assert_true(memory.calls > 0);
}

/* Python runs meanwhile: a few KiB are its own, and more while its JIT still compiles, which is over after the first
   cycles. 1,000 leaks of 100 bytes would be seen. */
static void test_a_thousand_cycles(void **state) {
    process before;
    struct mallinfo2 heap_before;
    struct mallinfo2 heap_after;
    (void)state;
    cycles(200, 1000, 2000);
    before = look();
    heap_before = mallinfo2();
    cycles(1000, 1000, 2000);
    heap_after = mallinfo2();
    assert_true(heap_after.uordblks < heap_before.uordblks + 64 * 1024);
    assert_true(heap_after.hblkhd < heap_before.hblkhd + MIB);
    assert_same_process(&before);
}

static void test_stop_at_once(void **state) {
    process before = look();
    (void)state;
    cycles(500, 100, 0);
    cycles(500, 50, 300);
    assert_same_process(&before);
}

static void test_starts_and_stops_with_the_gil(void **state) {
    (void)state;
    PyEval_RestoreThread(main_state);
    cycles(100, 100, 500);
    main_state = PyEval_SaveThread();
}

static void test_bad_descriptions(void **state) {
    process before = look();
    const struct {
        pyprof_desc desc;
        pyprof_result result;
    } bad[] = {
        {{.interval_us = 49}, PYPROF_ERROR_ARGUMENT},
        {{.interval_us = 10000001}, PYPROF_ERROR_ARGUMENT},
        {{.interval_us = UINT32_MAX}, PYPROF_ERROR_ARGUMENT},
        {{.capture = (pyprof_capture)7}, PYPROF_ERROR_ARGUMENT},
        {{.memory_limit = 1}, PYPROF_ERROR_MEMORY},
        {{.memory_limit = MIB - 1}, PYPROF_ERROR_MEMORY},
        {{.max_depth = 15}, PYPROF_ERROR_ARGUMENT},
        {{.max_depth = 65537}, PYPROF_ERROR_ARGUMENT},
        {{.signal_number = -1}, PYPROF_ERROR_SIGNAL},
        {{.signal_number = 100000}, PYPROF_ERROR_SIGNAL},
        {{.signal_number = SIGKILL}, PYPROF_ERROR_SIGNAL},
        {{.signal_number = SIGSTOP}, PYPROF_ERROR_SIGNAL},
        {{.signal_number = SIGSEGV}, PYPROF_ERROR_SIGNAL},
        {{.output_path = ""}, PYPROF_ERROR_ARGUMENT},
        {{.allocator = {counted_alloc, NULL, &memory}}, PYPROF_ERROR_ARGUMENT},
        {{.allocator = {NULL, counted_free, &memory}}, PYPROF_ERROR_ARGUMENT},
    };
    size_t index;
    (void)state;
    for (index = 0; index < sizeof bad / sizeof bad[0]; index++) {
        pyprof_result result = pyprof_start(&bad[index].desc);
        /* Whether too little memory is a bad figure or no memory, the code must say one of them. */
        bool either = bad[index].result != PYPROF_ERROR_ARGUMENT && result == PYPROF_ERROR_ARGUMENT;
        if (result != bad[index].result && !either) {
            fail_msg("description %zu: %s", index, pyprof_result_string(result));
        }
        assert_false(pyprof_is_active());
    }
    assert_same_process(&before);
    pyprof_free(recorded());
}

static void test_misuse_while_active(void **state) {
    pyprof_desc desc = {0};
    pyprof_profile *profile = NULL;
    int writes = 0;
    (void)state;
    start_ms(1000);
    pause_ms(50);
    assert_int_equal(pyprof_start(NULL), PYPROF_ERROR_ALREADY_ACTIVE);
    assert_int_equal(pyprof_start(&desc), PYPROF_ERROR_ALREADY_ACTIVE);
    assert_int_equal(pyprof_snapshot(NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_get_stats(NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_dump(NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_dump(refuse, &writes), PYPROF_ERROR_WRITE);
    assert_true(pyprof_is_active());
    wait_for_samples(1);
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    assert_int_equal(samples_in(profile), stats_now().samples);
    pyprof_free(profile);
    assert_int_equal(pyprof_stop(&profile), PYPROF_ERROR_NOT_ACTIVE);
    assert_null(profile);
}

static void test_bad_writes(void **state) {
    pyprof_profile *profile = recorded();
    pyprof_output output = {0};
    text_sink to = {0};
    int writes;
    (void)state;
    assert_int_equal(pyprof_write(NULL, NULL, text_sink_write, &to), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_write(profile, NULL, NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_save(NULL, NULL, "x.txt"), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_save(profile, NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(pyprof_save(profile, NULL, "picture.svg"), PYPROF_ERROR_FORMAT);
    output.format = (pyprof_format)77;
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &to), PYPROF_ERROR_FORMAT);
    output.format = PYPROF_FORMAT_COLLAPSED;
    output.metric = (pyprof_metric)77;
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &to), PYPROF_ERROR_ARGUMENT);
    output.metric = PYPROF_METRIC_WALL;
    output.detail = (pyprof_detail)77;
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &to), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(to.size, 0);
    assert_int_equal(access("picture.svg", F_OK), -1);
    writes = 0;
    assert_int_equal(pyprof_write(profile, NULL, refuse, &writes), PYPROF_ERROR_WRITE);
    writes = 0;
    output = output_of(PYPROF_FORMAT_SPEEDSCOPE, PYPROF_METRIC_WALL);
    assert_int_equal(pyprof_write(profile, &output, refuse, &writes), PYPROF_ERROR_WRITE);
    assert_int_equal(writes, -1);
    pyprof_free(profile);
}

/* Memory. */

static void test_start_without_memory(void **state) {
    process before = look();
    size_t fail_from;
    bool started = false;
    (void)state;
    for (fail_from = 1; !started; fail_from++) {
        pyprof_desc desc = counted_desc(&memory, 1000);
        pyprof_result result;
        memory.calls = 0;
        memory.refuse_from = fail_from;
        result = pyprof_start(&desc);
        started = result == PYPROF_OK;
        if (started) { /* from here on it gets nothing, and must live with that */
            pause_ms(100);
            assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
        } else {
            assert_int_equal(result, PYPROF_ERROR_MEMORY);
            assert_false(pyprof_is_active());
        }
        assert_int_equal(memory.blocks, 0);
        assert_true(fail_from < 1000);
    }
    assert_same_process(&before);
}

static void test_snapshot_without_memory(void **state) {
    pyprof_desc desc = counted_desc(&memory, 1000);
    pyprof_profile *profile = (pyprof_profile *)state;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    wait_for_samples(1);
    memory.refuse_from = 1;
    assert_int_equal(pyprof_snapshot(&profile), PYPROF_ERROR_MEMORY);
    assert_null(profile);
    memory.refuse_from = 0;
    assert_int_equal(pyprof_snapshot(&profile), PYPROF_OK);
    pyprof_free(profile);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_int_equal(memory.blocks, 0);
}

/* The time line grows for as long as there is room for it; from then on nothing does. */
static void test_steady_state_allocates_nothing(void **state) {
    pyprof_desc desc = counted_desc(&memory, 100);
    pyprof_stats before;
    pyprof_stats after;
    size_t calls;
    unsigned turn;
    unsigned growing = 0;
    (void)state;
    desc.memory_limit = 2 * MIB;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    for (turn = 0; turn < 1200 && stats_now().timeline_coarsened == 0; turn++) {
        pause_ms(100);
    }
    /* A stack that was never seen before may still come, and be the one too many for a table: not all the time. */
    wait_for_samples(4000);
    for (turn = 0; turn < 4; turn++) {
        before = stats_now();
        calls = memory.calls;
        wait_for_samples(4000);
        after = stats_now();
        growing += memory.calls != calls;
        assert_true(memory.calls != calls || after.bytes == before.bytes);
    }
    assert_true(before.timeline_coarsened > 0);
    assert_in_range(growing, 0, 2);
    assert_int_equal(after.truncated_memory, 0);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_int_equal(memory.blocks, 0);
}

static void test_memory_limit(void **state) {
    pyprof_desc desc = counted_desc(&memory, 100);
    pyprof_profile *profile = NULL;
    pyprof_stats stats;
    text_sink wall;
    uint64_t started;
    uint64_t recorded_us;
    unsigned turn;
    (void)state;
    desc.memory_limit = MIB;
    started = now_us();
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    wait_for_samples(20); /* all threads are known, and the clocks begin */
    for (turn = 0; turn < 100 && (turn < 4 || stats_now().truncated_memory < 100); turn++) {
        run("many_stacks(1)\n");
    }
    wait_for_samples(20); /* and the last of it was seen */
    stats = stats_now();
    assert_true(stats.bytes <= stats.bytes_peak);
    assert_true(stats.bytes_peak <= MIB);
    assert_true(memory.peak_bytes <= MIB);
    assert_true(memory.bytes <= stats.bytes_peak);
    assert_true(stats.truncated_memory > 0);
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    assert_int_equal(samples_in(profile), stats_now().samples);
    recorded_us = now_us() - started;
    /* What did not fit is still there as time: the main thread has the second of each turn, and the other ones theirs.
       Between the turns it compiles and waits for the GIL without a frame. */
    wall = written(profile, PYPROF_FORMAT_COLLAPSED, PYPROF_METRIC_WALL);
    assert_in_range(sum_of(&wall, "thread MainThread;"), turn * 1000000u - 100000, recorded_us + 100000);
    assert_non_null(strstr(wall.text, "[truncated]"));
    text_sink_free(&wall);
    pyprof_free(profile);
    assert_int_equal(memory.blocks, 0);
}

/* Files. */

static char folder[] = "/tmp/pyprof-lifecycle-XXXXXX";

static const char *in_folder(const char *name) {
    static char path[4][256];
    static unsigned turn;
    char *to = path[turn++ % 4];
    snprintf(to, sizeof path[0], "%s/%s", folder, name);
    return to;
}

static text_sink content(const char *path) {
    text_sink to = {0};
    char buffer[4096];
    ssize_t got;
    int file = open(path, O_RDONLY);
    assert_true(file >= 0);
    text_sink_write(&to, "", 0);
    while ((got = read(file, buffer, sizeof buffer)) > 0) {
        text_sink_write(&to, buffer, (size_t)got);
    }
    close(file);
    return to;
}

static void assert_same_text(text_sink one, text_sink other) {
    assert_int_equal(one.size, other.size);
    assert_memory_equal(one.text, other.text, one.size);
    text_sink_free(&one);
    text_sink_free(&other);
}

static text_sink written_by_default(const pyprof_profile *profile) {
    text_sink to = {0};
    assert_int_equal(pyprof_write(profile, NULL, text_sink_write, &to), PYPROF_OK);
    return to;
}

static void test_save(void **state) {
    pyprof_profile *profile = recorded();
    process before = look();
    text_sink json;
    (void)state;
    assert_int_equal(pyprof_save(profile, NULL, in_folder("a.txt")), PYPROF_OK);
    assert_same_text(content(in_folder("a.txt")), written_by_default(profile));
    assert_int_equal(pyprof_save(profile, NULL, in_folder("a.txt")), PYPROF_OK);
    assert_same_text(content(in_folder("a.txt")), written_by_default(profile));
    assert_int_equal(pyprof_save(profile, NULL, in_folder("b.speedscope.json")), PYPROF_OK);
    json = content(in_folder("b.speedscope.json"));
    assert_int_equal(json.text[0], '{');
    text_sink_free(&json);
    assert_int_equal(count_entries(folder), 4);
    unlink(in_folder("a.txt"));
    unlink(in_folder("b.speedscope.json"));
    assert_same_process(&before);
    pyprof_free(profile);
}

/* What it is written to first, beside it, has to have a name, too. */
static void test_save_under_the_longest_name(void **state) {
    pyprof_profile *profile = recorded();
    process before = look();
    char path[4096], name[NAME_MAX + 1];
    (void)state;
    memset(name, 'n', sizeof name);
    for (int length = NAME_MAX - 8; length <= NAME_MAX; length++) {
        snprintf(path, sizeof path, "%s/%.*s", folder, length, name);
        assert_int_equal(pyprof_save(profile, NULL, path), PYPROF_OK);
        assert_same_text(content(path), written_by_default(profile));
        assert_int_equal(count_entries(folder), 3);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/%.*sx", folder, NAME_MAX, name);
    assert_int_equal(pyprof_save(profile, NULL, path), PYPROF_ERROR_IO);
    assert_int_equal(errno, ENAMETOOLONG);
    assert_int_equal(count_entries(folder), 2);
    assert_same_process(&before);
    pyprof_free(profile);
}

static void test_save_where_it_cannot(void **state) {
    pyprof_profile *profile = recorded();
    process before = look();
    const char *const bad[] = {"/dev/full",          folder, "/tmp", "/proc/pyprof", in_folder("missing/a.txt"),
                               in_folder("missing/")};
    size_t index;
    (void)state;
    for (index = 0; index < sizeof bad / sizeof bad[0]; index++) {
        pyprof_result result;
        errno = 0;
        result = pyprof_save(profile, NULL, bad[index]);
        if (result != PYPROF_ERROR_IO || errno == 0) {
            fail_msg("'%s': %s, errno %d", bad[index], pyprof_result_string(result), errno);
        }
    }
    assert_int_equal(pyprof_save(profile, NULL, ""), PYPROF_ERROR_ARGUMENT);
    assert_int_equal(count_entries(folder), 2);
    assert_same_process(&before);
    pyprof_free(profile);
}

static void test_save_on_a_full_disk(void **state) {
    pyprof_profile *profile = recorded();
    const char *path = in_folder("full.txt");
    struct rlimit small = whole_files;
    FILE *file = fopen(path, "w");
    text_sink old = {0};
    pyprof_result result;
    int error;
    (void)state;
    fputs("as it was", file);
    fclose(file);
    text_sink_write(&old, "as it was", 9);
    /* A file may grow to 16 bytes, as if the disk were full. */
    signal(SIGXFSZ, SIG_IGN);
    small.rlim_cur = 16;
    setrlimit(RLIMIT_FSIZE, &small);
    result = pyprof_save(profile, NULL, path);
    error = errno;
    setrlimit(RLIMIT_FSIZE, &whole_files);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(result, PYPROF_ERROR_IO);
    assert_int_equal(error, EFBIG);
    assert_same_text(content(path), old);
    assert_int_equal(count_entries(folder), 3);
    unlink(path);
    pyprof_free(profile);
}

static void *read_all(void *path) {
    text_sink *to = (text_sink *)malloc(sizeof *to);
    *to = content((const char *)path);
    return to;
}

static void test_save_into_a_pipe(void **state) {
    pyprof_profile *profile = recorded();
    char *path = strdup(in_folder("pipe"));
    pthread_t reader;
    void *got;
    struct stat status;
    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    pthread_create(&reader, NULL, read_all, path);
    assert_int_equal(pyprof_save(profile, NULL, path), PYPROF_OK);
    pthread_join(reader, &got);
    assert_same_text(*(text_sink *)got, written_by_default(profile));
    free(got);
    assert_int_equal(stat(path, &status), 0);
    assert_true(S_ISFIFO(status.st_mode));
    assert_int_equal(count_entries(folder), 3);
    unlink(path);
    free(path);
    pyprof_free(profile);
}

static void test_save_to_stdout(void **state) {
    pyprof_profile *profile = recorded();
    pyprof_result result;
    int ends[2];
    char got[65536];
    ssize_t size;
    pyprof_output output = {0};
    text_sink expected = {0};
    (void)state;
    /* One line a function and thread: fits into a pipe. */
    output.detail = PYPROF_DETAIL_FUNCTION;
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    dup2(ends[1], STDOUT_FILENO);
    result = pyprof_save(profile, &output, "/dev/stdout");
    dup2(real_stdout, STDOUT_FILENO);
    close(ends[1]);
    assert_int_equal(result, PYPROF_OK);
    size = read(ends[0], got, sizeof got);
    close(ends[0]);
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &expected), PYPROF_OK);
    assert_int_equal(size, expected.size);
    assert_memory_equal(got, expected.text, expected.size);
    text_sink_free(&expected);
    assert_int_equal(pyprof_save(profile, NULL, "/dev/null"), PYPROF_OK);
    pyprof_free(profile);
}

static void test_output_path(void **state) {
    char path[256];
    pyprof_desc desc = {0};
    pyprof_profile *profile = NULL;
    (void)state;
    snprintf(path, sizeof path, "%s/auto.txt", folder);
    desc.output_path = path;
    desc.interval_us = 1000;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    memset(path, 'x', sizeof path - 1); /* it was copied */
    wait_for_samples(1);
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    assert_same_text(content(in_folder("auto.txt")), written_by_default(profile));
    pyprof_free(profile);
    unlink(in_folder("auto.txt"));

    /* What cannot be saved is said, and is not lost. */
    desc.output_path = "/dev/full";
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    wait_for_samples(1);
    assert_int_equal(pyprof_stop(&profile), PYPROF_ERROR_IO);
    assert_false(pyprof_is_active());
    assert_true(samples_in(profile) > 0);
    pyprof_free(profile);
    assert_int_equal(count_entries(folder), 2);
}

static void test_snapshots(void **state) {
    pyprof_profile *first = NULL;
    pyprof_profile *second = NULL;
    pyprof_profile *last = NULL;
    pyprof_desc desc = counted_desc(&memory, 500);
    uint64_t samples;
    (void)state;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    wait_for_samples(1);
    assert_int_equal(pyprof_snapshot(&first), PYPROF_OK);
    samples = samples_in(first);
    wait_for_samples(1);
    assert_int_equal(pyprof_snapshot(&second), PYPROF_OK);
    assert_int_equal(samples_in(first), samples);
    assert_true(samples_in(second) > samples);
    assert_int_equal(pyprof_stop(&last), PYPROF_OK);
    assert_true(samples_in(last) >= samples_in(second));
    assert_int_equal(samples_in(last), stats_now().samples);
    assert_int_equal(samples_in(first), samples);
    pyprof_free(last);
    pyprof_free(first);
    pyprof_free(second);
    assert_int_equal(memory.blocks, 0);
}

static void test_dump(void **state) {
    text_sink to = {0};
    (void)state;
    start_ms(10000000); /* the dump does not wait for a tick */
    assert_int_equal(pyprof_dump(text_sink_write, &to), PYPROF_OK);
    assert_non_null(strstr(to.text, "sleepy ("));
    assert_non_null(strstr(to.text, "busy ("));
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    text_sink_free(&to);
}

/* Signals. */

static volatile sig_atomic_t host_signals;
static volatile sig_atomic_t host_value;

static void host_handler(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    host_value = info->si_value.sival_int;
    host_signals = host_signals + 1;
}

typedef void (*signal_handler)(int, siginfo_t *, void *);

/* Answers what was there before. */
static struct sigaction install(int number, signal_handler handler) {
    struct sigaction mine;
    struct sigaction previous;
    memset(&mine, 0, sizeof mine);
    mine.sa_sigaction = handler;
    mine.sa_flags = SA_SIGINFO;
    assert_int_equal(sigaction(number, &mine, &previous), 0);
    return previous;
}

static signal_handler installed(int number) {
    struct sigaction now;
    assert_int_equal(sigaction(number, NULL, &now), 0);
    return now.sa_sigaction;
}

static void start_with_signal(int number) {
    pyprof_desc desc = {0};
    desc.interval_us = 1000;
    desc.signal_number = number;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
}

static void wait_for_answers(uint64_t count) {
    uint64_t before = stats_now().samples_signalled;
    unsigned turn;
    for (turn = 0; turn < 1200 && stats_now().samples_signalled < before + count; turn++) {
        pause_ms(50);
    }
    assert_true(stats_now().samples_signalled >= before + count);
}

static void test_host_handler_is_chained(void **state) {
    const int number = SIGRTMIN + 5;
    pyprof_profile *profile = NULL;
    union sigval value;
    unsigned turn;
    (void)state;
    host_signals = 0;
    install(number, host_handler);
    start_with_signal(number);
    wait_for_answers(20);
    assert_int_equal(host_signals, 0); /* the profiler's own are not the host's */
    raise(number);
    assert_int_equal(host_signals, 1);
    value.sival_int = 4711;
    assert_int_equal(sigqueue(getpid(), number, value), 0);
    for (turn = 0; turn < 1200 && host_signals < 2; turn++) {
        pause_ms(50);
    }
    assert_int_equal(host_signals, 2);
    assert_int_equal(host_value, 4711);
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    pyprof_free(profile);
    assert_true(installed(number) == host_handler);
    raise(number);
    assert_int_equal(host_signals, 3);
    signal(number, SIG_DFL);
}

static void wait_for_change(uint64_t changes, int number) {
    unsigned turn;
    for (turn = 0; turn < 1200 && stats_now().signal_changes < changes; turn++) {
        pause_ms(50);
    }
    assert_int_equal(stats_now().signal_changes, changes);
    assert_int_equal(stats_now().signal_number, number);
}

static volatile sig_atomic_t newer_signals;
static struct sigaction older;

static void dropping_handler(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)info;
    (void)context;
    newer_signals = newer_signals + 1;
}

static void chaining_handler(int number, siginfo_t *info, void *context) {
    dropping_handler(number, info, context);
    older.sa_sigaction(number, info, context);
}

/* A host that takes over the signal that is in use, and passes on to the handler that it found: it keeps the signal, and
   from then on another one asks. */
static void test_host_takes_the_signal_and_chains(void **state) {
    const int number = SIGRTMIN + 6;
    (void)state;
    host_signals = 0;
    install(number, host_handler);
    start_with_signal(number);
    wait_for_answers(20);
    older = install(number, chaining_handler);
    wait_for_change(1, SIGURG);
    newer_signals = 0;
    wait_for_answers(20);
    assert_int_equal(newer_signals, 0);
    assert_int_equal(host_signals, 0);
    raise(number);
    assert_int_equal(newer_signals, 1);
    assert_int_equal(host_signals, 1);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_true(installed(number) == chaining_handler);
    raise(number); /* through a handler of a recording that is over */
    assert_int_equal(host_signals, 2);
    signal(number, SIG_DFL);
}

static void test_host_takes_the_signal_and_drops_it(void **state) {
    const int number = SIGRTMIN + 7;
    pyprof_profile *profile = NULL;
    (void)state;
    start_with_signal(number);
    wait_for_answers(20);
    install(number, dropping_handler);
    wait_for_change(1, SIGURG);
    newer_signals = 0;
    wait_for_answers(20);
    assert_int_equal(newer_signals, 0);
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    assert_int_equal(samples_in(profile), stats_now().samples);
    pyprof_free(profile);
    assert_true(installed(number) == dropping_handler);
    signal(number, SIG_DFL);
}

/* The signal that is taken when none is named is no signal that the host has a handler for. */
static void test_hosts_signal_is_not_taken(void **state) {
    (void)state;
    host_signals = 0;
    install(SIGURG, host_handler);
    start_with_signal(0);
    wait_for_answers(20);
    assert_true(installed(SIGURG) == host_handler);
    assert_int_equal(host_signals, 0);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_true(installed(SIGURG) == host_handler);
    signal(SIGURG, SIG_DFL);
}

static void test_quiet_takes_no_signal(void **state) {
    process before = look();
    pyprof_desc desc = {0};
    (void)state;
    desc.interval_us = 1000;
    desc.capture = PYPROF_CAPTURE_QUIET;
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    pause_ms(100);
    before.threads++;
    assert_same_process(&before);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_int_equal(stats_now().signals, 0);
}

/* Spins with the GIL held, so that signals come, and watches errno. */
static unsigned count_errno_changes(unsigned milliseconds) {
    struct timespec begin;
    struct timespec now;
    unsigned changes = 0;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        unsigned turn;
        errno = 4242;
        for (turn = 0; turn < 1000; turn++) {
            changes += errno != 4242;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < (long)milliseconds);
    return changes;
}

static PyObject *watch_errno(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    return PyLong_FromUnsignedLong(count_errno_changes(500));
}

static void test_errno_is_kept(void **state) {
    static PyMethodDef method = {"watch_errno", watch_errno, METH_NOARGS, NULL};
    unsigned turn;
    (void)state;
    PyEval_RestoreThread(main_state);
    PyObject *function = PyCFunction_New(&method, NULL);
    PyDict_SetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "watch_errno", function);
    Py_DECREF(function);
    main_state = PyEval_SaveThread();
    start_ms(200);
    run("def watch(): assert watch_errno() == 0\n");
    for (turn = 0; turn < 40 && stats_now().samples_signalled < 200; turn++) {
        run("watch()\n");
    }
    assert_true(stats_now().samples_signalled >= 200);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
}

static void test_blocked_signal_does_not_kill(void **state) {
    (void)state;
    /* A thread that blocks all signals gets what was sent to it when it lets them in: after the end. */
    run("import signal\n"
        "let_in = threading.Event()\n"
        "def deaf():\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "    while not let_in.is_set():\n"
        "        for n in range(100): outer(n)\n"
        "    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())\n"
        "deaf_thread = threading.Thread(target=deaf, daemon=True)\n"
        "deaf_thread.start()\n");
    start_ms(500);
    pause_ms(500);
    wait_for_answers(20); /* the others are not held up by it */
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    run("let_in.set()\n"
        "deaf_thread.join()\n");
}

static void test_child_of_fork(void **state) {
    int status = -1;
    pid_t child;
    pyprof_profile *profile = NULL;
    (void)state;
    start_ms(500);
    pause_ms(50);
    PyEval_RestoreThread(main_state);
    PyOS_BeforeFork();
    child = fork();
    if (child == 0) {
        bool fine;
        alarm(120); /* a child that hangs is a child that fails */
        PyOS_AfterFork_Child();
        fine = PyRun_SimpleString("for n in range(100000): outer(n)\n") == 0;
        pyprof_stop(NULL); /* whatever it answers, it comes back */
        fine = fine && pyprof_start(NULL) == PYPROF_OK;
        fine = fine && PyRun_SimpleString("for n in range(100000): outer(n)\n") == 0;
        fine = fine && pyprof_stop(&profile) == PYPROF_OK && profile;
        pyprof_free(profile);
        _exit(fine ? 0 : 3);
    }
    PyOS_AfterFork_Parent();
    main_state = PyEval_SaveThread();
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    wait_for_samples(1);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
}

static void test_result_strings(void **state) {
    int code;
    (void)state;
    for (code = PYPROF_ERROR_FORMAT - 2; code <= PYPROF_OK + 2; code++) {
        const char *string = pyprof_result_string((pyprof_result)code);
        assert_non_null(string);
        assert_true(strlen(string) > 1);
        if (code < PYPROF_OK && code >= PYPROF_ERROR_FORMAT) {
            assert_string_not_equal(string, pyprof_result_string((pyprof_result)(code + 1)));
        }
    }
}

/* A test that failed must say so, and must not fail those behind it: cmocka tells of it after this. */
static int before_each(void **state) {
    (void)state;
    memset(&memory, 0, sizeof memory);
    return 0;
}

static int after_each(void **state) {
    (void)state;
    memory.refuse_from = 0;
    pyprof_stop(NULL);
    if (PyGILState_Check()) {
        main_state = PyEval_SaveThread();
    }
    return 0;
}

static int begin(void **state) {
    (void)state;
    real_stdout = dup(STDOUT_FILENO);
    if (!mkdtemp(folder) || real_stdout < 0 || getrlimit(RLIMIT_FSIZE, &whole_files)) {
        return -1;
    }
    Py_Initialize();
    main_state = PyThreadState_Get();
    main_state = PyEval_SaveThread();
    run(busy_script);
    return 0;
}

static int end(void **state) {
    (void)state;
    run("stop = True\nfor t in threads: t.join()\n");
    PyEval_RestoreThread(main_state);
    rmdir(folder);
    return Py_FinalizeEx();
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, before_each, after_each)

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_recorded),
        TEST(test_a_thousand_cycles),
        TEST(test_stop_at_once),
        TEST(test_starts_and_stops_with_the_gil),
        TEST(test_bad_descriptions),
        TEST(test_misuse_while_active),
        TEST(test_bad_writes),
        TEST(test_start_without_memory),
        TEST(test_snapshot_without_memory),
        TEST(test_steady_state_allocates_nothing),
        TEST(test_memory_limit),
        TEST(test_save),
        TEST(test_save_under_the_longest_name),
        TEST(test_save_where_it_cannot),
        TEST(test_save_on_a_full_disk),
        TEST(test_save_into_a_pipe),
        TEST(test_save_to_stdout),
        TEST(test_output_path),
        TEST(test_snapshots),
        TEST(test_dump),
        TEST(test_host_handler_is_chained),
        TEST(test_host_takes_the_signal_and_chains),
        TEST(test_host_takes_the_signal_and_drops_it),
        TEST(test_hosts_signal_is_not_taken),
        TEST(test_quiet_takes_no_signal),
        TEST(test_errno_is_kept),
        TEST(test_blocked_signal_does_not_kill),
        TEST(test_child_of_fork),
        TEST(test_result_strings),
    };
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    return cmocka_run_group_tests(tests, begin, end);
}
