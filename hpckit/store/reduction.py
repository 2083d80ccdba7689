"""What the tasks of a farm were merged into, in results.h5.

Until all tasks are done, the partial results that it was made of are kept beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.errors import StoreError
from hpckit.store.block import TaskState
from hpckit.store.blockfile import BlockFile
from hpckit.store.columns import TEXT, Column, from_values
from hpckit.store.layout import (
    REDUCED,
    TEXT_TYPE,
    attach,
    create_variable,
    is_reduced,
    make_dimension,
)
from hpckit.store.merging import Merge
from hpckit.store.packing import transfer
from hpckit.store.partialfiles import Scattered
from hpckit.store.partials import PartialsWriter
from hpckit.store.reading import damage_explained, reading
from hpckit.store.reducible import is_table
from hpckit.store.tree import Node, folded

RESULT, COUNT, KEY = "result", "count", "key"


def write_reduction(
    file: h5py.File,
    sealed: Sequence[Path],
    state: NDArray[np.int8],
    merge: Merge,
    taken: Collection[str],
) -> None:
    """Merge what is sealed, in the order of the tasks, and write what comes of it.

    Parameters
    ----------
    sealed
        The files, an earlier results.h5 among them perhaps.
    state
        Shape (tasks,): the state of each task of the farm.
    taken
        The names of other variables.

    Raises
    ------
    ReduceError
        The job's function does not merge two results.
    StoreError
        A sealed file does not read back, or does not hold what it should.
    """
    done = int((state == TaskState.DONE).sum())
    is_whole = done == len(state)
    if is_whole and (earlier := _finished(sealed)) is not None:
        with reading(earlier) as source:
            _transfer_all(source, file)
        return
    scattered = Scattered.over(sealed)
    if int(scattered.span.sum()) != done:
        raise StoreError(
            f"{sealed[0].parent}: the partial results are of {int(scattered.span.sum())} tasks, "
            f"and {done} are done: bring the segments back, or run the job again"
        )
    writer = None if is_whole else PartialsWriter(file, len(scattered.span), scattered.totals())
    value = folded(_nodes(scattered, writer), merge)
    _Writer(file, done, taken).write(value)


def _nodes(scattered: Scattered, writer: PartialsWriter | None) -> Iterator[Node]:
    for window in scattered.windows():
        if writer is not None:
            writer.write(window)
        with damage_explained(scattered.paths[0]):
            yield from window.nodes()


class _Writer:
    """Writes a value as variables."""

    def __init__(self, file: h5py.File, tasks: int, taken: Collection[str]) -> None:
        self.file = file
        self.tasks = tasks
        self.taken = set(taken)

    def write(self, value: Any) -> None:
        self.file.attrs[REDUCED] = self.tasks
        if isinstance(value, dict) and not is_table(value):
            self.taken |= value.keys()
            for name, item in value.items():
                self._write(name, item, f"{name}_{KEY}")
        elif value is not None:
            self._write(self._free(COUNT if type(value) is Counter else RESULT), value, KEY)

    def _write(self, name: str, value: Any, key: str) -> None:
        if isinstance(value, dict):
            scale = self._keys(self._free(key), list(value))
            self._variable(name, _column(list(value.values())).values, [scale])
            return
        values = value if isinstance(value, np.ndarray) else _column([value]).values[0]
        axes = [(self._free(f"{name}_{axis}"), n) for axis, n in enumerate(np.shape(values))]
        self._variable(name, values, [make_dimension(self.file, *axis) for axis in axes])

    def _variable(self, name: str, values: Any, scales: list[h5py.Dataset]) -> None:
        dtype = TEXT if isinstance(values, str) else values.dtype
        variable = create_variable(self.file, name, np.shape(values), dtype, False)
        variable[...] = values if dtype == TEXT else np.asarray(values).astype(variable.dtype)
        attach(variable, scales)
        variable.attrs[REDUCED] = self.tasks

    def _keys(self, name: str, keys: list[Any]) -> h5py.Dataset:
        column = _column(keys)
        dtype = TEXT_TYPE if column.values.dtype == TEXT else column.values.dtype
        scale = self.file.create_dataset(name, (len(keys),), dtype, data=column.values)
        scale.make_scale(name)
        scale.attrs[REDUCED] = self.tasks
        return scale

    def _free(self, name: str) -> str:
        while name in self.taken or name in self.file:
            name += "_"
        self.taken.add(name)
        return name


def _column(values: list[Any]) -> Column:
    column = from_values(values) if values else None
    # Of no value at all nobody knows the type: keys are strings, and values integers.
    return column or Column(np.zeros(0, np.int64), np.zeros(0, bool))


def _finished(sealed: Sequence[Path]) -> Path | None:
    """Return the file that holds what became of all tasks, if there is one."""
    for path in sealed:
        with reading(path) as file:
            states = BlockFile(file).state
            if REDUCED in file.attrs and (states == TaskState.DONE).all():
                return path
    return None


def _transfer_all(source: h5py.File, target: h5py.File) -> None:
    reduced = [name for name, item in source.items() if is_reduced(item)]
    scales = {
        axis[0].name.strip("/")
        for name in reduced
        for axis in (() if source[name].is_scale else source[name].dims)
    }
    for name in dict.fromkeys((*sorted(scales), *reduced)):
        transfer(source, target, name)
    target.attrs[REDUCED] = source.attrs[REDUCED]
