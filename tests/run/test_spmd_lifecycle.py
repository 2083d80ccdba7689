"""What becomes of an spmd run and its directory when something comes in between."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from endings import PATIENCE, kill

pytest.importorskip("mpi4py")

MPIEXEC = Path(sys.executable).with_name("mpiexec")
BY_HAND = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
}

DIVERGES = """
    from hpckit import spmd
    from hpckit.errors import UsageError

    @spmd(ntasks=2)
    def flow(run, n: int = 1, late: bool = True):
        if not late:
            raise UsageError("n=1 is too small")
        run.checkpoint(step=1, x=1.0)
        raise UsageError("the flow diverged")
"""

WAITING = """
    import time
    from hpckit import spmd

    @spmd(ntasks=2)
    def wait(run, seconds: float = 60.0):
        run.checkpoint(step=1, x=1.0)
        run.comm.Barrier()
        for _ in range(int(seconds * 100)):
            time.sleep(0.01)
        run.save("x", [1.0])
"""

QUICK = """
    from hpckit import spmd

    @spmd(ntasks=2)
    def quick(run):
        run.save("rank", [run.rank], offset=(run.rank,), shape=(run.size,))
"""


def by_hand(hpckit, ranks, *arguments):
    """Start hpckit under a launcher of the user's own."""
    argv = [str(MPIEXEC), "-n", str(ranks), sys.executable, "-m", "hpckit", *arguments]
    return hpckit.popen(argv, env=BY_HAND)


def has_checkpoint(hpckit):
    return hpckit.run_dirs() and (hpckit.last() / "checkpoint" / "latest.json").exists()


def test_an_error_after_work_keeps_the_run(hpckit):
    hpckit.job(DIVERGES)
    ended = hpckit("run", "job.py")
    assert (ended.code, ended.stderr) == (1, "hpckit: the flow diverged\n")
    assert has_checkpoint(hpckit)
    assert hpckit.manifest().state == "failed"


def test_a_refusal_before_work_leaves_nothing(hpckit):
    hpckit.job(DIVERGES)
    ended = hpckit("run", "job.py", "late=false")
    assert (ended.code, ended.stderr) == (2, "hpckit: n=1 is too small\n")
    assert hpckit.run_dirs() == []


@pytest.mark.parametrize("variables", [{}, {"HPCKIT_NTASKS": "1"}])
def test_exec_of_an_ended_run_is_refused(hpckit, variables):
    hpckit.job(QUICK)
    assert hpckit("run", "job.py").code == 0
    before = (hpckit.last() / "results.h5").read_bytes()
    ended = hpckit("exec", hpckit.last(), env=variables)
    assert ended.code == 2
    assert "is for the ranks that hpckit itself launches" in ended.stderr
    assert (hpckit.last() / "results.h5").read_bytes() == before
    assert hpckit.manifest().state == "completed"


def test_exec_of_a_farms_run_is_refused(hpckit):
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return n\n")
    assert hpckit("run", "job.py", "n=range(3)").code == 0
    before = hpckit.digest()
    ended = hpckit("exec", hpckit.last())
    assert ended.code == 2
    assert len(ended.stderr.splitlines()) == 1
    assert hpckit.digest() == before


@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_run_under_way_is_left_alone(hpckit, command):
    hpckit.job(WAITING)
    if command == "run":
        driver = hpckit.start("run", "job.py")
    else:
        driver = by_hand(hpckit, 2, "exec", "job.py")
    hpckit.until(lambda: has_checkpoint(hpckit), "a checkpoint")
    second = hpckit("resume", "last")
    assert second.code == 2
    assert "another process works on this run" in second.stderr
    assert has_checkpoint(hpckit)
    kill(driver, signal.SIGINT)


@pytest.mark.parametrize("command", ["run", "rerun", "resume"])
def test_copies_under_a_launcher_are_refused(hpckit, command):
    hpckit.job(QUICK)
    assert hpckit("run", "job.py").code == 0
    there = hpckit.run_dirs()
    process = by_hand(hpckit, 2, command, "job.py" if command == "run" else "last")
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "a launcher started 2 copies of this command" in stderr
    assert hpckit.run_dirs() == there


