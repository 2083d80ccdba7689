"""What only the fake Slurm does, or the real one only slowly."""

from __future__ import annotations

import subprocess
import time

import pytest
from fakes import indices, processes
from fakes.asking import FAILED, SCRIPT, ends, held, printed, run, shown


def test_as_many_run_at_a_time_as_there_are_cpus(fake_slurm):
    fake_slurm.env["FAKE_SLURM_CPUS"] = "2"
    text = (
        "touch now-$SLURM_ARRAY_TASK_ID; ls now-* | wc -l; sleep 0.2; rm now-$SLURM_ARRAY_TASK_ID"
    )
    job = fake_slurm.sbatch(text, "--array=0-5", "-o", "%a.log")
    assert shown(fake_slurm, job, "%K %r", "-tPD")[0].endswith("Resources")
    assert fake_slurm.wait(job) == "COMPLETED"
    counts = [int((fake_slurm.directory / f"{i}.log").read_text()) for i in range(6)]
    assert max(counts) <= 2


def test_an_arrays_own_limit(fake_slurm):
    job = fake_slurm.sbatch("sleep 60", "--array=0-3%1")
    assert shown(fake_slurm, job, "%i %T %r") == [
        f"{job}_[1-3%1] PENDING JobArrayTaskLimit",
        f"{job}_0 RUNNING None",
    ]
    fake_slurm("scancel", f"{job}_0")
    fake_slurm.wait_for(lambda: f"{job}_1 RUNNING" in shown(fake_slurm, job, "%i %T"))


def test_a_requeued_job_runs_again(fake_slurm):
    text = "echo ${SLURM_RESTART_COUNT-first}; [ $SLURM_RESTART_COUNT ] || sleep 60"
    jobs = [fake_slurm.sbatch(text, f"--open-mode={mode}") for mode in ("append", "truncate")]
    fake_slurm.wait_for(lambda: all("first" in printed(fake_slurm, job) for job in jobs))
    fake_slurm("scontrol", "requeue", ",".join(jobs))
    for job in jobs:
        ends(fake_slurm, job, {job: "COMPLETED|0:0"})
        assert fake_slurm.sacct(job, "JobIDRaw,State", "-X", "-D") == [
            f"{job}|REQUEUED",
            f"{job}|COMPLETED",
        ]
    kept, new = map(fake_slurm.output, jobs)
    assert "DUE TO JOB REQUEUE" in kept
    assert (kept.startswith("first\n"), kept.endswith("1\n"), new) == (True, True, "1\n")


def test_no_requeue(fake_slurm):
    job = fake_slurm.sbatch("sleep 60", "--no-requeue")
    answer = run(fake_slurm, "scontrol", "requeue", job)
    said = f"Requested operation is presently disabled for job {job}\n"
    assert (answer.returncode, answer.stderr) == (1, said)


def test_the_time_limit_and_the_signal_before_it(fake_slurm):
    fake_slurm.env["FAKE_SLURM_MINUTE"] = "1"
    text = "trap 'echo warned' USR1; trap 'echo ended' TERM; while :; do sleep 0.05; done"
    job = fake_slurm.sbatch(text, "--time=1", "--signal=B:USR1@30")
    assert fake_slurm.wait(job) == "TIMEOUT"
    ends(fake_slurm, job, {job: "TIMEOUT|0:0", f"{job}.batch": "CANCELLED|0:9"}, "-P")
    said = fake_slurm.output(job).splitlines()
    assert (said[0], said[2]) == ("warned", "ended")
    assert said[1].endswith("DUE TO TIME LIMIT ***")


@pytest.mark.parametrize(
    ("state", "row"),
    [("OUT_OF_MEMORY", "0:125"), ("NODE_FAIL", "0:0"), ("PREEMPTED", "0:0"), ("TIMEOUT", "0:0")],
)
def test_a_job_is_made_to_end(fake_slurm, state, row):
    array = fake_slurm.sbatch("sleep 60", "--array=0-1", "--no-requeue")
    fake_slurm.end(f"{array}_1", state)
    ends(fake_slurm, array, {f"{array}_0": "RUNNING|0:0", f"{array}_1": f"{state}|{row}"})
    assert shown(fake_slurm, array, "%K") == ["0"]


