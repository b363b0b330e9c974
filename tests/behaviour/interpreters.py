"""What the host `interpreters` runs in its main interpreter: calls into two others, that compute and that wait."""

import host

WORK = '''
import time
def {name}():
    end = time.monotonic() + 0.3
    while time.monotonic() < end: pass
{name}()
'''

WAIT = '''
import time
def {name}():
    for n in range(30): time.sleep(0.01)
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
    for _ in range(3000):
        host.enter(2, 'def visiting(): return sum(range(5000))\nvisiting()\n')


computes_there()
waits_there()
goes_deeper()
waits_deeper()
short_visits()
