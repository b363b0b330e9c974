"""Each line that ends with "wrong" is one that a type checker has to complain of."""
import pyprof

pyprof.start(interval_ms="10")  # wrong
pyprof.start(10, None, 64, 100)  # wrong
pyprof.stop().save("a", "docx")  # wrong
pyprof.stop().functions(metric="heat")  # wrong
pyprof.stop().duration = 3  # wrong
pyprof.profile(3)  # wrong
pyprof.stop() - 3  # wrong
pyprof.stats().samples  # wrong
pyprof.heap.start(sampling_rate_kb="512")  # wrong
pyprof.heap.start(512, 32)  # wrong
pyprof.heap.get_snapshot().timestamp_ns = 3  # wrong
pyprof.heap.get_snapshot() - 3  # wrong
pyprof.heap.get_snapshot().save("a", metric="wall")  # wrong
pyprof.heap.get_snapshot().top_allocators()[0]["lines"]  # wrong
