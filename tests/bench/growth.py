"""Counts what a sample, a stack, a recording and a file cost, and shows how that grows: Markdown, on the standard
output and in build/bench/growth.md. See growth.c for what is counted and how. The last table is measured, and has other
profilers in it: crowd.py."""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile

import bench
import crowd

GROWTH = os.path.join(os.environ.get('PYPROF_BUILD', ''), 'tests', 'bench', 'growth')
VALGRIND = shutil.which('valgrind')
STRACE = shutil.which('strace')

DEPTHS = (10, 30, 100, 300, 1000)
THREADS = (1, 10, 100, 1000)
WAITING = (0, 100, 1000)
ROUNDS = 100  # of the default interval: one second, in which each thread's name is looked at once
STACKS = (1000, 10000, 100000)
SAMPLES = 1000000

# What a thread does, and of how many functions its stack is made.
KINDS = (('waits', 'waits', 100),
         ('read from outside, 100 functions', 'outside', 100),
         ('read from outside, recursion', 'outside', 1),
         ('copies its own', 'own', 100))

ABOUT = """## Growth of pyprof's cost, CPython %s

Instructions are those of user mode, counted by callgrind; what a system call costs the kernel is not in them (each is
some hundred to some thousand more). System calls are counted where the header makes them, and held against strace.
Both are of ticks of real threads, driven one by one under a scripted CPU clock, so they are the same in every run but
for where the allocator put things. Times are of this machine, and not so.
"""

skipped = []


def run(command):
    environment = dict(os.environ, PYTHONHASHSEED='0')
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=300)
    if done.returncode != 0:
        raise RuntimeError('%s ended with %d: %s' % (' '.join(command), done.returncode, done.stderr.strip()[-300:]))
    return json.loads(done.stdout)


def growth(*words):
    return run([GROWTH] + [str(word) for word in words])


def callgrind_costs(path, functions):
    """Instructions in each function with all that it calls, from a file that callgrind wrote."""
    costs = dict.fromkeys(functions, 0)
    function = None
    with open(path, encoding='utf-8') as file:
        for line in file:
            if line.startswith('fn='):
                function = line[3:].strip()
            elif function in costs and line[:1] in '0123456789+-*':
                costs[function] += int(line.split()[1])
    return costs


def count_instructions(words):
    """One run under callgrind: the counts, and the instructions of the sampler and of the handler."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, 'out')
        command = [VALGRIND, '-q', '--tool=callgrind', '--callgrind-out-file=' + out, '--compress-strings=no',
                   '--compress-pos=no', '--max-threads=1100', GROWTH]
        counts = run(command + words)
        costs = callgrind_costs(out, ('growth_ticks', 'pyprof__on_signal'))
    if costs['growth_ticks'] == 0 or (costs['pyprof__on_signal'] > 0) != (words[1] in ('own', 'parked')):
        raise ValueError('callgrind saw other functions than those that should have run: %r' % costs)
    counts['sampler_instructions'] = costs['growth_ticks'] / counts['ticks']
    counts['handler_instructions'] = costs['pyprof__on_signal'] / (counts['ticks'] + 1)  # one while warming up
    if words[1] == 'parked':
        del counts['handler_instructions']  # it warms up for long
    return counts


def ticks(kind, depth, functions, threads):
    words = ['ticks', kind, str(depth), str(functions), str(threads), str(ROUNDS)]
    if VALGRIND:
        try:
            return count_instructions(words)
        except (OSError, ValueError, RuntimeError, subprocess.TimeoutExpired) as error:
            skipped.append('instructions of %s: %s' % (' '.join(words), error))
    return growth(*words)


def calls_not_counted(kind, rounds):
    """How many system calls of one run the kernel saw and growth.c did not count: most are Python's start. The clocks
    are counted but scripted, so the kernel does not see them."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, 'out')
        counts = run([STRACE, '-f', '-c', '-U', 'calls,name', '-o', out, GROWTH, 'ticks', kind, '10', '10', '1',
                      str(rounds)])
        with open(out, encoding='utf-8') as file:
            seen = [int(line.split()[0]) for line in file if line.split()[1:] == ['total']]
    return seen[0] - sum(counts[who][name] for who in ('sampler', 'handler') for name in counts[who]
                         if name != 'clock_gettime')


def check_calls():
    """The kernel must see as many system calls in a further tick as growth.c counts."""
    few, many = 100, 900
    for kind, known in (('waits', 0), ('outside', 0), ('own', 2)):  # rt_sigreturn, and growth.c's own sched_yield
        more = (calls_not_counted(kind, many) - calls_not_counted(kind, few)) / (many - few)
        if abs(more - known) > 0.25:  # the start of Python differs by a few from run to run
            raise SystemExit('ticks of "%s" make %.2f system calls that growth.c does not count' % (kind, more - known))


