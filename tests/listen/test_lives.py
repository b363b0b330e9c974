"""What listens, through all that happens to its process: forks, closed descriptors, the end of Python, unloading; and while
many ask and recordings come and go."""
import os
import threading
import unittest

import client
from client import NOT_ACTIVE, Host, Refused, ask, connect


class Case(unittest.TestCase):
    def setUp(self):
        folder = client.folder()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def listening(self, **options):
        host = Host(self.folder, **options)
        self.assertEqual((0, ''), host('listen()'))
        return host

    def without_sanitizer(self, host, what, names=('libtsan',)):
        maps = host('open("/proc/self/maps").read()')
        for name in names:
            if name in maps:
                self.skipTest('%s %s' % (name, what))


class Forks(Case):
    def test_child_has_none(self):
        """Not one descriptor of the parent's, connections included; its end does not remove the parent's file."""
        with Host(self.folder) as host:
            before = host('fork("descriptors()")')
            self.assertEqual((0, ''), host('listen()'))
            peers = [connect(host.path) for _ in range(5)]
            for peer in peers:
                client.status(host.path)
            self.assertGreaterEqual(len(host('descriptors()')), 4 + 6)
            status, text = host('fork("(descriptors(), unlisten(), sorted(os.listdir(\'/proc/self/task\')))")')
            descriptors, unlisten, tasks = eval(text)  # pylint: disable=eval-used
            self.assertEqual(0, status)
            self.assertEqual(before[1].count(','), len(descriptors) - 1)
            self.assertEqual(NOT_ACTIVE, unlisten[0])
            self.assertEqual(1, len(tasks))
            self.assertEqual(host.pid, client.status(host.path)['pid'])
            for peer in peers:
                peer.close()

    def test_child_listens_itself(self):
        with self.listening() as host:
            self.without_sanitizer(host, 'allows no threads in a child of a process with threads', ['libtsan'])
            host('start()')
            for _ in range(10):
                self.assertEqual((0, '((0, \'\'), (0, \'\'))'), host('fork("(listen(), unlisten())")'))
                self.assertTrue(client.status(host.path)['is_recording'])
            self.assertEqual([os.path.basename(host.path)], os.listdir(os.path.dirname(host.path)))

    def test_child_of_a_bare_fork(self):
        with self.listening() as host:
            self.without_sanitizer(host, 'takes the threads of the parent for the child\'s')
            self.assertEqual(7 << 8, host('api.host_fork_bare()'))
            self.assertEqual(host.pid, client.status(host.path)['pid'])

    def test_forks_while_many_ask(self):
        with self.listening() as host:
            self.without_sanitizer(host, 'has locks in its malloc that fork does not know', ['libasan', 'libtsan'])
            host('start(500)')
            asking = Asking(host.path, ['status', 'snapshot', 'dump', 'dump json=1', 'status'])
            for _ in range(40):
                self.assertEqual((0, "(0, '')"), host('fork("start()")'))
            asking.end()
            self.assertGreater(asking.answers, 0)
            self.assertEqual([], asking.errors)


class Asking:
    """Threads that ask for this and that until they are told to end. errors: what went wrong."""

    def __init__(self, path, commands, times=3, allowed=()):
        self.path = path
        self.is_over = threading.Event()
        self.answers = 0
        self.errors = []
        self.allowed = allowed
        self.threads = [threading.Thread(target=self.ask, args=(commands[turn:] + commands[:turn],))
                        for turn in range(times)]
        for thread in self.threads:
            thread.start()

    def ask(self, commands):
        while not self.is_over.is_set():
            for command in commands:
                try:
                    ask(self.path, command)
                    self.answers += 1
                except Refused as refused:
                    if refused.code not in self.allowed:
                        self.errors.append((command, str(refused)))
                except (OSError, EOFError) as error:
                    if type(error) not in self.allowed:
                        self.errors.append((command, repr(error)))

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()


