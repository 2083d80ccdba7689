from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpckit.errors import SpecError, UsageError
from hpckit.spec.job import farm, spmd
from hpckit.spec.sweep import MAX_TASKS, Sweep


@farm
def ising(
    task: Any,
    T: float = 2.0,
    L: int = 32,
    label: str = "a",
    hot: bool = False,
    z: complex = 0,
    wall: Literal["open", "closed"] = "open",
) -> None: ...


@farm
def reads(mesh: Path, n: int = 1) -> None: ...


@spmd
def cavity(run: Any, n: int = 64, name: str = "a") -> None: ...


def sweep(*args: str, table: Path | None = None) -> Sweep:
    return Sweep.from_args(ising, args, table)


def values(name: str, text: str) -> list[Any]:
    made = sweep(f"{name}={text}")
    return made.columns(range(len(made)))[name]


def refused(*args: str, table: Path | None = None) -> str:
    with pytest.raises(SpecError) as raised:
        sweep(*args, table=table)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_without_arguments_it_is_one_point_of_defaults() -> None:
    made = sweep()
    assert len(made) == 1
    assert made[0] == {"T": 2.0, "L": 32, "label": "a", "hot": False, "z": 0j, "wall": "open"}
    assert (made.varying, made.assignments) == ((), {})


def test_the_product_is_in_the_order_given_the_last_fastest() -> None:
    made = sweep("L=16,32", "T=linspace(1,2,3)", "repeat=2")
    assert len(made) == 12
    assert made.names == ("T", "L", "label", "hot", "z", "wall", "repeat")
    columns = made.columns(range(12))
    points = list(zip(columns["L"], columns["T"], columns["repeat"], strict=True))
    assert points == list(itertools.product([16, 32], [1.0, 1.5, 2.0], [0, 1]))
    assert columns["label"] == ["a"] * 12
    assert made.varying == ("T", "L", "repeat")
    assert [made[i] for i in range(12)] == [
        {name: column[i] for name, column in columns.items() if name != "repeat"} for i in range(12)
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("L", "1,2,3", [1, 2, 3]),
        ("L", " 1 , 2 ", [1, 2]),
        ("L", "range(3)", [0, 1, 2]),
        ("L", "range(2,5)", [2, 3, 4]),
        ("L", "range(32,129,32)", [32, 64, 96, 128]),
        ("L", "range(9,0,-3)", [9, 6, 3]),
        ("T", "range(2)", [0.0, 1.0]),
        ("T", "linspace(1, 2, 1)", [1.0]),
        ("T", "logspace(-1,1,3)", [0.1, 1.0, 10.0]),
        ("hot", "true,false", [True, False]),
        ("z", "1+2j,3", [1 + 2j, 3 + 0j]),
        ("wall", "open,closed", ["open", "closed"]),
        ("label", '"a,b",c', ["a,b", "c"]),
        ("label", "'a,b',\"c\"", ["a,b", "c"]),
        ("label", "it's", ["it's"]),
        ("label", '"say ""hi"""', ['say "hi"']),
        ("label", '""', [""]),
        ("label", "'range(3)'", ["range(3)"]),
        ("label", "f(x)", ["f(x)"]),
        ("label", "a=b", ["a=b"]),
    ],
)
def test_the_grammar_of_a_value(name: str, text: str, expected: list[Any]) -> None:
    found = values(name, text)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@given(
    st.floats(-1e300, 1e300),
    st.floats(-1e300, 1e300),
    st.integers(1, 50),
)
def test_linspace_is_numpys_and_the_same_by_item_and_by_column(
    start: float, stop: float, count: int
) -> None:
    made = sweep(f"T=linspace({start!r},{stop!r},{count})")
    column = made.columns(range(count))["T"]
    assert column == [made[i]["T"] for i in range(count)]
    scale = max(abs(start), abs(stop), 1e-300)
    np.testing.assert_allclose(
        np.array(column) / scale, np.linspace(start, stop, count) / scale, rtol=0, atol=1e-15
    )
    if count > 1:
        assert (column[0], column[-1]) == (start, stop)


