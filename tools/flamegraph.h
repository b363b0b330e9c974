/* flamegraph.h: collapsed stacks, or a tree, in; one self-contained interactive SVG out.
 *
 * C99 and C++17; needs nothing but libc and POSIX. All its functions are static, so there is nothing else to compile or
 * to link: include it in each file that uses it, in as many as you like. It asks for _GNU_SOURCE itself, which counts
 * only before the first system header: under -std=c99 include it first. Included before pyprof.h's implementation,
 *
 *     #define PYPROF_IMPLEMENTATION
 *     #include "flamegraph.h"
 *     #include "pyprof.h"
 *
 * Example:
 *
 *     flamegraph *graph = flamegraph_create();
 *     flamegraph_options options = {0};
 *     options.title = "game.py";
 *     if (graph && flamegraph_add(graph, text, size, "profile", flamegraph_tell_file, stderr) == FLAMEGRAPH_OK)
 *         flamegraph_save(graph, &options, "game.svg", flamegraph_tell_file, stderr);
 *     flamegraph_free(graph);
 *
 * Nothing is printed by itself: what is wrong goes, beside the result code, to the function that the caller gives.
 * No function keeps anything but in the graph; two threads may use two graphs.
 *
 * Input: one stack a line, `frame;frame;frame VALUE`, root first, VALUE a number >= 0 behind the last blank (so that
 * frame names may hold blanks), with a fraction or an exponent if need be. Equal stacks add up. Blank lines, and lines
 * that begin with "# " or are a lone "#", are skipped; byte order marks, CRLF and a missing last newline are fine.
 * Bytes that are not UTF-8, and characters that XML forbids, are shown as U+FFFD. What is no such text (JSON, an
 * SVG, UTF-16, gzip, two values a line as difffolded.pl writes them: see below ...) is refused in one line that says what to do.
 *
 * Threads: a frame "thread NAME" at the root (below py-spy's "process ..." frames, if there are any) is a thread. The
 * picture shows all threads together, or with `options.threads` apart; threads whose names differ in digits only
 * are one then, "thread worker-# (800 threads)". Threads of one name count as one thread here.
 *
 * Unit: where every stack begins with "thread NAME", as in what pyprof writes, values are microseconds unless
 * `options.unit` says something else (it must where pyprof wrote PYPROF_METRIC_SAMPLES, "samples", or merged the threads
 * itself, "us"). Others are samples, also those with py-spy's "thread (1234): NAME".
 *
 * Picture: children stand left to right by falling value. Frames narrower than
 * `options.min_width` are folded: drawn as one hatched box per parent, and counted below the chart.
 * Zooming in unfolds them, as far as the file knows them: it keeps the largest FLAMEGRAPH_MAX_FRAMES.
 *
 * Difference: a graph may have a base, another profile that it is compared with (flamegraph_add_base, or collapsed text
 * with two values a line, flamegraph_add_difference). With `options.difference` widths are the graph's own values, and
 * colours tell how much more (red) or less (blue) they are than in the base, grey: as much; what is in the base only has
 * no width, and is in the list of functions.
 *
 * In a browser that runs its script the viewer can show threads apart or together, the frames of importlib one by one
 * (else each run of them is one frame "import"), callers above what they called, and a list of the functions; of a graph
 * of figures (flamegraph_add_figures), the metric, and time with or without waiting. All that is drawn from one table in
 * the file, see flamegraph_table. Of threads that make it too long the small ones are one there.
 */
#if !defined(FLAMEGRAPH_H) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#ifndef FLAMEGRAPH_H
#define FLAMEGRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifndef FLAMEGRAPH_MAX_FRAMES
#define FLAMEGRAPH_MAX_FRAMES 20000 /* how many frames a file describes: what bounds its size */
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum flamegraph_result {
    FLAMEGRAPH_OK = 0,
    FLAMEGRAPH_BAD_INPUT = -1, /* at least one line is wrong; nothing of this input was added */
    FLAMEGRAPH_NO_MEMORY = -2,
    FLAMEGRAPH_IO_ERROR = -3 /* errno tells why */
} flamegraph_result;

/* Hears of what is wrong: one line of text without its newline, that lives as long as the call.
 * NULL in its place = nobody wants to know. */
typedef void (*flamegraph_tell_fn)(void *user, const char *message);

/* Takes the next piece of the SVG; false = it could not (that ends the writing). The same type as pyprof_write_fn. */
typedef bool (*flamegraph_write_fn)(void *user, const void *data, size_t size);

/* Where a profile comes from, for a line in the head of the picture: what is known of it; zero or NULL = not known. */
typedef struct flamegraph_facts {
    const char *program; /* UTF-8 */
    const char *python;  /* its version, "3.11.2" */
    int64_t date;        /* when it was recorded, in seconds since 1970 */
    double seconds;      /* for how long */
    double rate;         /* samples a second that were asked for */
    uint64_t samples;    /* that were taken */
    uint64_t lost;       /* and how many more were not to be had; said only beside those that were */
    uint64_t bytes;      /* of memory: one sample was taken in so many, on average */
} flamegraph_facts;

/* What a graph of figures (see flamegraph_add_figures) shows at first; the viewer can choose another. Of memory
 * (flamegraph_options.memory) the same four places are bytes in use, bytes allocated, objects allocated and objects in use;
 * nothing of it is idle. */
typedef enum flamegraph_metric {
    FLAMEGRAPH_WALL = 0, /* elapsed time */
    FLAMEGRAPH_CPU = 1,
    FLAMEGRAPH_GIL = 2, /* elapsed time with the GIL */
    FLAMEGRAPH_SAMPLES = 3
} flamegraph_metric;

/* By what frames are coloured, if there is a base to compare with. */
typedef enum flamegraph_difference {
    FLAMEGRAPH_NO_DIFFERENCE = 0, /* by where their code lives */
    FLAMEGRAPH_SHARES = 1,        /* by how their share of all has changed: the two may have run for different times */
    FLAMEGRAPH_ABSOLUTE = 2       /* by how their value has changed: the two did the same work */
} flamegraph_difference;

/* How the picture looks; all zero = good defaults. */
typedef struct flamegraph_options {
    const char *title;    /* UTF-8; NULL = "Flame graph" */
    const char *subtitle; /* one more line, say what was measured and how; NULL = none */
    const char *unit;     /* "ns", "us", "ms", "s": times, shown as 1.23 s, 45.6 ms; "bytes", shown as 45.6 KiB,
                             1.23 MiB; any other word names what is counted; NULL = "us" or "samples", see above */
    int width;            /* pixels, at least FLAMEGRAPH_MIN_WIDTH; 0 = 1200, growing with the window */
    double min_width;     /* frames narrower than this many pixels are folded; 0 = 1 */
    bool inverted;        /* root on top (icicle) */
    bool threads;         /* threads apart at first */
    const char *empty;    /* said in a picture without samples: why, and what to do; NULL = what is likely */
    flamegraph_facts facts;
    flamegraph_metric metric; /* of figures. The head of the picture says which are shown: the subtitle need not */
    bool idle;                /* of figures: with the time, and the samples, of threads that only waited */
    flamegraph_difference difference; /* without a base, all is new */
    bool memory;                      /* figures are of memory, see flamegraph_metric; unit does not count then */
} flamegraph_options;

#define FLAMEGRAPH_MIN_WIDTH 300
#define FLAMEGRAPH_MAX_WIDTH 100000

typedef struct flamegraph flamegraph;

/* An empty graph, or NULL when there is no memory. */
static inline flamegraph *flamegraph_create(void);
static inline void flamegraph_free(flamegraph *graph); /* NULL is fine */

/* Add collapsed text. Every bad line (up to a bound) is told as `NAME:LINE: what is wrong`; if there is one,
 * nothing of this text is added. A text of another kind is told once. What fails has changed nothing. */
static inline flamegraph_result flamegraph_add(flamegraph *graph, const char *text, size_t size, const char *name,
                                               flamegraph_tell_fn tell, void *user);

/* The same for all that can be read from `in`, of which no more is held than some hundred KB, or a line. */
static inline flamegraph_result flamegraph_read(flamegraph *graph, FILE *in, const char *name, flamegraph_tell_fn tell,
                                                void *user);

/* Add collapsed text with two values a line, as difffolded.pl writes it: `frame;frame;frame BASE VALUE`. */
static inline flamegraph_result flamegraph_add_difference(flamegraph *graph, const char *text, size_t size,
                                                          const char *name, flamegraph_tell_fn tell, void *user);
static inline flamegraph_result flamegraph_read_difference(flamegraph *graph, FILE *in, const char *name,
                                                           flamegraph_tell_fn tell, void *user);

/* Or add a tree, frame by frame, without making text of it. A frame called `name` (as in collapsed text: see above), that
 * `parent` calls: FLAMEGRAPH_ROOT, or what an earlier call answered. The same again is the same frame. Answers
 * FLAMEGRAPH_NONE when there is no memory. */
#define FLAMEGRAPH_ROOT 0u
#define FLAMEGRAPH_NONE UINT32_MAX
static inline uint32_t flamegraph_add_frame(flamegraph *graph, uint32_t parent, const char *name, size_t size);

/* The same for who has names that many frames share: they are looked up once. The name's number, 1 and above but for that
 * of the root, or FLAMEGRAPH_NONE; and a frame that is called so. */
static inline uint32_t flamegraph_add_name(flamegraph *graph, const char *name, size_t size);
static inline uint32_t flamegraph_add_named(flamegraph *graph, uint32_t parent, uint32_t name);

/* For who learns the names only at the end: until then frames are called by the bytes of uint32_t numbers, 0, 1, 2, ...
 * Here number i gets texts from ends[i - 1] (of 0: from 0) to ends[i]. FLAMEGRAPH_BAD_INPUT = two numbers would have one
 * text, or that of the root, and so frames would be one that are not; FLAMEGRAPH_NO_MEMORY; nothing has changed then. */
static inline flamegraph_result flamegraph_rename(flamegraph *graph, const char *texts, const size_t *ends);

/* Give a frame a value of its own: one that none of those has which it calls. It counts for all that called it, too.
 * FLAMEGRAPH_BAD_INPUT = the sum of all values exceeds 64 bits; nothing was added. */
static inline flamegraph_result flamegraph_add_value(flamegraph *graph, uint32_t frame, uint64_t value);

/* All that a recording knows of a frame itself, in the place of one value: of those that it calls none. Times are in the
 * graph's unit, "us" unless options.unit says so. */
typedef struct flamegraph_figures {
    uint64_t wall, wall_idle; /* idle time is part of wall */
    uint64_t cpu, gil;
    uint64_t samples, samples_idle; /* idle ones are part of samples */
} flamegraph_figures;

/* The picture of a graph to which this was ever given has the metric and idle time to choose. Values that were added
 * otherwise count as wall time. FLAMEGRAPH_BAD_INPUT = a sum exceeds 64 bits, or what is idle is more than all;
 * FLAMEGRAPH_NO_MEMORY; nothing was added then. */
static inline flamegraph_result flamegraph_add_figures(flamegraph *graph, uint32_t frame,
                                                       const flamegraph_figures *figures);

/* What a frame had of its own in the base. Of a graph that has one value a frame the base has one, too: `wall`. Answers
 * as flamegraph_add_figures does; neither changes what the other has added. */
static inline flamegraph_result flamegraph_add_base(flamegraph *graph, uint32_t frame,
                                                    const flamegraph_figures *figures);

/* The sum of all values (of figures: of wall time, or if there is none, of the first that they have of CPU time, time with
 * the GIL, samples), in units of the last decimal that they have; 0 = there is nothing to see (the picture then says so).
 */
static inline uint64_t flamegraph_total(const flamegraph *graph);

/* Write the SVG, piece by piece. FLAMEGRAPH_IO_ERROR = `write` answered false. NULL options = all defaults. */
static inline flamegraph_result flamegraph_write(const flamegraph *graph, const flamegraph_options *options,
                                                 flamegraph_write_fn write, void *user);

/* Write the SVG beside `path` and rename it into place, so that no half file is ever seen there;
 * straight into what is no regular file (a pipe, a device). NULL or "-" = standard output.
 * Errors are told as `PATH: what is wrong`. */
static inline flamegraph_result flamegraph_save(const flamegraph *graph, const flamegraph_options *options,
                                                const char *path, flamegraph_tell_fn tell, void *user);

/* A flamegraph_tell_fn: a line on a stdio stream, say stderr. */
static inline void flamegraph_tell_file(void *file, const char *message);

/* ---- implementation ------------------------------------------------------------------------ */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* py-spy writes a blank and a value, without a stack, for a thread that ran no Python function. */
#define FLAMEGRAPH_FRAMELESS "[no Python frame]"
#define FLAMEGRAPH_MAX_COMPLAINTS 20 /* bad lines that are told one by one */
#ifndef FLAMEGRAPH_BLOCK
#define FLAMEGRAPH_BLOCK 262144 /* bytes that are read at a time: they stay in the core's cache */
#endif

/* Geometry in pixels; the script gets the same numbers with the data. */
#define FLAMEGRAPH_PAD 12
#define FLAMEGRAPH_ROW 20
#define FLAMEGRAPH_TOP 104
#define FLAMEGRAPH_FACTS 18 /* how much more if there is a line of facts */
#define FLAMEGRAPH_BOTTOM 34

typedef struct flamegraph_name {
    size_t offset; /* into flamegraph.text */
    size_t size;
    uint64_t hash;
} flamegraph_name;

/* A frame in its calling context. Parents are made before their children: parent < own index. */
typedef struct flamegraph_node {
    uint32_t parent;
    uint32_t name;
    uint64_t total;
} flamegraph_node;

/* Of a table of names or nodes: which one, or FLAMEGRAPH_NONE, and part of its hash. By that most others are passed over
 * without a look at them, who are anywhere in memory. */
typedef struct flamegraph_slot {
    uint32_t item, hash;
} flamegraph_slot;

/* Open addressing. */
typedef struct flamegraph_index {
    flamegraph_slot *slots;
    size_t capacity; /* a power of two */
    size_t count;
} flamegraph_index;

struct flamegraph {
    char *text;
    size_t text_size, text_capacity;
    flamegraph_name *names;
    size_t name_count, name_capacity;
    flamegraph_node *nodes; /* nodes[0] is the root, "all" */
    size_t node_count, node_capacity;
    size_t roots; /* how many children nodes[0] has */
    flamegraph_index name_index, node_index;
    bool has_figures;            /* else each node has but one value, which counts as wall time */
    flamegraph_metric counted;   /* what of the figures is in the nodes' totals: wall time, if they have any */
    flamegraph_figures *figures; /* of nodes; NULL = they have no more than what is counted. Those from figure_count on
                                    have none */
    size_t figure_count, figure_capacity;
    flamegraph_figures all;   /* their sum */
    flamegraph_figures *base; /* of nodes, as figures are; NULL = there is none */
    size_t base_count, base_capacity;
    flamegraph_figures base_all;
    bool threadless; /* it is known that no frame's name is a thread's */
    int decimals;    /* of all values: a value of 15 is 1.5 with one decimal */
    bool ours;       /* a stack was added that begins with "thread NAME" as only pyprof writes it */
    bool foreign;    /* one was added that does not begin with a thread */
};

/* ---- the tree ---- */

/* The array with room for `more` elements behind `used`; NULL, and the array as it was, when there
 * is no memory. */
static inline void *flamegraph_reserve(void *array, size_t *capacity, size_t used, size_t more, size_t element) {
    if (more <= *capacity - used)
        return array;
    size_t most = SIZE_MAX / 2 / element;
    if (more > most - used)
        return NULL;
    size_t wanted = used + more;
    size_t next = *capacity < most / 2 ? *capacity * 2 : most;
    if (next < wanted)
        next = wanted;
    if (next < 64)
        next = 64;
    void *moved = realloc(array, next * element);
    if (moved)
        *capacity = next;
    return moved;
}

static inline uint64_t flamegraph_hash(const char *bytes, size_t size) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a, with a final mix for its low bits */
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    }
    hash = (hash ^ (hash >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    return hash ^ (hash >> 33);
}

/* The two halves of a product, as one number. */
static inline uint64_t flamegraph_fold_product(uint64_t one, uint64_t other) {
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 flamegraph_product;
    flamegraph_product product = (flamegraph_product)one * other;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    uint64_t low = one * other, high = (one >> 32) * (other >> 32), cross = (one >> 32) * (uint32_t)other;
    return low ^ (high + (cross >> 32) + ((uint32_t)one * (other >> 32) >> 32));
#endif
}

/* Of sixteen bytes, that no others of the same text cancel out. */
static inline uint64_t flamegraph_hash_words(const char *bytes, uint64_t first, uint64_t second) {
    uint64_t words[2];
    memcpy(words, bytes, sizeof words);
    return flamegraph_fold_product(words[0] ^ first, words[1] ^ second);
}

/* Another one, for our own tables. What is not a multiple of what is read at a time ends with bytes that were read before:
 * so names of about one length, which most are, all go the same way through it, and nothing in it waits for the rest. */
static inline uint64_t flamegraph_hash_fast(const char *bytes, size_t size) {
    const uint64_t keys[] = {UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xc2b2ae3d27d4eb4f), UINT64_C(0xff51afd7ed558ccd),
                             UINT64_C(0xd6e8feb86659fd93), UINT64_C(0xa0761d6478bd642f)};
    const char *end = bytes + size;
    uint64_t hash = size * keys[0], words[2] = {0, 0};
    for (; end - bytes > 64; bytes += 32) {
        hash = flamegraph_hash_words(bytes, hash, keys[1]) + flamegraph_hash_words(bytes + 16, hash, keys[2]);
    }
    if (end - bytes > 32) {
        hash ^= flamegraph_hash_words(bytes, hash, keys[1]) + flamegraph_hash_words(bytes + 16, keys[2], keys[3]) +
                (flamegraph_hash_words(end - 32, keys[3], keys[4]) ^ flamegraph_hash_words(end - 16, keys[4], keys[1]));
    } else if (end - bytes >= 16) {
        hash ^= flamegraph_hash_words(bytes, hash, keys[1]) + flamegraph_hash_words(end - 16, keys[4], keys[2]);
    } else if (end - bytes >= 8) {
        memcpy(&words[0], bytes, sizeof *words);
        memcpy(&words[1], end - sizeof *words, sizeof *words);
        hash ^= flamegraph_fold_product(words[0] ^ keys[3], words[1] ^ hash);
    } else {
        for (; bytes < end; bytes++)
            words[0] = words[0] << 8 | (unsigned char)*bytes;
        hash ^= flamegraph_fold_product(words[0] ^ keys[2], hash ^ keys[4]);
    }
    hash = (hash ^ hash >> 32) * keys[0];
    return hash ^ hash >> 32;
}

static inline uint64_t flamegraph_hash_node(uint32_t parent, uint32_t name) {
    uint64_t hash = ((uint64_t)parent << 32 | name) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 32);
}

static inline uint64_t flamegraph_hash_of(const flamegraph *graph, const flamegraph_index *index, uint32_t item) {
    if (index == &graph->name_index)
        return graph->names[item].hash;
    return flamegraph_hash_node(graph->nodes[item].parent, graph->nodes[item].name);
}

static inline void flamegraph_index_put(flamegraph_index *index, flamegraph_slot slot) {
    size_t at = slot.hash & (index->capacity - 1);
    while (index->slots[at].item != FLAMEGRAPH_NONE)
        at = (at + 1) & (index->capacity - 1);
    index->slots[at] = slot;
    index->count++;
}

static inline void flamegraph_index_add(const flamegraph *graph, flamegraph_index *index, uint32_t item) {
    flamegraph_slot slot = {item, (uint32_t)flamegraph_hash_of(graph, index, item)};
    flamegraph_index_put(index, slot);
}

/* Keep the index at most half full with one more item in it. */
static inline bool flamegraph_index_grow(flamegraph_index *index) {
    if (index->count + 1 <= index->capacity / 2)
        return true;
    size_t capacity = index->capacity ? index->capacity * 2 : 1024;
    if (capacity > SIZE_MAX / sizeof(flamegraph_slot))
        return false;
    flamegraph_slot *slots = (flamegraph_slot *)malloc(capacity * sizeof *slots);
    if (!slots)
        return false;
    flamegraph_index before = *index, grown = {slots, capacity, 0};
    memset(slots, 0xff, capacity * sizeof *slots); /* all are FLAMEGRAPH_NONE */
    *index = grown;
    for (size_t i = 0; i < before.capacity; i++) {
        if (before.slots[i].item != FLAMEGRAPH_NONE)
            flamegraph_index_put(index, before.slots[i]);
    }
    free(before.slots);
    return true;
}

/* A name that is looked up soon. */
typedef struct flamegraph_sought {
    const char *bytes;
    size_t size;
    uint64_t hash;
    uint32_t guess; /* its number, most likely; or FLAMEGRAPH_NONE */
} flamegraph_sought;

/* Gets into the core's cache, for several names at once, what flamegraph_intern_hashed will look at: it would wait for one
 * after the other. `bytes` and `size` are given. */
static inline void flamegraph_seek(const flamegraph *graph, flamegraph_sought *sought, size_t count) {
    const flamegraph_index *index = &graph->name_index;
    for (size_t i = 0; i < count; i++) {
        sought[i].hash = flamegraph_hash_fast(sought[i].bytes, sought[i].size);
        __builtin_prefetch(&index->slots[(uint32_t)sought[i].hash & (index->capacity - 1)]);
    }
    for (size_t i = 0; i < count; i++) {
        sought[i].guess = index->slots[(uint32_t)sought[i].hash & (index->capacity - 1)].item;
        if (sought[i].guess != FLAMEGRAPH_NONE)
            __builtin_prefetch(&graph->names[sought[i].guess]);
    }
    for (size_t i = 0; i < count; i++) {
        if (sought[i].guess == FLAMEGRAPH_NONE)
            continue;
        const flamegraph_name *name = &graph->names[sought[i].guess];
        __builtin_prefetch(graph->text + name->offset);
        __builtin_prefetch(graph->text + name->offset + name->size);
    }
}

/* The name's number, or FLAMEGRAPH_NONE when there is no memory. */
static inline uint32_t flamegraph_intern_hashed(flamegraph *graph, const char *bytes, size_t size, uint64_t hash) {
    flamegraph_index *index = &graph->name_index;
    if (!flamegraph_index_grow(index))
        return FLAMEGRAPH_NONE;
    size_t at = (uint32_t)hash & (index->capacity - 1);
    for (; index->slots[at].item != FLAMEGRAPH_NONE; at = (at + 1) & (index->capacity - 1)) {
        if (index->slots[at].hash != (uint32_t)hash)
            continue;
        const flamegraph_name *name = &graph->names[index->slots[at].item];
        if (name->hash == hash && name->size == size && memcmp(graph->text + name->offset, bytes, size) == 0) {
            return index->slots[at].item;
        }
    }
    if (graph->name_count >= FLAMEGRAPH_NONE)
        return FLAMEGRAPH_NONE;
    flamegraph_name *names =
        (flamegraph_name *)flamegraph_reserve(graph->names, &graph->name_capacity, graph->name_count, 1, sizeof *names);
    if (!names)
        return FLAMEGRAPH_NONE;
    graph->names = names;
    char *text = (char *)flamegraph_reserve(graph->text, &graph->text_capacity, graph->text_size, size, 1);
    if (!text)
        return FLAMEGRAPH_NONE;
    graph->text = text;
    memcpy(graph->text + graph->text_size, bytes, size);
    flamegraph_name added = {graph->text_size, size, hash};
    graph->names[graph->name_count] = added;
    graph->text_size += size;
    flamegraph_slot slot = {(uint32_t)graph->name_count, (uint32_t)hash};
    index->slots[at] = slot;
    index->count++;
    return (uint32_t)graph->name_count++;
}

static inline uint32_t flamegraph_intern(flamegraph *graph, const char *bytes, size_t size) {
    return flamegraph_intern_hashed(graph, bytes, size, flamegraph_hash_fast(bytes, size));
}

static inline uint32_t flamegraph_new_node(flamegraph *graph, uint32_t parent, uint32_t name) {
    if (graph->node_count >= FLAMEGRAPH_NONE)
        return FLAMEGRAPH_NONE;
    flamegraph_node *nodes =
        (flamegraph_node *)flamegraph_reserve(graph->nodes, &graph->node_capacity, graph->node_count, 1, sizeof *nodes);
    if (!nodes)
        return FLAMEGRAPH_NONE;
    graph->nodes = nodes;
    flamegraph_node added = {parent, name, 0};
    graph->nodes[graph->node_count] = added;
    graph->roots += parent == 0;
    return (uint32_t)graph->node_count++;
}

/* One that stands in the index. */
static inline uint32_t flamegraph_indexed_child(flamegraph *graph, uint32_t parent, uint32_t name) {
    flamegraph_index *index = &graph->node_index;
    if (!flamegraph_index_grow(index))
        return FLAMEGRAPH_NONE;
    flamegraph_slot slot = {0, (uint32_t)flamegraph_hash_node(parent, name)};
    size_t at = slot.hash & (index->capacity - 1);
    for (; index->slots[at].item != FLAMEGRAPH_NONE; at = (at + 1) & (index->capacity - 1)) {
        const flamegraph_node *node = &graph->nodes[index->slots[at].item];
        if (index->slots[at].hash == slot.hash && node->parent == parent && node->name == name)
            return index->slots[at].item;
    }
    slot.item = flamegraph_new_node(graph, parent, name);
    if (slot.item != FLAMEGRAPH_NONE) {
        index->slots[at] = slot;
        index->count++;
    }
    return slot.item;
}

/* A child that was made right after its parent is found there: most are, as a new stack is a chain of new nodes. All
 * others stand in the index. */
static inline uint32_t flamegraph_child(flamegraph *graph, uint32_t parent, uint32_t name) {
    size_t next = (size_t)parent + 1;
    if (next == graph->node_count)
        return flamegraph_new_node(graph, parent, name);
    if (graph->nodes[next].parent == parent && graph->nodes[next].name == name)
        return (uint32_t)next;
    return flamegraph_indexed_child(graph, parent, name);
}

static inline void flamegraph_free(flamegraph *graph) {
    if (!graph)
        return;
    free(graph->text);
    free(graph->names);
    free(graph->nodes);
    free(graph->figures);
    free(graph->base);
    free(graph->name_index.slots);
    free(graph->node_index.slots);
    free(graph);
}

static inline flamegraph *flamegraph_create(void) {
    flamegraph *graph = (flamegraph *)calloc(1, sizeof *graph);
    if (!graph)
        return NULL;
    uint32_t all = flamegraph_intern(graph, "all", 3);
    graph->nodes = (flamegraph_node *)flamegraph_reserve(NULL, &graph->node_capacity, 0, 1, sizeof *graph->nodes);
    if (all == FLAMEGRAPH_NONE || !graph->nodes) {
        flamegraph_free(graph);
        return NULL;
    }
    /* The root is nobody's child: it stands in no index. */
    flamegraph_node root = {0, all, 0};
    graph->nodes[0] = root;
    graph->node_count = 1;
    return graph;
}

static inline uint64_t flamegraph_total(const flamegraph *graph) {
    return graph->nodes[0].total;
}

/* ---- reading ---- */

/* One line, cut into its parts. `wrong` is empty when the line is good; stack_size 0 = it is passed over. */
typedef struct flamegraph_line {
    const char *stack;
    size_t stack_size;
    uint64_t digits; /* the value is digits * 10^exponent */
    int exponent;
    uint64_t base_digits; /* and so is the base's, in a difference */
    int base_exponent;
    bool two_values; /* another number stands before it */
    char wrong[128];
} flamegraph_line;

