from __future__ import annotations

import os

import pytest

from hpckit.errors import StoreError, UsageError
from hpckit.store import rundir
from hpckit.store.rundir import find, list_runs, require_results, runs_root


@pytest.fixture
def runs(tmp_path):
    """Make runs of given ids."""

    def make(*ids):
        for name in ids:
            folder = tmp_path / name
            folder.mkdir()
            (folder / "run.json").touch()
        return tmp_path

    return make


def test_a_new_run(tmp_path):
    run = rundir.create(tmp_path / "a" / "runs", "my job/ü")
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert run.path.is_absolute()
    assert run.id.startswith("my-job-")
    assert run.logs.is_dir()
    assert run.segments.is_dir()
    assert list_runs(tmp_path / "a" / "runs") == []


def test_two_runs_of_a_second_are_two(tmp_path):
    assert len({rundir.create(tmp_path, "job").id for _ in range(20)}) == 20


def test_a_root_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(UsageError, match="give another --output"):
            rundir.create(root, "job")


def test_runs_are_listed_oldest_first(runs):
    ids = [
        "b-20250101-000000-aaaa",
        "a-20250101-000001-aaaa",
        "x-29991231-000000-20250101-000002-aaaa",
        "a-20260101-000000-0000",
    ]
    root = runs(*reversed(ids))
    (root / "not-a-run").mkdir()
    assert [run.id for run in list_runs(root)] == ids
    assert find("last", root).id == ids[-1]
    assert list_runs(root / "none") == []


def test_the_last_of_two_runs_of_one_second(runs):
    first, second = "job-20250101-000000-ffff", "job-20250101-000000-0000"
    root = runs(first, second)
    for name, seconds in ((first, 1), (second, 2)):
        copy = root / name / "job.py"
        copy.touch()
        os.utime(copy, (seconds, seconds))
    assert find("last", root).id == second


def test_a_run_is_found(runs, monkeypatch):
    ids = ["a-20250101-000000-aaaa", "a-20250101-000000-aaaab", "b-20250101-000000-cccc"]
    root = runs(*ids)
    assert find("b", root).id == ids[2]
    assert find(ids[0], root).id == ids[0]
    assert find(str(root / ids[1]), root / "elsewhere").id == ids[1]
    monkeypatch.chdir(root / ids[2])
    assert find(".", root).path == root / ids[2]


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("a", "2 runs begin so: a-1, a-2"),
        ("c", "3 runs there"),
        ("x" * 5000, "neither a run directory"),
        ("nul\0", "neither a run directory"),
    ],
)
def test_a_run_that_is_not_found(runs, ref, message):
    root = runs("a-1", "a-2", "b-1")
    with pytest.raises(UsageError, match=message):
        find(ref, root)


def test_the_last_of_no_runs(tmp_path):
    with pytest.raises(UsageError, match="no runs there"):
        find("last", tmp_path)


def test_the_root_comes_from_the_option_then_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCKIT_RUNS", "/scratch/runs")
    assert runs_root(tmp_path) == tmp_path
    assert str(runs_root(None)) == "/scratch/runs"
    monkeypatch.setenv("HPCKIT_RUNS", "")
    assert str(runs_root(None)) == "runs"


def test_results_that_are_not_there_yet(tmp_path):
    run = rundir.create(tmp_path, "job")
    with pytest.raises(StoreError, match="hpckit status"):
        require_results(run)
    run.results.touch()
    assert require_results(run) == run.results


def test_leftovers_of_a_killed_driver_are_removed(tmp_path):
    run = rundir.create(tmp_path, "x")
    (run.path / ".results.h5.abc.tmp").touch()
    run.manifest.touch()
    run.remove_leftovers()
    assert sorted(path.name for path in run.path.iterdir()) == ["logs", "run.json", "segments"]
