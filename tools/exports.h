/* exports.h - all formats that a profile of pyprof.h can be written in: those of pyprof_write, and those of other
   people's viewers. One file on the public functions of pyprof.h alone: take it along beside that header, or leave it.
   MIT licence (see LICENSE). No dependencies but pyprof.h and libc.

   DO THIS
     In one C or C++ file:

         #define EXPORTS_IMPLEMENTATION
         #include "exports.h"

     Everywhere else just include it. If the same file has the implementation of pyprof.h, include that before; where
     flamegraph.h was included before both, there is also exports_draw.

   EXAMPLE
         exports_format format = exports_format_of_path("game.pstats");
         pyprof_output output = {.metric = PYPROF_METRIC_CPU};
         if (exports_write(profile, &output, format, write_to_file, file) != PYPROF_OK) {
             fprintf(stderr, "%s\n", exports_last_error());
         }

   FORMATS
     Names and endings: exports_formats. svg, collapsed, speedscope, pprof and table are those of pyprof.h: see FORMATS
     there. In all formats filters (pyprof_output.thread and what follows it) count as they do there, and what is
     written is valid UTF-8. Of the others:

     pstats: for Python's pstats, gprof2dot, snakeviz and what else reads cProfile's files. A row a function, whatever
     detail says: {(file, first line, name): (calls, calls, own time, time with callees, {caller: ...})}. In the place
     of calls stand samples: those with the function on the stack, and each time that it is there (a recursion counts
     once in the first, and in time with callees). Times are seconds of the metric that was asked for;
     PYPROF_METRIC_SAMPLES is refused, as samples stand in the file in any case. What has no file has "~" and line 0,
     what has no name "[no name]"; lone surrogates are written as pprof's. Functions that then look alike are one. A
     profile of which nothing is shown has one row, "[no samples]", as an empty file is an error in pstats. In a profile
     of several processes each is a function without a file that calls its threads' outermost ones. One file is
     no more than a call graph: which caller's callee called what is lost.

     firefox: for https://profiler.firefox.com, a thread each, with the lines. A span of the time line is a sample that
     weighs what it took of the metric; one longer than two intervals is two, at its ends, with half each, as the
     profiler's graph draws half of the way to the next. Where no Python ran there is a sample without a stack.
     threadCPUDelta is the CPU time since the sample before. Waiting is never left out, whatever include_idle says: its
     leaf has the category Idle, which the profiler draws transparent and leaves out of the call tree until it is asked
     for. Several processes are its processes; likewise in perfetto.

     perfetto: for https://ui.perfetto.dev, chrome://tracing and speedscope: Chrome's JSON, a slice ("X") for as long as
     a function stays on the stack, over as many spans as that is; so calls between which no sample was taken are one.
     Functions, whatever detail says; slices are as long as they were, whatever metric was asked for. Waiting is never
     left out: its leaf is a slice of the category "idle", and all others are "python". Perfetto cannot show more than
     512 slices above each other: of deeper stacks the innermost three quarters and the outermost quarter are kept, with
     "[truncated]" in between. So it is in the file, for all who read it.

     jsonl: one JSON object a line, with all that a profile has, to be read by programs: by yours, jq, DuckDB, pandas;
     and to be made a profile again (pyprof_make, pyprof_add_node, pyprof_add_span). metric and include_idle do not
     count. "type" says what a line is; each comes after what it refers to:
       facts     the first line. "format": "pyprof-jsonl", "version": 1; program, process, python: texts; start_ns,
                 duration_ns, interval_us; all fields of pyprof_stats as "stats": {...}. As in pyprof_facts. Of a heap
                 profile "version" is 2, as its figures are none of time: there are "kind": "heap" and sampling_bytes
       function  id: 0, 1, 2, ...; name, path, file: texts, path "" for what is none ("[truncated]"); first_line
       thread    id: a node's; name, tid, is_named; in a profile of several processes process, a text, and pid; and
                 figures
       node      id; parent: a node's or a thread's id; function: its id; line; and figures
       span      thread: 0, 1, 2, ... as the thread lines come; node: its id; start_ns, wall_ns, cpu_ns, samples,
                 is_idle, has_gil. Of one thread in the order of time, without overlap
       end       the last line: nodes, spans: how many there were. A file without it was cut
     Figures: samples, samples_idle, wall_ns, wall_idle_ns, cpu_ns, gil_ns, of the node itself. ids of threads and nodes
     are of one row, 0, 1, 2, ... Numbers are whole, up to 2^64 - 1; lines and ids of threads may be 0: not known. Lone
     surrogates are \udc80; bytes that are no UTF-8 as Python's surrogateescape makes them. A reader takes fields that
     it does not know for nothing, and refuses a version above its own.

     A heap profile (PYPROF_KIND_HEAP) can be had in all formats but pstats, firefox and perfetto, which have times only:
     there it is PYPROF_ERROR_FORMAT.

   MEMORY
     Those of pyprof_write take the profile's. The others take malloc's, or what EXPORTS_REALLOC and EXPORTS_FREE are
     defined as: less than 200 bytes a node and 100 a span, for as long as the call. */
#ifndef EXPORTS_H
#define EXPORTS_H

#include "pyprof.h"

#if defined(EXPORTS_STATIC)
#define EXPORTS_API static __attribute__((unused))
#elif !defined(EXPORTS_API)
#define EXPORTS_API extern
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum exports_format {
    EXPORTS_FORMAT_NONE = 0, /* what a name or a path says that means no format */
    EXPORTS_FORMAT_SVG,
    EXPORTS_FORMAT_COLLAPSED,
    EXPORTS_FORMAT_SPEEDSCOPE,
    EXPORTS_FORMAT_PPROF,
    EXPORTS_FORMAT_PPROF_PLAIN, /* without gzip; it has the name of the other, and an ending of its own */
    EXPORTS_FORMAT_TABLE,
    EXPORTS_FORMAT_PSTATS,
    EXPORTS_FORMAT_FIREFOX,
    EXPORTS_FORMAT_PERFETTO,
    EXPORTS_FORMAT_JSONL
} exports_format;

/* A format, as users are told of it. */
typedef struct exports_info {
    exports_format format;
    pyprof_format written_by; /* pyprof_write's value for it; PYPROF_FORMAT_AUTO: it is written here */
    const char *names;        /* with blanks between them; the first is its own, others are accepted */
    const char *endings;      /* of files, with blanks between them; "" = none means it */
    const char *what;         /* what it is for, in a few words */
} exports_info;

/* All formats; *count: how many. */
EXPORTS_API const exports_info *exports_formats(size_t *count);

/* The format's own name; "" of NONE. */
EXPORTS_API const char *exports_name(exports_format format);

/* Which format a name means, in capitals or not. NONE = none. */
EXPORTS_API exports_format exports_format_of_name(const char *name);

/* Which format a path's ending means: the longest one that fits. NONE = none. */
EXPORTS_API exports_format exports_format_of_path(const char *path);

/* Which format a file of that name gets if a format was asked for by name, or NONE was: the ending may say it more
   exactly (pprof: .pb), or be one that several share (.txt of a table, .json of all that is JSON). NONE = nothing says
   it; or, if one was asked for, the ending means another. */
EXPORTS_API exports_format exports_choose(const char *path, exports_format asked);

/* Whether a heap profile can be written in it. */
EXPORTS_API bool exports_has_memory(exports_format format);

/* Their names for a text, "svg, collapsed, ... or jsonl", as far as there is room. Returns text. */
EXPORTS_API char *exports_list(char *text, size_t size);

/* A line each for a usage text: name, endings, what it is for. */
EXPORTS_API bool exports_help(pyprof_write_fn write, void *user);

/* Writes a profile through a function, as pyprof_write does, whose contract holds. output NULL = defaults; its format
   does not count. Errors: ARGUMENT, FORMAT (NONE, or an .svg without flamegraph.h), MEMORY, WRITE. */
EXPORTS_API pyprof_result exports_write(const pyprof_profile *profile, const pyprof_output *output,
                                        exports_format format, pyprof_write_fn write, void *user);

#if defined(FLAMEGRAPH_H)
/* Writes the SVG as exports_write does, with a look of the caller's; NULL = that of pyprof_write. unit, metric, idle and
   memory are those of the profile and output; facts, subtitle and empty are filled in where they say nothing. Errors: as
   exports_write. */
EXPORTS_API pyprof_result exports_draw(const pyprof_profile *profile, const pyprof_output *output,
                                       const flamegraph_options *look, pyprof_write_fn write, void *user);

/* The same for who has made the tree already, without a profile of it, in which frames are called by the numbers of nodes
   (see flamegraph_rename): the profile only tells what each of these is called, so it needs each frame once.
   exports_name_tree gives the tree these names; *is_named: false if two of the nodes, of which there are node_count, are
   shown as one, or two frames would be called alike. exports_draw_tree then writes the SVG. Errors: MEMORY, and those of
   exports_draw. */
EXPORTS_API pyprof_result exports_name_tree(const pyprof_profile *profile, const pyprof_output *output,
                                            uint32_t node_count, flamegraph *tree, bool *is_named);
EXPORTS_API pyprof_result exports_draw_tree(const pyprof_profile *profile, const pyprof_output *output,
                                            flamegraph *tree, const flamegraph_options *look, pyprof_write_fn write,
                                            void *user);
#endif

/* Why the last of these calls that failed in this thread did so, as pyprof_last_error says it. Never NULL. */
EXPORTS_API const char *exports_last_error(void);

#ifdef __cplusplus
}
#endif

#endif /* EXPORTS_H */

#if defined(EXPORTS_IMPLEMENTATION) && !defined(EXPORTS_IMPLEMENTED)
#define EXPORTS_IMPLEMENTED

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#if !defined(EXPORTS_REALLOC)
#define EXPORTS_REALLOC(memory, size) realloc(memory, size)
#define EXPORTS_FREE(memory) free(memory)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- which formats there are ---------------------------------------------------------------------------- */

static const exports_info exports__formats[] = {
    {EXPORTS_FORMAT_SVG, PYPROF_FORMAT_SVG, "svg flamegraph", ".svg", "a flame graph for any browser"},
    {EXPORTS_FORMAT_COLLAPSED, PYPROF_FORMAT_COLLAPSED, "collapsed raw txt folded", ".collapsed .txt .folded .raw",
     "a line a stack, for scripts and flame graphs"},
    {EXPORTS_FORMAT_SPEEDSCOPE, PYPROF_FORMAT_SPEEDSCOPE, "speedscope json", ".json", "https://www.speedscope.app"},
    {EXPORTS_FORMAT_PPROF, PYPROF_FORMAT_PPROF, "pprof", ".pb.gz", "go tool pprof, Pyroscope, Parca"},
    {EXPORTS_FORMAT_PPROF_PLAIN, PYPROF_FORMAT_PPROF_PLAIN, "pprof", ".pb", "the same without gzip"},
    {EXPORTS_FORMAT_TABLE, PYPROF_FORMAT_TABLE, "table", "", "text for a terminal or a log"},
    {EXPORTS_FORMAT_PSTATS, PYPROF_FORMAT_AUTO, "pstats", ".pstats .prof", "Python's pstats, gprof2dot, snakeviz"},
    {EXPORTS_FORMAT_FIREFOX, PYPROF_FORMAT_AUTO, "firefox", ".firefox.json", "https://profiler.firefox.com"},
    {EXPORTS_FORMAT_PERFETTO, PYPROF_FORMAT_AUTO, "perfetto chrometrace", ".perfetto.json .trace.json",
     "https://ui.perfetto.dev, chrome://tracing"},
    {EXPORTS_FORMAT_JSONL, PYPROF_FORMAT_AUTO, "jsonl ndjson", ".jsonl .ndjson", "all that there is, for programs"}};

EXPORTS_API const exports_info *exports_formats(size_t *count) {
    *count = sizeof exports__formats / sizeof *exports__formats;
    return exports__formats;
}

static const exports_info *exports__info(exports_format format) {
    size_t count = sizeof exports__formats / sizeof *exports__formats;
    for (size_t i = 0; i < count; i++) {
        if (exports__formats[i].format == format) {
            return &exports__formats[i];
        }
    }
    return NULL;
}

/* The first of some words with blanks between them; *size: its length, 0 = there is none. Returns where it begins. */
static const char *exports__word(const char *words, size_t *size) {
    words += strspn(words, " ");
    *size = strcspn(words, " ");
    return words;
}

/* Static texts, one a name, as the table has several of them in one. */
EXPORTS_API const char *exports_name(exports_format format) {
    static const char *const names[] = {"",      "svg",    "collapsed", "speedscope", "pprof", "pprof",
                                        "table", "pstats", "firefox",   "perfetto",   "jsonl"};
    return exports__info(format) != NULL ? names[format] : "";
}

EXPORTS_API exports_format exports_format_of_name(const char *name) {
    size_t length = strlen(name), size;
    for (size_t i = 0; i < sizeof exports__formats / sizeof *exports__formats; i++) {
        const char *word = exports__word(exports__formats[i].names, &size);
        for (; size > 0; word = exports__word(word + size, &size)) {
            if (size == length && strncasecmp(word, name, size) == 0) {
                return exports__formats[i].format;
            }
        }
    }
    return EXPORTS_FORMAT_NONE;
}

static bool exports__ends_in(const char *path, const char *ending, size_t size) {
    size_t length = strlen(path);
    return length >= size && strncasecmp(path + length - size, ending, size) == 0;
}

EXPORTS_API exports_format exports_format_of_path(const char *path) {
    exports_format found = EXPORTS_FORMAT_NONE;
    size_t longest = 0, size;
    for (size_t i = 0; i < sizeof exports__formats / sizeof *exports__formats; i++) {
        const char *word = exports__word(exports__formats[i].endings, &size);
        for (; size > 0; word = exports__word(word + size, &size)) {
            if (size > longest && exports__ends_in(path, word, size)) {
                longest = size;
                found = exports__formats[i].format;
            }
        }
    }
    return found;
}

