/* >>waiting: who waits for so long that all who do are looked at in one, and what shows that one of them ran. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include "unit.h"
#include "recording.h"

/* Who ran has to be calm for 512 times as long, and at most two seconds. */
static void test_who_ran_is_parked_later(void **state) {
    const uint64_t ms = 1000000;
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__thread thread = unit_thread();
    (void)state;
    assert_non_null(sampler);
    pyprof__note_calm(sampler, &thread, false, 1000 * ms, 500 * ms);
    assert_int_equal(thread.parking.restless, 0); /* what it used before it was seen first does not count */
    thread.last.is_there = true;
    thread.last.wall = 1000 * ms;
    thread.last.cpu = 500 * ms;
    for (uint32_t i = 1; i <= 4; i++) {
        assert_int_equal(sampler->waiting.candidates, 0);
        pyprof__note_calm(sampler, &thread, true, 1000 * ms + i, 500 * ms);
        assert_int_equal(thread.parking.calm, i);
    }
    assert_int_equal(sampler->waiting.candidates, 1);
    pyprof__note_calm(sampler, &thread, false, 1001 * ms, 500 * ms + ms / 2);
    assert_int_equal(thread.parking.calm, 0);
    assert_int_equal(thread.parking.restless, 256 * ms - ms);
    pyprof__note_calm(sampler, &thread, false, 1001 * ms, 900 * ms);
    assert_int_equal(thread.parking.restless, 2000 * ms - ms);
    thread.last.cpu = 900 * ms;
    pyprof__note_calm(sampler, &thread, true, 2000 * ms, 900 * ms);
    assert_int_equal(thread.parking.restless, 999 * ms);
    free(sampler);
}

/* What the head of a thread state shows; other words there may change. */
static void test_heads_of_those_who_wait(void **state) {
    pyprof__layout layout;
    uintptr_t then[8] = {1, 2, 3, 4, 5, 6, 7, 8}, now[8];
    (void)state;
    memset(&layout, 0, sizeof layout);
    layout.ts_prev = 0;
    layout.ts_next = 8;
    layout.ts_interp = 16;
    layout.ts_status = 32;
    layout.ts_frame = 56;
    layout.status_mask = UINT32_MAX;
    layout.status_attached = 1;
    assert_int_equal(pyprof__end_of_head(&layout), sizeof then);
    for (size_t i = 0; i < sizeof now / sizeof *now; i++) {
        for (uintptr_t value = 1; value < 3; value++) {
            memcpy(now, then, sizeof now);
            now[i] = now[i] == value ? 9 : value;
            assert_int_equal(pyprof__is_linked_as(&layout, then, now), i > 2);
            assert_int_equal(pyprof__may_stand_as(&layout, then, now), i != 7 && !(i == 4 && value == 1));
        }
    }
    layout.ts_status = PYPROF__ABSENT;
    memcpy(now, then, sizeof now);
    now[4] = 1;
    assert_true(pyprof__may_stand_as(&layout, then, now));
}

static pyprof__thread waiting_thread(void) {
    pyprof__thread thread = unit_thread();
    thread.is_alive = thread.last.is_there = true;
    thread.last.kind = PYPROF__IDLE;
    thread.parking.calm = 4;
    return thread;
}

static void test_who_may_be_parked(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pyprof__tstate *tstate = (pyprof__tstate *)calloc(1, sizeof *tstate);
    (void)state;
    assert_true(sampler != NULL && tstate != NULL);
    sampler->tstates.data = tstate;
    sampler->tstates.item_size = sizeof *tstate;
    tstate->sibling = PYPROF__NONE;
    for (int what_is_wrong = 0; what_is_wrong < 9; what_is_wrong++) {
        pyprof__thread thread = waiting_thread();
        thread.is_alive = what_is_wrong != 1;
        thread.last.is_there = what_is_wrong != 2;
        thread.parking.calm -= what_is_wrong == 3;
        thread.parking.restless = what_is_wrong == 4;
        thread.last.kind = what_is_wrong == 5 ? 0 : PYPROF__IDLE;
        thread.borrowed = what_is_wrong == 6;
        thread.asking.request = what_is_wrong == 7 ? 0 : PYPROF__NONE;
        tstate->doubts = what_is_wrong == 8;
        assert_int_equal(pyprof__may_park(sampler, &thread), what_is_wrong == 0);
    }
    tstate->doubts = 0;
    tstate->sibling = 0;
    pyprof__thread thread = waiting_thread();
    assert_false(pyprof__may_park(sampler, &thread));
    free(tstate);
    free(sampler);
}

