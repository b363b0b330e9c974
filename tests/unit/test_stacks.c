/* >>stacks, >>frames: the walk over frames in a memory made for it: fake frames and code objects, laid out as this
   CPython lays them out. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <sys/mman.h>

#include "unit.h"

enum {
    frame_size = 512, /* more than any frame or code object up to the fields of interest */
    code_size = 1024,
    frames_max = 64,
    codes_max = 16,
    first_traceable = 3, /* code units */
    capacity = 16
};

static struct world {
    pyprof__layout layout;
    unsigned char *memory;
    size_t size;
    pyprof__view view;
    pyprof__frame frames[capacity];
    pyprof__stack stack;
} world;

static uintptr_t frame_at(size_t i) {
    return (uintptr_t)world.memory + i * frame_size;
}

static uintptr_t code_at(size_t i) {
    return (uintptr_t)world.memory + (size_t)frames_max * frame_size + i * code_size;
}

static void put(uintptr_t address, const void *value, size_t size) {
    memcpy((void *)address, value, size);
}

static void put_word(uintptr_t address, uintptr_t word) {
    put(address, &word, sizeof word);
}

/* Behind the fields of each code object: a name, a file name and a line table. */
enum {
    name_part = 512,
    filename_part = 640,
    lines_part = 768,
    copies_part = 896
};

static void put_text(uintptr_t address, const char *text) {
    PyASCIIObject head;
    memset(&head, 0, sizeof head);
    ((PyObject *)&head)->ob_type = &PyUnicode_Type;
    head.length = (Py_ssize_t)strlen(text);
    head.hash = -1; /* not computed yet */
    head.state.kind = 1;
    head.state.compact = 1;
    head.state.ascii = 1;
    put(address, &head, sizeof head);
    put(address + sizeof head, text, strlen(text) + 1);
}

static void put_lines(uintptr_t address, const char *lines) {
    PyVarObject head;
    memset(&head, 0, sizeof head);
    ((PyObject *)&head)->ob_type = &PyBytes_Type;
    head.ob_size = (Py_ssize_t)strlen(lines);
    put(address, &head, sizeof head);
    put(address + offsetof(PyBytesObject, ob_sval), lines, strlen(lines));
}

/* Of a free-threaded build, since 3.14: where each thread's own copy of the instructions lies, behind how many there are. */
enum {
    copies_max = 3
};

static bool has_copies(void) {
    return world.layout.frame_tlbc != PYPROF__ABSENT;
}

static uintptr_t copy_at(size_t code, size_t i) {
    return i == 0 ? code_at(code) + world.layout.code_instructions : (uintptr_t)0x10000 * (1 + code) * i;
}

static void make_copies(size_t code, Py_ssize_t count) {
    put_word(code_at(code) + world.layout.code_tlbc, code_at(code) + copies_part);
    put(code_at(code) + copies_part, &count, sizeof count);
    for (size_t i = 0; i < copies_max; i++) {
        put_word(code_at(code) + copies_part + sizeof count + i * sizeof(uintptr_t), copy_at(code, i));
    }
}

static void make_code(size_t i) {
    const int32_t traceable = first_traceable;
    const int32_t line = (int32_t)(10 * i + 1);
    put_text(code_at(i) + name_part, "a_function");
    put_text(code_at(i) + filename_part, "a/file.py");
    put_lines(code_at(i) + lines_part, "\2\1\2\1");
    put_word(code_at(i) + offsetof(PyObject, ob_type), (uintptr_t)&PyCode_Type);
    put_word(code_at(i) + world.layout.code_name, code_at(i) + name_part);
    put_word(code_at(i) + world.layout.code_filename, code_at(i) + filename_part);
    put_word(code_at(i) + world.layout.code_lines, code_at(i) + lines_part);
    put(code_at(i) + world.layout.code_first_line, &line, sizeof line);
    if (world.layout.code_first_traceable != PYPROF__ABSENT) {
        put(code_at(i) + world.layout.code_first_traceable, &traceable, sizeof traceable);
    }
    if (has_copies()) {
        make_copies(i, copies_max);
    }
}

/* Which copy a frame runs. */
static void set_copy(size_t frame, int32_t index) {
    put(frame_at(frame) + world.layout.frame_tlbc, &index, sizeof index);
}

