/* A host whose CPython comes late, and so that nobody else sees its names, as a plugin's may: late LIBPYTHON [CODE [wait]].
   Without code it is only loaded; with a third word the host waits for input, in no Python. The exit status is 3. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef void start_function(int);
typedef int run_function(const char *);

int main(int argc, char **argv) {
    void *python = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    void *found[2] = {NULL, NULL};
    start_function *start;
    run_function *run;
    if (python == NULL) {
        (void)fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    found[0] = dlsym(python, "Py_InitializeEx");
    found[1] = dlsym(python, "PyRun_SimpleString");
    memcpy(&start, &found[0], sizeof start);
    memcpy(&run, &found[1], sizeof run);
    if (argc > 2) {
        start(0);
        if (run(argv[2]) != 0) {
            return 2;
        }
    }
    if (argc > 3) {
        (void)getchar();
    }
    return 3;
}
