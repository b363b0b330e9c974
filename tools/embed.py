#!/usr/bin/env python3
"""Writes flamegraph.js and flamegraph.css into flamegraph.h, python/pyprof/__init__.py into pyprof_module.h, and
python/pyprof/heap.py into heap_module.h, which their users copy.

Whoever changes one of these runs this afterwards; a test of the files holds that they agree."""
import os
import re

FOLDER = os.path.dirname(os.path.abspath(__file__))
# {header: {array: the file whose lines it has}}
HEADERS = {
    "flamegraph.h": {"flamegraph_style": "flamegraph.css", "flamegraph_script": "flamegraph.js"},
    "pyprof_module.h": {"pymod__source": os.path.join("python", "pyprof", "__init__.py")},
    "heap_module.h": {"pymod__heap_source": os.path.join("python", "pyprof", "heap.py")},
}


def read(path):
    with open(os.path.join(FOLDER, path), encoding="utf-8") as file:
        return file.read()


# What stays as it is in the script: strings, templates (none stands within another one), regular expressions.
LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`"""
                     r"""|(?<=[(,=:!&|?;])\s*/(?![/*])(?:[^/\\\[\n]|\\.|\[(?:[^\]\\]|\\.)*\])+/[a-z]*""")
SIGN = r"[-+*%&|^=<>!?:;,.(){}\[\]~]"


def without_blanks(code):
    """A piece of a script without blanks beside signs, unless they hold two signs apart (a + +b)."""
    return re.sub(r" +(?=%s)|(?<=%s) +" % (SIGN, SIGN),
                  lambda blank: " " if code[blank.start() - 1:blank.start()] in "+-" and code[blank.end():blank.end() + 1] in "+-"
                  and blank.start() > 0 and blank.end() < len(code) else "", code)


def shorten(line, is_script):
    """What only its readers need is left out: comments, indentation and most blanks."""
    line = line.strip()
    if not is_script:
        return re.sub(r"(?<=[:,;{]) +| +(?=[{}])", "", line)
    if line.startswith("//"):
        return ""
    line = re.sub(r" // [^'`\"]*$", "", line)
    short, at = "", 0
    for literal in LITERAL.finditer(line):
        short += without_blanks(line[at:literal.start()]) + literal.group().strip()
        at = literal.end()
    return short + without_blanks(line[at:])


def shown(line, path):
    """What of a line goes into the header. Python keeps its lines: tracebacks tell their numbers."""
    return line if path.endswith(".py") else shorten(line, path.endswith(".js"))


def marked(lines):
    """Each line, and whether it is only for pictures of differences: it ends with `// difference`, or stands between
    `// difference {` and `// }`."""
    inside = False
    for line in lines:
        inside = inside or line.strip() == "// difference {"
        yield line, inside or line.endswith("// difference")
        inside = inside and line.strip() != "// }"


def as_strings(text, path):
    """The lines as a C array's items, those for differences with a tab; two question marks would begin a trigraph."""
    strings = ""
    for line, only in marked(text.splitlines()):
        short = shown(line, path)
        if short or path.endswith(".py"):
            strings += '    "%s%s",\n' % ("\\t" * only, re.sub(r'(["\\]|(?<=\?)\?)', r"\\\1", short))
    return strings


def embedded(name):
    """The header as it has to be."""
    header = read(name)
    for array, path in HEADERS[name].items():
        start = header.index("%s[] = {\n    /* clang-format off */\n" % array)
        start = header.index("off */\n", start) + len("off */\n")
        end = header.index("    /* clang-format on */", start)
        header = header[:start] + as_strings(read(path), path) + header[end:]
    return header


if __name__ == "__main__":
    for name in HEADERS:
        text = embedded(name)
        path = os.path.join(FOLDER, name)
        with open(path + ".part", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path + ".part", path)
