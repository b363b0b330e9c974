/* import_speedscope.h: speedscope's JSON: https://github.com/jlfwong/speedscope, src/lib/file-format-spec.ts. A part of
 * imports.h, which includes it.
 *
 * In: the whole text. Out: in the profile a thread for each of the file's profiles, sampled or evented, with its stacks and
 * its time line. All of them count the same: times, or samples.
 */
#ifndef IMPORT_SPEEDSCOPE_H
#define IMPORT_SPEEDSCOPE_H

typedef struct import_speedscope {
    pyprof__array frames; /* import_frame */
    pyprof__array stack;  /* of frames' numbers, root first */
    unsigned metric;
    int exponent; /* see import_unit; -1 = samples, or bytes */
    bool has_unit, has_origin, is_memory;
    uint64_t origin; /* where the first profile begins */
    /* Of the profile that is being read: */
    pyprof_text name, type, unit;
    json_reader start, samples, weights, events; /* where they stand; start of them NULL = nowhere */
    uint32_t thread;                             /* its node */
    uint64_t now;                                /* nanoseconds since the origin */
} import_speedscope;

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
    if (!import_stack(in, of->thread, (import_frame *)of->frames.data, (const uint32_t *)of->stack.data,
                      of->stack.count, &figures, &span.node)) {
        return false;
    }
    return of->is_memory || import_span(in, &span);
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
    bool is_memory = import_is(&of->unit, "bytes"), is_counted = is_memory || import_is(&of->unit, "none");
    int exponent = is_counted ? -1 : import_unit(of->unit.data, of->unit.size);
    if (exponent < 0 && !is_counted) {
        return import_fail(in, "its values are in '%.*s', which is neither time nor bytes nor samples",
                           (int)pyprof__min64(of->unit.size, 40), of->unit.data != NULL ? of->unit.data : "");
    }
    if (of->has_unit && ((exponent < 0) != (of->exponent < 0) || is_memory != of->is_memory)) {
        return import_fail(in, "some of its profiles count time, and others samples or bytes");
    }
    of->has_unit = true;
    of->is_memory = is_memory;
    of->exponent = exponent;
    of->metric = is_memory ? PYPROF_METRIC_INUSE_SPACE : exponent < 0 ? PYPROF_METRIC_SAMPLES : PYPROF_METRIC_WALL;
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
    in->profile->has_short_paths = true; /* py-spy's are, ours are whole */
    bool is_good = import_read_all(in) && import_speedscope_text(in, &of);
    pyprof__array_free(&in->memory, &of.frames);
    pyprof__array_free(&in->memory, &of.stack);
    in->into->metrics = 1u << of.metric;
    in->into->facts.kind = of.is_memory ? PYPROF_KIND_HEAP : PYPROF_KIND_TIME;
    in->into->has_times = !of.is_memory;
    return is_good;
}

#endif
