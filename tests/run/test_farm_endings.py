"""Farms that are killed, interrupted, taken up again, or worked on twice."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import h5py
import numpy as np
import pytest
from endings import kill

NAPS = """
    import time
    from hpckit import farm

    @farm(seed=7)
    def nap(task, n: int = 0, ms: float = 10.0):
        time.sleep(ms / 1000)
        return {"x": task.rng.random(), "square": n * n, "text": f"task {n}"}
"""
SWEEP = ["n=range(400)", "ms=10"]

STUCK = """
    import threading, time
    from hpckit import farm

    @farm
    def stuck(n: int = 0):
        if n >= 5:
            print("here", flush=True)
            time.sleep(3600)
        return n
"""

ALL_ENGINES = pytest.mark.parametrize("engine", ["serial", "threads", "processes"])


def on(engine):
    """Return the options that choose an engine, with two workers where it can have them."""
    return ["--engine", engine, *([] if engine == "serial" else ["--workers", 2])]


def finished(hpckit, run=None):
    """Resume a run to its end, check that each task stands once, and return the digest."""
    run = run or hpckit.last()
    ended = hpckit("resume", run)
    assert ended.code == 0, ended.stderr
    manifest = hpckit.manifest(run)
    assert manifest.state == "completed"
    with h5py.File(run / "results.h5") as file:
        assert (file["task_state"][()] == 1).all()
        if "square" in file:
            np.testing.assert_array_equal(file["square"][()], file["n"][()] ** 2)
    assert not list((run / "segments").iterdir())
    assert not list(run.glob("*.tmp"))
    return hpckit.digest(run)


def has_begun(hpckit):
    """Tell whether a driver has written its first manifest and is at work."""
    return hpckit.run_dirs() and (hpckit.last() / "progress.json").exists()


@pytest.mark.timeout(3600)
def test_killed_at_random_moments(hpckit, moments):
    hpckit.job(NAPS)
    assert hpckit("run", "job.py", *SWEEP, "--workers", 2).code == 0
    undisturbed = hpckit.digest()
    generator = random.Random(20261124)
    hits = 0
    for runs in range(1, moments + 1):
        driver = hpckit.start("run", "job.py", *SWEEP, "--workers", 2)
        # Of one that is killed earlier there is nothing to resume.
        hpckit.until(
            lambda: len(hpckit.run_dirs()) > runs and (hpckit.last() / "run.json").exists(),  # noqa: B023
            "the run is there",
        )
        time.sleep(generator.uniform(0, 2.5))
        code = kill(driver).code
        hpckit.assert_all_gone()
        assert code in (0, -signal.SIGKILL)
        hits += code != 0
        assert finished(hpckit) == undisturbed
    assert hits > moments // 2


def test_a_sealed_segment_is_never_written_again(hpckit):
    """Merging may replace it as a whole; its own bytes stay as they were sealed."""
    hpckit.job(NAPS)
    driver = hpckit.start("run", "job.py", *SWEEP, "--workers", 2)
    segments = lambda: list((hpckit.last() / "segments").glob("w*.h5"))  # noqa: E731
    hpckit.until(lambda: hpckit.run_dirs() and segments(), "a segment is sealed")
    kill(driver)
    hpckit.assert_all_gone()
    sealed = {path: (path.stat().st_ino, path.read_bytes()) for path in segments()}
    for number, path in enumerate(sealed):
        # What is written in place shows in its second name too, even once the first is gone.
        (hpckit.directory / f"second-{number}").hardlink_to(path)
    driver = hpckit.start("resume", "last")
    while driver.poll() is None:
        for path, (inode, _) in sealed.items():
            with suppress(FileNotFoundError):
                assert path.stat().st_ino == inode
        time.sleep(0.01)
    assert kill(driver, 0).code == 0
    for number, (_, content) in enumerate(sealed.values()):
        assert (hpckit.directory / f"second-{number}").read_bytes() == content


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_what_tasks_have_started_ends_with_the_driver(hpckit, signum):
    hpckit.job("""
        import subprocess
        from hpckit import farm
        @farm
        def f(n: int = 0):
            print("here", flush=True)
            subprocess.run(["sleep", "3600"])
    """)
    driver = hpckit.start("run", "job.py", "n=range(9)", "--workers", 2)
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task is at its sleep")
    kill(driver, signum)
    hpckit.assert_all_gone()


def test_killed_again_and_again(hpckit):
    hpckit.job(NAPS)
    assert hpckit("run", "job.py", *SWEEP, "--workers", 2).code == 0
    undisturbed = hpckit.digest()
    driver = hpckit.start("run", "job.py", *SWEEP, "--workers", 2)
    hpckit.until(lambda: len(hpckit.run_dirs()) == 2 and has_begun(hpckit), "the run has begun")
    time.sleep(0.5)
    kill(driver)
    run = hpckit.last()
    for pause in (0.7, 1.1, 1.5):
        driver = hpckit.start("resume", run)
        time.sleep(pause)
        kill(driver)
    assert finished(hpckit, run) == undisturbed
    assert hpckit.manifest(run).sessions >= 2


@ALL_ENGINES
@pytest.mark.parametrize("whom", ["group", "driver", "terminate"])
def test_interrupted(hpckit, engine, whom):
    hpckit.job(NAPS)
    driver = hpckit.start("run", "job.py", "n=range(200)", "ms=10", *on(engine))
    hpckit.until(lambda: has_begun(hpckit), "the run has begun")
    time.sleep(0.3)
    if whom == "group":
        os.killpg(driver.pid, signal.SIGINT)
        ended = kill(driver, 0)
    else:
        ended = kill(driver, signal.SIGINT if whom == "driver" else signal.SIGTERM)
    assert ended.code == 130
    run = hpckit.last()
    told = ended.stderr.strip().splitlines()
    assert told[-2].startswith("hpckit: interrupted: ")
    assert told[-2].endswith(f" of 200 tasks are sealed in {run}")
    assert int(told[-2].split()[2]) > 0
    assert told[-1] == f"go on with: hpckit resume {run}"
    assert "Traceback" not in ended.stderr
    assert list((run / "segments").iterdir())
    assert hpckit.manifest(run).state == "interrupted"
    hpckit.assert_all_gone()
    finished(hpckit, run)


@ALL_ENGINES
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_long_task_does_not_hold_an_interrupted_driver(hpckit, engine, signum):
    hpckit.job(STUCK)
    driver = hpckit.start("run", "job.py", "n=range(9)", *on(engine))
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task is at its sleep")
    time.sleep(1.5)
    ended = kill(driver, signum)
    assert ended.code == 130
    assert f"go on with: hpckit resume {hpckit.last()}" in ended.stderr
    assert "Traceback" not in ended.stderr
    hpckit.assert_all_gone()
    hpckit.job(STUCK)


def test_ctrl_c_twice(hpckit):
    hpckit.job(NAPS)
    driver = hpckit.start("run", "job.py", "n=range(200)", "ms=20", "--workers", 2)
    hpckit.until(lambda: has_begun(hpckit), "the run has begun")
    for _ in range(4):
        os.killpg(driver.pid, signal.SIGINT)
    ended = kill(driver, 0)
    assert ended.code == 130
    assert "Traceback" not in ended.stderr
    hpckit.assert_all_gone()
    finished(hpckit)


def test_interrupted_by_a_terminal_that_closes(hpckit):
    hpckit.job(NAPS)
    driver = hpckit.start("run", "job.py", "n=range(200)", "ms=10", "--workers", 2)
    hpckit.until(lambda: has_begun(hpckit), "the run has begun")
    os.killpg(driver.pid, signal.SIGHUP)
    kill(driver, 0)
    hpckit.assert_all_gone()
    finished(hpckit)


def test_two_drivers_on_one_run(hpckit):
    hpckit.job(NAPS)
    driver = hpckit.start("run", "job.py", "n=range(200)", "ms=20", "--workers", 1)
    hpckit.until(lambda: has_begun(hpckit), "the run has begun")
    before = (hpckit.last() / "run.json").read_bytes()
    second = hpckit("resume", "last")
    assert second.code == 2
    assert second.stderr == (
        f"hpckit: {hpckit.last()}: another process works on this run: wait for it or end it\n"
    )
    assert (hpckit.last() / "run.json").read_bytes() == before
    stdout, _ = driver.communicate()
    assert driver.returncode == 0
    assert "200 tasks done" in stdout


def test_resume_on_another_engine(hpckit):
    hpckit.job(NAPS)
    assert hpckit("run", "job.py", "n=range(100)", "--engine", "serial").code == 0
    undisturbed = hpckit.digest()
    driver = hpckit.start("run", "job.py", "n=range(100)", "--workers", 2)
    hpckit.until(lambda: has_begun(hpckit), "the run has begun")
    kill(driver)
    ended = hpckit("resume", "last", "--engine", "threads", "--workers", 3)
    assert ended.code == 0, ended.stderr
    assert hpckit.manifest().engine == "threads"
    assert hpckit.digest() == undisturbed


def test_resume_of_a_complete_run(hpckit):
    hpckit.job(NAPS)
    assert hpckit("run", "job.py").code == 0
    before = (hpckit.last() / "results.h5").read_bytes()
    ended = hpckit("resume", "last")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout == f"{hpckit.last().name}: is complete, nothing is missing\n"
    assert (hpckit.last() / "results.h5").read_bytes() == before


def test_resume_uses_the_copy_of_the_job(hpckit):
    job = hpckit.job("""
        import time
        from pathlib import Path
        from hpckit import farm
        @farm
        def stuck(n: int = 0):
            print("here", flush=True)
            while not Path("go").exists():
                time.sleep(0.05)
            return {"square": n * n}
    """)
    driver = hpckit.start("run", "job.py", "n=range(9)", "--workers", 1)
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task waits")
    kill(driver)
    job.write_text("raise SystemExit('not this one')")
    (hpckit.directory / "go").touch()
    finished(hpckit)


def test_a_damaged_segment_is_done_again(hpckit):
    hpckit.job(NAPS)
    assert hpckit("run", "job.py", "n=range(200)", "--workers", 2).code == 0
    undisturbed = hpckit.digest()
    driver = hpckit.start("run", "job.py", "n=range(200)", "--workers", 2)
    segments = lambda: list((hpckit.last() / "segments").glob("w*.h5"))  # noqa: E731
    hpckit.until(lambda: len(hpckit.run_dirs()) == 2 and segments(), "a segment is sealed")
    kill(driver)
    path = segments()[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    ended = hpckit("resume", "last")
    assert ended.code == 0, ended.stderr
    assert hpckit.digest() == undisturbed
