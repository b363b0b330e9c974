"""pyprof, through the module that the host (tests/bench/host.c) has built in. Each on() is a recording of its own."""

import pyprof_bench


class Tool:
    held = False

    def __init__(self, config):
        self.interval_us = 1000000 // config['rate']
        self.output = config['output']
        self.recordings = 0
        self.figures = None

    def begin(self):
        pass

    def on(self):
        pyprof_bench.start(self.interval_us, self.held)

    def off(self):
        self.figures = pyprof_bench.stop()
        path = '%s-%d' % (self.output, self.recordings)
        pyprof_bench.save(path + '.times', path + '.samples')
        self.recordings += 1

    def end(self):
        return self.figures
