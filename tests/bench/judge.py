"""Holds what a profiler recorded against the program: which stacks cannot be, and how the time was split.

The call graph comes from the program's text. Programs under programs/ call their own functions by plain names only,
so that every pair (line, callee) stands in the text.
"""

import ast
import collections

TARGET = 'bench_target.py'  # what runs the programs, see there
PATH = ('<module>', 'main', 'truth', 'run', 'thread_main', 'measured')  # its functions on the way to a program's
WINDOW = ('run', 'thread_main')  # one of these is on every stack of the time that counts
STRETCH = {True: 'stretch_on', False: 'stretch_off'}  # its loops while the slowdown is measured
THREAD_ROOT = '_bootstrap'

Function = collections.namedtuple('Function', 'first last calls libraries')
Verdict = collections.namedtuple('Verdict', 'judged illegal rootless wrong_lines')


def call_graph(text):
    """{name: Function} of a module's functions: their lines, the (line, callee) they call, where they call others."""
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    names = {node.name for node in found}
    return {node.name: function_of(node, names) for node in found}


def function_of(node, names):
    calls, libraries = set(), set()
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            own = isinstance(call.func, ast.Name) and call.func.id in names
            if own:
                calls.add((call.lineno, call.func.id))
            else:
                libraries.add(call.lineno)
    return Function(node.lineno, node.end_lineno, calls, libraries)


def plain_name(frame):
    """The name without its class or function: not every version of CPython knows them."""
    return frame.name.rpartition('.')[2]


def is_within(stack, name):
    """Whether the stack is of that function of the target."""
    return any(frame.file == TARGET and plain_name(frame) == name for frame in stack.frames)


class Judge:
    def __init__(self, file, text, roots=(), trimmed=False):
        self.file = file
        self.functions = call_graph(text)
        self.roots = roots      # functions of the program that a sub-interpreter begins with
        self.trimmed = trimmed  # whether the profiler leaves out frames of the library

    def is_program(self, frame):
        return frame.file == self.file

    def is_ours(self, frame):
        return frame.file in (self.file, TARGET)

    def counts(self, stack):
        """Whether the stack is of the time that is measured, as far as it can be told."""
        driver = [plain_name(frame) for frame in stack.frames if frame.file == TARGET]
        if any(name not in PATH for name in driver):
            return False
        return any(name in WINDOW for name in driver) or any(map(self.is_program, stack.frames))

    def is_rooted(self, frames, first):
        """Whether a stack, of which the first frame that is ours is given, begins where its thread began."""
        frame = frames[first]
        if frame.file == TARGET and frame.name == '<module>':
            return True
        if frame.file == TARGET and plain_name(frame) == 'thread_main':
            return self.trimmed or plain_name(frames[0]) == THREAD_ROOT
        return self.is_program(frame) and plain_name(frame) in self.roots

    def pair(self, caller, callee):
        """None when the pair can be, else 'illegal' or 'wrong line'."""
        if not self.is_program(caller):
            return self.pair_into_program(caller, callee)
        function = self.functions.get(plain_name(caller))
        if function is None:
            return 'illegal'
        if not self.is_program(callee):
            return None if caller.line in function.libraries else 'illegal'
        name = plain_name(callee)
        if (caller.line, name) in function.calls:
            return None
        return 'wrong line' if any(name == own for _, own in function.calls) else 'illegal'

    def pair_into_program(self, caller, callee):
        if not self.is_program(callee):
            return None
        name = plain_name(callee)
        if caller.file == TARGET:
            return None if (plain_name(caller), name) == ('measured', 'unit') else 'illegal'
        return None if name in self.roots else 'illegal'

    def complaints(self, frames):
        """What is wrong with a stack, as a set of words."""
        first = next(index for index, frame in enumerate(frames) if self.is_ours(frame))
        found = {self.pair(*pair) for pair in zip(frames[first:], frames[first + 1:])}
        if not self.is_rooted(frames, first):
            found.add('rootless')
        found.add(self.leaf(frames[-1]))
        return found - {None}

    def leaf(self, frame):
        if not self.is_program(frame):
            return None
        function = self.functions.get(plain_name(frame))
        if function is None:
            return 'illegal'
        return None if function.first <= frame.line <= function.last else 'wrong line'

    def verdict(self, stacks):
        """Counts samples; one that is wrong in two ways counts in both."""
        totals = collections.Counter()
        for stack in stacks:
            if not self.counts(stack):
                continue
            totals['judged'] += stack.value
            for word in self.complaints(shown(stack.frames)):
                totals[word] += stack.value
        return Verdict(totals['judged'], totals['illegal'], totals['rootless'], totals['wrong line'])


def shown(frames):
    """Without the marker below which pyprof claims nothing."""
    return frames[:-1] if frames and frames[-1].name == '[unsettled]' else frames


def split(stacks, file, names):
    """{name: sum} of the stacks below those functions of the program that it measured itself."""
    totals = dict.fromkeys(names, 0)
    for stack in stacks:
        for frame in stack.frames:
            if frame.file == file and plain_name(frame) in totals:
                totals[plain_name(frame)] += stack.value
                break
    return totals


def shares(values):
    total = sum(values.values())
    return {name: 100.0 * value / total for name, value in values.items()} if total else None


def share_errors(stacks, file, truth):
    """{function: its share here - its true share}, in percentage points; None when nothing is known of it.

    A profiler that shows none of the functions has no share of any of them right."""
    known = shares(truth)
    if not known:
        return None
    seen = shares(split(stacks, file, truth)) or dict.fromkeys(known, 0.0)
    return {name: seen[name] - known[name] for name in known}


def worst_mean(errors):
    """The largest of the functions' mean errors over several runs; None when there are none."""
    known = [one for one in errors if one]
    if not known:
        return None
    return max(abs(sum(one[name] for one in known)) / len(known) for name in known[0])
