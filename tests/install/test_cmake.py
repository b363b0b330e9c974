"""README's recipes for CMake."""

import os
import shutil
import sys

import readme
import users


class CMakeTest(users.UserTest):
    def build(self, snippet, *options):
        self.write('CMakeLists.txt', readme.with_text(*snippet))
        self.write('host.c', users.HOST)
        self.call('cmake', '-S', '.', '-B', 'build', '-DPython3_ROOT_DIR=' + users.HOME,
                  '-DPython3_FIND_STRATEGY=LOCATION', '-DCMAKE_C_FLAGS=-std=c99 -Wall -Wextra -Wpedantic -Wconversion -Werror',
                  *options)
        self.call('cmake', '--build', 'build')
        self.check_picture('build/host')

    def targets(self):
        return self.call('cmake', '--build', 'build', '--target', 'help')

    def test_repository(self):
        self.copy_source('extern/pyprof')
        self.build(readme.CMAKE)
        self.assertNotIn('pyprof-svg', self.targets())

    def test_two_headers(self):
        os.makedirs(self.path('extern/pyprof'))
        for header in users.HEADERS:
            shutil.copy(os.path.join(users.SOURCE, header), self.path('extern/pyprof'))
        self.build(readme.CMAKE)

    def test_fetched(self):
        """CMake's own way to take a folder for what would be fetched."""
        self.copy_source('fetched')
        self.build(readme.CMAKE_FETCHED, '-DFETCHCONTENT_SOURCE_DIR_PYPROF=' + self.path('fetched'))
        self.assertNotIn('pyprof-svg', self.targets())


if __name__ == '__main__':
    if not users.has('cmake', 'make'):
        print('skipped: no cmake or make')
        sys.exit(77)
    users.main()
