/* A program without CPython that tells what libc's functions do that libpyprof defines, too. What it prints and how it ends
   is the same with the library preloaded. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t heard;

static void hear(int number) {
    heard = number;
}

static void tell_action(const char *when, int number) {
    struct sigaction action;
    (void)sigaction(number, NULL, &action);
    (void)printf("%s: %d %s %x\n", when, number,
                 action.sa_handler == SIG_DFL ? "default"
                 : action.sa_handler == hear  ? "ours"
                                              : "other",
                 (unsigned)action.sa_flags & ~0x04000000u); /* SA_RESTORER */
}

static void tell_signals(void) {
    tell_action("at first", SIGTERM);
    (void)printf("signal: %d\n", signal(SIGUSR1, hear) == SIG_DFL);
    tell_action("by signal", SIGUSR1);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    (void)siginterrupt(SIGUSR2, 1);
#pragma GCC diagnostic pop
    (void)signal(SIGUSR2, hear);
    tell_action("interrupting", SIGUSR2);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    (void)printf("sigset: %d", sigset(SIGHUP, hear) == SIG_DFL);
    (void)printf(" %d", sigset(SIGHUP, SIG_HOLD) == hear);
    (void)printf(" %d", sigset(SIGHUP, SIG_IGN) == SIG_HOLD);
    (void)printf(" %d\n", sigset(SIGHUP, SIG_DFL) == SIG_IGN);
    (void)printf("sigignore: %d\n", sigignore(SIGHUP));
    tell_action("ignored", SIGHUP);
#pragma GCC diagnostic pop
    (void)printf("wrong: %d %d\n", signal(SIGKILL, hear) == SIG_ERR, errno);
    (void)raise(SIGUSR1);
    (void)printf("raise: %d\n", (int)heard);
    (void)kill(getpid(), SIGUSR2);
    (void)printf("kill: %d\n", (int)heard);
    (void)pthread_kill(pthread_self(), SIGUSR1);
    (void)printf("pthread_kill: %d\n", (int)heard);
    (void)printf("nobody: %d %d\n", kill(getpid(), -1), errno);
    stack_t stack;
    (void)sigaltstack(NULL, &stack);
    (void)printf("sigaltstack: %d\n", stack.ss_flags);
}

static void *run(void *argument) {
    return argument;
}

static void tell_threads(void) {
    pthread_t thread;
    void *result = NULL;
    pthread_condattr_t attributes;
    (void)pthread_create(&thread, NULL, run, &result);
    (void)pthread_join(thread, &result);
    (void)pthread_condattr_init(&attributes);
    (void)printf("threads: %d %d\n", result == &result, pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC));
    char text[1024] = "";
    FILE *file = fopen("/proc/self/stat", "r");
    const char *place = file != NULL && fgets(text, sizeof text, file) != NULL ? strrchr(text, ')') : NULL;
    for (int field = 2; place != NULL && field < 20; field++) {
        place = strchr(place + 1, ' ');
    }
    (void)printf("number of threads: %ld\n", place != NULL ? strtol(place, NULL, 10) : -1);
    (void)fclose(file);
    (void)printf("no file: %d %d\n", fopen("/no/file", "r") == NULL, errno);
}

/* How a child ends that does this. */
static void tell_end(const char *what, void (*end)(void)) {
    int status = 0;
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        end();
    }
    (void)waitpid(child, &status, 0);
    (void)printf("%s: %x\n", what, (unsigned)status);
}

static void end_by_exit(void) {
    exit(5);
}

static void end_by_exit_at_once(void) {
    _exit(6);
}

static void end_by_quick_exit(void) {
    quick_exit(7);
}

static void end_by_signal(void) {
    (void)raise(SIGTERM);
}

static void end_by_kill(void) {
    (void)killpg(0, 0);
    (void)kill(getpid(), SIGKILL);
}

static void end_by_exec(void) {
    (void)execl("/no/program", "program", (char *)NULL);
    (void)execlp("sh", "sh", "-c", "exit 8", (char *)NULL);
}

static void end_by_abort(void) {
    abort();
}

int main(void) {
    tell_signals();
    tell_threads();
    tell_end("exit", end_by_exit);
    tell_end("_exit", end_by_exit_at_once);
    tell_end("quick_exit", end_by_quick_exit);
    tell_end("signal", end_by_signal);
    tell_end("kill", end_by_kill);
    tell_end("exec", end_by_exec);
    tell_end("abort", end_by_abort);
    return 9;
}
