"""Farms whose workers are batch jobs of a fake cluster, which does what a real one hardly would."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from cluster.hpckit_there import There
from drawing import DRAW, SITE

from hpckit.store.rundir import RunDir
from hpckit.submit.pilots import SlurmPilots

if find_spec("dask_jobqueue") is None:
    # Not imported: that would have Ctrl-C end this process on the spot.
    pytest.skip("needs dask-jobqueue: pip install 'hpckit[dask]'", allow_module_level=True)

ON_PILOTS = ("--engine", "dask", "--site", "here.toml", "--max-workers", 4, "--workers", 2)


@pytest.fixture
def there(fake_slurm):
    """hpckit on a fake cluster, whose nodes are this machine."""
    found = There(fake_slurm, f'interface = "lo"\n{SITE}')
    found.job(DRAW.format(walltime="5m", options=""))
    return found


def own_run(there) -> Path:
    """Return the folder of the one run, once it is there."""
    there.slurm.wait_for(lambda: list(there.folder.glob("runs/*/run.json")))
    (manifest,) = there.folder.glob("runs/*/run.json")
    return manifest.parent


def queue(there) -> set[str]:
    """Return the ids of the pilots in the queue."""
    return set(there.slurm("squeue", "-h", "-n", "draw-pilot", "-o", "%i").split())


def test_sbatch_gets_the_script_in_the_run_folder(there):
    """Not a copy in /tmp, which others could read or put another in place of."""
    there.slurm.configure(min_job_age=300)
    there("run", "job.py", "n=range(1,21)", *ON_PILOTS)
    run = own_run(there)
    shown = there.slurm("scontrol", "show", "job")
    assert f"Command={run}/pilot.sh\n" in shown
    assert shown.count("Command=") == shown.count(f"Command={run}/pilot.sh\n")


def test_pilots_that_a_killed_driver_has_left_do_not_work_for_the_next(there):
    there.slurm.configure(cpus=0)
    driver = there.start("run", "job.py", "n=range(1,21)", *ON_PILOTS)
    there.slurm.wait_for(lambda: len(queue(there)) == 2)
    driver.kill()
    driver.communicate()
    left = queue(there)
    there.slurm.configure()
    there("resume", own_run(there))
    assert {there.slurm.state(job) for job in left} == {"CANCELLED"}
    assert not [job for job in left if (own_run(there) / f"logs/pilot-{job}.log").exists()]


def test_a_submitted_farm_goes_on_with_other_numbers_of_workers(there):
    there.slurm.configure(cpus=0)
    run = there.submit("job.py", "n=range(1,21)", "--engine", "dask", "--max-workers", 4)
    there("cancel", run)
    there("resume", run, "--engine", "dask", "--max-workers", 8, "--workers", 2)
    manifest = there.manifest(run)
    elastic = manifest.elastic
    assert (elastic.least, elastic.most, elastic.slots) == (0, 8, 2)
    assert manifest.submissions[-1].workers == 8
    there("cancel", run)
    for asked, told in (
        (("--max-workers", 1), "--workers 2: each batch job would hold more workers than --max-w"),
        (("--engine", "threads"), "--engine is for the foreground: give --here"),
    ):
        ended = there.run("resume", run, *asked)
        assert ended.code == 2
        assert told in ended.stderr
    assert there.manifest(run).elastic == elastic


def test_a_pilot_whose_answer_is_lost_is_not_one_of_an_earlier_driver(fake_slurm, monkeypatch):
    fake_slurm.use(monkeypatch)
    fake_slurm.configure(cpus=0)
    run, script = RunDir(fake_slurm.directory), "#!/bin/sh\n#SBATCH --output=/dev/null\n"
    earlier, later = (SlurmPilots(run, script, 1, driver) for driver in ("one", "other"))
    earlier.open()
    first = earlier.submit()
    fake_slurm.trouble("unheard")
    assert later.submit() != first
