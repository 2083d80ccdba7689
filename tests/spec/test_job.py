from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

import hpckit
from hpckit.errors import SpecError, UsageError
from hpckit.spec.command import Command
from hpckit.spec.job import Job, farm, spmd
from hpckit.spec.resources import Resources
from hpckit.spec.rules import TaskRules
from hpckit.units import Walltime


def test_a_farm_of_a_function() -> None:
    @farm(cpus_per_task=2, mem="500M", walltime="30m", seed=7, attrs={"m": {"units": "1"}})
    def ising(task: Any, T: float = 2, L: int = 32, *, wall: Literal["hot", "cold"]) -> float:
        """Sample spins.

        At length.
        """
        return T * L

    assert (ising.name, ising.kind, ising.seed, ising.doc) == ("ising", "farm", 7, "Sample spins.")
    assert ising.takes_context
    assert [(p.name, p.type, p.default, p.required) for p in ising.params] == [
        ("T", float, 2.0, False),
        ("L", int, 32, False),
        ("wall", str, None, True),
    ]
    assert ising.resources == Resources.from_options(
        {"cpus_per_task": 2, "mem": "500M", "walltime": "30m"}
    )
    assert ising.attrs == {"m": {"units": "1"}}
    assert ising(None, T=3.0, L=2, wall="hot") == 6.0


def test_bare_decorators_and_context() -> None:
    @farm
    def square(x: int = 2) -> int:
        return x * x

    @spmd
    def ring(run: Any) -> None: ...

    assert not square.takes_context
    assert square(5) == 25
    assert (ring.kind, ring.takes_context, ring.params) == ("spmd", True, ())
    assert hpckit.farm is farm


def test_a_job_is_frozen_and_can_be_renamed() -> None:
    @farm(name="other-name")
    def f() -> None: ...

    assert f.name == "other-name"
    with pytest.raises(ValidationError, match="frozen"):
        f.name = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"memory": "4G"},
            r"^memory: unknown option; @farm has name, seed, nodes, .*'mem.*'\?$",
        ),
        ({"mem": "4 potatoes"}, r"^mem: '4 potatoes' is not an amount of memory"),
        ({"seed": -1}, r"^seed: -1 is not allowed; a whole number of at least 0$"),
        ({"seed": 1.0}, r"^seed: 1.0 is not allowed"),
        ({"name": "a/b"}, r"^name: 'a/b' is not allowed; at most 64 letters"),
        ({"attrs": {"m": "K"}}, r"^attrs\.m: 'K' is not allowed; attrs are written"),
        ({"attrs": {"m": {"units": None}}}, r"^attrs\.m\.units: None is not allowed"),
        ({"attrs": {"task_state": {}}}, r"^attrs: 'task_state' is no name of a parameter or a"),
        ({"attrs": {"": {}}}, r"^attrs: '' is no name of a parameter or a result$"),
        ({"task_retries": -1}, r"^task_retries: -1 is not allowed"),
        ({"task_timeout": "soon"}, r"^task_timeout: 'soon' is not a walltime"),
        ({"max_failures": 0}, r"^max_failures: 0 is not allowed"),
        ({"reduce": 3}, r"^reduce: 3 is not allowed; a function of two results"),
        ({"reduce": lambda a: a}, r"^reduce: .* is not allowed; a function of two results"),
        ({"ntasks": 8}, r"^ntasks: 8 is not allowed; a task of a farm is one process, so leave"),
        ({"nodes": 4, "gpus_per_task": 3}, r"^ntasks: 4 is not allowed; a task of a farm is one"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        farm(**options)(plain)


def test_farms_may_be_asynchronous_and_spmd_jobs_not() -> None:
    assert farm(asynchronous).is_async
    assert not farm(plain).is_async
    with pytest.raises(SpecError, match=r"^asynchronous: 'async def' is for farms"):
        spmd(asynchronous)


@pytest.mark.parametrize("option", ["reduce", "task_retries", "task_timeout", "max_failures"])
def test_rules_for_tasks_are_for_farms(option: str) -> None:
    with pytest.raises(SpecError, match=f"^{option}: is for farms"):
        spmd(**{option: None})


def test_rules_for_tasks() -> None:
    assert farm(reduce=max)(plain).reduce is max
    job = farm(task_retries=2, task_timeout="10m", max_failures=5)(plain)
    assert job.rules == TaskRules(task_retries=2, task_timeout=Walltime(600), max_failures=5)
    changed = job.rules.updated({"task_retries": 0, "task_timeout": "30s", "max_failures": None})
    assert changed == TaskRules(task_retries=0, task_timeout=Walltime(30), max_failures=5)
    with pytest.raises(SpecError, match=r"^--task-timeout: .*'soon'"):
        job.rules.updated({"task_timeout": "soon"})


def test_units_of_an_spmd_job_stand_where_it_saves() -> None:
    with pytest.raises(SpecError, match=r"^attrs: is for farms; .*run\.save\(\.\.\., units="):
        spmd(attrs={"u": {"units": "m"}})(lambda run: None)


@pytest.mark.parametrize(
    "key",
    [
        *("", " units", "a/b", "a\nb", "\ud800", "_FillValue", "hpckit_type", "dtype"),
        *("DIMENSION_LIST", "CLASS", "coordinates", "scale_factor"),
    ],
)
def test_an_attribute_that_readers_would_trip_over_is_refused(key: str) -> None:
    with pytest.raises(SpecError, match=r"^attrs\.m: the attribute '") as raised:
        farm(attrs={"m": {key: 1}})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", ["a\0b", "\ud800", 2**63, -(2**63) - 1])
def test_a_value_that_no_attribute_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match=r"^attrs\.m: units = .* is not allowed; UTF-8 text"):
        farm(attrs={"m": {"units": value}})


