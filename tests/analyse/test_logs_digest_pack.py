from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest

from hpckit.errors import StoreError, UsageError
from hpckit.store import fields
from hpckit.store.digest import digest, variable_digests
from hpckit.store.failure import Failure


def test_logs_of_a_farm(make_farm, hpckit):
    run = make_farm([{"energy": 1.0}] * 12, "repeat=12")
    run.log("worker-1").write_text("[1] one\n[11] eleven\n[1]\n[1] [x] end\n")
    run.log("worker-2").write_text("[2] two\n[1] again\n")
    assert hpckit("logs", "last").output.splitlines() == [
        "── worker-1.log",
        "[1] one",
        "[11] eleven",
        "[1]",
        "[1] [x] end",
        "",
        "── worker-2.log",
        "[2] two",
        "[1] again",
    ]
    assert hpckit("logs", "last", "--task", 1).output.splitlines() == [
        "── worker-1.log",
        "one",
        "",
        "[x] end",
        "",
        "── worker-2.log",
        "again",
    ]
    assert "nothing was printed" in hpckit("logs", "last", "--task", 3).output


def test_logs_are_bounded_unless_all_is_asked_for(make_farm, hpckit):
    run = make_farm([{"energy": 1.0}])
    run.log("worker-1").write_text("".join(f"[0] {i}\n" for i in range(500)))
    lines = hpckit("logs", "last").output.splitlines()
    assert lines[1] == "… 400 lines before these (--all prints them)"
    assert (lines[2], lines[-1], len(lines)) == ("[0] 400", "[0] 499", 102)
    assert hpckit("logs", "last", "-n", 2, "--task", 0).output.splitlines()[2:] == ["498", "499"]
    assert len(hpckit("logs", "last", "--all").output.splitlines()) == 501


def test_a_log_that_ends_in_the_middle_of_a_line(make_farm, hpckit):
    run = make_farm([{"energy": 1.0}])
    run.log("worker-1").write_bytes(b"[0] whole\n[0] ha\xfflf")
    assert hpckit("logs", "last").output.splitlines()[1:] == ["[0] whole", "[0] ha�lf"]


@pytest.mark.parametrize("missing", [True, False])
def test_the_traceback_of_a_failed_task(make_farm, hpckit, traceback_of, missing):
    rows = [{"energy": 1.0}, traceback_of("no water"), None if missing else {"energy": 1.0}]
    run = make_farm(rows, "T=1,2,3")
    assert run.results.is_file() is not missing
    output = hpckit("logs", "last", "--task", 1).output
    assert output == f"── why task 1 failed\n{traceback_of('no water')}\n"
    assert "nothing was printed" in hpckit("logs", "last", "--task", 0).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", 2), "task 2: .* has the tasks 0 to 1"),
        (("--rank", 0), "is a farm"),
        (("--rank", 0, "--task", 1), "exclude each other"),
    ],
)
def test_what_a_farm_does_not_have(make_farm, hpckit, arguments, message):
    make_farm([{"energy": 1.0}, {"energy": 1.0}], "T=1,2")
    error = hpckit("logs", "last", *arguments).exception
    assert isinstance(error, UsageError)
    assert re.search(message, str(error))


def test_logs_of_ranks(make_fields, hpckit, traceback_of):
    run = make_fields({})
    run.log("rank-00000").write_text("zero\n")
    run.log("launcher").write_text("mpiexec\n")
    Failure(1, traceback_of("no"), 1).leave(run.failure)
    output = hpckit("logs", "last").output
    assert output.startswith("── launcher.log\nmpiexec\n\n── rank-00000.log\nzero\n\n")
    assert "── failure of rank 1\nTraceback" in output
    assert hpckit("logs", "last", "--rank", 0).output == "── rank-00000.log\nzero\n"
    assert "ValueError: no" in hpckit("logs", "last", "--rank", 1).output
    run.log("rank-00001").write_text(f"one\n{traceback_of('no')}\n")
    assert hpckit("logs", "last", "--rank", 1).output.count("Traceback") == 1
    for arguments in (("--rank", 2), ("--task", 0)):
        assert isinstance(hpckit("logs", "last", *arguments).exception, UsageError)


def test_digest(make_farm, make_fields, hpckit):
    farm, again = (make_farm([{"energy": 1.0}]) for _ in range(2))
    other = make_fields({"u": (np.ones(3), ("x",))})
    lines = hpckit("digest", farm.path, again.path, other.path).output.splitlines()
    hashes = [line.split("  ")[0] for line in lines]
    assert [line.split("  ")[1] for line in lines] == [farm.id, again.id, other.id]
    assert hashes[0] == hashes[1] == digest(farm.results)
    assert hashes[2] != hashes[0]
    (found,) = json.loads(hpckit("digest", "--json", farm.path).output)
    assert found["digest"] == hashes[0]
    assert found["variables"] == variable_digests(farm.results)


def test_digest_of_a_run_without_results(make_farm, hpckit):
    make_farm([{"energy": 1.0}, None], "T=1,2")
    error = hpckit("digest", "last").exception
    assert isinstance(error, StoreError)
    assert "hpckit status" in str(error)


def test_pack(make_fields, hpckit, monkeypatch):
    monkeypatch.setattr(fields, "COPY_LIMIT", 0)
    run = make_fields({"u": (np.arange(6.0), ("x",))})
    before = hpckit("digest", "last").output
    with h5py.File(run.results) as file:
        assert file["u"].is_virtual
    assert hpckit("pack", "last").output.strip() == f"{run.results}: holds u itself now"
    assert not list(run.segments.iterdir())
    assert hpckit("digest", "last").output == before
    assert "already" in hpckit("pack", "last").output
