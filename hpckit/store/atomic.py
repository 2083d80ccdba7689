"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpckit.errors import StoreError


def sync(path: Path) -> None:
    """Make a file's content, or the renames in a directory, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and takes its place.

    A reader sees the old file or the new one, never half of it, and a failure leaves the
    old one as it was.

    Raises
    ------
    StoreError
        The file cannot be written; the message says why.
    """
    with explained(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Replace the content of `path` atomically and durably."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write `path` into a StoreError with the remedy."""
    try:
        yield
    except OSError as error:
        raise StoreError(_explain(path, error)) from error
    except RuntimeError as error:
        # HDF5 reports some failed writes as a RuntimeError, with the reason in its text alone.
        if "No space left" not in str(error):
            raise
        raise StoreError(_explain(path, OSError(errno.ENOSPC, "no space left"))) from error


def remove_leftovers(path: Path) -> None:
    """Remove what `replacing` left beside `path` when its process was killed.

    Only for those who know that no one else writes `path` now.
    """
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def free_bytes(directory: Path) -> int:
    """Return what an ordinary user may still write to a directory's file system."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return 0


def _explain(path: Path, error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    if full:
        return (
            f"{path}: no space left ({free_bytes(path.parent) / 2**20:.1f} MiB free): "
            "make room and resume the run; what was sealed before is intact"
        )
    return f"{path}: cannot be written: {error.strerror or error}"
