"""hpckit as a user of the cluster runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from cluster.session import Slurm

from hpckit.store import manifest as manifests
from hpckit.store.digest import digest
from hpckit.store.manifest import Manifest

PATIENCE = 240
BIN = str(Path(sys.executable).parent)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


class There:
    """A folder with job files on the cluster, whose site is `here.toml`.

    Parameters
    ----------
    site
        Its text, in place of what `hpckit site init` prints.
    """

    python = sys.executable

    def __init__(self, slurm: Slurm, site: str | None = None) -> None:
        self.slurm = slurm
        self.folder = slurm.directory
        if site is None:
            site = self("site", "init", "--print")
        # mpiexec is the environment's own.
        self.site_text = f'prologue = ["export PATH={BIN}:$PATH"]\n{site}'
        self.site = self.folder / "here.toml"
        self.site.write_text(self.site_text)

    def run(self, *arguments: object, env: dict[str, str] | None = None) -> Ended:
        """Run hpckit to its end, whatever that is."""
        process = self.start(*arguments, env=env)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return Ended(process.returncode, stdout, stderr)

    def start(self, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start hpckit."""
        own = {"HPCKIT_SITE": str(self.folder / "here.toml")}
        return subprocess.Popen(
            [self.python, "-m", "hpckit", *map(str, arguments)],
            cwd=self.folder,
            env={**self.slurm.env, **own, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object) -> str:
        """Run hpckit, which must end well; return what it prints."""
        ended = self.run(*arguments)
        assert ended.code == 0, f"{arguments}: {ended}"
        return ended.stdout

    def submit(self, *arguments: object, nap: float = 0.0) -> Path:
        """Submit a job and return the run's folder; `nap` is $NAP for its tasks."""
        ended = self.run("submit", *arguments, "--json", env={"NAP": str(nap)})
        assert ended.code == 0, f"{arguments}: {ended}"
        return self.folder / "runs" / json.loads(ended.stdout)["id"]

    def job(self, text: str, name: str = "job.py") -> Path:
        """Write a job file."""
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return path

    def manifest(self, run: Path) -> Manifest:
        """Return the manifest of a run."""
        return manifests.read(run / "run.json")

    def jobs(self, run: Path) -> list[str]:
        """Return the ids of the jobs of a run's latest submission."""
        return self.manifest(run).submissions[-1].ids

    def state(self, run: Path) -> dict[str, object]:
        """Return what `hpckit status --json` says."""
        found: dict[str, object] = json.loads(self("status", run, "--json"))
        return found

    def digest(self, run: Path) -> str:
        """Return the digest of a run's results."""
        return digest(run / "results.h5")

    def local_digest(self, *arguments: object) -> str:
        """Return the digest of the same job run here, in the foreground."""
        local = self.folder / "local" / str(len(list(self.folder.glob("local/*"))))
        self("run", *arguments, "--output", local)
        (run,) = local.iterdir()
        return self.digest(run)

    def without_slurm(self) -> dict[str, str]:
        """Return an environment in which no command of Slurm's is found."""
        return {"PATH": BIN, "SLURM_CONF": os.devnull}
