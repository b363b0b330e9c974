/* imports.h: profiles read from files: collapsed text, speedscope's JSON, JSON lines, pprof. For pyprof-convert.c, which
 * has pyprof.h's implementation, and flamegraph.h.
 *
 *     imported of;
 *     if (import_file(profile, "game.pb.gz", NULL, &of) != PYPROF_OK) complain(of.wrong);
 *
 * What a file holds is added to a profile that pyprof_make has made, so that several files may be added to one. Which
 * format it is, its first bytes say, not its name. gzip is undone first, whatever is in it.
 *
 *     bytes --> gzip undone --+--> lines of collapsed text, one at a time    --+
 *                             +--> the whole text: JSON, pprof                --+--> pyprof_add_node, pyprof_add_span
 *
 * What is wrong is told once, in one line: "FILE:LINE: what is wrong", "FILE: byte N: what is wrong"; what was added
 * until then stays in the profile, which the caller drops. The length of everything is checked against what is there,
 * and what a few bytes of a hostile file can ask for is bounded.
 */
#ifndef IMPORTS_H
#define IMPORTS_H

#include "flamegraph.h"
#include "pyprof.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#include "json_reader.h"

/* How to read what a file does not say of itself. */
typedef struct import_options {
    const char *unit; /* of collapsed text: ns, us, ms, s, samples; NULL = us if pyprof wrote it, else samples */
    const char *take; /* the one sample type of a pprof file to take; NULL = those that are ours */
    flamegraph *tree; /* takes the stacks of collapsed text, where the profile then has each frame but once: see
                         exports_name_tree. Few bytes a node. NULL = all goes into the profile */
} import_options;

/* What a file has given. */
typedef struct imported {
    const char *kind;     /* "collapsed text", ...; NULL = not known yet */
    unsigned metrics;     /* a bit for each pyprof_metric that it has, 1 << PYPROF_METRIC_WALL ... */
    bool has_threads;     /* its stacks are threads'; else all are of one, "all threads" */
    bool has_times;       /* it has a time line */
    bool has_tree;        /* its stacks are in import_options.tree */
    bool is_mixed;        /* so it cannot be read into a tree: some stacks are threads', others not, or they are of
                         several processes. It is what is wrong */
    uint32_t first_node;  /* of those of the profile that are its own: they come one after the other */
    uint32_t first_track; /* likewise */
    pyprof_facts facts;   /* its texts are not set, but are in those below */
    char program[4096];
    char process[256];
    char python[64];
    char wrong[1024];
} imported;

/* Adds what a file holds; "-" is standard input. Errors: IO, FORMAT (what is in it is wrong), MEMORY. */
static pyprof_result import_file(pyprof_profile *profile, const char *path, const import_options *options,
                                 imported *into);

#define IMPORT_PIECE (1u << 18)             /* bytes that are read at a time */
#define IMPORT_MOST_BYTES ((size_t)2 << 30) /* of a file that has to be in memory as a whole */
#define IMPORT_MOST_LINE ((size_t)64 << 20) /* bytes of a line of collapsed text */
#define IMPORT_NO_STACK "[no Python frame]" /* what has a value, and no frame */
#define IMPORT_ALL_THREADS "all threads"

/* A thread that has come up; all before node is its key. */
typedef struct import_thread {
    uint64_t hash[2];
    uint64_t process[2]; /* likewise of its process's program */
    int32_t tid;
    int32_t pid;
    uint32_t node; /* its number */
    uint32_t unused;
} import_thread;

/* A node that was found below another one. */
typedef struct import_step {
    uint32_t parent;
    uint32_t frame; /* its number in the file */
    uint32_t node;  /* 0 = there is nothing here */
} import_step;

#define IMPORT_STEP_BITS 18

typedef struct import {
    pyprof_profile *profile;
    const import_options *options;
    imported *into;
    const char *name; /* as messages have it */
    pyprof_result result;
    size_t line;    /* where we are, for messages: in text by lines; 0 = not there */
    bool has_place; /* likewise in other files, at byte `place` */
    size_t place;
    gzFile file;
    char *text; /* what was read and is still needed */
    size_t size, capacity;
    bool has_ended;        /* of the file: text has its last byte */
    pyprof__memory memory; /* of all that follows */
    pyprof__table threads;
    pyprof__array last_frames, last_nodes; /* the last stack: its frames' numbers and nodes, root first */
    uint32_t last_thread;                  /* its node */
    import_step *steps;                    /* the last one of each hash; NULL = none was needed yet */
    uint64_t all[4];                       /* sums of each metric */
    uint64_t all_idle;                     /* of samples */
    bool has_stats;                        /* the file tells the figures of its recording itself */
    flamegraph *tree;                      /* what of nodes and threads' nodes is said here is of its frames; or NULL */
    uint32_t first_thread;                 /* with a tree: the profile's node below which its frames stand */
} import;

/* ---- what is wrong ---- */

static bool import_fail_as(import *in, pyprof_result result, const char *format, va_list values) {
    char place[48] = "", text[700];
    if (in->line > 0) {
        snprintf(place, sizeof place, ":%zu", in->line);
    } else if (in->has_place) {
        snprintf(place, sizeof place, ": byte %zu", in->place);
    }
    vsnprintf(text, sizeof text, format, values);
    if (in->result == PYPROF_OK) {
        snprintf(in->into->wrong, sizeof in->into->wrong, "%.250s%s: %s", in->name, place, text);
        in->result = result;
    }
    return false;
}

/* What is in the file is wrong. Always false; only the first time counts. */
__attribute__((format(printf, 2, 3))) static bool import_fail(import *in, const char *format, ...) {
    va_list values;
    va_start(values, format);
    import_fail_as(in, PYPROF_ERROR_FORMAT, format, values);
    va_end(values);
    return false;
}

/* It is not the file's fault, or none of its places. */
__attribute__((format(printf, 3, 4))) static bool import_give_up(import *in, pyprof_result result, const char *format,
                                                                 ...) {
    va_list values;
    va_start(values, format);
    in->line = 0;
    in->has_place = false;
    import_fail_as(in, result, format, values);
    va_end(values);
    return false;
}

static bool import_no_memory(import *in) {
    return import_give_up(in, PYPROF_ERROR_MEMORY, "out of memory");
}

/* ---- bytes ---- */

static bool import_open(import *in, const char *path) {
    if (strcmp(path, "-") == 0) {
        int copy = dup(STDIN_FILENO);
        in->file = copy >= 0 ? gzdopen(copy, "rb") : NULL;
    } else {
        in->file = gzopen(path, "rb");
    }
    if (in->file == NULL) {
        return import_give_up(in, PYPROF_ERROR_IO, "%s", errno != 0 ? strerror(errno) : "out of memory");
    }
    gzbuffer(in->file, IMPORT_PIECE);
    return true;
}

static bool import_reading_failed(import *in) {
    int code = Z_OK;
    const char *text = gzerror(in->file, &code);
    if (code == Z_ERRNO) {
        return import_give_up(in, PYPROF_ERROR_IO, "%s", strerror(errno));
    }
    return code == Z_MEM_ERROR
               ? import_no_memory(in)
               : import_give_up(in, PYPROF_ERROR_FORMAT, "the gzip file is damaged or ends too early (%s)", text);
}

/* Adds to the text what comes next. */
static bool import_read_more(import *in) {
    if (in->capacity - in->size < IMPORT_PIECE) {
        size_t capacity = in->capacity < IMPORT_PIECE ? 2 * (size_t)IMPORT_PIECE : 2 * in->capacity;
        char *text = (char *)realloc(in->text, capacity);
        if (text == NULL) {
            return import_no_memory(in);
        }
        in->text = text;
        in->capacity = capacity;
    }
    int got = gzread(in->file, in->text + in->size, IMPORT_PIECE);
    int code = Z_OK;
    if (got == 0) {
        (void)gzerror(in->file, &code); /* a gzip file that ends in its middle is told only so */
    }
    if (got < 0 || (code != Z_OK && code != Z_STREAM_END)) {
        return import_reading_failed(in);
    }
    in->size += (size_t)got;
    in->has_ended = got == 0;
    return true;
}

static bool import_read_all(import *in) {
    while (!in->has_ended) {
        if (in->size > IMPORT_MOST_BYTES) {
            return import_fail(in, "it is larger than 2 GiB, which is more than can be read of this format");
        }
        if (!import_read_more(in)) {
            return false;
        }
    }
    return true;
}

/* ---- into the profile ---- */

/* Adds an item to a list, NULL = no memory. */
static void *import_add(import *in, pyprof__array *array) {
    uint32_t index = pyprof__array_add(&in->memory, array);
    if (index == PYPROF__NONE) {
        (void)import_no_memory(in);
        return NULL;
    }
    return (char *)array->data + (size_t)index * array->item_size;
}

/* Adds to a sum that must fit in 63 bits, as our formats write no more. */
static bool import_add_up(import *in, uint64_t *sum, uint64_t value) {
    *sum += value;
    return (value <= INT64_MAX && *sum <= INT64_MAX) || import_fail(in, "the sum of all values exceeds 63 bits");
}

static bool import_count(import *in, const pyprof_node *node) {
    return import_add_up(in, &in->all[PYPROF_METRIC_WALL], node->wall_ns) &&
           import_add_up(in, &in->all[PYPROF_METRIC_CPU], node->cpu_ns) &&
           import_add_up(in, &in->all[PYPROF_METRIC_GIL], node->gil_ns) &&
           import_add_up(in, &in->all[PYPROF_METRIC_SAMPLES], node->samples) &&
           import_add_up(in, &in->all_idle, node->samples_idle);
}

/* A line of a function. */
typedef struct import_frame {
    uint32_t function; /* of the profile */
    int32_t line;      /* 0 = none is known */
} import_frame;

static pyprof_text import_text(const char *data, size_t size) {
    pyprof_text text = {data, size};
    return text;
}

/* What has no path is a marker, and has no line. Texts are copied. */
static bool import_make_frame(import *in, pyprof_text name, pyprof_text path, uint64_t line, uint64_t first_line,
                              import_frame *frame) {
    bool has_line = path.size > 0;
    uint32_t file = pyprof__intern_given(in->profile, path);
    frame->function = pyprof__intern_function(in->profile, pyprof__intern_given(in->profile, name), file,
                                              has_line && first_line <= INT32_MAX ? (int32_t)first_line : 0);
    frame->line = has_line && line <= INT32_MAX ? (int32_t)line : 0;
    return frame->function != PYPROF__NONE || import_no_memory(in);
}

/* Adds figures to the node for a frame below another node, which is made if it is new: as pyprof_add_node, for which each
   text would have to be looked up each time. */
static bool import_child(import *in, uint32_t parent, const import_frame *frame, const pyprof_node *figures,
                         uint32_t *number) {
    *number = pyprof__vital_child(in->profile, parent, frame->function, frame->line);
    if (*number == PYPROF__NONE) {
        return import_no_memory(in);
    }
    pyprof__node *node = pyprof__node_at(in->profile, *number);
    node->track = pyprof__node_at(in->profile, parent)->track;
    if (figures != NULL) {
        node->samples += figures->samples;
        node->samples_idle += figures->samples_idle;
        node->wall_ns += figures->wall_ns;
        node->wall_idle_ns += figures->wall_idle_ns;
        node->cpu_ns += figures->cpu_ns;
        node->gil_ns += figures->gil_ns;
    }
    return true;
}

/* As import_child, in the tree. *word: the number of the frame's name there; 0 = it is not known yet. */
static bool import_tree_child(import *in, uint32_t parent, const import_frame *frame, const pyprof_node *figures,
                              uint32_t *word, uint32_t *number) {
    if (*word == 0) {
        uint32_t name;
        if (!import_child(in, in->first_thread, frame, NULL, &name)) {
            return false;
        }
        *word = flamegraph_add_name(in->tree, (const char *)&name, sizeof name);
    }
    *number = *word != FLAMEGRAPH_NONE ? flamegraph_add_named(in->tree, parent, *word) : FLAMEGRAPH_NONE;
    if (*number == FLAMEGRAPH_NONE) {
        return import_no_memory(in);
    }
    if (figures == NULL) {
        return true;
    }
    flamegraph_figures own = {.wall = figures->wall_ns, .samples = figures->samples};
    return flamegraph_add_figures(in->tree, *number, &own) == FLAMEGRAPH_OK || import_no_memory(in);
}

