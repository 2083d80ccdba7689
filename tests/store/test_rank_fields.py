from __future__ import annotations

import itertools
import json
import shutil
import subprocess

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

from hpckit.errors import StoreError
from hpckit.store import digest as digests
from hpckit.store import fields as module
from hpckit.store import packing, rundir
from hpckit.store.digest import digest, variable_digests
from hpckit.store.fields import (
    FieldError,
    Piece,
    RankFile,
    assemble_fields,
    missing_sources,
    pack,
    require_sources,
)

WHOLES = {
    "line": (np.arange(12.0), ("x",), (3,)),
    "plane": (np.arange(48.0).reshape(6, 8), ("y", "x"), (2, 2)),
    "space": (np.arange(60, dtype=np.int32).reshape(3, 4, 5), ("k", "j", "i"), (1, 2, 5)),
    "wave": (np.arange(8) * (1 + 2j), ("x",), (4,)),
    "mask": (np.arange(10) % 3 == 0, ("x",), (2,)),
    "single": (np.arange(6, dtype=np.float32), ("x",), (1,)),
}


def blocks(array, parts):
    """Cut an array into a grid of blocks: offset and block of each."""
    cuts = [
        [round(n * k / count) for k in range(count + 1)]
        for n, count in zip(array.shape, parts, strict=True)
    ]
    for box in itertools.product(*(itertools.pairwise(c) for c in cuts)):
        region = tuple(slice(a, b) for a, b in box)
        yield tuple(a for a, _ in box), array[region]


def save(run, saved, seal=True):
    """Save blocks as ranks do; each is a dict of `Piece.of`'s arguments for one rank."""
    pieces = []
    for rank, entries in enumerate(saved):
        file = RankFile(run, rank)
        for entry in entries:
            options = {"offset": None, "shape": None, "dims": None, "attributes": {}} | entry
            piece = Piece.of(**options, rank=rank)
            file.save(piece, entry["array"])
        file.seal()
        pieces += file.pieces.values()
    return pieces


def save_whole(run, name, array, dims, parts, attributes=None):
    return save(
        run,
        [
            [
                {
                    "name": name,
                    "array": block,
                    "offset": offset,
                    "shape": array.shape,
                    "dims": dims,
                    "attributes": attributes or {},
                }
            ]
            for offset, block in blocks(array, parts)
        ],
    )


def finish(run, pieces, records=None, parameters=None):
    assemble_fields(run, pieces, records or {}, parameters or {}, json.dumps({"id": run.id}))


@pytest.fixture(params=["copied", "virtual"])
def path_taken(request, monkeypatch):
    if request.param == "virtual":
        monkeypatch.setattr(module, "COPY_LIMIT", 0)
    return request.param


@pytest.mark.parametrize("kind", WHOLES)
def test_blocks_become_one_array(run, path_taken, kind):
    array, dims, parts = WHOLES[kind]
    finish(run, save_whole(run, "u", array, dims, parts, {"units": "m"}))
    with xr.open_dataset(run.results, engine="h5netcdf") as dataset:
        assert dataset.u.dims == dims
        assert dataset.u.dtype == array.dtype
        assert dataset.u.attrs == {"units": "m"}
        assert np.array_equal(dataset.u.values, array)
    with h5py.File(run.results, "r") as file:
        # A bool has no type of its own in netCDF, so that its blocks cannot be linked.
        linked = path_taken == "virtual" and array.dtype != bool
        assert file["u"].is_virtual == linked
    if path_taken == "copied":
        assert list(run.segments.iterdir()) == []


