"""The fields and records of an spmd run.

h5py's wheels cannot write one file from many ranks. So each rank writes a file of its own,
sealed by a rename when the program has ended, and results.h5 shows the blocks as one array:
copied into it while they are small, as a virtual dataset (HDF5 RFC "Virtual Dataset", 2014)
above `COPY_LIMIT`. A virtual dataset reads as fill values where a source is missing, so
`missing_sources` looks before anything is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.errors import HpckitError, StoreError
from hpckit.store.atomic import explained, replacing, sync_directory
from hpckit.store.columns import fill_value
from hpckit.store.layout import (
    LIBVER,
    attach,
    make_dimension,
    set_attributes,
)
from hpckit.store.results import embed_manifest
from hpckit.store.rundir import RunDir

COPY_LIMIT = 64 << 20
"""Bytes of fields up to which results.h5 holds plain copies."""

COPY_ROWS_BYTES = 32 << 20
STEP = "step"
RESERVED = frozenset({STEP, "hpckit"})


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
            Name, type, offset, shape or dims are unusable.
        """
        whole = array.shape if shape is None else tuple(int(n) for n in shape)
        start = (0,) * array.ndim if offset is None else tuple(int(n) for n in offset)
        names = tuple(dims or (f"{name}_{axis}" for axis in range(array.ndim)))
        problem = _problem(name, array, start, whole, names)
        if problem:
            raise FieldError(f"run.save({name!r}) on rank {rank}: {problem}")
        return cls(name, start, array.shape, whole, array.dtype.str, names, dict(attributes), rank)


class RankFile:
    """The file that one rank writes its blocks to."""

    def __init__(self, run: RunDir, rank: int) -> None:
        self.path = run.rank_fields(rank)
        self.temporary = self.path.with_suffix(".tmp")
        self.file: h5py.File | None = None
        self.pieces: dict[str, Piece] = {}

    def save(self, piece: Piece, array: NDArray[Any]) -> None:
        """Write a block; a second one of the same name takes the place of the first."""
        with explained(self.temporary):
            if self.file is None:
                self.file = h5py.File(self.temporary, "w", libver=LIBVER)
            if piece.name in self.file:
                self.file[piece.name][...] = array
            else:
                self.file.create_dataset(piece.name, data=array)
        self.pieces[piece.name] = piece

    def seal(self) -> None:
        """Sync and rename the file."""
        if self.file is None:
            return
        with explained(self.path):
            self.file.close()
            self.file = None
            with self.temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            self.temporary.replace(self.path)
            sync_directory(self.path.parent)


def assemble_fields(
    run: RunDir,
    pieces: Sequence[Piece],
    records: Mapping[str, Mapping[int, float]],
    parameters: Mapping[str, Any],
    manifest_json: str,
) -> None:
    """Write results.h5 of an spmd run from the sealed files of its ranks.

    Parameters
    ----------
    pieces
        The blocks of all ranks.
    records
        Scalars by name and step.

    Raises
    ------
    FieldError
        The blocks of a field overlap, leave gaps or differ in shape, type or dims.
    StoreError
        The file cannot be written.
    """
    fields = _grouped(pieces)
    total = sum(
        int(np.prod(ps[0].shape)) * np.dtype(ps[0].dtype).itemsize for ps in fields.values()
    )
    with replacing(run.results) as path:
        with h5py.File(path, "w", libver=LIBVER, track_order=True) as file:
            put = _copy if total <= COPY_LIMIT else _link
            # Coordinates first: they become the scales that the other fields attach to.
            for name in sorted(fields, key=lambda n: fields[n][0].dims != (n,)):
                put(file, run, fields[name])
                _label(file, fields[name][0])
            _write_records(file, records)
            for name, value in parameters.items():
                file.attrs[name] = str(value) if isinstance(value, Path) else value
            embed_manifest(file, manifest_json)
    if total <= COPY_LIMIT:
        for piece in pieces:
            run.rank_fields(piece.rank).unlink(missing_ok=True)


def missing_sources(path: Path) -> list[Path]:
    """Return the files that virtual datasets of a results file point at and that are not there."""
    missing = []
    with h5py.File(path, "r") as file:
        for item in file.values():
            if isinstance(item, h5py.Dataset) and item.is_virtual:
                sources = {source.file_name for source in item.virtual_sources()}
                missing += [path.parent / name for name in sorted(sources)]
    return [source for source in dict.fromkeys(missing) if not source.is_file()]


def require_sources(path: Path) -> None:
    """Check that no virtual dataset would read as fill values.

    Raises
    ------
    StoreError
        A file of a rank is missing.
    """
    missing = missing_sources(path)
    if missing:
        raise StoreError(
            f"{path}: {len(missing)} of the files that hold its fields are missing, the first is "
            f"{missing[0]}: bring them back beside it, or run the job again"
        )


def pack(run: RunDir) -> list[str]:
    """Copy virtual fields into results.h5 itself, remove the ranks' files, return the names.

    Raises
    ------
    StoreError
        A source is missing, or the packed file cannot be written; nothing is changed then.
    """
    require_sources(run.results)
    with h5py.File(run.results, "r") as file:
        virtual = [name for name, item in file.items() if getattr(item, "is_virtual", False)]
    if not virtual:
        return []
    with (
        replacing(run.results) as path,
        h5py.File(run.results, "r") as source,
        h5py.File(path, "w", libver=LIBVER, track_order=True) as target,
    ):
        # Scales first again, so that every attachment finds its scale.
        for name in sorted(source, key=lambda n: not getattr(source[n], "is_scale", False)):
            _transfer(source, target, name)
        for key, value in source.attrs.items():
            target.attrs[key] = value
    for path in run.segments.glob("rank-*.h5"):
        path.unlink()
    return virtual


