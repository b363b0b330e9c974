/* What a sample, a stack, a recording and a file cost, and how that grows. Counts, where time would only tell about
   the machine: the ticks are driven from here, so that no clock decides how many there are or what they see.

   growth ticks waits|outside|own|parked DEPTH FUNCTIONS THREADS ROUNDS
   growth start THREADS ROUNDS
   growth stacks COUNT
   growth write THREADS STACKS SAMPLES

   Each prints one JSON object. Run by growth.py, which also counts instructions: those of growth_ticks are the
   sampler's, those of pyprof__on_signal the program's.

   System calls are counted where the implementation makes them, by the preprocessor. The clocks that it reads are
   scripted: a thread runs, ran or waits because its CPU clock says so. For the rest the ticks are real ones, of
   real Python threads, by real reads and signals; what they recorded is checked against what they should have. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <Python.h>
#include <frameobject.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static long counted_syscall(long number, ...);
static int counted_clock_gettime(clockid_t id, struct timespec *time);
static ssize_t counted_pread(int file, void *to, size_t size, off_t offset);
static int counted_open(const char *path, int flags, ...);
static ssize_t counted_read(int file, void *to, size_t size);
static int counted_close(int file);
static int begun_by_hand(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *sampler);

#define syscall(...) counted_syscall(__VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L) /* it reads six arguments */
#define PYPROF__CLOCK_GETTIME counted_clock_gettime
#define pread(file, to, size, offset) counted_pread(file, to, size, offset)
#define open(...) counted_open(__VA_ARGS__)
#define read(file, to, size) counted_read(file, to, size)
#define close(file) counted_close(file)
#define pthread_create(thread, attributes, function, argument) begun_by_hand(thread, attributes, function, argument)

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#undef syscall
#undef pread
#undef open
#undef read
#undef close
#undef pthread_create

#include "../common/callbacks.h"

static void die(const char *what) {
    fprintf(stderr, "growth: %s\n", what);
    exit(1);
}

static void check(bool holds, const char *what) {
    if (!holds) {
        die(what);
    }
}

/* What the clocks say. */

typedef enum script {
    NONE,    /* the truth */
    WAITS,   /* no thread has run since the last tick */
    OUTSIDE, /* every thread has run since, and waits now */
    OWN      /* the main thread runs, the others wait */
} script;

static script clocks = NONE;

/* What is counted. */

typedef struct counts {
    uint64_t process_vm_writev;
    uint64_t clock_gettime; /* of a CPU clock: a system call */
    uint64_t pread;
    uint64_t signals;
    uint64_t futex;
    uint64_t files; /* open, read, close */
    uint64_t others;
    uint64_t times; /* reads of the monotonic clock: no system call where the vDSO serves it */
} counts;

static counts sampler_counts, handler_counts;

static counts *current_counts(void) {
    return pyprof__get(&pyprof__handler.running) != 0 ? &handler_counts : &sampler_counts;
}

/* No call of the implementation has more than six arguments. */
static long counted_syscall(long number, ...) {
    counts *to = current_counts();
    va_list list;
    long a[6];
    va_start(list, number);
    for (size_t i = 0; i < sizeof a / sizeof *a; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    switch (number) {
    case SYS_process_vm_writev:
        to->process_vm_writev++;
        break;
    case SYS_rt_tgsigqueueinfo:
        to->signals++;
        break;
    case SYS_futex:
        to->futex++;
        break;
    default:
        to->others++;
    }
    long result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_rt_tgsigqueueinfo && clocks == OWN) {
        sched_yield(); /* under valgrind a signal comes at the next call that may block; here it has come already */
    }
    return result;
}

static ssize_t counted_pread(int file, void *to, size_t size, off_t offset) {
    current_counts()->pread++;
    return pread(file, to, size, offset);
}

static int counted_open(const char *path, int flags, ...) {
    current_counts()->files++;
    return open(path, flags, 0666);
}

static ssize_t counted_read(int file, void *to, size_t size) {
    current_counts()->files++;
    return read(file, to, size);
}

static int counted_close(int file) {
    current_counts()->files++;
    return close(file);
}

static const uint64_t interval = 10000000; /* the default one */
static uint64_t tick, cpu_reads, monotonic_start;
static int32_t main_tid;

