"""What goes wrong on a cluster: what the user is told, and that nothing is lost or done twice."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import h5py
import pytest
from cluster.hpckit_there import There

pytest.importorskip("mpi4py")

DRAW = """
    import os, time
    from hpckit import farm

    @farm(mem="100M", walltime="5m"{options})
    def draw(task, n: int = 3):
        time.sleep(float(os.environ.get("NAP", 0)))
        return {{"x": task.rng.random(n)}}
"""

HOG = """
    from hpckit import farm

    @farm(mem="150M", walltime="5m"{options})
    def hog(n: int = 0):
        return len(bytearray(n << 20))
"""


@pytest.fixture
def there(slurm):
    """hpckit on the cluster, which other tests use too."""
    return There(slurm)


@pytest.fixture
def alone(slurm_alone):
    """hpckit on a cluster that a test may break."""
    return There(slurm_alone)


def nothing_is_left(there) -> bool:
    runs = there.folder / "runs"
    return not runs.exists() or not list(runs.iterdir())


def queued_since(there, job: str) -> list[str]:
    """Return the jobs that accounting knows with ids from `job` on."""
    rows = there.slurm("sacct", "-X", "-n", "-P", "-o", "JobID,JobIDRaw", "-S", "now-10minutes")
    pairs = [row.split("|") for row in rows.splitlines()]
    return [name for name, raw in pairs if raw.isdigit() and int(raw) >= int(job)]


@pytest.mark.parametrize(
    ("change", "arguments", "told"),
    [
        (None, ("--partition", "nix"), "'nix' is no partition of here; there are main"),
        ('account = "nix"', (), "Slurm refuses it: sbatch: Batch job submission failed: Invalid a"),
        (None, ("--mem", "9G"), "no partition of here fits: main: 9G of memory on a node are more"),
        (None, ("--walltime", "2h"), "no partition of here fits: main: walltime=02:00:00 is above"),
        (None, ("--sbatch", "array=1-3"), "--sbatch array: is hpckit's own to give"),
        (None, ("--sbatch", "mem=4G"), "--sbatch: the script says it already, mem=100M"),
        (None, ("--sbatch", "nice=1\n#SBATCH --x"), "cannot stand in a #SBATCH line"),
        (None, ("--dry-run", "--json"), "--dry-run prints the script: leave --json"),
        (None, ("--sbatch", "nice=1", "--sbatch", "nice=2"), "--sbatch nice: is given twice"),
        (None, ("--sbatch", "-N3"), "sbatch: '-N3' is no option of sbatch, name=value or name"),
        (None, ("--sbatch", "constraint=nix"), "Slurm refuses it: sbatch: Batch job submission"),
    ],
)
def test_what_is_refused_leaves_nothing(there, change, arguments, told):
    there.job(DRAW.format(options=""))
    if change:
        there.site.write_text(f"{change}\n{there.site_text}")
    ended = there.run("submit", "job.py", *arguments)
    assert ended.code == 2
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert nothing_is_left(there)


def test_no_slurm_on_the_path(there):
    there.job(DRAW.format(options=""))
    ended = there.run("submit", "job.py", env=there.without_slurm())
    assert ended.code == 2
    assert "no such program on the PATH: this is no node of a Slurm cluster" in ended.stderr
    assert nothing_is_left(there)


def test_munge_that_does_not_answer(there):
    there.job(DRAW.format(options=""))
    original = Path(there.slurm.env["SLURM_CONF"])
    conf = there.folder / "slurm.conf"
    text = original.read_text()
    there_is_no = text.replace(f"AuthInfo=socket={original.parents[1]}", "AuthInfo=socket=/nowhere")
    conf.write_text(there_is_no)
    env = {"SLURM_CONF": str(conf), "HPCKIT_SLURM_PATIENCE": "3"}
    ended = there.run("submit", "job.py", env=env)
    assert ended.code == 1
    assert "is slurmctld or munge down?" in ended.stderr
    assert nothing_is_left(there)


def test_a_controller_that_is_away_for_a_while(alone):
    alone.job(DRAW.format(options=""))
    alone.slurm("slurm", "ctl", "stop")
    ended = alone.run("submit", "job.py", env={"HPCKIT_SLURM_PATIENCE": "2"})
    assert ended.code == 1
    assert "unable to contact slurm controller" in ended.stderr.lower()
    assert nothing_is_left(alone)
    patient = alone.start("submit", "job.py", "n=range(1,5)", env={"HPCKIT_SLURM_PATIENCE": "90"})
    time.sleep(2)
    alone.slurm("slurm", "ctl", "start")
    stdout, stderr = patient.communicate(timeout=120)
    assert patient.returncode == 0, (stdout, stderr)
    (run,) = (alone.folder / "runs").iterdir()
    assert alone.run("wait", run).code == 0
    (job,) = alone.jobs(run)
    assert all(name.startswith(f"{job}_") for name in queued_since(alone, job))


def test_a_controller_restarted_while_jobs_run(alone):
    alone.job(DRAW.format(options=""))
    run = alone.submit("job.py", "n=range(1,41)", "--elements", 4, "--workers", 2, nap=1)
    alone.slurm.wait_for(lambda: alone.state(run)["done"] > 0)
    alone.slurm.restart_controller()
    assert alone.run("wait", run).code == 0
    assert alone.digest(run) == alone.local_digest("job.py", "n=range(1,41)")


def test_memory_is_doubled_as_the_policy_has_it(there):
    there.job(HOG.format(options=', on_out_of_memory="double up to 1200M"'))
    run = there.submit("job.py", "n=1,400,2", "--elements", 3, "--workers", 1)
    ended = there.run("wait", run)
    assert ended.code == 0, ended
    assert "out_of_memory: submitted again with mem=300M (try 1 of 3)" in ended.stderr
    submissions = there.manifest(run).submissions
    assert [str(s.resources.mem) for s in submissions] == ["150M", "300M", "600M"]
    assert [s.tasks for s in submissions] == [3, 1, 1]
    with h5py.File(run / "results.h5") as file:
        assert file["result"][()].tolist() == [1 << 20, 400 << 20, 2 << 20]


def test_memory_without_a_policy_is_told(there):
    there.job("""
        import numpy as np
        from hpckit import spmd

        @spmd(ntasks=2, mem="200M", walltime="5m")
        def hog(run):
            run.checkpoint(step=1, x=1)
            np.ones(100_000_000)
    """)
    run = there.submit("job.py")
    ended = there.run("wait", run)
    assert ended.code == 1
    assert "failed: out_of_memory (on n" in ended.stderr
    assert "give it more, mem = … in the job" in ended.stderr
    assert there.state(run)["state"] == "failed"


def test_a_walltime_that_is_up(there):
    there.job("""
        import time
        from hpckit import farm

        @farm(mem="100M", walltime="1m", max_restarts=0)
        def f(n: int = 0):
            time.sleep(600 if n == 1 else 0)
            return n
    """)
    run = there.submit("job.py", "n=range(3)", "--elements", 1, "--workers", 1)
    ended = there.run("wait", run)
    assert ended.code == 1
    assert "interrupted: timeout" in ended.stderr
    assert "more walltime" in ended.stderr
    # What was done before is there.
    with h5py.File(run / "results.h5") as file:
        assert file["task_state"][()].tolist() == [1, 0, 0]


def test_a_job_that_somebody_cancelled(there):
    there.job(DRAW.format(options=""))
    run = there.submit("job.py", "n=range(1,5)", "--elements", 2, nap=60)
    there.slurm.wait_for(lambda: there.state(run)["jobs"] == {"running": 2})
    there.slurm("scancel", *there.jobs(run))
    there.slurm.wait_for(lambda: there.state(run)["state"] == "interrupted", 60)
    assert there.state(run)["reason"].startswith("cancelled: 2 of 2 elements")
    assert there.run("wait", run).code == 1


def test_a_node_that_dies_is_told_and_kept_off(alone):
    alone.job(DRAW.format(options=', max_restarts=0, on_node_fail="exclude"'))
    run = alone.submit("job.py", "n=range(1,17)", "--elements", 4, "--workers", 4, nap=20)
    alone.slurm.wait_for(lambda: alone.state(run)["jobs"] == {"running": 4})
    alone.slurm.kill("n3")
    alone.slurm.wait_for(lambda: "node_fail" in str(alone.state(run)), 60)
    ended = alone.run("wait", run)
    assert ended.code == 0, ended
    assert alone.manifest(run).submissions[-1].excluded == ("n3",)
    assert alone.digest(run) == alone.local_digest("job.py", "n=range(1,17)")


def test_nodes_killed_every_few_seconds_lose_no_task(alone, request):
    alone.job(DRAW.format(options=""))
    is_long = request.config.getoption("--long")
    tasks, nap, rounds = (5000, 0.4, 40) if is_long else (1200, 0.1, 2)
    shares = ("--elements", 16, "--workers", 4)
    run = alone.submit("job.py", f"n=range(1,{tasks + 1})", *shares, nap=nap)
    time.sleep(4)
    nodes = alone.slurm.cluster.nodes
    for number in range(rounds):
        node = nodes[number % len(nodes)]
        alone.slurm.kill(node)
        time.sleep(2)
        alone.slurm.start(node)
        time.sleep(1)
        if alone.manifest(run).state == "completed":
            break
    ended = alone.run("wait", run)
    while ended.code == 1 and alone.manifest(run).state == "interrupted":
        alone("resume", run)
        ended = alone.run("wait", run)
    assert ended.code == 0, ended
    with h5py.File(run / "results.h5") as file:
        assert file["n"][()].tolist() == list(range(1, tasks + 1))
        assert set(file["task_state"][()]) == {1}
    assert Counter(alone.manifest(run).counts) == {"done": tasks, "failed": 0, "missing": 0}
    states = alone.slurm.sacct(alone.jobs(run)[0], "State", "-X", "-D")
    assert "NODE_FAIL" in states or "REQUEUED" in states


def test_a_full_disk_on_a_node_is_the_tasks_failure(there):
    local = Path(there.slurm.env["SLURM_CONF"]).parents[1] / "local"
    there.site.write_text(f'scratch = "{local}"\n{there.site_text}')
    text = """
        command = "dd if=/dev/zero of=big bs=1M count={megabytes}"
        [resources]
        mem = "1000M"
        walltime = "5m"
        [params]
        megabytes = 1
    """
    there.job(text, "fill.toml")
    # Each on a node of its own, or one would fill the disk of another.
    options = ["--elements", 3, "--workers", 1, "--sbatch", "exclusive"]
    run = there.submit("fill.toml", "megabytes=1,5000,2", *options)
    ended = there.run("wait", run)
    assert ended.code == 3, ended
    assert "no space is left in its scratch directory on n" in there("logs", run, "--task", 1)
    with h5py.File(run / "results.h5") as file:
        assert file["task_state"][()].tolist() == [1, 2, 1]


VALUES = [
    "a b",
    'it\'s "quoted"',
    "$(touch pwned) `touch pwned`; touch pwned #",
    "é\t\n\\n",
    "%j %A",
]


def test_values_arrive_as_they_are_and_nothing_of_them_runs(there):
    there.job("""
        from hpckit import farm

        @farm(mem="100M", walltime="5m")
        def echo(text: str = ""):
            return {"said": text.encode().hex()}
    """)
    (there.folder / "values.csv").write_text(
        "text\n" + "".join('"' + value.replace('"', '""') + '"\n' for value in VALUES)
    )
    run = there.submit("job.py", "--tasks", "values.csv", "--elements", 2, "--workers", 1)
    assert there.run("wait", run).code == 0
    with h5py.File(run / "results.h5") as file:
        said = [bytes.fromhex(text.decode()).decode() for text in file["said"][()]]
    assert said == [value.strip() for value in VALUES]
    for value in VALUES:
        one = there.submit("job.py", f"text={value}")
        assert there.run("wait", one).code == 0
        with h5py.File(one / "results.h5") as file:
            assert bytes.fromhex(file["said"][0].decode()).decode() == value
    assert not list(there.folder.rglob("pwned"))


@pytest.mark.parametrize("name", ["a b", "it's $(touch pwned) `id`; #", "100%j é", 'quo"ted'])
def test_a_run_may_lie_in_an_odd_folder(there, name):
    there.job(DRAW.format(options=""))
    folder = there.folder / name
    folder.mkdir()
    told = there("submit", "job.py", "n=range(1,4)", "--output", folder, "--elements", 2)
    run = folder / told.partition(":")[0]
    assert there.run("wait", run).code == 0
    assert sorted(path.name for path in (run / "logs").glob("slurm-*")) == [
        f"slurm-{there.jobs(run)[0]}_{number}.log" for number in (0, 1)
    ]
    assert len(list((run / "exits").iterdir())) == 2
    assert not list(there.folder.rglob("pwned"))
