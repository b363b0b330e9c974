/* libpyprof-heap: malloc and its kin, and mmap, of all code in a process, told to the pyprof.h in it that samples the heap.
 *
 * Preloaded (LD_PRELOAD), it stands before libc's functions, or those of another allocator that is preloaded behind it, and
 * passes everything on: memory is what that makes of it, and may be freed without us. It has no profiler, knows nothing of
 * CPython, and may be in any process. Until a pyprof.h listens (pyprof_heap_interposer in pyprof.h, >>native) a call costs a
 * load and a test more, and nothing is kept.
 *
 * What an allocator calls of these functions itself, and what the listener does, is passed on unseen, in a thread that is
 * inside one of them (here.depth). So is what the loader allocates: it may be for a thread's variables, of which the
 * listener might then touch some. Also unseen is what libc takes from the kernel without these functions: brk, its heaps,
 * threads' stacks.
 *
 * The next functions are looked up by dlsym, which may allocate: what it does goes to bootstrap, in its thread.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#undef _FILE_OFFSET_BITS /* mmap is to be mmap here, and not the other name of mmap64 */
#include "../pyprof.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORTED extern __attribute__((visibility("default")))

#ifndef LIBPYPROF_HEAP_DLSYM
#define LIBPYPROF_HEAP_DLSYM dlsym /* a test has one that allocates */
#endif

_Static_assert(sizeof(off_t) == 8 && sizeof(void *) == 8, "mmap64 is mmap where processors have 64 bits");

/* Of the calling thread. It is there as soon as the thread is, and for as long: a library that is loaded with the program
   may have that, and no call is needed to find it. */
static __thread struct {
    _Alignas(16) unsigned char listeners[PYPROF_HEAP_THREAD];
    unsigned depth;
    bool is_resolving;
} here __attribute__((tls_model("initial-exec")));

static _Atomic(const pyprof_heap_listener *) listening; /* NULL = nobody */

/* ---- what dlsym allocates ------------------------------------------------------------------------------- */

/* Each block's size lies before it. No room is used twice, so all of it is zero. */
static struct {
    _Alignas(16) unsigned char room[1 << 16];
    atomic_size_t used;
} bootstrap;

static bool is_bootstraps(const void *memory) {
    return (uintptr_t)memory - (uintptr_t)bootstrap.room < sizeof bootstrap.room;
}

static void *bootstrap_malloc(size_t size) {
    size_t whole = size < sizeof bootstrap.room ? (size + 31) / 16 * 16 : sizeof bootstrap.room;
    size_t at = atomic_load(&bootstrap.used);
    do {
        if (whole > sizeof bootstrap.room - at) {
            errno = ENOMEM;
            return NULL;
        }
    } while (!atomic_compare_exchange_weak(&bootstrap.used, &at, at + whole));
    memcpy(bootstrap.room + at, &size, sizeof size);
    return bootstrap.room + at + 16;
}

static size_t bootstrap_size(const void *memory) {
    size_t size;
    memcpy(&size, (const unsigned char *)memory - 16, sizeof size);
    return size;
}

/* ---- the next functions --------------------------------------------------------------------------------- */

/* The first call of any of them looks all of them up. */
static void *first_malloc(size_t size);
static void *first_calloc(size_t count, size_t size);
static void *first_realloc(void *memory, size_t size);
static void first_free(void *memory);
static int first_posix_memalign(void **memory, size_t alignment, size_t size);
static void *first_aligned_alloc(size_t alignment, size_t size);
static void *first_memalign(size_t alignment, size_t size);
static void *first_valloc(size_t size);
static void *first_pvalloc(size_t size);
static void *first_mmap(void *place, size_t size, int protection, int flags, int file, off_t offset);
static int first_munmap(void *memory, size_t size);
static void *first_mremap(void *memory, size_t size, size_t new_size, int flags, ...);

/* In the order of names. */
typedef struct functions {
    void *(*malloc)(size_t size);
    void *(*calloc)(size_t count, size_t size);
    void *(*realloc)(void *memory, size_t size);
    void (*free)(void *memory);
    void *(*mmap)(void *place, size_t size, int protection, int flags, int file, off_t offset);
    int (*munmap)(void *memory, size_t size);
    void *(*mremap)(void *memory, size_t size, size_t new_size, int flags, ...);
    int (*posix_memalign)(void **memory, size_t alignment, size_t size);
    void *(*aligned_alloc)(size_t alignment, size_t size);
    void *(*memalign)(size_t alignment, size_t size);
    void *(*valloc)(size_t size);
    void *(*pvalloc)(size_t size);
} functions;

