"""The variables of a results.h5, read in pieces that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.store.blockfile import PARAMETER_ATTRIBUTE, BlockFile, is_farm
from hpckit.store.columns import TEXT, Column, Field, row_sizes
from hpckit.store.fields import STEP, require_sources
from hpckit.store.layout import (
    DIMENSION_ONLY,
    is_column,
    is_reduced,
    ragged_shapes,
    read_column,
    read_field,
    regions,
)
from hpckit.store.reading import damage_explained

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
    field
        What a row holds; a ragged one has no shape.
    units
        None for a pure number, whose units are 1, too.
    farm
        The file of a farm, which knows the rows that there are; None in that of an spmd run, and
        of what all tasks were merged into.
    """

    name: str
    item: h5py.Dataset
    dims: tuple[str, ...]
    field: Field
    units: str | None
    is_parameter: bool
    farm: BlockFile | None = None

    @classmethod
    def of(cls, name: str, item: h5py.Dataset, farm: BlockFile | None = None) -> Variable:
        """Read all that is to know of a variable but its values.

        Raises
        ------
        ValueError
            It has not a row for each task: the file is damaged.
        """
        field = read_field(item)
        if farm is not None and field.shape is not None and len(item) != len(farm.state):
            raise ValueError(f"{name} has {len(item)} rows for {len(farm.state)} tasks")
        units = str(item.attrs.get("units", 1))
        return cls(
            name,
            item,
            _dims(item),
            field,
            None if units == "1" else units,
            PARAMETER_ATTRIBUTE in item.attrs,
            farm,
        )

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
    def is_keys(self) -> bool:
        """Tell the keys along an axis from what lies along it."""
        return bool(self.item.is_scale)

    @property
    def is_record(self) -> bool:
        """Tell a scalar recorded over steps from a field."""
        return self.farm is None and self.dims == (STEP,)

    def values(self, region: Region) -> NDArray[Any]:
        """Read a block of a dense variable, in its own type."""
        dtype = self.field.dtype
        with self._reading():
            if dtype == TEXT:
                return np.asarray(self.item.asstr()[region], object)
            values = np.asarray(self.item[region])
            return values != 0 if dtype.kind == "b" else values.astype(dtype, copy=False)

    def steps(self) -> NDArray[np.int64]:
        """Read the steps of a record, one for each of its values."""
        with self._reading():
            steps: NDArray[np.int64] = self.item.file[STEP][()]
            return steps

    def present(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Tell which rows from `start` to `stop` there are."""
        if self.farm is None or self.is_parameter or self.name == "task_state":
            return np.ones(stop - start, bool)
        with self._reading():
            if self.field.shape is None:
                shapes: NDArray[np.int64] = ragged_shapes(self.item)[start:stop]
                there: NDArray[np.bool_] = shapes[:, 0] >= 0
                return there
            return self.farm.present(self.name, start, stop)

    def column(self, start: int, stop: int) -> Column:
        """Read the rows from `start` to `stop`."""
        with self._reading():
            return read_column(self.item, start, stop, self.present(start, stop))

    def regions(self) -> Iterator[Region]:
        """Cut a dense variable into blocks that fit into memory, in the order of the file."""
        return regions(self.item.shape, self.itemsize, WINDOW_BYTES)

    def row_bytes(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return about how much each of the rows takes; shape (stop - start,)."""
        shape = self.field.shape
        if shape is None:
            with self._reading():
                return row_sizes(ragged_shapes(self.item)[start:stop]) * self.itemsize
        return np.full(stop - start, math.prod(shape) * self.itemsize, np.int64)

    def _reading(self) -> AbstractContextManager[None]:
        return damage_explained(Path(self.item.file.filename))


@contextmanager
def open_variables(path: Path) -> Iterator[dict[str, Variable]]:
    """Open the variables of a results.h5: those that have a digest.

    Raises
    ------
    StoreError
        The file does not read back, or a file that it points at is missing; also from what is
        read of it later.
    """
    require_sources(path)
    with ExitStack() as stack:
        with damage_explained(path):
            file = stack.enter_context(h5py.File(path, "r"))
            variables = _farm(file) if is_farm(file) else _fields(file)
        yield variables


def are_a_farms(variables: Mapping[str, Variable]) -> bool:
    """Tell a farm's variables from the fields and records of an spmd run."""
    return any(variable.farm is not None for variable in variables.values())


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


def _farm(file: h5py.File) -> dict[str, Variable]:
    farm = BlockFile.checked(file)
    found = {n: Variable.of(n, i, farm) for n, i in file.items() if is_column(i)}
    return found | {n: Variable.of(n, i) for n, i in file.items() if is_reduced(i)}


def _fields(file: h5py.File) -> dict[str, Variable]:
    found = {}
    for name, item in file.items():
        label = bytes(item.attrs.get("NAME", b""))
        if isinstance(item, h5py.Dataset) and not label.startswith(DIMENSION_ONLY.encode()):
            found[name] = Variable.of(name, item)
    return found


def _dims(item: h5py.Dataset) -> tuple[str, ...]:
    if item.is_scale:
        return (str(item.name.rsplit("/", 1)[-1]),)
    return tuple(
        str(axis[0].name.rsplit("/", 1)[-1]) if len(axis) else f"axis {number}"
        for number, axis in enumerate(item.dims)
    )
