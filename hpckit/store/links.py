"""Fields of a farm's results.h5 that stay where the workers wrote them, and are linked to.

Copying them would read and write all of it a second time. A virtual dataset (HDF5 RFC "Virtual
Dataset", 2014) shows the rows in the order of the tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.store.arrays import ROWS, Spill, array_path
from hpckit.store.blockfile import Schema
from hpckit.store.columns import field_bytes
from hpckit.store.coverage import Coverage
from hpckit.store.layout import COPY_LIMIT

MOST_RANGES = 4096
"""Of rows in a virtual dataset; HDF5 looks through all of them at each read."""

WINDOW_BYTES = 32 << 20


def references_to_link(coverage: Coverage, schema: Schema) -> dict[str, NDArray[Any]]:
    """Return the fields to be linked, with a reference to each row; shape (tasks,).

    Rows that came through the driver are written to a file of arrays as well.

    Raises
    ------
    StoreError
        They cannot be written, or a source does not read back.
    """
    found = {}
    for name in schema.stored:
        references = coverage.references(name)
        if _is_worth_it(coverage, schema, name, references):
            references = _with_inline_rows(coverage, schema, name, references)
            if sum(1 for _ in _ranges(references)) <= MOST_RANGES:
                found[name] = references
    return found


def layout(
    coverage: Coverage, schema: Schema, name: str, references: NDArray[Any], results: Path
) -> h5py.VirtualLayout:
    """Return what shows a field's rows out of the files of arrays, which are final then.

    Parameters
    ----------
    results
        The path of results.h5: links are relative to its folder.

    Raises
    ------
    StoreError
        A file is not there, or cannot be written.
    """
    field = schema.fields[name]
    assert field.shape is not None
    shown = h5py.VirtualLayout((len(references), *field.shape), field.dtype)
    sources: dict[int, h5py.VirtualSource] = {}
    for start, stop, number, row in _ranges(references):
        if number not in sources:
            path = array_path(coverage.arrays.folder, number).relative_to(results.parent)
            shape = (coverage.arrays.finish(number), *field.shape)
            sources[number] = h5py.VirtualSource(str(path), ROWS, shape, field.dtype)
        shown[start:stop] = sources[number][row : row + stop - start]
    return shown


def _is_worth_it(coverage: Coverage, schema: Schema, name: str, references: NDArray[Any]) -> bool:
    field = schema.fields[name]
    if field.shape is None:
        return False
    total = np.count_nonzero(references["file"]) * field_bytes(field)
    numbers = np.unique(references["file"])
    alike = all(coverage.arrays.field(n) == field for n in numbers[numbers != 0].tolist())
    return alike and bool(total > COPY_LIMIT)


def _with_inline_rows(
    coverage: Coverage, schema: Schema, name: str, references: NDArray[Any]
) -> NDArray[Any]:
    alone = Schema({name: schema.fields[name]}, {}, {name})
    spill = Spill(coverage.arrays.folder)
    rows = max(WINDOW_BYTES // field_bytes(schema.fields[name]), 1)
    for start in range(0, len(references), rows):
        window = references[start : start + rows]
        if (window["file"] == 0).any():
            column = coverage.block(alone, start, start + len(window)).fields.get(name)
            if column is not None and column.present.any():
                put = spill.put(name, column)
                window[put.present] = put.values[put.present]
    spill.sync()
    return references


def _ranges(references: NDArray[Any]) -> Iterator[tuple[int, int, int, int]]:
    """Cut tasks into runs of rows that follow each other: first, last + 1, file, first row."""
    file, row = references["file"], references["row"]
    breaks = (np.diff(file) != 0) | ((np.diff(row) != 1) & (file[1:] != 0))
    bounds = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(references)]
    for start, stop in pairwise(bounds):
        if file[start]:
            yield start, stop, int(file[start]), int(row[start])