/* Puts the frame at a byte offset of its code. */
static void set_instr(size_t frame, size_t code, int32_t offset) {
    if (world.layout.instr_scale != 0) {
        int32_t last = offset / (int32_t)world.layout.instr_scale;
        put(frame_at(frame) + world.layout.frame_instr, &last, sizeof last);
    } else {
        size_t copy = has_copies() ? frame % copies_max : 0;
        put_word(frame_at(frame) + world.layout.frame_instr, copy_at(code, copy) + (uintptr_t)(intptr_t)offset);
        if (has_copies()) {
            set_copy(frame, (int32_t)copy);
        }
    }
}

static void set_owner(size_t frame, uint32_t owner) {
    unsigned char byte = (unsigned char)owner;
    if (world.layout.frame_owner != PYPROF__ABSENT) {
        put(frame_at(frame) + world.layout.frame_owner, &byte, 1);
    }
}

static void set_running(size_t frame, bool is_running) {
#if PYPROF__PY_SINCE(10) && !PYPROF__PY_SINCE(11)
    signed char byte = is_running ? FRAME_EXECUTING : FRAME_RETURNED;
#else
    signed char byte = is_running;
#endif
    if (world.layout.frame_state != PYPROF__ABSENT) {
        put(frame_at(frame) + world.layout.frame_state, &byte, 1);
    }
}

/* Aligned as objects are: from 3.13 on the lowest bits are no part of the pointer. */
static uintptr_t first_local_of(size_t frame) {
    return 0x4000 + 16 * frame;
}

static void make_frame(size_t i, uintptr_t previous, size_t code, int32_t offset) {
    put_word(frame_at(i) + world.layout.frame_previous, previous);
    put_word(frame_at(i) + world.layout.frame_code, code_at(code));
    put_word(frame_at(i) + world.layout.frame_locals, first_local_of(i));
    set_running(i, true);
    set_owner(i, 0);
    set_instr(i, code, offset);
}

/* From 3.12 on, C enters Python through a frame of its own. */
static bool has_entry_frames(void) {
    return world.layout.owner_helper != PYPROF__ABSENT;
}

/* Frame 0 is the leaf; frame i runs code i % codes_max, at an offset of its own. */
static void make_stack(size_t count) {
    uintptr_t outermost = has_entry_frames() ? frame_at(count) : 0;
    memset(world.memory, 0, world.size);
    for (size_t i = 0; i < codes_max; i++) {
        make_code(i);
    }
    for (size_t i = 0; i < count; i++) {
        make_frame(i, i + 1 < count ? frame_at(i + 1) : outermost, i % codes_max, (int32_t)(10 + 2 * i));
    }
    if (has_entry_frames()) {
        set_owner(count, world.layout.owner_helper);
        put_word(frame_at(count) + world.layout.frame_code, 8); /* nobody may look at it */
    }
}

static int make_world(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, (size_t)1 << 20);
    (void)state;
    if (pyprof__layout_init(&world.layout, &memory) != PYPROF_OK || counts.blocks != 0) {
        return -1;
    }
    world.size = (size_t)frames_max * frame_size + (size_t)codes_max * code_size;
    world.memory = (unsigned char *)mmap(NULL, world.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    world.stack.frames = world.frames;
    world.stack.capacity = capacity;
    return world.memory == MAP_FAILED ? -1 : 0;
}

/* As a free-threaded build is, whether this one is or not. */
static int make_world_with_copies(void **state) {
    int failed = make_world(state);
    if (!has_copies()) {
        world.layout.frame_tlbc = 256;
        world.layout.code_tlbc = 1000;
    }
    return failed;
}

static int end_world(void **state) {
    (void)state;
    return munmap(world.memory, world.size);
}

/* The ways in which memory is reached. Plain loads cannot stumble, so they get no stacks that lead out. */
typedef enum way {
    PLAIN,
    VIEW,
    EACH,
    ways
} way;

static pyprof__reader reader_of(way how) {
    pyprof__reader reader = {0, 0, 0, 0, NULL};
    if (how == PLAIN) {
        reader.low = (uintptr_t)world.memory;
        reader.high = reader.low + world.size;
    } else if (how == VIEW) {
        pyprof__view_reset(&world.view);
        reader.view = &world.view;
    }
    return reader;
}

static bool walk(way how, uintptr_t leaf) {
    pyprof__reader reader = reader_of(how);
    memset(world.frames, 0xcc, sizeof world.frames);
    return pyprof__walk(&world.layout, &reader, leaf, &world.stack);
}

