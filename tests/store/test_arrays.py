"""Large arrays in files of their own: written, referred to, linked to, damaged."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray as xr

from hpckit.errors import StoreError
from hpckit.store import links
from hpckit.store.arrays import Arrays, Spill, array_files
from hpckit.store.block import TaskState, merged
from hpckit.store.digest import digest
from hpckit.store.fields import pack
from hpckit.store.results import assemble, task_states
from hpckit.store.segments import SegmentWriter, list_segments, set_aside_damaged

ROW = 4096
"""Values; a field of 512 rows has 16 MiB, above what is kept in memory."""


def row(index, dtype=np.float64):
    """Return what a task returns."""
    return np.full(ROW, index, dtype)


@pytest.fixture
def sealed(run, block):
    """Seal the arrays of tasks as a worker and its driver do, a list of batches."""
    spill = Spill(run.segments)
    writer = SegmentWriter(run.segments)

    def seal(*batches, make=row):
        blocks = []
        for batch in batches:
            made = {i: {"field": make(i), "n": i} for i in batch}
            blocks.append(spill.lighten(block(made)))
        writer.seal(blocks)
        return blocks

    return seal


@pytest.fixture
def linked(monkeypatch):
    """Link what is larger than a MiB, so that tests need no large files."""
    monkeypatch.setattr(links, "COPY_LIMIT", 1 << 20)


def values(run):
    """Return the field as any reader sees it."""
    with h5py.File(run.results) as file:
        return file["field"][()]


def expected(count):
    """Return what it should be."""
    return np.repeat(np.arange(count, dtype=float)[:, None], ROW, axis=1)


def test_small_arrays_stay_in_the_block(run, block):
    spill = Spill(run.segments)
    small = block({i: {"field": np.zeros(8), "few": row(0)} for i in range(20)})
    assert spill.lighten(small) is small
    assert not list(array_files(run.segments))


def test_what_is_copied_into_the_results(run, sealed, points):
    (first, second) = sealed(range(0, 64), range(64, 128))
    assert "field" not in first.fields
    assert "field" in second.stored
    assert assemble(run, points(128), "{}", {})["done"] == 128
    np.testing.assert_array_equal(values(run), expected(128))
    assert not list(run.segments.iterdir())


def test_what_is_linked(run, sealed, points, linked):
    # The first and the last batches are too small to be heavy, as in any farm.
    sealed(range(0, 2), range(64, 128), range(2, 64), range(128, 131))
    assert assemble(run, points(131), "{}", {})["done"] == 131
    with h5py.File(run.results) as file:
        assert file["field"].is_virtual
        assert "_FillValue" not in file["field"].attrs
    np.testing.assert_array_equal(values(run), expected(131))
    with xr.open_dataset(run.results, engine="h5netcdf") as data:
        assert data["field"].dims == ("task", "field_0")
        assert float(data["field"].sel(task=100).mean()) == 100
    assert [path.suffix for path in run.segments.iterdir()] == [".h5"] * 2


def test_tasks_that_failed_are_absent_in_what_is_linked(run, block, points, linked):
    spill = Spill(run.segments)
    outcomes = {i: "broken" if i == 7 else {"field": row(i), "n": i} for i in range(64)}
    SegmentWriter(run.segments).seal([spill.lighten(block(outcomes))])
    assemble(run, points(65), "{}", {})
    found = values(run)
    assert np.isnan(found[[7, 64]]).all()
    np.testing.assert_array_equal(np.delete(found, [7, 64], 0), np.delete(expected(64), 7, 0))


def test_integers_stay_integers(run, sealed, points, linked):
    sealed(range(128), make=lambda i: row(i, np.int32))
    assemble(run, points(129), "{}", {})
    with h5py.File(run.results) as file:
        field = file["field"]
        assert field.dtype == np.int32
        assert field.attrs["_FillValue"] == np.iinfo(np.int32).min == field[128, 0]


@pytest.mark.parametrize(
    "second", [np.zeros(ROW + 1), np.zeros(ROW, complex)], ids=["shape", "type"]
)
def test_rows_of_several_kinds_are_copied(run, block, points, linked, second):
    spill = Spill(run.segments)
    first = spill.lighten(block({i: {"field": row(i)} for i in range(64)}))
    other = spill.lighten(block({i: {"field": second} for i in range(64, 128)}))
    SegmentWriter(run.segments).seal([first, other])
    assemble(run, points(128), "{}", {})
    with h5py.File(run.results) as file:
        assert not file["field"].is_virtual
    assert not list(run.segments.iterdir())


def test_a_second_session_links_to_what_is_there(run, sealed, points, linked):
    sealed(range(0, 64))
    assemble(run, points(128), "{}", {})
    before = {path: path.read_bytes() for _, path in array_files(run.segments)}
    assert np.isnan(values(run)[64:]).all()
    sealed(range(64, 128))
    assemble(run, points(128), "{}", {})
    np.testing.assert_array_equal(values(run), expected(128))
    assert all(path.read_bytes()[4096 : len(data)] == data[4096:] for path, data in before.items())


def test_many_segments_are_merged(run, sealed, points, linked):
    for start in range(0, 640, 40):
        sealed(range(start, start + 40))
    assert len(list_segments(run.segments)) < 10
    assert assemble(run, points(640), "{}", {})["done"] == 640
    np.testing.assert_array_equal(values(run), expected(640))


def test_the_digest_does_not_depend_on_where_the_rows_are(run, sealed, points, linked):
    sealed(range(128))
    assemble(run, points(128), "{}", {})
    first = digest(run.results)
    assert pack(run) == ["field"]
    with h5py.File(run.results) as file:
        assert not file["field"].is_virtual
        assert "hpckit/stored" not in file
    assert digest(run.results) == first
    assert not list(run.segments.iterdir())


def test_a_flipped_byte_costs_its_own_task_alone(run, sealed, points, linked):
    sealed(range(64), range(64, 128))
    (path,) = [path for _, path in array_files(run.segments)]
    with path.open("r+b") as file:
        file.seek(4096 + 100 * 8 * ROW + 17)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    assert len(set_aside_damaged(run.segments)) == 1
    states = task_states(run, 128)
    assert np.flatnonzero(states == TaskState.MISSING).tolist() == [100]
    sealed([100])
    assert assemble(run, points(128), "{}", {})["done"] == 128
    np.testing.assert_array_equal(values(run), expected(128))
    assert set_aside_damaged(run.segments) == []


def test_rows_that_a_killed_writer_left_are_only_lost_space(run, sealed, points, linked):
    sealed(range(128))
    (path,) = [path for _, path in array_files(run.segments)]
    with path.open("ab") as file:
        file.write(b"half a row")
    assert set_aside_damaged(run.segments) == []
    assemble(run, points(128), "{}", {})
    np.testing.assert_array_equal(values(run), expected(128))


def test_a_file_that_is_gone_is_named(run, sealed, points, linked):
    sealed(range(128))
    (path,) = [path for _, path in array_files(run.segments)]
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(StoreError, match=path.name):
        assemble(run, points(128), "{}", {})
    path.write_bytes(content)
    assemble(run, points(128), "{}", {})
    path.unlink()
    with pytest.raises(StoreError, match=f"missing or damaged, the first is .*{path.name}"):
        digest(run.results)


def test_too_many_ranges_are_copied(run, sealed, points, linked, monkeypatch):
    monkeypatch.setattr(links, "MOST_RANGES", 3)
    sealed(range(0, 128, 2), range(1, 128, 2))
    assemble(run, points(128), "{}", {})
    with h5py.File(run.results) as file:
        assert not file["field"].is_virtual
    np.testing.assert_array_equal(values(run), expected(128))


def test_a_result_that_comes_twice_stands_once(run, block, points, linked):
    spill = Spill(run.segments)
    blocks = [spill.lighten(block({i: {"field": row(i)} for i in range(64)})) for _ in range(2)]
    both = merged(blocks)
    assert len(both) == 64
    rows = Arrays(run.segments).joined(
        both.stored["field"].values, None, blocks[0].fields.get("field") or _field()
    )
    np.testing.assert_array_equal(rows.values, expected(64))


def _field():
    from hpckit.store.columns import Field

    return Field(np.dtype(float), (ROW,), 1)
