"""What a run stood on: code, packages and machine, as the manifest keeps them."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpckit.store.image import inside

KEPT_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONHASHSEED",
    "MPI4PY_MPIABI",
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_NODELIST",
    "SLURM_CLUSTER_NAME",
)
"""The environment variables that decide results or name the place, and hold no secrets."""

_CREDENTIALS = re.compile(r"://\S*@")

DIFF_LIMIT = 1 << 20
"""Bytes of an uncommitted difference that the manifest keeps."""


def environment(job_source: Path) -> dict[str, Any]:
    """Describe the code, the packages and the machine of this process.

    Parameters
    ----------
    job_source
        The job file; its git repository is described.
    """
    return {**software(), **machine(), "git": git_state(job_source.parent)}


def software() -> dict[str, Any]:
    """Describe the Python environment of this process."""
    from hpckit import __version__

    return {
        "hpckit": __version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "packages": packages(),
    }


def software_inside() -> dict[str, Any]:
    """Return the same of a process in an image, which is not that of who made the run."""
    return software() if inside() is not None else {}


def without_passwords(argv: Sequence[str]) -> list[str]:
    """Return a command line whose URLs have lost what stands before their host."""
    return [_CREDENTIALS.sub("://***@", word) for word in argv]


def machine() -> dict[str, Any]:
    """Describe the machine that this process runs on."""
    return {
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory": _total_memory(),
        "variables": {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
    }


def packages() -> dict[str, str]:
    """Return the version of each installed distribution, by its normalised name."""
    from importlib.metadata import distributions

    found = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:
            found[name.lower().replace("_", "-")] = distribution.version
    return dict(sorted(found.items()))


def usable_cores() -> int:
    """Return how many cores this process may run on (its affinity, not the machine's count)."""
    return len(os.sched_getaffinity(0))


def cpu_model() -> str:
    """Return the processor's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_state(directory: Path) -> dict[str, Any] | None:
    """Return commit and uncommitted difference of the repository around a folder.

    None where there is no repository or no git. A difference above `DIFF_LIMIT` bytes is
    kept as its sha256 alone.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _git(directory, "diff", "HEAD", "--no-ext-diff") or b""
    state: dict[str, Any] = {"commit": commit.decode().strip(), "dirty": bool(diff.strip())}
    if state["dirty"]:
        state["diff_sha256"] = hashlib.sha256(diff).hexdigest()
        if len(diff) <= DIFF_LIMIT:
            state["diff"] = diff.decode(errors="replace")
    return state


def sibling_modules(job_source: Path) -> dict[str, str]:
    """Return the sha256 of each module that the job file has imported from its own folder.

    By path within the folder. Only what is imported when the job loads is known.
    """
    folder = job_source.parent
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or name.partition(".")[0] == "hpckit":
            continue
        path = Path(file)
        own = path.is_relative_to(folder) and path != job_source
        if own and not _is_installed(path) and path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = digest
    return dict(sorted(found.items()))


def _is_installed(path: Path) -> bool:
    """Tell whether a module is Python's or of a package that the environment's list holds."""
    places = (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values())
    return "site-packages" in path.parts or any(path.is_relative_to(place) for place in places)


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Return size in bytes and sha256 of an input file; a folder has only its path."""
    if path.is_dir():
        return {"folder": True}
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _git(directory: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            timeout=20,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
