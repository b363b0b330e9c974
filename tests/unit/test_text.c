/* Texts: str objects of every kind come out as UTF-8, and whatever they hold comes out of the writers as a valid file. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "unit.h"

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

/* Against Python's own encoder, for characters from everywhere. */
static void test_strings_as_python_encodes_them(void **state) {
    (void)state;
    unit_run("import random\nr = random.Random(1)\n"
             "tops = [0x7f, 0xff, 0x7ff, 0xffff, 0x10ffff]\n"
             "texts = [''.join(chr(r.randrange(tops[i % 5] + 1)) for _ in range(r.randrange(200)))\n"
             "         for i in range(5000)]\n"
             "pairs = [(t, t.encode('utf-8', 'surrogatepass')) for t in texts]\n");
    PyObject *pairs = unit_main("pairs");
    for (Py_ssize_t i = 0; i < PyList_Size(pairs); i++) {
        PyObject *pair = PyList_GetItem(pairs, i), *bytes = PyTuple_GetItem(pair, 1);
        assert_true(pyprof__read_text((uintptr_t)PyTuple_GetItem(pair, 0), &text));
        assert_int_equal(text.size, PyBytes_Size(bytes));
        assert_memory_equal(text.utf8, PyBytes_AsString(bytes), text.size);
    }
    Py_DECREF(pairs);
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

/* The writers. */

typedef void (*put_function)(pyprof__out *out, const char *text, size_t size);

static text_sink put(put_function function, const char *bytes, size_t size) {
    static pyprof__out out;
    text_sink sink = {0};
    memset(&out, 0, sizeof out);
    out.write = text_sink_write;
    out.user = &sink;
    text_sink_write(&sink, "", 0);
    function(&out, bytes, size);
    pyprof__flush(&out);
    assert_false(out.is_broken);
    return sink;
}

static void assert_puts(put_function function, const char *bytes, size_t size, const char *expected) {
    char *exact = (char *)malloc(size > 0 ? size : 1); /* of its very size, so that the sanitizer sees its end */
    memcpy(exact, bytes, size);
    text_sink sink = put(function, exact, size);
    assert_string_equal(sink.text, expected);
    text_sink_free(&sink);
    free(exact);
}

static void test_collapsed_escapes(void **state) {
    (void)state;
    assert_puts(pyprof__put_collapsed, "", 0, "");
    assert_puts(pyprof__put_collapsed, "a b<c>\"'(x.py:3)", 16, "a b<c>\"'(x.py:3)");
    assert_puts(pyprof__put_collapsed, "a;b\\c", 5, "a\\x3bb\\\\c");
    assert_puts(pyprof__put_collapsed, "\n\r\t\0\x01\x1f\x7f", 7, "\\n\\r\\t\\x00\\x01\\x1f\\x7f");
    assert_puts(pyprof__put_collapsed, "\xc2\x80\xc2\x85\xc2\x9f\xc2\xa0\xc3\xa9", 10,
                "\\x80\\x85\\x9f\xc2\xa0\xc3\xa9");
    assert_puts(pyprof__put_collapsed, "\xe2\x80\xa8\xe2\x80\xa9\xe2\x82\xac", 9, "\\u2028\\u2029\xe2\x82\xac");
    assert_puts(pyprof__put_collapsed, "\xed\xa0\x80\xed\xbf\xbf\xed\x9f\xbf\xee\x80\x80", 12,
                "\\ud800\\udfff\xed\x9f\xbf\xee\x80\x80");
    assert_puts(pyprof__put_collapsed, "\xf0\x9f\x98\x80", 4, "\xf0\x9f\x98\x80");
}

static void test_json_escapes(void **state) {
    (void)state;
    assert_puts(pyprof__put_json, "", 0, "\"\"");
    assert_puts(pyprof__put_json, "a;b/c'd", 7, "\"a;b/c'd\"");
    assert_puts(pyprof__put_json, "\"\\", 2, "\"\\\"\\\\\"");
    assert_puts(pyprof__put_json, "\n\0\x1f\x7f", 4, "\"\\u000a\\u0000\\u001f\x7f\"");
    assert_puts(pyprof__put_json, "\xed\xa0\x80\xed\xbf\xbf", 6, "\"\\ud800\\udfff\"");
    assert_puts(pyprof__put_json, "\xe2\x80\xa8\xf0\x9f\x98\x80", 7, "\"\xe2\x80\xa8\xf0\x9f\x98\x80\"");
}

/* Bytes that are no UTF-8 at all, as a thread's name from outside of Python may be: the output must be strict UTF-8,
   hold no unescaped separator, and read back as something (JSON by Python's own reader). */
static void assert_valid_output(const char *bytes, size_t size) {
    char *exact = (char *)malloc(size > 0 ? size : 1);
    memcpy(exact, bytes, size);
    text_sink line = put(pyprof__put_collapsed, exact, size);
    text_sink json = put(pyprof__put_json, exact, size);
    PyObject *decoded = PyUnicode_DecodeUTF8(line.text, (Py_ssize_t)line.size, "strict");
    bool is_line = decoded != NULL && strpbrk(line.text, ";\n\r") == NULL;
    Py_XDECREF(decoded);
    PyErr_Clear();
    PyObject *loads = PyObject_GetAttrString(PyImport_ImportModule("json"), "loads");
    PyObject *document = PyUnicode_DecodeUTF8(json.text, (Py_ssize_t)json.size, "strict");
    PyObject *value = document == NULL ? NULL : PyObject_CallFunctionObjArgs(loads, document, NULL);
    bool is_json = value != NULL && PyUnicode_Check(value);
    PyErr_Clear();
    if (!is_line || !is_json) {
        print_error("of %zu bytes beginning with %02x %02x: collapsed <%s>, JSON <%s>\n", size,
                    size > 0 ? (unsigned char)bytes[0] : 0u, size > 1 ? (unsigned char)bytes[1] : 0u, line.text,
                    json.text);
    }
    assert_true(is_line);
    assert_true(is_json);
    Py_XDECREF(value);
    Py_XDECREF(document);
    Py_DECREF(loads);
    text_sink_free(&line);
    text_sink_free(&json);
    free(exact);
}

static void test_invalid_utf8_gives_valid_files(void **state) {
    static const char *const bytes[] = {
        "\xc3",
        "na\xc3",
        "\xc3\"x",
        "\xc3;x",
        "\xc3\\",
        "\xe2\x80",
        "\xe2\";",
        "\xe2;\"",
        "\xf0\x9f",
        "\xf0;\";x",
        "\xff\xfe",
        "\x80",
        "\xa9",
        "\xc0\xaf",
        "\xc1\xbb",
        "\xe0\x80\xbb",
        "\xf8\x88\x80\x80\x80",
        "\xf4\x90\x80\x80",
        "\xf7\xbf\xbf\xbf",
        "\xc3\n",
        "\xed\xa0",
    };
    uint64_t random = 9;
    (void)state;
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        assert_valid_output(bytes[i], strlen(bytes[i]));
    }
    for (int i = 0; i < 20000; i++) {
        static const char alphabet[] = "\xc3\xe2\xf0\x80\xa9\xbf;\"\\\n\xed\xa0x";
        char name[16];
        size_t size = unit_random(&random) % sizeof name;
        for (size_t j = 0; j < size; j++) {
            uint64_t number = unit_random(&random);
            name[j] = i % 2 == 0 ? (char)number : alphabet[number % (sizeof alphabet - 1)];
        }
        assert_valid_output(name, size);
    }
}

