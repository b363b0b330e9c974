"""Which python runs the program: the one that a shell would take, whole, or one line that says why not.

A python of the same version and build is run as it is, wherever it comes from. Those of other patch versions are
looked for under pyenv's folder and in /usr; where there is none, the tests that need one say so and are skipped.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import unittest

from case import Case, PYTHON, RUN, SOME, VERSION, clean_environment

SHOW = SOME + """
import ctypes, json, math, planted, sys, zlib
def look(number):
    import planted
    return [sys.version, sys.prefix, sys.base_prefix, sys.executable, planted.__file__]
if __name__ == "__main__":
    print(json.dumps([look(0), sys.path, sys._base_executable, getattr(zlib, '__file__', None), sys.orig_argv
                          if hasattr(sys, "orig_argv") else None]))
    for method in sys.argv[1:]:
        import multiprocessing
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(json.dumps(pool.map(look, [1, 2])))
"""
METHODS = ("spawn", "fork", "forkserver")


def describe(python):
    """(version, version and build) of an executable, or None."""
    code = "import json, sys; print(json.dumps([*sys.version_info[:2], sys.version, sys.abiflags]))"
    try:
        said = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment())
        major, minor, version, flags = json.loads(said.stdout.decode())
    except (OSError, ValueError):
        return None
    return (major, minor), flags, version


def others():
    """The other pythons of this machine: [(executable, version, is it of the same version and build)]."""
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    own = describe(PYTHON)
    found = []
    for path in sorted(glob.glob(root + "/versions/*/bin/python3")) + glob.glob("/usr/bin/python3.[0-9]*[0-9]"):
        other = describe(path)
        if other and other[2] != own[2] and other[0] >= (3, 8):
            found.append((path, other[0], other[:2] == own[:2]))
    return found


OTHERS = others()
SAME_VERSION = [path for path, _, same in OTHERS if same]
OTHER_VERSION = [path for path, _, same in OTHERS if not same]
NONE_OF_THE_SAME = "no other CPython %d.%d of the same build on this machine" % VERSION
NONE_OF_ANOTHER = "no CPython of another version on this machine"


class Pythons(Case):
    def setUp(self):
        super().setUp()
        self.file("show.py", SHOW)
        self.plain = {key: value for key, value in self.env.items() if key != "OUT"}

    def plant(self, prefix):
        for packages in glob.glob(os.path.join(prefix, "lib", "python*", "*-packages")):
            with open(os.path.join(packages, "planted.py"), "w", encoding="utf-8") as file:
                file.write("here = True\n")

    def environment(self, python, name, *options):
        folder = os.path.join(self.work, name)
        subprocess.check_call([python, "-m", "venv", "--without-pip", *options, folder], env=clean_environment())
        self.plant(folder)
        return folder

    def copied(self, python, name):
        """A prefix with an executable and packages of its own; its standard library is links."""
        said = subprocess.check_output([python, "-c", "import sys, os; print(sys.base_prefix, os.path.dirname(os.__file__), "
                                        "os.path.realpath(sys.executable), sep='\\n')"], env=clean_environment())
        prefix, library, executable = said.decode().split()
        folder = os.path.join(self.work, name)
        inside = os.path.join(folder, "lib", os.path.basename(library))
        os.makedirs(os.path.join(inside, "site-packages"))
        os.makedirs(os.path.join(inside, "dist-packages"))
        os.makedirs(os.path.join(folder, "bin"))
        for entry in os.listdir(library):
            if not entry.endswith("-packages"):
                os.symlink(os.path.join(library, entry), os.path.join(inside, entry))
        shutil.copy(executable, os.path.join(folder, "bin", "python3"))
        with open(os.path.join(inside, "site-packages", "planted.py"), "w", encoding="utf-8") as file:
            file.write("here = True\n")
        shutil.copy(os.path.join(inside, "site-packages", "planted.py"), os.path.join(folder, "lib"))
        return folder

    def under(self, folder, path=True, variable=False, **more):
        env = dict(self.env, **more)
        if path:
            env["PATH"] = os.path.join(folder, "bin") + ":" + env["PATH"]
        if variable:
            env["VIRTUAL_ENV"] = folder
        return env

    def assertSame(self, env, *arguments, command=("python3",), ours=()):
        expected = self.call([*command, "show.py", *arguments], env={k: v for k, v in env.items() if k != "OUT"})
        self.assertEqual((expected[0], expected[2]), (0, ""), "does it run without us?")
        real = self.profiled(*ours, "show.py", *arguments, env=env)
        self.assertEqual(expected, real)
        self.assertProfileHolds("some")
        os.unlink(self.out)
        return json.loads(expected[1].splitlines()[0])

    def test_environments_of_the_same(self):
        for options in ((), ("--copies",), ("--symlinks", "--system-site-packages")):
            with self.subTest(options):
                folder = self.environment(PYTHON, "venv%d" % len("".join(options)), *options)
                seen = self.assertSame(self.under(folder, variable=True), *([] if options else METHODS))
                self.assertEqual(seen[0][1], folder)
                self.assertSame(self.under(folder, variable=False))
                python = os.path.join(folder, "bin", "python3")
                self.assertSame(self.env, command=[python], ours=["--", python])
                # as the environment's own, though it is not on PATH
                self.assertSame(self.under(folder, path=False, variable=True), command=[python])

    @unittest.skipUnless(SAME_VERSION, NONE_OF_THE_SAME)
    def test_environments_of_another_patch_version(self):
        for number, python in enumerate(SAME_VERSION):
            for options in ((), ("--copies",)):
                with self.subTest(python=python, options=options):
                    folder = self.environment(python, "patch%d%d" % (number, len(options)), *options)
                    seen = self.assertSame(self.under(folder, variable=True), *(["spawn"] if options else METHODS))
                    self.assertEqual(seen[0][1], folder)
                    self.assertIn(describe(python)[2].split()[0], seen[0][0])

    @unittest.skipUnless(SAME_VERSION, NONE_OF_THE_SAME)
    def test_another_patch_version_on_the_path(self):
        for python in SAME_VERSION:
            self.file("planted.py", "here = True\n")
            folder = os.path.dirname(os.path.dirname(python))
            seen = self.assertSame(self.under(folder), "spawn", **(
                {"command": [python], "ours": ["--", python]} if folder == "/usr" else {}))
            self.assertIn(describe(python)[2].split()[0], seen[0][0])
            self.assertSame(self.env, command=[python], ours=["--", python])

    def test_copied_prefix(self):
        for number, python in enumerate([PYTHON] + SAME_VERSION):
            with self.subTest(python):
                folder = self.copied(python, "copy%d" % number)
                env = self.under(folder, PYTHONPATH=os.path.join(folder, "lib"))
                seen = self.assertSame(env, "spawn")
                self.assertEqual((seen[0][1], seen[0][3]), (folder, os.path.join(folder, "bin", "python3")))

    def test_shims(self):
        """Scripts before the real executables, as pyenv, asdf and direnv put them."""
        folder = self.environment(PYTHON, "venv")
        for number, text in enumerate(("#!/bin/sh\nexec %s/bin/python3 \"$@\"\n", "#!/usr/bin/env bash\nset -e\n"
                                       "program=\"${0##*/}\"\nexport SHIM=1\nexec \"%s/bin/$program\" \"$@\"\n")):
            shim = self.file("shims%d/bin/python3" % number, text % folder)
            os.chmod(shim, 0o755)
            seen = self.assertSame(self.under(os.path.dirname(os.path.dirname(shim)), SHIM="1"))
            self.assertEqual(seen[0][1], folder)

    def test_what_shims_add(self):
        """Options, variables and the name that a script gives to the python that it stands for."""
        self.file("planted.py", "here = True\n")
        self.file("added.py", SOME + "import os, sys\n"
                  "print(sys.flags, sys.argv, sys.executable, getattr(sys, 'orig_argv', 0), sys._xoptions)\n"
                  "print(sorted((k, v) for k, v in os.environ.items() if k != 'OUT'))\n")
        for number, text in enumerate((
                "exec {0} -O -X dev \"$@\"", "exec {0} -uB -W error \"$@\"",
                "export ADDED='a b=c' PYTHONOPTIMIZE=2; unset GONE; exec {0} \"$@\"", "exec -a \"$0\" {0} \"$@\"",
                "PATH=/bin exec {0} -E \"$@\"")):
            shim = self.file("adds%d/bin/python3" % number, "#!/usr/bin/env bash\n%s\n" % text.format(PYTHON))
            os.chmod(shim, 0o755)
            for env, command in ((self.under(os.path.dirname(os.path.dirname(shim)), GONE="1"), ["python3"]),
                                 (dict(self.env, GONE="1"), [shim])):
                expected = self.call([*command, "added.py", "x"], env={k: v for k, v in env.items() if k != "OUT"})
                real = self.profiled(*(["--", *command] if command != ["python3"] else []), "added.py", "x", env=env)
                self.assertEqual((expected[0], expected), (0, real), text)
                self.assertProfileHolds("some")
                os.unlink(self.out)
        shim = self.file("other/python3", "#!/bin/sh\nexec %s \"$@\" --more\n" % PYTHON)
        os.chmod(shim, 0o755)
        self.refused("does not answer", "--", shim, "added.py")

    def test_closed_streams(self):
        """Descriptors 0 to 2 may be closed while a python is asked."""
        other = os.path.join(self.copied(PYTHON, "copy"), "bin", "python3")
        for closed in ("<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"):
            code, _, _ = self.call(["bash", "-c", "%s -q -o %s -r 1000 -- %s -c 'import sys; open(\"said\", \"w\").write("
                                    "sys.executable); sum(range(10**7))' %s" % (RUN, self.out, other, closed)])
            self.assertEqual((code, self.read(os.path.join(self.work, "said"))), (0, other), closed)
            os.unlink(self.out)

    @unittest.skipUnless(os.path.exists(os.path.expanduser("~/.pyenv/shims/python3")) and SAME_VERSION + OTHER_VERSION,
                         "no pyenv on this machine")
    def test_pyenv(self):
        self.file("planted.py", "here = True\n")
        shims = os.path.expanduser("~/.pyenv/shims")
        for python in SAME_VERSION + OTHER_VERSION[:1]:
            if ".pyenv" not in python:
                continue
            env = dict(self.env, PYENV_VERSION=python.split("/")[-3], PATH=":".join((
                shims, os.path.expanduser("~/.pyenv/bin"), "/opt/pyenv/bin", self.env["PATH"])))
            if python in SAME_VERSION:
                self.assertSame(env)
            else:
                code, out, err = self.call([RUN, "-r", "1000", "-o", self.out, "show.py"], env=env)
                self.assertEqual(code, 0)
                self.assertEqual(json.loads(out.splitlines()[0])[0][0], describe(PYTHON)[2])
                self.assertRegex(err, r"^pyprof-run: python3 on PATH is CPython .*: taking %s" % re.escape(PYTHON))

    def refused(self, pattern, *arguments, env=None):
        code, out, err = self.call([RUN, "-o", self.out, *arguments], env=env or self.env)
        self.assertEqual((code, out), (2, ""), err)
        self.assertRegex(err, r"\Apyprof-run: [^\n]*%s[^\n]*\n\Z" % pattern)
        self.assertFalse(os.path.exists(self.out))

    @unittest.skipUnless(OTHER_VERSION, NONE_OF_ANOTHER)
    def test_another_version(self):
        """An environment is refused, as is a python that is named; one that is only first on PATH is not taken, and told."""
        self.file("planted.py", "here = True\n")
        for python in {OTHER_VERSION[0], OTHER_VERSION[-1]}:
            version = "%d.%d" % describe(python)[0]
            tells = r"is CPython %s\.\d+ \(%s\w*\), this pyprof-run is for %d\.%d" % (re.escape(version), re.escape(version), *VERSION)
            folder = self.environment(python, "venv" + version)
            for path, variable in ((True, True), (True, False), (False, True)):
                self.refused(tells, "show.py", env=self.under(folder, path, variable))
                self.refused(tells, "-m", "show", env=self.under(folder, path, variable))
            self.refused(tells, "--", python, "show.py")
            self.refused(tells, "--", os.path.join(folder, "bin", "python"), "show.py")
            script = self.file("bin/tool", "#!%s/bin/python3\nprint('ran')\n" % folder)
            os.chmod(script, 0o755)
            self.refused(tells, "tool", env=dict(self.env, PATH=os.path.dirname(script) + ":" + self.env["PATH"]))
            prefix = self.copied(python, "copy" + version)
            code, out, err = self.call([RUN, "-r", "1000", "-o", self.out, "show.py"], env=self.under(prefix))
            self.assertEqual(code, 0, err)
            self.assertEqual({json.loads(line)[0][0] for line in out.splitlines()}, {describe(PYTHON)[2]})
            self.assertRegex(err, r"\Apyprof-run: python3 on PATH is CPython %s\..*: taking %s" % (version, re.escape(PYTHON)))
            os.unlink(self.out)

    def fake(self, name, text):
        path = self.file(name, text)
        os.chmod(path, 0o755)
        return path

    def test_other_implementations(self):
        answers = "#!/bin/sh\nprintf '%%s\\n' '%s' '%s' '%s'\n"
        builds = [("%d.%d" % VERSION + flags, "CPython %d.%d.1" % VERSION) for flags in ("", "d", "t")
                  if flags != describe(PYTHON)[1]]
        for tag, version in [("3.10", "PyPy 3.10.14"), ("%d.%d" % VERSION, "PyPy %d.%d.1" % VERSION),
                             ("3.99", "CPython 3.99.0"), ("3.8", "graalpy 3.8.5")] + builds:
            with self.subTest(version + " " + tag):
                path = os.path.join(self.work, "fake", "bin", "python3")
                self.fake("fake/bin/python3", answers % (path, tag, version))
                tells = re.escape("%s is %s (%s)" % (path, version, tag))
                self.refused(tells, "--", path, "show.py")
                self.refused(tells, "show.py", env=self.under(os.path.join(self.work, "fake"), variable=True))
                env = self.under(os.path.join(self.work, "fake"))
                code, out, err = self.call([RUN, "-o", self.out, "-c", "import sys; print(sys.executable)"], env=env)
                self.assertEqual((code, out), (0, PYTHON + "\n"))
                self.assertRegex(err, r"\Apyprof-run: python3 on PATH is %s.*: taking %s" % (version, re.escape(PYTHON)))
                os.unlink(self.out)

    def test_what_is_no_python(self):
        for text in ("#!/bin/sh\nexit 3\n", "#!/bin/sh\n", "#!/bin/sh\necho one\n", "#!/no/such\n", "\x7fELF nothing",
                     "#!/bin/sh\nyes\n", "#!/bin/sh\nkill -9 $$\n"):
            with self.subTest(text):
                path = self.fake("fake/bin/python3", text)
                self.refused(r"(is no Python 3|does not run)", "--", path, "show.py")
                self.refused("does not run", "show.py", env=self.under(os.path.join(self.work, "fake"), variable=True))
                code, out, err = self.call([RUN, "-o", self.out, "-c", "import sys; print(sys.executable)"],
                                           env=self.under(os.path.join(self.work, "fake")))
                self.assertEqual((code, out), (0, PYTHON + "\n"))
                self.assertRegex(err, r"\Apyprof-run: .*fake/bin/python3 does not run: taking %s" % re.escape(PYTHON))
                os.unlink(self.out)

    def test_an_environment_without_python(self):
        """Its python was deinstalled, say: a shell takes the next one on PATH, and so do we, with a warning."""
        self.file("planted.py", "here = True\n")
        os.makedirs(os.path.join(self.work, "gone", "bin"))
        for link in (False, True):
            if link:
                os.symlink("/no/such/python3", os.path.join(self.work, "gone", "bin", "python3"))
            env = self.under(os.path.join(self.work, "gone"), variable=True)
            expected = self.call(["python3", "show.py"], env={k: v for k, v in env.items() if k != "OUT"})
            code, out, err = self.call([RUN, "-r", "1000", "-o", self.out, "show.py"], env=env)
            self.assertEqual((code, out), expected[:2])
            self.assertRegex(err, r"\Apyprof-run: warning: VIRTUAL_ENV is .*/gone, which has no bin/python3\n")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_more_rights_than_the_caller(self):
        folder = self.copied(PYTHON, "copy")
        python = os.path.join(folder, "bin", "python3")
        tells = "runs with rights of its own"
        for mode in (0o4755, 0o2755):
            os.chmod(python, mode)
            self.refused(tells, "--", python, "show.py")
            self.refused(tells, "show.py", env=self.under(folder, variable=True))
        os.chmod(python, 0o755)
        if shutil.which("setcap", path="/sbin:/usr/sbin:" + os.environ["PATH"]):
            subprocess.check_call(["setcap", "cap_net_raw+ep", python], env=dict(os.environ, PATH="/sbin:/usr/sbin:/bin:/usr/bin"))
            self.refused(tells, "--", python, "show.py")

    def test_a_script_names_another_environment(self):
        """What pip installs runs by the python that its first line names, whatever is active."""
        one, other = self.environment(PYTHON, "one"), self.environment(PYTHON, "other")
        script = self.fake("one/bin/tool", "#!%s/bin/python3\n%s" % (one, SHOW))
        env = self.under(other, variable=True)
        expected = self.call([script], env=self.plain)
        for words in ([script], ["one/bin/tool"]):
            self.assertEqual(json.loads(self.profiled(*words, env=env)[1].splitlines()[0])[0][1], one)
        env["PATH"] = os.path.join(one, "bin") + ":" + env["PATH"]
        self.assertEqual(self.profiled("tool", env=env)[1], expected[1])


if __name__ == "__main__":
    unittest.main()
