"""What cannot be used: one line that says why, exit 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

FARM = """
    from hpckit import farm

    @farm
    def walk(task, T: float = 1.0, L: int = 8, name: str = "x"):
        return {"y": T * L}
"""

SPMD = """
    from hpckit import spmd

    @spmd(ntasks=2)
    def flow(run, n: int = 4):
        run.record("n", n)
"""


def refused(hpckit, *arguments, env=None):
    """Run hpckit and return the one line that it must end with."""
    there = hpckit.run_dirs()
    ended = hpckit(*arguments, env=env)
    assert ended.code == 2, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("hpckit: ")
    assert hpckit.run_dirs() == there
    return line


def test_a_missing_job_file(hpckit):
    assert refused(hpckit, "run", "there.py") == "hpckit: there.py: no such job file"
    assert "no job 'nothere'" in refused(hpckit, "run", "nothere")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n\nimport nosuchmodule\n", "job.py:3: does not import: ModuleNotFoundError"),
        ("x = 1\nx +\n", "job.py:2: does not import: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "job.py:2: does not import: SystemExit"),
        ("x = 1\n", "job.py: no job in it"),
        (
            "from hpckit import farm\n@farm\ndef a(): pass\n@farm\ndef b(): pass\n",
            "job.py: 2 jobs in it",
        ),
        ("from hpckit import farm\n@farm(mem='4 potatoes')\ndef a(): pass\n", "4 potatoes"),
        ("from hpckit import farm\n@farm(mme='4G')\ndef a(): pass\n", "mme"),
    ],
)
def test_a_job_file_that_is_none(hpckit, text, told):
    hpckit.job(text)
    assert told in refused(hpckit, "run", "job.py")


@pytest.mark.parametrize("command", ["run", "exec"])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["Q=1"], "Q: unknown parameter"),
        (["T"], "T"),
        (["T=abc"], "T: "),
        (["L=1.5"], "L: "),
        (["T="], "T"),
        (["L=range(0)"], "L"),
        (["T=linspace(0,1,0)"], "T"),
        (["L=range(1000000000)"], "1000000000"),
        (["repeat=1000000000"], "1000000000"),
        (["L=range(100000)", "repeat=100000"], "10000000000"),
        (["T=__import__('os')"], "T: "),
    ],
)
def test_parameters_that_do_not_fit(hpckit, command, arguments, told):
    hpckit.job(FARM)
    line = refused(hpckit, command, "job.py", *arguments)
    assert told in line.replace("_", "").replace(",", "")


def test_an_unknown_toml_key(hpckit):
    hpckit.job('command = "true"\nkepp = ["a"]\n', "job.toml")
    line = refused(hpckit, "run", "job.toml")
    assert "job.toml" in line
    assert "kepp" in line
    hpckit.job('command = "true"\n[resources]\nmem = "4 potatoes"\n', "job.toml")
    assert "4 potatoes" in refused(hpckit, "run", "job.toml")


@pytest.mark.parametrize("output", ["file", "file/below", "/proc/hpckit", "/dev/null"])
def test_an_output_directory_that_cannot_be(hpckit, output):
    hpckit.job(FARM)
    (hpckit.directory / "file").touch()
    line = refused(hpckit, "run", "job.py", "--output", output)
    assert output.split("/below")[0] in line
    assert "--output" in line


def test_options_of_the_other_shape(hpckit):
    hpckit.job(FARM)
    line = refused(hpckit, "run", "job.py", "--ranks", 2)
    assert line == "hpckit: --ranks is for spmd jobs: a farm takes --workers N"
    hpckit.job(SPMD)
    for option in (["--engine", "threads"], ["--workers", "2"]):
        line = refused(hpckit, "run", "job.py", *option)
        assert line.endswith("for farms: an spmd job takes --ranks N")


def test_an_spmd_job_takes_one_point(hpckit):
    hpckit.job(SPMD)
    assert "n" in refused(hpckit, "run", "job.py", "n=1,2")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--engine", "steam"],
        ["--workers", "0"],
        ["--workers", "many"],
        ["--seed", "-1"],
        ["--nosuch"],
        ["--tasks", "missing.csv"],
    ],
)
def test_options_that_do_not_fit(hpckit, arguments):
    hpckit.job(FARM)
    assert arguments[-1] in refused(hpckit, "run", "job.py", *arguments)


@pytest.mark.parametrize(
    "text", ["", "T,Q\n1,2\n", "T,T\n1,2\n", "T\nabc\n", "T,L\n1\n", "T\n", "\x00", "L\n1.5\n"]
)
def test_a_table_that_does_not_fit(hpckit, text):
    hpckit.job(FARM)
    (hpckit.directory / "tasks.csv").write_text(text)
    assert "tasks.csv" in refused(hpckit, "run", "job.py", "--tasks", "tasks.csv")


def test_no_command_and_no_arguments(hpckit):
    assert "nosuch" in refused(hpckit, "nosuch")
    assert "JOB" in refused(hpckit, "run")
    assert "RUN" in refused(hpckit, "resume")


@pytest.mark.parametrize("command", ["resume", "rerun", "status", "logs", "show", "digest"])
def test_an_unknown_run(hpckit, command):
    assert "run 'abc'" in refused(hpckit, command, "abc")
    assert "run 'last'" in refused(hpckit, command, "last")


@pytest.mark.parametrize("command", ["resume", "rerun"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 99}'])
def test_a_damaged_manifest(hpckit, command, text):
    hpckit.job(FARM)
    assert hpckit("run", "job.py").code == 0
    manifest = hpckit.last() / "run.json"
    manifest.write_text(text)
    ended = hpckit(command, "last")
    assert ended.code in (1, 2)
    assert len(ended.stderr.splitlines()) == 1
    assert str(manifest) in ended.stderr


def test_a_manifest_with_a_wrong_key(hpckit):
    hpckit.job(FARM)
    assert hpckit("run", "job.py").code == 0
    manifest = hpckit.last() / "run.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "seconds": "long"}))
    ended = hpckit("resume", "last")
    assert ended.code in (1, 2)
    assert "seconds" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_run_whose_job_copy_is_gone(hpckit):
    hpckit.job(FARM)
    assert hpckit("run", "job.py").code == 0
    (hpckit.last() / "results.h5").unlink()
    (hpckit.last() / "job.py").unlink()
    assert "job.py" in refused(hpckit, "resume", "last")


def test_a_farm_under_an_mpi_launcher(hpckit):
    hpckit.job(FARM)
    line = refused(hpckit, "exec", "job.py", env={"OMPI_COMM_WORLD_SIZE": "4"})
    assert line == (
        "hpckit: a launcher started 4 copies of this command, and each would do the whole job: "
        "start it as hpckit run JOB, once"
    )


def test_parameters_of_an_existing_run_are_fixed(hpckit):
    hpckit.job(SPMD)
    (hpckit.runs / "some").mkdir(parents=True)
    (hpckit.runs / "some" / "run.json").write_text("{}")
    assert "n=3" in refused(hpckit, "exec", "runs/some", "n=3")


def test_an_spmd_job_without_mpi4py(hpckit):
    hpckit.job(SPMD)
    blocked = hpckit.directory / "blocked" / "mpi4py"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'mpi4py'\")")
    path = os.pathsep.join(filter(None, [str(blocked.parent), os.environ.get("PYTHONPATH")]))
    for command in ("run", "exec"):
        line = refused(hpckit, command, "job.py", env={"PYTHONPATH": path})
        assert "pip install 'hpckit[mpi]'" in line


def test_an_spmd_job_without_mpiexec(hpckit):
    """In an environment that shares the packages of this one, but not its programs."""
    hpckit.job(SPMD)
    venv = hpckit.directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    packages = [path for path in sys.path if path.endswith("-packages")]
    root = str(next(p for p in __import__("hpckit").__path__)).removesuffix("/hpckit")
    done = hpckit.popen(
        [str(python), "-m", "hpckit", "run", "job.py"],
        env={"PYTHONPATH": os.pathsep.join([root, *packages]), "PATH": str(venv / "bin")},
    )
    _, stderr = done.communicate()
    assert done.returncode == 2
    (line,) = stderr.splitlines()
    assert "MPI ranks need mpiexec" in line
    assert "pip install 'hpckit[mpi]'" in line
    assert not hpckit.run_dirs()
    shutil.rmtree(venv)
