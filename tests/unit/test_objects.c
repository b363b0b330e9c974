/* >>objects: str objects of every kind come out as UTF-8; attributes of instances are found. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <sys/mman.h>

#include "unit.h"

static pyprof__layout row;

static int start(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, (size_t)1 << 20);
    if (pyprof__layout_init(&row, &memory) != PYPROF_OK || counts.blocks != 0) {
        return -1;
    }
    return unit_start_python(state);
}

/* Texts. */

static pyprof__text text;

static void assert_reads_as(const char *expression, const char *expected, size_t size) {
    PyObject *globals = PyModule_GetDict(PyImport_AddModule("__main__"));
    PyObject *object = PyRun_String(expression, Py_eval_input, globals, globals);
    assert_non_null(object);
    assert_true(pyprof__read_text((uintptr_t)object, &text));
    assert_int_equal(text.size, size);
    assert_memory_equal(text.utf8, expected, size);
    Py_DECREF(object);
}

static void test_strings_of_every_kind(void **state) {
    (void)state;
    assert_reads_as("''", "", 0);
    assert_reads_as("'plain'", "plain", 5);
    assert_reads_as("'nul\\0in it'", "nul\0in it", 9);
    assert_reads_as("'\\x7f\\x80\\xe9\\xff'", "\x7f\xc2\x80\xc3\xa9\xc3\xbf", 7);
    assert_reads_as("'a\\u0100\\u0416\\u20ac\\uffff'", "a\xc4\x80\xd0\x96\xe2\x82\xac\xef\xbf\xbf", 11);
    assert_reads_as("'\\U00010000 \\U0001f600 \\U0010ffff'", "\xf0\x90\x80\x80 \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf", 14);
    assert_reads_as("'\\ud800 \\udfff'", "\xed\xa0\x80 \xed\xbf\xbf", 7); /* lone surrogates, generalised */
    assert_reads_as("'\\udc80\\U0001f600'", "\xed\xb2\x80\xf0\x9f\x98\x80", 7);
}

/* The program's pairs: a text, and its bytes as Python encodes it. */
static void assert_pairs_are_read(Py_ssize_t count) {
    PyObject *pairs = unit_main("pairs");
    assert_int_equal(PyList_Size(pairs), count);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyList_GetItem(pairs, i), *bytes = PyTuple_GetItem(pair, 1);
        assert_true(pyprof__read_text((uintptr_t)PyTuple_GetItem(pair, 0), &text));
        assert_int_equal(text.size, PyBytes_Size(bytes));
        assert_memory_equal(text.utf8, PyBytes_AsString(bytes), text.size);
    }
    Py_DECREF(pairs);
}

/* Against Python's own encoder, for characters from everywhere. */
static void test_strings_as_python_encodes_them(void **state) {
    (void)state;
    unit_run("import random\nr = random.Random(1)\n"
             "tops = [0x7f, 0xff, 0x7ff, 0xffff, 0x10ffff]\n"
             "texts = [''.join(chr(r.randrange(tops[i % 5] + 1)) for _ in range(r.randrange(200)))\n"
             "         for i in range(5000)]\n"
             "pairs = [(t, t.encode('utf-8', 'surrogatepass')) for t in texts]\n");
    assert_pairs_are_read(5000);
}

/* As the name of a file may be, where a program has paths that are texts. */
static void test_strings_that_are_derived(void **state) {
    (void)state;
    unit_run(
        "class Path(str): pass\n"
        "class Deeper(Path): __slots__ = ('a', 'b')\n"
        "texts = [kind(t) for kind in (Path, Deeper) for t in ('', 'a.py', '\\xe9', '\\u20ac' * 50, '\\U0001f600')]\n"
        "pairs = [(t, str.encode(t, 'utf-8')) for t in texts]\n");
    assert_pairs_are_read(10);
}

