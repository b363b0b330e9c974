"""The snippets of README: the tests run them as they stand there."""

import os
import re

import users


def snippets():
    """[(language, text)], in their order."""
    with open(os.path.join(users.SOURCE, 'README.md'), encoding='utf-8') as file:
        return re.findall(r'^```(\w*)\n(.*?)^```$', file.read(), re.MULTILINE | re.DOTALL)


def with_text(language, *parts):
    """The one snippet that has all these parts."""
    found = [text for is_language, text in snippets()
             if is_language == language and all(part in text for part in parts)]
    if len(found) != 1:
        raise AssertionError('%d snippets in %s with %s' % (len(found), language, parts))
    return found[0]


# What each one is, so that none is added without a test.
C_HOST = ('c', 'host.speedscope.json')
C_PICTURE = ('c', 'stop_profile')
C_MODULE = ('c', 'PyInit_pyprof')
PYTHON = ('python', 'pyprof.Profiler')  # this and the next one are run by tests/python/inside.py
PYTHON_HEAP = ('python', 'import pyprof.heap')
CC = ('sh', 'python3-config')
MESON = ('meson', 'dependency')
CMAKE = ('cmake', 'extern/pyprof')
CMAKE_FETCHED = ('cmake', 'FetchContent')
INSTALL = ('sh', 'meson install')
PKG_CONFIG = ('sh', 'pkg-config')
DEV = ('sh', 'tools/dev demo')
RUN = ('sh', 'script.py')
ALL = [C_HOST, C_PICTURE, C_MODULE, PYTHON, PYTHON_HEAP, CC, MESON, CMAKE, CMAKE_FETCHED, INSTALL, PKG_CONFIG, DEV, RUN]
