"""Arrays on the card, and such of the host that the card can reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hpckit.errors import UsageError
from hpckit.run.gpu import driver
from hpckit.units import binary

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
    has_streams
        Whether there may be work in other streams than the default one.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.peak = self._held = 0
        self.has_streams = False
        self._gpu = gpu
        self._spare: dict[int, list[Any]] = {}

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Any:
        """Return a new array on the card."""
        from pycuda.gpuarray import GPUArray

        sizes = shape if isinstance(shape, Sequence) else (shape,)
        if any(not isinstance(size, int | np.integer) or size < 0 for size in sizes):
            raise UsageError(f"gpu.empty: the shape {shape!r}: whole numbers from 0 on")
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
        if host.dtype.kind not in "biufc":
            raise UsageError(f"gpu.array: an array of {host.dtype}; it takes numbers")
        array = self.empty(host.shape, host.dtype)
        if host.nbytes:
            with self._gpu.ledger.transfer(TO_CARD, None, host.nbytes):
                self._gpu.cuda.memcpy_htod(array.gpudata, host)
        return array

    def to_host(self, array: Any, out: np.ndarray[Any, Any] | None = None) -> Any:
        """Return a copy on the host.

        Raises
        ------
        UsageError
            The array is not on the card, or `out` is no contiguous array of its shape and type.
        """
        require_on_card(array, "gpu.to_host")
        if out is not None and not (
            out.shape == array.shape and out.dtype == array.dtype and out.flags.c_contiguous
        ):
            raise UsageError(
                f"gpu.to_host: out is an array of {out.shape} {out.dtype}; it takes a contiguous "
                f"one of {array.shape} {array.dtype}"
            )
        if not array.flags.c_contiguous:
            whole = self._with_gaps(array)
            if out is None:
                return whole
            out[...] = whole
            return out
        host = np.empty(array.shape, array.dtype) if out is None else out
        if array.nbytes:
            with (
                driver.loss_explained(self._gpu),
                self._gpu.ledger.transfer(TO_HOST, None, array.nbytes),
            ):
                self._gpu.cuda.memcpy_dtoh(host, array.ptr)
        return host

    def _with_gaps(self, array: Any) -> Any:
        """Return an array that is not contiguous, by way of all that lies between its elements."""
        reach = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
        if array.size == 0:
            return np.empty(array.shape, array.dtype)
        before = -sum(step for step in reach if step < 0)
        octets = np.empty(before + sum(s for s in reach if s > 0) + array.dtype.itemsize, np.uint8)
        with self._gpu.ledger.transfer(TO_HOST, None, octets.nbytes):
            self._gpu.cuda.memcpy_dtoh(octets, array.ptr - before)
        found: Any = np.ndarray(array.shape, array.dtype, octets, before, array.strides)
        return found.copy()

    def pinned(self, shape: int | Sequence[int], dtype: DTypeLike) -> Any:
        """Return a new array of the host that the card reaches by itself."""
        try:
            return self._gpu.cuda.pagelocked_empty(shape, np.dtype(dtype))
        except self._gpu.cuda.MemoryError:
            size = math.prod(shape if isinstance(shape, Sequence) else (shape,))
            size *= np.dtype(dtype).itemsize
            raise driver.GpuError(
                f"gpu.pinned: the machine does not give {binary(size)} of memory that stays where "
                "it is; ask for less"
            ) from None

    def _allocate(self, nbytes: int) -> Any:
        size = room_for(nbytes)
        spare = self._spare.get(size)
        if spare:
            got = spare.pop()
            if self.has_streams:
                # What used it before may still run in some stream: the default one waits for all
                # others, and they for it.
                self._gpu.cuda.memset_d8(got, 0, 1)
            return self._lent(got, size)
        with driver.memory_explained(self._gpu.cuda, nbytes, self._gpu.name):
            try:
                got = self._gpu.cuda.mem_alloc(size)
            except self._gpu.cuda.MemoryError:
                self.give_up_spare()
                # What can be had is not to fail for what is only rounded up.
                size = -(-nbytes // LEAST) * LEAST
                got = self._gpu.cuda.mem_alloc(size)
        self._held += size
        self.peak = max(self.peak, self._held)
        return self._lent(got, size)

    @property
    def free(self) -> int:
        """Bytes that can still be given out."""
        spare = sum(size * len(pieces) for size, pieces in self._spare.items())
        return int(self._gpu.cuda.mem_get_info()[0]) + spare

    def close(self) -> None:
        """Give all back that no array has."""
        self.give_up_spare()

    def give_up_spare(self) -> None:
        """Give back to the card what no array has."""
        for size, spare in self._spare.items():
            self._held -= size * len(spare)
            spare.clear()

    def _lent(self, allocation: Any, size: int) -> Any:
        """Return what an array holds on to: its end gives the memory back to this pool."""
        return _lent_class()(allocation, self._spare.setdefault(size, []))


def require_on_card(array: Any, call: str) -> None:
    """See that something is an array on the card.

    Raises
    ------
    UsageError
        It is something else.
    """
    if not hasattr(array, "gpudata"):
        raise UsageError(
            f"{call}: a {type(array).__name__} is not on the card: gpu.array(x) makes a copy there"
        )


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
