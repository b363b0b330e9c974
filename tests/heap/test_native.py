"""libpyprof-heap.so in any process: what it prints and how it ends is as without; with somebody who listens, too; and
what C code allocates in a python that knows nothing of either library."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "common"))
import harness

SOURCE = os.environ["PYPROF_SOURCE"]
LIBRARY = os.path.join(harness.BUILD, "tools", "libpyprof-heap.so")
SAY_TAG = "import sys; print('%d.%d' % sys.version_info[:2] + sys.abiflags)"
TAG = subprocess.check_output([harness.PYTHON, "-c", SAY_TAG], universal_newlines=True).strip()
PYPROF = os.path.join(harness.BUILD, "tools", "libpyprof-%s.so" % TAG)
ODD, VARIABLES, LISTENER, ALLOCATOR = (os.path.join(harness.BUILD, "tests", "heap", name) for name in
                                       ("odd", "libvariables.so", "liblistener.so", "liballocator.so"))
FLAGS = ["-std=gnu11", "-fno-builtin", "-fno-stack-protector", "-fPIC", "-fvisibility=hidden", "-shared", "-O2"]

PYTHON_CODE = """
import ctypes, hashlib, json, subprocess, sys, tempfile, threading, zlib
def work(number):
    for i in range(20):
        json.loads(json.dumps({str(j): [j] * 10 for j in range(50)}))
        zlib.decompress(zlib.compress(bytes(100000)))
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(subprocess.check_output([sys.executable, '-c', 'print(5)']), hashlib.sha256(bytes(1 << 20)).hexdigest())
with tempfile.TemporaryFile() as file:
    file.write(b'x' * 100000)