class Changes(Case):
    def test_thread(self):
        """It has its name, and blocks all signals; what the C library keeps for itself (32, 33), and what cannot be
        blocked, are in no mask."""
        with self.listening() as host:
            folder = '/proc/%d/task' % host.pid
            found = []
            for task in os.listdir(folder):
                with open(os.path.join(folder, task, 'status'), encoding='ascii') as file:
                    fields = {name: value.strip() for name, _, value in (line.partition(':') for line in file)}
                if fields['Name'] == 'pyprof-listen':
                    found.append(int(fields['SigBlk'], 16))
            self.assertEqual([], [hex(mask) for mask in found if mask | 1 << 8 | 1 << 18 | 7 << 31 != (1 << 64) - 1])
            self.assertEqual(1, len(found))

    def test_recordings_come_and_go(self):
        """By the program and by peers, while others ask: nothing is refused but for what is not there."""
        with self.listening() as host:
            host('threads(2, work)')
            asking = Asking(host.path, ['status', 'snapshot', 'dump', 'dump json=1', 'start interval_us=300', 'stop',
                                        'stop drop=1'], allowed=(client.NOT_ACTIVE, client.ALREADY_ACTIVE))
            for _ in range(60):
                self.assertIn(host('start(300)')[0], (0, client.ALREADY_ACTIVE))
                self.assertIn(host('stop()')[0], (0, client.NOT_ACTIVE))
            asking.end()
            self.assertEqual([], asking.errors)
            self.assertGreater(asking.answers, 100)

    def test_sockets_come_and_go(self):
        """While peers are at all stages: what they lose is their connection."""
        with Host(self.folder) as host:
            host('start(500)')
            before = host('descriptors()'), host('len(os.listdir("/proc/self/task"))')
            self.assertEqual((0, ''), host('listen()'))
            asking = Asking(host.path, ['status', 'snapshot', 'dump'], allowed=(
                FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError, EOFError))
            for _ in range(60):
                self.assertEqual((0, ''), host('unlisten()'))
                self.assertEqual((0, ''), host('listen()'))
            while asking.answers < 20:
                client.status(host.path)
            asking.end()
            self.assertEqual([], asking.errors)
            host('unlisten()')
            self.assertEqual(before, (host('descriptors()'), host('len(os.listdir("/proc/self/task"))')))

    def test_silent_and_slow_ones_end_with_it(self):
        with self.listening() as host:
            host('start(200)')
            host('deep(100, 100)')
            silent, slow = connect(host.path), connect(host.path)
            slow.sendall(b'pyprof 1 snapshot\n')
            client.status(host.path)
            self.assertEqual((0, ''), host('unlisten()'))
            self.assertEqual(b'', silent.recv(1))
            with self.assertRaises((EOFError, ConnectionResetError)):
                client.read_answer(slow)
            silent.close()
            self.assertEqual((0, ''), host('stop()'))


class Descriptors(Case):
    def test_closed_by_the_program(self):
        """What the program then opens in their place stays its own, and it can listen anew."""
        with self.listening() as host:
            with connect(host.path) as peer:
                client.status(host.path)
                host('[close_all(), globals().update(pairs=[__import__("socket").socketpair() for i in range(20)])][0]')
                self.assertEqual((0, ''), host('unlisten()'))
                self.assertEqual([b'x'] * 20, host('[(a.send(b"x"), b.recv(9))[1] for a, b in pairs]'))
                self.assertEqual(b'', peer.recv(1))
            self.assertFalse(os.path.exists(host.path))
            self.assertEqual((0, ''), host('listen()'))
            self.assertEqual(host.pid, client.status(host.path)['pid'])

    def test_none_left(self):
        """Where no descriptor is left peers wait, and are answered when there is one."""
        with self.listening() as host:
            self.assertGreater(host('use_up()'), 10)
            with connect(host.path) as peer:
                peer.sendall(b'pyprof 1 status\n')
                host('give_back()')
                self.assertIn(b'"protocol":1', client.read_answer(peer))


class Ends(Case):
    def test_python_comes_and_goes(self):
        with Host(self.folder, times=4) as host:
            self.assertEqual((0, ''), host('listen()'))
            for turn in range(4):
                self.assertEqual(host.pid, client.status(host.path)['pid'])
                ask(host.path, 'start interval_us=300')
                while b'"f2"' not in ask(host.path, 'snapshot'):
                    host('deep(3, 3)')
                host.tell('bye')
                self.assertEqual('without Python\n', host.program.stdout.readline())
                self.assertTrue(client.status(host.path)['is_recording'])
                rows = client.rows(ask(host.path, 'stop'))
                self.assertIn('f2', [row.get('name') for row in rows])
                host.tell('')
                if turn < 3:
                    self.assertEqual(host.pid, host.answer())

    def test_unloaded(self):
        """While peers are at all stages, and a recording runs, whoever began it."""
        with open(os.path.join(os.environ['PYPROF_BUILD'], 'tests', 'listen', 'listen_plugin.so'), 'rb') as file:
            if b'libasan' in file.read():
                self.skipTest('skipped: a plugin with AddressSanitizer cannot be loaded by a python without it')
        for begin in ('start(300)', 'None'):
            with self.subTest(begin=begin), Host(self.folder, plugin=True) as host:
                host('unload()')
                before = host('descriptors()'), host('len(os.listdir("/proc/self/task"))')
                for _ in range(15):
                    host('load(os.environ["DRIVEN_LIBRARY"])')
                    self.assertEqual((0, ''), host('listen()'))
                    host(begin)
                    silent, slow = connect(host.path), connect(host.path)
                    slow.sendall(b'pyprof 1 snapshot\n')
                    asking = Asking(host.path, ['start', 'status', 'dump json=1', 'stop'], times=2, allowed=(
                        FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError, EOFError,
                        client.NOT_ACTIVE, client.ALREADY_ACTIVE))
                    while asking.answers < 3:
                        pass
                    host('unload()')
                    self.assertFalse(os.path.exists(host.path))
                    asking.end()
                    self.assertEqual([], asking.errors)
                    self.assertEqual(b'', silent.recv(1))
                    silent.close()
                    slow.close()
                    self.assertNotIn('listen_plugin', host('open("/proc/self/maps").read()'))
                self.assertEqual(before, (host('descriptors()'), host('len(os.listdir("/proc/self/task"))')))


if __name__ == '__main__':
    unittest.main()
