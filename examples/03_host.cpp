// A C++17 host that runs the script given on its command line, and says which functions it spent its time in.
//
//     c++ -std=c++17 -I. examples/03_host.cpp -o host $(python3-config --embed --includes --ldflags) -pthread
//     ./host script.py ARGS...
//
// Prints the ten functions with the most self time and writes host.speedscope.json. Shown are: a recording
// as an object (it ends however the script does), text taken in memory through a write function, and a
// logger that hears of what the recording could not do.
#define PYPROF_IMPLEMENTATION
#include "pyprof.h"

#include <Python.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using Profile = std::unique_ptr<pyprof_profile, decltype(&pyprof_free)>;
using Object = std::unique_ptr<PyObject, decltype(&Py_DecRef)>;

void check(pyprof_result result) {
    if (result != PYPROF_OK) {
        throw std::runtime_error(pyprof_last_error());
    }
}

class Recording {
  public:
    Recording() {
        pyprof_desc desc{};
        desc.interval_us = 1000;
        desc.logger.log_fn = [](pyprof_log_level, const char *message, void *) { std::cerr << message << '\n'; };
        check(pyprof_start(&desc));
    }
    Recording(const Recording &) = delete;
    Recording &operator=(const Recording &) = delete;
    ~Recording() {
        if (pyprof_is_active()) {
            pyprof_stop(nullptr);
        }
    }
    Profile stop() {
        pyprof_profile *profile = nullptr;
        check(pyprof_stop(&profile));
        return Profile(profile, pyprof_free);
    }
};

std::string collapsed(const pyprof_profile *profile) {
    pyprof_output output{};
    output.detail = PYPROF_DETAIL_FUNCTION;
    std::string text;
    check(pyprof_write(
        profile, &output,
        [](void *user, const void *data, size_t size) {
            static_cast<std::string *>(user)->append(static_cast<const char *>(data), size);
            return true;
        },
        &text));
    return text;
}

// The last frame of a line is where its time was spent itself: "thread MainThread;<module> (a.py:9);f (a.py:1) 5000".
void print_self_times(const std::string &text) {
    std::map<std::string, unsigned long long> self;
    unsigned long long total = 0;
    for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
        const std::string line = text.substr(at, end - at);
        const size_t blank = line.rfind(' ');
        const size_t leaf = line.rfind(';', blank) + 1;
        const unsigned long long microseconds = std::stoull(line.substr(blank + 1));
        self[line.substr(leaf, blank - leaf)] += microseconds;
        total += microseconds;
    }
    std::vector<std::pair<std::string, unsigned long long>> order(self.begin(), self.end());
    std::sort(order.begin(), order.end(), [](const auto &a, const auto &b) { return a.second > b.second; });
    order.resize(std::min<size_t>(order.size(), 10));
    for (const auto &[name, microseconds] : order) {
        const double share = 100.0 * static_cast<double>(microseconds) / static_cast<double>(total);
        std::printf("%9.1f ms %5.1f %%  %s\n", static_cast<double>(microseconds) / 1e3, share, name.c_str());
    }
}

void initialize_python(int argc, char **argv) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0; // all of it is the script's
    PyStatus status = PyConfig_SetBytesArgv(&config, argc - 1, argv + 1);
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

// As a module named __main__. A script's sys.exit() must end the script, not the host.
int run_script(const std::string &source, const char *path) {
    PyObject *globals = PyModule_GetDict(PyImport_AddModule("__main__")); // borrowed
    const Object name(PyUnicode_DecodeFSDefault(path), Py_DecRef);
    PyDict_SetItemString(globals, "__file__", name.get());
    PyRun_SimpleString("import os, sys; sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))");
    const Object code(Py_CompileString(source.c_str(), path, Py_file_input), Py_DecRef);
    const Object result(code ? PyEval_EvalCode(code.get(), globals, globals) : nullptr, Py_DecRef);
    if (result) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_SystemExit)) {
        PyErr_Clear();
        return 0;
    }
    PyErr_Print();
    return 1;
}

std::optional<std::string> read_file(const char *path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        return std::nullopt;
    }
    return std::string(std::istreambuf_iterator<char>(file), {});
}

} // namespace

int main(int argc, char **argv) {
    const auto source = argc > 1 ? read_file(argv[1]) : std::nullopt;
    if (!source) {
        std::cerr << (argc > 1 ? "cannot read the script\n" : "usage: host SCRIPT [ARGS...]\n");
        return 2;
    }
    initialize_python(argc, argv);
    int status = 1;
    try {
        Recording recording;
        status = run_script(*source, argv[1]);
        const Profile profile = recording.stop();
        print_self_times(collapsed(profile.get()));
        check(pyprof_save(profile.get(), nullptr, "host.speedscope.json"));
        std::puts("wrote host.speedscope.json");
    } catch (const std::exception &error) {
        std::cerr << "host: " << error.what() << '\n';
        status = 1;
    }
    Py_Finalize();
    return status;
}
