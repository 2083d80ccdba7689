from __future__ import annotations

import io
import itertools
import random
import resource
import shutil
import subprocess
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpckit.store import digest as digests
from hpckit.store import results as module
from hpckit.store import rundir
from hpckit.store.block import TaskState
from hpckit.store.blockfile import BlockFile, block_image
from hpckit.store.columns import TEXT
from hpckit.store.digest import digest, variable_digests
from hpckit.store.failures import failed_tasks
from hpckit.store.reading import reading
from hpckit.store.results import assemble, attributes_of_none, task_states
from hpckit.store.segments import SegmentWriter, list_segments


def answer(i):
    """All kinds of fields; some rows lack some."""
    found = {
        "energy": i * 0.5,
        "count": i,
        "good": i % 2 == 0,
        "phase": complex(i, -1),
        "label": f"täsk {i}",
        "curve": np.arange(4, dtype=np.float32) + i,
        "walk": np.arange(i % 3),
        "words": np.array(["a", "b"][: i % 3], object),
    }
    if i % 4:
        found |= {"small": np.uint8(i), "maybe": i % 3 == 0}
    return found


def seal(run, block, *groups):
    for group in groups:
        SegmentWriter(run.segments).seal([block(group)])


def read(run, start=0, stop=None):
    with reading(run.results) as file:
        source = BlockFile(file)
        return source.read(start, len(source.task) if stop is None else stop)


def check(run, expected):
    """Compare results.h5 with the answers of some tasks; the others failed or are missing."""
    block = read(run)
    for name, column in block.fields.items():
        for task, row in enumerate(column.rows()):
            value = expected[task].get(name) if task in expected else None
            assert (row is None) == (value is None), (name, task)
            if value is not None:
                assert row.tolist() == np.asarray(value).tolist(), (name, task)
    return block


@pytest.fixture
def whole(run, block, points):
    """A run of 30 tasks, two failed, five missing."""
    results = {i: answer(i) for i in range(25)}
    results[3] = results[11] = "Traceback: boom"
    seal(run, block, results)
    attributes = {"energy": {"units": "J", "long_name": "energy"}, "T": {"units": "K"}}
    makers = {"name": lambda i: f"n{i % 2}", "file": lambda i: Path("/data") / str(i)}
    makers |= {"flag": lambda i: i > 3, "z": lambda i: complex(i), "repeat": int}
    counts = assemble(run, points(30, **makers), '{"id": "x"}', attributes)
    assert counts == {"missing": 5, "done": 23, "failed": 2}
    return run


def test_types_and_values(whole):
    expected = {i: answer(i) for i in range(25) if i not in (3, 11)}
    block = check(whole, expected)
    types = {name: column.values.dtype for name, column in block.fields.items()}
    assert types == {
        "energy": np.float64,
        "count": np.int64,
        "good": np.bool_,
        "phase": np.complex128,
        "label": TEXT,
        "curve": np.float32,
        "walk": np.int64,
        "words": TEXT,
        "small": np.uint8,
        "maybe": np.bool_,
    }
    assert block.state.tolist() == task_states(whole, 30).tolist()
    assert failed_tasks(whole.results, 1) == [(3, "Traceback: boom")]
    assert [task for task, _ in failed_tasks(whole.results, 9)] == [3, 11]
    assert list(whole.segments.iterdir()) == []


def test_xarray_opens_it(whole):
    with xr.open_dataset(whole.results, engine="h5netcdf") as dataset:
        assert dict(dataset.sizes)["task"] == 30
        assert set(dataset.coords) == {"task", "T", "name", "file", "flag", "z", "repeat"}
        assert dataset.T.attrs["units"] == "K"
        assert dataset.energy.attrs == {"units": "J", "long_name": "energy"}
        assert dataset.energy.dims == ("task",)
        assert dataset.curve.dims == ("task", "curve_0")
        assert dataset.flag.dtype == bool
        assert dataset.file.values[2] == "/data/2"
        assert dataset.label.values[4] == "täsk 4"
        assert dataset["count"].values[7] == 7
        assert np.isnan(dataset["count"].values[[3, 29]]).all()
        assert dataset.phase.values[1] == 1 - 1j
        assert np.isnan(dataset.small.values[4])
        offset, shape = dataset.walk_offset.values, dataset.walk_shape.values[:, 0]
        assert dataset.walk.values[offset[5] : offset[5] + shape[5]].tolist() == [0, 1]
    with xr.open_dataset(whole.results, engine="h5netcdf", group="tasks") as details:
        assert set(details) == {"start", "duration", "attempts", "worker", "error"}
        assert details.start.values[4] == np.datetime64("1970-01-01T00:00:04")
        assert np.isnan(details.attempts.values[29])


