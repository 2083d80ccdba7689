"""The commands by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from fakes.failures import Failure

MODULES = {"fake-slurm": "control", "stepd": "stepd"}
SLURM = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo")
VERSION = "22.05.8"


def run(name: str, argv: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    if name in SLURM and {"-V", "--version"} & {*argv[:1]}:
        print(f"slurm-wlm {VERSION}")
        return 0
    command = import_module(f"fakes.{MODULES.get(name, name)}")
    try:
        status = command.main(list(argv)) or 0
        sys.stdout.flush()
    except Failure as failure:
        print(failure, end="", file=sys.stderr)
        status = failure.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    return status
