"""Tasks at which worker after worker is lost."""

from __future__ import annotations

from concurrent.futures import Future

import h5py
import pytest

from hpckit.run import engines
from hpckit.run.engines import Engine, WorkerDied, Workplace
from hpckit.run.session import work_farm
from hpckit.spec.load import load_file
from hpckit.spec.sweep import Sweep
from hpckit.store.block import TaskState
from hpckit.store.create import create
from hpckit.store.progress import silent

JOB = """
from hpckit import farm

@farm(task_retries=2)
def f(n: int = 0):
    return n
"""
GUILTY = 3
LOST = "5 workers were lost that were at it, nobody knows why"

tried: list[list[int]] = []


class Lossy(Engine):
    """Loses all workers that come to one task."""

    def submit(self, fn, /, *args):
        ended, indices = Future(), list(args[1])
        if GUILTY in indices:
            tried.append(indices)
            ended.set_exception(WorkerDied(LOST, is_proven=True))
        else:
            ended.set_result(fn(*args))
        return ended

    def kill(self) -> None:
        pass


@pytest.mark.parametrize("tasks", [4, 16])
def test_a_task_at_which_all_are_lost_fails_without_more_tries(tmp_path, monkeypatch, tasks):
    monkeypatch.setitem(engines.ENGINES, "lossy", f"{__name__}:Lossy")
    tried.clear()
    path = tmp_path / "job.py"
    path.write_text(JOB)
    loaded = load_file(path)
    sweep = Sweep.from_args(loaded.job, [f"n=range({tasks})"])
    run = create(loaded, sweep, root=tmp_path, argv=[])
    place = Workplace(2, run.dir.log("worker-{pid}"))
    final = work_farm(run, "lossy", place, silent, again=frozenset({TaskState.MISSING}))
    assert final.counts == {"missing": 0, "done": tasks - 1, "failed": 1}
    with h5py.File(run.dir.results) as file:
        assert file["tasks/error"].asstr()[GUILTY] == LOST
    assert tried.count([GUILTY]) == 1
    assert sorted(map(len, tried), reverse=True) == list(map(len, tried))