def test_an_interrupt_after_the_end_changes_nothing(hpckit):
    hpckit.job(QUICK + "\n    import atexit, time\n    atexit.register(time.sleep, 6)\n")
    driver = hpckit.start("run", "job.py")
    hpckit.until(lambda: list(hpckit.runs.glob("*/run.json")), "a run")
    hpckit.until(lambda: hpckit.manifest().state == "completed", "the run's end")
    ended = kill(driver, signal.SIGINT)
    assert ended.code == 0, ended.stderr
    assert hpckit.manifest().state == "completed"
    again = hpckit("resume", "last")
    assert again.stdout.endswith("is complete, nothing is missing\n")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_rank_by_hand_that_is_ended_says_how_to_go_on(hpckit, signum):
    hpckit.job(WAITING)
    rank = hpckit.start("exec", "job.py")
    hpckit.until(lambda: has_checkpoint(hpckit), "a checkpoint")
    ended = kill(rank, signum)
    hint = f"hpckit: interrupted; go on with: hpckit resume {hpckit.last()}\n"
    assert (ended.code, ended.stderr) == (130, hint)
    assert hpckit.manifest().state == "interrupted"


def test_ranks_by_hand_that_are_ended_are_recorded(hpckit):
    hpckit.job(WAITING)
    launcher = by_hand(hpckit, 2, "exec", "job.py")
    hpckit.until(lambda: has_checkpoint(hpckit), "a checkpoint")
    ended = kill(launcher, signal.SIGTERM)
    assert "Traceback" not in ended.stderr
    hpckit.assert_all_gone()
    assert hpckit.manifest().state == "interrupted"


def test_a_rank_by_hand_that_raises_is_recorded(hpckit):
    hpckit.job(QUICK.replace("run.save(", "1 / (run.rank - 1)\n        run.save("))
    process = by_hand(hpckit, 2, "exec", "job.py")
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert stderr.count("Traceback (most recent call last)") == 1
    manifest = hpckit.manifest()
    assert manifest.state == "failed"
    assert manifest.reason.startswith("ZeroDivisionError")


def test_a_refused_resume_leaves_the_run_as_it_was(hpckit):
    hpckit.job(WAITING.replace("run.checkpoint", "run.restore() or run.checkpoint"))
    driver = hpckit.start("run", "job.py", "seconds=1")
    hpckit.until(lambda: has_checkpoint(hpckit), "a checkpoint")
    kill(driver, signal.SIGINT)
    before = hpckit.manifest()
    refused = hpckit("resume", "last", "--ranks", 3)
    assert refused.code == 2
    assert "resume with --ranks 2" in refused.stderr
    assert (
        (hpckit.manifest().state, hpckit.manifest().ranks)
        == ("interrupted", 2)
        == (before.state, before.ranks)
    )
    assert hpckit("resume", "last").code == 0


def test_a_reader_that_goes_away_does_not_stop_the_ranks(hpckit):
    hpckit.job(
        QUICK.replace("run.save(", "[run.log('x' * 100) for _ in range(20000)]\n        run.save(")
    )
    line = f"{sys.executable} -m hpckit run job.py | head -1"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=hpckit.directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "x" * 100 + "\n"
    assert done.stderr == ""
    assert hpckit.manifest().state == "completed"


def test_cpus_per_task_reach_the_ranks(hpckit):
    hpckit.job("""
        import os
        from hpckit import spmd

        @spmd(ntasks=2, cpus_per_task=3)
        def count(run):
            run.save("threads", [int(os.environ["OMP_NUM_THREADS"])])
    """)
    assert hpckit("run", "job.py").code == 0
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["threads"][0] == 3
    assert hpckit("run", "job.py", env={"OMP_NUM_THREADS": "5"}).code == 0
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["threads"][0] == 5


