"""A hash of results, not of bytes on disk: equal for runs that computed the same.

Names, types, shapes and values count; times, worker, texts of errors and the way the data
lie in the file do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.store.blockfile import PARAMETER_ATTRIBUTE, BlockFile, is_farm
from hpckit.store.columns import TEXT, Column, fill_value
from hpckit.store.fields import require_sources
from hpckit.store.layout import (
    DIMENSION_ONLY,
    is_column,
    is_reduced,
    read_column,
    read_field,
    regions,
    row_bytes,
)
from hpckit.store.reading import reading

WINDOW_BYTES = 32 << 20
"""About how much is hashed at a time."""


def digest(path: Path) -> str:
    """Return the sha256, in hex, of the results in a results.h5.

    Raises
    ------
    StoreError
        As `variable_digests`.
    """
    return combined(variable_digests(path))


def combined(digests: Mapping[str, str]) -> str:
    """Return the sha256, in hex, of what `variable_digests` gave."""
    total = hashlib.sha256()
    for name, value in sorted(digests.items()):
        total.update(f"{name}={value}\n".encode())
    return total.hexdigest()


def variable_digests(path: Path) -> dict[str, str]:
    """Return the sha256 of each variable in a results.h5.

    Raises
    ------
    StoreError
        The file does not read back, or a file that it points at is missing.
    """
    require_sources(path)
    with reading(path) as file:
        return _farm_digests(file) if is_farm(file) else _field_digests(file)


def _farm_digests(file: h5py.File) -> dict[str, str]:
    source = BlockFile.checked(file)
    names = [name for name, item in file.items() if is_column(item)]
    found = {name: _column_digest(source, name) for name in names}
    return found | {n: _field_digest(item) for n, item in file.items() if is_reduced(item)}


def _column_digest(source: BlockFile, name: str) -> str:
    variable = source.file[name]
    field = read_field(variable)
    values = hashlib.sha256(f"{_type_name(field.dtype)}{field.shape}".encode())
    present, shapes = hashlib.sha256(), hashlib.sha256()
    rows = max(WINDOW_BYTES // max(row_bytes(variable), 1), 1)
    for start in range(0, len(source.task), rows):
        stop = min(start + rows, len(source.task))
        column = read_column(variable, start, stop, _present(source, name, start, stop))
        present.update(column.present.tobytes())
        if column.shapes is not None:
            shapes.update(column.shapes.astype("<i8").tobytes())
        values.update(_canonical(_without_absent(column)))
    values.update(present.digest() + shapes.digest())
    return values.hexdigest()


def _present(source: BlockFile, name: str, start: int, stop: int) -> NDArray[np.bool_]:
    is_parameter = PARAMETER_ATTRIBUTE in source.file[name].attrs
    if is_parameter or name == "task_state":
        return np.ones(stop - start, bool)
    return source.present(name, start, stop)


def _without_absent(column: Column) -> NDArray[Any]:
    if column.shapes is not None or column.present.all():
        return column.values
    values = column.values.copy()
    values[~column.present] = fill_value(values.dtype)
    return values


def _field_digests(file: h5py.File) -> dict[str, str]:
    found = {}
    for name, item in file.items():
        label = item.attrs.get("NAME", b"")
        if isinstance(item, h5py.Dataset) and not bytes(label).startswith(DIMENSION_ONLY.encode()):
            found[name] = _field_digest(item)
    return found


def _field_digest(item: h5py.Dataset) -> str:
    total = hashlib.sha256(f"{_type_name(item.dtype)}{item.shape}".encode())
    for region in regions(item.shape, item.dtype.itemsize, WINDOW_BYTES):
        total.update(_canonical(np.asarray(item[region])))
    return total.hexdigest()


def _type_name(dtype: np.dtype[Any]) -> str:
    return "text" if dtype == TEXT else dtype.newbyteorder("<").str


def _canonical(values: NDArray[Any]) -> bytes:
    """Return bytes that differ where the values do: little-endian, one NaN, sized strings.

    Zeros of different sign differ: the promise is the same answer bit for bit.
    """
    if values.dtype == TEXT:
        encoded = [str(item).encode() for item in values.reshape(-1).tolist()]
        return b"".join(len(item).to_bytes(8, "little") + item for item in encoded)
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag], axis=-1)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
