/* A plugin that brings the profiler along. It is not linked with libpython: its host has that, from wherever. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"
