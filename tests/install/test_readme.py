"""README's snippets do what they say, as they stand there."""

import json
import os
import re
import shutil

import readme
import users


class ReadmeTest(users.UserTest):
    def copy(self, *headers):
        for header in headers:
            shutil.copy(os.path.join(users.SOURCE, header), self.folder)

    def run_snippet(self, snippet, **options):
        return self.call('sh', '-e', '-c', readme.with_text(*snippet), **options)

    def test_each_has_a_test(self):
        texts = [readme.with_text(*snippet) for snippet in readme.ALL]
        for language, text in readme.snippets():
            if language:  # without one it is what a command says
                self.assertIn(text, texts, 'no test runs this ' + language)

    def test_one_header(self):
        self.copy('pyprof.h')
        self.write('host.c', readme.with_text(*readme.C_HOST))
        self.run_snippet(readme.CC)
        profiles = json.loads(self.read('host.speedscope.json'))['profiles']
        self.assertEqual([profile['name'] for profile in profiles], ['MainThread'])
        self.assertTrue(profiles[0]['samples'])

    def test_picture(self):
        self.copy(*users.HEADERS)
        self.write('host.c', readme.with_text(*readme.C_PICTURE))
        self.assertIn('Beautiful is better than ugly.', self.run_snippet(readme.CC))
        self.assertIn('<svg', self.read('host.svg'))

    def test_module(self):
        self.copy(*users.HEADERS, 'tools/pyprof_module.h', 'tools/heap_module.h')
        self.write('host.c', readme.with_text(*readme.C_MODULE))
        self.assertEqual(self.run_snippet(readme.CC), 'False\n')

    def test_meson(self):
        self.copy_source('subprojects/pyprof')
        self.write('meson.build', readme.with_text(*readme.MESON))
        self.write('host.c', readme.with_text(*readme.C_PICTURE))
        self.call('meson', 'setup', 'build')
        self.call('meson', 'compile', '-C', 'build')
        self.call('build/host')
        self.assertIn('<svg', self.read('host.svg'))

    def test_installed_and_run(self):
        """From the repository's folder. Only the prefix is another one: /usr/local is not the test's."""
        self.copy_source('pyprof')
        here = self.path('pyprof')
        prefix = '--prefix=' + self.path('prefix') + ' --libdir=lib'
        text = readme.with_text(*readme.INSTALL)
        self.assertIn('meson setup build', text)
        self.call('sh', '-e', '-c', text.replace('meson setup build', 'meson setup build ' + prefix), cwd=here)
        self.check_pkg_config()
        self.check_run(here)

    def check_pkg_config(self):
        paths = [self.path('prefix/share/pkgconfig'), users.environment().get('PKG_CONFIG_PATH')]
        self.write('host.c', readme.with_text(*readme.C_PICTURE))
        self.run_snippet(readme.PKG_CONFIG, env=users.environment(PKG_CONFIG_PATH=':'.join(filter(None, paths))))
        self.call('./host')
        self.assertIn('<svg', self.read('host.svg'))

    def check_run(self, here):
        """With a script, a pytest and collapsed stacks of the names that the snippet uses."""
        self.write('pyprof/script.py', 'sum(range(10000000))\n')
        self.write('pyprof/out.txt', 'thread MainThread;work (script.py:1) 1000\n')
        self.write('bin/pytest', '#!%s\nimport sys\nassert sys.argv[1:] == ["tests"]\nsum(range(10000000))\n' % users.PYTHON)
        os.chmod(self.path('bin/pytest'), 0o755)
        env = users.environment()
        env['PATH'] = self.path('bin') + ':' + env['PATH']
        self.call('sh', '-e', '-c', readme.with_text(*readme.RUN), cwd=here, env=env)
        with open(os.path.join(here, 'out.svg'), encoding='utf-8') as file:
            self.assertIn('<svg', file.read())

    def test_dev(self):
        """The two commands are there; what they do takes longer than a test may."""
        usage = self.call(os.path.join(users.SOURCE, 'tools', 'dev'))
        for command in re.findall(r'^tools/dev (\w+)', readme.with_text(*readme.DEV), re.MULTILINE):
            self.assertRegex(usage, r'(?m)^  %s ' % command)

    def test_packages(self):
        """What README names for Debian is what tools/dev installs there."""
        with open(os.path.join(users.SOURCE, 'README.md'), encoding='utf-8') as file:
            named = re.search(r'^\| Debian[^|]*\|\s*`([^`]*)`', file.read(), re.MULTILINE).group(1).split()
        with open(os.path.join(users.SOURCE, 'tools', 'dev'), encoding='utf-8') as file:
            build = re.search(r'^need_for_build\(\) \{\n(.*?)^\}', file.read(), re.MULTILINE | re.DOTALL).group(1)
        self.assertEqual(sorted(named), sorted(re.findall(r'need "[^"]*" (\S+)', build)))


if __name__ == '__main__':
    users.main()
