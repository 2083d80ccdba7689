"""A new run: its directory, the copy of its job file, and its first manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from hpckit.errors import UsageError
from hpckit.spec.job import Job
from hpckit.spec.load import LoadedJob, load_file
from hpckit.spec.params import beside
from hpckit.spec.rules import TaskRules
from hpckit.spec.sweep import Sweep
from hpckit.store import manifest as manifests
from hpckit.store import provenance, rundir
from hpckit.store.atomic import write_bytes
from hpckit.store.image import ImageRecord, inside
from hpckit.store.manifest import Driver, JobRecord, Manifest
from hpckit.store.merging import Merge
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
    rules: TaskRules | None = None,
    image: ImageRecord | None = None,
) -> Run:
    """Make the run directory of a job and write its manifest.

    Parameters
    ----------
    root
        The folder of runs.
    argv
        The command line, for the manifest.
    seed
        In place of the job's own.
    rules
        In place of the job's own.
    image
        That its programs work in.

    Raises
    ------
    UsageError
        No directory can be made there.
    StoreError
        It cannot be written to.
    """
    record = _record(loaded, sweep, seed, rules or loaded.job.rules)
    return _made(root, loaded, sweep, record, argv, image)


def repeat(first: Run, *, root: Path, argv: list[str], image: ImageRecord | None = None) -> Run:
    """Make the run directory of a run's repetition: the same copies and seed.

    Raises
    ------
    UsageError, StoreError
        As `create`.
    """
    loaded = _loaded(first.dir, first.manifest)
    before = first.manifest.job
    loaded = replace(loaded, job=loaded.job.on(before.resources))
    record = _record(loaded, first.sweep, before.seed, before.rules)
    record = record.model_copy(update={"table": before.table})
    return _made(root, loaded, first.sweep, record, argv, image, first.manifest.id)


def _made(
    root: Path,
    loaded: LoadedJob,
    sweep: Sweep,
    record: JobRecord,
    argv: list[str],
    image: ImageRecord | None,
    parent: str | None = None,
) -> Run:
    directory = rundir.create(root, loaded.job.name)
    try:
        write_bytes(directory.job(loaded.source.suffix), loaded.text.encode())
        if sweep.table is not None:
            write_bytes(directory.table, _table_copy(loaded.job, sweep.table))
            record = record.model_copy(update={"table_sha256": _sha256(directory.table)})
        manifest = Manifest(
            id=directory.id,
            parent=parent,
            argv=provenance.without_passwords(argv),
            directory=str(Path.cwd()),
            job=record,
            image=image or inside(),
            driver=Driver.this_process(),
            created=manifests.now(),
            environment=provenance.environment(loaded.source),
        )
        manifest.write(directory.manifest)
    except BaseException:
        shutil.rmtree(directory.path, ignore_errors=True)
        raise
    return Run(directory, manifest, loaded.job, sweep)


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
    job = _loaded(directory, manifest).job.on(manifest.job.resources)
    return Run(directory, manifest, job, stored_sweep(job, directory, manifest))


def _loaded(directory: RunDir, manifest: Manifest) -> LoadedJob:
    source = Path(manifest.job.source)
    return load_file(directory.job(source.suffix), source)


def changed_since(run: Run) -> list[str]:
    """Return which files of a run are not what they were when it was made, a sentence each.

    They are the copy of the job file, what it imports from its folder, and the input files.
    """
    record = run.manifest.job
    copy = run.dir.job(Path(record.source).suffix)
    changes = []
    if record.table_sha256 not in (None, _sha256(run.dir.table)):
        changes.append(f"{run.dir.table}, the run's copy of the table, was changed")
    if _sha256(copy) != record.sha256:
        changes.append(f"{copy}, the run's copy of the job, was changed")
    folder = Path(record.source).parent
    for name, sha256 in provenance.sibling_modules(Path(record.source)).items():
        if record.modules.get(name, sha256) != sha256:
            changes.append(f"{folder / name}, which the job imports, was changed")
    for name, before in record.inputs.items():
        if provenance.file_fingerprint(Path(name)) != before:
            changes.append(f"{name}, an input, was changed")
    return changes


def require_unchanged(run: Run) -> None:
    """See that a run stands on the same files as when it was made.

    Raises
    ------
    UsageError
        One of them was changed.
    """
    changes = changed_since(run)
    if changes:
        raise UsageError(
            f"{run.dir.id}: {'; '.join(changes)} since the run began, and its results would be "
            "of two kinds: bring it back and resume the run, or start a new one"
        )


def take_up(run: Run) -> Run:
    """Return a run as of its next session, which must stand on the same files as those before.

    Raises
    ------
    UsageError
        One of them was changed.
    """
    require_unchanged(run)
    sessions = run.manifest.sessions + 1
    return replace(run, manifest=run.manifest.updated(sessions=sessions))


def stored_sweep(job: Job, directory: RunDir, manifest: Manifest) -> Sweep:
    """Return the sweep that a manifest describes."""
    arguments = [f"{name}={text}" for name, text in manifest.job.assignments.items()]
    table = directory.table if manifest.job.table is not None else None
    return Sweep.from_args(job, arguments, table)


def _record(loaded: LoadedJob, sweep: Sweep, seed: int | None, rules: TaskRules) -> JobRecord:
    job = loaded.job
    return JobRecord(
        name=job.name,
        kind=job.kind,
        source=str(loaded.source),
        sha256=loaded.sha256,
        modules=provenance.sibling_modules(loaded.source),
        seed=job.seed if seed is None else seed,
        rules=rules,
        reduce=None if job.reduce is None else Merge(job.reduce).name,
        resources=job.resources,
        assignments=dict(sweep.assignments),
        defaults={name: str(value) for name, value in sweep.constants.items()},
        table=None if sweep.table is None else str(sweep.table),
        inputs={str(path): provenance.file_fingerprint(path) for path in input_files(job, sweep)},
        tasks=len(sweep),
    )


def input_files(job: Job, sweep: Sweep) -> list[Path]:
    """Return each input file once, however many tasks read it."""
    names = [param.name for param in job.params if param.type is Path]
    paths = [sweep.constants[name] for name in names if name in sweep.constants]
    for axis in sweep.axes:
        for name in set(names) & axis.columns.keys():
            column = axis.columns[name]
            paths += [column[index] for index in range(len(column))]
    return list(dict.fromkeys(paths))


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _table_copy(job: Job, table: Path) -> bytes:
    """Return a table whose relative paths, which start at its own folder, are absolute."""
    if not any(param.type is Path for param in job.params):
        return table.read_bytes()
    with table.open(encoding="utf-8-sig", newline="") as source:
        names, *rows = list(csv.reader(source))
    columns = [i for i, name in enumerate(names) if job.param(name.strip()).type is Path]
    for row in rows:
        for column in columns if row else ():
            row[column] = str(beside(table.parent, row[column].strip()))
    target = io.StringIO(newline="")
    csv.writer(target).writerows([names, *rows])
    return target.getvalue().encode()
