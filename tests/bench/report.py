"""The comparison as Markdown, and in a terminal as readable: columns are aligned."""

import os
import platform
import statistics
import time

import figures
import judge

HEADINGS = ('profiler', 'slowdown', '95 %', 'Hz on/off', 'asked', 'taken', 'lost', 'impossible', 'no root',
            'wrong line', 'split error', 'noise', 'CPU', 'memory', 'output')
NONE = 'n/a'

# The summary: of which program which column, at which rates.
SHORT = (('calls', 'slowdown'), ('calls', 'CPU'), ('calls', 'taken'), ('calls', 'impossible'), ('calls', 'wrong line'),
         ('split', 'split error'), ('calls', 'memory'))
SHORT_RATES = (1000, 10000)
SHORT_ABOUT = ('At 1,000 / 10,000 samples a second, of the programs `calls` (short functions, 13 deep) and `split` '
               '(five kinds of work). What the columns say stands below.')

NOTES = '''
What the columns say:

- **slowdown**: the time that one unit of work took with the profiler on, divided by the time with it off: the median
  over neighbouring stretches of one run, and its 95 % interval (order statistics). In-process profilers are switched
  by their own start and stop, other processes by SIGSTOP and SIGCONT, outside of the stretches. The line `nothing` is
  the noise of the method, and `bare signal` what it costs to ask a running thread for anything at all.
  **Hz on/off**: samples per second and computing thread that were indeed taken in the stretches with and without it:
  how far the rate was kept, and whether off was off. Stacks that are shown of a sub-interpreter alone do not tell of
  which stretch they are, and are missing there.
- **asked**: rate x seconds x threads that the profiler watches (one that watches only its own thread: one). Threads
  that wait count: all are asked to show them. **taken**: samples of the time that was measured, as found in its
  output. More than asked: it takes several looks where one was asked, or shows a thread in two interpreters as two
  stacks.
- **lost**: what the profiler itself says that it lost; n/a where it says nothing. Of pyprof all its causes. A moment at
  which it came too late (pyprof, the plain thread) or failed (py-spy, austin, CPython) counts once, however many
  threads there are.
- **impossible**: samples with a call that the program does not have. **no root**: samples whose stack does not begin
  where the thread began, also when it was cut at a limit of depth. **wrong line**: the call exists, but not at the
  line that the stack tells; or the innermost line is not one of its function. All in per cent of the samples taken.
  A program whose calls are not known: n/a.
- **split error**: the largest error of a function's share of the elapsed time, in percentage points (mean over the
  rounds), against what the program measured itself while it was watched: a profiler that stops the program makes the
  time that it does not show. **noise**: what a perfect profiler with as many samples would be off by at most, in 19 of
  20 runs. No larger than that is as good as it can be measured here.
- **CPU**: of the profiler's own process or threads, in per cent of a core; n/a: it works in the program's threads, and
  is in the slowdown. **memory**: peak, in MiB; of its process, or what the program's peak is larger by.
  **output**: size of the files that it wrote, in KiB.
'''


def number(value, form='%.1f'):
    return NONE if value is None else form % (round(value, 1) + 0)  # + 0: no -0.0


def percent(part, whole):
    return NONE if not whole else '0' if not part else '%.2g %%' % (100.0 * part / whole)


def total(values):
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def watched(cell):
    """With threads of its own, the program's main thread waits for them, and is watched, too."""
    threads = cell.workload.threads
    return 1 if cell.peer.one_thread or threads == 1 else threads + 1


def asked(cell):
    return int(sum(result['nanoseconds'] for result in cell.results) / 1e9 * cell.rate * watched(cell))


def cpu(cell):
    if cell.peer.inside and not cell.peer.threaded:
        return NONE
    used = sum(result['profiler_cpu_ns'] for result in cell.results)
    return '%.1f %%' % (100.0 * used / sum(result['nanoseconds'] for result in cell.results))


def memory(cell, baseline):
    """Of its own process, or what the program's peak is higher than without it."""
    own = [result['profiler_peak'] for result in cell.results if result.get('profiler_peak')]
    if own:
        return number(max(own) / 2.0 ** 20)
    if not baseline or cell is baseline:
        return NONE
    without = statistics.median(result['peak_memory'] for result in baseline.results)
    return number((max(result['peak_memory'] for result in cell.results) - without) / 2.0 ** 20)


def noise(cell, samples):
    """Twice the standard error of the largest share that independent samples would have."""
    truths = [judge.shares(result['book']) for result in cell.results if result['book']]
    if not truths or not samples:
        return None
    spread = max(share * (100 - share) for truth in truths for share in truth.values())
    return 2 * (spread / samples) ** 0.5


def slowdown(cell):
    if not cell.ratios:
        return NONE, NONE
    middle, low, high = figures.median_interval(cell.ratios)
    return '%.3f' % middle, NONE if low is None else '%.3f-%.3f' % (low, high)


