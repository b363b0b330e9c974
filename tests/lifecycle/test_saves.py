"""What hosts would have to do themselves: recordings of forked children, files of their own, files that outlive a sudden end,
names of threads and of scripts that are loaded anew."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'common'))
import collapsed
import harness

OFF, STOP, FOLLOW = range(3)
NOT_ACTIVE = -3

BEGIN = '''
import host, os, signal, sys, threading, time
def spend(count=60):
    end = host.samples() + count
    while host.samples() < end:
        sum(range(100))
def before():
    spend()
def in_child():
    spend()
def after():
    spend()
'''
FORKS = BEGIN + '''
def forks(inside):
    child = os.fork()
    if child == 0:
        try:
            inside()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(child, 0)
'''


class SavesTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='pyprof-saves-')
        self.addCleanup(shutil.rmtree, self.folder)

    def run_host(self, code, children=OFF, autosave=0, name='%n-%p-%t.txt', expected=0):
        script = os.path.join(self.folder, 'script.py')
        with open(script, 'w', encoding='utf-8') as file:
            file.write(code)
        output = os.path.join(self.folder, name) if name else ''
        done = subprocess.run([os.path.join(harness.BUILD, 'tests', 'lifecycle', 'saves'), str(children), str(autosave),
                               output, script], env=harness.host_environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, universal_newlines=True, timeout=harness.patience(120))
        self.assertEqual(done.returncode, expected, done.stderr)
        return done

    def files(self):
        """Of what was saved, the stacks by the process's id."""
        found = {}
        for name in sorted(os.listdir(self.folder)):
            if name == 'script.py':
                continue
            match = re.match(r'saves-([0-9]+)-2[0-9]{3}[01][0-9][0-3][0-9]-[0-2][0-9][0-5][0-9][0-5][0-9]-[0-9]{3}\.txt\Z', name)
            self.assertTrue(match, name)
            self.assertNotIn(match.group(1), found)
            found[match.group(1)] = self.read(name)
        return found

    def read(self, name):
        with open(os.path.join(self.folder, name), encoding='utf-8') as file:
            return collapsed.parse(file.read())

    @staticmethod
    def functions(stacks):
        return {frame.name for stack in stacks for frame in stack.frames} & {'before', 'in_child', 'after', 'loaded'}

    def test_follow(self):
        """Each process has a file of its own, of its own time, children of children too."""
        out = self.run_host(FORKS + '''
def child():
    in_child()
    forks(grandchild)
    print('child', os.getpid(), host.stop())
def grandchild():
    in_child()
    print('grandchild', os.getpid(), host.stop())
before()
forks(child)
after()
print('parent', os.getpid(), host.stop())
''', FOLLOW).stdout.split('\n')
        ids = dict(line.split(' ', 1) for line in out if line)
        files = self.files()
        self.assertEqual({who: result.split()[1] for who, result in ids.items()}, {who: '0' for who in ids})
        wanted = {'parent': {'before', 'after'}, 'child': {'in_child'}, 'grandchild': {'in_child'}}
        self.assertEqual({who: self.functions(files.pop(ids[who].split()[0])) for who in wanted}, wanted)
        self.assertEqual(files, {})

    def test_stop(self):
        """A child has what was recorded before, and no more."""
        out = self.run_host(FORKS.replace('def in_child():\n    spend()', 'def in_child():\n    sum(range(1000000))') + '''
def child():
    in_child()
    print(os.getpid(), host.is_active(), host.samples() >= 0, host.stop(), host.stop())
before()
forks(child)
after()
print(os.getpid(), host.stop())
''', STOP).stdout.split()
        child, parent = out[0], out[5]
        self.assertEqual(out[1:5] + out[6:], ['False', 'False', '0', str(NOT_ACTIVE), '0'])
        files = self.files()
        self.assertEqual(self.functions(files[child]), {'before'})
        self.assertEqual(self.functions(files[parent]), {'before', 'after'})

    def test_off(self):
        out = self.run_host(FORKS + '''
before()
forks(lambda: print(host.is_active(), host.stop()))
print(host.is_active(), host.stop())
''').stdout.split()
        self.assertEqual(out, ['False', str(NOT_ACTIVE), 'True', '0'])
        self.assertEqual(len(self.files()), 1)

    def test_autosave(self):
        """What was saved is whole, however the process ends."""
        for end in ('os._exit(0)', 'os.kill(os.getpid(), signal.SIGKILL)'):
            self.run_host(BEGIN + '''
while not any(name.startswith('saves-') and name.endswith('.txt') for name in os.listdir(os.path.dirname(__file__))):
    before()
''' + end, autosave=1, expected=0 if 'exit' in end else -signal.SIGKILL)
            (stacks,) = self.files().values()
            self.assertEqual(self.functions(stacks), {'before'})
            for name in os.listdir(self.folder):
                os.remove(os.path.join(self.folder, name))

    def test_autosave_goes_on(self):
        """A later file has more; who stops it has all."""
        self.run_host(BEGIN + '''
path = os.path.join(os.path.dirname(__file__), 'one.txt')
def wait_for(text):
    while not (os.path.exists(path) and text in open(path).read()):
        spend(10)
before()
wait_for('before')
in_child()
wait_for('in_child')
after()
assert host.stop() == 0
''', autosave=1, name='one.txt')
        self.assertEqual(self.functions(self.read('one.txt')), {'before', 'in_child', 'after'})

    def test_refused(self):
        self.assertIn('%p', self.run_host('', FOLLOW, name='one.txt', expected=3).stderr)
        self.assertIn('output_path is NULL', self.run_host('', autosave=1, name='', expected=3).stderr)
        self.assertIn('86400', self.run_host('', autosave=86401, expected=3).stderr)
        self.assertIn('children is 3', self.run_host('', 3, expected=3).stderr)

    def test_placeholders(self):
        self.run_host(BEGIN + 'before()\nassert host.stop() == 0\n', name='%%-%n-%x-100%')
        self.assertIn('%-saves-%x-100%', os.listdir(self.folder))

    def test_name_thread(self):
        self.run_host(BEGIN + '''
def work(name):
    assert host.name_thread(name) == 0
    after()
    if name == 'taken back':
        assert host.name_thread(None) == 0
        after()
before()
for name in ('render \\u00fc', 'taken back', 'x' * 100):
    thread = threading.Thread(target=work, args=(name,), name='python')
    thread.start()
    thread.join()
assert host.name_thread('ui') == 0
before()
assert host.stop() == 0
''', name='one.txt')
        self.assertEqual({stack.thread for stack in self.read('one.txt')}, {'ui', 'render \u00fc', 'python', 'x' * 63})

    def test_script_that_is_loaded_anew(self):
        self.run_host(BEGIN + '''
host.reload(25, """
import host
def loaded():
    end = host.samples() + 20
    while host.samples() < end:
        sum(range(100))
loaded()
""")
assert host.stop() == 0
''', name='one.txt')
        marks = {frame.name for stack in self.read('one.txt') for frame in stack.frames if frame.name.startswith('[inter')}
        named = {mark for mark in marks if 'script' in mark}
        self.assertEqual(named, {'[interpreter 1: script]'})
        loaded = [stack for stack in self.read('one.txt') if 'loaded' in [frame.name for frame in stack.frames]]
        self.assertGreater(sum(stack.value for stack in loaded), 25 * 10000)


if __name__ == '__main__':
    harness.main()
