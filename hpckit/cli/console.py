"""Tables and labelled lines on a terminal, or in a pipe."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import click
from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from hpckit.analyse.tables import Column, Table

PIPE_WIDTH = 1_000_000
"""Where no one sees a right margin, nothing is left out or wrapped."""

GAP = "  "
LEAST_CUT = 16
"""Cells below which no text is cut, however narrow the terminal is."""

COLOURS = {
    "completed": "green",
    "done": "green",
    "running": "cyan",
    "interrupted": "yellow",
    "missing": "yellow",
    "failed": "red",
    "damaged": "red",
    "different": "red",
    "identical": "green",
    "equal within tolerance": "green",
}
"""The colour of a text that is such a word, or goes on after it with a colon."""


def print_table(table: Table) -> list[str]:
    """Print rows under headings; return the headings of the columns that did not fit.

    Nothing is wrapped: optional columns are left out, the texts of others may be cut.
    """
    widths = [
        max(map(cell_len, (column.heading, *(row[i] for row in table.rows))))
        for i, column in enumerate(table.columns)
    ]
    kept = _fitting(table.columns, widths, _width())
    head = [_padded(table.columns[i].heading, table.columns[i], widths[i]) for i in kept]
    lines = [click.style(GAP.join(head).rstrip(), bold=True)]
    for row in table.rows:
        cells = [_padded(row[i], table.columns[i], widths[i]) for i in kept]
        lines.append(_line(cells))
    click.echo("\n".join(lines))
    return [column.heading for i, column in enumerate(table.columns) if i not in kept]


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print labels and texts in two columns; a long text goes on under itself."""
    click.echo("\n".join(fact_lines(facts)))


def fact_lines(facts: Sequence[tuple[str, str]]) -> list[str]:
    """Return labels and texts in two columns, as lines of this terminal."""
    indent = max((cell_len(label) for label, _ in facts), default=0) + len(GAP)
    room = max(_width() - indent, LEAST_CUT)
    found = []
    for label, text in facts:
        # A path or a command is copied from the terminal: it must not be broken.
        lines = wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        found.append(click.style(label.ljust(indent), bold=True) + _coloured(lines[0]))
        found += [" " * indent + line for line in lines[1:]]
    return found


def print_heading(text: str) -> None:
    """Print a line that begins a section."""
    click.secho(text, bold=True)


def _fitting(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Choose the columns that fit, the first ones first; shorten `widths` of what may be cut."""
    needed = {
        i: len(GAP) + (min(widths[i], LEAST_CUT) if column.cut else widths[i])
        for i, column in enumerate(columns)
    }
    left = width + len(GAP) - sum(n for i, n in needed.items() if not columns[i].optional)
    kept = []
    for i, column in enumerate(columns):
        if column.optional:
            if needed[i] > left:
                continue
            left -= needed[i]
        kept.append(i)
    for i in kept:
        if columns[i].cut:
            widths[i] = min(widths[i], needed[i] - len(GAP) + max(left, 0))
    return kept


def _line(cells: list[str]) -> str:
    """Join cells, without the blanks that would end the line."""
    used = max((i for i, cell in enumerate(cells) if cell.strip()), default=-1) + 1
    trimmed = [cell.rstrip() if i == used - 1 else cell for i, cell in enumerate(cells[:used])]
    return GAP.join(map(_coloured, trimmed))


def _padded(text: str, column: Column, width: int) -> str:
    size = cell_len(text)
    if size > width:
        return set_cell_size(text, width - 1) + "…"
    blank = " " * (width - size)
    return blank + text if column.number else text + blank


def _coloured(text: str) -> str:
    word = text.partition(":")[0].strip()
    return click.style(text, fg=COLOURS[word]) if word in COLOURS else text


def _width() -> int:
    return shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