/* Gives a new thread its frame in the tree, and what its profile's root has below it; if all stacks are of one that the
   file does not name, it is no frame. */
static bool import_tree_thread(import *in, uint32_t root, uint32_t *number) {
    const import_frame truncated = {in->profile->truncated, 0};
    uint32_t word = 0, below;
    bool is_first = in->threads.items.count == 1;
    in->first_thread = is_first ? root : in->first_thread;
    *number = in->into->has_threads ? flamegraph_add_frame(in->tree, FLAMEGRAPH_ROOT, (const char *)&root, sizeof root)
                                    : FLAMEGRAPH_ROOT;
    if (*number == FLAMEGRAPH_NONE) {
        return import_no_memory(in);
    }
    return import_tree_child(in, *number, &truncated, NULL, &word, &below);
}

/* A thread of its own. A tree has no place for its process: the file has to be read without one. */
static bool import_add_thread(import *in, pyprof_node node, uint32_t *number) {
    node.parent = PYPROF_NO_NODE;
    if (in->tree != NULL && (node.process.size > 0 || node.pid > 0)) {
        in->into->is_mixed = true;
        return import_fail(in, "its stacks are of several processes");
    }
    return pyprof_add_node(in->profile, &node, number) == PYPROF_OK || import_no_memory(in);
}

static bool import_span(import *in, const pyprof_span *span) {
    pyprof_result result = pyprof_add_span(in->profile, span);
    if (result == PYPROF_ERROR_MEMORY) {
        return import_no_memory(in);
    }
    return result == PYPROF_OK || import_fail(in, "%s", pyprof_last_error());
}

/* The node of the file's thread of this name and id (0 = none) in this process, which is made by its first stack. */
static bool import_find_thread(import *in, const pyprof_node *thread, uint32_t *number) {
    import_thread key = {{0, 0}, {0, 0}, thread->tid, thread->pid, 0, 0};
    bool is_new;
    pyprof__hash_text(thread->name.data, thread->name.size, key.hash);
    pyprof__hash_text(thread->process.data, thread->process.size, key.process);
    uint32_t index = pyprof__table_intern(&in->memory, &in->threads, &key, &is_new);
    if (index == PYPROF__NONE) {
        return import_no_memory(in);
    }
    if (is_new) {
        if (!import_add_thread(in, *thread, number) || (in->tree != NULL && !import_tree_thread(in, *number, number))) {
            return false;
        }
        PYPROF__ITEM(import_thread, &in->threads.items, index).node = *number;
    }
    *number = PYPROF__ITEM(import_thread, &in->threads.items, index).node;
    return true;
}

/* Forgets what of the last stack lies below depth, and makes room for more below it. */
static bool import_cut_stack(import *in, size_t depth, size_t more) {
    in->last_frames.count = in->last_nodes.count = (uint32_t)depth;
    return (pyprof__array_reserve(&in->memory, &in->last_frames, depth + more) &&
            pyprof__array_reserve(&in->memory, &in->last_nodes, depth + more)) ||
           import_no_memory(in);
}

/* What has a value, and no frame. */
static bool import_bare_thread(import *in, uint32_t thread, const pyprof_node *figures, uint32_t *leaf) {
    import_frame frame;
    uint32_t word = 0;
    return import_make_frame(in, import_text(IMPORT_NO_STACK, sizeof IMPORT_NO_STACK - 1), import_text("", 0), 0, 0,
                             &frame) &&
           (in->tree != NULL ? import_tree_child(in, thread, &frame, figures, &word, leaf)
                             : import_child(in, thread, &frame, figures, leaf));
}

/* As import_child, for a frame of the file that has a number. Most steps of stacks were gone before: one look at what was
   found then costs less than the search in a large tree. */
static bool import_step_down(import *in, uint32_t parent, const import_frame *frames, uint32_t number,
                             const pyprof_node *figures, uint32_t *node) {
    uint64_t hash = ((uint64_t)parent << 32 | number) * 0x9e3779b97f4a7c15u;
    import_step *step = &in->steps[hash >> (64 - IMPORT_STEP_BITS)];
    if (figures == NULL && step->node != 0 && step->parent == parent && step->frame == number) {
        *node = step->node;
        return true;
    }
    if (!import_child(in, parent, &frames[number], figures, node)) {
        return false;
    }
    *step = (import_step){parent, number, *node};
    return true;
}

/* Adds figures to a stack of frames below a thread. What it shares with the last stack is there already. stack: which of
   the frames they are, root first. *leaf: the node in which the stack ends. */
static bool import_stack(import *in, uint32_t thread, const import_frame *frames, const uint32_t *stack, size_t depth,
                         const pyprof_node *figures, uint32_t *leaf) {
    size_t same = 0;
    const uint32_t *last = (const uint32_t *)in->last_frames.data;
    if (!import_count(in, figures)) {
        return false;
    }
    if (depth == 0) {
        return import_bare_thread(in, thread, figures, leaf);
    }
    while (thread == in->last_thread && same < depth - 1 && same < in->last_frames.count && last[same] == stack[same]) {
        same++;
    }
    if (!import_cut_stack(in, same, depth - same)) {
        return false;
    }
    if (in->steps == NULL) {
        in->steps = (import_step *)calloc((size_t)1 << IMPORT_STEP_BITS, sizeof *in->steps);
    }
    if (in->steps == NULL) {
        return import_no_memory(in);
    }
    uint32_t *nodes = (uint32_t *)in->last_nodes.data;
    in->last_thread = thread;
    for (size_t i = same; i < depth; i++) {
        const pyprof_node *own = i + 1 == depth ? figures : NULL;
        if (!import_step_down(in, i == 0 ? thread : nodes[i - 1], frames, stack[i], own, &nodes[i])) {
            return false;
        }
        ((uint32_t *)in->last_frames.data)[i] = stack[i];
        in->last_frames.count = in->last_nodes.count = (uint32_t)i + 1;
    }
    *leaf = nodes[depth - 1];
    return true;
}

/* Adds value to one metric of figures. */
static void import_set(pyprof_node *figures, unsigned metric, uint64_t value) {
    uint64_t *of[] = {&figures->wall_ns, &figures->cpu_ns, &figures->gil_ns, &figures->samples};
    *of[metric] += value;
}

/* 10^answer nanoseconds are one; -1 = it is no unit of time. */
static int import_unit(const char *text, size_t size) {
    static const char *const names[4][2] = {
        {"ns", "nanoseconds"}, {"us", "microseconds"}, {"ms", "milliseconds"}, {"s", "seconds"}};
    for (int i = 0; i < 8; i++) {
        const char *name = names[i / 2][i % 2];
        if (strlen(name) == size && memcmp(name, text, size) == 0) {
            return 3 * (i / 2);
        }
    }
    return -1;
}

/* ---- collapsed text ---- */

/* A text of a frame that has come up; its hash is the key. */
typedef struct import_known {
    uint64_t hash[2];
    import_frame frame;
    uint32_t word; /* with a tree: see import_tree_child */
} import_known;

#define IMPORT_RECENT_BITS 14

/* A text of which the stacks are read, with what is kept of the last one: its bytes, and where in them its thread and its
   frames end; in->last_nodes has their nodes, the thread's first. */
typedef struct import_collapsed {
    bool is_ours;      /* each stack begins with "thread NAME"; names are escaped */
    bool is_unchecked; /* the caller has said what the values are */
    int exponent;      /* see import_unit; -1 = samples */
    pyprof__array stack, ends;
    pyprof__array name;   /* room for a name without its escapes */
    pyprof__table frames; /* import_known: each text of a frame is taken apart once */
    uint32_t *recent;     /* of these, the last one that had the hash; often it is the next */
    size_t stacks, pairs;
} import_collapsed;

/* Two hashes of different kinds: that two texts agree in both is not reckoned with. */
static void import_hash(const char *text, size_t size, uint64_t hash[2]) {
    uint64_t word = 0;
    hash[0] = size;
    hash[1] = ~(uint64_t)size;
    for (; size >= sizeof word; text += sizeof word, size -= sizeof word) {
        memcpy(&word, text, sizeof word);
        hash[0] = pyprof__mix(hash[0], word);
        hash[1] = ((hash[1] ^ word) * 0xff51afd7ed558ccdu) ^ (hash[1] >> 32);
    }
    word = 0;
    memcpy(&word, text, size);
    hash[0] = pyprof__mix(hash[0], word);
    hash[1] = ((hash[1] ^ word) * 0xff51afd7ed558ccdu) ^ (hash[1] >> 32);
}

/* The end of the frames that stand for what runs: "thread NAME", maybe below py-spy's "process NAME"; 0 = none. */
static size_t import_root_end(const char *stack, size_t size) {
    const char *stop = (const char *)memchr(stack, ';', size);
    size_t end = stop != NULL ? (size_t)(stop - stack) : size, inner = 0;
    if (*stack == 'p' && flamegraph_is_named(stack, end, "process ")) {
        inner = end < size ? import_root_end(stack + end + 1, size - end - 1) : 0;
        return inner > 0 ? end + 1 + inner : end;
    }
    return *stack == 't' && flamegraph_is_thread(stack, end) ? end : 0;
}

/* Where in these the thread's frame begins: behind that of its process. */
static size_t import_thread_start(const char *stack, size_t root) {
    const char *stop = root > 0 && *stack == 'p' ? (const char *)memchr(stack, ';', root) : NULL;
    return stop != NULL ? (size_t)(stop - stack) + 1 : 0;
}

static bool import_is_ours(const char *stack, size_t root) {
    size_t thread = import_thread_start(stack, root);
    return root > 0 && stack[thread] == 't' && !flamegraph_is_thread_id(stack + thread, root - thread);
}

/* Undoes what pyprof escapes: \\ \n \r \t \xHH \uHHHH. */
static size_t import_unescape(const char *text, size_t size, char *out) {
    static const char letters[] = "\\nrt", meant[] = "\\\n\r\t";
    const char *end = text + size;
    char *start = out;
    while (text < end) {
        const char *letter = *text == '\\' && text + 1 < end && text[1] != '\0' ? strchr(letters, text[1]) : NULL;
        size_t digits = *text == '\\' && text + 1 < end ? (text[1] == 'x' ? 2u : text[1] == 'u' ? 4u : 0) : 0;
        bool is_hex = digits > 0 && (size_t)(end - text) >= digits + 2;
        for (size_t i = 0; is_hex && i < digits; i++) {
            is_hex = json_is_hex(text[2 + i]);
        }
        if (letter != NULL) {
            *out++ = meant[letter - letters];
            text += 2;
        } else if (is_hex) {
            char hex[5] = {0};
            memcpy(hex, text + 2, digits);
            out += json_put_utf8((uint32_t)strtoul(hex, NULL, 16), out);
            text += 2 + digits;
        } else {
            *out++ = *text++;
        }
    }
    return (size_t)(out - start);
}

/* Takes "name (file.py:LINE)" apart, also without ":LINE", where the file looks like one. The text stays as it is where
   it is nothing of the kind. */
