/* import_base.h: what all formats share that are read: the file's bytes, what is wrong with them, and the way of a stack
 * into the profile or the tree. A part of imports.h, which has what it refers to.
 *
 * In: a path; then, from a format's reader, threads, frames and stacks of frames' numbers with their figures. Out: text
 * in memory, gzip undone; nodes and spans of the profile, frames of the tree; the one message of what is wrong.
 * The length of nothing is believed: import_read_more and the readers look at what there is, and sums stay in 63 bits.
 */
#ifndef IMPORT_BASE_H
#define IMPORT_BASE_H

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
    gzbuffer(in->file, IMPORT_PIECE / 2); /* so a piece that is no gzip goes straight to where it is read */
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
    uint32_t word;     /* with a tree: the number of its name there; 0 = it is not known yet */
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
    frame->word = 0;
    return frame->function != PYPROF__NONE || import_no_memory(in);
}

/* Adds figures to the profile's node for a frame below another node, which is made if it is new: as pyprof_add_node, for
   which each text would have to be looked up each time. */
static bool import_profile_child(import *in, uint32_t parent, const import_frame *frame, const pyprof_node *figures,
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

/* The same in the tree. */
static bool import_tree_child(import *in, uint32_t parent, import_frame *frame, const pyprof_node *figures,
                              uint32_t *number) {
    if (frame->word == 0) {
        uint32_t name;
        if (!import_profile_child(in, in->first_thread, frame, NULL, &name)) {
            return false;
        }
        frame->word = flamegraph_add_name(in->tree, (const char *)&name, sizeof name);
    }
    *number = frame->word != FLAMEGRAPH_NONE ? flamegraph_add_named(in->tree, parent, frame->word) : FLAMEGRAPH_NONE;
    if (*number == FLAMEGRAPH_NONE) {
        return import_no_memory(in);
    }
    if (figures == NULL) {
        return true;
    }
    flamegraph_figures own = {figures->wall_ns, figures->wall_idle_ns, figures->cpu_ns,
                              figures->gil_ns,  figures->samples,      figures->samples_idle};
    return flamegraph_add_figures(in->tree, *number, &own) == FLAMEGRAPH_OK || import_no_memory(in);
}

/* Where the stacks are: in the tree if there is one, else in the profile. */
static bool import_child(import *in, uint32_t parent, import_frame *frame, const pyprof_node *figures,
                         uint32_t *number) {
    return in->tree != NULL ? import_tree_child(in, parent, frame, figures, number)
                            : import_profile_child(in, parent, frame, figures, number);
}

/* Gives a new thread its frame in the tree, and what its profile's root has below it; if all stacks are of one that the
   file does not name, it is no frame. */
static bool import_tree_thread(import *in, uint32_t root, uint32_t *number) {
    import_frame truncated = {in->profile->truncated, 0, 0};
    uint32_t below;
    bool is_first = in->threads.items.count == 1;
    in->first_thread = is_first ? root : in->first_thread;
    *number = in->into->has_threads ? flamegraph_add_frame(in->tree, FLAMEGRAPH_ROOT, (const char *)&root, sizeof root)
                                    : FLAMEGRAPH_ROOT;
    if (*number == FLAMEGRAPH_NONE) {
        return import_no_memory(in);
    }
    return import_tree_child(in, *number, &truncated, NULL, &below);
}

/* Whether the next stack is a thread's. In a tree all are, or none is: there, threads are frames. */
static bool import_expect_thread(import *in, bool is_thread) {
    in->into->is_mixed = in->tree != NULL && in->threads.items.count > 0 && in->into->has_threads != is_thread;
    in->into->has_threads = in->into->has_threads || is_thread;
    return !in->into->is_mixed || import_fail(in, "some stacks are of threads, others not");
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
    int32_t tid = in->tree == NULL ? thread->tid : 0; /* those of one name are shown as one */
    import_thread key = {{0, 0}, {0, 0}, tid, thread->pid, 0, 0};
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
    return import_make_frame(in, import_text(IMPORT_NO_STACK, sizeof IMPORT_NO_STACK - 1), import_text("", 0), 0, 0,
                             &frame) &&
           import_child(in, thread, &frame, figures, leaf);
}

/* As import_child, for a frame of the file that has a number. Most steps of stacks were gone before: one look at what was
   found then costs less than the search in a large tree. */
static bool import_step_down(import *in, uint32_t parent, import_frame *frames, uint32_t number,
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
static bool import_stack(import *in, uint32_t thread, import_frame *frames, const uint32_t *stack, size_t depth,
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

static bool import_is(const pyprof_text *text, const char *word) {
    return strlen(word) == text->size && memcmp(text->data, word, text->size) == 0;
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

/* The metric of a heap profile that counts what is in use in this unit; -1 = it is no unit of memory. */
static int import_memory_unit(const char *text, size_t size) {
    return size == 5 && memcmp(text, "bytes", size) == 0     ? PYPROF_METRIC_INUSE_SPACE
           : size == 7 && memcmp(text, "objects", size) == 0 ? PYPROF_METRIC_INUSE_OBJECTS
                                                             : -1;
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

#endif