static void assert_frame(size_t at, size_t code, int32_t offset) {
    assert_true(world.frames[at].code == code_at(code));
    assert_int_equal(world.frames[at].instr, offset);
    assert_int_equal(world.frames[at].unused, 0);
}

static void test_walks_from_leaf_to_root(void **state) {
    (void)state;
    make_stack(5);
    for (int how = 0; how < ways; how++) {
        assert_true(walk((way)how, frame_at(0)));
        assert_int_equal(world.stack.count, 5);
        assert_int_equal(world.stack.is_cut, 0);
        assert_true(world.stack.root_first_local == first_local_of(4));
        for (size_t i = 0; i < 5; i++) {
            assert_frame(i, i, (int32_t)(10 + 2 * i));
        }
    }
    assert_true(walk(VIEW, frame_at(4)));
    assert_int_equal(world.stack.count, 1);
}

static void test_no_frame_is_an_empty_stack(void **state) {
    (void)state;
    for (int how = 0; how < ways; how++) {
        assert_true(walk((way)how, 0));
        assert_int_equal(world.stack.count, 0);
        assert_int_equal(world.stack.is_cut, 0);
        assert_true(world.stack.root_first_local == 0);
    }
}

/* Of a stack that is too deep both ends are there, frame by frame, and a mark in between. */
static void test_depth_is_bounded(void **state) {
    const size_t outer = capacity / 4, inner = capacity - outer - 1;
    (void)state;
    for (size_t depth = capacity - 1; depth <= capacity + 8; depth++) {
        make_stack(depth);
        for (int how = 0; how < ways; how++) {
            assert_true(walk((way)how, frame_at(0)));
            size_t lost = depth > capacity && PYPROF__PY_SINCE(12); /* the entry from C takes a place at the end */
            assert_int_equal(world.stack.count, depth < capacity ? depth : capacity - lost);
            assert_false(world.stack.is_cut);
            assert_int_equal(world.stack.has_gap, depth > capacity);
            assert_int_equal(world.stack.inner, world.stack.count);
            assert_int_equal(world.stack.root, frame_at(depth - 1));
            assert_int_not_equal(world.stack.root_first_local, 0);
            for (size_t i = 0; i < world.stack.count; i++) {
                size_t frame = i > inner && depth > capacity ? depth - capacity + lost + i : i;
                if (i == inner && depth > capacity) {
                    assert_int_equal(world.stack.frames[i].code, 0);
                    assert_int_equal((int64_t)world.stack.frames[i].fingerprint, PYPROF__GAP);
                    continue;
                }
                assert_frame((uint32_t)i, frame % codes_max, (int32_t)(10 + 2 * frame));
            }
        }
    }
}

static void test_cycles_end(void **state) {
    (void)state;
    make_stack(4);
    put_word(frame_at(3) + world.layout.frame_previous, frame_at(1));
    for (int how = 0; how < ways; how++) {
        assert_false(walk((way)how, frame_at(0)));
    }
    for (size_t i = 0; i < 4; i++) { /* and one of frames that are not shown, which no sound stack has */
        set_owner(i, 0);
        set_instr(i, i, world.layout.instr_scale != 0 ? -2 : 0);
    }
    for (int how = 0; how < ways; how++) {
        assert_false(walk((way)how, frame_at(0)));
    }
}

static void test_other_objects_are_no_code(void **state) {
    (void)state;
    for (size_t broken = 0; broken < 4; broken++) {
        make_stack(4);
        put_word(code_at(broken) + offsetof(PyObject, ob_type), (uintptr_t)&PyFunction_Type);
        for (int how = 0; how < ways; how++) {
            assert_false(walk((way)how, frame_at(0)));
        }
    }
}

static void test_pointers_to_nowhere_are_errors(void **state) {
    static const uintptr_t nowhere[] = {8, UINTPTR_MAX - 64, (uintptr_t)1 << 47};
    (void)state;
    for (int how = VIEW; how < ways; how++) {
        for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
            assert_false(walk((way)how, nowhere[i]));
            make_stack(4);
            put_word(frame_at(2) + world.layout.frame_previous, nowhere[i]);
            assert_false(walk((way)how, frame_at(0)));
            make_stack(4);
            put_word(frame_at(2) + world.layout.frame_code, nowhere[i]);
            assert_false(walk((way)how, frame_at(0)));
        }
    }
}

