"""A run and its results as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from hpckit.analyse import merged, summaries, tasks
from hpckit.analyse.values import jsonable
from hpckit.analyse.variables import Variable, are_a_farms

PAGE = 1000
"""Tasks in a piece of text."""


def document(
    header: Mapping[str, Any], variables: Mapping[str, Variable], limit: int | None
) -> Iterator[str]:
    """Yield the text of one JSON object, in pieces, for there may be millions of tasks.

    To `header` it adds ``tasks``, a list of records, for a farm, and ``merged`` where their
    results were merged; ``fields`` and ``records`` for
    an spmd run; nothing where there are no variables. See `hpckit.analyse.values.jsonable` for
    NaN and complex numbers; an absent value is null.

    Parameters
    ----------
    limit
        The first so many tasks; None for all.
    """
    if not are_a_farms(variables):
        yield _text({**header, **_fields(variables)})
        return
    if found := merged.to_json(variables):
        header = {**header, "merged": found}
    total = variables["task_state"].rows
    names = [*tasks.parameters(variables), *tasks.results(variables)]
    rows = tasks.rows(variables, names, total if limit is None else min(limit, total))
    yield _text(header).removesuffix("\n}") + ',\n "tasks": ['
    lines = (json.dumps(jsonable(row), allow_nan=False) for row in rows)
    separator = "\n  "
    while page := list(islice(lines, PAGE)):
        yield separator + ",\n  ".join(page)
        separator = ",\n  "
    yield "\n ]\n}"


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, allow_nan=False)


def _fields(variables: Mapping[str, Variable]) -> dict[str, Any]:
    if not variables:
        return {}
    records = {v.name: summaries.series(v) for v in summaries.records(variables)}
    return {
        "fields": [summaries.summarise_field(v).to_json() for v in summaries.fields(variables)],
        "records": {
            name: {"steps": jsonable(steps), "values": jsonable(values)}
            for name, (steps, values) in records.items()
        },
    }