EXPORTS_API exports_format exports_choose(const char *path, exports_format asked) {
    exports_format told = exports_format_of_path(path);
    bool is_json = asked == EXPORTS_FORMAT_FIREFOX || asked == EXPORTS_FORMAT_PERFETTO;
    if (asked == EXPORTS_FORMAT_NONE || told == EXPORTS_FORMAT_NONE) {
        return asked == EXPORTS_FORMAT_NONE ? told : asked;
    }
    if ((asked == EXPORTS_FORMAT_TABLE && exports__ends_in(path, ".txt", 4)) ||
        (is_json && told == EXPORTS_FORMAT_SPEEDSCOPE)) {
        return asked;
    }
    return strcmp(exports_name(asked), exports_name(told)) == 0 ? told : EXPORTS_FORMAT_NONE;
}

EXPORTS_API bool exports_has_memory(exports_format format) {
    return exports__info(format) != NULL && format != EXPORTS_FORMAT_PSTATS && format != EXPORTS_FORMAT_FIREFOX &&
           format != EXPORTS_FORMAT_PERFETTO;
}

EXPORTS_API char *exports_list(char *text, size_t size) {
    size_t count = sizeof exports__formats / sizeof *exports__formats, length = 0;
    if (size > 0) {
        text[0] = '\0';
    }
    for (size_t i = 0; i < count && length < size; i++) {
        if (exports__formats[i].format != EXPORTS_FORMAT_PPROF_PLAIN) {
            int added = snprintf(text + length, size - length, "%s%s",
                                 i == 0           ? ""
                                 : i + 1 == count ? " or "
                                                  : ", ",
                                 exports_name(exports__formats[i].format));
            length += added > 0 ? (size_t)added : 0;
        }
    }
    return text;
}

EXPORTS_API bool exports_help(pyprof_write_fn write, void *user) {
    char line[160];
    for (size_t i = 0; i < sizeof exports__formats / sizeof *exports__formats; i++) {
        const exports_info *info = &exports__formats[i];
        int size =
            snprintf(line, sizeof line, "  %-10s  %-28s  %s\n", exports_name(info->format), info->endings, info->what);
        if (size < 0 || !write(user, line, (size_t)size)) {
            return false;
        }
    }
    return true;
}

/* ---- what went wrong ------------------------------------------------------------------------------------ */

static __thread char exports__error[512];

static void exports__say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void exports__say(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(exports__error, sizeof exports__error, format, values);
    va_end(values);
}

EXPORTS_API const char *exports_last_error(void) {
    return exports__error;
}

/* What pyprof.h says of its own failures is ours, too. */
static pyprof_result exports__passed_on(pyprof_result result) {
    if (result != PYPROF_OK) {
        exports__say("%s", pyprof_last_error());
    }
    return result;
}

/* ---- memory: arrays that grow, and texts that are numbered ------------------------------------------------ */

#define EXPORTS__NONE UINT32_MAX

typedef struct exports__array {
    void *data;
    size_t item_size;
    size_t count;
    size_t capacity;
} exports__array;

#define EXPORTS__AT(type, array, index) (((type *)(array)->data)[index])

/* Room for so many more items, which are zero, at the end. NULL = there is no memory, and all is as it was. */
static void *exports__push(exports__array *array, size_t more) {
    if (array->data == NULL || more > array->capacity - array->count) {
        size_t most = SIZE_MAX / 2 / array->item_size;
        size_t capacity = array->capacity < most / 2 ? array->capacity + array->capacity / 2 : most;
        if (more > most - array->count) {
            return NULL;
        }
        capacity = capacity < array->count + more ? array->count + more : capacity;
        capacity = capacity < 32 ? 32 : capacity;
        void *data = EXPORTS_REALLOC(array->data, capacity * array->item_size);
        if (data == NULL) {
            return NULL;
        }
        array->data = data;
        array->capacity = capacity;
    }
    char *items = (char *)array->data + array->count * array->item_size;
    memset(items, 0, more * array->item_size);
    array->count += more;
    return items;
}

static void exports__array_free(exports__array *array) {
    EXPORTS_FREE(array->data);
    array->data = NULL;
    array->count = array->capacity = 0;
}

/* Keys, strings of bytes, each with a number: 0, 1, 2, ... as they came. */
typedef struct exports__table {
    exports__array bytes;
    exports__array keys; /* of exports__key */
    uint32_t *slots;     /* number + 1, 0 = free; at most half of them are taken */
    size_t slot_count;   /* a power of two */
} exports__table;

typedef struct exports__key {
    size_t offset;
    size_t size;
    uint64_t hash;
} exports__key;

static void exports__table_init(exports__table *table) {
    memset(table, 0, sizeof *table);
    table->bytes.item_size = 1;
    table->keys.item_size = sizeof(exports__key);
}

static void exports__table_free(exports__table *table) {
    exports__array_free(&table->bytes);
    exports__array_free(&table->keys);
    EXPORTS_FREE(table->slots);
    table->slots = NULL;
    table->slot_count = 0;
}

/* Forgets the keys, and keeps the room. */
static void exports__table_clear(exports__table *table) {
    table->bytes.count = table->keys.count = 0;
    if (table->slots != NULL) {
        memset(table->slots, 0, table->slot_count * sizeof *table->slots);
    }
}

/* FNV-1a, mixed at the end, as its low bits say which slot. */
static uint64_t exports__hash(const char *bytes, size_t size) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    }
    hash = (hash ^ (hash >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    return hash ^ (hash >> 33);
}

static bool exports__grow_slots(exports__table *table) {
    if (2 * (table->keys.count + 1) <= table->slot_count) {
        return true;
    }
    size_t count = table->slot_count > 0 ? 2 * table->slot_count : 64;
    uint32_t *slots = (uint32_t *)EXPORTS_REALLOC(table->slots, count * sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    memset(slots, 0, count * sizeof *slots);
    table->slots = slots;
    table->slot_count = count;
    for (size_t i = 0; i < table->keys.count; i++) {
        size_t at = (size_t)EXPORTS__AT(exports__key, &table->keys, i).hash & (count - 1);
        while (slots[at] != 0) {
            at = (at + 1) & (count - 1);
        }
        slots[at] = (uint32_t)i + 1;
    }
    return true;
}

/* The key's bytes; they move when another one is added. */
static const char *exports__bytes_of(const exports__table *table, uint32_t number, size_t *size) {
    const exports__key *key = &EXPORTS__AT(exports__key, &table->keys, number);
    *size = key->size;
    return key->size > 0 ? (const char *)table->bytes.data + key->offset : "";
}

/* Copies a key that is a structure of this size. */
static void exports__copy_key(const exports__table *table, uint32_t number, void *to, size_t size) {
    memcpy(to, (const char *)table->bytes.data + EXPORTS__AT(exports__key, &table->keys, number).offset, size);
}

/* The number of a key, which is a new one if it was not there. NONE = there is no memory. */
static uint32_t exports__intern(exports__table *table, const void *data, size_t size) {
    const char *bytes = (const char *)data;
    if (!exports__grow_slots(table) || table->keys.count >= EXPORTS__NONE - 1) {
        return EXPORTS__NONE;
    }
    uint64_t hash = exports__hash(bytes, size);
    size_t at = (size_t)hash & (table->slot_count - 1), size_there;
    for (; table->slots[at] != 0; at = (at + 1) & (table->slot_count - 1)) {
        uint32_t number = table->slots[at] - 1;
        const char *there = exports__bytes_of(table, number, &size_there);
        if (size_there == size && memcmp(there, bytes, size) == 0) {
            return number;
        }
    }
    size_t offset = table->bytes.count;
    char *room = (char *)exports__push(&table->bytes, size);
    exports__key *key = room != NULL ? (exports__key *)exports__push(&table->keys, 1) : NULL;
    if (key == NULL) {
        table->bytes.count = offset;
        return EXPORTS__NONE;
    }
    memcpy(room, bytes, size);
    key->offset = offset;
    key->size = size;
    key->hash = hash;
    table->slots[at] = (uint32_t)table->keys.count;
    return (uint32_t)table->keys.count - 1;
}

/* ---- bytes on their way out ------------------------------------------------------------------------------- */

typedef struct exports__out {
    pyprof_write_fn write;
    void *user;
    size_t size;    /* bytes in the buffer */
    bool is_broken; /* write has answered false: it is not called again, and all that is put is dropped */
    bool is_strict; /* JSON has no escapes of lone surrogates, which Perfetto refuses: they are written as text */
    char buffer[16384];
} exports__out;

static void exports__flush(exports__out *out) {
    if (!out->is_broken && out->size > 0) {
        out->is_broken = !out->write(out->user, out->buffer, out->size);
    }
    out->size = 0;
}

static void exports__put(exports__out *out, const char *data, size_t size) {
    while (size > 0 && !out->is_broken) {
        size_t room = sizeof out->buffer - out->size, part = size < room ? size : room;
        memcpy(out->buffer + out->size, data, part);
        out->size += part;
        data += part;
        size -= part;
        if (out->size == sizeof out->buffer) {
            exports__flush(out);
        }
    }
}

static void exports__put_text(exports__out *out, const char *text) {
    exports__put(out, text, strlen(text));
}

static void exports__putf(exports__out *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Of what is no longer than 255 bytes. */
static void exports__putf(exports__out *out, const char *format, ...) {
    char text[256];
    va_list values;
    va_start(values, format);
    int size = vsnprintf(text, sizeof text, format, values);
    va_end(values);
    exports__put(out, text, size > 0 ? (size_t)size : 0);
}

static void exports__put_number(exports__out *out, uint64_t number) {
    exports__putf(out, "%llu", (unsigned long long)number);
}

/* Nanoseconds in a unit of so many of them, exactly: a power of ten with so many zeros. */
static void exports__put_time(exports__out *out, uint64_t ns, uint64_t unit, int zeros) {
    char text[48];
    int size = snprintf(text, sizeof text, "%llu.%0*llu", (unsigned long long)(ns / unit), zeros,
                        (unsigned long long)(ns % unit));
    while (text[size - 1] == '0') {
        size--;
    }
    exports__put(out, text, (size_t)(text[size - 1] == '.' ? size - 1 : size));
}

static void exports__put_ms(exports__out *out, uint64_t ns) {
    exports__put_time(out, ns, 1000000, 6);
}

static void exports__put_us(exports__out *out, uint64_t ns) {
    exports__put_time(out, ns, 1000, 3);
}

/* The code point that begins at text, which has at least one byte; *length: how many bytes it takes. Surrogates in
   three bytes are taken as they are, as CPython's texts may hold lone ones; a byte that begins no code point is the
   lone surrogate that Python's surrogateescape makes of it (PEP 383). So do pyprof.h's own writers. */
static uint32_t exports__code_point(const char *text, size_t size, size_t *length) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *at = (const unsigned char *)text;
    if (at[0] < 0x80) {
        *length = 1;
        return at[0];
    }
    size_t count = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : at[0] >= 0xc0 ? 2 : 0;
    uint32_t c = at[0] & (0x7fu >> count);
    bool is_valid = count > 0 && count <= size;
    for (size_t i = 1; is_valid && i < count; i++) {
        is_valid = (at[i] & 0xc0) == 0x80;
        c = c << 6 | (at[i] & 0x3fu);
    }
    is_valid = is_valid && c >= least[count] && c <= 0x10ffff && at[0] < 0xf8;
    *length = is_valid ? count : 1;
    return is_valid ? c : 0xdc00u + at[0];
}

static bool exports__is_surrogate(uint32_t c) {
    return c >= 0xd800 && c < 0xe000;
}

/* The inside of a JSON string (RFC 8259). Lone surrogates are escaped, as their bytes would be no UTF-8. Many readers
   take that for what it is; is_strict: for those that do not, it is no escape of JSON's, but the text of one. */
static void exports__put_json(exports__out *out, const char *text, size_t size) {
    size_t at = 0, begin = 0, length; /* from begin to at all may stay as it is */
    for (; at < size; at += length) {
        uint32_t c = exports__code_point(text + at, size - at, &length);
        if (c >= 0x20 && c != '"' && c != '\\' && !exports__is_surrogate(c)) {
            continue;
        }
        exports__put(out, text + begin, at - begin);
        begin = at + length;
        if (c == '"' || c == '\\') {
            exports__putf(out, "\\%c", (char)c);
        } else {
            exports__putf(out, "%s\\u%04x", out->is_strict && c >= 0x20 ? "\\" : "", (unsigned)c);
        }
    }
    exports__put(out, text + begin, size - begin);
}

/* ---- what all writers work on ----------------------------------------------------------------------------- */

/* Functions are keys of a table; texts are numbers in another one. No padding, as they are compared as bytes. */
typedef struct exports__function {
    uint32_t name;
    uint32_t path;
    uint32_t file; /* the end of path by which it is shown */
    int32_t first_line;
} exports__function;

typedef struct exports__node {
    uint32_t parent;   /* EXPORTS__NONE: it is a thread */
    uint32_t function; /* of a thread: its name, a text */
    uint32_t thread;   /* which it is below, or is: 0, 1, 2, ... */
    int32_t line;
    int32_t tid;                     /* of a thread; 0 = not known */
    int32_t pid;                     /* of a thread: of its process; 0 = not known */
    uint32_t process;                /* of a thread: its process's program, a text, or what a writer has for it;
                                       EXPORTS__NONE: the profile is of one */
    bool is_named;                   /* of a thread */
    uint32_t first_child, sibling;   /* EXPORTS__NONE: there is none (more); see exports__link */
    uint32_t item, idle_item;        /* what a writer has for it; EXPORTS__NONE: nothing yet. pstats: the edge to it;
                                       firefox: its stack, running and waiting */
    uint64_t value, samples;         /* of its own, as the output asks */
    uint64_t value_all, samples_all; /* with what it calls */
} exports__node;

typedef struct exports__span {
    uint32_t node;
    uint32_t thread;
    uint64_t start_ns;
    uint64_t wall_ns;
    uint64_t cpu_ns;
    uint32_t samples;
    bool is_idle;
    bool has_gil;
} exports__span;

/* How texts are kept. */
typedef enum exports__words {
    EXPORTS__WORDS_RAW,   /* as they are */
    EXPORTS__WORDS_NAMED, /* so, but no function is without a name */
    EXPORTS__WORDS_SHOWN /* and lone surrogates are escaped, and what has no file has "~": as Python's viewers want it */
} exports__words;

/* One call that writes. It is not on the stack, as hosts' threads may have small ones. */
typedef struct exports__writing {
    pyprof_output output;
    pyprof_facts facts;
    exports__words words;
    exports__table texts;
    exports__table functions; /* of exports__function */
    exports__array nodes;
    exports__array spans;
    uint32_t thread_count;
    bool is_full;                          /* there was no memory */
    uint64_t nodes_written, spans_written; /* jsonl */
    exports__array scratch;                /* bytes of a text; the numbers of a path */
    exports__out out;
} exports__writing;

static exports__writing *exports__writing_new(const pyprof_profile *profile, const pyprof_output *output,
                                              pyprof_write_fn write, void *user, pyprof_result *result) {
    pyprof_facts facts;
    *result = exports__passed_on(pyprof_get_facts(profile, &facts));
    if (*result != PYPROF_OK) {
        return NULL;
    }
    exports__writing *writing = (exports__writing *)EXPORTS_REALLOC(NULL, sizeof *writing);
    if (writing == NULL) {
        *result = PYPROF_ERROR_MEMORY;
        return NULL;
    }
    memset(writing, 0, offsetof(exports__writing, out) + offsetof(exports__out, buffer));
    if (output != NULL) {
        writing->output = *output;
    }
    writing->facts = facts;
    exports__table_init(&writing->texts);
    exports__table_init(&writing->functions);
    writing->nodes.item_size = sizeof(exports__node);
    writing->spans.item_size = sizeof(exports__span);
    writing->scratch.item_size = 1;
    writing->out.write = write;
    writing->out.user = user;
    return writing;
}

static void exports__writing_free(exports__writing *writing) {
    exports__table_free(&writing->texts);
    exports__table_free(&writing->functions);
    exports__array_free(&writing->nodes);
    exports__array_free(&writing->spans);
    exports__array_free(&writing->scratch);
    EXPORTS_FREE(writing);
}

static exports__node *exports__node_at(const exports__writing *writing, uint32_t number) {
    return &EXPORTS__AT(exports__node, &writing->nodes, number);
}

static exports__span *exports__span_at(const exports__writing *writing, size_t index) {
    return &EXPORTS__AT(exports__span, &writing->spans, index);
}

static exports__function exports__function_at(const exports__writing *writing, uint32_t number) {
    exports__function function;
    exports__copy_key(&writing->functions, number, &function, sizeof function);
    return function;
}

static const char *exports__text_at(const exports__writing *writing, uint32_t number, size_t *size) {
    return exports__bytes_of(&writing->texts, number, size);
}

/* Adds to the text in writing->scratch. False: no memory. */
static bool exports__gather_bytes(exports__writing *writing, const char *data, size_t size) {
    char *room = (char *)exports__push(&writing->scratch, size);
    if (room != NULL && size > 0) {
        memcpy(room, data, size);
    }
    return room != NULL;
}

/* The number of a text in which each lone surrogate is written as Python would write it in a string. */
static uint32_t exports__shown_text(exports__writing *writing, pyprof_text text, const char *if_empty) {
    size_t at = 0, begin = 0, length; /* from begin to at all may stay as it is */
    writing->scratch.count = 0;
    for (; at < text.size; at += length) {
        uint32_t c = exports__code_point(text.data + at, text.size - at, &length);
        if (!exports__is_surrogate(c)) {
            continue;
        }
        char escaped[8];
        int size = snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)c);
        if (!exports__gather_bytes(writing, text.data + begin, at - begin) ||
            !exports__gather_bytes(writing, escaped, (size_t)size)) {
            return EXPORTS__NONE;
        }
        begin = at + length;
    }
    if (text.size == 0) {
        return exports__intern(&writing->texts, if_empty, strlen(if_empty));
    }
    if (begin == 0) {
        return exports__intern(&writing->texts, text.data, text.size);
    }
    return exports__gather_bytes(writing, text.data + begin, text.size - begin)
               ? exports__intern(&writing->texts, writing->scratch.data, writing->scratch.count)
               : EXPORTS__NONE;
}

