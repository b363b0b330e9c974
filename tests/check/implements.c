/* The unit that implements; the header may be included once more behind that. */
#ifndef PYPROF_IMPLEMENTATION
#define PYPROF_IMPLEMENTATION
#endif
#include "pyprof.h"
#include "pyprof.h"

#include "uses.h"

#include <string.h>

int main(void) {
    bool same_text = strcmp(text_of_ok(), pyprof_result_string(PYPROF_OK)) == 0;
    bool idle = !pyprof_is_active() && pyprof_stop(NULL) == PYPROF_ERROR_NOT_ACTIVE;
    return same_text && idle ? 0 : 1;
}
