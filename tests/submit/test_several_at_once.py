"""Several processes at one run, files that change under it, and what sites do."""

from __future__ import annotations

import json

import h5py
import pytest
from drawing import DRAW, SITE

from hpckit.cli.again import submit_again, wish_again
from hpckit.errors import BusyError
from hpckit.jobstates import JobState, JobStatus, Standing
from hpckit.store.block import TaskState
from hpckit.store.create import reopen
from hpckit.store.rundir import RunDir
from hpckit.submit.settle import close


def test_an_element_that_sees_too_little_does_not_end_the_run(there):
    """As where the list of a shared folder lags: what it does not see is not done."""
    run = there.submit(
        "job.py", "n=range(1,9)", "--elements", 2, "--workers", 1, "--max-running", 1
    )
    there.slurm.wait_for(lambda: len(list((run / "segments").glob("w1e000000*"))) == 1)
    (segment,) = (run / "segments").glob("w1e000000*")
    away = segment.rename(there.folder / segment.name)
    there.slurm.wait_for(lambda: not there.slurm("squeue", "-h"))
    assert there.manifest(run).state == "submitted"
    away.rename(segment)
    assert there.run("wait", run).code == 0
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,9)")


def test_what_was_seen_of_one_session_does_not_close_the_next(there):
    run = there.submit("job.py", "n=range(1,5)", "--hold", "--elements", 1)
    there("cancel", run)
    there("resume", run)
    ended = Standing([JobStatus(f"{there.jobs(run)[0]}_0", JobState.CANCELLED)], session=1)
    assert close(RunDir(run), ended).state == "submitted"
    assert there.run("wait", run).code == 0


def test_two_that_resume_submit_once(there, monkeypatch):
    run = there.submit("job.py", "n=range(1,5)", "--hold", "--elements", 1)
    there("cancel", run)
    there.slurm.use(monkeypatch)
    late = reopen(RunDir(run))
    there("resume", run)
    states = frozenset({TaskState.MISSING})
    with pytest.raises(BusyError, match="has gone on meanwhile"):
        submit_again(late, late.manifest.submissions[-1].site, wish_again(late), states)
    assert there.slurm("squeue", "-h", "-r").count("\n") <= 1
    assert there.run("wait", run).code == 0


def test_looking_does_not_end_a_run_whose_jobs_are_not_known(there):
    run = there.submit("job.py", "--hold", "--elements", 1)
    (job,) = there.jobs(run)
    nothing = there.folder / "bin"
    nothing.mkdir()
    for name in ("sacct", "squeue"):
        (nothing / name).write_text("#!/bin/sh\n")
        (nothing / name).chmod(0o755)
    there_is_nothing = {"PATH": f"{nothing}:{there.slurm.env['PATH']}"}
    told = json.loads(there.run("status", run, "--json", env=there_is_nothing).stdout)
    assert told["state"] == "unknown"
    there("show", run)
    assert there.manifest(run).state == "submitted"
    there.slurm("scontrol", "release", job)
    assert there.run("wait", run).code == 0


@pytest.mark.parametrize("what", ["helper.py", "data.txt"])
def test_what_was_changed_while_the_job_waited_is_not_used(there, what):
    there.job("""
        from pathlib import Path
        import helper
        from hpckit import farm

        @farm(mem="100M", walltime="5m")
        def use(data: Path = Path("data.txt"), n: int = 1):
            return helper.FACTOR * int(data.read_text()) * n
    """)
    (there.folder / "helper.py").write_text("FACTOR = 1\n")
    (there.folder / "data.txt").write_text("1")
    run = there.submit("job.py", "n=1,2", "--hold", "--elements", 1)
    before = (there.folder / what).read_text()
    (there.folder / what).write_text(before.replace("1", "2"))
    there.slurm("scontrol", "release", *there.jobs(run))
    assert there.run("wait", run).code == 1
    assert f"{what}, " in there("logs", run)
    assert "was changed since the run began" in there("logs", run)
    (there.folder / what).write_text(before)
    there("resume", run)
    assert there.run("wait", run).code == 0


def test_a_cancelled_element_is_not_tried_again_by_itself(there):
    there.job(DRAW.format(walltime="5m", options=', max_restarts=0, retries={"node_fail": 2}'))
    run = there.submit("job.py", "n=range(1,4)", "--elements", 3, "--workers", 1, nap=60)
    there.slurm.wait_for(lambda: there.state(run)["jobs"] == {"running": 3})
    (job,) = there.jobs(run)
    there.slurm.end(f"{job}_0", "NODE_FAIL")
    there.slurm.end(f"{job}_1", "NODE_FAIL")
    there.slurm("scancel", f"{job}_2")
    assert there.run("wait", run).code == 1
    assert len(there.manifest(run).submissions) == 1