/* Five ticks, a millisecond apart, had seen a thread wait that has, half a millisecond later, used so much: those in
   which it must have run are not idle. */
static void check_run(uint64_t used_us, uint64_t ran) {
    const uint64_t us = 1000, ms = 1000000;
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    pyprof__apply_defaults(&desc);
    pyprof__sampler *sampler = pyprof__sampler_new(&desc);
    assert_non_null(sampler);
    pyprof__waiting *waiting = &sampler->waiting;
    pyprof__thread thread = waiting_thread();
    thread.track = pyprof__add_track(sampler->profile, 1, sampler->profile->process_name);
    thread.last.node = pyprof__track_at(sampler->profile, thread.track)->root;
    thread.last.wall = 100 * ms;
    thread.last.cpu = 10 * ms;
    thread.name.due = UINT64_MAX;
    thread.name.generation = pyprof__process.thread_names.generation;
    waiting->ticks = thread.parking.ticks = 62; /* the ring begins anew meanwhile */
    for (uint64_t i = 1; i <= 5; i++) {
        waiting->wall = waiting->walls[++waiting->ticks % PYPROF__RECENT] = 100 * ms + i * ms;
    }
    sampler->stats.samples = sampler->stats.samples_idle = 5;
    pyprof__settle_run(sampler, &thread, 105 * ms + ms / 2, 10 * ms + used_us * us);
    const pyprof__node *node = pyprof__node_at(sampler->profile, thread.last.node);
    assert_int_equal(node->samples, 5);
    assert_int_equal(node->samples_idle, 5 - ran);
    assert_int_equal(node->wall_ns, 5 * ms);
    assert_int_equal(node->wall_idle_ns, 5 * ms - ran * ms + (ran > 0) * ms / 2); /* half of the gap between */
    assert_int_equal(sampler->stats.samples, 5);
    assert_int_equal(sampler->stats.samples_idle, 5 - ran);
    assert_int_equal(thread.last.wall, 105 * ms);
    assert_int_equal(waiting->ticks, 67);
    assert_int_equal(thread.parking.ticks, 67);
    pyprof__settle_time(sampler, &thread); /* twice is once */
    assert_int_equal(node->samples, 5);
    pyprof__recording_free(sampler);
}

static void test_who_ran_unseen_did_not_wait(void **state) {
    (void)state;
    check_run(0, 0);
    check_run(500, 0);
    check_run(501, 1);
    check_run(2500, 2);
    check_run(4600, 5);
}

static pyprof__atomic32 burnt, may_burn;

static void *burn_and_sleep(void *unused) {
    (void)unused;
    for (uint32_t round = 1; round <= 3; round++) {
        while (pyprof__get(&may_burn) < round) {
            pyprof__wait_until(&may_burn, round - 1, pyprof__now() + 1000000000u);
        }
        uint64_t end = pyprof__clock(CLOCK_THREAD_CPUTIME_ID) + 1000000;
        while (round < 3 && pyprof__clock(CLOCK_THREAD_CPUTIME_ID) < end) {
        }
        pyprof__set(&burnt, round);
    }
    return NULL;
}

/* The balance stays as it is while all wait, and has what a thread has used that does not stand in it. */
static void test_balance_shows_who_has_run(void **state) {
    pyprof__sampler *sampler = (pyprof__sampler *)calloc(1, sizeof *sampler);
    pthread_t thread;
    clockid_t clock;
    (void)state;
    assert_non_null(sampler);
    pthread_create(&thread, NULL, burn_and_sleep, NULL);
    pthread_getcpuclockid(thread, &clock);
    for (uint32_t round = 1; round <= 2; round++) {
        pyprof__sleep_ns(50000000); /* then it waits */
        uint64_t used = pyprof__clock(clock);
        int64_t before = pyprof__weigh(sampler);
        assert_in_range(pyprof__weigh(sampler) - before + 100000, 0, 200000);
        pyprof__wake(&may_burn); /* adds one */
        while (pyprof__get(&burnt) < round) {
            pyprof__sleep_ns(1000000);
        }
        pyprof__sleep_ns(50000000);
        int64_t more = pyprof__weigh(sampler) - before, truth = (int64_t)(pyprof__clock(clock) - used);
        assert_true(truth >= 1000000);
        assert_in_range(more - truth + 100000, 0, 200000);
        pyprof__leave_process_clock(sampler->waiting.timer);
        sampler->waiting.timer = -1; /* the second time without */
    }
    pyprof__wake(&may_burn);
    pthread_join(thread, NULL);
    free(sampler);
}

