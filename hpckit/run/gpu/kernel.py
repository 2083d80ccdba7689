"""A kernel that can be launched."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hpckit.errors import LaunchError, UsageError
from hpckit.run.gpu import driver
from hpckit.run.gpu.compiler import Cubin, Needs
from hpckit.run.gpu.signature import Parameter

if TYPE_CHECKING:
    from hpckit.run.gpu.card import Gpu

Extent: TypeAlias = int | Sequence[int]

SHARED_UNASKED = 48 << 10
"""Bytes of shared memory that a block may have on any card (CUDA C++ Programming Guide)."""

LARGEST_GRID = (2**31 - 1, 65535, 65535)
"""Blocks in each direction (CUDA C++ Programming Guide, "Technical Specifications")."""

SMALLEST, WARP = 128, 32
"""Threads of the smallest block that is chosen, and of a warp."""

PARTS, REGISTERS_AT_ONCE, SHARED_AT_ONCE, OWN_SHARED = 4, 256, 128, 1024
"""Of a multiprocessor: its parts, the registers and bytes of shared memory that are given out at
once, and the bytes that each block has for the system (cuda_occupancy.h, from Ampere on)."""


class Kernel:
    """A function on the card: ``kernel(x, y, n, threads=n)`` launches it.

    Attributes
    ----------
    name
        As the source has it.
    needs
        Registers, spills and shared memory, as the compiler told.
    block
        Threads of a block that let most threads be on the card at once.
    """

    def __init__(
        self,
        gpu: Gpu,
        function: Any,
        name: str,
        parameters: tuple[Parameter, ...],
        needs: Needs,
        counts: tuple[float, float],
    ) -> None:
        self.name = name
        self.needs = needs
        self._gpu = gpu
        self._parameters = parameters
        self._bytes, self._flops = counts
        is_double = any(p.dtype == np.float64 for p in parameters)
        numbers = "float64" if is_double else "float32"
        self._account = gpu.ledger.account(name, numbers, needs.as_dict())
        self._function = function.prepare([_prepared(p) for p in parameters])
        self._most_threads = int(function.max_threads_per_block)
        self._shared = 0
        self.block = best_block(gpu.limits, needs, self._most_threads)

    def __call__(
        self,
        *arguments: Any,
        threads: Extent | None = None,
        block: Extent | None = None,
        grid: Extent | None = None,
        stream: Any = None,
        shared: int = 0,
    ) -> None:
        """Launch it; it returns before the card is done.

        Parameters
        ----------
        *arguments
            As the kernel's parameters: arrays on the card for pointers, numbers.
        threads
            How many there are to be, in one, two or three directions: as many whole blocks as
            that takes. The kernel leaves out what is beyond.
        block
            Threads of a block; left out, the number that fills the card best.
        grid
            Blocks, instead of `threads`.
        stream
            Of `gpu.stream()`; left out, what was launched before ends first.
        shared
            Bytes of a block's ``extern __shared__`` array.

        Raises
        ------
        UsageError
            The arguments do not fit the kernel, or the launch does not fit the card.
        """
        accepted = self._accepted(arguments)
        shape = self._shape(threads, grid, block, shared)
        asked = math.prod([*shape[0], *shape[1]] if threads is None else _sizes(threads))
        self._allow_shared(shared)
        self._account.count(self._bytes * asked, self._flops * asked)
        with self._gpu.ledger.timed(self._account, stream, asked):
            self.launch(*shape, accepted, stream, shared)

    def launch(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        accepted: Sequence[Any],
        stream: Any = None,
        shared: int = 0,
    ) -> None:
        """Launch it with arguments that fit, on nobody's account.

        Raises
        ------
        UsageError
            The launch does not fit the card.
        """
        try:
            self._function.prepared_async_call(grid, block, stream, *accepted, shared_size=shared)
        except self._gpu.cuda.Error as error:
            if self._gpu.is_lost():
                raise driver.lost(self._gpu.name, error) from None
            raise driver.refused(self.name, error) from None

    def _allow_shared(self, nbytes: int) -> None:
        """Ask for more shared memory than every card has for a block, where a launch does."""
        if nbytes <= max(self._shared, SHARED_UNASKED):
            return
        attribute = self._gpu.cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
        try:
            self._function.set_attribute(attribute, nbytes)
        except self._gpu.cuda.Error as error:
            raise driver.refused(self.name, error) from None
        self._shared = nbytes

    def _accepted(self, arguments: tuple[Any, ...]) -> list[Any]:
        if len(arguments) != len(self._parameters):
            takes = ", ".join(parameter.text for parameter in self._parameters)
            raise UsageError(
                f"kernel {self.name}: {len(arguments)} arguments for its {len(self._parameters)} "
                f"parameters ({takes})"
            )
        pairs = zip(self._parameters, arguments, strict=True)
        return [parameter.accept(value, self.name) for parameter, value in pairs]

    def _block(self, shared: int) -> int:
        if not shared:
            return self.block
        needs = replace(self.needs, shared_bytes=self.needs.shared_bytes + shared)
        return best_block(self._gpu.limits, needs, self._most_threads)

    def _shape(
        self, threads: Extent | None, grid: Extent | None, block: Extent | None, shared: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the grid and the block of a launch."""
        if (threads is None) == (grid is None) or (grid is not None and block is None):
            raise UsageError(
                f"kernel {self.name}: threads={threads!r}, grid={grid!r}, block={block!r}: give "
                "either threads, or grid and block"
            )
        for name, extent in (("threads", threads), ("grid", grid), ("block", block)):
            if extent is not None:
                self._require_extent(name, extent)
        size = _three(self._block(shared) if block is None else block)
        if math.prod(size) > self._most_threads:
            raise UsageError(
                f"kernel {self.name}: block={block!r}: at most {self._most_threads} threads"
            )
        if threads is None:
            assert grid is not None
            blocks = _three(grid)
        else:
            blocks = tuple(-(-n // per) for n, per in zip(_three(threads), size, strict=True))
        if any(n > most for n, most in zip(blocks, LARGEST_GRID, strict=True)):
            raise UsageError(
                f"kernel {self.name}: a grid of {blocks} blocks; at most {LARGEST_GRID} in each "
                "direction"
            )
        return blocks, size

    def _require_extent(self, name: str, extent: Extent) -> None:
        try:
            sizes = _sizes(extent)
        except TypeError:
            sizes = ()
        if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
            raise UsageError(
                f"kernel {self.name}: {name}={extent!r}: it takes one to three whole numbers from "
                "1 on"
            )


def best_block(limits: dict[str, int], needs: Needs, most: int) -> int:
    """Return the size of a block, `most` at most, that lets most threads be at work at once.

    Of equals the smallest, from 128 on: small blocks end sooner and leave less idle at the end.
    """
    sizes = range(SMALLEST, min(limits["threads_per_block"], most) + 1, WARP)
    return max(sizes, key=lambda size: (resident(size, limits, needs), -size), default=most)


def resident(size: int, limits: dict[str, int], needs: Needs) -> int:
    """Return how many threads a multiprocessor holds in blocks of a size, of 128 or more."""
    warps = -(-size // WARP)
    room = [limits["threads"] // size]
    if of_a_warp := _whole(needs.registers * WARP, REGISTERS_AT_ONCE):
        # Each of the parts has its own registers, and warps of its own.
        of_a_part = limits["registers"] // PARTS // of_a_warp
        room.append(of_a_part * PARTS // warps)
    room.append(limits["shared"] // _whole(needs.shared_bytes + OWN_SHARED, SHARED_AT_ONCE))
    return min(room) * size


def _whole(amount: int, unit: int) -> int:
    return -(-amount // unit) * unit


def symbol_of(cubin: Cubin, name: str) -> str:
    """Return the name that C++ gave a kernel, by which the card's code knows it.

    Raises
    ------
    LaunchError
        There is none, or several: of a template or in namespaces, say.
    """
    mangled = re.compile(rf"{re.escape(name)}|_Z{len(name)}{re.escape(name)}[A-Za-z0-9_]*")
    found = [symbol for symbol in cubin.needs if mangled.fullmatch(symbol)]
    if len(found) != 1:
        raise LaunchError(
            f"kernel {name!r}: the compiled code has {', '.join(found) or 'none of that name'}; "
            f"its kernels are {', '.join(cubin.needs)}. Give each a name of its own, outside of "
            "templates and namespaces"
        )
    return found[0]


def _prepared(parameter: Parameter) -> Any:
    return "P" if parameter.is_pointer else parameter.dtype


def _sizes(extent: Extent) -> tuple[int, ...]:
    return tuple(map(index, extent)) if isinstance(extent, Sequence) else (index(extent),)


def _three(extent: Extent) -> tuple[int, ...]:
    return (*_sizes(extent), 1, 1)[:3]
