"""results.h5 of a farm, put together from what was sealed.

The sources are the segments and, after a resume, an earlier results.h5. The file is written
in windows of tasks, so that memory does not grow with the farm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.errors import StoreError
from hpckit.store.atomic import replacing
from hpckit.store.block import Block, TaskState
from hpckit.store.blockfile import (
    PARAMETER_ATTRIBUTE,
    BlockFile,
    BlockWriter,
    Schema,
    open_block_file,
)
from hpckit.store.columns import Column, Field, from_values, scattered, storable
from hpckit.store.layout import LIBVER, TEXT_TYPE, attach, create_variable, set_attributes
from hpckit.store.rundir import RunDir
from hpckit.store.segments import list_segments, remove_segments

WINDOW_BYTES = 32 << 20
MANIFEST = "hpckit/manifest"


class Parameters(Protocol):
    """The parameter points of a farm, as `hpckit.spec.sweep.Sweep` has them."""

    def __len__(self) -> int: ...

    def columns(self, indices: range, /) -> dict[str, list[Any]]:
        """Return the values of each parameter for some tasks."""
        ...


@dataclass
class Coverage:
    """Which source holds which task.

    Attributes
    ----------
    sources
        Open files.
    owner
        Shape (tasks,): the number of the source that a task's row is taken from, -1 for none.
    state
        Shape (tasks,): the state of each task in its owner.
    """

    sources: list[BlockFile]
    owner: NDArray[np.int32]
    state: NDArray[np.int8]

    def counts(self) -> dict[str, int]:
        """Return how many tasks are done, failed and missing."""
        found = np.bincount(self.state, minlength=len(TaskState))
        return {state.name.lower(): int(found[state]) for state in TaskState}


def task_states(run: RunDir, count: int) -> NDArray[np.int8]:
    """Return the state of each of a farm's tasks as far as it is sealed; shape (count,)."""
    with ExitStack() as stack:
        return _cover(run, count, stack).state


def assemble(
    run: RunDir,
    parameters: Parameters,
    manifest_json: str,
    attributes: Mapping[str, Mapping[str, Any]],
) -> dict[str, int]:
    """Write results.h5 from all that is sealed, then remove the segments it replaces.

    Parameters
    ----------
    attributes
        Units, long_name and the like, by the name of a returned field or a parameter.

    Returns
    -------
    dict
        How many tasks are done, failed and missing.

    Raises
    ------
    StoreError
        The file cannot be written; the segments stay as they are.
    """
    count = len(parameters)
    with ExitStack() as stack:
        coverage = _cover(run, count, stack)
        with (
            replacing(run.results) as path,
            h5py.File(path, "w", libver=LIBVER, track_order=True) as file,
        ):
            _write_blocks(file, count, coverage)
            _write_parameters(file, parameters)
            embed_manifest(file, manifest_json)
            for name, given in attributes.items():
                if name in file:
                    set_attributes(file[name], given)
    remove_segments(run.segments)
    return coverage.counts()


def embed_manifest(file: h5py.File, manifest_json: str) -> None:
    """Put the manifest into a results file: a scalar, since attributes end at 64 kB."""
    file.create_dataset(MANIFEST, data=manifest_json, dtype=TEXT_TYPE)


def _cover(run: RunDir, count: int, stack: ExitStack) -> Coverage:
    paths = [run.results] if run.results.is_file() else []
    paths += [segment.path for segment in list_segments(run.segments)]
    coverage = Coverage([], np.full(count, -1, np.int32), np.zeros(count, np.int8))
    for path in paths:
        source = _opened(path, stack)
        current, offered = coverage.state[source.task], source.state
        better = (offered != TaskState.MISSING) & (current != TaskState.DONE)
        coverage.owner[source.task[better]] = len(coverage.sources)
        coverage.state[source.task[better]] = offered[better]
        coverage.sources.append(source)
    return coverage


