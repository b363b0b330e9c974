/* A host with a malloc of its own, which comes before any that is preloaded. Runs as python does. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>

void *__libc_malloc(size_t size);
void __libc_free(void *block);

void *malloc(size_t size) {
    return __libc_malloc(size);
}

void free(void *block) {
    __libc_free(block);
}

int main(int argc, char **argv) {
    return Py_BytesMain(argc, argv);
}
