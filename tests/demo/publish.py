"""Publishes Python's standard library: python3 publish.py OUT.zip [MODULES]

Reads the library's source tree and packs an archive with its documentation as HTML, an index of all names, and
the compiled code. Each stage is a thread with a queue before it, as in any publishing tool:

               .-> documenter (pydoc)           -.
    MainThread --> indexer    (tokenize, ast)   --> packer (zipfile)
               '-> compiler   (compile, marshal)-'
"""
import ast
import collections
import importlib
import io
import json
import marshal
import os
import pydoc
import queue
import sys
import threading
import tokenize
import zipfile

LIBRARY = os.path.dirname(os.__file__)
# Importing these does something: it opens a browser or a window, or prints.
NOT_DOCUMENTED = {"antigravity", "this", "turtle", "__hello__", "__phello__.foo"}
END = None


class Module:
    def __init__(self, path):
        self.path = path
        self.name = os.path.splitext(os.path.basename(path))[0]
        with open(path, "rb") as file:
            self.source = file.read()


class Stage(threading.Thread):
    """A thread that works off its queue, and hands what it makes to the packer as (name, bytes)."""

    def __init__(self, name, work, packer=None):
        super().__init__(name=name)
        self.work = work
        self.packer = packer
        self.queue = queue.Queue(maxsize=16)

    def run(self):
        for item in iter(self.queue.get, END):
            made = self.work(item)
            if self.packer:
                self.packer.queue.put(made)

    def finish(self):
        self.queue.put(END)
        self.join()


def document(module):
    if module.name in NOT_DOCUMENTED:
        return "html/%s.txt" % module.name, module.source
    try:
        page = pydoc.HTMLDoc().document(importlib.import_module(module.name))
    except ImportError as error:  # a module of another system
        page = "<p>%s cannot be documented here: %s</p>" % (module.name, error)
    return "html/%s.html" % module.name, page.encode("utf-8", "replace")


def compile_module(module):
    code = compile(module.source, module.path, "exec", optimize=2)
    return "code/%s.bin" % module.name, marshal.dumps(code)


def count_words(source):
    words = collections.Counter()
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type == tokenize.NAME:
            words[token.string] += 1
    return words


def definitions(source):
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = {"line": node.lineno, "about": ast.get_docstring(node) or ""}
    return found


def index(module):
    entry = {"words": count_words(module.source), "definitions": definitions(module.source)}
    return "index/%s.json" % module.name, json.dumps(entry, indent=1, sort_keys=True).encode()


class Archive:
    def __init__(self, path):
        self.zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9)
        self.files = 0
        self.size = 0

    def add(self, file):
        name, data = file
        self.zip.writestr(name, data)
        self.files += 1
        self.size += len(data)


def library_modules(limit):
    paths = sorted(entry.path for entry in os.scandir(LIBRARY) if entry.name.endswith(".py"))
    for path in paths[:limit]:
        yield Module(path)


def publish(out, limit):
    archive = Archive(out)
    packer = Stage("packer", archive.add)
    stages = [Stage("documenter", document, packer), Stage("compiler", compile_module, packer),
              Stage("indexer", index, packer)]
    for stage in stages + [packer]:
        stage.start()
    modules = 0
    for module in library_modules(limit):
        for stage in stages:
            stage.queue.put(module)
        modules += 1
    for stage in stages + [packer]:
        stage.finish()
    archive.zip.close()
    print("%d modules, %d files, %d KiB, packed into %d KiB" % (
        modules, archive.files, archive.size // 1024, os.path.getsize(out) // 1024))


if __name__ == "__main__":
    publish(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
