/* Mutated collapsed stacks through the reader and the writer of flamegraph.h, under sanitizers.
 *
 * Every text must either be refused with `NAME:LINE:` messages and change nothing, or give a picture
 * that is well-formed XML in valid UTF-8. The mutations are the same in every run: fuzz_svg [ROUNDS].
 * With -DFUZZ_LIBFUZZER -fsanitize=fuzzer, clang's libFuzzer drives the same check instead.
 */
#define _XOPEN_SOURCE 700
#define FLAMEGRAPH_MAX_FRAMES 24 /* small, so that most pictures leave frames out */
#define FLAMEGRAPH_BLOCK 8       /* so that most lines stand in several blocks */
#include "flamegraph.h"

#include <ctype.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail(__LINE__, #condition);                                                                                \
    } while (0)

static const uint8_t *current_data;
static size_t current_size;

static void fail(int line, const char *condition) {
    fprintf(stderr, "fuzz_svg.c:%d: does not hold: %s\ninput:", line, condition);
    for (size_t i = 0; i < current_size; i++) {
        fprintf(stderr, isprint(current_data[i]) ? "%c" : "\\x%02x", current_data[i]);
    }
    fputc('\n', stderr);
    abort();
}

/* ---- what every output must be ---- */

/* Independent of the writer's own decoder: the table of well-formed byte sequences of the Unicode
 * standard, without what XML forbids. */
static size_t character_size(const unsigned char *at, size_t left) {
    unsigned char byte = at[0];
    if (byte < 0x80)
        return byte >= 0x20 || byte == '\n' ? 1 : 0;
    size_t size = byte >= 0xc2 && byte <= 0xdf ? 2 : (byte & 0xf0) == 0xe0 ? 3 : byte >= 0xf0 && byte <= 0xf4 ? 4 : 0;
    if (size == 0 || size > left)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((byte == 0xe0 && at[1] < 0xa0) || (byte == 0xed && at[1] > 0x9f))
        return 0;
    if ((byte == 0xf0 && at[1] < 0x90) || (byte == 0xf4 && at[1] > 0x8f))
        return 0;
    if (byte == 0xef && at[1] == 0xbf && at[2] > 0xbd)
        return 0;
    return size;
}

static void check_utf8(const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        size_t step = character_size((const unsigned char *)text + at, size - at);
        CHECK(step > 0);
        at += step;
    }
}

/* Skips a tag's attributes: every value is quoted and holds no '<'. */
static const char *skip_attributes(const char *at) {
    while (*at != '>' && !(*at == '/' && at[1] == '>')) {
        CHECK(*at != '\0' && *at != '<');
        if (*at++ != '"')
            continue;
        while (*at != '"') {
            CHECK(*at != '\0' && *at != '<');
            at++;
        }
        at++;
    }
    return at;
}

static const char *skip_entity(const char *at) {
    static const char *const entities[] = {"&lt;", "&gt;", "&amp;", "&quot;"};
    for (size_t i = 0; i < 4; i++) {
        if (strncmp(at, entities[i], strlen(entities[i])) == 0)
            return at + strlen(entities[i]);
    }
    CHECK(!"a known entity");
    return at;
}

/* Elements close in the order in which they opened, and there is one root. */
static void check_xml(const char *at) {
    const char *open[16];
    size_t depth = 0, roots = 0;
    CHECK(strncmp(at, "<?xml ", 6) == 0);
    at = strstr(at, "?>") + 2;
    while (*at) {
        if (strncmp(at, "<![CDATA[", 9) == 0) {
            at = strstr(at, "]]>");
            CHECK(at != NULL);
            at += 3;
        } else if (strncmp(at, "</", 2) == 0) {
            CHECK(depth > 0);
            size_t size = strcspn(at + 2, ">");
            CHECK(strncmp(open[--depth], at + 2, size) == 0 && strchr(" />", open[depth][size]));
            at += size + 3;
        } else if (*at == '<') {
            CHECK(isalpha((unsigned char)at[1]) && depth < 16);
            roots += depth == 0;
            open[depth++] = at + 1;
            at = skip_attributes(at + 1);
            if (*at == '/')
                depth--, at++;
            at++;
        } else {
            CHECK(depth > 0 || isspace((unsigned char)*at));
            CHECK(strncmp(at, "]]>", 3) != 0);
            at = *at == '&' ? skip_entity(at) : at + 1;
        }
    }
    CHECK(depth == 0 && roots == 1);
}

static void check_errors(const char *text) {
    CHECK(*text != '\0');
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        CHECK(strncmp(line, "in:", 3) == 0 && strchr(line, '\n') != NULL);
        CHECK(isdigit((unsigned char)line[3]) || strstr(line, "more bad lines"));
    }
}

