/* import_collapsed.h: collapsed text, a stack a line: pyprof's own, py-spy's, FlameGraph's and inferno's. A part of
 * imports.h, which includes it.
 *
 * In: text that is read piece by piece, of which no more is held than a piece, or a line. Out: stacks in the profile, or
 * in the tree that the caller gives. What values are, and whether names are escaped, is told by who wrote the text:
 *
 *     thread MainThread;main (game.py:3);walk (game.py:17) 120000     pyprof: microseconds, with escapes
 *     process 7:"game";thread (9): "Main";main (game.py:3) 12         py-spy: samples
 *     main;walk 12                                                    others: samples, of one thread
 */
#ifndef IMPORT_COLLAPSED_H
#define IMPORT_COLLAPSED_H

/* A text of which the stacks are read, with what is kept of the last one: where it stands, and where in it its thread and
   its frames end; in->last_nodes has their nodes, the thread's first. */
typedef struct import_collapsed {
    bool is_ours;      /* each stack begins with "thread NAME"; names are escaped */
    bool is_unchecked; /* the caller has said what the values are */
    int exponent;      /* see import_unit; -1 = samples, or memory */
    unsigned metric;   /* a pyprof_metric: what they count as */
    const char *stack; /* in in->text, until that moves */
    size_t stack_size;
    pyprof__array ends;
    pyprof__array name; /* room for a name without its escapes */
    flamegraph *texts;  /* of frames: each gets a number, as names in a tree do, and is taken apart once */
    pyprof__array
        frames; /* import_frame, by these numbers; its function is PYPROF__NONE where it was not yet taken apart */
    size_t stacks, pairs;
} import_collapsed;

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
static import_frame *import_find_frame(import *in, import_collapsed *of, const flamegraph_sought *text) {
    uint32_t number = flamegraph_intern_hashed(of->texts, text->bytes, text->size, text->hash);
    if (number == FLAMEGRAPH_NONE) {
        (void)import_no_memory(in);
        return NULL;
    }
    while (number >=
           of->frames.count) { /* once for a new one, twice for the first, as trees have a name of their own */
        import_frame *added = (import_frame *)import_add(in, &of->frames);
        if (added == NULL) {
            return NULL;
        }
        *added = (import_frame){PYPROF__NONE, 0, 0};
    }
    return &PYPROF__ITEM(import_frame, &of->frames, number);
}

/* Adds one frame, a text of the stack, below the last node. */
static bool import_add_frame(import *in, import_collapsed *of, const char *stack, const flamegraph_sought *text,
                             const pyprof_node *figures) {
    uint32_t depth = in->last_nodes.count, *nodes = (uint32_t *)in->last_nodes.data;
    size_t from = (size_t)(text->bytes - stack);
    import_frame *frame = import_find_frame(in, of, text);
    if (frame == NULL) {
        return false;
    }
    bool is_new = frame->function == PYPROF__NONE;
    if (is_new && import_is_blank(text->bytes, text->size)) {
        return import_fail(in, "frame %zu of the stack is empty", import_frame_number(stack, from));
    }
    if (is_new && !import_parse_frame(in, of, text->bytes, text->size, frame)) {
        return false;
    }
    if (!import_child(in, nodes[depth - 1], frame, figures, &nodes[depth])) {
        return false;
    }
    ((uint32_t *)of->ends.data)[depth] = (uint32_t)(from + text->size);
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
    if (!import_expect_thread(in, root > 0)) {
        return false;
    }
    ((uint32_t *)of->ends.data)[0] = (uint32_t)root;
    in->last_nodes.count = 1;
    thread.name = import_text(name, size);
    return import_find_thread(in, &thread, (uint32_t *)in->last_nodes.data);
}

