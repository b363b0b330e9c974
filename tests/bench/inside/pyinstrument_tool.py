"""pyinstrument: a profile function in C that takes a sample when the interval has passed, in the thread that began."""

import os

os.environ['PYINSTRUMENT_IGNORE_OVERHEAD_WARNING'] = '1'

import pyinstrument  # noqa: E402


class Tool:
    def __init__(self, config):
        self.output = config['output']
        self.profiler = pyinstrument.Profiler(interval=1.0 / config['rate'], async_mode='disabled')

    def begin(self):
        pass

    def on(self):
        self.profiler.start()

    def off(self):
        self.profiler.stop()

    def end(self):
        self.profiler.last_session.save(self.output)
