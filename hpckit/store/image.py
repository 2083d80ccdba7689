"""The image that a run works in, as the manifest keeps it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from hpckit import __version__
from hpckit.errors import UsageError
from hpckit.store.sif import HEAD, labels, obstacle
from hpckit.variables import IMAGE

LABELS = Path("/.singularity.d/labels.json")
"""Where a program in an image finds what is written on it."""


class ImageRecord(BaseModel):
    """An Apptainer image.

    Attributes
    ----------
    path
        Absolute, as it is on the machines that start it.
    sha256
        Hex digest of the file.
    size
        Bytes.
    apptainer
        The version that started it; None where that was for another machine to do.
    labels
        What is written on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    size: int
    apptainer: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at an image's file.

        Raises
        ------
        UsageError
            It is not there, or cannot be started here.
        """
        path = path.expanduser().absolute()
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                why = obstacle(file.read(HEAD), size)
                file.seek(0)
                digest = hashlib.sha256() if why else hashlib.file_digest(file, "sha256")
                written = {} if why else labels(file)
        except OSError as error:
            raise UsageError(f"image {path}: cannot be read: {error.strerror}") from None
        if why is not None:
            raise UsageError(f"image {path}: {why}")
        return cls(path=str(path), sha256=digest.hexdigest(), size=size, labels=written)

    @property
    def token(self) -> str:
        """What tells a process inside of the image which one it is in; the labels are there."""
        return self.model_dump_json(exclude={"labels"})


def inside() -> ImageRecord | None:
    """Return the image that this process works in; None outside of any.

    Raises
    ------
    UsageError
        Who started it has another version of hpckit.
    """
    token = os.environ.get(IMAGE)
    if not token or not _is_contained():
        return None
    try:
        record = ImageRecord.model_validate_json(token)
    except ValueError:
        raise UsageError(
            f"${IMAGE} is not what this hpckit, {__version__}, writes: that in the image and the "
            "one that starts it are of different versions: build the image again"
        ) from None
    return record.model_copy(update={"labels": _labels_here()})


def _labels_here() -> dict[str, str]:
    try:
        return dict(sorted(json.loads(LABELS.read_bytes()).items()))
    except (OSError, ValueError, AttributeError):
        return {}


def to_enter(image: ImageRecord | None) -> ImageRecord | None:
    """Return an image that programs are still to be started in: none, once in there."""
    return image if inside() is None else None


def _is_contained() -> bool:
    """Tell whether this is in a container at all: scripts set the variable outside of it too."""
    return "APPTAINER_CONTAINER" in os.environ or "SINGULARITY_CONTAINER" in os.environ
