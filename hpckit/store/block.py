"""The results of some tasks of a farm: what workers return and segments hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpckit.store.columns import Column, from_values, masked, scattered

if TYPE_CHECKING:
    from hpckit.store.partials import Partials

REFERENCE = np.dtype([("file", np.int64), ("row", np.int64), ("crc", np.uint32)])
"""To a row of a file of arrays, see `hpckit.store.arrays`; file 0 means none."""


class TaskState(IntEnum):
    """What became of a task."""

    MISSING = 0
    DONE = 1
    FAILED = 2


@dataclass(frozen=True, eq=False)
class Block:
    """Results of n tasks, in ascending order of their index.

    Attributes
    ----------
    task
        Shape (n,), int64: each task's index in the farm.
    state
        Shape (n,), int8, of `TaskState`.
    details
        Columns for the group ``tasks``: start, duration (seconds), attempts, worker, error.
    fields
        What the tasks returned.
    stored
        Columns of `REFERENCE`, to those rows of a field that are in files of arrays.
    partials
        In place of fields, where results are merged: what the finished tasks were merged into.
    """

    task: NDArray[np.int64]
    state: NDArray[np.int8]
    details: dict[str, Column]
    fields: dict[str, Column]
    stored: dict[str, Column] = field(default_factory=dict)
    partials: Partials | None = None

    def __len__(self) -> int:
        return len(self.task)

    @property
    def nbytes(self) -> int:
        """Roughly the memory it takes; a string counts as 64 bytes."""
        columns = (*self.details.values(), *self.fields.values(), *self.stored.values())
        merged = 0 if self.partials is None else self.partials.nbytes
        own = (c.values.nbytes * (8 if c.values.dtype == object else 1) for c in columns)
        return merged + sum(own)

    def present(self) -> dict[str, NDArray[np.bool_]]:
        """Tell of each field which tasks have it, wherever it is; shape (n,)."""
        there = {name: column.present for name, column in self.fields.items()}
        for name, column in self.stored.items():
            there[name] = column.present | there.get(name, False)
        return there

    def masked(self, kept: NDArray[np.bool_]) -> Block:
        """Return the block with the values of some tasks absent; `kept` has shape (n,)."""
        return Block(
            self.task,
            self.state,
            {name: masked(column, kept) for name, column in self.details.items()},
            {name: masked(column, kept) for name, column in self.fields.items()},
            {name: masked(column, kept) for name, column in self.stored.items()},
        )

    def only(self, kept: NDArray[np.bool_]) -> Block:
        """Return the block of some tasks, all that are in partials among them.

        `kept` has shape (n,).
        """
        return Block(
            self.task[kept],
            self.state[kept],
            {name: column.only(kept) for name, column in self.details.items()},
            {name: column.only(kept) for name, column in self.fields.items()},
            {name: column.only(kept) for name, column in self.stored.items()},
            self.partials,
        )


def make_block(
    indices: Sequence[int],
    rows: Sequence[Any],
    errors: Mapping[int, str],
    started: NDArray[np.float64],
    seconds: NDArray[np.float64],
    worker: int,
    attempts: int = 1,
) -> Block:
    """Build a block from what each task gave.

    Parameters
    ----------
    rows
        One a task: the returned fields, their values as `storable` gives them; None where it
        failed. Or, of all tasks, a number of the same type, which is the field ``result``.
    errors
        The traceback of each failed task, by its position.
    started, seconds
        Shape (tasks,): seconds since the epoch, and the task's duration.
    worker
        The process id of the worker.
    """
    count = len(indices)
    state = np.full(count, TaskState.DONE, np.int8)
    state[list(errors)] = TaskState.FAILED
    everyone = np.ones(count, bool)
    details = {
        "start": Column(started, everyone),
        "duration": Column(seconds, everyone),
        "attempts": Column(np.full(count, attempts, np.int32), everyone),
        "worker": Column(np.full(count, worker, np.int32), everyone),
    }
    if errors:
        texts = from_values([_holdable(errors.get(position)) for position in range(count)])
        assert texts is not None
        details["error"] = texts
    return Block(as_indices(indices), state, details, _field_columns(rows))


def as_indices(indices: Sequence[int]) -> NDArray[np.int64]:
    """Return tasks as an array."""
    if isinstance(indices, range):
        return np.arange(indices.start, indices.stop, indices.step)
    return np.array(indices, np.int64)


def merged(blocks: Sequence[Block]) -> Block:
    """Join blocks into one, in the order of the tasks.

    Of a task that stands in several, a finished result wins, then the last one.
    """
    in_order = sorted((block for block in blocks if len(block)), key=lambda block: block.task[0])
    if _is_ascending(in_order):
        return _one_behind_the_other(in_order)
    tasks = np.concatenate([block.task for block in blocks])
    states = np.concatenate([block.state for block in blocks])
    # The last row of each task in this order is the one to keep.
    order = np.lexsort((np.arange(len(tasks)), states == TaskState.DONE, tasks))
    last = np.append(tasks[order][1:] != tasks[order][:-1], len(tasks) > 0)
    chosen = order[last]
    position = np.full(len(tasks), -1)
    position[chosen] = np.arange(len(chosen))
    bounds = np.cumsum([0, *(len(block) for block in blocks)])
    places = [position[a:b] for a, b in pairwise(bounds)]
    return Block(
        tasks[chosen],
        states[chosen],
        _merged_columns([block.details for block in blocks], places, len(chosen)),
        _merged_columns([block.fields for block in blocks], places, len(chosen)),
        _merged_columns([block.stored for block in blocks], places, len(chosen)),
    )


def _is_ascending(blocks: Sequence[Block]) -> bool:
    follow = all(a.task[-1] < b.task[0] for a, b in pairwise(blocks))
    return bool(blocks) and follow and all((np.diff(block.task) > 0).all() for block in blocks)


def _one_behind_the_other(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        np.concatenate([block.task for block in blocks]),
        np.concatenate([block.state for block in blocks]),
        _joined_columns([block.details for block in blocks], blocks),
        _joined_columns([block.fields for block in blocks], blocks),
        _joined_columns([block.stored for block in blocks], blocks),
    )


def _joined_columns(
    groups: Sequence[dict[str, Column]], blocks: Sequence[Block]
) -> dict[str, Column]:
    """Join columns of blocks that follow each other: those that are alike without any sorting."""
    names = dict.fromkeys(name for group in groups for name in group)
    joined = {name: _concatenated([group.get(name) for group in groups]) for name in names}
    if None in joined.values():
        bounds = np.cumsum([0, *(len(block) for block in blocks)])
        places = [np.arange(a, b) for a, b in pairwise(bounds)]
        others = _merged_columns(groups, places, int(bounds[-1]))
        return {name: others[name] if c is None else c for name, c in joined.items()}
    return {name: column for name, column in joined.items() if column is not None}


def _merged_columns(
    groups: Sequence[dict[str, Column]], places: Sequence[NDArray[np.int64]], count: int
) -> dict[str, Column]:
    names = dict.fromkeys(name for group in groups for name in group)
    merged_columns = {}
    for name in names:
        parts = [
            (p, masked(g[name], p >= 0)) for p, g in zip(places, groups, strict=True) if name in g
        ]
        held = parts[0][1].field
        for _, column in parts[1:]:
            held = held.joined(column.field)
        merged_columns[name] = scattered(count, held, parts)
    return merged_columns


def _concatenated(columns: Sequence[Column | None]) -> Column | None:
    """Put dense columns one behind the other, if each is there and alike; else return None."""
    there = [column for column in columns if column is not None and column.shapes is None]
    kinds = {(column.values.dtype, column.values.shape[1:]) for column in there}
    if len(there) < len(columns) or len(kinds) != 1:
        return None
    return Column(
        np.concatenate([column.values for column in there]),
        np.concatenate([column.present for column in there]),
    )


def _field_columns(results: Sequence[Any]) -> dict[str, Column]:
    if results and type(results[0]) in (int, float, bool, complex):
        return {"result": Column(np.array(results), np.ones(len(results), bool))}
    # Most farms return the same fields from each task: then no name is looked up twice.
    first = next((result for result in results if result is not None), None)
    if first is None:
        return {}
    names = first.keys()
    if all(result is not None and result.keys() == names for result in results):
        values = {name: [r[name] for r in results if r is not None] for name in names}
    else:
        names = dict.fromkeys(name for r in results if r for name in r).keys()
        values = {n: [None if r is None else r.get(n) for r in results] for n in names}
    columns = {name: from_values(rows) for name, rows in values.items()}
    return {name: column for name, column in columns.items() if column is not None}


def _holdable(text: str | None) -> str | None:
    """Escape what an HDF5 string cannot hold: an exception may say anything."""
    if text is None:
        return None
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