static void import_split_frame(const char *text, size_t size, pyprof_node *node) {
    size_t end = size - 1, open, colon;
    uint64_t line = 0;
    node->name = import_text(text, size);
    if (size < 5 || text[end] != ')') {
        return;
    }
    for (open = end; open > 1 && !(text[open] == '(' && text[open - 1] == ' '); open--) {
    }
    for (colon = end; colon > open && text[colon - 1] >= '0' && text[colon - 1] <= '9'; colon--) {
        line = colon > end - 9 ? line : 0;
    }
    bool has_line = colon < end && end - colon < 10 && text[colon - 1] == ':' && colon - 1 > open + 1;
    size_t file_end = has_line ? colon - 1 : end;
    bool is_file = has_line || (file_end > open + 4 && memcmp(text + file_end - 3, ".py", 3) == 0) ||
                   (text[open + 1] == '<' && text[end - 1] == '>');
    if (open <= 1 || !is_file) {
        return;
    }
    for (size_t i = colon; has_line && i < end; i++) {
        line = line * 10 + (uint64_t)(text[i] - '0');
    }
    node->name.size = open - 1;
    node->path = import_text(text + open + 1, file_end - open - 1);
    node->line = line <= INT32_MAX ? (int32_t)line : 0;
}

static bool import_is_blank(const char *text, size_t size) {
    while (size > 0 && flamegraph_is_blank(text[size - 1])) {
        size--;
    }
    return size == 0;
}

static size_t import_frame_number(const char *stack, size_t from) {
    size_t number = 1;
    for (size_t i = 0; i < from; i++) {
        number += stack[i] == ';';
    }
    return number;
}

static bool import_parse_frame(import *in, import_collapsed *of, const char *text, size_t size, import_frame *frame) {
    pyprof_node node = {0};
    import_split_frame(text, size, &node);
    if (of->is_ours && memchr(text, '\\', size) != NULL) {
        char *room = (char *)of->name.data;
        size_t used = import_unescape(node.name.data, node.name.size, room);
        node.path.size = import_unescape(node.path.data, node.path.size, room + used);
        node.path.data = room + used;
        node.name = import_text(room, used);
    }
    return import_make_frame(in, node.name, node.path, (uint64_t)node.line, 0, frame);
}

/* What is known of a text of a frame; NULL = no memory. */
static import_known *import_find_frame(import *in, import_collapsed *of, const char *text, size_t size, bool *is_new) {
    import_known key = {{0, 0}, {0, 0}, 0};
    import_hash(text, size, key.hash);
    uint32_t *recent = &of->recent[key.hash[0] >> (64 - IMPORT_RECENT_BITS)];
    *is_new = false;
    if (*recent < of->frames.items.count) {
        import_known *known = &PYPROF__ITEM(import_known, &of->frames.items, *recent);
        if (known->hash[0] == key.hash[0] && known->hash[1] == key.hash[1]) {
            return known;
        }
    }
    uint32_t index = pyprof__table_intern(&in->memory, &of->frames, &key, is_new);
    if (index == PYPROF__NONE) {
        (void)import_no_memory(in);
        return NULL;
    }
    *recent = index;
    return &PYPROF__ITEM(import_known, &of->frames.items, index);
}

/* Adds one frame, which stands at [from, to) of the stack, below the last node. */
static bool import_add_frame(import *in, import_collapsed *of, const char *stack, size_t from, size_t to,
                             const pyprof_node *figures) {
    uint32_t depth = in->last_nodes.count, *nodes = (uint32_t *)in->last_nodes.data;
    bool is_new;
    import_known *item = import_find_frame(in, of, stack + from, to - from, &is_new);
    if (item == NULL) {
        return false;
    }
    import_frame *frame = &item->frame;
    if (is_new && import_is_blank(stack + from, to - from)) {
        return import_fail(in, "frame %zu of the stack is empty", import_frame_number(stack, from));
    }
    if (is_new && !import_parse_frame(in, of, stack + from, to - from, frame)) {
        return false;
    }
    if (!(in->tree != NULL ? import_tree_child(in, nodes[depth - 1], frame, figures, &item->word, &nodes[depth])
                           : import_child(in, nodes[depth - 1], frame, figures, &nodes[depth]))) {
        return false;
    }
    ((uint32_t *)of->ends.data)[depth] = (uint32_t)to;
    in->last_nodes.count = depth + 1;
    return true;
}

/* What pyprof's frame "process 4711 (worker.py)" tells; "*" in the place of the id stands for several. name: room for the
   program's. */
static void import_process(const char *frame, size_t size, char *name, pyprof_node *thread) {
    const char *at = frame + strlen("process ");
    const char *open = (const char *)memchr(at, '(', size - (size_t)(at - frame));
    for (; *at >= '0' && *at <= '9' && thread->pid <= INT32_MAX / 10 - 1; at++) {
        thread->pid = 10 * thread->pid + (*at - '0');
    }
    thread->process = import_text(name, 0);
    if (open != NULL && frame[size - 1] == ')') {
        thread->process.size = import_unescape(open + 1, size - (size_t)(open - frame) - 2, name);
    }
}

/* The thread's node, of whose name "thread " is no part. */
static bool import_add_root(import *in, import_collapsed *of, const char *stack, size_t root) {
    char *name = (char *)of->name.data;
    pyprof_node thread = {.is_named = true};
    size_t process = of->is_ours ? import_thread_start(stack, root) : 0;
    size_t skipped = root > 0 && stack[process] == 't' ? process + 7 : 0, size = 0;
    if (root == 0) {
        size = sizeof IMPORT_ALL_THREADS - 1;
        memcpy(name, IMPORT_ALL_THREADS, size);
    } else if (of->is_ours) {
        size = import_unescape(stack + skipped, root - skipped, name);
        if (process > 0) {
            import_process(stack, process - 1, name + size, &thread);
        }
    } else {
        size = root - skipped;
        memcpy(name, stack + skipped, size);
    }
    in->into->is_mixed = in->tree != NULL && in->threads.items.count > 0 && in->into->has_threads != (root > 0);
    if (in->into->is_mixed) {
        return import_fail(in, "some stacks are of threads, others not");
    }
    in->into->has_threads = in->into->has_threads || root > 0;
    ((uint32_t *)of->ends.data)[0] = (uint32_t)root;
    in->last_nodes.count = 1;
    thread.name = import_text(name, size);
    return import_find_thread(in, &thread, (uint32_t *)in->last_nodes.data);
}

/* How many bytes two stacks begin with alike. */
static size_t import_common(const char *one, const char *other, size_t size) {
    size_t at = 0;
    for (; at + sizeof(uint64_t) <= size; at += sizeof(uint64_t)) {
        uint64_t first, second;
        memcpy(&first, one + at, sizeof first);
        memcpy(&second, other + at, sizeof second);
        if (first != second) {
            return at + (size_t)__builtin_ctzll(first ^ second) / 8;
        }
    }
    while (at < size && one[at] == other[at]) {
        at++;
    }
    return at;
}

/* How much of the last stack stays: whole frames, but never the last one, which has to get figures. */
static uint32_t import_same_frames(const import *in, const import_collapsed *of, const char *stack, size_t size,
                                   size_t root) {
    const uint32_t *ends = (const uint32_t *)of->ends.data;
    size_t shorter = size < of->stack.count ? size : of->stack.count;
    size_t common = import_common(stack, (const char *)of->stack.data, shorter);
    uint32_t same = 0;
    if (in->last_nodes.count == 0 || ends[0] != root || common < root) {
        return 0;
    }
    for (same = 1;
         same < in->last_nodes.count && ends[same] <= common && ends[same] < size && stack[ends[same]] == ';';) {
        same++;
    }
    return same;
}

/* Room for a stack of this size, in all that is kept of it. */
static bool import_reserve_line(import *in, import_collapsed *of, size_t size, uint32_t kept) {
    return (pyprof__array_reserve(&in->memory, &of->stack, size + 1) &&
            pyprof__array_reserve(&in->memory, &of->name, size + sizeof IMPORT_ALL_THREADS) &&
            pyprof__array_reserve(&in->memory, &of->ends, size / 2 + 3) && import_cut_stack(in, kept, size / 2 + 3)) ||
           import_no_memory(in);
}

/* Adds a stack, root first, and its value. */
static bool import_collapsed_stack(import *in, import_collapsed *of, const char *stack, size_t size, size_t root,
                                   const pyprof_node *figures) {
    uint32_t kept = import_same_frames(in, of, stack, size, root);
    of->ends.count = in->last_nodes.count;
    if (!import_reserve_line(in, of, size, kept) || (kept == 0 && !import_add_root(in, of, stack, root))) {
        return false;
    }
    size_t at = ((uint32_t *)of->ends.data)[in->last_nodes.count - 1];
    at += in->last_nodes.count > 1 || root > 0;
    for (size_t end = 0; end < size; at = end + 1) {
        const char *stop = (const char *)memchr(stack + at, ';', size - at);
        end = stop != NULL ? (size_t)(stop - stack) : size;
        if (!import_add_frame(in, of, stack, at, end, end == size ? figures : NULL)) {
            return false;
        }
    }
    memcpy(of->stack.data, stack, size);
    of->stack.count = (uint32_t)size;
    return true;
}

/* The value, which stands behind the last blank. */
static bool import_collapsed_value(import *in, import_collapsed *of, const char *text, size_t size, uint64_t *value) {
    const char *at = text, *end = text + size;
    char shown[40];
    flamegraph_quote(shown, sizeof shown, text, size);
    const char *wrong = json_decimal(&at, end, of->exponent < 0 ? 0 : of->exponent, value);
    if (wrong == NULL && at == end && of->exponent < 0 && memchr(text, '.', size) != NULL) {
        return import_fail(in, "the value %s is no whole number of samples: if it is a time, say which by --unit",
                           shown);
    }
    if (size > 1 && *text == '-') {
        return import_fail(in, "the value %s is negative: a profile has amounts, not differences", shown);
    }
    return (wrong == NULL && at == end) ||
           import_fail(in,
                       wrong == JSON_TOO_LARGE ? "the value %s does not fit in 64 bits"
                                               : "the line ends with '%s', not with a number",
                       shown);
}

/* What begins otherwise than the lines before cannot be of the same unit. */
static bool import_check_root(import *in, const import_collapsed *of, const char *stack, size_t root) {
    if (of->is_unchecked) {
        return true;
    }
    if (of->is_ours && root == 0) {
        return import_fail(in,
                           "this stack begins with no 'thread NAME', others do: are values us or samples? Say it by "
                           "--unit");
    }
    return of->is_ours || !import_is_ours(stack, root) ||
           import_fail(in, "this stack begins with 'thread NAME', others do not: are values us or samples? Say it by "
                           "--unit");
}

/* A stack without a frame. */
static bool import_bare_root(import *in, import_collapsed *of, const char *stack, size_t root,
                             const pyprof_node *figures) {
    uint32_t leaf;
    if (!import_reserve_line(in, of, root, 0) || !import_add_root(in, of, stack, root)) {
        return false;
    }
    in->last_nodes.count = 0;
    return import_bare_thread(in, ((uint32_t *)in->last_nodes.data)[0], figures, &leaf);
}

/* A line of collapsed text without what ends it. */
static bool import_collapsed_line(import *in, import_collapsed *of, const char *text, size_t size) {
    uint64_t value = 0;
    pyprof_node figures = {0};
    size_t blank = flamegraph_word_start(text, size);
    if (memchr(text, '\0', size) != NULL || memchr(text, '\r', size) != NULL) {
        return import_fail(in, "a NUL byte or a carriage return is in the line: this is no collapsed text");
    }
    if (!import_collapsed_value(in, of, text + blank, size - blank, &value)) {
        return false;
    }
    size_t stack = blank > 0 ? blank - 1 : 0;
    size_t root = stack > 0 ? import_root_end(text, stack) : 0;
    if (blank == 0) {
        return import_fail(in, "no stack stands before the value");
    }
    import_set(&figures, of->exponent < 0 ? PYPROF_METRIC_SAMPLES : PYPROF_METRIC_WALL, value);
    of->stacks++;
    of->pairs += flamegraph_ends_with_number(text, stack) && root < stack;
    if (!import_check_root(in, of, text, root) || !import_count(in, &figures)) {
        return false;
    }
    return root == stack ? import_bare_root(in, of, text, root, &figures)
                         : import_collapsed_stack(in, of, text, stack, root, &figures);
}

