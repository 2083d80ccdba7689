"""Large arrays, which workers write to files of their own instead of sending them to the driver.

Such a file holds rows of one type and shape, one behind the other, behind the head of an HDF5
file. What goes through the driver, and is sealed in a segment, is a reference to each row with
its checksum: rows that none refers to, those of a killed worker, are only some lost space. In
the end results.h5 links to the file as it is.
"""

from __future__ import annotations

import io
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.errors import StoreError
from hpckit.store.atomic import explained
from hpckit.store.block import REFERENCE, Block
from hpckit.store.columns import Column, Field, field_bytes, scattered
from hpckit.store.direct import Appender
from hpckit.store.layout import LIBVER
from hpckit.store.reading import reading

LEAST_ROW = 1 << 10
LEAST_COLUMN = 1 << 20
"""Bytes of a row, and of a block's column, from which it goes to a file of its own."""

LARGEST_FILE = 1 << 30
"""Bytes after which a new file is begun: what is damaged is a file's rows at most."""

HEAD = 4096
"""Bytes before the rows."""

ROWS = "rows"


def array_path(folder: Path, number: int) -> Path:
    """Return the path of the file of a number."""
    return folder / f"a{number:016x}.h5"


class Spill:
    """Where a process puts the large arrays of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, ArrayFile] = {}
        self._appender = Appender()

    def lighten(self, block: Block) -> Block:
        """Return a block with references in place of its large arrays, which are safe then.

        Raises
        ------
        StoreError
            They cannot be written.
        """
        heavy = {name: column for name, column in block.fields.items() if is_heavy(column)}
        if not heavy:
            return block
        stored = {name: self.put(name, column) for name, column in heavy.items()}
        for name in heavy:
            self._files[name].sync()
        rest = {name: column for name, column in block.fields.items() if name not in heavy}
        return replace(block, fields=rest, stored=stored)

    def alike(self, blocks: Sequence[Block]) -> list[Block]:
        """Return blocks in which a field that is stored in one is stored in all.

        Joined with others, a few rows in memory would become a column as long as all.

        Raises
        ------
        StoreError
            They cannot be written.
        """
        names = {name for block in blocks for name in block.stored}
        if not names:
            return list(blocks)
        made = [self._moved(block, names & block.fields.keys()) for block in blocks]
        self.sync()
        return made

    def _moved(self, block: Block, names: set[str]) -> Block:
        dense = {n for n in names if block.fields[n].shapes is None}
        stored = dict(block.stored)
        for name in dense:
            put = self.put(name, block.fields[name])
            before = stored.get(name)
            if before is not None:
                put.values[before.present] = before.values[before.present]
                put = Column(put.values, put.present | before.present)
            stored[name] = put
        rest = {name: column for name, column in block.fields.items() if name not in dense}
        return replace(block, fields=rest, stored=stored)

    def put(self, name: str, column: Column) -> Column:
        """Write a dense column; return the references to its rows."""
        file = self._files.get(name)
        row = (column.values.dtype, column.values.shape[1:])
        if file is None or (file.field.dtype, file.field.shape) != row or file.size > LARGEST_FILE:
            file = self._files[name] = ArrayFile(self.folder, *row)
        return file.append(column, self._appender)

    def sync(self) -> None:
        """See that all rows are on the disk."""
        for file in self._files.values():
            file.sync()


class ArrayFile:
    """A file of rows that this process writes."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.field = Field(dtype, shape, len(shape))
        self.number = secrets.randbits(62) | 1
        self.path = array_path(folder, self.number)
        self.rows = 0
        self._tail = b""
        with explained(self.path), self.path.open("xb") as file:
            file.write(_head(dtype, shape, 0))

    @property
    def size(self) -> int:
        """The bytes of its rows."""
        return self.rows * field_bytes(self.field)

    def append(self, column: Column, appender: Appender) -> Column:
        """Write the present rows of a column; return the references."""
        values = column.values if column.present.all() else column.values[column.present]
        values = np.ascontiguousarray(values)
        flat: Any = values.reshape(len(values), -1).view(np.uint8)
        references = np.zeros(len(column), REFERENCE)
        mine = np.zeros(len(values), REFERENCE)
        mine["file"] = self.number
        mine["row"] = self.rows + np.arange(len(values))
        mine["crc"] = [zlib.crc32(row) for row in flat]
        references[column.present] = mine
        with explained(self.path):
            data = memoryview(flat).cast("B")
            self._tail = appender.append(self.path, HEAD + self.size, self._tail, data)
        self.rows += len(values)
        return Column(references, column.present)

    def sync(self) -> None:
        """See that all rows are on the disk."""
        with explained(self.path), self.path.open("rb") as file:
            os.fsync(file.fileno())


