"""What is in an RO-Crate, and whether it is valid."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

VALIDATOR = Path(__file__).with_name("valid_crate.py")


def issues(crate):
    """Return where a crate does not keep what its profile requires."""
    if "HPCKIT_VALIDATOR_ENV" not in os.environ:
        pytest.skip("roc-validator is not there: README.md says how HPCKIT_VALIDATOR_ENV brings it")
    python = Path(os.environ["HPCKIT_VALIDATOR_ENV"]) / "bin/python"
    done = subprocess.run([python, VALIDATOR, crate], capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def entities(crate):
    """Return what a crate describes, by id."""
    graph = json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    return {entity["@id"]: entity for entity in graph}