/* The line at *text without what ends it; blank ones, and comments, are of size 0. */
static size_t import_trim_line(const char **text, size_t size) {
    while (flamegraph_is_mark(*text, size)) {
        *text += 3;
        size -= 3;
    }
    size -= size > 0 && (*text)[size - 1] == '\r';
    while (size > 0 && flamegraph_is_blank((*text)[size - 1])) {
        size--;
    }
    return size > 0 && (*text)[0] == '#' && (size == 1 || (*text)[1] == ' ') ? 0 : size;
}

/* Who wrote the text: the first stack of which that can be told says it for all, see import_check_root. */
static bool import_looks_ours(const char *text, size_t size) {
    for (size_t at = 0, length; at < size; at += length + 1) {
        const char *stop = (const char *)memchr(text + at, '\n', size - at), *line = text + at;
        length = stop != NULL ? (size_t)(stop - line) : size - at;
        size_t trimmed = import_trim_line(&line, length), blank = flamegraph_word_start(line, trimmed);
        size_t stack = blank > 0 ? blank - 1 : 0, root = stack > 0 ? import_root_end(line, stack) : 0;
        if (stack > 0 && (root == 0 || !flamegraph_is_thread_id(line, root))) {
            return import_is_ours(line, root);
        }
    }
    return false;
}

/* All lines that are in the text as a whole, or at its end all; those are then dropped from it. */
static bool import_lines(import *in, import_collapsed *of) {
    size_t at = 0;
    while (at < in->size) {
        const char *stop = (const char *)memchr(in->text + at, '\n', in->size - at);
        if (stop == NULL && !in->has_ended) {
            break;
        }
        size_t size = stop != NULL ? (size_t)(stop - in->text) - at : in->size - at;
        in->line++;
        const char *line = in->text + at;
        size_t length = import_trim_line(&line, size);
        if (length > 0 && !import_collapsed_line(in, of, line, length)) {
            return false;
        }
        at += size + (stop != NULL);
    }
    at = at < in->size ? at : in->size;
    memmove(in->text, in->text + at, in->size - at);
    in->size -= at;
    return in->size < IMPORT_MOST_LINE || import_fail(in, "a line is longer than 64 MiB");
}

static bool import_collapsed_text(import *in) {
    const char *unit = in->options->unit;
    import_collapsed of = {
        .stack = {.item_size = 1}, .name = {.item_size = 1}, .ends = {.item_size = sizeof(uint32_t)}};
    pyprof__table_init(&of.frames, sizeof(import_known), offsetof(import_known, frame));
    of.recent = (uint32_t *)calloc((size_t)1 << IMPORT_RECENT_BITS, sizeof *of.recent);
    in->tree = in->options->tree;
    in->into->has_tree = in->tree != NULL;
    of.is_ours = import_looks_ours(in->text, in->size);
    of.is_unchecked = unit != NULL;
    of.exponent = unit != NULL ? import_unit(unit, strlen(unit)) : of.is_ours ? import_unit("us", 2) : -1;
    bool is_good = of.recent != NULL ? import_lines(in, &of) : import_no_memory(in);
    while (is_good && !in->has_ended) {
        is_good = import_read_more(in) && import_lines(in, &of);
    }
    if (is_good && of.stacks > 0 && of.stacks == of.pairs) {
        in->line = 0;
        is_good = import_fail(in, "each line has two values, as difffolded.pl writes them: convert the two files by "
                                  "--diff instead");
    }
    free(of.recent);
    pyprof__table_free(&in->memory, &of.frames);
    pyprof__array_free(&in->memory, &of.stack);
    pyprof__array_free(&in->memory, &of.ends);
    pyprof__array_free(&in->memory, &of.name);
    in->into->metrics = 1u << (of.exponent < 0 ? PYPROF_METRIC_SAMPLES : PYPROF_METRIC_WALL);
    return is_good;
}

/* ---- JSON ---- */

/* Says what is wrong where the reader stands. */
static bool import_json_failed(import *in, const json_reader *json) {
    in->has_place = true;
    in->place = (size_t)(json->at - json->start);
    return import_fail(in, "%s", json->wrong != NULL ? json->wrong : "this is not what is expected here");
}

/* A string without its escapes. They are undone in the file's own bytes, which nobody reads again; the text lives as
   long as they do. */
static bool import_json_text(import *in, json_reader *json, pyprof_text *text) {
    json_text read;
    if (!json_string(json, &read)) {
        return false;
    }
    char *own = in->text + (read.data - in->text);
    *text = import_text(own, read.has_escapes ? json_decode(&read, own) : read.size);
    return true;
}

/* A number that counts or names something; what is none, as null, is 0. */
static bool import_json_line(json_reader *json, int32_t *line) {
    uint64_t value = 0;
    char first = json_peek(json);
    bool is_number = first >= '0' && first <= '9';
    bool is_good = is_number ? json_number(json, 0, &value) : json_skip(json);
    *line = value <= INT32_MAX ? (int32_t)value : 0;
    return is_good;
}

/* ---- speedscope: https://github.com/jlfwong/speedscope, src/lib/file-format-spec.ts ---- */

typedef struct import_speedscope {
    pyprof__array frames; /* import_frame */
    pyprof__array stack;  /* of frames' numbers, root first */
    unsigned metric;
    int exponent; /* see import_unit; -1 = samples */
    bool has_unit, has_origin;
    uint64_t origin; /* where the first profile begins */
    /* Of the profile that is being read: */
    pyprof_text name, type, unit;
    json_reader start, samples, weights, events; /* where they stand; start of them NULL = nowhere */
    uint32_t thread;                             /* its node */
    uint64_t now;                                /* nanoseconds since the origin */
} import_speedscope;

static bool import_is(const pyprof_text *text, const char *word) {
    return strlen(word) == text->size && memcmp(text->data, word, text->size) == 0;
}

static bool import_speedscope_frame(import *in, import_speedscope *of, json_reader *json) {
    pyprof_text name = {NULL, 0}, path = {NULL, 0};
    int32_t line = 0;
    json_text key;
    for (json_enter(json, '{'); json_next(json, '}');) {
        bool is_known = json_key(json, &key);
        if (is_known && json_is(&key, "name")) {
            (void)import_json_text(in, json, &name);
        } else if (is_known && json_is(&key, "file") && json_peek(json) == '"') {
            (void)import_json_text(in, json, &path);
        } else if (is_known && json_is(&key, "line")) {
            (void)import_json_line(json, &line);
        } else {
            (void)json_skip(json);
        }
    }
    if (name.data == NULL) {
        (void)json_fail(json, "a frame has no name");
    }
    import_frame *frame = json->wrong == NULL ? (import_frame *)import_add(in, &of->frames) : NULL;
    return frame != NULL && import_make_frame(in, name, path, (uint64_t)line, 0, frame);
}

static bool import_speedscope_frames(import *in, import_speedscope *of, json_reader json) {
    json_text key;
    for (json_enter(&json, '{'); json_next(&json, '}');) {
        if (!json_key(&json, &key) || !json_is(&key, "frames")) {
            (void)json_skip(&json);
            continue;
        }
        of->frames.count = 0;
        for (json_enter(&json, '['); json_next(&json, ']');) {
            if (!import_speedscope_frame(in, of, &json)) {
                break;
            }
        }
    }
    return in->result == PYPROF_OK && (json.wrong == NULL || import_json_failed(in, &json));
}

/* The stack had this value, and then another one followed. */
static bool import_speedscope_moment(import *in, import_speedscope *of, uint64_t value) {
    pyprof_node figures = {0};
    pyprof_span span = {.start_ns = of->now};
    bool is_time = of->exponent >= 0;
    if (value == 0) {
        return true;
    }
    if (of->now > INT64_MAX - (value > INT64_MAX ? INT64_MAX : value)) {
        return import_fail(in, "the times of a profile exceed 63 bits");
    }
    of->now += is_time ? value : 0;
    if (of->stack.count == 0) {
        return true;
    }
    import_set(&figures, of->metric, value);
    span.wall_ns = is_time ? value : 0;
    span.samples = is_time ? 0 : (uint32_t)pyprof__min64(value, UINT32_MAX);
    if (!import_stack(in, of->thread, (const import_frame *)of->frames.data, (const uint32_t *)of->stack.data,
                      of->stack.count, &figures, &span.node)) {
        return false;
    }
    return import_span(in, &span);
}

/* Puts a frame on the stack. */
static bool import_speedscope_push(import *in, import_speedscope *of, json_reader *json, uint64_t frame) {
    if (frame >= of->frames.count) {
        return json_fail(json, "there is no frame of this number in shared.frames");
    }
    uint32_t at = pyprof__array_add(&in->memory, &of->stack);
    if (at == PYPROF__NONE) {
        return import_no_memory(in);
    }
    PYPROF__ITEM(uint32_t, &of->stack, at) = (uint32_t)frame;
    return true;
}

static bool import_speedscope_sample(import *in, import_speedscope *of) {
    uint64_t value = 0;
    of->stack.count = 0;
    for (json_enter(&of->samples, '['); json_next(&of->samples, ']');) {
        if (!json_number(&of->samples, 0, &value) || !import_speedscope_push(in, of, &of->samples, value)) {
            return false;
        }
    }
    if (of->samples.wrong != NULL || !json_next(&of->weights, ']')) {
        return json_fail(&of->samples, "there are fewer weights than samples");
    }
    return json_number(&of->weights, of->exponent < 0 ? 0 : of->exponent, &value) &&
           import_speedscope_moment(in, of, value);
}

/* A list of stacks, and one of weights. */
static bool import_sampled(import *in, import_speedscope *of) {
    if (of->samples.start == NULL || of->weights.start == NULL) {
        return import_fail(in, "a profile has no samples, or no weights");
    }
    json_enter(&of->weights, '[');
    for (json_enter(&of->samples, '['); json_next(&of->samples, ']');) {
        if (!import_speedscope_sample(in, of)) {
            break;
        }
    }
    if (in->result == PYPROF_OK && of->samples.wrong == NULL && of->weights.wrong == NULL &&
        json_next(&of->weights, ']')) {
        (void)json_fail(&of->weights, "there are more weights than samples");
    }
    return in->result == PYPROF_OK && (of->samples.wrong == NULL || import_json_failed(in, &of->samples)) &&
           (of->weights.wrong == NULL || import_json_failed(in, &of->weights));
}

/* A frame is opened or closed. *before: when the last one was, from the file's own zero on. */
static bool import_event(import *in, import_speedscope *of, uint64_t *before) {
    pyprof_text type = {NULL, 0};
    uint64_t frame = 0, at = 0;
    json_reader *json = &of->events;
    json_text key;
    for (json_enter(json, '{'); json_next(json, '}');) {
        bool is_known = json_key(json, &key);
        if (is_known && json_is(&key, "type")) {
            (void)import_json_text(in, json, &type);
        } else if (is_known && json_is(&key, "frame")) {
            (void)json_number(json, 0, &frame);
        } else if (is_known && json_is(&key, "at")) {
            (void)json_number(json, of->exponent < 0 ? 0 : of->exponent, &at);
        } else {
            (void)json_skip(json);
        }
    }
    if (json->wrong != NULL) {
        return false;
    }
    if (at < *before) {
        return json_fail(json, "an event is earlier than the one before it");
    }
    if (!import_speedscope_moment(in, of, at - *before)) {
        return false;
    }
    *before = at;
    if (import_is(&type, "O")) {
        return import_speedscope_push(in, of, json, frame);
    }
    const uint32_t *stack = (const uint32_t *)of->stack.data;
    if (!import_is(&type, "C") || of->stack.count == 0 || stack[of->stack.count - 1] != frame) {
        return json_fail(json, "an event closes a frame that is not the innermost one");
    }
    of->stack.count--;
    return true;
}

static bool import_evented(import *in, import_speedscope *of, uint64_t start) {
    if (of->events.start == NULL) {
        return import_fail(in, "a profile has no events");
    }
    of->stack.count = 0;
    for (json_enter(&of->events, '['); json_next(&of->events, ']');) {
        if (!import_event(in, of, &start)) {
            break;
        }
    }
    if (of->events.wrong == NULL && of->stack.count > 0) {
        (void)json_fail(&of->events, "a frame is never closed");
    }
    return in->result == PYPROF_OK && (of->events.wrong == NULL || import_json_failed(in, &of->events));
}

