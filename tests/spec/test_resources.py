from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hpckit.errors import SpecError
from hpckit.spec.resources import Resources


def test_values_are_read_in_slurms_units() -> None:
    resources = Resources.from_options({"mem": "4GB", "walltime": 90, "ntasks": 2})
    assert resources.model_dump(mode="json", exclude_defaults=True) == {
        "mem": "4G",
        "walltime": "01:30:00",
        "ntasks": 2,
    }
    assert Resources.model_validate_json(resources.model_dump_json()) == resources


def test_nodes_alone_are_filled_as_sbatch_does() -> None:
    assert Resources.from_options({"nodes": 3}).ntasks == 3
    assert Resources.from_options({"nodes": 2, "ntasks_per_node": 4}).ntasks == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ntask": 2},
            r"^ntask: unknown key; \[resources\] has nodes, .*; did you mean 'ntasks'\?$",
        ),
        (
            {"mem": "4 potatoes"},
            r"^mem: '4 potatoes' is not an amount of memory, .*'500M' or '4G'$",
        ),
        ({"walltime": "soon"}, r"^walltime: 'soon' is not a walltime such as '30m'"),
        ({"ntasks": 0}, r"^ntasks: 0 is not allowed; a whole number of at least 1$"),
        (
            {"gpus_per_task": -1},
            r"^gpus_per_task: -1 is not allowed; a whole number of at least 0$",
        ),
        ({"cpus_per_task": "4"}, r"^cpus_per_task: '4' is not a whole number$"),
        ({"ntasks": True}, r"^ntasks: True is not a whole number$"),
        ({"mem": "1G", "mem_per_cpu": "1G"}, r"^mem and mem_per_cpu exclude each other"),
        ({"nodes": 3, "ntasks": 2}, r"^nodes=3 is more than ntasks=2"),
        (
            {"nodes": 2, "ntasks_per_node": 2, "ntasks": 5},
            r"has room for 4 tasks, fewer than ntasks=5",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Resources.from_options(options, owner="[resources]")


def test_they_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Resources().ntasks = 2  # type: ignore[misc]


def test_updated_validates_again() -> None:
    resources = Resources.from_options({"mem": "4G"})
    assert resources.updated(ntasks=2) == Resources.from_options({"mem": "4G", "ntasks": 2})
    with pytest.raises(SpecError, match="mem and mem_per_cpu exclude each other"):
        resources.updated(mem_per_cpu="1G")
