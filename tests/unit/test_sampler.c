/* >>sampler: when it looks, which moments it has missed, and when it saves. */
#include "clock.h"

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <unistd.h>

#include "unit.h"
#include "workbench.h"

/* Each interval has one moment; those that a sampler comes too late for are counted, however many. */
static void test_each_interval_has_a_moment(void **state) {
    const uint64_t intervals = 10000;
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    bench.sampler->desc.interval_us = 1000;
    uint64_t stratum = 0, now = bench.sampler->start, given = 0;
    while (stratum < intervals) {
        uint64_t begin = bench.sampler->start + stratum * MS;
        uint64_t deadline = pyprof__next_deadline(bench.sampler, &stratum, now);
        assert_in_range(deadline, begin, begin + MS - 1);
        now = deadline;
        given++;
    }
    assert_int_equal(given, intervals);
    assert_int_equal(bench.sampler->stats.ticks_missed, 0);
    for (uint64_t stall = 1; stall <= 100000; stall *= 10) {
        now += stall * MS;
        uint64_t missed = bench.sampler->stats.ticks_missed;
        uint64_t deadline = pyprof__next_deadline(bench.sampler, &stratum, now);
        given++;
        assert_in_range(deadline, now + 1, now + 2 * MS);
        assert_in_range(bench.sampler->stats.ticks_missed - missed, stall - 1, stall + 1);
        assert_int_equal(given + bench.sampler->stats.ticks_missed, stratum);
        now = deadline;
    }
    bench_close(&bench);
}

/* So many seconds after the last time was over, and not before. */
static void test_saves_when_it_is_time(void **state) {
    char path[] = "/tmp/pyprof-unit-XXXXXX";
    workbench bench;
    (void)state;
    assert_true(close(mkstemp(path)) == 0 && unlink(path) == 0);
    unit_set_clock(CLOCK_MONOTONIC, 1000 * MS);
    unit_set_clock(CLOCK_REALTIME, UINT64_C(1700000000123456789));
    bench_open(&bench, 0);
    assert_int_equal(bench.profile->epoch_ns, UINT64_C(1700000000123456789));
    bench.sampler->output_path = path;
    bench.sampler->autosave_at = 11000 * MS;
    pyprof__autosave(bench.sampler, 12000 * MS); /* nobody wants it */
    assert_int_equal(access(path, F_OK), -1);
    bench.sampler->desc.autosave_s = 10;
    pyprof__autosave(bench.sampler, 11000 * MS - 1);
    assert_int_equal(access(path, F_OK), -1);
    unit_set_clock(CLOCK_MONOTONIC, 11500 * MS); /* it takes half a second */
    pyprof__autosave(bench.sampler, 11000 * MS);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(bench.profile->duration_ns, 10000 * MS);
    assert_int_equal(bench.sampler->autosave_at, 21500 * MS);
    bench.sampler->output_path = NULL;
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_interval_has_a_moment),
        cmocka_unit_test_teardown(test_saves_when_it_is_time, unit_release_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
