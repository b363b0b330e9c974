"""Our pprof files in `go tool pprof`, which is what people read them with. It belongs to Go, and is compiled by its first
call where Go does not bring it along: that needs no network."""

import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))

import harness
import pprof


def missing():
    """Why it cannot be run; None: it can."""
    if not shutil.which('go'):
        return 'no go (Debian: golang-go)'
    done = subprocess.run(['go', 'tool', 'pprof', '-h'], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    return None if 'usage:' in done.stdout.lower() else 'go tool pprof does not run: %s' % done.stdout.strip()[-200:]


def environment():
    values = dict(os.environ, GOFLAGS='-mod=mod', GOPROXY='off', GOTOOLCHAIN='local', GOWORK='off', PPROF_TMPDIR='/nowhere')
    values.setdefault('HOME', tempfile.gettempdir())
    return values


class Go(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        subprocess.run([os.path.join(harness.BUILD, 'tests', 'formats', 'handmade'), cls.folder], check=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), 'rb') as file:
            return pprof.read(file.read())

    def tool(self, *arguments):
        """What it prints. It has nothing to complain of."""
        done = subprocess.run(['go', 'tool', 'pprof', *arguments], env=environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, cwd=self.folder)
        said = re.sub('Generating report in .*\n', '', done.stderr)
        self.assertEqual((done.returncode, said), (0, ''), arguments)
        return done.stdout

    def top(self, name, *options):
        """{function: [self, total]} of the metric, and the lines above the table."""
        out = self.tool('-top', '-nodecount=0', '-nodefraction=0', '-edgefraction=0', *options, self.path(name))
        head, _, table = out.partition('cum%\n')
        rows = [line.split(None, 5) for line in table.splitlines()]
        return {row[5]: [int(re.match('[0-9]+', row[at]).group()) for at in (0, 3)] for row in rows}, head

    def test_top(self):
        """Functions by their names, recursion once, to the nanosecond: each metric, of each kind of file."""
        for name in 'wall.pb.gz', 'wall.pb', 'wall-idle.pb.gz', 'wall-function.pb.gz':
            profile = self.read(name)
            for metric, unit in (('wall', '-unit=ns'), ('cpu', '-unit=ns'), ('gil', '-unit=ns'), ('samples', '-unit=count')):
                rows, head = self.top(name, '-sample_index=' + metric, unit)
                self.assertEqual(rows, pprof.totals(profile, metric, lambda frame: frame.name), name + metric)
                self.assertIn('Type: %s\n' % metric, head)
                self.assertIn('File: handmade\n', head)
                self.assertIn('pyprof 0.1\n', head)

    def test_what_was_asked_for_is_shown_first(self):
        for metric in pprof.TYPES:
            self.assertIn('Type: %s\n' % metric, self.top(metric + '.pb.gz')[1])

    def test_comments(self):
        self.assertIn('\nlost samples: 7 (late 3, ', self.top('wall.pb.gz')[1])

    def test_raw(self):
        """Each sample with its values, its stack and its labels, and the types."""
        profile = self.read('wall-idle.pb.gz')
        out = self.tool('-raw', self.path('wall-idle.pb.gz'))
        head, _, rest = out.partition('\nSamples:\n')
        types, _, rest = rest.partition('\n')
        samples, _, rest = rest.partition('\nLocations\n')
        self.assertIn('PeriodType: wall nanoseconds\nPeriod: 10000000\n', head)
        self.assertEqual(types, 'samples/count wall/nanoseconds[dflt] cpu/nanoseconds gil/nanoseconds')
        # It has numbers of its own for them.
        frames = {match[1]: pprof.Frame(match[2], match[3], int(match[4]), int(match[5])) for match in
                  re.finditer(r'^ *([0-9]+): 0x0 M=1 (.*) (\S*?):([0-9]+)(?::0)? s=([0-9]+)\(\)$', rest, re.MULTILINE)}
        self.assertEqual(len(frames), len(profile.raw.locations))
        found = []
        for line in samples.splitlines():
            match = re.match(r' *([0-9 ]+): ([0-9 ]+)$', line)
            if match:
                stack = tuple(frames[number] for number in match.group(2).split())
                found.append([list(map(int, match.group(1).split())), stack, set()])
            else:
                found[-1][2].update(re.findall(r'([a-z_]+):\[(.*?)\]', line))
        expected = [[list(sample.values.values()), sample.stack, {(key, str(value)) for key, value in sample.labels.items()}]
                    for sample in profile.samples]
        self.assertEqual(found, expected)
        self.assertRegex(rest, r'Mappings\n1: 0x0/0x0/0x0 \S*/handmade  \[FN\]\[FL\]\[LN\]\[IN\]\n')

    def test_traces(self):
        """Stacks, leaf first, with all of their time."""
        profile = self.read('wall-idle.pb.gz')
        out = self.tool('-traces', '-unit=ns', self.path('wall-idle.pb.gz'))
        found = collections.Counter()
        for block in re.split(r'-----------\+-+\n', out)[1:]:
            lines = [line for line in block.splitlines() if not re.match(r' *[a-z_]+: ', line)]
            if lines:
                value, *frames = lines[0].split(None, 1) + [line.strip() for line in lines[1:]]
                found[tuple(frames)] += int(re.match('[0-9]+', value).group())
        expected = collections.Counter()
        for sample in profile.samples:
            expected[tuple(frame.name for frame in sample.stack)] += sample.values['wall']
        self.assertEqual(+found, +expected)

    def test_views_by_label(self):
        """What a label is for: one thread, what idles, one interpreter."""
        profile = self.read('wall-idle.pb.gz')
        for option, key, value in (('-tagfocus=thread=^MainThread$', 'thread', 'MainThread'),
                                   ('-tagfocus=state=idle', 'state', 'idle'), ('-tagfocus=4001:4001thread_id', 'thread_id', 4001),
                                   ('-tagfocus=interpreter=physics', 'interpreter', '1: physics')):
            wanted = [sample for sample in profile.samples if sample.labels.get(key) == value]
            if key != 'thread_id':
                rows, _ = self.top('wall-idle.pb.gz', option, '-unit=ns')
                self.assertEqual(rows, pprof.totals(profile._replace(samples=wanted), 'wall', lambda frame: frame.name))
            self.assertTrue(wanted)

    def test_files_are_merged(self):
        self.tool('-proto', '-output=' + self.path('merged-by-go'), self.path('wall.pb.gz'), self.path('cpu.pb'))
        once, _ = self.top('wall.pb.gz', '-unit=ns')
        twice, _ = self.top('merged-by-go', '-sample_index=wall', '-unit=ns')
        self.assertEqual(twice, {name: [2 * value for value in both] for name, both in once.items()})

    def test_hostile_names(self):
        subprocess.run([os.path.join(harness.BUILD, 'tests', 'formats', 'handmade'), self.folder], check=True,
                       env=dict(os.environ, HOSTILE='1'))
        try:
            out = self.tool('-top', '-nodecount=0', '-unit=ns', self.path('wall.pb.gz'))
            self.assertIn('[no name]\n', out)
            self.assertIn('lone \\udc80 surrogate\n', out)
        finally:
            subprocess.run([os.path.join(harness.BUILD, 'tests', 'formats', 'handmade'), self.folder], check=True)


if __name__ == '__main__':
    why = missing()
    if why:
        print('skipped: ' + why)
        sys.exit(77)
    harness.main()