sys.exit(7)
"""


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="pyprof-native-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYPROF_"))}

    def call(self, command, preload=None, **more):
        env = dict(self.env, **more)
        if preload:
            env["LD_PRELOAD"] = preload
        run = subprocess.run(command, cwd=self.dir, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, universal_newlines=True, timeout=240, errors="replace")
        return run.returncode, run.stdout, run.stderr

    def assert_same(self, command, preload=LIBRARY, behind=None, **more):
        """behind: what is preloaded in both cases."""
        both = ":".join(name for name in (preload, behind) if name)
        plain = self.call(command, behind, **more)
        self.assertEqual(plain, self.call(command, both, **more))
        return plain

    def compile(self, compiler, flags, name, *sources):
        target = os.path.join(self.dir, name)
        run = subprocess.run([compiler, "-I", SOURCE] + flags + list(sources) + ["-o", target], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, universal_newlines=True)
        self.assertEqual((run.returncode, run.stdout), (0, ""))
        return target

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class Safe(Case):
    def test_programs(self):
        self.write("a.c", "#include <stdio.h>\nint main(void) { return printf(\"x\\n\"); }\n")
        programs = [
            ["bash", "-c", "for i in {1..50}; do x=$(echo $i); done; echo $x; echo ${x@Q} | sort | wc; exit 9"],
            ["ls", "-la", HERE], ["sort", "-R", "/dev/null"],
            ["awk", "BEGIN { for (i = 0; i < 100000; i++) a[i] = i; print a[9] }"],
            ["git", "--no-pager", "grep", "-c", "--no-index", "a", HERE], ["gcc", "-O2", "a.c", "-o", "a.out"],
            ["clang", "-O2", "a.c", "-o", "a.out"],
            ["perl", "-e", "print join ',', map { $_ x 100 } 1 .. 1000; exit 3"],
            ["node", "-e", "a = []; for (let i = 0; i < 1e5; i++) a.push({i}); console.log(a.length); process.exit(6)"],
            ["java", "-version"], ["tar", "--version"], ["make", "--version"],
        ]
        for program in programs:
            if shutil.which(program[0]):
                with self.subTest(program[0]):
                    self.assert_same(program)

    def test_pythons(self):
        pythons = {harness.PYTHON, sys.executable}
        pythons |= set(glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python")))
        for python in sorted(pythons):
            code = PYTHON_CODE if "/2." not in python else "import json; print json.dumps(range(1000))"
            with self.subTest(python):
                status, _, _ = self.assert_same([python, "-c", code])
                self.assertEqual(status, 7 if "/2." not in python else 0)
        for how in "malloc", "debug":
            self.assert_same([harness.PYTHON, "-c", PYTHON_CODE], PYTHONMALLOC=how)

    def test_odd_program(self):
        status, out, err = self.assert_same([ODD, LISTENER, VARIABLES])
        self.assertEqual((status, err), (4, ""))
        self.assertIn("threads 24\n", out)

    def test_somebody_listens(self):
        heard = os.path.join(self.dir, "heard")
        self.assert_same([ODD, LISTENER, VARIABLES], HEARD=heard)
        with open(heard, encoding="utf-8") as file:
            allocations, frees = (int(word) for word in file.read().split())
        self.assertGreater(allocations, 160000)
        self.assertTrue(allocations - 1000 < frees < allocations)

    def test_other_allocators(self):
        """Behind it and before it; the test's own allocator ends a process that mixes blocks."""
        found = [path for name in ("libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libmimalloc.so.2")
                 for path in glob.glob("/usr/lib/*/" + name)]
        for allocator in [ALLOCATOR] + found:
            for program in [ODD, LISTENER, VARIABLES], ["ls", "-la", HERE], [harness.PYTHON, "-c", PYTHON_CODE]:
                with self.subTest(allocator + " " + program[0]):
                    self.assert_same(program, LIBRARY, behind=allocator)
                    self.assert_same(program, allocator + ":" + LIBRARY)

    def test_dlsym_that_allocates(self):
        """As that of older C libraries."""
        greedy = self.write("greedy.h", """
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>
static void *kept[1000];
static int count;
static void *greedy(void *where, const char *name) {
    char *volatile one = malloc(100), *volatile two = calloc(3, 50);
    if (one == NULL || two == NULL || two[149] != 0) abort();
    one[99] = 5;
    one = realloc(one, 30);
    kept[count++] = one;
    two = realloc(NULL, 10);
    free(two);
    void *volatile map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || munmap(map, 4096) != 0) abort();
    return dlsym(where, name);
}
static void *all_at_end[1000];
__attribute__((destructor)) static void free_kept(void) {
    for (int i = 0; i < count; i++) {
        all_at_end[i] = realloc(kept[i], 200);
        free(all_at_end[i]);
    }
}
#define LIBPYPROF_HEAP_DLSYM greedy
""")
        library = self.compile("cc", FLAGS + ["-include", greedy], "greedy.so",
                               os.path.join(SOURCE, "tools", "libpyprof_heap.c"), "-ldl")
        for program in [ODD, LISTENER, VARIABLES], ["ls", "-la", HERE], [harness.PYTHON, "-c", PYTHON_CODE]:
            self.assert_same(program, library)

    def test_musl(self):
        if not shutil.which("musl-gcc"):
            self.skipTest("no musl-gcc")
        library = self.compile("musl-gcc", FLAGS, "heap.so", os.path.join(SOURCE, "tools", "libpyprof_heap.c"))
        program = self.compile("musl-gcc", ["-O2"], "odd", os.path.join(HERE, "odd.c"))
        parts = [self.compile("musl-gcc", ["-O2", "-fPIC", "-shared"], name + ".so", os.path.join(HERE, name + ".c"))
                 for name in ("listener", "variables")]
        heard = os.path.join(self.dir, "heard")
        status, _, err = self.assert_same([program] + parts, library, HEARD=heard, QUIET_CHILDREN="1")
        self.assertEqual((status, err), (4, ""))
        with open(heard, encoding="utf-8") as file:
            self.assertGreater(int(file.read().split()[0]), 160000)

    def test_static_program(self):
        program = self.compile("cc", ["-static", "-O2"], "static", self.write("s.c", """
#include <stdlib.h>
int main(void) { free(malloc(1000)); return 5; }
"""))
        self.assertEqual(self.assert_same([program])[0], 5)

    def test_sanitized_program(self):
        """With the runtime in the program, and with it as a library, if that does not insist on coming first."""
        text = self.write("a.c", """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    char *volatile block = strdup(argv[0]);
    block = realloc(block, 500);
    if (argc > 1) { free(block); return block[3]; }
    free(block);
    puts("fine");
    return 5;
}
""")
        for flags in ["-static-libasan"], []:
            try:
                program = self.compile("cc", ["-fsanitize=address", "-w"] + flags, "a.out", text)
            except AssertionError:
                self.skipTest("no libasan")
            options = {"ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0"}
            self.assertEqual(self.assert_same([program], **options)[0], 5)
            for preload in None, LIBRARY:
                status, _, err = self.call([program, "x"], preload, **options)
                self.assertNotEqual(status, 0)
                self.assertIn("heap-use-after-free", err)

    def test_privileged_program(self):
        """The loader does not preload into these."""
        if os.getuid() != 0 or not shutil.which("setpriv"):
            self.skipTest("not root, or no setpriv")
        program = os.path.join(self.dir, "id")
        shutil.copy(shutil.which("id"), program)
        os.chmod(program, 0o4755)
        os.chmod(self.dir, 0o755)
        self.assert_same(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program])

    def test_it_is_small(self):
        """Neither CPython nor a profiler nor anything but libc is in it."""
        lines = subprocess.run(["nm", "-D", LIBRARY], check=True, stdout=subprocess.PIPE,
                               universal_newlines=True).stdout.splitlines()
        names = {line.split()[-1].split("@")[0] for line in lines}
        self.assertFalse([name for name in names if name.startswith(("Py", "_Py"))])
        self.assertEqual({name for name in names if "pyprof" in name}, {"pyprof_heap_interposer_1"})
        needed = subprocess.run(["readelf", "-d", LIBRARY], check=True, stdout=subprocess.PIPE,
                                universal_newlines=True).stdout
        self.assertFalse([line for line in needed.splitlines() if "(NEEDED)" in line and "libc.so" not in line
                          and "libdl" not in line and "libpthread" not in line and "ld-linux" not in line])


