"""Runs the cmocka tests of lifecycle.c or contract.c, whichever is named, where the embedded interpreter finds its library."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'common'))
import harness

program = os.path.join(harness.BUILD, 'tests', 'lifecycle', sys.argv[1])
sys.exit(subprocess.call([program] + sys.argv[2:], env=harness.host_environment()))
