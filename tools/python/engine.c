/* What of the package pyprof is C: the profiler and its module, with all formats, compiled once for one CPython; and
   where zlib is, pyprof-convert (PACKAGE_CONVERT). */
#define PYPROF_IMPLEMENTATION
#define PYPROF_STATIC
#define EXPORTS_IMPLEMENTATION
#define EXPORTS_STATIC
#define PYPROF_MODULE_IMPLEMENTATION
#define PYPROF_MODULE_PACKAGE
#include "flamegraph.h"
#include "pyprof.h"
#include "exports.h"
#if defined(PACKAGE_CONVERT)
#define PYPROF_CONVERT_NO_MAIN
#include "pyprof-convert.c"
#define PYPROF_MODULE_CONVERT convert_main
#endif
#include "pyprof_module.h"
