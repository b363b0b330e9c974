/* >>pprof: numbers, gzip, and files of whatever names and stacks. That they say what was recorded is in tests/formats. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"
#include "workbench.h"

static void test_numbers(void **state) {
    static const struct {
        uint64_t number;
        size_t size;
        const char *bytes;
    } cases[] = {{0, 1, "\0"},
                 {127, 1, "\x7f"},
                 {128, 2, "\x80\x01"},
                 {300, 2, "\xac\x02"},
                 {UINT64_MAX, 10, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char bytes[10];
        assert_int_equal(pyprof__encode(cases[i].number, bytes), cases[i].size);
        assert_int_equal(pyprof__varint_size(cases[i].number), cases[i].size);
        assert_memory_equal(bytes, cases[i].bytes, cases[i].size);
    }
}

/* A file as it was written. */
static text_sink written(const pyprof_profile *profile, pyprof_format format, bool include_idle) {
    text_sink sink = {0};
    pyprof_output output = {.format = format, .include_idle = include_idle};
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &sink), PYPROF_OK);
    return sink;
}

/* The number at *at, which is left behind it. */
static uint64_t next_number(const unsigned char **at, const unsigned char *end) {
    uint64_t number = 0;
    for (unsigned shift = 0;; shift += 7) {
        assert_true(*at < end && shift < 64);
        number |= (uint64_t)(**at & 0x7f) << shift;
        if (*(*at)++ < 0x80) {
            return number;
        }
    }
}

/* Strictly: no surrogates, nothing longer than need be. */
static void assert_utf8(const unsigned char *text, size_t size) {
    size_t length;
    for (; size > 0; text += length, size -= length) {
        uint32_t c = pyprof__utf8_get((const char *)text, size, &length);
        assert_false(c >= 0xd800 && c < 0xe000);
    }
}

typedef struct counted_fields {
    uint64_t of[16];
    uint64_t samples_size;
} counted_fields;

/* Walks the fields of the file, which have to end where it ends. */
static counted_fields count_fields(const text_sink *file) {
    const unsigned char *at = (const unsigned char *)file->text, *end = at + file->size;
    counted_fields found;
    memset(&found, 0, sizeof found);
    while (at < end) {
        uint64_t tag = next_number(&at, end), value = next_number(&at, end);
        assert_in_range(tag >> 3, 1, 14);
        found.of[tag >> 3]++;
        if ((tag & 7) == 2) {
            assert_true(value <= (uint64_t)(end - at));
            if (tag >> 3 == 6) {
                assert_utf8(at, (size_t)value);
            }
            found.samples_size += tag >> 3 == 2 ? value : 0;
            at += value;
        } else {
            assert_int_equal(tag & 7, 0);
        }
    }
    return found;
}