static void test_long_strings_are_cut(void **state) {
    static const struct {
        const char *make;
        size_t width;
    } kinds[] = {{"'a' * %u", 1}, {"'\\xe9' * %u", 2}, {"'\\u20ac' * %u", 3}, {"'\\U0001f600' * %u", 4}};
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        for (unsigned count = PYPROF__TEXT_CHARS - 1; count <= PYPROF__TEXT_CHARS + 1; count++) {
            char expression[64];
            snprintf(expression, sizeof expression, kinds[i].make, count);
            PyObject *globals = PyModule_GetDict(PyImport_AddModule("__main__"));
            PyObject *object = PyRun_String(expression, Py_eval_input, globals, globals);
            assert_true(pyprof__read_text((uintptr_t)object, &text));
            bool is_cut = count > PYPROF__TEXT_CHARS;
            size_t chars = is_cut ? PYPROF__TEXT_CHARS : count;
            assert_int_equal(text.size, chars * kinds[i].width + (is_cut ? 3 : 0));
            assert_memory_equal(text.utf8, PyUnicode_AsUTF8(object), chars * kinds[i].width);
            assert_true(!is_cut || memcmp(text.utf8 + text.size - 3, "...", 3) == 0);
            Py_DECREF(object);
        }
    }
}

static void test_other_objects_are_no_text(void **state) {
    static const char *const others[] = {"None",  "b'bytes'", "5",       "['text']",    "str",
                                         "print", "{}",       "type(5)", "bytearray(5)"};
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        PyObject *globals = PyModule_GetDict(PyImport_AddModule("__main__"));
        PyObject *object = PyRun_String(others[i], Py_eval_input, globals, globals);
        assert_false(pyprof__read_text((uintptr_t)object, &text));
        Py_DECREF(object);
    }
    assert_false(pyprof__read_text(0, &text));
    assert_false(pyprof__read_text(8, &text));
    assert_false(pyprof__read_text(UINTPTR_MAX - 8, &text));
}

