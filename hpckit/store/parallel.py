"""results.h5 written by all ranks at once, where h5py was built on parallel HDF5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from hpckit.store.atomic import explained, sync
from hpckit.store.fields import Piece, copy_piece
from hpckit.store.packing import pack
from hpckit.store.rundir import RunDir


def is_parallel(comm: Any) -> bool:
    """Tell whether the ranks of a communicator can write one file together."""
    return bool(comm.Get_size() > 1 and h5py.get_config().mpi)


def pack_together(run: RunDir, comm: Any, pieces: Sequence[Piece]) -> None:
    """Copy the blocks of all ranks into results.h5 itself; collective.

    Rank 0 makes the file with its fields empty. Each rank then writes its own blocks,
    independently of the others: blocks do not overlap, and those of whole rows are contiguous.

    Parameters
    ----------
    pieces
        This rank's own.

    Raises
    ------
    StoreError
        The file cannot be written.
    """

    def fill(path: Path, names: list[str]) -> None:
        comm.bcast((path, names), root=0)
        _write_own(run, comm, path, [piece for piece in pieces if piece.name in names])

    if comm.Get_rank() == 0:
        if not pack(run, fill):
            comm.bcast(None, root=0)
    elif (told := comm.bcast(None, root=0)) is not None:
        path, names = told
        _write_own(run, comm, path, [piece for piece in pieces if piece.name in names])


def _write_own(run: RunDir, comm: Any, path: Path, pieces: Sequence[Piece]) -> None:
    with explained(path), h5py.File(path, "r+", driver="mpio", comm=comm) as file:
        for piece in pieces:
            copy_piece(run, piece, file[piece.name])
    with explained(path):
        # What this node holds in its memory; the renaming rank can sync only its own.
        sync(path)
    comm.Barrier()
