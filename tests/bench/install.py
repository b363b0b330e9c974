"""Gets the peers into a cache outside of the tree: packages of PyPI, and CPython 3.15 from Debian's."""

import glob
import hashlib
import os
import re
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
REQUIREMENTS = os.path.join(HERE, 'requirements.txt')


class Missing(Exception):
    """Why a peer cannot be had, in a few words."""


def cache():
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return os.path.join(base, 'pyprof-bench')


def requirements():
    """{name: the line that pins it}"""
    with open(REQUIREMENTS, encoding='utf-8') as file:
        lines = [line.strip() for line in file]
    return {line.partition('==')[0]: line for line in lines if line and not line.startswith('#')}


def call(command, **options):
    """Runs a command; what it said last is the reason when it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                              timeout=900, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error))
    if done.returncode != 0:
        raise Missing(reason(done.stdout) or '%s ended with %d' % (command[0], done.returncode))
    return done.stdout


def reason(text):
    """The line that says why: the last one that speaks of an error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r'(E:|ERROR|error|\w*Error)', line)]
    return (errors or lines or [''])[-1][:200]


class Environment:
    """A virtual environment of the CPython under test, with what could be installed of the requirements."""

    def __init__(self, python):
        self.base = python
        version = call([python, '-c', 'import sys; print(sys.version, sys.prefix)'])
        key = hashlib.sha256(version.encode()).hexdigest()[:12]
        self.folder = os.path.join(cache(), 'venv-' + key)
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


class Debian:
    """A tree of Debian's unstable packages beside the machine's own: it has CPython 3.15, and a newer libc."""

    PACKAGES = ('libc6', 'libgcc-s1', 'libexpat1', 'zlib1g', 'libzstd1', 'libssl3t64', 'libffi8', 'libbz2-1.0',
                'liblzma5', 'libpython3.15', 'libpython3.15-minimal', 'libpython3.15-stdlib', 'python3.15-minimal')
    CONFIGURATION = '''Dir::Etc::sourcelist "{0}/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::Lists "{0}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{0}/cache";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "root";
'''

    def __init__(self):
        self.folder = os.path.join(cache(), 'debian-unstable')
        self.root = os.path.join(self.folder, 'root')
        self.why = None

    def install(self):
        if self.why:
            raise Missing(self.why)
        if not os.path.exists(os.path.join(self.folder, 'complete')):
            try:
                self.fetch()
            except Missing as missing:
                self.why = str(missing)
                raise

    def fetch(self):
        print("fetching CPython 3.15 from Debian's packages", flush=True)
        for tool in ('apt-get', 'dpkg-deb'):
            if not shutil.which(tool):
                raise Missing('no %s on this machine' % tool)
        shutil.rmtree(self.folder, ignore_errors=True)
        archives = os.path.join(self.folder, 'archives')
        for folder in (archives, self.root, os.path.join(self.folder, 'lists', 'partial'),
                       os.path.join(self.folder, 'cache', 'archives', 'partial')):
            os.makedirs(folder)
        self.write('sources.list', 'deb %s sid main\n' % debian_archive())
        self.write('apt.conf', self.CONFIGURATION.format(self.folder))
        environment = dict(os.environ, APT_CONFIG=os.path.join(self.folder, 'apt.conf'))
        call(['apt-get', 'update'], env=environment)
        call(['apt-get', 'download'] + list(self.PACKAGES), env=environment, cwd=archives)
        for package in glob.glob(os.path.join(archives, '*.deb')):
            call(['dpkg-deb', '-x', package, self.root])
        self.write('complete', '')

    def write(self, name, text):
        with open(os.path.join(self.folder, name), 'w') as file:
            file.write(text)

    def one(self, pattern):
        found = sorted(glob.glob(os.path.join(self.root, pattern)))
        if not found:
            raise Missing('no %s in the packages' % pattern)
        return found[0]

    def loader(self):
        """How a program is started with these libraries."""
        return [self.one('usr/lib*/ld-linux*.so.?'), '--library-path', os.path.dirname(self.one('usr/lib/*/libc.so.6'))]

    def python(self):
        return self.loader() + [self.one('usr/bin/python3.15')]

    def home(self):
        return os.path.join(self.root, 'usr')


def debian_archive():
    """[options] and address of the archive that the machine itself uses."""
    for path in ['/etc/apt/sources.list'] + sorted(glob.glob('/etc/apt/sources.list.d/*')):
        if path.endswith(('.list', '.sources')) and os.path.exists(path):
            with open(path, encoding='utf-8', errors='replace') as file:
                match = re.search(r'^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s*)?)(\S+/debian)/?\s', file.read(), re.MULTILINE)
            if match:
                return '[signed-by=%s] %s' % (keyring(), match.group(1))
    raise Missing('this machine has no Debian archive among its apt sources')


def keyring():
    path = '/usr/share/keyrings/debian-archive-keyring.gpg'
    if not os.path.exists(path):
        raise Missing('no %s' % path)
    return path
