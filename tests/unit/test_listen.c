/* >>answers, >>listen: requests are taken apart, whatever is in them; and a profile that goes through the socket line by line
   is the same profile at the other end, in each format to the byte. */
#define PYPROF_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"

#include "imports.h"

#include "unit.h"
#include "workbench.h"

#include "subjects.h"

#define LINE(text) text, sizeof(text) - 1

static pyprof_result parse(const char *text, size_t size, pyprof__command *command) {
    static char line[PYPROF__REQUEST_SIZE + 1];
    assert_true(size <= PYPROF__REQUEST_SIZE);
    memcpy(line, text, size);
    line[size] = '\0';
    return pyprof__parse_request(line, size, command);
}

static void test_requests(void **state) {
    pyprof__command command;
    (void)state;
    assert_int_equal(parse(LINE("pyprof 1 status"), &command), PYPROF_OK);
    assert_string_equal(command.name, "status");
    assert_int_equal(command.interval_us + command.memory_limit + command.max_depth + command.json + command.drop, 0);
    assert_int_equal(parse(LINE("pyprof 1 start interval_us=7 max_depth=8 memory_limit=999999999999999999"), &command),
                     PYPROF_OK);
    assert_int_equal(command.interval_us, 7);
    assert_int_equal(command.max_depth, 8);
    assert_int_equal(command.memory_limit, UINT64_C(999999999999999999));
    assert_int_equal(parse(LINE("pyprof 1 dump json=1 later=yes json=0 drop=1 =x interval_u=9"), &command), PYPROF_OK);
    assert_int_equal(command.json, 0);
    assert_int_equal(command.drop, 1);
    assert_int_equal(command.interval_us, 0);
}

static void test_wrong_requests(void **state) {
    static const struct {
        const char *text;
        size_t size;
        pyprof_result result;
        const char *said;
    } wrong[] = {
        {LINE(""), PYPROF_ERROR_ARGUMENT, "pyprof 1 COMMAND"},
        {LINE("pyprof 1"), PYPROF_ERROR_ARGUMENT, "pyprof 1 COMMAND"},
        {LINE("pyprof  "), PYPROF_ERROR_ARGUMENT, "pyprof 1 COMMAND"},
        {LINE("Pyprof 1 status"), PYPROF_ERROR_ARGUMENT, "pyprof 1 COMMAND"},
        {LINE("pyprof 2 status"), PYPROF_ERROR_FORMAT, "version 2 "},
        {LINE("pyprof 11 status"), PYPROF_ERROR_FORMAT, "version 11 "},
        {LINE("pyprof 1 status now"), PYPROF_ERROR_ARGUMENT, "'now' is no KEY=VALUE"},
        {LINE("pyprof 1 start interval_us="), PYPROF_ERROR_ARGUMENT, "'interval_us=' has to be"},
        {LINE("pyprof 1 start interval_us=1x"), PYPROF_ERROR_ARGUMENT, "'interval_us=1x' has to be"},
        {LINE("pyprof 1 start max_depth=-1"), PYPROF_ERROR_ARGUMENT, "'max_depth=-1' has to be"},
        {LINE("pyprof 1 start max_depth=1000000000000000000"), PYPROF_ERROR_ARGUMENT, "18 digits"},
        {LINE("pyprof 1\0status"), PYPROF_ERROR_ARGUMENT, "one line of ASCII"},
        {LINE("pyprof 1 status\r"), PYPROF_ERROR_ARGUMENT, "one line of ASCII"},
        {LINE("pyprof 1 st\xc3\xa4tus"), PYPROF_ERROR_ARGUMENT, "one line of ASCII"},
    };
    pyprof__command command;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(parse(wrong[i].text, wrong[i].size, &command), wrong[i].result);
        if (strstr(pyprof_last_error(), wrong[i].said) == NULL) {
            fail_msg("%s: %s", wrong[i].text, pyprof_last_error());
        }
    }
}

