"""Checkpoints of an spmd program: each rank a file, valid once all ranks have theirs.

The files of a step lie in a folder of their own. The last act is to replace a small JSON file
that names the folder; a crash before that leaves the previous checkpoint in force.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.errors import StoreError, UsageError
from hpckit.store.atomic import explained, replacing, sync, write_bytes
from hpckit.store.layout import TEXT_TYPE
from hpckit.store.newfile import new_file
from hpckit.store.rundir import RunDir

STATE = "hpckit_state"


class Checkpoints:
    """The checkpoints of one rank in a run."""

    def __init__(self, run: RunDir, comm: Any) -> None:
        self.folder = run.checkpoint
        self.comm = comm
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()

    @property
    def latest(self) -> Path:
        """The file that names the checkpoint in force."""
        return self.folder / "latest.json"

    def write(self, step: int, values: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write a checkpoint; collective.

        Parameters
        ----------
        values
            Arrays and scalars of this rank.
        state
            What hpckit itself must take up again; JSON.

        Raises
        ------
        TypeError
            A value cannot be kept.
        StoreError
            On all ranks, if one cannot write; the one before stays in force.
        """
        arrays = {name: _checked(name, value) for name, value in values.items()}
        previous = self._in_force()
        folder = self.folder / f"step-{step:012d}"
        if previous is not None and previous["folder"] == folder.name:
            folder = folder.with_name(f"{folder.name}-again")
        self._on_root(lambda: _make_anew(folder))
        self._on_all(lambda: self._write_own(folder, arrays, state))
        entry = {"folder": folder.name, "step": step, "ranks": self.size}
        self._on_root(lambda: write_bytes(self.latest, json.dumps(entry).encode()))
        if self.rank == 0 and previous is not None and previous["folder"] != folder.name:
            shutil.rmtree(self.folder / previous["folder"], ignore_errors=True)

    def remove(self) -> None:
        """Remove all checkpoints, so that none is in force once the first file is gone."""
        self.latest.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return values and state of the checkpoint in force, None where there is none.

        Raises
        ------
        UsageError
            It was written by another number of ranks.
        StoreError
            It does not read back.
        """
        entry = self._in_force()
        if entry is None:
            return None
        if entry["ranks"] != self.size:
            raise UsageError(
                f"{self.folder}: the checkpoint of step {entry['step']} was written by "
                f"{entry['ranks']} ranks, these are {self.size}: resume with --ranks "
                f"{entry['ranks']}"
            )
        path = self._file(self.folder / entry["folder"])
        try:
            with h5py.File(path, "r") as file:
                state = json.loads(file[STATE].asstr()[()])
                values = {name: _value(file[name]) for name in file if name != STATE}
        except (OSError, KeyError) as error:
            raise StoreError(f"{path}: the checkpoint does not read back: {error}") from None
        return {"step": entry["step"], **values}, state

    def _file(self, folder: Path) -> Path:
        return folder / f"rank-{self.rank:05d}.h5"

    def _write_own(
        self, folder: Path, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]
    ) -> None:
        with (
            replacing(self._file(folder)) as path,
            new_file(path) as file,
        ):
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
            file.create_dataset(STATE, data=json.dumps(state), dtype=TEXT_TYPE)

    def _on_root(self, act: Callable[[], None]) -> None:
        self._on_all(act if self.rank == 0 else lambda: None)

    def _on_all(self, act: Callable[[], None]) -> None:
        """Do something on each rank; if it fails on one, all raise and none waits for it."""
        problem: Exception | None = None
        try:
            act()
        except Exception as error:
            problem = error
        told = self.comm.allgather(None if problem is None else str(problem))
        if problem is not None:
            raise problem
        for text in filter(None, told):
            raise StoreError(text)

    def _in_force(self) -> dict[str, Any] | None:
        """Read the entry on rank 0, so that all ranks agree on it."""
        entry = None
        if self.rank == 0 and self.latest.is_file():
            entry = json.loads(self.latest.read_bytes())
        found: dict[str, Any] | None = self.comm.bcast(entry, root=0)
        return found


def _make_anew(folder: Path) -> None:
    """Make a folder; what a crash left half-written there counts for nothing."""
    with explained(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        sync(folder.parent)
        sync(folder.parent.parent)


def _checked(name: str, value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "biufcU":
        raise TypeError(
            f"run.checkpoint({name}=…): a {type(value).__name__} cannot be kept, only numbers, "
            "bools, text, and arrays of them"
        )
    if name == STATE or "/" in name or name == ".":
        raise TypeError(f"run.checkpoint: {name!r} cannot be the name of a value")
    return array.astype(TEXT_TYPE) if array.dtype.kind == "U" else array


def _value(item: h5py.Dataset) -> Any:
    if h5py.check_string_dtype(item.dtype) is None:
        return item[()]
    text = item.asstr()[()]
    return text if isinstance(text, str) else text.astype(str)
