"""Farms on MPI ranks."""

from __future__ import annotations

import os
import signal

import h5py
import psutil
import pytest
from endings import kill

from hpckit.errors import LaunchError
from hpckit.run.engines import Workplace, engine_class

NAPS = """
    import os, time
    from hpckit import farm

    @farm(seed=7)
    def nap(task, n: int = 0, ms: float = 5.0):
        print("nap", n)
        os.write(2, f"low {n}\\n".encode())
        time.sleep(ms / 1000)
        return {"x": task.rng.random(), "square": n * n, "ragged": list(range(n % 4))}
"""
STUCK = """
    import subprocess
    from hpckit import farm

    @farm
    def stuck(n: int = 0):
        if n >= 5:
            print("here", flush=True)
            subprocess.run(["sleep", "3600"])
        return n
"""
MPI = ["--engine", "mpi", "--workers", 2]


def undisturbed(hpckit, *sweep):
    """Return the digest that all other ways have to give."""
    assert hpckit("run", "job.py", *sweep, "--engine", "serial").code == 0
    return hpckit.digest()


def has_done(hpckit, runs=1):
    """Tell whether the newest run has done tasks."""
    return len(hpckit.run_dirs()) == runs and hpckit.logs().count("nap") > 5


def rank_pids(hpckit):
    return [int(path.stem.rpartition("-")[2]) for path in (hpckit.last() / "logs").iterdir()]


def family(process):
    """Return what a driver has started, and what that has."""
    return psutil.Process(process.pid).children(recursive=True)


def test_results_and_prints(hpckit):
    hpckit.job(NAPS)
    same = undisturbed(hpckit, "n=range(60)")
    ended = hpckit("run", "job.py", "n=range(60)", *MPI)
    assert (ended.code, ended.stderr) == (0, "")
    assert hpckit.digest() == same
    assert hpckit.manifest().engine == "mpi"
    lines = hpckit.logs().splitlines()
    assert sorted(lines) == sorted(
        line for n in range(60) for line in (f"[{n}] nap {n}", f"[{n}] low {n}")
    )


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), 9)", "os._exit(3)", "os.abort()"])
def test_a_task_that_takes_its_rank_down_fails_alone(hpckit, death):
    hpckit.job(f"""
        import os
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n == 33:
                {death}
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(60)", *MPI)
    assert ended.code == 3
    assert "task 33 failed: " in ended.stderr
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["task_state"][()].tolist() == [2 if n == 33 else 1 for n in range(60)]


def test_a_rank_is_killed_from_outside(hpckit):
    hpckit.job(NAPS)
    same = undisturbed(hpckit, "n=range(600)")
    driver = hpckit.start("run", "job.py", "n=range(600)", *MPI)
    hpckit.until(lambda: has_done(hpckit, 2), "tasks are done")
    os.kill(rank_pids(hpckit)[0], signal.SIGKILL)
    _, stderr = driver.communicate(timeout=120)
    assert driver.returncode == 0, stderr
    assert hpckit.digest() == same


def test_the_driver_is_killed(hpckit):
    hpckit.job(NAPS)
    same = undisturbed(hpckit, "n=range(600)")
    driver = hpckit.start("run", "job.py", "n=range(600)", *MPI)
    hpckit.until(lambda: has_done(hpckit, 2), "tasks are done")
    others = family(driver)
    assert len(others) >= 4
    kill(driver, signal.SIGKILL)
    hpckit.until(lambda: not any(p.is_running() for p in others), "all have ended")
    assert hpckit("resume", hpckit.last()).code == 0
    assert hpckit.digest() == same


def test_ctrl_c(hpckit):
    hpckit.job(NAPS)
    same = undisturbed(hpckit, "n=range(600)")
    driver = hpckit.start("run", "job.py", "n=range(600)", *MPI)
    hpckit.until(lambda: has_done(hpckit, 2), "tasks are done")
    others = family(driver)
    os.killpg(driver.pid, signal.SIGINT)
    ended = kill(driver, 0)
    assert ended.code == 130
    assert "hpckit: interrupted: " in ended.stderr
    hpckit.until(lambda: not any(p.is_running() for p in others), "all have ended")
    assert hpckit("resume", hpckit.last(), "--engine", "processes").code == 0
    assert hpckit.digest() == same


def test_what_tasks_have_started_ends_too(hpckit):
    hpckit.job(STUCK)
    driver = hpckit.start("run", "job.py", "n=range(8)", *MPI)
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task is stuck")
    others = family(driver)
    assert any(p.name() == "sleep" for p in others)
    kill(driver, signal.SIGINT)
    hpckit.until(lambda: not any(p.is_running() for p in others), "all have ended")


def test_a_task_over_its_time_fails_alone(hpckit):
    hpckit.job("""
        import time
        from hpckit import farm
        @farm(task_timeout="1s")
        def f(n: int = 0):
            time.sleep(3600 if n == 3 else 0)
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(8)", *MPI)
    assert ended.code == 3
    assert "task 3 failed: the task took longer than its time limit, 1 s" in ended.stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo no such fabric >&2; exit 7", "no such fabric"), ("true", "mpiexec and mpi4py")],
)
def test_ranks_that_do_not_start(tmp_path, script, said):
    broken = tmp_path / "mpiexec"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    place = Workplace(1, tmp_path / "worker-{pid}.log", launcher=(str(broken), "-n", "2"))
    engine = engine_class("mpi")(place)
    try:
        with pytest.raises(LaunchError, match=f"the MPI ranks did not start(.|\n)*{said}"):
            engine.submit(abs, -1).result(timeout=60)
    finally:
        engine.kill()


def test_a_launcher_that_is_not_there(tmp_path):
    place = Workplace(1, tmp_path / "worker-{pid}.log", launcher=(str(tmp_path / "no"), "-n", "2"))
    engine = engine_class("mpi")(place)
    with pytest.raises(LaunchError, match=r"no: does not start: .*No such file"):
        engine.submit(abs, -1).result(timeout=60)
    engine.kill()