static const char *name_of(const pyprof__sampler *sampler, const pyprof__thread *thread) {
    size_t size;
    return pyprof__string_text(sampler->profile, pyprof__track_at(sampler->profile, thread->track)->name, &size);
}

/* Where the member stands that has this name. */
static uint32_t place_of(const pyprof__sampler *sampler, const char *name) {
    for (uint32_t i = 0; i < sampler->waiting.members.count; i++) {
        if (strcmp(name_of(sampler, pyprof__member_at(sampler, i)), name) == 0) {
            return i;
        }
    }
    fail_msg("no parked thread is called %s", name);
    return 0;
}

/* A recording in which so many threads are parked, with its lock: no tick comes. The main thread, which has the GIL, does what
   the sampler's would. */
static pyprof__sampler *lock_with_parked(uint32_t count) {
    pyprof__sampler *sampler = pyprof__process.active;
    for (;;) {
        pthread_mutex_lock(&sampler->lock);
        bool are_named = sampler->waiting.members.count >= count;
        for (uint32_t i = 0; i < sampler->waiting.members.count; i++) {
            are_named = are_named && pyprof__member_at(sampler, i)->name.place != 0;
        }
        if (are_named) {
            return sampler;
        }
        pthread_mutex_unlock(&sampler->lock);
        unit_run("spin(0.01)");
    }
}

/* One word tells that a name is the same; a name that is set is another object. What the word does not tell is found when
   it has been believed often enough. Who has run meanwhile is woken. */
static void check_names(pyprof__sampler *sampler) {
    uintptr_t word = 1;
    uint32_t place = place_of(sampler, "waiter a");
    pyprof__thread *thread = pyprof__member_at(sampler, place);
    thread->name.glances = 0;
    uint64_t due = thread->name.due;
    pyprof__renew_names(sampler, &place, 1, due);
    assert_int_equal(thread->name.glances, 1);
    assert_int_equal(thread->name.due, due + thread->name.wait);
    unit_run("waiters[0].name = 'renamed'");
    pyprof__renew_names(sampler, &place, 1, due);
    assert_string_equal(name_of(sampler, thread), "renamed");
    assert_int_equal(thread->name.glances, 0);
    assert_true(thread->name.due > thread->last.wall);
    thread->name.place = (uintptr_t)&word;
    thread->name.text = word;
    unit_run("waiters[0].name = 'waiter a'");
    for (uint32_t i = 0; i < PYPROF__NAME_GLANCES; i++) {
        pyprof__renew_names(sampler, &place, 1, due);
        assert_string_equal(name_of(sampler, thread), "renamed");
    }
    pyprof__renew_names(sampler, &place, 1, due);
    assert_string_equal(name_of(sampler, thread), "waiter a");
    thread->name.place = 8; /* cannot be read */
    unit_run("waiters[0].name = 'again'");
    pyprof__renew_names(sampler, &place, 1, due);
    assert_string_equal(name_of(sampler, thread), "again");
    uint32_t members = sampler->waiting.members.count, index = PYPROF__ITEM(uint32_t, &sampler->waiting.members, place);
    assert_true(pyprof__next_awake(sampler, index) > index);
    thread->last.cpu--;
    pyprof__renew_names(sampler, &place, 1, due);
    assert_int_equal(sampler->waiting.members.count, members - 1);
    assert_int_equal(pyprof__next_awake(sampler, index), index);
    assert_int_equal(pyprof__next_awake_tstate(sampler, thread->parking.tstate), thread->parking.tstate);
}

