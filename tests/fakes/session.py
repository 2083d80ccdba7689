"""The fake cluster as a test sees it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from cluster.session import Slurm
from fakes.folder import write

BIN = Path(__file__).with_name("bin")


class FakeSlurm(Slurm):
    """Does what the session of a real cluster does, and brings about what that can hardly."""

    def __init__(self, state: Path, directory: Path) -> None:
        self.state_folder = state
        self.directory = directory
        self.variables = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "FAKE_SLURM": str(state),
            "FAKE_SLURM_PYTHON": sys.executable,
        }
        self.env = {**os.environ, **self.variables}
        self.submitted: list[str] = []

    def use(self, monkeypatch) -> None:
        """Have this process find the fake commands too."""
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)

    def configure(self, **values: object) -> None:
        """Set what the cluster is like: see `fakes.folder.DEFAULTS`."""
        write(self.state_folder / "config.json", json.dumps(values))

    def end(self, job: str, state: str) -> None:
        """Have a job or an element end in a state, and wait until it has."""
        self("fake-slurm", "end", job, state)

    def vanish(self, job: str) -> None:
        """End a job or an element, so that nobody knows of it."""
        self("fake-slurm", "vanish", job)

    def down(self, seconds: float = 0) -> None:
        """Have all commands fail that need the controller, after some seconds."""
        self("fake-slurm", "down", str(seconds))

    def up(self) -> None:
        """Bring the controller back."""
        self("fake-slurm", "up")

    def trouble(self, name: str, there: bool = True) -> None:
        """Bring about `no-accounting`, `database-down` or `unheard`, or end it."""
        path = self.state_folder / name
        path.touch() if there else path.unlink(missing_ok=True)

    def stop(self) -> None:
        """End all that it runs."""
        if (self.state_folder / "jobs").exists():
            self("fake-slurm", "stop")