def _problem(
    name: str,
    array: NDArray[Any],
    start: tuple[int, ...],
    whole: tuple[int, ...],
    dims: tuple[str, ...],
) -> str | None:
    if not name or "/" in name or name in RESERVED:
        return "the name must not be empty, hold a slash, or be " + " or ".join(sorted(RESERVED))
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 16:
        return f"arrays of type {array.dtype} cannot be stored: use numbers or bools"
    if not len(start) == len(whole) == array.ndim:
        return f"offset {start} and shape {whole} must have the array's {array.ndim} axes"
    if len(dims) != array.ndim or len(set(dims)) != len(dims):
        return f"dims {dims} must name each of the array's {array.ndim} axes once"
    if any(a < 0 or a + n > w for a, n, w in zip(start, array.shape, whole, strict=True)):
        return f"a block of shape {array.shape} at {start} leaves the whole of {whole}"
    return None


def _grouped(pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
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
    return fields


def _check_tiling(name: str, pieces: Sequence[Piece]) -> None:
    first = pieces[0]
    for piece in pieces:
        if (piece.shape, piece.dtype, piece.dims) != (first.shape, first.dtype, first.dims):
            raise FieldError(
                f"field {name!r}: rank {piece.rank} saved {piece.dtype}{piece.shape} "
                f"{piece.dims}, rank {first.rank} {first.dtype}{first.shape} {first.dims}"
            )
    covered = sum(int(np.prod(piece.local)) for piece in pieces)
    if covered != int(np.prod(first.shape)) or _overlap(pieces):
        raise FieldError(
            f"field {name!r}: the ranks' blocks hold {covered} values for a whole of "
            f"{int(np.prod(first.shape))}: they must cover it once, without gap or overlap"
        )


def _overlap(pieces: Sequence[Piece]) -> bool:
    """Tell whether two blocks share a point: a sweep along the first axis."""
    boxes = sorted((p.offset, p.local) for p in pieces if 0 not in p.local)
    for index, (offset, local) in enumerate(boxes):
        for other, extent in boxes[index + 1 :]:
            if not offset or other[0] >= offset[0] + local[0]:
                break
            if all(
                a < b + m and b < a + n
                for a, n, b, m in zip(offset, local, other, extent, strict=True)
            ):
                return True
    return False


def _stored(piece: Piece) -> np.dtype[Any]:
    dtype = np.dtype(piece.dtype)
    return np.dtype(np.int8) if dtype.kind == "b" else dtype


def _copy(file: h5py.File, run: RunDir, pieces: Sequence[Piece]) -> None:
    first = pieces[0]
    target = file.create_dataset(first.name, first.shape, _stored(first))
    for piece in pieces:
        with h5py.File(run.rank_fields(piece.rank), "r") as source:
            target[_region(piece)] = source[piece.name][()]


def _link(file: h5py.File, run: RunDir, pieces: Sequence[Piece]) -> None:
    first = pieces[0]
    # A bool lies in the ranks' files as h5py's enumeration; only a copy can be an int8.
    if np.dtype(first.dtype).kind == "b" or first.shape == ():
        _copy(file, run, pieces)
        return
    layout = h5py.VirtualLayout(first.shape, first.dtype)
    for piece in pieces:
        source = run.rank_fields(piece.rank).relative_to(run.path)
        layout[_region(piece)] = h5py.VirtualSource(str(source), piece.name, piece.local)
    file.create_virtual_dataset(first.name, layout, fillvalue=fill_value(np.dtype(first.dtype)))


def _region(piece: Piece) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(piece.offset, piece.local, strict=True))


def _label(file: h5py.File, piece: Piece) -> None:
    variable = file[piece.name]
    if np.dtype(piece.dtype).kind == "b":
        variable.attrs["dtype"] = "bool"
    set_attributes(variable, piece.attributes)
    if piece.dims == (piece.name,):
        variable.make_scale(piece.name)
        return
    attach(
        variable, [make_dimension(file, d, n) for d, n in zip(piece.dims, piece.shape, strict=True)]
    )


def _write_records(file: h5py.File, records: Mapping[str, Mapping[int, float]]) -> None:
    steps = sorted({step for series in records.values() for step in series})
    if not steps:
        return
    scale = file.create_dataset(STEP, data=np.array(steps, np.int64))
    scale.make_scale(STEP)
    for name, series in records.items():
        if name in file:
            raise FieldError(f"{name!r} is both a saved field and a record: rename one of them")
        values = np.array([series.get(step, np.nan) for step in steps])
        attach(file.create_dataset(name, data=values), [scale])


def _transfer(source: h5py.File, target: h5py.File, name: str) -> None:
    item = source[name]
    if isinstance(item, h5py.Group):
        source.copy(name, target)
        return
    scales = (
        [axis[0].name if len(axis) else None for axis in item.dims] if not item.is_scale else []
    )
    variable = target.create_dataset(name, item.shape, item.dtype)
    _copy_values(item, variable)
    for key, value in item.attrs.items():
        if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid"):
            variable.attrs[key] = value
    if item.is_scale:
        label = item.attrs.get("NAME", name.encode())
        variable.make_scale(label.decode() if isinstance(label, bytes) else str(label))
    attach(variable, [target[scale] for scale in scales if scale is not None])


def _copy_values(item: h5py.Dataset, variable: h5py.Dataset) -> None:
    if item.ndim == 0:
        variable[()] = item[()]
        return
    row = max(int(np.prod(item.shape[1:])) * item.dtype.itemsize, 1)
    rows = max(COPY_ROWS_BYTES // row, 1)
    for start in range(0, item.shape[0], rows):
        variable[start : start + rows] = item[start : start + rows]
