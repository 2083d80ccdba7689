"""Which sealed file holds the result of which task of a farm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import StoreError
from hpckit.store.arrays import Arrays
from hpckit.store.block import REFERENCE, Block, TaskState
from hpckit.store.blockfile import BlockFile, Schema
from hpckit.store.columns import Column, Field, field_bytes, scattered
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
    stored: set[str]
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
                source.stored_names,
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
    arrays: Arrays

    def counts(self) -> dict[str, int]:
        """Return how many tasks are done, failed and missing."""
        found = np.bincount(self.state, minlength=len(TaskState))
        return {state.name.lower(): int(found[state]) for state in TaskState}

    def schema(self) -> Schema:
        """Return the columns that hold the rows of all sources."""
        schema = Schema()
        for source in self._owners():
            schema.add(source.fields, source.details, source.stored)
        for name in schema.stored:
            numbers = np.unique(self.references(name)["file"])
            for number in numbers[numbers != 0].tolist():
                schema.add({name: self.arrays.field(number)}, {}, ())
        return schema

    def incomplete(self, schema: Schema) -> set[str]:
        """Return the fields that some source lacks, wholly or for some of its tasks."""
        lacking = (
            s.incomplete | (schema.fields.keys() - s.fields.keys() - s.stored)
            for s in self._owners()
        )
        return set().union(*lacking)

    def row_bytes(self, schema: Schema, linked: Collection[str]) -> int:
        """Return about how much memory a task takes, in the source where it takes most."""
        stored = sum(field_bytes(schema.fields[name]) for name in schema.stored - set(linked))
        return 64 + stored + max((source.row_bytes for source in self._owners()), default=0)

    def references(self, name: str) -> NDArray[Any]:
        """Return the references to a field's rows in files of arrays; shape (tasks,)."""
        found = np.zeros(len(self.state), REFERENCE)
        for number in np.unique(self.owner[self.owner >= 0]):
            source = self.sources[number]
            if name in source.stored:
                mine = self.owner[source.task] == number
                with reading(source.path) as file:
                    read = BlockFile(file).stored(name, 0, len(source.task)).values
                found[source.task[mine]] = read[mine]
        return found

    def block(self, schema: Schema, start: int, stop: int) -> Block:
        """Gather the tasks from `start` to `stop` out of all sources.

        Raises
        ------
        StoreError
            A source does not read back.
        """
        parts: list[tuple[NDArray[np.int64], Block]] = []
        owner = self.owner[start:stop]
        for number in np.unique(owner[owner >= 0]):
            source = self.sources[number]
            low, high = np.searchsorted(source.task, (start, stop)).tolist()
            positions = source.task[low:high] - start
            with reading(source.path) as file:
                block = BlockFile(file).read(low, high)
            parts.append((positions, block.masked(owner[positions] == number)))
        count = stop - start
        return Block(
            np.arange(start, stop),
            self.state[start:stop],
            _scattered(count, schema.details, [(p, b.details) for p, b in parts]),
            _scattered(count, schema.fields, [(p, b.fields) for p, b in parts], schema.stored),
            _scattered(
                count,
                {name: Field(REFERENCE, (), 0) for name in schema.stored},
                [(p, b.stored) for p, b in parts],
            ),
        )

    def resolved(self, block: Block, schema: Schema, linked: Collection[str]) -> Block:
        """Return a block with values in place of references, but for the fields that are linked.

        Raises
        ------
        StoreError
            A row is not there.
        """
        fields = {n: c for n, c in block.fields.items() if n not in linked}
        for name in block.stored.keys() - set(linked):
            references = block.stored[name].values
            fields[name] = self.arrays.joined(references, fields.get(name), schema.fields[name])
        return replace(block, fields=fields, stored={n: block.stored[n] for n in linked})

    def array_numbers(self) -> set[int]:
        """Return the numbers of the files of arrays that are referred to."""
        names = {name for source in self._owners() for name in source.stored}
        return {int(n) for name in names for n in np.unique(self.references(name)["file"])}

    def _owners(self) -> list[Source]:
        return [self.sources[number] for number in np.unique(self.owner[self.owner >= 0])]


def cover(paths: Sequence[Path], count: int, folder: Path) -> Coverage:
    """Find the source of each of `count` tasks: a finished result wins, then the last file.

    Parameters
    ----------
    folder
        Of the files of arrays.

    Raises
    ------
    StoreError
        A file does not read back, or belongs to another farm.
    """
    coverage = Coverage([], np.full(count, -1, np.int32), np.zeros(count, np.int8), Arrays(folder))
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
    optional: Collection[str] = (),
) -> dict[str, Column]:
    found = {
        name: [(p, columns[name]) for p, columns in parts if name in columns] for name in schema
    }
    return {
        name: scattered(count, schema[name], rows)
        for name, rows in found.items()
        if rows or name not in optional
    }