@pytest.mark.parametrize("kind", WHOLES)
def test_the_digest_does_not_see_where_the_blocks_lie(run, monkeypatch, kind):
    array, dims, parts = WHOLES[kind]
    found = []
    for limit, cut in ((1 << 30, parts), (1 << 30, [1] * array.ndim), (0, parts)):
        monkeypatch.setattr(module, "COPY_LIMIT", limit)
        run = rundir.create(run.path.parent, "again")
        finish(run, save_whole(run, "u", array, dims, cut))
        found.append(digest(run.results))
    # Packed, in windows smaller than a row.
    monkeypatch.setattr(packing, "WINDOW_BYTES", 24)
    monkeypatch.setattr(digests, "WINDOW_BYTES", 24)
    pack(run)
    found.append(digest(run.results))
    assert len(set(found)) == 1
    changed = array.copy()
    changed.flat[-1] = not changed.flat[-1] if array.dtype == bool else -1
    other = rundir.create(run.path.parent, "other")
    finish(other, save_whole(other, "u", changed, dims, parts))
    assert digest(other.results) != found[0]


def test_a_rank_without_values_takes_part(run, path_taken):
    empty = {"name": "u", "array": np.zeros(0), "offset": (3,), "shape": (3,)}
    full = {"name": "u", "array": np.arange(3.0), "offset": (0,), "shape": (3,)}
    finish(run, save(run, [[full], [empty]]))
    assert missing_sources(run.results) == []
    with h5py.File(run.results, "r") as file:
        assert file["u"][()].tolist() == [0, 1, 2]
        assert file["u"].dims[0][0].name == "/u_0"


def test_a_field_without_any_values(run, path_taken):
    finish(run, save(run, [[{"name": "u", "array": np.zeros((0, 3))}]]))
    with h5py.File(run.results, "r") as file:
        assert file["u"].shape == (0, 3)
    assert set(variable_digests(run.results)) == {"u"}


def test_coordinates_records_and_parameters(run, path_taken):
    x = {"name": "x", "array": np.linspace(0, 1, 4), "dims": ("x",)}
    u = {"name": "u", "array": np.ones((2, 4)), "dims": ("y", "x")}
    t = {"name": "total", "array": np.asarray(2.5), "dims": ()}
    records = {"residual": {0: 1.0, 2: 0.25}, "error": {1: 3.0, 2: 4.0}}
    parameters = {"n": 4, "re": 0.5, "fast": True, "name": "täst", "file": run.path}
    finish(run, save(run, [[u, x, t]]), records, parameters)
    with xr.open_dataset(run.results, engine="h5netcdf") as dataset:
        assert set(dataset.coords) == {"x", "step"}
        assert dataset.step.values.tolist() == [0, 1, 2]
        assert np.array_equal(dataset.residual.values, [1, np.nan, 0.25], equal_nan=True)
        assert dataset.total.values == 2.5
        assert dataset.u.dims == ("y", "x")
        expected = {"n": 4, "re": 0.5, "fast": 1, "name": "täst", "file": str(run.path)}
        assert {key: dataset.attrs[key] for key in parameters} == expected
    with netCDF4.Dataset(run.results) as file:
        assert set(parameters) <= set(file.ncattrs())
        assert file["u"].dimensions == ("y", "x")
    with h5py.File(run.results, "r") as file:
        assert json.loads(file["hpckit/manifest"].asstr()[()]) == {"id": run.id}


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump (hdf5-tools) is missing")
def test_h5dump_opens_it(run, path_taken):
    array, dims, parts = WHOLES["plane"]
    finish(run, save_whole(run, "u", array, dims, parts), {"r": {0: 1.0}})
    done = subprocess.run(["h5dump", "-H", run.results], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'DATASET "u"' in done.stdout


def test_the_second_save_of_a_name_counts(run):
    """It may have another shape and type: nothing is broadcast or cast into the first."""
    first = {"name": "u", "array": np.arange(4)}
    second = {"name": "u", "array": np.array([0.5, 1.5])}
    finish(run, save(run, [[first, first, second]]))
    with h5py.File(run.results, "r") as file:
        assert file["u"][()].tolist() == [0.5, 1.5]


def test_what_an_earlier_attempt_left_is_removed(run, path_taken):
    stale = run.rank_fields(9)
    stale.write_bytes(b"")
    stale.with_suffix(".tmp").write_bytes(b"")
    finish(run, save_whole(run, "u", *WHOLES["line"]))
    assert not stale.exists()
    assert not stale.with_suffix(".tmp").exists()


U = {"name": "u", "array": np.zeros(2), "shape": (4,), "dims": ("x",)}


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([[U | {"offset": (0,)}], [U | {"offset": (1,)}]], "blocks of ranks 0 and 1 overlap"),
        ([[U | {"offset": (0,)}], [U | {"offset": (0,)}]], "blocks of ranks 0 and 1 overlap"),
        ([[U | {"offset": (0,)}]], "hold 2 of the 4 values"),
        (
            [[U | {"offset": (0,)}], [U | {"offset": (2,), "array": np.zeros(2, int)}]],
            "rank 1 saved <i8",
        ),
        ([[U | {"offset": (0,)}], [U | {"offset": (2,), "shape": (5,)}]], r"rank 1 saved <f8\(5,"),
        ([[U | {"offset": (0,)}], [U | {"offset": (2,), "dims": ("y",)}]], r"\('y',\)"),
        (
            [[U | {"shape": (2,)}, U | {"name": "v", "shape": (3,), "array": np.zeros(3)}]],
            "dimension 'x' is 2 long in field 'u' and 3 in 'v'",
        ),
        (
            [[U | {"shape": (2,)}, {"name": "x", "array": np.zeros((2, 2))}]],
            "'x' is a dimension of field 'u' and a field with the dims",
        ),
    ],
)
def test_blocks_that_do_not_fit_are_refused(run, path_taken, ranks, message):
    pieces = save(run, ranks)
    with pytest.raises(FieldError, match=message) as raised:
        finish(run, pieces)
    assert "\n" not in str(raised.value)
    assert not run.results.exists()
    assert run.rank_fields(0).exists()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_overlap_along_any_axis_is_found(run, axis):
    whole = np.zeros((4, 4, 4))
    parts = [1, 1, 1]
    parts[axis] = 2
    entries = [
        [{"name": "u", "array": b, "offset": o, "shape": whole.shape}]
        for o, b in blocks(whole, parts)
    ]
    moved = list(entries[1][0]["offset"])
    moved[axis] -= 1
    entries[1][0]["offset"] = tuple(moved)
    with pytest.raises(FieldError, match="overlap"):
        finish(run, save(run, entries))


