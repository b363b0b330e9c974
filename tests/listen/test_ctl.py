"""pyprof-ctl: what it makes of what a host tells it, and what it says when it cannot."""
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import termios
import time
import unittest

import client
from client import PATIENCE, Host

import collapsed
import harness

CTL = os.path.join(os.environ['PYPROF_BUILD'], 'tools', 'pyprof-ctl')


class Case(unittest.TestCase):
    def setUp(self):
        folder = client.folder()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def listening(self, **options):
        host = Host(self.folder, **options)
        self.assertEqual((0, ''), host('listen()'))
        return host

    def begin(self, *words, **options):
        return subprocess.Popen([CTL] + [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                universal_newlines=True, env=dict(os.environ, XDG_RUNTIME_DIR=self.folder),
                                cwd=self.folder, **options)

    def ctl(self, *words, status=0):
        program = self.begin(*words)
        said, complaint = program.communicate(timeout=PATIENCE)
        self.assertEqual(status, program.returncode, complaint)
        self.complaint = complaint
        if status == 0:
            return said
        self.assertEqual('', said)
        self.assertEqual(1 if status == 1 else 2, complaint.count('\n'), complaint)
        self.assertTrue(complaint.startswith('pyprof-ctl: '), complaint)
        return complaint

    def path(self, name):
        return os.path.join(self.folder, name)

    def bytes_into(self, name, text):
        with open(self.path(name), 'w', encoding='utf-8') as file:
            file.write(text)

    def bytes_of(self, name):
        with open(self.path(name), 'rb') as file:
            return file.read()


class Heap(Case):
    """20,000,000 bytes in 2,000 objects, by a known function; an error is four standard errors."""
    SIZE, COUNT, RATE = 10000, 2000, 16 * 1024
    ERROR = 4 * (SIZE * COUNT * RATE) ** 0.5 + 200000

    def held(self, *words):
        text = self.ctl('heap', *words, '-f', 'collapsed')
        return sum(int(line.rpartition(' ')[2]) for line in text.splitlines() if ';keep (driven.py:' in line)

    def begun(self):
        host = self.listening()
        self.assertIn('--start 512', self.ctl('heap', host.pid, status=1))
        self.assertEqual('', self.ctl('heap', host.pid, '--start', 16))
        host('keep(%d, %d)' % (self.COUNT, self.SIZE))
        return host

    def test_truth(self):
        with self.begun() as host:
            self.assertAlmostEqual(self.SIZE * self.COUNT, self.held(host.pid), delta=self.ERROR)
            said = self.ctl('heap', host.pid)
            self.assertRegex(said, r'functions by bytes in use: \d+\.\d KiB\n')
            self.assertRegex(said, r'keep \(driven\.py:\d+\)\n')
            self.ctl('heap', host.pid, '-o', 'heap.svg')
            self.assertIn(b'in use, bytes', self.bytes_of('heap.svg'))
            self.ctl('heap', host.pid, '-o', 'heap.pb.gz', '--metric', 'alloc_space')
            self.ctl('heap', host.pid, '-o', 'heap.jsonl')
            self.assertIn(b'"kind":"heap"', self.bytes_of('heap.jsonl'))
            host('kept.clear()')
            self.assertEqual(0, self.held(host.pid))
            allocated = self.held(host.pid, '--metric', 'alloc_space')
            self.assertAlmostEqual(self.SIZE * self.COUNT, allocated, delta=self.ERROR)

    def test_stats_and_stop(self):
        with self.begun() as host:
            self.assertIn('already on', self.ctl('heap', host.pid, '--start', 64, status=1))
            self.assertEqual('', self.ctl('heap', host.pid, '--stop'))
            before = json.loads(self.ctl('heap', host.pid, '--stats', '--json'))
            self.assertEqual((False, 16384), (before['is_sampling'], before['sampling_bytes']))
            self.assertAlmostEqual(self.SIZE * self.COUNT, before['live_bytes'], delta=self.ERROR + 1000000)
            host('keep(2000, 10000)')
            host('kept.__delitem__(slice(0, 2000))')
            after = json.loads(self.ctl('heap', host.pid, '--stats', '--json'))
            self.assertEqual(before['samples'], after['samples'])
            self.assertLess(after['live_bytes'], 1500000)
            self.assertRegex(self.ctl('heap', host.pid, '--stats'),
                             r'\Asampling   no, what lives is followed\nin use     [^\n]* with a standard error of ')
            self.assertEqual('', self.ctl('heap', host.pid, '--start', 16))
            self.assertIn('is_sampling":true', self.ctl('heap', host.pid, '--stats', '--json'))

    def test_begun_under_load(self):
        """The hooks go in while threads allocate, and one waits for the GIL all the time."""
        for _ in range(5):
            with self.listening() as host:
                host('threads(4, allocate)')
                self.ctl('heap', host.pid, '--start', 16)
                host('keep(2000, 10000)')
                self.assertAlmostEqual(self.SIZE * self.COUNT, self.held(host.pid), delta=self.ERROR)
                self.assertEqual(3, host('1 + 2'))

    def test_beside_a_recording(self):
        with self.begun() as host:
            host('start(1000)')
            host('deep(3, 5)')
            self.assertAlmostEqual(self.SIZE * self.COUNT, self.held(host.pid), delta=self.ERROR)
            self.assertIn('f2 (', self.ctl('stop', host.pid, '-f', 'collapsed', '-i'))

    def test_refused(self):
        with self.begun() as host:
            for words, said in ((['heap', host.pid, '--metric', 'wall'], 'none of memory'),
                                (['snapshot', host.pid, '--metric', 'inuse_space'], 'pyprof-ctl heap'),
                                (['heap', host.pid, '--start', '0'], 'not a number'),
                                (['heap', host.pid, '--start', '8', '--stop'], 'one at a time'),
                                (['heap', host.pid, '--stop', '-o', 'x.svg'], 'nothing is written'),
                                (['heap', host.pid, '--json'], '--json is for --stats'),
                                (['heap', host.pid, '-i'], 'not for this command'),
                                (['heap', host.pid, '-o', 'x.pstats'], 'pstats shows times'),
                                (['record', host.pid, '--start', '8'], 'not for')):
                self.assertIn(said, self.ctl(*words, status=2))
            self.assertEqual([], [name for name in os.listdir(self.folder) if name.startswith('x.')])

    def test_a_host_without(self):
        """An older one, or one compiled with PYPROF_NO_HEAP."""
        path = self.path('old.sock')
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen(1)
            program = self.begin('heap', path)
            peer, _ = listening.accept()
            with peer:
                self.assertEqual(b'pyprof 1 heap_snapshot\n', peer.recv(100))
                peer.sendall(b'error -12 there is no command heap_snapshot in this process\n')
            said, complaint = program.communicate(timeout=PATIENCE)
            self.assertEqual((1, ''), (program.returncode, said))
            self.assertRegex(complaint, r'\Apyprof-ctl: [^\n]* too old for this, or was compiled with PYPROF_NO_HEAP ')
            self.assertEqual(1, complaint.count('\n'))


class Truth(Case):
    def test_stop_is_what_the_program_would_have_saved(self):
        """The same recording by both ways: the host saves what it has to its output_path, and sends it; to the byte."""
        for ending in ('txt', 'pb', 'pb.gz', 'json'):
            with self.subTest(ending=ending), self.listening() as host:
                host('threads(2, work)')
                host('threads(2, wait)')
                self.assertEqual((0, ''), host('start(500, %r)' % self.path('own.' + ending)))
                host('deep(30, 40)')
                self.assertEqual('', self.ctl('stop', host.pid, '-o', 'sent.' + ending))
                self.assertGreater(len(self.bytes_of('own.' + ending)), 2000)
                self.assertEqual(self.bytes_of('own.' + ending), self.bytes_of('sent.' + ending))

    def test_snapshot_is_what_the_program_would_have_written(self):
        """Nothing is sampled between the two: one tick in ten seconds."""
        with self.listening() as host:
            host('threads(3, wait)')
            self.assertEqual((0, ''), host('start(10000000)'))
            self.ctl('snapshot', host.pid, '-o', 'sent.txt', '-i', '--metric', 'samples')
            self.assertEqual(0, host('api.host_save_samples(%r)' % self.path('own.txt').encode()))
            self.assertEqual(self.bytes_of('own.txt'), self.bytes_of('sent.txt'))

    def test_lines_read_by_pyprof_convert(self):
        """What the host sends is a file of the format jsonl, as it is."""
        convert = os.path.join(os.environ['PYPROF_BUILD'], 'tools', 'pyprof-convert')
        with self.listening() as host:
            host('threads(2, work)')
            host('start(500, %r)' % self.path('own.txt'))
            host('deep(10, 10)')
            with open(self.path('sent.jsonl'), 'wb') as file:
                file.write(client.ask(host.path, 'stop'))
            subprocess.run([convert, self.path('sent.jsonl'), '-o', self.path('sent.txt')], check=True)
            self.assertEqual(self.bytes_of('own.txt'), self.bytes_of('sent.txt'))


class Commands(Case):
    def test_list(self):
        with self.listening() as one, Host(self.folder) as other:
            other('listen()')
            other('start()')
            rows = {int(row.split()[0]): row.split() for row in self.ctl('list').splitlines()[1:]}
            self.assertLessEqual({one.pid, other.pid}, set(rows))
            self.assertEqual('listening', rows[one.pid][1])
            self.assertEqual(one('sys.version.split()[0]')[:8], rows[one.pid][2])
            self.assertEqual(('no', 'yes'), (rows[one.pid][3], rows[other.pid][3]))
            found = {row['pid']: row for row in map(json.loads, self.ctl('list', '--json').splitlines())}
            self.assertEqual((False, True), (found[one.pid]['is_recording'], found[other.pid]['is_recording']))

    def test_stale_files(self):
        """They are passed over; and removed where the process is dead, and only there."""
        with self.listening() as host:
            folder = os.path.dirname(host.path)
            ended = subprocess.Popen(['true'])
            ended.wait()
            for name in (ended.pid, os.getpid()):
                with socket.socket(socket.AF_UNIX) as stale:
                    stale.bind(os.path.join(folder, '%d.sock' % name))
            with open(os.path.join(folder, '7x.sock'), 'w', encoding='ascii'):
                pass
            self.assertIn(str(host.pid), self.ctl('list'))
            self.assertEqual({'%d.sock' % host.pid, '%d.sock' % os.getpid(), '7x.sock'}, set(os.listdir(folder)))
            host('unlisten()')
            self.assertNotIn(str(host.pid), self.ctl('list'))

    def test_one_that_stands_still(self):
        """It keeps nobody waiting for good, and the others are listed."""
        with self.listening() as still, self.listening() as host:
            os.kill(still.pid, signal.SIGSTOP)
            try:
                self.assertIn(str(host.pid), self.ctl('list'))
                self.assertIn('%d: the connection was cut' % still.pid, self.complaint)
            finally:
                os.kill(still.pid, signal.SIGCONT)

    def test_status(self):
        with self.listening() as host:
            self.assertIn('recording  no', self.ctl('status', host.pid))
            self.ctl('start', host.pid, '--rate', 200, '--memory', 3, '--depth', 77)
            self.assertRegex(self.ctl('status', host.pid), r'recording  yes\nsince .*\nrate       200 Hz')
            now = json.loads(self.ctl('status', host.path, '--json'))
            self.assertEqual((5000, 3 << 20, 77), (now['interval_us'], now['memory_limit'], now['max_depth']))

    def test_start_and_stop(self):
        with self.listening() as host:
            self.ctl('start', host.pid)
            self.assertIn('already running', self.ctl('start', host.pid, status=1))
            self.assertEqual('', self.ctl('stop', host.pid, '--drop'))
            self.assertIn("'pyprof-ctl start %d'" % host.pid, self.ctl('stop', host.pid, status=1))
            self.ctl('start', host.pid)
            self.assertIn('listening: ', self.ctl('stop', host.pid))

    def test_record_on_its_own(self):
        with self.listening() as host:
            host('threads(2, work)')
            self.assertEqual('', self.ctl('record', host.pid, '-d', 0.3, '-r', 1000, '-o', 'x.txt'))
            self.assertIs(False, client.status(host.path)['is_recording'])
            stacks = collapsed.parse(self.bytes_of('x.txt').decode())
            self.assertEqual({'work 0', 'work 1'}, {stack.thread for stack in stacks} - {'MainThread'})

    def test_record_in_a_recording(self):
        """What came before is not in it, and the recording goes on. Times are those of the difference."""
        with self.listening() as host:
            host('start(500)')
            host('deep(30, 5)')
            before = json.loads(self.ctl('status', host.pid, '--json'))['stats']
            program = self.begin('record', host.pid, '-d', 1, '-o', 'x.jsonl')
            host('threads(1, work)')
            self.assertEqual(('', ''), program.communicate(timeout=PATIENCE))
            self.assertEqual(0, program.returncode)
            after = client.status(host.path)
            self.assertIs(True, after['is_recording'])
            rows = client.rows(self.bytes_of('x.jsonl'))
            facts = rows[0]
            nodes = [row for row in rows if row['type'] == 'node']
            spans = [row for row in rows if row['type'] == 'span']
            self.assertLessEqual(facts['stats']['samples'], after['stats']['samples'] - before['samples'])
            self.assertEqual(facts['stats']['samples'], sum(row['samples'] for row in nodes))
            self.assertEqual(facts['stats']['samples'], sum(row['samples'] for row in spans))
            self.assertGreater(facts['stats']['samples'], 0)
            functions = {row['id']: row['name'] for row in rows if row['type'] == 'function'}
            self.assertEqual(0, sum(row['samples'] for row in nodes if re.match(r'f\d+$', functions[row['function']])))
            ours = [row['samples'] for row in nodes if functions[row['function']] in ('work', 'leaf')]
            self.assertGreater(sum(ours), 0)
            for span in spans:
                self.assertLessEqual(span['start_ns'] + span['wall_ns'], facts['duration_ns'] + 10 ** 9)
            self.assertGreaterEqual(facts['duration_ns'], 10 ** 9)

    def test_record_ends_by_a_signal(self):
        """Ctrl-C ends the wait, and what there is, is written."""
        with self.listening() as host:
            program = self.begin('record', host.pid, '-d', 1000, '-r', 2000, '-o', 'x.txt')
            while not client.status(host.path)['is_recording']:
                pass
            while b'"f3"' not in client.ask(host.path, 'snapshot'):
                host('deep(5, 5)')
            program.send_signal(signal.SIGINT)
            self.assertEqual(('', ''), program.communicate(timeout=PATIENCE))
            self.assertEqual(0, program.returncode)
            self.assertIn('f3', self.bytes_of('x.txt').decode())
            self.assertIs(False, client.status(host.path)['is_recording'])

    def test_dump(self):
        with self.listening() as host:
            host('threads(2, wait)')
            for is_recording in False, True:
                text = self.ctl('dump', host.pid)
                self.assertRegex(text, r'Thread \d+ "wait 1" \(waiting\)\n    wait \(driven.py:\d+\)\n    (Thread\.)?run')
                self.assertIn('Thread %d "MainThread" (waiting)\n    main (driven.py:' % host.pid, text)
                found = json.loads(self.ctl('dump', host.pid, '--json'))
                threads = {thread['name']: thread for thread in found['threads']}
                self.assertEqual({'wait 0', 'wait 1', 'MainThread'}, set(threads))
                self.assertEqual(('waiting', 'wait', 'driven.py'), (threads['wait 1']['state'],
                                 threads['wait 1']['frames'][0]['name'], threads['wait 1']['frames'][0]['file']))
                self.assertEqual(is_recording, client.status(host.path)['is_recording'])
                host('start(1000)')
            pipe = self.path('pipe')
            os.mkfifo(pipe)
            host.tell('hold(%r)' % pipe)
            self.assertIn('"MainThread" (holds the GIL)\n    hold (driven.py:', self.ctl('dump', host.pid))
            open(pipe, 'w').close()
            self.assertEqual(1, host.answer())

    def test_dump_of_interpreters(self):
        """Each thread says in which one it is. All are there, though one thread made what another runs, which takes more
        than one look; to 3.10 more than a dump takes where nothing was recorded."""
        module = {'3.13': '_interpreters', '3.14': '_interpreters', '3.15': '_interpreters'}
        with self.listening() as host:
            name = module.get(host('"%d.%d" % sys.version_info[:2]'), '_xxsubinterpreters')
            run = 'run_string' if name == '_xxsubinterpreters' else 'exec'
            self.bytes_into('inner.py', 'import %s as made\ninner = made.create()\ndef sub():\n    made.%s(inner, %r)\n' % (
                name, run, 'import os, time\nwhile not os.path.exists(%r): time.sleep(0.01)' % self.path('over')))
            host('exec(open(%r).read(), globals())' % self.path('inner.py'))
            host('threads(1, wait)')
            host('threads(1, sub)')
            found = {}
            if host('sys.version_info < (3, 11)'):
                host('start(1000)')
            while '1' not in found.values() or ('MainThread', 'main') not in found:
                rows = json.loads(self.ctl('dump', host.pid, '--json'))['threads']
                found = {(row['name'], row['interpreter']): row['interpreter'] for row in rows}
            self.assertLessEqual({('MainThread', 'main'), ('wait 0', 'main')}, set(found))
            while not re.search(r'\([\w ]+, interpreter 1\)\n', self.ctl('dump', host.pid)):
                pass
            self.bytes_into('over', '')

    def test_dump_of_one_that_hangs(self):
        """In a call of C that computes and never ends, with the GIL: all others wait for that, and nothing can be asked of
        Python. Whether it was recorded before, or is only now."""
        for function, leaf in (('hang_in_regex', 'search'), ('hang_in_loop', 'hang_in_loop')):
            for is_recording in False, True:
                with self.subTest(function=function, is_recording=is_recording):
                    self.check_hanging(function, leaf, is_recording)

    def check_hanging(self, function, leaf, is_recording):
        host = self.listening()
        try:
            host('threads(2, wait)')
            host('threads(2, work)')
            if is_recording:
                host('start(1000)')
            holders = {'MainThread'} if host('"t" not in sys.abiflags') else {'MainThread', 'work 0', 'work 1'}
            host.tell(function + '()')
            names = []
            while names[:1] != [leaf]:
                names = self.dumped(host)['MainThread'][1]
            self.assertIn(function, names)
            self.check_dumps(host, names, holders)
            self.assertEqual(is_recording, client.status(host.path)['is_recording'])
        finally:
            host.program.kill()  # it would never end
            host.program.communicate()

    def check_dumps(self, host, names, holders):
        """Who waits for the GIL looks every 5 ms whether somebody else took it, and runs for that."""
        took, seen = [], []
        for _ in range(5):
            begun = time.monotonic()
            threads = self.dumped(host)
            took.append(time.monotonic() - begun)
            self.assertEqual({'MainThread', 'wait 0', 'wait 1', 'work 0', 'work 1'}, set(threads))
            self.assertEqual(holders, {name for name, (state, _) in threads.items() if state == 'holds the GIL'})
            self.assertEqual(names, threads['MainThread'][1])
            self.assertLessEqual({'wait', 'work'}, set(threads['wait 0'][1] + threads['work 0'][1]))
            if len(holders) == 1:
                others = {state for name, (state, _) in threads.items() if name not in holders}
                seen.append(others)
        if len(holders) == 1:  # what is awake just then, as the kernel has not given it a core yet, only waits
            self.assertIn({'waiting for the GIL'}, seen)
        self.assertLess(sorted(took)[2], harness.patience(2))

    def dumped(self, host):
        """By name of a thread its state, and the names of its frames, leaf first."""
        threads = json.loads(self.ctl('dump', host.pid, '--json'))['threads']
        return {thread['name']: (thread['state'], [frame['name'] for frame in thread['frames']]) for thread in threads}

    def test_top(self):
        with self.listening() as host:
            host('threads(1, work)')
            for is_recording in False, True:
                found = json.loads(self.ctl('top', host.pid, '--once', '--json', '-d', 0.3))
                rows = {row['name']: row for row in found['rows']}
                self.assertEqual('wall', found['metric'])
                self.assertIn(found['threads'], (1, 2))  # one may have had a single sample, which has no time yet
                self.assertGreater(found['rate_hz'], 0)
                self.assertGreater(found['gil_share'], 0)
                self.assertLessEqual({'samples_lost', 'ticks_missed', 'threads_active'}, set(found))
                self.assertGreater(rows['work']['total_share'], rows['work']['self_share'])
                self.assertGreater(rows['leaf']['self_share'], 0)
                self.assertRegex(self.ctl('top', host.pid, '--once', '-d', 0.3, '-n', 1), r'samples\nGIL .*\n\n.*\n *\S+% *\S+%  \w+')
                self.assertEqual(is_recording, client.status(host.path)['is_recording'])
                host('start(1000)')
            self.press_keys(host)
            program = self.begin('top', host.pid, stdin=subprocess.DEVNULL)
            while 'work' not in program.stdout.readline():
                pass
            program.send_signal(signal.SIGTERM)
            program.communicate(timeout=PATIENCE)
            self.assertEqual(0, program.returncode)
            self.assertIs(True, client.status(host.path)['is_recording'])

    def press_keys(self, host):
        """On a terminal, which is as it was afterwards."""
        ours, its = pty.openpty()
        before = termios.tcgetattr(its)
        program = subprocess.Popen([CTL, 'top', str(host.pid)], stdin=its, stdout=its, stderr=its,
                                   env=dict(os.environ, XDG_RUNTIME_DIR=self.folder))
        seen = b''
        for key, wanted in ((b'', b'total  function'), (b'f', b'total  line'), (b'm', b'CPU time'), (b'q', None)):
            os.write(ours, key)
            seen = b''
            while wanted is not None and wanted not in seen:
                seen += os.read(ours, 65536)
        self.assertEqual(0, program.wait(PATIENCE))
        self.assertEqual(before, termios.tcgetattr(its))
        os.close(ours)
        os.close(its)

    def test_filters_and_formats(self):
        with self.listening() as host:
            host('threads(2, work)')
            host('start(500)')
            host('deep(3, 3)')
            self.ctl('snapshot', host.pid, '-o', 'x.txt', '--only-thread', 'work 1', '-F', '--metric', 'samples')
            stacks = collapsed.parse(self.bytes_of('x.txt').decode())
            self.assertEqual({'work 1'}, {stack.thread for stack in stacks})
            for name, begin in (('x.svg', b'<?xml'), ('x.json', b'{'), ('x.pb.gz', b'\x1f\x8b'), ('x.jsonl', b'{"type":"facts"'),
                                ('x.firefox.json', b'{'), ('x.pstats', b'')):
                self.ctl('snapshot', host.pid, '-o', name)
                self.assertTrue(self.bytes_of(name).startswith(begin), name)
            self.ctl('snapshot', host.pid, '-o', 'x.txt', '--only-function', 'nobody')
            self.assertIn('nothing that was recorded passes', self.complaint)
            self.assertEqual(b'', self.bytes_of('x.txt'))


@unittest.skipUnless(shutil.which('tmux'), 'skipped: there is no tmux')
class Screen(Case):
    """top in a real terminal, with what stands on its screen."""

    def tmux(self, *words):
        done = subprocess.run(['tmux', '-S', self.path('tmux'), '-f', '/dev/null'] + [str(word) for word in words],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=PATIENCE,
                              cwd=self.folder, env=dict(os.environ, XDG_RUNTIME_DIR=self.folder, TERM='xterm', LC_ALL='C.UTF-8'))
        return done.stdout

    def begin_top(self, host, width, height, environment=''):
        """In a shell, which says how it ended and what the terminal is set to before and after."""
        self.tmux('new-session', '-d', '-x', width, '-y', height,
                  "echo what was there; stty -g > before; %s '%s' top %d; echo \"ended with $?\"; stty -g > after; sleep 1000" % (
                      environment, CTL, host.pid))
        self.addCleanup(self.tmux, 'kill-server')
        self.see(r'self   total  function')

    def screen(self):
        return self.tmux('capture-pane', '-p')

    def see(self, pattern, but=None):
        """Waits until the screen has it."""
        end = time.monotonic() + PATIENCE
        screen = ''
        while not re.search(pattern, screen) or (but and re.search(but, screen)):
            self.assertLess(time.monotonic(), end, screen)
            time.sleep(0.05)
            screen = self.screen()
        return screen

    def ended(self, status=0):
        screen = self.see(r'ended with \d+')
        self.assertIn('ended with %d' % status, screen)
        self.assertIn('what was there\n', screen)
        end = time.monotonic() + PATIENCE
        while not os.path.exists(self.path('after')) or not self.bytes_of('after'):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        self.assertEqual(self.bytes_of('before'), self.bytes_of('after'))

    def test_keys(self):
        for width, height in (80, 24), (200, 50):
            with self.subTest(size=(width, height)), self.listening() as host:
                host('threads(2, work)')
                self.begin_top(host, width, height)
                screen = self.see(r'%  work')
                lines = screen.splitlines()
                self.assertRegex(lines[0], r'^listening \(%d\): \d+\.\d s, \d+ samples$' % host.pid)
                self.assertRegex(lines[1], r'^GIL \d+%, \d of \d threads active, \d+ Hz, \d+ samples lost, \d+ ticks missed$')
                self.assertEqual('   self   total  function, wall time', lines[3])
                self.assertIn('\nq ends, s sort, m metric, f lines, t thread, i idle, p pause, h help\n', screen)
                self.assertNotRegex(screen, r'%  main ')
                for line in lines:
                    self.assertLessEqual(len(line), width)
                self.press_each(host)
                self.tmux('send-keys', 'x')  # no key of it
                self.tmux('send-keys', 'q')
                self.ended()
                self.assertIs(False, client.status(host.path)['is_recording'])
                self.tmux('kill-server')

    def press(self, key, pattern, but=None):
        self.tmux('send-keys', key)
        return self.see(pattern, but)

    def press_each(self, host):
        first = r'wall time\n *\S+% *100\.0%'
        self.press('s', first)
        self.press('s', r'total  function', but=first)
        self.press('f', r'total  line, wall time\n')
        self.press('f', r'total  function, wall time\n')
        for shown in 'CPU time', 'time with the GIL', 'samples', 'wall time':
            self.press('m', r'total  function, %s\n' % shown)
        self.press('i', r'wall time, waiting too\n(.*\n)*.*%  main ')  # it waits for its next line
        self.press('h', r'^q       ends; .*\ns       sorts', but='total  function')
        self.press('h', r'total  function')
        self.press('t', r'waiting too, thread \S')
        seen = set()
        while 'thread ' in self.screen().splitlines()[3]:
            seen.add(self.screen().splitlines()[3].partition('thread ')[2])
            before = self.screen().splitlines()[3]
            self.tmux('send-keys', 't')
            self.see('total', but=re.escape(before + '\n'))
        self.assertEqual({'MainThread', 'work 0', 'work 1'}, seen)
        self.press('i', r'wall time\n')
        paused = self.press('p', r'^listening .* samples \(paused\)\n')
        ticks = client.status(host.path)['stats']['ticks']
        while client.status(host.path)['stats']['ticks'] < ticks + 150:  # it goes on meanwhile
            time.sleep(0.05)
        self.assertEqual(paused, self.screen())
        self.press('p', r' samples\n')
        self.see(r'listening', but=re.escape(paused.splitlines()[0].partition(' (paused)')[0]))

    def test_resize(self):
        """What has no room is not there: nothing is wrapped or scrolled away, and nothing is left of what was wider."""
        with self.listening() as host:
            host('exec("def %s():\\n while not is_over: leaf(2000)\\n", globals())' % ('long' * 30))
            host('threads(1, work)')
            host('threads(1, %s)' % ('long' * 30))
            self.begin_top(host, 200, 50)
            self.see('%%  %s ' % ('long' * 30))
            for width, height in (80, 24), (40, 9), (10, 3), (200, 50), (80, 24):
                self.tmux('resize-window', '-x', width, '-y', height)
                screen = self.see(r'(?s)^listening ' + ('.*q ends, s' if height > 9 else '') if width > 10 else 'listening')
                self.assertNotIn('what was there', screen)
                if width == 80:
                    self.see(r'%  (long){15}\w*\n')
                    self.assertRegex(self.screen(), r'(?m)^ .*%  work \(')
            self.tmux('send-keys', 'q')
            self.ended()

    def test_full_screen(self):
        """More rows than have room: as many as do, with the first line and the last one."""
        with self.listening() as host:
            host('threads(1, work)')
            self.begin_top(host, 80, 24)
            host.tell('deep(60, 1)')
            screen = self.see(r'%  f\d')
            self.assertRegex(screen, r'^listening')
            self.tmux('resize-window', '-x', 80, '-y', 9)
            screen = self.see(r'(?s)^listening.*total.*\n(.*%  .*\n){3}\nq ends')
            self.assertEqual(9, screen.count('\n'))
            host.answer()
            self.tmux('send-keys', 'q')
            self.ended()

    def test_without_sequences(self):
        """On a terminal that knows none, text follows on text."""
        for environment in 'TERM=dumb', 'TERM=':
            with self.listening() as host:
                host('threads(1, work)')
                self.begin_top(host, 80, 24, environment)
                self.see(r'(?s)%  work.*q ends.*total  function.*%  work.*q ends')
                self.assertNotIn('[', self.screen())
                self.press('f', 'total  line')
                self.tmux('send-keys', 'q')
                self.see('ended with 0')
                self.tmux('kill-server')

    def test_suspended(self):
        """Ctrl-Z gives the terminal back, and whoever goes on with it has the figures again."""
        with self.listening() as host:
            host('threads(1, work)')
            self.tmux('new-session', '-d', '-x', 80, '-y', 24, 'bash --norc')
            self.addCleanup(self.tmux, 'kill-server')
            self.tmux('send-keys', "PS1='$ '; clear; stty -g > before; '%s' top %d" % (CTL, host.pid), 'Enter')
            self.see(r'^listening')
            self.tmux('send-keys', 'C-z')
            self.see(r'(?s)Stopped .*\n\$', but='^listening')
            self.tmux('send-keys', "stty -g > after; cmp before after && echo 'as it' was", 'Enter')
            self.see('as it was')
            self.tmux('send-keys', 'fg', 'Enter')
            self.see(r'^listening')
            self.tmux('send-keys', 'q')
            self.see('as it was', but='^listening')

    def test_terminal_goes_away(self):
        """What it began in the host ends, too."""
        with self.listening() as host:
            host('threads(1, work)')
            self.begin_top(host, 80, 24)
            self.assertIs(True, client.status(host.path)['is_recording'])
            self.tmux('kill-server')
            while client.status(host.path)['is_recording']:
                time.sleep(0.05)

    def test_control_c(self):
        with self.listening() as host:
            host('threads(1, work)')
            self.begin_top(host, 80, 24)
            self.tmux('send-keys', 'C-c')
            self.ended()
            self.assertIs(False, client.status(host.path)['is_recording'])

    def test_host_ends(self):
        with self.listening() as host:
            host('threads(1, work)')
            self.begin_top(host, 80, 24)
            host.end()
            self.see(r'pyprof-ctl: %d: (nobody listens there|the connection was cut)' % host.pid)
            self.ended(1)


class Errors(Case):
    def test_who_cannot_be_asked(self):
        ended = subprocess.Popen(['true'])
        ended.wait()
        self.assertIn('there is no process', self.ctl('status', ended.pid, status=1))
        self.assertIn('does not listen', self.ctl('status', os.getpid(), status=1))
        self.assertIn('nobody listens', self.ctl('status', '/nowhere/x.sock', status=1))
        with open(self.path('file'), 'w', encoding='ascii'):
            pass
        self.assertIn('nobody listens', self.ctl('status', 'file', status=1))

    def test_another_user(self):
        if os.geteuid() != 0:
            self.skipTest('only root can become another user')
        program = shutil.copy(CTL, self.folder)  # the build directory may be closed to others
        os.chmod(self.folder, 0o755)
        done = subprocess.run([program, 'status', str(os.getpid())], stderr=subprocess.PIPE, cwd='/',
                              preexec_fn=lambda: os.setuid(65534))
        self.assertIn(b'is of user 0: only that user and root may ask it', done.stderr)
        self.assertEqual(1, done.returncode)

    def play(self, answer):
        """A host that says that, whatever it is asked."""
        path = self.path('fake.sock')
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(path)
        server.listen(1)
        program = self.begin('snapshot', path, '-o', 'x.txt')
        peer, _ = server.accept()
        with peer, peer.makefile('rb') as file:
            file.readline()
            peer.sendall(answer)
        _, complaint = program.communicate(timeout=PATIENCE)
        os.unlink(path)
        self.assertEqual(1, program.returncode)
        self.assertEqual([], [name for name in os.listdir(self.folder) if name.startswith('x')])
        self.assertEqual(1, complaint.count('\n'))
        return complaint

    def test_what_is_no_answer(self):
        self.assertIn('too old', self.play(b'error -12 there is no command snapshot in this process\n'))
        self.assertIn('out of memory', self.play(b'error -4 out of memory\n'))
        for cut in (b'', b'o', b'ok\n', b'ok\n10\n', b'ok\n10\nabc', b'ok\nten\n', b'ok\n3\nabc', b'ok\n-3\nabc', b'ok\n3x\nabc0\n'):
            self.assertIn('the connection was cut', self.play(cut))
        self.assertIn('error', self.play(b'ok\n3\nabc' + b'error -4 error\n'))
        for text in (b'abc', b'{"type":"facts"}', b'{"type":"facts","format":"pyprof-jsonl","version":2}\n',
                     b'{"type":"facts","format":"pyprof-jsonl","version":1}\n', b'\x00' * 10, b'{' * 2000):
            self.assertIn('cannot be read', self.play(b'ok\n%d\n%s0\n' % (len(text), text)))

    def test_where_it_cannot_write(self):
        """The recording goes on: it is seen before the host is asked."""
        with self.listening() as host:
            host('start()')
            for path in ('/nowhere/x.txt', self.folder + '/x/'):
                self.assertIn('cannot write', self.ctl('stop', host.pid, '-f', 'collapsed', '-o', path, status=1))
            self.assertIn('means no format', self.ctl('stop', host.pid, '-o', 'x.bad', status=2))
            self.assertIn('cannot write', self.ctl('snapshot', host.pid, '-f', 'jsonl', '-o', '/dev/full', status=1))
            self.assertIs(True, client.status(host.path)['is_recording'])
            self.assertEqual(1, len([name for name in os.listdir(self.folder)]))

    def test_a_recording_that_is_another_one(self):
        with self.listening() as host:
            host('start()')
            program = self.begin('record', host.pid, '-d', 1000, '-o', 'x.txt')
            ticks = 0
            while ticks < 20:
                ticks = client.status(host.path)['stats']['ticks']
            time.sleep(0.5)  # it has its first snapshot by then, or says what it says else
            host('[stop(), start()] and 0')
            program.send_signal(signal.SIGINT)
            self.assertIn('begun anew', program.communicate(timeout=PATIENCE)[1])
            self.assertEqual(1, program.returncode)
            self.assertFalse(os.path.exists(self.path('x.txt')))

    def test_help_into_a_full_device(self):
        with open('/dev/full', 'w', encoding='ascii') as full:
            done = subprocess.run([CTL, '--help'], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual((1, b'pyprof-ctl: cannot write standard output\n'), (done.returncode, done.stderr))

    def test_command_lines(self):
        for words in ([], ['no'], ['status'], ['status', 1, 2], ['list', 1], ['record', 1], ['record', 1, '-d', 'x'],
                      ['status', 1, '-d', 1], ['snapshot', 1, '--metric', 'x'], ['snapshot', 1, '-f', 'x'], ['start', 1, '-o', 'x'],
                      ['snapshot', 1, '--min-share', 2], ['snapshot', 1, '-o'], ['snapshot', 1, '--nothing'], ['snapshot', 1, '--drop'],
                      ['start', 1, '-r', 0], ['snapshot', 1, '-f', 'svg', '-o', 'x.json'],
                      ['snapshot', 1, '-f', 'pstats', '--metric', 'samples']):
            with self.subTest(words=words):
                self.ctl(*words, status=2)
        self.assertIn('holds the GIL', self.ctl('--help'))


if __name__ == '__main__':
    unittest.main()
