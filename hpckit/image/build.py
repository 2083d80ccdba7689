"""Builds an image of a recipe and a lock."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from hpckit import __version__
from hpckit.errors import UsageError
from hpckit.image import apptainer, lock
from hpckit.store.image import ImageRecord

LOCK = "lock.txt"
"""What a recipe finds the lock as, among the wheels."""

RECIPES = {"openmpi": "Singularity.def", "mpich": "Singularity.def", "cuda": "cuda.def"}
"""Of the variants of the reference image; of one, there is a lock of its name."""

FURTHER = {
    "openmpi": ("openmpi",),
    "mpich": ("mpich",),
    # With nvcc, and what PyCUDA and its kernels are built with.
    "cuda": (
        *("openmpi", "pycuda", "nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm"),
        *("nvidia-cuda-runtime", "nvidia-cuda-cccl", "nvidia-cuda-profiler-api"),
        *("nvidia-curand>=10", "setuptools", "wheel"),
    ),
}
"""What they have beside hpckit's own requirements."""

DEFAULT = "openmpi"
"""The variant that is meant unless told."""

DEBOOTSTRAP = "debootstrap"
RELEASE = "bookworm"
"""Of Debian, whose Python is that of the lock."""


def own_recipe(variant: str = DEFAULT) -> Path:
    """Return the reference image's recipe, that of the source tree or the one that is installed."""
    return Path(str(files("hpckit.containers") / RECIPES[variant]))


def own_lock(variant: str = DEFAULT) -> Path:
    """Return the reference image's lock."""
    return Path(str(files("hpckit.containers") / f"{variant}.txt"))


def source_tree() -> Path | None:
    """Return the folder that hpckit is built from; None if it is not there."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "setup.cfg").is_file() else None


def build_image(
    recipe: Path,
    locked: Path,
    target: Path,
    base: str | None,
    report: Callable[[str], None],
) -> ImageRecord:
    """Build an image; return what is known of it.

    Parameters
    ----------
    base
        An image, a reference in a registry, or `DEBOOTSTRAP`; None leaves it to the recipe.

    Raises
    ------
    UsageError
        A file is missing, or Apptainer is.
    HpckitError
        A wheel is not to be had, or the image does not build.
    """
    apptainer.find_apptainer()
    for path in (recipe, locked):
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file")
    require_writable(target)
    with tempfile.TemporaryDirectory(prefix="hpckit-image-") as folder:
        wheels = Path(folder) / "wheels"
        (wheels / "own").mkdir(parents=True)
        report(f"fetching the wheels of {locked.name}")
        lock.fetch(locked, wheels)
        shutil.copy(locked, wheels / LOCK)
        _own(wheels / "own")
        arguments = {"wheels": str(wheels), "version": __version__, **_base(base)}
        log = target.with_name(f"{target.name}.log")
        apptainer.build(recipe, target, arguments.items(), log, report)
        log.unlink()
    return ImageRecord.of(target)


def _own(folder: Path) -> None:
    source = source_tree()
    if source is None:
        raise UsageError(
            "hpckit's own wheel is built from its source tree, and this one is installed without: "
            "work from a clone"
        )
    lock.own_wheel(source, folder)


def _base(base: str | None) -> dict[str, str]:
    """Return the build arguments that choose a base."""
    if base is None:
        return {}
    if base == DEBOOTSTRAP:
        return {"bootstrap": DEBOOTSTRAP, "base": RELEASE, "mirror": mirror()}
    if Path(base).is_file():
        return {"bootstrap": "localimage", "base": str(Path(base).absolute())}
    if "/" not in base and ":" not in base:
        raise UsageError(
            f"--base {base}: is no file, no reference in a registry (NAME:TAG), and not "
            f"{DEBOOTSTRAP}"
        )
    return {"bootstrap": "docker", "base": base}


def mirror() -> str:
    """Return the mirror of Debian that this machine uses.

    Raises
    ------
    UsageError
        It uses none.
    """
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    try:
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        return next(uri for uri in said if "security" not in uri)
    except (OSError, subprocess.CalledProcessError, StopIteration):
        raise UsageError(
            f"--base {DEBOOTSTRAP}: needs a Debian or Ubuntu, whose mirror it takes"
        ) from None


def require_writable(target: Path) -> None:
    """See that a file can be made, before work is done for it.

    Raises
    ------
    UsageError
        It cannot.
    """
    if target.is_dir():
        raise UsageError(f"{target}: is a folder: give the name of a file")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{target}: there is no folder {folder}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
