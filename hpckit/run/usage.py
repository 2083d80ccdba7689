"""What a run used, as the kernel counted it."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
"""getrusage(2) counts ru_maxrss in kB on Linux."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a process and its ended children have used so far.

    Attributes
    ----------
    pid
        The process.
    cpu_seconds, children_cpu_seconds
        User and system time of all of them, and of the children alone.
    peak_bytes, children_peak_bytes
        The most memory at a time: the process's, and that of the largest child.
    """

    pid: int
    cpu_seconds: float
    peak_bytes: int
    children_peak_bytes: int
    children_cpu_seconds: float = 0.0

    @classmethod
    def by_this_process(cls) -> Used:
        """Ask the kernel."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(
            os.getpid(),
            own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
            own.ru_maxrss * _MAXRSS_BYTES,
            children.ru_maxrss * _MAXRSS_BYTES,
            children.ru_utime + children.ru_stime,
        )


def usage(workers: Mapping[int, Used] | None = None) -> dict[str, float]:
    """Return CPU seconds and peak memory in bytes of this process and of those that it had.

    Parameters
    ----------
    workers
        By process id, the last word of each worker. Those that were children of this process are
        in the kernel's count of its children as well, once they were waited for; so the larger
        of both counts.
    """
    own = Used.by_this_process()
    others = [used for pid, used in (workers or {}).items() if pid != own.pid]
    peaks = [max(used.peak_bytes, used.children_peak_bytes) for used in others]
    return {
        "cpu_seconds": own.cpu_seconds
        - own.children_cpu_seconds
        + max(own.children_cpu_seconds, sum(used.cpu_seconds for used in others)),
        "driver_peak_bytes": own.peak_bytes,
        "children_peak_bytes": max([own.children_peak_bytes, *peaks]),
    }
