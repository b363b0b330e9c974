/* pyprof_module.h: the Python module "pyprof", for Python code inside the host that pyprof.h records.
 *
 * In the file with the implementation, before any other #include:
 *
 *     #define PYPROF_IMPLEMENTATION
 *     #define PYPROF_MODULE_IMPLEMENTATION
 *     #include "flamegraph.h"
 *     #include "pyprof.h"
 *     #include "pyprof_module.h"
 *
 * with heap_module.h beside it, and before Py_Initialize:
 *
 *     PyImport_AppendInittab("pyprof", PyInit_pyprof);
 *
 * Then scripts `import pyprof`: there is one recording in the process, the host's and theirs, and who begins a second one
 * gets an error. What it has is told by `help(pyprof)`; README.md shows how it is used. Every interpreter may import it,
 * those with a GIL of their own and free-threaded ones, too.
 *
 * pyprof.heap (heap_module.h) tells where the memory is; PYPROF_NO_HEAP leaves it out.
 *
 * Where exports.h was included before it, with its implementation somewhere, profiles can be saved in its formats, too.
 *
 * C99 and up, C++17 and up. It stands on the public declarations of pyprof.h alone, and on CPython's. What touches the recording is
 * C; the rest is Python, tools/python/pyprof/__init__.py, which lies at the end of this file as text and runs at import.
 */
#ifndef PYPROF_MODULE_H
#define PYPROF_MODULE_H

#include <Python.h>

#include "pyprof.h"

#if defined(__cplusplus)
#define PYPROF_MODULE_API extern "C" __attribute__((visibility("default")))
#else
#define PYPROF_MODULE_API extern __attribute__((visibility("default")))
#endif

/* For PyImport_AppendInittab. */
PYPROF_MODULE_API PyObject *PyInit_pyprof(void);

#endif /* PYPROF_MODULE_H */

#ifdef PYPROF_MODULE_IMPLEMENTATION
#ifndef PYPROF_MODULE_IMPLEMENTED
#define PYPROF_MODULE_IMPLEMENTED

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What each interpreter's module has. */
typedef struct pymod__state {
    PyTypeObject *data_type;
    PyObject *already_active;
} pymod__state;

/* A profile as Python holds it; immutable. */
typedef struct pymod__data {
    PyObject_HEAD pyprof_profile *profile;
} pymod__data;

static pymod__state *pymod__state_of(PyObject *module) {
    return (pymod__state *)PyModule_GetState(module);
}

/* ---- errors ---- */

static PyObject *pymod__type_of_error(PyObject *module, pyprof_result result) {
    switch (result) {
    case PYPROF_ERROR_ARGUMENT:
    case PYPROF_ERROR_FORMAT:
        return PyExc_ValueError;
    case PYPROF_ERROR_MEMORY:
        return PyExc_MemoryError;
    case PYPROF_ERROR_ALREADY_ACTIVE:
        return module != NULL ? pymod__state_of(module)->already_active : PyExc_RuntimeError;
    default:
        return PyExc_RuntimeError;
    }
}

/* What pyprof.h says of a recording that runs, or does not: with the names that Python code knows its functions by. */
static void pymod__say_in_python(const char *said, char *text, size_t room) {
    static const char *const names[][2] = {{"pyprof_heap_", "pyprof.heap."}, {"pyprof_", "pyprof."}};
    size_t size = 0;
    while (*said != '\0' && size + 16 < room) {
        unsigned i = size == 0 || text[size - 1] == ' ' ? 0 : 2; /* not within the path of a socket */
        while (i < 2 && strncmp(said, names[i][0], strlen(names[i][0])) != 0) {
            i++;
        }
        if (i < 2) {
            size += (size_t)snprintf(text + size, room - size, "%s", names[i][1]);
            said += strlen(names[i][0]);
        } else {
            text[size++] = *said++;
        }
    }
    text[size] = '\0';
}

/* The exception of a call that failed in this thread, whose errno was number. path: of what could not be written, or NULL. */
static PyObject *pymod__raise(PyObject *module, pyprof_result result, int number, PyObject *path) {
    if (result == PYPROF_ERROR_IO && path != NULL) {
        errno = number;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    }
    if (result == PYPROF_ERROR_IO) {
        PyObject *arguments = Py_BuildValue("(is)", number, pyprof_last_error());
        if (arguments != NULL) {
            PyErr_SetObject(PyExc_OSError, arguments);
            Py_DECREF(arguments);
        }
        return NULL;
    }
    char text[512];
    bool is_of_state = result == PYPROF_ERROR_ALREADY_ACTIVE || result == PYPROF_ERROR_NOT_ACTIVE;
    if (is_of_state) {
        pymod__say_in_python(pyprof_last_error(), text, sizeof text);
    }
    PyErr_SetString(pymod__type_of_error(module, result), is_of_state ? text : pyprof_last_error());
    return NULL;
}

/* ---- bytes that grow, without the GIL ---- */

typedef struct pymod__bytes {
    char *data;
    size_t size;
    size_t room;
} pymod__bytes;

static bool pymod__take(void *user, const void *data, size_t size) {
    pymod__bytes *bytes = (pymod__bytes *)user;
    if (size > bytes->room - bytes->size) {
        size_t room = bytes->room * 2 > bytes->size + size ? bytes->room * 2 : bytes->size + size + 4096;
        char *grown = (char *)realloc(bytes->data, room);
        if (grown == NULL) {
            return false;
        }
        bytes->data = grown;
        bytes->room = room;
    }
    if (size > 0) {
        memcpy(bytes->data + bytes->size, data, size);
        bytes->size += size;
    }
    return true;
}

/* Little-endian, as all machines are that pyprof.h is for. */
static bool pymod__take_u32(pymod__bytes *bytes, uint32_t value) {
    return pymod__take(bytes, &value, sizeof value);
}

static bool pymod__take_u64(pymod__bytes *bytes, uint64_t value) {
    return pymod__take(bytes, &value, sizeof value);
}

/* What was written, or the exception of why it was not. A write function answers false only if malloc has nothing. */
static PyObject *pymod__bytes_or_raise(pymod__bytes *bytes, pyprof_result result) {
    PyObject *answer = NULL;
    if (result == PYPROF_OK) {
        answer = PyBytes_FromStringAndSize(bytes->data, (Py_ssize_t)bytes->size);
    } else if (result == PYPROF_ERROR_WRITE) {
        PyErr_NoMemory();
    } else {
        pymod__raise(NULL, result, 0, NULL);
    }
    free(bytes->data);
    return answer;
}

/* ---- what a profile has, as bytes ----

   All of it, so that a profile can be pickled, looked into from Python without calls, and made anew:

     head     "pyprof" and two bytes; u64 nodes, spans, bytes of texts; u64 start_ns, duration_ns; u32 interval_us (of
              a heap profile sampling_bytes), kind; the texts program, process and python; u64 count of the figures that follow
     figures  u64 each, those of pyprof_stats in its order
     nodes    u32 parent; the texts name and path; i32 line, first_line, tid; u32 is_named, 0; u64 samples,
              samples_idle, wall_ns, wall_idle_ns, cpu_ns, gil_ns
     spans    u32 thread, node; u64 start_ns, wall_ns, cpu_ns; u32 samples; u32 1 if idle, + 2 if it has the GIL
     texts    of which all those above are parts: u32 where, u32 size

   Numbers are little-endian. tools/python/pyprof/__init__.py reads it, too. */

#define PYMOD__MAGIC "pyprof\0\1"
#define PYMOD__HEAD 88
#define PYMOD__NODE 88
#define PYMOD__SPAN 40

#define PYMOD__FIGURES(X)                                                                                              \
    X(ticks)                                                                                                           \
    X(ticks_missed)                                                                                                    \
    X(samples)                                                                                                         \
    X(samples_idle)                                                                                                    \
    X(samples_signalled)                                                                                               \
    X(samples_partial)                                                                                                 \
    X(lost_late)                                                                                                       \
    X(lost_pending)                                                                                                    \
    X(lost_unsettled)                                                                                                  \
    X(lost_unreadable)                                                                                                 \
    X(lost_memory)                                                                                                     \
    X(truncated_depth)                                                                                                 \
    X(truncated_memory)                                                                                                \
    X(frames_unresolved)                                                                                               \
    X(timeline_coarsened)                                                                                              \
    X(signals)                                                                                                         \
    X(calls_interrupted)                                                                                               \
    X(threads)                                                                                                         \
    X(bytes)                                                                                                           \
    X(bytes_peak)                                                                                                      \
    X(sampler_cpu_ns)                                                                                                  \
    X(samples_unasked)                                                                                                 \
    X(threads_unasked)                                                                                                 \
    X(signal_changes)                                                                                                  \
    X(signal_number)                                                                                                   \
    X(samples_held)                                                                                                    \
    X(holds_failed)                                                                                                    \
    X(samples_jit)                                                                                                     \
    X(duration_ns)

#define PYMOD__ONE(name) +1
#define PYMOD__FIGURE_COUNT (0 PYMOD__FIGURES(PYMOD__ONE))

static void pymod__figures_of(const pyprof_stats *stats, uint64_t *figures) {
#define PYMOD__GET(name) *figures++ = (uint64_t)stats->name;
    PYMOD__FIGURES(PYMOD__GET)
#undef PYMOD__GET
}

/* Of an older layout's fewer figures the rest is 0. */
static void pymod__stats_of(const char *data, uint64_t count, pyprof_stats *stats) {
    uint64_t figures[PYMOD__FIGURE_COUNT] = {0};
    const uint64_t *figure = figures;
    memcpy(figures, data, (size_t)(count < PYMOD__FIGURE_COUNT ? count : PYMOD__FIGURE_COUNT) * sizeof *figures);
#define PYMOD__SET(name) memcpy(&stats->name, figure++, sizeof stats->name);
    PYMOD__FIGURES(PYMOD__SET)
#undef PYMOD__SET
}

typedef struct pymod__packing {
    pymod__bytes nodes, spans, texts;
    uint64_t node_count, span_count;
    uint32_t
        *places; /* texts that are there, by their hash: twice where they begin and how long they are; 0, 0 = none */
    size_t places_room, places_used;
} pymod__packing;

static size_t pymod__hash(const char *data, size_t size) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (unsigned char)data[i]) * 1099511628211u;
    }
    return (size_t)(hash ^ (hash >> 32));
}

/* Where the text is, or where it can be put. There is always a place that is free. */
static uint32_t *pymod__place(const pymod__packing *packing, const char *data, size_t size) {
    size_t i = pymod__hash(data, size);
    for (;; i++) {
        uint32_t *place = packing->places + 2 * (i & (packing->places_room - 1));
        if (place[1] == 0 || (place[1] == size && memcmp(packing->texts.data + place[0], data, size) == 0)) {
            return place;
        }
    }
}

static bool pymod__more_places(pymod__packing *packing) {
    uint32_t *old = packing->places;
    size_t old_room = packing->places_room;
    size_t room = old_room > 0 ? old_room * 2 : 1024;
    uint32_t *places = (uint32_t *)calloc(room, 2 * sizeof *places);
    if (places == NULL) {
        return false;
    }
    packing->places = places;
    packing->places_room = room;
    for (size_t i = 0; i < old_room; i++) {
        if (old[2 * i + 1] > 0) {
            memcpy(pymod__place(packing, packing->texts.data + old[2 * i], old[2 * i + 1]), old + 2 * i,
                   2 * sizeof *old);
        }
    }
    free(old);
    return true;
}

/* Puts into `to` where a text is; each is there once. */
static bool pymod__take_text(pymod__packing *packing, pymod__bytes *to, pyprof_text text) {
    uint32_t *place;
    if (text.size == 0) {
        return pymod__take_u64(to, 0);
    }
    if (text.size > UINT32_MAX || packing->texts.size > UINT32_MAX - text.size) {
        return false;
    }
    if (packing->places_used * 2 >= packing->places_room && !pymod__more_places(packing)) {
        return false;
    }
    place = pymod__place(packing, text.data, text.size);
    if (place[1] == 0) {
        uint32_t begin = (uint32_t)packing->texts.size;
        if (!pymod__take(&packing->texts, text.data, text.size)) {
            return false;
        }
        place[0] = begin;
        place[1] = (uint32_t)text.size;
        packing->places_used++;
    }
    return pymod__take(to, place, 2 * sizeof *place);
}

static bool pymod__pack_node(void *user, const pyprof_node *node) {
    pymod__packing *packing = (pymod__packing *)user;
    pymod__bytes *to = &packing->nodes;
    packing->node_count++;
    return pymod__take_u32(to, node->parent) && pymod__take_text(packing, to, node->name) &&
           pymod__take_text(packing, to, node->path) && pymod__take_u32(to, (uint32_t)node->line) &&
           pymod__take_u32(to, (uint32_t)node->first_line) && pymod__take_u32(to, (uint32_t)node->tid) &&
           pymod__take_u32(to, node->is_named) && pymod__take_u32(to, 0) && pymod__take_u64(to, node->samples) &&
           pymod__take_u64(to, node->samples_idle) && pymod__take_u64(to, node->wall_ns) &&
           pymod__take_u64(to, node->wall_idle_ns) && pymod__take_u64(to, node->cpu_ns) &&
           pymod__take_u64(to, node->gil_ns);
}