static uint64_t scripted_cpu(clockid_t id) {
    const uint64_t second = 1000000000; /* zero would be a dead thread */
    bool is_main = id == CLOCK_THREAD_CPUTIME_ID || id == pyprof__cpu_clock(main_tid);
    if (id == CLOCK_PROCESS_CPUTIME_ID) { /* the main thread, which is the sampler as well: it is both */
        return clocks == OWN ? 2 * (second + tick * (interval / 2) + cpu_reads) : second;
    }
    switch (clocks) {
    case OUTSIDE:
        return second + tick * (interval / 2);
    case OWN:
        return is_main ? second + tick * (interval / 2) + ++cpu_reads : second;
    default:
        return second;
    }
}

static int counted_clock_gettime(clockid_t id, struct timespec *time) {
    bool is_monotonic = id == CLOCK_MONOTONIC;
    counts *to = current_counts();
    *(is_monotonic ? &to->times : &to->clock_gettime) += 1;
    if (clocks == NONE) {
        return clock_gettime(id, time);
    }
    uint64_t now = is_monotonic ? monotonic_start + tick * interval : scripted_cpu(id);
    time->tv_sec = (time_t)(now / 1000000000u);
    time->tv_nsec = (long)(now % 1000000000u);
    return 0;
}

/* The sampler thread begins, unless the ticks are driven from here: then this does what it does first. */
static int begun_by_hand(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *),
                         void *argument) {
    pyprof__sampler *sampler = (pyprof__sampler *)argument;
    if (clocks == NONE) {
        return pthread_create(thread, attributes, function, argument);
    }
    sampler->tid = pyprof__tid();
    pyprof__learn_tid_offset(sampler);
    sampler->start = sampler->last_tick = pyprof__now();
    pyprof__set(&sampler->ready, 1);
    return 0;
}

static pyprof__sampler *start_by_hand(script as) {
    monotonic_start = pyprof__now();
    main_tid = pyprof__tid();
    clocks = as;
    check(pyprof_start(NULL) == PYPROF_OK, "pyprof_start failed");
    return pyprof__process.active;
}

/* The name by which growth.py has the instructions counted. */
void growth_ticks(pyprof__sampler *sampler, uint64_t rounds);
__attribute__((noinline)) void growth_ticks(pyprof__sampler *sampler, uint64_t rounds) {
    for (uint64_t i = 0; i < rounds; i++) {
        tick++;
        pyprof__tick(sampler);
    }
}

/* The program that is sampled. */

static const char program[] =
    "import sys, threading\n"
    "sys.setrecursionlimit(10000)\n"
    "threading.stack_size(1 << 18)\n"
    "functions = []\n"
    "def make(count):\n"
    "    for i in range(count):\n"
    "        source = ('def f%d(depth, end):\\n'\n"
    "                  '    return end() if depth == 0 else functions[%d](depth - 1, end)\\n')\n"
    "        exec(source % (i, (i + 1) % count), globals())\n"
    "        functions.append(globals()['f%d' % i])\n"
    "held = threading.Lock()\n"
    "held.acquire()\n"
    "def wait_in_threads(count):\n" /* ten deep, three of it threading's */
    "    threads = [threading.Thread(target=functions[0], args=(6, held.acquire)) for _ in range(count)]\n"
    "    for thread in threads:\n"
    "        thread.daemon = True\n"
    "        thread.start()\n"
    "def branch(digits, end):\n" /* a path of its own for every number, ten deep with main's frame */
    "    return end() if not digits else branches[int(digits[0])](digits[1:], end)\n"
    "branches = []\n"
    "for i in range(10):\n"
    "    exec('def branch%d(digits, end):\\n'\n"
    "         '    return end() if not digits else branches[int(digits[0])](digits[1:], end)\\n' % i)\n"
    "    branches.append(globals()['branch%d' % i])\n"
    "def visit(count, end):\n"
    "    for number in range(count):\n"
    "        branches[0]('%07d' % number, end)\n";

static void start_python(PyMethodDef *method) {
    const char *home = getenv("PYPROF_PYTHONHOME");
    if (home != NULL) {
        setenv("PYTHONHOME", home, 1);
    }
    Py_InitializeEx(0);
    check(PyRun_SimpleString(program) == 0, "the program does not run");
    if (method != NULL) {
        PyObject *function = PyCFunction_New(method, NULL);
        check(function != NULL, "no function");
        PyObject_SetAttrString(PyImport_AddModule("__main__"), method->ml_name, function);
        Py_DECREF(function);
    }
}

