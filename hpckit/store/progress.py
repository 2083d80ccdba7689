"""How far a run is: for the terminal that started it, and for `hpckit status` elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hpckit.spec.messages import counted

PUBLISH_SECONDS = 1.0


@dataclass(frozen=True)
class Muster:
    """How many workers there are of an engine whose workers come and go.

    Attributes
    ----------
    wanted
        For the work that is left.
    queued
        Whose batch jobs have not begun to work.
    lost
        Batch jobs that ended before they were to.
    """

    wanted: int = 0
    queued: int = 0
    running: int = 0
    lost: int = 0

    def __str__(self) -> str:
        told = [f"{self.running} of {self.wanted} workers"]
        told += [f"{self.queued} queued"] if self.queued else []
        told += [f"{counted(self.lost, 'job')} lost"] if self.lost else []
        return ", ".join(told)


@dataclass(frozen=True)
class Progress:
    """How far a run is, in tasks or steps.

    Attributes
    ----------
    before
        How many of those done or failed were so when this session began.
    seconds
        Since then.
    reason
        Why the first task of this session that failed did: a traceback, or the end of one.
    muster
        Of workers that come and go.
    """

    done: int
    failed: int
    total: int
    seconds: float
    before: int = 0
    reason: str | None = None
    muster: Muster | None = None


Report = Callable[[Progress], None]


class Publisher:
    """Hands progress on to a report and, each second, to a small file."""

    def __init__(self, path: Path | None, report: Report, before: int = 0) -> None:
        self.path = path
        self.report = report
        self.before = before
        self.begun = time.monotonic()
        self.published_at = 0.0

    def publish(
        self,
        done: int,
        failed: int,
        total: int,
        reason: str | None = None,
        muster: Muster | None = None,
    ) -> None:
        """Tell how far the run is."""
        now = time.monotonic()
        progress = Progress(done, failed, total, now - self.begun, self.before, reason, muster)
        self.report(progress)
        if self.path is not None and now - self.published_at >= PUBLISH_SECONDS:
            self.published_at = now
            # Losing this file loses nothing: a full disk must not end the run here.
            with suppress(OSError):
                temporary = self.path.with_suffix(".tmp")
                temporary.write_text(json.dumps(asdict(progress)))
                temporary.replace(self.path)


def read_progress(path: Path) -> Progress | None:
    """Read the small file; None where there is none."""
    try:
        told = json.loads(path.read_text())
        muster = told.pop("muster", None)
        return Progress(**told, muster=None if muster is None else Muster(**muster))
    except (OSError, ValueError, TypeError):
        return None


def silent(progress: Progress) -> None:
    """Report nothing."""
