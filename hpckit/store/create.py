"""A new run: its directory, the copy of its job file, and its first manifest."""

from __future__ import annotations

import csv
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpckit.spec.job import Job
from hpckit.spec.load import LoadedJob, load_file
from hpckit.spec.params import beside
from hpckit.spec.resources import Resources
from hpckit.spec.sweep import Sweep
from hpckit.store import manifest as manifests
from hpckit.store import provenance, rundir
from hpckit.store.atomic import explained
from hpckit.store.manifest import Driver, JobRecord, Manifest
from hpckit.store.rundir import RunDir


@dataclass(frozen=True)
class Run:
    """An existing run with all that is needed to work on it."""

    dir: RunDir
    manifest: Manifest
    job: Job
    sweep: Sweep


def create(
    loaded: LoadedJob,
    sweep: Sweep,
    *,
    root: Path,
    argv: list[str],
    seed: int | None = None,
    resources: Resources | None = None,
    parent: str | None = None,
) -> Run:
    """Make the run directory of a job and write its manifest.

    Parameters
    ----------
    root
        The folder of runs.
    argv
        The command line, for the manifest.
    seed, resources
        In place of the job's own.
    parent
        The id of the run that this one repeats.

    Raises
    ------
    UsageError
        No directory can be made there.
    StoreError
        It cannot be written to.
    """
    job = loaded.job
    directory = rundir.create(root, job.name)
    try:
        suffix = loaded.source.suffix
        with explained(directory.path):
            directory.job(suffix).write_bytes(loaded.text.encode())
            if sweep.table is not None:
                _copy_table(job, sweep.table, directory.table)
        manifest = Manifest(
            id=directory.id,
            parent=parent,
            argv=argv,
            directory=str(Path.cwd()),
            job=_record(loaded, sweep, seed, resources),
            driver=Driver.this_process(),
            created=manifests.now(),
            environment=provenance.environment(loaded.source),
        )
        manifest.write(directory.manifest)
    except BaseException:
        shutil.rmtree(directory.path, ignore_errors=True)
        raise
    return Run(directory, manifest, job, sweep)


def reopen(directory: RunDir) -> Run:
    """Load a run's job and sweep from its own copies.

    Raises
    ------
    UsageError
        The copy of the job does not load any more.
    StoreError
        The manifest does not read.
    """
    manifest = manifests.read(directory.manifest)
    source = Path(manifest.job.source)
    loaded = load_file(directory.job(source.suffix), source)
    sweep = stored_sweep(loaded.job, directory, manifest)
    return Run(directory, manifest, loaded.job, sweep)


def stored_sweep(job: Job, directory: RunDir, manifest: Manifest) -> Sweep:
    """Return the sweep that a manifest describes."""
    arguments = [f"{name}={text}" for name, text in manifest.job.assignments.items()]
    table = directory.table if manifest.job.table is not None else None
    return Sweep.from_args(job, arguments, table)


def _record(
    loaded: LoadedJob, sweep: Sweep, seed: int | None, resources: Resources | None
) -> JobRecord:
    job = loaded.job
    return JobRecord(
        name=job.name,
        kind=job.kind,
        source=str(loaded.source),
        sha256=loaded.sha256,
        seed=job.seed if seed is None else seed,
        resources=resources or job.resources,
        assignments=dict(sweep.assignments),
        table=None if sweep.table is None else str(sweep.table),
        table_sha256=None
        if sweep.table is None
        else hashlib.sha256(sweep.table.read_bytes()).hexdigest(),
        inputs=_inputs(job, sweep),
        tasks=len(sweep),
    )


def _inputs(job: Job, sweep: Sweep) -> dict[str, dict[str, Any]]:
    """Fingerprint each input file once, however many tasks read it."""
    names = [param.name for param in job.params if param.type is Path]
    paths = [sweep.constants[name] for name in names if name in sweep.constants]
    for axis in sweep.axes:
        for name in set(names) & axis.columns.keys():
            column = axis.columns[name]
            paths += [column[index] for index in range(len(column))]
    return {str(path): provenance.file_fingerprint(path) for path in dict.fromkeys(paths)}


def _copy_table(job: Job, table: Path, copy: Path) -> None:
    """Copy a table; relative paths in it start at its own folder, so they become absolute."""
    if not any(param.type is Path for param in job.params):
        shutil.copyfile(table, copy)
        return
    with table.open(encoding="utf-8-sig", newline="") as source:
        names, *rows = list(csv.reader(source))
    columns = [i for i, name in enumerate(names) if job.param(name.strip()).type is Path]
    for row in rows:
        for column in columns if row else ():
            row[column] = str(beside(table.parent, row[column].strip()))
    with copy.open("w", encoding="utf-8", newline="") as target:
        csv.writer(target).writerows([names, *rows])
