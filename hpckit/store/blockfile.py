"""A file that holds a block: a segment, and results.h5 too, which is the block of all tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.store.block import REFERENCE, Block, TaskState
from hpckit.store.columns import Column, Field
from hpckit.store.layout import (
    LIBVER,
    ColumnWriter,
    attach,
    is_column,
    read_column,
    read_field,
    row_bytes,
    set_attributes,
)
from hpckit.store.partials import write_partials

DETAILS = "tasks"
PRESENT = "hpckit/present"
"""The group that says of each field which finished tasks returned it, unless all did."""

STORED = "hpckit/stored"
"""The group of references to rows in files of arrays, by field."""

PARAMETER_ATTRIBUTE = "hpckit_parameter"

DETAIL_ATTRIBUTES = {
    "start": {"long_name": "start of the last attempt", "units": "seconds since 1970-01-01"},
    "duration": {"long_name": "duration of the last attempt in seconds"},
    "attempts": {"long_name": "attempts that were made"},
    "worker": {"long_name": "process id of the worker"},
    "error": {"long_name": "traceback or reason of a failure"},
}


@dataclass
class Schema:
    """The fields of a block file: what they hold and which of them have absent rows."""

    fields: dict[str, Field] = field(default_factory=dict)
    details: dict[str, Field] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    """The fields of which some rows are in files of arrays."""

    def add(
        self, fields: Mapping[str, Field], details: Mapping[str, Field], stored: Collection[str]
    ) -> None:
        """Widen the schema so that it holds these columns too."""
        self.stored |= set(stored)
        for mine, others in ((self.fields, fields), (self.details, details)):
            for name, other in others.items():
                mine[name] = mine[name].joined(other) if name in mine else other


class BlockWriter:
    """Writes the blocks of one file, in the order of their tasks."""

    def __init__(
        self,
        file: h5py.File,
        count: int,
        schema: Schema,
        absent: Collection[str],
        taken: Collection[str] = (),
        links: Mapping[str, h5py.VirtualLayout] | None = None,
    ) -> None:
        """Make the variables.

        Parameters
        ----------
        absent
            The columns that will have rows without a value; of a detail, ``tasks/NAME``.
        taken
            Names of variables that others will add.
        links
            What is shown of files of arrays, in place of columns to be written.
        """
        self.file = file
        # In order, so that thousands of fields can be attached: see `make_dimension`.
        self.task = file.create_dataset("task", (count,), np.int64, track_order=True)
        self.task.make_scale("task")
        self.task.attrs["long_name"] = "task index"
        self.state = file.create_dataset("task_state", (count,), np.int8)
        set_attributes(self.state, _flags(TaskState))
        attach(self.state, [self.task])
        group = file.create_group(DETAILS, track_order=True)
        names = {*schema.fields, *taken, PRESENT.split("/")[0]}
        self.fields = {
            name: ColumnWriter(
                file,
                name,
                self.task,
                held,
                missing=name in absent,
                taken=names,
                link=(links or {}).get(name),
            )
            for name, held in schema.fields.items()
        }
        self.stored = {
            name: file.create_dataset(f"{STORED}/{name}", (count,), REFERENCE)
            for name in schema.stored
        }
        for references in self.stored.values():
            attach(references, [self.task])
        self.details = {
            name: ColumnWriter(
                group,
                name,
                self.task,
                held,
                missing=f"{DETAILS}/{name}" in absent,
                taken=schema.details,
            )
            for name, held in schema.details.items()
        }
        for name in self.details:
            set_attributes(group[name], DETAIL_ATTRIBUTES.get(name, {}))

    def write(self, start: int, block: Block) -> None:
        """Write a block's rows from `start` on."""
        stop = start + len(block)
        self.task[start:stop] = block.task
        self.state[start:stop] = block.state
        done = block.state == TaskState.DONE
        for name, column in block.fields.items():
            self.fields[name].write(start, column)
        for name, column in block.stored.items():
            self.stored[name][start:stop] = column.values
        for name, present in block.present().items():
            if not present[done].all():
                self._note_present(name, start, present)
        for name, column in block.details.items():
            self.details[name].write(start, column)

    def close(self) -> None:
        """Finish the columns whose length is known only at the end."""
        for writer in (*self.fields.values(), *self.details.values()):
            writer.close()

    def _note_present(self, name: str, start: int, present: NDArray[np.bool_]) -> None:
        path = f"{PRESENT}/{name}"
        if path not in self.file:
            # Chunked, so that only windows with absent rows take space.
            self.file.create_dataset(
                path, self.task.shape, np.int8, fillvalue=1, chunks=(min(1 << 16, len(self.task)),)
            )
            attach(self.file[path], [self.task])
        self.file[path][start : start + len(present)] = present


