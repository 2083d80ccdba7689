"""What tasks and ranks printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpckit.store.failure import read_failure
from hpckit.store.rundir import RunDir


@dataclass(frozen=True)
class Section:
    """Lines under a heading; `left_out` more stand before them."""

    heading: str
    lines: list[str]
    left_out: int = 0


def all_logs(run: RunDir, limit: int | None) -> Iterator[Section]:
    """Yield the last `limit` lines of each log, then why a rank failed."""
    for path in sorted(run.logs.glob("*.log")):
        if lines := _lines(path):
            yield _section(path, lines, limit)
    yield from _failure(run)


def rank_log(run: RunDir, rank: int, limit: int | None) -> Iterator[Section]:
    """Yield the log of one rank, then why it failed; nothing if it printed nothing."""
    path = _rank_path(run, rank)
    if path.is_file():
        yield _section(path, _lines(path), limit)
    yield from _failure(run, rank)


def task_log(run: RunDir, index: int, limit: int | None) -> Iterator[Section]:
    """Yield the lines that one task printed, by the log they lie in."""
    prefix = re.compile(rf"\[{index}\] ?")
    for path in sorted(run.logs.glob("*.log")):
        found = [line for line in _lines(path) if prefix.match(line)]
        if found:
            yield _section(path, [prefix.sub("", line, count=1) for line in found], limit)


def _failure(run: RunDir, rank: int | None = None) -> Iterator[Section]:
    """Yield why the first rank failed, or `rank` if it was that, unless its log ends with it."""
    failure = read_failure(run.failure)
    if failure is None or rank not in (None, failure.rank):
        return
    path = _rank_path(run, failure.rank)
    printed = path.read_text(errors="replace") if path.is_file() else ""
    if failure.text not in printed:
        yield Section(f"failure of rank {failure.rank}", failure.text.splitlines())


def _rank_path(run: RunDir, rank: int) -> Path:
    return run.log(f"rank-{rank:05d}")


def _section(path: Path, lines: list[str], limit: int | None) -> Section:
    left_out = 0 if limit is None else max(len(lines) - limit, 0)
    return Section(path.name, lines[left_out:], left_out)


def _lines(path: Path) -> list[str]:
    # Logs are bounded when they are written: one fits into memory. Progress bars end their
    # lines with a carriage return, which must not count as the end of a task's line.
    lines = path.read_bytes().decode(errors="replace").split("\n")
    return lines if lines[-1] else lines[:-1]
