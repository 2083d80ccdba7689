"""What an Apptainer image tells without being started: whether it is whole, and its labels.

The Singularity Image Format: https://github.com/apptainer/sif.
"""

from __future__ import annotations

import json
import platform
import struct
from collections.abc import Iterator
from typing import IO, Any

HEAD = 128
"""Bytes: a launch script of 32, magic, version, architecture, id, and eight numbers."""

_MAGIC = b"SIF_MAGIC\0"
_LAYOUT = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?3I7q128s384s")
_JSON = 0x4006
"""The type of the object that has what `apptainer inspect` says."""

MOST_OBJECTS = 1024
MOST_BYTES = 1 << 24
"""Of an object that is read: more is no image's notes."""

ARCHITECTURES = {
    "01": "i386",
    "02": "x86_64",
    "03": "armv7l",
    "04": "aarch64",
    "05": "ppc64",
    "06": "ppc64le",
    "10": "s390x",
    "11": "riscv64",
}
"""What `uname -m` says, by the format's code."""


def obstacle(head: bytes, size: int) -> str | None:
    """Return why a file of some size cannot be started here as an image; None if it can.

    Parameters
    ----------
    head
        Its first `HEAD` bytes.
    size
        Bytes.
    """
    if len(head) < HEAD or head[32:42] != _MAGIC:
        return "is no Apptainer image (SIF): `hpckit image build` and `apptainer pull` make one"
    _, _, _, code, _, *numbers = _LAYOUT.unpack(head)
    end = numbers[6] + numbers[7]
    if size < end:
        return f"is cut short: {size} bytes of {end}; copy or build it again"
    architecture = ARCHITECTURES.get(code.rstrip(b"\0").decode("ascii", "replace"))
    if architecture != platform.machine():
        made_for = architecture or "an unknown machine"
        return f"is made for {made_for}, and this is {platform.machine()}: build it here"
    return None


def labels(file: IO[bytes]) -> dict[str, str]:
    """Return the labels of an image; none where it has none that can be read.

    Parameters
    ----------
    file
        The image, which `obstacle` finds nothing against.
    """
    try:
        for start, size in _objects(file, _JSON):
            file.seek(start)
            found: Any = json.loads(file.read(size))["data"]["attributes"]["labels"]
            return {str(name): str(found[name]) for name in sorted(found)}
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        pass
    return {}


def _objects(file: IO[bytes], wanted: int) -> Iterator[tuple[int, int]]:
    """Yield where the objects of a type begin, and how many bytes each has."""
    file.seek(0)
    *_, free, total, start, _, _, _ = _LAYOUT.unpack(file.read(HEAD))
    for number in range(min(total - free, MOST_OBJECTS)):
        file.seek(start + number * _DESCRIPTOR.size)
        kind, is_used, _, _, _, begin, size, *_ = _DESCRIPTOR.unpack(file.read(_DESCRIPTOR.size))
        if is_used and kind == wanted and size <= MOST_BYTES:
            yield begin, size
