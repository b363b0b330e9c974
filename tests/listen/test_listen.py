"""The socket of pyprof_listen: what is asked and answered, who may ask, and where it lies."""
import json
import os
import re
import select
import socket
import stat
import unittest

import client
from client import ARGUMENT, ALREADY_ACTIVE, FORMAT, IO, NOT_ACTIVE, PATIENCE, Host, Refused, ask, ask_raw, connect


class Case(unittest.TestCase):
    def setUp(self):
        folder = client.folder()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def listening(self, **options):
        host = Host(self.folder, **options)
        self.assertEqual((0, ''), host('listen()'))
        return host

    def refused(self, code, path, words):
        with self.assertRaises(Refused) as caught:
            ask(path, words)
        self.assertEqual(code, caught.exception.code, caught.exception.text)
        return caught.exception.text


def as_nobody(what):
    """Calls it in a child that is another user; answers what it answers, or the error."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            said = what()
        except OSError as error:
            said = str(error)
        os.write(sink, said.encode())
        os._exit(0)
    os.close(sink)
    with os.fdopen(source) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


def fields_of_stats():
    with open(os.path.join(os.environ['PYPROF_SOURCE'], 'pyprof.h'), encoding='utf-8') as file:
        text = file.read()
    body = text[text.index('typedef struct pyprof_stats {'):text.index('} pyprof_stats;')]
    return set(re.findall(r'^ *u?int\d\d_t (\w+);', body, re.MULTILINE)) - {'reserved'}


class Commands(Case):
    def test_status(self):
        with self.listening() as host:
            before = client.status(host.path)
            self.assertEqual(1, before['protocol'])
            self.assertEqual(host.pid, before['pid'])
            self.assertEqual(os.readlink('/proc/%d/exe' % host.pid), before['program'])
            self.assertEqual(host('sys.version.split()[0]'), before['python'])
            self.assertIs(False, before['is_recording'])
            self.assertNotIn('stats', before)
            self.assertEqual((0, ''), host('start(2000)'))
            during = client.status(host.path)
            self.assertIs(True, during['is_recording'])
            self.assertEqual(2000, during['interval_us'])
            self.assertEqual((64 << 20, 1024), (during['memory_limit'], during['max_depth']))
            self.assertLessEqual(before['pid'], during['pid'])
            self.assertEqual(fields_of_stats() - {'duration_ns'}, set(during['stats']))
            self.assertGreater(during['duration_ns'], 0)  # it stands beside them
            self.assertEqual((0, ''), host('stop()'))
            after = client.status(host.path)
            self.assertIs(False, after['is_recording'])
            self.assertGreaterEqual(after['stats']['ticks'], during['stats']['ticks'])

    def test_start_and_stop(self):
        with self.listening() as host:
            self.assertEqual(b'', ask(host.path, 'start interval_us=3000 max_depth=99 memory_limit=5000000'))
            now = client.status(host.path)
            self.assertEqual((3000, 99, 5000000), (now['interval_us'], now['max_depth'], now['memory_limit']))
            self.assertIn('already running', self.refused(ALREADY_ACTIVE, host.path, 'start'))
            self.assertEqual(ALREADY_ACTIVE, host('start()')[0])
            rows = client.rows(ask(host.path, 'stop'))
            self.assertEqual(('facts', 'end'), (rows[0]['type'], rows[-1]['type']))
            self.assertIn('no recording', self.refused(NOT_ACTIVE, host.path, 'stop'))
            self.assertEqual(NOT_ACTIVE, host('stop()')[0])
            self.refused(NOT_ACTIVE, host.path, 'snapshot')
            self.refused(NOT_ACTIVE, host.path, 'dump')
            self.refused(NOT_ACTIVE, host.path, 'dump json=1')
            ask(host.path, 'start')
            self.assertEqual(b'', ask(host.path, 'stop drop=1'))
            self.assertIn('interval_us is 7', self.refused(ARGUMENT, host.path, 'start interval_us=7'))
            self.assertIs(False, client.status(host.path)['is_recording'])

    def test_snapshot_has_lines_in_order(self):
        with self.listening() as host:
            host('threads(3, work)')
            host('start(1000)')
            wanted, names = {'f0', 'f4', 'work', 'leaf'}, set()
            while not wanted <= names:
                host('deep(5, 20)')
                rows = client.rows(ask(host.path, 'snapshot'))
                names = {row['name'] for row in rows if row['type'] == 'function'}
            nodes = [row for row in rows if row['type'] in ('thread', 'node')]
            spans = [row for row in rows if row['type'] == 'span']
            self.assertEqual(list(range(len(nodes))), [row['id'] for row in nodes])
            self.assertEqual((len(nodes), len(spans)), (rows[-1]['nodes'], rows[-1]['spans']))
            self.assertEqual(rows[0]['stats']['samples'], sum(row['samples'] for row in nodes))
            self.assertEqual(rows[0]['stats']['samples'], sum(row['samples'] for row in spans))
            self.assertLessEqual({'work 0', 'work 2', 'MainThread'}, {row['name'] for row in nodes if 'name' in row})

    def test_dump(self):
        with self.listening() as host:
            host('threads(2, wait)')
            host('start(1000)')
            text = ask(host.path, 'dump').decode()
            self.assertIn('"wait 1" (idle)\n    wait (driven.py:', text)
            rows = client.rows(ask(host.path, 'dump json=1'))
            threads = {row['id']: row for row in rows if row['type'] == 'thread'}
            spans = [row for row in rows if row['type'] == 'span']
            self.assertLessEqual({'wait 0', 'wait 1', 'MainThread'}, {row['name'] for row in threads.values()})
            self.assertEqual(len(threads), len(spans))
            self.assertEqual({1}, {row['samples'] for row in spans})
            self.assertEqual(host.pid, [row['tid'] for row in threads.values() if row['name'] == 'MainThread'][0])
            self.assertEqual(os.readlink('/proc/%d/exe' % host.pid), rows[0]['program'])
            self.assertEqual(text.count('Thread '), len(threads))

    def test_what_is_not_known(self):
        with self.listening() as host:
            self.assertIn('no command heap', self.refused(FORMAT, host.path, 'heap'))
            self.assertEqual(1, client.status(host.path)['protocol'])
            self.assertEqual(json.loads(ask(host.path, 'status later=7 than=us')), client.status(host.path))
            self.assertRegex(ask_raw(host.path, b'pyprof 2 status\n'), rb'^error -12 version 2 .*\n$')
            self.assertRegex(ask_raw(host.path, b'pyprof 1 start interval_us=abc\n'), rb'^error -1 .*\n$')

    def test_with_the_gil_held(self):
        """What is asked for is answered while a thread sits on the GIL for good."""
        with self.listening() as host:
            host('start(1000)')
            pipe = os.path.join(self.folder, 'pipe')
            os.mkfifo(pipe)
            host.tell('hold(%r)' % pipe)
            self.assertTrue(client.status(host.path)['is_recording'])
            self.assertIn('hold (driven.py', ask(host.path, 'dump').decode())
            client.rows(ask(host.path, 'snapshot'))
            client.rows(ask(host.path, 'stop'))
            open(pipe, 'w').close()
            self.assertEqual(1, host.answer())

    def test_stop_does_not_wait_for_a_reader(self):
        with self.listening() as host:
            pipe = os.path.join(self.folder, 'pipe')
            os.mkfifo(pipe)
            self.assertEqual((0, ''), host('start(200, %r)' % pipe))
            host('deep(10, 3)')
            self.assertIn('no regular file', self.refused(IO, host.path, 'stop'))
            self.assertTrue(client.status(host.path)['is_recording'])
            host.tell('stop()')
            with open(pipe, 'rb') as file:
                self.assertTrue(file.read())
            self.assertEqual((0, ''), host.answer())


class Requests(Case):
    def test_garbage(self):
        """Whatever is sent, the answer is an error, or nothing; and the next one is answered."""
        lines = [b'\n', b' \n', b'pyprof\n', b'pyprof 1\n', b'pyprof 1 \n', b'GET / HTTP/1.1\r\n\r\n', b'\0\n', b'\xff\xfe\n',
                 b'pyprof 1 status\r\n', b'pyprof 1 status x\n', b'pyprof 1 start interval_us=\n', b'x' * 5000, b'x' * 1024,
                 b'x' * 1023 + b'\n', b'pyprof 1 start interval_us=99999999999999999999999\n', b'pyprof 01 status\n',
                 b'pyprof 1 start max_depth=-1\n', b'pyprof 1 %s\n' % (b'%s%n' * 60)]
        with self.listening() as host:
            for line in lines:
                with self.subTest(line=line[:80]):
                    self.assertRegex(ask_raw(host.path, line), rb'^error -\d+ [ -~]+\n$')
                    self.assertIs(False, client.status(host.path)['is_recording'])

    def test_in_pieces(self):
        with self.listening() as host:
            with connect(host.path) as peer:
                for byte in b'pyprof 1 status\n':
                    peer.sendall(bytes([byte]))
                self.assertIn(b'"protocol":1', client.read_answer(peer))

    def test_truncated(self):
        with self.listening() as host:
            for size in range(len(b'pyprof 1 status\n')):
                with connect(host.path) as peer:
                    peer.sendall(b'pyprof 1 status\n'[:size])
            self.assertEqual(host.pid, client.status(host.path)['pid'])

    def test_gone_before_the_answer(self):
        with self.listening() as host:
            host('start(1000)')
            for words in ['status', 'snapshot', 'dump', 'dump json=1'] * 5:
                with connect(host.path) as peer:
                    peer.sendall(b'pyprof 1 %s\n' % words.encode())
            self.assertEqual(host.pid, client.status(host.path)['pid'])


class Peers(Case):
    def descriptors(self, host):
        return len(os.listdir('/proc/%d/fd' % host.pid))

    def memory(self, host, field):
        with open('/proc/%d/status' % host.pid, encoding='ascii') as file:
            return int(re.search(r'^%s:\s+(\d+) kB' % field, file.read(), re.MULTILINE).group(1))

    def assertGrewLess(self, host, grown, most):
        """A sanitizer keeps what was freed for a while: with one, what is held says nothing."""
        with open('/proc/%d/maps' % host.pid, encoding='utf-8', errors='replace') as file:
            is_sanitized = re.search(r'lib[at]san', file.read()) is not None
        self.assertTrue(is_sanitized or grown < most, (grown, most))

    def test_a_thousand(self):
        with self.listening() as host:
            host('start(10000)')
            for _ in range(20):
                ask(host.path, 'snapshot')
            before = self.memory(host, 'VmRSS'), self.descriptors(host), len(os.listdir('/proc/%d/task' % host.pid))
            for number in range(1000):
                ask(host.path, ['status', 'snapshot', 'dump', 'dump json=1'][number % 4])
            host('stop()')
            after = self.memory(host, 'VmRSS'), self.descriptors(host), len(os.listdir('/proc/%d/task' % host.pid))
            self.assertGrewLess(host, after[0] - before[0], 4096)
            self.assertLessEqual(after[1], before[1])
            self.assertEqual(before[2] - 1, after[2])

    def test_silent_ones_are_closed(self):
        """And keep nobody waiting meanwhile: there are more of them than are served at a time."""
        with self.listening() as host:
            silent = [connect(host.path) for _ in range(30)]
            for _ in range(30):
                self.assertEqual(host.pid, client.status(host.path)['pid'])
            for peer in silent:
                self.assertEqual(b'', peer.recv(1))
                peer.close()
            self.assertEqual(host.pid, client.status(host.path)['pid'])

    def fill(self, host, names, depth):
        host('start(200, memory_mib=64)')
        while client.status(host.path)['stats']['bytes'] < 1 << 20:
            host('deep(%d, %d)' % (names, depth))

    def test_slow_ones_are_closed(self):
        """Who takes nothing is cut, and sampling goes on, and others are answered."""
        with self.listening() as host:
            self.fill(host, 200, 100)
            slow = [connect(host.path) for _ in range(7)]
            for peer in slow:
                peer.sendall(b'pyprof 1 snapshot\n')
            ticks = client.status(host.path)['stats']['ticks']
            seen = 0
            while seen < 50:
                seen = client.status(host.path)['stats']['ticks'] - ticks
            self.assertGreater(len(ask(host.path, 'snapshot')), 1 << 20)
            for peer in slow:
                with self.assertRaises((EOFError, ConnectionResetError)):
                    peer.settimeout(PATIENCE)
                    self.wait_for_close(peer)
                    client.read_answer(peer)
            host('stop()')

    def wait_for_close(self, peer):
        """Until the other side has closed it, without taking anything."""
        poll = select.poll()
        poll.register(peer, select.POLLRDHUP)
        self.assertTrue(poll.poll(PATIENCE * 1000))

    def test_trickle_ends(self):
        """Who takes little at a time is cut in the end, too."""
        with self.listening() as host:
            self.fill(host, 200, 100)
            with connect(host.path) as peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                peer.sendall(b'pyprof 1 snapshot\n')
                poll = select.poll()
                poll.register(peer, select.POLLRDHUP)
                while not poll.poll(300):
                    peer.recv(20000)
            host('stop()')
            self.assertEqual(host.pid, client.status(host.path)['pid'])

    def test_memory_of_a_large_profile(self):
        """While it is taken, a snapshot costs its copy, and little beside it."""
        with self.listening() as host:
            host('start(100, memory_mib=256)')
            first, before, nodes = client.status(host.path)['stats']['bytes'], self.memory(host, 'VmHWM'), 0
            while nodes <= 100000:
                host('deep(150, 900)')
                held = client.status(host.path)['stats']['bytes']
                text = ask(host.path, 'snapshot')
                nodes = client.rows(text)[-1]['nodes']
            self.assertGreater(len(text), 10 << 20)
            self.assertGrewLess(host, (self.memory(host, 'VmHWM') - before) * 1024, 2 * held - first + (4 << 20))

    def test_another_user(self):
        if os.geteuid() != 0:
            self.skipTest('only root can become another user')
        with self.listening() as host:
            os.chmod(self.folder, 0o755)
            os.chmod(os.path.dirname(host.path), 0o755)
            os.chmod(host.path, 0o777)
            said = as_nobody(lambda: ask_raw(host.path, b'pyprof 1 status\n').decode())
            self.assertRegex(said, r'^error -10 .* own user and root only\n$')
            os.chmod(host.path, 0o600)
            self.assertIn('Permission denied', as_nobody(lambda: ask_raw(host.path, b'pyprof 1 status\n').decode()))
            os.chmod(os.path.dirname(host.path), 0o700)


class Places(Case):
    def test_modes(self):
        with self.listening() as host:
            self.assertEqual(0o700, stat.S_IMODE(os.stat(os.path.dirname(host.path)).st_mode))
            self.assertEqual(0o600, stat.S_IMODE(os.stat(host.path).st_mode))
            self.assertEqual((0, ''), host('unlisten()'))
            self.assertEqual([], os.listdir(os.path.dirname(host.path)))
            self.assertEqual(NOT_ACTIVE, host('unlisten()')[0])
            self.assertEqual((0, ''), host('listen()'))
            code, text = host('listen()')
            self.assertEqual(ALREADY_ACTIVE, code)
            self.assertIn(host.path, text)
            self.assertEqual(host.pid, client.status(host.path)['pid'])

    def test_where_nothing_is_said(self):
        """Without XDG_RUNTIME_DIR it is /tmp."""
        with Host(self.folder) as host:
            host('os.environ.pop("XDG_RUNTIME_DIR")')
            self.assertEqual((0, ''), host('listen()'))
            self.assertEqual(host.pid, client.status('/tmp/pyprof-%d/%d.sock' % (os.geteuid(), host.pid))['pid'])
            self.assertEqual((0, ''), host('unlisten()'))
            self.assertFalse(os.path.exists('/tmp/pyprof-%d/%d.sock' % (os.geteuid(), host.pid)))

    def test_squatted(self):
        with Host(self.folder) as host:
            folder, path = os.path.dirname(host.path), host.path

            def refused(what):
                code, text = host('listen()')
                self.assertEqual(IO, code)
                self.assertIn(what, text)
                self.assertIn(folder, text)

            open(folder, 'w').close()
            refused('is no folder')
            os.unlink(folder)
            os.mkdir(folder, 0o755)
            os.chmod(folder, 0o755)
            refused('is open to others')
            os.rmdir(folder)
            os.symlink('/root', folder)
            refused('is no folder')
            os.unlink(folder)
            os.mkdir(folder, 0o700)
            if os.geteuid() == 0:
                os.chown(folder, 65534, 65534)
                refused("is another user's")
                os.chown(folder, 0, 0)
            for make in (lambda: open(path, 'w').close(), lambda: os.mkdir(path), lambda: os.symlink('/nowhere', path)):
                make()
                refused('is no socket')
                self.assertTrue(os.path.lexists(path))
                (os.rmdir if os.path.isdir(path) else os.unlink)(path)
            self.assertEqual((0, ''), host('listen()'))
            self.assertEqual(IO, host('said(api.pyprof_unlisten()) and listen("/nowhere/x")')[0])
            self.assertEqual(ARGUMENT, host('listen("")')[0])
            self.assertEqual(ARGUMENT, host('listen("x" * 108)')[0])

    def test_stale(self):
        """The file of a process that has ended is replaced; it is what remains of one that ends without a word."""
        path = os.path.join(self.folder, 'x.sock')
        with Host(self.folder) as host:
            self.assertEqual((0, ''), host('listen(%r)' % path))
        self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
        with Host(self.folder) as host:
            self.assertEqual((0, ''), host('listen(%r)' % path))
            self.assertEqual(host.pid, client.status(path)['pid'])
            self.assertEqual((0, ''), host('unlisten()'))
        self.assertFalse(os.path.exists(path))

    def test_live(self):
        """A path at which somebody listens is never taken, and who that is, is said."""
        path = os.path.join(self.folder, 'x.sock')
        with Host(self.folder) as one, Host(self.folder) as other:
            self.assertEqual((0, ''), one('listen(%r)' % path))
            code, text = other('listen(%r)' % path)
            self.assertEqual(IO, code)
            self.assertIn('process %d listens at %s' % (one.pid, path), text)
            self.assertEqual(one.pid, client.status(path)['pid'])
            self.assertEqual((0, ''), other('listen()'))
            self.assertEqual((one.pid, other.pid), (client.status(path)['pid'], client.status(other.path)['pid']))
            with socket.socket(socket.AF_UNIX) as foreign:
                foreign.bind(path + '2')
                foreign.listen(0)
                one('unlisten()')
                self.assertIn('process %d listens' % os.getpid(), one('listen(%r)' % (path + '2'))[1])

    def test_many_at_one_stale_path(self):
        """Of those that find it at the same time one gets it."""
        path = os.path.join(self.folder, 'x.sock')
        with Host(self.folder) as one, Host(self.folder) as two, Host(self.folder) as three:
            for _ in range(20):
                with socket.socket(socket.AF_UNIX) as stale:
                    stale.bind(path)
                hosts = [one, two, three]
                for host in hosts:
                    host.tell('listen(%r)' % path)
                results = [host.answer()[0] for host in hosts]
                self.assertEqual(sorted(results), [IO, IO, 0])
                winner = hosts[results.index(0)]
                self.assertEqual(winner.pid, client.status(path)['pid'])
                winner('unlisten()')

    def test_replaced_file_stays(self):
        with self.listening() as host:
            os.unlink(host.path)
            with open(host.path, 'w', encoding='ascii') as file:
                file.write('mine')
            self.assertEqual((0, ''), host('unlisten()'))
            with open(host.path, encoding='ascii') as file:
                self.assertEqual('mine', file.read())
            os.unlink(host.path)

    def test_changed_folder(self):
        with Host(self.folder) as host:
            host('os.chdir(%r)' % self.folder)
            self.assertEqual((0, ''), host('listen("y.sock")'))
            host('os.chdir("/")')
            self.assertEqual(host.pid, client.status(self.folder + '/y.sock')['pid'])
            self.assertEqual((0, ''), host('unlisten()'))
            self.assertFalse(os.path.exists(self.folder + '/y.sock'))


if __name__ == '__main__':
    unittest.main()
