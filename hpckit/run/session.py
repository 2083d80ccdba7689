"""A session of a farm: from what is missing to results.h5."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import HpckitError, Interrupted
from hpckit.processes import interruptible
from hpckit.run.agenda import Agenda, Scattered
from hpckit.run.batch import FarmSpec
from hpckit.run.engines import Engine, Workplace, engine_class
from hpckit.run.farm import FarmDriver
from hpckit.run.gpu.wish import Wish
from hpckit.run.sealing import Sealer
from hpckit.run.snapshots import Snapshots
from hpckit.run.usage import Used, usage
from hpckit.store.attempts import earlier_attempts
from hpckit.store.block import TaskState
from hpckit.store.collect import collect
from hpckit.store.create import Run
from hpckit.store.lock import driving
from hpckit.store.manifest import Manifest, State
from hpckit.store.merging import Merge
from hpckit.store.progress import Publisher, Report
from hpckit.store.results import task_states
from hpckit.store.segments import SegmentWriter, set_aside_damaged
from hpckit.store.trace import MusterTrace
from hpckit.threads import limit_threads


def work_farm(
    run: Run, engine: str, place: Workplace, report: Report, *, again: frozenset[TaskState]
) -> Manifest:
    """Do the tasks of a run that are in one of the states `again`; return the final manifest.

    Raises
    ------
    Interrupted
        Ctrl-C or SIGTERM; what was done is sealed.
    StoreError
        Results cannot be written; what was sealed before is intact.
    LaunchError
        A worker cannot load the job or start its program; what was done is sealed.
    UsageError
        Another process works on the run.
    """
    make = engine_class(engine)
    limit_threads(run.job.resources.cpus_per_task)
    with driving(run.dir), interruptible():
        begun, used = time.monotonic(), dict[int, Used]()
        run.dir.remove_leftovers()
        manifest = run.manifest.started(engine=engine, workers=place.workers)
        try:
            manifest.write(run.dir.manifest)
            driver = _driver(run, lambda: make(place), report, again)
            used = driver.used
            if driver.done + driver.failed < driver.total:
                driver.run()
            seconds = time.monotonic() - begun
            short = None if driver.gave_up is None else (State.FAILED, driver.gave_up)
            return collect(run, manifest, seconds, if_missing=short, usage=usage(used))
        except KeyboardInterrupt:
            _end(run, manifest, begun, used, State.INTERRUPTED, "interrupted")
            raise Interrupted(_hint(run, again)) from None
        except Exception as error:
            with suppress(HpckitError):
                _end(run, manifest, begun, used, State.FAILED, str(error))
            raise


def _driver(
    run: Run, make_engine: Callable[[], Engine], report: Report, again: frozenset[TaskState]
) -> FarmDriver:
    for path in set_aside_damaged(run.dir.segments):
        print(f"hpckit: {path} is damaged: its tasks are done again", file=sys.stderr)
    states = task_states(run.dir, len(run.sweep))
    pending = _pending(states, again)
    before, done = len(states) - len(pending), int((states == TaskState.DONE).sum())
    return FarmDriver(
        spec=farm_spec(run),
        make_engine=make_engine,
        agenda=Agenda(deque([pending]), aligned=run.job.reduce is not None),
        rules=run.manifest.job.rules,
        snapshots=Snapshots(run),
        sealer=Sealer(SegmentWriter(run.dir.segments, merge=Merge.of(run.job))),
        publisher=Publisher(run.dir.progress, report, before),
        trace=MusterTrace(run.dir.workers),
        total=len(states),
        done=done,
        failed=before - done,
        tried=earlier_attempts(run.dir, len(states)) if TaskState.FAILED in again else None,
    )


def farm_spec(run: Run) -> FarmSpec:
    """Return what workers need to know of a run."""
    source = Path(run.manifest.job.source)
    return FarmSpec(
        run=run.dir.path,
        job_file=run.dir.job(source.suffix).name,
        source=source,
        assignments=tuple(run.manifest.job.assignments.items()),
        has_table=run.manifest.job.table is not None,
        seed=run.manifest.job.seed,
        wish=Wish.of(run.job.resources, source, run.dir),
        task_timeout=run.manifest.job.rules.task_timeout,
    )


def _pending(states: NDArray[np.int8], again: frozenset[TaskState]) -> Sequence[int]:
    chosen = np.isin(states, [int(state) for state in again])
    return range(len(states)) if chosen.all() else Scattered(np.flatnonzero(chosen))


def _end(
    run: Run,
    manifest: Manifest,
    begun: float,
    used: Mapping[int, Used],
    state: State,
    reason: str,
) -> None:
    states = task_states(run.dir, len(run.sweep))
    counts = {s.name.lower(): int((states == s).sum()) for s in TaskState}
    seconds = time.monotonic() - begun
    ended = manifest.ended(state, reason, seconds, usage=usage(used), counts=counts)
    ended.write(run.dir.manifest)


def _hint(run: Run, again: frozenset[TaskState]) -> str:
    states = task_states(run.dir, len(run.sweep))
    done = int((~np.isin(states, [int(state) for state in again])).sum())
    return (
        f"interrupted: {done} of {len(states)} tasks are sealed in {run.dir.path}\n"
        f"go on with: hpckit {'retry' if TaskState.FAILED in again else 'resume'} {run.dir.path}"
    )
