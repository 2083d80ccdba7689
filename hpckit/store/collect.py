"""The end of a farm: results.h5 from all that is sealed, and the manifest as it ended."""

from __future__ import annotations

import sys
from typing import Any

from hpckit.errors import ReduceError, StoreError
from hpckit.store.block import TaskState
from hpckit.store.create import Run
from hpckit.store.gpus import accounts, remove_accounts
from hpckit.store.manifest import Manifest, State
from hpckit.store.merging import Merge
from hpckit.store.results import assemble, attributes_of_none, task_states
from hpckit.store.segments import set_aside_damaged
from hpckit.store.shares import element_ends


def collect(
    run: Run,
    manifest: Manifest,
    seconds: float,
    *,
    if_missing: tuple[State, str] | None = None,
    **changes: Any,
) -> Manifest:
    """Write results.h5 and the final manifest, which is returned; for whoever holds the run.

    Parameters
    ----------
    seconds
        That the session took.
    if_missing
        The state, and the reason for it, if some task has no result.
    changes
        Further fields of the manifest.

    Raises
    ------
    StoreError
        A sealed file does not read back, or a new one cannot be written; what is sealed stays.
    ReduceError
        Results cannot be merged into one; the run has failed then, and what is sealed stays.
    """
    states = task_states(run.dir, len(run.sweep))
    counts = {s.name.lower(): int((states == s).sum()) for s in TaskState}
    state, reason = _ending(counts, len(states), if_missing)
    changes |= {"gpus": [*manifest.gpus, *accounts(run.dir.gpus)]}
    final = manifest.ended(state, reason, seconds, counts=counts, **changes)
    try:
        merge = Merge.of(run.job)
        assemble(run.dir, run.sweep, final.to_public_json(), run.job.attrs, merge)
    except ReduceError as error:
        failed = manifest.ended(State.FAILED, str(error), seconds, counts=counts, **changes)
        failed.write(run.dir.manifest)
        remove_accounts(run.dir.gpus)
        raise
    for name in attributes_of_none(run.dir.results, run.job.attrs):
        print(
            f"hpckit: attrs: {name!r} is neither a parameter nor a returned field", file=sys.stderr
        )
    final.write(run.dir.manifest)
    run.dir.progress.unlink(missing_ok=True)
    remove_accounts(run.dir.gpus)
    return final


def collect_array(
    run: Run, outcome: dict[str, int], if_missing: tuple[State, str] | None = None
) -> Manifest:
    """Collect what the elements of a run's latest submission have sealed, once they have ended.

    Parameters
    ----------
    outcome
        How many elements ended in each class.
    if_missing
        As `collect` has it.

    Raises
    ------
    StoreError
        As `collect`.
    """
    latest = run.manifest.submissions[-1].model_copy(update={"outcome": outcome})
    ends = [end for end in element_ends(run.dir) if end.session == latest.session]
    seconds = 0.0
    if ends:
        seconds = max(e.begun + e.seconds for e in ends) - min(e.begun for e in ends)
    used = {
        "cpu_seconds": sum(e.cpu_seconds for e in ends),
        "children_peak_bytes": max((e.peak_bytes for e in ends), default=0.0),
    }
    nodes = {end.host: end.cpu for end in ends}
    software = next((end.software for end in ends if end.software), {})
    before = run.manifest.environment
    environment = {**before, **software, "nodes": dict(sorted(nodes.items()))}
    manifest = run.manifest.with_submission(latest, environment=environment)
    try:
        return collect(run, manifest, seconds, if_missing=if_missing, usage=used)
    except StoreError:
        damaged = set_aside_damaged(run.dir.segments)
        if not damaged:
            raise
    for path in damaged:
        print(f"hpckit: {path} is damaged: its tasks count as missing", file=sys.stderr)
    return collect(run, manifest, seconds, if_missing=if_missing, usage=used)


def _ending(
    counts: dict[str, int], tasks: int, if_missing: tuple[State, str] | None
) -> tuple[State, str | None]:
    if counts["missing"]:
        told = f"{counts['missing']} of {tasks} tasks are missing"
        return if_missing or (State.INTERRUPTED, told)
    if counts["failed"]:
        return State.FAILED, f"{counts['failed']} of {tasks} tasks failed"
    return State.COMPLETED, None