def test_other_attributes_are_kept() -> None:
    attrs = {"m": {"units": "µm", "long_name": "", "n": -(2**63), "x": 0.5, "a b": 2**63 - 1}}
    assert farm(attrs=attrs)(plain).attrs == attrs


def plain(x: int = 1) -> int:
    return x


def no_annotation(x=1): ...  # type: ignore[no-untyped-def]
def star(*values: int): ...  # type: ignore[no-untyped-def]
def double_star(**values: int): ...  # type: ignore[no-untyped-def]
def positional(x: int, /): ...  # type: ignore[no-untyped-def]
def unsupported(x: list[int]): ...  # type: ignore[no-untyped-def]
def unresolved(x: Nowhere): ...  # type: ignore[no-untyped-def,name-defined]  # noqa: F821
def wrong_default(x: int = 2.0): ...  # type: ignore[no-untyped-def,assignment]
def reserved(repeat: int = 2): ...  # type: ignore[no-untyped-def]
def late_task(x: int, task: int): ...  # type: ignore[no-untyped-def]
def wrong_context(run, x: int = 1): ...  # type: ignore[no-untyped-def]
async def asynchronous(x: int = 1): ...  # type: ignore[no-untyped-def]
def generator(x: int = 1):  # type: ignore[no-untyped-def]
    yield x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_annotation, r"^x: has no annotation; write x: float"),
        (star, r"^values: \*args and \*\*kwargs are not allowed"),
        (double_star, r"^values: \*args and \*\*kwargs are not allowed"),
        (positional, r"^x: is given by name, so it must not stand before a '/'"),
        (unsupported, r"^x: the type list\[int\] is not supported; allowed are int, float"),
        (unresolved, r"^x: the annotation 'Nowhere' does not resolve \(name 'Nowhere'"),
        (wrong_default, r"^x: the default 2.0 is not allowed; must be a whole number"),
        (reserved, r"^repeat: the name is reserved"),
        (late_task, r"^task: the name is reserved"),
        (wrong_context, r"^run: the context of a farm is called 'task'"),
        (generator, r"^generator: the function must return its result"),
        (int, r"^@farm stands before a function; <class 'int'> is none$"),
        ("4G", r"^@farm stands before a function; '4G' is none$"),
        (farm(plain), r"^plain is a job already"),
    ],
)
def test_functions_that_are_no_farm(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        farm(function)


@pytest.mark.parametrize("function", [plain, lambda: None])
def test_an_spmd_function_takes_run_first(function: Callable[..., Any]) -> None:
    with pytest.raises(SpecError, match=r"an spmd function takes 'run' first: def "):
        spmd(function)


def test_a_relative_default_of_a_path_is_beside_the_job_file() -> None:
    @farm
    def reads(mesh: Path = Path("mesh.msh")) -> None: ...

    assert reads.param("mesh").default == Path(__file__).parent / "mesh.msh"


def test_an_unknown_parameter_lists_the_valid_ones_and_the_nearest() -> None:
    job = farm(plain)
    with pytest.raises(SpecError, match=r"^X: unknown parameter; plain has x; did you mean 'x'"):
        job.param("X")


def test_a_command_cannot_be_called() -> None:
    job = Job(
        name="melt",
        kind="farm",
        params=(),
        resources=Resources(),
        body=Command(argv=("lmp",)),
        takes_context=False,
    )
    with pytest.raises(UsageError, match="melt is a command; run it by 'hpckit run melt'"):
        job()


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, hpckit.spec.job, hpckit.spec.load, hpckit.spec.sweep;"
        "print(*{'numpy', 'h5py', 'jinja2', 'click', 'mpi4py'} & set(sys.modules))"
    )
    root = Path(hpckit.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"