/* The lists are what they were: only who is awake is compared, and interpreters. */
static void check_lists(pyprof__sampler *sampler) {
    uint32_t awake = pyprof__next_awake_tstate(sampler, 0);
    assert_true(pyprof__reread_lists(sampler) && pyprof__lists_unchanged(sampler));
    assert_true(awake < sampler->tstates.count);
    pyprof__tstate *tstate = pyprof__tstate_at(sampler, awake);
    pyprof__interp *interp = &PYPROF__ITEM(pyprof__interp, &sampler->interps, 0);
    uint64_t id = tstate->id;
    tstate->id++;
    assert_false(pyprof__lists_unchanged(sampler));
    tstate->id = id;
    tstate->copy[sampler->layout.ts_next] ^= 16;
    assert_false(pyprof__lists_unchanged(sampler));
    tstate->copy[sampler->layout.ts_next] ^= 16;
    interp->links[1] ^= 16;
    assert_false(pyprof__lists_unchanged(sampler));
    interp->links[1] ^= 16;
    interp->id_now++;
    assert_false(pyprof__lists_unchanged(sampler));
    interp->id_now--;
    sampler->has_whole_lists = false;
    assert_false(pyprof__lists_unchanged(sampler));
    sampler->has_whole_lists = true;
    assert_true(pyprof__lists_unchanged(sampler));
}

/* Makes the time line so long that no more than this many spans have room. */
static void fill_timeline(pyprof__sampler *sampler, uint32_t left) {
    const pyprof__array *timeline = &sampler->profile->timeline;
    const pyprof__thread *thread = pyprof__member_at(sampler, 0);
    for (uint32_t kind = 0; timeline->capacity == timeline->count || timeline->capacity - timeline->count > left;
         kind ^= PYPROF__IDLE) {
        pyprof__add_time(sampler->profile, thread->track, thread->last.node, kind, 1, 0);
    }
}

/* Who is parked is brought up to date only if the time line may be made coarser at this tick, not whenever it is nearly as
   long as what was made for it. */
static void check_settling(pyprof__sampler *sampler) {
    pyprof_profile *profile = sampler->profile;
    const pyprof__thread *thread = pyprof__member_at(sampler, 0);
    pyprof__settle_waiting(sampler);
    fill_timeline(sampler, 8);
    uint64_t ticks = thread->parking.ticks;
    pyprof__count_waiting(sampler, pyprof__now());
    assert_int_equal(thread->parking.ticks, ticks);
    assert_int_equal(sampler->waiting.ticks, ticks + 1);
    while (pyprof__timeline_has_room(profile, 1024)) {
        fill_timeline(sampler, 8);
    }
    fill_timeline(sampler, 8);
    uint64_t coarsened = profile->timeline_coarsened;
    pyprof__count_waiting(sampler, pyprof__now());
    assert_int_equal(thread->parking.ticks, ticks + 2);
    assert_int_equal(profile->timeline_coarsened, coarsened);
}

static void test_who_is_parked_is_passed_by(void **state) {
    counted_memory counts;
    pyprof_desc desc = described(&counts, 16 * MIB, 1000);
    (void)state;
    unit_run("go = threading.Event()\n"
             "waiters = [threading.Thread(target=go.wait, name='waiter ' + c) for c in 'abcdefghijkl']\n"
             "for t in waiters: t.start()\n");
    assert_int_equal(pyprof_start(&desc), PYPROF_OK);
    pyprof__sampler *sampler = lock_with_parked(12);
    check_lists(sampler);
    check_names(sampler);
    check_settling(sampler);
    pthread_mutex_unlock(&sampler->lock);
    assert_int_equal(pyprof_stop(NULL), PYPROF_OK);
    assert_int_equal(counts.blocks, 0);
    unit_run("go.set()\nfor t in waiters: t.join()\n");
}

static int start(void **state) {
    return unit_start_python(state) != 0 || PyRun_SimpleString(recording_script) != 0 ? -1 : 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_ran_is_parked_later),   cmocka_unit_test(test_heads_of_those_who_wait),
        cmocka_unit_test(test_who_may_be_parked),         cmocka_unit_test(test_who_ran_unseen_did_not_wait),
        cmocka_unit_test(test_balance_shows_who_has_run), cmocka_unit_test(test_who_is_parked_is_passed_by),
    };
    return cmocka_run_group_tests(tests, start, unit_stop_python);
}
