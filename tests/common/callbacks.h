/* What a host gives to the profiler, for tests: memory that is counted, and functions that take what is written. */
#ifndef CALLBACKS_H
#define CALLBACKS_H

#include "pyprof.h"

#include <stdlib.h>
#include <string.h>

/* An allocator that counts, for any number of threads, and that gives nothing when it is told so. All zero: none is
   held. Each block knows its own size. */
typedef struct counted_memory {
    size_t blocks;
    size_t bytes;
    size_t peak_bytes;
    size_t calls;
    size_t refuse_call; /* this call, counted from 1, gives nothing; 0 = each gives */
    size_t refuse_from; /* so does each from this one on */
} counted_memory;

enum {
    counted_header = 32 /* bytes before each block: enough for its size, and keeps malloc's alignment */
};

static inline void *counted_alloc(size_t size, void *user) {
    counted_memory *self = (counted_memory *)user;
    size_t call = __atomic_add_fetch(&self->calls, 1, __ATOMIC_ACQ_REL);
    if (call == self->refuse_call || (self->refuse_from != 0 && call >= self->refuse_from)) {
        return NULL;
    }
    char *block = (char *)malloc(counted_header + size);
    if (block == NULL) {
        return NULL;
    }
    memcpy(block, &size, sizeof size);
    memset(block + counted_header, 0xa5, size); /* nobody may count on zeros */
    __atomic_add_fetch(&self->blocks, 1, __ATOMIC_ACQ_REL);
    size_t bytes = __atomic_add_fetch(&self->bytes, size, __ATOMIC_ACQ_REL);
    size_t peak = __atomic_load_n(&self->peak_bytes, __ATOMIC_ACQUIRE);
    while (bytes > peak &&
           !__atomic_compare_exchange_n(&self->peak_bytes, &peak, bytes, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    }
    return block + counted_header;
}

static inline void counted_free(void *memory, void *user) {
    counted_memory *self = (counted_memory *)user;
    size_t size;
    if (memory == NULL) {
        return;
    }
    char *block = (char *)memory - counted_header;
    memcpy(&size, block, sizeof size);
    __atomic_sub_fetch(&self->blocks, 1, __ATOMIC_ACQ_REL);
    __atomic_sub_fetch(&self->bytes, size, __ATOMIC_ACQ_REL);
    memset(block, 0x5a, counted_header + size); /* what still uses it is seen to */
    free(block);
}

static inline pyprof_desc counted_desc(counted_memory *memory, uint32_t interval_us) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = interval_us;
    desc.allocator.alloc_fn = counted_alloc;
    desc.allocator.free_fn = counted_free;
    desc.allocator.user = memory;
    return desc;
}

/* A write function that keeps all of it, with a zero behind it. All zero: nothing came, and text is NULL. */
typedef struct text_sink {
    char *text;
    size_t size;
    size_t capacity;
} text_sink;

static inline bool text_sink_write(void *user, const void *data, size_t size) {
    text_sink *self = (text_sink *)user;
    if (self->size + size >= self->capacity) {
        size_t capacity = 2 * (self->size + size) + 1;
        char *text = (char *)realloc(self->text, capacity);
        if (text == NULL) {
            return false;
        }
        self->text = text;
        self->capacity = capacity;
    }
    memcpy(self->text + self->size, data, size);
    self->size += size;
    self->text[self->size] = '\0';
    return true;
}

static inline void text_sink_free(text_sink *self) {
    free(self->text);
    memset(self, 0, sizeof *self);
}

/* One that only adds up how much it was, in a size_t. */
static inline bool count_written(void *user, const void *data, size_t size) {
    (void)data;
    *(size_t *)user += size;
    return true;
}

#endif