/* Where a profile's parts stand. */
static bool import_survey_profile(import *in, import_speedscope *of, json_reader *json) {
    json_text key;
    memset(&of->name, 0, sizeof *of - offsetof(import_speedscope, name));
    for (json_enter(json, '{'); json_next(json, '}');) {
        static const char *const texts[] = {"name", "type", "unit"}, *const lists[] = {"startValue", "samples",
                                                                                       "weights", "events"};
        pyprof_text *into[] = {&of->name, &of->type, &of->unit};
        json_reader *places[] = {&of->start, &of->samples, &of->weights, &of->events};
        bool is_known = json_key(json, &key), is_text = false;
        for (size_t i = 0; is_known && i < 3 && !is_text; i++) {
            is_text = json_is(&key, texts[i]) && import_json_text(in, json, into[i]);
        }
        for (size_t i = 0; is_known && i < 4 && !is_text; i++) {
            *places[i] = json_is(&key, lists[i]) ? *json : *places[i];
        }
        is_text = is_text || json_skip(json);
    }
    return json->wrong == NULL || import_json_failed(in, json);
}

/* All profiles of a file count the same. */
static bool import_speedscope_unit(import *in, import_speedscope *of) {
    int exponent = import_is(&of->unit, "none") ? -1 : import_unit(of->unit.data, of->unit.size);
    if (exponent < 0 && !import_is(&of->unit, "none")) {
        return import_fail(in, "its values are in '%.*s', which is neither time nor samples",
                           (int)pyprof__min64(of->unit.size, 40), of->unit.data != NULL ? of->unit.data : "");
    }
    if (of->has_unit && (exponent < 0) != (of->exponent < 0)) {
        return import_fail(in, "some of its profiles count time, and others samples");
    }
    of->has_unit = true;
    of->exponent = exponent;
    of->metric = exponent < 0 ? PYPROF_METRIC_SAMPLES : PYPROF_METRIC_WALL;
    return true;
}

static bool import_speedscope_profile(import *in, import_speedscope *of, json_reader *json) {
    uint64_t start = 0;
    if (!import_survey_profile(in, of, json) || !import_speedscope_unit(in, of)) {
        return false;
    }
    if (of->start.start != NULL && !json_number(&of->start, of->exponent < 0 ? 0 : of->exponent, &start)) {
        return import_json_failed(in, &of->start);
    }
    of->origin = of->has_origin ? of->origin : start;
    of->has_origin = true;
    of->now = of->exponent >= 0 && start > of->origin ? start - of->origin : 0;
    if (!import_add_thread(in, (pyprof_node){.name = of->name, .is_named = true}, &of->thread)) {
        return false;
    }
    in->into->has_threads = in->into->has_threads || !import_is(&of->name, IMPORT_ALL_THREADS);
    bool is_sampled = import_is(&of->type, "sampled");
    if (!is_sampled && !import_is(&of->type, "evented")) {
        return import_fail(in, "a profile is neither of the type sampled nor evented");
    }
    if (!(is_sampled ? import_sampled(in, of) : import_evented(in, of, start))) {
        return false;
    }
    pyprof_facts *facts = &in->into->facts;
    facts->duration_ns = of->now > facts->duration_ns ? of->now : facts->duration_ns;
    return true;
}

/* shared may stand behind the profiles that need it: so both are found first. */
static bool import_speedscope_text(import *in, import_speedscope *of) {
    json_reader json = json_begin(in->text, in->size), shared = {0}, profiles = {0};
    json_text key;
    for (json_enter(&json, '{'); json_next(&json, '}');) {
        bool is_known = json_key(&json, &key);
        shared = is_known && json_is(&key, "shared") ? json : shared;
        profiles = is_known && json_is(&key, "profiles") ? json : profiles;
        (void)json_skip(&json);
    }
    if (!json_end(&json)) {
        return import_json_failed(in, &json);
    }
    if (shared.start == NULL || profiles.start == NULL) {
        return import_fail(in,
                           "this is JSON, but neither speedscope's (it has no \"shared\" and \"profiles\") nor ours");
    }
    if (!import_speedscope_frames(in, of, shared)) {
        return false;
    }
    for (json_enter(&profiles, '['); json_next(&profiles, ']');) {
        if (!import_speedscope_profile(in, of, &profiles)) {
            return false;
        }
    }
    return profiles.wrong == NULL || import_json_failed(in, &profiles);
}

static bool import_speedscope_file(import *in) {
    import_speedscope of;
    memset(&of, 0, sizeof of);
    of.frames.item_size = sizeof(import_frame);
    of.stack.item_size = sizeof(uint32_t);
    bool is_good = import_read_all(in) && import_speedscope_text(in, &of);
    pyprof__array_free(&in->memory, &of.frames);
    pyprof__array_free(&in->memory, &of.stack);
    in->into->metrics = 1u << of.metric;
    in->into->has_times = true;
    return is_good;
}

/* ---- JSON lines: as exports.h writes and describes them ---- */

/* All fields that a line may have; what is missing is zero. */
typedef struct import_row {
    pyprof_text type, format, name, path, program, process, python;
    uint64_t version, id, parent, function, line, first_line, tid, pid, node, start_ns, duration_ns, interval_us;
    uint64_t samples, samples_idle, wall_ns, wall_idle_ns, cpu_ns, gil_ns, nodes, spans;
    uint64_t is_named, is_idle, has_gil; /* 1 = true */
    json_reader stats;                   /* where they stand; start NULL = nowhere */
} import_row;

typedef struct import_field {
    const char *name;
    size_t offset;
} import_field;

