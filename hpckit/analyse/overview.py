"""What a run was and how it ended, in a few labelled lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpckit.analyse.counts import Counts, left_out
from hpckit.analyse.status import elapsed, next_step, reason, said, shown_state
from hpckit.analyse.values import duration, local_time, printable, shortened, shortest
from hpckit.jobstates import Standing
from hpckit.spec.messages import counted
from hpckit.store.manifest import Manifest, State
from hpckit.store.rundir import RunDir

PARAMETER_WIDTH = 60


def facts(
    run: RunDir, manifest: Manifest, counts: Counts | None, standing: Standing | None
) -> list[tuple[str, str]]:
    """Return labels and texts.

    Parameters
    ----------
    counts
        Those of a farm.
    standing
        How its jobs stand, while a scheduler has them.
    """
    state = manifest.effective_state()
    job = manifest.job
    why = reason(run, manifest, state)
    found = [
        ("run", printable(manifest.id)),
        ("state", said(shown_state(state, standing), why)),
        ("job", f"{job.name} ({job.kind}), {shortest(Path(job.source))}"),
        ("when", _when(run, manifest, state)),
        ("ran on", _place(manifest)),
        ("seed", str(job.seed)),
    ]
    if manifest.parent:
        found.append(("repeats", manifest.parent))
    if job.assignments or job.table:
        found.append(("given", _given(manifest)))
    if job.defaults:
        found.append(("defaults", _assigned(job.defaults)))
    if counts is not None:
        found.append(("tasks", str(counts)))
    if told := left_out(manifest, counts):
        found.append(("merged", told))
    there = run.results.is_file()
    found.append(("results", shortest(run.results) if there else "none yet"))
    command = next_step(run, manifest, state, counts)
    if command:
        found.append(("go on with", command))
    return found


def to_json(
    run: RunDir, manifest: Manifest, counts: Counts | None, standing: Standing | None
) -> dict[str, Any]:
    """Return the same in JSON's types."""
    state = manifest.effective_state()
    return {
        "id": manifest.id,
        "state": shown_state(state, standing),
        "reason": reason(run, manifest, state),
        "job": manifest.job.name,
        "kind": manifest.job.kind,
        "source": manifest.job.source,
        "created": manifest.created,
        "seconds": elapsed(run, manifest, state),
        "engine": manifest.engine,
        "workers": manifest.workers,
        "ranks": manifest.ranks,
        "seed": manifest.job.seed,
        "parent": manifest.parent,
        "assignments": manifest.job.assignments,
        "defaults": manifest.job.defaults,
        "table": manifest.job.table,
        "reduce": manifest.job.reduce,
        "done": counts.done if counts else None,
        "failed": counts.failed if counts else None,
        "total": counts.total if counts else None,
        "results": str(run.results) if run.results.is_file() else None,
        "next": next_step(run, manifest, state, counts),
    }


def _when(run: RunDir, manifest: Manifest, state: State) -> str:
    seconds = elapsed(run, manifest, state)
    told = local_time(manifest.created)
    return f"{told}, {duration(seconds)}" if seconds or state is not State.SUBMITTED else told


def _place(manifest: Manifest) -> str:
    host = manifest.environment.get("host", "?")
    latest = manifest.submissions[-1] if manifest.submissions else None
    if latest is not None and latest.elements and latest.session == manifest.sessions:
        shares = f"{counted(latest.elements, 'element')} of {counted(latest.workers, 'worker')}"
        return f"{latest.site.name}, {shares}"
    if manifest.job.kind == "spmd":
        return f"{host}, {counted(manifest.ranks, 'rank')}"
    return f"{host}, {manifest.engine or '?'}, {counted(manifest.workers, 'worker')}"


def _given(manifest: Manifest) -> str:
    table = manifest.job.table
    parts = [f"table {shortest(Path(table))}"] if table else []
    return "  ".join([*parts, _assigned(manifest.job.assignments)]).rstrip()


def _assigned(values: Mapping[str, str]) -> str:
    return "  ".join(
        f"{name}={shortened(printable(text), PARAMETER_WIDTH)}" for name, text in values.items()
    )
