"""The sampler that anyone would write first: a thread that wakes up and reads sys._current_frames()."""

import sys
import threading
import time


class Tool:
    def __init__(self, config):
        self.interval = 1.0 / config['rate']
        self.output = config['output']
        self.counts = {}
        self.running = threading.Event()
        self.paused = threading.Event()
        self.ended = False
        self.missed = 0
        self.thread = threading.Thread(target=self.sample_until_ended, daemon=True)

    def begin(self):
        self.thread.start()

    def on(self):
        self.paused.clear()
        self.running.set()

    def off(self):
        self.running.clear()
        self.paused.wait()

    def end(self):
        self.ended = True
        self.running.set()
        self.thread.join()
        self.write()
        return {'missed': self.missed}

    def sample_until_ended(self):
        while True:
            if not self.running.is_set():
                self.paused.set()
                self.running.wait()
                next_time = time.monotonic()
            if self.ended:
                return
            self.sample()
            next_time += self.interval
            late = time.monotonic() - next_time
            if late < 0:
                time.sleep(-late)
            else:  # what cannot be caught up with is missed
                self.missed += int(late / self.interval)
                next_time += int(late / self.interval) * self.interval
                time.sleep(0)

    def sample(self):
        own = threading.get_ident()
        for thread, frame in sys._current_frames().items():
            if thread != own:
                stack = []
                while frame:
                    stack.append((frame.f_code, frame.f_lineno))
                    frame = frame.f_back
                key = (thread,) + tuple(reversed(stack))
                self.counts[key] = self.counts.get(key, 0) + 1

    def write(self):
        with open(self.output, 'w') as file:
            for (thread, *stack), count in self.counts.items():
                frames = ['%s (%s:%d)' % (code.co_name, code.co_filename.rpartition('/')[2], line or 0)
                          for code, line in stack]
                file.write('thread %d;%s %d\n' % (thread, ';'.join(frames), count))