/* ---- one input ---- */

static bool write_file(void *file, const void *data, size_t size) {
    return fwrite(data, 1, size, file) == size;
}

static char *picture_of(const flamegraph *graph, const flamegraph_options *options) {
    char *picture = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&picture, &size);
    CHECK(out && flamegraph_write(graph, options, write_file, out) == FLAMEGRAPH_OK);
    fclose(out);
    CHECK(strlen(picture) == size);
    return picture;
}

static void check_picture(const flamegraph *graph, const flamegraph_options *options) {
    char *picture = picture_of(graph, options);
    check_utf8(picture, strlen(picture));
    check_xml(picture);
    free(picture);
}

static void check_same_picture(const flamegraph *graph, const flamegraph *other, const flamegraph_options *options) {
    char *picture = picture_of(graph, options), *expected = picture_of(other, options);
    CHECK(strcmp(picture, expected) == 0);
    free(picture);
    free(expected);
}

static flamegraph *graph_of_few(void) {
    flamegraph *graph = flamegraph_create();
    CHECK(graph && flamegraph_add(graph, "a;b 3\na 1", 9, "few", NULL, NULL) == FLAMEGRAPH_OK);
    return graph;
}

/* What was refused has left no trace: what is added afterwards is as if it had never been there. */
static void check_undone(flamegraph *graph, const flamegraph_options *options) {
    static const char more[] = "a;b;c 5\nthread t;a 0.5\nx;y 2\na;d 1";
    flamegraph *few = graph_of_few();
    check_same_picture(graph, few, options);
    CHECK(flamegraph_add(graph, more, sizeof more - 1, "more", NULL, NULL) == FLAMEGRAPH_OK);
    CHECK(flamegraph_add(few, more, sizeof more - 1, "more", NULL, NULL) == FLAMEGRAPH_OK);
    check_same_picture(graph, few, options);
    flamegraph_free(few);
}

/* Read as a difference. */
static void check_difference(const uint8_t *data, size_t size, const flamegraph_options *options) {
    flamegraph_options difference = *options;
    flamegraph *graph = graph_of_few(), *few = graph_of_few();
    difference.difference = size % 8 == 2 ? FLAMEGRAPH_SHARES : FLAMEGRAPH_ABSOLUTE;
    CHECK(flamegraph_add_difference(graph, "a;b 2 1\nc 1 0", 13, "in", NULL, NULL) == FLAMEGRAPH_OK);
    CHECK(flamegraph_add_difference(few, "a;b 2 1\nc 1 0", 13, "in", NULL, NULL) == FLAMEGRAPH_OK);
    if (flamegraph_add_difference(graph, (const char *)data, size, "in", NULL, NULL) != FLAMEGRAPH_OK)
        check_same_picture(graph, few, &difference);
    check_picture(graph, &difference);
    flamegraph_free(graph);
    flamegraph_free(few);
}

/* In blocks, a text is what it is in one piece. */
static void check_blocks(const uint8_t *data, size_t size, flamegraph_result expected, const flamegraph *graph,
                         const flamegraph_options *options) {
    flamegraph *blocks = graph_of_few();
    FILE *in = size ? fmemopen((void *)(uintptr_t)data, size, "rb") : fopen("/dev/null", "rb");
    CHECK(in && flamegraph_read(blocks, in, "in", NULL, NULL) == expected);
    fclose(in);
    check_same_picture(blocks, graph, options);
    flamegraph_free(blocks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const units[] = {NULL, "us", "ns", "<&\">"};
    uint8_t choice = size ? data[size - 1] : 0;
    flamegraph_options options = {.title = choice & 64 ? "a & b ]]> \xff" : NULL,
                                  .unit = units[choice & 3],
                                  .width = choice & 4 ? 300 : 0,
                                  .min_width = choice & 8 ? 0.01 : 0,
                                  .inverted = (choice & 16) != 0,
                                  .threads = (choice & 32) != 0};
    char *told = NULL;
    size_t told_size = 0;
    current_data = data;
    current_size = size;
    FILE *errors = open_memstream(&told, &told_size);
    flamegraph *graph = graph_of_few();
    CHECK(errors);
    flamegraph_result result = flamegraph_add(graph, (const char *)data, size, "in", flamegraph_tell_file, errors);
    fclose(errors);
    if (result == FLAMEGRAPH_OK) {
        CHECK(told_size == 0 && flamegraph_total(graph) >= 4);
    } else {
        CHECK(result == FLAMEGRAPH_BAD_INPUT && flamegraph_total(graph) == 4);
        check_errors(told);
    }
    check_picture(graph, &options);
    if (size % 4 == 0) /* these take time */
        check_blocks(data, size, result, graph, &options);
    if (size % 4 == 2)
        check_difference(data, size, &options);
    if (size % 4 == 1 && result != FLAMEGRAPH_OK)
        check_undone(graph, &options);
    flamegraph_free(graph);
    free(told);
    return 0;
}

#ifndef FUZZ_LIBFUZZER

/* ---- mutations ---- */

static uint64_t state = 1;

static size_t random_below(size_t limit) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (size_t)(state % limit);
}

