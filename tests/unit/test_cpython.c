/* >>cpython: every figure that pyprof.h has of CPython's layout, against the internal headers. Built with
   Py_GIL_DISABLED against the headers of a build with a GIL, too: what they say of a free-threaded CPython holds
   without there being one. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "layout_facts.h"
#include "unit.h"

enum {
    facts_max = 96
};

#define IN_ROW(field)                                                                                                  \
    { #field, offsetof(pyprof__layout, field) }
#define ROW_FIELDS(array) (sizeof array / sizeof *array)

/* The fields of the row by their names. */
static const struct {
    const char *name;
    size_t at;
} row_fields[] = {
    IN_ROW(interp_next),     IN_ROW(interp_threads),    IN_ROW(interp_id),
    IN_ROW(ts_prev),         IN_ROW(ts_next),           IN_ROW(ts_interp),
    IN_ROW(ts_id),           IN_ROW(ts_thread_id),      IN_ROW(ts_native_id),
    IN_ROW(ts_status),       IN_ROW(status_mask),       IN_ROW(status_attached),
    IN_ROW(ts_frame),        IN_ROW(ts_chunk),          IN_ROW(cframe_frame),
    IN_ROW(cframe_previous), IN_ROW(frame_previous),    IN_ROW(frame_code),
    IN_ROW(frame_instr),     IN_ROW(frame_owner),       IN_ROW(frame_locals),
    IN_ROW(instr_scale),     IN_ROW(owner_helper),      IN_ROW(owner_generator),
    IN_ROW(code_name),       IN_ROW(ts_base),           IN_ROW(frame_tlbc),
    IN_ROW(code_tlbc),       IN_ROW(executable_tags),   IN_ROW(code_filename),
    IN_ROW(code_first_line), IN_ROW(code_lines),        IN_ROW(frame_generator),
    IN_ROW(frame_state),     IN_ROW(code_instructions), IN_ROW(code_first_traceable),
};

/* What is written into the code that reads, and has no field in the row. */
static const layout_fact constants[] = {
#if PYPROF__PY_SINCE(11)
    {"keys_size", sizeof(pyprof__dict_keys)},
    {"keys_log2_index_bytes", offsetof(pyprof__dict_keys, log2_index_bytes)},
    {"keys_kind", offsetof(pyprof__dict_keys, kind)},
    {"keys_count", offsetof(pyprof__dict_keys, count)},
    {"keys_kind_general", 0},
    {"general_entry_size", 24},
    {"general_entry_key", 8},
    {"text_entry_size", 16},
    {"text_entry_key", 0},
    {"values_offset", PYPROF__VALUES_OFFSET},
    {"managed_dict_flag", 1u << 4},
    {"managed_dict_before", PYPROF__MANAGED_DICT_BEFORE},
#if PYPROF__PY_SINCE(13)
    {"inline_values_behind", sizeof(PyObject)},
    {"values_valid", 3},
    {"inline_values_flag", PYPROF__INLINE_VALUES_FLAG},
    {"tags_unknown", 0},
    {"tlbc_entries", sizeof(Py_ssize_t)},
#elif PYPROF__PY_SINCE(12)
    {"values_tag", 1},
#else
    {"managed_values_before", 4 * sizeof(uintptr_t)},
#endif
#endif
    {NULL, 0},
};

static pyprof__layout row;
static layout_fact facts[facts_max];
static size_t facts_count;

static const layout_fact *fact_named(const char *name) {
    for (size_t i = 0; i < facts_count; i++) {
        if (strcmp(facts[i].name, name) == 0) {
            return &facts[i];
        }
    }
    return NULL;
}

/* How many fields of a row are not as CPython has them; *last names one. What CPython has no word for is not compared
   only if no version has. */
static size_t count_wrong(const pyprof__layout *layout, const char **last) {
    size_t wrong = 0;
    for (size_t i = 0; i < ROW_FIELDS(row_fields); i++) {
        const layout_fact *fact = fact_named(row_fields[i].name);
        uint32_t value;
        memcpy(&value, (const char *)layout + row_fields[i].at, sizeof value);
        if (fact == NULL) {
            continue;
        }
        if (fact->value != value) {
            *last = row_fields[i].name;
            wrong++;
        }
    }
    return wrong;
}

