"""Whether the hpckit in an image and this one work together."""

from __future__ import annotations

import os
import shutil

from hpckit.errors import UsageError
from hpckit.image.info import Inside, look_inside
from hpckit.store.image import ImageRecord
from hpckit.store.manifest import FORMAT

FORMAT_LABEL = "org.hpckit.format"
"""Says of which format the run directories are that the image's hpckit reads and writes."""


def obstacle(inside: Inside) -> str | None:
    """Return why runs cannot be worked in an image, and what to do; None if they can."""
    if not inside.starts:
        return f"Apptainer does not start it here ({inside.trouble}): {_remedy()}"
    if inside.python is None:
        return "there is no python3 in it: hpckit must be installed in the image"
    if inside.trouble is not None:
        why = f"hpckit does not import in it ({inside.trouble})"
        return f"{why}: install hpckit in it, as Singularity.def does"
    return _foreign(str(inside.format))


def require_hpckit(image: ImageRecord) -> None:
    """See that runs can be worked in an image, as far as this machine can tell.

    Its label says so; one without is asked, where there is Apptainer.

    Raises
    ------
    UsageError
        They cannot.
    """
    label = image.labels.get(FORMAT_LABEL)
    why = None if label is None else _foreign(label)
    if label is None and shutil.which("apptainer") is not None:
        inside = look_inside(image)
        # Where it is queued for, it may start.
        why = obstacle(inside) if inside.starts else None
    if why is not None:
        raise UsageError(f"image {image.path}: {why}")


def _remedy() -> str:
    if os.geteuid() == 0:
        return "root in a container or with fewer rights than usual needs APPTAINER_USERNS=1"
    return (
        "where it is not installed with setuid it needs user namespaces, `sysctl "
        "user.max_user_namespaces kernel.unprivileged_userns_clone`: ask the site's support"
    )


def _foreign(format: str) -> str | None:
    if format == str(FORMAT):
        return None
    return (
        f"its hpckit has run directories of format {format}, this one of {FORMAT}: build it again "
        "with this hpckit"
    )
