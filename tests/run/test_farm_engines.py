"""Farms on every engine: the same results, whatever they return and print."""

from __future__ import annotations

import signal
import time

import h5py
import numpy as np
import pytest

from hpckit.run.batch import FarmSpec, run_batch
from hpckit.run.engines import WorkerDied, Workplace, engine_class

VALUES = """
    import os
    import numpy as np
    from hpckit import farm

    @farm
    def values(task, n: int = 1, name: str = "a", z: complex = 1j, yes: bool = True):
        i = task.index
        return {
            "integer": n,
            "big": np.int64(2**40 + i),
            "real": n / 3,
            "single": np.float32(n),
            "complexes": z * n,
            "flag": n % 2 == 0,
            "text": f"{name}-ü-{i}",
            "fixed": np.arange(6.0).reshape(2, 3) * n,
            "ragged": np.arange(i),
            "random": task.rng.random(3),
            "product": (square := task.rng.random((300, 300))) @ square[0],
            "solved": np.linalg.solve(square, square[0]),
        }
"""


def on(engine):
    """Return the options that choose an engine, with two workers where it can have them."""
    return ["--engine", engine, *([] if engine == "serial" else ["--workers", 2])]


ENGINES = [
    ("serial", 1),
    ("threads", 1),
    ("threads", 3),
    ("processes", 1),
    ("processes", 2),
    ("processes", 4),
]


@pytest.mark.parametrize(("engine", "workers"), ENGINES)
def test_all_engines_give_the_same(hpckit, engine, workers):
    hpckit.job(VALUES)
    ended = hpckit("run", "job.py", "n=range(40)", "repeat=2", "--engine", engine,
                   "--workers", workers)  # fmt: skip
    assert ended.code == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == f"results: runs/{hpckit.last().name}/results.h5"
    with h5py.File(hpckit.last() / "results.h5") as file:
        n = file["n"][()]
        assert n.tolist() == [i for i in range(40) for _ in range(2)]
        np.testing.assert_array_equal(file["integer"][()], n)
        np.testing.assert_array_equal(file["real"][()], n / 3)
        np.testing.assert_array_equal(file["complexes"][()], n * 1j)
        np.testing.assert_array_equal(file["flag"][()], n % 2 == 0)
        assert file["single"].dtype == np.float32
        assert file["text"].asstr()[7] == "a-ü-7"
        np.testing.assert_array_equal(file["fixed"][9], np.arange(6.0).reshape(2, 3) * n[9])
        assert len(np.unique(file["random"][()])) == 240
        assert (file["task_state"][()] == 1).all()
        assert (file["tasks/attempts"][()] == 1).all()
    # One digest for all: it is that of the first engine, made anew.
    hpckit("run", "job.py", "n=range(40)", "repeat=2", "--engine", "serial")
    first, second = hpckit.run_dirs()
    assert hpckit.digest(first) == hpckit.digest(second)
    hpckit.assert_all_gone()


def test_a_job_without_context_parameters_or_results(hpckit):
    hpckit.job("from hpckit import farm\n@farm\ndef nothing():\n    pass\n")
    ended = hpckit("run", "job.py")
    assert ended.code == 0, ended.stderr
    assert ": 1 task done in" in ended.stdout


def test_values_of_changing_types(hpckit):
    hpckit.job("""
        from hpckit import farm
        @farm
        def f(n: int = 0):
            return {"v": [1, 2.5, 3j, True][n], "w": None if n % 2 else n}
    """)
    for workers in (1, 2):
        ended = hpckit("run", "job.py", "n=range(4)", "--workers", workers)
        assert ended.code == 0, ended.stderr
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["v"][()].tolist() == [1, 2.5, 3j, 1]
        assert file["w"][::2].tolist() == [0, 2]
        assert file["hpckit/present/w"][()].tolist() == [1, 0, 1, 0]
    first, second = hpckit.run_dirs()
    assert hpckit.digest(first) == hpckit.digest(second)


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_the_seed_changes_results(hpckit, engine):
    hpckit.job("""
        from hpckit import farm
        @farm
        def f(task):
            return task.rng.random()
    """)
    for seed in (1, 2, 1):
        assert hpckit("run", "job.py", "repeat=5", "--seed", seed, *on(engine)).code == 0
    first, second, third = map(hpckit.digest, hpckit.run_dirs())
    assert first == third
    assert first != second


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_prints_go_to_the_logs_with_the_index(hpckit, engine):
    hpckit.job("""
        import sys
        from hpckit import farm
        @farm
        def f(task, n: int = 0):
            print("out", n)
            print("err", n, file=sys.stderr)
            print("open end", n, end="")
            task.log(f"logged {n}")
    """)
    ended = hpckit("run", "job.py", "n=range(10)", *on(engine))
    assert ended.code == 0
    assert "out" not in ended.stdout.replace("runs/", "")
    lines = hpckit.logs().splitlines()
    for n in range(10):
        assert f"[{n}] out {n}" in lines
        assert f"[{n}] err {n}" in lines
        assert f"[{n}] open end {n}logged {n}" in lines
    assert len(lines) == 30


