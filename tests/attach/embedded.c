/* A program with CPython inside, which never says which its main thread is:

     embedded SCRIPT ARGS...    runs the script, as python3 SCRIPT ARGS... */
#include <Python.h>

#include <stdio.h>

int main(int argc, char **argv) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    PyStatus status = PyConfig_SetBytesArgv(&config, argc - 1, argv + 1);
    status = PyStatus_Exception(status) ? status : Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    FILE *script = argc > 1 && !PyStatus_Exception(status) ? fopen(argv[1], "r") : NULL;
    if (script == NULL) {
        return 1;
    }
    int result = PyRun_SimpleFileExFlags(script, argv[1], 1, NULL);
    return Py_FinalizeEx() != 0 || result != 0;
}
