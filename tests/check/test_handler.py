"""The signal handler as gcc knows it: how much stack it needs at most, and whom it calls.

gcc writes down, for each function, its frame and its callees (-fcallgraph-info=su). What it cannot know are the
frames of the C library's functions (which are small) and calls through pointers: of these the handler has two, to
the program's own handler, and they come before it does anything.
"""
import collections
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import compiling

IMPLEMENTATION = '#define PYPROF_IMPLEMENTATION\n#include "pyprof.h"\n'
# As the manual says: the most that any path takes, the C library's part aside.
OPTIMISED = 1300
NOT_OPTIMISED = 2000
# Functions that neither allocate nor take a lock; CPython's are one load of a variable, or of a thread's own.
HARMLESS = {
    "syscall", "sigaction", "getpid", "clock_gettime", "pread", "fstat", "process_vm_writev", "pthread_self",
    "memcpy", "memmove", "memset", "memcmp", "__errno_location", "_PyThreadState_UncheckedGet",
    "PyThreadState_GetUnchecked", "PyGILState_GetThisThreadState",
}
HOSTS_HANDLERS = 2

Graph = collections.namedtuple("Graph", "frames callees indirect")


@functools.lru_cache(maxsize=None)
def compiled(level):
    """The header's call graph, as gcc writes it down, and its assembly."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "unit.c"), "w") as file:
            file.write(IMPLEMENTATION)
        subprocess.run(["gcc", "-std=gnu11", "-w", level, "-I", compiling.SOURCE, "-isystem", compiling.python_include(),
                        "-fcallgraph-info=su", "-S", "unit.c", "-o", "unit.s"], check=True, cwd=folder)
        with open(os.path.join(folder, "unit.ci")) as graph, open(os.path.join(folder, "unit.s")) as assembly:
            return graph.read(), assembly.read()


def call_graph(level):
    """Of the header's own functions: bytes of each frame, callees of each, and how often each calls through a pointer."""
    return parse(compiled(level)[0])


def string_copies(text):
    """From assembly: how often each function copies as x86 does strings, which takes longer to start than a load."""
    found, function = collections.Counter(), None
    for line in text.splitlines():
        label = re.match(r"(\w[\w.]*):", line)
        function = label.group(1) if label else function
        found[function] += bool(re.match(r"\s+rep[a-z]*[;\s]+movs", line))
    return found


def own(title):
    """The function's name without the file that a static one has before it."""
    return title.rpartition(":")[2]


def parse(text):
    frames, callees, indirect = {}, collections.defaultdict(set), collections.Counter()
    for title, label in re.findall(r'node: \{ title: "([^"]+)" label: "([^"]*)"', text):
        size = re.search(r"(\d+) bytes \((\w+)", label)
        if size:
            frames[own(title)] = int(size.group(1))
    for caller, callee in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', text):
        if callee == "__indirect_call":
            indirect[own(caller)] += 1
        else:
            callees[own(caller)].add(own(callee))
    return Graph(frames, callees, indirect)


def reached(graph, function):
    seen, new = set(), {function}
    while new:
        seen |= new
        new = {callee for caller in new for callee in graph.callees[caller]} - seen
    return seen


def deepest(graph, function, above=()):
    """The most stack that a call may take, return addresses included."""
    if function in above:
        raise AssertionError("the handler calls itself: %s" % " ".join(above + (function,)))
    inner = [deepest(graph, callee, above + (function,)) for callee in graph.callees[function]]
    return graph.frames.get(function, 0) + 8 + max(inner, default=0)


class Handler(unittest.TestCase):
    def test_parse(self):
        graph = parse('node: { title: "u.c:f" label: "f\\nu.c:1:1\\n48 bytes (static)\\n0 dynamic objects" }\n'
                      'node: { title: "g" label: "g\\n<built-in>" shape : ellipse }\n'
                      'edge: { sourcename: "u.c:f" targetname: "g" label: "u.c:2:2" }\n'
                      'edge: { sourcename: "u.c:f" targetname: "__indirect_call" label: "u.c:2:3" }\n')
        self.assertEqual(({"f": 48}, {"f": {"g"}}, {"f": 1}), graph)
        self.assertEqual({"f", "g"}, reached(graph, "f"))
        self.assertEqual(48 + 8 + 8, deepest(graph, "f"))
        graph.callees["g"].add("f")
        with self.assertRaises(AssertionError):
            deepest(graph, "f")

    def test_stack(self):
        for level, most in [("-O0", NOT_OPTIMISED)] + [(level, OPTIMISED) for level in ("-Og", "-Os", "-O2", "-O3")]:
            with self.subTest(level=level):
                bytes_needed = deepest(call_graph(level), "pyprof__on_signal")
                print("%s: %d bytes" % (level, bytes_needed), flush=True)
                self.assertGreater(bytes_needed, 300, "that cannot be all")
                self.assertLess(bytes_needed, most)

    def test_calls(self):
        """At -O0 each call is still there."""
        graph = call_graph("-O0")
        functions = reached(graph, "pyprof__on_signal")
        self.assertIn("pyprof__capture_own", functions)
        self.assertEqual(set(), {name for name in functions if name not in graph.frames} - HARMLESS)
        self.assertEqual(set(), {name for name in functions if name not in graph.frames} -
                         reached(graph, "pyprof__bind_functions"), "these would be bound inside the handler")
        self.assertEqual({"pyprof__pass_on": HOSTS_HANDLERS},
                         {name: graph.indirect[name] for name in functions if graph.indirect[name]})

    def test_string_copies(self):
        self.assertEqual({"f": 1, "g.part.0": 0}, dict(string_copies(
            "f:\n\tmovq %rax, %rbx\n.L2:\n\trep movsq\n\tret\ng.part.0:\n\trep stosq\n\trepz ret\n")))

    def test_loads(self):
        """Each frame takes a dozen loads, in the handler and in a walk from outside."""
        found = string_copies(compiled("-O2")[1])
        handlers = reached(call_graph("-O2"), "pyprof__on_signal")
        loads = {name for name in found if re.match(r"pyprof__(load_elsewhere|view_read|view_copy)\b", name or "")}
        self.assertIn("pyprof__on_signal", found)
        self.assertTrue(loads)
        self.assertEqual({}, {name: found[name] for name in handlers | loads if found[name]})


def gcc_knows():
    if not shutil.which("gcc"):
        return False
    run = subprocess.run(["gcc", "-fcallgraph-info=su", "-E", "-x", "c", os.devnull], stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    return run.returncode == 0


if __name__ == "__main__":
    if not gcc_knows():
        print("skipped: no gcc that writes down the stack of functions (10 or later)")
        sys.exit(77)
    unittest.main()
