"""Farms of coroutines as elements of an array."""

from __future__ import annotations

import h5py

NAPS = """
import asyncio
from hpckit import farm

@farm
async def nap(task, n: int = 0):
    await asyncio.sleep(0.05)
    return {"x": task.rng.random(), "square": n * n}
"""


def test_elements_work_coroutines(there):
    (there.folder / "coroutines.py").write_text(NAPS)
    run = there.submit("coroutines.py", "n=range(60)", "--elements", 2, "--workers", 2)
    ended = there.run("wait", run)
    assert ended.code == 0, ended.stderr
    with h5py.File(run / "results.h5") as file:
        assert file["square"][()].tolist() == [n * n for n in range(60)]
    assert there.digest(run) == there.local_digest("coroutines.py", "n=range(60)")


def test_they_share_the_cores_of_one_task(there):
    (there.folder / "coroutines.py").write_text(NAPS)
    run = there.submit("coroutines.py", "n=range(300)", "--elements", 1)
    assert there.run("wait", run).code == 0
    (submission,) = there.manifest(run).submissions
    assert (submission.workers, submission.slots) == (100, 1)
    assert "#SBATCH --cpus-per-task=1\n" in submission_script(run)


def submission_script(run):
    """Return the batch script of a run."""
    (script,) = run.glob("*.sh")
    return script.read_text()
