from __future__ import annotations

import json

import numpy as np
import pytest


def test_a_farm(make_farm, hpckit):
    rows = [{"energy": -1.23456789 * i, "ok": i > 1, "v": np.arange(8) * i} for i in range(4)]
    run = make_farm(rows, "T=1,2", "L=4,8")
    done = hpckit("show", "last")
    assert done.exit_code == 0
    head, table = done.output.split("\n\n")
    assert run.id in head
    assert "state     completed" in head
    assert "seed      0" in head
    assert "given     T=1,2  L=4,8" in head
    assert table.splitlines() == [
        "task  T  L  energy [J]     ok  v",
        "   0  1  4          -0  False  8: 0 … 0",
        "   1  1  8    -1.23457  False  8: 0 … 7",
        "   2  2  4    -2.46914   True  8: 0 … 14",
        "   3  2  8     -3.7037   True  8: 0 … 21",
    ]


def test_constant_parameters_take_no_column(make_farm, hpckit):
    make_farm([{"energy": 1.0}, {"energy": 2.0}], "T=1,2", "L=16")
    assert "task  T  energy" in hpckit("show", "last").output


def test_failed_tasks_come_with_their_reason(make_farm, hpckit, traceback_of):
    rows = [{"energy": float("nan")}, traceback_of("[red]no\nwater"), {}]
    run = make_farm(rows, "T=1,2,3")
    lines = hpckit("show", "last").output.splitlines()
    at = lines.index("task  state   T  energy [J]")
    assert lines[at + 1 : at + 4] == [
        "   0  done    1         nan",
        "   1  failed  2",
        "   2  done    3",
    ]
    at = lines.index("failed  T  error")
    assert lines[at + 1] == "     1  2  ValueError: [red]no"
    assert lines[-1] == f"in full: hpckit logs {run.id} --task N"
    assert "tasks       2 of 3 done, 1 failed" in lines
    assert f"go on with  hpckit retry {run.id}" in lines


def test_fields_named_as_what_a_farm_has(make_fields, hpckit):
    fields = {"task_state": (np.arange(4.0), ("task",)), "tasks": (np.ones(2), ("x",))}
    make_fields(fields, {"residual": {0: 2.5}})
    for command in ("show", "digest"):
        assert hpckit(command, "last").exit_code == 0
    assert "task_state" in hpckit("show", "last").output
    document = json.loads(hpckit("show", "last", "--json").output)
    assert {field["name"] for field in document["fields"]} == {"task_state", "tasks"}


def test_a_field_named_as_the_helper_of_a_ragged_one(make_farm, hpckit):
    make_farm([{"x": np.arange(n), "x_shape": 10.5 * n} for n in range(3)], "repeat=3")
    ended = hpckit("show", "last")
    assert ended.exit_code == 0, ended.output
    assert "10.5" in ended.output


def test_rows(make_farm, hpckit):
    make_farm([{"energy": float(i)} for i in range(30)], "repeat=30")
    assert "… and 10 more: --all, or --rows N" in hpckit("show", "last").output
    assert "… and 1 more: --all, or --rows N" in hpckit("show", "last", "--rows", 29).output
    everything = hpckit("show", "last", "--all").output
    assert everything.splitlines()[-1].split() == ["29", "29", "29"]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(make_farm, hpckit, columns, traceback_of):
    fields = {f"field_{i}": 1 / (i + 3) for i in range(20)}
    rows = [{"text": "long words " * 9, "v": np.arange(100.0), **fields}, traceback_of("x " * 90)]
    make_farm(rows, "name=abcdefgh,b")
    lines = hpckit("show", "last", columns=columns).output.splitlines()
    # What is copied from the terminal is not broken: paths, ids, commands.
    whole = ("results", "in full", "run", " ")
    assert [s for s in lines if len(s) > columns and not s.startswith(whole)] == []
    said = "".join(lines[lines.index(next(s for s in lines if s.startswith("no room for"))) :])
    table = next(line for line in lines if line.startswith("task  state"))
    assert sum(name in said for name in fields) + sum(name in table for name in fields) >= 20


def test_a_run_without_results_says_how_to_go_on(make_farm, hpckit):
    run = make_farm([{"energy": 1.0}, None, None], "T=1,2,3")
    output = hpckit("show", "last").output
    assert "state       interrupted\n" in output
    assert "tasks       1 of 3 done, 2 missing" in output
    assert f"go on with  hpckit resume {run.id}" in output
    found = json.loads(hpckit("show", "last", "--json").output)
    assert (found["done"], found["total"], found["results"]) == (1, 3, None)


def test_json_of_a_farm(make_farm, hpckit, traceback_of):
    first = {"energy": 0.1 + 0.2, "z": 1j, "v": np.array([1.0, np.inf])}
    make_farm([first, traceback_of("no"), {"energy": np.nan}], "T=1,2,3")
    found = json.loads(hpckit("show", "last", "--json").output)
    assert (found["job"], found["state"], found["seed"], found["failed"]) == (
        "walk",
        "failed",
        0,
        1,
    )
    assert found["tasks"][0] == {
        "task": 0,
        "task_state": "done",
        "T": 1.0,
        "L": 8,
        "name": "x",
        "energy": 0.30000000000000004,
        "z": {"real": 0.0, "imag": 1.0},
        "v": [1.0, "Infinity"],
    }
    assert found["tasks"][1]["energy"] is None
    assert found["tasks"][2]["energy"] == "NaN"
    assert len(json.loads(hpckit("show", "last", "--json", "--rows", 2).output)["tasks"]) == 2


def test_an_spmd_run(make_fields, hpckit):
    u = np.array([[1.0, np.nan], [2.0, 6.0]])
    fields = {"u": (u, ("y", "x")), "z": (np.array([3 + 4j]), ("k",)), "s": (2, ())}
    make_fields(fields, {"residual": {10: 1.0, 20: 0.25}, "late": {20: 7.0}})
    _, field_table, record_table = hpckit("show", "last").output.split("\n\n")
    assert field_table.splitlines() == [
        "field  dims  shape  type        min  max  mean  NaN",
        "u [m]  y, x    2×2  float64       1    6     3    1",
        "z      k         1  complex128    5    5     5",
        "s                   int64         2    2     2",
    ]
    assert record_table.splitlines() == [
        "record    values  first step  first  last step  last",
        "residual       2          10      1         20  0.25",
        "late           1          20      7         20     7",
    ]


def test_json_of_an_spmd_run(make_fields, hpckit):
    make_fields({"u": (np.array([1.0, 3.0]), ("x",))}, {"r": {5: 0.1}})
    found = json.loads(hpckit("show", "last", "--json").output)
    (field,) = found["fields"]
    assert (field["smallest"], field["largest"], field["mean"], field["dims"]) == (1, 3, 2, ["x"])
    assert found["records"] == {"r": {"steps": [5], "values": [0.1]}}
    assert found["ranks"] == 2


def test_an_spmd_run_that_saved_nothing(make_fields, hpckit):
    make_fields({})
    done = hpckit("show", "last")
    assert (done.exit_code, "completed" in done.output) == (0, True)
