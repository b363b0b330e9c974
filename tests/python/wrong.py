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
