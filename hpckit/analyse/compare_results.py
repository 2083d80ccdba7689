"""Whether two results.h5 hold the same, and where they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.analyse.gap import Gap
from hpckit.analyse.values import typed
from hpckit.analyse.variables import Region, Variable, open_variables, row_windows
from hpckit.errors import UsageError
from hpckit.store.columns import NO_AXIS, TEXT, Column, row_sizes
from hpckit.store.digest import variable_digests


class Verdict(StrEnum):
    """How two variables, or two whole results, compare."""

    IDENTICAL = "identical"
    EQUAL_WITHIN_TOLERANCE = "equal within tolerance"
    DIFFERENT = "different"


@dataclass(frozen=True)
class VariableDifference:
    """How one variable compares.

    Attributes
    ----------
    a, b
        Type and shape; None where the variable is not there.
    values
        How many values were compared one by one.
    unequal, beyond
        How many of them differ, and how many by more than the tolerance.
    max_abs, max_rel
        The largest difference, absolute and against the larger of the two values; infinite
        between a number and NaN. None where nothing can be subtracted.
    where
        The place of the largest absolute difference, or of the first where there is none.
    notes
        What else differs: types, shapes, rows that only one of them has.
    """

    name: str
    verdict: Verdict
    a: str | None
    b: str | None
    values: int = 0
    unequal: int = 0
    beyond: int = 0
    max_abs: float | None = None
    max_rel: float | None = None
    where: str | None = None
    notes: tuple[str, ...] = ()


def compare_results(
    a: Path, b: Path, rtol: float = 0.0, atol: float = 0.0
) -> list[VariableDifference]:
    """Compare all variables of two results.h5, in bounded memory.

    Two values are equal within tolerance if ``|a - b| <= atol + rtol * max(|a|, |b|)``; NaN
    equals NaN. A variable whose digests agree is identical and not read again.

    Raises
    ------
    UsageError
        A tolerance is negative or no number.
    StoreError
        One of the files does not read back.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not value >= 0:
            raise UsageError(f"{name} {value:g}: a tolerance must be 0 or more")
    digests_a, digests_b = variable_digests(a), variable_digests(b)
    with open_variables(a) as mine, open_variables(b) as others:
        found = []
        for name in dict.fromkeys((*mine, *others)):
            one, two = mine.get(name), others.get(name)
            if one is None or two is None:
                found.append(_lonely(name, one, two))
            elif digests_a[name] == digests_b[name]:
                text = _typed(one)
                found.append(VariableDifference(name, Verdict.IDENTICAL, text, text))
            else:
                found.append(_compared(one, two, Gap(rtol, atol)))
    return found


def overall(differences: Sequence[VariableDifference]) -> Verdict:
    """Return the worst verdict."""
    order = list(Verdict)
    return max((d.verdict for d in differences), key=order.index, default=Verdict.IDENTICAL)


