"""What the tests of child processes share: programs that make some, and what a profile says of each process."""

import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from case import Case, IS_SANITIZED, lines_of_ours, RUN, wait_until

# burn measures what it takes itself, and prints it: who was it, in which function, and how much CPU time. One write is
# one line, also where processes write beside each other.
BURN = """
import json, os, sys, time

def burn(name, seconds):
    exec("def %s(end):\\n    while time.thread_time() < end:\\n        pass\\n" % name, globals())
    begin = time.thread_time()
    globals()[name](begin + seconds)
    os.write(1, (json.dumps([os.getpid(), name, time.thread_time() - begin]) + "\\n").encode())
"""


class Family(Case):
    def program(self, name, text):
        return self.file(name, BURN + text)

    def followed(self, *arguments, rate="1000", outputs=(), **more):
        """Runs it with --subprocesses; what it printed, as lines, and what was said of it."""
        options = [word for path in (self.out, *outputs) for word in ("-o", path)]
        code, out, err = self.call([RUN, "--subprocesses", "--metric", "cpu", "-F", "-r", rate, *options, *arguments],
                                   **more)
        self.assertEqual(code, 0, err)
        return out.splitlines(), err

    def processes(self):
        """{(pid, program): {function: microseconds}} of the profile, by all functions of a stack."""
        found = {}
        for line in self.read().splitlines():
            stack, value = line.rsplit(" ", 1)
            frames = stack.split(";")
            match = re.fullmatch(r"process (\d+|\*) \((.*)\)", frames[0])
            self.assertIsNotNone(match, line)
            self.assertRegex(frames[1], "^thread ")
            functions = found.setdefault((int(match[1]) if match[1] != "*" else 0, match[2]), {})
            for name in {frame.split(" (")[0] for frame in frames[2:]}:
                functions[name] = functions.get(name, 0) + int(value)
        return found

    def truth(self, lines):
        """{(pid, function): seconds} as the program itself measured it."""
        found = {}
        for line in lines:
            if line.startswith("["):
                pid, name, seconds = json.loads(line)
                found[pid, name] = found.get((pid, name), 0) + seconds
        return found
