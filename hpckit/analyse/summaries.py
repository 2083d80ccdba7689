"""Fields and records of an spmd run in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.analyse.values import jsonable
from hpckit.analyse.variables import Variable
from hpckit.store.fields import STEP


@dataclass(frozen=True)
class FieldSummary:
    """A field in numbers; of complex ones the moduli count.

    Attributes
    ----------
    smallest, largest, mean
        Over the values that are not NaN; None where there are none.
    nans
        How many are NaN.
    """

    name: str
    type: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    smallest: float | None
    largest: float | None
    mean: float | None
    nans: int
    units: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        values: dict[str, Any] = jsonable(asdict(self))
        return values


@dataclass(frozen=True)
class RecordSummary:
    """A scalar over steps: how many it has, and its first and last value."""

    name: str
    steps: int
    first_step: int
    first: float
    last_step: int
    last: float


def summarise_field(variable: Variable) -> FieldSummary:
    """Go through a field, in bounded memory."""
    low, high, total, count, nans = math.inf, -math.inf, 0.0, 0, 0
    for region in variable.regions():
        known, missing = _known(variable.values(region))
        nans += missing
        count += known.size
        if known.size:
            low, high = min(low, known.min().item()), max(high, known.max().item())
            total += float(known.sum(dtype=np.float64))
    shape = variable.shape or ()
    none = count == 0
    return FieldSummary(
        variable.name,
        variable.field.dtype.name,
        variable.dims,
        shape,
        None if none else low,
        None if none else high,
        None if none else total / count,
        nans,
        variable.units,
    )


def series(variable: Variable) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the steps at which a scalar was recorded, and its values."""
    steps, values = variable.steps(), variable.values(())
    there = ~np.isnan(values)
    # NaN stands for "not recorded" too; a series of nothing else was recorded as NaN.
    return (steps[there], values[there]) if there.any() else (steps, values)


def summarise_record(variable: Variable) -> RecordSummary:
    """Describe a scalar recorded over steps."""
    steps, values = series(variable)
    return RecordSummary(
        variable.name,
        len(steps),
        int(steps[0]),
        float(values[0]),
        int(steps[-1]),
        float(values[-1]),
    )


def fields(variables: Mapping[str, Variable]) -> list[Variable]:
    """Return the saved fields."""
    return [v for v in variables.values() if not v.is_record]


def records(variables: Mapping[str, Variable]) -> list[Variable]:
    """Return the recorded scalars, without the steps themselves."""
    return [v for v in variables.values() if v.is_record and v.name != STEP]


def _known(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return what can be summed up, and how many values are NaN."""
    if values.dtype.kind == "c":
        values = np.abs(values)
    if values.dtype.kind != "f":
        return values.reshape(-1), 0
    known = values[~np.isnan(values)]
    return known, values.size - known.size
