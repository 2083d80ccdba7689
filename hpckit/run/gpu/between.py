"""What is to be done about cards between tasks; it imports nothing where none is in use."""

from __future__ import annotations

import sys
from typing import Any

HELD = "hpckit.run.gpu.held"


def tell_of_gpu() -> None:
    """Leave word of what this thread's card did, if it has one."""
    if held := sys.modules.get(HELD):
        held.tell_here()


def has_lost_gpu() -> bool:
    """Tell whether an error has made this thread's card useless to the process."""
    held = sys.modules.get(HELD)
    return held is not None and held.is_lost_here()


def on_host(value: Any) -> Any:
    """Return a value that may be an array on the card as one of the host."""
    if not hasattr(value, "gpudata"):
        return value
    held = sys.modules.get(HELD)
    return value.get() if held is None else held.to_host_here(value)
