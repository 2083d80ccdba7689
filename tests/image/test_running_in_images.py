"""Runs in an image: the same results, and the same image again."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import h5py
import pytest
from cli.crates import entities, issues
from endings import kill

DRAW = """
    import os, sys
    from pathlib import Path
    from hpckit import farm

    @farm
    def draw(task, n: int = 3, file: Path = Path("data.txt")):
        print("SECRET" in os.environ, sys.prefix)
        if n == 5 and not file.with_name("mended").exists():
            raise ValueError(n)
        return {"x": task.rng.random(n), "text": file.read_text()}
"""
ENGINES = ["serial", "threads", "processes", "mpi", "dask"]
FLOW = """
    import numpy as np
    from hpckit import spmd

    @spmd(ntasks=2)
    def flow(run, n: int = 12):
        rows = np.array_split(np.arange(n), run.size)[run.rank]
        run.save("u", np.sin(rows), offset=(rows[0],), shape=(n,), dims=("x",))
        run.record("ranks", run.comm.allreduce(1))
"""


@pytest.fixture
def contained(hpckit, reference_image):
    """Run hpckit with what starts images."""

    def run(*arguments, env=None):
        apptainer = {name: value for name, value in os.environ.items() if "APPTAINER" in name}
        return hpckit(*arguments, env={**apptainer, "SECRET": "s", **(env or {})})

    return run


@pytest.fixture
def draw(hpckit, tmp_path_factory):
    """A job with an input elsewhere; return the arguments for it."""
    hpckit.job(DRAW)
    data = tmp_path_factory.mktemp("inputs") / "data.txt"
    data.write_text("ü")
    return ["job.py", "n=range(1,20)", f"file={data}"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_farm_gives_the_digest_of_outside(hpckit, contained, draw, reference_image, engine):
    (hpckit.directory / "mended").touch()
    for options in (["--image", reference_image], []):
        ended = contained("run", *draw, "--engine", engine, *options)
        assert ended.code in (0, 3), ended.stderr
    inside, outside = hpckit.run_dirs()
    assert hpckit.digest(inside) == hpckit.digest(outside)
    manifest = hpckit.manifest(inside)
    assert manifest.image.path == str(reference_image)
    assert manifest.image.apptainer
    assert manifest.environment["packages"] != hpckit.manifest(outside).environment["packages"]
    logs = "".join(path.read_text() for path in inside.glob("logs/*"))
    assert "False /opt/hpckit" in logs
    assert "True" not in logs
    hpckit.assert_all_gone()


def test_ranks_give_the_digest_of_outside(hpckit, contained, reference_image):
    hpckit.job(FLOW)
    for options in (["--image", reference_image], []):
        ended = contained("run", "job.py", *options)
        assert ended.code == 0, ended.stderr
    inside, outside = hpckit.run_dirs()
    assert hpckit.digest(inside) == hpckit.digest(outside)
    assert (
        hpckit.manifest(inside).environment["packages"]
        != (hpckit.manifest(outside).environment["packages"])
    )
    assert contained("rerun", inside).stdout.endswith(f"identical to {inside.name}, bit for bit\n")
    assert hpckit.manifest().image == hpckit.manifest(inside).image


def test_ranks_that_share_their_namespaces(hpckit, contained, reference_image):
    hpckit.job(FLOW)
    for options in (["--image", reference_image], []):
        ended = contained("run", "job.py", *options, env={"APPTAINER_SHARENS": "1"})
        assert ended.code == 0, ended.stderr
    inside, outside = hpckit.run_dirs()
    assert hpckit.digest(inside) == hpckit.digest(outside)


def test_a_run_in_an_image_as_a_crate(hpckit, contained, reference_image):
    hpckit.job(FLOW)
    assert contained("run", "job.py", "--image", reference_image).code == 0
    ended = hpckit("export", "last", "--to", "rocrate", "-o", "crate")
    assert ended.code == 0, ended.stderr
    assert issues(hpckit.directory / "crate") == []
    found = entities(hpckit.directory / "crate")
    assert found[f"#{hpckit.last().name}"]["containerImage"] == {"@id": "#image"}
    assert found["#image"]["sha256"] == hpckit.manifest().image.sha256


def test_ranks_of_another_mpi_are_no_silent_singletons(hpckit, contained, mpich_image):
    hpckit.job(FLOW)
    ended = contained("run", "job.py", "--image", mpich_image)
    assert ended.code == 1
    assert f"`hpckit image check {mpich_image}`" in ended.stderr
    assert not (hpckit.last() / "results.h5").exists()


def test_a_run_goes_on_in_its_image_alone(hpckit, contained, draw, reference_image):
    image = hpckit.directory / "own.sif"
    shutil.copy(reference_image, image)
    assert contained("run", *draw, "--image", "own.sif").code == 3
    first = hpckit.last()
    with image.open("ab") as file:
        file.write(b"x")
    for command in ("retry", "rerun"):
        ended = contained(command, first)
        assert ended.code == 2
        assert f"{first.name}: the image {image} is another one than it was" in ended.stderr
        assert ended.stderr.endswith(f"take this one all the same: --image {image}\n")
    assert hpckit.run_dirs() == [first]
    (Path(draw[2].partition("=")[2]).parent / "mended").touch()
    assert contained("retry", first, "--image", image).code == 0
    with h5py.File(first / "results.h5") as file:
        assert (file["task_state"][()] == 1).all()
    assert hpckit.manifest(first).image.size == image.stat().st_size
    image.unlink()
    ended = contained("rerun", first)
    assert ended.code == 2
    assert "cannot be read: No such file or directory" in ended.stderr
    assert contained("rerun", first, "--image", "none").code == 0


def test_a_killed_driver_leaves_nothing_and_the_run_goes_on(hpckit, contained, reference_image):
    hpckit.job("""
        import time
        from hpckit import farm
        @farm(image="own.sif", seed=3)
        def nap(task, n: int = 0):
            time.sleep(0.02)
            return {"x": task.rng.random()}
    """)
    (hpckit.directory / "own.sif").symlink_to(reference_image)
    env = {name: value for name, value in os.environ.items() if "APPTAINER" in name}
    driver = hpckit.start("run", "job.py", "n=range(200)", "--workers", 2, env=env)
    hpckit.until(
        lambda: hpckit.run_dirs() and list((hpckit.last() / "segments").glob("w*.h5")),
        "it is begun",
    )
    kill(driver)
    hpckit.assert_all_gone()
    ended = contained("resume", "last")
    assert ended.code == 0, ended.stderr
    digest = hpckit.digest()
    assert contained("run", "job.py", "n=range(200)", "--image", "none").code == 0
    assert hpckit.digest() == digest


PAGE = Path(__file__).parents[2] / "docs/apptainer.md"
BLOCK = re.compile(r"<!-- image commands -->\n```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_commands_of_the_docs(hpckit, contained, reference_image):
    (hpckit.directory / "hpckit.sif").symlink_to(reference_image)
    lines = "".join(BLOCK.findall(PAGE.read_text())).splitlines()
    assert len(lines) == 5
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "hpckit"
        ended = contained(*arguments, env={"PATH": os.environ["PATH"]})
        assert ended.code == 0, f"{line}: {ended.stdout}{ended.stderr}"


@pytest.mark.parametrize("name", ["a,b", "a:b", 'a "b"', "a b", "ü"])
def test_odd_folders_are_seen(hpckit, contained, reference_image, name):
    there = hpckit.directory / name
    there.mkdir()
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return n\n")
    (hpckit.directory / "job.py").rename(there / "job.py")
    output = hpckit.directory / f"runs {name}"
    output.mkdir()
    ended = contained("run", there / "job.py", "--image", reference_image, "--output", output)
    assert ended.code == 0, ended.stderr


def test_an_image_with_another_hpckit(hpckit, contained, reference_image):
    """What starts it is newer, say, and tells it more than it knows."""
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return n\n")
    process = hpckit.popen(
        [
            *("apptainer", "--quiet", "exec", "--bind", str(hpckit.directory)),
            *(str(reference_image), "hpckit", "run", "job.py"),
        ],
        env={"APPTAINER_USERNS": "1", "APPTAINERENV_HPCKIT_IMAGE": '{"new": 1}'},
    )
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "build the image again" in stderr
    assert len(stderr.splitlines()) == 1


def test_a_folder_of_runs_that_is_still_to_be_made(
    hpckit, contained, draw, reference_image, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a/b"
    ended = contained("run", *draw, "--image", reference_image, "--output", elsewhere)
    assert ended.code == 3, ended.stderr
    (run,) = elsewhere.iterdir()
    assert (run / "results.h5").is_file()
