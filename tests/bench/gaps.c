/* bench_gaps [ROUNDS]: for how long a thread is kept from its work by what asks it 1,000 times a second. The thread does
   nothing but read the clock, within a C function that Python calls; two readings more than a microsecond apart are a
   gap, in which something else ran there. A row is what is lost in a millisecond, the median of ROUNDS (15) stretches of
   0.5 s, taken in turns, and the quartiles:
     nothing     what the machine takes by itself
     signal      a thread sends it a signal, whose handler does nothing
     sleep       a thread that shares its core sleeps until the next millisecond, and does nothing
     recorded    a recording that asks by a signal
     held        a recording with PYPROF_CAPTURE_HELD
   Gaps of more than 0.3 ms are other programs', and left out. */
#define _GNU_SOURCE
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"
#include <sched.h>

enum {
    STRETCH_NS = 500000000,
    TURN_NS = 20000000,
    GAP_NS = 1000,
    FOREIGN_NS = 300000
};

enum mode {
    NOTHING,
    SIGNAL,
    SLEEP,
    RECORDED,
    HELD,
    MODES
};
static const char *const names[MODES] = {"nothing", "signal", "sleep", "recorded", "held"};

static uint64_t lost_ns, worked_ns;
static pthread_t worker;
static int worker_core;
static pyprof__atomic32 goes_on;
static enum mode mode;

static void do_nothing(int number) {
    (void)number;
}

/* Reads the clock for a while. */
static PyObject *spin(PyObject *self, PyObject *arguments) {
    (void)self, (void)arguments;
    uint64_t end = pyprof__clock(CLOCK_MONOTONIC) + TURN_NS, before = end - TURN_NS;
    while (before < end) {
        uint64_t now = pyprof__clock(CLOCK_MONOTONIC), gap = now - before;
        before = now;
        if (gap <= FOREIGN_NS) {
            worked_ns += gap;
            lost_ns += gap > GAP_NS ? gap : 0;
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef spin_method = {"spin", spin, METH_NOARGS, NULL};

static void run_on(int core) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET((size_t)core, &cores);
    pthread_setaffinity_np(pthread_self(), sizeof cores, &cores);
}

/* A thread that wakes each millisecond. */
static void *wake(void *unused) {
    struct timespec next;
    if (mode == SLEEP) {
        run_on(worker_core);
    }
    clock_gettime(CLOCK_MONOTONIC, &next);
    while (pyprof__get(&goes_on)) {
        next.tv_nsec += 1000000;
        next.tv_sec += next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        if (mode == SIGNAL) {
            pthread_kill(worker, SIGUSR2);
        }
    }
    return unused;
}

static void need(bool is_right, const char *message) {
    if (!is_right) {
        fprintf(stderr, "bench_gaps: %s\n", message);
        exit(1);
    }
}

static void spin_for(PyObject *work) {
    lost_ns = worked_ns = 0;
    while (worked_ns < STRETCH_NS) {
        PyObject *result = PyObject_CallObject(work, NULL);
        need(result != NULL, "work failed");
        Py_DECREF(result);
    }
}

/* Microseconds that are lost in a millisecond of a stretch. */
static double stretch(PyObject *work) {
    pthread_t waker;
    cpu_set_t cores;
    pyprof_profile *profile = NULL;
    bool records = mode == RECORDED || mode == HELD, has_waker = mode == SIGNAL || mode == SLEEP;
    pthread_getaffinity_np(pthread_self(), sizeof cores, &cores);
    if (mode == SLEEP) {
        worker_core = sched_getcpu();
        run_on(worker_core);
    }
    if (records) {
        pyprof_desc desc;
        memset(&desc, 0, sizeof desc);
        desc.interval_us = 1000;
        desc.capture = mode == HELD ? PYPROF_CAPTURE_HELD : PYPROF_CAPTURE_DEFAULT;
        need(pyprof_start(&desc) == PYPROF_OK, pyprof_last_error());
    }
    pyprof__set(&goes_on, 1);
    need(!has_waker || pthread_create(&waker, NULL, wake, NULL) == 0, "no thread");
    spin_for(work);
    pyprof__set(&goes_on, 0);
    if (has_waker) {
        pthread_join(waker, NULL);
    }
    need(!records || pyprof_stop(&profile) == PYPROF_OK, pyprof_last_error());
    pyprof_free(profile);
    pthread_setaffinity_np(pthread_self(), sizeof cores, &cores);
    return 1000.0 * (double)lost_ns / (double)worked_ns;
}

static int by_value(const void *left, const void *right) {
    double difference = *(const double *)left - *(const double *)right;
    return difference < 0 ? -1 : difference > 0;
}

int main(int argc, char **argv) {
    enum {
        MOST = 1000
    };
    static double values[MODES][MOST];
    int rounds = argc > 1 ? atoi(argv[1]) : 15;
    need(argc <= 2 && rounds > 0 && rounds <= MOST, "usage: bench_gaps [ROUNDS], 1 to 1000");
    worker = pthread_self();
    signal(SIGUSR2, do_nothing);
    Py_Initialize();
    PyObject *main_module = PyImport_AddModule("__main__"), *function = PyCFunction_New(&spin_method, NULL);
    need(function != NULL && PyObject_SetAttrString(main_module, "spin", function) == 0, "no function");
    need(PyRun_SimpleString("def work(): spin()\n") == 0, "no work");
    PyObject *work = PyObject_GetAttrString(main_module, "work");
    for (int i = 0; i < rounds; i++) {
        for (int each = 0; each < MODES; each++) {
            mode = (enum mode)each;
            values[each][i] = stretch(work);
        }
    }
    printf("%-10s %10s   half of them    above nothing\n", "", "us in a ms");
    for (int each = 0; each < MODES; each++) {
        qsort(values[each], (size_t)rounds, sizeof values[each][0], by_value);
        double median = values[each][rounds / 2];
        printf("%-10s %10.2f   %5.2f to %5.2f   %6.2f\n", names[each], median, values[each][rounds / 4],
               values[each][3 * rounds / 4], median - values[NOTHING][rounds / 2]);
    }
    Py_DECREF(function);
    Py_DECREF(work);
    return Py_FinalizeEx() == 0 ? 0 : 1;
}
