"""Matrix products by NVIDIA's cuBLAS, called as its C interface has it."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpckit.errors import LaunchError, UsageError
from hpckit.run.gpu.driver import GpuError

if TYPE_CHECKING:
    from hpckit.run.gpu.card import Gpu

_AS_IT_IS = 0
"""CUBLAS_OP_N."""


def matmul(gpu: Gpu, a: Any, b: Any, out: Any = None) -> Any:
    """Return the product of two stacks of matrices on the card: see `hpckit.run.gpu.card.Gpu`.

    cuBLAS has matrices by columns, so that it sees all of them transposed, and is asked for
    b^T a^T = (a b)^T.
    """
    m, k, n = _fitting(a, b)
    out = gpu.empty((*a.shape[:-2], m, n), a.dtype) if out is None else out
    number, scalar = np.dtype(a.dtype), ctypes.c_double if a.dtype == np.float64 else ctypes.c_float
    function = getattr(
        _library(), f"cublas{'D' if number.itemsize == 8 else 'S'}gemmStridedBatched"
    )
    one, zero = scalar(1), scalar(0)
    batch = int(np.prod(a.shape[:-2], dtype=np.int64))
    with gpu.ledger.kernel("matmul", None, 0, 2.0 * batch * m * n * k) as account:
        account.nbytes += a.nbytes + b.nbytes + out.nbytes
        account.numbers = str(a.dtype)
        status = function(
            *(_handle(), _AS_IT_IS, _AS_IT_IS, n, m, k, ctypes.byref(one)),
            *(_address(b), n, ctypes.c_longlong(k * n), _address(a), k, ctypes.c_longlong(m * k)),
            *(ctypes.byref(zero), _address(out), n, ctypes.c_longlong(m * n), batch),
        )
    if status:
        raise GpuError(f"cuBLAS refuses the product of {a.shape} and {b.shape}: status {status}")
    return out


def _fitting(a: Any, b: Any) -> tuple[int, int, int]:
    """Return m, k and n of a product of (..., m, k) and (..., k, n)."""
    allowed = "(..., m, k) and (..., k, n) of one type, float32 or float64"
    fit = len(a.shape) >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    if not fit or a.dtype != b.dtype or a.dtype not in (np.float32, np.float64):
        raise UsageError(
            f"gpu.matmul: arrays of {a.shape} {a.dtype} and {b.shape} {b.dtype}; it takes {allowed}"
        )
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


@lru_cache(maxsize=1)
def _handle() -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    if status := _library().cublasCreate_v2(ctypes.byref(handle)):
        raise LaunchError(f"cuBLAS does not start: status {status}")
    return handle
