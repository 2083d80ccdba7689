"""Fields on an h5py that stands on parallel HDF5: one file, written by all ranks at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpckit.store import fields

PYTHON = Path(os.environ.get("HPCKIT_PARALLEL_ENV", "")) / "bin" / "python"
MPIEXEC = shutil.which("mpiexec.openmpi")

pytestmark = pytest.mark.skipif(
    not PYTHON.is_file() or MPIEXEC is None,
    reason="needs an h5py on parallel HDF5: .ci/parallel-hdf5 FOLDER makes one, "
    "and HPCKIT_PARALLEL_ENV=FOLDER names it",
)

ROWS, COLUMNS = 1200, 4000

JOB = f"""
    import numpy as np
    from hpckit import spmd

    @spmd(ntasks=3)
    def waves(run, n: int = {ROWS}, m: int = {COLUMNS}):
        rows = np.array_split(np.arange(n), run.size)[run.rank]
        u = np.arange(n * m, dtype=float).reshape(n, m)[rows]
        there = {{"offset": (rows[0], 0), "shape": (n, m), "dims": ("y", "x")}}
        run.save("u", u, units="m", **there)
        run.save("mask", u > 3, **there)
        if run.rank == run.size - 1:
            run.save("y", np.arange(n) / 2, offset=(0,), shape=(n,), dims=("y",))
        columns = np.ascontiguousarray(u.T) * 1j
        run.save("w", columns, offset=(0, rows[0]), shape=(m, n), dims=("x", "y"))
        run.record("total", 1.0)
"""


def launched(hpckit, ranks):
    argv = [MPIEXEC, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks)]
    process = hpckit.popen([*argv, str(PYTHON), "-m", "hpckit", "exec", "job.py"])
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return stdout


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_one_plain_file_and_the_same_digest(hpckit, ranks):
    assert ROWS * COLUMNS * 24 > fields.COPY_LIMIT
    hpckit.job(JOB)
    launched(hpckit, ranks)
    run = hpckit.last()
    with h5py.File(run / "results.h5") as file:
        assert not any(file[name].is_virtual for name in "uwy") or ranks == 1
        u = np.arange(ROWS * COLUMNS, dtype=float).reshape(ROWS, COLUMNS)
        assert np.array_equal(file["u"][()], u)
        assert file["u"].attrs["units"] == "m"
        assert np.array_equal(file["w"][()], u.T * 1j)
        assert [scale.name for scale in (file["w"].dims[0][0], file["w"].dims[1][0])] == [
            "/x",
            "/y",
        ]
    assert list((run / "segments").iterdir()) == [] or ranks == 1
    assert hpckit("run", "job.py").code == 0
    assert hpckit.digest(run) == hpckit.digest()
