"""Submitted runs on clusters that forget, lie, or do not answer."""

from __future__ import annotations

import json
import stat

import h5py
from drawing import DRAW


def test_an_array_without_accounting(there):
    there.slurm.trouble("no-accounting")
    run = there.submit("job.py", "n=range(1,21)", "--elements", 3, "--workers", 1)
    assert there.run("wait", run).code == 0
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,21)")


def test_failed_tasks_without_accounting(there):
    there.slurm.trouble("no-accounting")
    run = there.submit("job.py", "n=98,99", "--elements", 2, "--workers", 1)
    ended = there.run("wait", run)
    assert ended.code == 3
    assert "task 1 failed: ValueError: not 99" in ended.stderr


def test_a_job_that_vanished_is_not_a_job_that_succeeded(there):
    run = there.submit("job.py", "n=range(1,5)", "--elements", 1, "--workers", 1, nap=60)
    (job,) = there.jobs(run)
    there.slurm.wait_for(lambda: there.state(run)["jobs"] == {"running": 1})
    there.slurm.trouble("no-accounting")
    there.slurm.vanish(f"{job}_0")
    ended = there.run("wait", run)
    assert ended.code == 1
    assert "failed: unknown: neither queue nor accounting knows it any more" in ended.stderr
    there.slurm.trouble("no-accounting", False)
    there("resume", run)
    assert there.manifest(run).submissions[0].outcome == {"unknown": 1}


def test_a_submission_whose_answer_is_lost_is_not_repeated(there):
    there.slurm.trouble("unheard")
    process = there.start("submit", "job.py", "n=range(1,5)", "--hold", "--elements", "2")
    there.slurm.wait_for(lambda: there.slurm("squeue", "-h", "-r").count("\n") == 2)
    there.slurm.trouble("unheard", False)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    (run,) = (there.folder / "runs").iterdir()
    assert len(there.jobs(run)) == 1
    assert there.slurm("squeue", "-h", "-r").count("\n") == 2


def test_a_controller_that_never_answers_leaves_a_run_that_can_be_found(there):
    there.slurm.trouble("unheard")
    ended = there.run("submit", "job.py", "--hold", env={"HPCKIT_SLURM_PATIENCE": "1"})
    assert ended.code in (0, 1)
    there.slurm.trouble("unheard", False)
    (run,) = (there.folder / "runs").iterdir()
    assert there.state(run)["jobs"] == {"pending": 1}


def test_status_while_the_controller_is_down(there):
    run = there.submit("job.py", "--hold")
    there.slurm.down()
    ended = there.run("status", run, env={"HPCKIT_SLURM_PATIENCE": "1"})
    assert ended.code == 0
    assert "is slurmctld or munge down?" in ended.stderr + ended.stdout
    there.slurm.up()
    assert there.state(run)["state"] == "pending"


def test_a_farm_in_slices_of_walltime(there):
    there.slurm.env["FAKE_SLURM_MINUTE"] = "6"
    there.job(DRAW.format(walltime="1m", options=', warning="20s"'))
    run = there.submit("job.py", "n=range(1,41)", "--elements", 1, "--workers", 2, nap=0.5)
    ended = there.run("wait", run)
    assert ended.code == 0, (ended, there("logs", run))
    (job,) = there.jobs(run)
    states = there.slurm.sacct(job, "State", "-X", "-D")
    assert states.count("REQUEUED") >= 2
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,41)")


def test_restarts_end_at_their_number(there):
    there.slurm.env["FAKE_SLURM_MINUTE"] = "6"
    there.job(DRAW.format(walltime="1m", options=', warning="20s", max_restarts=1'))
    run = there.submit("job.py", "n=range(1,41)", "--elements", 1, "--workers", 1, nap=0.5)
    ended = there.run("wait", run)
    assert ended.code == 1
    assert "interrupted: timeout" in ended.stderr
    assert there.slurm.sacct(there.jobs(run)[0], "State", "-X", "-D").count("REQUEUED") == 1
    assert 0 < there.state(run)["done"] < 40


def test_a_task_longer_than_the_walltime_does_not_go_back_for_ever(there):
    there.slurm.env["FAKE_SLURM_MINUTE"] = "4"
    there.job(DRAW.format(walltime="1m", options=', warning="20s"'))
    run = there.submit("job.py", "--elements", 1, nap=30)
    ended = there.run("wait", run)
    assert (ended.code, "timeout" in ended.stderr) == (1, True)
    assert len(there.slurm.sacct(there.jobs(run)[0], "State", "-X", "-D")) == 1


def test_a_preempted_element_goes_on(there):
    run = there.submit("job.py", "n=range(1,11)", "--elements", 1, "--workers", 1, nap=0.4)
    there.slurm.wait_for(lambda: there.state(run)["done"] > 1)
    there.slurm.end(f"{there.jobs(run)[0]}_0", "PREEMPTED")
    assert there.run("wait", run).code == 0
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,11)")


def test_retries_of_a_class_end_at_their_number(there):
    there.job(DRAW.format(walltime="5m", options=', max_restarts=0, retries={"node_fail": 2}'))
    run = there.submit("job.py", "--elements", 1, nap=60)
    process = there.start("wait", run)
    for number in range(1, 4):
        there.slurm.wait_for(lambda n=number: len(there.manifest(run).submissions) == n)
        there.slurm.wait_for(lambda: there.jobs(run))
        job = f"{there.jobs(run)[0]}_0"
        there.slurm.wait_for(lambda j=job: there.slurm.state(j) == "RUNNING")
        there.slurm.end(job, "NODE_FAIL")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "submitted again (try 2 of 2)" in stderr
    assert [s.cause for s in there.manifest(run).submissions] == [None, "node_fail", "node_fail"]


def test_an_element_of_an_earlier_session_does_nothing(there):
    run = there.submit("job.py", "n=range(1,5)", "--hold", "--elements", 1)
    there("cancel", run)
    there("resume", run, "--here")
    done = there.run("exec", run, "--session", 1, "--element", 0)
    assert done.code == 2
    assert "its session 1 is over" in done.stderr


def test_many_runs_are_one_question_to_sacct(there):
    first = there.submit("job.py", "--hold")
    manifest = json.loads((first / "run.json").read_text())
    for number in range(50):
        run = first.with_name(f"draw-20260101-{number:06d}-beef")
        run.mkdir()
        (run / "run.json").write_text(json.dumps({**manifest, "id": run.name}))
        (run / "segments").mkdir()
    counting = there.folder / "bin"
    counting.mkdir()
    sacct = counting / "sacct"
    real = there.slurm("sh", "-c", "command -v sacct").strip()
    sacct.write_text(f'#!/bin/sh\necho asked >> {there.folder}/asked\nexec {real} "$@"\n')
    sacct.chmod(sacct.stat().st_mode | stat.S_IXUSR)
    path = f"{counting}:{there.slurm.env['PATH']}"
    listed = there.run("ls", "--json", env={"PATH": path})
    assert [entry["state"] for entry in json.loads(listed.stdout)] == ["pending"] * 51
    assert (there.folder / "asked").read_text() == "asked\n"


def test_results_are_whole_whoever_looks_first(there):
    run = there.submit("job.py", "n=98,99,3", "--elements", 3, "--workers", 1)
    there.slurm.wait_for(lambda: not there.slurm("squeue", "-h"))
    assert not (run / "results.h5").exists()
    assert "1 failed" in there("show", run)
    with h5py.File(run / "results.h5") as file:
        assert file["task_state"][()].tolist() == [1, 2, 1]
    assert sum(1 for _ in (run / "segments").iterdir()) == 0
