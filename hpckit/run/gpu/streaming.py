"""Arrays that are larger than the card's memory, sent through it in blocks.

Three sets of buffers take turns, each with a stream of its own: while the card works on one block,
the next one is on its way there and the last one on its way back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hpckit.errors import UsageError
from hpckit.run.gpu.memory import TO_CARD, TO_HOST

if TYPE_CHECKING:
    from hpckit.run.gpu.card import Gpu

SETS = 3

BLOCK = 128 << 20
"""Bytes of a block, of all its arrays together: enough that the link is at its full speed."""

BLOCKS = 8
"""So many blocks an array makes at least, so that they overlap."""


@dataclass
class _Buffers:
    """Room for one block on its way: on the host, where the card reaches it, and on the card."""

    stream: Any
    sent: list[Any]
    inputs: list[Any]
    outputs: list[Any]
    returned: list[Any]
    rows: slice = field(default_factory=lambda: slice(0))
    back: Any = None


def stream_blocks(
    gpu: Gpu,
    step: Callable[..., None],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    rows: int | None = None,
) -> None:
    """Send arrays through the card, some rows at a time.

    Parameters
    ----------
    step
        Called as ``step(*inputs, *outputs, stream=stream)``, the last by its name, with arrays of
        the card that hold one block each; it launches kernels on that stream, and returns
        without waiting.
    inputs, outputs
        Arrays of one length that can be read, or written, by slices of rows: NumPy's, a memory
        map, a dataset of h5py. `Gpu.pinned` ones go the fastest, without a copy on the host.
    rows
        Of a block; left out, as many as make 128 MiB, or an eighth of the arrays.

    Raises
    ------
    UsageError
        The arrays are of different lengths, or there is none.
    GpuError
        Three blocks of all arrays do not fit on the card.
    """
    length = _length(inputs, outputs)
    rows = min(_fitting(gpu, inputs, outputs, length) if rows is None else rows, length)
    if length == 0:
        return
    if not isinstance(rows, int | np.integer) or rows < 1:
        raise UsageError(f"gpu.stream_blocks: rows={rows}: a block has a whole number of rows")
    sets = [_buffers(gpu, inputs, outputs, rows) for _ in range(min(SETS, -(-length // rows)))]
    for number, start in enumerate(range(0, length, rows)):
        mine = sets[number % len(sets)]
        # The other sets are at the card meanwhile.
        _bring_back(mine, outputs)
        mine.rows = slice(start, min(start + rows, length))
        _send(gpu, mine, inputs)
        _work(gpu, mine, step, outputs)
    for mine in sets:
        _bring_back(mine, outputs)


def _fitting(gpu: Gpu, inputs: Sequence[Any], outputs: Sequence[Any], length: int) -> int:
    """Return how many rows a block had better have."""
    a_row: int = sum(math.prod(a.shape[1:]) * a.dtype.itemsize for a in (*inputs, *outputs))
    nbytes = min(BLOCK, gpu.memory.free // (2 * SETS))
    return max(min(nbytes // max(a_row, 1), -(-length // BLOCKS)), 1)


def _length(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    for arrays in (inputs, outputs):
        if hasattr(arrays, "dtype") or not all(_is_on_host(array) for array in arrays):
            raise UsageError(
                "gpu.stream_blocks: inputs and outputs are lists of arrays of the host, such as "
                f"[x, y]; one is {type(arrays).__name__} of "
                f"{', '.join(type(array).__name__ for array in arrays[:4])}"
            )
    lengths = {len(array) for array in (*inputs, *outputs)}
    if len(lengths) != 1:
        told = ", ".join(str(len(array)) for array in (*inputs, *outputs)) or "none"
        raise UsageError(f"gpu.stream_blocks: the arrays must be of one length; these are: {told}")
    return int(lengths.pop())


def _buffers(gpu: Gpu, inputs: Sequence[Any], outputs: Sequence[Any], rows: int) -> _Buffers:
    def shape(array: Any) -> tuple[int, ...]:
        return (rows, *array.shape[1:])

    return _Buffers(
        stream=gpu.stream(),
        sent=[None if _is_pinned(a) else gpu.pinned(shape(a), a.dtype) for a in inputs],
        inputs=[gpu.empty(shape(a), a.dtype) for a in inputs],
        outputs=[gpu.empty(shape(a), a.dtype) for a in outputs],
        returned=[None if _is_pinned(a) else gpu.pinned(shape(a), a.dtype) for a in outputs],
    )


def _is_on_host(array: Any) -> bool:
    return hasattr(array, "dtype") and hasattr(array, "shape") and not hasattr(array, "gpudata")


def _is_pinned(array: Any) -> bool:
    """Tell whether an array of the host is one that the card reaches by itself."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    is_whole = isinstance(array, np.ndarray) and bool(array.flags.c_contiguous)
    return is_whole and type(base).__name__ == "PagelockedHostAllocation"


def _send(gpu: Gpu, mine: _Buffers, inputs: Sequence[Any]) -> None:
    """Send a block to the card; the copies are queued, and go on beside what follows."""
    count = mine.rows.stop - mine.rows.start
    for source, room, target in zip(inputs, mine.sent, mine.inputs, strict=True):
        if room is None:
            block = source[mine.rows]
        else:
            block = room[:count]
            np.copyto(block, source[mine.rows])
        if block.nbytes:
            with gpu.ledger.transfer(TO_CARD, mine.stream, block.nbytes):
                gpu.cuda.memcpy_htod_async(target.ptr, block, mine.stream)


def _work(gpu: Gpu, mine: _Buffers, step: Callable[..., None], outputs: Sequence[Any]) -> None:
    """Launch the work on a block, and queue the way back of what comes of it."""
    count = mine.rows.stop - mine.rows.start
    step(*(a[:count] for a in mine.inputs), *(a[:count] for a in mine.outputs), stream=mine.stream)
    for target, source, room in zip(outputs, mine.outputs, mine.returned, strict=True):
        block = target[mine.rows] if room is None else room[:count]
        if block.nbytes:
            with gpu.ledger.transfer(TO_HOST, mine.stream, block.nbytes):
                gpu.cuda.memcpy_dtoh_async(block, source.ptr, mine.stream)
    mine.back = gpu.cuda.Event()
    mine.back.record(mine.stream)


def _bring_back(mine: _Buffers, outputs: Sequence[Any]) -> None:
    """Wait for a block's way back, if one is on its way, and put it where it belongs."""
    if mine.back is None:
        return
    mine.back.synchronize()
    count = mine.rows.stop - mine.rows.start
    for target, room in zip(outputs, mine.returned, strict=True):
        if room is not None:
            target[mine.rows] = room[:count]
    mine.back = None
