"""What is to be done about cards between tasks; it imports nothing where none is in use."""

from __future__ import annotations

import sys
from typing import Any

CARD = "hpckit.run.gpu.card"


def tell_of_gpu() -> None:
    """Leave word of what this thread's card did, if it has one."""
    if card := sys.modules.get(CARD):
        card.tell_here()


def has_lost_gpu() -> bool:
    """Tell whether an error has made this thread's card useless to the process."""
    card = sys.modules.get(CARD)
    return card is not None and card.is_lost_here()


def on_host(value: Any) -> Any:
    """Return a value that may be an array on the card as one of the host."""
    if not hasattr(value, "gpudata"):
        return value
    card = sys.modules.get(CARD)
    return value.get() if card is None else card.to_host_here(value)
