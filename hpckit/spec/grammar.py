"""The grammar of a value on the command line: parsed, never evaluated.

value     = item { "," item } | function "(" number { "," number } ")"
function  = "linspace" | "logspace" | "range"
item      = text without a comma | '"' text '"' | "'" text "'"     a quote within is doubled

Functions are for numbers and stand alone; a parameter of type str has items only. Of a
parameter of type Path, an item without quotes may be a pattern, such as texts/*.txt.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from glob import iglob
from pathlib import Path
from typing import Any

from hpckit.errors import SpecError
from hpckit.spec.columns import Column, Linspace, Listed, Logspace, Range
from hpckit.spec.messages import listed, shown
from hpckit.spec.params import Param

FORMS = {
    "linspace": "linspace(start,stop,count)",
    "logspace": "logspace(first exponent,last exponent,count)",
    "range": "range(stop) or range(start,stop) or range(start,stop,step)",
}

_CALL = re.compile(r"\s*(linspace|logspace|range)\s*\((.*)\)\s*", re.DOTALL)
_ITEM = re.compile(
    r"""\s*(?:"(?P<double>(?:[^"]|"")*)"|'(?P<single>(?:[^']|'')*)'|(?P<bare>[^,]*?))\s*(?:,|\Z)""",
    re.DOTALL,
)
_CALL_START = re.compile(r"([A-Za-z_.]+)\s*\(", re.ASCII)
_WILDCARD = re.compile(r"[*?[]")
_INTEGER = re.compile(r"[+-]?\d{1,1000}", re.ASCII)


def parse_value(param: Param, text: str, *, limit: int) -> Column:
    """Read what stands after ``name=``.

    Parameters
    ----------
    param
        The parameter; each value is one of its type.
    text
        Values and commas, or one of `FORMS`.
    limit
        The most values there may be.

    Raises
    ------
    SpecError
        For a value that is not the parameter's, a function that its type does not have, no value
        at all, and too many.
    """
    call = None if param.type is str else _CALL.fullmatch(text)
    if call is None:
        items = split_items(param.name, text)
        return Listed(tuple(value for item in items for value in _values(param, *item)))
    name, inside = call.groups()
    if param.choices:
        raise _problem(param.name, text, f"is not allowed; must be {param.allowed}")
    series = _Series(param, name, text.strip(), [part.strip() for part in inside.split(",")], limit)
    return _MAKERS[name](series)


def parse_repeat(text: str, *, limit: int) -> Column:
    """Read ``repeat=N``: each point N times, numbered from 0.

    Raises
    ------
    SpecError
        If N is not a whole number of at least 1, or larger than `limit`.
    """
    if not _INTEGER.fullmatch(text.strip()) or int(text) < 1:
        raise _problem("repeat", text, "is not allowed; a whole number of at least 1")
    _check_count("repeat", text, int(text), limit)
    return Range(range(int(text)))


def split_items(name: str, text: str) -> list[tuple[str, bool]]:
    """Split at the commas outside of quotes.

    Returns
    -------
    list of (text, quoted)
        The items without their quotes.

    Raises
    ------
    SpecError
        For an empty item and a quote that is not closed.
    """
    items: list[tuple[str, bool]] = []
    position = 0
    while True:
        match = _ITEM.match(text, position)
        if match is None or (match["bare"] or "").startswith(("'", '"')):
            raise _problem(name, text, "has a quote that does not end at a comma or at the end")
        if match["bare"] is None:
            quote = '"' if match["double"] is not None else "'"
            items.append((match[match.lastgroup or ""].replace(quote * 2, quote), True))
        elif match["bare"]:
            items.append((match["bare"], False))
        else:
            raise _problem(name, text, _EMPTY if text.strip() else "has no value; write name=value")
        position = match.end()
        if position == len(text) and text[match.end() - 1] != ",":
            return items


def quoted(text: str) -> str:
    """Write text so that `split_items` reads it back as one item."""
    escaped = text.replace('"', '""')
    return f'"{escaped}"'


_EMPTY = "has an empty value between its commas; write '\"\"' for empty text"


def _values(param: Param, text: str, quoted_item: bool) -> Iterator[Any]:
    """Yield the value of an item; of a pattern, the files that it matches."""
    if param.type is not Path or quoted_item or not _WILDCARD.search(text) or Path(text).exists():
        yield _parsed(param, text, quoted_item)
        return
    # Path.glob takes no absolute pattern.
    found = iglob(str(Path(text).expanduser()), recursive=True)  # noqa: PTH207
    paths = sorted(path for path in found if Path(path).is_file())
    if not paths:
        raise _problem(param.name, text, f"matches no file from {Path.cwd()}")
    yield from map(param.parse, paths)


