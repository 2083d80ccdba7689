"""results.h5 of a farm that goes on."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from hpckit.run import snapshots
from hpckit.run.engines import Workplace
from hpckit.run.session import work_farm
from hpckit.spec.load import load_file
from hpckit.spec.sweep import Sweep
from hpckit.store.block import TaskState
from hpckit.store.create import create

JOB = """
import time
from hpckit import farm

@farm
def slow(n: int = 0):
    time.sleep(0.05)
    return {"square": n * n}
"""


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(JOB)
    loaded = load_file(path)
    return create(loaded, Sweep.from_args(loaded.job, ["n=range(60)"]), root=tmp_path, argv=[])


def place(run):
    return Workplace(1, run.dir.log("worker"))


def test_what_is_done_so_far_can_be_opened(run, monkeypatch):
    monkeypatch.setattr(snapshots, "LEAST_SECONDS", 0.0)
    seen = []

    def look(progress):
        if run.dir.results.exists():
            with xr.open_dataset(run.dir.results, engine="h5netcdf") as data:
                done = data["task_state"].values == TaskState.DONE
                np.testing.assert_array_equal(data["square"][done], data["n"][done] ** 2)
                seen.append((int(done.sum()), progress.done))

    final = work_farm(run, "serial", place(run), look, again=frozenset({TaskState.MISSING}))
    assert final.counts == {"missing": 0, "done": 60, "failed": 0}
    assert 0 < seen[0][0] < 60
    assert all(shown <= done for shown, done in seen)
    with xr.open_dataset(run.dir.results, engine="h5netcdf") as data:
        np.testing.assert_array_equal(data["square"], np.arange(60) ** 2)
    assert not list(run.dir.segments.iterdir())


def test_none_is_taken_of_a_short_run(run):
    def look(progress):
        assert not run.dir.results.exists()

    work_farm(run, "serial", place(run), look, again=frozenset({TaskState.MISSING}))
    assert run.dir.results.exists()
