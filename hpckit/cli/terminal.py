"""What long work shows: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hpckit.store.progress import Progress, Report

SOON_SECONDS = 3.0
"""A run that has ended by then tells its failures together."""

LINE_SECONDS = 10.0
"""Time between two lines where there is no terminal."""


class Terminal:
    """Shows progress on stderr, and lines of output beside it."""

    def __init__(self, show: Report) -> None:
        self._show = show
        self._has_failed = False

    def report(self, progress: Progress) -> None:
        """Show how far it is, and a long run's first failure at once: it may be every task's."""
        soon = progress.seconds < SOON_SECONDS
        if progress.reason is not None and not self._has_failed and not soon:
            from hpckit.analyse.values import headline

            self._has_failed = True
            print(f"the first failure: {headline(progress.reason)}", file=sys.stderr, flush=True)
        self._show(progress)

    def echo(self, line: str) -> None:
        """Print a line of the job's own, as long as anyone reads it."""
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # The run goes on, and Python must find nothing to flush into the pipe at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def progress_shown(what: str) -> Iterator[Terminal]:
    """Show the progress of `what` until the block ends."""
    if not sys.stderr.isatty():
        yield Terminal(lines(what))
        return
    with _bar(what) as terminal:
        yield terminal


def lines(what: str) -> Report:
    """Return a report that prints a line now and then."""
    return _Lines(what)


class _Lines:
    """Prints a line now and then."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.printed_at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.printed_at < LINE_SECONDS:
            return
        self.printed_at = now
        ended = progress.done + progress.failed
        what = f"{self.what}: {ended} of {progress.total}"
        if progress.failed:
            what += f", {progress.failed} of them failed"
        if progress.muster:
            what += f", {progress.muster}"
        print(f"{what}, {progress.seconds:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def _bar(what: str) -> Iterator[Terminal]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[workers]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task(what, total=None, failed="", workers="")

        def report(progress: Progress) -> None:
            bar.update(
                shown,
                completed=progress.done + progress.failed,
                total=progress.total,
                failed=f"{progress.failed} failed" if progress.failed else "",
                workers=str(progress.muster or ""),
            )

        yield Terminal(report)
