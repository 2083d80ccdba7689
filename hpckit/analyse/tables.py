"""Results as tables of text, for whatever prints them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hpckit.analyse import summaries, tasks
from hpckit.analyse.compare_results import VariableDifference, Verdict
from hpckit.analyse.values import headline, printable, shown
from hpckit.analyse.variables import Variable
from hpckit.store.block import TaskState
from hpckit.store.columns import TEXT
from hpckit.store.failures import failed_tasks

PAGE = 10_000
"""Rows that are aligned with each other; so many are held in memory."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    number
        Whether it is aligned to the right.
    optional
        Whether it is left out where there is no room.
    cut
        Whether its texts may be cut where there is no room.
    """

    heading: str
    number: bool = False
    optional: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of texts under headings."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


def task_tables(variables: Mapping[str, Variable], limit: int) -> Iterator[Table]:
    """Yield the first `limit` tasks of a farm, in pages: what varies and what came out."""
    names = [*varying(variables), *tasks.results(variables)]
    columns = [Column("task", number=True)]
    keys = ["task"]
    if (variables["task_state"].values(()) != TaskState.DONE).any():
        columns.append(Column("state"))
        keys.append("task_state")
    columns += [_column(variables[name]) for name in names]
    keys += names
    rows = tasks.rows(variables, names, limit)
    while page := [[shown(row[key]) for key in keys] for row in islice(rows, PAGE)]:
        yield Table(columns, page)


def varying(variables: Mapping[str, Variable]) -> list[str]:
    """Return the names of the parameters that take more than one value."""
    return [name for name in tasks.parameters(variables) if tasks.varies(variables[name])]


def failure_table(results: Path, variables: Mapping[str, Variable], limit: int) -> Table:
    """Return the first `limit` failed tasks: their parameters, and what they raised."""
    names = varying(variables)
    columns = [
        Column("failed", number=True),
        *(_column(variables[name]) for name in names),
        Column("error", cut=True),
    ]
    rows = []
    for task, text in failed_tasks(results, limit):
        point = [shown(variables[name].column(task, task + 1).rows()[0]) for name in names]
        rows.append([str(task), *point, headline(text)])
    return Table(columns, rows)


def field_table(variables: Mapping[str, Variable]) -> Table:
    """Return the fields of an spmd run in numbers; each is read once, in bounded memory."""
    found = [summaries.summarise_field(v) for v in summaries.fields(variables)]
    columns = [
        Column("field"),
        Column("dims", optional=True),
        Column("shape", number=True),
        Column("type", optional=True),
        *(Column(name, number=True) for name in ("min", "max", "mean", "NaN")),
    ]
    rows = [
        [
            _with_unit(field.name, field.units),
            ", ".join(field.dims),
            "×".join(map(str, field.shape)),
            field.type,
            *(shown(value) for value in (field.smallest, field.largest, field.mean)),
            str(field.nans or ""),
        ]
        for field in found
    ]
    return without_empty(Table(columns, rows))


def record_table(variables: Mapping[str, Variable]) -> Table:
    """Return the recorded scalars of an spmd run: how many values, the first and the last."""
    headings = ("values", "first step", "first", "last step", "last")
    found = [summaries.summarise_record(v) for v in summaries.records(variables)]
    return Table(
        [Column("record"), *(Column(name, number=True) for name in headings)],
        [
            [r.name, *map(shown, (r.steps, r.first_step, r.first, r.last_step, r.last))]
            for r in found
        ],
    )


def difference_table(variables: Sequence[VariableDifference]) -> Table:
    """Return what is to say of the variables that are not identical."""
    columns = [
        Column("variable"),
        Column("verdict"),
        Column("max |A-B|", number=True),
        Column("relative", number=True),
        Column("at", optional=True),
        Column("unequal", number=True, optional=True),
        Column("notes", cut=True),
    ]
    rows = [
        [
            printable(v.name),
            str(v.verdict),
            shown(v.max_abs),
            shown(v.max_rel),
            v.where or "",
            f"{v.unequal} of {v.values}" if v.values else "",
            "; ".join(v.notes) + (f" ({v.a} → {v.b})" if v.a and v.b and v.a != v.b else ""),
        ]
        for v in variables
        if v.verdict is not Verdict.IDENTICAL
    ]
    return without_empty(Table(columns, rows))


def without_empty(table: Table) -> Table:
    """Return a table without the columns in which nothing stands."""
    used = [i for i in range(len(table.columns)) if any(row[i] for row in table.rows)]
    return Table([table.columns[i] for i in used], [[row[i] for i in used] for row in table.rows])


def _column(variable: Variable) -> Column:
    field = variable.field
    number = field.dtype != TEXT and field.shape == ()
    heading = _with_unit(printable(variable.name), variable.units)
    return Column(heading, number=number, optional=True)


def _with_unit(name: str, unit: str | None) -> str:
    return f"{name} [{unit}]" if unit else name
