/* The tests run as programs of their own, so the home of the CPython that they embed has to be told. */
#ifndef HOME_H
#define HOME_H

#include <stdlib.h>

static void tell_home(void) {
    const char *home = getenv("PYPROF_PYTHONHOME");
    if (home != NULL) {
        setenv("PYTHONHOME", home, 1);
    }
}

#endif
