"""The values that one parameter takes along an axis; arithmetic ones are computed, not stored.

Every column gives the same value for an index by ``column[i]`` and by ``column.take``: bit for
bit, because a task that runs again has to run with the value it had.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Column(Protocol):
    """The values of one parameter along an axis."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any:
        """Return the value at an index from 0 on."""

    def take(self, indices: NDArray[np.int64], /) -> list[Any]:
        """Return the values at many indices, as Python objects."""

    @property
    def varies(self) -> bool:
        """Whether there is more than one value."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Values that were written out, one by one."""

    values: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        return self.values[index]

    def take(self, indices: NDArray[np.int64]) -> list[Any]:
        """Return the values at many indices."""
        return list(map(self.values.__getitem__, indices.tolist()))

    @property
    def varies(self) -> bool:
        """Whether two of them differ."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class Range:
    """Evenly spaced integers, as int or as float."""

    numbers: range
    kind: type[int] | type[float] = int

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> int | float:
        return self.kind(self.numbers[index])

    def take(self, indices: NDArray[np.int64]) -> list[Any]:
        """Return the values at many indices."""
        numbers = indices * self.numbers.step + self.numbers.start
        values: list[Any] = numbers.astype(self.kind).tolist()
        return values

    @property
    def varies(self) -> bool:
        """Whether there are several."""
        return len(self) > 1


@dataclass(frozen=True, slots=True)
class Linspace:
    """Evenly spaced floats from `start` to `stop`, both included.

    The arithmetic is that of `numpy.linspace`: ``start + i*step``, and `stop` itself at the end.
    """

    start: float
    stop: float
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def step(self) -> float:
        """The distance of neighbours; zero for a single point."""
        return (self.stop - self.start) / (self.count - 1) if self.count > 1 else 0.0

    def __getitem__(self, index: int) -> float:
        if index == self.count - 1 and index:
            return self.stop
        return index * self.step + self.start

    def take(self, indices: NDArray[np.int64]) -> list[Any]:
        """Return the values at many indices."""
        points = indices * self.step + self.start
        if self.count > 1:
            points[indices == self.count - 1] = self.stop
        values: list[Any] = points.tolist()
        return values

    @property
    def varies(self) -> bool:
        """Whether the ends differ."""
        return self.count > 1 and self.start != self.stop


@dataclass(frozen=True, slots=True)
class Logspace:
    """Powers of ten whose exponents are evenly spaced, as `numpy.logspace` has them.

    The power is the C library's and not numpy's, whose last digit depends on the CPU.
    """

    exponents: Linspace

    def __len__(self) -> int:
        return self.exponents.count

    def __getitem__(self, index: int) -> float:
        return math.pow(10.0, self.exponents[index])

    def take(self, indices: NDArray[np.int64]) -> list[Any]:
        """Return the values at many indices."""
        power: Callable[[float], float] = (10.0).__pow__
        return list(map(power, self.exponents.take(indices)))

    @property
    def varies(self) -> bool:
        """Whether the ends differ."""
        return self.exponents.varies