#define IMPORT_FIELD(type, name)                                                                                       \
    { #name, offsetof(type, name) }

typedef struct import_rows {
    pyprof__array functions; /* import_frame, without a line */
    pyprof__array numbers;   /* of threads and nodes: which pyprof_add_node gave */
    uint64_t spans;
    bool has_facts, has_end;
} import_rows;

static const import_field *import_find_field(const import_field *fields, size_t count, const json_text *key) {
    for (size_t i = 0; i < count; i++) {
        if (json_is(key, fields[i].name)) {
            return &fields[i];
        }
    }
    return NULL;
}

/* A number, or a word: true is 1. */
static bool import_row_number(json_reader *json, uint64_t *number) {
    char first = json_peek(json);
    if (first >= '0' && first <= '9') {
        return json_number(json, 0, number);
    }
    *number = first == 't';
    return json_skip(json);
}

static bool import_read_row(import *in, json_reader *json, import_row *row) {
    static const import_field texts[] = {IMPORT_FIELD(import_row, type),    IMPORT_FIELD(import_row, format),
                                         IMPORT_FIELD(import_row, name),    IMPORT_FIELD(import_row, path),
                                         IMPORT_FIELD(import_row, program), IMPORT_FIELD(import_row, process),
                                         IMPORT_FIELD(import_row, python)};
    static const import_field numbers[] = {
        IMPORT_FIELD(import_row, version),     IMPORT_FIELD(import_row, id),
        IMPORT_FIELD(import_row, parent),      IMPORT_FIELD(import_row, function),
        IMPORT_FIELD(import_row, line),        IMPORT_FIELD(import_row, first_line),
        IMPORT_FIELD(import_row, tid),         IMPORT_FIELD(import_row, pid),
        IMPORT_FIELD(import_row, node),        IMPORT_FIELD(import_row, start_ns),
        IMPORT_FIELD(import_row, duration_ns), IMPORT_FIELD(import_row, interval_us),
        IMPORT_FIELD(import_row, samples),     IMPORT_FIELD(import_row, samples_idle),
        IMPORT_FIELD(import_row, wall_ns),     IMPORT_FIELD(import_row, wall_idle_ns),
        IMPORT_FIELD(import_row, cpu_ns),      IMPORT_FIELD(import_row, gil_ns),
        IMPORT_FIELD(import_row, nodes),       IMPORT_FIELD(import_row, spans),
        IMPORT_FIELD(import_row, is_named),    IMPORT_FIELD(import_row, is_idle),
        IMPORT_FIELD(import_row, has_gil)};
    json_text key;
    memset(row, 0, sizeof *row);
    for (json_enter(json, '{'); json_next(json, '}');) {
        const import_field *text = NULL, *number = NULL;
        if (json_key(json, &key)) {
            text = import_find_field(texts, sizeof texts / sizeof *texts, &key);
            number = import_find_field(numbers, sizeof numbers / sizeof *numbers, &key);
            row->stats = json_is(&key, "stats") ? *json : row->stats;
        }
        if (text != NULL) {
            (void)import_json_text(in, json, (pyprof_text *)(void *)((char *)row + text->offset));
        } else if (number != NULL) {
            (void)import_row_number(json, (uint64_t *)(void *)((char *)row + number->offset));
        } else {
            (void)json_skip(json);
        }
    }
    return json->wrong == NULL;
}

static bool import_row_stats(import *in, json_reader json, pyprof_stats *stats) {
    static const import_field fields[] = {IMPORT_FIELD(pyprof_stats, ticks),
                                          IMPORT_FIELD(pyprof_stats, ticks_missed),
                                          IMPORT_FIELD(pyprof_stats, samples),
                                          IMPORT_FIELD(pyprof_stats, samples_idle),
                                          IMPORT_FIELD(pyprof_stats, samples_signalled),
                                          IMPORT_FIELD(pyprof_stats, samples_partial),
                                          IMPORT_FIELD(pyprof_stats, lost_late),
                                          IMPORT_FIELD(pyprof_stats, lost_pending),
                                          IMPORT_FIELD(pyprof_stats, lost_unsettled),
                                          IMPORT_FIELD(pyprof_stats, lost_unreadable),
                                          IMPORT_FIELD(pyprof_stats, lost_memory),
                                          IMPORT_FIELD(pyprof_stats, truncated_depth),
                                          IMPORT_FIELD(pyprof_stats, truncated_memory),
                                          IMPORT_FIELD(pyprof_stats, frames_unresolved),
                                          IMPORT_FIELD(pyprof_stats, timeline_coarsened),
                                          IMPORT_FIELD(pyprof_stats, signals),
                                          IMPORT_FIELD(pyprof_stats, calls_interrupted),
                                          IMPORT_FIELD(pyprof_stats, threads),
                                          IMPORT_FIELD(pyprof_stats, bytes),
                                          IMPORT_FIELD(pyprof_stats, bytes_peak),
                                          IMPORT_FIELD(pyprof_stats, sampler_cpu_ns),
                                          IMPORT_FIELD(pyprof_stats, samples_unasked),
                                          IMPORT_FIELD(pyprof_stats, threads_unasked),
                                          IMPORT_FIELD(pyprof_stats, signal_changes),
                                          IMPORT_FIELD(pyprof_stats, samples_held),
                                          IMPORT_FIELD(pyprof_stats, holds_failed),
                                          IMPORT_FIELD(pyprof_stats, samples_jit)};
    json_text key;
    for (json_enter(&json, '{'); json_next(&json, '}');) {
        bool is_known = json_key(&json, &key);
        const import_field *field = is_known ? import_find_field(fields, sizeof fields / sizeof *fields, &key) : NULL;
        if (field != NULL) {
            (void)json_number(&json, 0, (uint64_t *)(void *)((char *)stats + field->offset));
        } else if (is_known && json_is(&key, "signal_number")) {
            (void)import_json_line(&json, &stats->signal_number);
        } else {
            (void)json_skip(&json);
        }
    }
    return json.wrong == NULL || import_fail(in, "%s", json.wrong);
}

static void import_copy_text(char *out, size_t room, const pyprof_text *text) {
    snprintf(out, room, "%.*s", (int)pyprof__min64(text->size, room - 1), text->data != NULL ? text->data : "");
}

static bool import_row_facts(import *in, import_rows *of, const import_row *row) {
    pyprof_facts *facts = &in->into->facts;
    if (of->has_facts || !import_is(&row->format, "pyprof-jsonl")) {
        return import_fail(in, "only the first line, and it, has to say \"format\": \"pyprof-jsonl\"");
    }
    if (row->version != 1) {
        return import_fail(in, "it is version %llu of the format, and 1 is known: take a newer pyprof-convert",
                           (unsigned long long)row->version);
    }
    of->has_facts = in->has_stats = true;
    import_copy_text(in->into->program, sizeof in->into->program, &row->program);
    import_copy_text(in->into->process, sizeof in->into->process, &row->process);
    import_copy_text(in->into->python, sizeof in->into->python, &row->python);
    facts->start_ns = row->start_ns;
    facts->duration_ns = row->duration_ns;
    facts->interval_us = row->interval_us <= UINT32_MAX ? (uint32_t)row->interval_us : 0;
    return row->stats.start == NULL || import_row_stats(in, row->stats, &facts->stats);
}

static int32_t import_int32(uint64_t number) {
    return number <= INT32_MAX ? (int32_t)number : 0;
}

static bool import_row_function(import *in, import_rows *of, const import_row *row) {
    if (row->id != of->functions.count) {
        return import_fail(in, "function %llu comes where %u is expected", (unsigned long long)row->id,
                           of->functions.count);
    }
    import_frame *function = (import_frame *)import_add(in, &of->functions);
    return function != NULL && import_make_frame(in, row->name, row->path, 0, row->first_line, function);
}

static bool import_row_figures(import *in, const import_row *row, pyprof_node *figures) {
    figures->samples = row->samples;
    figures->samples_idle = row->samples_idle;
    figures->wall_ns = row->wall_ns;
    figures->wall_idle_ns = row->wall_idle_ns;
    figures->cpu_ns = row->cpu_ns;
    figures->gil_ns = row->gil_ns;
    return row->samples_idle <= row->samples && row->wall_idle_ns <= row->wall_ns
               ? import_count(in, figures)
               : import_fail(in, "more is idle than there is");
}

/* A thread, which has no figures of its own, or a node below one. */
static bool import_row_node(import *in, import_rows *of, const import_row *row, bool is_thread) {
    pyprof_node figures = {0};
    if (row->id != of->numbers.count) {
        return import_fail(in, "node %llu comes where %u is expected", (unsigned long long)row->id, of->numbers.count);
    }
    if (!is_thread && (row->parent >= of->numbers.count || row->function >= of->functions.count)) {
        return import_fail(in, "its %s has not come before", row->parent >= of->numbers.count ? "parent" : "function");
    }
    uint32_t *number = (uint32_t *)import_add(in, &of->numbers);
    if (number == NULL || !import_row_figures(in, row, &figures)) {
        return false;
    }
    if (is_thread && (figures.samples | figures.wall_ns | figures.cpu_ns | figures.gil_ns) != 0) {
        return import_fail(in, "a thread has figures of its own, which only nodes below it can have");
    }
    if (is_thread) {
        in->into->has_threads = in->into->has_threads || !import_is(&row->name, IMPORT_ALL_THREADS);
        const pyprof_node thread = {.name = row->name,
                                    .tid = import_int32(row->tid),
                                    .is_named = row->is_named != 0,
                                    .process = row->process,
                                    .pid = import_int32(row->pid)};
        return import_add_thread(in, thread, number);
    }
    import_frame frame = PYPROF__ITEM(import_frame, &of->functions, row->function);
    frame.line = import_int32(row->line);
    return import_child(in, PYPROF__ITEM(uint32_t, &of->numbers, row->parent), &frame, &figures, number);
}

static bool import_row_span(import *in, import_rows *of, const import_row *row) {
    pyprof_span span = {.start_ns = row->start_ns, .wall_ns = row->wall_ns, .cpu_ns = row->cpu_ns};
    if (row->node >= of->numbers.count) {
        return import_fail(in, "its node has not come before");
    }
    if (row->samples > UINT32_MAX) {
        return import_fail(in, "a span has too many samples for 32 bits");
    }
    span.node = PYPROF__ITEM(uint32_t, &of->numbers, row->node);
    span.samples = (uint32_t)row->samples;
    span.is_idle = row->is_idle != 0;
    span.has_gil = row->has_gil != 0;
    of->spans++;
    return import_span(in, &span);
}

static bool import_row_end(import *in, import_rows *of, const import_row *row) {
    of->has_end = true;
    return (row->nodes == of->numbers.count && row->spans == of->spans) ||
           import_fail(in, "it should have %llu nodes and %llu spans, and has %u and %llu: lines are missing",
                       (unsigned long long)row->nodes, (unsigned long long)row->spans, of->numbers.count,
                       (unsigned long long)of->spans);
}

static bool import_row_by_type(import *in, import_rows *of, const import_row *row) {
    if (of->has_end) {
        return import_fail(in, "more lines follow the one that is the end");
    }
    if (import_is(&row->type, "facts") || !of->has_facts) {
        return import_row_facts(in, of, row);
    }
    if (import_is(&row->type, "function")) {
        return import_row_function(in, of, row);
    }
    if (import_is(&row->type, "thread") || import_is(&row->type, "node")) {
        return import_row_node(in, of, row, import_is(&row->type, "thread"));
    }
    if (import_is(&row->type, "span")) {
        return import_row_span(in, of, row);
    }
    return import_is(&row->type, "end") ? import_row_end(in, of, row)
                                        : import_fail(in, "a line is of a type that is not known");
}

static bool import_rows_of(import *in, import_rows *of) {
    import_row row;
    for (size_t at = 0; at < in->size;) {
        const char *stop = (const char *)memchr(in->text + at, '\n', in->size - at);
        size_t size = stop != NULL ? (size_t)(stop - in->text) - at : in->size - at;
        json_reader json = json_begin(in->text + at, size);
        in->line++;
        if (json_peek(&json) != '\0' && (!import_read_row(in, &json, &row) || !json_end(&json))) {
            return import_fail(in, "column %zu: %s", (size_t)(json.at - json.start) + 1, json.wrong);
        }
        if (json.at > json.start && *json.start == '{' && !import_row_by_type(in, of, &row)) {
            return false;
        }
        at += size + 1;
    }
    in->line = 0;
    return of->has_end || import_fail(in, "the file was cut off: its last line is not the one that is the end");
}

static bool import_jsonl_file(import *in) {
    import_rows of;
    memset(&of, 0, sizeof of);
    of.functions.item_size = sizeof(import_frame);
    of.numbers.item_size = sizeof(uint32_t);
    bool is_good = import_read_all(in) && import_rows_of(in, &of);
    pyprof__array_free(&in->memory, &of.functions);
    pyprof__array_free(&in->memory, &of.numbers);
    in->into->metrics = 15;
    in->into->has_times = of.spans > 0;
    return is_good;
}

/* ---- pprof: https://github.com/google/pprof, proto/profile.proto ---- */

/* A message of protocol buffers, read field by field. */
typedef struct import_message {
    const unsigned char *at, *end;
    uint32_t field;
    bool is_bytes;             /* of the field: a message, text or list, in data; else a number */
    uint64_t number;           /* as the file has it: negative ones are 2^63 and more */
    const unsigned char *data; /* size bytes */
    size_t size;
    const char *wrong;
} import_message;

static uint64_t import_varint(import_message *message) {
    uint64_t number = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (message->at == message->end) {
            message->wrong = "a message ends in the middle of a number";
            return 0;
        }
        unsigned char byte = *message->at++;
        number |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
        if (byte < 0x80) {
            return number;
        }
    }
    message->wrong = "a number has more than 64 bits";
    return 0;
}

static bool import_wrong_message(import_message *message, const char *wrong) {
    message->wrong = wrong;
    return false;
}

/* Reads the next field. False: there is none, or something is wrong. */
static bool import_next_field(import_message *message) {
    if (message->wrong != NULL || message->at == message->end) {
        return false;
    }
    uint64_t tag = import_varint(message);
    unsigned kind = tag & 7u;
    message->field = (uint32_t)(tag >> 3);
    if (message->wrong != NULL) {
        return false;
    }
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff) {
        return import_wrong_message(message, "this is not pprof's format: a field has no number");
    }
    message->is_bytes = kind == 2;
    if (kind == 0 || kind == 2) {
        message->number = import_varint(message);
    }
    size_t size = kind == 2 ? (size_t)message->number : kind == 1 ? 8 : kind == 5 ? 4 : 0;
    if (kind == 3 || kind == 4 || kind > 5) {
        return import_wrong_message(message, "this is not pprof's format: a field is of a kind that it does not have");
    }
    if (message->wrong != NULL || size > (size_t)(message->end - message->at)) {
        return import_wrong_message(message, "a field is longer than what it is in: the file is damaged or cut off");
    }
    message->data = message->at;
    message->size = size;
    message->at += size;
    message->number = kind == 1 || kind == 5 ? 0 : message->number;
    return true;
}

static import_message import_inner(const import_message *message) {
    import_message inner = {.at = message->data, .end = message->data + message->size};
    if (!message->is_bytes) {
        inner.wrong = "a message is expected, and a number stands there";
    }
    return inner;
}

typedef struct import_function {
    uint64_t id, name, file;
    uint64_t first_line;
} import_function;

typedef struct import_location {
    uint64_t id;
    uint32_t first, count; /* its lines, innermost first */
    char address[24];      /* its name if it has none */
} import_location;

typedef struct import_line {
    uint64_t function, line;
} import_line;

typedef struct import_type {
    uint64_t name, unit; /* strings */
    int metric;          /* a pyprof_metric, or -1: not taken */
    uint64_t factor;
} import_type;

typedef struct import_pprof {
    pyprof__array strings, types, functions, locations, lines; /* pyprof_text, import_... */
    pyprof__array frames;     /* an import_frame for each line, then one for each location without any */
    pyprof__array stack, ids; /* of the sample that is being read: frames root first; locations leaf first */
    pyprof__array values;
    uint64_t period_type[2], period;
    uint64_t mapping_file, time, duration;
    pyprof__array comments;
    uint64_t budget; /* so many frames may yet come: a few bytes can ask for very many */
} import_pprof;

static bool import_message_failed(import *in, const import_message *message) {
    in->has_place = true;
    in->place = (size_t)((const char *)message->at - in->text);
    return import_fail(in, "%s", message->wrong);
}

/* The numbers of a repeated field, packed or one by one. */
static bool import_take_numbers(import *in, import_message *message, pyprof__array *numbers) {
    import_message packed = {.at = message->data, .end = message->data + message->size};
    do {
        uint64_t number = message->is_bytes ? 0 : message->number;
        if (message->is_bytes && packed.at == packed.end) {
            break;
        }
        number = message->is_bytes ? import_varint(&packed) : number;
        uint64_t *item = (uint64_t *)import_add(in, numbers);
        if (item == NULL) {
            return false;
        }
        *item = number;
    } while (message->is_bytes && packed.wrong == NULL);
    message->wrong = packed.wrong;
    return packed.wrong == NULL;
}

/* Reads a message whose fields 1, 2, ... are numbers, into numbers[0], numbers[1], ... */
static bool import_flat(import *in, import_message message, uint64_t *numbers, uint32_t count) {
    while (import_next_field(&message)) {
        if (message.field <= count && !message.is_bytes) {
            numbers[message.field - 1] = message.number;
        }
    }
    return message.wrong == NULL || import_message_failed(in, &message);
}

static bool import_read_location(import *in, import_pprof *of, import_message message) {
    import_location *location = (import_location *)import_add(in, &of->locations);
    uint64_t address = 0;
    if (location == NULL) {
        return false;
    }
    location->first = of->lines.count;
    while (import_next_field(&message)) {
        if (message.field == 1) {
            location->id = message.number;
        } else if (message.field == 3) {
            address = message.number;
        } else if (message.field == 4) {
            import_line *line = (import_line *)import_add(in, &of->lines);
            uint64_t numbers[2] = {0, 0};
            if (line == NULL || !import_flat(in, import_inner(&message), numbers, 2)) {
                return false;
            }
            line->function = numbers[0];
            line->line = numbers[1];
        }
    }
    location->count = of->lines.count - location->first;
    snprintf(location->address, sizeof location->address, "0x%llx", (unsigned long long)address);
    return message.wrong == NULL || import_message_failed(in, &message);
}

