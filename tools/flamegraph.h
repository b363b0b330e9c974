/* flamegraph.h: collapsed stacks in, one self-contained interactive SVG out.
 *
 * Needs nothing but libc and POSIX (define _XOPEN_SOURCE 700 before the first #include when
 * compiling as strict ISO C). All functions are static: include it in the one file that uses it.
 *
 *     flamegraph *graph = flamegraph_create();
 *     if (graph && flamegraph_add(graph, text, size, "profile", stderr) == FLAMEGRAPH_OK) {
 *         flamegraph_options options = {.title = "game.py", .unit = "us"};
 *         flamegraph_save(graph, &options, "game.svg", stderr);
 *     }
 *     flamegraph_free(graph);
 *
 * Input: one stack a line, `frame;frame;frame VALUE`, root first, VALUE a whole number >= 0 behind
 * the last blank (so that frame names may hold blanks). Equal stacks add up. Blank lines, and lines
 * that begin with "# " or are a lone "#", are skipped; CRLF and a missing last newline are fine.
 * Bytes that are not UTF-8, and characters that XML forbids, are shown as U+FFFD.
 *
 * Picture: children stand left to right by falling value. Frames narrower than
 * `options.min_width` are folded: drawn as one hatched box per parent, and counted below the chart.
 * Zooming in unfolds them, as far as the file knows them: it keeps the largest FLAMEGRAPH_MAX_FRAMES.
 */
#ifndef FLAMEGRAPH_H
#define FLAMEGRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifndef FLAMEGRAPH_MAX_FRAMES
#define FLAMEGRAPH_MAX_FRAMES 20000 /* how many frames a file describes: what bounds its size */
#endif

typedef enum flamegraph_result {
    FLAMEGRAPH_OK = 0,
    FLAMEGRAPH_BAD_INPUT = -1, /* at least one line is wrong; nothing of this input was added */
    FLAMEGRAPH_NO_MEMORY = -2,
    FLAMEGRAPH_IO_ERROR = -3, /* errno tells why */
} flamegraph_result;

/* How the picture looks; all zero = good defaults. */
typedef struct flamegraph_options {
    const char *title;    /* UTF-8; NULL = "Flame graph" */
    const char *subtitle; /* one more line, say what was measured and how; NULL = none */
    const char *unit;     /* "ns", "us", "ms", "s": times, shown as 1.23 s, 45.6 ms; any other word
                             names what is counted; NULL = "samples" */
    int width;            /* pixels, at least FLAMEGRAPH_MIN_WIDTH; 0 = 1200, growing with the window */
    double min_width;     /* frames narrower than this many pixels are folded; 0 = 1 */
    bool inverted;        /* root on top (icicle) */
} flamegraph_options;

#define FLAMEGRAPH_MIN_WIDTH 300
#define FLAMEGRAPH_MAX_WIDTH 100000

typedef struct flamegraph flamegraph;

/* An empty graph, or NULL when there is no memory. */
static inline flamegraph *flamegraph_create(void);
static inline void flamegraph_free(flamegraph *graph); /* NULL is fine */

/* Add collapsed text. Every bad line (up to a bound) is told on `errors` as
 * `NAME:LINE: what is wrong`; if there is one, nothing of this text is added. */
static inline flamegraph_result flamegraph_add(flamegraph *graph, const char *text, size_t size,
                                               const char *name, FILE *errors);

/* The same for all that can be read from `in`. */
static inline flamegraph_result flamegraph_read(flamegraph *graph, FILE *in, const char *name, FILE *errors);

/* The sum of all values; 0 = there is nothing to see (the picture then says so). */
static inline uint64_t flamegraph_total(const flamegraph *graph);

/* Write the SVG. The caller checks fclose() of its own stream. */
static inline flamegraph_result flamegraph_write(const flamegraph *graph, const flamegraph_options *options,
                                                 FILE *out);

/* Write the SVG beside `path` and rename it into place, so that no half file is ever seen there;
 * straight into what is no regular file (a pipe, a device). NULL or "-" = standard output.
 * Errors are told on `errors` as `PATH: what is wrong`. */
static inline flamegraph_result flamegraph_save(const flamegraph *graph, const flamegraph_options *options,
                                                const char *path, FILE *errors);

/* ---- implementation ------------------------------------------------------------------------ */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FLAMEGRAPH_NONE UINT32_MAX
#define FLAMEGRAPH_MAX_COMPLAINTS 20 /* bad lines that are told one by one */

/* Geometry in pixels; the script gets the same numbers with the data. */
#define FLAMEGRAPH_PAD 12
#define FLAMEGRAPH_ROW 20
#define FLAMEGRAPH_TOP 104
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

/* Open addressing; a slot is an index into names or nodes, or FLAMEGRAPH_NONE. */
typedef struct flamegraph_index {
    uint32_t *slots;
    size_t capacity; /* a power of two */
} flamegraph_index;

struct flamegraph {
    char *text;
    size_t text_size, text_capacity;
    flamegraph_name *names;
    size_t name_count, name_capacity;
    flamegraph_node *nodes; /* nodes[0] is the root, "all" */
    size_t node_count, node_capacity;
    flamegraph_index name_index, node_index;
};

/* ---- the tree ---- */

/* The array with room for `more` elements behind `used`; NULL, and the array as it was, when there
 * is no memory. */
static inline void *flamegraph_reserve(void *array, size_t *capacity, size_t used, size_t more,
                                       size_t element) {
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

static inline uint64_t flamegraph_hash_node(uint32_t parent, uint32_t name) {
    uint64_t hash = ((uint64_t)parent << 32 | name) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 32);
}

static inline uint64_t flamegraph_hash_of(const flamegraph *graph, const flamegraph_index *index,
                                          uint32_t item) {
    if (index == &graph->name_index)
        return graph->names[item].hash;
    return flamegraph_hash_node(graph->nodes[item].parent, graph->nodes[item].name);
}

/* Keep the index at most half full with one more item in it. */
static inline bool flamegraph_index_grow(const flamegraph *graph, flamegraph_index *index, size_t count) {
    if (count + 1 <= index->capacity / 2)
        return true;
    size_t capacity = index->capacity ? index->capacity * 2 : 1024;
    if (capacity > SIZE_MAX / sizeof(uint32_t))
        return false;
    uint32_t *slots = malloc(capacity * sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < capacity; i++)
        slots[i] = FLAMEGRAPH_NONE;
    for (size_t i = 0; i < index->capacity; i++) {
        if (index->slots[i] == FLAMEGRAPH_NONE)
            continue;
        size_t at = (size_t)flamegraph_hash_of(graph, index, index->slots[i]) & (capacity - 1);
        while (slots[at] != FLAMEGRAPH_NONE)
            at = (at + 1) & (capacity - 1);
        slots[at] = index->slots[i];
    }
    free(index->slots);
    index->slots = slots;
    index->capacity = capacity;
    return true;
}

/* The name's number, or FLAMEGRAPH_NONE when there is no memory. */
static inline uint32_t flamegraph_intern(flamegraph *graph, const char *bytes, size_t size) {
    flamegraph_index *index = &graph->name_index;
    if (!flamegraph_index_grow(graph, index, graph->name_count))
        return FLAMEGRAPH_NONE;
    uint64_t hash = flamegraph_hash(bytes, size);
    size_t at = (size_t)hash & (index->capacity - 1);
    for (; index->slots[at] != FLAMEGRAPH_NONE; at = (at + 1) & (index->capacity - 1)) {
        const flamegraph_name *name = &graph->names[index->slots[at]];
        if (name->hash == hash && name->size == size &&
            memcmp(graph->text + name->offset, bytes, size) == 0) {
            return index->slots[at];
        }
    }
    if (graph->name_count >= FLAMEGRAPH_NONE)
        return FLAMEGRAPH_NONE;
    flamegraph_name *names =
        flamegraph_reserve(graph->names, &graph->name_capacity, graph->name_count, 1, sizeof *names);
    if (!names)
        return FLAMEGRAPH_NONE;
    graph->names = names;
    char *text = flamegraph_reserve(graph->text, &graph->text_capacity, graph->text_size, size, 1);
    if (!text)
        return FLAMEGRAPH_NONE;
    graph->text = text;
    memcpy(graph->text + graph->text_size, bytes, size);
    graph->names[graph->name_count] = (flamegraph_name){graph->text_size, size, hash};
    graph->text_size += size;
    index->slots[at] = (uint32_t)graph->name_count;
    return (uint32_t)graph->name_count++;
}

