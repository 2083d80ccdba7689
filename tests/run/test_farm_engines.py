"""Farms on every engine: the same results, whatever they return and print."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

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
        }
"""

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
    ended = hpckit("run", "job.py", "n=range(4)", "--workers", "2")
    assert ended.code in (0, 3), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_the_seed_changes_results(hpckit, engine):
    hpckit.job("""
        from hpckit import farm
        @farm
        def f(task):
            return task.rng.random()
    """)
    for seed in (1, 2, 1):
        arguments = ["run", "job.py", "repeat=5", "--seed", seed, "--engine", engine]
        assert hpckit(*arguments, "--workers", 2).code == 0
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
    ended = hpckit("run", "job.py", "n=range(10)", "--engine", engine, "--workers", 2)
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
