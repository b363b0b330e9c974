/* >>cpython, >>frames, >>stacks: CPython's layout as pyprof.h knows it, against a living Python. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

#define LENGTH(array) (sizeof array / sizeof *array)

static pyprof__layout row;

static int start(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, (size_t)1 << 20);
    if (pyprof__layout_init(&row, &memory) != PYPROF_OK || counts.blocks != 0) {
        return -1;
    }
    return unit_start_python(state);
}

/* The row against the thread that runs, frame by frame. */

static int frames_compared;
static const pyprof__layout *row_in_use = &row;

static PyObject *compare_stack(PyObject *module, PyObject *unused) {
    static pyprof__view view;
    static pyprof__frame frames[256];
    pyprof__reader reader = {0, 0, 0, 0, &view};
    uintptr_t tstate = (uintptr_t)PyThreadState_Get(), leaf = 0;
    pyprof__stack stack;
    (void)module;
    (void)unused;
    memset(&stack, 0, sizeof stack);
    stack.frames = frames;
    stack.capacity = 256;
    pyprof__view_reset(&view);
    assert_true(pyprof__leaf_frame(row_in_use, &reader, tstate, &leaf));
    assert_true(pyprof__walk(row_in_use, &reader, leaf, &stack));
    PyFrameObject *frame = PyEval_GetFrame();
    Py_INCREF(frame);
    for (uint32_t i = 0; i < stack.count; i++) {
        assert_non_null(frame);
        PyObject *code = PyObject_GetAttrString((PyObject *)frame, "f_code");
        PyObject *instr = PyObject_GetAttrString((PyObject *)frame, "f_lasti");
        PyObject *back = PyObject_GetAttrString((PyObject *)frame, "f_back");
        assert_true(frames[i].code == (uintptr_t)code);
        assert_int_equal(frames[i].instr, PyLong_AsLong(instr));
        frames_compared++;
        Py_DECREF(code);
        Py_DECREF(instr);
        Py_DECREF(frame);
        frame = (PyFrameObject *)back;
    }
    assert_true((PyObject *)frame == Py_None);
    Py_DECREF(frame);
    return PyLong_FromUnsignedLong(stack.count);
}

static PyMethodDef compare_method = {"compare_stack", compare_stack, METH_NOARGS, NULL};

static void compare_stacks(void) {
    PyObject *function = PyCFunction_New(&compare_method, NULL);
    PyObject_SetAttrString(PyImport_AddModule("__main__"), "compare_stack", function);
    Py_DECREF(function);
    frames_compared = 0;
    unit_run("def plain():\n"
             "    return compare_stack()\n"
             "def nested(n):\n"
             "    return plain() if n == 0 else nested(n - 1)\n"
             "def generator():\n"
             "    yield plain()\n"
             "async def coroutine(n):\n"
             "    return plain() if n == 0 else await coroutine(n - 1)\n"
             "class Called:\n"
             "    def __call__(self):\n"
             "        return nested(2)\n"
             "assert compare_stack() == 1\n"
             "assert plain() == 2\n"
             "assert nested(100) == 103\n"
             "assert list(generator()) == [3]\n"
             "assert list(map(lambda _: plain(), [0])) == [3]\n"
             "assert sorted([1], key=lambda _: Called()()) == [1]\n"
             "try:\n"
             "    coroutine(5).send(None)\n"
             "except StopIteration as stop:\n"
             "    assert stop.value == 8, stop.value\n"
             "import functools\n"
             "assert functools.reduce(lambda a, b: plain(), [1, 2]) == 3\n"
             "exec('assert eval(\"plain()\") == 4')\n");
    assert_in_range(frames_compared, 130, 1000);
}

static void test_row_finds_the_stack_that_runs(void **state) {
    (void)state;
    compare_stacks();
}

#if PYPROF__PY_SINCE(13)
/* What an interpreter says of itself, and what is made of it. */

static pyprof__description description;

