from __future__ import annotations

import numpy as np
import pytest

from hpckit.analyse import variables as module
from hpckit.analyse.variables import open_variables, row_windows
from hpckit.errors import StoreError
from hpckit.store.digest import variable_digests


def test_the_variables_are_those_that_have_a_digest(make_farm, make_fields):
    ragged = [{"energy": 1.0, "v": np.arange(2)}, {"energy": 2.0, "v": np.arange(3)}]
    farm = make_farm(ragged, "T=1,2")
    spmd = make_fields({"u": (np.ones((2, 3)), ("y", "x"))}, {"r": {0: 1.0}})
    for run in (farm, spmd):
        with open_variables(run.results) as variables:
            assert list(variables) == list(variable_digests(run.results))


def test_regions_cover_an_array_once_within_the_limit(make_fields, monkeypatch):
    monkeypatch.setattr(module, "WINDOW_BYTES", 64)
    array = np.arange(5 * 3 * 20.0).reshape(5, 3, 20)
    run = make_fields({"u": (array, ("z", "y", "x")), "s": (2.0, ()), "e": (np.ones(0), ("e",))})
    with open_variables(run.results) as variables:
        seen = np.zeros(array.shape, int)
        for region in variables["u"].regions():
            block = variables["u"].values(region)
            assert block.nbytes <= 64
            assert (block == array[region]).all()
            seen[region] += 1
        assert (seen == 1).all()
        assert [variables["s"].values(r) for r in variables["s"].regions()] == [2.0]
        assert list(variables["e"].regions()) == []


def test_windows_of_rows_follow_their_sizes(make_farm):
    rows = [{"v": np.ones(n)} for n in (1, 1, 50, 1, 1, 1)]
    run = make_farm(rows, "repeat=6")
    with open_variables(run.results) as variables:
        windows = list(row_windows([variables["v"]], 0, 6, limit=80))
        assert windows == [(0, 2), (2, 6)]
        assert list(row_windows([variables["v"]], 2, 5)) == [(2, 5)]


def test_a_damaged_file_is_a_store_error(make_farm):
    run = make_farm([{"energy": 1.0}])
    data = run.results.read_bytes()
    run.results.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError, match="does not read back"), open_variables(run.results):
        pass


def test_an_error_of_the_reader_is_not_taken_for_damage(make_farm):
    run = make_farm([{"energy": 1.0}])
    with pytest.raises(BrokenPipeError), open_variables(run.results):
        raise BrokenPipeError
