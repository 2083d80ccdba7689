"""Matrix products by NVIDIA's cuBLAS, called as its C interface has it."""

from __future__ import annotations

import ctypes
import math
import os
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpckit.errors import LaunchError, UsageError
from hpckit.run.gpu.driver import GpuError
from hpckit.run.gpu.memory import require_on_card

if TYPE_CHECKING:
    from hpckit.run.gpu.card import Gpu

_AS_IT_IS = 0
"""CUBLAS_OP_N."""


class Blas:
    """cuBLAS on one card."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._handle = ctypes.c_void_p()
        if status := _library().cublasCreate_v2(ctypes.byref(self._handle)):
            raise LaunchError(f"cuBLAS does not start: status {status}")

    def close(self) -> None:
        """End it."""
        _library().cublasDestroy_v2(self._handle)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        """Return the product of two stacks of matrices: see `hpckit.run.gpu.card.Gpu.matmul`.

        cuBLAS has matrices by columns, so that it sees all of them transposed, and is asked for
        b^T a^T = (a b)^T.
        """
        m, k, n = _fitting(a, b, out)
        out = self._gpu.empty((*a.shape[:-2], m, n), a.dtype) if out is None else out
        batch = math.prod(a.shape[:-2])
        scalar = ctypes.c_double if a.dtype == np.float64 else ctypes.c_float
        letter = "D" if a.dtype == np.float64 else "S"
        product = getattr(_library(), f"cublas{letter}gemmStridedBatched")
        one, zero = scalar(1), scalar(0)
        ledger = self._gpu.ledger
        account = ledger.account("matmul", str(a.dtype))
        account.count(a.nbytes + b.nbytes + out.nbytes, 2.0 * batch * m * n * k)
        with ledger.timed(account, None, batch * m * n * k):
            status = product(
                *(self._handle, _AS_IT_IS, _AS_IT_IS, n, m, k, ctypes.byref(one)),
                *(_address(b), n, ctypes.c_longlong(k * n)),
                *(_address(a), k, ctypes.c_longlong(m * k), ctypes.byref(zero)),
                *(_address(out), n, ctypes.c_longlong(m * n), batch),
            )
        if status:
            raise GpuError(f"cuBLAS refuses the product of {a.shape} and {b.shape}: {status}")
        return out


def _fitting(a: Any, b: Any, out: Any) -> tuple[int, int, int]:
    """Return m, k and n of a product of (..., m, k) and (..., k, n)."""
    for each in (a, b, *([] if out is None else [out])):
        require_on_card(each, "gpu.matmul")
    fit = len(a.shape) >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    if not fit or a.dtype != b.dtype or a.dtype not in (np.float32, np.float64):
        raise UsageError(
            f"gpu.matmul: arrays of {a.shape} {a.dtype} and {b.shape} {b.dtype}; it takes "
            "(..., m, k) and (..., k, n) of one type, float32 or float64"
        )
    shape = (*a.shape[:-1], b.shape[-1])
    if out is not None and (out.shape != shape or out.dtype != a.dtype):
        raise UsageError(
            f"gpu.matmul: out is an array of {out.shape} {out.dtype}; it takes one of {shape} "
            f"{a.dtype}"
        )
    if not all(each.flags.c_contiguous for each in (a, b, out) if each is not None):
        raise UsageError("gpu.matmul: an array with gaps, or transposed; it takes contiguous ones")
    return a.shape[-2], a.shape[-1], b.shape[-1]


def _address(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(int(array.ptr))


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    for name in _places():
        try:
            return ctypes.CDLL(str(name))
        except OSError:
            continue
    raise LaunchError(
        "gpu.matmul needs cuBLAS, which is not here: pip install nvidia-cublas, or have the "
        "folder of libcublas.so on LD_LIBRARY_PATH"
    )


def _places() -> Iterator[str | Path]:
    """Yield where cuBLAS may be: with the loader, in NVIDIA's wheels, in the toolkit."""
    yield from ("libcublas.so.13", "libcublas.so.12", "libcublas.so")
    wheels = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    yield from sorted(wheels.glob("*/lib/libcublas.so.*"), reverse=True)
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        yield from sorted((Path(home) / "lib64").glob("libcublas.so.*"), reverse=True)