def test_a_submitter_killed_between_two_arrays_leaves_no_orphan(there):
    there.site.write_text(SITE.replace("1001", "2"))
    run = there.submit("job.py", "n=range(1,5)", "--hold", "--elements", 4)
    manifest = there.manifest(run)
    latest = manifest.submissions[-1]
    assert len(latest.jobs) == 2
    half = latest.model_copy(update={"jobs": latest.jobs[:1]})
    manifest.with_submission(half).write(run / "run.json")
    assert there.state(run)["jobs"] == {"pending": 4}
    assert there.jobs(run) == latest.ids
    manifest.with_submission(half).write(run / "run.json")
    there("cancel", run)
    assert there.slurm("squeue", "-h") == ""


def test_a_site_whose_sbatch_says_more_than_the_id(there):
    chatty = there.folder / "bin"
    chatty.mkdir()
    real = there.slurm("sh", "-c", "command -v sbatch").strip()
    (chatty / "sbatch").write_text(
        f'#!/bin/sh\n{real} "$@"\necho "Your project has 12 hours left."\n'
    )
    (chatty / "sbatch").chmod(0o755)
    env = {"PATH": f"{chatty}:{there.slurm.env['PATH']}"}
    ended = there.run("submit", "job.py", "n=range(1,5)", env=env)
    assert ended.code == 0, ended
    (run,) = (there.folder / "runs").iterdir()
    assert there.run("wait", run).code == 0


def test_a_damaged_segment_costs_its_tasks_alone(there):
    run = there.submit("job.py", "n=range(1,9)", "--hold", "--elements", 2, "--workers", 1)
    (job,) = there.jobs(run)
    there.slurm("scontrol", "release", f"{job}_0")
    there.slurm.wait_for(lambda: list((run / "segments").glob("w1e000000*")))
    there.slurm.wait_for(lambda: "RUNNING" not in there.slurm("squeue", "-h", "-o", "%T"))
    (segment,) = (run / "segments").glob("w1e000000*")
    segment.write_bytes(segment.read_bytes()[:-100])
    there("cancel", run)
    state = there.state(run)
    assert (state["state"], state["done"]) == ("interrupted", 0)
    there("resume", run)
    assert there.run("wait", run).code == 0
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,9)")


def test_what_a_site_sets_for_its_jobs_is_not_in_the_results(there):
    there.site.write_text(f'{SITE}\n[environment]\nAPI_TOKEN = "s3cret"\n')
    run = there.submit("job.py", "--elements", 1)
    assert there.run("wait", run).code == 0
    assert b"s3cret" not in (run / "results.h5").read_bytes()
    assert (run / "job.sh").stat().st_mode & 0o077 == 0


def test_a_submission_from_within_a_job_takes_nothing_of_it_along(there):
    there.job("""
        import os
        from hpckit import farm

        @farm(mem="100M", walltime="5m")
        def seen(name: str = ""):
            return {"value": os.environ.get(name, "-")}
    """)
    around = {"SLURM_MEM_PER_CPU": "77", "HPCKIT_LAUNCHER": "srun", "SBATCH_TIMELIMIT": "1"}
    ended = there.run("submit", "job.py", "name=SLURM_MEM_PER_CPU,HPCKIT_LAUNCHER", env=around)
    assert ended.code == 0
    (run,) = (there.folder / "runs").iterdir()
    assert there.run("wait", run).code == 0
    with h5py.File(run / "results.h5") as file:
        assert file["value"].asstr()[()].tolist() == ["-", "-"]


def test_workers_are_no_more_than_an_element_has_tasks(there):
    run = there.submit("job.py", "n=range(1,9)", "--elements", 8, "--hold")
    assert there.manifest(run).submissions[-1].workers == 1


def test_memory_that_no_partition_has_ends_the_policy_and_not_the_word_about_the_run(there):
    small = '[[partitions]]\nname = "main"\nmem_per_node = "150M"\n'
    there.site.write_text(f"{SITE}\n{small}")
    options = ', max_restarts=0, on_out_of_memory="double up to 4G"'
    there.job(DRAW.format(walltime="5m", options=options))
    run = there.submit("job.py", "--elements", 1, nap=60)
    there.slurm.wait_for(lambda: there.state(run)["jobs"] == {"running": 1})
    there.slurm.end(f"{there.jobs(run)[0]}_0", "OUT_OF_MEMORY")
    ended = there.run("wait", run)
    assert ended.code == 1
    assert "the policy cannot be applied: no partition of here fits" in ended.stderr
    assert "out_of_memory" in ended.stderr.splitlines()[-1]