static bool import_read_function(import *in, import_pprof *of, import_message message) {
    import_function *function = (import_function *)import_add(in, &of->functions);
    uint64_t numbers[5] = {0};
    if (function == NULL || !import_flat(in, message, numbers, 5)) {
        return false;
    }
    function->id = numbers[0];
    function->name = numbers[1];
    function->file = numbers[3];
    function->first_line = numbers[4];
    return true;
}

static bool import_read_type(import *in, import_pprof *of, import_message message) {
    import_type *type = (import_type *)import_add(in, &of->types);
    uint64_t numbers[2] = {0};
    if (type == NULL || !import_flat(in, message, numbers, 2)) {
        return false;
    }
    type->name = numbers[0];
    type->unit = numbers[1];
    type->metric = -1;
    return true;
}

static bool import_read_string(import *in, import_pprof *of, const import_message *message) {
    pyprof_text *text = (pyprof_text *)import_add(in, &of->strings);
    if (text == NULL) {
        return false;
    }
    *text = import_text((const char *)message->data, message->size);
    return true;
}

/* The file name of the first mapping, which is the program. */
static bool import_read_mapping(import *in, import_pprof *of, import_message message) {
    uint64_t numbers[5] = {0};
    bool is_good = import_flat(in, message, numbers, 5);
    of->mapping_file = of->mapping_file == 0 ? numbers[4] : of->mapping_file;
    return is_good;
}

/* All but the samples, which refer to it. */
static bool import_read_pprof_field(import *in, import_pprof *of, import_message *message) {
    switch (message->field) {
    case 1:
        return import_read_type(in, of, import_inner(message));
    case 3:
        return import_read_mapping(in, of, import_inner(message));
    case 4:
        return import_read_location(in, of, import_inner(message));
    case 5:
        return import_read_function(in, of, import_inner(message));
    case 6:
        return import_read_string(in, of, message);
    case 9:
        of->time = message->number;
        return true;
    case 10:
        of->duration = message->number;
        return true;
    case 11:
        return import_flat(in, import_inner(message), of->period_type, 2);
    case 12:
        of->period = message->number;
        return true;
    case 13:
        return import_take_numbers(in, message, &of->comments) || import_message_failed(in, message);
    default:
        return true;
    }
}

static const pyprof_text *import_string(import *in, const import_pprof *of, uint64_t number) {
    static const pyprof_text empty = {"", 0};
    if (number >= of->strings.count && number > 0) {
        (void)import_fail(in, "a text has the number %llu, and there are but %u", (unsigned long long)number,
                          of->strings.count);
        return NULL;
    }
    return of->strings.count > 0 ? &PYPROF__ITEM(const pyprof_text, &of->strings, number) : &empty;
}

static int import_compare_ids(const void *left, const void *right) {
    uint64_t one = *(const uint64_t *)left, other = *(const uint64_t *)right; /* both structs begin with it */
    return (one > other) - (one < other);
}

/* Orders items by their ids, which begin them. */
static bool import_sort_ids(import *in, pyprof__array *array, const char *what) {
    bool is_sorted = true;
    const char *data = (const char *)array->data;
    for (uint32_t i = 1; i < array->count && is_sorted; i++) {
        is_sorted = import_compare_ids(data + (i - 1) * array->item_size, data + i * array->item_size) < 0;
    }
    if (!is_sorted) {
        qsort(array->data, array->count, array->item_size, import_compare_ids);
    }
    for (uint32_t i = 1; i < array->count && !is_sorted; i++) {
        if (import_compare_ids(data + (i - 1) * array->item_size, data + i * array->item_size) == 0) {
            return import_fail(in, "two %s have the same number", what);
        }
    }
    return true;
}

/* The item with this id; NULL = there is none. */
static const void *import_find_id(const pyprof__array *array, uint64_t id) {
    const char *data = (const char *)array->data;
    if (id - 1 < array->count && *(const uint64_t *)(data + (id - 1) * array->item_size) == id) {
        return data + (id - 1) * array->item_size; /* most writers number from 1 */
    }
    return array->count > 0 ? bsearch(&id, data, array->count, array->item_size, import_compare_ids) : NULL;
}

static bool import_fill_frame(import *in, import_pprof *of, const import_line *line) {
    const import_function *function = (const import_function *)import_find_id(&of->functions, line->function);
    if (function == NULL) {
        return import_fail(in, "a line is of function %llu, which the file does not have",
                           (unsigned long long)line->function);
    }
    import_frame *frame = (import_frame *)import_add(in, &of->frames);
    const pyprof_text *name = import_string(in, of, function->name), *file = import_string(in, of, function->file);
    return frame != NULL && name != NULL && file != NULL &&
           import_make_frame(in, *name, *file, line->line, function->first_line, frame);
}

/* What each line shows; and each location without one, which then has one of its own. */
static bool import_fill_frames(import *in, import_pprof *of) {
    for (uint32_t i = 0; i < of->lines.count; i++) {
        if (!import_fill_frame(in, of, &PYPROF__ITEM(const import_line, &of->lines, i))) {
            return false;
        }
    }
    for (uint32_t i = 0; i < of->locations.count; i++) {
        import_location *location = &PYPROF__ITEM(import_location, &of->locations, i);
        if (location->count > 0) {
            continue;
        }
        import_frame *frame = (import_frame *)import_add(in, &of->frames);
        pyprof_text name = import_text(location->address, strlen(location->address));
        if (frame == NULL || !import_make_frame(in, name, import_text("", 0), 0, 0, frame)) {
            return false;
        }
        location->first = of->frames.count - 1;
        location->count = 1;
    }
    return true;
}

/* ---- which sample types ---- */

/* Our metric for a sample type; -1 = none. *factor: how many of ours are one of its values. */
static int import_metric_of(const pyprof_text *name, const pyprof_text *unit, uint64_t *factor) {
    static const struct {
        const char *name;
        int metric;
    } names[] = {
        {"wall", PYPROF_METRIC_WALL},      {"time", PYPROF_METRIC_WALL},      {"real", PYPROF_METRIC_WALL},
        {"wall-time", PYPROF_METRIC_WALL}, {"wall_time", PYPROF_METRIC_WALL}, {"cpu", PYPROF_METRIC_CPU},
        {"cpu-time", PYPROF_METRIC_CPU},   {"gil", PYPROF_METRIC_GIL},        {"samples", PYPROF_METRIC_SAMPLES},
        {"sample", PYPROF_METRIC_SAMPLES}, {"count", PYPROF_METRIC_SAMPLES}};
    static const uint64_t factors[] = {1, 1000, 1000000, 1000000000};
    int exponent = import_unit(unit->data, unit->size);
    *factor = exponent < 0 ? 1 : factors[exponent / 3];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool fits = names[i].metric == PYPROF_METRIC_SAMPLES ? import_is(unit, "count") : exponent >= 0;
        if (fits && import_is(name, names[i].name)) {
            return names[i].metric;
        }
    }
    return -1;
}

static void import_list_types(import *in, const import_pprof *of, char *out, size_t room) {
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < of->types.count && used < room; i++) {
        const import_type *type = &PYPROF__ITEM(const import_type, &of->types, i);
        const pyprof_text *name = import_string(in, of, type->name), *unit = import_string(in, of, type->unit);
        if (name == NULL || unit == NULL) {
            return;
        }
        int size =
            snprintf(out + used, room - used, "%s%.*s (%.*s)", i > 0 ? ", " : "", (int)pyprof__min64(name->size, 60),
                     name->data, (int)pyprof__min64(unit->size, 40), unit->data);
        used += size > 0 ? (size_t)size : room;
    }
}

/* The one that was asked for: times count as wall time, all else as samples. */
static bool import_take_type(import *in, import_type *type, const pyprof_text *name, const pyprof_text *unit) {
    int metric = import_metric_of(name, unit, &type->factor);
    bool is_time = import_unit(unit->data, unit->size) >= 0;
    type->metric = metric >= 0 ? metric : is_time ? PYPROF_METRIC_WALL : PYPROF_METRIC_SAMPLES;
    in->into->metrics = 1u << type->metric;
    return true;
}

/* Which of the values count as what. */
static bool import_choose_types(import *in, import_pprof *of) {
    char list[400];
    for (uint32_t i = 0; i < of->types.count; i++) {
        import_type *type = &PYPROF__ITEM(import_type, &of->types, i);
        const pyprof_text *name = import_string(in, of, type->name), *unit = import_string(in, of, type->unit);
        if (name == NULL || unit == NULL) {
            return false;
        }
        if (in->options->take != NULL) {
            if (import_is(name, in->options->take)) {
                return import_take_type(in, type, name, unit);
            }
            continue;
        }
        int metric = import_metric_of(name, unit, &type->factor);
        if (metric >= 0 && !(in->into->metrics & 1u << metric)) {
            type->metric = metric;
            in->into->metrics |= 1u << metric;
        }
    }
    import_list_types(in, of, list, sizeof list);
    if (of->types.count == 0) {
        return import_fail(in, "this is no pprof file, or an empty one: it has no sample types");
    }
    if (in->options->take != NULL) {
        return import_fail(in, "it has no sample type '%s': it has %s", in->options->take, list);
    }
    return in->into->metrics != 0 ||
           import_fail(in, "it has neither times nor counts of samples, but %s: name one by --take", list);
}

/* ---- samples ---- */

typedef struct import_labels {
    pyprof_text thread, process;
    char number[24]; /* the thread's text, if it has but an id */
    int32_t tid, pid;
    bool is_idle;
} import_labels;

static bool import_read_label(import *in, const import_pprof *of, import_message message, import_labels *labels) {
    uint64_t numbers[3] = {0};
    if (!import_flat(in, message, numbers, 3)) {
        return false;
    }
    const pyprof_text *key = import_string(in, of, numbers[0]), *text = import_string(in, of, numbers[1]);
    if (key == NULL || text == NULL) {
        return false;
    }
    if ((import_is(key, "thread") || import_is(key, "thread name")) && text->size > 0) {
        labels->thread = *text;
    } else if (import_is(key, "thread_id") || import_is(key, "thread id")) {
        labels->tid = import_int32(numbers[2]);
    } else if (import_is(key, "process")) {
        labels->process = *text;
    } else if (import_is(key, "pid")) {
        labels->pid = import_int32(numbers[2]);
    } else if (import_is(key, "state")) {
        labels->is_idle = import_is(text, "idle");
    }
    return true;
}

/* The frames of the sample, root first. Of a location's lines, the first is the innermost. */
static bool import_expand(import *in, import_pprof *of) {
    of->stack.count = 0;
    for (uint32_t i = of->ids.count; i-- > 0;) {
        uint64_t id = PYPROF__ITEM(uint64_t, &of->ids, i);
        const import_location *location = (const import_location *)import_find_id(&of->locations, id);
        if (location == NULL) {
            return import_fail(in, "a sample is at location %llu, which the file does not have",
                               (unsigned long long)id);
        }
        if (location->count > of->budget) {
            return import_fail(in, "its stacks come to far more frames than its size allows for");
        }
        of->budget -= location->count;
        for (uint32_t line = location->count; line-- > 0;) {
            uint32_t *frame = (uint32_t *)import_add(in, &of->stack);
            if (frame == NULL) {
                return false;
            }
            *frame = location->first + line;
        }
    }
    return true;
}

