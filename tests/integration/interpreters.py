"""What the host `interpreters` runs in its main interpreter: calls into two others, that compute and that wait."""

import host

# Each goes on until so many samples were taken: a machine may stand still for as long as anybody would wait.
WORK = '''
import host
def {name}():
    end = host.samples() + 500
    while host.samples() < end: pass
{name}()
'''

WAIT = '''
import host, time
def {name}():
    end = host.samples() + 500
    while host.samples() < end: time.sleep(0.01)
{name}()
'''

DEEPER = '''
import host
def passes_on():
    host.enter(2, """{code}""")
passes_on()
'''


def computes_there():
    host.enter(1, WORK.format(name='computing'))


def waits_there():
    host.enter(1, WAIT.format(name='waiting'))


def goes_deeper():
    host.enter(1, DEEPER.format(code=WORK.format(name='deep_computing')))


def waits_deeper():
    host.enter(1, DEEPER.format(code=WAIT.format(name='deep_waiting')))


def short_visits():
    end = host.samples() + 2000
    while host.samples() < end:
        host.enter(2, 'def visiting(): return sum(range(5000))\nvisiting()\n')


computes_there()
waits_there()
goes_deeper()
waits_deeper()
short_visits()
