"""Arrays on the card, and such of the host that the card can reach."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hpckit.run.gpu import driver

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from hpckit.run.gpu.card import Gpu

LEAST = 256
"""Bytes that CUDA gives out at least."""

TO_CARD, TO_HOST = "to card", "to host"
"""The two kinds of transfers, as accounts have them."""


class Memory:
    """Gives out a card's memory, and keeps what was given back for the next who asks.

    Attributes
    ----------
    peak
        The most bytes that it has held.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.peak = self._held = 0
        self._gpu = gpu
        self._spare: dict[int, list[Any]] = {}

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Any:
        """Return a new array on the card."""
        from pycuda.gpuarray import GPUArray

        return GPUArray(shape, np.dtype(dtype), allocator=self._allocate)

    def zeros(self, shape: int | Sequence[int], dtype: DTypeLike) -> Any:
        """Return a new array of zeros on the card."""
        array = self.empty(shape, dtype)
        if array.nbytes:
            self._gpu.cuda.memset_d8(array.gpudata, 0, array.nbytes)
        return array

    def array(self, values: ArrayLike, dtype: DTypeLike | None = None) -> Any:
        """Return a copy on the card."""
        host = np.ascontiguousarray(values, dtype)
        array = self.empty(host.shape, host.dtype)
        if host.nbytes:
            with self._gpu.ledger.transfer(TO_CARD, None, host.nbytes):
                self._gpu.cuda.memcpy_htod(array.gpudata, host)
        return array

    def to_host(self, array: Any, out: np.ndarray[Any, Any] | None = None) -> Any:
        """Return a copy on the host."""
        if not array.flags.c_contiguous:
            array = array.copy()
        host = np.empty(array.shape, array.dtype) if out is None else out
        if array.nbytes:
            with self._gpu.ledger.transfer(TO_HOST, None, array.nbytes):
                self._gpu.cuda.memcpy_dtoh(host, array.gpudata)
        return host

    def pinned(self, shape: int | Sequence[int], dtype: DTypeLike) -> Any:
        """Return a new array of the host that the card reaches by itself."""
        return self._gpu.cuda.pagelocked_empty(shape, np.dtype(dtype))

    def _allocate(self, nbytes: int) -> Any:
        size = room_for(nbytes)
        spare = self._spare.get(size)
        if spare:
            return self._lent(spare.pop(), size)
        with driver.memory_explained(self._gpu.cuda, nbytes, self._gpu.name):
            try:
                got = self._gpu.cuda.mem_alloc(size)
            except self._gpu.cuda.MemoryError:
                self._give_up_spare()
                got = self._gpu.cuda.mem_alloc(size)
        self._held += size
        self.peak = max(self.peak, self._held)
        return self._lent(got, size)

    def _give_up_spare(self) -> None:
        for size, spare in self._spare.items():
            self._held -= size * len(spare)
            spare.clear()

    def _lent(self, allocation: Any, size: int) -> Any:
        """Return what an array holds on to: its end gives the memory back to this pool."""
        return _lent_class()(allocation, self._spare.setdefault(size, []))


@lru_cache(maxsize=1)
def _lent_class() -> Any:
    """Return the class of memory that goes back to a pool when nobody has it any more.

    PyCUDA's own pool ends the process if that happens while no context is current.
    """
    from pycuda.driver import PointerHolderBase

    class Lent(PointerHolderBase):  # type: ignore[misc]
        def __init__(self, allocation: Any, spare: list[Any]) -> None:
            super().__init__()
            self._allocation, self._spare = allocation, spare

        def get_pointer(self) -> int:
            return int(self._allocation)

        def __del__(self) -> None:
            self._spare.append(self._allocation)

    return Lent


def room_for(nbytes: int) -> int:
    """Return the size of a piece of memory that is asked for: at most an eighth more."""
    step = max(1 << max(nbytes.bit_length() - 4, 0), LEAST)
    return -(-nbytes // step) * step
