"""Debian's packages in a cache outside of the tree, beside the machine's own."""

import contextlib
import fcntl
import glob
import os
import re
import shutil
import subprocess
import sys


class Missing(Exception):
    """Why something cannot be had, in a few words."""


def cache():
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return os.path.join(base, 'pyprof')


def call(command, timeout=900, **options):
    """Runs a command; what it said last is the reason when it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                              timeout=timeout, **options)
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


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


def read(path):
    with open(path, encoding='utf-8', errors='replace') as file:
        return file.read()


class Kept:
    """A folder of the cache: made once, and again when its recipe has changed."""

    def __init__(self, name, recipe):
        self.folder = os.path.join(cache(), name)
        self.complete = os.path.join(self.folder, 'complete')
        self.recipe = recipe
        self.why = None

    def install(self):
        if self.why:
            raise Missing(self.why)
        try:
            with lock(self.folder + '.lock'):
                self.make_once()
        except Missing as missing:
            self.why = str(missing)
            raise

    def make_once(self):
        if not os.path.exists(self.complete) or read(self.complete) != self.recipe:
            print('making %s' % self.folder, file=sys.stderr, flush=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            os.makedirs(self.folder)
            self.make()
            write(self.complete, self.recipe)


@contextlib.contextmanager
def lock(path):
    """Two that want the same folder make it one after the other."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Apt:
    """An apt of our own, for one suite of the archive that the machine itself uses, and one architecture: the machine's,
    unless another is named."""

    CONFIGURATION = '''Dir::Etc::sourcelist "{0}/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::Lists "{0}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{0}/cache";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
APT::Sandbox::User "root";
'''

    def __init__(self, suite, kind='deb', architecture=''):
        for tool in ('apt-get', 'dpkg-deb'):
            if not shutil.which(tool):
                raise Missing('no %s on this machine' % tool)
        folder = os.path.join(cache(), '-'.join(filter(None, ('apt', suite, kind, architecture))))
        for name in ('lists', 'cache/archives'):
            os.makedirs(os.path.join(folder, name, 'partial'), exist_ok=True)
        write(os.path.join(folder, 'sources.list'), '%s %s %s main\n' % (kind, archive(), suite))
        self.configuration = os.path.join(folder, 'apt.conf')
        write(self.configuration, self.CONFIGURATION.format(folder) + self.only(architecture))
        with lock(folder + '.lock'):
            self.get('update')

    @staticmethod
    def only(architecture):
        return architecture and 'APT::Architecture "{0}";\nAPT::Architectures {{ "{0}"; }};\n'.format(architecture)

    def get(self, *arguments, **options):
        call(['apt-get'] + list(arguments), env=dict(os.environ, APT_CONFIG=self.configuration), **options)


def archive():
    """[options] and address of the archive that the machine itself uses."""
    for path in ['/etc/apt/sources.list'] + sorted(glob.glob('/etc/apt/sources.list.d/*')):
        if path.endswith(('.list', '.sources')) and os.path.exists(path):
            match = re.search(r'^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s*)?)(\S+/debian)/?\s', read(path), re.MULTILINE)
            if match:
                return '[signed-by=%s] %s' % (keyring(), match.group(1))
    raise Missing('this machine has no Debian archive among its apt sources')


def keyring():
    path = '/usr/share/keyrings/debian-archive-keyring.gpg'
    if not os.path.exists(path):
        raise Missing('no %s' % path)
    return path


class Tree(Kept):
    """Packages of Debian's unstable, unpacked into one root, where the libc is newer than the machine's may be."""

    LIBRARIES = ('libc6', 'libgcc-s1', 'libexpat1', 'zlib1g', 'libzstd1', 'libssl3t64', 'libffi8', 'libbz2-1.0',
                 'liblzma5')

    architecture = ''  # the machine's

    def __init__(self, name, packages):
        self.packages = self.LIBRARIES + tuple(packages)
        super().__init__(name, ' '.join(self.packages))
        self.root = os.path.join(self.folder, 'root')
        self.home = os.path.join(self.root, 'usr')

    def make(self):
        archives = os.path.join(self.folder, 'archives')
        os.makedirs(archives)
        Apt('sid', architecture=self.architecture).get('download', *self.packages, cwd=archives)
        for package in glob.glob(os.path.join(archives, '*.deb')):
            call(['dpkg-deb', '-x', package, self.root])
        shutil.rmtree(archives)

    def one(self, pattern):
        found = sorted(glob.glob(os.path.join(self.root, pattern)))
        if not found:
            raise Missing('no %s in the packages' % pattern)
        return found[0]

    def loader(self):
        return self.one('usr/lib*/ld-linux*.so.?')

    def libraries(self):
        return os.path.dirname(self.one('usr/lib/*/libc.so.6'))
