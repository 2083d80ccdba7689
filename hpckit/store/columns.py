"""One returned field over many tasks, as arrays.

A column is dense (every row has the same shape) or ragged (rows differ: their values lie
one behind the other, with a shape for each row). A row may be absent: its task failed, or
returned no such field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

INT64 = np.iinfo(np.int64)
TEXT = np.dtype(object)
"""The type of a column of strings; no other Python object is ever stored."""

NO_AXIS = -1
"""Pads the shape of a ragged row that has fewer axes than others; alone, it means absent."""


@dataclass(frozen=True)
class Field:
    """What a column holds: its type, and the shape of a row (None where rows differ)."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None
    rank: int
    """How many axes the row with the most axes has."""

    def joined(self, other: Field) -> Field:
        """Return the field that holds the rows of both; the order does not matter."""
        same = self.shape is not None and self.shape == other.shape
        return Field(
            joined_dtype(self.dtype, other.dtype),
            self.shape if same else None,
            max(self.rank, other.rank),
        )


@dataclass(frozen=True, eq=False)
class Column:
    """The values of one field.

    Attributes
    ----------
    values
        Shape (rows, ...) where dense, (sum of the rows' sizes,) where ragged.
    present
        Shape (rows,), bool.
    shapes
        None where dense, else (rows, rank) int64, padded with `NO_AXIS`.
    """

    values: NDArray[Any]
    present: NDArray[np.bool_]
    shapes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.present)

    @property
    def field(self) -> Field:
        """Describe the column."""
        if self.shapes is None:
            shape = self.values.shape[1:]
            return Field(self.values.dtype, shape, len(shape))
        return Field(self.values.dtype, None, self.shapes.shape[1])

    def rows(self) -> list[NDArray[Any] | None]:
        """Return each row as an array of its own shape, None where it is absent."""
        if self.shapes is None:
            return [
                self.values[i : i + 1].reshape(self.values.shape[1:]) if there else None
                for i, there in enumerate(self.present)
            ]
        ends = np.cumsum(row_sizes(self.shapes))
        starts = ends - row_sizes(self.shapes)
        return [
            self.values[start:end].reshape([int(n) for n in shape if n != NO_AXIS])
            if there
            else None
            for start, end, shape, there in zip(
                starts, ends, self.shapes, self.present, strict=True
            )
        ]


def row_sizes(shapes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of values in each ragged row; an absent row (first axis -1) has none.

    Rows of rank 0 among rows with axes are told from absent ones by the column's mask; they
    are stored with one axis of length 1.
    """
    if shapes.shape[1] == 0:
        return np.zeros(len(shapes), np.int64)
    sizes = np.prod(np.where(shapes == NO_AXIS, 1, shapes), axis=1)
    return np.where(shapes[:, 0] == NO_AXIS, 0, sizes)


def joined_dtype(one: np.dtype[Any], two: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that holds values of both: NumPy's promotion; text where one is text."""
    if one == two:
        return one
    return TEXT if TEXT in (one, two) else np.result_type(one, two)


def storable(name: str, value: Any) -> Any:
    """Return a task's value in the form that `from_values` takes.

    Raises
    ------
    TypeError
        HDF5 has no native type for it.
    """
    kind = type(value)
    if kind in (float, bool, str, complex) or value is None:
        return value
    if kind is int:
        if INT64.min <= value <= INT64.max:
            return value
        raise TypeError(f"field {name!r}: the integer {value} does not fit into 64 bits")
    array = np.asarray(value)
    if array.dtype.kind in "US":
        return array.astype(str).astype(object) if array.ndim else str(array.astype(str))
    if array.dtype.kind in "biufc" and array.dtype.itemsize <= 8 * (1 + (array.dtype.kind == "c")):
        native: NDArray[Any] = array.astype(array.dtype.newbyteorder("="), copy=False)
        # The engine returns the batch later: the task may reuse its buffer until then.
        return native.copy() if isinstance(value, np.ndarray) else native
    raise TypeError(
        f"field {name!r}: a {kind.__name__} cannot be stored: return numbers, bools, strings, "
        "or NumPy arrays of them"
    )


def from_values(values: Sequence[Any]) -> Column | None:
    """Make a column of what `storable` let pass; None is an absent row.

    Returns None where every row is absent: such a column has no type, and must not decide
    that of the rows it is joined with.
    """
    kinds = set(map(type, values))
    if len(kinds) == 1 and kinds <= {float, int, bool, complex}:
        return Column(np.array(values), np.ones(len(values), bool))
    if kinds == {str}:
        return Column(_text_array(values), np.ones(len(values), bool))
    rows = [None if value is None else _row(value) for value in values]
    there = [row for row in rows if row is not None]
    field = _joined_field(Field(row.dtype, row.shape, row.ndim) for row in there)
    present = np.array([row is not None for row in rows], bool)
    return None if field is None else _stacked(rows, present, field)


def scattered(
    count: int, field: Field, parts: Iterable[tuple[NDArray[np.int64], Column]]
) -> Column:
    """Put the rows of several columns at given positions of a new one of `count` rows."""
    if field.shape is None:
        rows: list[NDArray[Any] | None] = [None] * count
        for positions, part in parts:
            for position, row in zip(positions.tolist(), part.rows(), strict=True):
                rows[position] = row
        return _stacked(rows, np.array([row is not None for row in rows], bool), field)
    values = np.full((count, *field.shape), fill_value(field.dtype), field.dtype)
    present = np.zeros(count, bool)
    for positions, part in parts:
        there = positions[part.present]
        values[there] = _cast(part.values[part.present], field.dtype)
        present[there] = True
    return Column(values, present)


def fill_value(dtype: np.dtype[Any]) -> Any:
    """Return what stands for an absent value of a type in memory and in the file."""
    match dtype.kind:
        case "f" | "c":
            return dtype.type(np.nan)
        case "i":
            return dtype.type(np.iinfo(dtype).min)
        case "u":
            return dtype.type(np.iinfo(dtype).max)
        case "O":
            return ""
    return False


def _stacked(
    rows: Sequence[NDArray[Any] | None], present: NDArray[np.bool_], field: Field
) -> Column:
    if field.shape is not None:
        values = np.full((len(rows), *field.shape), fill_value(field.dtype), field.dtype)
        for index, row in enumerate(rows):
            if row is not None:
                values[index, ...] = _cast(row, field.dtype)
        return Column(values, present)
    rank = max(field.rank, 1)
    shapes = np.full((len(rows), rank), NO_AXIS, np.int64)
    flat = []
    for index, row in enumerate(rows):
        if row is not None:
            shape = row.shape or (1,)
            shapes[index, : len(shape)] = shape
            flat.append(_cast(row.reshape(-1), field.dtype))
    values = np.concatenate(flat) if flat else np.zeros(0, field.dtype)
    return Column(values, present, shapes)


def _row(value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    return _text_array([value])[0:1].reshape(()) if isinstance(value, str) else np.asarray(value)


def _text_array(values: Sequence[str]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _joined_field(fields: Iterable[Field]) -> Field | None:
    joined = None
    for field in fields:
        joined = field if joined is None else joined.joined(field)
    return joined


def _cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype == TEXT and values.dtype != TEXT:
        return _text_array([str(item) for item in values.reshape(-1).tolist()]).reshape(
            values.shape
        )
    return values.astype(dtype, copy=False)
