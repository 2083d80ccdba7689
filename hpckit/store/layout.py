"""How columns lie in an HDF5 file so that xarray and netCDF-4 open it as it is.

Every axis has a dimension scale, types are native, an absent value is NaN, an empty string
or the `_FillValue`. What that loses is kept beside it: the type before it was widened as an
attribute, and which rows are absent among finished tasks under ``hpckit/present``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.store.columns import NO_AXIS, TEXT, Column, Field, fill_value, row_sizes
from hpckit.store.storable import is_numeric

LIBVER = ("earliest", "v110")
"""Readers down to HDF5 1.10 open what is written so."""

COPY_LIMIT = 64 << 20
"""Bytes of fields up to which results.h5 holds plain copies of what other files hold."""

TYPE_ATTRIBUTE = "hpckit_type"
LARGE = "hpckit_large"
RAGGED = "hpckit_ragged"
OFFSET = "hpckit_offset"
SHAPE = "hpckit_shape"
HELPER = "hpckit_helper"
REDUCED = "hpckit_reduced"
"""Marks what was made of all tasks; the value tells of how many."""

TEXT_BYTES = 256
"""What a string is taken to need in memory."""

TEXT_TYPE = h5py.string_dtype("utf-8")
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable. "


def make_dimension(group: h5py.Group, name: str, length: int) -> h5py.Dataset:
    """Return the dimension scale called `name`, made without coordinates if it is not there."""
    if name in group:
        return group[name]
    # An ordered file keeps attributes in a heap. The list of what is attached to a scale is
    # one, and would otherwise end at 64 kB, which is at some 4,000 variables.
    scale = group.create_dataset(name, (length,), ">f4", track_order=True)
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
    _note_type(variable, dtype, missing)
    if missing and dtype.kind in "biu":
        variable.attrs["_FillValue"] = fill_value(np.dtype(stored))
    return variable


def create_link(
    group: h5py.Group, name: str, link: h5py.VirtualLayout, missing: bool
) -> h5py.Dataset:
    """Make a variable that shows the values of other files."""
    nothing = fill_value(np.dtype(link.dtype))
    variable = group.create_virtual_dataset(name, link, fillvalue=nothing)
    if missing and link.dtype.kind in "iu":
        variable.attrs["_FillValue"] = nothing
    return variable


class ColumnWriter:
    """Writes one column along a dimension, window by window."""

    def __init__(
        self,
        group: h5py.Group,
        name: str,
        along: h5py.Dataset,
        field: Field,
        *,
        missing: bool,
        taken: Collection[str],
        link: h5py.VirtualLayout | None = None,
    ) -> None:
        """Make the variable.

        Parameters
        ----------
        missing
            It will have absent rows.
        taken
            Names that helpers and dimensions must leave free for other variables.
        link
            Shows the values of other files; then nothing is written. For a dense field only.
        """
        self.group = group
        self.name = name
        self.field = field
        self.along = along
        self.taken = taken
        self.written = 0
        count = along.shape[0]
        if field.shape is None:
            self._create_ragged(count)
        else:
            self.values = (
                create_variable(group, name, (count, *field.shape), field.dtype, missing)
                if link is None
                else create_link(group, name, link, missing)
            )
            axes = [
                make_dimension(group, self._free(str(axis)), length)
                for axis, length in enumerate(field.shape)
            ]
            attach(self.values, [along, *axes])
        if field.large:
            self.values.attrs[LARGE] = 1

    def write(self, start: int, column: Column) -> None:
        """Write the rows from `start` on."""
        stop = start + len(column)
        if column.shapes is None:
            self.values[start:stop] = _stored_values(column, self.values.dtype)
            return
        sizes = row_sizes(column.shapes)
        offsets = self.written + np.cumsum(sizes) - sizes
        self.offset[start:stop] = offsets
        self.shape[start:stop] = column.shapes
        end = self.written + int(sizes.sum())
        self.values.resize((end,))
        self.values[self.written : end] = column.values
        self.written = end

    def close(self) -> None:
        """Give a ragged column's values their dimension, whose length is known only now."""
        if self.field.shape is None:
            attach(self.values, [make_dimension(self.group, self._free("value"), self.written)])

    def _create_ragged(self, count: int) -> None:
        stored = _stored_type(self.field.dtype, missing=False)
        # Small chunks for few rows: a chunk takes its whole size in each segment.
        chunk = min(max(16 * count, 64), 1 << 14)
        self.values = self.group.create_dataset(
            self.name, (0,), stored, maxshape=(None,), chunks=(chunk,)
        )
        _note_type(self.values, self.field.dtype, missing=False)
        rank = max(self.field.rank, 1)
        axis = make_dimension(self.group, self._free("axis"), rank)
        self.offset = self._helper("offset", OFFSET, [self.along])
        self.shape = self._helper("shape", SHAPE, [self.along, axis])
        self.values.attrs[RAGGED] = (
            f"row i starts at {self.values.attrs[OFFSET]}[i] and has the shape "
            f"{self.values.attrs[SHAPE]}[i]"
        )

    def _helper(self, suffix: str, role: str, axes: list[h5py.Dataset]) -> h5py.Dataset:
        name = self._free(suffix)
        helper = self.group.create_dataset(name, tuple(a.shape[0] for a in axes), np.int64)
        helper.attrs[HELPER] = self.name
        self.values.attrs[role] = name
        attach(helper, axes)
        return helper

    def _free(self, suffix: str) -> str:
        name = f"{self.name}_{suffix}"
        while name in self.taken or name in self.group:
            name += "_"
        return name