static bool pymod__pack_span(void *user, const pyprof_span *span) {
    pymod__packing *packing = (pymod__packing *)user;
    pymod__bytes *to = &packing->spans;
    packing->span_count++;
    return pymod__take_u32(to, span->thread) && pymod__take_u32(to, span->node) &&
           pymod__take_u64(to, span->start_ns) && pymod__take_u64(to, span->wall_ns) &&
           pymod__take_u64(to, span->cpu_ns) && pymod__take_u32(to, span->samples) &&
           pymod__take_u32(to, (span->is_idle ? 1U : 0) + (span->has_gil ? 2U : 0));
}

static bool pymod__pack_head(pymod__packing *packing, const pyprof_facts *facts, pymod__bytes *to) {
    uint64_t figures[PYMOD__FIGURE_COUNT];
    bool is_heap = facts->kind == PYPROF_KIND_HEAP;
    pymod__bytes about = {NULL, 0, 0}; /* its texts are the last ones, and their size stands before it */
    bool done = pymod__take_text(packing, &about, facts->program) &&
                pymod__take_text(packing, &about, facts->process) && pymod__take_text(packing, &about, facts->python) &&
                pymod__take(to, PYMOD__MAGIC, 8) && pymod__take_u64(to, packing->node_count) &&
                pymod__take_u64(to, packing->span_count) && pymod__take_u64(to, packing->texts.size) &&
                pymod__take_u64(to, facts->start_ns) && pymod__take_u64(to, facts->duration_ns) &&
                pymod__take_u32(to, is_heap ? (uint32_t)facts->sampling_bytes : facts->interval_us) &&
                pymod__take_u32(to, (uint32_t)facts->kind) && pymod__take(to, about.data, about.size) &&
                pymod__take_u64(to, PYMOD__FIGURE_COUNT);
    pymod__figures_of(&facts->stats, figures);
    free(about.data);
    return done && pymod__take(to, figures, sizeof figures);
}

/* Without the GIL. */
static pyprof_result pymod__pack(const pyprof_profile *profile, pyprof_output *output, pymod__bytes *to) {
    pymod__packing packing;
    pyprof_visitor visitor;
    pyprof_facts facts;
    pyprof_result result = pyprof_get_facts(profile, &facts);
    memset(&packing, 0, sizeof packing);
    memset(&visitor, 0, sizeof visitor);
    visitor.node = pymod__pack_node;
    visitor.span = pymod__pack_span;
    visitor.user = &packing;
    output->threads_apart = true;
    if (result == PYPROF_OK) {
        result = pyprof_visit(profile, output, &visitor);
    }
    if (result == PYPROF_OK &&
        !(pymod__pack_head(&packing, &facts, to) && pymod__take(to, packing.nodes.data, packing.nodes.size) &&
          pymod__take(to, packing.spans.data, packing.spans.size) &&
          pymod__take(to, packing.texts.data, packing.texts.size))) {
        result = PYPROF_ERROR_WRITE;
    }
    free(packing.nodes.data);
    free(packing.spans.data);
    free(packing.texts.data);
    free(packing.places);
    return result;
}

/* ---- and back ---- */

/* Bytes that anybody may have made. What does not fit together is told in `wrong`. */
typedef struct pymod__unpacking {
    const char *data;
    uint64_t node_count, span_count, text_size, figure_count;
    const char *nodes, *spans, *texts;
    const char *wrong;
} pymod__unpacking;

static uint32_t pymod__u32(const char *data) {
    uint32_t value;
    memcpy(&value, data, sizeof value);
    return value;
}

static uint64_t pymod__u64(const char *data) {
    uint64_t value;
    memcpy(&value, data, sizeof value);
    return value;
}

static bool pymod__text_at(pymod__unpacking *unpacking, const char *data, pyprof_text *text) {
    uint64_t begin = pymod__u32(data), size = pymod__u32(data + 4);
    if (begin + size > unpacking->text_size) {
        unpacking->wrong = "a text lies outside of the texts";
        return false;
    }
    text->data = unpacking->texts + begin;
    text->size = (size_t)size;
    return true;
}

/* Finds the parts; false if they are not just what is there. No count can be so large that the sums overflow. */
static bool pymod__find_parts(pymod__unpacking *unpacking, size_t size) {
    const char *data = unpacking->data;
    if (size < PYMOD__HEAD || memcmp(data, PYMOD__MAGIC, 8) != 0) {
        unpacking->wrong = "it does not begin as a profile of this version";
        return false;
    }
    unpacking->node_count = pymod__u64(data + 8);
    unpacking->span_count = pymod__u64(data + 16);
    unpacking->text_size = pymod__u64(data + 24);
    unpacking->figure_count = pymod__u64(data + 80);
    if (unpacking->node_count > size || unpacking->span_count > size || unpacking->text_size > size ||
        unpacking->figure_count > size ||
        PYMOD__HEAD + 8 * unpacking->figure_count + PYMOD__NODE * unpacking->node_count +
                PYMOD__SPAN * unpacking->span_count + unpacking->text_size !=
            size) {
        unpacking->wrong = "its size is not what its counts say";
        return false;
    }
    unpacking->nodes = data + PYMOD__HEAD + 8 * unpacking->figure_count;
    unpacking->spans = unpacking->nodes + PYMOD__NODE * unpacking->node_count;
    unpacking->texts = unpacking->spans + PYMOD__SPAN * unpacking->span_count;
    return true;
}

static bool pymod__unpack_facts(pymod__unpacking *unpacking, pyprof_facts *facts) {
    const char *data = unpacking->data;
    memset(facts, 0, sizeof *facts);
    facts->start_ns = pymod__u64(data + 32);
    facts->duration_ns = pymod__u64(data + 40);
    facts->interval_us = pymod__u32(data + 48);
    if (pymod__u32(data + 52) > PYPROF_KIND_HEAP) {
        unpacking->wrong = "it is of a kind that is not known";
        return false;
    }
    facts->kind = (pyprof_kind)pymod__u32(data + 52);
    if (facts->kind == PYPROF_KIND_HEAP) {
        facts->sampling_bytes = facts->interval_us;
        facts->interval_us = 0;
    }
    pymod__stats_of(data + PYMOD__HEAD, unpacking->figure_count, &facts->stats);
    return pymod__text_at(unpacking, data + 56, &facts->program) &&
           pymod__text_at(unpacking, data + 64, &facts->process) &&
           pymod__text_at(unpacking, data + 72, &facts->python);
}

static bool pymod__node_at(pymod__unpacking *unpacking, uint64_t number, const uint32_t *numbers, pyprof_node *node) {
    const char *data = unpacking->nodes + PYMOD__NODE * number;
    memset(node, 0, sizeof *node);
    node->parent = pymod__u32(data);
    if (node->parent != PYPROF_NO_NODE && node->parent >= number) {
        unpacking->wrong = "a node stands before its caller";
        return false;
    }
    node->parent = node->parent != PYPROF_NO_NODE ? numbers[node->parent] : PYPROF_NO_NODE;
    node->line = (int32_t)pymod__u32(data + 20);
    node->first_line = (int32_t)pymod__u32(data + 24);
    node->tid = (int32_t)pymod__u32(data + 28);
    node->is_named = pymod__u32(data + 32) != 0;
    node->samples = pymod__u64(data + 40);
    node->samples_idle = pymod__u64(data + 48);
    node->wall_ns = pymod__u64(data + 56);
    node->wall_idle_ns = pymod__u64(data + 64);
    node->cpu_ns = pymod__u64(data + 72);
    node->gil_ns = pymod__u64(data + 80);
    return pymod__text_at(unpacking, data + 4, &node->name) && pymod__text_at(unpacking, data + 12, &node->path);
}

static bool pymod__span_at(pymod__unpacking *unpacking, uint64_t number, const uint32_t *numbers, pyprof_span *span) {
    const char *data = unpacking->spans + PYMOD__SPAN * number;
    memset(span, 0, sizeof *span);
    span->node = pymod__u32(data + 4);
    if (span->node >= unpacking->node_count) {
        unpacking->wrong = "a span of time is of no node";
        return false;
    }
    span->thread = pymod__u32(data);
    span->node = numbers[span->node];
    span->start_ns = pymod__u64(data + 8);
    span->wall_ns = pymod__u64(data + 16);
    span->cpu_ns = pymod__u64(data + 24);
    span->samples = pymod__u32(data + 32);
    span->is_idle = (pymod__u32(data + 36) & 1) != 0;
    span->has_gil = (pymod__u32(data + 36) & 2) != 0;
    return true;
}

static pyprof_result pymod__fill(pymod__unpacking *unpacking, uint32_t *numbers, pyprof_profile *profile) {
    pyprof_result result = PYPROF_OK;
    for (uint64_t i = 0; i < unpacking->node_count && result == PYPROF_OK; i++) {
        pyprof_node node;
        result = pymod__node_at(unpacking, i, numbers, &node) ? pyprof_add_node(profile, &node, &numbers[i])
                                                              : PYPROF_ERROR_ARGUMENT;
    }
    for (uint64_t i = 0; i < unpacking->span_count && result == PYPROF_OK; i++) {
        pyprof_span span;
        result = pymod__span_at(unpacking, i, numbers, &span) ? pyprof_add_span(profile, &span) : PYPROF_ERROR_ARGUMENT;
    }
    return result;
}

/* Without the GIL. Where the answer is an error, unpacking->wrong or else pyprof_last_error says why. */
static pyprof_result pymod__unpack(pymod__unpacking *unpacking, size_t size, pyprof_profile **profile) {
    pyprof_facts facts;
    uint32_t *numbers; /* which each node has in the new profile */
    pyprof_result result;
    if (!pymod__find_parts(unpacking, size) || !pymod__unpack_facts(unpacking, &facts)) {
        return PYPROF_ERROR_ARGUMENT;
    }
    numbers = (uint32_t *)malloc(((size_t)unpacking->node_count + 1) * sizeof *numbers);
    if (numbers == NULL) {
        unpacking->wrong = "no memory for its nodes";
        return PYPROF_ERROR_MEMORY;
    }
    result = pyprof_make(&facts, 0, NULL, profile);
    if (result == PYPROF_OK) {
        result = pymod__fill(unpacking, numbers, *profile);
    }
    free(numbers);
    if (result != PYPROF_OK) {
        pyprof_free(*profile);
        *profile = NULL;
    }
    return result;
}

/* ---- a profile as an object ---- */

/* Takes the profile over, also if it fails. */
static PyObject *pymod__new_data(PyObject *module, pyprof_profile *profile) {
    pymod__data *data = PyObject_New(pymod__data, pymod__state_of(module)->data_type);
    if (data == NULL) {
        pyprof_free(profile);
        return NULL;
    }
    data->profile = profile;
    return (PyObject *)data;
}

static void pymod__data_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    pyprof_free(((pymod__data *)self)->profile);
    type->tp_free(self);
    Py_DECREF(type);
}

/* What a method is given: the fields of a pyprof_output in their order. */
static bool pymod__parse_output(PyObject *fields, pyprof_output *output) {
    int format, metric, detail, include_idle, merge_threads, only_mine;
    memset(output, 0, sizeof *output);
    if (!PyArg_ParseTuple(fields, "iiippzzzzpd:output", &format, &metric, &detail, &include_idle, &merge_threads,
                          &output->thread, &output->interpreter, &output->file, &output->function, &only_mine,
                          &output->min_share)) {
        return false;
    }
    output->format = (pyprof_format)format;
    output->metric = (pyprof_metric)metric;
    output->detail = (pyprof_detail)detail;
    output->include_idle = include_idle != 0;
    output->merge_threads = merge_threads != 0;
    output->only_mine = only_mine != 0;
    return true;
}

/* Those formats have numbers above pyprof.h's. */
#define PYMOD__EXPORTS 1000

/* Without the GIL. */
static pyprof_result pymod__write(const pyprof_profile *profile, const pyprof_output *output, pymod__bytes *bytes) {
#if defined(EXPORTS_H)
    if ((int)output->format >= PYMOD__EXPORTS) {
        exports_format format = (exports_format)((int)output->format - PYMOD__EXPORTS);
        return exports_write(profile, output, format, pymod__take, bytes);
    }
#endif
    return pyprof_write(profile, output, pymod__take, bytes);
}