class Listened(Case):
    """A python that loads libpyprof-3.X.so by ctypes."""
    BEGIN = """
import ctypes, sys, threading
pyprof = ctypes.PyDLL(sys.argv[1])
c = ctypes.PyDLL(None)
c.malloc.restype = ctypes.c_void_p
c.malloc.argtypes = [ctypes.c_size_t]
c.free.argtypes = [ctypes.c_void_p]
assert pyprof.pyprof_heap_start(None) == 0
def by_c(): return [c.malloc(1 << 20) for i in range(50)]
def by_python(): return [bytearray(1 << 20) for i in range(30)]
blocks, arrays = by_c(), by_python()
def show(name):
    profile = ctypes.c_void_p()
    assert pyprof.pyprof_heap_snapshot(ctypes.byref(profile)) == 0
    assert pyprof.pyprof_save(profile, None, name.encode()) == 0
    pyprof.pyprof_free(profile)
show('one.txt')
for block in blocks: c.free(block)
del arrays
show('two.txt')
"""

    def sums(self, name):
        found = {"by_c (": 0, "by_python (": 0}
        with open(os.path.join(self.dir, name), encoding="utf-8") as file:
            for line in file:
                for part in found:
                    found[part] += int(line.rpartition(" ")[2]) if ";" + part in line else 0
        return list(found.values())

    def test_python(self):
        for preload, share in (LIBRARY, 1), (None, 0), (LIBRARY + ":" + ALLOCATOR, 1):
            with self.subTest(str(preload)):
                self.assertEqual(self.call([harness.PYTHON, "-c", self.BEGIN, PYPROF], preload), (0, "", ""))
                by_c, by_python = self.sums("one.txt")
                self.assertAlmostEqual(by_c, share * (50 << 20), delta=share * (12 << 20))
                self.assertAlmostEqual(by_python, 30 << 20, delta=9 << 20)
                self.assertEqual(self.sums("two.txt"), [0, 0])

    def test_numpy(self):
        if self.call([harness.PYTHON, "-c", "import numpy"])[0] != 0:
            self.skipTest("no numpy")
        code = self.BEGIN.replace("[c.malloc(1 << 20) for i in range(50)]", "[numpy.ones(50 << 17)]")
        code = "import numpy\n" + code.replace("for block in blocks: c.free(block)", "del blocks")
        self.assertEqual(self.call([harness.PYTHON, "-c", code, PYPROF], LIBRARY), (0, "", ""))
        self.assertAlmostEqual(self.sums("one.txt")[0], 50 << 20, delta=12 << 20)
        self.assertEqual(self.sums("two.txt")[0], 0)


if __name__ == "__main__":
    harness.main()