__attribute__((format(printf, 1, 2))) static void run(const char *format, ...) {
    char text[256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    check(PyRun_SimpleString(text) == 0, text);
}

/* Threads that wait begin to do so a moment after their start() has returned. */
static void start_threads(unsigned long count) {
    run("make(1)\nwait_in_threads(%lu)\nimport time\ntime.sleep(0.2)\n", count);
}

/* growth ticks */

static const uint64_t unparked = 4, parked = 400;

static struct asked {
    script kind;
    uint64_t depth;
    uint64_t threads;
    uint64_t rounds;
    uint64_t before; /* ticks that are not counted: then who waits is parked */
} asked;

static void print_counts(const char *name, const counts *from) {
    printf(",\n\"%s\": {\"process_vm_writev\": %" PRIu64 ", \"pread\": %" PRIu64 ", \"clock_gettime\": %" PRIu64
           ", \"rt_tgsigqueueinfo\": %" PRIu64 ", \"futex\": %" PRIu64 ", \"open, read, close\": %" PRIu64
           ", \"others\": %" PRIu64 "},\n\"%s_times\": %" PRIu64,
           name, from->process_vm_writev, from->pread, from->clock_gettime, from->signals, from->futex, from->files,
           from->others, name, from->times);
}

/* That what was counted is what was to be counted. */
static void check_ticks(const pyprof__sampler *sampler, const pyprof_stats *before) {
    const pyprof_stats *after = &sampler->stats;
    uint64_t expected = asked.rounds * asked.threads;
    uint64_t waited = asked.kind == WAITS ? expected : asked.kind == OWN ? expected - asked.rounds : 0;
    const pyprof__thread *thread = &PYPROF__ITEM(const pyprof__thread, &sampler->threads, 0);
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        const pyprof__thread *item = &PYPROF__ITEM(const pyprof__thread, &sampler->threads, i);
        thread = item->tid == main_tid ? item : thread;
    }
    check(thread->frames.count == asked.depth, "the stack is not as deep as asked");
    check(after->samples - before->samples == expected, "samples were lost");
    check(asked.kind == OUTSIDE || after->samples_idle - before->samples_idle == waited,
          "other threads wait than those that should");
    check(after->samples_signalled - before->samples_signalled == (asked.kind == OWN ? asked.rounds : 0),
          "other threads were asked than those that should");
    check(after->samples_partial == 0 && after->frames_unresolved == 0, "stacks were not read whole");
}

static PyObject *measure_ticks(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyThreadState *state = asked.kind == OWN ? NULL : PyEval_SaveThread();
    pyprof__sampler *sampler = start_by_hand(OUTSIDE);
    for (uint64_t i = 0; i < asked.before; i++) { /* then every name is known, and every buffer there */
        clocks = i < 3 ? OUTSIDE : asked.kind;
        tick++;
        pyprof__tick(sampler);
    }
    bool has_parked = sampler->waiting.members.count == asked.threads - 1;
    check(asked.before == unparked || asked.threads < 9 || has_parked, "who waits is not parked");
    pyprof_stats before = sampler->stats;
    memset(&sampler_counts, 0, sizeof sampler_counts);
    memset(&handler_counts, 0, sizeof handler_counts);
    growth_ticks(sampler, asked.rounds);
    counts of_sampler = sampler_counts, of_handler = handler_counts;
    check_ticks(sampler, &before);
    printf("{\"ticks\": %" PRIu64 ", \"samples\": %" PRIu64 ", \"bytes\": %zu", asked.rounds,
           asked.rounds * asked.threads, sampler->memory->used);
    print_counts("sampler", &of_sampler);
    print_counts("handler", &of_handler);
    printf("}\n");
    if (state != NULL) {
        PyEval_RestoreThread(state);
    }
    Py_RETURN_NONE;
}

static script parse_script(const char *word) {
    check(!strcmp(word, "waits") || !strcmp(word, "outside") || !strcmp(word, "own") || !strcmp(word, "parked"),
          "no such kind");
    return word[0] == 'w' ? WAITS : word[1] == 'u' ? OUTSIDE : OWN;
}

static void growth_of_ticks(char **words) {
    static PyMethodDef method = {"measure", measure_ticks, METH_NOARGS, NULL};
    unsigned long functions = strtoul(words[2], NULL, 10);
    asked.kind = parse_script(words[0]);
    asked.before = words[0][0] == 'p' ? parked : unparked;
    asked.depth = strtoul(words[1], NULL, 10);
    asked.threads = strtoul(words[3], NULL, 10);
    asked.rounds = strtoul(words[4], NULL, 10);
    check(asked.depth >= 2 && asked.threads >= 1 && functions >= 1, "nothing to sample");
    start_python(&method);
    if (asked.threads > 1) {
        start_threads((unsigned long)asked.threads - 1);
    }
    run("functions.clear()\nmake(%lu)\n", functions);
    run("functions[0](%lu, measure)\n", (unsigned long)asked.depth - 2);
}