static PyObject *pymod__data_write(PyObject *self, PyObject *fields) {
    PyThreadState *thread;
    pymod__bytes bytes = {NULL, 0, 0};
    pyprof_output output;
    pyprof_result result;
    if (!pymod__parse_output(fields, &output)) {
        return NULL;
    }
    thread = PyEval_SaveThread();
    result = pymod__write(((pymod__data *)self)->profile, &output, &bytes);
    PyEval_RestoreThread(thread);
#if defined(EXPORTS_H)
    if ((int)output.format >= PYMOD__EXPORTS && result != PYPROF_OK && result != PYPROF_ERROR_WRITE) {
        free(bytes.data);
        PyErr_SetString(pymod__type_of_error(NULL, result), exports_last_error());
        return NULL;
    }
#endif
    return pymod__bytes_or_raise(&bytes, result);
}

static PyObject *pymod__data_pack(PyObject *self, PyObject *fields) {
    PyThreadState *thread;
    pymod__bytes bytes = {NULL, 0, 0};
    pyprof_output output;
    pyprof_result result;
    if (!pymod__parse_output(fields, &output)) {
        return NULL;
    }
    thread = PyEval_SaveThread();
    result = pymod__pack(((pymod__data *)self)->profile, &output, &bytes);
    PyEval_RestoreThread(thread);
    return pymod__bytes_or_raise(&bytes, result);
}

/* save(path, fields): the path as bytes. */
static PyObject *pymod__data_save(PyObject *self, PyObject *arguments) {
    PyThreadState *thread;
    PyObject *path, *fields;
    pyprof_output output;
    pyprof_result result;
    int number;
    if (!PyArg_ParseTuple(arguments, "SO!:save", &path, &PyTuple_Type, &fields) ||
        !pymod__parse_output(fields, &output)) {
        return NULL;
    }
    thread = PyEval_SaveThread();
    result = pyprof_save(((pymod__data *)self)->profile, &output, PyBytes_AS_STRING(path));
    number = errno;
    PyEval_RestoreThread(thread);
    if (result != PYPROF_OK) {
        PyObject *shown = PyUnicode_DecodeFSDefault(PyBytes_AS_STRING(path));
        pymod__raise(NULL, result, number, shown);
        Py_XDECREF(shown);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *pymod__bytes_of(pyprof_text text) {
    return PyBytes_FromStringAndSize(text.data, (Py_ssize_t)text.size);
}

static PyObject *pymod__tuple_of_row(const pyprof_row *row) {
    return Py_BuildValue("(NNiKKKKdd)", pymod__bytes_of(row->name), pymod__bytes_of(row->path), (int)row->line,
                         (unsigned long long)row->self, (unsigned long long)row->total,
                         (unsigned long long)row->samples_self, (unsigned long long)row->samples_total, row->self_share,
                         row->total_share);
}

static PyObject *pymod__list_of_rows(const pyprof_row *rows, size_t count) {
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *row = pymod__tuple_of_row(&rows[i]);
        if (row == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, row);
        }
    }
    return list;
}

/* Without the GIL. *rows is to be freed. */
static pyprof_result pymod__top(const pyprof_profile *profile, const pyprof_output *output, pyprof_row **rows,
                                size_t *count) {
    pyprof_result result;
    *count = 0;
    result = pyprof_top(profile, output, NULL, count);
    if (result == PYPROF_OK && *count > 0) {
        *rows = (pyprof_row *)calloc(*count, sizeof **rows);
        result = *rows != NULL ? pyprof_top(profile, output, *rows, count) : PYPROF_ERROR_WRITE;
    }
    return result;
}

static PyObject *pymod__data_rows(PyObject *self, PyObject *fields) {
    PyThreadState *thread;
    pyprof_output output;
    pyprof_row *rows = NULL;
    pyprof_result result;
    PyObject *answer = NULL;
    size_t count;
    if (!pymod__parse_output(fields, &output)) {
        return NULL;
    }
    thread = PyEval_SaveThread();
    result = pymod__top(((pymod__data *)self)->profile, &output, &rows, &count);
    PyEval_RestoreThread(thread);
    if (result == PYPROF_OK) {
        answer = pymod__list_of_rows(rows, count);
    } else if (result == PYPROF_ERROR_WRITE) {
        PyErr_NoMemory();
    } else {
        pymod__raise(NULL, result, 0, NULL);
    }
    free(rows);
    return answer;
}

static PyObject *pymod__tuple_of_figures(const uint64_t *figures, Py_ssize_t count) {
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *figure = PyLong_FromUnsignedLongLong(figures[i]);
        if (figure == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, i, figure);
        }
    }
    return tuple;
}

static PyObject *pymod__tuple_of_stats(const pyprof_stats *stats) {
    uint64_t figures[PYMOD__FIGURE_COUNT];
    pymod__figures_of(stats, figures);
    return pymod__tuple_of_figures(figures, PYMOD__FIGURE_COUNT);
}

static PyObject *pymod__data_facts(PyObject *self, PyObject *unused) {
    pyprof_facts facts;
    pyprof_result result = pyprof_get_facts(((pymod__data *)self)->profile, &facts);
    PyObject *stats;
    (void)unused;
    if (result != PYPROF_OK) {
        return pymod__raise(NULL, result, 0, NULL);
    }
    stats = pymod__tuple_of_stats(&facts.stats);
    return stats == NULL
               ? NULL
               : Py_BuildValue("(KKINNIK)", (unsigned long long)facts.start_ns, (unsigned long long)facts.duration_ns,
                               (unsigned)facts.interval_us, pymod__bytes_of(facts.python), stats, (unsigned)facts.kind,
                               (unsigned long long)facts.sampling_bytes);
}

#ifndef PYPROF_MODULE_PACKAGE

static bool pymod__add(PyObject *module, const char *name, PyObject *value);

/* The lines, to be freed. */
static char *pymod__whole_source(const char *const *lines, size_t count) {
    pymod__bytes text = {NULL, 0, 0};
    for (size_t i = 0; i < count; i++) {
        if (!pymod__take(&text, lines[i], strlen(lines[i])) || !pymod__take(&text, "\n", 1)) {
            free(text.data);
            return NULL;
        }
    }
    if (!pymod__take(&text, "", 1)) {
        free(text.data);
        return NULL;
    }
    return text.data;
}

/* Runs a source with a module's names. False: an exception is set. */
static bool pymod__run(const char *const *lines, size_t count, const char *file, PyObject *names) {
    char *text = pymod__whole_source(lines, count);
    PyObject *code = text != NULL ? Py_CompileString(text, file, Py_file_input) : PyErr_NoMemory();
    bool can_run = code != NULL && PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) == 0;
    PyObject *answer = can_run ? PyEval_EvalCode(code, names, names) : NULL;
    free(text);
    Py_XDECREF(code);
    Py_XDECREF(answer);
    return answer != NULL;
}
#endif

#ifndef PYPROF_NO_HEAP
#include "heap_module.h"
#endif

static PyMethodDef pymod__data_methods[] = {
    {"write", pymod__data_write, METH_VARARGS, "write(*fields): the profile in a format, as bytes"},
    {"save", pymod__data_save, METH_VARARGS, "save(path, fields): writes it to a file"},
    {"rows", pymod__data_rows, METH_VARARGS,
     "rows(*fields): what each function or line took: name, path, line, self, total, samples of both, shares of both"},
    {"pack", pymod__data_pack, METH_VARARGS, "pack(*fields): all that it has, as bytes for unpack()"},
    {"facts", pymod__data_facts, METH_NOARGS,
     "facts(): start_ns, duration_ns, interval_us, python's version, stats, kind, sampling_bytes"},
#ifndef PYPROF_NO_HEAP
    {"samples", pymod__data_samples, METH_VARARGS, "samples(*fields): of a heap profile those that live, as bytes"},
#endif
    {NULL, NULL, 0, NULL},
};

static PyTypeObject *pymod__make_data_type(PyObject *module) {
    static char doc[] = "A profile, as the recording gave it away.";
    PyType_Slot slots[] = {
        {Py_tp_dealloc, (void *)(uintptr_t)pymod__data_free},
        {Py_tp_methods, pymod__data_methods},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    PyType_Spec spec = {"pyprof._engine.Data", (int)sizeof(pymod__data), 0, Py_TPFLAGS_DEFAULT, slots};
    PyTypeObject *type;
    (void)module;
#if PY_VERSION_HEX >= 0x030A0000
    spec.flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE;
#endif
    type = (PyTypeObject *)PyType_FromSpec(&spec);
#if PY_VERSION_HEX < 0x030A0000
    if (type != NULL) {
        type->tp_new = NULL;
    }
#endif
    return type;
}

/* ---- the functions ---- */

static PyObject *pymod__start(PyObject *module, PyObject *arguments) {
    PyThreadState *thread;
    unsigned long long interval_us, memory_limit, max_depth;
    PyObject *path;
    int is_quiet;
    pyprof_desc desc;
    pyprof_result result;
    memset(&desc, 0, sizeof desc);
    if (!PyArg_ParseTuple(arguments, "KKKOp|i:start", &interval_us, &memory_limit, &max_depth, &path, &is_quiet,
                          &desc.signal_number)) {
        return NULL;
    }
    desc.interval_us =
        interval_us < UINT32_MAX ? (uint32_t)interval_us : UINT32_MAX; /* which is refused, as it should */
    desc.memory_limit = (size_t)memory_limit;
    desc.max_depth = max_depth < UINT32_MAX ? (uint32_t)max_depth : UINT32_MAX;
    desc.output_path = path != Py_None ? PyBytes_AsString(path) : NULL;
    desc.capture = is_quiet ? PYPROF_CAPTURE_QUIET : PYPROF_CAPTURE_DEFAULT;
    if (PyErr_Occurred()) {
        return NULL;
    }
    thread = PyEval_SaveThread();
    result = pyprof_start(&desc);
    PyEval_RestoreThread(thread);
    if (result != PYPROF_OK) {
        return pymod__raise(module, result, 0, NULL);
    }
    Py_RETURN_NONE;
}

/* The exception that is set, as an object; none is set any more. */
static PyObject *pymod__take_exception(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

static PyObject *pymod__stop(PyObject *module, PyObject *unused) {
    PyThreadState *thread;
    pyprof_profile *profile = NULL;
    pyprof_result result;
    PyObject *data, *why;
    int number;
    (void)unused;
    thread = PyEval_SaveThread();
    result = pyprof_stop(&profile);
    number = errno;
    PyEval_RestoreThread(thread);
    if (profile == NULL) {
        return pymod__raise(module, result, number, NULL);
    }
    data = pymod__new_data(module, profile);
    if (data == NULL) {
        return NULL;
    }
    if (result == PYPROF_OK) {
        return Py_BuildValue("(NO)", data, Py_None);
    }
    pymod__raise(module, result, number, NULL);
    why = pymod__take_exception();
    return Py_BuildValue("(NN)", data, why);
}

static PyObject *pymod__is_active(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return PyBool_FromLong(pyprof_is_active());
}

static PyObject *pymod__get_stats(PyObject *module, PyObject *unused) {
    PyThreadState *thread;
    pyprof_stats stats;
    pyprof_result result;
    (void)unused;
    memset(&stats, 0, sizeof stats);
    thread = PyEval_SaveThread();
    result = pyprof_get_stats(&stats);
    PyEval_RestoreThread(thread);
    return result == PYPROF_OK ? pymod__tuple_of_stats(&stats) : pymod__raise(module, result, 0, NULL);
}

static PyObject *pymod__snapshot(PyObject *module, PyObject *unused) {
    PyThreadState *thread;
    pyprof_profile *profile = NULL;
    pyprof_result result;
    (void)unused;
    thread = PyEval_SaveThread();
    result = pyprof_snapshot(&profile);
    PyEval_RestoreThread(thread);
    return result == PYPROF_OK ? pymod__new_data(module, profile) : pymod__raise(module, result, 0, NULL);
}

static PyObject *pymod__dump(PyObject *module, PyObject *unused) {
    PyThreadState *thread;
    pymod__bytes bytes = {NULL, 0, 0};
    pyprof_result result;
    (void)module;
    (void)unused;
    thread = PyEval_SaveThread();
    result = pyprof_dump(pymod__take, &bytes);
    PyEval_RestoreThread(thread);
    return pymod__bytes_or_raise(&bytes, result);
}

static PyObject *pymod__unpack_bytes(PyObject *module, PyObject *bytes) {
    PyThreadState *thread;
    pymod__unpacking unpacking;
    pyprof_profile *profile = NULL;
    pyprof_result result;
    if (!PyBytes_Check(bytes)) {
        return PyErr_Format(PyExc_TypeError, "bytes are needed, not %.100s", Py_TYPE(bytes)->tp_name);
    }
    memset(&unpacking, 0, sizeof unpacking);
    unpacking.data = PyBytes_AS_STRING(bytes);
    thread = PyEval_SaveThread();
    result = pymod__unpack(&unpacking, (size_t)PyBytes_GET_SIZE(bytes), &profile);
    PyEval_RestoreThread(thread);
    if (result == PYPROF_OK) {
        return pymod__new_data(module, profile);
    }
    return PyErr_Format(pymod__type_of_error(module, result), "not a whole profile: %s",
                        unpacking.wrong != NULL ? unpacking.wrong : pyprof_last_error());
}

static PyObject *pymod__name_interpreter(PyObject *module, PyObject *arguments) {
    PyThreadState *thread;
    const char *name;
    pyprof_result result;
    int64_t id = PyInterpreterState_GetID(PyThreadState_Get()->interp);
    if (id < 0 || !PyArg_ParseTuple(arguments, "z:name_interpreter", &name)) {
        return NULL;
    }
    thread = PyEval_SaveThread();
    result = pyprof_name_interpreter(id, name);
    PyEval_RestoreThread(thread);
    if (result != PYPROF_OK) {
        return pymod__raise(module, result, 0, NULL);
    }
    Py_RETURN_NONE;
}

#ifndef PYPROF_NO_LISTEN
/* listen(path as bytes, or None): begins it, and answers the path. */
static PyObject *pymod__listen(PyObject *module, PyObject *path) {
    PyThreadState *thread;
    pyprof_result result;
    const char *base = getenv("XDG_RUNTIME_DIR"), *given = path != Py_None ? PyBytes_AsString(path) : NULL;
    int number;
    if (PyErr_Occurred()) {
        return NULL;
    }
    thread = PyEval_SaveThread();
    result = pyprof_listen(given);
    number = errno;
    PyEval_RestoreThread(thread);
    if (result != PYPROF_OK) {
        return pymod__raise(module, result, number, NULL);
    }
    if (given != NULL) {
        return PyUnicode_DecodeFSDefault(given);
    }
    path = PyBytes_FromFormat("%s/pyprof-%lu/%ld.sock", base != NULL && base[0] == '/' ? base : "/tmp",
                              (unsigned long)geteuid(), (long)getpid());
    if (path != NULL) {
        PyObject *text = PyUnicode_DecodeFSDefault(PyBytes_AsString(path));
        Py_DECREF(path);
        path = text;
    }
    return path;
}

static PyObject *pymod__unlisten(PyObject *module, PyObject *unused) {
    PyThreadState *thread;
    pyprof_result result;
    (void)unused;
    thread = PyEval_SaveThread();
    result = pyprof_unlisten();
    PyEval_RestoreThread(thread);
    if (result != PYPROF_OK) {
        return pymod__raise(module, result, 0, NULL);
    }
    Py_RETURN_NONE;
}
#endif

/* format_of(path, name): the number of a format that is not pyprof.h's own, which the one or the other says; else 0. */
static PyObject *pymod__format_of(PyObject *module, PyObject *arguments) {
    const char *path, *name;
    long number = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "yz:format_of", &path, &name)) {
        return NULL;
    }
#if defined(EXPORTS_H)
    exports_format format = name != NULL ? exports_format_of_name(name) : exports_format_of_path(path);
    size_t count;
    const exports_info *infos = exports_formats(&count);
    for (size_t i = 0; i < count; i++) {
        if (infos[i].format == format && infos[i].written_by == PYPROF_FORMAT_AUTO) {
            number = PYMOD__EXPORTS + (long)format;
        }
    }
#endif
    return PyLong_FromLong(number);
}