static void test_output_is_whole_whatever_its_size(void **state) {
    static pyprof__out out;
    (void)state;
    for (size_t size = sizeof out.buffer - 3; size <= 3 * sizeof out.buffer; size += size / 3) {
        char *bytes = (char *)malloc(size);
        memset(bytes, 'x', size);
        bytes[size - 1] = ';';
        text_sink sink = put(pyprof__put_collapsed, bytes, size);
        assert_int_equal(sink.size, size + 3);
        assert_string_equal(sink.text + size - 1, "\\x3b");
        text_sink_free(&sink);
        free(bytes);
    }
}

static size_t short_offset(const char *path) {
    return pyprof__short_path_offset(path, strlen(path));
}

static void make_file(const char *folder, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
}

static void test_short_paths(void **state) {
    char root[64] = "/tmp/pyprof-unit-XXXXXX", folder[128], path[256];
    (void)state;
    assert_int_equal(short_offset(""), 0);
    assert_int_equal(short_offset("a.py"), 0);
    assert_int_equal(short_offset("<string>"), 0);
    assert_int_equal(short_offset("<frozen importlib._bootstrap>"), 0);
    assert_int_equal(short_offset("/a.py"), 1);
    assert_int_equal(short_offset("/no/such/folder/a.py"), 16);
    assert_int_equal(short_offset("/no/such/folder/"), 16);
    assert_non_null(mkdtemp(root));
    snprintf(folder, sizeof folder, "%s/pkg", root);
    assert_int_equal(mkdir(folder, 0700), 0);
    make_file(folder, "__init__.py");
    snprintf(path, sizeof path, "%s/a.py", folder);
    assert_string_equal(path + short_offset(path), "pkg/a.py");
    snprintf(folder, sizeof folder, "%s/pkg/inner", root);
    assert_int_equal(mkdir(folder, 0700), 0);
    snprintf(path, sizeof path, "%s/a.py", folder);
    assert_string_equal(path + short_offset(path), "a.py"); /* not a package, though it lies in one */
    make_file(folder, "__init__.py");
    assert_string_equal(path + short_offset(path), "pkg/inner/a.py");
    char removal[128];
    snprintf(removal, sizeof removal, "import shutil\nshutil.rmtree('%s')", root);
    unit_run(removal);
    /* A path longer than any the system takes is only cut to its last part. */
    char *longest = (char *)malloc(10001);
    memset(longest, 'x', 10000);
    memcpy(longest + 9995, "/a.py", 6);
    assert_int_equal(short_offset(longest), 9996);
    free(longest);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings_of_every_kind),
        cmocka_unit_test(test_strings_as_python_encodes_them),
        cmocka_unit_test(test_long_strings_are_cut),
        cmocka_unit_test(test_other_objects_are_no_text),
        cmocka_unit_test(test_strings_that_are_gone),
        cmocka_unit_test(test_characters_that_are_none),
        cmocka_unit_test(test_collapsed_escapes),
        cmocka_unit_test(test_json_escapes),
        cmocka_unit_test(test_invalid_utf8_gives_valid_files),
        cmocka_unit_test(test_output_is_whole_whatever_its_size),
        cmocka_unit_test(test_short_paths),
    };
    return cmocka_run_group_tests(tests, unit_start_python, unit_stop_python);
}