class Arrays:
    """Reads rows from the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fields: dict[int, Field] = {}

    def field(self, number: int) -> Field:
        """Return what the rows of a file hold.

        Raises
        ------
        StoreError
            It is not there, or does not read back.
        """
        if number not in self._fields:
            with reading(array_path(self.folder, number)) as file:
                rows = file[ROWS]
                self._fields[number] = Field(rows.dtype, rows.shape[1:], rows.ndim - 1)
        return self._fields[number]

    def rows(self, number: int) -> NDArray[Any]:
        """Return the rows of a file, mapped into memory; shape (rows, ...)."""
        field = self.field(number)
        assert field.shape is not None
        path = array_path(self.folder, number)
        with explained(path):
            count = (path.stat().st_size - HEAD) // field_bytes(field)
            shape = (count, *field.shape)
            return np.memmap(path, field.dtype, "r", HEAD, shape) if count else np.empty(shape)

    def finish(self, number: int) -> int:
        """Give a file, to which no more is written, the head that tells its number of rows.

        Raises
        ------
        StoreError
            It is not there, or cannot be written.
        """
        field = self.field(number)
        path = array_path(self.folder, number)
        rows = len(self.rows(number))
        with reading(path) as file:
            if file[ROWS].shape[0] == rows:
                return rows
        with explained(path), path.open("r+b") as file:
            # Behind them are the zeros of a block, or half a row of a writer that was killed.
            file.truncate(HEAD + rows * field_bytes(field))
            file.write(_head(field.dtype, field.shape or (), rows))
            os.fsync(file.fileno())
        return rows

    def joined(self, references: NDArray[Any], inline: Column | None, field: Field) -> Column:
        """Return the values of references, and of those rows that are in a column.

        Raises
        ------
        StoreError
            A row is not there.
        """
        parts = [] if inline is None else [(np.arange(len(inline)), inline)]
        for number in np.unique(references["file"][references["file"] != 0]).tolist():
            positions = np.flatnonzero(references["file"] == number)
            rows = self.rows(number)
            wanted = references["row"][positions]
            if len(wanted) and wanted.max() >= len(rows):
                raise StoreError(f"{array_path(self.folder, number)}: rows are missing at its end")
            parts.append((positions, Column(rows[wanted], np.ones(len(wanted), bool))))
        return scattered(len(references), field, parts)

    def damaged(self, references: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which references lead to a row that is not what was written; shape (n,)."""
        bad = np.zeros(len(references), bool)
        for number in np.unique(references["file"][references["file"] != 0]).tolist():
            positions = np.flatnonzero(references["file"] == number)
            try:
                rows = self.rows(number)
            except StoreError:
                bad[positions] = True
                continue
            for position, (_, row, crc) in zip(
                positions, references[positions].tolist(), strict=True
            ):
                bad[position] = row >= len(rows) or zlib.crc32(rows[row].tobytes()) != crc
        return bad


def is_heavy(column: Column) -> bool:
    """Tell whether a column goes to a file of its own."""
    values = column.values
    return (
        column.shapes is None
        and values.nbytes >= LEAST_COLUMN
        and values.nbytes >= LEAST_ROW * len(values)
        and values.dtype.kind in "iufc"
        and values.dtype.itemsize >= 4
        and not column.field.large
    )


def array_files(folder: Path) -> Iterator[tuple[int, Path]]:
    """Return the number and the path of each file of arrays in a folder."""
    for path in folder.glob("a*.h5"):
        yield int(path.stem[1:], 16), path


def _head(dtype: np.dtype[Any], shape: tuple[int, ...], rows: int) -> bytes:
    """Return the first `HEAD` bytes of an HDF5 file whose rows follow them."""
    stream = _Head()
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(
        stream,
        "w",
        libver=LIBVER,
        track_order=True,
        alignment_threshold=LEAST_ROW,
        alignment_interval=HEAD,
        meta_block_size=512,
    ) as file:
        made = file.create_dataset(ROWS, (rows, *shape), dtype, dcpl=settings)
        if made.id.get_offset() not in (HEAD, None):
            raise StoreError(f"HDF5 {h5py.version.hdf5_version} puts rows where none belong")
    return bytes(stream.data)


class _Head(io.RawIOBase):
    """Keeps the first bytes of what HDF5 writes, and forgets the rest."""

    def __init__(self) -> None:
        self.data = bytearray(HEAD)
        self._at = 0

    def write(self, data: Any) -> int:
        given = memoryview(data).cast("B")
        kept = given[: max(HEAD - self._at, 0)]
        self.data[self._at : self._at + len(kept)] = kept
        self._at += len(given)
        return len(given)

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer).cast("B")
        found = self.data[self._at : self._at + len(wanted)]
        wanted[: len(found)] = found
        wanted[len(found) :] = bytes(len(wanted) - len(found))
        self._at += len(wanted)
        return len(wanted)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset if whence == io.SEEK_SET else self._at + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        return size or 0

    def seekable(self) -> bool:
        return True
