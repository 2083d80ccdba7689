"""The MPI benchmark: what it saves on 2, 3 and 4 ranks, and that it measures what it says."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hpckit.errors import HpckitError, UsageError
from hpckit.spec.load import load_job

MPI = pytest.importorskip("mpi4py.MPI")

JOB = Path(__file__).parents[2] / "jobs" / "mpi_bench.py"
TINY = ("max_bytes=100", "repeats=3", "n=5", "io_bytes=1000", "io_repeats=2")

# name: dims, units
FIELDS = {
    "bytes": (("bytes",), "bytes"),
    "latency": (("bytes",), "us"),
    "bandwidth": (("bytes",), "bytes/s"),
    "window_bandwidth": (("bytes",), "bytes/s"),
    "allreduce_bytes": (("allreduce_bytes",), "bytes"),
    "allreduce_time": (("allreduce_bytes",), "us"),
    "halo_time": ((), "us"),
    "halo_bandwidth": ((), "bytes/s"),
    "write_bandwidth": (("repetition",), "bytes/s"),
    "read_bandwidth": (("repetition",), "bytes/s"),
    "node_of_rank": (("rank",), "1"),
    "ranks_on_node": (("node",), "1"),
}


@pytest.fixture
def bench(hpckit):
    """Run the job with tiny sizes, its files in a folder of their own, and open its results."""
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    (hpckit.directory / "scratch").mkdir()

    def run(ranks):
        ended = hpckit("run", JOB, *TINY, "folder=scratch", "--ranks", ranks)
        assert ended.code == 0, ended.stdout + ended.stderr
        return xarray.load_dataset(hpckit.last() / "results.h5", engine="h5netcdf")

    return run


@pytest.fixture(scope="module")
def job():
    return load_job(str(JOB)).job


@pytest.fixture(scope="module")
def module(job):
    """What stands in the job file beside the job."""
    return SimpleNamespace(**job.body.__globals__)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_all_is_saved_with_dims_and_units(hpckit, bench, ranks):
    results = bench(ranks)

    assert set(results.variables) == {*FIELDS, "halo_us", "step"}
    for name, (dims, units) in FIELDS.items():
        assert results[name].dims == dims, name
        assert results[name].attrs["units"] == units, name
        assert results[name].attrs["long_name"], name
        assert np.isfinite(results[name]).all(), name
        assert (results[name] > 0).all() or name == "node_of_rank", name
    sizes = {"bytes": 7, "allreduce_bytes": 4, "repetition": 2, "step": 3}
    assert results.sizes == {**sizes, "rank": ranks, "node": 1}

    np.testing.assert_array_equal(results.bytes, [1, 2, 4, 8, 16, 32, 64])
    np.testing.assert_array_equal(results.allreduce_bytes, [8, 16, 32, 64])
    np.testing.assert_array_equal(results.node_of_rank, np.zeros(ranks))
    np.testing.assert_array_equal(results.ranks_on_node, [ranks])
    # What is derived from a time is derived from the time that is saved.
    np.testing.assert_allclose(results.bandwidth, results.bytes / (results.latency * 1e-6))
    np.testing.assert_allclose(results.halo_bandwidth, 4 * 5 * 8 / (results.halo_time * 1e-6))
    np.testing.assert_allclose(results.halo_time, np.median(results.halo_us))

    assert f"between ranks 0 and {ranks - 1}" in results.latency.attrs["long_name"]
    assert f"ranks: {ranks}, nodes: 1" in hpckit.logs()
    assert not list((hpckit.directory / "scratch").iterdir())


def test_one_rank_is_refused_in_one_line_and_leaves_nothing(hpckit):
    ended = hpckit("run", JOB, "--ranks", 1)
    assert (ended.code, len(ended.stderr.splitlines())) == (2, 1)
    assert "at least 2: --ranks 2" in ended.stderr
    assert not hpckit.run_dirs()


def test_a_folder_that_is_not_there_is_refused(hpckit):
    ended = hpckit("run", JOB, *TINY, "folder=nowhere")
    assert (ended.code, len(ended.stderr.splitlines())) == (2, 1)
    assert "folder='nowhere'" in ended.stderr
    assert not hpckit.run_dirs()


@pytest.mark.parametrize(
    "wrong",
    [{"max_bytes": 7}, {"repeats": 0}, {"n": 0}, {"io_bytes": 0}, {"io_repeats": -1}],
)
def test_sizes_that_measure_nothing_are_refused(job, wrong):
    with pytest.raises(UsageError, match="at least 8, and all other numbers at least 1"):
        job(SimpleNamespace(size=2), **wrong)


class Deaf:
    """A communicator, and a request, that completes everything and moves no data."""

    size, coords, dims = 2, (0, 0), (2, 1)

    def __init__(self, rank=0):
        self.rank = rank

    def __getattr__(self, name):
        return lambda *args, **kwargs: self

    def Shift(self, direction, step):
        return 1, 1

    def allreduce(self, value, op):
        return value


class Once(Deaf):
    """One that moves the data the first time alone, so that they are stale ever after."""

    def __init__(self, rank=0):
        super().__init__(rank)
        self.heard = False

    def Allreduce(self, own, total):
        if not self.heard:
            total[:] = own * 2 + 1
            self.heard = True


@pytest.mark.parametrize(
    ("name", "comm", "size"),
    [
        ("ping_pong", Deaf(0), 8),
        ("ping_pong", Deaf(1), 8),
        ("window", Deaf(1), 8),
        ("allreduce", Deaf(), 8),
        ("allreduce", Once(), 8),
        ("halo", Deaf(), 3),
    ],
)
def test_what_moves_no_data_is_an_error_and_no_measurement(module, name, comm, size):
    with pytest.raises(HpckitError, match="what arrived is not what was sent"):
        getattr(module, name)(comm, size, 2)


def test_a_file_that_reads_back_otherwise_is_an_error(module, monkeypatch, tmp_path):
    class Forgetful(io.FileIO):
        def readinto(self, buffer):
            return len(buffer)

    def temporary(dir):
        return Forgetful(dir / "file", "w+")

    monkeypatch.setitem(module.write_and_read.__globals__, "TemporaryFile", temporary)
    with pytest.raises(HpckitError, match="file of 9 bytes: what arrived"):
        module.write_and_read(MPI.COMM_SELF, tmp_path, np.arange(1, 10, dtype=np.uint8))


def test_no_file_has_a_name_while_it_is_written(module, tmp_path):
    seen = []

    class Watching(Deaf):
        def Barrier(self):
            seen.append(list(tmp_path.iterdir()))

    module.write_and_read(Watching(), tmp_path, np.arange(9, dtype=np.uint8))
    assert seen == [[], []]


def test_a_halo_comes_from_the_neighbours_in_a_periodic_domain(module):
    """Of 2 x 3 ranks with 2 x 2 cells each, the one in the lower right corner."""
    grid = SimpleNamespace(coords=(1, 2), dims=(2, 3))
    expected = [[9, 10, 11, 6], [15, 16, 17, 12], [21, 22, 23, 18], [3, 4, 5, 0]]
    np.testing.assert_array_equal(module.numbered(grid, 2), expected)