static void test_frames_that_have_not_begun_are_skipped(void **state) {
    int32_t first_shown = world.layout.instr_scale != 0 ? 0 : first_traceable * 2;
    (void)state;
    for (int32_t offset = -2; offset <= 12; offset += 2) {
        make_stack(3);
        set_instr(0, 0, offset);
        for (int how = 0; how < ways; how++) {
            assert_true(walk((way)how, frame_at(0)));
            assert_int_equal(world.stack.count, offset >= first_shown ? 3 : 2);
            assert_frame(world.stack.count - 1, 2, 14);
        }
    }
    make_stack(3);
    set_instr(1, 1, -2); /* but not if others stand below: a trace function is called so */
    assert_true(walk(VIEW, frame_at(0)));
    assert_int_equal(world.stack.count, 3);
    assert_int_equal(world.stack.frames[1].instr, 0);
    assert_true(world.stack.root_first_local == first_local_of(2));
}

static void test_generators_have_always_begun(void **state) {
    (void)state;
    if (world.layout.frame_owner == PYPROF__ABSENT) {
        skip();
    }
    for (int32_t offset = -4; offset <= 12; offset += 2) {
        make_stack(3);
        set_owner(0, world.layout.owner_generator);
        set_instr(0, 0, offset);
        for (int how = 0; how < ways; how++) {
            bool is_frame = offset >= -2;
            assert_int_equal(walk((way)how, frame_at(0)), is_frame);
            if (is_frame) {
                assert_int_equal(world.stack.count, 3);
                assert_frame(0, 0, offset);
            }
        }
    }
}

static void test_frames_of_c_are_skipped(void **state) {
    (void)state;
    if (!has_entry_frames()) {
        skip();
    }
    for (size_t at = 0; at < 4; at++) {
        make_stack(4);
        set_owner(at, world.layout.owner_helper);
        put_word(frame_at(at) + world.layout.frame_code, 8); /* nobody may look at these */
        put_word(frame_at(at) + world.layout.frame_instr, 8);
        for (int how = 0; how < ways; how++) {
            assert_true(walk((way)how, frame_at(0)));
            assert_int_equal(world.stack.count, 3);
            assert_frame(0, at == 0 ? 1 : 0, at == 0 ? 12 : 10);
            assert_frame(2, at == 3 ? 2 : 3, at == 3 ? 14 : 16);
            assert_true(world.stack.root_first_local == (first_local_of(at == 3 ? 2 : 3)));
        }
    }
}

/* A generator that is being left or entered has lost its callers: such a stack must not count as a whole one. */
static void test_stacks_that_end_at_a_generator(void **state) {
    (void)state;
    make_stack(3);
    if (world.layout.frame_owner != PYPROF__ABSENT) {
        set_owner(2, world.layout.owner_generator);
    } else {
        put_word(frame_at(2) + world.layout.frame_generator, 0x7000);
    }
    for (int how = 0; how < ways; how++) {
        assert_true(walk((way)how, frame_at(0)));
        assert_int_equal(world.stack.count, 3);
        assert_true(world.stack.root_is_generator);
    }
    put_word(frame_at(2) + world.layout.frame_previous, 0);
    for (int how = 0; how < ways; how++) {
        assert_int_equal(walk((way)how, frame_at(0)), !has_entry_frames());
    }
    make_stack(3);
    if (world.layout.frame_owner != PYPROF__ABSENT) {
        set_owner(0, world.layout.owner_generator);
    } else {
        put_word(frame_at(0) + world.layout.frame_generator, 0x7000);
    }
    assert_true(walk(VIEW, frame_at(0)));
    assert_false(world.stack.root_is_generator);
}

/* To 3.10 a frame that ends loses its caller, and lies there until it is used anew. */
static void test_ended_frames_are_not_the_outermost(void **state) {
    (void)state;
    make_stack(3);
    assert_true(pyprof__is_outermost(&world.layout, frame_at(2)));
    if (world.layout.frame_state == PYPROF__ABSENT) {
        skip();
    }
    assert_false(pyprof__is_outermost(&world.layout, frame_at(1)));
    set_running(2, false);
    assert_false(pyprof__is_outermost(&world.layout, frame_at(2)));
}

