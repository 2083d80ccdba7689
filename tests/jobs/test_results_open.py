"""The results of every kind of job, in the programs that people open them with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import netCDF4
import pytest
import xarray as xr

PROJECT = Path(__file__).parents[2] / "hpckit/cli/project"

JOBS = {
    "ising": (["ising", "T=2.0,3.0", "sweeps=10"], {"magnetisation", "energy"}),
    "digits": (["digits", "C=1,10", "gamma=0.001", "folds=2"], {"mean_score", "fold_scores"}),
    "cavity": (["cavity", "n=8", "lid=0.2", "tolerance=0.1"], {"u", "v", "residual"}),
    "command": ([str(PROJECT / "primes.toml"), "n=10,100"], {"count", "largest"}),
}


@pytest.fixture(scope="module", params=JOBS)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    arguments, names = JOBS[request.param]
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "-m", "hpckit", "run", *arguments, "-o", str(folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*/results.h5")
    return path, names


def test_xarray(results) -> None:
    path, names = results
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        assert names <= set(dataset.data_vars)
        dataset.load()


def test_netcdf4(results) -> None:
    path, names = results
    with netCDF4.Dataset(path) as dataset:
        assert names <= set(dataset.variables)
        for name in names:
            assert dataset.variables[name][...].size


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump: apt-get install hdf5-tools")
def test_h5dump(results) -> None:
    path, names = results
    for name in names:
        done = subprocess.run(["h5dump", "-d", f"/{name}", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "DATASET" in done.stdout
