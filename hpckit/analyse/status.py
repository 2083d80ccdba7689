"""How far a run is, and how it goes on."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from hpckit.analyse.counts import Counts, left_out, sealed_counts
from hpckit.analyse.values import duration, headline
from hpckit.jobstates import JobState, Standing
from hpckit.store import manifest as manifests
from hpckit.store.contact import forwarding
from hpckit.store.failure import read_failure
from hpckit.store.manifest import Manifest, State
from hpckit.store.progress import Muster, Progress, read_progress
from hpckit.store.rundir import RunDir, runs_root


@dataclass(frozen=True)
class Status:
    """The state of a run now.

    Attributes
    ----------
    seconds
        Wall time over all sessions, the present one included.
    counts
        The sealed tasks of a farm; None for an spmd run.
    progress
        What a run that goes on told last.
    standing
        How its jobs stand, while a scheduler has them.
    rate, left
        Tasks or steps a second, and the seconds to the end; None where that is not known.
    next
        How to go on, a command; None where nothing is to be done.
    merged
        Of a farm whose results are merged: how many tasks are not in it, in words.
    muster
        How many workers there are, where they come and go.
    dashboard
        The line that forwards dask's.
    """

    id: str
    state: State
    reason: str | None
    seconds: float
    sessions: int
    ranks: int | None
    counts: Counts | None
    progress: Progress | None
    rate: float | None
    left: float | None
    next: str | None
    standing: Standing | None = None
    merged: str | None = None
    muster: Muster | None = None
    dashboard: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON's types; tasks or steps under ``done``, ``failed`` and ``total``."""
        done, failed, total = self.extent()
        return {
            "id": self.id,
            "state": shown_state(self.state, self.standing),
            "reason": self.reason,
            "seconds": self.seconds,
            "sessions": self.sessions,
            "ranks": self.ranks,
            "unit": "task" if self.counts else "step",
            "done": done,
            "failed": failed,
            "total": total,
            "sealed": self.counts.done + self.counts.failed if self.counts else None,
            "rate": self.rate,
            "seconds_left": self.left,
            "jobs": self._jobs(),
            "dashboard": self.dashboard,
            "workers": None if self.muster is None else asdict(self.muster),
            "waits_for": self.standing.waits_for if self.standing else None,
            "next": self.next,
        }

    def _jobs(self) -> dict[str, int]:
        """Return how many jobs or elements there are of each class."""
        counts = self.standing.counts() if self.standing else {}
        return {str(state): counts[state] for state in JobState if counts.get(state)}

    def extent(self) -> tuple[int | None, int | None, int | None]:
        """Return how many tasks or steps are done and failed, and how many there are."""
        if self.progress is not None:
            return self.progress.done, self.progress.failed, self.progress.total
        if self.counts is not None:
            return self.counts.done, self.counts.failed, self.counts.total
        return None, None, None

    def facts(self) -> list[tuple[str, str]]:
        """Return what there is to say, as labels and texts."""
        state = shown_state(self.state, self.standing)
        facts = [("state", said(state, self.reason))]
        facts += self._queue()
        unit = "tasks" if self.counts else "steps"
        done, failed, total = self.extent()
        if done is not None and total:
            text = f"{done} of {total} done" + (f", {failed} failed" if failed else "")
            share = f" ({(done + (failed or 0)) / total:.0%})" if self.progress else ""
            facts.append((unit, text + share))
        if self.merged:
            facts.append(("merged", self.merged))
        if self.counts and self.progress and self.counts.done != done:
            facts.append(("sealed", f"{self.counts.done + self.counts.failed} tasks"))
        if self.ranks:
            facts.append(("ranks", str(self.ranks)))
        again = f" in {self.sessions} sessions" if self.sessions > 1 else ""
        if self.seconds or self.standing is None:
            facts.append(("time", duration(self.seconds) + again))
        if self.muster:
            facts.append(("workers", str(self.muster)))
        if self.dashboard:
            facts.append(("dashboard", self.dashboard))
        if self.rate is not None:
            facts.append(("rate", f"{self.rate:.3g} {unit}/s"))
        if self.left is not None:
            facts.append(("left", f"about {duration(self.left)}"))
        if self.next:
            facts.append(("go on with", self.next))
        return facts

    def _queue(self) -> list[tuple[str, str]]:
        """Return what the scheduler says, in words."""
        if self.standing is None:
            return []
        jobs = ", ".join(f"{count} {state}" for state, count in self._jobs().items())
        facts = [("jobs", jobs)] if len(self.standing.jobs) > 1 else []
        if self.standing.waits_for:
            facts.append(("waits for", self.standing.waits_for))
        if self.standing.doubt:
            facts.append(("unsure", self.standing.doubt))
        return facts


