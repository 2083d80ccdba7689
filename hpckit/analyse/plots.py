"""Figures of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpckit.analyse.timeline import Steps, Timeline
from hpckit.errors import UsageError

POINTS = 4000
"""Of a curve: more would not be seen."""


def plot_course(timeline: Timeline, title: str, path: Path) -> None:
    """Draw how a farm went on, and how many workers it had, into a file of any common type.

    Raises
    ------
    UsageError
        There is no matplotlib, or it knows no such type, or the file cannot be written.
    """
    figure = new_figure(figsize=(8, 5.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(1, 2))
    _step(above, timeline.ended, color="black")
    above.set(ylabel="tasks ended", title=title)
    _step(below, timeline.busy, label="tasks at work", color="tab:blue", linewidth=0.8)
    styles = {"wanted": ":", "queued": "--", "running": "-"}
    for name, steps in timeline.trace.items():
        _step(below, steps, label=f"workers {name}", color="tab:orange", linestyle=styles[name])
    below.set(xlabel="seconds since the first task began", ylabel="at a time", ylim=(0, None))
    below.legend(loc="best")
    save_figure(figure, path)


def new_figure(**options: Any) -> Any:
    """Return an empty figure.

    Raises
    ------
    UsageError
        There is no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(
            f"figures need the package {error.name}: pip install 'hpckit[analysis]'"
        ) from None
    return Figure(**options)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure into a file, of the type that its name says.

    Raises
    ------
    UsageError
        matplotlib knows no such type, or the file cannot be written.
    """
    if not path.suffix:
        raise UsageError(f"{path}: the name says no type: end it with .png, .svg or .pdf, say")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UsageError(f"{path}: cannot be drawn: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: cannot be drawn: {error}") from None


def _step(axes: Any, steps: Steps, **style: Any) -> None:
    times, values = steps
    if len(times) > POINTS:
        chosen = np.linspace(0, len(times) - 1, POINTS).astype(int)
        times, values = times[chosen], values[chosen]
    axes.step(times, values, where="post", **style)
