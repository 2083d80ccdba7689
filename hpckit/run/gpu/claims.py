"""Which card a task works on, and that no other task of this user's has it.

A claim is a lock on a file that is named by the card's UUID, in a folder of the node's own, and on
one of its place on the card: the kernel frees them with their process, however that ends. So
ranks, workers of whatever engine and runs beside each other never share a card by accident,
however they came to see it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hpckit.errors import LaunchError

PATIENCE, PAUSE = 10.0, 0.05
"""Seconds: a process that was killed may have its card for a while; how often one looks."""


def folder() -> Path:
    """Return where this user's claims on this node are; nobody else may look into it."""
    shared = Path("/dev/shm")
    base = shared if os.access(shared, os.W_OK) else Path("/tmp")
    path = base / f"hpckit-gpus-{os.getuid()}"
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise LaunchError(
            f"{path}: is no folder of yours, and cards are claimed there: whoever made it, or "
            "root, can remove it"
        )
    return path


def claim(uuids: Sequence[str], preferred: int, places: int) -> tuple[int, tuple[int, ...]]:
    """Take a card that is free.

    Parameters
    ----------
    uuids
        Of the cards that this process sees.
    preferred
        Where among them to begin: a rank's number on its node, say.
    places
        How many tasks may work on one card at a time.

    Returns
    -------
    int
        The card's number among those seen.
    tuple
        Descriptors whose closing ends the claim.

    Raises
    ------
    LaunchError
        None is free, nor was for some seconds.
    """
    at, end = folder(), time.monotonic() + PATIENCE
    while (found := _free(at, uuids, preferred, places)) is None:
        if time.monotonic() > end:
            raise LaunchError(_none_free(uuids))
        time.sleep(PAUSE)
    return found


def _free(
    at: Path, uuids: Sequence[str], preferred: int, places: int
) -> tuple[int, tuple[int, ...]] | None:
    # A card that nobody has comes before a second place on one.
    for place in range(places):
        for step in range(len(uuids)):
            ordinal = (preferred + step) % len(uuids)
            kind = fcntl.LOCK_EX if places == 1 else fcntl.LOCK_SH
            whole = _lock(at / uuids[ordinal], kind)
            if whole is None:
                continue
            mine = _lock(at / f"{uuids[ordinal]}.{place}", fcntl.LOCK_EX)
            if mine is not None:
                os.ftruncate(mine, 0)
                os.write(mine, str(os.getpid()).encode())
                return ordinal, (whole, mine)
            os.close(whole)
    return None


def _lock(path: Path, kind: int) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def holders(uuids: Sequence[str]) -> list[str]:
    """Return the ids of the processes of this user that have one of these cards."""
    found = []
    for path in sorted(folder().glob("GPU-*.*")):
        if path.name.rpartition(".")[0] not in uuids:
            continue
        if (free := _lock(path, fcntl.LOCK_EX)) is not None:
            os.close(free)
            continue
        with suppress(OSError):
            found.append(path.read_text())
    return found


def _none_free(uuids: Sequence[str]) -> str:
    seen = "the one card" if len(uuids) == 1 else f"each of the {len(uuids)} cards"
    return (
        f"no free GPU: {seen} that this process sees ({', '.join(uuids)}) is taken; they "
        f"are with the processes {', '.join(holders(uuids))}. Start no more ranks or workers a "
        "node than it has cards (--ranks, --workers), or say that several may work on each: "
        "ntasks_per_gpu in the job"
    )
