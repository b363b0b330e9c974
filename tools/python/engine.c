/* What of the package pyprof is C: the profiler and its module, compiled once for one CPython. */
#define PYPROF_IMPLEMENTATION
#define PYPROF_STATIC
#define PYPROF_MODULE_IMPLEMENTATION
#define PYPROF_MODULE_PACKAGE
#include "flamegraph.h"
#include "pyprof.h"
#include "pyprof_module.h"
