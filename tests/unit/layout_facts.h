/* What the internal headers of CPython say of its layout; they cannot be included beside pyprof.h. */
#ifndef LAYOUT_FACTS_H
#define LAYOUT_FACTS_H

#include <stddef.h>
#include <stdint.h>

#define FACT_ABSENT UINT32_MAX

typedef struct layout_fact {
    const char *name;
    uint32_t value;
} layout_fact;

/* Fills facts, at most max; returns how many there are. */
size_t layout_facts(layout_fact *facts, size_t max);

/* Fills in the beginning of what a CPython of these headers says of itself; since 3.14. */
void layout_description(void *description, size_t size);

#endif