#if defined(PYPROF_MODULE_CONVERT)
/* convert(words): what the program pyprof-convert does; words are bytes. It uses getopt, so the GIL is kept. */
static PyObject *pymod__convert(PyObject *module, PyObject *words) {
    char **argv;
    int status, argc = 0;
    (void)module;
    if (!PyList_Check(words)) {
        PyErr_SetString(PyExc_TypeError, "a list of bytes is needed");
        return NULL;
    }
    argv = (char **)calloc((size_t)PyList_GET_SIZE(words) + 1, sizeof *argv);
    if (argv == NULL) {
        return PyErr_NoMemory();
    }
    for (; argc < PyList_GET_SIZE(words); argc++) {
        argv[argc] = PyBytes_AsString(PyList_GET_ITEM(words, argc));
        if (argv[argc] == NULL) {
            free(argv);
            return NULL;
        }
    }
    status = PYPROF_MODULE_CONVERT(argc, argv);
    free(argv);
    return PyLong_FromLong(status);
}
#endif

#if defined(PYPROF_MODULE_PACKAGE)

/* ---- before a signal ends the process ----

   A handler that Python has runs when the main thread runs Python again, which in a long call of C it does not. So the
   handler here only wakes a thread that no Python knows of; that thread calls the function, and then the signal does what
   it would have done. A second one does so at once. Python's own table of handlers stays as it is. */

static const int pymod__ending_signals[] = {SIGHUP, SIGTERM, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU};

static struct {
    int pipe[2]; /* to the thread: the number of the signal that came, or 0: it is to end */
    pid_t process;
    PyObject *function; /* NULL = all this is not asked for */
    pthread_t thread;
} pymod__ending;

static void pymod__on_signal(int number) {
    int error = errno;
    unsigned char byte = (unsigned char)number;
    if (getpid() != pymod__ending.process || write(pymod__ending.pipe[1], &byte, 1) != 1) {
        (void)kill(getpid(), number); /* in a child of fork: by default, as SA_RESETHAND asked for */
    }
    errno = error;
}

static void *pymod__end_by_signal(void *unused) {
    unsigned char number;
    PyGILState_STATE state;
    PyObject *done;
    (void)unused;
    while (read(pymod__ending.pipe[0], &number, 1) != 1) {
    }
    if (number == 0) {
        return NULL;
    }
    state = PyGILState_Ensure();
    done = PyObject_CallFunction(pymod__ending.function, NULL);
    if (done == NULL) {
        PyErr_WriteUnraisable(pymod__ending.function);
    }
    Py_XDECREF(done);
    PyGILState_Release(state);
    (void)signal(number, SIG_DFL);
    (void)kill(getpid(), number);
    return NULL;
}

/* It is to take none of the signals itself. False: errno says why not. */
static bool pymod__start_ending_thread(void) {
    sigset_t all, before;
    if (pipe2(pymod__ending.pipe, O_CLOEXEC) != 0) {
        return false;
    }
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&pymod__ending.thread, NULL, pymod__end_by_signal, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        (void)close(pymod__ending.pipe[0]);
        (void)close(pymod__ending.pipe[1]);
    }
    errno = error;
    return error == 0;
}

/* A signal that has come before this takes its way, and this does not return. */
static void pymod__end_ending_thread(void) {
    unsigned char nothing = 0;
    Py_BEGIN_ALLOW_THREADS;
    while (write(pymod__ending.pipe[1], &nothing, 1) != 1) {
    }
    (void)pthread_join(pymod__ending.thread, NULL);
    Py_END_ALLOW_THREADS;
    (void)close(pymod__ending.pipe[0]);
    (void)close(pymod__ending.pipe[1]);
}

/* Takes the signals that would end the process, or gives those back that are still ours. */
static void pymod__take_signals(bool is_taken) {
    for (size_t i = 0; i < sizeof pymod__ending_signals / sizeof *pymod__ending_signals; i++) {
        int number = pymod__ending_signals[i];
        struct sigaction action;
        void (*expected)(int) = is_taken ? SIG_DFL : pymod__on_signal;
        if (sigaction(number, NULL, &action) != 0 || (action.sa_flags & SA_SIGINFO) || action.sa_handler != expected) {
            continue;
        }
        memset(&action, 0, sizeof action);
        action.sa_handler = is_taken ? pymod__on_signal : SIG_DFL;
        action.sa_flags = is_taken ? (int)((unsigned)SA_RESETHAND | SA_RESTART | SA_ONSTACK) : 0;
        (void)sigaction(number, &action, NULL);
    }
}

/* before_signals(function): from now on it is called before a signal ends the process, once; None ends that. Not to be
   called by two threads at once, nor by the function. */
static PyObject *pymod__before_signals(PyObject *module, PyObject *function) {
    (void)module;
    if (pymod__ending.function != NULL && pymod__ending.process == getpid()) {
        pymod__take_signals(false);
        pymod__end_ending_thread();
    }
    Py_CLEAR(pymod__ending.function);
    if (function != Py_None) {
        if (!pymod__start_ending_thread()) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        Py_INCREF(function);
        pymod__ending.function = function;
        pymod__ending.process = getpid();
        pymod__take_signals(true);
    }
    Py_RETURN_NONE;
}
#endif

static PyMethodDef pymod__functions[] = {
    {"start", pymod__start, METH_VARARGS,
     "start(interval_us, memory_limit, max_depth, output_path, is_quiet, signal_number=0)"},
    {"stop", pymod__stop, METH_NOARGS, "stop(): the data, and why it could not be saved, or None"},
    {"is_active", pymod__is_active, METH_NOARGS, "is_active(): whether a recording runs"},
    {"get_stats", pymod__get_stats, METH_NOARGS, "get_stats(): the figures of the recording"},
    {"snapshot", pymod__snapshot, METH_NOARGS, "snapshot(): the data so far"},
    {"dump", pymod__dump, METH_NOARGS, "dump(): the stacks of now, as bytes"},
    {"unpack", pymod__unpack_bytes, METH_O, "unpack(bytes): the data of which pack() made them"},
    {"format_of", pymod__format_of, METH_VARARGS, "format_of(path, name or None): of a format of exports.h, else 0"},
#ifndef PYPROF_NO_LISTEN
    {"listen", pymod__listen, METH_O, "listen(path or None): the path"},
    {"unlisten", pymod__unlisten, METH_NOARGS, "unlisten()"},
#endif
#ifndef PYPROF_NO_HEAP
    {"heap_start", pymod__heap_start, METH_VARARGS, "heap_start(sampling_bytes, memory_limit, max_depth)"},
    {"heap_stop", pymod__heap_stop, METH_NOARGS, "heap_stop(): no new samples"},
    {"heap_snapshot", pymod__heap_snapshot, METH_NOARGS, "heap_snapshot(): the data of what lives"},
    {"heap_get_stats", pymod__heap_get_stats, METH_NOARGS, "heap_get_stats(): the figures of heap sampling"},
    {"heap_shutdown", pymod__heap_shutdown, METH_NOARGS, "heap_shutdown(): the hooks are taken out"},
#endif
#if defined(PYPROF_MODULE_CONVERT)
    {"convert", pymod__convert, METH_O, "convert(words): pyprof-convert's exit status"},
#endif
#if defined(PYPROF_MODULE_PACKAGE)
    {"before_signals", pymod__before_signals, METH_O,
     "before_signals(function or None): called before a signal ends the process"},
#endif
    {"name_interpreter", pymod__name_interpreter, METH_VARARGS, "name_interpreter(name or None): the calling one"},
    {NULL, NULL, 0, NULL},
};

/* ---- the modules ---- */

static bool pymod__add(PyObject *module, const char *name, PyObject *value) {
    if (value == NULL || PyModule_AddObject(module, name, value) != 0) {
        Py_XDECREF(value);
        return false;
    }
    return true;
}

static PyObject *pymod__names_of_figures(void) {
#define PYMOD__NAME(name) #name,
    static const char *const names[] = {PYMOD__FIGURES(PYMOD__NAME)};
#undef PYMOD__NAME
    PyObject *tuple = PyTuple_New(PYMOD__FIGURE_COUNT);
    for (Py_ssize_t i = 0; tuple != NULL && i < PYMOD__FIGURE_COUNT; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (name == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, i, name);
        }
    }
    return tuple;
}

static int pymod__execute_engine(PyObject *module) {
    static const char doc[] = "A recording runs already: the host's, or one that was begun by other code.";
    pymod__state *state = pymod__state_of(module);
    state->already_active = PyErr_NewExceptionWithDoc("pyprof.AlreadyActiveError", doc, PyExc_RuntimeError, NULL);
    state->data_type = pymod__make_data_type(module);
    if (state->already_active == NULL || state->data_type == NULL) {
        return -1;
    }
    Py_INCREF(state->already_active);
    Py_INCREF((PyObject *)state->data_type);
    return pymod__add(module, "AlreadyActiveError", state->already_active) &&
                   pymod__add(module, "Data", (PyObject *)state->data_type) &&
                   pymod__add(module, "figures", pymod__names_of_figures())
               ? 0
               : -1;
}

static int pymod__traverse(PyObject *module, visitproc visit, void *arg) {
    pymod__state *state = pymod__state_of(module);
    if (state != NULL) {
        Py_VISIT(state->data_type);
        Py_VISIT(state->already_active);
    }
    return 0;
}

static int pymod__clear(PyObject *module) {
    pymod__state *state = pymod__state_of(module);
    if (state != NULL) {
        Py_CLEAR(state->data_type);
        Py_CLEAR(state->already_active);
    }
    return 0;
}

static void pymod__free(void *module) {
    pymod__clear((PyObject *)module);
}

