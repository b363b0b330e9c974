"""What could be wrong in the benchmark without being seen: reading the peers' outputs, judging, the statistics."""

import json
import os
import subprocess
import sys
import tempfile
import types
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import bench  # noqa: E402
import bench_samples  # noqa: E402
import crowd  # noqa: E402
import figures  # noqa: E402
import install  # noqa: E402
import judge  # noqa: E402
import outputs  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
import runner  # noqa: E402
import workloads  # noqa: E402

import generate  # noqa: E402  (tests/accuracy, whose path workloads adds)

Frame, Stack = outputs.Frame, outputs.Stack

PROGRAM = '''def leaf(n):
    return n + 1


def middle(n):
    first = leaf(n)
    print(n)
    return leaf(
        first)


def unit(book):
    middle(1)
'''

MODULE, MAIN = Frame('<module>', 'bench_target.py', 200), Frame('main', 'bench_target.py', 190)
TRUTH, RUN = Frame('truth', 'bench_target.py', 130), Frame('run', 'bench_target.py', 80)
MEASURED = Frame('measured', 'bench_target.py', 50)
DRIVER = (MODULE, MAIN, TRUTH, RUN, MEASURED)
THREAD = (Frame('Thread._bootstrap', 'threading.py', 1), Frame('Thread.run', 'threading.py', 3),
          Frame('run.<locals>.thread_main', 'bench_target.py', 70), MEASURED)
UNIT, MIDDLE, LEAF = Frame('unit', 'p.py', 13), Frame('middle', 'p.py', 6), Frame('leaf', 'p.py', 2)


class JudgeTest(unittest.TestCase):
    def setUp(self):
        self.judge = judge.Judge('p.py', PROGRAM)

    def complaints(self, *frames):
        return self.judge.complaints(frames)

    def test_true_stacks(self):
        for frames in (DRIVER, DRIVER + (UNIT,), DRIVER + (UNIT, MIDDLE, LEAF), THREAD + (UNIT, MIDDLE),
                       DRIVER + (UNIT, MIDDLE._replace(line=8), LEAF),
                       (Frame('_run_code', 'runpy.py', 88),) + DRIVER + (UNIT, MIDDLE, LEAF),
                       DRIVER + (UNIT, MIDDLE._replace(line=7), Frame('write', 'io.py', 3))):
            with self.subTest(frames):
                self.assertEqual(self.complaints(*frames), set())

    def test_impossible(self):
        for frames in (DRIVER + (UNIT, LEAF), DRIVER + (MIDDLE,), DRIVER + (UNIT, LEAF, MIDDLE),
                       DRIVER + (UNIT, MIDDLE, Frame('write', 'io.py', 3)), DRIVER + (UNIT, Frame('gone', 'p.py', 6)),
                       DRIVER + (UNIT, UNIT), DRIVER + (UNIT, MIDDLE, MIDDLE, LEAF),
                       DRIVER + (UNIT, MIDDLE._replace(line=7), Frame('write', 'io.py', 3), LEAF)):
            with self.subTest(frames):
                self.assertIn('illegal', self.complaints(*frames))

    def test_no_root(self):
        for frames in ((UNIT, MIDDLE, LEAF), (MIDDLE, LEAF), (RUN, MEASURED, UNIT), (MEASURED, UNIT),
                       (Frame('Thread.run', 'threading.py', 3), MIDDLE), THREAD[2:] + (UNIT,)):
            with self.subTest(frames):
                self.assertEqual(self.complaints(*frames), {'rootless'})

    def test_missing_in_the_middle(self):
        self.assertIn('illegal', self.complaints(MODULE, MAIN, UNIT))

    def test_wrong_line(self):
        for frames in (DRIVER + (UNIT, MIDDLE._replace(line=7), LEAF), DRIVER + (UNIT, MIDDLE._replace(line=5), LEAF),
                       DRIVER + (UNIT, MIDDLE, LEAF._replace(line=6)), DRIVER + (UNIT, MIDDLE, LEAF._replace(line=-1))):
            with self.subTest(frames):
                self.assertEqual(self.complaints(*frames), {'wrong line'})

    def test_sub_interpreters(self):
        self.judge.roots = ('middle',)
        self.assertEqual(self.complaints(Frame('<module>', '<string>', 1), MIDDLE, LEAF), set())
        self.assertEqual(self.complaints(Frame('<module>', '<string>', 1), LEAF), {'rootless'})

    def test_what_counts(self):
        waiting = Frame('ask', 'bench_target.py', 30)
        other = Frame('poll', 'scheduler.py', 3)
        for frames, expected in ((DRIVER, True), ((MIDDLE, LEAF), True), ((MODULE, MAIN, TRUTH), False),
                                 ((MODULE, MAIN, TRUTH, waiting), False), ((other,), False),
                                 (THREAD, True), (THREAD[:2], False)):
            with self.subTest(frames):
                self.assertEqual(self.judge.counts(Stack('', frames, 1)), expected)

    def test_verdict_counts_samples(self):
        stacks = [Stack('', DRIVER + (UNIT, MIDDLE, LEAF), 5), Stack('', DRIVER + (UNIT, LEAF), 3),
                  Stack('', (MIDDLE, LEAF), 2), Stack('', DRIVER + (UNIT, MIDDLE._replace(line=7), LEAF), 1),
                  Stack('', (MODULE, MAIN), 100),
                  Stack('', DRIVER + (UNIT, MIDDLE, Frame('[unsettled]', '', 0)), 7)]
        self.assertEqual(self.judge.verdict(stacks), judge.Verdict(18, 3, 2, 1))

    def test_graph_is_the_generator_s(self):
        """Two ways to the same graph: the generator's own book, and the text that it wrote."""
        text, functions = generate.generate(1)
        graph = judge.call_graph(text)
        for name, function in functions.items():
            if name not in ('<module>', 'worker', 'main'):
                self.assertEqual(graph[name].calls, function.calls, name)
                self.assertEqual((graph[name].first, graph[name].last), (function.first, function.last), name)

    def test_programs_have_a_unit(self):
        for workload in workloads.WORKLOADS:
            graph = judge.call_graph(workload.text())
            self.assertIn('unit', graph)
            self.assertTrue(graph['unit'].calls, workload.name)
            for root in workload.roots:
                self.assertIn(root, graph)