def rates(cell):
    """Of threads that run the program: not of a main thread that waits for them."""
    threads = 1 if cell.peer.one_thread else cell.workload.threads
    found = []
    for on in (True, False):
        seconds = cell.stretch_ns[on] / 1e9
        found.append(cell.stretch_samples[on] / seconds / threads if seconds else 0)
    return '%.0f/%.0f' % tuple(found)


def row(cell, baseline):
    if not cell.failure and not cell.results:
        return [cell.peer.name, 'not run yet']
    if cell.failure:
        return [cell.peer.name, 'failed: %s' % cell.failure.replace('|', '/')]
    ratio, interval = slowdown(cell)
    judged, illegal, rootless, wrong = (sum(column) for column in zip(*cell.verdicts))
    if not cell.peer.records:
        return [cell.peer.name, ratio, interval] + [''] * (len(HEADINGS) - 6) + [cpu(cell), '', '']
    known = cell.workload.known
    size = total(cell.sizes)
    return [cell.peer.name, ratio, interval, rates(cell), str(asked(cell)), str(judged), number(total(cell.lost), '%d'),
            percent(illegal, judged) if known else NONE, percent(rootless, judged),
            percent(wrong, judged) if known else NONE, number(judge.worst_mean(cell.errors)),
            number(noise(cell, judged)), cpu(cell), memory(cell, baseline),
            number(None if size is None else size / 1024.0 / len(cell.sizes))]


def table(headings, rows):
    """Aligned, so that it can be read as it is; a failure takes the rest of its line."""
    widths = [max([len(heading)] + [len(row[column]) for row in rows if column == 0 or len(row) == len(headings)])
              for column, heading in enumerate(headings)]
    lines = [aligned(headings, widths), '|' + '|'.join('-' * (width + 2) for width in widths) + '|']
    return lines + [aligned(row, widths) for row in rows]


def aligned(row, widths):
    return '| ' + ' | '.join(text.ljust(width) for text, width in zip(row, widths)) + ' |'


def value(row, heading):
    if len(row) != len(HEADINGS):
        return NONE  # a failure, or not run yet
    if heading == 'taken' and row[HEADINGS.index('asked')]:
        return '%.1f %%' % (100.0 * int(row[HEADINGS.index('taken')]) / int(row[HEADINGS.index('asked')]))
    return row[HEADINGS.index(heading)] or NONE


def summary(names, rows):
    """rows: {(profiler, program, rate): its row}. Nothing unless all that it shows is there."""
    if any((name, program, rate) not in rows for name in names for program, _ in SHORT for rate in SHORT_RATES):
        return []
    lines = [[name] + [' / '.join(value(rows[name, program, rate], heading) for rate in SHORT_RATES)
                       for program, heading in SHORT] for name in names]
    return ['## In short', '', SHORT_ABOUT, ''] + table(['profiler'] + [heading for _, heading in SHORT], lines) + ['']


def peers_table(bench):
    rows = []
    for peer in bench.peers:
        why = bench.missing.get(peer.name)
        rows.append([peer.name, 'not to be had: ' + why if why else peer.version, '' if why else peer.runs_on,
                     peer.how])
    return table(('profiler', 'version', 'watched CPython', 'how it reads'), rows)


def machine():
    return '%s, %d processors, Linux %s' % (platform.machine(), os.cpu_count(), platform.release())


def placement(cores):
    if cores:
        return 'The program has one processor to itself, the profiler the others.'
    return 'The system placed program and profiler.'


def longer(bench):
    """Which programs run longer for their figures, and how long."""
    seconds = {cell.workload.name: cell.seconds('truth', bench.options) for cell in bench.cells}
    return ''.join(' (`%s`: %g s)' % item for item in seconds.items() if item[1] > bench.options.seconds)


def markdown(bench, place):
    options = bench.options
    lines = ['# pyprof side by side', '',
             '%s. %s, load %.1f. CPython %s where nothing else is said. Rounds: %d, each with some %d pairs of stretches '
             'of %g s for the slowdown, and %g s for the rest%s. %s' % (
                 time.strftime('%Y-%m-%d'), machine(), os.getloadavg()[2], place.version, options.rounds,
                 figures.PAIRS, options.stretch, options.seconds, longer(bench), placement(options.cores)), '']
    rows = {}
    parts = []
    for group in bench.groups():
        workload, rate = group[0].workload, group[0].rate
        baseline = next((cell for cell in group if cell.peer.name == 'nothing' and cell.results), None)
        of_group = [row(cell, baseline) for cell in group]
        rows.update(((one[0], workload.name, rate), one) for one in of_group)
        parts += ['', '## %s, %d Hz' % (workload.name, rate), '', workload.about + '.', '']
        parts += table(HEADINGS, of_group)
    lines += summary([peer.name for peer in bench.peers if peer.name not in bench.missing], rows)
    lines += peers_table(bench) + parts
    return '\n'.join(lines) + '\n' + NOTES


def part_of(path):
    return path + '.part'


def write_part(path, text):
    """While it grows it lies beside the place of the whole one, which is not touched."""
    with open(part_of(path), 'w', encoding='utf-8') as file:
        file.write(text)


def write(path, text):
    write_part(path, text)
    os.replace(part_of(path), path)
