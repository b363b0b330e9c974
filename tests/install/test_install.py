"""meson install: the headers, the tools and a .pc, which are all that a user needs."""

import os
import shutil

import users


class InstallTest(users.UserTest):
    def install(self, *options, **env):
        """Into a prefix of the user's; what lies there afterwards."""
        env = users.environment(**env)
        self.prefix = self.path('prefix')
        self.call('meson', 'setup', 'build', users.SOURCE, '--prefix=' + self.prefix, '--libdir=lib', *options, env=env)
        self.call('meson', 'install', '-C', 'build', env=env)
        return {os.path.relpath(os.path.join(folder, name), self.prefix)
                for folder, _, names in os.walk(self.prefix) for name in names}

    HEADERS = {'include/pyprof.h', 'include/pyprof/flamegraph.h', 'include/pyprof/exports.h',
               'include/pyprof/pyprof_module.h', 'include/pyprof/heap_module.h', 'share/pkgconfig/pyprof.pc'}
    TOOLS = {'bin/pyprof-run', 'bin/pyprof-svg', 'bin/pyprof-convert', 'bin/pyprof-ctl'}

    def flags(self):
        path = os.path.join(self.prefix, 'share', 'pkgconfig')
        before = users.environment().get('PKG_CONFIG_PATH')
        env = users.environment(PKG_CONFIG_PATH=path + (':' + before if before else ''))
        return self.call('pkg-config', '--cflags', '--libs', 'pyprof', 'python3-embed', env=env).split()

    def test_tools_and_headers(self):
        installed = self.install()
        self.assertLessEqual(self.HEADERS | self.TOOLS, installed)
        # What pyprof-run loads lies in a folder of its own.
        others = {path for path in installed - self.HEADERS - self.TOOLS if not path.startswith('lib/pyprof/')}
        self.assertEqual(others, set())
        self.assertIn('lib/pyprof/libpyprof-heap.so', installed)
        self.assertEqual(self.introspect('build', 'tests'), [])
        for target in self.introspect('build', 'targets'):
            self.assertEqual(os.path.dirname(target['defined_in']), os.path.join(users.SOURCE, 'tools'))
        self.check_headers()
        self.check_pkg_config()
        self.check_tools()

    def check_headers(self):
        for source, installed in zip(users.HEADERS, ('pyprof.h', 'pyprof/flamegraph.h')):
            with open(os.path.join(users.SOURCE, source), 'rb') as wanted, \
                    open(os.path.join(self.prefix, 'include', installed), 'rb') as got:
                self.assertEqual(wanted.read(), got.read())

    def check_pkg_config(self):
        strict = ['-Wall', '-Wextra', '-Wpedantic', '-Werror']
        self.write('host.c', users.HOST)
        self.call('cc', '-std=c99', *strict, 'host.c', '-o', 'host', *self.flags())
        self.check_picture('./host')
        if users.has('c++'):
            shutil.copy(self.path('host.c'), self.path('host.cpp'))
            self.call('c++', '-std=c++17', *strict, 'host.cpp', '-o', 'host_cpp', *self.flags())
            self.check_picture('./host_cpp', 'cpp.svg')
        else:
            print('skipped: no C++ compiler', flush=True)

    def check_tools(self):
        """They run where they lie, from anywhere, without the folder that they were built in."""
        shutil.rmtree(self.path('build'))
        self.write('script.py', 'import time\nend = time.perf_counter() + 0.3\n'
                                'def work():\n    while time.perf_counter() < end: pass\nwork()\n')
        self.call(os.path.join(self.prefix, 'bin', 'pyprof-run'), '-o', 'out.txt', 'script.py')
        self.assertIn('work (script.py:4)', self.read('out.txt'))
        self.call(os.path.join(self.prefix, 'bin', 'pyprof-svg'), '--unit', 'us', 'out.txt', 'out.svg')
        self.assertIn('work (script.py:4)', self.read('out.svg'))

    def test_headers_only(self):
        """Nothing is needed for them: no compiler, no CPython."""
        nothing = self.path('nothing')
        os.mkdir(nothing)
        self.assertEqual(self.install('-Dtools=false', CC='false', PKG_CONFIG_LIBDIR=nothing, PKG_CONFIG_PATH=nothing),
                         self.HEADERS)

    def test_staged(self):
        """As packages are made: into DESTDIR, with the final paths inside."""
        self.call('meson', 'setup', 'build', users.SOURCE, '--prefix=/usr', '--libdir=lib64', '-Dtools=false')
        self.call('meson', 'install', '-C', 'build', env=users.environment(DESTDIR=self.path('stage')))
        text = self.read('stage/usr/share/pkgconfig/pyprof.pc')
        self.assertIn('prefix=/usr\n', text)
        self.assertNotIn(self.folder, text)
        for name in ('pyprof.h', 'pyprof/flamegraph.h'):
            self.assertTrue(os.path.exists(self.path('stage/usr/include', name)), name)


if __name__ == '__main__':
    users.main()