def test_an_overlap_that_hides_a_gap_is_found(run):
    entries = [[U | {"offset": (a,), "shape": (6,)}] for a in (0, 1, 4)]
    with pytest.raises(FieldError, match="blocks of ranks 0 and 1 overlap"):
        finish(run, save(run, entries))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": (3,)}, "leaves the whole"),
        ({"offset": (-1,)}, "leaves the whole"),
        ({"offset": (0, 0)}, "axes"),
        ({"shape": (4, 1)}, "axes"),
        ({"dims": ("x", "y")}, "each of the array's 1 axes"),
        ({"dims": ("step",)}, "the name 'step'"),
        ({"dims": ("a/b",)}, "the name 'a/b'"),
        ({"name": ""}, "the name ''"),
        ({"name": "a/b"}, "the name 'a/b'"),
        ({"name": "100%"}, "the name '100%'"),
        ({"name": "hpckit"}, "the name 'hpckit'"),
        ({"array": np.array(["a", "b"])}, "cannot be stored"),
        ({"array": np.zeros(2, np.longdouble)}, "cannot be stored"),
        ({"array": np.zeros(2, object)}, "cannot be stored"),
        ({"array": np.zeros(2, np.float16)}, "save it as float32"),
        ({"attributes": {"units": "a\0b"}}, r"units = 'a\x00b' is not allowed"),
        ({"attributes": {"long_name": "\ud800"}}, "long_name = "),
    ],
)
def test_an_unusable_block_is_refused_by_its_rank(run, changes, message):
    with pytest.raises(FieldError, match="on rank 3: ") as raised:
        Piece.of(**({"offset": None, "attributes": {}} | U | changes), rank=3)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["u", "x", "step", "a/b", ""])
