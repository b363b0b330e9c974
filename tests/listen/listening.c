/* A host that listens: runs a script, which calls the profiler by ctypes, in one CPython after the other.

     listening [TIMES] SCRIPT ARGS...

   Between two of them it says "without Python", and waits for a line. */
#include "host.h"

static int run_script(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return 2;
    }
    int failed = PyRun_SimpleFile(file, path);
    fclose(file);
    return failed != 0;
}

int main(int argc, char **argv) {
    int times = argc > 1 ? atoi(argv[1]) : 0, at = times > 0 ? 2 : 1, failed = 0;
    char line[16];
    for (int i = 0; failed == 0 && i < (times > 0 ? times : 1) && at < argc; i++) {
        Py_Initialize();
        failed = run_script(argv[at]);
        Py_Finalize();
        printf("without Python\n");
        fflush(stdout);
        failed = times > 0 && fgets(line, sizeof line, stdin) == NULL ? 3 : failed;
    }
    return failed;
}
