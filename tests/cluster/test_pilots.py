"""Farms whose workers are batch jobs of a real cluster, which come and go with the work."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import h5py
import pytest
from cluster.hpckit_there import There

if find_spec("dask_jobqueue") is None:
    # Not imported: that would have Ctrl-C end this process on the spot.
    pytest.skip("needs dask-jobqueue: pip install 'hpckit[dask]'", allow_module_level=True)

NAP = """
    import os, time
    from hpckit import farm

    @farm(mem="150M", walltime="10m")
    def nap(task, i: int = 0):
        time.sleep(float(os.environ.get("NAP", 0.01)))
        return {"x": task.rng.random(), "square": i * i}
"""
ON_PILOTS = ("--engine", "dask", "--site", "here.toml", "--max-workers", 4, "--workers", 2)


@pytest.fixture
def there(slurm):
    """hpckit on the cluster, which other tests use too."""
    return There(slurm)


def queue(there) -> list[str]:
    """Return the ids of the pilots in the queue."""
    return there.slurm("squeue", "-h", "-n", "nap-pilot", "-o", "%i").split()


def states(there) -> Counter[str]:
    """Return the states of this test's pilots, which lie in its folder."""
    options = ["-X", "-n", "-P", "-S", "now-10minutes", "-o", "State,WorkDir"]
    rows = [row.split("|") for row in there.slurm("sacct", *options).splitlines()]
    return Counter(state.split()[0] for state, folder in rows if folder == str(there.folder))


def own_run(there):
    """Return the folder of the one run, once it is there."""
    there.slurm.wait_for(lambda: list(there.folder.glob("runs/*/run.json")))
    (manifest,) = there.folder.glob("runs/*/run.json")
    return manifest.parent


def status(there) -> dict[str, object]:
    return json.loads(there("status", own_run(there), "--json"))


def wait_for_tasks(there) -> None:
    """Wait until some tasks are done."""
    there.slurm.wait_for(lambda: status(there)["done"], 90)


def test_workers_in_batch_jobs_give_what_one_process_gives(there):
    there.job(NAP)
    there("run", "job.py", "i=range(1,1001)", *ON_PILOTS)
    run = own_run(there)
    assert there.digest(run) == there.local_digest("job.py", "i=range(1,1001)")
    assert states(there) == {"COMPLETED": 2}
    assert not (run / "contact").exists()
    assert there.manifest(run).elastic.most == 4


@contextmanager
def driver_of(there, *sweep: str, nap: float) -> Iterator[subprocess.Popen[str]]:
    """Start a farm on pilots; nothing of it stays, whatever becomes of the test."""
    env = {"NAP": str(nap)}
    with there.start("run", "job.py", *sweep, *ON_PILOTS, env=env) as driver:
        try:
            yield driver
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.communicate()


def test_how_many_workers_there_are(there):
    there.job(NAP)
    with driver_of(there, "i=range(1,601)", nap=0.2) as driver:
        wait_for_tasks(there)
        there.slurm.wait_for(lambda: status(there)["workers"]["running"] == 4, 60)
        look_at(there)
        driver.send_signal(signal.SIGINT)
        driver.communicate(timeout=60)
    assert driver.returncode == 130
    there.slurm.wait_for(lambda: not set(queue(there)) & pilots_of(there), 30)
    assert not (own_run(there) / "contact").exists()


def look_at(there) -> None:
    """Look at a run that has all of its four workers."""
    assert status(there)["workers"] == {"wanted": 4, "queued": 0, "running": 4, "lost": 0}
    assert re.search(r"^workers +4 of 4 workers$", there("status", own_run(there)), re.MULTILINE)
    contact = own_run(there) / "contact"
    assert stat.S_IMODE(contact.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in contact.iterdir()} == {0o600}


def pilots_of(there) -> set[str]:
    """Return the ids of the pilots that have begun to work for the one run."""
    return {path.stem.removeprefix("pilot-") for path in own_run(there).glob("logs/pilot-*.log")}


def test_a_task_that_takes_its_worker_down_fails_alone(there):
    there.job(
        """
        import os
        from hpckit import farm

        @farm(mem="150M")
        def die(i: int = 0):
            if i == 7:
                os.kill(os.getpid(), 9)
            return {"y": i + 1}
        """
    )
    ended = there.run("run", "job.py", "i=range(0,30)", *ON_PILOTS)
    assert ended.code == 3
    assert "task 7 failed: the worker process was killed by SIGKILL" in ended.stderr
    with h5py.File(own_run(there) / "results.h5") as file:
        assert file["task_state"][()].tolist().count(1) == 29


