"""The test cluster is a real one: what happens on clusters happens on it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

RANKS = """
import json, socket
from mpi4py import MPI
hosts = MPI.COMM_WORLD.gather(socket.gethostname())
if MPI.COMM_WORLD.rank == 0:
    print(json.dumps(hosts))
"""
MPI_JOB = ("-N2", "-n4", "--ntasks-per-node=2", "--mem-per-cpu=300M")


@pytest.fixture
def ranks(slurm):
    """A program that prints the hosts of its ranks."""
    (slurm.directory / "ranks.py").write_text(RANKS)
    return [sys.executable, "ranks.py"]


def test_four_nodes_are_idle_and_are_four_machines_to_their_programs(slurm):
    hosts = slurm("srun", "-N4", "-n4", "sh", "-c", "hostname; readlink /proc/self/ns/net")
    assert len(set(hosts.split())) == 8
    assert {"n1", "n2", "n3", "n4"} < set(hosts.split())


def test_accounting_has_exit_code_steps_and_memory(slurm):
    hold = "import time; x = bytearray(50 << 20); time.sleep(2.5)"
    job = slurm.sbatch(f"srun python3 -c '{hold}'\nexit 7", "--mem=150M")
    assert slurm.wait(job) == "FAILED"
    assert slurm.sacct(job, "ExitCode") == ["7:0"]
    steps = dict(row.split("|") for row in slurm.sacct(job, "JobID,MaxRSS", "--units=K"))
    assert set(steps) == {job, f"{job}.batch", f"{job}.0"}
    assert float(steps[f"{job}.0"].rstrip("K")) > 50 << 10


def test_an_array_has_elements(slurm):
    job = slurm.sbatch("exit $((SLURM_ARRAY_TASK_ID == 2))", "--array=0-3")
    slurm.wait(job)
    ends = {f"{job}_{i}|{'FAILED' if i == 2 else 'COMPLETED'}" for i in range(4)}
    slurm.wait_for(lambda: set(slurm.sacct(job, "JobID,State")) == ends)


def test_memory_is_a_limit(slurm):
    job = slurm.sbatch("python3 -c 'x = bytearray(400 << 20)'", "--mem=100M")
    assert slurm.wait(job) == "OUT_OF_MEMORY"


def test_what_a_job_leaves_behind_dies_with_it(slurm):
    job = slurm.sbatch("setsid sleep 600 &\nreadlink /proc/self/ns/pid; sleep 1")
    assert slurm.wait(job) == "COMPLETED"
    namespace = slurm.output(job).split()[-1]
    left = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "600"]]
    own = [p for p in left if str(Path(f"/proc/{p.pid}/ns/pid").readlink()) == namespace]
    assert own == []


def test_srun_starts_mpi_ranks_on_two_nodes(slurm, ranks):
    hosts = json.loads(slurm("srun", "--mpi=pmix", *MPI_JOB, *ranks))
    assert sorted(Counter(hosts).values()) == [2, 2]


def test_mpiexec_starts_ranks_on_two_nodes(slurm, ranks):
    mpiexec = f"{sys.prefix}/bin/mpiexec"
    job = slurm.sbatch(f"{mpiexec} {' '.join(ranks)}", *MPI_JOB)
    assert slurm.wait(job) == "COMPLETED", slurm.output(job)
    hosts = json.loads(slurm.output(job))
    assert sorted(Counter(hosts).values()) == [2, 2]


def test_a_job_of_the_spare_partition_makes_way_and_comes_back(slurm_alone, request):
    if not request.config.getoption("--long"):
        pytest.skip("takes half a minute of the whole cluster: give --long")
    spare = slurm_alone.sbatch("sleep 8", "-pspare", "-wn3", "--exclusive")
    slurm_alone.wait_for(lambda: slurm_alone.state(spare) == "RUNNING")
    other = slurm_alone.sbatch("true", "-pmain", "-wn3", "--exclusive")
    assert slurm_alone.wait(other) == "COMPLETED"
    assert "PREEMPTED" in slurm_alone.sacct(spare, "State", "-X", "-D")
    assert slurm_alone.wait(spare) == "COMPLETED"


def test_a_job_outlives_a_restart_of_the_controller(slurm_alone):
    job = slurm_alone.sbatch("sleep 6")
    slurm_alone.wait_for(lambda: slurm_alone.state(job) == "RUNNING")
    slurm_alone.restart_controller()
    assert slurm_alone.state(job) == "RUNNING"
    assert slurm_alone.wait(job) == "COMPLETED"


def test_a_killed_node_and_a_cut_one_and_a_time_limit(slurm_alone, request):
    """Each takes a minute, so all three at once."""
    if not request.config.getoption("--long"):
        pytest.skip("waits for more than a minute: give --long")
    slurm = slurm_alone
    late = slurm.sbatch("sleep 90", "--time=1", "-wn1")
    fails = slurm.sbatch("sleep 300", "-wn4", "--no-requeue")
    again = slurm.sbatch("sleep 8", "-wn4", "--requeue")
    slurm.wait_for(lambda: {slurm.state(job) for job in (late, fails, again)} == {"RUNNING"})
    slurm.kill("n4")
    slurm.cut("n3")
    slurm.wait_for(lambda: slurm.node_state("n4") == "down*", 60)
    assert slurm.wait(fails) == "NODE_FAIL"
    slurm.start("n4")
    slurm.wait_for(lambda: slurm.node_state("n3") == "down*", 60)
    slurm.heal("n3")
    assert slurm.wait(again, 60) == "COMPLETED"
    assert "NODE_FAIL" in slurm.sacct(again, "State", "-X", "-D")
    slurm.wait_for(lambda: slurm.node_state("n3") == "idle", 90)
    assert slurm.wait(late, 120) == "TIMEOUT"