static pyprof_result adopt(const pyprof__description *self, uint32_t built_for) {
    pyprof__layout adopted = row;
    pyprof_result result = pyprof__layout_adopt(&adopted, self, built_for);
    if (result == PYPROF_OK) {
        assert_memory_equal(&adopted, &row, sizeof row);
    }
    return result;
}

static void read_description(void) {
    memcpy(&description, pyprof__runtime(), sizeof description);
}

static void test_newer_version_is_believed_if_all_agrees(void **state) {
    const uint32_t newer = PYPROF__PY(PYPROF__PY_NEWEST + 1) + 0xf0;
    (void)state;
    read_description();
    assert_int_equal(adopt(&description, PY_VERSION_HEX), PYPROF_OK);
    assert_int_equal(adopt(&description, newer), PYPROF_ERROR_PYTHON_MISMATCH);
    description.version = newer;
    assert_int_equal(adopt(&description, newer), PYPROF_OK);
    assert_int_equal(adopt(&description, PY_VERSION_HEX), PYPROF_ERROR_PYTHON_MISMATCH);
}

/* Its owners may be others: what is no Python frame is then told by what it runs. */
static void test_owners_need_not_be_known(void **state) {
    pyprof__layout newer = row;
    (void)state;
    newer.owner_helper = PYPROF__ABSENT;
    row_in_use = &newer;
    compare_stacks();
    row_in_use = &row;
}

static void test_other_builds_are_refused(void **state) {
    (void)state;
    read_description();
    description.free_threaded ^= 1;
    assert_int_equal(adopt(&description, PY_VERSION_HEX), PYPROF_ERROR_PYTHON_MISMATCH);
    read_description();
    description.cookie[0] ^= 1;
    assert_int_equal(adopt(&description, PY_VERSION_HEX), PYPROF_ERROR_PYTHON);
}

/* Every word that is used, wrong in several ways: nothing is guessed. */
static void test_description_that_does_not_add_up_is_refused(void **state) {
#define USED(part, field) offsetof(pyprof__description, part.field)
    static const size_t compared[] = {
        USED(interp, next),          USED(interp, threads_head), USED(interp, id),
        USED(thread, prev),          USED(thread, next),         USED(thread, interp),
        USED(thread, current_frame), USED(thread, thread_id),    USED(thread, native_thread_id),
        USED(thread, status),        USED(code, qualname),       USED(code, filename),
        USED(code, linetable),       USED(code, firstlineno),    USED(code, co_code_adaptive),
        USED(object, size),          USED(object, ob_type),
    };
    static const size_t of_frames[] = {USED(frame, previous), USED(frame, executable), USED(frame, instr_ptr),
                                       USED(frame, localsplus)};
    static const uint64_t wrong[] = {1, 8, (uint64_t)-8, 1u << 20, 1ull << 33};
    (void)state;
    for (size_t j = 0; j < LENGTH(wrong); j++) {
        for (size_t i = 0; i < LENGTH(compared); i++) {
            read_description();
            uint64_t word;
            memcpy(&word, (char *)&description + compared[i], sizeof word);
            word += wrong[j];
            memcpy((char *)&description + compared[i], &word, sizeof word);
            assert_int_equal(adopt(&description, PY_VERSION_HEX), PYPROF_ERROR_PYTHON);
        }
    }
    for (size_t i = 0; i < LENGTH(of_frames); i++) {
        read_description();
        const uint64_t unfit[] = {description.frame.owner, 3, 1u << 20,
                                  i == 0 ? description.frame.executable : description.frame.previous};
        for (size_t j = 0; j < LENGTH(unfit); j++) {
            read_description();
            memcpy((char *)&description + of_frames[i], &unfit[j], sizeof unfit[j]);
            assert_int_equal(adopt(&description, PY_VERSION_HEX), PYPROF_ERROR_PYTHON);
        }
    }
    read_description();
    memset(&description.frame, 0, sizeof description.frame);
    assert_int_equal(adopt(&description, PY_VERSION_HEX), PYPROF_ERROR_PYTHON);
    read_description();
    memset(&description.runtime, 0, sizeof description - offsetof(pyprof__description, runtime));
    assert_int_equal(adopt(&description, PY_VERSION_HEX), PYPROF_ERROR_PYTHON);
}
#endif

