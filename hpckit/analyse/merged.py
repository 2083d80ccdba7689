"""What the tasks of a farm were merged into, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.analyse.tables import PAGE, Column, Table
from hpckit.analyse.values import jsonable, printable, shown
from hpckit.analyse.variables import Variable, are_a_farms
from hpckit.store.columns import TEXT


def merged(variables: Mapping[str, Variable]) -> dict[str, Variable]:
    """Return the variables of a farm that have no row for each task, by name."""
    if not are_a_farms(variables):
        return {}
    return {name: v for name, v in variables.items() if v.farm is None}


def value_table(variables: Mapping[str, Variable]) -> Table:
    """Return what has no keys: numbers, strings, and arrays in short."""
    found = [v for v in merged(variables).values() if not v.is_keys and _keys(variables, v) is None]
    rows = [[printable(v.name), shown(_value(v)), v.units or ""] for v in found]
    return Table([Column("result"), Column("value", number=True), Column("unit")], rows)


def keyed(variables: Mapping[str, Variable]) -> list[Variable]:
    """Return the variables that have a value for each of some keys."""
    return [v for v in merged(variables).values() if _keys(variables, v) is not None]


def key_tables(
    variables: Mapping[str, Variable], variable: Variable, limit: int
) -> Iterator[Table]:
    """Yield the keys of a variable with their values, in pages.

    Of more than `limit` numbers the largest come, else all of them in their order.
    """
    keys = _keys(variables, variable)
    assert keys is not None
    chosen = _chosen(variable, limit)
    columns = [_column(keys), _column(variable)]
    for start in range(0, len(chosen), PAGE):
        pages = (_read(v, chosen[start : start + PAGE]) for v in (keys, variable))
        rows = [[shown(key), shown(value)] for key, value in zip(*pages, strict=True)]
        yield Table(columns, rows)


def to_json(variables: Mapping[str, Variable]) -> dict[str, Any]:
    """Return it all in JSON's types: what has keys as two lists."""
    found = {}
    for name, variable in merged(variables).items():
        keys = _keys(variables, variable)
        if keys is not None:
            pair = {"keys": keys.values(()), "values": variable.values(())}
            found[name] = {what: jsonable(values) for what, values in pair.items()}
        elif not variable.is_keys:
            found[name] = jsonable(_value(variable))
    return found


def _keys(variables: Mapping[str, Variable], variable: Variable) -> Variable | None:
    if variable.is_keys or len(variable.dims) != 1:
        return None
    return variables.get(variable.dims[0])


def _value(variable: Variable) -> Any:
    values = variable.values(())
    return values if values.ndim else values.item()


def _chosen(variable: Variable, limit: int) -> NDArray[np.int64]:
    count = variable.rows
    if count <= limit or variable.field.dtype == TEXT or variable.field.dtype.kind in "bc":
        return np.arange(min(count, limit))
    values = variable.values(()).astype(np.float64)
    return np.lexsort((np.arange(count), -values))[:limit]


def _read(variable: Variable, chosen: NDArray[np.int64]) -> list[Any]:
    if len(chosen) and (np.diff(chosen) == 1).all():
        return list(variable.values((slice(int(chosen[0]), int(chosen[-1]) + 1),)))
    return [variable.values((slice(i, i + 1),))[0] for i in chosen.tolist()]


def _column(variable: Variable) -> Column:
    unit = f" [{variable.units}]" if variable.units else ""
    return Column(printable(variable.name) + unit, number=variable.field.dtype != TEXT)
