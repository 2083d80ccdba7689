"""Attributes of variables, such as units and long_name: what results.h5 can hold as such."""

from __future__ import annotations

from typing import Any, TypeAlias

from pydantic import StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from hpckit.errors import SpecError
from hpckit.spec.messages import listed, shown
from hpckit.spec.names import ATTRIBUTE_PREFIXES, ATTRIBUTES, FARM_VARIABLES, is_name, is_text

Attrs: TypeAlias = dict[str, dict[str, StrictStr | StrictInt | StrictFloat]]

_ATTRS: TypeAdapter[Attrs] = TypeAdapter(Attrs)


def checked_attrs(attrs: Any) -> Attrs:
    """Accept a table of attributes by the name of a parameter or a result.

    Raises
    ------
    SpecError
        If no variable can have that name, or `attribute_problem` has something to say.
    """
    try:
        checked = _ATTRS.validate_python(attrs)
    except ValidationError as error:
        key = ".".join(["attrs", *map(str, error.errors()[0]["loc"][:2])])
        raise SpecError(
            f"{shown(error.errors()[0]['input'])} is not allowed; attrs are written"
            " {name: {'units': 'K', 'long_name': '...'}}, of text and numbers",
            key=key,
        ) from None
    for name, attributes in checked.items():
        if not is_name(name) or name in FARM_VARIABLES:
            raise SpecError(f"{shown(name)} is no name of a parameter or a result", key="attrs")
        for key, value in attributes.items():
            if problem := attribute_problem(key, value):
                raise SpecError(problem, key=f"attrs.{name}")
    return checked


def attribute_problem(key: str, value: str | float) -> str | None:
    """Return why results.h5 cannot hold an attribute, None if it can."""
    if not is_name(key) or key in ATTRIBUTES or key.startswith(ATTRIBUTE_PREFIXES):
        return (
            f"the attribute {shown(key)} is not allowed; a printable name without a slash, not"
            f" one that begins with {listed(ATTRIBUTE_PREFIXES, 'or')}, and not"
            f" {listed(ATTRIBUTES, 'or')}"
        )
    fits = -(2**63) <= value < 2**63 if isinstance(value, int) else is_text(str(value))
    if not fits:
        return f"{key} = {shown(value)} is not allowed; UTF-8 text without NUL, or a 64-bit number"
    return None
