"""Runs one of the browser tests: run.py FILE.mjs. Exits with 77 and says why where that cannot be done; with CI=true
that is a failure.

The packages lie in $PYPROF_BUILD/node_modules: copy package.json and package-lock.json to $PYPROF_BUILD and run
`npm ci` there. The browser is $PYPROF_CHROMIUM, else the system's."""
import os
import shutil
import subprocess
import sys


def what_is_missing(browser):
    if not shutil.which("node"):
        return "no node"
    version = subprocess.run(["node", "--version"], stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < 18:
        return "node %s is older than 18" % version
    if not browser:
        return "no chromium"
    for package in ["playwright-core", "speedscope", "ajv", "eslint"]:
        if not os.path.isdir(os.path.join(os.environ["PYPROF_BUILD"], "node_modules", package)):
            return "%s is not installed in the build directory (npm ci)" % package
    return None


def main():
    browser = os.environ.get("PYPROF_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    missing = what_is_missing(browser)
    if missing:
        print("skipped: " + missing)
        return 1 if os.environ.get("CI") == "true" else 77
    return subprocess.run(["node", sys.argv[1]], env=dict(os.environ, PYPROF_CHROMIUM=browser)).returncode


if __name__ == "__main__":
    sys.exit(main())
