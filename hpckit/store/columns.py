"""One returned field over many tasks, as arrays.

A column is dense (every row has the same shape) or ragged (rows differ: their values lie
one behind the other, with a shape for each row). A row may be absent: its task failed, or
returned no such field.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.store.storable import storable, text_array

__all__ = [
    "NO_AXIS",
    "TEXT",
    "Column",
    "Field",
    "fill_value",
    "from_values",
    "joined_dtype",
    "masked",
    "row_sizes",
    "scattered",
    "storable",
]

TEXT = np.dtype(object)
"""The type of a column of strings; no other Python object is ever stored."""

LARGEST_EXACT = 2**53
"""Below this, an integer is the same number in double precision."""

NO_AXIS = -1
"""Pads the shape of a ragged row that has fewer axes than others; alone, it means absent."""


@dataclass(frozen=True)
class Field:
    """What a column holds: its type, and the shape of a row (None where rows differ)."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None
    rank: int
    """How many axes the row with the most axes has."""
    large: bool = False
    """Whether it holds integers that may be others in double precision."""

    def joined(self, other: Field) -> Field:
        """Return the field that holds the rows of both; the order does not matter.

        Large integers and what only double precision holds become text, which keeps both.
        """
        same = self.shape is not None and self.shape == other.shape
        dtype = joined_dtype(self.dtype, other.dtype)
        large = self.large or other.large
        if large and dtype.kind in "fc":
            dtype = TEXT
        return Field(
            dtype,
            self.shape if same else None,
            max(self.rank, other.rank),
            large and dtype != TEXT,
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
            large = _is_large(self.values, self.present)
            return Field(self.values.dtype, shape, len(shape), large)
        return Field(self.values.dtype, None, self.shapes.shape[1], _is_large(self.values))

    def only(self, kept: NDArray[np.bool_]) -> Column:
        """Return the column of some rows; `kept` has shape (rows,)."""
        if self.shapes is None:
            return Column(self.values[kept], self.present[kept])
        values = self.values[np.repeat(kept, row_sizes(self.shapes))]
        return Column(values, self.present[kept], self.shapes[kept])

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


def field_bytes(field: Field) -> int:
    """Return the bytes of a dense row, at least 1."""
    return max(field.dtype.itemsize * math.prod(field.shape or ()), 1)


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
    """Return the type that holds values of both, but for large integers; text where one is text.

    It is NumPy's promotion, but for integers among floats, which are always held in double
    precision: NumPy's int16 + float32 is float32, yet (int16 + uint16) + float32 is float64,
    so that the type would depend on which rows were joined first.
    """
    if one == two:
        return one
    if TEXT in (one, two):
        return TEXT
    kinds = {one.kind, two.kind}
    if "b" in kinds or kinds <= {"i", "u"} or kinds <= {"f", "c"}:
        return np.result_type(one, two)
    return np.result_type(one, two, np.float64)


def from_values(values: Sequence[Any]) -> Column | None:
    """Make a column of what `storable` let pass; None is an absent row.

    Returns None where every row is absent: such a column has no type, and must not decide
    that of the rows it is joined with.
    """
    kinds = set(map(type, values))
    if len(kinds) == 1:
        kind = kinds.pop()
        if kind in (float, int, bool, complex) or issubclass(kind, np.generic):
            return Column(np.array(values), np.ones(len(values), bool))
        if kind is str:
            return Column(text_array(values), np.ones(len(values), bool))
    rows = [None if value is None else _row(value) for value in values]
    there = [row for row in rows if row is not None]
    field = _joined_field(there)
    present = np.array([row is not None for row in rows], bool)
    return None if field is None else _stacked(rows, present, field)


def scattered(
    count: int, field: Field, parts: Iterable[tuple[NDArray[np.int64], Column]]
) -> Column:
    """Put the rows of several columns at given positions of a new one of `count` rows."""
    if field.shape is None:
        return _scattered_ragged(count, field, list(parts))
    values = np.full((count, *field.shape), fill_value(field.dtype), field.dtype)
    present = np.zeros(count, bool)
    for positions, part in parts:
        there = positions[part.present]
        values[there] = _cast(part.values[part.present], field.dtype)
        present[there] = True
    return Column(values, present)


def masked(column: Column, kept: NDArray[np.bool_]) -> Column:
    """Make the rows absent that are not kept; `kept` has shape (rows,)."""
    if column.shapes is None:
        return Column(column.values, column.present & kept)
    values = column.values[np.repeat(kept, row_sizes(column.shapes))]
    shapes = np.where(kept[:, None], column.shapes, NO_AXIS)
    return Column(values, column.present & kept, shapes)


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
        case "V":
            return np.zeros((), dtype)[()]
    return False


def _stacked(
    rows: Sequence[NDArray[Any] | None], present: NDArray[np.bool_], field: Field
) -> Column:
    if field.shape is not None:
        if present.all() and all(row is not None and row.dtype == field.dtype for row in rows):
            return Column(np.stack([row for row in rows if row is not None]), present)
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
    return text_array([value])[0:1].reshape(()) if isinstance(value, str) else np.asarray(value)


def _joined_field(rows: Sequence[NDArray[Any]]) -> Field | None:
    if not rows:
        return None
    joined = reduce(Field.joined, (Field(row.dtype, row.shape, row.ndim) for row in rows))
    # Looked for only where it matters, and not in each row of a farm.
    if joined.dtype.kind in "fc" and any(map(_is_large, rows)):
        return replace(joined, dtype=TEXT)
    return joined


def _is_large(values: NDArray[Any], present: NDArray[np.bool_] | None = None) -> bool:
    """Tell whether integers from `LARGEST_EXACT` on are among the values of the present rows."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8:
        return False
    known = values if present is None or present.all() else values[present]
    return bool(known.size and (known.max() >= LARGEST_EXACT or known.min() <= -LARGEST_EXACT))


def _cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype == TEXT and values.dtype != TEXT:
        exact = np.float64 if values.dtype.kind == "f" else values.dtype
        texts = [_number_text(item) for item in values.astype(exact).reshape(-1).tolist()]
        return text_array(texts).reshape(values.shape)
    return values.astype(dtype, copy=False)


def _number_text(number: Any) -> str:
    """Write a number as it would be written after any promotion: True, 1 and 1.0 are ``1``.

    Which numbers were promoted before they met a text depends on how tasks were batched.
    """
    if isinstance(number, complex):
        if repr(number.imag) != "0.0":
            return repr(number)
        number = number.real
    if isinstance(number, float):
        exact = number.is_integer() and abs(number) < LARGEST_EXACT
        return f"{number:.0f}" if exact else repr(number)
    return str(int(number))


def _scattered_ragged(
    count: int, field: Field, parts: Sequence[tuple[NDArray[np.int64], Column]]
) -> Column:
    """Scatter rows without a Python loop over them: lengths first, then the values."""
    shapes = np.full((count, max(field.rank, 1)), NO_AXIS, np.int64)
    present = np.zeros(count, bool)
    for positions, part in parts:
        there = positions[part.present]
        own = _row_shapes(part)[part.present]
        shapes[there, : own.shape[1]] = own
        present[there] = True
    sizes = row_sizes(shapes)
    starts = np.cumsum(sizes) - sizes
    values = np.empty(int(sizes.sum()), field.dtype)
    for positions, part in parts:
        flat = part.values if part.shapes is not None else part.values[part.present].reshape(-1)
        there = positions[part.present]
        lengths = sizes[there]
        shift = starts[there] - (np.cumsum(lengths) - lengths)
        values[np.arange(len(flat)) + np.repeat(shift, lengths)] = _cast(flat, field.dtype)
    return Column(values, present, shapes)


def _row_shapes(column: Column) -> NDArray[np.int64]:
    """Return each row's shape as a ragged column has it; shape (rows, rank)."""
    if column.shapes is not None:
        return column.shapes
    shape = column.values.shape[1:] or (1,)
    return np.tile(np.array(shape, np.int64), (len(column), 1))