def instructions(counts, who, threads):
    """Instructions of the sampler for a sample, of the handler for a signal."""
    cost = counts.get(who + '_instructions')
    return '-' if cost is None else '{:,.0f}'.format(cost / (threads if who == 'sampler' else 1))


SHORT = {'process_vm_writev': 'read', 'clock_gettime': 'clock', 'rt_tgsigqueueinfo': 'signal',
         'open, read, close': 'file'}


def number(value):
    return '{:,.0f}'.format(value) if value >= 100 else '{:.4g}'.format(value)


def calls(counts, who, per):
    """System calls, and which: "5 (1 read, 2 clock, ...)"."""
    each = [(SHORT.get(name, name), count / per) for name, count in counts[who].items() if count]
    total = number(sum(count for _, count in each))
    return '%s (%s)' % (total, ', '.join('%s %s' % (number(count), name) for name, count in each)) if each else total


def calls_of_sample(counts, who, threads):
    return calls(counts, who, counts['ticks'] * (threads if who == 'sampler' else 1))


def calls_of_tick(counts, who, _):
    return calls(counts, who, counts['ticks'])


def table(title, note, head, rows):
    lines = ['### ' + title, '', note, '', '| ' + ' | '.join(head) + ' |', '|---' + '|---:' * (len(head) - 1) + '|']
    lines += ['| ' + ' | '.join(row) + ' |' for row in rows]
    return '\n'.join(lines) + '\n'


def tables_of_ticks(by_depth, by_threads):
    kinds = [label for label, _, _ in KINDS]
    head = kinds[:-1] + [kinds[-1] + ': sampler', kinds[-1] + ': handler']

    def rows(points, show):
        for first, threads, counts in points:
            cells = [show(count, 'sampler', threads) for count in counts] + [show(counts[-1], 'handler', threads)]
            yield ['{:,}'.format(first)] + cells

    depths = [(depth, 1, counts) for depth, counts in by_depth]
    threads = [(count, count, counts) for count, counts in by_threads]
    yield table('Instructions per sample, by depth',
                'User mode, one thread. The handler\'s are the program\'s, the others the sampler\'s.',
                ['frames'] + head, rows(depths, instructions))
    yield table('System calls per sample, by depth',
                'One thread. To the sampler\'s comes one futex a tick, for its sleep, and one timer_settime where timers '
                'lead that; to the handler\'s, rt_sigreturn.',
                ['frames'] + head, rows(depths, calls_of_sample))
    note = 'Ten frames each. Of those that "copy their own" one does, as one has the GIL; the others wait.'
    yield table('Instructions per sample, by threads', note, ['threads'] + head, rows(threads, instructions))
    yield table('System calls per sample, by threads', note, ['threads'] + head, rows(threads, calls_of_sample))
    yield table('System calls per tick, by threads', note, ['threads'] + head, rows(threads, calls_of_tick))
    yield table('Bytes held for threads', 'By the sampler and the profile, ten frames each, after %d ticks.' % ROUNDS,
                ['threads', 'bytes', 'a further thread'],
                [['{:,}'.format(threads), '{:,}'.format(points[0]['bytes']), further]
                 for (threads, points), further in zip(by_threads, further_bytes(by_threads))])


def table_of_waiting(runs):
    """Who has waited for long is not looked at one by one."""
    return table('A tick, by threads that have long waited',
                 'Beside them one computes and copies its own stack, ten frames; each thread\'s name is looked at once in '
                 'all %d ticks, mostly by one word.' % ROUNDS,
                 ['waiting', 'instructions of the sampler', 'its system calls'],
                 [['{:,}'.format(waiting), instructions(counts, 'sampler', 1), calls_of_tick(counts, 'sampler', 1)]
                  for waiting, counts in runs])


def further_bytes(by_threads):
    """From each number of threads to the next, bytes for one more."""
    yield '-'
    for (few, before), (many, after) in zip(by_threads, by_threads[1:]):
        yield '{:,.0f}'.format((after[0]['bytes'] - before[0]['bytes']) / (many - few))


def table_of_stacks(runs):
    rows = [['{:,}'.format(r['stacks']), '{:,}'.format(r['nodes']), '{:,}'.format(r['bytes']),
             '{:,}'.format(r['bytes_peak']), number(r['bytes'] / r['stacks']),
             number(r['tree_bytes'] / r['nodes']), number(r['timeline_bytes'] / r['stretches'])] for r in runs]
    return table('Memory, by distinct stacks',
                 'Ten frames, one sample each. A node is %d bytes, a stretch of the time line %d; what is held beyond '
                 'is room to grow and the table to find nodes by.' % (runs[0]['node_size'], runs[0]['stretch_size']),
                 ['stacks', 'nodes', 'bytes', 'at most', 'bytes a stack', 'tree: bytes a node',
                  'time line: bytes a sample'], rows)