static bool import_sample_figures(import *in, const import_pprof *of, bool is_idle, pyprof_node *figures) {
    if (of->values.count != of->types.count) {
        return import_fail(in, "a sample has %u values, and there are %u sample types", of->values.count,
                           of->types.count);
    }
    for (uint32_t i = 0; i < of->types.count; i++) {
        const import_type *type = &PYPROF__ITEM(const import_type, &of->types, i);
        uint64_t value = PYPROF__ITEM(uint64_t, &of->values, i);
        if (type->metric >= 0 && value > INT64_MAX) {
            return import_fail(in, "a value is negative: this is a difference of profiles");
        }
        if (type->metric >= 0 && value > INT64_MAX / type->factor) {
            return import_fail(in, "a value does not fit in 63 bits");
        }
        if (type->metric >= 0) {
            import_set(figures, (unsigned)type->metric, value * type->factor);
        }
    }
    figures->samples_idle = is_idle ? figures->samples : 0;
    figures->wall_idle_ns = is_idle ? figures->wall_ns : 0;
    return true;
}

static bool import_sample_thread(import *in, import_labels *labels, uint32_t *thread) {
    bool has_thread = labels->thread.size > 0 || labels->tid != 0;
    if (labels->thread.size == 0 && labels->tid != 0) {
        snprintf(labels->number, sizeof labels->number, "(%d)", (int)labels->tid);
        labels->thread = import_text(labels->number, strlen(labels->number));
    } else if (!has_thread) {
        labels->thread = import_text(IMPORT_ALL_THREADS, sizeof IMPORT_ALL_THREADS - 1);
    }
    in->into->has_threads = in->into->has_threads || has_thread;
    const pyprof_node node = {
        .name = labels->thread, .tid = labels->tid, .is_named = true, .process = labels->process, .pid = labels->pid};
    return import_find_thread(in, &node, thread);
}

static bool import_read_sample(import *in, import_pprof *of, import_message message) {
    import_labels labels;
    pyprof_node figures = {0};
    uint32_t thread = 0, leaf;
    memset(&labels, 0, sizeof labels);
    of->ids.count = of->values.count = 0;
    while (import_next_field(&message)) {
        bool is_list = message.field == 1 || message.field == 2;
        if (is_list && !import_take_numbers(in, &message, message.field == 1 ? &of->ids : &of->values)) {
            break;
        }
        if (message.field == 3 && !import_read_label(in, of, import_inner(&message), &labels)) {
            return false;
        }
    }
    if (message.wrong != NULL) {
        return import_message_failed(in, &message);
    }
    return in->result == PYPROF_OK && import_sample_figures(in, of, labels.is_idle, &figures) &&
           import_expand(in, of) && import_sample_thread(in, &labels, &thread) &&
           import_stack(in, thread, (const import_frame *)of->frames.data, (const uint32_t *)of->stack.data,
                        of->stack.count, &figures, &leaf);
}

/* What a comment of ours tells of lost samples. */
static void import_read_comment(import *in, const pyprof_text *text) {
    unsigned long long counts[6] = {0};
    char line[256];
    pyprof_stats *stats = &in->into->facts.stats;
    snprintf(line, sizeof line, "%.*s", (int)pyprof__min64(text->size, sizeof line - 1), text->data);
    if (sscanf(line, "lost samples: %llu (late %llu, pending %llu, unsettled %llu, unreadable %llu, memory %llu)",
               &counts[0], &counts[1], &counts[2], &counts[3], &counts[4], &counts[5]) == 6) {
        stats->lost_late = counts[1];
        stats->lost_pending = counts[2];
        stats->lost_unsettled = counts[3];
        stats->lost_unreadable = counts[4];
        stats->lost_memory = counts[5];
    }
}

static bool import_pprof_facts(import *in, import_pprof *of) {
    pyprof_facts *facts = &in->into->facts;
    const pyprof_text *program = import_string(in, of, of->mapping_file);
    const pyprof_text *unit = import_string(in, of, of->period_type[1]);
    if (program == NULL || unit == NULL) {
        return false;
    }
    snprintf(in->into->program, sizeof in->into->program, "%.*s",
             (int)pyprof__min64(program->size, sizeof in->into->program - 1), program->data);
    int exponent = import_unit(unit->data, unit->size);
    uint64_t period_us = exponent == 0 ? of->period / 1000 : exponent == 3 ? of->period : 0;
    facts->interval_us = period_us <= UINT32_MAX ? (uint32_t)period_us : 0;
    facts->start_ns = of->time <= INT64_MAX ? of->time : 0;
    facts->duration_ns = of->duration <= INT64_MAX ? of->duration : 0;
    for (uint32_t i = 0; i < of->comments.count; i++) {
        const pyprof_text *comment = import_string(in, of, PYPROF__ITEM(uint64_t, &of->comments, i));
        if (comment == NULL) {
            return false;
        }
        import_read_comment(in, comment);
    }
    return true;
}

/* The fields of the whole: all but the samples, then these. */
static bool import_pprof_fields(import *in, import_pprof *of, bool are_samples) {
    import_message message = {.at = (const unsigned char *)in->text, .end = (const unsigned char *)in->text + in->size};
    while (import_next_field(&message)) {
        bool is_good = !are_samples         ? import_read_pprof_field(in, of, &message)
                       : message.field == 2 ? import_read_sample(in, of, import_inner(&message))
                                            : true;
        if (!is_good) {
            return false;
        }
    }
    return message.wrong == NULL || import_message_failed(in, &message);
}

static bool import_pprof_file(import *in) {
    import_pprof of;
    memset(&of, 0, sizeof of);
    struct {
        pyprof__array *array;
        size_t size;
    } arrays[] = {{&of.strings, sizeof(pyprof_text)},
                  {&of.types, sizeof(import_type)},
                  {&of.functions, sizeof(import_function)},
                  {&of.locations, sizeof(import_location)},
                  {&of.lines, sizeof(import_line)},
                  {&of.frames, sizeof(import_frame)},
                  {&of.stack, sizeof(uint32_t)},
                  {&of.ids, sizeof(uint64_t)},
                  {&of.values, sizeof(uint64_t)},
                  {&of.comments, sizeof(uint64_t)}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        arrays[i].array->item_size = arrays[i].size;
    }
    bool is_good = import_read_all(in);
    of.budget = 64 * (uint64_t)in->size + 1000000;
    is_good = is_good && import_pprof_fields(in, &of, false) && import_choose_types(in, &of) &&
              import_sort_ids(in, &of.functions, "functions") && import_sort_ids(in, &of.locations, "locations") &&
              import_fill_frames(in, &of) && import_pprof_facts(in, &of) && import_pprof_fields(in, &of, true);
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        pyprof__array_free(&in->memory, arrays[i].array);
    }
    return is_good;
}

/* ---- which format ---- */

#define IMPORT_PICTURE                                                                                                 \
    "this is a picture or a page (XML), whose figures cannot be read back: convert what it was drawn of"

/* Texts by which other files begin, and what to say of them. Frames begin with signs, too: "<module>", "[other]". */
static const struct import_other {
    const char *start;
    size_t size;
    const char *what;
} import_others[] = {
    {"<?", 2, IMPORT_PICTURE},
    {"<!", 2, IMPORT_PICTURE},
    {"<svg", 4, IMPORT_PICTURE},
    {"<html", 5, IMPORT_PICTURE},
    {"\xff\xfe", 2, "this is UTF-16 text: convert it first, as iconv -f UTF-16 -t UTF-8 does"},
    {"\xfe\xff", 2, "this is UTF-16 text: convert it first, as iconv -f UTF-16 -t UTF-8 does"},
    {"{(", 2, "this is a file of pstats, which has no stacks: they cannot be had from it"},
    {"\xfb(", 2, "this is a file of pstats, which has no stacks: they cannot be had from it"},
    {"PK\3\4", 4, "this is a zip file: unpack it first"},
    {"\x7f"
     "ELF",
     4, "this is a program: give what a profiler has written of it"},
    {"PERFILE2", 8, "this is perf's own file: give what `perf script | stackcollapse-perf.pl` makes of it"}};

/* pprof begins with one of its fields, 1 to 15, and has bytes among the first that no text has. */
static bool import_looks_like_pprof(const char *text, size_t size) {
    static const char numbers[] = "\x38\x40\x48\x50\x60\x68\x70\x78", messages[] = "\x0a\x12\x1a\x22\x2a\x32\x5a\x6a";
    bool begins = size > 0 && (memchr(numbers, text[0], 8) != NULL || memchr(messages, text[0], 8) != NULL);
    for (size_t i = 0; begins && i < size && i < 512; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') {
            return true;
        }
    }
    return false;
}

/* Reads the file by the format that its first bytes tell. */
static bool import_by_content(import *in) {
    size_t at = 0;
    while (at < in->size && (in->text[at] == '\n' || in->text[at] == '\r' || flamegraph_is_blank(in->text[at]))) {
        at++;
    }
    for (size_t i = 0; i < sizeof import_others / sizeof *import_others; i++) {
        const struct import_other *other = &import_others[i];
        if (in->size - at >= other->size && memcmp(in->text + at, other->start, other->size) == 0) {
            return import_fail(in, "%s", other->what);
        }
    }
    if (in->size == 0) {
        return import_fail(in, "the file is empty");
    }
    if (at < in->size && in->text[at] == '[' && flamegraph_begins_json(in->text + at, in->size - at)) {
        return import_fail(in,
                           "this is a list in JSON, maybe Chrome's trace events: of JSON, only speedscope's and ours "
                           "can be read");
    }
    const char *stop = (const char *)memchr(in->text + at, '\n', in->size - at);
    size_t first_line = stop != NULL ? (size_t)(stop - in->text) - at : in->size - at;
    if (memmem(in->text + at, first_line, "\"pyprof-jsonl\"", 14) != NULL) {
        in->into->kind = "JSON lines";
        return import_jsonl_file(in);
    }
    if (at < in->size && flamegraph_begins_json(in->text + at, in->size - at)) {
        in->into->kind = "speedscope";
        return import_speedscope_file(in);
    }
    if (import_looks_like_pprof(in->text, in->size)) {
        in->into->kind = "pprof";
        return import_pprof_file(in);
    }
    in->into->kind = "collapsed text";
    return import_collapsed_text(in);
}

/* A metric of which there is nothing is none that the file has: our formats write all four, whatever is known. */
static bool import_check_sums(import *in) {
    unsigned found = 0;
    for (unsigned i = 0; i < 4; i++) {
        found |= in->all[i] > 0 ? 1u << i : 0;
    }
    in->into->metrics &= found;
    return in->into->metrics != 0 || import_give_up(in, PYPROF_ERROR_FORMAT, "it holds no samples");
}

static void import_free(import *in) {
    if (in->file != NULL) {
        gzclose(in->file);
    }
    free(in->text);
    free(in->steps);
    pyprof__table_free(&in->memory, &in->threads);
    pyprof__array_free(&in->memory, &in->last_frames);
    pyprof__array_free(&in->memory, &in->last_nodes);
}

static pyprof_result import_file(pyprof_profile *profile, const char *path, const import_options *options,
                                 imported *into) {
    static const import_options defaults = {NULL, NULL, NULL};
import in;
    memset(&in, 0, sizeof in);
    memset(into, 0, sizeof *into);
    in.profile = profile;
    in.options = options != NULL ? options : &defaults;
    in.into = into;
    in.name = strcmp(path, "-") == 0 ? "<stdin>" : path;
    in.memory.allocator = profile->memory.allocator;
    in.memory.limit = SIZE_MAX;
    in.last_thread = PYPROF__NONE;
    in.last_frames.item_size = in.last_nodes.item_size = sizeof(uint32_t);
    pyprof__table_init(&in.threads, sizeof(import_thread), offsetof(import_thread, node));
    into->first_node = profile->nodes.items.count;
    into->first_track = profile->tracks.count;
    if (import_open(&in, path) && import_read_more(&in) && import_by_content(&in)) {
        (void)import_check_sums(&in);
    }
    if (!in.has_stats) {
        into->facts.stats.samples = in.all[PYPROF_METRIC_SAMPLES];
        into->facts.stats.samples_idle = in.all_idle;
    }
    import_free(&in);
    return in.result;
}

#endif
