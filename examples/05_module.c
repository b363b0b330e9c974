/* A host whose scripts can look at themselves: `import pyprof` is built in.
 *
 *     cc -I. -Itools examples/05_module.c -o module $(python3-config --embed --includes --ldflags) -pthread
 *     ./module script.py [ARGUMENT...]
 *
 * Without a script it runs one of its own, which prints what took most and writes module.svg. */
#define PYPROF_IMPLEMENTATION
#define PYPROF_MODULE_IMPLEMENTATION
#include "flamegraph.h"
#include "pyprof.h"
#include "pyprof_module.h"

#include <stdio.h>

static const char script[] = "import pyprof\n"
                             "\n"
                             "def is_prime(n):\n"
                             "    return all(n % d for d in range(2, int(n ** 0.5) + 1))\n"
                             "\n"
                             "with pyprof.Profiler(rate_hz=1000) as profiler:\n"
                             "    print(sum(is_prime(n) for n in range(2, 200000)), 'primes')\n"
                             "profiler.profile.print_stats(limit=3)\n"
                             "profiler.profile.save('module.svg')\n";

static int run(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 2;
    }
    return PyRun_SimpleFileExFlags(file, path, 1, NULL) != 0;
}

static void stop_on_error(PyStatus status) {
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

int main(int argc, char **argv) {
    PyConfig config;
    int failed;
    PyImport_AppendInittab("pyprof", PyInit_pyprof); /* before Py_Initialize */
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    stop_on_error(PyConfig_SetBytesArgv(&config, argc > 1 ? argc - 1 : argc, argc > 1 ? argv + 1 : argv));
    stop_on_error(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    failed = argc > 1 ? run(argv[1]) : PyRun_SimpleString(script) != 0;
    return Py_FinalizeEx() < 0 ? 120 : failed;
}