def test_a_record_must_not_take_a_name_that_is_used(run, name):
    pieces = save(run, [[U | {"shape": (2,)}]])
    with pytest.raises(FieldError, match="record"):
        finish(run, pieces, {name: {0: 1.0}})
    assert not run.results.exists()


@pytest.mark.parametrize("damage", ["gone", "damaged", "another file"])
def test_a_missing_source_is_noticed(run, monkeypatch, damage):
    monkeypatch.setattr(module, "COPY_LIMIT", 0)
    finish(run, save_whole(run, "u", *WHOLES["line"]))
    require_sources(run.results)
    source = run.rank_fields(1)
    if damage == "gone":
        source.unlink()
    elif damage == "damaged":
        source.write_bytes(b"no HDF5")
    else:
        source.unlink()
        with h5py.File(source, "w") as file:
            file["v"] = np.zeros(4)
    assert missing_sources(run.results) == [source]
    before = run.results.read_bytes()
    for use in (lambda: pack(run), lambda: digest(run.results)):
        with pytest.raises(StoreError, match="1 of the files") as raised:
            use()
        assert "rank-00001.h5" in str(raised.value)
    assert run.results.read_bytes() == before
    assert run.rank_fields(0).exists()


def test_a_rank_file_that_is_gone_before_the_assembly(run, path_taken):
    pieces = save_whole(run, "u", *WHOLES["mask"])
    run.rank_fields(1).unlink()
    with pytest.raises(StoreError, match=r"rank-00001\.h5: does not read back"):
        finish(run, pieces)


def test_a_results_file_that_is_damaged(run):
    run.results.write_bytes(b"no HDF5")
    for use in (require_sources, digest, variable_digests):
        with pytest.raises(StoreError, match="does not read back"):
            use(run.results)


def test_pack_keeps_everything(run, monkeypatch):
    monkeypatch.setattr(module, "COPY_LIMIT", 0)
    x = {"name": "x", "array": np.linspace(0, 1, 4), "dims": ("x",)}
    u = {"name": "u", "array": np.ones((2, 4)), "dims": ("y", "x"), "attributes": {"units": "K"}}
    flag = {"name": "flag", "array": np.array([True, False]), "dims": ("y",)}
    finish(run, save(run, [[u, x, flag]]), {"r": {0: 1.0}}, {"n": 3})
    before = variable_digests(run.results)
    with xr.open_dataset(run.results, engine="h5netcdf") as dataset:
        expected = dataset.load()
    assert sorted(pack(run)) == ["u", "x"]
    assert list(run.segments.iterdir()) == []
    assert variable_digests(run.results) == before
    with xr.open_dataset(run.results, engine="h5netcdf") as dataset:
        assert dataset.load().identical(expected)
        assert set(dataset.coords) == {"x", "step"}
    with h5py.File(run.results, "r") as file:
        assert json.loads(file["hpckit/manifest"].asstr()[()]) == {"id": run.id}
        assert not any(getattr(item, "is_virtual", False) for item in file.values())
    with netCDF4.Dataset(run.results) as file:
        assert file["u"].dimensions == ("y", "x")
    assert pack(run) == []


def test_a_run_that_moved_still_finds_its_sources(run, monkeypatch):
    monkeypatch.setattr(module, "COPY_LIMIT", 0)
    array = WHOLES["line"][0]
    finish(run, save_whole(run, "u", *WHOLES["line"]))
    moved = run.path.rename(run.path.with_name("moved"))
    with h5py.File(moved / "results.h5", "r") as file:
        assert np.array_equal(file["u"][()], array)


def test_thousands_of_blocks_are_checked_soon(run):
    """Ranks that all begin at the first row: nothing lets a sweep end early."""
    count = 3000
    pieces = [
        Piece("u", (0, k), (2, 1), (2, count), "<f8", ("y", "x"), {}, k) for k in range(count)
    ]
    from hpckit.store.pieces import grouped

    assert len(grouped(pieces)["u"]) == count
    with pytest.raises(FieldError, match="hold 5998 of the 6000"):
        grouped(pieces[:-1])
