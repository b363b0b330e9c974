"""pause.py PYPROF_H OUT: the header with a call of test_pause() before and behind each statement of the signal handler."""

import re
import sys

FUNCTIONS = ('pyprof__on_signal', 'pyprof__answer', 'pyprof__accept', 'pyprof__capture_own', 'pyprof__find_self',
             'pyprof__after_late_signal')
CALL = 'test_pause();'


def pause(body):
    lines, out = body.split('\n'), []
    for before, line in zip([''] + lines, lines):
        begins = not before.strip() or before.rstrip()[-1] in '{;}'
        if line.strip() and line.rstrip()[-1] in ';{' and begins and not re.match(r'\s*(\}|enum|static)', line):
            out.append(CALL)
        out.append(line)
    if not out[-1].lstrip().startswith('return'):
        out.append(CALL)
    return '\n'.join(out)


def pause_all(text):
    for name in FUNCTIONS:
        # Its definition: what ends with a brace at the beginning of a line.
        match = re.search(r'^static [^;{}]*\b%s\([^;{}]*\) \{\n(.*?)\n\}$' % name, text, re.MULTILINE | re.DOTALL)
        if not match:
            raise SystemExit('%s: there is no such function any more' % name)
        text = text[:match.start(1)] + pause(match.group(1)) + text[match.end(1):]
    return text.replace('// >>platform', 'void test_pause(void);\n// >>platform', 1)


def main():
    with open(sys.argv[1]) as file:
        text = pause_all(file.read())
    with open(sys.argv[2], 'w') as file:
        file.write(text)


if __name__ == '__main__':
    main()
