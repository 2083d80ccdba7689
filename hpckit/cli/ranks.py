"""The ranks of an spmd run, started by mpiexec and watched to their end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import click

from hpckit.cli.terminal import progress_shown
from hpckit.errors import HpckitError, Interrupted, LaunchError, StoreError, UsageError
from hpckit.store import manifest as manifests
from hpckit.store.create import Run
from hpckit.store.failure import Failure, read_failure
from hpckit.store.image import ImageRecord, to_enter
from hpckit.store.lock import driving, wait_for_ranks
from hpckit.store.manifest import Manifest, State
from hpckit.store.rundir import RunDir
from hpckit.submit.local import launch_line, run_ranks

ORPHAN_SECONDS = 15.0
"""What a launcher may take to end its ranks after its driver was killed."""


def work_ranks(run: Run, ranks: int | None) -> Manifest:
    """Run the ranks of an spmd job; return the final manifest.

    Raises
    ------
    UsageError
        The job refuses its parameters.
    HpckitError
        The run failed; the message is what the user must see.
    Interrupted
        Ctrl-C or SIGTERM.
    """
    ranks = ranks or run.manifest.ranks or run.job.resources.ntasks
    if to_enter(run.manifest.image) is not None:
        from hpckit.image.apptainer import find_apptainer

        find_apptainer()
    argv = launch_line(run, ranks)
    begun = time.monotonic()
    with driving(run.dir, _patience(run)) as held:
        wait_for_ranks(run.dir, ORPHAN_SECONDS)
        if _is_complete(run):
            # The ranks of a driver that was killed came to their end in the meantime.
            return manifests.read(run.dir.manifest)
        run.dir.remove_leftovers()
        before = _Before.of(run.dir)
        started = run.manifest.started(ranks=ranks, launcher=argv)
        started.write(run.dir.manifest)
        run.dir.failure.unlink(missing_ok=True)
        try:
            with progress_shown(run.manifest.job.name) as terminal:
                code, said = run_ranks(
                    run.dir,
                    argv,
                    ranks,
                    report=terminal.report,
                    echo=terminal.echo,
                    threads=run.job.resources.cpus_per_task,
                    image=run.manifest.image,
                    keep_open=(held,),
                )
        except KeyboardInterrupt:
            # The ranks may have come to their end before the signal did.
            if not _is_complete(run):
                _end(run, started, begun, State.INTERRUPTED, "interrupted", {})
                raise Interrupted(resume_hint(run)) from None
            code, said = 0, []
        return _ended(run, before, started, begun, code, said)


@dataclass(frozen=True)
class _Before:
    """What stood in a run's directory before a session began."""

    manifest: Manifest
    failure: Failure | None

    @classmethod
    def of(cls, run: RunDir) -> _Before:
        return cls(manifests.read(run.manifest), read_failure(run.failure))

    def put_back(self, run: RunDir) -> None:
        """Leave the run as if the session had not been."""
        run.failure.unlink(missing_ok=True)
        if self.failure is not None:
            self.failure.leave(run.failure)
        with suppress(StoreError):
            self.manifest.write(run.manifest)


def resume_hint(run: Run) -> str:
    """Return what to say of a run of ranks that was interrupted."""
    at = "its last checkpoint" if run.dir.checkpoint.is_dir() else "the start"
    return f"interrupted\ngo on from {at} with: hpckit resume {run.dir.path}"


def _ended(
    run: Run, before: _Before, started: Manifest, begun: float, code: int, said: Sequence[str]
) -> Manifest:
    """Return the final manifest, or raise what ended the ranks."""
    exits = {"mpiexec": code}
    if _is_complete(run):
        seconds = run.manifest.seconds + time.monotonic() - begun
        final = manifests.read(run.dir.manifest).updated(exits=exits, seconds=seconds)
        final.write(run.dir.manifest)
        return final
    from hpckit.analyse.values import headline

    failure = read_failure(run.dir.failure)
    is_new = run.manifest.sessions == 1
    refused = failure is not None and failure.exit_code == UsageError.exit_code
    if failure is not None and refused and not (is_new and run.dir.holds_work()):
        before.put_back(run.dir)
        raise UsageError(failure.text.removeprefix("hpckit: "))
    reason = _reason(run.manifest.image, failure, said, code)
    interrupted = failure is not None and failure.exit_code == Interrupted.exit_code
    # On a full disk the reason is worth more than that it cannot be written.
    with suppress(StoreError):
        state = State.INTERRUPTED if interrupted else State.FAILED
        _end(run, started, begun, state, headline(reason), exits)
    if interrupted:
        raise Interrupted(resume_hint(run))
    raise _failed(run, failure, reason)


def _is_complete(run: Run) -> bool:
    ended = manifests.read(run.dir.manifest).state is State.COMPLETED
    return ended and run.dir.results.is_file()


def _patience(run: Run) -> float:
    """Return how long to wait for the ranks of a driver that was killed; they end by themselves."""
    orphaned = run.manifest.effective_state() is State.INTERRUPTED
    return ORPHAN_SECONDS if orphaned else 0.0


def _reason(
    image: ImageRecord | None, failure: Failure | None, said: Sequence[str], code: int
) -> str:
    if failure is not None:
        return failure.text
    # A rank that could not leave its failure, on a full disk say, has told it on stderr.
    told = [line for line in said if line.startswith("hpckit: ")]
    if told:
        return told[0]
    unknown = f"the ranks ended with exit status {code} and left no reason"
    if image is not None:
        unknown += f" (`hpckit image check {image.path}` says whether its MPI fits the launcher)"
    return "\n".join([f"{unknown}; the launcher's last words:", *said] if said else [unknown])


def _failed(run: Run, failure: Failure | None, reason: str) -> Exception:
    """Return what ends hpckit with a reason, after printing it if it is a traceback."""
    if failure is not None and not failure.text.startswith("hpckit: "):
        # A traceback of the job's own code: the last thing that is printed.
        click.echo(f"{run.dir.id}: rank {failure.rank} failed:", err=True)
        click.echo(failure.text, err=True)
        return click.exceptions.Exit(HpckitError.exit_code)
    return LaunchError(reason.removeprefix("hpckit: "))


def _end(
    run: Run, started: Manifest, begun: float, state: State, reason: str, exits: dict[str, int]
) -> None:
    ended = started.ended(state, reason, time.monotonic() - begun, exits=exits)
    ended.write(run.dir.manifest)
