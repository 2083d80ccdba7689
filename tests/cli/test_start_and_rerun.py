"""The command line as a whole: its help, its imports, tables of tasks, and rerun."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import h5py
import pytest

from hpckit.analyse.proof import NOTHING
from hpckit.cli.main import COMMANDS, MODULES

FARM = """
    from hpckit import farm

    @farm
    def walk(task, T: float = 1.0, L: int = 8):
        return {"y": T * L, "r": task.rng.random()}
"""


def modules_after(statement):
    """Return the top-level packages that a statement brings in."""
    code = f"import sys\n{statement}\nprint(*sorted(n for n in sys.modules if '.' not in n))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_help_is_light():
    brought = modules_after(
        "sys.argv = ['hpckit', '--help']\nfrom hpckit.cli.main import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code"
    )
    assert not brought & {"numpy", "h5py", "pydantic", "rich", "mpi4py", "dask", "psutil"}


def test_the_package_is_light():
    brought = modules_after("import hpckit")
    assert not brought & {"numpy", "h5py", "mpi4py", "dask", "matplotlib", "xarray"}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_commands_help_is_its_line(name):
    command = import_module(f"hpckit.cli.{MODULES.get(name, name)}").command
    assert command.get_short_help_str(200) == COMMANDS[name]
    assert command.help.splitlines()[0] == COMMANDS[name]


def test_help_and_version(hpckit):
    ended = hpckit("--help")
    assert ended.code == 0
    for name, line in COMMANDS.items():
        assert name in ended.stdout
        assert line in " ".join(ended.stdout.split())
    for name in COMMANDS:
        assert hpckit(name, "-h").code == 0
    assert hpckit("--version").stdout.startswith("hpckit, version ")


def test_a_reader_that_goes_away(hpckit):
    hpckit.job(FARM)
    assert hpckit("run", "job.py").code == 0
    process = hpckit.start("ls")
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait() in (0, 1)
    assert stderr == ""


def test_a_table_of_tasks_with_files_beside_it(hpckit):
    hpckit.job("""
        import time
        from pathlib import Path
        from hpckit import farm

        @farm
        def read(file: Path, k: int = 1):
            time.sleep(0.02)
            return {"text": file.read_text() * k}
    """)
    folder = hpckit.directory / "inputs"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(name)
    rows = [f"{name}.txt,{k}" for name in "abc" for k in range(1, 21)]
    (folder / "tasks.csv").write_text("\n".join(["file,k", *rows]) + "\n")
    arguments = ["job.py", "--tasks", "inputs/tasks.csv", "--workers", 2]
    assert hpckit("run", *arguments).code == 0
    undisturbed = hpckit.digest()
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["text"].asstr()[:3].tolist() == ["a", "aa", "aaa"]
        assert file["text"].asstr()[-1] == "c" * 20
        assert file["file"].asstr()[0] == str(folder / "a.txt")
    inputs = hpckit.manifest().job.inputs
    assert {name: entry["size"] for name, entry in inputs.items()} == {
        str(folder / f"{name}.txt"): 1 for name in "abc"
    }
    driver = hpckit.start("run", *arguments)
    hpckit.until(lambda: len(hpckit.run_dirs()) == 2, "the second run")
    hpckit.until(lambda: (hpckit.last() / "progress.json").exists(), "it has begun")
    driver.kill()
    driver.communicate()
    (folder / "tasks.csv").unlink()
    ended = hpckit("resume", "last")
    assert ended.code == 0, ended.stderr
    assert hpckit.digest() == undisturbed


def test_rerun_is_identical(hpckit):
    hpckit.job(FARM)
    assert hpckit("run", "job.py", "T=1,2,3", "repeat=4", "--seed", 5, "--workers", 2).code == 0
    first = hpckit.last()
    ended = hpckit("rerun", "last", "--engine", "threads", "--workers", 3)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == f"identical to {first.name}, bit for bit"
    assert hpckit.digest() == hpckit.digest(first)
    assert hpckit.manifest().parent == first.name
    assert hpckit.manifest().job.seed == 5


def test_rerun_uses_the_copy_of_an_edited_job(hpckit):
    job = hpckit.job(FARM)
    assert hpckit("run", "job.py", "T=1,2,3").code == 0
    job.write_text(job.read_text().replace("T * L", "T + L"))
    ended = hpckit("rerun", "last")
    assert ended.code == 0, ended.stderr
    assert "identical to" in ended.stdout
    assert "T * L" in (hpckit.last() / "job.py").read_text()


def test_rerun_of_what_is_not_reproducible(hpckit):
    hpckit.job("""
        import os
        from hpckit import farm
        @farm
        def f(n: int = 0):
            return {"same": n, "other": os.urandom(8).hex()}
    """)
    assert hpckit("run", "job.py", "n=range(3)").code == 0
    first = hpckit.last()
    ended = hpckit("rerun", "last")
    assert ended.code == 1
    assert ended.stdout.splitlines()[-3:] == [
        f"differs from {first.name} in other",
        NOTHING,
        f"all of it: hpckit diff {first.name} {hpckit.last().name}",
    ]


def test_rerun_says_what_may_be_why(hpckit):
    hpckit.job("""
        import os
        from pathlib import Path
        from hpckit import farm
        @farm
        def f(n: int = 0, file: Path = Path("data.txt")):
            return len(file.read_text()) + int(os.environ["OMP_NUM_THREADS"]) + n
    """)
    hpckit.job("a", "data.txt")
    assert hpckit("run", "job.py", "n=range(3)").code == 0
    first = hpckit.last()
    hpckit.job("ab", "data.txt")
    record = json.loads((first / "run.json").read_text())
    record["environment"]["packages"]["numpy"] = "1.0"
    record["environment"]["mpi"] = "another"
    record["environment"]["host"] = "elsewhere"
    (first / "run.json").write_text(json.dumps(record))
    ended = hpckit("rerun", first)
    assert ended.code == 1
    told, why, data, mpi, numpy, _ = ended.stdout.splitlines()[-6:]
    assert told == f"differs from {first.name} in result"
    assert why == "what may be why:"
    assert data.startswith("  parameters: input data.txt: ")
    assert mpi == "  environment: mpi: another → none"
    assert numpy.startswith("  packages: numpy: 1.0 → ")


def test_rerun_of_a_run_without_results(hpckit):
    hpckit.job(FARM)
    assert hpckit("run", "job.py").code == 0
    (hpckit.last() / "results.h5").unlink()
    ended = hpckit("rerun", "last")
    assert ended.code == 1
    assert len(ended.stderr.splitlines()) == 1
    assert len(hpckit.run_dirs()) == 1
