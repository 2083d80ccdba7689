"""Nodes that die and are cut off again and again while pilots work: each task stands once."""

from __future__ import annotations

import json
import random
import time
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from cluster.configuration import NODES
from cluster.hpckit_there import There

if find_spec("dask_jobqueue") is None:
    # Not imported: that would have Ctrl-C end this process on the spot.
    pytest.skip("needs dask-jobqueue: pip install 'hpckit[dask]'", allow_module_level=True)

JOB = """
    import os, time
    import numpy as np
    from hpckit import farm

    @farm(seed=7, mem="900M", walltime="10m")
    def nap(task, i: int = 0):
        time.sleep(float(os.environ.get("NAP", 0)))
        return {"x": task.rng.random(), "curve": np.arange(i % 5), "text": f"t{i}"}
"""
TASKS_A_SECOND = 60
"""So that there is work left at the end of the bad times: six workers, two on a node, do 120."""


@pytest.fixture
def alone(slurm_alone):
    """hpckit on a cluster that a test may break."""
    return There(slurm_alone)


def break_something(slurm, random_: random.Random, broken: dict[str, str]) -> None:
    """Kill a node, cut one off, mend one, or restart the controller."""
    at_work = slurm("squeue", "-h", "-t", "R", "-o", "%N").split()
    whole = [node for node in at_work if node in NODES and node not in broken]
    act = random_.choice(["kill", "kill", "cut", "mend", "mend", "controller"])
    if act == "controller":
        slurm.restart_controller()
    elif act == "mend" and broken:
        mend(slurm, broken, random_.choice(sorted(broken)))
    elif whole and len(broken) < len(NODES) - 1:
        node = random_.choice(whole)
        broken[node] = act if act in ("kill", "cut") else "kill"
        (slurm.cut if broken[node] == "cut" else slurm.kill)(node)


def mend(slurm, broken: dict[str, str], node: str) -> None:
    (slurm.heal if broken.pop(node) == "cut" else slurm.start)(node)


@pytest.mark.timeout(900)
def test_whatever_happens_to_nodes_each_task_stands_once(alone, request):
    seconds = 300 if request.config.getoption("--long") else 16
    tasks = TASKS_A_SECOND * seconds
    alone.job(JOB)
    on_pilots = ("--engine", "dask", "--site", "here.toml", "--max-workers", 6, "--workers", 1)
    driver = alone.start(
        "run", "job.py", f"i=range(1,{tasks + 1})", *on_pilots, env={"NAP": "0.05"}
    )
    alone.slurm.wait_for(lambda: list(alone.folder.glob("runs/*/progress.json")), 60)
    (run,) = alone.folder.glob("runs/*")
    told = run / "progress.json"
    alone.slurm.wait_for(lambda: json.loads(told.read_text())["done"], 60)
    random_, broken = random.Random(seconds), {}
    end = time.monotonic() + seconds
    while driver.poll() is None and time.monotonic() < end:
        break_something(alone.slurm, random_, broken)
        time.sleep(random_.uniform(1, 4))
    for node in list(broken):
        mend(alone.slurm, broken, node)
    stdout, stderr = driver.communicate(timeout=500)
    assert driver.returncode == 0, stderr
    assert f"{tasks} tasks done" in stdout
    with h5py.File(run / "results.h5") as file:
        assert np.all(file["task_state"][()] == file["task_state"][0])
        assert len(np.unique(file["text"].asstr()[()])) == tasks
    assert alone.digest(run) == alone.local_digest("job.py", f"i=range(1,{tasks + 1})")
