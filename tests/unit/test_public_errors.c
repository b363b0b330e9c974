/* >>public, >>control, >>options, >>lifecycle: an error says what is wrong: which argument, signal, path or version, and why; to the log,
   to pyprof_last_error, and with errno as it was. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

/* What the system can be made to refuse. */
static int refused_thread; /* the errno that pthread_create ends with; 0 = it works */
static int refused_read;   /* that of process_vm_writev */
static int refused_memory; /* that of open("/proc/self/mem") */

static int test_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *user);
static long test_syscall(long number, ...);
static int test_open(const char *path, int flags, ...);

#define pthread_create test_pthread_create
#define syscall(...) test_syscall(__VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L) /* it reads six arguments */
#define open test_open
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"
#undef pthread_create
#undef syscall
#undef open

#include "unit.h"

#include <sys/stat.h>

static int test_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *user) {
    return refused_thread != 0 ? refused_thread : pthread_create(thread, attributes, run, user);
}

static long test_syscall(long number, ...) {
    long words[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) {
        words[i] = va_arg(arguments, long);
    }
    va_end(arguments);
    if (number == SYS_process_vm_writev && refused_read != 0) {
        errno = refused_read;
        return -1;
    }
    return syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}

static int test_open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int mode = va_arg(arguments, int);
    va_end(arguments);
    if (strcmp(path, "/proc/self/mem") == 0 && refused_memory != 0) {
        errno = refused_memory;
        return -1;
    }
    return open(path, flags, mode);
}

/* What the log heard. */
typedef struct heard {
    unsigned count[PYPROF_LOG_INFO + 1]; /* by level */
    char text[sizeof pyprof__error_text];
} heard;

static void hear(pyprof_log_level level, const char *message, void *user) {
    heard *log = (heard *)user;
    log->count[level]++;
    snprintf(log->text, sizeof log->text, "%s", message);
    pyprof_save(NULL, NULL, "x"); /* a logger may call us, and fail: that is not what its caller asks for */
    errno = ERANGE;
}

static pyprof_desc logged(heard *log) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    memset(log, 0, sizeof *log);
    desc.logger.log_fn = hear;
    desc.logger.user = log;
    return desc;
}

#define assert_says(...) says(__FILE__, __LINE__, (const char *const[]){__VA_ARGS__, NULL})

/* pyprof_last_error has all these parts. */
static void says(const char *file, int line, const char *const *parts) {
    for (; *parts != NULL; parts++) {
        if (strstr(pyprof_last_error(), *parts) == NULL) {
            print_error("'%s' is not in '%s'\n", *parts, pyprof_last_error());
            _fail(file, line);
        }
    }
}

/* The start fails so, and the log hears just what pyprof_last_error says. */
static void assert_refused(pyprof_desc *desc, heard *log, pyprof_result result) {
    assert_int_equal(pyprof_start(desc), result);
    assert_int_equal(log->count[PYPROF_LOG_ERROR], 1);
    assert_string_equal(log->text, pyprof_last_error());
    assert_false(pyprof_is_active());
    *desc = logged(log);
}

static void test_nothing_failed(void **state) {
    (void)state;
    assert_string_equal(pyprof_last_error(), "");
}

static void test_figures(void **state) {
    heard log;
    pyprof_desc desc = logged(&log);
    (void)state;
    desc.interval_us = 3;
    assert_refused(&desc, &log, PYPROF_ERROR_ARGUMENT);
    assert_string_equal(pyprof_last_error(), "interval_us is 3: it has to be 50 to 10000000, or 0 for 10000");
    desc.interval_us = 4000000000u;
    assert_refused(&desc, &log, PYPROF_ERROR_ARGUMENT);
    assert_says("interval_us is 4000000000:");
    desc.max_depth = 15;
    assert_refused(&desc, &log, PYPROF_ERROR_ARGUMENT);
    assert_says("max_depth is 15:", "16 to 65536");
    desc.memory_limit = 4096;
    assert_refused(&desc, &log, PYPROF_ERROR_ARGUMENT);
    assert_says("memory_limit is 4096:", "1048576");
    desc.capture = (pyprof_capture)3;
    assert_refused(&desc, &log, PYPROF_ERROR_ARGUMENT);
    assert_says("capture is 3:", "PYPROF_CAPTURE_QUIET");
    desc.allocator.free_fn = counted_free;
    assert_refused(&desc, &log, PYPROF_ERROR_ARGUMENT);
    assert_says("allocator.alloc_fn is NULL");
    desc.allocator.alloc_fn = counted_alloc;
    assert_refused(&desc, &log, PYPROF_ERROR_ARGUMENT);
    assert_says("allocator.free_fn is NULL");
    desc.signal_number = -5;
    assert_refused(&desc, &log, PYPROF_ERROR_ARGUMENT);
    assert_says("signal_number is -5:");
}

