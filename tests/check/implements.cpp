#include "implements.c"
