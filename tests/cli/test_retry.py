"""hpckit retry: failed tasks are done again, and stand once in the results."""

from __future__ import annotations

import signal

import h5py
import pytest
from endings import kill

FLAKY = """
    from pathlib import Path
    from hpckit import farm

    @farm(seed=3)
    def flaky(task, n: int = 0):
        if n % 4 == 1 and not Path("mended").exists():
            raise OSError(f"the licence server is away, {Path('times').read_text()}")
        return {"x": task.rng.random(), "n2": n * n}
"""


def attempts(hpckit):
    with h5py.File(hpckit.last() / "results.h5") as file:
        return file["tasks/attempts"][()].tolist()


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_failed_tasks_are_done_again(hpckit, engine):
    hpckit.job(FLAKY)
    mended, times = hpckit.directory / "mended", hpckit.directory / "times"
    mended.touch()
    assert hpckit("run", "job.py", "n=range(10)", "--engine", "serial").code == 0
    undisturbed = hpckit.digest()
    mended.unlink()
    times.write_text("first time")
    assert hpckit("run", "job.py", "n=range(10)", "--engine", engine).code == 3
    run = hpckit.last()
    assert attempts(hpckit) == [1] * 10

    times.write_text("second time")
    again = hpckit("retry", run)
    assert again.code == 3
    assert "task 1 failed: OSError: the licence server is away, second time" in again.stderr
    assert attempts(hpckit) == [1, 2, 1, 1, 1, 2, 1, 1, 1, 2]
    assert hpckit.manifest(run).counts == {"missing": 0, "done": 7, "failed": 3}

    mended.touch()
    assert hpckit("resume", run).code == 3
    ended = hpckit("retry", run)
    assert ended.code == 0, ended.stderr
    assert "10 tasks done" in ended.stdout
    assert attempts(hpckit) == [1, 3, 1, 1, 1, 3, 1, 1, 1, 3]
    assert hpckit.digest(run) == undisturbed
    assert hpckit.manifest(run).state == "completed"
    assert not list((run / "segments").iterdir())


def test_nothing_to_retry(hpckit):
    hpckit.job("from hpckit import farm\n@farm\ndef f():\n    pass\n")
    assert hpckit("run", "job.py").code == 0
    ended = hpckit("retry", "last")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout == f"{hpckit.last().name}: is complete, no task has failed\n"


def test_ranks_have_no_tasks(hpckit):
    hpckit.job("from hpckit import spmd\n@spmd\ndef f(run):\n    raise ValueError\n")
    assert hpckit("run", "job.py").code == 1
    ended = hpckit("retry", "last")
    assert ended.code == 2
    name = hpckit.last().name
    assert ended.stderr == f"hpckit: {name}: has no tasks: `hpckit resume {name}` goes on\n"


def test_an_interrupted_retry_goes_on_with_retry(hpckit):
    hpckit.job("""
        import time
        from pathlib import Path
        from hpckit import farm

        @farm
        def f(n: int = 0):
            if n == 1 and not Path("mended").exists():
                raise ValueError(n)
            while n == 1 and not Path("go").exists():
                print("here", flush=True)
                time.sleep(0.05)
    """)
    assert hpckit("run", "job.py", "n=range(3)", "--workers", 1).code == 3
    (hpckit.directory / "mended").touch()
    driver = hpckit.start("retry", "last")
    hpckit.until(lambda: "[1] here" in hpckit.logs(), "the task waits")
    ended = kill(driver, signal.SIGTERM)
    assert ended.code == 130
    assert ended.stderr.splitlines()[-1] == f"go on with: hpckit retry {hpckit.last()}"
    (hpckit.directory / "go").touch()
    assert hpckit("retry", "last").code == 0
    assert attempts(hpckit) == [1, 2, 1]
