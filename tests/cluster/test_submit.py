"""Runs that are submitted: farms as arrays, programs on several nodes, and their end."""

from __future__ import annotations

import json
import shutil
import time

import h5py
import numpy as np
import pytest
from cluster.hpckit_there import There

pytest.importorskip("mpi4py")

DRAW = """
    import os, time
    from hpckit import farm

    @farm(mem="100M", walltime="5m")
    def draw(task, n: int = 3):
        time.sleep(float(os.environ.get("NAP", 0)))
        print("task", task.index)
        return {"x": task.rng.random(n)}
"""

WALK = """
    import time
    import numpy as np
    from hpckit import spmd

    @spmd(ntasks=4, nodes=2, walltime="5m")
    def walk(run, steps: int = 30, sleep: float = 0.1):
        x, first = np.zeros(3), 0
        if saved := run.restore():
            x, first = saved["x"], saved["step"]
        for step in range(first + 1, steps + 1):
            x = x + run.rng.random(3)
            time.sleep(sleep)
            run.record("mean", run.comm.allreduce(x.mean()) / run.size, step=step)
            run.progress(step, steps)
            if run.must_stop():
                run.checkpoint(step=step, x=x)
        run.save("x", x, offset=(3 * run.rank,), shape=(3 * run.size,), dims=("x",))
        run.save("local_ranks", np.array([run.local_rank]), offset=(run.rank,), shape=(run.size,),
                 dims=("rank",))
"""


@pytest.fixture
def there(slurm):
    """hpckit on the cluster, which other tests use too."""
    return There(slurm)


def test_a_farm_as_an_array_gives_the_local_digest_by_itself(there):
    there.job(DRAW)
    run = there.submit("job.py", "n=range(1,41)", "--elements", 5, "--workers", 2)
    manifest = there.manifest(run)
    assert manifest.state == "submitted"
    (array,) = manifest.submissions[-1].jobs
    assert (array.elements, manifest.submissions[-1].tasks) == (5, 40)
    assert there.slurm.wait(array.id) == "COMPLETED"
    # Nobody has asked hpckit anything: the last element has put the results together.
    there.slurm.wait_for(lambda: there.manifest(run).state == "completed")
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,41)")
    assert there.run("wait", run).code == 0
    assert "task 39" in there("logs", run, "--task", 39)
    assert sum(1 for _ in run.rglob("*")) <= 30


def test_ising_in_one_allocation(there):
    given = ("ising", "T=linspace(1.5,3.5,9)", "L=8", "sweeps=100")
    run = there.submit(*given, "--elements", 1)
    assert there.run("wait", run).code == 0
    assert there.digest(run) == there.local_digest(*given)


@pytest.mark.parametrize("launcher", ["srun", "mpiexec"])
def test_a_program_on_two_nodes_gives_the_local_digest(there, launcher):
    there.job(WALK)
    there.site.write_text(there.site_text.replace('"srun"', f'"{launcher}"'))
    run = there.submit("job.py", "steps=5", "--ranks", 4)
    ended = there.run("wait", run)
    assert ended.code == 0, ended
    assert "4 ranks done" in ended.stdout
    manifest = there.manifest(run)
    assert manifest.environment["host"] in there.slurm.cluster.nodes
    with h5py.File(run / "results.h5") as file:
        local = sorted(file["local_ranks"][()].tolist())
    assert local in ([0, 0, 1, 1], [0, 0, 1, 2])
    here = there.folder / "here"
    there("run", "job.py", "steps=5", "--ranks", 4, "--output", here)
    with h5py.File(run / "results.h5") as a, h5py.File(*here.glob("*/results.h5")) as b:
        assert np.array_equal(a["x"][()], b["x"][()])
        assert np.array_equal(a["mean"][()], b["mean"][()])


def test_a_program_that_is_stopped_again_and_again_ends_the_same(there, request):
    if not request.config.getoption("--long"):
        pytest.skip("cavity is stopped too, on more ranks: give --long")
    there.job(WALK)
    run = there.submit("job.py")
    (job,) = there.jobs(run)
    for _ in range(2):
        there.slurm.wait_for(lambda: there.state(run)["done"] not in (None, 0), 90)
        time.sleep(0.5)
        # What Slurm sends when the time is nearly up.
        there.slurm("scancel", "--batch", "--signal=USR1", job)
        there.slurm.wait_for(lambda: there.slurm.state(job) == "PENDING", 30)
        assert there.manifest(run).state == "submitted"
    assert there.run("wait", run).code == 0
    states = there.slurm.sacct(job, "State", "-X", "-D")
    assert states == ["REQUEUED", "REQUEUED", "COMPLETED"]
    here = there.folder / "here"
    there("run", "job.py", "--output", here)
    with h5py.File(run / "results.h5") as a, h5py.File(*here.glob("*/results.h5")) as b:
        assert np.array_equal(a["x"][()], b["x"][()])
        assert np.array_equal(a["mean"][()], b["mean"][()])