static functions next = {first_malloc,        first_calloc,   first_realloc, first_free,
                         first_mmap,          first_munmap,   first_mremap,  first_posix_memalign,
                         first_aligned_alloc, first_memalign, first_valloc,  first_pvalloc};

static const char *const names[] = {"malloc", "calloc",         "realloc",       "free",     "mmap",   "munmap",
                                    "mremap", "posix_memalign", "aligned_alloc", "memalign", "valloc", "pvalloc"};

enum {
    FUNCTIONS = sizeof names / sizeof *names,
    NEEDED = 7 /* there is no libc without the first of them, nor without free for what the others give */
};

_Static_assert(sizeof(functions) == FUNCTIONS * sizeof(void *), "a function has no name, or the other way round");

#define NEXT(name) __atomic_load_n(&next.name, __ATOMIC_RELAXED)

/* Where the loader's code is. */
static uintptr_t loader_begin;
static size_t loader_size;

/* In musl the loader is libc, and it allocates for threads' variables only in dlopen. */
static void find_loader(void) {
#ifdef __GLIBC__
    Dl_info info;
    void *function = LIBPYPROF_HEAP_DLSYM(RTLD_DEFAULT, "__tls_get_addr");
    if (function == NULL || dladdr(function, &info) == 0) {
        return;
    }
    const char *base = (const char *)info.dli_fbase;
    const ElfW(Ehdr) *head = (const ElfW(Ehdr) *)(const void *)base;
    const ElfW(Phdr) *parts = (const ElfW(Phdr) *)(const void *)(base + head->e_phoff);
    for (int i = 0; i < head->e_phnum; i++) {
        if (parts[i].p_type == PT_LOAD && (parts[i].p_flags & PF_X) != 0) {
            loader_begin = (uintptr_t)base + parts[i].p_vaddr;
            loader_size = parts[i].p_memsz;
        }
    }
#endif
}

static bool is_loaders(const void *caller) {
    return (uintptr_t)caller - loader_begin < loader_size;
}

static void *lacking(size_t size) {
    (void)size;
    errno = ENOMEM;
    return NULL;
}

static void *lacking_aligned(size_t alignment, size_t size) {
    (void)alignment;
    return lacking(size);
}

static int lacking_posix(void **memory, size_t alignment, size_t size) {
    (void)memory, (void)alignment, (void)size;
    return ENOMEM;
}

static void give_up(void) {
    static const char text[] = "libpyprof-heap: no malloc, or no mmap, comes after it\n";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(127);
}

/* Several threads may do so at once: they find the same. errno stays. */
static void resolve(void) {
    functions all = {NULL,    NULL,   NULL, NULL, NULL, NULL, NULL, lacking_posix, lacking_aligned, lacking_aligned,
                     lacking, lacking};
    void *found[FUNCTIONS];
    int error = errno;
    memcpy(found, &all, sizeof found);
    here.is_resolving = true;
    for (int i = 0; i < FUNCTIONS; i++) {
        void *function = LIBPYPROF_HEAP_DLSYM(RTLD_NEXT, names[i]);
        found[i] = function != NULL ? function : found[i];
        if (i < NEEDED && function == NULL) {
            give_up();
        }
    }
    find_loader();
    for (int i = 0; i < FUNCTIONS; i++) {
        __atomic_store_n((void **)(void *)&next + i, found[i], __ATOMIC_RELAXED);
    }
    here.is_resolving = false;
    errno = error;
}

/* early: what a thread is given that is looking them up. */
#define FIRST(type, name, parameters, arguments, early)                                                                \
    static type first_##name parameters {                                                                              \
        if (here.is_resolving) {                                                                                       \
            return early;                                                                                              \
        }                                                                                                              \
        resolve();                                                                                                     \
        return NEXT(name) arguments;                                                                                   \
    }
FIRST(void *, malloc, (size_t size), (size), bootstrap_malloc(size))
FIRST(void *, calloc, (size_t count, size_t size), (count, size),
      size != 0 && count > SIZE_MAX / size ? lacking(size) : bootstrap_malloc(count * size))
