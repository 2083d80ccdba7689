"""Farms of coroutines: many at a time on one event loop."""

from __future__ import annotations

import os
import signal
import time

import h5py
import numpy as np
import pytest
from endings import kill

from hpckit.run.batch import FarmSpec, run_batch
from hpckit.run.engines import BrokenExecutor, WorkerDied, Workplace, engine_class

NAPS = """
    import asyncio
    from hpckit import farm

    @farm(seed=7)
    async def nap(task, n: int = 0, ms: float = 10.0):
        await asyncio.sleep(ms / 1000)
        return {"x": task.rng.random(), "square": n * n, "text": f"task {n}"}
"""

ONE_LONG = """
    import asyncio
    from pathlib import Path
    from hpckit import farm

    @farm
    async def nap(n: int = 0):
        with Path("begun").open("a") as stream:
            stream.write(f"{n}\\n")
        try:
            await asyncio.sleep(3 if n == 3 else 0.01)
        finally:
            if n == 3:
                Path("finally").touch()
        return n
"""


def results(hpckit, run=None):
    """Return the datasets of results.h5, all of whose tasks must be done."""
    with h5py.File((run or hpckit.last()) / "results.h5") as file:
        assert (file["task_state"][()] == 1).all()
        return {name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)}


def times(hpckit):
    """Return when each task began and ended."""
    with h5py.File(hpckit.last() / "results.h5") as file:
        begun = file["tasks/start"][()]
        return begun, begun + file["tasks/duration"][()]


def errors(hpckit):
    """Return the last line of each failed task's error, by index."""
    with h5py.File(hpckit.last() / "results.h5") as file:
        failed = np.flatnonzero(file["task_state"][()] == 2)
        return {int(i): file["tasks/error"].asstr()[i].splitlines()[-1] for i in failed}


def finished_once(hpckit, count):
    """Resume the last run to its end, and check what it gives."""
    ended = hpckit("resume", "last")
    assert ended.code == 0, ended.stderr
    assert hpckit.manifest().engine == "asyncio"
    found = results(hpckit)
    np.testing.assert_array_equal(found["n"], np.arange(count))
    return hpckit.digest()


def engine_on(hpckit, text, workers=4, task_timeout=None):
    """Return an engine and the arguments of its calls, for a job of one parameter n."""
    job = hpckit.job(text)
    run = hpckit.directory / "run"
    (run / "segments").mkdir(parents=True)
    engine = engine_class("asyncio")(Workplace(workers, run / "log"))
    spec = FarmSpec(run, f"../{job.name}", job, (("n", "range(100)"),), False, 0, task_timeout)
    return engine, spec


@pytest.mark.parametrize("workers", [1, 7, 50])
def test_so_many_at_a_time_and_no_more(hpckit, workers):
    hpckit.job("""
        import asyncio
        from hpckit import farm
        now = 0
        @farm
        async def f(n: int = 0):
            global now
            now += 1
            here = now
            await asyncio.sleep(0.01)
            now -= 1
            return {"here": here, "n_again": n}
    """)
    ended = hpckit("run", "job.py", "n=range(150)", "--workers", workers)
    assert ended.code == 0, ended.stderr
    found = results(hpckit)
    assert found["here"].max() == workers
    np.testing.assert_array_equal(found["n_again"], np.arange(150))
    assert hpckit.manifest().engine == "asyncio"
    assert hpckit.manifest().workers == workers


