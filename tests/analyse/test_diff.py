from __future__ import annotations

import json

import numpy as np
import pytest

from hpckit.analyse.compare_runs import changes
from hpckit.errors import StoreError, UsageError
from hpckit.store import manifest as manifests

OTHER = '''
from hpckit import farm

@farm
def walk(task, T: float = 1.0, L: int = 8, name: str = "x"):
    """Walk on."""
'''


def test_the_same_run_twice(make_farm, hpckit):
    a, b = (make_farm([{"energy": 1.0}, {"energy": np.nan}], "T=1,2") for _ in range(2))
    done = hpckit("diff", a.path, b.path)
    assert done.exit_code == 0
    assert done.output.count("the same") == 4
    assert "results  identical: 5 of 5 variables" in done.output


def test_all_that_may_differ(make_farm, hpckit):
    a = make_farm([{"energy": 1.0}, {"energy": 2.0}], "T=1,2")
    b = make_farm([{"energy": 1.0}, {"energy": 2.5}], "T=1,2", "L=9", text=OTHER, seed=4)
    manifest = manifests.read(b.manifest)
    environment = {**manifest.environment, "python": "3.99.0", "packages": {"numpy": "99"}}
    manifest.updated(environment=environment, workers=5).write(b.manifest)
    done = hpckit("diff", a.path, b.path)
    lines = [line.strip() for line in done.output.splitlines()]
    assert done.exit_code == 1
    assert '-    """Walk."""' in lines
    assert '+    """Walk on."""' in lines
    assert "parameters   L: 8 → 9" in lines
    assert "seed: 0 → 4" in lines
    assert any(line.endswith("→ 3.99.0") for line in lines)
    assert "workers: 1 → 5" in lines
    assert any("numpy: " in line and line.endswith("→ 99") for line in lines)
    assert any(line.startswith("h5py: ") and line.endswith("→ none") for line in lines)
    assert "results  different: 2 of 5 variables (3 identical)" in lines
    assert lines[-2].split() == ["energy", "different", "0.5", "0.2", "task", "1", "1", "of", "2"]


def test_tolerance(make_farm, hpckit):
    a = make_farm([{"energy": 1.0}])
    b = make_farm([{"energy": 1.0 + 1e-12}])
    assert hpckit("diff", a.path, b.path).exit_code == 1
    done = hpckit("diff", a.path, b.path, "--rtol", "1e-9")
    assert done.exit_code == 0
    assert "equal within tolerance: 1 of 5 variables (4 identical)" in done.output
    assert hpckit("diff", a.path, b.path, "--atol", "1e-9").exit_code == 0


@pytest.mark.parametrize("value", ["-1", "nan", "x"])
def test_a_tolerance_that_is_none(make_farm, hpckit, value):
    a = make_farm([{"energy": 1.0}])
    done = hpckit("diff", a.path, a.path, "--rtol", value)
    assert done.exit_code == 2 or isinstance(done.exception, UsageError)


def test_json(make_farm, hpckit):
    a = make_farm([{"energy": 1.0}])
    b = make_farm([{"energy": np.nan}], seed=1)
    done = hpckit("diff", a.path, b.path, "--json")
    found = json.loads(done.output)
    assert done.exit_code == 1
    assert (found["a"], found["b"]) == (a.id, b.id)
    assert found["parameters"] == [{"name": "seed", "a": 0, "b": 1}]
    assert found["results"]["verdict"] == "different"
    energy = next(v for v in found["results"]["variables"] if v["name"] == "energy")
    assert (energy["max_abs"], energy["where"]) == ("Infinity", "task 0")


def test_without_results_it_still_says_what_the_runs_were(make_farm, hpckit):
    a = make_farm([{"energy": 1.0}, {"energy": 1.0}], "T=1,2")
    b = make_farm([{"energy": 1.0}, None], "T=1,3")
    done = hpckit("diff", a.path, b.path)
    assert "parameters   T: 1,2 → 1,3" in done.output
    assert isinstance(done.exception, StoreError)


def test_a_farm_and_an_spmd_run(make_farm, make_fields, hpckit):
    a, b = make_farm([{"energy": 1.0}]), make_fields({"u": (np.ones(2), ("x",))})
    done = hpckit("diff", a.path, b.path, columns=80)
    assert done.exit_code == 1
    assert "only in A" in done.output
    assert "only in B" in done.output


def test_changes_keep_the_order_of_the_first():
    found = changes({"b": 1, "a": 2, "c": 3}, {"a": 5, "d": 4, "c": 3})
    assert [str(change) for change in found] == ["b: 1 → none", "a: 2 → 5", "d: none → 4"]