FIRST(void *, realloc, (void *memory, size_t size), (memory, size),
      memory == NULL ? bootstrap_malloc(size) : lacking(size)) /* bootstrap's own blocks do not come here */
FIRST(int, posix_memalign, (void **memory, size_t alignment, size_t size), (memory, alignment, size), ENOMEM)
FIRST(void *, aligned_alloc, (size_t alignment, size_t size), (alignment, size), lacking(size))
FIRST(void *, memalign, (size_t alignment, size_t size), (alignment, size), lacking(size))
FIRST(void *, valloc, (size_t size), (size), lacking(size))
FIRST(void *, pvalloc, (size_t size), (size), lacking(size))
FIRST(void *, mmap, (void *place, size_t size, int protection, int flags, int file, off_t offset),
      (place, size, protection, flags, file, offset),
      (void *)syscall(SYS_mmap, place, size, protection, flags, file, offset))
FIRST(int, munmap, (void *memory, size_t size), (memory, size), (int)syscall(SYS_munmap, memory, size))

/* A block that another thread got meanwhile, which has looked them up already, is left to lie. */
static void first_free(void *memory) {
    if (!here.is_resolving) {
        resolve();
        NEXT(free)(memory);
    }
}

static void *first_mremap(void *memory, size_t size, size_t new_size, int flags, ...) {
    va_list more;
    va_start(more, flags);
    void *place = va_arg(more, void *); /* without such a flag whatever it is is not used */
    va_end(more);
    if (here.is_resolving) {
        return (void *)syscall(SYS_mremap, memory, size, new_size, flags, place);
    }
    resolve();
    return NEXT(mremap)(memory, size, new_size, flags, place);
}

/* ---- who listens ---------------------------------------------------------------------------------------- */

static void hear_nothing(void *thread, const void *memory, size_t size) {
    (void)thread, (void)memory, (void)size;
}

static void *only_pass_on(void *thread, void *memory, size_t size, void *(*pass_on)(void *memory, size_t size)) {
    (void)thread;
    return pass_on(memory, size);
}

/* For what the loader allocates; it calls no others. */
static const pyprof_heap_listener deaf = {.on_alloc = hear_nothing, .on_realloc = only_pass_on};

/* Who hears of a call, and then of nothing that is done inside it, until leave; NULL = nobody. */
static inline const pyprof_heap_listener *enter(const void *caller) {
    const pyprof_heap_listener *listener = atomic_load_explicit(&listening, memory_order_relaxed);
    if (__builtin_expect(listener == NULL, 1) || here.depth != 0) {
        return NULL;
    }
    here.depth = 1;
    return is_loaders(caller) ? &deaf : listener;
}

static inline void leave(void) {
    here.depth = 0;
}

/* What was allocated, after it was told. */
static inline void *told(const pyprof_heap_listener *listener, void *memory, size_t size) {
    if (memory != NULL) {
        listener->on_alloc(here.listeners, memory, size);
    }
    leave();
    return memory;
}

static void *threads_part(void) {
    return here.listeners;
}

static bool claim(const void *listener) {
    static _Atomic(const void *) owner;
    const void *none = NULL;
    return atomic_compare_exchange_strong(&owner, &none, listener) || none == listener;
}

static void listen_from_now(const pyprof_heap_listener *listener) {
    NEXT(free)(NULL); /* where the loader is has been looked up */
    atomic_store(&listening, listener);
}

EXPORTED const pyprof_heap_interposer pyprof_heap_interposer_1;
const pyprof_heap_interposer pyprof_heap_interposer_1 = {threads_part, claim, listen_from_now};

/* ---- malloc and its kin --------------------------------------------------------------------------------- */

#define CALLER __builtin_return_address(0)

EXPORTED void *malloc(size_t size) {
    const pyprof_heap_listener *listener = enter(CALLER);
    return listener == NULL ? NEXT(malloc)(size) : told(listener, NEXT(malloc)(size), size);
}

EXPORTED void *calloc(size_t count, size_t size) {
    const pyprof_heap_listener *listener = enter(CALLER);
    return listener == NULL ? NEXT(calloc)(count, size) : told(listener, NEXT(calloc)(count, size), count * size);
}

