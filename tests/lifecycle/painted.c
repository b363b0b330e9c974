/* How much of an alternate signal stack the handler takes: it is painted, and at the end it is seen how far the paint
   is gone. Includes the frame that the kernel makes. Prints the signals that came, and bytes for the kernel and in all. */
#define PYPROF_NO_HEAP /* what the handler does not call would be compiled ten times for nothing */
#define PYPROF_NO_LISTEN
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

enum {
    size = 65536,
    paint = 0xa5
};

static unsigned char stack[size];
static uintptr_t highest_entry;

/* Where a handler of nothing begins: below what the kernel makes. */
static void enter(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)info;
    (void)context;
    highest_entry = (uintptr_t)__builtin_frame_address(0);
}

int main(void) {
    stack_t alternate;
    pyprof_desc desc;
    pyprof_stats stats;
    struct sigaction action;
    memset(&alternate, 0, sizeof alternate);
    memset(&desc, 0, sizeof desc);
    memset(&stats, 0, sizeof stats);
    memset(&action, 0, sizeof action);
    alternate.ss_sp = stack;
    alternate.ss_size = size;
    action.sa_sigaction = enter;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    Py_InitializeEx(0); /* 3.8 takes an alternate stack of its own for faulthandler, used or not */
    if (sigaltstack(&alternate, NULL) != 0 || sigaction(SIGUSR1, &action, NULL) != 0 || raise(SIGUSR1) != 0) {
        return 1;
    }
    memset(stack, paint, sizeof stack);
    desc.interval_us = 200;
    PyRun_SimpleString("def work(n):\n"
                       "    if n: return work(n - 1)\n"
                       "    for k in range(20000): k * k\n");
    if (pyprof_start(&desc) != PYPROF_OK) {
        return 1;
    }
    while (stats.samples_signalled < 20) {
        PyRun_SimpleString("work(30)");
        pyprof_get_stats(&stats);
    }
    pyprof_stop(NULL);
    size_t low = 0;
    while (stack[low] == paint) {
        low++;
    }
    uintptr_t top = (uintptr_t)stack + size;
    printf("%llu %llu %llu\n", (unsigned long long)stats.samples_signalled, (unsigned long long)(top - highest_entry),
           (unsigned long long)(size - low));
    return Py_FinalizeEx();
}
