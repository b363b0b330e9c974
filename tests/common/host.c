/* A host for test scripts: runs a Python script under the profiler and writes what was recorded.

   host [-b] [-q] [-k] [-n] [-B] [-f] [-a] [-i INTERVAL_US] [-m MEMORY_LIMIT] [-d MAX_DEPTH] [-s STATS.json]
        [-o WORDS:PATH]... SCRIPT [ARG]...

   -b starts the recording before the interpreter, -q captures quietly, -k holds threads, -n never does, -B blocks all signals in every
   thread of the program, -f lets the program come before others, -a keeps the sampler on the last core. WORDS are
   joined by commas and say how a file is written, as in "speedscope,cpu,idle:out.json"; "top" writes the rows of
   pyprof_top, "SELF TOTAL SAMPLES_SELF SAMPLES_TOTAL NAME (FILE:LINE)", tabs between the figures. The script finds a module
   "pyprof_host" with dump(), snapshot(WORDS) and stats(), all of which return bytes, samples(), a number, and change_cores(). */

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* cpu_set_t */
#endif
#include "pyprof.h"

#define EXPORTS_IMPLEMENTATION
#include "exports.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "callbacks.h"
#include "prefer.h"

#define MAX_OUTPUTS 32
#define FORMAT_TOP ((pyprof_format)1000)      /* none of the header's */
#define FORMAT_EXPORTED ((pyprof_format)2000) /* the first of those of exports.h */

/* The words of an output. */

static bool apply_word(pyprof_output *output, const char *word, size_t length) {
#define IS(literal) (length == sizeof(literal) - 1 && memcmp(word, literal, length) == 0)
    if (IS("collapsed")) {
        output->format = PYPROF_FORMAT_COLLAPSED;
    } else if (IS("speedscope")) {
        output->format = PYPROF_FORMAT_SPEEDSCOPE;
    } else if (IS("table")) {
        output->format = PYPROF_FORMAT_TABLE;
    } else if (IS("top")) {
        output->format = FORMAT_TOP;
    } else if (IS("mine")) {
        output->only_mine = true;
    } else if (IS("pprof")) {
        output->format = PYPROF_FORMAT_PPROF;
    } else if (IS("pstats") || IS("firefox") || IS("perfetto") || IS("jsonl")) {
        char name[16] = {0};
        memcpy(name, word, length);
        output->format = (pyprof_format)((unsigned)FORMAT_EXPORTED + (unsigned)exports_format_of_name(name));
    } else if (IS("wall")) {
        output->metric = PYPROF_METRIC_WALL;
    } else if (IS("cpu")) {
        output->metric = PYPROF_METRIC_CPU;
    } else if (IS("gil")) {
        output->metric = PYPROF_METRIC_GIL;
    } else if (IS("samples")) {
        output->metric = PYPROF_METRIC_SAMPLES;
    } else if (IS("function")) {
        output->detail = PYPROF_DETAIL_FUNCTION;
    } else if (IS("idle")) {
        output->include_idle = true;
    } else if (IS("merged")) {
        output->merge_threads = true;
    } else {
        return false;
    }
#undef IS
    return true;
}

/* Answers the character behind the words, or NULL when one of them means nothing. */
static const char *parse_words(pyprof_output *output, const char *words) {
    while (*words && *words != ':') {
        size_t length = strcspn(words, ",:");
        if (!apply_word(output, words, length)) {
            return NULL;
        }
        words += length;
        words += *words == ',';
    }
    return words;
}

/* Figures as JSON. */

#define STATS_FIELDS(X)                                                                                                \
    X(ticks)                                                                                                           \
    X(ticks_missed)                                                                                                    \
    X(samples)                                                                                                         \
    X(samples_idle)                                                                                                    \
    X(samples_signalled)                                                                                               \
    X(samples_partial)                                                                                                 \
    X(lost_late)                                                                                                       \
    X(lost_pending)                                                                                                    \
    X(lost_unsettled)                                                                                                  \
    X(lost_unreadable)                                                                                                 \
    X(lost_memory)                                                                                                     \
    X(truncated_depth)                                                                                                 \
    X(truncated_memory)                                                                                                \
    X(frames_unresolved)                                                                                               \
    X(timeline_coarsened)                                                                                              \
    X(signals)                                                                                                         \
    X(calls_interrupted)                                                                                               \
    X(threads) X(bytes) X(bytes_peak) X(sampler_cpu_ns) X(samples_held) X(holds_failed) X(samples_jit)