def said(state: str, reason: str | None) -> str:
    """Return a state with the reason for it, which may begin with the same word."""
    if not reason:
        return state
    return reason if reason.startswith((f"{state}:", f"{state} (")) else f"{state}: {reason}"


def shown_state(state: State, standing: Standing | None) -> str:
    """Return the word for a run's state: the scheduler's class as long as it has the run."""
    if standing is None:
        return str(state)
    if standing.has_ended and standing.trouble is None:
        return str(JobState.COMPLETED)
    return str(standing.state)


def status(run: RunDir, standing: Standing | None = None) -> Status:
    """Look at a run.

    Parameters
    ----------
    standing
        How its jobs stand, while a scheduler has them.

    Raises
    ------
    StoreError
        The manifest does not read.
    """
    manifest = manifests.read(run.manifest)
    state = manifest.effective_state()
    counts = sealed_counts(run, manifest) if manifest.job.kind == "farm" else None
    progress = read_progress(run.progress) if state is State.RUNNING else None
    told = progress or (read_progress(run.progress) if _is_driven(manifest, standing) else None)
    rate = _rate(manifest, told)
    return Status(
        manifest.id,
        state,
        reason(run, manifest, state),
        elapsed(run, manifest, state),
        manifest.sessions,
        manifest.ranks,
        counts,
        progress,
        rate,
        None if told is None or not rate else _left(told) / rate,
        next_step(run, manifest, state, counts),
        standing,
        None if progress else left_out(manifest, counts),
        told.muster if told else None,
        forwarding(run.contact) if told else None,
    )


def _is_driven(manifest: Manifest, standing: Standing | None) -> bool:
    """Tell whether a submitted run's driver is at work, whose workers are other jobs."""
    return (
        manifest.elastic is not None and standing is not None and standing.state is JobState.RUNNING
    )


def elapsed(run: RunDir, manifest: Manifest, state: State) -> float:
    """Return the wall time in seconds over all sessions, that of a running one included."""
    if manifest.state is not State.RUNNING:
        return manifest.seconds
    if state is State.RUNNING and manifest.driver is not None:
        return manifest.seconds + max(time.time() - manifest.driver.started, 0.0)
    # The driver died without a word: what it told last is all that is known.
    told = read_progress(run.progress)
    return manifest.seconds + (told.seconds if told else 0.0)


def next_step(run: RunDir, manifest: Manifest, state: State, counts: Counts | None) -> str | None:
    """Return the command that ends what is missing of a run, or failed."""
    if state in (State.SUBMITTED, State.RUNNING, State.COMPLETED):
        return None
    if counts is not None and not counts.missing and run.results.is_file():
        return f"hpckit retry {reference(run)}" if counts.failed else None
    return f"hpckit resume {reference(run)}"


def reason(run: RunDir, manifest: Manifest, state: State) -> str | None:
    """Say in one line why a run did not complete."""
    failure = read_failure(run.failure) if state is State.FAILED else None
    if failure is not None:
        return f"rank {failure.rank}: {headline(failure.text).removeprefix('hpckit: ')}"
    if state is State.INTERRUPTED and manifest.state is State.RUNNING:
        return "the process that worked on it has died"
    told = manifest.reason and manifest.reason != str(state)
    return headline(str(manifest.reason)) if told else None


def reference(run: RunDir) -> str:
    """Return what names a run on a command line here: its id, or else its path."""
    known = run.path.parent == runs_root(None).resolve()
    return run.id if known else str(run.path)


def _rate(manifest: Manifest, progress: Progress | None) -> float | None:
    # Where a resumed program of ranks took up its steps, only its checkpoint knows.
    restored = manifest.job.kind == "spmd" and manifest.sessions > 1
    if progress is None or restored or progress.seconds <= 0:
        return None
    done = progress.done + progress.failed - progress.before
    return done / progress.seconds if done else None


def _left(progress: Progress) -> int:
    return max(progress.total - progress.done - progress.failed, 0)
