/* >>base, >>containers: arrays and tables: growth up to the memory limit, refusals that change nothing, nothing left
   behind. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"

static uint64_t value_of(uint32_t index) {
    return (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void array_init(pyprof__array *array, size_t item_size) {
    memset(array, 0, sizeof *array);
    array->item_size = item_size;
}

static void assert_all_free(const pyprof__memory *memory, const counted_memory *counts) {
    assert_int_equal(memory->used, 0);
    assert_int_equal(counts->blocks, 0);
    assert_int_equal(counts->bytes, 0);
}

static void test_alloc_keeps_the_limit(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, 100);
    (void)state;
    void *first = pyprof__alloc(&memory, 60);
    assert_non_null(first);
    assert_null(pyprof__alloc(&memory, 41));
    assert_null(pyprof__alloc(&memory, SIZE_MAX));
    void *second = pyprof__alloc(&memory, 40);
    assert_non_null(second);
    assert_int_equal(memory.used, 100);
    pyprof__release(&memory, first, 60);
    pyprof__release(&memory, NULL, 12345); /* counts for nothing */
    assert_int_equal(memory.used, 40);
    assert_int_equal(memory.peak, 100);
    pyprof__release(&memory, second, 40);
    assert_all_free(&memory, &counts);
}

static void test_array_doubles_then_grows_by_a_quarter(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, 1200);
    pyprof__array array;
    (void)state;
    array_init(&array, 8);
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(pyprof__array_add(&memory, &array), i);
        PYPROF__ITEM(uint64_t, &array, i) = value_of(i);
    }
    assert_int_equal(array.capacity, 64);
    /* 64 more do not fit beside the old 512 bytes, 16 more do. */
    assert_int_equal(pyprof__array_add(&memory, &array), 64);
    assert_int_equal(array.capacity, 80);
    for (uint32_t i = 65; i < 80; i++) {
        assert_int_equal(pyprof__array_add(&memory, &array), i);
    }
    assert_int_equal(pyprof__array_add(&memory, &array), PYPROF__NONE);
    assert_int_equal(array.count, 80);
    assert_int_equal(memory.used, 640);
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(PYPROF__ITEM(uint64_t, &array, i), value_of(i));
    }
    pyprof__array_free(&memory, &array);
    assert_all_free(&memory, &counts);
}

static void fill_array_up_to(size_t limit, size_t item_size) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, limit);
    pyprof__array array;
    uint32_t index;
    array_init(&array, item_size);
    while ((index = pyprof__array_add(&memory, &array)) != PYPROF__NONE) {
        unsigned char *item = (unsigned char *)array.data + index * item_size;
        for (size_t i = 0; i < item_size; i++) {
            assert_int_equal(item[i], 0);
        }
        uint64_t value = value_of(index);
        memcpy(item, &value, item_size < 8 ? item_size : 8);
        assert_int_equal(memory.used, array.capacity * item_size);
        assert_int_equal(memory.used, counts.bytes);
    }
    assert_true(memory.peak <= limit);
    /* The limit has to hold two of it while it grows; what it had before the last step is 4/5 of one. */
    assert_true(limit < 32 * item_size || array.count * item_size * 9 / 4 + 32 * item_size >= limit);
    for (uint32_t i = 0; i < array.count; i++) {
        uint64_t value = value_of(i);
        assert_memory_equal((char *)array.data + i * item_size, &value, item_size < 8 ? item_size : 8);
    }
    pyprof__array_free(&memory, &array);
    assert_all_free(&memory, &counts);
}

static void test_array_fills_any_limit(void **state) {
    static const size_t item_sizes[] = {1, 3, 8, 24, 80};
    (void)state;
    for (size_t i = 0; i < sizeof item_sizes / sizeof *item_sizes; i++) {
        for (size_t limit = 0; limit < 20000; limit += 61) {
            fill_array_up_to(limit, item_sizes[i]);
        }
    }
}

static void test_array_refuses_what_no_index_can_name(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, SIZE_MAX);
    pyprof__array array;
    (void)state;
    array_init(&array, 1);
    assert_false(pyprof__array_reserve(&memory, &array, (size_t)UINT32_MAX));
    assert_false(pyprof__array_reserve(&memory, &array, (size_t)UINT32_MAX * 4));
    assert_int_equal(counts.calls, 0);
    assert_null(array.data);
}

