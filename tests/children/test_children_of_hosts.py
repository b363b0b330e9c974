"""pyprof-run --host PROGRAM --subprocesses: what a host leaves to its children is in the profile, by process."""

import os
import unittest

from family import BURN, Family, RUN

FOLDER = os.path.join(os.environ["PYPROF_BUILD"], "tests", "children")
WORKERS, OTHERS = os.path.join(FOLDER, "workers"), os.path.join(FOLDER, "others")
POINTS = 0.03


def burn(name, seconds):
    return BURN + "burn(%r, %r)\n" % (name, seconds)


class ChildrenOfHosts(Family):
    def hosted(self, *arguments):
        return self.followed("--host", *arguments)

    def check_shares(self, lines, names):
        """names: {function: its process's program}. Of the work that was measured, each has the share that it took."""
        truth = self.truth(lines)
        shown = {(pid, name): value for (pid, _), functions in self.processes().items()
                 for name, value in functions.items() if name in names}
        self.assertEqual(set(shown), set(truth))
        self.assertEqual({name: program for (pid, program), functions in self.processes().items()
                          for name in functions if name in names}, names)
        for key, seconds in truth.items():
            self.assertAlmostEqual(shown[key] / sum(shown.values()), seconds / sum(truth.values()), delta=POINTS)

    def test_a_host_and_its_children(self):
        """Forked after CPython began in it; another program with CPython in it; and a forked child of that."""
        lines, err = self.hosted(WORKERS, "run", burn("in_host", 0.4), "fork", burn("in_fork", 0.8), "execute", OTHERS,
                                 "fork", burn("in_forked_other", 0.6), "run", burn("in_other", 0.2))
        self.check_shares(lines, {"in_host": "workers", "in_fork": "workers", "in_other": "others",
                                  "in_forked_other": "others"})
        self.assertIn("; 3 child processes were recorded, too", err)

    def test_only_its_children(self):
        """CPython begins in the workers, and never in the host."""
        lines, err = self.hosted(WORKERS, "fork", burn("in_first", 0.3), "fork", burn("in_second", 0.6))
        self.check_shares(lines, {"in_first": "workers", "in_second": "workers"})
        self.assertNotIn("nothing was recorded", err)
        self.assertIn("; 2 child processes were recorded, too", err)

    def test_through_a_script(self):
        """A shell executes the host, and is no host."""
        script = self.file("script.sh", "#!/bin/sh\n\"$@\"\nexec \"$@\"\n")
        os.chmod(script, 0o755)
        lines, _ = self.hosted(script, WORKERS, "run", burn("in_it", 0.3))
        self.check_shares(lines, {"in_it": "workers"})
        self.assertEqual(len(self.truth(lines)), 2)

    def test_children_see_their_own_environment(self):
        code = "import os; print({name for name in os.environ if 'PYPROF_RUN' in name or 'PRELOAD' in name}, flush=True)"
        lines, _ = self.hosted(WORKERS, "run", burn("in_host", 0.1), "run", code, "fork", code, "execute", OTHERS, "run",
                               code)
        self.assertEqual(lines[1:], ["set()"] * 3)

    def test_without_it_the_host_alone(self):
        code, _, err = self.profiled("--host", WORKERS, "run", burn("in_host", 0.2), "fork", burn("in_fork", 0.2),
                                     "execute", OTHERS, "run", burn("in_other", 0.2))
        self.assertEqual(code, 0, err)
        self.assertIn("in_host", self.read())
        self.assertNotIn("in_fork", self.read())
        self.assertNotIn("in_other", self.read())

    def test_no_python_anywhere(self):
        code, _, err = self.call([RUN, "--subprocesses", "-o", self.out, "--host", WORKERS])
        self.assertEqual(code, 0)
        self.assertIn("no Python began in workers, nor in a child process of it", err)
        self.assertFalse(os.path.exists(self.out))


if __name__ == "__main__":
    unittest.main(verbosity=2)