def test_cavity_in_slices_equals_cavity_in_one(there, request):
    """With --long the walltime cuts it; else the signal that the walltime would send."""
    is_long = request.config.getoption("--long")
    given = ("n=256", "tolerance=0", "max_time=200") if is_long else ("n=48", "tolerance=0")
    run = there.submit("cavity", *given, "--ranks", 4, "--walltime", "1m")
    (job,) = there.jobs(run)
    waiting = there.start("wait", run)
    for _ in range(0 if is_long else 1):
        before = last_step(run)
        there.slurm.wait_for(lambda step=before: last_step(run) > step, 90)
        there.slurm("scancel", "--batch", "--signal=USR1", job)
        there.slurm.wait_for(lambda: there.slurm.state(job) == "PENDING", 30)
    stdout, stderr = waiting.communicate(timeout=900)
    assert waiting.returncode == 0, (stdout, stderr)
    states = there.slurm.sacct(job, "State", "-X", "-D")
    assert states.count("REQUEUED") >= (2 if is_long else 1)
    assert there.digest(run) == there.local_digest("cavity", *given, "--ranks", 4)


def last_step(run) -> int:
    """Return the number of the step of a run's latest checkpoint, 0 before the first."""
    latest = run / "checkpoint" / "latest.json"
    return json.loads(latest.read_text())["step"] if latest.is_file() else 0


def test_a_farm_that_is_stopped_goes_on_from_what_is_sealed(there):
    there.job(DRAW)
    run = there.submit("job.py", "n=range(1,101)", "--elements", 1, "--workers", 2, nap=0.2)
    (job,) = there.jobs(run)
    there.slurm.wait_for(lambda: there.state(run)["done"] > 5, 60)
    there.slurm("scancel", "--batch", "--signal=USR1", f"{job}_0")
    there.slurm.wait_for(lambda: there.slurm.state(job) == "PENDING", 30)
    before = there.state(run)["done"]
    assert 5 < before < 100
    assert there.run("wait", run).code == 0
    with h5py.File(run / "results.h5") as file:
        assert set(file["tasks/attempts"][()]) == {1}
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,101)")


def test_cancel_and_resume_submits_what_is_missing_alone(there):
    there.job(DRAW)
    run = there.submit("job.py", "n=range(1,31)", "--elements", 3, nap=2)
    there.slurm.wait_for(lambda: there.state(run)["done"] > 3, 60)
    busy = there.run("resume", run)
    assert busy.code == 2
    assert "have not ended: `hpckit wait" in busy.stderr
    assert "interrupted" in there("cancel", run)
    status = there.state(run)
    assert status["state"] == "interrupted"
    assert status["reason"].startswith("cancelled: 3 of 3 elements")
    assert 3 < status["done"] < 30
    assert there("resume", run).split(": ")[1].startswith("array")
    submission = there.manifest(run).submissions[-1]
    assert (submission.session, submission.tasks) == (2, 30 - status["done"])
    assert there.run("wait", run).code == 0
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,31)")
    assert "nothing is missing" in there("resume", run)


def test_failed_tasks_alone_are_retried(there):
    there.job("""
        from pathlib import Path
        from hpckit import farm

        @farm(mem="100M", walltime="5m")
        def f(n: int = 0):
            if n % 5 == 0 and not Path("mended").exists():
                raise ValueError(f"not {n}")
            return n * n
    """)
    run = there.submit("job.py", "n=range(20)", "--elements", 2, "--workers", 1)
    ended = there.run("wait", run)
    assert ended.code == 3
    assert "task 0 failed: ValueError: not 0" in ended.stderr
    assert there.state(run)["reason"] == "4 of 20 tasks failed"
    (there.folder / "mended").touch()
    there("retry", run)
    assert there.manifest(run).submissions[-1].tasks == 4
    assert there.run("wait", run).code == 0
    with h5py.File(run / "results.h5") as file:
        assert file["result"][()].tolist() == [n * n for n in range(20)]
        assert file["tasks/attempts"][()].tolist() == [2 if n % 5 == 0 else 1 for n in range(20)]


def test_what_was_submitted_can_be_resumed_here_and_the_other_way_round(there):
    there.job(DRAW)
    run = there.submit("job.py", "n=range(1,9)", "--hold")
    there("cancel", run)
    assert "8 tasks done" in there("resume", run, "--here")
    mixed = there.run("resume", run, "--here", "--site", "./here.toml")
    assert "--here and --site exclude each other" in mixed.stderr