static inline uint32_t flamegraph_child(flamegraph *graph, uint32_t parent, uint32_t name) {
    flamegraph_index *index = &graph->node_index;
    if (!flamegraph_index_grow(graph, index, graph->node_count))
        return FLAMEGRAPH_NONE;
    size_t at = (size_t)flamegraph_hash_node(parent, name) & (index->capacity - 1);
    for (; index->slots[at] != FLAMEGRAPH_NONE; at = (at + 1) & (index->capacity - 1)) {
        const flamegraph_node *node = &graph->nodes[index->slots[at]];
        if (node->parent == parent && node->name == name)
            return index->slots[at];
    }
    if (graph->node_count >= FLAMEGRAPH_NONE)
        return FLAMEGRAPH_NONE;
    flamegraph_node *nodes =
        flamegraph_reserve(graph->nodes, &graph->node_capacity, graph->node_count, 1, sizeof *nodes);
    if (!nodes)
        return FLAMEGRAPH_NONE;
    graph->nodes = nodes;
    graph->nodes[graph->node_count] = (flamegraph_node){parent, name, 0};
    index->slots[at] = (uint32_t)graph->node_count;
    return (uint32_t)graph->node_count++;
}

static inline void flamegraph_free(flamegraph *graph) {
    if (!graph)
        return;
    free(graph->text);
    free(graph->names);
    free(graph->nodes);
    free(graph->name_index.slots);
    free(graph->node_index.slots);
    free(graph);
}

static inline flamegraph *flamegraph_create(void) {
    flamegraph *graph = calloc(1, sizeof *graph);
    if (!graph)
        return NULL;
    uint32_t all = flamegraph_intern(graph, "all", 3);
    graph->nodes = flamegraph_reserve(NULL, &graph->node_capacity, 0, 1, sizeof *graph->nodes);
    if (all == FLAMEGRAPH_NONE || !graph->nodes) {
        flamegraph_free(graph);
        return NULL;
    }
    /* The root is nobody's child: it stands in no index. */
    graph->nodes[0] = (flamegraph_node){0, all, 0};
    graph->node_count = 1;
    return graph;
}

static inline uint64_t flamegraph_total(const flamegraph *graph) {
    return graph->nodes[0].total;
}

/* ---- reading ---- */

/* One line, cut into its parts. `wrong` is empty when the line is good; stack_size 0 = no stack. */
typedef struct flamegraph_line {
    const char *stack;
    size_t stack_size;
    uint64_t value;
    char wrong[96];
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

static inline bool flamegraph_parse_value(const char *digits, size_t size, flamegraph_line *line) {
    char shown[32];
    flamegraph_quote(shown, sizeof shown, digits, size);
    line->value = 0;
    for (size_t i = 0; i < size; i++) {
        if (digits[i] < '0' || digits[i] > '9') {
            snprintf(line->wrong, sizeof line->wrong, "the line ends with '%s', not with a whole number",
                     shown);
            return false;
        }
        uint64_t digit = (uint64_t)(digits[i] - '0');
        if (line->value > (UINT64_MAX - digit) / 10) {
            snprintf(line->wrong, sizeof line->wrong, "the value %s does not fit in 64 bits", shown);
            return false;
        }
        line->value = line->value * 10 + digit;
    }
    return true;
}

static inline bool flamegraph_is_blank(char byte) {
    return byte == ' ' || byte == '\t';
}

/* The number of the first frame that is empty or only blanks; 0 = there is none. */
static inline size_t flamegraph_empty_frame(const char *stack, size_t size) {
    size_t number = 1;
    bool empty = true;
    for (size_t i = 0; i < size; i++) {
        if (stack[i] != ';') {
            empty = empty && flamegraph_is_blank(stack[i]);
        } else if (empty) {
            return number;
        } else {
            number++;
            empty = true;
        }
    }
    return empty ? number : 0;
}

static inline flamegraph_line flamegraph_parse_line(const char *text, size_t size) {
    flamegraph_line line = {text, 0, 0, ""};
    if (size > 0 && text[size - 1] == '\r')
        size--;
    while (size > 0 && flamegraph_is_blank(text[size - 1]))
        size--;
    if (size == 0 || (text[0] == '#' && (size == 1 || text[1] == ' ')))
        return line;
    const char *nul = memchr(text, '\0', size);
    if (nul) {
        snprintf(line.wrong, sizeof line.wrong, "a NUL byte at column %zu", (size_t)(nul - text) + 1);
        return line;
    }
    size_t blank = size;
    while (blank > 0 && !flamegraph_is_blank(text[blank - 1]))
        blank--;
    if (!flamegraph_parse_value(text + blank, size - blank, &line))
        return line;
    size_t stack = blank ? blank - 1 : 0;
    size_t empty = flamegraph_empty_frame(text, stack);
    if (stack == 0) {
        snprintf(line.wrong, sizeof line.wrong, "no stack before the value");
    } else if (empty) {
        snprintf(line.wrong, sizeof line.wrong, "frame %zu of the stack is empty", empty);
    } else {
        line.stack_size = stack;
    }
    return line;
}

/* The line that begins at `at`, and the offset of the next one. */
static inline size_t flamegraph_next_line(const char *text, size_t size, size_t at, flamegraph_line *line) {
    const char *end = memchr(text + at, '\n', size - at);
    size_t length = end ? (size_t)(end - text) - at : size - at;
    *line = flamegraph_parse_line(text + at, length);
    return at + length + (end ? 1 : 0);
}

/* Tell what is wrong with the text; true = nothing. */
static inline bool flamegraph_check(const flamegraph *graph, const char *text, size_t size, const char *name,
                                    FILE *errors) {
    uint64_t sum = flamegraph_total(graph);
    size_t number = 0, bad = 0;
    for (size_t at = 0; at < size;) {
        flamegraph_line line;
        at = flamegraph_next_line(text, size, at, &line);
        number++;
        if (!line.wrong[0] && line.value > UINT64_MAX - sum) {
            snprintf(line.wrong, sizeof line.wrong, "the sum of all values exceeds 64 bits");
        }
        if (!line.wrong[0]) {
            sum += line.value;
        } else if (bad++ < FLAMEGRAPH_MAX_COMPLAINTS) {
            fprintf(errors, "%s:%zu: %s\n", name, number, line.wrong);
        }
    }
    if (bad > FLAMEGRAPH_MAX_COMPLAINTS) {
        fprintf(errors, "%s: %zu more bad lines\n", name, bad - FLAMEGRAPH_MAX_COMPLAINTS);
    }
    return bad == 0;
}

static inline bool flamegraph_add_stack(flamegraph *graph, const flamegraph_line *line) {
    uint32_t node = 0;
    const char *at = line->stack, *end = line->stack + line->stack_size;
    graph->nodes[0].total += line->value;
    while (at <= end) {
        const char *stop = memchr(at, ';', (size_t)(end - at));
        if (!stop)
            stop = end;
        uint32_t name = flamegraph_intern(graph, at, (size_t)(stop - at));
        if (name == FLAMEGRAPH_NONE)
            return false;
        node = flamegraph_child(graph, node, name);
        if (node == FLAMEGRAPH_NONE)
            return false;
        graph->nodes[node].total += line->value;
        at = stop + 1;
    }
    return true;
}

static inline flamegraph_result flamegraph_add(flamegraph *graph, const char *text, size_t size,
                                               const char *name, FILE *errors) {
    if (!flamegraph_check(graph, text, size, name, errors))
        return FLAMEGRAPH_BAD_INPUT;
    for (size_t at = 0; at < size;) {
        flamegraph_line line;
        at = flamegraph_next_line(text, size, at, &line);
        if (line.stack_size && !flamegraph_add_stack(graph, &line)) {
            fprintf(errors, "%s: out of memory\n", name);
            return FLAMEGRAPH_NO_MEMORY;
        }
    }
    return FLAMEGRAPH_OK;
}

static inline flamegraph_result flamegraph_read(flamegraph *graph, FILE *in, const char *name, FILE *errors) {
    char *text = NULL;
    size_t size = 0, capacity = 0, got;
    do {
        char *grown = flamegraph_reserve(text, &capacity, size, 1 << 16, 1);
        if (!grown) {
            fprintf(errors, "%s: out of memory\n", name);
            free(text);
            return FLAMEGRAPH_NO_MEMORY;
        }
        text = grown;
        got = fread(text + size, 1, capacity - size, in);
        size += got;
    } while (got > 0);
    flamegraph_result result = FLAMEGRAPH_IO_ERROR;
    if (ferror(in)) {
        fprintf(errors, "%s: %s\n", name, strerror(errno));
    } else {
        result = flamegraph_add(graph, text, size, name, errors);
    }
    free(text);
    return result;
}

/* ---- writing text ---- */

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

static inline void flamegraph_put(uint32_t code, FILE *out) {
    if (code < 0x80) {
        fputc((int)code, out);
        return;
    }
    if (code < 0x800) {
        fputc((int)(0xc0 | code >> 6), out);
    } else {
        if (code < 0x10000) {
            fputc((int)(0xe0 | code >> 12), out);
        } else {
            fputc((int)(0xf0 | code >> 18), out);
            fputc((int)(0x80 | (code >> 12 & 0x3f)), out);
        }
        fputc((int)(0x80 | (code >> 6 & 0x3f)), out);
    }
    fputc((int)(0x80 | (code & 0x3f)), out);
}

/* Text for XML content and quoted attributes. */
static inline void flamegraph_put_xml(const char *at, size_t size, FILE *out) {
    for (const char *end = at + size; at < end;) {
        uint32_t code = flamegraph_character(&at, end);
        switch (code) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        default:
            flamegraph_put(code, out);
        }
    }
}

