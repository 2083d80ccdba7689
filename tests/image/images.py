"""Pytest's fixtures `reference_image` and `mpich_image`: built once for all, and kept.

A conftest.py makes them known: `from image.images import *`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import pytest

from hpckit.image import apptainer, build

__all__ = ["apptainer_there", "bare_image", "compiling_image", "mpich_image", "reference_image"]

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".image-cache"
BASE = Path(__file__).with_name("base.def")


@pytest.fixture(scope="session")
def apptainer_there() -> None:
    """Skip where there is no Apptainer; have root start images as ordinary users do."""
    if shutil.which("apptainer") is None:
        pytest.skip("apptainer is not there: .ci/apptainer brings it")
    if os.geteuid() == 0:
        os.environ["APPTAINER_USERNS"] = "1"


@pytest.fixture(scope="session")
def reference_image(apptainer_there: None) -> Path:
    """The image of this hpckit's own recipe and lock."""
    return _built("reference", build.own_lock())


@pytest.fixture(scope="session")
def bare_image(apptainer_there: None) -> Path:
    """One with Python alone."""
    return _kept("base", [BASE], _build_base)


@pytest.fixture(scope="session")
def mpich_image(apptainer_there: None) -> Path:
    """The same on MPICH."""
    return _built("mpich", build.own_lock("mpich"))


@pytest.fixture(scope="session")
def compiling_image(apptainer_there: None) -> Path:
    """One with Python and a compiler."""

    def make(target: Path) -> None:
        _bootstrapped(target, "python3-venv python3-dev g++")

    return _kept("compiling", [BASE], make)


def _built(name: str, locked: Path) -> Path:
    base = _kept("base", [BASE], _build_base)

    def make(target: Path) -> None:
        build.build_image(build.own_recipe(), locked, target, str(base), print)

    # Its wheel has these, and tells what README and setup.cfg say.
    folders = ("hpckit", "jobs", "slurm_templates", "containers")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    own = [path for path in files if "__pycache__" not in path.parts]
    sources = sorted([*own, ROOT / "README.md", ROOT / "setup.cfg"])
    return _kept(name, [build.own_recipe(), locked, base, *sources], make)


def _build_base(target: Path) -> None:
    _bootstrapped(target, "python3-venv")


def _bootstrapped(target: Path, packages: str) -> None:
    arguments = [("mirror", build.mirror()), ("include", packages)]
    apptainer.build(BASE, target, arguments, target.with_suffix(".log"), print)


def _kept(name: str, parts: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """Return a file that is made of others, once as long as these stay as they are."""
    known = hashlib.sha256()
    for part in parts:
        known.update(part.name.encode())
        known.update(part.name.encode() if part.suffix == ".sif" else part.read_bytes())
    path = CACHE / f"{name}-{known.hexdigest()[:16]}.sif"
    with _turn():
        if not path.exists():
            for old in CACHE.glob(f"{name}-*"):
                old.unlink()
            made = path.with_suffix(".new")
            make(made)
            made.rename(path)
    return path


def _turn() -> IO[str]:
    """Keep the other test processes out until it is closed: builds share the source tree."""
    CACHE.mkdir(exist_ok=True)
    file = (CACHE / "lock").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file
