"""The fields and records of an spmd run.

h5py's wheels cannot write one file from many ranks. So each rank writes a file of its own,
sealed by a rename when the program has ended, and results.h5 shows the blocks as one array:
copied into it while they are small, as a virtual dataset (HDF5 RFC "Virtual Dataset", 2014)
above `COPY_LIMIT`. A virtual dataset reads as fill values where a source is missing, so
`require_sources` looks before anything is read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.errors import StoreError
from hpckit.store.atomic import explained, remove_leftovers, replacing, sync
from hpckit.store.columns import fill_value
from hpckit.store.layout import COPY_LIMIT, attach, make_dimension, regions, set_attributes
from hpckit.store.newfile import NewFile, new_file
from hpckit.store.packing import missing_sources, pack, remove_rank_files, require_sources
from hpckit.store.pieces import STEP, FieldError, Piece, check_records, grouped
from hpckit.store.results import embed_manifest
from hpckit.store.rundir import RunDir

WINDOW_BYTES = 32 << 20
"""About how much is copied at a time."""

__all__ = [
    "COPY_LIMIT",
    "STEP",
    "FieldError",
    "Piece",
    "RankFile",
    "assemble_fields",
    "missing_sources",
    "pack",
    "require_sources",
]


class RankFile:
    """The file that one rank writes its blocks to."""

    def __init__(self, run: RunDir, rank: int) -> None:
        self.path = run.rank_fields(rank)
        self.temporary = self.path.with_suffix(".tmp")
        self.new: NewFile | None = None
        self.pieces: dict[str, Piece] = {}

    def save(self, piece: Piece, array: NDArray[Any]) -> None:
        """Write a block; a second one of the same name takes the place of the first.

        Raises
        ------
        StoreError
            It cannot be written.
        """
        with explained(self.path):
            if self.new is None:
                self.new = NewFile(self.temporary)
            try:
                _replace(self.new.file, piece.name, array)
                self.new.check()
            except OSError:
                self.discard()
                raise
        self.pieces[piece.name] = piece

    def seal(self) -> None:
        """Sync and rename the file.

        Raises
        ------
        StoreError
            It cannot be written.
        """
        if self.new is None:
            return
        with explained(self.path):
            new, self.new = self.new, None
            new.close()
            with self.temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            self.temporary.replace(self.path)
            sync(self.path.parent)

    def discard(self) -> None:
        """Give up what is not sealed, and its space on the disk."""
        if self.new is not None:
            new, self.new = self.new, None
            with suppress(OSError):
                new.close()
            self.temporary.unlink(missing_ok=True)
            self.pieces.clear()


def _replace(file: h5py.File, name: str, array: NDArray[Any]) -> None:
    known = file.get(name)
    if known is not None and (known.shape, known.dtype) == (array.shape, array.dtype):
        known[...] = array
        return
    if known is not None:
        del file[name]
    file.create_dataset(name, data=array)


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
    fields = grouped(pieces)
    check_records(records, fields)
    total = sum(math.prod(ps[0].shape) * np.dtype(ps[0].dtype).itemsize for ps in fields.values())
    copied = total <= COPY_LIMIT
    remove_leftovers(run.results)
    with replacing(run.results) as path, new_file(path) as file:
        put = _copy if copied else _link
        # Coordinates first: they become the scales that the other fields attach to.
        for name in sorted(fields, key=lambda n: fields[n][0].dims != (n,)):
            put(file, run, fields[name])
            _label(file, fields[name][0])
        _write_records(file, records)
        for name, value in parameters.items():
            file.attrs[name] = _attribute(value)
        embed_manifest(file, manifest_json)
    remove_rank_files(run, set() if copied else {piece.rank for piece in pieces})


def _stored(piece: Piece) -> np.dtype[Any]:
    dtype = np.dtype(piece.dtype)
    return np.dtype(np.int8) if dtype.kind == "b" else dtype


def _copy(file: h5py.File, run: RunDir, pieces: Sequence[Piece]) -> None:
    first = pieces[0]
    target = file.create_dataset(first.name, first.shape, _stored(first))
    for piece in pieces:
        copy_piece(run, piece, target)


def copy_piece(run: RunDir, piece: Piece, target: h5py.Dataset) -> None:
    """Copy a block from its rank's file to where it belongs in the whole field.

    Raises
    ------
    StoreError
        The rank's file does not read back.
    """
    with _rank_source(run, piece) as block:
        for region in regions(block.shape, block.dtype.itemsize, WINDOW_BYTES):
            target[_shifted(region, piece.offset)] = block[region]


@contextmanager
def _rank_source(run: RunDir, piece: Piece) -> Iterator[h5py.Dataset]:
    path = run.rank_fields(piece.rank)
    try:
        with h5py.File(path, "r") as source:
            yield source[piece.name]
    except KeyError:
        raise StoreError(f"{path}: does not hold the field {piece.name!r}") from None
    except OSError as error:
        raise StoreError(f"{path}: does not read back: {error}") from None


def _shifted(region: tuple[slice, ...], offset: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(a + s.start, a + s.stop) for a, s in zip(offset, region, strict=True))


def _link(file: h5py.File, run: RunDir, pieces: Sequence[Piece]) -> None:
    first = pieces[0]
    # A bool lies in the ranks' files as h5py's enumeration; only a copy can be an int8.
    if np.dtype(first.dtype).kind == "b" or math.prod(first.shape) < 2:
        _copy(file, run, pieces)
        return
    layout = h5py.VirtualLayout(first.shape, first.dtype)
    for piece in pieces:
        if 0 in piece.local:
            continue
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


def _attribute(value: Any) -> Any:
    """Return a parameter as an attribute that netCDF reads: it has no bool."""
    if isinstance(value, bool):
        return np.int8(value)
    return str(value) if isinstance(value, Path) else value


def _write_records(file: h5py.File, records: Mapping[str, Mapping[int, float]]) -> None:
    steps = sorted({step for series in records.values() for step in series})
    if not steps:
        return
    # In order, so that thousands of records can be attached: see `make_dimension`.
    scale = file.create_dataset(STEP, data=np.array(steps, np.int64), track_order=True)
    scale.make_scale(STEP)
    for name, series in records.items():
        values = np.array([series.get(step, np.nan) for step in steps])
        attach(file.create_dataset(name, data=values), [scale])
