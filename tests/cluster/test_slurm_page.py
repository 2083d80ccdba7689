"""docs/slurm.md, followed word by word on a real cluster."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cluster.hpckit_there import BIN, There

pytest.importorskip("mpi4py")

ELASTIC = Path(__file__).parents[2] / "docs" / "elastic.md"
PAGE = Path(__file__).parents[2] / "docs" / "slurm.md"
COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)
FILE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [PAGE, ELASTIC], ids=lambda page: page.stem)
def test_the_page_works(slurm, page):
    there = There(slurm)
    environment = {
        **slurm.env,
        "PATH": f"{BIN}:{slurm.env['PATH']}",
        "XDG_CONFIG_HOME": str(there.folder / "config"),
    }
    environment.pop("HPCKIT_RUNS", None)
    for line in COMMAND.findall(page.read_text()):
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=there.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    listed = there("ls")
    assert listed.count("completed") == 2


def test_its_program_with_must_stop_runs(slurm):
    there = There(slurm)
    ((name, text),) = FILE.findall(PAGE.read_text())
    (there.folder / name).write_text(text)
    run = there.submit(name, "--walltime", "5m")
    assert there.run("wait", run).code == 0
    assert there.digest(run) == there.local_digest(name, "--ranks", 2)
