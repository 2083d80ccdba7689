"""What is in an image: asked of its own Python."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass

from hpckit.image import apptainer
from hpckit.store.image import ImageRecord

ASK_SECONDS = 120.0

ASK = """
import json, shutil, subprocess, sys
found = {"python": sys.version.split()[0]}
try:
    from hpckit.store.manifest import FORMAT
    from hpckit.store.provenance import packages
    from hpckit import __version__
    found |= {"hpckit": __version__, "format": FORMAT, "packages": packages()}
except Exception as error:
    found["trouble"] = f"{type(error).__name__}: {error}"
try:
    import mpi4py
    mpi4py.rc.initialize = False
    from mpi4py import MPI
    found["mpi"] = MPI.Get_library_version().splitlines()[0].strip().rstrip(",")
except Exception as error:
    found["mpi"] = None
print(json.dumps(found))
"""

_ABSENT = "executable file not found"
"""What Apptainer says of an image that it started, and that lacks the program."""

_FAMILIES = {
    "Open MPI": re.compile(r"open ?mpi|open ?rte|prrte|prterun", re.IGNORECASE),
    "MPICH": re.compile(r"mpich|hydra|intel\(r\) mpi|mvapich", re.IGNORECASE),
}


@dataclass(frozen=True)
class Inside:
    """What an image holds.

    Attributes
    ----------
    python
        Its version; None if there is none on the PATH.
    hpckit, format
        The version, and that of the run directories that it reads and writes.
    mpi
        What its MPI library calls itself.
    packages
        Versions by name.
    trouble
        Why it does not answer, or its hpckit does not.
    starts
        Whether anything in it does, here.
    """

    python: str | None = None
    hpckit: str | None = None
    format: int | None = None
    mpi: str | None = None
    packages: dict[str, str] | None = None
    trouble: str | None = None
    starts: bool = True


def look_inside(image: ImageRecord) -> Inside:
    """Ask an image's Python what there is.

    Raises
    ------
    UsageError
        There is no Apptainer.
    """
    try:
        said = apptainer.run_inside(image.path, ["python3", "-c", ASK], ASK_SECONDS)
    except subprocess.TimeoutExpired:
        return Inside(trouble=f"no answer within {ASK_SECONDS:g} s", starts=False)
    try:
        return Inside(**json.loads(said.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        why = apptainer.last_words(said.stderr)
        return Inside(trouble=why, starts=_ABSENT in why)


def family(said: str | None) -> str | None:
    """Return which MPI a library or a launcher is of; those of one family start each other."""
    return next((name for name, words in _FAMILIES.items() if words.search(said or "")), None)