class ProgramsTest(unittest.TestCase):
    """The programs themselves, on the CPython under test. A sampler that holds the GIL sees true stacks, so what the
    judge says against them would be the judge's mistake, or the graph's."""

    def check(self, kind, seconds, workload, folder):
        place = types.SimpleNamespace(base=os.environ.get('PYPROF_PYTHON', sys.executable), version='')
        programs = os.path.join(folder, 'programs')
        bench.copy_programs(programs)
        result, recording = runner.run(peers.Plain(place), workload, 1000, kind, seconds, 0.03, None, programs,
                                       folder)
        return result, recording

    def sampled(self):
        """From 3.12 on a sub-interpreter has its own GIL, and a program that reads its frames from another crashes."""
        code = 'import sys; raise SystemExit(sys.version_info >= (3, 12))'
        own_gil = subprocess.call([os.environ.get('PYPROF_PYTHON', sys.executable), '-c', code])
        return [workload for workload in workloads.WORKLOADS if not (own_gil and workload.roots)]

    def objections(self, workload):
        """What there is to say against the program's stacks in each of three runs: a sampler that loses the GIL in the
        middle of a stack spoils a sample now and then; a wrong graph is wrong in each."""
        judged = judge.Judge(workload.program, workload.text(), workload.roots)
        wrong, samples = None, 0
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                result, recording = self.check('truth', 0.2, workload, folder)
            self.assertLessEqual(set(result['book']), set(judged.functions), 'it books what it does not have')
            samples += judged.verdict(recording.samples).judged
            in_this_run = {stack.frames for stack in recording.samples
                           if judged.counts(stack) and judged.complaints(stack.frames)}
            wrong = in_this_run if wrong is None else wrong & in_this_run
        self.assertGreater(samples, 0)
        return sorted(wrong)

    def test_true_stacks_are_found_true(self):
        for workload in self.sampled():
            if workload.known:
                with self.subTest(workload.name):
                    self.assertEqual(self.objections(workload)[:1], [])

    def test_stretches_are_told_apart(self):
        with tempfile.TemporaryDirectory() as folder:
            result, recording = self.check('slowdown', 0.4, workloads.WORKLOADS[1], folder)
        self.assertGreaterEqual(len(figures.ratios(result['stretches'])), 1)
        seen = {on: sum(stack.value for stack in recording.samples if judge.is_within(stack, name))
                for on, name in judge.STRETCH.items()}
        self.assertGreater(seen[True], 0)
        self.assertEqual(seen[False], 0)


