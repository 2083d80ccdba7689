"""A batch of tasks, worked off in whatever process, thread or node an engine puts it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import HpckitError, LaunchError, ReduceError, StoreError
from hpckit.processes import was_interrupted
from hpckit.run.calling import Caller, Row, checked, told
from hpckit.run.context import Current
from hpckit.run.engines import WorkerDied
from hpckit.run.gpu.between import has_lost_gpu, tell_of_gpu
from hpckit.run.gpu.wish import NONE, Wish
from hpckit.run.logs import attend, end_task
from hpckit.run.reducing import MergedRows
from hpckit.run.timelimit import limited
from hpckit.run.usage import Used
from hpckit.spec.load import load_file
from hpckit.spec.sweep import Sweep
from hpckit.store.arrays import Spill
from hpckit.store.block import Block, make_block
from hpckit.store.merging import Merge
from hpckit.store.rundir import RunDir

FASTEST_WRITE = 1e-6
"""Seconds that no write to a pipe stays under: a task that took less has written nothing there."""

BATCH_SECONDS = 1.0
"""After which a batch is given back as far as it is, so that its results can be sealed."""

_loading = threading.Lock()
_spilling = threading.Lock()


@dataclass(frozen=True)
class FarmSpec:
    """All that a worker needs to know of a farm; small, since it travels with each batch."""

    run: Path
    job_file: str
    source: Path
    assignments: tuple[tuple[str, str], ...]
    has_table: bool
    seed: int
    task_timeout: float | None = None
    wish: Wish = NONE


@dataclass(frozen=True)
class Outcome:
    """What came of a batch: the results of some tasks, and what forbids to go on.

    Attributes
    ----------
    block
        None where there is no result.
    trouble
        Not the fault of a task, which would meet any other as well: a full disk, say.
    used
        By the worker so far.
    nbytes
        Of all results.
    running
        What the engine goes on with by itself: tasks, ascending, and what will come of them.
    """

    block: Block | None
    trouble: HpckitError | None = None
    used: Used = field(default_factory=Used.by_this_process)
    nbytes: int = 0
    running: tuple[NDArray[np.int64], Future[Outcome]] | None = None


@dataclass
class _Tally:
    """What tasks gave, one after another.

    Attributes
    ----------
    moments
        When the first began, and when each ended, by `time.perf_counter`.
    """

    moments: list[float]
    rows: list[Row] | MergedRows = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    trouble: HpckitError | None = None

    def outcome(self, indices: Sequence[int], attempt: int) -> Outcome:
        """Pack it."""
        if not self.rows or isinstance(self.trouble, ReduceError):
            return Outcome(None, self.trouble)
        moments = np.array(self.moments)
        done = indices[: len(self.rows)]
        block = _block(done, self.rows, self.errors, moments[:-1], np.diff(moments), attempt)
        return Outcome(block, self.trouble)


def packed(
    indices: Sequence[int],
    rows: list[Row],
    errors: dict[int, str],
    begun: Sequence[float],
    seconds: NDArray[np.float64],
    attempt: int,
    merge: Merge | None,
) -> Outcome:
    """Pack what some tasks gave, which were not worked one after another.

    Parameters
    ----------
    indices
        Ascending.
    begun
        By `time.perf_counter`.
    """
    held: list[Row] | MergedRows = rows
    if merge is not None:
        held = MergedRows(indices, merge)
        try:
            for row in rows:
                held.append(row)
        except ReduceError as error:
            return Outcome(None, error)
    return Outcome(_block(indices, held, errors, np.array(begun), seconds, attempt))


def _block(
    indices: Sequence[int],
    rows: list[Row] | MergedRows,
    errors: dict[int, str],
    begun: NDArray[np.float64],
    seconds: NDArray[np.float64],
    attempt: int,
) -> Block:
    started = begun + (time.time() - time.perf_counter())
    plain = checked(rows, errors) if isinstance(rows, list) else []
    block = make_block(indices, plain, errors, started, seconds, os.getpid(), attempt)
    return block if isinstance(rows, list) else replace(block, partials=rows.partials())


class TaskRunner:
    """Works off tasks one after another, and packs what they return."""

    def __init__(self, caller: Caller, time_limit: float | None) -> None:
        self.caller = caller
        self.call = limited(caller.call, time_limit) if time_limit else caller.call

    def run(self, indices: Sequence[int], attempt: int) -> Outcome:
        """Work off tasks, in order, for `BATCH_SECONDS`; an exception in one is its result."""
        now, pid = Current(), os.getpid()
        attend(now)
        try:
            tally = self._work(indices, now)
        finally:
            if os.getpid() != pid:
                # A child that a task has forked and left running must not answer for its
                # parent, nor, in the driver itself, become a second one.
                os._exit(0)
            tell_of_gpu()
            now.index = None
            end_task(now)
        return tally.outcome(indices, attempt)

    def _work(self, indices: Sequence[int], now: Current) -> _Tally:
        # Each name looked up here costs every task some 20 ns.
        call, row, plain, clock = self.call, self.caller.row, self.caller.plain, time.perf_counter
        end = clock()
        merge = self.caller.merge
        tally = _Tally([end], [] if merge is None else MergedRows(indices, merge))
        rows, moments, due = tally.rows, tally.moments, end + BATCH_SECONDS
        for index, point in zip(indices, self.caller.points(indices), strict=True):
            now.index = index
            try:
                returned = call(index, point)
                rows.append(returned if type(returned) in plain else row(returned))
            except (StoreError, LaunchError, ReduceError) as raised:
                tally.trouble = raised
                break
            except BaseException as raised:
                if was_interrupted():
                    raise KeyboardInterrupt from None
                if has_lost_gpu():
                    raise WorkerDied(str(raised)) from None
                tally.errors[len(rows)] = told(raised)
                rows.append(None)
            begin, end = end, clock()
            moments.append(end)
            if now.open_lines or end - begin > FASTEST_WRITE:
                end_task(now)
                # Or the next task would count as one that took long enough to have printed.
                end = clock()
            if end > due:
                break
        return tally


def run_batch(spec: FarmSpec, indices: Sequence[int], attempt: int) -> Outcome:
    """Work off a batch in this process; the job is loaded once.

    Raises
    ------
    WorkerDied
        This process is of no use any more: tasks have taken its memory or its descriptors, say.
    """
    try:
        with _loading:
            runner, spill = _runner(spec), _spill(spec.run)
    except Exception as error:
        return Outcome(None, not_loaded(error))
    try:
        return lightened(runner.run(indices, attempt), spill)
    except WorkerDied:
        raise
    except Exception as error:
        raise WorkerDied(f"the worker process could not go on: {error!r}") from None


def not_loaded(error: Exception) -> LaunchError:
    """Say that a worker could not load the job.

    It did load in the driver, so that what is wrong is no one's command line.
    """
    told = str(error) if isinstance(error, HpckitError) else repr(error)
    return LaunchError(f"a worker could not load the job: {told}")


def lightened(outcome: Outcome, spill: Spill) -> Outcome:
    """Return an outcome whose large arrays are in files of this process."""
    if outcome.block is None:
        return outcome
    # What results were merged into does not grow with the batch.
    nbytes = outcome.block.nbytes if outcome.block.partials is None else 0
    try:
        with _spilling:
            return replace(outcome, block=spill.lighten(outcome.block), nbytes=nbytes)
    except StoreError as error:
        return replace(outcome, block=None, trouble=error)


@lru_cache(maxsize=4)
def _spill(run: Path) -> Spill:
    return Spill(RunDir(run).segments)


@lru_cache(maxsize=4)
def _runner(spec: FarmSpec) -> TaskRunner:
    return TaskRunner(make_caller(spec), spec.task_timeout)


def make_caller(spec: FarmSpec) -> Caller:
    """Load the job of a farm.

    Raises
    ------
    HpckitError
        It does not load; a job file may raise anything else.
    """
    run = RunDir(spec.run)
    job = load_file(spec.run / spec.job_file, spec.source).job
    arguments = [f"{name}={text}" for name, text in spec.assignments]
    table = run.table if spec.has_table else None
    return Caller(job, Sweep.from_args(job, arguments, table), spec.seed, run, spec.wish)