/* Every line of words and of bytes is taken apart or refused, and what is taken is within the line. */
static void test_any_request(void **state) {
    static const char *const words[] = {
        "pyprof", "1",  "status", "interval_us=", "json=1", " ",         "  ",
        "=",      "\t", "\x80",   "max_depth",    "9999",   "drop=drop", "memory_limit=7"};
    const char *seed = getenv("PYPROF_SEED");
    uint64_t random = seed != NULL ? strtoull(seed, NULL, 10) : 1;
    int taken = 0;
    (void)state;
    for (int i = 0; i < 200000; i++) {
        char *line = (char *)calloc(1, PYPROF__REQUEST_SIZE + 1); /* so that a sanitizer sees where it ends */
        size_t size = 0;
        pyprof__command command;
        if (i % 2 == 0) {
            size = (size_t)snprintf(line, PYPROF__REQUEST_SIZE, "pyprof 1 ");
        }
        for (uint64_t pieces = unit_random(&random) % 12; pieces > 0; pieces--) {
            const char *word = words[unit_random(&random) % (sizeof words / sizeof *words)];
            size += (size_t)snprintf(line + size, PYPROF__REQUEST_SIZE - size, unit_random(&random) % 3 ? "%s " : "%s",
                                     word);
        }
        for (uint64_t changes = unit_random(&random) % 4; changes > 0 && size > 0 && i % 5 == 0; changes--) {
            line[unit_random(&random) % size] = (char)unit_random(&random);
        }
        char *tight = (char *)memcpy(malloc(size + 1), line, size + 1);
        pyprof_result result = pyprof__parse_request(tight, size, &command);
        assert_true(result == PYPROF_OK || result == PYPROF_ERROR_ARGUMENT || result == PYPROF_ERROR_FORMAT);
        if (result == PYPROF_OK) {
            taken++;
            assert_true(command.name > tight && command.name + strlen(command.name) <= tight + size);
            assert_true(command.interval_us <= UINT64_C(999999999999999999) &&
                        command.memory_limit <= UINT64_C(999999999999999999));
        }
        free(tight);
        free(line);
    }
    assert_true(taken > 1000);
}

/* A profile's lines, in a file without a name, which has a path all the same. */
static int lines_of(const pyprof_profile *profile) {
    FILE *file = tmpfile();
    text_sink sink = {0};
    pyprof__out *out = (pyprof__out *)calloc(1, sizeof *out);
    pyprof__cursor at = {PYPROF__AT_FACTS, 0, 0, 0, 0};
    out->write = text_sink_write;
    out->user = &sink;
    while (at.part != PYPROF__BEHIND_END) {
        pyprof__put_line(out, profile, &at);
    }
    pyprof__flush(out);
    int descriptor = dup(fileno(file));
    assert_int_equal(write(descriptor, sink.text, sink.size), sink.size);
    lseek(descriptor, 0, SEEK_SET);
    text_sink_free(&sink);
    free(out);
    fclose(file);
    return descriptor;
}

/* A profile that is made while another one is visited. */
typedef struct making {
    pyprof_profile *profile;
    uint32_t numbers[4096];
} making;

static bool make_node(void *user, const pyprof_node *node) {
    making *self = (making *)user;
    pyprof_node copy = *node;
    assert_true(node->number < sizeof self->numbers / sizeof *self->numbers);
    copy.parent = node->parent != PYPROF_NO_NODE ? self->numbers[node->parent] : PYPROF_NO_NODE;
    return pyprof_add_node(self->profile, &copy, &self->numbers[node->number]) == PYPROF_OK;
}

static bool make_span(void *user, const pyprof_span *span) {
    making *self = (making *)user;
    pyprof_span copy = *span;
    copy.node = self->numbers[span->node];
    return pyprof_add_span(self->profile, &copy) == PYPROF_OK;
}

/* What pprof writes has strings in the order in which they came: which is that of the source only if facts come first, and
   then what nodes have. */
static pyprof_profile *in_order(const pyprof_profile *read, const pyprof_facts *facts) {
    static making self;
    const pyprof_visitor visitor = {make_node, make_span, &self};
    const pyprof_output whole = {.threads_apart = true};
    assert_int_equal(pyprof_make(facts, 0, NULL, &self.profile), PYPROF_OK);
    assert_int_equal(pyprof_visit(read, &whole, &visitor), PYPROF_OK);
    return self.profile;
}

static pyprof_profile *read_lines(int descriptor) {
    static imported of;
    pyprof_profile *profile;
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    assert_int_equal(pyprof_make(NULL, 0, NULL, &profile), PYPROF_OK);
    if (import_file(profile, path, NULL, &of) != PYPROF_OK) {
        fail_msg("%s", of.wrong);
    }
    close(descriptor);
    of.facts.program = import_text(of.program, strlen(of.program));
    of.facts.process = import_text(of.process, strlen(of.process));
    of.facts.python = import_text(of.python, strlen(of.python));
    pyprof_profile *ordered = in_order(profile, &of.facts);
    pyprof_free(profile);
    return ordered;
}

static void assert_same_files(const pyprof_profile *one, const pyprof_profile *other, const pyprof_output *output) {
    text_sink a = {0}, b = {0};
    assert_int_equal(pyprof_write(one, output, text_sink_write, &a), PYPROF_OK);
    assert_int_equal(pyprof_write(other, output, text_sink_write, &b), PYPROF_OK);
    assert_int_equal(a.size, b.size);
    if (a.size > 0) {
        assert_memory_equal(a.text, b.text, a.size);
    }
    text_sink_free(&a);
    text_sink_free(&b);
}

