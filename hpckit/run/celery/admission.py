"""Which calls a worker takes: to load a job is to execute it."""

from __future__ import annotations

import os
from pathlib import Path

from hpckit.errors import HpckitError, LaunchError
from hpckit.run.celery.wire import Call
from hpckit.run.gpu.wish import Wish
from hpckit.store import manifest as manifests
from hpckit.store.rundir import RunDir


def check_call(call: Call) -> None:
    """Refuse a call whose run is not one of this user's, as its own manifest has it.

    Whoever has the broker's password could otherwise name any file to be executed. As it is,
    they can have the jobs of runs done that are there already.

    Raises
    ------
    LaunchError
        The run, or the working directory of its tasks, is not there, or not this user's.
    """
    spec = call.spec
    run = RunDir(spec.run)
    for path in (run.path, run.manifest, run.job(spec.source.suffix)):
        _check_owner(path)
    try:
        job = manifests.read(run.manifest).job
    except HpckitError as error:
        raise LaunchError(str(error)) from None
    recorded = (
        run.job(Path(job.source).suffix).name,
        Path(job.source),
        tuple(job.assignments.items()),
        job.table is not None,
        job.seed,
        Wish.of(job.resources, Path(job.source), run),
    )
    asked = (*(spec.job_file, spec.source, spec.assignments), spec.has_table, spec.seed, spec.wish)
    if asked != recorded:
        raise LaunchError(f"{run.path}: its manifest says otherwise than the call from the broker")
    if not Path(call.directory).is_dir():
        raise LaunchError(
            f"{call.directory}: the working directory is not there: workers must see the same "
            "file system as the driver"
        )


def _check_owner(path: Path) -> None:
    try:
        owner = path.lstat().st_uid
    except OSError as error:
        raise LaunchError(
            f"{path}: {error.strerror}: workers must see the same file system as the driver"
        ) from None
    if not path.is_absolute() or owner != os.getuid():
        raise LaunchError(
            f"{path}: belongs to user {owner}, and this worker to user {os.getuid()}: a worker "
            "works on its own user's runs alone"
        )
