"""Gets the peers into a cache outside of the tree: packages of PyPI, and CPython 3.15 from Debian's."""

import hashlib
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, 'pythons'))

from debian import Missing, Tree, cache, call, reason  # noqa: E402, F401

REQUIREMENTS = os.path.join(HERE, 'requirements.txt')


def requirements():
    """{name: the line that pins it}"""
    with open(REQUIREMENTS, encoding='utf-8') as file:
        lines = [line.strip() for line in file]
    return {line.partition('==')[0]: line for line in lines if line and not line.startswith('#')}


class Environment:
    """A virtual environment of the CPython under test, with what could be installed of the requirements."""

    def __init__(self, python):
        self.base = python
        version = call([python, '-c', 'import sys; print(sys.version, sys.prefix)'])
        key = hashlib.sha256(version.encode()).hexdigest()[:12]
        self.folder = os.path.join(cache(), 'bench-venv-' + key)
        self.python = os.path.join(self.folder, 'bin', 'python')
        if not os.path.exists(os.path.join(self.folder, 'complete')):
            shutil.rmtree(self.folder, ignore_errors=True)
            os.makedirs(cache(), exist_ok=True)
            call([python, '-m', 'venv', self.folder])
            open(os.path.join(self.folder, 'complete'), 'w').close()

    def program(self, name):
        return os.path.join(self.folder, 'bin', name)

    def install(self, name):
        line = requirements()[name]
        marker = os.path.join(self.folder, 'installed-' + line)
        if not os.path.exists(marker):
            print('installing %s' % line, flush=True)
            call([self.python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--prefer-binary',
                  line])
            open(marker, 'w').close()

    def version(self, name):
        code = 'import importlib.metadata as m; print(m.version(%r))' % name
        return call([self.python, '-c', code]).strip()


class Debian(Tree):
    """CPython 3.15, whose own profiler is a peer, and a libc that may be newer than the machine's."""

    def __init__(self):
        super().__init__('bench-python3.15', ['libpython3.15', 'libpython3.15-minimal', 'libpython3.15-stdlib',
                                              'python3.15-minimal'])

    def start(self):
        """How a program is started with these libraries."""
        return [self.loader(), '--library-path', self.libraries()]

    def python(self):
        return self.start() + [self.one('usr/bin/python3.15')]
