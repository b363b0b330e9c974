/* System calls that are refused, one at a time, as containers and sandboxes do: nothing crashes or hangs, no stack is wrong,
   and what cannot be done is said.

       refused [CALL...]

   Each case is a forked child, in which a seccomp filter answers one call with EPERM or ENOSYS, for all threads, from
   before the recording on or from its midst; with no CALL those of all calls are gone through. "others" is a case, too: all
   calls but those that are listed here end it, so that the list is whole. Each case prints "case CALL ERROR MOMENT
   CAPTURE", what came of it, line by line, and "end" with how the child ended. test_refused.py judges. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "../common/prefer.h"

#include <Python.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#if !defined(SECCOMP_SET_MODE_FILTER) || !defined(SECCOMP_FILTER_FLAG_TSYNC)
#error "the kernel's headers are older than 3.17"
#endif

typedef struct call {
    const char *name;
    long number;
} call;

#define CALL(name)                                                                                                     \
    { #name, SYS_##name }

/* What the library calls, itself or by the C library. */
static const call calls[] = {
    CALL(accept4),
    CALL(bind),
#if defined(SYS_chmod)
    CALL(chmod),
#endif
    CALL(clock_getres),
    CALL(clock_gettime),
    CALL(clock_nanosleep),
    CALL(clone),
#if defined(SYS_clone3)
    CALL(clone3),
#endif
    CALL(close),
    CALL(connect),
    CALL(fchmod),
    CALL(fchmodat),
    CALL(fcntl),
    CALL(flock),
    CALL(fstat),
    CALL(fsync),
    CALL(getcpu),
    CALL(getdents64),
    CALL(geteuid),
    CALL(getpid),
    CALL(getsockopt),
    CALL(gettid),
    CALL(getuid),
    CALL(listen),
    CALL(lseek),
#if defined(SYS_lstat)
    CALL(lstat),
#endif
    CALL(madvise),
#if defined(SYS_mkdir)
    CALL(mkdir),
#endif
    CALL(mkdirat),
    CALL(mmap),
    CALL(mprotect),
    CALL(munmap),
    CALL(nanosleep),
    CALL(newfstatat),
#if defined(SYS_open)
    CALL(open),
#endif
    CALL(openat),
#if defined(SYS_poll)
    CALL(poll),
#endif
    CALL(ppoll),
    CALL(prctl),
    CALL(pread64),
    CALL(process_vm_writev),
    CALL(read),
#if defined(SYS_readlink)
    CALL(readlink),
#endif
    CALL(readlinkat),
#if defined(SYS_rename)
    CALL(rename),
#endif
    CALL(renameat),
    CALL(rt_sigaction),
    CALL(rt_sigpending),
    CALL(rt_sigprocmask),
    CALL(rt_sigtimedwait),
    CALL(rt_tgsigqueueinfo),
    CALL(sched_getaffinity),
#if defined(SYS_sched_getattr)
    CALL(sched_getattr),
    CALL(sched_setattr),
#endif
    CALL(sched_getparam),
    CALL(sched_getscheduler),
    CALL(sched_setaffinity),
    CALL(set_robust_list),
    CALL(shutdown),
    CALL(socket),
#if defined(SYS_stat)
    CALL(stat),
#endif
    CALL(tgkill),
    CALL(timer_create),
    CALL(timer_delete),
    CALL(timer_settime),
    CALL(uname),
#if defined(SYS_unlink)
    CALL(unlink),
#endif
    CALL(unlinkat),
};

/* Without these no thread begins, waits, ends or says anything, whoever made it: the C library ends a program to which a
   futex or an rseq is refused. The last three are this program's own. */
static const call vital[] = {
    CALL(brk),   CALL(exit),    CALL(exit_group),         CALL(futex), CALL(rt_sigreturn), CALL(restart_syscall),
#if defined(SYS_rseq)
    CALL(rseq),
#endif
    CALL(write), CALL(seccomp), CALL(sched_setscheduler),
};

enum {
    CALLS = sizeof calls / sizeof *calls,
    VITAL = sizeof vital / sizeof *vital
};

/* Output: by write alone. */

static void put(const char *text) {
    size_t size = strlen(text);
    for (ssize_t done = 0; size > 0; text += done, size -= (size_t)done) {
        done = write(STDOUT_FILENO, text, size);
        if (done < 0) {
            _exit(4);
        }
    }
}

