from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hpckit.errors import StoreError
from hpckit.spec.resources import Resources
from hpckit.store import manifest as manifests
from hpckit.store.manifest import Driver, JobRecord, Manifest, State


@pytest.fixture
def manifest():
    job = JobRecord(
        name="ising",
        kind="farm",
        source="/jobs/ising.py",
        sha256="00",
        seed=7,
        resources=Resources(mem="4G", walltime="1h30m", ntasks=2),
        assignments={"T": "linspace(1,2,3)", "name": '"a,b",c'},
        inputs={"/data/melt.lmp": {"size": 3, "sha256": "ff"}},
        tasks=6,
    )
    return Manifest(
        id="ising-20260101-000000-abcd",
        argv=["run", "ising", "T=linspace(1,2,3)"],
        directory="/home",
        job=job,
        created=manifests.now(),
        environment={"packages": {"numpy": "2"}, "git": None},
    )


def test_round_trip(manifest, tmp_path):
    path = tmp_path / "run.json"
    changed = manifest.updated(
        state=State.FAILED, counts={"done": 3, "failed": 3}, driver=Driver.this_process()
    )
    changed.write(path)
    assert manifests.read(path) == changed
    assert manifests.read(path) != manifest
    assert json.loads(path.read_text())["job"]["resources"]["walltime"] == "01:30:00"


def test_a_missing_manifest(tmp_path):
    with pytest.raises(StoreError, match=r"run\.json: cannot be read: No such file"):
        manifests.read(tmp_path / "run.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"nonsense"])
def test_a_damaged_manifest(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="the manifest is damaged") as raised:
        manifests.read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"format": 2}', '{"format": "1"}'])
def test_a_manifest_of_another_format(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(StoreError, match=r"of format .* reads format 1"):
        manifests.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": "asleep"}, "state: Input should be"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"argv": None}, "argv: Input should be"),
    ],
)
def test_a_manifest_with_a_wrong_entry(manifest, tmp_path, change, message):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(manifest.to_json()) | change))
    with pytest.raises(StoreError, match=message) as raised:
        manifests.read(path)
    assert "\n" not in str(raised.value)


def test_the_state_of_a_run_whose_driver_died(manifest):
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = Driver.this_process()
    living = manifest.updated(driver=here)
    assert living.effective_state() is State.RUNNING
    ended.communicate(b"\n")
    dead = manifest.updated(driver=here.model_copy(update={"pid": ended.pid}))
    assert dead.effective_state() is State.INTERRUPTED
    assert dead.updated(state=State.COMPLETED).effective_state() is State.COMPLETED


def test_a_process_id_that_was_given_away_again_is_not_the_driver():
    here = Driver.this_process()
    assert not here.is_gone()
    assert here.model_copy(update={"started": here.started - 100}).is_gone()


def test_nothing_is_known_of_another_host():
    elsewhere = Driver(host=os.uname().nodename + "-not", pid=2**22 + 1, started=0.0)
    assert not elsewhere.is_gone()
