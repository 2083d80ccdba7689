"""Farms of coroutines on one event loop."""

from __future__ import annotations

import os
import signal

import h5py
import numpy as np
import pytest
from endings import kill

NAPS = """
    import asyncio
    from hpckit import farm

    @farm(seed=7)
    async def nap(task, n: int = 0, ms: float = 20.0):
        print("nap", n)
        await asyncio.sleep(ms / 1000)
        return {"x": task.rng.random(), "square": n * n}
"""


def results(hpckit):
    with h5py.File(hpckit.last() / "results.h5") as file:
        return {name: file[name][()] for name in ("task_state", "tasks/start", "tasks/duration")}


def test_ten_thousand_tasks(hpckit):
    hpckit.job(NAPS)
    ended = hpckit("run", "job.py", "n=range(10000)", "--workers", 500)
    assert (ended.code, ended.stderr) == (0, "")
    assert hpckit.manifest().engine == "asyncio"
    with h5py.File(hpckit.last() / "results.h5") as file:
        np.testing.assert_array_equal(file["square"][()], np.arange(10000) ** 2)
    lines = hpckit.logs().splitlines()
    assert "[77] nap 77" in lines


def test_so_many_are_worked_at_once_and_no_more(hpckit):
    hpckit.job("""
        import asyncio
        from hpckit import farm
        at_it = 0
        @farm
        async def f(n: int = 0):
            global at_it
            at_it += 1
            await asyncio.sleep(0.01)
            seen = at_it
            at_it -= 1
            return seen
    """)
    assert hpckit("run", "job.py", "n=range(300)", "--workers", 30).code == 0
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["result"][()].max() == 30


def test_a_long_task_holds_nothing_up(hpckit):
    hpckit.job("""
        import asyncio
        from hpckit import farm
        @farm
        async def f(n: int = 0):
            await asyncio.sleep(4 if n == 3 else 0.01)
            return n
    """)
    driver = hpckit.start("run", "job.py", "n=range(2000)", "--workers", 50)
    hpckit.until(
        lambda: hpckit.run_dirs() and list((hpckit.last() / "segments").glob("w*.h5")), "sealed"
    )
    assert driver.poll() is None
    assert kill(driver, 0).code == 0
    found = results(hpckit)
    ends = found["tasks/start"] + found["tasks/duration"]
    assert np.delete(ends, 3).max() < ends[3]
    assert (found["task_state"] == 1).all()


def test_each_task_has_its_own_failure(hpckit):
    hpckit.job("""
        import asyncio
        from hpckit import farm
        @farm(task_timeout="1s")
        async def f(n: int = 0):
            if n == 1:
                raise ValueError("one")
            if n == 2:
                raise asyncio.CancelledError
            if n == 3:
                await asyncio.sleep(3600)
            if n == 4:
                raise TimeoutError("its own")
            if n == 5:
                return object()
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(40)")
    assert ended.code == 3
    assert results(hpckit)["task_state"].tolist() == [1, *[2] * 5, *[1] * 34]
    with h5py.File(hpckit.last() / "results.h5") as file:
        errors = file["tasks/error"].asstr()[()]
    assert errors[1].endswith("ValueError: one")
    assert "CancelledError" in errors[2]
    assert errors[3] == "the task took longer than its time limit, 1 s"
    assert errors[4].endswith("TimeoutError: its own")
    assert "cannot be stored" in errors[5]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_resumed(hpckit, signum):
    hpckit.job(NAPS)
    sweep = ["n=range(3000)", "ms=50", "--workers", 40]
    assert hpckit("run", "job.py", *sweep).code == 0
    same = hpckit.digest()
    driver = hpckit.start("run", "job.py", *sweep)
    hpckit.until(
        lambda: len(hpckit.run_dirs()) == 2 and list((hpckit.last() / "segments").glob("w*.h5")),
        "something is sealed",
    )
    ended = kill(driver, signum)
    assert ended.code == (130 if signum == signal.SIGINT else -signum)
    assert hpckit("resume", "last").code == 0
    assert hpckit.digest() == same
    assert (results(hpckit)["task_state"] == 1).all()


def test_finally_blocks_run_when_interrupted(hpckit):
    hpckit.job("""
        import asyncio
        from pathlib import Path
        from hpckit import farm
        @farm
        async def f(n: int = 0):
            Path("begun").touch()
            try:
                await asyncio.sleep(3600)
            finally:
                Path(f"cleared-{n}").touch()
    """)
    driver = hpckit.start("run", "job.py", "n=range(3)")
    hpckit.until(lambda: (hpckit.directory / "begun").exists(), "they are at it")
    os.killpg(driver.pid, signal.SIGINT)
    assert kill(driver, 0).code == 130
    assert len(list(hpckit.directory.glob("cleared-*"))) == 3


@pytest.mark.parametrize("engine", ["serial", "threads", "processes", "mpi", "dask"])
def test_other_engines_refuse_coroutines(hpckit, engine):
    hpckit.job(NAPS)
    ended = hpckit("run", "job.py", "--engine", engine)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert f"the engine {engine} has none; take --engine asyncio" in line
    assert not hpckit.run_dirs()


def test_functions_run_in_threads(hpckit):
    hpckit.job("""
        from hpckit import farm
        @farm(seed=7)
        def f(task, n: int = 0):
            print("here", n)
            return {"x": task.rng.random(), "square": n * n}
    """)
    assert hpckit("run", "job.py", "n=range(300)", "--engine", "serial").code == 0
    same = hpckit.digest()
    assert hpckit("run", "job.py", "n=range(300)", "--engine", "asyncio").code == 0
    assert hpckit.digest() == same
    assert "[7] here 7" in hpckit.logs().splitlines()


def test_failed_tasks_are_tried_again(hpckit):
    hpckit.job("""
        from hpckit import farm
        tried = {}
        @farm(task_retries=2)
        async def f(n: int = 0):
            tried[n] = tried.get(n, 0) + 1
            if n == 5 and tried[n] < 3:
                raise ValueError(tried[n])
            return tried[n]
    """)
    assert hpckit("run", "job.py", "n=range(20)").code == 0
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["result"][()].tolist() == [3 if n == 5 else 1 for n in range(20)]
        assert file["tasks/attempts"][5] == 3