def test_xarray_gives_native_types_where_all_is_there(run, block, points):
    seal(run, block, {i: {"n": i, "good": True, "u": np.uint8(i)} for i in range(5)})
    assemble(run, points(5), "{}", {})
    with xr.open_dataset(run.results, engine="h5netcdf") as dataset:
        types = {name: dataset[name].dtype for name in ("n", "good", "u")}
    assert types == {"n": np.int64, "good": np.bool_, "u": np.uint8}


def test_netcdf_opens_it(whole):
    with netCDF4.Dataset(whole.results) as file:
        assert len(file.dimensions["task"]) == 30
        assert file["energy"].dimensions == ("task",)
        assert file["energy"].units == "J"
        assert file["curve"].dimensions == ("task", "curve_0")
        assert file["label"][4] == "täsk 4"
        assert file["count"][3] is np.ma.masked
        assert set(file.groups) == {"tasks", "hpckit"}


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump (hdf5-tools) is missing")
def test_h5dump_opens_it(whole):
    done = subprocess.run(["h5dump", "-H", whole.results], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in ("task", "energy", "walk_offset", "tasks", "manifest"):
        assert f'"{name}"' in done.stdout


def test_the_file_is_old_enough_and_holds_the_manifest(whole):
    with h5py.File(whole.results, "r") as file:
        assert file["hpckit/manifest"].asstr()[()] == '{"id": "x"}'
        assert list(file)[:2] == ["task", "task_state"]
    # The superblock's version stands behind the signature: 4 is beyond HDF5 1.10.
    assert whole.results.read_bytes()[8] <= 3


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_segments_in_any_order_give_the_same(tmp_path_factory, block, points, data):
    """Each task stands in one to three segments; some failed before they were done."""
    count = 12
    dead = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    lost = data.draw(st.sets(st.integers(0, count - 1), max_size=3)) - dead
    segments = [{} for _ in range(data.draw(st.integers(1, 5)))]
    for task in sorted(set(range(count)) - lost):
        for number in data.draw(st.sets(st.integers(0, len(segments) - 1), min_size=1)):
            fails = task in dead or (number == 0 and data.draw(st.booleans()))
            segments[number][task] = "boom" if fails else answer(task)
    folder = tmp_path_factory.mktemp("runs")
    done = {t for group in segments for t, result in group.items() if result != "boom"}
    seen = {t for group in segments for t in group}

    run = rundir.create(folder, "pieces")
    cut = data.draw(st.integers(0, len(segments)))
    for part in (segments[:cut], segments[cut:]):
        seal(run, block, *(group for group in data.draw(st.permutations(part)) if group))
        counts = assemble(run, points(count), "{}", {})
    assert counts == {
        "done": len(done),
        "failed": len(seen - done),
        "missing": count - len(seen),
    }
    check(run, {task: answer(task) for task in done})

    plain = rundir.create(folder, "plain")
    results = {t: answer(t) if t in done else "boom" for t in sorted(seen)}
    seal(plain, block, *([results] if results else []))
    assemble(plain, points(count), "{}", {})
    assert variable_digests(run.results) == variable_digests(plain.results)


def test_a_second_assembly_adds_what_came_since(run, block, points):
    seal(run, block, {i: answer(i) for i in range(0, 20, 2)}, {1: "boom", 3: "boom"})
    assert assemble(run, points(20), "{}", {})["missing"] == 8
    seal(run, block, {i: answer(i) for i in (1, 5, 7)})
    assert assemble(run, points(20), "{}", {}) == {"done": 13, "failed": 1, "missing": 6}
    check(run, {i: answer(i) for i in (*range(0, 20, 2), 1, 5, 7)})
    assert failed_tasks(run.results, 9) == [(3, "boom")]
    # The field may also widen.
    seal(run, block, {9: {"energy": 2 + 1j, "curve": np.arange(2)}})
    assemble(run, points(20), "{}", {})
    fields = read(run).fields
    assert fields["energy"].rows()[9] == 2 + 1j
    assert fields["energy"].rows()[4] == 2.0
    assert fields["curve"].rows()[4].tolist() == [4, 5, 6, 7]
    assert fields["curve"].rows()[9].tolist() == [0, 1]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_no_order_of_segments_changes_a_large_integer(run, block, points, order):
    values = [2**53 + 1, 0.5, np.float32(0.1), 7]
    for at in order[:2]:
        seal(run, block, {at: {"x": values[at]}})
    assemble(run, points(4), "{}", {})
    for at in order[2:]:
        seal(run, block, {at: {"x": values[at]}})
    assemble(run, points(4), "{}", {})
    assert read(run).fields["x"].values.tolist() == [
        "9007199254740993",
        "0.5",
        "0.10000000149011612",
        "7",
    ]


def test_half_precision_is_widened_in_the_file_and_comes_back(run, block, points):
    rows = {i: {"x": np.float16(i / 3), "r": np.ones(i, np.float16)} for i in range(3)}
    seal(run, block, rows, {3: "boom"})
    assemble(run, points(4), "{}", {})
    check(run, rows)
    assert {c.values.dtype for c in read(run).fields.values()} == {np.dtype(np.float16)}
    with netCDF4.Dataset(run.results) as file:
        assert file["x"][:3].tolist() == [np.float16(i / 3) for i in range(3)]
        assert file["r"].dtype == np.float32


def test_attributes_of_no_variable_are_told(run, block, points):
    attributes = {"energy": {"units": "J"}, "T": {"units": "K"}, "enrgy": {"units": "J"}}
    seal(run, block, {0: "boom"})
    assemble(run, points(2), "{}", attributes)
    assert attributes_of_none(run.results, attributes) == []
    seal(run, block, {0: {"energy": 1.0}})
    assemble(run, points(2), "{}", attributes)
    assert attributes_of_none(run.results, attributes) == ["enrgy"]


def test_a_segment_sealed_meanwhile_is_kept(run, block, points, monkeypatch):
    seal(run, block, {0: {"x": 0.0}})
    write = module._write_parameters

    def another_seals(*arguments):
        seal(run, block, {1: {"x": 1.0}})
        write(*arguments)

    monkeypatch.setattr(module, "_write_parameters", another_seals)
    assert assemble(run, points(2), "{}", {})["missing"] == 1
    assert len(list_segments(run.segments)) == 1
    monkeypatch.undo()
    assert assemble(run, points(2), "{}", {})["done"] == 2


def test_a_failed_assembly_leaves_everything(run, block, points, monkeypatch):
    seal(run, block, {0: {"x": 0.0}})
    assemble(run, points(2), "{}", {})
    before = run.results.read_bytes()
    seal(run, block, {1: {"x": 1.0}})

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "embed_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        assemble(run, points(2), "{}", {})
    assert run.results.read_bytes() == before
    assert len(list_segments(run.segments)) == 1
    assert [path for path in run.path.iterdir() if path.suffix == ".tmp"] == []


def test_what_a_killed_assembly_left_is_removed(run, block, points):
    seal(run, block, {0: {"x": 0.0}})
    half = run.path / ".results.h5.abcd.tmp"
    half.write_bytes(b"half")
    assemble(run, points(1), "{}", {})
    assert not half.exists()


@pytest.mark.parametrize("limit", [1, 2000, 1 << 30])
def test_windows_do_not_show(whole, block, points, tmp_path, monkeypatch, limit):
    expected = variable_digests(whole.results)
    monkeypatch.setattr(digests, "WINDOW_BYTES", limit)
    monkeypatch.setattr(module, "WINDOW_BYTES", limit)
    monkeypatch.setattr(module, "PARAMETER_ROWS", 7)
    assert variable_digests(whole.results) == expected
    run = rundir.create(tmp_path, "again")
    results = {i: answer(i) for i in range(25)}
    results[3] = results[11] = "Traceback: boom"
    parts = [dict(itertools.islice(results.items(), k, None, 3)) for k in range(3)]
    seal(run, block, *parts)
    makers = {"name": lambda i: f"n{i % 2}", "file": lambda i: Path("/data") / str(i)}
    makers |= {"flag": lambda i: i > 3, "z": lambda i: complex(i), "repeat": int}
    assemble(run, points(30, **makers), "{}", {})
    assert variable_digests(run.results) == expected


@pytest.mark.parametrize("name", sorted(answer(5)))
def test_one_changed_value_changes_one_digest(run, block, points, name):
    changed = {
        "energy": -0.25,
        "count": 6,
        "good": True,
        "phase": 5 + 1j,
        "label": "täsk 6",
        "curve": np.array([5, 6, 7, 9], np.float32),
        "walk": np.array([0, 2]),
        "words": np.array(["a", "c"], object),
        "small": np.uint8(6),
        "maybe": True,
    }
    other = rundir.create(run.path.parent, "other")
    seal(run, block, {i: answer(i) for i in range(9)})
    seal(other, block, {i: answer(i) | ({name: changed[name]} if i == 5 else {}) for i in range(9)})
    for each in (run, other):
        assemble(each, points(9), "{}", {})
    one, two = variable_digests(run.results), variable_digests(other.results)
    assert {key for key in one if one[key] != two[key]} == {name}
    assert digest(run.results) != digest(other.results)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (["ab", "c"], ["a", "bc"]),
        ([np.zeros((2, 3)), np.zeros(1)], [np.zeros((3, 2)), np.zeros(1)]),
        ([1, 2], [1.0, 2.0]),
        ([1.0, None], [1.0, np.nan]),
        ([True, False], [1, 0]),
        ([np.zeros(3), np.zeros(0)], [np.zeros(0), np.zeros(3)]),
    ],
    ids=str,
)
def test_the_digest_tells_apart(run, block, points, one, two):
    found = []
    for values in (one, two):
        other = rundir.create(run.path.parent, "other")
        seal(other, block, {i: {} if v is None else {"x": v} for i, v in enumerate(values)})
        assemble(other, points(2), "{}", {})
        found.append(variable_digests(other.results)["x"])
    assert found[0] != found[1]


