/* The unit that only uses the header. */
#include "pyprof.h"

#include "uses.h"

const char *text_of_ok(void) {
    return pyprof_result_string(PYPROF_OK);
}
