"""What tools/dev aarch64 needs: a build for aarch64 whose programs are started by an emulator (qemu-user), and what that
cannot run.

usage: aarch64.py cross-file BUILD    prints meson's description of the other machine
       aarch64.py wrap BUILD          makes a folder like the build directory, of scripts that start its programs: as if
                                      the kernel knew how to (binfmt_misc), which is for the whole machine to decide
       aarch64.py tests BUILD         prints the names of the tests that can be run
       aarch64.py cannot              prints what can not, as lines of "NAME: WHY"; a NAME is that of a test of meson's,
                                      of cmocka's, or CLASS.NAME of unittest's
"""

import json
import os
import subprocess
import sys

SUITES = {'unit', 'truth', 'lifecycle'}

TIMES = 'it measures times, and an emulated program has others'
MASKS = "/proc tells which signals qemu's own threads block and have pending, not the program's (qemu-user 7.2)"

# Seen with qemu-user 7.2.
CANNOT = {
}

# cmocka 2, which comes with the packages, calls some of what cmocka 1 has deprecated. What meson runs itself finds the
# libc of the cross compiler.
CROSS_FILE = '''[binaries]
c = 'aarch64-linux-gnu-gcc'
ar = 'aarch64-linux-gnu-ar'
strip = 'aarch64-linux-gnu-strip'
pkgconfig = 'pkg-config'
exe_wrapper = ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu']

[built-in options]
c_args = ['-Wno-deprecated-declarations']

[properties]
pyprof_build = '%s'

[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'aarch64'
endian = 'little'
'''
WRAPPER = '''#!/bin/sh
exec qemu-aarch64 -0 "$0" '%s' "$@"
'''


def introspect(build, what):
    return json.loads(subprocess.check_output(['meson', 'introspect', '--' + what, build]))


def wrapped(build):
    return os.path.join(os.path.abspath(build), 'emulated')


def wrap(build):
    for target in introspect(build, 'targets'):
        for path in target['filename']:
            if target['type'] in ('executable', 'shared module'):
                wrap_file(path, os.path.join(wrapped(build), os.path.relpath(path, os.path.abspath(build))),
                          target['type'] == 'executable')


def wrap_file(path, link, is_program):
    os.makedirs(os.path.dirname(link), exist_ok=True)
    if os.path.lexists(link):
        os.remove(link)
    if not is_program:
        os.symlink(path, link)
        return
    with open(link, 'w', encoding='utf-8') as file:
        file.write(WRAPPER % path)
    os.chmod(link, 0o755)


def tests(build):
    for test in introspect(build, 'tests'):
        if SUITES & {suite.rpartition(':')[2] for suite in test['suite']} and test['name'] not in CANNOT:
            print(test['name'])


def main(command, *arguments):
    if command == 'cross-file':
        print(CROSS_FILE % wrapped(*arguments))
    elif command == 'wrap':
        wrap(*arguments)
    elif command == 'tests':
        tests(*arguments)
    else:
        print(*['%s: %s' % item for item in CANNOT.items()], sep='\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