def _opened(path: Path, stack: ExitStack) -> BlockFile:
    try:
        return BlockFile(stack.enter_context(open_block_file(path)))
    except (OSError, KeyError) as error:
        raise StoreError(
            f"{path}: does not read back ({error}): move it away and resume the run"
        ) from None


def _write_blocks(file: h5py.File, count: int, coverage: Coverage) -> None:
    schema = Schema()
    for number, source in enumerate(coverage.sources):
        if (coverage.owner == number).any():
            schema.add(source.field_types, source.detail_types)
    absent = _absent(coverage, schema)
    writer = BlockWriter(file, count, schema, absent)
    for start, stop in _windows(count, schema):
        writer.write(start, _window(coverage, schema, start, stop))
    writer.close()


def _absent(coverage: Coverage, schema: Schema) -> dict[str, bool]:
    """Tell which fields will have rows without a value."""
    unfinished = bool((coverage.state != TaskState.DONE).any())
    absent = dict.fromkeys(schema.fields, unfinished)
    for source in coverage.sources:
        held = source.field_types
        for name in schema.fields:
            absent[name] |= name not in held and len(source.task) > 0
            absent[name] |= f"hpckit/present/{name}" in source.file
    return absent


def _windows(count: int, schema: Schema) -> Iterator[tuple[int, int]]:
    row = 64 + sum(
        field.dtype.itemsize * int(np.prod(field.shape or (64,)))
        for field in (*schema.fields.values(), *schema.details.values())
    )
    rows = max(WINDOW_BYTES // row, 1)
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def _window(coverage: Coverage, schema: Schema, start: int, stop: int) -> Block:
    """Gather the tasks from `start` to `stop` out of all sources."""
    fields: list[tuple[NDArray[np.int64], dict[str, Column]]] = []
    details: list[tuple[NDArray[np.int64], dict[str, Column]]] = []
    owner = coverage.owner[start:stop]
    for number in np.unique(owner[owner >= 0]):
        source = coverage.sources[number]
        low, high = np.searchsorted(source.task, (start, stop)).tolist()
        positions = source.task[low:high] - start
        mine = owner[positions] == number
        for parts, columns in (
            (fields, source.fields(low, high)),
            (details, source.details(low, high)),
        ):
            parts.append((positions, {n: _masked(c, mine) for n, c in columns.items()}))
    count = stop - start
    return Block(
        np.arange(start, stop),
        coverage.state[start:stop],
        _scattered(count, schema.details, details),
        _scattered(count, schema.fields, fields),
    )


def _masked(column: Column, mine: NDArray[np.bool_]) -> Column:
    """Leave out rows that another source owns."""
    if mine.all():
        return column
    if column.shapes is None:
        return Column(column.values, column.present & mine)
    rows = [row if kept else None for row, kept in zip(column.rows(), mine, strict=True)]
    return from_values(rows) or Column(
        column.values[:0], np.zeros(len(rows), bool), np.full_like(column.shapes, -1)
    )


def _scattered(
    count: int,
    schema: Mapping[str, Field],
    parts: Sequence[tuple[NDArray[np.int64], dict[str, Column]]],
) -> dict[str, Column]:
    return {
        name: scattered(count, held, [(p, cs[name]) for p, cs in parts if name in cs])
        for name, held in schema.items()
    }


def _write_parameters(file: h5py.File, parameters: Parameters) -> None:
    count = len(parameters)
    names = []
    for start, stop in _windows(count, Schema()):
        for name, values in parameters.columns(range(start, stop)).items():
            column = from_values([_parameter_value(name, value) for value in values])
            assert column is not None
            if start == 0:
                names.append(name)
                variable = create_variable(file, name, (count,), column.values.dtype, False)
                variable.attrs[PARAMETER_ATTRIBUTE] = 1
                attach(variable, [file["task"]])
            file[name][start:stop] = column.values
    if names:
        file.attrs["coordinates"] = " ".join(names)


def _parameter_value(name: str, value: Any) -> Any:
    return storable(name, str(value) if isinstance(value, Path) else value)
