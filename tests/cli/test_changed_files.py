"""A run that is taken up or repeated after its files have changed."""

from __future__ import annotations

import h5py
import pytest
from endings import kill

JOB = """
    import time
    from pathlib import Path
    import helper
    from hpckit import farm

    @farm
    def slow(n: int = 0, data: Path = Path("data.txt"), gate: Path = Path("gate")):
        while n > 2 and Path("closed").exists():
            time.sleep(0.01)
        return {"value": int(data.read_text()) * helper.FACTOR}
"""


@pytest.fixture
def interrupted(hpckit):
    """A run that was killed after its first tasks."""
    hpckit.job(JOB)
    hpckit.job("FACTOR = 3", "helper.py")
    for name, text in (("data.txt", "5"), ("gate", ""), ("closed", "")):
        (hpckit.directory / name).write_text(text)
    driver = hpckit.start("run", "job.py", "n=range(6)", "--workers", 1)
    hpckit.until(lambda: list(hpckit.runs.glob("*/segments/w*.h5")), "a segment")
    kill(driver)
    (hpckit.directory / "closed").unlink()
    return hpckit


def values(hpckit):
    with h5py.File(hpckit.last() / "results.h5") as file:
        return file["value"][()].tolist()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("data.txt", "data.txt, an input, was changed"),
        ("helper.py", "helper.py, which the job imports, was changed"),
    ],
)
@pytest.mark.parametrize("command", ["resume", "retry"])
def test_what_is_taken_up_stands_on_the_same_files(interrupted, command, name, what):
    path = interrupted.directory / name
    before = path.read_text()
    path.write_text(before.replace("3", "4").replace("5", "7"))
    refused = interrupted(command, "last")
    assert refused.code == 2
    (line,) = refused.stderr.splitlines()
    assert what in line
    assert "bring it back and resume the run, or start a new one" in line
    path.write_text(before)
    assert interrupted(command, "last").code == 0
    assert values(interrupted) == [15] * 6


def test_an_input_that_is_gone(interrupted):
    (interrupted.directory / "gate").unlink()
    refused = interrupted("resume", "last")
    assert refused.code == 2
    assert len(refused.stderr.splitlines()) == 1


def test_a_changed_copy_of_the_job(interrupted):
    copy = interrupted.last() / "job.py"
    copy.write_text(copy.read_text().replace("helper.FACTOR", "1"))
    refused = interrupted("resume", "last")
    assert refused.code == 2
    assert "the run's copy of the job, was changed" in refused.stderr


def test_a_changed_job_file_is_spoken_of(interrupted):
    interrupted.job(JOB.replace("helper.FACTOR", "1"))
    ended = interrupted("resume", "last")
    assert ended.code == 0
    assert "job.py has changed since: the run goes on with its own copy" in ended.stderr
    assert values(interrupted) == [15] * 6


def test_rerun_and_diff_name_what_changed(interrupted):
    assert interrupted("resume", "last").code == 0
    first = interrupted.last().name
    interrupted.job("FACTOR = 4", "helper.py")
    again = interrupted("rerun", first)
    assert again.code == 1
    assert "helper.py, which the job imports, was changed since" in again.stderr
    difference = interrupted("diff", first, interrupted.last().name)
    assert "helper.py: " in difference.stdout


def test_a_changed_copy_of_the_table(hpckit):
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return 1 / n\n")
    (hpckit.directory / "points.csv").write_text("n\n1\n0\n")
    assert hpckit("run", "job.py", "--tasks", "points.csv").code == 3
    (hpckit.last() / "tasks.csv").write_text("n\n7\n9\n")
    refused = hpckit("retry", "last")
    assert refused.code == 2
    assert "the run's copy of the table, was changed" in refused.stderr


def test_the_table_of_a_repetition_is_the_same(hpckit):
    hpckit.job(
        "from pathlib import Path\nfrom hpckit import farm\n@farm\n"
        "def f(data: Path): return data.read_text()\n"
    )
    (hpckit.directory / "data.txt").write_text("5")
    (hpckit.directory / "points.csv").write_text("data\ndata.txt\n")
    assert hpckit("run", "job.py", "--tasks", "points.csv").code == 0
    first = hpckit.last().name
    ended = hpckit("rerun", hpckit.last(), "--output", "elsewhere")
    assert ended.code == 0, ended.stderr
    (again,) = (hpckit.directory / "elsewhere").iterdir()
    difference = hpckit("diff", first, again)
    assert "table" not in difference.stdout