static void test_row_finds_this_thread(void **state) {
    unsigned char copy[PYPROF__TSTATE_COPY];
    PyThreadState *tstate = PyThreadState_Get();
    (void)state;
    assert_true(pyprof__read((uintptr_t)tstate, copy, row.ts_size));
    assert_true(pyprof__is_attached(&row, (uintptr_t)tstate, copy));
    assert_true(pyprof__is_attached_now(&row, (uintptr_t)tstate));
    assert_true(pyprof__current_thread_state() == (uintptr_t)tstate);
    assert_true(pyprof__is_own_thread_state(&row, (uintptr_t)tstate));
    uintptr_t interp = 0, thread_id = 0, first = pyprof__first_interpreter();
    memcpy(&interp, copy + row.ts_interp, sizeof interp);
    memcpy(&thread_id, copy + row.ts_thread_id, sizeof thread_id);
    assert_true(interp == first);
    assert_true(thread_id == (uintptr_t)pthread_self());
    uintptr_t head = 0;
    int64_t id = -1;
    assert_true(pyprof__read(interp + row.interp_threads, &head, sizeof head));
    assert_true(pyprof__read(interp + row.interp_id, &id, sizeof id));
    assert_true(head == (uintptr_t)tstate);
    assert_int_equal(id, 0);
    PyEval_SaveThread();
    assert_true(pyprof__read((uintptr_t)tstate, copy, row.ts_size));
    assert_false(pyprof__is_attached(&row, (uintptr_t)tstate, copy));
    assert_false(pyprof__is_attached_now(&row, (uintptr_t)tstate));
    PyEval_RestoreThread(tstate);
}

/* What tells a code object from its successor must not change in its life. */
static void test_print_of_a_code_object_stays(void **state) {
    pyprof__reader reader = {0, 0, 0, 0, NULL};
    uint64_t before = 0, after = 0;
    (void)state;
    unit_run("def busy(n):\n"
             "    total = 0\n"
             "    for i in range(n):\n"
             "        total += [i, i + 1][i & 1] * len('ab')\n"
             "    return total\n");
    PyObject *function = unit_main("busy");
    PyObject *code = PyObject_GetAttrString(function, "__code__");
    assert_true(pyprof__code_fingerprint(&row, &reader, (uintptr_t)code, &before));
    static const char *const lives[] = {
        "busy(10)",
        "for i in range(5000): busy(20)",
        "busy.__code__.co_code; busy.__code__.co_varnames; hash(busy.__code__)",
        "import sys\nsys.settrace(lambda *a: None)\nbusy(10)\nsys.settrace(None)",
        "import sys\nsys.setprofile(lambda *a: None)\nbusy(10)\nsys.setprofile(None)",
        "import gc\ngc.collect()",
        "import dis, io\ndis.dis(busy, file=io.StringIO())",
        "for i in range(5000): busy(20)",
    };
    for (size_t i = 0; i < LENGTH(lives); i++) {
        unit_run(lives[i]);
        assert_true(pyprof__code_fingerprint(&row, &reader, (uintptr_t)code, &after));
        assert_true(before == after);
    }
    Py_DECREF(code);
    Py_DECREF(function);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_finds_the_stack_that_runs),
#if PYPROF__PY_SINCE(13)
        cmocka_unit_test(test_newer_version_is_believed_if_all_agrees),
        cmocka_unit_test(test_owners_need_not_be_known),
        cmocka_unit_test(test_other_builds_are_refused),
        cmocka_unit_test(test_description_that_does_not_add_up_is_refused),
#endif
        cmocka_unit_test(test_row_finds_this_thread),
        cmocka_unit_test(test_print_of_a_code_object_stays),
    };
    return cmocka_run_group_tests(tests, start, unit_stop_python);
}