def table_of_start(runs):
    rows = [['{:,}'.format(threads), '{:,.0f}'.format(r['start_ns'] / 1000), '{:,.0f}'.format(r['stop_ns'] / 1000),
             calls(r, 'start', 1), '{:,}'.format(r['bytes']), '{:,}'.format(r['bytes_peak'])] for threads, r in runs]
    return table('pyprof_start and pyprof_stop, by threads',
                 'Median times. Besides, %s bytes are static, and the sampler thread has a stack of 1 MiB, of which it '
                 'touches little.' % '{:,}'.format(runs[0][1]['static_bytes']),
                 ['threads', 'start: us', 'stop: us', 'system calls of start', 'bytes', 'at most'], rows)


def table_of_writing(runs):
    def cells(r, name):
        return ['{:,.0f}'.format(r[name + '_ns'] / 1e6), '{:,}'.format(r[name + '_bytes']),
                number(r[name + '_bytes'] / r[name + '_ns'] * 1000)]
    rows = [['{:,}'.format(threads), '{:,}'.format(stacks), '{:,}'.format(r['stretches'])] +
            cells(r, 'collapsed') + cells(r, 'speedscope') for threads, stacks, r in runs]
    return table('Writing %s samples, by threads and distinct stacks' % '{:,}'.format(SAMPLES),
                 'Into a function that only counts; median of three. Each sample differs from the one before, so the '
                 'time line is full and has been coarsened.',
                 ['threads', 'stacks', 'stretches', 'collapsed: ms', 'bytes', 'MB/s', 'speedscope: ms', 'bytes',
                  'MB/s'], rows)


def report():
    points = [(depth, kind, functions, 1) for depth in DEPTHS for _, kind, functions in KINDS]
    points += [(10, kind, functions, threads) for threads in THREADS for _, kind, functions in KINDS]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        done = dict(zip(points, pool.map(lambda p: ticks(p[1], p[0], p[2], p[3]), points)))
    by_depth = [(depth, [done[depth, kind, functions, 1] for _, kind, functions in KINDS]) for depth in DEPTHS]
    by_threads = [(threads, [done[10, kind, functions, threads] for _, kind, functions in KINDS])
                  for threads in THREADS]
    starts = [(threads, growth('start', threads, 21)) for threads in THREADS]
    yield ABOUT % starts[0][1]['python']
    yield from tables_of_ticks(by_depth, by_threads)
    yield table_of_waiting([(waiting, ticks('parked', 10, 100, waiting + 1)) for waiting in WAITING])
    yield table_of_stacks([growth('stacks', count) for count in STACKS])
    yield table_of_start(starts)
    shapes = [(1, count) for count in STACKS] + [(1000, STACKS[-1])]
    yield table_of_writing([(threads, count, growth('write', threads, count, SAMPLES)) for threads, count in shapes])


def save(text, name):
    folder = os.path.join(os.environ['PYPROF_BUILD'], os.pardir, 'bench')
    os.makedirs(folder, exist_ok=True)
    path = os.path.normpath(os.path.join(folder, name))
    with open(path + '.part', 'w', encoding='utf-8') as file:
        file.write(text)
    os.replace(path + '.part', path)
    return path


def counted():
    """All but the last table, and what could not be counted."""
    if not VALGRIND:
        skipped.append('instructions: no valgrind')
    if STRACE:
        check_calls()
    else:
        skipped.append('whether the kernel sees the system calls that are counted: no strace')
    parts = list(report())
    return parts + ['skipped: %s\n' % why for why in skipped]


def main():
    parser = argparse.ArgumentParser(prog='tools/dev bench --growth', description=__doc__)
    parser.add_argument('--crowd', action='store_true', help='only the last table: profilers among waiting threads')
    parser.add_argument('--rounds', type=int, default=1, help='how often that is measured: a quarter of an hour each')
    options = parser.parse_args()
    bench.end_by_signals()
    if not os.path.exists(GROWTH):
        sys.exit('set PYPROF_BUILD to a build directory (tools/dev bench --growth does)')
    text = '\n'.join(([] if options.crowd else counted()) + [crowd.table(crowd.here(), options.rounds)])
    print(text)
    print('written to %s' % save(text, 'crowd.md' if options.crowd else 'growth.md'))


if __name__ == '__main__':
    main()