/* Text of the input in a message: bounded, and nothing in it that a terminal would obey. */
static inline void flamegraph_quote(char *out, size_t room, const char *bytes, size_t size) {
    size_t used = 0;
    for (size_t i = 0; i < size && used + 4 < room; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        out[used++] = byte < 0x20 || byte >= 0x7f ? '?' : (char)byte;
        if (used + 4 == room && i + 1 < size) {
            memcpy(out + used, "...", 3);
            used += 3;
        }
    }
    out[used] = '\0';
}

#define FLAMEGRAPH_MAX_DECIMALS 15

/* value * 10^exponent, rounded; false = that does not fit. */
static inline bool flamegraph_scale(uint64_t *value, int exponent) {
    for (; exponent > 0 && *value; exponent--) {
        if (*value > UINT64_MAX / 10)
            return false;
        *value *= 10;
    }
    for (; exponent < -1 && *value; exponent++)
        *value /= 10;
    if (exponent == -1)
        *value = *value / 10 + (*value % 10 >= 5);
    return true;
}

/* The digits from *at on. Those of a fraction that do not fit are left out, they are far too small to be seen. */
static inline bool flamegraph_take_digits(const char **at, const char *end, bool fraction, flamegraph_line *line) {
    for (; *at < end && **at >= '0' && **at <= '9'; ++*at) {
        uint64_t value = (uint64_t)(**at - '0');
        if (line->digits <= (UINT64_MAX - value) / 10) {
            line->digits = line->digits * 10 + value;
            line->exponent -= fraction;
        } else if (!fraction) {
            return false;
        }
    }
    return true;
}

/* What follows an e or E; *at stays there if that is no exponent. */
static inline int flamegraph_take_exponent(const char **at, const char *end) {
    const char *next = *at + 1;
    int exponent = 0;
    bool minus = next < end && *next == '-';
    if (next < end && (*next == '-' || *next == '+'))
        next++;
    if (next == end)
        return 0;
    for (*at = next; *at < end && **at >= '0' && **at <= '9'; ++*at)
        exponent = exponent < 1000 ? exponent * 10 + (**at - '0') : exponent;
    return minus ? -exponent : exponent;
}

/* A number as 12, 1.5, .5, 1e-05. */
static inline bool flamegraph_is_number(const char *text, size_t size, flamegraph_line *line, bool *fits) {
    const char *at = text, *end = text + size, *start = at;
    line->digits = 0;
    line->exponent = 0;
    *fits = flamegraph_take_digits(&at, end, false, line);
    if (!*fits) {
        while (at < end && *at >= '0' && *at <= '9')
            at++;
        return at == end;
    }
    size_t digits = (size_t)(at - start);
    if (at < end && *at == '.') {
        start = ++at;
        flamegraph_take_digits(&at, end, true, line);
        digits += (size_t)(at - start);
    }
    if (digits && at < end && (*at == 'e' || *at == 'E'))
        line->exponent += flamegraph_take_exponent(&at, end);
    for (; line->digits && line->digits % 10 == 0 && line->exponent < 0; line->exponent++)
        line->digits /= 10;
    if (!line->digits)
        line->exponent = 0;
    uint64_t value = line->digits;
    *fits = flamegraph_scale(&value, line->exponent > 0 ? line->exponent : 0);
    return digits && at == end;
}

static inline bool flamegraph_parse_value(const char *text, size_t size, flamegraph_line *line) {
    char shown[32];
    bool fits = true, minus = size > 1 && text[0] == '-';
    bool number = flamegraph_is_number(text + minus, size - minus, line, &fits);
    if (number && fits && !minus)
        return true;
    flamegraph_quote(shown, sizeof shown, text, size);
    if (!number) {
        snprintf(line->wrong, sizeof line->wrong, "the line ends with '%s', not with a number", shown);
    } else if (minus) {
        snprintf(line->wrong, sizeof line->wrong,
                 "the value %s is negative: a flame graph shows amounts, not differences", shown);
    } else {
        snprintf(line->wrong, sizeof line->wrong, "the value %s does not fit in 64 bits", shown);
    }
    return false;
}

static inline bool flamegraph_is_blank(char byte) {
    return byte == ' ' || byte == '\t';
}

static inline bool flamegraph_is_all_blank(const char *text, size_t size) {
    while (size > 0 && flamegraph_is_blank(text[size - 1]))
        size--;
    return size == 0;
}

/* The word that ends at `end`. */
static inline size_t flamegraph_word_start(const char *text, size_t end) {
    while (end > 0 && !flamegraph_is_blank(text[end - 1]))
        end--;
    return end;
}

static inline bool flamegraph_ends_with_number(const char *text, size_t size) {
    flamegraph_line line;
    bool fits;
    while (size > 0 && flamegraph_is_blank(text[size - 1]))
        size--;
    if (size == 0 || ((text[size - 1] < '0' || text[size - 1] > '9') && text[size - 1] != '.'))
        return false;
    size_t start = flamegraph_word_start(text, size);
    return start > 0 && flamegraph_is_number(text + start, size - start, &line, &fits);
}

static inline bool flamegraph_is_number_at_all(const char *text, size_t size) {
    flamegraph_line line;
    bool fits, minus = size > 1 && text[0] == '-';
    return flamegraph_is_number(text + minus, size - minus, &line, &fits);
}

static inline bool flamegraph_is_mark(const char *text, size_t size) {
    return size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0;
}

/* The stack that ends at `size`, of a line whose value is known. */
static inline void flamegraph_parse_stack(const char *text, size_t size, flamegraph_line *line) {
    if (size == 1) {
        line->stack = FLAMEGRAPH_FRAMELESS;
        line->stack_size = sizeof FLAMEGRAPH_FRAMELESS - 1;
    } else if (size == 0) {
        snprintf(line->wrong, sizeof line->wrong, "no stack before the value");
    } else {
        line->stack = text;
        line->stack_size = size - 1;
        line->two_values = flamegraph_ends_with_number(text, size - 1);
    }
}

/* Of a difference: the first of the two values, which `size` bytes end with. Answers where it begins. */
static inline size_t flamegraph_parse_base(const char *text, size_t size, flamegraph_line *line) {
    flamegraph_line base;
    memset(&base, 0, sizeof base);
    while (size > 0 && flamegraph_is_blank(text[size - 1]))
        size--;
    size_t blank = flamegraph_word_start(text, size);
    if (!flamegraph_is_number_at_all(text + blank, size - blank))
        snprintf(line->wrong, sizeof line->wrong, "one value ends the line: a difference has two, BASE VALUE");
    else if (!flamegraph_parse_value(text + blank, size - blank, &base))
        memcpy(line->wrong, base.wrong, sizeof line->wrong);
    line->base_digits = base.digits;
    line->base_exponent = base.exponent;
    return blank;
}

/* `clean`: it is known to hold neither a NUL byte nor a carriage return. */
static inline void flamegraph_parse_line(const char *text, size_t size, bool clean, bool difference,
                                         flamegraph_line *line) {
    line->stack_size = 0;
    line->base_digits = 0;
    line->base_exponent = 0;
    line->two_values = false;
    line->wrong[0] = '\0';
    while (flamegraph_is_mark(text, size)) { /* at the start of a file, or of one of several that were joined */
        text += 3;
        size -= 3;
    }
    if (size > 0 && text[size - 1] == '\r')
        size--;
    while (size > 0 && flamegraph_is_blank(text[size - 1]))
        size--;
    if (size == 0 || (text[0] == '#' && (size == 1 || text[1] == ' ')))
        return;
    const char *nul = clean ? NULL : (const char *)memchr(text, '\0', size);
    const char *cr = clean ? NULL : (const char *)memchr(text, '\r', size);
    if (nul || cr) {
        snprintf(line->wrong, sizeof line->wrong, "a %s at column %zu", nul ? "NUL byte" : "carriage return",
                 (size_t)((nul ? nul : cr) - text) + 1);
        return;
    }
    size_t blank = flamegraph_word_start(text, size);
    if (!flamegraph_parse_value(text + blank, size - blank, line))
        return;
    if (difference)
        blank = flamegraph_parse_base(text, blank, line);
    if (!line->wrong[0])
        flamegraph_parse_stack(text, blank, line);
}

/* Who hears of what is wrong, and by which name the caller knows the input or the output. */
typedef struct flamegraph_told {
    flamegraph_tell_fn tell;
    void *user;
    const char *name;
} flamegraph_told;

static inline void flamegraph_tell_file(void *file, const char *message) {
    fprintf((FILE *)file, "%s\n", message);
}

/* "NAME:LINE: message"; line 0 = of the whole. errno stays as it was. */
static inline void flamegraph_tell(const flamegraph_told *told, size_t line, const char *message) {
    char place[32] = "", text[1200];
    int before = errno;
    if (!told->tell)
        return;
    if (line)
        snprintf(place, sizeof place, ":%zu", line);
    snprintf(text, sizeof text, "%.800s%s: %.300s", told->name, place, message);
    told->tell(told->user, text);
    errno = before;
}

static inline flamegraph_result flamegraph_fail(const flamegraph_told *told, flamegraph_result result) {
    flamegraph_tell(told, 0, result == FLAMEGRAPH_NO_MEMORY ? "out of memory" : strerror(errno));
    return result;
}

/* ---- threads, as their names tell ---- */

/* A frame that stands for what runs, not for code: "thread NAME", "process NAME". A function of that name has only its
 * place behind it: "thread (worker.py:12)". */
static inline bool flamegraph_is_named(const char *name, size_t size, const char *what) {
    size_t length = strlen(what), at = size;
    if (size < length || memcmp(name, what, length) != 0)
        return false;
    if (size == length || name[length] != '(' || name[size - 1] != ')')
        return true;
    for (at--; at > length && name[at - 1] >= '0' && name[at - 1] <= '9'; at--) {
    }
    return at == size - 1 || name[at - 1] != ':';
}

static inline bool flamegraph_is_thread(const char *name, size_t size) {
    return flamegraph_is_named(name, size, "thread ");
}

/* py-spy's way to name a thread: "thread (1234): NAME", "thread (0x7F...)". */
static inline bool flamegraph_is_thread_id(const char *name, size_t size) {
    size_t at = 8;
    if (size < 10 || name[7] != '(' || name[8] < '0' || name[8] > '9')
        return false;
    while (at < size && name[at] != ')')
        at++;
    return at + 1 == size || (at < size && name[at + 1] == ':');
}

/* ---- what the text is ---- */

/* What was seen of a text that is read line by line. */
typedef struct flamegraph_survey {
    size_t lines, stacks, bad, two_values, ours, foreign;
    size_t first_line; /* the number of the first line that is not passed over */
    char first_wrong[128];
    char start[1024]; /* how the text begins */
    size_t start_size;
    char near_first[4096]; /* what the first line begins with, behind blanks and marks, and what follows */
    size_t near_size;
} flamegraph_survey;

static inline bool flamegraph_holds(const char *text, size_t size, const char *word) {
    size_t length = strlen(word);
    for (size_t i = 0; i + length <= size; i++) {
        if (memcmp(text + i, word, length) == 0)
            return true;
    }
    return false;
}

/* How well-known files of other kinds begin. */
static inline const char *flamegraph_known_file(const char *text, size_t size) {
    static const struct {
        const char *start;
        size_t size;
        const char *what;
    } known[] = {
        {"\xff\xfe", 2, "this is UTF-16 text: convert it first, as iconv -f UTF-16 -t UTF-8 does"},
        {"\xfe\xff", 2, "this is UTF-16 text: convert it first, as iconv -f UTF-16 -t UTF-8 does"},
        {"\x1f\x8b", 2,
         "this is compressed by gzip: unpack it first with gunzip, or, if it is a pprof profile, open it "
         "with "
         "`go tool pprof`"},
        {"\x28\xb5\x2f\xfd", 4, "this is compressed by zstd: unpack it first with unzstd"},
        {"\xfd"
         "7zXZ",
         5, "this is compressed by xz: unpack it first with unxz"},
        {"BZh", 3, "this is compressed by bzip2: unpack it first with bunzip2"},
        {"PK\x03\x04", 4, "this is a zip archive: unpack it first with unzip"},
        {"PERFILE2", 8, "this is perf's own file: give what `perf script | stackcollapse-perf.pl` writes"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (size >= known[i].size && memcmp(text, known[i].start, known[i].size) == 0)
            return known[i].what;
    }
    return NULL;
}

/* UTF-16 without a mark: every other byte of text that is mostly ASCII is zero. */
static inline bool flamegraph_is_wide(const char *text, size_t size) {
    size_t zeros[2] = {0, 0}, most = size < 512 ? size : 512;
    for (size_t i = 0; i < most; i++)
        zeros[i & 1] += text[i] == '\0';
    return most >= 8 && ((zeros[0] == 0 && zeros[1] > most / 3) || (zeros[1] == 0 && zeros[0] > most / 3));
}

static inline bool flamegraph_is_binary(const char *text, size_t size) {
    for (size_t i = 0; i < size && i < 1024; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte < 0x20 && !strchr("\t\n\v\f\r\x1b", byte))
            return true;
        if (byte == 0)
            return true;
    }
    return false;
}

/* What the bytes are if they are no text in UTF-8; NULL = they are. */
static inline const char *flamegraph_no_text(const char *text, size_t size) {
    const char *what = flamegraph_known_file(text, size);
    if (!what && flamegraph_is_wide(text, size))
        what = flamegraph_known_file("\xff\xfe", 2);
    if (!what && flamegraph_is_binary(text, size))
        what = "this is a binary file, not collapsed stacks, which are text: frame;frame;frame VALUE";
    return what;
}

/* Whether JSON begins so: with an object or a list and what may follow there. A frame may begin alike: "[other]". */
static inline bool flamegraph_begins_json(const char *at, size_t near) {
    size_t next = 1;
    if (*at != '{' && *at != '[')
        return false;
    while (next < near && strchr(" \t\r\n", at[next]) != NULL && at[next] != '\0')
        next++;
    return next == near || (at[next] != '\0' && strchr(*at == '{' ? "\"}" : "{[]\"-0123456789", at[next]) != NULL);
}

/* A file of another kind, if the first line is none of ours; NULL = it is just not right. */
static inline const char *flamegraph_other_text(const char *at, size_t near) {
    if (near == 0)
        return NULL;
    if (flamegraph_begins_json(at, near)) {
        if (flamegraph_holds(at, near, "speedscope"))
            return "this is a profile for speedscope: open it in speedscope.app, or write collapsed stacks "
                   "instead "
                   "(pyprof-run -f collapsed; pyprof_save to a path that does not end in .json)";
        return "this is JSON, not collapsed stacks, which are lines of frame;frame;frame VALUE";
    }
    if (*at == '<' && flamegraph_holds(at, near, "<svg"))
        return "this is an SVG picture already: open it in a browser, or give the collapsed stacks that it "
               "was made "
               "from (IN comes before OUT)";
    if (*at == '<' && near > 1 && (strchr("?!", at[1]) || flamegraph_holds(at, near < 64 ? near : 64, "<html")))
        return "this is XML or HTML, not collapsed stacks, which are lines of frame;frame;frame VALUE";
    return NULL;
}

/* What there is to say about the text as a whole, if it is not collapsed stacks at all. */
static inline bool flamegraph_is_other(const flamegraph_survey *survey, const flamegraph_told *told) {
    char first[256];
    bool wrong = survey->first_wrong[0] != '\0';
    const char *what = wrong ? flamegraph_no_text(survey->start, survey->start_size) : NULL;
    size_t line = what ? 1 : survey->first_line;
    if (!what && wrong)
        what = flamegraph_other_text(survey->near_first, survey->near_size);
    if (!what && survey->bad && !survey->stacks) {
        snprintf(first, sizeof first, "%s; no line here is a collapsed stack, frame;frame;frame VALUE",
                 survey->first_wrong);
        what = first;
    }
    if (!what && survey->stacks && survey->two_values == survey->stacks && !survey->bad) {
        what = "two values end the line, as difffolded.pl writes them: pyprof-svg --diff draws the difference; or "
               "give one of the files that were compared";
    }
    if (what)
        flamegraph_tell(told, line, what);
    return what != NULL;
}

/* ---- figures of nodes ---- */

/* Where those of a node are in an array that grows with it; NULL = no memory. */
static inline flamegraph_figures *flamegraph_figures_in(flamegraph_figures **array, size_t *count, size_t *capacity,
                                                        uint32_t node) {
    size_t more = node < *count ? 0 : node + 1 - *count;
    flamegraph_figures *figures =
        (flamegraph_figures *)flamegraph_reserve(*array, capacity, *count, more, sizeof *figures);
    if (!figures)
        return NULL;
    *array = figures;
    memset(figures + *count, 0, more * sizeof *figures);
    *count += more;
    return &figures[node];
}

static inline flamegraph_figures *flamegraph_figures_at(flamegraph *graph, uint32_t node) {
    return flamegraph_figures_in(&graph->figures, &graph->figure_count, &graph->figure_capacity, node);
}

static inline flamegraph_figures *flamegraph_base_at(flamegraph *graph, uint32_t node) {
    return flamegraph_figures_in(&graph->base, &graph->base_count, &graph->base_capacity, node);
}

static inline uint64_t *flamegraph_metric_of(flamegraph_figures *figures, flamegraph_metric metric) {
    switch (metric) {
    case FLAMEGRAPH_CPU:
        return &figures->cpu;
    case FLAMEGRAPH_GIL:
        return &figures->gil;
    case FLAMEGRAPH_SAMPLES:
        return &figures->samples;
    case FLAMEGRAPH_WALL:
        break;
    }
    return &figures->wall;
}

/* What each node has of its own; the caller frees it. NULL = no memory. */
static inline uint64_t *flamegraph_own(const flamegraph *graph) {
    uint64_t *own = (uint64_t *)malloc(graph->node_count * sizeof *own);
    if (!own)
        return NULL;
    for (size_t i = 0; i < graph->node_count; i++)
        own[i] = graph->nodes[i].total;
    for (size_t i = graph->node_count; i-- > 1;)
        own[graph->nodes[i].parent] -= graph->nodes[i].total;
    return own;
}

/* From here on, nodes have all figures, and not only what is counted. False = no memory. */
static inline bool flamegraph_keep_figures(flamegraph *graph) {
    if (graph->figures)
        return true;
    uint64_t *own = flamegraph_own(graph);
    if (!own || !flamegraph_figures_at(graph, (uint32_t)graph->node_count - 1)) {
        free(own);
        return false;
    }
    for (size_t i = 0; i < graph->node_count; i++)
        *flamegraph_metric_of(&graph->figures[i], graph->counted) = own[i];
    free(own);
    return true;
}

/* From here on, this is counted; of what comes before it among the metrics, there was nothing. False = no memory. */
static inline bool flamegraph_count(flamegraph *graph, flamegraph_metric metric) {
    if (graph->counted != metric) {
        if (flamegraph_total(graph) && !flamegraph_keep_figures(graph))
            return false;
        for (size_t i = 0; i < graph->node_count; i++)
            graph->nodes[i].total = 0;
        graph->counted = metric;
    }
    return true;
}

static inline void flamegraph_sum_figures(flamegraph_figures *sum, const flamegraph_figures *more) {
    sum->wall += more->wall;
    sum->wall_idle += more->wall_idle;
    sum->cpu += more->cpu;
    sum->gil += more->gil;
    sum->samples += more->samples;
    sum->samples_idle += more->samples_idle;
}

/* ---- reading ---- */

/* A frame of the stack that was read last, and where it ends there. */
typedef struct flamegraph_step {
    size_t end;
    uint32_t node;
} flamegraph_step;

typedef struct flamegraph_complaint {
    size_t line;
    char wrong[128];
} flamegraph_complaint;

/* What a graph was before a text was read into it. */
typedef struct flamegraph_mark {
    size_t text_size, name_count, node_count;
    uint64_t *own; /* what each node had of its own */
    int decimals;
    flamegraph_figures *base; /* what it had in the base */
    size_t base_count;
    flamegraph_figures base_all;
} flamegraph_mark;

/* A text on its way into a graph, which is read once: a line's value is added where its stack ends, and only at the end
 * to all that called it. Until then the nodes have as total what is their own. What turns out to be bad is taken out
 * again. */
typedef struct flamegraph_reading {
    flamegraph *graph;
    flamegraph_told told;
    flamegraph_mark before;
    flamegraph_survey survey;
    bool difference;        /* lines have two values */
    uint64_t sum, base_sum; /* of all values */
    int most_decimals;      /* that there is room for */
    bool no_memory;
    size_t complaint_count; /* of which only the first are kept */
    flamegraph_complaint complaints[FLAMEGRAPH_MAX_COMPLAINTS];
    const char *stack; /* of the line before: most begin as that one did */
    size_t stack_size;
    flamegraph_step *steps; /* its frames */
    size_t step_count, step_capacity;
} flamegraph_reading;

/* Parents come before their children: upwards, each node still has its total when it is taken from its parent's. */
static inline void flamegraph_totals_to_own(flamegraph *graph) {
    for (size_t i = 1; i < graph->node_count; i++)
        graph->nodes[graph->nodes[i].parent].total -= graph->nodes[i].total;
}

static inline void flamegraph_own_to_totals(flamegraph *graph) {
    for (size_t i = graph->node_count; i-- > 1;)
        graph->nodes[graph->nodes[i].parent].total += graph->nodes[i].total;
}

static inline bool flamegraph_make_mark(flamegraph_mark *mark, const flamegraph *graph) {
    flamegraph_mark made = {graph->text_size,  graph->name_count, graph->node_count, NULL, graph->decimals, NULL,
                            graph->base_count, graph->base_all};
    made.own = (uint64_t *)malloc(graph->node_count * sizeof *made.own);
    made.base = (flamegraph_figures *)malloc((graph->base_count + 1) * sizeof *made.base);
    *mark = made;
    if (made.base && made.base_count)
        memcpy(made.base, graph->base, graph->base_count * sizeof *made.base);
    return made.own && made.base;
}

static inline void flamegraph_free_mark(flamegraph_mark *mark) {
    free(mark->own);
    free(mark->base);
}

/* False = no memory, and nothing has changed. */
static inline bool flamegraph_begin(flamegraph_reading *reading, flamegraph *graph, bool difference,
                                    const flamegraph_told *told) {
    if (!flamegraph_count(graph, FLAMEGRAPH_WALL))
        return false;
    memset(reading, 0, sizeof *reading);
    reading->graph = graph;
    reading->told = *told;
    reading->difference = difference;
    reading->sum = flamegraph_total(graph);
    reading->base_sum = graph->base_all.wall;
    reading->most_decimals = FLAMEGRAPH_MAX_DECIMALS;
    if (!flamegraph_make_mark(&reading->before, graph)) {
        flamegraph_free_mark(&reading->before);
        return false;
    }
    flamegraph_totals_to_own(graph);
    for (size_t i = 0; i < graph->node_count; i++)
        reading->before.own[i] = graph->nodes[i].total;
    return true;
}

static inline void flamegraph_undo(flamegraph_reading *reading) {
    flamegraph *graph = reading->graph;
    const flamegraph_mark *before = &reading->before;
    flamegraph_index *const indexes[] = {&graph->name_index, &graph->node_index};
    graph->text_size = before->text_size;
    graph->name_count = before->name_count;
    graph->node_count = before->node_count;
    graph->decimals = before->decimals;
    for (size_t i = 0; i < graph->node_count; i++)
        graph->nodes[i].total = before->own[i];
    graph->base_count = before->base_count;
    graph->base_all = before->base_all;
    if (graph->base_count)
        memcpy(graph->base, before->base, graph->base_count * sizeof *graph->base);
    for (size_t i = 0; i < 2; i++) {
        if (indexes[i]->slots)
            memset(indexes[i]->slots, 0xff, indexes[i]->capacity * sizeof *indexes[i]->slots);
        indexes[i]->count = 0;
    }
    for (size_t i = 0; i < graph->name_count; i++)
        flamegraph_index_add(graph, &graph->name_index, (uint32_t)i);
    graph->roots = 0;
    for (size_t i = 1; i < graph->node_count; i++) {
        graph->roots += graph->nodes[i].parent == 0;
        if (graph->nodes[i].parent + 1 != i)
            flamegraph_index_add(graph, &graph->node_index, (uint32_t)i);
    }
}

/* All values get more decimals, or fewer. */
static inline void flamegraph_rescale(flamegraph_reading *reading, int decimals) {
    flamegraph *graph = reading->graph;
    int more = decimals - graph->decimals;
    reading->sum = 0;
    for (size_t i = 0; i < graph->node_count; i++) {
        flamegraph_scale(&graph->nodes[i].total, more);
        reading->sum += graph->nodes[i].total;
    }
    reading->base_sum = 0;
    for (size_t i = 0; i < graph->base_count; i++) {
        flamegraph_scale(&graph->base[i].wall, more);
        reading->base_sum += graph->base[i].wall;
    }
    graph->base_all.wall = reading->base_sum;
    graph->decimals = decimals;
}

/* A sum with decimals stays below this: there is no need of more digits than the 18 that it has. */
#define FLAMEGRAPH_MAX_EXACT UINT64_C(9000000000000000000)

/* Whether a value, digits * 10^exponent, can be added to the sum, with so many decimals, `more` than the sum has.
 * *value is it then. */
static inline bool flamegraph_fits(uint64_t *value, int exponent, uint64_t sum, int decimals, int more) {
    uint64_t most = decimals ? FLAMEGRAPH_MAX_EXACT : UINT64_MAX;
    return flamegraph_scale(&sum, more) && sum <= most && flamegraph_scale(value, exponent + decimals) &&
           *value <= most - sum;
}

/* The line's values in units of the last decimal, of which there are as many as the values have and fit; false = a sum
 * is too large even without any. */
static inline bool flamegraph_take_values(flamegraph_reading *reading, const flamegraph_line *line, uint64_t *value,
                                          uint64_t *base) {
    int before = reading->graph->decimals, decimals = before;
    int wanted = -(line->exponent < line->base_exponent ? line->exponent : line->base_exponent);
    if (wanted > decimals)
        decimals = wanted < reading->most_decimals ? wanted : reading->most_decimals;
    for (;;) {
        *value = line->digits;
        *base = line->base_digits;
        if (flamegraph_fits(value, line->exponent, reading->sum, decimals, decimals - before) &&
            flamegraph_fits(base, line->base_exponent, reading->base_sum, decimals, decimals - before))
            break;
        if (decimals == 0)
            return false;
        reading->most_decimals = --decimals;
    }
    if (decimals != before)
        flamegraph_rescale(reading, decimals);
    reading->sum += *value;
    reading->base_sum += *base;
    return true;
}

/* False = no memory. */
static inline bool flamegraph_add_to_base(flamegraph *graph, uint32_t node, uint64_t value) {
    flamegraph_figures *base = value ? flamegraph_base_at(graph, node) : NULL;
    if (base) {
        base->wall += value;
        graph->base_all.wall += value;
    }
    return !value || base;
}

static inline size_t flamegraph_equal_bytes(const char *one, const char *other, size_t size) {
    uint64_t a, b;
    size_t at = 0;
    for (; at + sizeof a <= size; at += sizeof a) {
        memcpy(&a, one + at, sizeof a);
        memcpy(&b, other + at, sizeof b);
        if (a != b)
            break;
    }
    while (at < size && one[at] == other[at])
        at++;
    return at;
}

/* How many frames of the stack before this one begins with. */
static inline size_t flamegraph_equal_steps(const flamegraph_reading *reading, const flamegraph_line *line) {
    size_t least = reading->stack_size < line->stack_size ? reading->stack_size : line->stack_size;
    size_t equal = reading->step_count ? flamegraph_equal_bytes(reading->stack, line->stack, least) : 0, count = 0;
    while (count < reading->step_count && reading->steps[count].end <= equal)
        count++;
    if (count) { /* the last of them may go on in this stack */
        size_t end = reading->steps[count - 1].end;
        count -= end < line->stack_size && line->stack[end] != ';';
    }
    return count;
}