#if defined(LAYOUT_OF_THE_HEADERS)
/* There is no such CPython to be asked: what it would say of itself is in the headers. */
static pyprof_result make_row(void) {
    pyprof__description self;
    layout_description(&self, sizeof self);
    pyprof__layout_thread_state(&row);
    pyprof__layout_frame(&row);
    pyprof__layout_code(&row);
    row.interp_next = (uint32_t)self.interp.next;
    row.interp_threads = (uint32_t)self.interp.threads_head;
    row.interp_id = (uint32_t)self.interp.id;
    return pyprof__layout_adopt(&row, &self, PY_VERSION_HEX);
}
#else
/* Needs no initialised Python. */
static pyprof_result make_row(void) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, (size_t)1 << 20);
    pyprof_result result = pyprof__layout_init(&row, &memory);
    return counts.blocks == 0 ? result : PYPROF_ERROR_MEMORY;
}
#endif

static int start(void **state) {
    (void)state;
    facts_count = layout_facts(facts, facts_max);
    return facts_count <= facts_max && make_row() == PYPROF_OK ? 0 : -1;
}

static void test_row_is_as_the_headers_have_it(void **state) {
    const char *last = "";
    (void)state;
    size_t wrong = count_wrong(&row, &last);
    if (wrong > 0) {
        print_error("%zu fields are wrong, one of them %s\n", wrong, last);
    }
    assert_int_equal(wrong, 0);
}

static void test_every_fact_is_compared(void **state) {
    size_t compared = 0;
    (void)state;
    for (size_t i = 0; i < facts_count; i++) {
        for (size_t j = 0; j < ROW_FIELDS(row_fields); j++) {
            compared += strcmp(facts[i].name, row_fields[j].name) == 0;
        }
        for (size_t j = 0; constants[j].name != NULL; j++) {
            compared += strcmp(facts[i].name, constants[j].name) == 0;
        }
    }
    assert_int_equal(compared, facts_count);
    /* Only one name may be without a fact: there are no owners of frames before 3.11. */
    for (size_t i = 0; i < ROW_FIELDS(row_fields); i++) {
        assert_true(fact_named(row_fields[i].name) != NULL ||
                    (!PYPROF__PY_SINCE(11) && strcmp(row_fields[i].name, "owner_generator") == 0));
    }
}

static void test_a_wrong_row_is_caught(void **state) {
    (void)state;
    for (size_t i = 0; i < ROW_FIELDS(row_fields); i++) {
        static const uint32_t errors[] = {1, 4, 8, UINT32_MAX};
        for (size_t j = 0; j < ROW_FIELDS(errors); j++) {
            pyprof__layout wrong = row;
            const char *last = "";
            uint32_t value;
            memcpy(&value, (char *)&wrong + row_fields[i].at, sizeof value);
            value += errors[j];
            memcpy((char *)&wrong + row_fields[i].at, &value, sizeof value);
            if (fact_named(row_fields[i].name) != NULL) {
                assert_int_equal(count_wrong(&wrong, &last), 1);
                assert_string_equal(last, row_fields[i].name);
            }
        }
    }
}

static void test_thread_state_copy_holds_all(void **state) {
    const uint32_t ends[] = {row.ts_prev, row.ts_next, row.ts_interp, row.ts_id, row.ts_thread_id, row.ts_frame};
    (void)state;
    for (size_t i = 0; i < ROW_FIELDS(ends); i++) {
        assert_true(ends[i] + 8 <= row.ts_size);
    }
    assert_true(row.ts_native_id == PYPROF__ABSENT || row.ts_native_id + 8 <= row.ts_size);
    assert_true(row.ts_status == PYPROF__ABSENT || row.ts_status + 4 <= row.ts_size);
    assert_true(row.ts_size <= PYPROF__TSTATE_COPY);
    assert_true(row.ts_size <= sizeof(PyThreadState));
}

static void test_constants_are_as_the_headers_have_them(void **state) {
    (void)state;
    if (constants[0].name == NULL) {
        skip(); /* to 3.10 the headers do not tell; see the attributes below */
    }
    for (size_t i = 0; constants[i].name != NULL; i++) {
        const layout_fact *fact = fact_named(constants[i].name);
        if (fact == NULL &&
            (strcmp(constants[i].name, "tlbc_entries") == 0 || strcmp(constants[i].name, "tags_unknown") == 0)) {
            continue; /* this build has none */
        }
        assert_non_null(fact);
        if (fact->value != constants[i].value) {
            print_error("%s is %u, not %u\n", fact->name, (unsigned)fact->value, (unsigned)constants[i].value);
        }
        assert_int_equal(fact->value, constants[i].value);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_is_as_the_headers_have_it),
        cmocka_unit_test(test_every_fact_is_compared),
        cmocka_unit_test(test_a_wrong_row_is_caught),
        cmocka_unit_test(test_thread_state_copy_holds_all),
        cmocka_unit_test(test_constants_are_as_the_headers_have_them),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
