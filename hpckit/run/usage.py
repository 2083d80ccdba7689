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
    cpu_seconds
        User and system time of all of them.
    peak_bytes, children_peak_bytes
        The most memory at a time: the process's, and that of the largest child.
    """

    pid: int
    cpu_seconds: float
    peak_bytes: int
    children_peak_bytes: int

    @classmethod
    def by_this_process(cls) -> Used:
        """Ask the kernel."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(
            os.getpid(),
            _cpu_seconds(resource.RUSAGE_SELF) + _cpu_seconds(resource.RUSAGE_CHILDREN),
            own.ru_maxrss * _MAXRSS_BYTES,
            children.ru_maxrss * _MAXRSS_BYTES,
        )


def usage(workers: Mapping[int, Used] | None = None) -> dict[str, float]:
    """Return CPU seconds and peak memory in bytes of this process and of those that it had.

    Parameters
    ----------
    workers
        By process id, the last word of workers in other processes. What one used after that is
        counted only if this process has waited for it, or whoever started it and was waited for.
    """
    own = Used.by_this_process()
    others = [used for pid, used in (workers or {}).items() if pid != own.pid]
    peaks = [max(used.peak_bytes, used.children_peak_bytes) for used in others]
    # Workers that have ended and were waited for are in the time of the children already.
    children = _cpu_seconds(resource.RUSAGE_CHILDREN)
    uncounted = max(sum(used.cpu_seconds for used in others) - children, 0.0)
    return {
        "cpu_seconds": own.cpu_seconds + uncounted,
        "driver_peak_bytes": own.peak_bytes,
        "children_peak_bytes": max([own.children_peak_bytes, *peaks]),
    }


def _cpu_seconds(who: int) -> float:
    counted = resource.getrusage(who)
    return counted.ru_utime + counted.ru_stime
