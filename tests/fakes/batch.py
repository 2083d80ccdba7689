"""The batch script of one element: its output, its environment, its process."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from fakes import clock, environment, hosts
from fakes.filenames import Names
from fakes.folder import Folder
from fakes.jobs import Element

NO_OUTPUT = 53
"""The signal that Slurm says ended a script whose output cannot be opened."""


class Script:
    """A script that is about to run."""

    def __init__(self, folder: Folder, element: Element) -> None:
        self.element, self.job = element, element.job.data
        self.node = hosts.expand(element["nodes"])[0]
        self.group = folder.config["proctrack"] != "cgroup"
        spool = folder.spool(element.job.id)
        self.path = spool / "slurm_script"
        submitted = json.loads((spool / "environment.json").read_text())
        self.environment = environment.of(folder, element, submitted)
        self.failure: int | None = None
        os.umask(self.job["umask"])
        try:
            self._open()
        except OSError:
            self.failure = NO_OUTPUT

    def start(self) -> int:
        """Start it and return its number."""
        self.pid = os.fork()
        if self.pid:
            return self.pid
        try:
            self._become()
        except OSError as error:
            self._explain(error)
        finally:
            os._exit(2)

    def signal(self, number: int) -> None:
        """Send it a signal: to the shell alone where processes are tracked by cgroups."""
        with suppress(ProcessLookupError):
            (os.killpg if self.group else os.kill)(self.pid, number)

    def say(self, text: str) -> None:
        """Write a line of slurmstepd's into its output."""
        os.write(self.stderr, f"slurmstepd-{self.node}: error: {text}\n".encode())

    def say_cancelled(self, why: str) -> None:
        """Say that it is being ended."""
        when = clock.stamp(time.time())
        self.say(f"*** JOB {self.element.id} ON {self.node} CANCELLED AT {when}{why} ***")

    def _open(self) -> None:
        """Open what the script writes to."""
        options = self.job["options"]
        name = "slurm-%A_%a.out" if self.job["is_array"] else "slurm-%j.out"
        names = Names(self.element, self.node)
        mode = os.O_APPEND if options.get("open-mode", "t")[0] in "aA" else os.O_TRUNC
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | mode
        output = names.fill(options.get("output", name))
        self.stdout = self.stderr = os.open(output, flags, 0o666)
        if "error" in options:
            self.stderr = os.open(names.fill(options["error"]), flags, 0o666)

    def _become(self) -> None:
        """Turn this process into the script."""
        os.setpgid(0, 0)
        for source, target in ((self.stdout, 1), (self.stderr, 2)):
            os.dup2(source, target)
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        try:
            os.chdir(self.job["cwd"])
        except OSError as error:
            where = f"couldn't chdir to `{self.job['cwd']}'"
            self.say(f"{where}: {error.strerror}: going to /tmp instead")
            os.chdir("/tmp")
        os.execve(self.path, [str(self.path), *self.job["arguments"]], self.environment)

    def _explain(self, error: OSError) -> None:
        first = self.path.read_bytes().split(b"\n", 1)[0].decode(errors="replace")
        interpreter = first[2:].split()[0]
        where = str(self.path) if Path(interpreter).exists() else f"bad interpreter({interpreter})"
        self.say(f"execve(): {where}: {error.strerror}")