/* A gzip file's blocks hold the plain file, and its end is the right one. CRC-32 by its definition, bit by bit. */
static void assert_gzip_of(const text_sink *file, const text_sink *plain) {
    const unsigned char *at = (const unsigned char *)file->text, *end = at + file->size;
    size_t seen = 0, blocks = 0;
    uint32_t crc = UINT32_MAX, size = (uint32_t)plain->size;
    assert_memory_equal(at, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
    for (at += 10; *at == 0; at += 5 + (at[1] | at[2] << 8)) {
        size_t length = (size_t)(at[1] | at[2] << 8);
        assert_true(at + 5 + length + 13 <= end && seen + length <= plain->size);
        assert_int_equal(at[1] ^ at[3], 0xff);
        assert_int_equal(at[2] ^ at[4], 0xff);
        assert_memory_equal(at + 5, plain->text + seen, length);
        seen += length;
        blocks++;
    }
    assert_int_equal(seen, plain->size);
    assert_true(blocks > 1);
    assert_int_equal(end - at, 13);
    assert_memory_equal(at, "\1\0\0\xff\xff", 5);
    for (size_t i = 0; i < plain->size; i++) {
        crc ^= (unsigned char)plain->text[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    crc = ~crc;
    assert_memory_equal(at + 5, &crc, 4);
    assert_memory_equal(at + 9, &size, 4);
}

/* Any bytes, of which some begin a character. */
static uint32_t random_text(workbench *bench, uint64_t *random) {
    static char text[100000];
    static const char pieces[] = "\xed\xb2\x80\xf0\x9f\x90\x8d;\n\\u\xff\xc3 ab";
    size_t size = unit_random(random) % 40;
    size = size == 39 && unit_random(random) % 8 == 0 ? sizeof text : size;
    for (size_t i = 0; i < size; i++) {
        uint64_t number = unit_random(random);
        text[i] = number % 3 == 0 ? (char)(number >> 8) : pieces[(number >> 8) % sizeof pieces];
    }
    return pyprof__intern_text(bench->profile, text, size);
}

static void test_whatever_the_names(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        workbench bench;
        uint64_t random = seed;
        uint32_t track = 0, node = 0;
        bench_open(&bench, 0);
        for (int i = 0; i < 400; i++) {
            if (i % 100 == 0) {
                track = pyprof__add_track(bench.profile, i, random_text(&bench, &random));
            }
            node = i % 5 == 0 ? pyprof__track_at(bench.profile, track)->root : node;
            uint32_t name = random_text(&bench, &random), file = random_text(&bench, &random);
            uint32_t function = pyprof__intern_function(bench.profile, name, file, (int32_t)unit_random(&random));
            node = pyprof__child(bench.profile, node, function, (int32_t)unit_random(&random));
            pyprof__count_samples(bench.profile, track, node, (uint32_t)(i % 3), 1);
        }
        text_sink plain = written(bench.profile, PYPROF_FORMAT_PPROF_PLAIN, true);
        text_sink zipped = written(bench.profile, PYPROF_FORMAT_PPROF, true);
        counted_fields found = count_fields(&plain);
        assert_int_equal(found.of[1], 4);
        assert_int_equal(found.of[2], 400);
        assert_int_equal(found.of[3], 1);
        assert_in_range(found.of[4], found.of[5], 400);
        assert_gzip_of(&zipped, &plain);
        text_sink_free(&plain);
        text_sink_free(&zipped);
        bench_close(&bench);
    }
}

static void test_deep_stack(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    uint32_t track = add_track(&bench, "t"), node = PYPROF__NONE;
    for (int depth = 0; depth < 65536; depth++) {
        node = add_node(&bench, track, node, "f", depth % 300 + 1);
    }
    pyprof__add_time(bench.profile, track, node, 0, UINT64_MAX / 4, UINT64_MAX / 4);
    pyprof__add_time(bench.profile, track, node, PYPROF__GIL, UINT64_MAX / 4, 1);
    text_sink plain = written(bench.profile, PYPROF_FORMAT_PPROF_PLAIN, false);
    counted_fields found = count_fields(&plain);
    assert_int_equal(found.of[2], 1);
    assert_int_equal(found.of[4], 300);
    assert_in_range(found.samples_size, 65536, 2 * 65536 + 200);
    text_sink_free(&plain);
    bench_close(&bench);
}

/* What nobody has seen yet is a whole file, too. */
static void test_nothing_recorded(void **state) {
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    add_track(&bench, "t");
    text_sink plain = written(bench.profile, PYPROF_FORMAT_PPROF_PLAIN, true);
    counted_fields found = count_fields(&plain);
    assert_int_equal(found.of[2] + found.of[4] + found.of[5], 0);
    assert_int_equal(found.of[3] + found.of[11], 2);
    text_sink_free(&plain);
    bench_close(&bench);
}

/* Refuses what has no room any more. */
typedef struct refusal {
    size_t room;
    bool has_refused;
    bool was_asked_again;
} refusal;

static bool refuse_beyond(void *user, const void *data, size_t size) {
    refusal *self = (refusal *)user;
    (void)data;
    self->was_asked_again = self->was_asked_again || self->has_refused;
    self->has_refused = self->has_refused || size > self->room;
    self->room -= self->has_refused ? 0 : size;
    return !self->has_refused;
}

static void test_stops_when_told(void **state) {
    workbench bench;
    sums expected[1];
    (void)state;
    memset(expected, 0, sizeof expected);
    bench_open(&bench, 0);
    add_track(&bench, "t");
    fill_timeline(&bench, expected, 1, 5000, 4);
    for (int i = 0; i < 2000; i++) { /* several pieces of the file */
        pyprof__count_samples(bench.profile, 0, add_node(&bench, 0, PYPROF__NONE, "g", i + 1), 0, 1);
    }
    pyprof_output output = {.format = PYPROF_FORMAT_PPROF, .include_idle = true};
    text_sink whole = written(bench.profile, PYPROF_FORMAT_PPROF, true);
    assert_true(whole.size > 40000);
    for (size_t room = 0; room < whole.size; room += room < 40 ? 1 : 5000) {
        refusal self = {room, false, false};
        assert_int_equal(pyprof_write(bench.profile, &output, refuse_beyond, &self), PYPROF_ERROR_WRITE);
        assert_false(self.was_asked_again);
    }
    size_t blocks = bench.counts.blocks, refused = 0;
    pyprof_result result = PYPROF_ERROR_MEMORY;
    while (result != PYPROF_OK) {
        refusal all = {SIZE_MAX, false, false};
        bench.counts.calls = 0;
        bench.counts.refuse_from = ++refused;
        result = pyprof_write(bench.profile, &output, refuse_beyond, &all);
        assert_true(result == PYPROF_OK || result == PYPROF_ERROR_MEMORY);
        assert_int_equal(bench.counts.blocks, blocks);
        assert_true(refused < 100);
    }
    assert_true(refused > 6);
    bench.counts.refuse_from = 0;
    text_sink_free(&whole);
    bench_close(&bench);
}

/* The same profile is the same file. */
static void test_files_are_reproducible(void **state) {
    workbench bench;
    sums expected[1];
    (void)state;
    memset(expected, 0, sizeof expected);
    bench_open(&bench, 0);
    add_track(&bench, "t");
    fill_timeline(&bench, expected, 1, 500, 4);
    text_sink one = written(bench.profile, PYPROF_FORMAT_PPROF, true);
    text_sink other = written(bench.profile, PYPROF_FORMAT_PPROF, true);
    assert_int_equal(one.size, other.size);
    assert_memory_equal(one.text, other.text, one.size);
    text_sink_free(&one);
    text_sink_free(&other);
    bench_close(&bench);
}

static void test_formats_of_paths(void **state) {
    static const struct {
        const char *path;
        pyprof_format asked, format;
    } cases[] = {{"a.pb.gz", PYPROF_FORMAT_AUTO, PYPROF_FORMAT_PPROF},
                 {"a.pb", PYPROF_FORMAT_AUTO, PYPROF_FORMAT_PPROF_PLAIN},
                 {"A.PB.GZ", PYPROF_FORMAT_AUTO, PYPROF_FORMAT_PPROF},
                 {"a.pb", PYPROF_FORMAT_PPROF, PYPROF_FORMAT_PPROF_PLAIN},
                 {"a", PYPROF_FORMAT_PPROF, PYPROF_FORMAT_PPROF},
                 {NULL, PYPROF_FORMAT_PPROF, PYPROF_FORMAT_PPROF},
                 {"a.gz", PYPROF_FORMAT_AUTO, PYPROF_FORMAT_COLLAPSED},
                 {"a.pb", PYPROF_FORMAT_SPEEDSCOPE, PYPROF_FORMAT_SPEEDSCOPE}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pyprof_output output = {.format = cases[i].asked};
        assert_int_equal(pyprof__resolve_output(&output, cases[i].path).format, cases[i].format);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),          cmocka_unit_test(test_whatever_the_names),
        cmocka_unit_test(test_deep_stack),       cmocka_unit_test(test_nothing_recorded),
        cmocka_unit_test(test_stops_when_told),  cmocka_unit_test(test_files_are_reproducible),
        cmocka_unit_test(test_formats_of_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
