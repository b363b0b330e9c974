#!/usr/bin/env python3
"""Puts what engine.c includes beside the sources of a source distribution, which has nothing of the repository around it."""
import os
import shutil

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = [os.path.join(HERE, "headers"), os.path.join(HERE, ".."), os.path.join(HERE, "..", "..")]

folder = os.path.join(os.environ["MESON_DIST_ROOT"], "headers")
os.makedirs(folder, exist_ok=True)
for name in ("pyprof.h", "flamegraph.h", "pyprof_module.h", "heap_module.h", "exports.h", "imports.h", "import_base.h",
             "import_collapsed.h", "import_jsonl.h", "import_pprof.h", "import_speedscope.h", "filter_options.h",
             "differences.h", "json_reader.h", "pyprof-convert.c"):
    paths = [os.path.join(source, name) for source in SOURCES]
    found = [path for path in paths if os.path.exists(path)]
    if not found:
        raise SystemExit("copy_headers.py: there is no %s" % name)
    shutil.copy(found[0], folder)
