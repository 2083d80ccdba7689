"""How far apart two arrays are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Place = Callable[[int], str]
"""Names the place of a value from its position in the flattened array."""


@dataclass
class Gap:
    """The differences between two arrays that come piece by piece.

    Attributes
    ----------
    values, unequal, beyond
        How many were compared, how many differ, and how many by more than the tolerance.
    max_abs, max_rel
        The largest difference; None while nothing could be subtracted.
    where
        The place of the largest absolute difference, or of the first that is none.
    """

    rtol: float = 0.0
    atol: float = 0.0
    values: int = 0
    unequal: int = 0
    beyond: int = 0
    max_abs: float | None = None
    max_rel: float | None = None
    where: str | None = None

    def add(self, a: NDArray[Any], b: NDArray[Any], place: Place) -> None:
        """Take in a piece: two arrays of one shape."""
        a, b = a.reshape(-1), b.reshape(-1)
        if not a.size:
            return
        self.values += a.size
        if a.dtype.kind in "iufc":
            self._add_numbers(a, b, place)
            return
        unequal = np.flatnonzero(a != b)
        self.unequal += unequal.size
        self.beyond += unequal.size
        if unequal.size and self.where is None:
            self.where = place(int(unequal[0]))

    def _add_numbers(self, a: NDArray[Any], b: NDArray[Any], place: Place) -> None:
        differences, sizes = distances(a, b)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            within = differences <= self.atol + self.rtol * sizes
            relative = np.where(differences == 0, 0.0, differences / sizes)
        within = (differences == 0) | (within & np.isfinite(differences))
        relative[np.isnan(relative)] = np.inf
        self.unequal += int(np.count_nonzero(differences))
        self.beyond += int(np.count_nonzero(~within))
        largest = int(differences.argmax())
        if differences[largest] > (self.max_abs or 0.0):
            self.where = place(largest)
        self.max_abs = max(self.max_abs or 0.0, float(differences[largest]))
        self.max_rel = max(self.max_rel or 0.0, float(relative.max()))


def distances(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``|a - b|`` and ``max(|a|, |b|)`` of numbers as float64.

    NaN is at no distance from NaN and infinitely far from a number; infinities of one sign are
    at no distance. Differences of integers are taken exactly before they are rounded.
    """
    kind = np.result_type(a, b)
    if kind.kind in "iu":
        a, b = a.astype(kind), b.astype(kind)
        # Two's complement: the difference of any two fits into the unsigned type.
        exact = np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64)
        sizes = np.maximum(np.abs(a.astype(float)), np.abs(b.astype(float)))
        return exact.astype(float), sizes
    kind = np.result_type(kind, np.float64)
    a, b = a.astype(kind), b.astype(kind)
    with np.errstate(invalid="ignore", over="ignore"):
        differences = np.abs(a - b)
        sizes = np.fmax(np.abs(a), np.abs(b))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    differences[same] = 0.0
    differences[np.isnan(differences)] = np.inf
    return differences.astype(float), sizes.astype(float)
