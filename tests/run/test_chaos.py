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
from redis_server import MISSING, RedisServer

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
ENGINES = ["processes", "mpi", "dask", "threads", "serial", "asyncio", "celery"]
TASKS_A_MOMENT = 60
"""So that there still is work at the last moments."""

STOPPED_SECONDS = 0.3


class Listener:
    """A worker of the engine celery, which somebody starts again whenever it has died."""

    def __init__(self, hpckit, env):
        self.env = env
        self._start = lambda: hpckit.start("worker", "--workers", 2, env=env)
        self._process = self._start()

    def processes(self):
        """Return all that can be killed of it."""
        if self._process.poll() is not None:
            self._process = self._start()
        there = psutil.Process(self._process.pid)
        return [there, *there.children(recursive=True)]

    def end(self):
        kill(self._process)


@pytest.fixture
def listener(hpckit, engine, tmp_path_factory):
    """Return the worker that an engine without any of its own needs, or None."""
    if engine != "celery":
        yield None
        return
    if MISSING:
        pytest.skip("redis-server is not there: apt-get install redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    found = Listener(hpckit, server.env)
    yield found
    found.end()
    server.kill()


def strike(generator, victims):
    """Kill or stop one of some processes."""
    with suppress(psutil.NoSuchProcess, IndexError):
        victim = generator.choice(victims())
        if generator.random() < 0.3:
            victim.suspend()
            time.sleep(STOPPED_SECONDS)
            victim.resume()
        else:
            victim.kill()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ENGINES)
def test_each_task_stands_once(hpckit, moments, engine, listener):
    hpckit.job(ASYNC if engine == "asyncio" else JOB)
    options = ["--engine", engine, *([] if engine in ("serial", "celery") else ["--workers", 2])]
    env = None if listener is None else listener.env
    tasks = TASKS_A_MOMENT * moments
    sweep = f"n=range({tasks})"
    assert hpckit("run", "job.py", sweep, *options, env=env).code == 0
    undisturbed = hpckit.digest()
    generator = random.Random(20261125)
    driver = hpckit.start("run", "job.py", sweep, *options, env=env)
    hpckit.until(
        lambda: len(hpckit.run_dirs()) == 2 and (hpckit.last() / "run.json").exists(), "it began"
    )
    run = hpckit.last()

    def victims():
        if listener is not None:
            return listener.processes()
        return psutil.Process(driver.pid).children(recursive=True)

    at_work = 0
    for _ in range(moments):
        time.sleep(generator.uniform(0.2, 1.0))
        at_work += driver.poll() is None
        if driver.poll() is None and generator.random() < 0.7:
            strike(generator, victims)
        else:
            kill(driver, signal.SIGKILL)
            if listener is None:
                hpckit.assert_all_gone()
            driver = hpckit.start("resume", run, env=env)
    assert at_work > moments / 2
    while listener is not None and driver.poll() is None:
        listener.processes()
        time.sleep(0.1)
    _, stderr = driver.communicate(timeout=600)
    assert driver.returncode == 0, stderr
    assert hpckit.digest(run) == undisturbed
    with h5py.File(run / "results.h5") as file:
        assert (file["task_state"][()] == 1).all()
        np.testing.assert_array_equal(file["task"][()], np.arange(tasks))
    assert not list((run / "segments").iterdir())
    if listener is not None:
        listener.end()
    hpckit.assert_all_gone()
