"""examples/04_push.c pushes what Pyroscope and Parca take, to the byte, and no server can hurt the host. The servers are
loopback ones of this file: they hold each request against an encoder of their own, and misbehave in each way there is."""

import collections
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
import pprof

BUILD = os.environ["PYPROF_BUILD"]
PUSH = os.path.join(BUILD, "examples", "04_push")
SMALL = os.path.join(BUILD, "tests", "cli", "push_small")  # the same, built with these limits
SMALL_SAMPLES, SMALL_BYTES = 12, 20000
TIMEOUT = 120  # for what hangs; nothing is judged by it
PYROSCOPE = "/push.v1.PusherService/Push", "application/proto"
PARCA = "/api/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw", "application/grpc-web+proto"
OK_PYROSCOPE = b"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 0\r\n\r\n"


# ---- an encoder of protocol buffers that has nothing in common with the one of the example

def number(value):
    groups = []
    while value or not groups:
        groups.append(value & 127)
        value >>= 7
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def field(tag, *parts):
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return number(tag * 8 + 2) + number(len(content)) + content


def pyroscope_request(series):
    return b"".join(field(1, b"".join(field(1, field(1, name), field(2, value)) for name, value in labels),
                          field(2, field(1, file))) for labels, file in series)


def parca_request(series):
    message = b"".join(field(2, field(1, b"".join(field(1, field(1, name), field(2, value)) for name, value in labels)),
                             field(2, field(1, file))) for labels, file in series)
    return b"\0" + struct.pack(">I", len(message)) + message


# ---- what came

Series = collections.namedtuple("Series", "labels file profile")


def only(message, tag):
    """The one field that a message has."""
    (found, content), = pprof.fields(message)
    assert found == tag, (found, tag)
    return content


def read_label(message):
    (one, name), (two, value) = pprof.fields(message)
    assert (one, two) == (1, 2)
    return name.decode(), value.decode()


def read_series(message, is_parca):
    *labels, (tag, sample) = pprof.fields(message)
    assert tag == 2 and {one for one, _ in labels} == {1}
    if is_parca:
        (_, label_set), = labels
        labels = list(pprof.fields(label_set))
    file = only(sample, 1)
    return Series([read_label(label) for _, label in labels], file, pprof.read(file))