static inline bool flamegraph_add_step(flamegraph_reading *reading, size_t end, uint32_t node) {
    flamegraph_step step = {end, node};
    flamegraph_step *steps = (flamegraph_step *)flamegraph_reserve(reading->steps, &reading->step_capacity,
                                                                   reading->step_count, 1, sizeof *steps);
    if (!steps)
        return false;
    reading->steps = steps;
    steps[reading->step_count++] = step;
    return true;
}

/* The node where the stack ends. line->wrong, or reading->no_memory, tells why there is none. */
static inline uint32_t flamegraph_take_stack(flamegraph_reading *reading, flamegraph_line *line) {
    flamegraph *graph = reading->graph;
    size_t count = flamegraph_equal_steps(reading, line);
    size_t at = count ? reading->steps[count - 1].end + 1 : 0;
    uint32_t node = count ? reading->steps[count - 1].node : 0;
    reading->stack = line->stack;
    reading->stack_size = line->stack_size;
    reading->step_count = count;
    while (at <= line->stack_size) {
        const char *frame = line->stack + at;
        const char *stop = (const char *)memchr(frame, ';', line->stack_size - at);
        size_t size = stop ? (size_t)(stop - frame) : line->stack_size - at;
        if (flamegraph_is_all_blank(frame, size)) {
            snprintf(line->wrong, sizeof line->wrong, "frame %zu of the stack is empty", reading->step_count + 1);
            return FLAMEGRAPH_NONE;
        }
        uint32_t name = flamegraph_intern(graph, frame, size);
        node = name == FLAMEGRAPH_NONE ? name : flamegraph_child(graph, node, name);
        at += size + 1;
        if (node == FLAMEGRAPH_NONE || !flamegraph_add_step(reading, at - 1, node)) {
            reading->no_memory = true;
            return FLAMEGRAPH_NONE;
        }
    }
    return node;
}

/* The first line that is not passed over: it shows what the text is, if it is no collapsed stacks. */
static inline void flamegraph_survey_first(flamegraph_survey *survey, const char *text, const char *end,
                                           const flamegraph_line *line) {
    while (text < end && (flamegraph_is_blank(*text) || flamegraph_is_mark(text, (size_t)(end - text))))
        text += flamegraph_is_blank(*text) ? 1 : 3;
    survey->first_line = survey->lines;
    memcpy(survey->first_wrong, line->wrong, sizeof survey->first_wrong);
    survey->near_size =
        (size_t)(end - text) < sizeof survey->near_first ? (size_t)(end - text) : sizeof survey->near_first;
    memcpy(survey->near_first, text, survey->near_size);
}

static inline void flamegraph_survey_stack(flamegraph_reading *reading, const flamegraph_line *line) {
    flamegraph_survey *survey = &reading->survey;
    size_t begin = 0, root = reading->steps[0].end, threads = 0;
    if (reading->step_count > 1 && flamegraph_is_named(line->stack, root, "process ")) {
        begin = root + 1;
        root = reading->steps[++threads].end;
    }
    bool thread = flamegraph_is_thread(line->stack + begin, root - begin);
    survey->stacks++;
    survey->two_values += line->two_values && !reading->difference && !(thread && reading->step_count == threads + 1);
    survey->ours += thread && !flamegraph_is_thread_id(line->stack + begin, root - begin);
    survey->foreign += !thread;
}

/* `end` is that of all text that is at hand. */
static inline void flamegraph_take_line(flamegraph_reading *reading, const char *text, size_t size, const char *end,
                                        bool clean) {
    flamegraph_survey *survey = &reading->survey;
    flamegraph_line line;
    uint32_t node = FLAMEGRAPH_NONE;
    uint64_t value, base;
    survey->lines++;
    flamegraph_parse_line(text, size, clean, reading->difference, &line);
    if (!line.wrong[0] && !line.stack_size)
        return;
    if (!line.wrong[0])
        node = flamegraph_take_stack(reading, &line);
    if (!survey->first_line)
        flamegraph_survey_first(survey, text, end, &line);
    if (node != FLAMEGRAPH_NONE) {
        flamegraph_survey_stack(reading, &line);
        if (!flamegraph_take_values(reading, &line, &value, &base)) {
            snprintf(line.wrong, sizeof line.wrong, "the sum of all values exceeds 64 bits");
        } else {
            reading->graph->nodes[node].total += value;
            reading->no_memory = !flamegraph_add_to_base(reading->graph, node, base);
        }
    } else {
        survey->bad++;
    }
    if (line.wrong[0] && reading->complaint_count++ < FLAMEGRAPH_MAX_COMPLAINTS) {
        flamegraph_complaint *complaint = &reading->complaints[reading->complaint_count - 1];
        complaint->line = survey->lines;
        memcpy(complaint->wrong, line.wrong, sizeof complaint->wrong);
    }
}

/* Takes all whole lines; of the last piece of a text, also what has no newline. Answers how many bytes that were. */
static inline size_t flamegraph_take(flamegraph_reading *reading, const char *text, size_t size, bool last) {
    flamegraph_survey *survey = &reading->survey;
    bool clean = !memchr(text, '\0', size) && !memchr(text, '\r', size);
    size_t at = 0;
    if (!survey->start_size) {
        survey->start_size = size < sizeof survey->start ? size : sizeof survey->start;
        memcpy(survey->start, text, survey->start_size);
    }
    while (at < size && !reading->no_memory) {
        const char *end = (const char *)memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at : size - at;
        if (!end && !last)
            break;
        flamegraph_take_line(reading, text + at, length, text + size, clean);
        at += length + (end ? 1 : 0);
    }
    reading->step_count = 0; /* the text of the last stack may not stay where it is */
    return at;
}

/* Tell what is wrong with the text; true = nothing. */
static inline bool flamegraph_is_good(const flamegraph_reading *reading) {
    size_t count = reading->complaint_count;
    if (flamegraph_is_other(&reading->survey, &reading->told))
        return false;
    for (size_t i = 0; i < count && i < FLAMEGRAPH_MAX_COMPLAINTS; i++)
        flamegraph_tell(&reading->told, reading->complaints[i].line, reading->complaints[i].wrong);
    if (count > FLAMEGRAPH_MAX_COMPLAINTS) {
        char more[64];
        snprintf(more, sizeof more, "%zu more bad lines", count - FLAMEGRAPH_MAX_COMPLAINTS);
        flamegraph_tell(&reading->told, 0, more);
    }
    return count == 0;
}

/* `result` is how the reading itself went; errno tells why it failed. */
static inline flamegraph_result flamegraph_end(flamegraph_reading *reading, flamegraph_result result) {
    flamegraph *graph = reading->graph;
    if (reading->no_memory)
        result = FLAMEGRAPH_NO_MEMORY;
    if (result != FLAMEGRAPH_OK)
        flamegraph_fail(&reading->told, result);
    else if (!flamegraph_is_good(reading))
        result = FLAMEGRAPH_BAD_INPUT;
    if (result != FLAMEGRAPH_OK) {
        flamegraph_undo(reading);
    } else {
        graph->ours = graph->ours || reading->survey.ours;
        graph->foreign = graph->foreign || reading->survey.foreign;
    }
    flamegraph_own_to_totals(graph);
    flamegraph_free_mark(&reading->before);
    free(reading->steps);
    return result;
}

static inline flamegraph_result flamegraph_add_text(flamegraph *graph, const char *text, size_t size, bool difference,
                                                    const flamegraph_told *told) {
    flamegraph_reading reading;
    if (!flamegraph_begin(&reading, graph, difference, told))
        return flamegraph_fail(told, FLAMEGRAPH_NO_MEMORY);
    if (size)
        flamegraph_take(&reading, text, size, true);
    return flamegraph_end(&reading, FLAMEGRAPH_OK);
}

static inline flamegraph_result flamegraph_add(flamegraph *graph, const char *text, size_t size, const char *name,
                                               flamegraph_tell_fn tell, void *user) {
    flamegraph_told told = {tell, user, name};
    return flamegraph_add_text(graph, text, size, false, &told);
}

static inline flamegraph_result flamegraph_add_difference(flamegraph *graph, const char *text, size_t size,
                                                          const char *name, flamegraph_tell_fn tell, void *user) {
    flamegraph_told told = {tell, user, name};
    return flamegraph_add_text(graph, text, size, true, &told);
}

/* Reads block by block; one holds at least a whole line. */
static inline flamegraph_result flamegraph_read_blocks(flamegraph_reading *reading, FILE *in) {
    char *text = NULL;
    size_t size = 0, capacity = 0, got = 1, taken;
    flamegraph_result result = FLAMEGRAPH_OK;
    while (got > 0 && !reading->no_memory) {
        char *grown = text;
        if (size == capacity)
            grown = (char *)flamegraph_reserve(text, &capacity, size, size ? size : FLAMEGRAPH_BLOCK, 1);
        if (!grown) {
            result = FLAMEGRAPH_NO_MEMORY;
            break;
        }
        text = grown;
        got = fread(text + size, 1, capacity - size, in);
        size += got;
        taken = size ? flamegraph_take(reading, text, size, got == 0) : 0;
        size -= taken;
        memmove(text, text + taken, size);
    }
    int why = errno;
    free(text);
    errno = why;
    return ferror(in) ? FLAMEGRAPH_IO_ERROR : result;
}

static inline flamegraph_result flamegraph_read_text(flamegraph *graph, FILE *in, bool difference,
                                                     const flamegraph_told *told) {
    flamegraph_reading reading;
    if (!flamegraph_begin(&reading, graph, difference, told))
        return flamegraph_fail(told, FLAMEGRAPH_NO_MEMORY);
    return flamegraph_end(&reading, flamegraph_read_blocks(&reading, in));
}

static inline flamegraph_result flamegraph_read(flamegraph *graph, FILE *in, const char *name, flamegraph_tell_fn tell,
                                                void *user) {
    flamegraph_told told = {tell, user, name};
    return flamegraph_read_text(graph, in, false, &told);
}

static inline flamegraph_result flamegraph_read_difference(flamegraph *graph, FILE *in, const char *name,
                                                           flamegraph_tell_fn tell, void *user) {
    flamegraph_told told = {tell, user, name};
    return flamegraph_read_text(graph, in, true, &told);
}

/* ---- adding a tree ---- */

static inline uint32_t flamegraph_add_name(flamegraph *graph, const char *name, size_t size) {
    return flamegraph_intern(graph, name, size);
}

static inline uint32_t flamegraph_add_named(flamegraph *graph, uint32_t parent, uint32_t name) {
    uint32_t node = flamegraph_child(graph, parent, name);
    if (parent == FLAMEGRAPH_ROOT && node != FLAMEGRAPH_NONE) {
        const char *text = graph->text + graph->names[name].offset;
        bool thread = flamegraph_is_thread(text, graph->names[name].size);
        graph->ours = graph->ours || (thread && !flamegraph_is_thread_id(text, graph->names[name].size));
        graph->foreign = graph->foreign || !thread;
    }
    return node;
}

static inline uint32_t flamegraph_add_frame(flamegraph *graph, uint32_t parent, const char *name, size_t size) {
    uint32_t number = flamegraph_add_name(graph, name, size);
    return number == FLAMEGRAPH_NONE ? number : flamegraph_add_named(graph, parent, number);
}

static inline flamegraph_result flamegraph_rename(flamegraph *graph, const char *texts, const size_t *ends) {
    flamegraph before = *graph, *names = flamegraph_create();
    bool distinct = true;
    uint32_t id = 0;
    for (uint32_t i = 1; names && distinct && id != FLAMEGRAPH_NONE && i < graph->name_count; i++) {
        uint32_t number;
        memcpy(&number, graph->text + graph->names[i].offset, sizeof number);
        size_t start = number > 0 ? ends[number - 1] : 0;
        id = flamegraph_intern(names, texts + start, ends[number] - start);
        distinct = id == i || id == FLAMEGRAPH_NONE;
    }
    if (names && distinct && id != FLAMEGRAPH_NONE) {
        graph->text = names->text;
        graph->text_size = names->text_size;
        graph->text_capacity = names->text_capacity;
        graph->names = names->names;
        graph->name_capacity = names->name_capacity;
        graph->name_index = names->name_index;
        names->text = before.text;
        names->names = before.names;
        names->name_index = before.name_index;
    }
    flamegraph_free(names);
    return !names || id == FLAMEGRAPH_NONE ? FLAMEGRAPH_NO_MEMORY : distinct ? FLAMEGRAPH_OK : FLAMEGRAPH_BAD_INPUT;
}

/* Most frames of a tree have no value of their own. */
static inline flamegraph_result flamegraph_add_total(flamegraph *graph, uint32_t frame, uint64_t value) {
    if (value == 0)
        return FLAMEGRAPH_OK;
    if (!flamegraph_scale(&value, graph->decimals) || value > UINT64_MAX - flamegraph_total(graph))
        return FLAMEGRAPH_BAD_INPUT;
    for (; frame != FLAMEGRAPH_ROOT; frame = graph->nodes[frame].parent)
        graph->nodes[frame].total += value;
    graph->nodes[FLAMEGRAPH_ROOT].total += value;
    return FLAMEGRAPH_OK;
}

static inline flamegraph_result flamegraph_add_value(flamegraph *graph, uint32_t frame, uint64_t value) {
    return flamegraph_count(graph, FLAMEGRAPH_WALL) ? flamegraph_add_total(graph, frame, value) : FLAMEGRAPH_NO_MEMORY;
}

/* What is to be counted of a graph, once these are added: the first metric that is there. */
static inline flamegraph_metric flamegraph_to_count(const flamegraph *graph, const flamegraph_figures *more) {
    flamegraph_metric first = more->wall  ? FLAMEGRAPH_WALL
                              : more->cpu ? FLAMEGRAPH_CPU
                              : more->gil ? FLAMEGRAPH_GIL
                                          : FLAMEGRAPH_SAMPLES;
    return flamegraph_total(graph) && graph->counted < first ? graph->counted : first;
}

/* Whether they have no more than what is counted. */
static inline bool flamegraph_is_counted(const flamegraph *graph, flamegraph_figures figures) {
    *flamegraph_metric_of(&figures, graph->counted) = 0;
    return !figures.wall && !figures.wall_idle && !figures.cpu && !figures.gil && !figures.samples &&
           !figures.samples_idle;
}

/* Makes the graph ready for them. False = no memory. */
static inline bool flamegraph_expect_figures(flamegraph *graph, uint32_t frame, const flamegraph_figures *figures) {
    if (!flamegraph_count(graph, flamegraph_to_count(graph, figures)))
        return false;
    graph->has_figures = true;
    if (!graph->figures && graph->decimals == 0 && flamegraph_is_counted(graph, *figures))
        return true;
    return flamegraph_keep_figures(graph) && flamegraph_figures_at(graph, frame);
}

static inline bool flamegraph_is_nothing(const flamegraph_figures *figures) {
    return !figures->wall && !figures->cpu && !figures->gil && !figures->samples;
}

static inline flamegraph_result flamegraph_add_figures(flamegraph *graph, uint32_t frame,
                                                       const flamegraph_figures *figures) {
    if (figures->wall_idle > figures->wall || figures->samples_idle > figures->samples)
        return FLAMEGRAPH_BAD_INPUT;
    if (flamegraph_is_nothing(figures)) {
        graph->has_figures = true;
        return FLAMEGRAPH_OK;
    }
    flamegraph_figures *all = &graph->all, more = *figures;
    if (figures->cpu > UINT64_MAX - all->cpu || figures->gil > UINT64_MAX - all->gil ||
        figures->samples > UINT64_MAX - all->samples)
        return FLAMEGRAPH_BAD_INPUT;
    if (!flamegraph_expect_figures(graph, frame, figures))
        return FLAMEGRAPH_NO_MEMORY;
    flamegraph_result result = flamegraph_add_total(graph, frame, *flamegraph_metric_of(&more, graph->counted));
    if (result != FLAMEGRAPH_OK)
        return result;
    flamegraph_sum_figures(all, figures);
    if (graph->figures)
        flamegraph_sum_figures(&graph->figures[frame], figures);
    return FLAMEGRAPH_OK;
}

static inline flamegraph_result flamegraph_add_base(flamegraph *graph, uint32_t frame,
                                                    const flamegraph_figures *figures) {
    flamegraph_figures more = *figures, *all = &graph->base_all;
    if (more.wall_idle > more.wall || more.samples_idle > more.samples ||
        !flamegraph_scale(&more.wall, graph->decimals))
        return FLAMEGRAPH_BAD_INPUT;
    if (more.wall > UINT64_MAX - all->wall || more.cpu > UINT64_MAX - all->cpu || more.gil > UINT64_MAX - all->gil ||
        more.samples > UINT64_MAX - all->samples)
        return FLAMEGRAPH_BAD_INPUT;
    flamegraph_figures *base = flamegraph_base_at(graph, frame);
    if (!base)
        return FLAMEGRAPH_NO_MEMORY;
    flamegraph_sum_figures(all, &more);
    flamegraph_sum_figures(base, &more);
    return FLAMEGRAPH_OK;
}

/* A node's own figures; what was added as one value is wall time. `own` is what the node has itself of its total. */
static inline flamegraph_figures flamegraph_own_figures(const flamegraph *graph, uint32_t node, uint64_t own) {
    flamegraph_figures figures;
    memset(&figures, 0, sizeof figures);
    if (node < graph->figure_count)
        figures = graph->figures[node];
    uint64_t *counted = flamegraph_metric_of(&figures, graph->counted);
    if (own > *counted)
        *counted = own;
    return figures;
}

/* The one of them that is shown. */
static inline uint64_t flamegraph_figure(const flamegraph_figures *figures, flamegraph_metric metric, bool idle) {
    switch (metric) {
    case FLAMEGRAPH_CPU:
        return figures->cpu;
    case FLAMEGRAPH_GIL:
        return figures->gil;
    case FLAMEGRAPH_SAMPLES:
        return figures->samples - (idle ? 0 : figures->samples_idle);
    case FLAMEGRAPH_WALL:
        break;
    }
    return figures->wall - (idle ? 0 : figures->wall_idle);
}

/* ---- where code lives ---- */

/* The part of a name that tells where the code lives: "json/decoder.py" of
 * "loads (json/decoder.py:12)"; else what stands before the last dot or backtick, else all. */
static inline void flamegraph_module(const char **text, size_t *size) {
    const char *name = *text;
    size_t end = *size;
    if (end > 1 && name[end - 1] == ')') {
        size_t open = end - 1;
        while (open > 0 && name[open - 1] != '(')
            open--;
        if (open > 0) {
            size_t stop = end - 1;
            while (stop > open && name[stop - 1] >= '0' && name[stop - 1] <= '9')
                stop--;
            bool line = stop > open && stop < end - 1 && name[stop - 1] == ':';
            *text = name + open;
            *size = (line ? stop - 1 : end - 1) - open;
            return;
        }
    }
    for (size_t i = end; i > 1; i--) {
        if (name[i - 1] == '.' || name[i - 1] == '`') {
            *size = i - 1;
            return;
        }
    }
}

/* A frame of CPython's import machinery: of a frozen importlib module, or of a file that stands in importlib/ itself; not
 * of its metadata and resources, which programs use like any library. */
static inline bool flamegraph_is_import(const char *name, size_t size) {
    static const char frozen[] = "<frozen importlib.", folder[] = "importlib/";
    const char *module = name;
    flamegraph_module(&module, &size);
    if (module == name)
        return false;
    if (size >= sizeof frozen - 1 && memcmp(module, frozen, sizeof frozen - 1) == 0)
        return true;
    const char *end = module + size, *file = end;
    while (file > module && file[-1] != '/')
        file--;
    size_t length = sizeof folder - 1, before = (size_t)(file - module), rest = (size_t)(end - file);
    if (before < length || memcmp(file - length, folder, length) != 0)
        return false;
    if (before > length && file[-(ptrdiff_t)length - 1] != '/')
        return false;
    return !(rest == 11 && memcmp(file, "metadata.py", 11) == 0) &&
           !(rest == 12 && memcmp(file, "resources.py", 12) == 0);
}

/* ---- threads together or apart, importlib as one ---- */

/* What the names of many threads have in common: each run of digits, and what follows 0x, is a '#'. */
static inline size_t flamegraph_pattern(const char *name, size_t size, char *out) {
    size_t used = 0;
    for (size_t at = 0; at < size;) {
        bool hex = at + 2 < size && name[at] == '0' && (name[at + 1] == 'x' || name[at + 1] == 'X');
        size_t start = at;
        at += hex ? 2 : 0;
        while (at < size && ((name[at] >= '0' && name[at] <= '9') ||
                             (hex && ((name[at] >= 'a' && name[at] <= 'f') || (name[at] >= 'A' && name[at] <= 'F'))))) {
            at++;
        }
        out[used++] = at > start ? '#' : name[at++];
    }
    return used;
}

/* What a frame of importlib is shown as, together with those of importlib that it calls. */
#define FLAMEGRAPH_IMPORT "import"

/* What the view has to know of a name. */
enum flamegraph_kind {
    FLAMEGRAPH_CODE,
    FLAMEGRAPH_THREAD,   /* where a thread may stand */
    FLAMEGRAPH_PROCESS,  /* there, too */
    FLAMEGRAPH_IMPORTED, /* one of importlib that is not shown on its own */
    FLAMEGRAPH_NAME_KINDS
};

/* How a graph is shown: its threads together, or apart with those whose names differ in digits only as one; importlib's
 * frames one by one, or each run of them as one. */
typedef struct flamegraph_view {
    const flamegraph *from;
    flamegraph *graph;   /* may be `from` itself, if nothing is shown otherwise */
    flamegraph *groups;  /* the roots of `from`, threads by their patterns; a total counts the names */
    uint32_t *node;      /* of `from` -> of graph; NULL = the same */
    unsigned char *kind; /* of a name of `from`: see flamegraph_kind */
    uint32_t *word;      /* name of `from` -> of graph, as far as it was needed already, or FLAMEGRAPH_NONE */
    char *name;          /* as long as the longest needs to be */
    size_t threads;
    bool apart;
    bool alone; /* all stacks are of one thread, which stands at the root: node 1. The view is the tree below it */
    bool has[FLAMEGRAPH_NAME_KINDS]; /* whether there are names of the kind */
    bool copied;                     /* never `from` itself */
    bool lent;              /* graph has the nodes of `from` itself until the view is freed: of a thread alone */
    flamegraph_node thread; /* then this is the thread's, which it has not */
} flamegraph_view;

static inline const char *flamegraph_name_of(const flamegraph *graph, uint32_t node, size_t *size) {
    const flamegraph_name *name = &graph->names[graph->nodes[node].name];
    *size = name->size;
    return graph->text + name->offset;
}

static inline enum flamegraph_kind flamegraph_kind_of(const flamegraph_view *view, uint32_t node) {
    return (enum flamegraph_kind)view->kind[view->from->nodes[node].name];
}

/* Whether threads may stand above the node: it is the root or a process. */
static inline bool flamegraph_holds_threads(const flamegraph_view *view, uint32_t node) {
    while (node && flamegraph_kind_of(view, node) == FLAMEGRAPH_PROCESS)
        node = view->from->nodes[node].parent;
    return node == 0;
}

static inline bool flamegraph_view_is_thread(const flamegraph_view *view, uint32_t node) {
    return flamegraph_kind_of(view, node) == FLAMEGRAPH_THREAD &&
           flamegraph_holds_threads(view, view->from->nodes[node].parent);
}

/* The node of the view that shows one of `from`. */
static inline uint32_t flamegraph_view_node(const flamegraph_view *view, uint32_t node) {
    if (view->node)
        return view->node[node];
    return view->graph != view->from && view->alone && node ? node - 1 : node;
}

/* The group of a thread, or of a process where threads may stand; FLAMEGRAPH_NONE = no memory. */
static inline uint32_t flamegraph_group(flamegraph_view *view, uint32_t node) {
    size_t size;
    const char *name = flamegraph_name_of(view->from, node, &size);
    if (node == 0)
        return 0;
    uint32_t above = flamegraph_group(view, view->from->nodes[node].parent);
    if (flamegraph_kind_of(view, node) == FLAMEGRAPH_THREAD) {
        size = flamegraph_pattern(name, size, view->name);
        name = view->name;
    }
    uint32_t id = above == FLAMEGRAPH_NONE ? above : flamegraph_intern(view->groups, name, size);
    return id == FLAMEGRAPH_NONE ? id : flamegraph_child(view->groups, above, id);
}

/* Threads of one name pattern below one process are a group, which counts them. */
static inline bool flamegraph_find_groups(flamegraph_view *view) {
    const flamegraph *from = view->from;
    bool looks = view->has[FLAMEGRAPH_THREAD] && !from->threadless;
    bool one = from->roots == 1 && !view->has[FLAMEGRAPH_PROCESS]; /* only node 1 stands where a thread may */
    size_t end = one ? 2 : from->node_count;
    for (uint32_t i = 1; looks && i < end; i++) {
        if (!flamegraph_view_is_thread(view, i))
            continue;
        uint32_t group = flamegraph_group(view, i);
        if (group == FLAMEGRAPH_NONE)
            return false;
        view->groups->nodes[group].total++;
        view->threads++;
    }
    view->alone = from->roots == 1 && flamegraph_view_is_thread(view, 1);
    return true;
}

/* The name of a thread in the view: its own, or what it has in common with others. */
static inline uint32_t flamegraph_thread_name(flamegraph_view *view, uint32_t node) {
    size_t size;
    const char *name = flamegraph_name_of(view->from, node, &size);
    uint32_t group = flamegraph_group(view, node);
    if (group == FLAMEGRAPH_NONE)
        return group;
    uint64_t count = view->groups->nodes[group].total;
    if (count == 1)
        return flamegraph_intern(view->graph, name, size);
    size = flamegraph_pattern(name, size, view->name);
    size += (size_t)snprintf(view->name + size, 40, " (%" PRIu64 " threads)", count);
    return flamegraph_intern(view->graph, view->name, size);
}

/* NULL = no memory, or that there is nothing to copy. */
static inline void *flamegraph_copy_bytes(const void *bytes, size_t size) {
    void *copy = bytes ? malloc(size + 1) : NULL;
    if (copy)
        memcpy(copy, bytes, size);
    return copy;
}

/* A copy whose figures may be changed, but to which nothing can be added: it finds no frame again. NULL = no memory. */
static inline flamegraph *flamegraph_copy(const flamegraph *from) {
    flamegraph *copy = (flamegraph *)flamegraph_copy_bytes(from, sizeof *from);
    if (!copy)
        return NULL;
    memset(&copy->name_index, 0, sizeof copy->name_index);
    memset(&copy->node_index, 0, sizeof copy->node_index);
    copy->text = (char *)flamegraph_copy_bytes(from->text, from->text_size);
    copy->names = (flamegraph_name *)flamegraph_copy_bytes(from->names, from->name_count * sizeof *from->names);
    copy->nodes = (flamegraph_node *)flamegraph_copy_bytes(from->nodes, from->node_count * sizeof *from->nodes);
    copy->figures =
        (flamegraph_figures *)flamegraph_copy_bytes(from->figures, from->figure_count * sizeof *from->figures);
    copy->base = (flamegraph_figures *)flamegraph_copy_bytes(from->base, from->base_count * sizeof *from->base);
    if (!copy->text || !copy->names || !copy->nodes || !copy->figures != !from->figures || !copy->base != !from->base) {
        flamegraph_free(copy);
        return NULL;
    }
    return copy;
}

