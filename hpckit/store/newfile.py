"""New HDF5 files on a disk that may be full.

When a write fails, the HDF5 library keeps the data as dirty, cannot close the file any more
and may crash the process at its end. So it writes through a stream that takes note of the
first failure, lets the library go on as if nothing had happened, and reports it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from hpckit.store.layout import LIBVER


class Stream:
    """A file as h5py writes it: never raises, keeps the first failure in `error`."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._file = path.open("w+b", buffering=0)

    def write(self, data: Any) -> int:
        """Write all of `data`; after a failure, nothing."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.error is None and len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
        return size

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; h5py asks for it, HDF5 uses `readinto`."""
        return self._file.read(size) or b""

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`."""
        return self._file.readinto(buffer) or 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the offset."""
        return self._file.tell()

    def truncate(self, size: int) -> int:
        """Cut or extend the file."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        """Close the file; HDF5 must have closed it before."""
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error


class NewFile:
    """An HDF5 file that is being written."""

    def __init__(self, path: Path) -> None:
        self._stream = Stream(path)
        try:
            self.file = h5py.File(self._stream, "w", libver=LIBVER, track_order=True)
        except BaseException:
            self._stream.close()
            raise

    def check(self) -> None:
        """Raise the first failure, if there was one.

        Raises
        ------
        OSError
            As the system gave it.
        """
        if self._stream.error is not None:
            raise self._stream.error

    def close(self) -> None:
        """Close the file.

        Raises
        ------
        OSError
            Something could not be written.
        """
        try:
            self.file.close()
        finally:
            self._stream.close()
            self.check()


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file, closed in the end.

    Raises
    ------
    OSError
        Something could not be written.
    """
    new = NewFile(path)
    try:
        yield new.file
    finally:
        new.close()
