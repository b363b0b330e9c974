/* >>objects: lines of instructions, against Python's own, for all code of the standard library, and with bytes that
   mean nothing. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

static pyprof__layout row;
static uint64_t code_objects, instructions, without_line;

static int start(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, (size_t)1 << 20);
    return pyprof__layout_init(&row, &memory) == PYPROF_OK ? unit_start_python(state) : -1;
}

static int32_t size_of_code(PyObject *code) {
    PyObject *bytes = PyObject_GetAttrString(code, "co_code");
    assert_non_null(bytes);
    int32_t size = (int32_t)PyBytes_Size(bytes);
    Py_DECREF(bytes);
    return size;
}

/* Where Python has a line, ours is that; where it has none, ours is the line before. */
static void compare_code(PyObject *code, const char *module) {
    pyprof__reader reader = {0, 0, 0, 0, NULL};
    pyprof__code_fields fields;
    uintptr_t data = 0;
    size_t size = 0;
    assert_true(pyprof__read_code(&row, &reader, (uintptr_t)code, &fields));
    assert_true(pyprof__bytes_data(NULL, fields.lines, &data, &size));
    int32_t last = fields.first_line, end = size_of_code(code);
    for (int32_t instr = 0; instr < end; instr += 2) {
        int theirs = PyCode_Addr2Line((PyCodeObject *)(void *)code, instr);
        int32_t ours = pyprof__line_at((const unsigned char *)data, size, fields.first_line, instr);
        int32_t expected = theirs >= 0 ? theirs : last;
        if (ours != expected) {
            print_error("%s: instruction at %d of the code from line %d: %d, not %d\n", module, (int)instr,
                        (int)fields.first_line, (int)ours, (int)expected);
            fail();
        }
        last = ours;
        without_line += theirs < 0;
        instructions++;
    }
    code_objects++;
}

static void compare_all(PyObject *code, const char *module) {
    compare_code(code, module);
    PyObject *constants = PyObject_GetAttrString(code, "co_consts");
    assert_non_null(constants);
    for (Py_ssize_t i = 0; i < PyTuple_Size(constants); i++) {
        PyObject *constant = PyTuple_GetItem(constants, i);
        if (PyCode_Check(constant)) {
            compare_all(constant, module);
        }
    }
    Py_DECREF(constants);
}

static void compare_source(const char *name, const char *source) {
    PyObject *code = Py_CompileString(source, name, Py_file_input);
    if (code == NULL) {
        PyErr_Print();
    }
    assert_non_null(code);
    compare_all(code, name);
    Py_DECREF(code);
}

/* Debian's has a link that leads nowhere. */
static void test_lines_of_the_standard_library(void **state) {
    (void)state;
    code_objects = instructions = without_line = 0;
    unit_run("import os, warnings\n"
             "warnings.simplefilter('ignore')\n"
             "def library():\n"
             "    root = os.path.dirname(os.__file__)\n"
             "    for folder, folders, files in os.walk(root):\n"
             "        folders[:] = sorted(set(folders) - {'test', 'tests', 'site-packages', 'dist-packages',\n"
             "                                            'idlelib', 'lib2to3', '__pycache__'})\n"
             "        for name in sorted(files):\n"
             "            path = os.path.join(folder, name)\n"
             "            if name.endswith('.py') and os.path.exists(path):\n"
             "                with open(path, 'rb') as file: source = file.read()\n"
             "                try: yield os.path.relpath(path, root), compile(source, path, 'exec')\n"
             "                except (SyntaxError, ValueError): pass\n"
             "codes = library()\n");
    PyObject *codes = unit_main("codes");
    for (PyObject *pair; (pair = PyIter_Next(codes)) != NULL; Py_DECREF(pair)) {
        compare_all(PyTuple_GetItem(pair, 1), PyUnicode_AsUTF8(PyTuple_GetItem(pair, 0)));
    }
    assert_null(PyErr_Occurred());
    Py_DECREF(codes);
    print_message("%llu code objects, %llu instructions, %llu of them without a line\n",
                  (unsigned long long)code_objects, (unsigned long long)instructions, (unsigned long long)without_line);
    assert_in_range(code_objects, 10000, 10000000);
    assert_in_range(instructions, 500000, 1000000000);
}

