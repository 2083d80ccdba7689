"""What ranks send each other, from card to card."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpckit.run.gpu.driver import GpuError
from hpckit.run.gpu.memory import TO_CARD, TO_HOST, require_on_card

if TYPE_CHECKING:
    from hpckit.run.gpu.card import Gpu


PROBE = 1 << 19
"""Numbers of float64 that a probe sends: so many that they take the way of large messages."""


class Halo:
    """An exchange that is made again and again: `start` it, launch what needs none of it, `finish`.

    Parameters
    ----------
    sends, receives
        Pairs of an array on the card, contiguous, and a rank; those of ``MPI.PROC_NULL`` go
        nowhere. Messages between two ranks arrive in the order in which they stand here.

    Raises
    ------
    UsageError
        Something else is to be exchanged.

    Attributes
    ----------
    is_direct
        Whether MPI itself reads and writes the card's memory; else it goes by way of the host.
    """

    def __init__(
        self,
        gpu: Gpu,
        comm: Any,
        sends: Sequence[tuple[Any, int]],
        receives: Sequence[tuple[Any, int]],
    ) -> None:
        for array, _ in (*sends, *receives):
            require_on_card(array, "gpu.halo")
        self._gpu = gpu
        self._stream = gpu.stream()
        self.is_direct = reaches_cards(gpu, comm)
        self._sends = [_Part(gpu, array, direct=self.is_direct) for array, _ in sends]
        self._receives = [_Part(gpu, array, direct=self.is_direct) for array, _ in receives]
        pairs = zip(self._sends, sends, strict=True)
        self._sending = [comm.Send_init(part.message, dest=rank) for part, (_, rank) in pairs]
        pairs = zip(self._receives, receives, strict=True)
        self._receiving = [comm.Recv_init(part.message, source=rank) for part, (_, rank) in pairs]
        self._is_real = [rank >= 0 for _, rank in receives]

    def start(self) -> None:
        """Begin it, once what was launched before has ended: the arrays to be sent are ready."""
        self._gpu.synchronize()
        for request in self._receiving:
            request.Start()
        for part in self._sends:
            part.fetch(self._stream)
        self._stream.synchronize()
        for request in self._sending:
            request.Start()

    def finish(self) -> None:
        """Wait until all has arrived; launches that follow see it on the card.

        Raises
        ------
        GpuError
            A message is shorter than the array that it is for.
        """
        from mpi4py import MPI

        status = MPI.Status()
        for request, part, is_real in zip(
            self._receiving, self._receives, self._is_real, strict=True
        ):
            request.Wait(status)
            if is_real:
                part.require_whole(status.Get_count(MPI.BYTE), status.Get_source())
                part.put(self._stream)
        for request in self._sending:
            request.Wait()
        self._stream.synchronize()

    def free(self) -> None:
        """Give MPI's requests back."""
        for request in (*self._sending, *self._receiving):
            request.Free()


class _Part:
    """One array of an exchange, and what MPI is given of it."""

    def __init__(self, gpu: Gpu, array: Any, *, direct: bool) -> None:
        self._gpu = gpu
        self._array = array
        self._room = None if direct else gpu.pinned(array.shape, array.dtype)
        self.message: Any = array if direct else self._room

    def require_whole(self, nbytes: int, rank: int) -> None:
        """See that a message from a rank fills the array."""
        if nbytes != self._array.nbytes:
            raise GpuError(
                f"gpu.halo: rank {rank} sent {nbytes} bytes for an array of shape "
                f"{self._array.shape}, which has {self._array.nbytes}: sends and receives must be "
                "of one size"
            )

    def fetch(self, stream: Any) -> None:
        """Queue the way to the host."""
        if self._room is not None and self._room.nbytes:
            with self._gpu.ledger.transfer(TO_HOST, stream, self._room.nbytes):
                self._gpu.cuda.memcpy_dtoh_async(self._room, self._array.ptr, stream)

    def put(self, stream: Any) -> None:
        """Queue the way to the card."""
        if self._room is not None and self._room.nbytes:
            with self._gpu.ledger.transfer(TO_CARD, stream, self._room.nbytes):
                self._gpu.cuda.memcpy_htod_async(self._array.ptr, self._room, stream)


def reaches_cards(gpu: Gpu, comm: Any) -> bool:
    """Tell whether MPI moves data between the cards of these ranks by itself; collective.

    A library that says so is believed only after it has moved some: where each rank sees its own
    card alone, as under ``--gpus-per-task``, what it needs between processes may be missing.
    """
    if not comm.allreduce(_says_so(), op=min):
        return False
    sent, got = gpu.array(np.full(PROBE, float(comm.rank))), gpu.zeros(PROBE)
    gpu.synchronize()
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    try:
        comm.Sendrecv(sent, dest=right, recvbuf=got, source=left)
        is_right = bool(np.all(gpu.to_host(got) == float(left)))
    except Exception:
        is_right = False
    return bool(comm.allreduce(int(is_right), op=min))


def _says_so() -> int:
    """Ask MPI whether it was built for cards, as Open MPI and MPICH tell."""
    from mpi4py import MPI

    # Bindings that load whichever library is there do not name it.
    maps = Path("/proc/self/maps").read_text().split()
    for path in [MPI.__file__, *sorted({p for p in maps if "/libmpi" in p})]:
        with suppress(OSError, AttributeError):
            return int(ctypes.CDLL(path).MPIX_Query_cuda_support() == 1)
    return 0
