"""What a run used, as the kernel counted it."""

from __future__ import annotations

import resource
import sys

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
"""getrusage(2) counts ru_maxrss in kB on Linux."""


def usage() -> dict[str, float]:
    """Return CPU seconds and peak memory in bytes of this process and of its ended children.

    The children's peak is that of the largest of them.
    """
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "driver_peak_bytes": own.ru_maxrss * _MAXRSS_BYTES,
        "children_peak_bytes": children.ru_maxrss * _MAXRSS_BYTES,
    }