@given(st.floats(-300, 300), st.floats(-300, 300), st.integers(1, 50))
def test_logspace_is_numpys_to_the_last_digits(first: float, last: float, count: int) -> None:
    made = sweep(f"T=logspace({first!r},{last!r},{count})")
    column = made.columns(range(count))["T"]
    assert column == [made[i]["T"] for i in range(count)]
    np.testing.assert_allclose(column, np.logspace(first, last, count), rtol=1e-12)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_any_text_passes_in_quotes(texts: list[str]) -> None:
    if texts:
        quoted = ",".join('"' + text.replace('"', '""') + '"' for text in texts)
        assert values("label", quoted) == texts


@given(st.sampled_from(["T", "L", "label", "hot", "z", "wall", "repeat"]), st.text(max_size=30))
def test_any_value_makes_a_sweep_or_a_spec_error(name: str, text: str) -> None:
    try:
        made: Sweep | str = sweep(f"{name}={text}")
    except SpecError as error:
        made = str(error)
    if isinstance(made, str):
        assert made.startswith(f"{name}: ")
        assert "\n" not in made
    else:
        assert len(made) >= 1


@given(st.data())
def test_items_and_columns_agree_for_any_indices(data: st.DataObject) -> None:
    made = sweep("T=logspace(0,2,5)", "L=range(3,9,2)", "label=a,b", "repeat=2")
    indices = data.draw(st.lists(st.integers(0, len(made) - 1)))
    columns = made.columns(indices)
    for place, index in enumerate(indices):
        point = {name: columns[name][place] for name in made.names if name != "repeat"}
        assert point == made[index]


