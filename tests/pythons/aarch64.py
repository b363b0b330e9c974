"""What tools/dev aarch64 needs: a build for aarch64 whose programs are started by an emulator (qemu-user), and what that
cannot run.

usage: aarch64.py cross-file BUILD    prints meson's description of the other machine
       aarch64.py wrap BUILD          makes a folder like the build directory, of scripts that start its programs: as if
                                      the kernel knew how to (binfmt_misc), which is for the whole machine to decide
       aarch64.py tests BUILD [NAME...]       prints which of the tests, or of these, can be run
       aarch64.py left-out BUILD [NAME...]    prints which of them can not, and why
       aarch64.py cannot              prints what can not, parts of tests too, as lines of "NAME: WHY". A NAME is that of
                                      a test of meson's, of cmocka's, CLASS.NAME of unittest's, or "signals SCENE"
"""

import json
import os
import subprocess
import sys

SUITES = {'unit', 'accuracy', 'lifecycle'}

TIMES = 'it measures times, and those of an emulated program are not its own'
MASKS = "/proc tells the signals by the machine's numbers: qemu gives real-time ones others, and never blocks SIGSEGV and SIGBUS"
FORKS = 'qemu 7.2 ends by an assertion (cpu == current_cpu) where a child of a fork starts a thread'
COMPILES = 'it compiles a program for this machine'

# Seen with qemu-user 7.2, Debian's 1:7.2+dfsg-7+deb12u18.
CANNOT = {
    'line_times': TIMES,
    'shares': TIMES,
    'held shares': TIMES,
    'rhythm': TIMES,
    'painted': COMPILES,
    'LinkingTest.test_static': COMPILES,
    'LinkingTest.test_odd_name': 'the file that is given an odd name is the script that starts the emulator',
    'SavesTest.test_follow': FORKS,
    'SavesTest.test_autosave': 'a file takes so long to be written there that the sudden end comes amid the next one',
    'test_child_of_fork': FORKS,
    'test_quiet_takes_no_signal': 'qemu has no process_vm_writev, and without it a recording keeps a file open',
    'StressTest.test_forks': 'a child of a fork has one thread, but qemu has another of its own there',
    'test_harmless_defaults_keep_the_handler': 'qemu drops the value that is sent with a SIGCHLD',
    'test_stop_with_a_signal_that_is_still_pending': MASKS,
    'test_one_thread_without_signals': MASKS,
    'signals another_waits': "/proc tells the system call by this machine's number",
    'test_nobody_waits_for_a_dump': 'a fork takes longer there than the dumps beside which twenty are wanted',
    'test_plain_recording_is_small': 'what its script imports takes seconds there, and is most of what is recorded',
    'test_threads_behind_a_broken_link_are_counted': 'more than three ticks pass before the first frame is there',
    'test_a_thread_state_not_in_the_list_yet': 'qemu has no process_vm_writev, and outside of a recording there is no file',
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


def tests(build, *names):
    return [test['name'] for test in introspect(build, 'tests') if not names or test['name'] in names
            if SUITES & {suite.rpartition(':')[2] for suite in test['suite']}]


def say(lines):
    for line in lines:
        print(line)


def main(command, *arguments):
    if command == 'cross-file':
        print(CROSS_FILE % wrapped(*arguments))
    elif command == 'wrap':
        wrap(*arguments)
    elif command == 'tests':
        say(name for name in tests(*arguments) if name not in CANNOT)
    elif command == 'left-out':
        say('%s: %s' % (name, CANNOT[name]) for name in tests(*arguments) if name in CANNOT)
    else:
        say('%s: %s' % item for item in CANNOT.items())


if __name__ == '__main__':
    main(*sys.argv[1:])