def test_every_nan_is_the_same(run, block, points):
    odd = np.array([0x7FF8000000000001], np.uint64).view(float)[0]
    found = set()
    for value in (np.float64("nan"), odd):
        other = rundir.create(run.path.parent, "other")
        seal(other, block, {0: {"x": value, "z": np.complex128(complex(1, value))}})
        assemble(other, points(1), "{}", {})
        found.add(digest(other.results))
    assert len(found) == 1


def test_names_of_helpers_give_way_to_fields_and_parameters(run, block, points):
    """The dimension of `a`, and all that a ragged `r` needs, are names a user may take."""

    def fields(i):
        names = ("a_0", "r_offset", "r_shape", "r_value", "r_axis", "r_shape_")
        return {"a": np.arange(3) + i, "r": np.arange(i)} | dict.fromkeys(names, i + 0.5)

    seal(run, block, {i: fields(i) for i in range(3)}, {i: fields(i) for i in range(3, 5)})
    assemble(run, points(5, b=int, a_0_=int), "{}", {})
    check(run, {i: fields(i) for i in range(5)})
    with xr.open_dataset(run.results, engine="h5netcdf") as dataset:
        assert dataset.a.dims == ("task", "a_0__")
        assert dataset.r_offset.values.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
        assert dataset[dataset.r.attrs["hpckit_offset"]].values.tolist() == [0, 0, 1, 3, 6]


