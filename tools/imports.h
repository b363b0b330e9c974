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
    const char *unit; /* of collapsed text: ns, us, ms, s, samples; bytes or objects: it is of memory in use; NULL = us
                         if pyprof wrote it, else samples */
    const char *take; /* the one sample type of a pprof file to take; NULL = those that are ours */
    flamegraph
        *tree; /* takes the stacks of collapsed text and of pprof, where the profile then has each frame but once:
                         see exports_name_tree. Few bytes a node. NULL = all goes into the profile */
} import_options;

/* What a file has given. Of memory (facts.kind) the metrics are those of a heap profile. */
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
    bool is_empty; /* that it holds no samples is all that is wrong */
} imported;

/* Adds what a file holds; "-" is standard input. Errors: IO, FORMAT (what is in it is wrong), MEMORY. */
static pyprof_result import_file(pyprof_profile *profile, const char *path, const import_options *options,
                                 imported *into);

/* Shared by all formats, then a part for each. */
#include "import_base.h"
#include "import_collapsed.h"
#include "import_jsonl.h"
#include "import_pprof.h"
#include "import_speedscope.h"

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
    in->into->is_empty = in->into->metrics == 0;
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
    if (!in.has_stats &&
        into->facts.kind == PYPROF_KIND_TIME) { /* how many samples objects were estimated by is not told */
        into->facts.stats.samples = in.all[PYPROF_METRIC_SAMPLES];
        into->facts.stats.samples_idle = in.all_idle;
    }
    import_free(&in);
    return in.result;
}

#endif
