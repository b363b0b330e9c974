"""Runs the cmocka tests of lifecycle.c where the embedded interpreter finds its library."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'truth'))
import harness

program = os.path.join(harness.BUILD, 'tests', 'lifecycle', 'lifecycle')
sys.exit(subprocess.call([program] + sys.argv[1:], env=harness.host_environment()))
