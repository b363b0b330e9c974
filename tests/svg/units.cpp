#include "units.c" /* the same, as C++ */