def test_an_open_line_at_a_tasks_end_is_its_own(hpckit):
    hpckit.job("""
        from hpckit import farm
        @farm
        def f(task, n: int = 0):
            print("no newline", n, end="")
    """)
    assert hpckit("run", "job.py", "n=range(5)", "--workers", 1).code == 0
    assert sorted(hpckit.logs().splitlines()) == [f"[{n}] no newline {n}" for n in range(5)]


def test_what_c_code_prints_goes_to_the_logs_with_the_index(hpckit):
    hpckit.job("""
        import os
        from hpckit import farm
        @farm
        def f(task, n: int = 0):
            os.write(1, f"low {n}\\n".encode())
            os.write(2, f"open {n}".encode())
    """)
    assert hpckit("run", "job.py", "n=range(20)", "--workers", 2).code == 0
    lines = hpckit.logs().splitlines()
    for n in range(20):
        assert f"[{n}] low {n}" in lines
        assert f"[{n}] open {n}" in lines


def test_logs_are_bounded(hpckit):
    hpckit.job("""
        import os
        from hpckit import farm
        @farm
        def f(task, n: int = 0):
            for _ in range(100):
                print("x" * 60_000)
                os.write(1, b"y" * 60_000)
    """)
    assert hpckit("run", "job.py", "n=range(2)", "--workers", 1).code == 0
    (log,) = (hpckit.last() / "logs").iterdir()
    assert 4 << 20 <= log.stat().st_size < (4 << 20) + 200
    assert log.read_text().endswith("[hpckit: the log ends here, at its limit of 4 MiB]\n")


def test_files_stay_few(hpckit):
    hpckit.job("""
        from hpckit import farm
        @farm
        def f(n: int = 0):
            return n
    """)
    assert hpckit("run", "job.py", "n=range(20000)", "--workers", 2).code == 0
    assert len([path for path in hpckit.last().rglob("*") if path.is_file()]) <= 6


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_stdout_is_one_for_bytes_and_for_subprocesses(hpckit, engine):
    hpckit.job("""
        import subprocess, sys
        from hpckit import farm
        @farm
        def f(n: int = 0):
            sys.stdout.buffer.write(f"bytes ü {n}\\n".encode(sys.stdout.encoding))
            subprocess.run(["echo", f"child {n}"], stdout=sys.stdout, check=True)
    """)
    ended = hpckit("run", "job.py", "n=range(5)", *on(engine))
    assert ended.code == 0, ended.stderr
    lines = hpckit.logs().splitlines()
    for n in range(5):
        assert f"[{n}] bytes ü {n}" in lines
        # The driver's own descriptor is the terminal's, that of a worker process the log's.
        assert (
            f"[{n}] child {n}" in lines if engine == "processes" else f"child {n}" in ended.stdout
        )


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_threads_of_libraries(hpckit, engine):
    hpckit.job("""
        import os
        from hpckit import farm
        @farm(cpus_per_task=2)
        def f():
            return {name: os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS")}
    """)
    assert hpckit("run", "job.py", *on(engine), env={"OPENBLAS_NUM_THREADS": "3"}).code == 0
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["OMP"].asstr()[0] == "2"
        assert file["OPENBLAS"].asstr()[0] == "3"


