"""Arrays, columns and blocks as plain JSON values, checked when they are read."""

from __future__ import annotations

import binascii
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpckit.spec.names import is_name, is_text
from hpckit.store.block import REFERENCE, Block, TaskState
from hpckit.store.columns import NO_AXIS, TEXT, Column, row_sizes
from hpckit.store.partials import Partials, Pool

T = TypeVar("T")

NUMERIC = frozenset(
    {"|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8"}
    | {"<f2", "<f4", "<f8", "<c8", "<c16"}
)
"""Types of arrays that may travel, beside text."""

MAX_AXES = 32
_PARTS = ("file", "row", "crc")
DETAILS = {"start": "<f8", "duration": "<f8", "attempts": "<i4", "worker": "<i4"}
"""What a block says of each of its tasks, at least."""


class WireError(ValueError):
    """A message that is not what it should be.

    Attributes
    ----------
    call
        The session, number and turn of the call that it is about, where that could be read.
    """

    call: tuple[str, int, int] | None = None


def require(condition: bool, problem: str) -> None:
    """Refuse a message.

    Raises
    ------
    WireError
        The condition does not hold.
    """
    if not condition:
        raise WireError(f"a message {problem}")


def entry(raw: dict[str, Any], key: str, kind: type[T]) -> T:
    """Return an entry of a JSON object that must be of a type.

    Raises
    ------
    WireError
        It is missing, or of another type.
    """
    value = raw.get(key)
    if type(value) is not kind:
        raise WireError(f"a message has no {kind.__name__} under {key!r}")
    return value


def array_to(array: NDArray[Any], *, is_row_wise: bool = False) -> dict[str, Any]:
    """Return an array of numbers or of strings as JSON values.

    Parameters
    ----------
    is_row_wise
        Its reader knows its length: one value may stand for all, such as the worker of a batch.
    """
    if array.dtype == TEXT:
        return {"shape": list(array.shape), "text": array.reshape(-1).tolist()}
    little = array.dtype.newbyteorder("<")
    raw = np.ascontiguousarray(array, little).tobytes()
    described = {"dtype": little.str, "shape": list(array.shape)}
    first = raw[: array.itemsize]
    if is_row_wise and array.ndim == 1 and len(array) > 1 and raw == first * len(array):
        return {**described, "all": _base64(first)}
    return {**described, "data": _base64(raw)}


def array_from(raw: dict[str, Any], rows: int | None = None) -> NDArray[Any]:
    """Read an array; it can be written to.

    Parameters
    ----------
    rows
        The length that the first axis must have.

    Raises
    ------
    WireError
        It is none.
    """
    shape = entry(raw, "shape", list)
    known = all(type(n) is int and n >= 0 for n in shape) and len(shape) <= MAX_AXES
    require(known, "has an array of no shape")
    require(rows is None or shape[:1] == [rows], f"has an array of shape {shape} for {rows} rows")
    if "text" in raw:
        return _texts_from(entry(raw, "text", list), shape)
    name = entry(raw, "dtype", str)
    require(name in NUMERIC, f"has an array of type {name!r}")
    dtype = np.dtype(name)
    if "all" in raw:
        require(rows is not None and len(shape) == 1, "has one value for an array of any length")
        return np.repeat(_numbers(raw, "all", dtype, 1), shape[0])
    size = 1
    for length in shape:
        size *= length
    return _numbers(raw, "data", dtype, size).reshape(shape).copy()


def block_to(block: Block) -> dict[str, Any]:
    """Return a block as JSON values."""
    return {
        "task": array_to(block.task),
        "state": array_to(block.state, is_row_wise=True),
        "details": {name: _column_to(column) for name, column in block.details.items()},
        "fields": {name: _column_to(column) for name, column in block.fields.items()},
        "stored": {name: _references_to(column) for name, column in block.stored.items()},
        "partials": None if block.partials is None else _partials_to(block.partials),
    }


def block_from(raw: dict[str, Any]) -> Block:
    """Read a block.

    Raises
    ------
    WireError
        It is none, or its parts do not fit together.
    """
    task = array_from(entry(raw, "task", dict))
    require(task.ndim == 1 and task.dtype == "<i8" and task.size > 0, "has no tasks")
    rows = len(task)
    state = array_from(entry(raw, "state", dict), rows)
    require(state.ndim == 1 and state.dtype == "|i1", "has no states of tasks")
    require(bool(np.isin(state, list(TaskState)).all()), "has unknown states of tasks")
    details = _columns_from(entry(raw, "details", dict), rows)
    for name, dtype in DETAILS.items():
        there = name in details and details[name].values.shape == (rows,)
        require(there and details[name].values.dtype == dtype, f"has no {name} of its tasks")
    fields = _columns_from(entry(raw, "fields", dict), rows)
    stored = entry(raw, "stored", dict)
    _require_names(stored)
    references = {name: _references_from(entry(stored, name, dict), rows) for name in stored}
    parts = raw.get("partials")
    partials = None if parts is None else _partials_from(entry(raw, "partials", dict))
    return Block(task, state, details, fields, references, partials)


