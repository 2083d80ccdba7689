"""The card of a task or a rank: `run.gpu` and `task.gpu`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

from hpckit.errors import LaunchError
from hpckit.run.gpu import claims, driver
from hpckit.run.gpu.ledger import Ledger
from hpckit.run.gpu.wish import Wish
from hpckit.store.gpus import leave_account

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike

    from hpckit.run.gpu.blas import Blas
    from hpckit.run.gpu.halo import Halo
    from hpckit.run.gpu.kernel import Kernel
    from hpckit.run.gpu.memory import Memory


class Gpu:
    """One card, which no other task has unless the job says so.

    Attributes
    ----------
    name, uuid
        As NVIDIA's tools have them.
    ordinal, visible
        The card's number among those that this process sees, and how many it sees.
    capability
        Major and minor, of what the card can.
    cuda
        PyCUDA's driver interface, for what is not here.
    limits
        Of a multiprocessor: threads, registers, bytes of shared memory; threads of a block.
    ledger
        Where the time went.
    """

    def __init__(self, wish: Wish, preferred: int = 0) -> None:
        self.wish = wish
        self.cuda = driver.load()
        self.visible: int = self.cuda.Device.count()
        uuids = [driver.uuid(each) for each in range(self.visible)]
        self.ordinal, self._claim = claims.claim(uuids, preferred, wish.sharing)
        self.uuid = uuids[self.ordinal]
        device = self.cuda.Device(self.ordinal)
        self.name: str = device.name()
        self.capability: tuple[int, int] = device.compute_capability()
        self.limits = _limits(self.cuda, device)
        self._context = self._made_context(device)
        self._context.push()
        self._kernels: dict[Any, Kernel] = {}
        self.ledger = Ledger(self.cuda)

    def _made_context(self, device: Any) -> Any:
        try:
            return device.retain_primary_context()
        except self.cuda.Error as error:
            for descriptor in self._claim:
                os.close(descriptor)
            raise LaunchError(
                f"{self.name} ({self.uuid}) does not take this process: {driver.reason(error)}. "
                "Another one may hold it alone (nvidia-smi -q -d COMPUTE), or it has failed "
                "(nvidia-smi, dmesg)"
            ) from None

    def is_lost(self) -> bool:
        """Tell whether the card is of no use to this process any more, after an error."""
        try:
            self.cuda.Context.synchronize()
        except self.cuda.Error:
            return True
        return False

    def synchronize(self) -> None:
        """Wait until all that was launched has ended.

        Raises
        ------
        GpuError
            A kernel has made the card useless to this process.
        """
        with driver.loss_explained(self):
            self.cuda.Context.synchronize()

    def kernel(
        self,
        source: str | Path,
        name: str,
        *,
        options: Sequence[str] = (),
        bytes_per_thread: float = 0,
        flops_per_thread: float = 0,
    ) -> Kernel:
        """Return a kernel, compiled for this card now, or before by any process of this user.

        Parameters
        ----------
        source
            CUDA C++: a file, by its path from the job file's folder on, or the text itself.
        name
            Of a ``__global__ void`` function in it.
        options
            Further arguments of nvcc, such as ``["-use_fast_math"]``.
        bytes_per_thread, flops_per_thread
            What a thread moves to and from the card's memory and computes, as you count them: how
            near the kernel comes to what the card can is told from them.

        Raises
        ------
        LaunchError
            It does not compile: the message is the compiler's. There is no nvcc, and no cubin; or
            the source cannot be read, or has no such kernel.
        """
        from hpckit.run.gpu import cubins, signature
        from hpckit.run.gpu.compiler import Needs
        from hpckit.run.gpu.kernel import Kernel, symbol_of

        if isinstance(options, str):
            raise LaunchError(f"kernel {name}: options={options!r}: it takes a list of them")
        written = cubins.Source.of(source, name, self.wish.folder, tuple(options))
        counts = float(bytes_per_thread), float(flops_per_thread)
        key = (written, name, counts)
        if key not in self._kernels:
            parameters = signature.parameters(written.text, name)
            kept = cubins.kept_folder(in_image=self.wish.uses.parents[1] / ".kernels")
            made = cubins.cubin(written, self.capability, kept)
            symbol = symbol_of(made, name)
            function = self._loaded(made.code, written.name).get_function(symbol)
            needs = made.needs.get(symbol, Needs())
            self._kernels[key] = Kernel(self, function, name, parameters, needs, counts)
        return self._kernels[key]

    def _loaded(self, code: bytes, name: str) -> Any:
        try:
            return self.cuda.module_from_buffer(code)
        except self.cuda.Error as error:
            if self.is_lost():
                raise
            driver_version = _version(self.cuda.get_driver_version())
            raise LaunchError(
                f"{name}: the driver, of CUDA {driver_version}, does not take what nvcc made "
                f"({driver.reason(error)}): nvcc must be no newer than the driver; with NVIDIA's "
                f"wheels: pip install 'nvidia-cuda-nvcc=={driver_version.partition('.')[0]}.*'"
            ) from None

    @cached_property
    def memory(self) -> Memory:
        """The card's memory; most of it is at hand by the methods below."""
        from hpckit.run.gpu.memory import Memory

        return Memory(self)

    def array(self, values: ArrayLike, dtype: DTypeLike | None = None) -> Any:
        """Return a copy of an array of the host on the card: a `pycuda.gpuarray.GPUArray`.

        Raises
        ------
        GpuError
            The card's memory is full.
        """
        return self.memory.array(values, dtype)

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike = float) -> Any:
        """Return a new array on the card, of whatever values.

        Raises
        ------
        GpuError
            The card's memory is full.
        """
        return self.memory.empty(shape, dtype)

    def zeros(self, shape: int | Sequence[int], dtype: DTypeLike = float) -> Any:
        """Return a new array on the card, of zeros.

        Raises
        ------
        GpuError
            The card's memory is full.
        """
        return self.memory.zeros(shape, dtype)

    def to_host(self, array: Any, out: np.ndarray[Any, Any] | None = None) -> Any:
        """Return a copy of an array of the card on the host, in `out` if that is given."""
        return self.memory.to_host(array, out)

    def pinned(self, shape: int | Sequence[int], dtype: DTypeLike = float) -> Any:
        """Return a new array of the host that the card reads and writes by itself, fast."""
        return self.memory.pinned(shape, dtype)

    def stream(self) -> Any:
        """Return a new queue of launches and copies, which runs beside the others."""
        self.memory.has_streams = True
        return self.cuda.Stream()

    def sum(self, array: Any) -> float:
        """Return the sum of an array of float64 on the card, the same each time, bit for bit."""
        from hpckit.run.gpu.reduction import total

        return total(self, array)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        """Return the products of matrices, or of stacks of them, by the vendor's cuBLAS.

        Parameters
        ----------
        a, b
            Of shape (..., m, k) and (..., k, n) on the card, contiguous, float32 or float64.

        Raises
        ------
        UsageError
            The shapes or types do not fit each other.
        LaunchError
            There is no cuBLAS.
        """
        return self.blas.matmul(a, b, out)

    @cached_property
    def blas(self) -> Blas:
        """The vendor's library for matrices."""
        from hpckit.run.gpu.blas import Blas

        return Blas(self)

    def stream_blocks(
        self,
        step: Callable[..., None],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        rows: int | None = None,
    ) -> None:
        """Send arrays that do not fit through the card: see `streaming.stream_blocks`."""
        from hpckit.run.gpu.streaming import stream_blocks

        stream_blocks(self, step, inputs, outputs, rows)

    def halo(self, comm: Any, sends: Sequence[Any], receives: Sequence[Any]) -> Halo:
        """Return an exchange between ranks, from card to card: see `halo.Halo`."""
        from hpckit.run.gpu.halo import Halo

        return Halo(self, comm, sends, receives)

    def account(self) -> dict[str, Any]:
        """Return what the card was and did, for the manifest; it waits for the card."""
        return {
            "host": platform.node(),
            "pid": os.getpid(),
            "name": self.name,
            "uuid": self.uuid,
            "ordinal": self.ordinal,
            "visible": self.visible,
            "capability": ".".join(map(str, self.capability)),
            "clock_mhz": self.limits["clock_khz"] / 1000,
            "memory_bytes": self.cuda.mem_get_info()[1],
            "peak_bytes": self.memory.peak,
            "driver": _version(self.cuda.get_driver_version()),
            "toolkit": ".".join(map(str, self.cuda.get_version()[:2])),
            **self.ledger.close(),
            "ceilings": self.ceilings if self.ledger.is_counted else {},
        }

    @cached_property
    def ceilings(self) -> dict[str, float]:
        """What the card can do, measured when it is first asked for."""
        from hpckit.run.gpu.ceilings import measured

        return measured(self)

    def tell(self) -> None:
        """Leave word in the run of what the card did so far; whatever fails, the run goes on."""
        with suppress(Exception):
            leave_account(self.wish.uses, self.account(), get_ident())

    def close(self) -> None:
        """Leave the card to others; in the thread that has it."""
        if not self._claim:
            return
        try:
            for name in ("memory", "blas"):
                if name in vars(self):
                    vars(self).pop(name).close()
            self._kernels.clear()
            self.ledger.forget()
        finally:
            with suppress(Exception):
                self._context.pop()
                # Its end in C++ would detach it as if it were no primary one.
                self._context.detach()
            for descriptor in self._claim:
                os.close(descriptor)
            self._claim = ()


def _limits(cuda: Any, device: Any) -> dict[str, int]:
    names = {
        "threads": "MAX_THREADS_PER_MULTIPROCESSOR",
        "registers": "MAX_REGISTERS_PER_MULTIPROCESSOR",
        "shared": "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR",
        "threads_per_block": "MAX_THREADS_PER_BLOCK",
        "multiprocessors": "MULTIPROCESSOR_COUNT",
        "clock_khz": "CLOCK_RATE",
        "cache": "L2_CACHE_SIZE",
    }
    known = cuda.device_attribute
    return {key: device.get_attribute(getattr(known, name)) for key, name in names.items()}


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