static uint32_t exports__text(exports__writing *writing, pyprof_text text, const char *if_empty) {
    if (writing->words == EXPORTS__WORDS_SHOWN) {
        return exports__shown_text(writing, text, if_empty);
    }
    return text.size == 0 && writing->words == EXPORTS__WORDS_NAMED
               ? exports__intern(&writing->texts, if_empty, strlen(if_empty))
               : exports__intern(&writing->texts, text.data, text.size);
}

/* What is known of the function that a node is of. NONE = no memory. */
static uint32_t exports__function_of(exports__writing *writing, const pyprof_node *node) {
    exports__function function;
    bool is_shown = writing->words == EXPORTS__WORDS_SHOWN;
    function.name = exports__text(writing, node->name, "[no name]");
    function.path = exports__text(writing, node->path, is_shown ? "~" : "");
    function.file = is_shown ? 0 : exports__text(writing, node->file, "");
    function.first_line = node->first_line;
    if (function.name == EXPORTS__NONE || function.path == EXPORTS__NONE || function.file == EXPORTS__NONE) {
        return EXPORTS__NONE;
    }
    return exports__intern(&writing->functions, &function, sizeof function);
}

/* Of pyprof_visitor; user is the exports__writing. */
static bool exports__has_process(const pyprof_node *node) {
    return node->parent == PYPROF_NO_NODE && (node->process.size > 0 || node->pid > 0);
}

/* "process 4711 (worker.py)", as in collapsed text, into writing->scratch. False: no memory. */
static bool exports__gather_process(exports__writing *writing, const pyprof_node *node,
                                    bool (*gather)(exports__writing *, pyprof_text)) {
    char id[32];
    int size = snprintf(id, sizeof id, node->pid > 0 ? "process %d" : "process *", (int)node->pid);
    writing->scratch.count = 0;
    return exports__gather_bytes(writing, id, (size_t)size) &&
           (node->process.size == 0 || (exports__gather_bytes(writing, " (", 2) && gather(writing, node->process) &&
                                        exports__gather_bytes(writing, ")", 1)));
}

static bool exports__gather_text(exports__writing *writing, pyprof_text text) {
    return exports__gather_bytes(writing, text.data, text.size);
}

/* What a writer needs of a thread's process: a text; where functions have their shown names, a function. NONE = no memory. */
static uint32_t exports__process_of(exports__writing *writing, const pyprof_node *node) {
    if (writing->words != EXPORTS__WORDS_SHOWN) {
        return exports__text(writing, node->process, "");
    }
    pyprof_node function = *node;
    if (!exports__gather_process(writing, node, exports__gather_text)) {
        return EXPORTS__NONE;
    }
    char *copy = (char *)EXPORTS_REALLOC(NULL, writing->scratch.count);
    if (copy == NULL) {
        return EXPORTS__NONE;
    }
    function.name.size = writing->scratch.count;
    memcpy(copy, writing->scratch.data, function.name.size);
    function.name.data = copy;
    uint32_t number = exports__function_of(writing, &function);
    EXPORTS_FREE(copy);
    return number;
}

static bool exports__take_node(void *user, const pyprof_node *node) {
    exports__writing *writing = (exports__writing *)user;
    exports__node *taken = (exports__node *)exports__push(&writing->nodes, 1);
    bool is_thread = node->parent == PYPROF_NO_NODE, has_process = exports__has_process(node);
    uint32_t what = taken == NULL ? EXPORTS__NONE
                    : is_thread   ? exports__text(writing, node->name, "")
                                  : exports__function_of(writing, node);
    uint32_t process = has_process ? exports__process_of(writing, node) : EXPORTS__NONE;
    if (what == EXPORTS__NONE || (has_process && process == EXPORTS__NONE)) {
        writing->is_full = true;
        return false;
    }
    taken->parent = is_thread ? EXPORTS__NONE : node->parent;
    taken->function = what;
    taken->thread = is_thread ? writing->thread_count++ : exports__node_at(writing, node->parent)->thread;
    taken->line = node->line;
    taken->tid = node->tid;
    taken->pid = node->pid;
    taken->process = process;
    taken->is_named = node->is_named;
    taken->first_child = taken->sibling = taken->item = taken->idle_item = EXPORTS__NONE;
    taken->value = taken->value_all = node->value;
    taken->samples = node->samples - (writing->output.include_idle ? 0 : node->samples_idle);
    taken->samples_all = taken->samples;
    return true;
}

static bool exports__take_span(void *user, const pyprof_span *span) {
    exports__writing *writing = (exports__writing *)user;
    exports__span *taken = (exports__span *)exports__push(&writing->spans, 1);
    if (taken == NULL) {
        writing->is_full = true;
        return false;
    }
    taken->node = span->node;
    taken->thread = span->thread;
    taken->start_ns = span->start_ns;
    taken->wall_ns = span->wall_ns;
    taken->cpu_ns = span->cpu_ns;
    taken->samples = span->samples;
    taken->is_idle = span->is_idle;
    taken->has_gil = span->has_gil;
    return true;
}

/* Has pyprof.h go through the profile. A function of ours that answered false had no memory, or could not write. */
static pyprof_result exports__visit(exports__writing *writing, const pyprof_profile *profile,
                                    bool (*node)(void *, const pyprof_node *),
                                    bool (*span)(void *, const pyprof_span *)) {
    pyprof_visitor visitor;
    memset(&visitor, 0, sizeof visitor);
    visitor.node = node;
    visitor.span = span;
    visitor.user = writing;
    pyprof_result result = exports__passed_on(pyprof_visit(profile, &writing->output, &visitor));
    return writing->is_full ? PYPROF_ERROR_MEMORY : result;
}

static void exports__put_json_text(exports__writing *writing, uint32_t text) {
    size_t size;
    const char *data = exports__text_at(writing, text, &size);
    exports__put_text(&writing->out, "\"");
    exports__put_json(&writing->out, data, size);
    exports__put_text(&writing->out, "\"");
}

static void exports__put_json_pyprof_text(exports__writing *writing, pyprof_text text) {
    exports__put_text(&writing->out, "\"");
    exports__put_json(&writing->out, text.data, text.size);
    exports__put_text(&writing->out, "\"");
}

/* ---- pstats ----------------------------------------------------------------------------------------------- */
/* Python's marshal format, version 2 (CPython, Python/marshal.c), of what cProfile's create_stats makes. */

/* A function, or one as called by another one. */
typedef struct exports__calls {
    uint64_t stacks;      /* samples of stacks that it is on */
    uint64_t appearances; /* of these, each time that it is there */
    uint64_t own;
    uint64_t all;
    uint32_t on_path; /* while the tree is walked: how often it is on the way to where that is */
    uint32_t caller;  /* of an edge; a function */
    uint32_t next;    /* of a function: its first edge; of an edge: the next one of its callee; EXPORTS__NONE */
} exports__calls;

typedef struct exports__pstats {
    exports__writing *writing;
    exports__table edges;     /* keys are two functions: caller, callee */
    exports__array functions; /* of exports__calls, as writing->functions is numbered */
    exports__array calls;     /* the same for edges */
} exports__pstats;

/* Adds up what nodes call, and links children and siblings, in their order, in one pass from the last node to the
   first: parents come before their children. Returns the first root. */
static uint32_t exports__link(exports__writing *writing) {
    uint32_t first = EXPORTS__NONE;
    for (size_t i = writing->nodes.count; i-- > 0;) {
        exports__node *node = exports__node_at(writing, (uint32_t)i);
        exports__node *parent = node->parent != EXPORTS__NONE ? exports__node_at(writing, node->parent) : NULL;
        uint32_t *link = parent != NULL ? &parent->first_child : &first;
        node->sibling = *link;
        *link = (uint32_t)i;
        if (parent != NULL) {
            parent->value_all += node->value_all;
            parent->samples_all += node->samples_all;
        }
    }
    return first;
}

static void exports__count_call(exports__calls *calls, const exports__node *node) {
    calls->own += node->value;
    calls->appearances += node->samples_all;
    if (calls->on_path++ == 0) {
        calls->stacks += node->samples_all;
        calls->all += node->value_all;
    }
}

/* The function that a node is; of a thread, its process, if there are several. NONE = it is none. */
static uint32_t exports__called(const exports__node *node) {
    return node->parent == EXPORTS__NONE ? node->process : node->function;
}

/* Where the walk comes to a node (step 1) and where it leaves it (step -1). */
static void exports__pass_node(exports__pstats *pstats, const exports__node *node, int step) {
    if (exports__called(node) == EXPORTS__NONE) {
        return;
    }
    exports__calls *function = &EXPORTS__AT(exports__calls, &pstats->functions, exports__called(node));
    exports__calls *edge =
        node->item != EXPORTS__NONE ? &EXPORTS__AT(exports__calls, &pstats->calls, node->item) : NULL;
    if (step > 0) {
        exports__count_call(function, node);
    } else {
        function->on_path--;
    }
    if (edge != NULL && step > 0) {
        exports__count_call(edge, node);
    } else if (edge != NULL) {
        edge->on_path--;
    }
}