/* The name that a frame has in the view. */
static inline uint32_t flamegraph_view_name(flamegraph_view *view, uint32_t node) {
    size_t size;
    const char *text = flamegraph_name_of(view->from, node, &size);
    uint32_t *word = &view->word[view->from->nodes[node].name];
    if (flamegraph_view_is_thread(view, node))
        return flamegraph_thread_name(view, node);
    if (*word == FLAMEGRAPH_NONE && flamegraph_kind_of(view, node) == FLAMEGRAPH_IMPORTED)
        *word = flamegraph_intern(view->graph, FLAMEGRAPH_IMPORT, strlen(FLAMEGRAPH_IMPORT));
    else if (*word == FLAMEGRAPH_NONE)
        *word = flamegraph_intern(view->graph, text, size);
    return *word;
}

/* Whether a frame is shown as part of what is shown of its caller: what a thread did is its process's where threads are
 * together, and what importlib calls of its own is one frame. */
static inline bool flamegraph_view_joins(const flamegraph_view *view, uint32_t node, uint32_t parent) {
    size_t size;
    if (!view->apart && flamegraph_view_is_thread(view, node))
        return true;
    if (flamegraph_kind_of(view, node) != FLAMEGRAPH_IMPORTED || parent == 0)
        return false;
    const char *name = flamegraph_name_of(view->graph, parent, &size);
    return size == strlen(FLAMEGRAPH_IMPORT) && memcmp(name, FLAMEGRAPH_IMPORT, size) == 0;
}

static inline bool flamegraph_fill_view(flamegraph_view *view) {
    const flamegraph *from = view->from;
    flamegraph *graph = view->graph;
    graph->nodes[0].total = from->nodes[0].total;
    graph->decimals = from->decimals;
    graph->has_figures = from->has_figures;
    graph->counted = from->counted;
    view->node[0] = 0;
    if (from->figures && !flamegraph_figures_at(graph, 0))
        return false;
    if (from->figures)
        graph->figures[0] = from->figures[0];
    if (from->base_count && !flamegraph_base_at(graph, 0))
        return false;
    if (from->base_count)
        graph->base[0] = from->base[0];
    for (uint32_t i = 1; i < from->node_count; i++) {
        uint32_t parent = view->node[from->nodes[i].parent];
        uint32_t node = parent;
        if (!flamegraph_view_joins(view, i, parent)) {
            uint32_t name = flamegraph_view_name(view, i);
            node = name == FLAMEGRAPH_NONE ? name : flamegraph_child(graph, parent, name);
            if (node == FLAMEGRAPH_NONE)
                return false;
            graph->nodes[node].total += from->nodes[i].total;
        }
        view->node[i] = node;
        if (i < from->figure_count && !flamegraph_figures_at(graph, node))
            return false;
        if (i < from->figure_count)
            flamegraph_sum_figures(&graph->figures[node], &from->figures[i]);
        if (i < from->base_count && !flamegraph_base_at(graph, node))
            return false;
        if (i < from->base_count)
            flamegraph_sum_figures(&graph->base[node], &from->base[i]);
    }
    return true;
}

/* As flamegraph_fill_alone, for trees of millions of nodes, of which a copy takes longer than all that is drawn: the nodes
 * of `from` move up by one, into the place of the thread's, and are back in theirs when the view is freed. */
static inline bool flamegraph_lend(flamegraph_view *view) {
    flamegraph *from = (flamegraph *)(uintptr_t)view->from;
    view->graph = (flamegraph *)malloc(sizeof *view->graph);
    if (!view->graph)
        return false;
    *view->graph = *from;
    view->graph->threadless = true;
    view->graph->roots = 0;
    view->lent = true;
    view->thread = from->nodes[1];
    flamegraph_node *nodes = from->nodes;
    for (uint32_t i = 2; i < from->node_count; i++) {
        flamegraph_node node = {nodes[i].parent - 1, nodes[i].name, nodes[i].total};
        nodes[i - 1] = node;
        view->graph->roots += node.parent == 0;
        view->graph->threadless = view->graph->threadless && view->kind[node.name] != FLAMEGRAPH_THREAD;
    }
    view->graph->node_count--;
    return true;
}

static inline void flamegraph_give_back(flamegraph_view *view) {
    flamegraph_node *nodes = view->from->nodes;
    for (size_t i = view->from->node_count; i-- > 2;) {
        flamegraph_node node = {nodes[i - 1].parent + 1, nodes[i - 1].name, nodes[i - 1].total};
        nodes[i] = node;
    }
    nodes[1] = view->thread;
    free(view->graph);
}

/* Where a thread is alone, its view is the tree without it: no two frames become one. */
static inline bool flamegraph_fill_alone(flamegraph_view *view) {
    const flamegraph *from = view->from;
    flamegraph *graph = view->graph;
    flamegraph_node *nodes = (flamegraph_node *)flamegraph_reserve(graph->nodes, &graph->node_capacity, 1,
                                                                   from->node_count - 2, sizeof *nodes);
    if (!nodes)
        return false;
    graph->nodes = nodes;
    graph->nodes[0].total = from->nodes[0].total;
    graph->has_figures = from->has_figures;
    graph->counted = from->counted;
    graph->decimals = from->decimals;
    for (uint32_t i = 2; i < from->node_count; i++) {
        uint32_t *word = &view->word[from->nodes[i].name];
        uint32_t name = *word != FLAMEGRAPH_NONE ? *word : flamegraph_view_name(view, i);
        flamegraph_node node = {from->nodes[i].parent - 1, name, from->nodes[i].total};
        if (name == FLAMEGRAPH_NONE)
            return false;
        nodes[i - 1] = node;
        graph->roots += node.parent == 0;
    }
    graph->node_count = from->node_count - 1;
    for (uint32_t i = 0; i < from->figure_count; i++) {
        if (!flamegraph_figures_at(graph, flamegraph_view_node(view, i)))
            return false;
        flamegraph_sum_figures(&graph->figures[flamegraph_view_node(view, i)], &from->figures[i]);
    }
    return true;
}

/* Which node shows which one, is not asked any more. */
static inline void flamegraph_view_forget_nodes(flamegraph_view *view) {
    free(view->node);
    view->node = NULL;
}

static inline void flamegraph_view_free(flamegraph_view *view) {
    if (view->lent)
        flamegraph_give_back(view);
    else if (view->graph != view->from)
        flamegraph_free(view->graph);
    view->graph = NULL;
    flamegraph_free(view->groups);
    flamegraph_view_forget_nodes(view);
    free(view->kind);
    free(view->word);
    free(view->name);
}

/* Whether the view shows `from` as it is: no frame joins another, and none has another name. */
static inline bool flamegraph_view_is_plain(const flamegraph_view *view) {
    if (view->has[FLAMEGRAPH_IMPORTED] || (view->threads && !view->apart))
        return false;
    for (size_t i = 1; i < view->groups->node_count; i++) {
        if (view->groups->nodes[i].total > 1)
            return false;
    }
    return true;
}

static inline enum flamegraph_kind flamegraph_kind_of_name(const char *name, size_t size, bool imports) {
    if (flamegraph_is_thread(name, size))
        return FLAMEGRAPH_THREAD;
    if (flamegraph_is_named(name, size, "process "))
        return FLAMEGRAPH_PROCESS;
    return imports && flamegraph_is_import(name, size) ? FLAMEGRAPH_IMPORTED : FLAMEGRAPH_CODE;
}

/* False = no memory. */
static inline bool flamegraph_view_names(flamegraph_view *view, bool imports) {
    const flamegraph *from = view->from;
    size_t longest = 0;
    view->kind = (unsigned char *)malloc(from->name_count);
    for (size_t i = 0; view->kind && i < from->name_count; i++) {
        size_t size = from->names[i].size;
        enum flamegraph_kind kind = flamegraph_kind_of_name(from->text + from->names[i].offset, size, imports);
        view->kind[i] = (unsigned char)kind;
        view->has[kind] = true;
        longest = size > longest ? size : longest;
    }
    view->name = (char *)malloc(longest + 64);
    return view->kind && view->name;
}

/* lend: nobody looks at the nodes of `from` until the view is freed. */
static inline bool flamegraph_view_make(flamegraph_view *view, const flamegraph *from, bool apart, bool imports,
                                        bool lend) {
    memset(view, 0, sizeof *view);
    view->from = from;
    view->apart = apart;
    view->copied = imports && (from->figures || (from->has_figures && from->base_count));
    view->groups = flamegraph_create();
    if (!view->groups || !flamegraph_view_names(view, imports) || !flamegraph_find_groups(view))
        return false;
    view->alone = view->alone && !apart && !from->base_count;
    if (flamegraph_view_is_plain(view)) {
        view->graph = view->copied ? flamegraph_copy(from) : (flamegraph *)from;
        return view->graph != NULL;
    }
    if (lend && view->alone && !from->figures && !view->has[FLAMEGRAPH_PROCESS])
        return flamegraph_lend(view);
    view->graph = flamegraph_create();
    view->node = view->alone ? NULL : (uint32_t *)malloc(from->node_count * sizeof *view->node);
    view->word = (uint32_t *)malloc(from->name_count * sizeof *view->word);
    if (!view->graph || (!view->node && !view->alone) || !view->word)
        return false;
    memset(view->word, 0xff, from->name_count * sizeof *view->word); /* all are FLAMEGRAPH_NONE */
    return view->alone ? flamegraph_fill_alone(view) : flamegraph_fill_view(view);
}

/* ---- writing text ---- */

/* What was written last, on its way to the caller's function. */
typedef struct flamegraph_out {
    flamegraph_write_fn write;
    void *user;
    bool broken;
    size_t used;
    char bytes[8192];
} flamegraph_out;

static inline void flamegraph_flush(flamegraph_out *out) {
    if (!out->broken && out->used && !out->write(out->user, out->bytes, out->used))
        out->broken = true;
    out->used = 0;
}

static inline void flamegraph_putc(int byte, flamegraph_out *out) {
    if (out->used == sizeof out->bytes)
        flamegraph_flush(out);
    out->bytes[out->used++] = (char)byte;
}

static inline void flamegraph_puts(const char *text, flamegraph_out *out) {
    for (size_t left = strlen(text), size; left > 0; left -= size, text += size) {
        if (out->used == sizeof out->bytes)
            flamegraph_flush(out);
        size = sizeof out->bytes - out->used < left ? sizeof out->bytes - out->used : left;
        memcpy(out->bytes + out->used, text, size);
        out->used += size;
    }
}

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static inline void
flamegraph_print(flamegraph_out *out, const char *format, ...) {
    char text[512]; /* the formats here are short */
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    flamegraph_puts(text, out);
}

/* As "%.*f" does, but with a decimal point in every locale, and ties go up, as the script rounds them. */
static inline const char *flamegraph_fixed(char *out, size_t room, double number, int digits) {
    uint64_t scale = 1;
    for (int i = 0; i < digits; i++)
        scale *= 10;
    uint64_t scaled = (uint64_t)((number + number * 1e-12) * (double)scale + 0.5);
    snprintf(out, room, digits ? "%" PRIu64 ".%0*" PRIu64 : "%" PRIu64, scaled / scale, digits, scaled % scale);
    return out;
}

/* As "%g" does for what options.min_width may be, with a decimal point in every locale. */
static inline const char *flamegraph_short(char *out, size_t room, double number) {
    flamegraph_fixed(out, room, number, 4);
    for (size_t end = strlen(out); end > 1 && (out[end - 1] == '0' || out[end - 1] == '.'); end--) {
        bool point = out[end - 1] == '.';
        out[end - 1] = '\0';
        if (point)
            break;
    }
    return out;
}

static inline void flamegraph_put_fixed(double number, int digits, flamegraph_out *out) {
    char text[48];
    flamegraph_puts(flamegraph_fixed(text, sizeof text, number, digits), out);
}

/* One character of UTF-8 that XML allows, or U+FFFD for a byte that is none; moves *at behind it. */
static inline uint32_t flamegraph_character(const char **at, const char *end) {
    const unsigned char *bytes = (const unsigned char *)*at;
    size_t left = (size_t)(end - *at);
    size_t size = bytes[0] < 0x80 ? 1 : bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : 4;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    *at += 1;
    if (bytes[0] == '\t')
        return ' ';
    if (size == 1)
        return bytes[0] < 0x20 || bytes[0] == 0x7f ? 0xfffd : bytes[0];
    if (size > left || bytes[0] < 0xc0 || bytes[0] > 0xf7)
        return 0xfffd;
    uint32_t code = bytes[0] & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0xfffd;
        code = code << 6 | (bytes[i] & 0x3fu);
    }
    if (code < least[size] || code > 0x10ffff)
        return 0xfffd;
    if ((code >= 0x80 && code < 0xa0) || (code >= 0xd800 && code < 0xe000))
        return 0xfffd;
    if ((code & 0xfffe) == 0xfffe)
        return 0xfffd;
    *at += size - 1;
    return code;
}

static inline void flamegraph_put(uint32_t code, flamegraph_out *out) {
    if (code < 0x80) {
        flamegraph_putc((int)code, out);
        return;
    }
    if (code < 0x800) {
        flamegraph_putc((int)(0xc0 | code >> 6), out);
    } else {
        if (code < 0x10000) {
            flamegraph_putc((int)(0xe0 | code >> 12), out);
        } else {
            flamegraph_putc((int)(0xf0 | code >> 18), out);
            flamegraph_putc((int)(0x80 | (code >> 12 & 0x3f)), out);
        }
        flamegraph_putc((int)(0x80 | (code >> 6 & 0x3f)), out);
    }
    flamegraph_putc((int)(0x80 | (code & 0x3f)), out);
}

/* Text for XML content and quoted attributes. */
static inline void flamegraph_put_xml(const char *at, size_t size, flamegraph_out *out) {
    for (const char *end = at + size; at < end;) {
        uint32_t code = flamegraph_character(&at, end);
        switch (code) {
        case '<':
            flamegraph_puts("&lt;", out);
            break;
        case '>':
            flamegraph_puts("&gt;", out);
            break;
        case '&':
            flamegraph_puts("&amp;", out);
            break;
        case '"':
            flamegraph_puts("&quot;", out);
            break;
        default:
            flamegraph_put(code, out);
        }
    }
}

/* A JavaScript string that neither ends a CDATA section nor a script element. */
static inline void flamegraph_put_js(const char *at, size_t size, flamegraph_out *out) {
    flamegraph_putc('"', out);
    for (const char *end = at + size; at < end;) {
        uint32_t code = flamegraph_character(&at, end);
        if (code == '"' || code == '\\' || code == '<' || code == '>' || code == '&' || code == 0x2028 ||
            code == 0x2029) {
            flamegraph_print(out, "\\u%04" PRIx32, code);
        } else {
            flamegraph_put(code, out);
        }
    }
    flamegraph_putc('"', out);
}

/* How wide a character can be at most, in 1/100 em: a guess on the safe side for the common
 * sans-serif fonts, for the picture that viewers without scripts show. The script measures. */
static inline int flamegraph_em(uint32_t code) {
    if (code >= 0x80)
        return code < 0x1100 ? 95 : code < 0x10000 ? 105 : 145;
    if (strchr("ijl'|", (int)code))
        return 36;
    if (strchr(" !.,:;()[]/\\-Itfr\"`{}", (int)code))
        return 48;
    if (strchr("mwMW@%#+<>=~^&", (int)code))
        return 100;
    return code >= 'A' && code <= 'Z' ? 80 : 65;
}

/* Write as much of the text as fits into `room` pixels, with an ellipsis if that is not all. */
static inline void flamegraph_put_fitting(const char *text, size_t size, double room, double font_size,
                                          flamegraph_out *out) {
    const char *end = text + size, *at = text, *cut = text;
    double width = 0, ellipsis = font_size;
    while (at < end) {
        width += flamegraph_em(flamegraph_character(&at, end)) * font_size / 100;
        if (width > room)
            break;
        if (width + ellipsis <= room)
            cut = at;
    }
    if (width <= room) {
        flamegraph_put_xml(text, size, out);
    } else if (cut > text) {
        flamegraph_put_xml(text, (size_t)(cut - text), out);
        flamegraph_puts("\xe2\x80\xa6", out);
    }
}

/* How many nanoseconds one unit is; 0 = it is no time. */
static inline double flamegraph_nanoseconds(const char *unit) {
    if (strcmp(unit, "ns") == 0)
        return 1;
    if (strcmp(unit, "us") == 0)
        return 1e3;
    if (strcmp(unit, "ms") == 0)
        return 1e6;
    if (strcmp(unit, "s") == 0)
        return 1e9;
    return 0;
}

static inline void flamegraph_format_count(char *out, size_t room, uint64_t count) {
    char digits[24];
    size_t length = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, count), used = 0;
    for (size_t i = 0; i < length && used + 2 < room; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
}

static inline void flamegraph_append(char *out, size_t room, const char *text) {
    for (size_t used = strlen(out); *text && used + 1 < room; out[used] = '\0')
        out[used++] = *text++;
}

/* Three digits of what is no whole number, as the script has them. */
static inline int flamegraph_digits(double number) {
    int digits = number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2;
    for (; number > 0 && number < 0.9995 && digits < 15; digits++)
        number *= 10;
    return digits;
}

/* "512 bytes", "1.50 KiB", "45.6 MiB": three digits of more than a thousand. */
static inline void flamegraph_format_bytes(char *out, size_t room, double bytes) {
    static const char *const steps[] = {" bytes", " KiB", " MiB", " GiB", " TiB"};
    int step = 0;
    for (; step < 4 && bytes >= 1023.5; step++)
        bytes /= 1024;
    if (bytes >= 999.5)
        flamegraph_format_count(out, room, bytes < 1e18 ? (uint64_t)(bytes + 0.5) : UINT64_MAX);
    else
        flamegraph_fixed(out, room, bytes, step == 0 || bytes >= 99.95 ? 0 : bytes >= 9.995 ? 1 : 2);
    flamegraph_append(out, room, step == 0 && bytes == 1 ? " byte" : steps[step]);
}

/* "1.23 s", "45.6 ms", "45.6 KiB", "1,234 samples": three digits for times and for what is no whole number, all of them
 * for counts. The value is in units of 1/per. */
static inline void flamegraph_format_amount(char *out, size_t room, uint64_t value, const char *unit, uint64_t per) {
    static const char *const steps[] = {" ns", " \xc2\xb5s", " ms", " s"};
    double number = (double)value / (double)per;
    if (strcmp(unit, "bytes") == 0 && value % per == 0) {
        flamegraph_format_bytes(out, room, number);
        return;
    }
    if (flamegraph_nanoseconds(unit) <= 0) {
        size_t length = strlen(unit);
        char word[48];
        if (value % per && number < 999.5)
            flamegraph_fixed(out, room, number, flamegraph_digits(number));
        else
            flamegraph_format_count(out, room, value % per ? (uint64_t)(number + 0.5) : value / per);
        if (value == per && length > 1 && unit[length - 1] == 's')
            length--;
        snprintf(word, sizeof word, " %.*s", (int)(length < 40 ? length : 40), unit);
        flamegraph_append(out, room, word);
        return;
    }
    double time = number * flamegraph_nanoseconds(unit);
    int step = value ? 0 : 3;
    for (; step < 3 && time >= 999.5; step++)
        time /= 1000;
    if (time >= 999.5) {
        flamegraph_format_count(out, room, time < 1e18 ? (uint64_t)(time + 0.5) : value / per);
    } else {
        bool whole = step == 0 || time >= 99.95 || !value;
        flamegraph_fixed(out, room, time, whole ? 0 : time >= 9.995 ? 1 : 2);
    }
    flamegraph_append(out, room, steps[step]);
}

static inline void flamegraph_format_percent(char *out, size_t room, uint64_t value, uint64_t of) {
    double share = of ? 100.0 * (double)value / (double)of : 0;
    if (share > 0 && share < 0.01) {
        snprintf(out, room, "<0.01%%");
    } else {
        flamegraph_fixed(out, room, share, share >= 1 ? 1 : share > 0 ? 2 : 0);
        flamegraph_append(out, room, "%");
    }
}

/* One more of the facts, behind those that stand there. */
static inline void flamegraph_append_fact(char *out, size_t room, const char *before, const char *fact) {
    flamegraph_append(out, room, out[0] ? " \xc2\xb7 " : "");
    flamegraph_append(out, room, before);
    flamegraph_append(out, room, fact);
}

/* "12.1", "100", "0.5": three digits, without zeros behind the point. */
static inline void flamegraph_format_plain(char *out, size_t room, double number) {
    flamegraph_fixed(out, room, number, flamegraph_digits(number));
    for (size_t end = strlen(out); strchr(out, '.') && (out[end - 1] == '0' || out[end - 1] == '.'); end--)
        out[end - 1] = '\0';
}

static inline void flamegraph_format_date(char *out, size_t room, int64_t seconds) {
    struct tm parts;
    time_t moment = (time_t)seconds;
    out[0] = '\0';
    if (gmtime_r(&moment, &parts))
        strftime(out, room, "%Y-%m-%d %H:%M UTC", &parts);
}

/* "game.py · Python 3.11.2 · 2024-05-01 12:00 UTC · 12.1 s · 100 Hz · 1,204 samples, 2 lost": what is known of it. */
static inline void flamegraph_format_facts(char *out, size_t room, const flamegraph_facts *facts) {
    char text[96], lost[32];
    out[0] = '\0';
    if (facts->program && facts->program[0]) {
        snprintf(text, sizeof text, "%s", facts->program);
        flamegraph_append_fact(out, room, "", text);
    }
    if (facts->python && facts->python[0])
        flamegraph_append_fact(out, room, "Python ", facts->python);
    if (facts->date) {
        flamegraph_format_date(text, sizeof text, facts->date);
        flamegraph_append_fact(out, room, "", text);
    }
    if (facts->seconds > 0 && facts->seconds < 1e9) {
        flamegraph_format_amount(text, sizeof text, (uint64_t)(facts->seconds * 1e9 + 0.5), "ns", 1);
        flamegraph_append_fact(out, room, "", text);
    }
    if (facts->rate > 0 && facts->rate < 1e9) {
        flamegraph_format_plain(text, sizeof text, facts->rate);
        flamegraph_append_fact(out, room, "", text);
        flamegraph_append(out, room, " Hz");
    }
    if (facts->bytes) {
        flamegraph_format_bytes(text, sizeof text, (double)facts->bytes);
        flamegraph_append_fact(out, room, "one in ", text);
    }
    if (facts->samples) {
        flamegraph_format_amount(text, sizeof text, facts->samples, "samples", 1);
        flamegraph_format_count(lost, sizeof lost, facts->lost);
        flamegraph_append_fact(out, room, "", text);
        flamegraph_append(out, room, ", ");
        flamegraph_append(out, room, facts->lost ? lost : "none");
        flamegraph_append(out, room, " lost");
    }
}

/* ---- colours ---- */

/* A light colour, hue by module, lightness by function: equal in every run and every profile.
 * Frames that stand for no code (the root, threads, what was cut off) and CPython's frozen import
 * machinery are grey. */
static const uint32_t flamegraph_hues[] = {/* evenly spaced in OKLCH: L 0.82, C 0.09 */
                                           0xf5acc2, 0xf9adac, 0xf7b198, 0xf0b788, 0xe3be80, 0xd1c681,
                                           0xbccd8b, 0xa5d39b, 0x8fd7b0, 0x7ed8c6, 0x78d6db, 0x7ed2ed,
                                           0x8dccf9, 0xa2c5ff, 0xb8befe, 0xcdb7f6, 0xdeb2e9, 0xecaed7};
enum {
    FLAMEGRAPH_HUES = sizeof flamegraph_hues / sizeof flamegraph_hues[0]
};

/* The number by which the script knows a name's colour: 0 = stands for no code, 1 = CPython's frozen machinery,
 * 2 = importlib; else 3 + place * 3 + lightness. */
static inline uint32_t flamegraph_colour_code(const char *name, size_t size) {
    if (flamegraph_is_thread(name, size) || flamegraph_is_named(name, size, "process ") || name[0] == '[' ||
        (size == 3 && memcmp(name, "all", 3) == 0))
        return 0;
    if (flamegraph_is_import(name, size))
        return 2;
    const char *module = name;
    size_t module_size = size;
    flamegraph_module(&module, &module_size);
    if ((module_size > 8 && memcmp(module, "<frozen ", 8) == 0) ||
        (size == strlen(FLAMEGRAPH_IMPORT) && memcmp(name, FLAMEGRAPH_IMPORT, size) == 0))
        return 1;
    uint32_t place = (uint32_t)(flamegraph_hash(module, module_size) % (FLAMEGRAPH_HUES * 64u));
    return 3 + place * 3 + (uint32_t)(flamegraph_hash(name, size) >> 20) % 3;
}

static inline uint32_t flamegraph_colour(const char *name, size_t size) {
    uint32_t code = flamegraph_colour_code(name, size), colour = 0;
    if (code < 3)
        return code ? 0xdedfd8 : 0xd5dae1;
    uint32_t place = (code - 3) / 3, white = (code - 3) % 3 * 16; /* of 128 */
    uint32_t from = flamegraph_hues[place / 64], to = flamegraph_hues[(place / 64 + 1) % FLAMEGRAPH_HUES];
    uint32_t mix = place % 64;
    for (int shift = 0; shift < 24; shift += 8) {
        uint32_t channel = ((from >> shift & 255) * (64 - mix) + (to >> shift & 255) * mix) / 64;
        colour |= (channel + (255 - channel) * white / 128) << shift;
    }
    return colour;
}

/* ---- differences ---- */

/* How large a change is has so many steps: from 0.05 to 10 percent of all. What is below the first is as it was. */
static const double flamegraph_steps[] = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1};
enum {
    FLAMEGRAPH_STEPS = sizeof flamegraph_steps / sizeof flamegraph_steps[0]
};

/* How a value has changed against the base's, as a part of all. */
static inline double flamegraph_change(flamegraph_difference difference, uint64_t value, uint64_t total, uint64_t base,
                                       uint64_t base_total) {
    if (difference == FLAMEGRAPH_ABSOLUTE)
        return ((double)value - (double)base) / (double)(base_total ? base_total : total);
    return (double)value / (double)total - (base_total ? (double)base / (double)base_total : 0);
}

/* From -FLAMEGRAPH_STEPS, much less, to FLAMEGRAPH_STEPS, much more. */
static inline int flamegraph_step_of(double change) {
    double size = (change < 0 ? -change : change) + 1e-9; /* 0.3 - 0.25 is less than 0.05 */
    int step = 0;
    while (step < FLAMEGRAPH_STEPS && size >= flamegraph_steps[step])
        step++;
    return change < 0 ? -step : step;
}

/* Grey, or the further towards red or blue the larger the step is; text is readable on each. */
static inline uint32_t flamegraph_change_colour(int step, bool dark) {
    static const uint32_t ends[2][3] = {{0x6aa5f0, 0xe8eaed, 0xf0705a}, {0x2a66c8, 0x30363d, 0xc03a2b}};
    uint32_t from = ends[dark][1], to = ends[dark][step < 0 ? 0 : 2], colour = 0;
    int mix = step ? (step < 0 ? -step : step) + 1 : 0;
    for (int shift = 0; shift < 24; shift += 8) {
        int start = (int)(from >> shift & 255), end = (int)(to >> shift & 255);
        colour |= (uint32_t)(start + (end - start) * mix / (FLAMEGRAPH_STEPS + 1)) << shift;
    }
    return colour;
}

