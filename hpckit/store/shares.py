"""Which tasks each element of an array works off, and what elements told at their ends."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.store.atomic import explained, replacing
from hpckit.store.reading import damage_explained
from hpckit.store.rundir import RunDir


@dataclass(frozen=True)
class Pending:
    """The tasks that a submission is to do, and how often each was tried before."""

    indices: NDArray[np.int64]
    tried: NDArray[np.int32]

    def write(self, path: Path) -> None:
        """Keep them where the elements find them.

        Raises
        ------
        StoreError
            The file cannot be written.
        """
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, indices=self.indices, tried=self.tried)

    @classmethod
    def read(cls, path: Path) -> Pending:
        """Read them back.

        Raises
        ------
        StoreError
            The file is not there, or damaged.
        """
        with damage_explained(path), np.load(path, allow_pickle=False) as file:
            return cls(file["indices"], file["tried"])


RUNS = 16
"""How many runs of neighbours an element gets at least, where neighbours stay together."""


def share(
    indices: Sequence[int] | NDArray[np.int64],
    element: int,
    elements: int,
    *,
    together: bool = False,
) -> NDArray[np.int64]:
    """Return the tasks of one element: every `elements`-th, so that all get dear and cheap ones.

    Parameters
    ----------
    together
        Give each runs of neighbours, whose results are merged.
    """
    if not together:
        return np.asarray(indices[element::elements], np.int64)
    length = 1 << max(len(indices) // (RUNS * elements), 1).bit_length() - 1
    starts = range(element * length, len(indices), elements * length)
    runs = [np.asarray(indices[start : start + length], np.int64) for start in starts]
    return np.concatenate([np.zeros(0, np.int64), *runs])


def writer_name(session: int, element: int) -> str:
    """Return the beginning of the names of an element's segments."""
    return f"w{session}e{element:06d}x"


@dataclass(frozen=True)
class ElementEnd:
    """What an element tells when its program ends.

    Attributes
    ----------
    job
        The scheduler's id.
    host, cpu
        The node, and the model of its processor.
    done
        Whether all of its share is sealed.
    failed
        Its tasks that failed.
    begun, seconds
        Since the epoch, and how long it worked.
    cpu_seconds, peak_bytes
        What its processes used, and the most memory that one of them held.
    software
        What it stands on, where that is an image's.
    """

    session: int
    element: int
    job: str
    host: str
    cpu: str
    done: bool
    failed: int
    begun: float
    seconds: float
    cpu_seconds: float
    peak_bytes: float
    software: dict[str, Any] = field(default_factory=dict)


def tell_end(run: RunDir, end: ElementEnd) -> list[ElementEnd]:
    """Add an element's end to those of the others, and return all that are known.

    Raises
    ------
    StoreError
        The file cannot be written.
    """
    with explained(run.elements):
        descriptor = os.open(run.elements, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            with suppress(OSError):  # Without locks a line may be lost; the next look mends it.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, (json.dumps(asdict(end)) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return element_ends(run)


def element_ends(run: RunDir) -> list[ElementEnd]:
    """Return what elements told, the latest last; a line that does not read is left out."""
    ends = []
    with suppress(OSError):
        for line in run.elements.read_text(errors="replace").splitlines():
            with suppress(ValueError, TypeError):
                ends.append(ElementEnd(**json.loads(line)))
    return ends
