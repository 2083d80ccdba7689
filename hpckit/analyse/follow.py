"""Logs as they grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hpckit.analyse.runlogs import Section
from hpckit.store.rundir import RunDir

POLL_SECONDS = 0.5
MOST_BYTES = 1 << 20
"""Of a log are read at a time."""


def follow(run: RunDir, limit: int | None, has_ended: Callable[[], bool]) -> Iterator[Section]:
    """Yield whole lines as they come into any of a run's logs, until the run has ended.

    Parameters
    ----------
    limit
        Of the lines that are there at first, the last of each log; None stands for all.
    has_ended
        Asked again and again; the logs are read once more after it has said yes.
    """
    read: dict[Path, int] = {}
    ended = False
    while True:
        news = False
        for path in sorted(run.logs.glob("*.log")):
            is_first = path not in read
            lines, read[path] = _new_lines(path, read.get(path, 0), ended)
            if is_first and limit is not None:
                lines = lines[-limit:]
            if lines:
                news = True
                yield Section(path.name, lines)
        if ended and not news:
            return
        if not news:
            ended = has_ended()
            time.sleep(0 if ended else POLL_SECONDS)


def _new_lines(path: Path, start: int, to_the_end: bool) -> tuple[list[str], int]:
    """Return the whole lines after a position, and the position after them."""
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(MOST_BYTES)
    whole = len(data) if to_the_end or len(data) == MOST_BYTES else data.rfind(b"\n") + 1
    text = data[:whole].decode(errors="replace")
    return text.splitlines(), start + whole