/* Depth first, without recursion, as stacks may be deep. */
static void exports__walk(exports__pstats *pstats, uint32_t first) {
    uint32_t at = first;
    while (at != EXPORTS__NONE) {
        const exports__node *node = exports__node_at(pstats->writing, at);
        exports__pass_node(pstats, node, 1);
        at = node->first_child;
        while (at == EXPORTS__NONE && node != NULL) {
            exports__pass_node(pstats, node, -1);
            at = node->sibling;
            node = node->parent != EXPORTS__NONE ? exports__node_at(pstats->writing, node->parent) : NULL;
        }
    }
}

/* Numbers all edges, and hangs each on its callee. False: no memory. */
static bool exports__gather_edges(exports__pstats *pstats) {
    exports__writing *writing = pstats->writing;
    exports__calls *functions = (exports__calls *)exports__push(&pstats->functions, writing->functions.keys.count);
    if (functions == NULL) {
        return false;
    }
    for (size_t i = 0; i < writing->functions.keys.count; i++) {
        functions[i].next = EXPORTS__NONE;
    }
    for (size_t i = 0; i < writing->nodes.count; i++) {
        exports__node *node = exports__node_at(writing, (uint32_t)i);
        const exports__node *parent = node->parent != EXPORTS__NONE ? exports__node_at(writing, node->parent) : NULL;
        if (parent == NULL || exports__called(parent) == EXPORTS__NONE) {
            continue;
        }
        uint32_t key[2] = {exports__called(parent), node->function};
        node->item = exports__intern(&pstats->edges, key, sizeof key);
        if (node->item == EXPORTS__NONE) {
            return false;
        }
        if (node->item == pstats->calls.count) {
            exports__calls *calls = (exports__calls *)exports__push(&pstats->calls, 1);
            if (calls == NULL) {
                return false;
            }
            calls->caller = exports__called(parent);
            calls->next = functions[node->function].next;
            functions[node->function].next = node->item;
        }
    }
    return true;
}

static void exports__put_bytes(exports__out *out, char type, uint64_t value, int size) {
    char bytes[9] = {type};
    for (int i = 0; i < size; i++) {
        bytes[i + 1] = (char)(value >> (8 * i));
    }
    exports__put(out, bytes, (size_t)size + 1);
}

/* An int: 32 bits, or digits of 15. */
static void exports__put_int(exports__out *out, uint64_t number) {
    if (number <= INT32_MAX) {
        exports__put_bytes(out, 'i', number, 4);
        return;
    }
    int digits = 0;
    for (uint64_t rest = number; rest > 0; rest >>= 15) {
        digits++;
    }
    exports__put_bytes(out, 'l', (uint64_t)digits, 4);
    for (; digits > 0; digits--, number >>= 15) {
        char letter[2] = {(char)(number & 0xff), (char)(number >> 8 & 0x7f)};
        exports__put(out, letter, 2);
    }
}

static void exports__put_float(exports__out *out, uint64_t ns) {
    double seconds = (double)ns / 1e9;
    uint64_t bits;
    memcpy(&bits, &seconds, sizeof bits);
    exports__put_bytes(out, 'g', bits, 8);
}

static void exports__put_unicode(exports__out *out, const char *text, size_t size) {
    exports__put_bytes(out, 'u', size, 4);
    exports__put(out, text, size);
}

/* (file, line, name) */
static void exports__put_label(exports__writing *writing, uint32_t number) {
    exports__function function = exports__function_at(writing, number);
    size_t size;
    const char *text = exports__text_at(writing, function.path, &size);
    exports__put_bytes(&writing->out, '(', 3, 4);
    exports__put_unicode(&writing->out, text, size);
    exports__put_int(&writing->out, function.first_line > 0 ? (uint64_t)function.first_line : 0);
    text = exports__text_at(writing, function.name, &size);
    exports__put_unicode(&writing->out, text, size);
}

/* The first four of a row's values. In a caller's entry the two counts stand the other way round. */
static void exports__put_calls(exports__out *out, const exports__calls *calls, bool is_edge) {
    exports__put_bytes(out, '(', is_edge ? 4 : 5, 4);
    exports__put_int(out, is_edge ? calls->appearances : calls->stacks);
    exports__put_int(out, is_edge ? calls->stacks : calls->appearances);
    exports__put_float(out, calls->own);
    exports__put_float(out, calls->all);
}

static void exports__put_row(exports__pstats *pstats, uint32_t number) {
    exports__writing *writing = pstats->writing;
    const exports__calls *function = &EXPORTS__AT(exports__calls, &pstats->functions, number);
    exports__put_label(writing, number);
    exports__put_calls(&writing->out, function, false);
    exports__put_text(&writing->out, "{");
    for (uint32_t at = function->next; at != EXPORTS__NONE; at = EXPORTS__AT(exports__calls, &pstats->calls, at).next) {
        const exports__calls *edge = &EXPORTS__AT(exports__calls, &pstats->calls, at);
        if (edge->stacks > 0 || edge->all > 0) {
            exports__put_label(writing, edge->caller);
            exports__put_calls(&writing->out, edge, true);
        }
    }
    exports__put_text(&writing->out, "0");
}

static void exports__put_pstats(exports__pstats *pstats) {
    exports__out *out = &pstats->writing->out;
    bool is_empty = true;
    exports__put_text(out, "{");
    for (size_t i = 0; i < pstats->functions.count; i++) {
        const exports__calls *function = &EXPORTS__AT(exports__calls, &pstats->functions, i);
        if (function->stacks > 0 || function->all > 0) {
            exports__put_row(pstats, (uint32_t)i);
            is_empty = false;
        }
    }
    if (is_empty) {
        exports__calls nothing;
        memset(&nothing, 0, sizeof nothing);
        exports__put_bytes(out, '(', 3, 4);
        exports__put_unicode(out, "~", 1);
        exports__put_int(out, 0);
        exports__put_unicode(out, "[no samples]", strlen("[no samples]"));
        exports__put_calls(out, &nothing, false);
        exports__put_text(out, "{0");
    }
    exports__put_text(out, "0");
}

static pyprof_result exports__write_pstats(exports__writing *writing, const pyprof_profile *profile) {
    exports__pstats pstats;
    memset(&pstats, 0, sizeof pstats);
    exports__table_init(&pstats.edges);
    pstats.writing = writing;
    pstats.functions.item_size = pstats.calls.item_size = sizeof(exports__calls);
    writing->words = EXPORTS__WORDS_SHOWN;
    writing->output.threads_apart = false;
    writing->output.detail = PYPROF_DETAIL_FUNCTION;
    pyprof_result result = exports__visit(writing, profile, exports__take_node, NULL);
    if (result == PYPROF_OK && !exports__gather_edges(&pstats)) {
        result = PYPROF_ERROR_MEMORY;
    } else if (result == PYPROF_OK) {
        exports__walk(&pstats, exports__link(writing));
        exports__put_pstats(&pstats);
    }
    exports__table_free(&pstats.edges);
    exports__array_free(&pstats.functions);
    exports__array_free(&pstats.calls);
    return result;
}

/* ---- threads, for the two time lines ---------------------------------------------------------------------- */

/* A thread of the time line, with what is known of it. */
typedef struct exports__thread {
    uint32_t root;     /* its node */
    size_t first, end; /* its spans */
    uint64_t id;       /* no other thread's */
    uint64_t process;  /* likewise, its process's */
    bool is_first;     /* of its process */
} exports__thread;

/* Threads that have ended give their ids to others, and some are of none: those get one that no thread of Linux has. */
static void exports__number_threads(exports__array *threads, const exports__writing *writing) {
    for (size_t i = 0; i < threads->count; i++) {
        exports__thread *thread = &EXPORTS__AT(exports__thread, threads, i);
        int32_t tid = exports__node_at(writing, thread->root)->tid;
        bool is_taken = tid <= 0;
        for (size_t other = 0; other < i && !is_taken; other++) {
            is_taken = EXPORTS__AT(exports__thread, threads, other).id == (uint64_t)tid;
        }
        thread->id = is_taken ? (UINT64_C(1) << 22) + i + 1 : (uint64_t)tid;
    }
}

/* All threads, in the order of the visit, with their spans, which stand there in the same order. False: no memory. */
static bool exports__find_threads(exports__writing *writing, exports__array *threads) {
    threads->item_size = sizeof(exports__thread);
    if (exports__push(threads, writing->thread_count) == NULL) {
        return false;
    }
    for (size_t i = 0; i < writing->nodes.count; i++) {
        const exports__node *node = exports__node_at(writing, (uint32_t)i);
        if (node->parent == EXPORTS__NONE) {
            EXPORTS__AT(exports__thread, threads, node->thread).root = (uint32_t)i;
        }
    }
    for (size_t i = 0; i < writing->spans.count; i++) {
        exports__thread *thread = &EXPORTS__AT(exports__thread, threads,
                                               exports__node_at(writing, exports__span_at(writing, i)->node)->thread);
        thread->first = thread->end == 0 ? i : thread->first;
        thread->end = i + 1;
    }
    exports__number_threads(threads, writing);
    return true;
}

/* A thread's name; those that nobody named have their id behind it, as elsewhere. */
static void exports__put_thread_name(exports__writing *writing, const exports__thread *thread) {
    const exports__node *node = exports__node_at(writing, thread->root);
    size_t size;
    const char *name = exports__text_at(writing, node->function, &size);
    exports__put_json(&writing->out, name, size);
    if (node->tid > 0 && (!node->is_named || size == 0)) {
        exports__putf(&writing->out, size > 0 ? " (%d)" : "(%d)", (int)node->tid);
    }
}

/* The process's id: that of its first thread, if that is there. */
static uint64_t exports__process_id(const exports__writing *writing, const exports__array *threads) {
    for (size_t i = 0; i < threads->count; i++) {
        const exports__thread *thread = &EXPORTS__AT(exports__thread, threads, i);
        size_t size;
        const char *name = exports__text_at(writing, exports__node_at(writing, thread->root)->function, &size);
        if (size == strlen("MainThread") && memcmp(name, "MainThread", size) == 0) {
            return thread->id;
        }
    }
    return 1;
}

/* The same for each thread, if there are several processes. Their threads come one after the other. */
static void exports__number_processes(exports__array *threads, const exports__writing *writing) {
    uint64_t one = exports__process_id(writing, threads);
    for (size_t i = 0; i < threads->count; i++) {
        exports__thread *thread = &EXPORTS__AT(exports__thread, threads, i);
        const exports__node *node = exports__node_at(writing, thread->root);
        thread->process = node->process == EXPORTS__NONE ? one
                          : node->pid > 0                ? (uint64_t)node->pid
                                                         : (UINT64_C(1) << 22) + i + 1;
        thread->is_first = i == 0 || EXPORTS__AT(exports__thread, threads, i - 1).process != thread->process;
    }
}

/* Its process's program; of the only one, its name. */
static void exports__put_process_text(exports__writing *writing, const exports__thread *thread) {
    uint32_t process = thread != NULL ? exports__node_at(writing, thread->root)->process : EXPORTS__NONE;
    if (process != EXPORTS__NONE) {
        exports__put_json_text(writing, process);
    } else {
        exports__put_json_pyprof_text(writing, writing->facts.process);
    }
}

static uint64_t exports__lost(const pyprof_stats *stats) {
    return stats->lost_late + stats->lost_pending + stats->lost_unsettled + stats->lost_unreadable + stats->lost_memory;
}

/* ---- firefox ---------------------------------------------------------------------------------------------- */
/* Firefox's processed profile, version 57. Source of the format: https://github.com/firefox-devtools/profiler,
   docs-developer/CHANGELOG-formats.md and src/types/profile.ts. */

typedef struct exports__sample {
    uint32_t stack; /* EXPORTS__NONE: no Python runs */
    uint64_t time_ns;
    uint64_t weight;
    uint64_t cpu_ns; /* since the sample before */
} exports__sample;

/* A frame of a thread; a key of a table, without padding. */
typedef struct exports__frame {
    uint32_t function; /* in this thread's table */
    int32_t line;
    uint32_t is_idle;
} exports__frame;

typedef struct exports__stack {
    uint32_t frame;
    uint32_t prefix; /* EXPORTS__NONE: none */
} exports__stack;

/* What is written of one thread after the other. */
typedef struct exports__firefox {
    exports__writing *writing;
    exports__table functions; /* of this thread; keys are numbers in writing->functions */
    exports__table frames;
    exports__array stacks;
    exports__array samples;
} exports__firefox;

/* The stack of a node, below one that is there. False: no memory. */
static bool exports__add_stack(exports__firefox *firefox, const exports__node *node, bool is_idle, uint32_t *number) {
    const exports__node *parent = exports__node_at(firefox->writing, node->parent);
    exports__frame frame = {exports__intern(&firefox->functions, &node->function, sizeof node->function), node->line,
                            is_idle};
    uint32_t frame_number =
        frame.function != EXPORTS__NONE ? exports__intern(&firefox->frames, &frame, sizeof frame) : EXPORTS__NONE;
    exports__stack *stack = frame_number != EXPORTS__NONE ? (exports__stack *)exports__push(&firefox->stacks, 1) : NULL;
    if (stack == NULL) {
        return false;
    }
    stack->frame = frame_number;
    stack->prefix = parent->parent != EXPORTS__NONE ? parent->item : EXPORTS__NONE;
    *number = (uint32_t)firefox->stacks.count - 1;
    return true;
}