static void test_array_copies(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, 1 << 20);
    pyprof__array array, copy;
    (void)state;
    array_init(&array, 8);
    assert_true(pyprof__array_copy(&memory, &copy, &array));
    assert_int_equal(copy.count, 0);
    assert_null(copy.data);
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t index = pyprof__array_add(&memory, &array);
        PYPROF__ITEM(uint64_t, &array, index) = value_of(i);
    }
    assert_true(pyprof__array_copy(&memory, &copy, &array));
    assert_int_equal(copy.count, 1000);
    assert_int_equal(copy.capacity, 1000);
    assert_memory_equal(copy.data, array.data, 8000);
    assert_ptr_not_equal(copy.data, array.data);
    pyprof__array_free(&memory, &copy);
    size_t held = memory.used;
    memory.limit = held + 7999;
    assert_false(pyprof__array_copy(&memory, &copy, &array));
    assert_int_equal(memory.used, held);
    assert_int_equal(copy.capacity, 0);
    pyprof__array_free(&memory, &copy);
    pyprof__array_free(&memory, &array);
    assert_all_free(&memory, &counts);
}

/* An item of a table under test: 12 bytes of key, as a node has them, and a value. */
typedef struct item {
    uint32_t key[3];
    uint32_t value;
} item;

static void key_of(uint32_t i, uint32_t key[3]) {
    uint64_t value = value_of(i);
    key[0] = (uint32_t)value;
    key[1] = (uint32_t)(value >> 32);
    key[2] = i;
}

static uint32_t intern(pyprof__memory *memory, pyprof__table *table, uint32_t i, bool *is_new) {
    uint32_t key[3];
    key_of(i, key);
    return pyprof__table_intern(memory, table, key, is_new);
}

static void assert_table_holds(pyprof__memory *memory, pyprof__table *table, uint32_t count) {
    bool is_new = true;
    assert_int_equal(table->items.count, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(intern(memory, table, i, &is_new), i);
        assert_false(is_new);
        assert_int_equal(PYPROF__ITEM(item, &table->items, i).value, ~i);
    }
    assert_int_equal(table->items.count, count);
}

static void add_items(pyprof__memory *memory, pyprof__table *table, uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to; i++) {
        bool is_new = false;
        assert_int_equal(intern(memory, table, i, &is_new), i);
        assert_true(is_new);
        assert_int_equal(PYPROF__ITEM(item, &table->items, i).value, 0);
        PYPROF__ITEM(item, &table->items, i).value = ~i;
    }
}

static void test_table_finds_what_it_holds(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, (size_t)64 << 20);
    pyprof__table table;
    (void)state;
    pyprof__table_init(&table, sizeof(item), offsetof(item, value));
    add_items(&memory, &table, 0, 100000);
    assert_table_holds(&memory, &table, 100000);
    assert_int_equal(table.slot_count & (table.slot_count - 1), 0);
    assert_true(table.items.count <= table.slot_count - table.slot_count / 3);
    assert_int_equal(memory.used, counts.bytes);

    size_t calls = counts.calls;
    pyprof__table_clear(&table);
    add_items(&memory, &table, 0, 100000); /* in the memory that it kept */
    assert_table_holds(&memory, &table, 100000);
    assert_int_equal(counts.calls, calls);
    pyprof__table_free(&memory, &table);
    assert_all_free(&memory, &counts);
}

static void test_table_without_memory_clears(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, 0);
    pyprof__table table;
    bool is_new = true;
    (void)state;
    pyprof__table_init(&table, sizeof(item), offsetof(item, value));
    pyprof__table_clear(&table);
    assert_int_equal(intern(&memory, &table, 1, &is_new), PYPROF__NONE);
    assert_false(is_new);
    pyprof__table_free(&memory, &table);
    assert_all_free(&memory, &counts);
}

/* Keys that share a hash's low bits, or differ in one byte only, stay apart. */
static void test_table_tells_similar_keys_apart(void **state) {
    static const size_t key_sizes[] = {4, 8, 12, 20, 24};
    (void)state;
    for (size_t s = 0; s < sizeof key_sizes / sizeof *key_sizes; s++) {
        counted_memory counts;
        pyprof__memory memory = unit_limited(&counts, (size_t)1 << 22);
        pyprof__table table;
        pyprof__table_init(&table, 32, key_sizes[s]);
        unsigned char key[32] = {0};
        uint32_t expected = 0;
        bool is_new = false;
        assert_int_equal(pyprof__table_intern(&memory, &table, key, &is_new), expected++);
        for (size_t byte = 0; byte < key_sizes[s]; byte++) {
            for (unsigned value = 1; value < 256; value++) {
                key[byte] = (unsigned char)value;
                assert_int_equal(pyprof__table_intern(&memory, &table, key, &is_new), expected++);
                assert_true(is_new);
            }
            key[byte] = 0;
        }
        key[key_sizes[s]] = 77; /* behind the key */
        assert_int_equal(pyprof__table_intern(&memory, &table, key, &is_new), 0);
        assert_false(is_new);
        pyprof__table_free(&memory, &table);
        assert_all_free(&memory, &counts);
    }
}

