"""Runs on a disk that is full: on a small file system of their own, so for root alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root"
)

FARM = """
    from hpckit import farm

    @farm
    def big(task, n: int = 0):
        return {"x": task.rng.random(25_000)}
"""


@pytest.fixture
def disk(hpckit):
    """A tmpfs under the runs, and a function that makes it larger."""
    hpckit.runs.mkdir()

    def size(megabytes: int, *options: str):
        mount = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={megabytes}m", *options])]
        done = subprocess.run([*mount, "tmpfs", hpckit.runs], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")

    size(8)
    yield lambda megabytes: size(megabytes, "remount")
    subprocess.run(["umount", "-l", hpckit.runs], check=True)


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_a_farm_on_a_full_disk(hpckit, disk, engine):
    hpckit.job(FARM)
    sweep = ["job.py", "n=range(60)"]
    assert hpckit("run", *sweep, "--output", hpckit.directory / "elsewhere").code == 0
    (elsewhere,) = (hpckit.directory / "elsewhere").iterdir()

    workers = [] if engine == "serial" else ["--workers", 2]
    ended = hpckit("run", *sweep, "--engine", engine, *workers)
    assert ended.code == 1, ended.stdout
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"hpckit: {hpckit.last()}/")
    assert "no space left" in line
    assert line.endswith("make room and resume the run; what was sealed before is intact")
    hpckit.assert_all_gone()

    again = hpckit("resume", "last")
    assert again.code == 1
    assert len(again.stderr.splitlines()) == 1
    disk(100)
    assert hpckit("resume", "last").code == 0
    assert hpckit.digest() == hpckit.digest(elsewhere)


def test_a_disk_that_is_full_from_the_start(hpckit, disk):
    hpckit.job(FARM)
    with (hpckit.runs / "ballast").open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(bytes(4096)):
            pass
    ended = hpckit("run", "job.py")
    assert ended.code in (1, 2)
    assert len(ended.stderr.splitlines()) == 1
    assert [path.name for path in hpckit.run_dirs()] == ["ballast"]


def test_files_to_keep_on_a_full_disk(hpckit, disk):
    """Which task meets the full disk is no fault of its own: it is done again."""
    hpckit.job(
        """
        command = "dd if=/dev/zero of=data-{n} bs=1M count=1 status=none"
        keep = ["data-*"]
        [params]
        n = 0
        """,
        "job.toml",
    )
    ended = hpckit("run", "job.toml", "n=range(12)", "--workers", 2)
    assert ended.code == 1, ended.stdout
    (line,) = ended.stderr.splitlines()
    assert "/kept/" in line
    assert "no space left" in line
    disk(100)
    assert hpckit("resume", "last").code == 0
    assert hpckit.manifest().counts == {"missing": 0, "done": 12, "failed": 0}
    assert len(list((hpckit.last() / "kept").glob("*/data-*"))) == 12
