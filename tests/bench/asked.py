"""What it costs a recorded program to be asked all the time: `pyprof-ctl top --once`, `dump`, a snapshot every 100 ms.

    asked.py [SECONDS], with PYPROF_SOURCE, PYPROF_BUILD, PYPROF_PYTHON, PYPROF_PYTHONHOME set as for the tests

Two programs of a known call graph (tests/accuracy/generate.py) run beside each other, each recorded at 1 kHz. In
stretches of two seconds one of them is asked, then the other: so the machine has the same to do all the time, and what
others do on it strikes both. Each notes the processor time that its own thread takes for each turn of its work: asked
against not asked, and the middle of both programs. Prints that, what was missed, and how many stacks are illegal. By hand: it takes
minutes."""
import bisect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in 'common', 'accuracy', 'listen':
    sys.path.insert(0, os.path.join(HERE, '..', folder))
import checker
import client
import collapsed
import generate
import harness

CTL = os.path.join(harness.BUILD, 'tools', 'pyprof-ctl')
STRETCH = 2
EVERY = 0.1
EDGE = 0.1  # of a stretch: what was asked in the one before may take so long
LEVELS = 8  # a turn takes half a millisecond
GROUP = 20

# Stands where the program looks at the clock, once a turn.
CLOCK = '''import time
turns = []
def clock():
    turns.append((time.monotonic(), time.thread_time_ns()))
    return turns[-1][0]
'''


class Program:
    """One that is recorded, and can be asked."""

    def __init__(self, folder, seconds, seed):
        text, self.functions = generate.generate(seed, levels=LEVELS, threads=0)
        self.folder = os.path.join(folder, str(seed))
        os.mkdir(self.folder)
        self.write('work_clock.py', CLOCK)
        text = text.replace('from time import monotonic as clock', 'from work_clock import clock')
        script = self.write('prog.py', text)
        self.host = client.Host(self.folder)
        self.path = self.host.path
        for expression in ('listen()', 'start(1000)'):
            assert self.host(expression) == (0, ''), expression
        self.host('sys.path.insert(0, %r)' % self.folder)
        self.host('sys.argv.__setitem__(slice(None), %r)' % [script, str(seconds), 'together'])
        self.host.tell('exec(compile(open(%r).read(), %r, "exec"), {"__name__": "__main__"})' % (script, script))
        self.asked = []

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path

    def ctl(self, *words):
        return subprocess.run([CTL, words[0], str(self.host.pid), *words[1:]], stdout=subprocess.DEVNULL,
                              env=dict(os.environ, XDG_RUNTIME_DIR=self.folder)).returncode

    def ask(self, until):
        """All three, each in its own rhythm, and notes how often that succeeded."""
        def again(*words):
            following = time.monotonic()
            while following < until:
                time.sleep(max(0, following - time.monotonic()))
                self.asked.append(self.ctl(*words))
                following = max(following + EVERY, time.monotonic())
        snapshot = os.path.join(self.folder, 'snapshot.txt')
        askers = [threading.Thread(target=again, args=words) for words in
                  (('dump',), ('snapshot', '-o', snapshot), ('top', '--once', '-d', '0.1'))]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()

    def turns(self):
        """(moment of its end, nanoseconds of the processor) of each turn; waits until the program has ended."""
        self.host.answer()
        noted = self.host('__import__("work_clock").turns')
        return [(after[0], after[1] - before[1]) for before, after in zip(noted, noted[1:])]

    def judge(self):
        """The samples, those whose stack the program cannot have, and the figures."""
        stats = client.status(self.path)['stats']
        path = os.path.join(self.folder, 'out.txt')
        assert self.ctl('stop', '-f', 'collapsed', '--metric', 'samples', '-i', '-o', path) == 0
        with open(path, encoding='utf-8') as file:
            stacks = [stack for stack in collapsed.parse(file.read())
                      if any(frame.file.endswith('prog.py') for frame in stack.frames)]
        judge = checker.Checker(self.functions, 'prog.py')
        wrong = [(judge.complaint(within(stack)), stack.value) for stack in stacks if judge.complaint(within(stack))]
        self.host.end()
        return sum(stack.value for stack in stacks), wrong, stats


def within(stack):
    """The stack from the program's module on: what runs that is driven.py's; and without the clock, which is ours."""
    frames = list(stack.frames)
    first = next(at for at, frame in enumerate(frames) if frame.file.endswith('prog.py'))
    return stack._replace(frames=[frame for frame in frames[first:] if frame.file != 'work_clock.py'])


def cost(turns):
    """Of a turn: the lower quartile of groups of turns that each have several samples in them, for what strikes few
    groups is somebody else's. None: there are too few."""
    groups = sorted(sum(turns[at:at + GROUP]) / GROUP for at in range(0, len(turns) - GROUP + 1, GROUP))
    return groups[len(groups) // 4] if len(groups) >= 8 else None


def costs(turns, stretches):
    """Of a turn in each two stretches that follow each other: (when asked, when not)."""
    moments = [moment for moment, _ in turns]
    taken = []
    for begin, end, is_asked in stretches:
        inside = turns[bisect.bisect(moments, begin + EDGE):bisect.bisect(moments, end)]
        taken.append((is_asked, cost([took for _, took in inside])))
    pairs = [dict(taken[at:at + 2]) for at in range(0, len(taken) - 1, 2)]
    return [(pair[True], pair[False]) for pair in pairs if None not in pair.values()]


def main(seconds=60.0):
    with tempfile.TemporaryDirectory(prefix='pyprof-', dir='/tmp') as folder:
        count = 2 * max(1, round(seconds / STRETCH))
        programs = [Program(folder, count * STRETCH + 3, seed) for seed in (1, 2)]
        time.sleep(1)
        stretches = []
        for turn in range(count):
            begin = time.monotonic()
            programs[turn % 2].ask(begin + STRETCH)
            stretches.append((begin, time.monotonic(), turn % 2))
        ratios = []
        for number, program in enumerate(programs):
            found = costs(program.turns(), [(begin, end, who == number) for begin, end, who in stretches])
            pairs = [asked / idle for asked, idle in found]
            ratios.append(statistics.median(pairs))
            quarter = sorted(pairs)[len(pairs) // 4], sorted(pairs)[3 * len(pairs) // 4]
            samples, wrong, stats = program.judge()
            print('program %d: asked %d times, of which %d failed; a turn takes %+.2f %% (quartiles %+.2f, %+.2f; '
                  '%d pairs of stretches, %.2f ms)' % (
                      number, len(program.asked), sum(code != 0 for code in program.asked),
                      *(100 * (value - 1) for value in (ratios[-1], *quarter)), len(pairs),
                      statistics.median(idle for _, idle in found) / 1e6))
            print('  %d samples of it, %d illegal; %d ticks, %d missed; %s' % (
                samples, sum(value for _, value in wrong), stats['ticks'], stats['ticks_missed'],
                json.dumps({name: value for name, value in stats.items() if name.startswith('lost_') and value})))
            for complaint, value in wrong[:5]:
                print('   ', complaint, value)
        print('both: %+.2f %%' % (100 * (statistics.geometric_mean(ratios) - 1)))


if __name__ == '__main__':
    main(*map(float, sys.argv[1:]))