/* Sees to it that all callers of a node have stacks, from the outermost in. False: no memory. */
static bool exports__add_callers(exports__firefox *firefox, uint32_t node) {
    exports__writing *writing = firefox->writing;
    writing->scratch.count = 0;
    for (uint32_t at = exports__node_at(writing, node)->parent;
         exports__node_at(writing, at)->parent != EXPORTS__NONE && exports__node_at(writing, at)->item == EXPORTS__NONE;
         at = exports__node_at(writing, at)->parent) {
        if (!exports__gather_bytes(writing, (const char *)&at, sizeof at)) {
            return false;
        }
    }
    for (size_t i = writing->scratch.count / sizeof(uint32_t); i-- > 0;) {
        exports__node *caller = exports__node_at(writing, EXPORTS__AT(uint32_t, &writing->scratch, i));
        if (!exports__add_stack(firefox, caller, false, &caller->item)) {
            return false;
        }
    }
    return true;
}

/* A span's stack; that of a thread itself is none. False: no memory. */
static bool exports__stack_of(exports__firefox *firefox, const exports__span *span, uint32_t *stack) {
    exports__node *node = exports__node_at(firefox->writing, span->node);
    uint32_t *item = span->is_idle ? &node->idle_item : &node->item;
    *stack = EXPORTS__NONE;
    if (node->parent == EXPORTS__NONE) {
        return true;
    }
    if (*item == EXPORTS__NONE &&
        (!exports__add_callers(firefox, span->node) || !exports__add_stack(firefox, node, span->is_idle, item))) {
        return false;
    }
    *stack = *item;
    return true;
}

static uint64_t exports__weight(const pyprof_output *output, const exports__span *span) {
    switch (output->metric) {
    case PYPROF_METRIC_CPU:
        return span->cpu_ns;
    case PYPROF_METRIC_GIL:
        return span->has_gil ? span->wall_ns : 0;
    case PYPROF_METRIC_SAMPLES:
        return span->samples;
    case PYPROF_METRIC_WALL:
        break;
    }
    return span->wall_ns;
}

static bool exports__add_sample(exports__firefox *firefox, uint32_t stack, uint64_t time_ns, uint64_t weight,
                                uint64_t *cpu_ns) {
    exports__sample *sample = (exports__sample *)exports__push(&firefox->samples, 1);
    if (sample != NULL) {
        sample->stack = stack;
        sample->time_ns = time_ns;
        sample->weight = weight;
        sample->cpu_ns = *cpu_ns;
        *cpu_ns = 0;
    }
    return sample != NULL;
}

/* One or two samples of a span, see the top of this file. *cpu_ns: what is to be told of by the next sample. */
static bool exports__add_samples(exports__firefox *firefox, const exports__span *span, uint64_t *cpu_ns) {
    uint32_t interval_us = firefox->writing->facts.interval_us;
    bool is_long = span->wall_ns > UINT64_C(2000) * (interval_us > 0 ? interval_us : 10000);
    uint64_t weight = exports__weight(&firefox->writing->output, span), half = is_long ? weight / 2 : 0;
    uint32_t stack;
    if (!exports__stack_of(firefox, span, &stack) ||
        !exports__add_sample(firefox, stack, span->start_ns, weight - half, cpu_ns)) {
        return false;
    }
    *cpu_ns = span->cpu_ns;
    /* A microsecond before the end, as samples of one moment leave no time for the CPU time between them. */
    return !is_long || exports__add_sample(firefox, stack, span->start_ns + span->wall_ns - 1000, half, cpu_ns);
}

/* Fills the tables of a thread. False: no memory. */
static bool exports__fill_thread(exports__firefox *firefox, const exports__thread *thread) {
    uint64_t cpu_ns = 0, end = 0;
    exports__table_clear(&firefox->functions);
    exports__table_clear(&firefox->frames);
    firefox->stacks.count = firefox->samples.count = 0;
    for (size_t i = thread->first; i < thread->end; i++) {
        const exports__span *span = exports__span_at(firefox->writing, i);
        bool is_gap = i > thread->first && span->start_ns > end;
        if ((is_gap && !exports__add_sample(firefox, EXPORTS__NONE, end, 0, &cpu_ns)) ||
            !exports__add_samples(firefox, span, &cpu_ns)) {
            return false;
        }
        end = span->start_ns + span->wall_ns;
    }
    return thread->end == 0 || exports__add_sample(firefox, EXPORTS__NONE, end, 0, &cpu_ns);
}

/* Puts the value that an item has in a column. */
typedef void (*exports__cell)(exports__firefox *firefox, size_t index);

static void exports__put_column(exports__firefox *firefox, const char *key, size_t count, exports__cell put) {
    exports__out *out = &firefox->writing->out;
    exports__putf(out, "\"%s\":[", key);
    for (size_t i = 0; i < count; i++) {
        exports__put_text(out, i > 0 ? "," : "");
        put(firefox, i);
    }
    exports__put_text(out, "],");
}

/* A column that is the same in each row. */
static void exports__put_same(exports__firefox *firefox, const char *key, size_t count, const char *value) {
    exports__out *out = &firefox->writing->out;
    exports__putf(out, "\"%s\":[", key);
    for (size_t i = 0; i < count; i++) {
        exports__putf(out, "%s%s", i > 0 ? "," : "", value);
    }
    exports__put_text(out, "],");
}

static void exports__put_length(exports__firefox *firefox, size_t count) {
    exports__putf(&firefox->writing->out, "\"length\":%zu}", count);
}

/* A number, or null where there is none. */
static void exports__put_or_null(exports__firefox *firefox, bool is_there, uint64_t number) {
    if (is_there) {
        exports__put_number(&firefox->writing->out, number);
    } else {
        exports__put_text(&firefox->writing->out, "null");
    }
}

static const exports__sample *exports__sample_at(const exports__firefox *firefox, size_t index) {
    return &EXPORTS__AT(exports__sample, &firefox->samples, index);
}

static void exports__cell_stack(exports__firefox *firefox, size_t index) {
    uint32_t stack = exports__sample_at(firefox, index)->stack;
    exports__put_or_null(firefox, stack != EXPORTS__NONE, stack);
}

static void exports__cell_time(exports__firefox *firefox, size_t index) {
    exports__put_ms(&firefox->writing->out, exports__sample_at(firefox, index)->time_ns);
}

static void exports__cell_weight(exports__firefox *firefox, size_t index) {
    uint64_t weight = exports__sample_at(firefox, index)->weight;
    if (firefox->writing->output.metric == PYPROF_METRIC_SAMPLES) {
        exports__put_number(&firefox->writing->out, weight);
    } else {
        exports__put_ms(&firefox->writing->out, weight);
    }
}

static void exports__cell_cpu(exports__firefox *firefox, size_t index) {
    exports__put_number(&firefox->writing->out, exports__sample_at(firefox, index)->cpu_ns);
}

static void exports__cell_stack_frame(exports__firefox *firefox, size_t index) {
    exports__put_number(&firefox->writing->out, EXPORTS__AT(exports__stack, &firefox->stacks, index).frame);
}

static void exports__cell_stack_prefix(exports__firefox *firefox, size_t index) {
    uint32_t prefix = EXPORTS__AT(exports__stack, &firefox->stacks, index).prefix;
    exports__put_or_null(firefox, prefix != EXPORTS__NONE, prefix);
}

static exports__frame exports__frame_at(const exports__firefox *firefox, size_t index) {
    exports__frame frame;
    exports__copy_key(&firefox->frames, (uint32_t)index, &frame, sizeof frame);
    return frame;
}

/* Numbers in the list of categories, see exports__put_firefox_meta. */
static void exports__cell_frame_category(exports__firefox *firefox, size_t index) {
    exports__put_text(&firefox->writing->out, exports__frame_at(firefox, index).is_idle ? "1" : "2");
}

static void exports__cell_frame_function(exports__firefox *firefox, size_t index) {
    exports__put_number(&firefox->writing->out, exports__frame_at(firefox, index).function);
}

static void exports__cell_frame_line(exports__firefox *firefox, size_t index) {
    int32_t line = exports__frame_at(firefox, index).line;
    exports__put_or_null(firefox, line > 0, (uint64_t)line);
}

static exports__function exports__thread_function(const exports__firefox *firefox, size_t index) {
    uint32_t function;
    exports__copy_key(&firefox->functions, (uint32_t)index, &function, sizeof function);
    return exports__function_at(firefox->writing, function);
}

/* Texts have the same numbers in the file. */
static void exports__cell_function_name(exports__firefox *firefox, size_t index) {
    exports__put_number(&firefox->writing->out, exports__thread_function(firefox, index).name);
}

static void exports__cell_function_file(exports__firefox *firefox, size_t index) {
    uint32_t path = exports__thread_function(firefox, index).path;
    size_t size;
    exports__text_at(firefox->writing, path, &size);
    exports__put_or_null(firefox, size > 0, path);
}

static void exports__cell_function_line(exports__firefox *firefox, size_t index) {
    int32_t line = exports__thread_function(firefox, index).first_line;
    exports__put_or_null(firefox, line > 0, (uint64_t)line);
}

static void exports__put_samples(exports__firefox *firefox) {
    size_t count = firefox->samples.count;
    bool is_count = firefox->writing->output.metric == PYPROF_METRIC_SAMPLES;
    exports__put_text(&firefox->writing->out, "\"samples\":{");
    exports__put_column(firefox, "stack", count, exports__cell_stack);
    exports__put_column(firefox, "time", count, exports__cell_time);
    exports__put_column(firefox, "weight", count, exports__cell_weight);
    exports__put_column(firefox, "threadCPUDelta", count, exports__cell_cpu);
    exports__putf(&firefox->writing->out, "\"weightType\":\"%s\",", is_count ? "samples" : "tracing-ms");
    exports__put_length(firefox, count);
}

static void exports__put_stacks(exports__firefox *firefox) {
    size_t count = firefox->stacks.count, frames = firefox->frames.keys.count;
    exports__put_text(&firefox->writing->out, ",\n\"stackTable\":{");
    exports__put_column(firefox, "frame", count, exports__cell_stack_frame);
    exports__put_column(firefox, "prefix", count, exports__cell_stack_prefix);
    exports__put_length(firefox, count);
    exports__put_text(&firefox->writing->out, ",\n\"frameTable\":{");
    exports__put_same(firefox, "address", frames, "-1");
    exports__put_same(firefox, "inlineDepth", frames, "0");
    exports__put_column(firefox, "category", frames, exports__cell_frame_category);
    exports__put_same(firefox, "subcategory", frames, "0");
    exports__put_column(firefox, "func", frames, exports__cell_frame_function);
    exports__put_same(firefox, "nativeSymbol", frames, "null");
    exports__put_same(firefox, "innerWindowID", frames, "0");
    exports__put_column(firefox, "line", frames, exports__cell_frame_line);
    exports__put_same(firefox, "column", frames, "null");
    exports__put_length(firefox, frames);
}

static void exports__put_functions(exports__firefox *firefox) {
    size_t count = firefox->functions.keys.count;
    exports__put_text(&firefox->writing->out, ",\n\"funcTable\":{");
    exports__put_column(firefox, "name", count, exports__cell_function_name);
    exports__put_same(firefox, "isJS", count, "false");
    exports__put_same(firefox, "relevantForJS", count, "false");
    exports__put_same(firefox, "resource", count, "-1");
    exports__put_column(firefox, "fileName", count, exports__cell_function_file);
    exports__put_column(firefox, "lineNumber", count, exports__cell_function_line);
    exports__put_same(firefox, "columnNumber", count, "null");
    exports__put_length(firefox, count);
    exports__put_text(&firefox->writing->out,
                      ",\n\"resourceTable\":{\"lib\":[],\"name\":[],\"host\":[],\"type\":[],\"length\":0},"
                      "\"nativeSymbols\":{\"libIndex\":[],\"address\":[],\"name\":[],\"functionSize\":[],\"length\":0},"
                      "\"markers\":{\"data\":[],\"name\":[],\"startTime\":[],\"endTime\":[],\"phase\":[],"
                      "\"category\":[],\"length\":0}}");
}

/* thread NULL: the one that there has to be where nothing was recorded. */
static void exports__put_firefox_thread(exports__firefox *firefox, const exports__thread *thread, bool is_first) {
    exports__writing *writing = firefox->writing;
    const uint64_t process = thread != NULL ? thread->process : 1;
    exports__putf(&writing->out,
                  "%s\n{\"processType\":\"default\",\"processStartupTime\":0,\"processShutdownTime\":null,"
                  "\"registerTime\":0,\"unregisterTime\":null,\"pausedRanges\":[],\"pid\":\"%llu\",\"tid\":%llu,",
                  is_first ? "" : ",", (unsigned long long)process,
                  (unsigned long long)(thread != NULL ? thread->id : process));
    bool is_main = thread == NULL || thread->is_first;
    exports__put_text(&writing->out, is_main ? "\"isMainThread\":true," : "\"isMainThread\":false,");
    exports__put_text(&writing->out, "\"processName\":");
    exports__put_process_text(writing, thread);
    exports__put_text(&writing->out, ",\"name\":\"");
    if (thread != NULL) {
        exports__put_thread_name(writing, thread);
    } else {
        exports__put_text(&writing->out, "nothing was recorded");
    }
    exports__put_text(&writing->out, "\",\n");
    exports__put_samples(firefox);
    exports__put_stacks(firefox);
    exports__put_functions(firefox);
}

/* A line of the table that the profiler shows of a recording. */
static void exports__put_fact(exports__writing *writing, const char *label, uint64_t value) {
    exports__putf(&writing->out, ",{\"label\":\"%s\",\"format\":\"integer\",\"value\":%llu}", label,
                  (unsigned long long)value);
}