#define PUT(...)                                                                                                       \
    do {                                                                                                               \
        char put_text[1024];                                                                                           \
        snprintf(put_text, sizeof put_text, __VA_ARGS__);                                                              \
        put(put_text);                                                                                                 \
    } while (0)

static void log_it(pyprof_log_level level, const char *message, void *user) {
    (void)user;
    PUT("log %d %s\n", (int)level, message);
}

static bool put_data(void *user, const void *data, size_t size) {
    (void)user;
    return write(STDOUT_FILENO, data, size) == (ssize_t)size;
}

/* The filter, for all threads of this process. */

static void install(struct sock_filter *code, size_t count) {
    struct sock_fprog program = {(unsigned short)count, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
        PUT("no filter: %s\n", strerror(errno));
        _exit(5);
    }
}

static void refuse(long number, int error) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    install(code, sizeof code / sizeof *code);
}

static void on_other(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    PUT("not listed: %d\n", info->si_syscall);
    _exit(6);
}

static void refuse_others(void) {
    struct sock_filter code[1 + 2 * (CALLS + VITAL) + 1];
    size_t count = 0;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_other;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSYS, &action, NULL);
    code[count++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < CALLS + VITAL; i++) {
        const call *listed = i < CALLS ? &calls[i] : &vital[i - CALLS];
        code[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)listed->number, 0, 1);
        code[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    install(code, count);
}

/* A case. */

typedef struct play {
    const call *refused; /* NULL: the others */
    int error;
    bool is_amid; /* refused amid the recording, else before it */
    pyprof_capture capture;
} play;

static void refuse_as(const play *this) {
    if (this->refused != NULL) {
        refuse(this->refused->number, this->error);
    } else {
        refuse_others();
    }
}

static uint64_t milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* While Python computes it calls this, so that at each tick there is a stack of this thread. What is to be refused amid the
   recording is refused at the 20th tick, and the 60th is the last; two seconds are, as ticks may not come at all. */
static struct {
    const play *this;
    pyprof_stats first, last;
    uint64_t end;
} work;

static PyObject *goes_on(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    (void)pyprof_get_stats(&work.last);
    if (work.end == 0) {
        work.first = work.last;
        work.end = milliseconds() + 2000;
    }
    if (work.this != NULL && work.this->is_amid && work.last.ticks > work.first.ticks + 20) {
        refuse_as(work.this);
        work.this = NULL;
    }
    return PyBool_FromLong(work.last.ticks < work.first.ticks + 60 && milliseconds() < work.end);
}

#define PUT_STAT(name) PUT("stat " #name " %llu\n", (unsigned long long)stats.name)

static uint64_t counted(const pyprof_stats *stats) {
    return stats->samples + stats->lost_late + stats->lost_pending + stats->lost_unsettled + stats->lost_unreadable +
           stats->lost_memory;
}

static void put_stats(void) {
    const pyprof_stats stats = work.last, first = work.first;
    PUT("stat uncounted %lld\n",
        (long long)(2 * (stats.ticks - first.ticks) - (counted(&stats) - counted(&first)))); /* of two threads */
    PUT_STAT(ticks);
    PUT_STAT(ticks_missed);
    PUT_STAT(samples);
    PUT_STAT(samples_idle);
    PUT_STAT(samples_signalled);
    PUT_STAT(samples_held);
    PUT_STAT(samples_partial);
    PUT_STAT(samples_unasked);
    PUT_STAT(holds_failed);
    PUT_STAT(lost_late);
    PUT_STAT(lost_pending);
    PUT_STAT(lost_unsettled);
    PUT_STAT(lost_unreadable);
    PUT_STAT(lost_memory);
}

/* What was done, how it ended, and if not well, why. */
static void put_result(const char *what, pyprof_result result) {
    PUT("result %s %d %s\n", what, (int)result, result != PYPROF_OK ? pyprof_last_error() : "");
}

static bool drop(void *user, const void *data, size_t size) {
    (void)user;
    (void)data;
    (void)size;
    return true;
}

static void use_all(void) {
    pyprof_profile *copy = NULL;
    put_result("listen", pyprof_listen(NULL));
    put_result("dump", pyprof_dump(drop, NULL));
    put_result("snapshot", pyprof_snapshot(&copy));
    put_result("save", copy != NULL ? pyprof_save(copy, NULL, "saved.collapsed") : PYPROF_OK);
    pyprof_free(copy);
    pyprof_unlisten();
}

