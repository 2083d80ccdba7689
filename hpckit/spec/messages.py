"""Words for what is wrong: the nearest name, the list of names, pydantic's errors as ours."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from hpckit.errors import SpecError

if TYPE_CHECKING:
    from pydantic import ValidationError

_LONGEST_VALUE = 80


def shown(value: object) -> str:
    """Give a value's repr on one line, shortened in the middle where it is long."""
    text = repr(str(value) if isinstance(value, str) else value)
    text = " ".join(text.split())
    if len(text) <= _LONGEST_VALUE:
        return text
    return f"{text[: _LONGEST_VALUE // 2]}…{text[-_LONGEST_VALUE // 4 :]}"


def listed(names: Iterable[object], last: str = "and") -> str:
    """Join names as a sentence does: ``a, b and c``."""
    *most, end = [str(name) for name in names] or ["nothing"]
    return f"{', '.join(most)} {last} {end}" if most else end


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the name that is nearest, or nothing if none is near."""
    by_folded = {known.casefold(): known for known in names}
    near = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""


def unknown(what: str, name: str, names: Iterable[str], *, owner: str) -> SpecError:
    """Say that there is no such `what`, which ones `owner` has, and the nearest of them."""
    known = list(names)
    return SpecError(
        f"unknown {what}; {owner} has {listed(known) if known else 'none'}"
        + suggestion(name, known),
        key=name,
    )


def counted(number: int | None, what: str) -> str:
    """Give a number with its noun: ``1 rank``, ``2 ranks``; None is unknown."""
    return f"{'?' if number is None else number} {what}{'' if number == 1 else 's'}"


def one_line(error: BaseException) -> str:
    """Give an exception's type and the first line of its message."""
    first, *_ = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def refused(error: ValidationError, allowed: Iterable[str], *, owner: str) -> SpecError:
    """Turn one of pydantic's errors, an unknown key's first, into a SpecError under its key.

    Parameters
    ----------
    error
        What a model raised.
    allowed
        The keys there may be, for the message about an unknown one.
    owner
        Whose keys they are.
    """
    # A misspelt key is also a missing one, and the misspelling is what helps.
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return unknown("key", path[-1], allowed, owner=owner)
    if first["type"] == "missing":
        return SpecError(f"is missing; {owner} needs it", key=key)
    return SpecError(_sentence(first["type"], first.get("ctx", {}), first), key=key)


def _sentence(kind: str, context: dict[str, Any], first: Any) -> str:
    if kind == "value_error":
        return str(context["error"])
    value = shown(first["input"])
    if kind == "greater_than_equal":
        return f"{value} is not allowed; a whole number of at least {context['ge']}"
    if kind.startswith("int"):
        return f"{value} is not a whole number"
    if kind == "string_pattern_mismatch":
        return f"{value} is not one word of letters, digits and _ . : / @ + -"
    if kind == "tuple_type":
        return f"{value} is not a list"
    message = first["msg"].replace("Input should be", "is not").replace("a valid", "a")
    return f"{value} {message}"
