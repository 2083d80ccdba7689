"""The state folder: what the cluster is like, its jobs, and what is out of order."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes.failures import Failure

DEFAULTS: dict[str, Any] = {
    "cluster": "fake",
    "cpus": 4,
    "minute": 60.0,
    "min_job_age": 0.0,
    "kill_wait": 1.0,
    "max_array_size": 1001,
    "max_submit_jobs": None,
    "accounts": None,
    "store_comments": False,
    "proctrack": "cgroup",
    "cpus_per_node": 4,
    "memory": 2000,
    "partitions": {
        "main": {"nodes": "n[1-4]", "minutes": 60},
        "short": {"nodes": "n[1-2]", "minutes": 2, "default_minutes": 1},
        "spare": {"nodes": "n[1-4]", "minutes": 60},
    },
}
"""What `config.json` may set; the first partition is the default one. See README.md."""

SILENCE = "Unable to contact slurm controller (connect failure)"


class Folder:
    """Where $FAKE_SLURM points."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jobs = path / "jobs"
        config = path / "config.json"
        self.config = DEFAULTS | (json.loads(config.read_text()) if config.exists() else {})

    @classmethod
    def current(cls) -> Folder:
        """Return the folder that the environment names."""
        name = os.environ.get("FAKE_SLURM")
        if not name:
            raise Failure("fake Slurm: $FAKE_SLURM names no state folder")
        folder = cls(Path(name).absolute())
        folder.jobs.mkdir(parents=True, exist_ok=True)
        return folder

    def number(self, name: str) -> float:
        """Return a number, which the environment may set too: FAKE_SLURM_CPUS and so on."""
        return float(os.environ.get(f"FAKE_SLURM_{name.upper()}") or self.config[name])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all others from changing anything."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def next_ids(self, count: int = 1) -> int:
        """Take job ids, under the lock, and return the first."""
        path = self.path / "next-id"
        first = int(path.read_text()) if path.exists() else 1
        write(path, str(first + count))
        return first

    def spool(self, job: int) -> Path:
        """Return where a job's script and environment are."""
        return self.path / "spool" / f"job{job:05d}"

    def has(self, trouble: str) -> bool:
        """Tell whether something is out of order: a file of that name says so."""
        return (self.path / trouble).exists()

    def reach(self, *lines: str, status: int = 1) -> None:
        """Fail in these words if the controller is down, after the seconds that the file says."""
        try:
            seconds = (self.path / "down").read_text().strip()
        except FileNotFoundError:
            return
        time.sleep(float(seconds or 0))
        raise Failure(*lines, status=status)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