def test_a_preempted_job_comes_back(fake_slurm):
    job = fake_slurm.sbatch("[ $SLURM_RESTART_COUNT ] || sleep 60")
    fake_slurm.end(job, "PREEMPTED")
    ends(fake_slurm, job, {job: "COMPLETED|0:0"})
    assert fake_slurm.sacct(job, "State", "-XD") == ["PREEMPTED", "COMPLETED"]


def test_a_job_vanishes(fake_slurm):
    job, other = fake_slurm.sbatch("sleep 60"), fake_slurm.sbatch("sleep 60")
    fake_slurm.vanish(job)
    assert fake_slurm("squeue", "-ho%i").split() == [other]
    assert fake_slurm("sacct", "-nXo", "JobID").split() == [other]
    assert run(fake_slurm, "squeue", "-j", job).returncode == 1


def test_what_has_ended_is_forgotten_after_a_while(fake_slurm):
    fake_slurm.env["FAKE_SLURM_MIN_JOB_AGE"] = "300"
    job = fake_slurm.sbatch("true")
    assert fake_slurm.wait(job) == "COMPLETED"
    assert shown(fake_slurm, job, "%i") == []
    assert shown(fake_slurm, job, "%T", "-tall") == ["COMPLETED"]
    fake_slurm.env["FAKE_SLURM_MIN_JOB_AGE"] = "0"
    assert run(fake_slurm, "squeue", "-j", job).returncode == 1


SILENCE = "Unable to contact slurm controller (connect failure)"
SILENT = {
    "sbatch job.sh": (1, f"{FAILED}{SILENCE}\n"),
    "sbatch --test-only job.sh": (1, f"allocation failure: {SILENCE}\n"),
    "squeue": (1, f"slurm_load_jobs error: {SILENCE}\n"),
    "sinfo": (1, f"slurm_load_partitions: {SILENCE}\n"),
    "scancel -Q 3 4_1": (
        8,
        f"scancel: error: Kill job error on job id 3: {SILENCE}\n"
        f"scancel: error: Kill job error on job id 4_1: {SILENCE}\n",
    ),
    "scontrol requeue 3": (1, "Unexpected message received for job 3\n"),
    "scontrol release 3": (
        1,
        "Unexpected message received for job 3\nslurm_suspend error: Unexpected message received\n",
    ),
    "scontrol show config": (1, f"slurm_load_ctl_conf error: {SILENCE}\n"),
    "scontrol show job 3": (1, f"slurm_load_jobs error: {SILENCE}\n"),
    "sacct -nj 3": (0, ""),
}


def test_the_controller_is_down(fake_slurm):
    (fake_slurm.directory / "job.sh").write_text(SCRIPT)
    job = fake_slurm.sbatch("sleep 0.2")
    fake_slurm.down()
    for line, answer in SILENT.items():
        given = run(fake_slurm, *line.split())
        assert (given.returncode, given.stderr) == answer, line
    ping = run(fake_slurm, "scontrol", "ping")
    assert (ping.returncode, ping.stdout.splitlines()[0][-7:]) == (1, "is DOWN")
    fake_slurm.up()
    assert fake_slurm.wait(job) == "COMPLETED"


def test_an_answer_gets_lost(fake_slurm):
    (fake_slurm.directory / "job.sh").write_text(SCRIPT)
    fake_slurm.trouble("unheard")
    answer = run(fake_slurm, "sbatch", "--hold", "--comment=tag", "job.sh")
    said = f"{FAILED}Socket timed out on send/recv operation\n"
    assert (answer.returncode, answer.stderr, answer.stdout) == (1, said, "")
    assert fake_slurm("squeue", "-ho%k") == "tag\n"


def test_there_is_no_accounting(fake_slurm):
    fake_slurm.trouble("no-accounting")
    answer = run(fake_slurm, "sacct")
    assert (answer.returncode, answer.stderr) == (1, "Slurm accounting storage is disabled\n")
    fake_slurm.trouble("no-accounting", there=False)
    fake_slurm.trouble("database-down")
    answer = run(fake_slurm, "sacct")
    assert answer.returncode == 1
    assert answer.stderr.endswith("Problem talking to the database: Connection refused\n")


