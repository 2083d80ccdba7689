"""Whatever is killed or stopped, at random moments: each task stands once."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress

import h5py
import numpy as np
import psutil
import pytest
from endings import kill

JOB = """
    import asyncio, time
    import numpy as np
    from hpckit import farm

    def answer(task, n):
        return {"x": task.rng.random(), "square": n * n, "curve": np.arange(n % 5), "text": f"t{n}"}

    @farm(seed=7, task_retries=1000)
    def nap(task, n: int = 0):
        time.sleep(0.01)
        return answer(task, n)
"""
ASYNC = JOB.replace("def nap", "async def nap").replace("time.sleep", "await asyncio.sleep")
ENGINES = ["processes", "mpi", "dask", "threads", "serial", "asyncio"]
TASKS = "n=range(600)"
STOPPED_SECONDS = 0.3


def strike(generator, driver):
    """Kill or stop one of a driver's processes; tell which."""
    with suppress(psutil.NoSuchProcess, IndexError):
        victim = generator.choice(psutil.Process(driver.pid).children(recursive=True))
        if generator.random() < 0.3:
            victim.suspend()
            time.sleep(STOPPED_SECONDS)
            victim.resume()
        else:
            victim.kill()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ENGINES)
def test_each_task_stands_once(hpckit, moments, engine):
    hpckit.job(ASYNC if engine == "asyncio" else JOB)
    options = ["--engine", engine, *([] if engine == "serial" else ["--workers", 2])]
    assert hpckit("run", "job.py", TASKS, *options).code == 0
    undisturbed = hpckit.digest()
    generator = random.Random(20261125)
    driver = hpckit.start("run", "job.py", TASKS, *options)
    hpckit.until(
        lambda: len(hpckit.run_dirs()) == 2 and (hpckit.last() / "run.json").exists(), "it began"
    )
    run = hpckit.last()
    for _ in range(moments):
        time.sleep(generator.uniform(0.2, 1.0))
        if driver.poll() is None and generator.random() < 0.7:
            strike(generator, driver)
        else:
            kill(driver, signal.SIGKILL)
            hpckit.assert_all_gone()
            driver = hpckit.start("resume", run)
    ended = kill(driver, 0)
    assert ended.code == 0, ended.stderr
    assert hpckit.digest(run) == undisturbed
    with h5py.File(run / "results.h5") as file:
        assert (file["task_state"][()] == 1).all()
        np.testing.assert_array_equal(file["task"][()], np.arange(600))
    assert not list((run / "segments").iterdir())
    hpckit.assert_all_gone()
