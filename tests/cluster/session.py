"""The cluster as a test sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cluster.whole import Cluster

COMMAND = (sys.executable, str(Path(__file__).with_name("slurm")))
UNFINISHED = {"", "PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING", "COMPLETING"}
BROKEN = ("down", "drain", "fail", "unk")


class Slurm:
    """Submits jobs from a folder, watches them, and breaks what they run on."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.env = {**os.environ, **cluster.env()}
        self.submitted: list[str] = []

    def __call__(self, *argv: str, timeout: float = 60) -> str:
        """Run a command where Slurm's are found and return what it prints."""
        done = subprocess.run(
            argv,
            cwd=self.directory,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def sbatch(self, script: str, *options: str) -> str:
        """Submit a script and return its job id."""
        path = self.directory / f"job-{len(self.submitted)}.sh"
        path.write_text(script if script.startswith("#!") else f"#!/bin/bash\n{script}\n")
        job = self("sbatch", "--parsable", *options, str(path)).strip()
        self.submitted.append(job)
        return job

    def sacct(self, job: str, field: str, *options: str) -> list[str]:
        """Return one field of a job's rows in the accounting, by default without steps."""
        rows = self("sacct", "-n", "-P", "-j", job, "-o", field, *(options or ["-X"]))
        return rows.splitlines()

    def state(self, job: str) -> str:
        """Return a job's state in one word; of an array's, one that is not at its end."""
        rows = [row.split("|") for row in self("squeue", "-hr", "-o", "%i|%F|%T").splitlines()]
        queued = [state for element, array, state in rows if job in (element, array)]
        words = [f"{row} ".split(" ")[0] for row in self.sacct(job, "State")] or [""]
        return next((word for word in queued + words if word in UNFINISHED), words[0])

    def wait(self, job: str, timeout: float = 60) -> str:
        """Wait until a job, or all of an array, is at its end; return its state."""
        self.wait_for(lambda: self.state(job) not in UNFINISHED, timeout)
        return self.state(job)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"waited {timeout} s in vain\n{self('squeue')}"
            time.sleep(0.2)

    def output(self, job: str) -> str:
        """Return what a batch job printed."""
        return (self.directory / f"slurm-{job}.out").read_text()

    def node_state(self, node: str) -> str:
        """Return a node's state, such as `idle`; `*` at its end: it does not answer."""
        return self.cluster.daemons.node_state(node)

    def cut(self, node: str) -> None:
        """Cut a node's network."""
        self._do("cut", node)

    def heal(self, node: str) -> None:
        """Join a node's network again."""
        self._do("heal", node)

    def kill(self, node: str) -> None:
        """Kill a node."""
        self._do("kill", node)

    def start(self, node: str) -> None:
        """Start a node that was killed."""
        self._do("start", node)

    def restart_controller(self) -> None:
        """Stop slurmctld and start it again."""
        self._do("ctl", "stop")
        self._do("ctl", "start")

    def mend(self) -> None:
        """Bring back all that a test has broken."""
        running = self.cluster.running()
        if not running["controller"]:
            self._do("ctl", "start")
        for node in self.cluster.nodes:
            self.heal(node) if running[node] else self.start(node)
        for node in self.cluster.nodes:
            if self.node_state(node).startswith(BROKEN):
                self._restart(node)
        for node in self.cluster.nodes:
            self.wait_for(partial(self._is_well, node))

    def cancel(self) -> None:
        """Cancel what was submitted and is not at its end."""
        ids = [*self.submitted, *self._of_runs()]
        if ids:
            self("scancel", "-Q", *ids)

    def _of_runs(self) -> list[str]:
        """Return the jobs that hpckit has submitted from the folder."""
        manifests = [json.loads(path.read_text()) for path in self.directory.rglob("run.json")]
        submissions = [s for manifest in manifests for s in manifest["submissions"]]
        return [job["id"] for s in submissions for job in s["jobs"] or []]

    def _restart(self, node: str) -> None:
        if self.cluster.daemons.is_running(node):
            self.kill(node)
        self.start(node)

    def _is_well(self, node: str) -> bool:
        state = self.node_state(node)
        return not state.endswith("*") and not state.startswith(BROKEN)

    def _do(self, *arguments: str) -> None:
        self(*COMMAND, *arguments)
