"""The run directory: the one place that knows the name of every file of a run."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hpckit.errors import StoreError, UsageError
from hpckit.store.atomic import sync

DEFAULT_ROOT = "runs"
ROOT_VARIABLE = "HPCKIT_RUNS"


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id, which is the directory's name."""
        return self.path.name

    @property
    def manifest(self) -> Path:
        """The manifest, JSON."""
        return self.path / "run.json"

    def job(self, suffix: str) -> Path:
        """Return the path of the job file's copy."""
        return self.path / f"job{suffix}"

    def script(self, session: int) -> Path:
        """Return the path of the batch script that was submitted for a session."""
        return self.path / ("job.sh" if session == 1 else f"job-{session}.sh")

    @property
    def pilot_script(self) -> Path:
        """The batch script of the latest session's pilots."""
        return self.path / "pilot.sh"

    def pending(self, session: int) -> Path:
        """Return the path of the indices of the tasks that a session's array shares."""
        return self.path / f"pending-{session}.npz"

    @property
    def exits(self) -> Path:
        """One small file a batch job or array element: the exit status of its program."""
        return self.path / "exits"

    @property
    def elements(self) -> Path:
        """What array elements told at their ends, a line of JSON each."""
        return self.path / "elements.jsonl"

    @property
    def table(self) -> Path:
        """The copy of the CSV file whose rows are the tasks, where there is one."""
        return self.path / "tasks.csv"

    @property
    def results(self) -> Path:
        """The one file that the user opens."""
        return self.path / "results.h5"

    @property
    def segments(self) -> Path:
        """Sealed results on their way to `results`."""
        return self.path / "segments"

    @property
    def logs(self) -> Path:
        """One bounded log a rank, worker or array element."""
        return self.path / "logs"

    def log(self, name: str) -> Path:
        """Return the path of the log of a rank or worker."""
        return self.logs / f"{name}.log"

    @property
    def launcher_log(self) -> Path:
        """What the launcher of ranks said on stderr."""
        return self.log("launcher")

    @property
    def progress(self) -> Path:
        """The latest state of a run that goes on, JSON."""
        return self.path / "progress.json"

    @property
    def workers(self) -> Path:
        """How many workers there were and when, CSV, where they came and went."""
        return self.path / "workers.csv"

    @property
    def failure(self) -> Path:
        """The first rank's failure: its rank and traceback, JSON."""
        return self.path / "failure.json"

    @property
    def gpus(self) -> Path:
        """What tasks did on GPUs, a file of JSON a card and process, until the manifest has it."""
        return self.path / "gpus"

    @property
    def checkpoint(self) -> Path:
        """Checkpoints of an spmd run."""
        return self.path / "checkpoint"

    @property
    def kept(self) -> Path:
        """What a command job asked to keep, one folder a task."""
        return self.path / "kept"

    @property
    def contact(self) -> Path:
        """Where pilots find the driver, and the key that lets them in; mode 0700."""
        return self.path / "contact"

    @property
    def lock_file(self) -> Path:
        """Whoever drives the run holds a lock on it: see `hpckit.store.lock`."""
        return self.path / ".lock"

    @property
    def ranks_lock_file(self) -> Path:
        """Every rank of the run holds a shared lock on it."""
        return self.path / ".ranks.lock"

    def rank_fields(self, rank: int) -> Path:
        """Return the path of the sealed fields of one rank."""
        return self.segments / f"rank-{rank:05d}.h5"

    def holds_work(self) -> bool:
        """Tell whether a session has left anything that would have to be done again."""
        made = (self.results, self.checkpoint, self.kept)
        return any(path.exists() for path in made) or any(self.segments.iterdir())

    def remove_leftovers(self) -> None:
        """Remove what a killed driver left half-written; whoever calls it holds the lock."""
        for path in self.path.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def runs_root(output: Path | None) -> Path:
    """Return the folder that holds the runs: the option, $HPCKIT_RUNS, or ./runs."""
    return output or Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)


def create(root: Path, job_name: str) -> RunDir:
    """Make a new run directory, mode 0700, with its empty folders.

    Raises
    ------
    UsageError
        The folder cannot be made there.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", job_name).strip("-.") or "job"
    try:
        root.mkdir(parents=True, exist_ok=True)
        path = root.resolve() / f"{slug}-{stamp}-{secrets.token_hex(2)}"
        path.mkdir(mode=0o700)
        run = RunDir(path)
        run.logs.mkdir()
        run.segments.mkdir()
        sync(path)
        sync(root)
    except FileExistsError:
        if root.is_dir():
            return create(root, job_name)
        raise UsageError(f"{root}: is a file, not a folder: give another --output") from None
    except OSError as error:
        raise UsageError(
            f"{root}: no run directory can be made there ({error.strerror}): give another --output"
        ) from None
    return run


def list_runs(root: Path) -> list[RunDir]:
    """Return the runs under a folder, oldest first."""
    if not root.is_dir():
        return []
    found = [RunDir(path.parent) for path in root.glob("*/run.json")]
    return sorted(found, key=_begun)


def find(ref: str, root: Path) -> RunDir:
    """Return the run that a directory, an id, a unique prefix of one, or `last` names.

    Raises
    ------
    UsageError
        There is none, or more than one.
    """
    path = Path(ref)
    with suppress(OSError):  # A name that is too long, say.
        if (path / "run.json").is_file():
            return RunDir(path.resolve())
    runs = list_runs(root.resolve())
    if ref == "last" and runs:
        return runs[-1]
    exact = [run for run in runs if run.id == ref]
    matches = exact or [run for run in runs if run.id.startswith(ref)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        some = ", ".join(run.id for run in matches[:4]) + (", …" if len(matches) > 4 else "")
        raise UsageError(f"run {ref!r}: {len(matches)} runs begin so: {some}")
    there = f"{len(runs)} runs there" if runs else "no runs there"
    raise UsageError(
        f"run {ref!r}: neither a run directory nor the beginning of a run's id in {root} "
        f"({there}; `hpckit ls` lists them)"
    )


def require_results(run: RunDir) -> Path:
    """Return the path of results.h5, which must exist.

    Raises
    ------
    StoreError
        The run has none yet.
    """
    if not run.results.is_file():
        raise StoreError(
            f"{run.id}: has no results.h5 yet: `hpckit status {run.id}` says how far it is, and "
            "how to go on"
        )
    return run.results


def _begun(run: RunDir) -> tuple[str, int, str]:
    """Order runs by the time in their id, and those of one second by their job's copy."""
    match = re.search(r"(\d{8}-\d{6})-[0-9a-f]{4}$", run.id)
    copies = [path.stat().st_mtime_ns for path in run.path.glob("job.*")]
    return match[1] if match else "", min(copies, default=0), run.id
