"""How columns lie in an HDF5 file so that xarray and netCDF-4 open it as it is.

Every axis has a dimension scale, types are native, an absent value is NaN, an empty string
or the `_FillValue`. What that loses is kept beside it: the type before it was widened as an
attribute, and which rows are absent among finished tasks under ``hpckit/present``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.store.columns import NO_AXIS, TEXT, Column, Field, fill_value, row_sizes

LIBVER = ("earliest", "v110")
"""Readers down to HDF5 1.10 open what is written so."""

TYPE_ATTRIBUTE = "hpckit_type"
TEXT_TYPE = h5py.string_dtype("utf-8")
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable. "


def make_dimension(group: h5py.Group, name: str, length: int) -> h5py.Dataset:
    """Return the dimension scale called `name`, made without coordinates if it is not there."""
    if name in group:
        return group[name]
    scale = group.create_dataset(name, (length,), ">f4")
    scale.make_scale(f"{DIMENSION_ONLY}{length:10d}")
    return scale


def attach(dataset: h5py.Dataset, scales: list[h5py.Dataset]) -> None:
    """Name the axes of a dataset."""
    for axis, scale in enumerate(scales):
        dataset.dims[axis].attach_scale(scale)


def create_variable(
    group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], missing: bool
) -> h5py.Dataset:
    """Make an empty variable that reads back as `dtype`; `missing`: it will have absent rows."""
    stored = _stored_type(dtype, missing)
    variable = group.create_dataset(name, shape, stored)
    if dtype.kind == "b":
        # xarray's own convention for a bool in a netCDF file, which has none.
        variable.attrs[TYPE_ATTRIBUTE if missing else "dtype"] = "bool"
    elif stored != TEXT_TYPE and stored != dtype:
        variable.attrs[TYPE_ATTRIBUTE] = dtype.str
    if missing and dtype.kind in "biu":
        variable.attrs["_FillValue"] = fill_value(np.dtype(stored))
    return variable


class ColumnWriter:
    """Writes one column along a dimension, window by window."""

    def __init__(
        self, group: h5py.Group, name: str, along: h5py.Dataset, field: Field, missing: bool
    ) -> None:
        self.group = group
        self.name = name
        self.field = field
        self.along = along
        self.written = 0
        count = along.shape[0]
        if field.shape is None:
            self._create_ragged(count)
            return
        self.values = create_variable(group, name, (count, *field.shape), field.dtype, missing)
        axes = [
            make_dimension(group, f"{name}_{axis}", length)
            for axis, length in enumerate(field.shape)
        ]
        attach(self.values, [along, *axes])

    def write(self, start: int, column: Column) -> None:
        """Write the rows from `start` on."""
        stop = start + len(column)
        if column.shapes is None:
            self.values[start:stop] = _stored_values(column, self.values.dtype)
            return
        sizes = row_sizes(column.shapes)
        offsets = self.written + np.cumsum(sizes) - sizes
        self.group[f"{self.name}_offset"][start:stop] = offsets
        self.group[f"{self.name}_shape"][start:stop] = column.shapes
        end = self.written + int(sizes.sum())
        self.values.resize((end,))
        self.values[self.written : end] = column.values
        self.written = end

    def close(self) -> None:
        """Give a ragged column's values their dimension, whose length is known only now."""
        if self.field.shape is None:
            attach(self.values, [make_dimension(self.group, f"{self.name}_value", self.written)])

    def _create_ragged(self, count: int) -> None:
        stored = _stored_type(self.field.dtype, missing=False)
        self.values = self.group.create_dataset(
            self.name, (0,), stored, maxshape=(None,), chunks=(1 << 14,)
        )
        if self.field.dtype.kind == "b":
            self.values.attrs["dtype"] = "bool"
        self.values.attrs["hpckit_ragged"] = (
            f"row i starts at {self.name}_offset[i] and has the shape {self.name}_shape[i]"
        )
        rank = max(self.field.rank, 1)
        offset = self.group.create_dataset(f"{self.name}_offset", (count,), np.int64)
        shape = self.group.create_dataset(f"{self.name}_shape", (count, rank), np.int64)
        attach(offset, [self.along])
        attach(shape, [self.along, make_dimension(self.group, f"{self.name}_axis", rank)])


def read_field(variable: h5py.Dataset) -> Field:
    """Return what a variable written by a `ColumnWriter` holds."""
    dtype = _logical_type(variable)
    if "hpckit_ragged" in variable.attrs:
        return Field(dtype, None, variable.parent[f"{_base(variable)}_shape"].shape[1])
    return Field(dtype, variable.shape[1:], variable.ndim - 1)


def read_column(
    variable: h5py.Dataset, start: int, stop: int, present: NDArray[np.bool_]
) -> Column:
    """Read the rows from `start` to `stop`; `present` tells which of them there are."""
    field = read_field(variable)
    if field.shape is not None:
        return Column(_logical_values(variable, start, stop, field.dtype), present)
    name, group = _base(variable), variable.parent
    shapes = group[f"{name}_shape"][start:stop]
    offsets = group[f"{name}_offset"][start:stop]
    first = int(offsets[0]) if len(offsets) else 0
    last = int(offsets[-1] + row_sizes(shapes)[-1]) if len(offsets) else 0
    values = _logical_values(variable, first, last, field.dtype)
    return Column(values, shapes[:, 0] != NO_AXIS, shapes)


def is_column(item: object) -> bool:
    """Tell a variable that a `ColumnWriter` wrote from its helpers and from dimensions."""
    if not isinstance(item, h5py.Dataset) or item.is_scale:
        return False
    name, group = _base(item), item.parent
    for suffix in ("_offset", "_shape"):
        if name.endswith(suffix):
            owner = group.get(name.removesuffix(suffix))
            if owner is not None and "hpckit_ragged" in owner.attrs:
                return False
    return True


def set_attributes(item: h5py.Dataset, attributes: Mapping[str, Any]) -> None:
    """Give a variable its units, long_name and the like."""
    for key, value in attributes.items():
        item.attrs[key] = value


def _base(variable: h5py.Dataset) -> str:
    return str(variable.name.rsplit("/", 1)[-1])


def _stored_type(dtype: np.dtype[Any], missing: bool) -> Any:
    if dtype == TEXT:
        return TEXT_TYPE
    if dtype.kind == "b":
        return np.dtype(np.int8)
    if missing and dtype.kind in "iu" and dtype.itemsize < 4:
        # No value of so small a type is free to stand for "absent".
        return np.dtype(np.int32)
    return dtype


def _stored_values(column: Column, stored: np.dtype[Any]) -> NDArray[Any]:
    values = column.values
    if values.dtype == TEXT or values.dtype == stored:
        return values
    widened = values.astype(stored)
    if not column.present.all():
        widened[~column.present] = fill_value(stored)
    return widened


def _logical_type(variable: h5py.Dataset) -> np.dtype[Any]:
    if h5py.check_string_dtype(variable.dtype) is not None:
        return TEXT
    kept = variable.attrs.get(TYPE_ATTRIBUTE, variable.attrs.get("dtype"))
    return np.dtype(kept) if kept is not None else variable.dtype


def _logical_values(
    variable: h5py.Dataset, start: int, stop: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    if dtype == TEXT:
        return np.asarray(variable.asstr()[start:stop], object)
    values = variable[start:stop]
    return np.asarray(values != 0 if dtype.kind == "b" else values.astype(dtype, copy=False))
