"""The manifest of a run: what was asked, with what, where, and how it ended."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpckit.errors import StoreError, UsageError
from hpckit.spec.resources import Resources
from hpckit.spec.rules import TaskRules
from hpckit.store.atomic import write_bytes
from hpckit.store.elastic import Elastic
from hpckit.store.image import ImageRecord
from hpckit.store.submission import Submission

FORMAT = 1


class State(StrEnum):
    """How far a run is."""

    SUBMITTED = "submitted"
    """It is with a scheduler, which knows how far."""
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_open(self) -> bool:
        """Whether somebody works on the run, or will."""
        return self in (State.SUBMITTED, State.RUNNING)


class Driver(BaseModel):
    """The process that works on a run, so that others can see whether it lives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    pid: int
    started: float
    """Seconds since the epoch; tells a reused process id from the driver."""
    job: str | None = None
    """The scheduler's job that it is part of."""

    @classmethod
    def this_process(cls) -> Driver:
        """Describe the calling process."""
        return cls(
            host=os.uname().nodename,
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            job=os.environ.get("SLURM_JOB_ID"),
        )

    @property
    def token(self) -> str:
        """What tells this driver from all others."""
        return f"{self.host}:{self.pid}:{self.started}"

    def is_this_process(self) -> bool:
        """Tell whether it is the calling process."""
        return (self.host, self.pid) == (os.uname().nodename, os.getpid())

    def is_gone(self) -> bool:
        """Tell whether the driver is known to have ended; another host's never is."""
        if self.host != os.uname().nodename:
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) > 1 or (
                process.status() == psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return True


class JobRecord(BaseModel):
    """The job as it was run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    source: str
    sha256: str
    modules: dict[str, str] = Field(default_factory=dict)
    """Modules that it imports from its own folder: path within it to sha256."""
    seed: int
    rules: TaskRules = TaskRules()
    reduce: str | None = None
    """The function that merges the results of tasks, where they are merged."""
    resources: Resources
    assignments: dict[str, str]
    """Parameters as given on the command line."""
    defaults: dict[str, str] = Field(default_factory=dict)
    """The values of the others, as text."""
    table: str | None = None
    """Where the CSV of the tasks came from; its copy is in the run directory."""
    table_sha256: str | None = None
    """Of the copy."""
    inputs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Input files: path to size in bytes and sha256."""
    tasks: int = 1


class Manifest(BaseModel):
    """All that is kept about a run, beside its results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    id: str
    parent: str | None = None
    """The run that this one repeats."""
    argv: list[str]
    directory: str
    """The working directory that the run was started in."""
    job: JobRecord
    image: ImageRecord | None = None
    """The one that its programs work in."""
    engine: str | None = None
    workers: int | None = None
    elastic: Elastic | None = None
    """How its workers come and go, where they are in batch jobs of their own."""
    ranks: int | None = None
    launcher: list[str] | None = None
    submissions: list[Submission] = Field(default_factory=list)
    """What was handed to a scheduler, the latest last."""
    state: State = State.RUNNING
    reason: str | None = None
    """One sentence on why the run did not complete."""
    driver: Driver | None = None
    created: str
    """ISO 8601, UTC."""
    finished: str | None = None
    sessions: int = 1
    """How often the run was taken up: 1 without a resume."""
    seconds: float = 0.0
    """Wall time over all sessions."""
    counts: dict[str, int] = Field(default_factory=dict)
    """Tasks done, failed and missing."""
    exits: dict[str, int] = Field(default_factory=dict)
    """Exit status of each process that was started for ranks."""
    usage: dict[str, float] = Field(default_factory=dict)
    """CPU seconds and peak memory in bytes, of the driver and of its children."""
    gpus: list[dict[str, Any]] = Field(default_factory=list)
    """Of each GPU in each process: which it was, and where its time went."""
    environment: dict[str, Any] = Field(default_factory=dict)
    """Code, packages, machine and MPI: see `hpckit.store.provenance`."""

    @property
    def submission(self) -> Submission | None:
        """The submission that a scheduler has to be asked about: how it ended is not known yet.

        Ranks that have failed may have done so over a node's death, and be started again.
        """
        latest = self.submissions[-1] if self.submissions else None
        if latest is None or not latest.is_open or self.state is State.COMPLETED:
            return None
        return latest

    def open_session(self, session: int) -> Submission:
        """Return the submission of a session, for a job of it that begins.

        Raises
        ------
        UsageError
            The run is complete, or has gone on without that job.
        """
        latest = self.submissions[-1] if self.submissions else None
        if self.state is State.COMPLETED or latest is None or latest.session != session:
            raise UsageError(f"{self.id}: its session {session} is over: `hpckit status {self.id}`")
        if not latest.is_open:
            raise UsageError(f"{self.id}: the jobs of its session {session} counted as ended")
        return latest

    def with_submission(self, submission: Submission, **changes: Any) -> Manifest:
        """Return a copy in which a submission takes the place of the one of its session."""
        others = [s for s in self.submissions if s.session != submission.session]
        return self.updated(submissions=[*others, submission], **changes)

    def updated(self, **changes: Any) -> Manifest:
        """Return a copy with some fields changed."""
        return self.model_copy(update=changes)

    def started(self, **changes: Any) -> Manifest:
        """Return it as of the beginning of a session of this process."""
        return self.updated(
            state=State.RUNNING, reason=None, driver=Driver.this_process(), **changes
        )

    def ended(self, state: State, reason: str | None, seconds: float, **changes: Any) -> Manifest:
        """Return it as of the end of a session that took some seconds."""
        return self.updated(
            state=state,
            reason=reason,
            driver=None,
            finished=now(),
            seconds=self.seconds + seconds,
            **changes,
        )

    def effective_state(self) -> State:
        """Return the state, with a run whose driver has died as interrupted."""
        dead = self.driver is not None and self.driver.is_gone()
        return State.INTERRUPTED if self.state is State.RUNNING and dead else self.state

    def write(self, path: Path) -> None:
        """Replace the manifest at `path` atomically.

        Raises
        ------
        StoreError
            It cannot be written.
        """
        write_bytes(path, (self.to_json() + "\n").encode())

    def to_public_json(self) -> str:
        """Return it as results.h5 has it, which people share: without what a site sets for jobs.

        A site's environment and prologue may hold what is secret.
        """
        public = [
            submission.model_copy(
                update={
                    "site": submission.site.model_copy(update={"environment": {}, "prologue": ()})
                }
            )
            for submission in self.submissions
        ]
        return self.updated(submissions=public).to_json()

    def to_json(self) -> str:
        """Return the manifest as indented JSON."""
        return self.model_dump_json(indent=1)


def read(path: Path) -> Manifest:
    """Read a manifest.

    Raises
    ------
    StoreError
        It is missing, damaged, or of a later format.
    """
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StoreError(f"{path}: is not valid JSON ({error}): the manifest is damaged") from None
    version = raw.get("format") if isinstance(raw, dict) else None
    if version != FORMAT:
        raise StoreError(
            f"{path}: is a manifest of format {version!r}; this hpckit reads format {FORMAT}"
        )
    raw.pop("scheduler_jobs", None)  # Earlier versions wrote it, always empty.
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{path}: {key}: {first['msg']}") from None


def now() -> str:
    """Return the time as the manifest writes it: ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
