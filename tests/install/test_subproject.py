"""As a subproject of a user's meson project: dependency('pyprof'), and nothing else of ours."""

import json
import os
import shutil

import users

OVERRIDE = "subproject('pyprof')\npyprof = dependency('pyprof')\n"
FALLBACK = "pyprof = dependency('pyprof', fallback: ['pyprof', 'pyprof_dep'])\n"
PROVIDED = "pyprof = dependency('pyprof')\n"

# Stricter than we are: none of it may be held against the header.
STRICT = ("add_project_arguments('-Wconversion', '-Wshadow', '-Wundef', '-Wcast-qual', '-Wmissing-prototypes', "
          "'-Wredundant-decls', '-Wswitch-enum', '-Wdeclaration-after-statement', language: 'c')\n")


class SubprojectTest(users.UserTest):
    def project(self, get_pyprof, options='', more='', languages="'c'", source='host.c', python=True):
        self.write('meson.build', "project('game', %s%s)\n%s%s" % (languages, options, more, get_pyprof) +
                   ("python = dependency('python3-embed', include_type: 'system')\n" if python else 'python = []\n') +
                   "executable('host', '%s', dependencies: [python, pyprof], install: true)\n" % source)
        self.write(source, users.HOST if python else '#include "pyprof.h"\nint main() { return 0; }\n')

    def build(self, env=None):
        self.call('meson', 'setup', 'build', env=env or users.environment())
        self.check_nothing_is_ours()
        return self.call('meson', 'compile', '-C', 'build', env=env or users.environment())

    def check_nothing_is_ours(self):
        self.assertEqual([target['name'] for target in self.introspect('build', 'targets')], ['host'])
        self.assertEqual(self.introspect('build', 'tests'), [])
        installed = self.introspect('build', 'installed')
        self.assertEqual([os.path.basename(path) for path in installed], ['host'])

    def strict(self, get_pyprof):
        self.project(get_pyprof, ", default_options: ['c_std=c99', 'werror=true', 'warning_level=3']", STRICT)
        self.build()
        self.check_picture('build/host')

    def test_override(self):
        self.copy_source('subprojects/pyprof')
        self.strict(OVERRIDE)

    def test_fallback(self):
        self.copy_source('subprojects/pyprof')
        self.strict(FALLBACK)

    def test_wrap(self):
        """Fetched by a wrap that says what it provides."""
        if not users.has('git'):
            users.skip('no git')
        self.copy_source('mirror')
        for command in (['init', '-q', '-b', 'main'], ['add', '-A'],
                        ['-c', 'user.name=user', '-c', 'user.email=user@localhost', 'commit', '-q', '-m', 'all']):
            self.call('git', *command, cwd=self.path('mirror'))
        self.write('subprojects/pyprof.wrap', '[wrap-git]\nurl = file://%s\nrevision = main\n\n'
                                              '[provide]\ndependency_names = pyprof\n' % self.path('mirror'))
        self.project(PROVIDED)
        self.build()
        self.check_picture('build/host')

    def test_options_have_no_say(self):
        """Tests and tools that are switched on are those of our own project; --auto-features is what packagers pass."""
        self.copy_source('subprojects/pyprof')
        self.project(FALLBACK)
        self.call('meson', 'setup', 'build', '-Dpyprof:tests=true', '-Dpyprof:tools=true', '-Dauto_features=enabled')
        self.check_nothing_is_ours()

    def test_no_flag_leaks(self):
        self.copy_source('subprojects/pyprof')
        self.project(FALLBACK)
        self.build()
        with open(self.path('build', 'compile_commands.json')) as file:
            commands = json.load(file)
        self.assertEqual(len(commands), 1)
        words = set(commands[0]['command'].split())
        self.assertEqual({word for word in words if word.startswith(('-W', '-std', '-pedantic', '-D', '-O'))},
                         self.flags_without_us())

    def flags_without_us(self):
        """What meson gives to the same project without the dependency."""
        os.mkdir(self.path('plain'))
        self.write('plain/meson.build', "project('game', 'c')\npython = dependency('python3-embed', include_type: 'system')\n"
                                        "executable('host', 'host.c', dependencies: python)\n")
        shutil.copy(self.path('host.c'), self.path('plain'))
        self.call('meson', 'setup', 'build', cwd=self.path('plain'))
        with open(self.path('plain', 'build', 'compile_commands.json')) as file:
            words = json.load(file)[0]['command'].split()
        return {word for word in words if word.startswith(('-W', '-std', '-pedantic', '-D', '-O'))}

    def test_asks_for_nothing(self):
        """A project in C++ that has no C compiler, and no CPython yet."""
        if not users.has('c++'):
            users.skip('no C++ compiler')
        nothing = self.path('nothing')
        os.mkdir(nothing)
        self.copy_source('subprojects/pyprof')
        self.project(FALLBACK, languages="'cpp'", source='host.cpp', python=False)
        self.build(users.environment(CC='false', PKG_CONFIG_LIBDIR=nothing, PKG_CONFIG_PATH=nothing))
        self.call('build/host')


if __name__ == '__main__':
    users.main()