/* How much of the last stack stays: whole frames, but never the last one, which has to get figures. */
static uint32_t import_same_frames(const import *in, const import_collapsed *of, const char *stack, size_t size,
                                   size_t root) {
    const uint32_t *ends = (const uint32_t *)of->ends.data;
    size_t shorter = size < of->stack_size ? size : of->stack_size;
    uint32_t same = 0;
    if (in->last_nodes.count == 0 || ends[0] != root) {
        return 0;
    }
    size_t common = flamegraph_equal_bytes(stack, of->stack, shorter);
    if (common < root) {
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
    return (pyprof__array_reserve(&in->memory, &of->name, size + sizeof IMPORT_ALL_THREADS) &&
            pyprof__array_reserve(&in->memory, &of->ends, size / 2 + 3) && import_cut_stack(in, kept, size / 2 + 3)) ||
           import_no_memory(in);
}

#define IMPORT_AHEAD 32 /* frames that are looked up at a time */

/* The next frames of a stack, from *at on, as many as there is room for. *at is beyond the size behind the last one. */
static size_t import_cut_frames(const char *stack, size_t *at, size_t size, flamegraph_sought *texts) {
    size_t count = 0;
    for (; count < IMPORT_AHEAD && *at <= size; count++) {
        const char *stop = (const char *)memchr(stack + *at, ';', size - *at);
        texts[count].bytes = stack + *at;
        texts[count].size = stop != NULL ? (size_t)(stop - stack) - *at : size - *at;
        *at += texts[count].size + 1;
    }
    return count;
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
    while (at <= size) {
        flamegraph_sought texts[IMPORT_AHEAD];
        size_t count = import_cut_frames(stack, &at, size, texts);
        flamegraph_seek(of->texts, texts, count);
        for (size_t i = 0; i < count; i++) {
            if (!import_add_frame(in, of, stack, &texts[i], at > size && i + 1 == count ? figures : NULL)) {
                return false;
            }
        }
    }
    of->stack = stack;
    of->stack_size = size;
    return true;
}

/* Says what is wrong with a value, which is quoted between two texts. */
static bool import_wrong_value(import *in, const char *before, const char *text, size_t size, const char *behind) {
    char shown[40];
    flamegraph_quote(shown, sizeof shown, text, size);
    return import_fail(in, "%s%s%s", before, shown, behind);
}

/* The value, which stands behind the last blank. */
static bool import_collapsed_value(import *in, import_collapsed *of, const char *text, size_t size, uint64_t *value) {
    const char *at = text, *end = text + size;
    const char *wrong = json_decimal(&at, end, of->exponent < 0 ? 0 : of->exponent, value);
    if (wrong == NULL && at == end && of->exponent < 0 && memchr(text, '.', size) != NULL) {
        return import_wrong_value(in, "the value ", text, size,
                                  " is no whole number of samples: if it is a time, say which by --unit");
    }
    if (size > 1 && *text == '-') {
        return import_wrong_value(in, "the value ", text, size, " is negative: a profile has amounts, not differences");
    }
    if (wrong == JSON_TOO_LARGE) {
        return import_wrong_value(in, "the value ", text, size, " does not fit in 64 bits");
    }
    return (wrong == NULL && at == end) ||
           import_wrong_value(in, "the line ends with '", text, size, "', not with a number");
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
    import_set(&figures, of->metric, value);
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
    in->last_nodes.count = 0; /* the text moves, and the last stack with it */
    at = at < in->size ? at : in->size;
    memmove(in->text, in->text + at, in->size - at);
    in->size -= at;
    return in->size < IMPORT_MOST_LINE || import_fail(in, "a line is longer than 64 MiB");
}

static bool import_collapsed_text(import *in) {
    const char *unit = in->options->unit;
    import_collapsed of = {.name = {.item_size = 1},
                           .ends = {.item_size = sizeof(uint32_t)},
                           .frames = {.item_size = sizeof(import_frame)}};
    of.texts = flamegraph_create();
    in->profile->has_short_paths = true;
    in->tree = in->options->tree;
    in->into->has_tree = in->tree != NULL;
    of.is_ours = import_looks_ours(in->text, in->size);
    of.is_unchecked = unit != NULL;
    of.exponent = unit != NULL ? import_unit(unit, strlen(unit)) : of.is_ours ? import_unit("us", 2) : -1;
    int of_memory = unit != NULL ? import_memory_unit(unit, strlen(unit)) : -1;
    of.metric = of_memory >= 0 ? (unsigned)of_memory : of.exponent < 0 ? PYPROF_METRIC_SAMPLES : PYPROF_METRIC_WALL;
    bool is_good = of.texts != NULL ? import_lines(in, &of) : import_no_memory(in);
    while (is_good && !in->has_ended) {
        is_good = import_read_more(in) && import_lines(in, &of);
    }
    if (is_good && of.stacks > 0 && of.stacks == of.pairs) {
        in->line = 0;
        is_good = import_fail(in, "each line has two values, as difffolded.pl writes them: convert the two files by "
                                  "--diff instead");
    }
    flamegraph_free(of.texts);
    pyprof__array_free(&in->memory, &of.frames);
    pyprof__array_free(&in->memory, &of.ends);
    pyprof__array_free(&in->memory, &of.name);
    in->into->facts.kind = of_memory >= 0 ? PYPROF_KIND_HEAP : PYPROF_KIND_TIME;
    in->into->metrics = 1u << of.metric;
    return is_good;
}

#endif
