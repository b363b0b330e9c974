/* import_pprof.h: pprof: https://github.com/google/pprof, proto/profile.proto. A part of imports.h, which includes it.
 *
 * In: the whole file, gzip undone. Out: stacks in the profile, or in the tree that the caller gives; facts of the
 * recording. Samples refer to what may stand behind them in the file, so it is gone through twice:
 *
 *     all but the samples --> locations and functions by their ids --> the frames of each location
 *     samples --> labels (thread, id, idle), ids of locations --> frames' numbers --> import_stack
 *
 * As a few bytes can ask for very many frames, those of all stacks together are bounded by the size of the file.
 */
#ifndef IMPORT_PPROF_H
#define IMPORT_PPROF_H

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

static uint64_t import_long_varint(import_message *message) {
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

/* Most have one byte or two. */
static inline uint64_t import_varint(import_message *message) {
    const unsigned char *at = message->at;
    if (at < message->end && at[0] < 0x80) {
        message->at = at + 1;
        return at[0];
    }
    if (message->end - at > 1 && at[1] < 0x80) {
        message->at = at + 2;
        return (uint64_t)(at[0] & 0x7f) | (uint64_t)at[1] << 7;
    }
    return import_long_varint(message);
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
    uint64_t address;      /* its name if it has none */
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
    pyprof__array frames;           /* an import_frame for each line, then one for each location without any */
    pyprof__array ids, values;      /* of the sample that is being read; ids are of locations, leaf first */
    pyprof__array last_ids;         /* of the one before */
    pyprof__array stack, stack_end; /* its frames, root first; and from the root on, where each location's end there */
    uint64_t period_type[2], period;
    uint64_t mapping_file, time, duration;
    pyprof__array comments;
    uint64_t budget; /* so many frames may yet come: a few bytes can ask for very many */
    bool has_last;   /* a sample came before, whose thread and process these are, as its labels have them */
    pyprof_text last_thread, last_process;
    int32_t last_tid, last_pid;
    uint32_t last_node; /* of the thread */
} import_pprof;

static bool import_message_failed(import *in, const import_message *message) {
    in->has_place = true;
    in->place = (size_t)((const char *)message->at - in->text);
    return import_fail(in, "%s", message->wrong);
}

/* The numbers of a repeated field, packed or one by one. */
static bool import_take_numbers(import *in, import_message *message, pyprof__array *numbers) {
    import_message packed = {.at = message->data, .end = message->data + message->size};
    size_t most = message->is_bytes ? message->size : 1; /* a number takes a byte at least */
    if (!pyprof__array_reserve(&in->memory, numbers, numbers->count + most)) {
        return import_no_memory(in);
    }
    uint64_t *items = (uint64_t *)numbers->data;
    if (!message->is_bytes) {
        items[numbers->count++] = message->number;
    }
    uint64_t *item = items + numbers->count;
    while (message->is_bytes && packed.at < packed.end && packed.wrong == NULL) {
        *item++ = import_varint(&packed);
    }
    numbers->count = (uint32_t)(item - items);
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
    if (location == NULL) {
        return false;
    }
    location->first = of->lines.count;
    while (import_next_field(&message)) {
        if (message.field == 1) {
            location->id = message.number;
        } else if (message.field == 3) {
            location->address = message.number;
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
        char address[24];
        int size = snprintf(address, sizeof address, "0x%llx", (unsigned long long)location->address);
        import_frame *frame = (import_frame *)import_add(in, &of->frames);
        pyprof_text name = import_text(address, (size_t)size);
        if (frame == NULL || !import_make_frame(in, name, import_text("", 0), 0, 0, frame)) {
            return false;
        }
        location->first = of->frames.count - 1;
        location->count = 1;
    }
    return true;
}

/* ---- which sample types ---- */

/* What a sample type counts as, by its name; the unit has to be right, too. */
typedef struct import_known_type {
    const char *name;
    int metric;
    pyprof_kind kind;
} import_known_type;

static const import_known_type import_known_types[] = {
    {"wall", PYPROF_METRIC_WALL, PYPROF_KIND_TIME},
    {"time", PYPROF_METRIC_WALL, PYPROF_KIND_TIME},
    {"real", PYPROF_METRIC_WALL, PYPROF_KIND_TIME},
    {"wall-time", PYPROF_METRIC_WALL, PYPROF_KIND_TIME},
    {"wall_time", PYPROF_METRIC_WALL, PYPROF_KIND_TIME},
    {"cpu", PYPROF_METRIC_CPU, PYPROF_KIND_TIME},
    {"cpu-time", PYPROF_METRIC_CPU, PYPROF_KIND_TIME},
    {"gil", PYPROF_METRIC_GIL, PYPROF_KIND_TIME},
    {"samples", PYPROF_METRIC_SAMPLES, PYPROF_KIND_TIME},
    {"sample", PYPROF_METRIC_SAMPLES, PYPROF_KIND_TIME},
    {"count", PYPROF_METRIC_SAMPLES, PYPROF_KIND_TIME},
    {"inuse_space", PYPROF_METRIC_INUSE_SPACE, PYPROF_KIND_HEAP},
    {"heap-space", PYPROF_METRIC_INUSE_SPACE, PYPROF_KIND_HEAP},
    {"alloc_space", PYPROF_METRIC_ALLOC_SPACE, PYPROF_KIND_HEAP},
    {"alloc-space", PYPROF_METRIC_ALLOC_SPACE, PYPROF_KIND_HEAP},
    {"alloc_objects", PYPROF_METRIC_ALLOC_OBJECTS, PYPROF_KIND_HEAP},
    {"inuse_objects", PYPROF_METRIC_INUSE_OBJECTS, PYPROF_KIND_HEAP}};

/* How many nanoseconds, bytes, ... one of a unit is. */
static uint64_t import_factor(const pyprof_text *unit) {
    static const uint64_t factors[] = {1, 1000, 1000000, 1000000000};
    int exponent = import_unit(unit->data, unit->size);
    return exponent < 0 ? 1 : factors[exponent / 3];
}

/* NULL = it is none that we know. */
static const import_known_type *import_type_known(const pyprof_text *name, const pyprof_text *unit) {
    for (size_t i = 0; i < sizeof import_known_types / sizeof *import_known_types; i++) {
        const import_known_type *known = &import_known_types[i];
        bool is_space = known->metric == PYPROF_METRIC_INUSE_SPACE || known->metric == PYPROF_METRIC_ALLOC_SPACE;
        bool is_time = known->kind == PYPROF_KIND_TIME && known->metric != PYPROF_METRIC_SAMPLES;
        bool fits = is_time                                       ? import_unit(unit->data, unit->size) >= 0
                    : known->kind == PYPROF_KIND_HEAP && is_space ? import_is(unit, "bytes")
                                                                  : import_is(unit, "count");
        if (fits && import_is(name, known->name)) {
            return known;
        }
    }
    return NULL;
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

/* The one that was asked for: times count as wall time, bytes as memory in use, all else as samples. */
static void import_take_type(import *in, import_type *type, const pyprof_text *name, const pyprof_text *unit) {
    const import_known_type *known = import_type_known(name, unit);
    bool is_time = import_unit(unit->data, unit->size) >= 0, is_space = import_is(unit, "bytes");
    type->metric = known != NULL ? known->metric
                   : is_time     ? PYPROF_METRIC_WALL
                   : is_space    ? PYPROF_METRIC_INUSE_SPACE
                                 : PYPROF_METRIC_SAMPLES;
    type->factor = import_factor(unit);
    in->into->facts.kind = known != NULL ? known->kind : is_space ? PYPROF_KIND_HEAP : PYPROF_KIND_TIME;
    in->into->metrics = 1u << type->metric;
}

/* The types that we know, of one kind: times, or of memory if there are none. */
static bool import_take_types(import *in, import_pprof *of, pyprof_kind kind) {
    for (uint32_t i = 0; i < of->types.count; i++) {
        import_type *type = &PYPROF__ITEM(import_type, &of->types, i);
        const pyprof_text *name = import_string(in, of, type->name), *unit = import_string(in, of, type->unit);
        if (name == NULL || unit == NULL) {
            return false;
        }
        const import_known_type *known = import_type_known(name, unit);
        if (known != NULL && known->kind == kind && !(in->into->metrics & 1u << known->metric)) {
            type->metric = known->metric;
            type->factor = import_factor(unit);
            in->into->metrics |= 1u << known->metric;
        }
    }
    in->into->facts.kind = kind;
    return in->into->metrics != 0;
}

/* Whether the one that was asked for is there; then it is the only one. */
static bool import_take_asked(import *in, import_pprof *of) {
    for (uint32_t i = 0; i < of->types.count; i++) {
        import_type *type = &PYPROF__ITEM(import_type, &of->types, i);
        const pyprof_text *name = import_string(in, of, type->name), *unit = import_string(in, of, type->unit);
        if (name != NULL && unit != NULL && import_is(name, in->options->take)) {
            import_take_type(in, type, name, unit);
            return true;
        }
    }
    return false;
}

/* Which of the values count as what. */
static bool import_choose_types(import *in, import_pprof *of) {
    char list[400];
    bool is_found = in->options->take != NULL
                        ? import_take_asked(in, of)
                        : import_take_types(in, of, PYPROF_KIND_TIME) || import_take_types(in, of, PYPROF_KIND_HEAP);
    if (is_found || in->result != PYPROF_OK) {
        return is_found;
    }
    import_list_types(in, of, list, sizeof list);
    if (of->types.count == 0) {
        return import_fail(in, "this is no pprof file, or an empty one: it has no sample types");
    }
    if (in->options->take != NULL) {
        return import_fail(in, "it has no sample type '%s': it has %s", in->options->take, list);
    }
    return import_fail(in, "it has neither times nor counts of samples, nor memory, but %s: name one by --take", list);
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

/* Adds a location's frames to the stack. Of its lines, the first is the innermost. There is room for as many frames as the
   stack has locations, and more is made for those that have several. */
static bool import_add_location(import *in, import_pprof *of, uint64_t id) {
    const import_location *location = (const import_location *)import_find_id(&of->locations, id);
    if (location == NULL) {
        return import_fail(in, "a sample is at location %llu, which the file does not have", (unsigned long long)id);
    }
    if (location->count > of->budget) {
        return import_fail(in, "its stacks come to far more frames than its size allows for");
    }
    of->budget -= location->count;
    if (location->count > 1 &&
        !pyprof__array_reserve(&in->memory, &of->stack, (size_t)of->stack.count + location->count + of->ids.count)) {
        return import_no_memory(in);
    }
    uint32_t *stack = (uint32_t *)of->stack.data;
    for (uint32_t line = location->count; line-- > 0;) {
        stack[of->stack.count++] = location->first + line;
    }
    PYPROF__ITEM(uint32_t, &of->stack_end, of->stack_end.count++) = of->stack.count;
    return true;
}

/* Makes the last sample's stack this one's. What they have in common stays, but is reckoned, too. */
static bool import_expand(import *in, import_pprof *of) {
    uint32_t count = of->ids.count, last_count = of->last_ids.count, same = 0;
    const uint64_t *ids = (const uint64_t *)of->ids.data, *last_ids = (const uint64_t *)of->last_ids.data;
    while (same < count && same < last_count && ids[count - 1 - same] == last_ids[last_count - 1 - same]) {
        same++;
    }
    of->stack_end.count = same;
    of->stack.count = same > 0 ? PYPROF__ITEM(uint32_t, &of->stack_end, same - 1) : 0;
    if (of->stack.count > of->budget) {
        return import_fail(in, "its stacks come to far more frames than its size allows for");
    }
    of->budget -= of->stack.count;
    if (!pyprof__array_reserve(&in->memory, &of->stack, (size_t)of->stack.count + count) ||
        !pyprof__array_reserve(&in->memory, &of->stack_end, count)) {
        return import_no_memory(in);
    }
    for (uint32_t i = count - same; i-- > 0;) {
        if (!import_add_location(in, of, ids[i])) {
            return false;
        }
    }
    pyprof__array before = of->last_ids;
    of->last_ids = of->ids;
    of->ids = before;
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

static bool import_is_same_text(const pyprof_text *one, const pyprof_text *other) {
    return one->data == other->data && one->size == other->size;
}

/* Its node. Most samples are of the thread of the one before, and have the same texts of the file. */
static bool import_sample_thread(import *in, import_pprof *of, import_labels *labels, uint32_t *thread) {
    const pyprof_text given = labels->thread;
    bool has_thread = given.size > 0 || labels->tid != 0;
    if (of->has_last && import_is_same_text(&given, &of->last_thread) &&
        import_is_same_text(&labels->process, &of->last_process) && labels->tid == of->last_tid &&
        labels->pid == of->last_pid) {
        *thread = of->last_node;
        return true;
    }
    if (given.size == 0 && labels->tid != 0) {
        snprintf(labels->number, sizeof labels->number, "(%d)", (int)labels->tid);
        labels->thread = import_text(labels->number, strlen(labels->number));
    } else if (!has_thread) {
        labels->thread = import_text(IMPORT_ALL_THREADS, sizeof IMPORT_ALL_THREADS - 1);
    }
    const pyprof_node node = {
        .name = labels->thread, .tid = labels->tid, .is_named = true, .process = labels->process, .pid = labels->pid};
    if (!import_expect_thread(in, has_thread) || !import_find_thread(in, &node, thread)) {
        return false;
    }
    of->has_last = true;
    of->last_thread = given;
    of->last_process = labels->process;
    of->last_tid = labels->tid;
    of->last_pid = labels->pid;
    of->last_node = *thread;
    return true;
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
           import_expand(in, of) && import_sample_thread(in, of, &labels, &thread) &&
           import_stack(in, thread, (import_frame *)of->frames.data, (const uint32_t *)of->stack.data, of->stack.count,
                        &figures, &leaf);
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
    bool has_rate = facts->kind == PYPROF_KIND_TIME && period_us <= UINT32_MAX;
    facts->interval_us = has_rate ? (uint32_t)period_us : 0;
    facts->sampling_bytes = facts->kind == PYPROF_KIND_HEAP && import_is(unit, "bytes") ? of->period : 0;
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
                  {&of.stack_end, sizeof(uint32_t)},
                  {&of.ids, sizeof(uint64_t)},
                  {&of.last_ids, sizeof(uint64_t)},
                  {&of.values, sizeof(uint64_t)},
                  {&of.comments, sizeof(uint64_t)}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        arrays[i].array->item_size = arrays[i].size;
    }
    in->tree = in->options->tree;
    in->into->has_tree = in->tree != NULL;
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

#endif