/* Threads of one name, of which one has been shared; names with all that JSON escapes. */
static void test_a_profile_arrives(void **state) {
    workbench bench;
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        bench_open(&bench, 0);
        fill(&bench, seed, 300);
        pyprof__track_at(bench.profile, 0)->is_named = true;
        pyprof__track_at(bench.profile, 1)->is_named = pyprof__track_at(bench.profile, 1)->is_shared = true;
        pyprof__track_at(bench.profile, 2)->tid = 4711;
        uint32_t twin = add_track(&bench, "MainThread");
        uint32_t odd = add_node(&bench, twin, PYPROF__NONE, "\"\\\x01\x7f\xed\xb2\x80\xe2\x80\xa8\xf0\x9f\x90\x8d;", 3);
        pyprof__add_time(bench.profile, twin, odd, PYPROF__GIL, 5000, 1000);
        pyprof__count_samples(bench.profile, twin, odd, PYPROF__GIL, 1);
        bench.profile->interval_us = 2500;
        bench.profile->epoch_ns = UINT64_C(1700000000123456789);
        bench.profile->samples_jit = bench.profile->stats.samples_jit = 3;
        bench.profile->stats.samples = UINT64_C(9999999999999);
        pyprof_profile *arrived = read_lines(lines_of(bench.profile));
        for (unsigned variant = 0; variant < 7 * 16; variant++) {
            pyprof_output output = {.format = (pyprof_format)(variant / 16),
                                    .metric = (pyprof_metric)(variant & 3),
                                    .detail = (pyprof_detail)(variant >> 2 & 1),
                                    .include_idle = (variant & 8) != 0};
            assert_same_files(bench.profile, arrived, &output);
        }
        assert_memory_equal(&bench.profile->stats, &arrived->stats, sizeof arrived->stats);
        pyprof_free(arrived);
        bench_close(&bench);
    }
}

/* An answer that has no room is an error, and not one that looks whole. */
static void test_no_room_for_an_answer(void **state) {
    counted_memory counts;
    pyprof__peer *peer = (pyprof__peer *)calloc(1, sizeof *peer);
    (void)state;
    peer->memory = unit_limited(&counts, 3 * PYPROF__PIECE_SIZE);
    peer->text.memory = &peer->memory;
    peer->text.bytes.item_size = 1;
    peer->out.write = pyprof__gather;
    peer->out.user = &peer->text;
    for (int i = 0; i < 20000; i++) {
        pyprof__put_text(&peer->out, "0123456789");
    }
    pyprof__next_piece(peer, "ok\n");
    assert_true(peer->is_last);
    assert_int_equal(peer->text.bytes.count, 0);
    assert_memory_equal(peer->head, "error -4 ", 9);
    assert_int_equal(peer->head[peer->head_size - 1], '\n');
    pyprof__array_free(&peer->memory, &peer->text.bytes);
    assert_int_equal(counts.blocks, 0);
    free(peer);
}

/* Whoever asked in time is answered, however late that is seen; whoever has not, or not wholly, is not. */
static void test_who_is_heard_late(void **state) {
    const pyprof__memory memory = {{pyprof__libc_alloc, pyprof__libc_free, NULL}, PYPROF__PEER_MEMORY, 0, 0, 0, NULL};
    uint64_t now = pyprof__now();
    pyprof__peer peer;
    int ends[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    memset(&peer, 0, sizeof peer);
    peer.socket = pyprof__note_socket(ends[0]);
    peer.memory = memory;
    peer.text.memory = &peer.memory;
    peer.text.bytes.item_size = 1;
    peer.out.write = pyprof__gather;
    peer.out.user = &peer.text;
    peer.end = peer.deadline = now;
    assert_false(pyprof__tend_peer(&peer, false, now));
    assert_int_equal(write(ends[1], "pyprof 1 ", 9), 9);
    assert_true(pyprof__tend_peer(&peer, true, now - 1) && !peer.is_answered);
    assert_int_equal(write(ends[1], "noth", 4), 4);
    assert_false(pyprof__tend_peer(&peer, true, now));
    assert_int_equal(write(ends[1], "ing\n", 4), 4);
    assert_true(pyprof__tend_peer(&peer, true, now) && peer.is_answered && peer.deadline > now);
    assert_false(pyprof__tend_peer(&peer, false, peer.deadline));
    assert_false(pyprof__tend_peer(&peer, true, peer.end));
    pyprof__close_socket(&peer.socket);
    close(ends[1]);
    pyprof__array_free(&peer.memory, &peer.text.bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_wrong_requests),
        cmocka_unit_test(test_any_request),
        cmocka_unit_test(test_a_profile_arrives),
        cmocka_unit_test(test_no_room_for_an_answer),
        cmocka_unit_test(test_who_is_heard_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
