"""pyprof-convert's pictures: the same whether stacks went into a profile or straight into the tree that is drawn, and the
largest frames, whatever the metric."""

import itertools
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import profiles
from profiles import convert
from test_convert import Handmade, InFolder

OPTIONS = [(), ('-i',), ('-t',), ('--inverted', '-t', '-i')]
THREADS = b'thread Main;a (x.py:1);b (y.py:2) 10\nthread Main;a (x.py:1) 7\nthread w-1;a (x.py:1);b (y.py:2) 3\nthread w-2;c 1\n'
IMPORTS = b'thread Main;a (x.py:1);_find_and_load (<frozen importlib._bootstrap>:7);_load (<frozen importlib._bootstrap>:9) 5\n' \
          b'thread Main;a (x.py:1);import;_load (<frozen importlib._bootstrap>:9) 2\n'
# What cannot go into a tree as it comes, so the file is read again: threads and none; frames that are called alike in
# the end, or as the root is.
MIXED = b'a;b 3\nthread (7): "Main";a;b 4\n'
ALIKE = b'thread Main;a (x.py);b 3\nthread Main;a (x.py:0);b 4\n'
ROOT = b'all;b 3\nb;all 4\n'


class OneOrTwo(InFolder):
    """A second output has all go into a profile: then the picture is drawn from that."""

    def same(self, source, *options):
        one, two = self.path('one.svg'), self.path('two.svg')
        convert(source, '-o', one, *options)
        convert(source, '-o', two, '-o', self.path('two.jsonl'), *options)
        self.assertEqual(profiles.content(one), profiles.content(two), (source, options))
        return profiles.content(one)


class Texts(OneOrTwo):
    def test_collapsed(self):
        for text, options in itertools.product([THREADS, IMPORTS, MIXED, ALIKE, ROOT], OPTIONS):
            self.assertIn(b'</svg>', self.same(self.put('t.txt', text), *options))

    def test_both_kinds_of_stacks_are_drawn(self):
        svg = self.same(self.put('t.txt', MIXED), '-t')
        self.assertIn(b'all threads', svg)
        self.assertIn(b'Main', svg)

    def test_a_frame_is_called_as_the_root(self):
        self.assertGreater(self.same(self.put('t.txt', ROOT)).count(b'all'), self.same(self.put('u.txt', b'x;b 3\nb;x 4\n')).count(b'all'))


class Pprof(OneOrTwo):
    """Labels, inlined lines, stacks that begin as the one before, or are of another thread."""

    A, B, C = (('a', 'x.py', 1),), (('inner', 'y.py', 3), ('outer', 'y.py', 2)), 4096

    def put_pprof(self, *samples, types=(('samples', 'count'), ('cpu', 'nanoseconds'))):
        file = profiles.Pprof(list(types))
        for stack, labels in samples:
            file.add(stack, [2, 20000000][:len(types)], labels)
        return self.put('p.pb.gz', file.data())

    def test_threads(self):
        main, worker, idle = ('thread', 'Main'), ('thread', 'w'), ('state', 'idle')
        path = self.put_pprof(([self.A, self.B], [main]), ([self.A, self.B, self.C], [main]), ([self.A, self.B, self.C], [worker]),
                              ([self.A, self.C], [worker, ('thread_id', 9), idle]), ([], [main]), ([self.B], [('thread_id', 12)]))
        for options in OPTIONS:
            self.assertIn(b'outer', self.same(path, *options))

    def test_no_threads(self):
        path = self.put_pprof(([self.A, self.B], []), ([self.B, self.A], []), ([self.B, self.A, self.A], []), ([], []))
        for options in OPTIONS:
            self.assertIn(b'inner', self.same(path, *options))

    def test_some_threads(self):
        path = self.put_pprof(([self.A, self.B], []), ([self.A], [('thread', 'Main')]))
        self.assertIn(b'Main', self.same(path, '-t'))

    def test_functions_that_look_alike(self):
        alike = ('a (x.py:1)', '', 0),
        self.same(self.put_pprof(([self.A, self.B], []), ([alike, self.B], [])))
        self.same(self.put_pprof(([(('all', '', 0),)], []), ([self.A], [])))

    def test_all_waited(self):
        path = self.put_pprof(([self.A], [('state', 'idle')]), types=[('samples', 'count')])
        for options in OPTIONS:
            self.same(path, *options)


class Recordings(Handmade, OneOrTwo):
    def test_each_format(self):
        for name, options in itertools.product(['wall-idle.pb.gz', 'wall-idle.pb', 'wall-idle.txt', 'wall.jsonl'], OPTIONS):
            self.same(self.source(name), *options)
        for metric in 'cpu', 'gil', 'samples':
            self.same(self.source('wall-idle.pb.gz'), '--metric', metric)


class Largest(InFolder):
    """A picture has room for 20,000 frames."""

    def rows(self, metric):
        yield {'type': 'facts', 'format': 'pyprof-jsonl', 'version': 1}
        yield from ({'type': 'function', 'id': i, 'name': name, 'path': 'x.py'} for i, name in enumerate(['small', 'large']))
        yield {'type': 'thread', 'id': 0, 'name': 'Main', 'is_named': True}
        for i in range(1, 25001):
            yield {'type': 'node', 'id': i, 'parent': 0, 'function': 0, 'line': i, metric: 1}
        for i in range(25001, 25006):
            yield {'type': 'node', 'id': i, 'parent': 0, 'function': 1, 'line': i, metric: 1000000}
        yield {'type': 'end', 'nodes': 25006, 'spans': 0}

    def test_by_the_metric_that_there_is(self):
        """They are kept, though they come last, and there is no wall time."""
        for metric in 'wall_ns', 'cpu_ns', 'gil_ns', 'samples':
            path = self.put('l.jsonl', '\n'.join(map(json.dumps, self.rows(metric))).encode())
            for source in path, self.path('l.pb'):
                svg = convert(source, '-o', self.path('l.svg'), '-o', self.path('again.pb'))
                os.rename(self.path('again.pb'), self.path('l.pb'))
                svg = profiles.content(self.path('l.svg')).decode()
                self.assertEqual([line for line in range(25001, 25006) if 'large (x.py:%d)' % line in svg],
                                 list(range(25001, 25006)), (metric, source))


if __name__ == '__main__':
    unittest.main(verbosity=2)
