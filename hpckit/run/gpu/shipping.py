"""Cubins for cards that are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpckit.errors import LaunchError, UsageError
from hpckit.run.gpu import ceilings, compiler, cubins, reduction, signature
from hpckit.run.gpu.compiler import Cubin
from hpckit.run.gpu.cubins import Source
from hpckit.store.atomic import explained

OWN = {"sums.cu": reduction.SOURCE, "ceilings.cu": ceilings.SOURCE}
"""hpckit's own kernels."""


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
        raise LaunchError(f"no nvcc is here: {compiler.where()}")
    known = compiler.known_arches(nvcc)
    for arch in arches:
        if arch not in known:
            raise UsageError(f"--arch {arch}: this nvcc compiles for {', '.join(known)}")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    source = cubins.Source.of(path.absolute(), path.stem, Path(), tuple(options))
    if not signature.kernels(source.text):
        raise UsageError(f"{path}: no kernel is in it")
    # Those of hpckit's own are wanted wherever a job's are.
    own = [cubins.Source(text, name, path.parent) for name, text in OWN.items()]
    for arch in arches:
        made = _made(source, arch, nvcc, folder)
        for each in own:
            _made(each, arch, nvcc, folder)
        for symbol, needs in made.needs.items():
            yield {
                "source": source.name,
                "kernel": _name(symbol, signature.kernels(source.text)),
                "arch": arch,
                "toolkit": compiler.toolkit_version(nvcc),
                **needs.as_dict(),
            }


def _made(source: Source, arch: str, nvcc: Path, folder: Path) -> Cubin:
    """Compile a source into a folder, unless it is there."""
    path = folder / source.file_name(arch, compiler.toolkit_version(nvcc))
    if (found := cubins.read(path)) is not None:
        return found
    made = compiler.compile_cubin(
        nvcc, source.text, source.name, arch, source.options, source.folder
    )
    cubins.write(path, made)
    return made


def _name(symbol: str, names: set[str]) -> str:
    found = (n for n in names if symbol == n or symbol.startswith(f"_Z{len(n)}{n}"))
    return next(found, symbol)
