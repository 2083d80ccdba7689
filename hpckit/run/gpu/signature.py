"""The parameters of a CUDA kernel, read from its source, and arguments that fit them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hpckit.errors import LaunchError, UsageError

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_QUALIFIER = re.compile(r"\b(const|volatile|restrict|__restrict__|__restrict|struct)\b")
_BRACKETS = re.compile(r"\b(\w+)\s*\[[^]]*\]")
_ATTRIBUTES = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"

_TYPES = {
    "char": "i1",
    "signed char": "i1",
    "unsigned char": "u1",
    "bool": "?",
    "short": "i2",
    "unsigned short": "u2",
    "int": "i4",
    "signed int": "i4",
    "unsigned": "u4",
    "unsigned int": "u4",
    "long": "i8",
    "unsigned long": "u8",
    "long long": "i8",
    "unsigned long long": "u8",
    "size_t": "u8",
    "ptrdiff_t": "i8",
    "float": "f4",
    "double": "f8",
    **{f"int{8 * n}_t": f"i{n}" for n in (1, 2, 4, 8)},
    **{f"uint{8 * n}_t": f"u{n}" for n in (1, 2, 4, 8)},
}
"""Of C's names, as CUDA has them on Linux."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel.

    Attributes
    ----------
    dtype
        Of the scalar, or of what a pointer points to; None where that is no number of C's, but
        a struct, say.
    """

    name: str
    text: str
    dtype: np.dtype[Any] | None
    is_pointer: bool

    def accept(self, value: Any, kernel: str) -> Any:
        """Return an argument as a launch takes it.

        Raises
        ------
        UsageError
            It does not fit.
        """
        if self.is_pointer:
            return self._accept_array(value, kernel)
        return self._accept_scalar(value, kernel)

    def _accept_array(self, value: Any, kernel: str) -> Any:
        if isinstance(value, np.ndarray):
            raise self._refusal(kernel, "an array of the host", "a copy of it: gpu.array(x)")
        if not hasattr(value, "gpudata"):
            raise self._refused(kernel, value, "an array on the card: gpu.array, gpu.empty")
        if self.dtype is not None and value.dtype.itemsize and value.dtype != self.dtype:
            raise self._refusal(kernel, f"an array of {value.dtype}", f"one of {self.dtype}")
        if not value.flags.c_contiguous:
            allowed = "a contiguous one: gpu.array(gpu.to_host(x))"
            raise self._refusal(kernel, "an array with gaps", allowed)
        return value.ptr if value.size else 0

    def _accept_scalar(self, value: Any, kernel: str) -> Any:
        assert self.dtype is not None
        if not isinstance(value, bool | int | float | np.number | np.bool_):
            raise self._refused(kernel, value, f"a number of {self.dtype}")
        if self.dtype.kind in "iu":
            least, most = _limits(self.dtype)
            if not least <= value <= most or value != int(value):
                allowed = f"a whole number from {least} to {most}"
                raise self._refused(kernel, value, allowed)
            value = int(value)
        elif self.dtype.kind == "b" and value not in (0, 1):
            raise self._refused(kernel, value, "True or False")
        with np.errstate(over="ignore"):
            accepted = self.dtype.type(value)
        if self.dtype.kind == "f" and np.isinf(accepted) and not np.isinf(value):
            raise self._refused(kernel, value, f"at most {np.finfo(self.dtype).max:.3g}")
        return accepted

    def _refused(self, kernel: str, value: Any, allowed: str) -> UsageError:
        told = f"an array of shape {value.shape}" if hasattr(value, "shape") else repr(value)
        return self._refusal(kernel, told, allowed)

    def _refusal(self, kernel: str, told: str, allowed: str) -> UsageError:
        return UsageError(f"kernel {kernel}: {self.text!r} cannot be {told}; it takes {allowed}")


@lru_cache(maxsize=16)
def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def parameters(source: str, kernel: str) -> tuple[Parameter, ...]:
    """Return the parameters of a kernel.

    Raises
    ------
    LaunchError
        The source has no such kernel, or several; or a parameter is neither a number nor a
        pointer.
    """
    plain = _COMMENT.sub(" ", source)
    pattern = rf"__global__\s+{_ATTRIBUTES}void\s+{_ATTRIBUTES}{re.escape(kernel)}\s*\(([^)]*)\)"
    found = {" ".join(text.split()) for text in re.findall(pattern, plain)}
    if len(found) != 1:
        there = ", ".join(sorted(kernels(source))) or "no kernel at all"
        raise LaunchError(
            f"kernel {kernel!r}: the source has {len(found) or 'no'} `__global__ void {kernel}(…)`;"
            f" it has {there}"
        )
    (text,) = found
    parts = [part for part in text.split(",") if part.strip() not in ("", "void")]
    return tuple(_parameter(part, kernel) for part in parts)


def kernels(source: str) -> set[str]:
    """Return the names of all kernels in a source."""
    pattern = rf"__global__\s+{_ATTRIBUTES}void\s+{_ATTRIBUTES}(\w+)\s*\("
    return set(re.findall(pattern, _COMMENT.sub(" ", source)))


def _kind(words: list[str]) -> str:
    """Return the one spelling of a type that the table has: ``long int`` is ``long``."""
    if "int" in words and words != ["int"] and words != ["unsigned", "int"]:
        words = [word for word in words if word != "int"]
    if "signed" in words and "char" not in words:
        words = [word for word in words if word != "signed"] or ["int"]
    return " ".join(sorted(words, key=lambda word: word != "unsigned"))


def _parameter(text: str, kernel: str) -> Parameter:
    words = _BRACKETS.sub(r" * \1", _QUALIFIER.sub(" ", text)).replace("*", " * ").split()
    name, is_pointer = words[-1], "*" in words
    code = _TYPES.get(_kind([word for word in words[:-1] if word != "*"]))
    if code is None and not is_pointer:
        raise LaunchError(
            f"kernel {kernel}: {text.strip()!r} is of a type that is no number of C's: write the "
            "type out (double, not a name for it), or let it point to an array on the card"
        )
    return Parameter(name, text.strip(), None if code is None else np.dtype(code), is_pointer)
