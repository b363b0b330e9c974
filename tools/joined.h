/* joined.h: two recordings, one after the other, made one. For libpyprof.c, which has pyprof.h's implementation.
 *
 * Where a recording has to pause, it is two: it ends, and the next begins. Here the later one is added to the earlier: its
 * threads go on where they were, its stacks are the same ones, and its time follows. The pause itself is nobody's time.
 */
#ifndef JOINED_H
#define JOINED_H

#include "../pyprof.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct joining {
    pyprof_profile *into;
    const pyprof_profile *from;
    uint32_t *tracks; /* of the one, by those of the other */
    uint32_t *nodes;
} joining;

/* A profile that has ended finds nothing by its key any more. */
static bool find_again(pyprof__memory *memory, pyprof__table *table) {
    pyprof__array items = table->items;
    table->items.count = 0;
    bool has_room = pyprof__table_reserve(memory, table, items.count);
    table->items.count = items.count;
    for (uint32_t i = 0; has_room && i < items.count; i++) {
        const char *key = (const char *)items.data + (size_t)i * items.item_size;
        pyprof__put_slot(table->slots, table->slot_count, (pyprof__slot){pyprof__hash(key, table->key_size), i + 1});
    }
    return has_room;
}

static uint32_t join_text(const joining *at, uint32_t text) {
    size_t size;
    const char *bytes = pyprof__string_text(at->from, text, &size);
    return pyprof__intern_text(at->into, bytes, size);
}

static uint32_t join_function(const joining *at, uint32_t function) {
    const pyprof__function *other = pyprof__function_at(at->from, function);
    uint32_t name = join_text(at, other->name);
    return pyprof__intern_function(at->into, name, join_text(at, other->file), other->first_line);
}

/* The track of the same thread, else one as for a thread that comes. */
static uint32_t join_track(const joining *at, const pyprof__track *other) {
    uint32_t name = join_text(at, other->name);
    for (uint32_t i = 0; i < at->into->tracks.count; i++) {
        pyprof__track *track = pyprof__track_at(at->into, i);
        if (track->is_free && track->name == name && track->tid == other->tid) {
            track->is_free = false;
            return i;
        }
    }
    size_t size;
    const char *text = pyprof__string_text(at->from, other->name, &size);
    return pyprof__take_track(at->into, other->tid, text, size, other->is_named, at->into->duration_ns);
}

static bool join_tracks(const joining *at) {
    for (uint32_t i = 0; i < at->into->tracks.count; i++) {
        pyprof__track_at(at->into, i)->is_free = true;
    }
    for (uint32_t i = 0; i < at->from->tracks.count; i++) {
        at->tracks[i] = join_track(at, pyprof__track_at(at->from, i));
        if (at->tracks[i] == PYPROF__NONE) {
            return false;
        }
    }
    return true;
}

/* A node's parent comes before it. What the tree has no room for is "[truncated]", as in a recording. */
static uint32_t join_node(const joining *at, const pyprof__node *other) {
    if (other->parent == PYPROF__NONE) {
        return pyprof__track_at(at->into, at->tracks[other->line])->root;
    }
    uint32_t parent = at->nodes[other->parent], function = join_function(at, other->function);
    uint32_t node = function != PYPROF__NONE ? pyprof__child(at->into, parent, function, other->line) : function;
    return node != PYPROF__NONE ? node : pyprof__truncated_below(at->into, parent);
}

static void join_nodes(const joining *at) {
    for (uint32_t i = 0; i < at->from->nodes.items.count; i++) {
        const pyprof__node *other = pyprof__node_at(at->from, i);
        at->nodes[i] = join_node(at, other);
        pyprof__node *sums = pyprof__node_at(at->into, at->nodes[i]);
        sums->samples += other->samples;
        sums->samples_idle += other->samples_idle;
        sums->wall_ns += other->wall_ns;
        sums->wall_idle_ns += other->wall_idle_ns;
        sums->cpu_ns += other->cpu_ns;
        sums->gil_ns += other->gil_ns;
    }
}

static void join_timelines(const joining *at) {
    const pyprof__span *spans = (const pyprof__span *)at->from->timeline.data;
    for (uint32_t track = 0; track < at->from->tracks.count; track++) {
        pyprof__add_absence(at->into, at->tracks[track], at->into->duration_ns);
        for (uint32_t i = pyprof__track_at(at->from, track)->first; i != PYPROF__NONE; i = spans[i].next) {
            pyprof__extend_timeline(at->into, at->tracks[track], at->nodes[spans[i].node], pyprof__span_kind(&spans[i]),
                                    spans[i].wall_ns, spans[i].cpu_ns, spans[i].samples);
        }
    }
}

/* Counts add up; what is held and which signal asks are those of now. */
static void join_stats(pyprof_stats *into, const pyprof_stats *from) {
    uint64_t sums[sizeof *into / sizeof(uint64_t)], more[sizeof *into / sizeof(uint64_t)];
    pyprof_stats joined;
    memcpy(sums, into, sizeof sums);
    memcpy(more, from, sizeof more);
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        sums[i] += more[i];
    }
    memcpy(&joined, sums, sizeof joined);
    joined.bytes = from->bytes;
    joined.bytes_peak = into->bytes_peak > from->bytes_peak ? into->bytes_peak : from->bytes_peak;
    joined.threads = into->threads > from->threads ? into->threads : from->threads;
    joined.signal_number = from->signal_number;
    joined.reserved = from->reserved;
    *into = joined;
}

/* Adds one that has ended to an earlier one that has; false: no room, and the later one is left out. */
static bool join_profiles(pyprof_profile *into, const pyprof_profile *from, uint32_t *places) {
    joining at = {into, from, places, places + from->tracks.count};
    bool has_room = find_again(&into->memory, &into->strings) && find_again(&into->memory, &into->functions) &&
                    find_again(&into->memory, &into->nodes) && join_tracks(&at);
    if (has_room) {
        join_nodes(&at);
        join_timelines(&at);
        into->duration_ns += from->duration_ns;
        into->samples_jit += from->samples_jit;
        into->timeline_coarsened += from->timeline_coarsened;
        join_stats(&into->stats, &from->stats);
    }
    pyprof__profile_seal(into);
    return has_room;
}

#endif
