"""ddtrace's stack profiler, alone, at a fixed rate, writing files instead of talking to an agent."""

import os

for name in ('MEMORY', 'LOCK', 'HEAP', 'EXCEPTION', 'PYTORCH'):
    os.environ['DD_PROFILING_%s_ENABLED' % name] = '0'
os.environ.update({
    '_DD_PROFILING_STACK_ADAPTIVE_SAMPLING_ENABLED': '0',
    'DD_PROFILING_MAX_FRAMES': '600',
    'DD_PROFILING_UPLOAD_INTERVAL': '3600',
    'DD_TRACE_ENABLED': '0',
    'DD_INSTRUMENTATION_TELEMETRY_ENABLED': '0',
    'DD_CRASHTRACKING_ENABLED': '0',
    'DD_REMOTE_CONFIGURATION_ENABLED': '0',
})


class Tool:
    def __init__(self, config):
        os.environ['DD_PROFILING_OUTPUT_PPROF'] = config['output']
        from ddtrace.internal.datadog.profiling import stack
        from ddtrace.internal.settings.profiling import config as settings
        from ddtrace.profiling import Profiler
        if settings.stack.adaptive_sampling:
            raise RuntimeError('the rate of ddtrace could not be fixed')
        self.stack = stack
        self.interval = 1.0 / config['rate']
        self.profiler = Profiler()

    def begin(self):
        self.profiler.start()
        self.stack.set_interval(self.interval)
        self.off()

    def on(self):
        self.stack.resume_sampling()

    def off(self):
        if self.stack.pause_sampling() is None:
            raise RuntimeError('ddtrace does not pause')

    def end(self):
        self.profiler.stop(flush=True)
