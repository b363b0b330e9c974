"""Asks a host that listens, and drives one: driven.py inside of listening.c, or inside of python3 with a plugin."""
import ast
import json
import os
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.environ['PYPROF_SOURCE'], 'tests', 'common'))
import harness

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.environ['PYPROF_BUILD'], 'tests', 'listen')
PATIENCE = harness.patience(60)

ARGUMENT, ALREADY_ACTIVE, NOT_ACTIVE, MEMORY, IO, FORMAT = -1, -2, -3, -4, -10, -12


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__('%d %s' % (code, text))
        self.code = code
        self.text = text


def connect(path):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(PATIENCE)
    try:
        peer.connect(path)
    except OSError:
        peer.close()
        raise
    return peer


def read_line(file):
    line = file.readline()
    if not line.endswith(b'\n'):
        raise EOFError('cut: %r' % line)
    if line.startswith(b'error '):
        _, code, text = line.decode().rstrip('\n').split(' ', 2)
        raise Refused(int(code), text)
    return line.rstrip(b'\n')


def read_answer(peer):
    with peer, peer.makefile('rb') as file:
        assert read_line(file) == b'ok'
        pieces = []
        while True:
            size = int(read_line(file))
            if size == 0:
                break
            pieces.append(file.read(size))
            if len(pieces[-1]) != size:
                raise EOFError('cut')
        assert file.read() == b''
    return b''.join(pieces)


def ask(path, words):
    with connect(path) as peer:
        peer.sendall(b'pyprof 1 ' + words.encode() + b'\n')
        return read_answer(peer)


def ask_raw(path, request):
    """What comes of any bytes, to the end."""
    with connect(path) as peer:
        try:
            peer.sendall(request)
        except BrokenPipeError:
            pass
        answer = b''
        try:
            piece = peer.recv(65536)
            while piece:
                answer += piece
                piece = peer.recv(65536)
        except ConnectionResetError:  # it was closed before it had taken all of the request
            pass
    return answer


def status(path):
    return json.loads(ask(path, 'status').decode())


def rows(text):
    return [json.loads(line) for line in text.decode().splitlines()]


class Host:
    """times: of one CPython after the other; plugin: in python3, with the profiler in a library."""

    def __init__(self, folder, times=None, plugin=False):
        environment = dict(harness.host_environment(), XDG_RUNTIME_DIR=folder)
        command = [os.path.join(BUILD, 'listening')] + ([str(times)] if times else [])
        if plugin:
            environment['DRIVEN_LIBRARY'] = os.path.join(BUILD, 'listen_plugin.so')
            command = [os.environ['PYPROF_PYTHON']]
        self.program = subprocess.Popen(command + [os.path.join(HERE, 'driven.py')], env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
        self.pid = self.answer()
        self.path = os.path.join(folder, 'pyprof-%d' % os.geteuid(), '%d.sock' % self.pid)

    def answer(self):
        line = self.program.stdout.readline()
        if not line:
            raise AssertionError('the host ended with %d' % self.program.wait())
        return ast.literal_eval(line)

    def tell(self, expression):
        self.program.stdin.write(expression + '\n')
        self.program.stdin.flush()

    def __call__(self, expression):
        self.tell(expression)
        return self.answer()

    def end(self):
        """Lets it end by itself; answers what it printed then."""
        if self.program.poll() is None:
            try:
                self.tell('bye')
            except BrokenPipeError:  # it has ended in this moment
                pass
        text, _ = self.program.communicate(timeout=PATIENCE)
        if self.program.returncode != 0:
            raise AssertionError('the host ended with %d' % self.program.returncode)
        return text

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.end()
        else:
            self.program.kill()
            self.program.communicate()


def folder():
    """A short one: an address has room for 107 bytes."""
    return tempfile.TemporaryDirectory(prefix='pyprof-', dir='/tmp')
