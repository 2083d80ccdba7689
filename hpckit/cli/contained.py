"""Work in an image: which one, and the way into it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpckit.cli.options import F
from hpckit.errors import UsageError

if TYPE_CHECKING:
    from hpckit.render.container import Container
    from hpckit.spec.load import LoadedJob
    from hpckit.spec.site import Site
    from hpckit.spec.sweep import Sweep
    from hpckit.store.create import Run
    from hpckit.store.image import ImageRecord

NONE = "none"


def image_option(function: F) -> F:
    """Add --image."""
    return click.option(
        "--image",
        metavar="FILE",
        help=f"The Apptainer image to work in, in place of the job's; {NONE} for none.",
    )(function)


def chosen_image(
    given: str | None, loaded: LoadedJob, site: Site | None = None
) -> ImageRecord | None:
    """Return the image of a new run: the command line's, the job's, or the site's.

    In an image it is that one.

    Raises
    ------
    UsageError
        It cannot be read.
    """
    from hpckit.store.image import inside

    if (here := inside()) is not None:
        return here
    if given is not None:
        return None if given == NONE else _seen(Path(given))
    if loaded.job.image is not None:
        return _seen(loaded.source.parent / Path(loaded.job.image).expanduser())
    if site is not None and site.image is not None:
        return _seen(site.image)
    return None


def same_image(given: str | None, run: Run) -> ImageRecord | None:
    """Return the image that a run goes on in: the one that it began in, unless told.

    Raises
    ------
    UsageError
        It is not there any more, or another one by now.
    """
    from hpckit.store.image import inside

    if (here := inside()) is not None:
        return here
    if given is not None:
        return None if given == NONE else _seen(Path(given))
    before = run.manifest.image
    if before is None:
        return None
    now = _seen(Path(before.path))
    if now.sha256 != before.sha256:
        raise UsageError(
            f"{run.dir.id}: the image {now.path} is another one than it was (sha256 "
            f"{now.sha256[:12]}…, then {before.sha256[:12]}…): bring that back, or take this one "
            f"all the same: --image {now.path}"
        )
    return now


def with_image(run: Run, image: ImageRecord | None) -> Run:
    """Return a run that goes on in an image."""
    return replace(run, manifest=run.manifest.updated(image=image))


def enter_for(loaded: LoadedJob, sweep: Sweep, image: ImageRecord | None, root: Path) -> None:
    """Go on with the command of a new farm in an image, where there is one; then never return.

    Raises
    ------
    UsageError
        There is no Apptainer.
    """
    container = container_for(loaded, sweep, image, root)
    if container is not None and loaded.job.kind == "farm":
        _enter(container)


def container_for(
    loaded: LoadedJob,
    sweep: Sweep,
    image: ImageRecord | None,
    root: Path,
    further: Iterable[str] = (),
) -> Container | None:
    """Return the container of a run that is not there yet, where it has an image.

    Parameters
    ----------
    further
        Binds as Apptainer reads them.
    """
    from hpckit.render.container import Container, folders_of
    from hpckit.store.create import input_files

    if image is None:
        return None
    files = [loaded.source, *input_files(loaded.job, sweep)]
    if sweep.table is not None:
        files.append(sweep.table)
    seen = folders_of(files, [root, Path.cwd()])
    return Container(image, seen, tuple(further), loaded.job.resources.uses_gpus)


def enter_again(run: Run, image: ImageRecord | None, folders: Iterable[Path] = ()) -> None:
    """Go on with the command about a farm in an image, where there is one; then never return.

    Raises
    ------
    UsageError
        There is no Apptainer.
    """
    from hpckit.render.container import container_of

    if image is not None and run.job.kind == "farm":
        _enter(container_of(run, image, [*folders, Path.cwd()]))


def _seen(path: Path) -> ImageRecord:
    """Look at an image, and at what would start it here.

    Raises
    ------
    UsageError
        It cannot be started here, or has no hpckit that works with this one.
    """
    from hpckit.image.apptainer import version
    from hpckit.image.fit import require_hpckit
    from hpckit.store.image import ImageRecord

    there = shutil.which("apptainer") is not None
    found = ImageRecord.of(path)
    require_hpckit(found)
    return found.model_copy(update={"apptainer": version()}) if there else found


def _enter(container: Container) -> None:
    from hpckit.image.apptainer import find_apptainer
    from hpckit.render.container import PROGRAM, kept_variables
    from hpckit.store.image import to_enter
    from hpckit.variables import IMAGE

    if to_enter(container.image) is None:
        return
    find_apptainer()
    argv = container.argv([PROGRAM, *sys.argv[1:]])
    sys.stdout.flush()
    os.execvpe(argv[0], argv, {**kept_variables(os.environ), IMAGE: container.image.token})