/* Of a thread that runs nobody knows where, the outermost frame: nothing of what another walk left in its place. */
static void test_root_that_is_kept_is_a_stack_of_its_own(void **state) {
    static pyprof__sampler sampler;
    pyprof__frame last[3];
    pyprof__thread thread;
    pyprof__observation observed;
    (void)state;
    make_stack(3);
    assert_true(walk(VIEW, frame_at(0)));
    for (size_t i = 0; i < 3; i++) {
        last[i] = world.frames[2 - i];
    }
    memset(&thread, 0, sizeof thread);
    memset(&observed, 0, sizeof observed);
    sampler.layout = world.layout;
    thread.outermost.address = frame_at(2);
    thread.outermost.tstate = 7;
    thread.frames.data = last;
    thread.frames.count = 3;
    observed.levels.count = 1;
    observed.levels.items[0].tstate = 7;
    memset(&observed.stack, 1, sizeof observed.stack);
    observed.stack.frames = world.frames;
    assert_true(pyprof__keep_root(&sampler, &thread, &observed));
    const pyprof__stack *stack = &observed.stack;
    assert_frame(0, 2, 14);
    assert_int_equal(stack->count, 1);
    assert_int_equal(stack->inner, 1);
    assert_int_equal(stack->root, frame_at(2));
    assert_int_equal(stack->root_first_local, 0);
    assert_true(stack->is_partial);
    assert_false(stack->root_is_generator || stack->is_cut || stack->is_headless || stack->has_gap || stack->is_in_jit);
    thread.outermost.tstate = 8;
    assert_false(pyprof__keep_root(&sampler, &thread, &observed));
}

static void test_instruction_outside_of_its_code(void **state) {
    (void)state;
    if (world.layout.instr_scale != 0) {
        skip();
    }
    make_stack(2);
    put_word(frame_at(0) + world.layout.frame_instr, UINTPTR_MAX / 2);
    for (int how = 0; how < ways; how++) {
        assert_false(walk((way)how, frame_at(0)));
    }
}

static void test_copy_that_is_not_there(void **state) {
    static const int32_t wrong[] = {-1, copies_max, INT32_MAX, INT32_MIN};
    (void)state;
    if (!has_copies()) {
        skip();
    }
    for (int how = 0; how < ways; how++) {
        make_stack(4);
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            set_copy(2, wrong[i]);
            assert_false(walk((way)how, frame_at(0)));
        }
        set_copy(2, 2);
        assert_true(walk((way)how, frame_at(0)));
        make_copies(2, 2);
        assert_false(walk((way)how, frame_at(0)));
    }
    put_word(code_at(2) + world.layout.code_tlbc, 8);
    assert_false(walk(VIEW, frame_at(0)));
    assert_false(walk(EACH, frame_at(0)));
}

static void test_code_objects_have_prints_of_their_own(void **state) {
    pyprof__reader reader = {0, 0, 0, 0, NULL};
    uint64_t before = 0, after = 0, other = 0;
    (void)state;
    make_stack(2);
    assert_true(pyprof__code_fingerprint(&world.layout, &reader, code_at(0), &before));
    assert_true(pyprof__code_fingerprint(&world.layout, &reader, code_at(1), &other));
    assert_true(before != other);
    for (size_t i = 0; i < PYPROF__IDENTITY_WORDS; i++) {
        uintptr_t at = code_at(0) + world.layout.code_identity[i], word = 0;
        memcpy(&word, (void *)at, sizeof word);
        put_word(at, word ^ 0x10); /* what it points to may be no object then, which is as good */
        assert_true(!pyprof__code_fingerprint(&world.layout, &reader, code_at(0), &after) || before != after);
        put_word(at, word);
    }
    assert_true(pyprof__code_fingerprint(&world.layout, &reader, code_at(0), &after));
    assert_true(before == after);
    assert_false(pyprof__code_fingerprint(&world.layout, &reader, 8, &after));
#if !PYPROF__PY_SINCE(12)
    put_text(code_at(0) + name_part, "b_function"); /* same addresses, other contents */
    assert_true(pyprof__code_fingerprint(&world.layout, &reader, code_at(0), &after) && before != after);
    put_text(code_at(0) + name_part, "a_function");
    put_word(code_at(0) + name_part + offsetof(PyASCIIObject, hash), 1);
    assert_true(pyprof__code_fingerprint(&world.layout, &reader, code_at(0), &other) && before != other);
    put_word(code_at(0) + name_part + offsetof(PyASCIIObject, hash), 2); /* the same, where texts have a hash */
    assert_true(pyprof__code_fingerprint(&world.layout, &reader, code_at(0), &after) && other != after);
    put_text(code_at(0) + name_part, "a_function");
    put_lines(code_at(0) + lines_part, "\2\1\2\2");
    assert_true(pyprof__code_fingerprint(&world.layout, &reader, code_at(0), &after) && before != after);
    put_lines(code_at(0) + lines_part, "\2\1\2\1");
#endif
    assert_true(walk(PLAIN, frame_at(0)));
    assert_true(world.frames[0].fingerprint == before);
    assert_true(world.frames[1].fingerprint != before);
}

