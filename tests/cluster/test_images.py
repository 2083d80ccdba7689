"""Runs in an image on a real Slurm: the digests of outside."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from cluster.hpckit_there import There
from cluster.test_submit import WALK
from image.images import apptainer_there, mpich_image, reference_image  # noqa: F401

pytest.importorskip("mpi4py")

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture
def there(slurm):
    """A site whose nodes start images as ordinary users do."""
    found = There(slurm)
    found.site_text = f'environment = {{ APPTAINER_USERNS = "1" }}\n{found.site_text}'
    found.site.write_text(found.site_text)
    return found


@pytest.fixture
def image(reference_image):  # noqa: F811
    return reference_image


def test_ranks_on_two_nodes(there, image):
    (there.folder / "cavity.py").write_text((JOBS / "cavity.py").read_text())
    job = ["cavity.py", "n=16", "--ranks", 4]
    run = there.submit(*job, "--image", image, "--sbatch", "nodes=2")
    ended = there.run("wait", run)
    assert ended.code == 0, ended.stderr
    manifest = there.manifest(run)
    assert manifest.image.path == str(image)
    assert manifest.environment["mpi"].startswith("Open MPI")
    assert there.digest(run) == there.local_digest(*job)


def test_an_array(there, image):
    sweep = ["L=8", "T=linspace(1.5,3.5,9)", "sweeps=200"]
    (there.folder / "ising.py").write_text((JOBS / "ising.py").read_text())
    run = there.submit("ising.py", *sweep, "--elements", 3, "--image", image)
    ended = there.run("wait", run)
    assert ended.code == 0, ended.stderr
    assert there.digest(run) == there.local_digest("ising.py", *sweep)
    # The packages are those of the image.
    outside = there.manifest(next((there.folder / "local/0").iterdir())).environment
    assert there.manifest(run).environment["packages"] != outside["packages"]


def test_a_rendered_script_by_plain_sbatch(there, image, monkeypatch):
    (there.folder / "ising.py").write_text((JOBS / "ising.py").read_text())
    arguments = ["ising.py", "L=8", "T=1.5,2.5", "sweeps=100"]
    far = there.folder / "far"
    script = there("render", *arguments, "--image", image, "--site", there.site, "--output", far)
    monkeypatch.setenv("A_SECRET", "s")
    job = there.slurm.sbatch(script)
    assert there.slurm.wait(job, 120) == "COMPLETED", there.slurm.output(job)
    (run,) = far.iterdir()
    assert there.manifest(run).image.path == str(image)
    assert there.digest(run) == there.local_digest(*arguments)


def test_another_mpi_inside_does_not_pass_for_one_program(there, mpich_image):  # noqa: F811
    there.job("""
        from hpckit import spmd

        @spmd(ntasks=2, max_restarts=0)
        def count(run):
            run.record("ranks", run.comm.allreduce(1))
    """)
    run = there.submit("job.py", "--image", mpich_image)
    assert there.run("wait", run).code == 1
    assert not (run / "results.h5").exists()


def test_whether_a_site_starts_an_image(there, image):
    ended = there.run("image", "check", image, "--site", there.site, "--ranks", 3)
    assert ended.code == 0, ended
    assert "3 ranks start, and find each other" in ended.stdout
    assert "there has srun" in ended.stdout or "has srun --mpi=pmix" in ended.stdout
    assert not list(there.folder.glob("hpckit-check-*"))


def test_a_site_that_does_not_start_an_image(there, mpich_image):  # noqa: F811
    ended = there.run("image", "check", mpich_image, "--site", there.site)
    assert ended.code == 1
    assert "2 ranks do not start: " in ended.stdout


def test_what_a_site_binds_is_there(there, image):
    there.site.write_text(f'binds = ["/none:/data"]\n{there.site_text}')
    told = "binds: /none is not there"
    ended = there.run("image", "check", image, "--site", there.site)
    assert ended.code == 1
    assert f"FAILED   {told}" in ended.stdout
    there.job(NAP)
    for more in ([], ["--dry-run"]):
        ended = there.run("submit", "job.py", "--image", image, *more)
        assert ended.code == 2
        assert ended.stderr.startswith(f"hpckit: {told}")
    assert not list((there.folder / "runs").glob("*"))


NAP = """
    import time
    from hpckit import farm

    @farm(mem="300M", walltime="5m")
    def nap(task, n: int = 3):
        time.sleep(0.2)
        return {"x": task.rng.random(n)}
"""


def stopped(there, job, part=""):
    """Send what Slurm sends when the time is nearly up; wait until the job is queued again."""
    there.slurm("scancel", "--batch", "--signal=USR1", f"{job}{part}")
    there.slurm.wait_for(lambda: there.slurm.state(job) == "PENDING", 30)


def test_ranks_in_an_image_hear_that_the_time_is_up(there, image):
    there.job(WALK)
    run = there.submit("job.py", "--image", image)
    (job,) = there.jobs(run)
    there.slurm.wait_for(lambda: there.state(run)["done"] not in (None, 0), 90)
    stopped(there, job)
    assert there.run("wait", run).code == 0
    assert there.slurm.wait(job) == "COMPLETED"
    assert there.slurm.sacct(job, "State", "-X", "-D") == ["REQUEUED", "COMPLETED"]
    here = there.folder / "here"
    there("run", "job.py", "--output", here)
    with h5py.File(run / "results.h5") as a, h5py.File(*here.glob("*/results.h5")) as b:
        assert np.array_equal(a["x"][()], b["x"][()])


def test_an_element_in_an_image_hears_that_the_time_is_up(there, image, request):
    if not request.config.getoption("--long"):
        pytest.skip("ranks in an image hear it too: give --long")
    there.job(NAP)
    run = there.submit(
        "job.py", "n=range(1,101)", "--elements", 1, "--workers", 2, "--image", image
    )
    (job,) = there.jobs(run)
    there.slurm.wait_for(lambda: there.state(run)["done"] > 5, 60)
    stopped(there, job, "_0")
    assert 5 < there.state(run)["done"] < 100
    assert there.run("wait", run).code == 0
    with h5py.File(run / "results.h5") as file:
        assert set(file["tasks/attempts"][()]) == {1}


def test_workers_that_come_and_go(there, image):
    (there.folder / "ising.py").write_text((JOBS / "ising.py").read_text())
    job = ["ising.py", "L=8", "T=linspace(1.5,3.5,9)", "sweeps=200"]
    elastic = ["--engine", "dask", "--max-workers", 2, "--workers", 2, "--image", image]
    run = there.submit(*job, *elastic)
    ended = there.run("wait", run)
    assert ended.code == 0, (ended.stderr, there("logs", run))
    assert f" {image} hpckit pilot " in (run / "pilot.sh").read_text()
    assert there.digest(run) == there.local_digest(*job)
