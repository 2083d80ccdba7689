"""HDF5 files that may be damaged: whatever goes wrong with one is told as a `StoreError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from hpckit.errors import HpckitError, StoreError


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Yield a file that is open for reading, within `damage_explained`.

    Raises
    ------
    StoreError
        It is not there, or does not read back.
    """
    with damage_explained(path), h5py.File(path, "r") as file:
        yield file


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Take any error for damage of a file, so let nothing but its reading stand inside.

    Raises
    ------
    StoreError
        In place of what h5py and NumPy raise over damage, which may be anything.
    """
    try:
        yield
    except HpckitError:
        raise
    except Exception as error:
        told = "".join(c if c.isprintable() else " " for c in str(error)) or type(error).__name__
        raise StoreError(
            f"{path}: does not read back ({told}): put a copy of it there, or move it away and "
            "resume the run"
        ) from error
