"""What tasks whose results are merged may return, in the form in which it is merged and stored.

It is a number, a string, an array, or a dict or Counter of them. A *table* is a dict whose
values are all numbers or all strings; any other dict holds values by name.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from hpckit.spec.names import is_text
from hpckit.store.storable import INT64, is_numeric, storable

NUMBERS = frozenset({bool, int, float, complex})
_AS_THEY_ARE = frozenset({bool, float, complex, type(None)})
_DICTS = (dict, Counter)


def normal(value: Any, *, copy: bool) -> Any:
    """Return a value in normal form: with plain keys, and arrays that lie in memory in order.

    Parameters
    ----------
    copy
        Whether to copy what may change; without, what is in normal form is returned as it is.

    Raises
    ------
    TypeError
        It cannot be stored.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is int:
        _check_integers((value,))
        return value
    if kind is str:
        return storable("result", value)
    if kind in _DICTS:
        return _normal_dict(value, copy)
    if isinstance(value, np.ndarray | np.generic):
        return _normal_array(value, copy)
    raise TypeError(
        f"a {kind.__name__} cannot be merged and stored: return numbers, strings, NumPy arrays, "
        "or a dict or collections.Counter of them"
    )


def is_table(value: dict[Any, Any]) -> bool:
    """Tell a dict of numbers alone, or of strings alone, from one of values by name."""
    kinds = set(map(type, value.values()))
    return kinds == {str} or all(map(is_number_type, kinds))


def is_number_type(kind: type) -> bool:
    """Tell whether a type is one of Python's or NumPy's numbers, bools among them."""
    return kind in NUMBERS or issubclass(kind, np.number | np.bool_)


def _normal_dict(value: dict[Any, Any], copy: bool, *, inner: bool = False) -> dict[Any, Any]:
    keys = _normal_keys(value)
    values = _normal_values(value, copy, inner=inner)
    if copy or keys is not value or values is not value:
        items = zip(keys, value.values() if values is value else values, strict=True)
        value = type(value)()
        dict.update(value, items)
    if is_table(value):
        return value
    if type(value) is Counter:
        raise TypeError("a Counter of anything but numbers cannot be merged and stored")
    if inner:
        raise TypeError("dicts within a dict must be of numbers alone, or of strings alone")
    for name in value:
        if type(name) is not str:
            raise TypeError(f"{name!r}: the keys of a dict of arrays or dicts must be strings")
        storable(name, None)
    return value


def _normal_keys(value: dict[Any, Any]) -> Collection[Any]:
    """Return the keys as plain strings or integers; the dict itself if they are so."""
    kinds = set(map(type, value))
    if all(issubclass(kind, str) for kind in kinds):
        _check_texts(value)
        return value if kinds <= {str} else [str(key) for key in value]
    if all(kind is int or issubclass(kind, np.integer) for kind in kinds):
        keys = value if kinds == {int} else [int(key) for key in value]
        _check_integers(keys)
        return keys
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"a dict whose keys are {names} cannot be stored: take strings, or integers")


def _normal_values(value: dict[Any, Any], copy: bool, *, inner: bool) -> Collection[Any]:
    """Return the values in normal form; the dict itself if they are so."""
    kinds = set(map(type, value.values()))
    if type(None) in kinds:
        raise TypeError("a dict with None among its values cannot be merged and stored")
    if kinds == {int}:
        _check_integers(value.values())
    elif kinds == {str}:
        _check_texts(value.values())
    if kinds in ({int}, {str}) or kinds <= _AS_THEY_ARE:
        return value
    values = [_normal_item(key, item, copy, inner) for key, item in value.items()]
    same = all(a is b for a, b in zip(values, value.values(), strict=True))
    return value if same else values


def _normal_item(key: Any, value: Any, copy: bool, inner: bool) -> Any:
    try:
        if type(value) in _DICTS:
            if inner:
                raise TypeError("dicts within dicts within a dict cannot be stored")
            return _normal_dict(value, copy, inner=True)
        return normal(value, copy=copy)
    except TypeError as error:
        raise TypeError(f"{key!r}: {error}") from None


def _normal_array(value: Any, copy: bool) -> Any:
    if (
        not copy
        and isinstance(value, np.ndarray)
        and type(value) is not np.ma.MaskedArray
        and value.ndim
        and is_numeric(value.dtype)
        and value.dtype.isnative
        and value.flags.c_contiguous
    ):
        return value
    return storable("result", value)


def _check_integers(values: Collection[int]) -> None:
    try:
        array("q", values)
    except OverflowError:
        bad = next(value for value in values if not INT64.min <= value <= INT64.max)
        raise TypeError(f"the integer {bad} does not fit into 64 bits") from None


def _check_texts(texts: Iterable[str]) -> None:
    if not is_text("".join(texts)):
        bad = next(text for text in texts if not is_text(text))
        raise TypeError(
            f"the string {bad[:40]!r} cannot be stored: it must hold neither a zero byte nor "
            "half a surrogate pair"
        )