/* A chain of cframes in the upper frames' room: cframe i leads to a leaf and to cframe i + 1. */
static void make_cframe(size_t i, uintptr_t leaf, uintptr_t previous) {
    put_word(frame_at(48 + i) + world.layout.cframe_frame, leaf);
    put_word(frame_at(48 + i) + world.layout.cframe_previous, previous);
}

static bool is_linked(way how, uintptr_t leaf) {
    pyprof__reader reader = reader_of(how);
    return pyprof__leaf_is_linked(&world.layout, &reader, frame_at(48), leaf);
}

static void test_leaf_leads_to_the_cframe_before(void **state) {
    (void)state;
    if (world.layout.cframe_frame == PYPROF__ABSENT) {
        skip();
    }
    for (int how = 0; how < ways; how++) {
        make_stack(6);
        make_cframe(0, frame_at(0), frame_at(49)); /* entered when frame 3 was the leaf */
        make_cframe(1, frame_at(3), frame_at(50));
        make_cframe(2, 0, 0);
        assert_true(is_linked((way)how, frame_at(0)));
        assert_true(is_linked((way)how, frame_at(3))); /* not changed since it was entered */
        assert_false(is_linked((way)how, frame_at(4)));
        assert_false(is_linked((way)how, 0));
        make_cframe(0, frame_at(0), frame_at(50));
        assert_true(is_linked((way)how, frame_at(0))); /* down to the thread's first frame */
        assert_true(is_linked((way)how, 0));
        make_cframe(0, frame_at(0), 0); /* the root cframe has none before */
        assert_true(is_linked((way)how, frame_at(0)));
        make_stack(6);
        make_cframe(0, frame_at(0), frame_at(49));
        make_cframe(1, frame_at(10), 0);
        assert_false(is_linked((way)how, frame_at(0)));
    }
    for (int how = VIEW; how < ways; how++) { /* what happened to lie on the C stack */
        make_stack(2);
        make_cframe(0, 0, frame_at(49));
        make_cframe(1, frame_at(1), 0);
        assert_false(is_linked((way)how, 8));
        assert_false(is_linked((way)how, UINTPTR_MAX - 100));
        make_cframe(0, 0, 8);
        assert_false(is_linked((way)how, frame_at(0)));
    }
}

static void test_endless_link_chain_ends(void **state) {
    (void)state;
    if (world.layout.cframe_frame == PYPROF__ABSENT) {
        skip();
    }
    make_stack(4);
    put_word(frame_at(3) + world.layout.frame_previous, frame_at(0));
    make_cframe(0, frame_at(0), frame_at(49));
    make_cframe(1, frame_at(10), 0);
    assert_false(is_linked(PLAIN, frame_at(0)));
}

static void test_leaf_frame_of_a_thread_state(void **state) {
    pyprof__reader reader = {0, 0, 0, 0, &world.view};
    uintptr_t tstate = frame_at(56), leaf = 1;
    (void)state;
    make_stack(3);
    pyprof__view_reset(&world.view);
    assert_true(pyprof__leaf_frame(&world.layout, &reader, tstate, &leaf));
    assert_true(leaf == 0);
    if (world.layout.cframe_frame == PYPROF__ABSENT) {
        put_word(tstate + world.layout.ts_frame, frame_at(0));
    } else {
        put_word(tstate + world.layout.ts_frame, frame_at(48));
        make_cframe(0, frame_at(0), 0);
    }
    pyprof__view_reset(&world.view);
    assert_true(pyprof__leaf_frame(&world.layout, &reader, tstate, &leaf));
    assert_true(leaf == frame_at(0));
    assert_false(pyprof__leaf_frame(&world.layout, &reader, 8, &leaf));
}