static void test_signals(void **state) {
    heard log;
    pyprof_desc desc = logged(&log);
    (void)state;
    desc.signal_number = SIGSEGV;
    assert_refused(&desc, &log, PYPROF_ERROR_SIGNAL);
    assert_says("signal_number is 11 (Segmentation fault)", "fault");
    desc.signal_number = 1000;
    assert_refused(&desc, &log, PYPROF_ERROR_SIGNAL);
    assert_says("signal_number is 1000 (no signal)", "1 to 64");
    desc.signal_number = 32; /* the C library's own */
    assert_refused(&desc, &log, PYPROF_ERROR_SIGNAL);
    assert_says("signal_number is 32:", strerror(EINVAL));
}

static void test_the_system_refuses(void **state) {
    heard log;
    pyprof_desc desc = logged(&log);
    counted_memory counts;
    (void)state;
    refused_thread = EAGAIN;
    assert_refused(&desc, &log, PYPROF_ERROR_THREAD);
    assert_says("thread", strerror(EAGAIN));
    refused_thread = 0;
    refused_read = EPERM;
    refused_memory = EMFILE;
    assert_refused(&desc, &log, PYPROF_ERROR_MEMORY_READ);
    assert_says("process_vm_writev", strerror(EPERM), "/proc/self/mem", strerror(EMFILE));
    refused_read = refused_memory = 0;
    memset(&counts, 0, sizeof counts);
    counts.refuse_call = 1;
    desc.allocator.alloc_fn = counted_alloc;
    desc.allocator.free_fn = counted_free;
    desc.allocator.user = &counts;
    assert_refused(&desc, &log, PYPROF_ERROR_MEMORY);
    assert_says("memory_limit (67108864 bytes)", "max_depth (1024)", "allocator");
    assert_int_equal(counts.blocks, 0);
}

/* The versions themselves: nothing here can run in another CPython than it was compiled for. */
static void test_pythons(void **state) {
    char running[64];
    (void)state;
    snprintf(running, sizeof running, "running in CPython %.*s", (int)strcspn(Py_GetVersion(), " "), Py_GetVersion());
    pyprof__say_python(PYPROF_ERROR_PYTHON_MISMATCH);
    assert_says("compiled against CPython " PY_VERSION, running);
    pyprof__say_python(PYPROF_ERROR_PYTHON);
    assert_says(PY_VERSION, "3.8 to 3.15");
    pyprof__say_python(PYPROF_ERROR_PYTHON_DEBUG);
    assert_says(PY_VERSION, "debug build");
}

static bool refuse(void *user, const void *data, size_t size) {
    (void)user, (void)data, (void)size;
    return false;
}

static void test_wrong_moments(void **state) {
    heard log;
    pyprof_desc desc = logged(&log);
    pyprof_profile *profile;
    pyprof_stats stats;
    (void)state;
    pyprof__process.was_active = false;
    assert_int_equal(pyprof_stop(&profile), PYPROF_ERROR_NOT_ACTIVE);
    assert_says("no recording is running");
    pyprof_save(NULL, NULL, "x");
    assert_int_equal(pyprof_snapshot(&profile), PYPROF_ERROR_NOT_ACTIVE);
    assert_says("no recording is running");
    pyprof_save(NULL, NULL, "x");
    assert_int_equal(pyprof_dump(refuse, NULL), PYPROF_ERROR_NOT_ACTIVE);
    assert_says("no recording is running");
    assert_int_equal(pyprof_get_stats(&stats), PYPROF_ERROR_NOT_ACTIVE);
    assert_says("nothing was recorded");
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    assert_int_equal(pyprof_start(&desc), PYPROF_ERROR_ALREADY_ACTIVE);
    assert_says("already running", "pyprof_stop");
    assert_int_equal(log.count[PYPROF_LOG_ERROR], 1);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_says("already running"); /* success takes nothing back */
}

