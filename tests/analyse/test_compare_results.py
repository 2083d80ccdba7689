from __future__ import annotations

import numpy as np
import pytest

from hpckit.analyse import variables as module
from hpckit.analyse.compare_results import Verdict, compare_results, overall

SAME, EQUAL, OTHER = Verdict.IDENTICAL, Verdict.EQUAL_WITHIN_TOLERANCE, Verdict.DIFFERENT


@pytest.fixture
def compare(make_farm):
    """Compare the fields of two farms of the same points; return the differences by name."""

    def call(a, b, rtol=0.0, atol=0.0):
        one, two = (make_farm(rows, f"repeat={len(rows)}") for rows in (a, b))
        found = compare_results(one.results, two.results, rtol, atol)
        return {difference.name: difference for difference in found}

    return call


def test_the_same_is_identical(compare):
    rows = [{"x": 1.0, "s": "a", "v": np.arange(3)}, {"x": np.nan, "s": "b", "v": np.arange(2)}]
    found = compare(rows, rows)
    assert {d.verdict for d in found.values()} == {SAME}
    assert overall(list(found.values())) is SAME
    assert found["v"].a == found["v"].b == "int64 (ragged)"


def test_numbers(compare):
    a = [{"x": 1.0}, {"x": 2.0}, {"x": 4.0}]
    b = [{"x": 1.0}, {"x": 2.5}, {"x": 4.1}]
    x = compare(a, b)["x"]
    assert (x.verdict, x.values, x.unequal, x.beyond, x.where) == (OTHER, 3, 2, 2, "task 1")
    assert x.max_abs == 0.5
    assert x.max_rel == pytest.approx(0.2)
    assert compare(a, b, rtol=0.1)["x"].beyond == 1
    assert compare(a, b, rtol=0.2)["x"].verdict is EQUAL
    assert compare(a, b, atol=0.5)["x"].verdict is EQUAL


def test_minus_zero_is_equal_but_not_identical(compare):
    x = compare([{"x": 0.0}], [{"x": -0.0}])["x"]
    assert (x.verdict, x.max_abs, x.where) == (EQUAL, 0.0, None)


def test_another_type_of_the_same_values_is_equal(compare):
    x = compare([{"x": 1}], [{"x": 1.0}])["x"]
    assert (x.verdict, x.notes, x.a, x.b) == (
        EQUAL,
        ("types differ",),
        "int64 (1,)",
        "float64 (1,)",
    )


@pytest.mark.parametrize(("a", "b"), [("1", 1.0), (True, 1), (1j, "x")])
def test_what_cannot_be_subtracted_is_different(compare, a, b):
    x = compare([{"x": a}], [{"x": b}], atol=9.0)["x"]
    assert (x.verdict, x.notes, x.max_abs) == (OTHER, ("types differ",), None)


def test_texts_complex_numbers_and_arrays(compare):
    a = [{"s": "a", "z": 1j, "v": np.zeros((2, 2))}, {"s": "b", "z": 2j, "v": np.zeros((2, 2))}]
    b = [{"s": "a", "z": 1j, "v": np.zeros((2, 2))}, {"s": "c", "z": 5j, "v": np.diag((0, 3.0))}]
    found = compare(a, b)
    assert (found["s"].where, found["s"].unequal, found["s"].max_abs) == ("task 1", 1, None)
    assert (found["z"].where, found["z"].max_abs) == ("task 1", 3.0)
    assert (found["v"].where, found["v"].max_abs) == ("task 1 (1, 1)", 3.0)


def test_rows_that_one_of_them_has(compare):
    a = [{"x": 1.0, "n": 3}, {"x": 2.0}, "failed"]
    b = [{"x": 1.0}, {"x": 2.0, "n": 3}, {"x": 7.0}]
    found = compare(a, b)
    assert found["n"].notes == ("2 rows are in one of them only",)
    assert found["x"].notes == ("1 rows are in one of them only",)
    assert found["x"].verdict is found["n"].verdict is found["task_state"].verdict is OTHER
    assert found["x"].values == 2
    assert found["task_state"].where == "task 2"


def test_a_place_counts_the_absent_rows_before_it(compare):
    a = ["failed", {"x": 1.0}, "failed", {"x": 1.0}]
    b = ["failed", {"x": 1.0}, "failed", {"x": 2.0}]
    assert compare(a, b)["x"].where == "task 3"


def test_ragged_rows(compare):
    a = [{"v": np.arange(3.0)}, {"v": np.ones((2, 2))}, {"v": np.ones(1)}, {}]
    b = [{"v": np.arange(3.0)}, {"v": np.ones(4)}, {"v": np.full(1, 5.0)}, {"v": np.ones(1)}]
    v = compare(a, b)["v"]
    assert v.notes == ("1 rows are in one of them only", "1 rows have another shape")
    assert (v.values, v.unequal, v.max_abs, v.where) == (4, 1, 4.0, "task 2")


def test_windows_change_nothing(compare, monkeypatch):
    rng = np.random.default_rng(1)
    a = [{"x": rng.random(), "m": rng.random((4, 5)), "v": rng.random(i % 4)} for i in range(40)]
    b = [
        {name: value + (name != "x") * (index == 31) for name, value in row.items()}
        for index, row in enumerate(a)
    ]
    b[17]["x"] += 3
    whole = compare(a, b)
    monkeypatch.setattr(module, "WINDOW_BYTES", 100)
    monkeypatch.setattr(module, "WINDOW_ROWS", 7)
    assert compare(a, b) == whole
    assert whole["x"].where == "task 17"
    assert whole["v"].where == "task 31"
    assert whole["m"].where.startswith("task 31 (")


def test_other_fields_and_other_numbers_of_tasks(compare):
    found = compare([{"x": 1.0, "y": 1}], [{"x": 1.0, "z": 2}])
    assert (found["y"].notes, found["y"].b) == (("only in A",), None)
    assert (found["z"].notes, found["z"].a) == (("only in B",), None)
    found = compare([{"x": 1.0}], [{"x": 1.0}, {"x": 1.0}])
    assert found["x"].notes == ("shapes differ",)
    assert overall(list(found.values())) is OTHER


def test_fields_and_records_of_an_spmd_run(make_fields):
    u = np.arange(12.0).reshape(3, 4)
    v = u.copy()
    v[2, 1] += 0.5
    x, flags = ("x",), np.array([True, False])
    a = make_fields({"u": (u, ("y", "x")), "f": (flags, ("k",)), "s": (1.0, ())}, {"r": {10: 1.0}})
    b = make_fields({"u": (v, ("y", "x")), "f": (~flags, ("k",)), "s": (2.0, ())}, {"r": {10: 3.0}})
    found = {d.name: d for d in compare_results(a.results, b.results)}
    assert (found["u"].where, found["u"].max_abs) == ("y=2, x=1", 0.5)
    assert (found["f"].where, found["f"].unequal) == ("k=0", 2)
    assert found["s"].max_abs == 1.0
    assert found["r"].where == "step 10"
    assert found["step"].verdict is SAME
    later = make_fields({}, {"r": {20: 1.0}})
    assert {d.name: d.where for d in compare_results(a.results, later.results)}["step"] == "step 10"
    c = make_fields({"u": (np.ones(3), x)})
    assert overall(compare_results(a.results, c.results)) is OTHER
