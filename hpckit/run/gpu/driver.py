"""PyCUDA, imported when a task first wants a card, and what its errors mean."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from hpckit.errors import HpckitError, LaunchError, UsageError
from hpckit.units import binary

LOST = frozenset({46, 79, 214, 219, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 720})
"""Codes of errors after which a context is of no use (CUDA Driver API, `CUresult`): an illegal
address, an instruction that traps, a device that is lost, memory that ECC cannot mend."""


class GpuError(HpckitError):
    """Something of the card's that is wrong in a task, but not with it: no memory left, say."""


def load() -> Any:
    """Import PyCUDA's driver interface and start it.

    Raises
    ------
    LaunchError
        There is no PyCUDA, no driver or no card; the message says what to do.
    """
    try:
        import pycuda.driver as cuda
    except ModuleNotFoundError as error:
        raise LaunchError(
            f"gpus_per_task needs PyCUDA ({error}): pip install 'hpckit[gpu]', which builds it "
            "with nvcc; docs/gpu.md says what it wants, and `hpckit image build --variant cuda` "
            "makes an image that has it"
        ) from None
    except ImportError as error:
        raise LaunchError(_not_loaded(str(error))) from None
    try:
        cuda.init()
    except cuda.Error as error:
        raise LaunchError(
            f"no GPU can be had ({reason(error)}): is one in this machine, did the job ask for it "
            "(gpus_per_task), and does CUDA_VISIBLE_DEVICES name one?"
        ) from None
    return cuda


def _not_loaded(told: str) -> str:
    if "libcuda" in told:
        return (
            f"the GPU driver's library is not here ({told}): this machine has no NVIDIA driver, "
            "or the container was started without --nv, which hpckit gives where the job has "
            "gpus_per_task"
        )
    return (
        f"PyCUDA does not load ({told}): it was built for another CUDA or its libraries are not "
        "on LD_LIBRARY_PATH; build it again with: pip install --no-cache-dir --force-reinstall "
        "--no-deps pycuda"
    )


def reason(error: Exception) -> str:
    """Return the driver's words of one of PyCUDA's exceptions."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def count() -> int | None:
    """Return how many cards there are; None where there is no driver. It imports nothing."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    found = ctypes.c_int()
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(found)):
        return None
    return found.value


def uuid(ordinal: int) -> str:
    """Return what NVIDIA's tools call a card, such as GPU-2f6b0d1c-…; PyCUDA does not tell.

    Raises
    ------
    OSError
        There is no driver.
    """
    library = ctypes.CDLL("libcuda.so.1")
    device, octets = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    library.cuDeviceGet(ctypes.byref(device), ordinal)
    library.cuDeviceGetUuid_v2(ctypes.byref(octets), device)
    text = bytes(octets).hex()
    ends = (0, 8, 12, 16, 20, 32)
    return "GPU-" + "-".join(text[a:b] for a, b in pairwise(ends))


@contextmanager
def memory_explained(cuda: Any, nbytes: int, name: str) -> Iterator[None]:
    """Say how much was asked for and how much there is where a card's memory is full.

    Raises
    ------
    GpuError
        It is full.
    """
    try:
        yield
    except cuda.MemoryError:
        free, total = cuda.mem_get_info()
        raise GpuError(
            f"out of device memory: {binary(nbytes)} were asked for, {binary(free)} of "
            f"{binary(total)} are free on {name}; make the arrays smaller, or send them through "
            "in blocks (gpu.stream_blocks)"
        ) from None


def lost(name: str, error: Exception) -> GpuError:
    """Return what to say where a card is of no use to a process any more."""
    return GpuError(
        f"{name} is of no use to this process any more ({reason(error)}): a kernel that was "
        "launched before has read or written outside of its arrays, or the card has failed. "
        "compute-sanitizer finds such a kernel; nvidia-smi and dmesg tell of the card"
    )


@contextmanager
def loss_explained(gpu: Any) -> Iterator[None]:
    """Say what it means if the card is of no use any more.

    Raises
    ------
    GpuError
        It is not.
    """
    try:
        yield
    except gpu.cuda.Error as error:
        if gpu.is_lost():
            raise lost(gpu.name, error) from None
        raise


def refused(kernel: str, error: Exception) -> UsageError:
    """Return what to say of a launch that the driver does not begin."""
    return UsageError(f"kernel {kernel}: cannot be launched: {reason(error)}")
