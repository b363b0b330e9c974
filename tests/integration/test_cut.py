"""Where CPython's own chain of frames is cut, what is shown begins where the thread does, and says that there is a gap."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import harness

GAP = '[truncated]'


class CutTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        run = harness.Run(os.path.join(HERE, 'cut.py'), [], ['collapsed,samples,idle'], 500)
        cls.stacks = [([frame.name for frame in stack.frames], stack.value) for stack in run.script_stacks('collapsed,samples,idle')]

    def paths_to(self, leaf):
        """Without what could not be read as it changed."""
        found = [(names[:names.index(leaf)], count) for names, count in self.stacks if leaf in names]
        self.assertGreater(sum(count for _, count in found), 20, leaf)
        return [names for names, _ in found]

    def test_every_stack_has_its_root(self):
        for names, _ in self.stacks:
            self.assertIn(names[0], ('at_the_root', GAP) if 'at_the_root' in names else ('<module>',), names)

    def test_generator_may_be_the_root(self):
        """On 3.10 it looks like one into which an exception is thrown, and that has just lost its caller."""
        found = [names for names in self.paths_to('spend') if 'at_the_root' in names]
        self.assertTrue(found)
        for names in found:
            self.assertEqual(names, [GAP, 'at_the_root'] if harness.python_version() == (3, 10) else ['at_the_root'])

    def check(self, leaf, way, most_inner):
        """As CPython links them, or from the root on with a gap; never others. To 3.8 those between are left out."""
        is_whole = harness.python_version() >= (3, 10)
        for names in self.paths_to(leaf):
            self.assertEqual(names[-1], most_inner, names)
            if GAP in names:
                self.assertFalse(is_whole, names)
                self.assertEqual(names[:2], ['<module>', GAP])
                self.assertEqual(names[2:], way[-len(names[2:]):])
            elif is_whole:
                self.assertEqual(names[-len(way):], way)

    def test_cancelled_task(self):
        self.check('of_cancel', ['outer', 'middle', 'inner'], 'inner')

    def test_throw(self):
        self.check('of_throw', ['throws', 'outer_generator', 'middle_generator', 'inner_generator'], 'inner_generator')

    def test_close(self):
        for names in self.paths_to('of_close'):
            self.assertEqual(names[:2], ['<module>', 'closes'])
            self.assertEqual(names[-1], 'inner_generator')

    def test_asynchronous_generators(self):
        for leaf in ('of_athrow', 'of_aclose'):
            for names in self.paths_to(leaf):
                self.assertEqual(names[-1], 'inner_async')

    def test_what_has_not_begun_has_called(self):
        for names in self.paths_to('of_begin'):
            self.assertEqual(names, ['<module>', 'begins', 'profiles'])


if __name__ == '__main__':
    harness.main()
