"""Which sealed file holds the result of which task of a farm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import StoreError
from hpckit.store.block import Block, TaskState
from hpckit.store.blockfile import BlockFile, Schema
from hpckit.store.columns import Column, Field, masked, scattered
from hpckit.store.reading import reading


@dataclass(frozen=True)
class Source:
    """A sealed file, and what is asked of it again and again.

    It is open only while it is read: an array of a thousand writers leaves more segments
    than a process may have files open.
    """

    path: Path
    task: NDArray[np.int64]
    state: NDArray[np.int8]
    fields: dict[str, Field]
    details: dict[str, Field]
    incomplete: set[str]
    row_bytes: int

    @classmethod
    def of(cls, path: Path) -> Source:
        """Read what a file holds.

        Raises
        ------
        StoreError
            It does not read back.
        """
        with reading(path) as file:
            source = BlockFile.checked(file)
            return cls(
                path,
                source.task,
                source.state,
                source.field_types,
                source.detail_types,
                source.incomplete,
                source.row_bytes,
            )


@dataclass(frozen=True)
class Coverage:
    """Which source holds which task.

    Attributes
    ----------
    owner
        Shape (tasks,): the number of the source that a task's row is taken from, -1 for none.
    state
        Shape (tasks,): the state of each task in its owner.
    """

    sources: list[Source]
    owner: NDArray[np.int32]
    state: NDArray[np.int8]

    def counts(self) -> dict[str, int]:
        """Return how many tasks are done, failed and missing."""
        found = np.bincount(self.state, minlength=len(TaskState))
        return {state.name.lower(): int(found[state]) for state in TaskState}

    def schema(self) -> Schema:
        """Return the columns that hold the rows of all sources."""
        schema = Schema()
        for source in self._owners():
            schema.add(source.fields, source.details)
        return schema

    def incomplete(self, schema: Schema) -> set[str]:
        """Return the fields that some source lacks, wholly or for some of its tasks."""
        lacking = (s.incomplete | (schema.fields.keys() - s.fields.keys()) for s in self._owners())
        return set().union(*lacking)

    def row_bytes(self) -> int:
        """Return about how much memory a task takes, in the source where it takes most."""
        return 64 + max((source.row_bytes for source in self._owners()), default=0)

    def block(self, schema: Schema, start: int, stop: int) -> Block:
        """Gather the tasks from `start` to `stop` out of all sources.

        Raises
        ------
        StoreError
            A source does not read back.
        """
        fields: list[tuple[NDArray[np.int64], dict[str, Column]]] = []
        details: list[tuple[NDArray[np.int64], dict[str, Column]]] = []
        owner = self.owner[start:stop]
        for number in np.unique(owner[owner >= 0]):
            source = self.sources[number]
            low, high = np.searchsorted(source.task, (start, stop)).tolist()
            positions = source.task[low:high] - start
            mine = owner[positions] == number
            with reading(source.path) as file:
                held = BlockFile(file)
                for parts, columns in (
                    (fields, held.fields(low, high)),
                    (details, held.details(low, high)),
                ):
                    parts.append((positions, {n: masked(c, mine) for n, c in columns.items()}))
        count = stop - start
        return Block(
            np.arange(start, stop),
            self.state[start:stop],
            _scattered(count, schema.details, details),
            _scattered(count, schema.fields, fields),
        )

    def _owners(self) -> list[Source]:
        return [self.sources[number] for number in np.unique(self.owner[self.owner >= 0])]


def cover(paths: Sequence[Path], count: int) -> Coverage:
    """Find the source of each of `count` tasks: a finished result wins, then the last file.

    Raises
    ------
    StoreError
        A file does not read back, or belongs to another farm.
    """
    coverage = Coverage([], np.full(count, -1, np.int32), np.zeros(count, np.int8))
    for path in paths:
        source = Source.of(path)
        if len(source.task) and not 0 <= source.task[0] <= source.task[-1] < count:
            raise StoreError(
                f"{path}: holds task {source.task[-1]}, but the farm has {count} tasks: move it "
                "away and resume the run"
            )
        current, offered = coverage.state[source.task], source.state
        better = (offered != TaskState.MISSING) & (current != TaskState.DONE)
        coverage.owner[source.task[better]] = len(coverage.sources)
        coverage.state[source.task[better]] = offered[better]
        coverage.sources.append(source)
    return coverage


def _scattered(
    count: int,
    schema: Mapping[str, Field],
    parts: Sequence[tuple[NDArray[np.int64], dict[str, Column]]],
) -> dict[str, Column]:
    return {
        name: scattered(count, held, [(p, cs[name]) for p, cs in parts if name in cs])
        for name, held in schema.items()
    }
