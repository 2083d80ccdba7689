"""Runs the command that bin/launch was called as: `launch.py NAME ARGUMENT...`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from fakes.dispatch import run  # noqa: E402

sys.exit(run(sys.argv[1], sys.argv[2:]))
