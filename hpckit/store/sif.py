"""The head of an Apptainer image, which tells whether the file is one, and whole.

The Singularity Image Format: https://github.com/apptainer/sif.
"""

from __future__ import annotations

import platform
import struct

HEAD = 128
"""Bytes: a launch script of 32, magic, version, architecture, id, and eight numbers."""

_MAGIC = b"SIF_MAGIC\0"
_LAYOUT = struct.Struct("<32s10s3s3s16s8q")

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