def frames_of(chunks, trailer):
    """An answer of gRPC-web as Go's server sends it: in chunks, whose ends need not be those of the frames."""
    content = b"\0\0\0\0\0" + b"\x80" + struct.pack(">I", len(trailer)) + trailer
    step = max(1, len(content) // chunks)
    parts = [content[at:at + step] for at in range(0, len(content), step)]
    return (b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web+proto\r\ntransfer-encoding: chunked\r\n\r\n" +
            b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n")


OK_PARCA = frames_of(1, b"grpc-status: 0\r\ngrpc-message: \r\n")


def receive_all(connection):
    """A request: its head, and as much behind it as that says."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(re.search(rb"Content-Length: (\d+)", head).group(1))
    while len(body) < size:
        body += connection.recv(65536) or b"\0" * size
    return head, body


class Server:
    """Takes connections one after the other, and hands each to a function, with its number from 1 on. After that the
    script can see a file of that number."""

    def __init__(self, handle, folder, is_slow=False, address="127.0.0.1"):
        self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        if is_slow:  # as small segments as there are: of large ones Linux keeps megabytes for who sends
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        self.socket.bind((address, 0))
        self.socket.listen(8)
        self.port = self.socket.getsockname()[1]
        self.handle, self.folder, self.failures, self.is_closed = handle, folder, [], False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        turn = 0
        while True:
            connection, _ = self.socket.accept()
            if self.is_closed:
                connection.close()
                return
            turn += 1
            with connection:
                connection.settimeout(TIMEOUT)
                try:
                    self.handle(connection, turn)
                except OSError:
                    pass  # the host went away: what it says of that is judged
                except Exception as error:
                    self.failures.append(repr(error))
            open(os.path.join(self.folder, "turn%d" % turn), "w").close()

    def close(self):
        self.is_closed = True
        with socket.socket(self.socket.family) as last:
            last.connect(self.socket.getsockname())
        self.thread.join()
        self.socket.close()


def wait_for_end(connection):
    """Until the host closes."""
    while connection.recv(65536):
        pass


Ended = collections.namedtuple("Ended", "code out err pushed dropped empty")

WORK = """
    import os, sys, threading, time
    def spend():
        return sum(i * i % 7 for i in range(20000))
    def spend_until(turn):
        while not os.path.exists("turn%d" % turn):
            spend()
    def spend_some():
        end = time.process_time() + 0.3
        while time.process_time() < end:
            spend()
    """

# A stack of many functions with long names: a request that no buffer of a socket takes whole.
LARGE = """
    functions = {}
    for i in range(900):
        name = "f%d_" % i + 3500 * "x"
        exec("def %s(n):\\n    return call(n + 1)" % name, globals(), functions)
    order = list(functions.values())
    def call(n):
        return order[n](n) if n < len(order) else spend_some()
    sys.setrecursionlimit(5000)
    call(0)
    """


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="pyprof-push-")
        self.addCleanup(shutil.rmtree, self.dir)

    def serve(self, handle, **more):
        server = Server(handle, self.dir, **more)
        self.addCleanup(lambda: self.assertEqual([], server.failures))
        self.addCleanup(server.close)
        return server.port

    def host(self, port, kind, script, seconds=2, program=PUSH, service="game", host="127.0.0.1", work=WORK):
        path = os.path.join(self.dir, "script.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(work) + textwrap.dedent(script))
        env = dict(os.environ, PYTHONHOME=os.environ["PYPROF_PYTHONHOME"], PYTHONIOENCODING="utf-8")
        env.pop("PYTHONPATH", None)
        command = [program, "http://%s:%s" % (host, port), kind, service, str(seconds), path, "an argument"]
        done = subprocess.run(command, cwd=self.dir, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=TIMEOUT, encoding="utf-8", errors="backslashreplace")
        last = re.search(r"\Apush: (\d+) profiles pushed, (\d+) dropped, (\d+) empty; between two are not "
                         r"recorded \d+\.\d ms on average, \d+\.\d at most\n\Z",
                         (done.stderr.splitlines(True) or [""])[-1])
        self.assertTrue(last, done)
        return Ended(done.returncode, done.stdout, done.stderr, *map(int, last.groups()))


class Pushes(Case):
    def collect(self, kind, answer=None):
        """A server that answers as the real one, and the list of what it got: of each request its series."""
        is_parca = kind == "parca"
        path, content_type = PARCA if is_parca else PYROSCOPE
        got, port = [], []

        def handle(connection, turn):
            head, body = receive_all(connection)
            self.hold_head(head, path, port[0], content_type, len(body))
            message = body[5:] if is_parca else body
            series = [read_series(content, is_parca) for tag, content in pprof.fields(message)]
            again = [(one.labels, one.file) for one in series]
            pprof.hold(body == (parca_request(again) if is_parca else pyroscope_request(again)), "each byte of the envelope")
            got.append(series)
            connection.sendall(answer or (OK_PARCA if is_parca else OK_PYROSCOPE))
            wait_for_end(connection)

        port.append(self.serve(handle))
        return port[0], got

    @staticmethod
    def hold_head(head, path, port, content_type, size):
        expected = ("POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: %s\r\nContent-Length: %d\r\n"
                    "Connection: close" % (path, port, content_type, size))
        pprof.hold(head.decode() == expected, "%r is not %r" % (head, expected))

    def names(self, profile):
        return {frame.name for sample in profile.samples for frame in sample.stack}

    PHASES = """
        def phase_1(): spend_until(1)
        def phase_2(): spend_until(2)
        def phase_3(): spend_until(3)
        def work():
            while is_running: spend()
        is_running = True
        thread = threading.Thread(target=work, name="wörker")
        thread.start()
        phase_1(); phase_2(); phase_3()
        is_running = False
        thread.join()
        print(sys.argv[1:])
        sys.exit(3)
        """

    def test_pyroscope(self):
        port, got = self.collect("pyroscope")
        ended = self.host(port, "pyroscope", self.PHASES)
        self.assertEqual((3, "['an argument']\n", 0), (ended.code, ended.out, ended.dropped), ended.err)
        self.assertEqual(1, ended.err.count("\n"))
        self.assertEqual(len(got), ended.pushed)
        self.assertGreaterEqual(len(got), 3)
        for series in got:
            self.assertEqual([[("__delta__", "false"), ("__name__", "wall"), ("service_name", "game")]],
                             [one.labels for one in series])
        self.hold_minutes([series[0].profile for series in got])
        self.assertEqual({"MainThread", "wörker"},
                         {sample.labels["thread"] for series in got for sample in series[0].profile.samples})

    def hold_minutes(self, profiles):
        """When the first is pushed, the second minute has begun, in which phase 1 ends. So there is nothing of it in the
        third, unless a profile is of more than its minute; and each begins after the one before."""
        self.assertIn("phase_1", self.names(profiles[0]))
        self.assertNotIn("phase_2", self.names(profiles[0]))
        self.assertNotIn("phase_1", self.names(profiles[2]))
        for before, after in zip(profiles, profiles[1:]):
            self.assertLess(before.time_nanos, after.time_nanos)
        for profile in profiles:
            wall = collections.Counter()
            for sample in profile.samples:
                wall[sample.labels["thread"]] += sample.values["wall"]
            self.assertLessEqual(max(wall.values()), profile.duration_nanos)

    def test_parca(self):
        port, got = self.collect("parca")
        ended = self.host(port, "parca", self.PHASES)
        self.assertEqual((3, "['an argument']\n", 0), (ended.code, ended.out, ended.dropped), ended.err)
        self.assertEqual(len(got), ended.pushed)
        threads = set()
        for series in got:
            for one in series:
                *labels, (name, thread) = one.labels
                self.assertEqual([("__name__", "wall"), ("service_name", "game")], labels)
                self.assertEqual("thread", name)
                self.assertEqual({thread}, {sample.labels["thread"] for sample in one.profile.samples})
                threads.add(thread)
            self.assertEqual(len(series), len({one.labels[-1][1] for one in series}), "a thread is one series")
        self.assertEqual({"MainThread", "wörker"}, threads)
        self.hold_minutes([one.profile for series in got for one in series if one.labels[-1][1] == "MainThread"])

    THREADS = """
        def work():
            spend_some()
        threads = [threading.Thread(target=work, name=name) for name in %r]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """

    def threads(self, *names):
        """The labels of all series, where threads of these names ran."""
        port, got = self.collect("parca")
        ended = self.host(port, "parca", self.THREADS % (names,), seconds=60)
        self.assertEqual((0, 1, 0), (ended.code, ended.pushed, ended.dropped), ended.err)
        self.assertEqual(1, len(got))
        return [dict(one.labels).get("thread") for one in got[0]], got[0]

    def test_names_that_are_no_utf_8(self):
        found, series = self.threads("a\udc80b", "c;d")
        self.assertLessEqual({"a???b", "c;d"}, set(found))
        inside = [one.profile.samples[0].labels["thread"] for one in series if dict(one.labels)["thread"] == "a???b"]
        self.assertEqual(["a\\udc80b"], inside)

    def test_names_that_are_no_filter(self):
        """A filter by "a*" would bring "ab" twice. So all are one series, and each sample is in it once."""
        for names in ("a*", "ab"), ("a", "a\0b"):
            found, series = self.threads(*names)
            self.assertEqual([None], found, names)
            inside = {sample.labels["thread"] for sample in series[0].profile.samples}
            self.assertEqual(2, len(inside - {"MainThread"}), inside)
        found, _ = self.threads("a*", "b")
        self.assertLessEqual({"a*", "b"}, set(found))

    def test_deep_stacks(self):
        """At most 1,000 frames, and what is left out is not the leaf."""
        port, got = self.collect("pyroscope")
        ended = self.host(port, "pyroscope", """
            def dig(n):
                return dig(n - 1) if n else spend_some()
            sys.setrecursionlimit(5000)
            dig(3000)
            """, seconds=60)
        self.assertEqual((0, 1, 0), (ended.code, ended.pushed, ended.dropped), ended.err)
        deep = [sample.stack for sample in got[0][0].profile.samples if "dig" in {frame.name for frame in sample.stack}
                and "spend_some" in {frame.name for frame in sample.stack}]
        self.assertTrue(deep)
        for stack in deep:
            names = [frame.name for frame in stack]
            self.assertTrue(900 < len(stack) <= 1000, len(stack))
            self.assertLess(names.index("spend_some"), 4)
            self.assertEqual("<module>", names[-1])
            self.assertEqual(1, names.count("[truncated]"))
            self.assertGreater(names.index("[truncated]"), 500)

    MANY = """
        def leaf(): return sum(i * i % 7 for i in range(1000))
        def work():
            end = time.thread_time() + 1.5
            while time.thread_time() < end:
                for one in functions: one()
        functions = []
        for i in range(200):
            exec("def f%d(): return leaf()\\nfunctions.append(f%d)" % (i, i))
        threads = [threading.Thread(target=work, name="t%d" % (i % 2)) for i in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """

    def test_what_is_too_large(self):
        """Is pushed thread by thread, and small shares are added to callers: no time is lost."""
        port, got = self.collect("pyroscope")
        ended = self.host(port, "pyroscope", self.MANY, seconds=60, program=SMALL)
        self.assertEqual((0, 1, 0), (ended.code, ended.pushed, ended.dropped), ended.err)
        self.assertRegex(ended.err, r"push: a profile was too large: what had less than \d+\.\d{3} % was added to its callers\n")
        series = got[0]
        self.assertGreaterEqual(len(series), 2)
        for one in series:
            self.assertEqual([("__delta__", "false"), ("__name__", "wall"), ("service_name", "game")], one.labels)
            self.assertLessEqual(len(one.profile.samples), SMALL_SAMPLES)
            self.assertLessEqual(len(pprof.unzip(one.file)), SMALL_BYTES)
            self.assertEqual(1, len({sample.labels["thread"] for sample in one.profile.samples}))
        cpu = collections.Counter()
        for one in series:
            for sample in one.profile.samples:
                cpu[sample.labels["thread"]] += sample.values["cpu"]
        self.assertLessEqual({"t0", "t1"}, set(cpu))
        for thread in "t0", "t1":  # both of a name had 1.5 s of it; some is before its first sample, and after its last
            self.assertGreater(cpu[thread], 2.4e9)

    def test_many_bytes(self):
        """What is too large by its texts alone is cut, too."""
        port, got = self.collect("pyroscope")
        ended = self.host(port, "pyroscope", LARGE, seconds=60, program=SMALL)
        self.assertEqual((0, 1, 0), (ended.code, ended.pushed, ended.dropped), ended.err)
        self.assertLessEqual(max(len(pprof.unzip(one.file)) for one in got[0]), SMALL_BYTES)

    def test_nothing_runs(self):
        """A minute in which all threads wait is no profile, and no failure."""
        port, got = self.collect("pyroscope")
        ended = self.host(port, "pyroscope", "time.sleep(3.2)", seconds=1)
        self.assertEqual((0, 0), (ended.code, ended.dropped), ended.err)
        self.assertGreaterEqual(ended.empty, 1)
        self.assertEqual(len(got), ended.pushed)

    def test_other_answers_that_are_fine(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/%s\r\n"
        frame = b"\x80\0\0\0\x0fgrpc-status:0\r\n"
        for kind, answer in (
                ("parca", frames_of(7, b"grpc-message: \r\nGrpc-Status: 0\r\n")),
                ("parca", head % b"grpc-web+proto; charset=utf-8" + b"Content-Length: 20\r\n\r\n" + frame),
                ("parca", head % b"grpc-web+proto" + b"GRPC-STATUS:0\r\nContent-Length: 0\r\n\r\n"),
                ("pyroscope", head % b"proto" + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")):
            with self.subTest(answer=answer):
                port, got = self.collect(kind, answer)
                ended = self.host(port, kind, "spend_some()", seconds=60)
                self.assertEqual((0, 1, 0), (ended.code, ended.pushed, ended.dropped), ended.err)

    def test_another_address(self):
        """By name, and with IPv6's brackets."""
        for host, address in ("localhost", "127.0.0.1"), ("[::1]", "::1"):
            with self.subTest(host):
                heads = []

                def handle(connection, turn):
                    heads.append(receive_all(connection)[0])
                    connection.sendall(OK_PYROSCOPE)
                try:
                    port = self.serve(handle, address=address)
                except OSError as error:
                    print("skipped: a server at %s: %s" % (address, error), flush=True)
                    continue
                ended = self.host("%d/" % port, "pyroscope", "spend_some()", seconds=60, host=host)
                self.assertEqual((0, 1, 0), (ended.code, ended.pushed, ended.dropped), ended.err)
                self.assertIn(b"\r\nHost: %s:%d\r\n" % (host.encode(), port), heads[0])


class Misbehaviour(Case):
    """Whatever the server does, the host ends by itself with its own status, and one line says what to do."""

    def hold(self, port, kind, expected, script="spend_some()", seconds=60):
        ended = self.host(port, kind, script + "\nprint('done')\nsys.exit(7)", seconds=seconds)
        self.assertEqual((7, "done\n"), (ended.code, ended.out), ended.err)
        self.assertEqual(0, ended.pushed, ended.err)
        self.assertGreaterEqual(ended.dropped, 1, ended.err)
        lines = ended.err.splitlines()
        self.assertEqual(ended.dropped + 1, len(lines), ended.err)
        for line in lines[:-1]:
            self.assertRegex(line, "^push: a profile is dropped: " + expected % {"port": port} + "$")

    def hold_answer(self, kind, answer, expected):
        def handle(connection, turn):
            receive_all(connection)
            connection.sendall(answer)
        with self.subTest(answer=answer[:60]):
            self.hold(self.serve(handle), kind, expected)

    def test_refuses(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.hold(free.getsockname()[1], "parca",
                      r"http://127\.0\.0\.1:%(port)d cannot be reached: Connection refused: is parca running there\?")

    def test_name_that_is_not_there(self):
        ended = self.host(80, "parca", "spend_some(); sys.exit(7)", host="no-such-host.invalid", seconds=60)
        self.assertEqual((7, 0, 1), (ended.code, ended.pushed, ended.dropped), ended.err)
        self.assertRegex(ended.err, r"http://no-such-host\.invalid:80 cannot be found: .*: is that its name\?\n")

    CLOSED = r"http://127\.0\.0\.1:%(port)d closed the connection without an answer: its log may say why"

    def test_closes_at_once(self):
        for script in "spend_some()", "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n" + textwrap.dedent(LARGE):
            self.hold(self.serve(lambda connection, turn: None), "pyroscope", self.CLOSED, script)

    def test_resets(self):
        def handle(connection, turn):
            connection.recv(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for script in "spend_some()", textwrap.dedent(LARGE):
            self.hold(self.serve(handle), "pyroscope", self.CLOSED, script)

    def test_reads_all_and_closes(self):
        self.hold_answer("pyroscope", b"", self.CLOSED)

    def test_errors(self):
        self.hold_answer("pyroscope", b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 8\r\n\r\nout of\n!",
                         r'http://127\.0\.0\.1:%(port)d answers "HTTP/1\.1 500 Internal Server Error": out of !')
        self.hold_answer("pyroscope", b'HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\r\n{"code":"no\x1b"}',
                         r'http://127\.0\.0\.1:%(port)d answers "HTTP/1\.1 400 Bad Request": {"code":"no "}')
        self.hold_answer("parca", b"HTTP/1.1 404\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x\r\ndefg\r\n0\r\n\r\n",
                         r'http://127\.0\.0\.1:%(port)d answers "HTTP/1\.1 404": abcdefg')

    def test_error_before_the_end_of_the_request(self):
        def handle(connection, turn):
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            done.wait(TIMEOUT)  # and reads no more
        done = threading.Event()
        port = self.serve(handle, is_slow=True)
        self.addCleanup(done.set)
        self.hold(port, "pyroscope",
                  r'http://127\.0\.0\.1:%(port)d answers "HTTP/1\.1 413 Too Large": no', textwrap.dedent(LARGE))

    def test_pages(self):
        """Parca answers what it does not know with its page, and 200; others have one, too."""
        for kind, wanted, port in ("parca", "application/grpc-web", 7070), ("pyroscope", "application/proto", 4040):
            for size in 20, 200000:
                page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (size, b"<html>\n" * (size // 7))
                self.hold_answer(kind, page + b"x" * 6, r'http://127\.0\.0\.1:%%(port)d answers with "text/html", not with '
                                 r'%s(\+proto)?: is this the port of %s \(%d unless it was told another\), or of something '
                                 r'before it\?' % (wanted, kind, port))
        self.hold_answer("pyroscope", b"HTTP/1.1 200 OK\r\n\r\n", r'.* answers with "", not with application/proto: .*')

    def test_grpc_status(self):
        self.hold_answer("parca", frames_of(1, b"grpc-status: 3\r\ngrpc-message: invalid profile\r\n"),
                         r"parca refused it: grpc-status 3: invalid profile")
        self.hold_answer("parca", b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web+proto\r\nGrpc-Status: 16\r\n"
                         b"Grpc-Message: no\tentry\r\nContent-Length: 0\r\n\r\n", "parca refused it: grpc-status 16: no entry")
        for answer in OK_PARCA[:OK_PARCA.index(b"\r\n\r\n")] + b"\r\n\r\n0\r\n\r\n", frames_of(1, b"x: 0\r\n"):
            self.hold_answer("parca", answer, r"http://127\.0\.0\.1:%(port)d says nothing of what became of the profile "
                             r"\(no grpc-status\): is this parca\?")

    def test_garbage(self):
        garbage = r"what http://127\.0\.0\.1:%(port)d answers is not HTTP: is this the port of pyroscope " \
                  r"\(4040 unless it was told another\)\?"
        for answer in (b"\0\1\2\xff\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"x" * 100000, b"HTTP/1.1 200 OK\r\n",
                       b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000):
            self.hold_answer("pyroscope", answer, garbage)

    def test_answer_that_is_cut(self):
        cut = r"http://127\.0\.0\.1:%(port)d closed the connection before the end of its answer: its log may say why"
        self.hold_answer("pyroscope", OK_PYROSCOPE.replace(b"Length: 0", b"Length: 9") + b"12345678", cut)
        for end in b"5\r\nabc", b"5", b"", b"ffffffffffffffffffff\r\nx", b"-1\r\nx\r\n0\r\n\r\n", b"zz\r\n":
            self.hold_answer("parca", OK_PARCA[:OK_PARCA.index(b"\r\n\r\n") + 4] + end, cut)

    def silent(self, what):
        return r"http://127\.0\.0\.1:%(port)d " + what + r" within 1 s: is it pyroscope that listens there, and has it " \
            r"too much to do\?"

    def test_is_silent(self):
        def handle(connection, turn):
            receive_all(connection)
            wait_for_end(connection)
        self.hold(self.serve(handle), "pyroscope", self.silent("did not answer"), seconds=1)

    def test_answers_letter_by_letter(self):
        def handle(connection, turn):
            receive_all(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            connection.settimeout(0.05)
            while True:
                try:
                    if not connection.recv(1):
                        return
                except socket.timeout:
                    connection.sendall(b"x")
        self.hold(self.serve(handle), "pyroscope", self.silent("did not answer"), seconds=1)

    def test_takes_nothing(self):
        def handle(connection, turn):
            connection.recv(1)
            done.wait(TIMEOUT)
        done = threading.Event()
        port = self.serve(handle, is_slow=True)
        self.addCleanup(done.set)
        self.hold(port, "pyroscope", self.silent("did not take the profile"), textwrap.dedent(LARGE), 1)

    def test_accepts_nothing(self):
        """Its queue is full: Linux then does not answer who wants to connect."""
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = [socket.socket() for _ in range(4)]
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            self.hold(full.getsockname()[1], "pyroscope", self.silent("took no connection"), seconds=1)
            for one in waiting:
                one.close()

    def test_takes_it_slowly(self):
        """In small pieces, but in time: that is no misbehaviour."""
        def handle(connection, turn):
            data = b""
            while b"\r\n\r\n" not in data or len(data) < data.index(b"\r\n\r\n") + size(data):
                data += connection.recv(3000)
            connection.sendall(OK_PYROSCOPE)
            wait_for_end(connection)

        def size(data):
            return 4 + int(re.search(rb"Content-Length: (\d+)", data).group(1))
        ended = self.host(self.serve(handle, is_slow=True), "pyroscope", LARGE, seconds=60)
        self.assertEqual((0, 1, 0), (ended.code, ended.pushed, ended.dropped), ended.err)

    def test_comes_back(self):
        """What a server does not take is lost, and what follows is pushed."""
        got = []

        def handle(connection, turn):
            got.append(receive_all(connection))
            connection.sendall(OK_PYROSCOPE if turn != 2 else b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
        ended = self.host(self.serve(handle), "pyroscope", "spend_until(3)\nsys.exit(7)", seconds=1)
        self.assertEqual((7, 1, len(got) - 1), (ended.code, ended.dropped, ended.pushed), ended.err)
        self.assertEqual(1, ended.err.count('answers "HTTP/1.1 503 Later"\n'), ended.err)

    def test_host_goes_on(self):
        """The server answers only once the host has got on with its work: if a push held that up, none would be answered."""
        def handle(connection, turn):
            receive_all(connection)
            open(os.path.join(self.dir, "asked"), "w").close()
            while not os.path.exists(os.path.join(self.dir, "worked")):
                connection.settimeout(0.01)
                try:
                    if not connection.recv(1):
                        return
                except socket.timeout:
                    pass
            connection.sendall(OK_PYROSCOPE)
        ended = self.host(self.serve(handle), "pyroscope", """
            while not os.path.exists("asked"): spend()
            for i in range(10): spend()
            open("worked", "w").close()
            """)
        self.assertEqual((0, 0), (ended.code, ended.dropped), ended.err)
        self.assertGreaterEqual(ended.pushed, 1)


class Hosts(Case):
    def test_arguments(self):
        usage = "usage: push http://HOST:PORT pyroscope|parca SERVICE SECONDS SCRIPT [ARGS...]\n"
        url = "push: the server's URL is %s: it has to be http://HOST:PORT (TLS and logins are a proxy's work)\n"
        fine = "http://h:1"
        rows = [((), usage), ((fine, "parca", "game", "60"), usage)]
        for wrong in ("", "h:1", "https://h:1", "http://h", "http://:1", "http://h:", "http://h:0", "http://h:65536", "http://h:1/x",
                      "http://h:1//", "http://u@h:1", "http://h h:1", "http://h:1\r\nX: y", "http://[::1]", "http://[::1:1", "http://[h]:1",
                      "http://" + 256 * "h" + ":1", "http://h:000080", "http://h:1 "):
            rows.append(((wrong, "parca", "game", "60", "x.py"), url % wrong))
        rows += [((fine, "jaeger", "game", "60", "x.py"), "push: the kind of server is jaeger: it has to be pyroscope or parca\n"),
                 ((fine, "parca", "", "60", "x.py"),
                  "push: the service's name is empty: it is by that name that a server shows the profiles\n")]
        rows += [((fine, "parca", "game", wrong, "x.py"), "push: the time of a profile is %s: it has to be 1 to 1800 seconds\n" % wrong)
                 for wrong in ("0", "1801", "-1", "1.5", "", "x", "99999999999999999999")]
        for arguments, expected in rows:
            with self.subTest(arguments=arguments):
                done = subprocess.run([PUSH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT,
                                      cwd=self.dir)
                self.assertEqual((2, "", expected), (done.returncode, done.stdout.decode(), done.stderr.decode()))
        self.assertEqual([], os.listdir(self.dir))

    def test_children(self):
        """A child that the script forked and that ends by exit neither pushes nor hangs."""
        def handle(connection, turn):
            receive_all(connection)
            connection.sendall(OK_PYROSCOPE)
        ended = self.host(self.serve(handle), "pyroscope", """
            spend_some()
            child = os.fork()
            if child == 0: sys.exit(4)
            print(os.WEXITSTATUS(os.waitpid(child, 0)[1]))
            sys.exit(5)
            """, seconds=60)
        self.assertEqual((5, "4\n", 1, 0), (ended.code, ended.out, ended.pushed, ended.dropped), ended.err)
        self.assertEqual(1, ended.err.count(" profiles pushed, "), ended.err)

    def test_scripts_that_fail(self):
        def handle(connection, turn):
            receive_all(connection)
            connection.sendall(OK_PYROSCOPE)
        port = self.serve(handle)
        ended = self.host(port, "pyroscope", "spend_some()\n1 / 0", seconds=60)
        self.assertEqual((1, 1), (ended.code, ended.pushed))
        self.assertIn("ZeroDivisionError", ended.err)


if __name__ == "__main__":
    unittest.main()