/* A str whose memory ends, or is gone, or holds something else now. */
static void test_strings_that_are_gone(void **state) {
    enum {
        page = 65536
    };
    (void)state;
    PyObject *original = PyUnicode_FromString("a text that is going to vanish");
    char *memory = (char *)mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    size_t size = sizeof(PyASCIIObject) + 31;
    for (size_t there = 8; there <= 96; there += 8) { /* so much of it is still there */
        char *at = memory + page - there;
        memcpy(at, original, there < size ? there : size);
        assert_int_equal(mprotect(memory + page, page, PROT_READ | PROT_WRITE), 0);
        if (there < size) {
            memcpy(memory + page, (char *)original + there, size - there);
        }
        assert_true(pyprof__read_text((uintptr_t)at, &text));
        assert_int_equal(text.size, 30);
        assert_int_equal(munmap(memory + page, page), 0);
        assert_int_equal(pyprof__read_text((uintptr_t)at, &text), there + 1 >= size);
        void *again = mmap(memory + page, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        assert_ptr_equal(again, memory + page);
    }
    PyASCIIObject head;
    memcpy(&head, original, sizeof head);
    head.length = -1;
    assert_false(pyprof__read_text((uintptr_t)&head, &text));
    assert_int_equal(munmap(memory, 2 * page), 0);
    Py_DECREF(original);
    assert_false(pyprof__read_text((uintptr_t)memory, &text));
}

static void test_characters_that_are_none(void **state) {
    (void)state;
    PyObject *object = PyUnicode_FromString("\xf0\x9f\x98\x80\xf0\x9f\x98\x80");
    Py_UCS4 *characters = PyUnicode_4BYTE_DATA(object);
    assert_true(pyprof__read_text((uintptr_t)object, &text));
    Py_UCS4 character = characters[1];
    characters[1] = 0x110000;
    assert_false(pyprof__read_text((uintptr_t)object, &text));
    characters[1] = UINT32_MAX;
    assert_false(pyprof__read_text((uintptr_t)object, &text));
    characters[1] = character;
    Py_DECREF(object);
}

/* Attributes of instances. */

static uintptr_t read_name(PyObject *object) {
    static pyprof__view view;
    uintptr_t place, value, there = 0;
    pyprof__view_reset(&view);
    value = pyprof__read_attribute(&view, (uintptr_t)object, "_name", &place);
    assert_int_equal(value == 0, place == 0);
    assert_true(place == 0 || (pyprof__read(place, &there, sizeof there) && there == value));
    return value;
}

/* The objects of a list have the attribute, and it is found. */
static void assert_found(const char *statements) {
    unit_run(statements);
    PyObject *objects = unit_main("objects");
    assert_true(PyList_Size(objects) > 0);
    for (Py_ssize_t i = 0; i < PyList_Size(objects); i++) {
        PyObject *object = PyList_GetItem(objects, i);
        uintptr_t first = read_name(object);
        PyObject *value = PyObject_GetAttrString(object, "_name");
        if (first != (uintptr_t)value) {
            print_error("object %ld of: %s\n", (long)i, statements);
        }
        assert_true(first == (uintptr_t)value);
        Py_DECREF(value);
    }
    Py_DECREF(objects);
}

static void assert_not_found(const char *statements) {
    unit_run(statements);
    PyObject *objects = unit_main("objects");
    assert_true(PyList_Size(objects) > 0);
    for (Py_ssize_t i = 0; i < PyList_Size(objects); i++) {
        if (read_name(PyList_GetItem(objects, i)) != 0) {
            print_error("object %ld of: %s\n", (long)i, statements);
            fail();
        }
    }
    Py_DECREF(objects);
}

static void test_attributes_are_found(void **state) {
    (void)state;
    unit_run("class A:\n"
             "    def __init__(self, *names):\n"
             "        for name in names: setattr(self, name, 'value of ' + name)\n");
    assert_found("objects = [A('_name'), A('_name', 'b'), A('b', '_name'), A('b', 'c', '_name', 'd')]");
    assert_found("many = ['a%d' % i for i in range(100)]\n"
                 "class B(A): pass\n"
                 "objects = [B(*many[:n], '_name', *many[n:]) for n in range(0, 100, 7)]");
    assert_found("objects = [A('_name', 'b') for i in range(3)]\n"
                 "for o in objects: o.__dict__\n"); /* brought into being */
    assert_found("objects = [A(), A('x')]\n"
                 "for o in objects: o.__dict__ = {'p': 1, '_name': 'combined'}");
    assert_found("objects = [A('a', 'b', '_name'), A('a', '_name', 'b')]\n"
                 "for o in objects: del o.a; del o.b\n"
                 "objects[1]._name = 'new'; objects[1].a = 1");
    assert_found("o = A('a', '_name')\ndel o._name\no._name = 'again'\nobjects = [o]");
    assert_found("o = A('a', '_name'); o.__dict__[5] = 6; o.__dict__[None] = 7\nobjects = [o]");
    assert_found("class C(A): __slots__ = ('x', 'y')\n"
                 "o = C('_name'); o.x = 'slot'\np = C(); p.__dict__['_name'] = 'late'\nobjects = [o, p]");
    assert_found("class D: __slots__ = ('x', '__dict__', '__weakref__')\n"
                 "o = D(); o.x = 1; o._name = 'dict among the slots'\nobjects = [o]");
    assert_found("import random\n"
                 "names = ['n%d' % i for i in range(30)] + ['_name']\n"
                 "r = random.Random(4)\nobjects = []\n"
                 "for i in range(300):\n"
                 "    class E(A): pass\n"
                 "    for j in range(3):\n"
                 "        o = E(*r.sample(names, r.randrange(1, 31)))\n"
                 "        for name in r.sample(list(vars(o)) if i % 2 else dir(o)[-5:], 1):\n"
                 "            if not name.startswith('__'): delattr(o, name)\n"
                 "        o._name = 'n%d' % i\n"
                 "        objects.append(o)\n");
}

static void test_names_of_threads_are_found(void **state) {
    (void)state;
    assert_found("import threading\n"
                 "class Slotted(threading.Thread): __slots__ = ('x', 'y')\n"
                 "class More(threading.Thread):\n"
                 "    def __init__(self):\n"
                 "        for i in range(40): setattr(self, 'm%d' % i, i)\n"
                 "        super().__init__(name='more')\n"
                 "s = Slotted(name='slotted'); s.x = 1\n"
                 "t = threading.Thread(name='renamed'); t.name = 'renamed later'\n"
                 "objects = [threading.main_thread(), threading.Thread(name='plain'), s, t, More(),\n"
                 "           threading.Timer(1, None)]");
}

static void test_names_that_are_not_interned_are_found(void **state) {
    (void)state;
    unit_run("o = A(); o.__dict__[''.join(['_', 'name'])] = 'not interned'");
    PyObject *object = unit_main("o");
    PyObject *value = PyObject_GetAttrString(object, "_name");
    assert_true(read_name(object) == (uintptr_t)value);
    Py_DECREF(value);
    Py_DECREF(object);
}

static void test_what_has_no_such_attribute(void **state) {
    (void)state;
    assert_not_found("objects = [A(), A('b'), A('name'), A('_nam'), A('_names'), object(), 5, 'text', {}, A,\n"
                     "           {'_name': 1}, None, print]");
    assert_not_found("class F: __slots__ = ('_name_',)\nobjects = [F()]");
    assert_not_found("o = A('_name'); del o._name\np = A('a', '_name'); p.__dict__.clear()\nobjects = [o, p]");
    assert_not_found("objects = [C()]\nobjects[0].x = 'a slot, and no dict yet'");
    assert_not_found("objects = [A('_name')]\nobjects[0].__dict__ = {}");
    assert_found("objects = [A('_name')]");
    assert_true(read_name((PyObject *)8) == 0);
    assert_true(read_name(NULL) == 0);
    assert_true(read_name((PyObject *)(UINTPTR_MAX - 64)) == 0);
}

static void test_numbers(void **state) {
    static const struct {
        const char *text;
        bool is_read;
        uint64_t value;
    } numbers[] = {{"0", true, 0},
                   {"7", true, 7},
                   {"2**30 + 5", true, (1u << 30) + 5u},
                   {"-1", false, 0},
                   {"-(2**30) - 5", false, 0},
                   {"2**59", true, UINT64_C(1) << 59},
                   {"2**60", false, 0},
                   {"-(2**70)", false, 0},
                   {"'7'", false, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char code[64];
        uint64_t value = 0;
        snprintf(code, sizeof code, "number = %s", numbers[i].text);
        unit_run(code);
        PyObject *number = unit_main("number");
        assert_int_equal(pyprof__read_int((uintptr_t)number, &value), numbers[i].is_read);
        assert_true(!numbers[i].is_read || value == numbers[i].value);
        Py_DecRef(number);
    }
    uint64_t value;
    assert_false(pyprof__read_int(0, &value));
    assert_false(pyprof__read_int(8, &value));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings_of_every_kind),      cmocka_unit_test(test_strings_as_python_encodes_them),
        cmocka_unit_test(test_strings_that_are_derived),   cmocka_unit_test(test_long_strings_are_cut),
        cmocka_unit_test(test_other_objects_are_no_text),  cmocka_unit_test(test_strings_that_are_gone),
        cmocka_unit_test(test_characters_that_are_none),   cmocka_unit_test(test_attributes_are_found),
        cmocka_unit_test(test_names_of_threads_are_found), cmocka_unit_test(test_names_that_are_not_interned_are_found),
        cmocka_unit_test(test_what_has_no_such_attribute), cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, start, unit_stop_python);
}