#define MAX_INPUT 4096

static const char *const seeds[] = {
    "thread MainThread;<module> (prog.py:12);f (prog.py:3) 12345\n",
    "a;b;c 10\na;b;d 20\r\na;e 5\n\n# a comment\nf 0\n",
    "thread \xc3\xa9t\xc3\xa9;\xe5\x90\x8d\xe5\x89\x8d (\xf0\x9f\x90\x8d.py:1) 7\n",
    "r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r;r 1\n",
    "a 9223372036854775807\nb 9223372036854775807\n",
    "process 1:\"x\";thread (0x7f01);f (a.py:3) 1.25\nthread w-1;f 1e-05\nthread w-22;thread x;f 0.5\n",
    "a;b 10 20\na;c 0 7\n",
    "thread w-1;a;b 10 20.5\nthread w-2;a;c 0 7\nthread w-2;gone 4 0\n",
    "{\"$schema\": \"https://www.speedscope.app/file-format-schema.json\"}\n",
};

static const char *const tokens[] = {
    ";",
    " ",
    "\n",
    "\r\n",
    " 1\n",
    "#",
    "# ",
    "<",
    "]]>",
    "&",
    "\"",
    "</g>",
    "\\",
    "18446744073709551615",
    "\xff",
    "\xc3",
    "\x01",
    "\t",
    "-",
    "(x.py:3)",
    "\xed\xa0\x80",
    "0",
    "[",
    ".",
    "`",
    "\x7f",
    "\xef\xbf\xbf",
    "\xf4\x90\x80\x80",
    "\xef\xbb\xbf",
    "\xff\xfe",
    "thread ",
    "process ",
    "0x",
    "7",
    ".5",
    "e-3",
    "e9",
    "\r",
    "<svg ",
    "\x1f\x8b",
};

static size_t insert(uint8_t *data, size_t size, size_t at, const void *bytes, size_t count) {
    if (size + count > MAX_INPUT)
        return size;
    memmove(data + at + count, data + at, size - at);
    memcpy(data + at, bytes, count);
    return size + count;
}

static size_t mutate(uint8_t *data, size_t size) {
    uint8_t copy[64];
    size_t at = random_below(size + 1), left = size - at;
    size_t count = random_below(left < sizeof copy ? left + 1 : sizeof copy);
    const char *text = tokens[random_below(sizeof tokens / sizeof *tokens)];
    switch (random_below(6)) {
    case 0:
        memmove(data + at, data + at + count, left - count);
        return size - count;
    case 1:
        memcpy(copy, data + at, count);
        return insert(data, size, random_below(size + 1), copy, count);
    case 2:
        if (left)
            data[at] = (uint8_t)random_below(256);
        return size;
    case 3:
        text = seeds[random_below(sizeof seeds / sizeof *seeds)];
        return insert(data, size, at, text, strlen(text));
    default:
        return insert(data, size, at, text, strlen(text));
    }
}

int main(int argc, char **argv) {
    static uint8_t data[MAX_INPUT];
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 5000;
    long refused = 0;
    CHECK(rounds > 0);
    LLVMFuzzerTestOneInput(data, 0);
    for (long round = 0; round < rounds; round++) {
        const char *seed = seeds[random_below(sizeof seeds / sizeof *seeds)];
        size_t size = strlen(seed);
        memcpy(data, seed, size);
        for (size_t step = random_below(8); step > 0; step--)
            size = mutate(data, size);
        /* An exact copy on the heap: so that a read past its end is seen. */
        uint8_t *exact = malloc(size ? size : 1);
        CHECK(exact);
        memcpy(exact, data, size);
        LLVMFuzzerTestOneInput(exact, size);
        flamegraph *graph = flamegraph_create();
        CHECK(graph);
        refused += flamegraph_add(graph, (const char *)exact, size, "in", NULL, NULL) != FLAMEGRAPH_OK;
        flamegraph_free(graph);
        free(exact);
    }
    printf("%ld inputs, %ld of them refused\n", rounds, refused);
    /* Both ways must have been walked often, or the mutations are no good. */
    CHECK(refused > rounds / 10 && refused < rounds - rounds / 10);
    return 0;
}

#endif
