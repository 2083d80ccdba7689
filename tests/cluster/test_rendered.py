"""What `hpckit render` prints and `hpckit site init` writes, on a real Slurm."""

from __future__ import annotations

import re
import shlex
import sys
import textwrap

import pytest

from hpckit.render.script import Script, directives, render
from hpckit.spec.resources import Resources
from hpckit.spec.site import Site

pytest.importorskip("mpi4py")

ODD = ["plain.out", "a b.out", 'it\'s "quoted".out', "$(touch pwned) `id`;#x.out", "é.out"]

FLOW = """
    import socket
    import numpy as np
    from hpckit import spmd

    @spmd(ntasks=4, nodes=2, walltime="5m")
    def flow(run, n: int = 12):
        print(f"is on {socket.gethostname()}")
        rows = np.array_split(np.arange(n), run.size)[run.rank]
        run.save("u", np.sin(rows), offset=(rows[0],), shape=(n,), dims=("x",))
        run.record("ranks", run.comm.allreduce(1))
"""

FARM = """
    from hpckit import farm

    @farm(mem="100M", walltime="5m")
    def draw(task, n: int = 3):
        return {"x": task.rng.random(n)}
"""

WHERE = """
    import socket, time
    from hpckit import farm

    @farm
    def where(task, n: int = 3):
        print(f"task {n} ran on {socket.gethostname()}")
        time.sleep(0.05)
        return {"x": task.rng.random(n)}
"""


def hpckit(slurm, *arguments):
    return slurm(sys.executable, "-m", "hpckit", *arguments)


def digest(slurm, folder):
    (run,) = (slurm.directory / folder).iterdir()
    return hpckit(slurm, "digest", str(run)).split()[0]


def said(slurm, pattern):
    """Return what the logs of the run on the cluster have."""
    logs = (slurm.directory / "far").glob("*/logs/*")
    return [found for path in logs for found in re.findall(pattern, path.read_text())]


@pytest.mark.parametrize("launcher", ["srun", "mpiexec"])
def test_ranks_on_two_nodes_give_the_local_digest(slurm, launcher):
    (slurm.directory / "flow.py").write_text(textwrap.dedent(FLOW))
    site = hpckit(slurm, "site", "init", "--print")
    assert 'mpi = "pmix"' in site
    path = slurm.directory / "here.toml"
    # mpiexec is the environment's own, which the prologue brings onto the PATH.
    bin_folder = sys.executable.rpartition("/")[0]
    site = site.replace('launcher = "srun"', f'launcher = "{launcher}"')
    path.write_text(f'prologue = ["export PATH={bin_folder}:$PATH"]\n{site}')
    script = hpckit(
        slurm, "render", "flow.py", "--site", str(path), "--output", str(slurm.directory / "far")
    )
    job = slurm.sbatch(script)
    assert slurm.wait(job, 120) == "COMPLETED"
    assert "results: " in (slurm.directory / f"flow-{job}.out").read_text()
    hpckit(slurm, "run", "flow.py", "--ranks", "4", "--output", "near")
    assert digest(slurm, "far") == digest(slurm, "near")
    assert len(set(said(slurm, r"is on (\w+)"))) == 2


def test_a_farm_in_one_allocation_gives_the_local_digest(slurm):
    (slurm.directory / "draw.py").write_text(textwrap.dedent(FARM))
    (slurm.directory / "here.toml").write_text(hpckit(slurm, "site", "init", "--print"))
    script = hpckit(
        slurm, "render", "draw.py", "n=range(1,40)", "--site", "./here.toml", "--output", "far"
    )
    assert "#SBATCH --cpus-per-task=4\n" in script
    job = slurm.sbatch(script)
    assert slurm.wait(job, 120) == "COMPLETED"
    hpckit(slurm, "run", "draw.py", "n=range(1,40)", "--output", "near")
    assert digest(slurm, "far") == digest(slurm, "near")


def test_a_farm_on_the_ranks_of_two_nodes_gives_the_local_digest(slurm):
    job_file = slurm.directory / "where.py"
    job_file.write_text(textwrap.dedent(WHERE))
    run = [sys.executable, "-m", "hpckit", "run", "where.py", "n=range(40)"]
    command = shlex.join([*run, "--engine", "mpi", "--output", "far"])
    job = slurm.sbatch(command, "-N2", "-n4", "--ntasks-per-node=2", "--mem-per-cpu=300M")
    assert slurm.wait(job, 120) == "COMPLETED", slurm.output(job)
    hpckit(slurm, "run", "where.py", "n=range(40)", "--output", "near")
    assert digest(slurm, "far") == digest(slurm, "near")
    assert len(set(said(slurm, r"task (\d+) ran on"))) == 40
    assert len(set(said(slurm, r"ran on (\w+)"))) == 2


@pytest.mark.parametrize("name", ODD)
def test_a_directive_arrives_as_it_was(slurm, name):
    site = Site(name="own", launcher="none")
    asked = Resources.from_options({"walltime": "1m"})
    options = directives("odd", asked, site, None, str(slurm.directory / name))
    script = Script("spmd.sh", "odd", options, ["echo", "said"])
    job = slurm.sbatch(render(script, site, "0.1.0"))
    assert slurm.wait(job) == "COMPLETED"
    assert (slurm.directory / name).read_text() == "said\n"
    assert not (slurm.directory / "pwned").exists()


def test_a_backslash_arrives(slurm):
    # In a file's name it would turn off Slurm's %j and the like.
    site = Site(name="own", launcher="none")
    script = Script("spmd.sh", "odd", {"comment": 'a\\b "c" \\\\ d', "ntasks": 1}, ["sleep", "5"])
    job = slurm.sbatch(render(script, site, "0.1.0"))
    told = slurm("scontrol", "show", "job", job).splitlines()
    assert '   Comment=a\\b "c" \\\\ d' in [line.rstrip() for line in told]