/* Thread states of one thread, in a memory of their own. */
enum {
    tstates_max = 4,
    a_pthread = 0x7700
};

static unsigned char tstates[tstates_max][sizeof(PyThreadState)];

static uintptr_t tstate_at(size_t i) {
    return (uintptr_t)tstates[i];
}

static void set_frames(size_t i, bool has_frames) {
    const uintptr_t base = 0x5500;
    bool has_cframes = world.layout.cframe_frame != PYPROF__ABSENT, has_base = world.layout.ts_base != PYPROF__ABSENT;
    uintptr_t none = has_cframes ? tstate_at(i) + 8 : has_base ? base : 0;
    if (has_base) {
        put_word(tstate_at(i) + world.layout.ts_base, base);
    }
    put_word(tstate_at(i) + world.layout.ts_frame, has_frames ? frame_at(i) : none);
}

/* Levels in the order in which they are named; the first few had frames. now: which of all have frames now. */
static pyprof__levels levels_of(const char *order, uint32_t count, const char *now) {
    pyprof__levels levels;
    memset(&levels, 0, sizeof levels);
    levels.count = count;
    levels.known = (uint32_t)strlen(order);
    levels.is_whole = true;
    levels.thread_id = a_pthread;
    for (size_t i = 0; i < tstates_max; i++) {
        put_word(tstate_at(i) + world.layout.ts_interp, 0x6600 + i);
        put_word(tstate_at(i) + world.layout.ts_id, i + 1);
        put_word(tstate_at(i) + world.layout.ts_thread_id, a_pthread);
        set_frames(i, strchr(now, 'A' + (int)i) != NULL);
    }
    for (uint32_t i = 0; i < levels.known; i++) {
        size_t at = (size_t)(order[i] - 'A');
        pyprof__level level = {tstate_at(at), 0x6600 + at, at + 1, (int64_t)at, 0};
        levels.items[i] = level;
    }
    return levels;
}

static void assert_levels(const pyprof__levels *levels, const char *order, uint32_t count) {
    char found[tstates_max + 1] = {0};
    for (uint32_t i = 0; i < levels->known; i++) {
        found[i] = (char)('A' + levels->items[i].interp_id);
    }
    assert_string_equal(found, order);
    assert_int_equal(levels->count, count);
}

static void assert_follows(const char *before, uint32_t count, const char *now, char current, const char *after,
                           uint32_t after_count) {
    pyprof__levels levels = levels_of(before, count, now);
    assert_true(pyprof__follow(&world.layout, &levels, tstate_at((size_t)(current - 'A'))));
    assert_levels(&levels, after, after_count);
}

static void test_follows_a_thread_to_other_interpreters(void **state) {
    (void)state;
    assert_follows("A", 1, "A", 'A', "A", 1);
    assert_follows("AB", 1, "AB", 'B', "BA", 2);      /* entered B from A */
    assert_follows("BA", 2, "A", 'A', "AB", 1);       /* left B */
    assert_follows("BA", 2, "BA", 'B', "BA", 2);      /* left and entered again */
    assert_follows("AB", 1, "A", 'B', "BA", 2);       /* in B, where no function was called yet */
    assert_follows("ABC", 1, "ABC", 'C', "CBA", 3);   /* entered B from A, and C from B */
    assert_follows("BAC", 2, "AC", 'C', "CAB", 2);    /* left B, entered C */
    assert_follows("BACD", 2, "ABD", 'D', "DBAC", 3); /* entered D from B */
}

static void test_does_not_guess_where_a_thread_went(void **state) {
    (void)state;
    pyprof__levels levels = levels_of("DABC", 1, "ABCD");
    assert_false(pyprof__follow(&world.layout, &levels, tstate_at(0))); /* by B or by C first? */
    assert_levels(&levels, "DABC", 1);
    levels = levels_of("AB", 1, "AB");
    assert_false(pyprof__follow(&world.layout, &levels, tstate_at(3))); /* never heard of */
    levels.is_whole = false;
    assert_false(pyprof__follow(&world.layout, &levels, tstate_at(1))); /* there may be some between */
    assert_true(pyprof__follow(&world.layout, &levels, tstate_at(0)));
    levels = levels_of("BA", 2, "AB");
    put_word(tstate_at(0) + world.layout.ts_id, 99); /* another one at the place of A */
    assert_false(pyprof__follow(&world.layout, &levels, tstate_at(1)));
    assert_false(pyprof__follow(&world.layout, &levels, tstate_at(0)));
    assert_levels(&levels, "BA", 2);
    levels = levels_of("BAC", 2, "AB");
    put_word(tstate_at(2) + world.layout.ts_id, 99); /* at the place of one that had no frames */
    assert_true(pyprof__follow(&world.layout, &levels, tstate_at(0)));
    assert_levels(&levels, "ABC", 2);
}