def _parsed(param: Param, text: str, quoted_item: bool) -> Any:
    call = None if quoted_item else _CALL_START.match(text)
    if param.type in (int, float) and text.startswith(("[", "(")):
        raise _problem(param.name, text, "is in brackets; write a list as a,b,c")
    if call and param.type is str and call[1] in FORMS:
        raise _problem(param.name, text, "is for numbers; put it in quotes to mean the text")
    if call and param.type in (int, float):
        if call[1] in FORMS:
            what = f"is part of a list; write either {FORMS[call[1]]} alone or a list a,b,c"
        else:
            what = f"is no function; use {listed(FORMS, 'or')}, or a list a,b,c"
        raise _problem(param.name, text, what)
    return param.parse(text)


@dataclass(frozen=True, slots=True)
class _Series:
    """A call of one of the functions, as it was written."""

    param: Param
    function: str
    text: str
    arguments: Sequence[str]
    limit: int

    def problem(self, what: str) -> SpecError:
        return _problem(self.param.name, self.text, f"{what}; write {FORMS[self.function]}")

    def integers(self) -> list[int]:
        for argument in self.arguments:
            if not _INTEGER.fullmatch(argument):
                what = f"takes whole numbers, not {shown(argument)}"
                if self.param.type is float:
                    form = FORMS["linspace"]
                    raise _problem(self.param.name, self.text, f"{what}; {form} makes fractions")
                raise self.problem(what)
        return list(map(int, self.arguments))

    def line(self) -> Linspace:
        if len(self.arguments) != 3:
            raise self.problem("takes three numbers")
        if self.param.type is not float:
            raise _problem(
                self.param.name,
                self.text,
                f"makes floats, and a value of {self.param.name} is {self.param.allowed};"
                f" {_INSTEAD[self.param.type is int]}",
            )
        start, stop = map(self._number, self.arguments[:2])
        if not math.isfinite(stop - start):
            raise self.problem("spans more than a float holds")
        if not _INTEGER.fullmatch(self.arguments[2]):
            raise self.problem(f"takes a whole number as its count, not {shown(self.arguments[2])}")
        count = int(self.arguments[2])
        _check_count(self.param.name, self.text, count, self.limit)
        return Linspace(start, stop, count)

    def _number(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        raise self.problem(f"takes numbers, not {shown(text)}")


def _linspace(series: _Series) -> Column:
    return series.line()


def _logspace(series: _Series) -> Column:
    exponents = series.line()
    for end in (exponents.start, exponents.stop):
        if not sys.float_info.min_10_exp <= end <= sys.float_info.max_10_exp:
            raise series.problem(f"takes exponents of ten, and 10**{end:g} is outside of a float")
    return Logspace(exponents)


def _range(series: _Series) -> Column:
    kind = series.param.type
    if kind is not int and kind is not float:
        raise _problem(
            series.param.name,
            series.text,
            f"makes whole numbers, and a value of {series.param.name} is {series.param.allowed};"
            f" {_INSTEAD[False]}",
        )
    if not 1 <= len(series.arguments) <= 3 or not all(series.arguments):
        raise series.problem("takes one to three whole numbers")
    numbers = series.integers()
    start, stop = (0, numbers[0]) if len(numbers) == 1 else numbers[:2]
    step = numbers[2] if len(numbers) == 3 else 1
    if step == 0:
        raise series.problem("has a step of 0")
    # len() of a range fails beyond the machine's word.
    count = max(0, -((start - stop) // step))
    _check_count(series.param.name, series.text, count, series.limit)
    if max(map(abs, (start, stop, step))) >= 2**62:
        raise series.problem("goes beyond whole numbers of 64 bits")
    return Range(range(start, stop, step), kind)


_INSTEAD = {True: "use range(...), or list the values", False: "list the values: a,b,c"}
_MAKERS: dict[str, Callable[[_Series], Column]] = {
    "linspace": _linspace,
    "logspace": _logspace,
    "range": _range,
}


def _check_count(name: str, text: str, count: int, limit: int) -> None:
    if count < 1:
        raise _problem(name, text, "is empty; a sweep has at least one value of each parameter")
    if count > limit:
        raise _problem(name, text, f"has {count} values; a sweep has at most {limit} tasks")


def _problem(name: str, text: str, what: str) -> SpecError:
    return SpecError(f"{shown(text.strip())} {what}", key=name)
