/* A library that listens to libpyprof-heap.so, if that is preloaded: at each call it allocates, frees, and touches variables of
   the thread for which the loader allocates. It ends the process if it is called while it is called, or for what the loader
   allocates: nothing else is as large in odd.c. How often it was called goes into the file $HEARD, at its end. As every
   listener it listens no longer if it does not hear of a malloc: another allocator comes first, which maps memory while it
   holds locks of its own, and in which it cannot allocate then. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "pyprof.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __thread int numbers[30000];
static __thread int depth;
static const pyprof_heap_interposer *interposer;
static unsigned long allocations, frees;

static void die(const char *text) {
    (void)!write(2, text, strlen(text));
    abort();
}

static void call(void *thread) {
    unsigned char *own = (unsigned char *)thread;
    if (depth++ != 0 || own[PYPROF_HEAP_THREAD - 1] != 0) {
        die("called within itself\n");
    }
    own[PYPROF_HEAP_THREAD - 1] = 1;
    numbers[0]++;
    void *volatile memory = realloc(malloc(100), 200);
    free(memory);
    own[PYPROF_HEAP_THREAD - 1] = 0;
    depth--;
}

static void on_alloc(void *thread, const void *memory, size_t size) {
    (void)memory;
    __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    if (size >= 80000) {
        die("called for the loader\n");
    }
    call(thread);
}

static void on_free(void *thread, const void *memory) {
    (void)memory;
    __atomic_add_fetch(&frees, 1, __ATOMIC_RELAXED);
    call(thread);
}

static void *on_realloc(void *thread, void *memory, size_t size, void *(*pass_on)(void *memory, size_t size)) {
    call(thread);
    return pass_on(memory, size);
}

static void on_map(void *thread, const void *memory, size_t size, bool is_memory) {
    (void)memory, (void)size, (void)is_memory;
    call(thread);
}

static int on_unmap(void *thread, void *memory, size_t size, int (*pass_on)(void *memory, size_t size)) {
    call(thread);
    return pass_on(memory, size);
}

static void *on_remap(void *thread, const pyprof_heap_remap *remap, void *(*pass_on)(const pyprof_heap_remap *remap)) {
    call(thread);
    return pass_on(remap);
}

__attribute__((constructor)) static void begin(void) {
    static const pyprof_heap_listener listener = {on_alloc, on_free, on_realloc, on_map, on_unmap, on_remap};
    interposer = (const pyprof_heap_interposer *)dlsym(RTLD_DEFAULT, PYPROF_HEAP_INTERPOSER);
    if (interposer != NULL && interposer->claim(&listener)) {
        interposer->listen(&listener);
        void *volatile memory = malloc(1);
        free(memory);
        if (allocations == 0) {
            interposer->listen(NULL);
        }
    }
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("HEARD");
    if (interposer != NULL) {
        interposer->listen(NULL);
    }
    FILE *file = path != NULL ? fopen(path, "w") : NULL;
    if (file != NULL) {
        fprintf(file, "%lu %lu\n", allocations, frees);
        fclose(file);
    }
}
