"""Work on a run in the foreground, whatever its shape, to its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpckit.cli.terminal import progress_shown
from hpckit.errors import HpckitError, Interrupted, LaunchError, StoreError, UsageError
from hpckit.store import manifest as manifests
from hpckit.store.create import Run
from hpckit.store.failure import Failure, read_failure
from hpckit.store.manifest import Driver, Manifest, State

if TYPE_CHECKING:
    from hpckit.store.block import TaskState

MAX_REASONS = 3

ORPHAN_SECONDS = 15.0
"""What a launcher may take to end its ranks after its driver was killed."""


def work(run: Run, *, engine: str | None, workers: int | None, ranks: int | None) -> Manifest:
    """Do what is missing of a run.

    Raises
    ------
    UsageError
        An option does not fit the job's shape, or the job refuses its parameters.
    HpckitError
        The run failed; the message is what the user must see.
    Interrupted
        Ctrl-C or SIGTERM.
    """
    from hpckit.store.block import TaskState

    if run.job.kind == "spmd":
        return _work_spmd(run, ranks)
    return work_farm_shown(run, engine, workers, frozenset({TaskState.MISSING}))


def check_options(kind: str, engine: str | None, workers: int | None, ranks: int | None) -> None:
    """Refuse options that a job of this shape cannot honour.

    Raises
    ------
    UsageError
        One of them was given.
    """
    if kind == "spmd" and (engine is not None or workers is not None):
        raise UsageError("--engine and --workers are for farms: an spmd job takes --ranks N")
    if kind == "farm" and ranks is not None:
        raise UsageError("--ranks is for spmd jobs: a farm takes --workers N")


def work_farm_shown(
    run: Run, engine: str | None, workers: int | None, again: frozenset[TaskState]
) -> Manifest:
    """Do the tasks of a farm that are in one of the states `again`, and show the progress."""
    from hpckit.run.engines import DEFAULT
    from hpckit.run.session import work_farm
    from hpckit.store.provenance import usable_cores

    engine = engine or run.manifest.engine or DEFAULT
    fitting = max(usable_cores() // run.job.resources.cpus_per_task, 1)
    workers = workers or run.manifest.workers or fitting
    with progress_shown(run.manifest.job.name) as terminal:
        return work_farm(run, engine, workers, terminal.report, again=again)


def summarise(run: Run, final: Manifest) -> int:
    """Print how a run ended, and return the exit code."""
    tasks = final.job.tasks
    failed = final.counts.get("failed", 0)
    what = f"{tasks - failed} of {tasks} tasks" if failed else f"{tasks} tasks"
    if run.job.kind == "spmd":
        what = "1 rank" if final.ranks == 1 else f"{final.ranks} ranks"
    elif tasks == 1:
        what = "1 task" if not failed else "0 of 1 task"
    click.echo(f"{final.id}: {what} done in {final.seconds:.1f} s")
    click.echo(f"results: {_shortest(run.dir.results)}")
    if failed:
        _print_failures(run, failed)
        return 3
    return 0


def _work_spmd(run: Run, ranks: int | None) -> Manifest:
    from hpckit.submit.local import launch_line, run_ranks

    ranks = ranks or run.manifest.ranks or run.job.resources.ntasks
    argv = launch_line(run.dir, ranks)
    begun = time.monotonic()
    with run.dir.lock(patience=_patience(run)) as held:
        run.dir.remove_leftovers()
        started = run.manifest.updated(
            state=State.RUNNING,
            reason=None,
            driver=Driver.this_process(),
            ranks=ranks,
            launcher=argv,
        )
        started.write(run.dir.manifest)
        run.dir.failure.unlink(missing_ok=True)
        try:
            with progress_shown(run.manifest.job.name) as terminal:
                code, said = run_ranks(
                    run.dir, argv, ranks, terminal.report, terminal.echo, keep_open=(held,)
                )
        except KeyboardInterrupt:
            _end(run, started, begun, State.INTERRUPTED, "interrupted", {})
            raise Interrupted(_resume_hint(run)) from None
        final = manifests.read(run.dir.manifest)
        if final.state is State.COMPLETED:
            final = final.updated(
                exits={"mpiexec": code}, seconds=run.manifest.seconds + time.monotonic() - begun
            )
            final.write(run.dir.manifest)
            return final
        from hpckit.analyse.values import headline

        failure = read_failure(run.dir.failure)
        reason = _reason(failure, said, code)
        # On a full disk the reason is worth more than that it cannot be written.
        with suppress(StoreError):
            _end(run, started, begun, State.FAILED, headline(reason), {"mpiexec": code})
        raise _failed(failure, reason)


def _patience(run: Run) -> float:
    """Return how long to wait for the ranks of a driver that was killed; they end by themselves."""
    orphaned = run.manifest.effective_state() is State.INTERRUPTED
    return ORPHAN_SECONDS if orphaned else 0.0


def _reason(failure: Failure | None, said: Sequence[str], code: int) -> str:
    if failure is not None:
        return failure.text
    # A rank that could not leave its failure, on a full disk say, has told it on stderr.
    told = [line for line in said if line.startswith("hpckit: ")]
    unknown = f"hpckit: the ranks ended with exit status {code} and left no reason"
    return told[0] if told else "\n".join([*said, unknown])


def _failed(failure: Failure | None, reason: str) -> Exception:
    """Return what ends hpckit with a reason, after printing it if it is a traceback."""
    text = reason.removeprefix("hpckit: ")
    if failure is not None and failure.exit_code == UsageError.exit_code:
        return UsageError(text)
    if failure is not None and not failure.text.startswith("hpckit: "):
        # A traceback of the job's own code: the last thing that is printed.
        click.echo(f"rank {failure.rank} failed:", err=True)
        click.echo(failure.text, err=True)
        return click.exceptions.Exit(HpckitError.exit_code)
    return LaunchError(text)


def _end(
    run: Run, started: Manifest, begun: float, state: State, reason: str, exits: dict[str, int]
) -> None:
    started.updated(
        state=state,
        reason=reason,
        driver=None,
        finished=manifests.now(),
        seconds=run.manifest.seconds + time.monotonic() - begun,
        exits=exits,
    ).write(run.dir.manifest)


def _resume_hint(run: Run) -> str:
    at = "its last checkpoint" if run.dir.checkpoint.is_dir() else "the start"
    return f"interrupted\ngo on from {at} with: hpckit resume {run.dir.path}"


def _print_failures(run: Run, failed: int) -> None:
    from hpckit.analyse.values import headline
    from hpckit.store.failures import failed_tasks

    for task, text in failed_tasks(run.dir.results, MAX_REASONS):
        click.echo(f"task {task} failed: {headline(text)}", err=True)
    if failed > MAX_REASONS:
        click.echo(f"… and {failed - MAX_REASONS} more", err=True)
    click.echo(f"tracebacks: hpckit logs {run.dir.id} --task N", err=True)


def _shortest(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
