"""Waiting for what comes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from cluster.errors import ClusterError


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise ClusterError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.02)