class BlockFile:
    """Reads what a `BlockWriter` wrote."""

    def __init__(self, file: h5py.File) -> None:
        """Take an open file.

        Raises
        ------
        KeyError
            It holds no block.
        """
        if not is_farm(file):
            raise KeyError("it holds no tasks of a farm")
        self.file = file

    @classmethod
    def checked(cls, file: h5py.File) -> Self:
        """Take an open file that may be damaged; looks at the task and state of each row.

        Raises
        ------
        KeyError
            It holds no block.
        ValueError
            Its tasks do not ascend, or have other states than `TaskState` has.
        """
        source = cls(file)
        task, state = source.task, source.state
        if task.dtype != np.int64 or task.ndim != 1 or (task[1:] <= task[:-1]).any():
            raise ValueError("its tasks do not ascend")
        if state.shape != task.shape or (state > max(TaskState)).any() or (state < 0).any():
            raise ValueError("its tasks are in no known state")
        return source

    @cached_property
    def task(self) -> NDArray[np.int64]:
        """The tasks in the file, ascending; shape (rows,)."""
        found: NDArray[np.int64] = self.file["task"][()]
        return found

    @cached_property
    def state(self) -> NDArray[np.int8]:
        """The state of each task; shape (rows,)."""
        found: NDArray[np.int8] = self.file["task_state"][()]
        return found

    @cached_property
    def row_bytes(self) -> int:
        """About how much memory the columns of a task take."""
        groups = (self.file, self.file[DETAILS])
        return sum(
            row_bytes(item) for group in groups for item in group.values() if is_column(item)
        )

    @property
    def incomplete(self) -> set[str]:
        """The fields that some finished tasks did not return."""
        return set(self.file[PRESENT]) if PRESENT in self.file else set()

    @cached_property
    def field_types(self) -> dict[str, Field]:
        """Return what each returned field holds."""
        return {
            name: read_field(item)
            for name, item in self.file.items()
            if is_column(item) and name != "task_state" and PARAMETER_ATTRIBUTE not in item.attrs
        }

    @cached_property
    def detail_types(self) -> dict[str, Field]:
        """Return what each column of the group ``tasks`` holds."""
        group = self.file[DETAILS]
        return {name: read_field(item) for name, item in group.items() if is_column(item)}

    @cached_property
    def stored_names(self) -> set[str]:
        """The fields of which some rows are in files of arrays."""
        return set(self.file[STORED]) if STORED in self.file else set()

    def fields(self, start: int, stop: int) -> dict[str, Column]:
        """Read the rows from `start` to `stop` of all fields, but for those in files of arrays."""
        columns = {}
        for name in self.field_types:
            present = self.present(name, start, stop)
            if name in self.stored_names:
                present &= ~self.stored(name, start, stop).present
                if not present.any():
                    continue
            columns[name] = read_column(self.file[name], start, stop, present)
        return columns

    def stored(self, name: str, start: int, stop: int) -> Column:
        """Read the references of a field's rows from `start` to `stop`."""
        references = self.file[f"{STORED}/{name}"][start:stop]
        return Column(references, references["file"] != 0)

    def details(self, start: int, stop: int) -> dict[str, Column]:
        """Read the rows from `start` to `stop` of the group ``tasks``."""
        there = self.state[start:stop] != TaskState.MISSING
        group = self.file[DETAILS]
        return {name: read_column(group[name], start, stop, there) for name in self.detail_types}

    def read(self, start: int, stop: int) -> Block:
        """Read the rows from `start` to `stop`."""
        return Block(
            self.task[start:stop],
            self.state[start:stop],
            self.details(start, stop),
            self.fields(start, stop),
            {name: self.stored(name, start, stop) for name in self.stored_names},
        )

    def windows(self, rows: int) -> Iterator[Block]:
        """Read the whole file, some rows at a time."""
        for start in range(0, len(self.task), rows):
            yield self.read(start, min(start + rows, len(self.task)))

    def present(self, name: str, start: int, stop: int) -> NDArray[np.bool_]:
        """Tell which rows from `start` to `stop` of a field there are."""
        done: NDArray[np.bool_] = self.state[start:stop] == TaskState.DONE
        path = f"{PRESENT}/{name}"
        if path not in self.file:
            return done
        kept: NDArray[np.bool_] = self.file[path][start:stop].astype(bool)
        return kept & done


def block_image(block: Block) -> memoryview:
    """Return the bytes of an HDF5 file that holds one block.

    Built in memory, so that a full disk meets one plain write and not HDF5 half-way.
    """
    schema = Schema(
        {n: c.field for n, c in block.fields.items()},
        {n: c.field for n, c in block.details.items()},
        set(block.stored),
    )
    absent = {name for name, column in block.fields.items() if not column.present.all()}
    options: dict[str, Any] = {"driver": "core", "backing_store": False, "block_size": 1 << 20}
    with h5py.File("block", "w", libver=LIBVER, track_order=True, **options) as file:
        writer = BlockWriter(file, len(block), schema, absent)
        writer.write(0, block)
        writer.close()
        write_partials(file, block.partials)
        file.flush()
        return memoryview(file.id.get_file_image())


def is_farm(file: h5py.File) -> bool:
    """Tell a farm's file from an spmd run's, in which whatever is saved is a dataset."""
    return isinstance(file.get(DETAILS), h5py.Group)


def _flags(kind: type[TaskState]) -> dict[str, Any]:
    return {
        "flag_values": np.array([int(state) for state in kind], np.int8),
        "flag_meanings": " ".join(state.name.lower() for state in kind),
        "long_name": "what became of the task",
    }