/* A JavaScript string that neither ends a CDATA section nor a script element. */
static inline void flamegraph_put_js(const char *at, size_t size, FILE *out) {
    fputc('"', out);
    for (const char *end = at + size; at < end;) {
        uint32_t code = flamegraph_character(&at, end);
        if (code == '"' || code == '\\' || code == '<' || code == '>' || code == '&' || code == 0x2028 ||
            code == 0x2029) {
            fprintf(out, "\\u%04" PRIx32, code);
        } else {
            flamegraph_put(code, out);
        }
    }
    fputc('"', out);
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
                                          FILE *out) {
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
        fputs("\xe2\x80\xa6", out);
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

/* printf() rounds a tie to even, the script up: with this both do the latter. */
static inline double flamegraph_up(double number) {
    return number + number * 1e-12;
}

/* "1.23 s", "45.6 ms", "1,234 samples": three digits for times, all of them for counts. */
static inline void flamegraph_format_amount(char *out, size_t room, uint64_t value, const char *unit) {
    static const char *const steps[] = {"ns", "\xc2\xb5s", "ms", "s"};
    double time = (double)value * flamegraph_nanoseconds(unit);
    char count[32];
    if (flamegraph_nanoseconds(unit) <= 0) {
        size_t length = strlen(unit);
        flamegraph_format_count(count, sizeof count, value);
        if (value == 1 && length > 1 && unit[length - 1] == 's')
            length--;
        snprintf(out, room, "%s %.*s", count, (int)(length < 40 ? length : 40), unit);
        return;
    }
    int step = value ? 0 : 3;
    for (; step < 3 && time >= 999.5; step++)
        time /= 1000;
    if (time >= 999.5) {
        flamegraph_format_count(count, sizeof count, time < 1e18 ? (uint64_t)(time + 0.5) : value);
        snprintf(out, room, "%s s", count);
    } else {
        bool whole = step == 0 || time >= 99.95 || !value;
        snprintf(out, room, "%.*f %s", whole ? 0 : time >= 9.995 ? 1 : 2, flamegraph_up(time), steps[step]);
    }
}

static inline void flamegraph_format_percent(char *out, size_t room, uint64_t value, uint64_t of) {
    double share = of ? 100.0 * (double)value / (double)of : 0;
    if (share > 0 && share < 0.01) {
        snprintf(out, room, "<0.01%%");
    } else {
        snprintf(out, room, "%.*f%%", share >= 1 ? 1 : share > 0 ? 2 : 0, flamegraph_up(share));
    }
}

/* ---- colours ---- */

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

/* A light colour, hue by module, lightness by function: equal in every run and every profile.
 * Frames that stand for no code (the root, threads, what was cut off) and CPython's frozen import
 * machinery are grey. */
static inline uint32_t flamegraph_colour(const char *name, size_t size) {
    static const uint32_t hues[] = {/* evenly spaced in OKLCH: L 0.82, C 0.09 */
                                    0xf5acc2, 0xf9adac, 0xf7b198, 0xf0b788, 0xe3be80, 0xd1c681,
                                    0xbccd8b, 0xa5d39b, 0x8fd7b0, 0x7ed8c6, 0x78d6db, 0x7ed2ed,
                                    0x8dccf9, 0xa2c5ff, 0xb8befe, 0xcdb7f6, 0xdeb2e9, 0xecaed7};
    enum {
        HUES = sizeof hues / sizeof hues[0]
    };
    bool no_code = (size > 7 && memcmp(name, "thread ", 7) == 0) || name[0] == '[' ||
                   (size == 3 && memcmp(name, "all", 3) == 0);
    if (no_code)
        return 0xd5dae1;
    const char *module = name;
    size_t module_size = size;
    flamegraph_module(&module, &module_size);
    if (module_size > 8 && memcmp(module, "<frozen ", 8) == 0)
        return 0xdedfd8;
    uint32_t place = (uint32_t)(flamegraph_hash(module, module_size) % (HUES * 64u));
    uint32_t from = hues[place / 64], to = hues[(place / 64 + 1) % HUES], mix = place % 64;
    uint32_t white = (uint32_t)(flamegraph_hash(name, size) >> 20) % 3 * 16; /* of 128 */
    uint32_t colour = 0;
    for (int shift = 0; shift < 24; shift += 8) {
        uint32_t channel = ((from >> shift & 255) * (64 - mix) + (to >> shift & 255) * mix) / 64;
        colour |= (channel + (255 - channel) * white / 128) << shift;
    }
    return colour;
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
    uint32_t *order;            /* nodes of the file, in the end by (parent, value, name) */
    uint32_t *place;            /* node -> its entry; a left out node -> its nearest known caller's */
    flamegraph_entry *entries;
    size_t count;
    uint32_t levels;        /* of what is drawn */
    uint64_t hidden_frames; /* not drawn on their own */
} flamegraph_picture;

static inline flamegraph_options flamegraph_defaults(const flamegraph_options *given) {
    flamegraph_options options = {0};
    if (given)
        options = *given;
    if (!options.title)
        options.title = "Flame graph";
    if (!options.subtitle)
        options.subtitle = "";
    if (!options.unit)
        options.unit = "samples";
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

static inline int flamegraph_height(const flamegraph_picture *picture) {
    return FLAMEGRAPH_TOP + (int)picture->levels * FLAMEGRAPH_ROW + FLAMEGRAPH_BOTTOM;
}

/* The smallest value of which fewer than `limit` nodes have more. */
static inline uint64_t flamegraph_cutoff(const flamegraph *graph, size_t limit) {
    uint64_t low = 0, high = flamegraph_total(graph);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        size_t above = 0;
        for (size_t i = 0; i < graph->node_count; i++)
            above += graph->nodes[i].total > middle;
        if (above < limit) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* Choose the largest nodes. A caller is made before its callees and has at least their value, so
 * with ties taken in order of making, no chosen node lacks its caller. */
static inline void flamegraph_choose(flamegraph_picture *picture) {
    const flamegraph *graph = picture->graph;
    uint64_t cutoff = flamegraph_cutoff(graph, FLAMEGRAPH_MAX_FRAMES);
    size_t ties = FLAMEGRAPH_MAX_FRAMES;
    for (size_t i = 0; i < graph->node_count; i++)
        ties -= graph->nodes[i].total > cutoff;
    for (uint32_t i = 0; i < graph->node_count; i++) {
        uint64_t total = graph->nodes[i].total;
        picture->place[i] = FLAMEGRAPH_NONE;
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
    const flamegraph_key *a = left, *b = right;
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
    flamegraph_key *keys = malloc(picture->count * sizeof *keys);
    if (!keys)
        return false;
    for (size_t i = 1; i < picture->count; i++) {
        const flamegraph_node *node = &graph->nodes[picture->order[i]];
        const flamegraph_name *name = &graph->names[node->name];
        keys[i] = (flamegraph_key){node->total, graph->text + name->offset, name->size, node->parent,
                                   picture->order[i]};
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
    picture->entries[0] = (flamegraph_entry){0};
    for (size_t at = 0; at < picture->count; at++) {
        flamegraph_entry *entry = &picture->entries[at];
        entry->first_child = (uint32_t)made;
        size_t run = picture->place[entry->node];
        while (run > 0 && run < picture->count && nodes[picture->order[run]].parent == entry->node) {
            picture->entries[made] = (flamegraph_entry){0};
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
        entry->folded_frames++;
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
    picture->hidden_frames = graph->node_count - drawn;
}

static inline void flamegraph_picture_free(flamegraph_picture *picture) {
    free(picture->order);
    free(picture->place);
    free(picture->entries);
}

static inline bool flamegraph_picture_make(flamegraph_picture *picture, const flamegraph *graph,
                                           const flamegraph_options *options) {
    *picture = (flamegraph_picture){.graph = graph, .options = flamegraph_defaults(options)};
    size_t most = graph->node_count < FLAMEGRAPH_MAX_FRAMES ? graph->node_count : FLAMEGRAPH_MAX_FRAMES;
    picture->order = malloc(most * sizeof *picture->order);
    picture->place = malloc(graph->node_count * sizeof *picture->place);
    picture->entries = malloc(most * sizeof *picture->entries);
    if (!picture->order || !picture->place || !picture->entries)
        return false;
    flamegraph_choose(picture);
    if (!flamegraph_sort(picture))
        return false;
    flamegraph_arrange(picture);
    flamegraph_fold(picture);
    flamegraph_lay_out(picture);
    return true;
}

/* ---- writing the picture ---- */

static const char *const flamegraph_style[] = {
    /* clang-format off */
    ".flamegraph { background: #fff; font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }",
    ".flamegraph text { fill: #1f2328; white-space: pre; }",
    ".flamegraph #title { font-size: 17px; font-weight: 600; }",
    ".flamegraph #subtitle { fill: #57606a; }",
    ".flamegraph #note { font-size: 11px; fill: #57606a; }",
    ".flamegraph #matched { text-anchor: end; font-weight: 600; fill: #7a4b00; }",
    ".flamegraph #ring { fill: none; stroke: #0b57d0; stroke-width: 3; pointer-events: none; }",
    ".flamegraph foreignObject { overflow: visible; }",
    ".flamegraph #detail { pointer-events: none; }",
    ".frame { cursor: pointer; outline: none; scroll-margin: 110px 0 8px; }",
    ".frame text { pointer-events: none; }",
    ".frame:hover rect { stroke: #1f2328; stroke-width: 1; }",
    ".frame.above text { fill: #424a53; }",
    ".frame.miss rect { fill-opacity: .35; }",
    ".frame.hit rect { fill: #ffc83d; stroke: #8a5a00; stroke-width: .75; }",
    ".bar { display: flex; gap: 8px; justify-content: flex-end; }",
    ".bar button, .bar input { box-sizing: border-box; height: 28px; padding: 0 10px; border: 1px solid #c4cad1;",
    "  border-radius: 6px; background: #fff; color: #1f2328; font: inherit; }",
    ".bar button { cursor: pointer; background: #f3f4f6; white-space: nowrap; }",
    ".bar button[hidden] { display: none; }",
    ".bar input { flex: 0 1 210px; min-width: 0; }",
    ".bar :focus-visible { outline: 2px solid #0b57d0; outline-offset: 1px; }",
    ".detail { display: inline-block; max-width: 100%; padding-right: 8px; overflow-wrap: anywhere; background: #fff; line-height: 17px; }",
    ".detail #name { font-weight: 600; }",
    ".detail #figures { color: #57606a; }",
    /* clang-format on */
};

/* What makes it interactive. It finds the frames as `data`, see flamegraph_put_data(). */
static const char *const flamegraph_script[] = {
    /* clang-format off */
    "const svg = document.currentScript?.closest('svg') ?? document.documentElement;",
    "const part = (id) => svg.querySelector('#' + id);",
    "const make = (tag, attributes, space = 'http://www.w3.org/2000/svg') => {",
    "  const element = document.createElementNS(space, tag);",
    "  for (const name in attributes) element.setAttribute(name, attributes[name]);",
    "  return element;",
    "};",
    "const html = (tag, attributes) => make(tag, attributes, 'http://www.w3.org/1999/xhtml');",
    "const {names, colours, name, value, children, folded, pad, row, top, bottom} = data;",
    "const total = value[0];",
    "// The tree: frames stand in breadth-first order, so the children of a frame are neighbours.",
    "const parent = new Int32Array(value.length), first = new Int32Array(value.length);",
    "const size = new Float64Array(value.length).fill(1), self = Float64Array.from(value);",
    "for (let i = 0, next = 1; i < value.length; i++) {",
    "  first[i] = next;",
    "  for (let k = children[i]; k > 0; k--) parent[next++] = i;",
    "}",
    "for (const i in folded) {",
    "  size[i] += folded[i][0];",
    "  self[i] -= folded[i][1];",
    "}",
    "for (let i = value.length - 1; i > 0; i--) {",
    "  size[parent[i]] += size[i];",
    "  self[parent[i]] -= value[i];",
    "}",
    "// Numbers for people.",
    "const commas = new Intl.NumberFormat('en'), number = (n) => commas.format(n);",
    "const percent = (n, of) => {",
    "  const share = of > 0 ? 100 * n / of : 0;",
    "  return share > 0 && share < 0.01 ? '<0.01%' : share.toFixed(share >= 1 ? 1 : share > 0 ? 2 : 0) + '%';",
    "};",
    "const amount = (n) => {",
    "  if (data.ns && n === 0) return '0 s';",
    "  if (!data.ns) return number(n) + ' ' + (n === 1 ? data.unit.replace(/s$/, '') : data.unit);",
    "  let time = n * data.ns, step = 0;",
    "  while (step < 3 && time >= 999.5) time /= 1000, step++;",
    "  const digits = step === 0 || time >= 99.95 ? 0 : time >= 9.995 ? 1 : 2;",
    "  const text = time >= 999.5 ? number(Math.round(time)) : time.toFixed(digits);",
    "  return text + ' ' + ['ns', 'µs', 'ms', 's'][step];",
    "};",
    "// Text that fits: measured in the font that is really there, cut between whole characters.",
    "const pen = html('canvas').getContext('2d'), family = getComputedStyle(svg).fontFamily;",
    "const wholes = typeof Intl === 'object' && Intl.Segmenter ? new Intl.Segmenter() : null;",
    "function fit(text, room, font) {",
    "  pen.font = font + ' ' + family;",
    "  if (pen.measureText(text).width <= room) return text;",
    "  const start = text.slice(0, 4 * Math.ceil(room));",
    "  const characters = wholes ? Array.from(wholes.segment(start), (s) => s.segment) : Array.from(start);",
    "  let low = 0, high = characters.length;",
    "  while (low < high) {",
    "    const middle = (low + high + 1) >> 1;",
    "    const width = pen.measureText(characters.slice(0, middle).join('') + '…').width;",
    "    if (width <= room) low = middle; else high = middle - 1;",
    "  }",
    "  return low ? characters.slice(0, low).join('') + '…' : '';",
    "}",
    "let zoomed = 0, boxes = [], hits = null, width = 0, height = 0, current = null;",
    "const frames = part('frames'), head = part('head'), note = part('note'), ring = part('ring');",
    "const subtitle = amount(total) + ' in all' + (data.subtitle && ' · ' + data.subtitle);",
    "// Where every visible frame stands: the way to the zoomed frame at full width, what is above it to",
    "// scale. Children come by falling value, so what is too narrow is the end of a row of siblings.",
    "function layout() {",
    "  const inner = width - 2 * pad, scale = inner / value[zoomed];",
    "  const found = [];",
    "  let hidden = 0;",
    "  for (let i = zoomed; i > 0;) {",
    "    i = parent[i];",
    "    found.unshift({frame: i, x: pad, width: inner, above: true});",
    "  }",
    "  found.forEach((box, level) => { box.level = level; });",
    "  const open = [{frame: zoomed, x: pad, width: inner, level: found.length}];",
    "  for (const box of open) {",
    "    found.push(box);",
    "    let child = first[box.frame], x = box.x;",
    "    const end = child + children[box.frame], level = box.level + 1;",
    "    for (; child < end && value[child] * scale >= data.narrow; child++) {",
    "      open.push({frame: child, x, width: value[child] * scale, level});",
    "      x += value[child] * scale;",
    "    }",
    "    let [count, sum] = folded[box.frame] ?? [0, 0];",
    "    for (; child < end; child++) {",
    "      count += size[child];",
    "      sum += value[child];",
    "    }",
    "    hidden += count;",
    "    if (count && sum * scale >= data.narrow)",
    "      found.push({frame: box.frame, x, width: sum * scale, level, count, sum});",
    "  }",
    "  return {found, hidden};",
    "}",
    "function describe(box) {",
    "  if (box.count) {",
    "    const what = number(box.count) + (box.count === 1 ? ' folded frame' : ' folded frames');",
    "    return [what, `${amount(box.sum)}, ${percent(box.sum, total)} of all, too narrow to draw`];",
    "  }",
    "  const i = box.frame, own = Math.max(0, self[i]), caller = parent[i];",
    "  return [names[name[i]], `${amount(value[i])}, ${percent(value[i], total)} of all` +",
    "          (caller ? `, ${percent(value[i], value[caller])} of its caller` : '') +",
    "          `, self ${amount(own)}`];",
    "}",
    "function draw() {",
    "  const held = boxes.find((box) => box.element === document.activeElement);",
    "  const {found, hidden} = layout();",
    "  boxes = found;",
    "  const levels = boxes.reduce((most, box) => Math.max(most, box.level + 1), data.levels);",
    "  height = top + levels * row + bottom;",
    "  svg.removeAttribute('viewBox');",
    "  svg.setAttribute('width', width);",
    "  svg.setAttribute('height', height);",
    "  frames.replaceChildren(...boxes.map(drawBox));",
    "  paintHits();",
    "  ring.setAttribute('visibility', 'hidden');",
    "  const again = boxes.find((box) => held && box.frame === held.frame && !box.count === !held.count);",
    "  (again ?? boxes[0]).element.setAttribute('tabindex', 0);",
    "  if (held) (again ?? boxes[0]).element.focus({preventScroll: true});",
    "  note.setAttribute('y', height - bottom + 22);",
    "  note.textContent = fit((hidden ? `${number(hidden)} frames narrower than ${data.narrow} px are ` +",
    "      'folded (hatched); zoom in to see them. ' : '') + data.kept, width - 2 * pad, '11px');",
    "  drawHead();",
    "}",
    "function drawBox(box) {",
    "  const [title, figures] = describe(box);",
    "  const y = data.inverted ? top + box.level * row : height - bottom - (box.level + 1) * row;",
    "  const gap = box.width > 3 ? 1 : 0;",
    "  const kind = box.count ? 'frame fold' : box.above ? 'frame above' : 'frame';",
    "  const group = make('g', {class: kind, tabindex: -1, role: 'treeitem', 'aria-level': box.level + 1,",
    "                           'aria-label': `${title}: ${figures}`});",
    "  const tip = make('title');",
    "  tip.textContent = `${title} (${figures})`;",
    "  const fill = box.count ? 'url(#hatch)' : box.above ? '#e9ebef' : colours[name[box.frame]];",
    "  group.append(tip, make('rect', {x: box.x.toFixed(2), y, width: (box.width - gap).toFixed(2),",
    "                                  height: row - 1, rx: box.width > 6 ? 2 : 0, fill}));",
    "  const text = box.width < 20 || box.count ? '' : fit(title, box.width - gap - 8, '12px');",
    "  if (text) {",
    "    const label = make('text', {x: (box.x + 4).toFixed(2), y: y + row - 6});",
    "    label.textContent = text;",
    "    group.append(label);",
    "  }",
    "  group.box = box;",
    "  box.y = y;",
    "  box.element = group;",
    "  return group;",
    "}",
    "function drawHead() {",
    "  const bar = Math.min(width - 2 * pad, Math.max(210, Math.min(330, width * 0.45)));",
    "  part('tools').setAttribute('width', bar);",
    "  part('tools').setAttribute('x', width - pad - bar);",
    "  part('detail').setAttribute('width', width - 2 * pad);",
    "  head.querySelector('rect').setAttribute('width', width);",
    "  head.querySelector('rect').setAttribute('height', top - 4);",
    "  part('matched').setAttribute('x', width - pad);",
    "  part('title').textContent = fit(data.title, width - 3 * pad - bar, '600 17px');",
    "  reset.hidden = zoomed === 0;",
    "  follow();",
    "}",
    "// The head stays in sight while a tall picture is scrolled.",
    "function follow() {",
    "  const hidden = Math.max(0, Math.min(-svg.getBoundingClientRect().top, height - top));",
    "  head.setAttribute('transform', `translate(0 ${hidden})`);",
    "}",
    "function zoom(frame) {",
    "  if (!(value[frame] > 0)) return;",
    "  zoomed = frame;",
    "  draw();",
    "}",
    "// Search: what matches as plain text or as a regular expression. A frame below a match is part of",
    "// that match's time, so only the topmost ones count.",
    "function search(query) {",
    "  let pattern = null;",
    "  try { pattern = new RegExp(query, 'iu'); } catch { /* then it is plain text only */ }",
    "  const plain = query.toLowerCase();",
    "  hits = query && names.map((text) => text.toLowerCase().includes(plain) || !!pattern?.test(text));",
    "  paintHits();",
    "}",
    "function matchedIn(start) {",
    "  let sum = 0, unknown = 0;",
    "  const open = [start];",
    "  for (const i of open) {",
    "    if (i && hits[name[i]]) { sum += value[i]; continue; }",
    "    unknown += folded[i]?.[1] ?? 0;",
    "    for (let k = 0; k < children[i]; k++) open.push(first[i] + k);",
    "  }",
    "  return [sum, unknown];",
    "}",
    "function paintHits() {",
    "  for (const box of boxes) {",
    "    const hit = hits && !box.count && box.frame > 0 && hits[name[box.frame]];",
    "    box.element.classList.toggle('hit', !!hit);",
    "    box.element.classList.toggle('miss', !!hits && !hit);",
    "  }",
    "  showMatched();",
    "}",
    "function showMatched() {",
    "  let text = '';",
    "  if (hits) {",
    "    const [sum, unknown] = matchedIn(0), [inView] = matchedIn(zoomed);",
    "    text = `Matched: ${percent(sum, total)} (${amount(sum)})` +",
    "        (zoomed ? `, ${percent(inView, value[zoomed])} of this view` : '') +",
    "        (unknown * 1000 > total ? `, at most ${percent(unknown, total)} more in folded frames` : '');",
    "  }",
    "  const matched = part('matched'), room = width - 2 * pad;",
    "  matched.textContent = fit(text, room, '600 12px');",
    "  const taken = text ? matched.getComputedTextLength() + 2 * pad : 0;",
    "  part('subtitle').textContent = fit(subtitle, room - taken, '12px');",
    "}",
    "const hint = 'Click a frame to zoom, or walk with the arrow keys and Enter; Escape resets.';",
    "function show(box) {",
    "  const [title, figures] = box ? describe(box) : ['', hint];",
    "  part('name').textContent = title;",
    "  part('figures').textContent = figures;",
    "}",
    "// Keys: to the side along a row, up and down as it looks.",
    "function neighbour(box, key) {",
    "  const out = data.inverted ? 'ArrowDown' : 'ArrowUp', back = data.inverted ? 'ArrowUp' : 'ArrowDown';",
    "  const level = box.level + (key === out ? 1 : key === back ? -1 : 0);",
    "  const line = boxes.filter((other) => other.level === level).sort((a, b) => a.x - b.x);",
    "  if (key === 'Home') return boxes[0];",
    "  if (key === 'ArrowLeft') return line[line.indexOf(box) - 1];",
    "  if (key === 'ArrowRight') return line[line.indexOf(box) + 1];",
    "  if (key === back) return line.findLast((other) => other.x <= box.x + 0.01);",
    "  if (key === out) return line.find((o) => o.x >= box.x - 0.01 && o.x < box.x + box.width ||",
    "                                           o.x < box.x && o.x + o.width > box.x + 0.01);",
    "}",
    "// The parts that only work with a script are made by it: buttons, search field, detail line.",
    "const reset = html('button', {type: 'button', id: 'reset', title: 'Show all frames again (Escape)'});",
    "const field = html('input', {type: 'search', id: 'search', placeholder: 'Search (Ctrl-F)',",
    "                             'aria-label': 'Search frames: text or regular expression',",
    "                             title: 'Text or regular expression', spellcheck: 'false'});",
    "const bar = html('div', {class: 'bar'}), detail = html('div', {class: 'detail', 'aria-hidden': true});",
    "reset.textContent = 'Reset zoom';",
    "bar.append(reset, field);",
    "detail.append(html('div', {id: 'name'}), html('div', {id: 'figures'}));",
    "part('tools').append(bar);",
    "part('detail').append(detail);",
    "const boxOf = (event) => {",
    "  const group = event.target.closest?.('.frame');",
    "  return group && frames.contains(group) ? group.box : undefined;",
    "};",
    "frames.addEventListener('pointerover', (event) => show(boxOf(event) ?? current));",
    "frames.addEventListener('pointerleave', () => show(current));",
    "frames.addEventListener('click', (event) => { const box = boxOf(event); if (box) zoom(box.frame); });",
    "// Not on `frames`: an SVG element that listens for focus gets it, too, and so a place for Tab.",
    "document.addEventListener('focusin', (event) => {",
    "  const box = boxOf(event);",
    "  if (!box) return;",
    "  current = box;",
    "  frames.querySelector('[tabindex=\"0\"]')?.setAttribute('tabindex', -1);",
    "  box.element.setAttribute('tabindex', 0);",
    "  show(box);",
    "  const place = {x: box.x - 1, y: box.y - 1, width: Math.max(4, box.width + 1), height: row + 1};",
    "  for (const side in place) ring.setAttribute(side, place[side]);",
    "  ring.setAttribute('visibility', box.element.matches(':focus-visible') ? 'visible' : 'hidden');",
    "});",
    "document.addEventListener('focusout', () => {",
    "  current = null;",
    "  ring.setAttribute('visibility', 'hidden');",
    "  show(null);",
    "});",
    "frames.addEventListener('keydown', (event) => {",
    "  const box = boxOf(event);",
    "  if (event.ctrlKey || event.altKey || event.metaKey) return;",
    "  if (event.key === 'Enter' || event.key === ' ') zoom(box.frame);",
    "  else if (!/^(Arrow|Home)/.test(event.key)) return;",
    "  else neighbour(box, event.key)?.element.focus();",
    "  event.preventDefault();",
    "});",
    "field.addEventListener('input', () => search(field.value));",
    "reset.addEventListener('click', () => { zoom(0); boxes[0].element.focus({preventScroll: true}); });",
    "document.addEventListener('keydown', (event) => {",
    "  const find = (event.ctrlKey || event.metaKey) && event.key === 'f' || event.key === '/';",
    "  if (find && document.activeElement !== field) {",
    "    event.preventDefault();",
    "    field.focus();",
    "    field.select();",
    "  } else if (event.key === 'Escape') {",
    "    field.value = '';",
    "    search('');",
    "    zoom(0);",
    "    if (document.activeElement === field) boxes[0].element.focus({preventScroll: true});",
    "  }",
    "});",
    "const alone = svg === document.documentElement;",
    "function resize() {",
    "  const room = alone ? svg.clientWidth : svg.parentElement.clientWidth;",
    "  const next = Math.max(data.least, data.fixed ? Math.min(data.width, room) : room);",
    "  if (next === width) return;",
    "  width = next;",
    "  draw();",
    "}",
    "addEventListener('resize', resize);",
    "addEventListener('scroll', follow, {passive: true, capture: true});",
    "show(null);",
    "resize();",
    "resize(); // again: the first drawing may have brought a scroll bar",
    "if (alone && !data.inverted) scrollTo(0, height);",
    /* clang-format on */
};

static inline void flamegraph_put_lines(const char *const *lines, size_t count, FILE *out) {
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s\n", lines[i]);
}

static inline void flamegraph_put_figures(const flamegraph_picture *picture, uint64_t value, FILE *out) {
    char amount[96], share[16];
    flamegraph_format_amount(amount, sizeof amount, value, picture->options.unit);
    flamegraph_format_percent(share, sizeof share, value, flamegraph_total(picture->graph));
    flamegraph_put_xml(amount, strlen(amount), out);
    fputs(", ", out);
    flamegraph_put_xml(share, strlen(share), out);
    fputs(" of all", out);
}

static inline int flamegraph_y(const flamegraph_picture *picture, uint32_t level) {
    if (picture->options.inverted)
        return FLAMEGRAPH_TOP + (int)level * FLAMEGRAPH_ROW;
    return flamegraph_height(picture) - FLAMEGRAPH_BOTTOM - (int)(level + 1) * FLAMEGRAPH_ROW;
}

static inline void flamegraph_put_box(double x, int y, double width, const char *fill, FILE *out) {
    fprintf(out, "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" rx=\"%d\" fill=\"%s\"/>", x, y,
            width > 3 ? width - 1 : width, FLAMEGRAPH_ROW - 1, width > 6 ? 2 : 0, fill);
}

static inline void flamegraph_put_frame(const flamegraph_picture *picture, const flamegraph_entry *entry,
                                        FILE *out) {
    const flamegraph *graph = picture->graph;
    const flamegraph_node *node = &graph->nodes[entry->node];
    const flamegraph_name *name = &graph->names[node->name];
    const char *text = graph->text + name->offset;
    int y = flamegraph_y(picture, entry->level);
    char fill[8];
    snprintf(fill, sizeof fill, "#%06" PRIx32, flamegraph_colour(text, name->size));
    fputs("<g class=\"frame\"><title>", out);
    flamegraph_put_xml(text, name->size, out);
    fputs(" (", out);
    flamegraph_put_figures(picture, node->total, out);
    fputs(")</title>", out);
    flamegraph_put_box(entry->x, y, entry->width, fill, out);
    if (entry->width >= 20) {
        fprintf(out, "<text x=\"%.2f\" y=\"%d\">", entry->x + 4, y + FLAMEGRAPH_ROW - 6);
        flamegraph_put_fitting(text, name->size, entry->width - 9, 12, out);
        fputs("</text>", out);
    }
    fputs("</g>\n", out);
}

/* One hatched box for all callees of a frame that are too narrow, if it is wide enough itself. */
static inline void flamegraph_put_folded(const flamegraph_picture *picture, const flamegraph_entry *entry,
                                         FILE *out) {
    if (entry->hidden_width < picture->options.min_width)
        return;
    fputs("<g class=\"frame fold\"><title>folded frames (", out);
    flamegraph_put_figures(picture, entry->hidden_value, out);
    fputs(", too narrow to draw)</title>", out);
    flamegraph_put_box(entry->hidden_x, flamegraph_y(picture, entry->level + 1), entry->hidden_width,
                       "url(#hatch)", out);
    fputs("</g>\n", out);
}

/* The sentence about what the file itself leaves out; empty when it has all. */
static inline void flamegraph_format_kept(char *out, size_t room, const flamegraph_picture *picture) {
    char kept[32], all[32];
    out[0] = '\0';
    if (picture->count == picture->graph->node_count)
        return;
    flamegraph_format_count(kept, sizeof kept, picture->count);
    flamegraph_format_count(all, sizeof all, picture->graph->node_count);
    snprintf(out, room, "This file describes the largest %s of %s frames.", kept, all);
}

static inline void flamegraph_put_note(const flamegraph_picture *picture, FILE *out) {
    char kept[128], hidden[32] = "", text[320];
    flamegraph_format_kept(kept, sizeof kept, picture);
    flamegraph_format_count(hidden, sizeof hidden, picture->hidden_frames);
    fprintf(out, "<text id=\"note\" x=\"%d\" y=\"%d\">", FLAMEGRAPH_PAD,
            flamegraph_height(picture) - FLAMEGRAPH_BOTTOM + 22);
    if (picture->hidden_frames) {
        snprintf(text, sizeof text,
                 "%s frames narrower than %g px are folded (hatched); zoom in to see them. %s", hidden,
                 picture->options.min_width, kept);
        flamegraph_put_fitting(text, strlen(text), flamegraph_width(&picture->options) - 2.0 * FLAMEGRAPH_PAD,
                               11, out);
    }
    fputs("</text>\n", out);
}

static inline void flamegraph_put_head(const flamegraph_picture *picture, FILE *out) {
    const flamegraph_options *options = &picture->options;
    double room = flamegraph_width(options) - 2.0 * FLAMEGRAPH_PAD;
    char amount[96];
    flamegraph_format_amount(amount, sizeof amount, flamegraph_total(picture->graph), options->unit);
    fprintf(out,
            "<g id=\"head\"><rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n"
            "<text id=\"title\" x=\"%d\" y=\"29\">",
            flamegraph_width(options), FLAMEGRAPH_TOP - 4, FLAMEGRAPH_PAD);
    flamegraph_put_fitting(options->title, strlen(options->title), room, 18, out);
    fprintf(out, "</text>\n<text id=\"subtitle\" x=\"%d\" y=\"50\">", FLAMEGRAPH_PAD);
    flamegraph_put_xml(amount, strlen(amount), out);
    fputs(" in all", out);
    if (options->subtitle[0]) {
        fputs(" \xc2\xb7 ", out);
        flamegraph_put_fitting(options->subtitle, strlen(options->subtitle), room - 140, 12, out);
    }
    fprintf(out,
            "</text>\n<text id=\"matched\" y=\"50\" role=\"status\"></text>\n"
            "<foreignObject id=\"tools\" y=\"8\" width=\"1\" height=\"34\"/>\n"
            "<foreignObject id=\"detail\" x=\"%d\" y=\"60\" width=\"1\" height=\"40\"/></g>\n",
            FLAMEGRAPH_PAD);
}

static inline void flamegraph_put_start(const flamegraph_picture *picture, FILE *out) {
    const flamegraph_options *options = &picture->options;
    int width = flamegraph_width(options), height = flamegraph_height(picture);
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"flamegraph\" width=\"%d\" "
            "height=\"%d\" viewBox=\"0 0 %d %d\">\n<title>",
            width, height, width, height);
    flamegraph_put_xml(options->title, strlen(options->title), out);
    fputs("</title>\n<style>\n", out);
    flamegraph_put_lines(flamegraph_style, sizeof flamegraph_style / sizeof *flamegraph_style, out);
    fputs("</style>\n"
          "<defs><pattern id=\"hatch\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" "
          "patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" fill=\"#eceef1\"/>"
          "<rect width=\"2\" height=\"5\" fill=\"#c3c9d1\"/></pattern></defs>\n"
          "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
          out);
}

static inline void flamegraph_put_names(const flamegraph_picture *picture, uint32_t *numbers, FILE *out) {
    const flamegraph *graph = picture->graph;
    const char *separator = "";
    uint32_t next = 0;
    memset(numbers, 0xff, graph->name_count * sizeof *numbers);
    fputs("names: [", out);
    for (size_t i = 0; i < picture->count; i++) {
        uint32_t id = graph->nodes[picture->entries[i].node].name;
        if (numbers[id] != FLAMEGRAPH_NONE)
            continue;
        numbers[id] = next++;
        fputs(separator, out);
        flamegraph_put_js(graph->text + graph->names[id].offset, graph->names[id].size, out);
        separator = ",\n";
    }
    fputs("],\ncolours: [", out);
    next = 0;
    for (size_t i = 0; i < picture->count; i++) {
        uint32_t id = graph->nodes[picture->entries[i].node].name;
        if (numbers[id] != next)
            continue;
        fprintf(out, "%s\"#%06" PRIx32 "\"", next ? "," : "",
                flamegraph_colour(graph->text + graph->names[id].offset, graph->names[id].size));
        next++;
    }
    fputs("],\n", out);
}

/* The tree for the script: a few flat lists over all entries. */
static inline bool flamegraph_put_data(const flamegraph_picture *picture, FILE *out) {
    const flamegraph_options *options = &picture->options;
    const flamegraph_entry *entries = picture->entries;
    const flamegraph_node *nodes = picture->graph->nodes;
    uint32_t *numbers = malloc(picture->graph->name_count * sizeof *numbers);
    char kept[128];
    if (!numbers)
        return false;
    flamegraph_format_kept(kept, sizeof kept, picture);
    fputs("const data = {\nunit: ", out);
    flamegraph_put_js(options->unit, strlen(options->unit), out);
    fprintf(out,
            ", ns: %.0f, width: %d, fixed: %d, least: %d, narrow: %g, inverted: %d,\n"
            "pad: %d, row: %d, top: %d, bottom: %d, levels: %" PRIu32 ",\nkept: \"%s\",\ntitle: ",
            flamegraph_nanoseconds(options->unit), flamegraph_width(options), options->width != 0,
            FLAMEGRAPH_MIN_WIDTH, options->min_width, options->inverted, FLAMEGRAPH_PAD, FLAMEGRAPH_ROW,
            FLAMEGRAPH_TOP, FLAMEGRAPH_BOTTOM, picture->levels, kept);
    flamegraph_put_js(options->title, strlen(options->title), out);
    fputs(", subtitle: ", out);
    flamegraph_put_js(options->subtitle, strlen(options->subtitle), out);
    fputs(",\n", out);
    flamegraph_put_names(picture, numbers, out);
    fputs("name: [", out);
    for (size_t i = 0; i < picture->count; i++) {
        fprintf(out, "%s%" PRIu32, i ? "," : "", numbers[nodes[entries[i].node].name]);
    }
    fputs("],\nvalue: [", out);
    for (size_t i = 0; i < picture->count; i++) {
        fprintf(out, "%s%" PRIu64, i ? "," : "", nodes[entries[i].node].total);
    }
    fputs("],\nchildren: [", out);
    for (size_t i = 0; i < picture->count; i++) {
        fprintf(out, "%s%" PRIu32, i ? "," : "", entries[i].child_count);
    }
    fputs("],\nfolded: {", out);
    for (size_t i = 0; i < picture->count; i++) {
        if (!entries[i].folded_frames)
            continue;
        fprintf(out, "%zu:[%" PRIu64 ",%" PRIu64 "],", i, entries[i].folded_frames, entries[i].folded_value);
    }
    fputs("}};\n", out);
    free(numbers);
    return true;
}

static inline bool flamegraph_put_picture(const flamegraph_picture *picture, FILE *out) {
    flamegraph_put_start(picture, out);
    fprintf(out, "<g id=\"frames\" role=\"tree\" aria-label=\"Flame graph\">\n");
    for (size_t i = 0; i < picture->count; i++) {
        if (picture->entries[i].width <= 0)
            continue;
        flamegraph_put_frame(picture, &picture->entries[i], out);
        flamegraph_put_folded(picture, &picture->entries[i], out);
    }
    fputs("</g>\n<rect id=\"ring\" rx=\"3\" visibility=\"hidden\"/>\n", out);
    flamegraph_put_note(picture, out);
    flamegraph_put_head(picture, out);
    fputs("<script><![CDATA[\n'use strict';\n(() => {\n", out);
    if (!flamegraph_put_data(picture, out))
        return false;
    flamegraph_put_lines(flamegraph_script, sizeof flamegraph_script / sizeof *flamegraph_script, out);
    fputs("})();\n]]></script>\n</svg>\n", out);
    return true;
}

/* A picture that says that there is nothing to see. */
static inline void flamegraph_put_empty(const flamegraph_options *options, FILE *out) {
    flamegraph_picture picture = {.options = *options, .levels = 1};
    flamegraph_put_start(&picture, out);
    fprintf(out, "<text id=\"title\" x=\"%d\" y=\"29\">", FLAMEGRAPH_PAD);
    flamegraph_put_fitting(options->title, strlen(options->title),
                           flamegraph_width(options) - 2.0 * FLAMEGRAPH_PAD, 18, out);
    fprintf(out, "</text>\n<text id=\"note\" x=\"%d\" y=\"72\">No samples.</text>\n</svg>\n", FLAMEGRAPH_PAD);
}

static inline flamegraph_result flamegraph_write(const flamegraph *graph, const flamegraph_options *options,
                                                 FILE *out) {
    flamegraph_options used = flamegraph_defaults(options);
    /* SVG and JavaScript want decimal points, whatever locale the host has set. */
    locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    if (!plain)
        return FLAMEGRAPH_NO_MEMORY;
    locale_t before = uselocale(plain);
    bool made = true;
    if (flamegraph_total(graph) == 0) {
        flamegraph_put_empty(&used, out);
    } else {
        flamegraph_picture picture;
        made = flamegraph_picture_make(&picture, graph, &used) && flamegraph_put_picture(&picture, out);
        flamegraph_picture_free(&picture);
    }
    uselocale(before);
    freelocale(plain);
    if (!made)
        return FLAMEGRAPH_NO_MEMORY;
    return fflush(out) == 0 && !ferror(out) ? FLAMEGRAPH_OK : FLAMEGRAPH_IO_ERROR;
}

/* ---- saving ---- */

static inline flamegraph_result flamegraph_complain(FILE *errors, const char *path,
                                                    flamegraph_result result) {
    const char *why = result == FLAMEGRAPH_NO_MEMORY ? "out of memory" : strerror(errno);
    fprintf(errors, "%s: %s\n", path, why);
    return result;
}

/* A new file in the directory of `path`, whose name replaces *beside. */
static inline FILE *flamegraph_open_beside(const char *path, mode_t mode, char **beside) {
    const char *slash = strrchr(path, '/');
    int directory = slash ? (int)(slash - path) + 1 : 0;
    size_t room = (size_t)directory + 64;
    char *name = malloc(room);
    if (!name)
        return NULL;
    for (int attempt = 0; attempt < 100; attempt++) {
        snprintf(name, room, "%.*s.flamegraph.%ld.%d", directory, path, (long)getpid(), attempt);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd < 0 && errno == EEXIST)
            continue;
        FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
        if (!out)
            break;
        *beside = name;
        return out;
    }
    free(name);
    return NULL;
}

/* Write into a new file and rename it to `path`, which is no link. */
static inline flamegraph_result flamegraph_replace(const flamegraph *graph, const flamegraph_options *options,
                                                   const char *path, mode_t mode) {
    char *beside = NULL;
    FILE *out = flamegraph_open_beside(path, mode, &beside);
    if (!out)
        return FLAMEGRAPH_IO_ERROR;
    flamegraph_result result = flamegraph_write(graph, options, out);
    if (fclose(out) != 0 && result == FLAMEGRAPH_OK)
        result = FLAMEGRAPH_IO_ERROR;
    if (result == FLAMEGRAPH_OK && rename(beside, path) != 0)
        result = FLAMEGRAPH_IO_ERROR;
    if (result != FLAMEGRAPH_OK) {
        int why = errno;
        unlink(beside);
        errno = why;
    }
    free(beside);
    return result;
}

static inline flamegraph_result flamegraph_save(const flamegraph *graph, const flamegraph_options *options,
                                                const char *path, FILE *errors) {
    flamegraph_result result;
    struct stat status;
    bool exists = path && stat(path, &status) == 0;
    if (!path || strcmp(path, "-") == 0) {
        path = "standard output";
        result = flamegraph_write(graph, options, stdout);
    } else if (exists && !S_ISREG(status.st_mode)) {
        FILE *out = fopen(path, "w");
        if (!out)
            return flamegraph_complain(errors, path, FLAMEGRAPH_IO_ERROR);
        result = flamegraph_write(graph, options, out);
        if (fclose(out) != 0 && result == FLAMEGRAPH_OK)
            result = FLAMEGRAPH_IO_ERROR;
    } else {
        /* A link stays a link: what it leads to is replaced. */
        char *target = exists ? realpath(path, NULL) : NULL;
        mode_t mode = exists ? status.st_mode & 0777 : 0666;
        if (target && access(target, W_OK) != 0) {
            result = FLAMEGRAPH_IO_ERROR;
        } else {
            result = flamegraph_replace(graph, options, target ? target : path, mode);
        }
        free(target);
    }
    return result == FLAMEGRAPH_OK ? result : flamegraph_complain(errors, path, result);
}

#endif
