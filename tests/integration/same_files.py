"""One function of one name in files of equal names: none of them in a package, as in a zip. Prints the paths."""

import json

import pyprof_host

PATHS = ['/app.pyz/alpha/util.py', '/app.pyz/beta/util.py', '/lib/alpha/util.py', 'util.py', '/app.pyz/other.py']
SOURCE = '''
def work():
    end = samples() + 30
    while samples() < end:
        pass
'''

for path in PATHS:
    names = {'samples': pyprof_host.samples}
    exec(compile(SOURCE, path, 'exec'), names)
    names['work']()
print(json.dumps(PATHS))
