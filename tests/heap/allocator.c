/* An allocator to be preloaded, of less than libc has: it ends the process by a block that is not its own. Blocks are never used
   again. Each has its size and its own address before it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORTED extern __attribute__((visibility("default")))

static const size_t whole = (size_t)1 << 36;
static char *room;
static size_t used;

/* By mmap, as they do, from wherever that comes. */
static char *map_room(void) {
    char *now = __atomic_load_n(&room, __ATOMIC_ACQUIRE), *none = NULL;
    if (now == NULL) {
        now = (char *)mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (now == MAP_FAILED) {
            _exit(99);
        }
        return __atomic_compare_exchange_n(&room, &none, now, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) ? now : none;
    }
    return now;
}

static size_t *head_of(void *memory) {
    size_t *head = (size_t *)memory - 2;
    if ((uintptr_t)memory - (uintptr_t)room >= whole || head[1] != (uintptr_t)memory) {
        static const char text[] = "not our block\n";
        (void)!write(2, text, sizeof text - 1);
        abort();
    }
    return head;
}

EXPORTED void *memalign(size_t alignment, size_t size) {
    alignment = alignment < 16 ? 16 : alignment;
    if (size > whole / 4) {
        errno = ENOMEM;
        return NULL;
    }
    char *block = map_room() + __atomic_fetch_add(&used, (size + alignment + 31) / 16 * 16, __ATOMIC_ACQ_REL) + 16;
    block += (alignment - (uintptr_t)block % alignment) % alignment;
    ((size_t *)(void *)block)[-2] = size;
    ((size_t *)(void *)block)[-1] = (uintptr_t)block;
    return block;
}

EXPORTED void *malloc(size_t size) {
    return memalign(16, size);
}

EXPORTED void *aligned_alloc(size_t alignment, size_t size) {
    return memalign(alignment, size);
}

EXPORTED void *valloc(size_t size) {
    return memalign(4096, size);
}

EXPORTED int posix_memalign(void **memory, size_t alignment, size_t size) {
    if (alignment % sizeof(void *) != 0) {
        return EINVAL;
    }
    *memory = memalign(alignment, size);
    return *memory == NULL ? ENOMEM : 0;
}

EXPORTED void *calloc(size_t count, size_t size) {
    return memalign(16, size != 0 && count > SIZE_MAX / size ? SIZE_MAX : count * size);
}

EXPORTED void free(void *memory) {
    if (memory != NULL) {
        head_of(memory)[1] = 0;
    }
}

EXPORTED void *realloc(void *memory, size_t size) {
    void *now = malloc(size);
    if (now != NULL && memory != NULL) {
        size_t old_size = head_of(memory)[0];
        memcpy(now, memory, old_size < size ? old_size : size);
        free(memory);
    }
    return now;
}

EXPORTED size_t malloc_usable_size(void *memory) {
    return memory != NULL ? head_of(memory)[0] : 0;
}
