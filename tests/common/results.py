"""What meson's logs say of the tests that were run (testlog.json: mesonbuild/mtest.py, JsonLogBuilder).

    results.py again LOG                     the names of tests that are to be run again, one a line
    results.py count CI LOG TOLD [AGAIN...]  what did not pass, and at last: passed failed skipped unsteady
    results.py costs LOG                     what each test cost, one a line: processor seconds, seconds, name
    results.py dearest < COSTS               a table of those that cost most in all, of such lines

Our tests judge figures of programs that run, and a shared machine may stand still at the wrong moment. What failed by
such a figure is run again, twice, and by itself; who holds both times has passed, and is named as unsteady. What no
machine excuses stays failed: a crash, a signal, time that ran out, a sanitizer's report, what may happen "not even once".
And where many fail it is not the machine.
"""

import json
import os
import re
import sys

AGAIN_MOST = 3
DEAREST = 10
WHY = re.compile(r'(FAIL|ERROR): |\w*(Error|Exception)\b|\[  FAILED  \] [A-Za-z]|\[  ERROR   \] ---|==\d+==|'
                 r'.*: (runtime )?error: |.*[Aa]ssert|Segmentation|.*\(.*\+0x[0-9a-f]+\) ?\[0x')
NEVER = re.compile(r'Sanitizer|runtime error: |Segmentation|Aborted|core dumped|Fatal Python error|not even once|'
                   r'killed by signal|did not end by itself|ended with -|TimeoutExpired|timed out')
# What unittest says when the status of a program that ended by a signal is compared with 0, as Python and a shell say it.
BY_SIGNAL = re.compile(r'AssertionError: (-\d+|1[2-5]\d) != |AssertionError: 0 != (-\d+|1[2-5]\d)\b')

# The last line of a test's standard error: tests/common/timed.
PROCESSORS = re.compile(r'^processors: ([0-9]+[.,][0-9]+) \+ ([0-9]+[.,][0-9]+) s\n\Z', re.MULTILINE)


def read(path):
    """The tests of a log; none where no test was run."""
    if not os.path.exists(path):
        return []
    with open(path, encoding='utf-8') as file:
        return [json.loads(line) for line in file]


def passed(test):
    return test['result'] in ('OK', 'EXPECTEDFAIL')


def has_failed(test):
    return not passed(test) and test['result'] != 'SKIP'


def said(test):
    return test.get('stdout', '') + '\n' + test.get('stderr', '')


def failed_by_a_figure(test):
    """cmocka exits with the number of tests that failed, unittest with 1."""
    return (test['result'] == 'FAIL' and 0 < test['returncode'] < 64 and not NEVER.search(said(test)) and
            not BY_SIGNAL.search(said(test)))


def to_be_run_again(tests):
    failures = [test for test in tests if has_failed(test)]
    if len(failures) > AGAIN_MOST:
        return []
    return [test['name'].rpartition(' / ')[2] for test in failures if failed_by_a_figure(test)]


def reasons(test):
    return list(dict.fromkeys(line[:300] for line in said(test).splitlines() if WHY.match(line)))[:24]


def count(tests, runs_again, ci):
    """Lines about what did not pass, lines that are told again at the end, and four figures. A test may pass and yet
    have left out a part: it says so in a line of its own."""
    names = set(to_be_run_again(tests)) if runs_again else set()
    holds = [{test['name'] for test in run if passed(test)} for run in runs_again]
    lines, told = [], []
    figures = {'passed': 0, 'failed': 0, 'skipped': 0, 'unsteady': 0}
    for test in tests:
        whys = [line for line in test.get('stdout', '').splitlines() if line.startswith('skipped: ')]
        if test['result'] == 'SKIP' and not whys:
            whys = ['skipped: it did not say why']
        is_unsteady = (has_failed(test) and test['name'].rpartition(' / ')[2] in names and
                       all(test['name'] in run for run in holds))
        figures['passed'] += passed(test) or is_unsteady
        figures['unsteady'] += is_unsteady
        figures['skipped'] += len(whys)
        if has_failed(test):
            word = 'unsteady, failed once and held twice' if is_unsteady else 'failed'
            figures['failed'] += not is_unsteady
            lines.append('%s: %s (%s)' % (word, test['name'], test['result']))
            told += [lines[-1]] + ['    ' + line for line in reasons(test)]
        lines += ['%s (%s)' % (why, test['name']) for why in whys]
    if not tests:
        figures['failed'] += 1
        lines.append('failed: no test was run, see above')
    if ci:
        figures['failed'] += figures['skipped']
        figures['skipped'] = 0
    return lines, told, figures


def cost(test):
    """What a test took of the processors, none if it was killed with all that it started; and how long it took."""
    match = PROCESSORS.search(test.get('stderr', ''))
    return sum(float(time.replace(',', '.')) for time in match.groups()) if match else 0.0, test['duration']


def dearest(lines):
    """The tests that cost most over all rows, by their processor time or by their time, whichever is more."""
    sums = {}
    for line in lines:
        cpu, wall, name = line.rstrip('\n').split('\t')
        before = sums.get(name, (0.0, 0.0, 0))
        sums[name] = before[0] + float(cpu), before[1] + float(wall), before[2] + 1
    chosen = sorted(sums.items(), key=lambda item: -max(item[1][:2]))[:DEAREST]
    return ['%-50s %6d %7.0f %8.0f' % (name, runs, wall, cpu) for name, (cpu, wall, runs) in chosen]


def main(command, *arguments):
    if command == 'again':
        print(*to_be_run_again(read(arguments[0])), sep='\n')
        return
    if command == 'costs':
        for test in read(*arguments):
            print('%.2f\t%.2f\t%s' % (*cost(test), test['name'].rpartition(' / ')[2]))
        return
    if command == 'dearest':
        print('%-50s %6s %7s %8s' % ('the tests that cost most', 'runs', 'seconds', 'cpu'), *dearest(sys.stdin), sep='\n')
        return
    ci, log, told_again, *logs_again = arguments
    lines, told, figures = count(read(log), [read(path) for path in logs_again if os.path.exists(path)], ci == 'true')
    if told:
        with open(told_again, 'a', encoding='utf-8') as file:
            print('in %s:' % log.split('/')[-3], *told, sep='\n', file=file)
    print(*lines, sep='\n', end='\n' if lines else '')
    print(*figures.values())


if __name__ == '__main__':
    main(*sys.argv[1:])