def test_a_checkpoint_that_one_rank_cannot_write_fails_on_all(hpckit):
    hpckit.job("""
        import resource, signal
        import numpy as np
        from hpckit import spmd
        from hpckit.errors import StoreError

        @spmd(ntasks=2)
        def small(run):
            run.checkpoint(step=1, x=np.zeros(10))
            if run.rank == 1:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            try:
                run.checkpoint(step=2, x=np.zeros(100_000))
                failed = False
            except StoreError:
                failed = True
            if run.rank == 1:
                resource.setrlimit(
                    resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                )
            state = run.restore()
            run.save("failed", [failed], offset=(run.rank,), shape=(run.size,))
            run.save("restored", [state["step"]], offset=(run.rank,), shape=(run.size,))
    """)
    ended = hpckit("run", "job.py")
    assert ended.code == 0, ended.stderr
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["failed"][()].tolist() == [1, 1]
        assert file["restored"][()].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ("x={'a': 1}", "run.checkpoint(x=…): a dict cannot be kept"),
        ("x=None", "a NoneType cannot be kept"),
        ("**{'a/b': 1}", "'a/b' cannot be the name of a value"),
    ],
)
def test_what_a_checkpoint_cannot_keep(hpckit, values, text):
    hpckit.job(f"""
        from hpckit import spmd

        @spmd(ntasks=2)
        def odd(run):
            run.checkpoint(step=1, {values})
    """)
    ended = hpckit("run", "job.py")
    assert ended.code == 1
    assert text in ended.stderr, ended.stderr


def test_what_a_checkpoint_keeps(hpckit):
    hpckit.job("""
        import numpy as np
        from hpckit import spmd

        @spmd(ntasks=2)
        def kept(run):
            given = {"n": 3, "name": "Gödel", "words": np.array(["a", "bc"]), "z": 1j, "on": True}
            run.checkpoint(step=4, **given)
            found = run.restore()
            assert found.pop("step") == 4
            assert set(found) == set(given)
            assert all(np.array_equal(found[name], given[name]) for name in given)
            assert isinstance(found["name"], str)
    """)
    ended = hpckit("run", "job.py")
    assert ended.code == 0, ended.stderr


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("run.rank == 1 and run.save('a', [1.0])", "rank 1 saved it without an offset"),
        ("run.save('a', [1.0] * (run.rank + 1), offset=(0,))", "field 'a': rank 1 saved"),
    ],
)
def test_fields_that_would_be_lost_are_an_error(hpckit, body, text):
    hpckit.job(f"from hpckit import spmd\n@spmd(ntasks=2)\ndef lost(run):\n    {body}\n")
    ended = hpckit("run", "job.py")
    assert ended.code == 1
    assert text in ended.stderr, ended.stderr


def test_a_returned_value_is_not_lost_without_a_word(hpckit):
    hpckit.job("from hpckit import spmd\n@spmd(ntasks=2)\ndef back(run): return {'a': 1}\n")
    ended = hpckit("run", "job.py")
    assert ended.code == 0
    assert ended.stdout.splitlines()[0] == (
        "hpckit: back returned a value, which is not kept: use run.save"
    )


@pytest.mark.parametrize("name", ["HPCKIT_MPI_TIMEOUT", "HPCKIT_NTASKS", "OMPI_COMM_WORLD_SIZE"])
@pytest.mark.parametrize("value", ["abc", "0", "-1"])
def test_an_environment_that_makes_no_sense(hpckit, name, value):
    hpckit.job(QUICK)
    ended = hpckit("exec", "job.py", env={name: value})
    assert ended.code == 2
    assert ended.stderr == f"hpckit: ${name}={value!r}: must be a whole number above 0\n"
    assert [path.name for path in hpckit.directory.iterdir()] == ["job.py"]


def test_lost_results_are_made_again(hpckit):
    hpckit.job(QUICK)
    assert hpckit("run", "job.py").code == 0
    before = hpckit.digest()
    (hpckit.last() / "results.h5").unlink()
    assert hpckit("resume", "last").code == 0
    assert hpckit.digest() == before


def test_a_refusal_by_hand_is_told_once(hpckit):
    hpckit.job(DIVERGES)
    process = by_hand(hpckit, 2, "exec", "job.py", "late=false")
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert stderr.count("hpckit: n=1 is too small") == 1
    assert hpckit.manifest().state == "failed"
    blocked = hpckit.directory / "file"
    blocked.touch()
    process = by_hand(hpckit, 2, "exec", "job.py", "--output", str(blocked / "runs"))
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert stderr.count("no run directory can be made there") == 1


def test_a_new_run_that_is_refused_after_work_has_failed(hpckit):
    hpckit.job(
        DIVERGES.replace("if not late:", "run.checkpoint(step=0, x=1.0)\n        if not late:")
    )
    ended = hpckit("run", "job.py", "late=false")
    assert (ended.code, hpckit.manifest().state) == (1, "failed")
