"""Values as people read them, and as JSON takes them."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.store.columns import TEXT
from hpckit.units import Walltime

DIGITS = 6
TRACEBACK = "Traceback (most recent call last):"
TEXT_WIDTH = 32
SMALL_ARRAY = 3
"""Values up to which an array is shown whole."""


def shown(value: Any) -> str:
    """Return a scalar, a string or an array in one short line; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, np.ndarray):
        return _array(value) if value.ndim else shown(value.item())
    if isinstance(value, str):
        return shortened(printable(value), TEXT_WIDTH)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, complex):
        return f"{value.real:.{DIGITS}g}{value.imag:+.{DIGITS}g}j"
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    """Return text in one line, with what would move a terminal's cursor escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str, width: int) -> str:
    """Cut text to a width; of a path the end is kept, since that tells it from others."""
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if text.startswith("/") else f"{text[: width - 1]}…"


def shortest(path: Path) -> str:
    """Return a path as it is typed in the current directory: relative where it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def typed(dtype: np.dtype[Any], shape: tuple[int, ...] | None) -> str:
    """Return a type and a shape, such as ``float64 (21, 32)``; None is a ragged shape."""
    name = "text" if dtype == TEXT else dtype.name
    return f"{name} (ragged)" if shape is None else f"{name} {shape}" if shape else name


def headline(error: str) -> str:
    """Return the line of a traceback that names the exception; else a text's first line.

    What that announces with a colon is quoted in lines of its own, of which the last tells most.
    """
    lines = error.rstrip().splitlines() or [""]
    heads = [i for i, line in enumerate(lines) if line.startswith(TRACEBACK)]
    if heads:
        after = lines[heads[-1] + 1 :]
        return printable(next((line for line in after if not line.startswith(" ")), lines[-1]))
    announces = lines[0].endswith(":") and len(lines) > 1
    return printable(f"{lines[0]} {lines[-1].strip()}" if announces else lines[0])


def duration(seconds: float) -> str:
    """Return a length of time: seconds with a decimal below a minute, else hours on."""
    if not math.isfinite(seconds):
        return "?"
    return f"{seconds:.1f} s" if seconds < 59.95 else str(Walltime(round(seconds)))


def local_time(stamp: str) -> str:
    """Return an ISO time as the local one, to the minute."""
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return printable(stamp)


def jsonable(value: Any) -> Any:
    """Return a value in JSON's types, with all its digits.

    JSON has neither complex numbers nor NaN: a complex one becomes an object of ``real`` and
    ``imag``; NaN and infinities become the strings ``NaN``, ``Infinity`` and ``-Infinity``,
    which ``float()`` reads.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, complex):
        return {"real": jsonable(value.real), "imag": jsonable(value.imag)}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return value


def _array(values: NDArray[Any]) -> str:
    if values.ndim == 1 and 0 < values.size <= SMALL_ARRAY:
        return shortened(f"[{', '.join(map(shown, values.tolist()))}]", TEXT_WIDTH)
    size = "×".join(map(str, values.shape))
    if not values.size:
        return f"{size}: empty"
    if values.dtype == TEXT:
        return f"{size} strings"
    if values.dtype.kind == "b":
        return f"{size}: {np.count_nonzero(values)} true"
    return f"{size}: {_extent(values)}"


def _extent(values: NDArray[Any]) -> str:
    sign = "|z| " if values.dtype.kind == "c" else ""
    sizes = np.abs(values) if sign else values
    known = sizes[~np.isnan(sizes)] if sizes.dtype.kind == "f" else sizes
    if not known.size:
        return "all NaN"
    missing = values.size - known.size
    span = f"{sign}{shown(known.min())} … {shown(known.max())}"
    return f"{span}, {missing} NaN" if missing else span