def test_ten_thousand(hpckit):
    hpckit.job("""
        import asyncio
        from hpckit import farm
        @farm
        async def f(n: int = 0):
            await asyncio.sleep(0.1)
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(10000)", "--workers", 1000)
    assert ended.code == 0, ended.stderr
    assert results(hpckit)["result"].sum() == 9999 * 5000
    begun, end = times(hpckit)
    moments = np.concatenate([begun, end])
    steps = np.concatenate([np.ones(10000), -np.ones(10000)])
    at_once = np.cumsum(steps[np.lexsort((steps, moments))])
    assert at_once.max() == 1000


def test_tasks_that_never_await(hpckit):
    hpckit.job("from hpckit import farm\n@farm\nasync def f(n: int = 0):\n    return n\n")
    assert hpckit("run", "job.py", "n=range(5000)", "--workers", 3).code == 0
    assert results(hpckit)["result"].sum() == 4999 * 2500


def test_each_failure_is_its_own(hpckit):
    hpckit.job("""
        import asyncio, sys
        from hpckit import farm
        async def leave():
            sys.exit(3)
        @farm
        async def f(n: int = 0):
            await asyncio.sleep(0.001)
            if n == 3:
                raise ValueError("three")
            if n == 5:
                raise asyncio.CancelledError("by itself")
            if n == 7:
                asyncio.current_task().cancel()
                await asyncio.sleep(1)
            if n == 8:
                asyncio.current_task().cancel()
            if n == 9:
                sys.exit(4)
            if n == 11:
                await asyncio.create_task(leave())
            if n == 13:
                raise StopIteration
            if n == 15:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(1))
                    group.create_task(f.body(3))
            if n == 17:
                return {"result": object()}
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(60)", "--workers", 2)
    assert ended.code == 3
    told = errors(hpckit)
    assert set(told) == {3, 5, 7, 9, 11, 13, 15, 17}
    assert told[3] == "ValueError: three"
    assert told[5] == "asyncio.exceptions.CancelledError: by itself"
    assert told[7] == "asyncio.exceptions.CancelledError"
    assert told[9] == "SystemExit: 4"
    assert told[13] == "RuntimeError: coroutine raised StopIteration"
    assert "Traceback" not in ended.stderr


def test_a_time_limit(hpckit):
    hpckit.job("""
        import asyncio
        from hpckit import farm
        @farm(task_timeout="1s")
        async def f(n: int = 0):
            if n == 3:
                raise TimeoutError("of its own")
            await asyncio.sleep(3600 if n % 10 == 4 else 0.01)
            return n
    """)
    assert hpckit("run", "job.py", "n=range(50)", "--workers", 4).code == 3
    told = errors(hpckit)
    assert told.pop(3) == "TimeoutError: of its own"
    limit = "the task took longer than its time limit, 1 s"
    assert told == dict.fromkeys([4, 14, 24, 34, 44], limit)


def test_a_long_task_holds_nothing_back(hpckit):
    hpckit.job(ONE_LONG)
    driver = hpckit.start("run", "job.py", "n=range(1000)", "--workers", 8)
    segments = lambda: list((hpckit.last() / "segments").glob("w*.h5"))  # noqa: E731
    hpckit.until(lambda: hpckit.run_dirs() and segments(), "a segment is sealed")
    assert driver.poll() is None
    assert not (hpckit.directory / "finally").exists()
    assert kill(driver, 0).code == 0
    _, end = times(hpckit)
    assert end.argmax() == 3
    assert results(hpckit)["result"].sum() == 999 * 500
    # Given back while it ran, it was not begun again.
    begun = (hpckit.directory / "begun").read_text().split()
    assert sorted(map(int, begun)) == list(range(1000))


