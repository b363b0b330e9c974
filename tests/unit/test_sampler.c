/* >>sampler: when it looks, which moments it has missed, what leads its sleep, and when it saves. */
#include "clock.h"

#include <stdarg.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

/* To set a timer that is due within a second takes so long, by a clock that the test has set; ns. */
static uint64_t time_to_set_soon;
static int timers_refused;

static void pass_time(const struct itimerspec *when) {
    const unit_clock *clock = unit_clock_of(CLOCK_MONOTONIC);
    uint64_t moment = (uint64_t)when->it_value.tv_sec * 1000000000u + (uint64_t)when->it_value.tv_nsec;
    if (clock != NULL && moment != 0 && moment < clock->ns + 1000000000u) {
        unit_advance_clock(CLOCK_MONOTONIC, time_to_set_soon);
    }
}

/* The implementation's system calls, of six arguments at most. */
static long timed_syscall(long number, ...) {
    va_list list;
    long a[6];
    va_start(list, number);
    for (size_t i = 0; i < sizeof a / sizeof *a; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    if (number == SYS_timer_settime) {
        pass_time((const struct itimerspec *)a[2]);
    }
    if (number == SYS_timer_create && timers_refused > 0 && --timers_refused == 0) {
        return -1;
    }
    return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#define syscall(...) timed_syscall(__VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L) /* it reads six arguments */

#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#undef syscall

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

/* The sampler knows the deadline after the next. However late it comes, each interval's is given or missed, and none twice. */
static void test_one_deadline_ahead(void **state) {
    const uint64_t stalls[] = {0, MS / 2, MS, 2 * MS, 3 * MS + MS / 2, 1000 * MS};
    workbench bench;
    (void)state;
    bench_open(&bench, 0);
    bench.sampler->desc.interval_us = 1000;
    pyprof__plan plan = {0, 0, 0};
    plan.next = pyprof__next_deadline(bench.sampler, &plan.stratum, bench.sampler->start);
    plan.then = pyprof__next_deadline(bench.sampler, &plan.stratum, plan.next);
    for (uint64_t given = 1; given <= 6000; given++) {
        assert_int_equal(given + 1 + bench.sampler->stats.ticks_missed, plan.stratum);
        assert_true(plan.next > bench.sampler->start && plan.then > plan.next);
        assert_true((plan.then - bench.sampler->start) / MS > (plan.next - bench.sampler->start) / MS);
        uint64_t planned = plan.then, now = plan.next + stalls[given % (sizeof stalls / sizeof *stalls)];
        uint64_t missed = bench.sampler->stats.ticks_missed;
        bool is_new = pyprof__advance(bench.sampler, &plan, now);
        assert_in_range(plan.next, now + 1, now + 2 * MS);
        assert_true((plan.next == planned) == (planned > now));
        assert_int_equal(is_new, planned <= now);
        assert_true((bench.sampler->stats.ticks_missed > missed) == (planned <= now));
    }
    bench_close(&bench);
}

static volatile sig_atomic_t rings;

static void count_rings(int number) {
    rings += number == PYPROF__LEAD_SIGNAL;
}

static uint64_t left_of(int timer) {
    struct itimerspec left;
    assert_int_equal(syscall(SYS_timer_gettime, timer, &left), 0);
    return (uint64_t)left.it_value.tv_sec * 1000 * MS + (uint64_t)left.it_value.tv_nsec;
}

static void *lead_a_sleep(void *unused) {
    const uint64_t second = 1000 * MS;
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    assert_non_null(sampler);
    pyprof__leads *leads = &sampler->leads;
    struct itimerspec left;
    sigset_t all, pending;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (; leads->count < 2; leads->count++) {
        assert_true(pyprof__make_timer(&leads->timers[leads->count]));
    }
    uint64_t now = pyprof__now();
    for (uint64_t at = 10; at <= 30; at += 10) {
        const pyprof__plan plan = {now + at * second, now + (at + 10) * second, 0};
        pyprof__lead(sampler, &plan, at == 10);
        assert_in_range(left_of(leads->timers[leads->turn ^ 1]), (at - 5) * second, at * second); /* both stand */
        assert_in_range(left_of(leads->timers[leads->turn]), (at + 5) * second, (at + 10) * second);
    }
    sigpending(&pending);
    assert_int_equal(sigismember(&pending, PYPROF__LEAD_SIGNAL), 0);
    for (int round = 0; round < 3; round++) { /* also while the signal is pending already */
        pyprof__leads_set(leads, pyprof__now() + MS);
        pyprof__sleep_ns(20 * MS);
        assert_int_equal(left_of(leads->timers[leads->turn]), 0);
        sigpending(&pending);
        assert_int_equal(sigismember(&pending, PYPROF__LEAD_SIGNAL), 1);
    }
    const int timers[2] = {leads->timers[0], leads->timers[1]};
    pyprof__leads_stop(leads);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(syscall(SYS_timer_gettime, timers[i], &left), -1);
    }
    pyprof__leads_set(leads, pyprof__now() + MS); /* nothing is set any more */
    free(sampler);
    return unused;
}

/* They stand at two deadlines at a time, and ring for nobody but the thread that has made them. */
static void test_timers_lead_the_sleep(void **state) {
    struct sigaction action, before;
    sigset_t pending;
    pthread_t thread;
    (void)state;
    memset(&action, 0, sizeof action);
    action.sa_handler = count_rings;
    assert_int_equal(sigaction(PYPROF__LEAD_SIGNAL, &action, &before), 0);
    assert_int_equal(pthread_create(&thread, NULL, lead_a_sleep, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    sigpending(&pending);
    assert_int_equal(sigismember(&pending, PYPROF__LEAD_SIGNAL), 0);
    assert_int_equal(rings, 0);
    sigaction(PYPROF__LEAD_SIGNAL, &before, NULL);
}

/* Where a timer that is the next thing due takes longer to set by clearly more than the ones that lead cost; and where both
   are to be had. */
static void test_timers_only_where_they_help(void **state) {
    pyprof__leads leads = {0, 0, {-1, -1}};
    (void)state;
    unit_set_clock(CLOCK_MONOTONIC, 1000 * MS);
    time_to_set_soon = 0;
    pyprof__leads_start(&leads);
    assert_int_equal(leads.count, 0);
    time_to_set_soon = PYPROF__LEAD_GAIN_NS;
    pyprof__leads_start(&leads);
    assert_int_equal(leads.count, 0);
    time_to_set_soon = PYPROF__LEAD_GAIN_NS + 1;
    pyprof__leads_start(&leads);
    assert_int_equal(leads.count, 2);
    pyprof__leads_stop(&leads);
    for (int refused = 1; refused <= 2; refused++) {
        timers_refused = refused;
        pyprof__leads_start(&leads);
        assert_int_equal(timers_refused, 0);
        assert_int_equal(leads.count, 0);
    }
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
        cmocka_unit_test(test_one_deadline_ahead),
        cmocka_unit_test(test_timers_lead_the_sleep),
        cmocka_unit_test_teardown(test_timers_only_where_they_help, unit_release_clocks),
        cmocka_unit_test_teardown(test_saves_when_it_is_time, unit_release_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