/* Nothing is shared by interpreters but the recording itself, which looks after itself. */
#if PY_VERSION_HEX >= 0x030D0000
#define PYMOD__SLOTS(execute)                                                                                          \
    {                                                                                                                  \
        {Py_mod_exec, (void *)(uintptr_t)(execute)},                                                                   \
            {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}, {Py_mod_gil, Py_MOD_GIL_NOT_USED}, { \
            0, NULL                                                                                                    \
        }                                                                                                              \
    }
#elif PY_VERSION_HEX >= 0x030C0000
#define PYMOD__SLOTS(execute)                                                                                          \
    {                                                                                                                  \
        {Py_mod_exec, (void *)(uintptr_t)(execute)},                                                                   \
            {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}, {                                    \
            0, NULL                                                                                                    \
        }                                                                                                              \
    }
#else
#define PYMOD__SLOTS(execute)                                                                                          \
    {                                                                                                                  \
        {Py_mod_exec, (void *)(uintptr_t)(execute)}, {                                                                 \
            0, NULL                                                                                                    \
        }                                                                                                              \
    }
#endif

static PyModuleDef_Slot pymod__engine_slots[] = PYMOD__SLOTS(pymod__execute_engine);

static PyModuleDef pymod__engine = {
    PyModuleDef_HEAD_INIT, "pyprof._engine", "What of the module pyprof is C; not for others.",
    sizeof(pymod__state),  pymod__functions, pymod__engine_slots,
    pymod__traverse,       pymod__clear,     pymod__free,
};

/* Within a package the engine is all that is C, and the Python is files. Elsewhere it is what pyprof-ctl attach loads, as it
   imports nothing. */
PYPROF_MODULE_API PyObject *PyInit__engine(void);

PYPROF_MODULE_API PyObject *PyInit__engine(void) {
    return PyModuleDef_Init(&pymod__engine);
}

#ifndef PYPROF_MODULE_PACKAGE

static PyObject *pymod__make_engine(void) {
    PyObject *types = PyImport_ImportModule("types");
    PyObject *make = types != NULL ? PyObject_GetAttrString(types, "SimpleNamespace") : NULL;
    PyObject *nothing = make != NULL ? PyTuple_New(0) : NULL;
    PyObject *name = nothing != NULL ? Py_BuildValue("{ss}", "name", pymod__engine.m_name) : NULL;
    PyObject *spec = name != NULL ? PyObject_Call(make, nothing, name) : NULL;
    PyObject *engine = spec != NULL ? PyModule_FromDefAndSpec(&pymod__engine, spec) : NULL;
    Py_XDECREF(types);
    Py_XDECREF(make);
    Py_XDECREF(nothing);
    Py_XDECREF(name);
    Py_XDECREF(spec);
    if (engine != NULL && PyModule_ExecDef(engine, &pymod__engine) != 0) {
        Py_CLEAR(engine);
    }
    return engine;
}