def test_lengths_of_all_kinds(hpckit):
    """Long tasks in each batch take lanes, and nothing else."""
    hpckit.job("""
        import asyncio
        from pathlib import Path
        from hpckit import farm
        @farm
        async def f(n: int = 0):
            with Path("begun").open("a") as stream:
                stream.write("x")
            await asyncio.sleep(1.5 if n % 40 == 0 else 0.02)
            return n
    """)
    assert hpckit("run", "job.py", "n=range(400)", "--workers", 12).code == 0
    assert results(hpckit)["result"].sum() == 399 * 200
    assert (hpckit.directory / "begun").read_text() == "x" * 400
    begun, end = times(hpckit)
    # With two lanes left for the short ones, all of these had ended before most long ones had.
    long = np.arange(400) % 40 == 0
    assert np.sort(end[~long])[360 // 2] < np.sort(end[long])[0]
    assert begun.max() < end[long].max()


def test_a_task_is_tried_again(hpckit):
    hpckit.job("""
        import asyncio
        from hpckit import farm
        tried = set()
        @farm(task_retries=1)
        async def f(n: int = 0):
            await asyncio.sleep(0.01)
            if n % 2 and n not in tried:
                tried.add(n)
                raise RuntimeError(f"first try of {n}")
            return n
    """)
    assert hpckit("run", "job.py", "n=range(60)", "--workers", 20).code == 0
    assert results(hpckit)["result"].sum() == 59 * 30
    with h5py.File(hpckit.last() / "results.h5") as file:
        np.testing.assert_array_equal(file["tasks/attempts"][()], 1 + np.arange(60) % 2)


def test_too_many_failures(hpckit):
    hpckit.job("""
        import asyncio
        from hpckit import farm
        @farm(max_failures=5)
        async def f(n: int = 0):
            await asyncio.sleep(0.05)
            raise RuntimeError("always")
    """)
    ended = hpckit("run", "job.py", "n=range(5000)", "--workers", 10)
    assert ended.code == 3
    assert hpckit.manifest().reason.endswith("tasks have failed, with max_failures = 5")
    assert hpckit.manifest().counts["missing"] > 0


@pytest.mark.parametrize("whom", ["group", "terminate"])
def test_interrupted(hpckit, whom):
    hpckit.job(ONE_LONG)
    driver = hpckit.start("run", "job.py", "n=range(300)", "--workers", 3)
    begun = hpckit.directory / "begun"
    hpckit.until(lambda: begun.exists() and len(begun.read_text().split()) > 60, "tasks are done")
    if whom == "group":
        os.killpg(driver.pid, signal.SIGINT)
        ended = kill(driver, 0)
    else:
        ended = kill(driver, signal.SIGTERM)
    assert ended.code == 130
    assert "Traceback" not in ended.stderr
    assert (hpckit.directory / "finally").exists()
    told = ended.stderr.strip().splitlines()
    # What had ended was sealed, so that only what ran, three at most, is begun again.
    sealed = int(told[-2].split()[2])
    assert len(begun.read_text().split()) - 3 <= sealed < 300
    assert told[-1] == f"go on with: hpckit resume {hpckit.last()}"
    finished_once(hpckit, 300)
    tasks = list(map(int, begun.read_text().split()))
    assert set(tasks) == set(range(300))
    assert len(tasks) <= 303


def test_killed(hpckit):
    hpckit.job(NAPS)
    assert hpckit("run", "job.py", "n=range(600)", "--workers", 4).code == 0
    undisturbed = hpckit.digest()
    driver = hpckit.start("run", "job.py", "n=range(600)", "--workers", 4)
    segments = lambda: list((hpckit.last() / "segments").glob("w*.h5"))  # noqa: E731
    hpckit.until(lambda: len(hpckit.run_dirs()) == 2 and segments(), "a segment is sealed")
    assert kill(driver).code == -signal.SIGKILL
    hpckit.assert_all_gone()
    assert finished_once(hpckit, 600) == undisturbed


def test_a_task_that_holds_the_loop_up_does_not_hold_an_interrupted_driver(hpckit):
    hpckit.job("""
        import asyncio, time
        from hpckit import farm
        @farm
        async def f(n: int = 0):
            await asyncio.sleep(0)
            if n == 50:
                print("here", flush=True)
                time.sleep(3600)
            return n
    """)
    driver = hpckit.start("run", "job.py", "n=range(60)", "--workers", 2)
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task is at its sleep")
    ended = kill(driver, signal.SIGINT)
    assert ended.code == 130
    assert int(ended.stderr.strip().splitlines()[-2].split()[2]) >= 48
    hpckit.assert_all_gone()


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_other_engines_refuse_coroutines(hpckit, engine):
    hpckit.job(NAPS)
    ended = hpckit("run", "job.py", "--engine", engine)
    assert ended.code == 2
    assert ended.stderr == (
        "hpckit: nap is an async def, whose tasks wait together on one event loop: the engine "
        f"{engine} has none; take --engine asyncio\n"
    )
    assert not hpckit.run_dirs()


PLAIN = """
    import threading
    from hpckit import farm
    @farm
    def f(task, n: int = 0):
        print("in", threading.current_thread() is threading.main_thread())
        if n == 3:
            raise StopIteration("three")
        return {"x": task.rng.random(), "n2": n * n, "text": str(n)}
"""


def test_a_plain_function_works_in_threads(hpckit):
    hpckit.job(PLAIN)
    for engine in (["serial"], ["asyncio", "--workers", 3]):
        ended = hpckit("run", "job.py", "n=range(30)", "--engine", *engine)
        assert ended.code == 3, ended.stderr
    assert "[5] in False" in hpckit.logs().splitlines()
    first, second = hpckit.run_dirs()
    assert hpckit.digest(first) == hpckit.digest(second)
    ended = hpckit("run", "job.py", "--engine", "asyncio", "--task-timeout", "1s")
    assert ended.code == 2
    assert ended.stderr.startswith("hpckit: --task-timeout: the engine asyncio cannot end a task")


def test_prints_bear_the_index(hpckit):
    hpckit.job("""
        import asyncio, sys
        from hpckit import farm
        async def fails():
            raise ValueError("nobody asks")
        @farm
        async def f(task, n: int = 0):
            print("begin", n, end="")
            await asyncio.sleep(0.01)
            print(" and end", n)
            print("err", n, file=sys.stderr)
            if n == 0:
                asyncio.create_task(fails())
            await asyncio.sleep(0.01)
            print("open", n, end="")
    """)
    ended = hpckit("run", "job.py", "n=range(20)", "--workers", 6)
    assert ended.code == 0
    assert "nobody asks" not in ended.stderr
    lines = hpckit.logs().splitlines()
    for n in range(20):
        expected = {f"[{n}] begin {n} and end {n}", f"[{n}] err {n}", f"[{n}] open {n}"}
        assert expected <= set(lines)
    assert "ValueError: nobody asks" in lines


STUBBORN = """
    import asyncio, time
    from hpckit import farm
    @farm
    async def f(n: int = 0):
        if n == 1:
            time.sleep(4)
        while n == 2:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                n += asyncio.get_running_loop().is_closed()
        return n
"""


def test_a_task_that_ignores_its_cancellation_is_let_go(hpckit):
    engine, spec = engine_on(hpckit, STUBBORN, workers=1)
    stuck = engine.submit(run_batch, spec, [2], 1)
    behind = engine.submit(run_batch, spec, [5], 1)
    time.sleep(0.1)
    engine.abandon(stuck)
    with pytest.raises(WorkerDied, match="went on although it was cancelled"):
        stuck.result(10)
    assert behind.result(10).block.task.tolist() == [5]
    engine.kill()


def test_a_loop_that_is_held_up_is_let_go(hpckit):
    engine, spec = engine_on(hpckit, STUBBORN)
    stuck = engine.submit(run_batch, spec, range(2), 1)
    time.sleep(0.1)
    engine.abandon(stuck)
    with pytest.raises(BrokenExecutor, match="held up the event loop"):
        stuck.result(10)
    assert "held up the event loop" in engine.death()
    with pytest.raises(BrokenExecutor, match="held up"):
        engine.submit(run_batch, spec, [4], 1)
    engine.shutdown()


def test_it_calls_run_batch_alone(hpckit):
    engine, _ = engine_on(hpckit, STUBBORN)
    with pytest.raises(TypeError, match="calls run_batch alone"):
        engine.submit(print, 1)
    engine.close()