def test_a_killed_driver_leaves_pilots_that_end_by_themselves(there):
    there.job(NAP)
    with driver_of(there, "i=range(1,301)", nap=0.1):
        wait_for_tasks(there)
        mine = pilots_of(there)
        assert mine
    there.slurm.wait_for(lambda: not set(queue(there)) & pilots_of(there), 60)
    there("resume", own_run(there))
    alike = there.local_digest("job.py", "i=range(1,301)")
    assert there.digest(own_run(there)) == alike
    assert len(pilots_of(there)) > len(mine)


def test_pilots_that_somebody_cancels_are_replaced(there, request):
    if not request.config.getoption("--long"):
        pytest.skip("one of many ways to lose pilots: give --long")
    there.job(NAP)
    with driver_of(there, "i=range(1,401)", nap=0.1) as driver:
        wait_for_tasks(there)
        there.slurm("scancel", *pilots_of(there))
        stdout, stderr = driver.communicate(timeout=120)
    assert driver.returncode == 0, stderr
    assert "400 tasks done" in stdout
    alike = there.local_digest("job.py", "i=range(1,401)")
    assert there.digest(own_run(there)) == alike


def test_pilots_whose_time_is_up_are_replaced(there, request):
    if not request.config.getoption("--long"):
        pytest.skip("waits for a walltime of a minute: give --long")
    there.job(NAP.replace("10m", "1m"))
    ended = there.run("run", "job.py", "i=range(1,301)", *ON_PILOTS, env={"NAP": "0.5"})
    assert ended.code == 0, ended.stderr
    assert len(pilots_of(there)) > 2
    assert set(states(there)) <= {"COMPLETED", "CANCELLED"}


def test_pilots_that_cannot_work_end_the_run_with_the_reason(there):
    _, facts = there.site_text.split("\n", 1)
    there.site.write_text(f'prologue = ["echo no python here >&2; exit 9"]\n{facts}')
    there.job(NAP)
    ended = there.run("run", "job.py", "i=range(1,11)", *ON_PILOTS)
    assert ended.code == 1
    assert "pilots end before they have worked: job " in ended.stderr
    assert "failed: no python here" in ended.stderr


def test_pilots_that_slurm_refuses_end_the_run_at_once(there):
    there.site.write_text(f'account = "nix"\n{there.site_text}')
    there.job(NAP)
    ended = there.run("run", "job.py", "i=range(1,11)", *ON_PILOTS)
    assert ended.code == 1
    assert "hpckit: Slurm refuses it: sbatch: Batch job submission failed: Inv" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--max-workers", 2, "--min-workers", 3), "--min-workers 3 is more than --max-workers 2"),
        (("--max-workers", 2, "--workers", 3), "would hold more workers than --max-workers 2"),
        (("--site", "here.toml", "--engine", "threads"), "the engine threads has no workers in b"),
        (("--site", "here.toml", "--address", "tcp://h:1"), "--address and --site exclude each"),
        (
            (
                "--site",
                "nix.toml",
            ),
            "--site nix.toml: there is no nix.toml",
        ),
    ],
)
def test_what_is_refused_leaves_nothing(there, arguments, told):
    there.job(NAP)
    engine = () if "--engine" in arguments else ("--engine", "dask")
    ended = there.run("run", "job.py", *engine, *arguments)
    assert ended.code == 2
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not list(there.folder.glob("runs/*"))


@pytest.mark.parametrize(
    ("interface", "told"),
    [("nix9", "interface = 'nix9' of the site is no network of this machine"), ("lo", None)],
)
def test_the_network_that_the_site_names(there, interface, told, request):
    if told is None and not request.config.getoption("--long"):
        pytest.skip("five pilots in a row must fail: give --long")
    there.site.write_text(f'interface = "{interface}"\n{there.site_text}')
    there.job(NAP)
    ended = there.run("run", "job.py", "i=range(1,11)", *ON_PILOTS)
    if told is None:
        assert ended.code == 1
        assert "the driver at tls://127.0.0.1:" in ended.stderr
    else:
        assert ended.code == 2
        assert told in ended.stderr
        assert not list(there.folder.glob("runs/*"))


ELASTIC = ("--engine", "dask", "--max-workers", 4, "--workers", 2)


def test_a_driver_in_a_batch_job_of_its_own(there):
    there.job(NAP)
    run = there.submit("job.py", "i=range(1,301)", *ELASTIC, nap=0.1)
    there.slurm.wait_for(lambda: (there.state(run)["workers"] or {}).get("running") == 4, 60)
    ended = there.run("wait", run)
    assert ended.code == 0, ended
    assert there.digest(run) == there.local_digest("job.py", "i=range(1,301)")
    assert not (run / "contact").exists()
    assert not set(queue(there)) & pilots_of(there)


