"""Tasks that are tried again, take too long, or fail too often."""

from __future__ import annotations

import textwrap

import h5py
import pytest

from hpckit.run import farm
from hpckit.run.engines import Workplace
from hpckit.run.session import work_farm
from hpckit.spec.load import load_file
from hpckit.spec.sweep import Sweep
from hpckit.store.block import TaskState
from hpckit.store.create import create
from hpckit.store.failures import failed_tasks
from hpckit.store.progress import silent

FLAKY = """
    from pathlib import Path
    from hpckit import farm

    @farm
    def flaky(n: int = 0, fails: int = 2):
        tries = Path(f"tries-{n}")
        with tries.open("a") as stream:
            stream.write("x")
        if n % 4 == 1 and tries.stat().st_size <= fails:
            raise ValueError(f"try {tries.stat().st_size}")
        return n
"""
SLOW = """
    import itertools, subprocess, time
    from hpckit import farm

    def swallow():
        try:
            time.sleep(3600)
        except BaseException:
            time.sleep(3600)

    @farm(task_timeout="1s")
    def slow(n: int = 0):
        if n == 3:
            {how}
        return n
"""
HOWS = {
    "sleep": "time.sleep(3600)",
    "loop": "while True: pass",
    "subprocess": 'subprocess.run(["sleep", "3600"])',
    "deaf": "swallow()",
}


@pytest.fixture
def states(hpckit):
    """Return what became of each task of the newest run."""

    def read():
        with h5py.File(hpckit.last() / "results.h5") as file:
            return file["task_state"][()].tolist()

    return read


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_failed_tasks_are_tried_again(hpckit, states, engine):
    hpckit.job(FLAKY)
    ended = hpckit("run", "job.py", "n=range(8)", "--task-retries", 2, "--engine", engine)
    assert ended.code == 0, ended.stderr
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["tasks/attempts"][()].tolist() == [1, 3, 1, 1, 1, 3, 1, 1]
        start = file["tasks/start"][()]
    # They waited a second, then two.
    assert start[[1, 5]].min() > start[[0, 2, 3, 4, 6, 7]].max()


def test_the_last_failure_is_told(hpckit, states):
    hpckit.job(FLAKY)
    ended = hpckit("run", "job.py", "n=range(3)", "fails=9", "--task-retries", 1)
    assert ended.code == 3
    assert "task 1 failed: ValueError: try 2" in ended.stderr
    assert states() == [1, 2, 1]
    assert hpckit.manifest().job.rules.task_retries == 1


@pytest.mark.parametrize("how", HOWS)
def test_a_task_over_its_time_fails_alone(hpckit, states, how):
    hpckit.job(SLOW.replace("{how}", HOWS[how]))
    ended = hpckit("run", "job.py", "n=range(8)", "--workers", 2)
    assert ended.code == 3
    assert "task 3 failed: the task took longer than its time limit, 1 s" in ended.stderr
    assert states() == [1, 1, 1, 2, 1, 1, 1, 1]
    hpckit.assert_all_gone()


def test_a_task_that_lets_nobody_in_is_ended_with_its_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(farm, "GRACE_SECONDS", 1.0)
    path = tmp_path / "job.py"
    path.write_text(textwrap.dedent(SLOW.replace("{how}", "sum(itertools.repeat(0))")))
    loaded = load_file(path)
    run = create(loaded, Sweep.from_args(loaded.job, ["n=range(8)"]), root=tmp_path, argv=[])
    place = Workplace(2, run.dir.log("worker-{pid}"))
    final = work_farm(run, "processes", place, silent, again=frozenset({TaskState.MISSING}))
    assert final.counts == {"missing": 0, "done": 7, "failed": 1}
    ((task, text),) = failed_tasks(run.dir.results, 9)
    assert task == 3
    assert text.startswith("the worker process was killed, since its task took too long")


@pytest.mark.parametrize("engine", ["serial", "threads"])
def test_engines_that_cannot_end_a_task_say_so(hpckit, engine):
    hpckit.job(FLAKY)
    ended = hpckit("run", "job.py", "--task-timeout", "5m", "--engine", engine)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert f"--task-timeout: the engine {engine} cannot end a task" in line
    assert not hpckit.run_dirs()


def test_a_session_ends_at_too_many_failures(hpckit):
    hpckit.job("""
        import time
        from hpckit import farm
        @farm(max_failures=5)
        def f(n: int = 0):
            time.sleep(0.01)
            if n < 50:
                raise ValueError
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(3000)", "--workers", 1)
    assert ended.code == 3
    manifest = hpckit.manifest()
    assert manifest.state == "failed"
    assert "tasks have failed, with max_failures = 5" in manifest.reason
    assert 5 <= manifest.counts["failed"] <= 50
    assert manifest.counts["missing"] > 1000
    assert hpckit("resume", "last").code == 3
    assert hpckit.manifest().counts["missing"] < manifest.counts["missing"]


def test_rules_of_a_command(hpckit, states):
    hpckit.job(
        'command = "sleep {n}"\n[params]\nn = 0\n[rules]\ntask_timeout = "1s"\n', "sleep.toml"
    )
    ended = hpckit("run", "sleep.toml", "n=0,3600", "--workers", 2)
    assert ended.code == 3
    assert "task 1 failed: the task took longer than its time limit, 1 s" in ended.stderr
    assert states() == [1, 2]
    hpckit.assert_all_gone()


def test_ranks_have_no_tasks(hpckit):
    hpckit.job("from hpckit import spmd\n@spmd\ndef f(run): ...\n")
    ended = hpckit("run", "job.py", "--max-failures", 3)
    assert ended.code == 2
    assert "--max-failures is for farms" in ended.stderr