def _references_to(column: Column) -> dict[str, Any]:
    return {part: array_to(column.values[part]) for part in _PARTS}


def _references_from(raw: dict[str, Any], rows: int) -> Column:
    references = np.zeros(rows, REFERENCE)
    for part in _PARTS:
        found = array_from(entry(raw, part, dict), rows)
        known = found.ndim == 1 and found.dtype == REFERENCE[part]
        require(known, f"has references without their {part}")
        references[part] = found
    return Column(references, references["file"] != 0)


def _partials_to(partials: Partials) -> dict[str, Any]:
    return {
        "task": array_to(partials.task),
        "span": array_to(partials.span),
        "form": array_to(partials.form),
        "pools": {
            name: {"values": array_to(pool.values), "sizes": array_to(pool.sizes)}
            for name, pool in partials.pools.items()
        },
    }


def _partials_from(raw: dict[str, Any]) -> Partials:
    task, span = (array_from(entry(raw, name, dict)) for name in ("task", "span"))
    form = array_from(entry(raw, "form", dict), len(task))
    known = task.ndim == span.ndim == form.ndim == 1 and form.dtype == TEXT
    require(known and task.dtype == span.dtype == "<i8", "has no merged results")
    pools = entry(raw, "pools", dict)
    _require_names(pools)
    found = {name: _pool_from(entry(pools, name, dict), len(task)) for name in pools}
    return Partials(task, span, form, found)


def _pool_from(raw: dict[str, Any], count: int) -> Pool:
    values = array_from(entry(raw, "values", dict))
    sizes = array_from(entry(raw, "sizes", dict), count)
    known = values.ndim == sizes.ndim == 1 and sizes.dtype == "<i8" and bool((sizes >= 0).all())
    require(known and int(sizes.sum()) == len(values), "has merged results that do not fit")
    return Pool(values, sizes)


def _require_names(raw: dict[str, Any]) -> None:
    for name in raw:
        require(name.isidentifier() or is_name(name), f"has a field {name!r}")


def _columns_from(raw: dict[str, Any], rows: int) -> dict[str, Column]:
    _require_names(raw)
    return {name: _column_from(entry(raw, name, dict), rows) for name in raw}


def _column_to(column: Column) -> dict[str, Any]:
    present = column.present
    raw = {
        "values": array_to(column.values, is_row_wise=column.shapes is None),
        "present": True if present.all() else array_to(present),
    }
    return raw if column.shapes is None else {**raw, "shapes": array_to(column.shapes)}


def _column_from(raw: dict[str, Any], rows: int) -> Column:
    if raw.get("present") is True:
        present: NDArray[Any] = np.ones(rows, bool)
    else:
        present = array_from(entry(raw, "present", dict), rows)
        require(present.ndim == 1 and present.dtype == bool, "does not say which rows are there")
    if "shapes" not in raw:
        return Column(array_from(entry(raw, "values", dict), rows), present)
    shapes = array_from(entry(raw, "shapes", dict), rows)
    values = array_from(entry(raw, "values", dict))
    _check_shapes(shapes, present, len(values) if values.ndim == 1 else -1)
    return Column(values, present, shapes)


def _check_shapes(shapes: NDArray[Any], present: NDArray[Any], count: int) -> None:
    """Refuse shapes of ragged rows that do not fit the values: they say where each row lies."""
    known = shapes.ndim == 2 and shapes.shape[1] > 0 and shapes.dtype == "<i8"
    require(known and bool((shapes >= NO_AXIS).all()), "has no shapes of its rows")
    require(np.array_equal(shapes[:, 0] != NO_AXIS, present), "has shapes of rows not there")
    # In floating point, what does not fit into 64 bits is seen.
    lengths = np.where(shapes == NO_AXIS, 1, shapes).astype(float)
    exact = np.where(present, lengths.prod(axis=1), 0.0)
    sizes = row_sizes(shapes)
    fits = np.array_equal(exact, sizes.astype(float)) and exact.sum() == count
    require(fits, f"has shapes of rows for another number of values than {count}")


def _texts_from(texts: list[Any], shape: list[int]) -> NDArray[Any]:
    require(set(map(type, texts)) <= {str}, "has text that is none")
    require(is_text("".join(texts)), "has text with a zero byte or half a surrogate pair")
    array = np.empty(len(texts), object)
    array[:] = texts
    require(int(np.prod(shape, dtype=object)) == len(texts), f"has text not of shape {shape}")
    return array.reshape(shape)


def _numbers(raw: dict[str, Any], key: str, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    try:
        data = binascii.a2b_base64(entry(raw, key, str), strict_mode=True)
    except ValueError as error:
        raise WireError(f"a message has an array that is no base64: {error}") from None
    fits = len(data) == size * dtype.itemsize
    require(fits, f"has {len(data)} bytes for {size} values of type {dtype.str!r}")
    if dtype.kind == "b":
        require(not data.strip(b"\0\1"), "has bools beside true and false")
    return np.frombuffer(data, dtype)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
