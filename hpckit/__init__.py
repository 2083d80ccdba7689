"""hpckit: from a Python function or a command to a reproducible cluster job.

Write a job with `farm` or `spmd`, run it with the command `hpckit`, open its
`results.h5`. Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "farm", "spmd"]

if TYPE_CHECKING:
    from hpckit.spec.job import farm, spmd


def __getattr__(name: str) -> object:
    if name in ("farm", "spmd"):
        return getattr(import_module("hpckit.spec.job"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
