/* A host of CPython that leaves work to child processes, as servers do:
 *
 *     workers (run CODE | fork CODE)... [execute PROGRAM ARGS...]
 *
 * CPython begins with the first code that a process runs, be it a forked child, and is told nothing of forks.
 */
#include <Python.h>

#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int run(const char *code) {
    if (!Py_IsInitialized()) {
        Py_InitializeEx(0);
    }
    return PyRun_SimpleString(code) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int wait_for(pid_t child) {
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static int do_in_child(const char *code) {
    pid_t child = fork();
    if (child == 0) {
        exit(run(code));
    }
    return wait_for(child);
}

static int execute(char **arguments) {
    pid_t child = 0;
    return posix_spawn(&child, arguments[0], NULL, NULL, arguments, environ) == 0 ? wait_for(child) : -1;
}

int main(int argc, char **argv) {
    int status = 0;
    for (int i = 1; i + 1 < argc && status == 0; i += 2) {
        if (strcmp(argv[i], "execute") == 0) {
            return execute(argv + i + 1) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
        }
        status = strcmp(argv[i], "fork") == 0 ? do_in_child(argv[i + 1]) : run(argv[i + 1]);
    }
    return status == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
