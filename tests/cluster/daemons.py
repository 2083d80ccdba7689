"""The programs that make up the cluster: how each is started, and when it is ready."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cluster import machine
from cluster.configuration import CONTROLLER, NODES, address
from cluster.errors import ClusterError
from cluster.processes import ALONE, Process, start
from cluster.waiting import until

HERE = Path(__file__).resolve().parent
PATIENCE = 30.0
SYSTEM_TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")
SMALL = (
    "--innodb-log-file-size=8M",
    "--innodb-buffer-pool-size=32M",
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
)
"""MariaDB's options for a database that need not survive."""


class Daemons:
    """The cluster's programs, by name; each has a record and a log in the state folder."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.records = state / "records"

    def env(self) -> dict[str, str]:
        """Return what the programs and the clients have to know."""
        own = {
            "SLURM_CONF": str(self.state / "etc" / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(self.state / "mariadb.socket"),
        }
        return {**os.environ, **own}

    def client(self, *argv: str) -> str:
        """Run one of Slurm's commands, which ends if we do."""
        leashed = ["setpriv", "--pdeathsig", "KILL", *argv]
        done = subprocess.run(leashed, env=self.env(), capture_output=True, text=True)
        if done.returncode:
            raise ClusterError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def munge(self) -> None:
        """Start what lets the others know who asks."""
        paths = {
            "socket": self.state / "munge.socket",
            "key-file": self.state / "munge.key",
            "pid-file": self.state / "munge.pid",
            "seed-file": self.state / "munge.seed",
            "log-file": self.state / "logs" / "munge.log",
        }
        options = [f"--{name}={path}" for name, path in paths.items()]
        self._start("munge", [*ALONE, "munged", "--foreground", "--force", *options])
        self._wait("munge", paths["socket"].exists)

    def database(self) -> None:
        """Make a database and start MariaDB on it: no network, no passwords."""
        port, tables = self.state / "mariadb.socket", self.state / "tables.sql"
        system = SYSTEM_TABLES.read_text()
        tables.write_text(f"create database mysql;\nuse mysql;\n{system}")
        maria = ["mariadbd", "--no-defaults", "--user=root", *SMALL]
        maria += [
            f"--datadir={self.state / 'database'}",
            f"--pid-file={self.state / 'mariadb.pid'}",
        ]
        serve = [*maria, "--skip-networking", "--skip-grant-tables", f"--socket={port}"]
        make = f"{shlex.join([*maria, '--bootstrap'])} < {shlex.quote(str(tables))}"
        script = f"{make} && exec {shlex.join(serve)}"
        self._start("database", [*ALONE, "sh", "-c", script])
        self._wait("database", lambda: _answers(socket.AF_UNIX, str(port)))

    def accounting(self) -> None:
        """Start slurmdbd."""
        self._start("accounting", [*ALONE, "slurmdbd", "-D"])
        self._wait("accounting", lambda: _answers(socket.AF_INET, (CONTROLLER, 27819)))

    def controller(self) -> None:
        """Start slurmctld."""
        self._start("controller", [*ALONE, "slurmctld", "-D"])
        self._wait("controller", self._is_controller_up)

    def node(self, name: str) -> None:
        """Start a node; it is ready when the controller says so."""
        cgroups = [str(path) for path in machine.make_cgroups(self.state.name, name)]
        rest = [name, address(name), machine.BRIDGE, str(self.state), *cgroups]
        self._start(name, [str(HERE / "node"), *rest])

    def wait_for_nodes(self) -> None:
        """Wait until all nodes are idle."""
        for name in NODES:
            until(partial(self._is_idle, name), PATIENCE, f"node {name} is idle")

    def node_state(self, name: str) -> str:
        """Return what the controller says of a node."""
        return self.client("sinfo", "-h", "-N", "-p", "main", "-n", name, "-o", "%T").strip()

    def is_running(self, name: str) -> bool:
        """Tell whether one of the programs runs."""
        process = Process.read(self.records / name)
        return process is not None and process.is_alive()

    def _start(self, name: str, argv: list[str]) -> None:
        start(self.records / name, argv, self.state / "logs" / f"{name}.log", self.env())

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait until a program is ready, but not if it has ended."""
        record = self.records / name
        until(lambda: Process.read(record) is not None, PATIENCE, f"{name} starts")
        try:
            until(lambda: ready() or not self.is_running(name), PATIENCE, f"{name} is ready")
            if not self.is_running(name):
                raise ClusterError(f"{name} has ended")
        except ClusterError as error:
            log = (self.state / "logs" / f"{name}.log").read_text(errors="replace")
            raise ClusterError(" | ".join([str(error), *log.splitlines()[-9:]])) from None

    def _is_idle(self, node: str) -> bool:
        return self.node_state(node) == "idle"

    def _is_controller_up(self) -> bool:
        with contextlib.suppress(ClusterError):
            return "UP" in self.client("scontrol", "ping")
        return False


def _answers(family: socket.AddressFamily, where: str | tuple[str, int]) -> bool:
    """Tell whether something listens."""
    with socket.socket(family) as caller:
        return caller.connect_ex(where) == 0
