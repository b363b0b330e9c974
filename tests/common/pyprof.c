/* The implementation, compiled once for all the programs of the tests that do no more than call it. */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"