static void record(const play *this) {
    pyprof_output output;
    pyprof_desc desc;
    pyprof_profile *profile = NULL;
    memset(&output, 0, sizeof output);
    memset(&desc, 0, sizeof desc);
    desc.interval_us = 1000;
    desc.capture = this->capture;
    desc.logger.log_fn = log_it;
    desc.memory_limit = 4 << 20;
    if (!this->is_amid) {
        refuse_as(this);
    }
    pyprof_result started = pyprof_start(&desc);
    put_result("start", started);
    if (started == PYPROF_OK) {
        const struct sched_param first = {.sched_priority = 2};
        (void)sched_setscheduler(pyprof__process.active->tid, SCHED_FIFO, &first);
        work.this = this;
        PyRun_SimpleString("compute()\n");
        put_stats();
        use_all();
        put_result("stop", pyprof_stop(&profile));
        output.metric = PYPROF_METRIC_SAMPLES;
        output.detail = PYPROF_DETAIL_FUNCTION;
        output.include_idle = true;
        put("stacks\n");
        (void)pyprof_write(profile, &output, put_data, NULL);
        pyprof_free(profile);
    }
    PUT("host %d\n", PyRun_SimpleString("work(10)\n"));
}

static void begin_child(const play *this) {
    PyOS_AfterFork_Child();
    PyRun_SimpleString("import _thread\n"
                       "_thread.start_new_thread(waits, ())\n"
                       "while not waiting: work(1)\n");
    record(this);
    _exit(0);
}

/* Runs one, and waits for its end; what takes half a minute hangs. */
static void run(const play *this) {
    int status = 0;
    PUT("case %s %s %s %s\n", this->refused != NULL ? this->refused->name : "others",
        this->error == EPERM ? "EPERM" : "ENOSYS", this->is_amid ? "amid" : "before",
        this->capture == PYPROF_CAPTURE_HELD ? "held" : "asked");
    PyOS_BeforeFork();
    pid_t child = fork();
    if (child == 0) {
        begin_child(this);
    }
    PyOS_AfterFork_Parent();
    uint64_t end = milliseconds() + 30000;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (milliseconds() > end) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            put("\nend hangs\n");
            return;
        }
        usleep(2000);
    }
    PUT("\nend %s %d\n", WIFSIGNALED(status) ? "signal" : "code",
        WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

/* Both moments with both captures; and both errors with each of these, or where all calls are gone through by turns. */
static void run_all(const call *refused, bool is_whole) {
    const pyprof_capture captures[] = {PYPROF_CAPTURE_DEFAULT, PYPROF_CAPTURE_HELD};
    const int errors[] = {EPERM, ENOSYS};
    for (int i = 0; i < (is_whole ? 8 : 4); i++) {
        bool is_amid = (i >> 1 & 1) != 0, is_held = (i & 1) != 0;
        const play this = {refused, errors[i >> 2 ^ is_amid ^ is_held], is_amid, captures[is_held]};
        run(&this);
    }
}

static bool is_wanted(const char *name, int argc, char **argv) {
    bool is_named = argc < 2;
    for (int i = 1; i < argc; i++) {
        is_named = is_named || strcmp(argv[i], name) == 0;
    }
    return is_named;
}

int main(int argc, char **argv) {
    come_first(); /* else the sampler may always share a core with who computes, and need neither ask nor hold */
    Py_InitializeEx(0);
    PyRun_SimpleString("import _thread\n"
                       "waiting = []\n"
                       "def waits():\n"
                       "    lock = _thread.allocate_lock()\n"
                       "    lock.acquire()\n"
                       "    waiting.append(True)\n"
                       "    lock.acquire()\n"
                       "def leaf(n):\n"
                       "    for i in range(n): pass\n"
                       "def left(n): leaf(n)\n"
                       "def right(n):\n"
                       "    leaf(n)\n"
                       "    left(n)\n"
                       "def work(n):\n"
                       "    for i in range(n):\n"
                       "        left(50)\n"
                       "        right(50)\n"
                       "def compute():\n"
                       "    while goes_on(): work(20)\n");
    static PyMethodDef method = {"goes_on", goes_on, METH_NOARGS, NULL};
    PyObject *function = PyCFunction_New(&method, NULL);
    PyDict_SetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "goes_on", function);
    Py_DECREF(function);
    for (size_t i = 0; i < CALLS; i++) {
        if (is_wanted(calls[i].name, argc, argv)) {
            run_all(&calls[i], argc > 1);
        }
    }
    if (is_wanted("others", argc, argv)) {
        run_all(NULL, false);
    }
    return 0;
}
