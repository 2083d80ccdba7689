"""hpckit as a user runs it: in processes of its own, in a directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
from endings import PATIENCE, Ended

from hpckit.store import manifest as manifests
from hpckit.store.digest import digest


class Hpckit:
    """Runs hpckit in a directory, and sees to it that nothing of it stays."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs = directory / "runs"
        self.started: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: object, env: dict[str, str] | None = None) -> Ended:
        """Run hpckit to its end."""
        process = self.start(*arguments, env=env)
        stdout, stderr = process.communicate(timeout=PATIENCE * 4)
        return Ended(process.returncode, stdout, stderr)

    def start(self, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start hpckit in a session of its own, as a shell with job control does."""
        argv = [sys.executable, "-m", "hpckit", *map(str, arguments)]
        return self.popen(argv, env)

    def popen(self, argv: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command in the directory."""
        variables = {k: v for k, v in os.environ.items() if not k.startswith("HPCKIT_")}
        # Launchers of Open MPI 5 that end remove what others need that start at that moment.
        own = self.directory.parent / "mpi"
        own.mkdir(exist_ok=True)
        variables["PRTE_MCA_prte_tmpdir_base"] = str(own)
        process = subprocess.Popen(
            argv,
            cwd=self.directory,
            env={**variables, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def job(self, text: str, name: str = "job.py") -> Path:
        """Write a job file."""
        path = self.directory / name
        path.write_text(textwrap.dedent(text))
        return path

    def run_dirs(self) -> list[Path]:
        """Return all run directories, oldest first."""
        found = self.runs.glob("*") if self.runs.is_dir() else []
        return sorted(found, key=lambda path: path.stat().st_ctime_ns)

    def last(self) -> Path:
        """Return the only run directory, or the newest."""
        return self.run_dirs()[-1]

    def manifest(self, run: Path | None = None) -> manifests.Manifest:
        """Return the manifest of a run."""
        return manifests.read((run or self.last()) / "run.json")

    def digest(self, run: Path | None = None) -> str:
        """Return the digest of a run's results."""
        return digest((run or self.last()) / "results.h5")

    def logs(self, run: Path | None = None) -> str:
        """Return what stands in all logs of a run."""
        paths = sorted(((run or self.last()) / "logs").glob("*"))
        return "".join(path.read_text() for path in paths)

    def processes(self) -> list[psutil.Process]:
        """Return all live processes that were started in the directory."""
        return [p for p in psutil.process_iter() if self._is_own(p)]

    def until(self, condition, what: str):
        """Wait for a condition."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < end, f"waited in vain: {what}"
            time.sleep(0.01)
        return value

    def assert_all_gone(self) -> None:
        """Wait until no process is left; those that were killed need a moment."""
        self.until(lambda: not self.processes(), "no process is left")

    def end(self) -> None:
        """Kill what a failed test has left."""
        for left in self.processes():
            left.kill()
        for process in self.started:
            process.wait(PATIENCE)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def _is_own(self, process: psutil.Process) -> bool:
        try:
            return (
                process.pid != os.getpid()
                and process.status() != psutil.STATUS_ZOMBIE
                and Path(process.cwd()).is_relative_to(self.directory)
            )
        except psutil.Error:
            return False
