/* >>bytes, >>shown: whatever texts hold comes out of the writers as a valid file; and paths as far as they are shown. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <sys/stat.h>

#include "unit.h"

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

static void put_json_string(pyprof__out *out, const char *text, size_t size) {
    pyprof__put_text(out, "\"");
    pyprof__put_json(out, text, size);
    pyprof__put_text(out, "\"");
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
    assert_puts(put_json_string, "", 0, "\"\"");
    assert_puts(put_json_string, "a;b/c'd", 7, "\"a;b/c'd\"");
    assert_puts(put_json_string, "\"\\", 2, "\"\\\"\\\\\"");
    assert_puts(put_json_string, "\n\0\x1f\x7f", 4, "\"\\u000a\\u0000\\u001f\x7f\"");
    assert_puts(put_json_string, "\xed\xa0\x80\xed\xbf\xbf", 6, "\"\\ud800\\udfff\"");
    assert_puts(put_json_string, "\xe2\x80\xa8\xf0\x9f\x98\x80", 7, "\"\xe2\x80\xa8\xf0\x9f\x98\x80\"");
}

/* Bytes that are no UTF-8 at all, as a thread's name from outside of Python may be: the output must be strict UTF-8,
   hold no unescaped separator, and read back as something (JSON by Python's own reader). */
static void assert_valid_output(const char *bytes, size_t size) {
    char *exact = (char *)malloc(size > 0 ? size : 1);
    memcpy(exact, bytes, size);
    text_sink line = put(pyprof__put_collapsed, exact, size);
    text_sink json = put(put_json_string, exact, size);
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
        cmocka_unit_test(test_collapsed_escapes),
        cmocka_unit_test(test_json_escapes),
        cmocka_unit_test(test_invalid_utf8_gives_valid_files),
        cmocka_unit_test(test_output_is_whole_whatever_its_size),
        cmocka_unit_test(test_short_paths),
    };
    return cmocka_run_group_tests(tests, unit_start_python, unit_stop_python);
}
