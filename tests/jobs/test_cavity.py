"""The cavity job against the tables of Ghia, Ghia & Shin, on several ranks, and interrupted."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hpckit.errors import UsageError
from hpckit.spec.load import load_job

pytest.importorskip("numba")
MPI = pytest.importorskip("mpi4py.MPI")

ROOT = Path(__file__).parents[2]

# U. Ghia, K. N. Ghia and C. T. Shin, J. Comput. Phys. 48, 387 (1982), from a 129 x 129 grid.
# Table I, u along the vertical line through the centre: y, and u for Re = 100 and for Re = 400.
TABLE_1 = """
1.0000   1.00000   1.00000
0.9766   0.84123   0.75837
0.9688   0.78871   0.68439
0.9609   0.73722   0.61756
0.9531   0.68717   0.55892
0.8516   0.23151   0.29093
0.7344   0.00332   0.16256
0.6172  -0.13641   0.02135
0.5000  -0.20581  -0.11477
0.4531  -0.21090  -0.17119
0.2813  -0.15662  -0.32726
0.1719  -0.10150  -0.24299
0.1016  -0.06434  -0.14612
0.0703  -0.04775  -0.10338
0.0625  -0.04192  -0.09266
0.0547  -0.03717  -0.08186
0.0000   0.00000   0.00000
"""
# Table II, v along the horizontal one: x, and v for Re = 100 and for Re = 400. Left out (nan) is
# the printed -0.23827 at x = 0.9063, Re = 400, a known misprint: it stands far off the smooth
# curve through the other points, which is near -0.39 there.
TABLE_2 = """
1.0000   0.00000   0.00000
0.9688  -0.05906  -0.12146
0.9609  -0.07391  -0.15663
0.9531  -0.08864  -0.19254
0.9453  -0.10313  -0.22847
0.9063  -0.16914       nan
0.8594  -0.22445  -0.44993
0.8047  -0.24533  -0.38598
0.5000   0.05454   0.05186
0.2344   0.17527   0.30174
0.2266   0.17507   0.30203
0.1563   0.16077   0.28124
0.0938   0.12317   0.22965
0.0781   0.10890   0.20920
0.0703   0.10091   0.19713
0.0625   0.09233   0.18360
0.0000   0.00000   0.00000
"""
Y, *U = np.loadtxt(TABLE_1.splitlines(), unpack=True)
X, *V = np.loadtxt(TABLE_2.splitlines(), unpack=True)

SMALL = {"n": 21, "lid": 0.2, "max_time": 4}  # 420 steps, and no multiple of 2 or 4 rows


@pytest.fixture
def run_cavity(tmp_path):
    """Run the job under hpckit and open its results."""
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")

    def run(ranks, **params):
        output = tmp_path / f"on-{ranks}"
        assignments = [f"{name}={value}" for name, value in params.items()]
        command = [sys.executable, "-m", "hpckit", "run", "cavity", *assignments]
        command += ["--ranks", str(ranks), "--output", str(output)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (results,) = output.glob("cavity-*/results.h5")
        return xarray.load_dataset(results, engine="h5netcdf")

    return run


class Memory:
    """A run of one rank that keeps in memory what it is given."""

    rank, size, comm, has_gpu = 0, 1, MPI.COMM_SELF, False

    def __init__(self, saved=None):
        self.saved = saved
        self.checkpoints = []
        self.residuals = []
        self.fields = {}

    def save(self, name, array, **description):
        self.fields[name] = array.copy()

    def record(self, name, value, step=None):
        self.residuals.append((step, value))

    def checkpoint(self, **state):
        self.checkpoints.append(
            {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}
        )

    def restore(self):
        return self.saved

    def progress(self, done, total):
        pass

    def log(self, message):
        pass


@pytest.fixture(scope="module")
def cavity():
    return load_job(str(ROOT / "jobs" / "cavity.py")).job


@pytest.fixture(scope="module")
def module(cavity):
    """What stands in the job file beside the job."""
    return cavity.body.__globals__


def on_centre_line(field, at, end):
    """Interpolate to the points `at` from 0 at the one wall to `end` at the other.

    `field` holds the cells along the last axis; the two before and behind the centre are averaged.
    """
    n = field.shape[-1]
    middle = (field[n // 2 - 1] + field[n // 2]) / 2
    centres = (np.arange(n) + 0.5) / n
    return np.interp(at, [0, *centres, 1], [0, *middle, end])


@pytest.mark.parametrize(("reynolds", "table_u", "table_v"), [(100, U[0], V[0]), (400, U[1], V[1])])
def test_centre_lines_are_within_two_per_cent_of_the_lids_speed(
    run_cavity, reynolds, table_u, table_v
):
    dataset = run_cavity(2, n=128, reynolds=reynolds)

    u, v = dataset.u.transpose("x", "y").values, dataset.v.transpose("y", "x").values
    assert np.nanmax(abs(on_centre_line(u, Y, 1) - table_u)) < 0.02
    assert np.nanmax(abs(on_centre_line(v, X, 0) - table_v)) < 0.02
    assert dataset.residual.values[-1] < 1e-5
    np.testing.assert_array_equal(dataset.y, (np.arange(128) + 0.5) / 128)
    np.testing.assert_array_equal(dataset.x, dataset.y)


def test_fields_are_the_same_bit_for_bit_on_any_number_of_ranks(run_cavity):
    one = run_cavity(1, **SMALL)
    for ranks in (2, 4):
        several = run_cavity(ranks, **SMALL)
        for name in ("u", "v", "p", "x", "y", "residual"):
            np.testing.assert_array_equal(several[name], one[name], strict=True)


def test_a_restored_computation_goes_on_bit_for_bit(cavity):
    whole = Memory()
    cavity(whole, **SMALL)
    assert [state["step"] for state in whole.checkpoints] == [105, 210, 315, 420]

    for state in whole.checkpoints:
        rest = Memory(saved=state)
        cavity(rest, **SMALL)
        assert rest.residuals == [r for r in whole.residuals if r[0] > state["step"]]
        assert rest.fields.keys() == {"x", "y", "u", "v", "p"}
        for name, field in whole.fields.items():
            np.testing.assert_array_equal(rest.fields[name], field, strict=True)


def test_a_step_allocates_nothing(module):
    flow = module["Host"](Memory(), 32, 32, (True, True), (1.5, 1.2), 0.1)
    flow.advance()  # compiles
    tracemalloc.start()
    for _ in range(100):
        flow.advance()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    flow.free()

    assert peak < flow.f[0].nbytes  # not even one row of populations, in NumPy or in Python
    for kernel in ("stream_collide", "reflect"):
        (code,) = module[kernel].inspect_llvm().values()
        assert "NRT_Allocate" not in code
        assert "NRT_MemInfo_alloc" not in code


def test_more_ranks_than_rows_is_one_line_that_names_both(cavity):
    run = Memory()
    run.comm = SimpleNamespace(rank=0, size=3)
    with pytest.raises(UsageError, match=r"^3 ranks for n=2 rows: .*$"):
        cavity(run, n=2)


@pytest.mark.parametrize("wrong", [{"reynolds": 0.0}, {"lid": 0.5}, {"lid": -0.1}])
def test_what_physics_does_not_allow_is_refused(cavity, wrong):
    with pytest.raises(UsageError, match="both positive"):
        cavity(Memory(), n=8, **wrong)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_diverging_flow_is_an_error_and_not_a_steady_state(cavity):
    with pytest.raises(UsageError, match="too coarse"):
        cavity(Memory(), n=16, reynolds=1e6, lid=0.3)
