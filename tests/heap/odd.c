/* A program that does what is hard for a library that stands before malloc, and prints what came of it: the same with that
   library as without. It loads the libraries that it is given, and asks the last one for variables of its threads.
   QUIET_CHILDREN: programs that it starts have nothing preloaded, as they are of another libc. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void *early;
static void *slots[256];

static void say(const char *what, long number) {
    printf("%s %ld\n", what, number);
}

__attribute__((constructor)) static void before_main(void) {
    early = malloc(100);
}

__attribute__((destructor)) static void after_main(void) {
    free(early);
    free(malloc(100));
}

static void at_exit(void) {
    early = realloc(early, 2000);
}

static void at_fork(void) {
    free(malloc(500));
}

static void *exchange(void *user) {
    uint64_t random = (uint64_t)(uintptr_t)user;
    for (int i = 0; i < 20000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t size = 1 + (size_t)(random >> 33) % 5000;
        unsigned char *block = random >> 63 ? (unsigned char *)malloc(size) : (unsigned char *)calloc(size, 1);
        block[0] = block[size - 1] = 7;
        block = random >> 60 == 1 ? (unsigned char *)realloc(block, 2 * size) : block;
        if (block[0] != 7) {
            abort();
        }
        free(__atomic_exchange_n(&slots[random >> 56], block, __ATOMIC_ACQ_REL));
    }
    return NULL;
}

static void *use_variable(void *library) {
    int (*next)(void);
    void *found = dlsym(library, "next_number");
    memcpy(&next, &found, sizeof next);
    return (void *)(intptr_t)(next() + next());
}

static void run_threads(void *(*run)(void *), void *user) {
    pthread_t threads[8];
    long sum = 0;
    for (uintptr_t i = 0; i < 8; i++) {
        pthread_create(&threads[i], NULL, run, user != NULL ? user : (void *)(i + 1));
    }
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        sum += (long)(intptr_t)result;
    }
    say("threads", sum);
}

static long status_of(pid_t child) {
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static void make_children(void) {
    char *arguments[] = {(char *)(uintptr_t) "true", NULL};
    if (getenv("QUIET_CHILDREN") != NULL) {
        unsetenv("LD_PRELOAD");
    }
    pid_t child = fork();
    if (child == 0) {
        run_threads(exchange, NULL);
        _exit(3);
    }
    say("fork", status_of(child));
    child = vfork();
    if (child == 0) {
        execvp("true", arguments);
        _exit(127);
    }
    say("vfork", status_of(child));
    say("spawn", posix_spawnp(&child, "true", NULL, NULL, arguments, environ));
    say("spawned", status_of(child));
    say("system", system("exit 5"));
}

static void try_functions(void) {
    const volatile size_t half = SIZE_MAX / 4 + 1;
    void *blocks[8] = {aligned_alloc(64, 640), memalign(128, 1000), NULL, valloc(10)};
    for (int i = 0; i < 5; i++) {
        blocks[4 + i % 4] = realloc(i < 4 ? NULL : blocks[4], 1000u * (unsigned)(i + 1));
    }
    say("posix_memalign", posix_memalign(&blocks[2], 4096, 5000));
    say("not aligned", posix_memalign(&blocks[2] + 8 - 8, 3, 5000));
    for (int i = 0; i < 4; i++) {
        say("alignment", (long)((uintptr_t)blocks[i] % (i == 3 ? 4096 : 64)));
    }
    say("usable", malloc_usable_size(blocks[1]) >= 1000);
    errno = 0;
    say("overflow", calloc(half, 8) == NULL && errno == ENOMEM && reallocarray(NULL, half, 8) == NULL);
    errno = 77;
    for (int i = 0; i < 8; i++) {
        free(blocks[i]);
    }
    free(NULL);
    say("errno", errno);
    char *mapping = (char *)mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mapping[0] = 5;
    mapping = (char *)mremap(mapping, 1 << 20, 1 << 22, MREMAP_MAYMOVE);
    say("mapped", mapping[0]);
    say("unmapped", munmap(mapping, 1 << 22) + munmap(mapping + 1, 5));
    say("errno", errno);
    say("mapped", mmap(NULL, 0, PROT_READ, MAP_PRIVATE, -1, 0) == MAP_FAILED);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    atexit(at_exit);
    pthread_atfork(at_fork, at_fork, at_fork);
    void *library = NULL;
    for (int i = 1; i < argc; i++) {
        library = dlopen(argv[i], RTLD_NOW);
        if (library == NULL) {
            printf("%s\n", dlerror());
            return 1;
        }
    }
    try_functions();
    run_threads(exchange, NULL);
    make_children();
    if (library != NULL) {
        run_threads(use_variable, library);
        say("closed", dlclose(library));
        say("lacking", dlopen("/nowhere/at.all.so", RTLD_NOW) == NULL && dlerror() != NULL);
    }
    return 4;
}
