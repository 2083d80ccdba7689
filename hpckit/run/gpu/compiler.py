"""nvcc: from the source of kernels to a cubin for one kind of card."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hpckit.errors import LaunchError

WHERE = (
    "put nvcc on the PATH, set CUDA_HOME, or install it with: "
    "pip install nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl"
)

NVCC = "HPCKIT_NVCC"
"""The variable that names nvcc; if it is empty, there is none."""

_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Needs:
    """What a thread or a block of a kernel needs of the card, as ptxas told.

    Attributes
    ----------
    registers
        A thread.
    stack_bytes, spill_stores, spill_loads
        Bytes a thread, in memory that is far away.
    shared_bytes
        A block, beside what a launch asks for.
    """

    registers: int = 0
    stack_bytes: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    shared_bytes: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return them by name."""
        return asdict(self)


@dataclass(frozen=True)
class Cubin:
    """What nvcc made: the code, and the needs of each of its kernels by their symbols."""

    code: bytes
    needs: dict[str, Needs]


class CompileError(LaunchError):
    """Kernels that do not compile; the message is the compiler's, with the source's lines."""


def find_nvcc() -> Path | None:
    """Return nvcc: the one that is named, of CUDA_HOME or CUDA_PATH, of the PATH, or of wheels."""
    if NVCC in os.environ:
        named = os.environ[NVCC]
        return Path(named) if named and os.access(named, os.X_OK) else None
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    found = [Path(home) / "bin" / "nvcc" for home in homes]
    found += [Path(path) for path in [shutil.which("nvcc")] if path]
    wheels = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    found += sorted(wheels.glob("cu*/bin/nvcc"), reverse=True)
    return next((path for path in found if os.access(path, os.X_OK)), None)


def where() -> str:
    """Say how nvcc is had."""
    if NVCC in os.environ:
        return f"${NVCC}={os.environ[NVCC]!r} is no program: name nvcc, or leave it unset"
    return WHERE


def known_arches(nvcc: Path) -> list[str]:
    """Return the kinds of cards that a toolkit compiles for."""
    told = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=False)
    return [word for word in told.stdout.split() if word.startswith("sm_")]


def best_arch(nvcc: Path, capability: tuple[int, int]) -> str:
    """Return the kind of card to compile for: the card's own, or an older one of its generation.

    A toolkit may be older than the card; code for 8.0 runs on 8.6, for one.
    """
    major, minor = capability
    known = known_arches(nvcc)
    arches = [f"sm_{major}{each}" for each in range(minor, -1, -1)]
    return next((arch for arch in arches if arch in known), arches[0])


@lru_cache(maxsize=4)
def toolkit_version(nvcc: Path) -> str:
    """Return the version of a toolkit, such as 13.1.80."""
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\bV(\d[\d.]*)", told.stdout)
    return found[1] if found else "unknown"


def compile_cubin(
    nvcc: Path, source: str, name: str, arch: str, options: tuple[str, ...], folder: Path | None
) -> Cubin:
    """Compile kernels.

    Parameters
    ----------
    name
        What the compiler's messages call the source.
    arch
        Such as ``sm_80``.
    folder
        Where the source's own ``#include "…"`` begin.

    Raises
    ------
    CompileError
        It does not compile.
    """
    with tempfile.TemporaryDirectory(prefix="hpckit-nvcc-") as scratch:
        text, output = Path(scratch) / name, Path(scratch) / "cubin"
        text.write_text(source)
        include = [] if folder is None else [f"-I{folder}"]
        command = [str(nvcc), "-cubin", f"-arch={arch}", "--resource-usage", *options, *include]
        done = subprocess.run(
            [*command, "-o", str(output), str(text)], capture_output=True, text=True, check=False
        )
        told = (done.stdout + done.stderr).replace(f"{scratch}/", "")
        if done.returncode:
            raise CompileError(f"{name} does not compile for {arch}:\n{_plain(told)}")
        return Cubin(output.read_bytes(), needs_of(told))


def needs_of(told: str) -> dict[str, Needs]:
    """Read the resource report of ptxas."""
    found = {}
    for part in told.split("ptxas info")[1:]:
        if entry := _ENTRY.search(part):
            symbol, numbers = entry[1], dict[str, int]()
        elif spills := _SPILLS.search(part):
            names = ("stack_bytes", "spill_stores", "spill_loads")
            numbers |= dict(zip(names, map(int, spills.groups()), strict=True))
        elif registers := _REGISTERS.search(part):
            shared = _SHARED.search(part)
            found[symbol] = Needs(
                int(registers[1]), **numbers, shared_bytes=int(shared[1]) if shared else 0
            )
    return found


def needs_from(record: dict[str, Any]) -> dict[str, Needs]:
    """Return what `Needs.as_dict` gave."""
    return {symbol: Needs(**numbers) for symbol, numbers in record.items()}


def _plain(told: str) -> str:
    """Leave out what is no error: the report of those kernels that did compile."""
    lines = [line for line in told.splitlines() if not line.startswith("ptxas info")]
    return "\n".join(line for line in lines if line.strip())
