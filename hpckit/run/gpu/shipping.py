"""Cubins for cards that are elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpckit.errors import LaunchError, UsageError
from hpckit.run.gpu import compiler, cubins, signature


def ship(
    path: Path, arches: Sequence[str], folder: Path, options: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Compile a file of kernels into a folder; yield what each kernel needs of a card.

    Raises
    ------
    UsageError
        The file cannot be read, or what is asked for is no kind of card.
    LaunchError
        There is no nvcc, or it does not compile.
    StoreError
        The cubin cannot be written.
    """
    nvcc = compiler.find_nvcc()
    if nvcc is None:
        raise LaunchError(f"no nvcc is here: {compiler.WHERE}")
    folder.mkdir(parents=True, exist_ok=True)
    source = cubins.Source.of(path.absolute(), path.stem, Path(), tuple(options))
    for arch in arches:
        if not re.fullmatch(r"sm_\d{2,3}[af]?", arch):
            raise UsageError(f"--arch {arch!r}: a kind of card is written like sm_90")
        made = compiler.compile_cubin(
            nvcc, source.text, source.name, arch, source.options, source.folder
        )
        toolkit = compiler.toolkit_version(nvcc)
        cubins.write(folder / source.file_name(arch, toolkit), made)
        for symbol, needs in made.needs.items():
            kernel = _name(symbol, signature.kernels(source.text))
            yield {
                "source": source.name,
                "kernel": kernel,
                "arch": arch,
                "toolkit": toolkit,
                **needs.as_dict(),
            }


def _name(symbol: str, names: set[str]) -> str:
    found = (n for n in names if symbol == n or symbol.startswith(f"_Z{len(n)}{n}"))
    return next(found, symbol)