def test_indices_beyond_the_end_are_errors() -> None:
    made = sweep("L=1,2")
    assert made[-1]["L"] == 2
    for index in (2, -3):
        with pytest.raises(IndexError):
            made[index]
        with pytest.raises(IndexError):
            made.columns([0, index])
    assert made.columns([])["L"] == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["l=3"],
            "l: unknown parameter; ising has T, L, label, hot, z and wall; did you mean 'L'?",
        ),
        (["L"], "'L' is no parameter; write name=value without spaces, as in T=1.5,2.0"),
        (["=3"], "'=3' is no parameter; write name=value"),
        (["L=1", "L=2"], "L: is given twice; write its values as one list, a,b,c"),
        (["L="], "L: '' has no value; write name=value"),
        (["L=1,,2"], "L: '1,,2' has an empty value"),
        (["L=1,"], "L: '1,' has an empty value"),
        (["L=2.0"], "L: '2.0' is not allowed; must be a whole number of 64 bits, such as 32"),
        (
            ["L=__import__('os').getpid()"],
            "L: \"__import__('os').getpid()\" is no function; use linspace",
        ),
        (["T=1,two"], "T: 'two' is not allowed; must be a number, such as 2.5 or 1e-3"),
        (["T=1/3"], "T: '1/3' is not allowed; must be a number"),
        (["hot=2"], "hot: '2' is not allowed; must be true or false"),
        (["wall=ajar"], "wall: 'ajar' is not allowed; must be one of open or closed"),
        (["label='a"], 'label: "\'a" has a quote that does not end at a comma or at the end'),
        (["label=range(3)"], "label: 'range(3)' is for numbers; put it in quotes to mean the text"),
        (
            ["L=linspace(1,2,3)"],
            "L: 'linspace(1,2,3)' makes floats, and a value of L is a whole number",
        ),
        (
            ["hot=range(2)"],
            "hot: 'range(2)' makes whole numbers, and a value of hot is true or false",
        ),
        (
            ["T=linspace(1,2)"],
            "T: 'linspace(1,2)' takes three numbers; write linspace(start,stop,count)",
        ),
        (
            ["T=linspace(1,2,2.5)"],
            "T: 'linspace(1,2,2.5)' takes a whole number as its count, not '2.5'",
        ),
        (["T=linspace(1,inf,3)"], "T: 'linspace(1,inf,3)' takes numbers, not 'inf'"),
        (["T=linspace(-1e308,1e308,3)"], "spans more than a float holds"),
        (["T=linspace(1,2,3),4"], "T: 'linspace(1' is part of a list; write either linspace("),
        (["T=logspace(0,400,3)"], "takes exponents of ten, and 10**400 is outside of a float"),
        (
            ["T=range(0,1,0.1)"],
            "takes whole numbers, not '0.1'; linspace(start,stop,count) makes fractions",
        ),
        (["L=range(1,2,0)"], "L: 'range(1,2,0)' has a step of 0"),
        (["L=[1,2]"], "L: '[1' is in brackets; write a list as a,b,c"),
        (["L=range()"], "L: 'range()' takes one to three whole numbers"),
        (["L=range(1,2,3,4)"], "takes one to three whole numbers"),
        ([f"L=range({2**63},{2**63 + 3})"], "goes beyond whole numbers of 64 bits"),
        (
            ["L=range(0)"],
            "L: 'range(0)' is empty; a sweep has at least one value of each parameter",
        ),
        (["L=range(5,1)"], "L: 'range(5,1)' is empty"),
        (["T=linspace(0,1,0)"], "T: 'linspace(0,1,0)' is empty"),
        (["repeat=0"], "repeat: '0' is not allowed; a whole number of at least 1"),
        (["repeat=1,2"], "repeat: '1,2' is not allowed; a whole number of at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(args: list[str], message: str) -> None:
    assert message in refused(*args)


@pytest.mark.parametrize(
    "args",
    [
        ["L=range(1000000000)"],
        [f"L=range({10**30})"],
        ["T=linspace(0,1,1000000000)"],
        ["T=logspace(0,1,1000000000)"],
        ["repeat=1000000000"],
        ["L=range(10000)", "T=linspace(0,1,100000)"],
    ],
)
def test_too_many_tasks_are_refused_before_anything_is_allocated(args: list[str]) -> None:
    tracemalloc.start()
    try:
        message = refused(*args)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert f"at most {MAX_TASKS}" in message
    assert len(args) > 1 or message.startswith(args[0].partition("=")[0] + ": ")
    assert peak < 1_000_000


def test_the_largest_sweep_is_lazy() -> None:
    tracemalloc.start()
    try:
        made = sweep("L=range(10000)", "T=linspace(0,1,10000)")
        last = made.columns(range(len(made) - 2, len(made)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(made) == MAX_TASKS
    assert (last["L"], last["T"][-1]) == ([9999, 9999], 1.0)
    assert peak < 1_000_000


def test_a_million_tasks_take_little_time() -> None:
    made = sweep("T=linspace(1,2,1000)", "L=range(100)", "label=a,b", "repeat=5")
    start = time.perf_counter()
    columns = made.columns(range(1_000_000))
    # 0.05 s a column on a slow core; ten times that leaves room for a busy machine.
    assert time.perf_counter() - start < 0.5 * len(columns)


def test_the_assignments_make_the_same_sweep() -> None:
    made = sweep("L=16,32", 'label="a,b",c', "T=linspace(1,2,3)", "repeat=2")
    assert list(made.assignments) == ["L", "label", "T", "repeat"]
    assert made.assignments["label"] == '"a,b",c'
    again = sweep(*(f"{name}={text}" for name, text in made.assignments.items()))
    assert again == made


def test_varying_leaves_out_what_has_one_value() -> None:
    assert sweep("L=1,1", "T=linspace(1,1,3)", "label=a,b", "repeat=1").varying == ("label",)


def test_an_spmd_job_runs_one_point() -> None:
    assert Sweep.from_args(cavity, ["n=128"])[0] == {"n": 128, "name": "a"}
    with pytest.raises(SpecError, match=r"^n: 2 values are not allowed, as cavity is an spmd job"):
        Sweep.from_args(cavity, ["name=a", "n=64,128"])
    with pytest.raises(SpecError, match=r"^repeat: 4 values are not allowed"):
        Sweep.from_args(cavity, ["repeat=4"])


def test_a_required_parameter_has_to_be_given() -> None:
    with pytest.raises(SpecError, match=r"^mesh: has no default; give mesh=value, a path$"):
        Sweep.from_args(reads, ["n=2"])


def test_paths_are_absolute_wherever_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["plain.msh", 'a "b", c.msh']
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    made = Sweep.from_args(reads, ['mesh=plain.msh,"a ""b"", c.msh"'])
    monkeypatch.chdir("/")
    again = Sweep.from_args(reads, [f"{n}={t}" for n, t in made.assignments.items()])
    assert again.columns(range(2))["mesh"] == [tmp_path / name for name in names]
    with pytest.raises(
        SpecError, match=r"^mesh: '/plain.msh' does not exist; must be the path of a"
    ):
        Sweep.from_args(reads, ["mesh=plain.msh"])


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "points.csv"
    path.write_bytes(text.encode())
    return path


def test_the_rows_of_a_table_move_together_and_come_first(tmp_path: Path) -> None:
    path = table(tmp_path, '\ufeffL, label\r\n1,"a,b"\r\n\r\n2,c\r\n')
    made = sweep("T=1,2", table=path)
    columns = made.columns(range(len(made)))
    assert (columns["L"], columns["T"]) == ([1, 1, 2, 2], [1.0, 2.0, 1.0, 2.0])
    assert columns["label"] == ["a,b", "a,b", "c", "c"]
    assert made.table == path
    assert made.varying == ("T", "L", "label")


def test_a_pattern_is_all_files_that_it_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep" / "folder.msh").mkdir(parents=True)
    names = ["b.msh", "a.msh", "a[1].msh", ".hidden.msh", "deep/c.msh"]
    for name in names:
        (tmp_path / name).touch()

    def found(text: str) -> list[str]:
        made = Sweep.from_args(reads, [f"mesh={text}"])
        # It means the same files elsewhere, and later.
        again = Sweep.from_args(reads, [f"mesh={made.assignments['mesh']}"])
        paths = made.columns(range(len(made)))["mesh"]
        assert again.columns(range(len(again)))["mesh"] == paths
        return [str(path.relative_to(tmp_path)) for path in paths]

    assert found("*.msh") == ["a.msh", "a[1].msh", "b.msh"]
    assert found(f"{tmp_path}/[ab].msh") == ["a.msh", "b.msh"]
    assert found("**/*.msh") == ["a.msh", "a[1].msh", "b.msh", "deep/c.msh"]
    assert found("deep/?.msh,b.msh") == ["deep/c.msh", "b.msh"]
    assert found("a[1].msh") == ["a[1].msh"]
    with pytest.raises(SpecError, match=r"^mesh: '\*.txt' matches no file from .*"):
        found("*.txt")
    with pytest.raises(SpecError, match=r"does not exist"):
        found('"*.msh"')


def test_paths_in_a_table_start_at_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.msh").touch()
    made = Sweep.from_args(reads, [], table(tmp_path, "mesh\na.msh\n"))
    assert made[0]["mesh"] == tmp_path / "a.msh"
    with pytest.raises(SpecError, match=r"points.csv:2: mesh: '.*/b.msh' does not exist"):
        Sweep.from_args(reads, [], table(tmp_path, "mesh\nb.msh\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": no rows; a table has a line of parameters' names and a row for each point"),
        ("L\n", ": no rows; a table has"),
        ("L,l\n1,2\n", ":1: l: unknown parameter; ising has T, L, "),
        ("L,L\n1,2\n", ":1: L: stands twice in the header"),
        ("repeat\n1\n", ":1: repeat: is no column of a table; give repeat=N beside it"),
        ("L,T\n1,2\n1\n", ":3: the row has 1 cell, the header 2; commas stand between cells"),
        ("L\n1\n\nx\n", ":4: L: 'x' is not allowed; must be a whole number"),
        ('L\n"1\n', ":2: is no CSV: unexpected end of data"),
        ("T\n1\n", "T: is given, and is a column of "),
    ],
)
def test_a_table_that_is_wrong_is_named_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = table(tmp_path, text)
    found = refused("T=1", table=path)
    assert message in found
    assert str(path) in found


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone.csv: no such table$"):
        sweep(table=tmp_path / "gone.csv")
    with pytest.raises(UsageError, match=r"the table cannot be read: Is a directory$"):
        sweep(table=tmp_path)
    (tmp_path / "latin.csv").write_bytes(b"label\n\xe9\n")
    assert "is not UTF-8 text" in refused(table=tmp_path / "latin.csv")


def test_powers_of_ten_are_exact() -> None:
    assert values("T", "logspace(-4,4,9)") == [float(f"1e{k}") for k in range(-4, 5)]
    assert all(math.isfinite(value) for value in values("T", "logspace(-307,308,2)"))