def read_field(variable: h5py.Dataset) -> Field:
    """Return what a variable written by a `ColumnWriter` holds.

    Raises
    ------
    ValueError
        Its type is none of those that are written.
    """
    dtype, large = _logical_type(variable), LARGE in variable.attrs
    if RAGGED in variable.attrs:
        return Field(dtype, None, ragged_shapes(variable).shape[1], large)
    return Field(dtype, variable.shape[1:], variable.ndim - 1, large)


def read_column(
    variable: h5py.Dataset, start: int, stop: int, present: NDArray[np.bool_]
) -> Column:
    """Read the rows from `start` to `stop`; `present` tells which of them there are.

    Raises
    ------
    ValueError
        The rows do not fit their values.
    """
    field = read_field(variable)
    if field.shape is not None:
        values = _logical_values(variable, start, stop, field.dtype)
        _require(len(values) == stop - start, variable)
        return Column(values, present)
    shapes = ragged_shapes(variable)[start:stop]
    offsets = variable.parent[variable.attrs[OFFSET]][start:stop]
    sizes = row_sizes(shapes)
    first = int(offsets[0]) if len(offsets) else 0
    behind = first + np.cumsum(sizes) - sizes
    _require(len(shapes) == stop - start and bool((shapes >= NO_AXIS).all()), variable)
    _require(np.array_equal(offsets, behind), variable)
    total = int(sizes.sum())
    values = _logical_values(variable, first, first + total, field.dtype)
    _require(len(values) == total, variable)
    return Column(values, shapes[:, 0] != NO_AXIS, shapes)


def is_column(item: object) -> bool:
    """Tell a variable with a row for each task from helpers, dimensions and the rest."""
    if not isinstance(item, h5py.Dataset) or item.is_scale:
        return False
    return HELPER not in item.attrs and REDUCED not in item.attrs


def is_reduced(item: object) -> bool:
    """Tell a variable, or its keys, that was made of all tasks and has no row for each."""
    return isinstance(item, h5py.Dataset) and REDUCED in item.attrs


def ragged_shapes(variable: h5py.Dataset) -> h5py.Dataset:
    """Return the dataset of a ragged variable's shapes, one row a task, padded with `NO_AXIS`."""
    return variable.parent[variable.attrs[SHAPE]]


def row_bytes(variable: h5py.Dataset) -> int:
    """Return about how much a row of a column takes in memory, on average where rows differ."""
    field = read_field(variable)
    size = TEXT_BYTES if field.dtype == TEXT else field.dtype.itemsize
    if field.shape is not None:
        return math.prod(field.shape) * size
    shapes = ragged_shapes(variable)
    return int(variable.shape[0] * size // max(shapes.shape[0], 1) + 8 * shapes.shape[1])


def regions(shape: tuple[int, ...], row: int, limit: int) -> Iterator[tuple[slice, ...]]:
    """Cut an array into blocks of at most `limit` bytes, in the order of its elements.

    Parameters
    ----------
    row
        Bytes of one element.
    """
    if 0 in shape:
        return
    if not shape:
        yield ()
        return
    below = math.prod(shape[1:]) * row
    step = max(limit // below, 1)
    for start in range(0, shape[0], step):
        here = slice(start, min(start + step, shape[0]))
        whole = [tuple(slice(0, length) for length in shape[1:])]
        inner = regions(shape[1:], row, limit) if below > limit else whole
        yield from ((here, *rest) for rest in inner)


def set_attributes(item: h5py.Dataset, attributes: Mapping[str, Any]) -> None:
    """Give a variable its units, long_name and the like."""
    for key, value in attributes.items():
        item.attrs[key] = value


def _require(fits: bool, variable: h5py.Dataset) -> None:
    if not fits:
        raise ValueError(f"the rows of {variable.name} do not fit their values")


def _note_type(variable: h5py.Dataset, dtype: np.dtype[Any], missing: bool) -> None:
    """Note the type of the values where the file has another one."""
    if dtype.kind == "b":
        # xarray's own convention for a bool in a netCDF file, which has none.
        variable.attrs[TYPE_ATTRIBUTE if missing else "dtype"] = "bool"
    elif dtype != TEXT and variable.dtype != dtype:
        variable.attrs[TYPE_ATTRIBUTE] = dtype.str


def _stored_type(dtype: np.dtype[Any], missing: bool) -> Any:
    if dtype == TEXT:
        return TEXT_TYPE
    if dtype.kind == "b":
        return np.dtype(np.int8)
    if dtype == np.float16:
        # netCDF has no such type, and its library crashes on it.
        return np.dtype(np.float32)
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
    dtype: np.dtype[Any] = variable.dtype if kept is None else np.dtype(kept)
    if not is_numeric(dtype):
        raise ValueError(f"{variable.name} has the type {dtype}")
    return dtype


def _logical_values(
    variable: h5py.Dataset, start: int, stop: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    if dtype == TEXT:
        return np.asarray(variable.asstr()[start:stop], object)
    values = variable[start:stop]
    return np.asarray(values != 0 if dtype.kind == "b" else values.astype(dtype, copy=False))
