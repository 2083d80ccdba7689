"""A job's body that is no Python: a command, and where its results are picked up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

BUILT_IN = ("seed", "index")
"""Placeholders that need no parameter: a seed of the task's own (1 to 2**31 - 1), its number."""

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class RegexPicker(BaseModel):
    """A number or text in the command's output, or in a file that it wrote.

    Attributes
    ----------
    regex
        Its first group is the result, or the whole match where it has none.
    type
        What the text is read as.
    which
        The first match or the last.
    file
        In the scratch directory; None for stdout and stderr.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    regex: str
    type: Literal["int", "float", "bool", "str", "complex"] = "float"
    which: Literal["first", "last"] = "last"
    file: str | None = None


class CsvPicker(BaseModel):
    """One column, with all of its rows, of a CSV file in the scratch directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    csv: str
    column: str


class Hdf5Picker(BaseModel):
    """One dataset of an HDF5 file in the scratch directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hdf5: str
    dataset: str


Picker: TypeAlias = RegexPicker | CsvPicker | Hdf5Picker


class Command(BaseModel):
    """A program and its arguments, run without a shell in a scratch directory.

    Attributes
    ----------
    argv
        Tokens; each ``{name}`` in one stands for a parameter or one of `BUILT_IN`, ``{{`` and
        ``}}`` for braces. A program's path is absolute; a bare name is looked up on PATH.
    keep
        Globs, relative to the scratch directory, of the files that outlive it.
    results
        How each result is picked up, by its name.
    ranks
        Copies of it that the site's launcher starts as one MPI program.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    argv: tuple[str, ...]
    keep: tuple[str, ...] = ()
    results: dict[str, Picker] = {}
    ranks: int = 1

    def fill(self, values: Mapping[str, Any]) -> list[str]:
        """Return the argument vector for one task; a value is only ever part of one argument.

        Parameters
        ----------
        values
            By parameter, and those of `BUILT_IN`; floats are written so that they read back the
            same, bools as ``true`` and ``false``.
        """
        return [_filled(token, values) for token in self.argv]


def placeholders(token: str) -> list[str]:
    """Return the names in braces within a token.

    Raises
    ------
    ValueError
        For a brace that stands alone.
    """
    names = []
    for piece in _PIECE.finditer(token):
        if piece[0] in ("{", "}"):
            raise ValueError(f"a lone {piece[0]!r} in {token!r}; a brace itself is written twice")
        if piece[1] is not None:
            names.append(piece[1])
    return names


def located(program: str, paths: Iterable[str], directory: Path) -> str:
    """Let a program's relative path start at a directory, since it runs in another one.

    Parameters
    ----------
    program
        The first token. A bare name is left as it is: it is looked up on PATH.
    paths
        The parameters of type path, whose values are absolute.
    directory
        Where the job file lies.
    """
    if "/" not in program or program.startswith(("/", *(f"{{{name}}}" for name in paths))):
        return program
    home = program.startswith("~/")
    start = str(Path.home() if home else directory).replace("{", "{{").replace("}", "}}")
    return f"{start}/{program.removeprefix('~/') if home else program}"


def _filled(token: str, values: Mapping[str, Any]) -> str:
    def fill(piece: re.Match[str]) -> str:
        return _text(values[piece[1]]) if piece[1] is not None else piece[0][0]

    return _PIECE.sub(fill, token)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, complex):
        return repr(value).strip("()")
    return repr(value) if isinstance(value, float) else str(value)
