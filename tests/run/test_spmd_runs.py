"""Programs of N ranks: started, ended, killed, interrupted and taken up again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from endings import kill

pytest.importorskip("mpi4py")

FLOW = """
    import numpy as np
    from hpckit import spmd

    @spmd(ntasks=2)
    def flow(run, n: int = 12):
        assert run.params == {"n": n}
        rows = np.array_split(np.arange(n), run.size)[run.rank]
        u = np.arange(n * 3.0).reshape(n, 3)[rows]
        run.save("u", u, offset=(rows[0], 0), shape=(n, 3), dims=("y", "x"), units="m")
        run.save("y", np.arange(n) * 0.5, dims=("y",))
        run.save("draws", run.rng.random(2)[None], offset=(run.rank, 0), shape=(run.size, 2))
        for step in range(3):
            run.record("residual", 1 / (step + 1))
        run.record("sparse", 7.0, step=2)
        run.progress(n, n)
        run.log(f"rank {run.rank} of {run.size}")
"""

WALK = """
    import time
    import numpy as np
    from hpckit import spmd

    @spmd(ntasks=2, seed=3)
    def walk(run, steps: int = 60, ms: float = 10.0):
        state = run.restore() or {"step": -1, "x": np.zeros(4)}
        x = state["x"]
        for step in range(state["step"] + 1, steps):
            x = x + run.rng.standard_normal(4)
            run.record("total", run.comm.allreduce(float(x.sum())), step=step)
            time.sleep(ms / 1000)
            run.progress(step + 1, steps)
            if step % 5 == 4:
                run.checkpoint(step=step, x=x)
        run.save("x", x[None], offset=(run.rank, 0), shape=(run.size, 4))
"""

OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
}


def mpiexec(hpckit, ranks, *arguments):
    """Launch `hpckit exec` by hand."""
    program = Path(sys.executable).with_name("mpiexec")
    argv = [str(program), "-n", str(ranks), sys.executable, "-m", "hpckit", "exec", *arguments]
    process = hpckit.popen(argv, env=OPEN_MPI)
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def check_flow(hpckit, ranks):
    with h5py.File(hpckit.last() / "results.h5") as file:
        np.testing.assert_array_equal(file["u"][()], np.arange(36.0).reshape(12, 3))
        assert file["u"].attrs["units"] == "m"
        np.testing.assert_array_equal(file["y"][()], np.arange(12) * 0.5)
        expected = [
            np.random.Generator(
                np.random.PCG64(np.random.SeedSequence(0, spawn_key=(rank,)))
            ).random(2)
            for rank in range(ranks)
        ]
        np.testing.assert_array_equal(file["draws"][()], expected)
        np.testing.assert_array_equal(file["step"][()], [0, 1, 2])
        np.testing.assert_array_equal(file["residual"][()], [1, 1 / 2, 1 / 3])
        np.testing.assert_array_equal(file["sparse"][()], [np.nan, np.nan, 7])
    for rank in range(ranks):
        log = hpckit.last() / "logs" / f"rank-{rank:05d}.log"
        assert log.read_text().splitlines()[0] == f"rank {rank} of {ranks}"
    manifest = hpckit.manifest()
    assert (manifest.state, manifest.ranks) == ("completed", ranks)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_run(hpckit, ranks):
    hpckit.job(FLOW)
    ended = hpckit("run", "job.py", "--ranks", ranks)
    assert ended.code == 0, ended.stderr
    first, done, where = ended.stdout.splitlines()
    assert first == f"rank 0 of {ranks}"
    assert f": {ranks} rank{'s' * (ranks > 1)} done in " in done
    assert where == f"results: runs/{hpckit.last().name}/results.h5"
    check_flow(hpckit, ranks)
    hpckit.assert_all_gone()


@pytest.mark.parametrize("ranks", [1, 3])
def test_exec_by_hand(hpckit, ranks):
    hpckit.job(FLOW)
    code, stdout, stderr = mpiexec(hpckit, ranks, "job.py", "n=12")
    assert code == 0, stderr
    assert stdout.splitlines()[-1] == f"results: {hpckit.last()}/results.h5"
    assert len(hpckit.run_dirs()) == 1
    check_flow(hpckit, ranks)


def test_exec_without_a_launcher_is_one_rank(hpckit):
    hpckit.job(FLOW)
    assert hpckit("exec", "job.py").code == 0
    check_flow(hpckit, 1)


FAILING = """
    import sys, time
    from hpckit import spmd

    @spmd(ntasks=3)
    def flow(run):
        print("at work", flush=True)
        run.comm.Barrier()
        if run.rank == 2:
            {line}
        run.comm.Barrier()
        time.sleep(3600)