@dataclass
class _Comparison:
    """What comes together while two variables are read side by side."""

    one: Variable
    two: Variable
    gap: Gap
    rows_in_one: int = 0
    rows_reshaped: int = 0
    notes: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Compare what can be compared."""
        if self.one.field.dtype != self.two.field.dtype:
            self.notes.append("types differ")
        if _family(self.one) != _family(self.two):
            self.gap.beyond += 1
        elif self.one.shape != self.two.shape or self.one.rows != self.two.rows:
            self.notes.append("shapes differ")
            self.gap.beyond += 1
        elif self.one.shape is None:
            self._ragged()
        else:
            self._dense()
        if self.rows_in_one:
            self.notes.append(f"{self.rows_in_one} rows are in one of them only")
        if self.rows_reshaped:
            self.notes.append(f"{self.rows_reshaped} rows have another shape")

    def _dense(self) -> None:
        if self.one.farm is not None:
            for start, stop in row_windows([], 0, self.one.rows):
                there = self.one.present(start, stop), self.two.present(start, stop)
                self.rows_in_one += int(np.count_nonzero(there[0] ^ there[1]))
        for region in self.one.regions():
            a, b = self.one.values(region), self.two.values(region)
            if region and self.one.farm is not None:
                rows = region[0].start, region[0].stop
                both = np.flatnonzero(self.one.present(*rows) & self.two.present(*rows))
                self.gap.add(a[both], b[both], _DensePlace(self.one, region, both))
            else:
                self.gap.add(a, b, _DensePlace(self.one, region, None))

    def _ragged(self) -> None:
        for start, stop in row_windows([self.one, self.two], 0, self.one.rows):
            one, two = self.one.column(start, stop), self.two.column(start, stop)
            same = _same_shapes(one, two)
            both = one.present & two.present
            self.rows_in_one += int(np.count_nonzero(one.present ^ two.present))
            self.rows_reshaped += int(np.count_nonzero(both & ~same))
            a, rows = _chosen(one, both & same)
            b, _ = _chosen(two, both & same)
            self.gap.add(a, b, _RaggedPlace(start, rows))


@dataclass(frozen=True)
class _DensePlace:
    """Names the place of a value in a block that was read."""

    variable: Variable
    region: Region
    rows: NDArray[np.int64] | None

    def __call__(self, flat: int) -> str:
        shape = [part.stop - part.start for part in self.region]
        if self.rows is not None:
            shape[0] = len(self.rows)
        index = [int(i) for i in np.unravel_index(flat, shape)] if shape else []
        if self.rows is not None:
            index[0] = int(self.rows[index[0]])
        index = [i + part.start for i, part in zip(index, self.region, strict=True)]
        if self.variable.farm is not None:
            inner = f" {tuple(index[1:])}".replace(",)", ")") if index[1:] else ""
            return f"task {index[0]}{inner}"
        if self.variable.is_record:
            return f"step {self.variable.steps()[index[0]]}"
        return ", ".join(f"{d}={i}" for d, i in zip(self.variable.dims, index, strict=True))


@dataclass(frozen=True)
class _RaggedPlace:
    """Names the row of a value among ragged ones that were read."""

    start: int
    rows: NDArray[np.int64]

    def __call__(self, flat: int) -> str:
        return f"task {self.start + int(self.rows[flat])}"


def _compared(one: Variable, two: Variable, gap: Gap) -> VariableDifference:
    comparison = _Comparison(one, two, gap)
    comparison.run()
    different = gap.beyond or comparison.rows_in_one or comparison.rows_reshaped
    return VariableDifference(
        one.name,
        Verdict.DIFFERENT if different else Verdict.EQUAL_WITHIN_TOLERANCE,
        _typed(one),
        _typed(two),
        gap.values,
        gap.unequal,
        gap.beyond,
        gap.max_abs,
        gap.max_rel,
        gap.where,
        tuple(comparison.notes),
    )


def _lonely(name: str, one: Variable | None, two: Variable | None) -> VariableDifference:
    a, b = (None if v is None else _typed(v) for v in (one, two))
    note = "only in B" if one is None else "only in A"
    return VariableDifference(name, Verdict.DIFFERENT, a, b, notes=(note,))


def _typed(variable: Variable) -> str:
    return typed(variable.field.dtype, variable.shape)


def _family(variable: Variable) -> str:
    dtype = variable.field.dtype
    return "text" if dtype == TEXT else "bool" if dtype.kind == "b" else "number"


def _same_shapes(one: Column, two: Column) -> NDArray[np.bool_]:
    """Tell which rows of two ragged columns have the same shape."""
    assert one.shapes is not None
    assert two.shapes is not None
    rank = max(one.shapes.shape[1], two.shapes.shape[1])
    padded = [
        np.pad(s, ((0, 0), (0, rank - s.shape[1])), constant_values=NO_AXIS)
        for s in (one.shapes, two.shapes)
    ]
    same: NDArray[np.bool_] = (padded[0] == padded[1]).all(axis=1)
    return same


def _chosen(column: Column, rows: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the values of some ragged rows, and the row of each value."""
    assert column.shapes is not None
    sizes = row_sizes(column.shapes)
    of_value = np.repeat(np.arange(len(sizes)), sizes)
    kept = rows[of_value]
    return column.values[kept], of_value[kept]