class CellTest(unittest.TestCase):
    """Whatever goes wrong with one peer is written in its line, and ends nothing else."""

    def failure(self, command):
        class Broken(peers.Plain):
            def target(self, config, script, arguments):
                return command(), {}
        options = types.SimpleNamespace(seconds=0.1, quick=True, stretch=0.03, cores=None)
        cell = bench.Cell(Broken(types.SimpleNamespace(version='')), workloads.WORKLOADS[1], 1000)
        with tempfile.TemporaryDirectory() as folder:
            cell.run(options, folder)
        return cell.failure

    def test_failures(self):
        self.assertIn('/no/such', self.failure(lambda: ['/no/such']))
        self.assertIn('broken', self.failure(lambda: [sys.executable, '-c', 'raise SystemExit("broken")']))
        self.assertIn('ZeroDivisionError', self.failure(lambda: 1 // 0))

    def test_rows(self):
        cell = types.SimpleNamespace(peer=types.SimpleNamespace(name='x'), failure='a | b', results=[])
        self.assertEqual(report.row(cell, None), ['x', 'failed: a / b'])
        cell.failure = None
        self.assertEqual(report.row(cell, None), ['x', 'not run yet'])


class CrowdTest(unittest.TestCase):
    """The table of many threads that wait."""
    WAIT = Frame('wait', crowd.PROGRAM, 40), Frame('descend', crowd.PROGRAM, 36)

    def test_counts(self):
        stacks = [Stack('a', DRIVER, 3), Stack('a', (MODULE, MAIN), 5), Stack('b', self.WAIT, 7),
                  Stack('b', self.WAIT[:1], 1), Stack('c', self.WAIT, 1), Stack('d', self.WAIT[1:], 1),
                  Stack('e', (Frame('wait', 'threading.py', 1),), 1)]
        recording = peers.Recording(stacks, stacks, 0, 0)
        self.assertEqual((crowd.ticks(recording), crowd.seen(recording)), (3, 2))

    def test_slowdown(self):
        self.assertEqual(crowd.slowdown([[False, 10, 900], [True, 10, 2000], [False, 10, 1100]]), 2.0)

    def cell(self, **values):
        peer = types.SimpleNamespace(**dict(dict(name='x', version='1', runs_on='3', records=True), **values))
        return crowd.Cell(peer, 1000)

    def test_rows(self):
        cell = self.cell()
        for took, lost in ((10, 4), (30, 5), (20, 6)):
            result = {'profiler_cpu_ns': took * 10 ** 7, 'nanoseconds': 10 ** 9,
                      'stretches': [[False, 1, 10], [True, 1, took], [False, 1, 10]]}
            cell.add(result, peers.Recording([Stack('a', DRIVER, 500), Stack('b', self.WAIT, 1)], [], lost, 0))
        self.assertEqual(cell.row(''), ['1,000', 'x 1', '3', '0.2000', '1,500', '3,000', '15', '2.000', '1 of 1,000'])
        self.assertEqual(len(cell.row('')), len(crowd.HEADINGS))
        cell.peer.records = False
        self.assertEqual(cell.row(''), ['1,000', 'x 1', '3', '', '', '', '', '2.000', ''])

    def test_what_is_not_had_is_named(self):
        cell = self.cell(version='')
        self.assertEqual(cell.row('no a | b'), ['1,000', 'x', '3', 'not had: no a / b'])
        cell.failure = 'why'
        self.assertEqual(cell.row(''), ['1,000', 'x', '3', 'failed: why'])

    def test_mistakes_are_the_cell_s(self):
        cell = self.cell()
        cell.run(None, '/no/such')
        self.assertIn('AttributeError', cell.failure)

    def test_all_that_wait_are_seen(self):
        place = types.SimpleNamespace(base=os.environ.get('PYPROF_PYTHON', sys.executable), version='')
        with tempfile.TemporaryDirectory() as folder:
            programs = os.path.join(folder, 'programs')
            bench.copy_programs(programs)
            result, recording = runner.run(peers.Plain(place), crowd.workload(9), 1000, 'surrounded', 0.3, 0.05, None,
                                           programs, folder)
        self.assertEqual([is_on for is_on, _, _ in result['stretches']], [False, True, False])
        self.assertGreater(crowd.ticks(recording), 0)
        self.assertEqual(crowd.seen(recording), 9)


class SplitTest(unittest.TestCase):
    def test_errors(self):
        stacks = [Stack('', DRIVER + (UNIT, MIDDLE, LEAF), 30), Stack('', DRIVER + (UNIT, LEAF), 10),
                  Stack('', DRIVER + (UNIT,), 1000)]
        errors = judge.share_errors(stacks, 'p.py', {'middle': 50, 'leaf': 50})
        self.assertEqual(errors, {'middle': 25.0, 'leaf': -25.0})

    def test_nothing_seen_is_all_wrong(self):
        self.assertEqual(judge.share_errors([], 'p.py', {'middle': 75, 'leaf': 25}), {'middle': -75.0, 'leaf': -25.0})

    def test_nothing_known(self):
        self.assertIsNone(judge.share_errors([], 'p.py', {}))
        self.assertIsNone(judge.worst_mean([None, None]))

    def test_worst_mean(self):
        self.assertEqual(judge.worst_mean([{'a': 4.0, 'b': -1.0}, {'a': -2.0, 'b': -3.0}]), 2.0)


class FiguresTest(unittest.TestCase):
    def test_ratios(self):
        stretches = [[True, 10, 2000], [False, 10, 1000], [False, 20, 2000], [True, 10, 1500]]
        self.assertEqual(figures.ratios(stretches), [2.0, 1.5])

    def test_ratios_need_pairs(self):
        with self.assertRaises(ValueError):
            figures.ratios([[True, 1, 1], [True, 1, 1]])

    def test_interval(self):
        """From tables of the sign test: for 10 values the 2nd and the 9th, for 20 the 6th and the 15th."""
        self.assertEqual(figures.median_interval(range(1, 11)), (5.5, 2, 9))
        self.assertEqual(figures.median_interval(range(1, 21)), (10.5, 6, 15))
        self.assertEqual(figures.median_interval(range(1, 7)), (3.5, 1, 6))
        self.assertEqual(figures.median_interval(range(1, 6)), (3, None, None))

    def test_order_does_not_matter(self):
        self.assertEqual(figures.median_interval([9, 1, 8, 2, 7, 3, 6, 4, 5, 10]), (5.5, 2, 9))


class OutputsTest(unittest.TestCase):
    def test_pyprof(self):
        text = 'thread MainThread;<module> (t.py:21);main (t.py:12) 183\n'
        self.assertEqual(outputs.pyprof(text), [Stack('MainThread', (Frame('<module>', 't.py', 21),
                                                                     Frame('main', 't.py', 12)), 183)])

    def test_pyspy(self):
        text = 'thread (11): Thread-1 (worker);Thread.run (/a b/threading.py:992);rec (/a b/t.py:14) 181\n'
        self.assertEqual(outputs.pyspy(text), [Stack('thread (11): Thread-1 (worker)', (
            Frame('Thread.run', 'threading.py', 992), Frame('rec', 't.py', 14)), 181)])

    def test_pyspy_without_a_line(self):
        text = 'thread (11): MainThread;f (t.py:3);<lambda> (x) (y) 1\n'
        self.assertEqual(outputs.pyspy(text)[0].frames, (Frame('f', 't.py', 3), Frame('<lambda> (x)', 'y', 0)))

    def test_austin(self):
        text = '# austin: 4.0.0\n# mode: wall\nP1;T0:7;/a/t.py:<module>:21;/a/t.py:main:12 1067\n'
        self.assertEqual(outputs.austin(text), [Stack('T0:7', (Frame('<module>', 't.py', 21),
                                                               Frame('main', 't.py', 12)), 1067)])

    def test_cpython315(self):
        text = 'tid:7;t.py:<module>:21;t.py:main:11;t.py:leaf:-1;~:<GC>:0 2\n'
        self.assertEqual(outputs.cpython315(text), [Stack('tid:7', (
            Frame('<module>', 't.py', 21), Frame('main', 't.py', 11), Frame('leaf', 't.py', -1)), 2)])

    def test_pyinstrument(self):
        text = json.dumps({'frame_records': [[[
            'MainThread\0<thread>\x00140', '<module>\0/a/t.py\x001\1l21', 'main\0/a/t.py\x009\1cC\1l12',
            'sleep\0<built-in>\x000'], 0.0102]]})
        self.assertEqual(outputs.pyinstrument(text), [Stack('MainThread', (
            Frame('<module>', 't.py', 21), Frame('main', 't.py', 12)), 10200)])

    def test_scalene(self):
        text = json.dumps({'stacks': [[['/a b/t.py <module>:21;', '/a b/t.py main:12;'], {'count': 18}]]})
        self.assertEqual(outputs.scalene(text), [Stack('', (Frame('<module>', 't.py', 21),
                                                            Frame('main', 't.py', 12)), 18)])

    def test_pprof(self):
        data = bench_samples.pprof()
        stack = (Frame('<module>', 't.py', 21), Frame('main', 't.py', 300))
        self.assertEqual(outputs.pprof(data, 'wall-samples'), [Stack('T 1', stack, 2)])
        self.assertEqual(outputs.pprof(data, 'wall-time'), [Stack('T 1', stack, 20000000)])
        with self.assertRaises(outputs.FormatError):
            outputs.pprof(data, 'cpu-samples')

    def test_broken_lines(self):
        for reader, text in ((outputs.pyspy, 'thread 1;main (t.py:1)'), (outputs.pyspy, 'main (t.py:1) 3'),
                             (outputs.austin, 'P1;T0:7;t.py:main 5'), (outputs.cpython315, 'tid:7;main 5'),
                             (outputs.pyprof, 'thread a;main (t.py:1) 3')):
            with self.subTest(text), self.assertRaises(outputs.FormatError):
                reader(text)


class LogsTest(unittest.TestCase):
    """How much each says that it lost, from lines that it printed."""

    def test_pyspy(self):
        self.assertEqual(peers.count(peers.PySpy.errors, "py-spy> Wrote raw flamegraph data to 'o'. Samples: 366 "
                                                         "Errors: 12\n"), 12)

    def test_austin(self):
        log = '      Error rate\x1b[0;30m . . \x1b[0m\x1b[1m92/2258\x1b[0m (\x1b[1m4.07%\x1b[0m)\n'
        self.assertEqual(peers.count(peers.Austin.errors, peers.plain_text(log)), 92)

    def test_cpython315(self):
        log = 'Captured 1,200 samples in 2.58 seconds\nSample rate: 100.38 samples/sec\nError rate: 2.50\n'
        self.assertEqual(peers.Cpython315.lost(log), 30)
        self.assertIsNone(peers.Cpython315.lost('Traceback'))


class ReportTest(unittest.TestCase):
    def test_table(self):
        self.assertEqual(report.table(('a', 'bb', 'c'), [['ccc', 'd', 'e'], ['long', 'failed: why']]),
                         ['| a    | bb | c |', '|------|----|---|', '| ccc  | d  | e |', '| long | failed: why |'])

    def test_percent(self):
        self.assertEqual([report.percent(*pair) for pair in ((0, 0), (0, 9), (1, 9), (1, 100000))],
                         ['n/a', '0', '11 %', '0.001 %'])

    def test_summary(self):
        def row(name, **values):
            return [name] + [values.get(heading.replace(' ', '_'), '') for heading in report.HEADINGS[1:]]
        rows = {}
        for rate in (1000, 10000):
            rows['x', 'calls', rate] = row('x', slowdown='1.0', asked='200', taken='150', impossible='0')
            rows['x', 'split', rate] = row('x', split_error='0.%d' % (rate // 1000))
            rows['y', 'calls', rate] = rows['y', 'split', rate] = ['y', 'failed: why']
        *_, x, y, empty = report.summary(['x', 'y'], rows)
        self.assertEqual([cell.strip() for cell in x.split('|')[1:-1]],
                         ['x', '1.0 / 1.0', 'n/a / n/a', '75.0 % / 75.0 %', '0 / 0', 'n/a / n/a', '0.1 / 0.10',
                          'n/a / n/a'])
        self.assertEqual({cell.strip() for cell in y.split('|')[2:-1]}, {'n/a / n/a'})
        del rows['x', 'split', 10000]
        self.assertEqual(report.summary(['x', 'y'], rows), [])

    def test_asked_counts_the_waiting_main_thread(self):
        def cell(threads, one_thread=False):
            return types.SimpleNamespace(workload=types.SimpleNamespace(threads=threads), rate=1000,
                                         peer=types.SimpleNamespace(one_thread=one_thread),
                                         results=[{'nanoseconds': 2 * 10 ** 9}, {'nanoseconds': 10 ** 9}])
        self.assertEqual([report.asked(cell(1)), report.asked(cell(16)), report.asked(cell(16, True))],
                         [3000, 51000, 3000])

    def test_written_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'report.md')
            report.write(path, 'new')
            with open(path) as file:
                self.assertEqual(file.read(), 'new')
            self.assertEqual(os.listdir(folder), ['report.md'])


class InstallTest(unittest.TestCase):
    def test_reason(self):
        self.assertEqual(install.reason('a\nERROR: No matching distribution\n\n[notice] b\n'),
                         'ERROR: No matching distribution')
        self.assertEqual(install.reason(' a\nb \n'), 'b')

    def test_all_packages_are_in_the_requirements(self):
        packages = {peer.package for peer in peers.ALL if issubclass(peer, peers.Packaged)}
        self.assertLessEqual(packages, set(install.requirements()))

    def test_a_failing_command_says_why(self):
        with self.assertRaisesRegex(install.Missing, 'no such thing'):
            install.call([sys.executable, '-c', 'raise SystemExit("no such thing")'])


if __name__ == '__main__':
    unittest.main(verbosity=2)