static bool stats_to_json(text_sink *to) {
    char line[64];
    pyprof_stats stats;
    if (pyprof_get_stats(&stats) != PYPROF_OK) {
        return false;
    }
#define ADD(field)                                                                                                     \
    snprintf(line, sizeof line, "%s\"%s\": %" PRIu64, to->size ? ",\n " : "{", #field, (uint64_t)stats.field);         \
    if (!text_sink_write(to, line, strlen(line))) {                                                                    \
        return false;                                                                                                  \
    }
    STATS_FIELDS(ADD)
#undef ADD
    return text_sink_write(to, "}\n", 2);
}

/* The module. */

static PyObject *bytes_of(text_sink *from) {
    PyObject *bytes = PyBytes_FromStringAndSize(from->text, (Py_ssize_t)from->size);
    text_sink_free(from);
    return bytes;
}

static PyObject *failure(text_sink *partial, pyprof_result result) {
    text_sink_free(partial);
    return PyErr_Format(PyExc_RuntimeError, "%s (%d)", pyprof_result_string(result), (int)result);
}

static PyObject *host_dump(PyObject *self, PyObject *unused) {
    text_sink out = {0};
    pyprof_result result = pyprof_dump(text_sink_write, &out);
    (void)self;
    (void)unused;
    return result == PYPROF_OK ? bytes_of(&out) : failure(&out, result);
}

static PyObject *host_snapshot(PyObject *self, PyObject *argument) {
    text_sink out = {0};
    pyprof_output output = {0};
    pyprof_profile *profile = NULL;
    pyprof_result result;
    const char *words = PyUnicode_AsUTF8(argument);
    (void)self;
    if (!words) {
        return NULL;
    }
    if (!parse_words(&output, words)) {
        return PyErr_Format(PyExc_ValueError, "unknown word in '%s'", words);
    }
    result = pyprof_snapshot(&profile);
    if (result == PYPROF_OK) {
        result = pyprof_write(profile, &output, text_sink_write, &out);
    }
    pyprof_free(profile);
    return result == PYPROF_OK ? bytes_of(&out) : failure(&out, result);
}

static PyObject *host_stats(PyObject *self, PyObject *unused) {
    text_sink out = {0};
    (void)self;
    (void)unused;
    return stats_to_json(&out) ? bytes_of(&out) : failure(&out, PYPROF_ERROR_NOT_ACTIVE);
}

/* For what goes on until it was seen. */
static PyObject *host_samples(PyObject *self, PyObject *unused) {
    pyprof_stats stats;
    pyprof_result result = pyprof_get_stats(&stats);
    (void)self;
    (void)unused;
    return result == PYPROF_OK ? PyLong_FromUnsignedLongLong(stats.samples)
                               : PyErr_Format(PyExc_RuntimeError, "%s", pyprof_result_string(result));
}

/* Lets a thread run on its first core only, and everywhere again, time after time, as a host may: from a thread without
   the GIL. Answers how often it was found to be where it should not be, and stayed there. */
static bool settles(pid_t tid, const cpu_set_t *wanted) {
    const struct timespec a_moment = {0, 50000};
    cpu_set_t now;
    int turn;
    for (turn = 0; turn < 2000; turn++) {
        if (sched_getaffinity(tid, sizeof now, &now) || CPU_EQUAL(&now, wanted)) {
            return true;
        }
        nanosleep(&a_moment, NULL);
    }
    return false;
}

static long change_cores(pid_t tid, long count) {
    const struct timespec pause = {0, 700000};
    cpu_set_t sets[2];
    long wrong = 0;
    size_t first = 0;
    if (sched_getaffinity(tid, sizeof sets[0], &sets[0])) {
        return -1;
    }
    while (!CPU_ISSET(first, &sets[0])) {
        first++;
    }
    CPU_ZERO(&sets[1]);
    CPU_SET(first, &sets[1]);
    while (count-- > 0) {
        const cpu_set_t *wanted = &sets[count % 2];
        (void)sched_setaffinity(tid, sizeof *wanted, wanted);
        nanosleep(&pause, NULL);
        wrong += !settles(tid, wanted);
    }
    return wrong;
}

static PyObject *host_change_cores(PyObject *self, PyObject *arguments) {
    int tid;
    long count;
    long wrong;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "il", &tid, &count)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    wrong = change_cores(tid, count);
    Py_END_ALLOW_THREADS;
    return PyLong_FromLong(wrong);
}

