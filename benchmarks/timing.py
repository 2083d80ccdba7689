"""Fresh processes, timed in turn, so that what the machine does meanwhile meets all alike."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Sequence


def wall(argv: Sequence[str], **options: object) -> float:
    """Return the seconds that a command takes; it must succeed."""
    begun = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True, **options)  # type: ignore[call-overload]
    return time.perf_counter() - begun


def medians(
    commands: dict[str, Sequence[str]], repeats: int, **options: object
) -> dict[str, float]:
    """Return the median seconds of each command over some rounds, after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(repeats + 1):
        for name, argv in commands.items():
            spent = wall(argv, **options)
            if turn:
                seconds[name].append(spent)
    return {name: statistics.median(values) for name, values in seconds.items()}


def row(measure: str, value: str, target: str, held: bool) -> None:
    """Print a line of the table."""
    print(f"| {measure} | {value} | {target} | {'yes' if held else 'NO'} |", flush=True)


def header() -> None:
    """Print the head of the table."""
    print("| measure | measured | target | held |\n|---|---|---|---|")