/* Steps that one entry of a table cannot hold, in both directions. */
static void test_lines_far_apart(void **state) {
    enum {
        gap = 40000
    };
    char *source = (char *)malloc(gap + 400000);
    (void)state;
    static const int gaps[] = {1, 2, 126, 127, 128, 129, 254, 255, 256, 257, 1000, 32767, gap};
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++) {
        size_t at = (size_t)sprintf(source, "def f(a, b):\n  x = a\n");
        memset(source + at, '\n', (size_t)gaps[i]);
        at += (size_t)gaps[i];
        at += (size_t)sprintf(source + at, "  x = a\n  while x: x = (a,\n");
        memset(source + at, '\n', (size_t)gaps[i]);
        at += (size_t)gaps[i];
        at += (size_t)sprintf(source + at, "   b)\n  for y in (x, 1): pass\n  return (x +\n");
        memset(source + at, '\n', (size_t)gaps[i]);
        at += (size_t)gaps[i];
        sprintf(source + at, "   f(b,\na))\nclass C:\n  with f(1, 2) as g: y = 1\n  try: pass\n  finally: z = 2\n");
        compare_source("far.py", source);
    }
    /* Much code in one line. */
    size_t at = (size_t)sprintf(source, "x = 0\ny = [");
    for (int i = 0; i < 600; i++) {
        at += (size_t)sprintf(source + at, "x+%d,", i);
    }
    sprintf(source + at, "]\nz = (y,\n  x)\n");
    compare_source("long.py", source);
    free(source);
}

static void test_no_table_is_the_first_line(void **state) {
    (void)state;
    assert_int_equal(pyprof__line_at((const unsigned char *)"", 0, 17, 0), 17);
    assert_int_equal(pyprof__line_at((const unsigned char *)"", 0, 17, 1000), 17);
}

/* Any bytes: it ends, and reads only them (the sanitizer watches: each table has a block of its own). */
static void test_any_bytes_are_survived(void **state) {
    uint64_t random = 77;
    uint32_t lines = 0;
    (void)state;
    for (int round = 0; round < 200000; round++) {
        size_t size = unit_random(&random) % (round % 100 == 0 ? 3000 : 24);
        unsigned char *table = (unsigned char *)malloc(size > 0 ? size : 1);
        unsigned style = unit_random(&random) % 4;
        for (size_t i = 0; i < size; i++) {
            unsigned char byte = (unsigned char)(unit_random(&random) >> 24);
            table[i] = style == 0   ? byte
                       : style == 1 ? byte | 0x80 /* heads only */
                       : style == 2 ? byte | 0x40 /* numbers that go on and on */
                                    : (unsigned char)(byte & 1 ? 0xf0 | (byte & 7) : byte & 0x7f);
        }
        unsigned char *exact = (unsigned char *)realloc(table, size > 0 ? size : 1);
        int32_t first = (int32_t)(unit_random(&random) % 100000);
        first = round % 16 == 0 ? INT32_MAX : round % 16 == 1 ? INT32_MIN : first; /* code.replace() allows it */
        for (int i = 0; i < 8; i++) {
            int32_t instr = (int32_t)(unit_random(&random) % (i < 6 ? 4 * size + 2 : INT32_MAX)) - 2;
            lines += pyprof__line_at(exact, size, first, instr) != first;
        }
        lines += pyprof__line_at(exact, size, first, INT32_MAX) != first;
        free(exact);
    }
    assert_in_range(lines, 100000, 1800000); /* the tables meant something, too */
}

/* The table of real code, cut short and with bytes changed. */
static void test_damaged_tables_are_survived(void **state) {
    pyprof__reader reader = {0, 0, 0, 0, NULL};
    pyprof__code_fields fields;
    uintptr_t data = 0;
    size_t size = 0;
    uint64_t random = 5;
    (void)state;
    unit_run("import argparse\ncode = argparse.ArgumentParser._parse_known_args.__code__");
    PyObject *code = unit_main("code");
    assert_true(pyprof__read_code(&row, &reader, (uintptr_t)code, &fields));
    assert_true(pyprof__bytes_data(NULL, fields.lines, &data, &size));
    assert_true(size > 20);
    int32_t end = size_of_code(code);
    for (size_t cut = 0; cut <= size; cut++) {
        unsigned char *table = (unsigned char *)malloc(cut > 0 ? cut : 1);
        memcpy(table, (const void *)data, cut);
        for (int round = 0; round < 8; round++) {
            for (int32_t instr = 0; instr < end; instr += 26) {
                pyprof__line_at(table, cut, fields.first_line, instr);
            }
            if (cut > 0) {
                table[unit_random(&random) % cut] = (unsigned char)(unit_random(&random) >> 32);
            }
        }
        free(table);
    }
    Py_DECREF(code);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_of_the_standard_library), cmocka_unit_test(test_lines_far_apart),
        cmocka_unit_test(test_no_table_is_the_first_line),    cmocka_unit_test(test_any_bytes_are_survived),
        cmocka_unit_test(test_damaged_tables_are_survived),
    };
    return cmocka_run_group_tests(tests, start, unit_stop_python);
}
