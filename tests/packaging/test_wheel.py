"""The wheel, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*argv: str, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        argv, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_wheel_runs_its_jobs_and_makes_projects(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--no-cache-dir")
    wheels, site, work = (tmp_path / name for name in ("wheels", "site", "work"))
    work.mkdir()
    # A copy, so that the build leaves nothing in the checkout.
    run("git", "clone", "--quiet", str(ROOT), str(tmp_path / "source"), cwd=tmp_path)
    run(*pip, "wheel", "--no-deps", "-w", str(wheels), str(tmp_path / "source"), cwd=tmp_path)
    (wheel,) = wheels.glob("hpckit-*.whl")
    run(*pip, "install", "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path)

    def hpckit(*arguments: str) -> str:
        return run(sys.executable, "-m", "hpckit", *arguments, cwd=work, PYTHONPATH=str(site))

    where = run(
        sys.executable, "-c", "import hpckit; print(hpckit.__file__)", cwd=work,
        PYTHONPATH=str(site),
    )  # fmt: skip
    assert where.strip().startswith(str(site))
    assert "1 task done" in hpckit("run", "ising", "T=2.0", "sweeps=10")
    assert (site / "hpckit/py.typed").is_file()
    hpckit("init", "project")
    assert (work / "project/jobs/primes.toml").is_file()