def test_sums_of_two_threads_are_the_same_on_all_engines(hpckit):
    """The driver's libraries are loaded before it is known how many threads they may use."""
    hpckit.job("""
        import numpy as np
        from hpckit import farm
        @farm(cpus_per_task=2)
        def f(task):
            square = task.rng.random((700, 700))
            return {"product": square @ square[0], "solved": np.linalg.solve(square, square[0])}
    """)
    for engine in ("serial", "threads", "processes"):
        assert hpckit("run", "job.py", "--engine", engine).code == 0
    assert len(set(map(hpckit.digest, hpckit.run_dirs()))) == 1


def test_threads_load_the_job_once(hpckit):
    hpckit.job("""
        import time
        from pathlib import Path
        from hpckit import farm
        with Path("loads").open("a") as stream:
            stream.write("x")
        time.sleep(0.3)
        @farm
        def f(n: int = 0):
            return n
    """)
    assert hpckit("run", "job.py", "n=range(30)", "--engine", "threads", "--workers", 6).code == 0
    # One is the driver's.
    assert (hpckit.directory / "loads").read_text() == "xx"


def test_a_long_path_to_temporary_files(hpckit):
    """The path of a socket there would be too long: unix(7) allows 107 bytes."""
    folder = hpckit.directory / ("long" * 30)
    folder.mkdir()
    hpckit.job("""
        import tempfile
        from hpckit import farm
        @farm
        def f(n: int = 0):
            return tempfile.gettempdir()
    """)
    ended = hpckit("run", "job.py", "n=range(5)", "--workers", 2, env={"TMPDIR": str(folder)})
    assert ended.code == 0, ended.stderr
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert set(file["result"].asstr()[()]) == {str(folder)}


def test_a_batch_is_given_back_when_its_time_is_up(tmp_path):
    """Cheap tasks before dear ones make a batch that would hold its results for long."""
    job = tmp_path / "job.py"
    job.write_text(
        "import time\nfrom hpckit import farm\n@farm\ndef f(n: int = 0):\n    time.sleep(0.3)\n"
    )
    spec = FarmSpec(tmp_path, job.name, job, (("n", "range(9)"),), has_table=False, seed=0)
    block = run_batch(spec, range(2, 9), 1).block
    assert 0 < len(block) < 7
    assert block.task.tolist() == list(range(2, 2 + len(block)))


def test_each_task_of_a_sweep_whose_cost_rises_is_done_once(hpckit):
    hpckit.job("""
        import time
        from pathlib import Path
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n > 100:
                time.sleep(0.02)
            with Path("done").open("a") as stream:
                stream.write(f"{n}\\n")
            return n
    """)
    assert hpckit("run", "job.py", "n=range(300)", "--workers", 2).code == 0
    done = (hpckit.directory / "done").read_text().split()
    assert sorted(map(int, done)) == list(range(300))
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["result"][()].tolist() == list(range(300))


def test_the_death_of_a_worker_is_seen_while_another_is_long_at_work(tmp_path):
    """The pool's own thread does not watch a worker that was started after it last looked."""
    engine = engine_class("processes")(Workplace(2, tmp_path / "worker-{pid}.log"))
    try:
        engine.submit(time.sleep, 3600)
        doomed = engine.submit(signal.raise_signal, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            doomed.result(timeout=60)
    finally:
        engine.kill()


@pytest.fixture
def plugin(hpckit):
    """Return the environment in which a package brings an engine."""
    folder = hpckit.directory / "site"
    described = folder / "mine-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[hpckit.engines]\nmine = mine_engine:Mine\n")
    (folder / "mine_engine.py").write_text(
        "from hpckit.run.engines.threads import ThreadsEngine\n"
        "class Mine(ThreadsEngine):\n    pass\n"
    )
    return {"PYTHONPATH": str(folder)}


def test_a_package_brings_an_engine(hpckit, plugin):
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0):\n    return n\n")
    assert hpckit("run", "job.py", "n=range(9)", "--engine", "mine", env=plugin).code == 0
    assert hpckit.manifest().engine == "mine"


def test_an_engine_that_is_not_there(hpckit, plugin):
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0):\n    return n\n")
    ended = hpckit("run", "job.py", "--engine", "yours", env=plugin)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert "'yours': there are serial, threads, processes, asyncio, mpi, dask, celery, mine" in line
    assert not hpckit.run_dirs()
