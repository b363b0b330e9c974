#include "uses.c"
