"""Values in normal form as typed arrays and a text that says how they belong together.

Arrays of one type go to one pool, in the order in which they are met, so that thousands of
dicts and arrays become a handful of HDF5 datasets. Strings are UTF-8 with a zero byte between
them, which no string holds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.store.columns import TEXT
from hpckit.store.reducible import is_table
from hpckit.store.storable import text_array

TEXT_POOL = "text"
_PYTHON: dict[str, type] = {"bool": bool, "int": int, "float": float, "complex": complex}
_DTYPES = {bool: "bool", int: "int64", float: "float64", complex: "complex128"}

Pools = dict[str, NDArray[Any]]
"""By the name of their type; strings as bytes under `TEXT_POOL`."""


def taken_apart(value: Any) -> tuple[str, Pools]:
    """Return how a value is made, as JSON, and the arrays that it is made of."""
    apart = _Apart()
    form = json.dumps(apart.form(value), separators=(",", ":"))
    return form, {name: one_behind_the_other(parts) for name, parts in apart.parts.items()}


def put_together(form: str, pools: Mapping[str, NDArray[Any]]) -> Any:
    """Return the value that was taken apart.

    Raises
    ------
    ValueError
        The arrays do not fit.
    """
    together = _Together(pools)
    value = together.value(json.loads(form))
    if any(together.taken.get(name, 0) != len(pool) for name, pool in pools.items()):
        raise ValueError("a partial result does not fit its values")
    return value


def one_behind_the_other(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join arrays; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Apart:
    def __init__(self) -> None:
        self.parts: dict[str, list[NDArray[Any]]] = {}

    def form(self, value: Any) -> Any:
        kind = type(value)
        if value is None:
            return None
        if isinstance(value, dict):
            return self._dict(value)
        if isinstance(value, np.ndarray):
            return {"is": "array", "shape": value.shape, **self._array(value.reshape(-1))}
        if kind is str or kind in _DTYPES or isinstance(value, np.generic):
            return self._values([value], kind)
        raise AssertionError(kind)

    def _dict(self, value: dict[Any, Any]) -> Any:
        form = {"is": type(value).__name__, "length": len(value), "keys": self._list(list(value))}
        values = list(value.values())
        if not is_table(value):
            return {**form, "each": [self.form(item) for item in values]}
        kinds = list(dict.fromkeys(map(type, values)))
        if len(kinds) > 1:
            form["mixed"] = self._array(np.array([kinds.index(type(v)) for v in values], np.uint8))
        form["values"] = [self._values([v for v in values if type(v) is k], k) for k in kinds]
        return form

    def _list(self, keys: list[Any]) -> Any:
        return self._values(keys, type(keys[0]) if keys else str)

    def _values(self, values: Sequence[Any], kind: type) -> Any:
        """Note values of one type."""
        if kind is str:
            return {"is": "str", "length": len(values), **self._texts(values)}
        if kind in _DTYPES:
            noted = self._array(np.array(values, _DTYPES[kind]))
            return {"is": kind.__name__, "length": len(values), **noted}
        return {"is": "scalar", "length": len(values), **self._array(np.array(values))}

    def _array(self, values: NDArray[Any]) -> dict[str, Any]:
        if values.dtype == TEXT:
            return {"dtype": TEXT_POOL, **self._texts(values.tolist())}
        return {"dtype": self._put(values.dtype.name, values)}

    def _texts(self, texts: Iterable[str]) -> dict[str, int]:
        encoded = np.frombuffer("\0".join(texts).encode(), np.uint8)
        self._put(TEXT_POOL, encoded)
        return {"bytes": len(encoded)}

    def _put(self, pool: str, values: NDArray[Any]) -> str:
        self.parts.setdefault(pool, []).append(values)
        return pool


class _Together:
    def __init__(self, pools: Mapping[str, NDArray[Any]]) -> None:
        self.pools = pools
        self.taken: dict[str, int] = {}

    def value(self, form: Any) -> Any:
        if form is None:
            return None
        kind = form["is"]
        if kind in ("dict", "Counter"):
            return self._dict(form)
        if kind == "array":
            # A copy: merging may change it.
            count = int(np.prod(form["shape"], dtype=np.int64))
            return self._array(form, count).reshape(form["shape"]).copy()
        return self._values(form)[0]

    def _dict(self, form: Mapping[str, Any]) -> dict[Any, Any]:
        keys = self._values(form["keys"])
        value: dict[Any, Any] = Counter() if form["is"] == "Counter" else {}
        dict.update(value, zip(keys, self._items(form), strict=True))
        return value

    def _items(self, form: Mapping[str, Any]) -> Iterable[Any]:
        if "each" in form:
            return [self.value(item) for item in form["each"]]
        if "mixed" not in form:
            return self._values(form["values"][0]) if form["values"] else ()
        kinds = self._array(form["mixed"], form["length"]).tolist()
        each = [iter(self._values(values)) for values in form["values"]]
        return [next(each[kind]) for kind in kinds]

    def _values(self, form: Mapping[str, Any]) -> list[Any]:
        if form["is"] == "str":
            return self._texts(form["bytes"], form["length"])
        values = self._array(form, form["length"])
        return values.tolist() if form["is"] in _PYTHON else list(values)

    def _array(self, form: Mapping[str, Any], count: int) -> NDArray[Any]:
        if form["dtype"] == TEXT_POOL:
            return text_array(self._texts(form["bytes"], count))
        return self._take(form["dtype"], count)

    def _texts(self, size: int, count: int) -> list[str]:
        text = self._take(TEXT_POOL, size).tobytes().decode()
        return text.split("\0") if count else []

    def _take(self, pool: str, count: int) -> NDArray[Any]:
        start = self.taken.get(pool, 0)
        self.taken[pool] = start + count
        values = self.pools.get(pool, np.zeros(0))[start : start + count]
        if len(values) != count:
            raise ValueError("a partial result does not fit its values")
        return values
