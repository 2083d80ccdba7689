"""Runs as RO-Crates, which a validator of theirs accepts."""

from __future__ import annotations

from zipfile import ZipFile

import h5py
import pytest
from cli.crates import entities, issues

JOB = """
    from pathlib import Path
    from hpckit import farm

    @farm(seed=4)
    def draw(task, n: int = 2, file: Path = Path("data.txt")):
        "Draw some numbers."
        if n == 3:
            raise ValueError
        return {"x": task.rng.random(), "text": file.read_text()}
"""
SPMD = """
    import numpy as np
    from hpckit import spmd

    @spmd
    def flow(run, n: int = 12):
        run.save("u", np.arange(n))
"""


@pytest.fixture
def farm(hpckit):
    hpckit.job(JOB)
    hpckit.job("ü", "data.txt")
    return hpckit


def test_a_farm_that_is_complete(farm):
    assert farm("run", "job.py", "n=1,2").code == 0
    run = farm.last()
    ended = farm(
        "export", "last", "--to", "rocrate", "--license", "https://spdx.org/licenses/CC0-1.0"
    )
    assert ended.code == 0, ended.stderr
    crate = farm.directory / ended.stdout.strip()
    assert crate.name == f"{run.name}-rocrate"
    assert issues(crate) == []
    found = entities(crate)
    action = found[f"#{run.name}"]
    assert action["actionStatus"] == {"@id": "http://schema.org/CompletedActionStatus"}
    assert action["endTime"] == farm.manifest().finished
    assert {"@id": "#parameter-n"} in action["object"]
    assert found["#parameter-seed"]["value"] == "4"
    assert found["#input-0"]["sha256"] == next(iter(farm.manifest().job.inputs.values()))["sha256"]
    assert found["results.h5"]["identifier"] == f"hpckit digest {farm.digest()}"
    assert found["#software-numpy"]["softwareVersion"]
    with h5py.File(crate / "results.h5") as file:
        assert len(file["x"]) == 2
    assert (crate / "job.py").read_text() == (run / "job.py").read_text()


def test_the_same_run_gives_the_same_crate(farm):
    assert farm("run", "job.py", "n=1,2").code == 0
    for name in ("one", "two"):
        assert farm("export", "last", "--to", "rocrate", "-o", name).code == 0
    one, two = (farm.directory / name / "ro-crate-metadata.json" for name in ("one", "two"))
    assert one.read_text() == two.read_text()


def test_tasks_that_failed(farm):
    assert farm("run", "job.py", "n=1,3").code == 3
    assert farm("export", "last", "--to", "rocrate", "-o", "crate").code == 0
    assert issues(farm.directory / "crate") == []
    action = entities(farm.directory / "crate")[f"#{farm.last().name}"]
    assert action["actionStatus"] == {"@id": "http://schema.org/FailedActionStatus"}
    assert action["error"] == "1 of 2 tasks failed"


def test_ranks_in_a_zip_file(hpckit):
    hpckit.job(SPMD)
    assert hpckit("run", "job.py").code == 0
    ended = hpckit("export", "last", "--to", "rocrate", "-o", "flow.zip")
    assert ended.code == 0, ended.stderr
    with ZipFile(hpckit.directory / "flow.zip") as file:
        file.extractall(hpckit.directory / "flow")
    assert issues(hpckit.directory / "flow") == []
    assert "#software-MPI" in entities(hpckit.directory / "flow")


def test_the_validator_finds_what_is_missing(farm):
    assert farm("run", "job.py", "n=1").code == 0
    assert farm("export", "last", "--to", "rocrate", "-o", "crate").code == 0
    path = farm.directory / "crate/ro-crate-metadata.json"
    path.write_text(path.read_text().replace('"instrument"', '"agent"'))
    assert issues(farm.directory / "crate")


def test_where_nothing_can_be_written(farm):
    assert farm("run", "job.py", "n=1").code == 0
    ended = farm("export", "last", "--to", "rocrate", "-o", "/proc/crate.zip")
    assert ended.code == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("hpckit: /proc/crate.zip: ")


def test_nothing_is_overwritten(farm):
    assert farm("run", "job.py", "n=1").code == 0
    (farm.directory / "crate").mkdir()
    ended = farm("export", "last", "--to", "rocrate", "-o", "crate")
    assert (ended.code, ended.stderr) == (
        2,
        "hpckit: crate: is there already: give another name with -o\n",
    )
