"""The cluster leaves nothing, however it ends, and never comes up twice.

A network of its own lets each of these tests have a cluster beside the one that others use.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from cluster import needs
from cluster.session import COMMAND

ESCAPE = "--wrap=setsid sleep 600 & sleep 600"


class Elsewhere:
    """A network without a cluster, and a state folder for one."""

    def __init__(self, holder: int, state: Path) -> None:
        self.inside = ["nsenter", f"--net=/proc/{holder}/ns/net"]
        self.state = state

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "SLURM_CONF": f"{self.state}/etc/slurm.conf"}
        argv = (*self.inside, *argv)
        return subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, timeout=90)

    def slurm(self, *arguments: str) -> str:
        done = self.run(*COMMAND, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self, *options: str) -> None:
        self.slurm("up", str(self.state), *options)

    def processes(self) -> set[int]:
        """Return all live processes that know the state folder."""
        return {p.pid for p in psutil.process_iter() if self._knows(p)}

    def traces(self) -> dict[str, object]:
        """Return all that a cluster could leave."""
        return {
            "processes": self.processes(),
            "cgroups": list(Path("/sys/fs/cgroup").glob(f"*/{self.state.name}")),
            "links": self.run("ip", "-brief", "link").stdout.split("\n"),
            "mounts": Path("/proc/self/mounts").read_text().count(self.state.name),
            "namespaces": sorted(Path("/run").glob("netns/*")),
            "hosts": Path("/etc/hosts").read_text(),
            "state": self.state.exists(),
        }

    def _knows(self, process: psutil.Process) -> bool:
        try:
            known = [*process.cmdline(), *process.environ().values()]
            return process.status() != "zombie" and any(str(self.state) in word for word in known)
        except psutil.Error:
            return False


@pytest.fixture
def elsewhere(tmp_path_factory):
    if reason := needs.lack():
        pytest.skip(reason)
    state = tmp_path_factory.mktemp("apart") / f"traces-{os.getpid()}"
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    own = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{holder.pid}/ns/net").readlink() == own:
        time.sleep(0.01)
    apart = Elsewhere(holder.pid, state)
    apart.run("ip", "link", "set", "lo", "up")
    yield apart
    down = apart.run(*COMMAND, "down")
    holder.communicate()
    assert down.returncode == 0, down.stderr


def test_down_leaves_nothing(elsewhere):
    before = elsewhere.traces()
    elsewhere.up()
    assert elsewhere.run("sbatch", "-o/dev/null", ESCAPE).returncode == 0
    while elsewhere.run("squeue", "-ho%T").stdout != "RUNNING\n":
        time.sleep(0.1)
    elsewhere.slurm("kill", "n4")
    elsewhere.slurm("ctl", "stop")
    assert len(elsewhere.processes()) > 15
    during = elsewhere.traces()
    assert {name for name in during if during[name] == before[name]} == {
        "mounts",
        "namespaces",
        "hosts",
    }
    elsewhere.slurm("down")
    assert elsewhere.traces() == before


def test_a_second_up_says_that_there_is_one(elsewhere):
    elsewhere.up()
    second = elsewhere.run(*COMMAND, "up")
    assert second.returncode == 1
    assert (
        second.stderr
        == f"slurm: a cluster is up already, in {elsewhere.state}: `slurm down` first\n"
    )


def test_its_limits_are_those_asked_for(elsewhere):
    elsewhere.up("--max-array-size=11", "--max-submit-jobs=3")
    array = elsewhere.run("sbatch", "-o/dev/null", "--array=0-11", "--wrap=true")
    assert "Invalid job array specification" in array.stderr
    many = elsewhere.run("sbatch", "-o/dev/null", "--array=0-3", "--wrap=true")
    assert "AssocMaxSubmitJobLimit" in many.stderr


def test_what_the_dead_have_left_makes_way(elsewhere):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as user:
        elsewhere.up("--for", str(user.pid))
        left = elsewhere.processes()
    elsewhere.state = elsewhere.state.with_name("second")
    elsewhere.up()
    assert not any(map(psutil.pid_exists, left))
    assert not elsewhere.state.with_name(f"traces-{os.getpid()}").exists()


@pytest.mark.parametrize("seconds", [0.4, 1, 2])
def test_an_up_that_was_killed_leaves_what_down_ends(elsewhere, seconds):
    before = elsewhere.traces()
    argv = [*elsewhere.inside, *COMMAND, "up", str(elsewhere.state)]
    up = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    up.send_signal(signal.SIGKILL)
    up.wait()
    elsewhere.slurm("down")
    assert elsewhere.traces() == before