static void test_missing_arguments(void **state) {
    pyprof_output output;
    pyprof_profile *profile = NULL;
    const pyprof_visitor nobody = {NULL, NULL, NULL};
    (void)state;
    memset(&output, 0, sizeof output);
    assert_int_equal(pyprof_snapshot(NULL), PYPROF_ERROR_ARGUMENT);
    assert_says("pyprof_snapshot: profile is NULL");
    assert_int_equal(pyprof_get_stats(NULL), PYPROF_ERROR_ARGUMENT);
    assert_says("stats is NULL");
    assert_int_equal(pyprof_dump(NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_says("pyprof_dump: write is NULL");
    assert_int_equal(pyprof_write(NULL, NULL, refuse, NULL), PYPROF_ERROR_ARGUMENT);
    assert_says("profile is NULL");
    assert_int_equal(pyprof_save(NULL, NULL, "x"), PYPROF_ERROR_ARGUMENT);
    assert_says("profile is NULL");
    assert_int_equal(pyprof_name_interpreter(-7, "x"), PYPROF_ERROR_ARGUMENT);
    assert_says("id is -7");
    assert_int_equal(pyprof_start(NULL), PYPROF_OK);
    assert_int_equal(pyprof_stop(&profile), PYPROF_OK);
    assert_int_equal(pyprof_write(profile, NULL, NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_says("pyprof_write: write is NULL");
    assert_int_equal(pyprof_visit(NULL, NULL, &nobody), PYPROF_ERROR_ARGUMENT);
    assert_says("profile is NULL");
    assert_int_equal(pyprof_visit(profile, NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_says("visitor is NULL");
    assert_int_equal(pyprof_visit(profile, NULL, &nobody), PYPROF_OK);
    assert_int_equal(pyprof_save(profile, NULL, NULL), PYPROF_ERROR_ARGUMENT);
    assert_says("path is NULL");
    assert_int_equal(pyprof_save(profile, NULL, ""), PYPROF_ERROR_ARGUMENT);
    assert_says("path is empty");
    output.metric = (pyprof_metric)4;
    assert_int_equal(pyprof_write(profile, &output, refuse, NULL), PYPROF_ERROR_ARGUMENT);
    assert_says("output.metric is 4");
    output.metric = PYPROF_METRIC_WALL;
    output.detail = (pyprof_detail)9;
    assert_int_equal(pyprof_save(profile, &output, "x"), PYPROF_ERROR_ARGUMENT);
    assert_says("output.detail is 9");
    assert_int_equal(pyprof_visit(profile, &output, &nobody), PYPROF_ERROR_ARGUMENT);
    assert_says("output.detail is 9");
    output.detail = PYPROF_DETAIL_LINE;
    output.format = (pyprof_format)99;
    assert_int_equal(pyprof_save(profile, &output, "x"), PYPROF_ERROR_FORMAT);
    assert_says("output.format is 99");
    output.format = PYPROF_FORMAT_SPEEDSCOPE;
    assert_int_equal(pyprof_write(profile, &output, refuse, NULL), PYPROF_ERROR_WRITE);
    assert_says("write function");
    pyprof_free(profile);
}

static void test_interpreter_names_run_out(void **state) {
    (void)state;
    for (int64_t id = 0; id < PYPROF__NAMES_MAX; id++) {
        assert_int_equal(pyprof_name_interpreter(id, "x"), PYPROF_OK);
    }
    assert_int_equal(pyprof_name_interpreter(1000, "another"), PYPROF_ERROR_MEMORY);
    assert_says("64 interpreters");
    for (int64_t id = 0; id < PYPROF__NAMES_MAX; id++) {
        assert_int_equal(pyprof_name_interpreter(id, NULL), PYPROF_OK);
    }
}

static void assert_cannot_write(const pyprof_profile *profile, heard *log, const char *path, const char *shown,
                                int error) {
    char expected[sizeof pyprof__error_text];
    unsigned before = log->count[PYPROF_LOG_ERROR];
    snprintf(expected, sizeof expected, "cannot write %s: %s", shown, strerror(error));
    errno = 0;
    assert_int_equal(pyprof_save(profile, NULL, path), PYPROF_ERROR_IO);
    assert_int_equal(errno, error);
    assert_string_equal(pyprof_last_error(), expected);
    assert_int_equal(log->count[PYPROF_LOG_ERROR], before + 1);
    assert_string_equal(log->text, expected);
}

static void test_paths(void **state) {
    heard log;
    pyprof_desc desc = logged(&log);
    pyprof_profile *profile = NULL, *copy = NULL;
    char *longest = (char *)calloc(1, 9001);
    char shown[304] = "...";
    (void)state;
    desc.output_path = "/no/such/folder/game.txt";
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    assert_int_equal(pyprof_snapshot(&copy), PYPROF_OK);
    assert_int_equal(pyprof_stop(&profile), PYPROF_ERROR_IO);
    assert_int_equal(errno, ENOENT);
    assert_string_equal(pyprof_last_error(), "cannot write /no/such/folder/game.txt: No such file or directory");
    assert_string_equal(log.text, pyprof_last_error());
    assert_int_equal(log.count[PYPROF_LOG_ERROR], 1);
    assert_cannot_write(profile, &log, "/proc", "/proc", EISDIR);
    assert_cannot_write(profile, &log, "/dev/null/x.json", "/dev/null/x.json", ENOTDIR);
    assert_cannot_write(copy, &log, "/no/such/y", "/no/such/y", ENOENT); /* snapshots know the log, too */
    memset(longest, 'y', 9000);
    memset(shown + 3, 'y', 300);
    shown[303] = '\0';
    assert_cannot_write(profile, &log, longest, shown, ENAMETOOLONG);
    free(longest);
    pyprof_free(copy);
    pyprof_free(profile);
}

static void test_no_picture(void **state) {
    heard log;
    pyprof_desc desc = logged(&log);
    pyprof_profile *profile = NULL;
    pyprof_output output;
    (void)state;
    memset(&output, 0, sizeof output);
    output.format = PYPROF_FORMAT_SVG;
    desc.output_path = "no_picture.svg";
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    assert_int_equal(log.count[PYPROF_LOG_WARNING], 1); /* not after hours, when it is to be written */
    assert_non_null(strstr(log.text, "output_path"));
    assert_non_null(strstr(log.text, "flamegraph.h"));
    assert_int_equal(pyprof_stop(&profile), PYPROF_ERROR_FORMAT);
    assert_says("tools/flamegraph.h", "PYPROF_IMPLEMENTATION", "pyprof-svg x.txt x.svg", "speedscope.app");
    assert_string_equal(log.text, pyprof_last_error());
    assert_int_equal(pyprof_write(profile, &output, refuse, NULL), PYPROF_ERROR_FORMAT);
    assert_int_equal(pyprof_save(profile, &output, "no_picture.txt"), PYPROF_ERROR_FORMAT);
    assert_int_equal(log.count[PYPROF_LOG_ERROR], 3);
    assert_int_equal(access("no_picture.svg", F_OK), -1);
    assert_int_equal(access("no_picture.txt", F_OK), -1);
    pyprof_free(profile);
}

static void *fail_elsewhere(void *user) {
    assert_string_equal(pyprof_last_error(), "");
    pyprof_name_interpreter(-99, NULL);
    snprintf((char *)user, sizeof pyprof__error_text, "%s", pyprof_last_error());
    return NULL;
}

static void test_each_thread_has_its_own(void **state) {
    char elsewhere[sizeof pyprof__error_text] = "";
    pthread_t thread;
    (void)state;
    pyprof_name_interpreter(-1, NULL);
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, elsewhere), 0);
    pthread_join(thread, NULL);
    assert_non_null(strstr(elsewhere, "id is -99"));
    assert_says("id is -1:");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_failed),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_the_system_refuses),
        cmocka_unit_test(test_pythons),
        cmocka_unit_test(test_wrong_moments),
        cmocka_unit_test(test_missing_arguments),
        cmocka_unit_test(test_interpreter_names_run_out),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_no_picture),
        cmocka_unit_test(test_each_thread_has_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
