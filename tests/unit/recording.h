/* Recordings of a living Python, and what is in them. Every test that includes it includes unit.h before. */
#ifndef RECORDING_H
#define RECORDING_H

#define MIB ((size_t)1 << 20)

UNIT_UNUSED static pyprof_desc described(counted_memory *counts, size_t limit, uint32_t interval_us) {
    pyprof_desc desc = counted_desc(counts, interval_us);
    memset(counts, 0, sizeof *counts);
    desc.memory_limit = limit;
    return desc;
}

UNIT_UNUSED static pyprof_stats stats_now(void) {
    pyprof_stats stats;
    assert_int_equal(pyprof_get_stats(&stats), PYPROF_OK);
    return stats;
}

UNIT_UNUSED static char *collapsed(const pyprof_profile *profile, bool include_idle) {
    pyprof_output output = {.format = PYPROF_FORMAT_COLLAPSED,
                            .metric = PYPROF_METRIC_SAMPLES,
                            .detail = PYPROF_DETAIL_FUNCTION,
                            .include_idle = include_idle};
    text_sink sink = {0};
    assert_int_equal(pyprof_write(profile, &output, text_sink_write, &sink), PYPROF_OK);
    assert_non_null(sink.text);
    return sink.text;
}

/* Whether a line begins with one text and has the other in it. */
UNIT_UNUSED static bool has_stack(const char *text, const char *thread, const char *frame) {
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        const char *found = strncmp(line, thread, strlen(thread)) == 0 ? strstr(line, frame) : NULL;
        if (found != NULL && found < line + strcspn(line, "\n")) {
            return true;
        }
    }
    return false;
}

/* What the scripts of these tests call. */
static const char recording_script[] = "import _thread, os, random, threading, time\n"
                                       "def spin(seconds):\n"
                                       "    end = time.perf_counter() + seconds\n"
                                       "    while time.perf_counter() < end: sum(range(50))\n"
                                       "def important(): spin(0.2)\n";

#endif
