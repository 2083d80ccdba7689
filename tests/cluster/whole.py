"""The cluster as a whole: up, down, and what can happen to it in between."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import configuration, machine, needs, users
from cluster.configuration import CONTROLLER, NODES, Limits
from cluster.daemons import Daemons
from cluster.errors import ClusterError
from cluster.processes import Process

LONGEST_PATH = 80
"""Longest state folder whose sockets still have names short enough for the kernel."""


class Cluster:
    """A cluster that is up, or was."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.daemons = Daemons(state)

    @classmethod
    def find(cls) -> Cluster:
        """Return the cluster that is up on this machine."""
        state = machine.find()
        if state is None or not _is_ready(state):
            raise ClusterError("no cluster is up: `slurm up` brings one up")
        return cls(state)

    @classmethod
    def up(cls, folder: Path | None, limits: Limits, pid: int | None) -> Cluster:
        """Bring a cluster up; a process's may be up already, for others."""
        if lack := needs.lack():
            raise ClusterError(lack)
        with users.door():
            if there := _still_wanted():
                if pid is None or folder:
                    raise ClusterError(f"a cluster is up already, in {there}: `slurm down` first")
                users.add(there, pid)
                return cls(there)
            _clear()
            cluster = cls(_make(folder))
            try:
                cluster._start(limits, pid)
            except BaseException:
                _clear()
                raise
            return cluster

    @staticmethod
    def down(pid: int | None) -> None:
        """Take the cluster down; for a process, only if no other wants it."""
        with users.door():
            state = machine.find()
            if pid is not None and state is not None:
                users.remove(state, pid)
                if users.present(state):
                    return
            _clear()

    nodes = NODES

    def env(self) -> dict[str, str]:
        """Return what users export: Slurm's files, this command, and three favours to Open MPI.

        It would neither run as root, nor bind ranks to CPUs that are claimed but not there; and
        ranks that wait must give the CPU to those for which they wait.
        """
        return {
            "SLURM_CONF": str(self.state / "etc" / "slurm.conf"),
            "PATH": f"{Path(__file__).parent}:{os.environ['PATH']}",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_hwloc_default_binding_policy": "none",
            "OMPI_MCA_mpi_yield_when_idle": "1",
        }

    def users(self) -> list[str]:
        """Return who has it up: `by-hand` or the numbers of processes."""
        return users.present(self.state)

    def running(self) -> dict[str, bool]:
        """Tell of each program whether it runs."""
        names = ("munge", "database", "accounting", "controller", *NODES)
        return {name: self.daemons.is_running(name) for name in names}

    def cut(self, node: str) -> None:
        """Cut a node's network; what runs on it goes on."""
        machine.plug(node, "down")

    def heal(self, node: str) -> None:
        """Join a node's network again."""
        machine.plug(node, "up")

    def kill(self, node: str) -> None:
        """Kill a node with all that runs on it, as a power cut does."""
        _end(self.daemons.records / node)
        machine.unplug(node)
        machine.remove_cgroups(self.state.name, node)

    def start(self, node: str) -> None:
        """Start a node that was killed."""
        if self.daemons.is_running(node):
            raise ClusterError(f"{node} runs already")
        self.daemons.node(node)

    def stop_controller(self) -> None:
        """Stop slurmctld; jobs go on."""
        _end(self.daemons.records / "controller", signal.SIGTERM)

    def start_controller(self) -> None:
        """Start slurmctld, which goes on from the state it saved."""
        if self.daemons.is_running("controller"):
            raise ClusterError("the controller runs already")
        self.daemons.controller()

    def _start(self, limits: Limits, pid: int | None) -> None:
        """Start everything; the database takes longest, so the rest starts beside it."""
        configuration.write(self.state, limits)
        users.add(self.state, pid)
        daemons = self.daemons
        with ThreadPoolExecutor() as pool:
            database = pool.submit(daemons.database)
            daemons.munge()
            for node in NODES:
                daemons.node(node)
            database.result()
        daemons.accounting()
        submit = f"MaxSubmitJobs={limits.max_submit_jobs}"
        daemons.client("sacctmgr", "-i", "add", "cluster", "hpckit")
        daemons.client("sacctmgr", "-i", "modify", "account", "root", "set", submit)
        daemons.controller()
        daemons.wait_for_nodes()
        (self.state / "ready").touch()


def _is_ready(state: Path) -> bool:
    return (state / "ready").exists()


def _still_wanted() -> Path | None:
    """Return the state folder of a cluster that is up and wanted, not left by the dead."""
    state = machine.find()
    return state if state and _is_ready(state) and users.present(state) else None


def _make(folder: Path | None) -> Path:
    """Make the state folder and lay the bridge that says where it is."""
    if folder and folder.exists() and any(folder.iterdir()):
        raise ClusterError(f"{folder} is not empty: it cannot become a cluster's state folder")
    state = (folder or Path(tempfile.mkdtemp(prefix="hpckit-cluster-"))).resolve()
    if len(str(state)) > LONGEST_PATH:
        raise ClusterError(f"{state} is longer than {LONGEST_PATH} characters: sockets go there")
    machine.claim(state, CONTROLLER)
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o755)
    return state


def _clear() -> None:
    """End and remove all of the cluster that is here, whole or in part."""
    state = machine.find()
    if state is None:
        return
    records = list((state / "records").glob("*"))
    with ThreadPoolExecutor() as pool:
        list(pool.map(_end, records))
    for node in NODES:
        machine.unplug(node)
    machine.remove_cgroups(state.name)
    shutil.rmtree(state, ignore_errors=True)
    machine.release()


def _end(record: Path, number: signal.Signals = signal.SIGKILL) -> None:
    """End a recorded process; its record goes once it is dead."""
    process = Process.read(record)
    if process is not None:
        process.end(number)
    record.unlink(missing_ok=True)