static void exports__put_firefox_meta(exports__writing *writing) {
    const pyprof_facts *facts = &writing->facts;
    exports__put_text(&writing->out, "{\"meta\":{\"interval\":");
    exports__put_us(&writing->out, facts->interval_us > 0 ? facts->interval_us : 10000); /* us in ms */
    exports__put_text(&writing->out, ",\"startTime\":");
    exports__put_ms(&writing->out, facts->start_ns);
    exports__put_text(&writing->out, ",\"profilingStartTime\":0,\"profilingEndTime\":");
    exports__put_ms(&writing->out, facts->duration_ns);
    exports__put_text(&writing->out, ",\"processType\":0,\"product\":");
    exports__put_json_pyprof_text(writing, facts->process);
    exports__put_text(&writing->out,
                      ",\"stackwalk\":1,\"debug\":false,\"version\":32,\"preprocessedProfileVersion\":57,\n"
                      "\"categories\":[{\"name\":\"Other\",\"color\":\"grey\",\"subcategories\":[\"Other\"]},"
                      "{\"name\":\"Idle\",\"color\":\"transparent\",\"subcategories\":[\"Other\"]},"
                      "{\"name\":\"Python\",\"color\":\"yellow\",\"subcategories\":[\"Other\"]}],\n"
                      "\"sampleUnits\":{\"time\":\"ms\",\"eventDelay\":\"ms\",\"threadCPUDelta\":\"ns\"},"
                      "\"markerSchema\":[],\"symbolicated\":true,\"symbolicationNotSupported\":true,"
                      "\"usesOnlyOneStackType\":true,\"sourceCodeIsNotOnSearchfox\":true,"
                      "\"importedFrom\":\"pyprof\",\n\"extra\":[{\"label\":\"Recording\",\"entries\":["
                      "{\"label\":\"Program\",\"format\":\"string\",\"value\":");
    exports__put_json_pyprof_text(writing, facts->program);
    exports__put_text(&writing->out, "}");
    exports__put_fact(writing, "Samples", facts->stats.samples);
    exports__put_fact(writing, "Lost samples", exports__lost(&facts->stats));
    exports__put_text(&writing->out, "]}]},\n\"libs\":[],\"pages\":[],\n");
}

static void exports__put_strings(exports__writing *writing) {
    exports__put_text(&writing->out, "],\n\"shared\":{\"stringArray\":[");
    for (size_t i = 0; i < writing->texts.keys.count; i++) {
        exports__put_text(&writing->out, i > 0 ? ",\n" : "\n");
        exports__put_json_text(writing, (uint32_t)i);
    }
    exports__put_text(&writing->out, "]}}\n");
}

/* False: no memory. */
static bool exports__put_firefox(exports__firefox *firefox, exports__array *threads) {
    exports__writing *writing = firefox->writing;
    exports__number_processes(threads, writing);
    exports__put_firefox_meta(writing);
    exports__put_text(&writing->out, "\"threads\":[");
    for (size_t i = 0; i < threads->count; i++) {
        const exports__thread *thread = &EXPORTS__AT(exports__thread, threads, i);
        if (!exports__fill_thread(firefox, thread)) {
            return false;
        }
        exports__put_firefox_thread(firefox, thread, i == 0);
    }
    if (threads->count == 0) {
        exports__put_firefox_thread(firefox, NULL, true);
    }
    exports__put_strings(writing);
    return true;
}

static pyprof_result exports__write_firefox(exports__writing *writing, const pyprof_profile *profile) {
    exports__firefox firefox;
    exports__array threads;
    memset(&firefox, 0, sizeof firefox);
    memset(&threads, 0, sizeof threads);
    firefox.writing = writing;
    exports__table_init(&firefox.functions);
    exports__table_init(&firefox.frames);
    firefox.stacks.item_size = sizeof(exports__stack);
    firefox.samples.item_size = sizeof(exports__sample);
    writing->words = EXPORTS__WORDS_NAMED;
    writing->out.is_strict = true;
    writing->output.threads_apart = true;
    pyprof_result result = exports__visit(writing, profile, exports__take_node, exports__take_span);
    if (result == PYPROF_OK &&
        (!exports__find_threads(writing, &threads) || !exports__put_firefox(&firefox, &threads))) {
        result = PYPROF_ERROR_MEMORY;
    }
    exports__table_free(&firefox.functions);
    exports__table_free(&firefox.frames);
    exports__array_free(&firefox.stacks);
    exports__array_free(&firefox.samples);
    exports__array_free(&threads);
    return result;
}

/* ---- perfetto --------------------------------------------------------------------------------------------- */
/* Source of the format: "Trace Event Format", which https://perfetto.dev/docs/ leads to. */

#ifndef EXPORTS_PERFETTO_DEPTH
#define EXPORTS_PERFETTO_DEPTH 512 /* Perfetto shows what lies deeper beside it, without its callers */
#endif

/* A stack of slices from the outermost in: numbers of nodes, with this bit where it is a leaf that waits; NONE stands
   for what was left out. */
#define EXPORTS__WAITS 0x80000000u

typedef struct exports__slices {
    exports__writing *writing;
    const exports__thread *thread;
    exports__array paths[2]; /* of the span at hand, and of the one before it */
    exports__array shared;   /* of each span of the thread: how many slices the one before it had, too */
    exports__array next;     /* and the next span with fewer of these */
    exports__array ends;     /* of the slices at hand */
} exports__slices;

/* False: no memory. */
static bool exports__find_path(const exports__writing *writing, const exports__span *span, exports__array *path) {
    path->count = 0;
    uint32_t mark = span->is_idle ? EXPORTS__WAITS : 0;
    for (uint32_t at = span->node; exports__node_at(writing, at)->parent != EXPORTS__NONE;
         at = exports__node_at(writing, at)->parent) {
        uint32_t *item = (uint32_t *)exports__push(path, 1);
        if (item == NULL) {
            return false;
        }
        *item = at | mark;
        mark = 0;
    }
    uint32_t *items = (uint32_t *)path->data;
    for (size_t i = 0; i < path->count / 2; i++) {
        uint32_t item = items[i];
        items[i] = items[path->count - 1 - i];
        items[path->count - 1 - i] = item;
    }
    if (path->count > EXPORTS_PERFETTO_DEPTH) {
        size_t outer = EXPORTS_PERFETTO_DEPTH / 4, inner = EXPORTS_PERFETTO_DEPTH - outer - 1;
        items[outer] = EXPORTS__NONE;
        memmove(items + outer + 1, items + path->count - inner, inner * sizeof *items);
        path->count = EXPORTS_PERFETTO_DEPTH;
    }
    return true;
}

static size_t exports__count_shared(const exports__array *one, const exports__array *other) {
    size_t count = 0, most = one->count < other->count ? one->count : other->count;
    while (count < most && EXPORTS__AT(uint32_t, one, count) == EXPORTS__AT(uint32_t, other, count)) {
        count++;
    }
    return count;
}

static uint64_t exports__end_of(const exports__span *span) {
    return span->start_ns + span->wall_ns;
}

/* Finds for each span what it goes on with, and from which one on that is less. False: no memory. */
static bool exports__compare_spans(exports__slices *slices) {
    const exports__thread *thread = slices->thread;
    size_t count = thread->end - thread->first;
    slices->shared.count = slices->next.count = 0;
    slices->paths[0].count = slices->paths[1].count = 0;
    uint32_t *shared = (uint32_t *)exports__push(&slices->shared, count + 1);
    uint32_t *next = (uint32_t *)exports__push(&slices->next, count + 1);
    if (shared == NULL || next == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const exports__span *span = exports__span_at(slices->writing, thread->first + i);
        bool follows = i > 0 && exports__end_of(span - 1) == span->start_ns;
        if (!exports__find_path(slices->writing, span, &slices->paths[i % 2])) {
            return false;
        }
        shared[i] = follows ? (uint32_t)exports__count_shared(&slices->paths[0], &slices->paths[1]) : 0;
    }
    for (size_t i = count; i-- > 0;) {
        next[i] = (uint32_t)i + 1;
        while (next[i] < count && shared[next[i]] >= shared[i]) {
            next[i] = next[next[i]];
        }
    }
    return true;
}

static void exports__put_slice_name(exports__writing *writing, uint32_t node) {
    if (node == EXPORTS__NONE) {
        exports__put_text(&writing->out, "[truncated]");
        return;
    }
    exports__function function = exports__function_at(writing, exports__node_at(writing, node)->function);
    size_t size;
    const char *text = exports__text_at(writing, function.name, &size);
    exports__put_json(&writing->out, text, size);
    text = exports__text_at(writing, function.file, &size);
    if (size > 0) {
        exports__put_text(&writing->out, " (");
        exports__put_json(&writing->out, text, size);
        exports__putf(&writing->out, ":%d)", function.first_line > 0 ? (int)function.first_line : 0);
    }
}

static void exports__put_slice(exports__slices *slices, uint32_t item, uint64_t start, uint64_t end) {
    exports__out *out = &slices->writing->out;
    bool waits = item != EXPORTS__NONE && (item & EXPORTS__WAITS) != 0;
    exports__put_text(out, ",\n{\"ph\":\"X\",\"name\":\"");
    exports__put_slice_name(slices->writing, waits ? item & ~EXPORTS__WAITS : item);
    exports__putf(out, "\",\"cat\":\"%s\",\"pid\":%llu,\"tid\":%llu,\"ts\":", waits ? "idle" : "python",
                  (unsigned long long)slices->thread->process, (unsigned long long)slices->thread->id);
    exports__put_us(out, start);
    exports__put_text(out, ",\"dur\":");
    exports__put_us(out, end - start);
    exports__put_text(out, "}");
}

/* The slices that begin with a span, the outermost first. Each lasts until the first span that shares less than it
   needs: these are looked for from the innermost out. False: no memory. */
static bool exports__put_slices(exports__slices *slices, size_t index) {
    const exports__thread *thread = slices->thread;
    const exports__span *spans = exports__span_at(slices->writing, thread->first);
    const uint32_t *shared = (const uint32_t *)slices->shared.data, *next = (const uint32_t *)slices->next.data;
    exports__array *path = &slices->paths[0];
    size_t count = thread->end - thread->first, until = index + 1;
    slices->ends.count = 0;
    if (!exports__find_path(slices->writing, &spans[index], path) ||
        exports__push(&slices->ends, path->count) == NULL) {
        return false;
    }
    for (size_t depth = path->count; depth-- > shared[index];) {
        while (until < count && shared[until] > depth) {
            until = next[until];
        }
        EXPORTS__AT(uint64_t, &slices->ends, depth) = exports__end_of(&spans[until - 1]);
    }
    for (size_t depth = shared[index]; depth < path->count; depth++) {
        exports__put_slice(slices, EXPORTS__AT(uint32_t, path, depth), spans[index].start_ns,
                           EXPORTS__AT(uint64_t, &slices->ends, depth));
    }
    return true;
}

/* False: no memory. */
static bool exports__put_perfetto_thread(exports__slices *slices) {
    const exports__thread *thread = slices->thread;
    exports__putf(&slices->writing->out,
                  ",\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%llu,\"tid\":%llu,\"ts\":0,\"args\":{\"name\":\"",
                  (unsigned long long)thread->process, (unsigned long long)thread->id);
    exports__put_thread_name(slices->writing, thread);
    exports__put_text(&slices->writing->out, "\"}}");
    if (thread->end == 0) {
        return true;
    }
    bool has_room = exports__compare_spans(slices);
    for (size_t i = 0; has_room && i < thread->end - thread->first; i++) {
        has_room = exports__put_slices(slices, i);
    }
    return has_room;
}

/* False: no memory. */
static bool exports__put_perfetto(exports__slices *slices, exports__array *threads) {
    exports__writing *writing = slices->writing;
    bool has_room = true;
    exports__number_processes(threads, writing);
    exports__put_text(&writing->out, "{\"traceEvents\":[\n");
    for (size_t i = 0; i == 0 || i < threads->count; i++) {
        const exports__thread *thread = i < threads->count ? &EXPORTS__AT(exports__thread, threads, i) : NULL;
        if (thread == NULL || thread->is_first) {
            exports__putf(&writing->out,
                          "%s{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%llu,\"tid\":0,\"ts\":0,"
                          "\"args\":{\"name\":",
                          i > 0 ? ",\n" : "", (unsigned long long)(thread != NULL ? thread->process : 1));
            exports__put_process_text(writing, thread);
            exports__put_text(&writing->out, "}}");
        }
    }
    for (size_t i = 0; has_room && i < threads->count; i++) {
        slices->thread = &EXPORTS__AT(exports__thread, threads, i);
        has_room = exports__put_perfetto_thread(slices);
    }
    exports__putf(&writing->out,
                  "],\n\"displayTimeUnit\":\"ms\",\"otherData\":{\"producer\":\"pyprof\",\"samples\":\"%llu\","
                  "\"lost samples\":\"%llu\"}}\n",
                  (unsigned long long)writing->facts.stats.samples,
                  (unsigned long long)exports__lost(&writing->facts.stats));
    return has_room;
}

static pyprof_result exports__write_perfetto(exports__writing *writing, const pyprof_profile *profile) {
    exports__slices slices;
    exports__array threads;
    memset(&slices, 0, sizeof slices);
    memset(&threads, 0, sizeof threads);
    slices.writing = writing;
    slices.paths[0].item_size = slices.paths[1].item_size = sizeof(uint32_t);
    slices.shared.item_size = slices.next.item_size = sizeof(uint32_t);
    slices.ends.item_size = sizeof(uint64_t);
    writing->output.detail = PYPROF_DETAIL_FUNCTION;
    writing->words = EXPORTS__WORDS_NAMED;
    writing->out.is_strict = true;
    writing->output.threads_apart = true;
    pyprof_result result = exports__visit(writing, profile, exports__take_node, exports__take_span);
    if (result == PYPROF_OK &&
        (!exports__find_threads(writing, &threads) || !exports__put_perfetto(&slices, &threads))) {
        result = PYPROF_ERROR_MEMORY;
    }
    exports__array_free(&slices.paths[0]);
    exports__array_free(&slices.paths[1]);
    exports__array_free(&slices.shared);
    exports__array_free(&slices.next);
    exports__array_free(&slices.ends);
    exports__array_free(&threads);
    return result;
}

