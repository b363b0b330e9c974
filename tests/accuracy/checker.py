"""Holds a stack against the program that generate.py wrote: says what in it cannot be."""

import harness


class Checker:
    def __init__(self, functions, file):
        self.functions = functions
        self.file = file

    def complaint(self, stack):
        """What is wrong with a stack, in words; None when it is one that the program can have."""
        frames = stack.frames
        if frames and frames[-1].name == '[unsettled]':
            frames = frames[:-1]  # what lies below changed while it was read, and is not claimed
        if not frames:
            return 'no frames'
        if harness.is_before_script(stack):
            return None
        return (self._root_complaint(stack.thread, frames[0]) or self._pairs_complaint(frames) or
                self._leaf_complaint(frames[-1]))

    def _is_ours(self, frame):
        return frame.file == self.file

    def _root_complaint(self, thread, root):
        if thread == 'MainThread':
            if root.name != '<module>' or not self._is_ours(root):
                return 'the main thread begins with %s' % (root,)
        elif root.name.rpartition('.')[2] != '_bootstrap' or root.file != 'threading.py':
            return 'a thread begins with %s' % (root,)
        return None

    def _pairs_complaint(self, frames):
        for caller, callee in zip(frames, frames[1:]):
            complaint = self._pair_complaint(caller, callee)
            if complaint:
                return complaint
        return None

    def _pair_complaint(self, caller, callee):
        if self._is_ours(caller) and self._is_ours(callee):
            return self._own_pair_complaint(caller, callee)
        if self._is_ours(caller):
            # Only what starts and joins the threads calls into the library.
            return None if caller.name in ('<module>', 'main') else '%s calls %s' % (caller, callee)
        if self._is_ours(callee):
            if caller.name.rpartition('.')[2] != 'run' or callee.name != 'worker':
                return '%s calls %s' % (caller, callee)
        return None

    def _own_pair_complaint(self, caller, callee):
        function = self.functions.get(caller.name)
        if function is None:
            return '%s is no function that calls %s' % (caller, callee)
        if (caller.line, callee.name) in function.calls:
            return None
        return '%s calls %s, not at that line' % (caller, callee)

    def _leaf_complaint(self, leaf):
        if not self._is_ours(leaf):
            return None
        function = self.functions.get(leaf.name)
        if function is None:
            return 'no function %s' % (leaf,)
        if leaf.name == '<module>':
            first, last = 0, function.last  # from 3.11 on, a module's first instruction is at line 0
        else:
            first, last = function.first, function.last
        return None if first <= leaf.line <= last else 'line %d is not in %s' % (leaf.line, leaf.name)