/* tools/python/pyprof/__init__.py: change it there, and run tools/embed.py. */
static const char *const pymod__source[] = {
    /* clang-format off */
    "\"\"\"A sampling profiler: all threads of all interpreters of this process, with true stacks and true times.",
    "",
    "    import pyprof",
    "    with pyprof.Profiler(interval_ms=1) as p:",
    "        work()",
    "    p.profile.print_stats(limit=10)",
    "    p.profile.save(\"work.svg\")",
    "",
    "There is one recording in a process: the host's, where Python is embedded in a program that records itself, or one that",
    "is begun here. Who begins a second one gets a RuntimeError.",
    "",
    "A sample stands for the time around it. Times are in seconds, and in nanoseconds where a name ends in _ns. Time in which a",
    "thread only waited is left out of figures and files unless include_idle is asked for.",
    "\"\"\"",
    "import collections.abc",
    "import functools",
    "import os",
    "import struct",
    "import sys",
    "import time",
    "from typing import NamedTuple",
    "",
    "if \"_engine\" not in globals():  # a host that has this module built in has put it here",
    "    from . import _engine",
    "",
    "AlreadyActiveError = _engine.AlreadyActiveError",
    "",
    "__all__ = [",
    "    \"AlreadyActiveError\", \"Frame\", \"Profile\", \"Profiler\", \"Row\", \"Sample\", \"Stats\", \"Thread\", \"ThreadProfiler\", \"dump\",",
    "    \"is_active\", \"listen\", \"name_interpreter\", \"native_unwinding_available\", \"profile\", \"record\", \"register_thread\",",
    "    \"set_native_unwinding\", \"snapshot\", \"start\", \"stats\", \"stop\", \"top\", \"unlisten\", \"unregister_thread\",",
    "]",
    "if hasattr(_engine, \"heap_start\"):  # a host may leave it out",
    "    __all__.append(\"heap\")",
    "",
    "# ---- how to record ----",
    "",
    "# What the signature shows, and no caller's own 10 is: so both interval_ms and rate_hz are seen.",
    "_INTERVAL_MS = float(\"10\")",
    "",
    "",
    "def _interval_us(interval_ms, rate_hz):",
    "    if rate_hz is None:",
    "        interval_us = _number(\"interval_ms\", interval_ms) * 1000",
    "    elif interval_ms is not _INTERVAL_MS:",
    "        raise ValueError(\"interval_ms and rate_hz say the same: one of them is enough\")",
    "    else:",
    "        rate = _number(\"rate_hz\", rate_hz)",
    "        interval_us = 1e6 / rate if rate > 0 else 0",
    "    if not 49.5 <= interval_us <= 10_000_000:",
    "        raise ValueError(\"samples can be 0.05 ms to 10 s apart (20000 to 0.1 a second), not %.6g ms\" % (interval_us / 1000))",
    "    return max(round(interval_us), 50)",
    "",
    "",
    "def _number(name, value):",
    "    if isinstance(value, (str, bytes)):",
    "        raise TypeError(\"%s has to be a number, not %s\" % (name, type(value).__name__))",
    "    try:",
    "        return float(value)",
    "    except TypeError:",
    "        raise TypeError(\"%s has to be a number, not %s\" % (name, type(value).__name__)) from None",
    "",
    "",
    "def _settings(interval_ms=_INTERVAL_MS, output_path=None, memory_limit_mb=64, *, rate_hz=None, quiet=False, max_depth=1024):",
    "    \"\"\"What _engine.start takes, checked.\"\"\"",
    "    interval_us = _interval_us(interval_ms, rate_hz)",
    "    memory_limit = _number(\"memory_limit_mb\", memory_limit_mb) * 1024 * 1024",
    "    if not 1024 * 1024 <= memory_limit < 2 ** 62:",
    "        raise ValueError(\"memory_limit_mb is %r: it has to be at least 1\" % (memory_limit_mb,))",
    "    if not isinstance(max_depth, int):",
    "        raise TypeError(\"max_depth has to be a whole number, not %s\" % type(max_depth).__name__)",
    "    if not 16 <= max_depth <= 65536:",
    "        raise ValueError(\"max_depth is %d: it has to be 16 to 65536\" % max_depth)",
    "    return interval_us, int(memory_limit), max_depth, _path(output_path), bool(quiet)",
    "",
    "",
    "def _path(path):",
    "    \"\"\"As bytes, and where it is now, also if the program goes to another folder.\"\"\"",
    "    if path is None:",
    "        return None",
    "    path = os.fsencode(path)",
    "    if not path:",
    "        raise ValueError(\"output_path is empty\")",
    "    if b\"\\0\" in path:",
    "        raise ValueError(\"output_path has a null byte\")",
    "    if _engine.format_of(path, None):",
    "        raise ValueError(\"output_path: a file that ends so is written by Profile.save() only: %s\" % os.fsdecode(path))",
    "    return path if os.path.isabs(path) else os.path.join(os.getcwdb().replace(b\"%\", b\"%%\"), path)",
    "",
    "",
    "def _check_writable(path):",
    "    \"\"\"Raises the OSError that saving would end with, as far as that is known before.\"\"\"",
    "    import tempfile",
    "    folder, name = os.path.split(path)",
    "    if b\"%\" in path.replace(b\"%%\", b\"\"):  # %p, %n and %t are filled in by the recording",
    "        if b\"%\" in folder.replace(b\"%%\", b\"\"):",
    "            return",
    "        target = os.path.join(folder.replace(b\"%%\", b\"%\"), name)",
    "    else:",
    "        target = os.path.realpath(path.replace(b\"%%\", b\"%\"))",
    "    try:",
    "        if os.path.isdir(target):",
    "            raise IsADirectoryError(21, os.strerror(21))",
    "        if os.path.exists(target) and not os.path.isfile(target):  # a pipe, a device: written into",
    "            if not os.access(target, os.W_OK):",
    "                raise PermissionError(13, os.strerror(13))",
    "            return",
    "        descriptor, probe = tempfile.mkstemp(prefix=b\".pyprof-\", dir=os.path.dirname(target))",
    "        os.close(descriptor)",
    "        os.unlink(probe)",
    "    except OSError as error:",
    "        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None",
    "",
    "",
    "def _begin(settings, signal_number=0):",
    "    path = settings[3]",
    "    if path is not None and not _engine.is_active():",
    "        _check_writable(path)",
    "    _engine.start(*settings, signal_number)",
    "",
    "",
    "def _end():",
    "    \"\"\"The profile, and why it could not be saved, or None.\"\"\"",
    "    data, error = _engine.stop()",
    "    profile = _profile_of(data)",
    "    if error is not None:",
    "        error.profile = profile",
    "    return profile, error",
    "",
    "",
    "def start(interval_ms=_INTERVAL_MS, output_path=None, memory_limit_mb=64, *, rate_hz=None, quiet=False, max_depth=1024):",
    "    \"\"\"Begin to record all threads of all interpreters.",
    "",
    "    interval_ms: mean time between samples of a thread, 0.05 to 10,000; or rate_hz: samples a second.",
    "    output_path: where stop() also saves the profile, in the format that its ending says; %p in it is the process's id,",
    "    %n the program's name, %t the time of the start, and %% one %.",
    "    memory_limit_mb: what the recording may hold; at least 1.",
    "    quiet: send no signals; the innermost frames of running threads may then be \"[unsettled]\".",
    "    max_depth: frames of a stack that are kept, 16 to 65,536.",
    "",
    "    Raises RuntimeError (AlreadyActiveError) while a recording runs, ValueError for a figure out of its range or both",
    "    interval_ms and rate_hz, and OSError for an output_path that cannot be written.",
    "    \"\"\"",
    "    _begin(_settings(interval_ms, output_path, memory_limit_mb, rate_hz=rate_hz, quiet=quiet, max_depth=max_depth))",
    "",
    "",
    "def stop():",
    "    \"\"\"End the recording, save it to its output_path if it has one, and return its Profile.",
    "",
    "    Raises RuntimeError if nothing is recorded, and OSError if it could not be saved: then the recording has ended all the",
    "    same, and the exception's attribute profile has it.",
    "    \"\"\"",
    "    profile, error = _end()",
    "    if error is not None:",
    "        raise error",
    "    return profile",
    "",
    "",
    "def is_active():",
    "    \"\"\"Whether a recording runs: one that was begun here, or the host's.\"\"\"",
    "    return _engine.is_active()",
    "",
    "",
    "def snapshot():",
    "    \"\"\"The Profile of what was recorded so far; the recording goes on. Raises RuntimeError if nothing is recorded.\"\"\"",
    "    return _profile_of(_engine.snapshot())",
    "",
    "",
    "def dump(file=None):",
    "    \"\"\"The stacks of this moment as text, leaf first, one paragraph a thread. It is also written to file, if one is given:",
    "    a text file, or the number of a descriptor. Raises RuntimeError if nothing is recorded.\"\"\"",
    "    data = _engine.dump()",
    "    text = _text(data)",
    "    if isinstance(file, int):",
    "        while data:",
    "            data = data[os.write(file, data):]",
    "    elif file is not None:",
    "        file.write(text)",
    "    return text",
    "",
    "",
    "def name_interpreter(name):",
    "    \"\"\"Name the calling interpreter: \"[interpreter 1: NAME]\" stands before its frames. None takes the name away.\"\"\"",
    "    if name is not None and not isinstance(name, str):",
    "        raise TypeError(\"a name has to be a str or None, not %s\" % type(name).__name__)",
    "    _engine.name_interpreter(name)",
    "",
    "",
    "def listen(path=None):",
    "    \"\"\"Listen on a Unix socket, so that pyprof-ctl can look into this process, and answer its path. By default that is",
    "    pyprof-UID/PID.sock in $XDG_RUNTIME_DIR, or else in /tmp, where pyprof-ctl finds it by the process's id.\"\"\"",
    "    if path is not None:",
    "        path = os.fsencode(path)",
    "        if b\"\\0\" in path:",
    "            raise ValueError(\"path has a null byte\")",
    "    return _engine.listen(path)",
    "",
    "",
    "def unlisten():",
    "    \"\"\"Listen no more. A recording goes on, whoever began it.\"\"\"",
    "    _engine.unlisten()",
    "",
    "",
    "def register_thread():",
    "    \"\"\"Does nothing: all threads are seen. For programs that know profilers which need it.\"\"\"",
    "",
    "",
    "def unregister_thread():",
    "    \"\"\"Does nothing: all threads are seen.\"\"\"",
    "",
    "",
    "class ThreadProfiler:",
    "    \"\"\"A context manager that does nothing: all threads are seen. For programs that know profilers which need it.\"\"\"",
    "",
    "    def __enter__(self):",
    "        return self",
    "",
    "    def __exit__(self, kind, value, traceback):",
    "        return None",
    "",
    "",
    "def native_unwinding_available():",
    "    \"\"\"Whether frames of C and C++ can be recorded: not yet.\"\"\"",
    "    return False",
    "",
    "",
    "def set_native_unwinding(flag):",
    "    \"\"\"Ask for frames of C and C++. Raises RuntimeError if they are wanted: they cannot be recorded yet.\"\"\"",
    "    if flag:",
    "        raise RuntimeError(\"frames of C and C++ cannot be recorded yet\")",
    "",
    "",
    "# ---- figures ----",
    "",
    "class Stats(NamedTuple):",
    "    \"\"\"What a recording did, and what it could not do. All counts are since its start; pyprof.h tells of each.\"\"\"",
    "    ticks: int",
    "    ticks_missed: int",
    "    samples: int",
    "    samples_idle: int",
    "    samples_signalled: int",
    "    samples_partial: int",
    "    lost_late: int",
    "    lost_pending: int",
    "    lost_unsettled: int",
    "    lost_unreadable: int",
    "    lost_memory: int",
    "    truncated_depth: int",
    "    truncated_memory: int",
    "    frames_unresolved: int",
    "    timeline_coarsened: int",
    "    signals: int",
    "    calls_interrupted: int",
    "    threads: int",
    "    bytes: int",
    "    bytes_peak: int",
    "    sampler_cpu_ns: int",
    "    samples_unasked: int",
    "    threads_unasked: int",
    "    signal_changes: int",
    "    signal_number: int",
    "    samples_held: int",
    "    holds_failed: int",
    "    samples_jit: int",
    "    duration_ns: int",
    "",
    "    @property",
    "    def collected_samples(self):",
    "        \"\"\"Stacks that are in the profile: samples.\"\"\"",
    "        return self.samples",
    "",
    "    @property",
    "    def dropped_samples(self):",
    "        \"\"\"Samples that were lost, for whatever reason; their time is with the samples beside them.\"\"\"",
    "        return sum(getattr(self, name) for name in self._fields if name.startswith(\"lost_\"))",
    "",
    "    @property",
    "    def overhead_percent(self):",
    "        \"\"\"CPU time of the sampler's thread, as a part of the time that the recording took.\"\"\"",
    "        return 100 * self.sampler_cpu_ns / self.duration_ns if self.duration_ns else 0.0",
    "",
    "",
    "def stats():",
    "    \"\"\"The Stats of the recording that runs, or None if none does. Those of one that has ended: Profile.stats.\"\"\"",
    "    return Stats(*_engine.get_stats()) if is_active() else None",
    "",
    "",
    "class Frame(NamedTuple):",
    "    \"\"\"A line of a function on a stack. Where no file is known, as for \"[truncated]\", filename is empty and lineno 0.\"\"\"",
    "    function_name: str",
    "    filename: str",
    "    lineno: int",
    "    is_native: bool = False",
    "",
    "",
    "class Sample(NamedTuple):",
    "    \"\"\"A stretch of a thread's time with one stack. timestamp_ns is since the start of the recording; frames stand from the",
    "    outermost in; sample_count is how many looks at the thread it comes of.\"\"\"",
    "    timestamp_ns: int",
    "    duration_ns: int",
    "    thread_id: int",
    "    thread_name: str",
    "    interpreter: int",
    "    is_idle: bool",
    "    frames: tuple",
    "    sample_count: int = 1",
    "",
    "",
    "class Thread(NamedTuple):",
    "    \"\"\"What a thread took, in seconds: wall without waiting, which is apart. thread_id is 0 for several of one name.\"\"\"",
    "    name: str",
    "    thread_id: int",
    "    wall: float",
    "    waiting: float",
    "    cpu: float",
    "    gil: float",
    "    samples: int",
    "",
    "",
    "class Row(NamedTuple):",
    "    \"\"\"What a function or a line took: itself, and with what it called, in seconds (samples where these are the metric).\"\"\"",
    "    name: str",
    "    filename: str",
    "    lineno: int",
    "    self: float",
    "    total: float",
    "    samples: int",
    "    self_percent: float",
    "    total_percent: float",
    "",
    "",
    "# ---- what files and figures show ----",
    "",
    "_FORMATS = {\"collapsed\": 1, \"speedscope\": 2, \"svg\": 3, \"pprof\": 4, \"table\": 5, \"pprof-plain\": 6}",
    "_FOREIGN = 1000  # from here on they are those of exports.h",
    "_METRICS = {\"wall\": 0, \"cpu\": 1, \"gil\": 2, \"samples\": 3}",
    "_DETAILS = {\"line\": 0, \"function\": 1}",
    "",
    "",
    "def _choice(what, name, choices):",
    "    if name not in choices:",
    "        raise ValueError(\"%s has to be one of %s, not %r\" % (what, \", \".join(choices), name))",
    "    return choices[name]",
    "",
    "",
    "def _format(path, name):",
    "    \"\"\"Its number; 0 = pyprof.h knows it by the path's ending.\"\"\"",
    "    if name is not None and not isinstance(name, str):",
    "        raise TypeError(\"format has to be a str or None, not %s\" % type(name).__name__)",
    "    if name is not None and name in _FORMATS:",
    "        return _FORMATS[name]",
    "    number = _engine.format_of(path, name)",
    "    if number == 0 and name is not None:",
    "        others = (\"pstats\", \"firefox\", \"perfetto\", \"jsonl\")",
    "        _choice(\"format\", name, dict(_FORMATS, **{other: 0 for other in others if _engine.format_of(b\"\", other)}))",
    "    return number",
    "",
    "",
    "def _check_limit(limit):",
    "    \"\"\"How many rows are shown: None = all.\"\"\"",
    "    if limit is not None and not isinstance(limit, int):",
    "        raise TypeError(\"limit has to be a whole number or None, not %s\" % type(limit).__name__)",
    "    if limit is not None and limit < 0:",
    "        raise ValueError(\"limit is %d: it has to be 0 or more, or None for all rows\" % limit)",
    "",
    "",
    "def _filter(name, value):",
    "    if value is not None and not isinstance(value, str):",
    "        raise TypeError(\"%s has to be a str or None, not %s\" % (name, type(value).__name__))",
    "    return value",
    "",
    "",
    "def _output(format=None, *, metric=\"wall\", detail=\"line\", include_idle=False, merge_threads=False, thread=None,",
    "            interpreter=None, file=None, function=None, only_mine=False, min_share=0.0):",
    "    \"\"\"The fields of a pyprof_output, in their order.\"\"\"",
    "    if isinstance(interpreter, int):",
    "        interpreter = str(interpreter)",
    "    if file is not None:",
    "        file = os.fsdecode(file)",
    "    return (format if isinstance(format, int) else _format(b\"\", format), _choice(\"metric\", metric, _METRICS),",
    "            _choice(\"detail\", detail, _DETAILS), bool(include_idle), bool(merge_threads), _filter(\"thread\", thread),",
    "            _filter(\"interpreter\", interpreter), file, _filter(\"function\", function), bool(only_mine),",
    "            _number(\"min_share\", min_share))",
    "",
    "",
    "# ---- a profile ----",
    "",
    "# What _engine packs: see pyprof_module.h.",
    "_HEAD = struct.Struct(\"<8sQQQQQIIIIIIIIQ\")",
    "_NODE = struct.Struct(\"<IIIIIiiiII6Q\")",
    "_SPAN = struct.Struct(\"<IIQQQII\")",
    "_NO_NODE = 0xFFFFFFFF",
    "",
    "",
    "def _text(data):",
    "    \"\"\"Names may hold lone surrogates, as Python lets them, or bytes that are no text, as the system does.\"\"\"",
    "    try:",
    "        return data.decode(\"utf-8\", \"surrogatepass\")",
    "    except UnicodeDecodeError:",
    "        return data.decode(\"utf-8\", \"surrogateescape\")",
    "",
    "",
    "class _Packed:",
    "    \"\"\"Reads what a profile has from its bytes, as it is asked for.\"\"\"",
    "",
    "    def __init__(self, data):",
    "        self.data = data",
    "        self.head = _HEAD.unpack_from(data)",
    "        self.node_count, self.span_count = self.head[1:3]",
    "        self.nodes = _HEAD.size + 8 * self.head[14]",
    "        self.spans = self.nodes + _NODE.size * self.node_count",
    "        self.texts = self.spans + _SPAN.size * self.span_count",
    "        self.known = {}  # frames by their nodes",
    "",
    "    def node(self, number):",
    "        return _NODE.unpack_from(self.data, self.nodes + _NODE.size * number)",
    "",
    "    def span(self, number):",
    "        return _SPAN.unpack_from(self.data, self.spans + _SPAN.size * number)",
    "",
    "    def text(self, begin, size):",
    "        return self.data[self.texts + begin:self.texts + begin + size]",
    "",
    "    def frame(self, number):",
    "        \"\"\"The frame and the caller of a node; of a thread its name and None.\"\"\"",
    "        known = self.known.get(number)",
    "        if known is None:",
    "            node = self.node(number)",
    "            name = _text(self.text(*node[1:3]))",
    "            known = (Frame(name, _text(self.text(*node[3:5])), node[5]), node[0]) if node[0] != _NO_NODE else (name, node[7])",
    "            self.known[number] = known",
    "        return known",
    "",
    "    def stack(self, number):",
    "        \"\"\"(frames, thread's name, its id) of a node.\"\"\"",
    "        frames = []",
    "        frame, parent = self.frame(number)",
    "        while isinstance(frame, Frame):",
    "            frames.append(frame)",
    "            frame, parent = self.frame(parent)",
    "        return tuple(reversed(frames)), frame, parent",
    "",
    "    def sample(self, number):",
    "        _, node, start_ns, wall_ns, _, count, flags = self.span(number)",
    "        frames, thread, thread_id = self.stack(node)",
    "        return Sample(start_ns, wall_ns, thread_id, thread, _interpreter_of(frames), bool(flags & 1), frames, count)",
    "",
    "    def identities(self):",
    "        \"\"\"[(parent, what tells a node from others of that parent, figures)]\"\"\"",
    "        found = []",
    "        for number in range(self.node_count):",
    "            node = self.node(number)",
    "            found.append((node[0], (self.text(*node[1:3]), self.text(*node[3:5])) + node[5:9], node[10:]))",
    "        return found",
    "",
    "",
    "def _interpreter_of(frames):",
    "    \"\"\"The innermost mark tells; what has none is the main interpreter's.\"\"\"",
    "    for frame in reversed(frames):",
    "        if not frame.filename and frame.function_name.startswith(\"[interpreter \"):",
    "            return int(frame.function_name[13:].partition(\":\")[0].rstrip(\"]\"))",
    "    return 0",
    "",
    "",
    "class _Samples(collections.abc.Sequence):",
    "    \"\"\"The samples of a profile, each made when it is asked for.\"\"\"",
    "",
    "    def __init__(self, packed, numbers):",
    "        self._packed = packed",
    "        self._numbers = numbers",
    "",
    "    def __len__(self):",
    "        return len(self._numbers)",
    "",
    "    def __getitem__(self, index):",
    "        if isinstance(index, slice):",
    "            return _Samples(self._packed, self._numbers[index])",
    "        try:",
    "            number = self._numbers[index]",
    "        except IndexError:",
    "            raise IndexError(\"there are %d samples\" % len(self)) from None",
    "        return self._packed.sample(number)",
    "",
    "    def __repr__(self):",
    "        return \"<%d samples>\" % len(self)",
    "",
    "",
    "def _thread_names(data, filters):",
    "    \"\"\"Of the threads of which something passes.\"\"\"",
    "    packed = _Packed(data.pack(*_output(include_idle=True, **filters)))",
    "    return [packed.frame(node)[0] for node, (parent, _, _) in enumerate(packed.identities()) if parent == _NO_NODE]",
    "",
    "",
    "def _check_filters(data, **filters):",
    "    \"\"\"Says which of these it is that nothing passes, if there is something at all.\"\"\"",
    "    given = {name: value for name, value in filters.items() if value is not None}",
    "    names = _thread_names(data, {}) if given else []",
    "    for count, name in enumerate(given, 1):",
    "        left = _thread_names(data, dict(list(given.items())[:count]))",
    "        if names and not left:",
    "            raise ValueError(\"%s=%r: no stack is of it, among those of %s\" % (",
    "                name, given[name], \", \".join(map(repr, names[:9])) + \", ...\" * (len(names) > 9)))",
    "        names = left",
    "",
    "",
    "class Profile:",
    "    \"\"\"A finished recording, or a copy of one that goes on. Immutable; can be pickled.\"\"\"",
    "",
    "    __slots__ = (\"_data\", \"_facts\", \"_packed_data\", \"_platform\", \"__weakref__\")",
    "",
    "    def __new__(cls, *args, **kwargs):",
    "        raise TypeError(\"a Profile comes from stop(), snapshot(), record() or a Profiler\")",
    "",
    "    def __setattr__(self, name, value):",
    "        raise AttributeError(\"a Profile cannot be changed\")",
    "",
    "    def __delattr__(self, name):",
    "        raise AttributeError(\"a Profile cannot be changed\")",
    "",
    "    def __reduce__(self):",
    "        return _restore, (self._packed.data, self._platform)",
    "",
    "    def __copy__(self):",
    "        return self",
    "",
    "    def __deepcopy__(self, memo):",
    "        return self",
    "",
    "    def __repr__(self):",
    "        return \"<pyprof.Profile of %.3f s, %d samples>\" % (self.duration, self.stats.samples)",
    "",
    "    @property",
    "    def _packed(self):",
    "        if self._packed_data is None:",
    "            object.__setattr__(self, \"_packed_data\", _Packed(self._data.pack(*_output(include_idle=True))))",
    "        return self._packed_data",
    "",
    "    @property",
    "    def start_time(self):",
    "        \"\"\"When the recording began: a datetime, in UTC.\"\"\"",
    "        return self._time(self._facts[0])",
    "",
    "    @property",
    "    def end_time(self):",
    "        \"\"\"When it ended, or the snapshot was taken.\"\"\"",
    "        return self._time(self._facts[0] + self._facts[1])",
    "",
    "    @staticmethod",
    "    def _time(ns):",
    "        import datetime",
    "        return (datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)",
    "                + datetime.timedelta(microseconds=ns // 1000))",
    "",
    "    @property",
    "    def duration(self):",
    "        \"\"\"How long it took, in seconds.\"\"\"",
    "        return self._facts[1] / 1e9",
    "",
    "    @property",
    "    def interval_ms(self):",
    "        \"\"\"The mean time between samples of a thread.\"\"\"",
    "        return self._facts[2] / 1000",
    "",
    "    @property",
    "    def python_version(self):",
    "        \"\"\"The interpreter's, as \"3.11.7\"; empty if it is not known.\"\"\"",
    "        return _text(self._facts[3])",
    "",
    "    @property",
    "    def platform(self):",
    "        \"\"\"The system on which it was recorded, as \"Linux-6.1.0-x86_64\".\"\"\"",
    "        return self._platform",
    "",
    "    @property",
    "    def stats(self):",
    "        \"\"\"The Stats of the recording, as they were when this was given away.\"\"\"",
    "        return Stats(*self._facts[4])",
    "",
    "    @property",
    "    def dropped_count(self):",
    "        \"\"\"Samples that were lost, for whatever reason; their time is with the samples beside them.\"\"\"",
    "        return self.stats.dropped_samples",
    "",
    "    @property",
    "    def samples(self):",
    "        \"\"\"A sequence of all Samples, those of one thread after the other, each in the order of time. They are made as they",
    "        are asked for; slices are such sequences, too.\"\"\"",
    "        return _Samples(self._packed, range(self._packed.span_count))",
    "",
    "    @property",
    "    def threads(self):",
    "        \"\"\"What each thread took, as a tuple of Threads, in the order in which they were met.\"\"\"",
    "        packed = self._packed",
    "        roots, sums, threads = [], {}, []",
    "        for number, (parent, identity, figures) in enumerate(packed.identities()):",
    "            root = number if parent == _NO_NODE else roots[parent]",
    "            roots.append(root)",
    "            sums[root] = [a + b for a, b in zip(sums.get(root, (0,) * 6), figures)]",
    "        for root, (samples, _, wall, idle, cpu, gil) in sums.items():",
    "            name, thread_id = packed.frame(root)",
    "            threads.append(Thread(name, thread_id, (wall - idle) / 1e9, idle / 1e9, cpu / 1e9, gil / 1e9, samples))",
    "        return tuple(threads)",
    "",
    "    def functions(self, metric=\"wall\", include_idle=False):",
    "        \"\"\"Rows of what each function took in all threads, hottest first. metric: wall, cpu, gil or samples.\"\"\"",
    "        return self._rows(metric, include_idle, \"function\")",
    "",
    "    def lines(self, metric=\"wall\", include_idle=False):",
    "        \"\"\"Rows of what each line took in all threads, hottest first. metric: wall, cpu, gil or samples.\"\"\"",
    "        return self._rows(metric, include_idle, \"line\")",
    "",
    "    def _rows(self, metric, include_idle, detail):",
    "        unit = 1 if metric == \"samples\" else 1e9",
    "        rows = self._data.rows(*_output(metric=metric, include_idle=include_idle, detail=detail))",
    "        return [Row(_text(name), _text(path), line, own / unit, total / unit, samples, 100 * share, 100 * total_share)",
    "                for name, path, line, own, total, _, samples, share, total_share in rows]",
    "",
    "    def print_stats(self, limit=20, sort=\"self\", file=None):",
    "        \"\"\"Print the functions that took most wall time, at most so many (None: all), to file or standard output. sort:",
    "        self, total, samples or name.\"\"\"",
    "        print(self._table(limit, sort), end=\"\", file=file)",
    "",
    "    def _table(self, limit, sort):",
    "        _check_limit(limit)",
    "        keys = {\"self\": lambda row: (-row.self, -row.total), \"total\": lambda row: (-row.total, -row.self),",
    "                \"samples\": lambda row: (-row.samples, -row.self), \"name\": lambda row: (row.name, row.filename, row.lineno)}",
    "        rows = sorted(self.functions(), key=_choice(\"sort\", sort, keys))",
    "        stats = self.stats",
    "        lines = [\"%.3f s, %d samples, %d of threads that waited, %d lost\" % (",
    "            self.duration, stats.samples, stats.samples_idle, stats.dropped_samples),",
    "            \"\", \"   self s          total s         samples  function\"]",
    "        for row in rows[:limit]:",
    "            place = \" (%s:%d)\" % (row.filename, row.lineno) if row.filename else \"\"",
    "            text = \"%9.3f %5.1f%% %9.3f %5.1f%% %8d  %s%s\" % (",
    "                row.self, row.self_percent, row.total, row.total_percent, row.samples, row.name, place)",
    "            lines.append(text.encode(\"utf-8\", \"backslashreplace\").decode())",
    "        if limit is not None and len(rows) > limit:",
    "            lines.append(\"... and %d more\" % (len(rows) - limit))",
    "        return \"\\n\".join(lines) + \"\\n\"",
    "",
    "    def filter(self, thread=None, file=None, function=None, interpreter=None):",
    "        \"\"\"The Profile of only those stacks that pass all of these: of a thread of this name; with a frame of a file whose",
    "        path begins so, or of a function of this qualified name (of such a file, if both are given); of the interpreter",
    "        with this id or name. In a text * stands for any text.\"\"\"",
    "        fields = _output(include_idle=True, thread=thread, file=file, function=function, interpreter=interpreter)",
    "        return _profile_of(_engine.unpack(self._data.pack(*fields)), self._platform)",
    "",
    "    def save(self, path, format=None, *, metric=\"wall\", detail=\"line\", include_idle=False, merge_threads=False,",
    "             thread=None, interpreter=None, file=None, function=None, only_mine=False, min_share=0.0):",
    "        \"\"\"Write it to a file, whole or not at all. format: collapsed, speedscope, svg, pprof, pprof-plain or table, in the",
    "        package also pstats, firefox, perfetto and jsonl; without it the path's ending says which. The others choose what is shown, as pyprof_output does in pyprof.h: metric (wall,",
    "        cpu, gil, samples), detail (line, function), and so on. A filter that no stack passes is a ValueError.\"\"\"",
    "        path = os.fsencode(path)",
    "        if b\"\\0\" in path:",
    "            raise ValueError(\"the path has a null byte\")",
    "        _check_filters(self._data, thread=thread, interpreter=interpreter, file=file, function=function)",
    "        fields = _output(_format(path, format), metric=metric, detail=detail, include_idle=include_idle, merge_threads=merge_threads,",
    "                         thread=thread, interpreter=interpreter, file=file, function=function, only_mine=only_mine,",
    "                         min_share=min_share)",
    "        if fields[0] < _FOREIGN:",
    "            self._data.save(path, fields)",
    "        else:",
    "            _write_whole(path, self._data.write(*fields))",
    "",
    "    def to_speedscope(self):",
    "        \"\"\"The document of speedscope.app, as dicts and lists.\"\"\"",
    "        import json",
    "        return json.loads(self._data.write(*_output(\"speedscope\")))",
    "",
    "    def to_collapsed(self):",
    "        \"\"\"Collapsed stacks, \"thread NAME;frame;frame MICROSECONDS\", one a line.\"\"\"",
    "        return _text(self._data.write(*_output(\"collapsed\")))",
    "",
    "    def to_pprof(self):",
    "        \"\"\"A file of pprof's format, as bytes.\"\"\"",
    "        return self._data.write(*_output(\"pprof\"))",
    "",
    "    def __sub__(self, earlier):",
    "        \"\"\"What was recorded between two snapshots of one recording, as a Profile.\"\"\"",
    "        if not isinstance(earlier, Profile):",
    "            return NotImplemented",
    "        return _profile_of(_engine.unpack(_difference(self._packed, earlier._packed)), self._platform)",
    "",
    "",
    "def _write_whole(path, data):",
    "    \"\"\"Beside the file first, then renamed; what exists and is no regular file is written into.\"\"\"",
    "    import tempfile",
    "    target = os.path.realpath(path)",
    "    if os.path.exists(target) and not os.path.isfile(target):",
    "        with open(target, \"wb\") as file:",
    "            file.write(data)",
    "        return",
    "    try:",
    "        descriptor, beside = tempfile.mkstemp(prefix=b\".pyprof-\", dir=os.path.dirname(target))",
    "    except OSError as error:",
    "        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None",
    "    try:",
    "        with open(descriptor, \"wb\") as file:",
    "            file.write(data)",
    "        mask = os.umask(0)",
    "        os.umask(mask)",
    "        os.chmod(beside, 0o666 & ~mask)",
    "        os.replace(beside, target)",
    "    except BaseException:",
    "        os.unlink(beside)",
    "        raise",
    "",
    "",
    "def _profile_of(data, platform=None):",
    "    if platform is None:",
    "        system = os.uname()",
    "        platform = \"%s-%s-%s\" % (system.sysname, system.release, system.machine)",
    "    profile = object.__new__(Profile)",
    "    for name, value in ((\"_data\", data), (\"_facts\", data.facts()), (\"_packed_data\", None), (\"_platform\", platform)):",
    "        object.__setattr__(profile, name, value)",
    "    return profile",
    "",
    "",
    "def _restore(data, platform):",
    "    \"\"\"A Profile from its pickle; ValueError if that is broken.\"\"\"",
    "    if not isinstance(data, bytes) or not isinstance(platform, str):",
    "        raise ValueError(\"not a whole profile: its pickle is not two texts\")",
    "    return _profile_of(_engine.unpack(data), platform)",
    "",
    "",
    "# ---- the difference of two snapshots ----",
    "",
    "_NOT_ONE = \"the second profile is no earlier snapshot of the first one's recording\"",
    "",
    "",
    "def _places_in(later, earlier):",
    "    \"\"\"Which node of the later profile each one of the earlier profile is: nodes do not go, though a thread may get a name,",
    "    or lose its id to others of its name.\"\"\"",
    "    places, taken = [], set()",
    "    found = {(parent, identity): number for number, (parent, identity, _) in enumerate(later) if parent != _NO_NODE}",
    "    roots = [(number, identity) for number, (parent, identity, _) in enumerate(later) if parent == _NO_NODE]",
    "    for parent, identity, _ in earlier:",
    "        if parent == _NO_NODE:",
    "            same = [number for number, other in roots if number not in taken and (",
    "                identity[4] == other[4] != 0 or identity[0] == other[0] and 0 in (identity[4], other[4]))]",
    "            place = same[0] if same else None",
    "            taken.add(place)",
    "        else:",
    "            place = found.get((places[parent], identity))",
    "        if place is None:",
    "            raise ValueError(_NOT_ONE)",
    "        places.append(place)",
    "    return places",
    "",
    "",
    "def _figures_between(later, earlier, places):",
    "    \"\"\"Of each of the later profile's nodes. At the end of a snapshot the time since a thread's last sample was counted for",
    "    where it was then; what the next sample said otherwise is less than nothing here, and is 0.\"\"\"",
    "    figures = [list(node[2]) for node in later]",
    "    for place, (_, _, before) in zip(places, earlier):",
    "        figures[place] = [max(a - b, 0) for a, b in zip(figures[place], before)]",
    "    for figure in figures:",
    "        figure[1] = min(figure[1], figure[0])",
    "        figure[3] = min(figure[3], figure[2])",
    "    return figures",
    "",
    "",
    "def _difference(later, earlier):",
    "    head, before = later.head, earlier.head",
    "    # When it began, to the nanosecond, and how often it looks: what says that it is one.",
    "    if head[4] != before[4] or head[6] != before[6] or head[5] < before[5]:",
    "        raise ValueError(_NOT_ONE)",
    "    nodes, nodes_before = later.identities(), earlier.identities()",
    "    places = _places_in(nodes, nodes_before)",
    "    figures = _figures_between(nodes, nodes_before, places)",
    "    spans = _spans_between(later, earlier, places, before[5])",
    "    data = [_HEAD.pack(*head[:2], len(spans), head[3], head[4] + before[5], head[5] - before[5], *head[6:]),",
    "            _stats_between(later, earlier)]",
    "    data += [_NODE.pack(*later.node(number)[:10], *figures[number]) for number in range(later.node_count)]",
    "    data += spans",
    "    data.append(later.data[later.texts:])",
    "    return b\"\".join(data)",
    "",
    "",
    "def _stats_between(later, earlier):",
    "    \"\"\"Counts are those of between; what tells how things are is the later one's.\"\"\"",
    "    count = later.head[14]",
    "    figures = [list(struct.unpack_from(\"<%dQ\" % count, packed.data, _HEAD.size)) for packed in (later, earlier)]",
    "    stands = {_engine.figures.index(name) for name in (\"bytes\", \"bytes_peak\", \"threads\", \"threads_unasked\", \"signal_number\")}",
    "    return struct.pack(\"<%dQ\" % count, *(a if number in stands else max(a - b, 0)",
    "                                         for number, (a, b) in enumerate(zip(*figures))))",
    "",
    "",
    "def _spans_between(later, earlier, places, end_ns):",
    "    \"\"\"What of the later profile's spans the earlier one had not yet: what lies behind its end; and an answer that was under",
    "    way then, which has its sample here and its time there.\"\"\"",
    "    coarsened = _engine.figures.index(\"timeline_coarsened\")",
    "    is_finer = len({struct.unpack_from(\"<Q\", packed.data, _HEAD.size + 8 * coarsened) for packed in (later, earlier)}) == 1",
    "    known = {}",
    "    for number in range(earlier.span_count):",
    "        span = earlier.span(number)",
    "        known[places[span[1]], span[2]] = span",
    "    spans = []",
    "    for number in range(later.span_count):",
    "        thread, node, start_ns, wall_ns, cpu_ns, samples, flags = later.span(number)",
    "        old = known.get((node, start_ns))",
    "        rest_ns = max(start_ns + wall_ns - max(start_ns, end_ns), 0)",
    "        if old is not None:",
    "            cpu_ns, samples = max(cpu_ns - old[4], 0), max(samples - old[5], 0)",
    "        elif not is_finer and rest_ns == 0:  # one that was merged from what the earlier profile had",
    "            continue",
    "        if rest_ns or samples:",
    "            spans.append(_SPAN.pack(thread, node, max(start_ns - end_ns, 0), rest_ns, cpu_ns, samples, flags))",
    "    return spans",
    "",
    "",
    "# ---- ways to record ----",
    "",
    "class Profiler:",
    "    \"\"\"A context manager that records its block; takes what start() takes. May be used again, but not inside of a recording:",
    "    that is a RuntimeError.\"\"\"",
    "",
    "    def __init__(self, interval_ms=_INTERVAL_MS, output_path=None, memory_limit_mb=64, *, rate_hz=None, quiet=False,",
    "                 max_depth=1024):",
    "        self._settings = _settings(interval_ms, output_path, memory_limit_mb, rate_hz=rate_hz, quiet=quiet,",
    "                                   max_depth=max_depth)",
    "        self._profile = None",
    "        self._process = None",
    "",
    "    @property",
    "    def profile(self):",
    "        \"\"\"The Profile of the block, also if it raised. Before its end, RuntimeError.\"\"\"",
    "        if self._profile is None:",
    "            raise RuntimeError(\"there is no profile yet: the block has to end first\")",
    "        return self._profile",
    "",
    "    def __enter__(self):",
    "        _begin(self._settings)",
    "        self._process = os.getpid()",
    "        return self",
    "",
    "    def __exit__(self, kind, value, traceback):",
    "        if os.getpid() != self._process:  # a forked child that leaves the block: it has no recording",
    "            return",
    "        self._profile, error = _end()",
    "        if error is not None and kind is not None:  # the block's own exception goes first",
    "            import warnings",
    "            warnings.warn(\"the profile was not saved: %s\" % error, RuntimeWarning, stacklevel=2)",
    "        elif error is not None:",
    "            raise error",
    "",
    "",
    "class _Call:",
    "    \"\"\"Records one call of a decorated function, if nothing is recorded yet.\"\"\"",
    "",
    "    def __init__(self, profiler, tell):",
    "        self._profiler = profiler",
    "        self._tell = tell",
    "        self._records = False",
    "",
    "    def __enter__(self):",
    "        try:",
    "            self._profiler.__enter__()",
    "            self._records = True",
    "        except AlreadyActiveError:",
    "            pass",
    "",
    "    def __exit__(self, kind, value, traceback):",
    "        if self._records:",
    "            try:",
    "                self._profiler.__exit__(kind, value, traceback)",
    "            finally:",
    "                if self._profiler._profile is not None:",
    "                    self._tell(self._profiler._profile)",
    "",
    "",
    "def _wrap_generator(function, call):",
    "    def wrapper(*args, **kwargs):",
    "        with call():",
    "            return (yield from function(*args, **kwargs))",
    "    return wrapper",
    "",
    "",
    "def _wrap_coroutine(function, call):",
    "    async def wrapper(*args, **kwargs):",
    "        with call():",
    "            return await function(*args, **kwargs)",
    "    return wrapper",
    "",
    "",
    "def _wrap_async_generator(function, call):",
    "    async def wrapper(*args, **kwargs):",
    "        with call():",
    "            generator = function(*args, **kwargs)",
    "            try:",
    "                step = generator.__anext__()",
    "                while True:",
    "                    value = await step",
    "                    try:",
    "                        step = generator.asend((yield value))",
    "                    except GeneratorExit:",
    "                        raise",
    "                    except BaseException as error:  # thrown in from outside: the generator's to handle",
    "                        step = generator.athrow(error)",
    "            except StopAsyncIteration:",
    "                pass",
    "            finally:",
    "                await generator.aclose()",
    "    return wrapper",
    "",
    "",
    "def _wrap_function(function, call):",
    "    def wrapper(*args, **kwargs):",
    "        with call():",
    "            return function(*args, **kwargs)",
    "    return wrapper",
    "",
    "",
    "def _wrapping_of(function):",
    "    \"\"\"How a callable is wrapped; an object with __call__ as that method is.\"\"\"",
    "    import inspect",
    "    while isinstance(function, functools.partial):",
    "        function = function.func",
    "    for one in (function, getattr(type(function), \"__call__\", None)):",
    "        if inspect.isasyncgenfunction(one):",
    "            return _wrap_async_generator",
    "        if inspect.iscoroutinefunction(one):",
    "            return _wrap_coroutine",
    "        if inspect.isgeneratorfunction(one):",
    "            return _wrap_generator",
    "    return _wrap_function",
    "",
    "",
    "def _is_awaited_generator(function):",
    "    \"\"\"One made by types.coroutine.\"\"\"",
    "    import inspect",
    "    code = getattr(function, \"__code__\", None)",
    "    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)",
    "",
    "",
    "def profile(function=None, *, print_stats=False, **options):",
    "    \"\"\"A decorator, with or without call, that records calls of a function: takes what start() takes, by name, and",
    "    print_stats, to print the figures of each.",
    "",
    "    Coroutine functions are recorded until they have been awaited to their end, generators and async generators until they",
    "    are closed; methods, with staticmethod or classmethod above or below it, as functions are. While something is recorded",
    "    already, by an outer call, by another thread or by the host, a call runs plainly. The last profile is the attribute",
    "    last_profile of the decorated function.",
    "",
    "    Raises TypeError for what is not callable, and what start() raises for its options: for wrong ones at once, for an",
    "    output_path that cannot be written at the call.",
    "    \"\"\"",
    "    profiler_options = dict(options)",
    "    try:",
    "        _settings(**profiler_options)",
    "    except TypeError as error:",
    "        raise TypeError(str(error).replace(\"_settings()\", \"profile()\")) from None",
    "    if function is None:",
    "        return lambda function: _decorate(function, profiler_options, print_stats)",
    "    return _decorate(function, profiler_options, print_stats)",
    "",
    "",
    "def _decorate(function, options, print_stats):",
    "    if isinstance(function, (staticmethod, classmethod)):",
    "        return type(function)(_decorate(function.__func__, options, print_stats))",
    "    if not callable(function):",
    "        raise TypeError(\"profile decorates functions and what else can be called, not %s\" % type(function).__name__)",
    "",
    "    def tell(profile):",
    "        wrapper.last_profile = profile",
    "        if print_stats:",
    "            profile.print_stats()",
    "",
    "    wrapper = _wrapping_of(function)(function, lambda: _Call(Profiler(**options), tell))",
    "    wrapper = functools.wraps(function)(wrapper)",
    "    if _is_awaited_generator(function):",
    "        import types",
    "        wrapper = types.coroutine(wrapper)",
    "    wrapper.last_profile = None",
    "    return wrapper",
    "",
    "",
    "def record(function, *args, rate_hz=100, output_path=None, **kwargs):",
    "    \"\"\"Call function(*args, **kwargs) and record it; return what it returned and the Profile. What it raises comes through.",
    "",
    "    Raises TypeError for coroutine functions and generators, whose call runs nothing yet: the decorator profile is for",
    "    these.",
    "    \"\"\"",
    "    if not callable(function):",
    "        raise TypeError(\"record calls functions and what else can be called, not %s\" % type(function).__name__)",
    "    if _wrapping_of(function) is not _wrap_function:",
    "        raise TypeError(\"a call of %r runs nothing of it yet: decorate it with pyprof.profile\" % (function,))",
    "    with Profiler(rate_hz=rate_hz, output_path=output_path) as profiler:",
    "        result = function(*args, **kwargs)",
    "    return result, profiler.profile",
    "",
    "",
    "def top(duration=10, rate_hz=100, limit=20, file=None):",
    "    \"\"\"Record all threads for so many seconds and show the functions that take most, in file or standard output: on a",
    "    terminal once a second, elsewhere once at the end. Ctrl-C ends it before.\"\"\"",
    "    file = sys.stdout if file is None else file",
    "    is_live = getattr(file, \"isatty\", lambda: False)()",
    "    rest = _number(\"duration\", duration)",
    "    if not rest >= 0:",
    "        raise ValueError(\"duration is %r: it has to be 0 or more seconds\" % (duration,))",
    "    _check_limit(limit)",
    "    start(rate_hz=rate_hz)",
    "    end = time.monotonic() + rest",
    "    try:",
    "        while rest > 0:",
    "            time.sleep(min(1, rest))",
    "            if is_live:",
    "                _show(snapshot(), limit, file, is_live)",
    "            rest = end - time.monotonic()",
    "    except KeyboardInterrupt:",
    "        pass",
    "    finally:",
    "        profile = stop()",
    "    _show(profile, limit, file, is_live)",
    "",
    "",
    "def _show(profile, limit, file, is_live):",
    "    file.write((\"\\x1b[H\\x1b[J\" if is_live else \"\") + profile._table(limit, \"self\"))",
    "    file.flush()",
    "",
    "",
    "if \"heap\" in __all__ and \"__path__\" in globals():  # where this is no package, the host adds it",
    "    from . import heap",
    /* clang-format on */
};

static int pymod__execute(PyObject *module) {
    PyObject *names = PyModule_GetDict(module);
    if (!pymod__add(module, "_engine", pymod__make_engine()) ||
        !pymod__run(pymod__source, sizeof pymod__source / sizeof *pymod__source, "<pyprof>", names)) {
        return -1;
    }
#ifndef PYPROF_NO_HEAP
    return pymod__add_heap(module) ? 0 : -1;
#else
    return 0;
#endif
}

static PyModuleDef_Slot pymod__slots[] = PYMOD__SLOTS(pymod__execute);

static PyModuleDef pymod__module = {
    PyModuleDef_HEAD_INIT, "pyprof", NULL, 0, NULL, pymod__slots, NULL, NULL, NULL,
};

PYPROF_MODULE_API PyObject *PyInit_pyprof(void) {
    return PyModuleDef_Init(&pymod__module);
}

#endif /* PYPROF_MODULE_PACKAGE */
#endif /* PYPROF_MODULE_IMPLEMENTED */
#endif /* PYPROF_MODULE_IMPLEMENTATION */
