"""An array's indices, such as `0-9:2,12%4`, read and written as Slurm does."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
SHOWN = 64
"""Characters that Slurm shows of them, if $SLURM_BITSTR_LEN does not say otherwise."""


def array(text: str) -> tuple[list[int], int]:
    """Read an array's indices, and how many of them run at a time, 0 for all.

    Raises
    ------
    ValueError
        They are not of that form.
    """
    inside, _, throttle = text.replace("[", "").replace("]", "").partition("%")
    return numbers(inside), int(throttle or 0)


def numbers(text: str) -> list[int]:
    """Read indices; ValueError if they are none."""
    found: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or int(match[3] or 1) < 1:
            raise ValueError(text)
        chosen = range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
        if not chosen:
            raise ValueError(text)
        found.update(chosen)
    return sorted(found)


def show(chosen: Sequence[int], throttle: int) -> str:
    """Write sorted indices, cut as Slurm cuts them, and how many run at a time."""
    limit = int(os.environ.get("SLURM_BITSTR_LEN") or SHOWN)
    text = _steps(chosen) or ranges(chosen)
    if 0 < limit <= len(text):
        text = f"{text[: limit - 4]}..."
    return f"{text}%{throttle}" if throttle else text


def _steps(chosen: Sequence[int]) -> str | None:
    """Write indices that are all the same number apart; Slurm does from the sixth on."""
    if len(chosen) < 6 or chosen[-1] - chosen[0] <= 10:
        return None
    step = chosen[1] - chosen[0]
    if step == 1 or list(chosen) != list(range(chosen[0], chosen[-1] + 1, step)):
        return None
    return f"{chosen[0]}-{chosen[-1]}:{step}"


def ranges(chosen: Sequence[int]) -> str:
    """Write sorted numbers as `1,4-5`."""
    groups: list[list[int]] = []
    for number in chosen:
        if groups and groups[-1][-1] == number - 1:
            groups[-1][1:] = [number]
        else:
            groups.append([number])
    return ",".join("-".join(map(str, group)) for group in groups)
