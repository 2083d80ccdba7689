"""The launch line of a program in an Apptainer image, and what it sees of the host."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpckit.errors import UsageError
from hpckit.store.create import Run
from hpckit.store.image import ImageRecord
from hpckit.variables import IMAGE

KEPT = (
    # Where the launcher finds itself; Apptainer has its own of both inside.
    "PATH",
    "LD_LIBRARY_PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_*",
    "TERM",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "HPCKIT_*",
    "APPTAINER*",
    "SINGULARITY*",
    # The scheduler, and the libraries that start ranks and carry their messages.
    "SLURM*",
    "SBATCH_*",
    "PMI_*",
    "PMI2_*",
    "PMIX_*",
    "PRTE_*",
    "OMPI_*",
    "OPAL_*",
    "MPI4PY_*",
    "MPICH_*",
    "MPIR_*",
    "HYDRA_*",
    "I_MPI_*",
    "MV2_*",
    "UCX_*",
    "FI_*",
    # Threads and devices.
    "OMP_*",
    "GOMP_*",
    "KMP_*",
    "MKL_*",
    "OPENBLAS_*",
    "BLIS_*",
    "NUMEXPR_*",
    "NUMBA_*",
    "VECLIB_*",
    "CUDA_*",
    "NVIDIA_*",
    "ROCR_*",
    "HIP_*",
    "GPU_DEVICE_ORDINAL",
    "PYTHONUNBUFFERED",
    "PYTHONHASHSEED",
)
"""Patterns of the environment variables that go into an image; no other does."""

PROGRAM = "hpckit"
"""hpckit's command, as an image has it on its PATH."""

WITH_PMIX = 'exec apptainer --quiet exec ${PMIX_SERVER_TMPDIR:+--bind "$PMIX_SERVER_TMPDIR"} "$@"'
"""A shell's line: only a rank knows where its PMIx server listens, and it must be seen inside."""


@dataclass(frozen=True)
class Container:
    """An image, and what its programs get of the host.

    Attributes
    ----------
    folders
        That they see, beside what the site always binds.
    binds
        Further ones, as ``apptainer --bind`` has it.
    gpu
        Whether they get the driver's libraries.
    """

    image: ImageRecord
    folders: tuple[Path, ...] = ()
    binds: tuple[str, ...] = ()
    gpu: bool = False

    def argv(self, program: Sequence[str]) -> list[str]:
        """Return the line that runs a program in it."""
        options = ["--no-home", "--env", "PYTHONNOUSERSITE=1"]
        if self.gpu:
            options.append("--nv")
        for folder in outermost(self.folders):
            options += _bound(folder)
        for bind in self.binds:
            options += ["--bind", bind]
        return ["sh", "-c", WITH_PMIX, "apptainer", *options, self.image.path, *program]


def container_of(
    run: Run, image: ImageRecord, folders: Iterable[Path] = (), further: Iterable[str] = ()
) -> Container:
    """Return the container of a run that is there.

    Parameters
    ----------
    folders
        That it is to see too.
    further
        Binds as Apptainer reads them.
    """
    record = run.manifest.job
    files = [Path(record.source), *map(Path, record.inputs)]
    seen = folders_of(files, [run.dir.path.parent, *folders])
    return Container(image, seen, tuple(further), run.job.resources.uses_gpus)


def folders_of(files: Iterable[Path], folders: Iterable[Path]) -> tuple[Path, ...]:
    """Return the folders of some files, and others that are to be seen.

    A run that began in an image may have its job from there; that is no folder out here.
    """
    beside = [file.parent for file in files if file.parent.is_dir()]
    return tuple(path.absolute() for path in [*beside, *map(_there, folders)])


def _there(folder: Path) -> Path:
    """Return a folder, or the one above it in which it is still to be made."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def require_sources(binds: Iterable[str]) -> None:
    """See that what a site binds is there.

    Parameters
    ----------
    binds
        As ``apptainer --bind`` has it: ``source[:destination[:options]]``, or more by commas.

    Raises
    ------
    UsageError
        A source is not.
    """
    for bind in binds:
        for part in bind.split(","):
            source = part.partition(":")[0]
            if not Path(source).exists():
                raise UsageError(
                    f"binds: {source} is not there; what only the nodes have is bound by "
                    "APPTAINER_BIND in the site's environment"
                )


def outermost(folders: Iterable[Path]) -> list[Path]:
    """Return folders without those that lie within others, and without the root of all."""
    found: list[Path] = []
    for folder in sorted(set(folders) - {Path("/")}):
        if not any(folder.is_relative_to(outer) for outer in found):
            found.append(folder)
    return found


def _bound(folder: Path) -> list[str]:
    text = str(folder)
    if not set(text) & set(':,"'):
        return ["--bind", text]
    # --bind would split it; the fields of --mount are those of a CSV file.
    quoted = text.replace('"', '""')
    return ["--mount", f'type=bind,"source={quoted}","destination={quoted}"']


def hpckit_argv(container: Container | None, arguments: Sequence[str]) -> list[str]:
    """Return the line that runs hpckit: this one, or the image's own."""
    if container is None:
        return [sys.executable, "-m", "hpckit", *arguments]
    return container.argv([PROGRAM, *arguments])


def exports(container: Container | None) -> dict[str, str]:
    """Return the variables that tell programs which image they are in."""
    return {} if container is None else {IMAGE: container.image.token}


def kept_patterns(container: Container | None, own: Iterable[str]) -> tuple[str, ...]:
    """Return which variables go into an image, `own` among them; none are named outside of any."""
    return () if container is None else (*KEPT, *own)


def kept_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment goes into an image."""
    return {
        name: value
        for name, value in environ.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in KEPT)
    }
