"""hpckit logs: what tasks and ranks printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpckit.cli.options import output_option, run_argument
from hpckit.errors import UsageError
from hpckit.store import manifest as manifests
from hpckit.store.rundir import RunDir, find, runs_root
from hpckit.submit.settle import settled

if TYPE_CHECKING:
    from hpckit.analyse.runlogs import Section

LINES = 100

ASK_SECONDS = 10.0
"""Between two questions to a scheduler."""


@click.command(help="Print what a run's tasks or ranks printed.")
@run_argument
@click.option("--task", type=click.IntRange(0), metavar="N", help="One task alone.")
@click.option("--rank", type=click.IntRange(0), metavar="N", help="One rank alone.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(1),
    default=LINES,
    show_default=True,
    metavar="N",
    help="The last lines of each log.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run has ended.")
@click.option("--all", "everything", is_flag=True, help="All lines.")
@output_option
def command(
    run: str,
    task: int | None,
    rank: int | None,
    lines: int,
    follow: bool,
    everything: bool,
    output: Path | None,
) -> None:
    """Print logs under a heading a file, and the traceback of a task or rank that failed."""
    if task is not None and rank is not None:
        raise UsageError("--task and --rank exclude each other: a farm has tasks, spmd has ranks")
    found = find(run, runs_root(output))
    if follow:
        if task is not None or rank is not None:
            raise UsageError("--follow prints all logs: leave --task and --rank")
        _follow(found, None if everything else lines)
        return
    limit = None if everything else lines
    if not _print_all(_sections(found, task, rank, limit)):
        failed = manifests.read(found.manifest).counts.get("failed", 0)
        why = f"; {failed} of its tasks failed, and --task N says why" if failed else ""
        click.echo(f"{found.id}: nothing was printed{why}")


def _sections(
    run: RunDir, task: int | None, rank: int | None, limit: int | None
) -> Iterable[Section]:
    from hpckit.analyse.runlogs import all_logs, rank_log

    manifest = manifests.read(run.manifest)
    if task is not None:
        if manifest.job.kind != "farm":
            raise UsageError(f"--task: {run.id} is an spmd run, which has ranks: use --rank N")
        return _task_sections(run, task, manifest.job.tasks, limit)
    if rank is not None:
        if manifest.job.kind != "spmd":
            raise UsageError(f"--rank: {run.id} is a farm, which has tasks: use --task N")
        if manifest.ranks is not None and rank >= manifest.ranks:
            raise UsageError(f"rank {rank}: {run.id} has the ranks 0 to {manifest.ranks - 1}")
        return rank_log(run, rank, limit)
    return all_logs(run, limit)


def _task_sections(run: RunDir, task: int, count: int, limit: int | None) -> Iterable[Section]:
    from hpckit.analyse.runlogs import Section, task_log
    from hpckit.analyse.tasks import task_error

    error = task_error(run, task, count)
    yield from task_log(run, task, limit)
    if error is not None:
        yield Section(f"why task {task} failed", error.splitlines())


def _follow(run: RunDir, limit: int | None) -> None:
    """Print what comes into the logs, under a heading wherever the log changes."""
    from hpckit.analyse.follow import follow
    from hpckit.cli.console import print_heading

    last = None
    for section in follow(run, limit, _end_of(run)):
        if section.heading != last:
            print_heading(f"── {section.heading}")
            last = section.heading
        for line in section.lines:
            click.echo(line)
    click.echo(f"{run.id}: {manifests.read(run.manifest).effective_state()}", err=True)


def _end_of(run: RunDir) -> Callable[[], bool]:
    """Return what tells whether a run has ended; it asks the scheduler now and then."""
    asked_at = -ASK_SECONDS

    def has_ended() -> bool:
        nonlocal asked_at
        if time.monotonic() - asked_at > ASK_SECONDS:
            asked_at = time.monotonic()
            return not settled(run).effective_state().is_open
        manifest = manifests.read(run.manifest)
        return not manifest.effective_state().is_open

    return has_ended


def _print_all(sections: Iterable[Section]) -> int:
    from hpckit.cli.console import print_heading

    count = 0
    for section in sections:
        if count:
            click.echo()
        print_heading(f"── {section.heading}")
        if section.left_out:
            click.echo(f"… {section.left_out} lines before these (--all prints them)")
        for line in section.lines:
            click.echo(line)
        count += 1
    return count
