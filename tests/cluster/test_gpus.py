"""Which cards tasks have on a cluster: Slurm gives them out, hpckit binds and proves it.

The cards are those of a driver that works on the processor, two a node, as many as Slurm counts.
"""

from __future__ import annotations

import itertools

import h5py
import pytest
from cluster.hpckit_there import There
from gpu_here import PYTHON, SOFTWARE, variables

if not (SOFTWARE / "libcuda.so.1").is_file():
    pytest.skip(
        "needs PyCUDA: .ci/cuda FOLDER builds it, and HPCKIT_GPU_ENV=FOLDER names it",
        allow_module_level=True,
    )


class OnCards(There):
    """hpckit on the cluster, on nodes with cards."""

    python = str(PYTHON)

    def __init__(self, slurm, kernels):
        super().__init__(slurm)
        own = variables(kernels)
        lines = [f"export {name}={own[name]!r}" for name in own if name != "PATH"]
        path = ":".join(own["PATH"].split(":")[:3])
        lines.append(f"export PATH={path}:$PATH")
        self.site_text = f"prologue = {lines!r}\n" + "\n".join(self.site_text.splitlines()[1:])
        self.site.write_text(self.site_text)

    def cards(self, run):
        """Return host and UUID of each card that each process of a run had."""
        return [(card["host"], card["uuid"]) for card in self.manifest(run).gpus]


@pytest.fixture
def there(slurm, tmp_path_factory):
    """Two cards on each node."""
    return OnCards(slurm, tmp_path_factory.mktemp("kernels"))


RANKS = """
    import os
    from hpckit import spmd

    @spmd({options}, mem_per_cpu="200M", walltime="5m")
    def job(run):
        told = (run.gpu.uuid, os.environ.get("CUDA_VISIBLE_DEVICES"), os.uname().nodename)
        seen = run.comm.gather(told)
        if run.rank == 0:
            print(seen)
"""


def test_slurm_and_the_site_know_of_the_cards(there):
    assert "gpus_per_node = 2" in there.site_text
    ended = there.run("submit", "cavity", "--gpus-per-task", 3, "--ranks", 1)
    assert ended.code == 2
    assert "3 GPUs on a node are more than its 2" in ended.stderr


@pytest.mark.parametrize(
    ("launcher", "options"),
    [("srun", "ntasks=4, nodes=2"), ("srun", "ntasks=2"), ("mpiexec", "ntasks=4, nodes=2")],
)
def test_each_rank_has_a_card_of_its_own(there, launcher, options):
    there.site.write_text(there.site_text.replace('"srun"', f'"{launcher}"'))
    there.job(RANKS.format(options=f"{options}, gpus_per_task=1"))
    run = there.submit("job.py")
    assert there.run("wait", run).code == 0, there("logs", run)
    ranks = int(options[7])
    assert len(set(there.cards(run))) == len(there.cards(run)) == ranks
    for card in there.manifest(run).gpus:
        # srun shows each its own card alone, mpiexec all of them.
        assert card["visible"] == (1 if launcher == "srun" else 2)


def test_ranks_that_share_cards(there):
    there.job(RANKS.format(options="ntasks=4, nodes=1, ntasks_per_gpu=2"))
    run = there.submit("job.py")
    assert there.run("wait", run).code == 0, there("logs", run)
    cards = there.cards(run)
    assert sorted(cards.count(card) for card in set(cards)) == [2, 2]


def test_a_flow_on_the_cards_of_two_nodes_is_that_of_one_processor(there):
    flow = ("cavity", "n=12", "max_time=1")
    run = there.submit(*flow, "--ranks", 4, "--gpus-per-task", 1)
    assert there.run("wait", run).code == 0, there("logs", run)
    assert len(set(there.cards(run))) == 4
    assert there.digest(run) == there.local_digest(*flow, "--ranks", 1)


FARM = """
    import os, time
    from hpckit import farm

    @farm(gpus_per_task=1, mem="250M", walltime="5m")
    def job(task, i: int = 0):
        card, begun = task.gpu.uuid, time.time()
        time.sleep(0.3)
        return {"card": card, "host": os.uname().nodename, "begun": begun, "ended": time.time()}
"""


@pytest.mark.parametrize(
    "how",
    [
        ("--elements", 5, "--workers", 1),
        ("--elements", 2, "--workers", 2),
        ("--engine", "dask", "--max-workers", 4, "--workers", 2),
    ],
    ids=["elements", "workers", "pilots"],
)
def test_no_two_tasks_of_a_farm_are_at_one_card_at_a_time(there, how):
    if "dask" in how:
        pytest.importorskip("distributed")
    there.job(FARM)
    run = there.submit("job.py", "i=range(30)", *how)
    assert there.run("wait", run).code == 0, there("logs", run)
    with h5py.File(run / "results.h5") as file:
        columns = [file[name].asstr()[()] for name in ("host", "card")]
        tasks = sorted(zip(*columns, file["begun"], file["ended"], strict=True))
    assert len({task[:2] for task in tasks}) > 1
    for (*card, _, ended), (*other, begun, _) in itertools.pairwise(tasks):
        assert card != other or ended <= begun
