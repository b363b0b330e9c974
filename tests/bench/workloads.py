"""The programs that all profilers watch."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, 'accuracy'))

import generate  # noqa: E402


class Workload:
    def __init__(self, name, about, program, argument='', threads=1, roots=(), known=True, seconds=0):
        self.name = name
        self.about = about
        self.program = program    # a file under programs/, or one that is generated
        self.argument = argument
        self.threads = threads
        self.roots = roots        # functions that a sub-interpreter begins with
        self.known = known        # whether its call graph is
        self.seconds = seconds    # that its figures need, at least, but for a quick look

    def text(self):
        if self.program == 'bench_calls.py':
            return generated()
        return read(self.program)


def read(name):
    with open(os.path.join(HERE, 'programs', name), encoding='utf-8') as file:
        return file.read()


def generated(seed=1):
    """tests/accuracy/generate.py's program, called from unit() instead of from its own main()."""
    text, _ = generate.generate(seed)
    body, last, rest = text.rpartition('main()\n')
    if not last or rest:
        raise ValueError('the generated program does not end with main()')
    return body + 'def unit(book):\n    f00_00(1)\n'


WORKLOADS = (
    Workload('calls', 'short functions, 13 levels, known call graph', 'bench_calls.py'),
    Workload('split', 'five kinds of work, known split', 'bench_split.py', seconds=10),
    Workload('recursion-100', 'work 100 frames deep', 'bench_recursion.py', '100'),
    Workload('recursion-900', 'work 900 frames deep', 'bench_recursion.py', '900'),
    Workload('threads', '16 threads: computing, in C, waiting', 'bench_threads.py', threads=16),
    Workload('subinterpreters', 'one thread in three interpreters', 'bench_subinterpreters.py',
             roots=('plugin_one', 'plugin_two')),
    Workload('waiting', 'waits nine tenths of the time', 'bench_waiting.py'),
    Workload('library', 'the standard library indexes and compiles itself', 'bench_library.py', known=False),
)