/* Both of its ids must be the thread's: one that is being born takes them on one after the other. */
static void test_whose_thread_state_it_is(void **state) {
    struct {
        unsigned long thread_id, native_id;
    } tstate = {1000, 77};
    pyprof__layout layout;
    (void)state;
    memset(&layout, 0, sizeof layout);
    layout.ts_native_id = (uint32_t)sizeof tstate.thread_id;
    assert_true(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 1000, 77, 0));
    assert_false(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 2000, 77, 0));
    assert_false(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 1000, 78, 0));
    assert_false(pyprof__is_bound_to(&layout, 8, 1000, 77, 0));
    layout.ts_native_id = PYPROF__ABSENT; /* to 3.10 there is one id */
    assert_true(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 1000, 78, 0));
    assert_false(pyprof__is_bound_to(&layout, (uintptr_t)&tstate, 2000, 78, 0));
}

/* Whatever bytes there are: the walk ends, stays inside its arrays and touches nothing that is not there. */
static void test_random_memory_is_survived(void **state) {
    uint64_t random = 2026;
    uint32_t walked = 0;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        make_stack(24);
        for (int i = 0; i < 3; i++) {
            uintptr_t at = (uintptr_t)world.memory + (unit_random(&random) % (24 * frame_size) & ~(size_t)7);
            uintptr_t word =
                unit_random(&random) % 2 == 0 ? unit_random(&random) : frame_at(unit_random(&random) % frames_max);
            put_word(at, word);
        }
        for (size_t i = 0; i < 24; i++) { /* mostly where it counts */
            if (unit_random(&random) % 16 == 0) {
                put_word(frame_at(i) + world.layout.frame_previous, frame_at(unit_random(&random) % frames_max));
            }
            if (unit_random(&random) % 64 == 0) {
                put_word(frame_at(i) + world.layout.frame_code, frame_at(0) + unit_random(&random) % (world.size * 2));
            }
        }
        bool by_view = walk(VIEW, frame_at(0));
        uint32_t count = world.stack.count;
        assert_true(count <= capacity);
        assert_int_equal(walk(EACH, frame_at(0)), by_view);
        assert_int_equal(world.stack.count, count);
        walked += by_view;
    }
    assert_in_range(walked, 100, 2900);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walks_from_leaf_to_root),
        cmocka_unit_test(test_no_frame_is_an_empty_stack),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_cycles_end),
        cmocka_unit_test(test_other_objects_are_no_code),
        cmocka_unit_test(test_pointers_to_nowhere_are_errors),
        cmocka_unit_test(test_frames_that_have_not_begun_are_skipped),
        cmocka_unit_test(test_generators_have_always_begun),
        cmocka_unit_test(test_frames_of_c_are_skipped),
        cmocka_unit_test(test_stacks_that_end_at_a_generator),
        cmocka_unit_test(test_ended_frames_are_not_the_outermost),
        cmocka_unit_test(test_root_that_is_kept_is_a_stack_of_its_own),
        cmocka_unit_test(test_instruction_outside_of_its_code),
        cmocka_unit_test(test_copy_that_is_not_there),
        cmocka_unit_test(test_code_objects_have_prints_of_their_own),
        cmocka_unit_test(test_leaf_leads_to_the_cframe_before),
        cmocka_unit_test(test_endless_link_chain_ends),
        cmocka_unit_test(test_leaf_frame_of_a_thread_state),
        cmocka_unit_test(test_follows_a_thread_to_other_interpreters),
        cmocka_unit_test(test_does_not_guess_where_a_thread_went),
        cmocka_unit_test(test_whose_thread_state_it_is),
        cmocka_unit_test(test_random_memory_is_survived),
    };
    int failed = cmocka_run_group_tests(tests, make_world, end_world);
    if (PYPROF__PY_SINCE(11)) {
        failed += cmocka_run_group_tests_name("with copies of the bytecode", tests, make_world_with_copies, end_world);
    }
    return failed != 0;
}
