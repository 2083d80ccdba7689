"""The variables of a results.h5, read in pieces that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.errors import StoreError
from hpckit.store.blockfile import PARAMETER_ATTRIBUTE, BlockFile, open_block_file
from hpckit.store.columns import TEXT, Column, Field, row_sizes
from hpckit.store.fields import STEP, require_sources
from hpckit.store.layout import DIMENSION_ONLY, is_column, read_column, read_field

WINDOW_BYTES = 32 << 20
WINDOW_ROWS = 1 << 16
TEXT_BYTES = 64
"""What a string is taken to need."""

Region = tuple[slice, ...]


@dataclass(frozen=True)
class Variable:
    """One variable: what it is, and how to read a part of it.

    Attributes
    ----------
    dims
        The names of its axes.
    farm
        The file of a farm, which knows the rows that there are; None in that of an spmd run.
    """

    item: h5py.Dataset
    dims: tuple[str, ...]
    farm: BlockFile | None = None

    @property
    def name(self) -> str:
        """The variable's name."""
        return str(self.item.name.rsplit("/", 1)[-1])

    @property
    def field(self) -> Field:
        """What a row holds; a ragged one has no shape."""
        return read_field(self.item)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The whole's shape; None where rows differ."""
        return None if self.field.shape is None else tuple(self.item.shape)

    @property
    def rows(self) -> int:
        """The length of the first axis: the tasks, in a farm."""
        if self.farm is not None:
            return len(self.farm.task)
        return int(self.item.shape[0]) if self.item.ndim else 1

    @property
    def itemsize(self) -> int:
        """Bytes of a value, roughly for a string."""
        dtype = self.field.dtype
        return TEXT_BYTES if dtype == TEXT else dtype.itemsize

    @property
    def is_parameter(self) -> bool:
        """Tell a farm's parameter from its results."""
        return PARAMETER_ATTRIBUTE in self.item.attrs

    @property
    def is_record(self) -> bool:
        """Tell a scalar recorded over steps from a field."""
        return self.farm is None and self.dims == (STEP,)

    def values(self, region: Region) -> NDArray[Any]:
        """Read a block of a dense variable, in its own type."""
        dtype = self.field.dtype
        with _explained(self.item.file.filename):
            if dtype == TEXT:
                return np.asarray(self.item.asstr()[region], object)
            values = np.asarray(self.item[region])
        return values != 0 if dtype.kind == "b" else values.astype(dtype, copy=False)

    def present(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Tell which rows from `start` to `stop` there are."""
        if self.farm is None or self.is_parameter or self.name == "task_state":
            return np.ones(stop - start, bool)
        if self.field.shape is None:
            shapes: NDArray[np.int64] = self._shapes()[start:stop]
            there: NDArray[np.bool_] = shapes[:, 0] >= 0
            return there
        return self.farm.present(self.name, start, stop)

    def column(self, start: int, stop: int) -> Column:
        """Read the rows from `start` to `stop`."""
        with _explained(self.item.file.filename):
            return read_column(self.item, start, stop, self.present(start, stop))

    def regions(self) -> Iterator[Region]:
        """Cut a dense variable into blocks that fit into memory, in the order of the file."""
        return _regions(tuple(self.item.shape), self.itemsize)

    def row_bytes(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return about how much each of the rows takes; shape (stop - start,)."""
        shape = self.field.shape
        if shape is None:
            return row_sizes(self._shapes()[start:stop]) * self.itemsize
        return np.full(stop - start, math.prod(shape) * self.itemsize, np.int64)

    def _shapes(self) -> h5py.Dataset:
        return self.item.parent[f"{self.name}_shape"]


@contextmanager
def open_variables(path: Path) -> Iterator[dict[str, Variable]]:
    """Open the variables of a results.h5: those that have a digest.

    Raises
    ------
    StoreError
        The file does not read back, or a file that it points at is missing.
    """
    with ExitStack() as stack:
        with _explained(path):
            require_sources(path)
            file = stack.enter_context(open_block_file(path))
            variables = _farm(file) if "task_state" in file else _fields(file)
        yield variables


@contextmanager
def _explained(path: Path | str) -> Iterator[None]:
    """Turn what h5py says of a damaged file into a StoreError."""
    try:
        yield
    except (OSError, KeyError) as error:
        raise StoreError(f"{path}: does not read back: {error}") from None


def row_windows(
    variables: Sequence[Variable], start: int, stop: int, limit: int = WINDOW_BYTES
) -> Iterator[tuple[int, int]]:
    """Cut rows into windows in which the variables together take about `limit` bytes.

    A window takes more by no more than its first row does.
    """
    for low in range(start, stop, WINDOW_ROWS):
        high = min(low + WINDOW_ROWS, stop)
        sizes = sum((v.row_bytes(low, high) for v in variables), np.zeros(high - low, np.int64))
        full = np.flatnonzero(np.diff((np.cumsum(sizes) - 1) // limit)) + 1
        bounds = [low, *(full + low).tolist(), high]
        yield from pairwise(bounds)


def _regions(shape: tuple[int, ...], itemsize: int) -> Iterator[Region]:
    if 0 in shape:
        return
    if not shape:
        yield ()
        return
    row = math.prod(shape[1:]) * itemsize
    if row > WINDOW_BYTES:
        for index in range(shape[0]):
            for inner in _regions(shape[1:], itemsize):
                yield (slice(index, index + 1), *inner)
        return
    step = WINDOW_BYTES // row
    for start in range(0, shape[0], step):
        yield (slice(start, min(start + step, shape[0])), *(slice(0, n) for n in shape[1:]))


def _farm(file: h5py.File) -> dict[str, Variable]:
    farm = BlockFile(file)
    return {n: Variable(i, _dims(i), farm) for n, i in file.items() if is_column(i)}


def _fields(file: h5py.File) -> dict[str, Variable]:
    found = {}
    for name, item in file.items():
        label = bytes(item.attrs.get("NAME", b""))
        if isinstance(item, h5py.Dataset) and not label.startswith(DIMENSION_ONLY.encode()):
            found[name] = Variable(item, _dims(item))
    return found


def _dims(item: h5py.Dataset) -> tuple[str, ...]:
    if item.is_scale:
        return (str(item.name.rsplit("/", 1)[-1]),)
    return tuple(
        str(axis[0].name.rsplit("/", 1)[-1]) if len(axis) else f"axis {number}"
        for number, axis in enumerate(item.dims)
    )
