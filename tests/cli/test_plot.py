"""hpckit plot: the figure of a farm's course."""

from __future__ import annotations

import numpy as np
import pytest

from hpckit.analyse.timeline import timeline
from hpckit.store.progress import Muster
from hpckit.store.rundir import RunDir
from hpckit.store.trace import COLUMNS, MusterTrace, read_trace

NAP = """
    import time
    from hpckit import farm

    @farm
    def nap(i: int = 0):
        time.sleep(0.05)
        return {"y": i + 1}
"""


def test_a_figure_of_a_farm(hpckit):
    hpckit.job(NAP)
    hpckit("run", "job.py", "i=range(1,9)", "--workers", 2)
    ended = hpckit("plot", "last", "course.png")
    assert ended.code == 0, ended.stderr
    assert (hpckit.directory / "course.png").read_bytes().startswith(b"\x89PNG")


def test_tasks_at_work_are_counted(hpckit):
    hpckit.job(NAP)
    hpckit("run", "job.py", "i=range(1,9)", "--engine", "threads", "--workers", 2)
    course = timeline(RunDir(hpckit.last()))
    assert course.busy[1].max() == 2
    assert course.busy[1][-1] == 0
    assert course.ended[1][-1] == 8
    assert course.trace == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("last", "course.nix"), "course.nix: cannot be drawn: Format 'nix' is not supported"),
        (("last", "no/such/folder.png"), "no/such/folder.png: cannot be drawn: "),
        (("nix",), "run 'nix': neither a run directory nor"),
    ],
)
def test_what_is_refused(hpckit, arguments, told):
    hpckit.job(NAP)
    hpckit("run", "job.py")
    ended = hpckit("plot", *arguments)
    assert ended.code == 2
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_trace_has_a_row_a_change_and_none_that_is_torn(tmp_path):
    trace = MusterTrace(tmp_path / "workers.csv")
    for muster in (Muster(4, 4), Muster(4, 4), None, Muster(4, 0, 4), Muster(0, 0, 0, 1)):
        trace.note(muster)
    with trace.path.open("a") as file:
        file.write("17956473")
    rows = read_trace(trace.path)
    assert rows.shape == (3, len(COLUMNS))
    assert rows[:, 1:].tolist() == [[4, 4, 0, 0], [4, 0, 4, 0], [0, 0, 0, 1]]
    assert np.all(np.diff(rows[:, 0]) >= 0)
    assert read_trace(tmp_path / "nix").shape == (0, len(COLUMNS))
