/* The same as listening.c has, for who loads and unloads it. */
#include "host.h"
