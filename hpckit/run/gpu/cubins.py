"""Cubins that were made before: a folder that many processes share.

A file a source and kind of card, named by what decides it. Who makes one holds a lock, so that
others wait for it instead of making it too; where a file system has no locks they all make it,
and the last one's stays. A file is there whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hpckit.errors import LaunchError, StoreError
from hpckit.run.gpu import compiler
from hpckit.run.gpu.compiler import Cubin
from hpckit.store.atomic import write_bytes
from hpckit.store.image import inside

FOLDER = "HPCKIT_KERNELS"
"""The variable that names the folder where cubins are kept."""

SHIPPED = "HPCKIT_KERNELS_SHIPPED"
"""The variable that names folders, with colons between, of cubins that an image brought along."""

FORMAT = 1
_INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.MULTILINE)

COMPILERS = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "CPATH", "CPLUS_INCLUDE_PATH")
"""Variables that nvcc, or the compiler that it calls, takes options from."""


@dataclass(frozen=True)
class Source:
    """Kernels as they are written.

    Attributes
    ----------
    name
        A file's, or one made of the kernel's.
    folder
        Of the file: where what it includes is looked for.
    options
        Further arguments of nvcc.
    """

    text: str
    name: str
    folder: Path | None = None
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: str | Path, kernel: str, folder: Path, options: tuple[str, ...]) -> Source:
        """Return kernels: a file, by its path from the job's folder on, or their text.

        Raises
        ------
        LaunchError
            There is no such file.
        """
        if isinstance(source, str) and ("{" in source or "\n" in source):
            return cls(source, f"{kernel}.cu", folder, options)
        path = folder / source
        try:
            return cls(path.read_text(), path.name, path.parent, options)
        except (OSError, UnicodeDecodeError) as error:
            told = error.strerror if isinstance(error, OSError) else "no text"
            raise LaunchError(f"{path}: kernels cannot be read: {told}") from None

    def key(self, arch: str) -> str:
        """Return what the code depends on, but for the compiler, as a hash."""
        own = [f"{name}={os.environ[name]}" for name in COMPILERS if name in os.environ]
        parts = [str(FORMAT), arch, *self.options, *own, self.text, *self._included()]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def file_name(self, arch: str, toolkit: str) -> str:
        """Return what its cubin is called that a toolkit makes."""
        return f"{self.key(arch)}-{arch}-{toolkit}.cubin"

    def _included(self) -> Iterator[str]:
        """Yield the source's own headers and theirs; those of the toolkit have its version."""
        options = self.options
        named = [o[2:] for o in options if o.startswith("-I") and len(o) > 2]
        named += [after for o, after in pairwise(options) if o == "-I"]
        folders = [*([self.folder] if self.folder else []), *map(Path, named)]
        waiting = [(name, folders) for name in _INCLUDE.findall(self.text)]
        seen = set()
        while waiting:
            name, places = waiting.pop()
            path = next((place / name for place in places if (place / name).is_file()), None)
            if path is None or path in seen:
                continue
            seen.add(path)
            text = path.read_text(errors="replace")
            yield f"{name}\0{text}"
            waiting += [(inner, [path.parent, *folders]) for inner in _INCLUDE.findall(text)]


def kept_folder(in_image: Path) -> Path:
    """Return the folder where cubins are kept: the user's, unless a variable names one.

    Parameters
    ----------
    in_image
        The one for processes in an image, which have no home.
    """
    told = os.environ.get(FOLDER)
    if inside() is not None:
        # A folder of the host's need not be seen in there.
        return Path(told) if told and Path(told).is_dir() else in_image
    if told:
        return Path(told)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hpckit" / "kernels"


def cubin(source: Source, capability: tuple[int, int], kept: Path) -> Cubin:
    """Return kernels for a card, made now and kept in a folder if they were not before.

    Raises
    ------
    LaunchError
        They do not compile, or there is no nvcc and no cubin that fits.
    """
    nvcc = compiler.find_nvcc()
    shipped = [Path(p) for p in os.environ.get(SHIPPED, "").split(":") if p]
    if nvcc is None:
        return _found(source, capability, [*shipped, kept])
    arch = f"sm_{capability[0]}{capability[1]}"
    name = source.file_name(arch, compiler.toolkit_version(nvcc))
    for folder in (*shipped, kept):
        if (found := read(folder / name)) is not None:
            return found
    with _making(kept / name) as path:
        if path is not None and (found := read(path)) is not None:
            return found
        best = compiler.best_arch(nvcc, capability)
        made = compiler.compile_cubin(
            nvcc, source.text, source.name, best, source.options, source.folder
        )
        if path is not None:
            with suppress(StoreError):
                write(path, made)
        return made


def _found(source: Source, capability: tuple[int, int], folders: list[Path]) -> Cubin:
    """Return a cubin of any compiler; one for an older card of the same generation runs too."""
    major, minor = capability
    for each in range(minor, -1, -1):
        arch = f"sm_{major}{each}"
        for folder in folders:
            for path in sorted(folder.glob(f"{source.key(arch)}-{arch}-*.cubin"), reverse=True):
                if (found := read(path)) is not None:
                    return found
    options = "".join(f" --nvcc-option={option}" for option in source.options)
    raise LaunchError(
        f"{source.name}: no nvcc is here to compile it for sm_{major}{minor}, and no cubin of it "
        f"in {', '.join(map(str, folders))}: {compiler.where()}; or ship one: "
        f"hpckit gpu compile {source.name} --arch sm_{major}{minor}{options} --into FOLDER"
    )


def read(path: Path) -> Cubin | None:
    """Read a kept cubin; None if it is not there, or is none."""
    try:
        header, _, code = path.read_bytes().partition(b"\n")
        record = json.loads(header)
        if record["sha256"] != hashlib.sha256(code).hexdigest():
            return None
        return Cubin(code, compiler.needs_from(record["needs"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, made: Cubin) -> None:
    """Keep a cubin, behind a line with its hash and its needs.

    Raises
    ------
    StoreError
        It cannot be written.
    """
    needs = {symbol: each.as_dict() for symbol, each in made.needs.items()}
    record = {"sha256": hashlib.sha256(made.code).hexdigest(), "needs": needs}
    write_bytes(path, json.dumps(record).encode() + b"\n" + made.code)


@contextmanager
def _making(path: Path) -> Iterator[Path | None]:
    """Wait for one's turn to make a file; yield None where none can be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.parent / f".{path.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(lock)
