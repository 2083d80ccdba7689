"""A table of points: a CSV file whose columns are parameters."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpckit.errors import SpecError, UsageError
from hpckit.spec.job import Job
from hpckit.spec.messages import counted
from hpckit.spec.params import Param, beside


def read_table(job: Job, path: Path, *, limit: int) -> dict[str, tuple[Any, ...]]:
    """Read the points of a table.

    Parameters
    ----------
    job
        Its parameters are the columns there may be.
    path
        A CSV file in UTF-8 with one line of names; relative paths in it start at its directory.
    limit
        The most rows there may be.

    Returns
    -------
    dict
        One value a row by the name of the column.

    Raises
    ------
    UsageError
        If the file cannot be read.
    SpecError
        With the line and the column: for an unknown or repeated column, a row of another length, a
        value that is not the parameter's, no rows at all, and too many.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _points(job, path, csv.reader(file, strict=True), limit)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such table") from None
    except OSError as error:
        raise UsageError(f"{path}: the table cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError("is not UTF-8 text; save the table as UTF-8", file=path) from None


def _points(job: Job, path: Path, reader: Any, limit: int) -> dict[str, tuple[Any, ...]]:
    rows = _rows(path, reader)
    line, names = next(rows, (1, []))
    params = [_column(job, path, line, name.strip(), names) for name in names]
    values: list[list[Any]] = [[] for _ in params]
    for line, row in rows:
        if len(row) != len(params):
            raise SpecError(
                f"the row has {counted(len(row), 'cell')}, the header {len(params)}; commas stand"
                " between cells",
                file=path,
                line=line,
            )
        for param, cell, column in zip(params, row, values, strict=True):
            column.append(_cell(param, cell, path, line))
        if len(values[0]) > limit:
            raise SpecError(f"more than {limit} rows; a sweep has at most that many", file=path)
    if not values or not values[0]:
        raise SpecError(
            "no rows; a table has a line of parameters' names and a row for each point", file=path
        )
    return {param.name: tuple(column) for param, column in zip(params, values, strict=True)}


def _rows(path: Path, reader: Any) -> Iterator[tuple[int, Sequence[str]]]:
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise SpecError(f"is no CSV: {error}", file=path, line=reader.line_num) from None
        if row:
            yield reader.line_num, row


def _column(job: Job, path: Path, line: int, name: str, names: Sequence[str]) -> Param:
    try:
        if name == "repeat":
            raise SpecError("is no column of a table; give repeat=N beside it", key=name)
        if [other.strip() for other in names].count(name) > 1:
            raise SpecError("stands twice in the header", key=name)
        return job.param(name)
    except SpecError as error:
        raise SpecError(error.problem, key=error.key, file=path, line=line) from None


def _cell(param: Param, text: str, path: Path, line: int) -> Any:
    try:
        if param.type is Path and text:
            return param.existing(beside(path.parent, text))
        return param.parse(text)
    except SpecError as error:
        raise SpecError(error.problem, key=error.key, file=path, line=line) from None
