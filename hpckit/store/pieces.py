"""Blocks of the fields that the ranks of an spmd run save, and whether they fit together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import HpckitError
from hpckit.spec.attributes import attribute_problem
from hpckit.spec.messages import listed
from hpckit.spec.names import FIELDS, STEP, is_name
from hpckit.store.storable import is_numeric

__all__ = ["STEP", "FieldError", "Piece", "check_records", "grouped"]

USABLE = "must be printable, hold no slash and no percent sign, and not be " + listed(FIELDS, "or")


class FieldError(HpckitError):
    """A field that the ranks saved does not fit together."""


@dataclass(frozen=True)
class Piece:
    """One rank's block of a field: what, and where in the whole."""

    name: str
    offset: tuple[int, ...]
    local: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    attributes: dict[str, Any]
    rank: int = 0

    @classmethod
    def of(
        cls,
        name: str,
        array: NDArray[Any],
        offset: Sequence[int] | None,
        shape: Sequence[int] | None,
        dims: Sequence[str] | None,
        attributes: Mapping[str, Any],
        rank: int,
    ) -> Piece:
        """Describe a block, after checking that it lies inside the whole.

        Raises
        ------
        FieldError
            Name, type, offset, shape, dims or attributes are unusable.
        """
        whole = array.shape if shape is None else tuple(int(n) for n in shape)
        start = (0,) * array.ndim if offset is None else tuple(int(n) for n in offset)
        names = tuple(dims or (f"{name}_{axis}" for axis in range(array.ndim)))
        problems = [
            _problem(name, array, start, whole, names),
            *(attribute_problem(key, value) for key, value in attributes.items()),
        ]
        if problem := next(filter(None, problems), None):
            raise FieldError(f"run.save({name!r}) on rank {rank}: {problem}")
        return cls(name, start, array.shape, whole, array.dtype.str, names, dict(attributes), rank)


def _problem(
    name: str,
    array: NDArray[Any],
    start: tuple[int, ...],
    whole: tuple[int, ...],
    dims: tuple[str, ...],
) -> str | None:
    for word in (name, *dims):
        if not _is_usable(word):
            return f"the name {word!r} {USABLE}"
    if array.dtype == np.float16:
        return "arrays of type float16 cannot be stored, netCDF has none: save it as float32"
    if not is_numeric(array.dtype):
        return f"arrays of type {array.dtype} cannot be stored: use numbers or bools"
    if not len(start) == len(whole) == array.ndim:
        return f"offset {start} and shape {whole} must have the array's {array.ndim} axes"
    if len(dims) != array.ndim or len(set(dims)) != len(dims):
        return f"dims {dims} must name each of the array's {array.ndim} axes once"
    if any(a < 0 or a + n > w for a, n, w in zip(start, array.shape, whole, strict=True)):
        return f"a block of shape {array.shape} at {start} leaves the whole of {whole}"
    return None


def _is_usable(name: str) -> bool:
    # HDF5 takes a percent sign in the name of a virtual source for a format.
    return isinstance(name, str) and is_name(name) and "%" not in name and name not in FIELDS


def grouped(pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    """Return the pieces of each field.

    Raises
    ------
    FieldError
        They do not cover it once, or differ in shape, type or dims; or two fields use a
        dimension differently.
    """
    fields: dict[str, list[Piece]] = {}
    for piece in pieces:
        fields.setdefault(piece.name, []).append(piece)
    sizes: dict[str, tuple[str, int]] = {}
    for name, group in fields.items():
        _check_tiling(name, group)
        for dim, size in zip(group[0].dims, group[0].shape, strict=True):
            other, known = sizes.setdefault(dim, (name, size))
            if known != size:
                raise FieldError(
                    f"dimension {dim!r} is {known} long in field {other!r} and {size} in {name!r}: "
                    "give one of them another name in dims"
                )
    for dim, (user, _) in sizes.items():
        if dim in fields and fields[dim][0].dims != (dim,):
            raise FieldError(
                f"{dim!r} is a dimension of field {user!r} and a field with the dims "
                f"{fields[dim][0].dims}: rename one of them"
            )
    return fields


def _check_tiling(name: str, pieces: Sequence[Piece]) -> None:
    first = pieces[0]
    for piece in pieces:
        if (piece.shape, piece.dtype, piece.dims) != (first.shape, first.dtype, first.dims):
            raise FieldError(
                f"field {name!r}: rank {piece.rank} saved {piece.dtype}{piece.shape} "
                f"{piece.dims}, rank {first.rank} {first.dtype}{first.shape} {first.dims}"
            )
    clash = _overlap(pieces)
    if clash is not None:
        raise FieldError(
            f"field {name!r}: the blocks of ranks {clash[0]} and {clash[1]} overlap: the ranks' "
            f"blocks must cover the whole of {first.shape} once"
        )
    covered = sum(math.prod(piece.local) for piece in pieces)
    if covered != math.prod(first.shape):
        raise FieldError(
            f"field {name!r}: the ranks' blocks hold {covered} of the {math.prod(first.shape)} "
            f"values of the whole of {first.shape}: they must cover it without a gap"
        )


def _overlap(pieces: Sequence[Piece]) -> tuple[int, int] | None:
    """Return two ranks whose blocks share a point, None where there are none."""
    boxes = [piece for piece in pieces if 0 not in piece.local]
    if len(boxes) < 2:
        return None
    low = np.array([piece.offset for piece in boxes]).reshape(len(boxes), -1)
    high = low + np.array([piece.local for piece in boxes]).reshape(low.shape)
    for index in range(len(boxes) - 1):
        rest = slice(index + 1, None)
        shared = (low[index] < high[rest]) & (low[rest] < high[index])
        found = np.flatnonzero(shared.all(axis=1))
        if len(found):
            return boxes[index].rank, boxes[index + 1 + int(found[0])].rank
    return None


def check_records(
    records: Mapping[str, Mapping[int, float]], fields: Mapping[str, Sequence[Piece]]
) -> None:
    """Check that recorded scalars can stand beside the fields.

    Raises
    ------
    FieldError
        A name is that of a field or a dimension, or unusable.
    """
    dims = {dim for pieces in fields.values() for dim in pieces[0].dims}
    for name in records:
        if name in fields or name in dims:
            what = "a saved field" if name in fields else "a dimension"
            raise FieldError(f"{name!r} is both {what} and a record: rename one of them")
        if not _is_usable(name):
            raise FieldError(f"run.record({name!r}): the name {USABLE}")
