from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hpckit.errors import StoreError, UsageError
from hpckit.store import manifest as manifests
from hpckit.store.failure import Failure
from hpckit.store.manifest import Driver, State
from hpckit.store.progress import Progress, Publisher


def change(run, **changes):
    manifests.read(run.manifest).updated(**changes).write(run.manifest)


@pytest.fixture
def dead_driver():
    """Describe a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return Driver.this_process().model_copy(update={"pid": process.pid})


def publish(run, done, failed, total):
    publisher = Publisher(run.progress, lambda _: None)
    publisher.begun -= 10.0
    publisher.publish(done, failed, total)


def test_ls(make_farm, make_fields, hpckit, tmp_path):
    farm = make_farm([{"energy": 1.0}, "failed"], "T=1,2")
    spmd = make_fields({})
    broken = tmp_path / "runs" / "broken-20200101-000000-0000"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    lines = hpckit("ls").output.splitlines()
    assert lines[0].split() == ["run", "state", "work", "failed", "when", "time", "job"]
    assert lines[1].split()[:2] == [broken.name, "damaged"]
    found = {line.split()[0]: line.split() for line in lines[2:4]}
    assert found[farm.id][1:4] == ["failed", "1/2", "1"]
    assert found[farm.id][-3:] == ["1.2", "s", "walk"]
    assert found[spmd.id][1:4] == ["completed", "2", "ranks"]
    assert "not valid JSON" in lines[4]
    for line in hpckit("ls", columns=80).output.splitlines()[:4]:
        assert len(line) <= 80


def test_ls_json(make_farm, hpckit):
    run = make_farm([{"energy": 1.0}, None], "T=1,2")
    (found,) = json.loads(hpckit("ls", "--json").output)
    assert found["id"] == run.id
    assert (found["state"], found["done"], found["failed"]) == ("interrupted", 1, 0)
    assert (found["total"], found["seconds"], found["problem"]) == (2, 1.25, None)


def test_ls_of_nothing(hpckit, tmp_path):
    assert "no runs in" in hpckit("ls").output
    assert json.loads(hpckit("ls", "--json", "--output", tmp_path / "none").output) == []


def test_ls_of_a_damaged_segment(make_farm, hpckit):
    run = make_farm([{"energy": 1.0}, None], "T=1,2")
    (segment,) = run.segments.glob("w*.h5")
    segment.write_bytes(b"nothing")
    done = hpckit("ls")
    assert done.exit_code == 0
    assert "?/2" in done.output
    assert "does not read back" in done.output


def test_status_of_a_run_that_goes_on(make_farm, hpckit):
    run = make_farm([{"energy": 1.0}, None, None, None], "T=1,2,3,4")
    change(run, state=State.RUNNING, reason=None, driver=Driver.this_process())
    publish(run, 2, 1, 4)
    output = hpckit("status", "last").output
    assert "state   running" in output
    assert "tasks   2 of 4 done, 1 failed (75%)" in output
    assert "sealed  1 tasks" in output
    assert "rate    0.3 tasks/s" in output
    assert "left    about 3.3 s" in output
    assert "resume" not in output
    found = json.loads(hpckit("status", "last", "--json").output)
    assert (found["done"], found["failed"], found["total"], found["sealed"]) == (2, 1, 4, 1)
    assert found["seconds_left"] == pytest.approx(3.3, abs=0.1)
    assert "2/4" in hpckit("ls").output


def test_the_rate_of_a_resumed_farm_is_that_of_its_session(make_farm, hpckit):
    run = make_farm([{"energy": 1.0}, None, None, None], "T=1,2,3,4")
    change(run, state=State.RUNNING, reason=None, driver=Driver.this_process(), sessions=2)
    run.progress.write_text(json.dumps(vars(Progress(2, 0, 4, 10.0, before=1))))
    found = json.loads(hpckit("status", "last", "--json").output)
    assert found["rate"] == pytest.approx(0.1)
    assert found["seconds_left"] == pytest.approx(20)


def test_status_of_a_run_whose_driver_was_killed(make_farm, hpckit, dead_driver):
    run = make_farm([{"energy": 1.0}, None], "T=1,2")
    change(run, state=State.RUNNING, reason=None, driver=dead_driver, seconds=0.0)
    run.progress.write_text(json.dumps(vars(Progress(2, 0, 2, 4.0))))
    output = hpckit("status", "last").output
    assert "interrupted: the process that worked on it has died" in output
    assert "1 of 2 done" in output
    assert "time        4.0 s" in output
    assert f"go on with  hpckit resume {run.id}" in output


def test_a_run_elsewhere_is_resumed_by_its_path(make_farm, hpckit, tmp_path):
    run = make_farm([{"energy": 1.0}, None], "T=1,2")
    other = tmp_path / "elsewhere"
    (tmp_path / "runs").rename(other)
    found = json.loads(hpckit("status", run.id, "--output", other, "--json").output)
    assert found["next"] == f"hpckit resume {other / run.id}"


def test_a_complete_run_has_nothing_to_go_on_with(make_farm, hpckit):
    make_farm([{"energy": 1.0}, "failed"], "T=1,2")
    found = json.loads(hpckit("status", "last", "--json").output)
    assert (found["state"], found["reason"]) == ("failed", "1 of 2 tasks failed")
    assert (found["done"], found["failed"]) == (1, 1)
    assert found["next"] == f"hpckit retry {found['id']}"


def test_status_of_an_spmd_run_names_the_rank_that_failed(make_fields, hpckit, traceback_of):
    run = make_fields({})
    run.results.unlink()
    change(run, state=State.FAILED, reason="water")
    Failure(1, traceback_of("no\nwater"), 1).leave(run.failure)
    output = hpckit("status", "last").output
    assert "failed: rank 1: ValueError: no" in output
    assert "go on with  hpckit resume" in output


def test_status_of_an_spmd_run_counts_steps(make_fields, hpckit):
    run = make_fields({})
    change(run, state=State.RUNNING, driver=Driver.this_process())
    publish(run, 30, 0, 120)
    output = hpckit("status", "last").output
    assert "steps  30 of 120 done (25%)" in output
    assert "rate   3 steps/s" in output


def test_what_is_not_there(hpckit, tmp_path):
    assert isinstance(hpckit("status", "nothing").exception, UsageError)
    broken = tmp_path / "runs" / "broken"
    broken.mkdir(parents=True)
    (broken / "run.json").write_text("[]")
    assert isinstance(hpckit("status", "broken").exception, StoreError)