/* errno stays, where the next one keeps it. */
EXPORTED void free(void *memory) {
    if (is_bootstraps(memory)) {
        return;
    }
    const pyprof_heap_listener *listener = memory != NULL ? enter(NULL) : NULL;
    if (listener == NULL) {
        NEXT(free)(memory);
        return;
    }
    listener->on_free(here.listeners, memory);
    NEXT(free)(memory);
    leave();
}

EXPORTED void *realloc(void *memory, size_t size) {
    if (is_bootstraps(memory)) {
        size_t old_size = bootstrap_size(memory);
        void *now = NEXT(malloc)(size);
        return now == NULL ? NULL : memcpy(now, memory, old_size < size ? old_size : size);
    }
    const pyprof_heap_listener *listener = enter(CALLER);
    if (listener == NULL) {
        return NEXT(realloc)(memory, size);
    }
    void *now = listener->on_realloc(here.listeners, memory, size, NEXT(realloc));
    leave();
    return now;
}

/* reallocarray is left to libc, which calls the program's realloc: that may be another one than ours, whose blocks are
   not the next one's. */

EXPORTED int posix_memalign(void **memory, size_t alignment, size_t size) {
    const pyprof_heap_listener *listener = enter(CALLER);
    int error = NEXT(posix_memalign)(memory, alignment, size);
    if (listener != NULL) {
        (void)told(listener, error == 0 ? *memory : NULL, size);
    }
    return error;
}

EXPORTED void *aligned_alloc(size_t alignment, size_t size) {
    const pyprof_heap_listener *listener = enter(CALLER);
    void *memory = NEXT(aligned_alloc)(alignment, size);
    return listener == NULL ? memory : told(listener, memory, size);
}

EXPORTED void *memalign(size_t alignment, size_t size) {
    const pyprof_heap_listener *listener = enter(CALLER);
    void *memory = NEXT(memalign)(alignment, size);
    return listener == NULL ? memory : told(listener, memory, size);
}

EXPORTED void *valloc(size_t size) {
    const pyprof_heap_listener *listener = enter(CALLER);
    void *memory = NEXT(valloc)(size);
    return listener == NULL ? memory : told(listener, memory, size);
}

#ifdef __GLIBC__
EXPORTED void *pvalloc(size_t size);
void *pvalloc(size_t size) {
    const pyprof_heap_listener *listener = enter(CALLER);
    void *memory = NEXT(pvalloc)(size);
    return listener == NULL ? memory : told(listener, memory, size);
}
#endif

/* ---- mmap ----------------------------------------------------------------------------------------------- */

/* Memory is what can be written to and is of no file: without PROT_WRITE it is addresses that are set aside. */
EXPORTED void *mmap(void *place, size_t size, int protection, int flags, int file, off_t offset) {
    const pyprof_heap_listener *listener = enter(NULL);
    void *memory = NEXT(mmap)(place, size, protection, flags, file, offset);
    if (listener != NULL) {
        if (memory != MAP_FAILED) {
            bool is_memory = (flags & MAP_ANONYMOUS) != 0 && (protection & PROT_WRITE) != 0;
            listener->on_map(here.listeners, memory, size, is_memory);
        }
        leave();
    }
    return memory;
}

#ifdef __GLIBC__
EXPORTED void *mmap64(void *place, size_t size, int protection, int flags, int file, off64_t offset)
    __attribute__((alias("mmap")));
#endif

EXPORTED int munmap(void *memory, size_t size) {
    const pyprof_heap_listener *listener = enter(NULL);
    if (listener == NULL) {
        return NEXT(munmap)(memory, size);
    }
    int result = listener->on_unmap(here.listeners, memory, size, NEXT(munmap));
    leave();
    return result;
}

static void *pass_on_remap(const pyprof_heap_remap *call) {
    return NEXT(mremap)(call->memory, call->size, call->new_size, call->flags, call->place);
}

EXPORTED void *mremap(void *memory, size_t size, size_t new_size, int flags, ...) {
    va_list more;
    va_start(more, flags);
    pyprof_heap_remap call = {memory, size, new_size, flags, va_arg(more, void *)};
    va_end(more);
    const pyprof_heap_listener *listener = enter(NULL);
    void *now = listener == NULL ? pass_on_remap(&call) : listener->on_remap(here.listeners, &call, pass_on_remap);
    if (listener != NULL) {
        leave();
    }
    return now;
}