def test_signals_reach_the_process_group_where_there_are_no_cgroups(fake_slurm):
    fake_slurm.configure(proctrack="pgid")
    child = "trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.05; done"
    # The script outlives the signal: whatever is left when it ends is killed.
    job = fake_slurm.sbatch(f"trap : TERM\n(\n{child}\n) &\nwait; wait")
    fake_slurm.wait_for(lambda: "ready" in printed(fake_slurm, job))
    fake_slurm("scancel", job)
    fake_slurm.wait_for(lambda: "child" in fake_slurm.output(job))


def test_comments_are_kept_where_the_site_says_so(fake_slurm):
    job = held(fake_slurm, "--comment=a b")
    assert fake_slurm.sacct(job, "Comment") == [""]
    fake_slurm.configure(store_comments=True)
    assert fake_slurm.sacct(job, "Comment") == ["a b"]


def test_a_job_submits_one_that_outlives_it(fake_slurm):
    second = fake_slurm.directory / "second.sh"
    second.write_text(f"{SCRIPT}sleep 0.5; echo done\n")
    first = fake_slurm.sbatch(f"sbatch --parsable {second}")
    ends(fake_slurm, first, {first: "COMPLETED|0:0"})
    job = fake_slurm.output(first).strip()
    ends(fake_slurm, job, {job: "COMPLETED|0:0"})
    assert fake_slurm.output(job) == "done\n"


def test_nothing_of_a_script_stays(fake_slurm):
    text = "setsid bash -c 'sleep 77 & echo $! $$ >left; wait' &"
    job = fake_slurm.sbatch(f"{text}\nuntil [ -s left ]; do sleep 0.01; done")
    ends(fake_slurm, job, {job: "COMPLETED|0:0"})
    left = (fake_slurm.directory / "left").read_text().split()
    assert [processes.record(int(pid)) for pid in left] == [None, None]


def test_stop_ends_everything(fake_slurm):
    text = "setsid sleep 77 & echo $! $$ >$SLURM_ARRAY_TASK_ID; wait"
    job = fake_slurm.sbatch(text, "--array=0-9")
    paths = [fake_slurm.directory / str(index) for index in range(4)]
    fake_slurm.wait_for(lambda: all(path.exists() and path.read_text() for path in paths))
    found = [processes.record(int(pid)) for path in paths for pid in path.read_text().split()]
    assert all(found)
    fake_slurm.stop()
    fake_slurm.wait_for(lambda: not any(map(processes.is_alive, found)))
    assert fake_slurm.sacct(f"{job}", "State").count("PENDING") == 1


def test_many_submit_at_once_and_some_are_killed(fake_slurm):
    (fake_slurm.directory / "job.sh").write_text(f"{SCRIPT}sleep 0.1\n")
    argv = ["sbatch", "--parsable", "job.sh"]
    options = {"cwd": fake_slurm.directory, "env": fake_slurm.env, "stdout": subprocess.PIPE}
    started = [subprocess.Popen(argv, **options, text=True) for _ in range(12)]
    for number, process in enumerate(started[:6]):
        time.sleep(0.01 * number)
        process.kill()
    texts = [process.communicate(timeout=60)[0] for process in started]
    numbers = [text.strip() for text in texts if text]
    assert len(numbers) == len(set(numbers)) >= 6
    fake_slurm.wait_for(lambda: fake_slurm("squeue", "-h") == "")
    states = dict(
        row.split("|") for row in fake_slurm("sacct", "-nPXo", "JobID,State").splitlines()
    )
    assert set(states.values()) == {"COMPLETED"}
    assert set(numbers) <= set(states)


@pytest.mark.parametrize("text", ["0-4,7", "1,3-9:2", "5"])
def test_indices_are_read_as_they_are_written(text):
    numbers = indices.numbers(text)
    assert indices.numbers(indices.show(numbers, 0)) == numbers
