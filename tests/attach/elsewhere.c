/* python3 whose CPython runs in a thread that the program has begun, as in hosts that keep their first one for the screen:

     elsewhere ARGS...    as python3 ARGS... */
#include <Python.h>

#include <pthread.h>

typedef struct elsewhere {
    int argc, status;
    char **argv;
} elsewhere;

static void *run(void *of) {
    elsewhere *program = (elsewhere *)of;
    program->status = Py_BytesMain(program->argc, program->argv);
    return NULL;
}

int main(int argc, char **argv) {
    elsewhere program = {argc, 1, argv};
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, &program) == 0) {
        pthread_join(thread, NULL);
    }
    return program.status;
}
