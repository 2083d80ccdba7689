"""The runs of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from hpckit.analyse.counts import Counts, sealed_counts
from hpckit.analyse.status import elapsed, shown_state
from hpckit.analyse.values import duration, local_time, printable
from hpckit.errors import StoreError
from hpckit.jobstates import Standing
from hpckit.spec.messages import counted
from hpckit.store import manifest as manifests
from hpckit.store.manifest import State
from hpckit.store.progress import read_progress
from hpckit.store.rundir import RunDir

DAMAGED = "damaged"


@dataclass(frozen=True)
class Listed:
    """A run in the list; `problem` says why the rest is not known."""

    id: str
    state: str
    job: str | None = None
    kind: str | None = None
    done: int | None = None
    failed: int | None = None
    total: int | None = None
    ranks: int | None = None
    created: str | None = None
    seconds: float | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return asdict(self)

    def cells(self) -> list[str]:
        """Return the texts for the table: id, state, work, failed, when, time, job."""
        return [
            printable(self.id),
            self.state,
            self._work(),
            str(self.failed or ""),
            local_time(self.created).removeprefix(f"{date.today():%Y-}") if self.created else "",
            duration(self.seconds) if self.seconds else "",
            printable(self.job or ""),
        ]

    def _work(self) -> str:
        if self.kind == "spmd":
            return "" if self.ranks is None else counted(self.ranks, "rank")
        if self.total is None:
            return ""
        return f"{'?' if self.done is None else self.done}/{self.total}"


def listed(runs: Sequence[RunDir], standings: Mapping[RunDir, Standing]) -> list[Listed]:
    """Describe runs; a damaged one is described as such.

    Parameters
    ----------
    standings
        How the jobs stand of those that are with a scheduler.
    """
    return [_listed(run, standings.get(run)) for run in runs]


def _listed(run: RunDir, standing: Standing | None) -> Listed:
    try:
        manifest = manifests.read(run.manifest)
    except StoreError as error:
        return Listed(run.id, DAMAGED, problem=str(error))
    state = manifest.effective_state()
    counts, problem = None, None
    if manifest.job.kind == "farm":
        try:
            counts = _counts(run, manifest, state)
        except (StoreError, OSError) as error:
            problem = str(error)
    return Listed(
        run.id,
        shown_state(state, standing),
        manifest.job.name,
        manifest.job.kind,
        counts.done if counts else None,
        counts.failed if counts else None,
        manifest.job.tasks if manifest.job.kind == "farm" else None,
        manifest.ranks,
        manifest.created,
        elapsed(run, manifest, state),
        problem,
    )


def _counts(run: RunDir, manifest: manifests.Manifest, state: State) -> Counts:
    progress = read_progress(run.progress) if state is State.RUNNING else None
    if progress is not None:
        return Counts(progress.done, progress.failed, progress.total)
    return sealed_counts(run, manifest)
