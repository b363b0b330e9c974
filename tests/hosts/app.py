"""A uWSGI application that records known work in the worker that answers."""

import os

import work


def application(environ, start_response):
    name = "%s.%d" % (os.environ["PYPROF_TEST_OUT"], os.getpid())
    open(name, "w").close()
    work.recorded(os.environ["PYPROF_TEST_PLUGIN"], name, float(os.environ["PYPROF_TEST_SECONDS"]),
                  int(os.environ["PYPROF_TEST_RUNS"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [name.encode()]