"""


@pytest.mark.parametrize(
    ("line", "last"),
    [
        ("raise ValueError('of rank two')", "ValueError: of rank two"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("run.save('a/b', [1])", "FieldError"),
    ],
)
def test_a_rank_that_raises_ends_all(hpckit, line, last):
    job = hpckit.job(FAILING.format(line=line))
    ended = hpckit("run", "job.py")
    assert ended.code == 1, ended
    assert ended.stdout == "at work\n"
    lines = ended.stderr.splitlines()
    if last != "FieldError":
        assert lines[0] == f"{hpckit.last().name}: rank 2 failed:"
        assert lines[1] == "Traceback (most recent call last):"
        assert lines[2] == f'  File "{job}", line 10, in flow'
        assert lines[-1] == last
    assert hpckit.manifest().state == "failed"
    assert hpckit.manifest().reason.endswith(lines[-1].removeprefix("hpckit: "))
    hpckit.assert_all_gone()
    job.write_text("broken(")
    again = hpckit("resume", "last")
    assert again.code == 1


def test_a_rank_that_dies_without_a_word(hpckit):
    hpckit.job(FAILING.format(line="import os; os._exit(9)"))
    ended = hpckit("run", "job.py")
    assert ended.code == 1
    assert "left no reason; the launcher's last words:" in ended.stderr.splitlines()[0]
    assert "Traceback" not in ended.stderr
    hpckit.assert_all_gone()


def test_a_rank_that_raises_under_a_launch_by_hand(hpckit):
    hpckit.job(FAILING.format(line="raise ValueError('of rank two')"))
    code, _, stderr = mpiexec(hpckit, 3, "job.py")
    assert code == 1
    assert "ValueError: of rank two\n" in stderr
    hpckit.assert_all_gone()


def test_a_farm_is_refused_under_a_launch_by_hand(hpckit):
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return n\n")
    code, _, stderr = mpiexec(hpckit, 2, "job.py")
    assert code == 2
    assert "hpckit: a launcher started 2 copies of this command" in stderr
    assert hpckit.run_dirs() == []
    assert not hpckit.run_dirs()


def test_bad_parameters_under_a_launch_by_hand_leave_nothing(hpckit):
    hpckit.job(FLOW)
    code, _, stderr = mpiexec(hpckit, 2, "job.py", "q=1")
    assert code == 2
    assert "q: unknown parameter" in stderr
    assert "Traceback" not in stderr
    assert not hpckit.run_dirs()


def test_singletons_are_refused(hpckit):
    hpckit.job(FLOW)
    ended = hpckit("exec", "job.py", env={"HPCKIT_NTASKS": "4"})
    assert ended.code == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("hpckit: 4 ranks were launched, but MPI counts 1: ")
    assert "Use the mpiexec that belongs to it" in line
    assert not hpckit.run_dirs()


def finished(hpckit, run, *options):
    ended = hpckit("resume", run, *options)
    assert ended.code == 0, ended.stderr
    assert hpckit.manifest(run).state == "completed"
    assert not list(run.glob(".*.tmp"))
    assert not (run / "checkpoint").exists()
    return hpckit.digest(run)


def at_work(hpckit):
    run = hpckit.run_dirs() and hpckit.last()
    return run and (run / "checkpoint" / "latest.json").exists()


@pytest.mark.timeout(3600)
def test_killed_and_taken_up_again(hpckit, moments):
    hpckit.job(WALK)
    assert hpckit("run", "job.py").code == 0
    undisturbed = hpckit.digest()
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["total"].shape == (60,)
    generator = random.Random(20261124)
    for _ in range(max(moments // 3, 3)):
        there = len(hpckit.run_dirs())
        driver = hpckit.start("run", "job.py")
        hpckit.until(lambda n=there: len(hpckit.run_dirs()) > n and at_work(hpckit), "checkpoint")
        time.sleep(generator.uniform(0, 0.4))
        kill(driver)
        # At once: the ranks of the killed driver may still be ending.
        assert finished(hpckit, hpckit.last()) == undisturbed
        hpckit.assert_all_gone()


@pytest.mark.parametrize("whom", ["group", "driver", "terminate"])
def test_interrupted(hpckit, whom):
    hpckit.job(WALK)
    driver = hpckit.start("run", "job.py", "ms=20")
    hpckit.until(lambda: at_work(hpckit), "a checkpoint")
    if whom == "group":
        os.killpg(driver.pid, signal.SIGINT)
        ended = kill(driver, 0)
    else:
        ended = kill(driver, signal.SIGINT if whom == "driver" else signal.SIGTERM)
    assert ended.code == 130
    run = hpckit.last()
    assert ended.stderr.strip().splitlines() == [
        "hpckit: interrupted",
        f"go on from its last checkpoint with: hpckit resume {run}",
    ]
    hpckit.assert_all_gone()
    assert hpckit.manifest(run).state == "interrupted"
    finished(hpckit, run)


def test_resume_with_other_ranks_is_refused(hpckit):
    hpckit.job(WALK)
    driver = hpckit.start("run", "job.py")
    hpckit.until(lambda: at_work(hpckit), "a checkpoint")
    kill(driver, signal.SIGINT)
    refused = hpckit("resume", "last", "--ranks", 3)
    assert refused.code == 2
    (line,) = refused.stderr.splitlines()
    assert "was written by 2 ranks, these are 3: resume with --ranks 2" in line
    finished(hpckit, hpckit.last(), "--ranks", 2)


def test_two_drivers_on_one_run(hpckit):
    hpckit.job(WALK)
    driver = hpckit.start("run", "job.py", "ms=30")
    hpckit.until(lambda: at_work(hpckit), "a checkpoint")
    second = hpckit("resume", "last")
    assert second.code == 2
    assert second.stderr.endswith("another process works on this run: wait for it or end it\n")
    assert len(second.stderr.splitlines()) == 1
    driver.communicate()
    assert driver.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk(hpckit):
    hpckit.job("""
        import numpy as np
        from hpckit import spmd

        @spmd(ntasks=2)
        def big(run, n: int = 1_000_000):
            run.save("u", run.rng.random((1, n)), offset=(run.rank, 0), shape=(run.size, n))
    """)
    assert hpckit("run", "job.py", "--output", "elsewhere").code == 0
    (elsewhere,) = (hpckit.directory / "elsewhere").iterdir()
    hpckit.runs.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(hpckit.runs), "-o"]
    done = subprocess.run([*mount, "size=4m"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        ended = hpckit("run", "job.py")
        assert ended.code == 1
        (line,) = ended.stderr.splitlines()
        assert "no space left" in line
        hpckit.assert_all_gone()
        subprocess.run([*mount, "remount,size=100m"], check=True)
        assert hpckit("resume", "last").code == 0
        assert hpckit.digest() == hpckit.digest(elsewhere)
    finally:
        subprocess.run(["umount", "-l", hpckit.runs], check=True)
