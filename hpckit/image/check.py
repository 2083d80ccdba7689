"""Whether an image will do on this machine, and what to change where it will not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hpckit.errors import UsageError
from hpckit.image import apptainer
from hpckit.image.fit import obstacle
from hpckit.image.info import Inside, family, look_inside
from hpckit.image.trial import require_slurm, try_here, try_on
from hpckit.render.container import require_sources
from hpckit.spec.site import Site
from hpckit.store.image import ImageRecord
from hpckit.store.manifest import FORMAT

TEST_SECONDS = 300.0


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "WARNING"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what to do about it."""

    level: Level
    text: str


def check(
    image: ImageRecord, launcher: str | None, site: Site | None, ranks: int, *, gpu: bool
) -> Iterator[Finding]:
    """Yield what is found, as soon as it is.

    Parameters
    ----------
    launcher
        The mpiexec outside, where there is one.
    site
        Whose scheduler is to start ranks, in place of this machine's mpiexec.
    ranks
        To start for a trial.
    gpu
        Whether the GPU's libraries are needed.

    Raises
    ------
    UsageError
        There is no Apptainer, or no Slurm where a site is to be asked.
    """
    if site is not None:
        require_slurm(site)
    inside = look_inside(image)
    if inside.starts:
        yield _own_test(image)
    yield _hpckit(inside)
    if inside.mpi is not None and site is not None:
        yield from _sites(image, inside, site, ranks)
    elif launcher is None:
        yield Finding(Level.WARNING, "there is no mpiexec out here: its MPI was not tried")
    elif inside.trouble is None:
        yield _families(inside, launcher)
        yield _tried(try_here(image, launcher, ranks), ranks)
        yield from _shared_memory()
    if gpu:
        yield _gpu(image)


def _own_test(image: ImageRecord) -> Finding:
    argv = [apptainer.find_apptainer(), "--quiet", "test", "--no-home", image.path]
    try:
        ended = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Finding(Level.FAILED, f"its test takes more than {TEST_SECONDS:g} s")
    if ended.returncode:
        last = apptainer.last_words(ended.stderr.strip() or ended.stdout)
        return Finding(Level.FAILED, f"its test ends with {ended.returncode}: {last}")
    return Finding(Level.OK, "its own test passes")


def _hpckit(inside: Inside) -> Finding:
    why = obstacle(inside)
    if why is not None:
        return Finding(Level.FAILED, why)
    return Finding(Level.OK, f"hpckit {inside.hpckit} on Python {inside.python}, format {FORMAT}")


def _families(inside: Inside, launcher: str) -> Finding:
    said = subprocess.run([launcher, "--version"], capture_output=True, text=True).stdout
    outside = said.strip().splitlines()[0] if said.strip() else launcher
    if inside.mpi is None:
        return Finding(
            Level.FAILED, "there is no MPI that mpi4py finds in it: install hpckit[mpi] in it"
        )
    ours, theirs = family(said), family(inside.mpi)
    if None not in (ours, theirs) and ours != theirs:
        return Finding(
            Level.FAILED,
            f"MPI inside is {inside.mpi}, the launcher outside is of {ours} ({outside}): they do "
            f"not start each other. Use an mpiexec of {theirs}, or an image with {ours}",
        )
    return Finding(Level.OK, f"MPI inside: {inside.mpi}; outside: {outside}")


def _tried(why: str | None, ranks: int) -> Finding:
    if why is None:
        return Finding(Level.OK, f"{ranks} ranks start, and find each other")
    return Finding(Level.FAILED, f"{ranks} ranks do not start: {why}")


def _sites(image: ImageRecord, inside: Inside, site: Site, ranks: int) -> Iterator[Finding]:
    """Say whether a site starts ranks in it."""
    try:
        require_sources(site.binds)
    except UsageError as error:
        yield Finding(Level.FAILED, str(error))
        return
    flavour = f" --mpi={site.mpi}" if site.launcher == "srun" and site.mpi else ""
    yield Finding(Level.OK, f"MPI inside: {inside.mpi}; {site.name} has {site.launcher}{flavour}")
    yield _tried(try_on(site, image, ranks), ranks)


def _shared_memory() -> Iterator[Finding]:
    """Tell of what user namespaces cost."""
    if not _is_setuid() and not os.environ.get("APPTAINER_SHARENS"):
        yield Finding(
            Level.WARNING,
            "each rank has a user namespace of its own, so that large messages are copied twice: "
            "APPTAINER_SHARENS=1, in the site's environment too, has the ranks of a node share one "
            "(Apptainer 1.3 or later); if messages fail, with UCX UCX_POSIX_USE_PROC_LINK=n, with "
            "Open MPI OMPI_MCA_smsc=^cma",
        )


def _is_setuid() -> bool:
    if os.environ.get("APPTAINER_USERNS"):
        return False
    starter = Path(apptainer.find_apptainer()).resolve().parent.parent
    found = starter.glob("lib*/**/apptainer/bin/starter-suid")
    return any(path.stat().st_mode & 0o4000 for path in found)


def _gpu(image: ImageRecord) -> Finding:
    argv = [apptainer.find_apptainer(), "--quiet", "exec", "--nv", image.path]
    probe = "import ctypes; ctypes.CDLL('libcuda.so.1')"
    ended = subprocess.run([*argv, "python3", "-c", probe], capture_output=True, text=True)
    if ended.returncode:
        return Finding(
            Level.FAILED,
            "libcuda.so.1 is not found inside with --nv: is there a GPU and its driver on this "
            f"machine ({sys.platform}), and is it this machine's node that has one?",
        )
    return Finding(Level.OK, "the GPU driver's library is found inside")