/* growth start */

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t median(uint64_t *values, size_t count) {
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

static void growth_of_start(char **words) {
    enum {
        most = 1000
    };
    static uint64_t start[most], stop[most];
    unsigned long threads = strtoul(words[0], NULL, 10), rounds = strtoul(words[1], NULL, 10);
    check(threads >= 1 && rounds >= 1 && rounds <= most, "no rounds");
    start_python(NULL);
    start_threads(threads - 1);
    PyThreadState *state = PyEval_SaveThread();
    pyprof_stats stats;
    counts of_start;
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 10000000; /* so that the first tick is the only one */
    for (unsigned long i = 0; i < rounds; i++) {
        memset(&sampler_counts, 0, sizeof sampler_counts);
        uint64_t begin = pyprof__now();
        check(pyprof_start(&desc) == PYPROF_OK, "pyprof_start failed");
        uint64_t begun = pyprof__now();
        of_start = sampler_counts;
        check(pyprof_get_stats(&stats) == PYPROF_OK, "no stats");
        uint64_t end = pyprof__now();
        check(pyprof_stop(NULL) == PYPROF_OK, "pyprof_stop failed");
        stop[i] = pyprof__now() - end;
        start[i] = begun - begin;
        check(stats.threads == threads, "threads were not seen");
    }
    PyEval_RestoreThread(state);
    printf("{\"python\": \"%s\", \"start_ns\": %" PRIu64 ", \"stop_ns\": %" PRIu64 ", \"bytes\": %" PRIu64
           ", \"bytes_peak\": %" PRIu64 ", \"static_bytes\": %zu, \"sampler_bytes\": %zu",
           PY_VERSION, median(start, rounds), median(stop, rounds), stats.bytes, stats.bytes_peak,
           sizeof pyprof__handler, sizeof(pyprof__sampler));
    print_counts("start", &of_start);
    printf("}\n");
}

/* growth stacks */

static pyprof__sampler *visiting;

static PyObject *visit_once(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    if (visiting == NULL) {
        visiting = start_by_hand(OUTSIDE); /* a thread with the GIL that waits is read from outside, too */
    }
    growth_ticks(visiting, 1);
    Py_RETURN_NONE;
}

static size_t bytes_of_array(const pyprof__array *array) {
    return array->capacity * array->item_size;
}

static size_t bytes_of_table(const pyprof__table *table) {
    return bytes_of_array(&table->items) + table->slot_count * sizeof *table->slots;
}

static void growth_of_stacks(char **words) {
    static PyMethodDef method = {"visit_once", visit_once, METH_NOARGS, NULL};
    unsigned long count = strtoul(words[0], NULL, 10);
    check(count >= 1 && count <= 10000000, "no stacks");
    start_python(&method);
    run("visit(%lu, visit_once)\n", count);
    const pyprof_profile *profile = visiting->profile;
    uint64_t stacks = 0;
    for (uint32_t i = 0; i < profile->nodes.items.count; i++) {
        stacks += pyprof__node_at(profile, i)->samples > 0;
    }
    check(stacks == count && visiting->stats.samples == count, "stacks were lost");
    check(visiting->stats.truncated_memory == 0, "the tree is full");
    printf("{\"stacks\": %" PRIu64 ", \"nodes\": %" PRIu32 ", \"stretches\": %" PRIu32
           ", \"bytes\": %zu, \"bytes_peak\": %zu, \"tree_bytes\": %zu, \"timeline_bytes\": %zu, "
           "\"node_size\": %zu, \"stretch_size\": %zu, \"coarsened\": %" PRIu64 "}\n",
           stacks, profile->nodes.items.count, profile->timeline.count, visiting->memory->used, visiting->memory->peak,
           bytes_of_table(&profile->nodes), bytes_of_array(&profile->timeline), sizeof(pyprof__node),
           sizeof(pyprof__span), profile->timeline_coarsened);
}

/* growth write */

static uint32_t made_function(pyprof_profile *profile, unsigned number) {
    char name[64], file[64];
    snprintf(name, sizeof name, "Class%u.method_%u", number / 10, number);
    snprintf(file, sizeof file, "/no/such/package/module_%u.py", number / 10);
    return pyprof__intern_function(profile, pyprof__intern_text(profile, name, strlen(name)),
                                   pyprof__intern_text(profile, file, strlen(file)), (int32_t)number + 1);
}

/* Ten deep: one path for each number below 10,000,000, like the digits of it. */
static uint32_t made_stack(pyprof_profile *profile, uint32_t node, unsigned long number) {
    unsigned long unit = 1000000000;
    for (unsigned depth = 0; depth < 10 && node != PYPROF__NONE; depth++, unit /= 10) {
        unsigned function = depth * 10 + (unsigned)(number / unit % 10);
        node = pyprof__child(profile, node, made_function(profile, function), (int32_t)function + 7);
    }
    check(node != PYPROF__NONE, "the tree is full");
    return node;
}

/* Half of the samples are the first thread's; each differs from the one before, as pyprof__share_time has it. */
static void fill(pyprof_profile *profile, uint32_t threads, uint32_t stacks, uint64_t samples) {
    uint32_t *nodes = (uint32_t *)malloc(stacks * sizeof *nodes);
    check(nodes != NULL && threads >= 1 && stacks >= 2 * threads, "too few stacks");
    for (uint32_t i = 0; i < stacks; i++) {
        char name[32];
        if (i < threads) {
            snprintf(name, sizeof name, "thread-%u", (unsigned)i);
            check(pyprof__add_track(profile, 0, pyprof__intern_text(profile, name, strlen(name))) == i,
                  "no room for a thread");
        }
        nodes[i] = made_stack(profile, pyprof__track_at(profile, i % threads)->root, i / threads);
    }
    uint32_t turns = stacks / threads;
    for (uint64_t i = 0; i < samples; i++) {
        uint32_t track = i % 2 == 0 ? 0 : (uint32_t)(i / 2 % threads);
        uint64_t turn = i % 2 == 0 ? i / 2 : i / 2 / threads + turns / 2;
        uint32_t stack = (uint32_t)(turn % turns) * threads + track;
        pyprof__add_time(profile, track, nodes[stack], PYPROF__GIL, interval, interval);
        pyprof__count_samples(profile, track, nodes[stack], PYPROF__GIL, 1);
    }
    for (uint32_t i = 0; i < threads; i++) {
        uint64_t end = pyprof__track_at(profile, i)->end_ns;
        profile->duration_ns = end > profile->duration_ns ? end : profile->duration_ns;
    }
    free(nodes);
}

static void growth_of_writing(char **words) {
    enum {
        rounds = 3
    };
    static const char *const names[] = {"", "collapsed", "speedscope"};
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    pyprof__apply_defaults(&desc);
    pyprof__sampler *sampler = pyprof__sampler_new(&desc);
    check(sampler != NULL, "no memory");
    pyprof_profile *profile = sampler->profile;
    fill(profile, (uint32_t)strtoul(words[0], NULL, 10), (uint32_t)strtoul(words[1], NULL, 10),
         strtoull(words[2], NULL, 10));
    printf("{\"stretches\": %" PRIu32 ", \"coarsened\": %" PRIu64, profile->timeline.count,
           profile->timeline_coarsened);
    for (int format = PYPROF_FORMAT_COLLAPSED; format <= PYPROF_FORMAT_SPEEDSCOPE; format++) {
        uint64_t times[rounds];
        size_t bytes = 0;
        for (size_t i = 0; i < rounds; i++) {
            pyprof_output output;
            memset(&output, 0, sizeof output);
            output.format = (pyprof_format)format;
            bytes = 0;
            uint64_t begin = pyprof__now();
            check(pyprof_write(profile, &output, count_written, &bytes) == PYPROF_OK, "not written");
            times[i] = pyprof__now() - begin;
        }
        printf(",\n\"%s_ns\": %" PRIu64 ", \"%s_bytes\": %zu", names[format], median(times, rounds), names[format],
               bytes);
    }
    printf("}\n");
}

/* The threads that wait do so for ever: the program ends around them. */
int main(int count, char **words) {
    const char *command = count > 1 ? words[1] : "";
    if (!strcmp(command, "ticks") && count == 7) {
        growth_of_ticks(words + 2);
    } else if (!strcmp(command, "start") && count == 4) {
        growth_of_start(words + 2);
    } else if (!strcmp(command, "stacks") && count == 3) {
        growth_of_stacks(words + 2);
    } else if (!strcmp(command, "write") && count == 5) {
        growth_of_writing(words + 2);
    } else {
        die("see the head of growth.c");
    }
    fflush(stdout);
    _exit(0);
}