def test_thousands_of_fields(block):
    """The list of what hangs on a dimension outgrows an attribute's 64 kB."""
    image = block_image(block({0: {f"f{i}": 1.0 for i in range(4200)}}))
    with h5py.File(io.BytesIO(bytes(image)), "r") as file:
        assert file["f4199"].dims[0][0].name == "/task"


def test_more_segments_than_open_files_are_allowed(run, block, points):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    seal(run, block, *({i: {"x": float(i)}} for i in range(80)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        assert assemble(run, points(80), "{}", {})["done"] == 80
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_segment_of_few_ragged_rows_is_small(run, block):
    seal(run, block, {0: {f"r{k}": np.arange(3) for k in range(4)}, 1: {}})
    seal(run, block, {i: {f"r{k}": np.arange(i) for k in range(4)} for i in range(2, 4)})
    sizes = [segment.path.stat().st_size for segment in list_segments(run.segments)]
    assert max(sizes) < 60_000


def test_the_order_of_blocks_in_a_seal_does_not_matter(run, block, points):
    found = set()
    groups = [{i: answer(i), i + 9: answer(i + 9)} for i in range(9)]
    for seed in range(3):
        random.Random(seed).shuffle(groups)
        other = rundir.create(run.path.parent, "other")
        SegmentWriter(other.segments).seal([block(group) for group in groups])
        assert assemble(other, points(18), "{}", {})["done"] == 18
        found.add(digest(other.results))
    assert len(found) == 1


def test_a_farm_of_no_results(run, points):
    assert assemble(run, points(4), "{}", {}) == {"missing": 4, "done": 0, "failed": 0}
    assert read(run).state.tolist() == [TaskState.MISSING] * 4