static PyMethodDef host_methods[] = {
    {"change_cores", host_change_cores, METH_VARARGS, "Changes where a thread (its id) may run so many times."},
    {"dump", host_dump, METH_NOARGS, "The stacks of this moment."},
    {"snapshot", host_snapshot, METH_O, "The profile so far, written as WORDS say."},
    {"samples", host_samples, METH_NOARGS, "How many were taken so far."},
    {"stats", host_stats, METH_NOARGS, "The figures so far, as JSON."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef host_module = {
    PyModuleDef_HEAD_INIT, "pyprof_host", NULL, -1, host_methods, NULL, NULL, NULL, NULL};

static PyObject *make_host_module(void) {
    return PyModule_Create(&host_module);
}

/* The program. */

static void die(const char *what, const char *why) {
    fprintf(stderr, "host: %s: %s\n", what, why);
    exit(2);
}

static void check(const char *what, pyprof_result result) {
    if (result != PYPROF_OK) {
        die(what, pyprof_result_string(result));
    }
}

static void initialize_python(int argc, char **argv) {
    PyStatus status;
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    status = PyConfig_SetBytesArgv(&config, argc, argv);
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

static void save_top(const pyprof_profile *profile, const pyprof_output *output, const char *path) {
    size_t count = 0;
    check(path, pyprof_top(profile, output, NULL, &count));
    pyprof_row *rows = (pyprof_row *)calloc(count + 1, sizeof *rows);
    FILE *file = fopen(path, "w");
    if (!rows || !file) {
        die(path, strerror(errno));
    }
    check(path, pyprof_top(profile, output, rows, &count));
    for (size_t i = 0; i < count; i++) {
        fprintf(file, "%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%s", rows[i].self, rows[i].total,
                rows[i].samples_self, rows[i].samples_total, rows[i].name.data);
        fprintf(file, rows[i].file.size > 0 ? " (%s:%d)\n" : "\n", rows[i].file.data, (int)rows[i].line);
    }
    if (fclose(file) != 0) {
        die(path, strerror(errno));
    }
    free(rows);
}

static bool write_to(void *file, const void *data, size_t size) {
    return fwrite(data, 1, size, (FILE *)file) == size;
}

static void save_exported(const pyprof_profile *profile, const pyprof_output *output, const char *path) {
    exports_format format = (exports_format)((unsigned)output->format - (unsigned)FORMAT_EXPORTED);
    FILE *file = fopen(path, "wb");
    if (!file || exports_write(profile, output, format, write_to, file) != PYPROF_OK || fclose(file) != 0) {
        die(path, file ? exports_last_error() : strerror(errno));
    }
}

static void save(const pyprof_profile *profile, const char *specification) {
    pyprof_output output = {0};
    const char *end = parse_words(&output, specification);
    if (!end || *end != ':') {
        die(specification, "not WORDS:PATH");
    }
    if (output.format == FORMAT_TOP) {
        save_top(profile, &output, end + 1);
    } else if (output.format >= FORMAT_EXPORTED) {
        save_exported(profile, &output, end + 1);
    } else {
        check(end + 1, pyprof_save(profile, &output, end + 1));
    }
}

static void save_stats(const char *path) {
    text_sink json = {0};
    FILE *file = fopen(path, "w");
    if (!file) {
        die(path, strerror(errno));
    }
    if (!stats_to_json(&json) || fwrite(json.text, 1, json.size, file) != json.size || fclose(file)) {
        die(path, "not written");
    }
    text_sink_free(&json);
}

static void block_all_signals(void) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
}

static void log_message(pyprof_log_level level, const char *message, void *user) {
    (void)user;
    fprintf(stderr, "pyprof[%d]: %s\n", (int)level, message);
}

int main(int argc, char **argv) {
    const char *outputs[MAX_OUTPUTS];
    const char *stats_path = NULL;
    size_t output_count = 0;
    size_t index;
    bool before = false;
    bool is_apart = false;
    int option;
    int failed;
    FILE *script;
    pyprof_desc desc = {0};
    pyprof_profile *profile = NULL;

    desc.logger.log_fn = log_message;
    while ((option = getopt(argc, argv, "+bqknBfai:m:d:s:o:")) != -1) {
        switch (option) {
        case 'b':
            before = true;
            break;
        case 'q':
            desc.capture = PYPROF_CAPTURE_QUIET;
            break;
        case 'k':
            desc.capture = PYPROF_CAPTURE_HELD;
            break;
        case 'n':
            desc.never_hold = true;
            break;
        case 'B':
            block_all_signals();
            break;
        case 'f':
            come_first();
            break;
        case 'a':
            is_apart = true;
            break;
        case 'i':
            desc.interval_us = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'm':
            desc.memory_limit = (size_t)strtoull(optarg, NULL, 10);
            break;
        case 'd':
            desc.max_depth = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 's':
            stats_path = optarg;
            break;
        case 'o':
            if (output_count == MAX_OUTPUTS) {
                die(optarg, "too many outputs");
            }
            outputs[output_count++] = optarg;
            break;
        default:
            return 2;
        }
    }
    if (optind >= argc) {
        die("script", "missing");
    }
    script = fopen(argv[optind], "rb");
    if (!script) {
        die(argv[optind], strerror(errno));
    }
    PyImport_AppendInittab("pyprof_host", make_host_module);
    if (before) {
        check("pyprof_start", pyprof_start(&desc));
    }
    initialize_python(argc - optind, argv + optind);
    if (!before) {
        check("pyprof_start", pyprof_start(&desc));
    }
    prefer_sampler(is_apart);
    failed = PyRun_SimpleFileExFlags(script, argv[optind], 1, NULL);
    check("pyprof_stop", pyprof_stop(&profile));
    failed |= Py_FinalizeEx() < 0;
    for (index = 0; index < output_count; index++) {
        save(profile, outputs[index]);
    }
    pyprof_free(profile);
    if (stats_path) {
        save_stats(stats_path);
    }
    return failed ? 1 : 0;
}
