"""pyprof without a signal: threads that run are held while they are read."""

from . import pyprof


class Tool(pyprof.Tool):
    held = True
