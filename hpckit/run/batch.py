"""A batch of tasks, worked off in whatever process, thread or node an engine puts it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from hpckit.errors import HpckitError, LaunchError, StoreError
from hpckit.processes import was_interrupted
from hpckit.run.context import Task
from hpckit.run.logs import begin_task, end_task
from hpckit.run.tracebacks import own_traceback
from hpckit.run.usage import Used
from hpckit.spec.command import Command
from hpckit.spec.job import Job
from hpckit.spec.load import load_file
from hpckit.spec.names import FARM_VARIABLES
from hpckit.spec.sweep import Sweep
from hpckit.store.block import Block, make_block
from hpckit.store.columns import storable
from hpckit.store.rundir import RunDir

BATCH_SECONDS = 1.0
"""After which a batch is given back as far as it is, so that its results can be sealed."""

_loading = threading.Lock()


@dataclass(frozen=True)
class FarmSpec:
    """All that a worker needs to know of a farm; small, since it travels with each batch."""

    run: Path
    job_file: str
    source: Path
    assignments: tuple[tuple[str, str], ...]
    has_table: bool
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of a batch: the results of its first tasks, and what forbids to go on.

    Attributes
    ----------
    block
        None where there is no result.
    trouble
        Not the fault of a task, which would meet any other as well: a full disk, say.
    used
        By the worker so far.
    """

    block: Block | None
    trouble: HpckitError | None = None
    used: Used = field(default_factory=Used.by_this_process)


class TaskRunner:
    """Calls a farm's function for given tasks and packs what it returns."""

    def __init__(self, spec: FarmSpec, job: Job, sweep: Sweep) -> None:
        self.sweep = sweep
        self.seed = spec.seed
        self.names = [param.name for param in job.params]
        self.function = _function(spec, job)
        self.takes_context = job.takes_context or isinstance(job.body, Command)
        self.known_fields: set[str] = set()

    def run(self, indices: Sequence[int], attempt: int) -> Outcome:
        """Work off tasks, in order, for `BATCH_SECONDS`; an exception in one is its result."""
        columns = self.sweep.columns(indices)
        points = zip(*(columns[name] for name in self.names), strict=True)
        results: list[dict[str, Any] | None] = []
        errors: list[str | None] = []
        started: list[float] = []
        seconds: list[float] = []
        trouble = None
        clock = time.perf_counter
        end = clock()
        epoch, due = time.time() - end, end + BATCH_SECONDS
        for index, point in zip(indices, points if self.names else _nothing(), strict=False):
            begin = end
            try:
                results.append(self._one(index, dict(zip(self.names, point, strict=True))))
                errors.append(None)
            except (StoreError, LaunchError) as raised:
                trouble = raised
                break
            except BaseException as raised:
                if was_interrupted():
                    raise KeyboardInterrupt from None
                results.append(None)
                errors.append(_told(raised))
            end = clock()
            started.append(epoch + begin)
            seconds.append(end - begin)
            if end > due:
                break
        if not results:
            return Outcome(None, trouble)
        done = indices[: len(results)]
        block = make_block(done, results, errors, started, seconds, os.getpid(), attempt)
        return Outcome(block, trouble)

    def _one(self, index: int, params: dict[str, Any]) -> dict[str, Any]:
        begin_task(index)
        try:
            if self.takes_context:
                returned = self.function(Task(index, params, self.seed), **params)
            else:
                returned = self.function(**params)
        finally:
            end_task()
        if returned is None:
            return {}
        if not isinstance(returned, Mapping):
            returned = {"result": returned}
        if not returned.keys() <= self.known_fields:
            self._check_fields(returned)
        return {name: storable(name, value) for name, value in returned.items()}

    def _check_fields(self, returned: Mapping[str, Any]) -> None:
        for name in returned:
            if not isinstance(name, str) or not name or "/" in name:
                raise TypeError(f"field {name!r}: a name is a string without a slash")
            if name in FARM_VARIABLES or name in self.sweep.names:
                what = "is a parameter" if name in self.sweep.names else "is hpckit's own"
                raise TypeError(f"field {name!r}: the name {what}: return it under another one")
        self.known_fields.update(returned)


def run_batch(spec: FarmSpec, indices: Sequence[int], attempt: int) -> Outcome:
    """Work off a batch in this process; the job is loaded once."""
    try:
        with _loading:
            runner = _runner(spec)
    except Exception as error:
        # It did load in the driver, so that what is wrong is no one's command line.
        told = str(error) if isinstance(error, HpckitError) else repr(error)
        return Outcome(None, LaunchError(f"a worker could not load the job: {told}"))
    return runner.run(indices, attempt)


@lru_cache(maxsize=4)
def _runner(spec: FarmSpec) -> TaskRunner:
    run = RunDir(spec.run)
    job = load_file(spec.run / spec.job_file, spec.source).job
    arguments = [f"{name}={text}" for name, text in spec.assignments]
    table = run.table if spec.has_table else None
    return TaskRunner(spec, job, Sweep.from_args(job, arguments, table))


def _function(spec: FarmSpec, job: Job) -> Callable[..., Any]:
    if isinstance(job.body, Command):
        from hpckit.run.command import run_command

        return partial(run_command, job.body, RunDir(spec.run))
    return job.body


def _nothing() -> Any:
    while True:
        yield ()


def _told(error: BaseException) -> str:
    """Return the traceback; what hpckit itself raises says it all."""
    return str(error) if isinstance(error, HpckitError) else own_traceback(error)