static void test_table_refusal_changes_nothing(void **state) {
    (void)state;
    for (size_t limit = 512; limit < 200000; limit += 997) {
        counted_memory counts;
        pyprof__memory memory = unit_limited(&counts, limit);
        pyprof__table table;
        bool is_new = false;
        uint32_t count = 0;
        pyprof__table_init(&table, sizeof(item), offsetof(item, value));
        while (intern(&memory, &table, count, &is_new) != PYPROF__NONE) {
            assert_true(is_new);
            PYPROF__ITEM(item, &table.items, count).value = ~count;
            count++;
        }
        assert_false(is_new);
        assert_table_holds(&memory, &table, count);
        assert_int_equal(intern(&memory, &table, count, &is_new), PYPROF__NONE);
        assert_true(memory.peak <= limit);
        memory.limit = (size_t)64 << 20;
        add_items(&memory, &table, count, count + 1000);
        assert_table_holds(&memory, &table, count + 1000);
        pyprof__table_free(&memory, &table);
        assert_all_free(&memory, &counts);
    }
}

static void test_table_survives_each_refused_allocation(void **state) {
    (void)state;
    for (size_t refused = 1; refused <= 12; refused++) {
        counted_memory counts;
        pyprof__memory memory = unit_limited(&counts, (size_t)64 << 20);
        pyprof__table table;
        uint32_t refusals = 0;
        counts.refuse_call = refused;
        pyprof__table_init(&table, sizeof(item), offsetof(item, value));
        for (uint32_t i = 0; i < 1000; i++) {
            bool is_new;
            uint32_t index = intern(&memory, &table, i, &is_new);
            if (index == PYPROF__NONE) {
                refusals++;
                index = intern(&memory, &table, i, &is_new); /* asked again, it is had */
            }
            assert_int_equal(index, i);
            assert_true(is_new);
            PYPROF__ITEM(item, &table.items, i).value = ~i;
        }
        assert_true(refused == 1 ? refusals == 1 : refusals <= 1); /* an array tries a smaller step, too */
        assert_table_holds(&memory, &table, 1000);
        pyprof__table_free(&memory, &table);
        assert_all_free(&memory, &counts);
    }
}

/* Numbers are in a set, or out; those that nobody has put in are out, also where it has no words. */
static void test_bits_say_who_is_out(void **state) {
    counted_memory counts;
    pyprof__memory memory = unit_limited(&counts, 32 * sizeof(uint64_t));
    pyprof__array bits;
    (void)state;
    array_init(&bits, sizeof(uint64_t));
    assert_int_equal(pyprof__bits_first_out(&bits, 7), 7);
    assert_true(pyprof__bits_reserve(&memory, &bits, 129));
    assert_int_equal(bits.count, 3);
    for (uint32_t i = 0; i < 192; i++) {
        assert_int_equal(pyprof__bits_first_out(&bits, i), i);
        pyprof__bits_put(&bits, i, true);
        assert_int_equal(pyprof__bits_first_out(&bits, 0), i + 1);
        assert_int_equal(pyprof__bits_first_out(&bits, i + 1), i + 1);
    }
    assert_int_equal(pyprof__bits_first_out(&bits, 1000), 1000);
    for (uint32_t i = 192; i-- > 0;) {
        pyprof__bits_put(&bits, i, false);
        assert_int_equal(pyprof__bits_first_out(&bits, 0), i);
        assert_int_equal(pyprof__bits_first_out(&bits, i + 1), 192);
        pyprof__bits_put(&bits, i, true);
        pyprof__bits_put(&bits, i / 2, false);
        assert_int_equal(pyprof__bits_first_out(&bits, 0), i / 2);
        pyprof__bits_put(&bits, i / 2, true);
    }
    assert_false(pyprof__bits_reserve(&memory, &bits, 33 * 64));
    pyprof__array_free(&memory, &bits);
    assert_all_free(&memory, &counts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc_keeps_the_limit),
        cmocka_unit_test(test_array_doubles_then_grows_by_a_quarter),
        cmocka_unit_test(test_array_fills_any_limit),
        cmocka_unit_test(test_array_refuses_what_no_index_can_name),
        cmocka_unit_test(test_array_copies),
        cmocka_unit_test(test_bits_say_who_is_out),
        cmocka_unit_test(test_table_finds_what_it_holds),
        cmocka_unit_test(test_table_without_memory_clears),
        cmocka_unit_test(test_table_tells_similar_keys_apart),
        cmocka_unit_test(test_table_refusal_changes_nothing),
        cmocka_unit_test(test_table_survives_each_refused_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