/* ---- jsonl ------------------------------------------------------------------------------------------------ */

typedef struct exports__stat {
    const char *name;
    size_t offset; /* in pyprof_stats */
} exports__stat;

#define EXPORTS__STAT(field)                                                                                           \
    { #field, offsetof(pyprof_stats, field) }

/* All fields of 64 bits; the duration is one of the facts themselves. */
static const exports__stat exports__stats[] = {EXPORTS__STAT(ticks),
                                               EXPORTS__STAT(ticks_missed),
                                               EXPORTS__STAT(samples),
                                               EXPORTS__STAT(samples_idle),
                                               EXPORTS__STAT(samples_signalled),
                                               EXPORTS__STAT(samples_partial),
                                               EXPORTS__STAT(lost_late),
                                               EXPORTS__STAT(lost_pending),
                                               EXPORTS__STAT(lost_unsettled),
                                               EXPORTS__STAT(lost_unreadable),
                                               EXPORTS__STAT(lost_memory),
                                               EXPORTS__STAT(truncated_depth),
                                               EXPORTS__STAT(truncated_memory),
                                               EXPORTS__STAT(frames_unresolved),
                                               EXPORTS__STAT(timeline_coarsened),
                                               EXPORTS__STAT(signals),
                                               EXPORTS__STAT(calls_interrupted),
                                               EXPORTS__STAT(threads),
                                               EXPORTS__STAT(bytes),
                                               EXPORTS__STAT(bytes_peak),
                                               EXPORTS__STAT(sampler_cpu_ns),
                                               EXPORTS__STAT(samples_unasked),
                                               EXPORTS__STAT(threads_unasked),
                                               EXPORTS__STAT(signal_changes),
                                               EXPORTS__STAT(samples_held),
                                               EXPORTS__STAT(holds_failed),
                                               EXPORTS__STAT(samples_jit)};

static void exports__put_facts(exports__writing *writing) {
    const pyprof_facts *facts = &writing->facts;
    exports__out *out = &writing->out;
    bool is_heap = facts->kind == PYPROF_KIND_HEAP;
    exports__putf(out, "{\"type\":\"facts\",\"format\":\"pyprof-jsonl\",\"version\":%d,", is_heap ? 2 : 1);
    if (is_heap) {
        exports__putf(out, "\"kind\":\"heap\",\"sampling_bytes\":%llu,", (unsigned long long)facts->sampling_bytes);
    }
    exports__put_text(out, "\"program\":");
    exports__put_json_pyprof_text(writing, facts->program);
    exports__put_text(out, ",\"process\":");
    exports__put_json_pyprof_text(writing, facts->process);
    exports__put_text(out, ",\"python\":");
    exports__put_json_pyprof_text(writing, facts->python);
    exports__putf(out, ",\"start_ns\":%llu,\"duration_ns\":%llu,\"interval_us\":%u,\"stats\":{",
                  (unsigned long long)facts->start_ns, (unsigned long long)facts->duration_ns,
                  (unsigned)facts->interval_us);
    for (size_t i = 0; i < sizeof exports__stats / sizeof *exports__stats; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&facts->stats + exports__stats[i].offset, sizeof value);
        exports__putf(out, "\"%s\":%llu,", exports__stats[i].name, (unsigned long long)value);
    }
    exports__putf(out, "\"signal_number\":%d}}\n", (int)facts->stats.signal_number);
}

static void exports__put_figures(exports__out *out, const pyprof_node *node) {
    exports__putf(out,
                  ",\"samples\":%llu,\"samples_idle\":%llu,\"wall_ns\":%llu,\"wall_idle_ns\":%llu,\"cpu_ns\":%llu,"
                  "\"gil_ns\":%llu}\n",
                  (unsigned long long)node->samples, (unsigned long long)node->samples_idle,
                  (unsigned long long)node->wall_ns, (unsigned long long)node->wall_idle_ns,
                  (unsigned long long)node->cpu_ns, (unsigned long long)node->gil_ns);
}

/* Functions are told of when they are first met. False: no memory. */
static bool exports__put_new_function(exports__writing *writing, const pyprof_node *node, uint32_t *number) {
    size_t count = writing->functions.keys.count;
    exports__out *out = &writing->out;
    *number = exports__function_of(writing, node);
    if (*number != count) {
        return *number != EXPORTS__NONE;
    }
    exports__putf(out, "{\"type\":\"function\",\"id\":%u,\"name\":", (unsigned)*number);
    exports__put_json_pyprof_text(writing, node->name);
    exports__put_text(out, ",\"path\":");
    exports__put_json_pyprof_text(writing, node->path);
    exports__put_text(out, ",\"file\":");
    exports__put_json_pyprof_text(writing, node->file);
    exports__putf(out, ",\"first_line\":%d}\n", (int)exports__function_at(writing, *number).first_line);
    return true;
}

/* Of pyprof_visitor; user is the exports__writing. */
static bool exports__put_node(void *user, const pyprof_node *node) {
    exports__writing *writing = (exports__writing *)user;
    exports__out *out = &writing->out;
    uint32_t function;
    if (node->parent == PYPROF_NO_NODE) {
        exports__putf(out, "{\"type\":\"thread\",\"id\":%u,\"name\":", (unsigned)node->number);
        exports__put_json_pyprof_text(writing, node->name);
        exports__putf(out, ",\"tid\":%d,\"is_named\":%s", (int)node->tid, node->is_named ? "true" : "false");
        if (exports__has_process(node)) {
            exports__put_text(out, ",\"process\":");
            exports__put_json_pyprof_text(writing, node->process);
            exports__putf(out, ",\"pid\":%d", (int)node->pid);
        }
    } else if (exports__put_new_function(writing, node, &function)) {
        exports__putf(out, "{\"type\":\"node\",\"id\":%u,\"parent\":%u,\"function\":%u,\"line\":%d",
                      (unsigned)node->number, (unsigned)node->parent, (unsigned)function, (int)node->line);
    } else {
        writing->is_full = true;
        return false;
    }
    exports__put_figures(out, node);
    writing->nodes_written++;
    return !out->is_broken;
}

static bool exports__put_span(void *user, const pyprof_span *span) {
    exports__writing *writing = (exports__writing *)user;
    exports__putf(&writing->out,
                  "{\"type\":\"span\",\"thread\":%u,\"node\":%u,\"start_ns\":%llu,\"wall_ns\":%llu,\"cpu_ns\":%llu,"
                  "\"samples\":%u,\"is_idle\":%s,\"has_gil\":%s}\n",
                  (unsigned)span->thread, (unsigned)span->node, (unsigned long long)span->start_ns,
                  (unsigned long long)span->wall_ns, (unsigned long long)span->cpu_ns, (unsigned)span->samples,
                  span->is_idle ? "true" : "false", span->has_gil ? "true" : "false");
    writing->spans_written++;
    return !writing->out.is_broken;
}

/* In one pass: nothing is kept but the functions. */
static pyprof_result exports__write_jsonl(exports__writing *writing, const pyprof_profile *profile) {
    writing->output.threads_apart = true;
    exports__put_facts(writing);
    pyprof_result result = exports__visit(writing, profile, exports__put_node, exports__put_span);
    if (result == PYPROF_OK) {
        exports__putf(&writing->out, "{\"type\":\"end\",\"nodes\":%llu,\"spans\":%llu}\n",
                      (unsigned long long)writing->nodes_written, (unsigned long long)writing->spans_written);
    }
    return result;
}

/* ---- what is called --------------------------------------------------------------------------------------- */

/* What can be wrong before anything is written. */
static pyprof_result exports__check(const pyprof_profile *profile, const pyprof_output *output, exports_format format,
                                    pyprof_write_fn write) {
    if (exports__info(format) == NULL) {
        exports__say("exports_write: format is %d: it has to be an EXPORTS_FORMAT_ other than NONE", (int)format);
        return PYPROF_ERROR_FORMAT;
    }
    if (profile == NULL || write == NULL) {
        exports__say("exports_write: %s", profile == NULL
                                              ? "profile is NULL: it has to come from pyprof.h"
                                              : "write is NULL: it has to be the function that takes the output");
        return PYPROF_ERROR_ARGUMENT;
    }
    pyprof_facts facts;
    bool is_heap = pyprof_get_facts(profile, &facts) == PYPROF_OK && facts.kind == PYPROF_KIND_HEAP;
    if (is_heap && !exports_has_memory(format)) {
        exports__say("%s has times only, and this is a profile of memory: svg, table, collapsed, speedscope, pprof and "
                     "jsonl have it",
                     exports_name(format));
        return PYPROF_ERROR_FORMAT;
    }
    if (format == EXPORTS_FORMAT_PSTATS && output != NULL && output->metric == PYPROF_METRIC_SAMPLES) {
        exports__say("pstats has seconds: the metric has to be wall, cpu or gil; samples are in its call counts");
        return PYPROF_ERROR_ARGUMENT;
    }
    return PYPROF_OK;
}

/* Ends a writing: what is left goes out, and why it failed is said, where pyprof.h has not done so. */
static pyprof_result exports__finish(exports__writing *writing, pyprof_result result, exports_format format) {
    bool is_full = writing != NULL && writing->is_full;
    if (writing != NULL) {
        if (result == PYPROF_OK) {
            exports__flush(&writing->out);
        }
        if (writing->out.is_broken) {
            exports__say("the write function answered false");
            result = PYPROF_ERROR_WRITE;
        }
        exports__writing_free(writing);
    }
    if (result == PYPROF_ERROR_MEMORY && (is_full || exports__error[0] == '\0')) {
        exports__say("no memory to write the profile as %s: the allocator gave nothing", exports_name(format));
    }
    return result;
}

static pyprof_result exports__write_here(const pyprof_profile *profile, const pyprof_output *output,
                                         exports_format format, pyprof_write_fn write, void *user) {
    pyprof_result result;
    exports__error[0] = '\0';
    exports__writing *writing = exports__writing_new(profile, output, write, user, &result);
    if (writing != NULL) {
        result = format == EXPORTS_FORMAT_PSTATS     ? exports__write_pstats(writing, profile)
                 : format == EXPORTS_FORMAT_FIREFOX  ? exports__write_firefox(writing, profile)
                 : format == EXPORTS_FORMAT_PERFETTO ? exports__write_perfetto(writing, profile)
                                                     : exports__write_jsonl(writing, profile);
    }
    return exports__finish(writing, result, format);
}

EXPORTS_API pyprof_result exports_write(const pyprof_profile *profile, const pyprof_output *output,
                                        exports_format format, pyprof_write_fn write, void *user) {
    pyprof_result result = exports__check(profile, output, format, write);
    if (result != PYPROF_OK) {
        return result;
    }
    pyprof_format written_by = exports__info(format)->written_by;
    if (written_by == PYPROF_FORMAT_AUTO) {
        return exports__write_here(profile, output, format, write, user);
    }
    pyprof_output resolved;
    memset(&resolved, 0, sizeof resolved);
    if (output != NULL) {
        resolved = *output;
    }
    resolved.format = written_by;
    return exports__passed_on(pyprof_write(profile, &resolved, write, user));
}

/* ---- pictures --------------------------------------------------------------------------------------------- */

#if defined(FLAMEGRAPH_H)

/* What a line of a function is called. The same function has the same texts, at the same addresses. */
typedef struct exports__drawn {
    const char *name, *path;
    int32_t line;
    uint32_t number; /* of its name, in the graph */
} exports__drawn;

#define EXPORTS__DRAWN_BITS 13

typedef struct exports__picture {
    exports__writing *writing;
    flamegraph *graph;
    exports__drawn *drawn; /* one for each hash, the last one that was drawn; its name is NULL if there is none */
    exports__array frames; /* of each node: its frame in the graph */
    uint64_t samples, samples_idle;
} exports__picture;

/* Adds to writing->scratch what collapsed text has of a text: see FORMATS in pyprof.h. False: no memory. */
static bool exports__gather_collapsed(exports__writing *writing, pyprof_text text) {
    size_t length;
    for (; text.size > 0; text.data += length, text.size -= length) {
        uint32_t c = exports__code_point(text.data, text.size, &length);
        char escaped[8];
        int size = 0;
        if (c == '\\' || c == '\n' || c == '\r' || c == '\t') {
            size = snprintf(escaped, sizeof escaped, "\\%c",
                            c == '\n'   ? 'n'
                            : c == '\r' ? 'r'
                            : c == '\t' ? 't'
                                        : '\\');
        } else if (c == ';' || c < 0x20 || (c >= 0x7f && c < 0xa0)) {
            size = snprintf(escaped, sizeof escaped, "\\x%02x", (unsigned)c);
        } else if (c == 0x2028 || c == 0x2029 || exports__is_surrogate(c)) {
            size = snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)c);
        }
        if (!exports__gather_bytes(writing, size > 0 ? escaped : text.data, size > 0 ? (size_t)size : length)) {
            return false;
        }
    }
    return true;
}

static bool exports__gather_format(exports__writing *writing, const char *format, int32_t number) {
    char text[32];
    int size = snprintf(text, sizeof text, format, (int)number);
    return exports__gather_bytes(writing, text, size > 0 ? (size_t)size : 0);
}