/* "+10.0", "\xe2\x88\x920.25", "0": in percent. */
static inline void flamegraph_format_change(char *out, size_t room, double change) {
    char digits[32];
    double size = 100 * (change < 0 ? -change : change);
    flamegraph_fixed(digits, sizeof digits, size, size >= 0.995 ? 1 : 2);
    snprintf(out, room, "%s", size < 0.005 ? "" : change < 0 ? "\xe2\x88\x92" : "+");
    flamegraph_append(out, room, size < 0.005 ? "0" : digits);
}

/* ---- the picture ---- */

/* A frame that the file describes. Entries stand in breadth-first order: the children of one entry
 * are neighbours, by falling value. */
typedef struct flamegraph_entry {
    uint32_t node;
    uint32_t level;
    uint32_t child_count, first_child;    /* an entry's index */
    uint64_t folded_frames, folded_value; /* what the file leaves out below this frame */
    uint64_t hidden_value;                /* its callees that are not drawn, those included */
    double x, width;                      /* width 0 = not drawn */
    double hidden_x, hidden_width;        /* the hatched box in their place */
} flamegraph_entry;

typedef struct flamegraph_picture {
    const flamegraph *graph;
    flamegraph_options options; /* with the defaults filled in */
    uint64_t per;               /* a value of so much is one unit */
    char together[64];          /* how many threads are shown as one; empty = none */
    char shown[48];             /* which of the figures, in words; empty = there is one value only */
    char facts[512];            /* the line of them; empty = nothing is known */
    uint32_t *order;            /* nodes of the file, in the end by (parent, value, name) */
    uint32_t *place;            /* node -> its entry; a left out node -> its nearest known caller's */
    flamegraph_entry *entries;
    size_t count;
    size_t valued;          /* how many nodes have a value */
    uint32_t levels;        /* of what is drawn */
    uint64_t hidden_frames; /* not drawn on their own, though they have a value */
    uint64_t *base;         /* of a difference: node -> its total in the base, of what is shown */
    uint64_t gone;          /* and how many frames are in the base only */
    char kept_text[128];    /* the sentence about what the file itself leaves out; empty when it has all */
} flamegraph_picture;

static inline flamegraph_options flamegraph_defaults(const flamegraph_options *given, const flamegraph *graph) {
    flamegraph_options options;
    memset(&options, 0, sizeof options);
    if (given)
        options = *given;
    if (!options.title)
        options.title = "Flame graph";
    if (!options.subtitle)
        options.subtitle = "";
    options.memory = options.memory && graph->has_figures;
    if (options.memory)
        options.unit = "bytes";
    if (!options.unit)
        options.unit = graph->has_figures || (graph->ours && !graph->foreign) ? "us" : "samples";
    if (!(options.min_width > 0))
        options.min_width = 1;
    return options;
}

static inline int flamegraph_width(const flamegraph_options *options) {
    int width = options->width ? options->width : 1200;
    if (width < FLAMEGRAPH_MIN_WIDTH)
        return FLAMEGRAPH_MIN_WIDTH;
    return width > FLAMEGRAPH_MAX_WIDTH ? FLAMEGRAPH_MAX_WIDTH : width;
}

/* How high the head is. */
static inline int flamegraph_top(const flamegraph_picture *picture) {
    return FLAMEGRAPH_TOP + (picture->facts[0] ? FLAMEGRAPH_FACTS : 0);
}

static inline int flamegraph_height(const flamegraph_picture *picture) {
    return flamegraph_top(picture) + (int)picture->levels * FLAMEGRAPH_ROW + FLAMEGRAPH_BOTTOM;
}

/* How large a node is: what it has, or what it had. */
static inline uint64_t flamegraph_weight(const flamegraph_picture *picture, size_t node) {
    uint64_t total = picture->graph->nodes[node].total;
    return picture->base && picture->base[node] > total ? picture->base[node] : total;
}

#define FLAMEGRAPH_CUTOFF_BITS 11

/* A number that grows with the value: its highest bit, and the five that follow it. */
static inline size_t flamegraph_magnitude(uint64_t value) {
    unsigned highest = value ? 63u - (unsigned)__builtin_clzll(value) : 0;
    return (size_t)highest << 5 | (size_t)((highest < 5 ? value << (5 - highest) : value >> (highest - 5)) & 31);
}

/* The smallest value of a magnitude. */
static inline uint64_t flamegraph_least(size_t magnitude) {
    size_t highest = magnitude >> 5;
    uint64_t value = 32 | (magnitude & 31);
    return magnitude == 0 ? 0 : highest < 5 ? value >> (5 - highest) : value << (highest - 5);
}

/* The index down to which, from the last on, fewer than `limit` are counted; *more gets how many that are behind it. */
static inline size_t flamegraph_reach(const size_t *counts, size_t limit, size_t *more) {
    size_t at = ((size_t)1 << FLAMEGRAPH_CUTOFF_BITS) - 1;
    for (; at > 0 && *more + counts[at] < limit; at--)
        *more += counts[at];
    return at;
}

/* Puts the nodes of which the weight is at least `least` into `place`, where there is room for all; answers how many. */
static inline size_t flamegraph_gather(flamegraph_picture *picture, uint64_t least) {
    size_t found = 0, count = picture->graph->node_count;
    for (uint32_t i = 0; i < count; i++) {
        picture->place[found] = i;
        found += flamegraph_weight(picture, i) >= least;
    }
    return found;
}

/* A weight that twice `limit` nodes or so have: as every 64th node tells. */
static inline uint64_t flamegraph_guess(const flamegraph_picture *picture, size_t limit) {
    size_t counts[(size_t)1 << FLAMEGRAPH_CUTOFF_BITS], more = 0;
    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < picture->graph->node_count; i += 64)
        counts[flamegraph_magnitude(flamegraph_weight(picture, i))]++;
    return flamegraph_least(flamegraph_reach(counts, limit / 32, &more));
}

/* The smallest value of which fewer than `limit` nodes have more, of `limit` or more nodes; *more gets how many have.
 * First those are left out that are surely too small: all nodes if the guess is too high. Then those of the magnitude
 * that it is of are found, and among them the value, digit by digit from the highest on. */
static inline uint64_t flamegraph_cutoff(flamegraph_picture *picture, size_t limit, size_t *more) {
    size_t counts[(size_t)1 << FLAMEGRAPH_CUTOFF_BITS], found = 0;
    uint64_t cutoff = 0;
    size_t count = flamegraph_gather(picture, flamegraph_guess(picture, limit));
    if (count < limit)
        count = flamegraph_gather(picture, 0);
    *more = 0;
    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < count; i++)
        counts[flamegraph_magnitude(flamegraph_weight(picture, picture->place[i]))]++;
    size_t magnitude = flamegraph_reach(counts, limit, more);
    for (size_t i = 0; i < count; i++) {
        uint32_t node = picture->place[i];
        picture->place[found] = node;
        found += flamegraph_magnitude(flamegraph_weight(picture, node)) == magnitude;
    }
    for (int shift = 63 / FLAMEGRAPH_CUTOFF_BITS * FLAMEGRAPH_CUTOFF_BITS; shift >= 0;
         shift -= FLAMEGRAPH_CUTOFF_BITS) {
        if (flamegraph_weight(picture, 0) >> shift == 0)
            continue;
        memset(counts, 0, sizeof counts);
        for (size_t i = 0; i < found; i++) {
            uint64_t total = flamegraph_weight(picture, picture->place[i]);
            if ((total ^ cutoff) >> shift >> FLAMEGRAPH_CUTOFF_BITS == 0)
                counts[total >> shift & (sizeof counts / sizeof *counts - 1)]++;
        }
        cutoff |= (uint64_t)flamegraph_reach(counts, limit, more) << shift;
    }
    return cutoff;
}

/* Choose the largest nodes. A caller is made before its callees and has at least their value, so
 * with ties taken in order of making, no chosen node lacks its caller. */
static inline void flamegraph_choose(flamegraph_picture *picture) {
    const flamegraph *graph = picture->graph;
    size_t more = 0;
    uint64_t cutoff =
        graph->node_count < FLAMEGRAPH_MAX_FRAMES ? 0 : flamegraph_cutoff(picture, FLAMEGRAPH_MAX_FRAMES, &more);
    size_t ties = FLAMEGRAPH_MAX_FRAMES - more;
    for (uint32_t i = 0; i < graph->node_count; i++) {
        uint64_t total = flamegraph_weight(picture, i);
        picture->place[i] = FLAMEGRAPH_NONE;
        picture->valued += graph->nodes[i].total > 0;
        if (total < cutoff || (total == cutoff && ties == 0))
            continue;
        ties -= total == cutoff;
        picture->place[i] = 0; /* chosen: its entry follows */
        picture->order[picture->count++] = i;
    }
}

/* qsort() has no argument for what the indices point into, so it sorts these. */
typedef struct flamegraph_key {
    uint64_t total;
    const char *name;
    size_t size;
    uint32_t parent, node;
} flamegraph_key;

static inline int flamegraph_compare(const void *left, const void *right) {
    const flamegraph_key *a = (const flamegraph_key *)left, *b = (const flamegraph_key *)right;
    if (a->parent != b->parent)
        return a->parent < b->parent ? -1 : 1;
    if (a->total != b->total)
        return a->total > b->total ? -1 : 1;
    int order = memcmp(a->name, b->name, a->size < b->size ? a->size : b->size);
    if (order)
        return order;
    return (a->size > b->size) - (a->size < b->size);
}

/* Sort all but the root, which stands first as the oldest and largest. */
static inline bool flamegraph_sort(flamegraph_picture *picture) {
    const flamegraph *graph = picture->graph;
    flamegraph_key *keys = (flamegraph_key *)malloc(picture->count * sizeof *keys);
    if (!keys)
        return false;
    for (size_t i = 1; i < picture->count; i++) {
        const flamegraph_node *node = &graph->nodes[picture->order[i]];
        const flamegraph_name *name = &graph->names[node->name];
        flamegraph_key key = {node->total, graph->text + name->offset, name->size, node->parent, picture->order[i]};
        keys[i] = key;
    }
    qsort(keys + 1, picture->count - 1, sizeof *keys, flamegraph_compare);
    for (size_t i = 1; i < picture->count; i++)
        picture->order[i] = keys[i].node;
    free(keys);
    return true;
}

/* Entries in breadth-first order; `place` leads from a chosen node to its run in `order` first, and
 * to its entry as soon as that is made. */
static inline void flamegraph_arrange(flamegraph_picture *picture) {
    const flamegraph_node *nodes = picture->graph->nodes;
    for (size_t i = picture->count; i-- > 1;) {
        picture->place[nodes[picture->order[i]].parent] = (uint32_t)i;
    }
    size_t made = 1;
    for (size_t at = 0; at < picture->count; at++) {
        flamegraph_entry *entry = &picture->entries[at];
        entry->first_child = (uint32_t)made;
        size_t run = picture->place[entry->node];
        while (run > 0 && run < picture->count && nodes[picture->order[run]].parent == entry->node) {
            picture->entries[made].node = picture->order[run++];
            picture->entries[made++].level = entry->level + 1;
        }
        entry->child_count = (uint32_t)(made - entry->first_child);
        picture->place[entry->node] = (uint32_t)at;
    }
}

/* What was not chosen is counted at its nearest known caller. */
static inline void flamegraph_fold(flamegraph_picture *picture) {
    const flamegraph *graph = picture->graph;
    for (size_t i = 1; i < graph->node_count; i++) {
        if (picture->place[i] != FLAMEGRAPH_NONE)
            continue;
        uint32_t parent = graph->nodes[i].parent;
        flamegraph_entry *entry = &picture->entries[picture->place[parent]];
        if (entry->node == parent)
            entry->folded_value += graph->nodes[i].total;
        entry->folded_frames += !picture->base || graph->nodes[i].total;
        picture->place[i] = picture->place[parent];
    }
}

/* Give each entry its place; too narrow ones get none, and so do all below them. */
static inline void flamegraph_lay_out(flamegraph_picture *picture) {
    const flamegraph *graph = picture->graph;
    double inner = flamegraph_width(&picture->options) - 2.0 * FLAMEGRAPH_PAD;
    double scale = inner / (double)flamegraph_total(graph);
    size_t drawn = 1;
    picture->levels = 1;
    picture->entries[0].x = FLAMEGRAPH_PAD;
    picture->entries[0].width = inner;
    for (size_t at = 0; at < picture->count; at++) {
        flamegraph_entry *entry = &picture->entries[at];
        double x = entry->x;
        if (entry->width <= 0)
            continue;
        entry->hidden_value = entry->folded_value;
        for (uint32_t i = 0; i < entry->child_count; i++) {
            flamegraph_entry *child = &picture->entries[entry->first_child + i];
            uint64_t value = graph->nodes[child->node].total;
            if ((double)value * scale < picture->options.min_width) {
                entry->hidden_value += value;
                continue;
            }
            child->x = x;
            child->width = (double)value * scale;
            x += child->width;
            drawn++;
        }
        entry->hidden_x = x;
        entry->hidden_width = (double)entry->hidden_value * scale;
        bool above = x > entry->x || entry->hidden_width >= picture->options.min_width;
        uint32_t levels = entry->level + (above ? 2 : 1);
        if (levels > picture->levels)
            picture->levels = levels;
    }
    for (size_t i = 0; picture->base && i < graph->node_count; i++)
        picture->gone += picture->base[i] && !graph->nodes[i].total;
    picture->hidden_frames = picture->valued - drawn;
}

static inline void flamegraph_picture_free(flamegraph_picture *picture) {
    free(picture->order);
    free(picture->place);
    free(picture->entries);
    free(picture->base);
}

/* What each node, and all that it called, had in the base; NULL = no memory. */
static inline uint64_t *flamegraph_base_totals(const flamegraph *graph, const flamegraph_options *options) {
    flamegraph_metric metric = graph->has_figures ? options->metric : FLAMEGRAPH_WALL;
    uint64_t *base = (uint64_t *)calloc(graph->node_count, sizeof *base);
    for (size_t i = 0; base && i < graph->base_count; i++)
        base[i] = flamegraph_figure(&graph->base[i], metric, !graph->has_figures || options->idle);
    for (size_t i = graph->node_count; base && i-- > 1;)
        base[graph->nodes[i].parent] += base[i];
    return base;
}

static inline bool flamegraph_picture_make(flamegraph_picture *picture, const flamegraph *graph,
                                           const flamegraph_options *options) {
    memset(picture, 0, sizeof *picture);
    picture->graph = graph;
    picture->options = *options;
    picture->per = 1;
    flamegraph_scale(&picture->per, graph->decimals);
    flamegraph_format_facts(picture->facts, sizeof picture->facts, &options->facts);
    size_t most = graph->node_count < FLAMEGRAPH_MAX_FRAMES ? graph->node_count : FLAMEGRAPH_MAX_FRAMES;
    picture->order = (uint32_t *)malloc(most * sizeof *picture->order);
    picture->place = (uint32_t *)malloc(graph->node_count * sizeof *picture->place);
    picture->entries = (flamegraph_entry *)calloc(most, sizeof *picture->entries);
    if (options->difference)
        picture->base = flamegraph_base_totals(graph, options);
    if (!picture->order || !picture->place || !picture->entries || (options->difference && !picture->base))
        return false;
    flamegraph_choose(picture);
    if (!flamegraph_sort(picture))
        return false;
    flamegraph_arrange(picture);
    flamegraph_fold(picture);
    return true;
}

/* ---- the table ---- */

enum flamegraph_record_kind {
    FLAMEGRAPH_OWN,    /* a frame's own value */
    FLAMEGRAPH_FOLDED, /* that of frames that the table does not have */
    FLAMEGRAPH_FRAMES, /* how many frames those are */
    FLAMEGRAPH_KINDS
};

/* From the table the script draws every view of the profile. It is the tree with threads together and importlib as it
 * is, of which it has the largest frames, in breadth-first order; and of each frame, one record a thread, its own value.
 * What is left out is a record of the nearest caller that is there. */
typedef struct flamegraph_table {
    flamegraph_view apart;   /* what was given, threads apart */
    flamegraph_view base;    /* apart.graph, threads together */
    flamegraph_picture kept; /* which frames of base.graph the table has */
    flamegraph *words;       /* its names are those of the table: of frames and threads */
    uint32_t *word;          /* name of words -> its place when they are sorted */
    uint32_t *sorted;        /* and back */
    flamegraph_name *labels; /* of threads; number 0 is no thread */
    uint32_t *thread;        /* node of apart.graph -> number of its thread; NULL = there are none, or base.alone */
    size_t thread_count;
    flamegraph *records;             /* parent is an entry, name is thread * 3 + kind: see flamegraph_record_kind */
    uint32_t last[FLAMEGRAPH_KINDS]; /* the record of each kind that was added to last: often it is the next one, too */
    uint32_t *order;                 /* records by entry and name, from index 1 on */
    bool *holds;       /* entry -> whether it is a process above which threads may stand, as they may above the root */
    char together[64]; /* how many threads there are; empty = at most one */
    bool has_imports;  /* frames of importlib are among them: the words have its one name, too */
} flamegraph_table;

#define FLAMEGRAPH_MAX_RECORDS (2u * FLAMEGRAPH_MAX_FRAMES) /* more than that, and small threads are put together */

static inline void flamegraph_table_free(flamegraph_table *table) {
    flamegraph_view_free(&table->base);
    flamegraph_view_free(&table->apart);
    flamegraph_picture_free(&table->kept);
    flamegraph_free(table->words);
    flamegraph_free(table->records);
    free(table->word);
    free(table->sorted);
    free(table->labels);
    free(table->thread);
    free(table->order);
    free(table->holds);
}

/* What only the making of the table needs. Of threads apart nothing else is needed if they are shown together. */
static inline void flamegraph_table_forget_nodes(flamegraph_table *table, bool apart) {
    flamegraph_view_forget_nodes(&table->base);
    free(table->thread);
    free(table->kept.place);
    table->thread = table->kept.place = NULL;
    if (!apart && table->base.graph != table->apart.graph && table->apart.graph != table->apart.from &&
        !table->base.lent) {
        flamegraph_free(table->apart.graph);
        table->apart.graph = NULL;
        table->base.from = NULL;
    }
}

/* A thread, and how much of the profile is its. */
typedef struct flamegraph_share {
    uint64_t total, records;
    uint32_t name, number;
    const char *text;
    size_t size;
} flamegraph_share;