def test_an_array_is_split_at_the_limit_and_throttled_in_all(there):
    there.job(DRAW)
    text = there.site_text.replace("max_array_size = 1001", "max_array_size = 4")
    there.site.write_text(text)
    given = ("n=range(1,31)", "--elements", 10, "--workers", 1, "--max-running", 2)
    run = there.submit("job.py", *given)
    arrays = there.manifest(run).submissions[-1].jobs
    assert [(array.first, array.elements) for array in arrays] == [(0, 4), (4, 4), (8, 2)]
    assert there.run("wait", run).code == 0
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,31)")


def test_more_elements_than_the_site_takes_are_refused(there):
    there.job(DRAW)
    refused = there.run("submit", "job.py", "n=range(1000)", "--elements", 501)
    assert refused.code == 2
    assert "--elements 501: here takes 500 jobs of a user at a time" in refused.stderr
    assert not list((there.folder / "runs").iterdir())


def test_after_hold_and_further_options(there):
    there.job(DRAW)
    first = there.submit("job.py", "n=2", "--hold")
    second = there.submit("job.py", "n=3", "--after", first, "--sbatch", "nice=7")
    there.slurm.wait_for(lambda: there.state(second)["waits_for"] == "Dependency")
    assert there.state(first)["waits_for"] == "JobHeldUser"
    assert "#SBATCH --nice=7\n" in (second / "job.sh").read_text()
    there.slurm("scontrol", "release", *there.jobs(first))
    assert there.run("wait", second).code == 0
    assert there.state(first)["state"] == "completed"


def test_what_depends_on_a_run_that_fails_does_not_wait_for_ever(there):
    there.job("""
        from hpckit import farm

        @farm(mem="100M", walltime="5m")
        def f(n: int = 0):
            raise ValueError("no")
    """)
    first = there.submit("job.py", "--hold")
    second = there.submit("job.py", "--after", first)
    there.slurm("scontrol", "release", *there.jobs(first))
    assert there.run("wait", first).code == 3
    assert there.run("wait", second).code == 1
    assert there.state(second)["reason"].startswith("cancelled")
    late = there.run("submit", "job.py", "--after", first)
    assert (late.code, "it is failed, and will not end well" in late.stderr) == (2, True)


def test_dry_run_prints_the_script_and_asks_slurm(there):
    there.job(DRAW)
    ended = there.run("submit", "job.py", "n=range(9)", "--dry-run")
    assert ended.code == 0
    assert ended.stdout.startswith("#!/bin/bash\n# draw: 9 tasks")
    assert "to start at" in ended.stderr
    assert not (there.folder / "runs").exists()


def test_ids_that_were_lost_are_found_by_the_comment(there):
    there.job(DRAW)
    run = there.submit("job.py", "n=range(1,5)", "--hold", "--elements", 2)
    jobs = there.jobs(run)
    # As if hpckit had been killed between sbatch and its own note.
    manifest = there.manifest(run)
    lost = manifest.submissions[-1].model_copy(update={"jobs": None})
    manifest.with_submission(lost).write(run / "run.json")
    assert there.state(run)["jobs"] == {"pending": 2}
    assert there.jobs(run) == jobs
    there("cancel", run)


def test_logs_follow_a_run_to_its_end(there):
    there.job(WALK)
    run = there.submit("job.py", "steps=3")
    ended = there.run("logs", "--follow", run)
    assert ended.code == 0
    assert ended.stderr.endswith(f"{run.name}: completed\n")


def test_a_foreign_mpi_program_runs_as_a_command_job(there):
    if shutil.which("lmp") is None:
        pytest.skip("needs LAMMPS: apt-get install lammps")
    melt = there.folder / "melt"
    shutil.copytree(shutil.os.path.dirname(__import__("hpckit.jobs").jobs.__file__), melt)
    text = (melt / "melt.toml").read_text()
    text = text.replace("cpus_per_task = 1", "ntasks = 4\nnodes = 2").replace("20000", "500")
    count = 'ranks = { regex = "on (\\\\d+) procs", type = "int", which = "last" }'
    (melt / "melt.toml").write_text(text.replace("[results]", f"[results]\n{count}"))
    run = there.submit("melt/melt.toml", "rho=0.78,0.8")
    ended = there.run("wait", run)
    if ended.code:
        pytest.fail(there("logs", run), pytrace=False)
    with h5py.File(run / "results.h5") as file:
        assert file["ranks"][()].tolist() == [4, 4]
        assert np.all(np.abs(file["temperature"][()] - 0.85) < 0.1)
    assert not list(run.glob("hpckit-*"))


def test_status_and_ls_know_what_is_pending_and_running(there):
    there.job(DRAW)
    held = there.submit("job.py", "--hold")
    running = there.submit("job.py", "n=range(1,5)", "--elements", 2, nap=60)
    there.slurm.wait_for(lambda: there.state(running)["jobs"] == {"running": 2}, 60)
    listed = json.loads(there("ls", "--json"))
    assert {entry["id"]: entry["state"] for entry in listed} == {
        held.name: "pending",
        running.name: "running",
    }
    there("cancel", running)
    there("cancel", held)