def test_a_cancelled_driver_leaves_nothing_in_the_queue(there):
    there.job(NAP)
    run = there.submit("job.py", "i=range(1,2001)", *ELASTIC, nap=0.1)
    there.slurm.wait_for(lambda: (there.state(run)["workers"] or {}).get("running") == 4, 60)
    mine = pilots_of(there)
    there("cancel", run)
    there.slurm.wait_for(lambda: not set(queue(there)) & mine, 40)
    assert there.state(run)["state"] == "interrupted"
    there("resume", run, "--here", "--engine", "threads", "--workers", 40)
    assert there.digest(run) == there.local_digest("job.py", "i=range(1,2001)")


def test_a_driver_whose_time_is_up_goes_on_from_the_queue(there, request):
    if not request.config.getoption("--long"):
        pytest.skip("waits for a walltime of a minute: give --long")
    there.site.write_text(
        there.site_text.replace('max_walltime = "01:00:00"', 'max_walltime = "1m"')
    )
    there.job(NAP.replace('"10m"', '"1m"'))
    run = there.submit("job.py", "i=range(1,301)", *ELASTIC, nap=0.5)
    ended = there.run("wait", run)
    assert ended.code == 0, ended
    assert there.digest(run) == there.local_digest("job.py", "i=range(1,301)")
    assert "--time=00:01:00" in (run / "job.sh").read_text()
    rows = there.slurm("sacct", "-D", "-X", "-n", "-P", "-j", there.jobs(run)[0], "-o", "State")
    assert rows.split().count("REQUEUED") + rows.split().count("COMPLETED") >= 2


def test_what_the_command_line_asks_for_is_asked_for_by_the_pilots(there):
    there.job(NAP)
    asked = ["--mem", "120M", "--walltime", "7m", "--partition", "spare", "--sbatch", "nice=5"]
    run = there.submit("job.py", "i=range(1,11)", *ELASTIC, *asked)
    assert there.run("wait", run).code == 0
    script = (run / "pilot.sh").read_text()
    # Two tasks' memory, and the pilot's own.
    for line in ("mem=340M", "time=00:07:00", "partition=spare", "nice=5", "cpus-per-task=2"):
        assert f"#SBATCH --{line}\n" in script
    assert " --walltime 420\n" in script


@pytest.fixture
def alone(slurm_alone):
    """hpckit on a cluster that a test may break."""
    return There(slurm_alone)


def test_pilots_that_wait_and_pilots_that_make_way(alone, request):
    if not request.config.getoption("--long"):
        pytest.skip("takes a minute of the whole cluster: give --long")
    alone.slurm.sbatch("sleep 600", "-N4", "--exclusive", "--job-name=all")
    alone.site.write_text(
        alone.site_text.replace(
            '[[partitions]]\nname = "main"', '[[partitions]]\nname = "spare"', 1
        )
    )
    alone.job(NAP)
    (everything,) = alone.slurm.submitted
    alone.slurm.wait_for(lambda: alone.slurm.state(everything) == "RUNNING")
    with driver_of(alone, "i=range(1,601)", nap=0.1) as driver:
        alone.slurm.wait_for(lambda: (status(alone)["workers"] or {}).get("queued") == 4, 60)
        alone.slurm("scancel", everything)
        wait_for_tasks(alone)
        # A job of a better partition takes all nodes: the pilots get 15 s, and are requeued or not.
        other = alone.slurm.sbatch("sleep 5", "-N4", "--exclusive", "-pmain")
        stdout, stderr = driver.communicate(timeout=200)
    assert driver.returncode == 0, stderr
    assert "600 tasks done" in stdout
    assert alone.slurm.wait(other) == "COMPLETED"
    assert "PREEMPTED" in states(alone)
    assert alone.digest(own_run(alone)) == alone.local_digest("job.py", "i=range(1,601)")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--max-workers", 3), "the engine processes has no workers in batch jobs of their own"),
        (("--engine", "dask", "--elements", 3), "--elements and --max-running are for arrays"),
        (("--engine", "dask", "--mem", "9G"), "no partition of here fits: main: 9316M of"),
        (("--engine", "dask", "--sbatch", "mem=4G"), "--sbatch: the script says it already"),
    ],
)
def test_what_submit_refuses_leaves_nothing(there, arguments, told):
    there.job(NAP)
    ended = there.run("submit", "job.py", *arguments)
    assert ended.code == 2, ended
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not list(there.folder.glob("runs/*"))
