"""A program under pyprof-run that makes other processes: they do what they do without it, and its profile is its own."""

import os
import textwrap
import unittest

from case import BUSY, Case, RUN, VERSION


class Children(Case):
    def test_fork(self):
        self.file("fork.py", BUSY + textwrap.dedent("""
            import os, sys
            busy()
            def child(): busy(); sys.exit(7)
            pid = os.fork()
            if not pid:
                child()
            print(os.waitpid(pid, 0)[1] >> 8, os.path.exists(os.environ["OUT"]))
            """))
        self.assertEqual(self.same("fork.py")[:2], (0, "7 False\n"))
        self.assertProfileHolds("busy", "leaf_of_busy")
        self.assertNotRegex(self.read(), r"child \(")

    def test_forked_children_die_by_their_signals(self):
        self.file("fork.py", """
            import os, signal, time
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                pid = os.fork()
                if not pid:
                    time.sleep(60)
                    os._exit(0)
                os.kill(pid, number)
                print(os.waitpid(pid, 0)[1], os.path.exists(os.environ["OUT"]))
            """)
        self.assertEqual(self.same("fork.py")[1], "15 False\n1 False\n2 False\n")

    def test_parent_ends_before_its_child(self):
        self.file("fork.py", """
            import os, sys, time
            if not os.fork():
                while not os.path.exists(os.environ["OUT"]): time.sleep(0.01)
                before = os.stat(os.environ["OUT"])
                os.set_inheritable(1, True)
                os.spawnl(os.P_WAIT, "/bin/true", "true")
                print(before.st_ino == os.stat(os.environ["OUT"]).st_ino)
                sys.exit(0)
            """)
        code, out, err = self.profiled("fork.py")
        self.assertEqual((code, out, err), (0, "True\n", ""))
        self.assertNoLitter()

    FORKS = """
        import os, threading, time, unittest, warnings
        def fork():
            pid = os.fork()
            if not pid: os._exit(0)
            return os.waitpid(pid, 0)[1]
        def fork_beside_a_thread():
            go = threading.Event()
            thread = threading.Thread(target=go.wait)
            thread.start()
            try: return fork()
            finally: go.set(); thread.join()
        class Forks(unittest.TestCase):
            def test_fork(self): self.assertEqual(fork(), 0)
            def test_caught(self):
                for act in (warnings.resetwarnings, lambda: warnings.simplefilter("error"), lambda: warnings.simplefilter("always")):
                    with warnings.catch_warnings(record=True) as heard:
                        act()
                        fork()
                        import multiprocessing
                        child = multiprocessing.get_context("fork").Process(target=int); child.start(); child.join()
                        pid, terminal = os.forkpty()
                        if not pid: os._exit(0)
                        os.waitpid(pid, 0)
                    self.assertEqual([str(one.message) for one in heard], [])
        """

    def test_fork_warnings_are_the_programs_own(self):
        """CPython 3.12 and later warn where a process with more than one thread forks: ours are not counted."""
        self.file("forks.py", self.FORKS)
        self.file("plain.py", "import forks, warnings; print(forks.fork()); warnings.warn('mine', DeprecationWarning)")
        self.file("threads.py", "import forks; print(forks.fork_beside_a_thread()); print(forks.fork())")
        self.file("often.py", "import forks, warnings\nwarnings.resetwarnings()\n"
                              "for i in range(30): forks.fork()\nprint('over')")
        for options in ((), ("-W", "error::DeprecationWarning:forks"), ("-W", "always"), ("-X", "dev")):
            with self.subTest(options):
                self.assertIn("mine", self.same(*options, "plain.py")[2])
                code, out, err = self.same(*options, "threads.py", profile=None)
                if options in (("-W", "always"), ("-X", "dev")):
                    self.assertEqual("multi-threaded" in err, VERSION >= (3, 12), err)
                self.assertEqual(self.same(*options, "often.py")[:2], (0, "over\n"))
        code, out, err = self.profiled("-m", "unittest", "forks")
        self.assertEqual((code, err.splitlines()[-1]), (0, "OK"), err)

    def test_multiprocessing(self):
        self.file("many.py", BUSY + textwrap.dedent("""
            import multiprocessing, os, sys
            def square(n): busy(); return n * n, sys.executable, __name__
            def beside(): busy()
            if __name__ == "__main__":
                multiprocessing.set_start_method(sys.argv[1])
                with multiprocessing.Pool(2) as pool:
                    squares = pool.map_async(square, range(5))
                    beside()
                    print(squares.get())
                print(os.path.exists(os.environ["OUT"]))
            """))
        for method in ("spawn", "fork", "forkserver"):
            with self.subTest(method):
                self.assertTrue(self.same("many.py", method)[1].endswith("False\n"))
                self.assertProfileHolds("beside", "leaf_of_busy")
                self.assertNotRegex(self.read(), r"square \(")
                os.unlink(self.out)

    def test_subprocess(self):
        self.file("sub.py", """
            import os, subprocess, sys
            print(subprocess.check_output([sys.executable, "-c", "import sys; print(sys.path, sys.argv)", "a"]))
            print(subprocess.check_output("echo shell; exit 0", shell=True, preexec_fn=os.getpid))
            print(subprocess.call([sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"]))
            print(os.path.exists(os.environ["OUT"]))
            """)
        self.assertEqual(self.same("sub.py")[0], 0)

    def test_children_beside_busy_threads(self):
        self.file("busy.py", BUSY + textwrap.dedent("""
            import os, subprocess, sys, threading, warnings
            warnings.simplefilter("ignore")  # since 3.12: a fork beside threads
            is_over = False
            def go_on():
                while not is_over: busy()
            threads = [threading.Thread(target=go_on) for _ in range(2)]
            for thread in threads: thread.start()
            for turn in range(10):
                child = os.fork()
                if not child: os.execl("/bin/echo", "echo", str(turn))
                print(os.waitpid(child, 0)[1])
                print(subprocess.check_output(["/bin/echo", "piped"], close_fds=False))
                print(subprocess.check_output(["/bin/echo", "called"], preexec_fn=os.getpid))
            is_over = True
            for thread in threads: thread.join()
            """))
        expected = self.call(["python3", "busy.py"])
        self.assertEqual(expected[0], 0)
        self.assertEqual(self.call([RUN, "-q", "-r", "10000", "-o", self.out, "busy.py"]), expected)
        self.assertProfileHolds("go_on", "busy", "leaf_of_busy")
        self.assertNoLitter()


if __name__ == "__main__":
    unittest.main()
