"""Durations and moments, read and written as Slurm does."""

from __future__ import annotations

import re
import time

_LIMIT = re.compile(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})")


def limit(text: str) -> float | None:
    """Read a time limit in seconds; None for no limit, ValueError if it is none."""
    if text.upper() in ("INFINITE", "UNLIMITED", "-1"):
        return None
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    parts = [int(part) for part in match["rest"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    days = int(match["days"] or 0)
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds) or None


def shown(seconds: float | None) -> float | None:
    """Return a time limit in whole minutes, which is all that Slurm knows."""
    return seconds if seconds is None else -(-seconds // 60) * 60


def short(seconds: float | None) -> str:
    """Write a duration as squeue does: `1:05`, `1-00:00:00`."""
    if seconds is None:
        return "UNLIMITED"
    days, hours, minutes, left = _parts(seconds)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{left:02}"
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def long(seconds: float | None) -> str:
    """Write a duration as sacct does: `00:01:05`."""
    if seconds is None:
        return "UNLIMITED"
    days, hours, minutes, left = _parts(seconds)
    return f"{f'{days}-' if days else ''}{hours:02}:{minutes:02}:{left:02}"


def cpu(seconds: float) -> str:
    """Write a time of the CPU as sacct does: `00:01.250`."""
    if seconds < 0.001:
        return "00:00:00"
    if seconds >= 3600:
        return long(seconds)
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}.{int(seconds * 1000) % 1000:03}"


def stamp(moment: float) -> str:
    """Write a moment."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(moment))


def _parts(seconds: float) -> tuple[int, int, int, int]:
    whole = int(seconds)
    return whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
