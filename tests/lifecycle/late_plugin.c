/* The profiler with pauses in its signal handler (pause.py), as a plugin: see late.c. */
#define PYPROF_IMPLEMENTATION
#include "pyprof_paused.h"
