/* The least that a host needs: start, run Python, stop, save.
 *
 *     cc -I. examples/01_minimal.c -o minimal $(python3-config --embed --includes --ldflags) -pthread
 *
 * Writes minimal.collapsed (for tools/pyprof-svg) and minimal.speedscope.json (for speedscope.app). */
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <Python.h>

#include <stdio.h>

static const char script[] = "def primes(limit):\n"
                             "    return [n for n in range(2, limit) if is_prime(n)]\n"
                             "def is_prime(n):\n"
                             "    return all(n % d for d in range(2, int(n ** 0.5) + 1))\n"
                             "print(len(primes(400000)), 'primes')\n";

int main(void) {
    pyprof_profile *profile = NULL;
    Py_Initialize();
    pyprof_result result = pyprof_start(NULL); /* 100 samples a second of every thread */
    if (result == PYPROF_OK) {
        PyRun_SimpleString(script);
        result = pyprof_stop(&profile);
    }
    if (result == PYPROF_OK) {
        result = pyprof_save(profile, NULL, "minimal.collapsed");
    }
    if (result == PYPROF_OK) {
        result = pyprof_save(profile, NULL, "minimal.speedscope.json");
    }
    pyprof_free(profile);
    Py_Finalize();
    printf("minimal.collapsed, minimal.speedscope.json: %s\n",
           result == PYPROF_OK ? pyprof_result_string(result) : pyprof_last_error());
    return result == PYPROF_OK ? 0 : 1;
}
