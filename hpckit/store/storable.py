"""What a task may return: numbers, bools, strings, and arrays of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.spec.names import is_name, is_text

INT64 = np.iinfo(np.int64)


def storable(name: str, value: Any) -> Any:
    """Return a task's value in the form that `from_values` takes.

    Raises
    ------
    TypeError
        HDF5 has no native type for it, or the name cannot be that of a variable.
    """
    if not (name.isidentifier() or is_name(name)):
        raise TypeError(
            f"field {name!r}: a name must be printable, hold no slash, and neither begin nor end "
            "with a space"
        )
    kind = type(value)
    if kind in (float, bool, complex) or value is None:
        return value
    if kind is str:
        return _checked_text(name, value)
    if kind is int:
        if INT64.min <= value <= INT64.max:
            return value
        raise TypeError(f"field {name!r}: the integer {value} does not fit into 64 bits")
    return _storable_array(name, value)


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Tell whether HDF5 has a native type for it, of at most double precision."""
    return dtype.kind in "biufc" and dtype.itemsize <= (16 if dtype.kind == "c" else 8)


def text_array(values: Sequence[str]) -> NDArray[Any]:
    """Return strings as an array of Python objects, the form of text in a column."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _storable_array(name: str, value: Any) -> Any:
    refusal = TypeError(
        f"field {name!r}: a {type(value).__name__} cannot be stored: return numbers, bools, "
        "strings, or NumPy arrays of them"
    )
    if hasattr(value, "gpudata"):
        raise TypeError(f"field {name!r}: an array on the card: return gpu.to_host(it)")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"field {name!r}: a masked array cannot be stored: fill it first")
    try:
        array = np.asarray(value)
        if array.dtype.kind in "OUST":
            return _storable_text(name, array, refusal)
    except ValueError:
        raise refusal from None
    if not is_numeric(array.dtype):
        raise refusal
    if array.ndim == 0:
        return array.astype(array.dtype.newbyteorder("="), copy=False)[()]
    # A copy: the engine returns the batch later, and the task may reuse its buffer until then.
    return array.astype(array.dtype.newbyteorder("="), order="C")


def _storable_text(name: str, array: NDArray[Any], refusal: TypeError) -> Any:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    texts = array.reshape(-1).tolist()
    if not all(isinstance(text, str) for text in texts):
        raise refusal
    checked = [_checked_text(name, text) for text in texts]
    return text_array(checked).reshape(array.shape) if array.ndim else checked[0]


def _checked_text(name: str, text: str) -> str:
    """Refuse what an HDF5 string cannot hold, while the task can still be blamed for it."""
    if not is_text(text):
        raise TypeError(
            f"field {name!r}: the string {text[:40]!r} cannot be stored: it must hold neither "
            "a zero byte nor half a surrogate pair"
        )
    return text
