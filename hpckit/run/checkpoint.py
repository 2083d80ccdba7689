"""Checkpoints of an spmd program: each rank a file, valid once all ranks have theirs.

The files of a step lie in a folder of their own. The last act is to replace a small JSON file
that names the folder; a crash before that leaves the previous checkpoint in force.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpckit.errors import StoreError, UsageError
from hpckit.store.atomic import replacing, write_bytes
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
        StoreError
            It cannot be written; the one before stays in force.
        """
        previous = self._in_force()
        folder = self.folder / f"step-{step:012d}"
        if previous is not None and previous["folder"] == folder.name:
            folder = folder.with_name(f"{folder.name}-again")
        if self.rank == 0:
            # What a crash left half-written there counts for nothing.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.comm.Barrier()
        self._write_own(folder, values, state)
        self.comm.Barrier()
        if self.rank == 0:
            entry = {"folder": folder.name, "step": step, "ranks": self.size}
            write_bytes(self.latest, json.dumps(entry).encode())
            if previous is not None and previous["folder"] != folder.name:
                shutil.rmtree(self.folder / previous["folder"], ignore_errors=True)

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
                values = {name: file[name][()] for name in file if name != STATE}
        except (OSError, KeyError) as error:
            raise StoreError(f"{path}: the checkpoint does not read back: {error}") from None
        return {"step": entry["step"], **values}, state

    def _file(self, folder: Path) -> Path:
        return folder / f"rank-{self.rank:05d}.h5"

    def _write_own(self, folder: Path, values: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        with (
            replacing(self._file(folder)) as path,
            new_file(path) as file,
        ):
            for name, value in values.items():
                file.create_dataset(name, data=np.asarray(value))
            file.create_dataset(STATE, data=json.dumps(state), dtype=TEXT_TYPE)

    def _in_force(self) -> dict[str, Any] | None:
        """Read the entry on rank 0, so that all ranks agree on it."""
        entry = None
        if self.rank == 0 and self.latest.is_file():
            entry = json.loads(self.latest.read_bytes())
        found: dict[str, Any] | None = self.comm.bcast(entry, root=0)
        return found