/* A node's name in collapsed text, into writing->scratch. False: no memory. */
static bool exports__gather_name(exports__writing *writing, const pyprof_node *node) {
    writing->scratch.count = 0;
    if (node->parent == PYPROF_NO_NODE) {
        return exports__gather_bytes(writing, "thread ", strlen("thread ")) &&
               exports__gather_collapsed(writing, node->name) &&
               (node->tid == 0 || exports__gather_format(writing, node->name.size > 0 ? " (%d)" : "(%d)", node->tid));
    }
    return exports__gather_collapsed(writing, node->name) &&
           (node->path.size == 0 ||
            (exports__gather_bytes(writing, " (", 2) && exports__gather_collapsed(writing, node->file) &&
             exports__gather_format(writing, ":%d)", node->line > 0 ? node->line : 0)));
}

/* Adds a frame for a node to the graph; FLAMEGRAPH_NONE = no memory. Few functions have many nodes: a name that was made
   for one serves for others. */
static uint32_t exports__add_frame(exports__picture *picture, uint32_t parent, const pyprof_node *node) {
    exports__writing *writing = picture->writing;
    uint64_t hash = (uint64_t)(uintptr_t)node->name.data * UINT64_C(0x9e3779b97f4a7c15);
    hash = (hash ^ (uint64_t)(uintptr_t)node->path.data ^ (uint32_t)node->line) * UINT64_C(0x9e3779b97f4a7c15);
    exports__drawn *drawn = &picture->drawn[hash >> (64 - EXPORTS__DRAWN_BITS)];
    bool is_thread = node->parent == PYPROF_NO_NODE;
    if (is_thread || drawn->name != node->name.data || drawn->path != node->path.data || drawn->line != node->line) {
        uint32_t number =
            exports__gather_name(writing, node)
                ? flamegraph_add_name(picture->graph, (const char *)writing->scratch.data, writing->scratch.count)
                : FLAMEGRAPH_NONE;
        if (number == FLAMEGRAPH_NONE) {
            return number;
        }
        drawn->name = is_thread ? NULL : node->name.data;
        drawn->path = node->path.data;
        drawn->line = node->line;
        drawn->number = number;
    }
    return flamegraph_add_named(picture->graph, parent, drawn->number);
}

/* The frame of a thread's process, where there are several, else the root; FLAMEGRAPH_NONE = no memory. */
static uint32_t exports__add_process(exports__picture *picture, const pyprof_node *node) {
    exports__writing *writing = picture->writing;
    if (!exports__has_process(node)) {
        return FLAMEGRAPH_ROOT;
    }
    return exports__gather_process(writing, node, exports__gather_collapsed)
               ? flamegraph_add_frame(picture->graph, FLAMEGRAPH_ROOT, (const char *)writing->scratch.data,
                                      writing->scratch.count)
               : FLAMEGRAPH_NONE;
}

/* Of pyprof_visitor; user is the exports__picture. Where threads are merged, they are no frame. */
static bool exports__draw_node(void *user, const pyprof_node *node) {
    exports__picture *picture = (exports__picture *)user;
    exports__writing *writing = picture->writing;
    flamegraph_figures own = {node->wall_ns, node->wall_idle_ns, node->cpu_ns,
                              node->gil_ns,  node->samples,      node->samples_idle};
    uint32_t *number = (uint32_t *)exports__push(&picture->frames, 1);
    uint32_t frame = FLAMEGRAPH_ROOT;
    bool is_thread = node->parent == PYPROF_NO_NODE, has_room = number != NULL;
    if (has_room) {
        frame = is_thread ? exports__add_process(picture, node) : EXPORTS__AT(uint32_t, &picture->frames, node->parent);
    }
    if (has_room && frame != FLAMEGRAPH_NONE && !(is_thread && writing->output.merge_threads)) {
        frame = exports__add_frame(picture, frame, node);
    }
    if (!has_room || frame == FLAMEGRAPH_NONE || flamegraph_add_figures(picture->graph, frame, &own) != FLAMEGRAPH_OK) {
        writing->is_full = true;
        return false;
    }
    *number = frame;
    picture->samples += node->samples;
    picture->samples_idle += node->samples_idle;
    return true;
}

/* A flamegraph_write_fn; user is an exports__out. */
static bool exports__put_piece(void *user, const void *data, size_t size) {
    exports__out *out = (exports__out *)user;
    exports__put(out, (const char *)data, size);
    return !out->is_broken;
}

/* Said in a picture that has nothing to show. */
static const char *exports__why_empty(const exports__picture *picture) {
    if (picture->writing->facts.kind == PYPROF_KIND_HEAP) {
        return "Nothing was sampled of what is to be shown: another metric, more samples or no filter shows more.";
    }
    if (picture->samples == 0 && picture->writing->facts.stats.samples > 0) {
        return "Nothing that was recorded passes the filters: leave one out, or look at what it says.";
    }
    if (picture->samples == 0) {
        return "No thread ran Python while it was recorded, or for less than an interval: record for longer, "
               "or with a smaller interval.";
    }
    return picture->samples == picture->samples_idle ? "All threads only waited: with idle time, it is seen where."
                                                     : "Nothing was recorded of what is to be shown: another metric "
                                                       "shows more.";
}

/* What the caller's look says nothing of. The texts live as long as the writing of the picture. */
typedef struct exports__look {
    flamegraph_options options;
    char *program;
    char *python;
    char note[128];
} exports__look;

/* A copy that ends in a zero; NULL = no memory. */
static char *exports__c_text(pyprof_text text) {
    char *copy = (char *)EXPORTS_REALLOC(NULL, text.size + 1);
    if (copy != NULL) {
        memcpy(copy, text.data, text.size);
        copy[text.size] = '\0';
    }
    return copy;
}

static void exports__fill_facts(exports__look *look, const pyprof_facts *facts) {
    flamegraph_facts *to = &look->options.facts;
    to->program = to->program != NULL ? to->program : look->program;
    to->python = to->python != NULL || look->python[0] == '\0' ? to->python : look->python;
    to->date = to->date != 0 ? to->date : (int64_t)(facts->start_ns / 1000000000u);
    to->bytes = facts->sampling_bytes;
    to->seconds = to->seconds > 0 ? to->seconds : (double)facts->duration_ns / 1e9;
    to->rate = to->rate > 0 || facts->interval_us == 0 ? to->rate : 1e6 / facts->interval_us;
    if (to->samples == 0) {
        to->samples = facts->stats.samples;
        to->lost = exports__lost(&facts->stats);
    }
    if (facts->kind == PYPROF_KIND_HEAP) {
        to->seconds = to->rate = 0;
    }
}

/* The note of PYPROF_FORMAT_SVG: where the innermost lines may not be right, as CPython's JIT keeps no others. */
static void exports__fill_note(exports__look *look, const exports__writing *writing) {
    const pyprof_stats *stats = &writing->facts.stats;
    uint64_t busy = stats->samples - stats->samples_idle, jit = stats->samples_jit;
    if (jit > 0 && writing->output.detail == PYPROF_DETAIL_LINE && look->options.subtitle == NULL) {
        snprintf(look->note, sizeof look->note, "%.3g %% in JIT code: innermost lines may be too early there",
                 100 * (double)jit / (double)(busy > jit ? busy : jit));
        look->options.subtitle = look->note;
    }
}

static pyprof_result exports__put_picture(exports__picture *picture, const flamegraph_options *asked) {
    static const flamegraph_metric metrics[] = {FLAMEGRAPH_WALL, FLAMEGRAPH_CPU, FLAMEGRAPH_GIL, FLAMEGRAPH_SAMPLES};
    exports__writing *writing = picture->writing;
    exports__look look;
    memset(&look, 0, sizeof look);
    if (asked != NULL) {
        look.options = *asked;
    }
    look.program = exports__c_text(writing->facts.process);
    look.python = exports__c_text(writing->facts.python);
    if (look.program == NULL || look.python == NULL) {
        EXPORTS_FREE(look.program);
        EXPORTS_FREE(look.python);
        return PYPROF_ERROR_MEMORY;
    }
    look.options.unit = "ns";
    look.options.memory = writing->facts.kind == PYPROF_KIND_HEAP;
    look.options.title = look.options.memory && look.options.title == NULL ? "Memory" : look.options.title;
    look.options.metric = metrics[writing->output.metric];
    look.options.idle = writing->output.include_idle;
    look.options.empty = look.options.empty != NULL ? look.options.empty : exports__why_empty(picture);
    exports__fill_facts(&look, &writing->facts);
    exports__fill_note(&look, writing);
    flamegraph_result result = flamegraph_write(picture->graph, &look.options, exports__put_piece, &writing->out);
    EXPORTS_FREE(look.program);
    EXPORTS_FREE(look.python);
    return result == FLAMEGRAPH_OK || writing->out.is_broken ? PYPROF_OK : PYPROF_ERROR_MEMORY;
}

static pyprof_result exports__draw_all(exports__writing *writing, const pyprof_profile *profile,
                                       const flamegraph_options *look) {
    exports__picture picture;
    pyprof_visitor visitor;
    memset(&picture, 0, sizeof picture);
    memset(&visitor, 0, sizeof visitor);
    picture.writing = writing;
    picture.frames.item_size = sizeof(uint32_t);
    picture.graph = flamegraph_create();
    picture.drawn = (exports__drawn *)EXPORTS_REALLOC(NULL, ((size_t)1 << EXPORTS__DRAWN_BITS) * sizeof *picture.drawn);
    if (picture.graph == NULL || picture.drawn == NULL) {
        flamegraph_free(picture.graph);
        EXPORTS_FREE(picture.drawn);
        return PYPROF_ERROR_MEMORY;
    }
    memset(picture.drawn, 0, ((size_t)1 << EXPORTS__DRAWN_BITS) * sizeof *picture.drawn);
    writing->output.threads_apart = false;
    visitor.node = exports__draw_node;
    visitor.user = &picture;
    pyprof_result result = exports__passed_on(pyprof_visit(profile, &writing->output, &visitor));
    if (result == PYPROF_OK) {
        result = exports__put_picture(&picture, look);
    }
    flamegraph_free(picture.graph);
    EXPORTS_FREE(picture.drawn);
    exports__array_free(&picture.frames);
    return writing->is_full ? PYPROF_ERROR_MEMORY : result;
}

/* The names of all nodes, one behind the other, and where each ends. */
typedef struct exports__names {
    exports__writing *writing;
    exports__array bytes, ends;
} exports__names;

/* Of pyprof_visitor; user is the exports__names. */
static bool exports__name_node(void *user, const pyprof_node *node) {
    exports__names *names = (exports__names *)user;
    exports__array *name = &names->writing->scratch;
    size_t *end = (size_t *)exports__push(&names->ends, 1);
    char *room = end != NULL && exports__gather_name(names->writing, node)
                     ? (char *)exports__push(&names->bytes, name->count)
                     : NULL;
    if (room == NULL) {
        names->writing->is_full = true;
        return false;
    }
    if (name->count > 0) {
        memcpy(room, name->data, name->count);
    }
    *end = names->bytes.count;
    return true;
}

EXPORTS_API pyprof_result exports_name_tree(const pyprof_profile *profile, const pyprof_output *output,
                                            uint32_t node_count, flamegraph *tree, bool *is_named) {
    pyprof_result result;
    pyprof_visitor visitor;
    exports__names names;
    exports__error[0] = '\0';
    memset(&names, 0, sizeof names);
    memset(&visitor, 0, sizeof visitor);
    names.writing = exports__writing_new(profile, output, NULL, NULL, &result);
    names.bytes.item_size = 1;
    names.ends.item_size = sizeof(size_t);
    visitor.node = exports__name_node;
    visitor.user = &names;
    if (names.writing != NULL) {
        result = exports__passed_on(pyprof_visit(profile, &names.writing->output, &visitor));
        result = names.writing->is_full ? PYPROF_ERROR_MEMORY : result;
        exports__writing_free(names.writing);
    }
    *is_named = false;
    if (result == PYPROF_OK && names.ends.count == node_count) {
        flamegraph_result named =
            flamegraph_rename(tree, (const char *)names.bytes.data, (const size_t *)names.ends.data);
        *is_named = named == FLAMEGRAPH_OK;
        result = named == FLAMEGRAPH_NO_MEMORY ? PYPROF_ERROR_MEMORY : PYPROF_OK;
    }
    exports__array_free(&names.bytes);
    exports__array_free(&names.ends);
    return result;
}

EXPORTS_API pyprof_result exports_draw_tree(const pyprof_profile *profile, const pyprof_output *output,
                                            flamegraph *tree, const flamegraph_options *look, pyprof_write_fn write,
                                            void *user) {
    pyprof_result result;
    exports__picture picture;
    memset(&picture, 0, sizeof picture);
    exports__error[0] = '\0';
    picture.writing = exports__writing_new(profile, output, write, user, &result);
    picture.graph = tree;
    picture.samples = tree->all.samples;
    picture.samples_idle = tree->all.samples_idle;
    if (picture.writing != NULL) {
        result = exports__put_picture(&picture, look);
    }
    return exports__finish(picture.writing, result, EXPORTS_FORMAT_SVG);
}

EXPORTS_API pyprof_result exports_draw(const pyprof_profile *profile, const pyprof_output *output,
                                       const flamegraph_options *look, pyprof_write_fn write, void *user) {
    pyprof_result result = exports__check(profile, output, EXPORTS_FORMAT_SVG, write);
    if (result != PYPROF_OK) {
        return result;
    }
    exports__error[0] = '\0';
    exports__writing *writing = exports__writing_new(profile, output, write, user, &result);
    if (writing != NULL) {
        result = exports__draw_all(writing, profile, look);
    }
    return exports__finish(writing, result, EXPORTS_FORMAT_SVG);
}

#endif /* FLAMEGRAPH_H */

#ifdef __cplusplus
}
#endif

#endif /* EXPORTS_IMPLEMENTATION */
