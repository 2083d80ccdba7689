"""`hpckit efficiency` on a real Slurm: what it says is what the tasks used."""

from __future__ import annotations

import json

import pytest
from cluster.hpckit_there import There

MB = 10**6

BURN = """
    import time
    import numpy as np
    from hpckit import farm

    @farm(mem="600M", walltime="20m")
    def burn(task, n: int = 0):
        held = np.ones(200_000_000, np.uint8)
        end = time.process_time() + 3
        while time.process_time() < end:
            held[::4096] += 1
        return {"x": int(held[0])}
"""

FLOW = """
    import time
    import numpy as np
    from hpckit import spmd

    @spmd(ntasks=4, nodes=2, mem="900M", walltime="20m")
    def flow(run):
        held = np.ones(100_000_000, np.uint8)
        end = time.process_time() + 3
        while time.process_time() < end:
            held[::4096] += 1
        run.record("ranks", run.comm.allreduce(int(held[0] > 0)))
"""


@pytest.fixture
def there(slurm):
    """hpckit on the cluster, which other tests use too."""
    return There(slurm)


def efficiency(there, run):
    """Return what it says once accounting, which lags, has got all of it."""

    def told():
        return json.loads(there("efficiency", run, "--json"))

    def has_all():
        return all(
            job["memory_source"] == "accounting" and job["cpu_seconds"] for job in told()["jobs"]
        )

    there.slurm.wait_for(has_all)
    return told()


def test_a_farm_that_burns_cpu_time(there):
    there.job(BURN, "burn.py")
    run = there.submit("burn.py", "n=range(0,4)", "--elements", 2, "--workers", 1)
    there("wait", run)
    found = efficiency(there, run)
    assert (found["state"], found["unended"]) == ("completed", 0)
    (array,) = there.jobs(run)
    assert [job["id"] for job in found["jobs"]] == [f"{array}_0", f"{array}_1"]
    for job in found["jobs"]:
        # Two tasks, of 3 s each.
        assert 6 <= job["cpu_seconds"] <= 16
        assert 200 * MB <= job["peak_bytes"] <= 400 * MB
        assert job["asked_bytes"] == 600 * 2**20
        assert (job["state"], job["attempts"], job["limit"]) == ("completed", 1, 1200)
        assert job["cpu"] == job["cpu_seconds"] / job["cpu_seconds_given"]
        # How large that is, is up to who else uses the machine: times mean nothing here.
    assert all(found[name]["known"] == 2 for name in ("cpu", "memory", "walltime"))
    suggested = {one["name"]: one for one in found["suggestions"]}
    assert suggested["mem"]["line"] == f"mem = {suggested['mem']['value']}"
    assert suggested["walltime"]["asked"] == "20m"
    shown = there("efficiency", run)
    assert f"{array}_0  completed" in shown
    assert "suggested for the job" in shown


def test_a_program_on_two_nodes(there):
    pytest.importorskip("mpi4py")
    there.job(FLOW, "flow.py")
    run = there.submit("flow.py")
    there("wait", run)
    found = efficiency(there, run)
    (job,) = found["jobs"]
    assert (job["nodes"], job["cpus"], job["element"]) == (2, 4, None)
    assert 12 <= job["cpu_seconds"] <= 1.1 * job["cpu_seconds_given"]
    # Two or three ranks are on the fullest node.
    assert 200 * MB <= job["peak_bytes"] <= 700 * MB
    assert job["asked_bytes"] == 900 * 2**20
    assert {"mem", "walltime"} <= {one["name"] for one in found["suggestions"]}