static inline int flamegraph_compare_shares(const void *left, const void *right) {
    const flamegraph_share *a = (const flamegraph_share *)left, *b = (const flamegraph_share *)right;
    if (a->total != b->total)
        return a->total > b->total ? -1 : 1;
    int order = memcmp(a->text, b->text, a->size < b->size ? a->size : b->size);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

/* Threads by their names, the largest first: table->thread gets their numbers. *shares is the caller's to free. */
static inline bool flamegraph_number_threads(flamegraph_table *table, flamegraph_share **shares) {
    const flamegraph *graph = table->apart.graph;
    uint32_t *number = (uint32_t *)calloc(graph->name_count + 1, sizeof *number); /* of a name */
    flamegraph_share *found = (flamegraph_share *)calloc(graph->name_count + 2, sizeof *found);
    *shares = found;
    if (!number || !found) {
        free(number);
        return false;
    }
    size_t count = 1;
    size_t end = table->base.alone ? 2 : graph->node_count; /* behind the last thread's node */
    for (uint32_t i = 1; table->base.threads && i < end; i++) {
        const flamegraph_node *node = table->base.lent ? &table->base.thread : &graph->nodes[i];
        const flamegraph_name *name = &graph->names[node->name];
        if (!table->base.lent && !flamegraph_view_is_thread(&table->base, i))
            continue;
        if (!number[node->name]) {
            found[count].name = node->name;
            found[count].text = graph->text + name->offset;
            found[count].size = name->size;
            number[node->name] = (uint32_t)count++;
        }
        found[number[node->name]].total += node->total;
    }
    qsort(found + 1, count - 1, sizeof *found, flamegraph_compare_shares);
    for (uint32_t i = 1; i < count; i++)
        number[found[i].name] = i;
    table->thread_count = count;
    if (count > 1 && !table->base.alone)
        table->thread = (uint32_t *)calloc(graph->node_count, sizeof *table->thread);
    for (uint32_t i = 1; table->thread && i < graph->node_count; i++) {
        bool is_thread = flamegraph_view_is_thread(&table->base, i);
        table->thread[i] = is_thread ? number[graph->nodes[i].name] : table->thread[graph->nodes[i].parent];
    }
    free(number);
    return count == 1 || table->base.alone || table->thread;
}

/* Adds to a record; figures may be NULL. */
static inline bool flamegraph_record(flamegraph_table *table, uint32_t entry, uint32_t thread,
                                     enum flamegraph_record_kind kind, uint64_t value,
                                     const flamegraph_figures *figures) {
    uint32_t key = thread * FLAMEGRAPH_KINDS + (uint32_t)kind, record = table->last[kind];
    if (record == 0 || table->records->nodes[record].parent != entry || table->records->nodes[record].name != key)
        record = flamegraph_indexed_child(table->records, entry, key);
    if (record == FLAMEGRAPH_NONE || (figures && !flamegraph_figures_at(table->records, record)))
        return false;
    table->last[kind] = record;
    table->records->nodes[record].total += value;
    if (figures)
        flamegraph_sum_figures(&table->records->figures[record], figures);
    return true;
}

/* Whether the entries know what their records are: no threads, no other figures and no base tell frames of one apart. */
static inline bool flamegraph_entries_tell(const flamegraph_table *table) {
    return !table->thread && !table->kept.base && !table->kept.graph->figures;
}

static inline bool flamegraph_record_value(flamegraph_table *table, uint32_t entry, enum flamegraph_record_kind kind,
                                           uint64_t value) {
    const flamegraph *graph = table->kept.graph;
    flamegraph_figures figures;
    memset(&figures, 0, sizeof figures);
    *flamegraph_metric_of(&figures, graph->counted) = value;
    return !value ||
           flamegraph_record(table, entry, table->base.alone, kind, value, graph->has_figures ? &figures : NULL);
}

/* Records what the entries know, as flamegraph_record_all would find it frame by frame. */
static inline bool flamegraph_record_entries(flamegraph_table *table) {
    const flamegraph_picture *kept = &table->kept;
    bool good = true;
    table->records = flamegraph_create();
    if (!table->records)
        return false;
    for (uint32_t i = 0; good && i < kept->count; i++) {
        const flamegraph_entry *entry = &kept->entries[i];
        uint64_t own = kept->graph->nodes[entry->node].total - entry->folded_value;
        for (uint32_t child = 0; child < entry->child_count; child++)
            own -= kept->graph->nodes[kept->entries[entry->first_child + child].node].total;
        good = flamegraph_record_value(table, i, FLAMEGRAPH_OWN, own) &&
               flamegraph_record_value(table, i, FLAMEGRAPH_FOLDED, entry->folded_value) &&
               (!entry->folded_frames ||
                flamegraph_record(table, i, table->base.alone, FLAMEGRAPH_FRAMES, entry->folded_frames, NULL));
    }
    return good;
}

/* Record every frame's own value, and that of the base as of as many threads more. `own` has them. */
static inline bool flamegraph_record_all(flamegraph_table *table, const uint64_t *own) {
    const flamegraph *graph = table->apart.graph;
    const flamegraph_picture *kept = &table->kept;
    bool good = true;
    flamegraph_free(table->records);
    table->records = flamegraph_create();
    if (!table->records)
        return false;
    memset(table->last, 0, sizeof table->last);
    for (uint32_t i = 0; good && i < graph->node_count; i++) {
        uint32_t node = flamegraph_view_node(&table->base, i), entry = kept->place[node];
        uint32_t thread = table->thread ? table->thread[i] : table->base.alone && i > 0;
        bool has = kept->entries[entry].node == node;
        flamegraph_figures figures = flamegraph_own_figures(graph, i, own[i]);
        if (!flamegraph_is_nothing(&figures))
            good = flamegraph_record(table, entry, thread, has ? FLAMEGRAPH_OWN : FLAMEGRAPH_FOLDED, own[i],
                                     graph->has_figures ? &figures : NULL);
        if (!has && (!kept->base || graph->nodes[i].total))
            good = good && flamegraph_record(table, entry, thread, FLAMEGRAPH_FRAMES, 1, NULL);
        if (kept->base && i < graph->base_count && !flamegraph_is_nothing(&graph->base[i]))
            good = good && flamegraph_record(table, entry, thread + (uint32_t)table->thread_count,
                                             has ? FLAMEGRAPH_OWN : FLAMEGRAPH_FOLDED, graph->base[i].wall,
                                             graph->has_figures ? &graph->base[i] : NULL);
    }
    return good;
}

/* Where threads have too many records, the last ones are one: that is the last number then. */
static inline bool flamegraph_join_threads(flamegraph_table *table, flamegraph_share *shares) {
    const flamegraph *records = table->records;
    size_t sum = 0, count = 1, others;
    if (records->node_count <= FLAMEGRAPH_MAX_RECORDS)
        return false;
    for (size_t i = 1; i < records->node_count; i++)
        shares[records->nodes[i].name / FLAMEGRAPH_KINDS % table->thread_count].records++;
    for (sum = shares[0].records; count < table->thread_count; count++) {
        sum += shares[count].records;
        if (sum > FLAMEGRAPH_MAX_RECORDS)
            break;
    }
    others = table->thread_count - count;
    if (others < 2)
        return false;
    for (size_t i = 0; i < table->apart.graph->node_count; i++)
        table->thread[i] = table->thread[i] < count ? table->thread[i] : (uint32_t)count;
    table->thread_count = count + 1;
    shares[count].name = FLAMEGRAPH_NONE;
    shares[count].number = (uint32_t)others;
    return true;
}

/* The table's names; those of its entries come first, as in kept.entries, then those of threads. */
static inline bool flamegraph_collect_words(flamegraph_table *table, const flamegraph_share *shares) {
    const flamegraph *base = table->base.graph, *apart = table->apart.graph;
    bool good = true;
    for (size_t i = 0; good && i < table->kept.count; i++) {
        size_t size;
        const char *name = flamegraph_name_of(base, table->kept.entries[i].node, &size);
        good = flamegraph_intern(table->words, name, size) != FLAMEGRAPH_NONE;
    }
    for (size_t i = 1; good && i < table->thread_count; i++) {
        char others[48];
        const flamegraph_name *name = shares[i].name == FLAMEGRAPH_NONE ? NULL : &apart->names[shares[i].name];
        snprintf(others, sizeof others, "thread ... (%" PRIu32 " other threads)", shares[i].number);
        uint32_t word = name ? flamegraph_intern(table->words, apart->text + name->offset, name->size)
                             : flamegraph_intern(table->words, others, strlen(others));
        good = word != FLAMEGRAPH_NONE;
        table->labels[i].offset = word;
    }
    for (size_t i = 0; good && !table->has_imports && i < table->words->name_count; i++) {
        const flamegraph_name *name = &table->words->names[i];
        table->has_imports = flamegraph_is_import(table->words->text + name->offset, name->size);
    }
    if (good && table->has_imports)
        good = flamegraph_intern(table->words, FLAMEGRAPH_IMPORT, strlen(FLAMEGRAPH_IMPORT)) != FLAMEGRAPH_NONE;
    return good;
}

static inline bool flamegraph_sort_words(flamegraph_table *table) {
    const flamegraph *words = table->words;
    flamegraph_key *keys = (flamegraph_key *)malloc(words->name_count * sizeof *keys);
    table->word = (uint32_t *)malloc(words->name_count * sizeof *table->word);
    table->sorted = (uint32_t *)malloc(words->name_count * sizeof *table->sorted);
    if (!keys || !table->word || !table->sorted) {
        free(keys);
        return false;
    }
    for (size_t i = 0; i < words->name_count; i++) {
        flamegraph_key key = {0, words->text + words->names[i].offset, words->names[i].size, 0, (uint32_t)i};
        keys[i] = key;
    }
    qsort(keys, words->name_count, sizeof *keys, flamegraph_compare);
    for (size_t i = 0; i < words->name_count; i++) {
        table->sorted[i] = keys[i].node;
        table->word[keys[i].node] = (uint32_t)i;
    }
    free(keys);
    return true;
}

/* Records by entry, and of one entry by thread. */
static inline bool flamegraph_sort_records(flamegraph_table *table) {
    const flamegraph *records = table->records;
    flamegraph_key *keys = (flamegraph_key *)malloc(records->node_count * sizeof *keys);
    table->order = (uint32_t *)malloc(records->node_count * sizeof *table->order);
    bool sorted = true;
    if (!keys || !table->order) {
        free(keys);
        return false;
    }
    for (uint32_t i = 1; i < records->node_count; i++) {
        flamegraph_key key = {UINT64_MAX - records->nodes[i].name, "", 0, records->nodes[i].parent, i};
        keys[i] = key;
        sorted = sorted && (i == 1 || flamegraph_compare(&keys[i - 1], &keys[i]) <= 0);
    }
    if (!sorted)
        qsort(keys + 1, records->node_count - 1, sizeof *keys, flamegraph_compare);
    for (size_t i = 1; i < records->node_count; i++)
        table->order[i] = keys[i].node;
    free(keys);
    return true;
}

static inline bool flamegraph_table_record(flamegraph_table *table) {
    const flamegraph *graph = table->apart.graph;
    flamegraph_share *shares = NULL;
    bool good = flamegraph_number_threads(table, &shares), simple = good && flamegraph_entries_tell(table);
    uint64_t *own = good && !simple ? flamegraph_own(graph) : NULL;
    if (good) {
        table->labels = (flamegraph_name *)calloc(table->thread_count + 1, sizeof *table->labels);
        good = table->labels && (simple ? flamegraph_record_entries(table) : own && flamegraph_record_all(table, own));
    }
    if (good && flamegraph_join_threads(table, shares))
        good = flamegraph_record_all(table, own);
    good = good && flamegraph_collect_words(table, shares);
    free(shares);
    free(own);
    return good && flamegraph_sort_words(table) && flamegraph_sort_records(table);
}

static inline bool flamegraph_table_make(flamegraph_table *table, const flamegraph *graph,
                                         const flamegraph_options *options) {
    char count[32];
    flamegraph_options all = *options; /* the table has all of the figures */
    all.metric = graph->counted;
    all.idle = true;
    memset(table, 0, sizeof *table);
    if (!flamegraph_view_make(&table->apart, graph, true, false, false))
        return false;
    flamegraph_view_forget_nodes(&table->apart);
    bool lend = !options->threads && !options->difference;
    if (!flamegraph_view_make(&table->base, table->apart.graph, false, false, lend) ||
        !flamegraph_picture_make(&table->kept, table->base.graph, &all))
        return false;
    table->words = flamegraph_create();
    table->holds = (bool *)calloc(table->kept.count, sizeof *table->holds);
    if (!table->words || !table->holds)
        return false;
    for (uint32_t i = 1; table->base.has[FLAMEGRAPH_PROCESS] && i < table->apart.graph->node_count; i++) {
        uint32_t node = flamegraph_view_node(&table->base, i), entry = table->kept.place[node];
        if (table->kept.entries[entry].node == node && flamegraph_holds_threads(&table->base, i))
            table->holds[entry] = true;
    }
    if (table->apart.threads > 1) {
        flamegraph_format_count(count, sizeof count, table->apart.threads);
        snprintf(table->together, sizeof table->together, ", %s threads together", count);
    }
    return flamegraph_table_record(table);
}

/* The sentence about what the file itself leaves out; empty when it has all. */
static inline void flamegraph_format_kept(char *out, size_t room, const flamegraph_picture *kept) {
    char count[32], all[32];
    out[0] = '\0';
    if (kept->count == kept->graph->node_count)
        return;
    flamegraph_format_count(count, sizeof count, kept->count);
    flamegraph_format_count(all, sizeof all, kept->graph->node_count);
    snprintf(out, room, "This file describes the largest %s of %s frames.", count, all);
}

/* ---- writing the picture ---- */

/* The next two are flamegraph.css and flamegraph.js: change these, and run tools/embed.py. */

static const char *const flamegraph_style[] = {
    /* clang-format off */
    ".flamegraph{background:#fff;color-scheme:light dark;font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;",
    "overflow-anchor:none;}",
    ".flamegraph text{fill:#1f2328;white-space:pre;}",
    ".flamegraph #title{font-size:17px;font-weight:600;}",
    ".flamegraph #subtitle,.flamegraph #facts{fill:#57606a;}",
    ".flamegraph #note{font-size:11px;fill:#57606a;}",
    ".flamegraph #none{font-size:14px;font-weight:600;}",
    ".flamegraph .paper{fill:#fff;}",
    ".flamegraph #matched{text-anchor:end;font-weight:600;fill:#7a4b00;}",
    ".flamegraph #ring{fill:none;stroke:#0b57d0;stroke-width:3;pointer-events:none;}",
    ".flamegraph foreignObject{overflow:visible;}",
    ".flamegraph #detail{pointer-events:none;}",
    ".frame{cursor:pointer;outline:none;scroll-margin:110px 0 8px;}",
    ".frame text{pointer-events:none;}",
    ".frame:hover rect{stroke:#1f2328;stroke-width:1;}",
    ".frame.above text{fill:#424a53;}",
    ".frame.miss rect{fill-opacity:.35;}",
    ".frame.hit rect{fill:#ffc83d;stroke:#8a5a00;stroke-width:.75;}",
    ".bar{display:flex;gap:8px;justify-content:flex-end;}",
    ".bar button,.bar input,.bar select{box-sizing:border-box;height:28px;padding:0 10px;border:1px solid #c4cad1;",
    "border-radius:6px;background:#fff;color:#1f2328;font:inherit;}",
    ".bar button,.bar select{cursor:pointer;background:#f3f4f6;white-space:nowrap;}",
    ".bar button[hidden]{display:none;}",
    ".bar button[aria-pressed=\"true\"]{background:#d3e3fd;border-color:#0b57d0;}",
    ".bar button:disabled{color:#57606a;cursor:default;}",
    ".choices{flex-wrap:wrap;justify-content:flex-start;}",
    ".bar input{flex:0 1 210px;min-width:0;}",
    ".bar ::placeholder{color:inherit;opacity:.75;}",
    ".bar #facts{flex-basis:100%;}",
    ".bar :focus-visible{outline:2px solid #0b57d0;outline-offset:1px;}",
    ".list{overflow:auto;box-sizing:border-box;border:1px solid #c4cad1;border-radius:6px;background:#fff;color:#1f2328;}",
    ".list[hidden]{display:none;}",
    ".list table{width:100%;border-collapse:collapse;table-layout:fixed;}",
    ".list caption{padding:5px 8px;text-align:left;font-weight:600;}",
    ".list th{position:sticky;top:0;padding:2px 6px;background:#f3f4f6;text-align:left;font-weight:600;}",
    ".list td{padding:0 6px;text-align:right;font-variant-numeric:tabular-nums;}",
    ".list th:nth-child(-n + 2){width:58px;text-align:right;}",
    ".list td:last-child{text-align:left;}",
    ".list button{overflow:hidden;max-width:100%;padding:3px 0;border:0;background:none;color:inherit;font:inherit;",
    "text-align:inherit;text-overflow:ellipsis;white-space:nowrap;cursor:pointer;}",
    ".list th[aria-sort=\"descending\"] button::after{content:' \\25be';}",
    ".list tr:hover td{background:#eef1f4;}",
    ".list tr:has([aria-pressed=\"true\"]) td{background:#ffe9a8;}",
    ".list :focus-visible{outline:2px solid #0b57d0;outline-offset:0;}",
    ".detail{display:inline-block;max-width:100%;padding-right:8px;overflow-wrap:anywhere;background:#fff;line-height:17px;}",
    ".detail{color:#1f2328;}",
    ".detail #name{font-weight:600;}",
    ".detail #figures,.bar #facts{color:#57606a;}",
    "@media screen and (prefers-color-scheme:dark){",
    ".flamegraph,.detail{background:#0d1117;}",
    ".flamegraph .paper{fill:#0d1117;}",
    ".flamegraph text{fill:#f0f3f6;}",
    ".flamegraph #subtitle,.flamegraph #facts,.flamegraph #note{fill:#a9b4c0;}",
    ".flamegraph #matched{fill:#ffc83d;}",
    ".flamegraph #ring{stroke:#79b8ff;}",
    ".flamegraph #hatch rect{fill:#262c34;}",
    ".flamegraph #hatch rect + rect{fill:#49525d;}",
    ".frame rect{fill-opacity:.42;}",
    ".frame.fold rect{fill-opacity:1;}",
    ".frame.above text{fill:#c9d1d9;}",
    ".frame.above rect{fill-opacity:.2;}",
    ".frame:hover rect{stroke:#f0f3f6;}",
    ".frame.miss rect{fill-opacity:.16;}",
    ".frame.hit rect{fill:#ffc83d;fill-opacity:1;stroke:#fff;}",
    ".frame.hit text{fill:#1f2328;}",
    ".bar button,.bar input,.bar select{border-color:#57606a;background:#0d1117;color:#f0f3f6;}",
    ".bar button,.bar select{background:#262c34;}",
    ".bar button:disabled{color:#9da7b3;}",
    ".bar button[aria-pressed=\"true\"]{background:#1d3b66;border-color:#79b8ff;}",
    ".bar :focus-visible{outline-color:#79b8ff;}",
    ".list{border-color:#57606a;background:#0d1117;color:#f0f3f6;}",
    ".list th{background:#262c34;}",
    ".list tr:hover td{background:#1c232b;}",
    ".list tr:has([aria-pressed=\"true\"]) td{background:#5c4a12;}",
    ".list :focus-visible{outline-color:#79b8ff;}",
    ".detail{color:#f0f3f6;}",
    ".detail #figures,.bar #facts{color:#a9b4c0;}",
    "}",
    "@media print{.flamegraph{max-width:100%;height:auto;}}",
    /* clang-format on */
};

/* What makes it interactive. It finds the frames as `data`, see flamegraph_put_data(). Lines that begin with a tab are
 * only in pictures of differences. */
static const char *const flamegraph_script[] = {
    /* clang-format off */
    "const svg=document.currentScript?.closest('svg')?\?document.documentElement;",
    "const part=(id)=>svg.querySelector('#'+id);",
    "const put=(element,attributes)=>{",
    "for(const name in attributes)element.setAttribute(name,attributes[name]);",
    "return element;",
    "};",
    "const make=(tag,attributes,space='http://www.w3.org/2000/svg')=>put(document.createElementNS(space,tag),attributes);",
    "const html=(tag,attributes)=>make(tag,attributes,'http://www.w3.org/1999/xhtml');",
    "const{pad,row}=data;",
    "const digitOf=new Uint8Array(127);",
    "for(let code=37,next=0;code<127;code++)",
    "if(!'&<>\\\\]`'.includes(String.fromCharCode(code)))digitOf[code]=next++;",
    "function reader(text){",
    "let at=0;",
    "const next=()=>{",
    "for(let sum=0;;){",
    "const digit=digitOf[text.charCodeAt(at++)];",
    "if(digit<42)return sum*42+digit;",
    "sum=sum*42+digit-42;",
    "}",
    "};",
    "return{next,rest:()=>text.slice(at)};",
    "}",
    "const names=[],codes=[],none=[0,0];",
    "for(const line of data.names.split('\\n')){",
    "const read=reader(line),common=read.next();",
    "codes.push(read.next());",
    "names.push((names.at(-1)?\?'').slice(0,common)+read.rest());",
    "}",
    "function colour(code){",
    "if(code<3)return code?'#dedfd8':'#d5dae1';",
    "const place=Math.floor((code-3)/ 3),white=(code-3)%3*16,mix=place%64;",
    "const from=data.hues[place>>6],to=data.hues[((place>>6)+1)%data.hues.length];",
    "let sum=0;",
    "for(let shift=0;shift<24;shift+=8){",
    "const channel=Math.floor(((from>>shift&255)*(64-mix)+(to>>shift&255)*mix)/ 64);",
    "sum|=channel+Math.floor((255-channel)*white / 128)<<shift;",
    "}",
    "return '#'+sum.toString(16).padStart(6,'0');",
    "}",
    "const colours=codes.map(colour);",
    "const tree={name:[],parent:[0],missing:[]},records=[];",
    "\tconst ofBase=[];",
    "const{next:take}=reader(data.table);",
    "for(let i=0;i<tree.parent.length;i++){",
    "tree.name.push(take());",
    "const code=take(),flags=Math.floor(code / 3);",
    "tree.missing.push(flags%2?take():0);",
    "for(let k=flags>>1;k>0;k--)tree.parent.push(i);",
    "for(let k=code%3<2?code%3:take();k>0;k--){",
    "const kind=take();",
    "const record={frame:i,thread:Math.floor(kind / 3),kind:kind%3,value:take()};",
    "if(data.figures&&record.kind<2)record.figures=Array.from({length:6},(_,bit)=>record.value>>bit&1?take():0);",
    "\tif(record.thread>=data.threads.length)ofBase.push({...record,thread:record.thread-data.threads.length});else",
    "records.push(record);",
    "}",
    "}",
    "const holds=new Set([0,...data.holds]),importlib=codes.map((code)=>code===2);",
    "const has={apart:data.threads.length>2,imports:importlib.some(Boolean),functions:true,callers:true};",
    "const metrics=data.memory||[{name:'wall time',at:0,idle:1},{name:'CPU time',at:2},{name:'time with the GIL',at:3},{name:'samples',at:4,idle:5,unit:'samples'}];",
    "const known=Array.from({length:6},(_,at)=>records.some((record)=>record.figures?.[at]));",
    "\tofBase.forEach(({figures})=>figures?.forEach((sum,at)=>{known[at]||=sum>0;}));",
    "has.idle=known[1]||known[5];",
    "has.metric=metrics.filter((one)=>known[one.at]||known[one.idle]).length>1;",
    "const metric=()=>metrics[chosen.metric];",
    "function weight(record){",
    "if(!record.figures)return record.value;",
    "const{at,idle}=metric();",
    "return record.figures[at]+(chosen.idle&&idle?record.figures[idle]:0);",
    "}",
    "const chosen={apart:!!data.apart,imports:false,functions:false,callers:false,metric:data.metric,idle:!!data.idle};",
    "let name,value,self,parent,first,children,folded,size,total,origin,placed;",
    "let calls;",
    "\tlet old,oldSelf,gone,unsure;",
    "function shape(){",
    "const found={name:[tree.name[0]],parent:[0],origin:[[0,0]]},made=new Map(),stood=new Map([[0,0]]);",
    "const enter=(above,word)=>{",
    "const key=above*names.length+word;",
    "let at=made.get(key);",
    "if(at===undefined){",
    "at=found.name.push(word)-1;",
    "found.parent.push(above);",
    "made.set(key,at);",
    "}",
    "return at;",
    "};",
    "const shownAs=(frame,above)=>{",
    "const word=tree.name[frame];",
    "if(chosen.imports||!importlib[word])return enter(above,word);",
    "return above&&found.name[above]===data.imports?above:enter(above,data.imports);",
    "};",
    "found.place=(frame,given)=>{",
    "const thread=chosen.apart?given:0;",
    "const way=[];",
    "for(let at=frame,of=thread;!stood.has(at+of*tree.name.length);){",
    "way.push([at,of]);",
    "if(of&&holds.has(at))of=0;else at=tree.parent[at];",
    "}",
    "while(way.length){",
    "const[at,of]=way.pop(),holder=holds.has(at);",
    "const above=stood.get(of&&holder?at:tree.parent[at]+of*tree.name.length);",
    "const stands=of&&holder?enter(above,data.threads[of]):shownAs(at,above);",
    "stood.set(at+of*tree.name.length,stands);",
    "if(!found.origin[stands])found.origin[stands]=[at,chosen.apart?of:given];",
    "}",
    "return stood.get(frame+thread*tree.name.length);",
    "};",
    "return found;",
    "}",
    "function arrange(view){",
    "const count=view.name.length,runs=new Int32Array(count+1),members=new Int32Array(count);",
    "for(let i=1;i<count;i++)runs[view.parent[i]+1]++;",
    "for(let i=0;i<count;i++)runs[i+1]+=runs[i];",
    "const fill=runs.slice();",
    "for(let i=1;i<count;i++)members[fill[view.parent[i]]++]=i;",
    "const order=[0];",
    "name=new Int32Array(count),value=new Float64Array(count),self=new Float64Array(count),parent=new Int32Array(count);",
    "first=new Int32Array(count),children=new Int32Array(count),size=new Float64Array(count),folded=[],origin=[];",
    "\told=new Float64Array(count),oldSelf=new Float64Array(count),gone=0,unsure=view.lostOld.some((sum)=>sum>0);",
    "const where=new Int32Array(count);",
    "for(let at=0;at<order.length;at++){",
    "const i=order[at],run=members.subarray(runs[i],runs[i+1]);",
    "run.sort((a,b)=>view.value[b]-view.value[a]||view.name[a]-view.name[b]);",
    "name[at]=view.name[i];",
    "origin[at]=view.origin[i];",
    "where[i]=at;",
    "value[at]=view.value[i];",
    "self[at]=view.self[i];",
    "\told[at]=view.old[i],oldSelf[at]=view.oldSelf[i],gone+=old[at]>0&&!(value[at]>0);",
    "if(view.missing[i]||view.lost[i])folded[at]=[view.missing[i],view.lost[i]];",
    "first[at]=order.length;",
    "children[at]=run.length;",
    "for(const child of run)parent[order.push(child)-1]=at;",
    "}",
    "for(let i=count-1;i>=0;i--){",
    "size[i]+=1+(folded[i]?.[0]?\?0);",
    "\tif(!(value[i]>0))size[i]--;",
    "if(i)size[parent[i]]+=size[i];",
    "}",
    "total=value[0];",
    "placed=(frame,thread)=>where[view.place(frame,thread)]?\?0;",
    "calls={name,value,self,parent,first,children,folded};",
    "\tcalls.old=old,calls.oldSelf=oldSelf;",
    "}",
    "let groups;",
    "function turn(){",
    "const own=[];",
    "calls.self.forEach((sum,i)=>{if(sum>0)own.push(i);});",
    "name=[calls.name[0]],value=[total],self=[0],parent=[0],first=[0],children=[0],size=[1],folded=[];",
    "const lost=calls.folded.reduce((sum,one)=>[sum[0]+one[0],sum[1]+one[1]],none);",
    "if(lost[0])folded[0]=lost;",
    "\tcalls.oldSelf.forEach((sum,i)=>{if(sum>0&&!(calls.self[i]>0))own.push(i);});",
    "groups=[{at:own,sums:own.map((i)=>calls.self[i])}];",
    "\tgroups[0].olds=own.map((i)=>calls.oldSelf[i]),old=[calls.old[0]],oldSelf=[0];",
    "}",
    "function expand(i){",
    "const group=groups[i],found=new Map();",
    "if(!group)return;",
    "groups[i]=null;",
    "group.at.forEach((at,k)=>{",
    "const caller=i?calls.parent[at]:at;",
    "if(!caller&&i)return;",
    "const word=calls.name[caller];",
    "if(!found.has(word))found.set(word,{word,sum:0,at:[],sums:[]});",
    "const one=found.get(word);",
    "one.sum+=group.sums[k];",
    "\tone.old=(one.old?\?0)+group.olds[k],(one.olds?\?=[]).push(group.olds[k]);",
    "one.at.push(caller);",
    "one.sums.push(group.sums[k]);",
    "});",
    "const run=[...found.values()].sort((a,b)=>b.sum-a.sum||a.word-b.word);",
    "first[i]=name.length;",
    "children[i]=run.length;",
    "for(const one of run){",
    "groups[name.length]=one;",
    "name.push(one.word),value.push(one.sum),self.push(0),parent.push(i),first.push(0),children.push(0),size.push(1);",
    "\told.push(one.old),oldSelf.push(0),size.push(+(size.pop()&&one.sum>0));",
    "}",
    "}",
    "function build(){",
    "const view=shape(),sums={self:[],lost:[],missing:[]};",
    "const add=(kind,at,more)=>{sums[kind][at]=(sums[kind][at]?\?0)+more;};",
    "for(const record of records){",
    "if(record.kind===2){",
    "if(chosen.apart)add('missing',view.place(record.frame,record.thread),record.value);",
    "}else if(weight(record)>0)add(record.kind?'lost':'self',view.place(record.frame,record.thread),weight(record));",
    "}",
    "\tsums.oldSelf=[],sums.lostOld=[];",
    "\tfor(const record of ofBase)if(weight(record)>0)add(record.kind?'lostOld':'oldSelf',view.place(record.frame,record.thread),weight(record));",
    "if(!chosen.apart)",
    "tree.missing.forEach((missing,frame)=>{if(missing)add('missing',view.place(frame,0),missing);});",
    "for(const kind in sums)view[kind]=Float64Array.from(view.name,(_,i)=>sums[kind][i]?\?0);",
    "view.value=view.self.map((own,i)=>own+view.lost[i]);",
    "for(let i=view.name.length-1;i>0;i--)view.value[view.parent[i]]+=view.value[i];",
    "\tview.old=view.oldSelf.map((own,i)=>own+view.lostOld[i]);",
    "\tfor(let i=view.name.length-1;i>0;i--)view.old[view.parent[i]]+=view.old[i];",
    "arrange(view);",
    "if(chosen.callers)turn();",
    "}",
    "const commas=new Intl.NumberFormat('en'),number=(n)=>commas.format(n);",
    "const percent=(n,of)=>{",
    "const share=of>0?100*n / of:0;",
    "return share>0&&share<0.01?'<0.01%':share.toFixed(share>=1?1:share>0?2:0)+'%';",
    "};",
    "const count=(n)=>{",
    "if(Number.isInteger(n)||n>=999.5)return number(Math.round(n));",
    "let digits=n>=99.95?0:n>=9.995?1:2;",
    "for(let rest=n;rest>0&&rest<0.9995&&digits<15;rest*=10)digits++;",
    "return n.toFixed(digits);",
    "};",
    "const units=(n,base,of)=>{",
    "let step=0;",
    "while(of[step+1]&&n>=base-0.5)n /=base,step++;",
    "return(n>=999.5?number(Math.round(n)):n.toFixed(step&&n<99.95?n<9.995?2:1:0))+' '+of[step];",
    "};",
    "const amount=(n)=>{",
    "const counted=data.figures&&metric().unit,ns=counted?0:data.ns,unit=counted||data.unit;",
    "n /=data.per;",
    "if(unit==='bytes'&&n>1)return units(n,1024,'bytes KiB MiB GiB TiB'.split(' '));",
    "if(!ns)return count(n)+' '+(n===1?unit.replace(/s$/,''):unit);",
    "return n?units(n*ns,1000,['ns','µs','ms','s']):'0 s';",
    "};",
    "const pen=html('canvas').getContext('2d'),family=getComputedStyle(svg).fontFamily;",
    "const wholes=Intl.Segmenter&&new Intl.Segmenter();",
    "function fit(text,room,font){",
    "pen.font=font+' '+family;",
    "if(pen.measureText(text).width<=room)return text;",
    "const start=text.slice(0,4*Math.ceil(room));",
    "const characters=wholes?Array.from(wholes.segment(start),(s)=>s.segment):Array.from(start);",
    "let low=0,high=characters.length;",
    "while(low<high){",
    "const middle=(low+high+1)>>1;",
    "const width=pen.measureText(characters.slice(0,middle).join('')+'…').width;",
    "if(width<=room)low=middle;else high=middle-1;",
    "}",
    "return low?characters.slice(0,low).join('')+'…':'';",
    "}",
    "let zoomed=0,boxes=[],hits=null,width=0,height=0,current=null,tallest=0;",
    "const frames=part('frames'),head=part('head'),note=part('note'),ring=part('ring');",
    "\tfunction changeOf(now,then){",
    "\tconst all=calls.old[0];",
    "\treturn data.absolute?(now-then)/(all||total):now / total-(all&&then / all);",
    "\t}",
    "\tfunction changeColour(by){",
    "\tconst step=data.steps.filter((least)=>Math.abs(by)+1e-9>=least).length;",
    "\treturn data.changes[data.steps.length+(by<0?-step:step)];",
    "\t}",
    "\tfunction changeText(by){",
    "\tconst points=100*Math.abs(by);",
    "\treturn points<0.005?'0':(by<0?'−':'+')+points.toFixed(points>=0.995?1:2);",
    "\t}",
    "\tfunction against(now,then){",
    "\tconst text=changeText(changeOf(now,then)),sign=now>then?'+':now<then?'−':'';",
    "\treturn(then?`in the base ${amount(then)}, ${percent(then, calls.old[0])}: `:'not in the base: ')+",
    "\t(data.absolute?`${sign}${amount(Math.abs(now - then))}, ${text}%`:text+' points');",
    "\t}",
    "\tconst compared=()=>` · base ${amount(calls.old[0])} · `+(data.absolute?'red: more, blue: less':'red: larger share, blue: smaller')+",
    "\t(gone?` · ${unsure ? 'at least ' : ''}${number(gone)} frame${gone === 1 ? '' : 's'} gone`:'');",
    "const summary=()=>amount(total)+' in all'+(chosen.apart?'':data.together)+",
    "\tcompared()+",
    "(data.figures?' · '+metric().name+(!metric().idle?'':chosen.idle?', waiting included':', waiting left out'):'')+(data.subtitle&&' · '+data.subtitle);",
    "let top=data.head,bottom=data.foot,side=0,below=0;",
    "function layout(target){",
    "const inner=width-2*pad-side,scale=inner / value[target];",
    "const found=[];",
    "let hidden=0;",
    "for(let i=target;i>0;){",
    "i=parent[i];",
    "found.unshift({frame:i,x:pad,width:inner,above:true});",
    "}",
    "found.forEach((box,level)=>{box.level=level;});",
    "const open=[{frame:target,x:pad,width:inner,level:found.length}];",
    "for(const box of open){",
    "found.push(box);",
    "if(chosen.callers)expand(box.frame);",
    "let child=first[box.frame],x=box.x;",
    "const end=child+children[box.frame],level=box.level+1;",
    "for(;child<end&&value[child]*scale>=data.narrow;child++){",
    "open.push({frame:child,x,width:value[child]*scale,level});",
    "x+=value[child]*scale;",
    "}",
    "let[left,sum]=folded[box.frame]?\?none;",
    "for(;child<end;child++){",
    "left+=size[child];",
    "sum+=value[child];",
    "}",
    "hidden+=left;",
    "if(left&&sum*scale>=data.narrow)",
    "found.push({frame:box.frame,x,width:sum*scale,level,count:left,sum});",
    "}",
    "const levels=found.reduce((most,box)=>Math.max(most,box.level+1),0);",
    "return{found,hidden,tall:Math.max(top+levels*row+bottom,side&&top+320)};",
    "}",
    "let describe=(box)=>{",
    "if(box.count){",
    "const what=number(box.count)+(box.count===1?' folded frame':' folded frames');",
    "return[what,`${amount(box.sum)}, ${percent(box.sum, total)} of all, too narrow to draw`];",
    "}",
    "const i=box.frame,own=Math.max(0,self[i]),caller=parent[i];",
    "if(chosen.callers)return[names[name[i]],`${amount(value[i])}, ${percent(value[i], total)} of all`+(caller?`, ${percent(value[i], value[caller])} of what it called`:'')];",
    "return[names[name[i]],`${amount(value[i])}, ${percent(value[i], total)} of all`+",
    "(caller?`, ${percent(value[i], value[caller])} of its caller`:'')+",
    "`, self ${amount(own)}`];",
    "};",
    "\tconst described=describe;",
    "\tdescribe=(box)=>{",
    "\tconst[title,figures]=described(box),i=box.frame;",
    "\treturn[title,box.count?figures:`${figures}; ${against(value[i], old[i])}`];",
    "\t};",
    "function draw(){",
    "const held=boxes.find((box)=>box.element===document.activeElement),before=height;",
    "drawHead();",
    "const{found,hidden,tall}=layout(zoomed);",
    "boxes=found;",
    "if(!zoomed)tallest=tall;",
    "height=whole?Math.max(tall,Math.min(tallest,view().height)):Math.min(tall,view().height);",
    "svg.removeAttribute('viewBox');",
    "put(svg,{width,height});",
    "frames.replaceChildren(...boxes.map(drawBox));",
    "paintHits();",
    "ring.setAttribute('visibility','hidden');",
    "const again=boxes.find((box)=>held&&box.frame===held.frame&&!box.count===!held.count);",
    "(again?\?boxes[0]).element.setAttribute('tabindex',0);",
    "if(held)(again?\?boxes[0]).element.focus({preventScroll:true});",
    "note.setAttribute('y',height-bottom+22);",
    "note.textContent=fit((hidden?`${number(hidden)} frames narrower than ${data.narrow} px are `+",
    "'folded (hatched); zoom in to see them. ':'')+data.kept,width-2*pad-side,'11px');",
    "drawList();",
    "if(!data.inverted&&before)scrollBy(0,height-before);",
    "follow();",
    "}",
    "function drawBox(box){",
    "const[title,figures]=describe(box);",
    "const y=data.inverted?top+box.level*row:height-bottom-(box.level+1)*row;",
    "const gap=box.width>3?1:0;",
    "const kind=box.count?'frame fold':box.above?'frame above':'frame';",
    "const group=make('g',{class:kind,tabindex:-1,role:'treeitem','aria-level':box.level+1,",
    "'aria-label':`${title}: ${figures}`});",
    "const tip=make('title');",
    "tip.textContent=`${title} (${figures})`;",
    "let fill=box.count?'url(#hatch)':box.above?'#e9ebef':colours[name[box.frame]];",
    "\tif(!box.count&&!box.above)fill=changeColour(changeOf(value[box.frame],old[box.frame]));",
    "group.append(tip,make('rect',{x:box.x.toFixed(2),y,width:(box.width-gap).toFixed(2),",
    "height:row-1,rx:box.width>6?2:0,fill}));",
    "const text=box.width<20||box.count?'':fit(title,box.width-gap-8,'12px');",
    "if(text){",
    "const label=make('text',{x:(box.x+4).toFixed(2),y:y+row-6});",
    "label.textContent=text;",
    "group.append(label);",
    "}",
    "group.box=box;",
    "box.y=y;",
    "box.element=group;",
    "return group;",
    "}",
    "function drawHead(){",
    "const room=Math.min(width-2*pad,Math.max(210,Math.min(330,width*0.45)));",
    "const y=data.head-(data.facts?65:44);",
    "put(part('choices'),{width:width-2*pad,y});",
    "const taller=choices.childElementCount?choices.offsetHeight+6:0;",
    "put(part('choices'),{height:taller});",
    "put(part('detail'),{y:y+taller,width:width-2*pad});",
    "top=y+44+taller;",
    "side=chosen.functions&&width>=900?380:0;",
    "below=chosen.functions&&!side?Math.max(130,Math.min(280,Math.round(view().height*0.35))):0;",
    "bottom=data.foot+below;",
    "put(part('tools'),{width:room,x:width-pad-room});",
    "put(head.querySelector('rect'),{width,height:top-4});",
    "put(part('matched'),{x:width-pad});",
    "part('title').textContent=fit(data.title,width-3*pad-room,'600 17px');",
    "reset.hidden=!zoomed;",
    "}",
    "const alone=svg===document.documentElement;",
    "const view=()=>alone?{width:svg.clientWidth,height:svg.clientHeight}:",
    "{width:svg.parentElement.clientWidth,height:innerHeight};",
    "let whole=!alone||data.inverted||!matchMedia('(any-pointer: none)').matches;",
    "for(const sign of['keydown','wheel','pointerdown','beforeprint'])",
    "addEventListener(sign,()=>{",
    "if(whole)return;",
    "whole=true;",
    "draw();",
    "},{capture:true,passive:true});",
    "let seen={};",
    "function follow(){",
    "const above=view().height<2*top?0:-svg.getBoundingClientRect().top;",
    "const moved=`translate(0 ${Math.max(0, Math.min(above, height - top))})`;",
    "head.setAttribute('transform',moved);",
    "part('list').setAttribute('transform',side?moved:'');",
    "seen={...view(),y:scrollY};",
    "}",
    "addEventListener('beforeprint',()=>{",
    "svg.setAttribute('viewBox',`0 0 ${width} ${height}`);",
    "head.setAttribute('transform','translate(0 0)');",
    "});",
    "addEventListener('afterprint',()=>{",
    "svg.removeAttribute('viewBox');",
    "follow();",
    "});",
    "function reveal(box){",
    "const{height:room}=view(),roof=room<2*top?0:top,at=svg.getBoundingClientRect().top+box.y;",
    "if(!alone)box.element.scrollIntoView({block:'nearest'});",
    "else if(at<roof)scrollBy(0,at-roof);",
    "else if(at+row+8>room)scrollBy(0,at+row+8-room);",
    "follow();",
    "}",
    "function focus(box){",
    "box.element.focus({preventScroll:true});",
    "reveal(box);",
    "}",
    "let back=null;",
    "function zoom(frame){",
    "if(!(value[frame]>0))return;",
    "if(!zoomed)back={frame,x:scrollX,y:scrollY,height};",
    "zoomed=frame;",
    "draw();",
    "reveal(boxes.find((box)=>box.frame===frame));",
    "}",
    "function zoomOut(){",
    "if(!zoomed)return;",
    "const held=frames.contains(document.activeElement);",
    "zoomed=0;",
    "draw();",
    "if(held)(boxes.find((box)=>box.frame===back.frame)?\?boxes[0]).element.focus({preventScroll:true});",
    "scrollTo(back.x,back.y+(data.inverted?0:height-back.height));",
    "follow();",
    "}",
    "function search(query){",
    "marked=-1;",
    "for(const button of body.querySelectorAll('[aria-pressed=true]'))button.setAttribute('aria-pressed',false);",
    "let pattern=null;",
    "try{pattern=new RegExp(query,'iu');}catch{/*then it is plain text only*/}",
    "const plain=query.toLowerCase();",
    "hits=query&&names.map((text)=>text.toLowerCase().includes(plain)||!!pattern?.test(text));",
    "paintHits();",
    "}",
    "function matchedIn(start){",
    "let sum=0,unknown=0;",
    "const open=[start];",
    "for(const i of open){",
    "if(i&&hits[calls.name[i]]){sum+=calls.value[i];continue;}",
    "unknown+=calls.folded[i]?.[1]?\?0;",
    "for(let k=0;k<calls.children[i];k++)open.push(calls.first[i]+k);",
    "}",
    "return[sum,unknown];",
    "}",
    "function paintHits(){",
    "for(const box of boxes){",
    "const hit=hits&&!box.count&&box.frame>0&&hits[name[box.frame]];",
    "box.element.classList.toggle('hit',!!hit);",
    "box.element.classList.toggle('miss',!!hits&&!hit);",
    "}",
    "showMatched();",
    "}",
    "function showMatched(){",
    "let text='';",
    "if(hits){",
    "const[sum,unknown]=matchedIn(0),[inView]=matchedIn(chosen.callers?0:zoomed);",
    "text=`Matched: ${percent(sum, total)} (${amount(sum)})`+",
    "(zoomed&&!chosen.callers?`, ${percent(inView, value[zoomed])} of this view`:'')+",
    "(unknown*1000>total?`, at most ${percent(unknown, total)} more in folded frames`:'');",
    "}",
    "const matched=part('matched'),room=width-2*pad;",
    "matched.textContent=fit(text,room,'600 12px');",
    "const taken=text?matched.getComputedTextLength()+2*pad:0;",
    "part('subtitle').textContent=fit(summary(),room-taken,'12px');",
    "}",
    "const hint='Click a frame to zoom, or walk with the arrow keys and Enter; Escape resets.';",
    "function show(box){",
    "const[title,figures]=box?describe(box):['',hint];",
    "part('name').textContent=title;",
    "part('figures').textContent=figures;",
    "}",
    "function neighbour(box,key){",
    "const inwards=data.inverted?'ArrowDown':'ArrowUp',outwards=data.inverted?'ArrowUp':'ArrowDown';",
    "const level=box.level+(key===inwards?1:key===outwards?-1:0);",
    "const line=boxes.filter((other)=>other.level===level).sort((a,b)=>a.x-b.x);",
    "if(key==='Home')return boxes[0];",
    "if(key==='ArrowLeft')return line[line.indexOf(box)-1];",
    "if(key==='ArrowRight')return line[line.indexOf(box)+1];",
    "if(key===outwards)return line.findLast((other)=>other.x<=box.x+0.01);",
    "if(key===inwards)return line.find((o)=>o.x>=box.x-0.01&&o.x<box.x+box.width||",
    "o.x<box.x&&o.x+o.width>box.x+0.01);",
    "}",
    "const reset=html('button',{type:'button',id:'reset',title:'Show all frames again (Escape)'});",
    "const field=html('input',{type:'search',id:'search',placeholder:'Search (Ctrl-F)',",
    "'aria-label':'Search frames: text or regular expression',",
    "title:'Text or regular expression',spellcheck:'false'});",
    "const bar=html('div',{class:'bar'}),detail=html('div',{class:'detail','aria-hidden':true});",
    "reset.textContent='Reset zoom';",
    "bar.append(reset,field);",
    "detail.append(html('div',{id:'name'}),html('div',{id:'figures'}));",
    "part('tools').append(bar);",
    "const choices=html('div',{class:'bar choices',role:'group','aria-label':'What is shown'});",
    "part('detail').before(make('foreignObject',{id:'choices',x:pad}));",
    "part('choices').append(choices);",
    "if(data.facts){",
    "part('facts').remove();",
    "choices.append(html('div',{id:'facts'}));",
    "choices.lastChild.textContent=data.facts;",
    "}",
    "function choice(key,label,title){",
    "if(!has[key])return;",
    "const button=html('button',{type:'button',id:key,title,'aria-pressed':chosen[key]});",
    "button.textContent=label;",
    "button.addEventListener('click',()=>{",
    "chosen[key]=!chosen[key];",
    "button.setAttribute('aria-pressed',chosen[key]);",
    "if(key==='functions')resize(true);else change();",
    "});",
    "choices.append(button);",
    "}",
    "choice('apart','Threads apart','One stack for each thread, or one of all together');",
    "choice('idle','Waiting','With the time in which threads only waited, or without it');",
    "if(has.metric){",
    "const select=html('select',{id:'metric','aria-label':'What is measured',title:'What is measured'});",
    "metrics.forEach(({name:text,at,idle},i)=>{",
    "if(!known[at]&&!known[idle])return;",
    "const option=html('option',{value:i});",
    "option.textContent=text;",
    "option.selected=i===chosen.metric;",
    "select.append(option);",
    "});",
    "select.addEventListener('change',()=>{",
    "chosen.metric=Number(select.value);",
    "if(part('idle'))part('idle').disabled=!metric().idle;",
    "change();",
    "});",
    "choices.append(select);",
    "}",
    "if(part('idle'))part('idle').disabled=!metric().idle;",
    "choice('functions','Functions','A list of the functions: what each took itself, and with all that it called');",
    "choice('callers','Callers','What ran, and above it those that called it; or the calls from the start on');",
    "choice('imports','Open imports','The frames of importlib one by one, or each run of them as one frame');",
    "const functions=[],functionAt=new Map(),functionOf=names.map((text,word)=>{",
    "if(!codes[word]&&text[0]!=='[')return-1;",
    "const plain=text.replace(/:\\d+\\)$/,')');",
    "if(!functionAt.has(plain))functionAt.set(plain,functions.push(plain)-1);",
    "return functionAt.get(plain);",
    "});",
    "function weigh(){",
    "const found=functions.map((text)=>({text,self:0,total:0})),open=new Int32Array(functions.length);",
    "const way=[chosen.callers?0:zoomed];",
    "\tfor(const one of found)one.was=one.old=0;",
    "while(way.length){",
    "const i=way.pop(),word=functionOf[calls.name[i<0?~i:i]];",
    "if(i<0){open[word]--;continue;}",
    "if(word>=0){",
    "found[word].self+=calls.self[i];",
    "\tfound[word].was+=calls.oldSelf[i],found[word].old+=open[word]?0:calls.old[i];",
    "if(!open[word]++)found[word].total+=calls.value[i];",
    "way.push(~i);",
    "}",
    "for(let k=0;k<calls.children[i];k++)way.push(calls.first[i]+k);",
    "}",
    "\tfor(const one of found)one.change=changeOf(one.self,one.was);",
    "return found.map((one,at)=>({...one,at})).filter((one)=>one.total>0||one.old>0);",
    "}",
    "let order='self',marked=-1;",
    "const rows=100,list=html('div',{class:'list'}),body=html('tbody'),caption=html('caption');",
    "const heads={self:'Self',total:'Total'};",
    "\theads.change='Change';",
    "const table=html('table'),titles=html('tr');",
    "for(const key in heads){",
    "const cell=html('th',{scope:'col'}),button=html('button',{type:'button',id:'by-'+key,title:'Sort by it'});",
    "button.textContent=heads[key];",
    "button.addEventListener('click',()=>{order=key;drawList();});",
    "cell.append(button);",
    "titles.append(cell);",
    "heads[key]=cell;",
    "}",
    "\theads.change.firstChild.title='Sort by how much more or less each took itself than in the base, in percent of all';",
    "titles.append(html('th',{scope:'col'}));",
    "titles.lastChild.textContent='Function';",
    "table.append(caption,html('thead'),body);",
    "table.children[1].append(titles);",
    "list.append(table);",
    "svg.append(make('foreignObject',{id:'list'}));",
    "part('list').append(list);",
    "function drawList(){",
    "const place=part('list');",
    "place.setAttribute('visibility',chosen.functions?'visible':'hidden');",
    "const held=body.contains(document.activeElement)?document.activeElement.one.at:-1;",
    "body.replaceChildren();",
    "list.hidden=!chosen.functions;",
    "if(!chosen.functions)return;",
    "const tall=side?Math.min(view().height,height)-top-14:below-10;",
    "const box={x:side?width-pad-side+16:pad,y:side?top:height-below,width:side?side-16:width-2*pad,height:tall};",
    "put(place,box);",
    "list.style.height=tall+'px';",
    "const inside=zoomed&&!chosen.callers,found=weigh(),share=inside?value[zoomed]:total;",
    "found.sort((a,b)=>b[order]-a[order]||b.self-a.self||b.total-a.total||(a.text<b.text?-1:1));",
    "\tif(order==='change')found.sort((a,b)=>Math.abs(b.change)-Math.abs(a.change)||(a.text<b.text?-1:1));",
    "caption.textContent=`${found.length > rows ? number(rows) + ' of ' : ''}${number(found.length)} function${found.length === 1 ? '' : 's'}${inside ? ' in what is zoomed' : ''}`;",
    "for(const key in heads)heads[key].setAttribute('aria-sort',key===order?'descending':'none');",
    "for(const one of found.slice(0,rows)){",
    "const line=html('tr'),button=html('button',{type:'button',tabindex:-1,title:`${one.text}: self ${amount(one.self)}, total ${amount(one.total)}`,'aria-pressed':one.at===marked});",
    "for(const key in heads){",
    "const cell=html('td');",
    "cell.textContent=percent(one[key],share);",
    "\tif(key==='change')cell.textContent=changeText(one.change);",
    "line.append(cell);",
    "}",
    "\tbutton.title+=`; self ${against(one.self, one.was)}`;",
    "button.textContent=one.text;",
    "button.one=one;",
    "line.append(html('td'));",
    "line.lastChild.append(button);",
    "body.append(line);",
    "}",
    "const buttons=[...body.querySelectorAll('button')],again=buttons.find((button)=>button.one.at===held);",
    "(again?\?buttons[0])?.setAttribute('tabindex',0);",
    "if(held>=0)(again?\?buttons[0])?.focus({preventScroll:true});",
    "}",
    "function mark(at){",
    "marked=at===marked?-1:at;",
    "field.value=marked<0?'':functions[at];",
    "hits=marked<0?null:functionOf.map((one)=>one===at);",
    "for(const button of body.querySelectorAll('button'))button.setAttribute('aria-pressed',button.one.at===marked);",
    "paintHits();",
    "}",
    "body.addEventListener('click',(event)=>{",
    "const button=event.target.closest('tr')?.querySelector('button');",
    "if(button)mark(button.one.at);",
    "});",
    "body.addEventListener('keydown',(event)=>{",
    "const buttons=[...body.querySelectorAll('button')],at=buttons.indexOf(document.activeElement);",
    "const next={ArrowDown:at+1,ArrowUp:at-1,Home:0,End:buttons.length-1}[event.key];",
    "if(next===undefined)return;",
    "event.preventDefault();",
    "if(!buttons[next])return;",
    "buttons[at].setAttribute('tabindex',-1);",
    "buttons[next].setAttribute('tabindex',0);",
    "buttons[next].focus();",
    "});",
    "let turned=false;",
    "function change(){",
    "const held=turned===chosen.callers&&!turned?origin[zoomed]:[0,0];",
    "turned=chosen.callers;",
    "frames.setAttribute('aria-label',turned?'Callers':'Flame graph');",
    "build();",
    "zoomed=0;",
    "tallest=0;",
    "draw();",
    "if(alone&&!data.inverted)scrollTo(scrollX,height);",
    "follow();",
    "const same=placed(...held);",
    "if(same)zoom(same);",
    "}",
    "part('detail').append(detail);",
    "const boxOf=(event)=>{",
    "const group=event.target.closest?.('.frame');",
    "return group&&frames.contains(group)?group.box:undefined;",
    "};",
    "frames.addEventListener('pointerover',(event)=>show(boxOf(event)?\?current));",
    "frames.addEventListener('pointerleave',()=>show(current));",
    "frames.addEventListener('click',(event)=>{const box=boxOf(event);if(box)zoom(box.frame);});",
    "document.addEventListener('focusin',(event)=>{",
    "const box=boxOf(event);",
    "if(!box)return;",
    "current=box;",
    "frames.querySelector('[tabindex=\"0\"]')?.setAttribute('tabindex',-1);",
    "box.element.setAttribute('tabindex',0);",
    "show(box);",
    "const place={x:box.x-1,y:box.y-1,width:Math.max(4,box.width+1),height:row+1};",
    "put(ring,place);",
    "ring.setAttribute('visibility',box.element.matches(':focus-visible')?'visible':'hidden');",
    "});",
    "document.addEventListener('focusout',()=>{",
    "current=null;",
    "ring.setAttribute('visibility','hidden');",
    "show(null);",
    "});",
    "frames.addEventListener('keydown',(event)=>{",
    "const box=boxOf(event);",
    "if(event.ctrlKey||event.altKey||event.metaKey)return;",
    "if(event.key==='Enter'||event.key===' ')zoom(box.frame);",
    "else if(!/^(Arrow|Home)/.test(event.key))return;",
    "else{",
    "const next=neighbour(box,event.key);",
    "if(next)focus(next);",
    "}",
    "event.preventDefault();",
    "});",
    "field.addEventListener('input',()=>search(field.value));",
    "reset.addEventListener('click',()=>{",
    "const box=back.frame;",
    "zoomOut();",
    "(boxes.find((one)=>one.frame===box)?\?boxes[0]).element.focus({preventScroll:true});",
    "});",
    "document.addEventListener('keydown',(event)=>{",
    "const find=(event.ctrlKey||event.metaKey)&&event.key==='f'||event.key==='/';",
    "if(find&&document.activeElement!==field){",
    "event.preventDefault();",
    "field.focus({preventScroll:true});",
    "field.select();",
    "}else if(event.key==='Escape'){",
    "field.value='';",
    "search('');",
    "zoomOut();",
    "if(document.activeElement===field)boxes[0].element.focus({preventScroll:true});",
    "}",
    "});",
    "function resize(anyway){",
    "const{width:room,height:tall}=view(),was=seen;",
    "const next=Math.max(data.least,data.fixed?Math.min(data.width,room):room);",
    "if(alone&&!data.inverted&&was.height)scrollTo(scrollX,was.y+was.height-tall);",
    "if(anyway!==true&&!chosen.functions&&next===width&&!zoomed&&whole)return follow();",
    "width=next;",
    "drawHead();",
    "tallest=layout(0).tall;",
    "draw();",
    "if(zoomed)reveal(boxes.find((box)=>box.frame===zoomed));",
    "}",
    "addEventListener('resize',resize);",
    "addEventListener('scroll',follow,{passive:true,capture:true});",
    "build();",
    "show(null);",
    "resize();",
    "resize();",
    "if(alone&&!data.inverted)scrollTo(0,height);",
    "follow();",
    /* clang-format on */
};

static inline void flamegraph_put_lines(const char *const *lines, size_t count, bool difference, flamegraph_out *out) {
    for (size_t i = 0; i < count; i++) {
        bool marked = lines[i][0] == '\t';
        if (marked && !difference)
            continue;
        flamegraph_puts(lines[i] + marked, out);
        flamegraph_putc('\n', out);
    }
}

/* What the style of a difference has besides: its colours for dark windows, by those for light ones. */
static inline void flamegraph_put_difference_style(flamegraph_out *out) {
    flamegraph_puts(".list th:nth-child(3){width:66px;text-align:right;}\n"
                    "@media screen and (prefers-color-scheme:dark){\n",
                    out);
    for (int step = -FLAMEGRAPH_STEPS; step <= FLAMEGRAPH_STEPS; step++)
        flamegraph_print(out, "rect[fill=\"#%06" PRIx32 "\"]{fill:#%06" PRIx32 ";fill-opacity:1;}\n",
                         flamegraph_change_colour(step, false), flamegraph_change_colour(step, true));
    flamegraph_puts("}\n", out);
}

static inline const char *flamegraph_unit(const flamegraph_picture *picture) {
    bool has_figures = picture->graph->has_figures, memory = picture->options.memory;
    bool samples = has_figures && picture->options.metric == FLAMEGRAPH_SAMPLES;
    bool objects = memory && (samples || picture->options.metric == FLAMEGRAPH_GIL);
    return objects ? "objects" : samples ? "samples" : picture->options.unit;
}

static inline void flamegraph_put_figures(const flamegraph_picture *picture, uint64_t value, flamegraph_out *out) {
    char amount[96], share[16];
    flamegraph_format_amount(amount, sizeof amount, value, flamegraph_unit(picture), picture->per);
    flamegraph_format_percent(share, sizeof share, value, flamegraph_total(picture->graph));
    flamegraph_put_xml(amount, strlen(amount), out);
    flamegraph_puts(", ", out);
    flamegraph_put_xml(share, strlen(share), out);
    flamegraph_puts(" of all", out);
}

static inline int flamegraph_y(const flamegraph_picture *picture, uint32_t level) {
    if (picture->options.inverted)
        return flamegraph_top(picture) + (int)level * FLAMEGRAPH_ROW;
    return flamegraph_height(picture) - FLAMEGRAPH_BOTTOM - (int)(level + 1) * FLAMEGRAPH_ROW;
}

static inline void flamegraph_put_box(double x, int y, double width, const char *fill, flamegraph_out *out) {
    flamegraph_puts("<rect x=\"", out);
    flamegraph_put_fixed(x, 2, out);
    flamegraph_print(out, "\" y=\"%d\" width=\"", y);
    flamegraph_put_fixed(width > 3 ? width - 1 : width, 2, out);
    flamegraph_print(out, "\" height=\"%d\" rx=\"%d\" fill=\"%s\"/>", FLAMEGRAPH_ROW - 1, width > 6 ? 2 : 0, fill);
}

static inline double flamegraph_change_of(const flamegraph_picture *picture, uint32_t node) {
    const flamegraph_node *nodes = picture->graph->nodes;
    return flamegraph_change(picture->options.difference, nodes[node].total, nodes[0].total, picture->base[node],
                             picture->base[0]);
}

/* "; in the base 800 ms, 20.0%: +10.0 points" */
static inline void flamegraph_put_change(const flamegraph_picture *picture, uint32_t node, flamegraph_out *out) {
    bool absolute = picture->options.difference == FLAMEGRAPH_ABSOLUTE;
    uint64_t value = picture->graph->nodes[node].total, base = picture->base[node];
    const char *unit = flamegraph_unit(picture);
    char text[96], change[32];
    flamegraph_format_change(change, sizeof change, flamegraph_change_of(picture, node));
    flamegraph_puts(base ? "; in the base " : "; not in the base", out);
    if (base) {
        flamegraph_format_amount(text, sizeof text, base, unit, picture->per);
        flamegraph_put_xml(text, strlen(text), out);
        flamegraph_format_percent(text, sizeof text, base, picture->base[0]);
        flamegraph_puts(", ", out);
        flamegraph_put_xml(text, strlen(text), out);
    }
    flamegraph_puts(": ", out);
    if (absolute) {
        flamegraph_format_amount(text, sizeof text, value > base ? value - base : base - value, unit, picture->per);
        flamegraph_puts(value > base ? "+" : value < base ? "\xe2\x88\x92" : "", out);
        flamegraph_put_xml(text, strlen(text), out);
        flamegraph_puts(", ", out);
    }
    flamegraph_puts(change, out);
    flamegraph_puts(absolute ? "%" : " points", out);
}

static inline void flamegraph_put_frame(const flamegraph_picture *picture, const flamegraph_entry *entry,
                                        flamegraph_out *out) {
    const flamegraph *graph = picture->graph;
    const flamegraph_node *node = &graph->nodes[entry->node];
    const flamegraph_name *name = &graph->names[node->name];
    const char *text = graph->text + name->offset;
    int y = flamegraph_y(picture, entry->level);
    char fill[8];
    snprintf(fill, sizeof fill, "#%06" PRIx32,
             picture->base
                 ? flamegraph_change_colour(flamegraph_step_of(flamegraph_change_of(picture, entry->node)), false)
                 : flamegraph_colour(text, name->size));
    flamegraph_puts("<g class=\"frame\"><title>", out);
    flamegraph_put_xml(text, name->size, out);
    flamegraph_puts(" (", out);
    flamegraph_put_figures(picture, node->total, out);
    if (picture->base)
        flamegraph_put_change(picture, entry->node, out);
    flamegraph_puts(")</title>", out);
    flamegraph_put_box(entry->x, y, entry->width, fill, out);
    if (entry->width >= 20) {
        flamegraph_puts("<text x=\"", out);
        flamegraph_put_fixed(entry->x + 4, 2, out);
        flamegraph_print(out, "\" y=\"%d\">", y + FLAMEGRAPH_ROW - 6);
        flamegraph_put_fitting(text, name->size, entry->width - 9, 12, out);
        flamegraph_puts("</text>", out);
    }
    flamegraph_puts("</g>\n", out);
}

/* One hatched box for all callees of a frame that are too narrow, if it is wide enough itself. */
static inline void flamegraph_put_folded(const flamegraph_picture *picture, const flamegraph_entry *entry,
                                         flamegraph_out *out) {
    if (entry->hidden_width < picture->options.min_width)
        return;
    flamegraph_puts("<g class=\"frame fold\"><title>folded frames (", out);
    flamegraph_put_figures(picture, entry->hidden_value, out);
    flamegraph_puts(", too narrow to draw)</title>", out);
    flamegraph_put_box(entry->hidden_x, flamegraph_y(picture, entry->level + 1), entry->hidden_width, "url(#hatch)",
                       out);
    flamegraph_puts("</g>\n", out);
}

static inline void flamegraph_put_note(const flamegraph_picture *picture, flamegraph_out *out) {
    char hidden[32] = "", narrow[32], text[320];
    flamegraph_format_count(hidden, sizeof hidden, picture->hidden_frames);
    flamegraph_print(out, "<text id=\"note\" x=\"%d\" y=\"%d\">", FLAMEGRAPH_PAD,
                     flamegraph_height(picture) - FLAMEGRAPH_BOTTOM + 22);
    if (picture->hidden_frames) {
        snprintf(text, sizeof text, "%s frames narrower than %s px are folded (hatched); zoom in to see them. %s",
                 hidden, flamegraph_short(narrow, sizeof narrow, picture->options.min_width), picture->kept_text);
        flamegraph_put_fitting(text, strlen(text), flamegraph_width(&picture->options) - 2.0 * FLAMEGRAPH_PAD, 11, out);
    }
    flamegraph_puts("</text>\n", out);
}

static inline void flamegraph_put_facts(const char *facts, int y, double room, flamegraph_out *out) {
    if (!facts[0])
        return;
    flamegraph_print(out, "<text id=\"facts\" x=\"%d\" y=\"%d\">", FLAMEGRAPH_PAD, y);
    flamegraph_put_fitting(facts, strlen(facts), room, 12, out);
    flamegraph_puts("</text>\n", out);
}

/* What a difference is to, and what its colours mean. */
static inline void flamegraph_append_compared(char *out, size_t room, const flamegraph_picture *picture) {
    char text[96];
    flamegraph_format_amount(text, sizeof text, picture->base[0], flamegraph_unit(picture), picture->per);
    flamegraph_append_fact(out, room, "base ", text);
    flamegraph_append_fact(out, room, "",
                           picture->options.difference == FLAMEGRAPH_ABSOLUTE ? "red: more, blue: less"
                                                                              : "red: larger share, blue: smaller");
    if (picture->gone) {
        flamegraph_format_amount(text, sizeof text, picture->gone, "frames", 1);
        flamegraph_append_fact(out, room, "", text);
        flamegraph_append(out, room, " gone");
    }
}

static inline void flamegraph_put_head(const flamegraph_picture *picture, flamegraph_out *out) {
    const flamegraph_options *options = &picture->options;
    double room = flamegraph_width(options) - 2.0 * FLAMEGRAPH_PAD;
    char amount[384];
    flamegraph_format_amount(amount, sizeof amount, flamegraph_total(picture->graph), flamegraph_unit(picture),
                             picture->per);
    flamegraph_append(amount, sizeof amount, " in all");
    flamegraph_append(amount, sizeof amount, picture->together);
    if (picture->base)
        flamegraph_append_compared(amount, sizeof amount, picture);
    flamegraph_append(amount, sizeof amount, picture->shown);
    flamegraph_print(out,
                     "<g id=\"head\"><rect class=\"paper\" width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n"
                     "<text id=\"title\" x=\"%d\" y=\"29\">",
                     flamegraph_width(options), flamegraph_top(picture) - 4, FLAMEGRAPH_PAD);
    flamegraph_put_fitting(options->title, strlen(options->title), room, 18, out);
    flamegraph_print(out, "</text>\n<text id=\"subtitle\" x=\"%d\" y=\"50\">", FLAMEGRAPH_PAD);
    flamegraph_put_xml(amount, strlen(amount), out);
    if (options->subtitle[0]) {
        flamegraph_puts(" \xc2\xb7 ", out);
        flamegraph_put_fitting(options->subtitle, strlen(options->subtitle), room - 7.0 * (double)strlen(amount) - 12,
                               12, out);
    }
    flamegraph_puts("</text>\n", out);
    flamegraph_put_facts(picture->facts, 68, room, out);
    flamegraph_print(out,
                     "<text id=\"matched\" y=\"50\" role=\"status\"></text>\n"
                     "<foreignObject id=\"tools\" y=\"8\" width=\"1\" height=\"34\"/>\n"
                     "<foreignObject id=\"detail\" x=\"%d\" y=\"%d\" width=\"1\" height=\"40\"/></g>\n",
                     FLAMEGRAPH_PAD, flamegraph_top(picture) - 44);
}

static inline void flamegraph_put_start(const flamegraph_picture *picture, flamegraph_out *out) {
    const flamegraph_options *options = &picture->options;
    int width = flamegraph_width(options), height = flamegraph_height(picture);
    flamegraph_print(out,
                     "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"flamegraph\" width=\"%d\" "
                     "height=\"%d\" viewBox=\"0 0 %d %d\">\n<title>",
                     width, height, width, height);
    flamegraph_put_xml(options->title, strlen(options->title), out);
    flamegraph_puts("</title>\n<style>\n", out);
    flamegraph_put_lines(flamegraph_style, sizeof flamegraph_style / sizeof *flamegraph_style, false, out);
    if (options->difference)
        flamegraph_put_difference_style(out);
    flamegraph_puts("</style>\n"
                    "<defs><pattern id=\"hatch\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" "
                    "patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" fill=\"#eceef1\"/>"
                    "<rect width=\"2\" height=\"5\" fill=\"#c3c9d1\"/></pattern></defs>\n"
                    "<rect class=\"paper\" width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
                    out);
}

/* Numbers as the script reads them: digits to the base of 42, the last one of each marked by being one of the first 42
 * characters. They stand in a template literal within a CDATA section, maybe within HTML: nothing here means anything
 * there. */
static inline void flamegraph_put_number(uint64_t number, flamegraph_out *out) {
    static const char digits[] = "%'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[^_abcdefghijklmnopqrstuvwxyz{|}~";
    char text[16];
    int used = 0;
    for (; used == 0 || number; number /= 42) {
        text[used] = digits[number % 42 + (used ? 42 : 0)];
        used++;
    }
    while (used > 0)
        flamegraph_putc(text[--used], out);
}

/* Text for the same place. */
static inline void flamegraph_put_literal(const char *at, size_t size, flamegraph_out *out) {
    for (const char *end = at + size; at < end;) {
        uint32_t code = flamegraph_character(&at, end);
        if (code < 0x80 && strchr("`$\\<>&", (int)code)) {
            flamegraph_print(out, "\\x%02" PRIx32, code);
        } else {
            flamegraph_put(code, out);
        }
    }
}

/* How many bytes two names begin with in common, of plain ASCII. */
static inline size_t flamegraph_common(const char *one, size_t one_size, const char *other, size_t other_size) {
    size_t least = one_size < other_size ? one_size : other_size, at = 0;
    while (at < least && one[at] == other[at] && one[at] >= ' ' && one[at] < 0x7f)
        at++;
    return at;
}

/* The names, sorted: of each how much it begins with in common with the one before, its colour, and the rest. */
static inline void flamegraph_put_names(const flamegraph_table *table, flamegraph_out *out) {
    const flamegraph *words = table->words;
    const char *before = "";
    size_t before_size = 0;
    flamegraph_puts("names: `", out);
    for (size_t i = 0; i < words->name_count; i++) {
        const flamegraph_name *name = &words->names[table->sorted[i]];
        const char *text = words->text + name->offset;
        size_t common = flamegraph_common(before, before_size, text, name->size);
        if (i)
            flamegraph_putc('\n', out);
        flamegraph_put_number(common, out);
        flamegraph_put_number(flamegraph_colour_code(text, name->size), out);
        flamegraph_put_literal(text + common, name->size - common, out);
        before = text;
        before_size = name->size;
    }
    flamegraph_puts("`,\n", out);
}

/* A name's place among them. */
static inline uint32_t flamegraph_word(const flamegraph_table *table, const char *name, size_t size) {
    return table->word[flamegraph_intern(table->words, name, size)]; /* it is there */
}

/* Which of them are not zero, as bits, and these. */
static inline void flamegraph_put_figures_of(const flamegraph_figures *figures, flamegraph_out *out) {
    const uint64_t values[] = {
        figures->wall - figures->wall_idle,       figures->wall_idle,   figures->cpu, figures->gil,
        figures->samples - figures->samples_idle, figures->samples_idle};
    uint64_t bits = 0;
    for (size_t i = 0; i < 6; i++)
        bits |= (uint64_t)(values[i] > 0) << i;
    flamegraph_put_number(bits, out);
    for (size_t i = 0; i < 6; i++) {
        if (values[i])
            flamegraph_put_number(values[i], out);
    }
}

static inline void flamegraph_put_entry(const flamegraph_table *table, size_t at, size_t *next, flamegraph_out *out) {
    const flamegraph_entry *entry = &table->kept.entries[at];
    const flamegraph *records = table->records;
    size_t size, count = 0;
    const char *name = flamegraph_name_of(table->base.graph, entry->node, &size);
    while (*next + count < records->node_count && records->nodes[table->order[*next + count]].parent == at)
        count++;
    flamegraph_put_number(flamegraph_word(table, name, size), out);
    flamegraph_put_number(
        (entry->child_count * 2u + (entry->folded_frames > 0)) * UINT64_C(3) + (count < 2 ? count : 2), out);
    if (entry->folded_frames)
        flamegraph_put_number(entry->folded_frames, out);
    if (count >= 2)
        flamegraph_put_number(count, out);
    for (size_t end = *next + count; *next < end; ++*next) {
        const flamegraph_node *record = &records->nodes[table->order[*next]];
        flamegraph_put_number(record->name, out);
        if (table->base.graph->has_figures && record->name % FLAMEGRAPH_KINDS != FLAMEGRAPH_FRAMES)
            flamegraph_put_figures_of(&records->figures[table->order[*next]], out);
        else
            flamegraph_put_number(record->total, out);
    }
}

/* The table for the script, which reads it at its start. */
static inline bool flamegraph_put_table(const flamegraph_table *table, flamegraph_out *out) {
    size_t next = 1;
    const char *comma = "";
    flamegraph_put_names(table, out);
    flamegraph_puts("table: `", out);
    for (size_t i = 0; i < table->kept.count; i++)
        flamegraph_put_entry(table, i, &next, out);
    flamegraph_puts("`,\nthreads: [0", out);
    for (size_t i = 1; i < table->thread_count; i++)
        flamegraph_print(out, ",%" PRIu32, table->word[table->labels[i].offset]);
    flamegraph_puts("], holds: [", out);
    for (size_t i = 1; i < table->kept.count; i++) {
        if (!table->holds[i])
            continue;
        flamegraph_print(out, "%s%zu", comma, i);
        comma = ",";
    }
    flamegraph_puts("], ", out);
    if (table->has_imports)
        flamegraph_print(out, "imports: %" PRIu32 ", ",
                         flamegraph_word(table, FLAMEGRAPH_IMPORT, strlen(FLAMEGRAPH_IMPORT)));
    flamegraph_puts("hues: [", out);
    for (size_t i = 0; i < FLAMEGRAPH_HUES; i++)
        flamegraph_print(out, "%s%" PRIu32, i ? "," : "", flamegraph_hues[i]);
    flamegraph_puts("]};\n", out);
    return true;
}

static inline void flamegraph_put_difference(flamegraph_difference difference, flamegraph_out *out) {
    char number[32];
    flamegraph_print(out, ",\nabsolute: %d, steps: [", difference == FLAMEGRAPH_ABSOLUTE);
    for (int i = 0; i < FLAMEGRAPH_STEPS; i++)
        flamegraph_print(out, "%s%s", i ? "," : "", flamegraph_short(number, sizeof number, flamegraph_steps[i]));
    flamegraph_puts("], changes: [", out);
    for (int step = -FLAMEGRAPH_STEPS; step <= FLAMEGRAPH_STEPS; step++)
        flamegraph_print(out, "%s'#%06" PRIx32 "'", step > -FLAMEGRAPH_STEPS ? "," : "",
                         flamegraph_change_colour(step, false));
    flamegraph_puts("]", out);
}

static inline bool flamegraph_put_data(const flamegraph_picture *picture, const flamegraph_table *table,
                                       flamegraph_out *out) {
    const flamegraph_options *options = &picture->options;
    char narrow[32];
    flamegraph_puts("const data = {\nunit: ", out);
    flamegraph_put_js(options->unit, strlen(options->unit), out);
    flamegraph_print(out,
                     ", ns: %" PRIu64 ", per: %" PRIu64
                     ", together: \"%s\", width: %d, fixed: %d, least: %d, narrow: %s, inverted: %d, apart: %d,\n"
                     "pad: %d, row: %d, head: %d, foot: %d,\nkept: \"%s\",\ntitle: ",
                     (uint64_t)flamegraph_nanoseconds(options->unit), picture->per, table->together,
                     flamegraph_width(options), options->width != 0, FLAMEGRAPH_MIN_WIDTH,
                     flamegraph_short(narrow, sizeof narrow, options->min_width), options->inverted, options->threads,
                     FLAMEGRAPH_PAD, FLAMEGRAPH_ROW, flamegraph_top(picture), FLAMEGRAPH_BOTTOM, picture->kept_text);
    flamegraph_put_js(options->title, strlen(options->title), out);
    flamegraph_puts(", subtitle: ", out);
    flamegraph_put_js(options->subtitle, strlen(options->subtitle), out);
    flamegraph_print(out, ", metric: %d, idle: %d, figures: %d", (int)options->metric, options->idle,
                     table->base.graph->has_figures);
    if (options->memory)
        flamegraph_puts(",\nmemory: [{name: 'in use, bytes', at: 0}, {name: 'allocated, bytes', at: 2}, "
                        "{name: 'allocated, objects', at: 3, unit: 'objects'}, "
                        "{name: 'in use, objects', at: 4, unit: 'objects'}]",
                        out);
    if (options->difference)
        flamegraph_put_difference(options->difference, out);
    flamegraph_puts(", facts: ", out);
    flamegraph_put_js(picture->facts, strlen(picture->facts), out);
    flamegraph_puts(",\n", out);
    return flamegraph_put_table(table, out);
}

static inline bool flamegraph_put_picture(const flamegraph_picture *picture, const flamegraph_table *table,
                                          flamegraph_out *out) {
    flamegraph_put_start(picture, out);
    flamegraph_print(out, "<g id=\"frames\" role=\"tree\" aria-label=\"Flame graph\">\n");
    for (size_t i = 0; i < picture->count; i++) {
        if (picture->entries[i].width <= 0)
            continue;
        flamegraph_put_frame(picture, &picture->entries[i], out);
        flamegraph_put_folded(picture, &picture->entries[i], out);
    }
    flamegraph_puts("</g>\n<rect id=\"ring\" rx=\"3\" visibility=\"hidden\"/>\n", out);
    flamegraph_put_note(picture, out);
    flamegraph_put_head(picture, out);
    flamegraph_puts("<script><![CDATA[\n'use strict';\n(() => {\n", out);
    if (!flamegraph_put_data(picture, table, out))
        return false;
    flamegraph_put_lines(flamegraph_script, sizeof flamegraph_script / sizeof *flamegraph_script,
                         picture->options.difference != FLAMEGRAPH_NO_DIFFERENCE, out);
    flamegraph_puts("})();\n]]></script>\n</svg>\n", out);
    return true;
}

static inline double flamegraph_text_width(const char *text, size_t size, double font_size) {
    double width = 0;
    for (const char *at = text, *end = text + size; at < end;)
        width += flamegraph_em(flamegraph_character(&at, end)) * font_size / 100;
    return width;
}

/* Text broken into lines, at blanks and where it has newlines. */
static inline void flamegraph_put_wrapped(const char *text, int y, double room, flamegraph_out *out) {
    while (*text) {
        size_t fits = 0, end = 0;
        for (; text[end] && text[end] != '\n'; end++) {
            if (text[end] == ' ' && flamegraph_text_width(text, end, 12) <= room)
                fits = end;
        }
        if (fits == 0 || flamegraph_text_width(text, end, 12) <= room)
            fits = end;
        flamegraph_print(out, "<text class=\"why\" x=\"%d\" y=\"%d\">", FLAMEGRAPH_PAD, y);
        flamegraph_put_xml(text, fits, out);
        flamegraph_puts("</text>\n", out);
        text += fits + (text[fits] != '\0');
        y += FLAMEGRAPH_ROW;
    }
}

static const char flamegraph_why_empty[] =
    "No thread was seen running Python. That is so when nothing ran, when it ended before the first sample "
    "was taken, "
    "or when all that it did was to wait: waiting is left out unless it is asked for.\n"
    "Let it run for longer, sample more often (pyprof-run --rate 1000, interval_us in pyprof_desc), or show "
    "what "
    "waits, too (pyprof-run --idle, include_idle in pyprof_output).\n"
    "If the stacks came through a pipe, look at what the command before it said.";

/* A picture that says that there is nothing to see, why that may be and what to do. */
static inline void flamegraph_put_empty(const flamegraph_options *options, flamegraph_out *out) {
    double room = flamegraph_width(options) - 2.0 * FLAMEGRAPH_PAD;
    flamegraph_picture picture;
    memset(&picture, 0, sizeof picture);
    picture.options = *options;
    picture.levels = room < 600 ? 14 : 7;
    flamegraph_format_facts(picture.facts, sizeof picture.facts, &options->facts);
    flamegraph_put_start(&picture, out);
    flamegraph_print(out, "<text id=\"title\" x=\"%d\" y=\"29\">", FLAMEGRAPH_PAD);
    flamegraph_put_fitting(options->title, strlen(options->title), room, 18, out);
    flamegraph_print(out, "</text>\n<text id=\"subtitle\" x=\"%d\" y=\"50\">", FLAMEGRAPH_PAD);
    flamegraph_put_fitting(options->subtitle, strlen(options->subtitle), room, 12, out);
    flamegraph_puts("</text>\n", out);
    flamegraph_put_facts(picture.facts, 68, room, out);
    int y = flamegraph_top(&picture) - 20;
    flamegraph_print(out, "<text id=\"none\" x=\"%d\" y=\"%d\">No samples.</text>\n", FLAMEGRAPH_PAD, y);
    flamegraph_put_wrapped(options->empty ? options->empty : flamegraph_why_empty, y + 24, room < 640 ? room : 640,
                           out);
    flamegraph_puts("</svg>\n", out);
}

/* Gives the nodes of a graph of figures the totals of what is shown. */
static inline bool flamegraph_choose_figure(flamegraph *graph, const flamegraph_options *options) {
    uint64_t *own = flamegraph_own(graph);
    if (!own)
        return false;
    for (uint32_t i = 0; i < graph->node_count; i++) {
        flamegraph_figures figures = flamegraph_own_figures(graph, i, own[i]);
        graph->nodes[i].total = flamegraph_figure(&figures, options->metric, options->idle);
    }
    for (size_t i = graph->node_count; i-- > 1;)
        graph->nodes[graph->nodes[i].parent].total += graph->nodes[i].total;
    free(own);
    return true;
}

static inline void flamegraph_format_shown(char *out, size_t room, const flamegraph_options *options) {
    static const char *const metrics[][4] = {
        {"wall time", "CPU time", "time with the GIL", "samples"},
        {"in use, bytes", "allocated, bytes", "allocated, objects", "in use, objects"}};
    bool has_idle = !options->memory && (options->metric == FLAMEGRAPH_WALL || options->metric == FLAMEGRAPH_SAMPLES);
    snprintf(out, room, " \xc2\xb7 %s%s", metrics[options->memory][options->metric],
             !has_idle       ? ""
             : options->idle ? ", waiting included"
                             : ", waiting left out");
}

/* The picture as viewers without scripts show it, and the table from which the script draws. What the table has chosen
 * of the same graph is chosen for the picture, too. */
static inline bool flamegraph_draw(const flamegraph *graph, const flamegraph_table *table,
                                   const flamegraph_options *options, flamegraph_out *out) {
    flamegraph_picture picture = table->kept;
    bool same = graph == picture.graph, made = same || flamegraph_picture_make(&picture, graph, options);
    if (made) {
        picture.options = *options;
        flamegraph_format_kept(picture.kept_text, sizeof picture.kept_text, &table->kept);
        if (graph->has_figures)
            flamegraph_format_shown(picture.shown, sizeof picture.shown, options);
        if (!options->threads)
            memcpy(picture.together, table->together, sizeof picture.together);
        flamegraph_lay_out(&picture);
        made = flamegraph_put_picture(&picture, table, out);
    }
    if (!same)
        flamegraph_picture_free(&picture);
    return made;
}

/* A profile may have millions of nodes: nothing is held of them that is not needed any more. */
static inline bool flamegraph_draw_view(const flamegraph *graph, const flamegraph_options *options,
                                        flamegraph_out *out) {
    flamegraph_table table;
    flamegraph_view view;
    memset(&view, 0, sizeof view);
    bool made = flamegraph_table_make(&table, graph, options);
    const flamegraph *shown = options->threads ? table.apart.graph : table.base.graph;
    if (made)
        flamegraph_table_forget_nodes(&table, options->threads);
    made = made && flamegraph_view_make(&view, shown, true, true, false);
    flamegraph_view_forget_nodes(&view);
    made = made && (!shown->figures || flamegraph_choose_figure(view.graph, options)) &&
           flamegraph_draw(view.graph, &table, options, out);
    flamegraph_view_free(&view);
    flamegraph_table_free(&table);
    return made;
}

/* If there is nothing of what is to be shown of figures, what there is, is shown: with what waited, or by wall time; of
 * memory of which nothing is in use, what was allocated. Answers the sum of it. */
static inline uint64_t flamegraph_settle(const flamegraph *graph, flamegraph_options *options) {
    if (!graph->has_figures)
        return flamegraph_total(graph);
    flamegraph_figures all = graph->all;
    if (graph->counted == FLAMEGRAPH_WALL && all.wall < flamegraph_total(graph))
        all.wall = flamegraph_total(graph);
    flamegraph_metric others[] = {options->metric, FLAMEGRAPH_WALL, options->memory ? FLAMEGRAPH_CPU : FLAMEGRAPH_WALL};
    for (int attempt = 0; attempt < 3 && flamegraph_figure(&all, options->metric, options->idle) == 0; attempt++) {
        options->metric = others[attempt];
        options->idle = true;
    }
    return flamegraph_figure(&all, options->metric, options->idle);
}

static inline flamegraph_result flamegraph_write(const flamegraph *graph, const flamegraph_options *options,
                                                 flamegraph_write_fn write, void *user) {
    flamegraph_options used = flamegraph_defaults(options, graph);
    flamegraph_out *out = (flamegraph_out *)calloc(1, sizeof *out);
    if (!out)
        return FLAMEGRAPH_NO_MEMORY;
    out->write = write;
    out->user = user;
    bool made = true;
    if (flamegraph_settle(graph, &used) == 0) {
        flamegraph_put_empty(&used, out);
    } else {
        made = flamegraph_draw_view(graph, &used, out);
    }
    flamegraph_flush(out);
    bool broken = out->broken;
    free(out);
    return !made ? FLAMEGRAPH_NO_MEMORY : broken ? FLAMEGRAPH_IO_ERROR : FLAMEGRAPH_OK;
}

/* ---- saving ---- */

/* A flamegraph_write_fn whose `user` is a file descriptor. */
static inline bool flamegraph_write_fd(void *user, const void *data, size_t size) {
    const char *at = (const char *)data;
    while (size > 0) {
        ssize_t written = write(*(const int *)user, at, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        at += written;
        size -= (size_t)written;
    }
    return true;
}

/* What the path leads to through links, whether that exists or not; NULL = no memory, or the links lead nowhere. */
static inline char *flamegraph_target(const char *path) {
    char *target = strdup(path);
    for (int links = 0; target && links < 40; links++) {
        char link[4096];
        ssize_t size = readlink(target, link, sizeof link - 1);
        if (size < 0)
            return target;
        const char *slash = strrchr(target, '/');
        size_t directory = slash && link[0] != '/' ? (size_t)(slash - target) + 1 : 0;
        char *next = (char *)malloc(directory + (size_t)size + 1);
        if (next) {
            memcpy(next, target, directory);
            memcpy(next + directory, link, (size_t)size);
            next[directory + (size_t)size] = '\0';
        }
        free(target);
        target = next;
    }
    free(target);
    errno = ELOOP;
    return NULL;
}

/* Write into the descriptor and close it. */
static inline flamegraph_result flamegraph_fill(const flamegraph *graph, const flamegraph_options *options, int fd) {
    if (fd < 0)
        return FLAMEGRAPH_IO_ERROR;
    flamegraph_result result = flamegraph_write(graph, options, flamegraph_write_fd, &fd);
    int why = errno;
    if (close(fd) != 0 && result == FLAMEGRAPH_OK)
        return FLAMEGRAPH_IO_ERROR;
    errno = why;
    return result;
}

/* A new file in the directory of `path`, whose name replaces *beside; -1 = errno tells why not. */
static inline int flamegraph_open_beside(const char *path, mode_t mode, char **beside) {
    const char *slash = strrchr(path, '/');
    int directory = slash ? (int)(slash - path) + 1 : 0, fd = -1;
    size_t room = (size_t)directory + 64;
    char *name = (char *)malloc(room);
    if (!name)
        return -1;
    for (int attempt = 0; attempt < 100; attempt++) {
        snprintf(name, room, "%.*s.flamegraph.%ld.%d", directory, path, (long)getpid(), attempt);
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST)
            break;
    }
    if (fd >= 0)
        *beside = name;
    else
        free(name);
    return fd;
}

/* Write into a new file and rename it to `path`, which is no link. */
static inline flamegraph_result flamegraph_replace(const flamegraph *graph, const flamegraph_options *options,
                                                   const char *path, mode_t mode) {
    char *beside = NULL;
    int fd = flamegraph_open_beside(path, mode, &beside);
    flamegraph_result result = flamegraph_fill(graph, options, fd);
    if (result == FLAMEGRAPH_OK && rename(beside, path) != 0)
        result = FLAMEGRAPH_IO_ERROR;
    if (result != FLAMEGRAPH_OK && beside) {
        int why = errno;
        unlink(beside);
        errno = why;
    }
    free(beside);
    return result;
}

static inline flamegraph_result flamegraph_save(const flamegraph *graph, const flamegraph_options *options,
                                                const char *path, flamegraph_tell_fn tell, void *user) {
    flamegraph_result result;
    struct stat status;
    bool exists = path && stat(path, &status) == 0;
    if (!path || strcmp(path, "-") == 0) {
        int fd = STDOUT_FILENO;
        path = "standard output";
        result = flamegraph_write(graph, options, flamegraph_write_fd, &fd);
    } else if (exists && !S_ISREG(status.st_mode)) {
        result = flamegraph_fill(graph, options, open(path, O_WRONLY | O_TRUNC | O_CLOEXEC));
    } else {
        /* A link stays a link: what it leads to is replaced or made. */
        char *target = flamegraph_target(path);
        mode_t mode = exists ? status.st_mode & 0777 : 0666;
        if (!target || (exists && access(target, W_OK) != 0)) {
            result = FLAMEGRAPH_IO_ERROR;
        } else {
            result = flamegraph_replace(graph, options, target, mode);
        }
        free(target);
    }
    flamegraph_told told = {tell, user, path};
    return result == FLAMEGRAPH_OK ? result : flamegraph_fail(&told, result);
}

#ifdef __cplusplus
}
#endif

#endif
