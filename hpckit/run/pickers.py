"""Where a command's results are picked up: its output, and the files that it wrote."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpckit.errors import SpecError
from hpckit.spec.command import CsvPicker, Hdf5Picker, Picker, RegexPicker
from hpckit.spec.messages import listed, shown
from hpckit.spec.params import TYPES, Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_TEXT = 256 << 20
"""Bytes of text in which a result is looked for; it is read as a whole."""

_FEW = 8
_TEXT_END = 400
_FORTRAN_EXPONENT = str.maketrans("dD", "ee")


class NotPickedError(LookupError):
    """A result that is not where its picker looks; the message says what is there."""


def pick(picker: Picker, folder: Path, output: Path) -> Any:
    """Return one result of a command that has ended.

    Parameters
    ----------
    folder
        The scratch directory, in which the picker's file lies.
    output
        What the command wrote to stdout and stderr.

    Returns
    -------
    Any
        For a regular expression a scalar of its type; for a CSV file's column an array of shape
        (rows,), float64, or text where a cell is no number, an empty cell being NaN; for an HDF5
        dataset a scalar or an array of its shape and type.

    Raises
    ------
    NotPickedError
        The file, column or dataset is not there, nothing matches, or it is of another type.
    """
    if isinstance(picker, RegexPicker):
        return _match(picker, output if picker.file is None else _file(folder, picker.file))
    if isinstance(picker, CsvPicker):
        return _column(picker, _file(folder, picker.csv))
    return _dataset(picker, _file(folder, picker.hdf5))


def described(picker: Picker) -> str:
    """Say what a picker looks for, and where."""
    if isinstance(picker, RegexPicker):
        return f"regex {shown(picker.regex)} in {picker.file or 'the output'}"
    if isinstance(picker, CsvPicker):
        return f"column {picker.column!r} of {picker.csv}"
    return f"dataset {picker.dataset!r} of {picker.hdf5}"


def _match(picker: RegexPicker, path: Path) -> Any:
    text = _text(path)
    matches = re.finditer(picker.regex, text, re.MULTILINE)
    kept = deque(matches, maxlen=1) if picker.which == "last" else list(islice(matches, 1))
    if not kept:
        raise NotPickedError(f"nothing matches{_end_of(text)}")
    match = kept[0]
    found = match[1] if match.re.groups else match[0]
    if found is None:
        raise NotPickedError(f"{shown(match[0])} matches without its first group")
    if picker.type in ("float", "complex"):
        found = found.translate(_FORTRAN_EXPONENT)
    try:
        return Param.annotated("result", TYPES[picker.type]).parse(found)
    except SpecError as error:
        hint = "" if match.re.groups else "; put what is wanted of the match in parentheses"
        raise NotPickedError(f"{error.problem}{hint}") from None


def _end_of(text: str) -> str:
    end = text[-_TEXT_END:].strip()
    return f"; it ends with:\n{end}" if end else "; it is empty"


def _column(picker: CsvPicker, path: Path) -> NDArray[Any]:
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(_text(path))) if row] or [[]]
    except csv.Error as error:
        raise NotPickedError(f"it is no CSV file: {error}") from None
    names = [name.strip() for name in header]
    if picker.column not in names:
        raise NotPickedError(f"its columns are {_some(map(repr, names))}")
    place = names.index(picker.column)
    return _numbers([row[place].strip() if place < len(row) else "" for row in rows])


def _numbers(cells: list[str]) -> NDArray[Any]:
    import numpy as np

    try:
        return np.array([float(cell.translate(_FORTRAN_EXPONENT) or "nan") for cell in cells])
    except ValueError:
        return np.array(cells, str)


def _dataset(picker: Hdf5Picker, path: Path) -> Any:
    import h5py
    import numpy as np

    try:
        with h5py.File(path, "r") as file:
            dataset = file.get(picker.dataset)
            if not isinstance(dataset, h5py.Dataset):
                raise NotPickedError(f"its datasets are {_some(_datasets(file))}")
            if h5py.check_string_dtype(dataset.dtype) is None:
                return dataset[()]
            return np.asarray(dataset.asstr()[()], str)
    except (OSError, TypeError, ValueError) as error:
        raise NotPickedError(f"it cannot be read: {error}") from None


def _datasets(group: Any) -> Iterator[str]:
    import h5py

    found: list[str] = []

    def note(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            found.append(repr(f"/{name}"))
        # Any value ends the visit of a file that may hold millions.
        return True if len(found) > _FEW else None

    group.visititems(note)
    return iter(found)


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if path.is_file():
        return path
    items = sorted(folder.rglob("*"))
    there = (repr(str(item.relative_to(folder))) for item in items if item.is_file())
    raise NotPickedError(f"there is no such file; the command left {_some(there)}")


def _text(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_TEXT:
        raise NotPickedError(
            f"its {size >> 20} MiB are more than the {MAX_TEXT >> 20} MiB that are searched: "
            "have the command write its results to a file of their own"
        )
    return path.read_text("utf-8-sig", errors="replace")


def _some(names: Iterable[str]) -> str:
    """Name the first few, and nothing if there are none."""
    few = list(islice(names, _FEW + 1))
    return f"{', '.join(few[:_FEW])} and more" if len(few) > _FEW else listed(few)
