#!/usr/bin/env python3
"""Writes flamegraph.js and flamegraph.css into flamegraph.h, which its users copy as one file.

Whoever changes one of the two runs this afterwards; a test of the files holds that they agree."""
import os
import re

FOLDER = os.path.dirname(os.path.abspath(__file__))
HEADER = os.path.join(FOLDER, "flamegraph.h")
PARTS = {"style": "flamegraph.css", "script": "flamegraph.js"}


def read(path):
    with open(os.path.join(FOLDER, path), encoding="utf-8") as file:
        return file.read()


def as_strings(text):
    """The lines as a C array's items, without what only its readers need: comments and indentation."""
    lines = [line.strip() for line in text.splitlines()]
    return "".join('    "%s",\n' % re.sub(r'(["\\])', r"\\\1", line)
                   for line in lines if line and not line.startswith("//"))


def embedded():
    """The header as it has to be."""
    header = read(HEADER)
    for array, path in PARTS.items():
        start = header.index("flamegraph_%s[] = {\n    /* clang-format off */\n" % array)
        start = header.index("off */\n", start) + len("off */\n")
        end = header.index("    /* clang-format on */", start)
        header = header[:start] + as_strings(read(path)) + header[end:]
    return header


if __name__ == "__main__":
    text = embedded()
    with open(HEADER + ".part", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(HEADER + ".part", HEADER)
